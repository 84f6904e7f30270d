//! What attributes of a compose file do to the containers: seen from inside, and by `inspect`.

use crate::compose_project::{Project, SOON};
use crate::program::Tested;
use crate::pty::Terminal;
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "compose_annotations_labels_and_interfaces_are_those_of_the_file",
            described,
        ),
        trial("compose_links_are_names_of_the_linking_service_alone", links),
        trial("compose_up_asks_the_program_that_provides_a_service", provider),
        trial("compose_builds_are_drawn_on_a_terminal", drawn_build),
    ]
}

fn described(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  web:
    image: tiny
    command: [trap, "15", "0", ",", sleep, "100"]
    annotations: {org.example.kept: "yes"}
    networks: {default: {interface_name: lan0}}
    volumes: [{type: volume, target: /data, volume: {labels: {made: by-compose}}}]
"#,
    )?;
    let up = shop.run(&["up", "-d"])?;
    assert_eq!(up.code, Some(0), "{up:?}");
    assert!(!up.stderr.contains("WARNING"), "{up:?}");
    let inspect = |words: &[&str]| -> Result<Value, Box<dyn std::error::Error>> {
        let words: Vec<&str> = ["inspect"].iter().chain(words).copied().collect();
        Ok(serde_json::from_str(&tiny.run(&words)?.stdout)?)
    };
    let shown = inspect(&["shop-web-1"])?;
    assert_eq!(shown[0]["HostConfig"]["Annotations"]["org.example.kept"], "yes");
    let volume = shown[0]["Mounts"][0]["Name"].as_str().ok_or("no volume")?;
    let volume = inspect(&["--type", "volume", volume])?;
    assert_eq!(volume[0]["Labels"]["made"], "by-compose", "{volume}");
    let seen = shop.ok(&["exec", "-T", "web", "/payload", "ls", "/sys/class/net"])?;
    let mut seen: Vec<&str> = seen.split_whitespace().collect();
    seen.sort_unstable();
    assert_eq!(seen, ["lan0", "lo"]);
    shop.ok(&["down", "-v", "-t", "0"])?;
    tiny.nothing_left()
}

fn links(tiny: &Tiny) -> Tested {
    if !rustix::process::geteuid().is_root() {
        return Err(crate::program::Cannot("needs root: a network that containers share".into()).into());
    }
    let shop = Project::new(
        tiny,
        r#"
services:
  first: {image: tiny, command: [serve, "80", "the first"]}
  second: {image: tiny, command: [serve, "80", "the second"]}
  one: {image: tiny, command: [sleep, "100"], links: ["first:store"]}
  two: {image: tiny, command: [sleep, "100"], links: ["second:store"], external_links: ["outside:far"]}
networks: {default: {internal: true}}
"#,
    )?;
    shop.ok(&["up", "-d"])?;
    let inspect = |name: &str| -> Result<Value, Box<dyn std::error::Error>> {
        let shown: Value = serde_json::from_str(&tiny.run(&["inspect", name])?.stdout)?;
        Ok(shown[0]["NetworkSettings"]["Networks"]["shop_default"].clone())
    };
    let links = inspect("shop-two-1")?["Links"].to_string();
    assert_eq!(
        links,
        r#"["second:store","shop-second-1:second-1","outside:far"]"#
    );
    // What the names lead to is tested in the runtime; that nobody else has them is seen here.
    for name in ["shop-first-1", "shop-second-1"] {
        let aliases = inspect(name)?["Aliases"].to_string();
        assert!(!aliases.contains("store"), "{name}: {aliases}");
    }
    shop.ok(&["down", "-t", "0"])?;
    Ok(())
}

/// Written by another process: a file that a child forked meanwhile still has open for writing cannot be run.
fn program(shop: &Project<'_>, name: &str, script: &str) -> Tested {
    let mut writer = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(shop.path(name))
        .stdin(Stdio::piped())
        .spawn()?;
    let mut stdin = writer.stdin.take().ok_or("no stdin")?;
    stdin.write_all(format!("#!/bin/sh\n{script}\n").as_bytes())?;
    drop(stdin);
    match writer.wait()?.success() {
        true => Ok(()),
        false => Err("the program could not be written".into()),
    }
}

fn provider(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  db:
    provider: {type: cloud, options: {size: 2}}
  web:
    image: tiny
    command: [env]
    depends_on: [db]
"#,
    )?;
    program(
        &shop,
        "cloud",
        r#"
echo "$*" >>calls
[ "$2" = metadata ] && exit 1
echo '{"type":"info","message":"half of it"}'
echo "{\"type\":\"setenv\",\"message\":\"URL=$(cat url)\"}"
"#,
    )?;
    shop.write("url", "here")?;
    let path = format!(
        "{}:{}",
        shop.path("").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let run = |words: &[&str]| -> Result<crate::tiny::Done, Box<dyn std::error::Error>> {
        Ok(shop.command(words)?.env("PATH", &path).output()?.into())
    };
    let dry = run(&["--dry-run", "up", "-d"])?;
    assert!(dry.stdout.contains("ask the provider of db for up"), "{dry:?}");
    assert!(!shop.path("calls").exists());
    let up = run(&["up"])?;
    assert_eq!(up.code, Some(0), "{up:?}");
    for line in [" db Creating\n", " db half of it\n", " db Created\n"] {
        assert!(up.stderr.contains(line), "{line:?}: {up:?}");
    }
    assert!(up.stdout.contains("| DB_URL=here\n"), "{up:?}");
    // Nothing has changed: the container is the same one; and another with another variable.
    let id = shop.id("shop-web-1")?;
    assert_eq!(run(&["up", "-d"])?.code, Some(0));
    assert_eq!(shop.id("shop-web-1")?, id);
    shop.write("url", "there")?;
    let up = run(&["up"])?;
    assert!(up.stdout.contains("| DB_URL=there\n"), "{up:?}");
    let down = run(&["down"])?;
    assert!(down.stderr.contains(" db Removed\n"), "{down:?}");
    let calls = std::fs::read_to_string(shop.path("calls"))?;
    assert_eq!(
        calls.lines().last(),
        Some("compose --project-name=shop down --size=2 db")
    );
    // Without the program nothing is made.
    shop.fails(
        &["up", "-d"],
        1,
        &["services.db", "neither a plug-in docker-cloud"],
    )?;
    assert_eq!(shop.states()?, Vec::<String>::new());
    tiny.nothing_left()
}

fn drawn_build(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  one: {build: {dockerfile_inline: "FROM tiny\nLABEL a=b\n"}, command: [sleep, "100"]}
  two: {build: {dockerfile_inline: "FROM tiny\nENV a=b\nWORKDIR /there\n"}, command: [sleep, "100"]}
"#,
    )?;
    let file = shop.path("compose.yaml").display().to_string();
    let mut screen = Terminal::start(&shop.command(&["-f", &file, "up", "-d"])?, 40, 120)?;
    let seen = screen.until(SOON, |seen| {
        seen.contains("shop-two-1 Started").then(|| seen.to_owned())
    });
    let seen = seen?;
    assert_eq!(screen.wait(SOON)?.code(), Some(0), "{seen}");
    for part in [
        "[+] Building ",
        "[+] up ",
        "✔ Image shop-one Built",
        "✔ Image shop-two Built",
    ] {
        assert!(seen.contains(part), "{part:?}: {seen}");
    }
    assert!(!seen.contains("#1 "), "{seen}");
    shop.ok(&["down", "-t", "0", "--rmi", "local"])?;
    Ok(())
}
