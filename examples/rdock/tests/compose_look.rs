//! Verbs of `compose` that show what there is: logs, ps, ls, images, port, top, events, stats, volumes, cp,
//! attach, commit, export.

use crate::compose_project::{Project, Voice};
use crate::program::Tested;
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("compose_logs_are_those_that_were_asked_for", logs),
        trial("compose_logs_follow_what_is_said_and_started", follow),
        trial("compose_ps_and_ls_list_what_was_asked_for", lists),
        trial(
            "compose_port_top_images_stats_and_volumes_show_containers",
            details,
        ),
        trial("compose_events_tell_what_happens", events),
        trial("compose_cp_copies_in_and_out", cp),
        trial("compose_attach_commit_and_export_reach_containers", reach),
    ]
}

fn logs(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  one: {image: tiny, command: [echo, a, ",", echo, b, ",", err, c]}
  two: {image: tiny, command: [echo, d]}
  dumb: {image: tiny, command: [echo, unheard], logging: {driver: none}}
"#,
    )?;
    shop.ok(&["up", "-d", "one"])?;
    tiny.run(&["wait", "shop-one-1"])?;
    shop.ok(&["up", "-d", "--scale", "two=2", "two", "dumb"])?;
    tiny.run(&["wait", "shop-two-1", "shop-two-2", "shop-dumb-1"])?;
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let all = shop.run(&["logs"])?;
    assert!(
        all.stderr.contains("dumb-1"),
        "one that keeps no log is told: {all:?}"
    );
    assert_eq!(
        sorted(&all.stdout),
        [
            "one-1  | a",
            "one-1  | b",
            "one-1  | c",
            "two-1  | d",
            "two-2  | d"
        ]
    );
    assert!(all.stdout.starts_with("one-1  | "), "the oldest first: {all:?}");
    let printed: [(&[&str], &str); 8] = [
        (&["two", "--index", "2"], "two-2  | d\n"),
        (&["--index=1", "two"], "two-1  | d\n"),
        (&["--no-log-prefix", "--index=1", "two"], "d\n"),
        (&["-n", "1", "--no-log-prefix", "--index=1", "two"], "d\n"),
        (&["--tail", "0", "two"], ""),
        (&["--tail=all", "--index=2", "two"], "two-2  | d\n"),
        (&["--since", "2100-01-01", "two"], ""),
        (&["--until", "10m", "two"], ""),
    ];
    for (words, expected) in printed {
        let words: Vec<&str> = ["logs"].iter().chain(words).copied().collect();
        assert_eq!(shop.ok(&words)?, expected, "{words:?}");
    }
    assert_eq!(shop.ok(&["logs", "--tail", "1", "one"])?.lines().count(), 1);
    assert_eq!(shop.ok(&["logs", "--since", "10m", "one"])?.lines().count(), 3);
    // A time that a line says is one that can be asked for.
    let stamped = shop.ok(&["logs", "-t", "--no-log-prefix", "one"])?;
    let times: Vec<&str> = stamped
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let since = shop.ok(&[
        "logs",
        "--since",
        times[times.len() - 1],
        "--no-log-prefix",
        "one",
    ])?;
    assert!(!since.is_empty() && since.lines().count() <= 3, "{since}");
    shop.fails(
        &["logs", "--tail", "x"],
        1,
        &["--tail x: expected a number or all"],
    )?;
    shop.fails(&["logs", "--since", "yesterday"], 1, &["yesterday"])?;
    shop.fails(&["logs", "nothing"], 1, &["no such service: nothing"])
}

