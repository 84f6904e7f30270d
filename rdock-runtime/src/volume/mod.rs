//! Volumes: directories that outlive the containers using them.
//!
//! ```text
//! <root>/volumes/.format               version of this layout
//! <root>/volumes/.lock                 flock around every change of what is here
//! <root>/volumes/<name>/meta.json      what the volume is
//!                       _data/         what containers see
//!                       users/<id>     one file per container that uses it
//!                       copied         nothing is copied into it any more: it is filled, or a container used it
//!                       copying        flock of the launch that fills it now
//!                       interrupted/   what a launch left that died while filling it
//! ```
//! A volume appears by rename with its metadata in it and goes by rename to a name that is none.

mod error;
mod filter;
mod options;
mod others;
mod uses;

pub use error::VolumeError;
pub use filter::{PrunedVolumes, VolumeFilter};
pub(crate) use options::Backing;
pub use options::VolumeOptions;
pub(crate) use uses::CopyGuard;

use crate::events::{EventAction, EventKind, Journal};
use crate::identity::{is_name, random_id};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Version of the layout.
const FORMAT: &str = "1";

/// The volumes of a root. Any number of processes may have it open.
#[derive(Debug, Clone)]
pub struct Volumes {
    /// `<root>/volumes`.
    dir: PathBuf,
    /// `<root>/containers`, to see which users of a volume still exist.
    containers: PathBuf,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VolumeInfo {
    /// Its name; 64 hexadecimal digits for an anonymous one.
    pub name: String,
    /// Its directory on the host.
    pub mountpoint: PathBuf,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// As given when it was made.
    pub labels: BTreeMap<String, String>,
    /// Made for one container, without a name.
    pub anonymous: bool,
    /// Options of the local driver, as given when it was made.
    #[serde(default)]
    pub driver_options: BTreeMap<String, String>,
}

/// `meta.json`. Fields may be added; unknown ones are ignored.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    created: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    anonymous: bool,
    #[serde(default)]
    driver_options: BTreeMap<String, String>,
}

