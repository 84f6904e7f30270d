//! What is mounted where: docker's own file systems, then the user's mounts and the image's volumes.

use super::{CgroupView, Findings, HostFacts};
use crate::launch::{IdMappings, MountFlags};
use crate::spec::{BindRecursion, ContainerSpec, Mount, MountSource, NamespaceMode};
use crate::warning::Warning;
use rdock_image::ImageConfig;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One mount, its source not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedMount {
    /// Absolute, without `.`, `..` and repeated slashes.
    pub(crate) target: String,
    pub(crate) source: PlannedSource,
    pub(crate) flags: MountFlags,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PlannedSource {
    /// A new instance of a kernel file system.
    FileSystem {
        fstype: &'static str,
        options: Vec<String>,
    },
    /// A directory of the host, as it is, with what is mounted below it.
    Host(&'static str),
    /// Known only once the container has its state.
    Later(LaterSource),
    /// A bind that the user asked for.
    Bind {
        path: PathBuf,
        create: bool,
        propagation: crate::launch::Propagation,
        recursive: bool,
    },
    /// A volume; anonymous when it has no name.
    Volume {
        name: Option<String>,
        no_copy: bool,
        subpath: Option<PathBuf>,
        labels: BTreeMap<String, String>,
    },
    /// Layers of the image store: the spec's mount of that number.
    Layers { number: usize, subpath: Option<PathBuf> },
    /// A tmpfs that the user asked for.
    Tmpfs { options: Vec<String> },
}

/// A source that exists only once the container has its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaterSource {
    /// A file of the container's state directory.
    State(StateFile),
    /// A directory of the container whose ipc namespace is joined.
    OfIpcContainer(&'static str),
    /// The container's view of the version 1 hierarchies.
    CgroupV1,
}

/// A file that the owner writes and the container sees below `/etc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateFile {
    Hosts,
    Hostname,
    ResolvConf,
}

impl StateFile {
    /// Its name, in `/etc` and in the state directory.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Hostname => "hostname",
            Self::ResolvConf => "resolv.conf",
        }
    }
}

/// Docker's masked paths: what they show belongs to the host, or is a side channel.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Docker's read-only paths: writing to them would change the host.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Single files below `/proc` that lxcfs and the like may replace (runc's list).
const PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/uptime",
];

/// Masked and read-only paths; none of either when privileged, or unconfined.
pub(super) fn system_paths(spec: &ContainerSpec, host: &HostFacts) -> (Vec<String>, Vec<String>) {
    if spec.privileged || spec.system_paths_unconfined {
        return (Vec::new(), Vec::new());
    }
    let masked = MASKED
        .iter()
        .map(|path| (*path).to_owned())
        .chain(host.thermal_paths.iter().cloned());
    (
        masked.collect(),
        READ_ONLY.iter().map(|path| (*path).to_owned()).collect(),
    )
}

/// All mounts in the order in which they are made.
pub(super) fn mounts(
    spec: &ContainerSpec,
    image: &ImageConfig,
    host: &HostFacts,
    user_namespace: Option<&IdMappings>,
    findings: &mut Findings,
    warnings: &mut Vec<Warning>,
) -> Vec<PlannedMount> {
    let mut own: Vec<PlannedMount> = Vec::new();
    for (index, mount) in spec.mounts.iter().enumerate() {
        let field = format!("mounts[{index}]");
        let planned = of_spec(index, &field, mount, host, findings);
        if user_namespace.is_some_and(IdMappings::is_single_id) {
            check_owner(&field, &planned, findings);
        }
        if own.iter().any(|other| other.target == planned.target) {
            findings.add(
                format!("{field}.target"),
                format!("{} is mounted twice", planned.target),
            );
        }
        own.push(planned);
    }
    for path in image.config.volumes.keys() {
        let target = clean(path);
        if path.contains('\0') || target == "/" || !path.starts_with('/') {
            findings.add(
                "image.volumes",
                format!("{path:?} is not an absolute path below /"),
            );
        } else if ["/proc", "/sys"].iter().any(|system| is_below(&target, system)) {
            // rt-fake-procfs: an image never replaces the kernel's own views.
            warnings.push(Warning::ImageVolume { path: target });
        } else if !own.iter().any(|other| other.target == target) {
            let source = PlannedSource::Volume {
                name: None,
                no_copy: false,
                subpath: None,
                labels: BTreeMap::new(),
            };
            own.push(PlannedMount {
                target,
                source,
                flags: MountFlags::default(),
            });
        }
    }
    // Parents first; what the user listed first stays first among equals.
    own.sort_by_key(|mount| mount.target.matches('/').count());
    let over_dev = own.iter().any(|mount| mount.target == "/dev");
    let all = defaults(spec, host, user_namespace)
        .into_iter()
        .filter(|default| !own.iter().any(|mount| mount.target == default.target))
        .filter(|default| !(over_dev && default.target.starts_with("/dev/")));
    // Files below /etc go over whatever is mounted there.
    let is_state = |mount: &PlannedMount| matches!(mount.source, PlannedSource::Later(LaterSource::State(_)));
    let (state, mut all): (Vec<_>, Vec<_>) = all.partition(is_state);
    all.extend(own);
    all.extend(state);
    all
}

