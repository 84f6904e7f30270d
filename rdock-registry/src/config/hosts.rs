//! `hosts.toml` in a host's folder of `certs.d`, as containerd reads it (its documentation, "Registry Configuration"):
//! mirrors with what they can do, certificates, headers and addresses of their own.

use super::certificates::HostCertificates;
use super::registries::Endpoint;
use crate::error::{Error, Result};
use crate::protocol::Schemes;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Spanned;
use url::Url;

/// What a place can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Content by its digest.
    pub(crate) pull: bool,
    /// What a tag means.
    pub(crate) resolve: bool,
    pub(crate) push: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            pull: true,
            resolve: true,
            push: true,
        }
    }
}

/// What a `hosts.toml` says of one place.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct HostOptions {
    pub(crate) capabilities: Capabilities,
    pub(crate) schemes: Schemes,
    /// The path of the API, without slashes at its ends: `v2`.
    pub(crate) root: String,
    /// The registry that a mirror is asked for, in the parameter `ns`.
    pub(crate) namespace: Option<String>,
    /// Sent to this place alone.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) certificates: Option<Arc<HostCertificates>>,
}

impl fmt::Debug for HostOptions {
    /// Without the values of headers, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostOptions")
            .field("capabilities", &self.capabilities)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    server: Option<String>,
    host: BTreeMap<String, Spanned<Host>>,
    #[serde(flatten)]
    own: Host,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Host {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMore>,
    client: Option<Clients>,
    skip_verify: bool,
    override_path: bool,
    header: BTreeMap<String, OneOrMore>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

/// A file with certificate and key, several of them, or pairs of files.
#[derive(Deserialize)]
#[serde(untagged)]
enum Clients {
    One(String),
    More(Vec<String>),
    Pairs(Vec<Vec<String>>),
}

/// The places of a name, in the order of the file, the registry itself last; `None` where no file speaks of its host.
pub(crate) fn places(dirs: &[PathBuf], host: &str, repository: &str) -> Result<Option<Vec<Endpoint>>> {
    for name in [host, "_default"] {
        for dir in dirs {
            let dir = dir.join(name);
            let path = dir.join("hosts.toml");
            let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Config {
                path: path.clone(),
                source,
            };
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error.into())),
            };
            let places = parse(&text, &dir, host, repository).map_err(failed)?;
            return Ok(Some(places));
        }
    }
    Ok(None)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn parse(text: &str, dir: &Path, host: &str, repository: &str) -> Result<Vec<Endpoint>, Failure> {
    let file: File = toml::from_str(text)?;
    let mut hosts: Vec<_> = file.host.iter().collect();
    // Mirrors are asked in the order they are written in.
    hosts.sort_by_key(|(_, host)| host.span().start);
    let mut places = Vec::new();
    for (address, options) in hosts {
        let mut place = options.get_ref().place(address, dir, repository)?;
        if let Some(own) = &mut place.options
            && place.host != registry(host)
        {
            Arc::make_mut(own).namespace = Some(host.to_owned());
        }
        places.push(place);
    }
    let mut own = match &file.server {
        Some(address) => file.own.place(address, dir, repository)?,
        None => file.own.place(registry(host), dir, repository)?,
    };
    own.stands_for_name = true;
    places.push(own);
    Ok(places)
}

/// Docker Hub's registry has another name than its images.
fn registry(host: &str) -> &str {
    match host {
        "docker.io" => "registry-1.docker.io",
        other => other,
    }
}

impl Host {
    fn place(&self, address: &str, dir: &Path, repository: &str) -> Result<Endpoint, Failure> {
        let named = address.contains("://");
        let url = match named {
            true => Url::parse(address),
            false => Url::parse(&format!("https://{address}")),
        }
        .map_err(|error| format!("{address:?}: {error}"))?;
        let schemes = match url.scheme() {
            // This machine's registries may speak either where nothing is said.
            "https" if !named => crate::protocol::schemes(address, false),
            "https" => Schemes::Https,
            "http" => Schemes::Http,
            other => return Err(format!("{address:?}: {other:?} is not http or https").into()),
        };
        let name = url.host_str().ok_or_else(|| format!("{address:?} has no host"))?;
        let host = match url.port() {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        };
        let path = url.path().trim_matches('/');
        let root = match (self.override_path, path) {
            (true, path) => path.to_owned(),
            (false, "" | "v2") => "v2".to_owned(),
            (false, path) => format!("{path}/v2"),
        };
        let headers = self.header.iter().flat_map(|(name, values)| {
            let values = values.all().iter();
            values.map(|value| (name.to_ascii_lowercase(), value.clone()))
        });
        let options = HostOptions {
            capabilities: self.capabilities()?,
            schemes,
            root,
            namespace: None,
            headers: headers.collect(),
            certificates: self.certificates(dir)?.map(Arc::new),
        };
        Ok(Endpoint {
            host,
            repository: repository.to_owned(),
            insecure: self.skip_verify || schemes != Schemes::Https,
            stands_for_name: false,
            options: Some(Arc::new(options)),
        })
    }

    fn capabilities(&self) -> Result<Capabilities, Failure> {
        let Some(named) = &self.capabilities else {
            return Ok(Capabilities::default());
        };
        let known = ["pull", "resolve", "push"];
        match named.iter().find(|one| !known.contains(&one.as_str())) {
            Some(unknown) => Err(format!("unknown capability {unknown:?}: pull, resolve or push").into()),
            None => {
                let has = |name| named.iter().any(|one| one == name);
                Ok(Capabilities {
                    pull: has("pull"),
                    resolve: has("resolve"),
                    push: has("push"),
                })
            }
        }
    }

