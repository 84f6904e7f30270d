//! Verbs for containers that are there: start, stop, restart, kill, pause, unpause, rm.

use super::down::dependencies;
use super::existing::{ContainerState, Existing, ExistingContainer};
use super::operation::{Cause, HookKind, Operation, ProviderAction, WaitCondition};
use super::up::target;
use super::{Plan, PlanError, order};
use crate::model::{Condition, Project};
use std::collections::BTreeMap;

/// Which way dependencies are gone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// A service after those it needs.
    NeedsFirst,
    /// A service after those that need it.
    DependentsFirst,
    /// All at once.
    Together,
}

/// The containers of a verb, without those of `run` unless they are asked for.
fn chosen<'a>(
    name: &str,
    existing: &'a Existing,
    services: &[String],
    one_offs: bool,
) -> Vec<&'a ExistingContainer> {
    let mut found: Vec<&ExistingContainer> = existing
        .containers
        .iter()
        .filter(|container| container.is_of(name) && (one_offs || !container.is_one_off()))
        .filter(|container| {
            services.is_empty() || services.iter().any(|wanted| container.service() == Some(wanted))
        })
        .collect();
    found.sort_by_key(|container| (container.number(), container.name.clone()));
    found
}

impl Plan {
    /// A step for each container that `operation` has one for, in the order of dependencies.
    fn each(
        &mut self,
        containers: &[&ExistingContainer],
        direction: Direction,
        mut operations: impl FnMut(&ExistingContainer) -> Vec<Operation>,
    ) -> BTreeMap<String, Vec<usize>> {
        let needs = dependencies(containers);
        let mut services = order::sorted(&needs);
        if direction == Direction::DependentsFirst {
            services.reverse();
        }
        let mut done: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for service in services {
            let before: Vec<&str> = match direction {
                Direction::NeedsFirst => needs.get(service).cloned().unwrap_or_default(),
                Direction::DependentsFirst => needs
                    .iter()
                    .filter(|(_, needed)| needed.contains(&service))
                    .map(|(name, _)| *name)
                    .collect(),
                Direction::Together => Vec::new(),
            };
            let before: Vec<usize> = before
                .iter()
                .filter_map(|name| done.get(*name))
                .flatten()
                .copied()
                .collect();
            for container in containers
                .iter()
                .filter(|container| container.service().unwrap_or_default() == service)
            {
                let mut after = before.clone();
                let mut last = None;
                for operation in operations(container) {
                    let step = self.add(operation, vec![Cause::Requested], after);
                    after = vec![step];
                    last = Some(step);
                }
                done.entry(service.to_owned()).or_default().extend(last);
            }
        }
        done
    }

    /// `start`: containers that are there and do not run, after those they need; one that is being stopped starts when
    /// it has ended.
    ///
    /// # Errors
    /// [`PlanError::NoContainer`] for a service that should have containers and has none.
    pub fn start(
        project: &Project,
        existing: &Existing,
        services: &[String],
        wait: bool,
    ) -> Result<Self, PlanError> {
        let wanted = project.services.iter().filter(|(name, service)| {
            let named = services.is_empty() || services.contains(name);
            named && service.provider.is_none() && service.replicas() > 0
        });
        let wanted = wanted.map(|(name, _)| name).chain(services);
        for service in wanted {
            if existing.of_service(&project.name, service).is_empty() {
                return Err(PlanError::NoContainer(service.clone()));
            }
        }
        let containers = chosen(&project.name, existing, services, false);
        let mut plan = Self::new(&project.name);
        let started = plan.each(&containers, Direction::NeedsFirst, |container| {
            let service = container.service().unwrap_or_default();
            let mut operations = Vec::new();
            match container.state {
                // Whoever stops it may be gone: it starts again once it has ended.
                ContainerState::Stopping => operations.push(Operation::StopContainer {
                    container: target(service, container),
                    timeout: None,
                }),
                _ if container.is_up() => return operations,
                _ => {}
            }
            // What it needs in a state of its own is waited for first.
            let needs = project
                .services
                .get(service)
                .map(|service| service.depends_on.iter())
                .into_iter()
                .flatten();
            for (other, need) in needs {
                let others = existing.of_service(&project.name, other);
                if let Some(condition) = WaitCondition::of(need.condition)
                    && !others.is_empty()
                    && !(need.condition == Condition::Completed
                        && others
                            .iter()
                            .all(|other| other.state == ContainerState::Exited(0)))
                {
                    operations.push(Operation::Wait {
                        service: other.clone(),
                        containers: others.iter().map(|other| other.name.clone()).collect(),
                        condition,
                        optional: !need.required,
                    });
                }
            }
            operations.push(Operation::StartContainer {
                container: target(service, container),
            });
            let hooks = project
                .services
                .get(service)
                .map_or(0, |service| service.post_start.len());
            operations.extend((0..hooks).map(|index| Operation::RunHook {
                service: service.to_owned(),
                container: container.name.clone(),
                kind: HookKind::PostStart,
                index,
            }));
            operations
        });
        for (service, steps) in started.into_iter().filter(|_| wait) {
            let names = containers
                .iter()
                .filter(|container| container.service() == Some(&service));
            let operation = Operation::Wait {
                containers: names.map(|container| container.name.clone()).collect(),
                service,
                condition: WaitCondition::RunningOrHealthy,
                optional: false,
            };
            plan.add(operation, vec![Cause::Requested], steps);
        }
        Ok(plan)
    }

