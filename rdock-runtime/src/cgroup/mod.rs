//! Control groups: version 2, version 1, both, or none.
//!
//! A container's groups are named after it, `rdock/<id>` below this process's own group (or below the
//! root of the hierarchy for root, where the kernel lets a manager work), so that anyone can find and
//! remove them. Only hierarchies that are needed are used: those of the limits, and one to account and
//! kill by. What a machine cannot do is a warning on the container, never a silent loss.

mod find;
mod freeze;
mod limits;
mod usage;

pub(crate) use freeze::Freezer;

use find::{Hierarchy, Version};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
pub(crate) use usage::groups;

use crate::spec::Resources;

/// Why a control group could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// A group could not be made or removed.
    #[error("could not {action} the control group {}", path.display())]
    Group {
        /// What was done.
        action: &'static str,
        /// Its directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A limit was refused with this value.
    #[error("could not set {name} to {value}: the kernel refuses the value")]
    Limit {
        /// The limit, as the spec names it.
        name: &'static str,
        /// As written.
        value: String,
        /// The system's error.
        source: io::Error,
    },
}

/// The groups of one container.
#[derive(Debug, Default)]
pub(crate) struct Cgroup {
    paths: Vec<(Version, PathBuf)>,
    /// Where the hierarchies of these groups are mounted.
    mounts: Vec<PathBuf>,
}

/// What the payload needs to join them.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    /// `cgroup.procs` of the version 1 groups.
    pub(crate) procs: Vec<OwnedFd>,
    /// The version 2 group.
    pub(crate) dir: Option<OwnedFd>,
    /// Limits that this machine cannot enforce.
    pub(crate) warnings: Vec<String>,
}

/// Makes the groups of container `id` with its limits.
///
/// # Errors
/// When a group cannot be made, or the kernel refuses a limit's value; nothing is left then.
pub(crate) fn create(id: &str, resources: &Resources) -> Result<(Cgroup, Joining), CgroupError> {
    let hierarchies = find::hierarchies();
    let mut cgroup = Cgroup::default();
    let mut joining = Joining::default();
    let made = fill(id, resources, hierarchies, &mut cgroup, &mut joining);
    match made {
        Ok(()) => Ok((cgroup, joining)),
        Err(error) => {
            // The first error is the one to report.
            let _ = cgroup.remove();
            Err(error)
        }
    }
}

fn fill(
    id: &str,
    resources: &Resources,
    hierarchies: &[Hierarchy],
    cgroup: &mut Cgroup,
    joining: &mut Joining,
) -> Result<(), CgroupError> {
    let wanted = limits::wanted(resources);
    for (controller, settings) in &wanted {
        let Some(hierarchy) = hierarchies.iter().find(|hierarchy| hierarchy.has(controller)) else {
            joining.warnings.push(format!(
                "the {controller} limit is not enforced: no {controller} controller here"
            ));
            continue;
        };
        let path = match cgroup.enter(id, hierarchy, joining) {
            Ok(path) => path,
            Err(CgroupError::Group { source, .. }) if is_refusal(&source) => {
                joining.warnings.push(format!(
                    "the {controller} limit is not enforced: no right to use {}",
                    hierarchy.group.display()
                ));
                continue;
            }
            Err(error) => return Err(error),
        };
        for setting in settings {
            let (file, value) = match hierarchy.version {
                Version::One => (setting.v1, &setting.v1_value),
                Version::Two => (setting.v2, &setting.v2_value),
            };
            if file.is_empty() {
                continue;
            }
            match fs::write(path.join(file), value) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    joining.warnings.push(format!(
                        "{} is not enforced: this kernel has no {file}",
                        setting.name
                    ));
                }
                Err(source) => {
                    return Err(CgroupError::Limit {
                        name: setting.name,
                        value: value.clone(),
                        source,
                    });
                }
            }
        }
    }
    // One group to find the processes by and to freeze them: version 2 where it is mounted, else the freezer.
    let plain = hierarchies.iter().find(|one| one.version == Version::Two);
    let plain = plain
        .or_else(|| hierarchies.iter().find(|one| one.has("freezer")))
        .or_else(|| {
            hierarchies
                .iter()
                .find(|one| one.has("pids") && cgroup.paths.is_empty())
        });
    if let Some(hierarchy) = plain {
        match cgroup.enter(id, hierarchy, joining) {
            Err(CgroupError::Group { source, .. }) if is_refusal(&source) => {}
            other => drop(other?),
        }
    }
    Ok(())
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EACCES | libc::EPERM | libc::EROFS | libc::ENOENT | libc::EBUSY)
    )
}

