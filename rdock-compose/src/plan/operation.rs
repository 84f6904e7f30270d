//! What a step does, and why.

use super::existing::{ContainerState, ExistingMount};
use crate::hash::Change;
use crate::model::Condition;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A container that exists, or that an earlier step makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The service.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its id, if it exists already.
    pub id: Option<String>,
}

/// One operation. What it needs beside its own fields stands in the project: applying asks the project for the
/// service, the network or the volume by its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// Bring an image here.
    PullImage {
        /// Whose image; others may use the same.
        service: String,
        /// The reference.
        image: String,
        /// For which platform, if its service says one; that of this machine otherwise.
        #[serde(default)]
        platform: Option<String>,
        /// It may fail if the image is here, or can be built.
        optional: bool,
    },
    /// Build a service's image.
    BuildImage {
        /// The service.
        service: String,
        /// The name the image gets.
        image: String,
    },
    /// Remove an image.
    RemoveImage {
        /// The reference.
        image: String,
    },
    /// Make a network.
    CreateNetwork {
        /// Its key in the project.
        key: String,
        /// Its name.
        name: String,
    },
    /// Remove a network.
    RemoveNetwork {
        /// Its name.
        name: String,
        /// Its id.
        id: String,
    },
    /// Make a volume.
    CreateVolume {
        /// Its key in the project.
        key: String,
        /// Its name.
        name: String,
    },
    /// Remove a volume and what is in it.
    RemoveVolume {
        /// Its name.
        name: String,
    },
    /// Make a container and do not start it.
    CreateContainer {
        /// The service.
        service: String,
        /// Its number, from 1.
        number: u32,
        /// The name it is made under.
        name: String,
        /// The id of the one whose place it takes.
        replaces: Option<String>,
        /// Anonymous volumes of that one, which it goes on using.
        inherits: Vec<ExistingMount>,
        /// What makes it a container of `run`.
        #[serde(default)]
        one_off: Option<OneOff>,
    },
    /// Give a container its final name.
    RenameContainer {
        /// The name it was made under.
        from: String,
        /// Its name from now on.
        to: String,
    },
    /// Start a container.
    StartContainer {
        /// Which.
        container: Target,
    },
    /// Send the stop signal, wait, then SIGKILL.
    StopContainer {
        /// Which.
        container: Target,
        /// Seconds to wait; absent for the service's own `stop_grace_period`.
        timeout: Option<u64>,
    },
    /// Stop and start again.
    RestartContainer {
        /// Which.
        container: Target,
        /// Seconds to wait when stopping.
        timeout: Option<u64>,
    },
    /// Send a signal.
    KillContainer {
        /// Which.
        container: Target,
        /// The signal's name.
        signal: String,
    },
    /// Let its processes stand still.
    PauseContainer {
        /// Which.
        container: Target,
    },
    /// Let its processes go on.
    UnpauseContainer {
        /// Which.
        container: Target,
    },
    /// Remove a container.
    RemoveContainer {
        /// Which.
        container: Target,
        /// Its anonymous volumes too.
        volumes: bool,
        /// Even if it runs by then, since a start that was under way came to its end: it is stopped first.
        force: bool,
    },
    /// Run a command around a container's life.
    RunHook {
        /// The service.
        service: String,
        /// The container's name; for `pre_start` without `per_replica` the first one's.
        container: String,
        /// When.
        kind: HookKind,
        /// Which of the service's hooks of that kind.
        index: usize,
    },
    /// Ask the program that provides a service.
    RunProvider {
        /// The service.
        service: String,
        /// For what.
        action: ProviderAction,
    },
    /// Wait until a service's containers are in a state.
    Wait {
        /// The service.
        service: String,
        /// The containers' names.
        containers: Vec<String>,
        /// The state.
        condition: WaitCondition,
        /// If it fails, what waits for it goes on all the same.
        optional: bool,
    },
}

/// A container of `run`: one beside those of its service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneOff {
    /// The random part of its name.
    pub slug: String,
    /// It publishes the ports of its service, which nothing else may do meanwhile.
    #[serde(default)]
    pub service_ports: bool,
    /// It is found by the names of its service.
    #[serde(default)]
    pub use_aliases: bool,
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookKind {
    /// Before the container starts.
    PreStart,
    /// After it has started.
    PostStart,
    /// Before it is stopped.
    PreStop,
}

/// What the program of a service is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderAction {
    /// Make what the service is, unless it is there, and say how it is reached.
    Up,
    /// Let it rest. Only programs that say they can are asked.
    Stop,
    /// Remove it.
    Down,
}

impl ProviderAction {
    /// The word on the program's command line.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Stop => "stop",
            Self::Down => "down",
        }
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitCondition {
    /// They are healthy. Fails at once when one is unhealthy or ends.
    Healthy,
    /// They have ended with 0. Fails when one ends with another code.
    Completed,
    /// They run, and are healthy if they have a health check.
    RunningOrHealthy,
}

impl WaitCondition {
    /// What has to be waited for once containers were started; nothing for [`Condition::Started`].
    pub(crate) fn of(condition: Condition) -> Option<Self> {
        match condition {
            Condition::Started => None,
            Condition::Healthy => Some(Self::Healthy),
            Condition::Completed => Some(Self::Completed),
        }
    }
}

