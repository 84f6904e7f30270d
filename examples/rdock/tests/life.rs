//! The verbs and flags of a container's life, on an image that holds one program.

use crate::program::{Tested, needs_root};
use crate::pty::Terminal;
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("create_start_and_start_again", create),
        trial("start_attached_has_output_and_exit_code", start_attached),
        trial("restart_policy_and_health_are_shown", shown),
        trial("pause_rename_update_and_restart", changes),
        trial("attach_shares_output_and_leaves_by_keys", attach),
        trial("flags_that_do_not_fit_are_refused", refused),
        trial("devices_and_limits_are_given_and_shown", limits),
        trial("described_devices_and_gpus_are_given_and_shown", described),
        trial("two_hundred_containers_come_and_go", two_hundred),
    ]
}

const SOON: Duration = Duration::from_secs(20);

/// Runs a command that must succeed; its output without the last newline.
fn ok(tiny: &Tiny, args: &[&str]) -> Result<String, Box<dyn std::error::Error>> {
    let done = tiny.start(args)?;
    if done.code != Some(0) {
        return Err(format!("{args:?}: {done:?}").into());
    }
    Ok(done.stdout.trim_end().to_owned())
}

/// Asks until the answer is right; it follows from an event in another process.
fn until(tiny: &Tiny, args: &[&str], right: impl Fn(&str) -> bool) -> Tested {
    let deadline = Instant::now() + SOON;
    loop {
        let said = ok(tiny, args)?;
        if right(&said) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{args:?} still says {said:?}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn create(tiny: &Tiny) -> Tested {
    let cidfile = tiny.file("id").display().to_string();
    let id = ok(
        tiny,
        &[
            "create",
            "--name",
            "made",
            "--cidfile",
            &cidfile,
            "--network",
            "none",
            "tiny",
            "echo",
            "hello",
            ",",
            "exit",
            "3",
        ],
    )?;
    assert_eq!(std::fs::read_to_string(&cidfile)?, id);
    assert!(ok(tiny, &["ps", "-a"])?.contains("Created"));
    assert_eq!(ok(tiny, &["ps", "-q"])?, "");
    assert_eq!(ok(tiny, &["start", "made"])?, "made");
    assert_eq!(ok(tiny, &["wait", "made"])?, "3");
    assert_eq!(ok(tiny, &["start", "made"])?, "made");
    assert_eq!(ok(tiny, &["wait", "made"])?, "3");
    assert_eq!(ok(tiny, &["logs", "made"])?, "hello\nhello");
    ok(tiny, &["rm", "made"])?;
    tiny.nothing_left()
}

fn start_attached(tiny: &Tiny) -> Tested {
    ok(
        tiny,
        &[
            "create",
            "--name",
            "one",
            "--network",
            "none",
            "tiny",
            "echo",
            "out",
            ",",
            "err",
            "bad",
            ",",
            "exit",
            "5",
        ],
    )?;
    let done = tiny.start(&["start", "-a", "one"])?;
    assert_eq!(
        (done.code, &*done.stdout, &*done.stderr),
        (Some(5), "out\n", "bad\n")
    );
    ok(tiny, &["rm", "one"])?;
    // One that removes itself, also when whoever started it is gone.
    ok(
        tiny,
        &[
            "run",
            "-d",
            "--rm",
            "--name",
            "two",
            "--network",
            "none",
            "tiny",
            "sleep",
            "1",
        ],
    )?;
    until(tiny, &["ps", "-aq"], str::is_empty)?;
    tiny.nothing_left()
}

fn shown(tiny: &Tiny) -> Tested {
    ok(
        tiny,
        &[
            "run",
            "-d",
            "--name",
            "ill",
            "--network",
            "none",
            "--health-cmd",
            "none",
            "--health-interval",
            "50ms",
            "--health-retries",
            "1",
            "--health-timeout",
            "2s",
            "tiny",
            "sleep",
            "60",
        ],
    )?;
    until(tiny, &["ps"], |said| said.contains("(unhealthy)"))?;
    let inspected = ok(tiny, &["inspect", "ill"])?;
    let found: serde_json::Value = serde_json::from_str(&inspected)?;
    assert_eq!(found[0]["State"]["Health"]["Status"], "unhealthy");
    assert!(found[0]["State"]["Health"]["Log"][0]["ExitCode"].as_i64() != Some(0));
    ok(tiny, &["rm", "-f", "ill"])?;
    ok(
        tiny,
        &[
            "run",
            "-d",
            "--name",
            "again",
            "--network",
            "none",
            "--restart",
            "on-failure:2",
            "tiny",
            "exit",
            "6",
        ],
    )?;
    until(tiny, &["ps", "-a"], |said| said.contains("Exited (6)"))?;
    let found: serde_json::Value = serde_json::from_str(&ok(tiny, &["inspect", "again"])?)?;
    assert_eq!(found[0]["RestartCount"], 2);
    assert_eq!(found[0]["HostConfig"]["RestartPolicy"]["Name"], "on-failure");
    assert_eq!(found[0]["HostConfig"]["RestartPolicy"]["MaximumRetryCount"], 2);
    ok(tiny, &["rm", "again"])?;
    tiny.nothing_left()
}

fn changes(tiny: &Tiny) -> Tested {
    needs_root("a control group that can be frozen and limited")?;
    ok(
        tiny,
        &[
            "run",
            "-d",
            "--name",
            "one",
            "--network",
            "none",
            "--label-file",
            &label_file(tiny)?,
            "-l",
            "tier=web",
            "--stop-timeout",
            "0",
            "tiny",
            "echo",
            "up",
            ",",
            "sleep",
            "60",
        ],
    )?;
    let found: serde_json::Value = serde_json::from_str(&ok(tiny, &["inspect", "one"])?)?;
    assert_eq!(found[0]["Config"]["Labels"]["from"], "file");
    assert_eq!(found[0]["Config"]["Labels"]["tier"], "web");
    assert_eq!(ok(tiny, &["pause", "one"])?, "one");
    assert!(ok(tiny, &["ps"])?.contains("(Paused)"));
    tiny.run(&["exec", "one", "/payload", "echo", "x"])?
        .failed(1, &["paused"], None);
    assert_eq!(ok(tiny, &["unpause", "one"])?, "one");
    ok(tiny, &["rename", "one", "other"])?;
    assert_eq!(
        ok(
            tiny,
            &["update", "--memory", "64m", "--restart", "always", "other"]
        )?,
        "other"
    );
    let found: serde_json::Value = serde_json::from_str(&ok(tiny, &["inspect", "other"])?)?;
    assert_eq!(found[0]["Name"], "/other");
    assert_eq!(found[0]["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(found[0]["HostConfig"]["RestartPolicy"]["Name"], "always");
    assert_eq!(ok(tiny, &["restart", "-t", "0", "other"])?, "other");
    until(tiny, &["logs", "other"], |said| said == "up\nup")?;
    assert_eq!(ok(tiny, &["stop", "-s", "KILL", "other"])?, "other");
    assert!(ok(tiny, &["ps", "-a"])?.contains("Exited (137)"));
    ok(tiny, &["rm", "other"])?;
    tiny.nothing_left()
}

fn label_file(tiny: &Tiny) -> Result<String, Box<dyn std::error::Error>> {
    let path = tiny.file("labels");
    std::fs::write(&path, "# a remark\n\nfrom=file\ntier=none\n")?;
    Ok(path.display().to_string())
}

fn attach(tiny: &Tiny) -> Tested {
    ok(
        tiny,
        &[
            "run",
            "-dit",
            "--name",
            "shared",
            "--network",
            "none",
            "tiny",
            "cat",
        ],
    )?;
    let attach = ["attach", "--detach-keys", "ctrl-a,x", "shared"];
    let mut first = Terminal::start(&tiny.command(&attach)?, 24, 80)?;
    let mut second = Terminal::start(&tiny.command(&attach)?, 24, 80)?;
    // Both are connected once both see what one of them types.
    let mut typed = 0;
    while let Err(error) = connected(&mut first, &mut second) {
        typed += 1;
        assert!(typed < 60, "{error}");
    }
    first.send("\u{1}x")?;
    assert_eq!(first.wait(SOON)?.code(), Some(0));
    second.send("still\r")?;
    second.expect("still", SOON)?;
    ok(tiny, &["kill", "shared"])?;
    assert_eq!(second.wait(SOON)?.code(), Some(137));
    tiny.run(&["attach", "shared"])?
        .failed(1, &["stopped container"], None);
    ok(tiny, &["rm", "shared"])?;
    // Without the proxy a signal is this program's own; with it, it is the payload's.
    for (proxy, found) in [("--sig-proxy=false", None), ("--sig-proxy=true", Some(9))] {
        let args = ["run", "-d", "-i", "--name", "plain", "--network", "none", "tiny"];
        ok(tiny, &[&args[..], &["trap", "15", "9", ",", "cat"]].concat())?;
        let mut child = tiny
            .command(&["attach", proxy, "plain"])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // What comes back shows that it is attached, and does with signals what it will do.
        let mut stdin = child.stdin.take().ok_or("no stdin")?;
        stdin.write_all(b"heard\n")?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        assert_eq!(lines.next().transpose()?.as_deref(), Some("heard"));
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::TERM,
        )?;
        assert_eq!(child.wait()?.code(), found, "{proxy}");
        assert_eq!(ok(tiny, &["ps"])?.contains("plain"), found.is_none(), "{proxy}");
        ok(tiny, &["rm", "-f", "plain"])?;
    }
    tiny.nothing_left()
}

/// Types once and waits for both terminals to show it.
fn connected(first: &mut Terminal, second: &mut Terminal) -> Result<(), String> {
    first.send("both\r").map_err(|error| error.to_string())?;
    first.expect("both", Duration::from_secs(1))?;
    second.expect("both", Duration::from_secs(1))
}

fn refused(tiny: &Tiny) -> Tested {
    for (args, words) in [
        (["run", "--rm", "--restart", "always"], ["--restart", "--rm"]),
        (
            ["run", "--restart", "sometimes", "-d"],
            ["sometimes", "restart policy"],
        ),
        (
            ["run", "--health-interval", "soon", "-d"],
            ["--health-interval", "soon"],
        ),
        (
            ["run", "--no-healthcheck", "--health-cmd", "x"],
            ["--no-healthcheck", "--health-"],
        ),
        (
            ["run", "--detach-keys", "ctrl-1", "-it"],
            ["detach keys", "ctrl-1"],
        ),
    ] {
        let done = tiny.run(&[&args[..], &["tiny"]].concat())?;
        // Without a terminal -it is refused first.
        if args[3] != "-it" {
            done.failed(125, &words, None);
        }
    }
    tiny.run(&["start", "none"])?
        .failed(1, &["no such container"], None);
    tiny.run(&["update", "none"])?.failed(1, &["flags"], None);
    tiny.nothing_left()
}

fn limits(tiny: &Tiny) -> Tested {
    let flags = "--network none --memory 64m --memory-swap -1 --memory-reservation 32m --memory-swappiness 10 \
                 --cpu-period 50000 --cpu-quota 25000 --cpuset-cpus 0 --cpuset-mems 0 --pids-limit 50 \
                 --device /dev/null:/dev/other:rw --device /dev/zero --cgroup-parent /rdock-cli-test --cgroupns private \
                 --userns host --domainname example.org --security-opt systempaths=unconfined";
    let mut args = vec!["create", "--name", "limited"];
    args.extend(flags.split_whitespace());
    args.extend([
        "--device-cgroup-rule",
        "c 10:* rm",
        "tiny",
        "echo",
        "up",
        ",",
        "sleep",
        "60",
    ]);
    ok(tiny, &args)?;
    let found: serde_json::Value = serde_json::from_str(&ok(tiny, &["inspect", "limited"])?)?;
    let host = &found[0]["HostConfig"];
    for (key, value) in [
        ("Memory", serde_json::json!(64 << 20)),
        ("MemorySwap", serde_json::json!(-1)),
        ("MemoryReservation", serde_json::json!(32 << 20)),
        ("MemorySwappiness", serde_json::json!(10)),
        ("CpuPeriod", serde_json::json!(50000)),
        ("CpuQuota", serde_json::json!(25000)),
        ("CpusetCpus", serde_json::json!("0")),
        ("CpusetMems", serde_json::json!("0")),
        ("PidsLimit", serde_json::json!(50)),
        ("CgroupParent", serde_json::json!("/rdock-cli-test")),
        ("DeviceCgroupRules", serde_json::json!(["c 10:* rm"])),
        ("SecurityOpt", serde_json::json!(["systempaths=unconfined"])),
        (
            "Devices",
            serde_json::json!([
                {"PathOnHost": "/dev/null", "PathInContainer": "/dev/other", "CgroupPermissions": "rw"},
                {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/zero", "CgroupPermissions": "rwm"},
            ]),
        ),
    ] {
        assert_eq!(host[key], value, "{key}");
    }
    assert_eq!(found[0]["Config"]["Domainname"], "example.org");
    ok(tiny, &["start", "limited"])?;
    until(tiny, &["logs", "limited"], |said| said == "up")?;
    // What a machine cannot change is refused, and said.
    let update = "update --pids-limit -1 --cpu-quota -1 limited";
    let done = tiny.run(&update.split(' ').collect::<Vec<_>>())?;
    if done.code == Some(0) {
        let found: serde_json::Value = serde_json::from_str(&ok(tiny, &["inspect", "limited"])?)?;
        assert_eq!(found[0]["HostConfig"]["PidsLimit"], -1);
        assert_eq!(found[0]["HostConfig"]["CpuQuota"], -1);
    } else {
        done.failed(1, &["cannot be set"], None);
    }
    ok(tiny, &["rm", "-f", "limited"])?;
    for (flags, words) in [
        ("--device fuse", "absolute path"),
        ("--device /dev/null:/dev/x:rwx", "letters are r"),
        ("--device-cgroup-rule x", "KIND MAJOR:MINOR"),
        ("--device-read-bps /dev/sda", "PATH:NUMBER"),
        ("--device-write-iops /dev/sda:1k", "operations per second"),
        ("--blkio-weight 5", "from 10 to 1000"),
        ("--blkio-weight-device /dev/sda:5", "from 10 to 1000"),
        ("--cgroup-parent ../x", "cgroup_parent"),
        ("--cpus 0.5 --cpu-quota 5000", "cpus says how much"),
        ("--memory-swappiness 101", "from 0 to 100"),
        ("--userns keep-id", "host alone"),
    ] {
        let mut args = vec!["run", "--rm", "--network", "none"];
        args.extend(flags.split(' '));
        args.extend(["tiny", "echo", "up"]);
        tiny.run(&args)?.failed(125, &[words], None);
    }
    tiny.run(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--device",
        "/dev/none-at-all",
        "tiny",
    ])?
    .failed(125, &["/dev/none-at-all"], None);
    tiny.nothing_left()
}

fn described(tiny: &Tiny) -> Tested {
    let directory = tiny.file("cdi");
    std::fs::create_dir(&directory)?;
    std::fs::write(
        directory.join("gpu.yaml"),
        "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits: {env: [FIRST=yes]}\n\
         - name: \"1\"\n  containerEdits: {env: [SECOND=yes]}\n",
    )?;
    let directory = directory.display().to_string();
    let run = ["run", "--rm", "--network", "none", "--cdi-spec-dir", &directory];
    for (flags, has) in [
        (&["--device", "nvidia.com/gpu=1"][..], [false, true]),
        (&["--gpus", "all"], [true, true]),
        (&["--gpus", "1"], [true, false]),
        (&["--gpus", "\"device=0,1\""], [true, true]),
        (&["--gpus", "device=1"], [false, true]),
        // What images of CUDA come with asks for nothing.
        (&["--env", "NVIDIA_VISIBLE_DEVICES=all"], [false, false]),
    ] {
        let said = ok(tiny, &[&run[..], flags, &["tiny", "env"]].concat())?;
        let seen = ["FIRST=yes", "SECOND=yes"].map(|variable| said.contains(variable));
        assert_eq!(seen, has, "{flags:?}: {said}");
    }
    let create = [
        "create",
        "--name",
        "described",
        "--cdi-spec-dir",
        &directory,
        "--device",
        "nvidia.com/gpu=1",
        "--gpus",
        "device=0,\"capabilities=compute,utility\"",
        "tiny",
    ];
    ok(tiny, &create)?;
    let found: serde_json::Value = serde_json::from_str(&ok(tiny, &["inspect", "described"])?)?;
    assert_eq!(
        found[0]["HostConfig"]["DeviceRequests"],
        serde_json::json!([
            {"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=1"], "Capabilities": [], "Options": {}},
            {"Driver": "", "Count": 0, "DeviceIDs": ["0"], "Capabilities": [["gpu", "compute", "utility"]],
             "Options": {}},
        ])
    );
    ok(tiny, &["rm", "described"])?;
    for (flags, words) in [
        (
            &["--gpus", "7"][..],
            "no such GPU: 2; this host has nvidia.com/gpu=0, 1",
        ),
        (
            &["--gpus", "device=x"],
            "no such GPU: x; this host has nvidia.com/gpu=0, 1",
        ),
        (&["--gpus", "many"], "it is all, a number"),
        (&["--gpus", "device=0,1"], "stands in double quotes"),
        (
            &["--gpus", "all,capabilities=tpu"],
            "could not select device driver \"\" with capabilities: [[gpu tpu]]",
        ),
        (
            &["--device", "nvidia.com/gpu=7"],
            "of nvidia.com/gpu there are 0, 1",
        ),
        (&["--device", "nvidia.com/gpu="], "the name has letters"),
    ] {
        let done = tiny.run(&[&run[..], flags, &["tiny"]].concat())?;
        assert_eq!(done.code, Some(125), "{flags:?}: {done:?}");
        assert!(done.stderr.contains(words), "{flags:?}: {done:?}");
    }
    tiny.nothing_left()
}

fn two_hundred(tiny: &Tiny) -> Tested {
    ok(tiny, &["run", "--rm", "--network", "none", "tiny"])?;
    std::thread::scope(|scope| -> Result<(), String> {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                scope.spawn(move || {
                    for number in 0..50 {
                        let name = format!("c-{worker}-{number}");
                        let run = [
                            "run",
                            "-d",
                            "--name",
                            &name,
                            "--network",
                            "none",
                            "tiny",
                            "sleep",
                            "60",
                        ];
                        ok(tiny, &run).map_err(|error| error.to_string())?;
                        if number % 2 == 1 {
                            ok(tiny, &["rm", "-f", &name]).map_err(|error| error.to_string())?;
                        }
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| "a worker panicked".to_owned())??;
        }
        Ok(())
    })?;
    let left = ok(tiny, &["ps", "-q"])?;
    let left: Vec<&str> = left.split_whitespace().collect();
    assert_eq!(left.len(), 100);
    ok(tiny, &[&["rm", "-f"], &left[..]].concat())?;
    tiny.nothing_left()
}
