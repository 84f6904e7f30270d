//! The proxies that ADD downloads through, and that RUN sees.
use crate::dockerfile::proxies;
use std::collections::BTreeMap;
use std::fmt;

/// Proxies by scheme, as URLs.
#[derive(Clone, Default)]
pub(crate) struct Proxies {
    pub(crate) http: Option<String>,
    pub(crate) https: Option<String>,
    /// Hosts, domains and networks without a proxy, separated by commas.
    pub(crate) none: Option<String>,
}

impl Proxies {
    pub(super) fn from_environment() -> Self {
        let variable = |name: &str| {
            [name.to_lowercase(), name.to_owned()]
                .iter()
                .find_map(|name| std::env::var(name).ok())
        };
        Self::default().over(&variable)
    }

    /// With what build arguments say.
    pub(super) fn with(&self, args: &BTreeMap<String, String>) -> Self {
        let given: BTreeMap<String, String> = proxies(args).into_iter().collect();
        self.over(&|name| given.get(name).cloned())
    }

    /// An empty value is none: it takes a proxy away.
    fn over(&self, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let filled = |value: Option<String>| value.filter(|value| !value.is_empty());
        let all = variable("ALL_PROXY");
        let one = |name: &str, old: &Option<String>| match variable(name).or_else(|| all.clone()) {
            None => old.clone(),
            given => filled(given),
        };
        Self {
            http: one("HTTP_PROXY", &self.http),
            https: one("HTTPS_PROXY", &self.https),
            none: variable("NO_PROXY").map_or_else(|| self.none.clone(), |none| filled(Some(none))),
        }
    }
}

impl fmt::Debug for Proxies {
    /// Their addresses may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("none", &self.none)
            .finish()
    }
}

/// Build arguments that name proxies, unless others do.
#[derive(Clone, Default)]
pub(super) struct Variables(pub(super) BTreeMap<String, String>);

impl Variables {
    /// All build arguments. One of `args` takes the place of both cases of its name.
    pub(super) fn below(&self, args: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let given = |name: &str| args.keys().any(|other| other.eq_ignore_ascii_case(name));
        let mut all = args.clone();
        all.extend(proxies(&self.0).into_iter().filter(|(name, _)| !given(name)));
        all
    }
}

impl fmt::Debug for Variables {
    /// Their values may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_give_way_to_arguments_of_either_case() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let variables = Variables(map(&[
            ("HTTP_PROXY", "secret"),
            ("no_proxy", "here"),
            ("PATH", "ignored"),
        ]));
        assert_eq!(
            variables.below(&map(&[("http_proxy", "given"), ("A", "b")])),
            map(&[
                ("http_proxy", "given"),
                ("A", "b"),
                ("no_proxy", "here"),
                ("NO_PROXY", "here"),
            ])
        );
        assert!(!format!("{variables:?}").contains("secret"));
    }

    #[test]
    fn arguments_count_before_the_environment() {
        let environment = Proxies {
            http: Some("http://environment".to_owned()),
            https: None,
            none: Some("a.example".to_owned()),
        };
        let with = |args: &[(&str, &str)]| {
            let args = args
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let found = environment.with(&args.collect());
            (found.http, found.https, found.none)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(with(&[]), (text("http://environment"), None, text("a.example")));
        assert_eq!(with(&[("http_proxy", "http://b")]).0, text("http://b"));
        assert_eq!(
            with(&[("HTTP_PROXY", "http://a"), ("http_proxy", "http://b")]).0,
            text("http://b")
        );
        assert_eq!(with(&[("HTTP_PROXY", "")]).0, None);
        assert_eq!(with(&[("all_proxy", "http://all")]).1, text("http://all"));
        assert_eq!(with(&[("NO_PROXY", "c")]).2, text("c"));
        assert!(!format!("{:?}", environment).contains("environment"));
    }
}
