//! What is seen of running containers from outside: their processes and what they use.

use crate::probe::{Place, file, probe};
use crate::{Tested, needs_root, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{Container, ContainerSpec, Error, GapReason, NetworkMode, StatsPart, blocking};
use std::time::{Duration, Instant};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("rt_top_image_code_never_runs", image_code),
        trial("top_lists_payload_and_execs_and_no_helper", processes),
        trial(
            "top_of_a_container_in_the_hosts_pid_namespace_is_its_own_alone",
            host_pids,
        ),
        trial("stats_grow_with_what_the_payload_does", usage),
        trial("stats_know_limits_where_the_kernel_has_them", limits),
        trial("stats_count_the_traffic_of_the_container_alone", traffic),
        trial("stats_end_with_the_container", stream_ends),
    ]
}

/// A container that sleeps until it is removed.
async fn sleeping(place: &Place, spec: ContainerSpec) -> Tested<rdock_runtime::ScopedContainer> {
    Ok(spec.start(&place.runtime).await?)
}

fn image_code() -> Tested {
    // A ps that leaves a mark, wherever it may be looked for.
    let hostile = "#!/test\n";
    let entries: Vec<_> = [
        "bin/ps",
        "usr/bin/ps",
        "sbin/ps",
        "usr/local/bin/ps",
        "bin/nsenter",
        "bin/sh",
    ]
    .map(|path| file(path, 0o755, hostile))
    .to_vec();
    let config = r#"{"Env":["PATH=/bin:/usr/bin","LD_PRELOAD=/bin/ps"]}"#;
    let place = Place::with(config, &entries)?;
    blocking::wait(async {
        let spec = probe(&["sleep 60000"])?.env("RAN", "1");
        let container = sleeping(&place, spec).await?;
        let before = container.processes().await?;
        let mut watch = place.runtime.events().container(container.id());
        let top = container.top(["-eo", "pid,args"]).await?;
        same(&top.titles, &vec!["PID", "COMMAND"])?;
        same(&top.processes.len(), &1)?;
        same(&top.processes[0][1].as_str(), &"/test")?;
        // Nothing was executed: no exec is recorded, and the container has the same processes.
        same(&container.processes().await?.len(), &before.len())?;
        container.kill("KILL").await?;
        let next = watch.next().await?.map(|event| event.action.to_string());
        same(&next.as_deref(), &Some("kill"))?;
        container.remove().await?;
        Ok(())
    })?
}

fn processes() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let container = sleeping(&place, probe(&["sleep 60000"])?).await?;
        let info = container.inspect()?;
        let exec = container
            .exec(["/test", "a\u{1b}[2J"])
            .env("PROBE", "say up\nsleep 60000");
        let mut exec = exec.spawn().await?;
        let mut output = std::fs::File::from(exec.streams.stdout.take().ok_or("no output")?);
        std::io::Read::read_exact(&mut output, &mut [0; 3])?;
        let found = container.processes().await?;
        same(&found.len(), &2)?;
        same(&Some(found[0].pid), &info.pid)?;
        same(&found[0].container_pid, &1)?;
        same(&(found[1].container_pid > 1), &true)?;
        same(
            &found.iter().any(|process| Some(process.pid) == info.helper_pid),
            &false,
        )?;
        same(&found[1].arguments[1].as_str(), &"a\u{1b}[2J")?;
        let top = container.top(["-o", "nspid,args,user,stat"]).await?;
        // An escape sequence of a process is no order for our terminal.
        same(&top.processes[1][1].as_str(), &"/test a?[2J")?;
        let refused = container.top(["-o", "colour"]).await;
        same(&matches!(refused, Err(Error::PsOption { .. })), &true)?;
        exec.kill("KILL").await?;
        exec.wait().await?;
        container.kill("KILL").await?;
        container.wait().await?;
        same(
            &matches!(container.top([""; 0]).await, Err(Error::NotRunning { .. })),
            &true,
        )?;
        container.remove().await?;
        Ok(())
    })?
}

fn host_pids() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let mut spec = probe(&["sleep 60000"])?;
        spec.pid = rdock_runtime::NamespaceMode::Host;
        let container = sleeping(&place, spec).await?;
        let found = container.processes().await?;
        same(&found.len(), &1)?;
        same(&Some(found[0].pid), &container.inspect()?.pid)?;
        container.remove().await?;
        Ok(())
    })?
}

