//! `compose run` and `exec`.

use crate::compose_project::{PAIR, Project, SOON};
use crate::program::{Tested, needs_root};
use crate::pty::Terminal;
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use std::io::Write;
use std::process::Stdio;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("compose_run_does_what_its_flags_say", run),
        trial(
            "compose_run_starts_what_is_needed_and_nothing_else",
            run_dependencies,
        ),
        trial("compose_run_and_exec_on_a_terminal", terminal),
        trial("compose_exec_does_what_its_flags_say", exec),
    ]
}

fn run(tiny: &Tiny) -> Tested {
    needs_root("users of the image")?;
    let shop = Project::new(
        tiny,
        r#"
services:
  tool:
    image: tiny
    command: [echo, from the file]
    environment: {KEPT: file, GIVEN: file}
    labels: {kept: "yes"}
    ports: ["127.0.0.1::8080"]
    volumes: [data:/mounted]
    restart: always
volumes: {data: {}}
"#,
    )?;
    shop.write("variables", "FROM_FILE=read\n")?;
    let printed: [(&[&str], i32, &str); 9] = [
        (&["tool"], 0, "from the file\n"),
        (&["tool", "echo", "a", "b"], 0, "a b\n"),
        (&["tool", "exit", "4"], 4, ""),
        (
            &[
                "-e",
                "GIVEN=flag",
                "--env-from-file",
                "variables",
                "tool",
                "echo",
                "$KEPT",
                "$GIVEN",
                "$FROM_FILE",
            ],
            0,
            "file flag read\n",
        ),
        (
            &["-u", "guest", "tool", "id"],
            0,
            "uid=1000 gid=1000 groups=1000,2000\n",
        ),
        (&["-w", "/data", "tool", "pwd"], 0, "/data\n"),
        (
            &["--entrypoint", "/payload echo 'a  b' \"c d\"", "tool"],
            0,
            "a  b c d\n",
        ),
        (&["--entrypoint", "/payload echo", "tool", "x"], 0, "x\n"),
        (
            &["-q", "-v", "./variables:/file:ro", "tool", "cat", "/file"],
            0,
            "FROM_FILE=read\n",
        ),
    ];
    for (words, code, stdout) in printed {
        let all: Vec<&str> = ["run", "--rm"].iter().chain(words).copied().collect();
        let done = shop.run(&all)?;
        assert_eq!(
            (done.code, &*done.stdout),
            (Some(code), stdout),
            "{words:?}: {done:?}"
        );
    }
    assert_eq!(shop.states()?, [""; 0], "all had --rm");
    assert!(
        !shop
            .run(&["run", "--rm", "-q", "tool"])?
            .stderr
            .contains("Container")
    );
    shop.fails(
        &["run", "--entrypoint", "a 'b", "tool"],
        1,
        &["--entrypoint", "has no end"],
    )?;

    // What the container is made of.
    let id = shop.ok(&[
        "run",
        "-d",
        "--name",
        "mine",
        "-l",
        "added=1",
        "-p",
        "127.0.0.1::9000",
        "--cap-add",
        "NET_ADMIN",
        "--cap-drop",
        "CHOWN",
        "--use-aliases",
        "tool",
        "trap",
        "15",
        "0",
        ",",
        "sleep",
        "100",
    ])?;
    assert_eq!(id.trim(), shop.id("mine")?);
    let shown = tiny.run(&["inspect", "mine"])?.stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let host = &shown[0]["HostConfig"];
    assert_eq!(host["CapAdd"][0], "NET_ADMIN", "{host}");
    assert_eq!(host["CapDrop"][0], "CHOWN", "{host}");
    assert_eq!(host["RestartPolicy"]["Name"], "no", "{host}");
    let labels = &shown[0]["Config"]["Labels"];
    assert_eq!(labels["added"], "1");
    assert_eq!(labels["kept"], "yes");
    assert_eq!(labels["com.docker.compose.oneoff"], "True");
    let aliases = |id: &str| -> Result<String, Box<dyn std::error::Error>> {
        let shown: serde_json::Value = serde_json::from_str(&tiny.run(&["inspect", id])?.stdout)?;
        Ok(shown[0]["NetworkSettings"]["Networks"]["shop_default"]["Aliases"].to_string())
    };
    assert!(aliases("mine")?.contains("\"tool\""), "{}", aliases("mine")?);
    let ports = tiny.run(&["port", "mine"])?.stdout;
    assert!(ports.starts_with("9000/tcp -> 127.0.0.1:"), "{ports}");
    assert_eq!(shop.states()?, ["mine running"]);
    assert_eq!(shop.ok(&["ps", "-q"])?, "", "ps without -a shows none of run");
    tiny.run(&["rm", "-f", "mine"])?;
    let id = shop.ok(&["run", "-d", "-P", "tool", "sleep", "100"])?;
    let ports = tiny.run(&["port", id.trim()])?.stdout;
    assert!(ports.starts_with("8080/tcp -> 127.0.0.1:"), "{ports}");
    assert!(
        !aliases(id.trim())?.contains("\"tool\""),
        "{}",
        aliases(id.trim())?
    );
    let states = shop.states()?;
    assert!(
        states[0].starts_with("shop-tool-run-") && states[0].ends_with(" running"),
        "{states:?}"
    );
    tiny.run(&["rm", "-f", id.trim()])?;

    // Its input is passed on, unless it is told not to be.
    for (flag, expected) in [("-T", "typed\n"), ("--interactive=false", "")] {
        let mut command = shop.command(&["run", "--rm", flag, "tool", "cat"])?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        // One that does not listen may have ended.
        child.stdin.take().ok_or("no stdin")?.write_all(b"typed\n").ok();
        let output = child.wait_with_output()?;
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{flag}");
    }
    shop.fails(&["run", "nothing"], 1, &["no such service: nothing"])
}

