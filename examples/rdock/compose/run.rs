//! `compose run`.

use super::exec::Connected;
use super::progress::Quiet;
use super::session::{Session, known};
use super::up::PullPolicy;
use crate::lifetime::Connection;
use crate::{Failure, Outcome, attach, chain, streams};
use clap::{Args, Parser};
use rdock_compose::plan::{Operation, RunOptions, UpOptions};
use rdock_compose::{Dependencies, Plan, split_words};
use rdock_runtime::{
    ContainerSpec, Mount, MountSource, PortMapping, RestartPolicy, parse_env_file, parse_env_flag,
};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    connected: Connected,
    /// The container's name
    #[arg(long)]
    name: Option<String>,
    /// Set an environment variable
    #[arg(short, long)]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long)]
    env_from_file: Vec<PathBuf>,
    /// Add a capability
    #[arg(long)]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long)]
    cap_drop: Vec<String>,
    /// User or uid, with :group
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// Mount a volume or a path of this host
    #[arg(short, long)]
    volume: Vec<String>,
    /// Publish a port
    #[arg(short, long)]
    publish: Vec<String>,
    /// Publish the ports of the service
    #[arg(short = 'P', long, conflicts_with = "publish")]
    service_ports: bool,
    /// Be found by the names of the service
    #[arg(long)]
    use_aliases: bool,
    /// Start nothing that the service needs
    #[arg(long)]
    no_deps: bool,
    /// Build the image first
    #[arg(long)]
    build: bool,
    /// When images are pulled, whatever services say
    #[arg(long, value_enum, default_value = "policy")]
    pull: PullPolicy,
    /// Tell nothing of what is done
    #[arg(short, long)]
    quiet: bool,
    /// Do not tell how images are pulled
    #[arg(long)]
    quiet_pull: bool,
    /// Do not tell how images are built
    #[arg(long)]
    quiet_build: bool,
    /// Remove containers of services that the files no longer have
    #[arg(long)]
    remove_orphans: bool,
    /// Run this before the arguments
    #[arg(long)]
    entrypoint: Option<String>,
    /// Set a label
    #[arg(short, long)]
    label: Vec<String>,
    /// The service
    service: String,
    /// Command and arguments, instead of the service's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// What the flags change.
#[derive(Clone)]
struct Changes {
    args: Vec<String>,
    entrypoint: Option<Vec<String>>,
    env: Vec<(String, String)>,
    user: Option<String>,
    workdir: Option<String>,
    mounts: Vec<Mount>,
    ports: Vec<PortMapping>,
    terminal: bool,
    interactive: bool,
    auto_remove: bool,
    labels: Vec<(String, String)>,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
}

impl Changes {
    fn apply(&self, spec: &mut ContainerSpec) {
        if let Some(entrypoint) = &self.entrypoint {
            spec.entrypoint = Some(entrypoint.clone());
            // The service's arguments were for its own.
            spec.args.clear();
        }
        if !self.args.is_empty() {
            spec.args.clone_from(&self.args);
        }
        for (name, value) in &self.env {
            spec.env.retain(|(known, _)| known != name);
            spec.env.push((name.clone(), value.clone()));
        }
        spec.user = self.user.clone().or(spec.user.take());
        spec.working_dir = self.workdir.clone().or(spec.working_dir.take());
        for mount in &self.mounts {
            spec.mounts.retain(|known| known.target != mount.target);
            spec.mounts.push(mount.clone());
        }
        spec.ports.extend(self.ports.iter().cloned());
        spec.terminal = self.terminal;
        spec.interactive = self.interactive;
        spec.auto_remove = self.auto_remove;
        spec.restart = RestartPolicy::No;
        spec.labels.extend(self.labels.iter().cloned());
        spec.cap_add.extend(self.cap_add.iter().cloned());
        spec.cap_drop.extend(self.cap_drop.iter().cloned());
    }
}

