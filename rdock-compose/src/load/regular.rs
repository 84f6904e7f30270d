//! Files that documents name. A FIFO or a device may never end, and may wait for ever: only regular files are read.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens a regular file, or `/dev/null`, which is an empty one.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for anything else that is there.
pub(crate) fn open(path: &Path) -> Result<File> {
    // A FIFO without a writer would not be opened before it has one.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| match irregular(path) {
        // A socket cannot be opened.
        Some(other) => refused(other),
        None => error,
    })?;
    match kind(&file.metadata()?) {
        None => Ok(file),
        Some(other) => Err(refused(other)),
    }
}

fn refused(kind: &str) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("it is {kind}, and only regular files are read"),
    )
}

/// What is there instead of a regular file; none if there is nothing.
pub(crate) fn irregular(path: &Path) -> Option<&'static str> {
    kind(&std::fs::metadata(path).ok()?)
}

fn kind(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    let null = rustix::fs::makedev(1, 3);
    match () {
        () if kind.is_file() => None,
        () if kind.is_char_device() && metadata.rdev() == null => None,
        () if kind.is_dir() => Some("a directory"),
        () if kind.is_fifo() => Some("a FIFO"),
        () if kind.is_socket() => Some("a socket"),
        () => Some("a device"),
    }
}
