//! Health checks: one process at a time inside the container, timed by the loop.
//!
//! Before the first success checks follow each other soon, afterwards exactly at the interval; see
//! [`crate::HealthCheck`]. A frozen container is not checked.

use super::Shared;
use crate::control::{ExecRequest, Reply};
use crate::events::EventAction;
use crate::health::{Health, HealthResult, HealthStatus, KEPT, OUTPUT};
use crate::plan::HealthPlan;
use crate::reactor::{Interest, Loop, Timer, Token};
use crate::state::now;
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The first pause before the first success.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The checks of one run.
pub(super) struct Checks {
    schedule: Schedule,
    health: Health,
    timer: Option<Timer>,
    probe: Option<Probe>,
    /// Connections that wait for a result, and for which.
    waiters: Vec<(Rc<OwnedFd>, Option<HealthStatus>)>,
}

/// When to check and what a result means; knows no clock of its own.
#[derive(Debug)]
struct Schedule {
    plan: HealthPlan,
    began: Instant,
    pause: Duration,
    succeeded: bool,
    /// When a failure before the first success counted last.
    counted: Instant,
    streak: u32,
}

impl Schedule {
    fn new(plan: HealthPlan, began: Instant) -> Self {
        Self {
            counted: began + plan.start_period,
            pause: FIRST_PAUSE.min(plan.start_interval),
            began,
            succeeded: false,
            streak: 0,
            plan,
        }
    }

    /// From the end of one check, or from the start, to the next check.
    fn next(&mut self) -> Duration {
        if self.succeeded {
            return self.plan.interval;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(self.plan.start_interval.max(FIRST_PAUSE.min(self.plan.interval)));
        pause
    }

    /// Takes the result of a check that ended at `at`; the status after it.
    fn result(&mut self, success: bool, at: Instant, status: HealthStatus) -> HealthStatus {
        if success {
            self.succeeded = true;
            self.streak = 0;
            return HealthStatus::Healthy;
        }
        let counts = if self.succeeded {
            true
        } else {
            // As often as docker would have checked by now.
            at >= self.began + self.plan.start_period
                && at.saturating_duration_since(self.counted) >= self.plan.interval
        };
        if counts {
            self.counted = at;
            self.streak = self.streak.saturating_add(1);
        }
        if self.streak >= self.plan.retries {
            HealthStatus::Unhealthy
        } else {
            status
        }
    }
}

/// A check that runs.
struct Probe {
    session: u32,
    start: String,
    output: Vec<u8>,
    from: Option<(Token, Rc<OwnedFd>)>,
    deadline: Option<Timer>,
    late: bool,
}

/// Begins the checks of a run; `resumed` goes on with what an owner before this one has found.
pub(super) fn begin(events: &mut Loop, owner: &Shared, plan: Option<HealthPlan>, resumed: bool) {
    let Some(plan) = plan else {
        // An older run may have had one.
        let _ = std::fs::remove_file(owner.borrow().dir.file("health.json"));
        return;
    };
    {
        let mut this = owner.borrow_mut();
        let waiters = this
            .health
            .take()
            .map(|checks| checks.waiters)
            .unwrap_or_default();
        let known = resumed.then(|| crate::health::read(&this.dir)).flatten();
        let mut schedule = Schedule::new(plan, Instant::now());
        if let Some(known) = &known {
            schedule.succeeded = known.status != HealthStatus::Starting;
            schedule.streak = known.failing_streak;
        }
        this.health = Some(Checks {
            schedule,
            health: known.unwrap_or_default(),
            timer: None,
            probe: None,
            waiters,
        });
        this.write_health();
    }
    schedule(events, owner);
}

/// The run is over.
pub(super) fn end(events: &mut Loop, owner: &Shared) {
    let mut this = owner.borrow_mut();
    let Some(checks) = &mut this.health else { return };
    if let Some(timer) = checks.timer.take() {
        events.cancel(timer);
    }
    if let Some(probe) = checks.probe.take() {
        probe.close(events);
    }
}

impl Probe {
    fn close(self, events: &mut Loop) {
        if let Some((token, fd)) = self.from {
            events.remove(token, &*fd);
        }
        if let Some(deadline) = self.deadline {
            events.cancel(deadline);
        }
    }
}

impl super::Owner {
    fn write_health(&self) {
        if let Some(checks) = &self.health {
            // A full disk hides the health from others; the checks go on.
            let _ = self.dir.write_file("health.json", &checks.health);
        }
    }
}

/// Sets the timer of the next check.
fn schedule(events: &mut Loop, owner: &Shared) {
    let mut this = owner.borrow_mut();
    let Some(checks) = &mut this.health else { return };
    let pause = checks.schedule.next();
    let again = Rc::downgrade(owner);
    checks.timer = Some(events.after(pause, move |events| {
        if let Some(owner) = again.upgrade() {
            check(events, &owner);
        }
    }));
}

/// Starts a check.
fn check(events: &mut Loop, owner: &Shared) {
    if owner.borrow().frozen {
        schedule(events, owner);
        return;
    }
    let start = now();
    if let Err(error) = spawn(events, owner, start.clone()) {
        finished(events, owner, start, -1, error.to_string());
    }
}

fn spawn(events: &mut Loop, owner: &Shared, start: String) -> std::io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    let errors = write.try_clone()?;
    let read = Rc::new(read);
    let mut this = owner.borrow_mut();
    let session = this.next_session;
    this.next_session = this.next_session.wrapping_add(1).max(1);
    let Some(checks) = &this.health else { return Ok(()) };
    let timeout = checks.schedule.plan.timeout;
    let request = ExecRequest {
        args: checks.schedule.plan.args.clone(),
        ..ExecRequest::default()
    };
    let process = super::requests::exec_process(&this.process, &request);
    let groups = match &this.cgroup {
        Some(cgroup) => cgroup.procs()?,
        None => Vec::new(),
    };
    this.helper
        .exec(session, &process, Some([null, write, errors]), &groups, false)?;
    let again = Rc::downgrade(owner);
    let token = events.add(&*read, Interest::IN, move |events, _| {
        if let Some(owner) = again.upgrade() {
            take_output(events, &owner, session);
        }
    })?;
    let again = Rc::downgrade(owner);
    let deadline = events.after(timeout, move |events| {
        if let Some(owner) = again.upgrade() {
            too_late(events, &owner, session, timeout);
        }
    });
    if let Some(checks) = &mut this.health {
        checks.timer = None;
        checks.probe = Some(Probe {
            session,
            start,
            output: Vec::new(),
            from: Some((token, read)),
            deadline: Some(deadline),
            late: false,
        });
    }
    Ok(())
}

