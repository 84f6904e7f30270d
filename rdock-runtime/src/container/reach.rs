//! How a process reaches the owner of a container, and what it does when there is none any more.

use super::Container;
use crate::control::{Connection, Reply, Request};
use crate::error::{Error, Result};
use crate::runtime::blocking;
use crate::state::{Exit, ExitReason, Status};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// For what other processes are just about to do.
const PATIENCE: Duration = Duration::from_secs(10);

impl Container {
    pub(crate) async fn ask_for_exit(&self, request: Request) -> Result<Exit> {
        loop {
            let (this, request) = (self.clone(), request.clone());
            let connection = blocking(move || {
                if matches!(request, Request::Stop { .. }) {
                    // One that cannot be looked at says so below.
                    let _ = crate::recover::end_unseen(&this.runtime, &this.dir);
                }
                match this.open_connection()? {
                    Some(connection) => match connection.send(&request, &[]) {
                        Ok(()) => Ok(Some(connection)),
                        Err(Error::OwnerGone { .. }) => Ok(None),
                        Err(error) => Err(error),
                    },
                    None => Ok(None),
                }
            })
            .await?;
            if let Some(connection) = connection {
                match connection.receive_async().await {
                    Ok((Reply::Exited { exit }, _)) => return Ok(exit),
                    Ok((reply, _)) => return Err(self.refused(reply)),
                    // The exit was recorded just now, or the owner was killed.
                    Err(Error::OwnerGone { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let this = self.clone();
            // Without one it runs on, under a new owner.
            if let Some(exit) = blocking(move || this.recorded_exit()).await? {
                return Ok(exit);
            }
        }
    }

    /// The exit of a container whose owner no longer listens; `None` when it has another owner by now.
    fn recorded_exit(&self) -> Result<Option<Exit>> {
        // An owner closes its socket a moment before the last of it is on disk, and a killed one is seen as
        // dead only when the kernel has ended it; another process may be just about to take it over.
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(2);
        loop {
            match (self.dir.status(), self.exit.known.get()) {
                (Ok(Status::Exited(exit)), _) => return Ok(Some(exit)),
                (_, Some(exit)) => return Ok(Some(exit.clone())),
                // One that was never started does not run, as docker's wait has it.
                (Ok(Status::Created), None) if self.dir.owner().is_err() => {
                    return Ok(Some(Exit {
                        reason: ExitReason::Exited(0),
                        finished_at: String::new(),
                    }));
                }
                (Ok(_), None) if self.record.detached && self.open_connection()?.is_some() => {
                    return Ok(None);
                }
                (Ok(_), None) if Instant::now() >= deadline => {
                    return Err(Error::OwnerGone {
                        name: self.name().to_owned(),
                    });
                }
                (Ok(_), None) => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(100));
                }
                // It has removed itself; who started it is told all the same.
                (Err(error), None) => return self.exit.get().ok_or(error).map(Some),
            }
        }
    }

    /// Looks after it when nobody owns it and nobody would say how it ends: its owner was killed. Blocks.
    pub(crate) fn look_after(&self) {
        let unowned = || -> Result<bool> {
            let owner = self.dir.owner()?;
            let expected = || Ok::<_, Error>(self.dir.history()?.expects_owner());
            let goes_with_it = !self.record.detached || self.record.spec.auto_remove;
            Ok(!owner.is_alive() && (goes_with_it || expected()?))
        };
        if unowned().unwrap_or(false) {
            // Without a monitor to start it stays as it is; who waits looks again.
            let _ = crate::recover::recover(&self.runtime, self.id());
        }
    }

    /// [`Self::look_after`] on a thread that may block.
    pub(crate) async fn look_after_it(&self) -> Result<()> {
        let this = self.clone();
        blocking(move || {
            this.look_after();
            Ok(())
        })
        .await
    }

    /// Waits for the record of an end that has happened: a helper whose owner was killed tells it to the next one only.
    /// Blocks, for a bounded time.
    pub(crate) fn see_end(&self) -> Result<()> {
        let unseen = || -> Result<bool> {
            let history = self.dir.history()?;
            let runs = history.status(true).is_some_and(|status| status.is_running());
            Ok(runs && crate::owner::recorded_exit(&self.dir, false).is_some())
        };
        if !self.record.detached || !unseen()? {
            return Ok(());
        }
        self.look_after();
        let deadline = Instant::now() + PATIENCE;
        while unseen()? && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub(crate) async fn ask_done(&self, request: Request) -> Result<()> {
        let this = self.clone();
        blocking(move || match this.ask(&request)? {
            (Reply::Done, _) => Ok(()),
            (reply, _) => Err(this.refused(reply)),
        })
        .await
    }

    pub(crate) fn connect(&self) -> Result<Connection> {
        let gone = || Error::NotRunning {
            name: self.name().to_owned(),
        };
        self.open_connection()?.ok_or_else(gone)
    }

    /// `None` when nobody owns the container. One that runs on without its owner gets a new one.
    pub(crate) fn open_connection(&self) -> Result<Option<Connection>> {
        let open = || Connection::open(self.dir.path(), self.name());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(connection) = open()? {
                return Ok(Some(connection));
            }
            let expected = self.dir.history().is_ok_and(|history| history.expects_owner());
            if !self.record.detached || !expected {
                return Ok(None);
            }
            // Without a monitor to start it stays as it is.
            let recovered = crate::recover::recover(&self.runtime, self.id());
            if let Some(connection) = open()? {
                return Ok(Some(connection));
            }
            // Another process may be just taking it over.
            let runs = matches!(self.status(), Ok(status) if status.is_running());
            if recovered.is_err() || !runs || Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks the owner. One that goes without an answer has mostly seen the container's end.
    pub(crate) fn ask(&self, request: &Request) -> Result<(Reply, Vec<OwnedFd>)> {
        self.connect()?
            .ask(request, &[])
            .map_err(|error| self.unanswered(error))
    }

    /// Why the owner gave no answer.
    pub(crate) fn unanswered(&self, error: Error) -> Error {
        let ended = || !matches!(self.status(), Ok(status) if status.is_running());
        match error {
            Error::OwnerGone { name } if ended() => Error::NotRunning { name },
            other => other,
        }
    }

    pub(crate) fn refused(&self, reply: Reply) -> Error {
        match reply {
            Reply::Refused { reason } => Error::System {
                action: "do what was asked of the container's owner",
                source: std::io::Error::other(reason),
            },
            Reply::Frozen { frozen: true } => Error::Paused {
                name: self.name().to_owned(),
            },
            Reply::Frozen { frozen: false } => Error::NotPaused {
                name: self.name().to_owned(),
            },
            Reply::CannotFreeze { reason } => Error::CannotPause {
                name: self.name().to_owned(),
                reason,
            },
            _ => Error::NotRunning {
                name: self.name().to_owned(),
            },
        }
    }
}
