//! `rdock pull`, and the progress of every pull.

use crate::streams::{print, say};
use crate::{Failure, Outcome};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rdock_runtime::Runtime;
use rdock_runtime::image::{Event, Platform, Progress, Reference};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Print the reference alone
    #[arg(short, long)]
    quiet: bool,
    /// os/architecture[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// The image
    image: String,
}

impl Pull {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let reference = Reference::parse(&self.image)?;
        let platform = match &self.platform {
            Some(text) => Platform::parse(text)?,
            None => Platform::host(),
        };
        let before = runtime
            .images()
            .get(&reference.to_string())?
            .map(|image| image.id().clone());
        if !self.quiet {
            if !self.image.contains('@') && !self.image.rsplit('/').next().unwrap_or_default().contains(':') {
                print("Using default tag: latest");
            }
            match (reference.tag(), reference.digest()) {
                (Some(tag), _) => print(&format!("{tag}: Pulling from {}", reference.path())),
                (None, Some(digest)) => print(&format!("{digest}: Pulling from {}", reference.path())),
                (None, None) => {}
            }
        }
        let screen = Screen::new(self.quiet, false);
        let pulled = runtime
            .pull_platform(&reference, &platform, &screen.progress())
            .await;
        screen.finish();
        let image = pulled.map_err(Failure::from)?;
        if !self.quiet {
            print(&format!("Digest: {}", image.manifest_digest()));
            let newer = before.as_ref() != Some(image.id());
            let status = if newer {
                "Downloaded newer image for"
            } else {
                "Image is up to date for"
            };
            print(&format!("Status: {status} {}", reference.familiar()));
        }
        print(&reference.to_string());
        Ok(0)
    }
}

/// Bars on a terminal, plain lines elsewhere.
#[derive(Clone)]
pub(crate) struct Screen {
    inner: Arc<Inner>,
}

struct Inner {
    quiet: bool,
    /// Stdout belongs to the container.
    on_stderr: bool,
    bars: Option<MultiProgress>,
    layers: Mutex<HashMap<String, ProgressBar>>,
}

impl Screen {
    pub(crate) fn new(quiet: bool, on_stderr: bool) -> Self {
        let terminal = if on_stderr {
            rustix::termios::isatty(rustix::stdio::stderr())
        } else {
            rustix::termios::isatty(rustix::stdio::stdout())
        };
        let bars = (terminal && !quiet).then(MultiProgress::new);
        Self {
            inner: Arc::new(Inner {
                quiet,
                on_stderr,
                bars,
                layers: Mutex::default(),
            }),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let inner = self.inner.clone();
        Progress::new(move |event| inner.event(event))
    }

    pub(crate) fn finish(&self) {
        let mut layers = self.inner.layers.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, bar) in layers.drain() {
            bar.abandon();
        }
    }
}

impl Inner {
    fn line(&self, text: &str) {
        match (&self.bars, self.quiet) {
            (_, true) => {}
            // A line above the bars; one that cannot be drawn is not worth an error.
            (Some(bars), _) => drop(bars.println(text)),
            (None, _) if self.on_stderr => say(text),
            (None, _) => print(text),
        }
    }

    fn event(&self, event: Event) {
        let short = |digest: &rdock_runtime::image::Digest| digest.short().to_owned();
        match event {
            Event::LayerExists { digest } => self.line(&format!("{}: Already exists", short(&digest))),
            Event::LayerStarted { digest, total } => match &self.bars {
                Some(bars) => {
                    let bar = bars.add(ProgressBar::new(total));
                    let style =
                        ProgressStyle::with_template("{prefix}: {msg} [{bar:40}] {bytes}/{total_bytes}");
                    if let Ok(style) = style {
                        bar.set_style(style.progress_chars("=> "));
                    }
                    bar.set_prefix(short(&digest));
                    bar.set_message("Downloading");
                    self.layers
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(short(&digest), bar);
                }
                None => self.line(&format!("{}: Pulling fs layer", short(&digest))),
            },
            Event::LayerProgress { digest, done, .. } => {
                let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(bar) = layers.get(&short(&digest)) {
                    bar.set_position(done);
                }
            }
            Event::LayerDone { digest } => {
                let bar = self
                    .layers
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&short(&digest));
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
                self.line(&format!("{}: Pull complete", short(&digest)));
            }
            Event::Warning { text } => self.line(&format!("Warning: {text}")),
            Event::Retrying {
                what,
                attempt,
                delay,
                cause,
                ..
            } => {
                self.line(&format!(
                    "{what}: attempt {attempt} failed ({cause}); again in {:.1} s",
                    delay.as_secs_f32()
                ));
            }
            _ => {}
        }
    }
}
