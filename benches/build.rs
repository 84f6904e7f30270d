//! How long a build takes: cold, with every step cached, and over a large context that did not change.
//!
//! `cargo bench --bench build [-- --rounds N --busybox FILE]`, as root. The base image is a static busybox. BuildKit and
//! the classic builder are those of an installed `dockerd`, which is started here with its data on the same fresh
//! file system; buildah takes part when it is installed. Nobody has a network in RUN.

#[allow(dead_code)]
mod support;

use rdock_build::{Builder, Output};
use rdock_runtime::{NetworkMode, Runtime};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use support::ground::{Ground, run};
use support::rows::{Row, View, report, serve, serve_commands, take_turns};
use support::{Outcome, installed, number, option, table};

const KITS: [&str; 3] = ["BuildKit", "classic builder", "buildah"];

/// What is built.
#[derive(Clone, Copy, PartialEq)]
enum Case {
    /// 1,000 files, 10 RUN, no step from the cache.
    Cold,
    /// The same, all from the cache.
    Cached,
    /// 20,000 files that did not change.
    Context,
}

const CASES: [(&str, Case); 3] = [
    ("cold", Case::Cold),
    ("cached", Case::Cached),
    ("context", Case::Context),
];

impl Case {
    fn folder(self) -> &'static str {
        match self {
            Self::Context => "large",
            _ => "small",
        }
    }

    fn bar(self) -> f64 {
        match self {
            Self::Cold => 0.25,
            _ => 0.1,
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    report(match texts.as_slice() {
        ["ours", case, base] => ours(case, Path::new(base)),
        ["command", timed] => {
            let nothing = vec!["true".to_owned()];
            serve_commands(
                View::VersionOne,
                &nothing,
                &["sh", "-c", timed].map(str::to_owned),
            )
        }
        _ => compare(),
    })
}

fn contexts(base: &Path, busybox: &Path) -> Outcome {
    let base_dir = base.join("base");
    std::fs::create_dir(&base_dir)?;
    std::fs::copy(busybox, base_dir.join("busybox"))?;
    std::fs::write(
        base_dir.join("Dockerfile"),
        "FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/true\n",
    )?;
    for (name, files, runs) in [("small", 1_000, 10), ("large", 20_000, 1)] {
        let dir = base.join(name);
        for number in 0..files {
            let folder = dir.join("files").join((number / 100).to_string());
            if number % 100 == 0 {
                std::fs::create_dir_all(&folder)?;
            }
            std::fs::write(folder.join(number.to_string()), format!("{number} ").repeat(400))?;
        }
        let mut text = "FROM base\nWORKDIR /app\nCOPY files /app/\n".to_owned();
        for step in 0..runs {
            text.push_str(&format!("RUN true {step}\n"));
        }
        text.push_str("CMD [\"true\"]\n");
        std::fs::write(dir.join("Dockerfile"), text)?;
    }
    Ok(())
}

fn ours(case: &str, base: &Path) -> Outcome {
    let case = CASES
        .iter()
        .find(|(name, _)| *name == case)
        .ok_or("no such case")?
        .1;
    let wait = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // What a program that has just started does: open, build.
    serve(|| {
        let begin = Instant::now();
        let runtime = Runtime::open(base.join("root"))?;
        let builder = Builder::new(base.join(case.folder()))
            .network(NetworkMode::None)
            .tag("bench")
            .no_cache(case == Case::Cold)
            .output(Output::Store);
        let built = wait.block_on(builder.build(&runtime))?;
        match built.config.rootfs.diff_ids.len() {
            0..4 => Err("the image has too few layers".into()),
            _ => Ok(Some(begin.elapsed())),
        }
    })
}

/// A docker daemon of this program's own.
struct Daemon(Child);

impl Daemon {
    fn start(client: &Path, base: &Path) -> Outcome<Self> {
        let socket = base.join("docker.sock");
        let log = std::fs::File::create(base.join("docker.log"))?;
        let child = Command::new("dockerd")
            .args([
                "--iptables=false",
                // The host is not to become a router.
                "--ip-forward=false",
                "--bridge=none",
                "--storage-driver=overlay2",
                "--exec-opt",
                "native.cgroupdriver=cgroupfs",
            ])
            .arg(format!("--data-root={}", base.join("docker").display()))
            .arg(format!("--exec-root={}", base.join("docker-run").display()))
            .arg(format!("--pidfile={}", base.join("docker.pid").display()))
            .arg(format!("--host=unix://{}", socket.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let daemon = Self(child);
        let until = Instant::now() + Duration::from_secs(60);
        while run(docker(client, base).arg("version")).is_err() {
            if Instant::now() > until {
                return Err("dockerd does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// The docker programs of this machine. Since version 23 only those with the buildx plugin can use BuildKit.
fn clients() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("docker"))
        .filter(|file| file.is_file())
        .collect()
}

fn docker(client: &Path, base: &Path) -> Command {
    let mut command = Command::new(client);
    command.env(
        "DOCKER_HOST",
        format!("unix://{}", base.join("docker.sock").display()),
    );
    command
}

/// The command line of a peer.
fn peer(kit: &str, client: &Path, case: Case, base: &Path) -> String {
    let folder = base.join(case.folder());
    let (folder, base) = (folder.display(), base.display());
    let cold = if case == Case::Cold { "--no-cache" } else { "" };
    match kit {
        "buildah" => format!(
            "buildah --root {base}/buildah --runroot {base}/buildah-run build --layers --isolation chroot {cold} -q -t bench {folder}"
        ),
        _ => {
            let kit = u8::from(kit == KITS[0]);
            format!(
                "DOCKER_HOST=unix://{base}/docker.sock DOCKER_BUILDKIT={kit} {} build --network none {cold} -q -t bench {folder}",
                client.display()
            )
        }
    }
}

fn compare() -> Outcome {
    let rounds = number("--rounds", 5)?;
    let busybox = option("--busybox")
        .map(PathBuf::from)
        .or_else(|| installed("busybox"));
    let busybox = busybox.ok_or("a static busybox is needed: --busybox FILE")?;
    let ground = Ground::fresh(12)?;
    let base = ground.path();
    contexts(base, &busybox)?;
    let runtime = Runtime::open(base.join("root"))?;
    let wait = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    wait.block_on(
        Builder::new(base.join("base"))
            .network(NetworkMode::None)
            .tag("base")
            .build(&runtime),
    )?;
    drop((runtime, wait));

    let mut absent = Vec::new();
    let clients = clients();
    let daemon = match (installed("dockerd"), clients.first()) {
        (Some(_), Some(client)) => Some(Daemon::start(client, base)?),
        _ => None,
    };
    let build_base = |client: &Path, kit: &str| {
        run(docker(client, base)
            .env("DOCKER_BUILDKIT", kit)
            .args(["build", "-q", "-t", "base"])
            .arg(base.join("base")))
    };
    let able = clients
        .iter()
        .find(|client| daemon.is_some() && build_base(client, "1").is_ok());
    let client = able.or(clients.first()).cloned().unwrap_or_default();
    if daemon.is_some() {
        build_base(&client, "0")?;
        if able.is_none() {
            absent.push("BuildKit: no docker program here can use it".to_owned());
        }
    } else {
        absent.extend([
            "BuildKit: there is no dockerd".to_owned(),
            "classic builder: there is no dockerd".to_owned(),
        ]);
    }
    let with_buildah = installed("buildah").is_some();
    if with_buildah {
        let root = format!(
            "buildah --root {0}/buildah --runroot {0}/buildah-run build -q -t base {0}/base",
            base.display()
        );
        run(Command::new("sh").arg("-c").arg(root))?;
    } else {
        absent.push("buildah is not installed".to_owned());
    }
    for (name, case) in CASES {
        let mine = format!("rdock, {name}");
        let words = ["ours", name, &base.display().to_string()].map(str::to_owned);
        let mut rows = vec![Row::of_role(mine.as_str(), &words)?];
        for kit in KITS {
            let there = match kit {
                "buildah" => with_buildah,
                "BuildKit" => able.is_some(),
                _ => daemon.is_some(),
            };
            if there {
                let words = ["command".to_owned(), peer(kit, &client, case, base)];
                rows.push(Row::of_role(format!("{kit}, {name}"), &words)?);
            }
        }
        let (rows, mut left_out) = take_turns(rows, 1, rounds);
        left_out.extend(absent.iter().cloned());
        let what = match case {
            Case::Cold => "1,000 files, 10 RUN true, no step cached",
            Case::Cached => "1,000 files, 10 RUN true, all cached",
            Case::Context => "20,000 files that did not change, all cached",
        };
        table::print(
            &format!("build: {what}; {rounds} rounds in turns; {}", table::machine()),
            &rows,
            &left_out,
            &[],
        );
        table::bar(&rows, &mine, case.bar(), &format!("{}, {name}", KITS[0]));
    }
    Ok(())
}
