//! What a container gets by the devices it wants.

use super::CdiError;
use super::file::{DeviceNode, Edits, Hook, MountEntry};
use super::registry::{Described, Registry};
use crate::launch::{DevicePlan, LinkPlan, MountFlags, MountKind, MountPlan, Propagation};
use crate::plan;
use crate::spec::{CdiDevice, DeviceAccess};
use crate::warning::Warning;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Edits of one container, in the order in which they are applied.
#[derive(Debug, Default)]
pub(crate) struct Edited {
    /// A later value of a name takes the place of an earlier one.
    pub(crate) env: Vec<(String, String)>,
    /// A later one takes the place of an earlier one of its path.
    pub(crate) devices: Vec<(DevicePlan, DeviceAccess)>,
    /// Likewise.
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) hooks: Vec<PlannedHook>,
    /// More groups of the payload.
    pub(crate) groups: Vec<u32>,
    pub(crate) links: Vec<LinkPlan>,
    /// Directories with libraries for the container's loader.
    pub(crate) libraries: Vec<PathBuf>,
    pub(crate) warnings: Vec<Warning>,
    /// Whose edits are in it.
    done: Vec<CdiDevice>,
    /// Files whose common edits are in it.
    files: Vec<PathBuf>,
}

/// When and where a hook is called (OCI runtime specification, "POSIX-platform Hooks").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookPlace {
    /// In the runtime's namespaces, once the container's are there and before its root is entered: `prestart`,
    /// `createRuntime`.
    Runtime,
    /// In the container's namespaces, before its root is entered: `createContainer`.
    Container,
    /// In the container, as its user, right before its program: `startContainer`.
    Start,
    /// In the runtime's namespaces, once the program runs: `poststart`.
    Started,
}

/// A hook with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedHook {
    pub(crate) place: HookPlace,
    /// As the specification calls it.
    pub(crate) name: String,
    /// Of the host, except for [`HookPlace::Start`].
    pub(crate) path: PathBuf,
    /// `args[0]` is the program's name.
    pub(crate) args: Vec<String>,
    /// `NAME=value`, and nothing else is in its environment.
    pub(crate) env: Vec<String>,
    pub(crate) timeout: Option<Duration>,
}

/// Whose edit it is, for errors.
#[derive(Clone, Copy)]
struct Subject<'a> {
    device: &'a CdiDevice,
    path: &'a Path,
    /// `containerEdits`, of the file or of a device in it.
    field: &'a str,
}

impl Subject<'_> {
    fn wrong(&self, list: &str, index: usize, reason: impl Into<String>) -> CdiError {
        CdiError::Edit {
            device: self.device.clone(),
            path: self.path.to_owned(),
            field: format!("{}.{list}[{index}]", self.field),
            reason: reason.into(),
        }
    }
}

impl Edited {
    /// Adds what the files say for a device; once, however often it is wanted. `owner` are the ids of the payload's
    /// user, whose devices are that say nothing else.
    ///
    /// # Errors
    /// When the device is not described, or something it needs is not there.
    pub(crate) fn add(
        &mut self,
        registry: &Registry,
        device: &CdiDevice,
        owner: (u32, u32),
    ) -> Result<(), CdiError> {
        if self.done.contains(device) {
            return Ok(());
        }
        let Described {
            path,
            spec,
            device: entry,
        } = registry.find(device)?;
        if !self.files.iter().any(|known| known == path) {
            let subject = Subject {
                device,
                path,
                field: "containerEdits",
            };
            self.apply(&spec.container_edits, subject, owner)?;
            self.files.push(path.to_owned());
        }
        let field = format!("devices[{}].containerEdits", entry.name);
        let subject = Subject {
            device,
            path,
            field: &field,
        };
        self.apply(&entry.container_edits, subject, owner)?;
        self.done.push(device.clone());
        Ok(())
    }

