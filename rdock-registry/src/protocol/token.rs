//! The documents of token servers, and the scopes that they are asked for.

use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// Docker's token protocol: how long a token lasts at least, and when nothing is said.
const SHORTEST: Duration = Duration::from_secs(60);

/// The answer of a token server (distribution specification's token authentication; OAuth 2).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// What is sent as `Authorization: Bearer`.
    pub text: String,
    /// From when it was issued; a minute at least.
    pub lasts: Duration,
    /// When the server says that it was issued, as written (RFC 3339).
    pub issued_at: Option<String>,
    /// A token for further tokens, where one was asked for.
    pub refresh_token: Option<String>,
}

impl fmt::Debug for Token {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("lasts", &self.lasts)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Document {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
    issued_at: Option<String>,
    refresh_token: Option<String>,
}

impl Token {
    /// Parses the document.
    ///
    /// # Errors
    /// Why it is not one. The text never repeats the document, which may hold a secret.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(body)
            .map_err(|error| format!("no token at line {} column {}", error.line(), error.column()))?;
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(Self {
            text: filled(document.token)
                .or(filled(document.access_token))
                .ok_or("no token in it")?,
            lasts: document
                .expires_in
                .map_or(SHORTEST, Duration::from_secs)
                .max(SHORTEST),
            issued_at: document.issued_at,
            refresh_token: filled(document.refresh_token),
        })
    }
}

/// The scope of a repository: pulling, or pulling and pushing.
pub fn repository_scope(repository: &str, push: bool) -> String {
    let actions = if push { "pull,push" } else { "pull" };
    format!("repository:{repository}:{actions}")
}

/// Scopes of both lists, sorted; actions for one resource are joined.
pub fn merge_scopes<'a>(
    wanted: impl IntoIterator<Item = &'a str>,
    common: impl IntoIterator<Item = &'a str>,
) -> Vec<String> {
    let mut merged: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    let mut whole = Vec::new();
    for scope in wanted.into_iter().chain(common).filter(|scope| !scope.is_empty()) {
        match scope.rsplit_once(':') {
            Some((resource, actions)) => merged
                .entry(resource.to_owned())
                .or_default()
                .extend(actions.split(',').map(str::to_owned)),
            None => whole.push(scope.to_owned()),
        }
    }
    let joined = merged.into_iter().map(|(resource, mut actions)| {
        actions.sort();
        actions.dedup();
        format!("{resource}:{}", actions.join(","))
    });
    whole.extend(joined);
    whole.sort();
    whole.dedup();
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_have_either_name_and_last_a_minute_at_least() {
        let token = Token::parse(br#"{"token":"a","expires_in":1}"#).expect("token");
        assert_eq!((token.text.as_str(), token.lasts), ("a", SHORTEST));
        let token = Token::parse(br#"{"token":"","access_token":"b","expires_in":300}"#).expect("token");
        assert_eq!((token.text.as_str(), token.lasts.as_secs()), ("b", 300));
        for wrong in ["", "{}", r#"{"token":""}"#, r#"{"token":5}"#] {
            assert!(Token::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(!format!("{token:?}").contains('b'));
    }

    #[test]
    fn scopes_are_joined() {
        let merged = merge_scopes(["repository:b:pull", "repository:a:push"], ["repository:a:pull"]);
        assert_eq!(merged, ["repository:a:pull,push", "repository:b:pull"]);
    }

    proptest! {
        #[test]
        fn foreign_documents_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            Token::parse(&body).ok();
        }
    }
}
