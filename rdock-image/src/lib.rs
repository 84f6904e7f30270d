//! What a container image is, and where it is kept: references, digests, manifests, a crash-safe content store,
//! layers, snapshots, tags.
//!
//! # Why this shape
//!
//! The store is a directory that any number of processes use at once, without a daemon. A thing is there if and only
//! if its final name exists; it gets that name by a rename, when it is complete and verified. Locks are `flock`s,
//! which the kernel releases when their holder dies. [`format`](mod@format) describes the files.
//!
//! No network and no processes: an [`ImageSource`] brings images, and a [`Snapshot`] *describes* mounts for whoever
//! runs them. The API is synchronous; there is no unsafe code.
//!
//! # The way of an image
//!
//! [`Reference`] → [`ManifestDocument`] → [`ImageConfig`] and layers ([`ImageStore::ingest_layer`]) →
//! [`ImageStore::commit`] → [`Image`] → [`ImageStore::snapshot`] → [`Mount`].
#![forbid(unsafe_code)]

#[cfg(doc)]
#[doc = include_str!("../FORMAT.md")]
pub mod format {}

pub mod archive;
mod blobs;
mod config;
mod digest;
mod error;
mod export;
mod image;
mod import;
mod layer;
mod layout;
mod lease;
mod lock;
pub mod manifest;
mod platform;
mod progress;
pub mod reference;
mod snapshot;
mod source;
mod stop;
mod store;
mod tarstream;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use digest::{Digest, Hasher};
pub use error::{BoxError, Error, Result};
pub use export::{ExportOptions, ExportReport};
pub use image::Image;
pub use import::{
    ArchiveContents, DockerImage, ImportOptions, ImportReport, LayoutEntry, LayoutName, OciLayout,
};
pub use layer::merged::{FileInfo, FileKind, MergedView, ViewEntry};
pub use layout::Durability;
pub use lease::Lease;
pub use manifest::{Descriptor, Index, Manifest, ManifestDocument};
pub use platform::Platform;
pub use progress::{Event, Progress};
pub use reference::{Reference, ReferenceParts};
pub use snapshot::{Mount, Snapshot, SnapshotOptions};
pub use source::{ImageSource, ResolvedImage};
pub use stop::{OnStop, Stop};
pub use store::{
    Change, Finding, FsckReport, ImageStore, ImageUsage, LayerOptions, Limits, MadeLayer, Observer, Origin,
    Partial, PruneFilter, Pruned, Removed, RepairReport, ScratchLayer, StoreInfo, StoreOptions, StoreUsage,
    UploadNote,
};
