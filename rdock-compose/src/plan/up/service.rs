//! The containers of one service: which stay, which are made, which take another's place, which go.

use super::super::existing::{ContainerState, ExistingContainer};
use super::super::operation::{Cause, HookKind, Operation, Target};
use super::super::recreate::{Judge, shared_with};
use super::{PlanError, Recreate, Up, is_left_over, target};
use crate::model::Service;
use crate::names::{container_name, temporary_name};
use std::collections::BTreeSet;

impl Up<'_> {
    fn policy(&self, service: &str) -> Recreate {
        let named =
            self.options.services.is_empty() || self.options.services.iter().any(|name| name == service);
        if named {
            self.options.recreate
        } else {
            self.options.recreate_dependencies
        }
    }

    pub(super) fn service(&mut self, name: &str) -> Result<(), PlanError> {
        let Some(service) = self.project.services.get(name) else {
            return Ok(());
        };
        if service.provider.is_some() {
            return Ok(());
        }
        let wanted = self
            .options
            .scale
            .get(name)
            .copied()
            .unwrap_or_else(|| service.replicas());
        if wanted > 1 && service.container_name.is_some() {
            return Err(PlanError::OneNameOnly {
                service: name.to_owned(),
                wanted,
            });
        }
        let mut there = self.existing.of_service(&self.project.name, name);
        // A container that was to take another's place and did not get there.
        let (left, kept): (Vec<_>, Vec<_>) = there.into_iter().partition(|container| is_left_over(container));
        there = kept;
        let mut cleared = self.cleared.get(name).cloned().unwrap_or_default();
        for container in left {
            // Its anonymous volumes are its own, or also those of the one whose place it was to take.
            cleared.push(self.remove(name, container, vec![Cause::LeftOver], Vec::new(), true));
        }
        let policy = self.policy(name);
        let judge = Judge {
            project: self.project,
            existing: self.existing,
            new_networks: &self.new_networks,
            replaced: &self.replaced,
        };
        let mut judged: Vec<(&ExistingContainer, Vec<Cause>)> = there
            .iter()
            .map(|container| (*container, judge.causes(name, container, policy)))
            .collect();
        let before = u32::try_from(judged.len()).unwrap_or(u32::MAX);
        let mut removed = Vec::new();
        if before > wanted {
            // Those that are no longer right go first, then the highest numbers.
            judged.sort_by_key(|(container, causes)| (!causes.is_empty(), container.number()));
            for (container, _) in judged.split_off(wanted as usize) {
                let causes = vec![Cause::ScaleDown {
                    from: before,
                    to: wanted,
                }];
                removed.push(self.remove(name, container, causes, Vec::new(), false));
            }
            judged.sort_by_key(|(container, _)| container.number());
        }
        let replaces = judged.iter().any(|(_, causes)| !causes.is_empty());
        if replaces {
            self.replaced.insert(name.to_owned());
        }
        let stops = if replaces {
            self.stop_dependents(name)
        } else {
            Vec::new()
        };
        let mut creations = Vec::new();
        let mut taken: BTreeSet<u32> = judged.iter().map(|(container, _)| container.number()).collect();
        for (container, causes) in judged {
            if causes.is_empty() {
                self.keep(name, service, container);
            } else {
                creations.push(self.replace(name, service, container, causes, &stops, &cleared)?);
            }
        }
        for _ in before.min(wanted)..wanted {
            let number = (1..).find(|number| !taken.contains(number)).unwrap_or(u32::MAX);
            taken.insert(number);
            let cause = if before == 0 {
                Cause::Missing
            } else {
                Cause::ScaleUp {
                    from: before,
                    to: wanted,
                }
            };
            let after: Vec<usize> = cleared.iter().chain(&removed).copied().collect();
            creations.push(self.make(name, service, number, cause, &after)?);
        }
        self.created.insert(name.to_owned(), creations);
        Ok(())
    }

    /// Steps before a container of the service can be made.
    fn before_creation(&self, name: &str, service: &Service) -> Vec<usize> {
        let networks = service.networks.keys().filter_map(|key| self.networks.get(key));
        let mounts = service.volumes.iter().filter_map(|volume| volume.source.as_ref());
        let volumes = mounts.filter_map(|key| self.volumes.get(key));
        let shared = shared_with(self.project, name);
        let shared = shared
            .iter()
            .filter_map(|other| self.created.get(other))
            .flatten();
        networks.chain(volumes).chain(shared).copied().collect()
    }

    /// A container that is as it should be: it starts if it does not run.
    fn keep(&mut self, name: &str, service: &Service, container: &ExistingContainer) {
        let stopped = self.stopped.get(&container.id).cloned();
        let starts = self.options.start
            && (stopped.is_some()
                || !matches!(
                    container.state,
                    ContainerState::Running | ContainerState::Restarting
                ) && !self.is_done(name, container));
        self.names
            .entry(name.to_owned())
            .or_default()
            .push((container.name.clone(), starts));
        if !starts {
            return;
        }
        let (mut after, cause) = match stopped {
            Some((step, cause)) => (vec![step], cause),
            None => (
                Vec::new(),
                Cause::NotRunning {
                    state: container.state,
                },
            ),
        };
        if container.state == ContainerState::Stopping && after.is_empty() {
            // Whoever stops it may be gone: it starts again once it has ended.
            let operation = Operation::StopContainer {
                container: target(name, container),
                timeout: self.options.timeout,
            };
            after.push(self.plan.add(operation, vec![cause.clone()], Vec::new()));
        }
        if container.state == ContainerState::Paused {
            let operation = Operation::UnpauseContainer {
                container: target(name, container),
            };
            let step = self.plan.add(operation, vec![cause], after);
            self.ready.entry(name.to_owned()).or_default().push(step);
            return;
        }
        after.extend(self.renamed.get(&container.id));
        // It joins its networks when it starts, and they may be made anew.
        after.extend(self.before_creation(name, service));
        after.extend(self.before_start(name, service));
        self.start(name, service, target(name, container), vec![cause], after);
    }

    /// Hooks, the start, hooks.
    fn start(
        &mut self,
        name: &str,
        service: &Service,
        container: Target,
        causes: Vec<Cause>,
        mut after: Vec<usize>,
    ) {
        let first = !self.ready.contains_key(name);
        let hook = |kind, index| Operation::RunHook {
            service: name.to_owned(),
            container: container.name.clone(),
            kind,
            index,
        };
        for (index, each) in service.pre_start.iter().enumerate() {
            if first || each.per_replica {
                let step = self
                    .plan
                    .add(hook(HookKind::PreStart, index), causes.clone(), after);
                after = vec![step];
            }
        }
        if let Some(steps) = self.ready.get(name).filter(|_| !service.pre_start.is_empty()) {
            // What runs once for the service has run before its first container started.
            after.extend(steps.first());
        }
        let operation = Operation::StartContainer {
            container: container.clone(),
        };
        let mut last = self.plan.add(operation, causes.clone(), after);
        for index in 0..service.post_start.len() {
            last = self
                .plan
                .add(hook(HookKind::PostStart, index), causes.clone(), [last]);
        }
        self.ready.entry(name.to_owned()).or_default().push(last);
    }

    /// A container that is not there.
    fn make(
        &mut self,
        name: &str,
        service: &Service,
        number: u32,
        cause: Cause,
        cleared: &[usize],
    ) -> Result<usize, PlanError> {
        let full = container_name(self.project, name, number);
        self.free(&full, name)?;
        let operation = Operation::CreateContainer {
            service: name.to_owned(),
            number,
            name: full.clone(),
            replaces: None,
            inherits: Vec::new(),
            one_off: None,
        };
        let after = self
            .before_creation(name, service)
            .into_iter()
            .chain(cleared.iter().copied());
        let after: Vec<usize> = after.collect();
        let created = self.plan.add(operation, vec![cause.clone()], after);
        self.names
            .entry(name.to_owned())
            .or_default()
            .push((full.clone(), true));
        if self.options.start {
            let mut after = self.before_start(name, service);
            after.push(created);
            let container = Target {
                service: name.to_owned(),
                name: full,
                id: None,
            };
            self.start(name, service, container, vec![cause], after);
        }
        Ok(created)
    }

    /// A container that takes another's place: made under another name, so that the old one runs as long as possible.
    fn replace(
        &mut self,
        name: &str,
        service: &Service,
        old: &ExistingContainer,
        causes: Vec<Cause>,
        dependents: &[usize],
        cleared: &[usize],
    ) -> Result<usize, PlanError> {
        let number = old.number().max(1);
        let full = container_name(self.project, name, number);
        if full != old.name {
            self.free(&full, name)?;
        }
        let temporary = temporary_name(&old.id, &full);
        let inherits = match self.options.renew_anonymous_volumes {
            true => Vec::new(),
            false => old
                .mounts
                .iter()
                .filter(|mount| mount.anonymous)
                .cloned()
                .collect(),
        };
        let operation = Operation::CreateContainer {
            service: name.to_owned(),
            number,
            name: temporary.clone(),
            replaces: Some(old.id.clone()),
            inherits,
            one_off: None,
        };
        let mut after = self.before_creation(name, service);
        // What an interrupted replacement left has the temporary name.
        after.extend(cleared);
        // One that was stopped for its network is made when that is there again.
        after.extend(self.stopped.get(&old.id).map(|(step, _)| *step));
        let created = self.plan.add(operation, causes.clone(), after);
        let mut after = if self.options.start {
            self.before_start(name, service)
        } else {
            Vec::new()
        };
        after.push(created);
        after.extend(dependents);
        let removed = self.remove(
            name,
            old,
            vec![Cause::Replaced],
            after.clone(),
            self.options.renew_anonymous_volumes,
        );
        let operation = Operation::RenameContainer {
            from: temporary,
            to: full.clone(),
        };
        let renamed = self.plan.add(operation, causes.clone(), [removed]);
        self.names
            .entry(name.to_owned())
            .or_default()
            .push((full.clone(), true));
        // One that was ended stays so when nothing is started.
        if self.options.start {
            after.push(renamed);
            let container = Target {
                service: name.to_owned(),
                name: full,
                id: None,
            };
            self.start(name, service, container, causes, after);
        }
        Ok(created)
    }

    /// Services that restart with this one stop before it is made anew.
    fn stop_dependents(&mut self, name: &str) -> Vec<usize> {
        if !self.options.start {
            return Vec::new();
        }
        let project = self.project;
        let mut steps = Vec::new();
        for (other, service) in &project.services {
            if !service.depends_on.get(name).is_some_and(|need| need.restart) {
                continue;
            }
            for container in self.existing.of_service(&project.name, other) {
                if !container.is_up() {
                    continue;
                }
                if let Some((step, _)) = self.stopped.get(&container.id) {
                    steps.push(*step);
                    continue;
                }
                let cause = Cause::DependencyReplaced {
                    service: name.to_owned(),
                };
                let step = self.stop(other, container, vec![cause.clone()], Vec::new());
                self.stopped.insert(container.id.clone(), (step, cause));
                steps.push(step);
            }
        }
        steps
    }

    /// Nobody else has the name.
    fn free(&self, name: &str, service: &str) -> Result<(), PlanError> {
        let taken = self
            .existing
            .containers
            .iter()
            .find(|container| container.name == name);
        match taken {
            Some(container)
                if !(container.is_of(&self.project.name) && container.service() == Some(service)) =>
            {
                Err(PlanError::NameTaken {
                    name: name.to_owned(),
                    id: container.id.clone(),
                })
            }
            _ => Ok(()),
        }
    }
}
