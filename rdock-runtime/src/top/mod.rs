//! The processes of a container, from /proc alone: nothing of the image runs for it.

mod columns;

use crate::cgroup::Place;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::procfs::{self, TICKS};
use crate::runtime::blocking;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// One process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Its number on the host.
    pub pid: i32,
    /// Its number in the container.
    pub container_pid: i32,
    /// Its parent's number on the host.
    pub parent: i32,
    /// Its process group, on the host.
    pub group: i32,
    /// Its session, on the host.
    pub session: i32,
    /// Effective user id, as the host sees it.
    pub uid: u32,
    /// Effective group id, as the host sees it.
    pub gid: u32,
    /// Real user id.
    pub real_uid: u32,
    /// Real group id.
    pub real_gid: u32,
    /// The name it has given itself, at most 15 bytes.
    pub name: String,
    /// Its arguments; none of a process that has ended and is not waited for yet.
    pub arguments: Vec<String>,
    /// `R` running, `S` sleeping, `D` in a system call, `Z` ended, `T` stopped, `t` traced, `I` idle.
    pub state: char,
    /// Device number of its terminal; 0 without one.
    pub terminal: u64,
    /// Its threads.
    pub threads: u64,
    /// -20 to 19, higher is nicer.
    pub nice: i64,
    /// The kernel's priority.
    pub priority: i64,
    /// The processor it ran on last.
    pub processor: i64,
    /// It leads its session.
    pub leads_session: bool,
    /// It is in the foreground of its terminal.
    pub foreground: bool,
    /// It has pages locked in memory.
    pub locked: bool,
    /// When it began, in nanoseconds since 1970.
    pub started_nanos: i64,
    /// Processor time it has used.
    pub cpu_time: Duration,
    /// Bytes of address space.
    pub virtual_size: u64,
    /// Bytes in memory.
    pub resident_size: u64,
}

/// Processes in columns, as `ps` prints them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Top {
    /// Headings.
    pub titles: Vec<String>,
    /// A row a process. Control characters of a process's own texts are `?`.
    pub processes: Vec<Vec<String>>,
}

impl Container {
    /// Lists the processes of the container, exec'd ones included, by pid.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        let this = self.clone();
        blocking(move || this.read_processes()).await
    }

    /// Lists the processes of the container in the columns that `options`, in the words of `ps`, ask for: `-ef`
    /// (when empty), `aux`, or `-o` with names such as `pid,user,args`. Numbers are the host's, as under docker.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; [`Error::PsOption`] for an option or a column that is not known.
    pub async fn top<I: IntoIterator<Item: AsRef<str>>>(&self, options: I) -> Result<Top> {
        let columns = columns::parse(options)?;
        let processes = self.processes().await?;
        blocking(move || Ok(columns::table(&columns, &processes))).await
    }

    pub(crate) fn read_processes(&self) -> Result<Vec<ProcessInfo>> {
        let info = self.inspect()?;
        let Some(payload) = info.pid else {
            return Err(Error::NotRunning {
                name: self.name().to_owned(),
            });
        };
        let pids = members(&Place::of(&info.id, &info.spec), payload, info.helper_pid);
        let boot = procfs::boot_time();
        let depth = procfs::owner(payload).map_or(0, |owner| owner.pids.len());
        // One that ends meanwhile is no longer a process of the container.
        Ok(pids
            .into_iter()
            .filter_map(|pid| read(pid, boot, depth))
            .collect())
    }
}

/// The processes of a container: those in its groups, and those in the payload's pid namespace when it has one
/// of its own; without either, what descends from the payload.
pub(crate) fn members(place: &Place, payload: i32, helper: Option<i32>) -> BTreeSet<i32> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let mut found = crate::cgroup::groups(place).processes();
    found.insert(payload);
    let own =
        namespace(payload).filter(|own| Some(own) != std::fs::read_link("/proc/self/ns/pid").ok().as_ref());
    let everyone = procfs::pids();
    if let Some(own) = &own {
        found.extend(
            everyone
                .iter()
                .copied()
                .filter(|pid| namespace(*pid).as_ref() == Some(own)),
        );
    }
    let parents: Vec<(i32, i32)> = everyone
        .into_iter()
        .filter_map(|pid| Some((pid, procfs::stat(pid).ok()?.parent)))
        .collect();
    // Children of a nested namespace, and of one without groups.
    loop {
        let before = found.len();
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| found.contains(parent))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            break;
        }
    }
    if let Some(helper) = helper {
        found.remove(&helper);
    }
    found
}

fn read(pid: i32, boot: i64, depth: usize) -> Option<ProcessInfo> {
    let stat = procfs::stat(pid).ok()?;
    let owner = procfs::owner(pid).ok()?;
    let nanos = |ticks: u64| ticks.saturating_mul(1_000_000_000 / TICKS);
    Some(ProcessInfo {
        pid,
        // In the payload's namespace, which may be above that of a nested one.
        container_pid: owner
            .pids
            .get(depth.max(1) - 1)
            .or(owner.pids.last())
            .copied()
            .unwrap_or(pid),
        parent: stat.parent,
        group: stat.group,
        session: stat.session,
        uid: owner.uids[1],
        gid: owner.gids[1],
        real_uid: owner.uids[0],
        real_gid: owner.gids[0],
        name: stat.name,
        arguments: procfs::arguments(pid),
        state: stat.state,
        terminal: stat.tty,
        threads: stat.threads,
        nice: stat.nice,
        priority: stat.priority,
        processor: stat.processor,
        leads_session: stat.session == pid,
        foreground: stat.foreground == stat.group,
        locked: owner.locked,
        started_nanos: boot.saturating_add(i64::try_from(nanos(stat.start)).unwrap_or(i64::MAX)),
        cpu_time: Duration::from_nanos(nanos(stat.user.saturating_add(stat.system))),
        virtual_size: stat.virtual_size,
        resident_size: owner.resident,
    })
}
