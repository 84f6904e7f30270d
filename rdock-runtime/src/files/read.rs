//! A tar stream becomes files below a directory. Parents are opened through real directories alone, entries are made
//! by single names in them, and nothing that is there is written into: it is replaced.

use super::FilesError;
use super::tree::{self, Tree};
use crate::image::archive::{Entry, Kind, TarError, TarReader};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{BufRead, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Who owns what is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// As the archive says; an id that does not exist here, or may not be given, stays the caller's.
    Archive,
    /// Whoever unpacks it. What it loses with its owner: the set-id bits, and device nodes are not made.
    Caller,
    /// This user and group of the container.
    User(u32, u32),
}

/// Unpacks `archive` into the directory `into`, which is at `path` of `side`.
pub(super) fn unpack(
    archive: &mut dyn BufRead,
    side: &Tree<'_>,
    path: &Path,
    into: OwnedFd,
    owner: Owner,
) -> Result<(), FilesError> {
    let mut unpacker = Unpacker {
        side,
        path,
        into,
        owner,
        parent: None,
        directories: Vec::new(),
    };
    let mut reader = TarReader::new(archive);
    while let Some(entry) = reader.next_entry().map_err(broken)? {
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.finish()
}

fn broken(error: TarError) -> FilesError {
    match error {
        TarError::Malformed(reason) => FilesError::Archive { reason },
        TarError::Io(source) => match source.get_ref().is_some_and(|inner| inner.is::<FilesError>()) {
            // The other side's own failure.
            true => match source.into_inner().map(|inner| inner.downcast::<FilesError>()) {
                Some(Ok(error)) => *error,
                _ => FilesError::Archive {
                    reason: "it ended".into(),
                },
            },
            false => FilesError::io("read", "the archive")(source),
        },
    }
}

struct Unpacker<'a> {
    side: &'a Tree<'a>,
    path: &'a Path,
    into: OwnedFd,
    owner: Owner,
    /// The last parent, which the next entry often shares.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Mode and time of directories, set when nothing more is put into them.
    directories: Vec<(PathBuf, u32, Timestamps)>,
}

