//! Files of COPY and ADD: which ones are meant, what they contain, and how they become a layer.
mod copy;
mod digest;
mod owner;
mod scan;
mod select;
mod stat_cache;
mod target;

pub(crate) use copy::{Copying, find};
pub(crate) use digest::{FileDigests, digest};
pub(crate) use owner::resolve as resolve_owner;
pub(crate) use select::{Selected, select, walk};
pub(crate) use stat_cache::StatCache;
pub(crate) use target::{Attributes, Target};

use crate::ignore::Patterns;
use rdock_image::MergedView;
use std::path::PathBuf;

/// A tree that files are copied from.
#[derive(Debug)]
pub(crate) struct SourceTree {
    pub(crate) view: MergedView,
    /// What the build does not see of a context.
    pub(crate) ignore: Patterns,
    /// Where a context is; a context's files belong to root, whoever has them on the host.
    pub(crate) context: Option<ContextFiles>,
}

/// The directory of a context.
#[derive(Debug)]
pub(crate) struct ContextFiles {
    pub(crate) root: PathBuf,
    /// The digests of its files.
    pub(crate) stats: StatCache,
}

impl SourceTree {
    /// The result of a step or the layers of an image.
    pub(crate) fn layers(view: MergedView) -> Self {
        Self {
            view,
            ignore: Patterns::default(),
            context: None,
        }
    }

    pub(crate) fn is_context(&self) -> bool {
        self.context.is_some()
    }
}
