//! A service: the containers that run one image in one way.

use super::{
    Build, Bytes, CommandLine, Condition, Deploy, DeviceRequest, Extra, Grant, Hosts, Number, Pairs,
    ServiceVolume, Time, Ulimit, model,
};
use serde_json::Value;
use std::collections::BTreeMap;

model! {
    /// One service with all its attributes, in the order in which they are printed.
    Service {
        /// Active only with one of these; always when there are none.
        profiles: Vec<String>,
        /// Annotations of its containers.
        annotations: Extra,
        /// Whether `up` shows its logs.
        attach: Option<bool>,
        /// How its image is built.
        build: Option<Build>,
        /// What `watch` does.
        develop: Option<Develop>,
        /// Limits of block devices.
        blkio_config: Option<BlkioConfig>,
        /// Capabilities that are added.
        cap_add: Vec<String>,
        /// Capabilities that are taken away.
        cap_drop: Vec<String>,
        /// The cgroup above that of its containers.
        cgroup_parent: Option<String>,
        /// `host` or `private` cgroup namespace.
        cgroup: Option<String>,
        /// Processors (Windows).
        cpu_count: Option<i64>,
        /// Share of the processors (Windows).
        cpu_percent: Option<Number>,
        /// Period of the quota in microseconds.
        cpu_period: Option<i64>,
        /// Microseconds of processor time in each period.
        cpu_quota: Option<i64>,
        /// Period of realtime scheduling in microseconds.
        cpu_rt_period: Option<i64>,
        /// Microseconds of realtime in each period.
        cpu_rt_runtime: Option<i64>,
        /// Processors.
        cpus: Option<Number>,
        /// Which processors.
        cpuset: Option<String>,
        /// Weight against others; 1024 is the default.
        cpu_shares: Option<i64>,
        /// Replaces the image's command; an empty list takes it away.
        command: CommandLine,
        /// Configs it gets.
        configs: Vec<Grant>,
        /// The name of its only container.
        container_name: Option<String>,
        /// Credentials of a managed account (Windows).
        credential_spec: Option<CredentialSpec>,
        /// What must be there before it starts.
        depends_on: BTreeMap<String, Dependency>,
        /// How many, what they may use.
        deploy: Option<Deploy>,
        /// Rules for devices (`c 1:3 mr`).
        device_cgroup_rules: Vec<String>,
        /// Devices of the host.
        devices: Vec<Device>,
        /// Name servers.
        dns: Vec<String>,
        /// Options of the resolver.
        dns_opt: Vec<String>,
        /// Domains that are searched.
        dns_search: Vec<String>,
        /// The domain of the container.
        domainname: Option<String>,
        /// Replaces the image's entry point; an empty list takes it away.
        entrypoint: CommandLine,
        /// A program that provides it instead of containers.
        provider: Option<Provider>,
        /// Variables; one without a value is unset.
        environment: Pairs,
        /// Files with variables; already part of `environment` unless the loader was told to keep them.
        env_file: Vec<EnvFile>,
        /// Ports for other containers.
        expose: Vec<String>,
        /// Containers of others, with aliases.
        external_links: Vec<String>,
        /// Lines of the hosts file.
        extra_hosts: Hosts,
        /// More groups.
        group_add: Vec<String>,
        /// GPUs.
        gpus: Vec<DeviceRequest>,
        /// Host name.
        hostname: Option<String>,
        /// How its health is known.
        healthcheck: Option<HealthCheck>,
        /// The image; absent when it is built, then it is `<project>-<service>`.
        image: Option<String>,
        /// A small init as pid 1.
        init: Option<bool>,
        /// IPC namespace.
        ipc: Option<String>,
        /// Isolation technology (Windows).
        isolation: Option<String>,
        /// Labels of its containers.
        labels: Extra,
        /// Files with labels; already part of `labels`.
        label_file: Vec<String>,
        /// Other services, with aliases.
        links: Vec<String>,
        /// Where its output goes.
        logging: Option<Logging>,
        /// Memory limit.
        mem_limit: Option<Bytes>,
        /// Memory that is kept under pressure.
        mem_reservation: Option<Bytes>,
        /// Limit of memory and swap together.
        memswap_limit: Option<Bytes>,
        /// How willingly memory is swapped out, 0 to 100.
        mem_swappiness: Option<i64>,
        /// Its hardware address.
        mac_address: Option<String>,
        /// Models it uses.
        models: BTreeMap<String, Option<ServiceModel>>,
        /// `host`, `none`, `bridge`, `service:NAME` or `container:NAME`.
        network_mode: Option<String>,
        /// Networks it joins.
        networks: BTreeMap<String, Option<ServiceNetwork>>,
        /// It is not killed when memory runs out.
        oom_kill_disable: bool,
        /// -1000 to 1000.
        oom_score_adj: Option<i64>,
        /// Process namespace.
        pid: Option<String>,
        /// The most processes; -1 is no limit.
        pids_limit: Option<i64>,
        /// os/architecture[/variant]
        platform: Option<String>,
        /// Published ports.
        ports: Vec<Port>,
        /// All rights.
        privileged: bool,
        /// When its image is pulled.
        pull_policy: Option<String>,
        /// When a pulled image is old.
        pull_refresh_after: Option<String>,
        /// The root file system cannot be written.
        read_only: bool,
        /// `no`, `always`, `on-failure[:N]` or `unless-stopped`.
        restart: Option<String>,
        /// The OCI runtime.
        runtime: Option<String>,
        /// How many containers.
        scale: Option<i64>,
        /// Secrets it gets.
        secrets: Vec<Grant>,
        /// `no-new-privileges`, `seccomp=...`, `label=...`, `apparmor=...`.
        security_opt: Vec<String>,
        /// Size of `/dev/shm`.
        shm_size: Option<Bytes>,
        /// Its input stays open.
        stdin_open: bool,
        /// Time between the stop signal and SIGKILL.
        stop_grace_period: Option<Time>,
        /// Signal that stops it.
        stop_signal: Option<String>,
        /// For the storage driver.
        storage_opt: Extra,
        /// Kernel parameters of its namespaces.
        sysctls: Extra,
        /// File systems in memory.
        tmpfs: Vec<String>,
        /// It has a terminal.
        tty: bool,
        /// Limits of its processes.
        ulimits: BTreeMap<String, Ulimit>,
        /// The socket of the container engine is mounted.
        use_api_socket: bool,
        /// User or uid, with :group.
        user: Option<String>,
        /// User namespace.
        userns_mode: Option<String>,
        /// UTS namespace.
        uts: Option<String>,
        /// Mounts.
        volumes: Vec<ServiceVolume>,
        /// Services and containers whose mounts it shares.
        volumes_from: Vec<String>,
        /// Working directory.
        working_dir: Option<String>,
        /// Runs before its containers start.
        pre_start: Vec<Hook>,
        /// Runs in or beside a container when it has started.
        post_start: Vec<Hook>,
        /// Runs before a container stops.
        pre_stop: Vec<Hook>,
    }
}

