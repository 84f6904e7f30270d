//! What a container shares with the host and with others, and how much it may use.

use super::ParseError;
use serde::{Deserialize, Serialize};

/// The network a container joins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NetworkMode {
    /// The default network: an address of its own, egress, published ports.
    #[default]
    Default,
    /// The host's; ports are not published.
    Host,
    /// `lo` alone.
    None,
    /// That of another container, by name or id.
    Container(String),
}

/// Where a namespace comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NamespaceMode {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container, by name or id.
    Container(String),
}

/// Ids of the container as ids of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UserNamespace {
    /// None as root; the caller's own id as 0 otherwise.
    #[default]
    Default,
    /// `(inside, outside, count)`.
    Mapped {
        /// User ids.
        uids: Vec<(u32, u32, u32)>,
        /// Group ids.
        gids: Vec<(u32, u32, u32)>,
    },
}

/// The system call filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Seccomp {
    /// Docker's default profile, for the container's capabilities.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile in Docker's JSON format.
    Profile(String),
}

impl NetworkMode {
    /// Parses docker's `--network`: `default` or `bridge`, `host`, `none`, `container:NAME`.
    ///
    /// # Errors
    /// For any other network.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let error = |reason: &str| ParseError::new("a network", text, reason);
        match text {
            "default" | "bridge" => Ok(Self::Default),
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            _ => match text.strip_prefix("container:") {
                Some(name) if crate::identity::is_name(name) => Ok(Self::Container(name.to_owned())),
                Some(_) => Err(error("container: needs the name or id of a container")),
                None => Err(error(
                    "there is no such network; there are default, host, none and container:NAME",
                )),
            },
        }
    }
}

impl NamespaceMode {
    /// Parses docker's `--pid`, `--ipc`, `--uts` and `--cgroupns`: `private` or nothing, `host`,
    /// `container:NAME`; for `--ipc` `shareable` is private too, since every container can be joined.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        match text {
            "" | "private" | "shareable" => Ok(Self::Private),
            "host" => Ok(Self::Host),
            _ => match text.strip_prefix("container:") {
                Some(name) if crate::identity::is_name(name) => Ok(Self::Container(name.to_owned())),
                _ => Err(ParseError::new(
                    "a namespace",
                    text,
                    "it is private, host or container:NAME",
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_namespaces_as_docker_names_them() {
        assert_eq!(NetworkMode::parse("bridge"), Ok(NetworkMode::Default));
        assert_eq!(NetworkMode::parse("default"), Ok(NetworkMode::Default));
        assert_eq!(NetworkMode::parse("host"), Ok(NetworkMode::Host));
        assert_eq!(NetworkMode::parse("none"), Ok(NetworkMode::None));
        assert_eq!(
            NetworkMode::parse("container:db"),
            Ok(NetworkMode::Container("db".into()))
        );
        for bad in ["", "backend", "container:", "container:../x", "Host"] {
            assert!(NetworkMode::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(NamespaceMode::parse("shareable"), Ok(NamespaceMode::Private));
        assert_eq!(NamespaceMode::parse("host"), Ok(NamespaceMode::Host));
        assert_eq!(
            NamespaceMode::parse("container:db"),
            Ok(NamespaceMode::Container("db".into()))
        );
        assert!(NamespaceMode::parse("container:a/b").is_err() && NamespaceMode::parse("x").is_err());
    }
}
