//! `compose exec`.

use super::session::Session;
use crate::exec::ExecArguments;
use crate::{Outcome, streams};
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Set an environment variable
    #[arg(short, long)]
    env: Vec<String>,
    /// Which of the service's containers, from 1
    #[arg(long)]
    index: Option<u32>,
    /// Give the command no terminal
    #[arg(short = 'T', long = "no-tty", visible_alias = "no-TTY")]
    no_tty: bool,
    /// All capabilities and no filter
    #[arg(long)]
    privileged: bool,
    /// User or uid, with :group
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// The service
    service: String,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

impl Exec {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let container = session.running(&project, &self.service, self.index)?;
        let terminal = !self.no_tty && streams::is_terminal() && streams::is_output_terminal();
        let arguments = ExecArguments {
            detach: self.detach,
            interactive: !self.detach,
            tty: terminal,
            env: self.env,
            env_file: Vec::new(),
            user: self.user,
            workdir: self.workdir,
            privileged: self.privileged,
            container: container.id().to_owned(),
            command: self.command,
        };
        arguments.execute(session.runtime()).await
    }
}
