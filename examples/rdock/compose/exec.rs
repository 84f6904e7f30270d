//! `compose exec` and `cp`.

use super::session::{Session, number};
use crate::exec::ExecArguments;
use crate::{Failure, Outcome, streams};
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

#[derive(Debug, Args)]
pub(super) struct Cp {
    /// Keep owners
    #[arg(short, long)]
    archive: bool,
    /// Copy what the link SOURCE leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Which of the service's containers, from 1
    #[arg(long)]
    index: Option<u32>,
    /// SERVICE:PATH, a path of this host, or - for a tar archive from stdin
    #[arg(allow_hyphen_values = true)]
    source: String,
    /// SERVICE:PATH, a path of this host, or - for a tar archive to stdout
    #[arg(allow_hyphen_values = true)]
    destination: String,
}

impl Cp {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        // A service's container in the place of the service; docker's rule for what is a path of this host.
        let resolved = |text: &str| -> Result<String, Failure> {
            match text.split_once(':') {
                Some((service, path)) if !text.starts_with(['/', '.']) => {
                    let found = session.containers(&project, &[service.to_owned()], false)?;
                    let container = found
                        .iter()
                        .find(|info| self.index.is_none_or(|index| number(info) == index))
                        .ok_or_else(|| Failure::new(format!("no container found for service {service:?}")))?;
                    Ok(format!("{}:{path}", container.id))
                }
                _ => Ok(text.to_owned()),
            }
        };
        let copy = crate::cp::Cp {
            archive: self.archive,
            follow_link: self.follow_link,
            quiet: false,
            source: resolved(&self.source)?,
            destination: resolved(&self.destination)?,
        };
        copy.execute(session.runtime()).await
    }
}
