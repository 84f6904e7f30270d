//! What happens after the payload has ended, and how its health is checked.

use super::ParseError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Whether the payload is run again when it ends by itself. A container that was stopped or killed on
/// purpose stays stopped.
///
/// Between two runs there is a pause: 100 ms, doubled each time up to a minute, and 100 ms again after a run
/// of 10 s or more, as docker has it. Only a detached container can have a policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it ended with another code than 0.
    OnFailure {
        /// How often at most; without limit when `None`.
        max: Option<u32>,
    },
    /// Whatever its exit code; also after a reboot of the machine, even when it was stopped before.
    Always,
    /// As [`Self::Always`], but not after a reboot when it was stopped before.
    UnlessStopped,
}

impl RestartPolicy {
    /// Parses docker's form: `no`, `on-failure[:N]`, `always` or `unless-stopped`; empty is `no`.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let wrong = |reason: &str| ParseError::new("a restart policy", text, reason);
        let (name, count) = match text.split_once(':') {
            Some((name, count)) => (name, Some(count)),
            None => (text, None),
        };
        let policy = match name {
            "" | "no" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => {
                let max = count.map(|count| count.parse::<u32>());
                let max = max
                    .transpose()
                    .map_err(|_| wrong("the maximum is a number from 0 on"))?;
                // Docker reads 0 as "no limit".
                return Ok(Self::OnFailure {
                    max: max.filter(|max| *max > 0),
                });
            }
            _ => return Err(wrong("it is no, on-failure[:N], always or unless-stopped")),
        };
        match count {
            None => Ok(policy),
            Some(_) => Err(wrong("only on-failure has a maximum")),
        }
    }

    /// docker's word for it, without the maximum.
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure { .. } => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    /// Whether the payload runs again after it ended by itself with `code`, `restarts` being how often that
    /// has happened since somebody started the container.
    pub(crate) fn applies(self, code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure { max } => code != 0 && max.is_none_or(|max| restarts < max),
            Self::Always | Self::UnlessStopped => true,
        }
    }

    /// Whether the container is started when its machine is, or when nobody looked after it.
    pub(crate) fn applies_at_boot(self, stopped: bool) -> bool {
        match self {
            Self::No | Self::OnFailure { .. } => false,
            Self::Always => true,
            Self::UnlessStopped => !stopped,
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::OnFailure { max: Some(max) } => write!(f, ":{max}"),
            _ => Ok(()),
        }
    }
}

/// What a health check runs inside the container; exit code 0 means healthy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthTest {
    /// What the image's HEALTHCHECK says.
    #[default]
    Image,
    /// Nothing: the image's check is switched off.
    None,
    /// This program with its arguments (`CMD`).
    Command(Vec<String>),
    /// This text by the image's shell, `/bin/sh -c` without one (`CMD-SHELL`).
    Shell(String),
}

/// A health check. What is `None` comes from the image's HEALTHCHECK, else it is docker's default.
///
/// Until its first success the check is repeated soon, at first after 5 ms and then at doubled pauses up to
/// the start interval (the interval, when there is no start interval), so that a container counts as healthy
/// as soon as it is. Such a check counts as a failure at most once in each interval, so that a container
/// becomes unhealthy no earlier than under docker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct HealthCheck {
    /// What is run.
    pub test: HealthTest,
    /// From the end of a check to the next one; 30 s by default.
    pub interval: Option<Duration>,
    /// A check that takes longer is killed and has failed; 30 s by default.
    pub timeout: Option<Duration>,
    /// From the start, in which failures do not count; none by default. It ends with the first success.
    pub start_period: Option<Duration>,
    /// The longest pause between two checks before the first success.
    pub start_interval: Option<Duration>,
    /// Failures in a row that make the container unhealthy; 3 by default.
    pub retries: Option<u32>,
}

impl HealthCheck {
    /// Runs a program.
    pub fn command<I: IntoIterator<Item: Into<String>>>(args: I) -> Self {
        Self {
            test: HealthTest::Command(args.into_iter().map(Into::into).collect()),
            ..Self::default()
        }
    }
    /// Runs a text by the image's shell.
    pub fn shell(text: impl Into<String>) -> Self {
        Self {
            test: HealthTest::Shell(text.into()),
            ..Self::default()
        }
    }
    /// Switches the image's check off.
    pub fn none() -> Self {
        Self {
            test: HealthTest::None,
            ..Self::default()
        }
    }
    /// Sets the pause between two checks.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }
    /// Sets how long a check may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
    /// Sets how long failures do not count.
    pub fn start_period(mut self, period: Duration) -> Self {
        self.start_period = Some(period);
        self
    }
    /// Sets the longest pause between two checks before the first success.
    pub fn start_interval(mut self, interval: Duration) -> Self {
        self.start_interval = Some(interval);
        self
    }
    /// Sets how many failures in a row make the container unhealthy.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = Some(retries);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_as_docker_writes_them() {
        let limited = |max| RestartPolicy::OnFailure { max };
        for (text, expected) in [
            ("", Some(RestartPolicy::No)),
            ("no", Some(RestartPolicy::No)),
            ("always", Some(RestartPolicy::Always)),
            ("unless-stopped", Some(RestartPolicy::UnlessStopped)),
            ("on-failure", Some(limited(None))),
            ("on-failure:3", Some(limited(Some(3)))),
            ("on-failure:0", Some(limited(None))),
            ("on-failure:-1", None),
            ("on-failure:", None),
            ("always:3", None),
            ("never", None),
        ] {
            assert_eq!(RestartPolicy::parse(text).ok(), expected, "{text:?}");
        }
        assert_eq!(limited(Some(3)).to_string(), "on-failure:3");
    }

    #[test]
    fn on_failure_counts_and_looks_at_the_code() {
        let policy = RestartPolicy::OnFailure { max: Some(3) };
        assert!(policy.applies(1, 0) && policy.applies(1, 2));
        assert!(!policy.applies(1, 3) && !policy.applies(0, 0));
        assert!(RestartPolicy::Always.applies(0, 1000));
        assert!(RestartPolicy::Always.applies_at_boot(true));
        assert!(!RestartPolicy::UnlessStopped.applies_at_boot(true));
        assert!(RestartPolicy::UnlessStopped.applies_at_boot(false));
    }
}