impl Cgroup {
    /// Makes the container's group in a hierarchy, once.
    fn enter(
        &mut self,
        id: &str,
        hierarchy: &Hierarchy,
        joining: &mut Joining,
    ) -> Result<PathBuf, CgroupError> {
        let parent = hierarchy.group.join("rdock");
        let path = parent.join(id);
        if self.paths.iter().any(|(_, known)| *known == path) {
            return Ok(path);
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| CgroupError::Group {
                action: "create",
                path,
                source,
            }
        };
        match fs::create_dir(&parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&parent)(error)),
            _ => {}
        }
        match hierarchy.version {
            Version::One => find::inherit_cpuset(&parent),
            Version::Two => {
                for group in [&hierarchy.group, &parent] {
                    find::delegate(group);
                }
            }
        }
        // Another container's removal may take the empty parent away in between.
        let mut made = fs::create_dir(&path);
        if made
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            let _ = fs::create_dir(&parent);
            made = fs::create_dir(&path);
        }
        made.map_err(failed(&path))?;
        self.paths.push((hierarchy.version, path.clone()));
        self.mounts.push(hierarchy.mount.clone());
        match hierarchy.version {
            Version::One => {
                find::inherit_cpuset(&path);
                let procs = fs::OpenOptions::new().write(true).open(path.join("cgroup.procs"));
                joining.procs.push(procs.map_err(failed(&path))?.into());
            }
            Version::Two => joining.dir = Some(fs::File::open(&path).map_err(failed(&path))?.into()),
        }
        Ok(path)
    }

    /// The hierarchies that the container sees: those it has a group of its own in. In any other it would be
    /// shown the host's groups.
    pub(crate) fn mounts(&self) -> &[PathBuf] {
        &self.mounts
    }

    /// The groups of a run that another process started.
    pub(crate) fn open(paths: &[PathBuf]) -> Self {
        let version = |path: &Path| {
            let hierarchy = find::hierarchies()
                .iter()
                .find(|one| path.starts_with(&one.mount))?;
            Some((hierarchy.version, hierarchy.mount.clone()))
        };
        let mut cgroup = Self::default();
        for path in paths {
            if let Some((version, mount)) = version(path) {
                cgroup.paths.push((version, path.clone()));
                cgroup.mounts.push(mount);
            }
        }
        cgroup
    }

    /// Their directories.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.paths.iter().map(|(_, path)| path.clone()).collect()
    }

    /// `cgroup.procs` of each, for one more process to join.
    ///
    /// # Errors
    /// When one of them is gone.
    pub(crate) fn procs(&self) -> io::Result<Vec<OwnedFd>> {
        let open = |(_, path): &(Version, PathBuf)| -> io::Result<OwnedFd> {
            let procs = fs::OpenOptions::new()
                .write(true)
                .open(path.join("cgroup.procs"))?;
            Ok(procs.into())
        };
        self.paths.iter().map(open).collect()
    }

    /// Gives a running container other limits. Those that are `None` stay as they are.
    ///
    /// # Errors
    /// When the kernel refuses a value, such as a memory limit below what is in use, or the machine has no such
    /// controller. Limits written before it stay.
    pub(crate) fn update(&mut self, id: &str, resources: &Resources) -> Result<(), CgroupError> {
        let absent = |name: &'static str| CgroupError::Group {
            action: "use",
            path: PathBuf::from(name),
            source: io::Error::new(io::ErrorKind::Unsupported, "this machine has no such controller"),
        };
        for (controller, settings) in limits::wanted(resources) {
            let hierarchy = find::hierarchies()
                .iter()
                .find(|hierarchy| hierarchy.has(controller))
                .ok_or_else(|| absent(controller))?;
            let path = hierarchy.group.join("rdock").join(id);
            if !self.paths.iter().any(|(_, known)| *known == path) {
                // It was started without such a limit: its processes move into a group of the controller.
                let path = self.enter(id, hierarchy, &mut Joining::default())?;
                self.move_members(&path)?;
            }
            let write = |setting: &limits::Setting| {
                let (file, value) = match hierarchy.version {
                    Version::One => (setting.v1, &setting.v1_value),
                    Version::Two => (setting.v2, &setting.v2_value),
                };
                match file {
                    "" => Ok(()),
                    _ => fs::write(path.join(file), value).map_err(|source| CgroupError::Limit {
                        name: setting.name,
                        value: value.clone(),
                        source,
                    }),
                }
            };
            let written: Result<(), _> = settings.iter().try_for_each(write);
            if written.is_err() {
                // Version 1 keeps "memory" below "memory and swap" at every moment: raised, the second comes first.
                settings.iter().rev().try_for_each(write)?;
            }
        }
        Ok(())
    }

    /// Moves every process of the container into the group `to`.
    fn move_members(&self, to: &Path) -> Result<(), CgroupError> {
        let Some((_, from)) = self.paths.iter().find(|(_, path)| path != to) else {
            return Ok(());
        };
        let failed = |source| CgroupError::Group {
            action: "move processes into",
            path: to.to_owned(),
            source,
        };
        // Until a look finds nobody new: a child that is born meanwhile is in its parent's group.
        let mut moved = std::collections::HashSet::new();
        loop {
            let members = fs::read_to_string(from.join("cgroup.procs")).map_err(failed)?;
            let new: Vec<&str> = members
                .lines()
                .filter(|pid| moved.insert((*pid).to_owned()))
                .collect();
            if new.is_empty() {
                return Ok(());
            }
            for pid in new {
                match fs::write(to.join("cgroup.procs"), pid) {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(failed(error)),
                    _ => {}
                }
            }
        }
    }

    /// Whether the kernel killed something in it since the memory limit was reached.
    pub(crate) fn oom_killed(&self) -> bool {
        self.paths.iter().any(|(version, path)| {
            let file = match version {
                Version::One => "memory.oom_control",
                Version::Two => "memory.events",
            };
            // A group of another controller has no such file.
            let text = fs::read_to_string(path.join(file)).unwrap_or_default();
            let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            count
                .and_then(|count| count.trim().parse::<u64>().ok())
                .is_some_and(|count| count > 0)
        })
    }

    /// Removes the groups; their processes have ended.
    ///
    /// # Errors
    /// With the first group that stays; the others are gone.
    pub(crate) fn remove(self) -> Result<(), CgroupError> {
        let mut first = Ok(());
        for (_, path) in self.paths {
            first = first.and(remove_group(&path));
        }
        first
    }
}

