//! A program and everything it starts, stopped at each system call: ptrace(2).

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

/// What a traced task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Part {
    /// A thread of the host program.
    Host,
    /// A thread of a monitor.
    Monitor,
    /// On the way from the host program to the helper.
    Spawn,
    /// The helper.
    Helper,
    /// The payload's process before its exec.
    SetUp,
    /// The payload.
    Payload,
}

/// Why the tracer returned to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The task is about to make the `nth` system call of its part, counted from 0.
    Call { task: Pid, part: Part, nth: usize },
    /// Everything has ended.
    Gone,
    /// Nothing happened until the deadline.
    Late,
}

/// The traced tasks. Only for a process that waits for no other children.
pub(super) struct Tracer {
    host: Pid,
    tasks: HashMap<Pid, Task>,
    calls: HashMap<Part, usize>,
    free: bool,
    with_host: bool,
}

#[derive(Debug, Clone, Copy)]
struct Task {
    part: Part,
    /// The call it is in fails.
    failing: bool,
}

impl Tracer {
    /// Begins with all threads of the process `host`, a child of this one, which itself stops only `with_host`.
    pub(super) fn seize(host: u32, with_host: bool) -> Result<Self, String> {
        let host = Pid::from_raw(i32::try_from(host).map_err(|error| error.to_string())?);
        let mut tracer = Self {
            host,
            tasks: HashMap::new(),
            calls: HashMap::new(),
            free: false,
            with_host,
        };
        let options = Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_EXITKILL;
        let threads = fs::read_dir(format!("/proc/{host}/task")).map_err(|error| error.to_string())?;
        for thread in threads.flatten() {
            let Some(id) = thread.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let thread = Pid::from_raw(id);
            ptrace::seize(thread, options).map_err(|errno| format!("ptrace: {errno}"))?;
            ptrace::interrupt(thread).map_err(|errno| format!("ptrace: {errno}"))?;
            tracer.tasks.insert(
                thread,
                Task {
                    part: Part::Host,
                    failing: false,
                },
            );
        }
        Ok(tracer)
    }

    /// Lets everything run to the next system call of any task.
    pub(super) fn next(&mut self, deadline: Instant) -> Result<Stop, String> {
        let mut idle = 0;
        loop {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
            let status = match waitpid(None::<Pid>, Some(flags)) {
                Ok(status) => status,
                Err(Errno::ECHILD) => return Ok(Stop::Gone),
                Err(errno) => return Err(format!("waitpid: {errno}")),
            };
            match status {
                WaitStatus::StillAlive if Instant::now() > deadline => return Ok(Stop::Late),
                WaitStatus::StillAlive => {
                    idle += 1;
                    // The next stop is mostly microseconds away.
                    match idle {
                        ..200 => std::thread::yield_now(),
                        _ => std::thread::sleep(Duration::from_micros(200)),
                    }
                    continue;
                }
                WaitStatus::Exited(task, _) | WaitStatus::Signaled(task, ..) => {
                    let _ = self.tasks.remove(&task);
                }
                WaitStatus::PtraceSyscall(task) => {
                    if let Some(stop) = self.syscall(task)? {
                        return Ok(stop);
                    }
                }
                WaitStatus::PtraceEvent(task, ..) => {
                    // A new task, or one that has a new program.
                    let part = self.part_of(task);
                    self.tasks.insert(task, Task { part, failing: false });
                    self.resume(task, None)?;
                }
                WaitStatus::Stopped(task, signal) => self.resume(task, Some(signal))?,
                WaitStatus::Continued(_) => {}
            }
            idle = 0;
        }
    }

