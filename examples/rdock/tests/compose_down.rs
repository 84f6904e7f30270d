//! `compose down`, and verbs that know a name alone, or only say what they would do.

use crate::compose_project::{PAIR, Project};
use crate::program::{Tested, needs_root};
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("compose_down_removes_what_it_is_told_to", down),
        trial("compose_verbs_need_no_file_for_a_name", no_file),
        trial("compose_dry_run_changes_nothing", dry_run),
    ]
}

fn down(tiny: &Tiny) -> Tested {
    needs_root("a container in two networks")?;
    let file = r#"
services:
  web:
    image: tiny
    command: [trap, "15", "0", ",", sleep, "100"]
    volumes: [data:/data, foreign:/foreign, /anonymous]
    networks: [default, foreign]
  tool: {image: tiny, command: [sleep, "100"], profiles: [tools]}
  gone: {image: tiny, command: [trap, "15", "0", ",", sleep, "100"]}
volumes:
  data: {}
  foreign: {external: true, name: theirs}
networks:
  foreign: {external: true, name: theirs}
"#;
    let shop = Project::new(tiny, file)?;
    shop.fails(&["up", "-d"], 1, &["external", "theirs"])?;
    tiny.run(&["volume", "create", "theirs"])?;
    shop.fails(
        &["up", "-d"],
        1,
        &["the external network \"theirs\" is not there"],
    )?;
    tiny.run(&["network", "create", "theirs"])?;
    let volumes = || -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let names = tiny.run(&["volume", "ls", "-q"])?.stdout;
        let short = |name: &str| if name.len() == 64 { "anonymous" } else { name }.to_owned();
        let mut names: Vec<String> = names.lines().map(short).collect();
        names.sort();
        Ok(names)
    };
    let networks = || -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let lines = tiny.run(&["network", "ls"])?.stdout;
        let names = lines.lines().skip(1);
        let mut names: Vec<String> = names
            .filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned))
            .collect();
        names.retain(|name| !["bridge", "default", "host", "none"].contains(&name.as_str()));
        names.sort();
        Ok(names)
    };
    let up = || shop.ok(&["up", "-d"]);
    up()?;
    shop.ok(&["run", "-d", "web", "sleep", "100"])?;
    assert_eq!(shop.states()?.len(), 3);
    // One service alone: what others may use stays.
    shop.ok(&["down", "-t", "0", "gone"])?;
    assert_eq!(shop.states()?.len(), 2);
    assert_eq!(networks()?, ["shop_default", "theirs"]);
    // Everything, those of `run` too; named volumes stay without -v, and so do anonymous ones.
    shop.ok(&["down", "-t", "0"])?;
    assert_eq!(
        (shop.states()?.len(), networks()?),
        (0, vec!["theirs".to_owned()])
    );
    let left = volumes()?;
    assert!(
        left.contains(&"shop_data".to_owned()) && left.contains(&"theirs".to_owned()),
        "{left:?}"
    );
    assert_eq!(
        left.iter().filter(|name| *name == "anonymous").count(),
        2,
        "{left:?}"
    );
    tiny.run(&["volume", "prune", "-f"])?;
    up()?;
    // An orphan stays, and with it its network.
    shop.write(
        "compose.yaml",
        &format!(
            "name: shop\n{}",
            file.replace("  gone:", "  x-gone:").replace(
                "  x-gone: {image: tiny, command: [trap, \"15\", \"0\", \",\", sleep, \"100\"]}\n",
                ""
            )
        ),
    )?;
    let done = shop.run(&["down", "-v", "-t", "0"])?;
    assert!(
        done.code == Some(0) && done.stderr.contains("shop-gone-1"),
        "{done:?}"
    );
    assert_eq!(shop.states()?, ["shop-gone-1 running"]);
    assert_eq!(networks()?, ["shop_default", "theirs"]);
    assert_eq!(
        volumes()?,
        ["theirs"],
        "-v takes named and anonymous ones, and nobody else's"
    );
    shop.ok(&["down", "--remove-orphans", "-t", "0"])?;
    assert_eq!(
        (shop.states()?.len(), networks()?),
        (0, vec!["theirs".to_owned()])
    );
    // What a container of somebody else uses stays, and down says so.
    up()?;
    tiny.run(&[
        "run",
        "-d",
        "--name",
        "guest",
        "--network",
        "shop_default",
        "-v",
        "shop_data:/d",
        "tiny",
        "sleep",
        "100",
    ])?;
    let done = shop.run(&["down", "-v", "-t", "0"])?;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.stderr.contains("\"shop_default\" stays") && done.stderr.contains("\"shop_data\" stays"),
        "{done:?}"
    );
    tiny.run(&["rm", "-f", "guest"])?;
    shop.ok(&["down", "-v"])?;
    assert_eq!(
        (networks()?, volumes()?),
        (vec!["theirs".to_owned()], vec!["theirs".to_owned()])
    );
    shop.fails(&["down", "nothing"], 1, &["no such service"])?;
    let done = shop.run(&["down"])?;
    assert_eq!(done.code, Some(0), "nothing to do is no error: {done:?}");

    // Images.
    std::fs::write(
        shop.path("Dockerfile"),
        "FROM tiny\nCMD [\"trap\", \"15\", \"0\", \",\", \"sleep\", \"100\"]\n",
    )?;
    tiny.run(&["tag", "tiny", "named"])?;
    shop.write(
        "compose.yaml",
        "name: shop\nservices:\n  own: {build: .}\n  named: {image: named, command: [sleep, '100']}\n",
    )?;
    let images = || -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let lines = tiny.run(&["images"])?.stdout;
        let names = lines.lines().skip(1);
        let mut names: Vec<String> = names
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    };
    up()?;
    assert_eq!(images()?, ["named", "shop-own", "tiny"]);
    shop.ok(&["down", "-t", "0", "--rmi", "local"])?;
    assert_eq!(images()?, ["named", "tiny"]);
    up()?;
    // A name is all that is known, and containers say which images they have.
    let elsewhere = tempfile::tempdir()?;
    let output = shop
        .command_in(
            elsewhere.path(),
            &["-p", "shop", "down", "-t", "0", "--rmi", "all"],
        )?
        .output()?;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(images()?, ["tiny"]);
    tiny.run(&["network", "rm", "theirs"])?;
    tiny.run(&["volume", "rm", "theirs"])?;
    tiny.nothing_left()
}

