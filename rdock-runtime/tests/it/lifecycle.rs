//! Containers that are created, started again, frozen, renamed, changed, checked and taken over.

mod deaths;
mod health;
mod restarts;
mod unowned;

use crate::probe::{Place, probe};
use crate::{Tested, needs_root, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{
    Container, ContainerSpec, ContainerUpdate, Error, ExitReason, NetworkMode, Resources, RestartPolicy,
    Runtime, Status, WaitCondition, blocking,
};
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_created_container_runs_when_it_is_started_and_again_afterwards",
            created,
        ),
        trial(
            "a_start_that_fails_is_a_typed_error_and_the_container_stays",
            failed_start,
        ),
        trial("restart_keeps_files_address_ports_and_volumes", restarts::restart),
        trial(
            "on_failure_3_makes_exactly_three_restarts",
            restarts::three_restarts,
        ),
        trial("a_container_that_is_stopped_is_not_restarted", restarts::stopped),
        trial("pauses_between_restarts_double", restarts::pauses),
        trial(
            "clients_are_refused_between_two_runs",
            restarts::refused_between_runs,
        ),
        trial("a_forced_removal_is_a_kill_and_no_stop", forced_removal),
        trial("a_paused_container_stands_still_and_can_be_stopped", paused),
        trial("a_renamed_container_has_its_new_name_alone", renamed),
        trial("update_changes_limits_at_once_and_for_good", updated),
        trial("wait_has_conditions", conditions),
        trial("a_container_may_be_gone_before_its_start_is_told", gone_at_once),
        trial(
            "health_is_found_soon_and_then_checked_at_the_interval",
            health::health,
        ),
        trial("a_failing_health_check_makes_unhealthy", health::unhealthy),
        trial("start_waits_until_healthy", health::ready_when_healthy),
        trial(
            "a_killed_monitor_is_replaced_and_nothing_is_lost",
            deaths::adopted,
        ),
        trial("the_exit_code_survives_the_monitor", deaths::exit_survives),
        trial(
            "a_killed_helper_is_an_exit_and_the_policy_applies",
            deaths::helper_killed,
        ),
        trial("a_killed_pair_is_noticed_and_started_again", deaths::both_killed),
        trial(
            "a_container_is_started_whatever_a_run_or_start_that_nobody_saw_end_left",
            deaths::unseen_end,
        ),
        trial("every_verb_works_after_a_killed_monitor", unowned::monitor_killed),
        trial("every_verb_works_after_a_killed_helper", unowned::helper_killed),
        trial("every_verb_works_after_a_killed_pair", unowned::both_killed),
        trial("every_verb_works_after_a_killed_payload", unowned::payload_killed),
        trial(
            "every_verb_works_after_an_end_that_only_the_helper_knows",
            unowned::monitor_and_payload_killed,
        ),
        trial(
            "a_name_is_free_again_when_its_holder_was_killed",
            deaths::name_is_free,
        ),
        trial("a_rename_that_was_cut_off_is_repeated", deaths::rename_repeated),
        trial(
            "a_stop_runs_nothing_that_has_ended_unseen",
            deaths::stopped_unseen,
        ),
        trial(
            "a_container_frozen_by_a_killed_monitor_is_seen_so",
            deaths::frozen_unseen,
        ),
        trial(
            "a_frozen_container_whose_pair_was_killed_ends",
            deaths::killed_while_frozen,
        ),
        trial(
            "a_network_is_not_in_use_by_containers_that_were_killed",
            deaths::network_of_the_dead,
        ),
        trial("a_monitor_whose_container_is_gone_ends", deaths::container_gone),
        trial(
            "a_container_whose_removal_was_cut_off_is_not_started",
            deaths::half_removed,
        ),
        trial(
            "a_reboot_ends_containers_and_starts_those_that_want_it",
            deaths::rebooted,
        ),
        trial("rt_user_after_restart", user_after_restart),
        trial("rt_limits_escape_by_exec", limits_hold_for_exec),
        trial("rt_state_dir_perms_of_the_sockets", sockets_are_private),
    ]
}

