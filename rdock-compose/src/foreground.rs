//! `up` in the foreground: the output of the containers, until all have ended or something stops them.

use crate::apply::{ApplyError, ComposeProject};
use crate::containers::{Member, Members};
use crate::model::{Dependencies, Project};
use crate::output::{Followed, Heard, OutputEvent};
use crate::plan::{Plan, PlanError};
use rdock_runtime::{ContainerInfo, Exit, Status};
use std::collections::{BTreeSet, HashSet};
use std::pin::Pin;

/// When everything stops because one container has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Abort {
    /// Never: the others go on.
    #[default]
    Never,
    /// Whichever ends (`--abort-on-container-exit`).
    OnExit,
    /// When one ends with another code than 0 (`--abort-on-container-failure`).
    OnFailure,
}

/// How `up` stays in the foreground.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ForegroundOptions {
    /// The services that were named; all if empty. They and those whose output is shown are watched and stopped; what
    /// else they need is not.
    pub services: Vec<String>,
    /// Only the output of these services; of those that are watched and do not say `attach: false` if empty.
    pub attach: Vec<String>,
    /// Not the output of these services.
    pub no_attach: Vec<String>,
    /// The output of what the services need too.
    pub attach_dependencies: bool,
    /// When everything stops.
    pub abort: Abort,
    /// Ends with this service's exit code, and stops everything when a container ends (`--exit-code-from`).
    pub exit_code_from: Option<String>,
    /// Seconds that stopping a container may take.
    pub timeout: Option<u64>,
    /// It stays until it is interrupted, even if every container has ended: others come.
    pub stay: bool,
}

/// What happens in the foreground.
#[derive(Debug)]
#[non_exhaustive]
pub enum ForegroundEvent {
    /// The plan is carried out.
    Up,
    /// Something about the output of a service that is shown.
    Output(OutputEvent),
    /// A container that is watched has ended, though its output is not shown.
    Ended(Option<Exit>),
    /// Everything stops, since a container has ended.
    Aborting,
    /// Everything stops, since the caller interrupts.
    Stopping,
    /// Everything is killed, since the caller interrupts again.
    Killing,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForegroundEnd {
    /// Every container has ended by itself.
    Ended,
    /// Everything was stopped since a container ended; with the code of that container, or of the service whose code
    /// was asked for.
    Aborted(i32),
    /// The caller interrupted.
    Interrupted,
}

impl ForegroundEnd {
    /// The exit code of docker compose: 0, the container's, or 130.
    pub fn code(self) -> i32 {
        match self {
            Self::Ended => 0,
            Self::Aborted(code) => code,
            Self::Interrupted => 130,
        }
    }
}

type Work<'a> = Pin<Box<dyn Future<Output = Result<(), ApplyError>> + Send + 'a>>;

/// The services that are watched, and those whose output is shown.
struct Watched {
    services: BTreeSet<String>,
    shown: BTreeSet<String>,
    /// Those that are stopped; all if empty.
    stopped: Vec<String>,
}

impl ForegroundOptions {
    /// The services whose output is shown.
    ///
    /// # Errors
    /// A name in the options that is no service.
    pub fn shown(&self, files: &Project) -> Result<BTreeSet<String>, ApplyError> {
        self.watched(files).map(|watched| watched.shown)
    }