    fn apply(&mut self, edits: &Edits, subject: Subject<'_>, owner: (u32, u32)) -> Result<(), CdiError> {
        for entry in &edits.env {
            // The file was checked when it was read.
            if let Some((name, value)) = entry.split_once('=') {
                self.set_env(name, value);
            }
        }
        for (index, node) in edits.device_nodes.iter().enumerate() {
            let device = device(node, owner).map_err(|reason| subject.wrong("deviceNodes", index, reason))?;
            self.set_device(device, access(node));
        }
        for (index, entry) in edits.mounts.iter().enumerate() {
            let mount = mount(entry).map_err(|reason| subject.wrong("mounts", index, reason))?;
            self.set_mount(mount);
        }
        for (index, entry) in edits.hooks.iter().enumerate() {
            let hook = hook(entry).map_err(|reason| subject.wrong("hooks", index, reason))?;
            self.hooks.push(hook);
        }
        for &group in edits.additional_gids.iter().filter(|group| **group != 0) {
            if !self.groups.contains(&group) {
                self.groups.push(group);
            }
        }
        if !edits.net_devices.is_empty() {
            return Err(subject.wrong(
                "netDevices",
                0,
                "interfaces of the host are not moved into containers here",
            ));
        }
        if edits.intel_rdt.is_some() {
            self.warnings.push(Warning::CdiEditIgnored {
                device: subject.device.to_string(),
                edit: "intelRdt".into(),
            });
        }
        Ok(())
    }

    /// Sets a variable.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Adds a device.
    pub(crate) fn set_device(&mut self, device: DevicePlan, access: DeviceAccess) {
        self.devices.retain(|(known, _)| known.path != device.path);
        self.devices.push((device, access));
    }

    /// Adds a mount.
    pub(crate) fn set_mount(&mut self, mount: MountPlan) {
        self.mounts.retain(|known| known.target != mount.target);
        self.mounts.push(mount);
    }
}

/// Whatever the file leaves out is that of the node on the host.
fn device(node: &DeviceNode, (uid, gid): (u32, u32)) -> Result<DevicePlan, String> {
    let host_path = match node.host_path.as_str() {
        "" => Path::new(&node.path),
        path => Path::new(path),
    };
    let target = plan::devices::target(&node.path)?;
    let kind = match node.kind.as_str() {
        "u" => "c",
        kind => kind,
    };
    // Then the node on the host need not be there.
    let complete = kind == "p" || (!kind.is_empty() && node.major != 0);
    let found = match plan::devices::node(host_path) {
        Ok(found) => Some(found),
        Err(_) if complete => None,
        Err(error) => return Err(format!("{}: {error}", host_path.display())),
    };
    let mut device = DevicePlan {
        source: host_path.to_owned(),
        path: target,
        kind: kind.chars().next().unwrap_or('c'),
        // They were checked to be numbers of devices.
        major: u32::try_from(node.major).unwrap_or(0),
        minor: u32::try_from(node.minor).unwrap_or(0),
        mode: node
            .file_mode
            .or(found.as_ref().map(|found| found.mode))
            .unwrap_or(0o666)
            & 0o7777,
        uid: node.uid.unwrap_or(uid),
        gid: node.gid.unwrap_or(gid),
    };
    if let (false, Some(found)) = (complete, found) {
        if !kind.is_empty() && device.kind != found.kind {
            return Err(format!(
                "{}: it is of type {} on the host, not {kind}",
                host_path.display(),
                found.kind
            ));
        }
        device.kind = found.kind;
        if node.major == 0 {
            (device.major, device.minor) = (found.major, found.minor);
        }
    }
    Ok(device)
}

fn access(node: &DeviceNode) -> DeviceAccess {
    match node.permissions.as_str() {
        "" => DeviceAccess::ALL,
        letters => DeviceAccess {
            // Of `none` neither.
            read: letters.contains('r'),
            write: letters.contains('w'),
            mknod: letters.contains('m'),
        },
    }
}

