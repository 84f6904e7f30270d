//! COPY, ADD and WORKDIR: files become a layer. Also files of a context that a container mounts.
use super::Execution;
use super::step::{StackOf, stands_alone};
use crate::cache::{Components, Key, Record};
use crate::error::{BuildError, Result};
use crate::files::{Copying, FileDigests, Target, resolve_owner};
use crate::graph::{CopySource, CopyStep, Input, StepId, Unpack};
use crate::ignore::Patterns;
use rdock_image::{Digest, LayerOptions, MadeLayer};
use std::path::PathBuf;

impl Execution<'_> {
    pub(super) fn layer_options(&self) -> LayerOptions {
        LayerOptions::default().clamp_mtime(self.settings.source_date_epoch)
    }

    pub(super) fn copy(
        &self,
        id: StepId,
        copy: &CopyStep,
        below: &[Digest],
        stack_of: &StackOf<'_>,
    ) -> Result<MadeLayer> {
        let failed = |reason: String| self.failed(id, reason, None, None);
        let owner = match &copy.chown {
            Some(text) => {
                let view = self
                    .store
                    .view_layers(if stands_alone(copy) { &[] } else { below })?;
                Some(resolve_owner(&view, text).map_err(|reason| failed(format!("--chown: {reason}")))?)
            }
            None => None,
        };
        let base: &[Digest] = if copy.link { &[] } else { below };
        let scratch = self.store.scratch_layer(base)?;
        let lower = self.store.layer_directories(base)?;
        let mut target = Target::new(scratch.upper(), &lower).map_err(failed)?;
        let exclude = self.patterns(id, copy)?;
        let copying = Copying {
            store: self.store,
            destination: &copy.destination,
            several: copy.sources.len() > 1,
            owner,
            chmod: copy.chmod.as_ref(),
            parents: copy.parents,
            exclude: &exclude,
            unpack: copy.unpack,
            now: self.now(),
        };
        for (number, source) in copy.sources.iter().enumerate() {
            if self.cancel.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            let done = match source {
                CopySource::Path { from, pattern } => {
                    let tree = match from {
                        Input::Step(step) => self.tree_of(*step, stack_of)?,
                        Input::Context(name) => self.settings.inputs.open(self.cache, name)?,
                    };
                    copying.source(&mut target, &tree, pattern, number)
                }
                CopySource::Inline { name, data } => copying.inline(&mut target, name, data),
                CopySource::Url { url, checksum } => {
                    self.add_download(id, copy, url, checksum.as_ref(), number, &copying, &mut target)?;
                    continue;
                }
            };
            done.map_err(|failure| self.failed(id, failure.reason, failure.hint, None))?;
        }
        target.close().map_err(failed)?;
        Ok(self
            .store
            .adopt_layer(self.lease, scratch.upper(), base, &self.layer_options())?)
    }

    pub(super) fn make_directory(
        &self,
        id: StepId,
        path: &str,
        user: &str,
        below: &[Digest],
    ) -> Result<MadeLayer> {
        let failed = |reason: String| self.failed(id, reason, None, None);
        let owner = match user {
            "" => (0, 0),
            user => resolve_owner(&self.store.view_layers(below)?, user).map_err(failed)?,
        };
        let scratch = self.store.scratch_layer(below)?;
        let lower = self.store.layer_directories(below)?;
        let mut target = Target::new(scratch.upper(), &lower).map_err(failed)?;
        let resolved = target.resolve(path).map_err(failed)?;
        let new = crate::files::Attributes {
            mode: 0o755,
            owner,
            time: (self.now(), 0),
        };
        target.directories(&resolved, new).map_err(failed)?;
        target.close().map_err(failed)?;
        Ok(self
            .store
            .adopt_layer(self.lease, scratch.upper(), below, &self.layer_options())?)
    }

    /// Makes files of a context layers that a container can mount. Returns them, and the path of what `source` names.
    pub(super) fn context_layers(
        &self,
        id: StepId,
        context: &str,
        source: &str,
    ) -> Result<(Vec<Digest>, Option<PathBuf>)> {
        let (key, file) = self.bind_key(id, context, source)?;
        let _lock = self.cache.lock(&key, self.cancel.stop())?;
        if let Some(record) = self.cache.find(self.lease, &key)? {
            return Ok((vec![record.layer], file));
        }
        let copy = CopyStep {
            base: id,
            sources: vec![CopySource::Path {
                from: Input::Context(context.into()),
                pattern: source.to_owned(),
            }],
            destination: "/".to_owned(),
            chown: None,
            chmod: None,
            link: true,
            parents: false,
            exclude: Vec::new(),
            unpack: Unpack::Never,
        };
        let made = self.copy(id, &copy, &[], &|_| None)?;
        let record = Record {
            layer: made.diff_id.clone(),
            size: made.size,
            name: format!("files of {source} for a mount"),
            created: self.now().max(0).cast_unsigned(),
            base: Vec::new(),
            content: None,
        };
        if self.bind_key(id, context, source)?.0 == key {
            self.cache
                .put(&key, &record, std::slice::from_ref(&made.diff_id))?;
        }
        Ok((vec![made.diff_id], file))
    }

    /// The key of files that a container mounts, and the name of the file if it is one.
    fn bind_key(&self, id: StepId, context: &str, source: &str) -> Result<(Key, Option<PathBuf>)> {
        let tree = self.settings.inputs.open(self.cache, context)?;
        let found = crate::files::find(&tree, source, false)
            .map_err(|failure| self.failed(id, failure.reason, failure.hint, None))?;
        let file = found
            .first()
            .filter(|(selected, _)| selected.entry.info().kind != rdock_image::FileKind::Dir)
            .and_then(|(selected, _)| selected.path.file_name().map(PathBuf::from));
        let none = Patterns::default();
        let files = &mut FileDigests::default();
        let content = self.selection_digest(id, &tree, source, &none, false, files)?;
        self.settings.inputs.close(self.cache, context, &tree)?;
        let mut all = Components::default();
        all.set("content", content);
        Ok((all.key("bind"), file))
    }
}
