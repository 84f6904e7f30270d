//! From what the user wrote to what will be done: every default filled in, everything validated.
//!
//! [`plan()`] is pure: the same spec, image config and host facts give the same [`Planned`], which can be
//! printed. It reports all findings at once. What needs the host's file system (sources of binds, volumes)
//! happens in [`Planned::prepare_mounts`], what needs descriptors in [`Planned::into_launch`].

pub(crate) mod devices;
mod health;
mod host;
mod identity;
mod launch;
mod limits;
mod mounts;
mod network;
mod prepare;
mod process;
mod secrets;
mod settings;
mod show;
#[cfg(test)]
mod tests;

pub(crate) use health::HealthPlan;
pub(crate) use host::{CgroupView, HostFacts};
pub(crate) use launch::{NamespaceKind, Places};
pub(crate) use mounts::{LaterSource, PlannedMount, PlannedSource, volume_in_memory};
pub(crate) use prepare::{PreparedMounts, bind};

use crate::launch::{DevicePlan, IdMappings, ProcessPlan};
use crate::spec::{ContainerSpec, EndpointSpec, NamespaceMode, NetworkMode, PortMapping, Seccomp};
use crate::warning::Warning;
use rdock_image::{ImageConfig, SnapshotOptions};
use std::fmt;

/// Why a container spec cannot be run: everything that was found, not only the first thing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanError {
    /// At least one.
    pub findings: Vec<Finding>,
}

/// One thing that is wrong with a container spec, or with the image it names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The field of [`ContainerSpec`], with an index or key where it is a list (`mounts[1].target`), or
    /// `image.` and the field of the image config.
    pub field: String,
    /// What is wrong with it, in words.
    pub reason: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the container cannot be run as asked: ")?;
        for (index, finding) in self.findings.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanError {}

/// Collects what is wrong; planning goes on with a harmless value in its place.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(Finding {
            field: field.into(),
            reason: reason.into(),
        });
    }

    fn into_first(self) -> Option<Finding> {
        self.0.into_iter().next()
    }
}

/// Which container is planned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// 64 hexadecimal digits; the first 12 are the default host name.
    pub(crate) id: &'a str,
    /// It outlives the program: its upper directory must survive a crash of the machine.
    pub(crate) detached: bool,
}

/// A validated container, as plain data without descriptors.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) id: String,
    /// What runs, for people: entry point and arguments.
    pub(crate) command: Vec<String>,
    pub(crate) process: ProcessPlan,
    /// `None` when the filter is that of [`ProcessPlan::seccomp`] already, or none.
    pub(crate) seccomp: Seccomp,
    pub(crate) user_namespace: Option<IdMappings>,
    pub(crate) pid: NamespaceMode,
    pub(crate) ipc: NamespaceMode,
    pub(crate) uts: NamespaceMode,
    pub(crate) cgroup_namespace: NamespaceMode,
    pub(crate) network: NetworkMode,
    /// What is joined with [`NetworkMode::Default`], `eth0` first.
    pub(crate) networks: Vec<EndpointSpec>,
    /// `None` when the host's or another container's uts namespace is used.
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) root_read_only: bool,
    /// How to make the snapshot that becomes the root.
    pub(crate) snapshot: SnapshotOptions,
    /// Docker's own first, then the user's and the image's by depth, the files below `/etc` last.
    pub(crate) mounts: Vec<PlannedMount>,
    pub(crate) devices: Vec<DevicePlan>,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) readonly_paths: Vec<String>,
    pub(crate) sysctls: Vec<(String, String)>,
    /// Empty with the host's network.
    pub(crate) ports: Vec<PortMapping>,
    pub(crate) stop_signal: i32,
    pub(crate) health: Option<HealthPlan>,
    pub(crate) init: bool,
    /// What will not be as asked, although the container runs.
    pub(crate) warnings: Vec<Warning>,
}

/// Plans a container.
///
/// # Errors
/// All findings about the spec and the image config.
pub(crate) fn plan(
    subject: Subject<'_>,
    spec: &ContainerSpec,
    image: &ImageConfig,
    host: &HostFacts,
) -> Result<Planned, PlanError> {
    let mut findings = Findings::default();
    let planned = all(subject, spec, image, host, &mut findings);
    if findings.0.is_empty() {
        Ok(planned)
    } else {
        Err(PlanError { findings: findings.0 })
    }
}

