//! From a spec to a running payload, whoever will own it.
//!
//! Every resource is named after the container's id and its directory is made first, so that a start that
//! is cut off at any point is undone by anyone who opens the root. One that fails undoes itself.

use crate::base::{self, Base};
use crate::cgroup;
use crate::error::{Error, Result};
use crate::events::EventAction;
use crate::image::Image;
use crate::launch::{Event, Helper, LaunchPlan, NetworkPlan, SocketPlace, TerminalSize};
use crate::net;
use crate::network_files;
use crate::owner::{Started, Streams};
use crate::plan::{self, HostFacts, NamespaceKind, Places, Planned, Subject};
use crate::runtime::Runtime;
use crate::spec::{ContainerSpec, NamespaceMode, NetworkMode, Seccomp};
use crate::state::{BoundAddress, Happened, Record, Status, now};
use crate::step::Step;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::OwnedFd;
use std::path::Path;
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

/// The starter's ends: sockets for the output, the payload's input.
#[derive(Debug)]
pub(crate) struct AttachedFrom {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) stdin: OwnedFd,
}

/// Says what is wrong with a spec for an image, without making anything.
///
/// # Errors
/// [`Error::Spec`] with every finding.
pub(crate) fn check(spec: &ContainerSpec, image: &Image) -> Result<()> {
    let subject = Subject {
        id: &"0".repeat(64),
        detached: true,
    };
    plan::plan(subject, spec, image.config(), &HostFacts::gather(spec.privileged))?;
    Ok(())
}

impl ContainerSpec {
    /// Checks everything that can be known without the image, and returns all findings at once.
    ///
    /// # Errors
    /// [`Error::Spec`].
    pub fn validate(&self) -> Result<()> {
        Ok(plan::check(self, &HostFacts::gather(self.privileged))?)
    }
}

