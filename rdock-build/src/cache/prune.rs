//! What the cache takes, and getting rid of it.
use super::{Cache, Hold, KeyLock, Record, mounts};
use crate::error::{BuildError, Result};
use rdock_image::Digest;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Which entries [`crate::Builder::prune`] removes; all of them by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheFilter {
    /// Only those not used for so long.
    pub unused_for: Option<Duration>,
    /// Keep as much as takes so many bytes, the last used first.
    pub keep_bytes: Option<u64>,
    /// Leave cache mounts alone.
    pub keep_mounts: bool,
    /// Leave steps alone whose layer is of an image too: they take nothing. docker does so without `--all`.
    pub keep_shared: bool,
}

/// A cached step or a cache mount.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheEntry {
    /// Its key.
    pub id: String,
    /// For people.
    pub name: String,
    /// Bytes in its files.
    pub size: u64,
    /// When it was last used.
    pub used: SystemTime,
    /// It is a cache mount.
    pub mount: bool,
    /// A build uses it now.
    pub in_use: bool,
    /// Its layer is of an image too, which keeps it.
    pub shared: bool,
}

/// What the cache holds, or what was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheUsage {
    /// The last used first.
    pub entries: Vec<CacheEntry>,
    /// Bytes in files; a layer of several steps counts once. Of a removal: what the disk got back.
    pub bytes: u64,
    /// Bytes of what no image shares and no build uses now; nothing after a removal.
    pub reclaimable: u64,
}

impl Cache {
    /// Lists everything.
    pub(crate) fn usage(&self) -> Result<CacheUsage> {
        let mut usage = CacheUsage::default();
        let mut layers: BTreeSet<Digest> = BTreeSet::new();
        let images = self.store.images()?;
        let held: BTreeSet<&Digest> = images.iter().flat_map(|image| image.diff_ids()).collect();
        for path in children(&self.dir("steps"))? {
            let Some(record) = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok())
            else {
                continue;
            };
            let shared = held.contains(&record.layer);
            if layers.insert(record.layer) {
                usage.bytes += record.size;
                usage.reclaimable += if shared { 0 } else { record.size };
            }
            usage.entries.push(CacheEntry {
                id: name_of(&path),
                name: record.name,
                size: record.size,
                used: modified(&path),
                mount: false,
                in_use: false,
                shared,
            });
        }
        for dir in children(&self.dir("mounts"))? {
            let size = size_of(&dir);
            usage.bytes += size;
            let mut in_use = false;
            for path in children(&dir)? {
                in_use |= path.extension().is_some_and(|e| e == "lock")
                    && KeyLock::try_take(&path, false, Hold::Alone)?.is_none();
            }
            usage.reclaimable += if in_use { 0 } else { size };
            usage.entries.push(CacheEntry {
                id: name_of(&dir),
                name: fs::read_to_string(dir.join("name")).unwrap_or_default(),
                size,
                used: modified(&dir.join("0.lock")),
                mount: true,
                in_use,
                shared: false,
            });
        }
        usage.entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        Ok(usage)
    }

    /// Removes entries, and the layers that only they kept.
    pub(crate) fn prune(&self, filter: &CacheFilter) -> Result<CacheUsage> {
        let mut removed = CacheUsage::default();
        let now = SystemTime::now();
        let mut kept = 0;
        for entry in self.usage()?.entries {
            let age = now.duration_since(entry.used).unwrap_or_default();
            let young = filter.unused_for.is_some_and(|least| age < least);
            let fits = filter.keep_bytes.is_some_and(|most| kept + entry.size <= most);
            let spared = (entry.mount && filter.keep_mounts) || (entry.shared && filter.keep_shared);
            if entry.in_use || young || fits || spared {
                kept += entry.size;
                continue;
            }
            if entry.mount {
                if !self.remove_mount(&self.dir("mounts").join(&entry.id))? {
                    continue;
                }
                removed.bytes += entry.size;
            } else {
                let path = self.dir("steps").join(&entry.id);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(BuildError::files("remove", path)(error));
                    }
                    _ => {}
                }
                self.store.release_layers(&entry.id)?;
            }
            removed.entries.push(entry);
        }
        // Notes on contexts and steps that nobody builds any more; a lost one costs a look at the files.
        if filter.keep_bytes.is_none() {
            for name in ["last", "files", "downloads"] {
                for path in children(&self.dir(name))? {
                    let age = now.duration_since(modified(&path)).unwrap_or_default();
                    if filter.unused_for.is_none_or(|least| age >= least) {
                        let _ = fs::remove_file(path);
                    }
                }
            }
        }
        removed.bytes += self.store.prune_layers()?;
        Ok(removed)
    }

    /// Removes a cache mount unless a build uses it.
    fn remove_mount(&self, dir: &Path) -> Result<bool> {
        match KeyLock::own_dir(dir) {
            Ok(Some(_own)) => mounts::remove(dir).map(|()| true),
            Ok(None) => Ok(false),
            Err(BuildError::Files { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn children(path: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
    {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(BuildError::files("list", path)),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn modified(path: &Path) -> SystemTime {
    fs::symlink_metadata(path)
        .and_then(|meta| meta.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn size_of(dir: &Path) -> u64 {
    let mut size = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => open.push(entry.path()),
                Ok(meta) => size += meta.len(),
                Err(_) => {}
            }
        }
    }
    size
}
