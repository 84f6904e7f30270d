//! Two hundred starts of a container that are cut off.

use super::remains::{Before, loopback_up};
use super::tracer::{Part, Stop, Tracer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

const KILLS: usize = 200;
const PER_STEP: usize = 3;

/// A round that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A start that has a call fail ends by itself within this time, or not at all.
const STUCK: Duration = Duration::from_secs(3);

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Who is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Host,
    Helper,
    Both,
}

/// What is done to one start.
#[derive(Debug, Clone, Copy)]
enum Aim {
    /// Nothing; the container is removed when it runs.
    Watch,
    /// This call fails.
    Fail(Part, usize),
    /// Killed at this call.
    Kill(Part, usize, Victim),
    /// Killed some time after the payload's exec.
    KillRunning(Duration, Victim),
}

/// What became of one start.
#[derive(Debug)]
struct Round {
    /// Lines the host program printed.
    said: String,
    /// Where it was cut off.
    killed: Option<(Part, usize)>,
    calls: BTreeMap<Part, usize>,
}

/// Random enough, and every run of the test is another: no two have the same process id and time.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(1, |now| now.as_nanos() as u64);
        Self(now ^ u64::from(std::process::id()) | 1)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % limit.max(1)
    }

    fn victim(&mut self) -> Victim {
        [Victim::Host, Victim::Helper, Victim::Both][self.below(3)]
    }
}

/// The whole test; runs in a network and a mount namespace of its own. Prints the table.
pub(crate) fn watch() -> Result<()> {
    let root = PathBuf::from(std::env::var_os("RDOCK_ROOT").ok_or("no RDOCK_ROOT")?);
    loopback_up()?;
    let mut ids = BTreeSet::new();
    // What one complete life makes and keeps (directories, formats) is no leak.
    let whole = round(&root, Aim::Watch, &mut ids)?;
    if !whole.said.contains("removed") {
        return Err(format!("an undisturbed start: {}", whole.said).into());
    }
    let before = Before::look(&root)?;
    let steps = steps(&root, &mut ids)?;
    nothing_remains(&before, &ids, "starts that failed")?;

    let mut names: BTreeMap<&str, Vec<(Part, usize)>> = BTreeMap::new();
    for (call, name) in &steps {
        names.entry(name).or_default().push(*call);
    }
    let all: Vec<(Part, usize)> = steps.keys().copied().collect();
    let aimed: Vec<&Vec<(Part, usize)>> = names.values().flat_map(|calls| vec![calls; PER_STEP]).collect();
    let mut dice = Dice::new();
    let mut kills: BTreeMap<&str, usize> = BTreeMap::new();
    let mut done = 0;
    loop {
        // How many calls a part makes depends on what else the machine does: a step's calls are not met by every start.
        let mut rare = names.keys().chain([&"Running"]);
        let rare = rare.find(|name| kills.get(**name).copied().unwrap_or(0) < PER_STEP);
        if done >= KILLS && rare.is_none() {
            break;
        }
        if done > 2 * KILLS {
            return Err(format!("some step is never met: {kills:?}").into());
        }
        let victim = dice.victim();
        let calls = match rare.filter(|_| done >= KILLS) {
            Some(rare) => names.get(rare),
            None => aimed.get(done).copied(),
        };
        let aim = match calls {
            Some(calls) => {
                let (part, nth) = calls[dice.below(calls.len())];
                Aim::Kill(part, nth, victim)
            }
            None if done >= KILLS || dice.below(5) == 0 => {
                Aim::KillRunning(Duration::from_millis(dice.below(60) as u64), victim)
            }
            None => {
                let (part, nth) = all[dice.below(all.len())];
                Aim::Kill(part, nth, victim)
            }
        };
        let round = round(&root, aim, &mut ids).map_err(|error| format!("{aim:?}: {error}"))?;
        let name = match round.killed {
            Some(call) => steps.get(&call).map_or("Running", String::as_str),
            None => return Err(format!("{aim:?} was never killed: {}", round.said).into()),
        };
        *kills.entry(name).or_default() += 1;
        done += 1;
    }

    nothing_remains(&before, &ids, &format!("{done} kills"))?;
    let mut table = format!("{done} kills, nothing left; they fell into\n");
    for (name, count) in kills {
        writeln!(table, "  {count:4}  {name}")?;
    }
    std::io::stdout().write_all(table.as_bytes())?;
    Ok(())
}

