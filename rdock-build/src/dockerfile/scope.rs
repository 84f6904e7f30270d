//! Which variables an instruction sees: global build arguments, a stage's ARG and ENV, and their expansion.
use super::error::{Fault, ParseError, Problem};
use super::expand::{Expanded, Lexer, Variables};
use super::instruction::{Argument, Files, From, Instruction, Kind, Run};
use super::mount::Mount;
use super::source::{Source, Span};
use super::{Dockerfile, Stage};
use rdock_image::Platform;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the caller of a build sets.
#[derive(Clone, Debug)]
pub struct BuildArgs {
    /// `--build-arg`.
    pub values: BTreeMap<String, String>,
    /// The platform that builds.
    pub build: Platform,
    /// The platform of the image.
    pub target: Platform,
    /// `--target`, for `TARGETSTAGE`; none means the last stage.
    pub target_stage: Option<String>,
}

impl Default for BuildArgs {
    /// The host's platform and no arguments.
    fn default() -> Self {
        Self {
            values: BTreeMap::new(),
            build: Platform::host(),
            target: Platform::host(),
            target_stage: None,
        }
    }
}

/// Build arguments that need no ARG. They are seen by RUN alone and are part of neither history nor cache key.
pub const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// PATH of a stage whose base has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The proxy variables among build arguments, each in both cases. Given in both cases, the lower one counts.
pub(crate) fn proxies(given: &BTreeMap<String, String>) -> Vec<(String, String)> {
    (PROXY_ARGS.chunks_exact(2))
        .filter_map(|names| {
            let value = names.iter().rev().find_map(|name| given.get(*name))?;
            Some(names.iter().map(|name| ((*name).to_owned(), value.clone())))
        })
        .flatten()
        .collect()
}

/// How large all values of a scope may be together, in bytes.
const LARGEST: usize = 8 << 20;

/// The variables of FROM lines: platform arguments and the ARGs before the first FROM.
#[derive(Clone, Debug)]
pub struct Globals {
    escape: char,
    given: BTreeMap<String, String>,
    values: BTreeMap<String, String>,
    /// The platform arguments alone.
    platform: BTreeMap<String, String>,
    declared: BTreeSet<String>,
}

/// FROM with its variables replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedFrom {
    /// Image, stage or `scratch`.
    pub image: String,
    /// `--platform`.
    pub platform: Option<Platform>,
}

