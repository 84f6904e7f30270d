//! Layers and images made here: what a container or a build wrote becomes a layer without being copied, and a config
//! becomes an image.
use super::ImageStore;
use crate::digest::Hasher;
use crate::image::Names;
use crate::layer::merged::MergedView;
use crate::layer::meta::{Attributes, LayerMeta, OwnerRecord, Ownership, owners_from_lines, owners_to_lines};
use crate::layer::remove::remove_tree;
use crate::layer::write::{Written, write_layer};
use crate::layer::{Layer, assemble::assemble, chain, changes};
use crate::layout::{Layout, boot_id, make_dir_all};
use crate::lock::{OwnedLock, StoreLock};
use crate::manifest::media_type;
use crate::snapshot::check_id;
use crate::{Descriptor, Digest, Error, Image, ImageConfig, Lease, Manifest, Reference, Result, Snapshot};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A layer made from a directory of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MadeLayer {
    /// Digest of its tar.
    pub diff_id: Digest,
    /// Bytes of its tar; 0 where that is not known.
    pub tar_size: u64,
    /// Bytes in its files.
    pub size: u64,
    /// Entries of its tar; 0 where nothing was changed.
    pub entries: u64,
}

/// How a directory of changes becomes a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerOptions {
    /// File times after this moment, in seconds since 1970, become this moment, so that a build gives the same layer
    /// twice (<https://reproducible-builds.org/specs/source-date-epoch/>).
    pub clamp_mtime: Option<i64>,
    /// Absolute paths in the container where something was mounted. What was made for that alone, an empty file or
    /// directory, is no change.
    pub mount_points: Vec<String>,
}

impl LayerOptions {
    /// No file of the layer is newer than `seconds` since 1970.
    pub fn clamp_mtime(mut self, seconds: Option<i64>) -> Self {
        self.clamp_mtime = seconds;
        self
    }

    /// Empty files and directories at these paths were made to mount something there.
    pub fn mount_points<I: IntoIterator<Item: Into<String>>>(mut self, paths: I) -> Self {
        self.mount_points.extend(paths.into_iter().map(Into::into));
        self
    }
}

impl ImageStore {
    /// Makes the changes of a container a layer. The snapshot must not be mounted any more; its upper directory is
    /// moved into the store, so what is left of the snapshot can only be removed.
    ///
    /// The layer is pinned by `lease`. Nothing else leads to it yet: see [`ImageStore::write_image`] and
    /// [`ImageStore::keep_layers`].
    ///
    /// # Errors
    /// When a file cannot be read or moved. The snapshot keeps what it had, or part of it.
    pub fn adopt_snapshot(
        &self,
        lease: &Lease,
        snapshot: &Snapshot,
        options: &LayerOptions,
    ) -> Result<MadeLayer> {
        snapshot.clear_volatile_mark()?;
        self.adopt_layer(lease, snapshot.upper(), snapshot.diff_ids(), options)
    }

