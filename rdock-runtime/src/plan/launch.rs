//! The last step: the planned container, its prepared mounts and its descriptors become a launch plan.

use super::prepare::{self, PreparedMount};
use super::{LaterSource, Planned};
use crate::launch::{
    BindPlan, LaunchPlan, MountKind, MountPlan, NamespacePlan, NetworkPlan, Propagation, RootMount, RootPlan,
};
use crate::spec::{NamespaceMode, NetworkMode};
use crate::volume::VolumeError;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A kind of namespace that can be another container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NamespaceKind {
    Pid,
    Ipc,
    Network,
    /// Not joined: something of it is mounted here too.
    Mounts,
}

/// Where things are that exist only once the container has its state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    /// The container's state directory.
    pub(crate) state_dir: &'a Path,
    /// Holds `hosts`, `hostname` and `resolv.conf`: the state directory, or that of the container whose
    /// network is joined.
    pub(crate) network_dir: &'a Path,
    /// The mounts of the container whose ipc namespace is joined.
    pub(crate) ipc_mounts: Option<&'a Arc<OwnedFd>>,
    /// The container's directories in the version 1 hierarchies.
    pub(crate) cgroup_hierarchies: &'a [PathBuf],
}

impl Planned {
    /// Makes the launch plan. `root` is what the snapshot says to mount; `join` opens a namespace of another
    /// container, by name or id. The default network (`NetworkPlan::None` here), cgroup, stdio and owner
    /// are left for the caller to fill in.
    ///
    /// # Errors
    /// When a file of the state directory is missing, and what `join` says.
    pub(crate) fn into_launch<E: From<VolumeError>>(
        self,
        prepared: Vec<PreparedMount>,
        root: Vec<RootMount>,
        places: Places<'_>,
        mut join: impl FnMut(NamespaceKind, &str) -> Result<OwnedFd, E>,
    ) -> Result<LaunchPlan, E> {
        let mounts = prepared
            .into_iter()
            .map(|mount| mount.place(places))
            .collect::<Result<_, _>>()?;
        let mut namespace = |mode: NamespaceMode, kind| match mode {
            NamespaceMode::Private => Ok(NamespacePlan::New),
            NamespaceMode::Host => Ok(NamespacePlan::Host),
            NamespaceMode::Container(name) => join(kind, &name).map(NamespacePlan::Join),
        };
        // Planning refuses to join the two kinds that have no other container's.
        let own = |mode: NamespaceMode| match mode {
            NamespaceMode::Host => NamespacePlan::Host,
            _ => NamespacePlan::New,
        };
        let (pid, ipc) = (
            namespace(self.pid, NamespaceKind::Pid)?,
            namespace(self.ipc, NamespaceKind::Ipc)?,
        );
        let network = match self.network {
            NetworkMode::Default | NetworkMode::None => NetworkPlan::None,
            NetworkMode::Host => NetworkPlan::Host,
            NetworkMode::Container(name) => NetworkPlan::Join(join(NamespaceKind::Network, &name)?),
        };
        Ok(LaunchPlan {
            state_dir: places.state_dir.to_owned(),
            user_namespace: self.user_namespace,
            pid,
            ipc,
            uts: own(self.uts),
            cgroup_namespace: own(self.cgroup_namespace),
            network,
            hostname: self.hostname,
            domainname: self.domainname,
            root: RootPlan {
                mounts: root,
                read_only: self.root_read_only,
                no_devices: false,
            },
            mounts,
            devices: self.devices,
            masked_paths: self.masked_paths,
            readonly_paths: self.readonly_paths,
            sysctls: self.sysctls,
            process: self.process,
            init: self.init,
            ..LaunchPlan::default()
        })
    }
}

impl PreparedMount {
    /// Fills in what was not there before.
    fn place(self, places: Places<'_>) -> Result<MountPlan, VolumeError> {
        let (target, flags, source) = match self {
            Self::Ready(plan) => return Ok(plan),
            Self::Layers {
                target,
                flags,
                number,
                subpath,
            } => {
                let kind = MountKind::Bind(BindPlan {
                    source: crate::base::layers_point(places.state_dir, number),
                    // Attached by the helper itself, in a mount namespace that nobody else sees.
                    expect: (0, 0),
                    recursive: false,
                    subpath,
                    propagation: Propagation::Private,
                    copy_up: None,
                });
                return Ok(MountPlan { kind, target, flags });
            }
            Self::Later {
                target,
                flags,
                source,
            } => (target, flags, source),
        };
        let kind = match source {
            LaterSource::State(file) => prepare::bind(places.network_dir.join(file.name()))?,
            LaterSource::CgroupV1 => MountKind::CgroupV1 {
                hierarchies: places.cgroup_hierarchies.to_vec(),
            },
            LaterSource::OfIpcContainer(path) => {
                let missing = || VolumeError::MissingSource {
                    path: PathBuf::from(path),
                };
                MountKind::OfContainer {
                    mounts: places.ipc_mounts.ok_or_else(missing)?.clone(),
                    path: PathBuf::from(path),
                }
            }
        };
        Ok(MountPlan { kind, target, flags })
    }
}
