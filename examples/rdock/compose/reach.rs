//! `compose stats`, `attach`, `commit` and `export`: docker's verbs for the containers of services.

use super::session::Session;
use crate::lifetime::Connection;
use crate::{Outcome, streams};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Stats {
    /// Those that do not run too
    #[arg(short, long)]
    all: bool,
    /// Once, after a second
    #[arg(long)]
    no_stream: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// table, json, or a template
    #[arg(long, default_value = "table")]
    format: String,
    /// A service; all without one
    service: Option<String>,
}

impl Stats {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let services: Vec<String> = self.service.into_iter().collect();
        let found = session.containers(&project, &services, false)?;
        let found = found
            .into_iter()
            .filter(|info| self.all || info.status.is_running());
        let stats = crate::stats::StatsArguments {
            all: self.all,
            no_stream: self.no_stream,
            no_trunc: self.no_trunc,
            format: self.format,
            containers: found.map(|info| info.name).collect(),
        };
        if stats.containers.is_empty() {
            // Naming none would mean those of every project.
            streams::say(&format!(
                "no containers to show for project {:?}",
                project.project().name
            ));
            return Ok(0);
        }
        stats.execute(session.runtime()).await
    }
}

#[derive(Debug, Args)]
pub(super) struct Attach {
    /// Which of the service's containers, from 1
    #[arg(long)]
    index: Option<u32>,
    /// Do not pass this program's input on
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    connection: Connection,
    /// The service
    service: String,
}

impl Attach {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let container = project.running(&self.service, self.index)?;
        let attach = crate::attach::Attach {
            no_stdin: self.no_stdin,
            connection: self.connection,
            container: container.id().to_owned(),
        };
        attach.execute(session.runtime()).await
    }
}

#[derive(Debug, Args)]
pub(super) struct Commit {
    /// Who made the image
    #[arg(short, long)]
    author: Option<String>,
    /// An instruction of a Dockerfile that changes the image's config
    #[arg(short, long)]
    change: Vec<String>,
    /// What was done
    #[arg(short, long)]
    message: Option<String>,
    /// Whether the container stands still meanwhile
    #[arg(short, long, default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pause: bool,
    /// Which of the service's containers, from 1
    #[arg(long)]
    index: Option<u32>,
    /// The service
    service: String,
    /// Name of the image
    reference: Option<String>,
}

impl Commit {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let container = session.container(&project, &self.service, self.index)?;
        if session.is_dry_run() {
            streams::print(&format!("commit container {}", container.name));
            return Ok(0);
        }
        let commit = crate::diff::Commit {
            author: self.author,
            change: self.change,
            message: self.message,
            pause: self.pause,
            no_pause: false,
            container: container.id,
            reference: self.reference,
        };
        commit.execute(session.runtime()).await
    }
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Write to a file instead of stdout
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Which of the service's containers, from 1
    #[arg(long)]
    index: Option<u32>,
    /// The service
    service: String,
}

impl Export {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let container = session.container(&project, &self.service, self.index)?;
        if session.is_dry_run() {
            streams::print(&format!("export container {}", container.name));
            return Ok(0);
        }
        let export = crate::diff::Export {
            output: self.output,
            container: container.id,
        };
        export.execute(session.runtime()).await
    }
}
