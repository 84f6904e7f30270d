//! What can be done with a container that exists: start and restart, freeze, rename, change, wait.

use crate::container::{Attached, Container};
use crate::control::{Reply, Request, milliseconds};
use crate::create;
use crate::error::{Error, Result};
use crate::events::EventAction;
use crate::health::{Health, HealthStatus};
use crate::monitor::{self, Task};
use crate::plan::{Finding, HostFacts, PlanError};
use crate::runtime::blocking;
use crate::spec::{Resources, RestartPolicy};
use crate::state::{ContainerDir, Exit, ExitReason, Happened, Status};
use rustix::fs::inotify;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// What [`Container::wait_for`] waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitCondition {
    /// That it does not run: at once for one that has ended or was never started. The end of a payload that
    /// is run again by its restart policy counts.
    #[default]
    NotRunning,
    /// The next end of its payload, also of a container that does not run now.
    NextExit,
    /// Its removal.
    Removed,
}

/// What [`Container::update`] changes. Everything that is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ContainerUpdate {
    /// Limits, effective at once in a running container.
    pub resources: Resources,
    /// What happens after the payload's end, from the next end on.
    pub restart: Option<RestartPolicy>,
}

impl ContainerUpdate {
    /// Changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets limits.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }
    /// Sets the restart policy.
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.restart = Some(policy);
        self
    }
}

impl Resources {
    /// These limits with those of `other` over them.
    fn with(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.memory = other.memory.or(both.memory);
        both.memory_swap = other.memory_swap.or(both.memory_swap);
        both.memory_reservation = other.memory_reservation.or(both.memory_reservation);
        both.memory_swappiness = other.memory_swappiness.or(both.memory_swappiness);
        both.oom_kill_disable |= other.oom_kill_disable;
        both.cpus = other.cpus.or(both.cpus);
        both.cpu_period = other.cpu_period.or(both.cpu_period);
        both.cpu_quota = other.cpu_quota.or(both.cpu_quota);
        both.cpu_rt_period = other.cpu_rt_period.or(both.cpu_rt_period);
        both.cpu_rt_runtime = other.cpu_rt_runtime.or(both.cpu_rt_runtime);
        both.cpu_shares = other.cpu_shares.or(both.cpu_shares);
        both.cpuset_cpus = other.cpuset_cpus.clone().or(both.cpuset_cpus);
        both.cpuset_mems = other.cpuset_mems.clone().or(both.cpuset_mems);
        both.pids = other.pids.or(both.pids);
        both.blkio_weight = other.blkio_weight.or(both.blkio_weight);
        let weights = other.blkio_weight_devices.iter().cloned();
        both.blkio_weight_devices
            .retain(|own| !other.blkio_weight_devices.iter().any(|new| new.path == own.path));
        both.blkio_weight_devices.extend(weights);
        for (own, new) in [
            (&mut both.device_read_bps, &other.device_read_bps),
            (&mut both.device_write_bps, &other.device_write_bps),
            (&mut both.device_read_iops, &other.device_read_iops),
            (&mut both.device_write_iops, &other.device_write_iops),
        ] {
            own.retain(|own| !new.iter().any(|new| new.path == own.path));
            own.extend(new.iter().cloned());
        }
        both
    }

    /// These changes, with what `whole` has of limits that the kernel keeps together with them.
    fn with_related(&self, whole: &Self) -> Self {
        let mut all = self.clone();
        if all.memory.is_some() || all.memory_swap.is_some() {
            (all.memory, all.memory_swap) = (whole.memory, whole.memory_swap);
        }
        if all.cpu_period.is_some() || all.cpu_quota.is_some() {
            (all.cpu_period, all.cpu_quota) = (whole.cpu_period, whole.cpu_quota);
        }
        all
    }
}

