//! Known attacks on container runtimes, by the names of the project's table of them.

use crate::identities::{exec_output, fails_at, needs_users};
use crate::probe::{Place, dir, file, link, probe};
use crate::{Tested, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{ContainerSpec, Error, Mount, Step, blocking};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("rt_fake_procfs", fake_procfs),
        trial("rt_rootfs_proc_symlink", proc_symlink),
        trial("rt_rootfs_dev_symlink", dev_symlink),
        trial("rt_masked_devnull", masked),
        trial("rt_console_bind", console),
        trial("rt_tty_inject", terminal),
        trial("rt_leaked_fd_cwd", leaked_descriptors),
        trial("rt_proc_self_exe", own_program),
        trial("rt_exec_ptrace", seizing_execs),
        trial("rt_seccomp_af_alg", sockets),
        trial("rt_state_dir_perms", state_directories),
    ]
}

const PROC: &str = "9fa0";
const SYS: &str = "62656572";

fn fake_procfs() -> Tested {
    let entries = [
        dir("proc", 0o755),
        dir("proc/self", 0o755),
        file("proc/self/status", 0o644, "fake"),
        file("proc/version", 0o644, "fake"),
        dir("sys", 0o755),
        dir("sys/fs", 0o755),
        file("sys/fake", 0o644, "fake"),
    ];
    for config in [
        "{}",
        r#"{"Volumes":{"/proc":{},"/sys":{},"/proc/self":{},"/sys/fs/cgroup":{}}}"#,
    ] {
        let place = Place::with(config, &entries)?;
        let said = place.says(&probe(&[
            "kind /proc",
            "kind /proc/self/",
            "kind /sys",
            "cat /sys/fake",
            "cat /proc/self/status",
        ])?)?;
        let lines: Vec<&str> = said.lines().collect();
        same(&lines[..4], &[PROC, PROC, SYS, "errno 2"])?;
        same(&said.contains("Seccomp:"), &true)?;
    }
    Ok(())
}

/// Either the start fails while mounting, or the real file systems are there.
fn stays_inside(place: &Place, canary: &Path) -> Tested {
    match place.run(&probe(&["kind /proc/", "kind /sys/"])?) {
        Ok((said, _)) => same(&said.lines().collect::<Vec<_>>(), &vec![PROC, SYS])?,
        Err(error) => match error.downcast_ref::<Error>() {
            Some(Error::Launch { .. }) => {}
            _ => return Err(error),
        },
    }
    same(&std::fs::read_dir(canary)?.count(), &0)
}

fn proc_symlink() -> Tested {
    let canary = tempfile::tempdir()?;
    let outside = canary.path().to_string_lossy().into_owned();
    for to in [&outside, "/seed", "seed", "../../../.."] {
        for name in ["proc", "sys"] {
            let place = Place::with("{}", &[link(name, to)])?;
            stays_inside(&place, canary.path()).map_err(|error| format!("{name} -> {to}: {error}"))?;
        }
    }
    Ok(())
}

fn dev_symlink() -> Tested {
    let canary = tempfile::tempdir()?;
    let outside = canary.path().to_string_lossy().into_owned();
    let up = format!("../../../..{outside}");
    for to in [&outside, &up, "/seed"] {
        let place = Place::with("{}", &[link("dev", to)])?;
        stays_inside(&place, canary.path()).map_err(|error| format!("dev -> {to}: {error}"))?;
        let place = Place::with(
            "{}",
            &[
                dir("dev", 0o755),
                link("dev/pts", to),
                link("dev/shm", to),
                link("dev/mqueue", to),
            ],
        )?;
        stays_inside(&place, canary.path()).map_err(|error| format!("dev/pts -> {to}: {error}"))?;
    }
    Ok(())
}

