//! Verbs of `compose` that change the state of containers: up, create, start, stop, restart, kill, pause, rm, scale,
//! wait.

use crate::compose_project::{PAIR, Project};
use crate::program::{Tested, needs_root};
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use std::io::Write;
use std::process::Stdio;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("compose_verbs_change_the_state_of_containers", life),
        trial(
            "compose_start_waits_for_the_end_of_what_is_being_stopped",
            stopping,
        ),
        trial("compose_rm_asks_and_removes_what_does_not_run", rm),
        trial("compose_create_and_up_make_what_their_flags_say", making),
        trial("compose_up_waits_until_everything_runs_or_is_healthy", wait),
        trial(
            "compose_wait_prints_codes_and_takes_the_project_down",
            wait_for_ends,
        ),
        trial("compose_compatibility_names_have_underscores", compatibility),
    ]
}

fn life(tiny: &Tiny) -> Tested {
    needs_root("containers that stand still")?;
    let shop = Project::new(
        tiny,
        &format!("{PAIR}  other: {{image: tiny, command: [sleep, '100']}}\n"),
    )?;
    shop.ok(&["stop"])?;
    shop.fails(&["start"], 1, &["has no container to start"])?;
    shop.fails(&["start", "nothing"], 1, &["no such service: nothing"])?;
    shop.ok(&["up", "-d", "db", "web"])?;
    let three = |db: &str, web: &str| [format!("shop-db-1 {db}"), format!("shop-web-1 {web}")];
    let steps: [(&[&str], [&str; 2]); 12] = [
        (&["pause", "web"], ["running", "paused"]),
        (&["unpause"], ["running", "running"]),
        (&["pause"], ["paused", "paused"]),
        (&["unpause", "db"], ["running", "paused"]),
        (&["unpause"], ["running", "running"]),
        (&["stop", "-t", "5", "web"], ["running", "exited"]),
        (&["start", "web"], ["running", "running"]),
        (&["kill", "-s", "TERM", "web"], ["running", "exited"]),
        (&["restart", "-t", "5", "web"], ["running", "running"]),
        (&["kill"], ["exited", "exited"]),
        (&["restart"], ["running", "running"]),
        (&["stop"], ["exited", "exited"]),
    ];
    for (words, [db, web]) in steps {
        shop.ok(words)?;
        if words[0] == "kill" {
            // A signal is sent, and its effect not waited for.
            tiny.run(&["wait", "shop-web-1"])?;
            if words.len() == 1 {
                tiny.run(&["wait", "shop-db-1"])?;
            }
        }
        assert_eq!(shop.states()?, three(db, web), "{words:?}");
    }
    for verb in ["stop", "kill", "pause", "unpause", "restart"] {
        shop.ok(&[verb, "other"])?;
        shop.fails(&[verb, "nothing"], 1, &["no such service: nothing"])?;
    }
    // Others restart with what they depend on, if they say so.
    let file = std::fs::read_to_string(shop.path("compose.yaml"))?;
    shop.write(
        "compose.yaml",
        &file.replace("[db]", "{db: {condition: service_started, restart: true}}"),
    )?;
    shop.ok(&["up", "-d", "db", "web"])?;
    let began = |name: &str| -> Result<String, Box<dyn std::error::Error>> {
        Ok(tiny
            .run(&["inspect", "--format", "{{.State.StartedAt}}", name])?
            .stdout)
    };
    let before = began("shop-web-1")?;
    shop.ok(&["restart", "-t", "5", "--no-deps", "db"])?;
    assert_eq!(began("shop-web-1")?, before);
    shop.ok(&["restart", "-t", "5", "db"])?;
    assert_ne!(began("shop-web-1")?, before);
    // A stop that is not heard ends after the time that was given.
    shop.write(
        "compose.yaml",
        "name: shop\nservices:\n  deaf: {image: tiny, stop_grace_period: 10m, command: [ignore, '15', ',', echo, ready, ',', sleep, '100']}\n",
    )?;
    let warned = shop.run(&["up", "-d"])?;
    assert!(
        warned.stderr.contains("shop-db-1") && warned.stderr.contains("--remove-orphans"),
        "{warned:?}"
    );
    let mut logs = shop.listen(&["logs", "-f"])?;
    logs.until("ready")?;
    // Not after those of the file: it would have ended by itself, with 0.
    shop.ok(&["stop", "-t", "0"])?;
    assert_eq!(tiny.run(&["wait", "shop-deaf-1"])?.stdout, "137\n");
    let mut quiet = shop.command(&["up", "-d"])?;
    quiet.env("COMPOSE_IGNORE_ORPHANS", "true");
    let quiet = quiet.output()?;
    assert!(
        !String::from_utf8_lossy(&quiet.stderr).contains("--remove-orphans"),
        "{quiet:?}"
    );
    shop.ok(&["kill", "--remove-orphans"])?;
    tiny.run(&["wait", "shop-deaf-1"])?;
    assert_eq!(shop.states()?, ["shop-deaf-1 exited"]);
    Ok(())
}

