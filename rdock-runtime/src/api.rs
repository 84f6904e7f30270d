//! The agreed public surface of what is still being written.
#![allow(missing_docs, missing_debug_implementations, clippy::todo, unused_variables, async_fn_in_trait, dead_code)]

use crate::image::{Image, ImageSource, ImageStore, Progress, Reference};
use crate::spec::*;
use crate::volume::Volumes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// error.rs
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("no such container: {name}")]
    NoSuchContainer { name: String },
    #[error("no such volume: {name}")]
    NoSuchVolume { name: String },
    #[error(transparent)]
    Image(#[from] rdock_image::Error),
}
impl Error {
    /// What to change on the host.
    pub fn hint(&self) -> Option<String> { None }
    /// docker's exit code for a `run` that failed this way: 125, 126 (not executable) or 127 (not found).
    pub fn exit_code(&self) -> i32 { 125 }
}

/// runtime.rs: a root directory with its images, containers, volumes and networks.
#[derive(Clone)]
pub struct Runtime { inner: Arc<()> }
impl Runtime {
    /// Opens (and makes) `root`; sweeps what dead owners left.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> { todo!() }
    /// RDOCK_ROOT, else /var/lib/rdock for uid 0, else $XDG_DATA_HOME/rdock. With feature `registry` images come from registries as the environment configures them.
    pub fn open_default() -> Result<Self> { todo!() }
    /// Where missing images come from.
    pub fn with_source(self, source: Arc<dyn ImageSource>) -> Self { todo!() }
    pub fn root(&self) -> &Path { todo!() }
    pub fn images(&self) -> &ImageStore { todo!() }
    /// Fetches from the source even when present.
    pub async fn pull(&self, reference: &Reference, progress: &Progress) -> Result<Image> { todo!() }
    pub fn containers(&self) -> Result<Vec<Container>> { todo!() }
    /// By name, id or unique id prefix.
    pub fn container(&self, name: &str) -> Result<Container> { todo!() }
    pub fn volumes(&self) -> Volumes { todo!() }
    /// Names of the networks: `default`, `host`, `none`, with subnet and gateway where they have one.
    pub fn networks(&self) -> Result<Vec<NetworkInfo>> { todo!() }
    pub fn info(&self) -> Result<Info> { todo!() }
}
#[derive(Debug, Clone, Serialize)]
pub struct NetworkInfo { pub name: String, pub driver: String, pub subnet: Option<String>, pub gateway: Option<String>, pub containers: BTreeMap<String, String> }
#[derive(Debug, Clone, Serialize)]
pub struct Info { pub root: PathBuf, pub kernel: String, pub rootless: bool, pub cgroup: String, pub layer_form: String, pub containers: usize, pub running: usize, pub images: usize, pub warnings: Vec<String> }

impl ContainerSpec {
    /// Starts it; it dies with the returned handle and with this process. Pulls a missing image.
    pub async fn start(&self, runtime: &Runtime) -> Result<ScopedContainer> { todo!() }
    /// Starts it with a monitor of its own: it outlives this program.
    pub async fn start_detached(&self, runtime: &Runtime) -> Result<Container> { todo!() }
    /// As `start_detached`, with its output (and input when `interactive`) connected before its first instruction.
    pub async fn start_attached(&self, runtime: &Runtime) -> Result<(Container, Attached)> { todo!() }
    /// Only checks: all findings at once.
    pub fn validate(&self) -> Result<()> { todo!() }
}

/// The payload's streams. With a terminal all output is on `stdout`. Plain pipes: read until end of file.
pub struct Attached { pub stdin: Option<OwnedFd>, pub stdout: Option<OwnedFd>, pub stderr: Option<OwnedFd> }

/// scoped.rs: derefs to Container; `Drop` kills, removes everything, waits a bounded time.
pub struct ScopedContainer { container: Container }
impl std::ops::Deref for ScopedContainer { type Target = Container; fn deref(&self) -> &Container { &self.container } }
impl ScopedContainer {
    /// Ends and removes it now, reporting what could not be removed.
    pub async fn remove(self) -> Result<()> { todo!() }
}

