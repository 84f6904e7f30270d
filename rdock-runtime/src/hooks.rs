//! Programs that devices want to have run when a container starts, and what these see.
//!
//! They are those of CDI specifications, and the loader's `ldconfig` for the libraries of a GPU's driver. Each sees what
//! the OCI runtime specification says ("POSIX-platform Hooks"): the state of the container on its stdin, whose `bundle`
//! holds a `config.json`; in its environment the specification's own variables alone, never the container's; and the
//! bundle, which is the container's directory of state, as its working directory. What it writes is kept for the error.

use crate::cdi::{Edited, HookPlace, PlannedHook, Registry};
use crate::error::{Error, Result};
use crate::launch::{
    DevicePlan, HookPlan, HooksPlan, IdMappings, LaunchPlan, MountPlan, ProcessPlan, RootMount,
};
use crate::plan::{self, Planned};
use crate::spec::{ContainerSpec, DeviceAccess};
use crate::state::{ContainerDir, Record};
use crate::step::Step;
use crate::warning::Warning;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::json;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Of the OCI runtime specification, whose state and configuration hooks read.
const OCI_VERSION: &str = "1.2.0";

/// How long a hook may take when its specification does not say: a stuck one must not hold up the owner for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest that a specification can ask for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Bytes of a state: it is written before anybody reads, and a pipe holds no less than a page.
const LARGEST_STATE: usize = 3 << 10;

/// Bytes of a hook's output that an error shows.
const SHOWN: u64 = 2 << 10;

/// What the loader of a container looks libraries up in (ld.so(8)).
const CACHE: &str = "/etc/ld.so.cache";

/// `ldconfig` of the host: in Debian's descendants the first is a program and the second may be a script around it.
const LDCONFIG: [&str; 4] = [
    "/sbin/ldconfig.real",
    "/sbin/ldconfig",
    "/usr/sbin/ldconfig",
    "/usr/bin/ldconfig",
];

/// Directories that loaders of other distributions search by themselves, and this host's `ldconfig` may not know.
const LOADER_DIRECTORIES: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
];

/// The container's devices as the host has them now, and what else they need.
///
/// # Errors
/// [`Error::Device`] and [`Error::Cdi`].
pub(crate) fn devices(
    spec: &ContainerSpec,
    planned: &Planned,
) -> Result<(Vec<(DevicePlan, DeviceAccess)>, Edited)> {
    let mut devices = plan::devices::of_spec(&spec.devices)?;
    let mut edited = edits(spec, &planned.process)?;
    let single_id = planned
        .user_namespace
        .as_ref()
        .is_some_and(IdMappings::is_single_id);
    if single_id && !edited.groups.is_empty() {
        edited.groups.clear();
        edited.warnings.push(Warning::NoSupplementaryGroups);
    }
    for (device, access) in edited.devices.drain(..) {
        devices.retain(|(known, _)| known.path != device.path);
        devices.push((device, access));
    }
    Ok((devices, edited))
}

