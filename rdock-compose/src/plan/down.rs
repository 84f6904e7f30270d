//! `down`: what a project has made goes away, dependents first.

use super::existing::{Existing, ExistingContainer};
use super::operation::{Cause, HookKind, Operation};
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
    /// depend on. With the project its hooks run, and its volumes and images are known.
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
        if !options.services.is_empty() {
            return plan;
        }
        let gone: Vec<usize> = removed.into_values().flatten().collect();
        let ours = |labels: &BTreeMap<String, String>| {
            labels.get(label::PROJECT).is_some_and(|project| project == name)
        };
        for network in existing.networks.iter().filter(|network| ours(&network.labels)) {
            // A container that stays keeps its network.
            let used = plan.orphans.iter().any(|orphan| {
                let orphan = existing
                    .containers
                    .iter()
                    .find(|container| container.name == *orphan);
                orphan.is_some_and(|container| {
                    container.is_up() && container.networks.contains_key(&network.name)
                })
            });
            if used {
                plan.notes.push(format!(
                    "the network {:?} stays, containers of other services use it",
                    network.name
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
                    let operation = Operation::RemoveVolume {
                        name: volume.name.clone(),
                    };
                    plan.add(operation, vec![Cause::Requested], gone.iter().copied());
                }
            }
        }
        if let Some(project) = project.filter(|_| options.images != RemoveImages::Keep) {
            let services = project.services.iter().chain(&project.disabled_services);
            let images: BTreeSet<String> = services
                .filter(|(_, service)| options.images == RemoveImages::All || service.image.is_none())
                .map(|(name, _)| project.image_of(name))
                .filter(|image| existing.images.contains_key(image))
                .collect();
            for image in images {
                plan.add(
                    Operation::RemoveImage { image },
                    vec![Cause::Requested],
                    gone.iter().copied(),
                );
            }
        }
        plan
    }
}
