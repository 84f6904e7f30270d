//! Containers whose owner has gone: adopted, started again, recorded as ended, or removed.
//!
//! Who opens the root looks at each of them, and whoever needs an owner and finds none. What changes a
//! container happens under its lock, so that several processes may look at the same time.

use crate::cgroup::{Cgroup, Place};
use crate::create;
use crate::error::{Error, Result};
use crate::launch::{Event, Helper, SocketPlace};
use crate::monitor::{self, Task};
use crate::net;
use crate::owner::{self, Started, Streams};
use crate::plan::HostFacts;
use crate::process::ProcessIdentity;
use crate::remove::{everything, has_ended_within, helper_has_ended};
use crate::runtime::Runtime;
use crate::spec::PortForwarding;
use crate::start::{self, Namespaces, Run};
use crate::state::{ContainerDir, Exit, ExitReason, Happened, History, Record, now};
use std::time::{Duration, Instant};

/// A helper that waits for an owner answers at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// What becomes of a container without an owner.
enum Verdict {
    Nothing,
    Adopt,
    Start,
}

/// Looks after one container, when nobody owns it.
///
/// # Errors
/// When it cannot be looked at, or no monitor can be started for it; it is left as it is then.
pub(crate) fn recover(runtime: &Runtime, id: &str) -> Result<()> {
    let (dir, record) = runtime.state().load(id)?;
    let owner = dir.owner().ok();
    // What an owner that lives makes or removes is its own affair.
    if owner.as_ref().is_some_and(ProcessIdentity::is_alive) || crate::remove::finish(runtime, id)? {
        return Ok(());
    }
    // One that was never started has no owner, and needs none.
    if owner.is_none() {
        return Ok(());
    }
    let task = match judge(runtime, &dir, &record)? {
        Verdict::Nothing => return Ok(()),
        Verdict::Adopt => Task::Adopt,
        Verdict::Start => Task::Start { by_policy: true },
    };
    match monitor::ask(runtime, id, task, None) {
        // Somebody else was faster.
        Ok(_) | Err(Error::AlreadyRunning { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Decides, and records what has happened.
fn judge(runtime: &Runtime, dir: &ContainerDir, record: &Record) -> Result<Verdict> {
    // Who holds the lock is looking after it.
    let Some(_change) = dir.try_lock_changes()? else {
        return Ok(Verdict::Nothing);
    };
    let owner = dir.owner()?;
    if owner.is_alive() {
        return Ok(Verdict::Nothing);
    }
    let history = dir.history()?;
    // One without its lock is just ending: it answers no more.
    let lock = dir.file("lock");
    if record.detached && helper(&history).is_some() && !has_ended_within(&lock, Duration::ZERO) {
        return Ok(Verdict::Adopt);
    }
    if !helper_has_ended(&lock) {
        return Ok(Verdict::Nothing);
    }
    if !record.detached || record.spec.auto_remove {
        // What stays is tried again at the next open.
        everything(runtime, record);
        return Ok(Verdict::Nothing);
    }
    let policy = record.spec.restart;
    let rebooted = !owner.is_of_this_boot();
    if rebooted && policy.applies_at_boot(history.stopped) {
        if history.expects_owner() {
            note_end(runtime, dir, record, &history, true)?;
        }
        return Ok(Verdict::Start);
    }
    if !history.expects_owner() && history.status(false).is_some() {
        return Ok(Verdict::Nothing);
    }
    note_end(runtime, dir, record, &history, false)
}

/// Before a container is started by hand: what a run left whose end nobody saw, or a start that was cut off. Its control
/// groups would refuse the next run. Under the container's lock, and without an owner.
///
/// # Errors
/// When the end cannot be recorded.
pub(crate) fn settle(runtime: &Runtime, dir: &ContainerDir, record: &Record) -> Result<()> {
    let history = dir.history()?;
    if history.expects_owner() && history.status(false).is_none() {
        // A start that is cut off now leaves the next one to the policy, as the end by itself would have.
        return note_end(runtime, dir, record, &history, false).map(drop);
    }
    // What stays makes the start fail, which says so.
    let _ = crate::cgroup::remove_all(&Place::of(&record.id, &record.spec));
    Ok(())
}

/// Before a container is stopped: the end of a run that nobody saw is recorded as one on purpose, so that no policy runs
/// it once more only to be stopped.
///
/// # Errors
/// When it cannot be looked at, or the end cannot be recorded.
pub(crate) fn end_unseen(runtime: &Runtime, dir: &ContainerDir) -> Result<()> {
    let unowned = || -> Result<bool> { Ok(!dir.owner()?.is_alive()) };
    // Looked at first, since this is asked before every stop.
    if !unowned()? {
        return Ok(());
    }
    let Some(_change) = dir.try_lock_changes()? else {
        return Ok(());
    };
    let (record, history) = (dir.record()?, dir.history()?);
    let stays = record.detached && !record.spec.auto_remove;
    if !stays || !history.expects_owner() || !unowned()? || !helper_has_ended(&dir.file("lock")) {
        return Ok(());
    }
    dir.append(&Happened::StopRequested {
        time: now(),
        ends: true,
    })?;
    note_end(runtime, dir, &record, &dir.history()?, false).map(drop)
}

/// Removes container `id` when nobody can use it any more, and names that renames have left: somebody wants its name.
/// What cannot be removed, or is in use, keeps it.
pub(crate) fn clear(runtime: &Runtime, id: &str) {
    runtime.state().sweep_unfinished();
    let clear = || -> Result<()> {
        let (dir, record) = runtime.state().load(id)?;
        let lives = || dir.owner().is_ok_and(|owner| owner.is_alive());
        // An owner that has seen the end is just removing it, or ending itself.
        let goes = || -> Result<bool> {
            let history = dir.history()?;
            let over = !history.expects_owner() && history.status(false).is_some();
            Ok(over && (record.spec.auto_remove || crate::remove::is_begun(&dir)))
        };
        let deadline = Instant::now() + PATIENCE;
        while lives() && goes()? && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let owner = dir.owner().ok();
        if owner.as_ref().is_some_and(ProcessIdentity::is_alive) || crate::remove::finish(runtime, id)? {
            return Ok(());
        }
        if owner.is_some() && (!record.detached || record.spec.auto_remove) {
            // One whose helper waits for an owner is in use.
            judge(runtime, &dir, &record)?;
        }
        Ok(())
    };
    // The error that matters is that the name is taken.
    let _ = clear();
}

/// Records the end of a run that nobody saw, and says whether the policy wants another one.
fn note_end(
    runtime: &Runtime,
    dir: &ContainerDir,
    record: &Record,
    history: &History,
    at_boot: bool,
) -> Result<Verdict> {
    let waits = history.status(true).is_some_and(|status| !status.is_running());
    let exit = match &history.exit {
        // It had ended already, and its owner died before the next run.
        Some(exit) if waits => exit.clone(),
        _ => {
            let groups = history
                .started
                .as_ref()
                .map_or(&[][..], |start| start.cgroups.as_slice());
            let oom = Cgroup::open(Place::of(&record.id, &record.spec), groups).oom_killed();
            let recorded = history
                .started
                .as_ref()
                .and_then(|_| owner::recorded_exit(dir, oom));
            recorded.unwrap_or_else(|| Exit::now(ExitReason::OwnerDied))
        }
    };
    let _ = crate::cgroup::remove_all(&Place::of(&record.id, &record.spec));
    // A start that was cut off never ran.
    if !waits && history.started.is_some() {
        crate::events::ended(runtime.journal(), record, &exit, false);
    }
    let again = history.started.is_some()
        && !history.stopped
        && (waits || record.spec.restart.applies(exit.code(), history.restarts));
    if again && !at_boot {
        let count = if waits {
            history.restarts
        } else {
            history.restarts + 1
        };
        dir.append(&Happened::Restarting { exit, count })?;
        return Ok(Verdict::Start);
    }
    dir.append(&Happened::Exited { exit })?;
    Ok(Verdict::Nothing)
}

/// The helper that waits for a new owner.
fn helper(history: &History) -> Option<&ProcessIdentity> {
    let helper = history.started.as_ref()?.helper_process.as_ref()?;
    (history.expects_owner() && helper.is_alive()).then_some(helper)
}

/// Kills the helper of a container that nobody owns, and with it the container.
pub(crate) fn end_orphan(dir: &ContainerDir) -> Result<()> {
    let history = dir.history()?;
    let Some(helper) = helper(&history) else {
        return Ok(());
    };
    let Some(pid) = rustix::process::Pid::from_raw(helper.pid) else {
        return Ok(());
    };
    let opened = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    if let (Ok(pidfd), true) = (opened, helper.is_alive()) {
        // One that has just ended is what is asked for.
        let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
    }
    Ok(())
}

/// Names are answered again, by sockets that the helper makes inside.
fn resume_resolver(helper: &Helper, networks: &mut net::Attachments) -> std::io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut made = Vec::new();
    for kind in [libc::SOCK_DGRAM, libc::SOCK_STREAM] {
        helper.request_sockets(0, SocketPlace::Payload, libc::AF_INET, kind, 0, 1)?;
        match helper.wait_event(Some(deadline))? {
            Some(Event::Sockets { sockets, .. }) => made.extend(sockets),
            // It has just ended; its pidfd says so.
            _ => return Err(std::io::ErrorKind::NotConnected.into()),
        }
    }
    let mut made = made.into_iter();
    match (made.next(), made.next()) {
        (Some(datagrams), Some(streams)) => networks.resume_resolver(datagrams, streams),
        _ => Err(std::io::ErrorKind::NotConnected.into()),
    }
}

/// Takes over a container that runs and whose monitor has died. In the new monitor.
///
/// # Errors
/// When its helper does not answer; [`Error::AlreadyRunning`] when another process was faster.
pub(crate) fn adopt(runtime: &Runtime, id: &str) -> Result<Started> {
    let (dir, _) = runtime.state().load(id)?;
    let _change = dir.lock_changes()?;
    let record = dir.record()?;
    let history = dir.history()?;
    let (Some(start), Some(waiting)) = (history.started.clone(), helper(&history)) else {
        return Err(Error::NotRunning { name: record.name });
    };
    if dir.owner().is_ok_and(|owner| owner.is_alive()) {
        return Err(Error::AlreadyRunning { name: record.name });
    }
    let failed = || Error::system("take over the container's helper");
    let helper = Helper::adopt(dir.path(), waiting).map_err(failed())?;
    let adopted = match helper
        .wait_event(Some(Instant::now() + PATIENCE))
        .map_err(failed())?
    {
        Some(Event::Adopted(adopted)) => adopted,
        Some(_) => return Err(failed()(std::io::ErrorKind::InvalidData.into())),
        None => return Err(failed()(std::io::ErrorKind::TimedOut.into())),
    };
    dir.claim_owner()?;
    let control = crate::control::listen(dir.path(), "control")
        .map_err(Error::state("listen at", dir.file("control")))?;
    let planned = create::planned(runtime, &record, &HostFacts::gather(record.spec.privileged))?;
    let mut process = planned.process.clone();
    process.seccomp = start::filter(&planned)?;
    let mut stdio = adopted.stdio.into_iter();
    let stdin = if stdio.len() == 3 { stdio.next() } else { None };
    let streams = Streams {
        stdin,
        stdout: stdio.next(),
        stderr: stdio.next(),
        terminal: adopted.terminal,
        attached: [None, None],
    };
    let ports = start::bind_again(&start.ports)?;
    let subject = net::Subject {
        root: runtime.root(),
        id,
        name: &record.name,
        rootless: !rustix::process::geteuid().is_root(),
    };
    let endpoints = crate::network_files::kept_endpoints(&dir)?;
    let mut networks = net::Attachments::adopt(subject, endpoints.as_ref().unwrap_or(&planned.networks))?;
    networks.set_name_servers(&record.spec.dns);
    if record.spec.port_forwarding == PortForwarding::Kernel {
        let published = ports.iter().map(net::publish::BoundPort::published).collect();
        // The event loop serves all clients otherwise.
        let _ = networks.translate(published);
    }
    if networks.have_names() && adopted.pid >= 0 {
        // Without names it would be worse off than without an owner.
        let _ = resume_resolver(&helper, &mut networks);
    }
    let namespaces = match adopted.pid {
        // Its payload has ended, and its namespace with it.
        -1 => None,
        _ => Namespaces::of_run(&start),
    };
    let run = Run {
        helper,
        process,
        streams,
        cgroup: Cgroup::open(Place::of(&record.id, &record.spec), &start.cgroups),
        health: planned.health,
        networks: Some(networks),
        ports,
        namespaces,
        resumed: true,
        start,
    };
    Ok(Started {
        runtime: runtime.clone(),
        dir,
        record,
        control,
        reunion: Some(adopted.reunion),
        run,
    })
}
