//! What goes wrong, and where: every finding names its file, line, column and YAML path.

use std::fmt;
use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where something stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named; `-` is the standard input.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The text of the line, at most 200 characters of it.
    pub text: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// What kind of mistake a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// The text is not YAML (or not UTF-8, or not a line of an environment file).
    Syntax,
    /// A mapping has the same key twice.
    DuplicateKey,
    /// A key that the specification does not have.
    UnknownKey,
    /// A value of another type than the specification's.
    WrongType,
    /// A value of the right type that means nothing.
    BadValue,
    /// Something that must be there is not.
    Missing,
    /// Two things that cannot go together.
    Conflict,
    /// A name that nothing has: a service, a network, a volume, a secret.
    Undefined,
    /// Something that leads back to itself: an alias, `extends`, `include`, `depends_on`.
    Cycle,
    /// More than the limits of the loader allow.
    Limit,
    /// A variable that cannot be filled in.
    Interpolation,
    /// What the policy for untrusted files does not allow.
    Refused,
}

/// One mistake of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of mistake.
    pub kind: FindingKind,
    /// The YAML path (`services.web.ports.0.target`); empty for the whole file.
    pub path: String,
    /// Where it stands; absent for what no file says.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        if let Some(place) = &self.place
            && !place.text.trim().is_empty()
        {
            let number = place.line.to_string();
            write!(f, "\n  {number} | {}", place.text)?;
            if place.column <= 200 {
                let indent: String = place
                    .text
                    .chars()
                    .take(place.column - 1)
                    .map(|letter| if letter == '\t' { '\t' } else { ' ' })
                    .collect();
                write!(f, "\n  {:width$} | {indent}^", "", width = number.len())?;
            }
        }
        Ok(())
    }
}

/// Why a project could not be loaded or planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No file was named, and none of the default names is in the folder or above it.
    #[error("no compose file in {} or any folder above it", dir.display())]
    NoComposeFile {
        /// Where the search began.
        dir: PathBuf,
    },
    /// A file could not be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The files say something that is wrong; at least one finding.
    #[error("{}", list(findings))]
    Invalid {
        /// All mistakes that were found.
        findings: Vec<Finding>,
    },
    /// The project has no usable name.
    #[error("{name:?} is not a project name: {reason}")]
    ProjectName {
        /// The name.
        name: String,
        /// What a name must be.
        reason: &'static str,
    },
    /// A part of the project was named that cannot be chosen.
    #[error(transparent)]
    Select(#[from] SelectError),
}

/// Why services that were named cannot be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// A service was named that the project does not have.
    #[error("no such service: {name}{}", suggestion.as_ref().map(|s| format!(" (did you mean {s:?}?)")).unwrap_or_default())]
    NoSuchService {
        /// The name.
        name: String,
        /// A service with a similar name.
        suggestion: Option<String>,
    },
    /// A named service can only run with one that its profile keeps out.
    #[error(
        "service {service:?} needs {needed:?}, which is disabled; one of its profiles {profiles:?} must be active"
    )]
    Disabled {
        /// The service that needs it.
        service: String,
        /// The service that is not active.
        needed: String,
        /// The profiles that would make it active.
        profiles: Vec<String>,
    },
}

fn list(findings: &[Finding]) -> String {
    let texts: Vec<_> = findings.iter().map(Finding::to_string).collect();
    texts.join("\n")
}

impl Error {
    /// What is wrong with the files, where that is the reason.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Invalid { findings } => findings,
            _ => &[],
        }
    }

    /// What to change, if this machine or the call has to.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoComposeFile { .. } => Some("write a compose.yaml, or name one with -f".to_owned()),
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("relative names are looked up from the project's folder".to_owned())
            }
            _ => None,
        }
    }
}

impl From<Finding> for Error {
    fn from(finding: Finding) -> Self {
        Self::Invalid {
            findings: vec![finding],
        }
    }
}

/// Something that is legal and will not do what it says, or that its author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What kind.
    pub kind: WarningKind,
    /// The YAML path; empty for the whole file or project.
    pub path: String,
    /// Where it stands, if a file says it.
    pub place: Option<Place>,
    /// What to know.
    pub message: String,
}

/// What kind of thing a [`Warning`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WarningKind {
    /// A variable was replaced by nothing.
    UnsetVariable,
    /// A key that is no longer used.
    Obsolete,
    /// Two files with default names are there; the first is used.
    SeveralFiles,
    /// An attribute that has no meaning on this platform, and why.
    NoMeaning,
    /// A boolean that YAML 1.2 reads as text.
    OldBoolean,
    /// A file that may be missing is missing.
    MissingFile,
    /// A service that may be missing is missing or disabled.
    OptionalDependency,
    /// Containers of services that the files no longer have.
    Orphans,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// The known name that is nearest to one that is not known, if one is near.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    known
        .map(|other| (distance(name, other), other))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, other)| other)
}

/// Edits between two names: insertions, deletions, replacements, and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_finds_its_neighbour() {
        let known = ["image", "init", "environment", "ports"];
        for (text, expected) in [
            ("imgae", Some("image")),
            ("enviroment", Some("environment")),
            ("port", Some("ports")),
            ("xyzzy", None),
        ] {
            assert_eq!(nearest(text, known.into_iter()), expected, "{text}");
        }
    }

    #[test]
    fn a_finding_shows_its_line() {
        let finding = Finding {
            kind: FindingKind::UnknownKey,
            path: "services.web.imgae".to_owned(),
            place: Some(Place {
                file: "compose.yaml".into(),
                line: 3,
                column: 5,
                text: "    imgae: x".to_owned(),
            }),
            message: "unknown key".to_owned(),
            hint: Some("did you mean \"image\"?".to_owned()),
        };
        assert_eq!(
            finding.to_string(),
            "compose.yaml:3:5: services.web.imgae: unknown key (did you mean \"image\"?)\n  3 |     imgae: x\n    |     ^"
        );
    }
}