/// Waits until a sample is as expected.
async fn until(
    container: &Container,
    what: &str,
    test: impl Fn(&rdock_runtime::Stats) -> bool,
) -> Tested<rdock_runtime::Stats> {
    let mut stream = container.stats_stream().interval(Duration::from_millis(50));
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut last = None;
    while Instant::now() < deadline {
        let Some(stats) = stream.next().await? else {
            return Err(format!("{what}: the container has ended").into());
        };
        if test(&stats) {
            return Ok(stats);
        }
        last = Some(stats);
    }
    Err(format!("{what}: {last:?}").into())
}

fn usage() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let mut spec = probe(&["spin 60000"])?;
        spec.network = NetworkMode::None;
        let container = sleeping(&place, spec).await?;
        let first = container.stats().await?;
        same(&first.cpu_percent, &None)?;
        same(&(first.memory.limit > 0 && first.memory.used > 0), &true)?;
        same(&first.pids, &1)?;
        same(&first.networks.len(), &0)?;
        // A loop keeps a processor busy; others run here too.
        let busy = until(&container, "busy", |stats| {
            stats.cpu_percent.is_some_and(|percent| percent > 20.0)
        })
        .await?;
        same(&(busy.cpu_time > first.cpu_time), &true)?;
        same(
            &(busy.cpu_percent.unwrap_or(0.0) < 100.0 * busy.processors as f64 + 50.0),
            &true,
        )?;
        // What has no control group is counted by process, and said.
        for gap in &busy.gaps {
            same(&(gap.reason == GapReason::CountedByProcess), &true)?;
        }
        container.remove().await?;
        Ok(())
    })?
}

fn limits() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["sleep 60000"])?.memory(64 << 20).pids_limit(50).cpus(0.5);
        let container = sleeping(&place, spec).await?;
        let warnings = container.inspect()?.warnings;
        if !warnings.is_empty() {
            return Err(crate::Cannot(warnings.join("; ")).into());
        }
        let stats = container.stats().await?;
        same(&stats.memory.limit, &(64 << 20))?;
        same(
            &(stats.memory.used > 0 && stats.memory.used <= stats.memory.charged),
            &true,
        )?;
        same(&(stats.memory.charged < 64 << 20), &true)?;
        same(&stats.pids_limit, &Some(50))?;
        // What has a limit has a group; processor time may be accounted in another hierarchy.
        for gap in &stats.gaps {
            same(&matches!(gap.part, StatsPart::Memory | StatsPart::Pids), &false)?;
        }
        container.remove().await?;
        Ok(())
    })?
}

fn traffic() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let mut spec = probe(&["listen 0.0.0.0:80", "sleep 60000"])?;
        spec.network = NetworkMode::Default;
        spec = spec
            .publish(rdock_runtime::PortMapping::tcp(80))
            .ready_when(rdock_runtime::Ready::port(80));
        let container = sleeping(&place, spec).await?;
        let before = container.stats().await?;
        same(
            &before.networks.keys().map(String::as_str).collect::<Vec<_>>(),
            &vec!["eth0"],
        )?;
        let mut stream = std::net::TcpStream::connect(container.host_addr(80)?)?;
        std::io::Write::write_all(&mut stream, &[b'x'; 3000])?;
        let received = before.networks["eth0"].received_bytes + 3000;
        until(&container, "received", |stats| {
            stats.networks["eth0"].received_bytes >= received
        })
        .await?;
        container.remove().await?;
        let mut spec = probe(&["sleep 60000"])?;
        spec.network = NetworkMode::Host;
        let container = sleeping(&place, spec).await?;
        let stats = container.stats().await?;
        same(&stats.networks.len(), &0)?;
        same(
            &stats
                .gaps
                .iter()
                .any(|gap| gap.reason == GapReason::SharedNetwork),
            &true,
        )?;
        container.remove().await?;
        Ok(())
    })?
}

fn stream_ends() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let container = sleeping(&place, probe(&["sleep 60000"])?).await?;
        let mut stream = container.stats_stream().interval(Duration::from_millis(10));
        same(&stream.next().await?.is_some(), &true)?;
        container.kill("KILL").await?;
        container.wait().await?;
        same(&stream.next().await?.is_none(), &true)?;
        same(
            &matches!(container.stats().await, Err(Error::NotRunning { .. })),
            &true,
        )?;
        container.remove().await?;
        Ok(())
    })?
}
