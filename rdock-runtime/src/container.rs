//! A handle on a container: any process that has the root open can have one.

mod reach;

use crate::control::{Listening, Reply, Request};
use crate::error::{Error, Result};
use crate::exec::Exec;
use crate::health::Health;
use crate::logs::Logs;
use crate::runtime::{Runtime, blocking};
use crate::spec::ContainerSpec;
use crate::state::{BoundAddress, ContainerDir, Exit, MountInfo, Record, Status};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A container of an opened root. Cloning is cheap; dropping it does nothing to the container.
#[derive(Debug, Clone)]
pub struct Container {
    runtime: Runtime,
    dir: ContainerDir,
    record: Arc<Record>,
    /// Set when this process learns of the exit without the state directory, which may be gone by then.
    exit: Arc<KnownExit>,
}

/// The exit as the starter of a container learns it.
#[derive(Debug, Default)]
pub(crate) struct KnownExit {
    known: OnceLock<Exit>,
    /// The monitor's socket, for its last message.
    monitor: Option<OwnedFd>,
}

impl KnownExit {
    pub(crate) fn from_monitor(monitor: OwnedFd) -> Self {
        Self {
            known: OnceLock::new(),
            monitor: Some(monitor),
        }
    }

    pub(crate) fn set(&self, exit: Exit) {
        // Whoever sets it first has seen the same end.
        let _ = self.known.set(exit);
    }

    /// Waits for the monitor's last message, if there is one to come.
    fn get(&self) -> Option<Exit> {
        if let (None, Some(monitor)) = (self.known.get(), &self.monitor)
            && let Some(exit) = crate::monitor::last_answer(monitor)
        {
            self.set(exit);
        }
        self.known.get().cloned()
    }
}

/// The streams of a process in a container. With a terminal all output comes on `stdout`.
///
/// Outputs end with the process; `stdin`, when there is one, ends the process's input when dropped.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Attached {
    /// Write here what the process reads.
    pub stdin: Option<OwnedFd>,
    /// What it writes.
    pub stdout: Option<OwnedFd>,
    /// What it writes as errors.
    pub stderr: Option<OwnedFd>,
}

/// What `inspect` shows of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContainerInfo {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique in its root.
    pub name: String,
    /// The image's reference.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// How it is doing.
    pub status: Status,
    /// It runs and is being stopped: its payload will end soon, whatever it does.
    #[serde(default)]
    pub stopping: bool,
    /// It outlives the program that started it.
    pub detached: bool,
    /// The payload's pid on the host, while it runs.
    pub pid: Option<i32>,
    /// The helper's pid on the host, while it runs.
    pub helper_pid: Option<i32>,
    /// What runs, after the image's defaults.
    pub command: Vec<String>,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// Its address in its network.
    pub ip_address: Option<String>,
    /// The network's gateway.
    pub gateway: Option<String>,
    /// Its hardware address.
    pub mac_address: Option<String>,
    /// Its places in its networks, `eth0` first, while it runs.
    #[serde(default)]
    pub networks: Vec<crate::net::EndpointInfo>,
    /// Published ports as they are bound.
    pub ports: Vec<BoundAddress>,
    /// Binds, volumes and tmpfs.
    pub mounts: Vec<MountInfo>,
    /// When its payload was started last, RFC 3339 in UTC.
    pub started_at: Option<String>,
    /// How often its restart policy ran the payload again since somebody started it.
    pub restart_count: u32,
    /// Its health, when it has a health check and was started.
    pub health: Option<Health>,
    /// What this machine could not do for it.
    pub warnings: Vec<String>,
    /// Its directory of state.
    pub state_dir: PathBuf,
}

impl Container {
    pub(crate) fn new(runtime: Runtime, dir: ContainerDir, record: Record) -> Self {
        Self::started(runtime, dir, record, Arc::default())
    }

    pub(crate) fn started(runtime: Runtime, dir: ContainerDir, record: Record, exit: Arc<KnownExit>) -> Self {
        Self {
            runtime,
            dir,
            record: Arc::new(record),
            exit,
        }
    }

