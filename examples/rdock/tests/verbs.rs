//! The verbs, on an image that holds one program.

use crate::program::{Tested, needs_root};
use crate::pty::Terminal;
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("run_has_the_exit_code_and_both_outputs", run_outputs),
        trial("run_passes_stdin_and_ends_with_it", run_stdin),
        trial("run_passes_sigterm_to_the_payload", run_signal),
        trial("run_on_a_terminal_passes_keys_and_size", run_terminal),
        trial("detach_keys_leave_the_container_running", detach_keys),
        trial("life_of_a_detached_container", life),
        trial("flags_reach_the_container", flags),
        trial("links_say_where_other_containers_are", links),
        trial("run_connects_the_streams_that_are_asked_for", streams),
        trial("flags_of_other_engines_say_why_they_are_refused", foreign),
        trial("container_has_every_verb_of_containers", container_verbs),
        trial("exec_has_users_and_exit_codes", exec),
        trial("closed_output_ends_without_a_word", closed_output),
        trial("volumes_outlive_containers", volumes),
    ]
}

const SOON: Duration = Duration::from_secs(20);

/// Without a network: that of a plain user comes with a warning on stderr.
fn run_outputs(tiny: &Tiny) -> Tested {
    let done = tiny.start(&[
        "run",
        "--rm",
        "--network",
        "none",
        "tiny",
        "echo",
        "out",
        ",",
        "err",
        "errors",
        ",",
        "exit",
        "7",
    ])?;
    assert_eq!(
        (done.code, &*done.stdout, &*done.stderr),
        (Some(7), "out\n", "errors\n")
    );
    tiny.nothing_left()
}

fn run_stdin(tiny: &Tiny) -> Tested {
    tiny.start(&["run", "--rm", "tiny"])?;
    let mut command = tiny.command(&["run", "--rm", "-i", "tiny", "cat"])?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no stdin")?.write_all(b"typed\n")?;
    let output = child.wait_with_output()?;
    assert_eq!(
        (output.status.code(), &*output.stdout),
        (Some(0), b"typed\n".as_slice())
    );
    let done = tiny.run(&["run", "--rm", "tiny", "cat"])?;
    assert_eq!((done.code, &*done.stdout), (Some(0), ""));
    tiny.nothing_left()
}

fn run_signal(tiny: &Tiny) -> Tested {
    tiny.start(&["run", "--rm", "tiny"])?;
    let mut command = tiny.command(&[
        "run", "--rm", "tiny", "trap", "15", "4", ",", "echo", "set", ",", "sleep", "60",
    ])?;
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().ok_or("no stdout")?));
    assert_eq!(lines.next().transpose()?.as_deref(), Some("set"));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    assert_eq!(lines.next().transpose()?.as_deref(), Some("payload: signal 15"));
    assert_eq!(child.wait()?.code(), Some(4));
    tiny.nothing_left()
}

fn run_terminal(tiny: &Tiny) -> Tested {
    tiny.start(&["run", "--rm", "tiny"])?;
    let words = [
        "run", "--rm", "-it", "tiny", "trap", "2", "9", ",", "echo", "begin", ",", "sleep", "1", ",", "size",
    ];
    let mut terminal = Terminal::start(
        &tiny.command(&[&words[..], &[",", "sleep", "60"]].concat())?,
        33,
        101,
    )?;
    terminal.expect("33 101", SOON)?;
    terminal.send("\u{3}")?;
    terminal.expect("signal 2", SOON)?;
    assert_eq!(terminal.wait(SOON)?.code(), Some(9));
    let done = tiny.run(&["run", "--rm", "-it", "tiny"])?;
    done.failed(125, &["the input device is not a TTY"], None);
    tiny.nothing_left()
}

fn detach_keys(tiny: &Tiny) -> Tested {
    tiny.start(&["run", "--rm", "tiny"])?;
    let words = [
        "run", "-it", "--name", "left", "tiny", "echo", "begin", ",", "sleep", "60",
    ];
    let mut terminal = Terminal::start(&tiny.command(&words)?, 24, 80)?;
    terminal.expect("begin", SOON)?;
    terminal.send("\u{10}\u{11}")?;
    assert_eq!(terminal.wait(SOON)?.code(), Some(0));
    assert!(tiny.run(&["ps"])?.stdout.contains("left"));
    assert_eq!(tiny.run(&["rm", "-f", "left"])?.code, Some(0));
    tiny.nothing_left()
}

