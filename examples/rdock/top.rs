//! `rdock top`.

use crate::Outcome;
use crate::listing::columns;
use clap::Args;
use rdock_runtime::Runtime;

#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// The container
    container: String,
    /// Options of ps: -ef, aux, -o pid,user,args
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl TopArguments {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let top = runtime.container(&self.container)?.top(&self.options).await?;
        let mut lines = vec![top.titles];
        lines.extend(top.processes);
        columns(&lines);
        Ok(0)
    }
}
