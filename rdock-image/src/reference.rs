//! References: the names of images, in Docker's grammar (the distribution project's `reference` rules).
use crate::{Digest, Error, Result};
use std::fmt;
use std::str::FromStr;

const DEFAULT_DOMAIN: &str = "docker.io";
/// An older name of the default domain, still accepted.
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const PATH_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// The full name of an image: `docker.io/library/busybox:latest`.
///
/// Always normalised: it has a domain, a path, and a tag or a digest or both.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    text: String,
    domain: usize,
    path: usize,
    tag: Option<usize>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses a name as a user writes it: Docker's short forms are filled in, and `:latest` when neither tag nor
    /// digest is given.
    pub fn parse(text: &str) -> Result<Self> {
        ReferenceParts::normalized(text).map(Self::from_normalized)
    }

    /// `parts` has a domain.
    fn from_normalized(mut parts: ReferenceParts) -> Self {
        if parts.tag.is_none() && parts.digest.is_none() {
            parts.tag = Some(DEFAULT_TAG.to_owned());
        }
        let domain = parts.domain.as_ref().map_or(0, String::len);
        Self {
            domain,
            path: domain + 1 + parts.path.len(),
            tag: parts.tag.as_ref().map(String::len),
            text: parts.to_string(),
            digest: parts.digest,
        }
    }

    /// Returns the registry's host and port: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.text[..self.domain]
    }

    /// Returns the repository within the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.text[self.domain + 1..self.path]
    }

    /// Returns domain and path: `docker.io/library/busybox`.
    pub fn name(&self) -> &str {
        &self.text[..self.path]
    }

    /// Returns the tag; `None` when only a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag
            .map(|length| &self.text[self.path + 1..self.path + 1 + length])
    }

    /// Returns the digest, of a manifest or index; it decides when a tag is given as well.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the whole normalised text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the name as docker prints it: `busybox:1.35`.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), &self.text[self.path..])
    }

    /// Returns domain and path as docker prints them: `busybox`.
    pub fn familiar_name(&self) -> &str {
        if self.domain() == DEFAULT_DOMAIN {
            let path = self.path();
            match path.strip_prefix(OFFICIAL) {
                Some(rest) if !rest.contains('/') => rest,
                _ => path,
            }
        } else {
            self.name()
        }
    }

    /// Returns the name under which the store keeps it: a digest makes the tag meaningless, so it is dropped.
    pub fn canonical(&self) -> Self {
        match (&self.digest, self.tag) {
            (Some(digest), Some(_)) => Self {
                text: format!("{}@{digest}", self.name()),
                domain: self.domain,
                path: self.path,
                tag: None,
                digest: Some(digest.clone()),
            },
            _ => self.clone(),
        }
    }

    /// Returns the same repository with another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        Self::parse(&format!("{}:{tag}", self.name()))
    }

    /// Returns the same repository, pinned to `digest`.
    pub fn with_digest(&self, digest: &Digest) -> Self {
        Self {
            text: format!("{}@{digest}", self.name()),
            domain: self.domain,
            path: self.path,
            tag: None,
            digest: Some(digest.clone()),
        }
    }

    /// Says whether the name as docker prints it matches a shell pattern (`*`, `?`, `[..]`; `/` only matches
    /// itself), with or without its tag.
    pub fn matches(&self, pattern: &str) -> bool {
        glob(pattern.as_bytes(), self.familiar().as_bytes())
            || glob(pattern.as_bytes(), self.familiar_name().as_bytes())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// The parts of a reference as written, before anything is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceParts {
    /// Host and port.
    pub domain: Option<String>,
    /// Repository.
    pub path: String,
    /// Tag.
    pub tag: Option<String>,
    /// Digest.
    pub digest: Option<Digest>,
}

