//! What the user wrote: a container as plain data.
//!
//! [`ContainerSpec`] is to [`crate::Container`] what `std::process::Command` is to `Child`: one type,
//! setters in any order that cannot fail, everything validated once when it is planned.

mod cdi;
mod devices;
mod env;
mod gpus;
mod isolation;
mod lifecycle;
mod logging;
mod mounts;
mod network;
mod parse;
mod ports;
mod ready;
mod resources;
mod secrets;
mod setters;

pub use cdi::{CdiDevice, ContainerDevice};
pub(crate) use cdi::{is_device_name, parse_kind};
pub use devices::{Device, DeviceAccess, DeviceKind, DeviceRule};
pub use env::{parse_env_file, parse_env_flag};
pub use gpus::{GpuCount, GpuRequest};
pub use isolation::{NamespaceMode, NetworkMode, Seccomp, UserNamespace};
pub use lifecycle::{HealthCheck, HealthTest, RestartPolicy};
pub use logging::{LogConfig, LogDriver};
pub use mounts::{BindRecursion, Mount, MountSource, VolumesFrom};
pub(crate) use network::parse_mac;
pub use network::{EndpointSpec, NetworkJoin, PortForwarding, parse_exposed};
pub use parse::{ParseError, parse_size};
pub use ports::{PortMapping, Protocol};
pub use ready::Ready;
pub use resources::{DeviceRate, DeviceWeight, Resources};
pub(crate) use secrets::SECRET_MAX;
pub use secrets::{Secret, SecretSource, SecretTarget};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A container to be started.
///
/// Defaults are those of `docker run`: the image's entry point, command, environment, user and
/// working directory, the default network, Docker's capabilities and seccomp profile, no limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ContainerSpec {
    /// Image reference or id.
    pub image: String,
    /// Unique among the containers of a root; a random one (`adjective_noun`) when `None`.
    pub name: Option<String>,
    /// Replaces the image's entry point; `Some(vec![])` removes it. The image's command is not used then.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command when not empty.
    pub args: Vec<String>,
    /// Over the image's, in order; a name alone is not allowed here (the CLI resolves it).
    pub env: Vec<(String, String)>,
    /// Names of variables that the container has not, though its image, or every container, has them. One that
    /// [`Self::env`] sets is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unset_env: Vec<String>,
    /// More variables, after all others, that are never written to the disk and that `inspect` does not show. Only
    /// [`ContainerSpec::start`] and [`ContainerSpec::start_over_layers`] hand them over.
    #[serde(skip)]
    pub secret_env: Vec<(String, String)>,
    /// Secrets and configs, as files in memory or as variables.
    pub secrets: Vec<Secret>,
    /// Replaces the image's working directory; absolute.
    pub working_dir: Option<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`; replaces the image's.
    pub user: Option<String>,
    /// Supplementary groups beside those of the image's group file.
    pub groups: Vec<String>,
    /// File mode creation mask; 0022 when `None`.
    pub umask: Option<u32>,
    /// Defaults to the first 12 digits of the id.
    pub hostname: Option<String>,
    /// `/etc/hostname` is what the image has, as in a build step.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_hostname_file: bool,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// More lines for `/etc/hosts`: name, and an address or `host-gateway` for the host.
    pub extra_hosts: Vec<(String, String)>,
    /// Other containers by name, and what they are called here: docker's legacy links. Each start writes where they
    /// are then into `/etc/hosts`, and variables such as `DB_PORT_5432_TCP_ADDR`. They must run, in a network of this
    /// container's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<(String, String)>,
    /// Ports of the container that are reachable on the host.
    pub ports: Vec<PortMapping>,
    /// Binds, volumes and tmpfs, in order.
    pub mounts: Vec<Mount>,
    /// Containers whose volumes and binds this one gets too; resolved when it is made.
    pub volumes_from: Vec<VolumesFrom>,
    /// Names of anonymous volumes of another container that this one mounts by name and goes on using: they are its
    /// own too, and go with the last of their containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inherited_volumes: Vec<String>,
    /// Where the container's network comes from.
    pub network: NetworkMode,
    /// With [`NetworkMode::Default`], the networks to join, `eth0` first; the default one when empty.
    pub networks: Vec<EndpointSpec>,
    /// Name servers instead of the host's. In user networks the container's own resolver asks them, from inside the
    /// container.
    pub dns: Vec<IpAddr>,
    /// Search domains instead of the host's; `.` alone means none.
    pub dns_search: Vec<String>,
    /// Options of resolv.conf(5) instead of the host's.
    pub dns_options: Vec<String>,
    /// Ports that the container serves, beside those of the image; see [`Self::publish_all`].
    pub expose: Vec<(u16, Protocol)>,
    /// Publishes every exposed port on a free port of every address of the host.
    pub publish_all: bool,
    /// How published ports reach the container.
    pub port_forwarding: PortForwarding,
    /// The pid namespace.
    pub pid: NamespaceMode,
    /// The ipc namespace.
    pub ipc: NamespaceMode,
    /// The uts namespace.
    pub uts: NamespaceMode,
    /// The cgroup namespace.
    pub cgroup_namespace: NamespaceMode,
    /// A user namespace: rootless always has one (a single id); as root none unless asked.
    pub user_namespace: UserNamespace,
    /// Limits; none by default.
    pub resources: Resources,
    /// The control group that those of the container are made in, as a path from the top of the hierarchies (or, in
    /// a program that may not write there, from its own group). One of rdock's own by default. It is made when it
    /// is missing, and removed with the last of its containers then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
    /// Devices of the host, beside those every container has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Devices that specification files of the host describe, with everything these say a container needs for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cdi_devices: Vec<CdiDevice>,
    /// Directories of such files, absolute, a later one before an earlier one; `/etc/cdi` and `/var/run/cdi` when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cdi_directories: Vec<PathBuf>,
    /// GPUs of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuRequest>,
    /// What else the container may do with devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_rules: Vec<DeviceRule>,
    /// `(name, soft, hard)`, names as `ulimit` options of docker: `nofile`, `nproc`...
    pub ulimits: Vec<(String, u64, u64)>,
    /// Kernel parameters of the container's own namespaces, by dotted name.
    pub sysctls: BTreeMap<String, String>,
    /// Size of `/dev/shm` in bytes; 64 MiB by default.
    pub shm_size: u64,
    /// There is no `/dev/shm` (docker's `--ipc none`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_shm: bool,
    /// Capabilities beyond Docker's default ones, `ALL` for all.
    pub cap_add: Vec<String>,
    /// Capabilities taken away, `ALL` for all.
    pub cap_drop: Vec<String>,
    /// All capabilities, no seccomp filter, no masked paths, writable sysfs, the host's devices.
    pub privileged: bool,
    /// Nothing of `/proc` and `/sys` is masked or made read-only (docker's `systempaths=unconfined`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub system_paths_unconfined: bool,
    /// Programs in the container cannot gain privileges by setuid bits or file capabilities. Off, as in docker.
    pub no_new_privileges: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// A small init as pid 1 forwards signals and reaps orphans.
    pub init: bool,
    /// A pseudo-terminal as stdin, stdout and stderr.
    pub terminal: bool,
    /// Keeps stdin open; closed at once otherwise.
    pub interactive: bool,
    /// -1000 to 1000, oom_score_adj(5).
    pub oom_score_adj: Option<i32>,
    /// Sent by `stop`; the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// How long `stop` waits before SIGKILL; 10 s by default, for ever with [`Duration::MAX`].
    pub stop_timeout: Duration,
    /// When the container counts as ready; `start` returns after that.
    pub ready: Vec<Ready>,
    /// How long `start` waits for readiness; 60 s by default.
    pub ready_timeout: Duration,
    /// The container is removed, with its anonymous volumes, when it ends.
    pub auto_remove: bool,
    /// Where its output is kept, and how much of it.
    pub log: LogConfig,
    /// Free text kept with the container.
    pub labels: BTreeMap<String, String>,
    /// Free text for programs that look at the container beside its labels, as the runtime specification has it
    /// ("Annotations"). Nothing in rdock acts on it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Whether the payload is run again when it ends; never by default. Only for a detached container.
    pub restart: RestartPolicy,
    /// How its health is checked; as the image says when `None`.
    pub health: Option<HealthCheck>,
}

impl Default for ContainerSpec {
    fn default() -> Self {
        Self {
            image: String::new(),
            name: None,
            entrypoint: None,
            args: Vec::new(),
            env: Vec::new(),
            unset_env: Vec::new(),
            secret_env: Vec::new(),
            secrets: Vec::new(),
            working_dir: None,
            user: None,
            groups: Vec::new(),
            umask: None,
            hostname: None,
            no_hostname_file: false,
            domainname: None,
            extra_hosts: Vec::new(),
            links: Vec::new(),
            ports: Vec::new(),
            mounts: Vec::new(),
            volumes_from: Vec::new(),
            inherited_volumes: Vec::new(),
            network: NetworkMode::Default,
            networks: Vec::new(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            expose: Vec::new(),
            publish_all: false,
            port_forwarding: PortForwarding::default(),
            pid: NamespaceMode::Private,
            ipc: NamespaceMode::Private,
            uts: NamespaceMode::Private,
            cgroup_namespace: NamespaceMode::Private,
            user_namespace: UserNamespace::Default,
            resources: Resources::default(),
            cgroup_parent: None,
            devices: Vec::new(),
            cdi_devices: Vec::new(),
            cdi_directories: Vec::new(),
            gpus: Vec::new(),
            device_rules: Vec::new(),
            ulimits: Vec::new(),
            sysctls: BTreeMap::new(),
            shm_size: 64 << 20,
            no_shm: false,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            privileged: false,
            system_paths_unconfined: false,
            no_new_privileges: false,
            seccomp: Seccomp::Default,
            read_only: false,
            init: false,
            terminal: false,
            interactive: false,
            oom_score_adj: None,
            stop_signal: None,
            stop_timeout: Duration::from_secs(10),
            ready: Vec::new(),
            ready_timeout: Duration::from_secs(60),
            auto_remove: false,
            log: LogConfig::default(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            restart: RestartPolicy::No,
            health: None,
        }
    }
}
