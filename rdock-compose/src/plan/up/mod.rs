//! `up`, `create`, `scale`: what is wanted is made, what is as it should be stays.

mod service;
mod wait;

use super::existing::{Existing, ExistingContainer, ExistingVolume};
use super::operation::{Cause, HookKind, Operation, Target};
use super::{Plan, PlanError, order};
use crate::hash::{network_hash, volume_hash};
use crate::model::{Condition, Dependencies, Project};
use crate::names::label;
use std::collections::{BTreeMap, BTreeSet};

/// Which containers are made anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recreate {
    /// Those that are not what their service wants.
    #[default]
    Diverged,
    /// All of the services that were named (`--force-recreate`).
    Force,
    /// None (`--no-recreate`).
    Never,
}

/// When images are built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Build {
    /// When they are not here.
    #[default]
    Missing,
    /// Always (`--build`).
    Always,
    /// Never (`--no-build`).
    Never,
}

/// When images are pulled, whatever services say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// Always.
    Always,
    /// When they are not here.
    Missing,
    /// Never.
    Never,
}

/// What `up` is told. The default starts everything and changes only what has changed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UpOptions {
    /// The services; all if empty.
    pub services: Vec<String>,
    /// Whether what they need comes along (`--no-deps` leaves it).
    pub dependencies: Dependencies,
    /// Which containers are made anew.
    pub recreate: Recreate,
    /// The same for services that others need (`--always-recreate-deps` is [`Recreate::Force`]).
    pub recreate_dependencies: Recreate,
    /// How many containers of a service.
    pub scale: BTreeMap<String, u32>,
    /// Containers of services that the files no longer have are removed.
    pub remove_orphans: bool,
    /// Anonymous volumes are new ones (`-V`).
    pub renew_anonymous_volumes: bool,
    /// Containers are started, not only made.
    pub start: bool,
    /// Networks and volumes that no service uses are made too (`--all-resources`).
    pub all_resources: bool,
    /// Volumes, by their names, that are made anew if they were made from another configuration. What is in them is
    /// lost, and so are the project's containers that use them. [`Plan::changed_volumes`] says which those could be.
    pub renew_volumes: BTreeSet<String>,
    /// Ends when everything runs or is healthy (`--wait`).
    pub wait: bool,
    /// When images are built.
    pub build: Build,
    /// When images are pulled.
    pub pull: Option<Pull>,
    /// Seconds that stopping may take.
    pub timeout: Option<u64>,
}

impl Default for UpOptions {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            dependencies: Dependencies::Include,
            recreate: Recreate::Diverged,
            recreate_dependencies: Recreate::Diverged,
            scale: BTreeMap::new(),
            remove_orphans: false,
            renew_anonymous_volumes: false,
            start: true,
            all_resources: false,
            renew_volumes: BTreeSet::new(),
            wait: false,
            build: Build::Missing,
            pull: None,
            timeout: None,
        }
    }
}

impl Plan {
    /// The names of volumes that `up` would use although they were made from another configuration.
    ///
    /// # Errors
    /// [`PlanError::Select`].
    pub fn changed_volumes(
        project: &Project,
        existing: &Existing,
        options: &UpOptions,
    ) -> Result<Vec<String>, PlanError> {
        let selected = project.select(&options.services, options.dependencies)?;
        let used = used_volumes(&selected, options);
        let changed = selected.volumes.iter().filter(|(key, volume)| {
            let there = existing.volume(&volume.name);
            !volume.external
                && used.contains(key)
                && there.is_some_and(|there| has_changed(&selected, key, there))
        });
        Ok(changed.map(|(_, volume)| volume.name.clone()).collect())
    }

    /// What `up` has to do. The images are here: [`Plan::images`] comes first.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn up(project: &Project, existing: &Existing, options: &UpOptions) -> Result<Self, PlanError> {
        let renewed = match options.renew_volumes.is_empty() {
            true => BTreeSet::new(),
            false => Self::changed_volumes(project, existing, options)?
                .into_iter()
                .filter(|name| options.renew_volumes.contains(name))
                .collect(),
        };
        let selected = project.select(&options.services, options.dependencies)?;
        let mut plan = Self::new(&selected.name);
        let (mut existing, renamed) = finish_renames(&mut plan, &selected, existing);
        // They go first, and are made like any that are not there.
        let users: Vec<ExistingContainer> = existing
            .containers
            .extract_if(.., |container| {
                let mut volumes = container.mounts.iter().filter_map(|mount| mount.volume.as_ref());
                container.is_of(&selected.name) && volumes.any(|name| renewed.contains(name))
            })
            .collect();
        let mut up = Up {
            project: &selected,
            existing: &existing,
            options,
            plan,
            renamed,
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            new_networks: BTreeSet::new(),
            replaced: BTreeSet::new(),
            ready: BTreeMap::new(),
            created: BTreeMap::new(),
            stopped: BTreeMap::new(),
            renewed,
            cleared: BTreeMap::new(),
            waits: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        up.networks()?;
        for container in &users {
            let service = container.service().unwrap_or_default().to_owned();
            let step = up.remove(&service, container, vec![Cause::Requested], Vec::new(), false);
            up.cleared.entry(service).or_default().push(step);
        }
        up.volumes()?;
        up.orphans();
        for service in order::services(&selected) {
            up.service(service)?;
        }
        if options.wait && options.start {
            for service in order::services(&selected) {
                up.wait_at_the_end(service);
            }
        }
        Ok(up.plan)
    }
}