    pub(crate) fn dir(&self) -> &ContainerDir {
        &self.dir
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The exit as the starter of the container learnt it.
    pub(crate) fn known_exit(&self) -> Option<Exit> {
        self.exit.get()
    }

    pub(crate) fn created(&self) -> &str {
        &self.record.created
    }

    /// Returns the id: 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Returns the name, unique in its root.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Returns everything known about the container.
    ///
    /// # Errors
    /// When its state cannot be read, such as after its removal.
    pub fn inspect(&self) -> Result<ContainerInfo> {
        let (status, history) = self.dir.seen()?;
        // Another handle may have renamed or updated it.
        let record = &self.dir.record()?;
        let mut info = ContainerInfo {
            id: record.id.clone(),
            name: record.name.clone(),
            image: record.image.clone(),
            image_id: record.image_id.clone(),
            created: record.created.clone(),
            status,
            stopping: false,
            detached: record.detached,
            pid: None,
            helper_pid: None,
            command: record.command.clone(),
            spec: record.spec.clone(),
            ip_address: None,
            gateway: None,
            mac_address: None,
            networks: Vec::new(),
            ports: Vec::new(),
            mounts: record.mounts.clone(),
            started_at: None,
            restart_count: 0,
            health: crate::health::read(&self.dir),
            warnings: Vec::new(),
            state_dir: self.dir.path().to_owned(),
        };
        info.restart_count = history.restarts;
        info.stopping = history.stopping && info.status.is_running();
        if let Some(start) = history.started {
            info.started_at = Some(start.time);
            info.warnings = start.warnings;
            if info.status.is_running() {
                info.pid = Some(start.pid);
                info.helper_pid = Some(start.helper);
                (info.ip_address, info.gateway, info.mac_address) = (start.ip, start.gateway, start.mac);
                info.ports = start.ports;
                info.networks = start.networks;
            }
        }
        if !info.status.is_running() {
            info.networks.clear();
        } else if let Some(first) = info.networks.iter().find(|endpoint| endpoint.default_route) {
            info.ip_address = Some(first.ip.to_string());
            info.gateway = Some(first.gateway.to_string());
            info.mac_address = Some(first.mac.clone());
        }
        Ok(info)
    }

    /// Returns when the payload was started last, RFC 3339 in UTC; `None` when it never was.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn started_at(&self) -> Result<Option<String>> {
        Ok(self.dir.history()?.started.map(|start| start.time))
    }

    /// Returns how the container is doing.
    ///
    /// # Errors
    /// When the state cannot be read, such as after its removal.
    pub fn status(&self) -> Result<Status> {
        self.dir.status()
    }

    /// Returns where a published port of the container is reachable from this host: an address to dial,
    /// so 127.0.0.1 for a port on every address.
    ///
    /// # Errors
    /// [`Error::NotPublished`]; [`Error::NotRunning`] when it has ended.
    pub fn host_addr(&self, container_port: u16) -> Result<SocketAddr> {
        let info = self.inspect()?;
        if !info.status.is_running() {
            return Err(Error::NotRunning {
                name: self.name().to_owned(),
            });
        }
        let bound = info.ports.iter().find(|bound| bound.container == container_port);
        let mut address = bound.map(|bound| bound.host).ok_or_else(|| Error::NotPublished {
            name: self.name().to_owned(),
            port: container_port,
        })?;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Ok(address)
    }

    /// Prepares to run one more process inside.
    pub fn exec<I: IntoIterator<Item: Into<String>>>(&self, args: I) -> Exec {
        Exec::new(self.clone(), args.into_iter().map(Into::into).collect())
    }

    /// Reads the container's output so far, or as it comes.
    pub fn logs(&self) -> Logs {
        Logs::new(self.clone())
    }

