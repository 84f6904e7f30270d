//! `compose up`, `create` and `scale`.

use super::session::{Session, known};
use crate::{Failure, Outcome};
use clap::{Args, ValueEnum};
use rdock_compose::plan::{Build, Pull, Recreate, UpOptions};
use rdock_compose::{ComposeProject, Dependencies, Plan};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PullPolicy {
    Always,
    Missing,
    Never,
    /// What services say
    Policy,
}

/// Which containers become what.
#[derive(Debug, Args)]
pub(super) struct Making {
    /// Build images first
    #[arg(long, conflicts_with = "no_build")]
    build: bool,
    /// Build no image, not even one that is missing
    #[arg(long)]
    no_build: bool,
    /// Make containers anew even if nothing has changed
    #[arg(long, conflicts_with = "no_recreate")]
    force_recreate: bool,
    /// Leave containers that exist as they are
    #[arg(long)]
    no_recreate: bool,
    /// Remove containers of services that the files no longer have
    #[arg(long)]
    remove_orphans: bool,
    /// When images are pulled, whatever services say
    #[arg(long, value_enum, default_value = "policy")]
    pull: PullPolicy,
    /// SERVICE=COUNT: how many containers a service has
    #[arg(long)]
    scale: Vec<String>,
    /// Yes to every question; none is asked
    #[arg(short, long)]
    yes: bool,
    /// Services; all without any
    services: Vec<String>,
}

impl Making {
    fn options(&self) -> Result<UpOptions, Failure> {
        let mut options = UpOptions::default();
        options.services.clone_from(&self.services);
        options.scale = counts(&self.scale)?;
        options.remove_orphans = self.remove_orphans;
        options.recreate = match (self.force_recreate, self.no_recreate) {
            (true, _) => Recreate::Force,
            (_, true) => Recreate::Never,
            _ => Recreate::Diverged,
        };
        if self.no_recreate {
            options.recreate_dependencies = Recreate::Never;
        }
        options.build = match (self.build, self.no_build) {
            (true, _) => Build::Always,
            (_, true) => Build::Never,
            _ => Build::Missing,
        };
        options.pull = match self.pull {
            PullPolicy::Always => Some(Pull::Always),
            PullPolicy::Missing => Some(Pull::Missing),
            PullPolicy::Never => Some(Pull::Never),
            PullPolicy::Policy => None,
        };
        Ok(options)
    }
}

/// Reads SERVICE=COUNT.
fn counts(texts: &[String]) -> Result<BTreeMap<String, u32>, Failure> {
    let mut counts = BTreeMap::new();
    for text in texts {
        let count = text
            .split_once('=')
            .and_then(|(service, count)| Some((service.to_owned(), count.parse().ok()?)));
        let (service, count) = count
            .ok_or_else(|| Failure::new(format!("invalid --scale option {text:?}. Should be SERVICE=NUM")))?;
        counts.insert(service, count);
    }
    Ok(counts)
}

/// What has to be made or brought here before; then the plan.
pub(super) async fn prepare(
    session: &Session,
    project: &ComposeProject,
    options: &UpOptions,
) -> Result<Plan, Failure> {
    for service in options.scale.keys() {
        known(project.project(), service)?;
    }
    let mut existing = project.existing().await?;
    let images = Plan::images(project.project(), &existing, options)?;
    if !images.is_empty() {
        session.apply(project, &images).await?;
        if !session.is_dry_run() {
            existing = project.existing().await?;
        }
    }
    Ok(Plan::up(project.project(), &existing, options)?)
}

#[derive(Debug, Args)]
pub(super) struct Up {
    #[command(flatten)]
    making: Making,
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Run in the background, and end when everything runs or is healthy
    #[arg(long)]
    wait: bool,
    /// Seconds that --wait may take
    #[arg(long)]
    wait_timeout: Option<u64>,
    /// Only the services themselves, not what they need
    #[arg(long)]
    no_deps: bool,
    /// Make what services need anew too
    #[arg(long)]
    always_recreate_deps: bool,
    /// Make containers and do not start them
    #[arg(long)]
    no_start: bool,
    /// Anonymous volumes are new ones
    #[arg(short = 'V', long)]
    renew_anon_volumes: bool,
    /// Seconds that stopping a container may take
    #[arg(short, long)]
    timeout: Option<u64>,
    #[command(flatten)]
    attaching: super::attached::Attaching,
}

impl Up {
    fn options(&self) -> Result<UpOptions, Failure> {
        let mut options = self.making.options()?;
        if self.no_deps {
            options.dependencies = Dependencies::Leave;
        }
        if self.always_recreate_deps {
            options.recreate_dependencies = Recreate::Force;
        }
        options.start = !self.no_start;
        options.renew_anonymous_volumes = self.renew_anon_volumes;
        options.wait = self.wait;
        options.timeout = self.timeout;
        Ok(options)
    }

    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let options = self.options()?;
        let background = self.detach || self.wait || self.no_start || session.is_dry_run();
        if let Some(flag) = self.attaching.foreground().filter(|_| self.detach || self.wait) {
            return Err(Failure::new(format!(
                "{flag} cannot be combined with --detach or --wait"
            )));
        }
        let project = session.load()?;
        let plan = prepare(session, &project, &options).await?;
        if !background {
            let named = &options.services;
            return super::attached::up(session, &project, &plan, named, &self.attaching, self.timeout).await;
        }
        let applied = session.apply(&project, &plan);
        match self.wait_timeout.filter(|_| self.wait) {
            None => applied.await?,
            Some(seconds) => tokio::time::timeout(Duration::from_secs(seconds), applied)
                .await
                .map_err(|_| Failure::new(format!("not everything is up after {seconds} s")))??,
        }
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    making: Making,
}

impl Create {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let mut options = self.making.options()?;
        options.start = false;
        let project = session.load()?;
        let plan = prepare(session, &project, &options).await?;
        session.apply(&project, &plan).await?;
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Scale {
    /// Only the services themselves, not what they need
    #[arg(long)]
    no_deps: bool,
    /// SERVICE=COUNT
    #[arg(required = true)]
    scale: Vec<String>,
}

impl Scale {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let mut options = UpOptions::default();
        options.scale = counts(&self.scale)?;
        options.services = options.scale.keys().cloned().collect();
        options.recreate = Recreate::Never;
        options.recreate_dependencies = Recreate::Never;
        if self.no_deps {
            options.dependencies = Dependencies::Leave;
        }
        let project = session.load()?;
        let plan = prepare(session, &project, &options).await?;
        session.apply(&project, &plan).await?;
        Ok(0)
    }
}
