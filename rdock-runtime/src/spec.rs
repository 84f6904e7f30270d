//! What the user wrote: a container as plain data.
//!
//! [`ContainerSpec`] is to [`crate::Container`] what `std::process::Command` is to `Child`: one type,
//! setters in any order that cannot fail, everything validated once when it is planned.

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
        Self { image: image.into(), ..Self::default() }
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

/// One port of the container and where it appears on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PortMapping {
    /// The container's port.
    pub container: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The host's port; a free one when `None`.
    pub host: Option<u16>,
    /// The host's address; all of IPv4 and IPv6 when `None`.
    pub host_ip: Option<IpAddr>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl PortMapping {
    /// A TCP port, on a free port of 127.0.0.1: what a test wants. See [`Self::on_host`].
    pub fn tcp(container: u16) -> Self {
        Self { container, protocol: Protocol::Tcp, host: None, host_ip: Some(IpAddr::from([127, 0, 0, 1])) }
    }
    /// A UDP port, on a free port of 127.0.0.1.
    pub fn udp(container: u16) -> Self {
        Self { protocol: Protocol::Udp, ..Self::tcp(container) }
    }
    /// Chooses the host's port.
    pub fn on_host(mut self, port: u16) -> Self {
        self.host = Some(port);
        self
    }
    /// Chooses the host's address; `0.0.0.0` for every IPv4 one.
    pub fn on_address(mut self, address: impl Into<IpAddr>) -> Self {
        self.host_ip = Some(address.into());
        self
    }
    /// Listens on every address of the host, IPv4 and IPv6, as `docker run -p` does.
    pub fn on_every_address(mut self) -> Self {
        self.host_ip = None;
        self
    }
}

/// Something mounted into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mount {
    /// Absolute path inside the container.
    pub target: String,
    /// Where it comes from.
    pub source: MountSource,
    /// Cannot be written.
    pub read_only: bool,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MountSource {
    /// A file or directory of the host.
    Bind {
        /// Absolute, or relative to the working directory of the caller at `start`.
        path: PathBuf,
        /// Makes a missing directory (docker's `-v`); otherwise a missing source is an error (`--mount`).
        create: bool,
        /// `private`, `rprivate`, `slave`, `rslave`, `shared`, `rshared`.
        propagation: Option<String>,
    },
    /// A named volume, made when missing; anonymous (removed with the container) when `None`.
    Volume {
        /// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`
        name: Option<String>,
        /// Do not fill an empty volume with what the image has at the target.
        no_copy: bool,
        /// A directory inside the volume.
        subpath: Option<PathBuf>,
    },
    /// Memory.
    Tmpfs {
        /// Bytes; half of the memory when `None`.
        size: Option<u64>,
        /// Mode of its root directory; 1777 when `None`.
        mode: Option<u32>,
        /// More mount options, each as mount(8) writes them (`noexec`, `uid=1000`).
        options: Vec<String>,
    },
}

impl Mount {
    /// A bind of `source` (must exist) at `target`.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            source: MountSource::Bind { path: source.into(), create: false, propagation: None },
            read_only: false,
        }
    }
    /// The named volume at `target`.
    pub fn volume(name: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            source: MountSource::Volume { name: Some(name.into()), no_copy: false, subpath: None },
            read_only: false,
        }
    }
    /// An empty tmpfs at `target`.
    pub fn tmpfs(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            source: MountSource::Tmpfs { size: None, mode: None, options: Vec::new() },
            read_only: false,
        }
    }
    /// Cannot be written.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
}

/// The network a container joins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NetworkMode {
    /// The default network: an address of its own, egress, published ports.
    #[default]
    Default,
    /// The host's; ports are not published.
    Host,
    /// `lo` alone.
    None,
    /// That of another container, by name or id.
    Container(String),
}

/// Where a namespace comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NamespaceMode {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container, by name or id.
    Container(String),
}

/// Ids of the container as ids of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UserNamespace {
    /// None as root; the caller's own id as 0 otherwise.
    #[default]
    Default,
    /// `(inside, outside, count)`.
    Mapped {
        /// User ids.
        uids: Vec<(u32, u32, u32)>,
        /// Group ids.
        gids: Vec<(u32, u32, u32)>,
    },
}

/// Limits of a container; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Resources {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together.
    pub memory_swap: Option<u64>,
    /// Bytes below which memory is not reclaimed first.
    pub memory_reservation: Option<u64>,
    /// Processors.
    pub cpus: Option<f64>,
    /// Relative weight, 2 to 262144; 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Processors that may be used, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// The system call filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Seccomp {
    /// Docker's default profile, for the container's capabilities.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile in Docker's JSON format.
    Profile(String),
}

/// When a container counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ready {
    /// A line of stdout or stderr contains `text`, `times` times.
    Log {
        /// Looked for in each line.
        text: String,
        /// How many lines must have it.
        times: u32,
    },
    /// Something listens on this TCP port and a connection stays open.
    Port(u16),
    /// The command exits with 0 inside.
    Exec(Vec<String>),
    /// `GET path` on this port answers with the status.
    Http {
        /// The container's port.
        port: u16,
        /// Begins with `/`.
        path: String,
        /// Expected status; any of 200 to 399 when `None`.
        status: Option<u16>,
    },
}

impl Ready {
    /// A log line contains `text`.
    pub fn log(text: impl Into<String>) -> Self {
        Self::Log { text: text.into(), times: 1 }
    }
    /// A server listens on the TCP port.
    pub fn port(port: u16) -> Self {
        Self::Port(port)
    }
    /// A command exits with 0.
    pub fn exec<I: IntoIterator<Item: Into<String>>>(args: I) -> Self {
        Self::Exec(args.into_iter().map(Into::into).collect())
    }
    /// An HTTP path answers with a success or a redirect.
    pub fn http(port: u16, path: impl Into<String>) -> Self {
        Self::Http { port, path: path.into(), status: None }
    }
}