    /// Connects to the running payload's streams, from now on.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub async fn attach(&self) -> Result<Attached> {
        let this = self.clone();
        blocking(move || match this.ask(&Request::Attach)? {
            (
                Reply::Attached {
                    stdin,
                    stdout,
                    stderr,
                },
                fds,
            ) => {
                let mut fds = fds.into_iter();
                let mut take = |named: bool| if named { fds.next() } else { None };
                Ok(Attached {
                    stdin: take(stdin),
                    stdout: take(stdout),
                    stderr: take(stderr),
                })
            }
            (reply, _) => Err(this.refused(reply)),
        })
        .await
    }

    /// Waits until the container does not run: [`Self::wait_for`] with [`crate::WaitCondition::NotRunning`].
    ///
    /// # Errors
    /// When its state cannot be read, such as when it was removed meanwhile.
    pub async fn wait(&self) -> Result<Exit> {
        self.ask_for_exit(Request::Wait).await
    }

    /// Sends the stop signal, and SIGKILL after `timeout` (the container's own, 10 s by default, when
    /// `None`; never with [`Duration::MAX`]); returns once it has ended. No restart policy starts it again. A
    /// container that has ended already is no error.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub async fn stop(&self, timeout: Option<Duration>) -> Result<Exit> {
        let timeout = timeout.unwrap_or(self.record.spec.stop_timeout);
        self.ask_for_exit(Request::Stop {
            signal: self.record.stop_signal,
            timeout_ms: crate::control::milliseconds(timeout),
            removal: false,
        })
        .await
    }

    /// Sends a signal to the payload: `SIGTERM`, `TERM` or a number.
    ///
    /// # Errors
    /// [`Error::Signal`] for an unknown one, [`Error::NotRunning`].
    pub async fn kill(&self, signal: &str) -> Result<()> {
        let number = crate::signal::parse(signal).ok_or_else(|| Error::Signal {
            text: signal.to_owned(),
        })?;
        self.ask_done(Request::Kill { signal: number }).await
    }

    /// Sets the size of the payload's terminal.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; when it has no terminal.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.ask_done(Request::Resize { rows, columns }).await
    }

    /// Removes the container. One that runs is killed first with `force`, otherwise it is an error.
    /// `volumes` removes its anonymous volumes too.
    ///
    /// # Errors
    /// [`Error::StillRunning`]; [`Error::Remains`] with the first thing that could not be removed.
    pub async fn remove_with(&self, force: bool, volumes: bool) -> Result<()> {
        let this = self.clone();
        let look = move || {
            this.see_end()?;
            Ok((this.status()?, this.dir.owner().is_err()))
        };
        let (status, unowned) = blocking(look).await?;
        let is_over = match status {
            Status::Exited(_) | Status::Dead => true,
            Status::Created => unowned,
            _ => false,
        };
        if !is_over {
            if !force {
                return Err(Error::StillRunning {
                    name: self.name().to_owned(),
                });
            }
            match self.end().await {
                // It removed itself.
                Err(Error::State { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(());
                }
                other => other?,
            };
        }
        let this = self.clone();
        blocking(
            move || match crate::remove::ended(&this.runtime, &this.record, volumes) {
                // It removed itself.
                Err(Error::State { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
        )
        .await
    }

    /// Kills it, whether it has an owner or not.
    async fn end(&self) -> Result<Exit> {
        let this = self.clone();
        blocking(move || {
            let unowned = this.record.detached && this.open_connection()?.is_none();
            // No monitor can be started for it here: it ends without one.
            if unowned {
                crate::recover::end_orphan(&this.dir)?;
            }
            Ok(())
        })
        .await?;
        self.ask_for_exit(Request::Stop {
            signal: libc::SIGKILL,
            timeout_ms: 0,
            removal: true,
        })
        .await
    }

    /// Whether something listens on a TCP port inside. Blocks.
    pub(crate) fn listening(&self, port: u16) -> Result<Listening> {
        match self.ask(&Request::Listening { port })? {
            (Reply::Listening { state }, _) => Ok(state),
            (reply, _) => Err(self.refused(reply)),
        }
    }
}
