//! Control groups: version 2, version 1, both, or none.
//!
//! A container's groups are named after it, `rdock/<id>` below this process's own group (or below the
//! root of the hierarchy for root, where the kernel lets a manager work), so that anyone can find and
//! remove them; `<parent>/<id>` where the spec names a parent. Only hierarchies that are needed are used: those of
//! the limits, and one to account and kill by. What a machine cannot do is a warning on the container, never a
//! silent loss.

mod devices;
mod find;
mod freeze;
mod limits;
mod place;
mod usage;

pub(crate) use freeze::Freezer;
pub(crate) use place::Place;

use find::{Hierarchy, Version};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
pub(crate) use usage::groups;

use crate::spec::{DeviceRule, Resources};
use crate::warning::Warning;

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
    /// The kernel of this machine has no such limit.
    #[error("{name} cannot be set: {reason}")]
    NoSuchLimit {
        /// The limit, as the spec names it.
        name: &'static str,
        /// What is missing.
        reason: String,
    },
    /// A limit of I/O is for something that is no block device.
    #[error("{} has no limits of I/O", path.display())]
    Device {
        /// As the spec names it.
        path: PathBuf,
        /// What it is.
        source: io::Error,
    },
}

/// The groups of one container.
#[derive(Debug, Default)]
pub(crate) struct Cgroup {
    place: Place,
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
    pub(crate) warnings: Vec<Warning>,
    /// Devices were to be restricted, and nothing here can do it.
    pub(crate) devices_are_open: bool,
}

/// Makes the groups of a container with its limits. `devices`: what it may do with devices, `None` for everything.
///
/// # Errors
/// When a group cannot be made, or the kernel refuses a limit's value; nothing is left then.
pub(crate) fn create(
    place: Place,
    resources: &Resources,
    devices: Option<&[DeviceRule]>,
) -> Result<(Cgroup, Joining), CgroupError> {
    let hierarchies = find::hierarchies();
    let mut cgroup = Cgroup {
        place,
        ..Cgroup::default()
    };
    let mut joining = Joining::default();
    let made = cgroup
        .limit(resources, hierarchies, &mut joining)
        .and_then(|()| cgroup.account(hierarchies, &mut joining))
        .and_then(|()| match devices {
            Some(rules) => cgroup.restrict(rules, hierarchies, &mut joining),
            None => Ok(()),
        });
    match made {
        Ok(()) => Ok((cgroup, joining)),
        Err(error) => {
            // The first error is the one to report.
            let _ = cgroup.remove();
            Err(error)
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EACCES | libc::EPERM | libc::EROFS | libc::ENOENT | libc::EBUSY)
    )
}

/// Writes a setting's value into the first of its files that this kernel has; which one was missing otherwise.
fn write(
    group: &Path,
    version: Version,
    setting: &limits::Setting,
) -> Result<Result<(), String>, CgroupError> {
    let files = match version {
        Version::One => &setting.v1,
        Version::Two => &setting.v2,
    };
    for (file, value) in files {
        // Not `fs::write`, which would ask the kernel to create what is missing.
        let written = fs::OpenOptions::new()
            .write(true)
            .open(group.join(file))
            .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
        match written {
            Ok(()) => return Ok(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(CgroupError::Limit {
                    name: setting.name,
                    value: value.clone(),
                    source,
                });
            }
        }
    }
    Ok(match files.last() {
        _ if setting.quiet => Ok(()),
        Some((file, _)) => Err(format!("this kernel has no {file}")),
        None => Err("control groups of this version have no such limit".to_owned()),
    })
}

impl Cgroup {
    /// Sets the limits in the hierarchies of their controllers.
    fn limit(
        &mut self,
        resources: &Resources,
        hierarchies: &[Hierarchy],
        joining: &mut Joining,
    ) -> Result<(), CgroupError> {
        for (controller, settings) in limits::wanted(resources, true)? {
            let unenforced = |reason: String| {
                settings
                    .iter()
                    .filter(|setting| !setting.quiet)
                    .map(|setting| Warning::LimitNotEnforced {
                        limit: setting.name.to_owned(),
                        reason: reason.clone(),
                    })
                    .collect::<Vec<_>>()
            };
            let Some(hierarchy) = hierarchies.iter().find(|one| one.keeps(controller)) else {
                let reason = format!("no {} controller here", controller.names().0);
                joining.warnings.extend(unenforced(reason));
                continue;
            };
            let path = match self.enter(hierarchy, joining) {
                Ok(path) => path,
                Err(CgroupError::Group { source, .. }) if is_refusal(&source) => {
                    let reason = format!("no right to use {}", hierarchy.group.display());
                    joining.warnings.extend(unenforced(reason));
                    continue;
                }
                Err(error) => return Err(error),
            };
            for setting in &settings {
                if let Err(reason) = write(&path, hierarchy.version, setting)? {
                    joining.warnings.push(Warning::LimitNotEnforced {
                        limit: setting.name.to_owned(),
                        reason,
                    });
                }
            }
        }
        Ok(())
    }

