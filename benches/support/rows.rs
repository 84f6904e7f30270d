//! Rows of a table: each is a process of its own that does its work once for every byte it is sent, and answers
//! with the nanoseconds that took. Rows take turns, so that what disturbs the machine disturbs all of them.

use super::{Outcome, chain, ground};
use rustix::mount::{UnmountFlags, unmount};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Milliseconds, in the order they were measured.
    pub(crate) times: Vec<f64>,
    process: Child,
    ask: Option<ChildStdin>,
    answers: ChildStdout,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, command: &mut Command) -> Outcome<Self> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(ask), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("a process without pipes".into());
        };
        Ok(Self {
            name: name.into(),
            times: Vec::new(),
            process,
            ask: Some(ask),
            answers,
        })
    }

    /// A row whose process is this program with a role.
    pub(crate) fn of_role(name: impl Into<String>, arguments: &[String]) -> Outcome<Self> {
        Self::new(name, Command::new(std::env::current_exe()?).args(arguments))
    }

    /// The next number of the process.
    pub(crate) fn answer(&mut self) -> Outcome<u64> {
        let mut bytes = [0; 8];
        match self.answers.read_exact(&mut bytes) {
            Ok(()) => Ok(u64::from_ne_bytes(bytes)),
            Err(_) => Err(format!("{}: ended with {}", self.name, self.process.wait()?).into()),
        }
    }

    /// Does the work once.
    pub(crate) fn once(&mut self) -> Outcome<f64> {
        if let Some(ask) = &mut self.ask {
            ask.write_all(&[1])?;
        }
        Ok(Duration::from_nanos(self.answer()?).as_secs_f64() * 1e3)
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.ask = None;
        let _ = self.process.wait();
    }
}

/// Works off the rows in turns: `warm` rounds that do not count, then `rounds`. A row that fails is left out from
/// then on, with the reason.
pub(crate) fn take_turns(mut rows: Vec<Row>, warm: usize, rounds: usize) -> (Vec<Row>, Vec<String>) {
    let mut left_out = Vec::new();
    for round in 0..warm + rounds {
        rows.retain_mut(|row| match row.once() {
            Ok(time) => {
                if round >= warm {
                    row.times.push(time);
                }
                true
            }
            Err(error) => {
                left_out.push(format!("{error}, in round {round}"));
                false
            }
        });
    }
    (rows, left_out)
}

/// The other side of a row: answers every byte with the time of one `work`. `work` says what it measured itself, or
/// `None` for all of it.
pub(crate) fn serve(mut work: impl FnMut() -> Outcome<Option<Duration>>) -> Outcome {
    let (mut input, mut output) = (std::io::stdin(), std::io::stdout());
    let mut byte = [0];
    while input.read(&mut byte)? == 1 {
        let begin = Instant::now();
        let measured = work()?;
        let time = measured.unwrap_or_else(|| begin.elapsed());
        output.write_all(&u64::try_from(time.as_nanos())?.to_ne_bytes())?;
        output.flush()?;
    }
    Ok(())
}

/// A row that runs programs, each from the start to the end of its process: untimed, then timed. `view` is how they
/// see the control groups.
pub(crate) fn serve_commands(view: View, prepare: &[String], timed: &[String]) -> Outcome {
    if view == View::VersionOne {
        without_version_two()?;
    }
    let command = |words: &[String]| -> Option<Command> {
        let (program, arguments) = words.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        Some(command)
    };
    serve(|| {
        if let Some(mut prepare) = command(prepare) {
            ground::run(&mut prepare)?;
        }
        let begin = Instant::now();
        let Some(mut timed) = command(timed) else {
            return Err("no command".into());
        };
        ground::run(&mut timed)?;
        Ok(Some(begin.elapsed()))
    })
}

/// How a program sees the control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// As the host has them.
    Host,
    /// Version 1 alone where the host has both: some runtimes refuse such hosts.
    VersionOne,
}

fn without_version_two() -> Outcome {
    let mounts = groups()?;
    if mounts.iter().any(|(kind, _)| kind == "cgroup") {
        ground::own_mounts()?;
        for (_, path) in mounts.iter().filter(|(kind, _)| kind == "cgroup2") {
            unmount(path, UnmountFlags::DETACH)?;
        }
    }
    Ok(())
}

/// Where control groups are mounted: `cgroup` or `cgroup2`, and the path.
pub(crate) fn groups() -> Outcome<Vec<(String, PathBuf)>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        if let (Some(path), Some(kind @ ("cgroup" | "cgroup2"))) =
            (before.split(' ').nth(4), after.split(' ').next())
        {
            found.push((kind.to_owned(), path.into()));
        }
    }
    Ok(found)
}

/// Says on the standard error output why a role ended.
#[allow(clippy::print_stderr)]
pub(crate) fn report(outcome: Outcome) -> std::process::ExitCode {
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", chain(error.as_ref()));
            std::process::ExitCode::FAILURE
        }
    }
}
