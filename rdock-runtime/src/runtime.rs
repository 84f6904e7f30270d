//! A root directory with its images, containers, volumes and networks.

use crate::container::Container;
use crate::error::{Error, Result};
use crate::events::{EventAction, EventKind, Events, Journal};
use crate::image::{
    BoxError, Digest, Image, ImageSource, ImageStore, Platform, Progress, Reference, ResolvedImage,
};
use crate::net::Networks;
use crate::state::Containers;
use crate::volume::Volumes;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An opened root. Cloning is cheap; any number of processes may have the same root open.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    root: PathBuf,
    images: ImageStore,
    state: Containers,
    volumes: Volumes,
    journal: Journal,
    source: Option<Arc<dyn ImageSource>>,
    monitor: Option<PathBuf>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("root", &self.inner.root)
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// Opens `root`, makes it when missing, and looks after what dead owners left in it: a detached container that
    /// runs on without its monitor gets a new one, one whose restart policy says so is started again, the end of
    /// others is recorded, and what nobody can use any more is removed.
    ///
    /// Missing images are an error until [`Self::with_source`] says where they come from.
    ///
    /// # Errors
    /// When the root cannot be made or was written by a newer version.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let runtime = Self::open_only(root.as_ref())?;
        crate::remove::sweep(&runtime)?;
        Ok(runtime)
    }

    /// As [`Self::open`], without the janitor: for a monitor, whose starter has just opened the root.
    pub(crate) fn open_only(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(Error::state("find", root))?;
        let journal = Journal::new(&root);
        Ok(Self {
            inner: Arc::new(Inner {
                state: Containers::open(&root)?,
                images: ImageStore::open_with(&root, journal.observes_images())?,
                volumes: Volumes::open(&root)?,
                journal,
                source: None,
                monitor: None,
                root,
            }),
        })
    }

    /// Opens the root that the environment names: `RDOCK_ROOT`, else `/var/lib/rdock` for uid 0, else
    /// `$XDG_DATA_HOME/rdock` (`~/.local/share/rdock`). With feature `registry` missing images are pulled,
    /// configured by the environment too (`DOCKER_CONFIG`, `CONTAINERS_REGISTRIES_CONF`).
    ///
    /// # Errors
    /// As [`Self::open`], and when a registry configuration cannot be read.
    pub fn open_default() -> Result<Self> {
        let runtime = Self::open(default_root()?)?;
        #[cfg(feature = "registry")]
        let runtime = {
            let client = rdock_registry::RegistryClient::from_environment().map_err(|error| Error::Pull {
                reference: "the registry configuration".into(),
                source: Box::new(error),
            })?;
            runtime.with_source(Arc::new(client))
        };
        Ok(runtime)
    }

    /// Says where missing images come from.
    pub fn with_source(mut self, source: Arc<dyn ImageSource>) -> Self {
        Arc::make_mut(&mut self.inner).source = Some(source);
        self
    }

    /// Names the program `rdock-monitor`, for host programs that cannot be executed again as monitors of
    /// detached containers (an interpreter that loads this library, a program with file capabilities).
    pub fn with_monitor(mut self, program: impl Into<PathBuf>) -> Self {
        Arc::make_mut(&mut self.inner).monitor = Some(program.into());
        self
    }

    /// Returns the root directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Returns the image store.
    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Returns the volumes.
    pub fn volumes(&self) -> Volumes {
        self.inner.volumes.clone()
    }

    /// Returns what happens in this root from now on, whichever process does it.
    pub fn events(&self) -> Events {
        Events::new(self.inner.journal.clone())
    }

    /// Where what happens is recorded.
    pub(crate) fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    pub(crate) fn state(&self) -> &Containers {
        &self.inner.state
    }

    pub(crate) fn monitor(&self) -> Option<&Path> {
        self.inner.monitor.as_deref()
    }

    /// Fetches `reference` from the source, even when it is in the store already.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] without a source, [`Error::Pull`] with what the source said.
    pub async fn pull(&self, reference: &Reference, progress: &Progress) -> Result<Image> {
        self.pull_platform(reference, &Platform::host(), progress).await
    }

    /// [`Self::pull`] for another platform than the host's.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub async fn pull_platform(
        &self,
        reference: &Reference,
        platform: &Platform,
        progress: &Progress,
    ) -> Result<Image> {
        let (platform, journal) = (platform.clone(), self.journal().clone());
        self.ask_source(reference, progress, move |source, reference, store, progress| {
            let image = source.fetch(reference, &platform, store, progress)?;
            record_pull(&journal, reference);
            Ok(image)
        })
        .await
    }

    /// Asks the source what `reference` is now, for the host's platform: its config, without the layers where the
    /// source can do that. The store does not have the image by that.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub async fn resolve(&self, reference: &Reference, progress: &Progress) -> Result<ResolvedImage> {
        self.ask_source(reference, progress, |source, reference, store, progress| {
            source.resolve(reference, &Platform::host(), store, progress)
        })
        .await
    }

    /// Fetches the image that was resolved, whatever its name leads to by now. Layers that are there are not fetched.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub async fn pull_resolved(&self, resolved: &ResolvedImage, progress: &Progress) -> Result<Image> {
        let (wanted, journal) = (resolved.clone(), self.journal().clone());
        let work = move |source: &dyn ImageSource,
                         reference: &Reference,
                         store: &ImageStore,
                         progress: &Progress| {
            let image = source.fetch_resolved(&wanted, &Platform::host(), store, progress)?;
            record_pull(&journal, reference);
            Ok(image)
        };
        self.ask_source(resolved.reference(), progress, work).await
    }

    /// Fetches layers of an image that was resolved: those of the diffIDs `wanted` that are not in the store. Nothing is
    /// tagged; a lease that pinned them before holds on to them.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub async fn pull_layers(
        &self,
        resolved: &ResolvedImage,
        wanted: &[Digest],
        progress: &Progress,
    ) -> Result<()> {
        let (known, wanted) = (resolved.clone(), wanted.to_vec());
        let work = move |source: &dyn ImageSource, _: &Reference, store: &ImageStore, progress: &Progress| {
            source.fetch_layers(&known, &wanted, store, progress)
        };
        self.ask_source(resolved.reference(), progress, work).await
    }

    /// Sends an image, which the store need not list, to where `reference` leads to; returns the digest of its manifest
    /// there. Names in the store stay as they are.
    ///
    /// # Errors
    /// [`Error::Push`] with what the registry said.
    pub async fn publish(&self, reference: &Reference, image: &Image, progress: &Progress) -> Result<Digest> {
        let failed = |source: BoxError| Error::Push {
            reference: reference.familiar(),
            source,
        };
        let Some(source) = self.inner.source.clone() else {
            return Err(failed("no registry client is set up".into()));
        };
        let (wanted, image, progress) = (reference.clone(), image.clone(), progress.clone());
        blocking(move || {
            source
                .publish(&wanted, &image, &progress)
                .map_err(|source| Error::Push {
                    reference: wanted.familiar(),
                    source,
                })
        })
        .await
    }

    /// Lets the source do something.
    async fn ask_source<T: Send + 'static>(
        &self,
        reference: &Reference,
        progress: &Progress,
        work: impl FnOnce(&dyn ImageSource, &Reference, &ImageStore, &Progress) -> Result<T, BoxError>
        + Send
        + 'static,
    ) -> Result<T> {
        let Some(source) = self.inner.source.clone() else {
            return Err(Error::NoSuchImage {
                reference: reference.familiar(),
            });
        };
        let reference = reference.clone();
        let (store, progress) = (self.images().clone(), progress.clone());
        blocking(move || {
            work(source.as_ref(), &reference, &store, &progress).map_err(|source| Error::Pull {
                reference: reference.familiar(),
                source,
            })
        })
        .await
    }

    /// The image, pulled when it is missing.
    pub(crate) async fn image(&self, name: &str) -> Result<Image> {
        let (store, wanted) = (self.images().clone(), name.to_owned());
        if let Some(image) = blocking(move || Ok(store.get(&wanted)?)).await? {
            return Ok(image);
        }
        let reference = Reference::parse(name)?;
        self.pull(&reference, &Progress::default()).await
    }

    /// Returns all containers, newest first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let mut found = Vec::new();
        for id in self.state().ids()? {
            // It may be removed between listing and loading.
            if let Ok((dir, record)) = self.state().load(&id) {
                found.push(Container::new(self.clone(), dir, record));
            }
        }
        found.sort_by(|a, b| b.created().cmp(a.created()));
        Ok(found)
    }

    /// Finds a container by name, id, or the unique beginning of an id.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`], [`Error::AmbiguousId`].
    pub fn container(&self, name: &str) -> Result<Container> {
        let (dir, record) = self.state().find(name)?;
        Ok(Container::new(self.clone(), dir, record))
    }

    /// Returns the networks.
    pub fn networks(&self) -> Networks {
        Networks::new(self.root())
    }

    /// Returns what this root is and what this machine can do.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn info(&self) -> Result<Info> {
        let store = self.images().info()?;
        let containers = self.containers()?;
        let mut running = 0;
        for container in &containers {
            running += usize::from(container.status()?.is_running());
        }
        let system = rustix::system::uname();
        Ok(Info {
            root: self.root().to_owned(),
            kernel: system.release().to_string_lossy().into_owned(),
            architecture: system.machine().to_string_lossy().into_owned(),
            rootless: !rustix::process::geteuid().is_root(),
            cgroup: crate::cgroup::describe(),
            layer_form: store.layer_form.to_string(),
            upper: store.upper.to_string(),
            containers: containers.len(),
            running,
            images: self.images().images()?.len(),
        })
    }
}