fn follow(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  one: {image: tiny, command: [trap, "15", "0", ",", echo, hello one, ",", sleep, "100"]}
  two: {image: tiny, command: [trap, "15", "0", ",", echo, hello two, ",", sleep, "100"]}
"#,
    )?;
    shop.ok(&["up", "-d", "one"])?;
    let mut all = shop.listen(&["logs", "-f"])?;
    all.until("one-1  | hello one")?;
    let mut only = shop.listen(&["logs", "--follow", "one"])?;
    only.until("hello one")?;
    shop.ok(&["up", "-d"])?;
    all.until("two-1  | hello two")?;
    shop.ok(&["stop", "-t", "5", "one"])?;
    let (code, said) = only.end()?;
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("two"), "{said}");
    // It was said before that it ended; the other one goes on.
    shop.ok(&["start", "one"])?;
    all.until("one-1  | hello one")?;
    shop.ok(&["stop", "-t", "5"])?;
    let (code, said) = all.end()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("hello one").count(), 2, "{said}");
    assert_eq!(said.matches("hello two").count(), 1, "{said}");
    Ok(())
}

fn lists(tiny: &Tiny) -> Tested {
    let file = r#"
services:
  one: {image: tiny, command: [trap, "15", "0", ",", echo, a rather long command, ",", sleep, "100"], ports: ["127.0.0.1::8080"]}
  two: {image: tiny, command: [exit, "3"]}
  gone: {image: tiny, command: [trap, "15", "0", ",", sleep, "100"]}
"#;
    let shop = Project::new(tiny, file)?;
    shop.ok(&["up", "-d"])?;
    tiny.run(&["wait", "shop-two-1"])?;
    shop.ok(&["run", "-d", "--name", "once", "one", "sleep", "100"])?;
    let without = file
        .lines()
        .filter(|line| !line.contains("gone:"))
        .collect::<Vec<_>>()
        .join("\n");
    shop.write("compose.yaml", &format!("name: shop\n{without}\n"))?;
    let names: [(&[&str], &str); 12] = [
        (&[], "shop-gone-1 shop-one-1"),
        (&["-a"], "once shop-gone-1 shop-one-1 shop-two-1"),
        (&["--orphans=false"], "shop-one-1"),
        (&["--status", "exited"], "shop-two-1"),
        (
            &["--status", "running", "--status", "exited"],
            "once shop-gone-1 shop-one-1 shop-two-1",
        ),
        (&["--filter", "status=exited"], "shop-two-1"),
        (&["--filter", "status=paused"], ""),
        (&["one"], "shop-one-1"),
        (&["-a", "two"], "shop-two-1"),
        (&["two"], ""),
        (&["gone"], "shop-gone-1"),
        (&["-a", "one"], "once shop-one-1"),
    ];
    for (words, expected) in names {
        let words: Vec<&str> = ["ps", "--format", "{{.Name}}"]
            .iter()
            .chain(words)
            .copied()
            .collect();
        let shown = shop.ok(&words)?;
        let mut shown: Vec<&str> = shown.lines().collect();
        shown.sort_unstable();
        assert_eq!(shown.join(" "), expected, "{words:?}");
    }
    assert_eq!(shop.ok(&["ps", "--services"])?, "gone\none\n");
    assert_eq!(shop.ok(&["ps", "-q", "one"])?.trim(), shop.id("shop-one-1")?);
    let table = shop.ok(&["ps"])?;
    let heads: Vec<&str> = table
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(
        heads,
        [
            "NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"
        ]
    );
    assert!(table.contains('…') && table.contains("->8080/tcp"), "{table}");
    assert!(shop.ok(&["ps", "--no-trunc"])?.contains("a rather long command"));
    assert_eq!(
        shop.ok(&["ps", "--format", "table {{.Service}}\t{{.State}}", "one"])?,
        "SERVICE   STATE\none       running\n"
    );
    let json = shop.ok(&["ps", "-a", "--format", "json", "two"])?;
    let json: Value = serde_json::from_str(&json)?;
    assert_eq!(
        (&json["Service"], &json["State"], &json["ExitCode"]),
        (&"two".into(), &"exited".into(), &3.into())
    );
    let json: Value = serde_json::from_str(&shop.ok(&["ps", "--format", "json", "one"])?)?;
    assert_eq!(
        (&json["Publishers"][0]["TargetPort"], &json["Project"]),
        (&8080.into(), &"shop".into())
    );
    shop.fails(&["ps", "--status", "asleep"], 1, &["unknown state \"asleep\""])?;
    shop.fails(&["ps", "--filter", "name=x"], 1, &["unknown filter"])?;
    shop.fails(&["ps", "nothing"], 1, &["no such service: nothing"])?;

    let other = tempfile::tempdir()?;
    std::fs::write(
        other.path().join("compose.yaml"),
        "services: {x: {image: tiny, command: [exit, '0']}}",
    )?;
    let up = shop
        .command_in(other.path(), &["-p", "other", "up", "-d"])?
        .output()?;
    assert!(up.status.success(), "{up:?}");
    tiny.run(&["wait", "other-x-1"])?;
    let ls = shop.ok(&["ls"])?;
    let file = shop.path("compose.yaml");
    let expected = format!(
        "NAME      STATUS      CONFIG FILES\nshop      exited(1), running(3)   {}\n",
        file.display()
    );
    assert_eq!(
        ls.split_whitespace().collect::<Vec<_>>(),
        expected.split_whitespace().collect::<Vec<_>>()
    );
    assert_eq!(shop.ok(&["ls", "-q"])?, "shop\n");
    assert_eq!(shop.ok(&["ls", "-a", "-q"])?, "other\nshop\n");
    assert_eq!(shop.ok(&["ls", "-aq", "--filter", "name=oth"])?, "other\n");
    let json: Value = serde_json::from_str(&shop.ok(&["ls", "-a", "--format", "json"])?)?;
    assert_eq!(
        (&json[0]["Name"], &json[0]["Status"]),
        (&"other".into(), &"exited(1)".into())
    );
    assert_eq!(json[1]["ConfigFiles"], file.display().to_string());
    shop.fails(&["ls", "--filter", "status=x"], 1, &["unknown filter"])?;
    let down = shop
        .command_in(other.path(), &["-p", "other", "down"])?
        .output()?;
    assert!(down.status.success(), "{down:?}");
    Ok(())
}

