//! Health checks and what waits for them.

use super::until;
use crate::probe::{Place, probe};
use crate::{Tested, same};
use rdock_runtime::{Error, HealthCheck, HealthStatus, Ready, blocking};
use std::time::{Duration, Instant};

pub(super) fn health() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let check = HealthCheck::command(["/test", "--exists", "/here"])
            .interval(Duration::from_millis(300))
            .retries(2);
        let spec = probe(&["sleep 250", "say made", "write /here yes", "sleep 600000"])?.health(check);
        let container = spec.start_detached(&place.runtime).await?;
        same(
            &container.health().map(|health| health.status),
            &Some(HealthStatus::Starting),
        )?;
        same(&container.wait_health(None).await?, &HealthStatus::Healthy)?;
        let found = jiff::Timestamp::now();
        let made = container.logs().next().await?.ok_or("no line")?.time;
        let late = Duration::try_from(found.duration_since(made.parse()?))?;
        // At most one gap, which has grown to the interval by then, and what a check takes on a busy machine.
        same(&(late < Duration::from_secs(10)), &true).map_err(|error| format!("{late:?} {error}"))?;
        until("five results are kept", || {
            container.health().is_some_and(|health| {
                health.log.len() == 5 && health.log.iter().all(|result| result.exit_code == 0)
            })
        })
        .await?;
        let log = container.health().ok_or("no health")?.log;
        let mut gaps = Vec::new();
        for pair in log.windows(2) {
            let end: jiff::Timestamp = pair[0].end.parse()?;
            gaps.push(Duration::try_from(
                pair[1].start.parse::<jiff::Timestamp>()?.duration_since(end),
            )?);
        }
        gaps.sort();
        // Exactly the interval: never earlier, and later only by what the machine is busy with.
        if gaps[0] < Duration::from_millis(299) || gaps[1] > Duration::from_millis(599) {
            return Err(format!("{gaps:?} between checks").into());
        }
        container.remove_with(true, true).await?;
        Ok(())
    })?
}

pub(super) fn unhealthy() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let check = HealthCheck::command(["/test", "--exists", "/none"])
            .interval(Duration::from_millis(100))
            .retries(3);
        let spec = probe(&["sleep 600000"])?.health(check);
        let began = Instant::now();
        let container = spec.start_detached(&place.runtime).await?;
        same(&container.wait_health(None).await?, &HealthStatus::Unhealthy)?;
        // Not before docker would say so, however often it was looked at.
        same(&(began.elapsed() >= Duration::from_millis(300)), &true)?;
        let health = container.health().ok_or("no health")?;
        same(&(health.failing_streak >= 3), &true)?;
        same(&health.log.last().map(|result| result.exit_code), &Some(1))?;
        // One that takes too long has failed.
        let check = HealthCheck::command(["/test"])
            .interval(Duration::from_millis(50))
            .timeout(Duration::from_millis(50))
            .retries(1);
        let spec = probe(&["sleep 600000"])?.health(check);
        let slow = spec.start_detached(&place.runtime).await?;
        same(&slow.wait_health(None).await?, &HealthStatus::Unhealthy)?;
        let last = slow
            .health()
            .and_then(|health| health.log.last().cloned())
            .ok_or("no result")?;
        same(
            &(last.exit_code, last.output.contains("exceeded timeout")),
            &(-1, true),
        )?;
        for container in [container, slow] {
            container.remove_with(true, true).await?;
        }
        Ok(())
    })?
}

pub(super) fn ready_when_healthy() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let check = HealthCheck::command(["/test", "--exists", "/here"]).interval(Duration::from_millis(100));
        let spec = probe(&["sleep 100", "write /here yes", "sleep 600000"])?
            .health(check)
            .ready_when(Ready::healthy());
        // The library's own thread checks a scoped one.
        let scoped = spec.start(&place.runtime).await?;
        same(
            &scoped.health().map(|health| health.status),
            &Some(HealthStatus::Healthy),
        )?;
        scoped.remove().await?;
        let refused = probe(&["sleep 1"])?
            .ready_when(Ready::healthy())
            .start(&place.runtime)
            .await;
        same(&matches!(refused, Err(Error::Spec(_))), &true)
    })?
}
