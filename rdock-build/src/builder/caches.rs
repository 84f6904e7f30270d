//! Caches of other machines: opened when the build begins, written when it is done.
use super::job::Job;
use crate::cache::{CacheMode, CacheSource, CacheTarget, Exported, Imported, Imports, chain, portable};
use crate::error::{BuildError, Result};
use crate::event::BuildEvent;
use crate::exec::{Execution, Results};
use crate::front::Plan;
use crate::graph::StepId;
use rdock_image::{BoxError, Digest, LayoutName, OciLayout, Platform, Progress};

impl Job {
    /// Opens the caches that steps may be taken from, all at once. One that is not there counts for nothing: it may be
    /// what this build writes first.
    pub(super) fn imports(&self) -> Imports {
        let progress = self.pull_progress();
        let opened = std::thread::scope(|scope| {
            let running: Vec<_> = self
                .builder
                .cache_from
                .iter()
                .map(|source| {
                    let progress = &progress;
                    scope.spawn(move || self.import(source, progress))
                })
                .collect();
            running
                .into_iter()
                .filter_map(|thread| match thread.join() {
                    Ok(import) => import,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        });
        Imports::new(opened)
    }

    fn import(&self, source: &CacheSource, progress: &Progress) -> Option<Imported> {
        let from = source.to_string();
        self.tell(BuildEvent::CacheImporting { from: from.clone() });
        match Imported::open(source, &self.runtime, progress) {
            Ok(import) => {
                let steps = import.len();
                self.tell(BuildEvent::CacheImported { from, steps });
                Some(import)
            }
            Err(error) => {
                let text = format!("the cache {from} is not used: {}", chain(error.as_ref()));
                self.tell(BuildEvent::Warning { place: None, text });
                None
            }
        }
    }

    /// Writes the caches that were asked for, except those in the image itself.
    pub(super) fn export_caches(
        &self,
        plan: &Plan,
        execution: &Execution<'_>,
        results: &Results,
    ) -> Result<()> {
        for target in &self.builder.cache_to {
            let (mode, ignore_error) = match target {
                CacheTarget::Inline => continue,
                CacheTarget::Registry {
                    mode, ignore_error, ..
                }
                | CacheTarget::Local {
                    mode, ignore_error, ..
                } => (*mode, *ignore_error),
            };
            if self.cancel.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            match self.export_cache(target, plan, execution, results, mode) {
                Ok(()) => {}
                Err(_) if self.cancel.is_cancelled() => return Err(BuildError::Cancelled),
                Err(error) if ignore_error => {
                    let text = format!("the cache {target} was not written: {}", chain(error.as_ref()));
                    self.tell(BuildEvent::Warning { place: None, text });
                }
                Err(source) => {
                    return Err(BuildError::Output {
                        what: format!("the cache {target}"),
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    fn export_cache(
        &self,
        target: &CacheTarget,
        plan: &Plan,
        execution: &Execution<'_>,
        results: &Results,
        mode: CacheMode,
    ) -> std::result::Result<(), BoxError> {
        let to = target.to_string();
        self.tell(BuildEvent::CacheExporting { to: to.clone() });
        let store = execution.store;
        let mut records = exported(execution, plan, results, mode);
        let same = match target {
            CacheTarget::Registry { reference, .. } => CacheSource::Registry(reference.clone()),
            CacheTarget::Local { path, tag, .. } => CacheSource::Local {
                path: path.clone(),
                name: match tag.as_str() {
                    "latest" => LayoutName::Default,
                    tag => LayoutName::Tag(tag.to_owned()),
                },
            },
            CacheTarget::Inline => return Ok(()),
        };
        // What was taken from there whole need not be fetched to be sent back.
        if execution.imports.has_all(&same, &records) {
            return Ok(());
        }
        let layers: Vec<Digest> = records.iter().map(|record| record.layer.clone()).collect();
        if execution.bring_imported(&layers).is_err() {
            // It was warned of; what is here is exported.
            records.retain(|record| store.has_layer(&record.layer));
        }
        let config = portable::config(&Platform::host(), &records);
        let image = store.unlisted_artifact(execution.lease, &config, portable::MEDIA_TYPE)?;
        let digest = match target {
            CacheTarget::Registry { reference, .. } => {
                let wait = tokio::runtime::Builder::new_current_thread().build()?;
                wait.block_on(self.runtime.publish(reference, &image, &self.pull_progress()))?
            }
            CacheTarget::Local { path, tag, .. } => OciLayout::new(path).add(&image, tag)?,
            CacheTarget::Inline => return Ok(()),
        };
        self.tell(BuildEvent::CacheExported { to, digest });
        Ok(())
    }

    fn tell(&self, event: BuildEvent) {
        self.builder.progress.emit(event);
    }

    pub(super) fn pull_progress(&self) -> Progress {
        let progress = self.builder.progress.clone();
        Progress::new(move |event| progress.emit(BuildEvent::Pull(event)))
            .stopped_by(self.cancel.stop().clone())
    }
}

/// What a cache of this mode says of the steps of a build.
pub(super) fn exported(
    execution: &Execution<'_>,
    plan: &Plan,
    results: &Results,
    mode: CacheMode,
) -> Vec<Exported> {
    let graph = execution.graph;
    let steps: Vec<StepId> = match mode {
        CacheMode::Max => results.made.keys().copied().collect(),
        CacheMode::Min => {
            let below = |step: &StepId| graph.step(*step).and_then(|step| step.operation.base());
            let mut steps: Vec<_> = std::iter::successors(Some(plan.target), below).collect();
            steps.reverse();
            steps
        }
    };
    let records = steps.iter().filter_map(|step| results.made.get(step));
    records.cloned().collect()
}
