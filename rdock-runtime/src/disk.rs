//! What a root takes on the disk, and how to take less.

use crate::container::Container;
use crate::error::{Error, Result};
use crate::moment;
use crate::runtime::{Runtime, blocking};
use crate::state::Status;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a root takes on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiskUsage {
    /// Images, with what is kept to push and save them as they came; a layer that several have counts once.
    pub images: DiskShare,
    /// What containers have written beside their images.
    pub containers: DiskShare,
    /// Volumes.
    pub volumes: DiskShare,
}

/// What one kind of object takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiskShare {
    /// How many there are.
    pub total: usize,
    /// How many are used: by a container, or because they run.
    pub active: usize,
    /// Bytes of them all.
    pub bytes: u64,
    /// Bytes of those that are not used.
    pub reclaimable: u64,
}

/// Which containers [`Runtime::prune_containers`] removes, of those that do not run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerPruneFilter {
    /// Made before that time, in nanoseconds since 1970.
    until: Option<i64>,
    labels: Vec<(String, Option<String>)>,
    without_labels: Vec<(String, Option<String>)>,
}

/// What [`Runtime::prune_containers`] has removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PrunedContainers {
    /// Ids of the containers that are gone.
    pub ids: Vec<String>,
    /// Bytes that they had written.
    pub bytes: u64,
}

impl ContainerPruneFilter {
    /// Adds a condition as docker writes it: `until=TIME`, `label=NAME[=VALUE]`, `label!=NAME[=VALUE]`.
    ///
    /// # Errors
    /// [`Error::Filter`] for another one, [`Error::Time`] for a malformed time.
    pub fn add(&mut self, condition: &str) -> Result<()> {
        let label = |text: &str| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text.to_owned(), None),
        };
        if let Some(text) = condition.strip_prefix("label!=") {
            self.without_labels.push(label(text));
        } else if let Some(text) = condition.strip_prefix("label=") {
            self.labels.push(label(text));
        } else if let Some(text) = condition.strip_prefix("until=") {
            let nanos = moment::parse(text)?.as_nanosecond();
            self.until = Some(i64::try_from(nanos).unwrap_or(i64::MAX));
        } else {
            return Err(Error::Filter {
                text: condition.to_owned(),
                reason: "there are until=, label= and label!=".to_owned(),
            });
        }
        Ok(())
    }

    /// The same conditions on images: all that no container uses, or those without a name alone.
    pub fn of_images(&self, all: bool) -> rdock_image::PruneFilter {
        let mut filter = rdock_image::PruneFilter::default();
        filter.all = all;
        filter.until = self.until.map(i128::from);
        filter.labels.clone_from(&self.labels);
        filter.without_labels.clone_from(&self.without_labels);
        filter
    }

    fn fits(&self, created: &str, labels: &BTreeMap<String, String>) -> bool {
        let has = |(name, value): &(String, Option<String>)| {
            let found = labels.get(name);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        let created = created
            .parse::<jiff::Timestamp>()
            .map_or(0, jiff::Timestamp::as_nanosecond);
        self.until.is_none_or(|until| created < i128::from(until))
            && self.labels.iter().all(has)
            && !self.without_labels.iter().any(has)
    }
}

