//! Who has a name, and what processes leave that die before their container exists.

use super::{Containers, private_dir};
use crate::error::{Error, Result};
use crate::process::ProcessIdentity;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

impl Containers {
    /// Claims `name` for `id`. A name whose container is gone is taken over.
    ///
    /// The directory of the unfinished container comes first, then the name, as a link to a file in it that
    /// says whose it is: a process that dies at any point leaves what [`Self::sweep_unfinished`] recognises.
    pub(crate) fn claim_name(&self, name: &str, id: &str) -> Result<()> {
        let unfinished = self.unfinished(id)?;
        private_dir(&unfinished)?;
        let claim = unfinished.join("claim");
        let linked = fs::write(&claim, id).map_err(Error::state("write", &claim));
        linked
            .and_then(|()| self.link_name(name, &claim))
            .inspect_err(|_| {
                // The janitor removes what cannot be removed now.
                let _ = fs::remove_dir_all(&unfinished);
            })
    }

    fn link_name(&self, name: &str, claim: &Path) -> Result<()> {
        let _lock = self.lock_names()?;
        self.link_name_locked(name, claim)
    }

    /// Makes `name` a link to `claim`, under the lock of names.
    pub(super) fn link_name_locked(&self, name: &str, claim: &Path) -> Result<()> {
        let path = self.dir.join("names").join(name);
        loop {
            match fs::hard_link(claim, &path) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let holder = fs::read_to_string(&path).unwrap_or_default();
                    if self.is_claimed(&holder) {
                        return Err(Error::NameInUse {
                            name: name.to_owned(),
                            id: holder,
                        });
                    }
                    match fs::remove_file(&path) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(Error::state("remove", &path)(error));
                        }
                        _ => {}
                    }
                }
                Err(error) => return Err(Error::state("create", &path)(error)),
            }
        }
    }

    /// Where this process fills the directory of a container; the name says who does, for others to see.
    pub(super) fn unfinished(&self, id: &str) -> Result<PathBuf> {
        let filler = ProcessIdentity::current();
        let ProcessIdentity {
            pid,
            start,
            boot,
            pids,
        } = filler.map_err(Error::system("read the identity of this process"))?;
        Ok(self.dir.join(format!(".new-{id}-{pid}-{start}-{pids}-{boot}")))
    }

    /// Whether container `holder` exists, or is about to.
    fn is_claimed(&self, holder: &str) -> bool {
        // In this order: a directory that is being finished goes from the first place to the second.
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.any(|name| filled_by(&name).is_some_and(|(id, alive)| alive && id == holder))
            || (!holder.is_empty() && self.path(holder).exists())
    }

    /// Taken where a name may be taken away from a dead holder.
    pub(super) fn lock_names(&self) -> Result<OwnedFd> {
        let path = self.dir.join("names");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = || -> io::Result<OwnedFd> {
            let dir = rustix::fs::open(&path, flags, Mode::empty())?;
            rustix::io::retry_on_intr(|| rustix::fs::flock(&dir, FlockOperation::LockExclusive))?;
            Ok(dir)
        };
        lock().map_err(Error::state("lock", &path))
    }

    /// Gives back `name`, when it is that of container `id`.
    pub(super) fn release_name_locked(&self, name: &str, id: &str) {
        let path = self.dir.join("names").join(name);
        if fs::read_to_string(&path).is_ok_and(|holder| holder == id) {
            // A name left behind is taken over by the next claim.
            let _ = fs::remove_file(&path);
        }
    }

    pub(crate) fn release_name(&self, name: &str, id: &str) {
        self.release_name_locked(name, id);
        if let Ok(unfinished) = self.unfinished(id) {
            // Not there once the container had its directory; else the janitor removes what stays.
            let _ = fs::remove_dir_all(unfinished);
        }
    }

    /// Removes `.new-` directories of creators that died, and names without a container.
    pub(crate) fn sweep_unfinished(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Whoever removes one now does not mind help.
            if name.starts_with(".gone-") {
                let _ = fs::remove_dir_all(entry.path());
            }
            if name.starts_with(".new-") && filled_by(&name).is_none_or(|(_, alive)| !alive) {
                // What stays is tried again at the next open.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let Ok(_lock) = self.lock_names() else { return };
        for entry in fs::read_dir(self.dir.join("names"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let Ok(holder) = fs::read_to_string(entry.path()) else {
                continue;
            };
            // A rename that was cut off has left a second name.
            let other_name = || {
                let record = self.load(&holder).ok();
                record.is_some_and(|(_, record)| entry.file_name().to_str() != Some(record.name.as_str()))
            };
            if !self.is_claimed(&holder) || other_name() {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The container that an unfinished directory of this name is for, and whether the process that fills it runs.
fn filled_by(name: &str) -> Option<(&str, bool)> {
    let mut parts = name.strip_prefix(".new-")?.splitn(5, '-');
    let id = parts.next()?;
    let filler = ProcessIdentity {
        pid: parts.next()?.parse().ok()?,
        start: parts.next()?.parse().ok()?,
        pids: parts.next()?.parse().ok()?,
        boot: parts.next()?.to_owned(),
    };
    Some((id, filler.is_alive()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000000000000000000000000000000000000000000000000000000000aa";
    const OTHER: &str = "00000000000000000000000000000000000000000000000000000000000000bb";

    /// A claim by a process that is gone: its number is ours, its start another.
    fn abandoned(containers: &Containers, name: &str, id: &str) {
        let me = ProcessIdentity::current().unwrap();
        let dir = containers
            .dir
            .join(format!(".new-{id}-{}-1-{}-{}", me.pid, me.pids, me.boot));
        private_dir(&dir).unwrap();
        fs::write(dir.join("claim"), id).unwrap();
        fs::hard_link(dir.join("claim"), containers.dir.join("names").join(name)).unwrap();
    }

    #[test]
    fn a_name_is_claimed_once_and_free_again_afterwards() {
        let root = tempfile::tempdir().unwrap();
        let containers = Containers::open(root.path()).unwrap();
        containers.claim_name("db", ID).unwrap();
        assert!(matches!(containers.claim_name("db", OTHER), Err(Error::NameInUse { id, .. }) if id == ID));
        containers.release_name("db", ID);
        containers.claim_name("db", OTHER).unwrap();
        containers.release_name("db", OTHER);
        assert_eq!(
            fs::read_dir(root.path().join("containers")).unwrap().count(),
            2,
            "names and format alone"
        );
    }

    #[test]
    fn a_claim_of_a_dead_process_is_taken_over_and_swept() {
        let root = tempfile::tempdir().unwrap();
        let containers = Containers::open(root.path()).unwrap();
        abandoned(&containers, "db", ID);
        containers.claim_name("db", OTHER).unwrap();
        abandoned(&containers, "web", ID);
        containers.sweep_unfinished();
        let names: Vec<_> = fs::read_dir(containers.dir.join("names"))
            .unwrap()
            .flatten()
            .collect();
        assert_eq!(names.len(), 1, "the living claim stays");
        assert_eq!(fs::read_to_string(names[0].path()).unwrap(), OTHER);
        assert!(containers.unfinished(OTHER).unwrap().exists());
        assert!(
            !fs::read_dir(&containers.dir)
                .unwrap()
                .flatten()
                .any(|e| e.file_name().to_string_lossy().contains(ID))
        );
    }
}
