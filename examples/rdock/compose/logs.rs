//! `compose logs`, and the output of several containers on one screen.

use super::session::{Session, is_one_off, number, service};
use crate::{Failure, Outcome, streams};
use clap::Args;
use rdock_compose::{ComposeProject, label};
use rdock_runtime::{ContainerInfo, Error, EventAction, EventKind, LogLine, LogStream, Runtime};
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use tokio::sync::mpsc;

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
    #[command(flatten)]
    look: Look,
    /// Services; all without any
    services: Vec<String>,
}

/// How lines look.
#[derive(Debug, Clone, Args)]
pub(super) struct Look {
    /// No colours
    #[arg(long)]
    no_color: bool,
    /// No names before the lines
    #[arg(long)]
    no_log_prefix: bool,
    /// Show when each line came
    #[arg(long)]
    timestamps: bool,
}

/// What a container's lines begin with: `web-1`, or the name it was given.
pub(super) fn title(project: &str, info: &ContainerInfo) -> String {
    let prefix = format!("{project}-");
    match (is_one_off(info), info.name.strip_prefix(&prefix)) {
        (true, Some(rest)) => rest.to_owned(),
        (false, Some(_)) => format!("{}-{}", service(info), number(info)),
        // Its place-holder's name before it takes the place of another.
        (false, None) if info.name.contains(&prefix) => format!("{}-{}", service(info), number(info)),
        _ => info.name.clone(),
    }
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
            colours: session.colours() && !look.no_color,
            look: look.clone(),
            width: 0,
            known: BTreeMap::new(),
            apart: false,
        }
    }

    /// Makes room for a name.
    pub(super) fn expect(&mut self, name: &str) {
        self.width = self.width.max(name.chars().count());
        if !self.known.contains_key(name) {
            let colour = COLOURS[self.known.len() % COLOURS.len()];
            self.known.insert(name.to_owned(), colour);
        }
    }

    fn prefix(&self, name: &str) -> String {
        if self.look.no_log_prefix {
            return String::new();
        }
        let text = format!("{name:width$} | ", width = self.width + 1);
        match self.known.get(name).filter(|_| self.colours) {
            Some(colour) => format!("\x1b[{colour}m{text}\x1b[0m"),
            None => text,
        }
    }

    /// Prints a line; false when nobody reads any more.
    pub(super) fn line(&self, name: &str, line: &LogLine) -> bool {
        let mut bytes = self.prefix(name).into_bytes();
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

    /// Says something about a container.
    pub(super) fn remark(&self, name: &str, text: &str) {
        let text = match self.colours {
            true => format!("{}{text}", self.prefix(name)),
            false => format!("{name} {text}"),
        };
        streams::print(&text);
    }
}

/// Something about the output of a container.
pub(super) enum Said {
    Line(String, LogLine),
    /// It has ended, or cannot be followed any further.
    End(String, Option<Error>),
    /// It was started.
    Start(String),
}

/// Follows containers, by their ids.
pub(super) struct Followed {
    runtime: Runtime,
    tell: mpsc::Sender<Said>,
    pub(super) heard: mpsc::Receiver<Said>,
    open: HashSet<String>,
    titles: BTreeMap<String, String>,
}

impl Followed {
    pub(super) fn new(runtime: &Runtime) -> Self {
        let (tell, heard) = mpsc::channel(1024);
        Self {
            runtime: runtime.clone(),
            tell,
            heard,
            open: HashSet::new(),
            titles: BTreeMap::new(),
        }
    }

