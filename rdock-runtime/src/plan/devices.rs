//! The device nodes a container has, and what it may do with devices.

use super::mounts::clean;
use super::{Findings, HostFacts};
use crate::error::{Error, Result};
use crate::launch::DevicePlan;
use crate::spec::{ContainerSpec, Device, DeviceAccess, DeviceKind, DeviceRule};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Character devices of every container: name, major, minor (Documentation/admin-guide/devices.txt).
const DEFAULT: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Most devices of one container: a directory may have any number.
const MOST: usize = 4096;

/// Docker's default devices; with `privileged` those of the host too.
pub(super) fn devices(spec: &ContainerSpec, host: &HostFacts) -> Vec<DevicePlan> {
    let mut devices: Vec<_> = DEFAULT
        .iter()
        .map(|(name, major, minor)| DevicePlan {
            source: Path::new("/dev").join(name),
            path: PathBuf::from("/dev").join(name),
            kind: 'c',
            major: *major,
            minor: *minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    if spec.privileged {
        for device in &host.devices {
            if !devices.iter().any(|own| own.path == device.path) {
                devices.push(device.clone());
            }
        }
    }
    devices
}

/// What can be said of the spec's own devices without looking at them.
pub(super) fn check(spec: &ContainerSpec, findings: &mut Findings) {
    let mut targets = Vec::new();
    for (index, device) in spec.devices.iter().enumerate() {
        let field = format!("devices[{index}]");
        if !device.source.is_absolute() {
            findings.add(
                format!("{field}.source"),
                format!("{} is not the absolute path of a node", device.source.display()),
            );
        }
        let target = clean(&device.target);
        let field = format!("{field}.target");
        if !device.target.starts_with('/') || device.target.contains('\0') || target == "/" {
            findings.add(
                field,
                format!("{:?} is not an absolute path below /", device.target),
            );
        } else if ["/proc", "/sys"]
            .iter()
            .any(|system| Path::new(&target).starts_with(system))
        {
            findings.add(field, format!("{target} is in a file system of the kernel"));
        } else if target == "/dev/null" && device.source != Path::new("/dev/null") {
            findings.add(
                field,
                "/dev/null hides what a container must not see, and stays what it is",
            );
        } else if targets.contains(&target) {
            findings.add(field, format!("{target} is given twice"));
        }
        targets.push(target);
        if device.access == NOTHING {
            findings.add(format!("devices[{index}].access"), "it allows nothing");
        }
    }
    for (index, directory) in spec.cdi_directories.iter().enumerate() {
        if !directory.is_absolute() {
            findings.add(
                format!("cdi_directories[{index}]"),
                format!("{} is not an absolute path", directory.display()),
            );
        }
    }
    for (index, request) in spec.gpus.iter().enumerate() {
        if request.count.is_some() && !request.ids.is_empty() {
            findings.add(format!("gpus[{index}]"), "a count and ids exclude each other");
        }
    }
    for (index, rule) in spec.device_rules.iter().enumerate() {
        if rule.access == NOTHING {
            findings.add(format!("device_rules[{index}].access"), "it allows nothing");
        }
    }
}

const NOTHING: DeviceAccess = DeviceAccess {
    read: false,
    write: false,
    mknod: false,
};

/// The node at `path` on the host, which is no link.
///
/// # Errors
/// When it is not there, or is no device.
pub(crate) fn node(path: &Path) -> io::Result<DevicePlan> {
    let meta = std::fs::symlink_metadata(path)?;
    of_node(path.to_owned(), &meta).ok_or_else(|| io::Error::other("not a device"))
}

/// A place for a device in a container, cleaned.
///
/// # Errors
/// Why it is none.
pub(crate) fn target(path: &str) -> std::result::Result<PathBuf, String> {
    let target = clean(path);
    let of_kernel = ["/proc", "/sys"]
        .iter()
        .any(|system| Path::new(&target).starts_with(system));
    match target.as_str() {
        "/" => Err(format!("{path:?} is no place below /")),
        "/dev/null" => Ok(target.into()),
        _ if of_kernel => Err(format!("{target} is in a file system of the kernel")),
        _ => Ok(target.into()),
    }
}

/// A place for a mount in a container, cleaned.
///
/// # Errors
/// Why it is none.
pub(crate) fn mount_target(path: &str) -> std::result::Result<PathBuf, String> {
    let target = clean(path);
    match target.as_str() {
        "/" => Err(format!("{path:?} is no place below /")),
        _ if Path::new(&target).starts_with("/proc") => {
            Err(format!("{target} is in /proc, where nothing can be mounted"))
        }
        _ => Ok(target.into()),
    }
}

/// The spec's own devices as they are on the host now, each with what may be done with it.
///
/// # Errors
/// [`Error::Device`] for one that is not there, or is none.
pub(crate) fn of_spec(devices: &[Device]) -> Result<Vec<(DevicePlan, DeviceAccess)>> {
    let mut found: Vec<(DevicePlan, DeviceAccess)> = Vec::new();
    for device in devices {
        let failed = |source| Error::Device {
            path: device.source.clone(),
            source,
        };
        // As docker: links of the host, such as those of udev, are followed.
        let source = std::fs::canonicalize(&device.source).map_err(failed)?;
        let meta = std::fs::metadata(&source).map_err(failed)?;
        let mut nodes = Vec::new();
        if meta.is_dir() {
            collect(&source, 0, &mut nodes);
            nodes.sort_by(|a, b| a.path.cmp(&b.path));
            if nodes.is_empty() {
                return Err(failed(io::Error::other("the directory has no devices in it")));
            }
        } else {
            let node = of_node(source.clone(), &meta)
                .ok_or_else(|| failed(io::Error::other("not a device, nor a directory of devices")))?;
            nodes.push(node);
        }
        for mut node in nodes {
            let below = node.source.strip_prefix(&source).unwrap_or(Path::new(""));
            let mut path = PathBuf::from(clean(&device.target));
            if below != Path::new("") {
                path.push(below);
            }
            node.path = path;
            found.retain(|(other, _)| other.path != node.path);
            found.push((node, device.access));
        }
        if found.len() > MOST {
            return Err(failed(io::Error::other(format!("more than {MOST} devices"))));
        }
    }
    Ok(found)
}

/// What a container may do with devices: docker's defaults, its own devices, and its rules. `None` is everything.
pub(crate) fn rules(spec: &ContainerSpec, own: &[(DevicePlan, DeviceAccess)]) -> Option<Vec<DeviceRule>> {
    if spec.privileged {
        return None;
    }
    let nodes_alone = DeviceAccess {
        mknod: true,
        ..NOTHING
    };
    let (all, character) = (DeviceAccess::ALL, DeviceKind::Character);
    let mut rules = vec![
        // A node that cannot be opened does no harm, and images are unpacked with them.
        DeviceRule::new(character, None, None, nodes_alone),
        DeviceRule::new(DeviceKind::Block, None, None, nodes_alone),
        // The console, pseudo-terminals and their multiplexer.
        DeviceRule::new(character, Some(5), Some(1), all),
        DeviceRule::new(character, Some(5), Some(2), all),
        DeviceRule::new(character, Some(136), None, all),
    ];
    rules.extend(
        DEFAULT
            .iter()
            .map(|(_, major, minor)| DeviceRule::new(character, Some(*major), Some(*minor), all)),
    );
    // A pipe is no device, and a node that may not be used needs no rule.
    let own = own
        .iter()
        .filter(|(device, access)| device.kind != 'p' && *access != NOTHING);
    let own = own.map(|(device, access)| {
        let kind = match device.kind {
            'b' => DeviceKind::Block,
            _ => character,
        };
        DeviceRule::new(kind, Some(device.major), Some(device.minor), *access)
    });
    for rule in own.chain(spec.device_rules.iter().copied()) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    Some(rules)
}

/// The device nodes below `/dev`, without those that a container has of its own (terminals, shared memory).
pub(super) fn of_host() -> Vec<DevicePlan> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), 0, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(dir: &Path, depth: u32, found: &mut Vec<DevicePlan>) {
    // Directories that cannot be read have no devices to hand on.
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = entry.metadata() else { continue };
        let private = ["pts", "shm", "mqueue", "console", "ptmx", "fd"];
        if dir == Path::new("/dev") && private.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if meta.is_dir() && depth < 8 {
            collect(&path, depth + 1, found);
        } else {
            found.extend(of_node(path, &meta));
        }
    }
}

