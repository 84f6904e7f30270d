//! Which containers are wanted: docker's filters of `ps`.

use crate::container::{Container, ContainerInfo};
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::spec::{Protocol, parse_exposed};
use crate::state::Status;
use regex::Regex;
use std::collections::BTreeSet;

/// Which containers are wanted. Values for one key are alternatives, keys must all match; labels must all be
/// there.
///
/// ```
/// use rdock_runtime::ContainerFilter;
/// let mut parsed = ContainerFilter::default();
/// parsed.add("label=tier=web")?;
/// parsed.add("status=running")?;
/// assert_eq!(parsed, ContainerFilter::default().label("tier", Some("web")).status("running"));
/// # Ok::<(), rdock_runtime::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    ids: Vec<String>,
    names: Vec<String>,
    labels: Vec<(String, Option<String>)>,
    exited: Vec<i32>,
    statuses: Vec<String>,
    ancestors: Vec<String>,
    before: Vec<String>,
    since: Vec<String>,
    volumes: Vec<String>,
    networks: Vec<String>,
    published: Vec<(u16, Protocol)>,
    exposed: Vec<(u16, Protocol)>,
    healths: Vec<String>,
}

/// docker's words for how a container is doing.
const STATUSES: [&str; 7] = [
    "created",
    "running",
    "paused",
    "restarting",
    "removing",
    "exited",
    "dead",
];
const HEALTHS: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

impl ContainerFilter {
    /// Only the container with this id, or a part of it.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.ids.push(id.into());
        self
    }

    /// Only containers whose name has this part. A regular expression, as in docker: `^web$` is the whole name.
    pub fn name(mut self, pattern: impl Into<String>) -> Self {
        self.names.push(pattern.into());
        self
    }

    /// Only containers with this label, and with this value when one is given.
    pub fn label(mut self, name: impl Into<String>, value: Option<&str>) -> Self {
        self.labels.push((name.into(), value.map(str::to_owned)));
        self
    }

    /// Only containers that ended with this code.
    pub fn exited(mut self, code: i32) -> Self {
        self.exited.push(code);
        self
    }

    /// Only containers that are doing so: see [`Status::name`].
    pub fn status(mut self, status: impl Into<String>) -> Self {
        self.statuses.push(status.into());
        self
    }

    /// Only containers of this image (name or id), or of one that was built on it.
    pub fn ancestor(mut self, image: impl Into<String>) -> Self {
        self.ancestors.push(image.into());
        self
    }

    /// Only containers that were made before this one.
    pub fn before(mut self, container: impl Into<String>) -> Self {
        self.before.push(container.into());
        self
    }

    /// Only containers that were made after this one.
    pub fn since(mut self, container: impl Into<String>) -> Self {
        self.since.push(container.into());
        self
    }

    /// Only containers with this volume, or something mounted at this path.
    pub fn volume(mut self, volume: impl Into<String>) -> Self {
        self.volumes.push(volume.into());
        self
    }

    /// Only containers in this network.
    pub fn network(mut self, network: impl Into<String>) -> Self {
        self.networks.push(network.into());
        self
    }

    /// Only containers that publish this port of theirs.
    pub fn publishes(mut self, port: u16, protocol: Protocol) -> Self {
        self.published.push((port, protocol));
        self
    }

    /// Only containers that publish or expose this port of theirs.
    pub fn exposes(mut self, port: u16, protocol: Protocol) -> Self {
        self.exposed.push((port, protocol));
        self
    }

    /// Only containers of this health: `starting`, `healthy`, `unhealthy`, or `none` without a check.
    pub fn health(mut self, health: impl Into<String>) -> Self {
        self.healths.push(health.into());
        self
    }

    /// Adds a condition as docker writes it, `key=value`: `id`, `name`, `label`, `exited`, `status`, `ancestor`,
    /// `before`, `since`, `volume`, `network`, `publish`, `expose` (`80`, `80-90/udp`), `health`, `is-task`.
    ///
    /// # Errors
    /// [`Error::Filter`] for another key or a value that the key does not have.
    pub fn add(&mut self, condition: &str) -> Result<()> {
        let wrong = |reason: &str| Error::Filter {
            text: condition.to_owned(),
            reason: reason.to_owned(),
        };
        let (key, value) = condition
            .split_once('=')
            .ok_or_else(|| wrong("expected KEY=VALUE"))?;
        let word = |known: &[&str]| match known.contains(&value) {
            true => Ok(value.to_owned()),
            false => Err(wrong(&format!("it is one of {}", known.join(", ")))),
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "id" => self.ids.push(value.to_owned()),
            "name" => {
                Regex::new(value).map_err(|_| wrong("not a regular expression"))?;
                self.names.push(value.to_owned());
            }
            "label" => self.labels.push(match value.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (value.to_owned(), None),
            }),
            "exited" => self
                .exited
                .push(value.parse().map_err(|_| wrong("an exit code is a number"))?),
            "status" => self.statuses.push(word(&STATUSES)?),
            "ancestor" => self.ancestors.push(value.to_owned()),
            "before" => self.before.push(value.to_owned()),
            "since" => self.since.push(value.to_owned()),
            "volume" => self.volumes.push(value.to_owned()),
            "network" => self.networks.push(value.to_owned()),
            "publish" => self
                .published
                .extend(parse_exposed(value).map_err(|error| wrong(&error.reason))?),
            "expose" => self
                .exposed
                .extend(parse_exposed(value).map_err(|error| wrong(&error.reason))?),
            "health" => self.healths.push(word(&HEALTHS)?),
            // There is no swarm: no container is a task of one.
            "is-task" if value == "false" => {}
            "is-task" if value == "true" => self.ids.push("none".to_owned()),
            _ => {
                return Err(wrong(
                    "the keys are id, name, label, exited, status, ancestor, before, since, volume, network, \
                     publish, expose, health and is-task",
                ));
            }
        }
        Ok(())
    }

    /// Whether it asks for a status: then containers that do not run are meant too.
    pub fn asks_for_status(&self) -> bool {
        !self.statuses.is_empty()
    }
}