/// Docker's default mounts.
fn defaults(
    spec: &ContainerSpec,
    host: &HostFacts,
    user_namespace: Option<&IdMappings>,
) -> Vec<PlannedMount> {
    let no_exec = MountFlags {
        no_suid: true,
        no_exec: true,
        no_dev: true,
        ..MountFlags::default()
    };
    let system = MountFlags {
        read_only: !spec.privileged,
        ..no_exec
    };
    let no_dev_limit = MountFlags {
        no_dev: false,
        ..no_exec
    };
    let mount = |target: &str, source, flags| PlannedMount {
        target: target.to_owned(),
        source,
        flags,
    };
    let fs = |fstype, options: &[&str]| PlannedSource::FileSystem {
        fstype,
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    };

    // A procfs of the host's pid namespace may not be mounted from a user namespace; its own may.
    let proc = match (&spec.pid, user_namespace) {
        (NamespaceMode::Host, Some(_)) => PlannedSource::Host("/proc"),
        _ => fs("proc", &[]),
    };
    let mut all = vec![mount("/proc", proc, no_exec)];
    let dev = MountFlags {
        no_suid: true,
        strict_atime: true,
        ..MountFlags::default()
    };
    all.push(mount("/dev", fs("tmpfs", &["mode=755", "size=65536k"]), dev));
    let mut pts = vec!["newinstance", "ptmxmode=0666", "mode=0620"];
    let has_tty_group = |map: &IdMappings| {
        map.gids
            .iter()
            .any(|(inside, _, count)| *inside <= 5 && 5 - inside < *count)
    };
    if user_namespace.is_none_or(has_tty_group) {
        pts.push("gid=5");
    }
    all.push(mount("/dev/pts", fs("devpts", &pts), no_dev_limit));
    all.push(mount("/sys", fs("sysfs", &[]), system));
    let cgroup = match (host.cgroup, &spec.cgroup_namespace) {
        (CgroupView::None, _) => None,
        (_, NamespaceMode::Host) => Some(PlannedSource::Host("/sys/fs/cgroup")),
        (CgroupView::V1, _) => Some(PlannedSource::Later(LaterSource::CgroupV1)),
        (CgroupView::V2, _) => Some(fs("cgroup2", &[])),
    };
    if let Some(source) = cgroup {
        all.push(mount("/sys/fs/cgroup", source, system));
    }
    let shm_size = format!("size={}", spec.shm_size);
    let (mqueue, shm) = match &spec.ipc {
        NamespaceMode::Private => (fs("mqueue", &[]), fs("tmpfs", &["mode=1777", &shm_size])),
        NamespaceMode::Host => (
            PlannedSource::Host("/dev/mqueue"),
            PlannedSource::Host("/dev/shm"),
        ),
        NamespaceMode::Container(_) => (
            fs("mqueue", &[]),
            PlannedSource::Later(LaterSource::OfIpcContainer("/dev/shm")),
        ),
    };
    all.push(mount("/dev/mqueue", mqueue, no_exec));
    if !spec.no_shm {
        all.push(mount("/dev/shm", shm, no_exec));
    }
    for file in [StateFile::ResolvConf, StateFile::Hostname, StateFile::Hosts] {
        if file == StateFile::Hostname && spec.no_hostname_file {
            continue;
        }
        let flags = MountFlags {
            read_only: spec.read_only,
            ..MountFlags::default()
        };
        all.push(mount(
            &format!("/etc/{}", file.name()),
            PlannedSource::Later(LaterSource::State(file)),
            flags,
        ));
    }
    all
}

