//! A launch plan as the flat buffer that the helper walks: the order of operations is decided here.

mod writer;

use super::wire::{bind, file_system, hook, op, overlay};
use super::*;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use writer::Writer;

const RDONLY: u32 = 0x01;
const NOSUID: u32 = 0x02;
const NODEV: u32 = 0x04;
const NOEXEC: u32 = 0x08;
const STRICTATIME: u32 = 0x20;

const NEWNS: u64 = 0x0002_0000;
const NEWCGROUP: u64 = 0x0200_0000;
const NEWUTS: u64 = 0x0400_0000;
const NEWIPC: u64 = 0x0800_0000;
const NEWPID: u64 = 0x2000_0000;
const NEWNET: u64 = 0x4000_0000;

/// What goes to the helper.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    /// The plan's descriptors; index 0 is the plan itself on the wire.
    pub(super) fds: Vec<OwnedFd>,
}

/// Encodes a plan. `fds` in the result are the plan's, in the order in which the operations name them.
pub(super) fn launch(plan: LaunchPlan) -> io::Result<Encoded> {
    let mut fds: Vec<OwnedFd> = Vec::new();
    let mut hold = |fd: OwnedFd| {
        fds.push(fd);
        // Index 0 is the plan.
        fds.len() as u32
    };
    let (mut before, mut inside, mut after) = (Writer::default(), Writer::default(), Writer::default());
    before.u32(op::LOCK).path(&plan.state_dir.join("lock"));
    if let Some(owner) = plan.owner {
        before.u32(op::OWNER).u32(hold(owner));
    }
    if let Some(adopt) = plan.adopt {
        before
            .u32(op::ADOPT)
            .u32(hold(adopt.reunion))
            .u32(hold(adopt.status));
        let kept: Vec<u32> = adopt.stdio.into_iter().map(&mut hold).collect();
        before
            .u32(kept.first().copied().unwrap_or(0))
            .u32(kept.len() as u32);
    }
    let mut flags = NEWNS;
    let mut joined: Vec<(u32, u64)> = Vec::new();
    match plan.pid {
        NamespacePlan::New => flags |= NEWPID,
        NamespacePlan::Host => {}
        NamespacePlan::Join(fd) => {
            // Membership in a pid namespace is decided at clone.
            before.u32(op::JOIN).u32(hold(fd)).u64(NEWPID);
        }
    }
    let mut own_cgroup_view = false;
    for (namespace, kind) in [
        (plan.ipc, NEWIPC),
        (plan.uts, NEWUTS),
        (plan.cgroup_namespace, NEWCGROUP),
    ] {
        match namespace {
            // Its root is where the process is when it is made: after it has joined its groups.
            NamespacePlan::New if kind == NEWCGROUP => own_cgroup_view = true,
            NamespacePlan::New => flags |= kind,
            NamespacePlan::Host => {}
            NamespacePlan::Join(fd) => joined.push((hold(fd), kind)),
        }
    }
    let mut own_network = true;
    let mut bridged = None;
    match plan.network {
        NetworkPlan::None => flags |= NEWNET,
        NetworkPlan::Host => own_network = false,
        NetworkPlan::Join(fd) => {
            own_network = false;
            joined.push((hold(fd), NEWNET));
        }
        NetworkPlan::Kept { network, payload } => {
            own_network = false;
            before.u32(op::NETWORK).u32(hold(network) + 1);
            joined.push((hold(payload), NEWNET));
        }
        NetworkPlan::Bridged(mut network) => {
            flags |= NEWNET;
            match network.join.take() {
                Some(fd) => {
                    before.u32(op::NETWORK).u32(hold(fd) + 1);
                }
                None => {
                    before.u32(op::NETWORK).u32(0);
                    for message in &network.setup {
                        before.u32(op::NETLINK).u32(0).blob(message);
                    }
                    for (path, value) in &network.setup_sysctls {
                        before
                            .u32(op::HOST_SYSCTL)
                            .text(format!("/proc/sys/{path}"))
                            .text(value);
                    }
                    if !network.setup_nft.is_empty() {
                        before.u32(op::NETLINK).u32(12).blob(&network.setup_nft);
                    }
                    before.u32(op::NETWORK_MADE);
                }
            }
            for message in &network.attach {
                let at = message.payload_namespace_at.map_or(0, |at| at as u32 + 1);
                after
                    .u32(op::ATTACH)
                    .blob(&message.bytes)
                    .u32(at)
                    .u32(message.protocol);
            }
            bridged = Some(network);
        }
    }
    let cgroup = plan.cgroup_dir.map(&mut hold).unwrap_or(0);
    before
        .u32(op::CLONE)
        .u64(flags)
        .u32(if cgroup == 0 { 0 } else { cgroup + 1 })
        .u32(op::END);
    after.u32(op::END);

    for procs in plan.cgroup_procs {
        inside.u32(op::JOIN_CGROUP).u32(hold(procs));
    }
    if own_cgroup_view {
        inside.u32(op::UNSHARE).u64(NEWCGROUP);
    }
    for (fd, kind) in joined {
        inside.u32(op::JOIN).u32(fd).u64(kind);
    }
    if let Some(name) = &plan.hostname {
        inside.u32(op::HOSTNAME).text(name);
    }
    if let Some(name) = &plan.domainname {
        inside.u32(op::DOMAINNAME).text(name);
    }
    let propagates = plan.mounts.iter().any(
        |mount| matches!(&mount.kind, MountKind::Bind(bind) if bind.propagation != Propagation::Private),
    );
    inside.u32(op::PRIVATE).u32(propagates.into());
    root(&mut inside, &plan.root, &plan.state_dir)?;
    for mount in &plan.mounts {
        match &mount.kind {
            MountKind::OfContainer { mounts, path } => {
                inside.u32(op::MOUNT_OF).u32(hold(mounts.try_clone()?)).path(path);
                inside.path(&mount.target).u32(attributes(mount.flags));
            }
            _ => self::mount(&mut inside, mount, plan.user_namespace.is_some()),
        }
        if mount.target == Path::new("/dev") && !matches!(mount.kind, MountKind::Bind(_)) {
            devices(&mut inside, &plan.devices, plan.user_namespace.is_some());
        }
    }
    device_nodes(&mut inside, &plan.own_devices, plan.user_namespace.is_some());
    for secret in &plan.secrets {
        // Nothing is taken from the state directory any more, and it is not seen from inside.
        inside
            .u32(op::SECRET)
            .path(&plan.state_dir)
            .path(&secret.target)
            .u32(secret.uid)
            .u32(secret.gid)
            .u32(secret.mode)
            .blob(&secret.content);
    }
    if own_network {
        if let Some(network) = &bridged {
            inside.u32(op::NETWORK_WAIT);
            for (path, value) in &network.configure_sysctls {
                inside
                    .u32(op::SYSCTL)
                    .text(format!("/proc/sys/{path}"))
                    .text(value);
            }
            for message in &network.configure {
                inside.u32(op::NETLINK).u32(0).blob(message);
            }
            if !network.configure_nft.is_empty() {
                inside.u32(op::NETLINK).u32(12).blob(&network.configure_nft);
            }
        } else {
            inside.u32(op::LOOPBACK_UP);
        }
    }
    for (name, value) in &plan.sysctls {
        inside
            .u32(op::SYSCTL)
            .text(format!("/proc/sys/{}", name.replace('.', "/")))
            .text(value);
    }
    for link in &plan.links {
        inside.u32(op::LINK).path(&link.path).path(&link.target);
    }
    if plan.hooks.pause {
        inside.u32(op::PAUSE);
    }
    let output = plan.hooks.output.map_or(0, &mut hold);
    for hook in plan.hooks.before_root {
        self::hook(&mut inside, hook, output, &mut hold);
    }
    for path in &plan.readonly_paths {
        inside.u32(op::READONLY).text(path);
    }
    for path in &plan.masked_paths {
        inside.u32(op::MASK).text(path);
    }
    inside.u32(op::PIVOT);
    for hook in plan.hooks.inside {
        self::hook(&mut inside, hook, output, &mut hold);
    }
    if let Some(stdio) = plan.stdio {
        let [first, second, third] = stdio.map(&mut hold);
        debug_assert!(second == first + 1 && third == first + 2);
        inside.u32(op::STDIO).u32(first);
    }
    process(&mut inside, &plan.process, true, plan.root.read_only, plan.hold);
    for hook in plan.hooks.before_exec {
        self::hook(&mut inside, hook, output, &mut hold);
    }
    self::exec_op(&mut inside, &plan.process, plan.init);
    inside.u32(op::END);
    let mut all = Writer::default();
    for part in [&before, &inside, &after] {
        part.finish()?;
        all.blob(&part.bytes);
    }
    all.finish()?;
    Ok(Encoded {
        bytes: all.bytes,
        fds,
    })
}

