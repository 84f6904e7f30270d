//! A tree becomes a tar stream. It is walked by descriptor, no link in it is followed, and only regular files are
//! opened: what turns into a device or a pipe meanwhile is left alone.

use super::FilesError;
use super::tree::{self, Item};
use super::view::Ids;
use crate::image::archive::{END, Member, padding};
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Deeper trees are refused; each level holds a descriptor.
const DEEPEST: usize = 500;

/// Writes `item` under `name` (nothing for its contents alone), with what is below it, and the end of the archive.
/// `shown` is its path in errors. Times are in seconds, as everybody's archives of containers have them, unless they
/// are to be `exact`.
pub(super) fn archive(
    item: &Item,
    name: &[u8],
    ids: &Ids,
    shown: &Path,
    exact: bool,
    out: &mut dyn Write,
) -> Result<(), FilesError> {
    let mut writer = Writer {
        out,
        ids,
        exact,
        links: HashMap::new(),
        buffer: vec![0; 128 << 10],
    };
    writer.item(item, name, shown, 0)?;
    writer
        .out
        .write_all(&END)
        .map_err(FilesError::io("write the archive of", shown))
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    ids: &'a Ids,
    exact: bool,
    /// First name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    fn item(&mut self, item: &Item, name: &[u8], shown: &Path, depth: usize) -> Result<(), FilesError> {
        let failed = |errno: Errno| FilesError::errno("read", shown)(errno);
        if item.is_dir() {
            return self.directory(item, name, shown, depth);
        }
        let written = match item.kind() {
            FileType::RegularFile => return self.file(item, name, shown),
            // It has no meaning without its server.
            FileType::Socket => return Ok(()),
            FileType::Symlink => {
                let link = item.link().map_err(failed)?;
                let mut member = self.member(name, &item.stat);
                (member.kind, member.mode, member.link) = (b'2', 0o777, &link);
                self.named(member, &item.stat)
            }
            kind => {
                let mut member = self.member(name, &item.stat);
                member.kind = match kind {
                    FileType::CharacterDevice => b'3',
                    FileType::BlockDevice => b'4',
                    _ => b'6',
                };
                let device = item.stat.st_rdev;
                member.device = (rustix::fs::major(device), rustix::fs::minor(device));
                self.named(member, &item.stat)
            }
        };
        written
            .map(drop)
            .map_err(FilesError::io("write the archive of", shown))
    }

    fn directory(&mut self, item: &Item, name: &[u8], shown: &Path, depth: usize) -> Result<(), FilesError> {
        let failed = |errno: Errno| FilesError::errno("read", shown)(errno);
        if depth > DEEPEST {
            return Err(failed(Errno::NAMETOOLONG));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let open = item.reopen(flags).map_err(failed)?;
        let path = if name.is_empty() {
            b"./".to_vec()
        } else {
            [name, b"/"].concat()
        };
        let mut member = self.member(&path, &item.stat);
        member.kind = b'5';
        member.xattrs = xattrs(&open).map_err(failed)?;
        self.out
            .write_all(&member.header())
            .map_err(FilesError::io("write the archive of", shown))?;
        for entry in tree::names(&open).map_err(failed)? {
            let below = join(shown, &entry);
            let child = match Item::child(&open, &entry) {
                Ok(child) => child,
                // It was removed meanwhile.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(FilesError::errno("open", below)(errno)),
            };
            let member = if name.is_empty() {
                entry
            } else {
                [name, b"/", &entry].concat()
            };
            self.item(&child, &member, &below, depth + 1)?;
        }
        Ok(())
    }

    fn file(&mut self, item: &Item, name: &[u8], shown: &Path) -> Result<(), FilesError> {
        let failed = |errno: Errno| FilesError::errno("read", shown)(errno);
        let not_written = |error| FilesError::io("write the archive of", shown)(error);
        let open = item.reopen(OFlags::RDONLY | OFlags::NOCTTY).map_err(failed)?;
        let mut member = self.member(name, &item.stat);
        member.kind = b'0';
        member.size = item.stat.st_size.cast_unsigned();
        member.xattrs = xattrs(&open).map_err(failed)?;
        let size = member.size;
        let mut file = File::from(open);
        if size == 0 && item.stat.st_blocks == 0 && is_made_when_read(&file) {
            // Files of procfs and sysfs have a size only when they are read.
            let mut contents = Vec::new();
            Read::by_ref(&mut file)
                .take(16 << 20)
                .read_to_end(&mut contents)
                .map_err(FilesError::io("read", shown))?;
            member.size = contents.len() as u64;
            let size = member.size;
            self.out.write_all(&member.header()).map_err(not_written)?;
            self.out.write_all(&contents).map_err(not_written)?;
            return self.out.write_all(padding(size)).map_err(not_written);
        }
        if !self.named(member, &item.stat).map_err(not_written)? {
            return Ok(());
        }
        let mut left = size;
        while left > 0 {
            let wanted = (self.buffer.len() as u64).min(left) as usize;
            let count = match file.read(&mut self.buffer[..wanted]) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(FilesError::io("read", shown)(error)),
            };
            if count == 0 {
                // It was cut off meanwhile; the archive has promised so many bytes.
                self.buffer.fill(0);
                while left > 0 {
                    let count = (self.buffer.len() as u64).min(left) as usize;
                    self.out.write_all(&self.buffer[..count]).map_err(not_written)?;
                    left -= count as u64;
                }
                break;
            }
            self.out.write_all(&self.buffer[..count]).map_err(not_written)?;
            left -= count as u64;
        }
        self.out.write_all(padding(size)).map_err(not_written)
    }

    fn member<'n>(&self, name: &'n [u8], stat: &Stat) -> Member<'n> {
        let (uid, gid) = self.ids.inside(stat.st_uid, stat.st_gid);
        Member {
            path: name,
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            mtime: (
                stat.st_mtime,
                if self.exact { stat.st_mtime_nsec as u32 } else { 0 },
            ),
            ..Member::default()
        }
    }

    /// Writes the header, as a link when the file was written under another name. Whether its data follows.
    fn named(&mut self, member: Member<'_>, stat: &Stat) -> std::io::Result<bool> {
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                let link = Member {
                    kind: b'1',
                    size: 0,
                    link: first,
                    xattrs: Vec::new(),
                    ..member
                };
                self.out.write_all(&link.header())?;
                return Ok(false);
            }
            self.links.insert(inode, member.path.to_vec());
        }
        self.out.write_all(&member.header())?;
        Ok(true)
    }
}

fn is_made_when_read(file: &File) -> bool {
    const PROC: u64 = 0x9fa0;
    const SYS: u64 = 0x6265_6572;
    rustix::fs::fstatfs(file).is_ok_and(|kind| matches!(kind.f_type as u64, PROC | SYS))
}

fn join(path: &Path, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    path.join(std::ffi::OsStr::from_bytes(name))
}

/// The attributes that belong to a file wherever it is: those of users, and file capabilities.
fn xattrs(file: &OwnedFd) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0_u8; 4096];
    let length = loop {
        match rustix::fs::flistxattr(file.as_fd(), &mut list[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) if list.len() < 1 << 16 => list.resize(1 << 16, 0),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
    };
    let mut found = Vec::new();
    for name in list[..length].split(|&byte| byte == 0) {
        let carried = name == b"security.capability" || name.starts_with(b"user.");
        if !carried || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0_u8; 1 << 16];
        match rustix::fs::fgetxattr(file.as_fd(), name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_vec(), value));
            }
            // Removed meanwhile, or not for this user.
            Err(Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}
