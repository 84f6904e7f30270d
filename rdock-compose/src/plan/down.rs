//! `down`: what a project has made goes away, dependents first.

use super::existing::{Existing, ExistingContainer};
use super::operation::{Cause, HookKind, Operation, ProviderAction};
use super::up::target;
use super::{Plan, order};
use crate::model::Project;
use crate::names::label;
use std::collections::{BTreeMap, BTreeSet};

/// Which images go too (`--rmi`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RemoveImages {
    /// None.
    #[default]
    Keep,
    /// Those whose name was not given (`local`).
    Local,
    /// Every one (`all`).
    All,
}

/// What `down` is told.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DownOptions {
    /// Only the containers of these services.
    pub services: Vec<String>,
    /// Named volumes of the project, and anonymous ones.
    pub volumes: bool,
    /// Images.
    pub images: RemoveImages,
    /// Containers of services that the files no longer have.
    pub remove_orphans: bool,
    /// Seconds that stopping may take.
    pub timeout: Option<u64>,
}

/// Services that still have containers, each with those that its containers' labels say it depends on.
pub(super) fn dependencies<'a>(containers: &[&'a ExistingContainer]) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for container in containers {
        let entry = needs.entry(container.service().unwrap_or_default()).or_default();
        entry.extend(container.dependencies());
    }
    needs
}

impl Plan {
    /// What `down` has to do for a project of which only the name need be known: containers say themselves what they
    /// depend on, and which images they have. With the project its hooks run, programs that provide
    /// services are asked to remove them, and external volumes are known.
    pub fn down(name: &str, project: Option<&Project>, existing: &Existing, options: &DownOptions) -> Self {
        let mut plan = Self::new(name);
        let known = |service: &str| {
            project.is_none_or(|project| {
                project.services.contains_key(service) || project.disabled_services.contains_key(service)
            })
        };
        let mut containers: Vec<&ExistingContainer> = Vec::new();
        for container in existing
            .containers
            .iter()
            .filter(|container| container.is_of(name))
        {
            let service = container.service().unwrap_or_default();
            if !options.services.is_empty() {
                if options.services.iter().any(|wanted| wanted == service) {
                    containers.push(container);
                }
            } else if known(service) || options.remove_orphans {
                containers.push(container);
            } else {
                plan.orphans.push(container.name.clone());
            }
        }
        let needs = dependencies(&containers);
        let mut removed: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for service in order::sorted(&needs).into_iter().rev() {
            // Those that need this one are gone before it stops.
            let dependents: Vec<usize> = needs
                .iter()
                .filter(|(_, needed)| needed.contains(&service))
                .flat_map(|(dependent, _)| removed.get(dependent).cloned().unwrap_or_default())
                .collect();
            let hooks = project
                .and_then(|project| project.services.get(service))
                .map_or(0, |service| service.pre_stop.len());
            let mut steps = Vec::new();
            for container in containers
                .iter()
                .filter(|container| container.service().unwrap_or_default() == service)
            {
                let cause = || {
                    vec![if known(service) {
                        Cause::Requested
                    } else {
                        Cause::Orphan
                    }]
                };
                let mut after = dependents.clone();
                if container.is_up() {
                    for index in (0..hooks).filter(|_| !container.is_one_off()) {
                        let hook = Operation::RunHook {
                            service: service.to_owned(),
                            container: container.name.clone(),
                            kind: HookKind::PreStop,
                            index,
                        };
                        after = vec![plan.add(hook, cause(), after)];
                    }
                    let stop = Operation::StopContainer {
                        container: target(service, container),
                        timeout: options.timeout,
                    };
                    after = vec![plan.add(stop, cause(), after)];
                }
                let remove = Operation::RemoveContainer {
                    container: target(service, container),
                    volumes: options.volumes,
                    force: true,
                };
                steps.push(plan.add(remove, cause(), after));
            }
            removed.insert(service, steps);
        }
        if let Some(project) = project {
            let done = removed
                .iter()
                .map(|(name, steps)| ((*name).to_owned(), steps.clone()));
            plan.providers_end(project, &options.services, ProviderAction::Down, &done.collect());
        }
        if !options.services.is_empty() {
            return plan;
        }
        let gone: Vec<usize> = removed.into_values().flatten().collect();
        let going: BTreeSet<&str> = containers.iter().map(|container| container.id.as_str()).collect();
        // Whoever made it: a container that stays keeps what it uses.
        let others = || {
            existing
                .containers
                .iter()
                .filter(|container| !going.contains(container.id.as_str()))
        };
        let ours = |labels: &BTreeMap<String, String>| {
            labels.get(label::PROJECT).is_some_and(|project| project == name)
        };
        for network in existing.networks.iter().filter(|network| ours(&network.labels)) {
            let user = others()
                .find(|container| container.is_up() && container.networks.contains_key(&network.name));
            if let Some(user) = user {
                plan.notes.push(format!(
                    "the network {:?} stays: the container {} uses it",
                    network.name, user.name
                ));
                continue;
            }
            let operation = Operation::RemoveNetwork {
                name: network.name.clone(),
                id: network.id.clone(),
            };
            plan.add(operation, vec![Cause::Requested], gone.iter().copied());
        }
        if options.volumes {
            let external: BTreeSet<&str> = project
                .into_iter()
                .flat_map(|project| project.volumes.values())
                .filter(|volume| volume.external)
                .map(|volume| volume.name.as_str())
                .collect();
            for volume in existing.volumes.iter().filter(|volume| ours(&volume.labels)) {
                if volume.labels.contains_key(label::VOLUME) && !external.contains(volume.name.as_str()) {
                    let uses = |container: &&ExistingContainer| {
                        let mut mounts = container.mounts.iter();
                        mounts.any(|mount| mount.volume.as_ref() == Some(&volume.name))
                    };
                    if let Some(user) = others().find(uses) {
                        plan.notes.push(format!(
                            "the volume {:?} stays: the container {} uses it",
                            volume.name, user.name
                        ));
                        continue;
                    }
                    let operation = Operation::RemoveVolume {
                        name: volume.name.clone(),
                    };
                    plan.add(operation, vec![Cause::Requested], gone.iter().copied());
                }
            }
        }
        if options.images != RemoveImages::Keep {
            let services = project
                .into_iter()
                .flat_map(|project| project.services.iter().chain(&project.disabled_services));
            let of_files = services
                .filter(|(_, service)| options.images == RemoveImages::All || service.image.is_none())
                .filter_map(|(name, _)| Some(project?.image_of(name)));
            let of_containers = containers
                .iter()
                .filter(|container| project.is_none() || !known(container.service().unwrap_or_default()))
                .filter_map(|container| Some((container.service()?, container.image()?)))
                .filter(|(service, image)| {
                    let local = ['-', '_'].map(|between| format!("{name}{between}{service}"));
                    options.images == RemoveImages::All || local.contains(image)
                })
                .map(|(_, image)| image);
            let images: BTreeSet<String> = of_files.chain(of_containers).collect();
            for image in images {
                if existing.images.contains_key(&image) {
                    plan.add(
                        Operation::RemoveImage { image },
                        vec![Cause::Requested],
                        gone.iter().copied(),
                    );
                }
            }
        }
        plan
    }
}
