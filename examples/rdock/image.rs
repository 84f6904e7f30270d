//! `rdock images`, `rmi`, `tag` and `load`.

use crate::streams::print;
use crate::table::{Format, ago, show, size};
use crate::{Failure, Outcome};
use clap::{Args, Subcommand};
use rdock_runtime::Runtime;
use rdock_runtime::image::{Progress, Reference};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// table or json
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl Images {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let mut rows = Vec::new();
        for image in runtime.images().images()? {
            let id = if self.no_trunc {
                image.id().to_string()
            } else {
                image.id().short().to_owned()
            };
            if self.quiet {
                print(&id);
                continue;
            }
            let created = image
                .config()
                .created
                .as_deref()
                .map(|time| format!("{} ago", ago(time)));
            let mut row = |repository: String, tag: String| {
                let mut cells = vec![repository, tag];
                if self.digests {
                    cells.push(image.manifest_digest().to_string());
                }
                cells.extend([
                    id.clone(),
                    created.clone().unwrap_or_else(|| "N/A".to_owned()),
                    size(image.size()),
                ]);
                rows.push(cells);
            };
            if image.references().is_empty() {
                row("<none>".to_owned(), "<none>".to_owned());
            }
            for reference in image.references() {
                let familiar = reference.familiar();
                let tag = reference.tag().unwrap_or("<none>").to_owned();
                let repository = familiar.split('@').next().unwrap_or_default();
                let repository = repository.strip_suffix(&format!(":{tag}")).unwrap_or(repository);
                row(repository.to_owned(), tag);
            }
        }
        if !self.quiet {
            let mut headings = vec!["REPOSITORY", "TAG"];
            if self.digests {
                headings.push("DIGEST");
            }
            headings.extend(["IMAGE ID", "CREATED", "SIZE"]);
            show(&headings, rows, self.format);
        }
        Ok(0)
    }
}

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
    /// List images
    #[command(visible_alias = "list")]
    Ls(Images),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(Rmi),
    /// Give an image another name
    Tag(Tag),
    /// Load images from an archive
    Load(Load),
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
            Self::Ls(verb) => verb.execute(runtime),
            Self::Rm(verb) => verb.execute(runtime),
            Self::Tag(verb) => verb.execute(runtime),
            Self::Load(verb) => verb.execute(runtime),
            Self::Pull(verb) => verb.execute(runtime).await,
            Self::Push(verb) => verb.execute(runtime).await,
            Self::Inspect(verb) => verb.of_kind("image").execute(runtime),
            Self::Prune(verb) => verb.execute(runtime),
        }
    }
}
