//! Variables and quotes in the words of a Dockerfile, in the manner of a POSIX shell.
//!
//! `$x`, `${x}`, `${x:-word}`, `${x-word}`, `${x:+word}`, `${x+word}`, `${x:?text}`, `${x?text}`, `${x#p}`,
//! `${x##p}`, `${x%p}`, `${x%%p}`, `${x/p/r}`, `${x//p/r}`. Patterns know `*` and `?` alone.
use super::pattern::Pattern;
use std::collections::{BTreeMap, BTreeSet};

/// How deep `${a:-${b:-...}}` may nest.
const DEPTH: usize = 64;
/// The longest text a word may become, in bytes, beyond its own length. The kernel takes no variable above half of it.
const LONGEST: usize = 1 << 18;

/// Where variables come from.
pub trait Variables {
    /// Returns the value of a variable.
    fn value(&self, name: &str) -> Option<&str>;
}

/// No variables.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl Variables for Nothing {
    fn value(&self, _: &str) -> Option<&str> {
        None
    }
}

impl Variables for BTreeMap<String, String> {
    fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// Expands variables and removes quotes.
#[derive(Clone, Copy, Debug)]
pub struct Lexer {
    escape: char,
    keep_quotes: bool,
    keep_escapes: bool,
    keep_unset: bool,
    plain_quotes: bool,
}

/// A word after expansion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The word.
    pub text: String,
    /// Variables it used.
    pub matched: BTreeSet<String>,
    /// Variables it named that are not set.
    pub unmatched: BTreeSet<String>,
}

impl Lexer {
    /// Makes a lexer with an escape character: `\`, or what `# escape=` says.
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            keep_quotes: false,
            keep_escapes: false,
            keep_unset: false,
            plain_quotes: false,
        }
    }

    /// Leaves quotes in the result.
    pub fn keep_quotes(mut self, keep: bool) -> Self {
        self.keep_quotes = keep;
        self
    }

    /// Leaves escape characters in the result.
    pub fn keep_escapes(mut self, keep: bool) -> Self {
        self.keep_escapes = keep;
        self
    }

    /// Leaves variables that are not set as they are written.
    pub fn keep_unset(mut self, keep: bool) -> Self {
        self.keep_unset = keep;
        self
    }

    /// Takes quotes as plain characters, as in a here-document.
    pub fn plain_quotes(mut self, plain: bool) -> Self {
        self.plain_quotes = plain;
        self
    }

    /// Expands a text that stays one word. The error is the rule that the text breaks.
    pub fn word(&self, text: &str, variables: &dyn Variables) -> Result<Expanded, String> {
        let mut run = Run::new(*self, text, variables);
        let text = run.until(None, self.keep_escapes, &mut Words::default())?;
        Ok(Expanded {
            text,
            matched: run.matched,
            unmatched: run.unmatched,
        })
    }

    /// Expands a text and splits it at blanks that are not quoted, also at those from variables.
    pub fn words(&self, text: &str, variables: &dyn Variables) -> Result<Vec<String>, String> {
        let mut words = Words::default();
        Run::new(*self, text, variables).until(None, self.keep_escapes, &mut words)?;
        words.end();
        Ok(words.done)
    }
}

/// The words found so far.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
    inside: bool,
}

impl Words {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.push_quoted(c);
        } else if self.inside && !self.current.is_empty() {
            self.end();
        }
    }

    fn push_quoted(&mut self, c: char) {
        self.current.push(c);
        self.inside = true;
    }

    fn end(&mut self) {
        if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
        self.inside = false;
    }
}

/// One expansion.
struct Run<'a> {
    lexer: Lexer,
    variables: &'a dyn Variables,
    rest: std::str::Chars<'a>,
    depth: usize,
    /// How many bytes may still be made.
    budget: usize,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

const NO_BRACE: &str = "syntax error: a '}' is missing";

