//! Links and files of an image, of a volume and of the state directory.

use super::waiting;
use crate::probe::{self, Place, dir, link, probe};
use crate::{Cannot, Tested, same};
use rdock_runtime::{Error, Mount, Runtime};
use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const TMPFS_MAGIC: &str = "1021994";

fn is_empty(directory: &Path) -> Tested {
    let names: Vec<_> = std::fs::read_dir(directory)?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    same(&names.len(), &0).map_err(|error| format!("{names:?} in the host's directory: {error}").into())
}

fn needs_devices() -> Result<(), Cannot> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Cannot("needs root: devices for a /dev of the host's".into())),
    }
}

/// The files that are masked and that this kernel has.
fn present() -> Result<Vec<&'static str>, Cannot> {
    let mut files = vec![
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/latency_stats",
        "/proc/interrupts",
    ];
    files.retain(|path| Path::new(path).exists());
    match files.is_empty() {
        true => Err(Cannot("this kernel has none of the files that are masked".into())),
        false => Ok(files),
    }
}

pub(super) fn targets() -> Tested {
    let canary = tempfile::tempdir()?;
    let path = canary.path().to_str().ok_or("not UTF-8")?;
    // Targets of mounts and the working directory are made inside, wherever links of the image lead.
    let place = Place::with(
        "{}",
        &[dir(path.trim_start_matches('/'), 0o777), link("out", path)],
    )?;
    let spec = probe(&["kind /out/made", "cwd"])?
        .mount(Mount::tmpfs("/out/made"))
        .working_dir("/out/work");
    let said = place.says(&spec)?;
    same(said.as_str(), format!("{TMPFS_MAGIC}\n{path}/work\n").as_str())?;
    is_empty(canary.path())
}

pub(super) fn masked() -> Tested {
    let pattern = "/proc/sys/kernel/core_pattern";
    let before = std::fs::read_to_string(pattern)?;
    let mut lines: Vec<String> = present()?.iter().map(|path| format!("device {path}")).collect();
    let mut expected = vec!["1:3"; lines.len()];
    for path in [pattern, "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"] {
        if Path::new(path).exists() {
            lines.push(format!("write {path} x"));
            expected.push("errno 30");
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let said = Place::new()?.says(&probe(&lines)?)?;
    same(&said.lines().collect::<Vec<_>>(), &expected)?;
    needs_devices()?;

    // The container's /dev is somebody else's directory, where null is swapped all the time.
    let place = Place::new()?;
    let dev = place.root.path().join("dev");
    std::fs::create_dir(&dev)?;
    let (null, other) = (dev.join("null"), dev.join("other"));
    std::os::unix::fs::symlink(pattern, &null)?;
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(
        CWD,
        &other,
        FileType::CharacterDevice,
        mode,
        rustix::fs::makedev(1, 3),
    )
    .map_err(|error| Cannot(format!("no device can be made: {error}")))?;
    let spec = probe(&lines)?.mount(Mount::bind(&dev, "/dev"));
    let (mut started, mut refused) = (0, 0);
    let mut once = || match place.run(&spec) {
        Err(error) => match *error.downcast::<Error>()? {
            Error::Launch { .. } => {
                refused += 1;
                Ok(())
            }
            other => Err(format!("{other:?}").into()),
        },
        Ok((said, _)) => {
            started += 1;
            same(&said.lines().collect::<Vec<_>>(), &expected)
        }
    };
    once()?;
    let stop = AtomicBool::new(false);
    let raced = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // An exchange that fails once is made up for by the next.
                let _ = rustix::fs::renameat_with(CWD, &null, CWD, &other, RenameFlags::EXCHANGE);
            }
        });
        let raced = (0..60).try_for_each(|_| once());
        stop.store(true, Ordering::Relaxed);
        raced
    });
    raced?;
    same(&std::fs::read_to_string(pattern)?, &before)?;
    // A race that was never open would prove nothing.
    same(&(started > 0, refused > 0), &(true, true))
        .map_err(|error| format!("{started} started, {refused} refused: {error}").into())
}

pub(super) fn console() -> Tested {
    let place = Place::new()?;
    let look = [
        "device /dev/console",
        "same /dev/console /dev/pts/0",
        "device /dev/tty",
    ];
    let said = place.says(&probe(&look)?.terminal(true))?;
    let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    same(&lines, &vec!["136:0", "true", "5:0"])?;
    needs_devices()?;
    let dev = place.root.path().join("dev");
    let canary = place.root.path().join("canary");
    std::fs::write(&canary, "untouched")?;
    std::fs::create_dir(&dev)?;
    std::fs::create_dir(dev.join("pts"))?;
    std::os::unix::fs::symlink(&canary, dev.join("console"))?;
    std::os::unix::fs::symlink("/proc/sys/kernel/core_pattern", dev.join("pts/0"))?;
    let spec = probe(&look)?.terminal(true).mount(Mount::bind(&dev, "/dev"));
    match place.run(&spec) {
        Err(error) => match *error.downcast::<Error>()? {
            Error::Launch { .. } => {}
            other => return Err(format!("{other:?}").into()),
        },
        Ok((said, _)) => {
            let console = said.lines().next().unwrap_or_default();
            let terminal = console.starts_with("136:") || console.starts_with("errno");
            same(&terminal, &true).map_err(|error| format!("{said}: {error}"))?;
        }
    }
    same(std::fs::read_to_string(&canary)?.as_str(), "untouched")
}

pub(super) fn ids() -> Tested {
    let around = tempfile::tempdir()?;
    let runtime = Runtime::open(around.path().join("root"))?;
    probe::import(&runtime, "{}", &[])?;
    let containers = around.path().join("root/containers");
    let listing = |path: &Path| -> Tested<Vec<_>> {
        let mut names: Vec<_> = std::fs::read_dir(path)?
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        names.sort();
        Ok(names)
    };
    let before = (listing(around.path())?, listing(&containers)?);
    let long = "x".repeat(300);
    for bad in [
        "", ".", "..", "../x", "/etc", "a/b", "a\0b", "-x", "a b", "a\n", &long,
    ] {
        let started = rdock_runtime::blocking::wait(async {
            let container = waiting()?.name(bad).start(&runtime).await?;
            container.remove().await?;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        match started {
            Err(error) if matches!(error.downcast_ref(), Some(Error::Spec(_))) => {}
            other => return Err(format!("the name {bad:?}: {other:?}").into()),
        }
        match runtime.container(bad) {
            Err(Error::NoSuchContainer { .. } | Error::AmbiguousId { .. }) => {}
            other => return Err(format!("looking for {bad:?}: {other:?}").into()),
        }
    }
    same(&(listing(around.path())?, listing(&containers)?), &before)
}
