//! The health of a container, as its owner has found it.

use crate::state::ContainerDir;
use serde::{Deserialize, Serialize};

/// How a container with a health check is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthStatus {
    /// No check has come to a result yet.
    #[default]
    Starting,
    /// The last check succeeded, or not enough of them failed since.
    Healthy,
    /// As many checks in a row failed as it takes.
    Unhealthy,
}

impl HealthStatus {
    /// docker's word: `starting`, `healthy` or `unhealthy`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl std::fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The health of a container and how it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Health {
    /// How it is.
    pub status: HealthStatus,
    /// Checks that failed in a row and count.
    pub failing_streak: u32,
    /// The last five checks, oldest first.
    pub log: Vec<HealthResult>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HealthResult {
    /// When it began, RFC 3339 in UTC.
    pub start: String,
    /// When it ended.
    pub end: String,
    /// 0 when it succeeded; -1 when it took too long or could not be run.
    pub exit_code: i32,
    /// The first 4096 bytes of what it wrote.
    pub output: String,
}

/// How many results are kept, as in docker.
pub(crate) const KEPT: usize = 5;
/// Bytes of output that are kept of one check, as in docker.
pub(crate) const OUTPUT: usize = 4096;

/// What the owner has written; `None` without a check.
pub(crate) fn read(dir: &ContainerDir) -> Option<Health> {
    let bytes = std::fs::read(dir.file("health.json")).ok()?;
    serde_json::from_slice(&bytes).ok()
}
