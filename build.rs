//! Compiles the payload of quickstart and of the tests, as rdock-runtime compiles its helper.

#[path = "rdock-runtime/freestanding.rs"]
mod freestanding;

use std::env;
use std::path::PathBuf;

fn main() {
    for source in [
        "rdock-runtime/freestanding.rs",
        "rdock-runtime/helper/arch.rs",
        "examples/payload",
    ] {
        println!("cargo::rerun-if-changed={source}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("payload");
    if let Err(failure) = freestanding::compile("payload", "examples/payload/program.rs", &out) {
        panic!("could not compile the payload {failure}");
    }
}
