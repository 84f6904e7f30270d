//! What a project costs: ten services up and down, fifty with nothing to do, and a chain of health checks.
//!
//! `cargo bench --bench compose [-- --rounds N]`, as root. podman-compose takes part when it and podman are
//! installed; both get the same file, an image that holds a static program alone, and a fresh file system.

#[allow(dead_code)]
mod support;

use rdock_compose::plan::{DownOptions, UpOptions};
use rdock_compose::{ComposeProject, LoadOptions, Project};
use rdock_runtime::image::Progress;
use rdock_runtime::{ContainerInfo, Runtime};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;
use support::ground::{Ground, run};
use support::rows::{Row, View, report, serve, serve_commands, take_turns};
use support::{Outcome, installed, number, table};

#[path = "../examples/payload/image.rs"]
mod image;

const LIFE: &str = "rdock: 10 services up and down";
const PEER: &str = "podman-compose: 10 services up and down";
const IDLE: &str = "rdock: 50 services, nothing to do";
const CHAIN: &str = "rdock: longest link of a health chain";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    report(match texts.as_slice() {
        ["life", root, dir] => life(root, dir),
        ["idle", root, dir] => idle(root, dir),
        ["chain", root, dir] => chain(root, dir),
        ["command", prepare, timed] => {
            let shell = |line: &str| ["sh", "-c", line].map(str::to_owned);
            serve_commands(View::VersionOne, &shell(prepare), &shell(timed))
        }
        _ => compare(),
    })
}

fn compare() -> Outcome {
    let rounds = number("--rounds", 5)?;
    let ground = Ground::fresh(4)?;
    let base = ground.path();
    let archive = image::archive("docker.io/library/bench:latest")?;
    let root = base.join("root");
    let runtime = Runtime::open(&root)?;
    runtime
        .images()
        .import_stream(&mut archive.as_slice(), &Progress::default())?;
    drop(runtime);
    project(&base.join("ten"), &trivial(10))?;
    project(&base.join("fifty"), &trivial(50))?;
    project(&base.join("links"), &chained(8))?;

    let root = root.to_string_lossy().into_owned();
    let of = |role: &str, dir: &str| {
        vec![
            role.to_owned(),
            root.clone(),
            base.join(dir).display().to_string(),
        ]
    };
    let mut rows = vec![Row::of_role(LIFE, &of("life", "ten"))?];
    let mut missing = Vec::new();
    match peer(base, &archive) {
        Ok(row) => rows.push(row),
        Err(error) => missing.push(format!("{PEER}: {error}")),
    }
    let (rows, mut left_out) = take_turns(rows, 1, rounds);
    left_out.extend(missing);
    let title = format!("a project's life, {rounds} rounds in turns; {}", table::machine());
    table::print(&title, &rows, &left_out, &[PEER]);
    table::bar(&rows, LIFE, 0.1, PEER);
    drop(rows);

    // Nothing is compared here, so neither is to find what the other has just stirred up.
    let mut measured = Vec::new();
    let mut left_out = Vec::new();
    for (name, role, dir) in [(IDLE, "idle", "fifty"), (CHAIN, "chain", "links")] {
        let (rows, left) = take_turns(vec![Row::of_role(name, &of(role, dir))?], 1, rounds);
        measured.extend(rows);
        left_out.extend(left);
    }
    table::print("within one process", &measured, &left_out, &[]);
    Ok(())
}

/// Services that do nothing until they are told to end.
fn trivial(count: usize) -> String {
    let mut text = String::from("services:\n");
    for number in 0..count {
        // A program that says nothing and ends at SIGTERM, as a container's first process.
        let _ = write!(
            text,
            "  s{number}:\n    image: docker.io/library/bench:latest\n    \
             command: [trap, \"15\", \"0\", \",\", sleep, \"100000\"]\n"
        );
    }
    text
}

/// Each service waits until the one before is healthy.
fn chained(count: usize) -> String {
    let mut text = trivial(count).replace("services:\n", "");
    for number in (0..count).rev() {
        let mut more =
            String::from("    healthcheck: { test: [CMD, /payload, exit, \"0\"], interval: 1s }\n");
        if let Some(before) = number.checked_sub(1) {
            let _ = writeln!(
                more,
                "    depends_on: {{ s{before}: {{ condition: service_healthy }} }}"
            );
        }
        text = text.replacen(&format!("  s{number}:\n"), &format!("  s{number}:\n{more}"), 1);
    }
    format!("services:\n{text}")
}

