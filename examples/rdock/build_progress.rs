//! What a build looks like while it runs: lines, lines drawn anew, or JSON.

use crate::build::ProgressKind;
use crate::streams::say;
use rdock_build::{BuildEvent, Hit, OutputStream, StepInfo, StepOutcome, StepReport};
use rdock_runtime::image::Event;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of a running command that a terminal shows.
const TAIL: usize = 6;

/// Shows the events of a build. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Screen(Arc<Mutex<State>>);

struct State {
    kind: ProgressKind,
    started: Instant,
    steps: BTreeMap<usize, Shown>,
    /// Lines on the terminal that may be drawn anew.
    drawn: usize,
    last: Option<usize>,
    drawn_at: Instant,
}

/// A step on the screen.
struct Shown {
    info: StepInfo,
    number: usize,
    started: Option<Instant>,
    /// Output that is no whole line yet.
    open: String,
    tail: Vec<String>,
    done: Option<String>,
    told: bool,
}

impl Screen {
    pub(crate) fn new(kind: ProgressKind) -> Self {
        Self(Arc::new(Mutex::new(State {
            kind,
            started: Instant::now(),
            steps: BTreeMap::new(),
            drawn: 0,
            last: None,
            drawn_at: Instant::now(),
        })))
    }

    pub(crate) fn show(&self, event: &BuildEvent) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.kind {
            ProgressKind::Quiet => {}
            ProgressKind::Json => {
                if let Some(text) = as_json(event) {
                    say(&text);
                }
            }
            _ => state.event(event),
        }
    }

    pub(crate) fn finish(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.kind == ProgressKind::Tty {
            state.draw(true);
        }
    }
}

impl State {
    fn event(&mut self, event: &BuildEvent) {
        match event {
            BuildEvent::Planned { steps } => {
                for (step, number) in steps.iter().zip(1..) {
                    let shown = Shown {
                        info: step.clone(),
                        number,
                        started: None,
                        open: String::new(),
                        tail: Vec::new(),
                        done: None,
                        told: false,
                    };
                    self.steps.insert(step.id, shown);
                }
            }
            BuildEvent::Warning { place, text } => {
                let place = place
                    .as_ref()
                    .map(|place| format!("{place}: "))
                    .unwrap_or_default();
                self.line(&format!("warning: {place}{text}"));
            }
            BuildEvent::Pull(Event::Resolving { reference }) => {
                self.line(&format!("resolving {}", reference.familiar()))
            }
            BuildEvent::Pull(Event::Resolved { reference, .. }) => {
                self.line(&format!("pulling {}", reference.familiar()))
            }
            BuildEvent::CacheImporting { from } => {
                self.line(&format!("importing cache manifest from {from}"))
            }
            BuildEvent::CacheExporting { to } => self.line(&format!("exporting cache to {to}")),
            BuildEvent::CacheExported { digest, .. } => {
                self.line(&format!("writing cache image manifest {digest}"))
            }
            BuildEvent::StepStarted { id } => {
                if let Some(step) = self.steps.get_mut(id) {
                    step.started = Some(Instant::now());
                }
                self.title(*id);
            }
            BuildEvent::StepCached { id, .. } => self.done(*id, "CACHED"),
            BuildEvent::StepFinished { id, took } => {
                let text = format!("DONE {:.1}s", took.as_secs_f64());
                self.done(*id, &text);
            }
            BuildEvent::StepFailed { id } => self.done(*id, "ERROR"),
            BuildEvent::StepOutput { id, bytes, .. } => self.output(*id, &String::from_utf8_lossy(bytes)),
            BuildEvent::Done { image, names } => {
                self.line(&format!("writing image {image}"));
                for name in names {
                    self.line(&format!("naming to {name}"));
                }
            }
            _ => {}
        }
        if self.kind == ProgressKind::Tty {
            self.draw(false);
        }
    }

    /// A line of its own.
    fn line(&mut self, text: &str) {
        self.erase();
        say(text);
    }

    fn title(&mut self, id: usize) {
        if self.kind == ProgressKind::Tty {
            return;
        }
        if let Some(step) = self.steps.get_mut(&id) {
            let text = if step.told {
                format!("#{} ...", step.number)
            } else {
                format!("#{} {}", step.number, step.info.name)
            };
            step.told = true;
            if self.last != Some(id) {
                say(&text);
                self.last = Some(id);
            }
        }
    }

    fn done(&mut self, id: usize, text: &str) {
        let kind = self.kind;
        if kind != ProgressKind::Tty {
            self.title(id);
        }
        let Some(step) = self.steps.get_mut(&id) else {
            return;
        };
        let rest = std::mem::take(&mut step.open);
        step.done = Some(text.to_owned());
        if kind != ProgressKind::Tty {
            if !rest.is_empty() {
                say(&format!("#{} {rest}", step.number));
            }
            say(&format!("#{} {text}", step.number));
            self.last = None;
        }
    }

