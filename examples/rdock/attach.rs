//! `rdock attach`, and how this terminal is lent to a container.

use crate::lifetime::Connection;
use crate::streams::{self, RawMode};
use crate::{Failure, Outcome};
use clap::Args;
use rdock_runtime::{Attached, Container, Runtime, Status};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Do not pass this program's input on
    #[arg(long)]
    pub(crate) no_stdin: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The container
    pub(crate) container: String,
}

impl Attach {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let container = runtime.container(&self.container)?;
        let info = container.inspect()?;
        match info.status {
            Status::Running => {}
            Status::Paused => {
                return Err(Failure::new(
                    "you cannot attach to a paused container, unpause it first",
                ));
            }
            Status::Restarting(_) => {
                return Err(Failure::new(
                    "you cannot attach to a restarting container, wait until it is running",
                ));
            }
            _ => {
                return Err(Failure::new(
                    "you cannot attach to a stopped container, start it first",
                ));
            }
        }
        let interactive = info.spec.interactive && !self.no_stdin;
        if interactive && info.spec.terminal && !streams::is_terminal() {
            return Err(Failure::new("the input device is not a TTY"));
        }
        let mut attached = container.attach().await?;
        if !interactive {
            attached.stdin = None;
        }
        lend(
            &container,
            attached,
            info.spec.terminal,
            interactive,
            &self.connection,
        )
        .await
    }
}

/// A signal that this program gets, when it is to be passed on.
async fn passed(signal: Option<&mut tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// This terminal belongs to the payload until it ends; its exit code is ours. Without `interactive` the keys
/// stay this terminal's, so that Ctrl-C is still a signal.
pub(crate) async fn lend(
    container: &Container,
    attached: Attached,
    terminal: bool,
    interactive: bool,
    connection: &Connection,
) -> Outcome {
    let keys = connection.keys()?;
    let mut signals = Vec::new();
    if connection.passes_signals() {
        for (kind, name) in [
            (SignalKind::interrupt(), "INT"),
            (SignalKind::terminate(), "TERM"),
            (SignalKind::hangup(), "HUP"),
            (SignalKind::quit(), "QUIT"),
            (SignalKind::user_defined1(), "USR1"),
            (SignalKind::user_defined2(), "USR2"),
        ] {
            signals.push((signal(kind)?, name));
        }
    }
    let [interrupt, terminate, hangup, quit, first, second] = match signals.as_mut_slice() {
        [a, b, c, d, e, f] => [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f)],
        _ => [const { None }; 6],
    }
    .map(|signal: Option<&mut (tokio::signal::unix::Signal, &str)>| signal.map(|(signal, _)| signal));
    let (mut interrupt, mut terminate, mut hangup) = (interrupt, terminate, hangup);
    let (mut quit, mut first, mut second) = (quit, first, second);
    let mut resized = signal(SignalKind::window_change())?;
    let raw = if terminal && interactive && streams::is_terminal() {
        Some(RawMode::enter()?)
    } else {
        None
    };
    if terminal && streams::is_terminal() {
        let (rows, columns) = streams::size();
        // One that just ended has no terminal any more.
        let _ = container.resize(rows, columns).await;
    }
    let mut pumps = streams::pump(attached, if terminal && interactive { keys } else { Vec::new() });
    let mut wait = std::pin::pin!(container.wait());
    let exit = loop {
        let name = tokio::select! {
            exit = &mut wait => break exit?,
            () = passed(interrupt.as_deref_mut()) => "INT",
            () = passed(terminate.as_deref_mut()) => "TERM",
            () = passed(hangup.as_deref_mut()) => "HUP",
            () = passed(quit.as_deref_mut()) => "QUIT",
            () = passed(first.as_deref_mut()) => "USR1",
            () = passed(second.as_deref_mut()) => "USR2",
            _ = resized.recv() => {
                let (rows, columns) = streams::size();
                // One that just ended has no terminal any more.
                let _ = container.resize(rows, columns).await;
                continue;
            }
            Some(left) = pumps.left.recv() => {
                drop(raw);
                return Ok(left.code());
            }
        };
        // One that just ended needs no signal; the wait says so.
        let _ = container.kill(name).await;
    };
    pumps.finish().await?;
    drop(raw);
    Ok(exit.code() as u8)
}
