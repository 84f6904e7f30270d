//! What can go wrong with volumes and with the sources of mounts.

use std::io;
use std::path::{Path, PathBuf};

/// Why a volume or the source of a mount cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// No volume of this root has the name.
    #[error("no such volume: {name}")]
    NoSuchVolume {
        /// As asked for.
        name: String,
    },
    /// Not a name for a volume.
    #[error("{name:?} is not a volume's name: {}", crate::identity::NAME_GRAMMAR)]
    InvalidName {
        /// As asked for.
        name: String,
    },
    /// An option of the local driver that it does not have, or that another one needs.
    #[error("volume {name}: {reason}")]
    InvalidOption {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Containers have the volume.
    #[error("volume {name} is in use by container {}: remove it first", containers.join(", "))]
    InUse {
        /// Its name.
        name: String,
        /// The names of the containers, or their ids.
        containers: Vec<String>,
    },
    /// Another container fills the volume with the contents of its image, and does not come to an end.
    #[error("volume {name} is being filled by another container for too long")]
    Busy {
        /// Its name.
        name: String,
    },
    /// A bind whose source is not there.
    #[error("the source of a mount does not exist: {}", path.display())]
    MissingSource {
        /// Its absolute path.
        path: PathBuf,
    },
    /// The volumes were written by a newer version.
    #[error("{} has format {found}, which is newer than this version of rdock", path.display())]
    NewerFormat {
        /// Which file says so.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The file system refused.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl VolumeError {
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// What to change on the host, when the host must change.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::MissingSource { path } => Some(format!("create {} first", path.display())),
            Self::Io { source, path, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    Some(format!("{} must be accessible for this user", path.display()))
                }
                io::ErrorKind::StorageFull => Some("the disk is full".into()),
                _ => None,
            },
            _ => None,
        }
    }
}
