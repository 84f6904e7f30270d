//! Which containers have a volume, and who fills a new one.

use super::{Backing, VolumeError, VolumeInfo, VolumeOptions, Volumes, open_for_lock, remove_tree};
use crate::identity::is_id;
use crate::process::ProcessIdentity;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a launch waits for another one that fills the same volume.
const COPY_PATIENCE: Duration = Duration::from_secs(120);

/// A volume that this launch fills. Dropping it lets the next one look at what became of it.
#[derive(Debug)]
pub(crate) struct CopyGuard {
    volume: PathBuf,
    data: PathBuf,
    _lock: File,
}

impl Drop for CopyGuard {
    fn drop(&mut self) {
        // Nothing was copied: the next launch begins anew, without a suspicion about what it finds.
        if !self.volume.join("copied").exists() && is_empty(&self.data).unwrap_or(false) {
            let _ = fs::remove_file(self.volume.join("copying"));
        }
    }
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(dir)?.next().is_none())
}

/// Notes in a volume's directory of users that container `id`, started by this process, has it.
pub(super) fn note(users: &Path, id: &str) -> Result<(), VolumeError> {
    let path = users.join(id);
    let write = || fs::write(&path, serde_json::to_vec(&ProcessIdentity::current()?)?);
    write().map_err(VolumeError::io("write", &path))
}

impl Volumes {
    /// Notes that container `id` uses the volume, which is made when missing (anonymous without a name).
    /// As long as the note stands nobody removes it.
    pub(crate) fn reserve(&self, name: Option<&str>, id: &str) -> Result<VolumeInfo, VolumeError> {
        self.reserve_labelled(name, &BTreeMap::new(), id)
    }

    /// As [`Self::reserve`]; a volume that is made has these labels.
    pub(crate) fn reserve_labelled(
        &self,
        name: Option<&str>,
        labels: &BTreeMap<String, String>,
        id: &str,
    ) -> Result<VolumeInfo, VolumeError> {
        let _lock = self.lock()?;
        let options = VolumeOptions {
            labels: labels.clone(),
            ..VolumeOptions::default()
        };
        let info = match name {
            Some(name) => self.make(name, &options, false, Some(id))?,
            None => self.make(&self.random_name()?, &options, true, Some(id))?,
        };
        note(&self.users_dir(&info.name), id)?;
        Ok(info)
    }

    /// Forgets that container `id` uses any volume. A note that cannot be removed does no harm once the
    /// container is gone.
    pub(crate) fn release(&self, id: &str) {
        for name in self.names().unwrap_or_default() {
            let _ = fs::remove_file(self.users_dir(&name).join(id));
        }
    }

    /// As [`Self::release`], but only of volumes that no other container has: those would be swept away as soon as
    /// the container is gone.
    pub(crate) fn release_last(&self, id: &str) {
        // Under the lock: another container may just begin to use one.
        let Ok(_lock) = self.lock() else { return };
        for name in self.names().unwrap_or_default() {
            let note = self.users_dir(&name).join(id);
            if note.exists() && self.users(&name).is_ok_and(|users| users.len() <= 1) {
                let _ = fs::remove_file(note);
            }
        }
    }

    /// Removes a volume that was made for container `id`, unless another container has it too by now.
    pub(crate) fn remove_anonymous(&self, name: &str, id: &str) -> Result<(), VolumeError> {
        let trash = {
            let _lock = self.lock()?;
            match self.get(name) {
                Err(VolumeError::NoSuchVolume { .. }) => return Ok(()),
                Ok(info) if !info.anonymous => return Ok(()),
                other => other?,
            };
            // A note that is not there is as good as removed; one that stays counts as a user below.
            let _ = fs::remove_file(self.users_dir(name).join(id));
            if !self.users(name)?.is_empty() {
                return Ok(());
            }
            self.take_away(name)?
        };
        remove_tree(&trash)
    }