impl<'a> Run<'a> {
    fn new(lexer: Lexer, text: &'a str, variables: &'a dyn Variables) -> Self {
        Self {
            lexer,
            variables,
            rest: text.chars(),
            depth: 0,
            budget: LONGEST + text.len(),
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next(&mut self) -> Option<char> {
        self.rest.next()
    }

    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        self.budget = (self.budget.checked_sub(bytes))
            .ok_or_else(|| format!("the result is longer than {LONGEST} bytes"))?;
        Ok(())
    }

    /// Expands up to `stop`, which is taken, or to the end.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool, words: &mut Words) -> Result<String, String> {
        let mut result = String::new();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                return Ok(result);
            }
            match c {
                '$' => {
                    let text = self.dollar()?;
                    self.spend(text.len())?;
                    text.chars().for_each(|c| words.push(c));
                    result.push_str(&text);
                }
                '<' => self.angle(&mut result, words),
                '\'' if !self.lexer.plain_quotes => self.single_quoted(&mut result, words)?,
                '"' if !self.lexer.plain_quotes => self.double_quoted(keep_escapes, &mut result, words)?,
                c if c == self.lexer.escape => {
                    self.next();
                    if keep_escapes {
                        words.push_quoted(c);
                        result.push(c);
                    }
                    // At the very end it is dropped.
                    let Some(c) = self.next() else { break };
                    words.push_quoted(c);
                    result.push(c);
                }
                c => {
                    self.next();
                    words.push(c);
                    result.push(c);
                }
            }
        }
        match stop {
            Some(stop) => Err(format!("the text ends before the closing {stop:?}")),
            None => Ok(result),
        }
    }

    /// `<<` and the blanks behind it belong to one word: it may open a here-document.
    fn angle(&mut self, result: &mut String, words: &mut Words) {
        let from = result.len();
        self.next();
        result.push('<');
        if self.peek() == Some('<') {
            self.next();
            result.push('<');
            while let Some(c @ (' ' | '\t' | '\r')) = self.peek() {
                self.next();
                result.push(c);
            }
        }
        result[from..].chars().for_each(|c| words.push_quoted(c));
    }

    fn single_quoted(&mut self, result: &mut String, words: &mut Words) -> Result<(), String> {
        let from = result.len();
        let quote = self.next();
        result.extend(quote.filter(|_| self.lexer.keep_quotes));
        loop {
            match self.next() {
                None => return Err("a single quote is not closed".to_owned()),
                Some('\'') => break,
                Some(c) => result.push(c),
            }
        }
        result.extend(quote.filter(|_| self.lexer.keep_quotes));
        words.inside = true;
        words.current.push_str(&result[from..]);
        Ok(())
    }

    fn double_quoted(
        &mut self,
        keep_escapes: bool,
        result: &mut String,
        words: &mut Words,
    ) -> Result<(), String> {
        let from = result.len();
        let quote = self.next();
        result.extend(quote.filter(|_| self.lexer.keep_quotes));
        loop {
            match self.peek() {
                None => return Err("a double quote is not closed".to_owned()),
                Some('"') => break,
                Some('$') => {
                    let text = self.dollar()?;
                    self.spend(text.len())?;
                    result.push_str(&text);
                }
                Some(c) => {
                    self.next();
                    if c != self.lexer.escape {
                        result.push(c);
                        continue;
                    }
                    if keep_escapes {
                        result.push(c);
                    }
                    match self.peek() {
                        None => {}
                        // Only these can be escaped; before others the escape character stays.
                        Some(next) if matches!(next, '"' | '$') || next == c => {
                            self.next();
                            result.push(next);
                        }
                        Some(_) if !keep_escapes => result.push(c),
                        Some(_) => {}
                    }
                }
            }
        }
        self.next();
        result.extend(quote.filter(|_| self.lexer.keep_quotes));
        words.inside = true;
        words.current.push_str(&result[from..]);
        Ok(())
    }

    /// A variable's name; a digit reads digits alone, a special parameter is one character.
    fn name(&mut self) -> String {
        let mut name = String::new();
        if self.peek().is_some_and(|c| c.is_ascii_digit()) {
            while let Some(c) = self.peek().filter(char::is_ascii_digit) {
                self.next();
                name.push(c);
            }
            return name;
        }
        if let Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) = self.peek() {
            self.next();
            return c.to_string();
        }
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
            self.next();
            name.push(c);
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<&'a str> {
        let value = self.variables.value(name);
        let names = match value {
            Some(_) => &mut self.matched,
            None => &mut self.unmatched,
        };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        value
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(match name.is_empty() {
                true => "$".to_owned(),
                false => match self.value(&name) {
                    Some(value) => value.to_owned(),
                    None if self.lexer.keep_unset => format!("${name}"),
                    None => String::new(),
                },
            });
        }
        self.next();
        match self.peek() {
            None => return Err(NO_BRACE.to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("${{...}} nests deeper than {DEPTH}"));
        }
        let result = self.braces();
        self.depth -= 1;
        result
    }

    /// What stands between `${` and `}`, which is taken too.
    fn braces(&mut self) -> Result<String, String> {
        let name = self.name();
        let operator = self.next();
        let (colon, operator) = match operator {
            Some(':') => (true, self.next()),
            other => (false, other),
        };
        let written = |operator: char| format!("{}{operator}", if colon { ":" } else { "" });
        let unsupported =
            |operator: char| format!("unsupported modifier {:?} in ${{...}}", written(operator));
        match operator {
            None => Err(NO_BRACE.to_owned()),
            Some('}') if !colon => Ok(match self.value(&name) {
                Some(value) => value.to_owned(),
                None if self.lexer.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some('/') if !colon => self.replacement(&name),
            Some(operator @ ('#' | '%')) if colon => Err(unsupported(operator)),
            Some(operator @ ('+' | '-' | '?' | '#' | '%')) => {
                let word = self.until_or_missing('}', matches!(operator, '#' | '%'), NO_BRACE)?;
                let value = self.value(&name);
                if value.is_none() && self.lexer.keep_unset {
                    return Ok(format!("${{{name}{}{word}}}", written(operator)));
                }
                let usable = value.filter(|value| !(colon && value.is_empty()));
                match operator {
                    '-' => Ok(usable.map_or(word, str::to_owned)),
                    '+' => Ok(usable.map_or(String::new(), |_| word)),
                    '?' => match (usable, word.is_empty()) {
                        (Some(value), _) => Ok(value.to_owned()),
                        (None, false) => Err(format!("{name}: {word}")),
                        (None, true) if value.is_none() => Err(format!("{name} must be set")),
                        (None, true) => Err(format!("{name} must not be empty")),
                    },
                    _ => trim(operator, &word, value.unwrap_or_default()),
                }
            }
            Some(operator) => Err(unsupported(operator)),
        }
    }

    /// `${name/pattern/replacement}` and `${name//pattern/replacement}`, from behind the first `/`.
    fn replacement(&mut self, name: &str) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.until_or_missing('/', true, "syntax error: a '/' is missing in ${...}")?;
        let replacement = self.until_or_missing('}', true, NO_BRACE)?;
        let value = self.value(name);
        if value.is_none() && self.lexer.keep_unset {
            let slashes = if all { "//" } else { "/" };
            return Ok(format!("${{{name}{slashes}{pattern}/{replacement}}}"));
        }
        let compiled = Pattern::parse(&pattern)?;
        let room = self.budget;
        compiled.replace(value.unwrap_or_default(), &replacement, all, room)
    }

    fn until_or_missing(&mut self, stop: char, keep_escapes: bool, missing: &str) -> Result<String, String> {
        self.until(Some(stop), keep_escapes, &mut Words::default())
            .map_err(|error| match self.peek() {
                None => missing.to_owned(),
                Some(_) => error,
            })
    }
}

