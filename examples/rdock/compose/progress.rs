//! What happens to a project, as lines on stderr.

use crate::build::ProgressKind;
use crate::build_progress::Screen;
use crate::streams::say;
use rdock_compose::plan::{HookKind, Operation, Step, WaitCondition};
use rdock_compose::{ApplyEvent, ImageEvent};
use rdock_runtime::image::Event;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Shows events.
pub(super) struct Lines {
    quiet: bool,
    builds: Mutex<HashMap<usize, Screen>>,
}

impl Lines {
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            builds: Mutex::default(),
        }
    }

    pub(super) fn show(&self, event: &ApplyEvent<'_>) {
        match event {
            // What a container lacks is said however quiet the rest is.
            ApplyEvent::Warning { step, message } => {
                say(&format!("WARNING: {}: {message}", step.operation));
            }
            _ if self.quiet => {}
            ApplyEvent::Started { step } => self.step(step, |words| words.during),
            ApplyEvent::Done { step, .. } => self.step(step, |words| words.after),
            ApplyEvent::Failed { step, .. } => self.step(step, |_| "Error"),
            ApplyEvent::Image { step, event } => self.image(step, event),
            _ => {}
        }
    }

    fn step(&self, step: &Step, word: impl Fn(&Words) -> &'static str) {
        if let Some(words) = Words::of(&step.operation) {
            for name in &words.names {
                say(&format!(" {} {name}  {}", words.kind, word(&words)));
            }
        }
    }

    fn image(&self, step: &Step, event: &ImageEvent<'_>) {
        match event {
            ImageEvent::Pull(Event::Warning { text }) => say(&format!("WARNING: {text}")),
            ImageEvent::Pull(Event::LayerDone { digest }) => {
                say(&format!(" {}  Pull complete", digest.short()));
            }
            ImageEvent::Pull(Event::Retrying {
                what, attempt, cause, ..
            }) => say(&format!(" {what}: attempt {attempt} failed ({cause})")),
            ImageEvent::Build(event) => {
                let mut builds = self.builds.lock().unwrap_or_else(PoisonError::into_inner);
                let screen = builds
                    .entry(step.id)
                    .or_insert_with(|| Screen::new(ProgressKind::Plain));
                screen.show(event);
            }
            _ => {}
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