impl Unpacker<'_> {
    fn shown(&self, path: &Path) -> PathBuf {
        self.side.shown(&self.path.join(path))
    }

    fn failed(&self, action: &'static str, path: &Path) -> impl FnOnce(Errno) -> FilesError {
        FilesError::errno(action, self.shown(path))
    }

    fn entry<R: BufRead>(&mut self, entry: &Entry, data: &mut TarReader<R>) -> Result<(), FilesError> {
        let path = inside(&entry.name)?;
        let Some(name) = path.file_name() else {
            // The destination itself keeps what it is.
            return Ok(());
        };
        let (name, parent) = (name.as_bytes(), path.parent().unwrap_or(Path::new("")));
        let dir = self.parent(parent)?;
        let failed = |errno| self.failed("create", &path)(errno);
        let there = tree::stat_at(&dir, name).map_err(failed)?;
        let there_is_dir = there
            .as_ref()
            .map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        match (there_is_dir, entry.kind == Kind::Dir) {
            (Some(directory), is) if directory != is => {
                return Err(FilesError::KindsDiffer {
                    path: self.shown(&path).display().to_string(),
                    directory,
                });
            }
            (Some(false), _) => rustix::fs::unlinkat(&dir, name, AtFlags::empty()).map_err(failed)?,
            _ => {}
        }
        let times = times(entry);
        match entry.kind {
            Kind::Dir => {
                if there_is_dir.is_none() {
                    rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o700)).map_err(failed)?;
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
                    // Its owner may not read it, and without root nobody else can.
                    Err(Errno::ACCESS) if there_is_dir == Some(true) => None,
                    other => Some(other.map_err(failed)?),
                };
                if let Some(made) = &made {
                    self.own(made, entry).map_err(failed)?;
                    self.set_xattrs(made, entry).map_err(failed)?;
                }
                self.directories.push((path, self.mode(entry), times));
            }
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made =
                    rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
                let mut file = File::from(made);
                contents(&mut file, entry, data, || self.shown(&path))?;
                let made = OwnedFd::from(file);
                // The owner first: a change of owner takes set-id bits and capabilities away.
                self.own(&made, entry).map_err(failed)?;
                self.set_xattrs(&made, entry).map_err(failed)?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(self.mode(entry))).map_err(failed)?;
                rustix::fs::futimens(&made, &times).map_err(failed)?;
            }
            Kind::Symlink => {
                rustix::fs::symlinkat(&entry.link[..], &dir, name).map_err(failed)?;
                self.own_at(&dir, name, entry).map_err(failed)?;
                rustix::fs::utimensat(&dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            }
            Kind::HardLink => {
                let target = inside(&entry.link)?;
                let name_of = target.file_name().ok_or_else(|| FilesError::Escapes {
                    name: String::from_utf8_lossy(&entry.link).into_owned(),
                })?;
                let dir = dir
                    .try_clone()
                    .map_err(FilesError::io("open", self.shown(&path)))?;
                let from = self.parent(target.parent().unwrap_or(Path::new("")))?;
                rustix::fs::linkat(&from, name_of, &dir, name, AtFlags::empty())
                    .map_err(|errno| self.failed("create", &path)(errno))?;
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                if entry.kind != Kind::Fifo && self.owner == Owner::Caller {
                    // A device of the container's choice is not for users of the host.
                    return Ok(());
                }
                let kind = match entry.kind {
                    Kind::Char => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                let mode = Mode::from_raw_mode(0o600);
                match rustix::fs::mknodat(&dir, name, kind, mode, device) {
                    // Without root there are no devices, as in docker.
                    Err(Errno::PERM) => return Ok(()),
                    other => other.map_err(failed)?,
                }
                self.own_at(&dir, name, entry).map_err(failed)?;
                // It was made just now; a link in its place would not be followed into (fchmodat2 is newer).
                let item = tree::Item::child(&dir, name).map_err(failed)?;
                if item.kind() == kind {
                    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&item.fd));
                    rustix::fs::chmod(path, Mode::from_raw_mode(self.mode(entry))).map_err(failed)?;
                }
                rustix::fs::utimensat(&dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The directory that an entry goes into; made where it is missing.
    fn parent(&mut self, parent: &Path) -> Result<OwnedFd, FilesError> {
        let cloned = |fd: &OwnedFd| fd.try_clone();
        if let Some((known, fd)) = &self.parent
            && known == parent
        {
            return cloned(fd).map_err(FilesError::io("open", self.shown(parent)));
        }
        let found = match tree::beneath(&self.into, parent) {
            Err(Errno::NOENT) => self.make_all(parent)?,
            // The archive says nothing of its parent, and the container has a link there: it leads where it leads
            // inside the container. On the host nothing is followed.
            Err(Errno::LOOP | Errno::NOTDIR) if !self.side.is_local() => {
                let item = self.side.open(&self.path.join(parent), true)?;
                if !item.is_dir() {
                    return Err(self.failed("create", parent)(Errno::NOTDIR));
                }
                item.fd
            }
            other => other.map_err(self.failed("open", parent))?,
        };
        let fd = cloned(&found).map_err(FilesError::io("open", self.shown(parent)))?;
        self.parent = Some((parent.to_owned(), found));
        Ok(fd)
    }

    fn make_all(&self, path: &Path) -> Result<OwnedFd, FilesError> {
        let mut at = tree::beneath(&self.into, Path::new("")).map_err(self.failed("open", path))?;
        let mut so_far = PathBuf::new();
        for part in path.components() {
            so_far.push(part);
            let (part, next) = (Path::new(part.as_os_str()), so_far.clone());
            at = match tree::beneath(&at, part) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
                        Err(Errno::EXIST) => {}
                        other => other.map_err(self.failed("create", &next))?,
                    }
                    tree::beneath(&at, part).map_err(self.failed("open", &next))?
                }
                Err(Errno::LOOP | Errno::NOTDIR) if !self.side.is_local() => {
                    self.side.open(&self.path.join(&next), true)?.fd
                }
                other => other.map_err(self.failed("open", &next))?,
            };
        }
        Ok(at)
    }

    fn ids(&self, entry: &Entry) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = match self.owner {
            Owner::Caller => return (None, None),
            Owner::Archive => (entry.uid, entry.gid),
            Owner::User(uid, gid) => (uid, gid),
        };
        let (uid, gid) = self.side.ids.outside(uid, gid);
        (uid.map(Uid::from_raw), gid.map(Gid::from_raw))
    }

    fn own(&self, fd: &OwnedFd, entry: &Entry) -> rustix::io::Result<()> {
        let (uid, gid) = self.ids(entry);
        self.allowed(rustix::fs::fchown(fd, uid, gid))
    }

    fn own_at(&self, dir: &OwnedFd, name: &[u8], entry: &Entry) -> rustix::io::Result<()> {
        let (uid, gid) = self.ids(entry);
        self.allowed(rustix::fs::chownat(
            dir,
            name,
            uid,
            gid,
            AtFlags::SYMLINK_NOFOLLOW,
        ))
    }

    /// Only root may give files away; what others unpack stays theirs.
    fn allowed(&self, done: rustix::io::Result<()>) -> rustix::io::Result<()> {
        match done {
            Err(Errno::PERM) if !rustix::process::geteuid().is_root() => Ok(()),
            other => other,
        }
    }

    fn mode(&self, entry: &Entry) -> u32 {
        match self.owner {
            Owner::Caller => entry.mode & 0o1777,
            _ => entry.mode & 0o7777,
        }
    }

    fn set_xattrs(&self, fd: &OwnedFd, entry: &Entry) -> rustix::io::Result<()> {
        for (name, value) in &entry.xattrs {
            let carried = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
            let capability = name == b"security.capability" && self.owner != Owner::Caller;
            if !carried && !capability {
                continue;
            }
            match rustix::fs::fsetxattr(fd.as_fd(), &name[..], value, XattrFlags::empty()) {
                // Not on this file system, or not for this user.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Sets what later entries would have changed again, the innermost directories first.
    fn finish(mut self) -> Result<(), FilesError> {
        let mut directories = std::mem::take(&mut self.directories);
        directories.sort_by(|a, b| b.0.cmp(&a.0));
        for (path, mode, times) in directories {
            let found = tree::beneath(&self.into, &path).map_err(self.failed("open", &path))?;
            // O_PATH: reached by its own name again, which cannot be swapped.
            let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
            rustix::fs::chmod(&own, Mode::from_raw_mode(mode))
                .map_err(self.failed("change the mode of", &path))?;
            let set = rustix::fs::utimensat(rustix::fs::CWD, &own, &times, AtFlags::empty());
            set.map_err(self.failed("set the time of", &path))?;
        }
        Ok(())
    }
}

/// Data of a file; holes stay holes.
fn contents<R: BufRead>(
    file: &mut File,
    entry: &Entry,
    data: &mut TarReader<R>,
    shown: impl Fn() -> PathBuf,
) -> Result<(), FilesError> {
    let whole = [(0, entry.size)];
    let pieces = entry.sparse.as_deref().unwrap_or(&whole);
    for (offset, length) in pieces {
        file.seek(SeekFrom::Start(*offset))
            .map_err(FilesError::io("write", shown()))?;
        let mut left = *length;
        while left > 0 {
            let chunk = data.data().map_err(broken)?;
            let count = (chunk.len() as u64).min(left) as usize;
            if count == 0 {
                return Err(FilesError::Archive {
                    reason: "it ends within a file".into(),
                });
            }
            file.write_all(&chunk[..count])
                .map_err(FilesError::io("write", shown()))?;
            data.consume(count);
            left -= count as u64;
        }
    }
    if entry.sparse.is_some() {
        file.set_len(entry.real_size)
            .map_err(FilesError::io("write", shown()))?;
    }
    Ok(())
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.mtime.0,
        tv_nsec: entry.mtime.1.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// The path of a member, relative to the destination; an absolute one too, as tar does.
fn inside(name: &[u8]) -> Result<PathBuf, FilesError> {
    let mut path = PathBuf::new();
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                return Err(FilesError::Escapes {
                    name: String::from_utf8_lossy(name).into_owned(),
                });
            }
            part => path.push(std::ffi::OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}
