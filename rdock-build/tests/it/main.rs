//! Tests of the builder: its language on files, its engine on real kernels.
//!
//! A test that needs what this machine or user lacks is reported as ignored, with the reason.
mod attacks;
mod bench;
mod busybox;
mod checks;
mod differences;
mod differential;
mod engine;
mod language;
mod properties;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

/// What a test returns: an error's text is the failure.
type Tested<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    // A test runs this program again as a build that it kills.
    if let Some(built) = engine::child() {
        return if built.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let arguments = Arguments::from_args();
    let trials = [
        language::trials(),
        properties::trials(),
        checks::trials(),
        differential::trials(),
        differences::trials(),
        engine::trials(),
        attacks::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Makes a test of a function.
fn trial(name: impl Into<String>, test: impl FnOnce() -> Tested + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(|error| error.to_string().into()))
}

/// Makes a test that runs containers.
fn root_trial(name: &str, test: fn() -> Tested) -> Trial {
    let missing = match rustix::process::geteuid().is_root() {
        false => Some("needs root".to_owned()),
        true => busybox::busybox().err().map(|error| error.to_string()),
    };
    match missing {
        Some(why) => trial(format!("{name} ({why})"), || Ok(())).with_ignored_flag(true),
        None => trial(name, test),
    }
}
