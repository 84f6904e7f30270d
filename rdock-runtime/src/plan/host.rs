//! What planning needs to know about the host, gathered once so that planning itself reads nothing.

use super::devices;
use crate::launch::{DevicePlan, TerminalSize};

/// Facts about the host and the caller.
#[derive(Debug, Clone)]
pub(crate) struct HostFacts {
    pub(crate) euid: u32,
    pub(crate) egid: u32,
    /// Capabilities that can be given without a user namespace of the container's own, as a bit mask.
    pub(crate) capabilities: u64,
    /// And with one.
    pub(crate) capabilities_inside: u64,
    /// `(major, minor)`.
    pub(crate) kernel: (u32, u32),
    pub(crate) hostname: String,
    /// Processors that are online.
    pub(crate) processors: u32,
    pub(crate) cgroup: CgroupView,
    /// `thermal_throttle` directories of the processors: a side channel, masked as in docker.
    pub(crate) thermal_paths: Vec<String>,
    /// Device nodes below the host's `/dev`, for privileged containers.
    pub(crate) devices: Vec<DevicePlan>,
    /// The size a terminal starts with.
    pub(crate) terminal: TerminalSize,
}

/// What is mounted at the host's `/sys/fs/cgroup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CgroupView {
    /// Nothing.
    None,
    /// Version 1 hierarchies, perhaps with version 2 beside them.
    V1,
    /// Version 2 alone.
    V2,
}

impl HostFacts {
    /// Looks at the host. Device nodes are only listed for a privileged container, which gets them.
    pub(crate) fn gather(privileged: bool) -> Self {
        let uname = rustix::system::uname();
        Self {
            euid: rustix::process::geteuid().as_raw(),
            egid: rustix::process::getegid().as_raw(),
            capabilities: crate::capabilities::available(false),
            capabilities_inside: crate::capabilities::available(true),
            kernel: kernel_version(&uname.release().to_string_lossy()),
            hostname: uname.nodename().to_string_lossy().into_owned(),
            processors: processors(),
            cgroup: cgroup_view(),
            thermal_paths: thermal_paths(),
            devices: if privileged {
                devices::of_host()
            } else {
                Vec::new()
            },
            terminal: TerminalSize {
                rows: 24,
                columns: 80,
            },
        }
    }

    /// Whether the caller needs a user namespace for everything.
    pub(crate) fn is_rootless(&self) -> bool {
        self.euid != 0
    }
}

/// `6.18.1-generic` is `(6, 18)`.
fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Counted once: that reads the quotas of all groups above.
fn processors() -> u32 {
    static COUNT: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *COUNT.get_or_init(|| {
        std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
    })
}

/// Read once: sysfs has thousands of entries on large machines.
fn thermal_paths() -> Vec<String> {
    static PATHS: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let list = || {
        let cpus = std::fs::read_dir("/sys/devices/system/cpu")
            .into_iter()
            .flatten()
            .flatten();
        let mut paths: Vec<String> = cpus
            .map(|entry| entry.path().join("thermal_throttle"))
            .filter(|path| path.exists())
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        paths.sort();
        paths
    };
    PATHS.get_or_init(list).clone()
}

fn cgroup_view() -> CgroupView {
    let root = std::path::Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return CgroupView::V2;
    }
    let hierarchies = std::fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some());
    if hierarchies {
        CgroupView::V1
    } else {
        CgroupView::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_of_distributions() {
        assert_eq!(kernel_version("6.18.1-generic"), (6, 18));
        assert_eq!(kernel_version("5.10.0-30-amd64"), (5, 10));
        assert_eq!(kernel_version("7.0-rc1"), (7, 0));
        assert_eq!(kernel_version(""), (0, 0));
    }

    #[test]
    fn this_host_has_facts() {
        let facts = HostFacts::gather(true);
        assert!(facts.kernel >= (5, 10), "{facts:?}");
        assert!(!facts.hostname.is_empty() && facts.processors > 0);
        assert!(
            facts
                .devices
                .iter()
                .any(|device| device.path == std::path::Path::new("/dev/null"))
        );
    }
}
