//! The cache of steps: below `<root>/build`, shared by all processes that have the root open.
//!
//! ```text
//! format            version of the layout
//! steps/<key>       result of a step (JSON); appears by rename
//! last/<position>   what went into the step that was last run at this place, to say why the next one missed
//! locks/<key>       flock: held while a step runs
//! mounts/<key>/     cache mounts
//! files/<context>   digests of a context's files, by their stat data
//! downloads/<key>   what ADD downloaded last from an address
//! tmp/<random>      flock: a file that is being written
//! ```
//! A key is the sha256 of everything that a step's result depends on. Layers of a result are kept in the image store
//! under the key's name. The directory may be removed at any time when no build runs: all of it is made again.
mod import;
mod lock;
mod mounts;
mod place;
pub(crate) mod portable;
mod prune;
mod record;

pub(crate) use import::{Imported, Imports, chain};
pub(crate) use lock::{Hold, KeyLock};
pub(crate) use mounts::CacheMount;
pub use place::{CacheMode, CacheSource, CacheTarget};
pub(crate) use portable::Exported;
pub use prune::{CacheEntry, CacheFilter, CacheUsage};
pub(crate) use record::{Components, Key, Record};

use crate::error::{BuildError, Result};
use rdock_image::{Digest, ImageStore, Lease, Stop};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const FORMAT: u64 = 1;

/// The cache of one root.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    store: ImageStore,
}

impl Cache {
    /// Opens `<root>/build`.
    pub(crate) fn open(root: &Path, store: &ImageStore) -> Result<Self> {
        let dir = root.join("build");
        let cache = Self {
            dir,
            store: store.clone(),
        };
        let format = cache.dir.join("format");
        match fs::read_to_string(&format) {
            Ok(text) if text.trim().parse::<u64>().is_ok_and(|found| found > FORMAT) => {
                return Err(BuildError::Files {
                    action: "use the build cache, which a newer version wrote, in",
                    path: cache.dir,
                    source: std::io::ErrorKind::Unsupported.into(),
                });
            }
            Ok(_) => cache.sweep(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                for name in ["steps", "last", "locks", "mounts", "files", "downloads", "tmp"] {
                    make_dir(&cache.dir.join(name))?;
                }
                cache.write(&format, format!("{FORMAT}\n").as_bytes())?;
            }
            Err(error) => return Err(BuildError::files("read", format)(error)),
        }
        Ok(cache)
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file that appears complete. It may be lost with the machine.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let (scratch, _lock) = loop {
            let scratch = self.dir.join("tmp").join(random_name()?);
            // A sweep may come between its creation and its lock.
            if let Some(lock) = KeyLock::try_take(&scratch, false, Hold::Alone)? {
                break (scratch, lock);
            }
        };
        let written = fs::write(&scratch, bytes).and_then(|()| fs::rename(&scratch, path));
        written.map_err(|error| {
            let _ = fs::remove_file(&scratch);
            BuildError::files("write", path)(error)
        })
    }

    /// Returns a step's result, when all its layers are there; pins them.
    pub(crate) fn find(&self, lease: &Lease, key: &Key) -> Result<Option<Record>> {
        let path = self.dir.join("steps").join(key.as_str());
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BuildError::files("read", path)(error)),
        };
        // One that a crash garbled is none.
        let Ok(record) = serde_json::from_slice::<Record>(&bytes) else {
            return Ok(None);
        };
        lease.pin(&record.layer)?;
        if !self.store.has_layer(&record.layer) {
            return Ok(None);
        }
        // The time of the last use, for whoever prunes by age. A store that cannot be written is no reason to fail.
        if let Ok(file) = fs::File::options().write(true).open(&path) {
            let _ = file.set_modified(std::time::SystemTime::now());
        }
        Ok(Some(record))
    }

    /// Notes a step's result; `stack` is the whole result, its own layer last.
    pub(crate) fn put(&self, key: &Key, record: &Record, stack: &[Digest]) -> Result<()> {
        // Layers of base images belong to their images: a result is of use only together with them.
        let own = stack.last().map(std::slice::from_ref).unwrap_or_default();
        self.store.keep_layers(key.as_str(), own)?;
        let bytes = serde_json::to_vec(record).map_err(|error| BuildError::Output {
            what: "a cache record".to_owned(),
            source: error.into(),
        })?;
        self.write(&self.dir.join("steps").join(key.as_str()), &bytes)
    }

    /// Returns what went into the step last run at a place.
    pub(crate) fn last(&self, position: &Key) -> Option<Components> {
        let bytes = fs::read(self.dir.join("last").join(position.as_str())).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(crate) fn set_last(&self, position: &Key, components: &Components) -> Result<()> {
        let bytes = serde_json::to_vec(components).map_err(|error| BuildError::Output {
            what: "a cache record".to_owned(),
            source: error.into(),
        })?;
        self.write(&self.dir.join("last").join(position.as_str()), &bytes)
    }

    /// Takes away what builds left that were killed. What cannot be removed now is tried again by the next build.
    fn sweep(&self) {
        for path in ["locks", "tmp"].iter().flat_map(|name| entries(&self.dir(name))) {
            // It goes with the lock, when nobody has that.
            drop(KeyLock::try_take(&path, true, Hold::Alone));
        }
        for dir in entries(&self.dir("mounts")) {
            Self::sweep_mount(&dir);
        }
    }

    /// Waits until no other build, in any process, runs the step of this key.
    pub(crate) fn lock(&self, key: &Key, stop: &Stop) -> Result<KeyLock> {
        let path = self.dir.join("locks").join(key.as_str());
        KeyLock::take(&path, true, Hold::Alone, stop)
    }
}

/// What is in a directory of the cache, as far as it can be read.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(dir).into_iter().flatten().flatten();
    found.map(|entry| entry.path()).collect()
}

pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(BuildError::files("create", path))
}

/// 32 random hexadecimal digits.
pub(crate) fn random_name() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        BuildError::files("read", "/dev/urandom")(std::io::Error::other(error.to_string()))
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_builds_left_is_swept_and_what_is_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let cache = Cache::open(dir.path(), &store).unwrap();
        let (used, unused) = (Key::of(b"used"), Key::of(b"unused"));
        let held = cache.lock(&used, &Stop::default()).unwrap();
        let lock = |name: &str| {
            let path = cache.dir("tmp").join(name);
            KeyLock::try_take(&path, false, Hold::Alone).unwrap()
        };
        let written = lock("written");
        for left in [
            cache.dir("locks").join(unused.as_str()),
            cache.dir("tmp").join("left"),
        ] {
            fs::write(left, "").unwrap();
        }
        let mount = cache.dir("mounts").join("mount");
        for name in ["0-left.new", "1-filled.new", "0"] {
            make_dir(&mount.join(name)).unwrap();
        }
        let filled = KeyLock::try_take(&mount.join("1.lock"), false, Hold::Alone).unwrap();
        Cache::open(dir.path(), &store).unwrap();
        assert_eq!(
            entries(&cache.dir("locks")),
            [cache.dir("locks").join(used.as_str())]
        );
        assert_eq!(entries(&cache.dir("tmp")), [cache.dir("tmp").join("written")]);
        assert!(!mount.join("0-left.new").exists() && mount.join("0").exists());
        assert!(mount.join("1-filled.new").exists());
        drop((held, written, filled));
        cache.write(&cache.dir("files").join("f"), b"x").unwrap();
        Cache::open(dir.path(), &store).unwrap();
        assert_eq!(
            entries(&cache.dir("tmp")).len() + entries(&cache.dir("locks")).len(),
            0
        );
        assert!(cache.dir("files").join("f").exists());
    }
}
