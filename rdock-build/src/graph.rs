//! The graph of a build: steps that make layers, each on the result of others. A Dockerfile becomes one; a program
//! can make one itself.
use crate::chmod::Chmod;
use crate::dockerfile::{Network, Place, Sharing};
use crate::error::{BuildError, Result};
use rdock_image::{Digest, Reference};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A step of one [`Graph`], and of its clones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub(crate) usize, u64);

impl StepId {
    /// Returns the step's number.
    pub fn number(self) -> usize {
        self.0
    }
}

/// Steps and what they stand on. A step only stands on steps added before it, so there are no cycles.
///
/// [`Builder::from_graph`](crate::Builder::from_graph) builds one.
#[derive(Clone, Debug)]
pub struct Graph {
    pub(crate) steps: Vec<Step>,
    /// Tells this graph's steps from those of others.
    mark: u64,
}

impl Default for Graph {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            steps: Vec::new(),
            mark: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// One step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Step {
    /// What it does.
    pub operation: Operation,
    /// For people.
    pub name: String,
    /// Where its instruction is.
    pub place: Option<Place>,
    /// Its result is never taken from the cache.
    pub no_cache: bool,
}

impl Step {
    /// Where the step is, for an error; its name where it is in no file.
    pub(crate) fn at(&self) -> Place {
        self.place.clone().unwrap_or_else(|| Place {
            file: self.name.clone(),
            ..Place::default()
        })
    }
}

/// What a step does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Operation {
    /// No layers.
    Scratch,
    /// The layers of an image.
    Image {
        /// The image.
        reference: Reference,
        /// Its layers, the base first. A program that makes a graph leaves them out: the build looks them up, and
        /// refuses an image that has others.
        layers: Vec<Digest>,
    },
    /// A command in a container; what it writes is the layer.
    Run(Box<RunStep>),
    /// Files are copied; they are the layer.
    Copy(Box<CopyStep>),
    /// A directory is made, with those above it.
    MakeDirectory {
        /// What it stands on.
        base: StepId,
        /// Absolute.
        path: String,
        /// Its owner, as USER has it.
        user: String,
    },
}

impl Operation {
    /// The layers of the image that a name leads to: `alpine`, `python:3.12`, `host/name@sha256:...`.
    ///
    /// # Errors
    /// [`rdock_image::Error::InvalidReference`].
    pub fn image(name: &str) -> rdock_image::Result<Self> {
        Ok(Self::Image {
            reference: Reference::parse(name)?,
            layers: Vec::new(),
        })
    }

    /// All steps that are named, as they are.
    fn named(&self) -> Vec<StepId> {
        let mut named = Vec::new();
        let mut of = |input: &Input| {
            if let Input::Step(step) = input {
                named.push(*step);
            }
        };
        match self {
            Self::Scratch | Self::Image { .. } => {}
            Self::MakeDirectory { base, .. } => named.push(*base),
            Self::Copy(copy) => {
                copy.inputs().for_each(&mut of);
                named.push(copy.base);
            }
            Self::Run(run) => {
                run.inputs().for_each(&mut of);
                named.push(run.base);
            }
        }
        named
    }

    /// The step below, on which the layer is put.
    pub(crate) fn base(&self) -> Option<StepId> {
        match self {
            Self::Scratch | Self::Image { .. } => None,
            Self::MakeDirectory { base, .. } => Some(*base),
            Self::Copy(copy) => Some(copy.base),
            Self::Run(run) => Some(run.base),
        }
    }
}

impl From<RunStep> for Operation {
    fn from(run: RunStep) -> Self {
        Self::Run(Box::new(run))
    }
}

impl From<CopyStep> for Operation {
    fn from(copy: CopyStep) -> Self {
        Self::Copy(Box::new(copy))
    }
}

/// A command in a container.
#[derive(Clone, Debug)]
pub struct RunStep {
    /// What it stands on.
    pub base: StepId,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Names and values. In a graph made in Rust those of the image below are added to them.
    pub env: Vec<(String, String)>,
    /// More variables, which are in no cache key: proxies.
    pub unkeyed_env: Vec<(String, String)>,
    /// Absolute. In a graph made in Rust it may be empty: it is the image's then.
    pub working_dir: String,
    /// As USER has it; empty is root.
    pub user: String,
    /// What it sees beside the root.
    pub mounts: Vec<RunMount>,
    /// Its network.
    pub network: Network,
    /// A file to be run: its path in the container and its content.
    pub script: Option<(String, String)>,
}

