//! [`Builder`]: what is built from what, and how.

mod bases;
mod caches;
mod job;
mod proxies;

pub(crate) use proxies::Proxies;

use crate::cache::{Cache, CacheFilter, CacheSource, CacheTarget, CacheUsage};
use crate::context::Context;
use crate::dockerfile::{Dockerfile, Outline, Target};
use crate::error::{BuildError, Result};
use crate::event::{BuildProgress, BuildWarning};
use crate::exec::{Cancel, Secret, StepReport};
use crate::graph::{Graph, StepId};
use crate::named_context::NamedContext;
use crate::output::Output;
use job::Job;
use proxies::Variables;
use rdock_image::{ContainerConfig, Digest, Image, ImageConfig, Platform, Reference};
use rdock_runtime::{NetworkMode, Resources, Runtime};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// When a registry is asked for base images. Their layers are fetched when a step needs them, or the finished image:
/// an image whose steps are all cached needs only the config of its base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// For those that are not in the store.
    #[default]
    Missing,
    /// For all: what a tag names may have changed.
    Always,
    /// For none: a missing one is an error.
    Never,
}

/// Builds an image. Setters come in any order and cannot fail; everything is checked when the build starts.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = rdock_build::runtime::Runtime::open_default()?;
/// let built = rdock_build::Builder::new(".").tag("app:latest").build(&runtime).await?;
/// println!("{}", built.image_id());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    pub(crate) context: Context,
    pub(crate) dockerfile: DockerfileAt,
    tags: Vec<String>,
    target: Option<String>,
    build_args: BTreeMap<String, String>,
    proxy_variables: Variables,
    labels: BTreeMap<String, String>,
    pub(crate) contexts: BTreeMap<String, NamedContext>,
    secrets: BTreeMap<String, Secret>,
    no_cache: bool,
    no_cache_stages: BTreeSet<String>,
    cache_from: Vec<CacheSource>,
    cache_to: Vec<CacheTarget>,
    pull: PullPolicy,
    platform: Option<Platform>,
    network: NetworkMode,
    host_network: bool,
    extra_hosts: Vec<(String, String)>,
    host_certificates: bool,
    source_date_epoch: Option<i64>,
    shm_size: Option<u64>,
    cgroup_parent: Option<String>,
    ulimits: Vec<(String, u64, u64)>,
    resources: Resources,
    hostname: Option<String>,
    parallel: usize,
    progress: BuildProgress,
    outputs: Vec<Output>,
    proxies: Proxies,
    configure: Option<Configure>,
}

/// Changes the image's config at the end.
#[derive(Clone)]
struct Configure(Arc<dyn Fn(&mut ContainerConfig) + Send + Sync>);

impl std::fmt::Debug for Configure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Configure(..)")
    }
}

/// Where the Dockerfile is.
#[derive(Clone, Debug)]
pub(crate) enum DockerfileAt {
    /// `Dockerfile` in the context.
    Default,
    /// A file of the host; a relative path that is not there is one in the context.
    File(PathBuf),
    /// The text itself.
    Text(String),
    /// No Dockerfile: a step of a graph.
    Graph(Arc<Graph>, StepId),
}

/// A finished build.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BuildOutput {
    /// The image; none when the output is no image.
    pub image: Option<Image>,
    /// Its config.
    pub config: ImageConfig,
    /// Digest of the config, as the image has it in the store.
    pub id: Digest,
    /// Its names.
    pub names: Vec<Reference>,
    /// How each step went.
    pub steps: Vec<StepReport>,
    /// What is not as the file's author may think.
    pub warnings: Vec<BuildWarning>,
}

impl BuildOutput {
    /// Returns the image's id, the digest of its config.
    pub fn image_id(&self) -> &Digest {
        &self.id
    }
}

impl Builder {
    /// Builds from a directory, by its `Dockerfile`.
    pub fn new(context: impl Into<PathBuf>) -> Self {
        Self::from_context(Context::Directory(context.into()))
    }

