//! What happens to a project, on stderr: lines, lines drawn anew, or JSON.

use super::Shown;
use crate::build::ProgressKind;
use crate::build_progress::Screen;
use crate::streams::say;
use crate::table::size;
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use rdock_build::BuildEvent;
use rdock_compose::plan::{Cause, HookKind, Operation, ProviderAction, Step, WaitCondition};
use rdock_compose::{ApplyEvent, ImageEvent, Plan, ProviderMessage};
use rdock_runtime::image::Event;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    builds: Mutex<Builds>,
}

/// Images that are being built, by step.
#[derive(Default)]
struct Builds {
    screens: HashMap<usize, Screen>,
    /// On a terminal all are on one screen.
    shared: Option<Screen>,
    /// Each with the name of its service.
    several: bool,
}

/// More steps than a build has: steps of several builds on one screen are told apart by it.
const APART: usize = 1 << 20;

enum Manner {
    Plain,
    Json,
    Terminal(Terminal),
}

/// One line a thing, drawn anew, which says what became of it.
struct Terminal {
    screen: MultiProgress,
    /// The verb.
    doing: &'static str,
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
    /// Builds draw what they do: what else happens is drawn when they are done.
    building: bool,
    late: Vec<(String, String, State)>,
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
    pub(super) fn new(shown: Shown, quiet: Quiet, drawing: bool, doing: &'static str) -> Self {
        let terminal = || rustix::termios::isatty(rustix::stdio::stderr());
        let drawn = || {
            Manner::Terminal(Terminal {
                screen: MultiProgress::default(),
                doing,
                drawn: Mutex::default(),
            })
        };
        let manner = match shown {
            Shown::Tty if terminal() => drawn(),
            Shown::Auto if drawing && terminal() => drawn(),
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

    /// A plan is about to be carried out.
    pub(super) fn expect(&self, plan: &Plan) {
        let builds = plan
            .operations()
            .filter(|operation| matches!(operation, Operation::BuildImage { .. }));
        self.builds().several = builds.count() > 1;
    }

    fn builds(&self) -> MutexGuard<'_, Builds> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner)
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
            ApplyEvent::Provider {
                step,
                message: ProviderMessage::Info(text),
            } => self.told(step, text.lines().next().unwrap_or_default(), State::Working),
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
        let Some(words) = Words::of(step).filter(|_| !quiet) else {
            return;
        };
        let text = match state {
            State::Working => words.during,
            State::Done => words.after,
            State::Error => "Error",
        };
        if state != State::Working {
            self.built(step);
        }
        if text.is_empty() {
            return;
        }
        self.tell(&words, text, state);
    }

    /// What a step says of itself.
    fn told(&self, step: &Step, text: &str, state: State) {
        if let Some(words) = Words::of(step) {
            self.tell(&words, text, state);
        }
    }

    fn tell(&self, words: &Words, text: &str, state: State) {
        for id in words.ids() {
            match &self.manner {
                Manner::Plain => say(&format!(" {id} {text}")),
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
                self.line(&format!(" {} Pull complete", digest.short()));
            }
            ImageEvent::Pull(Event::Retrying {
                what, attempt, cause, ..
            }) => self.line(&format!(" {what}: attempt {attempt} failed ({cause})")),
            ImageEvent::Build(event) if !self.quiet.build => {
                self.build(step, event);
            }
            _ => {}
        }
    }
}

impl Lines {
    /// Something happens in a build.
    fn build(&self, step: &Step, event: &BuildEvent) {
        let mut builds = self.builds();
        let kind = match self.manner {
            Manner::Json => ProgressKind::Json,
            Manner::Terminal(_) if self.draws() => ProgressKind::Tty,
            _ => ProgressKind::Plain,
        };
        if let (Manner::Terminal(terminal), ProgressKind::Tty) = (&self.manner, kind) {
            terminal.rest();
            terminal.lock().building = true;
            let several = builds.several;
            let screen = builds.shared.get_or_insert_with(|| Screen::new(kind)).clone();
            builds.screens.insert(step.id, screen.clone());
            drop(builds);
            let service = match &step.operation {
                Operation::BuildImage { service, .. } if several => Some(service.as_str()),
                _ => None,
            };
            return screen.show(&told_apart(event, step.id * APART, service));
        }
        let screen = builds.screens.entry(step.id).or_insert_with(|| Screen::new(kind));
        screen.show(event);
    }

    /// A step has come to its end, and so has its build if it was one.
    fn built(&self, step: &Step) {
        let mut builds = self.builds();
        if builds.screens.remove(&step.id).is_none() || !builds.screens.is_empty() {
            return;
        }
        let Some(screen) = builds.shared.take() else {
            return;
        };
        screen.finish();
        if let Manner::Terminal(terminal) = &self.manner {
            let late = {
                let mut drawn = terminal.lock();
                drawn.building = false;
                std::mem::take(&mut drawn.late)
            };
            for (id, text, state) in late {
                terminal.show(&id, &text, state);
            }
        }
    }

    fn draws(&self) -> bool {
        matches!(&self.manner, Manner::Terminal(terminal) if !terminal.lock().closed)
    }

