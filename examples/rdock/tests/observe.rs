//! What can be seen of containers: events and logs.

use crate::program::Tested;
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use std::io::BufRead;
use std::process::Stdio;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("events_are_dockers_lines_and_objects", events),
        trial("events_stream_what_other_commands_do", stream),
        trial("log_options_limit_what_is_kept", logs),
        trial("ps_has_dockers_filters_and_formats", ps),
        trial("inspect_fills_templates_in", inspect),
        trial("top_and_stats_show_running_containers", usage),
        trial("prune_and_df_know_what_nothing_uses", prune),
    ]
}

fn events(tiny: &Tiny) -> Tested {
    tiny.start(&[
        "run",
        "--rm",
        "--name",
        "web",
        "--label",
        "tier=front",
        "tiny",
        "exit",
        "3",
    ])?;
    let span = ["events", "--since", "1h", "--until", "0s"];
    let with = |more: &[&str]| tiny.run(&[&span[..], more].concat());
    let plain = with(&["--filter", "type=container"])?;
    let words: Vec<&str> = plain
        .stdout
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    assert_eq!(
        words,
        ["create", "attach", "start", "die", "destroy"],
        "{plain:?}"
    );
    assert!(
        plain
            .stdout
            .contains("(exitCode=3, image=tiny, name=web, tier=front)"),
        "{plain:?}"
    );
    let json = with(&["--filter", "event=die", "--format", "json"])?;
    let object: serde_json::Value = serde_json::from_str(&json.stdout)?;
    assert_eq!(object["Actor"]["Attributes"]["exitCode"], "3");
    assert_eq!(
        (&object["Type"], &object["from"]),
        (&"container".into(), &"tiny".into())
    );
    let template = "{{.Type}}/{{.Action}} {{.Actor.Attributes.name}}";
    let told = with(&[
        "--filter",
        "type=image",
        "--filter",
        "event=create",
        "--format",
        template,
    ])?;
    assert_eq!(told.stdout, "image/create tiny:latest\n");
    with(&["--filter", "colour=red"])?.failed(1, &["not a filter", "colour=red"], None);
    with(&["--format", "{{.Type"])?.failed(64, &["template parsing error"], None);
    tiny.run(&["events", "--since", "soon"])?
        .failed(1, &["not a time", "soon"], None);
    Ok(())
}

fn stream(tiny: &Tiny) -> Tested {
    // Begins a moment ago, so that nothing can be missed whenever the program gets to it.
    let words = [
        "events",
        "--since",
        "1h",
        "--filter",
        "container=later",
        "--format",
        "{{.Action}}",
    ];
    let mut child = tiny.command(&words)?.stdout(Stdio::piped()).spawn()?;
    let mut lines = std::io::BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    let told = (|| {
        tiny.start(&["run", "-d", "--name", "later", "tiny", "sleep", "60"])?;
        let mut told = Vec::new();
        for _ in 0..2 {
            told.extend(lines.next().transpose()?);
        }
        tiny.run(&["rm", "-f", "later"])?;
        for _ in 0..3 {
            told.extend(lines.next().transpose()?);
        }
        Ok::<_, Box<dyn std::error::Error>>(told)
    })();
    child.kill()?;
    child.wait()?;
    let told = told?;
    assert_eq!(told[..2], ["create", "start"], "{told:?}");
    assert!(told.contains(&"die".to_owned()), "{told:?}");
    tiny.nothing_left()
}

fn logs(tiny: &Tiny) -> Tested {
    let mut words = vec![
        "run",
        "--rm",
        "--name",
        "short",
        "--log-opt",
        "max-size=1k",
        "--log-opt",
        "max-file=2",
    ];
    words.extend(["--log-opt", "labels=tier", "--label", "tier=web", "-d", "tiny"]);
    let numbered: Vec<String> = (0..100)
        .map(|number| format!("a line that is of a certain length: {number}"))
        .collect();
    for line in &numbered {
        words.extend(["echo", line, ","]);
    }
    words.extend(["echo", "last", ",", "sleep", "60"]);
    tiny.start(&words)?;
    // Who reads while files are changed may see more lines than they hold in the end, or miss some that were
    // removed before he came to them; but none twice, and all in order.
    loop {
        let seen = tiny.run(&["logs", "short"])?.stdout;
        let places: Vec<_> = seen
            .lines()
            .map(|line| numbered.iter().position(|one| one == line))
            .map(|place| place.unwrap_or(numbered.len()))
            .collect();
        assert!(places.is_sorted_by(|a, b| a < b), "{seen}");
        if places.last() == Some(&numbered.len()) {
            break;
        }
    }
    let lines = tiny.run(&["logs", "short"])?.stdout.lines().count();
    assert!((2..30).contains(&lines), "{lines} lines are kept");
    let detailed = tiny.run(&["logs", "--details", "-n", "1", "short"])?;
    assert_eq!(detailed.stdout, "tier=web last\n");
    tiny.run(&["logs", "-n", "some", "short"])?
        .failed(1, &["--tail some"], None);
    tiny.run(&["run", "--log-driver", "syslog", "tiny"])?
        .failed(125, &["syslog", "json-file"], None);
    tiny.run(&["run", "--log-opt", "max-size=big", "tiny"])?
        .failed(125, &["max-size=big"], None);
    assert_eq!(tiny.run(&["rm", "-f", "short"])?.code, Some(0));
    tiny.start(&[
        "run",
        "--log-driver",
        "none",
        "--name",
        "silent",
        "tiny",
        "echo",
        "x",
    ])?;
    tiny.run(&["logs", "silent"])?.failed(1, &["not kept"], None);
    assert_eq!(tiny.run(&["rm", "silent"])?.code, Some(0));
    tiny.nothing_left()
}