fn details(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  web:
    image: tiny
    command: [trap, "15", "0", ",", sleep, "100"]
    ports: ["127.0.0.1::8080", "127.0.0.1::53/udp"]
    volumes: [data:/data]
    scale: 2
  idle: {image: tiny, command: [sleep, "100"], volumes: [other:/x]}
volumes: {data: {}, other: {}}
"#,
    )?;
    shop.ok(&["up", "-d"])?;
    let [first, second] = [
        shop.ok(&["port", "web", "8080"])?,
        shop.ok(&["port", "--index", "2", "web", "8080"])?,
    ];
    assert!(
        first.starts_with("127.0.0.1:") && first != second,
        "{first} {second}"
    );
    assert_eq!(shop.ok(&["port", "--index=1", "web", "8080"])?, first);
    let udp = shop.ok(&["port", "--protocol", "udp", "web", "53"])?;
    assert!(udp.starts_with("127.0.0.1:"), "{udp}");
    shop.fails(
        &["port", "web", "53"],
        1,
        &["no port 53/tcp for container shop-web-1"],
    )?;
    shop.fails(&["port", "--protocol", "sctp", "web", "53"], 1, &["tcp or udp"])?;
    shop.fails(
        &["port", "--index", "3", "web", "8080"],
        1,
        &["not running container #3"],
    )?;

    let top = shop.ok(&["top"])?;
    let whose: Vec<Vec<&str>> = top
        .lines()
        .map(|line| line.split_whitespace().take(3).collect())
        .collect();
    assert_eq!(whose[0], ["SERVICE", "#", "UID"], "{top}");
    for (service, number) in [("web", "1"), ("web", "2"), ("idle", "1")] {
        assert!(whose.iter().any(|row| row[..2] == [service, number]), "{top}");
    }
    assert!(!shop.ok(&["top", "idle"])?.contains("web"));

    let images = shop.ok(&["images", "web"])?;
    let rows: Vec<Vec<&str>> = images
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 3, "{images}");
    assert_eq!(rows[1][..3], ["shop-web-1", "tiny", "latest"], "{images}");
    let id = shop.ok(&["images", "-q"])?;
    assert_eq!((id.lines().count(), id.trim().len()), (1, 64), "{id}");
    let json: Value = serde_json::from_str(&shop.ok(&["images", "--format", "json", "idle"])?)?;
    assert_eq!(json[0]["ContainerName"], "shop-idle-1");
    assert_eq!(json[0]["ID"], format!("sha256:{}", id.trim()));
    shop.fails(&["images", "--format", "xml"], 1, &["table or json"])?;

    let stats = shop.ok(&["stats", "--no-stream", "--format", "{{.Name}}"])?;
    let mut names: Vec<&str> = stats.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["shop-idle-1", "shop-web-1", "shop-web-2"]);
    assert_eq!(
        shop.ok(&["stats", "--no-stream", "--format", "{{.Name}}", "idle"])?,
        "shop-idle-1\n"
    );

    assert_eq!(shop.ok(&["volumes", "-q"])?, "shop_data\nshop_other\n");
    assert_eq!(shop.ok(&["volumes", "-q", "web"])?, "shop_data\n");
    assert_eq!(
        shop.ok(&["volumes", "idle"])?,
        "DRIVER    VOLUME NAME\nlocal     shop_other\n"
    );
    let json: Value = serde_json::from_str(&shop.ok(&["volumes", "--format", "json", "web"])?)?;
    assert_eq!(json["Name"], "shop_data");
    for verb in ["top", "images", "stats", "volumes"] {
        shop.fails(&[verb, "nothing"], 1, &["no such service: nothing"])?;
    }
    Ok(())
}

