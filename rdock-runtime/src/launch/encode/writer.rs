//! The numbers, texts and lists of which a plan is made, as bytes.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Writes operations.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
    /// A text with a NUL in it, which no path or argument of a process can have.
    refused: Option<String>,
}

impl Writer {
    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }
    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }
    pub(super) fn blob(&mut self, bytes: &[u8]) -> &mut Self {
        // A length that does not fit is caught by `finish`.
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(bytes);
        self.bytes.push(0);
        self
    }
    pub(super) fn text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let text = text.as_ref();
        if text.contains(&0) {
            self.refused = Some(String::from_utf8_lossy(text).into_owned());
        }
        self.blob(text)
    }
    pub(super) fn path(&mut self, path: &Path) -> &mut Self {
        self.text(path.as_os_str().as_bytes())
    }
    pub(super) fn texts<T: AsRef<[u8]>>(&mut self, texts: &[T]) -> &mut Self {
        self.u32(texts.len() as u32);
        for text in texts {
            self.text(text);
        }
        self
    }
    pub(super) fn finish(&self) -> io::Result<()> {
        match &self.refused {
            Some(text) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{text:?} has a NUL byte in it"),
            )),
            None if self.bytes.len() > LARGEST => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the plan is larger than 16 MiB",
            )),
            None => Ok(()),
        }
    }
}

/// Arguments and environment of any exec are smaller.
const LARGEST: usize = 16 << 20;
