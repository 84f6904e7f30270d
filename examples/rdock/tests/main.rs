//! Tests of the `rdock` program and of the promises that need real servers.
//!
//! Whether a test can run is known when it runs: what this machine cannot do is reported as ignored, with the reason.

mod bad_input;
mod build;
mod client;
mod compose;
mod compose_attributes;
mod compose_config;
mod compose_digests;
mod compose_down;
mod compose_foreground;
mod compose_images;
mod compose_kills;
mod compose_life;
mod compose_look;
mod compose_once;
mod compose_project;
mod compose_tutorial;
mod compose_watch;
mod files;
mod fixtures;
mod images;
mod leaks;
mod life;
mod observe;
mod orchestrator;
mod program;
mod projects;
mod pty;
mod publish;
mod roles;
mod servers;
mod standalone;
mod template;
mod tiny;
mod tutorial;
mod verbs;

use libtest_mimic::Arguments;
use std::sync::Arc;

fn main() -> std::process::ExitCode {
    // Some tests need a host program of their own: this one, started again.
    if let Some(role) = std::env::var_os("RDOCK_TEST_ROLE") {
        return roles::play(&role.to_string_lossy());
    }
    let arguments = Arguments::from_args();
    let stage = Arc::new(program::Stage::default());
    let trials = [
        tutorial::trials(&stage),
        servers::trials(&stage),
        build::trials(&stage),
        leaks::trials(&stage),
        standalone::trials(&stage),
        verbs::trials(),
        observe::trials(),
        template::trials(),
        orchestrator::trials(),
        bad_input::trials(),
        files::trials(),
        compose::trials(),
        compose_attributes::trials(),
        compose_watch::trials(),
        compose_digests::trials(),
        compose_kills::trials(),
        compose_foreground::trials(),
        compose_life::trials(),
        compose_once::trials(),
        compose_down::trials(),
        compose_config::trials(),
        compose_look::trials(),
        compose_images::trials(),
        projects::trials(&stage),
        compose_tutorial::trials(&stage),
        publish::trials(),
        images::trials(),
        life::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
