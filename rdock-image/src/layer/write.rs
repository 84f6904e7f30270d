//! A layer's directory becomes the tar that every engine reads: sorted, without names of users, times in seconds, so
//! that the same directory always gives the same bytes and the same diffID.
use super::changes::{READ_DIR, is_overlay, names, xattr, xattr_names};
use super::merged::is_opaque;
use super::meta::{LayerMeta, LayerPath, OwnerRecord, Ownership};
use super::names::join;
use super::tree::is_whiteout;
use crate::tarstream::{END, Member, padding};
use crate::{Error, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// What went into a tar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Bytes of files; a file with several names counts once.
    pub(crate) size: u64,
    pub(crate) entries: u64,
    pub(crate) tar_size: u64,
}

/// Writes the layer in `fs` to `out`.
pub(crate) fn write_layer(
    fs: &Path,
    meta: &LayerMeta,
    owners: &BTreeMap<Vec<u8>, OwnerRecord>,
    out: &mut dyn Write,
) -> Result<Written> {
    let mut writer = Writer {
        out,
        meta,
        owners,
        links: HashMap::new(),
        written: Written::default(),
        buffer: vec![0; 128 << 10],
        fs,
    };
    let root = rustix::fs::open(fs, READ_DIR, Mode::empty()).map_err(|e| Error::io("open", fs, e))?;
    writer.all(&root)?;
    Ok(writer.written)
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    meta: &'a LayerMeta,
    owners: &'a BTreeMap<Vec<u8>, OwnerRecord>,
    /// First name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    written: Written,
    buffer: Vec<u8>,
    fs: &'a Path,
}