/// Encodes a look at a container's files.
pub(super) fn view(plan: ViewPlan) -> io::Result<Encoded> {
    let mut fds: Vec<OwnedFd> = Vec::new();
    let mut hold = |fd: OwnedFd| {
        fds.push(fd);
        fds.len() as u32
    };
    let (mut before, mut inside, mut after) = (Writer::default(), Writer::default(), Writer::default());
    if plan.lock {
        before.u32(op::LOCK).path(&plan.state_dir.join("lock"));
    }
    before.u32(op::OWNER).u32(hold(plan.owner));
    let joins = !plan.join.is_empty();
    before.u32(op::CLONE).u64(if joins { 0 } else { NEWNS }).u32(0);
    before.u32(op::END);
    after.u32(op::END);
    for (fd, kind) in plan.join {
        inside.u32(op::JOIN).u32(hold(fd)).u64(kind);
    }
    if !joins {
        inside.u32(op::PRIVATE).u32(0);
        root(&mut inside, &plan.root, &plan.state_dir)?;
        for mount in &plan.mounts {
            self::mount(&mut inside, mount, plan.user_namespace.is_some());
        }
    }
    inside.u32(op::SHARE_ROOT).u32(plan.bare.into()).u32(op::END);
    let mut all = Writer::default();
    for part in [&before, &inside, &after] {
        part.finish()?;
        all.blob(&part.bytes);
    }
    all.finish()?;
    Ok(Encoded {
        bytes: all.bytes,
        fds,
    })
}