/// Looked at now and then, since an owner that was killed writes no event.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Container {
    /// Starts the payload of a detached container that was created or has ended. Returns when it runs and
    /// every readiness condition of its spec holds.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`]; otherwise as [`crate::ContainerSpec::start_detached`].
    pub async fn start(&self) -> Result<()> {
        self.start_under_monitor(false).await.map(drop)
    }

    /// As [`Self::start`], with its output (and its input when `interactive`) connected to the caller before
    /// its first instruction. The returned handle knows the exit of a container that removes itself.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_attached(&self) -> Result<(Self, Attached)> {
        self.start_under_monitor(true).await
    }

    async fn start_under_monitor(&self, attach: bool) -> Result<(Self, Attached)> {
        if !self.record().detached {
            return Err(Error::NotDetached {
                name: self.name().to_owned(),
            });
        }
        let this = self.clone();
        let (container, attached) = blocking(move || {
            this.see_end()?;
            let spec = attach.then_some(&this.record().spec);
            let task = Task::Start { by_policy: false };
            monitor::ask(this.runtime(), this.id(), task, spec)
        })
        .await?;
        let spec = &self.record().spec;
        crate::readiness::wait(&container, &spec.ready, spec.ready_timeout).await?;
        Ok((container, attached))
    }

    /// Stops the payload as [`Self::stop`] does and runs it again; starts one that does not run. The container
    /// keeps its address and its published ports.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart(&self, timeout: Option<Duration>) -> Result<()> {
        self.restart_with(None, timeout).await
    }

    /// [`Self::stop`] with another signal than the container's own.
    ///
    /// # Errors
    /// [`Error::Signal`]; otherwise as [`Self::stop`].
    pub async fn stop_with(&self, signal: Option<&str>, timeout: Option<Duration>) -> Result<Exit> {
        let timeout = timeout.unwrap_or(self.record().spec.stop_timeout);
        let request = Request::Stop {
            signal: self.signal_number(signal)?,
            timeout_ms: milliseconds(timeout),
            removal: false,
        };
        self.ask_for_exit(request).await
    }

    fn signal_number(&self, signal: Option<&str>) -> Result<i32> {
        match signal {
            None => Ok(self.record().stop_signal),
            Some(text) => crate::signal::parse(text).ok_or_else(|| Error::Signal {
                text: text.to_owned(),
            }),
        }
    }

    /// [`Self::restart`] with another signal than the container's own.
    ///
    /// # Errors
    /// [`Error::Signal`]; otherwise as [`Self::restart`].
    pub async fn restart_with(&self, signal: Option<&str>, timeout: Option<Duration>) -> Result<()> {
        let signal = self.signal_number(signal)?;
        let timeout = timeout.unwrap_or(self.record().spec.stop_timeout);
        let this = self.clone();
        if blocking(move || this.status()).await?.exit().is_none() {
            let request = Request::Restart {
                signal,
                timeout_ms: milliseconds(timeout),
            };
            match self.ask_done(request).await {
                // It has just ended.
                Err(Error::NotRunning { .. } | Error::OwnerGone { .. }) => {}
                other => return other,
            }
        }
        match self.start().await {
            // Its restart policy was faster.
            Err(Error::AlreadyRunning { .. }) => Ok(()),
            other => other,
        }
    }

    /// Freezes every process of the container.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; [`Error::Paused`] when it is; [`Error::CannotPause`] on a machine that cannot.
    pub async fn pause(&self) -> Result<()> {
        self.ask_done(Request::Pause { frozen: true }).await
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; [`Error::NotPaused`] when it is not.
    pub async fn unpause(&self) -> Result<()> {
        self.ask_done(Request::Pause { frozen: false }).await
    }

    /// Gives the container another name. This handle keeps the old one in [`Self::name`].
    ///
    /// # Errors
    /// [`Error::NameInUse`]; [`Error::Spec`] for a text that cannot be a name.
    pub async fn rename(&self, name: &str) -> Result<()> {
        if !crate::identity::is_name(name) {
            let finding = Finding {
                field: "name".into(),
                reason: format!(
                    "{name:?} is not a name: letters, digits, `_`, `.` and `-`, the first no mark"
                ),
            };
            return Err(PlanError {
                findings: vec![finding],
            }
            .into());
        }
        let (this, name) = (self.clone(), name.to_owned());
        blocking(move || {
            let old = this.dir().record()?.name;
            let record = this.runtime().state().rename(this.dir(), &name)?;
            if old != name {
                let more = [("oldName", old.as_str())];
                this.runtime()
                    .journal()
                    .container(&record, EventAction::Rename, &more);
            }
            this.tell_owner()
        })
        .await
    }

    /// Changes limits and the restart policy, of a running container at once.
    ///
    /// # Errors
    /// [`Error::Spec`] for what no container can have; what the kernel refuses, such as a memory limit below
    /// what is in use; then nothing is changed on disk.
    pub async fn update(&self, update: &ContainerUpdate) -> Result<()> {
        let (this, update) = (self.clone(), update.clone());
        blocking(move || {
            let limits = update.resources != Resources::default();
            // Before the lock: a new owner, where the old one was killed, needs it.
            let owner = match limits && this.status()?.is_running() {
                true => this.open_connection()?,
                false => None,
            };
            {
                let _change = this.dir().lock_changes()?;
                let mut record = this.dir().record()?;
                record.spec.resources = record.spec.resources.with(&update.resources);
                if let Some(restart) = update.restart {
                    record.spec.restart = restart;
                }
                let host = HostFacts::gather(record.spec.privileged);
                create::planned(this.runtime(), &record, &host)?;
                if limits && this.status()?.is_running() {
                    let request = Request::Limits {
                        resources: Box::new(update.resources.with_related(&record.spec.resources)),
                    };
                    let owner = match owner {
                        Some(owner) => owner,
                        None => this.connect()?,
                    };
                    let asked = owner.ask(&request, &[]);
                    match asked.map_err(|error| this.unanswered(error)) {
                        // One that has just ended gets them with its next start.
                        Ok((Reply::Done | Reply::NotRunning, _)) | Err(Error::NotRunning { .. }) => {}
                        Ok((reply, _)) => return Err(this.refused(reply)),
                        Err(error) => return Err(error),
                    }
                }
                this.dir().write_record(&record)?;
                this.runtime()
                    .journal()
                    .container(&record, EventAction::Update, &[]);
            }
            this.tell_owner()
        })
        .await
    }

    /// Lets the owner, if there is one, read the record again.
    fn tell_owner(&self) -> Result<()> {
        if !self.dir().status()?.is_running() && !matches!(self.dir().status()?, Status::Restarting(_)) {
            return Ok(());
        }
        match self
            .connect()
            .and_then(|connection| connection.ask(&Request::Reload, &[]))
        {
            // Its next owner reads it anyway.
            Err(Error::NotRunning { .. } | Error::OwnerGone { .. }) | Ok((Reply::Done, _)) => Ok(()),
            Ok((reply, _)) => Err(self.refused(reply)),
            Err(error) => Err(error),
        }
    }

    /// Returns the container's health; `None` without a health check, or before its first start.
    pub fn health(&self) -> Option<Health> {
        crate::health::read(self.dir())
    }

    /// Waits until the health of the running container is `wanted`; with `None` until it is known.
    ///
    /// # Errors
    /// [`Error::NoHealthCheck`]; [`Error::NotRunning`] when it does not run, or ends meanwhile.
    pub async fn wait_health(&self, wanted: Option<HealthStatus>) -> Result<HealthStatus> {
        loop {
            let this = self.clone();
            let connection = blocking(move || {
                let connection = this.connect()?;
                match connection.send(&Request::Health { wanted }, &[]) {
                    Err(Error::OwnerGone { .. }) => Ok(None),
                    other => other.map(|()| Some(connection)),
                }
            })
            .await?;
            let Some(connection) = connection else { continue };
            return match connection.receive_async().await {
                Ok((Reply::Health { status }, _)) => Ok(status),
                Ok((Reply::Refused { .. }, _)) => Err(Error::NoHealthCheck {
                    name: self.name().to_owned(),
                }),
                // It has ended, or runs on under the next owner.
                Err(Error::OwnerGone { .. }) => continue,
                Ok((reply, _)) => Err(self.refused(reply)),
                Err(error) => Err(error),
            };
        }
    }

    /// Waits for a condition; how the payload ended last. One that never ran counts as ended with 0.
    ///
    /// # Errors
    /// When the state cannot be read; with [`WaitCondition::NextExit`] also when the container was removed.
    pub async fn wait_for(&self, condition: WaitCondition) -> Result<Exit> {
        match condition {
            WaitCondition::NotRunning => self.wait().await,
            WaitCondition::NextExit => {
                let mut watch = Watch::new(self.dir())?;
                let ends = ends(self.dir())?.0;
                loop {
                    let this = self.clone();
                    let (now, last) = blocking(move || ends_of(&this)).await?;
                    if now > ends
                        && let Some(last) = last
                    {
                        return Ok(last);
                    }
                    if !watch.changed().await? {
                        self.look_after_it().await?;
                    }
                }
            }
            WaitCondition::Removed => {
                let mut watch = match Watch::new(self.dir()) {
                    Ok(watch) => watch,
                    Err(error) if is_gone(&error) => return self.wait().await,
                    Err(error) => return Err(error),
                };
                let mut last = None;
                loop {
                    match ends(self.dir()) {
                        Ok((_, exit)) => last = exit.or(last),
                        Err(error) if is_gone(&error) => {
                            // Who started it may know more than was seen here.
                            let this = self.clone();
                            let known = blocking(move || Ok(this.known_exit())).await?;
                            return Ok(known.or(last).unwrap_or_else(never_ran));
                        }
                        Err(error) => return Err(error),
                    }
                    if !watch.changed().await? {
                        self.look_after_it().await?;
                    }
                }
            }
        }
    }
}

