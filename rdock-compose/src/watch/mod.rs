//! `watch`: what changes in the folders of the host reaches the containers.
//!
//! The rules are `develop.watch` of the services. Changes come from inotify(7), never by looking again and again; those
//! that come together, as an editor or a checkout makes them, are handled together.

mod archive;
mod batch;
mod notify;
mod rules;

pub(crate) use rules::{Rule, rules};

use crate::apply::{ApplyError, ComposeProject, StepError};
use crate::containers::Members;
use crate::model::{Dependencies, Hook};
use crate::plan::{Build, Plan, PlanError, Recreate, UpOptions};
use batch::{Batch, Change};
use notify::Watcher;
use rdock_runtime::{Container, CopyOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Changes that are no further apart belong together.
const QUIET: Duration = Duration::from_millis(100);
/// How long changes that go on and on are gathered.
const LONGEST: Duration = Duration::from_secs(2);

/// What `watch` is told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WatchOptions {
    /// The services; all if empty.
    pub services: Vec<String>,
    /// Images may be built: without it a service with the action `rebuild` is an error (`--no-build`).
    pub build: bool,
    /// An image that a new one took the name of is removed, unless something has it.
    pub prune: bool,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            build: true,
            prune: true,
        }
    }
}

/// What happens while files are watched.
#[derive(Debug)]
#[non_exhaustive]
pub enum WatchEvent<'a> {
    /// A folder is mounted into the container anyway, and not watched.
    Mounted(&'a std::path::Path),
    /// From now on changes are seen.
    Enabled,
    /// So many files changed, and go to the containers of a service.
    Syncing(&'a str, usize),
    /// They are there.
    Synced(&'a str),
    /// Images are built, and containers are made anew.
    Rebuilding(&'a [String]),
    /// The images of services were built.
    Built(&'a [String]),
    /// Their containers are new ones.
    Replaced(&'a [String]),
    /// Containers were restarted.
    Restarted(&'a [String]),
    /// A command ran in a container: its name, and what the command wrote.
    Ran(&'a str, &'a [u8]),
    /// What was to be done for changes failed; watching goes on.
    Failed(&'a WatchError),
    /// Changes are no longer seen.
    Disabled,
}

/// Why files cannot be watched, or what goes wrong when they change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// No service has a rule.
    #[error("none of the selected services is configured for watch, consider setting a 'develop' section")]
    Nothing,
    /// A service is to be rebuilt and has no `build`.
    #[error("can't watch service {0:?} with action rebuild without a build context")]
    NoBuild(String),
    /// A service is to be rebuilt and nothing may be built.
    #[error("--no-build is incompatible with watch action rebuild in service {0}")]
    BuildForbidden(String),
    /// A pattern that is none.
    #[error("services.{service}.develop.watch: {reason}")]
    Pattern {
        /// The service.
        service: String,
        /// Which, and why.
        reason: String,
    },
    /// A folder cannot be watched.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Files that are gone could not be removed from a container.
    #[error("rm in the container {container} ended with {code}: {output}")]
    Removing {
        /// Its name.
        container: String,
        /// The exit code of rm.
        code: i32,
        /// What it said.
        output: String,
    },
    /// A plan could not be made or carried out.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A command of a rule failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The runtime says why.
    #[error(transparent)]
    Runtime(#[from] rdock_runtime::Error),
}

impl From<PlanError> for WatchError {
    fn from(error: PlanError) -> Self {
        Self::Apply(error.into())
    }
}

impl WatchError {
    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    /// What to change on the host, when that is what it takes.
    pub fn hint(&self) -> Option<String> {
        match self {
            // inotify_add_watch(2): the user's limit of watches, and inotify_init(2): of instances.
            Self::File { source, .. }
                if source.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) =>
            {
                Some("raise the sysctl fs.inotify.max_user_watches, or ignore folders".to_owned())
            }
            Self::File { source, .. }
                if source.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) =>
            {
                Some("raise the sysctl fs.inotify.max_user_instances".to_owned())
            }
            Self::Apply(error) => error.hint(),
            Self::Step(error) => error.hint(),
            Self::Runtime(error) => error.hint(),
            _ => None,
        }
    }
}

impl ComposeProject {
    /// The folders and files that [`Self::watch`] would follow.
    ///
    /// # Errors
    /// [`WatchError::Nothing`], and what a rule is refused for.
    pub fn watched(&self, options: &WatchOptions) -> Result<Vec<PathBuf>, WatchError> {
        let rules = rules(self.project(), options, &mut |_| {})?;
        let mut paths: Vec<PathBuf> = rules.iter().map(|rule| rule.path().to_owned()).collect();
        paths.sort();
        paths.dedup();
        match paths.is_empty() {
            true => Err(WatchError::Nothing),
            false => Ok(paths),
        }
    }

    /// Follows the files of the services' `develop.watch` until `stop` is done, and does what the rules say: files go to
    /// every container of the service, containers are restarted, images are built and containers made anew of them. The
    /// containers must be there. Dropping the future stops it where it is.
    ///
    /// Ignored are what the service's `.dockerignore` and the rule's `ignore` say, `.git`, and the temporary files of
    /// editors. A path that is a bind mount of the service is not synchronised.
    ///
    /// # Errors
    /// [`WatchError::Nothing`], and what a rule or a folder is refused for. What goes wrong later is
    /// [`WatchEvent::Failed`], unless no changes can be seen any more.
    pub async fn watch(
        &self,
        options: &WatchOptions,
        stop: impl Future<Output = ()>,
        mut show: impl FnMut(WatchEvent<'_>),
    ) -> Result<(), WatchError> {
        let rules = rules(self.project(), options, &mut |path| {
            show(WatchEvent::Mounted(path))
        })?;
        if rules.is_empty() {
            return Err(WatchError::Nothing);
        }
        // Before the first files are copied: what changes meanwhile is seen.
        let mut watcher = Watcher::start(&rules)?;
        for rule in rules.iter().filter(|rule| rule.initial_sync()) {
            let files = rule.files().map_err(WatchError::file("read", rule.path()))?;
            let changes: Vec<Change> = files.iter().filter_map(|file| rule.change(file)).collect();
            if !changes.is_empty() {
                show(WatchEvent::Syncing(rule.service(), changes.len()));
                self.sync(rule.service(), &changes).await?;
                show(WatchEvent::Synced(rule.service()));
            }
        }
        show(WatchEvent::Enabled);
        let mut stop = std::pin::pin!(stop);
        loop {
            let paths = tokio::select! {
                () = &mut stop => break,
                paths = watcher.changed(QUIET, LONGEST) => paths?,
            };
            let batch = Batch::of(&rules, &paths);
            let handled = tokio::select! {
                () = &mut stop => break,
                handled = self.handle(&rules, &batch, options, &mut show) => handled,
            };
            if let Err(error) = handled {
                show(WatchEvent::Failed(&error));
            }
        }
        show(WatchEvent::Disabled);
        Ok(())
    }

    async fn handle(
        &self,
        rules: &[Rule],
        batch: &Batch<'_>,
        options: &WatchOptions,
        show: &mut impl FnMut(WatchEvent<'_>),
    ) -> Result<(), WatchError> {
        let names = |set: &BTreeSet<&str>| set.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        if !batch.rebuild.is_empty() {
            let services = names(&batch.rebuild);
            show(WatchEvent::Rebuilding(&services));
            self.rebuild(&services, options.prune, show).await?;
        }
        for (service, changes) in &batch.sync {
            show(WatchEvent::Syncing(service, changes.len()));
            self.sync(service, changes).await?;
            show(WatchEvent::Synced(service));
        }
        if !batch.restart.is_empty() {
            let services = names(&batch.restart);
            let existing = self.existing().await?;
            let plan = Plan::restart(self.project(), &existing, &services, false, None);
            self.apply(&plan).await?;
            show(WatchEvent::Restarted(&services));
        }
        for rule in &batch.exec {
            if let Some(hook) = rules[*rule].exec() {
                self.run_in_all(rules[*rule].service(), hook, show).await?;
            }
        }
        Ok(())
    }

    /// Builds the images of services and makes their containers anew; what they need stays as it is.
    async fn rebuild(
        &self,
        services: &[String],
        prune: bool,
        show: &mut impl FnMut(WatchEvent<'_>),
    ) -> Result<(), WatchError> {
        let options = UpOptions {
            services: services.to_vec(),
            dependencies: Dependencies::Leave,
            build: Build::Always,
            recreate: Recreate::Force,
            ..UpOptions::default()
        };
        let existing = self.existing().await?;
        let images = Plan::images(self.project(), &existing, &options)?;
        self.apply(&images).await?;
        show(WatchEvent::Built(services));
        let built = self.existing().await?;
        let plan = Plan::up(self.project(), &built, &options)?;
        self.apply(&plan).await?;
        show(WatchEvent::Replaced(services));
        if prune {
            let old: BTreeMap<&String, &String> = existing
                .images
                .iter()
                .filter(|(name, image)| {
                    let now = built.images.get(*name);
                    now.is_some_and(|now| now.id != image.id)
                })
                .map(|(name, image)| (name, &image.id))
                .collect();
            for id in old.into_values() {
                // One that has another name, or that something has, stays.
                let (store, id) = (self.runtime().images().clone(), id.clone());
                let removed = tokio::task::spawn_blocking(move || {
                    let image = store.get(&id)?;
                    match image.is_some_and(|image| image.references().is_empty()) {
                        true => store.remove(&id, false).map(drop),
                        false => Ok(()),
                    }
                });
                let _ = removed.await;
            }
        }
        Ok(())
    }

    /// Brings files into every container of the service, and removes those that are gone.
    async fn sync(&self, service: &str, changes: &[Change]) -> Result<(), WatchError> {
        let (there, gone): (Vec<&Change>, Vec<&Change>) = changes
            .iter()
            .partition(|change| change.from.symlink_metadata().is_ok());
        let gone: Vec<&str> = gone.iter().map(|change| change.to.as_str()).collect();
        let there: Vec<Change> = there.into_iter().cloned().collect();
        for info in self.containers(&Members::of(&[service.to_owned()]))? {
            let container = self.runtime().container(&info.id)?;
            if !gone.is_empty() && info.status.is_running() {
                remove(&container, &gone).await?;
            }
            if !there.is_empty() {
                let archive = archive::stream(there.clone())?;
                container.extract("/", archive, &CopyOptions::default()).await?;
            }
        }
        Ok(())
    }

    async fn run_in_all(
        &self,
        service: &str,
        hook: &Hook,
        show: &mut impl FnMut(WatchEvent<'_>),
    ) -> Result<(), WatchError> {
        for info in self.containers(&Members::of(&[service.to_owned()]))? {
            if info.status.is_running() {
                let said = self.run_hook(&info.name, hook).await?;
                show(WatchEvent::Ran(&info.name, &said));
            }
        }
        Ok(())
    }
}

/// As docker compose does it: by the container's own `rm`.
async fn remove(container: &Container, paths: &[&str]) -> Result<(), WatchError> {
    let words = ["rm", "-rf", "--"].into_iter().chain(paths.iter().copied());
    let output = container.exec(words).keep_last(4096).output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(WatchError::Removing {
        container: container.name().to_owned(),
        code: output.status.code().unwrap_or(-1),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
