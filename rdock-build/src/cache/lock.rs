//! Locks between builds: `flock`s, which the kernel releases with their holder.
//!
//! flock(2) can wait for a lock, but not for a lock or a cancellation. So whoever has to wait does it in a thread of its
//! own, and listens to both. A thread whose build was cancelled gets the lock some day and gives it back at once.
use crate::error::{BuildError, Result};
use rdock_image::Stop;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// By one.
    Alone,
    /// By any number, when nobody holds it alone.
    Shared,
}

/// A lock that is held.
#[derive(Debug)]
#[must_use]
pub(crate) struct KeyLock {
    held: Held,
    path: PathBuf,
    remove: bool,
}

impl KeyLock {
    /// Waits for the lock, or until `stop` ends the build. With `remove` the file goes with the lock.
    pub(crate) fn take(path: &Path, remove: bool, hold: Hold, stop: &Stop) -> Result<Self> {
        loop {
            let lock = match Held::try_take(open(path)?, path, hold)? {
                Ok(held) => held,
                Err(file) => Held::wait(file, path, hold, stop)?,
            };
            if let Some(lock) = Self::of(lock, path, remove) {
                return Ok(lock);
            }
            if stop.is_stopped() {
                return Err(BuildError::Cancelled);
            }
        }
    }

    /// Takes the lock if nobody has it.
    pub(crate) fn try_take(path: &Path, remove: bool, hold: Hold) -> Result<Option<Self>> {
        let held = Held::try_take(open(path)?, path, hold)?;
        Ok(held.ok().and_then(|held| Self::of(held, path, remove)))
    }

    /// Waits until nobody removes the directory, and keeps it from being removed.
    pub(crate) fn keep_dir(path: &Path, stop: &Stop) -> Result<Option<Self>> {
        let held = match Held::try_take(open_dir(path)?, path, Hold::Shared)? {
            Ok(held) => held,
            Err(file) => Held::wait(file, path, Hold::Shared, stop)?,
        };
        Ok(Self::of(held, path, false))
    }

    /// Takes a directory that nobody keeps, to remove it.
    pub(crate) fn own_dir(path: &Path) -> Result<Option<Self>> {
        let held = Held::try_take(open_dir(path)?, path, Hold::Alone)?;
        Ok(held.ok().and_then(|held| Self::of(held, path, false)))
    }

    /// `None` when the last holder removed the file between our open and our lock.
    fn of(held: Held, path: &Path, remove: bool) -> Option<Self> {
        let lock = Self {
            held,
            path: path.to_owned(),
            remove,
        };
        lock.is_current().then_some(lock)
    }

    fn is_current(&self) -> bool {
        match (self.held.0.metadata(), std::fs::metadata(&self.path)) {
            (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
            _ => false,
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Before it is released: afterwards it may be somebody else's.
        if self.remove && self.is_current() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A locked file.
#[derive(Debug)]
struct Held(File);

impl Held {
    /// The file back when somebody else has the lock.
    fn try_take(file: File, path: &Path, hold: Hold) -> Result<Result<Self, File>> {
        let how = match hold {
            Hold::Alone => FlockOperation::NonBlockingLockExclusive,
            Hold::Shared => FlockOperation::NonBlockingLockShared,
        };
        match rustix::fs::flock(&file, how) {
            Ok(()) => Ok(Ok(Self(file))),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(Err(file)),
            Err(errno) => Err(BuildError::files("lock", path)(errno.into())),
        }
    }

    fn wait(file: File, path: &Path, hold: Hold, stop: &Stop) -> Result<Self> {
        let how = match hold {
            Hold::Alone => FlockOperation::LockExclusive,
            Hold::Shared => FlockOperation::LockShared,
        };
        let (tell, hear) = channel();
        let stopped = tell.clone();
        // Nobody hears it when the lock came first.
        let _told = stop.on_stop(move || drop(stopped.send(None)));
        std::thread::Builder::new()
            .name("rdock-build-lock".to_owned())
            .spawn(move || {
                let locked = loop {
                    match rustix::fs::flock(&file, how) {
                        Err(Errno::INTR) => {}
                        Err(errno) => break Err(errno),
                        Ok(()) => break Ok(Held(file)),
                    }
                };
                // Nobody hears it when the build was cancelled: then the lock is dropped, and so released.
                drop(tell.send(Some(locked)));
            })
            .map_err(BuildError::files("start", "a thread"))?;
        match hear.recv() {
            Ok(Some(locked)) => locked.map_err(|errno| BuildError::files("lock", path)(errno.into())),
            Ok(None) | Err(_) => Err(BuildError::Cancelled),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing would not release it while a forked child has a copy of the descriptor.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

fn open(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(BuildError::files("open", path))
}

fn open_dir(path: &Path) -> Result<File> {
    File::open(path).map_err(BuildError::files("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_gets_the_lock_as_soon_as_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = KeyLock::take(&path, true, Hold::Alone, &Stop::default()).unwrap();
        assert!(KeyLock::try_take(&path, true, Hold::Shared).unwrap().is_none());
        let (tell, hear) = channel();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let (tell, path) = (tell.clone(), path.clone());
                scope.spawn(move || {
                    let lock = KeyLock::take(&path, true, Hold::Alone, &Stop::default()).unwrap();
                    assert!(KeyLock::try_take(&path, true, Hold::Alone).unwrap().is_none());
                    tell.send(()).unwrap();
                    drop(lock);
                });
            }
            assert!(hear.try_recv().is_err());
            drop(held);
            for _ in 0..3 {
                hear.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
            }
        });
        assert!(!path.exists());
    }

    #[test]
    fn a_stopped_build_waits_no_longer_and_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = KeyLock::take(&path, false, Hold::Shared, &Stop::default()).unwrap();
        let stop = Stop::default();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| KeyLock::take(&path, false, Hold::Alone, &stop).map(drop));
            stop.stop();
            assert!(matches!(waits.join().unwrap(), Err(BuildError::Cancelled)));
        });
        drop(held);
        // The thread that was left alone gives it back.
        KeyLock::take(&path, false, Hold::Alone, &Stop::default())
            .map(drop)
            .unwrap();
    }
}