fn ps(tiny: &Tiny) -> Tested {
    let web = [
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "none",
        "--label",
        "tier=front",
        "tiny",
        "sleep",
        "60",
    ];
    tiny.start(&web)?;
    tiny.start(&[
        "run",
        "--name",
        "done",
        "--network",
        "none",
        "-v",
        "/data",
        "tiny",
        "exit",
        "3",
    ])?;
    let names = |more: &[&str]| -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let done = tiny.run(&[&["ps", "--format", "{{.Names}}"], more].concat())?;
        assert_eq!(done.code, Some(0), "{done:?}");
        Ok(done.stdout.lines().map(str::to_owned).collect())
    };
    for (words, expected) in [
        (&[][..], &["web"][..]),
        (&["-a"], &["done", "web"]),
        (&["-l"], &["done"]),
        (&["-n", "2"], &["done", "web"]),
        (&["-a", "-f", "name=^we"], &["web"]),
        (&["-a", "-f", "name=o"], &["done"]),
        (&["-f", "status=exited"], &["done"]),
        (&["-a", "-f", "exited=3"], &["done"]),
        (&["-a", "-f", "exited=0"], &[]),
        (&["-f", "label=tier"], &["web"]),
        (&["-f", "label=tier=back"], &[]),
        (&["-a", "-f", "ancestor=tiny"], &["done", "web"]),
        (&["-a", "-f", "ancestor=other"], &[]),
        (&["-a", "-f", "before=done"], &["web"]),
        (&["-a", "-f", "since=web"], &["done"]),
        (&["-a", "-f", "volume=/data"], &["done"]),
        (&["-a", "-f", "network=none"], &["done", "web"]),
        (&["-a", "-f", "expose=8080"], &["done", "web"]),
        (&["-a", "-f", "publish=8080"], &[]),
        (&["-a", "-f", "health=none"], &["done", "web"]),
    ] {
        assert_eq!(names(words)?, expected, "{words:?}");
    }
    let json = tiny.run(&["ps", "--format", "json"])?;
    let row: serde_json::Value = serde_json::from_str(&json.stdout)?;
    assert_eq!(
        (&row["State"], &row["Labels"]),
        (&"running".into(), &"tier=front".into())
    );
    assert_eq!(row["Ports"], "8080/tcp");
    let table = tiny.run(&["ps", "-a", "--format", "table {{.Names}}\\t{{.Status}}"])?;
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert_eq!(lines[0], "NAMES     STATUS");
    assert!(lines[1].starts_with("done      Exited (3) "), "{table:?}");
    assert!(tiny.run(&["ps", "-s"])?.stdout.contains("(virtual "));
    let one = tiny.run(&[
        "ps",
        "-a",
        "--format",
        "{{json .Names}} {{upper .State}}",
        "-f",
        "name=done",
    ])?;
    assert_eq!(one.stdout, "\"done\" EXITED\n");
    tiny.run(&["ps", "-f", "colour=red"])?
        .failed(1, &["not a filter", "colour=red"], None);
    tiny.run(&["ps", "-f", "before=none"])?.failed(1, &["none"], None);
    tiny.run(&["ps", "--format", "{{.Names"])?
        .failed(64, &["template parsing error"], None);
    assert_eq!(tiny.run(&["rm", "-f", "-v", "web", "done"])?.code, Some(0));
    tiny.nothing_left()
}

