//! One build, from the names it gets to the outputs it leaves.

use super::bases::{Bases, Layouts};
use super::{BuildOutput, Builder, DockerfileAt, caches};
use crate::cache::{Cache, CacheMode, CacheTarget, Imports, portable};
use crate::context;
use crate::dockerfile::{BuildArgs, Dockerfile, Outline, Target};
use crate::error::{BuildError, Result};
use crate::event::{BuildEvent, BuildWarning};
use crate::exec::{Cancel, Execution, Settings, StepReport};
use crate::front::{self, Plan, Wishes};
use crate::graph::{Graph, Operation, StepId};
use crate::named_context::NamedContext;
use crate::output::{self, Output};
use rdock_image::{Digest, History, ImageConfig, OciLayout, Platform, Reference};
use rdock_runtime::{NetworkMode, Runtime};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// One build.
pub(super) struct Job {
    pub(super) builder: Builder,
    pub(super) runtime: Runtime,
    pub(super) cancel: Cancel,
    /// Something of the result may have been written: from here on nothing begins again.
    pub(super) written: AtomicBool,
}

impl Job {
    pub(super) fn explain(&self) -> Result<Vec<StepReport>> {
        self.with(|plan, execution| Ok(execution.all(&[plan.target])?.reports), true)
    }

    pub(super) fn check(&self) -> Result<Vec<BuildWarning>> {
        self.with(|plan, _| Ok(plan.warnings.clone()), true)
    }

    pub(super) fn targets(&self) -> Result<(Dockerfile, Vec<Target>)> {
        let file = self.dockerfile()?;
        let targets = file.targets();
        Ok((file, targets))
    }

    pub(super) fn outline(&self) -> Result<(Dockerfile, Outline)> {
        let file = self.dockerfile()?;
        let stage = front::target(&file, self.builder.target.as_deref())?;
        let args = self.args(self.builder.proxy_variables.below(&self.builder.build_args));
        let outline = file.outline(&args, stage)?;
        Ok((file, outline))
    }

    /// The Dockerfile alone.
    fn dockerfile(&self) -> Result<Dockerfile> {
        let builder = &self.builder;
        if let DockerfileAt::Graph(..) = builder.dockerfile {
            return Err(BuildError::Option {
                option: "graph",
                reason: "has no stages".to_owned(),
            });
        }
        let store = self.runtime.images();
        let cache = Cache::open(self.runtime.root(), store)?;
        let proxies = builder
            .proxies
            .with(&builder.proxy_variables.below(&builder.build_args));
        let fetch = |url: &str| crate::exec::download(url, &cache.dir("tmp"), &proxies, self.cancel.stop());
        let opened = context::open(builder, store, &fetch)?;
        Ok(Dockerfile::parse_bytes(
            &opened.dockerfile_name,
            &opened.dockerfile,
        )?)
    }

    fn args(&self, values: BTreeMap<String, String>) -> BuildArgs {
        BuildArgs {
            values,
            target: self.builder.platform.clone().unwrap_or_else(Platform::host),
            target_stage: self.builder.target.clone(),
            ..BuildArgs::default()
        }
    }

    pub(super) fn build(&self) -> Result<BuildOutput> {
        let names = self.names()?;
        self.with(|plan, execution| self.finish(plan, execution, &names), false)
    }

    fn names(&self) -> Result<Vec<Reference>> {
        let mut names = Vec::new();
        for tag in &self.builder.tags {
            let name = Reference::parse(tag)?;
            if name.digest().is_some() {
                return Err(BuildError::Option {
                    option: "tag",
                    reason: format!("{tag:?} has a digest, which nobody can choose"),
                });
            }
            names.push(name);
        }
        Ok(names)
    }