fn edits(spec: &ContainerSpec, process: &ProcessPlan) -> Result<Edited> {
    let mut edited = Edited::default();
    if spec.cdi_devices.is_empty() && spec.gpus.is_empty() {
        return Ok(edited);
    }
    let registry = Registry::read(&spec.cdi_directories);
    let owner = numeric_user(&process.user);
    for device in &spec.cdi_devices {
        edited.add(&registry, device, owner)?;
    }
    let variable = |name: &str| {
        let value = process
            .env
            .iter()
            .find_map(|entry| entry.strip_prefix(format!("{name}=").as_bytes()))?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    crate::gpu::add(&mut edited, &registry, &spec.gpus, variable, owner)?;
    Ok(edited)
}

/// The ids of a user that is given by number; those of root for a name, which only the container's files know.
fn numeric_user(user: &str) -> (u32, u32) {
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    (user.parse().unwrap_or(0), group.parse().unwrap_or(0))
}

impl Edited {
    /// Makes the edits, except for devices and hooks.
    pub(crate) fn finish(self, launch: &mut LaunchPlan) {
        for (name, value) in self.env {
            launch
                .process
                .set_variable(format!("{name}={value}").into_bytes());
        }
        let groups = &mut launch.process.additional_groups;
        for group in self.groups.iter().map(ToString::to_string) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        for mount in self.mounts {
            launch.mounts.retain(|known| known.target != mount.target);
            // What is mounted below it must not be hidden.
            let below = |known: &crate::launch::MountPlan| known.target.starts_with(&mount.target);
            let at = launch
                .mounts
                .iter()
                .position(below)
                .unwrap_or(launch.mounts.len());
            launch.mounts.insert(at, mount);
        }
        launch.links.extend(self.links);
    }
}

/// The hooks that the owner runs itself.
#[derive(Debug, Default)]
pub(crate) struct OwnersHooks {
    created: Vec<PlannedHook>,
    started: Vec<PlannedHook>,
    /// What hooks of this container, wherever they run, have written.
    output: Option<OwnedFd>,
    bundle: PathBuf,
    /// Its parts around a pid, before and after the start.
    creating: (String, String),
    running: (String, String),
    /// How long all of them may take.
    patience: Duration,
}

/// Plans the hooks of a launch: those that the helper runs, and those of the owner. Writes the `config.json` that they
/// can read.
///
/// # Errors
/// When that file or a descriptor cannot be made.
pub(crate) fn plan_hooks(
    dir: &ContainerDir,
    record: &Record,
    launch: &LaunchPlan,
    edited: &Edited,
) -> Result<(HooksPlan, OwnersHooks)> {
    // A cache that is not the container's own, such as the host's, is not for it to write.
    let foreign = |mount: &MountPlan| Path::new(CACHE).starts_with(&mount.target);
    let libraries = match launch.mounts.iter().any(foreign) {
        true => None,
        false => ldconfig(&edited.libraries),
    };
    if edited.hooks.is_empty() && libraries.is_none() {
        return Ok((HooksPlan::default(), OwnersHooks::default()));
    }
    let bundle = dir.path().to_owned();
    if !edited.hooks.is_empty() {
        write_config(dir, record, launch)?;
    }
    let output = rustix::fs::memfd_create("rdock-hooks", MemfdFlags::CLOEXEC)
        .map_err(|errno| Error::system("make a file in memory")(errno.into()))?;
    let copy = output.try_clone().map_err(Error::system("copy a descriptor"))?;
    let mut owners = OwnersHooks {
        output: Some(copy),
        bundle: bundle.clone(),
        creating: state(record, &bundle, "creating"),
        running: state(record, &bundle, "running"),
        ..OwnersHooks::default()
    };
    let mut hooks = HooksPlan {
        output: Some(output),
        ..HooksPlan::default()
    };
    for hook in &edited.hooks {
        owners.patience += timeout(hook);
        let plan = |directory: &Path, status: &str| HookPlan {
            path: hook.path.clone(),
            program: None,
            args: hook.args.clone(),
            env: hook.env.clone(),
            directory: directory.to_owned(),
            input: state(record, &bundle, status),
            timeout: timeout(hook),
            bounding: None,
            optional: false,
        };
        match hook.place {
            HookPlace::Runtime => owners.created.push(hook.clone()),
            HookPlace::Started => owners.started.push(hook.clone()),
            HookPlace::Container => hooks.before_root.push(plan(&bundle, "creating")),
            // There is no bundle inside.
            HookPlace::Start => hooks.before_exec.push(plan(Path::new("/"), "created")),
        }
    }
    // As the specification orders them: the old name first.
    owners.created.sort_by_key(|hook| hook.name != "prestart");
    hooks.pause = !owners.created.is_empty();
    if let Some((path, program, args)) = libraries {
        owners.patience += PATIENCE;
        hooks.inside.push(HookPlan {
            path,
            program: Some(program),
            args,
            env: Vec::new(),
            directory: "/".into(),
            input: (String::new(), String::new()),
            timeout: PATIENCE,
            // It reads files of the image: it can do no more than the image's own programs.
            bounding: Some(launch.process.capabilities.bounding),
            optional: true,
        });
    }
    Ok((hooks, owners))
}

fn timeout(hook: &PlannedHook) -> Duration {
    hook.timeout.unwrap_or(PATIENCE).min(LONGEST)
}

/// The state of the container before and after its pid.
fn state(record: &Record, bundle: &Path, status: &str) -> (String, String) {
    // No number and no text of ours looks like this one.
    const PID: &str = "@@pid@@";
    let mut state = json!({
        "ociVersion": OCI_VERSION,
        "id": record.id,
        "status": status,
        "pid": PID,
        "bundle": bundle,
        "annotations": record.spec.annotations,
    });
    let mut text = state.to_string();
    let mark = format!("\"pid\":\"{PID}\"");
    if text.len() > LARGEST_STATE || text.matches(&mark).count() != 1 {
        state["annotations"] = json!({});
        text = state.to_string();
    }
    match text.split_once(&mark) {
        Some((before, after)) => (format!("{before}\"pid\":"), after.to_owned()),
        None => (text, String::new()),
    }
}

/// The configuration as far as hooks look at it. What is in it is no secret: variables that are kept from the disk are
/// not.
fn write_config(dir: &ContainerDir, record: &Record, launch: &LaunchPlan) -> Result<()> {
    let texts = |list: &[Vec<u8>]| -> Vec<String> {
        list.iter()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .collect()
    };
    let env: Vec<String> = record
        .spec
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let config = json!({
        "ociVersion": OCI_VERSION,
        "root": {"path": RootMount::point_of_root(dir.path()), "readonly": launch.root.read_only},
        "hostname": launch.hostname,
        "process": {
            "terminal": launch.process.terminal.is_some(),
            "args": texts(&launch.process.args),
            "env": env,
            "cwd": launch.process.cwd,
        },
        "annotations": record.spec.annotations,
        "linux": {},
    });
    dir.write_file("config.json", &config)
}

/// The host's `ldconfig`, as a program that needs no other file, and what to tell it for these directories.
fn ldconfig(directories: &[PathBuf]) -> Option<(PathBuf, OwnedFd, Vec<String>)> {
    if directories.is_empty() {
        return None;
    }
    let (path, program) = LDCONFIG.iter().find_map(|path| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let program = rustix::fs::open(*path, flags, Mode::empty()).ok()?;
        is_static(&program).then(|| (PathBuf::from(path), program))
    })?;
    // No links are made but the driver's own, and the image's configuration says the rest.
    let mut args: Vec<String> = ["ldconfig", "-X", "-C", CACHE, "-f", "/etc/ld.so.conf"]
        .map(str::to_owned)
        .to_vec();
    args.extend(
        directories
            .iter()
            .map(|directory| directory.display().to_string()),
    );
    let usual = LOADER_DIRECTORIES
        .iter()
        .filter(|usual| !directories.iter().any(|known| known == Path::new(usual)));
    args.extend(usual.map(ToString::to_string));
    Some((path, program, args))
}

