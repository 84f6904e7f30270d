//! A container that exists is started, stopped and removed, and whoever does that is killed at a system call.
//!
//! The starter, its monitor, the helper or the last two together are killed at random calls of each of them. A program
//! that had opened the root long before goes on then: no open looks after the container in between. It can start the
//! container and run something in it, unless it was removed, and can remove it; nothing is left.

use super::remains::{Before, MARK, loopback_up};
use super::tracer::{Part, Stop, Tracer};
use super::watch::{Dice, Talk, nothing_remains};
use rdock_runtime::{Container, ContainerSpec, Error, Mount, MountSource, PortMapping, Runtime};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const KILLS: usize = 100;

/// Whatever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names the container to the starter.
const CONTAINER: &str = "RDOCK_TEST_CONTAINER";

/// Whose calls are counted.
const PARTS: [Part; 5] = [Part::Host, Part::Monitor, Part::Spawn, Part::Helper, Part::SetUp];

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Starter,
    Monitor,
    Helper,
    Pair,
}

/// The starter: a host program that does to a container what its user asks for, whatever comes of it.
pub(crate) fn start_by_hand() -> Result<()> {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let runtime = Runtime::open_default()?;
    let container = runtime.container(&std::env::var(CONTAINER)?)?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready")?;
    std::io::stdin().read_exact(&mut [0])?;
    tokio.block_on(async {
        writeln!(stdout, "start {:?}", container.start().await.err())?;
        writeln!(
            stdout,
            "stop {:?}",
            container.stop(Some(Duration::ZERO)).await.err()
        )?;
        writeln!(
            stdout,
            "remove {:?}",
            container.remove_with(true, true).await.err()
        )?;
        stdout.flush()?;
        // Threads that wait for blocking work hold nobody up.
        std::process::exit(0)
    })
}

fn spec(root: &Path) -> ContainerSpec {
    let mut spec = ContainerSpec::new("tiny")
        .args(["sleep", "600"])
        .env(MARK, root.to_string_lossy())
        .pids_limit(50)
        .publish(PortMapping::tcp(80));
    let mut volume = Mount::volume("unused", "/data");
    volume.source = MountSource::Volume {
        name: None,
        no_copy: false,
        subpath: None,
    };
    spec.mounts.push(volume);
    spec
}

/// The whole test; runs in a network and a mount namespace of its own. Prints the counts.
pub(crate) fn hands() -> Result<()> {
    let root = PathBuf::from(std::env::var_os("RDOCK_ROOT").ok_or("no RDOCK_ROOT")?);
    loopback_up()?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Never opened again.
    let runtime = Runtime::open_default()?;
    let mut ids = BTreeSet::new();
    let mut life = |aim| round(&root, &runtime, &tokio, aim, &mut ids);
    // What one complete life makes and keeps (directories, formats) is no leak.
    let whole = life(None)?;
    if whole.said != "ready\nstart None\nstop None\nremove None\n" {
        return Err(format!("an undisturbed life: {}", whole.said).into());
    }
    let before = Before::look(&root)?;
    let calls = life(None)?.calls;
    let mut dice = Dice::new();
    let mut kills: BTreeMap<(Part, Victim), usize> = BTreeMap::new();
    let began = Instant::now();
    for number in 0..KILLS {
        let part = PARTS[number % PARTS.len()];
        let nth = dice.below(calls.get(&part).copied().unwrap_or(0));
        let victims = [Victim::Starter, Victim::Monitor, Victim::Helper, Victim::Pair];
        let victim = victims[dice.below(victims.len())];
        let done = life(Some((part, nth, victim)));
        let done = done.map_err(|error| format!("{victim:?} killed at call {nth} of {part:?}: {error}"))?;
        if done.killed {
            *kills.entry((part, victim)).or_default() += 1;
        }
    }
    let took = began.elapsed();
    nothing_remains(&before, &ids, &format!("{kills:?}"))?;
    let all: usize = kills.values().sum();
    let mut table = format!("{all} kills in {:.0} s, nothing left\n", took.as_secs_f64());
    for ((part, victim), count) in kills {
        writeln!(table, "  {count:4}  {victim:?} at calls of {part:?}")?;
    }
    std::io::stdout().write_all(table.as_bytes())?;
    Ok(())
}

