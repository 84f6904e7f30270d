//! Files of COPY and ADD: which ones are meant, what they contain, and how they become a layer.
mod copy;
mod digest;
mod owner;
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
use std::cell::RefCell;

/// A tree that files are copied from.
#[derive(Debug)]
pub(crate) struct SourceTree {
    pub(crate) view: MergedView,
    /// What the build does not see of a context.
    pub(crate) ignore: Patterns,
    /// The digests of a context's files; a context's files belong to root, whoever has them on the host.
    pub(crate) stats: Option<RefCell<StatCache>>,
}

impl SourceTree {
    /// The result of a step or the layers of an image.
    pub(crate) fn layers(view: MergedView) -> Self {
        Self {
            view,
            ignore: Patterns::default(),
            stats: None,
        }
    }

    pub(crate) fn is_context(&self) -> bool {
        self.stats.is_some()
    }
}
