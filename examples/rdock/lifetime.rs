//! Flags of `run`, `create`, `attach` and `start` about how long a container lives, how it is checked, and how a
//! terminal leaves it.

use crate::Failure;
use clap::Args;
use rdock_runtime::{ContainerSpec, HealthCheck, HealthTest, RestartPolicy};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct Lifetime {
    /// What happens when the container ends: no, on-failure[:N], always or unless-stopped
    #[arg(long, default_value = "no")]
    restart: String,
    /// Command that checks the container's health
    #[arg(long)]
    health_cmd: Option<String>,
    /// From one check to the next (30s)
    #[arg(long)]
    health_interval: Option<String>,
    /// How long a check may take (30s)
    #[arg(long)]
    health_timeout: Option<String>,
    /// Failures in a row until unhealthy (3)
    #[arg(long)]
    health_retries: Option<u32>,
    /// How long failures do not count at the beginning (0s)
    #[arg(long)]
    health_start_period: Option<String>,
    /// The longest pause between two checks before the first success
    #[arg(long)]
    health_start_interval: Option<String>,
    /// Check nothing, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
    /// Read labels from a file
    #[arg(long)]
    label_file: Vec<PathBuf>,
}

fn wrong(message: String) -> Failure {
    Failure {
        code: 125,
        ..Failure::new(message)
    }
}

/// A duration as docker writes it: `1m30s`, `500ms`, `1.5h`; `0` needs no unit.
pub(crate) fn duration(flag: &str, text: &str) -> Result<Duration, Failure> {
    let refuse = || {
        wrong(format!(
            "{flag} {text}: expected a duration such as 1m30s or 500ms"
        ))
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() || text.starts_with(['-', '+', 'P', 'p']) || text.contains(' ') {
        return Err(refuse());
    }
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| refuse())?;
    Duration::try_from(parsed).map_err(|_| refuse())
}

impl Lifetime {
    /// Sets what the flags ask for.
    pub(crate) fn apply(&self, spec: &mut ContainerSpec) -> Result<(), Failure> {
        spec.restart = RestartPolicy::parse(&self.restart).map_err(|error| wrong(crate::chain(&error)))?;
        if spec.restart != RestartPolicy::No && spec.auto_remove {
            return Err(wrong(
                "conflicting options: cannot specify both --restart and --rm".into(),
            ));
        }
        for path in &self.label_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| wrong(format!("{}: {error}", path.display())))?;
            let lines = text.lines().map(str::trim);
            for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let (name, value) = line.split_once('=').unwrap_or((line, ""));
                // A flag wins over a file.
                spec.labels
                    .entry(name.to_owned())
                    .or_insert_with(|| value.to_owned());
            }
        }
        let given =
            |flag: &str, text: &Option<String>| text.as_deref().map(|text| duration(flag, text)).transpose();
        let mut check = HealthCheck::default();
        if let Some(command) = &self.health_cmd {
            check.test = HealthTest::Shell(command.clone());
        }
        check.interval = given("--health-interval", &self.health_interval)?;
        check.timeout = given("--health-timeout", &self.health_timeout)?;
        check.start_period = given("--health-start-period", &self.health_start_period)?;
        check.start_interval = given("--health-start-interval", &self.health_start_interval)?;
        check.retries = self.health_retries.filter(|retries| *retries > 0);
        if self.no_healthcheck {
            if check != HealthCheck::default() {
                return Err(wrong("--no-healthcheck conflicts with --health-* options".into()));
            }
            check.test = HealthTest::None;
        }
        spec.health = (check != HealthCheck::default()).then_some(check);
        Ok(())
    }
}

/// How a terminal is connected to a container that may outlive the connection.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Keys that leave the container running, such as ctrl-p,ctrl-q
    #[arg(long)]
    detach_keys: Option<String>,
    /// Pass signals to the container
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
}

impl Connection {
    /// Whether anything is asked for.
    pub(crate) fn is_default(&self) -> bool {
        self.detach_keys.is_none() && self.sig_proxy
    }

    pub(crate) fn passes_signals(&self) -> bool {
        self.sig_proxy
    }

    /// The bytes that the detach keys send.
    pub(crate) fn keys(&self) -> Result<Vec<u8>, Failure> {
        parse_keys(self.detach_keys.as_deref().unwrap_or("ctrl-p,ctrl-q"))
    }
}

/// docker's form: single characters and `ctrl-` with a letter or one of `@ [ \ ] ^ _`, with commas.
fn parse_keys(text: &str) -> Result<Vec<u8>, Failure> {
    let refuse = |key: &str| {
        wrong(format!(
            "invalid detach keys ({text}): {key:?} is neither a character nor ctrl-<value>"
        ))
    };
    text.split(',')
        .map(|key| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
            (None, [byte]) => Ok(*byte),
            (Some(value), _) => match value.as_bytes() {
                [letter @ b'a'..=b'z'] => Ok(letter - b'a' + 1),
                [letter @ b'@'..=b'_'] => Ok(letter & 0x1f),
                _ => Err(refuse(key)),
            },
            _ => Err(refuse(key)),
        })
        .collect()
}
