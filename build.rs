//! Compiles the payload of quickstart and of the tests, and the floor of the benchmarks, as rdock-runtime compiles
//! its helper.

#[path = "rdock-runtime/freestanding.rs"]
mod freestanding;

use std::env;
use std::path::PathBuf;

fn main() {
    for source in [
        "rdock-runtime/freestanding.rs",
        "rdock-runtime/helper",
        "rdock-runtime/src/launch/wire.rs",
        "examples/payload",
        "benches/floor",
    ] {
        println!("cargo::rerun-if-changed={source}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (name, source) in [
        ("payload", "examples/payload/program.rs"),
        ("floor", "benches/floor/program.rs"),
    ] {
        if let Err(failure) = freestanding::compile(name, source, &out.join(name)) {
            panic!("could not compile {source} {failure}");
        }
    }
}