fn life(tiny: &Tiny) -> Tested {
    let words = [
        "run", "-d", "--name", "web", "tiny", "trap", "15", "3", ",", "echo", "one", ",", "serve", "8080",
        "x",
    ];
    let id = tiny.start(&words)?.stdout;
    assert_eq!(id.trim().len(), 64, "{id:?}");
    let list = tiny.run(&["ps", "--format", "json"])?.stdout;
    let row: serde_json::Value = serde_json::from_str(&list)?;
    assert_eq!(
        (&row["ID"], &row["Names"], &row["Image"]),
        (&id[..12].into(), &"web".into(), &"tiny".into())
    );
    tiny.run(&["rm", "web"])?.failed(1, &["web is running"], None);
    assert_eq!(tiny.run(&["stop", "web"])?.stdout, "web\n");
    assert_eq!(tiny.run(&["wait", "web"])?.stdout, "3\n");
    let logs = tiny.run(&["logs", "web"])?.stdout;
    assert!(
        logs.starts_with("one\n") && logs.ends_with("payload: signal 15\n"),
        "{logs:?}"
    );
    assert_eq!(
        tiny.run(&["logs", "--tail", "1", "web"])?.stdout,
        "payload: signal 15\n"
    );
    assert!(!tiny.run(&["ps"])?.stdout.contains("web"));
    assert!(tiny.run(&["ps", "-a"])?.stdout.contains("Exited (3)"));
    tiny.run(&["exec", "web", "/payload"])?
        .failed(1, &["web is not running"], None);
    tiny.run(&["rmi", "tiny"])?
        .failed(1, &["tiny"], Some("remove the containers"));
    assert_eq!(tiny.run(&["rm", "web"])?.stdout, "web\n");
    tiny.nothing_left()?;
    assert_eq!(tiny.run(&["rmi", "tiny"])?.code, Some(0));
    assert_eq!(tiny.run(&["images", "-q"])?.stdout, "");
    Ok(())
}

fn flags(tiny: &Tiny) -> Tested {
    std::fs::create_dir(tiny.file("bound"))?;
    std::fs::write(tiny.file("bound/f"), "from the host")?;
    std::fs::write(tiny.file("env"), "# none\nFILE_VAR=file\n")?;
    let bind = format!("{}:/bound:ro", tiny.file("bound").display());
    let env_file = tiny.file("env").display().to_string();
    let words = [
        "run",
        "--rm",
        "-e",
        "A=b c",
        "--env-file",
        &env_file,
        "-v",
        &bind,
        "-w",
        "/tmp",
        "-h",
        "hostess",
        "--add-host",
        "db:10.1.2.3",
        "--tmpfs",
        "/scratch",
        "--read-only",
        "--network",
        "none",
        "--init",
        "-l",
        "k=v",
        "--entrypoint",
        "/payload",
        "tiny",
        "echo",
        "$A",
        "$FILE_VAR",
        "$FROM_IMAGE",
        "@/bound/f",
        "@/proc/sys/kernel/hostname",
        ",",
        "pwd",
        ",",
        "cat",
        "/etc/hosts",
        ",",
        "write",
        "/scratch/x",
        "kept",
        ",",
        "cat",
        "/scratch/x",
        ",",
        "write",
        "/bound/f",
        "changed",
    ];
    let done = tiny.start(&words)?;
    assert!(
        done.stdout
            .starts_with("b c file yes from the host hostess\n\n/tmp\n"),
        "{done:?}"
    );
    assert!(
        done.stdout.contains("10.1.2.3\tdb") && done.stdout.ends_with("kept\n"),
        "{done:?}"
    );
    // EROFS: the last command could not write.
    assert_eq!(
        (done.code, &*done.stderr),
        (Some(1), "payload: cannot open /bound/f: errno 30\n")
    );
    assert_eq!(std::fs::read_to_string(tiny.file("bound/f"))?, "from the host");
    let done = tiny.run(&[
        "run",
        "--rm",
        "--read-only",
        "--network",
        "none",
        "tiny",
        "write",
        "/new",
        "x",
    ])?;
    assert_eq!(
        (done.code, &*done.stderr),
        (Some(1), "payload: cannot open /new: errno 30\n")
    );
    tiny.nothing_left()
}

