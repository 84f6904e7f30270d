//! The WWW-Authenticate header (RFC 9110, section 11.6.1).

/// One challenge of a server that wants to know who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Challenge {
    /// In lower case: `basic`, `bearer`.
    pub scheme: String,
    /// In the header's order, names in lower case.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Returns a parameter by its name in lower case; the first of equals.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Parses one header value, which may hold several challenges; `None` when it is malformed.
    pub fn parse(header: &str) -> Option<Vec<Self>> {
        let mut challenges: Vec<Self> = Vec::new();
        let mut rest = header.trim_start();
        while !rest.is_empty() {
            rest = rest.trim_start_matches([',', ' ', '\t']);
            if rest.is_empty() {
                break;
            }
            let (word, after) = token(rest)?;
            let spaced = after.trim_start();
            if let Some(text) = spaced.strip_prefix('=') {
                let (text, after) = value(text.trim_start())?;
                challenges
                    .last_mut()?
                    .parameters
                    .push((word.to_ascii_lowercase(), text));
                let after = after.trim_start();
                if !after.is_empty() && !after.starts_with(',') {
                    return None;
                }
                rest = after;
            } else {
                challenges.push(Self {
                    scheme: word.to_ascii_lowercase(),
                    parameters: Vec::new(),
                });
                rest = spaced;
            }
        }
        Some(challenges)
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_as_registries_write_them() {
        let found = Challenge::parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
        );
        let found = found.expect("well-formed");
        assert_eq!(found[0].get("scope"), Some("repository:a/b:pull,push"));
        let found =
            Challenge::parse(r#"Basic realm="a \"quoted\" one", Bearer realm=https://x/t"#).expect("two");
        assert_eq!(
            (found.len(), found[0].get("realm")),
            (2, Some("a \"quoted\" one"))
        );
        assert_eq!(found[1].get("realm"), Some("https://x/t"));
    }

    #[test]
    fn malformed_challenges_are_refused() {
        for text in [r#"Bearer realm="open"#, "=x", r#"Bearer realm="a" b"#] {
            assert!(Challenge::parse(text).is_none(), "{text}");
        }
    }
}
