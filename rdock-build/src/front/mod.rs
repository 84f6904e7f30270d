//! A Dockerfile becomes a graph: stages are evaluated, variables replaced, names resolved. Nothing runs here.
mod config;
mod files;
mod graph;
mod run;

use config::join;
pub(crate) use graph::plan_graph;

use crate::dockerfile::{
    BuildArgs, Dockerfile, Globals, Instruction, Kind, ParseError, Place, Problem, Report, Rule, Scope,
    Source, Span, StageNames,
};
use crate::error::{BuildError, Result};
use crate::event::BuildWarning;
use crate::graph::{Graph, Input, Operation, StepId};
use crate::ignore::Patterns;
use crate::named_context::NamedContext;
use rdock_image::{BoxError, ContainerConfig, Digest, History, ImageConfig, Platform, Reference};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An image that a stage stands on.
#[derive(Clone, Debug)]
pub(crate) struct BaseImage {
    pub(crate) layers: Vec<Digest>,
    pub(crate) config: ImageConfig,
}

pub(crate) type Resolve<'a> = dyn Fn(&Reference) -> std::result::Result<BaseImage, BoxError> + 'a;

/// Told of the images that are likely to be asked for, so that they can be looked up at once.
pub(crate) type Ahead<'a> = dyn Fn(Vec<Reference>) + 'a;

/// What the caller wants of the front end.
#[derive(Debug)]
pub(crate) struct Wishes {
    pub(crate) args: BuildArgs,
    pub(crate) target: Option<String>,
    pub(crate) contexts: BTreeMap<String, NamedContext>,
    pub(crate) no_cache: bool,
    pub(crate) no_cache_stages: BTreeSet<String>,
    pub(crate) host_network: bool,
    /// The moment that counts as now.
    pub(crate) epoch: Option<i64>,
    /// What the context leaves out, for the build checks.
    pub(crate) ignore: Option<Patterns>,
}

/// One line of history.
#[derive(Clone, Debug)]
pub(crate) struct HistoryLine {
    pub(crate) created_by: String,
    /// The step that makes its layer.
    pub(crate) layer: Option<StepId>,
}

/// What the target is, once its steps have run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) graph: Graph,
    pub(crate) target: StepId,
    pub(crate) config: ImageConfig,
    /// Of the base image, then the stage's own.
    pub(crate) base_history: Vec<History>,
    pub(crate) base_layers: usize,
    pub(crate) history: Vec<HistoryLine>,
    pub(crate) warnings: Vec<BuildWarning>,
    /// The moment that counts as now.
    pub(crate) epoch: Option<i64>,
}

#[derive(Clone)]
struct StageState {
    step: StepId,
    config: ImageConfig,
    scope: Scope,
    base_history: Vec<History>,
    base_layers: usize,
    history: Vec<HistoryLine>,
}

pub(crate) struct Front<'a> {
    file: &'a Dockerfile,
    globals: Arc<Globals>,
    wishes: &'a Wishes,
    resolve: &'a Resolve<'a>,
    graph: Graph,
    done: BTreeMap<usize, StageState>,
    images: BTreeMap<String, (StepId, BaseImage)>,
    warnings: Vec<BuildWarning>,
    checks: Report,
    names: StageNames,
    /// Bytes of what instructions became so far.
    size: usize,
}

/// Most bytes that instructions may become, variables replaced.
const LARGEST: usize = 128 << 20;

/// Where an instruction of a stage stands.
struct At<'a> {
    stage: usize,
    source: &'a Source,
    span: Span,
    /// The text for people.
    name: String,
    no_cache: bool,
}