pub(super) struct Up<'a> {
    pub(super) project: &'a Project,
    pub(super) existing: &'a Existing,
    pub(super) options: &'a UpOptions,
    pub(super) plan: Plan,
    /// Steps that make networks and volumes, by key.
    networks: BTreeMap<String, usize>,
    volumes: BTreeMap<String, usize>,
    new_networks: BTreeSet<String>,
    /// Services whose containers are made anew.
    replaced: BTreeSet<String>,
    /// Steps after which a service's containers run.
    ready: BTreeMap<String, Vec<usize>>,
    /// Steps after which a service's containers are there.
    created: BTreeMap<String, Vec<usize>>,
    /// Steps that give containers their final names, by their ids.
    renamed: BTreeMap<String, usize>,
    /// Containers that run, and that steps stop so that they start again.
    stopped: BTreeMap<String, (usize, Cause)>,
    /// Volumes that are made anew, by name.
    renewed: BTreeSet<String>,
    /// Steps that remove a service's containers so that their volumes can be made anew.
    cleared: BTreeMap<String, Vec<usize>>,
    /// Steps that wait for a service.
    waits: BTreeMap<(String, Condition), usize>,
    /// The containers of a service as they will be: name, and whether a step starts it.
    names: BTreeMap<String, Vec<(String, bool)>>,
}

/// The keys of volumes that have to be there.
fn used_volumes<'a>(project: &'a Project, options: &UpOptions) -> BTreeSet<&'a String> {
    if options.all_resources {
        return project.volumes.keys().collect();
    }
    let mounts = project.services.values().flat_map(|service| &service.volumes);
    mounts
        .filter(|mount| mount.r#type == "volume")
        .filter_map(|mount| mount.source.as_ref())
        .collect()
}

/// Whether a volume of this project was made from another configuration.
fn has_changed(project: &Project, key: &str, volume: &ExistingVolume) -> bool {
    let hash = volume.labels.get(label::CONFIG_HASH);
    volume.labels.get(label::PROJECT) == Some(&project.name)
        && hash.is_some_and(|hash| *hash != volume_hash(project, key))
}

/// A container that was made to take another's place and has not got its name.
fn is_left_over(container: &ExistingContainer) -> bool {
    container
        .labels
        .get(label::REPLACE)
        .is_some_and(|name| *name != container.name)
}

/// An interrupted replacement whose old container is gone already only lacks the last step.
fn finish_renames(
    plan: &mut Plan,
    project: &Project,
    existing: &Existing,
) -> (Existing, BTreeMap<String, usize>) {
    let mut finished = existing.clone();
    let mut steps = BTreeMap::new();
    let mut names: BTreeSet<String> = existing
        .containers
        .iter()
        .map(|container| container.name.clone())
        .collect();
    for container in &mut finished.containers {
        if !container.is_of(&project.name) || !is_left_over(container) {
            continue;
        }
        let Some(to) = container.labels.get(label::REPLACE).cloned() else {
            continue;
        };
        if names.insert(to.clone()) {
            let from = std::mem::replace(&mut container.name, to.clone());
            let step = plan.add(Operation::RenameContainer { from, to }, vec![Cause::LeftOver], []);
            steps.insert(container.id.clone(), step);
        }
    }
    (finished, steps)
}

/// A container as a step's target.
pub(super) fn target(service: &str, container: &ExistingContainer) -> Target {
    Target {
        service: service.to_owned(),
        name: container.name.clone(),
        id: Some(container.id.clone()),
    }
}

