//! `rdock update`.

use crate::container::each;
use crate::streams::print;
use crate::{Failure, Outcome, chain};
use clap::Args;
use rdock_runtime::{ContainerUpdate, Resources, RestartPolicy, Runtime, parse_size};

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Memory limit (512m, 2g)
    #[arg(short, long)]
    memory: Option<String>,
    /// Limit of memory and swap together
    #[arg(long)]
    memory_swap: Option<String>,
    /// Memory that is kept under pressure
    #[arg(long)]
    memory_reservation: Option<String>,
    /// Processors (1.5)
    #[arg(long)]
    cpus: Option<f64>,
    /// Relative weight of processor time
    #[arg(short, long)]
    cpu_shares: Option<u64>,
    /// Processors that may be used (0-2,4)
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Limit of processes
    #[arg(long)]
    pids_limit: Option<u64>,
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
        let size = |text: &Option<String>| text.as_deref().map(parse_size).transpose().map_err(bad);
        let mut resources = Resources::default();
        resources.memory = size(&self.memory)?;
        resources.memory_swap = size(&self.memory_swap)?;
        resources.memory_reservation = size(&self.memory_reservation)?;
        resources.cpus = self.cpus;
        resources.cpu_shares = self.cpu_shares;
        resources.cpuset_cpus.clone_from(&self.cpuset_cpus);
        resources.pids = self.pids_limit;
        let restart = self.restart.as_deref().map(RestartPolicy::parse);
        let mut update = ContainerUpdate::new().resources(resources);
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
