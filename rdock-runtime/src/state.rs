//! The state of containers on disk, and the only place that spells its names.
//!
//! ```text
//! <root>/containers/format            version of this layout
//! <root>/containers/names/<name>      the id that owns a name
//! <root>/containers/<id>/record.json  what was asked for; made before anything else, replaced by rename and update
//!                        events.jsonl what happened since; append-only, made short again by a start
//!                        lock         flock of the helper
//!                        changes      flock of who starts, adopts, renames, updates or removes it
//!                        owner        the process that owns the container: pid, start time, boot id;
//!                                     missing until the first start
//!                        control      the owner's socket
//!                        helper       the helper's socket, for a new owner when the old one has died
//!                        status       how the payload ended, by the helper
//!                        health.json  health and the last checks
//!                        log          output, a JSON object a line
//!                        hosts hostname resolv.conf
//! ```
//! A container directory appears by rename with its record in it, so it is never seen half made. Until then
//! it is `.new-<id>-` and the process that fills it; a name is a link to its file `claim`. It disappears by rename
//! too, to `.gone-<id>`.
//! Unknown fields are ignored and optional sections may be absent: a newer version can add health,
//! restarts and secrets without an older one failing.

mod change;
mod events;
mod history;
mod names;

pub(crate) use change::ChangeLock;
pub(crate) use history::History;

use crate::error::{Error, Result};
use crate::process::ProcessIdentity;
use crate::spec::{BindRecursion, ContainerSpec, Protocol};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Version of the layout.
const FORMAT: &str = "1";

/// What a container was asked to be, in its directory.
const RECORD: &str = "record.json";

/// How a container is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// It was never started, or is being set up.
    Created,
    /// Its payload runs.
    Running,
    /// Its payload is frozen.
    Paused,
    /// Its payload has ended so, and runs again after a pause.
    Restarting(Exit),
    /// Its payload has ended.
    Exited(Exit),
    /// It was removed, and a part of it could not be.
    Dead,
}

impl Status {
    /// Whether it has a payload, frozen or not.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// docker's word: `created`, `running`, `paused`, `restarting`, `exited` or `dead`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting(_) => "restarting",
            Self::Exited(_) => "exited",
            Self::Dead => "dead",
        }
    }

    /// How it ended, when it does not run.
    pub fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Exited(exit) | Self::Restarting(exit) => Some(exit),
            _ => None,
        }
    }
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Exit {
    /// What ended it.
    pub reason: ExitReason,
    /// When, RFC 3339 in UTC.
    pub finished_at: String,
}

/// What ended a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitReason {
    /// It exited with this code.
    Exited(i32),
    /// A signal killed it.
    Signaled(i32),
    /// The kernel killed it since its memory limit was reached.
    OomKilled,
    /// Its owner ended, and it with its owner; nobody saw an exit code.
    OwnerDied,
    /// Its payload could not be set up.
    SetupFailed {
        /// The step that failed.
        step: String,
        /// The system's error number.
        errno: i32,
    },
}

impl Exit {
    pub(crate) fn now(reason: ExitReason) -> Self {
        Self {
            reason,
            finished_at: now(),
        }
    }

    /// The exit code docker reports: 0 to 255, 128 and the signal's number for a signal, 137 after an
    /// OOM kill or when the owner died.
    pub fn code(&self) -> i32 {
        match &self.reason {
            ExitReason::Exited(code) => *code,
            ExitReason::Signaled(signal) => 128 + signal,
            ExitReason::OomKilled | ExitReason::OwnerDied => 137,
            ExitReason::SetupFailed { .. } => 125,
        }
    }

    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.reason == ExitReason::Exited(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reason {
            ExitReason::Exited(code) => write!(f, "exit code {code}"),
            ExitReason::Signaled(signal) => write!(f, "signal {signal}"),
            ExitReason::OomKilled => f.write_str("out of memory"),
            ExitReason::OwnerDied => f.write_str("its owner died"),
            ExitReason::SetupFailed { step, errno } => write!(f, "set-up failed at {step}, errno {errno}"),
        }
    }
}

/// What was asked for. `rename` and `update` replace it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) name: String,
    /// As the user wrote it, normalised.
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) created: String,
    pub(crate) detached: bool,
    /// What runs, after the image's defaults.
    pub(crate) command: Vec<String>,
    pub(crate) spec: ContainerSpec,
    #[serde(default)]
    pub(crate) mounts: Vec<MountInfo>,
    #[serde(default)]
    pub(crate) anonymous_volumes: Vec<String>,
    #[serde(default)]
    pub(crate) stop_signal: i32,
    /// The image's config: a later start means what the first one meant, whatever became of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image_config: Option<Box<rdock_image::ImageConfig>>,
}

