//! `compose logs`, and how the output of several containers looks on one screen.

use super::session::Session;
use crate::{Failure, Outcome, streams};
use clap::Args;
use rdock_compose::{OutputEvent, OutputOptions};
use rdock_runtime::{Error, LogLine, LogStream};
use std::collections::BTreeMap;
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Logs {
    /// Go on with new output
    #[arg(short, long)]
    follow: bool,
    /// Which of the service's containers, from 1
    #[arg(long)]
    index: Option<u32>,
    /// Only what came after (RFC 3339, or 10m for ten minutes ago)
    #[arg(long)]
    since: Option<String>,
    /// Only what came before
    #[arg(long)]
    until: Option<String>,
    /// Begin with the last lines of each container
    #[arg(short = 'n', long, default_value = "all", allow_negative_numbers = true)]
    tail: String,
    /// Show when each line came
    #[arg(short, long)]
    timestamps: bool,
    #[command(flatten)]
    look: Plain,
    /// Services; all without any
    services: Vec<String>,
}

/// What lines go without.
#[derive(Debug, Clone, Args)]
pub(super) struct Plain {
    /// No colours
    #[arg(long)]
    no_color: bool,
    /// No names before the lines
    #[arg(long)]
    no_log_prefix: bool,
}

/// How lines look.
#[derive(Debug, Clone, Args)]
pub(super) struct Look {
    #[command(flatten)]
    plain: Plain,
    /// Show when each line came
    #[arg(long)]
    timestamps: bool,
}

/// docker compose's colours, in its order.
const COLOURS: [u8; 10] = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94];

/// Prints lines of containers, each after the container's name.
pub(super) struct Printer {
    look: Look,
    colours: bool,
    width: usize,
    known: BTreeMap<String, u8>,
    /// Errors go to stderr.
    pub(super) apart: bool,
}

impl Printer {
    pub(super) fn new(session: &Session, look: &Look) -> Self {
        Self {
            colours: session.colours() && !look.plain.no_color,
            look: look.clone(),
            width: 0,
            known: BTreeMap::new(),
            apart: false,
        }
    }

    /// Makes room for a name.
    fn expect(&mut self, name: &str) {
        self.width = self.width.max(name.chars().count());
        if !self.known.contains_key(name) {
            let colour = COLOURS[self.known.len() % COLOURS.len()];
            self.known.insert(name.to_owned(), colour);
        }
    }

    fn coloured(&self, name: &str, text: String) -> String {
        match self.known.get(name).filter(|_| self.colours) {
            Some(colour) => format!("\x1b[{colour}m{text}\x1b[0m"),
            None => text,
        }
    }

    /// Prints a line; false when nobody reads any more.
    fn line(&self, name: &str, line: &LogLine) -> bool {
        let mut bytes = Vec::new();
        if !self.look.plain.no_log_prefix {
            let text = format!("{name:width$} | ", width = self.width + 1);
            bytes = self.coloured(name, text).into_bytes();
        }
        if self.look.timestamps {
            bytes.extend_from_slice(line.time.as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(&line.bytes);
        if bytes.last() != Some(&b'\n') {
            bytes.push(b'\n');
        }
        if self.apart && line.stream == LogStream::Stderr {
            return std::io::stderr().lock().write_all(&bytes).is_ok();
        }
        let mut out = std::io::stdout().lock();
        out.write_all(&bytes).and_then(|()| out.flush()).is_ok()
    }

    /// Shows it; false when nobody reads any more. A container that keeps no log, or that went away, is no reason to
    /// leave the others.
    pub(super) fn event(&mut self, event: OutputEvent) -> Result<bool, Failure> {
        match event {
            OutputEvent::Joined(speaker) => self.expect(&speaker.title),
            OutputEvent::Line(speaker, line) => {
                self.expect(&speaker.title);
                return Ok(self.line(&speaker.title, &line));
            }
            OutputEvent::Ended(speaker, Some(exit)) => {
                let text = format!("{} exited with code {}", speaker.title, exit.code());
                streams::print(&self.coloured(&speaker.title, text));
            }
            OutputEvent::Silent(_, Error::NoSuchContainer { .. }) => {}
            OutputEvent::Silent(speaker, error @ Error::NoLog { .. }) => {
                streams::say(&format!("WARNING: {}: {error}", speaker.title));
            }
            OutputEvent::Silent(_, error) => return Err(error.into()),
            _ => {}
        }
        Ok(true)
    }
}

impl Logs {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let mut options = OutputOptions::default();
        options.tail = match self.tail.parse::<i64>() {
            Ok(lines) => usize::try_from(lines).ok(),
            Err(_) if self.tail == "all" => None,
            Err(_) => {
                return Err(Failure::new(format!(
                    "--tail {}: expected a number or all",
                    self.tail
                )));
            }
        };
        options.services = self.services;
        options.number = self.index;
        options.follow = self.follow;
        options.since = self.since;
        options.until = self.until;
        let look = Look {
            plain: self.look,
            timestamps: self.timestamps,
        };
        let mut printer = Printer::new(session, &look);
        let mut output = project.output(&options).await?;
        for speaker in output.speakers() {
            printer.expect(&speaker.title);
        }
        while let Some(event) = output.next().await? {
            // As docker, which shows how containers end in `up` alone.
            if !matches!(event, OutputEvent::Ended(..)) && !printer.event(event)? {
                break;
            }
        }
        Ok(0)
    }
}
