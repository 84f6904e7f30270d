//! Restarts: what they keep, and how often they are made.

use super::{get, killed, output, said, until};
use crate::probe::{Place, probe};
use crate::{Tested, needs_root, same};
use rdock_runtime::{NetworkMode, PortMapping, Ready, RestartPolicy, Runtime, Status, blocking};
use std::io::ErrorKind;
use std::time::Duration;

pub(super) fn restart() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&[
            "list /own",
            "write /own/file yes",
            "listen 0.0.0.0:8080",
            "sleep 600000",
        ])?
        .network(NetworkMode::Default)
        .mount(rdock_runtime::Mount::volume("own", "/own"))
        .publish(PortMapping::tcp(8080))
        .ready_when(Ready::port(8080));
        let container = spec.start_detached(&place.runtime).await?;
        let before = container.inspect()?;
        let address = container.host_addr(8080)?;
        for round in 1..=3 {
            container.restart(Some(Duration::ZERO)).await?;
            let after = container.inspect()?;
            same(&after.ip_address, &before.ip_address)?;
            same(&after.mac_address, &before.mac_address)?;
            same(&container.host_addr(8080)?, &address)?;
            same(&(after.pid != before.pid, after.restart_count), &(true, 0))?;
            said(&container, "listening", round + 1).await?;
            let answer = tokio::task::spawn_blocking(move || get(address)).await??;
            same(&answer.starts_with("HTTP/1.1 204"), &true)?;
        }
        let lines = output(&container).await?;
        same(&lines.iter().filter(|line| *line == "file").count(), &3)?;
        container.remove_with(true, true).await?;
        Ok(())
    })?
}

pub(super) fn three_restarts() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["say run", "exit 7"])?.restart(RestartPolicy::OnFailure { max: Some(3) });
        let container = spec.start_detached(&place.runtime).await?;
        until("it has ended for good", || {
            matches!(container.status(), Ok(Status::Exited(_)))
        })
        .await?;
        same(&output(&container).await?, &vec!["run"; 4])?;
        let info = container.inspect()?;
        same(&info.restart_count, &3)?;
        same(&info.status.exit().map(|exit| exit.code()), &Some(7))?;
        // The count begins anew when somebody starts it.
        container.start().await?;
        until("it has ended for good again", || {
            matches!(container.status(), Ok(Status::Exited(_)))
        })
        .await?;
        same(&output(&container).await?.len(), &8)?;
        container.remove_with(false, true).await?;
        // Success is no failure.
        let spec = probe(&["say run"])?.restart(RestartPolicy::OnFailure { max: None });
        let container = spec.start_detached(&place.runtime).await?;
        same(&container.wait().await?.code(), &0)?;
        same(&container.inspect()?.restart_count, &0)?;
        container.remove_with(false, true).await?;
        Ok(())
    })?
}

pub(super) fn stopped() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["say up", "sleep 600000"])?.restart(RestartPolicy::Always);
        let container = spec.start_detached(&place.runtime).await?;
        said(&container, "up", 1).await?;
        container.stop(Some(Duration::ZERO)).await?;
        same(&matches!(container.status()?, Status::Exited(_)), &true)?;
        // A second open does not start it: the machine is still the same.
        Runtime::open(place.root.path())?;
        same(&matches!(container.status()?, Status::Exited(_)), &true)?;
        // Nor is one that is killed; one whose payload dies by itself is.
        container.start().await?;
        said(&container, "up", 2).await?;
        killed(container.inspect()?.pid.ok_or("no pid")?)?;
        said(&container, "up", 3).await?;
        same(&container.inspect()?.restart_count, &1)?;
        container.kill("KILL").await?;
        until("it has ended", || {
            matches!(container.status(), Ok(Status::Exited(_)))
        })
        .await?;
        // One that waits for its next run is stopped at once.
        let spec = probe(&["exit 1"])?.restart(RestartPolicy::Always);
        let other = spec.start_detached(&place.runtime).await?;
        until("it waits", || matches!(other.status(), Ok(Status::Restarting(_)))).await?;
        same(&other.stop(None).await?.code(), &1)?;
        same(&matches!(other.status()?, Status::Exited(_)), &true)?;
        for container in [container, other] {
            container.remove_with(false, true).await?;
        }
        Ok(())
    })?
}

pub(super) fn pauses() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["say run", "exit 1"])?.restart(RestartPolicy::Always);
        let container = spec.start_detached(&place.runtime).await?;
        said(&container, "run", 5).await?;
        container.stop(None).await?;
        let mut times = Vec::new();
        let mut logs = container.logs();
        while let Some(line) = logs.next().await? {
            times.push(line.time.parse::<jiff::Timestamp>()?);
        }
        // Pauses of 100, 200, 400 and 800 ms, and what a start takes here; never shorter.
        for (index, pair) in times.windows(2).take(4).enumerate() {
            let gap = Duration::try_from(pair[1].duration_since(pair[0]))?;
            let pause = Duration::from_millis(100 << index);
            if gap < pause - Duration::from_millis(5) {
                return Err(format!("the {index}. pause took {gap:?}").into());
            }
        }
        container.remove_with(false, true).await?;
        Ok(())
    })?
}

pub(super) fn refused_between_runs() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["listen 0.0.0.0:8080", "sleep 600000"])?
            .network(NetworkMode::Default)
            .publish(PortMapping::tcp(8080))
            .ready_when(Ready::port(8080))
            .restart(RestartPolicy::Always);
        let container = spec.start_detached(&place.runtime).await?;
        let address = container.host_addr(8080)?;
        let waits = || matches!(container.status(), Ok(Status::Restarting(_)));
        // The pauses grow: however slow this machine is, in one of them a client comes.
        let mut refused = 0;
        for round in 1..=12 {
            let info = container.inspect()?;
            killed(info.pid.ok_or("no pid")?)?;
            until("its end is seen", || {
                waits() || container.inspect().is_ok_and(|now| now.pid != info.pid)
            })
            .await?;
            let before = waits();
            match tokio::task::spawn_blocking(move || get(address)).await? {
                // Served by the next run, or cut off with it.
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(format!("round {round}: a client was kept waiting").into());
                }
                Err(_) => refused += usize::from(before && waits()),
            }
            if refused > 0 && round > 2 {
                break;
            }
            until("it runs again", || {
                container.inspect().is_ok_and(|now| now.pid.is_some())
            })
            .await?;
        }
        same(&(refused > 0), &true)?;
        // And is served again.
        let mut answer = String::new();
        for _ in 0..2000 {
            if let Ok(Ok(found)) = tokio::task::spawn_blocking(move || get(address)).await {
                answer = found;
                break;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        same(&answer.starts_with("HTTP/1.1 204"), &true)?;
        container.remove_with(true, true).await?;
        Ok(())
    })?
}