    /// Whether this launch fills the volume with what the image has at the target: only an empty volume
    /// that no container ever used, and only one launch. Waits for another launch that does.
    pub(crate) fn begin_copy(&self, info: &VolumeInfo) -> Result<Option<CopyGuard>, VolumeError> {
        let name = info.name.as_str();
        let volume = self.dir.join(name);
        let (copied, marker) = (volume.join("copied"), volume.join("copying"));
        // One in memory begins empty in every container.
        let Some(data) = info.directory()? else {
            return Ok(None);
        };
        let of_host = info.backing()? != Backing::Own;
        let deadline = Instant::now() + COPY_PATIENCE;
        loop {
            if copied.exists() {
                return Ok(None);
            }
            let began = marker.exists();
            let lock = open_for_lock(&marker)?;
            match lock.try_lock() {
                Ok(()) if !is_current(&lock, &marker) => continue,
                Ok(()) if copied.exists() => return Ok(None),
                Ok(()) => {
                    if !is_empty(&data).map_err(VolumeError::io("list", &data))? {
                        if !began || of_host {
                            // Somebody filled it by hand: it keeps what it has, for good. What is the host's is
                            // never moved.
                            self.mark_used(name)?;
                            return Ok(None);
                        }
                        // A launch died while it filled the volume, and no container has used it since.
                        self.set_aside(&volume)?;
                    }
                    return Ok(Some(CopyGuard {
                        volume,
                        data,
                        _lock: lock,
                    }));
                }
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    // flock(2) has no time limit, and the other launch may hang.
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(VolumeError::Busy {
                        name: name.to_owned(),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(VolumeError::io("lock", &marker)(error)),
            }
        }
    }

    /// The file that says that a volume is filled, or was used without that.
    pub(crate) fn copied_mark(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("copied")
    }

    /// Notes that the volume is used without being filled: from now on nothing is ever copied into it.
    pub(crate) fn mark_used(&self, name: &str) -> Result<(), VolumeError> {
        let copied = self.copied_mark(name);
        match OpenOptions::new().write(true).create_new(true).open(&copied) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(VolumeError::io("write", &copied)(error))
            }
            _ => Ok(()),
        }
    }

    /// Gives the volume an empty directory; what was in it is kept until the volume is removed, since
    /// somebody may have put it there from the host.
    fn set_aside(&self, volume: &Path) -> Result<(), VolumeError> {
        let (data, aside) = (volume.join("_data"), volume.join("interrupted"));
        remove_tree(&aside)?;
        fs::rename(&data, &aside).map_err(VolumeError::io("rename", &data))?;
        super::make_data(&data)
    }

    /// The containers that have the volume: names where they have one, else ids.
    pub(super) fn users(&self, name: &str) -> Result<Vec<String>, VolumeError> {
        let mut users = Vec::new();
        for (id, user) in self.notes(name)? {
            let container = self.containers.join(&id);
            if container.exists() {
                users.push(container_name(&container).unwrap_or(id));
            } else if user.is_some_and(|user| user.is_alive()) {
                users.push(id);
            }
        }
        users.sort();
        Ok(users)
    }

    /// Notes of containers in a volume; `None` for one that cannot be read.
    fn notes(&self, name: &str) -> Result<Vec<(String, Option<ProcessIdentity>)>, VolumeError> {
        let dir = self.users_dir(name);
        let mut notes = Vec::new();
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(notes),
            other => other.map_err(VolumeError::io("list", &dir))?,
        };
        for entry in entries {
            let entry = entry.map_err(VolumeError::io("list", &dir))?;
            let Some(id) = entry
                .file_name()
                .to_str()
                .filter(|id| is_id(id))
                .map(str::to_owned)
            else {
                continue;
            };
            let user = fs::read(entry.path())
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            notes.push((id, user));
        }
        Ok(notes)
    }

    fn users_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("users")
    }

    /// Removes half-made and half-removed volumes, and anonymous ones whose container was never finished:
    /// a removal that keeps them forgets their note first.
    pub(super) fn sweep(&self) -> Result<(), VolumeError> {
        let lock = self.lock()?;
        let mut trash = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(VolumeError::io("list", &self.dir))? {
            let entry = entry.map_err(VolumeError::io("list", &self.dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // New ones are made under the lock, so whoever made this one has died.
            if name.starts_with(".new-") || name.starts_with(".gone-") {
                trash.push(entry.path());
            }
        }
        for name in self.names()? {
            // One that cannot be read says so when it is used; the others are not held up by it.
            let abandoned = || -> Result<bool, VolumeError> {
                Ok(self.get(&name)?.anonymous
                    && !self.notes(&name)?.is_empty()
                    && self.users(&name)?.is_empty())
            };
            if abandoned().unwrap_or(false) {
                trash.push(self.take_away(&name)?);
            }
        }
        drop(lock);
        for path in trash {
            // Another process may be removing it too; what is left is tried again at the next open.
            let _ = remove_tree(&path);
        }
        Ok(())
    }
}

/// Whether the path still names the open file: its holder may have removed it before we got the lock.
fn is_current(file: &File, path: &Path) -> bool {
    let identity = |meta: io::Result<fs::Metadata>| meta.map(|meta| (meta.dev(), meta.ino())).ok();
    let open = identity(file.metadata());
    open.is_some() && open == identity(fs::metadata(path))
}

/// The `name` in a container's record.
fn container_name(container: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let bytes = fs::read(container.join("record.json")).ok()?;
    serde_json::from_slice::<Named>(&bytes)
        .ok()
        .map(|record| record.name)
}
