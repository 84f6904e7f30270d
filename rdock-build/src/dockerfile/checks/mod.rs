//! Build checks: findings in a Dockerfile that is right, but probably not what its author wants.
mod rule;

pub use rule::{Rule, Warning};

use super::error::{Fault, ParseError, Problem};
use super::instruction::{Command, From, Instruction, Kind};
use super::scope::{BuildArgs, Globals, Scope};
use super::source::Span;
use super::suggest;
use super::values::exposed_port;
use super::{Dockerfile, Stage};
use crate::ignore::Patterns;
use rdock_image::{Platform, Reference};
use rule::Options;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The build argument that replaces the file's `# check=`.
const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// What the checks found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings, in order of line.
    pub warnings: Vec<Warning>,
    /// The file says `error=true`: findings stop the build.
    pub strict: bool,
    options: Options,
}

impl Report {
    /// Does the file want findings of a rule? One that is only found while building is asked for here.
    pub fn reports(&self, rule: Rule) -> bool {
        self.options.reports(rule)
    }

    /// Returns the error that stops a build of a strict file with findings.
    pub fn result(&self, dockerfile: &Dockerfile) -> Result<(), ParseError> {
        let Some(first) = self.warnings.first().filter(|_| self.strict) else {
            return Ok(());
        };
        let mut names: Vec<_> = self.warnings.iter().map(|warning| warning.rule.name()).collect();
        names.sort_unstable();
        names.dedup();
        let rules = names.join(", ");
        Err(Fault::new(Problem::Checks { rules }, first.span).at(&dockerfile.source))
    }
}

impl Dockerfile {
    /// Runs the checks that need no base image. `ignore` is the context's `.dockerignore`.
    ///
    /// Variables that are not set are found in stages from `scratch`; a build finds them in all, when it knows the
    /// base image's environment.
    pub fn check(&self, args: &BuildArgs, ignore: Option<&Patterns>) -> Result<Report, ParseError> {
        let text = args.values.get(ARGUMENT).or(self.directives.check.as_ref());
        let options = Options::parse(text.map_or("", String::as_str)).map_err(|reason| {
            let name = "check".to_owned();
            Fault::new(Problem::Directive { name, reason }, Span::default()).at(&self.source)
        })?;
        let globals = Globals::new(self, args)?;
        let mut checks = Checks {
            dockerfile: self,
            ignore,
            warnings: Vec::new(),
        };
        for span in &self.empty_continuations {
            checks.report(
                &options,
                Rule::NoEmptyContinuation,
                *span,
                "Empty continuation line",
            );
        }
        checks.names(&options);
        checks.casing(&options);
        checks.defaults(&options, args);
        for instruction in &self.global_args {
            checks.description(&options, instruction);
        }
        checks.stages(&options, &Arc::new(globals));
        let mut warnings = checks.warnings;
        warnings.sort_by_key(|warning| warning.span.first_line);
        Ok(Report {
            warnings,
            strict: options.error,
            options,
        })
    }
}

impl Scope {
    /// Returns the variables that the instructions so far named though they are not set, as warnings, and forgets
    /// them.
    pub fn undefined(&mut self) -> Vec<Warning> {
        (self.take_undefined().into_iter())
            .map(|(span, name)| {
                let names = self.environment().map(|(name, _)| name);
                let meant = suggest::closest_exact(&name, names);
                let meant = meant.map_or(String::new(), |meant| format!(" (did you mean ${meant}?)"));
                Warning {
                    rule: Rule::UndefinedVar,
                    span,
                    detail: format!("Usage of undefined variable '${name}'{meant}"),
                }
            })
            .collect()
    }
}

/// Bytes of all stages' variables that are kept at a time.
const LARGEST: usize = 128 << 20;

struct Checks<'a> {
    dockerfile: &'a Dockerfile,
    ignore: Option<&'a Patterns>,
    warnings: Vec<Warning>,
}