impl RunStep {
    /// A program with its arguments, as root, on the builder's network, without mounts.
    pub fn new(base: StepId, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            base,
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            unkeyed_env: Vec::new(),
            working_dir: String::new(),
            user: String::new(),
            mounts: Vec::new(),
            network: Network::Default,
            script: None,
        }
    }

    /// A line for `/bin/sh -c`.
    pub fn shell(base: StepId, line: impl Into<String>) -> Self {
        Self::new(base, ["/bin/sh".to_owned(), "-c".to_owned(), line.into()])
    }

    /// What its mounts show.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.mounts.iter().filter_map(|mount| match &mount.source {
            RunMountSource::Bind { from, .. } => Some(from),
            RunMountSource::Cache { from, .. } => from.as_ref(),
            RunMountSource::Tmpfs { .. } | RunMountSource::Secret { .. } => None,
        })
    }
}

/// A mount of a [`RunStep`].
#[derive(Clone, Debug)]
pub struct RunMount {
    /// Absolute path in the container.
    pub target: String,
    /// What is there.
    pub source: RunMountSource,
    /// The command may only read it.
    pub read_only: bool,
}

/// What a [`RunMount`] shows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RunMountSource {
    /// Files of a step or context. Writes are thrown away.
    Bind {
        /// Where from.
        from: Input,
        /// Path there; empty for all.
        source: String,
    },
    /// A directory that later builds see again.
    Cache {
        /// Which.
        id: String,
        /// What it holds at first.
        from: Option<Input>,
        /// Path in `from`.
        source: String,
        /// Who may use it at one time.
        sharing: Sharing,
        /// Of a new one.
        mode: u32,
        /// Of a new one.
        uid: u32,
        /// Of a new one.
        gid: u32,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// In bytes.
        size: Option<u64>,
    },
    /// A file with a secret.
    Secret {
        /// Which.
        id: String,
        /// Fail when the build has none.
        required: bool,
        /// Show it as a variable, and as a file only when `file`.
        env: Option<String>,
        /// Show it as a file.
        file: bool,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// Where files come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Input {
    /// The result of a step.
    Step(StepId),
    /// A directory of the host: the context of that name, the main one when empty.
    Context(Arc<str>),
}

/// Files to copy.
#[derive(Clone, Debug)]
pub struct CopyStep {
    /// What it stands on.
    pub base: StepId,
    /// In order.
    pub sources: Vec<CopySource>,
    /// Absolute; with a slash at its end it is a directory.
    pub destination: String,
    /// As `--chown` has it.
    pub chown: Option<String>,
    /// As `--chmod` has it.
    pub chmod: Option<Chmod>,
    /// The layer does not depend on the base.
    pub link: bool,
    /// Sources keep the directories they are in.
    pub parents: bool,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// Archives are unpacked: those of the context (`None`: as ADD does by default), or all or none.
    pub unpack: Unpack,
}

impl CopyStep {
    /// Copies as COPY without flags does. `destination` is absolute; with a slash at its end it is a directory.
    pub fn new(
        base: StepId,
        sources: impl IntoIterator<Item = CopySource>,
        destination: impl Into<String>,
    ) -> Self {
        Self {
            base,
            sources: sources.into_iter().collect(),
            destination: destination.into(),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            unpack: Unpack::Never,
        }
    }

    /// Where its files come from.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.sources.iter().filter_map(|source| match source {
            CopySource::Path { from, .. } => Some(from),
            CopySource::Inline { .. } | CopySource::Url { .. } => None,
        })
    }
}

/// Which archives are unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpack {
    /// None: COPY.
    Never,
    /// Those that are files of a context, not downloads: ADD.
    Local,
    /// All: `ADD --unpack`.
    Always,
}

/// One source of a [`CopyStep`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CopySource {
    /// A path or a pattern of paths.
    Path {
        /// Where.
        from: Input,
        /// Which.
        pattern: String,
    },
    /// A file whose content is given.
    Inline {
        /// Its name.
        name: String,
        /// Its content.
        data: String,
    },
    /// A file to download.
    Url {
        /// http or https.
        url: String,
        /// Digest its content must have.
        checksum: Option<Digest>,
    },
}

impl CopySource {
    /// A path of another step's result, or a pattern of paths.
    pub fn step(step: StepId, pattern: impl Into<String>) -> Self {
        Self::Path {
            from: Input::Step(step),
            pattern: pattern.into(),
        }
    }