/// What a service needs another one for.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Dependency {
    /// When it is met.
    pub condition: Condition,
    /// It restarts when the other does.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
    /// Without it the service cannot run; otherwise it is waited for if it is there. The default.
    pub required: bool,
    /// The `x-*` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

impl Default for Dependency {
    fn default() -> Self {
        Self {
            condition: Condition::Started,
            restart: false,
            required: true,
            extensions: super::Extensions::new(),
        }
    }
}

model! {
    /// A published port.
    Port {
        /// A name for people.
        name: Option<String>,
        /// `host` or `ingress`.
        mode: Option<String>,
        /// The address of the host.
        host_ip: Option<String>,
        /// The port in the container.
        target: i64,
        /// The port of the host, or a range from which a free one is taken; absent for any.
        published: Option<String>,
        /// `tcp`, `udp` or `sctp`.
        protocol: Option<String>,
        /// What is spoken there.
        app_protocol: Option<String>,
    }
}

model! {
    /// How a service takes part in a network.
    ServiceNetwork {
        /// More names.
        aliases: Vec<String>,
        /// For the driver.
        driver_opts: Extra,
        /// The highest is the way out.
        gw_priority: i64,
        /// Name of the interface in the container.
        interface_name: Option<String>,
        /// A fixed IPv4 address.
        ipv4_address: Option<String>,
        /// A fixed IPv6 address.
        ipv6_address: Option<String>,
        /// Link-local addresses.
        link_local_ips: Vec<String>,
        /// Hardware address.
        mac_address: Option<String>,
        /// The higher is connected first.
        priority: i64,
    }
}

