//! `compose up` in the foreground: the output of all containers, until they end or a signal stops them.

use super::logs::{Look, Printer};
use super::session::Session;
use crate::{Failure, Outcome, streams};
use clap::Args;
use rdock_compose::plan::Operation;
use rdock_compose::{
    Abort, ComposeProject, ForegroundEvent, ForegroundOptions, Member, Members, Plan, container_name,
};
use std::collections::BTreeSet;
use tokio::signal::unix::{SignalKind, signal};

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

/// Carries the plan out and shows the output until everything has ended.
pub(super) async fn up(
    session: &Session,
    project: &ComposeProject,
    plan: &Plan,
    named: &[String],
    flags: &Attaching,
    timeout: Option<u64>,
) -> Outcome {
    session.warn_of(plan);
    let mut printer = Printer::new(session, &flags.look);
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
    let options = flags.options(named, timeout);
    let mut names = attached_to(project, plan, &options)?;
    let show = |event| {
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
            ForegroundEvent::Aborting => streams::say("Aborting on container exit..."),
            ForegroundEvent::Stopping => streams::say("Gracefully Stopping... press Ctrl+C again to force"),
            ForegroundEvent::Killing => streams::say("Killing..."),
            _ => {}
        }
    };
    let end = project.foreground(plan, &options, interrupt, show).await?;
    failed?;
    Ok(end.code() as u8)
}
