//! Monitors, helpers and hosts that die.

use super::{get, killed, monitor, output, said, until};
use crate::probe::{Place, probe};
use crate::{Tested, needs_root, same};
use rdock_runtime::{
    Error, ExitReason, NetworkMode, NetworkSpec, PortMapping, Ready, RestartPolicy, Runtime, Status, blocking,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) fn adopted() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let mut orders = vec!["listen 0.0.0.0:8080"];
        for _ in 0..2000 {
            orders.extend(["say tick", "sleep 10"]);
        }
        orders.push("exit 9");
        let spec = probe(&orders)?
            .network(NetworkMode::Default)
            .publish(PortMapping::tcp(8080))
            .ready_when(Ready::port(8080));
        let container = spec.start_detached(&place.runtime).await?;
        let before = container.inspect()?;
        for round in 0..3 {
            said(&container, "tick", 5).await?;
            killed(monitor(&container)?)?;
            let ticks = output(&container).await?.len();
            // By the next open, or by whoever needs the container.
            if round < 2 {
                Runtime::open(place.root.path())?;
            }
            let done = container
                .exec(["/test"])
                .env("PROBE", "say here")
                .output()
                .await?;
            same(&String::from_utf8(done.stdout)?.trim(), &"here")?;
            let after = container.inspect()?;
            same(&(after.pid, &after.status), &(before.pid, &Status::Running))?;
            said(&container, "tick", ticks + 3).await?;
            let address = container.host_addr(8080)?;
            let answer = tokio::task::spawn_blocking(move || get(address)).await??;
            same(&answer.starts_with("HTTP/1.1 204"), &true)?;
        }
        // No line is lost or doubled: the payload never noticed.
        let attached = container.attach().await?;
        same(&attached.stdout.is_some(), &true)?;
        same(&container.stop(Some(Duration::ZERO)).await?.code(), &137)?;
        container.remove_with(false, true).await?;
        same(&place.runtime.containers()?.len(), &0)
    })?
}

pub(super) fn exit_survives() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["say before", "cat /dev/stdin", "say after", "exit 42"])?.interactive(true);
        let (container, mut streams) = spec.start_attached(&place.runtime).await?;
        said(&container, "before", 1).await?;
        killed(monitor(&container)?)?;
        // The end of its input lets it go on, with nobody there.
        drop(streams.stdin.take());
        let state = container.inspect()?.state_dir;
        until("the helper has written the status", || {
            std::fs::read(state.join("status")).is_ok_and(|text| !text.is_empty())
        })
        .await?;
        Runtime::open(place.root.path())?;
        same(&container.wait().await?.code(), &42)?;
        // What it wrote meanwhile is in the log.
        same(&output(&container).await?, &vec!["before", "", "after"])?;
        container.remove_with(false, true).await?;
        // The same when the helper dies too, and with it the pipes.
        let spec = probe(&["cat /dev/stdin", "exit 43"])?.interactive(true);
        let (container, mut streams) = spec.start_attached(&place.runtime).await?;
        let info = container.inspect()?;
        killed(monitor(&container)?)?;
        drop(streams.stdin.take());
        until("the helper has written the status", || {
            std::fs::read(info.state_dir.join("status")).is_ok_and(|text| !text.is_empty())
        })
        .await?;
        killed(info.helper_pid.ok_or("no helper")?)?;
        Runtime::open(place.root.path())?;
        same(&container.wait().await?.code(), &43)?;
        container.remove_with(false, true).await?;
        Ok(())
    })?
}

pub(super) fn helper_killed() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["say up", "sleep 600000"])?;
        let container = spec.start_detached(&place.runtime).await?;
        killed(container.inspect()?.helper_pid.ok_or("no helper")?)?;
        same(&container.wait().await?.code(), &137)?;
        container.remove_with(false, true).await?;
        let container = spec
            .restart(RestartPolicy::Always)
            .start_detached(&place.runtime)
            .await?;
        // Killed before its first word, it would say it only once.
        said(&container, "up", 1).await?;
        killed(container.inspect()?.helper_pid.ok_or("no helper")?)?;
        said(&container, "up", 2).await?;
        container.remove_with(true, true).await?;
        Ok(())
    })?
}

