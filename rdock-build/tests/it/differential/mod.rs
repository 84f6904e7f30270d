//! Builds of Dockerfiles that BuildKit built once: the images must be the same.
//!
//! `tests/data/differential` has the Dockerfiles, and beside each what BuildKit's image is: its README says how it was
//! recorded and how to do it again. The comparison needs no BuildKit.
mod base;
mod context;
mod image;
mod record;

use crate::busybox::busybox;
use crate::{Tested, trial};
use libtest_mimic::Trial;
use rdock_image::{Image, ImageStore};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The environment variable with a BuildKit daemon's address: what is built there becomes what is expected.
const RECORD: &str = "RDOCK_RECORD_BUILDKIT";

/// One Dockerfile with how it is built.
#[derive(Debug)]
struct Case {
    name: String,
    dockerfile: PathBuf,
    /// `--build-arg`.
    args: BTreeMap<String, String>,
    /// `--target`.
    target: Option<String>,
    /// Text of `.dockerignore`.
    ignore: Option<String>,
    /// Text of `Dockerfile.dockerignore`.
    own_ignore: Option<String>,
}

impl Case {
    fn open(dockerfile: PathBuf) -> Self {
        let name = dockerfile
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = |extension: &str| std::fs::read_to_string(dockerfile.with_extension(extension)).ok();
        let args = text("args").unwrap_or_default();
        Self {
            args: (args.lines().filter_map(|line| line.split_once('=')))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            target: text("target").map(|text| text.trim().to_owned()),
            ignore: text("dockerignore"),
            own_ignore: text("own.dockerignore"),
            name,
            dockerfile,
        }
    }

    /// Writes the context, with the Dockerfile in it.
    fn write_context(&self, dir: &Path) -> Tested {
        context::write(dir)?;
        std::fs::copy(&self.dockerfile, dir.join("Dockerfile"))?;
        for (name, text) in [
            (".dockerignore", &self.ignore),
            ("Dockerfile.dockerignore", &self.own_ignore),
        ] {
            if let Some(text) = text {
                std::fs::write(dir.join(name), text)?;
            }
        }
        Ok(())
    }

    fn expected(&self) -> PathBuf {
        self.dockerfile.with_extension("json")
    }
}

/// The base image in a store, made once for all cases.
struct Stage {
    dir: tempfile::TempDir,
    store: ImageStore,
    base: Image,
}

static STAGE: OnceLock<Result<Arc<Stage>, String>> = OnceLock::new();

fn stage() -> Tested<Arc<Stage>> {
    let made = STAGE.get_or_init(|| {
        let make = || -> Tested<Arc<Stage>> {
            let dir = tempfile::tempdir()?;
            let store = ImageStore::open(dir.path().join("image"))?;
            let base = base::import(&store, dir.path())?;
            Ok(Arc::new(Stage { dir, store, base }))
        };
        make().map_err(|error| error.to_string())
    });
    Ok(made.clone()?)
}

pub(crate) fn trials() -> Vec<Trial> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/differential");
    let mut cases: Vec<Case> = (std::fs::read_dir(dir).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "Dockerfile")
        })
        .map(Case::open)
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    let missing = match (rustix::process::geteuid().is_root(), std::env::var_os(RECORD)) {
        (false, _) => Some("needs root".to_owned()),
        (true, None) => Some("the builder builds nothing yet".to_owned()),
        (true, Some(_)) => busybox().err().map(|error| error.to_string()),
    };
    (cases.into_iter())
        .map(|case| {
            let name = format!("differential_{}", case.name);
            match &missing {
                Some(why) => trial(format!("{name} ({why})"), || Ok(())).with_ignored_flag(true),
                None => trial(name, move || compare(&case)),
            }
        })
        .collect()
}

fn compare(case: &Case) -> Tested {
    let address = std::env::var_os(RECORD).ok_or("nothing to compare with")?;
    let found = record::build(case, &*stage()?, &address)?;
    Ok(std::fs::write(case.expected(), image::text(&found)?)?)
}
