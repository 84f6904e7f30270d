//! The language: a Dockerfile's text becomes stages of typed instructions.
//!
//! [`SyntaxTree`] (lines, words, flags, here-documents) → [`Dockerfile`] (stages, typed instructions) → [`Globals`]
//! and [`Scope`] (build arguments, variables expanded).
mod checks;
mod directives;
mod error;
mod expand;
mod heredoc;
mod instruction;
mod mount;
mod outline;
mod parse;
mod pattern;
mod scope;
mod source;
mod suggest;
pub mod syntax;
mod unsupported;
mod values;
mod words;

pub use checks::{Report, Rule, Warning};
pub use directives::Directives;
pub use error::{ParseError, Problem};
pub use expand::{Expanded, Lexer, Nothing, Variables};
pub use heredoc::Heredoc;
pub use instruction::{
    Add, Argument, Command, Copy, Device, Files, From, Health, InlineFile, Instruction, Kind, MountFlag,
    Network, Onbuild, Pair, Run, Script, Security,
};
pub use mount::{Mount, MountKind, Sharing};
pub use outline::{Outline, OutlineArgument, OutlineMount, Target};
pub(crate) use scope::proxies;
pub use scope::{BuildArgs, DEFAULT_PATH, Globals, PROXY_ARGS, ResolvedFrom, Scope};
pub use source::{Place, Source, Span};
pub use syntax::SyntaxTree;
pub use unsupported::is_git;
pub use values::{ExposedPort, exposed_port};

use error::Fault;
use parse::Parsed;
use std::collections::BTreeMap;

/// A Dockerfile, read.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// Its text, for places in errors and events.
    pub source: Source,
    /// Its parser directives.
    pub directives: Directives,
    /// The ARG instructions before the first FROM.
    pub global_args: Vec<Instruction>,
    /// The stages, in order; at least one.
    pub stages: Vec<Stage>,
    /// Last lines of instructions that have an empty continuation line.
    empty_continuations: Vec<Span>,
}

/// A stage: FROM and what follows it.
#[derive(Clone, Debug)]
pub struct Stage {
    /// FROM.
    pub from: From,
    /// The instructions, in order.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    /// Returns the stage's name in lower case, if it has one.
    pub fn name(&self) -> Option<String> {
        self.from.alias.as_ref().map(|alias| alias.to_lowercase())
    }
}

/// Stages by name, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct StageNames(BTreeMap<String, Vec<usize>>);

impl StageNames {
    pub(crate) fn new(stages: &[Stage]) -> Self {
        let mut names: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, stage) in stages.iter().enumerate() {
            if let Some(name) = stage.name() {
                names.entry(name).or_default().push(number);
            }
        }
        Self(names)
    }

    /// The last stage before `number` that a name means; by number too where `indexed`.
    pub(crate) fn before(&self, name: &str, number: usize, indexed: bool) -> Option<usize> {
        let named = self.0.get(&name.to_lowercase()).and_then(|numbers| {
            let count = numbers.partition_point(|found| *found < number);
            numbers[..count].last().copied()
        });
        let index = || {
            name.parse()
                .ok()
                .filter(|index: &usize| indexed && *index < number)
        };
        named.or_else(index)
    }
}

impl Dockerfile {
    /// Reads a Dockerfile. `name` is what errors call the file.
    pub fn parse(name: &str, text: &str) -> Result<Self, ParseError> {
        let SyntaxTree {
            source,
            directives,
            statements,
        } = SyntaxTree::parse(name, text)?;
        let mut global_args = Vec::new();
        let mut stages: Vec<Stage> = Vec::new();
        for statement in &statements {
            let parsed = parse::statement(statement).map_err(|fault| fault.at(&source))?;
            match (parsed, stages.last_mut()) {
                (Parsed::From(from), _) => stages.push(Stage {
                    from,
                    instructions: Vec::new(),
                }),
                (Parsed::Instruction(instruction), Some(stage)) => stage.instructions.push(instruction),
                (Parsed::Instruction(instruction), None) if matches!(instruction.kind, Kind::Arg(_)) => {
                    global_args.push(instruction);
                }
                (Parsed::Instruction(instruction), None) => {
                    let instruction = instruction.kind.name().to_owned();
                    let problem = Problem::BeforeFrom { instruction };
                    return Err(Fault::new(problem, statement.span).at(&source));
                }
            }
        }
        let empty_continuations = (statements.iter())
            .filter_map(|statement| {
                let line = statement.empty_continuation?;
                Some(Span {
                    first_line: line,
                    last_line: line,
                    ..statement.span
                })
            })
            .collect();
        match stages.is_empty() {
            true => Err(Fault::new(Problem::NoStage, Span::default()).at(&source)),
            false => Ok(Self {
                source,
                directives,
                global_args,
                stages,
                empty_continuations,
            }),
        }
    }

    /// Reads a Dockerfile from bytes. Comments may hold bytes that are not UTF-8.
    pub fn parse_bytes(name: &str, bytes: &[u8]) -> Result<Self, ParseError> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return Self::parse(name, text);
        }
        let text = String::from_utf8_lossy(bytes);
        let source = Source::new(name, &text);
        let mut start = 0;
        for (line, number) in bytes.split_inclusive(|byte| *byte == b'\n').zip(1..) {
            let shown = String::from_utf8_lossy(line);
            let span = Span {
                start,
                end: start + shown.trim_end().len(),
                first_line: number,
                last_line: number,
            };
            if std::str::from_utf8(line).is_err() && !shown.trim_start().starts_with('#') {
                return Err(Fault::new(Problem::NotUtf8, span).at(&source));
            }
            start += shown.len();
        }
        Self::parse(name, &text)
    }

    /// Returns where a span is, for people.
    pub fn place(&self, span: Span) -> Place {
        self.source.place(span)
    }
}

impl Instruction {
    /// Reads one instruction that stands alone, such as an ONBUILD trigger of a base image. `name` is what errors
    /// call its origin.
    pub fn parse(name: &str, text: &str) -> Result<Self, ParseError> {
        let tree = SyntaxTree::parse(name, text)?;
        let fault = match tree.statements.as_slice() {
            [statement] => match parse::statement(statement) {
                Ok(Parsed::Instruction(instruction)) => return Ok(instruction),
                Ok(Parsed::From(from)) => Fault::arguments("FROM", from.span, "cannot stand alone"),
                Err(fault) => fault,
            },
            [_, second, ..] => Fault::arguments(
                second.instruction,
                second.span,
                "follows: only one is allowed here",
            ),
            [] => Fault::new(Problem::Empty, Span::default()),
        };
        Err(fault.at(&tree.source))
    }
}
