//! What a start costs: a container of a static program that ends at once, from the call until nothing is left.
//!
//! `cargo bench --bench start [-- --rounds N]`, as root. The floor is a program that makes the system calls no
//! runtime can do without (`benches/floor`), with the very filter that rdock loads. Other runtimes take part when
//! they are installed.

#[allow(dead_code)]
mod support;

use rdock_runtime::image::{Digest, Progress};
use rdock_runtime::{ContainerSpec, NetworkMode, Runtime};
use std::path::Path;
use std::process::{Command, ExitCode};
use support::ground::{Ground, run};
use support::rows::{Row, View, groups, report, serve, serve_commands, take_turns};
use support::{Outcome, installed, number, table};

const PAYLOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/payload"));
const FLOOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/floor"));

const RDOCK: &str = "rdock, own network namespace";
const LARGE: &str = "rdock, the same from a 1 GiB program";
const BRIDGED: &str = "rdock, default network";
const CRUN: &str = "crun run";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    report(match words.as_slice() {
        ["rdock", root, network, resident] => rdock(root, network, resident),
        ["hold", root] => hold(root),
        ["command", timed @ ..] => {
            let timed: Vec<String> = timed.iter().map(|word| (*word).to_owned()).collect();
            serve_commands(View::VersionOne, &[], &timed)
        }
        _ => compare(),
    })
}

fn compare() -> Outcome {
    let rounds = number("--rounds", 60)?;
    let ground = Ground::fresh(4)?;
    let (base, root) = (ground.path(), ground.path().join("root"));
    let tree = base.join("tree");
    for folder in ["proc", "dev", "sys", "etc"] {
        std::fs::create_dir_all(tree.join(folder))?;
    }
    program(&tree.join("payload"), PAYLOAD)?;
    let archive = archive()?;
    let runtime = Runtime::open(&root)?;
    runtime
        .images()
        .import_stream(&mut archive.as_slice(), &Progress::default())?;

    let root = root.to_string_lossy().into_owned();
    let (floor, instructions) = floor(base, &tree, &root)?;
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut rows = vec![
        floor,
        Row::of_role(RDOCK, &words(&["rdock", &root, "none", "0"]))?,
        Row::of_role(LARGE, &words(&["rdock", &root, "none", "1073741824"]))?,
        Row::of_role(BRIDGED, &words(&["rdock", &root, "default", "0"]))?,
    ];
    rows.extend(peers(base, &tree, &archive)?);
    let (rows, left_out) = take_turns(rows, 5, rounds);

    let title = format!(
        "start to end of a static program, {rounds} rounds in turns; {}\nthe floor: namespaces, volatile overlay, \
         mounts, one control group, lo up, a filter of {instructions} instructions, clean-up",
        table::machine()
    );
    table::print(&title, &rows, &left_out, &["floor", CRUN]);
    table::bar(&rows, RDOCK, 2.0, "floor");
    table::bar(&rows, RDOCK, 1.0 / 3.0, CRUN);
    table::bar(&rows, LARGE, 1.1, RDOCK);
    drop(rows);
    Ok(())
}

/// The floor's row and the length of its filter, which it takes from a container of ours.
fn floor(base: &Path, tree: &Path, root: &str) -> Outcome<(Row, u64)> {
    let file = base.join("floor");
    program(&file, FLOOR)?;
    let below = base.join("floor-scratch");
    std::fs::create_dir_all(below.join("mnt"))?;
    let group = groups()?.into_iter().find(|(kind, _)| kind == "cgroup2");
    let group = group.map_or_else(|| "-".into(), |(_, path)| path.into_os_string());
    let mut held = Row::of_role(
        "a container to take the filter from",
        &["hold".into(), root.into()],
    )?;
    let pid = held.answer()?.to_string();
    let mut command = Command::new(&file);
    command.arg(pid).args([tree, &below]).arg(group);
    let mut row = Row::new("floor", &mut command)?;
    let instructions = row.answer()?;
    Ok((row, instructions))
}

/// Runs until its input ends; says its process id first.
fn hold(root: &str) -> Outcome {
    use std::io::Write;
    let runtime = Runtime::open(root)?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let spec = ContainerSpec::new("bench")
        .args(["sleep", "600"])
        .network(NetworkMode::None);
    let container = tokio.block_on(spec.start(&runtime))?;
    let pid = container.inspect()?.pid.ok_or("the container has no process")?;
    std::io::stdout().write_all(&u64::try_from(pid)?.to_ne_bytes())?;
    std::io::stdout().flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    tokio.block_on(container.remove())?;
    Ok(())
}