impl Globals {
    /// Evaluates the ARG instructions before the first FROM.
    pub fn new(dockerfile: &Dockerfile, args: &BuildArgs) -> Result<Self, ParseError> {
        let (build, target) = (&args.build, &args.target);
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let stage = args
            .target_stage
            .clone()
            .or_else(|| dockerfile.stages.last()?.name());
        let platform: BTreeMap<String, String> = [
            ("BUILDPLATFORM", build.to_string()),
            ("BUILDOS", build.os.clone()),
            ("BUILDOSVERSION", text(&build.os_version)),
            ("BUILDARCH", build.architecture.clone()),
            ("BUILDVARIANT", text(&build.variant)),
            ("TARGETPLATFORM", target.to_string()),
            ("TARGETOS", target.os.clone()),
            ("TARGETOSVERSION", text(&target.os_version)),
            ("TARGETARCH", target.architecture.clone()),
            ("TARGETVARIANT", text(&target.variant)),
            ("TARGETSTAGE", stage.unwrap_or_else(|| "default".to_owned())),
        ]
        .into_iter()
        .map(|(name, value)| {
            let given = args.values.get(name).cloned();
            (name.to_owned(), given.unwrap_or(value))
        })
        .collect();
        let mut globals = Self {
            escape: dockerfile.directives.escape,
            given: args.values.clone(),
            values: platform.clone(),
            platform,
            declared: BTreeSet::new(),
        };
        for instruction in &dockerfile.global_args {
            let Kind::Arg(arguments) = &instruction.kind else {
                continue;
            };
            for argument in arguments {
                let value = match (globals.given.get(&argument.name), &argument.default) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => Some(
                        word(Lexer::new(globals.escape), default, &globals.values)
                            .map_err(|problem| Fault::new(problem, instruction.span).at(&dockerfile.source))?
                            .text,
                    ),
                    (None, None) => None,
                };
                globals.declared.insert(argument.name.clone());
                if let Some(value) = value {
                    globals.values.insert(argument.name.clone(), value);
                    if globals.values.values().map(String::len).sum::<usize>() > LARGEST {
                        return Err(Fault::new(too_large(), instruction.span).at(&dockerfile.source));
                    }
                }
            }
        }
        Ok(globals)
    }

    /// Replaces the variables of a stage's FROM.
    pub fn from(&self, source: &Source, stage: &Stage) -> Result<ResolvedFrom, ParseError> {
        let from = &stage.from;
        let fault = |problem| Fault::new(problem, from.span);
        let lexer = Lexer::new(self.escape);
        let image = word(lexer, &from.image, &self.values).map_err(|problem| fault(problem).at(source))?;
        if image.text.is_empty() {
            let reason = format!("has a blank image: {:?} expands to nothing", from.image);
            return Err(Fault::arguments("FROM", from.span, reason)
                .suggest(self.meant(&image.unmatched))
                .at(source));
        }
        let mut platform = None;
        if let Some(written) = &from.platform {
            let expanded = word(lexer, written, &self.values).map_err(|problem| fault(problem).at(source))?;
            let wrong = |reason: String| {
                let flag = "platform".to_owned();
                let problem = Problem::FlagValue {
                    instruction: "FROM",
                    flag,
                    reason,
                };
                fault(problem).suggest(self.meant(&expanded.unmatched)).at(source)
            };
            if expanded.text.is_empty() {
                return Err(wrong(format!("{written:?} expands to nothing")));
            }
            let parsed = Platform::parse(&expanded.text);
            platform = Some(parsed.map_err(|error| wrong(error.to_string()))?);
        }
        Ok(ResolvedFrom {
            image: image.text,
            platform,
        })
    }

    /// Replaces the variables of an image's name.
    pub(crate) fn image(&self, image: &str) -> Result<String, Problem> {
        word(Lexer::new(self.escape), image, &self.values).map(|expanded| expanded.text)
    }

    /// The words of a FROM, image first; what cannot be expanded is left out.
    pub(crate) fn words_of(&self, from: &From) -> Vec<Expanded> {
        (std::iter::once(&from.image).chain(&from.platform))
            .map_while(|text| word(Lexer::new(self.escape), text, &self.values).ok())
            .collect()
    }

    /// Names of the variables in a text, as far as they are set.
    pub(crate) fn named_in(&self, text: &str) -> BTreeSet<String> {
        let expanded = word(Lexer::new(self.escape), text, &self.values);
        expanded.map(|expanded| expanded.matched).unwrap_or_default()
    }

    /// Returns a global variable's value.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Returns what `--build-arg` says for a name.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// Returns the proxy variables of RUN: those given by `--build-arg`, each in both cases.
    pub fn proxies(&self) -> Vec<(String, String)> {
        proxies(&self.given)
    }

    /// The names a FROM line may use.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        (self.platform.keys().chain(&self.declared)).map(String::as_str)
    }

    fn meant(&self, names: &BTreeSet<String>) -> Option<String> {
        (names.iter()).find_map(|name| super::suggest::closest_exact(name, self.names()))
    }
}

impl Dockerfile {
    /// Returns the names of build arguments that no ARG declares: they have no effect.
    pub fn undeclared<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
        let stages = self.stages.iter().flat_map(|stage| &stage.instructions);
        let declared: BTreeSet<&str> = (self.global_args.iter().chain(stages))
            .filter_map(|instruction| match &instruction.kind {
                Kind::Arg(arguments) => Some(arguments),
                _ => None,
            })
            .flatten()
            .map(|argument| argument.name.as_str())
            .collect();
        (names.into_iter())
            .filter(|name| {
                let name = name.as_str();
                let known = PROXY_ARGS.contains(&name)
                    || name.starts_with("BUILDKIT_")
                    || name == "SOURCE_DATE_EPOCH";
                !known && !declared.contains(name)
            })
            .cloned()
            .collect()
    }
}

/// The variables of a stage as its instructions go by. A stage built on another one begins with a clone of its scope.
#[derive(Clone, Debug)]
pub struct Scope {
    globals: Arc<Globals>,
    /// ENV and ARG.
    values: BTreeMap<String, String>,
    /// The names in the order in which they came up.
    order: Vec<String>,
    /// ENV alone, as the image config has it, and where each name is in it.
    image_env: Vec<String>,
    image_names: BTreeMap<String, usize>,
    /// ARG alone: the names in order, and all of them with the values of their last declaration.
    arg_names: Vec<String>,
    args: BTreeMap<String, Option<String>>,
    size: usize,
    undefined: Vec<(Span, String)>,
}

