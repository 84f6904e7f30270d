//! Changes of a container that exists: who may make them, and its record replaced.

use super::{ContainerDir, Containers, RECORD, Record, read_json, write_atomically};
use crate::error::{Error, Result};
use crate::process::ProcessIdentity;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// A change takes milliseconds; a start may have to fill a volume.
const PATIENCE: Duration = Duration::from_secs(120);

/// While it is held nobody else starts, adopts, renames, updates or removes the container.
#[derive(Debug)]
#[must_use]
pub(crate) struct ChangeLock(#[allow(dead_code)] OwnedFd);

impl ChangeLock {
    /// That of a container in whose directory nobody else looks yet.
    pub(super) fn of_new(dir: &Path) -> Result<Self> {
        let path = dir.join("changes");
        let open = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let file = open.map_err(|errno| Error::state("open", &path)(errno.into()))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| Error::state("lock", &path)(errno.into()))?;
        Ok(Self(file))
    }
}

impl ContainerDir {
    /// Waits for the right to change the container.
    pub(crate) fn lock_changes(&self) -> Result<ChangeLock> {
        self.lock_changes_within(PATIENCE)
    }

    /// The same, for so long.
    pub(crate) fn lock_changes_within(&self, patience: Duration) -> Result<ChangeLock> {
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(lock) = self.try_lock_changes()? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                let path = self.file("changes");
                return Err(Error::state("lock", path)(std::io::ErrorKind::TimedOut.into()));
            }
            // flock(2) has no time limit of its own.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// The right to change the container, when nobody has it.
    pub(crate) fn try_lock_changes(&self) -> Result<Option<ChangeLock>> {
        let path = self.file("changes");
        // Not made when it is missing: the container is just being removed then.
        let open = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let file = open.map_err(|errno| Error::state("open", &path)(errno.into()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => return Ok(None),
            Err(errno) => return Err(Error::state("lock", &path)(errno.into())),
        }
        // Who held it before may have removed the container.
        let current = rustix::fs::stat(&path).map_err(|errno| Error::state("open", &path)(errno.into()))?;
        let own = rustix::fs::fstat(&file).map_err(|errno| Error::state("open", &path)(errno.into()))?;
        Ok((current.st_ino == own.st_ino).then_some(ChangeLock(file)))
    }

    /// The record as it is now.
    pub(crate) fn record(&self) -> Result<Record> {
        read_json(&self.file(RECORD))
    }

    /// Replaces the record: a crash leaves the old one or the new one.
    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        let path = self.file(RECORD);
        let bytes = serde_json::to_vec(record).map_err(|error| Error::state("write", &path)(error.into()))?;
        write_atomically(&path, &bytes)
    }

    /// From now on this process owns the container.
    pub(crate) fn claim_owner(&self) -> Result<()> {
        let owner = ProcessIdentity::current().map_err(Error::system("read the identity of this process"))?;
        let path = self.file("owner");
        let bytes = serde_json::to_vec(&owner).map_err(|error| Error::state("write", &path)(error.into()))?;
        write_atomically(&path, &bytes)
    }

    /// Writes a small file that others read whole or not at all.
    pub(crate) fn write_file(&self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let path = self.file(name);
        let bytes = serde_json::to_vec(value).map_err(|error| Error::state("write", &path)(error.into()))?;
        write_atomically(&path, &bytes)
    }
}

impl Containers {
    /// Gives the container of `dir` the name `to`, and returns its record with it.
    ///
    /// The new name comes first and the old one goes last, so that a process that dies in between leaves a
    /// container that has a name; the spare one is swept.
    pub(crate) fn rename(&self, dir: &ContainerDir, to: &str) -> Result<Record> {
        let _change = dir.lock_changes()?;
        let _names = self.lock_names()?;
        let mut record = dir.record()?;
        if record.name == to {
            return Ok(record);
        }
        let holder = std::fs::read_to_string(self.dir.join("names").join(to));
        let claim = dir.file("claim");
        // A new file: the old name may be a link to the one that is there, and never be without its holder.
        match std::fs::remove_file(&claim) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::state("remove", &claim)(error));
            }
            _ => {}
        }
        // A rename that was cut off has claimed it already.
        if holder.ok().as_ref() != Some(&record.id) {
            write_json_text(&claim, &record.id)?;
            let linked = self.link_name_locked(to, &claim);
            let _ = std::fs::remove_file(&claim);
            linked?;
        }
        let from = std::mem::replace(&mut record.name, to.to_owned());
        dir.write_record(&record)
            .inspect_err(|_| self.release_name_locked(to, &record.id))?;
        self.release_name_locked(&from, &record.id);
        Ok(record)
    }
}

fn write_json_text(path: &std::path::Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::state("write", path))
}
