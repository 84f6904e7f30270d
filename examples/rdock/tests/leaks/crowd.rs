//! A thousand kills among processes that start, exec, stop, restart and remove containers at the same time.
//!
//! Four workers do so without an end; each says what it does before it does it. Meanwhile starters, monitors, helpers
//! and payloads are killed at random moments. Ten times in between, one second and one open later, containers with a
//! restart policy run and every exit code that was recorded is the one that the payload had. In the end all are removed,
//! and the host is as it was.

use super::remains::{Before, MARK, loopback_up};
use rdock_runtime::{Container, ContainerSpec, ExitReason, NetworkMode, RestartPolicy, Runtime, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const KILLS: usize = 1000;
const LEAST: usize = 10;
/// After each the survivors are looked at.
const ROUNDS: usize = 10;
const WORKERS: usize = 4;
/// More than this is a hang.
const PATIENCE: Duration = Duration::from_secs(480);

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// What a worker does, and who else can be killed.
const STEPS: [&str; 6] = ["run", "exec", "stop", "restart", "remove", "open"];
const OTHERS: [&str; 4] = ["monitor", "helper", "payload", "monitor and helper"];

/// xorshift64: every run is another.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(1, |now| now.as_nanos() as u64);
        Self(now ^ (u64::from(std::process::id()) << 32) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % limit.max(1)
    }
}

/// One worker: a host program that is killed sooner or later.
pub(crate) fn work() -> Result<()> {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut dice = Dice::new();
    let mut stdout = std::io::stdout();
    let mut say = move |step: &str| -> Result<()> {
        writeln!(stdout, "{step}")?;
        Ok(stdout.flush()?)
    };
    tokio.block_on(async {
        loop {
            say("open")?;
            // Other processes may be killed in the middle of anything: what fails is looked at in the end.
            let Ok(runtime) = Runtime::open_default() else {
                continue;
            };
            let all = runtime.containers().unwrap_or_default();
            let some = all.get(dice.below(all.len())).cloned();
            match (dice.below(8), some) {
                (0..=2, _) | (_, None) if all.len() < 12 => {
                    say("run")?;
                    let code = 20 + dice.below(80);
                    let policy = dice.below(4) == 0;
                    let _ = spec(runtime.root(), code, policy).start_detached(&runtime).await;
                }
                (3 | 4, Some(container)) => {
                    say("exec")?;
                    let _ = container.exec(["/payload", "echo", "x"]).output().await;
                }
                (5, Some(container)) => {
                    say("stop")?;
                    let _ = container.stop(Some(Duration::ZERO)).await;
                }
                (6, Some(container)) => {
                    say("restart")?;
                    let _ = container.restart(Some(Duration::ZERO)).await;
                }
                (_, Some(container)) => {
                    say("remove")?;
                    let _ = container.remove_with(true, true).await;
                }
                _ => {}
            }
        }
    })
}

/// A container that ends with `code` after a while, or is to run for ever.
fn spec(root: &Path, code: usize, policy: bool) -> ContainerSpec {
    let spec = ContainerSpec::new("tiny")
        .env(MARK, root.to_string_lossy())
        .label("code", code.to_string())
        .pids_limit(50);
    // A network takes its part in some of them.
    let spec = match code % 3 {
        0 => spec,
        _ => spec.network(NetworkMode::None),
    };
    match policy {
        true => spec.args(["sleep", "600"]).restart(RestartPolicy::Always),
        false => spec.args(["sleep", "1", ",", "exit", &code.to_string()]),
    }
}

/// A worker and what it said last.
struct Worker {
    child: Child,
    step: Arc<Mutex<String>>,
}