/// One second later, and after the next program has opened the root, nothing is there that was not before.
pub(super) fn nothing_remains(before: &Before, ids: &BTreeSet<String>, after: &str) -> Result<()> {
    std::thread::sleep(Duration::from_secs(1));
    let mut open = Command::new(std::env::current_exe()?);
    let opened = open.env("RDOCK_TEST_ROLE", "leaks-open").status()?;
    if !opened.success() {
        return Err(format!("opening the root after {after}: {opened}").into());
    }
    let left = before.remains(ids)?;
    match left.is_empty() {
        true => Ok(()),
        false => Err(format!("left after {after}:\n{}", left.join("\n")).into()),
    }
}

/// The plan step of every call: calls are made to fail, and the error says where. Between two calls of one step all
/// belong to it; where the step changes the calls between are tried too.
fn steps(root: &Path, ids: &mut BTreeSet<String>) -> Result<BTreeMap<(Part, usize), String>> {
    let calls = round(root, Aim::Watch, ids)?.calls;
    let mut steps = BTreeMap::new();
    let count = |part| calls.get(&part).copied().unwrap_or(0);
    // What the host program does before and beside the helper has no step of its own.
    steps.extend((0..count(Part::Host)).map(|nth| ((Part::Host, nth), "Host".to_owned())));
    steps.extend((0..count(Part::Spawn)).map(|nth| ((Part::Spawn, nth), "Spawn".to_owned())));
    for (part, stride) in [(Part::Helper, 2), (Part::SetUp, 6)] {
        let mut known: BTreeMap<usize, Option<String>> = BTreeMap::new();
        // Before the first step that is told all are tried.
        let mut open: Vec<usize> = (0..count(part))
            .filter(|nth| nth % stride == 0 || *nth < 2 * stride)
            .collect();
        while let Some(nth) = open.pop() {
            let failed =
                round(root, Aim::Fail(part, nth), ids).map_err(|error| format!("{part:?} {nth}: {error}"))?;
            let step = failed.said.lines().find_map(|line| line.strip_prefix("failed "));
            // A helper that cannot report fails as one that did not start; other calls may fail without harm.
            known.insert(
                nth,
                step.filter(|step| !step.contains(' ') && *step != "Spawn")
                    .map(str::to_owned),
            );
            if open.is_empty() {
                let told: Vec<_> = known
                    .iter()
                    .filter_map(|(nth, step)| Some((*nth, step.as_ref()?)))
                    .collect();
                let changes = told.windows(2).filter(|pair| pair[0].1 != pair[1].1);
                let between = changes.filter_map(|pair| {
                    let (from, to) = (pair[0].0, pair[1].0);
                    // Beside the middle where a failure there says nothing.
                    std::iter::once(from.midpoint(to))
                        .chain(from + 1..to)
                        .find(|nth| !known.contains_key(nth))
                });
                open.extend(between);
            }
        }
        let mut last = "ReceivePlan".to_owned();
        for nth in 0..count(part) {
            if let Some(Some(step)) = known.get(&nth) {
                last.clone_from(step);
            }
            steps.insert((part, nth), last.clone());
        }
    }
    Ok(steps)
}

