//! From a container on disk to a running payload, whoever will own it.
//!
//! The first run and each later one take the same way. What a container keeps from one run to the next (its
//! address, its published ports) its owner hands over.

mod follow;
mod links;

use crate::base;
use crate::cgroup::{self, Cgroup, Place};
use crate::create::Made;
use crate::error::{Error, Result};
use crate::events::EventAction;
use crate::launch::{AdoptPlan, Helper, LaunchPlan, NetworkPlan, ProcessPlan, RootMount, TerminalSize};
use crate::net;
use crate::network_files;
use crate::owner::{Started, Streams};
use crate::plan::{self, HealthPlan, HostFacts, NamespaceKind, Places, Planned};
use crate::process::ProcessIdentity;
use crate::runtime::Runtime;
use crate::spec::{ContainerSpec, NamespaceMode, NetworkMode, PortForwarding, Seccomp};
use crate::state::{BoundAddress, ContainerDir, Start, Status, now};
use crate::step::Step;
use crate::warning::Warning;
use follow::follow;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A helper that says nothing for so long is stuck in the kernel (a dead network file system).
const PATIENCE: Duration = Duration::from_secs(120);

/// Who owns the container, and with it when it ends.
#[derive(Debug)]
pub(crate) enum Owner {
    /// The container dies with this process.
    ThisProcess {
        /// Sockets that its stdout and stderr are copied to from the first byte.
        outputs: Option<[OwnedFd; 2]>,
    },
    /// This process is a monitor and lives for the container.
    Monitor {
        /// What a starter that stays attached has passed on.
        attached: Option<AttachedFrom>,
        /// Rows and columns of the starter's terminal.
        terminal: Option<(u16, u16)>,
    },
}

impl Owner {
    /// What planning needs to know of the host, and of this owner's terminal.
    pub(crate) fn host_facts(&self, spec: &ContainerSpec) -> HostFacts {
        let mut host = HostFacts::gather(spec.privileged);
        if let Self::Monitor {
            terminal: Some((rows, columns)),
            ..
        } = *self
        {
            host.terminal = TerminalSize { rows, columns };
        }
        host
    }
}

/// The starter's ends: sockets for the output, the payload's input.
#[derive(Debug)]
pub(crate) struct AttachedFrom {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) stdin: OwnedFd,
}

/// What one run of the payload hands to the owner.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) helper: Helper,
    /// What exec sessions start from.
    pub(crate) process: ProcessPlan,
    pub(crate) streams: Streams,
    pub(crate) cgroup: Cgroup,
    pub(crate) health: Option<HealthPlan>,
    /// What was recorded of it.
    pub(crate) start: Start,
    /// Its places in its networks; `None` where the owner has them already.
    pub(crate) networks: Option<net::Attachments>,
    pub(crate) ports: Vec<net::publish::BoundPort>,
    /// What the next run takes over, where it can.
    pub(crate) namespaces: Option<Namespaces>,
    /// It began under another owner.
    pub(crate) resumed: bool,
}

/// The network namespaces of a container, held open so that they outlive its payload and its helper.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// The network's, where the helper lives.
    pub(crate) network: OwnedFd,
    /// The payload's.
    pub(crate) payload: OwnedFd,
}

impl Namespaces {
    /// Of a payload that is held before its exec, or runs.
    fn of(helper: i32, payload: i32) -> std::io::Result<Self> {
        let open = |pid: i32| -> std::io::Result<OwnedFd> {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            Ok(rustix::fs::open(
                format!("/proc/{pid}/ns/net"),
                flags,
                Mode::empty(),
            )?)
        };
        Ok(Self {
            network: open(helper)?,
            payload: open(payload)?,
        })
    }

    /// Those of a run that another process started.
    pub(crate) fn of_run(start: &Start) -> Option<Self> {
        start.ip.as_ref()?;
        Self::of(start.helper, start.pid).ok()
    }

    fn copy(&self) -> std::io::Result<Self> {
        Ok(Self {
            network: self.network.try_clone()?,
            payload: self.payload.try_clone()?,
        })
    }
}