impl Worker {
    fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env("RDOCK_TEST_ROLE", "leaks-work")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let step = Arc::<Mutex<String>>::default();
        let (told, stdout) = (step.clone(), child.stdout.take().ok_or("no stdout")?);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = line;
            }
        });
        Ok(Self { child, step })
    }

    fn step(&self) -> String {
        self.step.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The whole test; runs in a network and a mount namespace of its own. Prints the counts.
pub(crate) fn crowd() -> Result<()> {
    let root = PathBuf::from(std::env::var_os("RDOCK_ROOT").ok_or("no RDOCK_ROOT")?);
    loopback_up()?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // What one complete life makes and keeps (directories, formats) is no leak.
    tokio.block_on(async {
        let runtime = Runtime::open_default()?;
        let container = spec(&root, 0, false).start_detached(&runtime).await?;
        container.remove_with(true, true).await
    })?;
    let before = Before::look(&root)?;
    let mut crowd = Crowd::default();
    let began = Instant::now();
    let (mut running, mut ended) = (0, 0);
    for round in 1..=ROUNDS {
        crowd.kill(&root.join("containers"), KILLS * round / ROUNDS, began + PATIENCE)?;
        std::thread::sleep(Duration::from_secs(1));
        let found = tokio.block_on(check(&Runtime::open_default()?))?;
        (running, ended) = (running + found.0, ended + found.1);
    }
    let took = began.elapsed();
    tokio.block_on(async {
        let runtime = Runtime::open_default()?;
        for container in runtime.containers()? {
            container.remove_with(true, true).await?;
        }
        Ok::<(), rdock_runtime::Error>(())
    })?;
    std::thread::sleep(Duration::from_secs(1));
    Runtime::open_default()?;
    let Crowd { kills, ids, .. } = crowd;
    let left = before.remains(&ids)?;
    if !left.is_empty() {
        return Err(format!("left after {kills:?}:\n{}", left.join("\n")).into());
    }
    let all: usize = kills.values().sum();
    let mut table = format!(
        "{all} kills in {:.0} s over {} containers, {running} back by policy, {ended} exit codes right, nothing left\n",
        took.as_secs_f64(),
        ids.len(),
    );
    for (name, count) in kills {
        writeln!(table, "  {count:4}  {name}")?;
    }
    std::io::stdout().write_all(table.as_bytes())?;
    Ok(())
}

/// Who was killed, and which containers were seen.
struct Crowd {
    dice: Dice,
    kills: BTreeMap<String, usize>,
    ids: BTreeSet<String>,
}

impl Default for Crowd {
    fn default() -> Self {
        Self {
            dice: Dice::new(),
            kills: BTreeMap::new(),
            ids: BTreeSet::new(),
        }
    }
}

impl Crowd {
    /// Whether so many were killed; of the last round's, of each kind at least [`LEAST`].
    fn is_enough(&self, all: usize) -> bool {
        let count = |name: &str| self.kills.get(name).copied().unwrap_or(0);
        let mut kinds = STEPS.iter().chain(&OTHERS);
        self.kills.values().sum::<usize>() >= all && (all < KILLS || kinds.all(|name| count(name) >= LEAST))
    }

    /// Lets workers work, and kills until `all` were killed. Then no worker is left.
    fn kill(&mut self, dir: &Path, all: usize, deadline: Instant) -> Result<()> {
        let mut workers: Vec<Worker> = (0..WORKERS).map(|_| Worker::start()).collect::<Result<_>>()?;
        while !self.is_enough(all) {
            if Instant::now() > deadline {
                return Err(format!("not done after {PATIENCE:?}: {:?}", self.kills).into());
            }
            std::thread::sleep(Duration::from_millis(self.dice.below(60) as u64));
            for entry in std::fs::read_dir(dir)?.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.len() == 64 {
                    self.ids.insert(name);
                }
            }
            if self.dice.below(3) == 0 {
                let at = self.dice.below(WORKERS);
                let step = workers[at].step();
                workers[at].child.kill()?;
                workers[at].child.wait()?;
                workers[at] = Worker::start()?;
                if STEPS.contains(&step.as_str()) {
                    *self.kills.entry(step).or_default() += 1;
                }
                continue;
            }
            let victims: Vec<Victims> = self
                .ids
                .iter()
                .filter_map(|id| Victims::of(&dir.join(id)))
                .collect();
            if victims.is_empty() {
                continue;
            }
            let (victims, name) = (
                &victims[self.dice.below(victims.len())],
                OTHERS[self.dice.below(OTHERS.len())],
            );
            let hit = match name {
                "monitor" => kill(victims.monitor),
                "helper" => kill(victims.helper),
                "payload" => kill(victims.payload),
                _ => kill(victims.monitor) & kill(victims.helper),
            };
            if hit {
                *self.kills.entry(name.to_owned()).or_default() += 1;
            }
        }
        for mut worker in workers {
            worker.child.kill()?;
            worker.child.wait()?;
        }
        Ok(())
    }
}

