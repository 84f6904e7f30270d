//! The terminal and the pipes of this program, connected to those of a container.

use crate::Failure;
use rdock_runtime::Attached;
use rustix::termios::{OptionalActions, Termios};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

/// Prints a line; a closed pipe ends the output, not the program.
pub(crate) fn print(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Prints a line; false when nobody reads any more.
pub(crate) fn printed(line: &str) -> bool {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

/// Prints a line for people, on stderr.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether this program's input is a terminal.
pub(crate) fn is_terminal() -> bool {
    rustix::termios::isatty(rustix::stdio::stdin())
}

/// Whether this program's output is a terminal.
pub(crate) fn is_output_terminal() -> bool {
    rustix::termios::isatty(rustix::stdio::stdout())
}

/// The size of this program's terminal; 24 rows of 80 columns without one.
pub(crate) fn size() -> (u16, u16) {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin());
    size.map_or((24, 80), |size| (size.ws_row, size.ws_col))
}

/// The terminal passes every key on until this is dropped.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    pub(crate) fn enter() -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has gone away needs no settings.
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Copies in the background: this program's input to the process, its outputs to ours.
pub(crate) struct Pumps {
    outputs: Vec<std::thread::JoinHandle<()>>,
    /// Tells that copying ended before the process did.
    pub(crate) left: tokio::sync::mpsc::UnboundedReceiver<Left>,
    // Keeps the channel open when nothing is left that could send.
    _left: tokio::sync::mpsc::UnboundedSender<Left>,
}

/// Why this program leaves a process that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// The detach keys were typed.
    Keys,
    /// Nobody reads our output any more.
    Output,
}

impl Left {
    /// The exit code: a program that prints to a closed pipe ends by SIGPIPE.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Keys => 0,
            Self::Output => 128 + 13,
        }
    }
}

/// Starts copying. Typing `keys` detaches, unless there are none.
pub(crate) fn pump(streams: Attached, keys: Vec<u8>) -> Pumps {
    let (tell, left) = tokio::sync::mpsc::unbounded_channel();
    let mut outputs = Vec::new();
    if let Some(stdout) = streams.stdout {
        let tell = tell.clone();
        outputs.push(std::thread::spawn(move || copy(stdout, &mut io::stdout(), &tell)));
    }
    if let Some(stderr) = streams.stderr {
        let tell = tell.clone();
        outputs.push(std::thread::spawn(move || copy(stderr, &mut io::stderr(), &tell)));
    }
    if let Some(stdin) = streams.stdin {
        let tell = tell.clone();
        // Blocked in a read when everything else ends; the end of this program ends it.
        std::thread::spawn(move || input(stdin, &keys, &tell));
    }
    Pumps {
        outputs,
        left,
        _left: tell,
    }
}

impl Pumps {
    /// Waits until everything the process wrote is out.
    pub(crate) async fn finish(self) -> Result<(), Failure> {
        let joined = tokio::task::spawn_blocking(move || {
            for output in self.outputs {
                let _ = output.join();
            }
        });
        joined.await.map_err(|error| Failure::new(error.to_string()))
    }
}

fn copy(from: OwnedFd, to: &mut dyn Write, tell: &tokio::sync::mpsc::UnboundedSender<Left>) {
    let mut from = File::from(from);
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_err() {
                    // Nobody hears it when everything has ended anyway.
                    let _ = tell.send(Left::Output);
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal ends with EIO.
            Err(_) => return,
        }
    }
}

fn input(to: OwnedFd, keys: &[u8], tell: &tokio::sync::mpsc::UnboundedSender<Left>) {
    let mut to = File::from(to);
    let mut buffer = vec![0u8; 16 << 10];
    let mut typed = 0;
    let mut stdin = io::stdin();
    loop {
        let count = match stdin.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let mut passed = Vec::with_capacity(count + keys.len());
        for &byte in &buffer[..count] {
            if !keys.is_empty() && keys[typed] == byte {
                typed += 1;
                if typed == keys.len() {
                    // Nobody hears it when everything has ended anyway.
                    let _ = tell.send(Left::Keys);
                    return;
                }
                continue;
            }
            // What looked like the beginning of the keys was none, and may be one now.
            passed.extend_from_slice(&keys[..typed]);
            typed = usize::from(keys.len() > 1 && keys[0] == byte);
            if typed == 0 {
                passed.push(byte);
            }
        }
        if to.write_all(&passed).is_err() {
            return;
        }
    }
}

/// Asks before something is removed, as docker does; anything but `y` is a no.
pub(crate) fn confirm(warning: &str) -> io::Result<bool> {
    let mut out = io::stdout();
    write!(out, "{warning}\nAre you sure you want to continue? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}
