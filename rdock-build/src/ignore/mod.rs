//! `.dockerignore`: which files of the context a build does not see; also the patterns of `--exclude`.
//!
//! Not gitignore's rules: patterns start at the context's root, a trailing slash means nothing, `**` is any number of
//! directories. The last pattern that matches a path or one of its parents decides; `!` lets in again.
mod glob;

pub use glob::Glob;

use std::path::{Path, PathBuf};

/// The patterns of a `.dockerignore` or of `--exclude`, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    glob: Glob,
    /// Written with `!`: lets in again.
    exception: bool,
}

/// A pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: invalid pattern {pattern:?}: {reason}", place = self.place())]
pub struct PatternError {
    /// The file, if there is one.
    pub file: Option<String>,
    /// The line, from 1; or the number of the pattern.
    pub line: usize,
    /// The pattern.
    pub pattern: String,
    /// The rule it breaks.
    pub reason: &'static str,
}

impl PatternError {
    fn place(&self) -> String {
        match &self.file {
            Some(file) => format!("{file}:{}", self.line),
            None => format!("pattern {}", self.line),
        }
    }
}

/// Which patterns match a directory or one of its parents; makes its entries cheap to decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched(Vec<bool>);

/// What becomes of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Is the path left out?
    pub excluded: bool,
    /// What its entries inherit, if it is a directory.
    pub matched: Matched,
}

impl Patterns {
    /// Reads the text of a `.dockerignore`. `file` is what errors call it.
    pub fn parse(file: &str, text: &str) -> Result<Self, PatternError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (line, written) in (1..).zip(text.lines()) {
            if written.starts_with('#') || written.trim().is_empty() {
                continue;
            }
            let pattern = Pattern::parse(written, true).map_err(|reason| PatternError {
                file: Some(file.to_owned()),
                line,
                pattern: written.to_owned(),
                reason,
            })?;
            patterns.push(pattern);
        }
        Ok(Self { patterns })
    }

    /// Reads patterns as `--exclude` has them: a leading slash stays.
    pub fn new<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> Result<Self, PatternError> {
        let mut read = Vec::new();
        for (line, written) in (1..).zip(patterns) {
            let written = written.as_ref();
            if written.trim().is_empty() {
                continue;
            }
            let pattern = Pattern::parse(written, false).map_err(|reason| PatternError {
                file: None,
                line,
                pattern: written.to_owned(),
                reason,
            })?;
            read.push(pattern);
        }
        Ok(Self { patterns: read })
    }

    /// Is there nothing to leave out?
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Is a path left out? The path is relative, with slashes; its parents count too.
    pub fn excludes(&self, path: &str) -> bool {
        if matches!(path, "" | ".") {
            return false;
        }
        let last = self
            .patterns
            .iter()
            .rev()
            .find(|pattern| pattern.glob.matches_or_parent(path));
        last.is_some_and(|pattern| !pattern.exception)
    }

    /// Decides about an entry of a directory, for a walk from the top; [`Matched::default`] is the context's root.
    pub fn decide(&self, path: &str, parent: &Matched) -> Decision {
        let mut excluded = false;
        let matched = (self.patterns.iter().enumerate())
            .map(|(i, pattern)| {
                let inherited = parent.0.get(i).copied().unwrap_or_default();
                let matches = inherited || pattern.glob.matches(path);
                if matches {
                    excluded = !pattern.exception;
                }
                matches
            })
            .collect();
        Decision {
            excluded,
            matched: Matched(matched),
        }
    }

    /// Can a `!` pattern let in something below a directory that is left out? If not, a walk need not enter it.
    pub fn may_include_below(&self, directory: &str) -> bool {
        (self.patterns.iter()).any(|pattern| pattern.exception && pattern.glob.may_match_below(directory))
    }

    /// Returns where the patterns of a build may be, the first that exists counts: `<Dockerfile>.dockerignore` beside
    /// the Dockerfile, then `.dockerignore` in the context.
    pub fn files(dockerfile: &Path, context: &Path) -> [PathBuf; 2] {
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        [own.into(), context.join(".dockerignore")]
    }
}

impl Pattern {
    fn parse(written: &str, root_is_context: bool) -> Result<Self, &'static str> {
        let text = written.trim();
        let (exception, text) = match text.strip_prefix('!') {
            Some(text) => (true, text.trim()),
            None => (false, text),
        };
        if text.is_empty() {
            return Err("'!' needs a pattern");
        }
        let text = clean(text);
        let text = match text.strip_prefix('/') {
            Some(rest) if root_is_context && !rest.is_empty() => rest,
            _ => &text,
        };
        Ok(Self {
            glob: Glob::deep(text)?,
            exception,
        })
    }
}

/// The shortest form of a path: no empty or `.` parts, `..` takes the part before it away.
fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_match_decides_and_parents_count() {
        let patterns = Patterns::parse(
            ".dockerignore",
            "\u{feff}# all\n*\n!src/\n/src/**/*.o\n!src/keep.o\n",
        )
        .unwrap_or_default();
        for (path, excluded) in [
            ("README", true),
            ("src", false),
            ("src/main.c", false),
            ("src/deep/main.o", true),
            ("src/main.o", true),
            ("src/keep.o", false),
            (".", false),
        ] {
            assert_eq!(patterns.excludes(path), excluded, "{path}");
        }
        assert!(patterns.may_include_below("src"));
        assert!(!patterns.may_include_below("target"));
    }

    #[test]
    fn a_walk_enters_only_what_an_exception_can_reach() {
        let patterns = Patterns::parse(".dockerignore", "*\n!a/b/c\n!**/x.txt").unwrap_or_default();
        assert!(patterns.may_include_below("any/where"));
        let patterns = Patterns::parse(".dockerignore", "*\n!a/b/c").unwrap_or_default();
        assert!(patterns.may_include_below("a") && patterns.may_include_below("a/b"));
        assert!(!patterns.may_include_below("b") && !patterns.may_include_below("a/c"));
    }

    #[test]
    fn wrong_patterns_name_file_and_line() {
        let error = Patterns::parse("x.dockerignore", "ok\n!\n").map_err(|error| error.to_string());
        assert_eq!(
            error.err().as_deref(),
            Some("x.dockerignore:2: invalid pattern \"!\": '!' needs a pattern")
        );
        assert!(Patterns::new(["a[b"]).is_err());
    }
}
