//! What exists, changed by operations as an engine would.

use rdock_compose::plan::{
    ContainerState, Existing, ExistingContainer, ExistingImage, ExistingMount, ExistingNetwork,
    ExistingVolume, Health, Operation, WaitCondition,
};
use rdock_compose::{Plan, Project, container_labels, network_labels, volume_labels};
use std::collections::BTreeSet;

/// An engine that does at once what it is told.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) existing: Existing,
    ids: u32,
}

impl World {
    pub(crate) fn apply(&mut self, project: &Project, plan: &Plan) {
        self.apply_until(project, plan, plan.steps.len());
    }

    /// Only so many steps.
    pub(crate) fn apply_until(&mut self, project: &Project, plan: &Plan, steps: usize) {
        plan.operations()
            .take(steps)
            .for_each(|operation| self.step(project, operation));
    }

    /// As steps may be done at the same time, any order is possible that the edges allow: here the latest possible
    /// first.
    pub(crate) fn apply_latest_first(&mut self, project: &Project, plan: &Plan) {
        let mut left: Vec<usize> = (0..plan.steps.len()).collect();
        let mut done = BTreeSet::new();
        while !left.is_empty() {
            let ready = |id: &usize| plan.steps[*id].after.is_subset(&done);
            let at = left
                .iter()
                .rposition(ready)
                .unwrap_or_else(|| panic!("no way through\n{plan}"));
            let id = left.remove(at);
            self.step(project, &plan.steps[id].operation);
            done.insert(id);
        }
    }

    pub(crate) fn container(&mut self, name: &str) -> &mut ExistingContainer {
        let found = self
            .existing
            .containers
            .iter_mut()
            .find(|container| container.name == name);
        found.unwrap_or_else(|| panic!("no container {name}"))
    }

    fn id(&mut self) -> String {
        self.ids += 1;
        format!("{:012}", self.ids)
    }

    pub(crate) fn step(&mut self, project: &Project, operation: &Operation) {
        match operation {
            Operation::CreateNetwork { key, name } => {
                assert!(self.existing.network(name).is_none(), "{name} is there");
                let (id, labels) = (self.id(), network_labels(project, key));
                self.existing.networks.push(ExistingNetwork {
                    id,
                    name: name.clone(),
                    labels,
                });
            }
            Operation::RemoveNetwork { name, .. } => {
                let inside = self
                    .existing
                    .containers
                    .iter()
                    .find(|other| other.is_up() && other.networks.contains_key(name));
                assert!(inside.is_none(), "{name} is used by {inside:?}");
                self.existing.networks.retain(|network| network.name != *name);
            }
            Operation::CreateVolume { key, name } => {
                let labels = volume_labels(project, key);
                self.existing.volumes.push(ExistingVolume {
                    name: name.clone(),
                    labels,
                });
            }
            Operation::RemoveVolume { name } => self.existing.volumes.retain(|volume| volume.name != *name),
            Operation::RemoveImage { image } => {
                self.existing.images.remove(image);
            }
            Operation::CreateContainer {
                service,
                number,
                name,
                replaces,
                one_off,
                inherits,
            } => {
                self.create(
                    project,
                    service,
                    *number,
                    name,
                    replaces.as_deref(),
                    one_off.as_ref().map(|one_off| one_off.slug.as_str()),
                    inherits,
                );
            }
            Operation::RenameContainer { from, to } => {
                assert!(
                    self.existing
                        .containers
                        .iter()
                        .all(|container| container.name != *to),
                    "{to} is taken"
                );
                self.container(from).name.clone_from(to);
            }
            Operation::StartContainer { container } | Operation::UnpauseContainer { container } => {
                self.start(project, &container.name)
            }
            Operation::StopContainer { container, .. } | Operation::KillContainer { container, .. } => {
                self.container(&container.name).state = ContainerState::Exited(0);
            }
            Operation::RemoveContainer { container, .. } => {
                assert!(
                    !self.container(&container.name).is_up(),
                    "{} runs",
                    container.name
                );
                self.existing
                    .containers
                    .retain(|other| other.name != container.name);
            }
            Operation::Wait {
                containers,
                condition,
                ..
            } => {
                for name in containers {
                    let container = self.container(name);
                    match condition {
                        WaitCondition::Healthy => {
                            assert!(container.is_up(), "{name} does not run");
                            container.health = Some(Health::Healthy);
                        }
                        WaitCondition::Completed => container.state = ContainerState::Exited(0),
                        WaitCondition::RunningOrHealthy => assert!(container.is_up()),
                    }
                }
            }
            _ => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the operation")]
    fn create(
        &mut self,
        project: &Project,
        service: &str,
        number: u32,
        name: &str,
        replaces: Option<&str>,
        slug: Option<&str>,
        inherits: &[ExistingMount],
    ) {
        assert!(
            self.existing
                .containers
                .iter()
                .all(|container| container.name != name),
            "{name} is taken"
        );
        let image = project.image_of(service);
        let id = self
            .existing
            .images
            .entry(image.clone())
            .or_insert_with(|| ExistingImage {
                id: format!("sha256:{image}"),
                age: None,
                platform: None,
            });
        let image = id.id.clone();
        let old = replaces.and_then(|id| {
            self.existing
                .containers
                .iter()
                .find(|container| container.id == id)
        });
        let old = old.map(|_| rdock_compose::container_name(project, service, number));
        let labels = container_labels(project, service, number, Some(&image), slug, old.as_deref());
        let wanted = project.any_service(service).expect("a service");
        let mounts = wanted.volumes.iter().map(|volume| {
            let key = volume.source.clone().unwrap_or_default();
            let kept = inherits.iter().find(|mount| mount.target == volume.target);
            ExistingMount {
                target: volume.target.clone(),
                volume: project
                    .volumes
                    .get(&key)
                    .map(|volume| volume.name.clone())
                    .or_else(|| kept.and_then(|mount| mount.volume.clone())),
                anonymous: key.is_empty(),
            }
        });
        let networks = wanted.networks.keys().map(|key| {
            let name = &project.networks[key].name;
            let network = self
                .existing
                .network(name)
                .unwrap_or_else(|| panic!("no network {name}"));
            (name.clone(), network.id.clone())
        });
        let container = ExistingContainer {
            name: name.to_owned(),
            labels,
            networks: networks.collect(),
            mounts: mounts.collect(),
            ..ExistingContainer::default()
        };
        let id = self.id();
        self.existing
            .containers
            .push(ExistingContainer { id, ..container });
    }

    fn start(&mut self, project: &Project, name: &str) {
        let container = self.container(name);
        let service = container.service().unwrap_or_default().to_owned();
        container.state = ContainerState::Running;
        container.health = project
            .any_service(&service)
            .expect("a service")
            .healthcheck
            .as_ref()
            .map(|_| Health::Starting);
        // In an engine its networks are looked up again when it starts.
        let networks: Vec<String> = self.container(name).networks.keys().cloned().collect();
        for network in networks {
            let id = self
                .existing
                .network(&network)
                .unwrap_or_else(|| panic!("no network {network}"))
                .id
                .clone();
            self.container(name).networks.insert(network, id);
        }
    }
}
