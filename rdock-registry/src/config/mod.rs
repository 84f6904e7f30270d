//! Where registries are and who asks: plain data, read from the environment by one function alone.

mod certificates;
mod docker;
mod helper;
mod hosts;
mod registries;
mod saved;

pub(crate) use certificates::HostCertificates;
pub use docker::{AuthEntry, Credential, Credentials};
pub(crate) use docker::{key, server_name};
pub(crate) use hosts::Capabilities;
pub(crate) use registries::Endpoint;
pub use registries::RegistriesConf;
pub(crate) use saved::SavedConfig;

use crate::error::{Error, Result};
use crate::push::Compression;
use rdock_image::Reference;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Proxies for HTTP, as URLs. Addresses of this machine are always reached directly.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Proxies {
    /// For `http:`.
    pub http: Option<String>,
    /// For `https:`.
    pub https: Option<String>,
    /// Hosts, domains and networks without a proxy, separated by commas.
    pub none: Option<String>,
}

impl std::fmt::Debug for Proxies {
    /// Without passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |proxy: &Option<String>| proxy.as_deref().map(crate::protocol::redacted);
        f.debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("none", &self.none)
            .finish()
    }
}

/// How a client behaves. The default is anonymous, with Docker Hub and every other registry at its own address.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// Who asks, by registry.
    pub credentials: Credentials,
    /// Mirrors, rewritten locations, insecure and blocked registries.
    pub registries: RegistriesConf,
    /// Layers fetched or pushed at a time; 3 by default.
    pub parallel_layers: usize,
    /// How long a connection may bring nothing (or next to nothing: less than 1 KiB); 60 s by default. There is no
    /// limit on the whole.
    pub idle_timeout: Duration,
    /// How often a failed request is tried again; 5 by default.
    pub retries: u32,
    /// More certificate authorities, in PEM, beside the system's.
    pub certificate_authorities: Vec<Vec<u8>>,
    /// Folders with a folder for each `host[:port]` that has certificates of its own, as docker's `certs.d`:
    /// `*.crt` are authorities, `*.cert` with `*.key` says who the client is. A `hosts.toml` there, as containerd has
    /// it, names mirrors and what they can do, certificates and headers; it counts for registries that
    /// [`RegistryConfig::registries`] says nothing of. None by default.
    pub certificate_dirs: Vec<PathBuf>,
    /// Where a login is written: docker's `config.json`. None by default.
    pub docker_config: Option<PathBuf>,
    /// A blob is pushed in pieces of so many bytes, each in a request of its own; in one by default.
    pub chunk_size: Option<u64>,
    /// How layers that were made here are compressed for a registry; gzip by default.
    pub compression: Compression,
    /// None by default.
    pub proxies: Proxies,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            credentials: Credentials::default(),
            registries: RegistriesConf::default(),
            parallel_layers: 3,
            idle_timeout: Duration::from_secs(60),
            retries: 5,
            certificate_authorities: Vec::new(),
            certificate_dirs: Vec::new(),
            docker_config: None,
            chunk_size: None,
            compression: Compression::default(),
            proxies: Proxies::default(),
        }
    }
}