/// What a run takes over from the one before it.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) start: Start,
    pub(crate) namespaces: Option<Namespaces>,
    /// Its addresses, when the run needs new namespaces.
    pub(crate) networks: Option<net::Attachments>,
    /// The restart policy asks for it, not somebody.
    pub(crate) by_policy: bool,
    /// Where the helper of a detached container waits for a new owner.
    pub(crate) reunion: Option<OwnedFd>,
}

impl Before {
    /// # Errors
    /// When descriptors ran out.
    pub(crate) fn new(
        start: &Start,
        namespaces: Option<&Namespaces>,
        networks: Option<net::Attachments>,
        by_policy: bool,
        reunion: Option<&OwnedFd>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            start: start.clone(),
            namespaces: namespaces.map(Namespaces::copy).transpose()?,
            networks,
            by_policy,
            reunion: reunion.map(OwnedFd::try_clone).transpose()?,
        })
    }
}

/// Starts the payload of a container that has just been made; when that fails nothing is left of the container.
///
/// # Errors
/// With what could not be made.
pub(crate) fn first(runtime: &Runtime, made: Made, owner: Owner) -> Result<Started> {
    let record = made.record.clone();
    start(runtime, made, owner, false).inspect_err(|_| {
        // What stays is removed by the next open; the reason for the failure is what the caller needs.
        drop(crate::remove::everything(runtime, &record));
    })
}

/// Starts the payload of a container; `by_policy` its restart policy asks for it, and not somebody.
///
/// # Errors
/// With what could not be made; the container is as it was before.
pub(crate) fn start(runtime: &Runtime, made: Made, owner: Owner, by_policy: bool) -> Result<Started> {
    let (dir, record) = (made.dir.clone(), made.record.clone());
    let control = crate::control::listen(dir.path(), "control")
        .map_err(Error::state("listen at", dir.file("control")))?;
    let reunion = match record.detached {
        true => Some(
            crate::control::listen(dir.path(), "helper")
                .map_err(Error::state("listen at", dir.file("helper")))?,
        ),
        false => None,
    };
    let run = launch(runtime, made, owner, reunion.as_ref(), None, by_policy)?;
    Ok(Started {
        runtime: runtime.clone(),
        dir,
        record,
        control,
        reunion,
        run,
    })
}

/// Runs the payload of a container once more, in what the run before has left.
///
/// # Errors
/// As [`start`].
pub(crate) fn again(runtime: &Runtime, made: Made, mut before: Before) -> Result<Run> {
    let owner = match made.record.detached {
        true => Owner::Monitor {
            attached: None,
            terminal: None,
        },
        false => Owner::ThisProcess { outputs: None },
    };
    let reunion = before.reunion.take();
    let by_policy = before.by_policy;
    launch(runtime, made, owner, reunion.as_ref(), Some(before), by_policy)
}

