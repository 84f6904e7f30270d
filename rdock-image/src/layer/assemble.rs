//! A layer's tar is made again from its skeleton and the files in `fs/`, to the byte: what comes out is checked file by
//! file, and as a whole against the diffID.
use super::apart::Found;
use super::skeleton::{BYTES, END, FILE, LONGEST, MAGIC, MORE, PART, VERSION, absent, read_number};
use super::tree::OPEN_DIR;
use crate::digest::Hasher;
use crate::{Digest, Error, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The longest path that a layer can have.
const LONGEST_PATH: u64 = 4096;

/// Writes the tar of the layer in the directory `layer` to `out`, and returns its bytes; `None` when the layer was
/// written without a skeleton.
pub(crate) fn assemble(layer: &Path, diff_id: &Digest, out: &mut dyn Write) -> Result<Option<u64>> {
    let path = layer.join(FILE);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let changed = |path: &[u8], reason: &str| Error::LayerChanged {
        layer: diff_id.clone(),
        path: String::from_utf8_lossy(path).into_owned(),
        reason: reason.to_owned(),
    };
    let mut start = [0; MAGIC.len() + 1];
    if file.read_exact(&mut start).is_err() || start[..MAGIC.len()] != *MAGIC {
        return Err(changed(b"", DAMAGED));
    }
    if start[MAGIC.len()] != VERSION {
        return Err(Error::NewerFormat {
            path,
            found: start[MAGIC.len()].into(),
            known: VERSION.into(),
        });
    }
    let input = zstd::stream::read::Decoder::new(file).map_err(|e| Error::io("read", &path, e))?;
    let root = rustix::fs::open(layer, OPEN_DIR, Mode::empty()).map_err(|e| Error::io("open", layer, e))?;
    let mut assembler = Assembler {
        input: BufReader::with_capacity(LONGEST, input),
        root,
        apart: Found::read(layer)?,
        has_openat2: true,
        hasher: Hasher::like(diff_id),
        total: 0,
        buffer: vec![0; 256 << 10],
        out,
    };
    match assembler.all() {
        Ok(()) => {}
        Err(Fault::Damaged) => return Err(changed(b"", DAMAGED)),
        Err(Fault::File(path, reason)) => return Err(changed(&path, reason)),
        Err(Fault::Read(at, errno)) => {
            return Err(Error::io(
                "read",
                layer.join(&*String::from_utf8_lossy(&at)),
                errno,
            ));
        }
        Err(Fault::Out(source)) => {
            return Err(Error::Stream {
                what: format!("the tar of layer {}", diff_id.short()),
                source,
            });
        }
    }
    let total = assembler.total;
    if assembler.hasher.finish() != *diff_id {
        return Err(changed(b"", DAMAGED));
    }
    Ok(Some(total))
}

const DAMAGED: &str = "the record of its tar is damaged";

enum Fault {
    /// The skeleton makes no sense.
    Damaged,
    /// A file is not what it was.
    File(Vec<u8>, &'static str),
    Read(Vec<u8>, Errno),
    Out(io::Error),
}

struct Assembler<'a> {
    input: BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>,
    /// Of the layer.
    root: OwnedFd,
    apart: Found,
    has_openat2: bool,
    hasher: Hasher,
    total: u64,
    buffer: Vec<u8>,
    out: &'a mut dyn Write,
}

impl Assembler<'_> {
    fn all(&mut self) -> Result<(), Fault> {
        let mut files = 0;
        let mut current: Option<(Vec<u8>, File)> = None;
        loop {
            let mut kind = [0];
            self.exact(&mut kind)?;
            match kind[0] {
                BYTES => {
                    let count = self.number(LONGEST as u64)? as usize;
                    let mut buffer = std::mem::take(&mut self.buffer);
                    self.exact(&mut buffer[..count])?;
                    self.put(&buffer[..count])?;
                    self.buffer = buffer;
                }
                PART => {
                    let count = self.number(LONGEST_PATH)? as usize;
                    let mut path = vec![0; count];
                    self.exact(&mut path)?;
                    let file = self.open(&path, files)?;
                    files += 1;
                    self.part(&path, &file)?;
                    current = Some((path, file));
                }
                MORE => {
                    let (path, file) = current.take().ok_or(Fault::Damaged)?;
                    self.part(&path, &file)?;
                    current = Some((path, file));
                }
                END => {
                    let total = self.number(u64::MAX)?;
                    let mut rest = [0];
                    // Reading on checks the frame's own checksum.
                    let ended = matches!(self.input.read(&mut rest), Ok(0));
                    return match ended && total == self.total {
                        true => Ok(()),
                        false => Err(Fault::Damaged),
                    };
                }
                _ => return Err(Fault::Damaged),
            }
        }
    }

    fn part(&mut self, path: &[u8], file: &File) -> Result<(), Fault> {
        let (mut at, mut left) = (self.number(u64::MAX)?, self.number(u64::MAX)?);
        let mut expected = [0; 4];
        self.exact(&mut expected)?;
        let mut crc = crc32fast::Hasher::new();
        let mut buffer = std::mem::take(&mut self.buffer);
        while left > 0 {
            let wanted = (buffer.len() as u64).min(left) as usize;
            match file.read_at(&mut buffer[..wanted], at) {
                Ok(0) => return Err(Fault::File(path.to_vec(), "the file is shorter than it was")),
                Ok(count) => {
                    crc.update(&buffer[..count]);
                    self.put(&buffer[..count])?;
                    at = at.checked_add(count as u64).ok_or(Fault::Damaged)?;
                    left -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                    return Err(Fault::Read(path.to_vec(), errno));
                }
            }
        }
        self.buffer = buffer;
        match crc.finalize().to_le_bytes() == expected {
            true => Ok(()),
            false => Err(Fault::File(
                path.to_vec(),
                "the file has another content than it had",
            )),
        }
    }

    /// Opens a file of the layer; no symlink leads out of it, or anywhere.
    fn open(&mut self, path: &[u8], number: u64) -> Result<File, Fault> {
        let place = match self.apart.place(path, number) {
            Some(place) => place,
            None => [b"fs/", path].concat(),
        };
        let file = self.below(&place).map_err(|errno| match absent(errno) {
            true => Fault::File(path.to_vec(), "the file is missing"),
            false => Fault::Read(place.clone(), errno),
        })?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| Fault::Read(place, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Fault::File(path.to_vec(), "the file is missing"));
        }
        Ok(file.into())
    }

    fn below(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if self.has_openat2 {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                // A kernel before 5.6, or a seccomp filter.
                Err(Errno::NOSYS | Errno::PERM) => self.has_openat2 = false,
                other => return other,
            }
        }
        let (above, name) = super::names::split(path);
        let mut at = rustix::fs::openat(&self.root, ".", OPEN_DIR, Mode::empty())?;
        for part in above.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
            at = rustix::fs::openat(&at, part, OPEN_DIR, Mode::empty())?;
        }
        rustix::fs::openat(&at, name, flags, Mode::empty())
    }

    fn exact(&mut self, out: &mut [u8]) -> Result<(), Fault> {
        // Whatever the decoder says, the file is not what was written.
        self.input.read_exact(out).map_err(|_| Fault::Damaged)
    }

    fn number(&mut self, most: u64) -> Result<u64, Fault> {
        match read_number(&mut self.input) {
            Ok(Some(number)) if number <= most => Ok(number),
            _ => Err(Fault::Damaged),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.total += bytes.len() as u64;
        self.hasher.update(bytes);
        self.out.write_all(bytes).map_err(Fault::Out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn foreign_records_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), framed in any::<bool>()) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("fs")).unwrap();
            let mut file = [&MAGIC[..], &[VERSION]].concat();
            match framed {
                true => file.extend(zstd::stream::encode_all(&bytes[..], 1).unwrap()),
                false => file.extend(bytes),
            }
            std::fs::write(dir.path().join(FILE), file).unwrap();
            let wanted = Digest::sha256_of(b"another");
            prop_assert!(assemble(dir.path(), &wanted, &mut io::sink()).is_err());
        }
    }
}
