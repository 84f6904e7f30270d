//! Compiles the helper: a freestanding static program that is embedded into the library.

mod freestanding;

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=freestanding.rs");
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
    if let Err(failure) = freestanding::compile("rdock_helper", "helper/main.rs", &out) {
        panic!(
            "could not compile the helper; set RDOCK_HELPER to one built elsewhere, or RUSTC_LINKER to a linker \
             for that target: {failure}"
        );
    }
}