impl RegistryConfig {
    /// Reads what docker and podman read: `registries.conf` (`CONTAINERS_REGISTRIES_CONF`, else
    /// `$XDG_CONFIG_HOME/containers`, `~/.config/containers`, `/etc/containers`), docker's `config.json`
    /// (`DOCKER_CONFIG`, else `~/.docker`), podman's `auth.json`, and the `certs.d` folders, with
    /// `hosts.toml` in them (below `/etc/containerd`, `/etc/docker`, `/etc/containers`, and the same in the user's
    /// configuration); and the proxies that
    /// `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` (or in lower case) name. Files that are not there are
    /// nothing.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a file that cannot be read or understood.
    pub fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let home = variable("HOME");
        let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let user = variable("XDG_CONFIG_HOME").or_else(|| in_home(".config"));
        let registries = variable("CONTAINERS_REGISTRIES_CONF").or_else(|| {
            let user = user.as_ref().map(|dir| dir.join("containers/registries.conf"));
            user.into_iter()
                .chain([PathBuf::from("/etc/containers/registries.conf")])
                .find(|path| path.exists())
        });
        let docker = variable("DOCKER_CONFIG")
            .or_else(|| in_home(".docker"))
            .map(|dir| dir.join("config.json"));
        let podman = variable("REGISTRY_AUTH_FILE")
            .or_else(|| variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")));
        let mut config = Self::load(registries.as_deref(), docker.as_deref(), podman.as_deref())?;
        config.docker_config = docker;
        config.certificate_dirs = [Some(PathBuf::from("/etc")), user]
            .into_iter()
            .flatten()
            .flat_map(|dir| ["containerd", "docker", "containers"].map(|name| dir.join(name).join("certs.d")))
            .collect();
        let text = |upper: &str| {
            let value = std::env::var(upper).or_else(|_| std::env::var(upper.to_ascii_lowercase()));
            value.ok().filter(|value| !value.is_empty())
        };
        let all = text("ALL_PROXY");
        config.proxies = Proxies {
            http: text("HTTP_PROXY").or_else(|| all.clone()),
            https: text("HTTPS_PROXY").or(all),
            none: text("NO_PROXY"),
        };
        Ok(config)
    }

    /// Where to ask for an image, in order: its mirrors, then its own place. What registries.conf says comes before
    /// what hosts.toml says.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        match self.hosts_toml(reference)? {
            Some(places) => Ok(places),
            None => self.registries.endpoints(reference),
        }
    }

    /// Where an image is written to, listed and deleted: never at a mirror.
    pub(crate) fn own(&self, reference: &Reference) -> Result<Endpoint> {
        match self.hosts_toml(reference)?.and_then(|mut places| places.pop()) {
            Some(own) => Ok(own),
            None => self
                .registries
                .host(&format!("{}/{}", reference.domain(), reference.path())),
        }
    }

    /// Where images are pushed to: the first mirror that says that it takes them, else the registry itself.
    pub(crate) fn pushed(&self, reference: &Reference) -> Result<Endpoint> {
        let takes = |place: &Endpoint| {
            let options = place.options.as_ref();
            options.is_none_or(|options| options.capabilities.push)
        };
        match self.hosts_toml(reference)? {
            Some(places) => places.into_iter().find(takes).ok_or_else(|| Error::ReadOnly {
                registry: reference.domain().to_owned(),
            }),
            None => self.own(reference),
        }
    }

    /// Where a registry (`host[:port]`, or with a part of its repositories) really is.
    pub(crate) fn host(&self, name: &str) -> Result<Endpoint> {
        let (host, path) = name.split_once('/').unwrap_or((name, ""));
        if !self.registries.speaks_of(name)
            && let Some(place) =
                hosts::places(&self.certificate_dirs, host, path)?.and_then(|mut all| all.pop())
        {
            return Ok(place);
        }
        self.registries.host(name)
    }

    fn hosts_toml(&self, reference: &Reference) -> Result<Option<Vec<Endpoint>>> {
        let name = format!("{}/{}", reference.domain(), reference.path());
        if self.certificate_dirs.is_empty() || self.registries.speaks_of(&name) {
            return Ok(None);
        }
        hosts::places(&self.certificate_dirs, reference.domain(), reference.path())
    }

    /// Reads these files. One that is not there is nothing, but for `registries`, which was named.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a file that cannot be read or understood.
    pub fn load(registries: Option<&Path>, docker: Option<&Path>, podman: Option<&Path>) -> Result<Self> {
        let mut config = Self::default();
        if let Some(path) = registries {
            config.registries = RegistriesConf::read(path)?;
        }
        // Docker's own entries come first.
        for path in [docker, podman].into_iter().flatten() {
            config.credentials.read(path)?;
        }
        Ok(config)
    }
}
