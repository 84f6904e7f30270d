//! A copy of a container's own layer, while the container keeps it: walked by descriptor on both sides, no link is
//! followed, and overlayfs's marks are kept.

use super::FilesError;
use super::changes::{OPAQUE, is_whiteout};
use super::tree::{self, Item};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const DEEPEST: usize = 500;

/// Copies what is in `from`, and its attributes, into the empty directory `to`. `shown` is the path of `from` in errors.
pub(super) fn directory(from: &OwnedFd, to: &OwnedFd, shown: &Path) -> Result<(), FilesError> {
    let mut copier = Copier {
        root: to,
        links: HashMap::new(),
    };
    let item = Item {
        fd: from.try_clone().map_err(FilesError::io("open", shown))?,
        stat: rustix::fs::fstat(from).map_err(FilesError::errno("read", shown))?,
    };
    copier.contents(&item, to, Path::new(""), shown, 0)
}

struct Copier<'a> {
    root: &'a OwnedFd,
    /// First name of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copier<'_> {
    fn contents(
        &mut self,
        from: &Item,
        to: &OwnedFd,
        path: &Path,
        shown: &Path,
        depth: usize,
    ) -> Result<(), FilesError> {
        let failed = |errno: Errno| FilesError::errno("copy", shown)(errno);
        if depth > DEEPEST {
            return Err(failed(Errno::NAMETOOLONG));
        }
        let open = from.reopen(OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        for name in tree::names(&open).map_err(failed)? {
            let below = shown.join(std::ffi::OsStr::from_bytes(&name));
            let item = match Item::child(&open, &name) {
                Ok(item) => item,
                // It was removed meanwhile.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(FilesError::errno("copy", below)(errno)),
            };
            let inside = path.join(std::ffi::OsStr::from_bytes(&name));
            self.entry(&item, to, &name, &inside, &below, depth)?;
        }
        attributes(&open, to, &from.stat).map_err(failed)
    }

    fn entry(
        &mut self,
        item: &Item,
        to: &OwnedFd,
        name: &[u8],
        path: &Path,
        shown: &Path,
        depth: usize,
    ) -> Result<(), FilesError> {
        let failed = |errno: Errno| FilesError::errno("copy", shown)(errno);
        let kind = item.kind();
        if kind != FileType::Directory && !is_whiteout(&item.stat) && item.stat.st_nlink > 1 {
            let inode = (item.stat.st_dev, item.stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                return rustix::fs::linkat(self.root, first, to, name, AtFlags::empty()).map_err(failed);
            }
            self.links.insert(inode, path.to_owned());
        }
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700)).map_err(failed)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(to, name, flags, Mode::empty()).map_err(failed)?;
                self.contents(item, &made, path, shown, depth + 1)
            }
            FileType::RegularFile => {
                let from = item.reopen(OFlags::RDONLY | OFlags::NOCTTY).map_err(failed)?;
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
                let (mut from, mut made) = (File::from(from), File::from(made));
                // Within one file system the kernel shares or copies the blocks by itself.
                std::io::copy(&mut from, &mut made).map_err(FilesError::io("copy", shown))?;
                attributes(&from.into(), &made.into(), &item.stat).map_err(failed)
            }
            FileType::Symlink => {
                let link = item.link().map_err(failed)?;
                rustix::fs::symlinkat(&link[..], to, name).map_err(failed)?;
                self.own(to, name, &item.stat).map_err(failed)
            }
            FileType::Socket => Ok(()),
            kind => {
                let mode = Mode::from_raw_mode(item.stat.st_mode & 0o7777);
                match rustix::fs::mknodat(to, name, kind, mode, item.stat.st_rdev) {
                    // Without root there are no devices; whiteouts are allowed to everybody.
                    Err(Errno::PERM) if !is_whiteout(&item.stat) => return Ok(()),
                    other => other.map_err(failed)?,
                }
                if is_whiteout(&item.stat) {
                    return Ok(());
                }
                self.own(to, name, &item.stat).map_err(failed)?;
                // The directory is this process's own, so the name is still what was made.
                let made = Item::child(to, name).map_err(failed)?;
                rustix::fs::chmod(format!("/proc/self/fd/{}", made.fd.as_raw_fd()), mode).map_err(failed)
            }
        }
    }

    fn own(&self, to: &OwnedFd, name: &[u8], stat: &Stat) -> rustix::io::Result<()> {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanos| Timespec {
        tv_sec: seconds,
        tv_nsec: nanos as _,
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Owner, extended attributes, mode and times of an open file or directory.
fn attributes(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(uid), Some(gid))?;
    let mut list = vec![0_u8; 1 << 16];
    let length = match rustix::fs::flistxattr(from.as_fd(), &mut list[..]) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
        other => other?,
    };
    let mut value = vec![0_u8; 1 << 16];
    for name in list[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        let of_overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
        if of_overlay && !OPAQUE.iter().any(|opaque| opaque.as_bytes() == name) {
            continue;
        }
        let length = match rustix::fs::fgetxattr(from.as_fd(), name, &mut value[..]) {
            Err(Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP) => continue,
            other => other?,
        };
        match rustix::fs::fsetxattr(to.as_fd(), name, &value[..length], XattrFlags::empty()) {
            // Not for this user: only root sets what it may not have either.
            Err(Errno::PERM) if !rustix::process::geteuid().is_root() && !of_overlay => {}
            other => other?,
        }
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    rustix::fs::futimens(to, &times(stat))
}
