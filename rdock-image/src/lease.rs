//! Leases: what a pull or an import is about to use, safe from `prune` in any process.
use crate::layout::{Layout, random_name};
use crate::lock::{OwnedLock, StoreLock};
use crate::{Digest, Error, Result};
use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};

/// Pins digests against [`crate::ImageStore::prune`], in any process, until it is dropped or its process ends.
///
/// A pinned config also pins the layers it names.
#[derive(Debug)]
pub struct Lease {
    layout: Arc<Layout>,
    lock: OwnedLock,
    pinned: Mutex<BTreeSet<Digest>>,
}

impl Lease {
    pub(crate) fn new(layout: &Arc<Layout>) -> Result<Self> {
        let path = layout.leases().join(random_name()?);
        let lock = OwnedLock::acquire(layout, &path)?;
        Ok(Self {
            layout: Arc::clone(layout),
            lock,
            pinned: Mutex::default(),
        })
    }

    /// Pins `digest`, whether or not it is in the store yet. What is there when this returns stays.
    pub fn pin(&self, digest: &Digest) -> Result<()> {
        let mut pinned = self
            .pinned
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if pinned.contains(digest) {
            return Ok(());
        }
        // Garbage collection holds the lock exclusively from reading the leases until the last rename.
        let _guard = StoreLock::shared(&self.layout)?;
        self.lock.append_line(digest.as_str())?;
        pinned.insert(digest.clone());
        Ok(())
    }
}

/// The digests that living leases pin; leases of dead processes are removed. The store's lock must be held.
pub(crate) fn pinned(layout: &Layout) -> Result<BTreeSet<Digest>> {
    let mut digests = BTreeSet::new();
    let path = layout.leases();
    for entry in fs::read_dir(&path).map_err(|e| Error::io("list", &path, e))? {
        let path = entry.map_err(|e| Error::io("list", &path, e))?.path();
        if OwnedLock::remove_unless_held(&path)? {
            continue;
        }
        match fs::read_to_string(&path) {
            Ok(text) => digests.extend(text.lines().filter_map(|line| Digest::parse(line).ok())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", path, error)),
        }
    }
    Ok(digests)
}
