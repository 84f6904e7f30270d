//! A process on disk: recognisable after its pid was used again, and over a reboot.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;

/// One process, not just its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: i32,
    /// Field 22 of /proc/PID/stat: clock ticks since boot.
    pub(crate) start: u64,
    pub(crate) boot: String,
    /// Inode of the pid namespace that `pid` is a number of.
    pub(crate) pids: u64,
}

impl ProcessIdentity {
    /// This process.
    pub(crate) fn current() -> io::Result<Self> {
        // Read once, unless a forked child asks: its number differs, or its namespace.
        static OWN: std::sync::OnceLock<ProcessIdentity> = std::sync::OnceLock::new();
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        if let Some(own) = OWN.get() {
            return match own.pid == pid && pid_namespace() == Some(own.pids) {
                true => Ok(own.clone()),
                false => Self::of(pid),
            };
        }
        let own = Self::of(pid)?;
        Ok(OWN.get_or_init(|| own).clone())
    }

    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pid,
            start: start_time(pid)?,
            boot: boot_id()?,
            pids: pid_namespace().ok_or(Errno::NOENT)?,
        })
    }

    /// Whether it was a process of the machine's current boot.
    pub(crate) fn is_of_this_boot(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot)
    }

    /// Whether that very process still runs; zombies count as ended. A process of another pid namespace, or
    /// one that cannot be looked at, counts as alive: what it owns must not be taken away by mistake.
    pub(crate) fn is_alive(&self) -> bool {
        let Ok(boot) = boot_id() else { return true };
        if boot != self.boot {
            return false;
        }
        if pid_namespace() != Some(self.pids) {
            return true;
        }
        match start_time(self.pid) {
            Ok(start) => start == self.start,
            Err(error) => !is_gone(&error),
        }
    }
}

/// Looking at a process that has ended fails so: its directory is missing, or nothing can be read from it.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The inode of this process's pid namespace.
pub(crate) fn pid_namespace() -> Option<u64> {
    Some(rustix::fs::stat("/proc/self/ns/pid").ok()?.st_ino)
}

fn boot_id() -> io::Result<String> {
    static BOOT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(boot.clone());
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned();
    Ok(BOOT.get_or_init(|| boot).clone())
}

/// proc_pid_stat(5): the 20th field after the name, which may itself hold anything.
fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    let stat = String::from_utf8_lossy(&stat);
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ended = fields.trim_start().starts_with(['Z', 'X']);
    let start = fields
        .split_ascii_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok());
    match start {
        Some(start) if !ended => Ok(start),
        _ => Err(Errno::SRCH.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_only_as_itself() {
        let me = ProcessIdentity::current().expect("own identity");
        assert!(me.is_alive());
        let later = ProcessIdentity {
            start: me.start + 1,
            ..me.clone()
        };
        assert!(!later.is_alive());
        let earlier = ProcessIdentity {
            boot: "another".into(),
            ..me.clone()
        };
        assert!(!earlier.is_alive());
        // What cannot be looked up is left alone.
        assert!(ProcessIdentity { pids: 1, ..later }.is_alive());
    }
}
