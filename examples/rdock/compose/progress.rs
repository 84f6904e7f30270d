//! What happens to a project, on stderr: lines, lines drawn anew, or JSON.

use super::Shown;
use crate::build::ProgressKind;
use crate::build_progress::Screen;
use crate::streams::say;
use crate::table::size;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rdock_compose::plan::{HookKind, Operation, Step, WaitCondition};
use rdock_compose::{ApplyEvent, ImageEvent};
use rdock_runtime::image::Event;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often what is under way is drawn.
const TICK: Duration = Duration::from_millis(100);

/// What is not told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Quiet {
    pub(super) all: bool,
    pub(super) pull: bool,
    pub(super) build: bool,
}

/// Shows events.
pub(super) struct Lines {
    manner: Manner,
    quiet: Quiet,
    builds: Mutex<HashMap<usize, Screen>>,
}

enum Manner {
    Plain,
    Json,
    Terminal(Terminal),
}

/// One line a thing, drawn anew, which says what became of it.
#[derive(Default)]
struct Terminal {
    screen: MultiProgress,
    drawn: Mutex<Drawn>,
}

/// What is on the screen and may still change.
#[derive(Default)]
struct Drawn {
    /// How many of the things are done.
    head: Option<ProgressBar>,
    /// In the order in which they came.
    things: Vec<Thing>,
    /// Layers that come: bytes that are here, and all.
    layers: HashMap<(usize, String), (u64, u64)>,
    /// Others write below from now on: what happens is said in lines.
    closed: bool,
}

/// A thing with its line.
struct Thing {
    id: String,
    bar: ProgressBar,
    /// When the first step for it began.
    began: Instant,
    working: bool,
}

/// How far a step is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Working,
    Done,
    Error,
}

impl Lines {
    /// Whether this program's terminal may be drawn on, if it has one, is the caller's to say.
    pub(super) fn new(shown: Shown, quiet: Quiet, drawing: bool) -> Self {
        let terminal = || rustix::termios::isatty(rustix::stdio::stderr());
        let manner = match shown {
            Shown::Tty if terminal() => Manner::Terminal(Terminal::default()),
            Shown::Auto if drawing && terminal() => Manner::Terminal(Terminal::default()),
            Shown::Json => Manner::Json,
            _ => Manner::Plain,
        };
        Self {
            manner,
            quiet: Quiet {
                all: quiet.all || shown == Shown::Quiet,
                ..quiet
            },
            builds: Mutex::default(),
        }
    }

    pub(super) fn show(&self, event: &ApplyEvent<'_>) {
        match event {
            // What a container lacks is said however quiet the rest is.
            ApplyEvent::Warning { step, message } => {
                self.line(&format!("WARNING: {}: {message}", step.operation));
            }
            _ if self.quiet.all => {}
            ApplyEvent::Started { step } => self.step(step, State::Working),
            ApplyEvent::Done { step, .. } => self.step(step, State::Done),
            ApplyEvent::Failed { step, .. } => self.step(step, State::Error),
            ApplyEvent::Image { step, event } => self.image(step, event),
            _ => {}
        }
    }

    /// What is drawn stays as it is; what happens next is drawn below it.
    pub(super) fn rest(&self) {
        if let Manner::Terminal(terminal) = &self.manner {
            terminal.rest();
        }
    }

    /// What is drawn stays as it is, and what happens next is said in lines, since others write to the terminal too.
    pub(super) fn close(&self) {
        if let Manner::Terminal(terminal) = &self.manner {
            terminal.rest();
            terminal.lock().closed = true;
        }
    }

    fn step(&self, step: &Step, state: State) {
        let quiet = match &step.operation {
            Operation::PullImage { .. } => self.quiet.pull,
            Operation::BuildImage { .. } => self.quiet.build,
            _ => false,
        };
        let Some(words) = Words::of(&step.operation).filter(|_| !quiet) else {
            return;
        };
        let text = match state {
            State::Working => words.during,
            State::Done => words.after,
            State::Error => "Error",
        };
        for name in &words.names {
            let id = format!("{} {name}", words.kind);
            match &self.manner {
                Manner::Plain => say(&format!(" {id}  {text}")),
                Manner::Terminal(terminal) => terminal.show(&id, text, state),
                Manner::Json => say(&json!({
                    "id": id,
                    "status": match state {
                        State::Working => "Working",
                        State::Done => "Done",
                        State::Error => "Error",
                    },
                    "text": text,
                })
                .to_string()),
            }
        }
    }