fn stopping(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  deaf:
    image: tiny
    command: [ignore, "15", ",", echo, ready, ",", sleep, "100"]
    stop_grace_period: 1s
"#,
    )?;
    shop.ok(&["up", "-d"])?;
    shop.listen(&["logs", "-f"])?.until("ready")?;
    let began = || tiny.run(&["inspect", "--format", "{{.State.StartedAt}}", "shop-deaf-1"]);
    let before = began()?.stdout;
    let stop = shop.listen(&["stop", "-t", "100"])?;
    // From the beginning on: whichever of the two programs is first, this is heard.
    shop.listen(&["events", "--since", "1h"])?
        .until("container kill")?;
    shop.ok(&["start"])?;
    assert_eq!(shop.states()?, ["shop-deaf-1 running"]);
    assert_ne!(began()?.stdout, before);
    let (code, said) = stop.end()?;
    assert_eq!(code, Some(0), "{said}");
    Ok(())
}

fn rm(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  one: {image: tiny, command: [trap, "15", "0", ",", sleep, "100"], volumes: [/anonymous]}
  two: {image: tiny, command: [exit, "0"]}
"#,
    )?;
    let volumes = || -> Result<usize, Box<dyn std::error::Error>> {
        Ok(tiny.run(&["volume", "ls", "-q"])?.stdout.lines().count())
    };
    shop.ok(&["up", "-d"])?;
    tiny.run(&["wait", "shop-two-1"])?;
    for (answer, left) in [("n\n", 2), ("", 2), ("y\n", 1)] {
        let mut command = shop.command(&["rm"])?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child
            .stdin
            .take()
            .ok_or("no stdin")?
            .write_all(answer.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("Going to remove shop-two-1"), "{said}");
        assert_eq!(
            (output.status.code(), shop.states()?.len()),
            (Some(0), left),
            "{answer:?}"
        );
    }
    let done = shop.run(&["rm", "-f"])?;
    assert!(
        done.code == Some(0) && done.stderr.contains("No stopped containers"),
        "{done:?}"
    );
    assert_eq!(volumes()?, 1);
    shop.ok(&["rm", "-f", "-s", "one"])?;
    assert_eq!(
        (shop.states()?.len(), volumes()?),
        (0, 1),
        "anonymous volumes stay without -v"
    );
    shop.ok(&["up", "-d", "one"])?;
    assert_eq!(volumes()?, 2);
    shop.ok(&["rm", "-fsv"])?;
    assert_eq!((shop.states()?.len(), volumes()?), (0, 1));
    tiny.run(&["volume", "prune", "-af"])?;
    shop.fails(&["rm", "-f", "nothing"], 1, &["no such service: nothing"])
}

