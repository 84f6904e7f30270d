//! Whether a container that exists is still what its service wants.

use super::Recreate;
use super::existing::{Existing, ExistingContainer};
use super::operation::Cause;
use crate::hash::{changes, service_config, service_hash};
use crate::model::Project;
use crate::names::label;
use std::collections::BTreeSet;

/// What is known when a service's containers are looked at.
pub(super) struct Judge<'a> {
    pub(super) project: &'a Project,
    pub(super) existing: &'a Existing,
    /// Names of networks that are made or made anew.
    pub(super) new_networks: &'a BTreeSet<String>,
    /// Services whose containers are made anew.
    pub(super) replaced: &'a BTreeSet<String>,
}

impl Judge<'_> {
    /// Why the container has to be made anew; nothing if it is as it should be.
    pub(super) fn causes(
        &self,
        service: &str,
        container: &ExistingContainer,
        policy: Recreate,
    ) -> Vec<Cause> {
        match policy {
            Recreate::Never => return Vec::new(),
            Recreate::Force => return vec![Cause::Requested],
            Recreate::Diverged => {}
        }
        let mut causes = self.configuration(service, container);
        causes.extend(self.image(service, container));
        causes.extend(self.sharing(service));
        // One that was never started, or has ended, has its networks and volumes only by name.
        if container.is_up() {
            causes.extend(self.networks(service, container));
        }
        causes.extend(self.volumes(service, container));
        causes
    }

    fn configuration(&self, service: &str, container: &ExistingContainer) -> Vec<Cause> {
        let wanted = service_config(self.project, service);
        let before: Option<serde_json::Value> = container
            .labels
            .get(label::CONFIG)
            .and_then(|text| serde_json::from_str(text).ok());
        // The hash says nothing of what configs and secrets hold.
        let given = before
            .as_ref()
            .is_none_or(|before| before.get("sources") == wanted.get("sources"));
        if given && container.config_hash() == Some(service_hash(self.project, service).as_str()) {
            return Vec::new();
        }
        let found = before.map(|before| changes(&before, &wanted)).unwrap_or_default();
        match found.is_empty() {
            true => vec![Cause::HashChanged],
            false => found.into_iter().map(Cause::Changed).collect(),
        }
    }

    /// An image that is not here, or a container that does not say which it has, is no reason.
    fn image(&self, service: &str, container: &ExistingContainer) -> Option<Cause> {
        let before = container.labels.get(label::IMAGE)?;
        let now = self.existing.images.get(&self.project.image_of(service))?;
        (*before != now.id).then(|| Cause::ImageChanged {
            before: before.clone(),
            after: now.id.clone(),
        })
    }

    fn sharing(&self, service: &str) -> Vec<Cause> {
        let shared = shared_with(self.project, service).into_iter();
        let shared = shared.filter(|other| self.replaced.contains(other));
        shared.map(|service| Cause::Shared { service }).collect()
    }

    fn networks(&self, service: &str, container: &ExistingContainer) -> Vec<Cause> {
        let Some(service) = self.project.services.get(service) else {
            return Vec::new();
        };
        let mut causes = Vec::new();
        for key in service.networks.keys() {
            let Some(network) = self.project.networks.get(key) else {
                continue;
            };
            let there = container.networks.get(&network.name);
            let known = self.existing.network(&network.name).map(|network| &network.id);
            if self.new_networks.contains(&network.name) || there.is_none() || there != known {
                causes.push(Cause::NetworkChanged {
                    network: network.name.clone(),
                });
            }
        }
        causes
    }

    fn volumes(&self, service: &str, container: &ExistingContainer) -> Vec<Cause> {
        let Some(service) = self.project.services.get(service) else {
            return Vec::new();
        };
        let mut causes = Vec::new();
        for volume in service.volumes.iter().filter(|volume| volume.r#type == "volume") {
            let key = volume.source.as_deref().unwrap_or_default();
            let Some(wanted) = self.project.volumes.get(key) else {
                continue;
            };
            let mounted = container
                .mounts
                .iter()
                .find(|mount| mount.target == volume.target);
            // A container whose mounts are not known says nothing.
            if !container.mounts.is_empty()
                && mounted.and_then(|mount| mount.volume.as_ref()) != Some(&wanted.name)
            {
                causes.push(Cause::VolumeChanged {
                    target: volume.target.clone(),
                    volume: wanted.name.clone(),
                });
            }
        }
        causes
    }
}

/// Services whose namespaces or volumes a service uses.
pub(super) fn shared_with(project: &Project, name: &str) -> BTreeSet<String> {
    let Some(service) = project.services.get(name) else {
        return BTreeSet::new();
    };
    let modes = [
        &service.network_mode,
        &service.ipc,
        &service.pid,
        &service.uts,
        &service.cgroup,
    ];
    let modes = modes
        .into_iter()
        .flatten()
        .filter_map(|mode| mode.strip_prefix("service:"));
    let volumes = service
        .volumes_from
        .iter()
        .filter(|source| !source.starts_with("container:"));
    let volumes = volumes.map(|source| source.split(':').next().unwrap_or(source));
    modes.chain(volumes).map(str::to_owned).collect()
}