impl ReferenceParts {
    /// Parses the bare grammar: nothing is added. What stands before the first `/` is the domain when it can be
    /// one.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |reason| Error::InvalidReference {
            text: text.chars().take(300).collect(),
            reason,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(Digest::parse(digest).map_err(|_| invalid("what follows '@' is not a digest"))?),
            ),
            None => (text, None),
        };
        let (domain, rest) = match rest.split_once('/') {
            Some((first, rest)) if is_domain(first) => (Some(first.to_owned()), rest),
            _ => (None, rest),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => {
                if !is_tag(tag) {
                    return Err(invalid("a tag is 1 to 128 letters, digits, '_', '.', '-'"));
                }
                (path, Some(tag.to_owned()))
            }
            None => (rest, None),
        };
        if path.is_empty() {
            return Err(invalid("the repository name is empty"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid("a repository name is lower case"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(invalid(
                "a repository name is made of a-z, 0-9 and single separators '.', '_', '__', '-'",
            ));
        }
        if path.len() > PATH_MAX {
            return Err(invalid("a repository name has at most 255 characters"));
        }
        Ok(Self {
            domain,
            path: path.to_owned(),
            tag,
            digest,
        })
    }

    /// Parses with Docker's short forms: `docker.io` and `library/` are filled in, tag and digest are not.
    pub fn normalized(text: &str) -> Result<Self> {
        let invalid = |reason| Error::InvalidReference {
            text: text.chars().take(300).collect(),
            reason,
        };
        if is_identifier(text) {
            return Err(invalid("64 hexadecimal digits are an image id"));
        }
        let (domain, rest) = match text.split_once('/') {
            Some((first, rest))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.bytes().any(|b| b.is_ascii_uppercase()) =>
            {
                (first, rest)
            }
            _ => (DEFAULT_DOMAIN, text),
        };
        let domain = if domain == LEGACY_DOMAIN {
            DEFAULT_DOMAIN
        } else {
            domain
        };
        let official = domain == DEFAULT_DOMAIN && !rest.contains('/');
        let full = format!("{domain}/{}{rest}", if official { OFFICIAL } else { "" });
        // The user's own words belong in the error, not the filled-in ones.
        let parts = Self::parse(&full).map_err(|error| match error {
            Error::InvalidReference { reason, .. } => invalid(reason),
            other => other,
        })?;
        if parts.domain.as_deref() != Some(domain) {
            return Err(invalid("what stands before the first '/' is not a host name"));
        }
        Ok(parts)
    }

    /// Returns domain (if any) and path.
    pub fn name(&self) -> String {
        match &self.domain {
            Some(domain) => format!("{domain}/{}", self.path),
            None => self.path.clone(),
        }
    }
}

impl fmt::Display for ReferenceParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl From<ReferenceParts> for Reference {
    /// Fills in what is missing; `docker.io` where there is no domain.
    fn from(mut parts: ReferenceParts) -> Self {
        if parts.domain.is_none() {
            let official = if parts.path.contains('/') { "" } else { OFFICIAL };
            parts.path.insert_str(0, official);
            parts.domain = Some(DEFAULT_DOMAIN.to_owned());
        }
        Self::from_normalized(parts)
    }
}

/// Says whether `text` is a registry's host name or address, with or without a port.
pub fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, after)) = rest.split_once(']') else {
                return false;
            };
            let good = |b: u8| b.is_ascii_hexdigit() || b == b':';
            if address.is_empty() || !address.bytes().all(good) {
                return false;
            }
            match after.strip_prefix(':') {
                Some(port) => ("", Some(port)),
                None if after.is_empty() => ("", None),
                None => return false,
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    (text.starts_with('[') || host.split('.').all(label)) && port.is_none_or(digits)
}

