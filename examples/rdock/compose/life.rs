//! `compose start`, `stop`, `restart`, `kill`, `pause`, `unpause` and `wait`.

use super::session::Session;
use crate::{Failure, Outcome, streams};
use clap::Args;
use rdock_compose::Plan;
use rdock_compose::plan::DownOptions;

#[derive(Debug, Args)]
pub(super) struct Services {
    /// Services; all without any
    services: Vec<String>,
}

impl Services {
    /// Pauses, or lets go on.
    pub(super) async fn execute(self, session: &Session, frozen: bool) -> Outcome {
        let project = session.known()?;
        session.containers(&project, &self.services, false)?;
        let existing = project.existing().await?;
        let name = &project.project().name;
        let plan = match frozen {
            true => Plan::pause(name, &existing, &self.services),
            false => Plan::unpause(name, &existing, &self.services),
        };
        session.apply(&project, &plan).await?;
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Start {
    /// End when everything runs or is healthy
    #[arg(long)]
    wait: bool,
    /// Seconds that --wait may take
    #[arg(long)]
    wait_timeout: Option<u64>,
    #[command(flatten)]
    services: Services,
}

impl Start {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let services = &self.services.services;
        session.containers(&project, services, false)?;
        let existing = project.existing().await?;
        let plan = Plan::start(project.project(), &existing, services, self.wait)?;
        let applied = session.apply(&project, &plan);
        super::up::within(self.wait_timeout.filter(|_| self.wait), applied).await?;
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Stop {
    /// Seconds until SIGKILL
    #[arg(short, long)]
    timeout: Option<u64>,
    #[command(flatten)]
    services: Services,
}

impl Stop {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let services = &self.services.services;
        session.containers(&project, services, false)?;
        let existing = project.existing().await?;
        let name = &project.project().name;
        let plan = Plan::stop(name, project.loaded(), &existing, services, self.timeout);
        session.apply(&project, &plan).await?;
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Restart {
    /// Seconds until SIGKILL
    #[arg(short, long)]
    timeout: Option<u64>,
    /// Only the services themselves, not those that restart with them
    #[arg(long)]
    no_deps: bool,
    #[command(flatten)]
    services: Services,
}

impl Restart {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let services = &self.services.services;
        session.containers(&project, services, false)?;
        let existing = project.existing().await?;
        let files = project.project();
        let plan = Plan::restart(files, &existing, services, self.no_deps, self.timeout);
        session.apply(&project, &plan).await?;
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Kill {
    /// The signal
    #[arg(short, long, default_value = "SIGKILL")]
    signal: String,
    /// Remove containers of services that the files no longer have
    #[arg(long)]
    remove_orphans: bool,
    #[command(flatten)]
    services: Services,
}

impl Kill {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let services = &self.services.services;
        session.containers(&project, services, true)?;
        let existing = project.existing().await?;
        let plan = Plan::kill(&project.project().name, &existing, services, &self.signal);
        session.apply(&project, &plan).await?;
        if self.remove_orphans {
            let orphans: Vec<String> = existing
                .containers
                .iter()
                .filter(|container| container.is_of(&project.project().name) && !container.is_one_off())
                .filter_map(|container| container.service().map(str::to_owned))
                .filter(|service| {
                    project.loaded().is_some_and(|files| {
                        !files.services.contains_key(service)
                            && !files.disabled_services.contains_key(service)
                    })
                })
                .collect();
            if !orphans.is_empty() {
                let plan = Plan::rm(
                    &project.project().name,
                    &project.existing().await?,
                    &orphans,
                    true,
                    false,
                );
                session.apply(&project, &plan).await?;
            }
        }
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// Take the project down when the first container has ended
    #[arg(long)]
    down_project: bool,
    /// Services
    #[arg(required = true)]
    services: Vec<String>,
}

impl Wait {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let found = session.containers(&project, &self.services, false)?;
        if found.is_empty() {
            return Err(Failure::new(format!(
                "no containers for project {:?}",
                project.project().name
            )));
        }
        let mut waits = tokio::task::JoinSet::new();
        for info in found {
            let container = session.runtime().container(&info.id)?;
            waits.spawn(async move { (info.name, container.wait().await) });
        }
        let mut code = 0;
        while let Some(ended) = waits.join_next().await {
            let (name, exit) = ended.map_err(|error| Failure::new(error.to_string()))?;
            code = exit?.code() as u8;
            streams::print(&format!("container {name:?} exited with status code {code}"));
            if self.down_project {
                let mut options = DownOptions::default();
                options.remove_orphans = true;
                let existing = project.existing().await?;
                let name = &project.project().name;
                let plan = Plan::down(name, project.loaded(), &existing, &options);
                session.apply(&project, &plan).await?;
                return Ok(code);
            }
        }
        Ok(code)
    }
}
