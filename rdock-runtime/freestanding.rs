//! For build scripts: compiles a freestanding static program.
//!
//! It calls the compiler itself instead of describing a nested package, so that the sources stay in their
//! package, and so that no flag or wrapper meant for the host program reaches them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `source` for cargo's target into `out`; what every linker said when none can do it.
pub(crate) fn compile(name: &str, source: &str, out: &Path) -> Result<(), String> {
    let target = env::var("TARGET").map_err(|_| "TARGET is not set")?;
    let rustc = PathBuf::from(env::var_os("RUSTC").ok_or("RUSTC is not set")?);
    let mut failures = String::new();
    for linker in linkers(&rustc, &target) {
        match compile_with(&rustc, &target, &linker, name, source, out) {
            Ok(()) => return Ok(()),
            Err(failure) => failures.push_str(&format!("with linker {linker:?}: {failure}\n")),
        }
    }
    Err(format!("for {target}:\n{failures}"))
}

/// The configured linker, rustc's own lld, then the C compiler.
fn linkers(rustc: &Path, target: &str) -> Vec<String> {
    let mut linkers: Vec<String> = env::var("RUSTC_LINKER").into_iter().collect();
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output();
    if let Ok(output) = sysroot {
        let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let host = env::var("HOST").unwrap_or_else(|_| target.to_owned());
        let lld = root.join("lib/rustlib").join(host).join("bin/rust-lld");
        if lld.exists() {
            linkers.push(lld.to_string_lossy().into_owned());
        }
    }
    linkers.push("cc".into());
    linkers
}

fn compile_with(
    rustc: &Path,
    target: &str,
    linker: &str,
    name: &str,
    source: &str,
    out: &Path,
) -> Result<(), String> {
    let mut command = Command::new(rustc);
    command
        .args([
            "--edition=2024",
            "--crate-type=bin",
            "--crate-name",
            name,
            "--target",
            target,
        ])
        .args([
            "-Copt-level=s",
            "-Clto=fat",
            "-Cpanic=abort",
            "-Ccodegen-units=1",
            "-Cstrip=symbols",
        ])
        .args([
            "-Crelocation-model=static",
            "-Ctarget-feature=+crt-static",
            "-Cforce-unwind-tables=no",
        ])
        .arg(format!("-Clinker={linker}"))
        .arg(source)
        .arg("-o")
        .arg(out);
    if linker.ends_with("lld") {
        command.args(["-Clinker-flavor=ld.lld", "-Clink-args=-nostdlib -static"]);
    } else {
        command.args(["-Clink-args=-nostartfiles -nostdlib -static"]);
    }
    if target.contains("musl") {
        command.arg("-Clink-self-contained=no");
    }
    for variable in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_LINKER",
    ] {
        command.env_remove(variable);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
