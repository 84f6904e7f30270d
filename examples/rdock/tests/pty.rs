//! A pseudo-terminal with a program on it.

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The user's side of the terminal.
pub(crate) struct Terminal {
    master: File,
    child: Child,
    chunks: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// Starts `command` on a new terminal of `rows` and `columns`, which is its controlling one.
    pub(crate) fn start(command: &Command, rows: u16, columns: u16) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = File::from(rustix::fs::open(&*name, flags, Mode::empty())?);
        tcsetwinsize(&slave, size(rows, columns))?;
        // setsid(1) makes the terminal the controlling one, which no safe code of ours could do in the child.
        let mut wrapped = Command::new("setsid");
        wrapped
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped.env("TERM", "xterm");
        let child = wrapped
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave)
            .spawn()?;
        drop(wrapped);
        let master = File::from(master);
        let mut reader = master.try_clone()?;
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO is the end: nobody has the other side open any more.
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            master,
            child,
            chunks,
            seen: String::new(),
        })
    }

    /// Types.
    pub(crate) fn send(&mut self, text: &str) -> io::Result<()> {
        self.master.write_all(text.as_bytes())
    }

    /// Gives the window another size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        Ok(tcsetwinsize(self.master.as_fd(), size(rows, columns))?)
    }

    /// Waits until `done` finds what it looks for in everything printed so far.
    pub(crate) fn until<T>(
        &mut self,
        limit: Duration,
        done: impl Fn(&str) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = done(&self.seen) {
                return Ok(found);
            }
            match self
                .chunks
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(chunk) => self.seen += &String::from_utf8_lossy(&chunk),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("not within {limit:?}; seen: {:?}", self.seen));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(format!("ended; seen: {:?}", self.seen)),
            }
        }
    }

    /// Waits for a text to be printed.
    pub(crate) fn expect(&mut self, text: &str, limit: Duration) -> Result<(), String> {
        self.until(limit, |seen| seen.contains(text).then_some(()))
            .map_err(|error| format!("waiting for {text:?}: {error}"))
    }

    /// Waits for the program to end.
    pub(crate) fn wait(mut self, limit: Duration) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(format!("still running after {limit:?}; seen: {:?}", self.seen));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A hung-up terminal ends what is still on it; a child that has ended is reaped by now.
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
