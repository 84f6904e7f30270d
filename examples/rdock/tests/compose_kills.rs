//! `compose up` and `compose down` are killed at a hundred moments: the next `up` converges, the next `down` leaves
//! nothing.
//!
//! The moments are spread over everything the two do: half of them at a random part of the time that they take, half
//! shortly after one of the lines that they say. After every kill of `up` another one makes the project what its file
//! says, and a third has nothing to do; after every kill of `down` another one leaves the host as it was.

use crate::leaks::remains::{Before, MARK, loopback_up};
use crate::program::{Tested, needs_root, path, success};
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use rdock_compose::{LoadOptions, Project, label, service_hash};
use rdock_runtime::{Container, Runtime, Status};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const KILLS: usize = 100;

/// A command that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long what was removed may take to go away.
const SOON: Duration = Duration::from_secs(30);

const PORT: u16 = 18_123;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("compose_converges_after_100_kills", converges)]
}

fn converges(tiny: &Tiny) -> Tested {
    needs_root("the containers have networks and control groups")?;
    let scratch = tempfile::tempdir()?;
    let project = tiny.file("project");
    std::fs::create_dir(&project)?;
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(std::env::current_exe()?)
        .env("RDOCK_TEST_ROLE", "compose-kills")
        .env("RDOCK_ROOT", tiny.file("root"))
        .env("CONTAINERS_REGISTRIES_CONF", tiny.file("registries.conf"))
        .env("TMPDIR", scratch.path())
        .current_dir(project);
    let output = command.output()?;
    let table = success(&command, &output)?;
    // The figures are wanted even from a run that passes.
    std::io::stderr().lock().write_all(table.as_bytes())?;
    Ok(())
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    /// `up` where nothing is.
    Up,
    /// `up` after a value of the file has changed.
    Change,
    Down,
}

impl Verb {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Up | Self::Change => &["compose", "up", "-d"],
            Self::Down => &["compose", "down", "-v"],
        }
    }
}

/// The values of the file that change, each with the services that it concerns.
const VALUES: [(&str, &[&str]); 4] = [
    ("DB", &["db"]),
    ("WORKER", &["worker"]),
    ("WEB", &["web"]),
    ("NETWORK", &[]),
];

/// Two networks, a volume with a name and one without, a config, a secret, health, two replicas, a port.
const FILE: &str = r#"
name: kills
services:
  db:
    image: tiny
    command: [write, /state/ready, "yes", ",", sleep, "600"]
    stop_grace_period: 0s
    environment: {MARK: "@ROOT@", VALUE: "@DB@"}
    volumes: [data:/data, /state]
    networks: [back]
    secrets: [key]
    healthcheck: {test: [CMD, /payload, cat, /state/ready], interval: 1s}
  worker:
    image: tiny
    command: [sleep, "600"]
    stop_grace_period: 0s
    environment: {MARK: "@ROOT@", VALUE: "@WORKER@"}
    networks: [back]
    configs: [{source: settings, target: /settings}]
    depends_on: {db: {condition: service_healthy, restart: true}}
    deploy: {replicas: 2}
  once:
    image: tiny
    command: [cat, /data/file]
    environment: {MARK: "@ROOT@"}
    volumes: [data:/data]
    networks: [back]
    depends_on: {db: {condition: service_healthy}}
  web:
    image: tiny
    command: [serve, "80", $$VALUE]
    stop_grace_period: 0s
    environment: {MARK: "@ROOT@", VALUE: "@WEB@"}
    networks: [front, back]
    ports: ["127.0.0.1:@PORT@:80"]
    depends_on: {worker: {condition: service_started}, once: {condition: service_completed_successfully}}
networks: {front: {labels: {value: "@NETWORK@"}}, back: {}}
volumes: {data: {}}
configs: {settings: {content: "colour=blue"}}
secrets: {key: {file: ./key.txt}}
"#;

const CONTAINERS: [&str; 5] = [
    "kills-db-1",
    "kills-once-1",
    "kills-web-1",
    "kills-worker-1",
    "kills-worker-2",
];

/// xorshift64
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % limit.max(1)
    }
}

/// When a command is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    After(Duration),
    /// After so many lines, and then some.
    Line(usize, Duration),
}

/// How a whole run of a verb goes.
#[derive(Debug, Clone, Copy)]
struct Whole {
    took: Duration,
    lines: usize,
}

