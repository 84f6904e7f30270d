//! What a container changed, as `docker diff` says it: its own layer against those of its image.

use super::FilesError;
use super::tree::{self, stat_at};
use crate::container::Container;
use crate::error::{Error, Result};
use crate::image::{FileInfo, FileKind, MergedView, Mount};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Deeper trees are refused; each level holds a descriptor.
const DEEPEST: usize = 500;

/// What every container has mounted over its image.
const SYSTEM_MOUNTS: [&str; 6] = [
    "/proc",
    "/sys",
    "/dev",
    "/etc/resolv.conf",
    "/etc/hostname",
    "/etc/hosts",
];

/// One path that is not as the image has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileChange {
    /// Absolute, in the container.
    pub path: PathBuf,
    /// How it differs.
    pub kind: FileChangeKind,
}

/// How a path differs from the image's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FileChangeKind {
    /// The image has another file there, or a directory with other contents or attributes.
    Changed,
    /// The image has nothing there.
    Added,
    /// The image has something there, the container has nothing.
    Deleted,
}

impl std::fmt::Display for FileChangeKind {
    /// docker's letter.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Changed => "C",
            Self::Added => "A",
            Self::Deleted => "D",
        })
    }
}

impl Container {
    /// Returns what the container changed in its own layer, running or not, sorted by path. What is in volumes, binds
    /// and memory is not the container's; nor are the empty files and directories that were made to mount them on.
    ///
    /// # Errors
    /// When the layers cannot be read.
    pub async fn changes(&self) -> Result<Vec<FileChange>> {
        let this = self.clone();
        super::copy::apart(move || this.find_changes()).await
    }

    fn find_changes(&self) -> Result<Vec<FileChange>> {
        let snapshot = self.open_snapshot()?;
        let mounts = snapshot.mounts();
        let Some(Mount::Overlay { lower, .. }) = mounts.last() else {
            return Err(FilesError::NoFiles {
                container: self.name().to_owned(),
                reason: "its layers are of a form that cannot be compared".into(),
            }
            .into());
        };
        let lower = MergedView::open(lower)?;
        let upper = open_upper(snapshot.upper())?;
        let mut comparison = Comparison {
            lower,
            mount_points: self.mount_points(),
            found: Vec::new(),
        };
        comparison.directory(&upper, Path::new("/"), true, 0)?;
        let mut found = comparison.found;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    pub(super) fn open_snapshot(&self) -> Result<crate::image::Snapshot> {
        let snapshot = self.runtime().images().open_snapshot(self.id())?;
        Ok(snapshot.ok_or_else(|| FilesError::NoFiles {
            container: self.name().to_owned(),
            reason: "it was removed, or is not set up yet".into(),
        })?)
    }

    /// Where something is mounted in it.
    pub(super) fn mount_points(&self) -> BTreeSet<PathBuf> {
        let own = self.record().mounts.iter().map(|mount| mount.target.as_str());
        let secrets = self
            .record()
            .spec
            .secrets
            .iter()
            .filter_map(|secret| match &secret.target {
                crate::spec::SecretTarget::File { path, .. } => Some(path.as_str()),
                crate::spec::SecretTarget::Variable { .. } => None,
            });
        SYSTEM_MOUNTS
            .into_iter()
            .chain(own)
            .chain(secrets)
            .map(PathBuf::from)
            .collect()
    }
}

pub(super) fn open_upper(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::state("open", path)(errno.into()))
}

struct Comparison {
    lower: MergedView,
    mount_points: BTreeSet<PathBuf>,
    found: Vec<FileChange>,
}

impl Comparison {
    /// Compares what is in an upper directory; `over` says whether the image has a directory there. Whether anything
    /// below is a change.
    fn directory(&mut self, dir: &OwnedFd, path: &Path, over: bool, depth: usize) -> Result<bool> {
        let failed = |path: &Path, errno: Errno| FilesError::errno("read", path)(errno);
        if depth > DEEPEST {
            return Err(failed(path, Errno::NAMETOOLONG).into());
        }
        let before = self.found.len();
        let names = tree::names(dir).map_err(|errno| failed(path, errno))?;
        if over && is_opaque(dir) {
            // What the image has there is hidden, unless it was made again.
            for (name, _) in self.lower.read_dir(path)? {
                if !names.iter().any(|known| known == name.as_bytes()) {
                    self.note(path.join(name), FileChangeKind::Deleted);
                }
            }
        }
        for name in names {
            let at = path.join(std::ffi::OsStr::from_bytes(&name));
            let Some(stat) = stat_at(dir, &name).map_err(|errno| failed(&at, errno))? else {
                continue;
            };
            let below = match over {
                true => self.lower.symlink_metadata(&at)?,
                false => None,
            };
            if is_whiteout(&stat) {
                if below.is_some() {
                    self.note(at, FileChangeKind::Deleted);
                }
                continue;
            }
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                let made_to_mount = below.is_none() && stat.st_size == 0 && self.mount_points.contains(&at);
                if !made_to_mount {
                    self.note(at, changed_or_added(below.as_ref()));
                }
                continue;
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let child = match rustix::fs::openat(dir, &name[..], flags, Mode::empty()) {
                Ok(child) => child,
                // It is another thing since a moment ago.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(failed(&at, errno).into()),
            };
            let over_dir = below.as_ref().is_some_and(|info| info.kind == FileKind::Dir);
            let place = self.found.len();
            let inside = self.directory(&child, &at, over_dir, depth + 1)?;
            let for_mounts = self.mount_points.iter().any(|point| point.starts_with(&at));
            let change = match &below {
                Some(info) if over_dir => {
                    let same = info.mode == stat.st_mode & 0o7777
                        && (info.uid, info.gid) == (stat.st_uid, stat.st_gid)
                        && (info.mtime == stat.st_mtime || for_mounts);
                    let direct = self.found[place..].iter().any(|change| {
                        change.path.parent() == Some(&at) && change.kind != FileChangeKind::Changed
                    });
                    (!same || direct).then_some(FileChangeKind::Changed)
                }
                Some(_) => Some(FileChangeKind::Changed),
                // Made on the way to a mount point.
                None if for_mounts && !inside => None,
                None => Some(FileChangeKind::Added),
            };
            if let Some(kind) = change {
                self.note(at, kind);
            }
        }
        Ok(self.found.len() > before)
    }

    fn note(&mut self, path: PathBuf, kind: FileChangeKind) {
        self.found.push(FileChange { path, kind });
    }
}

fn changed_or_added(below: Option<&FileInfo>) -> FileChangeKind {
    match below {
        Some(_) => FileChangeKind::Changed,
        None => FileChangeKind::Added,
    }
}

/// overlayfs marks what it hides by a character device 0:0.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Marks of an opaque directory, as root and in a user namespace have them.
pub(super) const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

fn is_opaque(dir: &OwnedFd) -> bool {
    let Ok(open) = rustix::fs::openat(
        dir,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return false;
    };
    let mut value = [0_u8; 1];
    OPAQUE
        .iter()
        .any(|name| rustix::fs::fgetxattr(&open, *name, &mut value[..]) == Ok(1) && value == *b"y")
}
