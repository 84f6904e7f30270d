//! The texts that were read, and places in them.

use crate::error::{Error, Finding, FindingKind, Place};
use std::path::PathBuf;

/// A place in one of the [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    /// Which source.
    pub(crate) file: u32,
    /// From 1; 0 is no place.
    pub(crate) line: u32,
    /// From 1, in characters.
    pub(crate) column: u32,
}

/// A mistake that does not know its text yet.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) kind: FindingKind,
    pub(crate) span: Span,
    pub(crate) path: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(kind: FindingKind, span: Span, path: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            span,
            path: path.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Every text of a project, in the order of reading.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    files: Vec<(PathBuf, String)>,
}

impl Sources {
    pub(crate) fn add(&mut self, file: PathBuf, text: String) -> u32 {
        self.files.push((file, text));
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    /// The place for people; none for what stands in no file.
    pub(crate) fn place(&self, span: Span) -> Option<Place> {
        let (file, text) = self.files.get(span.file as usize)?;
        if span.line == 0 {
            return None;
        }
        let line = text.lines().nth(span.line as usize - 1).unwrap_or("");
        Some(Place {
            file: file.clone(),
            line: span.line as usize,
            column: span.column.max(1) as usize,
            text: line.chars().take(200).collect(),
        })
    }

    pub(crate) fn finding(&self, problem: Problem) -> Finding {
        Finding {
            kind: problem.kind,
            place: self.place(problem.span),
            path: problem.path,
            message: problem.message,
            hint: problem.hint,
        }
    }

    pub(crate) fn error(&self, problem: Problem) -> Error {
        self.finding(problem).into()
    }
}