fn killed(pid: i32) -> Tested {
    let pid = rustix::process::Pid::from_raw(pid).ok_or("no pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    // Its end is an event of its pidfd.
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return Ok(());
    };
    let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut polled, None)?;
    Ok(())
}

/// The monitor's pid, from the container's state.
fn monitor(container: &Container) -> Tested<i32> {
    let file = std::fs::read(container.inspect()?.state_dir.join("owner"))?;
    let owner: serde_json::Value = serde_json::from_slice(&file)?;
    Ok(owner["pid"].as_i64().ok_or("no pid")? as i32)
}

/// One HTTP request.
fn get(address: std::net::SocketAddr) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut server = std::net::TcpStream::connect(address)?;
    server.set_read_timeout(Some(Duration::from_secs(20)))?;
    server.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    server.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Waits for what is not an event of a process of ours, for a bounded time.
async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Tested {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        if Instant::now() > deadline {
            return Err(format!("waited in vain until {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn output(container: &Container) -> Tested<Vec<String>> {
    let mut logs = container.logs();
    let mut lines = Vec::new();
    while let Some(line) = logs.next().await? {
        lines.push(String::from_utf8_lossy(&line.bytes).trim_end().to_owned());
    }
    Ok(lines)
}

/// Waits until the container has written `line` `times` times, a minute at most.
async fn said(container: &Container, line: &str, times: usize) -> Tested {
    let mut logs = container.logs().follow(true);
    let mut seen = 0;
    let all = async {
        while let Some(next) = logs.next().await? {
            seen += usize::from(String::from_utf8_lossy(&next.bytes).trim_end() == line);
            if seen == times {
                return Ok(true);
            }
        }
        Ok::<bool, Error>(false)
    };
    match tokio::time::timeout(Duration::from_secs(60), all).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(false)) | Err(_) => Err(format!("{line:?} came {seen} times").into()),
    }
}

fn created() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["say once", "write /kept yes", "exit 3"])?.name("made");
        let container = spec.create(&place.runtime).await?;
        same(&container.status()?, &Status::Created)?;
        same(&container.inspect()?.started_at, &None)?;
        same(&container.wait().await?.code(), &0)?;
        // Opening the root again leaves it alone.
        let other = Runtime::open(place.root.path())?.container("made")?;
        same(&other.status()?, &Status::Created)?;
        other.start().await?;
        same(&other.wait().await?.code(), &3)?;
        same(&container.status()?.exit().map(|exit| exit.code()), &Some(3))?;
        container.start().await?;
        same(&container.wait().await?.code(), &3)?;
        same(
            &output(&container).await?,
            &vec!["once", "written", "once", "written"],
        )?;
        container.remove_with(false, true).await?;
        // One that never ran is removed as well.
        let spec = probe(&["sleep 60000"])?;
        let never = spec.create(&place.runtime).await?;
        never.remove_with(false, true).await?;
        same(&place.runtime.containers()?.len(), &0)
    })?
}

fn failed_start() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = ContainerSpec::new("probe").args(["/none"]).name("bad");
        let container = spec.network(NetworkMode::None).create(&place.runtime).await?;
        let error = container.start().await.err().ok_or("it started")?;
        same(&error.exit_code(), &127)?;
        let status = container.status()?;
        let reason = status.exit().map(|exit| exit.reason.clone());
        same(
            &matches!(reason, Some(ExitReason::SetupFailed { errno: 2, .. })),
            &true,
        )?;
        container.remove_with(false, true).await?;
        same(&place.runtime.containers()?.len(), &0)
    })?
}