fn events(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  one: {image: tiny, command: [trap, "15", "0", ",", sleep, "100"]}
  two: {image: tiny, command: [trap, "15", "0", ",", sleep, "100"]}
"#,
    )?;
    tiny.run(&["run", "--rm", "tiny"])?;
    shop.ok(&["up", "-d"])?;
    // Everything that is recorded until now, and then the end.
    let all = shop.ok(&["events", "--json", "--since", "10m", "--until", "0s"])?;
    let all: Vec<Value> = all.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let told = |service: &str, action: &str| {
        all.iter()
            .any(|event| event["service"] == service && event["action"] == action)
    };
    assert!(
        told("one", "create") && told("one", "start") && told("two", "start"),
        "{all:#?}"
    );
    assert!(
        all.iter().all(
            |event| event["type"] == "container" && event["id"].as_str().is_some_and(|id| id.len() == 64)
        )
    );
    assert_eq!(all[0]["attributes"]["image"], "tiny", "{:#?}", all[0]);
    assert!(all[0]["attributes"].get("com.docker.compose.project").is_none());
    let one = shop.ok(&["events", "--json", "--since", "10m", "--until", "0s", "one"])?;
    assert!(one.lines().count() >= 2 && !one.contains("\"two\""), "{one}");
    // Live.
    let mut live = shop.listen(&["events", "--since", "10m"])?;
    live.until("start")?;
    shop.ok(&["stop", "-t", "5", "two"])?;
    let line = live.until(" container stop ")?;
    assert!(
        line.contains("name=shop-two-1") && line.contains("image=tiny"),
        "{line}"
    );
    shop.fails(&["events", "--since", "yesterday"], 1, &["yesterday"])
}

