//! `rdock rmi`, `tag` and `load`, and docker's verbs behind `image`.

use crate::streams::print;
use crate::{Failure, Outcome};
use clap::{Args, Subcommand};
use rdock_runtime::Runtime;
use rdock_runtime::image::{Progress, Reference};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// Remove all names of the image
    #[arg(short, long)]
    force: bool,
    /// Images
    #[arg(required = true)]
    images: Vec<String>,
}

impl Rmi {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let mut code = 0;
        for name in &self.images {
            let removed = match runtime.images().remove(name, self.force) {
                Ok(removed) => removed,
                Err(error) => {
                    Failure::from(error).say();
                    code = 1;
                    continue;
                }
            };
            for reference in &removed.untagged {
                print(&format!("Untagged: {}", reference.familiar()));
            }
            for digest in &removed.deleted {
                print(&format!("Deleted: {digest}"));
            }
        }
        Ok(code)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// The image
    image: String,
    /// Its new name
    name: String,
}

impl Tag {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let image = runtime.images().get(&self.image)?;
        let image = image.ok_or_else(|| Failure::new(format!("no such image: {}", self.image)))?;
        runtime.images().tag(&image, &Reference::parse(&self.name)?)?;
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The archive; stdin otherwise
    #[arg(short, long)]
    input: Option<PathBuf>,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

impl Load {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let progress = Progress::default();
        let images = match &self.input {
            Some(path) => runtime.images().import(path, &progress)?,
            None => runtime
                .images()
                .import_stream(&mut std::io::stdin().lock(), &progress)?,
        };
        for image in images.iter().filter(|_| !self.quiet) {
            if image.references().is_empty() {
                print(&format!("Loaded image ID: {}", image.id()));
            }
            for reference in image.references() {
                print(&format!("Loaded image: {}", reference.familiar()));
            }
        }
        Ok(0)
    }
}

/// docker's verbs behind `image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerbs {
    /// Build an image from a Dockerfile
    Build(Box<crate::build::Build>),
    /// Show the steps an image was made by
    History(crate::history::History),
    /// List images
    #[command(visible_alias = "list")]
    Ls(crate::images::Images),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(Rmi),
    /// Give an image another name
    Tag(Tag),
    /// Load images from an archive
    Load(Load),
    /// Write images into an archive
    Save(crate::save::Save),
    /// Download an image from a registry
    Pull(crate::pull::Pull),
    /// Upload an image to a registry
    Push(crate::push::Push),
    /// Show everything about images, as JSON
    Inspect(crate::inspect::Inspect),
    /// Remove images without a name
    Prune(crate::system::ImagePrune),
}

impl ImageVerbs {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        match self {
            Self::Build(verb) => verb.execute(runtime).await,
            Self::History(verb) => verb.execute(runtime),
            Self::Ls(verb) => verb.execute(runtime),
            Self::Rm(verb) => verb.execute(runtime),
            Self::Tag(verb) => verb.execute(runtime),
            Self::Load(verb) => verb.execute(runtime),
            Self::Save(verb) => verb.execute(runtime),
            Self::Pull(verb) => verb.execute(runtime).await,
            Self::Push(verb) => verb.execute(runtime).await,
            Self::Inspect(verb) => verb.of_kind("image").execute(runtime),
            Self::Prune(verb) => verb.execute(runtime),
        }
    }
}