    /// A line that is no step's.
    fn line(&self, text: &str) {
        match &self.manner {
            Manner::Plain => say(text),
            Manner::Json => say(&json!({"text": text}).to_string()),
            Manner::Terminal(terminal) => terminal.screen.suspend(|| say(text)),
        }
    }

    fn image(&self, step: &Step, event: &ImageEvent<'_>) {
        match event {
            ImageEvent::Pull(Event::LayerStarted { digest, total }) if !self.quiet.pull => {
                self.layer(step, digest.short(), 0, *total);
            }
            ImageEvent::Pull(Event::LayerProgress { digest, done, total }) if !self.quiet.pull => {
                self.layer(step, digest.short(), *done, *total);
            }
            ImageEvent::Pull(Event::LayerDone { digest }) if self.draws() && !self.quiet.pull => {
                self.layer(step, digest.short(), u64::MAX, 0);
            }
            ImageEvent::Pull(Event::Warning { text }) => self.line(&format!("WARNING: {text}")),
            ImageEvent::Pull(Event::LayerDone { digest }) if !self.quiet.pull => {
                self.line(&format!(" {}  Pull complete", digest.short()));
            }
            ImageEvent::Pull(Event::Retrying {
                what, attempt, cause, ..
            }) => self.line(&format!(" {what}: attempt {attempt} failed ({cause})")),
            ImageEvent::Build(event) if !self.quiet.build => {
                let kind = match self.manner {
                    Manner::Json => ProgressKind::Json,
                    _ => ProgressKind::Plain,
                };
                let mut builds = self.builds.lock().unwrap_or_else(PoisonError::into_inner);
                let screen = builds.entry(step.id).or_insert_with(|| Screen::new(kind));
                match &self.manner {
                    Manner::Terminal(terminal) => terminal.screen.suspend(|| screen.show(event)),
                    _ => screen.show(event),
                }
            }
            _ => {}
        }
    }
}

impl Lines {
    fn draws(&self) -> bool {
        matches!(&self.manner, Manner::Terminal(terminal) if !terminal.lock().closed)
    }

    /// How much of an image is here; lines say nothing of it.
    fn layer(&self, step: &Step, layer: impl ToString, done: u64, total: u64) {
        let (Manner::Terminal(terminal), Some(words)) = (&self.manner, Words::of(&step.operation)) else {
            return;
        };
        for name in &words.names {
            terminal.layer(
                step.id,
                &format!("{} {name}", words.kind),
                words.during,
                layer.to_string(),
                (done, total),
            );
        }
    }
}

