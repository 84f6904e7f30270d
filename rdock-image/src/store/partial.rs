//! What is there of a blob whose download broke off, kept so that the next one, in any process, goes on from there.
use super::ImageStore;
use crate::lock::OwnedLock;
use crate::{Digest, Error, Result};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// The beginning of a compressed blob in `ingest/`. It is not verified: whoever reads it hashes it, as everything
/// that comes from a network. Nobody else has it meanwhile. It stays when this value is dropped, and is removed
/// after a week.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    length: u64,
    _lock: OwnedLock,
}

impl ImageStore {
    /// Opens what there is of a blob, nothing as yet included; `None` while another download of it goes on.
    pub fn partial(&self, digest: &Digest) -> Result<Option<Partial>> {
        let path = self.layout().ingest().join(format!("{}.part", digest.hex()));
        let Some(lock) = OwnedLock::try_acquire(self.layout(), &path.with_extension("part-lock"))? else {
            return Ok(None);
        };
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|e| Error::io("open", &path, e))?;
        let length = file.metadata().map_err(|e| Error::io("examine", &path, e))?.len();
        Ok(Some(Partial {
            file,
            path,
            length,
            _lock: lock,
        }))
    }
}

impl Partial {
    /// Bytes that are there.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Says whether nothing is there yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Reads from the beginning what was there when this was called.
    pub fn reader(&self) -> Result<impl Read + use<>> {
        let file = File::open(&self.path).map_err(|e| Error::io("open", &self.path, e))?;
        Ok(file.take(self.length))
    }

    /// Adds bytes at the end. When the disk is full what was written stays out of the count.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Removes it: the blob is complete, or its bytes are wrong.
    pub fn discard(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|e| Error::io("remove", &self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays_and_belongs_to_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let digest = Digest::sha256_of(b"whole");
        let mut first = store.partial(&digest).unwrap().unwrap();
        assert!(first.is_empty());
        first.append(b"who").unwrap();
        assert!(store.partial(&digest).unwrap().is_none());
        drop(first);
        // A sweep leaves it.
        let store = ImageStore::open(dir.path()).unwrap();
        let mut second = store.partial(&digest).unwrap().unwrap();
        assert_eq!(second.len(), 3);
        let mut reader = second.reader().unwrap();
        second.append(b"le").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "who");
        second.discard().unwrap();
        assert_eq!(fs::read_dir(store.layout().ingest()).unwrap().count(), 0);
        assert!(store.partial(&digest).unwrap().unwrap().is_empty());
    }
}
