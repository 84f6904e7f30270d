//! `compose up` in the foreground: the output of all containers, until they end or a signal stops them.

use super::logs::{Look, Printer};
use super::session::Session;
use crate::{Failure, Outcome, streams};
use clap::Args;
use rdock_compose::plan::Operation;
use rdock_compose::{
    Abort, ComposeProject, ForegroundEvent, ForegroundOptions, Member, Members, Plan, WatchOptions,
    container_name,
};
use std::collections::BTreeSet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// How `up` stays.
#[derive(Debug, Args)]
pub(super) struct Attaching {
    /// Stop everything when a container ends
    #[arg(long)]
    abort_on_container_exit: bool,
    /// Stop everything when a container fails
    #[arg(long, conflicts_with = "abort_on_container_exit")]
    abort_on_container_failure: bool,
    /// End with the exit code of this service's container; stops everything when a container ends
    #[arg(long, value_name = "SERVICE")]
    exit_code_from: Option<String>,
    /// Show only the output of these services
    #[arg(long, value_name = "SERVICE")]
    attach: Vec<String>,
    /// Do not show the output of these services
    #[arg(long, value_name = "SERVICE")]
    no_attach: Vec<String>,
    /// Show the output of what the services need too
    #[arg(long, conflicts_with = "attach")]
    attach_dependencies: bool,
    #[command(flatten)]
    look: Look,
}

impl Attaching {
    /// The flag that makes no sense in the background.
    pub(super) fn foreground(&self) -> Option<&'static str> {
        match self {
            _ if self.abort_on_container_exit => Some("--abort-on-container-exit"),
            _ if self.abort_on_container_failure => Some("--abort-on-container-failure"),
            _ if self.exit_code_from.is_some() => Some("--exit-code-from"),
            _ if !self.attach.is_empty() => Some("--attach"),
            _ if self.attach_dependencies => Some("--attach-dependencies"),
            _ => None,
        }
    }

    fn options(&self, named: &[String], timeout: Option<u64>) -> ForegroundOptions {
        let mut options = ForegroundOptions::default();
        options.services = named.to_vec();
        options.attach.clone_from(&self.attach);
        options.no_attach.clone_from(&self.no_attach);
        options.attach_dependencies = self.attach_dependencies;
        options.abort = match (self.abort_on_container_exit, self.abort_on_container_failure) {
            (true, _) => Abort::OnExit,
            (_, true) => Abort::OnFailure,
            _ => Abort::Never,
        };
        options.exit_code_from.clone_from(&self.exit_code_from);
        options.timeout = timeout;
        options
    }
}

/// What the lines of the containers whose output is shown begin with, as far as that is known before they are made.
fn attached_to(
    project: &ComposeProject,
    plan: &Plan,
    options: &ForegroundOptions,
) -> Result<Vec<String>, Failure> {
    let files = project.project();
    let shown = options.shown(files)?;
    let mut names = BTreeSet::new();
    let mut gone = BTreeSet::new();
    for operation in plan.operations() {
        match operation {
            Operation::CreateContainer {
                service,
                number,
                one_off: None,
                ..
            } if shown.contains(service) => {
                let member = Member::new(&files.name, service, *number);
                names.insert(member.title(&container_name(files, service, *number)));
            }
            Operation::RemoveContainer { container, .. } => gone.extend(container.id.clone()),
            _ => {}
        }
    }
    for info in project.containers(&Members::default())? {
        if let Some(member) = Member::of(&info)
            && shown.contains(&member.service)
            && !gone.contains(&info.id)
        {
            names.insert(member.title(&info.name));
        }
    }
    Ok(names.into_iter().collect())
}

/// How `up` stays.
pub(super) struct Staying<'a> {
    pub(super) named: &'a [String],
    pub(super) flags: &'a Attaching,
    pub(super) timeout: Option<u64>,
    /// Files that change are followed meanwhile.
    pub(super) watch: Option<WatchOptions>,
}

/// Carries the plan out and shows the output until everything has ended.
pub(super) async fn up(
    session: &Session,
    project: &ComposeProject,
    plan: &Plan,
    staying: &Staying<'_>,
) -> Outcome {
    session.warn_of(plan);
    let mut printer = Printer::new(session, &staying.flags.look);
    printer.apart = true;
    let (mut interrupts, mut terminates) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let interrupt = async || {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminates.recv() => {}
        }
    };
    let mut failed: Result<(), Failure> = Ok(());
    let mut options = staying.flags.options(staying.named, staying.timeout);
    options.stay = staying.watch.is_some();
    let mut names = attached_to(project, plan, &options)?;
    // What is drawn beside the lines of containers has the width of their names.
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let (up, stops) = (Notify::new(), Notify::new());
    let show = |event| {
        if let ForegroundEvent::Up = event {
            return up.notify_one();
        }
        // Nothing is drawn where containers write.
        session.close_screen();
        let names = std::mem::take(&mut names);
        if !names.is_empty() {
            streams::print(&format!("Attaching to {}", names.join(", ")));
        }
        match event {
            // Nobody reads any more: the containers go on all the same.
            ForegroundEvent::Output(event) => {
                if let Err(failure) = printer.event(event) {
                    failed = Err(failure);
                }
            }
            ForegroundEvent::Aborting => {
                stops.notify_one();
                streams::say("Aborting on container exit...");
            }
            ForegroundEvent::Stopping => {
                stops.notify_one();
                streams::say("Gracefully Stopping... press Ctrl+C again to force");
            }
            ForegroundEvent::Killing => streams::say("Killing..."),
            _ => {}
        }
    };
    let foreground = project.foreground(plan, &options, interrupt, show);
    let watching = async {
        let Some(watch) = &staying.watch else {
            return std::future::pending().await;
        };
        // Files go into containers that are there.
        up.notified().await;
        let stop = stops.notified();
        let watched = project.watch(watch, stop, |event| super::watch::say(width + 1, &event));
        match watched.await {
            Ok(()) => std::future::pending().await,
            Err(error) => Failure::from(error),
        }
    };
    let end = tokio::select! {
        end = foreground => end?,
        failure = watching => return Err(failure),
    };
    failed?;
    Ok(end.code() as u8)
}