/// container.rs: a handle; any process that opened the root can have one.
#[derive(Clone)]
pub struct Container { runtime: Runtime }
impl Container {
    /// 64 hexadecimal digits.
    pub fn id(&self) -> &str { todo!() }
    pub fn name(&self) -> &str { todo!() }
    pub fn inspect(&self) -> Result<ContainerInfo> { todo!() }
    pub fn status(&self) -> Result<Status> { todo!() }
    /// Where a published port is reachable.
    pub fn host_addr(&self, container_port: u16) -> Result<SocketAddr> { todo!() }
    pub fn exec<I: IntoIterator<Item: Into<String>>>(&self, args: I) -> Exec { todo!() }
    pub fn logs(&self) -> Logs { todo!() }
    /// Connects to the running payload's streams.
    pub async fn attach(&self) -> Result<Attached> { todo!() }
    /// Until it has ended.
    pub async fn wait(&self) -> Result<Exit> { todo!() }
    /// Stop signal, then SIGKILL after `timeout` (default: the container's).
    pub async fn stop(&self, timeout: Option<Duration>) -> Result<Exit> { todo!() }
    /// `SIGTERM`, `TERM` or a number.
    pub async fn kill(&self, signal: &str) -> Result<()> { todo!() }
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> { todo!() }
    /// Removes a stopped container; a running one with `force`. `volumes`: its anonymous volumes too.
    pub async fn remove_with(&self, force: bool, volumes: bool) -> Result<()> { todo!() }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status { Created, Running, Exited(Exit), /// Owner and payload are gone and nobody saw the exit.
    Dead }
/// How a container ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Exit { pub reason: ExitReason, /// RFC 3339
    pub finished_at: String }
impl Exit { /// 0-255, 128+n for a signal.
    pub fn code(&self) -> i32 { todo!() } pub fn success(&self) -> bool { todo!() } }
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitReason { Exited(i32), Signaled(i32), OomKilled, OwnerDied, SetupFailed { step: String, errno: i32 } }

/// What `inspect` shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContainerInfo {
    pub id: String, pub name: String, pub image: String, pub image_id: String, pub created: String, pub started: Option<String>,
    pub status: Status, pub detached: bool, pub pid: Option<i32>, pub command: Vec<String>, pub spec: ContainerSpec,
    pub ip_address: Option<String>, pub gateway: Option<String>, pub mac_address: Option<String>,
    /// Published ports as they are bound.
    pub ports: Vec<BoundAddress>, pub mounts: Vec<MountInfo>, pub warnings: Vec<String>, pub state_dir: PathBuf,
}
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BoundAddress { pub container: u16, pub protocol: Protocol, pub host: SocketAddr }
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountInfo { pub kind: String, pub name: Option<String>, pub source: String, pub target: String, pub read_only: bool }

/// exec.rs
#[derive(Clone)]
pub struct Exec { container: Container }
impl Exec {
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Self { todo!() }
    pub fn user(self, user: impl Into<String>) -> Self { todo!() }
    pub fn working_dir(self, path: impl Into<String>) -> Self { todo!() }
    pub fn terminal(self, rows: u16, columns: u16) -> Self { todo!() }
    pub fn privileged(self, on: bool) -> Self { todo!() }
    /// stdin is a pipe of ours; /dev/null otherwise.
    pub fn interactive(self, on: bool) -> Self { todo!() }
    pub async fn spawn(self) -> Result<ExecProcess> { todo!() }
    pub async fn output(self) -> Result<std::process::Output> { todo!() }
    pub async fn status(self) -> Result<std::process::ExitStatus> { todo!() }
}
pub struct ExecProcess { pub streams: Attached }
impl ExecProcess {
    pub async fn wait(&mut self) -> Result<std::process::ExitStatus> { todo!() }
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> { todo!() }
    pub async fn kill(&self, signal: &str) -> Result<()> { todo!() }
}

/// logs.rs: builder, then an iterator (blocking) or `next().await`.
pub struct Logs { container: Container }
impl Logs {
    pub fn follow(self, on: bool) -> Self { todo!() }
    pub fn tail(self, lines: usize) -> Self { todo!() }
    /// RFC 3339 or a duration back from now (`10m`).
    pub fn since(self, when: &str) -> Result<Self> { todo!() }
    pub fn until(self, when: &str) -> Result<Self> { todo!() }
    /// The next line; `None` at the end (of the container when following).
    pub async fn next(&mut self) -> Result<Option<LogLine>> { todo!() }
    pub fn next_blocking(&mut self) -> Result<Option<LogLine>> { todo!() }
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine { pub time: String, pub stream: LogStream, /// With its newline, where it had one.
    pub bytes: Vec<u8> }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream { Stdout, Stderr }
