//! Devices that files of the host describe: the Container Device Interface.
//!
//! `file` is what one file says, `registry` all files of a host, `edits` what a container gets by them.

mod edits;
mod file;
mod registry;
mod yaml;

pub(crate) use edits::{Edited, HookPlace, PlannedHook};
pub(crate) use registry::Registry;

use crate::spec::CdiDevice;
use std::path::PathBuf;

/// Why a container cannot have a CDI device, or a GPU.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CdiError {
    /// No file describes the device.
    #[error(
        "no CDI device {device} is described in {}{}{}",
        list(directories),
        known_devices(device.kind(), known),
        broken_files(broken)
    )]
    NoSuchDevice {
        /// As asked for.
        device: CdiDevice,
        /// Where files were looked for.
        directories: Vec<PathBuf>,
        /// The names of the kind's other devices.
        known: Vec<String>,
        /// What is wrong with files that could have described it.
        broken: Vec<String>,
    },
    /// Two files of one directory describe the same device.
    #[error("the CDI device {device} is described more than once: {}", list(files))]
    Conflict {
        /// As asked for.
        device: CdiDevice,
        /// Where.
        files: Vec<PathBuf>,
    },
    /// A file breaks the rules of the specification.
    #[error("{}{}: {reason}", path.display(), at(place))]
    File {
        /// Which.
        path: PathBuf,
        /// Line and column, from 1, where it is one place.
        place: Option<(usize, usize)>,
        /// What is wrong.
        reason: String,
    },
    /// What a file says cannot be done on this host.
    #[error("{}: {field} of the CDI device {device}: {reason}", path.display())]
    Edit {
        /// As asked for.
        device: CdiDevice,
        /// The file that describes it.
        path: PathBuf,
        /// Which of its edits.
        field: String,
        /// Why not.
        reason: String,
    },
    /// There is no driver for such GPUs on this host; docker's words.
    #[error("could not select device driver {driver:?} with capabilities: [[{}]]: {reason}", capabilities.join(" "))]
    NoGpuDriver {
        /// As asked for.
        driver: String,
        /// As asked for.
        capabilities: Vec<String>,
        /// What is missing.
        reason: String,
    },
    /// The host has no such GPU.
    #[error("no such GPU: {id}; this host has {present}")]
    NoSuchGpu {
        /// As asked for.
        id: String,
        /// What there is, in words.
        present: String,
    },
}

impl CdiError {
    /// What to change on the host.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoGpuDriver { .. } => Some(
                "install the driver of the GPU; NVIDIA's is found by itself (/dev/nvidiactl and /proc/driver/nvidia), \
                 and any other by a CDI specification in /etc/cdi, such as `nvidia-ctk cdi generate \
                 --output=/etc/cdi/nvidia.yaml` writes"
                    .into(),
            ),
            Self::NoSuchDevice { device, known, .. } if known.is_empty() && device.vendor() == "nvidia.com" => Some(
                "NVIDIA's tool writes the file: `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
                    .into(),
            ),
            _ => None,
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

fn known_devices(kind: &str, known: &[String]) -> String {
    match known {
        [] => String::new(),
        known => format!("; of {kind} there are {}", known.join(", ")),
    }
}

fn broken_files(broken: &[String]) -> String {
    broken.iter().map(|file| format!("; {file}")).collect()
}

fn at(place: &Option<(usize, usize)>) -> String {
    place.map_or(String::new(), |(line, column)| format!(":{line}:{column}"))
}