fn making(tiny: &Tiny) -> Tested {
    let file = r#"
services:
  db: {image: tiny, command: [trap, "15", "0", ",", sleep, "100"], volumes: [/anonymous]}
  web: {image: tiny, command: [trap, "15", "0", ",", sleep, "100"], depends_on: [db]}
"#;
    let shop = Project::new(tiny, file)?;
    let ids = |names: &[&str]| {
        names
            .iter()
            .map(|name| shop.id(name))
            .collect::<Result<Vec<_>, _>>()
    };
    shop.ok(&["create", "--scale", "web=2"])?;
    assert_eq!(
        shop.states()?,
        ["shop-db-1 created", "shop-web-1 created", "shop-web-2 created"]
    );
    let first = ids(&["shop-db-1", "shop-web-1", "shop-web-2"])?;
    shop.ok(&["create", "--scale", "web=2"])?;
    assert_eq!(ids(&["shop-db-1", "shop-web-1", "shop-web-2"])?, first);
    shop.ok(&["create", "--force-recreate", "--scale", "web=2"])?;
    let second = ids(&["shop-db-1", "shop-web-1", "shop-web-2"])?;
    assert!(
        first.iter().all(|id| !second.contains(id)),
        "{first:?} {second:?}"
    );
    // Another command for both: nothing is made anew unless it may be.
    shop.write(
        "compose.yaml",
        &format!("name: shop\n{}", file.replace("\"100\"", "\"101\"")),
    )?;
    shop.ok(&["create", "--no-recreate", "--scale", "web=2"])?;
    assert_eq!(ids(&["shop-db-1", "shop-web-1", "shop-web-2"])?, second);
    shop.ok(&["up", "--no-start"])?;
    assert_eq!(shop.states()?, ["shop-db-1 created", "shop-web-1 created"]);
    assert_ne!(shop.id("shop-db-1")?, second[0]);
    shop.ok(&["up", "-d", "--no-deps", "web"])?;
    assert_eq!(shop.states()?, ["shop-db-1 created", "shop-web-1 running"]);
    shop.ok(&["up", "-d"])?;

    let [db, web] = [shop.id("shop-db-1")?, shop.id("shop-web-1")?];
    shop.ok(&["up", "-d", "--force-recreate", "web"])?;
    assert_eq!(shop.id("shop-db-1")?, db);
    assert_ne!(shop.id("shop-web-1")?, web);
    shop.ok(&["up", "-d", "--always-recreate-deps", "web"])?;
    assert_ne!(shop.id("shop-db-1")?, db);
    // Anonymous volumes go over to the next container, unless new ones are wanted.
    let volume = || -> Result<String, Box<dyn std::error::Error>> {
        Ok(tiny
            .run(&["inspect", "--format", "{{(index .Mounts 0).Name}}", "shop-db-1"])?
            .stdout)
    };
    let before = volume()?;
    assert!(before.trim().len() == 64, "{before}");
    shop.ok(&["up", "-d", "--force-recreate"])?;
    assert_eq!(volume()?, before);
    shop.ok(&["up", "-d", "--force-recreate", "-V"])?;
    assert_ne!(volume()?, before);
    assert_eq!(tiny.run(&["volume", "ls", "-q"])?.stdout.lines().count(), 1);

    shop.ok(&["up", "-d", "--scale", "web=3"])?;
    assert_eq!(shop.states()?.len(), 4);
    shop.ok(&["scale", "web=2", "db=1"])?;
    assert_eq!(
        shop.states()?,
        ["shop-db-1 running", "shop-web-1 running", "shop-web-2 running"]
    );
    shop.ok(&["stop", "-t", "5", "db"])?;
    shop.ok(&["scale", "--no-deps", "web=1"])?;
    assert_eq!(shop.states()?, ["shop-db-1 exited", "shop-web-1 running"]);
    for wrong in ["web", "web=x", "web=-1", "=1"] {
        shop.fails(&["scale", wrong], 1, &["scale"])?;
    }
    shop.fails(&["scale", "nothing=1"], 1, &["no such service: nothing"])?;
    shop.fails(
        &["up", "-d", "--force-recreate", "--no-recreate"],
        125,
        &["--no-recreate"],
    )?;
    // An image that is not there is not pulled when it must not be.
    shop.write(
        "compose.yaml",
        "name: shop\nservices:\n  web: {image: 'localhost:1/missing'}\n",
    )?;
    shop.fails(&["up", "-d", "--pull", "never"], 1, &["localhost:1/missing"])?;
    shop.fails(&["up", "-d"], 1, &["localhost:1/missing"])?;
    Ok(())
}

