//! What there is: plain data that whoever applies plans fills in.

use crate::names::label;
use rdock_runtime::image::Platform;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that may belong to a project, or stand in its way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Existing {
    /// Containers, at least those with the project's label and those with names that it needs.
    pub containers: Vec<ExistingContainer>,
    /// Networks, at least those with the project's label and those that it names.
    pub networks: Vec<ExistingNetwork>,
    /// Volumes, at least those with the project's label and those that it names.
    pub volumes: Vec<ExistingVolume>,
    /// Images by the references that services name, and those of containers of services that nobody names any more, as
    /// far as they are here.
    pub images: BTreeMap<String, ExistingImage>,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExistingContainer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it does.
    pub state: ContainerState,
    /// What its health checks say; absent without any.
    pub health: Option<Health>,
    /// The networks it is in: the id by the name.
    pub networks: BTreeMap<String, String>,
    /// What is mounted.
    pub mounts: Vec<ExistingMount>,
}

/// What a container does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// It was made and never started.
    #[default]
    Created,
    /// It runs.
    Running,
    /// It is being stopped: it will not run much longer.
    Stopping,
    /// Its processes stand still.
    Paused,
    /// It ended and will be started again.
    Restarting,
    /// It ended, with this code.
    Exited(i32),
    /// It cannot run any more.
    Dead,
}

/// What health checks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not known yet.
    Starting,
    /// Good.
    Healthy,
    /// Bad.
    Unhealthy,
}

/// A mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExistingMount {
    /// Its path in the container.
    pub target: String,
    /// The volume's name, if it is one.
    pub volume: Option<String>,
    /// Nobody named that volume.
    pub anonymous: bool,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExistingNetwork {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExistingVolume {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// An image that is here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExistingImage {
    /// Its id.
    pub id: String,
    /// Seconds since it was pulled or built, where that is known.
    pub age: Option<u64>,
    /// What it is for (`linux/amd64`), where that is known.
    pub platform: Option<String>,
}

impl ExistingImage {
    /// Whether it is for a platform, as far as that is known and one is wanted.
    pub(crate) fn is_for(&self, wanted: Option<&str>) -> bool {
        let parse = |text: &str| text.parse::<Platform>().ok();
        match (wanted.and_then(parse), self.platform.as_deref().and_then(parse)) {
            (Some(wanted), Some(found)) => {
                wanted.os == found.os
                    && wanted.architecture == found.architecture
                    && (wanted.variant.is_none() || wanted.variant == found.variant)
            }
            _ => true,
        }
    }
}

impl ExistingContainer {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// Whether it belongs to this project.
    pub fn is_of(&self, project: &str) -> bool {
        self.label(label::PROJECT) == Some(project)
    }

    /// The service whose container it is.
    pub fn service(&self) -> Option<&str> {
        self.label(label::SERVICE)
    }

    /// Which of the service's containers; 0 for one that does not say.
    pub fn number(&self) -> u32 {
        self.label(label::NUMBER)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    /// Whether `run` made it.
    pub fn is_one_off(&self) -> bool {
        self.label(label::ONE_OFF)
            .is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }

    /// The hash of what it was made from.
    pub fn config_hash(&self) -> Option<&str> {
        self.label(label::CONFIG_HASH)
    }

    /// The image that its service named when it was made.
    pub fn image(&self) -> Option<String> {
        let config: serde_json::Value = serde_json::from_str(self.label(label::CONFIG)?).ok()?;
        config.get("image")?.as_str().map(str::to_owned)
    }

    /// Whether it runs, paused or between restarts included.
    pub fn is_up(&self) -> bool {
        matches!(
            self.state,
            ContainerState::Running
                | ContainerState::Stopping
                | ContainerState::Paused
                | ContainerState::Restarting
        )
    }

    /// The services it depends on, as its labels say.
    pub fn dependencies(&self) -> Vec<&str> {
        let text = self.label(label::DEPENDS_ON).unwrap_or_default();
        text.split(',')
            .filter_map(|need| need.split(':').next())
            .filter(|name| !name.is_empty())
            .collect()
    }
}

impl Existing {
    /// A project's containers of one service, without those of `run`, by number.
    pub fn of_service<'a>(&'a self, project: &str, service: &str) -> Vec<&'a ExistingContainer> {
        let mut found: Vec<_> = self
            .containers
            .iter()
            .filter(|container| {
                container.is_of(project) && container.service() == Some(service) && !container.is_one_off()
            })
            .collect();
        found.sort_by(|a, b| (a.number(), &a.name).cmp(&(b.number(), &b.name)));
        found
    }

    /// A network by its name.
    pub fn network(&self, name: &str) -> Option<&ExistingNetwork> {
        self.networks.iter().find(|network| network.name == name)
    }

    /// A volume by its name.
    pub fn volume(&self, name: &str) -> Option<&ExistingVolume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }
}
