//! A container as `ready` sees it: its log, its sockets, its end.

use crate::container::Container;
use crate::control::Listening as Answer;
use crate::error::{Error, Result};
use crate::health::HealthStatus;
use crate::logs::{Logs, last_lines};
use crate::ready::{self, Lines, Listening, NotReady, Target};
use crate::remove::describe;
use crate::runtime::blocking;
use crate::spec::Ready;
use crate::state::{Exit, ExitReason};
use std::net::SocketAddr;
use std::time::Duration;

/// Lines of the log in an error.
const LINES: usize = 20;

impl Target for Container {
    type Exit = Exit;

    async fn ended(&self) -> Exit {
        // One whose state is gone has ended, and nobody knows how.
        self.wait()
            .await
            .unwrap_or_else(|_| Exit::now(ExitReason::OwnerDied))
    }

    fn lines(&self) -> impl Lines {
        LogLines(self.logs().follow(true))
    }

    async fn listening(&self, port: u16) -> Result<Listening, String> {
        let this = self.clone();
        match blocking(move || this.listening(port)).await {
            Ok(Answer::No) => Ok(Listening::No),
            Ok(Answer::OnlyLoopback) => Ok(Listening::OnlyLoopback),
            Ok(Answer::Yes) => Ok(Listening::Yes),
            Err(error) => Err(describe(&error).join(": ")),
        }
    }

    async fn exec(&self, args: &[String]) -> Result<i32, String> {
        match self.exec(args.to_vec()).status().await {
            Ok(status) => Ok(status.code().unwrap_or(-1)),
            Err(error) => Err(describe(&error).join(": ")),
        }
    }

    async fn healthy(&self) -> Result<(), String> {
        let waited = self.wait_health(Some(HealthStatus::Healthy)).await;
        waited.map(|_| ()).map_err(|error| describe(&error).join(": "))
    }

    fn address(&self, port: u16) -> Option<SocketAddr> {
        self.host_addr(port).ok()
    }
}

struct LogLines(Logs);

impl Lines for LogLines {
    async fn next(&mut self) -> Option<Vec<u8>> {
        self.0.next().await.ok().flatten().map(|line| line.bytes)
    }
}

/// Waits until every condition holds.
///
/// # Errors
/// [`Error::EndedEarly`] at once when the container ends, [`Error::NotReady`] after `timeout`.
pub(crate) async fn wait(container: &Container, conditions: &[Ready], timeout: Duration) -> Result<()> {
    let waited = ready::wait(container, conditions, timeout).await;
    let name = container.name().to_owned();
    match waited {
        Ok(()) => Ok(()),
        Err(NotReady::Ended(exit)) => Err(Error::EndedEarly {
            name,
            exit,
            log: last_lines(container.dir(), LINES),
        }),
        Err(NotReady::Late(reason)) => {
            let log = last_lines(container.dir(), LINES);
            Err(Error::NotReady {
                name,
                seconds: timeout.as_secs(),
                reason,
                log,
            })
        }
    }
}
