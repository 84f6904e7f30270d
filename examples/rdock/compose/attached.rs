//! `compose up` in the foreground: the output of all containers, until they end or a signal stops them.

use super::logs::{Followed, Look, Printer, Said, again, title, unreadable};
use super::session::{Session, is_one_off, known, service};
use crate::{Failure, Outcome, streams};
use clap::Args;
use rdock_compose::{ComposeProject, Plan};
use rdock_runtime::{ContainerInfo, Status};
use std::collections::BTreeSet;
use std::pin::Pin;
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
    #[arg(long)]
    exit_code_from: Option<String>,
    /// Show only the output of these services
    #[arg(long)]
    attach: Vec<String>,
    /// Do not show the output of these services
    #[arg(long)]
    no_attach: Vec<String>,
    /// Show the output of what the services need too
    #[arg(long)]
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

    /// The services whose output is shown; all active ones without any names.
    fn shown(&self, project: &ComposeProject, named: &[String]) -> Result<BTreeSet<String>, Failure> {
        let files = project.project();
        for name in self
            .attach
            .iter()
            .chain(&self.no_attach)
            .chain(&self.exit_code_from)
        {
            known(files, name)?;
        }
        let mut shown: BTreeSet<String> = match (self.attach.as_slice(), named) {
            ([], []) => files.services.keys().cloned().collect(),
            ([], named) if !self.attach_dependencies => named.iter().cloned().collect(),
            ([], named) => {
                let selected = files.select(named, rdock_compose::Dependencies::Include)?;
                selected.services.keys().cloned().collect()
            }
            (attach, _) => attach.iter().cloned().collect(),
        };
        shown.retain(|name| !self.no_attach.contains(name));
        Ok(shown)
    }

    fn aborts(&self, code: i32) -> bool {
        self.abort_on_container_exit
            || self.exit_code_from.is_some()
            || (self.abort_on_container_failure && code != 0)
    }
}

type Work<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// Why everything stops.
enum Stopped {
    Signal,
    /// A container ended, with this code.
    Ended(u8),
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
    let shown = flags.shown(project, named)?;
    let name = &project.project().name;
    let began = jiff::Timestamp::now().to_string();
    let mut screen = Screen {
        session,
        name,
        shown,
        began,
        printer: Printer::new(session, &flags.look),
        followed: Followed::new(session.runtime()),
    };
    screen.printer.apart = true;
    screen.followed.starts(name);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut work: Work<'_> = Box::pin(session.apply(project, plan));
    let (mut working, mut stopped) = (true, None);
    let mut killing: Option<Work<'_>> = None;
    while working || screen.followed.any() {
        let signalled = tokio::select! {
            result = &mut work, if working => {
                working = false;
                result?;
                if stopped.is_none() {
                    screen.attach_all(project)?;
                }
                false
            }
            result = async { killing.as_mut().expect("guarded").await }, if killing.is_some() => {
                killing = None;
                result?;
                false
            }
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            Some(said) = screen.followed.heard.recv() => {
                let ended = screen.hear(said)?;
                if let (Some(code), None) = (ended, &stopped)
                    && flags.aborts(code)
                {
                    streams::say("Aborting on container exit...");
                    stopped = Some(Stopped::Ended(code as u8));
                    work = Box::pin(stop(session, project, timeout));
                    working = true;
                }
                false
            }
        };
        if !signalled {
            continue;
        }
        match stopped {
            None => {
                streams::say("Gracefully Stopping... press Ctrl+C again to force");
                work = Box::pin(stop(session, project, timeout));
                working = true;
            }
            // Whatever is stopping ends by it.
            Some(_) => killing = Some(Box::pin(kill(session, project))),
        }
        stopped = Some(Stopped::Signal);
    }
    if let Some(service) = &flags.exit_code_from {
        let found = session.containers(project, std::slice::from_ref(service), false)?;
        if let Some(code) = found.iter().find_map(exit_code) {
            return Ok(code as u8);
        }
    }
    Ok(match stopped {
        None => 0,
        Some(Stopped::Ended(code)) => code,
        Some(Stopped::Signal) => 130,
    })
}

fn exit_code(info: &ContainerInfo) -> Option<i32> {
    match &info.status {
        Status::Exited(exit) => Some(exit.code()),
        _ => None,
    }
}

async fn stop(session: &Session, project: &ComposeProject, timeout: Option<u64>) -> Result<(), Failure> {
    let existing = project.existing().await?;
    let name = &project.project().name;
    let plan = Plan::stop(name, project.loaded(), &existing, &[], timeout)?;
    session.apply(project, &plan).await
}

async fn kill(session: &Session, project: &ComposeProject) -> Result<(), Failure> {
    let existing = project.existing().await?;
    let plan = Plan::kill(&project.project().name, &existing, &[], "SIGKILL")?;
    session.apply(project, &plan).await
}

/// The containers whose output is shown.
struct Screen<'a> {
    session: &'a Session,
    name: &'a str,
    shown: BTreeSet<String>,
    /// What was written before is of an earlier `up`.
    began: String,
    printer: Printer,
    followed: Followed,
}

impl Screen<'_> {
    /// Shows every container that runs and is not shown yet.
    fn attach_all(&mut self, project: &ComposeProject) -> Result<(), Failure> {
        for info in self.session.containers(project, &[], false)? {
            if info.status.is_running() || matches!(info.status, Status::Restarting(_)) {
                self.attach(&info)?;
            }
        }
        Ok(())
    }

    fn attach(&mut self, info: &ContainerInfo) -> Result<(), Failure> {
        if is_one_off(info) || !self.shown.contains(service(info)) {
            return Ok(());
        }
        let title = title(self.name, info);
        self.printer.expect(&title);
        let began = &self.began;
        self.followed.follow(&info.id, title, |logs| logs.since(began))
    }

    /// Shows what was said; the exit code of a container that has ended.
    fn hear(&mut self, said: Said) -> Result<Option<i32>, Failure> {
        let runtime = self.session.runtime();
        match said {
            Said::Line(id, line) => {
                // Nobody reads any more: the containers go on all the same.
                let _ = self.printer.line(self.followed.title(&id), &line);
                Ok(None)
            }
            Said::Start(id) => {
                // One that is gone already has nothing to show.
                if let Ok(info) = runtime.container(&id).and_then(|found| found.inspect()) {
                    self.attach(&info)?;
                }
                Ok(None)
            }
            Said::End(id, error) => {
                self.followed.ended(&id);
                match error {
                    Some(error) => {
                        unreadable(self.followed.title(&id), error)?;
                        return Ok(None);
                    }
                    None if again(self.session, &mut self.followed, &id)? => return Ok(None),
                    None => {}
                }
                let info = runtime.container(&id).and_then(|found| found.inspect());
                let code = info.ok().as_ref().and_then(exit_code);
                if let Some(code) = code {
                    let text = format!("exited with code {code}");
                    self.printer.remark(self.followed.title(&id), &text);
                }
                Ok(code)
            }
        }
    }
}