/// Reads what a check has written. What is beyond the limit is thrown away, so that it is not held up.
fn take_output(events: &mut Loop, owner: &Shared, session: u32) {
    let mut this = owner.borrow_mut();
    let probe = this.health.as_mut().and_then(|checks| checks.probe.as_mut());
    let Some(probe) = probe.filter(|probe| probe.session == session) else {
        return;
    };
    let Some((token, fd)) = probe.from.clone() else {
        return;
    };
    let mut buffer = [0u8; OUTPUT];
    loop {
        match rustix::io::read(&*fd, &mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let room = OUTPUT - probe.output.len();
                probe.output.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            Err(_) => break,
        }
    }
    events.remove(token, &*fd);
    probe.from = None;
}

/// A check takes too long: it is killed, and its end is the result.
fn too_late(events: &mut Loop, owner: &Shared, session: u32, timeout: Duration) {
    let mut this = owner.borrow_mut();
    let (frozen, helper) = (this.frozen, this.helper.clone());
    let probe = this.health.as_mut().and_then(|checks| checks.probe.as_mut());
    let Some(probe) = probe.filter(|probe| probe.session == session) else {
        return;
    };
    if frozen {
        // Its time does not pass while it cannot run.
        let again = Rc::downgrade(owner);
        probe.deadline = Some(events.after(timeout, move |events| {
            if let Some(owner) = again.upgrade() {
                too_late(events, &owner, session, timeout);
            }
        }));
        return;
    }
    probe.late = true;
    probe.deadline = None;
    // One that has just ended is as good as killed.
    let _ = helper.kill(Some(session), libc::SIGKILL);
}

/// Whether the session is a check; then its end is taken here. `failure` is why it could not be run.
pub(super) fn session_ended(
    events: &mut Loop,
    owner: &Shared,
    session: u32,
    status: i32,
    failure: Option<String>,
) -> bool {
    take_output(events, owner, session);
    let (probe, timeout) = {
        let mut this = owner.borrow_mut();
        let Some(checks) = &mut this.health else {
            return false;
        };
        let timeout = checks.schedule.plan.timeout;
        match checks.probe.take_if(|probe| probe.session == session) {
            Some(probe) => (probe, timeout),
            None => return false,
        }
    };
    let (start, late) = (probe.start.clone(), probe.late);
    let output = String::from_utf8_lossy(&probe.output).into_owned();
    probe.close(events);
    let (code, output) = match failure {
        Some(failure) => (-1, failure),
        None if late => {
            let output = format!("Health check exceeded timeout ({timeout:?})");
            (-1, output)
        }
        None if libc::WIFEXITED(status) => (libc::WEXITSTATUS(status), output),
        None => (128 + libc::WTERMSIG(status), output),
    };
    finished(events, owner, start, code, output);
    true
}