fn masked() -> Tested {
    let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    // Whatever the image has as /dev/null, masks are the real one.
    let place = Place::with(
        "{}",
        &[
            dir("dev", 0o755),
            link("dev/null", "/proc/sys/kernel/core_pattern"),
        ],
    )?;
    let files: Vec<&str> = [
        "/proc/keys",
        "/proc/timer_list",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/sched_debug",
    ]
    .into_iter()
    .filter(|path| Path::new(path).exists())
    .collect();
    same(&files.is_empty(), &false)?;
    let mut lines: Vec<String> = vec!["device /dev/null".into()];
    for path in &files {
        lines.extend([
            format!("device {path}"),
            format!("cat {path}"),
            format!("write {path} |/evil"),
        ]);
    }
    lines.push("write /proc/sys/kernel/core_pattern |/evil".into());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let said = place.says(&probe(&lines)?)?;
    let mut expected = vec!["1:3"];
    for _ in &files {
        expected.extend(["1:3", "", "written"]);
    }
    let said: Vec<&str> = said.lines().collect();
    same(&said[..said.len() - 1], &expected[..])?;
    same(&matches!(said[said.len() - 1], "errno 30" | "errno 13"), &true)?;
    same(
        &std::fs::read_to_string("/proc/sys/kernel/core_pattern")?,
        &before,
    )
}

fn console() -> Tested {
    let canary = tempfile::tempdir()?;
    let outside = canary.path().join("console").to_string_lossy().into_owned();
    let place = Place::with(
        "{}",
        &[
            dir("dev", 0o755),
            link("dev/console", &outside),
            link("dev/tty", &outside),
        ],
    )?;
    let spec = probe(&[
        "device /proc/self/fd/0",
        "link /proc/self/fd/1",
        "device /dev/tty",
        "device /dev/ptmx",
    ])?;
    let said = place.says(&spec.terminal(true))?;
    let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    // Its own devpts: the first terminal of it is number 0.
    same(&lines, &vec!["136:0", "/dev/pts/0", "5:0", "5:2"])?;
    same(&std::fs::read_dir(canary.path())?.count(), &0)
}

/// Session and controlling terminal of `/proc/self/stat`.
fn session(stat: &str) -> Option<(i64, i64, i64)> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let pid = stat.split(' ').next()?.parse().ok()?;
    Some((pid, fields.get(3)?.parse().ok()?, fields.get(4)?.parse().ok()?))
}

fn terminal() -> Tested {
    let place = Place::new()?;
    // Without a terminal: a session of its own, without a controlling terminal that input could be put into.
    let said = place.says(&probe(&["cat /proc/self/stat", "open /dev/tty"])?)?;
    let (pid, leader, tty) = session(said.lines().next().unwrap_or_default()).ok_or("no stat")?;
    same(&(leader, tty), &(pid, 0))?;
    same(&said.lines().last(), &Some("errno 6"))?;
    // With one: its own pseudo-terminal, never that of who started it.
    let said = place.says(&probe(&["cat /proc/self/stat", "open /dev/tty"])?.terminal(true))?;
    let (pid, leader, tty) = session(said.lines().next().unwrap_or_default()).ok_or("no stat")?;
    same(&(leader, tty), &(pid, 136 << 8))?;
    let lines = "cat /proc/self/stat\nopen /dev/tty";
    let said = exec_output(&place, &probe(&["sleep 20000"])?, |exec| exec.env("PROBE", lines))?;
    let (pid, leader, tty) = session(said.lines().next().unwrap_or_default()).ok_or("no stat")?;
    same(&(leader, tty), &(pid, 0))
}

