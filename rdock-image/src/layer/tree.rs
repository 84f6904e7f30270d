//! Directories of a layer while it is extracted: opened once, by descriptor, and never by a path that a symlink
//! could lead out of the layer.
use super::meta::Ownership;
use super::names::{join, split};
use super::rights::{TRUSTED_OPAQUE, USER_OPAQUE};
use crate::tarstream::Xattrs;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Descriptors kept open; the default limit of a process is 1024, and several layers are extracted at once.
const OPEN_MAX: usize = 96;
/// As in the kernel.
const SYMLINKS_MAX: u32 = 40;
pub(super) const OPEN_DIR: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Why a directory cannot be had.
#[derive(Debug)]
pub(super) enum TreeError {
    /// The layer's own fault.
    Malformed(String),
    /// The system's.
    System(Errno),
}

impl From<Errno> for TreeError {
    fn from(error: Errno) -> Self {
        Self::System(error)
    }
}

/// An open directory and where it really is below the root, all symlinks followed.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) fd: OwnedFd,
    pub(super) path: Vec<u8>,
}

/// What a directory gets at the end, when nothing is made in it any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    /// It has an entry of its own.
    pub(super) explicit: bool,
    pub(super) mode: u32,
    /// It was not made with this mode.
    pub(super) set_mode: bool,
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: Xattrs,
}

pub(super) struct Tree {
    root: Rc<Dir>,
    ownership: Ownership,
    /// By path as written, so that a path through a symlink is found as well.
    open: HashMap<Vec<u8>, Rc<Dir>>,
    /// By real path.
    pub(super) pending: BTreeMap<Vec<u8>, Pending>,
    links_followed: u32,
    has_openat2: bool,
}

impl Tree {
    pub(super) fn new(root: OwnedFd, ownership: Ownership) -> Self {
        let root = Rc::new(Dir {
            fd: root,
            path: Vec::new(),
        });
        Self {
            root,
            ownership,
            open: HashMap::new(),
            pending: BTreeMap::new(),
            links_followed: 0,
            has_openat2: true,
        }
    }

    /// Opens the directory `path` as written, making what is missing.
    pub(super) fn make(&mut self, path: &[u8]) -> Result<Rc<Dir>, TreeError> {
        self.links_followed = 0;
        match self.directory(path, true)? {
            Some(dir) => Ok(dir),
            None => Err(TreeError::System(Errno::NOENT)),
        }
    }

    /// Opens the directory `path` as written, or returns `None` where there is none.
    pub(super) fn find(&mut self, path: &[u8]) -> Result<Option<Rc<Dir>>, TreeError> {
        self.links_followed = 0;
        self.directory(path, false)
    }

    fn directory(&mut self, path: &[u8], create: bool) -> Result<Option<Rc<Dir>>, TreeError> {
        if path.is_empty() {
            return Ok(Some(Rc::clone(&self.root)));
        }
        if let Some(dir) = self.open.get(path) {
            return Ok(Some(Rc::clone(dir)));
        }
        let (above, name) = split(path);
        let Some(parent) = self.directory(above, create)? else {
            return Ok(None);
        };
        let dir = match self.open_child(&parent.fd, name) {
            Ok(fd) => Rc::new(Dir {
                fd,
                path: join(&parent.path, name),
            }),
            Err(Errno::NOENT) if create => self.make_implicit(&parent, name, false)?,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let stat = rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                    match self.follow(&parent, name, create)? {
                        Some(dir) => dir,
                        None => return Ok(None),
                    }
                } else if !create {
                    return Ok(None);
                } else if is_whiteout(&stat) {
                    rustix::fs::unlinkat(&parent.fd, name, AtFlags::empty())?;
                    self.make_implicit(&parent, name, true)?
                } else {
                    return Err(TreeError::Malformed(
                        "a file on the way is not a directory".to_owned(),
                    ));
                }
            }
            Err(error) => return Err(error.into()),
        };
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), Rc::clone(&dir));
        Ok(Some(dir))
    }

    /// Opens one component; a symlink is not followed by either call.
    fn open_child(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
        if self.has_openat2 {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(parent, name, OPEN_DIR, Mode::empty(), resolve) {
                // A kernel before 5.6, or a seccomp filter.
                Err(Errno::NOSYS | Errno::PERM) => self.has_openat2 = false,
                other => return other,
            }
        }
        rustix::fs::openat(parent, name, OPEN_DIR, Mode::empty())
    }

    /// Resolves the symlink `name` as if the layer's root were `/`.
    fn follow(&mut self, parent: &Rc<Dir>, name: &[u8], create: bool) -> Result<Option<Rc<Dir>>, TreeError> {
        self.links_followed += 1;
        if self.links_followed > SYMLINKS_MAX {
            return Err(TreeError::Malformed(format!(
                "more than {SYMLINKS_MAX} symlinks on the way"
            )));
        }
        let target = rustix::fs::readlinkat(&parent.fd, name, Vec::new())?.into_bytes();
        let mut at = if target.starts_with(b"/") {
            Rc::clone(&self.root)
        } else {
            Rc::clone(parent)
        };
        for part in target.split(|&b| b == b'/') {
            let next = match part {
                b"" | b"." => continue,
                // The parent of a real path is its prefix; the root is its own parent.
                b".." => split(&at.path).0.to_vec(),
                part if part.len() > 255 => {
                    return Err(TreeError::Malformed(
                        "a symlink with a name that is too long".to_owned(),
                    ));
                }
                part => join(&at.path, part),
            };
            match self.directory(&next, create)? {
                Some(dir) => at = dir,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    fn make_implicit(&mut self, parent: &Rc<Dir>, name: &[u8], opaque: bool) -> Result<Rc<Dir>, TreeError> {
        rustix::fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(0o755))?;
        let fd = rustix::fs::openat(&parent.fd, name, OPEN_DIR, Mode::empty())?;
        let path = join(&parent.path, name);
        // A directory over this layer's own whiteout has nothing below to take attributes from.
        self.pending.insert(
            path.clone(),
            Pending {
                explicit: opaque,
                mode: 0o755,
                ..Pending::default()
            },
        );
        if opaque {
            self.set_opaque(fd.as_fd())?;
        }
        Ok(Rc::new(Dir { fd, path }))
    }

    /// Hides what layers below have in the directory.
    pub(super) fn set_opaque(&self, dir: BorrowedFd<'_>) -> Result<(), Errno> {
        let fd = rustix::fs::openat(
            dir,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let user = rustix::fs::fsetxattr(&fd, USER_OPAQUE, b"y", XattrFlags::empty());
        match self.ownership {
            Ownership::SingleId => user,
            // The `user.` one serves mounts inside user namespaces; not every file system has it.
            Ownership::Exact => rustix::fs::fsetxattr(&fd, TRUSTED_OPAQUE, b"y", XattrFlags::empty()),
        }
    }

    /// Must be called whenever a directory or symlink is taken away: what is open may not be what a path means.
    pub(super) fn forget(&mut self, real_path: &[u8]) {
        self.open.clear();
        self.pending.remove(real_path);
        let below = join(real_path, b"");
        let gone: Vec<_> = self
            .pending
            .range(below.clone()..)
            .take_while(|(path, _)| path.starts_with(&below))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.pending.remove(&path);
        }
    }
}

/// Overlayfs's mark of an absent file: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
