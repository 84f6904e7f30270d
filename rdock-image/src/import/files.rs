//! The files of an archive or of a layout directory, by name. Links inside an archive are followed inside it only.
use crate::digest::Hasher;
use crate::layer::compression::{Compression, InflateError, Inflater, archived};
use crate::layout::Layout;
use crate::lock::OwnedLock;
use crate::store::Limits;
use crate::tarstream::{Kind, TarError, TarReader};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Links to links within an archive, at most.
const LINKS_MAX: usize = 16;

#[derive(Debug)]
pub(super) enum Files {
    Dir(PathBuf),
    Tar {
        name: String,
        file: File,
        members: HashMap<Vec<u8>, Member>,
        _spool: Option<Spool>,
    },
}

#[derive(Debug)]
pub(super) enum Member {
    File { offset: u64, size: u64 },
    Link(Vec<u8>),
}

/// An inflated archive, removed when it is not needed any more.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    _lock: OwnedLock,
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Files {
    /// Opens a directory, or an archive: plain, gzip, zstd or xz.
    pub(super) fn open(layout: &Layout, limits: &Limits, path: &Path) -> Result<Self> {
        if fs::metadata(path)
            .map_err(|e| Error::io("open", path, e))?
            .is_dir()
        {
            return Ok(Self::Dir(path.to_owned()));
        }
        let mut file = open_regular(path)?;
        let mut start = [0; 6];
        let count = read_start(&mut file, &mut start).map_err(|e| Error::io("read", path, e))?;
        file.rewind().map_err(|e| Error::io("read", path, e))?;
        let name = path.display().to_string();
        match Compression::detect(&start[..count]) {
            Compression::Plain => Self::index(name, file, None),
            _ => Self::spool(layout, limits, name, &mut file),
        }
    }

    /// Takes an archive from a stream; it is kept in the store's `ingest/` while it is imported.
    pub(super) fn spool(
        layout: &Layout,
        limits: &Limits,
        name: String,
        stream: &mut dyn Read,
    ) -> Result<Self> {
        let path = layout.scratch(".spool")?;
        let lock = OwnedLock::acquire(layout, &path.with_extension("spool-lock"))?;
        let mut options = fs::OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(|e| Error::io("create", &path, e))?;
        let spool = Spool {
            path: path.clone(),
            _lock: lock,
        };
        inflate(&name, limits, stream, &path, &file)?;
        (&file).rewind().map_err(|e| Error::io("read", &path, e))?;
        Self::index(name, file, Some(spool))
    }

    fn index(name: String, file: File, spool: Option<Spool>) -> Result<Self> {
        let malformed = |error| match error {
            TarError::Malformed(reason) => Error::document(&name, reason),
            TarError::Io(source) => Error::Stream {
                what: name.clone(),
                source,
            },
        };
        let copy = file.try_clone().map_err(|e| Error::io("read", &name, e))?;
        let length = file.metadata().map_err(|e| Error::io("read", &name, e))?.len();
        // Only headers are read; a small buffer makes the jumps cheap.
        let mut tar = TarReader::new(BufReader::with_capacity(1 << 13, copy));
        let mut members = HashMap::new();
        while let Some(entry) = tar.next_entry().map_err(malformed)? {
            if entry
                .offset
                .checked_add(entry.size)
                .is_none_or(|end| end > length)
            {
                return Err(Error::document(&name, "it ends within a file"));
            }
            tar.jump(|input, count| input.seek_relative(count.cast_signed()))
                .map_err(|source| Error::Stream {
                    what: name.clone(),
                    source,
                })?;
            let Some(path) = normalize(b"", &entry.name) else {
                return Err(Error::document(&name, "an entry outside the archive"));
            };
            let member = match entry.kind {
                Kind::File if entry.sparse.is_none() => Member::File {
                    offset: entry.offset,
                    size: entry.size,
                },
                Kind::HardLink => match normalize(b"", &entry.link) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                Kind::Symlink => match normalize(parent(&path), &entry.link) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                _ => continue,
            };
            members.insert(path, member);
            if members.len() > 1_000_000 {
                return Err(Error::Limit {
                    what: "the number of entries of an archive".to_owned(),
                    limit: 1_000_000,
                });
            }
        }
        Ok(Self::Tar {
            name,
            file,
            members,
            _spool: spool,
        })
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Dir(path) => path.display().to_string(),
            Self::Tar { name, .. } => name.clone(),
        }
    }

    /// Opens a file by its name in the archive; `None` where there is none. Returns its size as well.
    pub(super) fn file(&self, name: &str) -> Result<Option<(Box<dyn Read + '_>, u64)>> {
        let Some(mut path) = normalize(b"", name.as_bytes()) else {
            return Ok(None);
        };
        match self {
            Self::Dir(dir) => {
                let path = dir.join(String::from_utf8_lossy(&path).as_ref());
                match open_regular(&path) {
                    Ok(file) => {
                        let size = file.metadata().map_err(|e| Error::io("open", &path, e))?.len();
                        Ok(Some((Box::new(file), size)))
                    }
                    Err(Error::Io { source, .. })
                        if matches!(
                            source.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                        ) =>
                    {
                        Ok(None)
                    }
                    Err(error) => Err(error),
                }
            }
            Self::Tar { file, members, .. } => {
                for _ in 0..LINKS_MAX {
                    match members.get(&path) {
                        Some(Member::File { offset, size }) => {
                            let part = Part {
                                file,
                                at: *offset,
                                end: offset + size,
                            };
                            return Ok(Some((Box::new(part), *size)));
                        }
                        Some(Member::Link(target)) => path.clone_from(target),
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
        }
    }

    /// Reads a document of at most `limit` bytes.
    pub(super) fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some((file, size)) = self.file(name)? else {
            return Ok(None);
        };
        if size > limit {
            return Err(Error::Limit {
                what: format!("the size in bytes of {name} in {}", self.name()),
                limit,
            });
        }
        let mut bytes = Vec::new();
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(|source| Error::Stream {
                what: format!("{name} in {}", self.name()),
                source,
            })?;
        Ok(Some(bytes))
    }
}

/// A file within a plain tar.
struct Part<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = out.len().min(left);
        let count = self.file.read_at(&mut out[..wanted], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn inflate(name: &str, limits: &Limits, stream: &mut dyn Read, path: &Path, file: &File) -> Result<()> {
    let mut start = [0; 6];
    let count = read_start(stream, &mut start).map_err(|source| Error::Stream {
        what: name.to_owned(),
        source,
    })?;
    let mut whole = io::Cursor::new(start[..count].to_vec()).chain(stream);
    let mut out = Bounded {
        file,
        left: limits.layer_bytes,
        error: None,
    };
    let compression = Compression::detect(&start[..count]);
    let mut whole = archived(compression, &mut whole);
    let mut inflater = Inflater::new(&mut whole, Hasher::sha256(), limits.layer_bytes);
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = inflater.fill(&mut buffer).map_err(|error| match error {
            InflateError::Stream(error) if matches!(compression, Compression::Xz | Compression::Bzip2) => {
                Error::document(name, format!("{compression:?}: {error}"))
            }
            InflateError::Stream(source) => Error::Stream {
                what: name.to_owned(),
                source,
            },
            InflateError::Corrupt(reason) => Error::document(name, reason),
            InflateError::TooLong => too_large(limits),
            InflateError::Unsupported(kind) => Error::Unsupported {
                what: format!("an archive compressed with {kind}"),
                on: name.to_owned(),
            },
        })?;
        if out.left < count as u64 {
            return Err(too_large(limits));
        }
        out.write_all(&buffer[..count])
            .map_err(|e| Error::io("write", path, e))?;
        if count < buffer.len() {
            return Ok(());
        }
    }
}

fn too_large(limits: &Limits) -> Error {
    Error::Limit {
        what: "the unpacked size of an archive in bytes".to_owned(),
        limit: limits.layer_bytes,
    }
}

/// A file that takes no more than a number of bytes.
struct Bounded<'a> {
    file: &'a File,
    left: u64,
    /// The decoder hides it.
    error: Option<io::Error>,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        match (&mut &*self.file).write(&bytes[..count]) {
            Ok(count) => {
                self.left -= count as u64;
                Ok(count)
            }
            Err(error) => {
                let kind = error.kind();
                self.error = Some(error);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read_start(stream: &mut dyn Read, start: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < start.len() {
        match stream.read(&mut start[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Opens a regular file; a pipe or device would block or never end.
fn open_regular(path: &Path) -> Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|e| Error::io("open", path, e))?;
    if !file.metadata().map_err(|e| Error::io("open", path, e))?.is_file() {
        return Err(Error::Unsupported {
            what: "an archive that is not a file".to_owned(),
            on: path.display().to_string(),
        });
    }
    file.seek(SeekFrom::Start(0))
        .map_err(|e| Error::io("open", path, e))?;
    Ok(file)
}

fn parent(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|&b| b == b'/').unwrap_or(0)]
}

/// `name` as seen from `dir`; `None` when it leaves the archive.
fn normalize(dir: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = if name.starts_with(b"/") {
        Vec::new()
    } else {
        dir.split(|&b| b == b'/').collect()
    };
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    parts.retain(|part| !part.is_empty());
    Some(parts.join(&b'/'))
}
