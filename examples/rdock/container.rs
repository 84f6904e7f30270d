//! `rdock stop`, `kill`, `wait`, `rm` and `port`: verbs on containers that exist.

use crate::streams::print;
use crate::{Failure, Outcome};
use clap::{Args, Subcommand};
use rdock_runtime::{Container, Runtime};
use std::time::Duration;

/// Does something to each container; goes on after a failure, and fails in the end.
pub(crate) async fn each(
    runtime: &Runtime,
    names: &[String],
    action: impl AsyncFn(&Container, &str) -> Result<(), rdock_runtime::Error>,
) -> Outcome {
    let mut code = 0;
    for name in names {
        let done = match runtime.container(name) {
            Ok(container) => action(&container, name).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            Failure::from(error).say();
            code = 1;
        }
    }
    Ok(code)
}

/// A timeout as docker writes it: a negative one never passes.
pub(crate) fn seconds(count: i64) -> Duration {
    u64::try_from(count).map_or(Duration::MAX, Duration::from_secs)
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The signal, instead of the container's own
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds until SIGKILL, -1 for never
    #[arg(short, long, visible_alias = "timeout", allow_hyphen_values = true)]
    time: Option<i64>,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Stop {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let timeout = self.time.map(seconds);
        each(runtime, &self.containers, async |container, name| {
            container.stop_with(self.signal.as_deref(), timeout).await?;
            print(name);
            Ok(())
        })
        .await
    }
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// The signal
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Kill {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        each(runtime, &self.containers, async |container, name| {
            container.kill(&self.signal).await?;
            print(name);
            Ok(())
        })
        .await
    }
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Wait {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        each(runtime, &self.containers, async |container, _| {
            let exit = container.wait().await?;
            print(&exit.code().to_string());
            Ok(())
        })
        .await
    }
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Kill those that run
    #[arg(short, long)]
    force: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Rm {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        each(runtime, &self.containers, async |container, name| {
            container.remove_with(self.force, self.volumes).await?;
            print(name);
            Ok(())
        })
        .await
    }
}

#[derive(Debug, Args)]
pub(crate) struct Port {
    /// The container
    container: String,
    /// Only this port of the container: 80, 80/udp
    port: Option<String>,
}

impl Port {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let info = runtime.container(&self.container)?.inspect()?;
        let word = |protocol| format!("{protocol:?}").to_lowercase();
        let Some(text) = &self.port else {
            for bound in info.ports {
                print(&format!(
                    "{}/{} -> {}",
                    bound.container,
                    word(bound.protocol),
                    bound.host
                ));
            }
            return Ok(0);
        };
        let wrong = || Failure::new(format!("not a port: {text:?}; expected 80 or 80/udp"));
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let port: u16 = port.parse().map_err(|_| wrong())?;
        if !matches!(protocol, "tcp" | "udp") {
            return Err(wrong());
        }
        let mut found = false;
        for bound in info.ports {
            if bound.container == port && word(bound.protocol) == protocol {
                print(&bound.host.to_string());
                found = true;
            }
        }
        match found {
            true => Ok(0),
            false => Err(Failure::new(format!(
                "no public port '{port}/{protocol}' published for {}",
                self.container
            ))),
        }
    }
}

/// docker's verbs behind `container`.
#[derive(Debug, Subcommand)]
pub(crate) enum Containers {
    /// Create and run a container
    Run(Box<crate::run::Run>),
    /// Create a container without starting it
    Create(Box<crate::create::Create>),
    /// Start containers
    Start(crate::start::Start),
    /// Stop containers and start them again
    Restart(crate::restart::Restart),
    /// Connect this terminal to a running container
    Attach(crate::attach::Attach),
    /// Freeze the processes of containers
    Pause(crate::pause::Pause),
    /// Let paused containers go on
    Unpause(crate::pause::Pause),
    /// Give a container another name
    Rename(crate::rename::Rename),
    /// Change limits and restart policy of containers
    Update(crate::update::Update),
    /// Copy files between a container and this host
    Cp(crate::cp::Cp),
    /// List what a container changed in its files
    Diff(crate::diff::Diff),
    /// Write the files of a container as a tar archive
    Export(crate::diff::Export),
    /// Make an image of a container
    Commit(crate::diff::Commit),
    /// List containers
    #[command(visible_alias = "list", alias = "ps")]
    Ls(crate::ps::Ps),
    /// Remove containers that do not run
    Prune(crate::system::ContainerPrune),
    /// Show everything about containers, as JSON
    Inspect(crate::inspect::Inspect),
    /// Show what containers use
    Stats(crate::stats::StatsArguments),
    /// List the processes of a container
    Top(crate::top::TopArguments),
    /// Show the output of a container
    Logs(crate::logs::LogsArguments),
    /// List the published ports of a container
    Port(Port),
    /// Run a command in a running container
    Exec(crate::exec::ExecArguments),
    /// Stop containers
    Stop(Stop),
    /// Send a signal to containers
    Kill(Kill),
    /// Wait until containers end
    Wait(Wait),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

impl Containers {
    /// Whether it makes a container: then what fails before that has a code of its own.
    pub(crate) fn makes_one(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Create(_))
    }

    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        match self {
            Self::Run(verb) => verb.execute(runtime).await,
            Self::Create(verb) => verb.execute(runtime).await,
            Self::Start(verb) => verb.execute(runtime).await,
            Self::Restart(verb) => verb.execute(runtime).await,
            Self::Attach(verb) => verb.execute(runtime).await,
            Self::Pause(verb) => verb.execute(runtime, true).await,
            Self::Unpause(verb) => verb.execute(runtime, false).await,
            Self::Rename(verb) => verb.execute(runtime).await,
            Self::Update(verb) => verb.execute(runtime).await,
            Self::Cp(verb) => verb.execute(runtime).await,
            Self::Diff(verb) => verb.execute(runtime).await,
            Self::Export(verb) => verb.execute(runtime).await,
            Self::Commit(verb) => verb.execute(runtime).await,
            Self::Ls(verb) => verb.execute(runtime),
            Self::Prune(verb) => verb.execute(runtime).await,
            Self::Inspect(verb) => verb.of_kind("container").execute(runtime),
            Self::Stats(verb) => verb.execute(runtime).await,
            Self::Top(verb) => verb.execute(runtime).await,
            Self::Logs(verb) => verb.execute(runtime).await,
            Self::Port(verb) => verb.execute(runtime),
            Self::Exec(verb) => verb.execute(runtime).await,
            Self::Stop(verb) => verb.execute(runtime).await,
            Self::Kill(verb) => verb.execute(runtime).await,
            Self::Wait(verb) => verb.execute(runtime).await,
            Self::Rm(verb) => verb.execute(runtime).await,
        }
    }
}