    /// How much of an image is here; lines say nothing of it.
    fn layer(&self, step: &Step, layer: impl ToString, done: u64, total: u64) {
        let (Manner::Terminal(terminal), Some(words)) = (&self.manner, Words::of(step)) else {
            return;
        };
        for id in words.ids() {
            terminal.layer(step.id, &id, words.during, layer.to_string(), (done, total));
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
            building: drawn.building,
            late: std::mem::take(&mut drawn.late),
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
                .set_message(format!("{text} {} / {}", size(done), size(total)));
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
                State::Working => say(&format!(" {id} {text}")),
                _ => say(&format!(" {sign} {id} {text}")),
            }
            return;
        }
        if drawn.building {
            drawn.late.push((id.to_owned(), text.to_owned(), state));
            return;
        }
        let head = drawn
            .head
            .get_or_insert_with(|| self.screen.add(styled(&format!("[+] {} {{msg}}", self.doing))));
        let head = head.clone();
        let known = drawn.things.iter().position(|thing| thing.id == id);
        let at = known.unwrap_or_else(|| {
            let bar = self.screen.add(styled(WORKING));
            drawn.things.push(Thing {
                id: id.to_owned(),
                bar,
                began: Instant::now(),
                working: true,
            });
            // What became of them stands in one column.
            let width = drawn.things.iter().map(|thing| thing.id.chars().count()).max();
            for thing in &drawn.things {
                thing
                    .bar
                    .set_prefix(format!("{:width$}", thing.id, width = width.unwrap_or(0)));
            }
            drawn.things.len() - 1
        });
        let thing = &mut drawn.things[at];
        thing.working = state == State::Working;
        let style = match thing.working {
            true => WORKING.to_owned(),
            false => {
                let took = thing.began.elapsed().as_secs_f64();
                format!(" {sign} {{prefix}} {{wide_msg}} {took:.1}s")
            }
        };
        thing.bar.set_style(style_of(&style));
        thing.bar.set_message(text.to_owned());
        if thing.working {
            thing.bar.enable_steady_tick(TICK);
        } else {
            thing.bar.disable_steady_tick();
        }
        let done = drawn.things.iter().filter(|thing| !thing.working).count();
        head.set_message(format!("{done}/{}", drawn.things.len()));
    }
}

/// A thing that is under way.
const WORKING: &str = " {spinner} {prefix} {wide_msg} {took}";

fn styled(template: &str) -> ProgressBar {
    ProgressBar::new_spinner().with_style(style_of(template))
}

/// A line of this form, which knows how long it takes; a template that is wrong would leave the usual one.
fn style_of(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    style.with_key("took", |state: &ProgressState, line: &mut dyn std::fmt::Write| {
        // A line that cannot be written is drawn anew soon.
        let _ = write!(line, "{:.1}s", state.elapsed().as_secs_f64());
    })
}

/// An event of a build whose steps have numbers of their own among those of several; with the service's name.
fn told_apart(event: &BuildEvent, base: usize, service: Option<&str>) -> BuildEvent {
    let mut event = event.clone();
    match &mut event {
        BuildEvent::Planned { steps } => {
            for step in steps {
                step.id += base;
                if let (Some(service), Some(rest)) = (service, step.name.strip_prefix('[')) {
                    step.name = format!("[{service} {rest}");
                }
            }
        }
        BuildEvent::StepStarted { id }
        | BuildEvent::StepCached { id, .. }
        | BuildEvent::StepFinished { id, .. }
        | BuildEvent::StepFailed { id }
        | BuildEvent::StepOutput { id, .. } => *id += base,
        _ => {}
    }
    event
}

/// How an operation is told, in docker compose's words. Of what has none nothing is said.
struct Words {
    kind: &'static str,
    names: Vec<String>,
    during: &'static str,
    after: &'static str,
}

impl Words {
    /// What its lines begin with. What a program provides has the service's name alone.
    fn ids(&self) -> impl Iterator<Item = String> + '_ {
        self.names.iter().map(|name| match self.kind {
            "" => name.clone(),
            kind => format!("{kind} {name}"),
        })
    }

    fn of(step: &Step) -> Option<Self> {
        let operation = &step.operation;
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
                // It is made under another name, and is that container when it has its name.
                Some(_) => {
                    let name = name.split_once('_').map_or(name.as_str(), |(_, name)| name);
                    one("Container", &name.to_owned(), "Recreate", "")
                }
            },
            Operation::RenameContainer { to, .. } => one("Container", to, "", "Recreated"),
            // The one whose place is taken.
            Operation::StopContainer { container, .. } | Operation::RemoveContainer { container, .. }
                if step.causes.contains(&Cause::Replaced) =>
            {
                one("Container", &container.name, "", "")
            }
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
            Operation::RunProvider { service, action } => match action {
                ProviderAction::Up => one("", service, "Creating", "Created"),
                ProviderAction::Stop => one("", service, "Stopping", "Stopped"),
                ProviderAction::Down => one("", service, "Removing", "Removed"),
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
