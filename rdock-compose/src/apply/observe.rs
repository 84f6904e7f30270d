//! What exists, as the plan wants to see it.

use super::ApplyError;
use crate::model::Project;
use crate::plan::{
    ContainerState, Existing, ExistingContainer, ExistingImage, ExistingMount, ExistingNetwork,
    ExistingVolume, Health,
};
use rdock_runtime::image::Reference;
use rdock_runtime::{Container, ContainerInfo, Error, HealthStatus, Runtime, Status};
use std::collections::{BTreeMap, BTreeSet};

/// What there is of the project, and what has the names that it needs. Blocking.
pub(super) fn existing(runtime: &Runtime, project: &Project) -> Result<Existing, ApplyError> {
    let networks: Vec<ExistingNetwork> = runtime
        .networks()
        .list()
        .map_err(Error::from)?
        .into_iter()
        .map(|network| ExistingNetwork {
            id: network.id,
            name: network.name,
            labels: network.labels,
        })
        .collect();
    let volumes = runtime.volumes().list().map_err(Error::from)?;
    let anonymous: BTreeSet<String> = volumes
        .iter()
        .filter(|volume| volume.anonymous)
        .map(|volume| volume.name.clone())
        .collect();
    let ids: BTreeMap<&str, &str> = networks
        .iter()
        .map(|network| (network.name.as_str(), network.id.as_str()))
        .collect();
    let mut containers = Vec::new();
    for container in runtime.containers()? {
        match look(&container) {
            Ok(info) => containers.push(existing_container(info, &ids, &anonymous)),
            // Removed since it was listed.
            Err(Error::NoSuchContainer { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut images = BTreeMap::new();
    let known = |service: &str| {
        project.services.contains_key(service) || project.disabled_services.contains_key(service)
    };
    let others = containers
        .iter()
        .filter(|container| container.is_of(&project.name))
        .filter(|container| !container.service().is_some_and(known))
        .filter_map(ExistingContainer::image);
    let services = project.services.keys().chain(project.disabled_services.keys());
    for reference in services.map(|name| project.image_of(name)).chain(others) {
        if !images.contains_key(&reference)
            && let Some(image) = runtime.images().get(&reference).map_err(Error::from)?
        {
            let id = image.id().to_string();
            let config = image.config();
            let variant = config
                .variant
                .as_ref()
                .map_or(String::new(), |variant| format!("/{variant}"));
            let platform = Some(format!("{}/{}{variant}", config.os, config.architecture));
            let tagged = match Reference::parse(&reference) {
                Ok(name) => runtime.images().tagged(&name).map_err(Error::from)?,
                Err(_) => None,
            };
            let found = ExistingImage {
                id,
                // A clock that was set back makes it new.
                age: tagged.map(|time| time.elapsed().unwrap_or_default().as_secs()),
                platform,
            };
            images.insert(reference, found);
        }
    }
    Ok(Existing {
        containers,
        networks,
        volumes: volumes
            .into_iter()
            .map(|volume| ExistingVolume {
                name: volume.name,
                labels: volume.labels,
            })
            .collect(),
        images,
    })
}

/// What is known of a container that may go away meanwhile.
fn look(container: &Container) -> Result<ContainerInfo, Error> {
    container.inspect().map_err(|error| match error {
        Error::State { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::NoSuchContainer {
                name: container.name().to_owned(),
            }
        }
        other => other,
    })
}

fn existing_container(
    info: ContainerInfo,
    networks: &BTreeMap<&str, &str>,
    anonymous: &BTreeSet<String>,
) -> ExistingContainer {
    let id_of = |network: &str| {
        let id = networks.get(network).copied().unwrap_or_default();
        (network.to_owned(), id.to_owned())
    };
    // While it runs it is where it was connected to since; else where it will be.
    let places = match info.networks.is_empty() {
        false => info.networks.iter().map(|place| id_of(&place.network)).collect(),
        true => info
            .spec
            .networks
            .iter()
            .map(|place| id_of(&place.network))
            .collect(),
    };
    ExistingContainer {
        id: info.id,
        name: info.name,
        labels: info.spec.labels,
        state: match &info.status {
            Status::Created => ContainerState::Created,
            Status::Running | Status::Paused if info.stopping => ContainerState::Stopping,
            Status::Running => ContainerState::Running,
            Status::Paused => ContainerState::Paused,
            Status::Restarting(_) => ContainerState::Restarting,
            Status::Exited(exit) => ContainerState::Exited(exit.code()),
            _ => ContainerState::Dead,
        },
        health: info.health.map(|health| match health.status {
            HealthStatus::Healthy => Health::Healthy,
            HealthStatus::Unhealthy => Health::Unhealthy,
            _ => Health::Starting,
        }),
        networks: places,
        mounts: info
            .mounts
            .into_iter()
            .filter(|mount| mount.kind == "volume")
            .map(|mount| ExistingMount {
                target: mount.target,
                anonymous: mount.name.as_ref().is_some_and(|name| anonymous.contains(name)),
                volume: mount.name,
            })
            .collect(),
    }
}
