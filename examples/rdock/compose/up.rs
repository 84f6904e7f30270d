//! `compose up`, `create` and `scale`.

use super::progress::Quiet;
use super::session::{Session, known};
use crate::{Failure, Outcome, streams};
use clap::{Args, ValueEnum};
use rdock_compose::plan::{Build, Existing, Pull, Recreate, UpOptions};
use rdock_compose::{ComposeProject, Dependencies, Plan, WatchOptions};
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

impl PullPolicy {
    pub(super) fn of(self) -> Option<Pull> {
        match self {
            Self::Always => Some(Pull::Always),
            Self::Missing => Some(Pull::Missing),
            Self::Never => Some(Pull::Never),
            Self::Policy => None,
        }
    }
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
    #[arg(long, env = "COMPOSE_REMOVE_ORPHANS", value_parser = clap::builder::FalseyValueParser::new())]
    remove_orphans: bool,
    /// When images are pulled, whatever services say
    #[arg(long, value_enum, default_value = "policy")]
    pull: PullPolicy,
    /// SERVICE=COUNT: how many containers a service has
    #[arg(long)]
    scale: Vec<String>,
    /// Do not tell how images are pulled
    #[arg(long)]
    quiet_pull: bool,
    /// Do not tell how images are built
    #[arg(long)]
    quiet_build: bool,
    /// Yes to every question: whether volumes are made anew whose configuration has changed
    #[arg(short, long, visible_alias = "assume-yes")]
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
        options.pull = self.pull.of();
        Ok(options)
    }

    fn quiet(&self) -> Quiet {
        Quiet {
            pull: self.quiet_pull,
            build: self.quiet_build,
            ..Quiet::default()
        }
    }
}

/// Reads SERVICE=COUNT.
fn counts(texts: &[String]) -> Result<BTreeMap<String, u32>, Failure> {
    let mut counts = BTreeMap::new();
    for text in texts {
        let count = text
            .split_once('=')
            .filter(|(service, _)| !service.is_empty())
            .and_then(|(service, count)| Some((service.to_owned(), count.parse().ok()?)));
        let (service, count) = count
            .ok_or_else(|| Failure::new(format!("invalid --scale option {text:?}. Should be SERVICE=NUM")))?;
        counts.insert(service, count);
    }
    Ok(counts)
}

/// What has to be made or brought here before; then the project with what programs provide for it, and the plan.
pub(super) async fn prepare(
    session: &Session,
    project: &ComposeProject,
    options: &UpOptions,
    yes: bool,
) -> Result<(ComposeProject, Plan), Failure> {
    for service in options.scale.keys() {
        known(project.project(), service)?;
    }
    let existing = images(session, project, options).await?;
    let project = session.provide(project, options).await?;
    let mut options = options.clone();
    for volume in Plan::changed_volumes(project.project(), &existing, &options)? {
        let question = format!(
            "Volume {volume:?} exists but does not match the configuration in the compose file: it is made anew, \
             and what is in it is lost."
        );
        if yes || !session.is_dry_run() && streams::is_terminal() && streams::confirm(&question)? {
            options.renew_volumes.insert(volume);
        }
    }
    let plan = Plan::up(project.project(), &existing, &options)?;
    Ok((project, plan))
}

/// Pulls and builds what has to be. What exists then.
pub(super) async fn images(
    session: &Session,
    project: &ComposeProject,
    options: &UpOptions,
) -> Result<Existing, Failure> {
    let mut existing = project.existing().await?;
    let images = Plan::images(project.project(), &existing, options)?;
    if !images.is_empty() {
        session.apply(project, &images).await?;
        if !session.is_dry_run() {
            existing = project.existing().await?;
        }
    }
    Ok(existing)
}

/// Ends after so many seconds, whether it is done or not.
pub(super) async fn within(
    seconds: Option<u64>,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    match seconds {
        None => work.await,
        Some(seconds) => tokio::time::timeout(Duration::from_secs(seconds), work)
            .await
            .map_err(|_| Failure::new(format!("not everything is up after {seconds} s")))?,
    }
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
    /// Bring changed files into containers meanwhile, or make them anew
    #[arg(short, long)]
    watch: bool,
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
        let mut options = self.options()?;
        options.all_resources = session.files().all_resources;
        let background = self.detach || self.wait || self.no_start || session.is_dry_run();
        if let Some(flag) = self.attaching.foreground().filter(|_| self.detach || self.wait) {
            return Err(Failure::new(format!(
                "{flag} cannot be combined with --detach or --wait"
            )));
        }
        if self.watch && (self.detach || self.wait) {
            return Err(Failure::new("--watch cannot be combined with --detach or --wait"));
        }
        let project = session.load_quietly(self.making.quiet())?;
        let (project, plan) = prepare(session, &project, &options, self.making.yes).await?;
        if !background {
            let watch = self.watch.then(|| {
                let mut watch = WatchOptions::default();
                watch.services.clone_from(&options.services);
                watch.build = options.build != Build::Never;
                watch
            });
            if let Some(watch) = &watch {
                project.watched(watch)?;
            }
            let staying = super::attached::Staying {
                named: &options.services,
                flags: &self.attaching,
                timeout: self.timeout,
                watch,
            };
            return super::attached::up(session, &project, &plan, &staying).await;
        }
        let applied = session.apply(&project, &plan);
        within(self.wait_timeout.filter(|_| self.wait), applied).await?;
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
        options.all_resources = session.files().all_resources;
        let project = session.load_quietly(self.making.quiet())?;
        let (project, plan) = prepare(session, &project, &options, self.making.yes).await?;
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
        let (project, plan) = prepare(session, &project, &options, false).await?;
        session.apply(&project, &plan).await?;
        Ok(0)
    }
}
