//! Which volumes are meant: the filters of `volume ls` and `volume prune`.

use super::{VolumeError, VolumeInfo, Volumes};
use crate::spec::ParseError;

/// Picks volumes. Several values of one kind: any of the names, all of the labels, as in docker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeFilter {
    /// Parts of the name.
    pub names: Vec<String>,
    /// `local` is the only driver.
    pub drivers: Vec<String>,
    /// A name, or name and value.
    pub labels: Vec<(String, Option<String>)>,
    /// Labels it must not have.
    pub without_labels: Vec<(String, Option<String>)>,
    /// Whether no container has it.
    pub dangling: Option<bool>,
    /// Named volumes too, where only anonymous ones are meant otherwise (prune).
    pub all: bool,
}

impl VolumeFilter {
    /// Adds one filter as docker's `--filter` writes it: `name=`, `driver=`, `label=`, `label!=`, `dangling=`, `all=`.
    ///
    /// # Errors
    /// For any other.
    pub fn add(&mut self, text: &str) -> Result<(), ParseError> {
        let wrong = |reason: &str| ParseError::new("a filter of volumes", text, reason);
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("it is name=value"))?;
        let pair = || match value.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (value.to_owned(), None),
        };
        let truth = || match value {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
            "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
            _ => Err(wrong("it is true or false")),
        };
        match key {
            "name" => self.names.push(value.to_owned()),
            "driver" => self.drivers.push(value.to_owned()),
            "label" => self.labels.push(pair()),
            "label!" => self.without_labels.push(pair()),
            "dangling" => self.dangling = Some(truth()?),
            "all" => self.all = truth()?,
            _ => {
                return Err(wrong(
                    "the filters are name, driver, label, label!, dangling and all",
                ));
            }
        }
        Ok(())
    }

    fn fits(&self, volumes: &Volumes, info: &VolumeInfo) -> Result<bool, VolumeError> {
        let has = |(name, value): &(String, Option<String>)| {
            info.labels
                .get(name)
                .is_some_and(|found| value.as_ref().is_none_or(|wanted| wanted == found))
        };
        let fits = (self.names.is_empty() || self.names.iter().any(|part| info.name.contains(part.as_str())))
            && (self.drivers.is_empty() || self.drivers.iter().any(|driver| driver == "local"))
            && self.labels.iter().all(has)
            && !self.without_labels.iter().any(has);
        match self.dangling {
            Some(dangling) if fits => Ok(volumes.users(&info.name)?.is_empty() == dangling),
            _ => Ok(fits),
        }
    }
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrunedVolumes {
    /// Names of the volumes that are gone.
    pub names: Vec<String>,
    /// Bytes of disk that their files had.
    pub bytes: u64,
}

impl Volumes {
    /// The volumes that fit, by name.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn find(&self, filter: &VolumeFilter) -> Result<Vec<VolumeInfo>, VolumeError> {
        let mut found = Vec::new();
        for info in self.list()? {
            if filter.fits(self, &info)? {
                found.push(info);
            }
        }
        Ok(found)
    }

    /// Removes volumes that no container has and that fit: anonymous ones unless [`VolumeFilter::all`] is set.
    ///
    /// # Errors
    /// When one cannot be removed; those before it are gone.
    pub fn prune_with(&self, filter: &VolumeFilter) -> Result<PrunedVolumes, VolumeError> {
        let mut pruned = PrunedVolumes::default();
        for volume in self.find(filter)? {
            if !volume.anonymous && !filter.all {
                continue;
            }
            let bytes = volume.size()?;
            match self.remove(&volume.name, true) {
                Ok(()) => {
                    pruned.names.push(volume.name);
                    pruned.bytes += bytes;
                }
                // A container has it, perhaps since a moment ago.
                Err(VolumeError::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }
}
