//! `rdock create`.

use crate::Outcome;
use crate::run::Run;
use clap::Args;
use rdock_runtime::Runtime;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Create {
    #[command(flatten)]
    run: Run,
}

impl Create {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        self.run.create(runtime).await
    }
}
