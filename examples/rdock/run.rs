//! `rdock run`.

use crate::foreign::Foreign;
use crate::lifetime::{Connection, Lifetime};
use crate::limits::{Devices, Limits};
use crate::{Failure, Outcome, attach, chain, streams};
use clap::{Args, ValueEnum};
use rdock_runtime::image::{Platform, Progress, Reference};
use rdock_runtime::{
    ContainerSpec, EndpointSpec, Mount, MountSource, NamespaceMode, NetworkJoin, NetworkMode, PortForwarding,
    PortMapping, Runtime, Seccomp, VolumesFrom, parse_env_file, parse_env_flag, parse_exposed, parse_size,
};
use std::path::PathBuf;

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PullPolicy {
    Always,
    Missing,
    Never,
}

/// What can be connected to this terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

/// See [`PortForwarding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Forwarding {
    Splice,
    Kernel,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Run {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Connect only these to this terminal: stdin, stdout, stderr
    #[arg(short, long, value_enum, ignore_case = true)]
    attach: Vec<Stream>,
    /// Keep stdin open
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// Set an environment variable (NAME=VALUE, or NAME to take this shell's)
    #[arg(short, long)]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long)]
    env_file: Vec<PathBuf>,
    /// Publish a port ([HOST:][PORT:]CONTAINER[/udp])
    #[arg(short, long)]
    publish: Vec<String>,
    /// Publish every port the image exposes on a free port
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// How published ports reach the container: by this program (splice) or the kernel, which keeps clients' addresses
    #[arg(long, value_enum, default_value = "splice")]
    port_forwarding: Forwarding,
    /// Bind a path or mount a volume (SOURCE:TARGET[:ro])
    #[arg(short, long)]
    volume: Vec<String>,
    /// Give a secret as a file or a variable (NAME,src=FILE|env=VARIABLE[,type=mount|env][,target=][,uid=][,gid=][,mode=])
    #[arg(long)]
    secret: Vec<String>,
    /// Mount the volumes of another container (CONTAINER[:ro|:rw])
    #[arg(long)]
    volumes_from: Vec<String>,
    /// Mount something (type=bind|volume|tmpfs|image,source=...,target=...)
    #[arg(long)]
    mount: Vec<String>,
    /// Mount a tmpfs (TARGET[:OPTIONS])
    #[arg(long)]
    tmpfs: Vec<String>,
    /// A network to join (NAME, name=NAME,alias=..,ip=..), host, none or container:NAME
    #[arg(long, alias = "net")]
    network: Vec<String>,
    /// Another container of the network, and its name here (CONTAINER[:ALIAS])
    #[arg(long)]
    link: Vec<String>,
    /// One more name in the network
    #[arg(long, alias = "net-alias")]
    network_alias: Vec<String>,
    /// IPv4 address in the network
    #[arg(long)]
    ip: Option<std::net::Ipv4Addr>,
    /// IPv6 address in the network
    #[arg(long)]
    ip6: Option<std::net::Ipv6Addr>,
    /// Link-local address of the interface
    #[arg(long)]
    link_local_ip: Vec<std::net::IpAddr>,
    /// Hardware address of the interface (02:42:ac:11:00:02)
    #[arg(long)]
    mac_address: Option<String>,
    /// A name server instead of the host's
    #[arg(long)]
    dns: Vec<std::net::IpAddr>,
    /// A search domain instead of the host's
    #[arg(long)]
    dns_search: Vec<String>,
    /// An option of resolv.conf instead of the host's
    #[arg(long, alias = "dns-opt")]
    dns_option: Vec<String>,
    /// A port that the container serves (PORT[/udp]), for -P
    #[arg(long)]
    expose: Vec<String>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// User or uid, with :group
    #[arg(short, long)]
    user: Option<String>,
    /// More groups
    #[arg(long)]
    group_add: Vec<String>,
    /// Replaces the image's entry point
    #[arg(long)]
    entrypoint: Option<String>,
    /// Host name
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// A line for /etc/hosts (NAME:ADDRESS)
    #[arg(long)]
    add_host: Vec<String>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    devices: Devices,
    /// A limit of ulimit (NAME=SOFT[:HARD])
    #[arg(long)]
    ulimit: Vec<String>,
    /// A kernel parameter of the container (NAME=VALUE)
    #[arg(long)]
    sysctl: Vec<String>,
    /// Size of /dev/shm
    #[arg(long)]
    shm_size: Option<String>,
    /// Add a capability
    #[arg(long)]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long)]
    cap_drop: Vec<String>,
    /// All capabilities, no filter, every device
    #[arg(long)]
    privileged: bool,
    /// no-new-privileges, seccomp=unconfined or seccomp=FILE, systempaths=unconfined
    #[arg(long)]
    security_opt: Vec<String>,
    /// The root file system cannot be written
    #[arg(long)]
    read_only: bool,
    /// A small init as pid 1
    #[arg(long)]
    init: bool,
    /// host or container:NAME
    #[arg(long)]
    pid: Option<String>,
    /// host, private, shareable, none (without /dev/shm) or container:NAME
    #[arg(long)]
    ipc: Option<String>,
    /// host
    #[arg(long)]
    uts: Option<String>,
    /// host or private
    #[arg(long)]
    cgroupns: Option<String>,
    /// host: no user namespace beyond the one that a plain user needs
    #[arg(long)]
    userns: Option<String>,
    /// NIS domain name
    #[arg(long)]
    domainname: Option<String>,
    /// Where output is kept: json-file, local or none
    #[arg(long)]
    log_driver: Option<String>,
    /// How much of it is kept: max-size=10m, max-file=3, labels, env, tag
    #[arg(long)]
    log_opt: Vec<String>,
    /// An annotation (NAME=VALUE), kept with the container
    #[arg(long)]
    annotation: Vec<String>,
    /// A label (NAME=VALUE)
    #[arg(short, long)]
    label: Vec<String>,
    #[command(flatten)]
    lifetime: Lifetime,
    #[command(flatten)]
    connection: Connection,
    /// Signal that stops the container
    #[arg(long)]
    stop_signal: Option<String>,
    /// Seconds until SIGKILL when stopping, -1 for never
    #[arg(long, allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// -1000 to 1000
    #[arg(long, allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Write the container's id into this file
    #[arg(long)]
    cidfile: Option<PathBuf>,
    /// When to pull the image
    #[arg(long, value_enum, default_value = "missing")]
    pull: PullPolicy,
    /// Say nothing while an image is pulled
    #[arg(short, long)]
    quiet: bool,
    /// os/architecture[/variant]
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    foreign: Foreign,
    /// The image
    image: String,
    /// Command and arguments, instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn bad(error: impl std::error::Error) -> Failure {
    Failure {
        code: 125,
        ..Failure::new(chain(&error))
    }
}