    fn with<T>(&self, work: impl Fn(&Plan, &Execution<'_>) -> Result<T>, dry: bool) -> Result<T> {
        let builder = &self.builder;
        let store = self.runtime.images();
        let host = Platform::host();
        if let Some(platform) = &builder.platform
            && host.rank(platform).is_none()
        {
            return Err(BuildError::Option {
                option: "platform",
                reason: format!("{platform} is not supported yet on a host that is {host}"),
            });
        }
        crate::exec::sweep_secrets();
        let cache = Cache::open(self.runtime.root(), store)?;
        let lease = store.lease()?;
        let args = builder.proxy_variables.below(&builder.build_args);
        let proxies = builder.proxies.with(&args);
        let fetch = |url: &str| crate::exec::download(url, &cache.dir("tmp"), &proxies, self.cancel.stop());
        let opened = context::open(builder, store, &fetch)?;
        let (contexts, layouts) = named_contexts(&builder.contexts)?;
        let wishes = Wishes {
            args: self.args(args),
            target: builder.target.clone(),
            contexts,
            no_cache: builder.no_cache,
            no_cache_stages: builder.no_cache_stages.clone(),
            host_network: builder.host_network || builder.network == NetworkMode::Host,
            epoch: builder.source_date_epoch,
            ignore: opened.inputs.0.get("").map(|context| context.ignore.clone()),
        };
        let bases = Bases {
            builder,
            runtime: &self.runtime,
            lease: &lease,
            cancel: &self.cancel,
            dry,
            layouts,
            found: Mutex::default(),
        };
        let resolve = |reference: &Reference| bases.resolve(reference);
        let plan = || match &builder.dockerfile {
            DockerfileAt::Graph(graph, target) => {
                front::plan_graph(graph, *target, &wishes, &opened.inputs, &resolve)
            }
            _ => Dockerfile::parse_bytes(&opened.dockerfile_name, &opened.dockerfile)
                .map_err(BuildError::from)
                .and_then(|file| front::plan(&file, &wishes, &resolve, &|images| bases.ahead(images))),
        };
        let (planned, imports) = match builder.cache_from.is_empty() {
            true => (plan(), Imports::default()),
            // Both ask registries.
            false => std::thread::scope(|scope| {
                let imports = scope.spawn(|| self.imports());
                let planned = plan();
                match imports.join() {
                    Ok(imports) => (planned, imports),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }),
        };
        let plan = match planned {
            // What a pull says that was stopped is its echo.
            Err(BuildError::BaseImage { .. }) if self.cancel.is_cancelled() => {
                return Err(BuildError::Cancelled);
            }
            planned => planned?,
        };
        for warning in &plan.warnings {
            builder.progress.emit(BuildEvent::Warning {
                place: warning.place.clone(),
                text: warning.text.clone(),
            });
        }
        let settings = Settings {
            inputs: opened.inputs,
            secrets: builder.secrets.clone(),
            extra_hosts: builder.extra_hosts.clone(),
            network: builder.network.clone(),
            host_certificates: builder.host_certificates,
            source_date_epoch: plan.epoch,
            shm_size: builder.shm_size,
            cgroup_parent: builder.cgroup_parent.clone(),
            ulimits: builder.ulimits.clone(),
            resources: builder.resources.clone(),
            hostname: builder.hostname.clone(),
            parallel: builder.parallel,
            proxies,
            dry,
        };
        let fetch = |step: StepId, cancel: &Cancel| self.fetch(&plan.graph, &bases, step, cancel);
        loop {
            // The first failure of a step ends the others, and this attempt alone.
            let (cancel, _told) = self.cancel.child();
            let execution = Execution {
                graph: &plan.graph,
                runtime: &self.runtime,
                store,
                cache: &cache,
                lease: &lease,
                imports: &imports,
                progress: &builder.progress,
                cancel: &cancel,
                settings: &settings,
                fetch: &fetch,
                said: Mutex::default(),
            };
            let lost = imports.lost();
            let done = work(&plan, &execution);
            // Hits of a cache that was given up are none: their steps run now. Each attempt has one cache less.
            let again = imports.lost() > lost && !self.written.load(Ordering::SeqCst);
            if done.is_ok() || !again || self.cancel.is_cancelled() {
                return done;
            }
        }
    }

    /// Brings the layers of a step's image.
    fn fetch(&self, graph: &Graph, bases: &Bases<'_>, step: StepId, cancel: &Cancel) -> Result<()> {
        let step = &graph.steps[step.number()];
        let Operation::Image { reference, .. } = &step.operation else {
            return Ok(());
        };
        bases
            .fetch(reference, cancel)
            .map_err(|source| match cancel.is_cancelled() {
                true => BuildError::Cancelled,
                false => BuildError::BaseImage {
                    place: Box::new(step.at()),
                    reference: bases.title(reference),
                    source,
                },
            })
    }

    fn finish(&self, plan: &Plan, execution: &Execution<'_>, names: &[Reference]) -> Result<BuildOutput> {
        let results = execution.all(&[plan.target])?;
        let store = execution.store;
        let stack = results
            .stacks
            .get(&plan.target)
            .cloned()
            .flatten()
            .unwrap_or_default();
        let default = [Output::Store];
        let outputs = if self.builder.outputs.is_empty() {
            &default[..]
        } else {
            &self.builder.outputs
        };
        if outputs.iter().any(|output| *output != Output::Nothing) {
            execution.bring(plan.target, &stack)?;
        }
        self.builder.progress.emit(BuildEvent::Exporting);
        let mut config = self.config(plan, &results.created, &stack);
        if self.builder.cache_to.contains(&CacheTarget::Inline) {
            let records = caches::exported(execution, plan, &results, CacheMode::Min);
            portable::put(&mut config, &records);
        }
        let text = serde_json::to_vec(&config).map_err(|error| BuildError::Output {
            what: "the image config".to_owned(),
            source: error.into(),
        })?;
        let mut output = BuildOutput {
            image: None,
            id: Digest::sha256_of(&text),
            config,
            names: Vec::new(),
            steps: results.reports.clone(),
            warnings: plan.warnings.clone(),
        };
        self.written.store(true, Ordering::SeqCst);
        for wanted in outputs {
            match wanted {
                Output::Store => {
                    output.image = Some(store.write_image(execution.lease, &output.config, names)?);
                    output.names = names.to_vec();
                }
                Output::OciArchive(path) | Output::DockerArchive(path) => {
                    let image = store.unlisted_image(execution.lease, &output.config)?;
                    let oci = matches!(wanted, Output::OciArchive(_));
                    output::archive(store, &image, names, oci, path)?;
                }
                Output::Directory(path) => output::directory(store, &stack, path)?,
                Output::Tar(path) => output::tar(store, &stack, path)?,
                Output::Nothing => {}
            }
        }
        self.export_caches(plan, execution, &results)?;
        self.builder.progress.emit(BuildEvent::Done {
            image: output.id.clone(),
            names: output.names.clone(),
        });
        Ok(output)
    }

    fn config(&self, plan: &Plan, created: &BTreeMap<StepId, u64>, stack: &[Digest]) -> ImageConfig {
        let mut config = plan.config.clone();
        config.rootfs.diff_ids = stack.to_vec();
        config.config.labels.extend(self.builder.labels.clone());
        if let Some(change) = &self.builder.configure {
            (change.0)(&mut config.config);
        }
        let epoch = plan.epoch;
        let time = |seconds: i64| {
            jiff::Timestamp::from_second(seconds)
                .map(|time| time.to_string())
                .unwrap_or_default()
        };
        config.history.clone_from(&plan.base_history);
        // Every layer of the base has a line, whatever its maker wrote.
        let lines = config.history.iter().filter(|line| !line.empty_layer).count();
        for _ in lines..plan.base_layers {
            config.history.push(History {
                created_by: Some("(missing history)".to_owned()),
                ..History::default()
            });
        }
        let base_time = config
            .history
            .iter()
            .filter_map(|line| line.created.clone())
            .max();
        let mut last = epoch.map(time).or(base_time);
        for line in &plan.history {
            let made = line
                .layer
                .and_then(|step| created.get(&step))
                .map(|seconds| seconds.cast_signed());
            if let Some(seconds) = epoch.or(made) {
                last = Some(time(seconds));
            }
            config.history.push(History {
                created: last.clone(),
                created_by: Some(line.created_by.clone()),
                comment: Some("rdock".to_owned()),
                empty_layer: line.layer.is_none(),
                ..History::default()
            });
        }
        config.created = last.or_else(|| Some(time(0)));
        config
    }
}

/// The named contexts, those in layouts under references that lead nowhere else.
fn named_contexts(
    given: &BTreeMap<String, NamedContext>,
) -> Result<(BTreeMap<String, NamedContext>, Layouts)> {
    let (mut contexts, mut layouts) = (BTreeMap::new(), Layouts::new());
    for (number, (name, context)) in given.iter().enumerate() {
        let context = match context {
            NamedContext::OciLayout { path, name } => {
                let reference = Reference::parse(&format!("oci-layout.invalid/{number}"))?;
                layouts.insert(reference.to_string(), (OciLayout::new(path), name.clone()));
                NamedContext::Image(reference)
            }
            other => other.clone(),
        };
        contexts.insert(name.clone(), context);
    }
    Ok((contexts, layouts))
}
