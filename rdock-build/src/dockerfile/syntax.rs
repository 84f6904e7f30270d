//! The syntax of a Dockerfile: lines become statements, one for each instruction, whose words are told apart but not
//! yet understood.
use super::directives::{self, Directives};
use super::error::{Fault, ParseError, Problem};
use super::heredoc::Heredoc;
use super::instruction::Pair;
use super::source::{Source, Span};
use super::suggest;
use super::words;
use serde_json::Value;

/// A whole file.
#[derive(Clone, Debug)]
pub struct SyntaxTree {
    /// The text.
    pub source: Source,
    /// The parser directives.
    pub directives: Directives,
    /// The statements, in order.
    pub statements: Vec<Statement>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// Where it is, here-documents included.
    pub span: Span,
    /// The instruction's word as written.
    pub keyword: String,
    /// Which instruction it is, in upper case.
    pub instruction: &'static str,
    /// Its text on one line.
    pub text: String,
    /// `--name` and `--name=value` in front of the arguments, without quotes.
    pub flags: Vec<Flag>,
    /// What follows the flags.
    pub arguments: Arguments,
    /// Where the arguments are; behind the keyword when there are none.
    pub arguments_span: Span,
    /// Here-documents, in order.
    pub heredocs: Vec<Heredoc>,
    /// The comment lines right above it, without `#`.
    pub comments: Vec<String>,
    /// A continuation line with nothing on it: the number of the instruction's last line.
    pub empty_continuation: Option<u32>,
}

/// A flag as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Its text, dashes included.
    pub text: String,
    /// Where it is.
    pub span: Span,
}

/// The arguments of a statement, in the shape its instruction has.
#[derive(Clone, Debug, PartialEq)]
pub enum Arguments {
    /// None at all.
    None,
    /// The rest of the line.
    Text(String),
    /// A JSON array of strings.
    Json(Vec<String>),
    /// Words between blanks.
    Words(Vec<String>),
    /// Names and values.
    Pairs(Vec<Pair>),
    /// HEALTHCHECK: a word and what follows it.
    Typed(String, Box<Arguments>),
    /// ONBUILD: a statement.
    Nested(Box<Statement>),
}

/// All instructions.
pub(crate) const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

impl SyntaxTree {
    /// Reads a file. `name` is used in errors.
    pub fn parse(name: &str, text: &str) -> Result<Self, ParseError> {
        let source = Source::new(name, text);
        let (directives, statements) = parse(source.text()).map_err(|fault| fault.at(&source))?;
        Ok(Self {
            source,
            directives,
            statements,
        })
    }
}

/// A line of the file.
#[derive(Clone, Copy)]
struct Line<'a> {
    /// With its line break.
    text: &'a str,
    /// Byte offset.
    start: usize,
    /// Number, from 1.
    number: u32,
}

impl Line<'_> {
    fn span(&self) -> Span {
        let end = self.start + self.text.trim_end_matches(['\r', '\n']).len();
        Span {
            start: self.start,
            end,
            first_line: self.number,
            last_line: self.number,
        }
    }
}

/// An instruction's text with continuation lines joined, and where each part of it comes from.
#[derive(Default)]
struct Joined {
    text: String,
    /// Offset in `text`, offset in the file, line.
    parts: Vec<(usize, usize, u32)>,
}

impl Joined {
    fn push(&mut self, text: &str, start: usize, line: u32) {
        self.parts.push((self.text.len(), start, line));
        self.text.push_str(text);
    }

    fn at(&self, offset: usize) -> (usize, u32) {
        let part = self.parts.partition_point(|(from, ..)| *from <= offset).max(1) - 1;
        match self.parts.get(part) {
            Some((from, start, line)) => (start + offset.saturating_sub(*from), *line),
            None => (0, 0),
        }
    }

    fn span(&self, start: usize, end: usize) -> Span {
        let (first, first_line) = self.at(start);
        let (last, last_line) = self.at(end.saturating_sub(1).max(start));
        Span {
            start: first,
            end: last + usize::from(end > start),
            first_line,
            last_line,
        }
    }
}

