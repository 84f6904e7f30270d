//! What happens to a project, on stderr: lines, lines drawn anew, or JSON.

use super::Shown;
use crate::build::ProgressKind;
use crate::build_progress::Screen;
use crate::streams::say;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rdock_compose::plan::{HookKind, Operation, Step, WaitCondition};
use rdock_compose::{ApplyEvent, ImageEvent};
use rdock_runtime::image::Event;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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

/// One line a thing, which says what became of it.
#[derive(Default)]
struct Terminal {
    screen: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

/// How far a step is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Working,
    Done,
    Error,
}

impl Lines {
    pub(super) fn new(shown: Shown, quiet: Quiet) -> Self {
        let manner = match shown {
            Shown::Tty if rustix::termios::isatty(rustix::stdio::stderr()) => {
                Manner::Terminal(Terminal::default())
            }
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

impl Terminal {
    fn show(&self, id: &str, text: &str, state: State) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(id.to_owned()).or_insert_with(|| {
            let bar = self.screen.add(ProgressBar::new_spinner());
            bar.set_prefix(id.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let sign = match state {
            State::Working => "{spinner}",
            State::Done => "✔",
            State::Error => "✘",
        };
        // A template that is wrong would leave the usual one.
        if let Ok(style) = ProgressStyle::with_template(&format!(" {sign} {{prefix}}  {{msg}}")) {
            bar.set_style(style);
        }
        match state {
            State::Working => bar.set_message(text.to_owned()),
            // Its line stays; the next step of the same thing gets another.
            State::Done | State::Error => {
                bar.abandon_with_message(text.to_owned());
                bars.remove(id);
            }
        }
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