    /// One group to find the processes by and to freeze them: version 2 where it is mounted, else the freezer.
    fn account(&mut self, hierarchies: &[Hierarchy], joining: &mut Joining) -> Result<(), CgroupError> {
        let plain = hierarchies.iter().find(|one| one.version == Version::Two);
        let plain = plain
            .or_else(|| hierarchies.iter().find(|one| one.has("freezer")))
            .or_else(|| {
                hierarchies
                    .iter()
                    .find(|one| one.has("pids") && self.paths.is_empty())
            });
        let Some(hierarchy) = plain else {
            return Ok(());
        };
        match self.enter(hierarchy, joining) {
            Err(CgroupError::Group { source, .. }) if is_refusal(&source) => {
                if let Some(parent) = self.place.parent() {
                    joining.warnings.push(Warning::NoCgroupParent {
                        path: parent.to_owned(),
                        reason: source.to_string(),
                    });
                }
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Leaves the container no devices but those of `rules`: by the group of version 2 that it has anyway, since
    /// joining one more of version 1 takes the kernel milliseconds, else by the controller of version 1.
    fn restrict(
        &mut self,
        rules: &[DeviceRule],
        hierarchies: &[Hierarchy],
        joining: &mut Joining,
    ) -> Result<(), CgroupError> {
        let mut reason = "no control groups here".to_owned();
        if let Some(dir) = &joining.dir {
            match devices::restrict_by_program(dir.as_fd(), rules) {
                Ok(()) => return Ok(()),
                Err(error) => reason = format!("the kernel takes no program: {error}"),
            }
        }
        if let Some(hierarchy) = hierarchies.iter().find(|one| one.has("devices")) {
            match self.enter(hierarchy, joining) {
                Ok(path) => match devices::restrict_by_lists(&path, rules) {
                    Ok(()) => return Ok(()),
                    Err(error) => reason = format!("{}: {error}", path.display()),
                },
                Err(CgroupError::Group { source, path, .. }) if is_refusal(&source) => {
                    reason = format!("{}: {source}", path.display());
                }
                Err(error) => return Err(error),
            }
        }
        joining.devices_are_open = true;
        joining.warnings.push(Warning::DevicesNotRestricted { reason });
        Ok(())
    }

    /// Makes the container's group in a hierarchy, once.
    fn enter(&mut self, hierarchy: &Hierarchy, joining: &mut Joining) -> Result<PathBuf, CgroupError> {
        let path = self.place.within(&hierarchy.group);
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
        self.place.make_parents(hierarchy)?;
        // Another container's removal may take the empty parent away in between.
        let mut made = fs::create_dir(&path);
        for _ in 0..16 {
            if !matches!(&made, Err(error) if error.kind() == io::ErrorKind::NotFound) {
                break;
            }
            self.place.make_parents(hierarchy)?;
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
    pub(crate) fn open(place: Place, paths: &[PathBuf]) -> Self {
        let version = |path: &Path| {
            let hierarchy = find::hierarchies()
                .iter()
                .find(|one| path.starts_with(&one.mount))?;
            Some((hierarchy.version, hierarchy.mount.clone()))
        };
        let mut cgroup = Self {
            place,
            ..Self::default()
        };
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
    /// limit. Limits written before it stay.
    pub(crate) fn update(&mut self, resources: &Resources) -> Result<(), CgroupError> {
        for (controller, settings) in limits::wanted(resources, false)? {
            let absent = || CgroupError::NoSuchLimit {
                name: settings[0].name,
                reason: format!("no {} controller here", controller.names().0),
            };
            let hierarchy = find::hierarchies()
                .iter()
                .find(|hierarchy| hierarchy.keeps(controller))
                .ok_or_else(absent)?;
            let path = self.place.within(&hierarchy.group);
            if !self.paths.iter().any(|(_, known)| *known == path) {
                // It was started without such a limit: its processes move into a group of the controller.
                let path = self.enter(hierarchy, &mut Joining::default())?;
                self.move_members(&path)?;
            }
            let write = |setting: &limits::Setting| {
                let missing = |reason| CgroupError::NoSuchLimit {
                    name: setting.name,
                    reason,
                };
                write(&path, hierarchy.version, setting)?.map_err(missing)
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
        for (_, path) in &self.paths {
            first = first.and(remove_group(path));
            self.place.remove_parents(path);
        }
        first
    }
}

/// Removes every group of a container, and kills what is left in them.
///
/// # Errors
/// With the first group that stays; the others are gone.
pub(crate) fn remove_all(place: &Place) -> Result<(), CgroupError> {
    let mut first = Ok(());
    for hierarchy in find::hierarchies() {
        let path = place.within(&hierarchy.group);
        first = first.and(remove_group(&path));
        place.remove_parents(&path);
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
mod tests;