fn parse(text: &str) -> Result<(Directives, Vec<Statement>), Fault> {
    let (text, skipped) = match text.strip_prefix('\u{feff}') {
        Some(rest) => (rest, '\u{feff}'.len_utf8()),
        None => (text, 0),
    };
    let mut start = skipped;
    let mut lines = text.split_inclusive('\n').zip(1..).map(|(text, number)| {
        let line = Line { text, start, number };
        start += text.len();
        line
    });
    let mut directives = directives::Reader::default();
    let mut statements = Vec::new();
    let mut comments = Vec::new();
    while let Some(line) = lines.next() {
        let text = line.text.trim_end_matches(['\r', '\n']);
        let content = text.trim_start();
        if line.number == 1 && content.starts_with("#!") {
            continue;
        }
        let directive = directives.line(content, line.span())?;
        if let Some(comment) = content.strip_prefix('#') {
            match comment.trim() {
                _ if directive => {}
                "" => comments.clear(),
                comment => comments.push(comment.to_owned()),
            }
            continue;
        }
        if content.is_empty() {
            continue;
        }
        let escape = directives.found.escape;
        let mut joined = Joined::default();
        let (content, mut ends) = continuation(content, escape);
        let indent = text.len() - text.trim_start().len();
        joined.push(content, line.start + indent, line.number);
        let mut last = line;
        let mut empty = false;
        while !ends {
            let Some(line) = lines.next() else { break };
            last = line;
            let content = line.text.trim_end_matches(['\r', '\n']);
            let trimmed = content.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                empty = true;
                continue;
            }
            let (content, end) = continuation(content, escape);
            ends = end;
            joined.push(content, line.start, line.number);
        }
        let mut statement = statement(&joined, (0, joined.text.len()), escape)?;
        statement.comments = std::mem::take(&mut comments);
        statement.empty_continuation = empty.then_some(last.number);
        if takes_heredocs(&statement) {
            let opening = statement.span;
            for mut heredoc in Heredoc::in_line(&joined.text) {
                let from = last.start + last.text.len();
                let first_line = last.number + 1;
                loop {
                    let Some(line) = lines.next() else {
                        let name = heredoc.name;
                        return Err(Fault::new(Problem::UnclosedHeredoc { name }, opening));
                    };
                    last = line;
                    let content = line.text.trim_end_matches(['\r', '\n']);
                    let content = match heredoc.strip_tabs {
                        true => content.trim_start_matches('\t'),
                        false => content,
                    };
                    if content == heredoc.name {
                        heredoc.span = Span {
                            start: from,
                            end: line.start,
                            first_line,
                            last_line: line.number - 1,
                        };
                        break;
                    }
                    heredoc.content.push_str(line.text);
                }
                innermost(&mut statement).heredocs.push(heredoc);
            }
        }
        statement.span.end = statement.span.end.max(last.span().end);
        statement.span.last_line = last.number;
        statements.push(statement);
    }
    match statements.is_empty() {
        true => Err(Fault::new(Problem::Empty, Span::default())),
        false => Ok((directives.found, statements)),
    }
}

/// ONBUILD's statement, or the statement itself.
fn innermost(statement: &mut Statement) -> &mut Statement {
    match statement.arguments {
        Arguments::Nested(_) => match &mut statement.arguments {
            Arguments::Nested(nested) => nested,
            _ => unreachable!("matched above"),
        },
        _ => statement,
    }
}

fn takes_heredocs(statement: &Statement) -> bool {
    match &statement.arguments {
        Arguments::Nested(nested) => takes_heredocs(nested),
        Arguments::Json(_) => false,
        _ => matches!(statement.instruction, "RUN" | "COPY" | "ADD"),
    }
}

/// Takes the continuation mark off a line's end: an escape character that no other one precedes, and blanks behind
/// it. Returns whether the instruction ends here.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, false),
        _ => (line, true),
    }
}

/// Blanks that separate words.
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\x0b' | '\x0c')
}

