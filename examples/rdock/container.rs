//! `rdock stop`, `kill`, `wait`, `rm` and `port`: verbs on containers that exist.

use crate::streams::print;
use crate::{Failure, Outcome};
use clap::Args;
use rdock_runtime::{Container, Runtime};
use std::time::Duration;

/// Does something to each container; goes on after a failure, and fails in the end.
async fn each(
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

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds until SIGKILL
    #[arg(short, long, visible_alias = "timeout")]
    time: Option<u64>,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Stop {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let timeout = self.time.map(Duration::from_secs);
        each(runtime, &self.containers, async |container, name| {
            container.stop(timeout).await?;
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
}

impl Port {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        for bound in runtime.container(&self.container)?.inspect()?.ports {
            let protocol = format!("{:?}", bound.protocol).to_lowercase();
            print(&format!("{}/{protocol} -> {}", bound.container, bound.host));
        }
        Ok(0)
    }
}
