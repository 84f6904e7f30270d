//! Every verb after every kill, from a program that had opened the root before: nobody has looked after the container
//! since. Each does what it does, or is the typed error that the table has, and nothing is left.

use super::deaths::groups_of;
use super::{killed, monitor, said, until};
use crate::probe::{Place, probe};
use crate::{Tested, chain, needs_root, same};
use rdock_runtime::{
    Container, ContainerUpdate, Error, NetworkMode, NetworkSpec, Resources, RestartPolicy, Status,
    WaitCondition, blocking,
};
use std::path::PathBuf;
use std::task::Poll;
use std::time::Duration;

/// Nothing takes so long, on any machine.
const HANGS: Duration = Duration::from_secs(120);

/// A network that no container is in.
const OTHER: &str = "other";

/// Who was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    Monitor,
    Helper,
    Both,
    Payload,
    /// First the monitor, and then the payload: its helper waits for somebody to tell.
    MonitorThenPayload,
}

/// What the container is afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Runs,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Start,
    Restart,
    Stop,
    Kill,
    Remove,
    RemoveByForce,
    Exec,
    Pause,
    Unpause,
    Rename,
    Update,
    Connect,
    Disconnect,
    Wait,
    WaitForNextExit,
    WaitForRemoval,
    Follow,
    Attach,
    Stats,
    Health,
    SameName,
    Inspect,
}

const VERBS: [Verb; 22] = [
    Verb::Start,
    Verb::Restart,
    Verb::Stop,
    Verb::Kill,
    Verb::Remove,
    Verb::RemoveByForce,
    Verb::Exec,
    Verb::Pause,
    Verb::Unpause,
    Verb::Rename,
    Verb::Update,
    Verb::Connect,
    Verb::Disconnect,
    Verb::Wait,
    Verb::WaitForNextExit,
    Verb::WaitForRemoval,
    Verb::Follow,
    Verb::Attach,
    Verb::Stats,
    Verb::Health,
    Verb::SameName,
    Verb::Inspect,
];

pub(super) fn monitor_killed() -> Tested {
    table(Kill::Monitor)
}

pub(super) fn helper_killed() -> Tested {
    table(Kill::Helper)
}

pub(super) fn both_killed() -> Tested {
    table(Kill::Both)
}

pub(super) fn payload_killed() -> Tested {
    table(Kill::Payload)
}

pub(super) fn monitor_and_payload_killed() -> Tested {
    table(Kill::MonitorThenPayload)
}

fn table(kill: Kill) -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        place.runtime.networks().create(&NetworkSpec::new(OTHER))?;
        let mut seen = Vec::new();
        for verb in VERBS {
            let tried = tokio::time::timeout(HANGS, one(&place, kill, verb)).await;
            match tried {
                Ok(Ok(processes)) => seen.push(processes),
                Ok(Err(error)) => {
                    return Err(format!("{verb:?} after {kill:?}: {}", chain(error.as_ref())).into());
                }
                Err(_) => return Err(format!("{verb:?} after {kill:?} hangs").into()),
            }
        }
        same(&place.runtime.containers()?.len(), &0)?;
        place.runtime.networks().remove(OTHER)?;
        let containers = place.root.path().join("containers");
        for (dir, expected) in [(containers.join("names"), 0), (containers, 2)] {
            let left: Vec<_> = std::fs::read_dir(dir)?.flatten().collect();
            same(&left.len(), &expected).map_err(|error| format!("{error}: {left:?}"))?;
        }
        for Seen { groups, processes } in seen {
            let left: Vec<_> = groups.into_iter().filter(|group| group.exists()).collect();
            same(&left, &Vec::<PathBuf>::new())?;
            for process in processes {
                let mut polled = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
                let limit = rustix::event::Timespec {
                    tv_sec: 60,
                    tv_nsec: 0,
                };
                same(&rustix::event::poll(&mut polled, Some(&limit))?, &1)
                    .map_err(|_| "a monitor, a helper or a payload is left")?;
            }
        }
        Ok(())
    })?
}

/// What a container had.
struct Seen {
    groups: Vec<PathBuf>,
    processes: Vec<rustix::fd::OwnedFd>,
}