    /// Builds from any context.
    pub fn from_context(context: Context) -> Self {
        Self {
            context,
            dockerfile: DockerfileAt::Default,
            tags: Vec::new(),
            target: None,
            build_args: BTreeMap::new(),
            proxy_variables: Variables::default(),
            labels: BTreeMap::new(),
            contexts: BTreeMap::new(),
            secrets: BTreeMap::new(),
            no_cache: false,
            no_cache_stages: BTreeSet::new(),
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            pull: PullPolicy::default(),
            platform: None,
            network: NetworkMode::Default,
            host_network: false,
            extra_hosts: Vec::new(),
            host_certificates: false,
            source_date_epoch: None,
            shm_size: None,
            cgroup_parent: None,
            ulimits: Vec::new(),
            resources: Resources::default(),
            hostname: None,
            parallel: std::thread::available_parallelism().map_or(4, |count| count.get().max(2) * 2),
            progress: BuildProgress::default(),
            outputs: Vec::new(),
            proxies: Proxies::default(),
            configure: None,
        }
    }

    /// Builds a Dockerfile given as text, without any files.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self::from_context(Context::Empty).dockerfile_text(text)
    }

    /// Builds a step of a graph, and what it stands on, in place of a Dockerfile. Cache, progress, outputs and
    /// [`Builder::explain`] are the same, and so are the results of steps: one that a Dockerfile made is taken from the
    /// cache, and the other way round.
    ///
    /// Images are named by [`Operation::image`](crate::Operation::image) and looked up as FROM does it. A command sees
    /// the variables of the image that it stands on, below its own, and begins in that image's working directory
    /// unless it has one itself. The result has the image's config; [`Builder::configure`] changes it. Files come from
    /// [`Builder::context`] and the named contexts.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use rdock_build::{Builder, CopySource, CopyStep, Graph, Operation, RunStep};
    ///
    /// let mut graph = Graph::new();
    /// let base = graph.add(Operation::image("alpine:3.20")?, "alpine");
    /// // Neither stands on the other: they run at once.
    /// let one = graph.add(RunStep::shell(base, "echo one > /one"), "make one");
    /// let two = graph.add(RunStep::shell(base, "echo two > /two"), "make two");
    /// let both = graph.add(CopyStep::new(one, [CopySource::step(two, "/two")], "/two"), "take two");
    /// let runtime = rdock_build::runtime::Runtime::open_default()?;
    /// let built = Builder::from_graph(graph, both)
    ///     .configure(|config| config.cmd = Some(vec!["cat".into(), "/one".into(), "/two".into()]))
    ///     .tag("both:latest")
    ///     .build(&runtime)
    ///     .await?;
    /// println!("{}", built.image_id());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The build fails with [`BuildError::Graph`] when a step names one of another graph or one that is not before it,
    /// or lacks something. Errors of steps name the step.
    pub fn from_graph(graph: Graph, target: StepId) -> Self {
        let mut builder = Self::from_context(Context::Empty);
        builder.dockerfile = DockerfileAt::Graph(Arc::new(graph), target);
        builder
    }

    /// Says where files of the context come from.
    pub fn context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// Changes the image's config, after the Dockerfile and the labels given here; once.
    pub fn configure(mut self, change: impl Fn(&mut ContainerConfig) + Send + Sync + 'static) -> Self {
        self.configure = Some(Configure(Arc::new(change)));
        self
    }

    /// Names the Dockerfile: a file of the host, or, when there is no such file, of the context.
    pub fn dockerfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.dockerfile = DockerfileAt::File(path.into());
        self
    }

    /// Gives the Dockerfile's text.
    pub fn dockerfile_text(mut self, text: impl Into<String>) -> Self {
        self.dockerfile = DockerfileAt::Text(text.into());
        self
    }

    /// Gives the image a name; as often as wanted.
    pub fn tag(mut self, name: impl Into<String>) -> Self {
        self.tags.push(name.into());
        self
    }

    /// Builds a stage other than the last: its name, or its number from 0.
    pub fn target(mut self, stage: impl Into<String>) -> Self {
        self.target = Some(stage.into());
        self
    }

    /// Sets a build argument.
    pub fn build_arg(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.build_args.insert(name.into(), value.into());
        self
    }

    /// Sets a label of the image, above those of the file.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Takes no result from the cache.
    pub fn no_cache(mut self, no_cache: bool) -> Self {
        self.no_cache = no_cache;
        self
    }

    /// Takes no result of a stage from the cache.
    pub fn no_cache_stage(mut self, stage: impl Into<String>) -> Self {
        self.no_cache_stages.insert(stage.into().to_lowercase());
        self
    }

    /// Takes steps from a cache of other machines, too; as often as wanted, the first that has a step counts. Its layers
    /// come when a step needs them, or the result. [`CacheSource`] says whom to trust.
    pub fn cache_from(mut self, source: CacheSource) -> Self {
        self.cache_from.push(source);
        self
    }

    /// Writes what the steps made for other machines, when the build is done; as often as wanted.
    pub fn cache_to(mut self, target: CacheTarget) -> Self {
        self.cache_to.push(target);
        self
    }

    /// Says when base images are fetched.
    pub fn pull(mut self, policy: PullPolicy) -> Self {
        self.pull = policy;
        self
    }

    /// Builds for a platform; the host's own is the only one that is built yet.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// Gives a secret that `RUN --mount=type=secret` can name.
    pub fn secret(mut self, id: impl Into<String>, secret: Secret) -> Self {
        self.secrets.insert(id.into(), secret);
        self
    }

    /// Names a context that FROM, `--from` and `from=` can use, instead of a stage or image of that name.
    pub fn build_context(mut self, name: impl Into<String>, context: NamedContext) -> Self {
        self.contexts.insert(name.into().to_lowercase(), context);
        self
    }

    /// The network of RUN without `--network`; a container's default network unless set.
    pub fn network(mut self, network: NetworkMode) -> Self {
        self.network = network;
        self
    }

    /// Allows `RUN --network=host`.
    pub fn allow_host_network(mut self, allow: bool) -> Self {
        self.host_network = allow;
        self
    }

    /// Adds a line to `/etc/hosts` of RUN.
    pub fn add_host(mut self, name: impl Into<String>, address: impl Into<String>) -> Self {
        self.extra_hosts.push((name.into(), address.into()));
        self
    }

    /// Shows the host's certificates to RUN, for hosts whose traffic goes through a proxy of their own: the file is
    /// mounted, and the usual variables name it. Neither is in the image, in history or in the cache's keys.
    pub fn host_certificates(mut self, show: bool) -> Self {
        self.host_certificates = show;
        self
    }

    /// Uses this moment, in seconds since 1970, for the config, history, and as the latest time of files, so that
    /// the same inputs give the same image (<https://reproducible-builds.org/specs/source-date-epoch/>). A build argument
    /// `SOURCE_DATE_EPOCH` says otherwise; a global ARG of this name counts where neither is given.
    pub fn source_date_epoch(mut self, seconds: i64) -> Self {
        self.source_date_epoch = Some(seconds);
        self
    }

    /// Downloads of ADD go through the proxies that the environment names: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and
    /// `NO_PROXY`, or in lower case, which counts if there are both. Build arguments of these names say otherwise, as
    /// they do for RUN. Addresses of this machine are always reached directly. A proxy is in no cache key.
    pub fn proxies_from_environment(mut self) -> Self {
        self.proxies = Proxies::from_environment();
        self
    }

    /// Proxies of RUN and of downloads of ADD: `HTTP_PROXY`, `HTTPS_PROXY`, `FTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, or
    /// in lower case; other names count for nothing. They are build arguments that need no ARG, and those of
    /// [`Builder::build_arg`] say otherwise, in either case.
    pub fn proxy_variables(
        mut self,
        variables: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        let variables = variables.into_iter();
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        self.proxy_variables.0.extend(variables);
        self
    }

    /// Size of `/dev/shm` of RUN in bytes.
    pub fn shm_size(mut self, bytes: u64) -> Self {
        self.shm_size = Some(bytes);
        self
    }

    /// A resource limit of RUN: name, soft and hard value.
    pub fn ulimit(mut self, name: impl Into<String>, soft: u64, hard: u64) -> Self {
        self.ulimits.push((name.into(), soft, hard));
        self
    }

    /// Memory, processors and processes that each RUN may use. They do not change what it makes, so they are in no cache
    /// key. What this machine cannot limit is a warning.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// The control group below which those of RUN are made; see [`rdock_runtime::ContainerSpec::cgroup_parent`].
    pub fn cgroup_parent(mut self, group: impl Into<String>) -> Self {
        self.cgroup_parent = Some(group.into());
        self
    }

    /// The host name of RUN.
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = Some(name.into());
        self
    }

    /// How many steps may run at once; twice the number of processors unless set.
    pub fn parallel(mut self, steps: usize) -> Self {
        self.parallel = steps;
        self
    }

    /// Says who is told what happens.
    pub fn progress(mut self, progress: impl Into<BuildProgress>) -> Self {
        self.progress = progress.into();
        self
    }

    /// Adds an output; the image store alone unless set.
    pub fn output(mut self, output: Output) -> Self {
        self.outputs.push(output);
        self
    }

    /// Builds. Dropping the future ends the build: running commands are killed, nothing half-made is left, and steps
    /// that were finished stay in the cache.
    ///
    /// # Errors
    /// [`BuildError`], with the place in the Dockerfile where it has one.
    pub async fn build(&self, runtime: &Runtime) -> Result<BuildOutput> {
        self.on_thread(runtime, Job::build).await
    }

    /// Says for each step whether it would be taken from the cache and, if not, why, without running anything.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn explain(&self, runtime: &Runtime) -> Result<Vec<StepReport>> {
        self.on_thread(runtime, Job::explain).await
    }

    /// Says what is not as the Dockerfile's author may think, without building anything: the checks of
    /// <https://docs.docker.com/reference/build-checks/>, build arguments that nothing declares, variables that are
    /// not set.
    ///
    /// # Errors
    /// As [`Builder::build`]; also for a file whose `# check=error=true` makes its warnings errors.
    pub async fn check(&self, runtime: &Runtime) -> Result<Vec<BuildWarning>> {
        let mut builder = self.clone();
        builder.cache_from.clear();
        builder.on_thread(runtime, Job::check).await
    }

    /// Lists the stages of the Dockerfile.
    ///
    /// # Errors
    /// As [`Builder::build`], for what comes before the first step.
    pub async fn targets(&self, runtime: &Runtime) -> Result<(Dockerfile, Vec<Target>)> {
        self.on_thread(runtime, Job::targets).await
    }

    /// Says which build arguments, secrets and agents a build of the target takes, without looking anything up.
    ///
    /// # Errors
    /// As [`Builder::build`], for what comes before the first step.
    pub async fn outline(&self, runtime: &Runtime) -> Result<(Dockerfile, Outline)> {
        self.on_thread(runtime, Job::outline).await
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        runtime: &Runtime,
        work: impl FnOnce(&Job) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let cancel = Cancel::default();
        let _guard = CancelOnDrop(cancel.clone());
        let job = Job {
            builder: self.clone(),
            runtime: runtime.clone(),
            cancel,
            written: AtomicBool::new(false),
        };
        // A build takes as long as its commands: it has threads of its own.
        let (tell, hear) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("rdock-build".to_owned())
            .spawn(move || {
                // Whoever waited may be gone.
                let _ = tell.send(work(&job));
            })
            .map_err(BuildError::files("start", "a thread"))?;
        hear.await.unwrap_or(Err(BuildError::Cancelled))
    }

    /// Returns what the build cache of a root holds.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn cache_usage(runtime: &Runtime) -> Result<CacheUsage> {
        Cache::open(runtime.root(), runtime.images())?.usage()
    }

    /// Removes from the build cache of a root what the filter names; what a running build uses stays.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn prune(runtime: &Runtime, filter: &CacheFilter) -> Result<CacheUsage> {
        Cache::open(runtime.root(), runtime.images())?.prune(filter)
    }
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Reads at most `limit` bytes.
pub(crate) fn read_bounded(file: impl Read, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(std::io::Error::other(format!("it is larger than {limit} bytes"))),
        false => Ok(bytes),
    }
}
