//! The crate's one error type: each variant is a decision a caller can take, and names its object.
use crate::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// Any error of an [`crate::ImageSource`], which other crates implement.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong with an image or with the store.
///
/// `Display` says what this crate was doing; a cause below it is in `source()`; [`Error::hint`] says what to
/// change on the host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No image, blob or snapshot of that name is in the store.
    #[error("{kind} {name} is not in the store")]
    NotFound {
        /// What was looked for: `image`, `blob`, `snapshot`, `layer`.
        kind: &'static str,
        /// The name as the caller gave it.
        name: String,
    },
    /// A short id matches several images.
    #[error("the short id {name} matches several images")]
    AmbiguousId {
        /// The id as the caller gave it.
        name: String,
    },
    /// A text is not an image reference in Docker's grammar.
    #[error("invalid reference {text:?}: {reason}")]
    InvalidReference {
        /// The text.
        text: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// A text is not a digest of a supported algorithm.
    #[error("invalid digest {text:?}: {reason}")]
    InvalidDigest {
        /// The text.
        text: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// A text is not a platform (`os/architecture[/variant]`).
    #[error("invalid platform {text:?}: {reason}")]
    InvalidPlatform {
        /// The text.
        text: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// A snapshot id with characters that ids do not have.
    #[error(
        "invalid snapshot id {id:?}: an id is 1 to 128 letters, digits, '_', '.', '-', and starts with a letter or digit"
    )]
    InvalidId {
        /// The id.
        id: String,
    },
    /// A document (manifest, index, config, layout) is not what it must be.
    #[error("{what} is malformed: {reason}")]
    MalformedDocument {
        /// Which document.
        what: String,
        /// The rule it breaks.
        reason: String,
    },
    /// The content is not what its digest says.
    #[error("content of {what} does not have its digest: expected {expected}, found {found}")]
    DigestMismatch {
        /// Which content.
        what: String,
        /// The digest it should have.
        expected: Digest,
        /// The digest computed over the bytes received.
        found: Digest,
    },
    /// A name leads to another image than it did when it was looked up.
    #[error("{reference} leads to another image now: it was {expected}, and is {found}")]
    Moved {
        /// The name.
        reference: String,
        /// Digest of the manifest that it led to.
        expected: Digest,
        /// Digest of the manifest that it leads to.
        found: Digest,
    },
    /// The content is longer or shorter than its descriptor says.
    #[error("size of {what} is wrong: expected {expected} bytes, found {found}{}", if *.found > *.expected { " or more" } else { "" })]
    SizeMismatch {
        /// Which content.
        what: String,
        /// Bytes the descriptor promises.
        expected: u64,
        /// Bytes received.
        found: u64,
    },
    /// A layer's tar or its compression is damaged, or holds what a layer must not hold.
    #[error("layer {layer} is malformed{}: {reason}", if .entry.is_empty() { String::new() } else { format!(" at entry {:?}", .entry) })]
    LayerMalformed {
        /// The layer's diffID, or its digest where the diffID is not known yet.
        layer: String,
        /// The entry's name as written in the tar (lossy), empty when the stream itself is damaged.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// Files of a layer are not what they were when it came in, so that its tar cannot be made again.
    #[error("layer {layer} was changed in the store{}: {reason}", if .path.is_empty() { String::new() } else { format!(" at {path:?}") })]
    LayerChanged {
        /// The layer's diffID.
        layer: Digest,
        /// The file, below the layer's root (lossy); empty when no single one is known.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Content passes one of the store's [`crate::Limits`].
    #[error("{what} is over the limit of {limit}")]
    Limit {
        /// What was counted.
        what: String,
        /// The limit, in the unit `what` names.
        limit: u64,
    },
    /// The file system is full, or a quota is used up.
    #[error("no space left while writing {}", path.display())]
    NoSpace {
        /// The file or directory that was written.
        path: PathBuf,
    },
    /// An image cannot be removed, since snapshots (containers) use it.
    #[error("image {image} is used by snapshot {}", snapshots.join(", "))]
    ImageInUse {
        /// The image, as the caller named it.
        image: String,
        /// Ids of the snapshots.
        snapshots: Vec<String>,
    },
    /// An image has several tags and was named by its id.
    #[error("image {image} has several tags: {}", tags.join(", "))]
    SeveralTags {
        /// The image's id.
        image: Digest,
        /// Its tags.
        tags: Vec<String>,
    },
    /// A blob or layer that an image names is not in the store.
    #[error("{what} {digest} is missing from the store")]
    MissingBlob {
        /// `manifest`, `config`, `layer`.
        what: &'static str,
        /// Its digest (a layer's diffID).
        digest: Digest,
    },
    /// The store was written by a newer version of this library.
    #[error("store {} has format {found}, this version knows formats up to {known}", path.display())]
    NewerFormat {
        /// The store's directory.
        path: PathBuf,
        /// The format on disk.
        found: u64,
        /// The newest format this version knows.
        known: u64,
    },
    /// Something this crate or this file system cannot do.
    #[error("{what} is not supported{}", if .on.is_empty() { String::new() } else { format!(" ({})", .on) })]
    Unsupported {
        /// What is asked for.
        what: String,
        /// By whom: a file system, a document's type; may be empty.
        on: String,
    },
    /// The name exists already and must not be replaced.
    #[error("{what} {name} exists already")]
    Exists {
        /// What: `snapshot`, `tag`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Files of a user namespace's other ids, which this process may not delete.
    #[error("files under {} belong to ids of a user namespace", path.display())]
    NeedsUserNamespace {
        /// The directory to remove from inside the user namespace.
        path: PathBuf,
    },
    /// The stream that a layer or an archive is read from failed.
    #[error("while reading {what}")]
    Stream {
        /// Which content.
        what: String,
        /// The reader's error.
        source: io::Error,
    },
    /// A system call of this crate failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The verb: `open`, `create`, `rename`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl Error {
    /// Returns what to change on the host, where that helps.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSpace { path } => Some(format!(
                "free space on the file system of {}, or remove unused images (prune)",
                path.display()
            )),
            Self::Io { source, path, .. } if source.kind() == io::ErrorKind::PermissionDenied => Some(
                format!("the store must be writable by this user: {}", path.display()),
            ),
            Self::NewerFormat { .. } => {
                Some("use the newer version of the program, or another root directory".to_owned())
            }
            Self::ImageInUse { .. } => Some("remove the containers first, or force the removal".to_owned()),
            Self::SeveralTags { .. } => Some("remove the tags one by one, or force the removal".to_owned()),
            Self::LayerChanged { .. } => {
                Some("remove the image and pull it again, or repair the store".to_owned())
            }
            Self::MissingBlob { .. } => Some("pull the image again".to_owned()),
            Self::NeedsUserNamespace { .. } => {
                Some("remove the directory from inside the user namespace that made it".to_owned())
            }
            Self::Limit { .. } => Some("raise the limit in StoreOptions if the image is trusted".to_owned()),
            _ => None,
        }
    }

    /// A system error; ENOSPC and EDQUOT become [`Error::NoSpace`].
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let path = path.as_ref().to_owned();
        match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Self::NoSpace { path },
            _ => Self::Io { action, path, source },
        }
    }

    pub(crate) fn document(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::MalformedDocument {
            what: what.into(),
            reason: reason.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_its_own_variant() {
        let error = Error::io("write", "/x", rustix::io::Errno::NOSPC);
        assert!(matches!(error, Error::NoSpace { .. }));
        assert!(error.hint().is_some());
        assert!(matches!(
            Error::io("write", "/x", rustix::io::Errno::IO),
            Error::Io { .. }
        ));
    }
}
