//! Waiting for containers: on events of theirs, and no longer than until it is known.

use super::StepError;
use crate::plan::WaitCondition;
use futures_util::future::try_join_all;
use rdock_runtime::{Container, Error, HealthStatus, Runtime, Status};

/// How many lines of a container's log an error shows.
const LINES: usize = 20;

/// Waits until each of the containers is in the state, or one of them never will be.
pub(super) async fn wait(
    runtime: &Runtime,
    containers: &[String],
    condition: WaitCondition,
) -> Result<(), StepError> {
    let waits = containers.iter().map(|name| async move {
        let container = runtime.container(name)?;
        match condition {
            WaitCondition::Healthy => healthy(&container).await,
            WaitCondition::Completed => completed(&container).await,
            WaitCondition::RunningOrHealthy => match healthy(&container).await {
                Err(StepError::NoHealthCheck { .. }) => running(&container).await,
                other => other,
            },
        }
    });
    try_join_all(waits).await.map(drop)
}

async fn healthy(container: &Container) -> Result<(), StepError> {
    match container.wait_health(None).await {
        Ok(HealthStatus::Healthy) => Ok(()),
        Ok(_) => {
            let checks = container.health().map(|health| health.log).unwrap_or_default();
            Err(StepError::Unhealthy {
                container: container.name().to_owned(),
                check: checks
                    .last()
                    .map(|check| check.output.clone())
                    .unwrap_or_default(),
                log: last_lines(container).await,
            })
        }
        Err(Error::NoHealthCheck { .. }) => Err(StepError::NoHealthCheck {
            container: container.name().to_owned(),
        }),
        Err(Error::NotRunning { .. }) => match container.status()? {
            Status::Exited(exit) | Status::Restarting(exit) => Err(ended(container, exit).await),
            _ => Err(Error::NotRunning {
                name: container.name().to_owned(),
            }
            .into()),
        },
        Err(error) => Err(error.into()),
    }
}

async fn completed(container: &Container) -> Result<(), StepError> {
    let exit = container.wait().await?;
    match exit.success() {
        true => Ok(()),
        false => Err(ended(container, exit).await),
    }
}

async fn running(container: &Container) -> Result<(), StepError> {
    match container.status()? {
        Status::Exited(exit) => Err(ended(container, exit).await),
        _ => Ok(()),
    }
}

async fn ended(container: &Container, exit: rdock_runtime::Exit) -> StepError {
    StepError::Ended {
        container: container.name().to_owned(),
        exit,
        log: last_lines(container).await,
    }
}

/// The end of a container's log; nothing when it cannot be read, since there is an error to report already.
pub(super) async fn last_lines(container: &Container) -> Vec<String> {
    let mut logs = container.logs().tail(LINES);
    let mut lines = Vec::new();
    while let Ok(Some(line)) = logs.next().await {
        lines.push(String::from_utf8_lossy(&line.bytes).trim_end().to_owned());
    }
    lines
}
