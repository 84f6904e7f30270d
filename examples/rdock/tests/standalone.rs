//! A crate of somebody else, outside the workspace, that depends on `rdock-runtime` and nothing more.

use crate::fixtures::Name;
use crate::program::{Cannot, Stage, Tested, needs_root, success};
use crate::tutorial::OTHER_USER;
use libtest_mimic::Trial;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// The tests of this file.
pub(crate) fn trials(stage: &Arc<Stage>) -> Vec<Trial> {
    vec![stage.trial("crate_with_rdock_runtime_alone_runs_a_database", runs_a_database)]
}

/// What the documentation promises as a first program.
const PROGRAM: &str = r#"
use rdock_runtime::{ContainerSpec, PortMapping, Ready, Runtime, blocking};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::open_default()?;
    blocking::wait(async {
        let db = ContainerSpec::new("mysql:8")
            .env("MYSQL_ROOT_PASSWORD", "1234")
            .publish(PortMapping::tcp(3306))
            .ready_when(Ready::port(3306))
            .start(&runtime)
            .await?;
        let url = format!("mysql://root:1234@{}", db.host_addr(3306)?);
        let out = db.exec(["mysql", "-p1234", "-e", "select 40 + 2"]).output().await?;
        println!("{url}\n{}", String::from_utf8_lossy(&out.stdout));
        Ok::<_, rdock_runtime::Error>(())
    })??;
    Ok(())
}
"#;

fn runs_a_database(stage: &Stage) -> Tested {
    needs_root(OTHER_USER)?;
    let rdock = stage.with(&[Name::Mysql])?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !workspace.join("Cargo.lock").exists() {
        return Err(Cannot("the sources are not on this machine".into()).into());
    }
    let dir = tempfile::tempdir()?;
    let manifest = format!(
        "[package]\nname = \"somebody\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\nrdock-runtime = {{ path = {:?} }}\n",
        workspace.join("rdock-runtime")
    );
    fs::write(dir.path().join("Cargo.toml"), manifest)?;
    // The same versions as here, which are on this machine.
    fs::copy(workspace.join("Cargo.lock"), dir.path().join("Cargo.lock"))?;
    fs::create_dir(dir.path().join("src"))?;
    fs::write(dir.path().join("src/main.rs"), PROGRAM)?;
    let target = target()?.join("standalone");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--offline"])
        .current_dir(dir.path())
        .env("CARGO_TARGET_DIR", &target);
    let built = cargo
        .output()
        .map_err(|error| Cannot(format!("no cargo on this machine: {error}")))?;
    success(&cargo, &built)?;

    let mut program = Command::new(target.join("debug/somebody"));
    rdock.environment(&mut program);
    let output = program.output()?;
    let printed = success(&program, &output)?;
    assert!(printed.starts_with("mysql://root:1234@127.0.0.1:"), "{printed}");
    assert!(printed.contains("40 + 2\n42\n"), "{printed}");
    Ok(())
}

/// Cargo's target folder, in which this test program lies.
fn target() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let me = std::env::current_exe()?;
    let target = me
        .ancestors()
        .nth(3)
        .ok_or("no target folder above the test program")?;
    Ok(target.to_owned())
}
