//! One more process in a running container.

use crate::container::{Attached, Container};
use crate::control::{Connection, ExecRequest, Reply, Request};
use crate::error::{Error, Result};
use crate::runtime::blocking;
use crate::step::Step;
use rustix::fs::{Mode, OFlags};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Output};
use std::sync::Arc;

/// A process to be added, made by [`Container::exec`]. By default it has the payload's environment, user
/// and working directory, no terminal and an empty stdin.
#[derive(Debug, Clone)]
#[must_use = "nothing runs until spawn, output or status"]
pub struct Exec {
    container: Container,
    request: ExecRequest,
    interactive: bool,
    /// How much of each stream [`Self::output`] returns.
    last: usize,
}

impl Exec {
    pub(crate) fn new(container: Container, args: Vec<String>) -> Self {
        Self {
            container,
            request: ExecRequest {
                args,
                ..ExecRequest::default()
            },
            interactive: false,
            last: usize::MAX,
        }
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.env.push((name.into(), value.into()));
        self
    }

    /// Runs as `user[:group]`, names or numbers.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.request.user = Some(user.into());
        self
    }

    /// Sets the working directory.
    pub fn working_dir(mut self, path: impl Into<String>) -> Self {
        self.request.working_dir = Some(path.into());
        self
    }

    /// Gives it a terminal of this size; its output then comes on stdout alone.
    pub fn terminal(mut self, rows: u16, columns: u16) -> Self {
        self.request.terminal = Some((rows, columns));
        self.interactive = true;
        self
    }

    /// Gives it every capability and no system call filter. Off by default.
    pub fn privileged(mut self, privileged: bool) -> Self {
        self.request.privileged = privileged;
        self
    }

    /// Connects its stdin to [`Attached::stdin`]; it is empty otherwise.
    pub fn interactive(mut self, interactive: bool) -> Self {
        self.interactive = interactive;
        self
    }

    /// Lets it go on when this handle is dropped; it is killed otherwise.
    pub fn detach(mut self, detach: bool) -> Self {
        self.request.detach = detach;
        self
    }

    /// Has [`Self::output`] return the last `bytes` of each stream alone; everything unless set. What it keeps
    /// meanwhile is at most twice as much.
    pub fn keep_last(mut self, bytes: usize) -> Self {
        self.last = bytes;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; [`Error::Launch`] with the step that failed, such as a missing program.
    pub async fn spawn(self) -> Result<ExecProcess> {
        blocking(move || self.start(true)).await
    }

    /// Starts it; what it writes has somewhere to go only when it is `heard`.
    fn start(self, heard: bool) -> Result<ExecProcess> {
        let Self {
            container,
            request,
            interactive,
            last: _,
        } = self;
        let connection = container.connect()?;
        let mut streams = Attached::default();
        let mut inside: Vec<OwnedFd> = Vec::new();
        if request.terminal.is_none() {
            let pipe =
                || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(std::io::Error::from);
            let null = || -> std::io::Result<OwnedFd> {
                Ok(rustix::fs::open(
                    "/dev/null",
                    OFlags::RDWR | OFlags::CLOEXEC,
                    Mode::empty(),
                )?)
            };
            let mut make = || -> std::io::Result<()> {
                let mut theirs = |ours: &mut Option<OwnedFd>, piped: bool, writes: bool| {
                    let fd = if piped {
                        let (read, write) = pipe()?;
                        let (one, other) = if writes { (write, read) } else { (read, write) };
                        *ours = Some(other);
                        one
                    } else {
                        null()?
                    };
                    inside.push(fd);
                    std::io::Result::Ok(())
                };
                theirs(&mut streams.stdin, interactive, false)?;
                theirs(&mut streams.stdout, heard, true)?;
                theirs(&mut streams.stderr, heard, true)
            };
            make().map_err(Error::system("make pipes for exec"))?;
        }
        let fds: Vec<BorrowedFd<'_>> = inside.iter().map(AsFd::as_fd).collect();
        let (terminal, command) = (
            request.terminal.is_some(),
            request.args.first().cloned().unwrap_or_default(),
        );
        let asked = connection.ask(&Request::Exec(request), &fds);
        let (reply, mut received) = asked.map_err(|error| container.unanswered(error))?;
        match reply {
            Reply::ExecStarted { .. } => {}
            Reply::ExecFailed { step, errno, detail } => {
                return Err(Error::Launch {
                    what: format!("exec in container {}", container.name()),
                    step: Step::from_wire(step).unwrap_or(Step::Exec),
                    detail: if detail.is_empty() { command } else { detail },
                    log: Vec::new(),
                    source: std::io::Error::from_raw_os_error(errno),
                });
            }
            other => return Err(container.refused(other)),
        }
        let mut own_terminal = None;
        if terminal {
            let master = received.pop().ok_or_else(|| Error::OwnerGone {
                name: container.name().to_owned(),
            })?;
            let copy = || master.try_clone().map_err(Error::system("copy a descriptor"));
            (streams.stdin, streams.stdout) = (Some(copy()?), Some(copy()?));
            own_terminal = Some(ExecTerminal(Arc::new(master)));
        }
        let connection = Arc::new(connection);
        Ok(ExecProcess {
            streams,
            connection,
            container,
            terminal: own_terminal,
            status: None,
        })
    }

    /// Runs it to its end and returns what it wrote, all of it: for a command that may write without end there are
    /// [`Self::keep_last`], and [`Self::spawn`], whose pipes hold it up until somebody reads.
    ///
    /// # Errors
    /// As [`Self::spawn`]; [`Error::OwnerGone`] when the container's owner ends meanwhile.
    pub async fn output(self) -> Result<Output> {
        let last = self.last;
        let mut process = self.spawn().await?;
        let streams = std::mem::take(&mut process.streams);
        drop(streams.stdin);
        let read = |fd: Option<OwnedFd>| {
            blocking(move || match fd {
                Some(fd) => end_of(&mut std::fs::File::from(fd), last)
                    .map_err(Error::system("read the output of exec")),
                None => Ok(Vec::new()),
            })
        };
        let (stdout, stderr) = tokio::join!(read(streams.stdout), read(streams.stderr));
        Ok(Output {
            status: process.wait().await?,
            stdout: stdout?,
            stderr: stderr?,
        })
    }

    /// Runs it to its end, its output thrown away.
    ///
    /// # Errors
    /// As [`Self::output`].
    pub async fn status(self) -> Result<ExitStatus> {
        let mut process = blocking(move || self.start(false)).await?;
        let streams = std::mem::take(&mut process.streams);
        drop(streams.stdin);
        // A terminal has to be read, or it fills up; without one nothing comes.
        if let Some(master) = streams.stdout {
            let discard = move || {
                Ok(std::io::copy(
                    &mut std::fs::File::from(master),
                    &mut std::io::sink(),
                ))
            };
            // It ends with EIO.
            let (_, status) = tokio::join!(blocking(discard), process.wait());
            return status;
        }
        process.wait().await
    }
}