    /// A path of the build's context, or a pattern of paths.
    pub fn context(pattern: impl Into<String>) -> Self {
        Self::Path {
            from: Input::Context("".into()),
            pattern: pattern.into(),
        }
    }
}

impl Graph {
    /// Makes an empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step. Whether it can be is checked when the graph is built.
    pub fn add(&mut self, operation: impl Into<Operation>, name: impl Into<String>) -> StepId {
        self.steps.push(Step {
            operation: operation.into(),
            name: name.into(),
            place: None,
            no_cache: false,
        });
        self.id(self.steps.len() - 1)
    }

    pub(crate) fn add_at(
        &mut self,
        operation: Operation,
        name: String,
        place: Place,
        no_cache: bool,
    ) -> StepId {
        let id = self.add(operation, name);
        self.steps[id.0].place = Some(place);
        self.steps[id.0].no_cache = no_cache;
        id
    }

    fn id(&self, number: usize) -> StepId {
        StepId(number, self.mark)
    }

    /// Returns a step; `None` for one that is not in this graph.
    pub fn step(&self, id: StepId) -> Option<&Step> {
        (self.steps.get(id.0)).filter(|_| id.1 == self.mark)
    }

    /// Returns a step to be changed; `None` for one that is not in this graph.
    pub fn step_mut(&mut self, id: StepId) -> Option<&mut Step> {
        let own = id.1 == self.mark;
        (self.steps.get_mut(id.0)).filter(|_| own)
    }

    /// Returns the steps, in the order in which they were added.
    pub fn steps(&self) -> impl Iterator<Item = (StepId, &Step)> {
        (self.steps.iter().enumerate()).map(|(number, step)| (self.id(number), step))
    }

    /// Returns the steps of this graph that a step stands on; none for a step that is not in it.
    pub fn inputs(&self, step: StepId) -> Vec<StepId> {
        let Some(found) = self.step(step) else {
            return Vec::new();
        };
        let mut inputs = found.operation.named();
        inputs.retain(|input| input.1 == self.mark && input.0 < step.0);
        inputs.sort_unstable();
        inputs.dedup();
        inputs
    }

    /// Returns the steps that lead to `target`, in order, itself last; none for a step that is not in this graph.
    pub fn reachable(&self, target: StepId) -> Vec<StepId> {
        if self.step(target).is_none() {
            return Vec::new();
        }
        let mut wanted = vec![false; target.0 + 1];
        wanted[target.0] = true;
        for number in (0..=target.0).rev() {
            if wanted[number] {
                for input in self.inputs(self.id(number)) {
                    wanted[input.0] = true;
                }
            }
        }
        (0..=target.0)
            .filter(|number| wanted[*number])
            .map(|number| self.id(number))
            .collect()
    }

    /// Every step stands on earlier ones of this graph, and is told all that it needs.
    pub(crate) fn check(&self, target: StepId) -> Result<()> {
        if self.step(target).is_none() {
            return Err(BuildError::Option {
                option: "graph",
                reason: format!("has no step {}: the target is one of another graph", target.0),
            });
        }
        for (id, step) in self.steps() {
            let wrong = |reason: String| {
                Err(BuildError::Graph {
                    step: step.name.clone(),
                    reason,
                })
            };
            for input in step.operation.named() {
                if input.1 != self.mark {
                    return wrong(format!("stands on step {} of another graph", input.0));
                }
                if input.0 >= id.0 {
                    return wrong(format!("stands on step {}, which is not before it", input.0));
                }
            }
            let relative = |path: &str| !path.starts_with('/');
            match &step.operation {
                Operation::Run(run) if run.args.is_empty() => return wrong("has no command".to_owned()),
                Operation::Run(run) => {
                    let paths = run.mounts.iter().map(|mount| &mount.target);
                    let paths = paths.chain(run.script.as_ref().map(|(path, _)| path));
                    let dir = Some(&run.working_dir).filter(|dir| !dir.is_empty());
                    if let Some(path) = paths.chain(dir).find(|path| relative(path)) {
                        return wrong(format!("has the path {path:?}, which is not absolute"));
                    }
                }
                Operation::Copy(copy) if copy.sources.is_empty() => {
                    return wrong("copies nothing: it has no sources".to_owned());
                }
                Operation::Copy(copy) if relative(&copy.destination) => {
                    return wrong(format!(
                        "has the path {:?}, which is not absolute",
                        copy.destination
                    ));
                }
                Operation::MakeDirectory { path, .. } if relative(path) => {
                    return wrong(format!("has the path {path:?}, which is not absolute"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
