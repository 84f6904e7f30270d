//! `rdock start`.

use crate::lifetime::Connection;
use crate::streams::{self, print};
use crate::{Failure, Outcome, attach};
use clap::Args;
use rdock_runtime::{Error, Runtime};

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Connect its output to this terminal, and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Connect its input too
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    connection: Connection,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Start {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        if self.attach || self.interactive {
            let [name] = self.containers.as_slice() else {
                return Err(Failure::new(
                    "you cannot start and attach multiple containers at once",
                ));
            };
            let container = runtime.container(name)?;
            let info = container.inspect()?;
            let interactive = self.interactive && info.spec.interactive;
            if interactive && info.spec.terminal && !streams::is_terminal() {
                return Err(Failure::new("the input device is not a TTY"));
            }
            let (container, mut attached) = match container.start_attached().await {
                // As docker: it is attached to as it is.
                Err(Error::AlreadyRunning { .. }) => (container.clone(), container.attach().await?),
                other => other.map_err(Failure::from)?,
            };
            if !interactive {
                attached.stdin = None;
            }
            return attach::lend(
                &container,
                attached,
                info.spec.terminal,
                interactive,
                &self.connection,
            )
            .await;
        }
        crate::container::each(runtime, &self.containers, async |container, name| {
            match container.start().await {
                Ok(()) | Err(Error::AlreadyRunning { .. }) => {}
                Err(error) => return Err(error),
            }
            print(name);
            Ok(())
        })
        .await
    }
}