/// `#`, `##`, `%`, `%%`: the second character is the word's first.
fn trim(operator: char, word: &str, value: &str) -> Result<String, String> {
    let (longest, word) = match word.strip_prefix(operator) {
        Some(word) => (true, word),
        None => (false, word),
    };
    let pattern = Pattern::parse(word)?;
    match operator {
        '#' => pattern.trim_start(value, longest),
        _ => pattern.trim_end(value, longest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, String> {
        let variables: BTreeMap<String, String> = [("A", "a/b/c.tar.gz"), ("EMPTY", ""), ("TWO", "x  y")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        Lexer::new('\\')
            .word(text, &variables)
            .map(|expanded| expanded.text)
    }

    #[test]
    fn a_word_is_expanded_in_every_form() {
        for (text, expected) in [
            ("$A", "a/b/c.tar.gz"),
            ("${A##*/}", "c.tar.gz"),
            ("${A#*/}", "b/c.tar.gz"),
            ("${A%%.*}", "a/b/c"),
            ("${A%.*}", "a/b/c.tar"),
            ("${A/b/B}", "a/B/c.tar.gz"),
            ("${A//\\//-}", "a-b-c.tar.gz"),
            ("${EMPTY:-word}${EMPTY-word}${NONE-word}", "wordword"),
            ("${EMPTY:+word}${EMPTY+word}", "word"),
            ("'$A'\"$EMPTY\"\\$A", "$A$A"),
            ("\"\\a\\\\\"", "\\a\\"),
            ("$", "$"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "${A",
            "${}",
            "${:x}",
            "${NONE:?}",
            "${EMPTY:?no}",
            "'",
            "\"",
            "${A:#x}",
            "${A=x}",
        ] {
            assert!(expand(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nesting_and_growth_are_bounded() {
        let deep = format!("{}x{}", "${N:-".repeat(100_000), "}".repeat(100_000));
        assert!(expand(&deep).is_err());
        let big: BTreeMap<String, String> = [("B".to_owned(), "b".repeat(1 << 17))].into();
        let text = "$B".repeat(1000);
        assert!(Lexer::new('\\').word(&text, &big).is_err());
    }
}
