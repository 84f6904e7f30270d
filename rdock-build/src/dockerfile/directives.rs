//! Parser directives: comments at the very top such as `# escape=` that change how the file is read.
use super::error::{Fault, Problem};
use super::source::Span;

/// The directives of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the language version its author had in mind. Noted, not used: this crate reads one language.
    pub syntax: Option<String>,
    /// `# escape=`: the escape and continuation character.
    pub escape: char,
    /// `# check=`: options of the build checks.
    pub check: Option<String>,
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            syntax: None,
            escape: '\\',
            check: None,
        }
    }
}

/// Reads the directives line by line, until the first line that is none.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) found: Directives,
    seen: Vec<String>,
    done: bool,
}

impl Reader {
    /// Takes the next line, leading blanks removed. Returns whether it is a directive.
    pub(crate) fn line(&mut self, line: &str, span: Span) -> Result<bool, Fault> {
        if self.done {
            return Ok(false);
        }
        let Some((name, value)) = line.strip_prefix('#').and_then(split) else {
            self.done = true;
            return Ok(false);
        };
        let name = name.to_ascii_lowercase();
        let wrong = |reason: &str| {
            let (name, reason) = (name.clone(), reason.to_owned());
            Fault::new(Problem::Directive { name, reason }, span)
        };
        if self.seen.contains(&name) {
            return Err(wrong("it is given twice"));
        }
        match name.as_str() {
            "syntax" => self.found.syntax = Some(value.to_owned()),
            "check" => self.found.check = Some(value.to_owned()),
            "escape" => {
                self.found.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => return Err(wrong("the escape character is \\ or `")),
                }
            }
            _ => {
                self.done = true;
                return Ok(false);
            }
        }
        self.seen.push(name);
        Ok(true)
    }
}

/// Splits `name = value`, blanks around both removed.
pub(crate) fn split(comment: &str) -> Option<(&str, &str)> {
    let (name, value) = comment.trim_start().split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim());
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric());
    (named && !value.is_empty()).then_some((name, value))
}