/// Encodes a process that exec adds; its three descriptors, if any, follow the operations, and then those of
/// the `groups` control groups that it joins.
pub(super) fn exec(plan: &ProcessPlan, stdio: bool, groups: usize) -> io::Result<Vec<u8>> {
    let mut writer = Writer::default();
    writer
        .u32(op::ENTER)
        .u64(NEWNS | NEWPID | NEWNET | NEWUTS | NEWIPC | NEWCGROUP);
    let first = if stdio { 4 } else { 1 };
    for group in 0..groups as u32 {
        writer.u32(op::JOIN_CGROUP).u32(first + group);
    }
    if stdio {
        writer.u32(op::STDIO).u32(1);
    }
    process(&mut writer, plan, false, false, false);
    exec_op(&mut writer, plan, false);
    writer.u32(op::END).finish()?;
    Ok(writer.bytes)
}

fn root(writer: &mut Writer, root: &RootPlan, state_dir: &Path) -> io::Result<()> {
    for RootMount { point, mount } in &root.mounts {
        match mount {
            rdock_image::Mount::Overlay {
                lower,
                upper,
                work,
                volatile,
                userxattr,
                ..
            } => {
                let point = point
                    .clone()
                    .unwrap_or_else(|| RootMount::point_of_root(state_dir));
                let flags = if *volatile { overlay::VOLATILE } else { 0 }
                    | if *userxattr { overlay::USERXATTR } else { 0 }
                    | if root.no_devices { overlay::NO_DEVICES } else { 0 };
                writer
                    .u32(op::OVERLAY)
                    .path(&point)
                    .path(upper)
                    .path(work)
                    .u32(flags)
                    .u32(lower.len() as u32);
                for path in lower {
                    writer.path(path);
                }
            }
            other => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("{other:?} cannot be a root here"),
                ));
            }
        }
    }
    Ok(())
}