fn paused() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let mut orders = Vec::new();
        for _ in 0..500 {
            orders.extend(["say tick", "sleep 20"]);
        }
        // With a limit of version 1 as well, and without.
        for memory in [None, Some(64 << 20)] {
            let mut spec = probe(&orders)?;
            spec.resources.memory = memory;
            let container = spec.start_detached(&place.runtime).await?;
            said(&container, "tick", 3).await?;
            container.pause().await?;
            same(&container.status()?, &Status::Paused)?;
            // What it said before may still be on its way into the log; after that it says nothing.
            let mut ticks = 0;
            for attempt in 0.. {
                let now = output(&container).await?.len();
                if now == ticks {
                    break;
                }
                same(&(attempt < 20), &true).map_err(|_| format!("{now} ticks, and more come"))?;
                ticks = now;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            let refused = container.exec(["/test"]).output().await;
            same(&matches!(refused, Err(Error::Paused { .. })), &true)?;
            same(
                &matches!(container.pause().await, Err(Error::Paused { .. })),
                &true,
            )?;
            container.unpause().await?;
            same(&container.status()?, &Status::Running)?;
            let refused = container.unpause().await;
            same(&matches!(refused, Err(Error::NotPaused { .. })), &true)?;
            said(&container, "tick", ticks + 2).await?;
            container.pause().await?;
            same(&container.stop(Some(Duration::ZERO)).await?.code(), &137)?;
            container.start().await?;
            container.pause().await?;
            container.remove_with(true, true).await?;
        }
        same(&place.runtime.containers()?.len(), &0)
    })?
}

fn renamed() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["sleep 600000"])?.name("old");
        let container = spec.start_detached(&place.runtime).await?;
        let other = probe(&["sleep 1"])?.name("other").create(&place.runtime).await?;
        let taken = container.rename("other").await;
        same(&matches!(taken, Err(Error::NameInUse { .. })), &true)?;
        same(
            &matches!(container.rename("a/b").await, Err(Error::Spec(_))),
            &true,
        )?;
        container.rename("new").await?;
        let found = Runtime::open(place.root.path())?.container("new")?;
        same(&(found.id(), found.name()), &(container.id(), "new"))?;
        let gone = place.runtime.container("old");
        same(&matches!(gone, Err(Error::NoSuchContainer { .. })), &true)?;
        // The old name is free, and the new one goes with the container.
        other.rename("old").await?;
        found.remove_with(true, true).await?;
        probe(&["sleep 1"])?
            .name("new")
            .create(&place.runtime)
            .await?
            .remove_with(false, true)
            .await?;
        other.remove_with(false, true).await?;
        let names = std::fs::read_dir(place.root.path().join("containers/names"))?.count();
        same(&names, &0)
    })?
}

fn updated() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let container = probe(&["sleep 600000"])?.start_detached(&place.runtime).await?;
        let pid = container.inspect()?.pid.ok_or("no pid")?;
        let mut resources = Resources::default();
        (resources.memory, resources.pids) = (Some(96 << 20), Some(77));
        let update = ContainerUpdate::new()
            .resources(resources)
            .restart(RestartPolicy::UnlessStopped);
        container.update(&update).await?;
        // In the group that the payload is really in.
        same(
            &limit(pid, "memory", "memory.limit_in_bytes", "memory.max")?,
            &(96 << 20).to_string(),
        )?;
        same(&limit(pid, "pids", "pids.max", "pids.max")?.as_str(), &"77")?;
        // Raised again, and only what is named.
        let mut resources = Resources::default();
        resources.memory = Some(128 << 20);
        container
            .update(&ContainerUpdate::new().resources(resources))
            .await?;
        let info = Runtime::open(place.root.path())?
            .container(container.id())?
            .inspect()?;
        same(
            &(info.spec.resources.memory, info.spec.resources.pids),
            &(Some(128 << 20), Some(77)),
        )?;
        same(&info.spec.restart, &RestartPolicy::UnlessStopped)?;
        let mut resources = Resources::default();
        resources.memory = Some(1);
        let refused = container
            .update(&ContainerUpdate::new().resources(resources))
            .await;
        same(&matches!(refused, Err(Error::Spec(_))), &true)?;
        same(&container.inspect()?.spec.resources.memory, &Some(128 << 20))?;
        // The policy holds from the next end on.
        killed(pid)?;
        until("it runs again", || {
            container
                .inspect()
                .is_ok_and(|info| info.restart_count == 1 && info.pid.is_some())
        })
        .await?;
        let pid = container.inspect()?.pid.ok_or("no pid")?;
        same(
            &limit(pid, "memory", "memory.limit_in_bytes", "memory.max")?,
            &(128 << 20).to_string(),
        )?;
        container.remove_with(true, true).await?;
        Ok(())
    })?
}