impl Up<'_> {
    fn is_ours(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(label::PROJECT) == Some(&self.project.name)
    }

    /// Networks that active services use.
    pub(super) fn networks(&mut self) -> Result<(), PlanError> {
        let used: BTreeSet<&String> = match self.options.all_resources {
            true => self.project.networks.keys().collect(),
            false => {
                let services = self.project.services.values();
                services.flat_map(|service| service.networks.keys()).collect()
            }
        };
        for (key, network) in self.project.networks.iter().filter(|(key, _)| used.contains(key)) {
            let name = network.name.clone();
            let there = self.existing.network(&name);
            if network.external {
                if there.is_none() {
                    return Err(PlanError::NoExternalNetwork { name });
                }
                continue;
            }
            let mut after = Vec::new();
            let mut causes = vec![Cause::Missing];
            if let Some(there) = there {
                if !self.is_ours(&there.labels) {
                    let project = self.project.name.clone();
                    return Err(PlanError::NotOurs {
                        kind: "network",
                        name,
                        project,
                    });
                }
                let hash = there.labels.get(label::CONFIG_HASH);
                if hash.is_none_or(|hash| *hash == network_hash(self.project, key)) {
                    continue;
                }
                causes = vec![Cause::HashChanged];
                after = self.leave_network(&name, &causes);
                let id = there.id.clone();
                let removed = self.plan.add(
                    Operation::RemoveNetwork {
                        name: name.clone(),
                        id,
                    },
                    causes.clone(),
                    after,
                );
                after = vec![removed];
            }
            self.new_networks.insert(name.clone());
            let key = key.clone();
            let step = self.plan.add(
                Operation::CreateNetwork {
                    key: key.clone(),
                    name,
                },
                causes,
                after,
            );
            self.networks.insert(key, step);
        }
        Ok(())
    }

    /// A network can only be removed when nothing is in it: its containers, which will be made anew, stop.
    fn leave_network(&mut self, name: &str, causes: &[Cause]) -> Vec<usize> {
        let inside: Vec<&ExistingContainer> = self
            .existing
            .containers
            .iter()
            .filter(|container| {
                container.is_up()
                    && container.is_of(&self.project.name)
                    && container.networks.contains_key(name)
            })
            .collect();
        let mut steps = Vec::new();
        for container in inside {
            let service = container.service().unwrap_or_default().to_owned();
            let step = self.stop(&service, container, causes.to_vec(), Vec::new());
            self.stopped.insert(
                container.id.clone(),
                (
                    step,
                    Cause::NetworkChanged {
                        network: name.to_owned(),
                    },
                ),
            );
            steps.push(step);
        }
        steps
    }

    /// Volumes that active services use.
    pub(super) fn volumes(&mut self) -> Result<(), PlanError> {
        let used = used_volumes(self.project, self.options);
        for (key, volume) in self.project.volumes.iter().filter(|(key, _)| used.contains(key)) {
            let name = volume.name.clone();
            match self.existing.volume(&name) {
                None if volume.external => return Err(PlanError::NoExternalVolume { name }),
                None => {
                    let operation = Operation::CreateVolume {
                        key: key.clone(),
                        name,
                    };
                    let step = self.plan.add(operation, vec![Cause::Missing], []);
                    self.volumes.insert(key.clone(), step);
                }
                Some(_) if volume.external => {}
                Some(there) if !self.is_ours(&there.labels) => {
                    let project = self.project.name.clone();
                    return Err(PlanError::NotOurs {
                        kind: "volume",
                        name,
                        project,
                    });
                }
                Some(_) if self.renewed.contains(&name) => {
                    let users: Vec<usize> = self.cleared.values().flatten().copied().collect();
                    let remove = Operation::RemoveVolume { name: name.clone() };
                    let removed = self.plan.add(remove, vec![Cause::HashChanged], users);
                    let key = key.clone();
                    let create = Operation::CreateVolume {
                        key: key.clone(),
                        name,
                    };
                    let step = self.plan.add(create, vec![Cause::HashChanged], [removed]);
                    self.volumes.insert(key, step);
                }
                Some(there) => {
                    if has_changed(self.project, key, there) {
                        // Its data would be lost.
                        self.plan.notes.push(format!(
                            "the volume {name:?} was made from another configuration and is used as it is; remove it to have it made anew"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Containers whose service the files no longer have, and those that an interrupted replacement left.
    fn orphans(&mut self) {
        let project = self.project;
        for container in &self.existing.containers {
            let Some(service) = container.service().filter(|_| container.is_of(&project.name)) else {
                continue;
            };
            if container.is_one_off()
                || project.services.contains_key(service)
                || project.disabled_services.contains_key(service)
            {
                continue;
            }
            if self.options.remove_orphans {
                let service = service.to_owned();
                self.remove(&service, container, vec![Cause::Orphan], Vec::new(), false);
            } else {
                self.plan.orphans.push(container.name.clone());
            }
        }
    }

    /// Hooks, then the stop.
    fn stop(
        &mut self,
        service: &str,
        container: &ExistingContainer,
        causes: Vec<Cause>,
        mut after: Vec<usize>,
    ) -> usize {
        let hooks = self
            .project
            .services
            .get(service)
            .map_or(0, |service| service.pre_stop.len());
        for index in 0..hooks {
            let operation = Operation::RunHook {
                service: service.to_owned(),
                container: container.name.clone(),
                kind: HookKind::PreStop,
                index,
            };
            after = vec![self.plan.add(operation, causes.clone(), after)];
        }
        let operation = Operation::StopContainer {
            container: target(service, container),
            timeout: self.options.timeout,
        };
        self.plan.add(operation, causes, after)
    }

    /// Stops it if it runs, then removes it.
    fn remove(
        &mut self,
        service: &str,
        container: &ExistingContainer,
        causes: Vec<Cause>,
        mut after: Vec<usize>,
        volumes: bool,
    ) -> usize {
        after.extend(self.renamed.get(&container.id));
        if let Some((step, _)) = self.stopped.get(&container.id) {
            after.push(*step);
        } else if container.is_up() {
            after = vec![self.stop(service, container, causes.clone(), after)];
        }
        let operation = Operation::RemoveContainer {
            container: target(service, container),
            volumes,
            force: true,
        };
        self.plan.add(operation, causes, after)
    }
}
