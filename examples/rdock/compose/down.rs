//! `compose down` and `rm`.

use super::session::{Session, known};
use crate::{Outcome, streams};
use clap::{Args, ValueEnum};
use rdock_compose::Plan;
use rdock_compose::plan::{DownOptions, Operation, RemoveImages};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Images {
    /// Those without a name of their own
    Local,
    /// Every one
    All,
}

#[derive(Debug, Args)]
pub(super) struct Down {
    /// Remove named volumes of the project, and anonymous ones
    #[arg(short, long)]
    volumes: bool,
    /// Remove images
    #[arg(long, value_enum)]
    rmi: Option<Images>,
    /// Remove containers of services that the files no longer have
    #[arg(long, env = "COMPOSE_REMOVE_ORPHANS", value_parser = clap::builder::FalseyValueParser::new())]
    remove_orphans: bool,
    /// Seconds that stopping a container may take
    #[arg(short, long)]
    timeout: Option<u64>,
    /// Services; all without any
    services: Vec<String>,
}

impl Down {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let mut options = DownOptions::default();
        options.services = self.services;
        options.volumes = self.volumes;
        options.remove_orphans = self.remove_orphans;
        options.timeout = self.timeout;
        options.images = match self.rmi {
            None => RemoveImages::Keep,
            Some(Images::Local) => RemoveImages::Local,
            Some(Images::All) => RemoveImages::All,
        };
        for service in &options.services {
            if let Some(files) = project.loaded() {
                known(files, service)?;
            }
        }
        let existing = project.existing().await?;
        let plan = Plan::down(&project.project().name, project.loaded(), &existing, &options);
        session.apply(&project, &plan).await?;
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Rm {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Stop those that run first
    #[arg(short, long)]
    stop: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Services; all without any
    services: Vec<String>,
}

impl Rm {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        // Says so when there is no such service.
        if session.containers(&project, &self.services, true)?.is_empty() {
            streams::say("No stopped containers");
            return Ok(0);
        }
        let existing = project.existing().await?;
        let name = &project.project().name;
        let plan = Plan::rm(name, &existing, &self.services, self.stop, self.volumes);
        let names: Vec<&str> = plan
            .operations()
            .filter_map(|operation| match operation {
                Operation::RemoveContainer { container, .. } => Some(container.name.as_str()),
                _ => None,
            })
            .collect();
        if names.is_empty() {
            streams::say("No stopped containers");
            return Ok(0);
        }
        if !self.force && !session.is_dry_run() {
            let going = format!("Going to remove {}", names.join(", "));
            if !streams::confirm(&going)? {
                return Ok(0);
            }
        }
        session.apply(&project, &plan).await?;
        Ok(0)
    }
}