/// Says whether `text` is a full image id: 64 lower-case hexadecimal digits.
pub fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Says whether `text` may be the annotation `org.opencontainers.image.ref.name` of an OCI layout: runs of letters
/// and digits, separated by one of `-._:@+/` or by `--` (OCI image specification, annotations.md).
pub fn is_ref_name(text: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
    let component = |part: &str| {
        part.replace("--", "-")
            .split(['-', '.', '_', ':', '@', '+'])
            .all(word)
    };
    text.split('/').all(component)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= TAG_MAX
        && bytes.first().is_some_and(|&b| word(b))
        && bytes.iter().all(|&b| word(b) || matches!(b, b'.' | b'-'))
}

/// Runs of `[a-z0-9]`, separated by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9');
    let mut rest = text;
    loop {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if after.len() == rest.len() {
            return false;
        }
        if after.is_empty() {
            return true;
        }
        let end = after.bytes().position(alphanumeric).unwrap_or(after.len());
        let separator = &after[..end];
        if !matches!(separator, "." | "_" | "__") && !separator.bytes().all(|b| b == b'-') {
            return false;
        }
        rest = &after[end..];
    }
}

/// Shell pattern matching within path components.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => {
            let reach = text.iter().position(|&b| b == b'/').unwrap_or(text.len());
            (0..=reach).any(|skip| glob(rest, &text[skip..]))
        }
        Some((b'?', rest)) => text
            .split_first()
            .is_some_and(|(&c, text)| c != b'/' && glob(rest, text)),
        Some((b'[', rest)) => {
            let Some(end) = rest.iter().skip(1).position(|&b| b == b']').map(|at| at + 1) else {
                return false;
            };
            let (negated, set) = match &rest[..end] {
                [b'^', set @ ..] => (true, set),
                set => (false, set),
            };
            let Some((&c, text)) = text.split_first() else {
                return false;
            };
            let mut found = false;
            let mut at = 0;
            while at < set.len() {
                if at + 2 < set.len() && set[at + 1] == b'-' {
                    found |= (set[at]..=set[at + 2]).contains(&c);
                    at += 3;
                } else {
                    found |= set[at] == c;
                    at += 1;
                }
            }
            c != b'/' && found != negated && glob(&rest[end + 1..], text)
        }
        Some((b'\\', [literal, rest @ ..])) => text
            .split_first()
            .is_some_and(|(c, text)| c == literal && glob(rest, text)),
        Some((literal, rest)) => text
            .split_first()
            .is_some_and(|(c, text)| c == literal && glob(rest, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_forms_are_filled_in() {
        let reference = Reference::parse("busybox").unwrap();
        assert_eq!(reference.to_string(), "docker.io/library/busybox:latest");
        assert_eq!(reference.familiar(), "busybox:latest");
        assert_eq!(
            (reference.domain(), reference.path()),
            ("docker.io", "library/busybox")
        );
        let reference = Reference::parse("localhost:5000/a/b:c").unwrap();
        assert_eq!(
            (reference.domain(), reference.path(), reference.tag()),
            ("localhost:5000", "a/b", Some("c"))
        );
        assert_eq!(reference.familiar(), "localhost:5000/a/b:c");
    }

    #[test]
    fn a_digest_outranks_a_tag_in_the_store() {
        let digest = Digest::sha256_of(b"x");
        let reference = Reference::parse(&format!("busybox:1.35@{digest}")).unwrap();
        assert_eq!(reference.tag(), Some("1.35"));
        assert_eq!(reference.digest(), Some(&digest));
        assert_eq!(
            reference.canonical().to_string(),
            format!("docker.io/library/busybox@{digest}")
        );
        assert_eq!(reference.with_digest(&digest), reference.canonical());
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for bad in [
            "",
            "A",
            "a:",
            ":b",
            "a@b",
            "a/../b",
            "a//b",
            "-a",
            "a/-b",
            "a b",
            "a:b c",
            "http://a/b",
            "a\n",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_printing_parses_again(text in "\\PC{0,60}|[a-zA-Z0-9:/@._-]{0,60}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(reference.as_str()).unwrap(), reference.clone());
                prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
            }
        }
    }
}
