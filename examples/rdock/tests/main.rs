//! Tests of the `rdock` program and of the promises that need real servers.
//!
//! Whether a test can run is known when it runs: what this machine cannot do is reported as ignored, with the reason.

mod fixtures;
mod tutorial;

use libtest_mimic::Arguments;

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, tutorial::trials()).exit_code()
}
