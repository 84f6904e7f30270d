//! A snapshot becomes a process: containers inside your own program.
#![doc = include_str!("../README.md")]

mod base;
pub mod blocking;
mod capabilities;
mod cdi;
mod cgroup;
mod connections;
mod container;
mod control;
mod create;
mod disk;
mod error;
mod events;
mod exec;
mod files;
mod gpu;
mod health;
mod hooks;
mod identity;
mod launch;
mod lifecycle;
mod list;
mod logs;
mod moment;
mod monitor;
mod net;
mod network_files;
mod owner;
mod plan;
mod process;
mod procfs;
mod reactor;
mod readiness;
mod ready;
mod recover;
mod remove;
mod runtime;
mod scoped;
mod seccomp;
mod secrets;
mod signal;
mod spec;
mod start;
mod state;
mod stats;
mod step;
mod sys;
mod top;
mod volume;
mod warning;

pub use base::LayeredContainer;
pub use cdi::CdiError;
pub use cgroup::CgroupError;
pub use container::{Attached, Container, ContainerInfo};
pub use disk::{ContainerPruneFilter, DiskShare, DiskUsage, PrunedContainers};
pub use error::{Cause, Error, Result};
pub use events::{Event, EventAction, EventFilter, EventKind, Events};
pub use exec::{Exec, ExecProcess, ExecTerminal};
pub use files::{
    Archive, CommitOptions, Copied, CopyOptions, FileChange, FileChangeKind, FileStat, FilesError,
};
pub use health::{Health, HealthResult, HealthStatus};
pub use lifecycle::{ContainerUpdate, WaitCondition};
pub use list::ContainerFilter;
pub use logs::{LogLine, LogStream, Logs};
pub use net::{
    EndpointInfo, NetError, NetworkInfo, NetworkMember, NetworkSpec, Networks, SubnetInfo, SubnetSpec,
};
pub use plan::{Finding, PlanError};
pub use rdock_image as image;
pub use runtime::{Info, Runtime};
pub use scoped::ScopedContainer;
pub use seccomp::SeccompError;
pub use spec::*;
pub use state::{BoundAddress, Exit, ExitReason, MountInfo, Status};
pub use stats::{
    BlockStats, GapReason, InterfaceStats, MemoryStats, Stats, StatsGap, StatsPart, StatsStream,
};
pub use step::Step;
pub use top::{ProcessInfo, Top};
pub use volume::{PrunedVolumes, VolumeError, VolumeFilter, VolumeInfo, VolumeOptions, Volumes};
pub use warning::{NoEgress, Warning};

/// The programs of the repository's front page compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;
