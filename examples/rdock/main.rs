//! `rdock`: docker's daily verbs over the libraries, one file a verb.
//!
//! Every command opens the root, does its work in this process and ends; there is no daemon. The only
//! processes that stay are the monitors of detached containers, and those are this very program again.

mod attach;
mod build;
mod build_call;
mod build_host;
mod build_progress;
mod compose;
mod container;
mod cp;
mod create;
mod diff;
mod events;
mod exec;
mod foreign;
mod history;
mod image;
mod images;
mod inspect;
mod lifetime;
mod limits;
mod listing;
mod login;
mod logs;
mod network;
mod pause;
mod ps;
mod pull;
mod push;
mod registry;
mod rename;
mod restart;
mod run;
mod save;
mod start;
mod stats;
mod streams;
mod system;
mod table;
mod template;
mod top;
mod update;
mod volume;

use clap::{Parser, Subcommand};
use rdock_runtime::Runtime;
use std::path::PathBuf;
use std::process::ExitCode;

/// What a command ends with: an exit code, or an error and the code for it.
type Outcome = Result<u8, Failure>;

/// An error on its way to the terminal.
#[derive(Debug)]
struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            code: 1,
        }
    }

    /// Prints it on stderr: one line, and one more when the host has to change.
    fn say(&self) {
        streams::say(&format!("rdock: {}", self.message));
        if let Some(hint) = &self.hint {
            streams::say(&format!("hint: {hint}"));
        }
    }

    /// docker's code for an `exec` that could not start.
    fn of_exec(error: rdock_runtime::Error) -> Self {
        match error.exit_code() {
            125 => error.into(),
            _ => Self::of_run(error),
        }
    }

    /// docker's code for a template that cannot be read.
    fn of_template(reason: String) -> Self {
        Self {
            code: 64,
            ..Self::new(format!("template parsing error: {reason}"))
        }
    }

    /// docker's code for a `run` that could not start.
    fn of_run(error: rdock_runtime::Error) -> Self {
        let code = error.exit_code() as u8;
        Self {
            code,
            ..Self::from(error)
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // A transparent error repeats its cause.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl From<rdock_runtime::Error> for Failure {
    fn from(error: rdock_runtime::Error) -> Self {
        Self {
            message: chain(&error),
            hint: error.hint(),
            code: 1,
        }
    }
}

impl From<rdock_image::Error> for Failure {
    fn from(error: rdock_image::Error) -> Self {
        rdock_runtime::Error::from(error).into()
    }
}

impl From<rdock_runtime::VolumeError> for Failure {
    fn from(error: rdock_runtime::VolumeError) -> Self {
        rdock_runtime::Error::from(error).into()
    }
}

impl From<rdock_runtime::NetError> for Failure {
    fn from(error: rdock_runtime::NetError) -> Self {
        rdock_runtime::Error::from(error).into()
    }
}

impl From<rdock_registry::Error> for Failure {
    fn from(error: rdock_registry::Error) -> Self {
        Self {
            message: chain(&error),
            hint: error.hint(),
            code: 1,
        }
    }
}

impl From<rdock_compose::DigestError<rdock_registry::Error>> for Failure {
    fn from(error: rdock_compose::DigestError<rdock_registry::Error>) -> Self {
        Self {
            message: chain(&error),
            hint: error.source.hint(),
            code: 1,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// Docker's verbs, in this process: no daemon.
#[derive(Debug, Parser)]
#[command(name = "rdock", version, disable_help_subcommand = true)]
struct Arguments {
    /// Where images, containers, volumes and networks are kept.
    #[arg(long, env = "RDOCK_ROOT", global = true)]
    root: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build an image from a Dockerfile
    Build(Box<build::Build>),
    /// Manage the build cache
    #[command(subcommand)]
    Builder(build::BuilderVerb),
    /// Docker's newer name for both
    #[command(subcommand, hide = true)]
    Buildx(build::Buildx),
    /// Download an image from a registry
    Pull(pull::Pull),
    /// Upload an image to a registry
    Push(push::Push),
    /// List images
    Images(images::Images),
    /// Show the steps an image was made by
    History(history::History),
    /// Remove images
    Rmi(image::Rmi),
    /// Give an image another name
    Tag(image::Tag),
    /// Log in to a registry
    Login(login::Login),
    /// Log out of a registry
    Logout(login::Logout),
    /// Be a registry
    #[command(subcommand)]
    Registry(registry::Registry),
    /// Write images into an archive
    Save(save::Save),
    /// Load images from an archive
    Load(image::Load),
    /// Create and run a container
    Run(Box<run::Run>),
    /// Create a container without starting it
    Create(Box<create::Create>),
    /// Start containers
    Start(start::Start),
    /// Stop containers and start them again
    Restart(restart::Restart),
    /// Connect this terminal to a running container
    Attach(attach::Attach),
    /// Freeze the processes of containers
    Pause(pause::Pause),
    /// Let paused containers go on
    Unpause(pause::Pause),
    /// Give a container another name
    Rename(rename::Rename),
    /// Change limits and restart policy of containers
    Update(update::Update),
    /// List containers
    Ps(ps::Ps),
    /// Copy files between a container and this host
    Cp(cp::Cp),
    /// List what a container changed in its files
    Diff(diff::Diff),
    /// Write the files of a container as a tar archive
    Export(diff::Export),
    /// Make an image of a container
    Commit(diff::Commit),
    /// Run a command in a running container
    Exec(exec::ExecArguments),
    /// Show what containers use, again and again
    Stats(stats::StatsArguments),
    /// List the processes of a container
    Top(top::TopArguments),
    /// Show what happens in this root
    Events(events::EventsArguments),
    /// Show the output of a container
    Logs(logs::LogsArguments),
    /// Stop containers
    Stop(container::Stop),
    /// Send a signal to containers
    Kill(container::Kill),
    /// Wait until containers end, and print their exit codes
    Wait(container::Wait),
    /// Remove containers
    Rm(container::Rm),
    /// List the published ports of a container
    Port(container::Port),
    /// Show everything about containers, images, volumes and networks, as JSON
    Inspect(inspect::Inspect),
    /// Manage containers
    #[command(subcommand, name = "container")]
    Containers(container::Containers),
    /// Manage images
    #[command(subcommand, name = "image")]
    ImageVerbs(image::ImageVerbs),
    /// Manage volumes
    #[command(subcommand)]
    Volume(volume::Volume),
    /// Manage networks
    #[command(subcommand)]
    Network(network::Network),
    /// Run projects of several containers from a compose file
    Compose(Box<compose::Compose>),
    /// Show what this root is and what this machine can do
    Info(system::InfoArguments),
    /// Show and remove what this root keeps
    #[command(subcommand)]
    System(system::System),
    /// Show the version
    Version(system::VersionArguments),
}

/// docker's code for words it does not understand.
const USAGE: u8 = 125;

/// What to do about words that are not a command: show the help that was asked for, or say what is wrong on one line.
fn misunderstood(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            streams::print(text.trim_end());
            ExitCode::SUCCESS
        }
        kind => {
            let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
            let message = lines.collect::<Vec<_>>().join(" ");
            let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
            let verb: Vec<&str> = usage
                .unwrap_or("rdock")
                .split(' ')
                .take_while(|word| !word.starts_with(['[', '<', '-']))
                .collect();
            let message = message.strip_prefix("error: ").unwrap_or(&message);
            streams::say(&format!("rdock: {message}; see `{} --help`", verb.join(" ")));
            ExitCode::from(if kind == ErrorKind::InvalidSubcommand {
                1
            } else {
                USAGE
            })
        }
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(compose::words(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(error) => return misunderstood(&error),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run_verb(arguments));
            // A thread that still copies the terminal's input must not hold back the end.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.say();
            ExitCode::from(failure.code)
        }
    }
}

/// Opens the root that `--root` or the environment names, with registries as the source of images.
fn open(root: Option<PathBuf>) -> Result<Runtime, Failure> {
    Ok(match root {
        None => Runtime::open_default()?,
        Some(root) => {
            let client = rdock_registry::RegistryClient::from_environment()?;
            Runtime::open(root)?.with_source(std::sync::Arc::new(client))
        }
    })
}

async fn run_verb(arguments: Arguments) -> Outcome {
    match arguments.verb {
        Verb::Version(verb) => return verb.execute(),
        Verb::Login(verb) => return verb.execute().await,
        Verb::Logout(verb) => return verb.execute().await,
        Verb::Compose(verb) => return verb.execute(arguments.root).await,
        Verb::Registry(verb) => return verb.execute().await,
        _ => {}
    }
    let is_run = match &arguments.verb {
        Verb::Run(_) | Verb::Create(_) => true,
        Verb::Containers(verb) => verb.makes_one(),
        _ => false,
    };
    let runtime = open(arguments.root).map_err(|failure| Failure {
        code: if is_run { 125 } else { 1 },
        ..failure
    })?;
    match arguments.verb {
        Verb::Build(verb) => verb.execute(&runtime).await,
        Verb::Builder(verb) => verb.execute(&runtime).await,
        Verb::Buildx(verb) => verb.execute(&runtime).await,
        Verb::Pull(verb) => verb.execute(&runtime).await,
        Verb::Push(verb) => verb.execute(&runtime).await,
        Verb::Images(verb) => verb.execute(&runtime),
        Verb::History(verb) => verb.execute(&runtime),
        Verb::Rmi(verb) => verb.execute(&runtime),
        Verb::Tag(verb) => verb.execute(&runtime),
        Verb::Save(verb) => verb.execute(&runtime),
        Verb::Load(verb) => verb.execute(&runtime),
        Verb::Run(verb) => verb.execute(&runtime).await,
        Verb::Create(verb) => verb.execute(&runtime).await,
        Verb::Start(verb) => verb.execute(&runtime).await,
        Verb::Restart(verb) => verb.execute(&runtime).await,
        Verb::Attach(verb) => verb.execute(&runtime).await,
        Verb::Pause(verb) => verb.execute(&runtime, true).await,
        Verb::Unpause(verb) => verb.execute(&runtime, false).await,
        Verb::Rename(verb) => verb.execute(&runtime).await,
        Verb::Update(verb) => verb.execute(&runtime).await,
        Verb::Ps(verb) => verb.execute(&runtime),
        Verb::Cp(verb) => verb.execute(&runtime).await,
        Verb::Diff(verb) => verb.execute(&runtime).await,
        Verb::Export(verb) => verb.execute(&runtime).await,
        Verb::Commit(verb) => verb.execute(&runtime).await,
        Verb::Exec(verb) => verb.execute(&runtime).await,
        Verb::Stats(verb) => verb.execute(&runtime).await,
        Verb::Top(verb) => verb.execute(&runtime).await,
        Verb::Events(verb) => verb.execute(&runtime).await,
        Verb::Logs(verb) => verb.execute(&runtime).await,
        Verb::Stop(verb) => verb.execute(&runtime).await,
        Verb::Kill(verb) => verb.execute(&runtime).await,
        Verb::Wait(verb) => verb.execute(&runtime).await,
        Verb::Rm(verb) => verb.execute(&runtime).await,
        Verb::Port(verb) => verb.execute(&runtime),
        Verb::Inspect(verb) => verb.execute(&runtime),
        Verb::Containers(verb) => verb.execute(&runtime).await,
        Verb::ImageVerbs(verb) => verb.execute(&runtime).await,
        Verb::Volume(verb) => verb.execute(&runtime),
        Verb::Network(verb) => verb.execute(&runtime).await,
        Verb::Info(verb) => verb.execute(&runtime),
        Verb::Login(verb) => verb.execute().await,
        Verb::Logout(verb) => verb.execute().await,
        Verb::Compose(verb) => verb.execute(None).await,
        Verb::Registry(verb) => verb.execute().await,
        Verb::System(verb) => verb.execute(&runtime).await,
        Verb::Version(verb) => verb.execute(),
    }
}