/// What is known at a stage's end, for the stages built on it.
#[derive(Clone)]
struct Known {
    scope: Scope,
    /// Was SHELL set?
    shell: bool,
    /// Was WORKDIR set?
    workdir: bool,
    /// Is the base `scratch`, so that the environment is complete?
    complete: bool,
}

impl Checks<'_> {
    fn report(&mut self, options: &Options, rule: Rule, span: Span, detail: impl Into<String>) {
        if options.reports(rule) {
            let detail = detail.into();
            self.warnings.push(Warning { rule, span, detail });
        }
    }

    /// Names of stages, and the words of FROM.
    fn names(&mut self, options: &Options) {
        let mut seen = BTreeSet::new();
        for Stage { from, .. } in &self.dockerfile.stages {
            let own = options.with_comments(&from.comments);
            let Some(alias) = &from.alias else { continue };
            let name = alias.to_lowercase();
            if *alias != name {
                let detail = format!("Stage name '{alias}' should be lowercase");
                self.report(&own, Rule::StageNameCasing, from.span, detail);
            }
            if let Some(word) = &from.as_keyword
                && !same_case(&from.keyword, word)
            {
                let detail = format!("'{word}' and '{}' keywords' casing do not match", from.keyword);
                self.report(&own, Rule::FromAsCasing, from.span, detail);
            }
            if matches!(name.as_str(), "scratch" | "context") {
                let detail = format!("Stage name should not use the same name as reserved stage {name:?}");
                self.report(options, Rule::ReservedStageName, from.span, detail);
            }
            if seen.contains(&name) {
                let detail = format!("Duplicate stage name {name:?}, stage names should be unique");
                self.report(options, Rule::DuplicateStageName, from.span, detail);
            }
            self.describe(&own, "FROM", &[&name], &from.comments, from.span);
            seen.insert(name);
        }
    }

    /// The case of instructions: that of most counts.
    fn casing(&mut self, options: &Options) {
        let words: Vec<(&str, Span)> = (self.dockerfile.stages.iter())
            .flat_map(|stage| {
                let from = (stage.from.keyword.as_str(), stage.from.span);
                let rest = stage.instructions.iter();
                std::iter::once(from).chain(rest.map(|one| (one.keyword.as_str(), one.span)))
            })
            .collect();
        let lower = words
            .iter()
            .filter(|(word, _)| *word == word.to_lowercase())
            .count();
        let upper = words
            .iter()
            .filter(|(word, _)| *word == word.to_uppercase())
            .count();
        for (word, span) in words {
            let (right, name) = match lower > upper {
                true => (word.to_lowercase(), "lowercase"),
                false => (word.to_uppercase(), "uppercase"),
            };
            if word != right {
                let detail =
                    format!("Command '{word}' should match the case of the command majority ({name})");
                self.report(options, Rule::ConsistentInstructionCasing, span, detail);
            }
        }
    }

    /// Is the image of FROM valid when no build argument is given?
    fn defaults(&mut self, options: &Options, args: &BuildArgs) {
        let plain = BuildArgs {
            values: BTreeMap::new(),
            ..args.clone()
        };
        let Ok(globals) = Globals::new(self.dockerfile, &plain) else {
            return;
        };
        for Stage { from, .. } in &self.dockerfile.stages {
            let Ok(image) = globals.image(&from.image) else {
                return;
            };
            if Reference::parse(&image).is_err() {
                let written = &from.image;
                let detail =
                    format!("Default value for ARG {written} results in empty or invalid base image name");
                self.report(options, Rule::InvalidDefaultArgInFrom, from.span, detail);
            }
        }
    }

    fn stages(&mut self, options: &Options, globals: &Arc<Globals>) {
        let dockerfile = self.dockerfile;
        let mut ends: BTreeMap<String, Known> = BTreeMap::new();
        let mut size = 0;
        for stage in &dockerfile.stages {
            let own = options.with_comments(&stage.from.comments);
            let image = self.from(&own, globals, &stage.from);
            let known = ends.get(&image.to_lowercase()).cloned();
            let mut known = known.unwrap_or_else(|| Known {
                scope: Scope::new(globals.clone(), &[]),
                shell: false,
                workdir: false,
                complete: image == "scratch",
            });
            let mut last: BTreeMap<&str, Span> = BTreeMap::new();
            for instruction in &stage.instructions {
                let own = options.with_comments(&instruction.comments);
                if matches!(instruction.kind.name(), "CMD" | "ENTRYPOINT" | "HEALTHCHECK")
                    && let Some(before) = last.insert(instruction.kind.name(), instruction.span)
                {
                    let word = &instruction.keyword;
                    let detail = format!(
                        "Multiple {word} instructions should not be used in the same stage because only the last \
                         one will be used"
                    );
                    self.report(&own, Rule::MultipleInstructionsDisallowed, before, detail);
                }
                self.instruction(&own, &mut known, instruction);
            }
            size += known.scope.size();
            if size > LARGEST {
                // No build takes such a file.
                return;
            }
            if let Some(name) = stage.name() {
                ends.insert(name, known);
            }
        }
    }

    /// Returns the image, its variables replaced.
    fn from(&mut self, options: &Options, globals: &Globals, from: &From) -> String {
        let expanded = globals.words_of(from);
        for name in expanded.iter().flat_map(|word| &word.unmatched) {
            if globals.names().any(|known| known == name) {
                continue;
            }
            let meant = suggest::closest_exact(name, globals.names());
            let meant = meant.map_or(String::new(), |meant| format!(" (did you mean {meant}?)"));
            let detail = format!("FROM argument '{name}' is not declared{meant}");
            self.report(options, Rule::UndefinedArgInFrom, from.span, detail);
        }
        let mut words = expanded.into_iter();
        let image = words.next().map(|word| word.text).unwrap_or_default();
        if let (Some(platform), Some(written)) = (words.next(), &from.platform) {
            let target = "TARGETPLATFORM";
            let redundant = platform.unmatched.is_empty()
                && platform.matched.len() == 1
                && platform.matched.contains(target)
                && globals.value(target) == Some(platform.text.as_str());
            if redundant {
                let detail = format!(
                    "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
                );
                self.report(options, Rule::RedundantTargetPlatform, from.span, detail);
            }
            let constant = platform.matched.is_empty() && platform.unmatched.is_empty();
            if let Some(parsed) = Platform::parse(&platform.text).ok().filter(|_| constant) {
                let name = from.alias.as_deref().unwrap_or_default().to_lowercase();
                if !name.contains(&parsed.os) && !name.contains(&parsed.architecture) {
                    let value = &platform.text;
                    let detail = format!("FROM --platform flag should not use constant value {value:?}");
                    self.report(options, Rule::FromPlatformFlagConstDisallowed, from.span, detail);
                }
            }
        }
        image
    }

    fn instruction(&mut self, options: &Options, known: &mut Known, instruction: &Instruction) {
        let span = instruction.span;
        let word = &instruction.keyword;
        match &instruction.kind {
            Kind::Maintainer(_) => {
                let detail = "Maintainer instruction is deprecated in favor of using label";
                self.report(options, Rule::MaintainerDeprecated, span, detail);
            }
            Kind::Cmd(Command::Shell(_)) | Kind::Entrypoint(Command::Shell(_)) if !known.shell => {
                let detail = format!(
                    "JSON arguments recommended for {word} to prevent unintended behavior related to OS signals"
                );
                self.report(options, Rule::JSONArgsRecommended, span, detail);
            }
            Kind::Env(pairs) | Kind::Label(pairs) if pairs.iter().any(|pair| pair.legacy) => {
                let detail = format!(
                    "\"{word} key=value\" should be used instead of legacy \"{word} key value\" format"
                );
                self.report(options, Rule::LegacyKeyValueFormat, span, detail);
            }
            Kind::Shell(_) => known.shell = true,
            Kind::Arg(_) => self.description(options, instruction),
            _ => {}
        }
        let expanded = known.scope.expand(&self.dockerfile.source, instruction);
        let undefined = known.scope.undefined();
        if known.complete {
            self.warnings.extend(
                undefined
                    .into_iter()
                    .filter(|warning| options.reports(warning.rule)),
            );
        }
        let Ok(kind) = expanded else { return };
        match kind {
            Kind::Env(pairs) => self.secrets(options, "ENV", pairs.iter().map(|pair| &pair.name), span),
            Kind::Arg(args) => self.secrets(options, "ARG", args.iter().map(|arg| &arg.name), span),
            Kind::Workdir(path) => {
                if !known.workdir && !path.starts_with('/') {
                    let detail = format!(
                        "Relative workdir {path:?} can have unexpected results if the base image changes"
                    );
                    self.report(options, Rule::WorkdirRelativePath, span, detail);
                }
                known.workdir = true;
            }
            Kind::Expose(ports) => {
                for port in ports.iter().filter(|port| exposed_port(port).is_ok()) {
                    let protocol = port.rsplit_once('/').map_or("", |(_, protocol)| protocol);
                    if protocol != protocol.to_lowercase() {
                        let detail =
                            format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                        self.report(options, Rule::ExposeProtoCasing, span, detail);
                    }
                    if port.contains(':') {
                        let detail = format!(
                            "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                        );
                        self.report(options, Rule::ExposeInvalidFormat, span, detail);
                    }
                }
            }
            Kind::Copy(copy) if copy.from.is_none() => self.ignored(options, word, &copy.files.sources, span),
            Kind::Add(add) => self.ignored(options, word, &add.files.sources, span),
            _ => {}
        }
    }

    /// Sources that `.dockerignore` leaves out.
    fn ignored(&mut self, options: &Options, word: &str, sources: &[String], span: Span) {
        let Some(patterns) = self.ignore else { return };
        for source in sources {
            let path = source.trim_start_matches(['.', '/']).trim_end_matches('/');
            if !source.contains("://") && !path.is_empty() && patterns.excludes(path) {
                let detail =
                    format!("Attempting to {word} file {source:?} that is excluded by .dockerignore");
                self.report(options, Rule::CopyIgnoredFile, span, detail);
            }
        }
    }

    fn secrets<'n>(
        &mut self,
        options: &Options,
        word: &str,
        names: impl Iterator<Item = &'n String>,
        span: Span,
    ) {
        const SECRET: [&str; 10] = [
            "apikey",
            "auth",
            "credential",
            "credentials",
            "key",
            "password",
            "pword",
            "passwd",
            "secret",
            "token",
        ];
        for name in names {
            let lower = name.to_lowercase();
            let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
            if has(&SECRET) && !has(&["public", "file", "version"]) {
                let detail =
                    format!("Do not use ARG or ENV instructions for sensitive data ({word} {name:?})");
                self.report(options, Rule::SecretsUsedInArgOrEnv, span, detail);
            }
        }
    }

    fn description(&mut self, options: &Options, instruction: &Instruction) {
        if let Kind::Arg(arguments) = &instruction.kind {
            let names: Vec<&str> = arguments.iter().map(|argument| argument.name.as_str()).collect();
            let options = options.with_comments(&instruction.comments);
            self.describe(&options, "ARG", &names, &instruction.comments, instruction.span);
        }
    }

    fn describe(&mut self, options: &Options, word: &str, names: &[&str], comments: &[String], span: Span) {
        let Some(first) = comments.last().and_then(|comment| comment.split(' ').next()) else {
            return;
        };
        if names.contains(&first) {
            return;
        }
        let name = match names {
            [name] => name,
            _ => "<arg_key>",
        };
        let detail = format!("Comment for {word} should follow the format: `# {name} <description>`");
        self.report(options, Rule::InvalidDefinitionDescription, span, detail);
    }
}

/// Is `as` written in the case of `FROM`? A FROM of mixed case is another rule's matter.
fn same_case(from: &str, word: &str) -> bool {
    match from {
        _ if from == from.to_lowercase() => word == word.to_lowercase(),
        _ if from == from.to_uppercase() => word == word.to_uppercase(),
        _ => true,
    }
}