    fn watched(&self, files: &Project) -> Result<Watched, ApplyError> {
        let selected = |dependencies| -> Result<BTreeSet<String>, ApplyError> {
            let selected = files
                .select(&self.services, dependencies)
                .map_err(PlanError::from)?;
            Ok(selected.services.keys().cloned().collect())
        };
        let named = self.attach.iter().chain(&self.no_attach);
        for name in named.chain(&self.exit_code_from) {
            files
                .select(std::slice::from_ref(name), Dependencies::Leave)
                .map_err(PlanError::from)?;
        }
        let mut services = selected(Dependencies::Leave)?;
        let mut shown = match self.attach.as_slice() {
            [] if self.attach_dependencies => selected(Dependencies::Include)?,
            [] => services.clone(),
            attach => attach.iter().cloned().collect(),
        };
        if self.attach.is_empty() {
            shown.retain(|name| {
                let service = files.services.get(name);
                service.is_none_or(|service| service.attach != Some(false))
            });
        }
        shown.retain(|name| !self.no_attach.contains(name));
        services.extend(shown.iter().cloned());
        services.extend(self.exit_code_from.clone());
        let stopped = match self.services.is_empty() {
            true => Vec::new(),
            false => services.iter().cloned().collect(),
        };
        Ok(Watched {
            services,
            shown,
            stopped,
        })
    }

    fn aborts(&self, exit: Option<&Exit>) -> bool {
        match self.abort {
            _ if self.exit_code_from.is_some() => true,
            Abort::Never => false,
            Abort::OnExit => true,
            Abort::OnFailure => exit.is_some_and(|exit| !exit.success()),
        }
    }
}

impl ComposeProject {
    /// Carries out a plan of `up` and shows the output of the containers, until all that are watched have ended.
    /// `interrupt` is awaited all the time, again and again: the first time it is done everything that is watched
    /// stops, dependents first; the next time everything is killed. Dropping the future leaves everything as it is.
    ///
    /// ```no_run
    /// # use rdock_compose::plan::{Plan, UpOptions};
    /// # use rdock_compose::{ComposeProject, ForegroundOptions};
    /// # async fn example(compose: ComposeProject) -> Result<(), Box<dyn std::error::Error>> {
    /// let plan = Plan::up(compose.project(), &compose.existing().await?, &UpOptions::default())?;
    /// let never = async || std::future::pending().await;
    /// let end = compose
    ///     .foreground(&plan, &ForegroundOptions::default(), never, |event| println!("{event:?}"))
    ///     .await?;
    /// println!("{}", end.code());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Self::apply`]'s for the plan and for stopping; a name in the options that is no service.
    pub async fn foreground(
        &self,
        plan: &Plan,
        options: &ForegroundOptions,
        mut interrupt: impl AsyncFnMut(),
        mut show: impl FnMut(ForegroundEvent),
    ) -> Result<ForegroundEnd, ApplyError> {
        let watched = options.watched(self.project())?;
        let mut followed = Followed::new(self.runtime(), &self.project().name);
        let runs = |info: &ContainerInfo| (info.id.clone(), info.started_at.clone());
        let earlier: HashSet<_> = self.containers(&Members::default())?.iter().map(runs).collect();
        let mut work: Work<'_> = Box::pin(self.apply(plan));
        let mut killing: Option<Work<'_>> = None;
        let (mut working, mut end) = (true, ForegroundEnd::Ended);
        // A start that was under way when everything began to stop.
        let mut late = false;
        while late
            || working
            || killing.is_some()
            || followed.any()
            || (options.stay && end == ForegroundEnd::Ended)
        {
            if late && !working {
                late = false;
                work = Box::pin(self.stop_all(&watched, options.timeout));
                working = true;
            }
            tokio::select! {
                result = &mut work, if working => {
                    working = false;
                    result?;
                    if end == ForegroundEnd::Ended {
                        show(ForegroundEvent::Up);
                        // Those that ran before and go on, and those that have ended before their start was heard.
                        for info in self.containers(&Members::default())? {
                            let new = !earlier.contains(&runs(&info)) && !followed.knows(&info.id);
                            if match info.status {
                                Status::Running | Status::Paused | Status::Restarting(_) => true,
                                Status::Exited(_) => new,
                                _ => false,
                            } {
                                watched.join(&mut followed, &info, &mut show)?;
                            }
                        }
                    }
                }
                result = done(&mut killing) => {
                    killing = None;
                    result?;
                }
                () = interrupt() => match end {
                    ForegroundEnd::Ended => {
                        show(ForegroundEvent::Stopping);
                        end = ForegroundEnd::Interrupted;
                        work = Box::pin(self.stop_all(&watched, options.timeout));
                        working = true;
                    }
                    // Everything stops already.
                    _ if killing.is_none() => {
                        show(ForegroundEvent::Killing);
                        end = ForegroundEnd::Interrupted;
                        // Whatever is stopping ends by it.
                        killing = Some(Box::pin(self.kill_all(&watched)));
                    }
                    _ => {}
                },
                heard = followed.heard() => match heard? {
                    Heard::Started(info) => {
                        let ours = watched.join(&mut followed, &info, &mut show)?;
                        late |= ours && end != ForegroundEnd::Ended;
                    }
                    Heard::Event(event) => {
                        let ended = watched.show(event, &mut show);
                        if let Some(exit) = ended
                            && end == ForegroundEnd::Ended
                            && options.aborts(exit.as_ref())
                        {
                            show(ForegroundEvent::Aborting);
                            end = ForegroundEnd::Aborted(exit.map_or(0, |exit| exit.code()));
                            work = Box::pin(self.stop_all(&watched, options.timeout));
                            working = true;
                        }
                    }
                },
            }
        }
        if let Some(service) = &options.exit_code_from
            && end != ForegroundEnd::Ended
        {
            let found = self.containers(&Members::of(std::slice::from_ref(service)))?;
            let code = found.iter().find_map(|info| match &info.status {
                Status::Exited(exit) => Some(exit.code()),
                _ => None,
            });
            return Ok(code.map_or(end, ForegroundEnd::Aborted));
        }
        Ok(end)
    }

