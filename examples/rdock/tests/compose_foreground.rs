//! `compose up` in the foreground: what is shown, when it ends, and with which code.

use crate::compose_project::{Project, SOON, Voice};
use crate::program::Tested;
use crate::pty::Terminal;
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use rustix::process::Signal;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("compose_up_ends_when_every_container_has", ends),
        trial(
            "compose_up_stops_in_reverse_order_at_the_first_ctrl_c",
            first_ctrl_c,
        ),
        trial("compose_up_kills_at_the_second_ctrl_c", second_ctrl_c),
        trial("compose_up_on_a_terminal_has_colours_and_takes_ctrl_c", terminal),
        trial("compose_up_stops_for_one_that_ends_and_has_its_code", aborts),
        trial("compose_up_stays_with_a_container_that_restarts", restarts),
        trial("compose_up_shows_what_it_is_told_to", attach),
        trial("compose_up_interrupted_while_it_waits_stops_what_it_began", early),
    ]
}

/// Each prints a line and ends by SIGTERM with a code of its own.
const TALKERS: &str = r#"
services:
  db:
    image: tiny
    command: [trap, "15", "5", ",", echo, db ready, ",", sleep, "100"]
  web:
    image: tiny
    command: [trap, "15", "6", ",", echo, web ready, ",", err, web error, ",", sleep, "100"]
    depends_on: [db]
"#;

/// What was said until the signal ended it, which must be with this code.
fn ended(up: Voice, signal: Signal, expected: i32) -> Result<String, Box<dyn std::error::Error>> {
    up.signal(signal)?;
    let (code, said) = up.end()?;
    assert_eq!(code, Some(expected), "{said}");
    Ok(said)
}

fn ends(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  one: {image: tiny, command: [echo, first]}
  two: {image: tiny, command: [echo, second, ",", err, failed, ",", exit, "3"]}
"#,
    )?;
    let done = shop.run(&["up"])?;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.starts_with("Attaching to one-1, two-1\n"), "{done:?}");
    let mut lines: Vec<&str> = done.stdout.lines().skip(1).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "one-1  | first",
            "one-1 exited with code 0",
            "two-1  | second",
            "two-1 exited with code 3"
        ]
    );
    assert!(done.stderr.contains("two-1  | failed"), "{done:?}");
    // What the containers said before is not said again.
    let again = shop.run(&["up", "--no-log-prefix"])?;
    assert_eq!(again.stdout.matches("first").count(), 1, "{again:?}");
    assert!(
        again.stdout.contains("\nfirst\n") || again.stdout.starts_with("first\n"),
        "{again:?}"
    );
    let stamped = shop.run(&["up", "--timestamps", "one"])?;
    let line = stamped.stdout.lines().nth(1).unwrap_or_default();
    assert!(
        line.starts_with("one-1  | 20") && line.ends_with("Z first"),
        "{stamped:?}"
    );
    assert!(!stamped.stdout.contains("two"), "{stamped:?}");
    Ok(())
}

fn first_ctrl_c(tiny: &Tiny) -> Tested {
    let shop = Project::new(tiny, TALKERS)?;
    for signal in [Signal::INT, Signal::TERM] {
        let mut up = shop.listen(&["up"])?;
        for line in ["| db ready", "| web ready", "| web error"] {
            up.until_heard(line)?;
        }
        let said = ended(up, signal, 130)?;
        let place = |text: &str| said.find(text).unwrap_or_else(|| panic!("no {text:?} in {said}"));
        assert!(
            place("Container shop-web-1 Stopped") < place("Container shop-db-1 Stopping"),
            "{said}"
        );
        assert!(
            said.contains("web-1 exited with code 6") && said.contains("db-1 exited with code 5"),
            "{said}"
        );
        assert_eq!(shop.states()?, ["shop-db-1 exited", "shop-web-1 exited"]);
    }
    Ok(())
}

