//! What has to be waited for before containers start, and at the end.

use super::super::existing::{ContainerState, ExistingContainer, Health};
use super::super::operation::{Cause, Operation, WaitCondition};
use super::Up;
use crate::model::{Condition, Service};

impl Up<'_> {
    /// Steps before a container of the service can start: those it depends on are as it wants them.
    pub(super) fn before_start(&mut self, name: &str, service: &Service) -> Vec<usize> {
        let mut after = Vec::new();
        for (other, dependency) in &service.depends_on {
            if !self.project.services.contains_key(other) {
                continue;
            }
            let ready = self.ready.get(other).cloned().unwrap_or_default();
            let condition = dependency.condition;
            match self.wait_for(other, condition, !dependency.required, name, &ready) {
                Some(step) => after.push(step),
                None => after.extend(ready),
            }
        }
        after
    }

    /// The step that waits for a service, if anything has to be waited for.
    fn wait_for(
        &mut self,
        other: &str,
        condition: Condition,
        optional: bool,
        name: &str,
        ready: &[usize],
    ) -> Option<usize> {
        let wait = WaitCondition::of(condition)?;
        let key = (other.to_owned(), condition);
        if let Some(step) = self.waits.get(&key) {
            // One that must not fail makes the wait such.
            if !optional && let Operation::Wait { optional, .. } = &mut self.plan.steps[*step].operation {
                *optional = false;
            }
            return Some(*step);
        }
        let containers = self.names.get(other).cloned().unwrap_or_default();
        let met = |name: &str| {
            let known = self
                .existing
                .containers
                .iter()
                .find(|container| container.name == name);
            known.is_some_and(|container| match condition {
                Condition::Started => true,
                Condition::Healthy => container.is_up() && container.health == Some(Health::Healthy),
                Condition::Completed => container.state == ContainerState::Exited(0),
            })
        };
        if ready.is_empty() && containers.iter().all(|(name, started)| !started && met(name)) {
            return None;
        }
        let operation = Operation::Wait {
            service: other.to_owned(),
            containers: containers.into_iter().map(|(name, _)| name).collect(),
            condition: wait,
            optional,
        };
        let step = self.plan.add(
            operation,
            vec![Cause::Needed {
                service: name.to_owned(),
            }],
            ready.iter().copied(),
        );
        self.waits.insert(key, step);
        Some(step)
    }

    /// Whether a container that ended has done what it was for.
    pub(super) fn is_done(&self, name: &str, container: &ExistingContainer) -> bool {
        let awaited = self
            .project
            .services
            .values()
            .filter_map(|service| service.depends_on.get(name));
        container.state == ContainerState::Exited(0)
            && awaited
                .into_iter()
                .any(|need| need.condition == Condition::Completed)
    }

    /// `--wait`: running, or healthy.
    pub(super) fn wait_at_the_end(&mut self, name: &str) {
        let ready = self.ready.get(name).cloned().unwrap_or_default();
        let containers = self.names.get(name).cloned().unwrap_or_default();
        // One that others wait to see the end of need not run.
        let ends = self.project.services.values().any(|service| {
            let need = service.depends_on.get(name);
            need.is_some_and(|need| need.condition == Condition::Completed)
        });
        let good = |name: &str| {
            let known = self
                .existing
                .containers
                .iter()
                .find(|container| container.name == name);
            known.is_some_and(|container| match ends {
                true => container.state == ContainerState::Exited(0),
                false => container.is_up() && matches!(container.health, None | Some(Health::Healthy)),
            })
        };
        if containers.iter().all(|(name, started)| !started && good(name)) {
            return;
        }
        let operation = Operation::Wait {
            service: name.to_owned(),
            containers: containers.into_iter().map(|(name, _)| name).collect(),
            condition: match ends {
                true => WaitCondition::Completed,
                false => WaitCondition::RunningOrHealthy,
            },
            optional: false,
        };
        self.plan.add(operation, vec![Cause::Requested], ready);
    }
}