/// Makes the graph of the target.
pub(crate) fn plan(
    file: &Dockerfile,
    wishes: &Wishes,
    resolve: &Resolve<'_>,
    ahead: &Ahead<'_>,
) -> Result<Plan> {
    let target = target(file, wishes.target.as_deref())?;
    let globals = Arc::new(Globals::new(file, &wishes.args)?);
    let epoch = epoch(wishes, globals.value(EPOCH))?;
    let checks = file.check(&wishes.args, wishes.ignore.as_ref())?;
    checks.result(file)?;
    let mut front = Front {
        file,
        globals,
        wishes,
        resolve,
        graph: Graph::new(),
        done: BTreeMap::new(),
        images: BTreeMap::new(),
        warnings: Vec::new(),
        checks,
        names: StageNames::new(&file.stages),
        size: 0,
    };
    let stages: Vec<usize> = front.reachable(target)?.into_iter().collect();
    file.supported(stages.iter().map(|stage| &file.stages[*stage]))?;
    for name in file.undeclared(wishes.args.values.keys()) {
        front.warnings.push(BuildWarning {
            place: None,
            rule: None,
            text: format!("build argument {name:?} was not consumed: no ARG declares it"),
        });
    }
    for warning in &front.checks.warnings {
        // Those come from the stages, which know their base's variables.
        if warning.rule != Rule::UndefinedVar {
            let place = Some(file.place(warning.span));
            let text = warning.to_string();
            let rule = Some(warning.rule);
            front.warnings.push(BuildWarning { place, text, rule });
        }
    }
    ahead(front.bases(&stages)?);
    for stage in stages {
        front.stage(stage)?;
    }
    let Some(state) = front.done.remove(&target) else {
        return Err(BuildError::NoSuchTarget {
            name: target.to_string(),
            stages: Vec::new(),
        });
    };
    Ok(Plan {
        graph: front.graph,
        target: state.step,
        config: state.config,
        base_history: state.base_history,
        base_layers: state.base_layers,
        history: state.history,
        warnings: front.warnings,
        epoch,
    })
}

const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What counts as now: what the build argument says, the caller, or the file's global argument.
fn epoch(wishes: &Wishes, global: Option<&str>) -> Result<Option<i64>> {
    let given = wishes.args.values.get(EPOCH).map(String::as_str);
    let text = match (given, wishes.epoch) {
        (Some(text), _) => text,
        (None, Some(seconds)) => return Ok(Some(seconds)),
        (None, None) => global.unwrap_or_default(),
    };
    if text.is_empty() {
        return Ok(wishes.epoch);
    }
    text.parse().map(Some).map_err(|_| BuildError::Option {
        option: EPOCH,
        reason: format!("is {text:?}, which is no number of seconds"),
    })
}

pub(crate) fn target(file: &Dockerfile, name: Option<&str>) -> Result<usize> {
    file.stage(name).ok_or_else(|| BuildError::NoSuchTarget {
        name: name.unwrap_or_default().to_owned(),
        stages: file.stages.iter().filter_map(|stage| stage.name()).collect(),
    })
}

/// The config of an image without a base.
fn scratch_config(platform: &Platform) -> ImageConfig {
    ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        config: ContainerConfig {
            working_dir: "/".to_owned(),
            ..ContainerConfig::default()
        },
        ..ImageConfig::default()
    }
}

/// What a base's config gives to an image that is made on it: the new config, the base's history, and how many layers
/// the base has.
fn base_config(mut config: ImageConfig) -> (ImageConfig, Vec<History>, usize) {
    config.created = None;
    config.config.on_build.clear();
    config.other.retain(|key, _| key.starts_with("os."));
    let history = std::mem::take(&mut config.history);
    let layers = config.rootfs.diff_ids.len();
    (config, history, layers)
}

/// Can this host run what is in the image?
fn check_platform(platform: Platform) -> std::result::Result<(), BoxError> {
    let host = Platform::host();
    match platform.architecture.is_empty() || host.rank(&platform).is_some() {
        true => Ok(()),
        false => Err(format!("it is made for {platform}, this host is {host}").into()),
    }
}