fn attributes(flags: MountFlags) -> u32 {
    let MountFlags {
        read_only,
        no_suid,
        no_dev,
        no_exec,
        strict_atime,
        recursive_read_only: _,
    } = flags;
    [
        (read_only, RDONLY),
        (no_suid, NOSUID),
        (no_dev, NODEV),
        (no_exec, NOEXEC),
        (strict_atime, STRICTATIME),
    ]
    .into_iter()
    .fold(0, |all, (set, flag)| if set { all | flag } else { all })
}

fn mount(writer: &mut Writer, mount: &MountPlan, user_namespace: bool) {
    let given = attributes(mount.flags);
    match &mount.kind {
        MountKind::FileSystem { fstype, options } => {
            let mut flags = 0;
            if ["/proc", "/sys", "/dev"]
                .iter()
                .any(|path| mount.target == Path::new(path))
            {
                flags |= file_system::NO_SYMLINKS;
            }
            // Views that a container without the namespace they belong to may not mount.
            let host = match *fstype {
                "sysfs" => "/sys",
                "mqueue" => "/dev/mqueue",
                "cgroup2" => "/sys/fs/cgroup",
                _ => "",
            };
            if user_namespace && !host.is_empty() {
                flags |= file_system::OR_BIND;
            }
            if matches!(*fstype, "mqueue" | "cgroup2") {
                flags |= file_system::OPTIONAL;
            }
            file_system_op(writer, fstype, &mount.target, given, flags, host, options);
        }
        MountKind::Tmpfs { options, copy_up } => {
            let mut flags = if *copy_up { file_system::COPY_UP } else { 0 };
            if !options.iter().any(|option| option.starts_with("mode=")) {
                flags |= file_system::KEEP_MODE;
            }
            file_system_op(writer, "tmpfs", &mount.target, given, flags, "", options);
        }
        // Needs a descriptor, which only a launch has.
        MountKind::OfContainer { .. } => {}
        MountKind::CgroupV1 { hierarchies } => {
            cgroup_v1(writer, &mount.target, given, hierarchies, user_namespace)
        }
        MountKind::Bind(plan) => {
            let mut flags = if plan.recursive { bind::RECURSIVE } else { 0 };
            flags |= if plan.copy_up.is_some() { bind::COPY_UP } else { 0 };
            flags |= if mount.flags.recursive_read_only {
                bind::RECURSIVE_READ_ONLY
            } else {
                0
            };
            let propagation = match plan.propagation {
                Propagation::Private => 0,
                Propagation::Slave => 1,
                Propagation::Shared => 2,
            };
            writer
                .u32(op::BIND)
                .path(&plan.source)
                .path(&mount.target)
                .u64(plan.expect.0)
                .u64(plan.expect.1);
            writer.u32(given).u32(flags).u32(propagation);
            writer.path(plan.subpath.as_deref().unwrap_or(Path::new("")));
            writer.path(plan.copy_up.as_deref().unwrap_or(Path::new("")));
        }
    }
}

fn file_system_op(
    writer: &mut Writer,
    fstype: &str,
    target: &Path,
    attributes: u32,
    flags: u32,
    host: &str,
    options: &[String],
) {
    writer
        .u32(op::FILE_SYSTEM)
        .text(fstype)
        .path(target)
        .u32(attributes)
        .u32(flags)
        .text(host)
        .texts(options);
}

/// The payload's own view: with its cgroup namespace each hierarchy's root is its own cgroup.
fn cgroup_v1(
    writer: &mut Writer,
    target: &Path,
    given: u32,
    hierarchies: &[std::path::PathBuf],
    user_namespace: bool,
) {
    let options = ["mode=755".to_owned(), "size=64k".to_owned()];
    file_system_op(writer, "tmpfs", target, given & !RDONLY, 0, "", &options);
    for hierarchy in hierarchies {
        let Some(name) = hierarchy
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
        else {
            continue;
        };
        let options = match name.as_str() {
            "systemd" => vec!["none".to_owned(), "name=systemd".to_owned()],
            "unified" => Vec::new(),
            controllers => controllers.split(',').map(str::to_owned).collect(),
        };
        let kind = if name == "unified" { "cgroup2" } else { "cgroup" };
        let mut flags = file_system::OPTIONAL;
        if user_namespace {
            flags |= file_system::OR_BIND;
        }
        let host = hierarchy.to_string_lossy().into_owned();
        file_system_op(writer, kind, &target.join(&name), given, flags, &host, &options);
    }
    if given & RDONLY != 0 {
        // The directory of the views too, now that they have their places in it.
        writer.u32(op::READONLY).path(target);
    }
}

