//! What a verb works with: the runtime, the project, and how things are shown.

use super::progress::Lines;
use super::{Ansi, Files, Manner, Shown, warn};
use crate::{Failure, streams};
use rdock_compose::{ComposeProject, Error, Plan, Project, label};
use rdock_runtime::{Container, ContainerFilter, ContainerInfo, Runtime};

pub(super) struct Session {
    runtime: Runtime,
    files: Files,
    manner: Manner,
}

impl Session {
    pub(super) fn new(runtime: Runtime, files: Files, manner: Manner) -> Self {
        Self {
            runtime,
            files,
            manner,
        }
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.manner.dry_run
    }

    /// Whether output has colours.
    pub(super) fn colours(&self) -> bool {
        match self.manner.ansi {
            Ansi::Never => false,
            Ansi::Always => true,
            Ansi::Auto => streams::is_output_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    /// The project of the files.
    pub(super) fn load(&self) -> Result<ComposeProject, Failure> {
        let project = Project::load(&self.files.options()?)?;
        warn(&project.warnings);
        Ok(self.with(ComposeProject::new(&self.runtime, project)))
    }

    /// The project of the files; without files the one that is named.
    pub(super) fn known(&self) -> Result<ComposeProject, Failure> {
        let options = self.files.options()?;
        let variable = options.environment.get("COMPOSE_PROJECT_NAME");
        let name = options.project_name.as_ref().or(variable);
        match (Project::load(&options), name) {
            (Ok(project), _) => {
                warn(&project.warnings);
                Ok(self.with(ComposeProject::new(&self.runtime, project)))
            }
            (Err(Error::NoComposeFile { .. }), Some(name)) => {
                Ok(self.with(ComposeProject::named(&self.runtime, name)))
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    fn with(&self, project: ComposeProject) -> ComposeProject {
        let project = match usize::try_from(self.manner.parallel) {
            Ok(steps) if steps > 0 => project.parallel(steps),
            _ => project,
        };
        let lines = Lines::new(self.manner.progress == Shown::Quiet);
        project.on_event(move |event| lines.show(&event))
    }

    /// Carries a plan out, or prints it.
    pub(super) async fn apply(&self, project: &ComposeProject, plan: &Plan) -> Result<(), Failure> {
        warn(&plan.warnings());
        if self.manner.dry_run {
            streams::print(plan.to_string().trim_end());
            return Ok(());
        }
        Ok(project.apply(plan).await?)
    }

    /// The containers of a project, by their names; with those of `run` if `one_offs`. A service that is neither in
    /// the files nor has a container is an error.
    pub(super) fn containers(
        &self,
        project: &ComposeProject,
        services: &[String],
        one_offs: bool,
    ) -> Result<Vec<ContainerInfo>, Failure> {
        let mut filter = ContainerFilter::default();
        filter.add(&format!("label={}={}", label::PROJECT, project.project().name))?;
        let mut found = self.runtime.list(&filter)?;
        found.retain(|info| one_offs || !is_one_off(info));
        for wanted in services {
            let files = project.project();
            let known = files.services.contains_key(wanted) || files.disabled_services.contains_key(wanted);
            if !known && !found.iter().any(|info| service(info) == wanted) {
                return Err(Failure::new(format!("no such service: {wanted}")));
            }
        }
        found.retain(|info| services.is_empty() || services.iter().any(|wanted| service(info) == wanted));
        found.sort_by(|a, b| (service(a), number(a), &a.name).cmp(&(service(b), number(b), &b.name)));
        Ok(found)
    }

    /// The container of a service that runs; the first one, or the one with this number.
    pub(super) fn running(
        &self,
        project: &ComposeProject,
        service: &str,
        index: Option<u32>,
    ) -> Result<Container, Failure> {
        let found = self.containers(project, &[service.to_owned()], false)?;
        let fits = |info: &&ContainerInfo| {
            info.status.is_running() && index.is_none_or(|index| number(info) == index)
        };
        match (found.iter().find(fits), index) {
            (Some(info), _) => Ok(self.runtime.container(&info.id)?),
            (None, None) => Err(Failure::new(format!("service {service:?} is not running"))),
            (None, Some(index)) => Err(Failure::new(format!(
                "service {service:?} is not running container #{index}"
            ))),
        }
    }
}

fn text<'a>(info: &'a ContainerInfo, key: &str) -> &'a str {
    info.spec.labels.get(key).map_or("", String::as_str)
}

/// The service whose container it is.
pub(super) fn service(info: &ContainerInfo) -> &str {
    text(info, label::SERVICE)
}

/// Which of the service's containers it is.
pub(super) fn number(info: &ContainerInfo) -> u32 {
    text(info, label::NUMBER).parse().unwrap_or(0)
}

/// Whether `run` made it.
pub(super) fn is_one_off(info: &ContainerInfo) -> bool {
    text(info, label::ONE_OFF).eq_ignore_ascii_case("true")
}

/// Nothing, if the files have the service, whatever its profiles say.
pub(super) fn known(files: &Project, service: &str) -> Result<(), Failure> {
    match files.disabled_services.contains_key(service) {
        true => Ok(()),
        false => Ok(files.service(service).map(drop)?),
    }
}
