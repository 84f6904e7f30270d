//! Locks between processes: `flock`s, released by the kernel when their holder dies.
//!
//! A program that links this library may fork without exec, and the child keeps an `flock` alive. So locks that
//! live longer than a moment also name their owner's pid, start time and boot id; a lock whose named owner is
//! gone counts as free.
use crate::layout::{Layout, boot_id};
use crate::{Error, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// The store's lock, held for milliseconds: shared by those who name things, exclusive for garbage collection
/// and changes of tags.
#[must_use]
#[derive(Debug)]
pub(crate) struct StoreLock(File);

impl StoreLock {
    pub(crate) fn shared(layout: &Layout) -> Result<Self> {
        Self::take(layout, FlockOperation::LockShared)
    }

    pub(crate) fn exclusive(layout: &Layout) -> Result<Self> {
        Self::take(layout, FlockOperation::LockExclusive)
    }

    fn take(layout: &Layout, operation: FlockOperation) -> Result<Self> {
        let path = layout.lock();
        let file = open(&path)?;
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::io("lock", path, error)),
            }
        }
    }
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        // Closing would not release it while a forked child holds a copy of the descriptor.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// A process, named so that another one with the same pid is not taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pid: u32,
    /// Clock ticks after boot, field 22 of `/proc/PID/stat`.
    start: u64,
    boot: String,
    /// The pid namespace's inode: pids of another one say nothing here.
    namespace: u64,
}

impl Owner {
    pub(crate) fn current() -> Self {
        // Read once, unless a forked child asks: its number differs, or its namespace.
        static OWN: OnceLock<Owner> = OnceLock::new();
        let (pid, namespace) = (std::process::id(), pid_namespace());
        let own = || Self {
            pid,
            start: start_time(pid).unwrap_or(0),
            boot: boot_id().to_owned(),
            namespace,
        };
        let first = OWN.get_or_init(own);
        match (first.pid, first.namespace) == (pid, namespace) {
            true => first.clone(),
            false => own(),
        }
    }

    /// The process as a part of a file name, which [`Self::of_mark`] reads.
    pub(crate) fn mark(&self) -> String {
        let Self {
            pid,
            start,
            boot,
            namespace,
        } = self;
        format!("{pid}-{start}-{namespace}-{boot}")
    }

    pub(crate) fn of_mark(mark: &str) -> Option<Self> {
        let mut parts = mark.splitn(4, '-');
        Some(Self {
            pid: parts.next()?.parse().ok()?,
            start: parts.next()?.parse().ok()?,
            namespace: parts.next()?.parse().ok()?,
            boot: parts.next()?.to_owned(),
        })
    }

    /// Says whether the process lives; an owner in another pid namespace is taken to be alive.
    pub(crate) fn is_alive(&self) -> bool {
        if self.boot != boot_id() {
            return false;
        }
        self.namespace != pid_namespace() || start_time(self.pid) == Some(self.start)
    }
}

fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid")
        .map(|meta| meta.ino())
        .unwrap_or(0)
}

/// A file whose lock says that its owner works on something.
#[must_use]
#[derive(Debug)]
pub(crate) struct OwnedLock {
    file: File,
    path: PathBuf,
}

impl OwnedLock {
    /// Waits until the lock is free or its owner is gone, then takes it.
    pub(crate) fn acquire(layout: &Layout, path: &Path) -> Result<Self> {
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(lock) = Self::try_acquire(layout, path)? {
                return Ok(lock);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Takes the lock unless a living owner has it.
    pub(crate) fn try_acquire(layout: &Layout, path: &Path) -> Result<Option<Self>> {
        let mut file = open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                if !abandoned(&mut file) {
                    return Ok(None);
                }
                // Somebody else may be breaking it as well, so look again under the store's lock.
                let _guard = StoreLock::exclusive(layout)?;
                if same_file(&file, path) && abandoned(&mut file) {
                    fs::remove_file(path).map_err(|e| Error::io("remove", path, e))?;
                }
                return Ok(None);
            }
            Err(error) => return Err(Error::io("lock", path, error)),
        }
        if !same_file(&file, path) {
            // Its last owner removed it between our open and our lock.
            return Ok(None);
        }
        let lock = Self {
            file,
            path: path.to_owned(),
        };
        lock.append_line(
            &serde_json::to_string(&Owner::current()).map_err(|e| Error::document("a lock", e))?,
        )?;
        Ok(Some(lock))
    }