/// The device at `path`; `None` when it is something else.
fn of_node(path: PathBuf, meta: &std::fs::Metadata) -> Option<DevicePlan> {
    let kind = meta.file_type();
    (kind.is_char_device() || kind.is_block_device()).then(|| DevicePlan {
        source: path.clone(),
        path,
        kind: if kind.is_char_device() { 'c' } else { 'b' },
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stands_for_the_devices_in_it() {
        // Docker's own are always there.
        let one = of_spec(&[Device::new("/dev/null").at("/dev/x")]).expect("null");
        assert_eq!(one.len(), 1);
        assert_eq!((one[0].0.major, one[0].0.minor, one[0].0.kind), (1, 3, 'c'));
        assert_eq!(one[0].0.path, Path::new("/dev/x"));
        let read = DeviceAccess::parse("r").expect("access");
        let all = of_spec(&[Device::new("/dev").at("/devices").access(read)]).expect("directory");
        let null = all
            .iter()
            .find(|(device, _)| device.path == Path::new("/devices/null"))
            .expect("null");
        assert_eq!((null.0.source.as_path(), null.1), (Path::new("/dev/null"), read));
        assert!(
            !all.iter()
                .any(|(device, _)| device.path.starts_with("/devices/pts"))
        );
    }

    #[test]
    fn what_is_no_device_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("file"), "").expect("file");
        for path in [
            dir.path().join("file"),
            dir.path().join("none"),
            dir.path().to_owned(),
        ] {
            match of_spec(&[Device::new(&path)]) {
                Err(Error::Device { path: named, .. }) => assert_eq!(named, path),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_later_device_takes_the_place_of_an_earlier_one() {
        let found = of_spec(&[
            Device::new("/dev/null").at("/dev/x"),
            Device::new("/dev/zero").at("/dev/x"),
        ])
        .expect("devices");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0.minor, 5);
    }

    #[test]
    fn nothing_but_dockers_own_devices_is_open_by_default() {
        let rules = |spec: &ContainerSpec| -> Option<Vec<String>> {
            Some(super::rules(spec, &[])?.iter().map(ToString::to_string).collect())
        };
        let expected = [
            "c *:* m",
            "b *:* m",
            "c 5:1 rwm",
            "c 5:2 rwm",
            "c 136:* rwm",
            "c 1:3 rwm",
            "c 1:5 rwm",
            "c 1:7 rwm",
            "c 1:8 rwm",
            "c 1:9 rwm",
            "c 5:0 rwm",
        ];
        assert_eq!(rules(&ContainerSpec::new("image")).expect("rules"), expected);
        let own = DeviceRule::parse("b 8:* r").expect("rule");
        let with = rules(&ContainerSpec::new("image").device_rule(own)).expect("rules");
        assert_eq!(with.last().map(String::as_str), Some("b 8:* r"));
        assert_eq!(rules(&ContainerSpec::new("image").privileged(true)), None);
    }
}
