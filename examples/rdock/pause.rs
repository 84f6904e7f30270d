//! `rdock pause` and `unpause`.

use crate::Outcome;
use crate::container::each;
use crate::streams::print;
use clap::Args;
use rdock_runtime::Runtime;

#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Pause {
    pub(crate) async fn execute(self, runtime: &Runtime, frozen: bool) -> Outcome {
        each(runtime, &self.containers, async |container, name| {
            match frozen {
                true => container.pause().await?,
                false => container.unpause().await?,
            }
            print(name);
            Ok(())
        })
        .await
    }
}
