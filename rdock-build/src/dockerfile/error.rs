//! What can be wrong with a Dockerfile.
use super::source::{Place, Source, Span};
use std::fmt;

/// A Dockerfile that cannot be built, where it is wrong, and what may have been meant.
///
/// `Display` gives `file:line:column: problem (did you mean ...?)` and the line itself below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub problem: Problem,
    /// Where.
    pub place: Box<Place>,
    /// What may have been meant.
    pub suggestion: Option<String>,
}

/// What is wrong with a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file has no instruction.
    #[error("the file has no instructions")]
    Empty,
    /// The file has only global ARGs.
    #[error("the file has no build stage: a FROM instruction is missing")]
    NoStage,
    /// An instruction before the first FROM that is not ARG.
    #[error("{instruction} is not allowed before the first FROM")]
    BeforeFrom {
        /// The instruction.
        instruction: String,
    },
    /// Bytes that are not UTF-8 outside a comment.
    #[error("the line is not UTF-8")]
    NotUtf8,
    /// A parser directive (`# escape=`, `# syntax=`, `# check=`) is given twice or has a wrong value.
    #[error("parser directive {name}: {reason}")]
    Directive {
        /// Name of the directive.
        name: String,
        /// The rule it breaks.
        reason: String,
    },
    /// No such instruction.
    #[error("unknown instruction {name:?}")]
    UnknownInstruction {
        /// The word found.
        name: String,
    },
    /// The instruction has no such flag.
    #[error("unknown flag --{flag} of {instruction}")]
    UnknownFlag {
        /// The instruction.
        instruction: &'static str,
        /// The flag, without its dashes.
        flag: String,
    },
    /// A flag that may be given once is given twice.
    #[error("flag --{flag} of {instruction} is given twice")]
    DuplicateFlag {
        /// The instruction.
        instruction: &'static str,
        /// The flag, without its dashes.
        flag: String,
    },
    /// A flag's value is missing or not what it must be.
    #[error("flag --{flag} of {instruction}: {reason}")]
    FlagValue {
        /// The instruction.
        instruction: &'static str,
        /// The flag, without its dashes.
        flag: String,
        /// The rule it breaks.
        reason: String,
    },
    /// The arguments are not what the instruction takes.
    #[error("{instruction} {reason}")]
    Arguments {
        /// The instruction.
        instruction: &'static str,
        /// The rule they break, a sentence without its subject.
        reason: String,
    },
    /// A here-document without its closing line.
    #[error("here-document {name:?} is not closed: a line {name:?} is missing")]
    UnclosedHeredoc {
        /// The word that closes it.
        name: String,
    },
    /// A word with variables or quotes that cannot be expanded.
    #[error("cannot expand {word:?}: {reason}")]
    Expansion {
        /// The word.
        word: String,
        /// The rule it breaks.
        reason: String,
    },
    /// A stage of that name or number does not exist, or stands further down.
    #[error("no such stage: {name:?}")]
    UnknownStage {
        /// The name.
        name: String,
    },
    /// Correct, but not built by this version.
    #[error("{instruction}: {feature} is not supported yet")]
    Unsupported {
        /// The instruction.
        instruction: &'static str,
        /// What of it.
        feature: String,
    },
    /// A build check failed and the file says `# check=error=true`.
    #[error("build checks failed: {rules}")]
    Checks {
        /// Names of the rules, separated by commas.
        rules: String,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, " (did you mean {suggestion}?)")?;
        }
        if self.place.line == 0 {
            return Ok(());
        }
        let number = self.place.line.to_string();
        let (column, width) = (self.place.column as usize - 1, self.place.width as usize);
        // Tabs stay tabs, so that the mark stands below its text.
        let indent: String = (self.place.text.chars().take(column))
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        write!(f, "\n{number} | {}", self.place.text)?;
        if column < self.place.text.chars().count() {
            let shown = self.place.text.chars().count() - column;
            let mark = "^".repeat(width.min(shown));
            write!(f, "\n{:1$} | {indent}{mark}", "", number.len())?;
        }
        Ok(())
    }
}

impl std::error::Error for ParseError {}

/// A problem at a range, before it is known which file it is in.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) problem: Problem,
    pub(crate) span: Span,
    pub(crate) suggestion: Option<String>,
}

impl Fault {
    pub(crate) fn new(problem: Problem, span: Span) -> Self {
        Self {
            problem,
            span,
            suggestion: None,
        }
    }

    pub(crate) fn arguments(instruction: &'static str, span: Span, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::new(Problem::Arguments { instruction, reason }, span)
    }

    pub(crate) fn suggest(mut self, word: Option<String>) -> Self {
        self.suggestion = word;
        self
    }

    pub(crate) fn at(self, source: &Source) -> ParseError {
        ParseError {
            problem: self.problem,
            place: Box::new(source.place(self.span)),
            suggestion: self.suggestion,
        }
    }
}
