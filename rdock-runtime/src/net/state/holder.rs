//! Who has an address in a network.

use super::{FORMAT, identity};
use crate::process::{ProcessIdentity, pid_namespace};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::Path;

/// One file of `holders`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::net) struct HolderRecord {
    pub(in crate::net) version: u32,
    pub(in crate::net) container: String,
    /// The container's name.
    #[serde(default)]
    pub(in crate::net) name: String,
    /// More names in this network.
    #[serde(default)]
    pub(in crate::net) aliases: Vec<String>,
    pub(in crate::net) address: Ipv4Addr,
    #[serde(default)]
    pub(in crate::net) ipv6: Option<Ipv6Addr>,
    /// Of its interface, as `02:42:...`.
    #[serde(default)]
    pub(in crate::net) mac: Option<String>,
    /// As it is called inside.
    #[serde(default)]
    pub(in crate::net) interface: String,
    /// Which of the container's interfaces it is; that in its name when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::net) number: Option<u32>,
    /// Who prepares the container.
    pub(in crate::net) owner: ProcessIdentity,
    /// Who lives in the network's namespace, once it does.
    #[serde(default)]
    pub(in crate::net) helper: Option<ProcessIdentity>,
    /// Device and inode of the network's namespace.
    #[serde(default)]
    pub(in crate::net) namespace: Option<(u64, u64)>,
}

impl HolderRecord {
    pub(in crate::net) fn new(container: &str, address: Ipv4Addr, owner: ProcessIdentity) -> Self {
        Self {
            version: FORMAT,
            container: container.into(),
            name: String::new(),
            aliases: Vec::new(),
            address,
            ipv6: None,
            mac: None,
            interface: String::new(),
            number: None,
            owner,
            helper: None,
            namespace: None,
        }
    }

    /// `None` when the file is gone or makes no sense.
    pub(in crate::net) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Whether the address is taken: the container runs, or its owner is about to run it (again).
    pub(in crate::net) fn is_alive(&self) -> bool {
        self.is_running() || self.owner.is_alive()
    }

    /// Whether the container runs.
    pub(in crate::net) fn is_running(&self) -> bool {
        self.helper.as_ref().is_some_and(ProcessIdentity::is_alive)
    }

    /// Whether the container has a payload, as far as names are concerned: one that is just being started has.
    pub(in crate::net) fn has_payload(&self) -> bool {
        match &self.helper {
            Some(helper) => helper.is_alive(),
            None => self.owner.is_alive(),
        }
    }

    /// The network's namespace, taken from this holder: the helper lives in it or has it open, or the owner has.
    pub(in crate::net) fn namespace(&self) -> Option<OwnedFd> {
        let expected = self.namespace?;
        let here = pid_namespace()?;
        let process = |process: &ProcessIdentity| {
            let found = format!("/proc/{}", process.pid);
            (process.pids == here && process.is_alive()).then_some(found)
        };
        if let Some(helper) = self.helper.as_ref().and_then(process) {
            let own = open_namespace(Path::new(&format!("{helper}/ns/net")), expected);
            if let Some(found) = own.or_else(|| among_descriptors(&helper, expected)) {
                return Some(found);
            }
        }
        among_descriptors(&process(&self.owner)?, expected)
    }
}

fn open_namespace(path: &Path, expected: (u64, u64)) -> Option<OwnedFd> {
    let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    (identity(&namespace)? == expected).then_some(namespace)
}

/// The namespace among the open descriptors of a process.
fn among_descriptors(process: &str, expected: (u64, u64)) -> Option<OwnedFd> {
    let wanted = format!("net:[{}]", expected.1);
    for entry in fs::read_dir(format!("{process}/fd")).ok()?.flatten() {
        if fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str())
            && let Some(found) = open_namespace(&entry.path(), expected)
        {
            return Some(found);
        }
    }
    None
}