fn leaked_descriptors() -> Tested {
    let place = Place::with("{}", &[link("leak", "/proc/self/fd/7"), link("out", "../../..")])?;
    let said = place.says(&probe(&["fds", "cwd"])?.working_dir("/seed"))?;
    // 3 is the directory that is being listed.
    same(&said.lines().collect::<Vec<_>>(), &vec!["0 1 2 3", "/seed"])?;
    same(&place.says(&probe(&["cwd"])?.working_dir("/out"))?.trim(), &"/")?;
    for number in (0..20).chain([64, 127, 128, 129, 130, 200]) {
        let spec = probe(&["cwd", "list ."])?.working_dir(format!("/proc/self/fd/{number}"));
        let step = fails_at(&place, &spec).map_err(|error| format!("{number}: {error}"))?;
        same(&step, &Step::WorkingDirectory)?;
    }
    same(
        &fails_at(&place, &probe(&["cwd"])?.working_dir("/leak"))?,
        &Step::WorkingDirectory,
    )?;
    // By exec too.
    let sleeper = probe(&["sleep 20000"])?;
    blocking::wait(async {
        let container = sleeper.start(&place.runtime).await?;
        for number in (0..12).chain([128]) {
            let dir = format!("/proc/self/fd/{number}");
            let ran = container
                .exec(["/test"])
                .env("PROBE", "cwd")
                .working_dir(&dir)
                .output()
                .await;
            same(
                &matches!(
                    ran,
                    Err(Error::Launch {
                        step: Step::WorkingDirectory,
                        ..
                    })
                ),
                &true,
            )
            .map_err(|_| format!("{dir}: {ran:?}"))?;
        }
        let output = container
            .exec(["/test"])
            .env("PROBE", "fds\ncwd")
            .output()
            .await?;
        container.remove().await?;
        same(&String::from_utf8_lossy(&output.stdout).as_ref(), &"0 1 2 3\n/\n")
    })?
}

fn own_program() -> Tested {
    let program = std::env::current_exe()?;
    let before = std::fs::read(&program)?;
    let place = Place::with("{}", &[file("script", 0o755, "#!/proc/self/exe\n")])?;
    for args in [["/proc/self/exe"], ["/script"]] {
        let spec = probe(&[])?.entrypoint(args);
        // What runs is the helper's program, which does nothing without its socket, or nothing at all.
        match place.run(&spec) {
            Ok((_, exit)) => same(&exit.success(), &false)?,
            Err(error) => same(
                &matches!(error.downcast_ref::<Error>(), Some(Error::Launch { .. })),
                &true,
            )?,
        }
    }
    // No program of the host can be opened for writing through a process that shows up inside.
    let said = place.says(&probe(&["open /proc/self/exe", "open /proc/1/exe"])?)?;
    same(&said.lines().all(|line| line.starts_with("errno ")), &true).map_err(|_| said)?;
    same(&(std::fs::read(&program)? == before), &true)
}

/// Inside: for some milliseconds, tries to look into every other process; what it got hold of.
pub(crate) fn seize(milliseconds: u64) -> String {
    let end = Instant::now() + Duration::from_millis(milliseconds);
    let own = std::process::id();
    let mut seen = std::collections::BTreeSet::new();
    while Instant::now() < end {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            if pid == own {
                continue;
            }
            seen.insert("a process".to_owned());
            for path in ["exe", "cwd", "root"].map(|name| entry.path().join(name)) {
                if let Ok(to) = std::fs::read_link(&path) {
                    seen.insert(to.to_string_lossy().into_owned());
                }
            }
            if std::fs::OpenOptions::new()
                .write(true)
                .open(entry.path().join("exe"))
                .is_ok()
            {
                seen.insert("a program, for writing".into());
            }
            for open in std::fs::read_dir(entry.path().join("fd"))
                .into_iter()
                .flatten()
                .flatten()
            {
                if let Ok(to) = std::fs::read_link(open.path()) {
                    let to = to.to_string_lossy().into_owned();
                    seen.insert(to.split(':').next().unwrap_or_default().to_owned());
                }
            }
        }
    }
    seen.into_iter().collect::<Vec<_>>().join(" ")
}

