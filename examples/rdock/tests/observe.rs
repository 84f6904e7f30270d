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
    for _ in 0..100 {
        words.extend(["echo", "a line that is of a certain length", ","]);
    }
    words.extend(["echo", "last", ",", "sleep", "60"]);
    tiny.start(&words)?;
    let kept = loop {
        let kept = tiny.run(&["logs", "short"])?.stdout;
        if kept.ends_with("last\n") {
            break kept;
        }
    };
    let lines = kept.lines().count();
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