fn second_ctrl_c(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  db:
    image: tiny
    command: [ignore, "15", ",", echo, ready, ",", sleep, "100"]
    stop_grace_period: 100s
    restart: always
"#,
    )?;
    let mut up = shop.listen(&["up"])?;
    up.until("ready")?;
    up.signal(Signal::INT)?;
    up.until("Gracefully Stopping")?;
    up.until("Container shop-db-1 Stopping")?;
    let said = ended(up, Signal::INT, 130)?;
    assert!(said.contains("db-1 exited with code 137"), "{said}");
    assert_eq!(shop.states()?, ["shop-db-1 exited"]);
    Ok(())
}

fn terminal(tiny: &Tiny) -> Tested {
    let shop = Project::new(tiny, TALKERS)?;
    let on_terminal = |words: &[&str], colour: bool, typed: &[u8]| -> Tested {
        let mut command = shop.command(words)?;
        command.env_remove("NO_COLOR");
        if words.last() == Some(&"up") && !colour && !words.contains(&"never") {
            command.env("NO_COLOR", "1");
        }
        let mut screen = Terminal::start(&command, 40, 120)?;
        screen.expect("web ready", SOON)?;
        screen.expect("db ready", SOON)?;
        for key in typed {
            screen.send(&char::from(*key).to_string())?;
            screen.expect("Gracefully Stopping", SOON)?;
        }
        let seen = screen.until(SOON, |seen| {
            seen.contains("db-1 exited with code 5").then(|| seen.to_owned())
        })?;
        // The first of docker's colours; what is drawn before the containers speak has none.
        assert_eq!(seen.contains("\x1b[36m"), colour, "{seen:?}");
        assert_eq!(screen.wait(SOON)?.code(), Some(130), "{words:?}");
        Ok(())
    };
    let file = shop.path("compose.yaml");
    let file = file.to_string_lossy();
    on_terminal(&["-f", &file, "up"], true, b"\x03")?;
    on_terminal(&["-f", &file, "up", "--no-color"], false, b"\x03")?;
    on_terminal(&["-f", &file, "up"], false, b"\x03")?;
    on_terminal(&["-f", &file, "--ansi", "never", "up"], false, b"\x03")?;
    // Colours without a terminal, when they are asked for.
    let logs = shop.ok(&["--ansi", "always", "logs"])?;
    assert!(logs.contains("\x1b[36mdb-1   | \x1b[0mdb ready\n"), "{logs:?}");
    assert!(!shop.ok(&["logs"])?.contains('\x1b'));
    assert!(
        !shop
            .ok(&["--ansi", "always", "logs", "--no-color"])?
            .contains('\x1b')
    );
    Ok(())
}

fn aborts(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  db:
    image: tiny
    command: [trap, "15", "5", ",", echo, ready, ",", sleep, "100"]
  good: {image: tiny, command: [echo, good], profiles: [good], depends_on: [db]}
  bad: {image: tiny, command: [exit, "9"], profiles: [bad], depends_on: [db]}
  last: {image: tiny, command: [trap, "15", "7", ",", echo, here, ",", sleep, "100"], profiles: [last]}
"#,
    )?;
    let flag_and_code: [(&[&str], i32); 7] = [
        (&["--profile", "good", "up", "--abort-on-container-exit"], 0),
        (&["--profile", "bad", "up", "--abort-on-container-exit"], 9),
        (&["--profile", "bad", "up", "--abort-on-container-failure"], 9),
        (
            &[
                "--profile",
                "good",
                "--profile",
                "bad",
                "up",
                "--abort-on-container-failure",
            ],
            9,
        ),
        (&["--profile", "good", "up", "--exit-code-from", "db"], 5),
        (&["--profile", "bad", "up", "--exit-code-from", "bad"], 9),
        (
            &[
                "--profile",
                "bad",
                "up",
                "--abort-on-container-exit",
                "--no-attach",
                "bad",
            ],
            9,
        ),
    ];
    for (words, code) in flag_and_code {
        let done = shop.run(words)?;
        assert_eq!(done.code, Some(code), "{words:?}: {done:?}");
        assert!(
            done.stderr.contains("Aborting on container exit..."),
            "{words:?}: {done:?}"
        );
        assert!(
            done.stdout.contains("db-1 exited with code 5"),
            "{words:?}: {done:?}"
        );
        // One that the others did not wait for may not have started yet.
        let ended = |state: &String| state.ends_with(" exited") || state == "shop-good-1 created";
        assert!(
            shop.states()?.iter().all(ended),
            "{words:?}: {:?}",
            shop.states()?
        );
    }
    // A failure is waited for, not any end; the code of a service is there after Ctrl-C too.
    let mut up = shop.listen(&["--profile", "good", "up", "--abort-on-container-failure"])?;
    up.until("good-1 exited with code 0")?;
    ended(up, Signal::INT, 130)?;
    let mut up = shop.listen(&["--profile", "last", "up", "--exit-code-from", "last"])?;
    up.until("here")?;
    ended(up, Signal::INT, 7)?;
    for flag in [
        "--abort-on-container-exit",
        "--attach-dependencies",
        "--exit-code-from=db",
        "--attach=db",
    ] {
        shop.fails(
            &["up", "-d", flag],
            1,
            &["cannot be combined with --detach or --wait"],
        )?;
    }
    shop.fails(
        &["up", "--exit-code-from", "nobody"],
        1,
        &["no such service: nobody"],
    )
}

