//! Locks between builds: `flock`s, which the kernel releases with their holder.
use crate::error::{BuildError, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A lock that is held.
#[derive(Debug)]
#[must_use]
pub(crate) struct KeyLock {
    file: File,
    path: PathBuf,
    remove: bool,
}

impl KeyLock {
    /// Waits for the lock. `cancelled` is asked between tries.
    pub(crate) fn take(path: &Path, remove: bool, cancelled: &dyn Fn() -> bool) -> Result<Self> {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(lock) = Self::try_take(path, remove, FlockOperation::NonBlockingLockExclusive)? {
                return Ok(lock);
            }
            if cancelled() {
                return Err(BuildError::Cancelled);
            }
            // flock(2) has no way to wait for a lock and for a cancellation at once.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Takes the lock if nobody has it.
    pub(crate) fn try_take(path: &Path, remove: bool, how: FlockOperation) -> Result<Option<Self>> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(BuildError::files("open", path))?;
        match rustix::fs::flock(&file, how) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
            Err(errno) => return Err(BuildError::files("lock", path)(errno.into())),
        }
        let lock = Self {
            file,
            path: path.to_owned(),
            remove,
        };
        // Its last holder removed it between our open and our lock.
        Ok(lock.is_current().then_some(lock))
    }

    fn is_current(&self) -> bool {
        match (self.file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
            _ => false,
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        if self.remove && self.is_current() {
            let _ = std::fs::remove_file(&self.path);
        }
        // Closing would not release it while a forked child has a copy of the descriptor.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}
