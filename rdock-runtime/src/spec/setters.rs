//! Setters: in any order, and none can fail. Everything is validated when the container is planned.

use super::{
    ContainerSpec, HealthCheck, LogConfig, Mount, NamespaceMode, NetworkJoin, PortForwarding, PortMapping,
    Protocol, Ready, RestartPolicy, Seccomp,
};
use std::net::IpAddr;
use std::time::Duration;

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
    /// Takes a variable of the image away.
    pub fn unset_env(mut self, name: impl Into<String>) -> Self {
        self.unset_env.push(name.into());
        self
    }
    /// Adds a secret.
    pub fn secret(mut self, secret: super::Secret) -> Self {
        self.secrets.push(secret);
        self
    }
    /// Adds a config: a secret whose file is `/NAME` where no other path was set.
    pub fn config(mut self, mut config: super::Secret) -> Self {
        let usual = format!("/run/secrets/{}", config.name);
        if let super::SecretTarget::File { path, .. } = &mut config.target
            && *path == usual
        {
            *path = format!("/{}", config.name);
        }
        self.secrets.push(config);
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
    /// Adds the volumes and binds of another container.
    pub fn volumes_from(mut self, container: impl Into<String>) -> Self {
        self.volumes_from.push(super::VolumesFrom::new(container));
        self
    }
    /// Joins a network (its name, or an [`super::EndpointSpec`] with aliases and addresses), beside those joined
    /// already; or sets the mode (a [`super::NetworkMode`], `host`, `none`, `container:NAME`).
    pub fn network(mut self, network: impl Into<NetworkJoin>) -> Self {
        match network.into() {
            NetworkJoin::Mode(mode) => self.network = mode,
            NetworkJoin::Endpoint(endpoint) => self.networks.push(endpoint),
        }
        self
    }
    /// Adds a name server that is asked instead of the host's.
    pub fn dns(mut self, server: impl Into<IpAddr>) -> Self {
        self.dns.push(server.into());
        self
    }
    /// Adds a search domain.
    pub fn dns_search(mut self, domain: impl Into<String>) -> Self {
        self.dns_search.push(domain.into());
        self
    }
    /// Adds an option of resolv.conf(5).
    pub fn dns_option(mut self, option: impl Into<String>) -> Self {
        self.dns_options.push(option.into());
        self
    }
    /// Says that the container serves a port.
    pub fn expose(mut self, port: u16, protocol: Protocol) -> Self {
        self.expose.push((port, protocol));
        self
    }
    /// Publishes every exposed port, those of the image too.
    pub fn publish_all(mut self, publish: bool) -> Self {
        self.publish_all = publish;
        self
    }
    /// Sets how published ports reach the container.
    pub fn port_forwarding(mut self, forwarding: PortForwarding) -> Self {
        self.port_forwarding = forwarding;
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
    /// Sets the control group that the container's are made in.
    pub fn cgroup_parent(mut self, group: impl Into<String>) -> Self {
        self.cgroup_parent = Some(group.into());
        self
    }
    /// Gives the container a device of the host: a [`super::Device`] by its node, a [`super::CdiDevice`] by its name.
    pub fn device(mut self, device: impl Into<super::ContainerDevice>) -> Self {
        match device.into() {
            super::ContainerDevice::Node(device) => self.devices.push(device),
            super::ContainerDevice::Cdi(device) => self.cdi_devices.push(device),
        }
        self
    }
    /// Adds a directory of CDI specification files; with any, those of the host are not looked at.
    pub fn cdi_directory(mut self, directory: impl Into<std::path::PathBuf>) -> Self {
        self.cdi_directories.push(directory.into());
        self
    }
    /// Gives the container GPUs of the host.
    pub fn gpus(mut self, request: super::GpuRequest) -> Self {
        self.gpus.push(request);
        self
    }
    /// Allows something with devices.
    pub fn device_rule(mut self, rule: super::DeviceRule) -> Self {
        self.device_rules.push(rule);
        self
    }
    /// Says where output is kept, and how much of it.
    pub fn log(mut self, log: LogConfig) -> Self {
        self.log = log;
        self
    }
    /// Adds a label.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }
    /// Adds a link to another container, which is called `alias` here.
    pub fn link(mut self, container: impl Into<String>, alias: impl Into<String>) -> Self {
        self.links.push((container.into(), alias.into()));
        self
    }
    /// Adds an annotation.
    pub fn annotation(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(name.into(), value.into());
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

    /// Sets the NIS domain name.
    pub fn domainname(mut self, name: impl Into<String>) -> Self {
        self.domainname = Some(name.into());
        self
    }
    /// Adds a line to `/etc/hosts`; `host-gateway` as the address means the host.
    pub fn extra_host(mut self, name: impl Into<String>, address: impl Into<String>) -> Self {
        self.extra_hosts.push((name.into(), address.into()));
        self
    }
    /// Adds a supplementary group, by name or number.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.groups.push(group.into());
        self
    }
    /// Sets the file mode creation mask.
    pub fn umask(mut self, mask: u32) -> Self {
        self.umask = Some(mask);
        self
    }
    /// Sets a resource limit: its name as docker has it (`nofile`), the soft and the hard limit.
    pub fn ulimit(mut self, name: impl Into<String>, soft: u64, hard: u64) -> Self {
        self.ulimits.push((name.into(), soft, hard));
        self
    }
    /// Sets a kernel parameter of the container's own namespaces.
    pub fn sysctl(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.sysctls.insert(name.into(), value.into());
        self
    }
    /// Sets the size of `/dev/shm`, in bytes.
    pub fn shm_size(mut self, bytes: u64) -> Self {
        self.shm_size = bytes;
        self
    }
    /// Adds a capability, `ALL` for all.
    pub fn cap_add(mut self, name: impl Into<String>) -> Self {
        self.cap_add.push(name.into());
        self
    }
    /// Takes a capability away, `ALL` for all.
    pub fn cap_drop(mut self, name: impl Into<String>) -> Self {
        self.cap_drop.push(name.into());
        self
    }
    /// Takes away nearly every boundary between the container and the host.
    pub fn privileged(mut self, privileged: bool) -> Self {
        self.privileged = privileged;
        self
    }
    /// Masks nothing of `/proc` and `/sys`.
    pub fn system_paths_unconfined(mut self, unconfined: bool) -> Self {
        self.system_paths_unconfined = unconfined;
        self
    }
    /// Keeps programs in the container from gaining privileges by setuid bits or file capabilities.
    pub fn no_new_privileges(mut self, no_new_privileges: bool) -> Self {
        self.no_new_privileges = no_new_privileges;
        self
    }
    /// Sets the system call filter.
    pub fn seccomp(mut self, seccomp: Seccomp) -> Self {
        self.seccomp = seccomp;
        self
    }
    /// Sets how readily the kernel kills the container when memory runs out, -1000 to 1000.
    pub fn oom_score_adj(mut self, score: i32) -> Self {
        self.oom_score_adj = Some(score);
        self
    }
    /// Sets the signal that `stop` sends: a name or a number.
    pub fn stop_signal(mut self, signal: impl Into<String>) -> Self {
        self.stop_signal = Some(signal.into());
        self
    }
    /// Sets how long `stop` waits before SIGKILL.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = timeout;
        self
    }
    /// Sets whether the payload is run again when it ends.
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.restart = policy;
        self
    }
    /// Sets how its health is checked.
    pub fn health(mut self, check: HealthCheck) -> Self {
        self.health = Some(check);
        self
    }
    /// Sets where the pid namespace comes from.
    pub fn pid(mut self, mode: NamespaceMode) -> Self {
        self.pid = mode;
        self
    }
    /// Sets where the ipc namespace comes from.
    pub fn ipc(mut self, mode: NamespaceMode) -> Self {
        self.ipc = mode;
        self
    }
    /// Sets where the cgroup namespace comes from.
    pub fn cgroup_namespace(mut self, mode: NamespaceMode) -> Self {
        self.cgroup_namespace = mode;
        self
    }
    /// Sets where the uts namespace, with the host name, comes from.
    pub fn uts(mut self, mode: NamespaceMode) -> Self {
        self.uts = mode;
        self
    }
}