fn exec(tiny: &Tiny) -> Tested {
    needs_root("another user inside needs a second id")?;
    tiny.run(&["run", "-d", "--name", "home", "tiny", "sleep", "600"])?;
    let done = tiny.run(&[
        "exec", "-u", "guest", "-w", "/data", "-e", "X=y", "home", "/payload", "id", ",", "pwd", ",", "echo",
        "$X",
    ])?;
    assert_eq!(
        done.stdout, "uid=1000 gid=1000 groups=1000,2000\n/data\ny\n",
        "{done:?}"
    );
    assert_eq!(
        tiny.run(&["exec", "home", "/payload", "exit", "6"])?.code,
        Some(6)
    );
    tiny.run(&["exec", "home", "/nope"])?
        .failed(127, &["/nope", "No such file"], None);
    tiny.run(&["exec", "home", "/etc"])?
        .failed(126, &["/etc", "Permission denied"], None);
    assert_eq!(tiny.run(&["kill", "home"])?.stdout, "home\n");
    assert_eq!(tiny.run(&["wait", "home"])?.stdout, "137\n");
    assert_eq!(tiny.run(&["rm", "home"])?.code, Some(0));
    tiny.nothing_left()
}

fn closed_output(tiny: &Tiny) -> Tested {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let output = tiny
        .command(&["images"])?
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()?;
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), b"".as_slice()));
    Ok(())
}

fn volumes(tiny: &Tiny) -> Tested {
    let done = tiny.start(&[
        "run",
        "--rm",
        "-v",
        "kept:/data",
        "tiny",
        "cat",
        "/data/file",
        ",",
        "append",
        "/data/file",
        "more",
    ])?;
    assert_eq!((done.code, &*done.stdout), (Some(0), "from the image\n"));
    let done = tiny.run(&["run", "--rm", "-v", "kept:/data", "tiny", "cat", "/data/file"])?;
    assert_eq!(done.stdout, "from the image\nmore\n");
    assert_eq!(tiny.run(&["volume", "ls", "-q"])?.stdout, "kept\n");
    let shown: serde_json::Value = serde_json::from_str(&tiny.run(&["volume", "inspect", "kept"])?.stdout)?;
    assert_eq!(shown[0]["Name"], "kept");
    assert_eq!(tiny.run(&["volume", "rm", "kept"])?.stdout, "kept\n");
    tiny.run(&["volume", "rm", "kept"])?
        .failed(1, &["no such volume: kept"], None);
    Ok(())
}

