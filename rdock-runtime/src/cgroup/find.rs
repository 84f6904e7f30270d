//! Which hierarchies this machine has, and which group of each is this process's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Version of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// One mounted hierarchy.
#[derive(Debug, Clone)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    pub(super) controllers: Vec<String>,
    pub(super) mount: PathBuf,
    /// Below which containers' groups are made.
    pub(super) group: PathBuf,
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|one| one == controller)
    }

    /// Whether limits of this kind are kept here.
    pub(super) fn keeps(&self, controller: super::limits::Controller) -> bool {
        let (one, two) = controller.names();
        self.has(match self.version {
            Version::One => one,
            Version::Two => two,
        })
    }
}

/// Found once: mounts of control groups do not change under a running program.
pub(super) fn hierarchies() -> &'static [Hierarchy] {
    static FOUND: OnceLock<Vec<Hierarchy>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        parse(&mounts, &own)
    })
}

/// From /proc/PID/mountinfo (proc_pid_mountinfo(5)) and /proc/PID/cgroup (cgroups(7)).
fn parse(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(mount)) = (left.next(), left.next()) else {
            continue;
        };
        let mut right = right.split(' ');
        let (Some(kind), Some(options)) = (right.next(), right.nth(1)) else {
            continue;
        };
        let mount = PathBuf::from(mount);
        let (version, controllers) = match kind {
            "cgroup2" => (Version::Two, v2_controllers(&mount)),
            "cgroup" => (Version::One, v1_controllers(options)),
            _ => continue,
        };
        if found.iter().any(|other| other.mount == mount) {
            continue;
        }
        let group = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let matches = match version {
                Version::Two => number == "0" && names.is_empty(),
                Version::One => names
                    .split(',')
                    .any(|name| controllers.iter().any(|one| one == name)),
            };
            // The mount may show a subtree: of another group's view this process's path is outside.
            let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
            matches.then(|| mount.join(below.trim_start_matches('/')))
        });
        let own_group = group.unwrap_or_else(|| mount.clone());
        // Version 2 forbids groups with processes of their own between limits; root manages from the top,
        // as docker's cgroupfs driver does, and so do limits not nest in those of the caller's service.
        let writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
        let group = if writable(&mount) {
            mount.clone()
        } else {
            own_group
        };
        found.push(Hierarchy {
            version,
            controllers,
            mount,
            group,
        });
    }
    found
}

fn v1_controllers(options: &str) -> Vec<String> {
    options
        .split(',')
        .filter(|option| !matches!(*option, "rw" | "ro" | "xattr" | "clone_children" | "noprefix"))
        .filter(|option| !option.starts_with("release_agent="))
        .map(str::to_owned)
        .collect()
}

fn v2_controllers(group: &Path) -> Vec<String> {
    words(&group.join("cgroup.controllers"))
}

fn words(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Hands the controllers of a version 2 group to its children.
pub(super) fn delegate(group: &Path) {
    // A write takes the kernel's lock on all groups, and mostly there is nothing to write.
    let mut wanted = v2_controllers(group);
    wanted.retain(|name| matches!(&name[..], "memory" | "cpu" | "cpuset" | "pids" | "io"));
    if wanted.is_empty() {
        return;
    }
    let control = group.join("cgroup.subtree_control");
    let given = words(&control);
    for controller in wanted.iter().filter(|name| !given.contains(name)) {
        // One that may not be handed on shows as a limit file that is missing.
        let _ = fs::write(&control, format!("+{controller}"));
    }
}

/// A new version 1 cpuset group has no processors and takes no process until it gets some.
pub(super) fn inherit_cpuset(group: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let Ok(own) = fs::read_to_string(group.join(file)) else {
            return;
        };
        let parent = group
            .parent()
            .and_then(|parent| fs::read_to_string(parent.join(file)).ok());
        if let (true, Some(parent)) = (own.trim().is_empty(), parent) {
            // A group that stays empty refuses its first process, which is reported.
            let _ = fs::write(group.join(file), parent.trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hosts_have_both_versions() {
        let mounts = "30 20 0:26 / /nowhere/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
                      31 20 0:27 / /nowhere/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 20 0:28 / /nowhere/unified rw - cgroup2 cgroup2 rw\n";
        let own = "2:memory:/a/b\n1:cpu,cpuacct:/\n0::/\n";
        let found = parse(mounts, own);
        assert_eq!(found.len(), 3);
        assert!(found[1].has("cpuacct"));
        assert_eq!(found[0].group, Path::new("/nowhere/memory/a/b"));
        assert_eq!(found[2].version, Version::Two);
    }
}