/// Whether a file is an ELF program that names no loader (elf(5): no program header of type PT_INTERP).
fn is_static(program: &OwnedFd) -> bool {
    let Ok(file) = program.try_clone().map(File::from) else {
        return false;
    };
    let mut head = [0u8; 64];
    if file.read_exact_at(&mut head, 0).is_err() || head[..5] != *b"\x7fELF\x02" {
        return false;
    }
    let number = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
    let mut offset = [0u8; 8];
    offset.copy_from_slice(&head[32..40]);
    let (offset, size, count) = (u64::from_ne_bytes(offset), number(54), number(56));
    (0..u64::from(count)).all(|index| {
        let mut kind = [0u8; 4];
        let at = offset.saturating_add(index * u64::from(size));
        file.read_exact_at(&mut kind, at).is_ok() && u32::from_ne_bytes(kind) != 3
    })
}

impl OwnersHooks {
    /// How long a launch may take longer because of hooks.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// The end of what the hooks have written.
    pub(crate) fn output(&self) -> String {
        let read = || -> io::Result<String> {
            let Some(output) = &self.output else {
                return Ok(String::new());
            };
            let file = File::from(output.try_clone()?);
            let length = file.metadata()?.len();
            let shown = length.min(SHOWN);
            let mut bytes = vec![0; shown as usize];
            file.read_exact_at(&mut bytes, length - shown)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        match read() {
            Ok(output) if !output.is_empty() => format!("it failed: {output}"),
            _ => "it failed and wrote nothing".to_owned(),
        }
    }

    /// Calls the hooks for a container that is made and whose root is not entered yet.
    ///
    /// # Errors
    /// [`Error::Launch`] for the first that fails.
    pub(crate) fn created(&self, name: &str, pid: i32) -> Result<()> {
        for hook in &self.created {
            self.run(hook, &self.creating, pid)
                .map_err(|source| Error::Launch {
                    what: format!("starting container {name}"),
                    step: Step::Hook,
                    detail: hook.path.display().to_string(),
                    log: Vec::new(),
                    source,
                })?;
        }
        Ok(())
    }

    /// Calls the hooks for a container that runs. One that fails is a warning (OCI runtime specification, "Poststart").
    pub(crate) fn started(&self, pid: i32) -> Vec<String> {
        let failed = |hook: &PlannedHook| {
            let error = self.run(hook, &self.running, pid).err()?;
            Some(format!("{} {}: {error}", Step::Hook.doing(), hook.path.display()))
        };
        self.started.iter().filter_map(failed).collect()
    }

    fn run(&self, hook: &PlannedHook, (before, after): &(String, String), pid: i32) -> io::Result<()> {
        let output = || -> io::Result<Stdio> {
            match &self.output {
                Some(output) => Ok(output.try_clone()?.into()),
                None => Ok(Stdio::null()),
            }
        };
        let env = hook.env.iter().filter_map(|entry| entry.split_once('='));
        let (name, rest) = hook
            .args
            .split_first()
            .map_or(("", &[][..]), |(name, rest)| (name, rest));
        // Written before there is a reader: no hook that reads nothing can raise a signal here.
        let (stdin, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        File::from(ours).write_all(format!("{before}{pid}{after}").as_bytes())?;
        let mut child = Command::new(&hook.path)
            .arg0(name)
            .args(rest)
            .env_clear()
            .envs(env)
            .current_dir(&self.bundle)
            .stdin(stdin)
            .stdout(output()?)
            .stderr(output()?)
            .spawn()?;
        let ended = rustix::process::Pid::from_raw(child.id().cast_signed())
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
            .and_then(|pid| {
                Ok(rustix::process::pidfd_open(
                    pid,
                    rustix::process::PidfdFlags::empty(),
                )?)
            })
            .and_then(|pidfd| wait(&pidfd, Instant::now() + timeout(hook)));
        if !matches!(ended, Ok(true)) {
            // One that has ended meanwhile is what is wanted.
            let _ = child.kill();
        }
        let status = child.wait()?;
        match ended? {
            false => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it did not end in {} s", timeout(hook).as_secs()),
            )),
            true if status.success() => Ok(()),
            true => Err(io::Error::other(format!("{status}: {}", self.output()))),
        }
    }
}

/// Waits for the end of a process; false at the deadline.
fn wait(pidfd: &OwnedFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: left.as_secs() as _,
            tv_nsec: left.subsec_nanos() as _,
        };
        match rustix::event::poll(
            &mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)],
            Some(&left),
        ) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
