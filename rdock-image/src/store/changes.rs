//! What changes in a store, told to whoever keeps a journal of it.
use crate::{Digest, Reference};
use std::fmt;
use std::sync::Arc;

/// One change of which images there are, or of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// An image was committed: pulled, imported or built.
    Created {
        /// Its id.
        id: Digest,
        /// Its name, where it got one.
        reference: Option<Reference>,
    },
    /// An image has one more name.
    Tagged {
        /// Its id.
        id: Digest,
        /// The name.
        reference: Reference,
    },
    /// An image has one name less.
    Untagged {
        /// Its id.
        id: Digest,
        /// The name.
        reference: Reference,
    },
    /// An image is gone.
    Deleted {
        /// Its id.
        id: Digest,
    },
}

/// Who is told of each change that this store's handle makes, after it is done. Cloning is cheap; the default
/// one tells nobody.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<dyn Fn(Change) + Send + Sync>>);

impl Observer {
    /// Makes an observer that calls `receiver`, on the thread that made the change.
    pub fn new(receiver: impl Fn(Change) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(receiver)))
    }

    pub(super) fn tell(&self, change: impl FnOnce() -> Change) {
        if let Some(receiver) = &self.0 {
            receiver(change());
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Observer(..)"
        } else {
            "Observer(nobody)"
        })
    }
}
