//! The containers of a project that are there, by their services.

use crate::apply::{ApplyError, ComposeProject};
use crate::model::Dependencies;
use crate::names::label;
use crate::plan::PlanError;
use rdock_runtime::{Container, ContainerFilter, ContainerInfo, Runtime};
use std::collections::BTreeMap;

/// What a container says about its place in its project. All of it stands in its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The project's name.
    pub project: String,
    /// The service.
    pub service: String,
    /// Which of the service's containers, from 1; 0 for one that `run` made.
    pub number: u32,
    /// Whether `run` made it.
    pub one_off: bool,
}

impl Member {
    /// One of a service's containers, by its number.
    pub fn new(project: impl Into<String>, service: impl Into<String>, number: u32) -> Self {
        Self {
            project: project.into(),
            service: service.into(),
            number,
            one_off: false,
        }
    }

    /// Reads a container's labels; none for one that belongs to no project.
    pub fn of(info: &ContainerInfo) -> Option<Self> {
        let labels = &info.spec.labels;
        let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
        Some(Self {
            project: labels.get(label::PROJECT)?.clone(),
            service: text(label::SERVICE),
            number: text(label::NUMBER).parse().unwrap_or(0),
            one_off: text(label::ONE_OFF).eq_ignore_ascii_case("true"),
        })
    }

    /// What its lines of output begin with: `web-1`, or the name that the file or `run` gave it.
    pub fn title(&self, name: &str) -> String {
        let begins = |separator: &str| {
            let prefix = format!("{}{separator}{}{separator}", self.project, self.service);
            // Its place-holder's name before it takes the place of another.
            let full = name.split_once('_').map_or("", |(_, rest)| rest);
            name.starts_with(&prefix) || full.starts_with(&prefix)
        };
        match (self.one_off, begins("-") || begins("_")) {
            (false, true) => format!("{}-{}", self.service, self.number),
            (true, true) => name
                .strip_prefix(&self.project)
                .map_or(name, |rest| rest.trim_start_matches(['-', '_']))
                .to_owned(),
            (_, false) => name.to_owned(),
        }
    }
}

/// Which containers of a project are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Members {
    /// Those of these services; of all if empty.
    pub services: Vec<String>,
    /// Those of `run` too.
    pub one_offs: bool,
}

impl Members {
    /// Those of these services.
    pub fn of(services: &[String]) -> Self {
        Self {
            services: services.to_vec(),
            one_offs: false,
        }
    }

    /// Those of `run` too.
    #[must_use]
    pub fn with_one_offs(mut self) -> Self {
        self.one_offs = true;
        self
    }
}

/// A project that has containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectSummary {
    /// Its name.
    pub name: String,
    /// How many of its containers are in which state (`running`, `exited`, ...).
    pub states: BTreeMap<&'static str, usize>,
    /// Its files as its containers remember them, with commas between them.
    pub files: String,
}

impl ComposeProject {
    /// Every project that has a container in this runtime, by name.
    ///
    /// # Errors
    /// When the state of the runtime cannot be read.
    pub fn list(runtime: &Runtime) -> Result<Vec<ProjectSummary>, ApplyError> {
        let mut filter = ContainerFilter::default();
        filter.add(&format!("label={}", label::PROJECT))?;
        let mut projects: BTreeMap<String, ProjectSummary> = BTreeMap::new();
        for info in runtime.list(&filter)? {
            let Some(member) = Member::of(&info) else { continue };
            let summary = projects.entry(member.project.clone()).or_default();
            summary.name = member.project;
            *summary.states.entry(info.status.name()).or_default() += 1;
            if summary.files.is_empty() {
                let files = info.spec.labels.get(label::CONFIG_FILES);
                summary.files = files.cloned().unwrap_or_default();
            }
        }
        Ok(projects.into_values().collect())
    }

    /// The project's containers, by service, number and name, whatever state they are in.
    ///
    /// # Errors
    /// [`PlanError::Select`] for a service that is neither in the files nor has a container; when the state of
    /// the runtime cannot be read.
    pub fn containers(&self, members: &Members) -> Result<Vec<ContainerInfo>, ApplyError> {
        let mut filter = ContainerFilter::default();
        filter.add(&format!("label={}={}", label::PROJECT, self.project().name))?;
        let found = self.runtime().list(&filter)?;
        let mut found: Vec<(Member, ContainerInfo)> = found
            .into_iter()
            .filter_map(|info| Some((Member::of(&info)?, info)))
            .filter(|(member, _)| members.one_offs || !member.one_off)
            .collect();
        for wanted in &members.services {
            // A container is enough, for a project of which only the name is known.
            if !found.iter().any(|(member, _)| member.service == *wanted) {
                self.project()
                    .select(std::slice::from_ref(wanted), Dependencies::Leave)
                    .map_err(PlanError::from)?;
            }
        }
        found.retain(|(member, _)| members.services.is_empty() || members.services.contains(&member.service));
        found.sort_by(|(a, one), (b, other)| {
            (&a.service, a.number, &one.name).cmp(&(&b.service, b.number, &other.name))
        });
        Ok(found.into_iter().map(|(_, info)| info).collect())
    }

    /// The container of a service that runs: the first one, or the one with this number.
    ///
    /// # Errors
    /// [`PlanError::NotRunning`], and [`Self::containers`]'s.
    pub fn running(&self, service: &str, number: Option<u32>) -> Result<Container, ApplyError> {
        let found = self.containers(&Members::of(&[service.to_owned()]))?;
        let fits = |info: &&ContainerInfo| {
            let member = Member::of(info);
            info.status.is_running()
                && number.is_none_or(|number| member.is_some_and(|member| member.number == number))
        };
        match found.iter().find(fits) {
            Some(info) => Ok(self.runtime().container(&info.id)?),
            None => Err(PlanError::NotRunning {
                service: service.to_owned(),
                number,
            }
            .into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Member;

    #[test]
    fn lines_begin_with_the_service_and_its_number() {
        let member = |one_off| Member {
            project: "my-shop".to_owned(),
            service: "web".to_owned(),
            number: 2,
            one_off,
        };
        for (one_off, name, title) in [
            (false, "my-shop-web-2", "web-2"),
            (false, "my-shop_web_2", "web-2"),
            (false, "0123456789ab_my-shop-web-2", "web-2"),
            (false, "own", "own"),
            (true, "my-shop-web-run-0123", "web-run-0123"),
            (true, "own", "own"),
        ] {
            assert_eq!(member(one_off).title(name), title);
        }
    }
}
