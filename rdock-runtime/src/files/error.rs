//! What can go wrong with the files of a container.

use std::io;
use std::path::{Path, PathBuf};

/// Why files of a container cannot be copied, listed or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// Nothing is there, in the container.
    #[error("container {container} has no {path}")]
    NoSuchPath {
        /// Its name.
        container: String,
        /// As asked for.
        path: String,
    },
    /// Nothing is there, on this host.
    #[error("no such file or directory: {}", path.display())]
    NoSuchLocalPath {
        /// As asked for.
        path: PathBuf,
    },
    /// A directory is needed.
    #[error("{path} is not a directory")]
    NotADirectory {
        /// As asked for.
        path: String,
    },
    /// A file was to be copied to a path that ends with a slash, where no directory is.
    #[error("the destination directory {path} does not exist")]
    NoSuchDirectory {
        /// As asked for.
        path: String,
    },
    /// A directory was to be copied onto something else, or the other way round.
    #[error("cannot overwrite {}directory {path} with {}directory", non(*directory), non(!*directory))]
    KindsDiffer {
        /// What is there.
        path: String,
        /// Whether what is there is a directory.
        directory: bool,
    },
    /// A member of an archive leads out of the directory it is unpacked in.
    #[error("the archive's member {name:?} leads out of the destination")]
    Escapes {
        /// Its name, or where it links to.
        name: String,
    },
    /// The archive cannot be read.
    #[error("the archive is not a tar, or is damaged: {reason}")]
    Archive {
        /// What is wrong.
        reason: String,
    },
    /// The container ended or was removed meanwhile, or it has no file system yet.
    #[error("container {container} has no files: {reason}")]
    NoFiles {
        /// Its name.
        container: String,
        /// Why.
        reason: String,
    },
    /// An instruction of a commit that changes no configuration.
    #[error("cannot apply the change {text:?}: {reason}")]
    Change {
        /// As given.
        text: String,
        /// Why not.
        reason: String,
    },
    /// The file system refused.
    #[error("could not {action} {path}")]
    Io {
        /// What was done.
        action: &'static str,
        /// To what: a path in the container, or of this host.
        path: String,
        /// The system's error.
        source: io::Error,
    },
}

fn non(is: bool) -> &'static str {
    if is { "" } else { "non-" }
}

impl FilesError {
    pub(super) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        move |source| Self::Io { action, path, source }
    }

    pub(super) fn errno(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        let io = Self::io(action, path);
        move |errno| io(errno.into())
    }

    /// What to change on the host, when the host must change.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, path, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Some(format!(
                    "{path} must be accessible for this user; without root, files that belong to no one else may be closed to their owner"
                )),
                io::ErrorKind::StorageFull => Some("the disk is full".into()),
                io::ErrorKind::ReadOnlyFilesystem => Some(format!(
                    "{path} is on a mount or a root file system that is read-only"
                )),
                _ => None,
            },
            _ => None,
        }
    }
}
