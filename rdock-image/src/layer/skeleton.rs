//! What is kept beside an extracted layer so that its tar can be made again to the byte.
//!
//! The file `tar.skeleton` holds every byte of the tar that is not content of a file in `fs/`, in order, and where
//! the content is instead. It is written while the layer is unpacked, in the same pass. After [`MAGIC`] and the
//! version follows one zstd frame (with its checksum) of segments:
//!
//! ```text
//! 1 length bytes                  these bytes
//! 2 length path offset size crc   a part of a file below fs/, with its CRC-32
//! 3 offset size crc               another part of the same file
//! 0 size                          the end; bytes of the whole tar
//! ```
//!
//! Numbers are LEB128, a CRC is four bytes, little-endian. Content that a later entry of the same tar replaced, and
//! content that the store's user could not read again, is in `apart/`; see [`super::apart`].
use crate::{Error, Result};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file's name in the layer's directory.
pub(crate) const FILE: &str = "tar.skeleton";
pub(super) const MAGIC: &[u8; 8] = b"rdocktar";
pub(super) const VERSION: u8 = 1;
pub(super) const END: u8 = 0;
pub(super) const BYTES: u8 = 1;
pub(super) const PART: u8 = 2;
pub(super) const MORE: u8 = 3;
/// The longest run of bytes in one segment.
pub(super) const LONGEST: usize = 64 << 10;
/// Headers repeat themselves so much that a higher level finds little more.
const LEVEL: i32 = 1;

/// A stream that writes down what passes through it, but for what it is told to be a file's content.
#[derive(Debug)]
pub(crate) struct Recorder<R> {
    input: R,
    skeleton: Option<Skeleton>,
}

impl<R: BufRead> Recorder<R> {
    /// A stream that is not written down.
    pub(crate) fn silent(input: R) -> Self {
        Self {
            input,
            skeleton: None,
        }
    }

    /// Writes the skeleton of `input` into the layer's directory.
    pub(crate) fn new(input: R, layer: &Path) -> Result<Self> {
        Ok(Self {
            input,
            skeleton: Some(Skeleton::new(layer)?),
        })
    }

    /// What is consumed from now on is content of a file.
    pub(super) fn begin_content(&mut self) {
        if let Some(skeleton) = &mut self.skeleton {
            skeleton.content = Some(crc32fast::Hasher::new());
        }
    }

    /// The content consumed since [`Recorder::begin_content`] is that of `path` from `offset` on. A path of `None`
    /// is that of the part before.
    pub(super) fn end_content(&mut self, path: Option<&[u8]>, offset: u64, size: u64) {
        if let Some(skeleton) = &mut self.skeleton {
            let crc = skeleton.content.take().map_or(0, crc32fast::Hasher::finalize);
            if size > 0 {
                skeleton.part(path, offset, size, crc);
            }
        }
    }

    /// Files whose content was referred to so far.
    pub(super) fn files(&self) -> u64 {
        self.skeleton.as_ref().map_or(0, |skeleton| skeleton.files)
    }

    /// Takes the rest of the stream, and returns the bytes of the whole tar.
    pub(crate) fn finish(mut self, name: &str) -> Result<u64> {
        loop {
            let count = self
                .fill_buf()
                .map_err(|source| Error::Stream {
                    what: format!("layer {name}"),
                    source,
                })?
                .len();
            if count == 0 {
                break;
            }
            self.consume(count);
        }
        self.skeleton.map_or(Ok(0), Skeleton::finish)
    }
}

impl<R: BufRead> BufRead for Recorder<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Some(skeleton) = &mut self.skeleton
            && count > 0
        {
            // What was filled is there still.
            match self.input.fill_buf() {
                Ok(bytes) => skeleton.passed(&bytes[..count.min(bytes.len())]),
                Err(error) => skeleton.failed = Some(error),
            }
        }
        self.input.consume(count);
    }
}

impl<R: BufRead> Read for Recorder<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let count = chunk.len().min(out.len());
        out[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// The file while it is written.
struct Skeleton {
    out: zstd::stream::write::Encoder<'static, File>,
    path: PathBuf,
    /// Bytes that are not in the file yet.
    literal: Vec<u8>,
    total: u64,
    files: u64,
    content: Option<crc32fast::Hasher>,
    /// The first failure; the end says it.
    failed: Option<io::Error>,
}

impl std::fmt::Debug for Skeleton {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Skeleton")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Skeleton {
    fn new(layer: &Path) -> Result<Self> {
        let path = layer.join(FILE);
        let made = (|| {
            let mut options = File::options();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(MAGIC)?;
            file.write_all(&[VERSION])?;
            let mut out = zstd::stream::write::Encoder::new(file, LEVEL)?;
            out.include_checksum(true)?;
            Ok(out)
        })();
        Ok(Self {
            out: made.map_err(|e: io::Error| Error::io("write", &path, e))?,
            path,
            literal: Vec::with_capacity(LONGEST),
            total: 0,
            files: 0,
            content: None,
            failed: None,
        })
    }

    fn passed(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if let Some(content) = &mut self.content {
            content.update(bytes);
            return;
        }
        while !bytes.is_empty() {
            let count = bytes.len().min(LONGEST - self.literal.len());
            self.literal.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.literal.len() == LONGEST {
                self.flush();
            }
        }
    }

    fn part(&mut self, path: Option<&[u8]>, offset: u64, size: u64, crc: u32) {
        self.flush();
        let mut segment = Vec::with_capacity(64);
        match path {
            Some(path) => {
                self.files += 1;
                segment.push(PART);
                number(&mut segment, path.len() as u64);
                segment.extend_from_slice(path);
            }
            None => segment.push(MORE),
        }
        number(&mut segment, offset);
        number(&mut segment, size);
        segment.extend_from_slice(&crc.to_le_bytes());
        self.put(&segment);
    }

    fn flush(&mut self) {
        if self.literal.is_empty() {
            return;
        }
        let literal = std::mem::take(&mut self.literal);
        let mut head = vec![BYTES];
        number(&mut head, literal.len() as u64);
        self.put(&head);
        self.put(&literal);
        self.literal = literal;
        self.literal.clear();
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.failed.is_none()
            && let Err(error) = self.out.write_all(bytes)
        {
            self.failed = Some(error);
        }
    }

    fn finish(mut self) -> Result<u64> {
        self.flush();
        let mut end = vec![END];
        number(&mut end, self.total);
        self.put(&end);
        let finished = match self.failed {
            Some(error) => Err(error),
            None => self.out.finish().map(drop),
        };
        finished.map_err(|e| Error::io("write", self.path, e))?;
        Ok(self.total)
    }
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a number; `None` for one that is too large.
pub(super) fn read_number(input: &mut impl Read) -> io::Result<Option<u64>> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        let bits = u64::from(byte[0] & 0x7f);
        if shift == 63 && bits > 1 {
            return Ok(None);
        }
        value |= bits << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Whether the error only says that nothing is there.
pub(super) fn absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(value in any::<u64>()) {
            let mut bytes = Vec::new();
            number(&mut bytes, value);
            prop_assert_eq!(read_number(&mut &bytes[..]).unwrap(), Some(value));
        }

        #[test]
        fn foreign_numbers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let _ = read_number(&mut &bytes[..]);
        }
    }
}
