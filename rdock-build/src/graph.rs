//! The graph of a build: steps that make layers, each on the result of others. A Dockerfile becomes one; a program
//! can make one itself.
use crate::chmod::Chmod;
use crate::dockerfile::{Network, Place, Sharing};
use rdock_image::{Digest, Reference};
use std::path::PathBuf;
use std::sync::Arc;

/// A step of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub(crate) usize);

impl StepId {
    /// Returns the step's number.
    pub fn number(self) -> usize {
        self.0
    }
}

/// Steps and what they stand on. A step only stands on steps added before it, so there are no cycles.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(crate) steps: Vec<Step>,
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
        /// Its layers, the base first.
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

/// A command in a container.
#[derive(Clone, Debug)]
pub struct RunStep {
    /// What it stands on.
    pub base: StepId,
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value` pairs.
    pub env: Vec<(String, String)>,
    /// More variables, which are in no cache key: proxies.
    pub unkeyed_env: Vec<(String, String)>,
    /// Absolute.
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

impl Graph {
    /// Makes an empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step.
    ///
    /// # Panics
    /// Never; a step that names one that is not in this graph makes [`Graph::inputs`] and the build leave it out.
    pub fn add(&mut self, operation: Operation, name: impl Into<String>) -> StepId {
        self.steps.push(Step {
            operation,
            name: name.into(),
            place: None,
            no_cache: false,
        });
        StepId(self.steps.len() - 1)
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

    /// Returns the steps, in the order in which they were added.
    pub fn steps(&self) -> impl Iterator<Item = (StepId, &Step)> {
        self.steps
            .iter()
            .enumerate()
            .map(|(number, step)| (StepId(number), step))
    }

    /// Returns the steps that a step stands on.
    pub fn inputs(&self, step: StepId) -> Vec<StepId> {
        let mut inputs = Vec::new();
        let mut of = |input: &Input| {
            if let Input::Step(step) = input {
                inputs.push(*step);
            }
        };
        match &self.steps[step.0].operation {
            Operation::Scratch | Operation::Image { .. } => {}
            Operation::MakeDirectory { base, .. } => inputs.push(*base),
            Operation::Copy(copy) => {
                for source in &copy.sources {
                    if let CopySource::Path { from, .. } = source {
                        of(from);
                    }
                }
                inputs.push(copy.base);
            }
            Operation::Run(run) => {
                for mount in &run.mounts {
                    match &mount.source {
                        RunMountSource::Bind { from, .. }
                        | RunMountSource::Cache { from: Some(from), .. } => of(from),
                        _ => {}
                    }
                }
                inputs.push(run.base);
            }
        }
        inputs.retain(|input| input.0 < step.0);
        inputs.sort_unstable();
        inputs.dedup();
        inputs
    }

    /// Returns the steps that lead to `target`, in order, itself last.
    pub fn reachable(&self, target: StepId) -> Vec<StepId> {
        let mut wanted = vec![false; self.steps.len()];
        wanted[target.0] = true;
        for number in (0..=target.0).rev() {
            if wanted[number] {
                for input in self.inputs(StepId(number)) {
                    wanted[input.0] = true;
                }
            }
        }
        (0..=target.0)
            .filter(|number| wanted[*number])
            .map(StepId)
            .collect()
    }
}

/// A named context: files or an image that a Dockerfile's FROM, `--from` and `from=` can name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NamedContext {
    /// A directory of the host.
    Directory(PathBuf),
    /// An image.
    Image(Reference),
}