pub(super) fn unseen_end() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["listen 0.0.0.0:8080", "say up", "sleep 600000"])?
            .network(NetworkMode::Default)
            .publish(PortMapping::tcp(8080))
            .ready_when(Ready::port(8080));
        for policy in [RestartPolicy::No, RestartPolicy::Always] {
            let container = spec
                .clone()
                .restart(policy)
                .start_detached(&place.runtime)
                .await?;
            said(&container, "up", 1).await?;
            let info = container.inspect()?;
            killed(monitor(&container)?)?;
            killed(info.helper_pid.ok_or("no helper")?)?;
            // Nobody has opened the root since.
            container.start().await?;
            said(&container, "up", 2).await?;
            let address = container.host_addr(8080)?;
            let answer = tokio::task::spawn_blocking(move || get(address)).await??;
            same(&answer.starts_with("HTTP/1.1 204"), &true)?;
            let events = std::fs::read_to_string(info.state_dir.join("events.jsonl"))?;
            same(&events.matches("owner_died").count(), &1)?;
            same(&container.inspect()?.restart_count, &0)?;
            container.stop(Some(Duration::ZERO)).await?;
            // What a start leaves that is killed before its payload runs.
            for groups in groups_of(container.id())? {
                std::fs::create_dir(&groups)?;
            }
            container.start().await?;
            said(&container, "up", 3).await?;
            container.remove_with(true, true).await?;
        }
        Ok(())
    })?
}

/// Where a container has, or had, its control groups: beside those that are there.
pub(super) fn groups_of(id: &str) -> Tested<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let groups: Vec<_> = mounts
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| Some(Path::new(line.split(' ').nth(4)?).join("rdock")))
        .filter(|parent| parent.is_dir())
        .map(|parent| parent.join(id))
        .collect();
    if groups.is_empty() {
        return Err("no control groups".into());
    }
    Ok(groups)
}

pub(super) fn container_gone() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        // Between two runs nearly all the time.
        let spec = probe(&["exit 1"])?.restart(RestartPolicy::Always);
        let container = spec.start_detached(&place.runtime).await?;
        let monitor = rustix::process::Pid::from_raw(monitor(&container)?).ok_or("no pid")?;
        let monitor = rustix::process::pidfd_open(monitor, rustix::process::PidfdFlags::empty())?;
        let dir = container.inspect()?.state_dir;
        std::fs::rename(&dir, place.root.path().join("elsewhere"))?;
        let mut polled = [rustix::event::PollFd::new(&monitor, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        let ended = rustix::event::poll(&mut polled, Some(&limit))?;
        same(&ended, &1).map_err(|_| "the monitor lives on".into())
    })?
}

pub(super) fn half_removed() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let container = probe(&["exit 0"])?.start_detached(&place.runtime).await?;
        container.wait().await?;
        // What a removal writes first.
        std::fs::write(container.inspect()?.state_dir.join("removing"), "[]")?;
        let refused = container.start().await;
        same(&matches!(refused, Err(Error::NoSuchContainer { .. })), &true)
            .map_err(|_| format!("{refused:?}"))?;
        same(&Runtime::open(place.root.path())?.containers()?.len(), &0)
    })?
}

pub(super) fn both_killed() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["say up", "sleep 600000"])?;
        let plain = spec.start_detached(&place.runtime).await?;
        let policy = spec.clone().restart(RestartPolicy::Always);
        let always = policy.start_detached(&place.runtime).await?;
        said(&always, "up", 1).await?;
        for container in [&plain, &always] {
            let helper = container.inspect()?.helper_pid.ok_or("no helper")?;
            killed(monitor(container)?)?;
            killed(helper)?;
        }
        Runtime::open(place.root.path())?;
        let status = plain.status()?;
        same(
            &status.exit().map(|exit| exit.reason.clone()),
            &Some(ExitReason::OwnerDied),
        )?;
        same(&always.status()?, &Status::Running)?;
        said(&always, "up", 2).await?;
        for container in [plain, always] {
            container.remove_with(true, true).await?;
        }
        Ok(())
    })?
}

