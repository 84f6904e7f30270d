//! The output of a project's containers together: what was said, and what is being said.

use crate::apply::{ApplyError, ComposeProject};
use crate::containers::{Member, Members};
use crate::names::label;
use rdock_runtime::{
    ContainerInfo, Error, EventAction, EventKind, Events, Exit, LogLine, Logs, Runtime, Status,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Which output, and from when to when.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OutputOptions {
    /// That of these services; of all if empty.
    pub services: Vec<String>,
    /// Only of the containers with this number.
    pub number: Option<u32>,
    /// Goes on with new lines until every container has ended. Containers that are started meanwhile are heard too.
    pub follow: bool,
    /// Begins with this many last lines of each container.
    pub tail: Option<usize>,
    /// Only what came after; as [`Logs::since`] reads it.
    pub since: Option<String>,
    /// Only what came before; as [`Logs::until`] reads it.
    pub until: Option<String>,
}

/// Whose output it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Speaker {
    /// The container's id.
    pub id: String,
    /// The container's service.
    pub service: String,
    /// What its lines begin with: `web-1`.
    pub title: String,
}

/// Something about the output of a project.
#[derive(Debug)]
#[non_exhaustive]
pub enum OutputEvent {
    /// Its output is followed from now on.
    Joined(Arc<Speaker>),
    /// A line.
    Line(Arc<Speaker>, LogLine),
    /// A container has ended, and all its lines have come.
    Ended(Arc<Speaker>, Option<Exit>),
    /// The output of a container cannot be had.
    Silent(Arc<Speaker>, Error),
}

impl Speaker {
    fn of(info: &ContainerInfo) -> Option<Arc<Self>> {
        let member = Member::of(info)?;
        Some(Arc::new(Self {
            id: info.id.clone(),
            title: member.title(&info.name),
            service: member.service,
        }))
    }
}

/// The output of a project; made by [`ComposeProject::output`].
#[derive(Debug)]
pub struct Output {
    options: OutputOptions,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Each with its next line, which is the oldest that it has.
    Said(Vec<(LogLine, Arc<Speaker>, Logs)>, Vec<OutputEvent>),
    Followed(Box<Followed>),
}

impl ComposeProject {
    /// The output of the containers that there are: the lines of all in the order in which they came, or, followed,
    /// as they come.
    ///
    /// # Errors
    /// [`Self::containers`]'s, and [`rdock_runtime::Error::Time`] for a time that cannot be read.
    pub async fn output(&self, options: &OutputOptions) -> Result<Output, ApplyError> {
        let found = self.containers(&Members::of(&options.services))?;
        let name = &self.project().name;
        let mut followed = Followed::new(self.runtime(), name);
        followed.limited = options.until.is_some();
        let (mut open, mut before) = (Vec::new(), Vec::new());
        for info in &found {
            let Some(speaker) = Speaker::of(info).filter(|_| options.fits(info)) else {
                continue;
            };
            if options.follow {
                followed.join(&info.id, speaker, |logs| options.ask(logs))?;
                continue;
            }
            let mut logs = options.ask(self.runtime().container(&info.id)?.logs())?;
            match logs.next().await {
                Ok(Some(line)) => open.push((line, speaker, logs)),
                Ok(None) => {}
                Err(error) => before.push(OutputEvent::Silent(speaker, error)),
            }
        }
        Ok(Output {
            options: options.clone(),
            kind: match options.follow {
                true => Kind::Followed(Box::new(followed)),
                false => Kind::Said(open, before),
            },
        })
    }
}

impl OutputOptions {
    fn ask(&self, logs: Logs) -> Result<Logs, Error> {
        let mut logs = logs;
        if let Some(lines) = self.tail {
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

    fn fits(&self, info: &ContainerInfo) -> bool {
        Member::of(info).is_some_and(|member| {
            !member.one_off
                && (self.services.is_empty() || self.services.contains(&member.service))
                && self.number.is_none_or(|number| member.number == number)
        })
    }
}

impl Output {
    /// Everyone whose output is shown so far.
    pub fn speakers(&self) -> Vec<Arc<Speaker>> {
        match &self.kind {
            Kind::Said(open, _) => open.iter().map(|(_, speaker, _)| speaker.clone()).collect(),
            Kind::Followed(followed) => {
                let mut speakers: Vec<_> = followed.speakers.values().cloned().collect();
                speakers.sort_by(|a, b| a.title.cmp(&b.title));
                speakers
            }
        }
    }

    /// What comes next; none at the end. Nothing is lost when the future is dropped before it is done, if the output
    /// is followed.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub async fn next(&mut self) -> Result<Option<OutputEvent>, ApplyError> {
        let followed = match &mut self.kind {
            Kind::Followed(followed) => followed,
            Kind::Said(open, before) => {
                if let Some(event) = before.pop() {
                    return Ok(Some(event));
                }
                let first = (0..open.len()).min_by(|a, b| open[*a].0.time.cmp(&open[*b].0.time));
                let Some(first) = first else { return Ok(None) };
                let (line, speaker, logs) = &mut open[first];
                let speaker = speaker.clone();
                let line = match logs.next().await? {
                    Some(next) => std::mem::replace(line, next),
                    None => open.swap_remove(first).0,
                };
                return Ok(Some(OutputEvent::Line(speaker, line)));
            }
        };
        let options = &self.options;
        while followed.any() {
            match followed.heard().await? {
                Heard::Event(event) => return Ok(Some(event)),
                Heard::Started(info) if options.fits(&info) && options.until.is_none() => {
                    if let Some(speaker) = followed.join_started(&info)? {
                        return Ok(Some(OutputEvent::Joined(speaker)));
                    }
                }
                Heard::Started(_) => {}
            }
        }
        Ok(None)
    }
}

/// What is heard of containers that are followed.
pub(crate) enum Heard {
    Event(OutputEvent),
    /// A container of the project was started.
    Started(Box<ContainerInfo>),
}

enum Told {
    Line(Arc<Speaker>, LogLine),
    Silent(Arc<Speaker>, Error),
    /// Its output has an end.
    End(Arc<Speaker>),
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told(..)")
    }
}