fn of_spec(
    index: usize,
    field: &str,
    mount: &Mount,
    host: &HostFacts,
    findings: &mut Findings,
) -> PlannedMount {
    let target = check_target(field, mount, findings);
    let mut flags = MountFlags {
        read_only: mount.read_only,
        // mount_setattr(2) with AT_RECURSIVE.
        recursive_read_only: mount.read_only
            && mount.recursion != BindRecursion::Writable
            && host.kernel >= (5, 12),
        ..MountFlags::default()
    };
    check_recursion(field, mount, host, findings);
    let source = match &mount.source {
        MountSource::Bind {
            path,
            create,
            propagation,
        } => {
            if path.as_os_str().is_empty() || has_nul(path) {
                findings.add(format!("{field}.source"), "not a path");
            }
            PlannedSource::Bind {
                path: path.clone(),
                create: *create,
                propagation: propagation_of(field, propagation.as_deref(), findings),
                recursive: mount.recursion != BindRecursion::Disabled,
            }
        }
        MountSource::Volume {
            name,
            no_copy,
            subpath,
        } => {
            if let Some(name) = name
                && !crate::identity::is_name(name)
            {
                findings.add(
                    format!("{field}.source"),
                    format!(
                        "{name:?} is not a volume's name: {}",
                        crate::identity::NAME_GRAMMAR
                    ),
                );
            }
            if let Some(path) = subpath {
                let inside = path
                    .components()
                    .all(|part| matches!(part, std::path::Component::Normal(_)));
                if path.as_os_str().is_empty() || has_nul(path) || !inside {
                    findings.add(format!("{field}.subpath"), "must be relative, without '..'");
                }
            }
            PlannedSource::Volume {
                name: name.clone(),
                no_copy: *no_copy,
                subpath: subpath.clone(),
                labels: mount.volume_labels.clone(),
            }
        }
        // Of an image only the layers are known by the time that it is mounted.
        MountSource::Layers { subpath, .. } | MountSource::Image { subpath, .. } => {
            if let Some(path) = subpath {
                let inside = path
                    .components()
                    .all(|part| matches!(part, std::path::Component::Normal(_)));
                if path.as_os_str().is_empty() || has_nul(path) || !inside {
                    findings.add(format!("{field}.subpath"), "must be relative, without '..'");
                }
            }
            PlannedSource::Layers {
                number: index,
                subpath: subpath.clone(),
            }
        }
        MountSource::Tmpfs { size, mode, options } => {
            flags.recursive_read_only = false;
            flags = MountFlags {
                no_suid: true,
                no_dev: true,
                no_exec: true,
                ..flags
            };
            PlannedSource::Tmpfs {
                options: tmpfs_options(field, *size, *mode, options, &mut flags, findings),
            }
        }
    };
    PlannedMount {
        target,
        source,
        flags,
    }
}

fn check_target(field: &str, mount: &Mount, findings: &mut Findings) -> String {
    let field = format!("{field}.target");
    let target = clean(&mount.target);
    if !mount.target.starts_with('/') || mount.target.contains('\0') {
        findings.add(field, format!("{:?} is not an absolute path", mount.target));
    } else if target == "/" {
        findings.add(field, "cannot be the root of the container");
    } else if is_below(&target, "/proc") {
        let of_host = matches!(&mount.source, MountSource::Bind { path, .. } if clean(&path.to_string_lossy()) == "/proc");
        let allowed = PROC_FILES.contains(&target.as_str()) || (target == "/proc" && of_host);
        if !allowed {
            findings.add(
                field,
                format!("{target} is in /proc, where nothing can be mounted"),
            );
        }
    }
    target
}

/// Whether the mounts below a bind can be what they are to be.
fn check_recursion(field: &str, mount: &Mount, host: &HostFacts, findings: &mut Findings) {
    let field_of = |name: &str| format!("{field}.{name}");
    if !mount.recursion.is_default() && !matches!(mount.source, MountSource::Bind { .. }) {
        findings.add(field_of("recursion"), "only a bind has mounts below it");
    }
    match mount.recursion {
        BindRecursion::Writable | BindRecursion::ReadOnly if !mount.read_only => {
            findings.add(field_of("recursion"), "it is for a bind that is read-only");
        }
        BindRecursion::ReadOnly if host.kernel < (5, 12) => findings.add(
            field_of("recursion"),
            "mounts below a bind can be made read-only from Linux 5.12 on",
        ),
        _ => {}
    }
    if !mount.volume_labels.is_empty() && !matches!(mount.source, MountSource::Volume { .. }) {
        findings.add(field_of("volume_labels"), "only a volume has labels");
    }
}