/// A host program that uses `resident` bytes and starts a container whenever it is asked to.
fn rdock(root: &str, network: &str, resident: &str) -> Outcome {
    let memory = vec![1_u8; resident.parse()?];
    let runtime = Runtime::open(root)?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let spec = ContainerSpec::new("bench").network(NetworkMode::parse(network)?);
    serve(|| {
        tokio.block_on(async {
            let container = spec.start(&runtime).await?;
            let exit = container.wait().await?;
            container.remove().await?;
            match exit.success() {
                true => Ok(None),
                false => Err(format!("the payload ended with {exit}").into()),
            }
        })
    })?;
    drop(std::hint::black_box(memory));
    Ok(())
}

/// A row for every other runtime that is installed.
fn peers(base: &Path, tree: &Path, archive: &[u8]) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    let mut add = |name: &str, words: &[&dyn AsRef<std::ffi::OsStr>]| -> Outcome {
        let words = words
            .iter()
            .map(|word| word.as_ref().to_string_lossy().into_owned());
        let words: Vec<String> = std::iter::once("command".to_owned()).chain(words).collect();
        rows.push(Row::of_role(name, &words)?);
        Ok(())
    };
    if installed("bwrap").is_some() {
        add(
            "bwrap, the same namespaces, no control group",
            &[
                &"bwrap",
                &"--unshare-pid",
                &"--unshare-uts",
                &"--unshare-ipc",
                &"--unshare-net",
                &"--unshare-cgroup",
                &"--bind",
                &tree,
                &"/",
                &"--proc",
                &"/proc",
                &"--dev",
                &"/dev",
                &"/payload",
            ],
        )?;
    }
    for (runtime, name) in [("crun", CRUN), ("runc", "runc run"), ("youki", "youki run")] {
        if installed(runtime).is_some() {
            let bundle = base.join(runtime);
            bundle_for(runtime, &bundle)?;
            let state = base.join(format!("{runtime}-state"));
            let container = format!("rdock-bench-{}", std::process::id());
            add(
                name,
                &[
                    &runtime,
                    &"--root",
                    &state,
                    &"run",
                    &"--bundle",
                    &bundle,
                    &container,
                ],
            )?;
        }
    }
    if installed("podman").is_some() {
        let (store, state) = (base.join("podman"), base.join("podman-state"));
        let rootfs = base.join("podman-rootfs");
        copy_tree(tree, &rootfs)?;
        add(
            "podman run --rm --network none",
            &[
                &"podman",
                &"--root",
                &store,
                &"--runroot",
                &state,
                &"--cgroup-manager",
                &"cgroupfs",
                &"--events-backend",
                &"file",
                &"run",
                &"--rm",
                &"--network",
                &"none",
                &"--rootfs",
                &rootfs,
                &"/payload",
            ],
        )?;
    }
    // The program alone says nothing: it needs its daemon.
    if installed("docker").is_some() && run(Command::new("docker").arg("version")).is_ok() {
        let file = base.join("archive.tar");
        std::fs::write(&file, archive)?;
        run(Command::new("docker").args(["load", "-q", "-i"]).arg(&file))?;
        add(
            "docker run --rm --network none",
            &[&"docker", &"run", &"--rm", &"--network", &"none", &"bench"],
        )?;
    }
    Ok(rows)
}

fn bundle_for(runtime: &str, bundle: &Path) -> Outcome {
    let rootfs = bundle.join("rootfs");
    for folder in ["proc", "dev", "sys", "etc"] {
        std::fs::create_dir_all(rootfs.join(folder))?;
    }
    program(&rootfs.join("payload"), PAYLOAD)?;
    run(Command::new(runtime).arg("spec").current_dir(bundle))?;
    let file = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    config["process"]["args"] = serde_json::json!(["/payload"]);
    config["process"]["terminal"] = false.into();
    config["root"] = serde_json::json!({"path": "rootfs", "readonly": false});
    std::fs::write(&file, config.to_string())?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Outcome {
    for folder in ["proc", "dev", "sys", "etc"] {
        std::fs::create_dir_all(to.join(folder))?;
    }
    std::fs::copy(from.join("payload"), to.join("payload"))?;
    Ok(())
}

fn program(path: &Path, bytes: &[u8]) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, bytes)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// An image `bench` of the payload and the folders that every base image has.
fn archive() -> Outcome<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for folder in ["proc", "dev", "sys", "etc"] {
        entry(&mut layer, folder, tar::EntryType::Directory, b"")?;
    }
    entry(&mut layer, "payload", tar::EntryType::Regular, PAYLOAD)?;
    let layer = layer.into_inner()?;
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/payload"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256_of(&layer).to_string()]},
    });
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": ["bench:latest"], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("manifest.json", manifest.to_string().as_bytes()),
        ("config.json", config.to_string().as_bytes()),
        ("layer.tar", &layer),
    ] {
        entry(&mut archive, name, tar::EntryType::Regular, bytes)?;
    }
    Ok(archive.into_inner()?)
}

fn entry(archive: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, bytes: &[u8]) -> Outcome {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    archive.append_data(&mut header, path, bytes)?;
    Ok(())
}
