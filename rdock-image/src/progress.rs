//! Progress of long work as typed events; this crate never prints.
use crate::{Descriptor, Digest, Reference, Stop};
use std::fmt;
use std::sync::Arc;

/// Where events go, and how the work is ended early. Cloning is cheap; the default one drops every event.
///
/// The events are those of an image on its way into the store, or of other work: pushes and builds have their own.
pub struct Progress<E = Event> {
    receiver: Option<Arc<dyn Fn(E) + Send + Sync>>,
    stop: Stop,
}

impl<E> Progress<E> {
    /// Makes a progress that calls `receiver` with each event, from whichever thread does the work.
    pub fn new(receiver: impl Fn(E) + Send + Sync + 'static) -> Self {
        Self {
            receiver: Some(Arc::new(receiver)),
            stop: Stop::default(),
        }
    }

    /// Ends the work when `stop` says so: an [`crate::ImageSource`] does, whose calls block. What is asynchronous (pulls,
    /// pushes and builds that are awaited) ends when its future is dropped, and does not look at this.
    #[must_use]
    pub fn stopped_by(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// Returns what ends the work.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Hands `event` to the receiver.
    pub fn emit(&self, event: E) {
        if let Some(receiver) = &self.receiver {
            receiver(event);
        }
    }
}

// Whatever the events are: derived, these would ask them for the same.
impl<E> Clone for Progress<E> {
    fn clone(&self) -> Self {
        Self {
            receiver: self.receiver.clone(),
            stop: self.stop.clone(),
        }
    }
}

impl<E> Default for Progress<E> {
    fn default() -> Self {
        Self {
            receiver: None,
            stop: Stop::default(),
        }
    }
}

impl<E, F: Fn(E) + Send + Sync + 'static> From<F> for Progress<E> {
    fn from(receiver: F) -> Self {
        Self::new(receiver)
    }
}

impl<E> fmt::Debug for Progress<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.receiver.is_some() {
            "Progress(..)"
        } else {
            "Progress(silent)"
        })
    }
}

/// One thing that happened while an image comes into the store. Sizes are bytes of the compressed blob.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The name is looked up.
    Resolving {
        /// The name.
        reference: Reference,
    },
    /// The manifest is known; layers follow.
    Resolved {
        /// The name.
        reference: Reference,
        /// Of the manifest.
        digest: Digest,
        /// In the manifest's order: the base first.
        layers: Vec<Descriptor>,
    },
    /// The layer is in the store already.
    LayerExists {
        /// Of the compressed layer.
        digest: Digest,
    },
    /// The layer's first byte is awaited.
    LayerStarted {
        /// Of the compressed layer.
        digest: Digest,
        /// Bytes to come.
        total: u64,
    },
    /// More of the layer was read.
    LayerProgress {
        /// Of the compressed layer.
        digest: Digest,
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The layer is verified and in the store.
    LayerDone {
        /// Of the compressed layer.
        digest: Digest,
    },
    /// A failed step is tried again.
    Retrying {
        /// Which step.
        what: String,
        /// The number of the coming attempt; the first retry is 1.
        attempt: u32,
        /// Until it starts.
        delay: std::time::Duration,
        /// Why the last one failed.
        cause: String,
    },
    /// Something that does not stop the work, but that a person should know.
    Warning {
        /// One line.
        text: String,
    },
    /// The image is complete and tagged.
    Done {
        /// The name.
        reference: Reference,
        /// Of the manifest.
        digest: Digest,
    },
}