    async fn stop_all(&self, watched: &Watched, timeout: Option<u64>) -> Result<(), ApplyError> {
        let existing = self.existing().await?;
        let (project, services) = (self.project(), &watched.stopped);
        let plan = Plan::stop(&project.name, Some(project), &existing, services, timeout);
        self.apply(&plan).await
    }

    async fn kill_all(&self, watched: &Watched) -> Result<(), ApplyError> {
        let existing = self.existing().await?;
        let plan = Plan::kill(&self.project().name, &existing, &watched.stopped, "SIGKILL");
        self.apply(&plan).await
    }
}

/// The end of what may not have begun.
async fn done(work: &mut Option<Work<'_>>) -> Result<(), ApplyError> {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

impl Watched {
    /// Follows a container if it is one of these; whether it is.
    fn join(
        &self,
        followed: &mut Followed,
        info: &ContainerInfo,
        show: &mut impl FnMut(ForegroundEvent),
    ) -> Result<bool, ApplyError> {
        let ours = |member: &Member| !member.one_off && self.services.contains(&member.service);
        if !Member::of(info).is_some_and(|member| ours(&member)) {
            return Ok(false);
        }
        if let Some(speaker) = followed.join_started(info)?
            && self.shown.contains(&speaker.service)
        {
            show(ForegroundEvent::Output(OutputEvent::Joined(speaker)));
        }
        Ok(true)
    }

    /// Shows it if it is to be shown. Some when a container has ended, with how if that is known.
    fn show(&self, event: OutputEvent, show: &mut impl FnMut(ForegroundEvent)) -> Option<Option<Exit>> {
        let ended = match &event {
            OutputEvent::Ended(_, exit) => Some(exit.clone()),
            _ => None,
        };
        let (OutputEvent::Joined(speaker)
        | OutputEvent::Line(speaker, _)
        | OutputEvent::Ended(speaker, _)
        | OutputEvent::Silent(speaker, _)) = &event;
        match (self.shown.contains(&speaker.service), &ended) {
            (true, _) => show(ForegroundEvent::Output(event)),
            (false, Some(exit)) => show(ForegroundEvent::Ended(exit.clone())),
            (false, None) => {}
        }
        ended
    }
}
