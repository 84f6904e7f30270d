//! What the user wrote: a container as plain data.
//!
//! [`ContainerSpec`] is to [`crate::Container`] what `std::process::Command` is to `Child`: one type,
//! setters in any order that cannot fail, everything validated once when it is planned.

mod env;
mod isolation;
mod mounts;
mod parse;
mod ports;
mod ready;

pub use env::{parse_env_file, parse_env_flag};
pub use isolation::{NamespaceMode, NetworkMode, Resources, Seccomp, UserNamespace};
pub use mounts::{Mount, MountSource};
pub use parse::{ParseError, parse_size};
pub use ports::{PortMapping, Protocol};
pub use ready::Ready;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// NIS domain name.
    pub domainname: Option<String>,
    /// More lines for `/etc/hosts`.
    pub extra_hosts: Vec<(String, String)>,
    /// Ports of the container that are reachable on the host.
    pub ports: Vec<PortMapping>,
    /// Binds, volumes and tmpfs, in order.
    pub mounts: Vec<Mount>,
    /// The network the container joins.
    pub network: NetworkMode,
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
    /// `(name, soft, hard)`, names as `ulimit` options of docker: `nofile`, `nproc`...
    pub ulimits: Vec<(String, u64, u64)>,
    /// Kernel parameters of the container's own namespaces, by dotted name.
    pub sysctls: BTreeMap<String, String>,
    /// Size of `/dev/shm` in bytes; 64 MiB by default.
    pub shm_size: u64,
    /// Capabilities beyond Docker's default ones, `ALL` for all.
    pub cap_add: Vec<String>,
    /// Capabilities taken away, `ALL` for all.
    pub cap_drop: Vec<String>,
    /// All capabilities, no seccomp filter, no masked paths, writable sysfs, the host's devices.
    pub privileged: bool,
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
    /// How long `stop` waits before SIGKILL; 10 s by default.
    pub stop_timeout: Duration,
    /// When the container counts as ready; `start` returns after that.
    pub ready: Vec<Ready>,
    /// How long `start` waits for readiness; 60 s by default.
    pub ready_timeout: Duration,
    /// The container is removed, with its anonymous volumes, when it ends.
    pub auto_remove: bool,
    /// Free text kept with the container.
    pub labels: BTreeMap<String, String>,
}

impl Default for ContainerSpec {
    fn default() -> Self {
        Self {
            image: String::new(),
            name: None,
            entrypoint: None,
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            user: None,
            groups: Vec::new(),
            umask: None,
            hostname: None,
            domainname: None,
            extra_hosts: Vec::new(),
            ports: Vec::new(),
            mounts: Vec::new(),
            network: NetworkMode::Default,
            pid: NamespaceMode::Private,
            ipc: NamespaceMode::Private,
            uts: NamespaceMode::Private,
            cgroup_namespace: NamespaceMode::Private,
            user_namespace: UserNamespace::Default,
            resources: Resources::default(),
            ulimits: Vec::new(),
            sysctls: BTreeMap::new(),
            shm_size: 64 << 20,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            privileged: false,
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
            labels: BTreeMap::new(),
        }
    }
}

impl ContainerSpec {
    /// A container of `image` (a reference or an image id) with docker's defaults.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            ..Self::default()
        }
    }
    /// Names the container.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
    /// Replaces the image's entry point; an empty one removes it.
    pub fn entrypoint<I: IntoIterator<Item: Into<String>>>(mut self, args: I) -> Self {
        self.entrypoint = Some(args.into_iter().map(Into::into).collect());
        self
    }
    /// Adds one argument (the image's command is replaced by all of them).
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }
    /// Adds arguments.
    pub fn args<I: IntoIterator<Item: Into<String>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
    /// Sets an environment variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
    /// Sets the working directory.
    pub fn working_dir(mut self, path: impl Into<String>) -> Self {
        self.working_dir = Some(path.into());
        self
    }
    /// Sets the user (`user[:group]`, names or numbers).
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }
    /// Sets the host name.
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = Some(name.into());
        self
    }
    /// Publishes a port.
    pub fn publish(mut self, port: PortMapping) -> Self {
        self.ports.push(port);
        self
    }
    /// Adds a mount.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }
    /// Sets the network.
    pub fn network(mut self, network: NetworkMode) -> Self {
        self.network = network;
        self
    }
    /// Adds a readiness condition; `start` waits for all of them.
    pub fn ready_when(mut self, ready: Ready) -> Self {
        self.ready.push(ready);
        self
    }
    /// Sets how long `start` waits for readiness.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }
    /// Limits memory, in bytes.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.resources.memory = Some(bytes);
        self
    }
    /// Limits processor time, in processors (1.5 is one and a half).
    pub fn cpus(mut self, cpus: f64) -> Self {
        self.resources.cpus = Some(cpus);
        self
    }
    /// Limits the number of processes.
    pub fn pids_limit(mut self, limit: u64) -> Self {
        self.resources.pids = Some(limit);
        self
    }
    /// Adds a label.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }
    /// Gives the container a terminal.
    pub fn terminal(mut self, terminal: bool) -> Self {
        self.terminal = terminal;
        self
    }
    /// Keeps stdin open.
    pub fn interactive(mut self, interactive: bool) -> Self {
        self.interactive = interactive;
        self
    }
    /// Runs a small init as pid 1.
    pub fn init(mut self, init: bool) -> Self {
        self.init = init;
        self
    }
    /// Makes the root file system read-only.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }
    /// Removes the container when it ends.
    pub fn auto_remove(mut self, auto_remove: bool) -> Self {
        self.auto_remove = auto_remove;
        self
    }
}