fn mount(entry: &MountEntry) -> Result<MountPlan, String> {
    let target = plan::devices::mount_target(&entry.container_path)?;
    match entry.kind.as_str() {
        "tmpfs" => {
            let (options, flags) = plan::volume_in_memory(&entry.options)?;
            let kind = MountKind::Tmpfs {
                options,
                copy_up: false,
            };
            return Ok(MountPlan { kind, target, flags });
        }
        "" | "none" | "bind" | "rbind" => {}
        other => return Err(format!("a file system of type {other:?} is not mounted here")),
    }
    let (mut flags, mut recursive, mut propagation) =
        (MountFlags::default(), entry.kind == "rbind", Propagation::Private);
    for option in &entry.options {
        match option.as_str() {
            "bind" | "rw" | "suid" | "dev" | "exec" | "relatime" | "private" | "rprivate" => {}
            "rbind" => recursive = true,
            "ro" => flags.read_only = true,
            "rro" => (flags.read_only, flags.recursive_read_only) = (true, true),
            "nosuid" => flags.no_suid = true,
            "nodev" => flags.no_dev = true,
            "noexec" => flags.no_exec = true,
            "strictatime" => flags.strict_atime = true,
            "slave" | "rslave" => propagation = Propagation::Slave,
            "shared" | "rshared" => propagation = Propagation::Shared,
            other => return Err(format!("the option {other:?} of a bind is not known")),
        }
    }
    let source = PathBuf::from(&entry.host_path);
    let mut kind = plan::bind(source).map_err(|error| error.to_string())?;
    if let MountKind::Bind(bind) = &mut kind {
        (bind.recursive, bind.propagation) = (recursive, propagation);
    }
    Ok(MountPlan { kind, target, flags })
}