impl Runtime {
    /// Adds up what the root takes on the disk. Reads every file that containers and volumes have.
    ///
    /// # Errors
    /// When something cannot be read.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        let this = self.clone();
        blocking(move || this.read_disk_usage()).await
    }

    fn read_disk_usage(&self) -> Result<DiskUsage> {
        let mut usage = DiskUsage::default();
        let (mut used_images, mut used_volumes) = (BTreeSet::new(), BTreeSet::new());
        for container in self.containers()? {
            // One that is removed meanwhile takes nothing.
            let (Ok(info), Ok(bytes)) = (container.inspect(), container.written_bytes()) else {
                continue;
            };
            used_volumes.extend(info.mounts.into_iter().filter_map(|mount| mount.name));
            used_images.insert(info.image_id);
            let runs = info.status.is_running() || matches!(info.status, Status::Restarting(_));
            usage.containers.count(runs, bytes);
        }
        // Images that share a layer have it together.
        let (mut all, mut needed) = (BTreeSet::new(), BTreeSet::new());
        for image in self.images().images()? {
            let active = used_images.contains(image.id().as_str());
            usage.images.count(active, 0);
            for layer in image.diff_ids() {
                all.insert(layer.clone());
                if active {
                    needed.insert(layer.clone());
                }
            }
        }
        for layer in &all {
            // A damaged one has no size, as it has none for `images`.
            let Ok(bytes) = self.images().layer_usage(layer) else {
                continue;
            };
            usage.images.bytes += bytes;
            if !needed.contains(layer) {
                usage.images.reclaimable += bytes;
            }
        }
        for volume in self.volumes().list()? {
            let Ok(bytes) = volume.size() else { continue };
            usage.volumes.count(used_volumes.contains(&volume.name), bytes);
        }
        Ok(usage)
    }

    /// Removes containers that do not run, with their anonymous volumes.
    ///
    /// # Errors
    /// When one cannot be removed; those before it are gone.
    pub async fn prune_containers(&self, filter: &ContainerPruneFilter) -> Result<PrunedContainers> {
        let mut pruned = PrunedContainers::default();
        let this = self.clone();
        let all: Vec<Container> = blocking(move || this.containers()).await?;
        for container in all {
            let own = container.clone();
            let look = move || Ok((own.inspect()?, own.written_bytes()?));
            // Removed meanwhile.
            let Ok((info, bytes)) = blocking(look).await else {
                continue;
            };
            let over = matches!(info.status, Status::Exited(_) | Status::Created | Status::Dead);
            if !over || !filter.fits(&info.created, &info.spec.labels) {
                continue;
            }
            match container.remove_with(false, true).await {
                Ok(()) => {
                    pruned.ids.push(info.id);
                    pruned.bytes += bytes;
                }
                // Somebody has started or removed it.
                Err(Error::StillRunning { .. } | Error::NoSuchContainer { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }
}

impl DiskShare {
    fn count(&mut self, active: bool, bytes: u64) {
        self.total += 1;
        self.active += usize::from(active);
        self.bytes += bytes;
        if !active {
            self.reclaimable += bytes;
        }
    }
}

/// Bytes of the files in a tree; one with several names counts once, and links are not followed.
pub(crate) fn tree_size(path: &Path) -> io::Result<u64> {
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    let mut open = vec![path.to_owned()];
    while let Some(dir) = open.pop() {
        let entries = match std::fs::read_dir(&dir) {
            // Removed while we look, or closed to us as a plain user: mode 000 of a container's user.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
            {
                continue;
            }
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                open.push(entry.path());
            } else if found.is_file() && (found.nlink() == 1 || seen.insert((found.dev(), found.ino()))) {
                bytes += found.len();
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_counts_files_once_and_follows_no_link() {
        let root = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("deep")).expect("mkdir");
        std::fs::write(at("deep/file"), [0; 100]).expect("write");
        std::fs::hard_link(at("deep/file"), at("again")).expect("link");
        std::os::unix::fs::symlink("/", at("everything")).expect("symlink");
        assert_eq!(tree_size(root.path()).expect("size"), 100);
        assert_eq!(tree_size(&at("none")).expect("size"), 0);
    }

    #[test]
    fn prune_filters_are_dockers() {
        let mut filter = ContainerPruneFilter::default();
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        assert!(filter.fits("2026-01-01T00:00:00Z", &labels));
        filter.add("label=a=1").expect("add");
        filter.add("until=2026-01-02T00:00:00Z").expect("add");
        assert!(filter.fits("2026-01-01T00:00:00Z", &labels));
        assert!(!filter.fits("2026-01-03T00:00:00Z", &labels));
        assert!(!filter.fits("2026-01-01T00:00:00Z", &BTreeMap::new()));
        filter.add("label!=a").expect("add");
        assert!(!filter.fits("2026-01-01T00:00:00Z", &labels));
        assert!(matches!(filter.add("size=1"), Err(Error::Filter { .. })));
        assert!(matches!(filter.add("until=soon"), Err(Error::Time { .. })));
    }
}
