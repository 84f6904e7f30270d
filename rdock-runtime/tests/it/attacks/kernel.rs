//! What the kernel would allow: control groups, mounts below a directory that somebody else changes, and execs.

use super::{beside, inside, waiting};
use crate::probe::{Place, probe};
use crate::{Tested, same};
use rdock_runtime::{ContainerSpec, Error, Mount};
use rustix::fs::{CWD, RenameFlags};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) fn release_agents() -> Tested {
    let place = Place::new()?;
    let look = [
        "writable /sys/fs/cgroup",
        "mkdir /sys/fs/cgroup/made",
        "writable /sys/kernel",
    ];
    // With limits there are groups of its own in more hierarchies.
    let limited = || Ok::<_, Box<dyn std::error::Error>>(probe(&look)?.memory(256 << 20).pids_limit(100));
    for spec in [probe(&look)?, limited()?] {
        let said = place.says(&spec)?;
        let lines: Vec<&str> = said.lines().collect();
        same(&(lines[0], lines[2]), &("none", "none"))?;
        same(&lines[1].starts_with("errno "), &true).map_err(|_| said.clone())?;
    }
    // Nor can an exec of root.
    beside(
        &place,
        &limited()?.env("PROBE", "sleep 600000"),
        async |container| {
            let said = inside(container, &look[..1], |exec| exec).await?;
            same(said.as_str(), "none\n")
        },
    )
}

pub(super) fn root_of_exec() -> Tested {
    let place = Place::new()?;
    beside(&place, &waiting()?, async |container| {
        // Its root is that of pid 1, also by ways that climb, from wherever it begins.
        let look = [
            "same / /proc/1/root",
            "same /.. /proc/1/root/etc/..",
            "same ../../../../.. /proc/1/root",
            "same /proc/self/root /proc/1/root",
            "cat /etc/passwd",
        ];
        let own = "true\ntrue\ntrue\ntrue\nroot:x:0:0::/root:/bin/sh\n";
        for directory in ["/", "/etc", "/proc/self/fd", "/proc/1/cwd"] {
            let said = inside(container, &look, |exec| exec.working_dir(directory)).await?;
            same(said.as_str(), own).map_err(|error| format!("in {directory}: {error}"))?;
        }
        Ok(())
    })
}

pub(super) fn output_of_exec() -> Tested {
    let place = Place::new()?;
    beside(&place, &waiting()?, async |container| {
        // Nobody reads: the pipe holds it up, and nothing is collected behind it.
        let exec = container.exec(["/test"]).env("PROBE", "flood");
        let mut process = exec.spawn().await?;
        let errors = process.streams.stderr.take().ok_or("no stderr")?;
        let said = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(std::fs::File::from(errors))
                .read_line(&mut line)
                .map(|_| line)
        });
        let written: usize = said.await??.trim().parse()?;
        same(&(written > 0 && written <= 1 << 20), &true)
            .map_err(|_| format!("{written} bytes were taken"))?;
        drop(process);
        // Only its end is wanted.
        let exec = container.exec(["/test"]).env("PROBE", "flood").keep_last(100);
        let output = exec.output().await?;
        same(&output.stdout.len(), &100)?;
        // Nobody wants it: it is not held up, and nothing is collected either.
        let exec = container.exec(["/test"]).env("PROBE", "flood");
        same(&exec.status().await?.success(), &true)
    })
}

/// Starts containers while a directory of a shared volume and a link to the host's `canary` change places.
fn raced(canary: &Path, destination: &str, starts: usize) -> Tested {
    let place = Place::new()?;
    let volume = place
        .runtime
        .volumes()
        .create(Some("shared"), std::collections::BTreeMap::new())?;
    let (folder, link) = (volume.mountpoint.join("folder"), volume.mountpoint.join("link"));
    std::fs::create_dir(&folder)?;
    std::os::unix::fs::symlink(canary, &link)?;
    let spec: ContainerSpec = probe(&["say ran"])?
        .mount(Mount::volume("shared", "/shared"))
        .mount(Mount::tmpfs(destination));
    let stop = AtomicBool::new(false);
    let (mut ran, mut refused) = (0, 0);
    let raced = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // An exchange that fails once is made up for by the next.
                let _ = rustix::fs::renameat_with(CWD, &folder, CWD, &link, RenameFlags::EXCHANGE);
            }
        });
        let raced = (0..starts).try_for_each(|_| match place.run(&spec) {
            Ok((said, _)) => {
                ran += 1;
                same(said.as_str(), "ran\n")
            }
            Err(error) => match *error.downcast::<Error>()? {
                Error::Launch { .. } => {
                    refused += 1;
                    Ok(())
                }
                other => Err(format!("{other:?}").into()),
            },
        });
        stop.store(true, Ordering::Relaxed);
        raced
    });
    raced?;
    same(&(ran > 0), &true).map_err(|_| format!("{ran} ran, {refused} refused"))?;
    same(&std::fs::read_dir(canary)?.count(), &0)?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let path = canary.to_str().ok_or("not UTF-8")?;
    same(&mounts.contains(path), &false)
}

pub(super) fn destinations() -> Tested {
    let canary = tempfile::tempdir()?;
    raced(canary.path(), "/shared/folder", 400)
}

pub(super) fn directories() -> Tested {
    let canary = tempfile::tempdir()?;
    raced(canary.path(), "/shared/folder/made/deep", 100)
}