/// One run, from the plan to the payload's exec. Blocks.
fn launch(
    runtime: &Runtime,
    made: Made,
    owner: Owner,
    reunion: Option<&OwnedFd>,
    before: Option<Before>,
    by_policy: bool,
) -> Result<Run> {
    let Made {
        dir,
        record,
        planned,
        prepared,
        snapshot,
    } = made;
    let (id, spec, name) = (record.id.as_str(), &record.spec, record.name.as_str());
    let place = Place::of(id, spec);
    let mut undo = Undo {
        place: place.clone(),
        helper: None,
        armed: true,
    };
    let mut root = base::layer_mounts(runtime, &dir, spec, planned.user_namespace.is_some())?;
    root.extend(snapshot.mounts().into_iter().map(RootMount::from));
    let (devices, edited) = crate::hooks::devices(spec, &planned)?;
    // Without root the kernel keeps devices away by itself: what is made in a user namespace opens none.
    let rootless = !rustix::process::geteuid().is_root();
    let rules = plan::devices::rules(spec, &devices).filter(|_| !rootless);
    let (cgroup, joining) = cgroup::create(place, &spec.resources, rules.as_deref())?;
    let mut warnings: Vec<String> = planned.warnings.iter().map(ToString::to_string).collect();
    warnings.extend(joining.warnings.iter().map(ToString::to_string));
    warnings.extend(edited.warnings.iter().map(ToString::to_string));
    let (earlier, kept, earlier_networks) = match before {
        Some(before) => (Some(before.start), before.namespaces, before.networks),
        None => (None, None, None),
    };
    let mut ports = match (&kept, &earlier) {
        // Its owner has them still.
        (Some(_), _) => Vec::new(),
        (None, Some(earlier)) => bind_again(&earlier.ports)?,
        (None, None) => bind_ports(&planned)?,
    };
    let subject = net::Subject {
        root: runtime.root(),
        id,
        name,
        rootless,
    };
    let mut networks = match (&kept, earlier_networks) {
        (Some(_), _) => net::Attachments::default(),
        (None, Some(networks)) => networks,
        (None, None) => {
            let endpoints = network_files::kept_endpoints(&dir)?;
            net::Attachments::prepare(subject, endpoints.as_ref().unwrap_or(&planned.networks))?
        }
    };
    networks.set_name_servers(&spec.dns);
    if networks.are_internal() && !ports.is_empty() {
        let network = planned.networks[0].network.clone();
        warnings.push(Warning::PortsNotPublished { network }.to_string());
        ports.clear();
    }
    let links = links::find(runtime, spec, &record.name, &networks)?;
    let shared = shared_network(runtime, &planned.network)?;
    if shared.is_none() && kept.is_none() {
        let host_network = planned.network == NetworkMode::Host;
        let hostname = planned.hostname.clone().unwrap_or_default();
        let left_out =
            network_files::write(&dir, spec, host_network, &hostname, name, &networks, links.hosts)?;
        warnings.extend(left_out);
    }
    let ipc_mounts = match &planned.ipc {
        NamespaceMode::Container(other) => Some(Arc::new(join(runtime, NamespaceKind::Mounts, other)?)),
        _ => None,
    };
    let places = Places {
        state_dir: dir.path(),
        network_dir: shared.as_deref().unwrap_or(dir.path()),
        ipc_mounts: ipc_mounts.as_ref(),
        cgroup_hierarchies: cgroup.mounts(),
    };
    let seccomp = filter(&planned)?;
    let terminal = planned.process.terminal.is_some();
    let health = planned.health.clone();
    let mut launch: LaunchPlan = planned.into_launch(prepared.mounts, root, places, |kind, other| {
        join(runtime, kind, other)
    })?;
    for variable in links.variables {
        let (name, _) = variable.split_once('=').unwrap_or((&variable, ""));
        let prefix = format!("{name}=");
        let given = |known: &Vec<u8>| known.starts_with(prefix.as_bytes());
        if !launch.process.env.iter().any(given) {
            launch.process.env.push(variable.into_bytes());
        }
    }
    let (hooks, of_owner) = crate::hooks::plan_hooks(&dir, &record, &launch, &edited)?;
    edited.finish(&mut launch);
    launch.hooks = hooks;
    let (files, variables) = crate::secrets::for_launch(runtime, id, spec)?;
    launch.secrets = files;
    for variable in variables {
        launch.process.set_variable(variable);
    }
    launch.process.seccomp = seccomp;
    launch
        .devices
        .retain(|device| !devices.iter().any(|(own, _)| own.path == device.path));
    launch.own_devices = devices.into_iter().map(|(device, _)| device).collect();
    if joining.devices_are_open {
        // Neither nodes of its own nor those of the image: what it was given is in its /dev.
        launch.process.capabilities.remove(plan::MKNOD);
        launch.root.no_devices = true;
    }
    launch.cgroup_procs = joining.procs;
    launch.cgroup_dir = joining.dir;
    if let Some(network) = networks.plan()? {
        // A new network is connected to the host before the payload runs; an existing one is already.
        launch.hold = true;
        launch.network = NetworkPlan::Bridged(network);
    }
    if let Some(kept) = &kept {
        let copy = kept.copy().map_err(Error::system("copy a descriptor"))?;
        launch.network = NetworkPlan::Kept {
            network: copy.network,
            payload: copy.payload,
        };
    }
    let this_process =
        rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
    launch.owner =
        Some(this_process.map_err(|errno| Error::system("open a pidfd of this process")(errno.into()))?);
    let mut streams = match terminal {
        true => Streams::default(),
        false => {
            let (stdio, streams) = pipes(spec.interactive).map_err(Error::system("make pipes"))?;
            launch.stdio = Some(stdio);
            streams
        }
    };
    match owner {
        Owner::Monitor {
            attached: Some(attached),
            ..
        } => {
            if let Some([stdin, ..]) = &mut launch.stdio {
                *stdin = attached.stdin;
                streams.stdin = None;
            }
            streams.attached = [Some(attached.stdout), (!terminal).then_some(attached.stderr)];
        }
        Owner::ThisProcess {
            outputs: Some(outputs),
        } => streams.attached = outputs.map(Some),
        _ => {}
    }
    if let Some(reunion) = reunion {
        launch.adopt = Some(adoptable(&dir, reunion, &streams)?);
    }
    let process = launch.process.clone();

    let launched = Helper::launch(launch).map_err(|source| Error::Launch {
        what: format!("starting container {name}"),
        step: Step::Spawn,
        detail: String::new(),
        log: Vec::new(),
        source,
    });
    let helper = undo.helper.insert(launched?);
    let followed = follow(
        helper,
        name,
        &mut networks,
        &mut streams,
        &mut warnings,
        &of_owner,
    )?;
    networks.record_holder(helper.pid())?;
    if spec.port_forwarding == PortForwarding::Kernel {
        let published = ports.iter().map(net::publish::BoundPort::published).collect();
        if let Err(error) = networks.translate(published) {
            let reason = crate::remove::describe(&error).join(": ");
            warnings.push(Warning::PortsNotTranslated { reason }.to_string());
        }
    }
    warnings.extend(of_owner.started(followed.pid));
    // A volume that was filled is complete now.
    drop(prepared.copies);
    let endpoints = networks.infos();
    let default = endpoints.iter().find(|endpoint| endpoint.default_route).cloned();
    let mut start = Start {
        time: now(),
        pid: followed.pid,
        helper: helper.pid(),
        ip: default.as_ref().map(|default| default.ip.to_string()),
        gateway: default.as_ref().map(|default| default.gateway.to_string()),
        mac: default.as_ref().map(|default| default.mac.clone()),
        networks: endpoints,
        ports: ports
            .iter()
            .map(|port| BoundAddress::new(port.container_port, port.protocol, port.address))
            .collect(),
        warnings,
        restart: by_policy,
        // One that has ended already needs no new owner.
        helper_process: ProcessIdentity::of(helper.pid()).ok(),
        cgroups: cgroup.paths(),
    };
    if let (Some(earlier), true) = (earlier, kept.is_some()) {
        (start.ip, start.gateway, start.mac) = (earlier.ip, earlier.gateway, earlier.mac);
        (start.networks, start.ports) = (earlier.networks, earlier.ports);
    }
    if health.is_some() {
        // Not known yet, from the first moment on.
        dir.write_file("health.json", &crate::health::Health::default())?;
    }
    dir.append_start(&start)?;
    if streams.attached[0].is_some() {
        runtime.journal().container(&record, EventAction::Attach, &[]);
    }
    crate::events::started(runtime.journal(), &record);
    if reunion.is_some() {
        // From here on the helper outlives its owner. One that has ended needs no word of it.
        let _ = helper.settle();
    }
    undo.armed = false;
    let Some(helper) = undo.helper.take() else {
        unreachable!("launched above")
    };
    Ok(Run {
        helper,
        process,
        streams,
        cgroup,
        health,
        start,
        networks: kept.is_none().then_some(networks),
        ports,
        namespaces: kept.or(followed.namespaces),
        resumed: false,
    })
}

