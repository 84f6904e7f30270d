//! An image in the store.
use crate::layer::Layer;
use crate::manifest::media_type;
use crate::store::tags_of;
use crate::{
    Descriptor, Digest, Error, ImageConfig, ImageStore, Manifest, ManifestDocument, Reference, Result,
};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// A handle to an image; proves that the image was complete when the handle was made.
///
/// Cloning is cheap.
#[derive(Clone)]
pub struct Image(Arc<Inner>);

struct Inner {
    store: ImageStore,
    id: Digest,
    manifest_digest: Digest,
    manifest: Manifest,
    config: ImageConfig,
    names: Names,
    size: u64,
}

/// The image's names. Whoever starts a container of an image by one of them does not want to know the others, and a
/// file has to be read for each name of the whole store to find them.
pub(crate) enum Names {
    Known(Vec<Reference>),
    /// Looked for when they are asked for. Reached by this one, if by any.
    Sought(Option<Reference>, OnceLock<Vec<Reference>>),
}

impl Names {
    pub(crate) fn sought(by: Option<Reference>) -> Self {
        Self::Sought(by, OnceLock::new())
    }
}

impl Image {
    pub(crate) fn load(store: &ImageStore, manifest_digest: &Digest, names: Names) -> Result<Self> {
        let missing = |what: &'static str| {
            move |error| match error {
                Error::MissingBlob { digest, .. } => Error::MissingBlob { what, digest },
                other => other,
            }
        };
        let bytes = store.read_blob(manifest_digest).map_err(missing("manifest"))?;
        let ManifestDocument::Manifest(manifest) = ManifestDocument::parse(&bytes, None)? else {
            return Err(Error::document(
                format!("manifest {manifest_digest}"),
                "it is an index",
            ));
        };
        let id = manifest.config.digest()?;
        let config = ImageConfig::parse(&store.read_blob(&id).map_err(missing("config"))?)?;
        let mut size = 0;
        for diff_id in &config.rootfs.diff_ids {
            size += Layer::open(store.layout(), diff_id)?.size();
        }
        Ok(Self(Arc::new(Inner {
            store: store.clone(),
            id,
            manifest_digest: manifest_digest.clone(),
            manifest,
            config,
            names,
            size,
        })))
    }

    /// Returns the image id: the digest of its config.
    pub fn id(&self) -> &Digest {
        &self.0.id
    }

    /// Returns the digest of its manifest.
    pub fn manifest_digest(&self) -> &Digest {
        &self.0.manifest_digest
    }

    /// Returns its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Returns its config.
    pub fn config(&self) -> &ImageConfig {
        &self.0.config
    }

    /// Returns its layers' diffIDs, the base first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.0.config.rootfs.diff_ids
    }

    /// Returns its names, sorted: of a handle from [`ImageStore::images`] those of that moment, of any other one those
    /// that it has when this is first called. Where the store cannot be listed any more, only the name that it was
    /// looked up by is left.
    pub fn references(&self) -> &[Reference] {
        match &self.0.names {
            Names::Known(names) => names,
            Names::Sought(by, found) => found.get_or_init(|| {
                let names = tags_of(self.0.store.layout(), &self.0.manifest_digest);
                names.unwrap_or_else(|_| by.iter().cloned().collect())
            }),
        }
    }

    /// Returns the bytes in files of its layers.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Returns the entry that stands for this image in an index: its manifest's type, digest and size, and its platform.
    ///
    /// # Errors
    /// [`Error::MissingBlob`] when the manifest is not in the store any more.
    pub fn descriptor(&self) -> Result<Descriptor> {
        let size = self.0.store.read_blob(self.manifest_digest())?.len() as u64;
        let kind = self.manifest().media_type.as_deref();
        Ok(Descriptor {
            platform: Some(self.config().platform()),
            ..Descriptor::new(
                kind.unwrap_or(media_type::OCI_MANIFEST),
                self.manifest_digest(),
                size,
            )
        })
    }

    /// Returns the store it is in.
    pub fn store(&self) -> &ImageStore {
        &self.0.store
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("id", &self.0.id)
            .field("manifest", &self.0.manifest_digest)
            .finish_non_exhaustive()
    }
}
