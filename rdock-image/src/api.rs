//! The agreed public surface, to be replaced file by file with the real thing.
#![allow(missing_docs, missing_debug_implementations, clippy::todo)]

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// digest.rs
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);
impl Digest {
    pub fn parse(_text: &str) -> Result<Self> { todo!() }
    pub fn sha256_of(_bytes: &[u8]) -> Self { todo!() }
    pub fn as_str(&self) -> &str { &self.0 }
    /// The hexadecimal part.
    pub fn hex(&self) -> &str { todo!() }
    /// First 12 hexadecimal digits, as docker prints ids.
    pub fn short(&self) -> &str { todo!() }
}
impl fmt::Display for Digest { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) } }
impl fmt::Debug for Digest { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) } }

/// reference.rs: always normalised (`docker.io/library/busybox:latest`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Reference(String);
impl Reference {
    /// Docker's short forms are filled in; `:latest` when neither tag nor digest is given.
    pub fn parse(_text: &str) -> Result<Self> { todo!() }
    pub fn domain(&self) -> &str { todo!() }
    pub fn path(&self) -> &str { todo!() }
    pub fn tag(&self) -> Option<&str> { todo!() }
    pub fn digest(&self) -> Option<&Digest> { todo!() }
    /// As docker prints it: `busybox:1.35`.
    pub fn familiar(&self) -> String { todo!() }
}
impl fmt::Display for Reference { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) } }

/// platform.rs
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Platform { pub os: String, pub architecture: String, #[serde(default)] pub variant: Option<String>, #[serde(default, rename = "os.version")] pub os_version: Option<String>, #[serde(default, rename = "os.features")] pub os_features: Vec<String> }
impl Platform { pub fn host() -> Self { todo!() } pub fn parse(_text: &str) -> Result<Self> { todo!() } }

/// manifest.rs (wire structs with unknown fields kept). `Descriptor`, `Manifest`, `Index`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor { pub media_type: String, pub digest: String, pub size: u64, #[serde(default)] pub urls: Vec<String>, #[serde(default)] pub annotations: BTreeMap<String, String>, #[serde(default)] pub platform: Option<Platform>, #[serde(flatten)] pub other: BTreeMap<String, serde_json::Value> }

/// config.rs: the image config with Docker's fields (names as Docker writes them).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ImageConfig { pub architecture: String, pub os: String, #[serde(default)] pub created: Option<String>, #[serde(default)] pub config: ContainerConfig, #[serde(flatten)] pub other: BTreeMap<String, serde_json::Value> }
/// The `config` object inside an image config.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    pub user: String, pub env: Vec<String>, pub cmd: Option<Vec<String>>, pub entrypoint: Option<Vec<String>>, pub working_dir: String,
    pub exposed_ports: BTreeMap<String, serde_json::Value>, pub volumes: BTreeMap<String, serde_json::Value>, pub labels: BTreeMap<String, String>,
    pub stop_signal: Option<String>, pub shell: Option<Vec<String>>,
    #[serde(flatten)] pub other: BTreeMap<String, serde_json::Value>,
}