struct Test {
    root: PathBuf,
    program: PathBuf,
    dice: Dice,
    values: BTreeMap<&'static str, usize>,
    whole: BTreeMap<Verb, Whole>,
    kills: BTreeMap<(Verb, String), usize>,
    /// Every container there ever was.
    ids: BTreeSet<String>,
    /// The volume without a name, while the project is up.
    state: Option<String>,
    /// The last kills, for a message.
    last: Vec<String>,
}

/// The whole test; runs in a network and a mount namespace of its own. Prints the table.
pub(crate) fn kills() -> Result<()> {
    let root = PathBuf::from(std::env::var_os("RDOCK_ROOT").ok_or("no RDOCK_ROOT")?);
    let seed = match std::env::var("RDOCK_TEST_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
            now.as_nanos() as u64 ^ (u64::from(std::process::id()) << 32)
        }
    };
    loopback_up()?;
    let mut test = Test {
        root,
        program: path()?,
        dice: Dice(seed | 1),
        values: VALUES.iter().map(|(name, _)| (*name, 0)).collect(),
        whole: BTreeMap::new(),
        kills: BTreeMap::new(),
        ids: BTreeSet::new(),
        state: None,
        last: Vec::new(),
    };
    let done = test.all();
    let said = done.map_err(|error| format!("seed {seed}, after {:?}: {error}", test.last))?;
    std::io::stdout().write_all(format!("seed {seed}: {said}").as_bytes())?;
    Ok(())
}

impl Test {
    fn all(&mut self) -> Result<String> {
        std::fs::write("key.txt", "hush")?;
        self.write_file()?;
        // What one complete life makes and keeps (directories, formats) is no leak.
        self.run(Verb::Up)?;
        self.is_up()?;
        self.run(Verb::Down)?;
        let before = Before::look(&self.root)?;
        self.run(Verb::Up)?;
        self.change()?;
        self.run(Verb::Change)?;
        self.is_up()?;
        self.run(Verb::Down)?;
        self.nothing_remains(&before)?;
        let began = Instant::now();
        while self.kills.values().sum::<usize>() < KILLS {
            self.killed(Verb::Up)?;
            if self.dice.below(4) == 0 {
                // A second one in the middle of what the first one left.
                self.killed(Verb::Up)?;
            }
            self.converge(Verb::Up)?;
            self.change()?;
            self.killed(Verb::Change)?;
            if self.dice.below(4) == 0 {
                self.killed(Verb::Change)?;
            }
            if self.dice.below(3) > 0 {
                self.converge(Verb::Change)?;
            }
            self.killed(Verb::Down)?;
            if self.dice.below(4) == 0 {
                self.killed(Verb::Down)?;
            }
            if self.dice.below(4) == 0 {
                // What `down` left half-way is made whole again.
                self.state = None;
                self.converge(Verb::Up)?;
            }
            self.run(Verb::Down)?;
            self.nothing_remains(&before)?;
        }
        self.table(began.elapsed())
    }

    fn table(&self, took: Duration) -> Result<String> {
        let mut table = format!(
            "{} kills of compose in {:.0} s, {} containers, everything converged and nothing is left; they fell into\n",
            self.kills.values().sum::<usize>(),
            took.as_secs_f64(),
            self.ids.len(),
        );
        for ((verb, phase), count) in &self.kills {
            let verb = match verb {
                Verb::Up => "up",
                Verb::Change => "up after a change",
                Verb::Down => "down",
            };
            writeln!(table, "  {count:4}  {verb}: {phase}")?;
        }
        Ok(table)
    }

    fn write_file(&self) -> Result<()> {
        let mut text = FILE
            .replace("MARK", MARK)
            .replace("@ROOT@", &self.root.to_string_lossy())
            .replace("@PORT@", &PORT.to_string());
        for (name, value) in &self.values {
            text = text.replace(&format!("@{name}@"), &value.to_string());
        }
        Ok(std::fs::write("compose.yaml", text)?)
    }

    /// Another value in the file.
    fn change(&mut self) -> Result<()> {
        let (name, _) = VALUES[self.dice.below(VALUES.len())];
        *self.values.entry(name).or_default() += 1;
        self.write_file()
    }