/// What became of one container.
struct Round {
    said: String,
    killed: bool,
    calls: BTreeMap<Part, usize>,
}

fn round(
    root: &Path,
    runtime: &Runtime,
    tokio: &tokio::runtime::Runtime,
    aim: Option<(Part, usize, Victim)>,
    ids: &mut BTreeSet<String>,
) -> Result<Round> {
    let container = tokio.block_on(spec(root).create(runtime))?;
    ids.insert(container.id().to_owned());
    let mut host = Command::new(std::env::current_exe()?)
        .env("RDOCK_TEST_ROLE", "leaks-hand-starter")
        .env(CONTAINER, container.id())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut talk = Talk::with(&mut host)?;
    let mut tracer = Tracer::seize(host.id(), true)?;
    talk.go()?;
    let deadline = Instant::now() + PATIENCE;
    let mut killed = false;
    loop {
        match tracer.next(deadline)? {
            Stop::Gone => break,
            Stop::Late => {
                talk.listen();
                return Err(format!("still there: {}; said {:?}", tracer.kill_rest(), talk.said).into());
            }
            Stop::Call { task, part, nth } => {
                if let Some((aimed, at, victim)) = aim
                    && (aimed, at) == (part, nth)
                {
                    killed = true;
                    strike(&tracer, victim)?;
                    tracer.let_go(deadline)?;
                    break;
                }
                tracer.resume(task, None)?;
            }
        }
    }
    // Who was not killed comes to an end with what it does. It may have been waited for as a traced task.
    while let Ok(None) = host.try_wait() {
        if Instant::now() > deadline {
            talk.listen();
            host.kill()?;
            return Err(format!("the starter hangs; said {:?}", talk.said).into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    talk.listen();
    let calls = tracer.calls().clone();
    let limited = async { tokio::time::timeout(PATIENCE, goes_on(runtime, &container)).await };
    match tokio.block_on(limited) {
        Ok(done) => done.map_err(|error| format!("{error}; the starter said {:?}", talk.said))?,
        Err(_) => return Err(format!("who comes after hangs; the starter said {:?}", talk.said).into()),
    }
    Ok(Round {
        said: talk.said,
        killed,
        calls: calls.into_iter().collect(),
    })
}

/// Kills; one that is not there yet, or not any more, stands for the starter.
fn strike(tracer: &Tracer, victim: Victim) -> Result<()> {
    let met = match victim {
        Victim::Starter => false,
        Victim::Monitor => tracer.kill_part(Part::Monitor),
        Victim::Helper => tracer.kill_part(Part::Helper),
        Victim::Pair => tracer.kill_part(Part::Monitor) | tracer.kill_part(Part::Helper),
    };
    match met {
        true => Ok(()),
        false => Ok(tracer.kill_host()?),
    }
}

/// Starts the container unless it was removed, and removes it.
async fn goes_on(runtime: &Runtime, container: &Container) -> Result<()> {
    let gone = |error: &Error| match error {
        Error::NoSuchContainer { .. } => true,
        Error::State { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    };
    let mut heard = Vec::new();
    // A stop that the starter has asked for may still end it.
    for _ in 0..4 {
        match container.start().await {
            Ok(()) | Err(Error::AlreadyRunning { .. }) => {}
            Err(error) if gone(&error) => {
                heard = b"here\n".to_vec();
                break;
            }
            Err(error) => return Err(format!("start: {}", chain(&error)).into()),
        }
        match container.exec(["/payload", "echo", "here"]).output().await {
            Ok(output) => heard = output.stdout,
            Err(Error::NotRunning { .. } | Error::OwnerGone { .. }) => {}
            Err(error) if gone(&error) => {}
            Err(error) => return Err(format!("exec: {}", chain(&error)).into()),
        }
        if heard == b"here\n" {
            break;
        }
    }
    if heard != b"here\n" {
        return Err(format!("it does not run: it says {heard:?}, {:?}", container.status()).into());
    }
    match container.remove_with(true, true).await {
        Err(error) if !gone(&error) => return Err(format!("remove: {}", chain(&error)).into()),
        _ => {}
    }
    match runtime.container(container.id()) {
        Err(Error::NoSuchContainer { .. }) => Ok(()),
        other => Err(format!("it is still there: {other:?}").into()),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
