//! `rdock logs`.

use crate::Outcome;
use clap::Args;
use rdock_runtime::{LogStream, Runtime};
use std::io::Write;

#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    /// Go on with new output
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last lines
    #[arg(short = 'n', long, default_value = "all")]
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
    /// The container
    container: String,
}

impl LogsArguments {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let mut logs = runtime.container(&self.container)?.logs().follow(self.follow);
        if let Ok(lines) = self.tail.parse() {
            logs = logs.tail(lines);
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