/// Reads to the end, and returns the last `most` bytes.
fn end_of(from: &mut impl Read, most: usize) -> std::io::Result<Vec<u8>> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            // A terminal ends with EIO.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(count) => {
                kept.extend_from_slice(&buffer[..count]);
                if kept.len() / 2 > most {
                    kept.drain(..kept.len() - most);
                }
            }
        }
    }
    kept.drain(..kept.len().saturating_sub(most));
    Ok(kept)
}

/// A process added to a container. Dropping it kills the process, unless it was started detached.
#[derive(Debug)]
pub struct ExecProcess {
    /// Its streams; take them out to use them.
    pub streams: Attached,
    connection: Arc<Connection>,
    container: Container,
    terminal: Option<ExecTerminal>,
    status: Option<ExitStatus>,
}

/// The terminal of a process added by exec.
#[derive(Debug, Clone)]
pub struct ExecTerminal(Arc<OwnedFd>);

impl ExecTerminal {
    /// Sets its size.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        crate::owner::resize(&*self.0, rows, columns).map_err(Error::system("resize the terminal of exec"))
    }
}

impl ExecProcess {
    /// Waits until it has ended.
    ///
    /// # Errors
    /// [`Error::OwnerGone`] when the container ended first.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        while self.status.is_none() {
            match self.connection.receive_async().await? {
                (Reply::ExecExited { status }, _) => self.status = Some(ExitStatus::from_raw(status)),
                // Answers to kill.
                (Reply::Done | Reply::NotRunning, _) => {}
                (other, _) => return Err(self.container.refused(other)),
            }
        }
        self.status.ok_or_else(|| Error::OwnerGone {
            name: self.container.name().to_owned(),
        })
    }

    /// Returns its terminal, when it has one; it stays usable while the streams are used elsewhere.
    pub fn terminal(&self) -> Option<ExecTerminal> {
        self.terminal.clone()
    }

    /// Sends it a signal: `SIGTERM`, `TERM` or a number.
    ///
    /// # Errors
    /// [`Error::Signal`] for an unknown one, [`Error::OwnerGone`].
    pub async fn kill(&self, signal: &str) -> Result<()> {
        let number = crate::signal::parse(signal).ok_or_else(|| Error::Signal {
            text: signal.to_owned(),
        })?;
        let connection = self.connection.clone();
        blocking(move || connection.send(&Request::KillSession { signal: number }, &[])).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_output_is_kept() {
        let text: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
        for most in [0, 1, 100, 65_536, 299_999, 300_000, usize::MAX] {
            let kept = end_of(&mut &text[..], most).expect("memory can be read");
            assert_eq!(kept, text[text.len().saturating_sub(most)..]);
        }
    }
}
