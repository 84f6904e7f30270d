//! Programs that provide services: what they are asked to do, and when.

use super::operation::{Cause, Operation, ProviderAction};
use super::{Plan, PlanError, UpOptions, order};
use crate::model::Project;
use std::collections::BTreeMap;

impl Plan {
    /// What `up` asks of the programs that provide services, each after those that its service depends on. They say
    /// which variables the services that need them get, so they come before [`Plan::up`], which is made for the
    /// project that [`crate::ComposeProject::provide`] gives. A program is asked every time: it knows what is there
    /// already.
    ///
    /// # Errors
    /// [`PlanError::Select`].
    pub fn providers(project: &Project, options: &UpOptions) -> Result<Self, PlanError> {
        let selected = project.select(&options.services, options.dependencies)?;
        let mut plan = Self::new(&project.name);
        let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
        for name in order::services(&selected) {
            let service = &selected.services[name];
            if service.provider.is_none() {
                continue;
            }
            let before = service.depends_on.keys();
            let before: Vec<usize> = before
                .filter_map(|other| asked.get(other.as_str()))
                .copied()
                .collect();
            let operation = Operation::RunProvider {
                service: name.to_owned(),
                action: ProviderAction::Up,
            };
            asked.insert(name, plan.add(operation, vec![Cause::Requested], before));
        }
        Ok(plan)
    }

    /// Asks the programs of these services to `action`, those that need a service first. `done`: the last steps of
    /// services whose containers stop or go.
    pub(super) fn providers_end(
        &mut self,
        project: &Project,
        services: &[String],
        action: ProviderAction,
        done: &BTreeMap<String, Vec<usize>>,
    ) {
        let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
        for name in order::services(project).into_iter().rev() {
            let named = services.is_empty() || services.iter().any(|wanted| wanted == name);
            if project.services[name].provider.is_none() || !named {
                continue;
            }
            let dependents = project
                .services
                .iter()
                .filter(|(_, service)| service.depends_on.contains_key(name));
            let mut after = Vec::new();
            for (dependent, _) in dependents {
                after.extend(done.get(dependent).into_iter().flatten().copied());
                after.extend(asked.get(dependent.as_str()).copied());
            }
            let operation = Operation::RunProvider {
                service: name.to_owned(),
                action,
            };
            asked.insert(name, self.add(operation, vec![Cause::Requested], after));
        }
    }
}