fn no_file(tiny: &Tiny) -> Tested {
    needs_root("containers that stand still")?;
    let shop = Project::new(tiny, PAIR)?;
    let elsewhere = tempfile::tempdir()?;
    let there = |words: &[&str]| -> Result<String, Box<dyn std::error::Error>> {
        let words: Vec<&str> = ["-p", "shop"].iter().chain(words).copied().collect();
        let output = shop.command_in(elsewhere.path(), &words)?.output()?;
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout)?),
            false => Err(format!("{words:?}: {output:?}").into()),
        }
    };
    shop.ok(&["up", "-d"])?;
    let states = || there(&["ps", "-a", "--format", "{{.Name}} {{.State}}"]);
    assert_eq!(states()?, "shop-db-1 running\nshop-web-1 running\n");
    assert_eq!(there(&["ps", "-q", "web"])?.trim(), shop.id("shop-web-1")?);
    let mut logs = shop.listen(&["logs", "-f"])?;
    logs.until("web ready")?;
    assert_eq!(there(&["logs", "web"])?, "web-1  | web ready\n");
    assert_eq!(there(&["exec", "web", "/payload", "echo", "hi"])?, "hi\n");
    assert!(there(&["top"])?.contains("\nweb "));
    assert!(there(&["images"])?.contains("shop-web-1"));
    for (words, db, web) in [
        (&["stop", "web"][..], "running", "exited"),
        (&["start", "web"], "running", "running"),
        (&["restart"], "running", "running"),
        (&["pause"], "paused", "paused"),
        (&["unpause"], "running", "running"),
        (&["kill"], "exited", "exited"),
        (&["start"], "running", "running"),
    ] {
        there(words)?;
        if words == ["kill"] {
            tiny.run(&["wait", "shop-db-1", "shop-web-1"])?;
        }
        assert_eq!(
            states()?,
            format!("shop-db-1 {db}\nshop-web-1 {web}\n"),
            "{words:?}"
        );
    }
    there(&["rm", "-fs", "web"])?;
    assert_eq!(states()?, "shop-db-1 running\n");
    there(&["down"])?;
    assert_eq!(states()?, "");
    let output = shop.command_in(elsewhere.path(), &["ps"])?.output()?;
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no "),
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(1));
    tiny.nothing_left()
}

fn dry_run(tiny: &Tiny) -> Tested {
    let shop = Project::new(tiny, PAIR)?;
    let plan = shop.ok(&["--dry-run", "up", "-d"])?;
    assert!(
        plan.contains("create container shop-web-1") && plan.contains("because it is not there"),
        "{plan}"
    );
    assert_eq!(shop.states()?, [""; 0]);
    assert_eq!(shop.ok(&["up", "--dry-run"])?, plan);
    shop.ok(&["up", "-d"])?;
    let before = shop.states()?;
    let did = |words: &[&str], said: &str| -> Tested {
        let all: Vec<&str> = ["--dry-run"].iter().chain(words).copied().collect();
        let told = shop.ok(&all)?;
        assert!(told.contains(said), "{words:?}: {told}");
        assert_eq!(shop.states()?, before, "{words:?}");
        Ok(())
    };
    did(&["up", "-d"], "nothing to do")?;
    did(&["down", "-v"], "remove container shop-web-1")?;
    did(&["stop"], "stop container shop-web-1")?;
    did(&["kill"], "send SIGKILL to container shop-db-1")?;
    did(&["restart", "web"], "restart container shop-web-1")?;
    did(&["pause"], "pause container shop-db-1")?;
    did(&["rm", "-s"], "remove container shop-db-1")?;
    did(&["scale", "web=2"], "create container shop-web-2")?;
    did(&["create", "--force-recreate"], "rename container")?;
    did(&["run", "web", "exit", "1"], "create container shop-web-run-")?;
    did(
        &["exec", "web", "/payload", "exit", "1"],
        "exec in container shop-web-1",
    )?;
    did(&["cp", "compose.yaml", "web:/data"], "copy compose.yaml")?;
    did(&["pull"], "pull image tiny")?;
    did(&["commit", "web", "made"], "commit container shop-web-1")?;
    Ok(())
}