/// Reads the statement at a range of the joined text.
fn statement(joined: &Joined, range: (usize, usize), escape: char) -> Result<Statement, Fault> {
    let whole = &joined.text[range.0..range.1];
    let text = whole.trim();
    let start = range.0 + (whole.len() - whole.trim_start().len());
    let span = joined.span(start, start + text.len());
    let keyword = text.split(is_blank).next().unwrap_or_default();
    let keyword_span = joined.span(start, start + keyword.len());
    let upper = keyword.to_uppercase();
    let Some(instruction) = INSTRUCTIONS.into_iter().find(|name| *name == upper) else {
        let name = keyword.chars().take(64).collect();
        return Err(Fault::new(Problem::UnknownInstruction { name }, keyword_span)
            .suggest(suggest::closest(keyword, INSTRUCTIONS)));
    };
    let rest = text[keyword.len()..].trim_start_matches(is_blank);
    let rest_start = start + text.len() - rest.len();
    let (flags, arguments) = words::flags(rest, escape);
    let flags = flags
        .into_iter()
        .map(|(text, from, to)| Flag {
            text,
            span: joined.span(rest_start + from, rest_start + to),
        })
        .collect();
    let trimmed = arguments.trim();
    let from = start + text.len() - arguments.trim_start().len();
    let arguments_span = match trimmed.is_empty() {
        true => keyword_span,
        false => joined.span(from, from + trimmed.len()),
    };
    let wrong = |reason: String| Fault::arguments(instruction, arguments_span, reason);
    let arguments = match instruction {
        _ if trimmed.is_empty() => Arguments::None,
        "ADD" | "COPY" | "VOLUME" => match json(trimmed).map_err(wrong)? {
            Some(strings) => Arguments::Json(strings),
            None => Arguments::Words(split(trimmed)),
        },
        "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => text_or_json(trimmed).map_err(wrong)?,
        "HEALTHCHECK" => {
            let end = trimmed
                .find(|c: char| c.is_ascii_whitespace())
                .unwrap_or(trimmed.len());
            let rest = trimmed[end..].trim_start();
            let rest = match rest.is_empty() {
                true => Arguments::None,
                false => text_or_json(rest).map_err(wrong)?,
            };
            Arguments::Typed(trimmed[..end].to_owned(), Box::new(rest))
        }
        "EXPOSE" | "FROM" => Arguments::Words(split(trimmed)),
        "ARG" => Arguments::Words(words::quoted(trimmed, escape)),
        "ENV" | "LABEL" => Arguments::Pairs(pairs(trimmed, escape).map_err(wrong)?),
        "ONBUILD" => {
            // Only one level: a trigger that is ONBUILD is refused before its own trigger is read.
            let nested = trimmed.split(is_blank).next().unwrap_or_default();
            if nested.eq_ignore_ascii_case("ONBUILD") {
                return Err(wrong("cannot have ONBUILD as its trigger".to_owned()));
            }
            Arguments::Nested(Box::new(statement(joined, (from, from + trimmed.len()), escape)?))
        }
        _ => Arguments::Text(trimmed.to_owned()),
    };
    Ok(Statement {
        span,
        keyword: keyword.to_owned(),
        instruction,
        text: text.to_owned(),
        flags,
        arguments,
        arguments_span,
        heredocs: Vec::new(),
        comments: Vec::new(),
        empty_continuation: None,
    })
}

fn split(text: &str) -> Vec<String> {
    text.split(is_blank)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Reads the JSON form: an array of strings that reaches the end. Anything else but an array of other values is the
/// shell form.
fn json(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<Value>>(text) else {
        return Ok(None);
    };
    (values.into_iter())
        .map(|value| match value {
            Value::String(text) => Ok(text),
            _ => Err("takes strings alone in its JSON form".to_owned()),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

fn text_or_json(text: &str) -> Result<Arguments, String> {
    Ok(match json(text)? {
        Some(strings) => Arguments::Json(strings),
        None => Arguments::Text(text.to_owned()),
    })
}

/// ENV and LABEL: `name=value ...`, or the old `name rest of the line`.
fn pairs(text: &str, escape: char) -> Result<Vec<Pair>, String> {
    let words = words::quoted(text, escape);
    if words.first().is_some_and(|word| !word.contains('=')) {
        let (name, value) = text
            .split_once(is_blank)
            .ok_or_else(|| format!("needs a name and a value: {text}=value"))?;
        return Ok(vec![Pair {
            name: name.to_owned(),
            value: value.trim_start_matches(is_blank).to_owned(),
            legacy: true,
        }]);
    }
    (words.into_iter())
        .map(|word| match word.split_once('=') {
            Some((name, value)) => Ok(Pair {
                name: name.to_owned(),
                value: value.to_owned(),
                legacy: false,
            }),
            None => Err(format!("needs name=value, and {word:?} has no '='")),
        })
        .collect()
}
