//! `registries.conf`, version 2 (containers-registries.conf(5)): where the images of a name really are.

use super::hosts::HostOptions;
use crate::error::{Error, Result};
use crate::protocol::is_loopback;
use crate::protocol::{Schemes, schemes};
use rdock_image::Reference;
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;

/// Mirrors, rewritten locations, insecure and blocked registries.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RegistriesConf {
    registry: Vec<Registry>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Registry {
    prefix: Option<String>,
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    insecure: bool,
    /// `all`, `digest-only` or `tag-only`.
    pull_from_mirror: Option<String>,
}

/// One place to ask for an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `host[:port]`.
    pub(crate) host: String,
    pub(crate) repository: String,
    /// Plain http and unknown certificates are fine.
    pub(crate) insecure: bool,
    /// This is the registry that the name means, not a mirror of it.
    pub(crate) stands_for_name: bool,
    /// What hosts.toml says of it.
    pub(crate) options: Option<Arc<HostOptions>>,
}

impl Endpoint {
    fn new(location: &str, insecure: bool) -> Self {
        let (host, repository) = location.split_once('/').unwrap_or((location, ""));
        // Docker Hub's registry has another name than its images.
        let host = if host == "docker.io" {
            "registry-1.docker.io"
        } else {
            host
        };
        let insecure = insecure || is_loopback(host);
        Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            insecure,
            ..Self::default()
        }
    }

    fn own(location: &str, insecure: bool) -> Self {
        Self {
            stands_for_name: true,
            ..Self::new(location, insecure)
        }
    }

    /// The host without its port.
    pub(crate) fn name(&self) -> Option<&str> {
        let end = self.host.rfind(']').map_or(0, |at| at + 1);
        let port = self.host[end..].find(':').map_or(self.host.len(), |at| end + at);
        Some(&self.host[..port]).filter(|name| !name.is_empty())
    }

    /// Which schemes the host is tried with.
    pub(crate) fn schemes(&self) -> Schemes {
        match &self.options {
            Some(options) => options.schemes,
            None => schemes(&self.host, self.insecure),
        }
    }
}