fn run_dependencies(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        &format!(
            "{PAIR}  unused: {{image: tiny, command: [sleep, '100']}}\n  tool: {{image: tiny, command: [echo, done], depends_on: [web], profiles: [tools]}}\n"
        ),
    )?;
    assert_eq!(shop.ok(&["run", "--rm", "--no-deps", "tool"])?, "done\n");
    assert_eq!(shop.states()?, [""; 0]);
    assert_eq!(shop.ok(&["run", "--rm", "tool"])?, "done\n");
    assert_eq!(shop.states()?, ["shop-db-1 running", "shop-web-1 running"]);
    let before = shop.id("shop-db-1")?;
    assert_eq!(shop.ok(&["run", "--rm", "tool"])?, "done\n");
    assert_eq!(shop.id("shop-db-1")?, before);
    Ok(())
}

fn terminal(tiny: &Tiny) -> Tested {
    let shop = Project::new(tiny, PAIR)?;
    shop.ok(&["up", "-d"])?;
    let file = shop.path("compose.yaml");
    let file = file.to_string_lossy();
    for (words, seen) in [
        (&["run", "--rm", "--no-deps", "web", "size"][..], Some("33 99")),
        (&["run", "-it", "--rm", "--no-deps", "web", "size"], Some("33 99")),
        (&["run", "-T", "--rm", "--no-deps", "web", "size"], None),
        (&["exec", "web", "/payload", "size"], Some("33 99")),
        (&["exec", "-it", "web", "/payload", "size"], Some("33 99")),
        (&["exec", "-T", "web", "/payload", "size"], None),
    ] {
        let all: Vec<&str> = ["-f", &file].iter().chain(words).copied().collect();
        let mut screen = Terminal::start(&shop.command(&all)?, 33, 99)?;
        screen.expect(seen.unwrap_or("no terminal for size"), SOON)?;
        let code = screen.wait(SOON)?.code();
        assert_eq!(code, Some(i32::from(seen.is_none())), "{words:?}");
    }
    Ok(())
}

fn exec(tiny: &Tiny) -> Tested {
    needs_root("users of the image")?;
    let shop = Project::new(tiny, PAIR)?;
    shop.ok(&["up", "-d", "--scale", "web=2"])?;
    let printed: [(&[&str], i32, &str); 6] = [
        (&["web", "/payload", "echo", "-n"], 0, "-n\n"),
        (&["web", "/payload", "exit", "5"], 5, ""),
        (
            &["-e", "GIVEN=flag", "web", "/payload", "echo", "$GIVEN"],
            0,
            "flag\n",
        ),
        (
            &["-u", "guest", "web", "/payload", "id"],
            0,
            "uid=1000 gid=1000 groups=1000,2000\n",
        ),
        (&["-w", "/data", "web", "/payload", "pwd"], 0, "/data\n"),
        (
            &["--index", "2", "web", "/payload", "write", "/mark", "second"],
            0,
            "",
        ),
    ];
    for (words, code, stdout) in printed {
        let all: Vec<&str> = ["exec"].iter().chain(words).copied().collect();
        let done = shop.run(&all)?;
        assert_eq!(
            (done.code, &*done.stdout),
            (Some(code), stdout),
            "{words:?}: {done:?}"
        );
    }
    let second = shop.ok(&["exec", "--index=2", "web", "/payload", "cat", "/mark"])?;
    assert_eq!(second, "second\n");
    shop.fails(
        &["exec", "--index=1", "web", "/payload", "cat", "/mark"],
        1,
        &["cannot open"],
    )?;
    shop.fails(
        &["exec", "--index=3", "web", "/payload"],
        1,
        &["service \"web\" is not running container #3"],
    )?;
    let caps = |words: &[&str]| -> Result<String, Box<dyn std::error::Error>> {
        let status = shop.ok(words)?;
        let line = status.lines().find(|line| line.starts_with("CapEff:"));
        Ok(line.unwrap_or_default().to_owned())
    };
    let usual = caps(&["exec", "db", "/payload", "cat", "/proc/self/status"])?;
    let all = caps(&[
        "exec",
        "--privileged",
        "db",
        "/payload",
        "cat",
        "/proc/self/status",
    ])?;
    assert!(!usual.is_empty() && usual != all, "{usual} {all}");
    // In the background; its input is passed on in the foreground.
    shop.ok(&[
        "exec", "-d", "db", "/payload", "write", "/made", "later", ",", "sleep", "100",
    ])?;
    let mut command = shop.command(&["exec", "-T", "db", "/payload", "cat"])?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no stdin")?.write_all(b"typed\n")?;
    assert_eq!(child.wait_with_output()?.stdout, b"typed\n");
    let top = shop.ok(&["top", "db"])?;
    assert!(
        top.starts_with("SERVICE   #  ") && top.contains("/payload write /made later"),
        "{top}"
    );
    shop.ok(&["stop", "-t", "5", "db"])?;
    shop.fails(&["exec", "db", "/payload"], 1, &["service \"db\" is not running"])?;
    shop.fails(&["exec", "nothing", "/payload"], 1, &["no such service: nothing"])
}
