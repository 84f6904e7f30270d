//! Secrets and configs: files, or variables, of a container that nobody else gets to see.

use super::ParseError;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// What a secret or config holds is at most so long, in bytes.
pub(crate) const SECRET_MAX: usize = 1 << 20;

/// A secret or config of a container: a read-only file in memory, or a variable.
///
/// What it holds is never written to the disk, and shown by nothing: `inspect`, the records, `Debug` and serde have its
/// name alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Secret {
    /// Its name; the file's, unless a path is set.
    pub name: String,
    /// Where the container finds it.
    pub target: SecretTarget,
    /// Where it comes from; it is read when the container is made. Not serialised.
    #[serde(skip)]
    pub source: SecretSource,
}

/// Where a container finds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SecretTarget {
    /// In a file.
    File {
        /// Absolute path inside.
        path: String,
        /// Its owner; 0 by default.
        uid: u32,
        /// Its group; 0 by default.
        gid: u32,
        /// Its permissions; 0444 by default.
        mode: u32,
    },
    /// In a variable, of the payload and of what exec adds.
    Variable {
        /// The variable's name.
        name: String,
    },
}

/// Where a secret comes from.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretSource {
    /// It is with the container already: what a spec that was read back has.
    #[default]
    Kept,
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// The contents of a file of this host, read by whoever makes the container.
    File(PathBuf),
    /// A variable of whoever makes the container.
    Environment(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kept => "Kept",
            Self::Bytes(_) => "Bytes(..)",
            Self::File(_) => "File(..)",
            Self::Environment(_) => "Environment(..)",
        })
    }
}

impl Secret {
    /// A secret that holds these bytes, as `/run/secrets/NAME`.
    pub fn bytes(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(name, SecretSource::Bytes(bytes.into().into()))
    }

    /// A secret that holds what a file of this host does when the container is made, as `/run/secrets/NAME`.
    pub fn file(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self::new(name, SecretSource::File(path.into()))
    }

    /// A secret that holds the value of a variable of this process when the container is made, as
    /// `/run/secrets/NAME`.
    pub fn environment(name: impl Into<String>, variable: impl Into<String>) -> Self {
        Self::new(name, SecretSource::Environment(variable.into()))
    }

    fn new(name: impl Into<String>, source: SecretSource) -> Self {
        let name = name.into();
        Self {
            target: SecretTarget::File {
                path: format!("/run/secrets/{name}"),
                uid: 0,
                gid: 0,
                mode: 0o444,
            },
            name,
            source,
        }
    }

    /// Sets the path inside; one without a leading slash is below `/run/secrets`.
    pub fn at(mut self, target: impl Into<String>) -> Self {
        let target = target.into();
        let whole = match target.starts_with('/') {
            true => target,
            false => format!("/run/secrets/{target}"),
        };
        if let SecretTarget::File { path, .. } = &mut self.target {
            *path = whole;
        }
        self
    }

    /// Sets owner and group of the file.
    pub fn owner(mut self, user: u32, group: u32) -> Self {
        if let SecretTarget::File { uid, gid, .. } = &mut self.target {
            (*uid, *gid) = (user, group);
        }
        self
    }

    /// Sets the permissions of the file.
    pub fn mode(mut self, bits: u32) -> Self {
        if let SecretTarget::File { mode, .. } = &mut self.target {
            *mode = bits;
        }
        self
    }

    /// Makes it a variable instead of a file.
    pub fn variable(mut self, name: impl Into<String>) -> Self {
        self.target = SecretTarget::Variable { name: name.into() };
        self
    }

    /// Parses podman's `--secret`, with the source beside the name, since there is no store of secrets here:
    /// `NAME,src=FILE` or `NAME,env=VARIABLE`, and `type=mount|env`, `target=`, `uid=`, `gid=`, `mode=` (octal).
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let error = |reason: &str| ParseError::new("a secret", text, reason);
        let mut words = text.split(',');
        let name = words.next().unwrap_or_default();
        let name = name
            .strip_prefix("id=")
            .or_else(|| name.strip_prefix("source="))
            .unwrap_or(name);
        let mut source = None;
        let (mut target, mut variable) = (None, false);
        let (mut uid, mut gid, mut mode) = (0, 0, 0o444);
        for word in words {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| error("options are key=value"))?;
            let id = || value.parse().map_err(|_| error("uid and gid are numbers"));
            match key {
                "src" => source = Some(SecretSource::File(value.into())),
                "env" => source = Some(SecretSource::Environment(value.into())),
                "type" if value == "mount" => variable = false,
                "type" if value == "env" => variable = true,
                "target" => target = Some(value),
                "uid" => uid = id()?,
                "gid" => gid = id()?,
                "mode" => {
                    let bits = u32::from_str_radix(value, 8).ok().filter(|bits| *bits <= 0o7777);
                    mode = bits.ok_or_else(|| error("mode is octal, at most 7777"))?;
                }
                _ => return Err(error("the keys are src, env, type, target, uid, gid and mode")),
            }
        }
        let source = source.ok_or_else(|| {
            error("where it comes from is missing, src=FILE or env=VARIABLE: there is no store of secrets")
        })?;
        let secret = Self::new(name, source).owner(uid, gid).mode(mode);
        Ok(match (variable, target) {
            (true, target) => {
                let target = target.unwrap_or(name);
                secret.variable(target)
            }
            (false, Some(target)) => secret.at(target),
            (false, None) => secret,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_words_for_secrets() {
        let parsed = |text: &str| Secret::parse(text).expect(text);
        assert_eq!(parsed("a,src=/x"), Secret::file("a", "/x"));
        assert_eq!(parsed("id=a,env=X"), Secret::environment("a", "X"));
        assert_eq!(
            parsed("a,src=/x,type=mount,target=/etc/key,uid=5,gid=6,mode=0400"),
            Secret::file("a", "/x").at("/etc/key").owner(5, 6).mode(0o400)
        );
        assert_eq!(
            parsed("a,env=X,type=env"),
            Secret::environment("a", "X").variable("a")
        );
        assert_eq!(
            parsed("a,env=X,type=env,target=KEY"),
            Secret::environment("a", "X").variable("KEY")
        );
        assert_eq!(parsed("a,src=x,target=b").target, Secret::bytes("b", "").target);
        for bad in [
            "a",
            "a,b",
            "a,src=x,mode=9",
            "a,src=x,uid=root",
            "a,src=x,type=file",
            "a,src=x,size=1",
        ] {
            assert!(Secret::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_a_secret_holds_is_shown_by_nothing() {
        let mut spec = crate::ContainerSpec::new("x").secret(Secret::bytes("a", "hunter2"));
        spec = spec.secret(Secret::file("b", "/path/hunter2"));
        let json = serde_json::to_string(&spec).expect("json");
        assert!(
            json.contains("/run/secrets/a") && !json.contains("hunter2"),
            "{json}"
        );
        let debug = format!("{spec:?} {:?}", spec.secrets[0].source);
        assert!(
            !debug.contains("hunter2") && !debug.contains("104, 117"),
            "{debug}"
        );
        let back: crate::ContainerSpec = serde_json::from_str(&json).expect("parse");
        assert_eq!(back.secrets[0].source, SecretSource::Kept);
    }
}