/// A limit of the group that a process is in, of version 1 or 2.
fn limit(pid: i32, controller: &str, v1: &str, v2: &str) -> Tested<String> {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let version_2 = names.is_empty();
        if !version_2 && !names.split(',').any(|name| name == controller) {
            continue;
        }
        let wanted = if version_2 { " - cgroup2 " } else { " - cgroup " };
        let mount = mounts.lines().find(|mount| {
            mount.contains(wanted)
                && (version_2 || mount.ends_with(names) || mount.contains(&format!(",{controller}")))
        });
        let Some(mount) = mount.and_then(|mount| mount.split(' ').nth(4)) else {
            continue;
        };
        let file = Path::new(mount)
            .join(path.trim_start_matches('/'))
            .join(if version_2 { v2 } else { v1 });
        if let Ok(text) = std::fs::read_to_string(file) {
            return Ok(text.trim().to_owned());
        }
    }
    Err(format!("no {controller} limit in {own}").into())
}

fn gone_at_once() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        for code in 0..50 {
            let spec = probe(&[&format!("exit {code}")])?.auto_remove(true);
            let (container, _streams) = spec.start_attached(&place.runtime).await?;
            same(&container.wait().await?.code(), &code)?;
        }
        same(&place.runtime.containers()?.len(), &0)
    })?
}

fn conditions() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["sleep 50", "exit 4"])?;
        let container = spec.create(&place.runtime).await?;
        same(&container.wait_for(WaitCondition::NotRunning).await?.code(), &0)?;
        let next = container.wait_for(WaitCondition::NextExit);
        let (next, started) = tokio::join!(next, async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            container.start().await
        });
        started?;
        same(&next?.code(), &4)?;
        let removed = container.wait_for(WaitCondition::Removed);
        let (removed, done) = tokio::join!(removed, async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            container.remove_with(false, true).await
        });
        done?;
        same(&removed?.code(), &4)?;
        let spec = probe(&["await /go", "exit 5"])?.auto_remove(true);
        let container = spec.start_detached(&place.runtime).await?;
        let removed = container.wait_for(WaitCondition::Removed);
        let go = container.exec(["/test"]).env("PROBE", "write /go x");
        // It may be ended together with the payload.
        let (removed, _) = tokio::join!(removed, go.status());
        same(&removed?.code(), &5)
    })?
}

/// Who the process is: real and effective ids, groups, capabilities.
fn identity(pid: i32) -> Tested<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let fields = [
        "Uid:",
        "Gid:",
        "Groups:",
        "CapEff:",
        "CapPrm:",
        "CapInh:",
        "CapBnd:",
        "CapAmb:",
        "NoNewPrivs:",
        "Seccomp:",
    ];
    let lines = status
        .lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(field)));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn user_after_restart() -> Tested {
    needs_root()?;
    let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1234:1234::/:/bin/sh\n";
    let group = "app:x:1234:\nmore:x:77:app\n";
    let place = Place::with(
        r#"{"User":"app"}"#,
        &[
            crate::probe::file("etc/passwd", 0o644, passwd),
            crate::probe::file("etc/group", 0o644, group),
        ],
    )?;
    blocking::wait(async {
        let mut spec = probe(&["say up", "sleep 600000"])?.restart(RestartPolicy::Always);
        spec.cap_add.push("NET_ADMIN".into());
        spec.groups.push("88".into());
        let container = spec.create(&place.runtime).await?;
        container.start().await?;
        let pid = || -> Tested<i32> { Ok(container.inspect()?.pid.ok_or("no pid")?) };
        said(&container, "up", 1).await?;
        let first = identity(pid()?)?;
        same(&first.contains("Uid:\t1234\t1234\t1234\t1234"), &true)?;
        same(&first.contains("Groups:\t77 88 1234"), &true).map_err(|error| format!("{first}: {error}"))?;
        container.restart(Some(Duration::ZERO)).await?;
        said(&container, "up", 2).await?;
        same(&identity(pid()?)?, &first)?;
        killed(pid()?)?;
        said(&container, "up", 3).await?;
        same(&identity(pid()?)?, &first)?;
        let process = container
            .exec(["/test"])
            .env("PROBE", "cat /proc/self/status")
            .output()
            .await?;
        let status = String::from_utf8(process.stdout)?;
        for line in first.lines() {
            same(&status.contains(line), &true).map_err(|error| format!("{line}: {error}"))?;
        }
        killed(monitor(&container)?)?;
        Runtime::open(place.root.path())?;
        killed(pid()?)?;
        said(&container, "up", 4).await?;
        same(&identity(pid()?)?, &first)?;
        container.stop(Some(Duration::ZERO)).await?;
        container.start().await?;
        said(&container, "up", 5).await?;
        same(&identity(pid()?)?, &first)?;
        container.remove_with(true, true).await?;
        Ok(())
    })?
}