fn links(tiny: &Tiny) -> Tested {
    needs_root("two containers are in one network")?;
    let db = [
        "run",
        "-d",
        "--name",
        "db",
        "--expose",
        "5432",
        "--expose",
        "53/udp",
        "-e",
        "MODE=fast",
        "tiny",
        "sleep",
        "600",
    ];
    let id = tiny.start(&db)?.stdout.trim().to_owned();
    let address = "{{.NetworkSettings.IPAddress}}";
    let address = tiny
        .run(&["inspect", "-f", address, "db"])?
        .stdout
        .trim()
        .to_owned();
    let linked = |more: &[&str]| {
        let args = [
            "run",
            "--rm",
            "--name",
            "web",
            "--link",
            "db:my-store",
            "--link",
            "db",
        ];
        tiny.run(&[&args[..], &["-e", "DB_ENV_MODE=own", "tiny"], more].concat())
    };
    let hosts = linked(&["cat", "/etc/hosts"])?;
    for names in [
        format!("my-store {} db", &id[..12]),
        format!("db {} db", &id[..12]),
    ] {
        let line = format!("{address}\t{names}");
        assert!(
            hosts.stdout.lines().any(|found| found == line),
            "{line}: {hosts:?}"
        );
    }
    let env = linked(&["env"])?.stdout;
    for variable in [
        "MY_STORE_NAME=/web/my-store".to_owned(),
        format!("MY_STORE_PORT=udp://{address}:53"),
        format!("MY_STORE_PORT_5432_TCP=tcp://{address}:5432"),
        format!("MY_STORE_PORT_5432_TCP_ADDR={address}"),
        "MY_STORE_PORT_5432_TCP_PORT=5432".to_owned(),
        "MY_STORE_PORT_5432_TCP_PROTO=tcp".to_owned(),
        "MY_STORE_ENV_MODE=fast".to_owned(),
        // What is given for the container itself wins.
        "DB_ENV_MODE=own".to_owned(),
    ] {
        assert_eq!(
            env.lines().filter(|line| *line == variable).count(),
            1,
            "{variable}: {env}"
        );
    }
    assert!(
        !env.contains("ENV_PATH") && !env.contains("DB_ENV_MODE=fast"),
        "{env}"
    );
    tiny.run(&[
        "create", "--name", "web", "--link", "db:store", "tiny", "echo", "up",
    ])?;
    let shown = tiny.run(&["inspect", "-f", "{{json .HostConfig.Links}}", "web"])?;
    assert_eq!(shown.stdout, "[\"/db:/web/store\"]\n");
    // It is looked for again at each start.
    tiny.run(&["stop", "-t", "0", "db"])?;
    tiny.run(&["start", "web"])?
        .failed(1, &["container db", "not running"], None);
    tiny.run(&["rm", "db", "web"])?;
    let refused = |args: &[&str], words: &[&str]| -> Tested {
        let args = [&["run", "--rm"], args, &["tiny"]].concat();
        tiny.run(&args)?.failed(125, words, None);
        Ok(())
    };
    refused(&["--link", "db"], &["no such container", "db"])?;
    refused(&["--link", ":x"], &["--link :x", "CONTAINER[:ALIAS]"])?;
    refused(&["--network", "none", "--link", "db"], &["links", "network"])?;
    tiny.nothing_left()
}

fn streams(tiny: &Tiny) -> Tested {
    let run = |flags: &[&str]| {
        let payload = ["tiny", "echo", "out", ",", "err", "errors", ",", "exit", "3"];
        tiny.start(&[&["run", "--rm", "--network", "none"], flags, &payload].concat())
    };
    for (flags, stdout, stderr) in [
        (&["-a", "stdout"][..], "out\n", ""),
        (&["--attach", "STDERR"], "", "errors\n"),
        (&["-a", "stdout", "-a", "stderr"], "out\n", "errors\n"),
        (&["-a", "stdin"], "", ""),
    ] {
        let done = run(flags)?;
        assert_eq!(
            (done.code, &*done.stdout, &*done.stderr),
            (Some(3), stdout, stderr),
            "{flags:?}"
        );
    }
    run(&["-d", "-a", "stdout"])?.failed(125, &["--attach", "--detach"], None);
    // Without a place for shared memory, and with what is said about it.
    let shm = |flags: &[&str]| -> Result<bool, Box<dyn std::error::Error>> {
        let done = tiny.run(
            &[
                &["run", "--rm", "--network", "none"],
                flags,
                &["tiny", "ls", "/dev"],
            ]
            .concat(),
        )?;
        assert_eq!(done.code, Some(0), "{done:?}");
        Ok(done.stdout.lines().any(|name| name == "shm"))
    };
    assert!(shm(&[])? && shm(&["--ipc", "shareable"])?);
    assert!(!shm(&["--ipc", "none"])?);
    tiny.run(&["create", "--name", "noted", "--annotation", "a.b/c=d=e", "tiny"])?;
    let noted = tiny.run(&["inspect", "-f", "{{json .HostConfig.Annotations}}", "noted"])?;
    assert_eq!(noted.stdout, "{\"a.b/c\":\"d=e\"}\n");
    tiny.run(&["rm", "noted"])?;
    tiny.nothing_left()
}