impl Front<'_> {
    /// The images that the stages stand on.
    fn bases(&self, stages: &[usize]) -> Result<Vec<Reference>> {
        let mut bases = Vec::new();
        for number in stages {
            let name = self
                .globals
                .from(&self.file.source, &self.file.stages[*number])?
                .image;
            let own = name == "scratch" || self.stage_named(&name, *number, false).is_some();
            match self.wishes.contexts.get(&name.to_lowercase()) {
                Some(NamedContext::Image(reference)) => bases.push(reference.clone()),
                None if !own => bases.extend(Reference::parse(&name)),
                _ => {}
            }
        }
        Ok(bases)
    }

    /// The stages that a stage needs, itself included.
    fn reachable(&self, target: usize) -> Result<BTreeSet<usize>> {
        let mut wanted = BTreeSet::from([target]);
        for number in (0..=target).rev() {
            if !wanted.contains(&number) {
                continue;
            }
            let stage = &self.file.stages[number];
            let from = self.globals.from(&self.file.source, stage)?;
            wanted.extend(self.stage_named(&from.image, number, false));
            for instruction in &stage.instructions {
                let mut names: Vec<String> = Vec::new();
                match &instruction.kind {
                    Kind::Copy(copy) => names.extend(copy.from.clone()),
                    Kind::Run(run) => {
                        for mount in &run.mounts {
                            let keys = mount.text.split(',').filter_map(|field| field.split_once('='));
                            names.extend(
                                keys.filter(|(key, _)| key.eq_ignore_ascii_case("from"))
                                    .map(|(_, name)| name.to_owned()),
                            );
                        }
                    }
                    _ => {}
                }
                for name in names {
                    wanted.extend(self.stage_named(&name, number, true));
                }
            }
        }
        Ok(wanted)
    }

    /// The stage before `number` that a name means; by number too where `indexed`.
    fn stage_named(&self, name: &str, number: usize, indexed: bool) -> Option<usize> {
        self.names.before(name, number, indexed)
    }

    /// Counts what instructions became. A file of few bytes may make many: each command has all variables, and each
    /// stage what the one below it has.
    fn spend(&mut self, source: &Source, span: Span, bytes: usize) -> Result<()> {
        self.size += bytes;
        if self.size <= LARGEST {
            return Ok(());
        }
        let reason = format!("makes what the file says larger than {LARGEST} bytes in all");
        let problem = Problem::Arguments {
            instruction: "this instruction",
            reason,
        };
        Err(self.problem(source, span, problem))
    }

    fn place(&self, source: &Source, span: Span) -> Place {
        source.place(span)
    }

    fn problem(&self, source: &Source, span: Span, problem: Problem) -> BuildError {
        BuildError::Dockerfile(ParseError {
            problem,
            place: Box::new(self.place(source, span)),
            suggestion: None,
        })
    }

    /// How events call a stage.
    fn stage_title(&self, number: usize) -> Option<String> {
        match (self.file.stages[number].name(), self.file.stages.len()) {
            (Some(name), _) => Some(name),
            (None, 1) => None,
            (None, _) => Some(format!("stage-{number}")),
        }
    }

    fn title(&self, stage: usize, step: usize, steps: usize, text: &str) -> String {
        match self.stage_title(stage) {
            Some(name) => format!("[{name} {step}/{steps}] {text}"),
            None => format!("[{step}/{steps}] {text}"),
        }
    }

    fn no_cache(&self, stage: usize) -> bool {
        let name = self.stage_title(stage).unwrap_or_default();
        self.wishes.no_cache
            || self.wishes.no_cache_stages.contains(&name)
            || self.wishes.no_cache_stages.contains(&stage.to_string())
    }

    fn stage(&mut self, number: usize) -> Result<()> {
        let stage = &self.file.stages[number];
        let source = &self.file.source;
        let from = self.globals.from(source, stage)?;
        let host = Platform::host();
        if let Some(platform) = &from.platform
            && host.rank(platform).is_none()
        {
            let feature = format!("--platform={platform} on a host that is {host}");
            return Err(self.problem(
                source,
                stage.from.span,
                Problem::Unsupported {
                    instruction: "FROM",
                    feature,
                },
            ));
        }
        let makes = |kind: &Kind| {
            matches!(
                kind,
                Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_)
            )
        };
        let steps = 1 + stage
            .instructions
            .iter()
            .filter(|instruction| makes(&instruction.kind))
            .count();
        let name = self.title(number, 1, steps, &format!("FROM {}", from.image));
        let place = self.place(source, stage.from.span);
        let mut triggers = Vec::new();
        let mut state = match self.stage_named(&from.image, number, false) {
            Some(other) if !self.wishes.contexts.contains_key(&from.image.to_lowercase()) => {
                let mut state = self.done[&other].clone();
                state.config.config.on_build.clear();
                triggers = self.done[&other].config.config.on_build.clone();
                state
            }
            _ if from.image == "scratch" => {
                let step = self.graph.add_at(Operation::Scratch, name, place, false);
                StageState {
                    step,
                    scope: Scope::new(self.globals.clone(), &[]),
                    config: scratch_config(&self.wishes.args.target),
                    base_history: Vec::new(),
                    base_layers: 0,
                    history: Vec::new(),
                }
            }
            _ => {
                let (step, image) = self.image(&from.image, place, name)?;
                triggers.clone_from(&image.config.config.on_build);
                let (config, base_history, base_layers) = base_config(image.config);
                StageState {
                    step,
                    scope: Scope::new(self.globals.clone(), &config.config.env),
                    config,
                    base_history,
                    base_layers,
                    history: Vec::new(),
                }
            }
        };
        state.config.config.env = state.scope.image_env().to_vec();
        let inherited = state.config.config.env.iter().map(String::len).sum();
        self.spend(source, stage.from.span, inherited)?;
        let origin = format!("ONBUILD of {}", from.image);
        let triggers = (triggers.into_iter())
            .map(|text| Ok((Instruction::parse(&origin, &text)?, Source::new(&origin, &text))))
            .collect::<Result<Vec<_>>>()?;
        // The base's steps count as the stage's own.
        let more = triggers
            .iter()
            .filter(|(trigger, _)| makes(&trigger.kind))
            .count();
        let (first, steps) = (self.title(number, 1, steps, ""), steps + more);
        let counted = self.title(number, 1, steps, "");
        if let Some(base) = self.graph.step_mut(state.step)
            && let Some(text) = base.name.strip_prefix(&first)
        {
            base.name = format!("{counted}{text}");
        }
        let mut cmd_set = false;
        let mut step = 1;
        for (instruction, source) in triggers {
            instruction.supported(&source)?;
            step += usize::from(makes(&instruction.kind));
            let at = At {
                stage: number,
                source: &source,
                span: instruction.span,
                name: self.title(number, step, steps, &run::shown(&instruction)),
                no_cache: self.no_cache(number),
            };
            self.instruction(&mut state, &at, &instruction, &mut cmd_set)?;
        }
        for instruction in &self.file.stages[number].instructions {
            step += usize::from(makes(&instruction.kind));
            let at = At {
                stage: number,
                source,
                span: instruction.span,
                name: self.title(number, step, steps, &run::shown(instruction)),
                no_cache: self.no_cache(number),
            };
            self.instruction(&mut state, &at, instruction, &mut cmd_set)?;
        }
        for warning in state.scope.undefined() {
            if self.checks.reports(warning.rule) {
                if self.checks.strict {
                    let rules = warning.rule.name().to_owned();
                    return Err(self.problem(source, warning.span, Problem::Checks { rules }));
                }
                let place = self.place(source, warning.span);
                self.warnings.push(BuildWarning {
                    place: Some(place),
                    text: warning.to_string(),
                    rule: Some(warning.rule),
                });
            }
        }
        self.done.insert(number, state);
        Ok(())
    }

    /// The step of an image.
    fn image(&mut self, name: &str, place: Place, title: String) -> Result<(StepId, BaseImage)> {
        let wanted = name.to_lowercase();
        let reference = match self.wishes.contexts.get(&wanted) {
            Some(NamedContext::Image(reference)) => Ok(reference.clone()),
            Some(NamedContext::Directory(path)) => {
                Err(format!("{} is a directory, no image", path.display()).into())
            }
            // The job has given it a reference.
            Some(NamedContext::OciLayout { path, .. }) => {
                Err(format!("{} was not looked up", path.display()).into())
            }
            None => Reference::parse(name).map_err(BoxError::from),
        };
        let failed = |source: BoxError| BuildError::BaseImage {
            place: Box::new(place.clone()),
            reference: name.to_owned(),
            source,
        };
        let reference = reference.map_err(failed)?;
        let key = reference.to_string();
        if let Some((step, image)) = self.images.get(&key) {
            return Ok((*step, image.clone()));
        }
        let image = (self.resolve)(&reference).map_err(failed)?;
        check_platform(image.config.platform()).map_err(failed)?;
        let operation = Operation::Image {
            reference,
            layers: image.layers.clone(),
        };
        let step = self.graph.add_at(operation, title, place, false);
        self.images.insert(key, (step, image.clone()));
        Ok((step, image))
    }

    /// What `--from` or `from=` names.
    fn input(&mut self, at: &At<'_>, name: &str) -> Result<Input> {
        let wanted = name.to_lowercase();
        if let Some(NamedContext::Directory(_)) = self.wishes.contexts.get(&wanted) {
            return Ok(Input::Context(wanted.into()));
        }
        if !self.wishes.contexts.contains_key(&wanted) {
            if let Some(stage) = self.stage_named(name, at.stage, true) {
                if !self.done.contains_key(&stage) {
                    self.stage(stage)?;
                }
                return Ok(Input::Step(self.done[&stage].step));
            }
            if name.parse::<usize>().is_ok() {
                let problem = Problem::UnknownStage {
                    name: name.to_owned(),
                };
                return Err(self.problem(at.source, at.span, problem));
            }
            if name == "scratch" {
                return Ok(Input::Step(self.graph.add(Operation::Scratch, "scratch")));
            }
        }
        let place = self.place(at.source, at.span);
        let (step, _) = self.image(name, place, format!("FROM {name}"))?;
        Ok(Input::Step(step))
    }

    fn instruction(
        &mut self,
        state: &mut StageState,
        at: &At<'_>,
        instruction: &Instruction,
        cmd_set: &mut bool,
    ) -> Result<()> {
        let mut instruction = Cow::Borrowed(instruction);
        if let Kind::Expose(ports) = &mut instruction.to_mut().kind {
            // As BuildKit's history has them.
            ports.sort();
        }
        let kind = state.scope.expand(at.source, &instruction)?;
        kind.supported(at.span, at.source)?;
        let bytes = match &kind {
            // Each command keeps the variables that it sees.
            Kind::Run(_) => {
                let variables = state.scope.environment();
                variables.map(|(name, value)| name.len() + value.len()).sum()
            }
            kind => kind.size(),
        };
        self.spend(at.source, at.span, bytes + at.name.len())?;
        match &kind {
            Kind::Run(run) => self.run(state, at, run)?,
            Kind::Copy(copy) => self.copy(state, at, copy)?,
            Kind::Add(add) => self.add(state, at, add)?,
            kind => {
                let arguments = |reason: String| Problem::Arguments {
                    instruction: kind.name(),
                    reason,
                };
                config::apply(kind, &mut state.config.config, cmd_set)
                    .map_err(|reason| self.problem(at.source, at.span, arguments(reason)))?;
                if let Kind::Maintainer(name) = kind {
                    state.config.author = Some(name.clone());
                }
                state.config.config.env = state.scope.image_env().to_vec();
                let mut layer = None;
                let working_dir = config::join("/", &state.config.config.working_dir);
                if let Kind::Workdir(_) = kind
                    && working_dir != "/"
                {
                    let operation = Operation::MakeDirectory {
                        base: state.step,
                        path: working_dir,
                        user: state.config.config.user.clone(),
                    };
                    state.step = self.step(at, operation);
                    layer = Some(state.step);
                }
                if !matches!(kind, Kind::Onbuild(_)) {
                    let created_by = config::history(kind, &state.config.config, &instruction.source);
                    state.history.push(HistoryLine { created_by, layer });
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, at: &At<'_>, operation: Operation) -> StepId {
        let place = self.place(at.source, at.span);
        self.graph.add_at(operation, at.name.clone(), place, at.no_cache)
    }
}
