//! What a container uses: processor, memory, disks, network, processes. Once, or again and again.
//!
//! The kernel's control groups count for a container as a whole. Where a group or its controller is missing, the
//! living processes are counted instead, and [`Stats::gaps`] says so.

use crate::cgroup;
use crate::container::{Container, ContainerInfo};
use crate::error::{Error, Result};
use crate::procfs;
use crate::runtime::blocking;
use crate::spec::NetworkMode;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// What a container had used at one moment. Counters grow from its start on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The moment, in nanoseconds since 1970.
    pub time_nanos: i64,
    /// Processor time, of all processors together.
    pub cpu_time: Duration,
    /// Processors of this machine.
    pub processors: usize,
    /// Processor time since the sample before, over the time between them: 100 is one processor. `None` in a
    /// sample that has none before it.
    pub cpu_percent: Option<f64>,
    /// Memory.
    pub memory: MemoryStats,
    /// Bytes read from and written to disks; `None` where nobody counts them.
    pub block_io: Option<BlockStats>,
    /// Counters of each interface, by its name in the container; none for a network that is not its own.
    pub networks: BTreeMap<String, InterfaceStats>,
    /// Processes and threads.
    pub pids: u64,
    /// How many there may be.
    pub pids_limit: Option<u64>,
    /// What is estimated or missing, and why.
    pub gaps: Vec<StatsGap>,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryStats {
    /// In use as docker shows it: without file contents that are cached and were not used for a while.
    pub used: u64,
    /// Everything that is charged to the container.
    pub charged: u64,
    /// What it may use: its limit, else the machine's memory.
    pub limit: u64,
}

impl MemoryStats {
    /// Returns the used part of the limit, in percent.
    pub fn percent(&self) -> f64 {
        match self.limit {
            0 => 0.0,
            limit => 100.0 * self.used as f64 / limit as f64,
        }
    }
}

/// Bytes of disks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BlockStats {
    /// Read.
    pub read: u64,
    /// Written.
    pub written: u64,
}

/// Counters of an interface, from the container's side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
#[non_exhaustive]
pub struct InterfaceStats {
    pub received_bytes: u64,
    pub received_packets: u64,
    pub received_errors: u64,
    pub received_dropped: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub sent_errors: u64,
    pub sent_dropped: u64,
}

/// A part of the figures that does not come from the container's control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StatsGap {
    /// Which part.
    pub part: StatsPart,
    /// Why.
    pub reason: GapReason,
}

/// A part of the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum StatsPart {
    Cpu,
    Memory,
    BlockIo,
    Network,
    Pids,
}

/// Why a part does not come from the container's control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GapReason {
    /// The container has no group with that controller: its living processes are counted. A limit of that kind
    /// gives it one where the machine has the controller.
    CountedByProcess,
    /// This user may not see it.
    NotPermitted,
    /// The network is not the container's own.
    SharedNetwork,
}

impl fmt::Display for StatsGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part {
            StatsPart::Cpu => "processor time",
            StatsPart::Memory => "memory",
            StatsPart::BlockIo => "disk input and output",
            StatsPart::Network => "network traffic",
            StatsPart::Pids => "the number of processes",
        };
        match self.reason {
            GapReason::CountedByProcess => write!(
                f,
                "{part} is counted over the living processes: the container has no control group for it"
            ),
            GapReason::NotPermitted => write!(f, "{part} is not known: this user may not see it"),
            GapReason::SharedNetwork => {
                write!(f, "{part} is not known: the network is not the container's own")
            }
        }
    }
}

impl Stats {
    /// Returns the processor time used since an earlier sample, over the time between them: 100 is one processor.
    pub fn cpu_percent_since(&self, before: &Self) -> f64 {
        let between = self.time_nanos.saturating_sub(before.time_nanos);
        // A process that ended took its time along, where they are counted one by one.
        let used = self.cpu_time.saturating_sub(before.cpu_time);
        match between {
            ..=0 => 0.0,
            between => 100.0 * used.as_nanos() as f64 / between as f64,
        }
    }

    /// Returns the bytes of all interfaces together: received, sent.
    pub fn network_total(&self) -> (u64, u64) {
        self.networks.values().fold((0, 0), |(received, sent), one| {
            (
                received.saturating_add(one.received_bytes),
                sent.saturating_add(one.sent_bytes),
            )
        })
    }
}

/// Samples of one container, made by [`Container::stats_stream`].
#[derive(Debug)]
#[must_use = "samples are taken by next"]
pub struct StatsStream {
    container: Container,
    interval: Duration,
    before: Option<Stats>,
}