/// Containers that are followed until they end, and those that are started meanwhile.
#[derive(Debug)]
pub(crate) struct Followed {
    runtime: Runtime,
    starts: Events,
    /// When all this began, in unix seconds: what was said before is of an earlier life.
    began: String,
    tell: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    /// Containers that have not ended, by their ids.
    open: BTreeSet<String>,
    speakers: HashMap<String, Arc<Speaker>>,
    /// When each container's last line came.
    last: HashMap<String, String>,
    /// Their output may end before they do, and then they are not followed again.
    limited: bool,
    // They end with this value.
    tasks: JoinSet<()>,
}

impl Followed {
    /// Nobody yet; what is started from now on is heard.
    pub(crate) fn new(runtime: &Runtime, project: &str) -> Self {
        let (tell, told) = mpsc::channel(1024);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            runtime: runtime.clone(),
            starts: runtime
                .events()
                .kind(EventKind::Container)
                .action(EventAction::Start)
                .label(label::PROJECT, Some(project)),
            began: format!("{}.{:09}", now.as_secs(), now.subsec_nanos()),
            tell,
            told,
            open: BTreeSet::new(),
            speakers: HashMap::new(),
            last: HashMap::new(),
            limited: false,
            tasks: JoinSet::new(),
        }
    }

    /// Whether any container is followed.
    pub(crate) fn any(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether a container is or was followed.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.speakers.contains_key(id)
    }

    /// Follows a container that runs, from its first line on that is new here. None if that is done already.
    pub(crate) fn join_started(&mut self, info: &ContainerInfo) -> Result<Option<Arc<Speaker>>, Error> {
        let Some(speaker) = Speaker::of(info) else {
            return Ok(None);
        };
        let from = self.last.get(&info.id).unwrap_or(&self.began).clone();
        let joined = self.join(&info.id, speaker.clone(), |logs| logs.since(&from))?;
        Ok(joined.then_some(speaker))
    }

    /// Follows a container's output as `ask` wants it; false if that is done already.
    fn join(
        &mut self,
        id: &str,
        speaker: Arc<Speaker>,
        ask: impl FnOnce(Logs) -> Result<Logs, Error>,
    ) -> Result<bool, Error> {
        if self.open.contains(id) {
            return Ok(false);
        }
        let container = match self.runtime.container(id) {
            Ok(container) => container,
            // Removed meanwhile.
            Err(Error::NoSuchContainer { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut logs = ask(container.logs().follow(true))?;
        self.open.insert(id.to_owned());
        self.speakers.insert(id.to_owned(), speaker.clone());
        let (tell, last) = (self.tell.clone(), self.last.get(id).cloned());
        self.tasks.spawn(async move {
            loop {
                match logs.next().await {
                    // It was shown before the container was started again.
                    Ok(Some(line)) if last.as_ref().is_some_and(|last| line.time <= *last) => {}
                    Ok(Some(line)) => {
                        if tell.send(Told::Line(speaker.clone(), line)).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        // Nobody hears it when everything has ended anyway.
                        let _ = tell.send(Told::Silent(speaker.clone(), error)).await;
                        // It ends all the same, which may be what is waited for; how is looked up then.
                        let _ = container.wait().await;
                        break;
                    }
                }
            }
            let _ = tell.send(Told::End(speaker)).await;
        });
        Ok(true)
    }

    /// What comes next. Nothing is lost when the future is dropped.
    pub(crate) async fn heard(&mut self) -> Result<Heard, Error> {
        loop {
            let told = tokio::select! {
                // Lines first: what a container said before another started comes before that.
                biased;
                Some(told) = self.told.recv() => told,
                event = self.starts.next() => {
                    let Some(event) = event? else {
                        // Events that are followed have no end.
                        continue;
                    };
                    // One that is gone already has nothing to show.
                    match self.runtime.container(&event.id).and_then(|found| found.inspect()) {
                        Ok(info) => return Ok(Heard::Started(Box::new(info))),
                        Err(_) => continue,
                    }
                }
            };
            let event = match told {
                Told::Line(speaker, line) => {
                    self.last.insert(speaker.id.clone(), line.time.clone());
                    OutputEvent::Line(speaker, line)
                }
                Told::Silent(speaker, error) => OutputEvent::Silent(speaker, error),
                Told::End(speaker) => match self.end(speaker)? {
                    Some(event) => event,
                    None => continue,
                },
            };
            return Ok(Heard::Event(event));
        }
    }

    /// A container's output has an end: it has ended, unless it was started again meanwhile.
    fn end(&mut self, speaker: Arc<Speaker>) -> Result<Option<OutputEvent>, Error> {
        self.open.remove(&speaker.id);
        let info = self
            .runtime
            .container(&speaker.id)
            .and_then(|found| found.inspect());
        let Ok(info) = info else {
            return Ok(Some(OutputEvent::Ended(speaker, None)));
        };
        Ok(match &info.status {
            Status::Exited(exit) => Some(OutputEvent::Ended(speaker, Some(exit.clone()))),
            Status::Running | Status::Paused | Status::Restarting(_) if !self.limited => {
                self.join_started(&info)?;
                None
            }
            _ => Some(OutputEvent::Ended(speaker, None)),
        })
    }
}
