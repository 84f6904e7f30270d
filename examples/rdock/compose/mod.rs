//! `rdock compose`: docker compose's verbs, one file a verb.

mod attached;
mod config;
mod down;
mod events;
mod exec;
mod images;
mod life;
mod logs;
mod progress;
mod ps;
mod reach;
mod run;
mod session;
mod up;
mod watch;

use crate::{Failure, Outcome, streams};
use clap::{Args, Subcommand, ValueEnum};
use rdock_compose::{ApplyError, LoadOptions, SelectError, Warning, WarningKind};
use session::Session;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A project of containers, from a compose file
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Compose {
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(flatten)]
    pub(crate) manner: Manner,
    /// Show the version
    #[arg(short = 'v', long)]
    version: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// How things are done and shown.
#[derive(Debug, Args)]
pub(crate) struct Manner {
    /// Print what would be done, and do nothing
    #[arg(long, global = true)]
    dry_run: bool,
    /// How much is done at the same time; -1 for no limit
    #[arg(
        long,
        default_value = "-1",
        allow_negative_numbers = true,
        env = "COMPOSE_PARALLEL_LIMIT"
    )]
    parallel: i64,
    /// When colours are used
    #[arg(long, value_enum, default_value = "auto", env = "COMPOSE_ANSI")]
    ansi: Ansi,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto", env = "COMPOSE_PROGRESS")]
    progress: Shown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ansi {
    Never,
    Always,
    Auto,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shown {
    /// Tty on a terminal, unless --ansi is never; else plain
    Auto,
    /// A line a thing, drawn anew; lines where there is no terminal
    Tty,
    /// Lines
    Plain,
    /// A JSON object a line
    Json,
    /// Nothing
    Quiet,
}

/// Which project, and with which variables.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// A compose file; - is the standard input
    #[arg(short, long = "file")]
    file: Vec<PathBuf>,
    /// The project's name
    #[arg(short, long)]
    project_name: Option<String>,
    /// A profile that is active; * for all
    #[arg(long)]
    profile: Vec<String>,
    /// A file of variables, instead of .env
    #[arg(long)]
    env_file: Vec<PathBuf>,
    /// The folder that relative paths begin at
    #[arg(long, alias = "workdir")]
    project_directory: Option<PathBuf>,
    /// Networks, volumes, configs and secrets that no service uses, too
    #[arg(long)]
    pub(super) all_resources: bool,
    /// Names of containers and images have _ between their parts
    #[arg(long, env = "COMPOSE_COMPATIBILITY", value_parser = clap::builder::FalseyValueParser::new())]
    compatibility: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print the project as it is understood
    #[command(alias = "convert")]
    Config(config::Config),
    /// Make the project's containers and start them
    Up(Box<up::Up>),
    /// Make the project's containers without starting them
    Create(Box<up::Create>),
    /// Set how many containers services have
    Scale(up::Scale),
    /// Stop and remove the project's containers and networks
    Down(down::Down),
    /// Remove containers that do not run
    Rm(down::Rm),
    /// List containers
    Ps(ps::Ps),
    /// List projects
    Ls(ps::Ls),
    /// Run a command in a running container
    Exec(exec::Exec),
    /// Run a command in a new container of a service
    Run(Box<run::Run>),
    /// Show the output of containers
    Logs(logs::Logs),
    /// Start containers that are there
    Start(life::Start),
    /// Stop containers
    Stop(life::Stop),
    /// Stop containers and start them again
    Restart(life::Restart),
    /// Send a signal to containers
    Kill(life::Kill),
    /// Freeze the processes of containers
    Pause(life::Services),
    /// Let paused containers go on
    Unpause(life::Services),
    /// Build images
    Build(images::Build),
    /// Download images
    Pull(images::Pull),
    /// Upload images
    Push(images::Push),
    /// List the images that containers were made of
    Images(images::Images),
    /// Print where a port of a service is published
    Port(ps::Port),
    /// List the processes of containers
    Top(ps::Top),
    /// Show what happens to containers
    Events(events::Events),
    /// Copy files between a container and this host
    Cp(exec::Cp),
    /// Wait until containers of services end, and print their exit codes
    Wait(life::Wait),
    /// Show what containers use, again and again
    Stats(reach::Stats),
    /// List volumes
    Volumes(ps::Volumes),
    /// Connect this terminal to a running container
    Attach(reach::Attach),
    /// Make an image of a container
    Commit(reach::Commit),
    /// Write the files of a container as a tar archive
    Export(reach::Export),
    /// Bring changed files into containers, or make them anew
    Watch(watch::Watch),
    /// Show the version
    Version(Version),
}

impl Verb {
    /// docker compose's word for what is under way.
    fn doing(&self) -> &'static str {
        match self {
            Self::Build(_) => "build",
            Self::Pull(_) => "pull",
            Self::Create(_) => "create",
            Self::Scale(_) => "scale",
            Self::Down(_) => "down",
            Self::Rm(_) => "remove",
            Self::Run(_) => "run",
            Self::Start(_) => "start",
            Self::Stop(_) => "stop",
            Self::Restart(_) => "restart",
            Self::Kill(_) => "kill",
            Self::Pause(_) => "pause",
            Self::Unpause(_) => "unpause",
            _ => "up",
        }
    }
}