/// One mount as `inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MountInfo {
    /// `bind`, `volume` or `tmpfs`.
    pub kind: String,
    /// The volume's name.
    pub name: Option<String>,
    /// Path on the host; empty for a tmpfs.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Cannot be written.
    pub read_only: bool,
    /// The directory inside the volume that is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<PathBuf>,
    /// What became of the mounts below a bind.
    #[serde(default, skip_serializing_if = "BindRecursion::is_default")]
    pub recursion: BindRecursion,
}

/// A published port as it is bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BoundAddress {
    /// The container's port.
    pub container: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where it is reachable.
    pub host: SocketAddr,
}

impl BoundAddress {
    pub(crate) fn new(container: u16, protocol: Protocol, host: SocketAddr) -> Self {
        Self {
            container,
            protocol,
            host,
        }
    }
}

/// One line of `events.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Happened {
    Started(Start),
    Exited {
        exit: Exit,
    },
    NetworkConnected {
        network: crate::net::EndpointInfo,
    },
    NetworkDisconnected {
        network: String,
    },
    /// The payload has ended and will be run again; for the `count`th time since somebody started it.
    Restarting {
        exit: Exit,
        count: u32,
    },
    Paused {
        time: String,
    },
    Unpaused {
        time: String,
    },
    /// Somebody stops it on purpose: no policy starts it again.
    StopRequested {
        time: String,
        /// It ends whatever the payload does: SIGKILL follows, or was sent.
        #[serde(default)]
        ends: bool,
    },
    /// Earlier events were left out here; so many ends of the payload were among them.
    Shortened {
        ends: usize,
    },
    /// Its removal left something behind.
    Dead {
        time: String,
        reason: String,
    },
    /// Something a newer version records.
    #[serde(other)]
    Unknown,
}

impl Happened {
    /// How many ends of the payload it stands for.
    pub(crate) fn ends(&self) -> usize {
        match self {
            Self::Exited { .. } | Self::Restarting { .. } => 1,
            Self::Shortened { ends } => *ends,
            _ => 0,
        }
    }
}

/// One run of the payload.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Start {
    pub(crate) time: String,
    pub(crate) pid: i32,
    pub(crate) helper: i32,
    pub(crate) ip: Option<String>,
    pub(crate) gateway: Option<String>,
    pub(crate) mac: Option<String>,
    /// Every network that was joined at the start.
    pub(crate) networks: Vec<crate::net::EndpointInfo>,
    pub(crate) ports: Vec<BoundAddress>,
    pub(crate) warnings: Vec<String>,
    /// The restart policy started it.
    pub(crate) restart: bool,
    /// The helper, recognisable after its owner has gone.
    pub(crate) helper_process: Option<ProcessIdentity>,
    /// Its control groups.
    pub(crate) cgroups: Vec<PathBuf>,
}

/// The current time, RFC 3339 in UTC with nanoseconds.
pub(crate) fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

/// `<root>/containers`.
#[derive(Debug, Clone)]
pub(crate) struct Containers {
    dir: PathBuf,
}

impl Containers {
    /// Makes the directory if needed and checks its format.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let dir = root.join("containers");
        private_dir(root)?;
        private_dir(&dir)?;
        private_dir(&dir.join("names"))?;
        check_format(&dir.join("format"), FORMAT)?;
        Ok(Self { dir })
    }

    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    /// Where the directory of a container is while it is being removed.
    pub(crate) fn gone(&self, id: &str) -> PathBuf {
        self.dir.join(format!(".gone-{id}"))
    }

    /// Makes the container's directory, with its record, visible in one step; `owned` by this process, or by nobody yet.
    /// The lock is held from the first moment on: until it is dropped the container is being made, and who finds it
    /// unlocked without all that it needs knows that its maker has died.
    pub(crate) fn create(&self, record: &Record, owned: bool) -> Result<(ContainerDir, ChangeLock)> {
        let path = self.path(&record.id);
        let temporary = self.unfinished(&record.id)?;
        private_dir(&temporary)?;
        let fill = || -> Result<ChangeLock> {
            write_json(&temporary.join(RECORD), record)?;
            if owned {
                let owner =
                    ProcessIdentity::current().map_err(Error::system("read the identity of this process"))?;
                write_json(&temporary.join("owner"), &owner)?;
            }
            for empty in ["events.jsonl", "log", "lock", "changes", "status"] {
                let file = temporary.join(empty);
                fs::write(&file, "").map_err(Error::state("write", &file))?;
            }
            let lock = ChangeLock::of_new(&temporary)?;
            fs::rename(&temporary, &path).map_err(Error::state("create", &path))?;
            Ok(lock)
        };
        let lock = fill().inspect_err(|_| {
            // The janitor removes what cannot be removed now.
            let _ = fs::remove_dir_all(&temporary);
        })?;
        Ok((ContainerDir { path }, lock))
    }

    /// Ids of all containers, in no order. Leftovers of interrupted creations are in `.new-` directories.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(Error::state("list", &self.dir))? {
            let name = entry.map_err(Error::state("list", &self.dir))?.file_name();
            if let Some(name) = name.to_str()
                && name.len() == 64
                && name.bytes().all(|byte| byte.is_ascii_hexdigit())
            {
                ids.push(name.to_owned());
            }
        }
        Ok(ids)
    }

    /// The container with this name, id or unique id prefix.
    pub(crate) fn find(&self, name: &str) -> Result<(ContainerDir, Record)> {
        let missing = || Error::NoSuchContainer {
            name: name.to_owned(),
        };
        let holder = if crate::identity::is_name(name) {
            fs::read_to_string(self.dir.join("names").join(name)).ok()
        } else {
            None
        };
        if let Some(found) = holder.and_then(|id| self.load(&id).ok()) {
            return Ok(found);
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut ids = self.ids()?.into_iter().filter(|id| id.starts_with(name));
        let id = ids.next().ok_or_else(missing)?;
        if ids.next().is_some() {
            return Err(Error::AmbiguousId {
                name: name.to_owned(),
            });
        }
        self.load(&id).map_err(|_| missing())
    }

    pub(crate) fn load(&self, id: &str) -> Result<(ContainerDir, Record)> {
        self.loaded(id, None)
    }

    /// The same from a record that somebody opened while it was there.
    pub(crate) fn loaded(&self, id: &str, record: Option<fs::File>) -> Result<(ContainerDir, Record)> {
        let dir = ContainerDir { path: self.path(id) };
        let file = record.map_or_else(|| dir.open_record(), Ok)?;
        let failed = Error::state("read", dir.file(RECORD));
        let record = io::read_to_string(file).and_then(|text| Ok(serde_json::from_str(&text)?));
        Ok((dir, record.map_err(failed)?))
    }
}

