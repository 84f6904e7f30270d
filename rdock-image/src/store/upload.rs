//! Where an upload that broke off goes on, kept so that the next push, in any process, need not begin anew.
use super::ImageStore;
use crate::layout::Layout;
use crate::lock::OwnedLock;
use crate::{Digest, Error, Result};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A note on one blob on its way to one place, in `ingest/`. Whoever uploads writes it and reads it; nobody else has it
/// meanwhile. It stays when this value is dropped, and is removed after a week.
#[derive(Debug)]
pub struct UploadNote {
    path: PathBuf,
    text: Option<String>,
    layout: Arc<Layout>,
    _lock: OwnedLock,
}

/// No note is longer.
const LONGEST: u64 = 64 << 10;

impl ImageStore {
    /// Opens the note on the upload of `blob` to `place`, whatever names both; `None` while another upload of it goes
    /// on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn upload_note(&self, place: &str, blob: &str) -> Result<Option<UploadNote>> {
        let name = Digest::sha256_of(format!("{} {place} {blob}", place.len()).as_bytes());
        let path = self.layout().ingest().join(format!("{}.upload", name.hex()));
        let Some(lock) = OwnedLock::try_acquire(self.layout(), &path.with_extension("upload-lock"))? else {
            return Ok(None);
        };
        let text = match fs::metadata(&path) {
            Ok(meta) if meta.len() <= LONGEST => match fs::read_to_string(&path) {
                Ok(text) => Some(text),
                // A note that a crash garbled is none.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
                Err(error) => return Err(Error::io("read", path, error)),
            },
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("examine", path, error)),
        };
        Ok(Some(UploadNote {
            path,
            text,
            layout: self.layout().clone(),
            _lock: lock,
        }))
    }
}

impl UploadNote {
    /// Returns what was noted.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Notes something else. It may be lost with the machine.
    ///
    /// # Errors
    /// When it cannot be written; the note is as it was then.
    pub fn write(&mut self, text: &str) -> Result<()> {
        if self.text.as_deref() == Some(text) {
            return Ok(());
        }
        self.layout.replace_unsynced(&self.path, text.as_bytes())?;
        self.text = Some(text.to_owned());
        Ok(())
    }

    /// Removes it: the upload is done, or given up.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn discard(self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", &self.path, error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_stays_and_belongs_to_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let open = |store: &ImageStore| store.upload_note("host/a", "blob").unwrap();
        let mut first = open(&store).unwrap();
        assert_eq!(first.text(), None);
        first.write("one").unwrap();
        first.write("two").unwrap();
        assert!(open(&store).is_none());
        assert_eq!(store.upload_note("host/ab", "lob").unwrap().unwrap().text(), None);
        drop(first);
        // A sweep leaves it.
        let store = ImageStore::open(dir.path()).unwrap();
        let second = open(&store).unwrap();
        assert_eq!(second.text(), Some("two"));
        second.discard().unwrap();
        assert_eq!(fs::read_dir(store.layout().ingest()).unwrap().count(), 0);
        open(&store).unwrap().discard().unwrap();
        // Garbage is no note.
        let mut note = open(&store).unwrap();
        note.write("x").unwrap();
        let path = note.path.clone();
        drop(note);
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(open(&store).unwrap().text(), None);
    }
}