pub(super) fn rebooted() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["say up", "sleep 600000"])?;
        let mut all = Vec::new();
        for policy in [
            RestartPolicy::No,
            RestartPolicy::Always,
            RestartPolicy::UnlessStopped,
            RestartPolicy::Always,
            RestartPolicy::UnlessStopped,
        ] {
            all.push(
                spec.clone()
                    .restart(policy)
                    .start_detached(&place.runtime)
                    .await?,
            );
        }
        for container in &all[3..] {
            container.stop(Some(Duration::ZERO)).await?;
        }
        for container in &all[..3] {
            let helper = container.inspect()?.helper_pid.ok_or("no helper")?;
            killed(monitor(container)?)?;
            killed(helper)?;
        }
        // What a reboot leaves: everybody named on disk is of another boot.
        for container in &all {
            for file in ["owner", "events.jsonl"] {
                let path = container.inspect()?.state_dir.join(file);
                let text = std::fs::read_to_string(&path)?;
                let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
                std::fs::write(
                    &path,
                    text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000"),
                )?;
            }
        }
        Runtime::open(place.root.path())?;
        let runs: Vec<bool> = all
            .iter()
            .map(|container| container.status().is_ok_and(|status| status.is_running()))
            .collect();
        // As docker: always even when it was stopped, unless-stopped not then.
        same(&runs, &vec![false, true, true, true, false])?;
        let first = all[0].status()?;
        same(
            &first.exit().map(|exit| exit.reason.clone()),
            &Some(ExitReason::OwnerDied),
        )?;
        for container in all {
            container.remove_with(true, true).await?;
        }
        Ok(())
    })?
}

pub(super) fn name_is_free() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let ends = probe(&["say up", "sleep 600000"])?.name("one");
        // One that removes itself, and whose end nobody saw.
        let mut removes_itself = ends.clone();
        removes_itself.auto_remove = true;
        let container = removes_itself.start_detached(&place.runtime).await?;
        let helper = container.inspect()?.helper_pid.ok_or("no helper")?;
        killed(monitor(&container)?)?;
        // As long as it runs it has its name.
        let refused = ends.clone().start_detached(&place.runtime).await;
        same(&matches!(refused, Err(Error::NameInUse { .. })), &true)?;
        killed(helper)?;
        let next = ends.start_detached(&place.runtime).await?;
        // One whose removal was cut off.
        next.stop(Some(Duration::ZERO)).await?;
        std::fs::write(next.inspect()?.state_dir.join("removing"), "[]")?;
        let last = ends.create(&place.runtime).await?;
        last.remove_with(false, true).await?;
        same(&place.runtime.containers()?.len(), &0)
    })?
}

pub(super) fn rename_repeated() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let container = probe(&["exit 0"])?.name("old").create(&place.runtime).await?;
        // What a rename leaves that is killed before it replaces the record.
        let names = place.root.path().join("containers/names");
        std::fs::write(names.join("new"), container.id())?;
        let other = probe(&["exit 0"])?.create(&place.runtime).await?;
        let refused = other.rename("new").await;
        same(&matches!(refused, Err(Error::NameInUse { .. })), &true)?;
        container.rename("new").await?;
        same(&place.runtime.container("new")?.name(), &"new")?;
        // And before it gives the old name back: whoever wants that gets it.
        std::fs::write(names.join("old"), container.id())?;
        let third = probe(&["exit 0"])?.name("old").create(&place.runtime).await?;
        for container in [container, other, third] {
            container.remove_with(false, true).await?;
        }
        same(&std::fs::read_dir(names)?.count(), &0)
    })?
}

pub(super) fn stopped_unseen() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["say up", "sleep 600000"])?.restart(RestartPolicy::Always);
        let container = spec.start_detached(&place.runtime).await?;
        said(&container, "up", 1).await?;
        let helper = container.inspect()?.helper_pid.ok_or("no helper")?;
        killed(monitor(&container)?)?;
        killed(helper)?;
        same(&container.stop(None).await?.code(), &137)?;
        same(&matches!(container.status()?, Status::Exited(_)), &true)?;
        // Nor does the next program start it.
        Runtime::open(place.root.path())?;
        same(&output(&container).await?, &vec!["up"])?;
        container.start().await?;
        said(&container, "up", 2).await?;
        container.remove_with(true, true).await?;
        Ok(())
    })?
}