    /// `stop`: containers that run, before those they need; then what programs provide.
    pub fn stop(
        name: &str,
        project: Option<&Project>,
        existing: &Existing,
        services: &[String],
        timeout: Option<u64>,
    ) -> Self {
        let containers = chosen(name, existing, services, false);
        let mut plan = Self::new(name);
        let done = plan.each(&containers, Direction::DependentsFirst, |container| {
            if !container.is_up() {
                return Vec::new();
            }
            let service = container.service().unwrap_or_default();
            let hooks = project
                .and_then(|project| project.services.get(service))
                .map_or(0, |service| service.pre_stop.len());
            let hooks = (0..hooks).map(|index| Operation::RunHook {
                service: service.to_owned(),
                container: container.name.clone(),
                kind: HookKind::PreStop,
                index,
            });
            let stop = Operation::StopContainer {
                container: target(service, container),
                timeout,
            };
            hooks.chain([stop]).collect()
        });
        if let Some(project) = project {
            plan.providers_end(project, services, ProviderAction::Stop, &done);
        }
        plan
    }

    /// `restart`: containers, after those they need; with them those that ask to restart with them, unless `alone`.
    pub fn restart(
        project: &Project,
        existing: &Existing,
        services: &[String],
        alone: bool,
        timeout: Option<u64>,
    ) -> Self {
        let mut wanted = services.to_vec();
        while !alone && !wanted.is_empty() {
            let more: Vec<String> = project
                .services
                .iter()
                .filter(|(name, service)| {
                    let with = |need: &String| service.depends_on.get(need).is_some_and(|need| need.restart);
                    !wanted.contains(name)
                        && wanted.iter().any(with)
                        && !existing.of_service(&project.name, name).is_empty()
                })
                .map(|(name, _)| name.clone())
                .collect();
            if more.is_empty() {
                break;
            }
            wanted.extend(more);
        }
        let containers = chosen(&project.name, existing, &wanted, false);
        let mut plan = Self::new(&project.name);
        plan.each(&containers, Direction::NeedsFirst, |container| {
            let container = target(container.service().unwrap_or_default(), container);
            vec![Operation::RestartContainer { container, timeout }]
        });
        plan
    }

    /// `kill`: a signal to containers that run.
    pub fn kill(name: &str, existing: &Existing, services: &[String], signal: &str) -> Self {
        let containers = chosen(name, existing, services, true);
        let mut plan = Self::new(name);
        plan.each(&containers, Direction::Together, |container| {
            let target = target(container.service().unwrap_or_default(), container);
            let kill = Operation::KillContainer {
                container: target,
                signal: signal.to_owned(),
            };
            if container.is_up() { vec![kill] } else { Vec::new() }
        });
        plan
    }

    /// `pause`: containers that run stand still, before those they need.
    pub fn pause(name: &str, existing: &Existing, services: &[String]) -> Self {
        let containers = chosen(name, existing, services, false);
        let mut plan = Self::new(name);
        plan.each(&containers, Direction::DependentsFirst, |container| {
            let target = target(container.service().unwrap_or_default(), container);
            match container.state {
                ContainerState::Running => vec![Operation::PauseContainer { container: target }],
                _ => Vec::new(),
            }
        });
        plan
    }

    /// `unpause`: containers go on, after those they need.
    pub fn unpause(name: &str, existing: &Existing, services: &[String]) -> Self {
        let containers = chosen(name, existing, services, false);
        let mut plan = Self::new(name);
        plan.each(&containers, Direction::NeedsFirst, |container| {
            let target = target(container.service().unwrap_or_default(), container);
            match container.state {
                ContainerState::Paused => vec![Operation::UnpauseContainer { container: target }],
                _ => Vec::new(),
            }
        });
        plan
    }

    /// `rm`: containers that do not run are removed; with `stop` those that do, too.
    pub fn rm(name: &str, existing: &Existing, services: &[String], stop: bool, volumes: bool) -> Self {
        let containers = chosen(name, existing, services, true);
        let mut plan = Self::new(name);
        plan.each(&containers, Direction::DependentsFirst, |container| {
            let target = target(container.service().unwrap_or_default(), container);
            let remove = Operation::RemoveContainer {
                container: target.clone(),
                volumes,
                force: false,
            };
            match (container.is_up(), stop) {
                (false, _) => vec![remove],
                (true, true) => vec![
                    Operation::StopContainer {
                        container: target,
                        timeout: None,
                    },
                    remove,
                ],
                (true, false) => Vec::new(),
            }
        });
        plan
    }
}
