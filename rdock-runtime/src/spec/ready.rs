//! When a container counts as ready.

use serde::{Deserialize, Serialize};

/// When a container counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ready {
    /// A line of stdout or stderr contains `text`, `times` times.
    Log {
        /// Looked for in each line.
        text: String,
        /// How many lines must have it.
        times: u32,
    },
    /// Something listens on this TCP port and a connection stays open.
    Port(u16),
    /// The command exits with 0 inside.
    Exec(Vec<String>),
    /// `GET path` on this port answers with the status.
    Http {
        /// The container's port.
        port: u16,
        /// Begins with `/`.
        path: String,
        /// Expected status; any of 200 to 399 when `None`.
        status: Option<u16>,
    },
    /// Its health check has succeeded.
    Healthy,
}

impl Ready {
    /// Its health check has succeeded.
    pub fn healthy() -> Self {
        Self::Healthy
    }
    /// A log line contains `text`.
    pub fn log(text: impl Into<String>) -> Self {
        Self::Log {
            text: text.into(),
            times: 1,
        }
    }
    /// A server listens on the TCP port.
    pub fn port(port: u16) -> Self {
        Self::Port(port)
    }
    /// A command exits with 0.
    pub fn exec<I: IntoIterator<Item: Into<String>>>(args: I) -> Self {
        Self::Exec(args.into_iter().map(Into::into).collect())
    }
    /// An HTTP path answers with a success or a redirect.
    pub fn http(port: u16, path: impl Into<String>) -> Self {
        Self::Http {
            port,
            path: path.into(),
            status: None,
        }
    }
}
