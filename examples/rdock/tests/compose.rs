//! `rdock compose config`, also through a link named docker-compose.

use crate::program::Tested;
use libtest_mimic::Trial;
use std::path::PathBuf;
use std::process::{Command, Output};
use tempfile::TempDir;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "compose_config_prints_the_project",
            || Ok(prints().map_err(text)?),
        ),
        Trial::test("compose_config_through_a_link_named_docker_compose", || {
            Ok(link().map_err(text)?)
        }),
        Trial::test("compose_config_says_where_a_mistake_is", || {
            Ok(mistake().map_err(text)?)
        }),
    ]
}

fn text(error: Box<dyn std::error::Error>) -> String {
    error.to_string()
}

fn rdock() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).ok_or("no target folder")?;
    Ok(target.join("examples/rdock"))
}

fn shop() -> Result<TempDir, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let file = "name: shop\nservices:\n  db: {image: 'mysql:${TAG:-8}'}\n  app: {build: ., depends_on: [db], profiles: [web]}\nvolumes: {data: {}}\n";
    std::fs::write(dir.path().join("compose.yaml"), file)?;
    Ok(dir)
}

fn run(program: PathBuf, dir: &TempDir, words: &[&str]) -> Result<Output, Box<dyn std::error::Error>> {
    Ok(Command::new(program)
        .args(words)
        .current_dir(dir)
        .env_remove("COMPOSE_FILE")
        .output()?)
}

fn prints() -> Tested {
    let dir = shop()?;
    for (words, expected) in [
        (&["config", "--services"][..], "db\n"),
        (&["--profile", "web", "config", "--services"], "db\napp\n"),
        (&["--profile", "web", "config", "--images"], "mysql:8\nshop-app\n"),
        (&["config", "--profiles"], "web\n"),
        (&["config", "--volumes"], ""),
        (&["--all-resources", "config", "--volumes"], "data\n"),
        (&["config", "--networks"], "default\n"),
        (&["config", "--quiet"], ""),
        (
            &["config", "--variables"],
            "NAME   REQUIRED   DEFAULT VALUE   ALTERNATE VALUE\nTAG    false      8\n",
        ),
    ] {
        let all: Vec<&str> = ["compose"].iter().chain(words).copied().collect();
        let output = run(rdock()?, &dir, &all)?;
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{words:?}: {output:?}"
        );
    }
    let output = run(rdock()?, &dir, &["compose", "config", "--format", "json"])?;
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        json["services"]["db"]["networks"]["default"],
        serde_json::Value::Null
    );
    assert_eq!(json["networks"]["default"]["name"], "shop_default");
    let output = run(rdock()?, &dir, &["compose", "config", "--hash", "db"])?;
    let line = String::from_utf8(output.stdout)?;
    assert!(line.starts_with("db ") && line.trim_end().len() == 67, "{line}");
    Ok(())
}

fn link() -> Tested {
    let dir = shop()?;
    let link = dir.path().join("docker-compose");
    std::os::unix::fs::symlink(rdock()?, &link)?;
    for flag in ["--version", "-v", "version"] {
        let output = run(link.clone(), &dir, &[flag])?;
        let expected = format!("rdock compose version {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{flag}: {output:?}"
        );
    }
    let help = run(link.clone(), &dir, &[])?;
    assert!(
        help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Usage: "),
        "{help:?}"
    );
    let output = run(link, &dir, &["-p", "other", "config"])?;
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout)?.contains("name: other"));
    Ok(())
}

fn mistake() -> Tested {
    let dir = shop()?;
    std::fs::write(dir.path().join("compose.yaml"), "services:\n  a:\n    imgae: x\n")?;
    let output = run(rdock()?, &dir, &["compose", "config"])?;
    let said = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("compose.yaml:3:5: services.a.imgae: unknown key (did you mean \"image\"?)"),
        "{said}"
    );
    Ok(())
}