/// Removes every group of container `id`, and kills what is left in them.
///
/// # Errors
/// With the first group that stays; the others are gone.
pub(crate) fn remove_all(id: &str) -> Result<(), CgroupError> {
    let mut first = Ok(());
    for hierarchy in find::hierarchies() {
        first = first.and(remove_group(&hierarchy.group.join("rdock").join(id)));
    }
    first
}

fn remove_group(path: &Path) -> Result<(), CgroupError> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                remove_below(path);
                // A frozen process of version 1 does not even die.
                let _ = fs::write(path.join("freezer.state"), "THAWED");
                // Since Linux 5.14; before, and in version 1, one by one.
                if fs::write(path.join("cgroup.kill"), "1").is_err() {
                    kill_members(path);
                }
                // The kernel gives no event for the last process leaving a version 1 group.
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(source) => {
                return Err(CgroupError::Group {
                    action: "remove",
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
}

/// Groups that the payload made in its own.
fn remove_below(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // What stays makes the removal of the parent fail, which is reported.
            let _ = remove_group(&entry.path());
        }
    }
}

fn kill_members(path: &Path) {
    let members = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for pid in members
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter_map(rustix::process::Pid::from_raw)
    {
        // It may have ended meanwhile.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// `v2`, `v1`, `hybrid` or `none`.
pub(crate) fn describe() -> String {
    let has = |version| {
        find::hierarchies()
            .iter()
            .any(|hierarchy| hierarchy.version == version)
    };
    match (has(Version::One), has(Version::Two)) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => "none",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_group_is_gone_and_removing_it_again_is_no_error() {
        let id = format!("{:064x}", std::process::id());
        let Ok((cgroup, joining)) = create(&id, &Resources::default()) else {
            // Without the right to make groups `create` warns instead of failing.
            panic!("create failed");
        };
        let paths: Vec<_> = cgroup.paths.iter().map(|(_, path)| path.clone()).collect();
        assert!(paths.iter().all(|path| path.is_dir()));
        drop(joining);
        cgroup.remove().expect("remove");
        assert!(!paths.iter().any(|path| path.exists()));
        remove_all(&id).expect("again");
    }
}