impl Volumes {
    /// Opens `<root>/volumes`, makes it when missing, and removes what interrupted launches left.
    pub(crate) fn open(root: &Path) -> Result<Self, VolumeError> {
        let volumes = Self {
            dir: root.join("volumes"),
            containers: root.join("containers"),
        };
        private_dir(&volumes.dir)?;
        volumes.check_format()?;
        volumes.sweep()?;
        Ok(volumes)
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<VolumeInfo>, VolumeError> {
        let mut found = Vec::new();
        for name in self.names()? {
            match self.get(&name) {
                Ok(info) => found.push(info),
                // Removed meanwhile.
                Err(VolumeError::NoSuchVolume { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The volume with this name.
    ///
    /// # Errors
    /// [`VolumeError::NoSuchVolume`].
    pub fn get(&self, name: &str) -> Result<VolumeInfo, VolumeError> {
        let missing = || VolumeError::NoSuchVolume {
            name: name.to_owned(),
        };
        if !is_name(name) {
            return Err(missing());
        }
        let path = self.dir.join(name).join("meta.json");
        let bytes = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(),
            _ => VolumeError::io("read", &path)(error),
        })?;
        let meta: Meta =
            serde_json::from_slice(&bytes).map_err(|error| VolumeError::io("read", &path)(error.into()))?;
        Ok(self.info(name, meta))
    }

    /// Makes a volume, under a random name when `None`. One that exists already is returned as it is.
    ///
    /// # Errors
    /// [`VolumeError::InvalidName`], and when it cannot be written.
    pub fn create(
        &self,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
    ) -> Result<VolumeInfo, VolumeError> {
        self.create_with(&VolumeOptions {
            name: name.map(str::to_owned),
            labels,
            ..VolumeOptions::default()
        })
    }

    /// As [`Self::create`], with options of the local driver.
    ///
    /// # Errors
    /// As [`Self::create`]; [`VolumeError::InvalidOption`].
    pub fn create_with(&self, options: &VolumeOptions) -> Result<VolumeInfo, VolumeError> {
        let shown = options.name.as_deref().unwrap_or("without a name");
        Backing::of(shown, &options.driver_options)?;
        let _lock = self.lock()?;
        match &options.name {
            Some(name) => self.make(name, options, false, None),
            None => self.make(&self.random_name()?, options, true, None),
        }
    }

    /// Removes a volume and all that is in it. With `force` a missing one is no error.
    ///
    /// # Errors
    /// [`VolumeError::InUse`] while a container, running or not, has it; [`VolumeError::NoSuchVolume`].
    pub fn remove(&self, name: &str, force: bool) -> Result<(), VolumeError> {
        let trash = {
            let _lock = self.lock()?;
            match self.get(name) {
                Err(VolumeError::NoSuchVolume { .. }) if force => return Ok(()),
                other => other?,
            };
            let containers = self.users(name)?;
            if !containers.is_empty() {
                return Err(VolumeError::InUse {
                    name: name.to_owned(),
                    containers,
                });
            }
            self.take_away(name)?
        };
        remove_tree(&trash)
    }

    /// Removes volumes that no container has: the anonymous ones, with `all` the named ones too. Returns
    /// the names of those that are gone.
    ///
    /// # Errors
    /// When one cannot be removed; those before it are gone.
    pub fn prune(&self, all: bool) -> Result<Vec<String>, VolumeError> {
        let filter = VolumeFilter {
            all,
            ..VolumeFilter::default()
        };
        Ok(self.prune_with(&filter)?.names)
    }

    fn info(&self, name: &str, meta: Meta) -> VolumeInfo {
        VolumeInfo {
            name: name.to_owned(),
            mountpoint: self.dir.join(name).join("_data"),
            created: meta.created,
            labels: meta.labels,
            anonymous: meta.anonymous,
            driver_options: meta.driver_options,
        }
    }

    /// File names that are volume names.
    fn names(&self) -> Result<Vec<String>, VolumeError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(VolumeError::io("list", &self.dir))? {
            let name = entry.map_err(VolumeError::io("list", &self.dir))?.file_name();
            names.extend(name.to_str().filter(|name| is_name(name)).map(str::to_owned));
        }
        Ok(names)
    }

    fn random_name(&self) -> Result<String, VolumeError> {
        random_id().map_err(VolumeError::io("choose a name in", &self.dir))
    }

    /// Makes a volume unless it exists; the lock is held. A new one has the note of `user` from the first moment:
    /// without any, an anonymous volume is one that somebody kept.
    fn make(
        &self,
        name: &str,
        options: &VolumeOptions,
        anonymous: bool,
        user: Option<&str>,
    ) -> Result<VolumeInfo, VolumeError> {
        if !is_name(name) {
            return Err(VolumeError::InvalidName {
                name: name.to_owned(),
            });
        }
        match self.get(name) {
            Err(VolumeError::NoSuchVolume { .. }) => {}
            other => return other,
        }
        let meta = Meta {
            created: format!("{:.9}", jiff::Timestamp::now()),
            labels: options.labels.clone(),
            anonymous,
            driver_options: options.driver_options.clone(),
        };
        let temporary = self.dir.join(format!(".new-{}", self.random_name()?));
        let fill = || -> Result<(), VolumeError> {
            private_dir(&temporary)?;
            let users = temporary.join("users");
            private_dir(&users)?;
            if let Some(id) = user {
                uses::note(&users, id)?;
            }
            make_data(&temporary.join("_data"))?;
            let path = temporary.join("meta.json");
            let bytes =
                serde_json::to_vec(&meta).map_err(|error| VolumeError::io("write", &path)(error.into()))?;
            write_durably(&path, &bytes)?;
            let path = self.dir.join(name);
            fs::rename(&temporary, &path).map_err(VolumeError::io("create", &path))?;
            File::open(&self.dir)
                .and_then(|dir| dir.sync_all())
                .map_err(VolumeError::io("create", &path))
        };
        fill().inspect_err(|_| {
            // What is left is swept at the next open.
            let _ = fs::remove_dir_all(&temporary);
        })?;
        self.journal().record(
            EventKind::Volume,
            EventAction::Create,
            name,
            &[("driver", "local")],
        );
        Ok(self.info(name, meta))
    }

    fn journal(&self) -> Journal {
        Journal::new(self.dir.parent().unwrap_or(&self.dir))
    }

    /// Renames a volume to a name that is none; the lock is held.
    fn take_away(&self, name: &str) -> Result<PathBuf, VolumeError> {
        let path = self.dir.join(name);
        let trash = self.dir.join(format!(".gone-{}", self.random_name()?));
        fs::rename(&path, &trash).map_err(VolumeError::io("remove", &path))?;
        self.journal().record(
            EventKind::Volume,
            EventAction::Destroy,
            name,
            &[("driver", "local")],
        );
        Ok(trash)
    }

    /// Taken around every change; released by dropping, or by the kernel.
    fn lock(&self) -> Result<File, VolumeError> {
        let path = self.dir.join(".lock");
        let file = open_for_lock(&path)?;
        file.lock().map_err(VolumeError::io("lock", &path))?;
        Ok(file)
    }

    fn check_format(&self) -> Result<(), VolumeError> {
        let path = self.dir.join(".format");
        let found = match fs::read_to_string(&path) {
            Ok(found) => found.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(VolumeError::io("read", &path)(error)),
        };
        if found == FORMAT {
            return Ok(());
        }
        if !found.is_empty() {
            return Err(VolumeError::NewerFormat { path, found });
        }
        let temporary = self.dir.join(format!(".new-{}", self.random_name()?));
        write_durably(&temporary, FORMAT.as_bytes())?;
        fs::rename(&temporary, &path).map_err(VolumeError::io("write", &path))
    }
}

fn open_for_lock(path: &Path) -> Result<File, VolumeError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(VolumeError::io("open", path))
}

fn private_dir(path: &Path) -> Result<(), VolumeError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(VolumeError::io("create", path))
}

/// What containers see, open to programs of every user in them, whatever the umask.
fn make_data(path: &Path) -> Result<(), VolumeError> {
    private_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(VolumeError::io("create", path))
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), VolumeError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    };
    write().map_err(VolumeError::io("write", path))
}

/// Removes a tree. Directories that their owner may not enter are opened up first: without root everything
/// in a volume belongs to the caller, whatever its mode.
fn remove_tree(path: &Path) -> Result<(), VolumeError> {
    match fs::remove_dir_all(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            return Err(VolumeError::io("remove", path)(error));
        }
        Err(_) => open_up(path),
    }
    fs::remove_dir_all(path).map_err(VolumeError::io("remove", path))
}

/// Gives the owner every right to the directories below `path`; what fails shows at the removal.
fn open_up(path: &Path) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
