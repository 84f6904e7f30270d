//! Running the payload again: because the restart policy says so, or because somebody asks.
//!
//! The container keeps its place in the network and its published ports meanwhile. A launch blocks, so it
//! happens on a thread of its own, which finds its owner again by the container's id.

use super::{Owner, Shared};
use crate::control::Reply;
use crate::create;
use crate::error::{Error, Result};
use crate::events::EventAction;
use crate::reactor::{Loop, Timer};
use crate::remove::{Remains, describe};
use crate::start::{self, Before, Run};
use crate::state::{Exit, ExitReason, Happened, History, now};
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

/// The pauses of docker: the first one, the longest one, and how long a run lasts that begins them anew.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const LONG_RUN: Duration = Duration::from_secs(10);

thread_local! {
    /// The containers of this loop.
    static OWNERS: RefCell<HashMap<String, Weak<RefCell<Owner>>>> = RefCell::default();
}

/// Lets a later launch find its owner.
pub(super) fn register(owner: &Shared) {
    let id = owner.borrow().record.id.clone();
    OWNERS.with_borrow_mut(|owners| owners.insert(id, Rc::downgrade(owner)));
}

pub(super) fn unregister(owner: &Shared) {
    OWNERS.with_borrow_mut(|owners| owners.remove(&owner.borrow().record.id));
}

/// What is known of the runs of a container.
pub(super) struct Reruns {
    /// Restarts by policy since somebody started it.
    count: u32,
    pauses: Pauses,
    began: Instant,
    /// Somebody stops it on purpose.
    pub(super) stopped: bool,
    /// By a stop, and not by a signal alone.
    pub(super) by_stop: bool,
    state: State,
    /// Connections that asked for a restart.
    restarters: Vec<Rc<OwnedFd>>,
    /// The stop of a container whose payload is just being launched.
    stop_later: Option<(i32, u64)>,
}

enum State {
    Runs,
    /// Between two runs; how the last one ended.
    Waits(Exit, Option<Timer>),
}

/// What follows the end of a run.
pub(super) enum Next {
    Again,
    End,
}

/// The growing pauses between runs.
#[derive(Debug, Clone, Copy)]
struct Pauses(Duration);