pub(super) fn frozen_unseen() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let container = probe(&["say up", "sleep 600000"])?
            .start_detached(&place.runtime)
            .await?;
        said(&container, "up", 1).await?;
        let state = container.inspect()?.state_dir;
        let events = state.join("events.jsonl");
        for _ in 0..2 {
            // Killed after the freeze, and before it was noted.
            let before = std::fs::read(&events)?;
            container.pause().await?;
            killed(monitor(&container)?)?;
            std::fs::write(&events, before)?;
            let refused = container.exec(["/test"]).output().await;
            same(&matches!(refused, Err(Error::Paused { .. })), &true).map_err(|_| format!("{refused:?}"))?;
            same(&container.status()?, &Status::Paused)?;
            // And the other way round.
            let before = std::fs::read(&events)?;
            container.unpause().await?;
            killed(monitor(&container)?)?;
            std::fs::write(&events, before)?;
            let done = container
                .exec(["/test"])
                .env("PROBE", "say here")
                .output()
                .await?;
            same(&done.stdout, &b"here\n".to_vec())?;
            same(&container.status()?, &Status::Running)?;
        }
        container.pause().await?;
        let helper = container.inspect()?.helper_pid.ok_or("no helper")?;
        killed(monitor(&container)?)?;
        killed(helper)?;
        container.start().await?;
        said(&container, "up", 2).await?;
        container.remove_with(true, true).await?;
        same(&place.runtime.containers()?.len(), &0)
    })?
}

pub(super) fn killed_while_frozen() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let freezer = mounts
        .lines()
        .filter(|line| line.contains(" - cgroup "))
        .find(|line| {
            line.rsplit(' ')
                .next()
                .is_some_and(|options| options.split(',').any(|is| is == "freezer"))
        })
        .and_then(|line| line.split(' ').nth(4))
        .ok_or_else(|| crate::Cannot("needs the freezer of control groups of version 1".into()))?;
    blocking::wait(async {
        let spec = probe(&["say up", "sleep 600000"])?;
        for stop in [true, false] {
            let container = spec.start_detached(&place.runtime).await?;
            said(&container, "up", 1).await?;
            let info = container.inspect()?;
            let (payload, helper) = (info.pid.ok_or("no pid")?, info.helper_pid.ok_or("no helper")?);
            // Where its group is on a machine without version 2. A process that is frozen there does not even die.
            let group = Path::new(freezer).join("rdock").join(container.id());
            std::fs::create_dir_all(&group)?;
            std::fs::write(group.join("cgroup.procs"), payload.to_string())?;
            std::fs::write(group.join("freezer.state"), "FROZEN")?;
            until("it is frozen", || {
                std::fs::read_to_string(group.join("freezer.state"))
                    .is_ok_and(|state| state.trim() == "FROZEN")
            })
            .await?;
            killed(monitor(&container)?)?;
            // Its end waits for that of its payload, which does not come.
            let helper = rustix::process::Pid::from_raw(helper).ok_or("no pid")?;
            let pidfd = rustix::process::pidfd_open(helper, rustix::process::PidfdFlags::empty())?;
            rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL)?;
            if stop {
                same(&container.stop(Some(Duration::ZERO)).await?.code(), &137)?;
                same(&matches!(container.status()?, Status::Exited(_)), &true)?;
            }
            container.remove_with(true, true).await?;
            same(&group.exists(), &false)?;
            let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            let limit = rustix::event::Timespec {
                tv_sec: 60,
                tv_nsec: 0,
            };
            same(&rustix::event::poll(&mut polled, Some(&limit))?, &1).map_err(|_| "the helper is left")?;
        }
        same(&place.runtime.containers()?.len(), &0)
    })?
}

pub(super) fn network_of_the_dead() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let networks = place.runtime.networks();
        networks.create(&NetworkSpec::new("back"))?;
        let spec = probe(&["say up", "sleep 600000"])?
            .network(NetworkMode::Default)
            .network("back");
        let container = spec.start_detached(&place.runtime).await?;
        said(&container, "up", 1).await?;
        let refused = networks.remove("back");
        same(&refused.is_err(), &true).map_err(|_| "removed though it is in use")?;
        let helper = container.inspect()?.helper_pid.ok_or("no helper")?;
        killed(monitor(&container)?)?;
        // It runs on.
        same(&networks.remove("back").is_err(), &true)?;
        killed(helper)?;
        networks.remove("back")?;
        let missing = container.start().await.err().ok_or("it started")?;
        same(&crate::chain(&missing).contains("back"), &true).map_err(|_| crate::chain(&missing))?;
        networks.create(&NetworkSpec::new("back"))?;
        container.start().await?;
        said(&container, "up", 2).await?;
        container.remove_with(true, true).await?;
        networks.remove("back")?;
        Ok(())
    })?
}
