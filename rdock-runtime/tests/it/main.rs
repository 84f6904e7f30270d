//! Tests of the runtime on the real kernel.
//!
//! Whether a test can run is known when it runs: what this machine cannot do is reported as ignored, with the reason.

mod attacks;
mod cdi;
mod children;
mod devices;
mod events;
mod files;
mod gpus;
mod hooks;
mod host;
mod identities;
mod keep;
mod lab;
mod lifecycle;
mod limits;
mod logs;
mod names;
mod network;
mod payload;
mod probe;
mod published;
mod readiness;
mod secrets;
mod security;
mod settings;
mod streams;
mod usage;
mod volumes;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// Why a test cannot run here.
#[derive(Debug)]
pub(crate) struct Cannot(pub(crate) String);

impl std::fmt::Display for Cannot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cannot {}

pub(crate) type Tested<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// A test; [`Cannot`] makes it ignored.
pub(crate) fn trial(name: &str, test: fn() -> Tested) -> Trial {
    Trial::ignorable_test(name, move || match test() {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => match error.downcast_ref::<Cannot>() {
            Some(Cannot(why)) => Ok(Completion::ignored_with(why)),
            None => Err(Failed::from(chain(error.as_ref()))),
        },
    })
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

pub(crate) fn needs_root() -> Result<(), Cannot> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Cannot(
            "needs root: a network that containers share, with a way out".into(),
        )),
    }
}

/// Fails with both sides.
#[track_caller]
pub(crate) fn same<T, U>(found: &T, expected: &U) -> Tested
where
    T: PartialEq<U> + std::fmt::Debug + ?Sized,
    U: std::fmt::Debug + ?Sized,
{
    if found == expected {
        return Ok(());
    }
    Err(format!(
        "{}: found {found:?} instead of {expected:?}",
        std::panic::Location::caller()
    )
    .into())
}

fn main() -> std::process::ExitCode {
    // This program is also what runs in the containers, and a host program in a network of its own.
    if let Some(role) = std::env::var_os("RDOCK_TEST_ROLE") {
        return payload::play(&role.to_string_lossy());
    }
    let trials = [
        network::trials(),
        names::trials(),
        published::trials(),
        settings::trials(),
        volumes::trials(),
        readiness::trials(),
        identities::trials(),
        security::trials(),
        attacks::trials(),
        children::trials(),
        devices::trials(),
        cdi::trials(),
        hooks::trials(),
        gpus::trials(),
        streams::trials(),
        files::trials(),
        keep::trials(),
        secrets::trials(),
        events::trials(),
        lifecycle::trials(),
        limits::trials(),
        logs::trials(),
        usage::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
