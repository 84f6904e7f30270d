//! One step: its key, its place in the cache, and its work.
use super::{Execution, Miss, StepOutcome};
use crate::cache::{Components, Exported, Key, Record};
use crate::dockerfile::Network;
use crate::error::{BuildError, Result};
use crate::event::{BuildEvent, Hit};
use crate::files::{FileDigests, SourceTree, digest};
use crate::graph::{CopySource, CopyStep, Input, Operation, RunMountSource, RunStep, StepId};
use crate::ignore::Patterns;
use rdock_image::Digest;
use rdock_runtime::NetworkMode;

/// A step that is done, or that a dry run looked at.
pub(super) struct Done {
    /// Its layers; `None` in a dry run that cannot know.
    pub(super) stack: Option<Vec<Digest>>,
    pub(super) outcome: StepOutcome,
    /// When its layer was made.
    pub(super) created: Option<u64>,
    pub(super) made: Option<Exported>,
}

impl Done {
    fn base(layers: Vec<Digest>) -> Self {
        Self {
            stack: Some(layers),
            outcome: StepOutcome::Base,
            created: None,
            made: None,
        }
    }

    /// It would have to run.
    fn missed(why: Vec<Miss>) -> Self {
        Self {
            stack: None,
            outcome: StepOutcome::Missed { why },
            created: None,
            made: None,
        }
    }

    fn cached(by: Hit, key: &Key, record: Record, below: &[Digest]) -> Self {
        Self {
            stack: Some([below, std::slice::from_ref(&record.layer)].concat()),
            outcome: StepOutcome::Cached { by },
            created: Some(record.created),
            made: Some(Exported::of(key, record)),
        }
    }
}

pub(super) type StackOf<'a> = dyn Fn(StepId) -> Option<Vec<Digest>> + 'a;