/// The processes of a container, as far as they live.
fn processes(container: &Container) -> Tested<Vec<rustix::fd::OwnedFd>> {
    let info = container.inspect()?;
    let all = [Some(monitor(container)?), info.helper_pid, info.pid];
    let pids = all
        .into_iter()
        .flatten()
        .filter_map(rustix::process::Pid::from_raw);
    let flags = rustix::process::PidfdFlags::empty();
    Ok(pids
        .filter_map(|pid| rustix::process::pidfd_open(pid, flags).ok())
        .collect())
}

async fn one(place: &Place, kill: Kill, verb: Verb) -> Tested<Seen> {
    let mut orders = vec!["say up"];
    for _ in 0..4000 {
        orders.extend(["say tick", "sleep 60"]);
    }
    let spec = probe(&orders)?.name("one").network(NetworkMode::Default);
    let container = spec.clone().start_detached(&place.runtime).await?;
    said(&container, "up", 1).await?;
    let info = container.inspect()?;
    let (helper, payload) = (info.helper_pid.ok_or("no helper")?, info.pid.ok_or("no payload")?);
    let mut seen = Seen {
        groups: groups_of(container.id())?,
        processes: processes(&container)?,
    };
    // It waits before the kill, and sees everything that comes.
    let waits = container.clone();
    let waiting = match verb {
        Verb::WaitForNextExit => Some(WaitCondition::NextExit),
        Verb::WaitForRemoval => Some(WaitCondition::Removed),
        _ => None,
    };
    let waiting = match waiting {
        Some(condition) => {
            let mut waiting = Box::pin(async move { waits.wait_for(condition).await });
            // It looks at what was before at its first step.
            let begun = std::future::poll_fn(|task| Poll::Ready(waiting.as_mut().poll(task).is_pending()));
            same(&begun.await, &true)?;
            Some(tokio::spawn(waiting))
        }
        None => None,
    };
    let owner = monitor(&container)?;
    match kill {
        Kill::Monitor => killed(owner)?,
        Kill::Helper => killed(helper)?,
        Kill::Both => {
            killed(owner)?;
            killed(helper)?;
        }
        Kill::Payload => killed(payload)?,
        Kill::MonitorThenPayload => {
            killed(owner)?;
            killed(payload)?;
        }
    }
    let state = match kill {
        Kill::Monitor => State::Runs,
        // Its monitor records that at once.
        Kill::Helper | Kill::Payload => {
            until("the end is recorded", || {
                matches!(container.status(), Ok(Status::Exited(_)))
            })
            .await?;
            State::Ended
        }
        Kill::MonitorThenPayload => {
            let status = info.state_dir.join("status");
            until("the helper has written the status", || {
                std::fs::read(&status).is_ok_and(|text| !text.is_empty())
            })
            .await?;
            State::Ended
        }
        Kill::Both => State::Ended,
    };
    match waiting {
        Some(waiting) => wait(&container, state, verb, waiting).await?,
        None => act(place, &container, state, verb).await?,
    }
    if !matches!(verb, Verb::Remove | Verb::RemoveByForce) || place.runtime.container("one").is_ok() {
        if let Ok(more) = processes(&container) {
            seen.processes.extend(more);
        }
        // A removal removed it before, where that was waited for.
        if !matches!(verb, Verb::WaitForRemoval) {
            container.remove_with(true, true).await?;
        }
    }
    Ok(seen)
}

/// Who waits learns of the end, or of the removal.
async fn wait(
    container: &Container,
    state: State,
    verb: Verb,
    waiting: tokio::task::JoinHandle<Result<rdock_runtime::Exit, Error>>,
) -> Tested {
    if state == State::Runs {
        // A second look shows that it was not told too early.
        same(&waiting.is_finished(), &false)?;
        container.kill("KILL").await?;
    }
    if verb == Verb::WaitForRemoval {
        container.remove_with(true, true).await?;
    }
    let exit = waiting.await??;
    same(&exit.code(), &137)
}

