//! Freezing a container: `cgroup.freeze` of version 2, the freezer controller of version 1.

use super::Cgroup;
use super::find::Version;
use std::fs;
use std::io;
use std::path::PathBuf;

/// How a freeze is asked for and seen.
#[derive(Debug, Clone)]
pub(crate) struct Freezer {
    version: Version,
    group: PathBuf,
}

impl Cgroup {
    /// The group by which the container is frozen; `None` on a machine without one.
    pub(crate) fn freezer(&self) -> Option<Freezer> {
        self.paths.iter().find_map(|(version, path)| {
            let file = match version {
                Version::Two => "cgroup.freeze",
                Version::One => "freezer.state",
            };
            path.join(file).exists().then(|| Freezer {
                version: *version,
                group: path.clone(),
            })
        })
    }
}

impl Freezer {
    /// Asks for it; the kernel needs a moment, see [`Self::is_done`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn set(&self, frozen: bool) -> io::Result<()> {
        let (file, value) = match (self.version, frozen) {
            (Version::Two, true) => ("cgroup.freeze", "1"),
            (Version::Two, false) => ("cgroup.freeze", "0"),
            (Version::One, true) => ("freezer.state", "FROZEN"),
            (Version::One, false) => ("freezer.state", "THAWED"),
        };
        fs::write(self.group.join(file), value)
    }

    /// Whether somebody has asked for it, and not taken that back.
    pub(crate) fn is_asked(&self) -> bool {
        let (file, not) = match self.version {
            Version::Two => ("cgroup.freeze", "0"),
            Version::One => ("freezer.state", "THAWED"),
        };
        fs::read_to_string(self.group.join(file)).is_ok_and(|state| state.trim() != not)
    }

    /// Whether every process is frozen, or none is any more.
    ///
    /// # Errors
    /// When the group is gone.
    pub(crate) fn is_done(&self, frozen: bool) -> io::Result<bool> {
        Ok(match self.version {
            Version::Two => {
                let events = fs::read_to_string(self.group.join("cgroup.events"))?;
                let wanted = if frozen { "frozen 1" } else { "frozen 0" };
                events.lines().any(|line| line == wanted)
            }
            Version::One => {
                let state = fs::read_to_string(self.group.join("freezer.state"))?;
                let wanted = if frozen { "FROZEN" } else { "THAWED" };
                if frozen && state.trim() == "FREEZING" {
                    // A process that was just made, or in the middle of a system call, is only caught by asking
                    // again (cgroup-v1/freezer-subsystem in the kernel's documentation).
                    let _ = self.set(true);
                }
                state.trim() == wanted
            }
        })
    }
}