#[derive(Debug, Default, Args)]
pub(crate) struct Version {
    /// Only the number
    #[arg(long)]
    short: bool,
    /// pretty or json
    #[arg(short, long, value_enum, default_value = "pretty")]
    format: VersionFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum VersionFormat {
    #[default]
    Pretty,
    Json,
}

impl Version {
    fn execute(&self) -> Outcome {
        let version = env!("CARGO_PKG_VERSION");
        streams::print(&match (self.short, self.format) {
            (true, _) => version.to_owned(),
            (false, VersionFormat::Pretty) => format!("rdock compose version {version}"),
            (false, VersionFormat::Json) => serde_json::json!({"version": version}).to_string(),
        });
        Ok(0)
    }
}

impl Compose {
    /// Does what was asked.
    pub(crate) async fn execute(self, root: Option<PathBuf>) -> Outcome {
        match self.verb {
            _ if self.version => Version::default().execute(),
            None => Err(Failure::new("no command is given; see `rdock compose --help`")),
            Some(Verb::Config(verb)) => verb.execute(&self.files).await,
            Some(Verb::Version(verb)) => verb.execute(),
            Some(verb) => perform(root, self.files, self.manner, verb).await,
        }
    }
}

/// Does what needs a runtime.
async fn perform(root: Option<PathBuf>, files: Files, manner: Manner, verb: Verb) -> Outcome {
    let session = Session::new(crate::open(root)?, files, manner, verb.doing());
    match verb {
        Verb::Config(verb) => verb.execute(session.files()).await,
        Verb::Up(verb) => verb.execute(&session).await,
        Verb::Create(verb) => verb.execute(&session).await,
        Verb::Scale(verb) => verb.execute(&session).await,
        Verb::Down(verb) => verb.execute(&session).await,
        Verb::Rm(verb) => verb.execute(&session).await,
        Verb::Ps(verb) => verb.execute(&session),
        Verb::Ls(verb) => verb.execute(&session),
        Verb::Exec(verb) => verb.execute(&session).await,
        Verb::Run(verb) => verb.execute(&session).await,
        Verb::Logs(verb) => verb.execute(&session).await,
        Verb::Start(verb) => verb.execute(&session).await,
        Verb::Stop(verb) => verb.execute(&session).await,
        Verb::Restart(verb) => verb.execute(&session).await,
        Verb::Kill(verb) => verb.execute(&session).await,
        Verb::Pause(verb) => verb.execute(&session, true).await,
        Verb::Unpause(verb) => verb.execute(&session, false).await,
        Verb::Build(verb) => verb.execute(&session).await,
        Verb::Pull(verb) => verb.execute(&session).await,
        Verb::Push(verb) => verb.execute(&session).await,
        Verb::Images(verb) => verb.execute(&session),
        Verb::Port(verb) => verb.execute(&session),
        Verb::Top(verb) => verb.execute(&session).await,
        Verb::Events(verb) => verb.execute(&session).await,
        Verb::Cp(verb) => verb.execute(&session).await,
        Verb::Wait(verb) => verb.execute(&session).await,
        Verb::Stats(verb) => verb.execute(&session).await,
        Verb::Volumes(verb) => verb.execute(&session),
        Verb::Attach(verb) => verb.execute(&session).await,
        Verb::Commit(verb) => verb.execute(&session).await,
        Verb::Export(verb) => verb.execute(&session).await,
        Verb::Version(verb) => verb.execute(),
        Verb::Watch(verb) => verb.execute(&session).await,
    }
}

/// The words of a program that is called through a link named docker-compose, as those of `rdock compose`.
pub(crate) fn words(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.collect();
    let name = words.first().map(Path::new).and_then(Path::file_name);
    if name.is_some_and(|name| name == "docker-compose" || name == "rdock-compose") {
        words.insert(1, "compose".into());
    }
    words
}

impl Files {
    /// What the loader is told: these flags, and this program's folder and environment.
    pub(crate) fn options(&self) -> Result<LoadOptions, Failure> {
        let mut options = LoadOptions::new(std::env::current_dir()?);
        options.files.clone_from(&self.file);
        if self.file.iter().any(|file| file == Path::new("-")) {
            let mut text = String::new();
            // More than any document may have is refused by the loader.
            std::io::stdin().take(64 << 20).read_to_string(&mut text)?;
            options.stdin = Some(text);
        }
        options.project_name.clone_from(&self.project_name);
        options.profiles.clone_from(&self.profile);
        options.env_files.clone_from(&self.env_file);
        options.project_directory.clone_from(&self.project_directory);
        options.compatibility = self.compatibility;
        // Variables that are not text cannot be put into text.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        options.environment = variables.collect();
        Ok(options)
    }
}

/// Whether a variable of this program's says yes.
pub(crate) fn truth(variable: &str) -> bool {
    let value = std::env::var(variable).unwrap_or_default();
    matches!(
        value.to_ascii_lowercase().as_str(),
        "1" | "true" | "yes" | "on" | "y" | "t"
    )
}

/// Says warnings for people. A file of which the project says that it may be missing is not missed.
pub(crate) fn warn(warnings: &[Warning]) {
    let told = |warning: &&Warning| warning.kind != WarningKind::MissingFile;
    for warning in warnings.iter().filter(told) {
        streams::say(&format!("WARNING: {warning}"));
    }
}

impl From<rdock_compose::Error> for Failure {
    fn from(error: rdock_compose::Error) -> Self {
        Self {
            hint: error.hint(),
            ..Self::new(crate::chain(&error))
        }
    }
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        Self {
            hint: error.hint(),
            ..Self::new(crate::chain(&error))
        }
    }
}

impl From<rdock_compose::plan::PlanError> for Failure {
    fn from(error: rdock_compose::plan::PlanError) -> Self {
        Self::new(error.to_string())
    }
}