    /// Makes a directory on the store's file system a layer above the layers `below`: in the form of overlayfs's
    /// upper directory (a character device 0:0 is a whiteout, the attribute `trusted.overlay.opaque`, or `user.`, marks a
    /// directory that hides the one below it). The directory is moved, not copied; what in it is no change to
    /// `below` is dropped.
    ///
    /// # Errors
    /// As [`ImageStore::adopt_snapshot`]; [`Error::MissingBlob`] when a layer of `below` is not in the store.
    pub fn adopt_layer(
        &self,
        lease: &Lease,
        upper: &Path,
        below: &[Digest],
        options: &LayerOptions,
    ) -> Result<MadeLayer> {
        let stack = chain::stack(self.layout(), below)?;
        let lower: Vec<PathBuf> = stack.lower.iter().map(|path| self.root().join(path)).collect();
        if !options.mount_points.is_empty() {
            changes::remove_mount_points(upper, &lower, &options.mount_points)?;
        }
        changes::normalize(
            upper,
            &MergedView::open(&lower)?,
            options.clamp_mtime,
            self.limits(),
        )?;
        let mut meta = LayerMeta {
            ownership: self.ownership()?,
            boot: boot_id().to_owned(),
            ..LayerMeta::default()
        };
        let root = fs::symlink_metadata(upper).map_err(|e| Error::io("examine", upper, e))?;
        // Docker writes no entry for the root; only a change of its owner or mode needs one.
        let mode = root.permissions().mode() & 0o7777;
        if meta.ownership == Ownership::Exact
            && (mode, root.uid(), root.gid()) != (stack.root.mode & 0o7777, stack.root.uid, stack.root.gid)
        {
            meta.root = Some(Attributes {
                mode,
                uid: root.uid(),
                gid: root.gid(),
                mtime: (
                    options
                        .clamp_mtime
                        .map_or(root.mtime(), |clamp| clamp.min(root.mtime())),
                    0,
                ),
            });
        }
        // What the store's user could not give the files is not known here: they belong to root inside.
        let owners = BTreeMap::new();
        let mut hash = HashTo(Hasher::sha256());
        let written = write_layer(upper, &meta, &owners, &mut hash)?;
        let diff_id = hash.0.finish();
        (meta.size, meta.entries, meta.tar_size) = (written.size, written.entries, written.tar_size);
        lease.pin(&diff_id)?;
        self.move_in(upper, &diff_id, &meta, &owners)?;
        Ok(MadeLayer {
            diff_id,
            tar_size: written.tar_size,
            size: written.size,
            entries: written.entries,
        })
    }

    fn move_in(
        &self,
        upper: &Path,
        diff_id: &Digest,
        meta: &LayerMeta,
        owners: &BTreeMap<Vec<u8>, OwnerRecord>,
    ) -> Result<()> {
        if Layer::open(self.layout(), diff_id).is_ok() {
            return Ok(());
        }
        let scratch = self.layout().scratch(".layer")?;
        let _own = OwnedLock::acquire(self.layout(), &scratch.with_extension("layer-lock"))?;
        let made = (|| {
            make_dir_all(&scratch)?;
            let fs = scratch.join("fs");
            fs::rename(upper, &fs).map_err(|e| Error::io("rename", upper, e))?;
            let write = |name: &str, bytes: &[u8]| {
                let path = scratch.join(name);
                fs::write(&path, bytes).map_err(|e| Error::io("write", path, e))
            };
            if !owners.is_empty() {
                write("owners", &owners_to_lines(owners)?)?;
            }
            write("meta.json", &meta.to_json()?)?;
            // The image that names the layer forces it to the disk, and a lost one is made again.
            if self
                .layout()
                .publish_unsynced(&scratch, &self.layout().layer(diff_id))?
            {
                return Ok(());
            }
            self.publish_layer(&scratch, diff_id)
        })();
        if made.is_err() {
            remove_tree(&scratch)?;
        }
        made
    }