/// progress.rs: cloneable; `Default` is silent; `From<F: Fn(Event) + Send + Sync>`.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(Event) + Send + Sync>>);
impl Progress { pub fn new(f: impl Fn(Event) + Send + Sync + 'static) -> Self { Self(Some(Arc::new(f))) } pub fn emit(&self, event: Event) { if let Some(f) = &self.0 { f(event) } } }
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    Resolving { reference: Reference },
    /// The manifest is known; layers follow.
    Resolved { reference: Reference, digest: Digest, layers: Vec<Descriptor> },
    LayerExists { digest: Digest },
    LayerStarted { digest: Digest, total: u64 },
    LayerProgress { digest: Digest, done: u64, total: u64 },
    LayerDone { digest: Digest },
    Retrying { what: String, attempt: u32, delay: std::time::Duration, cause: String },
    Done { reference: Reference, digest: Digest },
}

/// source.rs
pub trait ImageSource: Send + Sync {
    /// Brings `reference` into `store` and tags it; called from a blocking thread.
    fn fetch(&self, reference: &Reference, platform: &Platform, store: &ImageStore, progress: &Progress) -> Result<Image, BoxError>;
}

/// store.rs
#[derive(Clone)]
pub struct ImageStore(Arc<PathBuf>);
impl ImageStore {
    /// `root` is rdock's root; the store is `<root>/image`.
    pub fn open(_root: impl AsRef<Path>) -> Result<Self> { todo!() }
    pub fn open_default() -> Result<Self> { todo!() }
    pub fn root(&self) -> &Path { &self.0 }
    /// By reference, or by image id (full digest, hex, or unique prefix of at least 4 digits).
    pub fn get(&self, _name: &str) -> Result<Option<Image>> { todo!() }
    pub fn images(&self) -> Result<Vec<Image>> { todo!() }
    pub fn tag(&self, _image: &Image, _name: &Reference) -> Result<()> { todo!() }
    /// Removes a tag, and the image when it was the last one; fails when a snapshot uses the image.
    pub fn remove(&self, _name: &str, _force: bool) -> Result<Removed> { todo!() }
    pub fn prune(&self, _filter: &PruneFilter) -> Result<Pruned> { todo!() }
    /// Imports a docker-archive or OCI archive (plain, gzip, xz, zstd) or an OCI layout directory.
    pub fn import(&self, _path: &Path, _progress: &Progress) -> Result<Vec<Image>> { todo!() }
    pub fn import_stream(&self, _stream: &mut dyn std::io::Read, _progress: &Progress) -> Result<Vec<Image>> { todo!() }
    pub fn info(&self) -> Result<StoreInfo> { todo!() }
    /// Pins digests against `prune`, in any process, until dropped.
    pub fn lease(&self) -> Result<Lease> { todo!() }
    /// Manifest, index or config by digest.
    pub fn read_blob(&self, _digest: &Digest) -> Result<Vec<u8>> { todo!() }
    pub fn write_blob(&self, _lease: &Lease, _bytes: &[u8], _expected: &Digest) -> Result<()> { todo!() }
    pub fn has_layer(&self, _diff_id: &Digest) -> bool { todo!() }
    /// One-pass ingest of a layer: reads the (compressed) blob from `stream`, verifies `descriptor.digest`, `descriptor.size` and
    /// `diff_id` while streaming, and publishes the layer by rename. Concurrent ingests of one layer, in any process, do the work once.
    pub fn ingest_layer(&self, _lease: &Lease, _descriptor: &Descriptor, _diff_id: &Digest, _origin: Option<&str>, _stream: &mut dyn std::io::Read) -> Result<()> { todo!() }
    /// Makes `reference` name the image whose manifest, config and layers are all present.
    pub fn commit(&self, _lease: &Lease, _reference: &Reference, _manifest: &Digest) -> Result<Image> { todo!() }
    /// A writable snapshot over the image's layers; `id` is the container's id.
    pub fn snapshot(&self, _image: &Image, _id: &str, _options: &SnapshotOptions) -> Result<Snapshot> { todo!() }
    pub fn open_snapshot(&self, _id: &str) -> Result<Option<Snapshot>> { todo!() }
    pub fn snapshots(&self) -> Result<Vec<String>> { todo!() }
}
#[derive(Debug, Clone, Default)] pub struct Removed { pub untagged: Vec<Reference>, pub deleted: Vec<Digest> }
#[derive(Debug, Clone, Default)] pub struct PruneFilter { pub all: bool }
#[derive(Debug, Clone, Default)] pub struct Pruned { pub images: Vec<Digest>, pub bytes: u64 }
#[derive(Debug, Clone)] pub struct StoreInfo { pub root: PathBuf, pub layer_form: &'static str, pub upper: &'static str }
pub struct Lease(());

/// image.rs: a handle; proves the image was complete when it was made.
#[derive(Clone)]
pub struct Image { pub(crate) _store: ImageStore }
impl Image {
    /// The image id: digest of its config.
    pub fn id(&self) -> &Digest { todo!() }
    pub fn manifest_digest(&self) -> &Digest { todo!() }
    pub fn config(&self) -> &ImageConfig { todo!() }
    pub fn diff_ids(&self) -> &[Digest] { todo!() }
    pub fn references(&self) -> &[Reference] { todo!() }
    /// Bytes of the unpacked layers.
    pub fn size(&self) -> u64 { todo!() }
    pub fn store(&self) -> &ImageStore { todo!() }
}

/// snapshot.rs
#[derive(Clone, Debug, Default)]
pub struct SnapshotOptions { /// The mount will carry `volatile` and the upper is thrown away.
    pub volatile: bool, /// Mounted inside a user namespace: `userxattr`.
    pub user_namespace: bool }
/// A writable stack of layers; lives until `remove`.
#[derive(Clone, Debug)]
pub struct Snapshot { _id: String }
impl Snapshot {
    pub fn id(&self) -> &str { &self._id }
    /// What to mount, in order; the last one is the root file system.
    pub fn mounts(&self) -> Vec<Mount> { todo!() }
    pub fn upper(&self) -> &Path { todo!() }
    /// Removes upper and work. Directories that only a user namespace may delete give a typed error.
    pub fn remove(self) -> Result<()> { todo!() }
}
/// Data only: nothing in this crate mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mount {
    Overlay { lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf, volatile: bool, userxattr: bool },
    Erofs { index: PathBuf, devices: Vec<PathBuf> },
}

/// error.rs: variants are decisions, each names its object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error { #[error("to be replaced")] Replaced }
impl Error { pub fn hint(&self) -> Option<String> { None } }