/// Checks a spec without its image.
///
/// # Errors
/// All findings that do not depend on the image.
pub(crate) fn check(spec: &ContainerSpec, host: &HostFacts) -> Result<(), PlanError> {
    let id = "0".repeat(64);
    let mut image = ImageConfig::default();
    // An image may bring a command; whether it does is only known with it.
    image.config.cmd = Some(vec!["unknown".into()]);
    // And so with a health check.
    image.config.healthcheck = Some(rdock_image::Healthcheck {
        test: vec!["CMD".into(), "unknown".into()],
        ..Default::default()
    });
    let mut spec = spec.clone();
    if spec.entrypoint.as_ref().is_some_and(Vec::is_empty) && spec.args.is_empty() {
        spec.args.push("unknown".into());
    }
    plan(
        Subject {
            id: &id,
            // How it will be started is not known yet.
            detached: true,
        },
        &spec,
        &image,
        host,
    )
    .map(|_| ())
}

fn all(
    subject: Subject<'_>,
    spec: &ContainerSpec,
    image: &ImageConfig,
    host: &HostFacts,
    findings: &mut Findings,
) -> Planned {
    let mut warnings = Vec::new();
    let less_than_all = spec
        .devices
        .iter()
        .any(|device| device.access != crate::spec::DeviceAccess::ALL);
    if host.is_rootless() && (less_than_all || !spec.device_rules.is_empty()) {
        warnings.push(Warning::DeviceAccessNotEnforced);
    }
    identity::check(subject, spec, findings);
    settings::lifetime(subject, spec, findings);
    settings::check(spec, host, findings);
    network::check_resolver(spec, findings);
    let user_namespace = settings::user_namespace(spec, host, findings);
    let single_id = user_namespace.as_ref().is_some_and(IdMappings::is_single_id);
    let names = identity::names(subject, spec, host, findings);
    let command = process::command(spec, image, findings);
    let available = if user_namespace.is_some() {
        host.capabilities_inside
    } else {
        host.capabilities
    };
    let capabilities = crate::capabilities::resolve(spec, available);
    for (field, name) in capabilities.unknown {
        findings.add(field, format!("{name:?} is not a capability"));
    }
    warnings.extend(capabilities.warnings);
    let hostname = &names.environment_hostname;
    let mut process = process::process(
        spec,
        image,
        &command,
        hostname,
        single_id,
        findings,
        &mut warnings,
    );
    process.capabilities = capabilities.sets;
    process.terminal = spec.terminal.then_some(host.terminal);
    let seccomp = if spec.privileged {
        Seccomp::Unconfined
    } else {
        spec.seccomp.clone()
    };
    let (masked_paths, readonly_paths) = mounts::system_paths(spec, host);
    let mut ports = settings::ports(spec, findings, &mut warnings);
    ports.extend(network::exposed(spec, image, &ports));
    let mounts = mounts::mounts(
        spec,
        image,
        host,
        user_namespace.as_ref(),
        findings,
        &mut warnings,
    );
    secrets::check(spec, &mounts, single_id, findings);
    Planned {
        id: subject.id.to_owned(),
        process,
        seccomp,
        pid: spec.pid.clone(),
        ipc: spec.ipc.clone(),
        uts: spec.uts.clone(),
        cgroup_namespace: spec.cgroup_namespace.clone(),
        network: spec.network.clone(),
        networks: network::networks(spec, findings),
        hostname: names.hostname,
        domainname: names.domainname,
        root_read_only: spec.read_only,
        snapshot: SnapshotOptions {
            volatile: !subject.detached,
            user_namespace: user_namespace.is_some(),
        },
        mounts,
        devices: devices::devices(spec, host),
        masked_paths,
        readonly_paths,
        sysctls: settings::sysctls(spec, user_namespace.is_some(), findings),
        ports,
        stop_signal: settings::stop_signal(spec, image, findings),
        health: health::health(spec, image, findings),
        init: spec.init,
        command,
        user_namespace,
        warnings,
    }
}

/// CAP_MKNOD as a mask.
pub(crate) const MKNOD: u64 = 1 << 27;

/// The ids of a container of this spec, when it has a user namespace.
pub(crate) fn id_mappings(spec: &ContainerSpec) -> Option<IdMappings> {
    // They were checked when the container was started.
    settings::user_namespace(spec, &HostFacts::gather(false), &mut Findings::default())
}

impl IdMappings {
    /// Whether only one user and one group exist inside.
    pub(crate) fn is_single_id(&self) -> bool {
        let single = |maps: &[(u32, u32, u32)]| matches!(maps, [(_, _, 1)]);
        single(&self.uids) && single(&self.gids)
    }
}

/// The user namespace of a caller without privilege: the caller's own ids as 0, nothing else.
fn single_id(uid: u32, gid: u32) -> IdMappings {
    IdMappings {
        uids: vec![(0, uid, 1)],
        gids: vec![(0, gid, 1)],
        deny_setgroups: true,
    }
}
