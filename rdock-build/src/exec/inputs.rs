//! The directories of the host that a build reads.
use crate::cache::{Cache, Key};
use crate::error::{BuildError, Result};
use crate::files::{ContextFiles, SourceTree, StatCache};
use crate::ignore::Patterns;
use rdock_image::MergedView;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Contexts by name; the main one has an empty name.
#[derive(Debug, Default)]
pub(crate) struct Inputs(pub(crate) BTreeMap<Arc<str>, ContextDir>);

/// A directory and what the build does not see of it.
#[derive(Debug)]
pub(crate) struct ContextDir {
    pub(crate) path: PathBuf,
    pub(crate) ignore: Patterns,
    /// Will later builds find it at this path? An archive is unpacked at another one each time.
    pub(crate) lasting: bool,
}

impl Inputs {
    /// Opens a context. Without a main one that is empty: the Dockerfile alone was given.
    pub(crate) fn open(&self, cache: &Cache, name: &str) -> Result<SourceTree> {
        if name.is_empty() && !self.0.contains_key(name) {
            return Ok(SourceTree {
                view: MergedView::open(&[])?,
                ignore: Patterns::default(),
                context: None,
            });
        }
        let context = self.0.get(name).ok_or_else(|| BuildError::Option {
            option: "build-context",
            reason: format!("{name:?} is not given"),
        })?;
        let stats = std::fs::read(cache.dir("files").join(Self::key(context).as_str()))
            .map(StatCache::parse)
            .unwrap_or_default();
        Ok(SourceTree {
            view: MergedView::open(std::slice::from_ref(&context.path))?,
            ignore: context.ignore.clone(),
            context: Some(ContextFiles {
                root: context.path.clone(),
                stats,
            }),
        })
    }

    /// Where the main context is for later builds, too; empty where it is nowhere.
    pub(crate) fn main(&self) -> &std::path::Path {
        self.0
            .get("")
            .filter(|context| context.lasting)
            .map_or(std::path::Path::new(""), |context| &context.path)
    }

    /// Keeps the digests that were computed.
    pub(crate) fn close(&self, cache: &Cache, name: &str, tree: &SourceTree) -> Result<()> {
        let (Some(files), Some(context)) = (&tree.context, self.0.get(name)) else {
            return Ok(());
        };
        match files.stats.to_bytes() {
            Some(bytes) if context.lasting => {
                cache.write(&cache.dir("files").join(Self::key(context).as_str()), &bytes)
            }
            _ => Ok(()),
        }
    }

    fn key(context: &ContextDir) -> Key {
        Key::of(context.path.as_os_str().as_bytes())
    }
}
