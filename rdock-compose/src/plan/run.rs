//! `run`: one container of a service beside the others.

use super::existing::Existing;
use super::operation::{Cause, OneOff, Operation, Target};
use super::{Plan, PlanError, UpOptions};
use crate::model::{Dependencies, Project};
use crate::names::one_off_name;

/// What `run` is told, as far as it concerns the plan; what the container runs is the applier's to change.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunOptions {
    /// The service.
    pub service: String,
    /// The container's name; `<project>-<service>-run-<slug>` if absent.
    pub name: Option<String>,
    /// A random text of hexadecimal digits.
    pub slug: String,
    /// It publishes the ports of its service (`--service-ports`); by default none.
    pub service_ports: bool,
    /// It is found by the names of its service (`--use-aliases`); by default by its own alone.
    pub use_aliases: bool,
    /// Whether what the service needs comes up first (`--no-deps` leaves it).
    pub dependencies: Dependencies,
    /// Containers of services that the files no longer have are removed.
    pub remove_orphans: bool,
}

impl RunOptions {
    /// One of this service.
    pub fn new(service: impl Into<String>, slug: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            name: None,
            slug: slug.into(),
            service_ports: false,
            use_aliases: false,
            dependencies: Dependencies::Include,
            remove_orphans: false,
        }
    }
}

impl Plan {
    /// What has to be done until the one-off container runs: what the service needs comes up, then it is made and
    /// started. The service is active whatever its profiles say.
    ///
    /// # Errors
    /// A service that is not there, or what stands in the way of those it needs.
    pub fn run(project: &Project, existing: &Existing, options: &RunOptions) -> Result<Self, PlanError> {
        let name = &options.service;
        let selected = project.select(std::slice::from_ref(name), options.dependencies)?;
        if selected
            .services
            .get(name)
            .is_some_and(|service| service.provider.is_some())
        {
            return Err(PlanError::Provided(name.clone()));
        }
        // The service itself is not started, but its networks and volumes are there, and what it needs runs.
        let mut up = UpOptions {
            remove_orphans: options.remove_orphans,
            ..UpOptions::default()
        };
        up.scale.insert(name.clone(), 0);
        let mut others = existing.clone();
        others
            .containers
            .retain(|container| !container.is_of(&project.name) || container.service() != Some(name));
        let mut plan = Self::up(&selected, &others, &up)?;
        let full = options
            .name
            .clone()
            .unwrap_or_else(|| one_off_name(project, name, &options.slug));
        if let Some(taken) = existing
            .containers
            .iter()
            .find(|container| container.name == full)
        {
            return Err(PlanError::NameTaken {
                name: full,
                id: taken.id.clone(),
            });
        }
        let mut waits: Vec<usize> = plan.steps.iter().map(|step| step.id).collect();
        waits.extend(plan.add_waits(&selected, existing, name));
        let operation = Operation::CreateContainer {
            service: name.clone(),
            number: 1,
            name: full.clone(),
            replaces: None,
            inherits: Vec::new(),
            one_off: Some(OneOff {
                slug: options.slug.clone(),
                service_ports: options.service_ports,
                use_aliases: options.use_aliases,
            }),
        };
        let created = plan.add(operation, vec![Cause::Requested], waits);
        let container = Target {
            service: name.clone(),
            name: full,
            id: None,
        };
        plan.add(
            Operation::StartContainer { container },
            vec![Cause::Requested],
            [created],
        );
        Ok(plan)
    }

    /// What a one-off container waits for.
    fn add_waits(&mut self, project: &Project, existing: &Existing, name: &str) -> Vec<usize> {
        let before: Vec<usize> = self.steps.iter().map(|step| step.id).collect();
        let mut steps = Vec::new();
        let Some(service) = project.services.get(name) else {
            return steps;
        };
        for (other, need) in &service.depends_on {
            let Some(condition) = super::WaitCondition::of(need.condition) else {
                continue;
            };
            if !project.services.contains_key(other) {
                continue;
            }
            let mut containers: Vec<String> = existing
                .of_service(&project.name, other)
                .iter()
                .map(|container| container.name.clone())
                .collect();
            for step in &self.steps {
                if let Operation::StartContainer { container } = &step.operation
                    && container.service == *other
                    && !containers.contains(&container.name)
                {
                    containers.push(container.name.clone());
                }
            }
            let operation = Operation::Wait {
                service: other.clone(),
                containers,
                condition,
                optional: !need.required,
            };
            steps.push(self.add(
                operation,
                vec![Cause::Needed {
                    service: name.to_owned(),
                }],
                before.iter().copied(),
            ));
        }
        steps
    }
}
