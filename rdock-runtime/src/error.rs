//! What can go wrong; each variant names its object, the cause is in `source()`.

use crate::step::Step;
use std::path::PathBuf;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No container of this root has the name or id.
    #[error("no such container: {name}")]
    NoSuchContainer {
        /// As asked for.
        name: String,
    },
    /// The id prefix fits several containers.
    #[error("{name:?} is the beginning of more than one container id")]
    AmbiguousId {
        /// As asked for.
        name: String,
    },
    /// Another container has the name.
    #[error("the container name {name:?} is already in use by container {id}; remove or rename that one")]
    NameInUse {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// The call needs a running container.
    #[error("container {name} is not running")]
    NotRunning {
        /// Its name.
        name: String,
    },
    /// The container runs already.
    #[error("container {name} is running already")]
    AlreadyRunning {
        /// Its name.
        name: String,
    },
    /// The call needs a container that is not paused.
    #[error("container {name} is paused: unpause it first")]
    Paused {
        /// Its name.
        name: String,
    },
    /// The call needs a paused container.
    #[error("container {name} is not paused")]
    NotPaused {
        /// Its name.
        name: String,
    },
    /// This machine cannot freeze the container's processes.
    #[error("container {name} cannot be paused: {reason}")]
    CannotPause {
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The container belongs to a handle of another process or has ended with its handle.
    #[error("container {name} ends with its handle and cannot be started again")]
    NotDetached {
        /// Its name.
        name: String,
    },
    /// The container has no health check.
    #[error("container {name} has no health check")]
    NoHealthCheck {
        /// Its name.
        name: String,
    },
    /// The call needs a container that has ended.
    #[error("container {name} is running: stop it first, or force its removal")]
    StillRunning {
        /// Its name.
        name: String,
    },
    /// The image is not in the store and there is nowhere to get it from.
    #[error("no such image: {reference} (and this runtime has no image source)")]
    NoSuchImage {
        /// The image asked for.
        reference: String,
    },
    /// The image could not be brought into the store.
    #[error("could not pull {reference}")]
    Pull {
        /// The image asked for.
        reference: String,
        /// What the source said.
        source: rdock_image::BoxError,
    },
    /// An image could not be sent.
    #[error("could not push {reference}")]
    Push {
        /// Where to.
        reference: String,
        /// What the registry's client said.
        source: rdock_image::BoxError,
    },
    /// The image store failed.
    #[error(transparent)]
    Image(#[from] rdock_image::Error),
    /// The spec cannot be run; every finding is listed.
    #[error(transparent)]
    Spec(#[from] crate::plan::PlanError),
    /// A volume or the source of a mount.
    #[error(transparent)]
    Volume(#[from] crate::volume::VolumeError),
    /// The files of a container.
    #[error(transparent)]
    Files(#[from] crate::files::FilesError),
    /// A secret cannot be had.
    #[error("secret {name}: {reason}")]
    Secret {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A device of the host cannot be given to a container.
    #[error("the device {} cannot be given to a container", path.display())]
    Device {
        /// As the spec names it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A CDI device or a GPU cannot be given to a container.
    #[error(transparent)]
    Cdi(#[from] crate::cdi::CdiError),
    /// The network or a published port.
    #[error(transparent)]
    Network(#[from] crate::net::NetError),
    /// The control group.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::CgroupError),
    /// The system call filter.
    #[error(transparent)]
    Seccomp(#[from] crate::seccomp::SeccompError),
    /// A process could not be set up inside its container.
    #[error("{what} failed while {}{}", step.doing(), at(detail))]
    Launch {
        /// "starting container NAME" or "exec in container NAME".
        what: String,
        /// Where it failed.
        step: Step,
        /// What was being handled, such as a path.
        detail: String,
        /// The container's last output.
        log: Vec<String>,
        /// The system's error.
        source: std::io::Error,
    },
    /// The container ended before it was ready.
    #[error("container {name} ended ({exit}) before it was ready{}", tail(log))]
    EndedEarly {
        /// Its name.
        name: String,
        /// How it ended.
        exit: crate::state::Exit,
        /// Its last output.
        log: Vec<String>,
    },
    /// The container was not ready in time.
    #[error("container {name} was not ready after {seconds} s: {reason}{}", tail(log))]
    NotReady {
        /// Its name.
        name: String,
        /// How long was waited.
        seconds: u64,
        /// What was still missing.
        reason: String,
        /// Its last output.
        log: Vec<String>,
    },
    /// The port is not published, or the container has no such port.
    #[error("container {name} does not publish port {port}")]
    NotPublished {
        /// Its name.
        name: String,
        /// The container's port.
        port: u16,
    },
    /// Not the name or number of a signal.
    #[error("not a signal: {text:?}")]
    Signal {
        /// As given.
        text: String,
    },
    /// Not a time stamp or duration.
    #[error("not a time (RFC 3339, unix seconds) or a duration back from now (10m, 1h30m): {text:?}")]
    Time {
        /// As given.
        text: String,
    },
    /// The output of the container is not kept, as it was asked for (log driver `none`).
    #[error("the output of container {name} is not kept: its log driver is none")]
    NoLog {
        /// Its name.
        name: String,
    },
    /// Not an option of `ps` that is known here.
    #[error("not an option of top: {option:?}: {reason}")]
    PsOption {
        /// As given.
        option: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a condition on what is listed.
    #[error("not a filter: {text:?}: {reason}")]
    Filter {
        /// As given.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// Neither this program nor a monitor binary can be the monitor of a detached container.
    #[error("cannot start a monitor: {reason}")]
    NoMonitor {
        /// Why this program cannot be executed again.
        reason: String,
    },
    /// The monitor of a detached container failed; its own error, as text.
    #[error("{message}")]
    Monitor {
        /// The first line.
        message: String,
        /// docker's exit code for it.
        exit_code: i32,
        /// What to change on the host.
        hint: Option<String>,
        /// What caused it.
        source: Option<Cause>,
    },
    /// The process that owns the container went away during the call.
    #[error("the owner of container {name} is gone")]
    OwnerGone {
        /// Its name.
        name: String,
    },
    /// The state below the root.
    #[error("could not {action} {}", path.display())]
    State {
        /// What was done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The state was written by a newer version.
    #[error("{} has format {found}, which is newer than this version of rdock", path.display())]
    NewerFormat {
        /// Which file says so.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A system call on behalf of a container.
    #[error("could not {action}")]
    System {
        /// What was done.
        action: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// Parts of a container could not be removed; the rest is gone.
    #[error("container {name} was not removed completely")]
    Remains {
        /// Its name.
        name: String,
        /// The first thing that failed.
        source: Box<Error>,
    },
}

/// One cause of an error that came from another process.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Cause {
    message: String,
    source: Option<Box<Cause>>,
}

impl Cause {
    /// A chain, outermost first; `None` for an empty one.
    pub(crate) fn chain(messages: &[String]) -> Option<Self> {
        let (first, rest) = messages.split_first()?;
        Some(Self {
            message: first.clone(),
            source: Self::chain(rest).map(Box::new),
        })
    }
}

fn at(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(" ({detail})")
    }
}

fn tail(log: &[String]) -> String {
    if log.is_empty() {
        String::new()
    } else {
        format!("; its last output:\n{}", log.join("\n"))
    }
}

impl Error {
    /// What to change on the host, when the host must change.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Image(error) => error.hint(),
            Self::Network(error) => error.hint(),
            Self::Cdi(error) => error.hint(),
            Self::Volume(error) => error.hint(),
            Self::Files(error) => error.hint(),
            Self::Monitor { hint, .. } => hint.clone(),
            Self::CannotPause { .. } => Some(
                "mount the cgroup2 file system, or the freezer controller of version 1, writable for this user".into(),
            ),
            Self::NoMonitor { .. } => Some(
                "install the crate's program rdock-monitor and name it with Runtime::with_monitor, or use a scoped container"
                    .into(),
            ),
            Self::Launch { step, source, .. } => step_hint(*step, source.raw_os_error().unwrap_or(0)),
            Self::Pull { source, .. } | Self::Push { source, .. } => {
                source.downcast_ref::<Self>().and_then(Self::hint).or_else(|| source_hint(source.as_ref()))
            }
            Self::Remains { source, .. } => source.hint(),
            Self::State { source, path, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => Some(format!(
                "{} must be writable for this user; choose another root with RDOCK_ROOT",
                path.display()
            )),
            Self::State { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("the disk of rdock's root is full".into())
            }
            _ => None,
        }
    }

    /// The exit code `docker run` has for such a failure: 127 when the program was not found, 126 when it
    /// cannot be executed, 125 otherwise.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Launch {
                step: Step::Exec,
                source,
                ..
            } => match source.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => 127,
                _ => 126,
            },
            Self::Launch {
                step: Step::WorkingDirectory,
                ..
            } => 126,
            Self::Monitor { exit_code, .. } => *exit_code,
            _ => 125,
        }
    }

    pub(crate) fn state(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::State { action, path, source }
    }

    pub(crate) fn system(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}

#[cfg(feature = "registry")]
fn source_hint(source: &(dyn std::error::Error + Send + Sync + 'static)) -> Option<String> {
    source
        .downcast_ref::<rdock_registry::Error>()
        .and_then(rdock_registry::Error::hint)
}

#[cfg(not(feature = "registry"))]
fn source_hint(_: &(dyn std::error::Error + Send + Sync + 'static)) -> Option<String> {
    None
}

/// What to change on the host when this step fails with `errno`.
fn step_hint(step: Step, errno: i32) -> Option<String> {
    let denied = errno == libc::EPERM || errno == libc::EACCES;
    match step {
        Step::Spawn | Step::UserNamespace if denied => Some(
            "user namespaces are restricted here: on Ubuntu 24.04 and later run `sysctl -w \
             kernel.apparmor_restrict_unprivileged_userns=0` or give this program an AppArmor profile with \
             `userns,`; inside a container run that one with `--privileged`, or with `--security-opt \
             seccomp=unconfined --security-opt systempaths=unconfined`"
                .into(),
        ),
        Step::Spawn | Step::UserNamespace if errno == libc::ENOSPC || errno == libc::EUSERS => {
            Some("the limit in /proc/sys/user/max_user_namespaces is reached".into())
        }
        Step::Clone | Step::MountPrivate | Step::MountRoot | Step::Mount | Step::PivotRoot if denied => Some(
            "inside a container run that one with `--privileged`, or with `--security-opt seccomp=unconfined \
             --security-opt systempaths=unconfined`"
                .into(),
        ),
        _ => None,
    }
}