impl StatsStream {
    /// Sets the time between samples; a second by default.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The next sample: the first at once, others after the interval. `None` when the container has ended.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub async fn next(&mut self) -> Result<Option<Stats>> {
        if let Some(before) = &self.before {
            let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
            let passed = u64::try_from(now.saturating_sub(before.time_nanos)).unwrap_or(0);
            tokio::time::sleep(self.interval.saturating_sub(Duration::from_nanos(passed))).await;
        }
        match self.container.stats().await {
            Ok(mut stats) => {
                stats.cpu_percent = self.before.as_ref().map(|before| stats.cpu_percent_since(before));
                self.before = Some(stats.clone());
                Ok(Some(stats))
            }
            Err(Error::NotRunning { .. }) => Ok(None),
            // It removed itself.
            Err(Error::State { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Container {
    /// Takes one sample. It has no [`Stats::cpu_percent`], which needs two.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub async fn stats(&self) -> Result<Stats> {
        let this = self.clone();
        blocking(move || sample(&this)).await
    }

    /// Takes samples again and again, until the container has ended.
    pub fn stats_stream(&self) -> StatsStream {
        StatsStream {
            container: self.clone(),
            interval: Duration::from_secs(1),
            before: None,
        }
    }
}

fn sample(container: &Container) -> Result<Stats> {
    let info = container.inspect()?;
    // One whose end nobody has recorded yet counts as ended.
    let gone = |pid: &i32| matches!(procfs::stat(*pid), Err(error) if crate::process::is_gone(&error));
    let Some(payload) = info.pid.filter(|pid| !gone(pid)) else {
        return Err(Error::NotRunning {
            name: info.name.clone(),
        });
    };
    let groups = cgroup::groups(&cgroup::Place::of(&info.id, &info.spec));
    let mut gaps = Vec::new();
    let mut living = Living::new(&info, payload);
    let counted = |part| StatsGap {
        part,
        reason: GapReason::CountedByProcess,
    };
    let cpu_time = groups.cpu().map_or_else(
        || {
            gaps.push(counted(StatsPart::Cpu));
            living.cpu()
        },
        Duration::from_nanos,
    );
    let machine = procfs::memory_total();
    let memory = match groups.memory() {
        Some(memory) => MemoryStats {
            // docker's rule, for both versions.
            used: memory.usage.saturating_sub(memory.inactive_file),
            charged: memory.usage,
            limit: memory.limit.map_or(machine, |limit| limit.min(machine)),
        },
        None => {
            gaps.push(counted(StatsPart::Memory));
            let resident = living.resident();
            MemoryStats {
                used: resident,
                charged: resident,
                limit: machine,
            }
        }
    };
    let block_io = match groups.block_io() {
        Some(transfer) => Some(BlockStats {
            read: transfer.read,
            written: transfer.written,
        }),
        None => {
            let found = living.disk();
            gaps.push(match found {
                Some(_) => counted(StatsPart::BlockIo),
                None => StatsGap {
                    part: StatsPart::BlockIo,
                    reason: GapReason::NotPermitted,
                },
            });
            found
        }
    };
    let (pids, pids_limit) = groups.pids().unwrap_or_else(|| {
        gaps.push(counted(StatsPart::Pids));
        (living.threads(), None)
    });
    let networks = networks(&info, payload, &mut gaps);
    Ok(Stats {
        id: info.id,
        name: info.name,
        time_nanos: i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
        cpu_time,
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        cpu_percent: None,
        memory,
        block_io,
        networks,
        pids,
        pids_limit,
        gaps,
    })
}

fn networks(
    info: &ContainerInfo,
    payload: i32,
    gaps: &mut Vec<StatsGap>,
) -> BTreeMap<String, InterfaceStats> {
    let mut gap = |reason| {
        gaps.push(StatsGap {
            part: StatsPart::Network,
            reason,
        });
        BTreeMap::new()
    };
    if matches!(info.spec.network, NetworkMode::Host | NetworkMode::Container(_)) {
        return gap(GapReason::SharedNetwork);
    }
    let Ok(found) = procfs::interfaces(payload) else {
        return gap(GapReason::NotPermitted);
    };
    let shape = |one: procfs::Interface| {
        let ([bytes, packets, errors, dropped], sent) = (one.received, one.sent);
        InterfaceStats {
            received_bytes: bytes,
            received_packets: packets,
            received_errors: errors,
            received_dropped: dropped,
            sent_bytes: sent[0],
            sent_packets: sent[1],
            sent_errors: sent[2],
            sent_dropped: sent[3],
        }
    };
    found.into_iter().map(|(name, one)| (name, shape(one))).collect()
}

/// The container's processes, looked for when the first figure needs them.
struct Living<'a> {
    info: &'a ContainerInfo,
    payload: i32,
    pids: Option<BTreeSet<i32>>,
}

impl<'a> Living<'a> {
    fn new(info: &'a ContainerInfo, payload: i32) -> Self {
        Self {
            info,
            payload,
            pids: None,
        }
    }

    fn pids(&mut self) -> &BTreeSet<i32> {
        let (info, payload) = (self.info, self.payload);
        self.pids.get_or_insert_with(|| {
            crate::top::members(&cgroup::Place::of(&info.id, &info.spec), payload, info.helper_pid)
        })
    }

    /// Of those that still live when they are looked at.
    fn stats(&mut self) -> impl Iterator<Item = procfs::Stat> + '_ {
        self.pids().iter().filter_map(|pid| procfs::stat(*pid).ok())
    }

    fn cpu(&mut self) -> Duration {
        let ticks = self.stats().map(|stat| stat.user.saturating_add(stat.system));
        let ticks = ticks.fold(0, u64::saturating_add);
        Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / procfs::TICKS))
    }

    fn resident(&mut self) -> u64 {
        let sizes = self
            .pids()
            .iter()
            .filter_map(|pid| Some(procfs::owner(*pid).ok()?.resident));
        sizes.fold(0, u64::saturating_add)
    }

    fn threads(&mut self) -> u64 {
        self.stats().map(|stat| stat.threads).fold(0, u64::saturating_add)
    }

    fn disk(&mut self) -> Option<BlockStats> {
        let mut total = None;
        for (read, written) in self.pids().iter().filter_map(|pid| procfs::disk(*pid)) {
            let sum: &mut BlockStats = total.get_or_insert_default();
            sum.read = sum.read.saturating_add(read);
            sum.written = sum.written.saturating_add(written);
        }
        total
    }
}
