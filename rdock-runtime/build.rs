//! Compiles the helper: a freestanding static program that is embedded into the library.
//!
//! It calls the compiler itself instead of describing a nested package, so that the sources stay in this
//! package, and so that no flag or wrapper meant for the host program reaches them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=helper");
    for shared in ["src/launch/wire.rs", "src/launch/passwd.rs", "src/step.rs"] {
        println!("cargo::rerun-if-changed={shared}");
    }
    println!("cargo::rerun-if-env-changed=RDOCK_HELPER");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("rdock-helper");
    if let Some(path) = env::var_os("RDOCK_HELPER") {
        std::fs::copy(&path, &out).unwrap_or_else(|error| panic!("RDOCK_HELPER={}: {error}", path.display()));
        return;
    }
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        panic!("rdock-runtime runs on Linux alone");
    }
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let mut failures = String::new();
    for linker in linkers(Path::new(&rustc), &target) {
        match compile(Path::new(&rustc), &target, &linker, &out) {
            Ok(()) => return,
            Err(failure) => failures.push_str(&format!("with linker {linker:?}: {failure}\n")),
        }
    }
    panic!(
        "could not compile the helper for {target}; set RDOCK_HELPER to one built elsewhere, or \
         RUSTC_LINKER to a linker for that target.\n{failures}"
    );
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

fn compile(rustc: &Path, target: &str, linker: &str, out: &Path) -> Result<(), String> {
    let mut command = Command::new(rustc);
    command
        .args(["--edition=2024", "--crate-type=bin", "--crate-name=rdock_helper", "--target", target])
        .args(["-Copt-level=s", "-Clto=fat", "-Cpanic=abort", "-Ccodegen-units=1", "-Cstrip=symbols"])
        .args(["-Crelocation-model=static", "-Ctarget-feature=+crt-static", "-Cforce-unwind-tables=no"])
        .arg(format!("-Clinker={linker}"))
        .arg("helper/main.rs")
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
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTC_LINKER"] {
        command.env_remove(variable);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
