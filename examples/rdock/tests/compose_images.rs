//! `compose build`, `pull` and `push` with a registry, and volumes that are made anew.

use crate::compose_project::Project;
use crate::program::Tested;
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use rdock_registry::server::{RegistryServer, ServerOptions};
use std::io::Write;
use std::process::Stdio;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("compose_build_makes_the_images_that_were_asked_for", build),
        trial("compose_push_and_pull_share_images", share),
        trial("compose_pull_follows_policies", policies),
        trial("compose_up_makes_volumes_anew_when_that_is_agreed_to", volumes),
    ]
}

/// The images that there are, by `REPOSITORY:TAG`.
fn images(tiny: &Tiny) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let shown = tiny.run(&["images"])?.stdout;
    let rows = shown
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut names: Vec<String> = rows
        .filter(|row| row.len() > 1)
        .map(|row| format!("{}:{}", row[0], row[1]))
        .collect();
    names.sort();
    Ok(names)
}

fn build(tiny: &Tiny) -> Tested {
    let shop = Project::new(
        tiny,
        r#"
services:
  base: {build: {context: ., dockerfile_inline: "FROM tiny\nARG WORD=usual\nLABEL word=$${WORD}"}}
  app: {build: {context: ., dockerfile_inline: "FROM tiny\nRUN [\"/payload\", \"write\", \"/made\", \"x\"]"}, image: "named:1", depends_on: [base]}
  plain: {image: tiny}
"#,
    )?;
    let label = |image: &str| -> Result<String, Box<dyn std::error::Error>> {
        Ok(tiny
            .run(&["inspect", "--format", "{{.Config.Labels.word}}", image])?
            .stdout
            .trim()
            .to_owned())
    };
    let done = shop.run(&["build", "app"])?;
    assert!(
        done.code == Some(0) && done.stderr.contains("Image named:1 Built"),
        "{done:?}"
    );
    assert_eq!(images(tiny)?, ["named:1", "tiny:latest"]);
    shop.ok(&["build", "--with-dependencies", "app"])?;
    assert_eq!(images(tiny)?, ["named:1", "shop-base:latest", "tiny:latest"]);
    assert_eq!(label("shop-base")?, "usual");
    shop.ok(&["build", "--build-arg", "WORD=given", "base"])?;
    assert_eq!(label("shop-base")?, "given");
    let mut command = shop.command(&["build", "--build-arg", "WORD", "base"])?;
    let output = command.env("WORD", "exported").output()?;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(label("shop-base")?, "exported");
    let quiet = shop.run(&["build", "-q"])?;
    assert_eq!((quiet.code, &*quiet.stderr), (Some(0), ""));
    let cached = shop.run(&["build", "app"])?;
    assert!(cached.stderr.contains("CACHED"), "{cached:?}");
    let anew = shop.run(&["build", "--no-cache", "app"])?;
    assert!(!anew.stderr.contains("CACHED"), "{anew:?}");
    let none = shop.run(&["build", "plain"])?;
    assert!(
        none.code == Some(0) && none.stderr.contains("No services to build"),
        "{none:?}"
    );
    assert!(
        shop.ok(&["build", "--dry-run"])?
            .contains("build image named:1 of app")
    );
    shop.fails(&["build", "nothing"], 1, &["no such service"])?;
    // `up` and `run` build what is missing, again when told to, and nothing when told not to.
    tiny.run(&["rmi", "shop-base"])?;
    shop.fails(&["up", "-d", "--no-build", "base"], 1, &["shop-base"])?;
    let up = shop.run(&["up", "-d", "--quiet-build", "base"])?;
    assert!(up.code == Some(0) && !up.stderr.contains("Built"), "{up:?}");
    let again = shop.run(&["up", "-d", "base"])?;
    assert!(!again.stderr.contains("Built"), "{again:?}");
    assert!(
        shop.run(&["up", "-d", "--build", "base"])?
            .stderr
            .contains("Built")
    );
    assert!(shop.run(&["create", "--build", "base"])?.stderr.contains("Built"));
    assert!(
        shop.run(&["run", "--rm", "--build", "base"])?
            .stderr
            .contains("Built")
    );
    assert!(!shop.run(&["run", "--rm", "base"])?.stderr.contains("Built"));
    // A build that fails says where, and nothing is made.
    shop.write("compose.yaml", "name: shop\nservices: {bad: {build: {context: ., dockerfile_inline: \"FROM tiny\\nRUN [\\\"/payload\\\", \\\"exit\\\", \\\"7\\\"]\"}}}\n")?;
    shop.fails(&["up", "-d", "--remove-orphans"], 1, &["bad", "7"])
}