    /// Makes a fresh empty directory to fill for [`ImageStore::adopt_layer`], with the root's owner and mode that the
    /// layers `below` show. It is removed when the handle is dropped, and by the next open of the store when this
    /// process dies.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch_layer(&self, below: &[Digest]) -> Result<ScratchLayer> {
        let root = chain::stack(self.layout(), below)?.root;
        let path = self.layout().scratch(".layer")?;
        let lock = OwnedLock::acquire(self.layout(), &path.with_extension("layer-lock"))?;
        let scratch = ScratchLayer {
            upper: path.join("fs"),
            whole: path,
            _lock: lock,
        };
        make_dir_all(&scratch.upper)?;
        if self.ownership()? == Ownership::Exact {
            std::os::unix::fs::chown(&scratch.upper, Some(root.uid), Some(root.gid))
                .map_err(|e| Error::io("change the owner of", &scratch.upper, e))?;
        }
        fs::set_permissions(&scratch.upper, fs::Permissions::from_mode(root.mode & 0o7777))
            .map_err(|e| Error::io("change the mode of", &scratch.upper, e))?;
        Ok(scratch)
    }

    /// Returns the directories that overlayfs stacks for these layers, the uppermost first; at least one. The
    /// layers must be in the store and leased.
    ///
    /// # Errors
    /// [`Error::MissingBlob`] when a layer is not there.
    pub fn layer_directories(&self, diff_ids: &[Digest]) -> Result<Vec<PathBuf>> {
        let stack = chain::stack(self.layout(), diff_ids)?;
        Ok(stack.lower.iter().map(|path| self.root().join(path)).collect())
    }

    /// Opens the tree that layers make for reading, without mounting it.
    ///
    /// # Errors
    /// As [`ImageStore::layer_directories`].
    pub fn view_layers(&self, diff_ids: &[Digest]) -> Result<MergedView> {
        MergedView::open(&self.layer_directories(diff_ids)?)
    }

    /// Returns what is known about a layer made or pulled.
    ///
    /// # Errors
    /// [`Error::MissingBlob`] when it is not in the store.
    pub fn layer(&self, diff_id: &Digest) -> Result<MadeLayer> {
        let (_, meta) = Layer::open(self.layout(), diff_id)?.extracted()?;
        Ok(MadeLayer {
            diff_id: diff_id.clone(),
            tar_size: meta.tar_size,
            size: meta.size,
            entries: meta.entries,
        })
    }

    /// Keeps layers that belong to no image yet, under a name of the caller's (letters, digits, `_`, `.`, `-`),
    /// until [`ImageStore::release_layers`]. A name that is in use is replaced.
    ///
    /// # Errors
    /// [`Error::InvalidId`] for a bad name, and when the note cannot be written.
    pub fn keep_layers(&self, name: &str, diff_ids: &[Digest]) -> Result<()> {
        check_id(name)?;
        let text: String = diff_ids.iter().map(|diff_id| format!("{diff_id}\n")).collect();
        let _guard = StoreLock::shared(self.layout())?;
        // A cache: it may be lost.
        let path = self.layout().kept().join(name);
        self.layout().replace_unsynced(&path, text.as_bytes())
    }

    /// Forgets a name given to [`ImageStore::keep_layers`]; [`ImageStore::prune`] may take the layers then.
    ///
    /// # Errors
    /// When the note cannot be removed.
    pub fn release_layers(&self, name: &str) -> Result<()> {
        check_id(name)?;
        let path = self.layout().kept().join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
            _ => Ok(()),
        }
    }

    /// Makes `config`, whose layers are all in the store, an image, and gives it `names`. Without a name it is kept
    /// as an image without a tag.
    ///
    /// The manifest names a layer that came from elsewhere as the blob it was, and one made here as its tar.
    ///
    /// # Errors
    /// [`Error::MissingBlob`] when a layer is missing, [`Error::InvalidReference`] for a name with a digest.
    pub fn write_image(&self, lease: &Lease, config: &ImageConfig, names: &[Reference]) -> Result<Image> {
        for name in names {
            if name.digest().is_some() {
                return Err(Error::InvalidReference {
                    text: name.to_string(),
                    reason: "a name with a digest cannot be given",
                });
            }
        }
        let digest = self.write_documents(lease, config, media_type::OCI_CONFIG)?;
        let Some((first, more)) = names.split_first() else {
            return self.commit_untagged(lease, &digest);
        };
        let image = self.commit(lease, first, &digest)?;
        for name in more {
            self.tag(&image, name)?;
        }
        self.get(first.as_str())?.ok_or_else(|| Error::NotFound {
            kind: "image",
            name: first.to_string(),
        })
    }

    /// As [`ImageStore::write_image`], of an image that the store does not list: its documents stay as long as the
    /// lease.
    ///
    /// # Errors
    /// [`Error::MissingBlob`] when a layer is missing.
    pub fn unlisted_image(&self, lease: &Lease, config: &ImageConfig) -> Result<Image> {
        self.unlisted_artifact(lease, config, media_type::OCI_CONFIG)
    }

    /// As [`ImageStore::unlisted_image`], of something that is kept as an image is and is none: its config has this
    /// media type, which is the manifest's artifact type too (OCI image specification, "Guidelines for Artifact
    /// Usage").
    ///
    /// # Errors
    /// As [`ImageStore::unlisted_image`].
    pub fn unlisted_artifact(
        &self,
        lease: &Lease,
        config: &ImageConfig,
        config_media_type: &str,
    ) -> Result<Image> {
        let digest = self.write_documents(lease, config, config_media_type)?;
        Image::load(self, &digest, Names::Known(Vec::new()))
    }

    /// Writes the config and a manifest. Returns the manifest's digest.
    fn write_documents(&self, lease: &Lease, config: &ImageConfig, kind: &str) -> Result<Digest> {
        let text = serde_json::to_vec(config).map_err(|e| Error::document("the image config", e))?;
        let id = Digest::sha256_of(&text);
        self.write_blob(lease, &text, &id)?;
        let mut layers = Vec::new();
        for diff_id in &config.rootfs.diff_ids {
            layers.push(self.layer_descriptor(diff_id)?);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: Some(kind.to_owned()).filter(|kind| kind != media_type::OCI_CONFIG),
            config: Descriptor::new(kind, &id, text.len() as u64),
            layers,
            ..Manifest::default()
        };
        let text = serde_json::to_vec(&manifest).map_err(|e| Error::document("the new manifest", e))?;
        let digest = Digest::sha256_of(&text);
        self.write_blob(lease, &text, &digest)?;
        Ok(digest)
    }

    /// The blob that a manifest names for a layer.
    fn layer_descriptor(&self, diff_id: &Digest) -> Result<Descriptor> {
        let (_, meta) = Layer::open(self.layout(), diff_id)?.extracted()?;
        for origin in self.origins(diff_id)? {
            if let (Ok(digest), true) = (Digest::parse(&origin.digest), origin.media_type.contains("tar")) {
                return Ok(Descriptor::new(origin.media_type, &digest, origin.size));
            }
        }
        Ok(Descriptor::new(media_type::OCI_LAYER, diff_id, meta.tar_size))
    }

    /// Writes a layer as an uncompressed tar and returns the tar's digest and size: its diffID and what
    /// [`MadeLayer::tar_size`] says, whether it was made here or came from elsewhere. Of a layer
    /// without a record of its tar (`tar.skeleton`, which stores of earlier versions lack) the files are the same and
    /// the tar may be another; its `tar_size` is 0.
    ///
    /// # Errors
    /// [`Error::LayerChanged`] when somebody changed a file of a layer that came from elsewhere: what was written then
    /// is of no use. When the layer is missing or cannot be read, and what `out` says.
    pub fn write_layer_tar(&self, diff_id: &Digest, out: &mut dyn Write) -> Result<(Digest, u64)> {
        let (fs, meta) = Layer::open(self.layout(), diff_id)?.extracted()?;
        let layer = self.layout().layer(diff_id);
        if let Some(size) = assemble(&layer, diff_id, out)? {
            return Ok((diff_id.clone(), size));
        }
        let path = layer.join("owners");
        let owners = match fs::read(&path) {
            Ok(bytes) => owners_from_lines(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(Error::io("read", path, error)),
        };
        let mut tee = Tee {
            hash: HashTo(Hasher::sha256()),
            out,
        };
        let Written { tar_size, .. } = write_layer(&fs, &meta, &owners, &mut tee)?;
        Ok((tee.hash.0.finish(), tar_size))
    }
}

/// A directory that will become a layer, or be gone.
#[derive(Debug)]
pub struct ScratchLayer {
    whole: PathBuf,
    upper: PathBuf,
    _lock: OwnedLock,
}

impl ScratchLayer {
    /// Returns the directory to fill.
    pub fn upper(&self) -> &Path {
        &self.upper
    }
}

impl Drop for ScratchLayer {
    fn drop(&mut self) {
        // The next open of the store tries again.
        let _ = remove_tree(&self.whole);
    }
}

struct HashTo(Hasher);

impl Write for HashTo {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Tee<'a> {
    hash: HashTo,
    out: &'a mut dyn Write,
}

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.hash.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The stacks that are kept without an image.
pub(super) fn kept(layout: &Layout) -> Result<Vec<Vec<Digest>>> {
    let path = layout.kept();
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", path, error)),
    };
    let mut stacks = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io("list", &path, e))?.path();
        match fs::read_to_string(&path) {
            Ok(text) => stacks.push(text.lines().filter_map(|line| Digest::parse(line).ok()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", path, error)),
        }
    }
    Ok(stacks)
}