fn limits_hold_for_exec() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let mut spec = probe(&["sleep 600000"])?;
        (spec.resources.memory, spec.resources.pids) = (Some(64 << 20), Some(50));
        let container = spec.start(&place.runtime).await?;
        let mut process = container
            .exec(["/test"])
            .env("PROBE", "sleep 600000")
            .spawn()
            .await?;
        let payload = container.inspect()?.pid.ok_or("no pid")?;
        // Every process of the container, whoever started it, is in the payload's groups.
        let own = std::fs::read_to_string(format!("/proc/{payload}/cgroup"))?;
        let helper = container.inspect()?.helper_pid.ok_or("no helper")?;
        let children = std::fs::read_to_string(format!("/proc/{helper}/task/{helper}/children"))?;
        let others: Vec<i32> = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .filter(|pid| *pid != payload)
            .collect();
        same(&others.len(), &1)?;
        same(
            &std::fs::read_to_string(format!("/proc/{}/cgroup", others[0]))?,
            &own,
        )?;
        process.kill("KILL").await?;
        process.wait().await?;
        container.remove().await?;
        Ok(())
    })?
}

fn sockets_are_private() -> Tested {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new()?;
    blocking::wait(async {
        let container = probe(&["sleep 600000"])?.start_detached(&place.runtime).await?;
        let state = container.inspect()?.state_dir;
        let mode = std::fs::metadata(&state)?.permissions().mode();
        same(&(mode & 0o777), &0o700)?;
        for socket in ["control", "helper"] {
            same(&state.join(socket).exists(), &true)?;
        }
        // Neither has a name that another network namespace or user could reach.
        let abstracts = std::fs::read_to_string("/proc/net/unix")?;
        let ours = abstracts
            .lines()
            .filter(|line| line.contains("@") && line.contains("rdock"));
        same(&ours.count(), &0)?;
        container.remove_with(true, true).await?;
        Ok(())
    })?
}

fn forced_removal() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let container = probe(&["sleep 600000"])?.start_detached(&place.runtime).await?;
        container.remove_with(true, true).await?;
        let mut events = place.runtime.events().container(container.id()).follow(false);
        let mut seen = Vec::new();
        while let Some(event) = events.next().await? {
            seen.push(event.action.to_string());
        }
        same(&seen, &vec!["create", "start", "kill", "die", "destroy"])?;
        // One that is stopped before says so.
        let container = probe(&["sleep 600000"])?.start_detached(&place.runtime).await?;
        container.stop(Some(Duration::ZERO)).await?;
        container.remove_with(true, true).await?;
        let mut events = place.runtime.events().container(container.id()).follow(false);
        let mut seen = Vec::new();
        while let Some(event) = events.next().await? {
            seen.push(event.action.to_string());
        }
        let stopped = ["create", "start", "kill", "die", "stop", "destroy"];
        same(&seen, &stopped.to_vec())
    })?
}