fn device_nodes(writer: &mut Writer, devices: &[DevicePlan], user_namespace: bool) {
    for device in devices {
        let kind = match device.kind {
            'b' => 0o060000,
            'p' => 0o010000,
            _ => 0o020000,
        };
        writer
            .u32(op::DEVICE)
            .path(&device.path)
            .path(&device.source)
            .u32(kind | device.mode)
            .u32(device.major)
            .u32(device.minor);
        writer.u32(device.uid).u32(device.gid).u32(user_namespace.into());
    }
}

/// What is in a `/dev` of the container's own.
fn devices(writer: &mut Writer, devices: &[DevicePlan], user_namespace: bool) {
    device_nodes(writer, devices, user_namespace);
    for (path, target) in [
        ("/dev/ptmx", "pts/ptmx"),
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/core", "/proc/kcore"),
    ] {
        writer.u32(op::SYMLINK).text(path).text(target);
    }
}

fn hook(writer: &mut Writer, hook: HookPlan, output: u32, mut hold: impl FnMut(OwnedFd) -> u32) {
    writer
        .u32(op::HOOK)
        .u32(if hook.optional { hook::OPTIONAL } else { 0 })
        .path(&hook.path)
        .u32(hook.program.map_or(0, |program| hold(program) + 1))
        .path(&hook.directory)
        .u64(hook.bounding.unwrap_or(u64::MAX))
        .u64(u64::try_from(hook.timeout.as_millis()).unwrap_or(u64::MAX >> 1))
        .u32(output)
        .blob(hook.input.0.as_bytes())
        .blob(hook.input.1.as_bytes())
        .texts(&hook.args)
        .texts(&hook.env);
}

/// From inside the root to what is executed.
fn process(writer: &mut Writer, plan: &ProcessPlan, payload: bool, read_only_root: bool, hold: bool) {
    for (resource, soft, hard) in &plan.rlimits {
        writer.u32(op::RLIMIT).u32(*resource).u64(*soft).u64(*hard);
    }
    if let Some(score) = plan.oom_score_adj {
        writer.u32(op::OOM_SCORE).text(score.to_string());
    }
    if let Some(size) = plan.terminal {
        writer
            .u32(op::TERMINAL)
            .u32(size.rows.into())
            .u32(size.columns.into())
            .u32(payload.into());
    }
    writer
        .u32(op::USER)
        .text(&plan.user)
        .texts(&plan.additional_groups);
    writer
        .u32(op::DIRECTORY_WORKING)
        .path(&plan.cwd)
        .u32(plan.make_cwd.into());
    if read_only_root {
        writer.u32(op::READONLY_ROOT);
    }
    if hold {
        writer.u32(op::HOLD);
    }
    // Without no_new_privs a filter takes CAP_SYS_ADMIN, which goes with the credentials.
    if !plan.seccomp.is_empty() && !plan.no_new_privileges {
        writer.u32(op::SECCOMP).blob(&plan.seccomp);
    }
    let sets = plan.capabilities;
    writer
        .u32(op::CREDENTIALS)
        .u64(sets.bounding)
        .u64(sets.permitted)
        .u64(sets.effective)
        .u64(sets.ambient);
    if plan.no_new_privileges {
        writer.u32(op::NO_NEW_PRIVILEGES);
        if !plan.seccomp.is_empty() {
            writer.u32(op::SECCOMP).blob(&plan.seccomp);
        }
    }
    writer.u32(op::UMASK).u32(plan.umask.unwrap_or(0o022));
}

fn exec_op(writer: &mut Writer, plan: &ProcessPlan, init: bool) {
    writer
        .u32(op::EXEC)
        .u32(init.into())
        .texts(&plan.args)
        .texts(&plan.env);
}
