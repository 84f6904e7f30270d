//! Known attacks on container runtimes, by the names of the project's table of them.

use crate::probe::{Entry, Place, dir, fifo, file, link, probe};
use crate::{Cannot, Tested, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{ContainerSpec, Error, Mount, Step, blocking};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("rt_caps_inheritable", inheritable),
        trial("rt_caps_nonroot", nonroot),
        trial("rt_supplementary_groups", groups),
        trial("rt_user_numeric", numeric_users),
        trial("rt_passwd_special_file", special_passwd),
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

/// Values of `/proc/self/status` lines, in the order asked for.
fn status(text: &str, names: &[&str]) -> Vec<String> {
    let value = |name: &&str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(*name)?.strip_prefix(':'));
        line.unwrap_or("missing")
            .split_ascii_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    names.iter().map(value).collect()
}

fn needs_users() -> Result<(), Cannot> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Cannot(
            "needs root: only then there are users other than 0".into(),
        )),
    }
}

const NONE: &str = "0000000000000000";

fn exec_output(
    place: &Place,
    spec: &ContainerSpec,
    change: impl Fn(rdock_runtime::Exec) -> rdock_runtime::Exec,
) -> Tested<String> {
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        let output = change(container.exec(["/test"])).output().await?;
        container.remove().await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    })?
}

fn inheritable() -> Tested {
    let place = Place::new()?;
    let sets = ["CapInh", "CapAmb"];
    let all = || Ok::<_, Box<dyn std::error::Error>>(probe(&["cat /proc/self/status"])?.cap_add("ALL"));
    for spec in [
        probe(&["cat /proc/self/status"])?,
        all()?,
        all()?.privileged(true),
    ] {
        same(&status(&place.says(&spec)?, &sets), &vec![NONE.to_owned(); 2])?;
    }
    let sleeper = probe(&["sleep 20000"])?.cap_add("ALL");
    for privileged in [false, true] {
        let said = exec_output(&place, &sleeper, |exec| {
            exec.env("PROBE", "cat /proc/self/status").privileged(privileged)
        })?;
        same(&status(&said, &sets), &vec![NONE.to_owned(); 2])?;
    }
    Ok(())
}

fn nonroot() -> Tested {
    needs_users()?;
    let place = Place::new()?;
    let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"];
    for spec in [
        probe(&["cat /proc/self/status"])?,
        probe(&["cat /proc/self/status"])?.cap_add("ALL"),
    ] {
        let said = place.says(&spec.user("1000"))?;
        same(&status(&said, &sets), &vec![NONE.to_owned(); 4])?;
        same(&status(&said, &["Uid"]), &vec!["1000 1000 1000 1000".to_owned()])?;
    }
    let said = exec_output(&place, &probe(&["sleep 20000"])?, |exec| {
        exec.env("PROBE", "cat /proc/self/status").user("1000")
    })?;
    same(&status(&said, &sets), &vec![NONE.to_owned(); 4])
}

const USERS: [Entry<'static>; 2] = [
    file(
        "etc/passwd",
        0o644,
        "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\n1001:x:0:0::/:/bin/sh\n\
         huge:x:4294967296:0::/:/bin/sh\nhigh:x:4294967295:0::/:/bin/sh\nminus:x:-1:0::/:/bin/sh\n\
         hex:x:0x0:0::/:/bin/sh\nempty:x::0::/:/bin/sh\nshort:x\n",
    ),
    file(
        "etc/group",
        0o644,
        "root:x:0:\nusers:x:100:\naudio:x:63:alice,bob\nvideo:x:44:bob\nlocked:x:70:alice\n",
    ),
];

fn groups() -> Tested {
    needs_users()?;
    let denied = [file("denied", 0o705, "secret").of_group(70)];
    let place = Place::with("{}", &[&USERS[..], &denied].concat())?;
    let lines = ["cat /proc/self/status", "cat /denied"];
    let said = place.says(&probe(&lines)?.user("alice").group("44").group("video"))?;
    same(
        &status(&said, &["Uid", "Gid"]),
        &vec!["1000 1000 1000 1000".to_owned(), "100 100 100 100".to_owned()],
    )?;
    let mut ids: Vec<u32> = status(&said, &["Groups"])[0]
        .split(' ')
        .filter_map(|id| id.parse().ok())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    // The primary group is among them, or its members would get what the group is denied.
    same(&ids, &vec![44, 63, 70, 100])?;
    same(&said.lines().last(), &Some("errno 13"))?;
    // By number a user has no groups of the image's file but its entry's.
    let said = place.says(&probe(&lines)?.user("4000:63"))?;
    same(
        &status(&said, &["Uid", "Gid"]),
        &vec!["4000 4000 4000 4000".to_owned(), "63 63 63 63".to_owned()],
    )
}

