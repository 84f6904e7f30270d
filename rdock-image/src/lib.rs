//! What a container image is, and where it is kept: references, digests, manifests, a
//! crash-safe content store, layers, snapshots, tags.
//!
//! No network, no processes, no unsafe code; the API is synchronous.
#![forbid(unsafe_code)]

mod api;
pub use api::*;
