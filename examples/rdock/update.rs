//! `rdock update`.

use crate::container::each;
use crate::limits::Limits;
use crate::streams::print;
use crate::{Failure, Outcome, chain};
use clap::Args;
use rdock_runtime::{ContainerUpdate, RestartPolicy, Runtime};

#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    limits: Limits,
    /// What happens when the container ends: no, on-failure[:N], always or unless-stopped
    #[arg(long)]
    restart: Option<String>,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Update {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let bad = |error: rdock_runtime::ParseError| Failure {
            code: 125,
            ..Failure::new(chain(&error))
        };
        let restart = self.restart.as_deref().map(RestartPolicy::parse);
        let mut update = ContainerUpdate::new().resources(self.limits.resources()?);
        update.restart = restart.transpose().map_err(bad)?;
        if update == ContainerUpdate::new() {
            return Err(Failure::new(
                "you must provide one or more flags when using this command",
            ));
        }
        each(runtime, &self.containers, async |container, name| {
            container.update(&update).await?;
            print(name);
            Ok(())
        })
        .await
    }
}
