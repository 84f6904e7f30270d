//! `compose watch`, and what `up --watch` says.

use super::progress::Quiet;
use super::session::Session;
use crate::{Failure, Outcome, streams};
use clap::Args;
use rdock_compose::plan::{Build, UpOptions};
use rdock_compose::{WatchError, WatchEvent, WatchOptions};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Do not make and start the services first
    #[arg(long)]
    no_up: bool,
    /// Remove images that were built before, once they have no name
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    prune: bool,
    /// Tell nothing of builds
    #[arg(long)]
    quiet: bool,
    /// Services; all without any
    services: Vec<String>,
}

impl Watch {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let mut project = session.load_quietly(Quiet {
            build: self.quiet,
            ..Quiet::default()
        })?;
        let mut watch = WatchOptions::default();
        watch.services.clone_from(&self.services);
        watch.prune = self.prune;
        project.watched(&watch)?;
        if !self.no_up {
            let mut options = UpOptions::default();
            options.services.clone_from(&self.services);
            options.build = Build::Missing;
            let (with, plan) = super::up::prepare(session, &project, &options, false).await?;
            session.apply(&with, &plan).await?;
            project = with;
        }
        if session.is_dry_run() {
            return Ok(0);
        }
        session.close_screen();
        let (mut interrupts, mut terminates) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let stop = async {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminates.recv() => {}
            }
        };
        project.watch(&watch, stop, |event| say(0, &event)).await?;
        Ok(0)
    }
}

/// Names as docker compose quotes them.
fn quoted(services: &[String]) -> String {
    let quoted: Vec<String> = services.iter().map(|name| format!("{name:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// Says it below lines of containers whose names have this width.
pub(super) fn say(width: usize, event: &WatchEvent<'_>) {
    let text = match event {
        WatchEvent::Enabled => "Watch enabled".to_owned(),
        WatchEvent::Disabled => "Watch disabled".to_owned(),
        WatchEvent::Syncing(service, count) => {
            format!("Syncing service {service:?} after {count} changes were detected")
        }
        WatchEvent::Rebuilding(services) => format!(
            "Rebuilding service(s) {} after changes were detected...",
            quoted(services)
        ),
        WatchEvent::Built(services) => format!("service(s) {} successfully built", quoted(services)),
        WatchEvent::Restarted(services) => format!("service(s) {} restarted", quoted(services)),
        WatchEvent::Ran(_, output) => {
            let text = String::from_utf8_lossy(output);
            if !text.trim().is_empty() {
                streams::print(text.trim_end());
            }
            return;
        }
        WatchEvent::Mounted(path) => {
            return streams::say(&format!(
                "WARNING: path '{}' also declared by a bind mount volume, this path won't be monitored!",
                path.display()
            ));
        }
        WatchEvent::Failed(error) => {
            let failure = crate::chain(error);
            return streams::say(&format!("WARNING: Error handling changed files: {failure}"));
        }
        _ => return,
    };
    streams::print(&format!("{:width$} ⦿ {text}", ""));
}

impl From<WatchError> for Failure {
    fn from(error: WatchError) -> Self {
        Self {
            hint: error.hint(),
            ..Self::new(crate::chain(&error))
        }
    }
}