impl Writer<'_> {
    fn all(&mut self, root: &OwnedFd) -> Result<()> {
        if let Some(attributes) = self.meta.root {
            let stat = rustix::fs::fstat(root).map_err(|e| Error::io("examine", self.fs, e))?;
            let mut header = self.header(b"", &stat, root)?;
            header.path = b"./";
            header.kind = b'5';
            (header.mode, header.mtime) = (attributes.mode & 0o7777, (attributes.mtime.0, 0));
            if self.meta.ownership == Ownership::Exact {
                (header.uid, header.gid) = (attributes.uid, attributes.gid);
            }
            self.entry(&header)?;
        }
        if self.meta.opaque_root {
            self.mark(b".wh..wh..opq")?;
        }
        self.directory(root, b"", 0)?;
        // Devices that this user could not make.
        for (path, record) in self.owners {
            if let Some((kind, major, minor, mode)) = record.device {
                self.entry(&Member {
                    path,
                    kind: if kind == 'c' { b'3' } else { b'4' },
                    mode: mode & 0o7777,
                    uid: record.uid,
                    gid: record.gid,
                    device: (major, minor),
                    ..Member::default()
                })?;
            }
        }
        // Hard links to files of layers below.
        for (LayerPath(path), LayerPath(target)) in &self.meta.links {
            self.entry(&Member {
                path,
                kind: b'1',
                mode: 0o644,
                link: target,
                ..Member::default()
            })?;
        }
        self.put(&END)
    }

    fn directory(&mut self, dir: &OwnedFd, path: &[u8], depth: usize) -> Result<()> {
        let failed =
            |at: &[u8], errno: Errno| Error::io("read", self.fs.join(&*String::from_utf8_lossy(at)), errno);
        if depth > 1000 {
            return Err(failed(path, Errno::NAMETOOLONG));
        }
        for name in names(dir).map_err(|e| failed(path, e))? {
            let at = join(path, &name);
            let error = |errno| Error::io("read", self.fs.join(&*String::from_utf8_lossy(&at)), errno);
            let stat = rustix::fs::statat(dir, &name[..], AtFlags::SYMLINK_NOFOLLOW).map_err(error)?;
            if is_whiteout(&stat) {
                self.mark(&join(path, &[b".wh.", &name[..]].concat()))?;
                continue;
            }
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let child = rustix::fs::openat(dir, &name[..], READ_DIR, Mode::empty()).map_err(error)?;
                    if !self.meta.implicit.contains(&LayerPath(at.clone())) {
                        let shown = [&at[..], b"/"].concat();
                        let mut header = self.header(&at, &stat, &child)?;
                        header.path = &shown;
                        header.kind = b'5';
                        self.entry(&header)?;
                    }
                    if is_opaque(&child) {
                        self.mark(&join(&at, b".wh..wh..opq"))?;
                    }
                    self.directory(&child, &at, depth + 1)?;
                }
                FileType::RegularFile => self.file(dir, &name, &at, &stat)?,
                FileType::Socket => {}
                kind => self.node(dir, &name, &at, &stat, kind)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, dir: &OwnedFd, name: &[u8], at: &[u8], stat: &Stat) -> Result<()> {
        let inode = (stat.st_dev, stat.st_ino);
        let fs = self.fs;
        let error = |errno: Errno| Error::io("read", fs.join(&*String::from_utf8_lossy(at)), errno);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(error)?;
        let mut header = self.header(at, stat, &file)?;
        header.path = at;
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&inode).cloned() {
                header.kind = b'1';
                header.link = &first;
                header.xattrs.clear();
                return self.entry(&header);
            }
            self.links.insert(inode, at.to_vec());
        }
        header.kind = b'0';
        header.size = stat.st_size.cast_unsigned();
        let size = header.size;
        self.written.size += size;
        self.entry(&header)?;
        self.contents(File::from(file), size, at)
    }

    fn contents(&mut self, mut file: File, size: u64, at: &[u8]) -> Result<()> {
        let mut left = size;
        let mut buffer = std::mem::take(&mut self.buffer);
        while left > 0 {
            let wanted = (buffer.len() as u64).min(left) as usize;
            let count = match file.read(&mut buffer[..wanted]) {
                Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                other => other,
            }
            .map_err(|e| Error::io("read", self.fs.join(&*String::from_utf8_lossy(at)), e))?;
            self.put(&buffer[..count])?;
            left -= count as u64;
        }
        self.buffer = buffer;
        self.put(padding(size))
    }

    fn node(&mut self, dir: &OwnedFd, name: &[u8], at: &[u8], stat: &Stat, kind: FileType) -> Result<()> {
        let inode = (stat.st_dev, stat.st_ino);
        let target = match kind {
            FileType::Symlink => rustix::fs::readlinkat(dir, name, Vec::new())
                .map_err(|e| Error::io("read", self.fs.join(&*String::from_utf8_lossy(at)), e))?
                .into_bytes(),
            _ => Vec::new(),
        };
        let mut header = self.attributes(at, stat);
        header.path = at;
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&inode).cloned() {
                header.kind = b'1';
                header.link = &first;
                return self.entry(&header);
            }
            self.links.insert(inode, at.to_vec());
        }
        header.link = &target;
        let device = || (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        header.kind = match kind {
            FileType::Symlink => b'2',
            FileType::CharacterDevice => b'3',
            FileType::BlockDevice => b'4',
            _ => b'6',
        };
        if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            header.device = device();
        }
        if kind == FileType::Symlink {
            header.mode = 0o777;
        }
        self.entry(&header)
    }

    fn attributes<'h>(&self, at: &[u8], stat: &Stat) -> Member<'h> {
        let (uid, gid) = match self.meta.ownership {
            Ownership::Exact => (stat.st_uid, stat.st_gid),
            Ownership::SingleId => self
                .owners
                .get(at)
                .map_or((0, 0), |record| (record.uid, record.gid)),
        };
        Member {
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            mtime: (stat.st_mtime, 0),
            ..Member::default()
        }
    }

    fn header<'h>(&self, at: &[u8], stat: &Stat, fd: &OwnedFd) -> Result<Member<'h>> {
        let failed = |errno| Error::io("read", self.fs.join(&*String::from_utf8_lossy(at)), errno);
        let mut header = self.attributes(at, stat);
        for name in xattr_names(fd).map_err(failed)? {
            if is_carried(&name) {
                let value = xattr(fd, &name).map_err(failed)?;
                header.xattrs.push((name, value));
            }
        }
        if let Some(record) = self.owners.get(at) {
            for (LayerPath(name), hex) in &record.xattrs {
                header.xattrs.retain(|(known, _)| known != name);
                header.xattrs.push((name.clone(), from_hex(hex)));
            }
            header.xattrs.sort();
        }
        Ok(header)
    }

    /// A whiteout or the mark of an opaque directory.
    fn mark(&mut self, path: &[u8]) -> Result<()> {
        self.entry(&Member {
            path,
            kind: b'0',
            ..Member::default()
        })
    }

    fn entry(&mut self, member: &Member<'_>) -> Result<()> {
        self.written.entries += 1;
        self.put(&member.header())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.written.tar_size += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|source| Error::Stream {
            what: format!("the tar of {}", self.fs.display()),
            source,
        })
    }
}

/// The attributes that an image carries: those that an extraction sets.
fn is_carried(name: &[u8]) -> bool {
    !is_overlay(name)
        && (name == b"security.capability"
            || [&b"user."[..], b"trusted.", b"system.posix_acl_"]
                .iter()
                .any(|prefix| name.starts_with(prefix)))
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