fn cp(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        "services:\n  web: {image: tiny, command: [trap, '15', '0', ',', sleep, '100'], scale: 2}\n",
    )?;
    shop.ok(&["up", "-d"])?;
    shop.write("file", "from the host\n")?;
    let read =
        |index: &str, path: &str| shop.run(&["exec", "-T", "--index", index, "web", "/payload", "cat", path]);
    shop.ok(&["cp", "--index", "2", "file", "web:/data/second"])?;
    assert_eq!(read("2", "/data/second")?.stdout, "from the host\n");
    assert_eq!(read("1", "/data/second")?.code, Some(1));
    // To every container, from the first one.
    shop.ok(&["cp", "file", "web:/data/all"])?;
    assert_eq!(
        (read("1", "/data/all")?.stdout, read("2", "/data/all")?.stdout),
        ("from the host\n".into(), "from the host\n".into())
    );
    shop.ok(&["cp", "web:/data/file", "out"])?;
    assert_eq!(std::fs::read_to_string(shop.path("out"))?, "from the image\n");
    shop.ok(&["cp", "--index=2", "web:/data/second", "./second"])?;
    assert_eq!(std::fs::read_to_string(shop.path("second"))?, "from the host\n");
    shop.fails(&["cp", "web:/data/second", "none"], 1, &["/data/second"])?;
    // Links and owners.
    std::os::unix::fs::symlink("file", shop.path("link"))?;
    shop.ok(&["cp", "link", "web:/tmp/link"])?;
    shop.ok(&["cp", "-L", "link", "web:/tmp/followed"])?;
    shop.ok(&["cp", "--index=1", "web:/tmp/link", "back"])?;
    assert!(std::fs::symlink_metadata(shop.path("back"))?.is_symlink());
    assert_eq!(read("1", "/tmp/followed")?.stdout, "from the host\n");
    shop.ok(&["cp", "-a", "web:/data", "tree"])?;
    assert_eq!(std::fs::read_to_string(shop.path("tree/all"))?, "from the host\n");
    // Archives.
    let archive = shop.command(&["cp", "web:/data/file", "-"])?.output()?;
    assert!(archive.status.success() && archive.stdout.len() >= 1024);
    let mut command = shop.command(&["cp", "--index=2", "-", "web:/tmp"])?;
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no stdin")?.write_all(&archive.stdout)?;
    assert!(child.wait()?.success());
    assert_eq!(read("2", "/tmp/file")?.stdout, "from the image\n");
    shop.fails(&["cp", "-", "web:/tmp"], 1, &["web has 2 containers", "--index"])?;
    shop.fails(&["cp", "web:/a", "web:/b"], 1, &["between services"])?;
    shop.fails(&["cp", "file", "out"], 1, &["SERVICE:PATH"])?;
    shop.fails(&["cp", "file", "nothing:/x"], 1, &["no such service: nothing"])?;
    shop.fails(
        &["cp", "--index", "3", "file", "web:/x"],
        1,
        &["no container found for service \"web\""],
    )?;
    // One that does not run has files all the same.
    shop.ok(&["stop", "-t", "5"])?;
    shop.ok(&["cp", "file", "web:/data/stopped"])?;
    shop.ok(&["cp", "web:/data/stopped", "stopped"])?;
    Ok(())
}

fn reach(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        "services:\n  web: {image: tiny, command: [trap, '15', '3', ',', write, /mark, x, ',', cat], stdin_open: true}\n",
    )?;
    shop.ok(&["up", "-d"])?;
    let id = shop.ok(&["commit", "-m", "kept", "-c", "LABEL a=b", "web", "kept:1"])?;
    assert!(id.starts_with("sha256:"), "{id}");
    let made = tiny.run(&["run", "--rm", "kept:1", "cat", "/mark"])?;
    assert_eq!(made.stdout, "x\n", "{made:?}");
    shop.ok(&["export", "-o", "files.tar", "web"])?;
    let archive = shop.command(&["export", "web"])?.output()?;
    assert!(archive.status.success());
    assert_eq!(
        std::fs::metadata(shop.path("files.tar"))?.len(),
        archive.stdout.len() as u64
    );
    // What is typed reaches it, and so do signals; its end is that of the program that is attached.
    let mut command = shop.command(&["attach", "--index", "1", "web"])?;
    command.stdin(Stdio::piped());
    let mut attached = Voice::of(command)?;
    attached.say("typed\n")?;
    attached.until("typed")?;
    attached.signal(rustix::process::Signal::TERM)?;
    let (code, said) = attached.end()?;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("payload: signal 15"), "{said}");
    shop.fails(&["attach", "web"], 1, &["service \"web\" is not running"])?;
    tiny.run(&["rmi", "kept:1"])?;
    Ok(())
}