impl Runtime {
    /// Lists the containers that fit, newest first, running or not.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`] when a container that the filter names does not exist; when the state cannot be
    /// read.
    pub fn list(&self, filter: &ContainerFilter) -> Result<Vec<ContainerInfo>> {
        let wanted = Wanted::new(self, filter)?;
        let mut found = Vec::new();
        for container in self.containers()? {
            // It may be removed while we look.
            if let Ok(info) = container.inspect()
                && wanted.fits(self, &container, &info)
            {
                found.push(info);
            }
        }
        Ok(found)
    }
}

/// A filter whose names are looked up.
struct Wanted<'a> {
    filter: &'a ContainerFilter,
    names: Vec<Regex>,
    before: Option<String>,
    since: Option<String>,
    /// Layers of the ancestors, the lowest first, and ids for images that are not there any more.
    ancestors: Vec<Vec<String>>,
    images: BTreeSet<String>,
}

impl<'a> Wanted<'a> {
    fn new(runtime: &Runtime, filter: &'a ContainerFilter) -> Result<Self> {
        let pattern = |text: &String| {
            Regex::new(text).map_err(|_| Error::Filter {
                text: format!("name={text}"),
                reason: "not a regular expression".to_owned(),
            })
        };
        let made = |names: &[String]| -> Result<Vec<String>> {
            let times = names
                .iter()
                .map(|name| Ok(runtime.container(name)?.created().to_owned()));
            times.collect()
        };
        let mut wanted = Self {
            filter,
            names: filter.names.iter().map(pattern).collect::<Result<_>>()?,
            before: made(&filter.before)?.into_iter().max(),
            since: made(&filter.since)?.into_iter().min(),
            ancestors: Vec::new(),
            images: BTreeSet::new(),
        };
        for name in &filter.ancestors {
            wanted.images.insert(name.clone());
            // One that is no image any more may still be named by containers.
            if let Ok(Some(image)) = runtime.images().get(name) {
                wanted.images.insert(image.id().to_string());
                wanted
                    .ancestors
                    .push(image.diff_ids().iter().map(ToString::to_string).collect());
            }
        }
        Ok(wanted)
    }

    fn fits(&self, runtime: &Runtime, container: &Container, info: &ContainerInfo) -> bool {
        let filter = self.filter;
        let exit = match &info.status {
            Status::Exited(exit) => Some(exit.code()),
            _ => None,
        };
        let health = info.health.as_ref().map_or("none", |health| health.status.name());
        any(&filter.ids, |id| info.id.contains(id.as_str()))
            && any(&self.names, |pattern| {
                pattern.is_match(&info.name) || pattern.is_match(&format!("/{}", info.name))
            })
            && filter.labels.iter().all(|(name, value)| {
                let found = info.spec.labels.get(name);
                found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            })
            && any(&filter.exited, |code| exit == Some(*code))
            && any(&filter.statuses, |status| status == info.status.name())
            && any(&filter.healths, |wanted| wanted == health)
            && self.before.as_ref().is_none_or(|before| info.created < *before)
            && self.since.as_ref().is_none_or(|since| info.created > *since)
            && any(&filter.volumes, |volume| {
                let mut mounts = info.mounts.iter();
                mounts.any(|mount| mount.name.as_ref() == Some(volume) || mount.target == *volume)
            })
            && any(&filter.networks, |network| {
                network_names(info).iter().any(|name| name == network)
            })
            && any(&filter.published, |(port, protocol)| {
                let mut ports = info.ports.iter();
                ports.any(|bound| (bound.container, bound.protocol) == (*port, *protocol))
            })
            && (filter.exposed.is_empty() || {
                let exposed = container.exposed_ports(info);
                filter.exposed.iter().any(|port| exposed.contains(port))
            })
            && (filter.ancestors.is_empty() || self.descends(runtime, info))
    }

