//! Archives that are no layers: told apart by their contents, and unpacked as safely as a layer is.
use super::{ImageStore, ScratchLayer};
use crate::digest::Hasher;
use crate::layer::compression::{Compression, Inflater};
use crate::layer::extract::{Form, extract};
use crate::layer::pipeline::{Chunks, pass};
use crate::layer::skeleton::Recorder;
use crate::tarstream::TarReader;
use crate::{Error, Result};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use std::io::{self, BufReader, Cursor, Read, Seek, Write};

/// How much of an archive is inflated to see whether it is one.
const PEEK: usize = 64 << 10;

impl ImageStore {
    /// Says whether a stream holds a tar, plain or compressed with gzip, zstd or xz: its first entry can be read.
    /// Takes at most the first few hundred kilobytes.
    ///
    /// # Errors
    /// What the stream says.
    pub fn is_archive(&self, stream: &mut dyn Read) -> Result<bool> {
        let mut start = [0; 6];
        let count = fill(stream, &mut start).map_err(failed)?;
        let mut whole = Cursor::new(start[..count].to_vec()).chain(stream);
        let mut first = vec![0; PEEK];
        let count = match Compression::detect(&start[..count]) {
            Compression::Bzip2 => return Ok(false),
            Compression::Xz => {
                let mut out = Start(Vec::new());
                // The error is that there is more than was asked for, or that it only looks compressed.
                let _ = lzma_rs::xz_decompress(&mut BufReader::new(whole), &mut out);
                first = out.0;
                first.len()
            }
            _ => match Inflater::new(&mut whole, Hasher::sha256(), u64::MAX).fill(&mut first) {
                Ok(count) => count,
                // Only looks compressed.
                Err(_) => return Ok(false),
            },
        };
        Ok(matches!(
            TarReader::new(&first[..count]).next_entry(),
            Ok(Some(_))
        ))
    }

    /// Unpacks a tar, plain or compressed with gzip, zstd or xz, into an empty scratch directory. No path of it leads
    /// out of there, whatever it says; names that would be whiteouts in a layer are plain names.
    ///
    /// # Errors
    /// When the archive is damaged, passes the store's limits, or cannot be written; the directory holds a part of it
    /// then.
    pub fn unpack_archive(&self, name: &str, stream: &mut dyn Read, to: &ScratchLayer) -> Result<()> {
        let mut start = [0; 6];
        let count = fill(stream, &mut start).map_err(failed)?;
        let compression = Compression::detect(&start[..count]);
        let mut whole = Cursor::new(start[..count].to_vec()).chain(stream);
        let ownership = self.ownership()?;
        let reader = |chunks: Chunks| {
            let mut tar = TarReader::new(Recorder::silent(chunks));
            extract(
                name,
                &mut tar,
                to.upper(),
                ownership,
                self.limits(),
                Form::Archive,
            )?;
            tar.into_inner().finish(name).map(drop)
        };
        let passed = if compression == Compression::Xz {
            // The decoder writes all of it at once, so it goes through a file without a name.
            let mut plain = self.nameless()?;
            let limit = self.limits().layer_bytes;
            let mut out = Bounded(io::BufWriter::new(&mut plain), limit);
            lzma_rs::xz_decompress(&mut BufReader::new(&mut whole), &mut out)
                .map_err(|error| failed(io::Error::other(format!("{error:?}"))))?;
            out.flush().map_err(failed)?;
            drop(out);
            plain.rewind().map_err(failed)?;
            pass(name, &mut plain, None, self.limits(), reader)
        } else {
            pass(name, &mut whole, None, self.limits(), reader)
        };
        passed.map(drop)
    }

    /// A file without a name on the store's file system.
    fn nameless(&self) -> Result<std::fs::File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(self.layout().ingest(), flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => Ok(fd.into()),
            // File systems without O_TMPFILE: memory.
            Err(_) => rustix::fs::memfd_create("archive", MemfdFlags::CLOEXEC)
                .map(Into::into)
                .map_err(|errno| failed(errno.into())),
        }
    }
}

fn failed(source: io::Error) -> Error {
    Error::Stream {
        what: "the archive".to_owned(),
        source,
    }
}

fn fill(stream: &mut dyn Read, out: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < out.len() {
        match stream.read(&mut out[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Takes the first bytes, and refuses the rest.
struct Start(Vec<u8>);

impl Write for Start {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PEEK - self.0.len());
        self.0.extend_from_slice(&bytes[..count]);
        match count {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes so many bytes at most.
struct Bounded<W>(W, u64);

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.1 = (self.1.checked_sub(count as u64))
            .ok_or_else(|| io::Error::other("the archive is over the limit for a layer"))?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