fn project(dir: &Path, text: &str) -> Outcome {
    fs::create_dir(dir)?;
    Ok(fs::write(dir.join("compose.yaml"), text)?)
}

fn open(root: &str, dir: &str) -> Outcome<(tokio::runtime::Runtime, ComposeProject)> {
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let runtime = Runtime::open(root)?;
    let project = Project::load(&LoadOptions::new(dir))?;
    Ok((tokio, ComposeProject::new(&runtime, project)))
}

/// Loading, up, and down, as one `up -d` and one `down` do it.
fn life(root: &str, dir: &str) -> Outcome {
    serve(|| {
        let (tokio, compose) = open(root, dir)?;
        tokio.block_on(async {
            compose.up(&UpOptions::default()).await?;
            compose.down(&DownOptions::default()).await
        })?;
        Ok(None)
    })
}

/// `up` of a project that is up: from the files to the empty plan.
fn idle(root: &str, dir: &str) -> Outcome {
    let (tokio, compose) = open(root, dir)?;
    tokio.block_on(compose.up(&UpOptions::default()))?;
    let outcome = serve(|| {
        let (tokio, compose) = open(root, dir)?;
        match tokio.block_on(compose.up(&UpOptions::default()))?.is_empty() {
            true => Ok(None),
            false => Err("there was something to do".into()),
        }
    });
    tokio.block_on(compose.down(&DownOptions::default()))?;
    outcome
}

/// The longest time from the check that found a service healthy to the start of the one that waited for it. The
/// container's creation comes before that, and its start is what docker compose would do next.
fn chain(root: &str, dir: &str) -> Outcome {
    serve(|| {
        let (tokio, compose) = open(root, dir)?;
        tokio.block_on(compose.up(&UpOptions::default()))?;
        let mut longest = Duration::ZERO;
        let name = compose.project().name.clone();
        let time = |text: &str| -> Outcome<jiff::Timestamp> { Ok(text.parse()?) };
        for number in 1..compose.project().services.len() {
            let inspect = |number: usize| -> Outcome<ContainerInfo> {
                let name = format!("{name}-s{number}-1");
                Ok(compose.runtime().container(&name)?.inspect()?)
            };
            let health = inspect(number - 1)?.health.ok_or("no health")?;
            let healthy = health
                .log
                .iter()
                .find(|check| check.exit_code == 0)
                .ok_or("never healthy")?;
            let started = inspect(number)?.started_at.ok_or("never started")?;
            let gap = time(&started)?.duration_since(time(&healthy.end)?);
            longest = longest.max(Duration::try_from(gap)?);
        }
        tokio.block_on(compose.down(&DownOptions::default()))?;
        Ok(Some(longest))
    })
}

/// podman-compose over a podman with its storage on the fresh file system.
fn peer(base: &Path, archive: &[u8]) -> Outcome<Row> {
    for program in ["podman-compose", "podman"] {
        installed(program).ok_or_else(|| format!("{program} is not installed"))?;
    }
    let conf = base.join("containers.conf");
    fs::write(
        &conf,
        "[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=20000:20000\"]\n",
    )?;
    let (podman, at) = (base.join("podman.sh"), base.display());
    fs::write(
        &podman,
        format!(
            "#!/bin/sh\nexport CONTAINERS_CONF={}\nexec podman --root {at}/podman --runroot {at}/podman-run \
             --cgroup-manager cgroupfs --events-backend file --storage-driver overlay \"$@\"\n",
            conf.display()
        ),
    )?;
    fs::set_permissions(&podman, fs::Permissions::from_mode(0o755))?;
    let file = base.join("archive.tar");
    fs::write(&file, archive)?;
    run(Command::new(&podman).args(["load", "-q", "-i"]).arg(&file))?;
    let compose = format!(
        "podman-compose --podman-path {} -f {at}/ten/compose.yaml",
        podman.display()
    );
    let timed = format!("{compose} up -d >&2 && {compose} down -t 1 >&2");
    let words = ["command", "true", &timed].map(str::to_owned);
    Row::of_role(PEER, &words)
}