/// What the helper keeps for a new owner: the owner's ends of the payload's stdio, and where to say its end.
fn adoptable(dir: &ContainerDir, reunion: &OwnedFd, streams: &Streams) -> Result<AdoptPlan> {
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(Error::system("copy a descriptor"));
    let path = dir.file("status");
    let status = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .map_err(Error::state("open", &path))?;
    let stdio = [&streams.stdin, &streams.stdout, &streams.stderr];
    Ok(AdoptPlan {
        reunion: copy(reunion)?,
        status: status.into(),
        stdio: stdio.into_iter().flatten().map(copy).collect::<Result<_>>()?,
    })
}

/// Undoes a run that fails.
struct Undo {
    place: Place,
    helper: Option<Helper>,
    armed: bool,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if let Some(helper) = self.helper.take() {
            helper.end();
            helper.wait_end(Instant::now() + Duration::from_secs(10));
        }
        // What stays is removed with the container.
        let _ = cgroup::remove_all(&self.place);
    }
}

/// The published ports of an earlier run, exactly where they were.
pub(crate) fn bind_again(ports: &[BoundAddress]) -> Result<Vec<net::publish::BoundPort>> {
    let requests: Vec<_> = ports
        .iter()
        .map(|port| net::publish::PortRequest {
            host_ip: Some(port.host.ip()),
            host_port: Some(port.host.port()..=port.host.port()),
            container_port: port.container,
            protocol: port.protocol,
        })
        .collect();
    Ok(net::publish::bind(&requests)?)
}