fn wait(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  db:
    image: tiny
    command: [trap, "15", "0", ",", write, /up, x, ",", sleep, "100"]
    healthcheck: {test: [CMD, /payload, cat, /up], interval: 1s}
  init: {image: tiny, command: [echo, made]}
  web:
    image: tiny
    command: [trap, "15", "0", ",", sleep, "100"]
    depends_on: {init: {condition: service_completed_successfully}, db: {condition: service_healthy}}
  sick:
    image: tiny
    command: [trap, "15", "0", ",", echo, hello from sick, ",", sleep, "100"]
    healthcheck: {test: [CMD, /payload, exit, "1"], interval: 100ms, retries: 2}
    profiles: [sick]
  never:
    image: tiny
    command: [trap, "15", "0", ",", sleep, "100"]
    healthcheck: {test: [CMD, /payload, exit, "1"], interval: 100ms, retries: 1000000}
    profiles: [never]
"#,
    )?;
    shop.ok(&["up", "--wait", "--wait-timeout", "60"])?;
    let shown = shop.ok(&["ps", "--format", "{{.Name}} {{.Health}}"])?;
    assert_eq!(shown, "shop-db-1 healthy\nshop-web-1 \n");
    shop.ok(&["stop", "-t", "5"])?;
    shop.ok(&["start", "--wait", "--wait-timeout", "60", "db"])?;
    assert_eq!(shop.ok(&["ps", "--format", "{{.Health}}"])?, "healthy\n");
    shop.fails(
        &["--profile", "sick", "up", "--wait"],
        1,
        &["the container shop-sick-1 is unhealthy", "hello from sick"],
    )?;
    shop.fails(
        &["up", "--wait", "--wait-timeout", "1", "never"],
        1,
        &["not everything is up after 1 s"],
    )?;
    shop.ok(&["stop", "-t", "5", "never"])?;
    shop.fails(
        &["start", "--wait", "--wait-timeout", "1", "never"],
        1,
        &["not everything is up after 1 s"],
    )
}

fn wait_for_ends(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  one: {image: tiny, command: [exit, "3"]}
  two: {image: tiny, command: [trap, "15", "4", ",", sleep, "100"]}
"#,
    )?;
    shop.fails(&["wait", "one"], 1, &["no containers"])?;
    shop.ok(&["up", "-d"])?;
    let done = shop.run(&["wait", "one"])?;
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.stdout.contains("exited with status code 3"), "{done:?}");
    let mut waiting = shop.listen(&["wait", "one", "two"])?;
    waiting.until("status code 3")?;
    shop.ok(&["kill", "-s", "TERM", "two"])?;
    waiting.until("status code 4")?;
    assert_eq!(waiting.end()?.0, Some(4));
    shop.ok(&["start"])?;
    let done = shop.run(&["wait", "--down-project", "one", "two"])?;
    assert_eq!(done.code, Some(3), "{done:?}");
    assert_eq!(shop.states()?, [""; 0]);
    shop.fails(&["wait"], 125, &["<SERVICES>"])?;
    tiny.nothing_left()
}

fn compatibility(tiny: &Tiny) -> Tested {
    let shop = Project::new(tiny, PAIR)?;
    shop.ok(&["--compatibility", "up", "-d"])?;
    assert_eq!(shop.states()?, ["shop_db_1 running", "shop_web_1 running"]);
    shop.ok(&["logs", "-f", "--until", "0s"])?;
    let mut same = shop.command(&["up", "-d", "--dry-run"])?;
    let same = same.env("COMPOSE_COMPATIBILITY", "1").output()?;
    assert_eq!(String::from_utf8_lossy(&same.stdout), "shop: nothing to do\n");
    Ok(())
}
