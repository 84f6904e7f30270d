//! One side of a copy: a directory tree by the descriptor of its root. Every path is resolved inside that root by the
//! kernel, whatever somebody does to its links meanwhile.

use super::FilesError;
use super::view::Ids;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A resolution that meets a rename is to be tried again (openat2(2)).
const MOST_TRIES: u32 = 10_000;

/// Paths of either side.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    pub(super) ids: Ids,
    /// The container's name; `None` for this host.
    container: Option<String>,
}

/// Something that was opened without being followed, used or changed.
#[derive(Debug)]
pub(super) struct Item {
    /// O_PATH.
    pub(super) fd: OwnedFd,
    pub(super) stat: Stat,
}

impl Item {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Where a link leads, as it is written.
    pub(super) fn link(&self) -> rustix::io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.fd, "", Vec::new())?.into_bytes())
    }

    /// Opens what is already open, and nothing that was put in its place.
    pub(super) fn reopen(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// An entry of a directory, itself.
    pub(super) fn child(directory: impl AsFd, name: &[u8]) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Self { fd, stat })
    }
}

impl<'a> Tree<'a> {
    pub(super) fn container(root: BorrowedFd<'a>, name: &str, ids: Ids) -> Self {
        Self {
            root,
            ids,
            container: Some(name.to_owned()),
        }
    }

    pub(super) fn local(root: BorrowedFd<'a>) -> Self {
        Self {
            root,
            ids: Ids::default(),
            container: None,
        }
    }

    pub(super) fn is_local(&self) -> bool {
        self.container.is_none()
    }

    /// How a path is shown in errors.
    pub(super) fn shown(&self, path: &Path) -> PathBuf {
        match &self.container {
            Some(name) => PathBuf::from(format!("{name}:{}", path.display())),
            None => path.to_owned(),
        }
    }

    pub(super) fn missing(&self, path: &Path) -> FilesError {
        match &self.container {
            Some(container) => FilesError::NoSuchPath {
                container: container.clone(),
                path: path.display().to_string(),
            },
            None => FilesError::NoSuchLocalPath {
                path: path.to_owned(),
            },
        }
    }

    /// The item at an absolute path; `follow` its last component too.
    pub(super) fn find(&self, path: &Path, follow: bool) -> rustix::io::Result<Item> {
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        // Links of procfs lead out of the root, to the files of processes; the user's own path may use them.
        let resolve = match self.container {
            Some(_) => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            None => ResolveFlags::empty(),
        };
        let fd = again(|| match self.container {
            Some(_) => rustix::fs::openat2(self.root, path, flags, Mode::empty(), resolve),
            None => rustix::fs::openat(self.root, path, flags, Mode::empty()),
        })?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Item { fd, stat })
    }

    /// As [`Self::find`], with the errors that a user can do something about.
    pub(super) fn open(&self, path: &Path, follow: bool) -> Result<Item, FilesError> {
        self.find(path, follow).map_err(|errno| self.failure(path, errno))
    }

    pub(super) fn failure(&self, path: &Path, errno: Errno) -> FilesError {
        match errno {
            Errno::NOENT => self.missing(path),
            Errno::NOTDIR => FilesError::NotADirectory {
                path: self.shown(path).display().to_string(),
            },
            errno => FilesError::errno("open", self.shown(path))(errno),
        }
    }
}

/// Opens a directory below another one, through real directories alone.
pub(super) fn beneath(directory: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    if path.as_os_str().is_empty() {
        return rustix::fs::openat(directory, ".", flags, Mode::empty());
    }
    again(|| rustix::fs::openat2(directory.as_fd(), path, flags, Mode::empty(), resolve))
}

fn again<T>(mut open: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 0..MOST_TRIES {
        match open() {
            Err(Errno::AGAIN) => std::thread::yield_now(),
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Names in a directory, sorted.
pub(super) fn names(directory: impl AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names)
}

pub(super) fn stat_at(directory: impl AsFd, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
