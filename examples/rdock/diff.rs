//! `rdock diff`, `rdock export` and `rdock commit`: what a container changed.

use crate::streams::print;
use crate::{Failure, Outcome};
use clap::Args;
use rdock_runtime::image::Reference;
use rdock_runtime::{CommitOptions, Runtime};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use tokio::io::AsyncReadExt;

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The container
    container: String,
}

impl Diff {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        for change in runtime.container(&self.container)?.changes().await? {
            print(&format!("{} {}", change.kind, change.path.display()));
        }
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Write to a file instead of stdout
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// The container
    pub(crate) container: String,
}

impl Export {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let container = runtime.container(&self.container)?;
        let Some(path) = &self.output else {
            if std::io::stdout().is_terminal() {
                return Err(Failure::new(
                    "cowardly refusing to save to a terminal. Use the -o flag or redirect",
                ));
            }
            crate::cp::write_out(&mut container.export().await?).await?;
            return Ok(0);
        };
        // Half an archive never has the name that was asked for.
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let named = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
        let mut file = std::fs::File::create(&part).map_err(named)?;
        let mut archive = container.export().await?;
        let mut buffer = vec![0; 256 << 10];
        let written = loop {
            match archive.read(&mut buffer).await {
                Ok(0) => break file.flush(),
                Ok(count) => match file.write_all(&buffer[..count]) {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = written.and_then(|()| std::fs::rename(&part, path)) {
            // It is of no use to anybody; the error is what counts.
            let _ = std::fs::remove_file(&part);
            return Err(named(error));
        }
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Commit {
    /// Who made the image
    #[arg(short, long)]
    pub(crate) author: Option<String>,
    /// An instruction of a Dockerfile that changes the image's config
    #[arg(short, long)]
    pub(crate) change: Vec<String>,
    /// What was done
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    /// Whether the container stands still meanwhile
    #[arg(short, long, default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub(crate) pause: bool,
    /// The container goes on meanwhile
    #[arg(long)]
    pub(crate) no_pause: bool,
    /// The container
    pub(crate) container: String,
    /// Name of the image
    pub(crate) reference: Option<String>,
}

impl Commit {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let mut options = CommitOptions::default().pause(self.pause && !self.no_pause);
        options.author = self.author;
        options.message = self.message;
        options.changes = self.change;
        if let Some(text) = &self.reference {
            options.references.push(Reference::parse(text)?);
        }
        let image = runtime.container(&self.container)?.commit(&options).await?;
        print(&image.id().to_string());
        Ok(0)
    }
}
