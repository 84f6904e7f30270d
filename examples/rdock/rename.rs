//! `rdock rename`.

use crate::Outcome;
use clap::Args;
use rdock_runtime::Runtime;

#[derive(Debug, Args)]
pub(crate) struct Rename {
    /// The container
    container: String,
    /// Its new name
    name: String,
}

impl Rename {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        runtime.container(&self.container)?.rename(&self.name).await?;
        Ok(0)
    }
}