/// What a root is and what its machine can do.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Info {
    /// The root directory.
    pub root: PathBuf,
    /// Release of the running kernel.
    pub kernel: String,
    /// As uname(2) names it.
    pub architecture: String,
    /// The caller is not root.
    pub rootless: bool,
    /// Which control groups are used: `v2`, `v1`, `hybrid` or `none`.
    pub cgroup: String,
    /// How layers are kept.
    pub layer_form: String,
    /// Where writable layers are.
    pub upper: String,
    /// Containers of this root.
    pub containers: usize,
    /// Those that run.
    pub running: usize,
    /// Images of this root.
    pub images: usize,
}

fn default_root() -> Result<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(root) = variable("RDOCK_ROOT") {
        return Ok(root);
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/rdock".into());
    }
    variable("XDG_DATA_HOME")
        .or_else(|| Some(variable("HOME")?.join(".local/share")))
        .map(|data| data.join("rdock"))
        .ok_or_else(|| {
            Error::state("choose", "rdock's root")(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "neither RDOCK_ROOT nor HOME is set",
            ))
        })
}

fn record_pull(journal: &Journal, reference: &Reference) {
    let (id, name) = (reference.familiar(), reference.familiar_name());
    journal.record(EventKind::Image, EventAction::Pull, &id, &[("name", name)]);
}

/// Runs one bounded piece of blocking work.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Error::system("run blocking work")(std::io::Error::other(error))),
    }
}
