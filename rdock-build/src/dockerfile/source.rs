//! The text of a Dockerfile and places in it.
use std::fmt;
use std::sync::Arc;

/// A range of a Dockerfile's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Byte offset of the first byte.
    pub start: usize,
    /// Byte offset behind the last byte.
    pub end: usize,
    /// Line of the first byte, counted from 1.
    pub first_line: u32,
    /// Line of the last byte, counted from 1. Includes here-document bodies.
    pub last_line: u32,
}

/// A place in a file as a person reads it: `Dockerfile:3:6` and the line itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Name of the file as the caller gave it.
    pub file: String,
    /// Line, counted from 1; 0 when the whole file is meant.
    pub line: u32,
    /// Last line of what is meant.
    pub last_line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// Length in characters of what is meant on the first line; at least 1.
    pub width: u32,
    /// The first line's text, without its line break.
    pub text: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// A Dockerfile's text under its name. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
}

/// The longest part of a line that an error repeats, in characters.
const SHOWN: usize = 200;

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }

    /// Returns the file's name as the caller gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the text of a span; empty when the span is not of this file.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    /// Returns where a span is, for people.
    pub fn place(&self, span: Span) -> Place {
        let start = span.start.min(self.text.len());
        let line_start = self.text[..floor(&self.text, start)]
            .rfind('\n')
            .map_or(0, |at| at + 1);
        let line = self.text[line_start..].split('\n').next().unwrap_or_default();
        let line = line.trim_end_matches('\r');
        let before = floor(line, (start - line_start).min(line.len()));
        let inside = floor(line, (span.end.max(start) - line_start).min(line.len())).max(before);
        let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        Place {
            file: self.name.to_string(),
            line: span.first_line,
            last_line: span.last_line,
            column: count(&line[..before]).saturating_add(1),
            width: count(&line[before..inside]).max(1),
            text: line.chars().take(SHOWN).collect(),
        }
    }
}

/// The largest character boundary that is not above `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