impl Variables for Scope {
    fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

impl Scope {
    /// Begins a stage whose base image has an environment. PATH is added when it has none.
    pub fn new(globals: Arc<Globals>, image_env: &[String]) -> Self {
        let mut scope = Self {
            globals,
            values: BTreeMap::new(),
            order: Vec::new(),
            image_env: Vec::new(),
            image_names: BTreeMap::new(),
            arg_names: Vec::new(),
            args: BTreeMap::new(),
            size: 0,
            undefined: Vec::new(),
        };
        for entry in image_env {
            // An entry without '=' is set to nothing; it never takes a value of the host.
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            scope.set(name, value);
            scope
                .image_names
                .entry(name.to_owned())
                .or_insert(scope.image_env.len());
            scope.image_env.push(entry.clone());
        }
        if !scope.values.contains_key("PATH") {
            scope.set("PATH", DEFAULT_PATH);
            scope.set_image("PATH", DEFAULT_PATH);
        }
        scope
    }

    /// Bytes of all values.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Replaces an instruction's variables, and takes ENV and ARG into the scope.
    ///
    /// What comes back has no variables left: ARG has its values in place of defaults, EXPOSE is split into words. RUN
    /// stays as it is: its text is the shell's, for its mounts see [`Scope::mounts`].
    pub fn expand(&mut self, source: &Source, instruction: &Instruction) -> Result<Kind, ParseError> {
        let mut kind = instruction.kind.clone();
        let mut undefined = BTreeSet::new();
        self.expand_kind(&mut kind, &mut undefined)
            .map_err(|problem| Fault::new(problem, instruction.span).at(source))?;
        for name in undefined {
            // A declared ARG without a value is no mistake.
            if !self.args.contains_key(&name) {
                self.undefined.push((instruction.span, name));
            }
        }
        Ok(kind)
    }

    fn expand_kind(&mut self, kind: &mut Kind, undefined: &mut BTreeSet<String>) -> Result<(), Problem> {
        let lexer = Lexer::new(self.globals.escape);
        let mut one = |text: &mut String| -> Result<(), Problem> {
            let mut expanded = word(lexer, text, self)?;
            undefined.append(&mut expanded.unmatched);
            *text = expanded.text;
            Ok(())
        };
        match kind {
            Kind::Add(add) => {
                for flag in [&mut add.chown, &mut add.chmod, &mut add.checksum] {
                    optional(flag, &mut one)?;
                }
                self.files(&mut add.files, undefined)?;
            }
            Kind::Copy(copy) => {
                for flag in [&mut copy.chown, &mut copy.chmod] {
                    optional(flag, &mut one)?;
                }
                self.files(&mut copy.files, undefined)?;
            }
            Kind::Env(pairs) => {
                for pair in pairs.iter_mut() {
                    one(&mut pair.name)?;
                    one(&mut pair.value)?;
                }
                // All values are those from before this instruction.
                for pair in pairs {
                    self.set(&pair.name, &pair.value);
                    self.set_image(&pair.name, &pair.value);
                }
            }
            Kind::Label(pairs) => {
                for pair in pairs {
                    one(&mut pair.name)?;
                    one(&mut pair.value)?;
                }
            }
            Kind::Volume(paths) => {
                paths.iter_mut().try_for_each(&mut one)?;
                if paths.iter().any(String::is_empty) {
                    let reason = "has an empty path".to_owned();
                    return Err(Problem::Arguments {
                        instruction: "VOLUME",
                        reason,
                    });
                }
            }
            Kind::User(text) | Kind::Workdir(text) => one(text)?,
            Kind::Stopsignal(text) => {
                one(text)?;
                super::values::signal(text).map_err(|(reason, meant)| Problem::Arguments {
                    instruction: "STOPSIGNAL",
                    reason: match meant {
                        Some(meant) => format!("{reason} (did you mean {meant}?)"),
                        None => reason,
                    },
                })?;
            }
            Kind::Expose(ports) => {
                let mut words = Vec::new();
                for port in ports.iter() {
                    words.extend(
                        lexer
                            .words(port, self)
                            .map_err(|reason| expansion(port, reason))?,
                    );
                }
                *ports = words;
            }
            Kind::Arg(arguments) => {
                for argument in arguments {
                    self.argument(argument, undefined)?;
                }
            }
            Kind::Run(_)
            | Kind::Cmd(_)
            | Kind::Entrypoint(_)
            | Kind::Healthcheck(_)
            | Kind::Maintainer(_)
            | Kind::Onbuild(_)
            | Kind::Shell(_) => {}
        }
        match self.size > LARGEST {
            true => Err(too_large()),
            false => Ok(()),
        }
    }

