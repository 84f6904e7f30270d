//! A project: what the files of a folder make together.

use super::{Config, Extensions, Model, Network, Secret, Service, Volume};
use crate::error::{Place, SelectError, Warning, nearest};
use crate::source::Sources;
use crate::yaml::Node;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// A loaded project. Every value is final: variables are filled in, files are merged, paths are absolute.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Project {
    /// The project's name.
    pub name: String,
    /// Services that are active.
    pub services: BTreeMap<String, Service>,
    /// Networks, by their keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Network>,
    /// Volumes, by their keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
    /// Secrets, by their keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Secret>,
    /// Configs, by their keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, Config>,
    /// Models, by their keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, Model>,
    /// The `x-*` keys.
    #[serde(flatten)]
    pub extensions: Extensions,
    /// Services that no active profile has.
    #[serde(skip)]
    pub disabled_services: BTreeMap<String, Service>,
    /// The folder that relative paths begin at.
    #[serde(skip)]
    pub working_dir: PathBuf,
    /// The files that were named or found, in their order.
    #[serde(skip)]
    pub compose_files: Vec<PathBuf>,
    /// The variables that were filled in, with those of `.env`.
    #[serde(skip)]
    pub environment: BTreeMap<String, String>,
    /// Profiles that are active.
    #[serde(skip)]
    pub profiles: BTreeSet<String>,
    /// Names of containers and images have `_` between their parts, not `-`.
    #[serde(skip)]
    pub compatibility: bool,
    /// What is legal and should be known.
    #[serde(skip)]
    pub warnings: Vec<Warning>,
    /// Where everything stands.
    #[serde(skip)]
    pub(crate) origin: Arc<Origin>,
}

/// The texts and the merged tree of a project.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    pub(crate) sources: Sources,
    pub(crate) tree: Option<Node>,
}

impl Project {
    /// The whole as JSON, as `config --format json` prints it but for the doubling of `$`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Where a YAML path (`services.web.ports.0`) stands; the nearest thing above it that a file says.
    pub fn place_of(&self, path: &[&str]) -> Option<Place> {
        let tree = self.origin.tree.as_ref()?;
        self.origin.sources.place(tree.span_of(path))
    }

    /// An active service.
    ///
    /// # Errors
    /// [`SelectError::NoSuchService`] with a similar name.
    pub fn service(&self, name: &str) -> Result<&Service, SelectError> {
        self.services.get(name).ok_or_else(|| self.unknown(name))
    }

    /// A service, active or not: naming one makes it active.
    pub fn any_service(&self, name: &str) -> Option<&Service> {
        self.services
            .get(name)
            .or_else(|| self.disabled_services.get(name))
    }

    fn unknown(&self, name: &str) -> SelectError {
        let known = self.services.keys().chain(self.disabled_services.keys());
        SelectError::NoSuchService {
            name: name.to_owned(),
            suggestion: nearest(name, known.map(String::as_str)).map(str::to_owned),
        }
    }

    /// What stands between the parts of a name.
    pub(crate) fn separator(&self) -> char {
        if self.compatibility { '_' } else { '-' }
    }

    /// Removes networks, volumes, configs, secrets and models that no active service uses, as docker compose does
    /// unless it is told `--all-resources`.
    pub fn remove_unused(&mut self) {
        let services = || self.services.values();
        let networks: BTreeSet<&String> = services().flat_map(|service| service.networks.keys()).collect();
        self.networks.retain(|key, _| networks.contains(key));
        let mounts = services().flat_map(|service| &service.volumes);
        let volumes: BTreeSet<&String> = mounts
            .filter(|mount| mount.r#type == "volume")
            .filter_map(|mount| mount.source.as_ref())
            .collect();
        self.volumes.retain(|key, _| volumes.contains(key));
        let configs: BTreeSet<&String> = services()
            .flat_map(|service| service.configs.iter().map(|grant| &grant.source))
            .collect();
        self.configs.retain(|key, _| configs.contains(key));
        let of_builds = services().filter_map(|service| service.build.as_ref());
        let of_builds = of_builds.flat_map(|build| &build.secrets);
        let secrets: BTreeSet<&String> = services()
            .flat_map(|service| &service.secrets)
            .chain(of_builds)
            .map(|grant| &grant.source)
            .collect();
        self.secrets.retain(|key, _| secrets.contains(key));
        let models: BTreeSet<&String> = services().flat_map(|service| service.models.keys()).collect();
        self.models.retain(|key, _| models.contains(key));
    }

    /// The project with these services and what they need; all of it if none is named. Naming a service makes it
    /// active whatever its profiles say.
    ///
    /// # Errors
    /// [`SelectError::NoSuchService`]; [`SelectError::Disabled`] if one needs a service that is not active.
    pub fn select<S: AsRef<str>>(
        &self,
        names: &[S],
        dependencies: Dependencies,
    ) -> Result<Self, SelectError> {
        if names.is_empty() {
            return Ok(self.clone());
        }
        let mut project = self.clone();
        let mut open: Vec<String> = Vec::new();
        for name in names {
            let name = name.as_ref();
            match project.disabled_services.remove(name) {
                Some(service) => {
                    project.profiles.extend(service.profiles.iter().cloned());
                    project.services.insert(name.to_owned(), service);
                }
                None if project.services.contains_key(name) => {}
                None => return Err(self.unknown(name)),
            }
            open.push(name.to_owned());
        }
        // What the profiles of named services bring may be needed by them.
        let profiles = project.profiles.clone();
        let active = |service: &Service| service.profiles.iter().any(|profile| profiles.contains(profile));
        let woken: Vec<String> = project
            .disabled_services
            .iter()
            .filter(|(_, service)| active(service))
            .map(|(name, _)| name.clone())
            .collect();
        for name in woken {
            if let Some(service) = project.disabled_services.remove(&name) {
                project.services.insert(name, service);
            }
        }
        let mut wanted = BTreeSet::new();
        while let Some(name) = open.pop() {
            if !wanted.insert(name.clone()) || dependencies == Dependencies::Leave {
                continue;
            }
            let Some(service) = project.services.get(&name) else {
                continue;
            };
            for (needed, dependency) in &service.depends_on {
                if project.services.contains_key(needed) {
                    open.push(needed.clone());
                } else if dependency.required {
                    let profiles = project.disabled_services.get(needed);
                    return Err(SelectError::Disabled {
                        service: name,
                        needed: needed.clone(),
                        profiles: profiles
                            .map(|service| service.profiles.clone())
                            .unwrap_or_default(),
                    });
                }
            }
        }
        let all = std::mem::take(&mut project.services);
        for (name, service) in all {
            if wanted.contains(&name) {
                project.services.insert(name, service);
            } else {
                project.disabled_services.insert(name, service);
            }
        }
        Ok(project)
    }
}

/// Whether services that others need come along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dependencies {
    /// They do.
    #[default]
    Include,
    /// Only what is named (`--no-deps`).
    Leave,
}
