//! `rdock push`.

use crate::streams::print;
use crate::{Failure, Outcome};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rdock_registry::{PushEvent, PushProgress, RegistryClient};
use rdock_runtime::Runtime;
use rdock_runtime::image::{Digest, Reference};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Push all tags of the repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Print the reference alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The image; with --all-tags a repository
    pub(crate) image: String,
}

impl Push {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let wanted = Reference::parse(&self.image)?;
        let references = match self.all_tags {
            false => vec![wanted],
            true if self.has_tag() => {
                return Err(Failure::new("a tag cannot be given together with --all-tags"));
            }
            true => tags(runtime, &wanted)?,
        };
        if references.is_empty() {
            return Err(Failure::new(format!(
                "there is no image of the repository {}",
                self.image
            )));
        }
        for reference in &references {
            if !self.quiet && !self.all_tags && !self.has_tag() {
                print("Using default tag: latest");
            }
            push(runtime, reference, self.quiet).await?;
        }
        Ok(0)
    }

    fn has_tag(&self) -> bool {
        self.image.contains('@') || self.image.rsplit('/').next().unwrap_or_default().contains(':')
    }
}

/// Pushes the image of one name.
pub(crate) async fn push(runtime: &Runtime, reference: &Reference, quiet: bool) -> Result<(), Failure> {
    if !quiet {
        print(&format!(
            "The push refers to repository [{}/{}]",
            reference.domain(),
            reference.path()
        ));
    }
    let client = RegistryClient::from_environment()?;
    client.push(reference, runtime.images(), &progress(quiet)).await?;
    if quiet {
        print(reference.canonical().as_str());
    }
    Ok(())
}

/// All names of the repository, sorted.
fn tags(runtime: &Runtime, wanted: &Reference) -> Result<Vec<Reference>, Failure> {
    let mut found: Vec<Reference> = runtime
        .images()
        .images()?
        .iter()
        .flat_map(|image| image.references().to_vec())
        .filter(|reference| reference.tag().is_some() && reference.name() == wanted.name())
        .collect();
    found.sort();
    Ok(found)
}

/// Bars on a terminal, plain lines elsewhere.
fn progress(quiet: bool) -> PushProgress {
    if quiet {
        return PushProgress::default();
    }
    let terminal = rustix::termios::isatty(rustix::stdio::stdout());
    let bars = terminal.then(MultiProgress::new);
    let layers: Mutex<HashMap<Digest, ProgressBar>> = Mutex::default();
    PushProgress::new(move |event| {
        let line = |text: &str| match &bars {
            // A line above the bars; one that cannot be drawn is not worth an error.
            Some(bars) => drop(bars.println(text)),
            None => print(text),
        };
        let mut layers = layers.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            PushEvent::LayerStarted { diff_id, total } => match &bars {
                Some(bars) => {
                    let bar = bars.add(total.map_or_else(ProgressBar::no_length, ProgressBar::new));
                    let style = match total {
                        Some(_) => "{prefix}: Pushing [{bar:40}] {bytes}/{total_bytes}",
                        None => "{prefix}: Pushing {bytes}",
                    };
                    if let Ok(style) = ProgressStyle::with_template(style) {
                        bar.set_style(style.progress_chars("=> "));
                    }
                    bar.set_prefix(diff_id.short().to_owned());
                    layers.insert(diff_id, bar);
                }
                None => line(&format!("{}: Pushing", diff_id.short())),
            },
            PushEvent::LayerProgress { diff_id, done, .. } => {
                if let Some(bar) = layers.get(&diff_id) {
                    bar.set_position(done);
                }
            }
            PushEvent::LayerDone { diff_id, .. } => {
                if let Some(bar) = layers.remove(&diff_id) {
                    bar.finish_and_clear();
                }
                line(&format!("{}: Pushed", diff_id.short()));
            }
            PushEvent::LayerExists { diff_id, .. } => {
                line(&format!("{}: Layer already exists", diff_id.short()));
            }
            PushEvent::LayerMounted { diff_id, from, .. } => {
                line(&format!("{}: Mounted from {from}", diff_id.short()));
            }
            PushEvent::LayerForeign { diff_id } => {
                line(&format!("{}: Skipped foreign layer", diff_id.short()));
            }
            PushEvent::LayerCompressed { diff_id, sent, .. } if sent != diff_id => line(&format!(
                "Warning: what layer {} came as was not kept; it goes out as {} with the same files, and the image \
                 gets another id",
                diff_id.short(),
                sent.short()
            )),
            PushEvent::Warning { text } => line(&format!("Warning: {text}")),
            PushEvent::Retrying {
                what,
                attempt,
                delay,
                cause,
            } => line(&format!(
                "{what}: attempt {attempt} failed ({cause}); again in {:.1} s",
                delay.as_secs_f32()
            )),
            PushEvent::Done {
                reference,
                digest,
                size,
            } => line(&format!(
                "{}: digest: {digest} size: {size}",
                reference.canonical().tag().unwrap_or_default()
            )),
            _ => {}
        }
    })
}