    fn descends(&self, runtime: &Runtime, info: &ContainerInfo) -> bool {
        let names = [info.image.as_str(), info.image_id.as_str()];
        if names.iter().any(|name| self.images.contains(*name)) {
            return true;
        }
        let Ok(Some(image)) = runtime.images().get(&info.image_id) else {
            return false;
        };
        let layers: Vec<String> = image.diff_ids().iter().map(ToString::to_string).collect();
        self.ancestors.iter().any(|ancestor| layers.starts_with(ancestor))
    }
}

fn any<T>(wanted: &[T], test: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(test)
}

/// The networks a container is in, or is to be in when it runs; `bridge` beside `default`, as docker calls it.
fn network_names(info: &ContainerInfo) -> Vec<String> {
    use crate::spec::NetworkMode;
    let mut names: Vec<String> = match &info.spec.network {
        NetworkMode::Host => vec!["host".to_owned()],
        NetworkMode::None => vec!["none".to_owned()],
        NetworkMode::Container(other) => vec![format!("container:{other}")],
        NetworkMode::Default if !info.networks.is_empty() => info
            .networks
            .iter()
            .map(|endpoint| endpoint.network.clone())
            .collect(),
        NetworkMode::Default if info.spec.networks.is_empty() => vec!["default".to_owned()],
        NetworkMode::Default => info
            .spec
            .networks
            .iter()
            .map(|endpoint| endpoint.network.clone())
            .collect(),
    };
    if names.iter().any(|name| name == "default") {
        names.push("bridge".to_owned());
    }
    names
}

impl Container {
    /// Ports that the container serves: published ones, those of its spec, and those of its image.
    pub fn exposed_ports(&self, info: &ContainerInfo) -> BTreeSet<(u16, Protocol)> {
        let mut ports: BTreeSet<_> = info
            .ports
            .iter()
            .map(|bound| (bound.container, bound.protocol))
            .collect();
        ports.extend(info.spec.expose.iter().copied());
        ports.extend(info.spec.ports.iter().map(|port| (port.container, port.protocol)));
        let of_record = self
            .record()
            .image_config
            .as_ref()
            .map(|config| config.config.exposed_ports.clone());
        let of_image = || {
            let image = self.runtime().images().get(&info.image_id).ok().flatten()?;
            Some(image.config().config.exposed_ports.clone())
        };
        for text in of_record.or_else(of_image).unwrap_or_default().keys() {
            // What an image says wrongly exposes nothing.
            ports.extend(parse_exposed(text).unwrap_or_default());
        }
        ports
    }

    /// Bytes of the files that the container has written beside its image.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn written_bytes(&self) -> Result<u64> {
        let snapshot = self.runtime().images().open_snapshot(self.id())?;
        let Some(snapshot) = snapshot else { return Ok(0) };
        crate::disk::tree_size(snapshot.upper()).map_err(Error::state("examine", snapshot.upper()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wrong_condition_names_what_there_is() {
        let mut filter = ContainerFilter::default();
        for (text, words) in [
            ("running", "KEY=VALUE"),
            ("colour=red", "ancestor"),
            ("status=fine", "restarting"),
            ("health=fine", "unhealthy"),
            ("exited=x", "number"),
            ("publish=x", "port"),
            ("name=(", "regular expression"),
        ] {
            let error = filter.add(text).expect_err(text).to_string();
            assert!(error.contains(words) && error.contains(text), "{error}");
        }
        assert_eq!(filter, ContainerFilter::default());
        filter.add("status=exited").expect("add");
        assert!(filter.asks_for_status());
    }

    proptest! {
        #[test]
        fn any_text_is_a_condition_or_an_error(text in "(name|id|label|exited|publish|expose|status|x)=.{0,30}") {
            let _ = ContainerFilter::default().add(&text);
        }
    }
}
