//! What a verb works with: the runtime, the project, and how things are shown.

use super::progress::{Lines, Quiet};
use super::{Ansi, Files, Manner, warn};
use crate::{Failure, streams};
use rdock_compose::plan::UpOptions;
use rdock_compose::{ComposeProject, Error, Member, Members, Plan, Project};
use rdock_runtime::{ContainerInfo, Runtime};
use std::sync::{Arc, OnceLock};

pub(super) struct Session {
    runtime: Runtime,
    files: Files,
    manner: Manner,
    doing: &'static str,
    /// What shows how a project changes, once there is one.
    lines: OnceLock<Arc<Lines>>,
}

impl Session {
    /// `doing`: the verb, in docker compose's word for its progress.
    pub(super) fn new(runtime: Runtime, files: Files, manner: Manner, doing: &'static str) -> Self {
        Self {
            doing,
            runtime,
            files,
            manner,
            lines: OnceLock::new(),
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
        self.load_quietly(Quiet::default())
    }

    /// The project of the files, of whose life less is told.
    pub(super) fn load_quietly(&self, quiet: Quiet) -> Result<ComposeProject, Failure> {
        let project = Project::load(&self.files.options()?)?;
        warn(&project.warnings);
        Ok(self.with(ComposeProject::new(&self.runtime, project), quiet))
    }

    /// The project of the files; without files the one that is named.
    pub(super) fn known(&self) -> Result<ComposeProject, Failure> {
        let options = self.files.options()?;
        let variable = options.environment.get("COMPOSE_PROJECT_NAME");
        let name = options.project_name.as_ref().or(variable);
        let project = match (Project::load(&options), name) {
            (Ok(project), _) => {
                warn(&project.warnings);
                ComposeProject::new(&self.runtime, project)
            }
            (Err(Error::NoComposeFile { .. }), Some(name)) => ComposeProject::named(&self.runtime, name),
            (Err(error), _) => return Err(error.into()),
        };
        Ok(self.with(project, Quiet::default()))
    }

    fn with(&self, project: ComposeProject, quiet: Quiet) -> ComposeProject {
        let project = match usize::try_from(self.manner.parallel) {
            Ok(steps) if steps > 0 => project.parallel(steps),
            _ => project,
        };
        let drawing = self.manner.ansi != Ansi::Never;
        let lines = self
            .lines
            .get_or_init(|| Arc::new(Lines::new(self.manner.progress, quiet, drawing, self.doing)));
        let lines = lines.clone();
        let project = project.builds(crate::build_host::of_host);
        project.on_event(move |event| lines.show(&event))
    }

    /// Carries a plan out, or prints it.
    pub(super) async fn apply(&self, project: &ComposeProject, plan: &Plan) -> Result<(), Failure> {
        self.warn_of(plan);
        if self.manner.dry_run {
            streams::print(plan.to_string().trim_end());
            return Ok(());
        }
        if let Some(lines) = self.lines.get() {
            lines.expect(plan);
        }
        let applied = project.apply(plan).await;
        if let Some(lines) = self.lines.get() {
            lines.rest();
        }
        Ok(applied?)
    }

    /// The project with what programs provide for it; as it is where nothing is done.
    pub(super) async fn provide(
        &self,
        project: &ComposeProject,
        options: &UpOptions,
    ) -> Result<ComposeProject, Failure> {
        if self.manner.dry_run {
            let plan = Plan::providers(project.project(), options)?;
            if !plan.is_empty() {
                self.apply(project, &plan).await?;
            }
            return Ok(project.clone());
        }
        Ok(project.provide(options).await?)
    }

    /// Others write to the terminal from now on.
    pub(super) fn close_screen(&self) {
        if let Some(lines) = self.lines.get() {
            lines.close();
        }
    }

    /// Says what should be known of a plan.
    pub(super) fn warn_of(&self, plan: &Plan) {
        if !super::truth("COMPOSE_IGNORE_ORPHANS") {
            warn(&plan.warnings());
        }
    }

    /// The containers of services; with those of `run` if `one_offs`.
    pub(super) fn containers(
        &self,
        project: &ComposeProject,
        services: &[String],
        one_offs: bool,
    ) -> Result<Vec<ContainerInfo>, Failure> {
        let members = Members::of(services);
        let members = if one_offs {
            members.with_one_offs()
        } else {
            members
        };
        Ok(project.containers(&members)?)
    }

    /// The container of a service, whether it runs or not; the first one, or the one with this number.
    pub(super) fn container(
        &self,
        project: &ComposeProject,
        service: &str,
        index: Option<u32>,
    ) -> Result<ContainerInfo, Failure> {
        let found = self.containers(project, &[service.to_owned()], false)?;
        let mut found = found.into_iter();
        found
            .find(|info| index.is_none_or(|index| number(info) == index))
            .ok_or_else(|| match index {
                None => Failure::new(format!("no container found for service {service:?}")),
                Some(index) => Failure::new(format!("no container found for service {service:?} #{index}")),
            })
    }
}

/// The service whose container it is.
pub(super) fn service(info: &ContainerInfo) -> String {
    Member::of(info).map(|member| member.service).unwrap_or_default()
}

/// Which of the service's containers it is.
pub(super) fn number(info: &ContainerInfo) -> u32 {
    Member::of(info).map_or(0, |member| member.number)
}

/// Nothing, if the files have the service, whatever its profiles say.
pub(super) fn known(files: &Project, service: &str) -> Result<(), Failure> {
    match files.disabled_services.contains_key(service) {
        true => Ok(()),
        false => Ok(files.service(service).map(drop)?),
    }
}