/// How one that never ran has ended.
fn never_ran() -> Exit {
    Exit {
        reason: ExitReason::Exited(0),
        finished_at: String::new(),
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::State { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// How often the payload has ended, and how it did the last time.
fn ends(dir: &ContainerDir) -> Result<(usize, Option<Exit>)> {
    let (mut count, mut last) = (0, None);
    for event in dir.events()? {
        count += event.ends();
        if let Happened::Exited { exit } | Happened::Restarting { exit, .. } = event {
            last = Some(exit);
        }
    }
    Ok((count, last))
}

/// [`ends`] of a container that may have removed itself meanwhile.
fn ends_of(container: &Container) -> Result<(usize, Option<Exit>)> {
    match ends(container.dir()) {
        Err(error) if is_gone(&error) => match container.known_exit() {
            Some(exit) => Ok((usize::MAX, Some(exit))),
            None => Err(error),
        },
        other => other,
    }
}

/// The container's events grow, or are replaced or removed.
const EVENTS: inotify::WatchFlags = inotify::WatchFlags::MODIFY
    .union(inotify::WatchFlags::DELETE_SELF)
    .union(inotify::WatchFlags::ATTRIB);

/// Changes of a container's events, and of its directory.
struct Watch {
    watch: OwnedFd,
    events: PathBuf,
}

impl Watch {
    fn new(dir: &ContainerDir) -> Result<Self> {
        let make = || -> rustix::io::Result<OwnedFd> {
            let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            inotify::add_watch(&watch, dir.file("events.jsonl"), EVENTS)?;
            inotify::add_watch(&watch, dir.path(), inotify::WatchFlags::DELETE_SELF)?;
            Ok(watch)
        };
        let made = make().map_err(|errno| Error::state("watch", dir.path())(errno.into()));
        made.map(|watch| Self {
            watch,
            events: dir.file("events.jsonl"),
        })
    }

    /// Waits for the next change; false when none came for a while.
    async fn changed(&mut self) -> Result<bool> {
        let waited = tokio::time::timeout(LOOK_AGAIN, crate::sys::readable(self.watch.as_fd())).await;
        let changed = waited.is_ok();
        if let Ok(ready) = waited {
            ready.map_err(Error::system("watch the container"))?;
        }
        let mut notes = [std::mem::MaybeUninit::uninit(); 1024];
        let mut notes = inotify::Reader::new(&self.watch, &mut notes);
        while notes.next().is_ok() {}
        // A start may have replaced the file; where it is the same, this changes nothing. One that is gone is seen by
        // the caller's next look.
        let _ = inotify::add_watch(&self.watch, &self.events, EVENTS);
        Ok(changed)
    }
}
