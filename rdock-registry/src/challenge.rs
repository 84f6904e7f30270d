//! The WWW-Authenticate header (RFC 9110, section 11.6.1).

/// One challenge: a scheme and its parameters, names and scheme in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) scheme: String,
    pub(crate) parameters: Vec<(String, String)>,
}

impl Challenge {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Parses one header value, which may hold several challenges; `None` when it is malformed.
pub(crate) fn parse(header: &str) -> Option<Vec<Challenge>> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if rest.is_empty() {
            break;
        }
        let (word, after) = token(rest)?;
        let spaced = after.trim_start();
        if let Some(value) = spaced.strip_prefix('=') {
            let (value, after) = self::value(value.trim_start())?;
            challenges
                .last_mut()?
                .parameters
                .push((word.to_ascii_lowercase(), value));
            let after = after.trim_start();
            if !after.is_empty() && !after.starts_with(',') {
                return None;
            }
            rest = after;
        } else {
            challenges.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                parameters: Vec::new(),
            });
            rest = spaced;
        }
    }
    Some(challenges)
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
        let found = parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
        );
        let found = found.expect("well-formed");
        assert_eq!(found[0].get("scope"), Some("repository:a/b:pull,push"));
        let found = parse(r#"Basic realm="a \"quoted\" one", Bearer realm=https://x/t"#).expect("two");
        assert_eq!(
            (found.len(), found[0].get("realm")),
            (2, Some("a \"quoted\" one"))
        );
        assert_eq!(found[1].get("realm"), Some("https://x/t"));
    }

    #[test]
    fn malformed_challenges_are_refused() {
        for text in [r#"Bearer realm="open"#, "=x", r#"Bearer realm="a" b"#] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