fn share(tiny: &Tiny) -> Tested {
    let server = RegistryServer::start(ServerOptions::new(tiny.file("served")))?;
    let host = server.host();
    let shop = Project::new(
        tiny,
        &format!(
            "services:\n  app: {{image: '{host}/app:1', build: {{context: ., dockerfile_inline: 'FROM tiny', tags: ['{host}/app:extra']}}, depends_on: [base]}}\n  base: {{image: '{host}/base', build: {{context: ., dockerfile_inline: 'FROM tiny'}}}}\n  local: {{build: {{context: ., dockerfile_inline: 'FROM tiny'}}}}\n  plain: {{image: tiny}}\n"
        ),
    )?;
    shop.fails(&["push", "app"], 1, &[&format!("{host}/app")])?;
    let ignored = shop.run(&["push", "--ignore-push-failures", "app"])?;
    assert!(
        ignored.code == Some(0) && ignored.stderr.contains("WARNING"),
        "{ignored:?}"
    );
    shop.ok(&["build"])?;
    let told = shop.ok(&["push", "--dry-run"])?;
    assert_eq!(
        told,
        format!("push image {host}/app:1\npush image {host}/app:extra\npush image {host}/base\n")
    );
    shop.ok(&["push", "app"])?;
    assert!(server.tag("app", "1").is_some() && server.tag("app", "extra").is_some());
    assert!(server.tag("base", "latest").is_none());
    let quiet = shop.run(&["push", "-q", "--include-deps", "app"])?;
    assert_eq!((quiet.code, &*quiet.stderr), (Some(0), ""));
    assert!(server.tag("base", "latest").is_some());
    shop.ok(&["build", "--push", "base"])?;

    // Back again.
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| name.replace("HOST", &host))
            .collect::<Vec<_>>()
    };
    for image in ["app:1", "app:extra", "base"] {
        tiny.run(&["rmi", &format!("{host}/{image}")])?;
    }
    tiny.run(&["rmi", "shop-local"])?;
    assert_eq!(images(tiny)?, ["tiny:latest"]);
    shop.ok(&["pull", "app"])?;
    assert_eq!(images(tiny)?, names(&["HOST/app:1", "tiny:latest"]));
    let quiet = shop.run(&["pull", "-q", "--include-deps", "app"])?;
    assert_eq!((quiet.code, &*quiet.stderr), (Some(0), ""));
    assert_eq!(
        images(tiny)?,
        names(&["HOST/app:1", "HOST/base:latest", "tiny:latest"])
    );
    // Without a build, `up` and `run` pull what is missing.
    shop.write(
        "compose.yaml",
        &format!("name: shop\nservices: {{app: {{image: '{host}/app:1', command: [echo, pulled]}}}}\n"),
    )?;
    let pulled = |words: &[&str], pulled: bool| -> Tested {
        let done = shop.run(words)?;
        assert_eq!(done.code, Some(0), "{words:?}: {done:?}");
        assert_eq!(done.stderr.contains("Pulled"), pulled, "{words:?}: {done:?}");
        Ok(())
    };
    pulled(&["run", "--rm", "app"], false)?;
    pulled(&["run", "--rm", "--pull", "always", "app"], true)?;
    pulled(&["run", "--rm", "--pull", "always", "--quiet-pull", "app"], false)?;
    pulled(&["up", "-d", "--pull", "always"], true)?;
    pulled(&["up", "-d", "--pull", "always", "--quiet-pull"], false)?;
    pulled(&["create", "--pull", "missing"], false)?;
    shop.ok(&["down"])?;
    tiny.run(&["rmi", &format!("{host}/app:1")])?;
    shop.fails(&["up", "-d", "--pull", "never"], 1, &["must not be pulled"])?;
    pulled(&["up", "-d"], true)?;
    // What was pulled just now is young enough for a day.
    for (policy, again) in [("daily", false), ("every_0s", true), ("weekly", false)] {
        let policy =
            format!("name: shop\nservices: {{app: {{image: '{host}/app:1', pull_policy: {policy}}}}}\n");
        shop.write("compose.yaml", &policy)?;
        pulled(&["create"], again)?;
    }
    Ok(())
}

