//! A fresh ext4 on a loop device, in a mount namespace of this program: an old file system can be ten times slower
//! at making files, and whatever happens to this program, nothing stays mounted.

use super::Outcome;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder on a file system of its own, gone when dropped.
#[derive(Debug)]
pub(crate) struct Ground {
    folder: tempfile::TempDir,
    mounted: PathBuf,
    /// Whether the host forwards: other engines switch it on and leave it so.
    forwarding: Option<String>,
}

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

impl Ground {
    /// Takes `gigabytes` at most. Must be called before this program has a second thread.
    pub(crate) fn fresh(gigabytes: u64) -> Outcome<Self> {
        own_mounts()?;
        let folder = tempfile::Builder::new().prefix("rdock-bench-").tempdir()?;
        let (image, mounted) = (folder.path().join("ext4"), folder.path().join("fs"));
        std::fs::File::create(&image)?.set_len(gigabytes << 30)?;
        std::fs::create_dir(&mounted)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .args([&image, &mounted]))?;
        Ok(Self {
            folder,
            mounted,
            forwarding: std::fs::read_to_string(FORWARDING).ok(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(before) = &self.forwarding {
            let _ = std::fs::write(FORWARDING, before);
        }
        // What cannot be taken away now goes with this program's mount namespace.
        let _ = unmount(&self.mounted, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir_all(self.folder.path());
    }
}

/// Puts this program into a mount namespace whose changes the host does not see.
pub(crate) fn own_mounts() -> Outcome {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(|error| format!("a mount namespace cannot be made ({error}): run this as root"))?;
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    Ok(())
}

/// Runs a program to its end; what it said when it failed.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().lines().last().unwrap_or_default();
    Err(format!("{}: {}: {last}", command.get_program().display(), output.status).into())
}
