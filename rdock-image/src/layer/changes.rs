//! What a container wrote: overlayfs's upper directory becomes exactly the difference to the layers below.
//!
//! Overlayfs leaves more than that: files that were copied up and never changed, directories that are only there
//! because something below them was touched, marks of its own. All of it goes, so that the directory and the tar that
//! is made from it say the same.
use super::merged::{MergedView, Node, child, is_opaque};
use super::rights::{TRUSTED_OPAQUE, USER_OPAQUE};
use super::tree::is_whiteout;
use crate::store::Limits;
use crate::{Error, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::rc::Rc;

pub(super) const READ_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Overlayfs's own attributes, as root and in a user namespace.
pub(super) const OVERLAY_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Makes `upper` the difference to `below`. It must not be mounted. Times later than `clamp` (seconds since 1970)
/// become `clamp`.
pub(crate) fn normalize(upper: &Path, below: &MergedView, clamp: Option<i64>, limits: &Limits) -> Result<()> {
    let failed = |errno: Errno| Error::io("compare", upper, errno);
    let root = rustix::fs::open(upper, READ_DIR, Mode::empty()).map_err(failed)?;
    let under = match below.root() {
        Ok(Node::Dir(dirs, _)) => Some(dirs),
        _ => None,
    };
    let mut work = Normalizer {
        clamp,
        depth: limits.depth,
    };
    match work.directory(&root, under.as_deref(), 0) {
        Ok(()) => {}
        Err(Errno::NAMETOOLONG) => {
            return Err(Error::Limit {
                what: format!("the depth of directories in {}", upper.display()),
                limit: limits.depth,
            });
        }
        Err(errno) => return Err(failed(errno)),
    }
    strip(&root, &[]).map_err(failed)
}

struct Normalizer {
    clamp: Option<i64>,
    depth: u64,
}

impl Normalizer {
    fn directory(&mut self, dir: &OwnedFd, below: Option<&[Rc<OwnedFd>]>, depth: u64) -> Result<(), Errno> {
        if depth > self.depth.min(400) {
            return Err(Errno::NAMETOOLONG);
        }
        for name in names(dir)? {
            let stat = rustix::fs::statat(dir, &name[..], AtFlags::SYMLINK_NOFOLLOW)?;
            let under = match below {
                Some(dirs) => child(dirs, &name)?,
                None => None,
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.subdirectory(dir, &name, &stat, under, depth)?,
                _ if is_whiteout(&stat) => {
                    if under.is_none() {
                        rustix::fs::unlinkat(dir, &name[..], AtFlags::empty())?;
                    }
                }
                // No layer can hold a socket.
                FileType::Socket => rustix::fs::unlinkat(dir, &name[..], AtFlags::empty())?,
                kind => {
                    if let Some(Node::Other {
                        holder,
                        stat: old,
                        name: _,
                    }) = &under
                        && unchanged(dir, &name, &stat, holder, old)?
                    {
                        rustix::fs::unlinkat(dir, &name[..], AtFlags::empty())?;
                        continue;
                    }
                    if kind == FileType::RegularFile && below.is_some() {
                        // Only what was copied up has marks.
                        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                        let file = rustix::fs::openat(dir, &name[..], flags, Mode::empty())?;
                        strip(&file, &[])?;
                    }
                    self.clamp(dir, &name, &stat)?;
                }
            }
        }
        Ok(())
    }

    fn subdirectory(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        under: Option<Node>,
        depth: u64,
    ) -> Result<(), Errno> {
        let dir = rustix::fs::openat(parent, name, READ_DIR, Mode::empty())?;
        let opaque = is_opaque(&dir);
        let (lower, old) = match &under {
            Some(Node::Dir(dirs, old)) => (Some(&dirs[..]), Some(old)),
            _ => (None, None),
        };
        self.directory(&dir, lower.filter(|_| !opaque), depth + 1)?;
        if let (Some(old), false) = (old, opaque)
            && names(&dir)?.is_empty()
            && same_owner(stat, old)
            && lower.is_some_and(|dirs| same_xattrs(&dir, &dirs[0]).unwrap_or(false))
        {
            return rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
        }
        // A directory made new is opaque for overlayfs, which means nothing where nothing is below.
        let keep: &[&[u8]] = if opaque && old.is_some() {
            &[TRUSTED_OPAQUE.as_bytes(), USER_OPAQUE.as_bytes()]
        } else {
            &[]
        };
        strip(&dir, keep)?;
        // Its time has changed by what was taken out of it.
        if self.clamp.is_none_or(|clamp| stat.st_mtime <= clamp) {
            let at = Timespec {
                tv_sec: stat.st_mtime,
                tv_nsec: stat.st_mtime_nsec as _,
            };
            let times = Timestamps {
                last_access: at,
                last_modification: at,
            };
            return rustix::fs::futimens(&dir, &times);
        }
        self.clamp(parent, name, stat)
    }

    fn clamp(&self, dir: &OwnedFd, name: &[u8], stat: &Stat) -> Result<(), Errno> {
        let Some(clamp) = self.clamp.filter(|clamp| stat.st_mtime >= *clamp) else {
            return Ok(());
        };
        let at = Timespec {
            tv_sec: clamp,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: at,
            last_modification: at,
        };
        rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// The names in a directory, sorted by their bytes.
pub(super) fn names(dir: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn same_owner(a: &Stat, b: &Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
}

/// Says whether a file that was copied up is still what the layers below have.
fn unchanged(dir: &OwnedFd, name: &[u8], stat: &Stat, holder: &OwnedFd, old: &Stat) -> Result<bool, Errno> {
    // Names of one file stay together: some of them are a change.
    if !same_owner(stat, old)
        || stat.st_nlink > 1
        || (stat.st_size, stat.st_rdev) != (old.st_size, old.st_rdev)
        || (stat.st_mtime, stat.st_mtime_nsec) != (old.st_mtime, old.st_mtime_nsec)
    {
        return Ok(false);
    }
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let read = |dir| rustix::fs::readlinkat(dir, name, Vec::new());
            Ok(read(dir)? == read(holder)?)
        }
        FileType::RegularFile => {
            let open = |dir| {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                rustix::fs::openat(dir, name, flags, Mode::empty())
            };
            let (new, old) = (open(dir)?, open(holder)?);
            if !same_xattrs(&new, &old)? {
                return Ok(false);
            }
            same_contents(new, old).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
        }
        _ => Ok(true),
    }
}

fn same_contents(a: OwnedFd, b: OwnedFd) -> std::io::Result<bool> {
    const CHUNK: usize = 64 << 10;
    let open = |fd| BufReader::with_capacity(CHUNK, File::from(fd));
    let (mut a, mut b) = (open(a), open(b));
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let count = a.read(&mut left)?;
        if count == 0 {
            return Ok(b.read(&mut right)? == 0);
        }
        match b.read_exact(&mut right[..count]) {
            Ok(()) if left[..count] == right[..count] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// The names of a file's extended attributes.
pub(super) fn xattr_names(fd: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let fd = fd.as_fd();
    loop {
        let size = match rustix::fs::flistxattr_query(fd) {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
            other => other?,
        };
        let mut list = vec![0_u8; size];
        match rustix::fs::flistxattr(fd, &mut list[..]) {
            Ok(size) => {
                list.truncate(size);
                let names = list.split(|&b| b == 0).filter(|name| !name.is_empty());
                let mut names: Vec<_> = names.map(<[u8]>::to_vec).collect();
                names.sort_unstable();
                return Ok(names);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn xattr(fd: impl AsFd, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let fd = fd.as_fd();
    loop {
        let size = rustix::fs::fgetxattr_query(fd, name)?;
        let mut value = vec![0_u8; size];
        match rustix::fs::fgetxattr(fd, name, &mut value[..]) {
            Ok(size) => {
                value.truncate(size);
                return Ok(value);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn is_overlay(name: &[u8]) -> bool {
    OVERLAY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn same_xattrs(a: &OwnedFd, b: &OwnedFd) -> Result<bool, Errno> {
    let own = |fd| -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
        let names = xattr_names(fd)?.into_iter().filter(|name| !is_overlay(name));
        names
            .map(|name| xattr(fd, &name).map(|value| (name, value)))
            .collect()
    };
    Ok(own(a)? == own(b)?)
}

/// Takes overlayfs's own attributes away, except those in `keep`.
fn strip(fd: &OwnedFd, keep: &[&[u8]]) -> Result<(), Errno> {
    for name in xattr_names(fd)? {
        if is_overlay(&name) && !keep.contains(&&name[..]) {
            rustix::fs::fremovexattr(fd, &name[..])?;
        }
    }
    Ok(())
}

/// Removes what a container's mounts needed in the root file system and its payload did not: each target, when it is
/// an empty file or directory that `below` lacks, and the directories above it that are empty then. No link leaves
/// the tree.
pub(crate) fn remove_mount_points(
    upper: &Path,
    below: &[std::path::PathBuf],
    targets: &[String],
) -> Result<()> {
    let failed = |errno: Errno| Error::io("clean", upper, errno);
    let below_view = MergedView::open(below)?;
    let whole: Vec<_> = std::iter::once(upper.to_owned())
        .chain(below.iter().cloned())
        .collect();
    let whole = MergedView::open(&whole)?;
    let root = rustix::fs::open(upper, READ_DIR, Mode::empty()).map_err(failed)?;
    // The deepest first, so that what holds them is empty when its turn comes.
    let mut targets: Vec<&String> = targets.iter().collect();
    targets.sort_by_key(|target| std::cmp::Reverse(target.matches('/').count()));
    for target in targets {
        let clean = || -> Result<(), Errno> {
            let Some((_, real)) = whole.resolve(target.as_bytes(), true)? else {
                return Ok(());
            };
            let mut path = &real[..];
            let mut is_target = true;
            while !path.is_empty() && below_view.exact(path)?.is_none() {
                let (above, name) = super::names::split(path);
                let mut dir = rustix::fs::openat(&root, ".", READ_DIR, Mode::empty())?;
                for part in above.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
                    dir = rustix::fs::openat(&dir, part, READ_DIR, Mode::empty())?;
                }
                let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let removed = match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR),
                    FileType::RegularFile if stat.st_size == 0 && is_target => {
                        rustix::fs::unlinkat(&dir, name, AtFlags::empty())
                    }
                    _ => return Ok(()),
                };
                match removed {
                    Ok(()) => {}
                    Err(Errno::NOTEMPTY) => return Ok(()),
                    Err(error) => return Err(error),
                }
                is_target = false;
                path = above;
            }
            Ok(())
        };
        match clean() {
            // The payload removed or replaced what held the mount point.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}
