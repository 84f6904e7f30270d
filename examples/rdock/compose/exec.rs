//! `compose exec` and `cp`.

use super::session::{Session, number, service};
use crate::exec::ExecArguments;
use crate::{Failure, Outcome, streams};
use clap::Args;
use rdock_compose::ComposeProject;

/// What docker compose does anyway, for those who are used to docker's `-it`.
#[derive(Debug, Clone, Args)]
pub(super) struct Connected {
    /// Pass this program's input on
    #[arg(short, long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) interactive: bool,
    /// Give the command a terminal if this program has one
    #[arg(short, long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tty: bool,
    /// Give the command no terminal
    #[arg(short = 'T', long = "no-tty", visible_alias = "no-TTY")]
    no_tty: bool,
}

impl Connected {
    /// Whether the command gets a terminal.
    pub(super) fn terminal(&self) -> bool {
        self.tty && !self.no_tty && streams::is_terminal() && streams::is_output_terminal()
    }
}

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
    #[command(flatten)]
    connected: Connected,
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
        let container = project.running(&self.service, self.index)?;
        if session.is_dry_run() {
            streams::print(&format!(
                "exec in container {}: {}",
                container.name(),
                self.command.join(" ")
            ));
            return Ok(0);
        }
        let arguments = ExecArguments {
            detach: self.detach,
            interactive: !self.detach && self.connected.interactive,
            tty: !self.detach && self.connected.terminal(),
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
    /// Which of the service's containers, from 1; else the first is copied from, and all are copied to
    #[arg(long)]
    index: Option<u32>,
    /// To the containers of run too
    #[arg(long)]
    all: bool,
    /// SERVICE:PATH, a path of this host, or - for a tar archive from stdin
    #[arg(allow_hyphen_values = true)]
    source: String,
    /// SERVICE:PATH, a path of this host, or - for a tar archive to stdout
    #[arg(allow_hyphen_values = true)]
    destination: String,
}

/// The service and the path in its containers; none for a path of this host, as docker tells them apart.
fn of_service(text: &str) -> Option<(&str, &str)> {
    match text.split_once(':') {
        Some(parts) if !text.starts_with(['/', '.']) => Some(parts),
        _ => None,
    }
}

impl Cp {
    /// The containers of the service that are meant.
    fn chosen(
        &self,
        session: &Session,
        project: &ComposeProject,
        wanted: &str,
    ) -> Result<Vec<String>, Failure> {
        let found = session.containers(project, &[wanted.to_owned()], self.all)?;
        let found = found
            .iter()
            .filter(|info| self.index.is_none_or(|index| number(info) == index));
        let found: Vec<String> = found
            .filter(|info| service(info) == wanted)
            .map(|info| info.id.clone())
            .collect();
        match found.is_empty() {
            true => Err(Failure::new(format!("no container found for service {wanted:?}"))),
            false => Ok(found),
        }
    }

    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let copies = match (of_service(&self.source), of_service(&self.destination)) {
            (Some(_), Some(_)) => {
                return Err(Failure::new("copying between services is not supported"));
            }
            (None, None) => return Err(Failure::new("one of the paths must be SERVICE:PATH")),
            (Some((wanted, path)), None) => {
                let mut found = self.chosen(session, &project, wanted)?;
                found.truncate(1);
                let from = |id: String| (format!("{id}:{path}"), self.destination.clone());
                found.into_iter().map(from).collect::<Vec<_>>()
            }
            (None, Some((wanted, path))) => {
                let found = self.chosen(session, &project, wanted)?;
                if self.source == "-" && found.len() > 1 {
                    return Err(Failure::new(format!(
                        "{wanted} has {} containers, and an archive from stdin goes to one: choose it with --index",
                        found.len()
                    )));
                }
                let to = |id: String| (self.source.clone(), format!("{id}:{path}"));
                found.into_iter().map(to).collect()
            }
        };
        for (source, destination) in copies {
            if session.is_dry_run() {
                streams::print(&format!("copy {source} to {destination}"));
                continue;
            }
            let copy = crate::cp::Cp {
                archive: self.archive,
                follow_link: self.follow_link,
                quiet: false,
                source,
                destination,
            };
            copy.execute(session.runtime()).await?;
        }
        Ok(0)
    }
}
