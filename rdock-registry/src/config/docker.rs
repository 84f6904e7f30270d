//! Credentials from docker's `config.json` and podman's `auth.json`.

use super::helper::Helper;
use crate::error::{Error, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_distribution::secrets::RegistryAuth;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// The name under which Docker keeps the credentials of Docker Hub.
pub(crate) const HUB: &str = "https://index.docker.io/v1/";
/// Ours for it.
const HUB_KEY: &str = "docker.io";

/// What proves who asks.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential {
    /// Nobody in particular.
    Anonymous,
    /// A user and a password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A refresh token, exchanged for access tokens (OAuth 2).
    IdentityToken(String),
    /// A token that is sent as it is.
    RegistryToken(String),
}

impl std::fmt::Debug for Credential {
    /// Without secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { user, .. } => write!(f, "Basic({user})"),
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
            Self::RegistryToken(_) => f.write_str("RegistryToken"),
        }
    }
}

/// In the words of the `oci-client` crate.
impl From<&Credential> for RegistryAuth {
    fn from(credential: &Credential) -> Self {
        match credential {
            Credential::Basic { user, password } => Self::Basic(user.clone(), password.clone()),
            Credential::RegistryToken(token) => Self::Bearer(token.clone()),
            Credential::Anonymous | Credential::IdentityToken(_) => Self::Anonymous,
        }
    }
}

/// From the words of the `oci-client` crate.
impl From<RegistryAuth> for Credential {
    fn from(auth: RegistryAuth) -> Self {
        match auth {
            RegistryAuth::Anonymous => Self::Anonymous,
            RegistryAuth::Basic(user, password) => Self::Basic { user, password },
            RegistryAuth::Bearer(token) => Self::RegistryToken(token),
        }
    }
}

/// Credentials by registry, or by a part of its repositories.
#[derive(Debug, Clone)]
pub struct Credentials {
    entries: BTreeMap<String, Credential>,
    /// Registry to helper (`docker-credential-<helper>`).
    helpers: BTreeMap<String, String>,
    /// The helper for every other registry.
    store: Option<String>,
    /// Folders with helpers, as `PATH` has them; this process's `PATH` by default.
    pub helper_path: Option<OsString>,
    /// How long a helper may take; 30 s by default.
    pub helper_timeout: Duration,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            helpers: BTreeMap::new(),
            store: None,
            helper_path: None,
            helper_timeout: Duration::from_secs(30),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, AuthEntry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

/// One entry of `auths` in docker's configuration file.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthEntry {
    /// The user, empty when there is none.
    pub username: String,
    /// The password, empty when there is none.
    pub password: String,
    /// A refresh token.
    pub identity_token: Option<String>,
    /// A token that is sent as it is.
    pub registry_token: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl std::fmt::Debug for AuthEntry {
    /// Without secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthEntry")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl<'de> Deserialize<'de> for AuthEntry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawEntry::deserialize(deserializer)?;
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let mut entry = Self {
            username: raw.username.unwrap_or_default(),
            password: raw.password.unwrap_or_default(),
            identity_token: filled(raw.identitytoken),
            registry_token: filled(raw.registrytoken),
        };
        // `auth` counts, whatever stands beside it.
        if let Some(auth) = filled(raw.auth) {
            (entry.username, entry.password) =
                decode(&auth).map_err(<D::Error as serde::de::Error>::custom)?;
        }
        Ok(entry)
    }
}

