//! Progress of a push as typed events.

use crate::session::{Remark, Remarks};
use rdock_image::{Digest, Progress, Reference};
use std::time::Duration;

/// Where the events of a push go.
pub type PushProgress = Progress<PushEvent>;

/// What connections remark, as events of a push.
pub(super) fn remarks(progress: &PushProgress) -> Remarks {
    let progress = progress.clone();
    Remarks::new(move |remark| {
        progress.emit(match remark {
            Remark::Warning(text) => PushEvent::Warning { text },
            Remark::Retrying {
                what,
                attempt,
                delay,
                cause,
            } => PushEvent::Retrying {
                what,
                attempt,
                delay,
                cause,
            },
        });
    })
}

/// One thing that happened while an image goes to a registry. Layers are named by their diffIDs, since the digest of
/// a compressed one may be known only when it is sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PushEvent {
    /// The push begins.
    Started {
        /// The name.
        reference: Reference,
        /// In the image's order: the base first.
        layers: Vec<Digest>,
    },
    /// The registry has the layer in this repository.
    LayerExists {
        /// The layer.
        diff_id: Digest,
        /// Of the compressed blob.
        digest: Digest,
    },
    /// The registry took the layer from another repository of its own.
    LayerMounted {
        /// The layer.
        diff_id: Digest,
        /// Of the compressed blob.
        digest: Digest,
        /// The repository.
        from: String,
    },
    /// The layer is not sent: its manifest entry names where it may be had (a layer that must not be distributed).
    LayerForeign {
        /// The layer.
        diff_id: Digest,
    },
    /// The layer's first byte goes out.
    LayerStarted {
        /// The layer.
        diff_id: Digest,
        /// Bytes to send, where they are known: not of a layer that is compressed on the way.
        total: Option<u64>,
    },
    /// More of the layer was sent.
    LayerProgress {
        /// The layer.
        diff_id: Digest,
        /// Bytes so far.
        done: u64,
        /// Bytes in all, where they are known.
        total: Option<u64>,
    },
    /// The registry has verified the layer.
    LayerDone {
        /// The layer.
        diff_id: Digest,
        /// Of the compressed blob.
        digest: Digest,
    },
    /// The layer was compressed here, since no blob of it exists anywhere: it was made here, or its origins do not
    /// have it any more. So the manifest names another blob than the one in the store, and has another digest.
    LayerCompressed {
        /// The layer.
        diff_id: Digest,
        /// Of the compressed blob.
        digest: Digest,
        /// The layer as it was sent; another one than `diff_id` where only the files were kept and not the exact
        /// tar. Then the image has another id in the registry, too.
        sent: Digest,
    },
    /// A failed step is tried again.
    Retrying {
        /// Which step.
        what: String,
        /// The number of the coming attempt; the first retry is 1.
        attempt: u32,
        /// Until it starts.
        delay: Duration,
        /// Why the last one failed.
        cause: String,
    },
    /// Something that does not stop the work, but that a person should know.
    Warning {
        /// One line.
        text: String,
    },
    /// The registry has the image.
    Done {
        /// The name.
        reference: Reference,
        /// Of the manifest.
        digest: Digest,
        /// Bytes of the manifest.
        size: u64,
    },
}