fn propagation_of(field: &str, text: Option<&str>, findings: &mut Findings) -> crate::launch::Propagation {
    use crate::launch::Propagation;
    match text {
        None | Some("private" | "rprivate") => Propagation::Private,
        Some("slave" | "rslave") => Propagation::Slave,
        Some("shared" | "rshared") => Propagation::Shared,
        Some(other) => {
            findings.add(
                format!("{field}.propagation"),
                format!("{other:?} is none of private, rprivate, slave, rslave, shared, rshared"),
            );
            Propagation::Private
        }
    }
}

/// The same for the options of a volume in memory; what is wrong with the first bad one otherwise.
pub(crate) fn volume_in_memory(options: &[String]) -> Result<(Vec<String>, MountFlags), String> {
    let (mut flags, mut findings) = (MountFlags::default(), Findings::default());
    let data = tmpfs_options("o", None, None, options, &mut flags, &mut findings);
    match findings.into_first() {
        Some(finding) => Err(finding.reason),
        None => Ok((data, flags)),
    }
}

/// The options that tmpfs(5) itself takes; flags go into `flags`. Later ones win, as in docker.
fn tmpfs_options(
    field: &str,
    size: Option<u64>,
    mode: Option<u32>,
    options: &[String],
    flags: &mut MountFlags,
    findings: &mut Findings,
) -> Vec<String> {
    let field = format!("{field}.options");
    if mode.is_some_and(|mode| mode > 0o7777) {
        findings.add(&field, "the mode is beyond 7777");
    }
    let mut data = Vec::new();
    if let Some(mode) = mode {
        data.push(("mode", format!("{mode:o}")));
    }
    if let Some(size) = size {
        data.push(("size", size.to_string()));
    }
    for option in options {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option.as_str(), None),
        };
        let decimal = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let quantity = |text: &str| {
            decimal(
                text.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G', '%'])
                    .unwrap_or(text),
            )
        };
        let valid = match (name, value) {
            ("ro", None) => set(&mut flags.read_only, true),
            ("rw", None) => set(&mut flags.read_only, false),
            ("nosuid", None) => set(&mut flags.no_suid, true),
            ("suid", None) => set(&mut flags.no_suid, false),
            ("nodev", None) => set(&mut flags.no_dev, true),
            ("dev", None) => set(&mut flags.no_dev, false),
            ("noexec", None) => set(&mut flags.no_exec, true),
            ("exec", None) => set(&mut flags.no_exec, false),
            ("strictatime", None) => set(&mut flags.strict_atime, true),
            // What a tmpfs does anyway.
            ("relatime" | "defaults" | "async" | "atime" | "diratime" | "private" | "rprivate", None) => true,
            ("size" | "nr_blocks" | "nr_inodes", Some(value)) if quantity(value) => {
                put(&mut data, name, value)
            }
            ("uid" | "gid", Some(value)) if decimal(value) && value.parse::<u32>().is_ok() => {
                put(&mut data, name, value)
            }
            ("mode", Some(value)) if u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777) => {
                put(&mut data, name, value)
            }
            _ => false,
        };
        if !valid {
            findings.add(&field, format!("{option:?} is not an option of a tmpfs"));
        }
    }
    data.into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// A tmpfs cannot belong to an id that does not exist.
fn check_owner(field: &str, mount: &PlannedMount, findings: &mut Findings) {
    let PlannedSource::Tmpfs { options } = &mount.source else {
        return;
    };
    let owner = |option: &&String| {
        option
            .strip_prefix("uid=")
            .or(option.strip_prefix("gid="))
            .is_some_and(|id| id.parse() != Ok(0))
    };
    if let Some(option) = options.iter().find(owner) {
        findings.add(
            format!("{field}.options"),
            format!("{option}: without root and subordinate ids the container has id 0 alone"),
        );
    }
}

fn set(flag: &mut bool, value: bool) -> bool {
    *flag = value;
    true
}

fn put<'a>(data: &mut Vec<(&'a str, String)>, name: &'a str, value: &str) -> bool {
    data.retain(|(known, _)| *known != name);
    data.push((name, value.to_owned()));
    true
}

fn has_nul(path: &std::path::Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&0)
}

/// Whether `path` is `parent` or something below it; both clean.
fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// An absolute path without `.`, `..`, repeated and trailing slashes, by text alone; `/` for nothing.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
