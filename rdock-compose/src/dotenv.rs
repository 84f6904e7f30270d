//! Files of environment variables, as `.env` and `env_file` have them.
//!
//! `KEY=value`, `KEY: value`, `export KEY=value`, a `KEY` alone (its value is the environment's). Single quotes keep
//! everything, double quotes know `\n \r \t \" \\ \$` and variables, without quotes ` #` begins a comment. Quoted
//! values may have several lines.

use crate::interpolate::{TemplateError, substitute};
use std::collections::{BTreeSet, HashMap};

/// Bytes that the values of one file may have together: each may bring those above it several times.
const LONGEST: usize = 8 << 20;

/// A line that is not one of an environment file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct DotenvError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// The variables of a file, in its order; the last of a name counts.
///
/// `lookup` is asked first for what a value refers to, then the lines above. A name without a value that `lookup`
/// does not know is left out.
///
/// # Errors
/// The first line that is wrong.
pub fn parse_dotenv(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, DotenvError> {
    let mut reader = Reader {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 1,
        found: Vec::new(),
        last: HashMap::new(),
        bytes: 0,
        lookup,
    };
    while reader.next()? {}
    Ok(reader.found)
}

/// The variables of a file with `format: raw`: `KEY=value` and nothing else has a meaning.
///
/// # Errors
/// A line without a `=`, or without a name before it.
pub fn parse_raw(text: &str) -> Result<Vec<(String, String)>, DotenvError> {
    let mut found = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((key, value)) if !key.is_empty() => found.push((key.to_owned(), value.to_owned())),
            _ => {
                return Err(DotenvError {
                    line: number + 1,
                    reason: format!("expected KEY=value, found {:?}", short(line)),
                });
            }
        }
    }
    Ok(found)
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    found: Vec<(String, String)>,
    /// Where the last one of each name is in `found`.
    last: HashMap<String, usize>,
    /// Of all values.
    bytes: usize,
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Reader<'a> {
    fn wrong(&self, reason: impl Into<String>) -> DotenvError {
        DotenvError {
            line: self.line,
            reason: reason.into(),
        }
    }

    /// Takes that many bytes.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.line += taken.matches('\n').count();
        taken
    }

    /// One variable; false at the end.
    fn next(&mut self) -> Result<bool, DotenvError> {
        self.take(self.rest.len() - self.rest.trim_start().len());
        if self.rest.is_empty() {
            return Ok(false);
        }
        if self.rest.starts_with('#') {
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
            return Ok(true);
        }
        if let Some(after) = self.rest.strip_prefix("export")
            && after.starts_with([' ', '\t'])
        {
            self.take(self.rest.len() - after.trim_start_matches([' ', '\t']).len());
        }
        let end = self.rest.find(['=', ':', '\n']).unwrap_or(self.rest.len());
        let key = self.take(end).trim_end();
        self.check(key)?;
        match self.rest.chars().next() {
            Some('=' | ':') => {
                self.take(1);
                let blank = self.rest.trim_start_matches([' ', '\t']);
                self.take(self.rest.len() - blank.len());
                let value = self.value()?;
                self.add(key, value)?;
            }
            _ => {
                if let Some(value) = (self.lookup)(key) {
                    self.add(key, value)?;
                }
            }
        }
        Ok(true)
    }

    fn add(&mut self, key: &str, value: String) -> Result<(), DotenvError> {
        self.bytes += value.len();
        if self.bytes > LONGEST {
            return Err(self.wrong(format!("the values have more than {LONGEST} bytes")));
        }
        self.last.insert(key.to_owned(), self.found.len());
        self.found.push((key.to_owned(), value));
        Ok(())
    }

    fn check(&self, key: &str) -> Result<(), DotenvError> {
        if key.is_empty() {
            return Err(self.wrong("a name is missing before the ="));
        }
        let allowed = |letter: char| letter.is_alphanumeric() || "_.-[]".contains(letter);
        match key.chars().find(|letter| !allowed(*letter)) {
            None => Ok(()),
            Some(letter) if letter.is_whitespace() => {
                Err(self.wrong(format!("a name cannot have a space: {:?}", short(key))))
            }
            Some(letter) => Err(self.wrong(format!("unexpected {letter:?} in the name {:?}", short(key)))),
        }
    }

    fn value(&mut self) -> Result<String, DotenvError> {
        match self.rest.chars().next() {
            Some('\'') => {
                let inner = &self.rest[1..];
                let end = closing(inner, '\'').ok_or_else(|| self.wrong("a ' has no end"))?;
                self.take(end + 2);
                self.only_a_comment()?;
                Ok(inner[..end].replace("\\'", "'"))
            }
            Some('"') => {
                let inner = &self.rest[1..];
                let end = closing(inner, '"').ok_or_else(|| self.wrong("a \" has no end"))?;
                let text = self.expand(&unescape(&inner[..end]))?;
                self.take(end + 2);
                self.only_a_comment()?;
                Ok(text)
            }
            _ => {
                let line = self.rest.split('\n').next().unwrap_or("");
                let text = without_comment(line).trim_end();
                let text = self.expand(text)?;
                self.take(line.len());
                Ok(text)
            }
        }
    }

    /// After a closing quote.
    fn only_a_comment(&mut self) -> Result<(), DotenvError> {
        let line = self.rest.split('\n').next().unwrap_or("");
        let after = line.trim();
        if !after.is_empty() && !after.starts_with('#') {
            return Err(self.wrong(format!(
                "unexpected text after the closing quote: {:?}",
                short(after)
            )));
        }
        self.take(line.len());
        Ok(())
    }

    fn expand(&self, text: &str) -> Result<String, DotenvError> {
        let known = |name: &str| {
            (self.lookup)(name).or_else(|| {
                let above = self.last.get(name).map(|at| &self.found[*at]);
                above.map(|(_, value)| value.clone())
            })
        };
        substitute(text, &known, &mut BTreeSet::new())
            .map_err(|error: TemplateError| self.wrong(error.to_string()))
    }
}

