//! Garbage collection: what no name, no snapshot and no living lease leads to is moved to `trash/` under the
//! store's lock, in milliseconds, and deleted outside it.
use super::names;
use super::{Change, ImageStore};
use crate::layer::chain::chain_id;
use crate::layer::meta::LayerMeta;
use crate::layer::remove::remove_tree;
use crate::layout::{Layout, random_name};
use crate::lock::{OwnedLock, Owner, StoreLock};
use crate::{Digest, Error, ImageConfig, Manifest, Result, lease};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Which images [`ImageStore::prune`] removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneFilter {
    /// All that no snapshot uses; otherwise only those without a tag.
    pub all: bool,
    /// Only those made before this moment, in nanoseconds since 1970. An image that does not say when it was made is
    /// older than any.
    pub until: Option<i128>,
    /// Only those with all of these labels: name, and value where that counts.
    pub labels: Vec<(String, Option<String>)>,
    /// Only those with none of these labels.
    pub without_labels: Vec<(String, Option<String>)>,
}

impl PruneFilter {
    /// All images that no snapshot uses.
    pub fn all() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    fn is_open(&self) -> bool {
        self.until.is_none() && self.labels.is_empty() && self.without_labels.is_empty()
    }

    fn fits(&self, config: &ImageConfig) -> bool {
        let labels = &config.config.labels;
        let has = |(name, value): &(String, Option<String>)| {
            let found = labels.get(name);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        let made = config.created.as_deref().and_then(|text| text.parse().ok());
        let made = made.map_or(i128::MIN, jiff::Timestamp::as_nanosecond);
        self.until.is_none_or(|until| made < until)
            && self.labels.iter().all(has)
            && !self.without_labels.iter().any(has)
    }
}

/// What [`ImageStore::prune`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids of the images.
    pub images: Vec<Digest>,
    /// Of files in layers and of documents.
    pub bytes: u64,
}

/// What a collection took away.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) layers: Vec<Digest>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Live {
    /// Blobs and layers, by the hexadecimal part; a digest is never both.
    hex: BTreeSet<String>,
}

impl ImageStore {
    /// Removes images, and everything in the store that nothing leads to. Pulls and imports that run at the same
    /// time, in any process, are not disturbed.
    pub fn prune(&self, filter: &PruneFilter) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        {
            let _guard = StoreLock::exclusive(self.layout())?;
            for (manifest, found) in names::all(self.layout())? {
                if !(filter.all || found.tags.is_empty()) || !self.snapshots_of(&manifest)?.is_empty() {
                    continue;
                }
                // Of an image whose config cannot be read nobody knows whether it fits.
                if !filter.is_open()
                    && !self
                        .config_of(&manifest)
                        .is_some_and(|config| filter.fits(&config))
                {
                    continue;
                }
                pruned.images.push(self.id_of(&manifest));
                for file in found.files {
                    fs::remove_file(&file).map_err(|e| Error::io("remove", file, e))?;
                }
            }
        }
        for id in &pruned.images {
            self.observer().tell(|| Change::Deleted { id: id.clone() });
        }
        pruned.bytes = self.collect()?.bytes;
        sweep(self.layout())?;
        Ok(pruned)
    }

    fn config_of(&self, manifest: &Digest) -> Option<ImageConfig> {
        let config = self.id_of(manifest);
        ImageConfig::parse(&self.read_blob(&config).ok()?).ok()
    }

    /// Removes what no image, snapshot, lease or kept stack leads to; images stay. Returns bytes in files.
    pub fn prune_layers(&self) -> Result<u64> {
        Ok(self.collect()?.bytes)
    }

    /// Takes away what nothing leads to.
    pub(super) fn collect(&self) -> Result<Collected> {
        let layout = self.layout();
        let mut collected = Collected::default();
        let mut victims = Vec::new();
        {
            let _guard = StoreLock::exclusive(layout)?;
            let live = self.live()?;
            for path in children(&layout.layers())? {
                if live.has(&path) {
                    continue;
                }
                let meta = fs::read(path.join("meta.json"))
                    .ok()
                    .and_then(|text| LayerMeta::parse(&text).ok());
                collected.bytes += meta.map_or(0, |meta| meta.size);
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                if let Some(digest) = Digest::of_hex(name) {
                    collected.layers.push(digest);
                }
                victims.push(discard(layout, &path)?);
            }
            for algorithm in children(&layout.blobs())? {
                for path in children(&algorithm)? {
                    if !live.has(&path) {
                        collected.bytes += fs::metadata(&path).map_or(0, |meta| meta.len());
                        victims.push(discard(layout, &path)?);
                    }
                }
            }
            for path in id_notes(layout)? {
                if !live.has(&path) {
                    fs::remove_file(&path).map_err(|e| Error::io("remove", path, e))?;
                }
            }
            for path in children(&layout.chains())? {
                if !live.has(&path) {
                    victims.push(discard(layout, &path)?);
                }
            }
        }
        victims.iter().try_for_each(|path| remove_tree(path))?;
        Ok(collected)
    }

    /// Everything that must stay. The store's lock must be held.
    fn live(&self) -> Result<Live> {
        let mut live = Live::default();
        for manifest in names::all(self.layout())?.keys() {
            self.mark(&mut live, manifest);
        }
        for digest in lease::pinned(self.layout())? {
            self.mark(&mut live, &digest);
        }
        for id in self.snapshots()? {
            if let Some(record) = crate::snapshot::read_record(self.layout(), &id)? {
                if let Some(manifest) = &record.manifest {
                    self.mark(&mut live, manifest);
                }
                live.add_stack(&record.diff_ids);
            }
        }
        for diff_ids in super::made::kept(self.layout())? {
            live.add_stack(&diff_ids);
        }
        Ok(live)
    }

    /// Marks a digest and what the document of that digest leads to.
    fn mark(&self, live: &mut Live, digest: &Digest) {
        live.hex.insert(digest.hex().to_owned());
        let Ok(bytes) = self.read_blob(digest) else { return };
        if let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) {
            for descriptor in manifest.layers.iter().filter_map(|layer| layer.digest().ok()) {
                live.hex.insert(descriptor.hex().to_owned());
            }
            if let Ok(config) = manifest.config.digest()
                && config != *digest
            {
                self.mark(live, &config);
            }
        } else if let Ok(config) = ImageConfig::parse(&bytes) {
            live.add_stack(&config.rootfs.diff_ids);
        }
    }
}