fn bind_ports(planned: &Planned) -> Result<Vec<net::publish::BoundPort>> {
    let requests: Vec<_> = planned
        .ports
        .iter()
        .map(net::publish::PortRequest::from)
        .collect();
    Ok(net::publish::bind(&requests)?)
}

pub(crate) fn filter(planned: &Planned) -> Result<crate::seccomp::Filter> {
    let bounding = planned.process.capabilities.bounding;
    Ok(match &planned.seccomp {
        Seccomp::Default => crate::seccomp::default_filter(bounding)?,
        Seccomp::Unconfined => planned.process.seccomp.clone(),
        Seccomp::Profile(text) => crate::seccomp::custom_filter(text, bounding)?,
    })
}

/// The directory with the network files of the container whose network is joined.
fn shared_network(runtime: &Runtime, network: &NetworkMode) -> Result<Option<std::path::PathBuf>> {
    match network {
        NetworkMode::Container(other) => Ok(Some(runtime.state().find(other)?.0.path().to_owned())),
        _ => Ok(None),
    }
}

/// The payload's pid of another container, which must be running.
fn running_pid(runtime: &Runtime, other: &str) -> Result<i32> {
    let (dir, record) = runtime.state().find(other)?;
    match (dir.status()?, dir.history()?.started) {
        (Status::Running | Status::Paused, Some(start)) => Ok(start.pid),
        _ => Err(Error::NotRunning { name: record.name }),
    }
}

fn join(runtime: &Runtime, kind: NamespaceKind, other: &str) -> Result<OwnedFd> {
    let pid = running_pid(runtime, other)?;
    let name = match kind {
        NamespaceKind::Pid => "pid",
        NamespaceKind::Ipc => "ipc",
        NamespaceKind::Network => "net",
        NamespaceKind::Mounts => "mnt",
    };
    let path = format!("/proc/{pid}/ns/{name}");
    let opened = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let namespace = opened.map_err(|errno| Error::state("open", &path)(errno.into()))?;
    // The pid could have ended and been used again between the look at the state and the open.
    if running_pid(runtime, other)? == pid {
        Ok(namespace)
    } else {
        Err(Error::NotRunning {
            name: other.to_owned(),
        })
    }
}

/// The payload's ends and ours.
fn pipes(interactive: bool) -> std::io::Result<([OwnedFd; 3], Streams)> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let (stdin, ours) = if interactive {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (
            rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?,
            None,
        )
    };
    let ((stdout, to_stdout), (stderr, to_stderr)) = (pipe()?, pipe()?);
    let streams = Streams {
        stdin: ours,
        stdout: Some(stdout),
        stderr: Some(stderr),
        ..Streams::default()
    };
    Ok(([stdin, to_stdout, to_stderr], streams))
}