/// The directory of one container.
#[derive(Debug, Clone)]
pub(crate) struct ContainerDir {
    path: PathBuf,
}

impl ContainerDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn open_record(&self) -> Result<fs::File> {
        let path = self.file(RECORD);
        fs::File::open(&path).map_err(Error::state("read", path))
    }

    pub(crate) fn owner(&self) -> Result<ProcessIdentity> {
        read_json(&self.file("owner"))
    }

    pub(crate) fn history(&self) -> Result<History> {
        Ok(History::of(self.events()?))
    }

    pub(crate) fn status(&self) -> Result<Status> {
        Ok(self.seen()?.0)
    }

    /// How the container is doing, and the events that say so: both of one moment.
    pub(crate) fn seen(&self) -> Result<(Status, History)> {
        let history = self.history()?;
        // Without an owner it was never started.
        let owner = match self.owner() {
            Ok(owner) => owner,
            Err(Error::State { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok((history.status(false).unwrap_or(Status::Created), history));
            }
            Err(error) => return Err(error),
        };
        let alive = owner.is_alive() || helper_lives(&history);
        if let Some(status) = history.status(alive) {
            return Ok((status, history));
        }
        if alive {
            return Ok((Status::Created, history));
        }
        // The owner may have recorded the exit just before it ended.
        let died = Status::Exited(Exit {
            reason: ExitReason::OwnerDied,
            finished_at: String::new(),
        });
        let history = self.history()?;
        Ok((history.status(false).unwrap_or(died), history))
    }
}

/// Whether the helper of the last run still lives; that of a detached container outlives its owner.
fn helper_lives(history: &History) -> bool {
    let helper = history
        .started
        .as_ref()
        .and_then(|start| start.helper_process.as_ref());
    history.expects_owner() && helper.is_some_and(ProcessIdentity::is_alive)
}

/// Makes a directory that only its owner may enter.
pub(crate) fn private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::state("create", path))
}

/// Writes the version of a layout, or checks the one that is there.
pub(crate) fn check_format(path: &Path, format: &str) -> Result<()> {
    match fs::read_to_string(path) {
        Ok(found) if found.trim() == format => Ok(()),
        Ok(found) if found.trim().is_empty() => write_atomically(path, format.as_bytes()),
        Ok(found) => Err(Error::NewerFormat {
            path: path.to_owned(),
            found: found.trim().to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_atomically(path, format.as_bytes()),
        Err(error) => Err(Error::state("read", path)(error)),
    }
}

/// A number that no other thread of this process gets, for names of temporary files.
pub(crate) fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Write, then rename over.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("tmp-{}-{}", std::process::id(), unique()));
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|error| {
            let _ = fs::remove_file(&temporary);
            Error::state("write", path)(error)
        })
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|error| Error::state("write", path)(error.into()))?;
    fs::write(path, bytes).map_err(Error::state("write", path))
}

pub(crate) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(Error::state("read", path))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::state("read", path)(error.into()))
}
