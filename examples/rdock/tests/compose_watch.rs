//! `compose watch` and `up --watch`: what changes on the host reaches the containers.

use crate::compose_project::Project;
use crate::program::Tested;
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use rustix::process::Signal;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("compose_watch_brings_changes_into_containers", changes),
        trial("compose_up_follows_files_in_the_foreground", foreground),
        trial("compose_watch_says_what_cannot_be_watched", refused),
    ]
}

/// Its command of `sync+exec` shows what has arrived.
const WEB: &str = r#"
services:
  web:
    image: web
    build: {context: ., dockerfile_inline: "FROM tiny\nCOPY version /version\n"}
    command: [trap, "15", "0", ",", echo, started, ",", sleep, "100"]
    develop:
      watch:
        - path: src
          action: sync+exec
          target: /app
          initial_sync: true
          ignore: [skipped/]
          exec: {command: [/payload, cat, /app/deep/new]}
        - {path: conf/web.conf, action: sync+restart, target: /etc/web.conf}
        - {path: version, action: rebuild}
"#;

fn shop<'a>(tiny: &'a Tiny, file: &str) -> Result<Project<'a>, Box<dyn std::error::Error>> {
    let shop = Project::new(tiny, file)?;
    for folder in ["src/deep", "src/skipped", "conf"] {
        std::fs::create_dir_all(shop.path(folder))?;
    }
    for (name, text) in [
        ("src/first", "from the start"),
        ("src/deep/new", "not yet"),
        ("src/skipped/x", "never"),
        ("conf/web.conf", "one"),
        ("version", "1"),
    ] {
        shop.write(name, text)?;
    }
    Ok(shop)
}

/// There at once, as editors do it: nothing is seen half-written.
fn put(shop: &Project<'_>, name: &str, text: &str) -> std::io::Result<()> {
    shop.write("written", text)?;
    std::fs::rename(shop.path("written"), shop.path(name))
}

fn changes(tiny: &Tiny) -> Tested {
    let shop = shop(tiny, WEB)?;
    let read = |path: &str| shop.ok(&["exec", "-T", "web", "/payload", "cat", path]);
    let mut watch = shop.listen(&["watch"])?;
    watch.until("Watch enabled")?;
    assert_eq!(read("/app/first")?.trim(), "from the start");
    assert!(read("/app/skipped/x").is_err());

    // Through a file that editors have while they work; and a folder that is new.
    std::fs::create_dir(shop.path("src/other"))?;
    put(&shop, "src/deep/.new.swp", "arrived")?;
    std::fs::rename(shop.path("src/deep/.new.swp"), shop.path("src/deep/new"))?;
    let said = watch.until("Syncing service \"web\"")?;
    assert!(said.starts_with(" ⦿ "), "{said}");
    watch.until("arrived")?;
    assert!(read("/app/deep/.new.swp").is_err());
    // The new folder is watched too.
    put(&shop, "src/other/late", "of a new folder")?;
    watch.until("Syncing service \"web\"")?;
    watch.until("arrived")?;
    assert_eq!(read("/app/other/late")?.trim(), "of a new folder");

    let logs = shop.ok(&["logs", "web"])?;
    assert_eq!(logs.matches("started").count(), 1, "{logs}");
    put(&shop, "conf/web.conf", "two")?;
    watch.until("service(s) [\"web\"] restarted")?;
    assert_eq!(read("/etc/web.conf")?.trim(), "two");

    let id = shop.id("shop-web-1")?;
    put(&shop, "version", "2")?;
    watch.until("Rebuilding service(s) [\"web\"] after changes were detected...")?;
    watch.until("service(s) [\"web\"] successfully built")?;
    watch.until("Container shop-web-1 Started")?;
    assert_ne!(shop.id("shop-web-1")?, id);
    assert_eq!(read("/version")?.trim(), "2");

    watch.signal(Signal::INT)?;
    let (code, said) = watch.end()?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with(" ⦿ Watch disabled"), "{said}");
    // What it made stays.
    assert_eq!(shop.states()?, ["shop-web-1 running"]);
    Ok(())
}

fn foreground(tiny: &Tiny) -> Tested {
    let shop = shop(tiny, WEB)?;
    let mut up = shop.listen(&["up", "--watch"])?;
    up.until("web-1  | started")?;
    up.until_heard("Watch enabled")?;
    put(&shop, "src/deep/new", "arrived")?;
    up.until("arrived")?;
    // It goes on with the container that takes the place of the other.
    put(&shop, "version", "2")?;
    up.until("web-1  | started")?;
    up.signal(Signal::INT)?;
    let (code, said) = up.end()?;
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("⦿ Watch disabled"), "{said}");
    assert_eq!(shop.states()?, ["shop-web-1 exited"]);
    Ok(())
}

fn refused(tiny: &Tiny) -> Tested {
    let plain = Project::new(tiny, "services: {web: {image: tiny, command: [sleep, '100']}}\n")?;
    let nothing = "none of the selected services is configured for watch";
    plain.fails(&["watch"], 1, &[nothing])?;
    plain.fails(&["up", "--watch"], 1, &[nothing])?;
    plain.fails(&["up", "--watch", "-d"], 1, &["--watch cannot be combined"])?;
    assert_eq!(plain.states()?, Vec::<String>::new());
    plain.write(
        "other.yaml",
        "name: shop\nservices: {web: {image: tiny, develop: {watch: [{path: ., action: rebuild}]}}}\n",
    )?;
    plain.fails(&["-f", "other.yaml", "watch"], 1, &["without a build context"])?;
    plain.write(
        "third.yaml",
        "name: shop\nservices: {web: {image: tiny, develop: {watch: [{path: gone, action: restart}]}}}\n",
    )?;
    plain.fails(&["-f", "third.yaml", "watch"], 1, &["cannot watch", "gone"])
}