impl Live {
    fn has(&self, path: &Path) -> bool {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| self.hex.contains(name))
    }

    fn add_stack(&mut self, diff_ids: &[Digest]) {
        self.hex
            .extend(diff_ids.iter().map(|diff_id| diff_id.hex().to_owned()));
        self.hex
            .extend((0..=diff_ids.len()).map(|count| chain_id(&diff_ids[..count]).hex().to_owned()));
    }
}

/// Moves something out of sight.
pub(crate) fn discard(layout: &Layout, path: &Path) -> Result<PathBuf> {
    let trash = layout.trash().join(random_name()?);
    fs::rename(path, &trash).map_err(|e| Error::io("rename", path, e))?;
    Ok(trash)
}

/// The notes of names by ids, of which there may be none yet.
fn id_notes(layout: &Layout) -> Result<Vec<PathBuf>> {
    match layout.id_notes().exists() {
        true => children(&layout.id_notes()),
        false => Ok(Vec::new()),
    }
}

pub(super) fn children(path: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(|e| Error::io("list", path, e))
}

/// Deletes what dead processes left in `ingest/`, `leases/` and `trash/`. Files that only a user namespace may delete stay.
pub(super) fn sweep(layout: &Layout) -> Result<()> {
    for path in children(&layout.ingest())? {
        let extension = path
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        let dead = match extension {
            // These have a lock beside them, taken before they are made.
            "layer" | "spool" => !OwnedLock::is_held(&path.with_extension(format!("{extension}-lock"))),
            // A download or an upload that broke off may go on for a while.
            "part" | "upload" => {
                !OwnedLock::is_held(&path.with_extension(format!("{extension}-lock")))
                    && is_older(&path, Duration::from_secs(7 * 24 * 3600))
            }
            "lock" | "layer-lock" | "spool-lock" | "part-lock" | "upload-lock" => {
                OwnedLock::remove_unless_held(&path)?;
                false
            }
            // Everything else is made and renamed within a moment; its name says by whom.
            _ => {
                let mark = path
                    .file_stem()
                    .and_then(|stem| stem.to_str()?.split_once('-'))
                    .and_then(|(_, mark)| Owner::of_mark(mark));
                mark.is_some_and(|owner| !owner.is_alive()) || is_older(&path, Duration::from_secs(600))
            }
        };
        if dead {
            ignore_foreign(remove_tree(&path))?;
        }
    }
    for path in children(&layout.leases())? {
        OwnedLock::remove_unless_held(&path)?;
    }
    for path in children(&layout.trash())? {
        // Whoever put it there is deleting it.
        if is_older(&path, Duration::from_secs(60)) {
            ignore_foreign(remove_tree(&path))?;
        }
    }
    Ok(())
}

fn ignore_foreign(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::NeedsUserNamespace { .. }) => Ok(()),
        other => other,
    }
}

/// Says whether the entry has been where it is for `age`.
fn is_older(path: &Path, age: Duration) -> bool {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return false;
    };
    let changed = Duration::from_secs(meta.ctime().max(0).cast_unsigned());
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    now.saturating_sub(changed) > age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_is_swept_and_what_a_living_one_makes_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let ingest = store.layout().ingest();
        let own = store.layout().scratch(".tmp").unwrap();
        let name = own.file_name().unwrap().to_str().unwrap();
        // The same number, started at another time.
        let (random, mark) = name.strip_suffix(".tmp").unwrap().split_once('-').unwrap();
        let mut parts: Vec<&str> = mark.splitn(4, '-').collect();
        parts[1] = "1";
        let dead = format!("{random}-{}", parts.join("-"));
        fs::write(&own, "").unwrap();
        fs::write(ingest.join(format!("{dead}.tmp")), "").unwrap();
        fs::create_dir_all(ingest.join(format!("{dead}.snapshot/upper"))).unwrap();
        fs::write(ingest.join("unknown.tmp"), "").unwrap();
        sweep(store.layout()).unwrap();
        let mut left: Vec<_> = children(&ingest).unwrap();
        left.sort();
        let mut expected = [own, ingest.join("unknown.tmp")];
        expected.sort();
        assert_eq!(left, expected);
    }
}