impl Execution<'_> {
    /// Returns a step's layers, from the cache or by running it. `None` in a dry run that cannot know.
    pub(super) fn step(&self, id: StepId, stack_of: &StackOf<'_>) -> Result<Done> {
        let step = &self.graph.steps[id.0];
        let base = match &step.operation {
            Operation::Scratch => return Ok(Done::base(Vec::new())),
            Operation::Image { layers, .. } => return Ok(Done::base(layers.clone())),
            Operation::Run(run) => run.base,
            Operation::Copy(copy) => copy.base,
            Operation::MakeDirectory { base, .. } => *base,
        };
        let Some(below) = stack_of(base) else {
            return Ok(Done::missed(vec![Miss::Before]));
        };
        if self
            .graph
            .inputs(id)
            .iter()
            .any(|input| stack_of(*input).is_none())
        {
            return Ok(Done::missed(vec![Miss::Before]));
        }
        let mut files = FileDigests::default();
        let definition = self.definition(id, &below, stack_of, &mut files)?;
        let kind = kind(&step.operation);
        let key = definition.key(kind);
        if !step.no_cache
            && let Some(record) = self.find(id, &key, &below)?
        {
            return Ok(Done::cached(Hit::Definition, &key, record, &below));
        }
        // The position tells what this step was last time, whatever became of its key.
        let context = self.settings.inputs.main();
        let position = Key::of(format!("{kind} {} {}", context.display(), step.name).as_bytes());
        // The key has one digest of all files; people want to know which one changed.
        let mut noted = definition.clone();
        for (path, digest) in files.iter() {
            noted.set(format!("file {path}"), digest);
        }
        let why = match (step.no_cache, self.cache.last(&position)) {
            (true, _) => vec![Miss::NotWanted],
            (false, None) => vec![Miss::New],
            (false, Some(last)) => match noted.changed(&last) {
                names if names.is_empty() => vec![Miss::Pruned],
                names => names.into_iter().map(Miss::Changed).collect(),
            },
        };
        // Who only looks does not wait for who works.
        let _lock = match self.settings.dry {
            true => None,
            false => Some(self.cache.lock(&key, self.cancel.stop())?),
        };
        if !step.no_cache
            && let Some(record) = self.find(id, &key, &below)?
        {
            return Ok(Done::cached(Hit::Definition, &key, record, &below));
        }
        if self.settings.dry && !self.has_content(&step.operation) {
            return Ok(Done::missed(why));
        }
        if !self.bring(id, &self.needed(&step.operation, &below, stack_of))? {
            return Ok(Done::missed(why));
        }
        let content = self.content(id, &definition, stack_of)?;
        let content_key = content.map(|content| content.key(kind));
        if !step.no_cache
            && let Some(content_key) = &content_key
            && let Some(mut record) = self.find(id, content_key, &below)?
        {
            record.content = Some(content_key.clone());
            self.imports.note(self.cache, self.store, &key, &record)?;
            self.cache.set_last(&position, &noted)?;
            return Ok(Done::cached(Hit::Content, &key, record, &below));
        }
        if self.settings.dry {
            return Ok(Done::missed(why));
        }
        self.progress.emit(BuildEvent::StepStarted { id: id.0 });
        // Files of a context may change at any time. What was read of them then is right for this build, and wrong for
        // the key.
        let unchanged = || -> Result<bool> {
            if !reads_context(&step.operation) {
                return Ok(true);
            }
            let now = self.definition(id, &below, stack_of, &mut FileDigests::default())?;
            Ok(now.key(kind) == key)
        };
        let (made, unchanged) = match &step.operation {
            Operation::Run(run) => self.run(id, run, &below, stack_of, &unchanged)?,
            Operation::Copy(copy) => {
                let made = self.copy(id, copy, &below, stack_of)?;
                (made, unchanged()?)
            }
            Operation::MakeDirectory { path, user, .. } => {
                (self.make_directory(id, path, user, &below)?, true)
            }
            Operation::Scratch | Operation::Image { .. } => {
                return Ok(Done::base(below));
            }
        };
        if self.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let record = Record {
            layer: made.diff_id.clone(),
            size: made.size,
            name: step.name.clone(),
            created: self.now().max(0).cast_unsigned(),
            base: below.clone(),
            content: content_key.clone(),
        };
        let stack = [&below[..], &[made.diff_id]].concat();
        if unchanged {
            self.cache.put(&key, &record, &stack)?;
            if let Some(content_key) = &content_key {
                self.cache.put(content_key, &record, &stack)?;
            }
            self.cache.set_last(&position, &noted)?;
        }
        Ok(Done {
            stack: Some(stack),
            outcome: StepOutcome::Missed { why },
            created: Some(record.created),
            made: unchanged.then(|| Exported::of(&key, record)),
        })
    }

    /// A result that this root's cache has, or one of another machine, whose layer may not be here yet.
    fn find(&self, id: StepId, key: &Key, below: &[Digest]) -> Result<Option<Record>> {
        if let Some(record) = self.cache.find(self.lease, key)? {
            return Ok(Some(record));
        }
        let Some(found) = self.imports.find(key) else {
            return Ok(None);
        };
        self.lease.pin(&found.layer)?;
        let record = Record {
            layer: found.layer,
            size: 0,
            name: self.graph.steps[id.0].name.clone(),
            created: found.created,
            base: below.to_vec(),
            content: found.content,
        };
        if !self.settings.dry {
            self.imports.note(self.cache, self.store, key, &record)?;
        }
        Ok(Some(record))
    }

    /// The layers whose files a step reads.
    fn needed(&self, operation: &Operation, below: &[Digest], stack_of: &StackOf<'_>) -> Vec<Digest> {
        let mut needed = match operation {
            Operation::Copy(copy) if stands_alone(copy) => Vec::new(),
            _ => below.to_vec(),
        };
        let mut of = |input: &Input| {
            if let Input::Step(step) = input {
                needed.extend(stack_of(*step).unwrap_or_default());
            }
        };
        match operation {
            Operation::Copy(copy) => copy.inputs().for_each(&mut of),
            Operation::Run(run) => run.inputs().for_each(&mut of),
            _ => {}
        }
        needed
    }

    /// What goes into a step, by name; `files` gets the digests of a context's files.
    fn definition(
        &self,
        id: StepId,
        below: &[Digest],
        stack_of: &StackOf<'_>,
        files: &mut FileDigests,
    ) -> Result<Components> {
        let mut all = Components::default();
        let stack = |layers: &[Digest]| -> String {
            let texts: Vec<&str> = layers.iter().map(Digest::as_str).collect();
            Key::of(texts.join(" ").as_bytes()).as_str().to_owned()
        };
        match &self.graph.steps[id.0].operation {
            Operation::Run(run) => {
                all.set("the layers below", stack(below));
                self.run_components(&mut all, run, stack_of);
                for mount in &run.mounts {
                    if let RunMountSource::Bind { from, source } = &mount.source {
                        let name = format!("mount {}", mount.target);
                        match from {
                            Input::Step(step) => {
                                all.set(
                                    name,
                                    format!("{} {source}", stack(&stack_of(*step).unwrap_or_default())),
                                );
                            }
                            Input::Context(context) => {
                                let content = self.path_digest(
                                    id,
                                    context,
                                    source,
                                    &Patterns::default(),
                                    files,
                                    false,
                                )?;
                                all.set(name, format!("{content} {source}"));
                            }
                        }
                    }
                }
            }
            Operation::Copy(copy) => {
                if !stands_alone(copy) {
                    all.set("the layers below", stack(below));
                }
                all.set("the destination", &copy.destination);
                all.set("--chown", copy.chown.clone().unwrap_or_default());
                all.set("--chmod", format!("{:?}", copy.chmod));
                all.set(
                    "flags",
                    format!("{} {} {:?}", copy.link, copy.parents, copy.unpack),
                );
                all.set("--exclude", copy.exclude.join("\n"));
                if let Some(epoch) = self.settings.source_date_epoch {
                    all.set("SOURCE_DATE_EPOCH", epoch.to_string());
                }
                let exclude = self.patterns(id, copy)?;
                for (number, source) in copy.sources.iter().enumerate() {
                    let name = format!("source {number}");
                    match source {
                        CopySource::Path {
                            from: Input::Step(step),
                            pattern,
                        } => {
                            all.set(
                                name,
                                format!("{} {pattern}", stack(&stack_of(*step).unwrap_or_default())),
                            );
                        }
                        CopySource::Path {
                            from: Input::Context(context),
                            pattern,
                        } => {
                            let content =
                                self.path_digest(id, context, pattern, &exclude, files, copy.parents)?;
                            all.set(name, format!("{content} {pattern}"));
                        }
                        CopySource::Inline { name: file, data } => {
                            all.set(name, format!("{file} {}", Key::of(data.as_bytes()).as_str()));
                        }
                        CopySource::Url { url, checksum } => {
                            let content = match checksum {
                                Some(checksum) => checksum.to_string(),
                                None => self.download_state(id, url)?,
                            };
                            all.set(name, format!("{url} {content}"));
                        }
                    }
                }
            }
            Operation::MakeDirectory { path, user, .. } => {
                all.set("the layers below", stack(below));
                all.set("the directory", path);
                all.set("the user", user);
                if let Some(epoch) = self.settings.source_date_epoch {
                    all.set("SOURCE_DATE_EPOCH", epoch.to_string());
                }
            }
            Operation::Scratch | Operation::Image { .. } => {}
        }
        Ok(all)
    }

    /// Does the step have inputs whose content says more than their names?
    fn has_content(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Copy(copy) => copy
                .sources
                .iter()
                .any(|source| matches!(source, CopySource::Path { from: Input::Step(_), .. })),
            Operation::Run(run) => run.mounts.iter().any(|mount| {
                matches!(&mount.source, RunMountSource::Bind { from: Input::Step(_), source } if !source.trim_matches('/').is_empty())
            }),
            _ => false,
        }
    }

    /// What went into the step by content: another build of a stage may have made the same files.
    fn content(
        &self,
        id: StepId,
        definition: &Components,
        stack_of: &StackOf<'_>,
    ) -> Result<Option<Components>> {
        let operation = &self.graph.steps[id.0].operation;
        if !self.has_content(operation) {
            return Ok(None);
        }
        let mut all = definition.clone();
        match operation {
            Operation::Copy(copy) => {
                let exclude = self.patterns(id, copy)?;
                for (number, source) in copy.sources.iter().enumerate() {
                    if let CopySource::Path {
                        from: Input::Step(step),
                        pattern,
                    } = source
                    {
                        let tree = self.tree_of(*step, stack_of)?;
                        let files = &mut FileDigests::default();
                        let content =
                            self.selection_digest(id, &tree, pattern, &exclude, copy.parents, files)?;
                        all.set(format!("source {number}"), format!("content {content} {pattern}"));
                    }
                }
            }
            Operation::Run(run) => {
                for mount in &run.mounts {
                    if let RunMountSource::Bind {
                        from: Input::Step(step),
                        source,
                    } = &mount.source
                    {
                        let tree = self.tree_of(*step, stack_of)?;
                        let none = Patterns::default();
                        let files = &mut FileDigests::default();
                        let content = self.selection_digest(id, &tree, source, &none, false, files)?;
                        all.set(
                            format!("mount {}", mount.target),
                            format!("content {content} {source}"),
                        );
                    }
                }
            }
            _ => {}
        }
        Ok(Some(all))
    }

    pub(super) fn tree_of(&self, step: StepId, stack_of: &StackOf<'_>) -> Result<SourceTree> {
        let stack = stack_of(step).unwrap_or_default();
        Ok(SourceTree::layers(self.store.view_layers(&stack)?))
    }

    pub(super) fn patterns(&self, id: StepId, copy: &CopyStep) -> Result<Patterns> {
        Patterns::new(&copy.exclude)
            .map_err(|error| self.failed(id, format!("--exclude: {error}"), None, None))
    }

    /// The digest of a context's files that a pattern names.
    fn path_digest(
        &self,
        id: StepId,
        context: &str,
        pattern: &str,
        exclude: &Patterns,
        files: &mut FileDigests,
        parents: bool,
    ) -> Result<String> {
        let tree = self.settings.inputs.open(self.cache, context)?;
        let digest = self.selection_digest(id, &tree, pattern, exclude, parents, files)?;
        self.settings.inputs.close(self.cache, context, &tree)?;
        Ok(digest)
    }

    pub(super) fn selection_digest(
        &self,
        id: StepId,
        tree: &SourceTree,
        pattern: &str,
        exclude: &Patterns,
        parents: bool,
        files: &mut FileDigests,
    ) -> Result<String> {
        let found = crate::files::find(tree, pattern, parents)
            .map_err(|failure| self.failed(id, failure.reason, failure.hint, None))?;
        let mut whole = String::new();
        for (selected, _) in found {
            let named = selected.path.display().to_string();
            let digest = digest(tree, &selected, exclude, files)
                .map_err(|reason| self.failed(id, reason, None, None))?;
            whole.push_str(&format!("{}:{named} {digest}\n", named.len()));
        }
        Ok(Key::of(whole.as_bytes()).as_str().to_owned())
    }

    fn run_components(&self, all: &mut Components, run: &RunStep, stack_of: &StackOf<'_>) {
        all.set("the command", format!("{:?}", run.args));
        for (name, value) in &run.env {
            all.set(format!("variable {name}"), value);
        }
        all.set("the working directory", &run.working_dir);
        all.set("the user", &run.user);
        all.set("the network", format!("{:?}", run.network));
        let settings = self.settings;
        if run.network == Network::Default && settings.network != NetworkMode::Default {
            all.set("the network of the build", format!("{:?}", settings.network));
        }
        if !settings.ulimits.is_empty() {
            all.set("the limits", format!("{:?}", settings.ulimits));
        }
        if let Some(bytes) = settings.shm_size {
            all.set("the size of /dev/shm", bytes.to_string());
        }
        if !settings.extra_hosts.is_empty() {
            // Addresses change from one network to the next, for the same hosts.
            let names: Vec<&str> = settings.extra_hosts.iter().map(|(name, _)| &**name).collect();
            all.set("the hosts that were added", names.join(" "));
        }
        if let Some((path, data)) = &run.script {
            all.set(
                "the script",
                format!("{path} {}", Key::of(data.as_bytes()).as_str()),
            );
        }
        if let Some(name) = &settings.hostname {
            all.set("the host name", name);
        }
        if let Some(epoch) = settings.source_date_epoch {
            all.set("SOURCE_DATE_EPOCH", epoch.to_string());
        }
        for mount in &run.mounts {
            let text = match &mount.source {
                // Added with what they hold.
                RunMountSource::Bind { .. } => continue,
                RunMountSource::Cache { id, from, source, .. } => {
                    let from = match from {
                        Some(Input::Step(step)) => format!("{:?}", stack_of(*step)),
                        Some(Input::Context(name)) => name.to_string(),
                        None => String::new(),
                    };
                    format!("cache {id} {from} {source}")
                }
                RunMountSource::Tmpfs { size } => format!("tmpfs {size:?}"),
                // What is in it counts for nothing; that it is there changes what the command sees.
                RunMountSource::Secret {
                    id,
                    env,
                    file,
                    mode,
                    uid,
                    gid,
                    ..
                } => {
                    format!("secret {id} {env:?} {file} {mode:o} {uid} {gid}")
                }
            };
            all.set(
                format!("mount {}", mount.target),
                format!("{text} {}", mount.read_only),
            );
        }
    }
}

/// Does it read files of a context, which may change at any time?
fn reads_context(operation: &Operation) -> bool {
    let is_context = |input: &Input| matches!(input, Input::Context(_));
    match operation {
        Operation::Copy(copy) => copy.inputs().any(is_context),
        Operation::Run(run) => run.inputs().any(is_context),
        _ => false,
    }
}

/// A linked layer is the same above any base; only names of users are the base's.
pub(super) fn stands_alone(copy: &CopyStep) -> bool {
    let number = |owner: &str| owner.bytes().all(|b| b.is_ascii_digit() || b == b':');
    copy.link && copy.chown.as_deref().is_none_or(number)
}

fn kind(operation: &Operation) -> &'static str {
    match operation {
        Operation::Run(_) => "run",
        Operation::Copy(_) => "copy",
        Operation::MakeDirectory { .. } => "directory",
        Operation::Scratch | Operation::Image { .. } => "base",
    }
}
