//! `rdock logs`.

use crate::{Failure, Outcome};
use clap::Args;
use rdock_runtime::{LogStream, Runtime};
use std::io::Write;

#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    /// Go on with new output
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last lines
    #[arg(short = 'n', long, default_value = "all", allow_negative_numbers = true)]
    tail: String,
    /// Only what came after (RFC 3339, or 10m for ten minutes ago)
    #[arg(long)]
    since: Option<String>,
    /// Only what came before
    #[arg(long)]
    until: Option<String>,
    /// Show when each line came
    #[arg(short, long)]
    timestamps: bool,
    /// Show what --log-opt labels, env and tag keep with each line
    #[arg(long)]
    details: bool,
    /// The container
    container: String,
}

impl LogsArguments {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let mut logs = runtime.container(&self.container)?.logs().follow(self.follow);
        match self.tail.parse() {
            Ok(lines) => logs = logs.tail(lines),
            // A negative number is no limit, as in docker.
            Err(_) if self.tail == "all" || self.tail.parse::<i64>().is_ok_and(|lines| lines < 0) => {}
            Err(_) => {
                return Err(Failure::new(format!(
                    "--tail {}: expected a number or all",
                    self.tail
                )));
            }
        }
        if let Some(when) = &self.since {
            logs = logs.since(when)?;
        }
        if let Some(when) = &self.until {
            logs = logs.until(when)?;
        }
        while let Some(line) = logs.next().await? {
            let mut bytes = Vec::new();
            if self.timestamps {
                bytes.extend_from_slice(line.time.as_bytes());
                bytes.push(b' ');
            }
            if self.details {
                let details = line.details.iter().map(|(name, value)| format!("{name}={value}"));
                bytes.extend_from_slice(details.collect::<Vec<_>>().join(",").as_bytes());
                bytes.push(b' ');
            }
            bytes.extend_from_slice(&line.bytes);
            let written = match line.stream {
                LogStream::Stdout => std::io::stdout().write_all(&bytes),
                LogStream::Stderr => std::io::stderr().write_all(&bytes),
            };
            if written.is_err() {
                break;
            }
        }
        Ok(0)
    }
}