/// The first quote that no backslash stands before.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return Some(at),
            _ => {}
        }
    }
    None
}

/// The escapes of double quotes; `\$` becomes `$$`, which stays a dollar when variables are put in.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('"') => out.push('"'),
            Some('\\') => out.push('\\'),
            Some('$') => out.push_str("$$"),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

/// The text before a `#` that a blank stands before.
fn without_comment(line: &str) -> &str {
    if line.starts_with('#') {
        return "";
    }
    let mut before = ' ';
    for (at, letter) in line.char_indices() {
        if letter == '#' && (before == ' ' || before == '\t') && at > 0 {
            return &line[..at];
        }
        before = letter;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, DotenvError> {
        parse_dotenv(text, &|name| (name == "HOST").then(|| "box".to_owned()))
    }

    #[test]
    fn every_form_of_a_line_is_read() {
        let text = "\u{feff}# comment\nA=1 # one\nexport B= two\nC: three\nD='$A \\n'\nE=\"$A\\n\\$A\"\nF=\nG=a#b\n\
                    H=\"two\nlines\"\nHOST\nUNKNOWN\nI.j-k[0]=${HOST}-${A:-x}\n  J = 'q' # end\nK=\r\n";
        let found: Vec<String> = read(text)
            .unwrap()
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let expected = [
            "A=1",
            "B=two",
            "C=three",
            "D=$A \\n",
            "E=1\n$A",
            "F=",
            "G=a#b",
            "H=two\nlines",
            "HOST=box",
            "I.j-k[0]=box-1",
            "J=q",
            "K=",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, line) in [
            ("A=1\nB C=2", 2),
            ("A=1\n\n=x", 3),
            ("A='x", 1),
            ("A=\"x\ny", 1),
            ("A=1\nB=${", 2),
            ("A!=1", 1),
            ("A='x' y", 1),
        ] {
            assert_eq!(read(text).map_err(|error| error.line), Err(line), "{text:?}");
        }
    }

    #[test]
    fn raw_files_keep_everything() {
        let found = parse_raw("A='x' # no $B\n# comment\n\nB=\n").unwrap();
        let expected =
            [("A", "'x' # no $B"), ("B", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(found, expected);
        assert_eq!(parse_raw("A=1\nB").map_err(|error| error.line), Err(2));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), lines in "[A-C='\"$ {}#\\\\\n:]{0,60}") {
            let _ = read(&text);
            let _ = read(&lines);
            let _ = parse_raw(&text);
        }

        #[test]
        fn single_quotes_keep_everything(value in "[^'\\\\\r]*") {
            let found = read(&format!("A='{value}'\n"));
            prop_assert_eq!(found, Ok(vec![("A".to_owned(), value)]));
        }
    }
}