fn wrong(message: String) -> Failure {
    Failure {
        code: 125,
        ..Failure::new(message)
    }
}

/// `NAME=VALUE`.
fn pair<'a>(flag: &str, text: &'a str) -> Result<(&'a str, &'a str), Failure> {
    text.split_once('=')
        .ok_or_else(|| wrong(format!("{flag} {text}: expected NAME=VALUE")))
}

impl Run {
    /// What the flags ask for.
    fn spec(&self) -> Result<ContainerSpec, Failure> {
        self.foreign.check()?;
        let mut spec = ContainerSpec::new(&self.image).args(self.command.clone());
        spec.name.clone_from(&self.name);
        spec.interactive = self.interactive;
        spec.terminal = self.tty;
        spec.auto_remove = self.rm;
        for path in &self.env_file {
            let text = std::fs::read(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
            spec.env
                .extend(parse_env_file(&text, |name| std::env::var(name).ok()).map_err(bad)?);
        }
        for text in &self.env {
            spec.env
                .extend(parse_env_flag(text, |name| std::env::var(name).ok()).map_err(bad)?);
        }
        for text in &self.publish {
            spec.ports.extend(PortMapping::parse(text).map_err(bad)?);
        }
        for text in &self.volume {
            spec.mounts.push(Mount::parse_volume_flag(text).map_err(bad)?);
        }
        for text in &self.secret {
            spec.secrets
                .push(rdock_runtime::Secret::parse(text).map_err(bad)?);
        }
        for text in &self.volumes_from {
            spec.volumes_from.push(VolumesFrom::parse(text).map_err(bad)?);
        }
        for text in &self.mount {
            spec.mounts.push(Mount::parse_mount_flag(text).map_err(bad)?);
        }
        for text in &self.tmpfs {
            spec.mounts.push(Mount::parse_tmpfs_flag(text).map_err(bad)?);
        }
        for mount in &mut spec.mounts {
            // The monitor has another working directory.
            if let MountSource::Bind { path, .. } = &mut mount.source {
                *path = std::path::absolute(&*path)?;
            }
        }
        self.networks(&mut spec)?;
        for (text, mode) in [
            (&self.pid, &mut spec.pid),
            (&self.ipc, &mut spec.ipc),
            (&self.uts, &mut spec.uts),
            (&self.cgroupns, &mut spec.cgroup_namespace),
        ] {
            if let Some(text) = text.as_deref().filter(|text| *text != "none") {
                *mode = NamespaceMode::parse(text).map_err(bad)?;
            }
        }
        spec.no_shm = self.ipc.as_deref() == Some("none");
        for (flag, text) in [
            ("--pid", &self.pid),
            ("--uts", &self.uts),
            ("--cgroupns", &self.cgroupns),
        ] {
            if text.as_deref() == Some("none") {
                return Err(wrong(format!(
                    "{flag} none: it is private, host or container:NAME"
                )));
            }
        }
        if let Some(text) = self
            .userns
            .as_deref()
            .filter(|text| !matches!(*text, "" | "host"))
        {
            return Err(wrong(format!(
                "--userns {text}: there is host alone; user namespaces with ids of their own are for callers of the library"
            )));
        }
        spec.domainname.clone_from(&self.domainname);
        spec.working_dir.clone_from(&self.workdir);
        spec.user.clone_from(&self.user);
        spec.groups.clone_from(&self.group_add);
        if let Some(entrypoint) = &self.entrypoint {
            spec.entrypoint = Some(if entrypoint.is_empty() {
                Vec::new()
            } else {
                vec![entrypoint.clone()]
            });
        }
        spec.hostname.clone_from(&self.hostname);
        for text in &self.add_host {
            let (name, address) = text
                .split_once([':', '='])
                .ok_or_else(|| wrong(format!("--add-host {text}: expected NAME:ADDRESS")))?;
            spec.extra_hosts.push((name.to_owned(), address.to_owned()));
        }
        self.limits.apply(&mut spec)?;
        self.devices.apply(&mut spec)?;
        for text in &self.ulimit {
            let (name, limits) = pair("--ulimit", text)?;
            let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
            let number = |text: &str| match text {
                "-1" | "unlimited" => Ok(u64::MAX),
                _ => text
                    .parse()
                    .map_err(|_| wrong(format!("--ulimit {name}: {text:?} is not a number"))),
            };
            spec.ulimits.push((name.to_owned(), number(soft)?, number(hard)?));
        }
        for text in &self.sysctl {
            let (name, value) = pair("--sysctl", text)?;
            spec.sysctls.insert(name.to_owned(), value.to_owned());
        }
        if let Some(text) = &self.shm_size {
            spec.shm_size = parse_size(text).map_err(bad)?;
        }
        spec.cap_add.clone_from(&self.cap_add);
        spec.cap_drop.clone_from(&self.cap_drop);
        spec.privileged = self.privileged;
        for text in &self.security_opt {
            self.security(text, &mut spec)?;
        }
        spec.read_only = self.read_only;
        spec.init = self.init;
        for text in &self.annotation {
            let (name, value) = pair("--annotation", text)?;
            spec.annotations.insert(name.to_owned(), value.to_owned());
        }
        for text in &self.label {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            spec.labels.insert(name.to_owned(), value.to_owned());
        }
        if let Some(name) = &self.log_driver {
            spec.log.parse_driver(name).map_err(bad)?;
        }
        for text in &self.log_opt {
            spec.log.parse_option(text).map_err(bad)?;
        }
        spec.stop_signal.clone_from(&self.stop_signal);
        if let Some(count) = self.stop_timeout {
            spec.stop_timeout = crate::container::seconds(count);
        }
        self.lifetime.apply(&mut spec)?;
        spec.oom_score_adj = self.oom_score_adj;
        Ok(spec)
    }

    fn networks(&self, spec: &mut ContainerSpec) -> Result<(), Failure> {
        for text in &self.network {
            match NetworkJoin::parse(text).map_err(bad)? {
                NetworkJoin::Mode(mode) => spec.network = mode,
                NetworkJoin::Endpoint(endpoint) => spec.networks.push(endpoint),
                _ => return Err(wrong(format!("--network {text}: not known here"))),
            }
        }
        let single = !(self.network_alias.is_empty() && self.link_local_ip.is_empty())
            || self.ip.is_some()
            || self.ip6.is_some()
            || self.mac_address.is_some();
        if single && spec.network == NetworkMode::Default {
            if spec.networks.is_empty() {
                spec.networks.push(EndpointSpec::new("default"));
            }
            // As docker: these are about the first network.
            let first = &mut spec.networks[0];
            first.aliases.extend(self.network_alias.iter().cloned());
            first.link_local.extend(&self.link_local_ip);
            first.ip = self.ip.or(first.ip);
            first.ip6 = self.ip6.or(first.ip6);
            first.mac = self.mac_address.clone().or(first.mac.take());
        } else if single {
            return Err(wrong(
                "--ip, --ip6, --mac-address, --network-alias and --link-local-ip need a network to join"
                    .into(),
            ));
        }
        for text in &self.link {
            let name = text.trim_start_matches('/');
            let (container, alias) = name.split_once(':').unwrap_or((name, name));
            let alias = alias.rsplit('/').next().unwrap_or(alias);
            if container.is_empty() || alias.is_empty() {
                return Err(wrong(format!("--link {text}: expected CONTAINER[:ALIAS]")));
            }
            spec.links.push((container.to_owned(), alias.to_owned()));
        }
        spec.dns.clone_from(&self.dns);
        spec.dns_search.clone_from(&self.dns_search);
        spec.dns_options.clone_from(&self.dns_option);
        for text in &self.expose {
            spec.expose.extend(parse_exposed(text).map_err(bad)?);
        }
        spec.publish_all = self.publish_all;
        spec.port_forwarding = match self.port_forwarding {
            Forwarding::Splice => PortForwarding::Splice,
            Forwarding::Kernel => PortForwarding::Kernel,
        };
        Ok(())
    }

    fn security(&self, text: &str, spec: &mut ContainerSpec) -> Result<(), Failure> {
        match text.split_once(['=', ':']).unwrap_or((text, "true")) {
            ("no-new-privileges", "true") => spec.no_new_privileges = true,
            ("no-new-privileges", "false") => spec.no_new_privileges = false,
            ("systempaths", "unconfined") => spec.system_paths_unconfined = true,
            // Containers run in their caller's domain.
            ("apparmor", "unconfined") | ("label", "disable") => {}
            ("seccomp", "unconfined") => spec.seccomp = Seccomp::Unconfined,
            ("seccomp", path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|error| wrong(format!("{path}: {error}")))?;
                spec.seccomp = Seccomp::Profile(text);
            }
            _ => return Err(wrong(format!("--security-opt {text}: not known here"))),
        }
        Ok(())
    }

    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        if self.detach && !self.attach.is_empty() {
            return Err(wrong(
                "conflicting options: cannot specify both --attach and --detach".to_owned(),
            ));
        }
        if self.tty && self.interactive && !self.detach && !streams::is_terminal() {
            return Err(wrong("the input device is not a TTY".to_owned()));
        }
        // Before anything is made for them.
        self.connection.keys()?;
        let spec = self.spec()?;
        self.bring_image(runtime).await?;
        self.check_cidfile()?;
        let (container, attached) = match self.detach {
            true => (spec.start_detached(runtime).await.map_err(Failure::of_run)?, None),
            false => {
                let started = spec.start_attached(runtime).await.map_err(Failure::of_run)?;
                let (container, mut attached) = started;
                let wanted = |stream| self.attach.is_empty() || self.attach.contains(&stream);
                if !wanted(Stream::Stdin) {
                    attached.stdin = None;
                }
                if !wanted(Stream::Stdout) {
                    attached.stdout = None;
                }
                if !wanted(Stream::Stderr) {
                    attached.stderr = None;
                }
                (container, Some(attached))
            }
        };
        if let Some(path) = &self.cidfile {
            std::fs::write(path, container.id())?;
        }
        // One that removed itself already has nothing more to say.
        for warning in container.inspect().map(|info| info.warnings).unwrap_or_default() {
            streams::say(&format!("WARNING: {warning}"));
        }
        match attached {
            None => {
                streams::print(container.id());
                Ok(0)
            }
            Some(attached) => {
                let (terminal, interactive) = (spec.terminal, self.interactive);
                attach::lend(&container, attached, terminal, interactive, &self.connection).await
            }
        }
    }

    /// `rdock create`: makes the container and prints its id.
    pub(crate) async fn create(self, runtime: &Runtime) -> Outcome {
        if self.detach || !self.connection.is_default() {
            return Err(wrong(
                "unknown flag: create takes no --detach, --detach-keys or --sig-proxy".to_owned(),
            ));
        }
        let spec = self.spec()?;
        self.bring_image(runtime).await?;
        self.check_cidfile()?;
        let container = spec.create(runtime).await.map_err(Failure::of_run)?;
        if let Some(path) = &self.cidfile {
            std::fs::write(path, container.id())?;
        }
        streams::print(container.id());
        Ok(0)
    }

    fn check_cidfile(&self) -> Result<(), Failure> {
        match &self.cidfile {
            Some(path) if path.exists() => Err(wrong(format!(
                "{} exists already: remove it, or another container has it",
                path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// The image is here afterwards.
    async fn bring_image(&self, runtime: &Runtime) -> Result<(), Failure> {
        let here = runtime.images().get(&self.image).map_err(|error| Failure {
            code: 125,
            ..error.into()
        })?;
        match (self.pull, here) {
            (PullPolicy::Missing | PullPolicy::Never, Some(_)) => {}
            (PullPolicy::Never, None) => return Err(wrong(format!("no such image: {}", self.image))),
            _ => {
                let reference = Reference::parse(&self.image).map_err(|error| Failure {
                    code: 125,
                    ..error.into()
                })?;
                if self.pull == PullPolicy::Missing && !self.quiet {
                    streams::say(&format!(
                        "Unable to find image '{}' locally",
                        reference.familiar()
                    ));
                }
                let platform = match &self.platform {
                    Some(text) => Platform::parse(text).map_err(|error| Failure {
                        code: 125,
                        ..error.into()
                    })?,
                    None => Platform::host(),
                };
                let screen = crate::pull::Screen::new(self.quiet, true);
                let progress: Progress = screen.progress();
                let pulled = runtime.pull_platform(&reference, &platform, &progress).await;
                screen.finish();
                pulled.map_err(Failure::of_run)?;
            }
        }
        Ok(())
    }
}