/// The step at which a start fails, if it fails in the helper.
fn fails_at(place: &Place, spec: &ContainerSpec) -> Tested<Step> {
    match place.run(spec) {
        Ok((said, exit)) => Err(format!("it ran ({exit}): {said}").into()),
        Err(error) => match error.downcast_ref::<Error>() {
            Some(Error::Launch { step, .. }) => Ok(*step),
            _ => Err(error),
        },
    }
}

fn numeric_users() -> Tested {
    needs_users()?;
    let place = Place::with("{}", &USERS)?;
    for (user, expected) in [
        ("1001", "1001 0"),
        ("1:1", "1 1"),
        ("", "0 0"),
        ("2147483647:5", "2147483647 5"),
        ("007", "7 0"),
    ] {
        let said = place.says(&probe(&["cat /proc/self/status"])?.user(user))?;
        let ids = status(&said, &["Uid", "Gid"]);
        let first: Vec<&str> = ids.iter().filter_map(|ids| ids.split(' ').next()).collect();
        same(&first.join(" ").as_str(), &expected).map_err(|error| format!("{user:?}: {error}"))?;
    }
    for user in [
        "huge",
        "high",
        "minus",
        "hex",
        "empty",
        "short",
        "nobody",
        "alice:nogroup",
        "0x0",
    ] {
        same(
            &fails_at(&place, &probe(&["cat /proc/self/status"])?.user(user))?,
            &Step::User,
        )
        .map_err(|error| format!("{user:?}: {error}"))?;
    }
    for user in [
        ":",
        "-1",
        "2147483648",
        "4294967295",
        "4294967296",
        "1:4294967296",
    ] {
        let refused = place.run(&probe(&[])?.user(user));
        let Err(error) = &refused else {
            return Err(format!("{user:?} ran").into());
        };
        same(
            &matches!(error.downcast_ref::<Error>(), Some(Error::Spec(_))),
            &true,
        )?;
    }
    // The same for exec.
    let said = exec_output(&place, &probe(&["sleep 20000"])?, |exec| {
        exec.env("PROBE", "cat /proc/self/status").user("1001")
    })?;
    same(&status(&said, &["Uid"]), &vec!["1001 1001 1001 1001".to_owned()])
}

fn special_passwd() -> Tested {
    let sparse = tempfile::tempdir()?;
    let giant = sparse.path().join("passwd");
    std::fs::File::create(&giant)?.set_len(1 << 30)?;
    let endless = "g:x:5:".to_owned() + &"a,".repeat(2 << 20);
    let fifos = [fifo("etc/passwd"), fifo("etc/group")];
    let links = [link("etc/passwd", "/dev/zero"), link("etc/group", "/dev/zero")];
    let directories = [dir("etc/passwd", 0o755), dir("etc/group", 0o755)];
    let lines = [file("etc/group", 0o644, &endless)];
    for (what, entries) in [
        ("fifos", &fifos[..]),
        ("links", &links),
        ("directories", &directories),
        ("lines", &lines),
    ] {
        let place = Place::with("{}", entries)?;
        let began = Instant::now();
        same(&fails_at(&place, &probe(&[])?.user("someone"))?, &Step::User)
            .map_err(|error| format!("{what}: {error}"))?;
        same(&(began.elapsed() < Duration::from_secs(3)), &true)
            .map_err(|_| format!("{what} took too long"))?;
    }
    let place = Place::new()?;
    let began = Instant::now();
    let spec = probe(&[])?
        .user("someone")
        .mount(Mount::bind(&giant, "/etc/passwd"));
    same(&fails_at(&place, &spec)?, &Step::User)?;
    same(&(began.elapsed() < Duration::from_secs(3)), &true)
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