impl Terminal {
    fn lock(&self) -> std::sync::MutexGuard<'_, Drawn> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest(&self) {
        let mut drawn = self.lock();
        drawn.head.iter().for_each(ProgressBar::abandon);
        drawn.things.iter().for_each(|thing| thing.bar.abandon());
        *drawn = Drawn {
            closed: drawn.closed,
            ..Drawn::default()
        };
    }

    fn layer(&self, step: usize, id: &str, text: &str, layer: String, (done, total): (u64, u64)) {
        let mut drawn = self.lock();
        let known = drawn.layers.entry((step, layer)).or_default();
        *known = match done {
            // All of it, however much that is.
            u64::MAX => (known.1, known.1),
            done => (done, total.max(done)),
        };
        let of_step = drawn.layers.iter().filter(|((of, _), _)| *of == step);
        let (done, total) = of_step.fold((0, 0), |(done, total), (_, (a, b))| (done + a, total + b));
        if let Some(thing) = drawn.things.iter().find(|thing| thing.working && thing.id == id) {
            thing
                .bar
                .set_message(format!("{text}  {} / {}", size(done), size(total)));
        }
    }

    fn show(&self, id: &str, text: &str, state: State) {
        let sign = match state {
            State::Working => "{spinner}",
            State::Done => "✔",
            State::Error => "✘",
        };
        let mut drawn = self.lock();
        if drawn.closed {
            match state {
                State::Working => say(&format!(" {id}  {text}")),
                _ => say(&format!(" {sign} {id}  {text}")),
            }
            return;
        }
        let head = drawn
            .head
            .get_or_insert_with(|| self.screen.add(styled("[+] Running {msg}")));
        let head = head.clone();
        let known = drawn.things.iter().position(|thing| thing.id == id);
        let at = known.unwrap_or_else(|| {
            let bar = self.screen.add(styled(" {spinner} {prefix}  {msg}"));
            bar.set_prefix(id.to_owned());
            drawn.things.push(Thing {
                id: id.to_owned(),
                bar,
                began: Instant::now(),
                working: true,
            });
            drawn.things.len() - 1
        });
        let thing = &mut drawn.things[at];
        thing.working = state == State::Working;
        // A template that is wrong would leave the one before.
        if let Ok(style) = ProgressStyle::with_template(&format!(" {sign} {{prefix}}  {{msg}}")) {
            thing.bar.set_style(style);
        }
        if thing.working {
            thing.bar.enable_steady_tick(TICK);
            thing.bar.set_message(text.to_owned());
        } else {
            let took = thing.began.elapsed().as_secs_f64();
            thing.bar.disable_steady_tick();
            thing.bar.set_message(format!("{text}  {took:.1}s"));
        }
        let done = drawn.things.iter().filter(|thing| !thing.working).count();
        head.set_message(format!("{done}/{}", drawn.things.len()));
    }
}

/// A line of this form; a template that is wrong would leave the usual one.
fn styled(template: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// How an operation is told, in docker compose's words.
struct Words {
    kind: &'static str,
    names: Vec<String>,
    during: &'static str,
    after: &'static str,
}

impl Words {
    fn of(operation: &Operation) -> Option<Self> {
        let one = |kind, name: &String, during, after| {
            Some(Self {
                kind,
                names: vec![name.clone()],
                during,
                after,
            })
        };
        match operation {
            Operation::PullImage { image, .. } => one("Image", image, "Pulling", "Pulled"),
            Operation::BuildImage { image, .. } => one("Image", image, "Building", "Built"),
            Operation::RemoveImage { image } => one("Image", image, "Removing", "Removed"),
            Operation::CreateNetwork { name, .. } => one("Network", name, "Creating", "Created"),
            Operation::RemoveNetwork { name, .. } => one("Network", name, "Removing", "Removed"),
            Operation::CreateVolume { name, .. } => one("Volume", name, "Creating", "Created"),
            Operation::RemoveVolume { name } => one("Volume", name, "Removing", "Removed"),
            Operation::CreateContainer { name, replaces, .. } => match replaces {
                None => one("Container", name, "Creating", "Created"),
                Some(_) => one("Container", name, "Recreate", "Recreated"),
            },
            Operation::StartContainer { container } => {
                one("Container", &container.name, "Starting", "Started")
            }
            Operation::StopContainer { container, .. } => {
                one("Container", &container.name, "Stopping", "Stopped")
            }
            Operation::RestartContainer { container, .. } => {
                one("Container", &container.name, "Restarting", "Started")
            }
            Operation::KillContainer { container, .. } => {
                one("Container", &container.name, "Killing", "Killed")
            }
            Operation::PauseContainer { container } => one("Container", &container.name, "Pausing", "Paused"),
            Operation::UnpauseContainer { container } => {
                one("Container", &container.name, "Unpausing", "Unpaused")
            }
            Operation::RemoveContainer { container, .. } => {
                one("Container", &container.name, "Removing", "Removed")
            }
            Operation::RunHook { container, kind, .. } => match kind {
                HookKind::PreStart => one("Container", container, "Running pre_start", "Ran pre_start"),
                HookKind::PostStart => one("Container", container, "Running post_start", "Ran post_start"),
                HookKind::PreStop => one("Container", container, "Running pre_stop", "Ran pre_stop"),
            },
            Operation::Wait {
                containers,
                condition,
                ..
            } => Some(Self {
                kind: "Container",
                names: containers.clone(),
                during: "Waiting",
                after: match condition {
                    WaitCondition::Completed => "Exited",
                    _ => "Healthy",
                },
            }),
            _ => None,
        }
    }
}