fn restarts(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  again: {image: tiny, command: [append, /count, x, ",", echo, went, ",", exit, "1"], restart: "on-failure:2"}
"#,
    )?;
    let done = shop.run(&["up"])?;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.stdout.matches("again-1  | went\n").count(), 3, "{done:?}");
    assert_eq!(done.stdout.matches("exited with code 1").count(), 1, "{done:?}");
    // One that somebody else starts again goes on where it was.
    let shop = Project::new(tiny, TALKERS)?;
    let mut up = shop.listen(&["up"])?;
    up.until("web ready")?;
    shop.ok(&["restart", "-t", "5", "web"])?;
    up.until("web ready")?;
    let said = ended(up, Signal::INT, 130)?;
    assert_eq!(said.matches("web-1  | web ready").count(), 2, "{said}");
    Ok(())
}

fn attach(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  db: {image: tiny, command: [trap, "15", "0", ",", echo, from db, ",", sleep, "100"]}
  web: {image: tiny, command: [echo, from web], depends_on: [db]}
  mute: {image: tiny, command: [echo, from mute], attach: false}
"#,
    )?;
    let shown: [(&[&str], &[&str]); 6] = [
        (&[], &["db", "web"]),
        (&["--attach", "web"], &["web"]),
        (&["--attach", "mute", "--attach", "db"], &["db", "mute"]),
        (&["--no-attach", "db"], &["web"]),
        (&["web"], &["web"]),
        (&["--attach-dependencies", "web"], &["db", "web"]),
    ];
    for (flags, expected) in shown {
        let words: Vec<&str> = ["up", "--force-recreate", "-t", "5"]
            .iter()
            .chain(flags)
            .copied()
            .collect();
        let mut up = shop.listen(&words)?;
        // `up web` alone ends by itself; the others are interrupted when all has been said, in whatever order.
        if flags != ["web"] {
            for name in expected {
                up.until_heard(&format!("from {name}"))?;
            }
            up.signal(Signal::INT)?;
        }
        let (_, said) = up.end()?;
        for name in ["db", "web", "mute"] {
            assert_eq!(
                said.contains(&format!("| from {name}")),
                expected.contains(&name),
                "{words:?}: {name}: {said}"
            );
        }
        shop.ok(&["down", "-t", "5"])?;
    }
    Ok(())
}

fn early(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  slow:
    image: tiny
    command: [trap, "15", "0", ",", echo, slow is there, ",", sleep, "100"]
    healthcheck: {test: [CMD, /payload, exit, "1"], interval: 1s, retries: 1000}
  web:
    image: tiny
    command: [echo, never]
    depends_on: {slow: {condition: service_healthy}}
"#,
    )?;
    let mut up = shop.listen(&["up"])?;
    up.until("slow is there")?;
    let said = ended(up, Signal::INT, 130)?;
    assert!(!said.contains("never"), "{said}");
    assert_eq!(shop.states()?, ["shop-slow-1 exited", "shop-web-1 created"]);
    Ok(())
}