fn hook(entry: &Hook) -> Result<PlannedHook, String> {
    let path = Path::new(&entry.path);
    let named = |reason: &str| format!("{} {}: {reason}", entry.hook_name, path.display());
    let place = match entry.hook_name.as_str() {
        "prestart" | "createRuntime" => HookPlace::Runtime,
        "createContainer" => HookPlace::Container,
        "startContainer" => HookPlace::Start,
        "poststart" => HookPlace::Started,
        // Nobody need be there when a container ends.
        _ => return Err(named("hooks for the end of a container are not called here")),
    };
    if place != HookPlace::Start {
        let meta = std::fs::metadata(path).map_err(|error| named(&error.to_string()))?;
        if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
            return Err(named("it is not a program"));
        }
    }
    Ok(PlannedHook {
        place,
        name: entry.hook_name.clone(),
        path: path.to_owned(),
        args: match entry.args.is_empty() {
            true => vec![entry.path.clone()],
            false => entry.args.clone(),
        },
        env: entry.env.clone(),
        timeout: entry
            .timeout
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The edits for `v.com/c=a` of a file with these edits for the device, and these for all.
    fn edited(own: &str, common: &str) -> Result<Edited, CdiError> {
        let dir = tempfile::tempdir().expect("dir");
        let text = format!(
            "cdiVersion: 1.1.0\nkind: v.com/c\ncontainerEdits: {common}\ndevices:\n- name: a\n  containerEdits: {own}\n\
             - name: b\n  containerEdits: {{env: [B=b]}}\n"
        );
        std::fs::write(dir.path().join("a.yaml"), text).expect("write");
        let registry = Registry::read(&[dir.path().to_owned()]);
        let mut edited = Edited::default();
        for name in ["v.com/c=a", "v.com/c=b", "v.com/c=a"] {
            edited.add(&registry, &CdiDevice::parse(name).expect("name"), (7, 8))?;
        }
        Ok(edited)
    }

    #[test]
    fn what_is_common_comes_once_and_before_what_is_of_a_device() {
        let edited = edited(
            "{env: [A=a, SAME=own], additionalGids: [5, 0, 5]}",
            "{env: [COMMON=c, SAME=common], hooks: [{hookName: startContainer, path: /x}]}",
        )
        .expect("edits");
        let env: Vec<_> = edited
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(env, ["COMMON=c", "A=a", "SAME=own", "B=b"]);
        assert_eq!(edited.groups, [5]);
        assert_eq!(edited.hooks.len(), 1);
        assert_eq!(edited.hooks[0].args, ["/x"]);
    }

    #[test]
    fn a_device_is_that_of_the_host_where_the_file_says_nothing_else() {
        let one = |node: &str| {
            let mut edited = edited(&format!("{{deviceNodes: [{node}]}}"), "{}")?;
            Ok::<_, CdiError>(edited.devices.remove(0))
        };
        let (null, access) = one("{path: /dev/x, hostPath: /dev/null}").expect("null");
        assert_eq!((null.kind, null.major, null.minor, null.mode), ('c', 1, 3, 0o666));
        assert_eq!((null.uid, null.gid), (7, 8));
        assert_eq!(null.path, Path::new("/dev/x"));
        assert_eq!(access, DeviceAccess::ALL);
        let node =
            "{path: /dev/y, type: b, major: 7, minor: 1, fileMode: 384, permissions: r, uid: 1, gid: 2}";
        let (made, access) = one(node).expect("made");
        assert_eq!((made.kind, made.major, made.minor, made.mode), ('b', 7, 1, 0o600));
        assert_eq!((made.uid, made.gid), (1, 2));
        assert_eq!(access.to_string(), "r");
        let (_, access) = one("{path: /dev/null, permissions: none}").expect("none");
        assert_eq!(access.to_string(), "");
        for bad in [
            "{path: /dev/none-such}",
            "{path: /dev/x, hostPath: /etc/passwd}",
            "{path: /dev/x, hostPath: /dev/null, type: b}",
            "{path: /proc/x, hostPath: /dev/null}",
            "{path: /, hostPath: /dev/null}",
        ] {
            match one(bad) {
                Err(CdiError::Edit { field, .. }) => {
                    assert_eq!(field, "devices[a].containerEdits.deviceNodes[0]", "{bad}");
                }
                other => panic!("{bad}: {other:?}"),
            }
        }
    }

    #[test]
    fn mounts_have_the_options_of_the_file() {
        let one = |mount: &str| {
            let mut edited = edited("{env: [A=a]}", &format!("{{mounts: [{mount}]}}"))?;
            Ok::<_, CdiError>(edited.mounts.remove(0))
        };
        let mount = one("{hostPath: /etc, containerPath: /x, options: [ro, nosuid, nodev, rbind, rprivate]}")
            .expect("mount");
        assert!(mount.flags.read_only && mount.flags.no_suid && mount.flags.no_dev && !mount.flags.no_exec);
        assert!(matches!(mount.kind, MountKind::Bind(bind) if bind.recursive));
        let mount = one("{hostPath: tmpfs, containerPath: /x, type: tmpfs, options: [mode=700, noexec]}");
        assert!(matches!(mount.expect("tmpfs").kind, MountKind::Tmpfs { .. }));
        for bad in [
            "{hostPath: /none-such, containerPath: /x}",
            "{hostPath: /etc, containerPath: /x, type: ext4}",
            "{hostPath: /etc, containerPath: /x, options: [upside-down]}",
            "{hostPath: /etc, containerPath: /proc/x}",
            "{hostPath: /etc, containerPath: /..}",
        ] {
            assert!(matches!(one(bad), Err(CdiError::Edit { .. })), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_an_error_or_a_warning() {
        for bad in [
            "{hooks: [{hookName: poststop, path: /bin/true}]}",
            "{hooks: [{hookName: createContainer, path: /none-such}]}",
            "{hooks: [{hookName: createRuntime, path: /etc/passwd}]}",
            "{netDevices: [{hostInterfaceName: eth9, name: eth1}]}",
        ] {
            let error = edited(bad, "{}").expect_err(bad).to_string();
            assert!(error.contains("v.com/c=a") && error.contains("a.yaml"), "{error}");
        }
        let edited = edited("{intelRdt: {closID: x}}", "{}").expect("warning");
        assert_eq!(edited.warnings.len(), 1);
    }
}