/// Containers with a policy run, and no exit code is wrong. How many of each were found.
async fn check(runtime: &Runtime) -> Result<(usize, usize)> {
    let (mut running, mut ended) = (0, 0);
    for container in runtime.containers()? {
        let info = container.inspect()?;
        let code = info.spec.labels.get("code").cloned().unwrap_or_default();
        let policy = info.spec.restart != RestartPolicy::No;
        match &info.status {
            Status::Running if policy => {
                // It is really there: a process joins it.
                let done = container.exec(["/payload", "echo", "here"]).output().await?;
                if done.stdout != b"here\n" {
                    return Err(format!("{} says {done:?}", info.name).into());
                }
                running += 1;
            }
            Status::Running | Status::Restarting(_) | Status::Created => {}
            Status::Exited(_) if policy && !stopped(&container)? => {
                return Err(format!("{} has a policy and has ended: {info:?}", info.name).into());
            }
            Status::Exited(exit) => match &exit.reason {
                ExitReason::Exited(found) if found.to_string() != code => {
                    return Err(format!("{} ended with {found} instead of {code}", info.name).into());
                }
                ExitReason::Exited(_) => ended += 1,
                // It was killed, or somebody whom its start needed.
                _ => {}
            },
            other => return Err(format!("{} is {other:?}", info.name).into()),
        }
    }
    Ok((running, ended))
}

/// Whether somebody stopped it on purpose, or its start was cut off.
fn stopped(container: &Container) -> Result<bool> {
    let events = std::fs::read_to_string(container.inspect()?.state_dir.join("events.jsonl"))?;
    let last_start = events.rfind("\"event\":\"started\"");
    let since = last_start.map_or(events.as_str(), |at| &events[at..]);
    Ok(last_start.is_none() || since.contains("\"event\":\"stop_requested\""))
}

/// The processes of one container.
struct Victims {
    monitor: Option<i32>,
    helper: Option<i32>,
    payload: Option<i32>,
}

impl Victims {
    fn of(dir: &Path) -> Option<Self> {
        let owner: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.join("owner")).ok()?).ok()?;
        let events = std::fs::read_to_string(dir.join("events.jsonl")).ok()?;
        let started = events
            .lines()
            .rev()
            .find(|line| line.contains("\"event\":\"started\""))?;
        let started: serde_json::Value = serde_json::from_str(started).ok()?;
        let number = |value: &serde_json::Value| value.as_i64().and_then(|pid| i32::try_from(pid).ok());
        Some(Self {
            monitor: number(&owner["pid"]),
            helper: number(&started["helper"]),
            payload: number(&started["pid"]),
        })
    }
}

/// Kills a process of a container of this test, and no other that has its number by now.
fn kill(pid: Option<i32>) -> bool {
    let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else {
        return false;
    };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return false;
    };
    let number = pid.as_raw_nonzero();
    let name = std::fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
    let environment = std::fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
    let root = std::env::var("RDOCK_ROOT").unwrap_or_default();
    let mark = format!("{MARK}={root}");
    let is_ours = environment
        .windows(mark.len())
        .any(|part| part == mark.as_bytes());
    // The helper's and the monitor's environments are empty; this program's children are in its network namespace.
    let ours = std::fs::read_link("/proc/self/ns/mnt").ok();
    let theirs = std::fs::read_link(format!("/proc/{number}/ns/mnt")).ok();
    let command = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
    let is_rdock = command.starts_with(b"rdock-") || name.starts_with("rdock-");
    (is_ours || (is_rdock && ours.is_some() && ours == theirs))
        && rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).is_ok()
}
