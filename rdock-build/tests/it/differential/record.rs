//! Builds with BuildKit, through `buildctl`.
use super::{Case, Stage, base, image};
use crate::Tested;
use rdock_image::{ExportOptions, Reference};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

/// The secret that cases may mount.
pub(super) const SECRET: (&str, &str) = ("key", "a secret\n");

/// Builds a case at a daemon's address and describes the image, or that there is none.
pub(super) fn build(case: &Case, stage: &Stage, address: &OsStr) -> Tested<Value> {
    let dir = tempfile::tempdir_in(stage.dir.path())?;
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("context"))?;
    case.write_context(&at("context"))?;
    std::fs::write(at("secret"), SECRET.1)?;
    let digest = layout(stage, &at("base"))?;
    let program = std::env::var_os("RDOCK_BUILDCTL").unwrap_or("buildctl".into());
    let mut command = Command::new(program);
    command
        .arg("--addr")
        .arg(address)
        .args(["build", "--progress=plain", "--frontend=dockerfile.v0"]);
    command.arg("--no-cache");
    for (flag, name) in [("context", "context"), ("dockerfile", "context")] {
        command
            .arg("--local")
            .arg(format!("{flag}={}", at(name).display()));
    }
    command
        .arg("--oci-layout")
        .arg(format!("base={}", at("base").display()));
    command
        .arg("--opt")
        .arg(format!("context:{}=oci-layout://base@{digest}", base::NAME));
    command
        .arg("--secret")
        .arg(format!("id={},src={}", SECRET.0, at("secret").display()));
    for (name, value) in &case.args {
        command.arg("--opt").arg(format!("build-arg:{name}={value}"));
    }
    if let Some(target) = &case.target {
        command.arg("--opt").arg(format!("target={target}"));
    }
    let archive = at("image.tar");
    command
        .arg("--output")
        .arg(format!("type=docker,dest={}", archive.display()));
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text
            .lines()
            .rev()
            .find(|line| line.starts_with("error:"))
            .unwrap_or_default();
        if !text.contains("failed to solve") {
            return Err(format!("buildctl: {text}").into());
        }
        return Ok(json!({"error": portable(last.trim_start_matches("error: failed to solve: "))}));
    }
    image::describe_archive(&archive, stage)
}

/// Writes the base image as an OCI image layout and returns its manifest's digest.
fn layout(stage: &Stage, dir: &Path) -> Tested<String> {
    let tar = dir.with_extension("tar");
    let names = vec![Reference::parse(base::NAME)?];
    let options = ExportOptions::default().oci_only(true);
    let report = stage
        .store
        .export(&[(stage.base.clone(), names)], &options, &mut File::create(&tar)?)?;
    std::fs::create_dir(dir)?;
    tar::Archive::new(File::open(&tar)?).unpack(dir)?;
    Ok(report
        .manifests
        .first()
        .ok_or("nothing was exported")?
        .to_string())
}

/// A message without the names of one run: the daemon's directories and its random identifiers.
fn portable(message: &str) -> String {
    let words = message
        .split(' ')
        .map(|word| match word.split_once("/cachemounts/") {
            Some((_, rest)) => rest.split_once('/').map_or("/", |(_, path)| path).to_owned(),
            None if word.contains("::") => "...".to_owned(),
            None => word.to_owned(),
        });
    words.collect::<Vec<_>>().join(" ")
}