/// Why a step is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// It is wanted and not there.
    Missing,
    /// The caller asks for it.
    Requested,
    /// A value that it was made from is another one.
    Changed(Change),
    /// It was made from something else, of which only the hash is known.
    HashChanged,
    /// The image's name leads to another image.
    ImageChanged {
        /// The image's id when it was made.
        before: String,
        /// The image's id now.
        after: String,
    },
    /// It is not in the network that it should be in.
    NetworkChanged {
        /// The network.
        network: String,
    },
    /// It has not the volume that it should have.
    VolumeChanged {
        /// The path in the container.
        target: String,
        /// The volume.
        volume: String,
    },
    /// What it shares a namespace or volumes with is made anew.
    Shared {
        /// That service.
        service: String,
    },
    /// What it depends on is made anew, and it asks to be restarted then.
    DependencyReplaced {
        /// That service.
        service: String,
    },
    /// It does not run.
    NotRunning {
        /// What it does.
        state: ContainerState,
    },
    /// More containers are wanted.
    ScaleUp {
        /// How many there were.
        from: u32,
        /// How many there will be.
        to: u32,
    },
    /// Fewer containers are wanted.
    ScaleDown {
        /// How many there were.
        from: u32,
        /// How many there will be.
        to: u32,
    },
    /// Its service is no longer in the files.
    Orphan,
    /// It was left half-way through a replacement.
    LeftOver,
    /// A newer one takes its place.
    Replaced,
    /// Another service needs it so.
    Needed {
        /// That service.
        service: String,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it is not there"),
            Self::Requested => f.write_str("it was asked for"),
            Self::Changed(change) => write!(f, "{change}"),
            Self::HashChanged => f.write_str("its configuration is another one"),
            Self::ImageChanged { before, after } => write!(f, "image: {before} -> {after}"),
            Self::NetworkChanged { network } => write!(f, "it is not in the network {network}"),
            Self::VolumeChanged { target, volume } => write!(f, "the volume {volume} is not at {target}"),
            Self::Shared { service } => write!(
                f,
                "it shares a namespace or volumes with {service}, which is made anew"
            ),
            Self::DependencyReplaced { service } => {
                write!(f, "it restarts with {service}, which is made anew")
            }
            Self::NotRunning { state } => match state {
                ContainerState::Exited(code) => write!(f, "it ended with {code}"),
                other => write!(f, "it is {}", format!("{other:?}").to_lowercase()),
            },
            Self::ScaleUp { from, to } | Self::ScaleDown { from, to } => {
                write!(f, "containers: {from} -> {to}")
            }
            Self::Orphan => f.write_str("its service is no longer in the files"),
            Self::LeftOver => f.write_str("it was left half-way through a replacement"),
            Self::Replaced => f.write_str("a newer one takes its place"),
            Self::Needed { service } => write!(f, "{service} needs it"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PullImage { image, platform, .. } => match platform {
                None => write!(f, "pull image {image}"),
                Some(platform) => write!(f, "pull image {image} for {platform}"),
            },
            Self::BuildImage { service, image } => write!(f, "build image {image} of {service}"),
            Self::RemoveImage { image } => write!(f, "remove image {image}"),
            Self::CreateNetwork { name, .. } => write!(f, "create network {name}"),
            Self::RemoveNetwork { name, .. } => write!(f, "remove network {name}"),
            Self::CreateVolume { name, .. } => write!(f, "create volume {name}"),
            Self::RemoveVolume { name } => write!(f, "remove volume {name}"),
            Self::CreateContainer { name, .. } => write!(f, "create container {name}"),
            Self::RenameContainer { from, to } => write!(f, "rename container {from} to {to}"),
            Self::StartContainer { container } => write!(f, "start container {}", container.name),
            Self::StopContainer { container, .. } => write!(f, "stop container {}", container.name),
            Self::RestartContainer { container, .. } => write!(f, "restart container {}", container.name),
            Self::KillContainer { container, signal } => {
                write!(f, "send {signal} to container {}", container.name)
            }
            Self::PauseContainer { container } => write!(f, "pause container {}", container.name),
            Self::UnpauseContainer { container } => write!(f, "unpause container {}", container.name),
            Self::RemoveContainer { container, .. } => write!(f, "remove container {}", container.name),
            Self::RunHook {
                container,
                kind,
                index,
                ..
            } => {
                let kind = match kind {
                    HookKind::PreStart => "pre_start",
                    HookKind::PostStart => "post_start",
                    HookKind::PreStop => "pre_stop",
                };
                write!(f, "run {kind} {index} of container {container}")
            }
            Self::RunProvider { service, action } => {
                write!(f, "ask the provider of {service} for {}", action.verb())
            }
            Self::Wait {
                service, condition, ..
            } => {
                let state = match condition {
                    WaitCondition::Healthy => "healthy",
                    WaitCondition::Completed => "completed",
                    WaitCondition::RunningOrHealthy => "running or healthy",
                };
                write!(f, "wait until {service} is {state}")
            }
        }
    }
}
