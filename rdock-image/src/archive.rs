//! Tar archives from anywhere and for anyone: the reader that layers are read with, the headers that they are written
//! with, and streams that say themselves how they are compressed.
pub use crate::tarstream::{END, Entry, Kind, Member, TarError, TarReader, Xattrs, padding};

use crate::digest::Hasher;
use crate::layer::compression::{Compression, InflateError, Inflater, archived};
use std::io::{self, BufRead, BufReader, Read};

/// Lets `work` read `stream` inflated, in this process: gzip, zstd, xz, bzip2 or plain, told apart by the first bytes.
///
/// # Errors
/// When `stream` fails; for bytes that are not what their first ones announce, the reads of `work` fail.
pub fn decompressed<T>(stream: &mut dyn Read, work: impl FnOnce(&mut dyn BufRead) -> T) -> io::Result<T> {
    let mut start = [0; 6];
    let mut length = 0;
    while length < start.len() {
        match stream.read(&mut start[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let whole = start[..length].chain(stream);
    let mut whole = archived(Compression::detect(&start[..length]), whole);
    let inflater = Inflater::new(&mut whole, Hasher::sha256(), u64::MAX - 1);
    Ok(work(&mut BufReader::with_capacity(128 << 10, Inflated(inflater))))
}

struct Inflated<'a>(Inflater<'a>);

impl Read for Inflated<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.fill(out).map_err(|error| match error {
            InflateError::Stream(error) => error,
            InflateError::Corrupt(reason) => io::Error::new(io::ErrorKind::InvalidData, reason),
            InflateError::TooLong => io::Error::new(io::ErrorKind::InvalidData, "it is too long"),
            InflateError::Unsupported(what) => io::Error::new(io::ErrorKind::Unsupported, what),
        })
    }
}
