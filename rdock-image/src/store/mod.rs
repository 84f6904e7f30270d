//! The image store: open it, look images up, tag, remove, and bring layers in.
mod archive;
mod changes;
mod fsck;
mod ingest;
mod limits;
mod made;
mod names;
mod partial;
mod prune;
mod upload;
mod usage;

pub use changes::{Change, Observer};
pub use fsck::{Finding, FsckReport, RepairReport};
pub use ingest::Origin;
pub use limits::Limits;
pub use made::{LayerOptions, MadeLayer, ScratchLayer};
pub use names::Removed;
pub(crate) use names::tags_of;
pub use partial::Partial;
pub use prune::{PruneFilter, Pruned};
pub use upload::UploadNote;
pub use usage::{ImageUsage, StoreUsage};

use crate::layer::merged::MergedView;
use crate::layer::meta::Ownership;
use crate::layer::{Layer, chain, rights, size_beside};
use crate::layout::{Durability, Layout};
use crate::{Digest, Error, Image, Lease, Result, blobs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// How a store is opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoreOptions {
    /// What an image may cost.
    pub limits: Limits,
    /// What is forced to the disk.
    pub durability: Durability,
    /// Who is told of changes.
    pub observer: Observer,
}

/// Where images are kept. Any number of processes may use one directory at once; there is no daemon.
///
/// Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ImageStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Arc<Layout>,
    limits: Limits,
    observer: Observer,
    ownership: OnceLock<Ownership>,
}

/// What a store can do here, found by trying.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreInfo {
    /// The store's directory, `<root>/image`.
    pub root: PathBuf,
    /// How new layers are kept: `directory`.
    pub layer_form: &'static str,
    /// Who owns files of layers: `exact` (as the layer says) or `single-id` (this user; the rest is kept beside
    /// the layer).
    pub ownership: &'static str,
    /// Where a container's changes can go: `directory`, or `unsupported` where the file system cannot hold an
    /// overlay's upper directory.
    pub upper: &'static str,
    /// Images, counted by id.
    pub images: usize,
}

impl ImageStore {
    /// Opens the store below `root`, which is rdock's root (the store itself is `<root>/image`), making it where
    /// it does not exist.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(root, StoreOptions::default())
    }

    /// As [`ImageStore::open`], with limits and durability of one's own.
    pub fn open_with(root: impl AsRef<Path>, options: StoreOptions) -> Result<Self> {
        let layout = Arc::new(Layout::open(root.as_ref(), options.durability)?);
        prune::sweep(&layout)?;
        Ok(Self(Arc::new(Inner {
            layout,
            limits: options.limits,
            observer: options.observer,
            ownership: OnceLock::new(),
        })))
    }

    /// Opens the user's own store: below `RDOCK_ROOT` where that is set, else `/var/lib/rdock` for root and
    /// `$XDG_DATA_HOME/rdock` (`~/.local/share/rdock`) for others.
    pub fn open_default() -> Result<Self> {
        Self::open(default_root()?)
    }

    /// Returns the store's directory, `<root>/image`.
    pub fn root(&self) -> &Path {
        self.layout().root()
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.0.layout
    }

    fn observer(&self) -> &Observer {
        &self.0.observer
    }

    /// Returns the limits images are held to.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Whether files get the owners a layer says; tried once.
    pub(crate) fn ownership(&self) -> Result<Ownership> {
        if let Some(ownership) = self.0.ownership.get() {
            return Ok(*ownership);
        }
        let found = rights::probe(&self.layout().scratch(".probe")?)?;
        Ok(*self.0.ownership.get_or_init(|| found))
    }

    /// Returns what this store can do here.
    pub fn info(&self) -> Result<StoreInfo> {
        let kind = rustix::fs::statfs(self.root())
            .map_err(|e| Error::io("examine", self.root(), e))?
            .f_type;
        // Overlayfs refuses itself, NFS and similar as the upper directory: they lack d_type, xattrs or rename flags.
        const OVERLAY: i64 = 0x794c_7630;
        const NFS: i64 = 0x6969;
        const NINE_P: i64 = 0x0102_1997;
        Ok(StoreInfo {
            root: self.root().to_owned(),
            layer_form: "directory",
            ownership: match self.ownership()? {
                Ownership::Exact => "exact",
                Ownership::SingleId => "single-id",
            },
            upper: if matches!(kind as i64, OVERLAY | NFS | NINE_P) {
                "unsupported"
            } else {
                "directory"
            },
            images: self.images()?.len(),
        })
    }

    /// Takes a lease: what is written or pinned through it is safe from [`ImageStore::prune`], in any process,
    /// until it is dropped.
    pub fn lease(&self) -> Result<Lease> {
        Lease::new(self.layout())
    }

    /// Returns a manifest, index or config. Its digest is checked.
    pub fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        blobs::read(self.layout(), digest, self.limits().json_bytes)
    }

    /// Says whether a manifest, index or config is in the store.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        blobs::has(self.layout(), digest)
    }

    /// Stores a manifest, index or config, which must have the digest `expected`.
    pub fn write_blob(&self, lease: &Lease, bytes: &[u8], expected: &Digest) -> Result<()> {
        if bytes.len() as u64 > self.limits().json_bytes {
            return Err(Error::Limit {
                what: format!("the size in bytes of document {expected}"),
                limit: self.limits().json_bytes,
            });
        }
        blobs::write(self.layout(), lease, bytes, expected)
    }

    /// Says whether the layer is in the store.
    ///
    /// What a lease pins (also by pinning a config that names the layer) stays; another layer may be pruned at any
    /// time.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        Layer::open(self.layout(), diff_id).is_ok()
    }

    /// Returns the size of a layer in the store: bytes of its files.
    pub fn layer_size(&self, diff_id: &Digest) -> Result<u64> {
        Ok(Layer::open(self.layout(), diff_id)?.size())
    }

    /// Returns what a layer in the store takes on the disk: bytes of its files, and of what is kept to make its tar
    /// again.
    ///
    /// # Errors
    /// [`Error::MissingBlob`] when it is not in the store.
    pub fn layer_usage(&self, diff_id: &Digest) -> Result<u64> {
        let size = self.layer_size(diff_id)?;
        Ok(size + size_beside(&self.layout().layer(diff_id)))
    }

    /// Opens the tree of an image's layers for reading, without mounting it.
    pub fn view(&self, image: &Image) -> Result<MergedView> {
        let stack = chain::stack(self.layout(), image.diff_ids())?;
        let lower: Vec<PathBuf> = stack.lower.iter().map(|path| self.root().join(path)).collect();
        MergedView::open(&lower)
    }
}

fn default_root() -> Result<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(root) = variable("RDOCK_ROOT") {
        return Ok(root);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/rdock"));
    }
    // The base directory specification: a relative path is to be ignored.
    let data = variable("XDG_DATA_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| variable("HOME").map(|home| home.join(".local/share")));
    match data {
        Some(data) => Ok(data.join("rdock")),
        None => Err(Error::Unsupported {
            what: "a default root directory without HOME and XDG_DATA_HOME".to_owned(),
            on: "set RDOCK_ROOT".to_owned(),
        }),
    }
}