impl RegistriesConf {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Config`] when it is missing or malformed; version 1 is malformed.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Config {
            path: path.to_owned(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.into()))?;
        Self::parse(&text).map_err(|error| failed(error.into()))
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Trusts a registry without TLS or with an unknown certificate.
    pub fn set_insecure(&mut self, host: &str) {
        let location = Some(host.to_owned());
        self.registry.push(Registry {
            location,
            insecure: true,
            ..Registry::default()
        });
    }

    /// Asks `mirror` (`host[:port][/path]`) before `registry`.
    pub fn add_mirror(&mut self, registry: &str, mirror: &str, insecure: bool) {
        let mirror = Mirror {
            location: mirror.to_owned(),
            insecure,
            pull_from_mirror: None,
        };
        match self.registry.iter_mut().find(|entry| entry.prefix() == registry) {
            Some(entry) => entry.mirror.push(mirror),
            None => {
                let location = Some(registry.to_owned());
                self.registry.push(Registry {
                    location,
                    mirror: vec![mirror],
                    ..Registry::default()
                });
            }
        }
    }

    /// Where to ask for an image, in order: its mirrors, then its own place.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let name = format!("{}/{}", reference.domain(), reference.path());
        self.places(&name, reference.digest().is_some())
    }

    /// Where a registry (`host[:port]`, or with a part of its repositories) really is.
    pub(crate) fn host(&self, name: &str) -> Result<Endpoint> {
        let mut places = self.places(name, true)?;
        // Its own place is always the last one.
        Ok(places.pop().unwrap_or_else(|| Endpoint::own(name, false)))
    }

    /// Whether an entry is about this name.
    pub(crate) fn speaks_of(&self, name: &str) -> bool {
        self.registry.iter().any(|entry| entry.matches(name).is_some())
    }

    fn places(&self, name: &str, by_digest: bool) -> Result<Vec<Endpoint>> {
        let matching = self
            .registry
            .iter()
            .filter_map(|entry| Some((entry.matches(name)?, entry)));
        let Some((matched, entry)) = matching.max_by_key(|(length, _)| *length) else {
            return Ok(vec![Endpoint::own(name, false)]);
        };
        if entry.blocked {
            return Err(Error::Blocked {
                reference: name.to_owned(),
            });
        }
        let rest = &name[matched..];
        let usable = |mirror: &&Mirror| match mirror.pull_from_mirror.as_deref() {
            Some("digest-only") => by_digest,
            Some("tag-only") => !by_digest,
            _ => by_digest || !entry.mirror_by_digest_only,
        };
        let mut endpoints: Vec<_> = entry
            .mirror
            .iter()
            .filter(usable)
            .map(|mirror| Endpoint::new(&format!("{}{rest}", mirror.location), mirror.insecure))
            .collect();
        let own = match (
            &entry.location,
            entry.prefix.as_deref().unwrap_or("").starts_with("*."),
        ) {
            (Some(location), false) => format!("{location}{rest}"),
            _ => name.to_owned(),
        };
        endpoints.push(Endpoint::own(&own, entry.insecure));
        Ok(endpoints)
    }
}

impl Registry {
    fn prefix(&self) -> &str {
        self.prefix
            .as_deref()
            .filter(|prefix| !prefix.is_empty())
            .or(self.location.as_deref())
            .unwrap_or("")
    }

    /// How much of `name` the prefix covers.
    fn matches(&self, name: &str) -> Option<usize> {
        let prefix = self.prefix();
        if let Some(suffix) = prefix.strip_prefix('*') {
            // `*.example.com` covers whole hosts below example.com.
            let host = name.split('/').next().unwrap_or(name);
            return (suffix.starts_with('.') && host.ends_with(suffix) && host.len() > suffix.len())
                .then_some(host.len());
        }
        let rest = name.strip_prefix(prefix).filter(|_| !prefix.is_empty())?;
        (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(prefix.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoints(conf: &str, name: &str) -> Vec<(String, String, bool)> {
        let conf = RegistriesConf::parse(conf).expect("valid");
        let reference = Reference::parse(name).expect("reference");
        let all = conf.endpoints(&reference).expect("not blocked");
        all.into_iter()
            .map(|one| (one.host, one.repository, one.insecure))
            .collect()
    }

    fn one(host: &str, repository: &str, insecure: bool) -> (String, String, bool) {
        (host.into(), repository.into(), insecure)
    }

    #[test]
    fn without_an_entry_the_name_says_where() {
        assert_eq!(
            endpoints("", "mysql:8"),
            [one("registry-1.docker.io", "library/mysql", false)]
        );
        assert_eq!(
            endpoints("", "127.0.0.1:5000/a/b"),
            [one("127.0.0.1:5000", "a/b", true)]
        );
        assert_eq!(endpoints("", "[::1]:5000/a"), [one("[::1]:5000", "a", true)]);
    }

    #[test]
    fn mirrors_come_first_and_the_longest_prefix_counts() {
        let conf = "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"10.0.0.1:5000\"\ninsecure = true\n\
                    [[registry]]\nprefix = \"docker.io/library\"\nlocation = \"mirror.example/hub\"\n";
        let other = endpoints(conf, "jupyter/minimal-notebook");
        let path = "jupyter/minimal-notebook";
        assert_eq!(
            other,
            [
                one("10.0.0.1:5000", path, true),
                one("registry-1.docker.io", path, false)
            ]
        );
        assert_eq!(
            endpoints(conf, "mysql"),
            [one("mirror.example", "hub/mysql", false)]
        );
    }

    #[test]
    fn a_push_goes_to_the_place_itself() {
        let conf = "[[registry]]\nprefix = \"docker.io\"\nlocation = \"127.0.0.1:5000/hub\"\n\
                    [[registry.mirror]]\nlocation = \"m.example\"\n";
        let conf = RegistriesConf::parse(conf).expect("valid");
        let endpoint = conf.host("docker.io/me/app").expect("not blocked");
        assert_eq!(
            (endpoint.host.as_str(), endpoint.repository.as_str()),
            ("127.0.0.1:5000", "hub/me/app")
        );
        assert_eq!(
            conf.host("docker.io").expect("not blocked").host,
            "127.0.0.1:5000"
        );
        assert_eq!(
            conf.host("r.example:5000").expect("not blocked").host,
            "r.example:5000"
        );
    }

    proptest! {
        #[test]
        fn foreign_files_never_panic(text in any::<String>(), name in "[a-z./:]{1,20}") {
            if let Ok(conf) = RegistriesConf::parse(&text) {
                conf.host(&name).ok();
            }
        }
    }

    #[test]
    fn wildcards_digest_mirrors_and_blocks() {
        let conf = "[[registry]]\nprefix = \"*.example.com\"\ninsecure = true\nmirror-by-digest-only = true\n\
                    [[registry.mirror]]\nlocation = \"m.example\"\n[[registry]]\nlocation = \"bad.example\"\nblocked = true\n";
        assert_eq!(
            endpoints(conf, "a.example.com/x"),
            [one("a.example.com", "x", true)]
        );
        assert_eq!(
            endpoints(conf, &format!("a.example.com/x@sha256:{}", "0".repeat(64))).len(),
            2
        );
        assert_eq!(endpoints(conf, "example.com/x"), [one("example.com", "x", false)]);
        let conf = RegistriesConf::parse(conf).expect("valid");
        let blocked = conf.endpoints(&Reference::parse("bad.example/x").expect("reference"));
        assert!(matches!(blocked, Err(Error::Blocked { .. })));
        assert!(RegistriesConf::parse("[[registry]]\nlocation = 5\n").is_err());
    }
}