fn foreign(tiny: &Tiny) -> Tested {
    for (flags, words) in [
        (
            &["--runtime", "crun"][..],
            &["--runtime crun", "no other runtime"][..],
        ),
        (
            &["--storage-opt", "size=10G"],
            &["--storage-opt size=10G", "quota", "volume"],
        ),
        (
            &["--storage-opt", "dm.fs=xfs"],
            &["--storage-opt dm.fs=xfs", "no storage drivers"],
        ),
        (
            &["--volume-driver", "nfs"],
            &["--volume-driver nfs", "local alone"],
        ),
        (&["--isolation", "hyperv"], &["--isolation hyperv", "Windows"]),
        (&["--kernel-memory", "1g"], &["--kernel-memory", "--memory"]),
        (&["--use-api-socket"], &["--use-api-socket", "no daemon"]),
        (&["--cpu-count", "2"], &["--cpu-count", "Windows"]),
        (&["--annotation", "x"], &["--annotation x", "NAME=VALUE"]),
        (&["--pid", "none"], &["--pid none", "private"]),
        (&["--cgroupns", "none"], &["--cgroupns none", "private"]),
    ] {
        let done = tiny.run(&[&["run", "--rm"], flags, &["tiny"]].concat())?;
        done.failed(125, words, None);
    }
    // What they ask for is what happens anyway.
    for flags in [
        &["--runtime", "runc"][..],
        &["--runtime=io.containerd.runc.v2", "--volume-driver", "local"],
        &["--isolation", "default", "--disable-content-trust", "-q"],
        &["--disable-content-trust=false", "--cgroupns", "private"],
    ] {
        let done = tiny.start(&[&["run", "--rm", "--network", "none"], flags, &["tiny"]].concat())?;
        assert_eq!(
            (done.code, &*done.stdout, &*done.stderr),
            (Some(0), "hello\n", ""),
            "{flags:?}"
        );
    }
    tiny.nothing_left()
}

fn container_verbs(tiny: &Tiny) -> Tested {
    // As tutorials write them since docker has management commands.
    for verb in [
        "attach", "commit", "cp", "create", "diff", "exec", "export", "inspect", "kill", "logs", "ls",
        "pause", "port", "prune", "rename", "restart", "rm", "run", "start", "stats", "stop", "top",
        "unpause", "update", "wait",
    ] {
        let done = tiny.run(&["container", verb, "--help"])?;
        assert_eq!(
            (done.code, done.stderr.as_str()),
            (Some(0), ""),
            "{verb}: {done:?}"
        );
    }
    let ok = |args: &[&str]| -> Result<String, Box<dyn std::error::Error>> {
        let done = tiny.start(&[&["container"], args].concat())?;
        assert_eq!(done.code, Some(0), "{args:?}: {done:?}");
        Ok(done.stdout.trim_end().to_owned())
    };
    let payload = [
        "--network",
        "none",
        "tiny",
        "write",
        "/made",
        "x",
        ",",
        "echo",
        "up",
        ",",
        "sleep",
        "600",
    ];
    ok(&[&["run", "-d", "--name", "one"], &payload[..]].concat())?;
    ok(&[&["create", "--name", "two"], &payload[..]].concat())?;
    assert_eq!(ok(&["start", "two"])?, "two");
    assert_eq!(ok(&["restart", "-t", "0", "one"])?, "one");
    ok(&["rename", "one", "first"])?;
    let deadline = Instant::now() + SOON * 3;
    while !ok(&["logs", "first"])?.contains("up") {
        assert!(Instant::now() < deadline, "it does not write");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ok(&["ls", "-q"])?.lines().count(), 2);
    assert!(ok(&["export", "first"])?.contains("made"));
    assert_eq!(ok(&["stop", "-t", "0", "first", "two"])?, "first\ntwo");
    assert!(ok(&["diff", "first"])?.contains("A /made"));
    assert_eq!(ok(&["rm", "first", "two"])?, "first\ntwo");
    tiny.run(&["container", "run", "--rm", "--pull", "never", "missing:none"])?
        .failed(125, &["missing:none"], None);
    tiny.nothing_left()
}
