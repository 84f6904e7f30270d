//! Credentials from docker's `config.json` and podman's `auth.json`, and from credential helpers.

use crate::error::{Error, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_distribution::secrets::RegistryAuth;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The name under which Docker keeps the credentials of Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";

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

/// Credentials by registry.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    entries: BTreeMap<String, Credential>,
    /// Registry to helper (`docker-credential-<helper>`).
    helpers: BTreeMap<String, String>,
    /// The helper for every other registry.
    store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

impl Credentials {
    /// Sets what is sent to a registry (`host[:port]`, `docker.io` for Docker Hub).
    pub fn set(&mut self, registry: &str, credential: Credential) {
        self.entries.insert(key(registry), credential);
    }

    /// Adds the entries of a file; those that are known already stay.
    pub(super) fn read(&mut self, path: &Path) -> Result<()> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| Error::Config {
                path: path.to_owned(),
                source: error.into(),
            })?,
        };
        let file: File = serde_json::from_slice(&bytes).map_err(|error| Error::Config {
            path: path.to_owned(),
            source: error.into(),
        })?;
        for (registry, entry) in file.auths {
            let credential = entry.credential().map_err(|reason| Error::Config {
                path: path.to_owned(),
                source: format!("auths {registry}: {reason}").into(),
            })?;
            if let Some(credential) = credential {
                self.entries.entry(key(&registry)).or_insert(credential);
            }
        }
        for (registry, helper) in file.cred_helpers {
            self.helpers.entry(key(&registry)).or_insert(helper);
        }
        self.store = self.store.take().or(file.creds_store);
        Ok(())
    }

    /// What to send to a registry, asking its helper. A helper that is missing or fails is as if it had no
    /// entry, since most pulls need none; the reason comes back beside it.
    pub(crate) fn find(&self, registry: &str) -> (Credential, Option<String>) {
        let wanted = key(registry);
        let helper = self
            .helpers
            .get(&wanted)
            .or(if self.entries.contains_key(&wanted) {
                None
            } else {
                self.store.as_ref()
            });
        if let Some(helper) = helper {
            let url = if wanted == "docker.io" { HUB } else { registry };
            return match ask_helper(helper, url) {
                Ok(Some(credential)) => (credential, None),
                Ok(None) => (
                    self.entries
                        .get(&wanted)
                        .cloned()
                        .unwrap_or(Credential::Anonymous),
                    None,
                ),
                Err(reason) => (
                    Credential::Anonymous,
                    Some(format!("docker-credential-{helper}: {reason}")),
                ),
            };
        }
        (
            self.entries
                .get(&wanted)
                .cloned()
                .unwrap_or(Credential::Anonymous),
            None,
        )
    }
}

impl Entry {
    /// `None` for an empty entry, which says that a store has it.
    fn credential(self) -> Result<Option<Credential>, &'static str> {
        if let Some(token) = self.identitytoken.filter(|token| !token.is_empty()) {
            return Ok(Some(Credential::IdentityToken(token)));
        }
        if let Some(token) = self.registrytoken.filter(|token| !token.is_empty()) {
            return Ok(Some(Credential::RegistryToken(token)));
        }
        if let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) {
            let bytes = STANDARD.decode(auth.trim()).map_err(|_| "auth is not base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "auth is not UTF-8")?;
            let (user, password) = text.split_once(':').ok_or("auth is not user:password")?;
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Credential::Basic {
                user: user.to_owned(),
                password,
            }));
        }
        match (self.username, self.password) {
            (Some(user), Some(password)) if !user.is_empty() => {
                Ok(Some(Credential::Basic { user, password }))
            }
            _ => Ok(None),
        }
    }
}

/// Docker writes hosts, hosts with a path, and URLs; Docker Hub has three names.
fn key(registry: &str) -> String {
    let host = registry
        .strip_prefix("https://")
        .or_else(|| registry.strip_prefix("http://"))
        .unwrap_or(registry);
    let host = host.split('/').next().unwrap_or(host).to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "docker.io" => "docker.io".to_owned(),
        _ => host,
    }
}

/// The protocol of docker-credential-helpers: `get`, the server on stdin, JSON on stdout.
fn ask_helper(helper: &str, server: &str) -> Result<Option<Credential>, String> {
    // A name of a program, not a path: the file that names it may not choose what is run from elsewhere.
    if helper.is_empty()
        || !helper
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    {
        return Err("not the name of a helper".into());
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read has no answer either.
        let _ = stdin.write_all(server.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        return if text.contains("not found") {
            Ok(None)
        } else {
            Err(text.trim().chars().take(200).collect())
        };
    }
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credential::IdentityToken(answer.secret),
        _ => Credential::Basic {
            user: answer.username,
            password: answer.secret,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Credentials> {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), text).expect("write");
        let mut credentials = Credentials::default();
        credentials.read(file.path()).map(|()| credentials)
    }

    #[test]
    fn entries_are_found_by_any_name_of_their_registry() {
        let credentials = read(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYTpzcw=="},"http://a.example:5000/v2/":
               {"username":"u","password":"p"},"b.example":{"identitytoken":"t"},"c.example":{}}}"#,
        )
        .expect("valid");
        let basic = |user: &str, password: &str| Credential::Basic {
            user: user.into(),
            password: password.into(),
        };
        assert_eq!(credentials.find("docker.io").0, basic("user", "pa:ss"));
        assert_eq!(credentials.find("a.example:5000").0, basic("u", "p"));
        assert_eq!(
            credentials.find("b.example").0,
            Credential::IdentityToken("t".into())
        );
        assert_eq!(credentials.find("c.example").0, Credential::Anonymous);
    }

    #[test]
    fn a_missing_helper_is_a_warning_and_anonymous() {
        let credentials = read(r#"{"credsStore":"rdock-test-missing"}"#).expect("valid");
        let (credential, warning) = credentials.find("a.example");
        assert_eq!(credential, Credential::Anonymous);
        assert!(warning.is_some_and(|text| text.starts_with("docker-credential-rdock-test-missing")));
        let credentials = read(r#"{"credsStore":"../evil"}"#).expect("valid");
        assert!(credentials.find("a.example").1.is_some());
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
    }

    #[test]
    fn secrets_are_not_shown() {
        let credential = Credential::Basic {
            user: "u".into(),
            password: "secret".into(),
        };
        assert!(!format!("{credential:?}").contains("secret"));
    }
}
