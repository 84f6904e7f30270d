//! Waiting until a container is ready: every condition of the spec holds, or the reason why not.
//!
//! Log lines come as events, from the container's first byte. For a listening socket, a command and an
//! HTTP path the kernel has no event, so they are looked at again and again, soon at first and then at
//! growing intervals. The end of the container ends the waiting at once.

mod http;
mod port;

use crate::spec::Ready;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A container seen by who waits for it.
pub(crate) trait Target: Sync {
    /// How it ended.
    type Exit;

    /// Resolves once it has ended.
    fn ended(&self) -> impl Future<Output = Self::Exit> + Send;

    /// Its output so far and from now on.
    fn lines(&self) -> impl Lines;

    /// Whether a socket inside listens on the TCP port.
    fn listening(&self, port: u16) -> impl Future<Output = Result<Listening, String>> + Send;

    /// Runs a command inside; its exit code.
    fn exec(&self, args: &[String]) -> impl Future<Output = Result<i32, String>> + Send;

    /// Resolves once the health check has succeeded.
    fn healthy(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Where the host reaches the container's TCP port, when it is published.
    fn address(&self, port: u16) -> Option<SocketAddr>;
}

/// The output of a container, from its first byte.
pub(crate) trait Lines: Send {
    /// The next line; `None` once the container has ended.
    fn next(&mut self) -> impl Future<Output = Option<Vec<u8>>> + Send;
}

/// What listens on a port inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listening {
    No,
    /// On 127.0.0.1 or ::1, where nobody outside reaches it.
    OnlyLoopback,
    Yes,
}

/// Why a container is not ready.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotReady<E> {
    /// It ended first.
    Ended(E),
    /// The time is over; what was still missing.
    Late(String),
}

/// Waits until every condition holds, at most `timeout`. Needs a tokio runtime with time and I/O.
///
/// # Errors
/// [`NotReady`] with the exit or the missing condition.
pub(crate) async fn wait<T: Target>(
    target: &T,
    conditions: &[Ready],
    timeout: Duration,
) -> Result<(), NotReady<T::Exit>> {
    if conditions.is_empty() {
        return Ok(());
    }
    let missing = Missing::default();
    let mut late = std::pin::pin!(tokio::time::sleep(timeout));
    let mut ended = std::pin::pin!(target.ended());
    for condition in conditions {
        // The last lines of a container that has ended may be the ones that are waited for.
        let reads_log = matches!(condition, Ready::Log { .. });
        let met = tokio::select! {
            biased;
            met = one(target, condition, &missing) => met,
            exit = &mut ended, if !reads_log => return Err(NotReady::Ended(exit)),
            () = &mut late => return Err(NotReady::Late(missing.text())),
        };
        if !met {
            return tokio::select! {
                exit = &mut ended => Err(NotReady::Ended(exit)),
                () = &mut late => Err(NotReady::Late(missing.text())),
            };
        }
    }
    Ok(())
}

/// What is still missing, in words; the last thing that was seen.
#[derive(Debug, Default)]
struct Missing(Mutex<String>);

impl Missing {
    fn set(&self, text: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Resolves with `true` once the condition holds, with `false` when the output ended without it.
async fn one<T: Target>(target: &T, condition: &Ready, missing: &Missing) -> bool {
    match condition {
        Ready::Log { text, times } => log(target, text, *times, missing).await,
        Ready::Port(port) => {
            port::wait(target, *port, missing).await;
            true
        }
        Ready::Exec(args) => {
            exec(target, args, missing).await;
            true
        }
        Ready::Healthy => {
            healthy(target, missing).await;
            true
        }
        Ready::Http { port, path, status } => {
            http::wait(target, *port, path, *status, missing).await;
            true
        }
    }
}

async fn healthy<T: Target>(target: &T, missing: &Missing) {
    let mut pause = Pause::short();
    loop {
        missing.set("its health check has not succeeded".into());
        match target.healthy().await {
            Ok(()) => return,
            Err(error) => missing.set(format!("its health is not known: {error}")),
        }
        // The container has just ended, or gets another owner.
        pause.wait().await;
    }
}

async fn log<T: Target>(target: &T, text: &str, times: u32, missing: &Missing) -> bool {
    let mut lines = target.lines();
    let mut seen = 0;
    while seen < times {
        missing.set(match times {
            1 => format!("no line of its output contains {text:?}"),
            _ => format!("{seen} of {times} lines of its output contain {text:?}"),
        });
        match lines.next().await {
            None => return false,
            Some(line) if contains(&line, text.as_bytes()) => seen += 1,
            Some(_) => {}
        }
    }
    true
}

fn contains(line: &[u8], text: &[u8]) -> bool {
    text.is_empty() || line.windows(text.len()).any(|window| window == text)
}

async fn exec<T: Target>(target: &T, args: &[String], missing: &Missing) {
    // A command costs the container something, so the first pause is longer than for a look at a socket.
    let mut pause = Pause::new(Duration::from_millis(50), Duration::from_secs(1));
    loop {
        let command = args.join(" ");
        missing.set(match target.exec(args).await {
            Ok(0) => return,
            Ok(code) => format!("the command {command:?} exits with {code}"),
            Err(error) => format!("the command {command:?} cannot be run: {error}"),
        });
        pause.wait().await;
    }
}

/// Growing intervals.
#[derive(Debug)]
struct Pause {
    next: Duration,
    longest: Duration,
}

impl Pause {
    fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// For a look that costs little.
    fn short() -> Self {
        Self::new(Duration::from_millis(2), Duration::from_millis(100))
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(self.longest);
    }
}

#[cfg(test)]
mod tests;
