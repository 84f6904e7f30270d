//! Runs a graph: steps whose inputs are there run at once, each at most once on the machine.
mod cancel;
#[cfg(feature = "registry")]
mod download;
#[cfg(not(feature = "registry"))]
#[path = "no_download.rs"]
mod download;
mod files;
mod inputs;
mod run;
mod secrets;
mod step;

pub(crate) use cancel::Cancel;
pub(crate) use download::content as download;
pub(crate) use inputs::{ContextDir, Inputs};
pub use secrets::Secret;
pub(crate) use secrets::sweep as sweep_secrets;

use crate::builder::Proxies;
use crate::cache::{Cache, Exported, Imports};
use crate::dockerfile::Place;
use crate::error::{BuildError, Result};
use crate::event::{BuildEvent, BuildProgress, Hit, StepInfo};
use crate::graph::{Graph, Operation, StepId};
use rdock_image::{Digest, ImageStore, Lease, Progress};
use rdock_runtime::{NetworkMode, Resources, Runtime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// What all steps of a build share.
pub(crate) struct Execution<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) runtime: &'a Runtime,
    pub(crate) store: &'a ImageStore,
    pub(crate) cache: &'a Cache,
    pub(crate) lease: &'a Lease,
    /// Caches of other machines.
    pub(crate) imports: &'a Imports,
    pub(crate) progress: &'a BuildProgress,
    pub(crate) cancel: &'a Cancel,
    pub(crate) settings: &'a Settings,
    /// Brings the layers of the image of a step into the store.
    pub(crate) fetch: &'a (dyn Fn(StepId, &Cancel) -> Result<()> + Sync),
    /// What this machine cannot do for commands, as far as it was said.
    pub(crate) said: Mutex<BTreeSet<String>>,
}

/// What the caller wants of every step.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) inputs: Inputs,
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) extra_hosts: Vec<(String, String)>,
    pub(crate) network: NetworkMode,
    pub(crate) host_certificates: bool,
    pub(crate) source_date_epoch: Option<i64>,
    pub(crate) shm_size: Option<u64>,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) ulimits: Vec<(String, u64, u64)>,
    pub(crate) resources: Resources,
    pub(crate) hostname: Option<String>,
    pub(crate) parallel: usize,
    /// Of downloads.
    #[cfg_attr(
        not(feature = "registry"),
        expect(dead_code, reason = "without downloads nobody asks for them")
    )]
    pub(crate) proxies: Proxies,
    /// Only look into the cache: a step that is not there ends its branch.
    pub(crate) dry: bool,
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepReport {
    /// Its number in the graph.
    pub id: usize,
    /// For people.
    pub name: String,
    /// What came of it.
    pub outcome: StepOutcome,
    /// How long it took.
    pub took: Duration,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepOutcome {
    /// It makes nothing: a base.
    Base,
    /// Its result was there.
    Cached {
        /// How it was found.
        by: Hit,
    },
    /// It ran, or would have run.
    Missed {
        /// Why its result was not there.
        why: Vec<Miss>,
    },
}

/// Why a step's result was not in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Miss {
    /// The caller wanted no cache.
    NotWanted,
    /// No build of this file ran such a step here before.
    New,
    /// This went into the result and is not what it was: `the layers below`, `file app/main.py`, `variable PATH`.
    Changed(String),
    /// The step ran before with the same inputs; its result was pruned.
    Pruned,
    /// A step before it has to run first.
    Before,
}

impl std::fmt::Display for Miss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotWanted => f.write_str("the cache is not used"),
            Self::New => f.write_str("it never ran before"),
            Self::Changed(what) => write!(f, "{what} changed"),
            Self::Pruned => f.write_str("its result was pruned"),
            Self::Before => f.write_str("a step before it has to run"),
        }
    }
}

/// The results.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// Layers by step; `None` for one that a dry run could not know.
    pub(crate) stacks: BTreeMap<StepId, Option<Vec<Digest>>>,
    pub(crate) reports: Vec<StepReport>,
    /// When a step's layer was made, in seconds since 1970.
    pub(crate) created: BTreeMap<StepId, u64>,
    /// What other machines may be told of the steps that made layers; not of those whose files changed meanwhile.
    pub(crate) made: BTreeMap<StepId, Exported>,
}