fn seizing_execs() -> Tested {
    let place = Place::new()?;
    let root = place.root.path().to_string_lossy().into_owned();
    // Until its exec a process that joins cannot be looked into; only the program itself is then there.
    let said = seize_during_execs(&place, probe(&["say go", "seize 1500"])?)?;
    same(&said.contains("a process"), &true)?;
    for bad in ["memfd", "for writing", "anon_inode", &root] {
        same(&said.contains(bad), &false).map_err(|_| format!("it saw {bad}: {said}"))?;
    }
    // A payload that was given the right to trace everything sees the helper's program, and cannot write it.
    let said = seize_during_execs(&place, probe(&["say go", "seize 1500"])?.cap_add("SYS_PTRACE"))?;
    for bad in ["for writing", &root] {
        same(&said.contains(bad), &false).map_err(|_| format!("it saw {bad}: {said}"))?;
    }
    Ok(())
}

/// What a payload got hold of while processes were added to its container.
fn seize_during_execs(place: &Place, spec: ContainerSpec) -> Tested<String> {
    let spec = spec.ready_when(rdock_runtime::Ready::log("go"));
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        let began = Instant::now();
        let mut execs = 0;
        while began.elapsed() < Duration::from_millis(1200) {
            container.exec(["/test"]).env("PROBE", "").output().await?;
            execs += 1;
        }
        same(&(execs > 20), &true).map_err(|_| format!("only {execs} execs"))?;
        container.wait().await?;
        let mut logs = container.logs();
        let mut last = String::new();
        while let Some(line) = logs.next().await? {
            last = String::from_utf8_lossy(&line.bytes).into_owned();
        }
        container.remove().await?;
        Ok(last)
    })?
}

fn sockets() -> Tested {
    let place = Place::new()?;
    // AF_ALG and AF_VSOCK; AF_UNIX to see that sockets are made at all.
    let lines = ["socket 38", "socket 40", "socket 1"];
    let said = place.says(&probe(&lines)?)?;
    same(
        &said.lines().collect::<Vec<_>>(),
        &vec!["errno 1", "errno 1", "made"],
    )?;
    let said = exec_output(&place, &probe(&["sleep 20000"])?, |exec| {
        exec.env("PROBE", lines.join("\n"))
    })?;
    same(
        &said.lines().collect::<Vec<_>>(),
        &vec!["errno 1", "errno 1", "made"],
    )
}

fn state_directories() -> Tested {
    let place = Place::new()?;
    place.says(&probe(&["write /data/x x"])?.mount(Mount::volume("data", "/data")))?;
    blocking::wait(async {
        let container = probe(&["sleep 20000"])?.start(&place.runtime).await?;
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(place.root.path())? {
            folders.push(entry?.path());
        }
        folders.push(place.root.path().join("containers").join(container.id()));
        folders.push(place.root.path().join("volumes/data"));
        same(&(folders.len() > 4), &true)?;
        for folder in &folders {
            let mode = std::fs::metadata(folder)?.permissions().mode() & 0o777;
            same(&(mode & 0o077), &0).map_err(|_| format!("{} has mode {mode:o}", folder.display()))?;
        }
        if needs_users().is_ok() {
            // Even where the root itself is open.
            std::fs::set_permissions(place.root.path(), PermissionsExt::from_mode(0o755))?;
            let lines: Vec<String> = folders
                .iter()
                .map(|folder| format!("list {}", folder.display()))
                .collect();
            let program = tempfile::tempdir()?;
            std::fs::set_permissions(program.path(), PermissionsExt::from_mode(0o755))?;
            let copy = program.path().join("probe");
            std::fs::copy(std::env::current_exe()?, &copy)?;
            let output = std::process::Command::new(&copy)
                .env("RDOCK_TEST_ROLE", "probe")
                .env("PROBE", lines.join("\n"))
                .current_dir("/")
                .uid(65534)
                .gid(65534)
                .output()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            same(
                &said.lines().collect::<Vec<_>>(),
                &vec!["errno 13"; folders.len()],
            )?;
        }
        Ok::<_, Box<dyn std::error::Error>>(container.remove().await?)
    })?
}
