//! `compose config` and the flags that say which project it is, and how it is told what happens.

use crate::compose_project::{Project, SOON};
use crate::program::Tested;
use crate::pty::Terminal;
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("compose_config_has_all_its_outputs", config),
        trial("compose_flags_say_which_project_it_is", flags),
        trial("compose_progress_has_several_forms", progress),
    ]
}

fn config(tiny: &Tiny) -> Tested {
    let shop = Project::new(tiny, "")?;
    shop.write(
        "compose.yaml",
        r#"name: shop
services:
  db: {image: "db:${TAG:-1}", volumes: [data:/d], env_file: [db.env], networks: [back]}
  web: {build: ./web, depends_on: [db], command: "$$HOME ${GREETING:?say hello}", profiles: [web]}
  broken: {image: x, depends_on: [nothing], profiles: [broken]}
volumes: {data: {}, unused: {}}
networks: {back: {}, unused: {}}
"#,
    )?;
    shop.write("db.env", "FROM_FILE=1\n")?;
    shop.write(".env", "GREETING=hi\n")?;
    let printed: [(&[&str], &str); 16] = [
        (&["--services"], "db\n"),
        (&["--volumes"], "data\n"),
        (&["--networks"], "back\n"),
        (&["--profiles"], "broken\nweb\n"),
        (&["--images"], "db:1\n"),
        (&["--models"], ""),
        (&["-q"], ""),
        (&["--no-interpolate", "--services"], "broken\ndb\nweb\n"),
        (&["--no-interpolate", "--volumes"], "data\nunused\n"),
        (&["--services", "web"], "db\nweb\n"),
        (&["--images", "web"], "db:1\nshop-web\n"),
        (&["--format", "json", "--services"], "db\n"),
        (&["-o", "out.yaml"], ""),
        (&["--format", "json", "-o", "out.json"], ""),
        (&["--quiet", "--no-consistency"], ""),
        (&["--no-normalize", "--networks"], "back\n"),
    ];
    for (words, expected) in printed {
        let words: Vec<&str> = ["config"].iter().chain(words).copied().collect();
        let printed = shop.ok(&words)?;
        let mut lines: Vec<&str> = printed.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines.join("\n"), expected.trim_end(), "{words:?}");
    }
    assert_eq!(
        shop.ok(&["--all-resources", "config", "--volumes"])?,
        "data\nunused\n"
    );
    let yaml = shop.ok(&["config"])?;
    assert_eq!(std::fs::read_to_string(shop.path("out.yaml"))?, yaml);
    assert!(
        yaml.contains("FROM_FILE: \"1\"") && !yaml.contains("unused"),
        "{yaml}"
    );
    assert_eq!(shop.ok(&["convert"])?, yaml);
    let json: Value = serde_json::from_str(&std::fs::read_to_string(shop.path("out.json"))?)?;
    assert_eq!(json["services"]["db"]["image"], "db:1");
    // What is printed is the same project again.
    shop.write("again.yaml", &yaml)?;
    assert_eq!(shop.ok(&["-f", "again.yaml", "config"])?, yaml);
    let web = shop.ok(&["--profile", "web", "config"])?;
    assert!(web.contains("$$HOME") && web.contains("hi"), "{web}");
    let raw = shop.ok(&["config", "--no-interpolate"])?;
    assert!(raw.contains("db:${TAG:-1}"), "{raw}");
    let relative = shop.ok(&["--profile", "web", "config", "--no-path-resolution"])?;
    assert!(relative.contains("context: ./web\n"), "{relative}");
    let unresolved = shop.ok(&["config", "--no-env-resolution"])?;
    assert!(
        unresolved.contains("env_file") && !unresolved.contains("FROM_FILE"),
        "{unresolved}"
    );
    let environment = shop.ok(&["config", "--environment"])?;
    assert!(
        environment.lines().any(|line| line == "GREETING=hi"),
        "{environment}"
    );
    assert!(
        environment
            .lines()
            .any(|line| line == "COMPOSE_PROJECT_NAME=shop"),
        "{environment}"
    );
    let variables = shop.ok(&["config", "--variables"])?;
    let rows: Vec<Vec<&str>> = variables
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(
        rows.contains(&vec!["GREETING", "true"]) && rows.contains(&vec!["TAG", "false", "1"]),
        "{variables}"
    );
    let all = shop.ok(&["--profile", "web", "config", "--hash", "*"])?;
    let two = shop.ok(&["--profile", "web", "config", "--hash", "db,web"])?;
    assert_eq!((all.lines().count(), &all), (2, &two));
    shop.fails(&["config", "--hash", "nothing"], 1, &["no such service"])?;
    shop.fails(
        &["config", "--no-interpolate", "--images"],
        1,
        &["cannot be combined"],
    )?;
    shop.fails(&["config", "nothing"], 1, &["no such service"])?;
    shop.fails(&["--profile", "broken", "config"], 1, &["nothing"])?;
    shop.ok(&["--profile", "broken", "config", "--no-consistency", "-q"])?;
    // A version.
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(shop.ok(&["version", "--short"])?, format!("{version}\n"));
    assert_eq!(
        shop.ok(&["version", "-f", "json"])?,
        format!("{{\"version\":\"{version}\"}}\n")
    );
    assert!(shop.ok(&["version"])?.contains(version));
    Ok(())
}

