//! The device nodes a container has.

use super::HostFacts;
use crate::launch::DevicePlan;
use crate::spec::ContainerSpec;
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

/// Docker's default devices; with `privileged` those of the host too.
pub(super) fn devices(spec: &ContainerSpec, host: &HostFacts) -> Vec<DevicePlan> {
    let mut devices: Vec<_> = DEFAULT
        .iter()
        .map(|(name, major, minor)| DevicePlan {
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
        let kind = meta.file_type();
        let private = ["pts", "shm", "mqueue", "console", "ptmx", "fd"];
        if depth == 0 && private.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if kind.is_dir() && depth < 8 {
            collect(&path, depth + 1, found);
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(DevicePlan {
                path,
                kind: if kind.is_char_device() { 'c' } else { 'b' },
                major: rustix::fs::major(meta.rdev()),
                minor: rustix::fs::minor(meta.rdev()),
                mode: meta.mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
            });
        }
    }
}
