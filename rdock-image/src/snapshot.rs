//! Snapshots: an image's layers with a writable directory on top, described as data. Nobody mounts here.
use crate::layer::chain;
use crate::layer::meta::Ownership;
use crate::layer::remove::remove_tree;
use crate::layout::Layout;
use crate::lock::StoreLock;
use crate::{Digest, Error, Image, ImageStore, Lease, Result};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a snapshot will be mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// The mount will carry `volatile`: nothing is forced to the disk, and the upper directory is thrown away.
    pub volatile: bool,
    /// It is mounted inside a user namespace: `userxattr`. A store of a user other than root implies it.
    pub user_namespace: bool,
}

/// A writable stack of layers. It lives, and keeps its layers, until [`Snapshot::remove`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    layout: Arc<Layout>,
    id: String,
    upper: PathBuf,
    record: Record,
}

/// What to mount. Data only: nothing in this crate mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mount {
    /// An overlay. Mount it with `redirect_dir=off,metacopy=off,index=off`.
    Overlay {
        /// The uppermost first. At least one.
        lower: Vec<PathBuf>,
        /// On a file system that can hold one; has mode and owner of the image's root directory.
        upper: PathBuf,
        /// Empty, on the same file system.
        work: PathBuf,
        /// Mount with `volatile`.
        volatile: bool,
        /// Mount with `userxattr`.
        userxattr: bool,
    },
    /// A read-only EROFS image whose file contents are in other files.
    Erofs {
        /// The metadata image.
        index: PathBuf,
        /// Passed as `device=`, in order.
        devices: Vec<PathBuf>,
    },
}

impl Mount {
    /// Describes an overlay of directories that the caller looks after; `lower` has the uppermost first.
    pub fn overlay(
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        volatile: bool,
        userxattr: bool,
    ) -> Self {
        Self::Overlay {
            lower,
            upper,
            work,
            volatile,
            userxattr,
        }
    }
}

/// The file `chain` of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Of the image; a stack of layers alone has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<Digest>,
    pub(crate) diff_ids: Vec<Digest>,
    /// Below the store's directory.
    lower: Vec<PathBuf>,
    volatile: bool,
    userxattr: bool,
}

impl ImageStore {
    /// Makes a writable snapshot over the image's layers; `id` is the container's id.
    pub fn snapshot(&self, image: &Image, id: &str, options: &SnapshotOptions) -> Result<Snapshot> {
        self.snapshot_over(
            Some(image.manifest_digest()),
            image.diff_ids(),
            Some(image.id()),
            id,
            options,
        )
    }

    /// As [`ImageStore::snapshot`], over layers that need not be those of an image, the base first; the caller's
    /// lease must hold them.
    ///
    /// # Errors
    /// [`Error::MissingBlob`] when a layer is not in the store.
    pub fn snapshot_layers(
        &self,
        diff_ids: &[Digest],
        id: &str,
        options: &SnapshotOptions,
    ) -> Result<Snapshot> {
        self.snapshot_over(None, diff_ids, None, id, options)
    }

    fn snapshot_over(
        &self,
        manifest: Option<&Digest>,
        diff_ids: &[Digest],
        config: Option<&Digest>,
        id: &str,
        options: &SnapshotOptions,
    ) -> Result<Snapshot> {
        check_id(id)?;
        let layout = self.layout();
        let mut _lease: Option<Lease> = None;
        let stack = match chain::ready(layout, diff_ids)? {
            Some(stack) => stack,
            None => {
                let lease = self.lease()?;
                for digest in config.into_iter().chain(diff_ids) {
                    lease.pin(digest)?;
                }
                let stack = chain::stack(layout, diff_ids)?;
                _lease = Some(lease);
                stack
            }
        };
        let record = Record {
            manifest: manifest.cloned(),
            diff_ids: diff_ids.to_vec(),
            lower: stack.lower.clone(),
            volatile: options.volatile,
            userxattr: options.user_namespace || stack.ownership == Ownership::SingleId,
        };
        let scratch = layout.scratch(".snapshot")?;
        let made = self.fill(&scratch, &stack, &record).and_then(|()| {
            // Garbage collection sees either the snapshot or none; the layers are there in the first case.
            let _guard = StoreLock::shared(layout)?;
            for (lower, digest) in record.lower.iter().zip(diff_ids.iter().rev().chain(diff_ids)) {
                if !layout.root().join(lower).exists() {
                    return Err(Error::MissingBlob {
                        what: "layer",
                        digest: digest.clone(),
                    });
                }
            }
            match self.publish_snapshot(&scratch, id, options)? {
                true => Ok(()),
                false => Err(Error::Exists {
                    what: "snapshot",
                    name: id.to_owned(),
                }),
            }
        });
        if let Err(error) = made {
            remove_tree(&scratch)?;
            return Err(error);
        }
        Ok(Snapshot::new(layout, id, record))
    }

