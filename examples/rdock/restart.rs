//! `rdock restart`.

use crate::Outcome;
use crate::container::{each, seconds};
use crate::streams::print;
use clap::Args;
use rdock_runtime::Runtime;

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// Signal that stops it
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds until SIGKILL, -1 for never
    #[arg(short, long, visible_alias = "timeout", allow_hyphen_values = true)]
    time: Option<i64>,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Restart {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let timeout = self.time.map(seconds);
        each(runtime, &self.containers, async |container, name| {
            container.restart_with(self.signal.as_deref(), timeout).await?;
            print(name);
            Ok(())
        })
        .await
    }
}