fn flags(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        "services:\n  web: {image: '${IMAGE:-tiny}', command: [echo, '${WORD:-none}']}\n",
    )?;
    shop.write("own.env", "WORD=own\nIMAGE=tiny\n")?;
    shop.write("more.env", "WORD=more\n")?;
    shop.write(".env", "WORD=usual\n")?;
    shop.write(
        "extra.yaml",
        "services: {web: {labels: {extra: 'yes'}}, tool: {image: tiny, profiles: [tools]}}\n",
    )?;
    let elsewhere = tempfile::tempdir()?;
    let dir = shop.path("");
    let dir = dir.to_string_lossy();
    let contains = |words: &[&str], text: &str| -> Tested {
        let output = shop.command_in(elsewhere.path(), words)?.output()?;
        let printed = String::from_utf8_lossy(&output.stdout);
        match output.status.success() && printed.contains(text) {
            true => Ok(()),
            false => Err(format!("{words:?}: no {text:?} in {output:?}").into()),
        }
    };
    let file = shop.path("compose.yaml");
    let file = file.to_string_lossy();
    let extra = shop.path("extra.yaml");
    let extra = extra.to_string_lossy();
    let [own, more] = [shop.path("own.env"), shop.path("more.env")].map(|path| path.display().to_string());
    contains(&["--project-directory", &dir, "config"], "- usual")?;
    contains(&["-f", &file, "config"], "- usual")?;
    contains(&["-f", &file, "--env-file", &own, "config"], "- own")?;
    contains(
        &["-f", &file, "--env-file", &own, "--env-file", &more, "config"],
        "- more",
    )?;
    contains(&["-f", &file, "-f", &extra, "config"], "extra: 'yes'")?;
    contains(
        &[
            "-f",
            &file,
            "-f",
            &extra,
            "--profile",
            "tools",
            "config",
            "--services",
        ],
        "tool",
    )?;
    contains(&["-f", &file, "-p", "mine", "config"], "name: mine")?;
    contains(
        &["--file", &file, "--project-name", "mine", "config"],
        "name: mine",
    )?;
    let mut command = shop.command_in(elsewhere.path(), &["config", "--services"])?;
    command
        .env("COMPOSE_FILE", format!("{file}:{extra}"))
        .env("COMPOSE_PROFILES", "tools");
    let output = command.output()?;
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "tool\nweb\n",
        "{output:?}"
    );
    let mut command = shop.command_in(
        elsewhere.path(),
        &["-f", "-", "-p", "piped", "config", "--images"],
    )?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child
        .stdin
        .take()
        .ok_or("no stdin")?
        .write_all(b"services: {x: {image: piped}}")?;
    assert_eq!(child.wait_with_output()?.stdout, b"piped\n");
    shop.fails(&["-p", "Not Normal", "config"], 1, &["Not Normal"])?;
    shop.fails(&["-f", "missing.yaml", "config"], 1, &["missing.yaml"])?;
    shop.fails(&["--parallel", "x", "up"], 125, &["--parallel"])?;
    // Everything at once or one thing after the other: it is the same in the end.
    shop.ok(&["--parallel", "1", "up", "-d", "--scale", "web=3"])?;
    assert_eq!(shop.states()?.len(), 3);
    Ok(())
}

fn progress(tiny: &Tiny) -> Tested {
    let shop = Project::new(tiny, "services:\n  web: {image: tiny, command: [sleep, '100']}\n")?;
    let up = |form: &str| shop.run(&["--progress", form, "up", "-d", "--force-recreate", "-t", "0"]);
    let plain = up("plain")?;
    assert!(
        plain.stderr.contains(" Container shop-web-1 Started\n"),
        "{plain:?}"
    );
    assert_eq!(up("quiet")?.stderr, "");
    for line in up("json")?.stderr.lines() {
        let line: Value = serde_json::from_str(line)?;
        assert!(
            line["id"].is_string() && line["status"].is_string() && line["text"].is_string(),
            "{line}"
        );
    }
    assert!(!up("tty")?.stderr.contains('\x1b'), "there is no terminal");
    // On a terminal it is drawn anew, a line a thing; unless that is not wanted.
    let file = shop.path("compose.yaml");
    let file = file.to_string_lossy();
    let forms: [(&[&str], bool); 4] = [
        (&[], true),
        (&["--progress", "tty"], true),
        (&["--progress", "plain"], false),
        (&["--ansi", "never"], false),
    ];
    for (flags, drawn) in forms {
        let up = ["up", "-d", "--force-recreate", "-t", "0"];
        let words: Vec<&str> = ["-f", &file].iter().chain(flags).chain(&up).copied().collect();
        let mut screen = Terminal::start(&shop.command(&words)?, 40, 120)?;
        let last = match drawn {
            true => "✔ Container shop-web-1 Started",
            false => " Container shop-web-1 Started",
        };
        screen.expect(last, SOON)?;
        let seen = screen.until(SOON, |seen| seen.contains("Started").then(|| seen.to_owned()))?;
        assert_eq!(screen.wait(SOON)?.code(), Some(0), "{flags:?}");
        assert_eq!(seen.contains("\x1b["), drawn, "{flags:?}: {seen:?}");
        assert_eq!(seen.contains("[+] up "), drawn, "{flags:?}: {seen:?}");
        assert_eq!(seen.contains('✔'), drawn, "{flags:?}: {seen:?}");
    }
    let down = shop.run(&["--progress", "quiet", "down", "-t", "0"])?;
    assert_eq!((down.code, &*down.stderr), (Some(0), ""));
    Ok(())
}
