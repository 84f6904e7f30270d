//! `rdock exec`.

use crate::streams::{self, RawMode};
use crate::{Failure, Outcome, chain};
use clap::Args;
use rdock_runtime::{Runtime, parse_env_file, parse_env_flag};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Args)]
pub(crate) struct ExecArguments {
    /// Run in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep stdin open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set an environment variable
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long)]
    pub(crate) env_file: Vec<PathBuf>,
    /// User or uid, with :group
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Working directory
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    /// All capabilities and no filter
    #[arg(long)]
    pub(crate) privileged: bool,
    /// The container
    pub(crate) container: String,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(crate) command: Vec<String>,
}

impl ExecArguments {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        if self.tty && self.interactive && !self.detach && !streams::is_terminal() {
            return Err(Failure::new("the input device is not a TTY"));
        }
        let container = runtime.container(&self.container)?;
        let mut exec = container
            .exec(self.command)
            .interactive(self.interactive)
            .privileged(self.privileged)
            .detach(self.detach);
        let bad = |error: &dyn std::error::Error| Failure::new(chain(error));
        let mut env = Vec::new();
        for path in &self.env_file {
            let text = std::fs::read(path)?;
            env.extend(parse_env_file(&text, |name| std::env::var(name).ok()).map_err(|error| bad(&error))?);
        }
        for text in &self.env {
            env.extend(parse_env_flag(text, |name| std::env::var(name).ok()).map_err(|error| bad(&error))?);
        }
        for (name, value) in env {
            exec = exec.env(name, value);
        }
        if let Some(user) = self.user {
            exec = exec.user(user);
        }
        if let Some(path) = self.workdir {
            exec = exec.working_dir(path);
        }
        if self.tty {
            let (rows, columns) = streams::size();
            exec = exec.terminal(rows, columns);
        }
        let mut process = exec.spawn().await.map_err(Failure::of_exec)?;
        if self.detach {
            return Ok(0);
        }
        let mut resized = signal(SignalKind::window_change())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let raw = if self.tty && self.interactive && streams::is_terminal() {
            Some(RawMode::enter()?)
        } else {
            None
        };
        let terminal = process.terminal();
        let mut attached = std::mem::take(&mut process.streams);
        if !self.interactive {
            attached.stdin = None;
        }
        let mut pumps = streams::pump(attached, Vec::new());
        let status = loop {
            let passed = tokio::select! {
                status = process.wait() => break status?,
                _ = interrupt.recv() => "INT",
                _ = terminate.recv() => "TERM",
                _ = hangup.recv() => "HUP",
                Some(left) = pumps.left.recv() => return Ok(left.code()),
                _ = resized.recv() => {
                    if let Some(terminal) = &terminal {
                        let (rows, columns) = streams::size();
                        // One that just ended has no terminal any more.
                        let _ = terminal.resize(rows, columns);
                    }
                    continue;
                }
            };
            // One that just ended needs no signal; the wait says so.
            let _ = process.kill(passed).await;
        };
        pumps.finish().await?;
        drop(raw);
        Ok(status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)) as u8)
    }
}