    fn syscall(&mut self, task: Pid) -> Result<Option<Stop>, String> {
        let info = match ptrace::syscall_info(task) {
            Ok(info) => info,
            // Killed meanwhile; its end is reported next.
            Err(Errno::ESRCH) => return Ok(None),
            Err(errno) => return Err(format!("ptrace: {errno}")),
        };
        let part = self
            .tasks
            .get(&task)
            .map_or_else(|| self.part_of(task), |task| task.part);
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            let count = self.calls.entry(part).or_default();
            let nth = *count;
            *count += 1;
            return Ok(Some(Stop::Call { task, part, nth }));
        }
        if let Some(known) = self.tasks.get_mut(&task)
            && std::mem::take(&mut known.failing)
        {
            registers::set_result(task, -i64::from(libc::EIO))?;
        }
        self.resume(task, None)?;
        Ok(None)
    }

    /// Lets a stopped task go on.
    pub(super) fn resume(&self, task: Pid, signal: Option<Signal>) -> Result<(), String> {
        let host = self.tasks.get(&task).is_some_and(|task| task.part == Part::Host);
        let done = match self.free || (host && !self.with_host) {
            true => ptrace::cont(task, signal),
            false => ptrace::syscall(task, signal),
        };
        match done {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(format!("ptrace: {errno}")),
        }
    }

    /// Makes the call at which a task is stopped fail with EIO, without being made.
    pub(super) fn fail(&mut self, task: Pid) -> Result<(), String> {
        registers::skip_call(task)?;
        if let Some(known) = self.tasks.get_mut(&task) {
            known.failing = true;
        }
        self.resume(task, None)
    }

    /// From now on nothing stops at system calls any more.
    pub(super) fn set_free(&mut self) {
        self.free = true;
    }

    /// How many calls each part has made.
    pub(super) fn calls(&self) -> &HashMap<Part, usize> {
        &self.calls
    }

    /// Kills the host program.
    pub(super) fn kill_host(&self) -> Result<(), String> {
        kill(self.host, Signal::SIGKILL).map_err(|errno| format!("kill the host program: {errno}"))
    }

    /// Kills the helper; false when there is none.
    pub(super) fn kill_helper(&self) -> bool {
        self.kill_part(Part::Helper)
    }

    /// Kills a process of this kind; false when there is none.
    pub(super) fn kill_part(&self, part: Part) -> bool {
        let mut found = self.tasks.iter().filter(|(_, task)| task.part == part);
        found.any(|(task, _)| kill(*task, Signal::SIGKILL).is_ok())
    }

    /// Traces nothing any more; what was stopped goes on.
    pub(super) fn let_go(&mut self, deadline: Instant) -> Result<(), String> {
        for task in self.tasks.keys() {
            // One that is stopped already, or has ended, is found below all the same.
            let _ = ptrace::interrupt(*task);
        }
        while !self.tasks.is_empty() {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
            let (task, signal) = match waitpid(None::<Pid>, Some(flags)) {
                Ok(WaitStatus::StillAlive) if Instant::now() > deadline => {
                    return Err(format!("not let go:{}", self.kill_rest()));
                }
                Ok(WaitStatus::StillAlive) => {
                    // A thread whose process has a new program is gone without a word, and one that was stopped at its
                    // call has told that before.
                    let gone = |task: &Pid| !std::path::Path::new(&format!("/proc/{task}")).exists();
                    self.tasks
                        .retain(|task, _| !gone(task) && ptrace::detach(*task, None::<Signal>).is_err());
                    std::thread::sleep(Duration::from_micros(200));
                    continue;
                }
                Err(Errno::ECHILD) => break,
                Err(errno) => return Err(format!("waitpid: {errno}")),
                Ok(WaitStatus::Exited(task, _) | WaitStatus::Signaled(task, ..)) => {
                    let _ = self.tasks.remove(&task);
                    continue;
                }
                Ok(WaitStatus::Stopped(task, signal)) => (task, Some(signal)),
                Ok(WaitStatus::PtraceSyscall(task) | WaitStatus::PtraceEvent(task, ..)) => (task, None),
                Ok(WaitStatus::Continued(_)) => continue,
            };
            if let Ok(child) = ptrace::getevent(task)
                && let Some(child) = i32::try_from(child).ok().filter(|child| *child > 1)
                && signal.is_none()
                && std::path::Path::new(&format!("/proc/{child}")).exists()
            {
                // Perhaps a new task, which stops by itself and is let go then.
                let child = Pid::from_raw(child);
                if is_traced_by_us(child) {
                    let part = self.part_of(child);
                    self.tasks.insert(child, Task { part, failing: false });
                }
            }
            let _ = self.tasks.remove(&task);
            match ptrace::detach(task, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(format!("ptrace: {errno}")),
            }
        }
        Ok(())
    }

    /// What is still there, for a message; all of it is killed.
    pub(super) fn kill_rest(&self) -> String {
        let mut rest = String::new();
        for (task, known) in &self.tasks {
            let name = fs::read_to_string(format!("/proc/{task}/comm")).unwrap_or_default();
            rest += &format!(" {task} ({}, {:?})", name.trim(), known.part);
            // Some end with the ones before.
            let _ = kill(*task, Signal::SIGKILL);
        }
        rest
    }

    /// By its thread group, how deep in pid namespaces it is, and its program: the helper is one level below the
    /// host program, its payload two.
    fn part_of(&self, task: Pid) -> Part {
        let status = fs::read_to_string(format!("/proc/{task}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let own = own
            .lines()
            .find(|line| line.starts_with("NSpid:"))
            .map_or(1, |line| line.split_whitespace().count() - 1);
        if field("Tgid:") == [self.host.to_string()] {
            return Part::Host;
        }
        let program = fs::read_link(format!("/proc/{task}/exe")).unwrap_or_default();
        let of_helper = program.to_string_lossy().starts_with("/memfd:");
        let command = fs::read(format!("/proc/{task}/cmdline")).unwrap_or_default();
        match field("NSpid:").len().saturating_sub(own) {
            0 if command.starts_with(b"rdock-monitor") => Part::Monitor,
            0 => Part::Spawn,
            1 if of_helper => Part::Helper,
            1 => Part::Spawn,
            _ if of_helper => Part::SetUp,
            _ => Part::Payload,
        }
    }
}

fn is_traced_by_us(task: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{task}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() == std::process::id().to_string())
}

#[cfg(target_arch = "x86_64")]
mod registers {
    use nix::sys::ptrace;
    use nix::unistd::Pid;

    pub(super) fn skip_call(task: Pid) -> Result<(), String> {
        let mut registers = ptrace::getregs(task).map_err(|errno| format!("ptrace: {errno}"))?;
        registers.orig_rax = u64::MAX;
        ptrace::setregs(task, registers).map_err(|errno| format!("ptrace: {errno}"))
    }

    pub(super) fn set_result(task: Pid, value: i64) -> Result<(), String> {
        let mut registers = ptrace::getregs(task).map_err(|errno| format!("ptrace: {errno}"))?;
        registers.rax = value.cast_unsigned();
        ptrace::setregs(task, registers).map_err(|errno| format!("ptrace: {errno}"))
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod registers {
    use nix::unistd::Pid;

    pub(super) fn skip_call(_: Pid) -> Result<(), String> {
        Err("only known for x86-64".into())
    }

    pub(super) fn set_result(_: Pid, _: i64) -> Result<(), String> {
        Err("only known for x86-64".into())
    }
}