impl Execution<'_> {
    /// Runs what `targets` need.
    pub(crate) fn all(&self, targets: &[StepId]) -> Result<Results> {
        let wanted: BTreeSet<StepId> = targets
            .iter()
            .flat_map(|target| self.graph.reachable(*target))
            .collect();
        self.progress.emit(BuildEvent::Planned {
            steps: wanted
                .iter()
                .map(|id| {
                    let step = &self.graph.steps[id.0];
                    StepInfo {
                        id: id.0,
                        name: step.name.clone(),
                        place: step.place.clone(),
                    }
                })
                .collect(),
        });
        let mut waiting: Vec<(StepId, BTreeSet<StepId>)> = wanted
            .iter()
            .map(|id| (*id, self.graph.inputs(*id).into_iter().collect()))
            .collect();
        let results = Mutex::new(Results::default());
        let mut failure = None;
        std::thread::scope(|scope| {
            let (tell, hear) = channel();
            let mut running = 0;
            let mut ready: Vec<StepId> = Vec::new();
            loop {
                waiting.retain(|(id, inputs)| {
                    if inputs.is_empty() {
                        ready.push(*id);
                    }
                    !inputs.is_empty()
                });
                while failure.is_none() && running < self.settings.parallel.max(1) && !ready.is_empty() {
                    let id = ready.remove(0);
                    let (tell, results) = (tell.clone(), &results);
                    running += 1;
                    // A step alone runs here; only others at the same time need threads.
                    if running == 1 && ready.is_empty() {
                        let _ = tell.send((id, self.one(id, results)));
                    } else {
                        scope.spawn(move || {
                            let _ = tell.send((id, self.one(id, results)));
                        });
                    }
                }
                if running == 0 {
                    break;
                }
                let Ok((id, outcome)) = hear.recv() else { break };
                running -= 1;
                match outcome {
                    Ok(()) => {
                        for (_, inputs) in &mut waiting {
                            inputs.remove(&id);
                        }
                    }
                    Err(error) => {
                        // The first failure ends the others; what they say then is its echo.
                        if failure.is_none() {
                            failure = Some(error);
                            self.cancel.cancel();
                        }
                    }
                }
            }
        });
        match failure {
            Some(error) => Err(error),
            None => {
                let mut results = results
                    .into_inner()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                results.reports.sort_by_key(|report| report.id);
                Ok(results)
            }
        }
    }

    fn one(&self, id: StepId, results: &Mutex<Results>) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let started = Instant::now();
        let stack_of = |id: StepId| {
            let results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            results.stacks.get(&id).cloned().flatten()
        };
        let step::Done {
            stack,
            outcome,
            created,
            made,
        } = match self.step(id, &stack_of) {
            Ok(done) => done,
            Err(error) => {
                if !matches!(error, BuildError::Cancelled) {
                    self.progress.emit(BuildEvent::StepFailed { id: id.0 });
                }
                return Err(error);
            }
        };
        let took = started.elapsed();
        match &outcome {
            StepOutcome::Cached { by } => self.progress.emit(BuildEvent::StepCached { id: id.0, by: *by }),
            _ => self.progress.emit(BuildEvent::StepFinished { id: id.0, took }),
        }
        let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        results.stacks.insert(id, stack);
        results.created.extend(created.map(|time| (id, time)));
        results.made.extend(made.map(|made| (id, made)));
        results.reports.push(StepReport {
            id: id.0,
            name: self.graph.steps[id.0].name.clone(),
            outcome,
            took,
        });
        Ok(())
    }

    /// Brings in what is missing of the layers `needed` by a step; they are those of images below it, were made by this
    /// build, or were found in a cache of another machine. False in a dry run, which brings nothing.
    pub(crate) fn bring(&self, id: StepId, needed: &[Digest]) -> Result<bool> {
        for input in self.graph.reachable(id) {
            let Operation::Image { layers, .. } = &self.graph.steps[input.0].operation else {
                continue;
            };
            let missing = |layer: &Digest| needed.contains(layer) && !self.store.has_layer(layer);
            if layers.iter().any(missing) {
                if self.settings.dry {
                    return Ok(false);
                }
                (self.fetch)(input, self.cancel)?;
            }
        }
        if self.settings.dry {
            return Ok(needed.iter().all(|layer| self.store.has_layer(layer)));
        }
        self.bring_imported(needed)?;
        Ok(true)
    }

    /// Brings those of the layers that a cache of another machine has, and this store has not.
    pub(crate) fn bring_imported(&self, layers: &[Digest]) -> Result<()> {
        let missing = layers.iter().filter(|layer| !self.store.has_layer(layer));
        let missing: Vec<Digest> = missing.cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let progress = self.progress.clone();
        let progress = Progress::new(move |event| progress.emit(BuildEvent::Pull(event)))
            .stopped_by(self.cancel.stop().clone());
        let tell = |text| self.warn(text);
        self.imports
            .bring(&missing, self.cache, self.runtime, &progress, &tell)
    }

    /// Says what this machine cannot do for a command; once, for most have the same to do without.
    pub(crate) fn warn(&self, text: String) {
        let mut said = self
            .said
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if said.insert(text.clone()) {
            self.progress.emit(BuildEvent::Warning { place: None, text });
        }
    }

    /// Where a step is, for an error.
    pub(crate) fn place(&self, id: StepId) -> Box<Place> {
        Box::new(self.graph.steps[id.0].at())
    }

    /// An error at a step's instruction.
    pub(crate) fn failed(
        &self,
        id: StepId,
        reason: impl Into<String>,
        hint: Option<String>,
        source: Option<rdock_image::BoxError>,
    ) -> BuildError {
        let step = &self.graph.steps[id.0];
        BuildError::Step {
            place: self.place(id),
            step: step.name.clone(),
            reason: reason.into(),
            hint,
            source,
        }
    }

    /// The time of what is made now.
    pub(crate) fn now(&self) -> i64 {
        self.settings
            .source_date_epoch
            .unwrap_or_else(|| jiff::Timestamp::now().as_second())
    }
}