/// `auth`: base64 of `user:password`. Docker pads the password with zero bytes in places.
fn decode(auth: &str) -> Result<(String, String), &'static str> {
    let bytes = STANDARD.decode(auth.trim()).map_err(|_| "auth is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "auth is not UTF-8")?;
    let (user, password) = text.split_once(':').ok_or("auth is not user:password")?;
    Ok((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

impl AuthEntry {
    /// Reads one entry.
    ///
    /// # Errors
    /// Why it cannot be used. The text never repeats the entry, which holds a secret.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }

    /// The entry as docker writes it: user and password as `auth` alone.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::Map::new();
        if !self.username.is_empty() {
            let auth = STANDARD.encode(format!("{}:{}", self.username, self.password));
            object.insert("auth".into(), auth.into());
        }
        for (name, token) in [
            ("identitytoken", &self.identity_token),
            ("registrytoken", &self.registry_token),
        ] {
            if let Some(token) = token {
                object.insert(name.into(), token.clone().into());
            }
        }
        object.into()
    }

    /// `None` for an empty entry, which says that a store has it.
    fn credential(self) -> Option<Credential> {
        match self {
            Self {
                identity_token: Some(token),
                ..
            } => Some(Credential::IdentityToken(token)),
            Self {
                registry_token: Some(token),
                ..
            } => Some(Credential::RegistryToken(token)),
            Self {
                username, password, ..
            } if !username.is_empty() => Some(Credential::Basic {
                user: username,
                password,
            }),
            _ => None,
        }
    }
}

impl Credentials {
    /// Sets what is sent to a registry (`host[:port]`, `docker.io` for Docker Hub), or to repositories of it
    /// (`host/path`).
    pub fn set(&mut self, registry: &str, credential: Credential) {
        self.entries.insert(key(registry), credential);
    }

    /// Forgets what [`Credentials::set`] or a file says of a registry.
    pub fn forget(&mut self, registry: &str) {
        self.entries.remove(&key(registry));
    }

    /// Reads a docker configuration file from memory. `legacy` is the older form, `~/.dockercfg`: the entries
    /// alone.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn parse(json: &[u8], legacy: bool) -> Result<Self, String> {
        let mut credentials = Self::default();
        credentials.add(json, legacy)?;
        Ok(credentials)
    }

    /// Adds the entries of a file; those that are known already stay.
    pub(super) fn read(&mut self, path: &Path) -> Result<()> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Config {
            path: path.to_owned(),
            source,
        };
        match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(error.into())),
            // docker takes an empty file for one without entries.
            Ok(bytes) if bytes.trim_ascii().is_empty() => Ok(()),
            Ok(bytes) => self.add(&bytes, false).map_err(|reason| failed(reason.into())),
        }
    }

    fn add(&mut self, json: &[u8], legacy: bool) -> Result<(), String> {
        let file = match legacy {
            true => serde_json::from_slice(json).map(|auths| File {
                auths,
                ..File::default()
            }),
            false => serde_json::from_slice(json),
        };
        let file: File = file.map_err(|error| error.to_string())?;
        // Of several spellings of one registry the one that docker writes counts, then the plain one.
        let mut entries: Vec<_> = file.auths.into_iter().collect();
        entries.sort_by_key(|(name, _)| (name != HUB, *name != key(name)));
        for (name, entry) in entries {
            if let Some(credential) = entry.credential() {
                self.entries.entry(key(&name)).or_insert(credential);
            }
        }
        for (registry, helper) in file.cred_helpers {
            self.helpers.entry(key(&registry)).or_insert(helper);
        }
        self.store = self.store.take().or(file.creds_store);
        Ok(())
    }

    /// The keys under which credentials for `target` (a host, or a repository with its host) are looked for, in
    /// order: the repository, the folders above it, the host.
    pub fn lookup_order(target: &str) -> Vec<String> {
        let mut rest = key(target);
        let mut keys = vec![rest.clone()];
        while let Some((above, _)) = rest.rsplit_once('/') {
            keys.push(above.to_owned());
            rest = above.to_owned();
        }
        keys
    }

    /// The helper that keeps the credentials of a registry, if one does.
    pub(crate) fn helper(&self, registry: &str) -> Option<Helper<'_>> {
        let name = self.helpers.get(host_key(registry)).or(self.store.as_ref())?;
        Some(Helper {
            name,
            path: self.helper_path.as_deref(),
            timeout: self.helper_timeout,
        })
    }

    /// What to send to a registry (a host, or a repository with its host), asking its helper. A helper that is
    /// missing or fails is as if it had no entry, since most pulls need none; the reason comes back beside it.
    pub fn find(&self, target: &str) -> (Credential, Option<String>) {
        let known = Self::lookup_order(target)
            .iter()
            .find_map(|key| self.entries.get(key))
            .cloned();
        let wanted = key(target);
        let host = host_key(&wanted);
        let helper = match &known {
            // The store for all registries is asked for those without an entry.
            Some(_) if !self.helpers.contains_key(host) => None,
            _ => self.helper(host),
        };
        let known = known.unwrap_or(Credential::Anonymous);
        let Some(helper) = helper else {
            return (known, None);
        };
        match helper.get(server_name(host)) {
            Ok(found) => (found.unwrap_or(known), None),
            Err(reason) => (known, Some(reason)),
        }
    }
}