    fn start(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = Command::new(&self.program);
        let command = command.args(arguments).stdin(Stdio::null());
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Runs a verb to its end.
    fn run(&mut self, verb: Verb) -> Result<()> {
        let began = Instant::now();
        let output = self.finish(self.start(verb.arguments())?)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        self.collect();
        if !output.status.success() {
            return Err(format!("{verb:?} ended with {}: {said}", output.status).into());
        }
        self.whole.entry(verb).or_insert(Whole {
            took: began.elapsed(),
            lines: said.lines().count(),
        });
        if verb == Verb::Down {
            self.state = None;
        }
        Ok(())
    }

    /// Waits for the end of a command; what it says fits into pipes.
    fn finish(&self, mut child: Child) -> Result<Output> {
        if !wait(&child, PATIENCE)? {
            child.kill()?;
            let output = child.wait_with_output()?;
            return Err(format!("hangs: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(child.wait_with_output()?)
    }

    /// Kills a verb at a moment. One that ended before it is tried once more, earlier.
    fn killed(&mut self, verb: Verb) -> Result<()> {
        let whole = self.whole.get(&verb).copied().ok_or("not run yet")?;
        let part = self.dice.below(1000) as u32;
        let moment = match self.dice.below(2) {
            0 => Moment::After(whole.took * part / 1000),
            _ => Moment::Line(
                1 + self.dice.below(whole.lines),
                Duration::from_micros(self.dice.below(15_000) as u64),
            ),
        };
        let mut child = self.start(verb.arguments())?;
        let mut said = String::new();
        match moment {
            Moment::After(time) => drop(wait(&child, time)?),
            Moment::Line(lines, more) => {
                let stderr = child.stderr.as_mut().ok_or("no stderr")?;
                let mut byte = [0];
                while said.lines().count() < lines || !said.ends_with('\n') {
                    match stderr.read(&mut byte)? {
                        0 => break,
                        _ => said.push(char::from(byte[0])),
                    }
                }
                wait(&child, more)?;
            }
        }
        let ended = child.try_wait()?.is_some();
        child.kill()?;
        let output = child.wait_with_output()?;
        said += &String::from_utf8_lossy(&output.stderr);
        self.collect();
        let phase = phase(&said);
        self.last
            .push(format!("{verb:?} killed at {moment:?} in {phase:?}"));
        self.last.drain(..self.last.len().saturating_sub(4));
        if ended {
            if !output.status.success() {
                return Err(format!("{verb:?} ended with {}: {said}", output.status).into());
            }
            return Ok(());
        }
        *self.kills.entry((verb, phase)).or_default() += 1;
        Ok(())
    }

    fn converge(&mut self, verb: Verb) -> Result<()> {
        self.run(verb)?;
        self.is_up()?;
        let output = self.finish(self.start(&["compose", "--dry-run", "up", "-d"])?)?;
        let plan = String::from_utf8_lossy(&output.stdout);
        match &*plan {
            "kills: nothing to do\n" => Ok(()),
            _ => Err(format!("a third up has something to do: {plan}").into()),
        }
    }

    /// The project is what its file says, and nothing else is there.
    fn is_up(&mut self) -> Result<()> {
        let project = Project::load(&LoadOptions::new("."))?;
        let runtime = Runtime::open_default()?;
        let mut names = BTreeSet::new();
        let mut nameless = BTreeSet::new();
        for container in runtime.containers()? {
            let info = container.inspect()?;
            let wrong = |what: &str| -> Result<()> { Err(format!("{what}: {info:?}").into()) };
            let of = |key: &str| info.spec.labels.get(key).map(String::as_str);
            let service = of(label::SERVICE).unwrap_or_default();
            let right = match &info.status {
                Status::Running => service != "once",
                Status::Exited(exit) => service == "once" && exit.success(),
                _ => false,
            };
            if !right {
                return wrong("the state is wrong");
            }
            if of(label::CONFIG_HASH) != Some(&service_hash(&project, service)) {
                return wrong("not what the file says");
            }
            if of(label::REPLACE).is_some_and(|name| name != info.name) {
                return wrong("left over");
            }
            let wanted: BTreeSet<String> = project.services[service]
                .networks
                .keys()
                .map(|key| format!("kills_{key}"))
                .collect();
            let there: BTreeSet<String> = info.networks.iter().map(|net| net.network.clone()).collect();
            if service != "once" && there != wanted {
                return wrong("the networks are wrong");
            }
            nameless.extend(
                info.mounts
                    .iter()
                    .filter(|mount| mount.target == "/state")
                    .filter_map(|mount| mount.name.clone()),
            );
            names.insert(info.name);
        }
        if !names.iter().map(String::as_str).eq(CONTAINERS) {
            return Err(format!("there are {names:?}").into());
        }
        self.are_kept(&runtime, &nameless)?;
        self.answers(&runtime)?;
        same("names", self.entries("containers/names")?.len(), CONTAINERS.len())?;
        same(
            "snapshots",
            self.entries("image/snapshots")?.len(),
            CONTAINERS.len(),
        )?;
        let own = |name: &str| name.starts_with("kills_");
        let networks = runtime
            .networks()
            .list()?
            .into_iter()
            .filter(|net| own(&net.name));
        same("networks", networks.count(), 2)
    }

    /// The two volumes, and the nameless one is the one there was before.
    fn are_kept(&mut self, runtime: &Runtime, nameless: &BTreeSet<String>) -> Result<()> {
        let volumes = runtime.volumes().list()?;
        let there: BTreeSet<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        let wanted = nameless.iter().map(String::as_str).chain(["kills_data"]);
        if there != wanted.collect() || nameless.len() != 1 {
            return Err(format!("the volumes are {volumes:?}, used is {nameless:?}").into());
        }
        let one = nameless.first().cloned();
        if self.state.is_some() && self.state != one {
            return Err(format!("the nameless volume was {:?} and is {one:?}", self.state).into());
        }
        if !volumes
            .iter()
            .all(|volume| volume.anonymous == nameless.contains(&volume.name))
        {
            return Err(format!("who is nameless: {volumes:?}").into());
        }
        self.state = one;
        Ok(())
    }

    /// The server answers at its port with the value that the file has, and by its name.
    fn answers(&self, runtime: &Runtime) -> Result<()> {
        let deadline = Instant::now() + SOON;
        let mut stream = loop {
            // It has been started; that it listens gives no event.
            match TcpStream::connect(("127.0.0.1", PORT)) {
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                other => break other?,
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.trim_end().ends_with(&self.values["WEB"].to_string()) {
            return Err(format!("the server answers {answer:?}").into());
        }
        let database: Container = runtime.container("kills-db-1")?;
        let dir = database.inspect()?.state_dir;
        if !dir.is_dir() {
            return Err(format!("{} is not there", dir.display()).into());
        }
        Ok(())
    }

    fn entries(&self, folder: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.root.join(folder))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn collect(&mut self) {
        let names = self.entries("containers").unwrap_or_default();
        self.ids.extend(names.into_iter().filter(|name| name.len() == 64));
    }

    /// What was there before is all that is there.
    fn nothing_remains(&self, before: &Before) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            let left = before.remains(&self.ids)?;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("left after down:\n{}", left.join("\n")).into());
            }
            // Processes that are none of ours end without an event.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn same(what: &str, there: usize, wanted: usize) -> Result<()> {
    match there == wanted {
        true => Ok(()),
        false => Err(format!("there are {there} {what} instead of {wanted}").into()),
    }
}

/// Whether it ends within the time.
fn wait(child: &Child, time: Duration) -> Result<bool> {
    let pid = Pid::from_raw(i32::try_from(child.id())?).ok_or("no process id")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let time = Timespec::try_from(time)?;
    Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time))? > 0)
}

/// What was going on, as the lines say: what began and did not end. `Container x  Starting` begins, `Started` ends.
fn phase(said: &str) -> String {
    const PAIRS: [(&str, &str); 6] = [
        ("Creating", "Created"),
        ("Recreate", "Recreated"),
        ("Starting", "Started"),
        ("Stopping", "Stopped"),
        ("Removing", "Removed"),
        ("Waiting", ""),
    ];
    let mut open: Vec<(&str, &str)> = Vec::new();
    let mut any = false;
    for line in said.lines() {
        let Some((subject, word)) = line.trim_start().rsplit_once("  ") else {
            continue;
        };
        any = true;
        match PAIRS.iter().find(|(during, _)| *during == word) {
            Some(_) => open.push((subject, word)),
            None => {
                let end = |during: &str, after: &str| {
                    PAIRS
                        .iter()
                        .any(|(a, b)| *a == during && (*b == after || b.is_empty()))
                };
                let at = open
                    .iter()
                    .position(|(of, during)| *of == subject && end(during, word));
                at.map(|at| open.remove(at));
            }
        }
    }
    let Some((subject, word)) = open.first() else {
        return if any {
            "between steps"
        } else {
            "before the first step"
        }
        .to_owned();
    };
    let kind = subject.split(' ').next().unwrap_or_default();
    let one = format!("{kind} {word}");
    let more = match open.len() {
        1 => String::new(),
        _ => " and others".to_owned(),
    };
    one + &more
}