    fn output(&mut self, id: usize, text: &str) {
        let kind = self.kind;
        let mut lines = Vec::new();
        {
            let Some(step) = self.steps.get_mut(&id) else {
                return;
            };
            step.open.push_str(text);
            while let Some(at) = step.open.find('\n') {
                let line: String = step.open.drain(..=at).collect();
                lines.push(line.trim_end().rsplit('\r').next().unwrap_or_default().to_owned());
            }
            if kind == ProgressKind::Tty {
                step.tail.append(&mut lines);
                let more = step.tail.len().saturating_sub(TAIL);
                step.tail.drain(..more);
                return;
            }
        }
        if lines.is_empty() {
            return;
        }
        self.title(id);
        let Some(step) = self.steps.get(&id) else { return };
        let seconds = step
            .started
            .map_or(0.0, |started| started.elapsed().as_secs_f64());
        for line in lines {
            say(&format!("#{} {seconds:.3} {line}", step.number));
        }
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            let _ = write!(std::io::stderr(), "\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    /// Draws the steps anew, at most some times a second.
    fn draw(&mut self, last: bool) {
        if !last && self.drawn_at.elapsed() < Duration::from_millis(60) && self.drawn > 0 {
            return;
        }
        self.drawn_at = Instant::now();
        let size = usize::from(crate::streams::size().1.max(40));
        self.erase();
        let mut text = String::new();
        let done = self.steps.values().filter(|step| step.done.is_some()).count();
        let mut lines = vec![format!(
            "[+] Building {:.1}s ({done}/{})",
            self.started.elapsed().as_secs_f64(),
            self.steps.len()
        )];
        for step in self.steps.values() {
            let (mark, time) = match (&step.done, step.started) {
                (Some(done), _) => ("=>", done.clone()),
                (None, Some(started)) => ("=>", format!("{:.1}s", started.elapsed().as_secs_f64())),
                (None, None) => continue,
            };
            lines.push(format!(" {mark} {}  {time}", step.info.name));
            if step.done.is_none() || step.done.as_deref() == Some("ERROR") {
                lines.extend(step.tail.iter().map(|line| format!(" => => # {line}")));
            }
        }
        for line in &lines {
            let plain: String = line
                .chars()
                .filter(|c| !c.is_control())
                .take(size.saturating_sub(1))
                .collect();
            text.push_str(&plain);
            text.push('\n');
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
        self.drawn = if last { 0 } else { lines.len() };
    }
}

fn as_json(event: &BuildEvent) -> Option<String> {
    let value = match event {
        BuildEvent::Planned { steps } => json!({"event": "planned", "steps": steps.iter().map(|step| json!({
            "id": step.id,
            "name": step.name,
            "line": step.place.as_ref().map(|place| place.line),
            "file": step.place.as_ref().map(|place| place.file.clone()),
        })).collect::<Vec<_>>()}),
        BuildEvent::Warning { place, text } => {
            json!({"event": "warning", "text": text, "line": place.as_ref().map(|place| place.line)})
        }
        BuildEvent::StepStarted { id } => json!({"event": "started", "id": id}),
        BuildEvent::StepCached { id, by } => json!({"event": "cached", "id": id, "by": match by {
            Hit::Definition => "definition",
            _ => "content",
        }}),
        BuildEvent::StepOutput { id, stream, bytes } => {
            json!({"event": "output", "id": id, "stream": match stream {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        }, "text": String::from_utf8_lossy(bytes)})
        }
        BuildEvent::StepFinished { id, took } => {
            json!({"event": "finished", "id": id, "seconds": took.as_secs_f64()})
        }
        BuildEvent::StepFailed { id } => json!({"event": "failed", "id": id}),
        BuildEvent::CacheImported { from, steps } => {
            json!({"event": "cache-imported", "from": from, "steps": steps})
        }
        BuildEvent::CacheExported { to, digest } => {
            json!({"event": "cache-exported", "to": to, "digest": digest.to_string()})
        }
        BuildEvent::Exporting => json!({"event": "exporting"}),
        BuildEvent::Done { image, names } => json!({"event": "done", "image": image.to_string(),
            "names": names.iter().map(ToString::to_string).collect::<Vec<_>>()}),
        _ => return None,
    };
    Some(value.to_string())
}

/// A step and what came of it, for `--explain`.
pub(crate) fn explained(step: &StepReport) -> String {
    let text = match &step.outcome {
        StepOutcome::Base => "base".to_owned(),
        StepOutcome::Cached { by: Hit::Content } => "cached (other inputs with the same content)".to_owned(),
        StepOutcome::Cached { .. } => "cached".to_owned(),
        StepOutcome::Missed { why } => {
            let why: Vec<String> = why.iter().take(8).map(ToString::to_string).collect();
            format!("runs: {}", why.join(", "))
        }
        _ => String::new(),
    };
    format!("{}: {text}", step.name)
}