    /// Says when containers of the project are started from now on.
    pub(super) fn starts(&self, project: &str) {
        let mut events = self
            .runtime
            .events()
            .kind(EventKind::Container)
            .action(EventAction::Start)
            .label(label::PROJECT, Some(project));
        let tell = self.tell.clone();
        tokio::spawn(async move {
            while let Ok(Some(event)) = events.next().await {
                if tell.send(Said::Start(event.id)).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Whether any container is followed.
    pub(super) fn any(&self) -> bool {
        !self.open.is_empty()
    }

    pub(super) fn title<'a>(&'a self, id: &'a str) -> &'a str {
        self.titles.get(id).map_or(id, String::as_str)
    }

    /// Follows a container from its first line on that `since` lets pass.
    pub(super) fn follow(
        &mut self,
        id: &str,
        title: String,
        logs: impl FnOnce(rdock_runtime::Logs) -> Result<rdock_runtime::Logs, Error>,
    ) -> Result<(), Failure> {
        if !self.open.insert(id.to_owned()) {
            return Ok(());
        }
        self.titles.insert(id.to_owned(), title);
        let mut logs = logs(self.runtime.container(id)?.logs().follow(true))?;
        let (tell, id) = (self.tell.clone(), id.to_owned());
        tokio::spawn(async move {
            let error = loop {
                match logs.next().await {
                    Ok(Some(line)) => {
                        if tell.send(Said::Line(id.clone(), line)).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            // Nobody hears it when everything has ended anyway.
            let _ = tell.send(Said::End(id, error)).await;
        });
        Ok(())
    }

    /// A container is not followed any more.
    pub(super) fn ended(&mut self, id: &str) {
        self.open.remove(id);
    }
}

impl Logs {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let tail = match self.tail.parse::<i64>() {
            Ok(lines) => usize::try_from(lines).ok(),
            Err(_) if self.tail == "all" => None,
            Err(_) => {
                return Err(Failure::new(format!(
                    "--tail {}: expected a number or all",
                    self.tail
                )));
            }
        };
        let project = session.known()?;
        let mut found = session.containers(&project, &self.services, false)?;
        found.retain(|info| self.index.is_none_or(|index| number(info) == index));
        let mut printer = Printer::new(session, &self.look);
        let name = &project.project().name;
        for info in &found {
            printer.expect(&title(name, info));
        }
        match self.follow {
            true => self.follow(session, &project, found, printer, tail).await,
            false => self.print(session, name, found, &printer, tail).await,
        }
    }

    fn ask(&self, logs: rdock_runtime::Logs, tail: Option<usize>) -> Result<rdock_runtime::Logs, Error> {
        let mut logs = logs;
        if let Some(lines) = tail {
            logs = logs.tail(lines);
        }
        if let Some(when) = &self.since {
            logs = logs.since(when)?;
        }
        if let Some(when) = &self.until {
            logs = logs.until(when)?;
        }
        Ok(logs)
    }

    /// The lines of all, in the order they came.
    async fn print(
        &self,
        session: &Session,
        project: &str,
        found: Vec<ContainerInfo>,
        printer: &Printer,
        tail: Option<usize>,
    ) -> Outcome {
        let mut open = Vec::new();
        for info in found {
            let logs = self.ask(session.runtime().container(&info.id)?.logs(), tail)?;
            let mut logs = logs;
            let title = title(project, &info);
            if let Some(line) = next(&mut logs, &title).await? {
                open.push((line, title, logs));
            }
        }
        while let Some(first) = (0..open.len()).min_by(|a, b| open[*a].0.time.cmp(&open[*b].0.time)) {
            let (line, title, logs) = &mut open[first];
            if !printer.line(title, line) {
                break;
            }
            match next(logs, title).await? {
                Some(more) => *line = more,
                None => drop(open.remove(first)),
            }
        }
        Ok(0)
    }

    async fn follow(
        &self,
        session: &Session,
        project: &ComposeProject,
        found: Vec<ContainerInfo>,
        mut printer: Printer,
        tail: Option<usize>,
    ) -> Outcome {
        let name = &project.project().name;
        let mut followed = Followed::new(session.runtime());
        followed.starts(name);
        for info in found {
            followed.follow(&info.id, title(name, &info), |logs| self.ask(logs, tail))?;
        }
        while followed.any() {
            let Some(said) = followed.heard.recv().await else {
                break;
            };
            match said {
                Said::Line(id, line) => {
                    if !printer.line(followed.title(&id), &line) {
                        break;
                    }
                }
                Said::End(id, error) => {
                    followed.ended(&id);
                    match error {
                        Some(error) => unreadable(followed.title(&id), error)?,
                        None if self.until.is_some() => {}
                        // It may have been started again before its end was seen.
                        None => drop(again(session, &mut followed, &id)?),
                    }
                }
                Said::Start(id) => {
                    let Ok(info) = session.runtime().container(&id).and_then(|found| found.inspect()) else {
                        continue;
                    };
                    let wanted =
                        self.services.is_empty() || self.services.iter().any(|name| service(&info) == name);
                    if wanted && !is_one_off(&info) && self.index.is_none_or(|index| number(&info) == index) {
                        let title = title(name, &info);
                        printer.expect(&title);
                        let since = info.started_at.clone().unwrap_or_default();
                        followed.follow(&id, title, |logs| logs.since(&since))?;
                    }
                }
            }
        }
        Ok(0)
    }
}

/// Follows a container again that runs although its output had an end.
pub(super) fn again(session: &Session, followed: &mut Followed, id: &str) -> Result<bool, Failure> {
    let Ok(info) = session.runtime().container(id).and_then(|found| found.inspect()) else {
        return Ok(false);
    };
    if !info.status.is_running() {
        return Ok(false);
    }
    let since = info.started_at.unwrap_or_default();
    let title = followed.title(id).to_owned();
    followed.follow(id, title, |logs| logs.since(&since))?;
    Ok(true)
}

/// The next line; what keeps no log has none.
async fn next(logs: &mut rdock_runtime::Logs, title: &str) -> Result<Option<LogLine>, Failure> {
    match logs.next().await {
        Ok(line) => Ok(line),
        Err(error) => unreadable(title, error).map(|()| None),
    }
}

/// A container that keeps no log, or that went away, is no reason to leave the others.
pub(super) fn unreadable(title: &str, error: Error) -> Result<(), Failure> {
    match error {
        Error::NoLog { .. } => {
            streams::say(&format!("WARNING: {title}: {error}"));
            Ok(())
        }
        Error::NoSuchContainer { .. } => Ok(()),
        other => Err(other.into()),
    }
}