fn policies(tiny: &Tiny) -> Tested {
    let server = RegistryServer::start(ServerOptions::new(tiny.file("served")))?;
    let host = server.host();
    for name in ["always", "missing", "never", "built"] {
        let image = format!("{host}/{name}");
        tiny.run(&["tag", "tiny", &image])?;
        assert_eq!(tiny.run(&["push", &image])?.code, Some(0));
    }
    let shop = Project::new(
        tiny,
        &format!(
            "services:\n  always: {{image: '{host}/always'}}\n  missing: {{image: '{host}/missing', pull_policy: missing}}\n  never: {{image: '{host}/never', pull_policy: never}}\n  built: {{image: '{host}/built', build: .}}\n  gone: {{image: '{host}/gone', profiles: [gone]}}\n  made: {{image: '{host}/made', build: ., profiles: [made]}}\n"
        ),
    )?;
    let pulled = |words: &[&str], expected: &[&str]| -> Tested {
        let plan = shop.ok(&[&["--dry-run", "pull"], words].concat())?;
        let mut found: Vec<&str> = plan
            .lines()
            .filter_map(|line| Some(line.split_once("pull image ")?.1.rsplit_once('/')?.1))
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{words:?}: {plan}");
        Ok(())
    };
    pulled(&[], &["always", "built"])?;
    pulled(&["--ignore-buildable"], &["always"])?;
    pulled(&["--policy", "always"], &["always", "built", "missing", "never"])?;
    pulled(&["--policy", "missing"], &[])?;
    tiny.run(&["rmi", &format!("{host}/missing")])?;
    pulled(&[], &["always", "built", "missing"])?;
    pulled(&["--policy", "missing"], &["missing"])?;
    pulled(&["missing"], &["missing"])?;
    let done = shop.run(&["pull"])?;
    assert!(
        done.code == Some(0) && done.stderr.contains(&format!("Image {host}/missing Pulled")),
        "{done:?}"
    );
    shop.fails(&["pull", "--policy", "never"], 1, &["it is always or missing"])?;
    // One that cannot be had; one that can be built is only warned of.
    shop.fails(&["pull", "gone"], 1, &["gone"])?;
    let ignored = shop.run(&["pull", "--ignore-pull-failures", "gone", "always"])?;
    assert!(
        ignored.code == Some(0) && ignored.stderr.contains("WARNING"),
        "{ignored:?}"
    );
    let made = shop.run(&["pull", "made"])?;
    assert!(
        made.code == Some(0) && made.stderr.contains("WARNING"),
        "{made:?}"
    );
    Ok(())
}

fn volumes(tiny: &Tiny) -> Tested {
    let file = |label: &str| {
        format!(
            "name: shop\nservices:\n  web: {{image: tiny, command: [trap, '15', '0', ',', sleep, '100'], volumes: ['data:/kept']}}\n  other: {{image: tiny, command: [trap, '15', '0', ',', sleep, '100']}}\nvolumes: {{data: {{labels: {{made: '{label}'}}}}}}\n"
        )
    };
    let shop = Project::new(tiny, "")?;
    shop.write("compose.yaml", &file("first"))?;
    shop.ok(&["up", "-d"])?;
    shop.ok(&["exec", "-T", "web", "/payload", "write", "/kept/file", "precious"])?;
    let kept = || shop.run(&["exec", "-T", "web", "/payload", "cat", "/kept/file"]);
    let [web, other] = [shop.id("shop-web-1")?, shop.id("shop-other-1")?];
    shop.write("compose.yaml", &file("second"))?;
    let done = shop.run(&["up", "-d"])?;
    assert!(
        done.code == Some(0)
            && done
                .stderr
                .contains("\"shop_data\" was made from another configuration"),
        "{done:?}"
    );
    assert_eq!(
        (shop.id("shop-web-1")?, kept()?.stdout),
        (web.clone(), "precious\n".to_owned())
    );
    let plan = shop.ok(&["up", "-d", "-y", "--dry-run"])?;
    assert!(
        plan.contains("remove volume shop_data") && plan.contains("create volume shop_data"),
        "{plan}"
    );
    assert_eq!(kept()?.stdout, "precious\n");
    shop.ok(&["up", "-d", "-y"])?;
    assert_ne!(shop.id("shop-web-1")?, web);
    assert_eq!((shop.id("shop-other-1")?, kept()?.code), (other, Some(1)));
    assert_eq!(
        shop.ok(&["up", "-d", "-y", "--dry-run"])?,
        "shop: nothing to do\n"
    );
    // What nobody uses is made when that is asked for.
    let mut command = shop.command(&["-f", "-", "--all-resources", "up", "-d", "--dry-run"])?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let text = "name: all\nservices: {a: {image: tiny}}\nvolumes: {unused: {}}\nnetworks: {unused: {}}\n";
    child.stdin.take().ok_or("no stdin")?.write_all(text.as_bytes())?;
    let plan = String::from_utf8(child.wait_with_output()?.stdout)?;
    assert!(
        plan.contains("create volume all_unused") && plan.contains("create network all_unused"),
        "{plan}"
    );
    Ok(())
}