fn inspect(tiny: &Tiny) -> Tested {
    tiny.start(&[
        "run",
        "-d",
        "--name",
        "seen",
        "--network",
        "none",
        "-e",
        "OWN=x",
        "--log-opt",
        "max-size=1m",
        "tiny",
        "sleep",
        "60",
    ])?;
    let filled = |template: &str| -> Result<String, Box<dyn std::error::Error>> {
        Ok(tiny
            .run(&["inspect", "-f", template, "seen"])?
            .stdout
            .trim_end()
            .to_owned())
    };
    for (template, expected) in [
        ("{{.State.Status}} {{.State.Running}}", "running true"),
        ("{{.Name}}", "/seen"),
        ("{{join .Config.Env \" \"}}", "PATH=/ FROM_IMAGE=yes OWN=x"),
        ("{{json .Config.Entrypoint}}", "[\"/payload\"]"),
        (
            "{{range $port, $x := .Config.ExposedPorts}}{{$port}};{{end}}",
            "8080/tcp;",
        ),
        ("{{index .HostConfig.LogConfig.Config \"max-size\"}}", "1048576"),
        ("{{if .State.Health}}checked{{else}}unchecked{{end}}", "unchecked"),
        ("{{len .Mounts}} {{printf \"%04d\" .State.ExitCode}}", "0 0000"),
    ] {
        assert_eq!(filled(template)?, expected, "{template}");
    }
    tiny.run(&["inspect", "-f", "{{.Nothing}}", "seen"])?
        .failed(1, &["Nothing"], None);
    tiny.run(&["inspect", "-f", "{{nothing}}", "seen"])?
        .failed(64, &["nothing"], None);
    let both = tiny.run(&["inspect", "seen", "missing"])?;
    assert_eq!(both.code, Some(1));
    let shown: serde_json::Value = serde_json::from_str(&both.stdout)?;
    assert_eq!(
        (shown.as_array().map(Vec::len), &shown[0]["Name"]),
        (Some(1), &"/seen".into())
    );
    assert!(both.stderr.contains("no such object: missing"), "{both:?}");
    assert_eq!(tiny.run(&["rm", "-f", "seen"])?.code, Some(0));
    tiny.nothing_left()
}

fn usage(tiny: &Tiny) -> Tested {
    tiny.start(&[
        "run",
        "-d",
        "--name",
        "busy",
        "--network",
        "none",
        "tiny",
        "sleep",
        "60",
    ])?;
    let top = tiny.run(&["top", "busy"])?;
    let lines: Vec<&str> = top.stdout.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>()[..2],
        ["UID", "PID"],
        "{top:?}"
    );
    assert!(
        lines.len() == 2 && lines[1].ends_with("/payload sleep 60"),
        "{top:?}"
    );
    let own = tiny.run(&["top", "busy", "-o", "nspid,comm"])?;
    assert!(own.stdout.ends_with("1         payload\n"), "{own:?}");
    tiny.run(&["top", "busy", "-o", "colour"])?
        .failed(1, &["colour", "no such column"], None);
    let stats = tiny.run(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.PIDs}} {{.CPUPerc}}",
    ])?;
    assert!(
        stats.stdout.starts_with("busy 1 ") && stats.stdout.ends_with("%\n"),
        "{stats:?}"
    );
    let table = tiny.run(&["stats", "--no-stream", "busy"])?;
    assert!(table.stdout.starts_with("CONTAINER ID   NAME"), "{table:?}");
    tiny.run(&["stats", "--no-stream", "missing"])?
        .failed(1, &["missing"], None);
    assert_eq!(tiny.run(&["rm", "-f", "busy"])?.code, Some(0));
    tiny.run(&["top", "busy"])?.failed(1, &["busy"], None);
    tiny.nothing_left()
}

fn prune(tiny: &Tiny) -> Tested {
    tiny.start(&[
        "run",
        "--name",
        "old",
        "--network",
        "none",
        "-v",
        "/kept",
        "tiny",
        "write",
        "/data/x",
        "12345",
    ])?;
    tiny.start(&[
        "run",
        "-d",
        "--name",
        "up",
        "--network",
        "none",
        "tiny",
        "sleep",
        "60",
    ])?;
    let df = tiny.run(&[
        "system",
        "df",
        "--format",
        "{{.Type}} {{.TotalCount}} {{.Active}}",
    ])?;
    assert_eq!(
        df.stdout,
        "Images 1 1\nContainers 2 1\nLocal Volumes 1 1\nBuild Cache 0 0\n"
    );
    assert!(
        tiny.run(&["system", "df"])?
            .stdout
            .starts_with("TYPE            TOTAL     ACTIVE")
    );
    let refused = tiny.run(&["container", "prune"])?;
    assert!(
        refused.stderr.contains("Are you sure") && refused.stdout.is_empty(),
        "{refused:?}"
    );
    let kept = tiny.run(&["container", "prune", "-f", "--filter", "until=24h"])?;
    assert_eq!(kept.stdout, "Total reclaimed space: 0B\n");
    let pruned = tiny.run(&["system", "prune", "-f"])?;
    assert!(pruned.stdout.starts_with("Deleted Containers:\n"), "{pruned:?}");
    assert!(
        !pruned.stdout.contains("Deleted Images"),
        "the image has a name: {pruned:?}"
    );
    assert_eq!(tiny.run(&["ps", "-a", "--format", "{{.Names}}"])?.stdout, "up\n");
    assert_eq!(tiny.run(&["rm", "-f", "up"])?.code, Some(0));
    let images = tiny.run(&["image", "prune", "-a", "-f"])?;
    assert!(images.stdout.contains("Deleted Images:"), "{images:?}");
    assert_eq!(tiny.run(&["image", "ls", "-q"])?.stdout, "");
    tiny.nothing_left()
}
