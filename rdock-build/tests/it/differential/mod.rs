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
use rdock_build::runtime::Runtime;
use rdock_build::{Builder, PullPolicy, Secret};
use rdock_image::{Image, ImageStore};
use serde_json::Value;
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

/// The base image in a store, made once for all cases. A few tests at a time are enough: builds share its cache.
struct Stage {
    dir: tempfile::TempDir,
    runtime: Runtime,
    store: ImageStore,
    base: Image,
}

static STAGE: OnceLock<Result<Arc<Stage>, String>> = OnceLock::new();

fn stage() -> Tested<Arc<Stage>> {
    let made = STAGE.get_or_init(|| {
        let make = || -> Tested<Arc<Stage>> {
            let dir = tempfile::tempdir()?;
            let runtime = Runtime::open(dir.path().join("root"))?;
            let store = runtime.images().clone();
            let base = base::import(&store, dir.path())?;
            Ok(Arc::new(Stage {
                dir,
                runtime,
                store,
                base,
            }))
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
    let missing = match rustix::process::geteuid().is_root() {
        false => Some("needs root".to_owned()),
        true => busybox().err().map(|error| error.to_string()),
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
    let stage = stage()?;
    if let Some(address) = std::env::var_os(RECORD) {
        let found = record::build(case, &stage, &address)?;
        return Ok(std::fs::write(case.expected(), image::text(&found)?)?);
    }
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(case.expected())?)?;
    let found = build(case, &stage)?;
    match (found, expected["error"].as_str()) {
        (Err(_), Some(_)) => Ok(()),
        (Err(error), None) => Err(error),
        (Ok(_), Some(error)) => Err(format!("it builds; BuildKit says: {error}").into()),
        (Ok(found), None) if found == expected => Ok(()),
        (Ok(found), None) => Err(difference(&expected, &found).into()),
    }
}

/// Builds a case here. The outer error is the test's own, the inner one the build's.
fn build(case: &Case, stage: &Stage) -> Tested<Tested<Value>> {
    let dir = tempfile::tempdir_in(stage.dir.path())?;
    case.write_context(dir.path())?;
    let mut builder = Builder::new(dir.path())
        .pull(PullPolicy::Never)
        .secret(record::SECRET.0, Secret::Value(record::SECRET.1.into()));
    for (name, value) in &case.args {
        builder = builder.build_arg(name, value);
    }
    if let Some(target) = &case.target {
        builder = builder.target(target);
    }
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let built = match tokio.block_on(builder.build(&stage.runtime)) {
        Ok(built) => built,
        Err(error) => return Ok(Err(chain(&error).into())),
    };
    let made = built.image.ok_or("no image was made")?;
    Ok(image::describe(stage.runtime.images(), &made, stage))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The fields that differ, each line for itself.
fn difference(expected: &Value, found: &Value) -> String {
    let mut text = String::new();
    let mut compare = |name: &str, expected: &Value, found: &Value| {
        if expected != found {
            text.push_str(&format!("\n{name}\n  expected {expected}\n  found    {found}"));
        }
    };
    let empty = serde_json::Map::new();
    for (name, value) in expected.as_object().unwrap_or(&empty) {
        match (value.as_object(), found[name].as_object()) {
            (Some(expected), Some(found)) => {
                for key in expected
                    .keys()
                    .chain(found.keys().filter(|key| !expected.contains_key(*key)))
                {
                    let nothing = Value::Null;
                    let of = |map: &serde_json::Map<_, _>| map.get(key).cloned().unwrap_or(nothing.clone());
                    compare(&format!("{name}: {key}"), &of(expected), &of(found));
                }
            }
            _ => compare(name, value, &found[name]),
        }
    }
    text
}