/// The flags of a connection as nobody gave them.
#[derive(Debug, Parser)]
struct Usual {
    #[command(flatten)]
    connection: Connection,
}

fn bad(error: impl std::error::Error) -> Failure {
    Failure::new(chain(&error))
}

impl Run {
    fn changes(&self, terminal: bool) -> Result<Changes, Failure> {
        let mut env = Vec::new();
        for path in &self.env_from_file {
            let text =
                std::fs::read(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
            env.extend(parse_env_file(&text, |name| std::env::var(name).ok()).map_err(bad)?);
        }
        for text in &self.env {
            env.extend(parse_env_flag(text, |name| std::env::var(name).ok()).map_err(bad)?);
        }
        let mut mounts = Vec::new();
        for text in &self.volume {
            let mut mount = Mount::parse_volume_flag(text).map_err(bad)?;
            if let MountSource::Bind { path, .. } = &mut mount.source {
                *path = std::path::absolute(&*path)?;
            }
            mounts.push(mount);
        }
        let mut ports = Vec::new();
        for text in &self.publish {
            ports.extend(PortMapping::parse(text).map_err(bad)?);
        }
        let label = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        };
        Ok(Changes {
            args: self.command.clone(),
            entrypoint: self
                .entrypoint
                .as_ref()
                .map(|text| split_words(text).map_err(|error| Failure::new(format!("--entrypoint: {error}"))))
                .transpose()?,
            env,
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            mounts,
            ports,
            terminal,
            interactive: !self.detach && self.connected.interactive,
            auto_remove: self.rm,
            labels: self.label.iter().map(label).collect(),
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
        })
    }

    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let terminal = !self.detach && self.connected.terminal();
        let changes = self.changes(terminal)?;
        let interactive = changes.interactive;
        let project = session.load_quietly(Quiet {
            all: self.quiet,
            pull: self.quiet_pull,
            build: self.quiet_build,
        })?;
        known(project.project(), &self.service)?;
        let mut options = RunOptions::new(&self.service, slug()?);
        options.name.clone_from(&self.name);
        options.remove_orphans = self.remove_orphans;
        options.service_ports = self.service_ports;
        options.use_aliases = self.use_aliases;
        let mut images = UpOptions::default();
        images.services.push(self.service.clone());
        if self.build {
            images.build = rdock_compose::plan::Build::Always;
        }
        if self.no_deps {
            options.dependencies = Dependencies::Leave;
            images.dependencies = Dependencies::Leave;
        }
        images.pull = self.pull.of();
        let existing = super::up::images(session, &project, &images).await?;
        let project = session.provide(&project, &images).await?;
        let project = project.one_off(move |spec| changes.apply(spec));
        let mut plan = Plan::run(project.project(), &existing, &options)?;
        // It is started here, so that nothing of its output is missed.
        let name = match plan.steps.last().map(|step| &step.operation) {
            Some(Operation::StartContainer { container }) => container.name.clone(),
            _ => return Err(Failure::new("there is nothing to run")),
        };
        if session.is_dry_run() {
            session.apply(&project, &plan).await?;
            return Ok(0);
        }
        if self.detach {
            session.apply(&project, &plan).await?;
            // One that is gone already because of --rm has its name only.
            let made = session.runtime().container(&name);
            streams::print(made.as_ref().map_or(&name, |made| made.id()));
            return Ok(0);
        }
        plan.steps.pop();
        session.apply(&project, &plan).await?;
        let container = session.runtime().container(&name)?;
        let (container, attached) = container.start_attached().await.map_err(Failure::of_run)?;
        let usual = Usual::try_parse_from(["run"]).map_err(|error| Failure::new(error.to_string()))?;
        attach::lend(&container, attached, terminal, interactive, &usual.connection).await
    }
}

/// Twelve random hexadecimal digits.
fn slug() -> Result<String, Failure> {
    let mut bytes = [0; 6];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