/// The name under which docker keeps the credentials of a host.
pub(crate) fn server_name(host: &str) -> &str {
    if host == HUB_KEY { HUB } else { host }
}

fn host_key(key: &str) -> &str {
    key.split('/').next().unwrap_or(key)
}

/// The one spelling of a registry, or of a repository with its host. Docker writes hosts, and URLs with the
/// version of the API at their end; Docker Hub has three names.
pub(crate) fn key(registry: &str) -> String {
    let text = registry.trim();
    let text = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text)
        .trim_end_matches('/');
    let (host, path) = match text.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (text, None),
    };
    let host = match host.to_ascii_lowercase() {
        hub if matches!(hub.as_str(), "index.docker.io" | "registry-1.docker.io") => HUB_KEY.to_owned(),
        other => other,
    };
    match path {
        None | Some("v1" | "v2") => host,
        Some(path) => format!("{host}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Credentials> {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), text).expect("write");
        let mut credentials = Credentials::default();
        credentials.read(file.path()).map(|()| credentials)
    }

    fn basic(user: &str, password: &str) -> Credential {
        Credential::Basic {
            user: user.into(),
            password: password.into(),
        }
    }

    #[test]
    fn entries_are_found_by_any_name_of_their_registry() {
        let credentials = read(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYTpzcw=="},"http://a.example:5000/v2/":
               {"username":"u","password":"p"},"b.example":{"identitytoken":"t"},"c.example":{}}}"#,
        )
        .expect("valid");
        assert_eq!(credentials.find("docker.io").0, basic("user", "pa:ss"));
        assert_eq!(credentials.find("docker.io/library/x").0, basic("user", "pa:ss"));
        assert_eq!(credentials.find("a.example:5000").0, basic("u", "p"));
        assert_eq!(
            credentials.find("b.example").0,
            Credential::IdentityToken("t".into())
        );
        assert_eq!(credentials.find("c.example").0, Credential::Anonymous);
    }

    #[test]
    fn the_longest_part_of_a_repository_counts() {
        let credentials = read(
            r#"{"auths":{"a.example":{"username":"host","password":"p"},
                "a.example/team":{"username":"team","password":"p"}}}"#,
        )
        .expect("valid");
        assert_eq!(credentials.find("a.example/team/app").0, basic("team", "p"));
        assert_eq!(credentials.find("a.example/teams").0, basic("host", "p"));
    }

    #[test]
    fn dockers_own_spelling_of_the_hub_counts() {
        let credentials = read(
            r#"{"auths":{"docker.io":{"username":"b","password":"p"},
                "https://index.docker.io/v1/":{"username":"a","password":"p"},
                "index.docker.io":{"username":"c","password":"p"}}}"#,
        )
        .expect("valid");
        assert_eq!(credentials.find("docker.io").0, basic("a", "p"));
    }

    #[test]
    fn malformed_files_are_errors_that_name_them() {
        for text in [
            "{",
            r#"{"auths":{"x":{"auth":"!"}}}"#,
            r#"{"auths":{"x":{"auth":"bm9jb2xvbg=="}}}"#,
        ] {
            assert!(matches!(read(text), Err(Error::Config { .. })), "{text}");
        }
        assert_eq!(read("").expect("as docker").find("x").0, Credential::Anonymous);
    }

    #[test]
    fn secrets_are_not_shown() {
        let entry = AuthEntry {
            username: "u".into(),
            password: "secret".into(),
            identity_token: Some("secret".into()),
            registry_token: Some("secret".into()),
        };
        assert!(!format!("{entry:?}").contains("secret"));
        let mut credentials = Credentials::default();
        credentials.set("a.example", basic("u", "secret"));
        credentials.set("b.example", Credential::IdentityToken("secret".into()));
        assert!(!format!("{credentials:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn foreign_files_never_panic(text in any::<String>(), legacy in any::<bool>()) {
            Credentials::parse(text.as_bytes(), legacy).ok();
            AuthEntry::parse(text.as_bytes()).ok();
            Credentials::lookup_order(&text);
        }

        #[test]
        fn what_is_written_is_read(username in "[a-z]{1,9}", password in "[ -~é]{0,20}") {
            let entry = AuthEntry { username, password, ..AuthEntry::default() };
            let json = serde_json::to_vec(&entry.to_json()).expect("to memory");
            prop_assert_eq!(AuthEntry::parse(&json), Ok(entry));
        }
    }
}