    /// Says whether the file at `path` is locked by a living owner; a file that nobody locks is not.
    pub(crate) fn is_held(path: &Path) -> bool {
        let Ok(mut file) = fs::OpenOptions::new().read(true).write(true).open(path) else {
            return false;
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
                false
            }
            Err(_) => !abandoned(&mut file),
        }
    }

    /// Removes the lock's file unless a living owner has it; says whether it is gone.
    pub(crate) fn remove_unless_held(path: &Path) -> Result<bool> {
        let mut file = match fs::OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(Error::io("open", path, error)),
        };
        let taken = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !taken && !abandoned(&mut file) {
            return Ok(false);
        }
        // Still locked: whoever takes the lock next sees that the file is gone, and makes another.
        let removed = if same_file(&file, path) {
            fs::remove_file(path)
        } else {
            Ok(())
        };
        if taken {
            let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
        }
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", path, error))
            }
            _ => Ok(true),
        }
    }

    pub(crate) fn append_line(&self, line: &str) -> Result<()> {
        (&self.file)
            .write_all(format!("{line}\n").as_bytes())
            .map_err(|e| Error::io("write", &self.path, e))
    }
}

impl Drop for OwnedLock {
    fn drop(&mut self) {
        if same_file(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

fn open(path: &Path) -> Result<File> {
    fs::OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| Error::io("open", path, e))
}

fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// The first line names the owner. A lock without one was taken a moment ago.
fn abandoned(file: &mut File) -> bool {
    let mut text = String::new();
    if file.rewind().is_err() || file.take(4096).read_to_string(&mut text).is_err() {
        return false;
    }
    match text
        .lines()
        .next()
        .and_then(|line| serde_json::from_str::<Owner>(line).ok())
    {
        Some(owner) => !owner.is_alive(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Durability;

    #[test]
    fn an_owner_with_another_start_time_or_boot_is_dead() {
        let current = Owner::current();
        assert!(current.is_alive());
        assert_eq!(Owner::of_mark(&current.mark()).as_ref(), Some(&current));
        assert!(Owner::of_mark("no owner").is_none());
        assert!(
            !Owner {
                start: current.start + 1,
                ..current.clone()
            }
            .is_alive()
        );
        assert!(
            !Owner {
                boot: "another".into(),
                ..current.clone()
            }
            .is_alive()
        );
        assert!(
            Owner {
                namespace: 1,
                pid: 1,
                ..current
            }
            .is_alive()
        );
    }

    #[test]
    fn a_lock_kept_by_a_forked_child_of_a_dead_owner_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path(), Durability::None).unwrap();
        let path = layout.ingest().join("x.lock");
        let held = OwnedLock::try_acquire(&layout, &path).unwrap().unwrap();
        assert!(OwnedLock::try_acquire(&layout, &path).unwrap().is_none());
        assert!(OwnedLock::is_held(&path));
        // As if the owner had died: the flock is still held, by this descriptor.
        let dead = Owner {
            start: 1,
            ..Owner::current()
        };
        fs::write(&path, serde_json::to_string(&dead).unwrap() + "\n").unwrap();
        assert!(!OwnedLock::is_held(&path));
        let second = OwnedLock::acquire(&layout, &path).unwrap();
        drop(held);
        assert!(
            OwnedLock::is_held(&path),
            "the dead owner's lock must not remove the new one's file"
        );
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn sweeping_never_takes_a_lock_that_was_just_taken() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path(), Durability::None).unwrap();
        let path = layout.ingest().join("x.lock");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sweeper = scope.spawn(|| {
                let mut swept = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    swept += usize::from(OwnedLock::remove_unless_held(&path).unwrap());
                }
                swept
            });
            for _ in 0..2000 {
                let lock = OwnedLock::acquire(&layout, &path).unwrap();
                std::thread::yield_now();
                assert!(same_file(&lock.file, &path), "a held lock's file was removed");
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(sweeper.join().unwrap() > 0);
        });
    }
}
