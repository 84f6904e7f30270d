//! One file: read, parsed, filled in, brought to the canonical form, extended.

use super::{Context, DOCUMENT, Loader, regular};
use crate::error::{Error, FindingKind, Result};
use crate::interpolate::{TemplateError, substitute};
use crate::schema::Check;
use crate::source::Problem;
use crate::yaml::{Limits, Node, Value, parse};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

/// Files of one project.
const MOST_FILES: usize = 500;

/// Bytes of all files of a project.
const MOST_BYTES: usize = 16 << 20;

/// Bytes that variables may bring, over all files.
const MOST_FILLED: usize = 16 << 20;

impl Loader<'_> {
    /// The text of a file, and its number among the sources.
    pub(super) fn read(&mut self, file: &Path) -> Result<(u32, String)> {
        let failed = |source| Error::Read {
            path: file.to_owned(),
            source,
        };
        self.files += 1;
        if self.files > MOST_FILES {
            let problem = Problem::new(
                FindingKind::Limit,
                Default::default(),
                "",
                format!("more than {MOST_FILES} files"),
            );
            return Err(self.sources.error(problem));
        }
        let bytes = match (file == Path::new("-"), &self.options.stdin) {
            (true, Some(text)) => text.clone().into_bytes(),
            (true, None) => {
                return Err(failed(std::io::Error::other(
                    "no text was given for the standard input",
                )));
            }
            (false, _) => self.bytes_of(file).map_err(failed)?,
        };
        let too_long = bytes.len() > self.limits.bytes;
        let text = if too_long {
            Ok(String::new())
        } else {
            String::from_utf8(bytes)
        };
        let (text, wrong) = match text {
            Ok(text) => (text, None),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..good]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count()
                    + 1;
                (String::new(), Some(line))
            }
        };
        self.bytes += text.len();
        if self.bytes > MOST_BYTES {
            let message = format!("all files together have more than {MOST_BYTES} bytes");
            let problem = Problem::new(FindingKind::Limit, Default::default(), "", message);
            return Err(self.sources.error(problem));
        }
        let number = self.sources.add(file.to_owned(), text.clone());
        let span = |line: usize| crate::source::Span {
            file: number,
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: 1,
        };
        if too_long {
            let message = format!("the file has more than {} bytes", self.limits.bytes);
            return Err(self
                .sources
                .error(Problem::new(FindingKind::Limit, span(1), "", message)));
        }
        if let Some(line) = wrong {
            return Err(self
                .sources
                .error(Problem::new(FindingKind::Syntax, span(line), "", "not UTF-8")));
        }
        Ok((number, text))
    }

    /// What is in a file, one byte more than allowed at most: that is enough to see that it is too long.
    fn bytes_of(&mut self, file: &Path) -> std::io::Result<Vec<u8>> {
        let most = self.limits.bytes as u64 + 1;
        let mut bytes = Vec::new();
        if !self.given.contains(file) || super::irregular(file).is_none_or(|kind| kind == "a directory") {
            regular::open(file)?.take(most).read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
        if let Some(known) = self.piped.get(file) {
            return Ok(known.clone());
        }
        std::fs::File::open(file)?.take(most).read_to_end(&mut bytes)?;
        self.piped.insert(file.to_owned(), bytes.clone());
        Ok(bytes)
    }

    /// The documents of a file, canonical, with `extends` done and `include` not.
    pub(super) fn documents(&mut self, file: &Path, context: &Context) -> Result<Vec<Node>> {
        let mut documents = self.raw(file)?;
        for document in &mut documents {
            self.fill(document, context)?;
            let mut check = Check::part(!self.options.interpolate);
            check.apply(&DOCUMENT, document);
            self.report(check)?;
            self.extend_all(document, file, context)?;
        }
        Ok(documents)
    }

    /// The documents of a file as they are written. Empty ones are left out.
    pub(super) fn raw(&mut self, file: &Path) -> Result<Vec<Node>> {
        let (number, text) = self.read(file)?;
        let limits = Limits {
            before: self.nodes,
            ..self.limits
        };
        let documents = parse(number, &text, &limits).map_err(|problem| self.sources.error(problem))?;
        self.nodes += documents.iter().map(Node::count).sum::<usize>();
        let documents: Vec<Node> = documents.into_iter().filter(|node| !node.is_null()).collect();
        for document in &documents {
            if document.as_map().is_none() {
                let message = format!("a compose file is a mapping, not {}", document.kind());
                let problem = Problem::new(FindingKind::WrongType, document.span, "", message);
                return Err(self.sources.error(problem));
            }
        }
        Ok(documents)
    }

    /// Variables in values, never in keys.
    pub(super) fn fill(&mut self, node: &mut Node, context: &Context) -> Result<()> {
        if !self.options.interpolate {
            return Ok(());
        }
        let mut problems = Vec::new();
        let mut unset = std::mem::take(&mut self.unset);
        let mut filled = self.filled;
        let mut full = false;
        walk(node, &mut Vec::new(), &mut |node, path| {
            let Value::Text(text) = &mut node.value else {
                return;
            };
            if !text.contains('$') || problems.len() >= 100 || full {
                return;
            }
            match substitute(text, &|name| context.environment.get(name).cloned(), &mut unset) {
                Ok(value) => {
                    filled += value.len();
                    if filled > MOST_FILLED {
                        let message = format!("variables bring more than {MOST_FILLED} bytes");
                        problems.push(Problem::new(
                            FindingKind::Limit,
                            node.span,
                            &path.join("."),
                            message,
                        ));
                        full = true;
                        return;
                    }
                    *text = value;
                }
                Err(error) => {
                    let kind = match error {
                        TemplateError::TooLong { .. } => FindingKind::Limit,
                        _ => FindingKind::Interpolation,
                    };
                    problems.push(Problem::new(kind, node.span, &path.join("."), error.to_string()));
                }
            }
        });
        self.filled = filled;
        self.unset = unset;
        if problems.is_empty() {
            return Ok(());
        }
        let findings = problems
            .into_iter()
            .map(|problem| self.sources.finding(problem))
            .collect();
        Err(Error::Invalid { findings })
    }

    /// One value of a file that is needed before the rest is filled in.
    pub(super) fn fill_text(&mut self, text: &str, context: &Context) -> Option<String> {
        substitute(
            text,
            &|name| context.environment.get(name).cloned(),
            &mut BTreeSet::new(),
        )
        .ok()
    }
}

/// Every scalar, with its path.
fn walk(node: &mut Node, path: &mut Vec<String>, work: &mut dyn FnMut(&mut Node, &[String])) {
    match &mut node.value {
        Value::Map(map) => {
            for (key, entry) in map.iter_mut() {
                path.push(key.clone());
                walk(&mut entry.node, path, work);
                path.pop();
            }
        }
        Value::List(list) => {
            for (index, node) in list.iter_mut().enumerate() {
                path.push(index.to_string());
                walk(node, path, work);
                path.pop();
            }
        }
        _ => work(node, path),
    }
}