    fn fill(&self, scratch: &Path, stack: &chain::Stack, record: &Record) -> Result<()> {
        let layout = self.layout();
        let make = |path: &Path| {
            DirBuilder::new()
                .mode(0o700)
                .create(path)
                .map_err(|e| Error::io("create", path, e))
        };
        let upper = scratch.join("upper");
        make(scratch)?;
        make(&upper)?;
        make(&scratch.join("work"))?;
        let text = serde_json::to_vec(record).map_err(|e| Error::document("a snapshot's chain", e))?;
        let chain = scratch.join("chain");
        let written = fs::File::create(&chain).and_then(|mut file| {
            std::io::Write::write_all(&mut file, &text)?;
            if record.volatile {
                Ok(())
            } else {
                layout.sync_file(&file)
            }
        });
        written.map_err(|e| Error::io("write", &chain, e))?;
        // The root of the mounted tree has the upper directory's attributes.
        let root = &stack.root;
        let given = (|| {
            if stack.ownership == Ownership::Exact {
                let (uid, gid) = (Some(Uid::from_raw(root.uid)), Some(Gid::from_raw(root.gid)));
                rustix::fs::chownat(CWD, &upper, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            rustix::fs::chmod(&upper, Mode::from_raw_mode(root.mode))?;
            let time = Timespec {
                tv_sec: root.mtime.0,
                tv_nsec: root.mtime.1.into(),
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            rustix::fs::utimensat(CWD, &upper, &times, AtFlags::SYMLINK_NOFOLLOW)
        })();
        given.map_err(|e| Error::io("set the attributes of", upper, e))
    }

    fn publish_snapshot(&self, scratch: &Path, id: &str, options: &SnapshotOptions) -> Result<bool> {
        let name = self.layout().snapshot(id);
        if !options.volatile {
            return self.layout().publish(scratch, &name);
        }
        // Its name need not outlive a power loss.
        match rustix::fs::renameat_with(CWD, scratch, CWD, &name, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(_) => self.layout().publish(scratch, &name),
        }
    }

    /// Returns the snapshot of that id.
    pub fn open_snapshot(&self, id: &str) -> Result<Option<Snapshot>> {
        check_id(id)?;
        Ok(read_record(self.layout(), id)?.map(|record| Snapshot::new(self.layout(), id, record)))
    }

    /// Returns the ids of all snapshots, sorted.
    pub fn snapshots(&self) -> Result<Vec<String>> {
        let path = self.layout().snapshots();
        let mut ids = Vec::new();
        for entry in fs::read_dir(&path).map_err(|e| Error::io("list", &path, e))? {
            let entry = entry.map_err(|e| Error::io("list", &path, e))?;
            if let Ok(id) = entry.file_name().into_string() {
                ids.push(id);
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// Ids of the snapshots made from an image.
    pub(crate) fn snapshots_of(&self, manifest: &Digest) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for id in self.snapshots()? {
            if read_record(self.layout(), &id)?
                .is_some_and(|record| record.manifest.as_ref() == Some(manifest))
            {
                ids.push(id);
            }
        }
        Ok(ids)
    }
}

pub(crate) fn read_record(layout: &Layout, id: &str) -> Result<Option<Record>> {
    let path = layout.snapshot(id).join("chain");
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::document(path.display().to_string(), e)),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::io("read", path, error)),
    }
}

/// An id becomes a file name, so its grammar is strict.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let word = |b: u8| b.is_ascii_alphanumeric();
    let good = id.len() <= 128
        && id.bytes().next().is_some_and(word)
        && id.bytes().all(|b| word(b) || matches!(b, b'_' | b'.' | b'-'));
    if good {
        Ok(())
    } else {
        Err(Error::InvalidId {
            id: id.chars().take(200).collect(),
        })
    }
}

impl Snapshot {
    fn new(layout: &Arc<Layout>, id: &str, record: Record) -> Self {
        let upper = layout.snapshot(id).join("upper");
        Self {
            layout: Arc::clone(layout),
            id: id.to_owned(),
            upper,
            record,
        }
    }

    /// Returns its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns what to mount, in order; the last one is the root file system.
    pub fn mounts(&self) -> Vec<Mount> {
        let overlay = Mount::Overlay {
            lower: self
                .record
                .lower
                .iter()
                .map(|path| self.layout.root().join(path))
                .collect(),
            upper: self.upper.clone(),
            work: self.layout.snapshot(&self.id).join("work"),
            volatile: self.record.volatile,
            userxattr: self.record.userxattr,
        };
        vec![overlay]
    }

    /// Returns the directory that changes go to.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// Returns the digest of the manifest of the image it was made from, if it was made from one.
    pub fn manifest_digest(&self) -> Option<&Digest> {
        self.record.manifest.as_ref()
    }

    /// Returns the layers it stands on, the base first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.record.diff_ids
    }

    /// Makes a snapshot that was mounted `volatile` usable again: the kernel refuses to mount it while its mark is
    /// there. It must not be mounted, and what it holds must not have been lost in a crash.
    pub fn clear_volatile_mark(&self) -> Result<()> {
        // Overlayfs works in `work` below the work directory it is given, which it closes to everybody: only root
        // enters it then. It makes it anew at the next mount.
        let own = self.layout.snapshot(&self.id).join("work").join("work");
        match rustix::fs::chmod(&own, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(Error::io("change the mode of", own, errno)),
        }
        remove_tree(&own.join("incompat")).or_else(|error| match error {
            Error::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => Err(other),
        })
    }

    /// Removes it with everything written to it; it must not be mounted any more.
    ///
    /// Where files belong to other ids of a user namespace, which this process may not delete,
    /// [`Error::NeedsUserNamespace`] names the directory to remove from inside that namespace, and the snapshot
    /// stays until this is called again.
    pub fn remove(self) -> Result<()> {
        let path = self.layout.snapshot(&self.id);
        let trash = self.layout.trash().join(crate::layout::random_name()?);
        match fs::rename(&path, &trash) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NotFound {
                    kind: "snapshot",
                    name: self.id,
                });
            }
            Err(error) => return Err(Error::io("rename", path, error)),
        }
        // `chain` goes last, so that what cannot be removed is still a snapshot.
        for part in ["upper", "work"] {
            match remove_tree(&trash.join(part)) {
                Err(Error::NeedsUserNamespace { .. }) => {
                    fs::rename(&trash, &path).map_err(|e| Error::io("rename", &path, e))?;
                    return Err(Error::NeedsUserNamespace {
                        path: path.join(part),
                    });
                }
                other => other?,
            }
        }
        remove_tree(&trash)
    }
}
