//! Tests of the store against real file systems, kernels and processes.
//!
//! A test that needs what this machine or user lacks is reported as ignored, with the reason.
mod changed;
mod children;
mod crash;
mod documents;
mod exact;
mod fsck;
mod hostile;
mod made;
mod security;
mod store;
mod support;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

/// A test's function: an error's text is the failure.
type Test = fn() -> Result<(), Box<dyn std::error::Error>>;

/// What a test needs.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Nothing,
    /// Mounts, device nodes, foreign owners.
    Root,
}

fn main() -> ExitCode {
    // Some tests run this program again as another process of theirs.
    if let Some(code) = children::run() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    let root = rustix::process::geteuid().is_root();
    if arguments.test_threads.is_none() {
        arguments.test_threads = Some(4);
    }
    let trials = security::tests()
        .into_iter()
        .chain(hostile::tests())
        .chain(documents::tests())
        .chain(store::tests())
        .chain(made::tests())
        .chain(exact::tests())
        .chain(fsck::tests())
        .chain(crash::tests())
        .map(|(name, needs, test)| {
            let missing = needs == Needs::Root && !root;
            let name = if missing {
                format!("{name} (needs root)")
            } else {
                name.to_owned()
            };
            Trial::test(name, move || test().map_err(|error| error.to_string().into()))
                .with_ignored_flag(missing)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