async fn act(place: &Place, container: &Container, state: State, verb: Verb) -> Tested {
    let runs = state == State::Runs;
    let running = |container: &Container| same(&container.status()?, &Status::Running);
    let not_running = |result: Result<(), Error>| {
        same(&matches!(result, Err(Error::NotRunning { .. })), &true)
            .map_err(|_| format!("{result:?}").into())
    };
    // A verb of running containers: with success, or as what has ended.
    let works = |result: Result<(), Error>| match runs {
        true => Ok(result?),
        false => not_running(result),
    };
    match verb {
        Verb::Start => {
            let started = container.start().await;
            if runs {
                same(&matches!(started, Err(Error::AlreadyRunning { .. })), &true)?;
            } else {
                started?;
            }
            said(container, "up", if runs { 1 } else { 2 }).await?;
            running(container)
        }
        Verb::Restart => {
            container.restart(Some(Duration::ZERO)).await?;
            said(container, "up", 2).await?;
            running(container)
        }
        Verb::Stop => {
            same(&container.stop(Some(Duration::ZERO)).await?.code(), &137)?;
            same(&matches!(container.status()?, Status::Exited(_)), &true)
        }
        Verb::Kill => {
            works(container.kill("KILL").await)?;
            same(&container.wait().await?.code(), &137)
        }
        Verb::Remove => {
            let removed = container.remove_with(false, true).await;
            match runs {
                true => same(&matches!(removed, Err(Error::StillRunning { .. })), &true),
                false => Ok(removed?),
            }
        }
        Verb::RemoveByForce => Ok(container.remove_with(true, true).await?),
        Verb::Exec => {
            let done = container.exec(["/test"]).env("PROBE", "say here").output().await;
            works(done.map(drop))
        }
        Verb::Pause => {
            works(container.pause().await)?;
            if runs {
                same(&container.status()?, &Status::Paused)?;
                container.unpause().await?;
            }
            Ok(())
        }
        Verb::Unpause => match container.unpause().await {
            Err(Error::NotPaused { .. }) if runs => Ok(()),
            other => not_running(other),
        },
        Verb::Rename => {
            container.rename("two").await?;
            same(&place.runtime.container("two")?.id(), &container.id())?;
            Ok(container.rename("one").await?)
        }
        Verb::Update => {
            let mut resources = Resources::default();
            resources.pids = Some(70);
            let update = ContainerUpdate::new()
                .resources(resources)
                .restart(RestartPolicy::UnlessStopped);
            container.update(&update).await?;
            let info = container.inspect()?;
            let found = (info.spec.resources.pids, info.spec.restart);
            same(&found, &(Some(70), RestartPolicy::UnlessStopped))?;
            let back = ContainerUpdate::new().restart(RestartPolicy::No);
            Ok(container.update(&back).await?)
        }
        Verb::Connect => {
            container.connect_network(OTHER).await?;
            if !runs {
                container.start().await?;
            }
            let networks = container.inspect()?.networks;
            same(&networks.iter().any(|is| is.network == OTHER), &true)
        }
        Verb::Disconnect => {
            container.disconnect_network("default").await?;
            if !runs {
                container.start().await?;
            }
            same(&container.inspect()?.networks.len(), &0)
        }
        Verb::Wait => {
            let waits = container.clone();
            let waiting = tokio::spawn(async move { waits.wait().await });
            if runs {
                container.kill("KILL").await?;
            }
            same(&waiting.await??.code(), &137)
        }
        Verb::Follow => {
            let before = super::output(container).await?.len();
            if runs {
                // It goes on, and is heard.
                return said(container, "tick", before + 2).await;
            }
            let mut logs = container.logs().follow(true);
            let mut lines = 0;
            while logs.next().await?.is_some() {
                lines += 1;
            }
            same(&(lines >= before), &true)
        }
        Verb::Attach => works(container.attach().await.map(drop)),
        Verb::Stats => works(container.stats().await.map(drop)),
        Verb::Health => {
            let health = container.wait_health(None).await.map(drop);
            match health {
                Err(Error::NoHealthCheck { .. }) if runs => Ok(()),
                other => not_running(other),
            }
        }
        Verb::SameName => {
            let refused = probe(&["exit 0"])?
                .name("one")
                .start_detached(&place.runtime)
                .await;
            same(&matches!(refused, Err(Error::NameInUse { .. })), &true)
        }
        Verb::Inspect => {
            let info = container.inspect()?;
            same(&info.id.as_str(), &container.id())?;
            place.runtime.list(&Default::default())?;
            Ok(())
        }
        Verb::WaitForNextExit | Verb::WaitForRemoval => unreachable!("waits from before the kill on"),
    }
}