/// Starts the payload of container `id`. Blocks until its exec.
///
/// # Errors
/// With what could not be made; nothing is left then.
pub(crate) fn start<'a>(
    runtime: &Runtime,
    id: &str,
    spec: &ContainerSpec,
    base: impl Into<Base<'a>>,
    owner: Owner,
) -> Result<Started> {
    let base = base.into();
    let detached = matches!(owner, Owner::Monitor { .. });
    let mut host = HostFacts::gather(spec.privileged);
    if let Owner::Monitor {
        terminal: Some((rows, columns)),
        ..
    } = owner
    {
        host.terminal = TerminalSize { rows, columns };
    }
    let planned = plan::plan(Subject { id, detached }, spec, base.config(), &host)?;
    let name = claim_name(runtime, spec.name.as_deref(), id)?;
    let mut making = Making {
        runtime,
        record: None,
        name: &name,
        id,
        helper: None,
    };
    let prepared = planned.prepare_mounts(&runtime.volumes());
    let prepared = prepared.inspect_err(|_| runtime.volumes().release(id))?;
    let record = Record {
        version: 1,
        id: id.to_owned(),
        name: name.clone(),
        image: spec.image.clone(),
        image_id: base.image_id(),
        created: now(),
        detached,
        command: planned.command.clone(),
        spec: spec.clone(),
        mounts: prepared.infos.clone(),
        anonymous_volumes: spec
            .volumes_from
            .iter()
            .flat_map(|from| from.anonymous.iter().cloned())
            .chain(prepared.anonymous_volumes.iter().cloned())
            .collect(),
        stop_signal: planned.stop_signal,
    };
    // From here on the janitor knows of everything.
    let dir = runtime.state().create(&record).inspect_err(|_| {
        for volume in &record.anonymous_volumes {
            let _ = runtime.volumes().remove_anonymous(volume, id);
        }
        runtime.volumes().release(id);
    })?;
    making.record = Some(record.clone());
    runtime.journal().container(&record, EventAction::Create, &[]);

    let snapshot = base.snapshot(runtime.images(), id, &planned.snapshot)?;
    let mut root = base::layer_mounts(runtime, &dir, spec, planned.snapshot.user_namespace)?;
    root.extend(snapshot.mounts().into_iter().map(Into::into));
    let (cgroup, joining) = cgroup::create(id, &spec.resources)?;
    let mut warnings: Vec<String> = planned.warnings.iter().map(ToString::to_string).collect();
    warnings.extend(joining.warnings);
    let ports = bind_ports(&planned)?;
    let subject = net::Subject {
        root: runtime.root(),
        id,
        name: &name,
        rootless: host.is_rootless(),
    };
    let endpoints = network_files::kept_endpoints(&dir)?.unwrap_or_else(|| planned.networks.clone());
    let mut networks = net::Attachments::prepare(subject, &endpoints)?;
    networks.set_name_servers(&spec.dns);
    let shared = shared_network(runtime, &planned.network)?;
    if shared.is_none() {
        let host_network = planned.network == NetworkMode::Host;
        let hostname = planned.hostname.clone().unwrap_or_default();
        let left_out = network_files::write(&dir, spec, host_network, &hostname, &name, &networks)?;
        warnings.extend(left_out);
    }
    let ipc_root = match &planned.ipc {
        NamespaceMode::Container(other) => Some(format!("/proc/{}/root", running_pid(runtime, other)?)),
        _ => None,
    };
    let places = Places {
        state_dir: dir.path(),
        network_dir: shared.as_deref().unwrap_or(dir.path()),
        ipc_root: ipc_root.as_deref().map(Path::new),
        cgroup_hierarchies: cgroup.mounts(),
    };
    let seccomp = filter(&planned)?;
    let terminal = planned.process.terminal.is_some();
    let mut plan: LaunchPlan = planned.into_launch(prepared.mounts, root, places, |kind, other| {
        join(runtime, kind, other)
    })?;
    plan.process.seccomp = seccomp;
    plan.cgroup_procs = joining.procs;
    plan.cgroup_dir = joining.dir;
    if let Some(network) = networks.plan()? {
        // A new network is connected to the host before the payload runs; an existing one is already.
        plan.hold = true;
        plan.network = NetworkPlan::Bridged(network);
    }
    let this_process =
        rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
    plan.owner =
        Some(this_process.map_err(|errno| Error::system("open a pidfd of this process")(errno.into()))?);
    let mut streams = match terminal {
        true => Streams::default(),
        false => {
            let (stdio, streams) = pipes(spec.interactive).map_err(Error::system("make pipes"))?;
            plan.stdio = Some(stdio);
            streams
        }
    };
    match owner {
        Owner::Monitor {
            attached: Some(attached),
            ..
        } => {
            if let Some([stdin, ..]) = &mut plan.stdio {
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
    let process = plan.process.clone();
    let control =
        crate::control::listen(dir.path()).map_err(Error::state("listen at", dir.file("control")))?;

    let launched = Helper::launch(plan).map_err(|source| Error::Launch {
        what: format!("starting container {name}"),
        step: Step::Spawn,
        detail: String::new(),
        log: Vec::new(),
        source,
    });
    let helper = making.helper.insert(launched?);
    let pid = follow(helper, &name, &mut networks, &mut streams, &mut warnings)?;
    networks.record_holder(helper.pid())?;
    // A volume that was filled is complete now.
    drop(prepared.copies);
    let endpoints = networks.infos();
    let first = endpoints.iter().find(|endpoint| endpoint.default_route).cloned();
    let happened = Happened::Started {
        time: now(),
        pid,
        helper: helper.pid(),
        ip: first.as_ref().map(|first| first.ip.to_string()),
        gateway: first.as_ref().map(|first| first.gateway.to_string()),
        mac: first.as_ref().map(|first| first.mac.clone()),
        networks: endpoints,
        ports: ports
            .iter()
            .map(|port| BoundAddress::new(port.container_port, port.protocol, port.address))
            .collect(),
        warnings,
    };
    dir.append(&happened)?;
    if streams.attached[0].is_some() {
        runtime.journal().container(&record, EventAction::Attach, &[]);
    }
    runtime.journal().container(&record, EventAction::Start, &[]);
    let Some(helper) = making.done() else {
        unreachable!("launched above")
    };
    let runtime = runtime.clone();
    Ok(Started {
        runtime,
        dir,
        record,
        helper,
        process,
        streams,
        control,
        networks,
        ports,
        cgroup,
    })
}

/// Undoes a start that fails.
struct Making<'a> {
    runtime: &'a Runtime,
    /// Once the container has its directory.
    record: Option<Record>,
    name: &'a str,
    id: &'a str,
    helper: Option<Helper>,
}

impl Making<'_> {
    fn done(mut self) -> Option<Helper> {
        let helper = self.helper.take();
        std::mem::forget(self.record.take());
        self.id = "";
        helper
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if self.id.is_empty() {
            return;
        }
        if let Some(helper) = self.helper.take() {
            helper.end();
            helper.wait_end(Instant::now() + Duration::from_secs(10));
        }
        match &self.record {
            // What stays is removed by the next open; the reason for the failure is what the caller needs.
            Some(record) => drop(crate::remove::everything(self.runtime, record)),
            None => self.runtime.state().release_name(self.name, self.id),
        }
    }
}

fn claim_name(runtime: &Runtime, wanted: Option<&str>, id: &str) -> Result<String> {
    if let Some(name) = wanted {
        runtime.state().claim_name(name, id)?;
        return Ok(name.to_owned());
    }
    let random = || crate::identity::random_name().map_err(Error::system("read random numbers"));
    for _ in 0..8 {
        let name = random()?;
        match runtime.state().claim_name(&name, id) {
            Err(Error::NameInUse { .. }) => {}
            other => return other.map(|()| name),
        }
    }
    // With thousands of containers the words run out.
    let name = format!("{}_{}", random()?, &id[..8]);
    runtime.state().claim_name(&name, id)?;
    Ok(name)
}

fn bind_ports(planned: &Planned) -> Result<Vec<net::publish::BoundPort>> {
    let requests: Vec<_> = planned
        .ports
        .iter()
        .map(net::publish::PortRequest::from)
        .collect();
    Ok(net::publish::bind(&requests)?)
}

fn filter(planned: &Planned) -> Result<crate::seccomp::Filter> {
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
    let started = dir.events()?.into_iter().find_map(|event| match event {
        Happened::Started { pid, .. } => Some(pid),
        _ => None,
    });
    match (dir.status()?, started) {
        (Status::Running, Some(pid)) => Ok(pid),
        _ => Err(Error::NotRunning { name: record.name }),
    }
}

fn join(runtime: &Runtime, kind: NamespaceKind, other: &str) -> Result<OwnedFd> {
    let pid = running_pid(runtime, other)?;
    let name = match kind {
        NamespaceKind::Pid => "pid",
        NamespaceKind::Ipc => "ipc",
        NamespaceKind::Network => "net",
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

/// Follows the launch to the payload's exec; returns its pid.
fn follow(
    helper: &Helper,
    name: &str,
    networks: &mut net::Attachments,
    streams: &mut Streams,
    warnings: &mut Vec<String>,
) -> Result<i32> {
    let failed = |step, errno, detail| Error::Launch {
        what: format!("starting container {name}"),
        step,
        detail,
        log: Vec::new(),
        source: match (step, errno) {
            (Step::User, libc::ENOENT) => std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "the image has no such user or group",
            ),
            _ => std::io::Error::from_raw_os_error(errno),
        },
    };
    let deadline = Instant::now() + PATIENCE;
    let mut network = None;
    let (wanted, mut sockets) = (networks.wanted_sockets(), Vec::new());
    loop {
        let event = helper
            .wait_event(Some(deadline))
            .map_err(Error::system("read from the helper"))?;
        match event {
            Some(Event::NetworkMade { namespace }) => network = Some(namespace),
            Some(Event::Held) if !wanted.is_empty() => {
                for (tag, (domain, kind, protocol)) in wanted.iter().enumerate() {
                    helper
                        .request_sockets(tag as u32, SocketPlace::Payload, *domain, *kind, *protocol, 1)
                        .map_err(Error::system("ask for a socket inside the container"))?;
                }
            }
            Some(Event::Sockets { errno, .. }) if errno != 0 => {
                return Err(failed(
                    Step::NetworkConfigure,
                    errno,
                    "a socket inside the container".into(),
                ));
            }
            Some(event @ (Event::Held | Event::Sockets { .. })) => {
                if let Event::Sockets { sockets: made, .. } = event {
                    sockets.extend(made);
                    if sockets.len() < wanted.len() {
                        continue;
                    }
                }
                let more = networks.connect(helper, network.take(), std::mem::take(&mut sockets))?;
                warnings.extend(more.iter().map(ToString::to_string));
                helper.go().map_err(Error::system("let the payload go"))?;
            }
            Some(Event::Warning { step, errno, detail }) => {
                let cause = std::io::Error::from_raw_os_error(errno);
                warnings.push(format!("{} {detail}: {cause}", step.doing()));
            }
            Some(Event::Started { pid, terminal, .. }) => {
                streams.terminal = terminal;
                return Ok(pid);
            }
            Some(Event::Failed { step, errno, detail }) => return Err(failed(step, errno, detail)),
            Some(Event::Gone) => return Err(failed(Step::Spawn, libc::ESRCH, "the helper ended".into())),
            None => {
                return Err(failed(
                    Step::Spawn,
                    libc::ETIMEDOUT,
                    "the helper does not answer".into(),
                ));
            }
            Some(_) => {}
        }
    }
}