    fn certificates(&self, dir: &Path) -> Result<Option<HostCertificates>, Failure> {
        let read = |name: &String| {
            // A relative path is one below the file's own folder.
            let path = dir.join(name);
            std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let mut found = HostCertificates {
            from: dir.join("hosts.toml"),
            ..HostCertificates::default()
        };
        for name in self.ca.iter().flat_map(|ca| ca.all()) {
            found.authorities.push(read(name)?);
        }
        // One identity is shown; more would be for other authorities.
        let pair = match &self.client {
            None => None,
            Some(Clients::One(both)) => Some((both, both)),
            Some(Clients::More(files)) => files.first().map(|both| (both, both)),
            Some(Clients::Pairs(pairs)) => match pairs.first().map(Vec::as_slice) {
                None => None,
                Some([both]) => Some((both, both)),
                Some([certificate, key]) => Some((certificate, key)),
                Some(_) => return Err("client: a pair is a certificate and a key".into()),
            },
        };
        if let Some((certificate, key)) = pair {
            found.client = Some((read(certificate)?, read(key)?));
        }
        Ok(found.has_any().then_some(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<Endpoint>, Failure> {
        parse(text, Path::new("/nowhere"), "docker.io", "library/mysql")
    }

    fn options(place: &Endpoint) -> &HostOptions {
        place.options.as_ref().expect("from hosts.toml")
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file() {
        let text = r#"
            server = "https://registry-1.docker.io"

            [host."https://z.example"]
              capabilities = ["pull", "resolve"]

            [host."http://a.example:5000/hub"]
              capabilities = ["pull"]
              skip_verify = true
              [host."http://a.example:5000/hub".header]
                X-Team = ["one", "two"]
                authorization = "Bearer x"

            [host."https://b.example/v2/mirror"]
              override_path = true
        "#;
        let places = read(text).expect("valid");
        let hosts: Vec<_> = places.iter().map(|place| place.host.as_str()).collect();
        assert_eq!(
            hosts,
            ["z.example", "a.example:5000", "b.example", "registry-1.docker.io"]
        );
        let roots: Vec<_> = places.iter().map(|place| options(place).root.as_str()).collect();
        assert_eq!(roots, ["v2", "hub/v2", "v2/mirror", "v2"]);
        assert_eq!(
            (options(&places[0]).capabilities.push, places[0].insecure),
            (false, false)
        );
        assert_eq!(
            (options(&places[1]).schemes, places[1].insecure),
            (Schemes::Http, true)
        );
        let headers = &options(&places[1]).headers;
        assert_eq!(headers.len(), 3, "{headers:?}");
        assert!(!format!("{:?}", places[1]).contains("Bearer"));
        assert_eq!(options(&places[0]).namespace.as_deref(), Some("docker.io"));
        assert_eq!(options(&places[3]).namespace, None);
        let own: Vec<_> = places.iter().map(|place| place.stands_for_name).collect();
        assert_eq!(own, [false, false, false, true]);
        assert!(places.iter().all(|place| place.repository == "library/mysql"));
    }

    #[test]
    fn without_mirrors_the_file_speaks_of_the_registry() {
        let places = read("capabilities = [\"pull\", \"resolve\"]\nskip_verify = true\n").expect("valid");
        assert_eq!(places.len(), 1);
        assert_eq!(places[0].host, "registry-1.docker.io");
        assert!(places[0].insecure && !options(&places[0]).capabilities.push);
        assert_eq!(
            options(&places[0]).schemes,
            Schemes::Https,
            "a bad certificate is no plain text"
        );
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        for text in [
            "server = 5",
            "server = \"ftp://r.example\"",
            "capabilities = [\"fly\"]",
            "ca = \"missing.crt\"",
            "client = [[\"a\", \"b\", \"c\"]]",
            "[host.\"https://\"]\n",
            "[host",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_without_a_folder_has_the_default_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dirs = [dir.path().join("missing"), dir.path().to_owned()];
        assert!(
            places(&dirs, "docker.io", "library/mysql")
                .expect("nothing")
                .is_none()
        );
        let write = |folder: &str, text: &str| {
            std::fs::create_dir_all(dir.path().join(folder)).expect("made");
            std::fs::write(dir.path().join(folder).join("hosts.toml"), text).expect("written");
        };
        write("_default", "[host.\"https://m.example\"]\n");
        let first = |host: &str| {
            let places = places(&dirs, host, "a").expect("valid").expect("some");
            (places[0].host.clone(), places[places.len() - 1].host.clone())
        };
        assert_eq!(
            first("r.example:5000"),
            ("m.example".into(), "r.example:5000".into())
        );
        std::fs::write(dir.path().join("_default/ca.pem"), "pem").expect("written");
        write(
            "r.example:5000",
            &format!("ca = [\"{}\"]\n", dir.path().join("_default/ca.pem").display()),
        );
        assert_eq!(
            first("r.example:5000"),
            ("r.example:5000".into(), "r.example:5000".into())
        );
        write("r.example:5000", "server = 5");
        let error = places(&dirs, "r.example:5000", "a");
        assert!(
            matches!(error, Err(Error::Config { path, .. }) if path.ends_with("r.example:5000/hosts.toml"))
        );
    }

    proptest! {
        #[test]
        fn foreign_files_never_panic(text in any::<String>()) {
            read(&text).ok();
        }

        #[test]
        fn foreign_addresses_never_panic(address in "[a-z:/\\[\\]0-9.?#@é]{0,24}", whole in any::<bool>()) {
            read(&format!("[host.{address:?}]\noverride_path = {whole}\n")).ok();
        }
    }
}