/// Starts the host program once.
fn round(root: &Path, aim: Aim, ids: &mut BTreeSet<String>) -> Result<Round> {
    let mut host = Command::new(std::env::current_exe()?);
    host.env("RDOCK_TEST_ROLE", "leaks-host")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut host = host.spawn()?;
    let mut talk = Talk::with(&mut host)?;
    // Only where calls of the host program matter does it stop at them.
    let with_host = matches!(aim, Aim::Watch | Aim::Kill(Part::Host, ..));
    let mut tracer = Tracer::seize(host.id(), with_host)?;
    talk.go()?;
    if matches!(aim, Aim::Watch | Aim::Fail(..)) {
        // It finds this when it runs.
        talk.go()?;
    }

    let begin = Instant::now();
    let deadline = begin + PATIENCE;
    let (mut killed, mut running, mut calls) = (None, None, None);
    loop {
        // Without system calls to stop at, time alone says when the running container is killed.
        let until = match (aim, running) {
            (Aim::KillRunning(after, _), Some(since)) if killed.is_none() => since + after,
            (Aim::Fail(..), _) if begin.elapsed() < STUCK => begin + STUCK,
            _ => deadline,
        };
        match tracer.next(until)? {
            Stop::Gone => break,
            Stop::Late => match aim {
                Aim::KillRunning(_, victim) if killed.is_none() && running.is_some() => {
                    killed = Some((Part::Payload, 0));
                    strike(root, &mut tracer, victim, ids)?;
                }
                // A report that never arrives: the owner waits for the next one.
                Aim::Fail(..) if Instant::now() < deadline => {
                    tracer.set_free();
                    tracer.kill_rest();
                }
                _ => {
                    talk.listen();
                    return Err(format!("still there: {}; said {:?}", tracer.kill_rest(), talk.said).into());
                }
            },
            Stop::Call { task, part, nth } => {
                if part == Part::Payload && running.is_none() {
                    running = Some(Instant::now());
                    calls.get_or_insert_with(|| tracer.calls().clone());
                    tracer.set_free();
                }
                match aim {
                    Aim::Kill(aimed, at, victim) if killed.is_none() && (aimed, at) == (part, nth) => {
                        killed = Some((part, nth));
                        strike(root, &mut tracer, victim, ids)?;
                    }
                    // The call it was meant for did not come this time.
                    Aim::Kill(.., victim) if killed.is_none() && running.is_some() => {
                        killed = Some((Part::Payload, 0));
                        strike(root, &mut tracer, victim, ids)?;
                    }
                    Aim::Fail(aimed, at) if (aimed, at) == (part, nth) => {
                        tracer.fail(task)?;
                        continue;
                    }
                    _ => {}
                }
                tracer.resume(task, None)?;
            }
        }
    }
    talk.listen();
    let calls = calls.unwrap_or_else(|| tracer.calls().clone());
    Ok(Round {
        said: talk.said,
        killed,
        calls: calls.into_iter().collect(),
    })
}

/// Kills; a helper that is not there yet stands for the host program.
fn strike(root: &Path, tracer: &mut Tracer, victim: Victim, ids: &mut BTreeSet<String>) -> Result<()> {
    collect(root, ids);
    tracer.set_free();
    let helper = !matches!(victim, Victim::Host) && tracer.kill_helper();
    if !helper || matches!(victim, Victim::Both) {
        tracer.kill_host()?;
    }
    Ok(())
}

/// The ids of the containers that are there now.
fn collect(root: &Path, ids: &mut BTreeSet<String>) {
    let entries = std::fs::read_dir(root.join("containers"))
        .into_iter()
        .flatten()
        .flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    ids.extend(names.filter(|name| name.len() == 64));
}

/// The pipes to the host program.
pub(super) struct Talk {
    stdin: Option<ChildStdin>,
    stdout: File,
    pub(super) said: String,
}

impl Talk {
    /// With a program that has just been started, when it says that it is ready. From then on nobody waits for its words.
    pub(super) fn with(host: &mut Child) -> Result<Self> {
        let (Some(stdin), Some(stdout)) = (host.stdin.take(), host.stdout.take()) else {
            return Err("no pipes".into());
        };
        let mut talk = Self {
            stdin: Some(stdin),
            stdout: File::from(std::os::fd::OwnedFd::from(stdout)),
            said: String::new(),
        };
        talk.wait_for("ready\n")?;
        let flags = rustix::fs::fcntl_getfl(&talk.stdout)?;
        rustix::fs::fcntl_setfl(&talk.stdout, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(talk)
    }

    /// Lets it go on. Once it has ended nobody reads this.
    pub(super) fn go(&mut self) -> Result<()> {
        match self.stdin.as_mut().map(|stdin| stdin.write_all(b"x")) {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Reads what there is.
    pub(super) fn listen(&mut self) {
        let mut buffer = [0; 512];
        while let Ok(n @ 1..) = self.stdout.read(&mut buffer) {
            self.said += &String::from_utf8_lossy(&buffer[..n]);
        }
    }

    /// Reads until `word` comes.
    pub(super) fn wait_for(&mut self, word: &str) -> Result<()> {
        let mut buffer = [0; 512];
        while !self.said.contains(word) {
            match self.stdout.read(&mut buffer)? {
                0 => return Err(format!("the host program ended, having said {:?}", self.said).into()),
                n => self.said += &String::from_utf8_lossy(&buffer[..n]),
            }
        }
        Ok(())
    }
}
