//! Pulls, pushes and logins with a registry that misbehaves on demand, and with the real `docker-registry`.
//!
//! Whether a test can run is known when it runs: what this machine cannot do is reported as ignored, with the
//! reason.

mod access;
mod clients;
mod content;
mod copies;
mod every;
mod faults;
mod hosts;
mod index;
mod logins;
mod proxies;
mod pulls;
mod pushes;
mod questions;
mod real;
mod resume;
mod server;
mod uploads;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use rdock_image::{Event, Image, ImageStore, Platform, Progress, Reference};
use rdock_registry::{Error, PushEvent, PushProgress, Pushed, RegistryClient, RegistryConfig};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Why a test cannot run here.
pub(crate) struct Cannot(pub(crate) String);

fn trial(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// A test that not every machine can run.
fn trial_if(name: &str, test: fn() -> Result<(), Cannot>) -> Trial {
    Trial::ignorable_test(name, move || match test() {
        Ok(()) => Ok::<_, Failed>(Completion::Completed),
        Err(Cannot(why)) => Ok(Completion::ignored_with(why)),
    })
}

/// A store of its own and what was told while pulling into it.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    pub(crate) store: ImageStore,
    events: Arc<Mutex<Vec<Event>>>,
    pub(crate) progress: Progress,
}

impl Host {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = ImageStore::open(dir.path()).expect("a store");
        let events = Arc::new(Mutex::new(Vec::new()));
        let copy = events.clone();
        let progress =
            Progress::new(move |event| copy.lock().unwrap_or_else(PoisonError::into_inner).push(event));
        Self {
            dir,
            store,
            events,
            progress,
        }
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn pull(&self, config: RegistryConfig, name: &str) -> Result<Image, Error> {
        let reference = Reference::parse(name).expect("a reference");
        let client = RegistryClient::new(config)?;
        runtime().block_on(client.pull(&reference, &Platform::host(), &self.store, &self.progress))
    }

    /// Nothing half-made: no image, no scratch directory, no lease, and only whole layers.
    pub(crate) fn assert_nothing_half_made(&self) {
        assert!(self.store.images().expect("a list").is_empty());
        let names = |dir: &str| -> Vec<_> {
            let Ok(entries) = std::fs::read_dir(self.dir.path().join("image").join(dir)) else {
                return Vec::new();
            };
            entries.map(|entry| entry.expect("an entry")).collect()
        };
        for entry in names("ingest") {
            let kind = entry.file_type().expect("a type");
            assert!(!kind.is_dir(), "{:?} is left", entry.path());
        }
        assert!(names("leases").is_empty(), "{:?}", names("leases"));
        assert!(names("refs").is_empty(), "{:?}", names("refs"));
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
}

/// Pushes, and what was told meanwhile.
pub(crate) fn push_with(
    store: &ImageStore,
    config: RegistryConfig,
    name: &str,
) -> (Result<Pushed, Error>, Vec<PushEvent>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let copy = events.clone();
    let progress =
        PushProgress::new(move |event| copy.lock().unwrap_or_else(PoisonError::into_inner).push(event));
    let reference = Reference::parse(name).expect("a reference");
    let client = RegistryClient::new(config).expect("a client");
    let pushed = runtime().block_on(client.push(&reference, store, &progress));
    let events = events.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (pushed, events)
}

/// Anonymous, impatient.
pub(crate) fn quick() -> RegistryConfig {
    let mut config = RegistryConfig::default();
    config.idle_timeout = Duration::from_secs(5);
    config.retries = 2;
    config
}

fn main() -> std::process::ExitCode {
    if let Some(code) = resume::role() {
        return code;
    }
    let arguments = Arguments::from_args();
    let tests = [
        pulls::tests(),
        faults::tests(),
        access::tests(),
        logins::tests(),
        pushes::tests(),
        uploads::tests(),
        every::tests(),
        questions::tests(),
        hosts::tests(),
        clients::tests(),
        copies::tests(),
        proxies::tests(),
        index::tests(),
        resume::tests(),
        real::tests(),
    ];
    libtest_mimic::run(&arguments, tests.into_iter().flatten().collect()).exit_code()
}