    fn files(&self, files: &mut Files, undefined: &mut BTreeSet<String>) -> Result<(), Problem> {
        let lexer = Lexer::new(self.globals.escape);
        for text in files.sources.iter_mut().chain([&mut files.destination]) {
            let mut expanded = word(lexer, text, self)?;
            undefined.append(&mut expanded.unmatched);
            *text = expanded.text;
        }
        // In here-documents the escape character is always a backslash, and quotes are text.
        let lexer = Lexer::new('\\').plain_quotes(true);
        for file in files.inline.iter_mut().filter(|file| file.expand) {
            let mut expanded = word(lexer, &file.data, self).map_err(|problem| match problem {
                Problem::Expansion { reason, .. } => expansion(&format!("<<{}", file.name), reason),
                other => other,
            })?;
            undefined.append(&mut expanded.unmatched);
            file.data = expanded.text;
        }
        Ok(())
    }

    /// ARG: what `--build-arg` says, else the default, else the global value of that name.
    fn argument(&mut self, argument: &mut Argument, undefined: &mut BTreeSet<String>) -> Result<(), Problem> {
        let name = &argument.name;
        let value = match (self.globals.given.get(name), &argument.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => {
                let mut expanded = word(Lexer::new(self.globals.escape), default, self)?;
                undefined.append(&mut expanded.unmatched);
                Some(expanded.text)
            }
            (None, None) => self.globals.values.get(name).cloned(),
        };
        argument.default = value.clone();
        if let Some(value) = &value {
            self.set(&argument.name.clone(), value);
        }
        if self.args.insert(argument.name.clone(), value).is_none() {
            self.arg_names.push(argument.name.clone());
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) {
        self.size += value.len();
        match self.values.insert(name.to_owned(), value.to_owned()) {
            Some(old) => self.size -= old.len(),
            None => {
                self.size += name.len();
                self.order.push(name.to_owned());
            }
        }
    }

    fn set_image(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        match self.image_names.get(name) {
            Some(at) => self.image_env[*at] = entry,
            None => {
                self.image_names.insert(name.to_owned(), self.image_env.len());
                self.image_env.push(entry);
            }
        }
    }

    /// Reads the mounts of a RUN, variables replaced.
    pub fn mounts(&self, source: &Source, run: &Run) -> Result<Vec<Mount>, ParseError> {
        let lexer = Lexer::new(self.globals.escape);
        (run.mounts.iter())
            .map(|flag| {
                Mount::read(&flag.text, |value| {
                    word(lexer, value, self).map(|expanded| expanded.text)
                })
                .map_err(|(problem, meant)| Fault::new(problem, flag.span).suggest(meant).at(source))
            })
            .collect()
    }

    /// Returns the environment of RUN, ENV and ARG, in the order in which the names came up. Proxies are not in it.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        (self.order.iter()).filter_map(|name| Some((name.as_str(), self.values.get(name)?.as_str())))
    }

    /// Returns the environment of the image: `NAME=value`, ENV alone.
    pub fn image_env(&self) -> &[String] {
        &self.image_env
    }

    /// Returns the build arguments declared so far as history shows them in front of a RUN, `NAME=value`, each once.
    pub fn history_args(&self) -> Vec<String> {
        (self.arg_names.iter())
            .map(|name| {
                let value = self
                    .values
                    .get(name)
                    .or(self.args.get(name).and_then(Option::as_ref));
                format!("{name}={}", value.map_or("", String::as_str))
            })
            .collect()
    }

    /// Returns the variables that instructions named though they are not set, and forgets them.
    pub(crate) fn take_undefined(&mut self) -> Vec<(Span, String)> {
        std::mem::take(&mut self.undefined)
    }
}

/// Expands a flag's value; what becomes empty is as not given.
fn optional(
    flag: &mut Option<String>,
    mut expand: impl FnMut(&mut String) -> Result<(), Problem>,
) -> Result<(), Problem> {
    if let Some(text) = flag {
        expand(text)?;
    }
    flag.take_if(|text| text.is_empty());
    Ok(())
}

/// How much of a word an error repeats, in characters.
const SHOWN: usize = 120;

fn expansion(word: &str, reason: String) -> Problem {
    Problem::Expansion {
        word: word.chars().take(SHOWN).collect(),
        reason,
    }
}

fn word(lexer: Lexer, text: &str, variables: &dyn Variables) -> Result<Expanded, Problem> {
    lexer
        .word(text, variables)
        .map_err(|reason| expansion(text, reason))
}

fn too_large() -> Problem {
    expansion(
        "",
        format!("all variables together are larger than {LARGEST} bytes"),
    )
}