/// Takes a result, tells who waits for it, and goes on.
fn finished(events: &mut Loop, owner: &Shared, start: String, code: i32, output: String) {
    {
        let mut this = owner.borrow_mut();
        let Some(checks) = &mut this.health else { return };
        let before = checks.health.status;
        let status = checks.schedule.result(code == 0, Instant::now(), before);
        checks.health.status = status;
        checks.health.failing_streak = checks.schedule.streak;
        if checks.health.log.len() == KEPT {
            checks.health.log.remove(0);
        }
        checks.health.log.push(HealthResult {
            start,
            end: now(),
            exit_code: code,
            output,
        });
        let waiters = std::mem::take(&mut checks.waiters);
        this.write_health();
        if status != before {
            this.event(EventAction::HealthStatus(status.name().to_owned()), &[]);
        }
        for (waiter, wanted) in waiters {
            if is_met(status, wanted) {
                // A client that left does not wait any more.
                let _ = crate::control::send(&*waiter, &Reply::Health { status }, &[]);
            } else if let Some(checks) = &mut this.health {
                checks.waiters.push((waiter, wanted));
            }
        }
    }
    schedule(events, owner);
}

fn is_met(status: HealthStatus, wanted: Option<HealthStatus>) -> bool {
    match wanted {
        Some(wanted) => status == wanted,
        None => status != HealthStatus::Starting,
    }
}

/// Somebody waits for a result; `None` when the answer comes later.
pub(super) fn wait(owner: &Shared, connection: &Rc<OwnedFd>, wanted: Option<HealthStatus>) -> Option<Reply> {
    let mut this = owner.borrow_mut();
    let Some(checks) = &mut this.health else {
        return Some(Reply::Refused {
            reason: "the container has no health check".into(),
        });
    };
    let status = checks.health.status;
    if is_met(status, wanted) {
        return Some(Reply::Health { status });
    }
    checks.waiters.push((connection.clone(), wanted));
    None
}

/// A client has left.
pub(super) fn forget(checks: Option<&mut Checks>, connection: &Rc<OwnedFd>) {
    if let Some(checks) = checks {
        checks.waiters.retain(|(other, _)| !Rc::ptr_eq(other, connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule(start_period: Duration, start_interval: Duration, began: Instant) -> Schedule {
        let plan = HealthPlan {
            args: vec!["true".into()],
            interval: SECOND,
            timeout: SECOND,
            start_period,
            start_interval,
            retries: 3,
        };
        Schedule::new(plan, began)
    }

    #[test]
    fn before_the_first_success_pauses_grow_to_the_start_interval() {
        let mut checks = schedule(Duration::ZERO, Duration::from_millis(100), Instant::now());
        let found: Vec<u128> = (0..7).map(|_| checks.next().as_millis()).collect();
        assert_eq!(found, [5, 10, 20, 40, 80, 100, 100]);
        checks.result(true, Instant::now(), HealthStatus::Starting);
        assert_eq!(checks.next(), SECOND);
        checks.result(false, Instant::now(), HealthStatus::Healthy);
        assert_eq!(checks.next(), SECOND, "also after a failure");
    }

    #[test]
    fn a_failure_before_the_first_success_counts_once_an_interval() {
        let began = Instant::now();
        let mut checks = schedule(Duration::ZERO, SECOND, began);
        let mut status = HealthStatus::Starting;
        let mut unhealthy_at = None;
        for tenth in 0..40 {
            let at = began + SECOND / 10 * tenth;
            status = checks.result(false, at, status);
            if status == HealthStatus::Unhealthy {
                unhealthy_at.get_or_insert(tenth);
            }
        }
        assert_eq!(unhealthy_at, Some(30), "three intervals, as under docker");
        assert_eq!(
            checks.result(true, began + SECOND * 5, status),
            HealthStatus::Healthy
        );
        assert_eq!(checks.streak, 0);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_until_the_first_success() {
        let began = Instant::now();
        let mut checks = schedule(SECOND * 60, SECOND, began);
        let mut status = HealthStatus::Starting;
        for second in 0..60 {
            status = checks.result(false, began + SECOND * second, status);
        }
        assert_eq!((status, checks.streak), (HealthStatus::Starting, 0));
        status = checks.result(true, began + SECOND * 2, status);
        for _ in 0..2 {
            status = checks.result(false, began + SECOND * 3, status);
            assert_eq!(status, HealthStatus::Healthy);
        }
        status = checks.result(false, began + SECOND * 4, status);
        assert_eq!(
            status,
            HealthStatus::Unhealthy,
            "the start is over with the first success"
        );
    }
}