model! {
    /// How health is known.
    HealthCheck {
        /// `NONE`, `CMD` and arguments, or `CMD-SHELL` and a command.
        test: Vec<String>,
        /// How long one may take.
        timeout: Option<Time>,
        /// Time between two.
        interval: Option<Time>,
        /// How many failures are too many.
        retries: Option<i64>,
        /// Failures do not count so long.
        start_period: Option<Time>,
        /// Time between two in the start period.
        start_interval: Option<Time>,
        /// The image's is not used either.
        disable: bool,
    }
}

model! {
    /// Where output goes.
    Logging {
        /// The driver.
        driver: Option<String>,
        /// For the driver.
        options: Pairs,
    }
}

model! {
    /// A device of the host.
    Device {
        /// Its path, or its name in the Container Device Interface.
        source: String,
        /// Its path in the container.
        target: Option<String>,
        /// Of `r`, `w`, `m`.
        permissions: Option<String>,
    }
}

model! {
    /// A file with variables.
    EnvFile {
        /// The file.
        path: String,
        /// It must be there.
        required: Option<bool>,
        /// `raw`: nothing in it has a meaning.
        format: Option<String>,
    }
}

model! {
    /// A command around the life of a container.
    Hook {
        /// The command.
        command: Option<Vec<String>>,
        /// Runs in a container of this image (only before the start).
        image: Option<String>,
        /// User.
        user: Option<String>,
        /// With all rights.
        privileged: bool,
        /// Working directory.
        working_dir: Option<String>,
        /// Variables.
        environment: Pairs,
        /// Once for each container, not once for the service.
        per_replica: bool,
    }
}

model! {
    /// Limits of block devices.
    BlkioConfig {
        /// Weight against others, 10 to 1000.
        weight: Option<i64>,
        /// The same for one device.
        weight_device: Vec<BlkioWeight>,
        /// Bytes read per second.
        device_read_bps: Vec<BlkioRate>,
        /// Reads per second.
        device_read_iops: Vec<BlkioRate>,
        /// Bytes written per second.
        device_write_bps: Vec<BlkioRate>,
        /// Writes per second.
        device_write_iops: Vec<BlkioRate>,
    }
}

model! {
    /// The weight for one device.
    BlkioWeight {
        /// The device.
        path: String,
        /// 10 to 1000.
        weight: i64,
    }
}

model! {
    /// The limit for one device.
    BlkioRate {
        /// The device.
        path: String,
        /// Per second.
        rate: Bytes,
    }
}

model! {
    /// Credentials of a managed account (Windows).
    CredentialSpec {
        /// A config.
        config: Option<String>,
        /// A file.
        file: Option<String>,
        /// A key of the registry.
        registry: Option<String>,
    }
}

model! {
    /// A program that provides a service.
    Provider {
        /// Its name.
        r#type: String,
        /// For the program.
        options: BTreeMap<String, Vec<String>>,
    }
}

model! {
    /// How a service uses a model.
    ServiceModel {
        /// The variable that gets its address.
        endpoint_var: Option<String>,
        /// The variable that gets its name.
        model_var: Option<String>,
    }
}

model! {
    /// What `watch` does.
    Develop {
        /// Rules.
        watch: Vec<Watch>,
    }
}

model! {
    /// A rule of `watch`.
    Watch {
        /// What is watched.
        path: String,
        /// `rebuild`, `restart`, `sync`, `sync+restart` or `sync+exec`.
        action: String,
        /// Where files go in the container.
        target: Option<String>,
        /// What runs after a `sync+exec`.
        exec: Option<Hook>,
        /// Only these patterns.
        include: Vec<String>,
        /// Not these patterns.
        ignore: Vec<String>,
        /// Everything is copied once at the start.
        initial_sync: bool,
    }
}

impl Service {
    /// How many containers it has: `scale`, else `deploy.replicas`, else one.
    pub fn replicas(&self) -> u32 {
        let count = self
            .scale
            .or_else(|| self.deploy.as_ref().and_then(|deploy| deploy.replicas));
        u32::try_from(count.unwrap_or(1).max(0)).unwrap_or(u32::MAX)
    }

    /// The same as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}