impl Pauses {
    /// The pause after a run of this length.
    fn after(&mut self, ran: Duration) -> Duration {
        if ran >= LONG_RUN {
            self.0 = FIRST_PAUSE;
        }
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

impl Reruns {
    /// Of a run that has just begun, or that goes on under a new owner.
    pub(super) fn new(history: &History, resumed: bool) -> Self {
        let mut pauses = Pauses(FIRST_PAUSE);
        let mut began = Instant::now();
        if resumed {
            for _ in 0..history.restarts.min(10) {
                pauses.after(Duration::ZERO);
            }
            let start = history.started.as_ref().map(|start| start.time.parse());
            if let Some(Ok(start)) = start
                && let Ok(ran) = Duration::try_from(jiff::Timestamp::now().duration_since(start))
                && let Some(then) = began.checked_sub(ran)
            {
                began = then;
            }
        }
        Self {
            count: history.restarts,
            pauses,
            began,
            stopped: resumed && history.stopped,
            by_stop: false,
            state: State::Runs,
            restarters: Vec::new(),
            stop_later: None,
        }
    }

    /// Whether there is a payload.
    pub(super) fn runs(&self) -> bool {
        matches!(self.state, State::Runs)
    }

    pub(super) fn forget(&mut self, connection: &Rc<OwnedFd>) {
        self.restarters.retain(|other| !Rc::ptr_eq(other, connection));
    }
}

/// Decides what follows the end of a run, and begins it.
pub(super) fn after(events: &mut Loop, owner: &Shared, exit: &Exit) -> Next {
    let mut this = owner.borrow_mut();
    let asked = !this.reruns.restarters.is_empty();
    let policy = this.record.spec.restart;
    let by_policy = !asked && !this.reruns.stopped && policy.applies(exit.code(), this.reruns.count);
    if !this.removers.is_empty() || !(asked || by_policy) {
        return Next::End;
    }
    // Whoever removed it is not told of by the kernel; without its directory it would fail to start for ever.
    if matches!(this.dir.path().try_exists(), Ok(false)) {
        return Next::End;
    }
    let ran = this.reruns.began.elapsed();
    let pause = match asked {
        true => Duration::ZERO,
        false => this.reruns.pauses.after(ran),
    };
    this.reruns.count = if asked { 0 } else { this.reruns.count + 1 };
    let count = this.reruns.count;
    // What stays of the group is removed with the container.
    this.leave_cgroup(&mut Remains::default());
    let event = Happened::Restarting {
        exit: exit.clone(),
        count,
    };
    // A full disk keeps nobody from running again.
    let _ = this.dir.append(&event);
    if this.reruns.runs() {
        crate::events::ended(this.runtime.journal(), &this.record, exit, asked);
    }
    this.tell_exit(exit);
    // Who asked the helper that has ended asks the next one.
    let wanted = std::mem::take(&mut *this.sockets.wanted.borrow_mut());
    let again = Rc::downgrade(owner);
    let timer = events.after(pause, move |events| {
        if let Some(owner) = again.upgrade() {
            launch(events, &owner, by_policy);
        }
    });
    this.reruns.state = State::Waits(exit.clone(), Some(timer));
    drop(this);
    for (_, answer) in wanted {
        answer(events, Err(rustix::io::Errno::SRCH.into()));
    }
    if let (Some(forwarder), false) = (&mut owner.borrow_mut().forwarder, asked) {
        // Nobody makes sockets for clients during the pause: they are refused, not kept waiting.
        forwarder.move_to(events, None);
    }
    Next::Again
}

/// Launches the next run on a thread.
fn launch(events: &mut Loop, owner: &Shared, by_policy: bool) {
    let mut this = owner.borrow_mut();
    if let State::Waits(_, timer) = &mut this.reruns.state {
        *timer = None;
    }
    let mut networks = None;
    if this.namespaces.is_none() {
        // The run gets a new namespace, with the same addresses, and binds its ports anew.
        if let Some(forwarder) = this.forwarder.take() {
            forwarder.stop(events);
        }
        networks = Some(std::mem::take(&mut this.networks)).filter(|networks| !networks.is_empty());
    } else {
        // It may have been connected to others, or disconnected, since.
        this.start.networks = this.networks.infos();
    }
    let before = Before::new(
        &this.start,
        this.namespaces.as_ref(),
        networks,
        by_policy,
        this.reunion.as_ref(),
    );
    let (runtime, dir, record) = (this.runtime.clone(), this.dir.clone(), this.record.clone());
    let (handle, id) = (events.handle(), record.id.clone());
    drop(this);
    let work = move || -> Result<Run> {
        let before = before.map_err(Error::system("copy a descriptor"))?;
        let host = crate::plan::HostFacts::gather(record.spec.privileged);
        // Somebody may look at its files for a moment; the helper does not wait for that.
        crate::remove::helper_has_ended(&dir.file("lock"));
        let made = create::reopen(&runtime, dir, record, &host)?;
        start::again(&runtime, made, before)
    };
    let spawned = std::thread::Builder::new()
        .name("rdock-launch".into())
        .spawn(move || {
            // As on the library's own thread: signals are the host program's.
            let _ = nix::sys::signal::SigSet::all().thread_block();
            let run = work();
            handle.run(move |events| {
                let owner = OWNERS.with_borrow(|owners| owners.get(&id).and_then(Weak::upgrade));
                // Nobody forgets an owner that waits for a run.
                if let Some(owner) = owner {
                    launched(events, &owner, run);
                }
            });
        });
    if let Err(error) = spawned {
        launched(events, owner, Err(Error::system("start a thread")(error)));
    }
}

/// The next run has begun, or could not.
fn launched(events: &mut Loop, owner: &Shared, run: Result<Run>) {
    let watched =
        run.and_then(|run| install(events, owner, run).map_err(Error::system("watch the container")));
    let mut this = owner.borrow_mut();
    match watched {
        Ok(()) => {
            if !this.reruns.restarters.is_empty() {
                this.event(EventAction::Restart, &[]);
            }
            for restarter in std::mem::take(&mut this.reruns.restarters) {
                // A client that left does not wait any more.
                let _ = crate::control::send(&*restarter, &Reply::Done, &[]);
            }
            let stop = this.reruns.stop_later.take();
            let remove = !this.removers.is_empty();
            drop(this);
            if remove {
                owner.borrow().helper.end();
            } else if let Some((signal, timeout)) = stop {
                owner.borrow_mut().reruns.by_stop = true;
                super::requests::stop(events, owner, signal, timeout);
            }
        }
        Err(error) => {
            let reason = describe(&error).join(": ");
            for restarter in std::mem::take(&mut this.reruns.restarters) {
                let reply = Reply::Refused {
                    reason: reason.clone(),
                };
                let _ = crate::control::send(&*restarter, &reply, &[]);
            }
            this.reruns.began = Instant::now();
            drop(this);
            // It counts as a run that failed.
            let exit = Exit::now(set_up_failed(&error));
            if let Next::End = after(events, owner, &exit) {
                super::end(events, owner, exit);
            }
        }
    }
}

/// The reason of an exit that is the failure of a start.
pub(crate) fn set_up_failed(error: &Error) -> ExitReason {
    match error {
        Error::Launch { step, source, .. } => ExitReason::SetupFailed {
            step: step.doing().to_owned(),
            errno: source.raw_os_error().unwrap_or(0),
        },
        other => ExitReason::SetupFailed {
            step: other.to_string(),
            errno: system_error(other).unwrap_or(0),
        },
    }
}

/// The number of the system's error that is the cause of another.
fn system_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut causes = std::iter::successors(Some(error), |&cause| cause.source());
    causes.find_map(|cause| cause.downcast_ref::<std::io::Error>()?.raw_os_error())
}

/// Takes a run over.
fn install(events: &mut Loop, owner: &Shared, run: Run) -> std::io::Result<()> {
    let Run {
        helper,
        process,
        streams,
        cgroup,
        health,
        start,
        networks,
        ports,
        namespaces,
        resumed: _,
    } = run;
    // Whoever has asked since the end of the last run asks again.
    let unanswered = std::mem::take(&mut *owner.borrow().sockets.wanted.borrow_mut());
    {
        let mut this = owner.borrow_mut();
        let helper = Rc::new(helper);
        *this.sockets.helper.borrow_mut() = helper.clone();
        this.sockets.payload.set(start.pid);
        (this.helper, this.process, this.start) = (helper.clone(), process, start);
        this.cgroup = Some(cgroup);
        match networks {
            Some(networks) => this.networks = networks,
            None => {
                let pid = this.start.helper;
                let told = this.networks.hand_over(&helper, pid);
                told.map_err(std::io::Error::other)?;
            }
        }
        if namespaces.is_some() {
            this.namespaces = namespaces;
        }
        this.status = None;
        this.reruns.state = State::Runs;
        this.reruns.began = Instant::now();
        (this.reruns.stopped, this.reruns.by_stop) = (false, false);
    }
    super::watch(events, owner, streams, ports)?;
    super::health::begin(events, owner, health, false);
    for (_, answer) in unanswered {
        answer(events, Err(rustix::io::Errno::SRCH.into()));
    }
    Ok(())
}

/// Somebody asks for a restart; the answer comes once the payload runs again.
pub(super) fn restart(
    events: &mut Loop,
    owner: &Shared,
    connection: &Rc<OwnedFd>,
    signal: i32,
    timeout_ms: u64,
) {
    owner.borrow_mut().reruns.restarters.push(connection.clone());
    if owner.borrow().reruns.runs() {
        super::requests::stop_payload(events, owner, signal, timeout_ms);
        return;
    }
    let timer = match &mut owner.borrow_mut().reruns.state {
        State::Waits(_, timer) => timer.take(),
        State::Runs => None,
    };
    // Without a timer it is being launched already.
    if let Some(timer) = timer {
        events.cancel(timer);
        owner.borrow_mut().reruns.count = 0;
        launch(events, owner, false);
    }
}

/// Somebody stops, or removes, a container that is between two runs.
pub(super) fn cancel(events: &mut Loop, owner: &Shared, signal: i32, timeout_ms: u64) {
    let mut this = owner.borrow_mut();
    let State::Waits(exit, timer) = &mut this.reruns.state else {
        return;
    };
    let (exit, timer) = (exit.clone(), timer.take());
    match timer {
        Some(timer) => {
            events.cancel(timer);
            drop(this);
            super::end(events, owner, exit);
        }
        // It is being launched: it is stopped as soon as it runs.
        None => this.reruns.stop_later = Some((signal, timeout_ms)),
    }
}

/// Notes that somebody stops the container on purpose; `ends` that it will end whatever the payload does.
pub(super) fn stop_requested(owner: &Shared, ends: bool) {
    let mut this = owner.borrow_mut();
    this.reruns.stopped = true;
    if this.record.detached {
        // The stop itself is more important than the note of it.
        let _ = this.dir.append(&Happened::StopRequested { time: now(), ends });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_long_run() {
        let mut pauses = Pauses(FIRST_PAUSE);
        let short = Duration::from_secs(1);
        let found: Vec<u128> = (0..12).map(|_| pauses.after(short).as_millis()).collect();
        assert_eq!(
            found,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000
            ]
        );
        assert_eq!(pauses.after(LONG_RUN), FIRST_PAUSE);
        assert_eq!(pauses.after(short), FIRST_PAUSE * 2);
    }
}
