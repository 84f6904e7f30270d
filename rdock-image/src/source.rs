//! Where images come from: the one trait between this crate and a registry.
use crate::{BoxError, Digest, Error, Image, ImageConfig, ImageStore, ManifestDocument, Platform, Progress};
use crate::{Manifest, Reference, Result};

/// A place that images are fetched from. `rdock-registry` implements it; so does any test double.
pub trait ImageSource: Send + Sync {
    /// Brings `reference` into `store` and tags it; called from a blocking thread.
    ///
    /// Of an index the image that suits `platform` best is taken. When this fails, nothing half-made is left. It ends
    /// early, with an error, when the progress's [`Stop`](crate::Stop) says so.
    fn fetch(
        &self,
        reference: &Reference,
        platform: &Platform,
        store: &ImageStore,
        progress: &Progress,
    ) -> Result<Image, BoxError>;

    /// Says what `reference` is now: its manifest and its config, without the layers where the source can do that.
    /// Nothing is tagged then, and the store is left as it is.
    ///
    /// A source that only knows how to fetch whole images brings the image in, as [`ImageSource::fetch`] does.
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        store: &ImageStore,
        progress: &Progress,
    ) -> Result<ResolvedImage, BoxError> {
        let image = self.fetch(reference, platform, store, progress)?;
        Ok(ResolvedImage::of(reference, &image)?)
    }

    /// Brings the image into `store` that was resolved, whatever its name leads to by now, and gives it that name.
    ///
    /// # Errors
    /// As [`ImageSource::fetch`]; [`Error::Moved`] when the source has only another one.
    fn fetch_resolved(
        &self,
        resolved: &ResolvedImage,
        platform: &Platform,
        store: &ImageStore,
        progress: &Progress,
    ) -> Result<Image, BoxError> {
        let image = self.fetch(resolved.reference(), platform, store, progress)?;
        if image.manifest_digest() != resolved.manifest_digest() {
            return Err(Box::new(Error::Moved {
                reference: resolved.reference().familiar(),
                expected: resolved.manifest_digest().clone(),
                found: image.manifest_digest().clone(),
            }));
        }
        Ok(image)
    }

    /// Brings some layers of an image that was resolved into `store`: those of the diffIDs `wanted` that are not there.
    /// Nothing is tagged; what pinned them before holds on to them (see [`Lease::pin`](crate::Lease::pin)).
    ///
    /// # Errors
    /// As [`ImageSource::fetch`]; [`Error::Unsupported`] from a source that only knows whole images.
    fn fetch_layers(
        &self,
        resolved: &ResolvedImage,
        wanted: &[Digest],
        store: &ImageStore,
        progress: &Progress,
    ) -> Result<(), BoxError> {
        let _ = (wanted, store, progress);
        Err(Box::new(Error::Unsupported {
            what: "layers without their image".to_owned(),
            on: resolved.reference().familiar(),
        }))
    }

    /// Puts an image, which its store need not list, where `reference` leads to, and returns the digest of its manifest
    /// there. Names in the store stay as they are.
    ///
    /// # Errors
    /// When the place does not take it; [`Error::Unsupported`] from a source that only gives.
    fn publish(&self, reference: &Reference, image: &Image, progress: &Progress) -> Result<Digest, BoxError> {
        let _ = (image, progress);
        Err(Box::new(Error::Unsupported {
            what: "sending images".to_owned(),
            on: reference.familiar(),
        }))
    }
}

/// What a name led to: the documents of an image, whose layers may be elsewhere.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    reference: Reference,
    digest: Digest,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    config_digest: Digest,
    config: ImageConfig,
    config_bytes: Vec<u8>,
}

impl ResolvedImage {
    /// Puts together what `reference` led to, from the bytes of the manifest and of the config that it names.
    ///
    /// # Errors
    /// [`Error::MalformedDocument`] for an index and for documents that do not belong together,
    /// [`Error::DigestMismatch`] for another config than the manifest's.
    pub fn new(reference: &Reference, manifest_bytes: Vec<u8>, config_bytes: Vec<u8>) -> Result<Self> {
        let digest = Digest::sha256_of(&manifest_bytes);
        Self::with_digest(reference, digest, manifest_bytes, config_bytes)
    }

    /// As [`ResolvedImage::new`], of a manifest that is known by this digest, which may be of another algorithm.
    ///
    /// # Errors
    /// As [`ResolvedImage::new`], and [`Error::DigestMismatch`] when it is not the manifest's digest.
    pub fn with_digest(
        reference: &Reference,
        digest: Digest,
        manifest_bytes: Vec<u8>,
        config_bytes: Vec<u8>,
    ) -> Result<Self> {
        let found = digest.of_same_kind(&manifest_bytes);
        if found != digest {
            return Err(Error::DigestMismatch {
                what: format!("the manifest of {}", reference.familiar()),
                expected: digest,
                found,
            });
        }
        let wrong = |reason: String| Error::document(format!("manifest {digest}"), reason);
        let ManifestDocument::Manifest(manifest) = ManifestDocument::parse(&manifest_bytes, None)? else {
            return Err(wrong("it is an index".to_owned()));
        };
        let config_digest = manifest.config.digest()?;
        let found = config_digest.of_same_kind(&config_bytes);
        if found != config_digest {
            return Err(Error::DigestMismatch {
                what: format!("the config of {}", reference.familiar()),
                expected: config_digest,
                found,
            });
        }
        let config = ImageConfig::parse(&config_bytes)?;
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(wrong(format!("{layers} layers, but {diff_ids} diffIDs")));
        }
        Ok(Self {
            reference: reference.clone(),
            digest,
            manifest,
            manifest_bytes,
            config_digest,
            config,
            config_bytes,
        })
    }

    /// What an image of a store is, under one of its names.
    ///
    /// # Errors
    /// When its documents are not in the store any more.
    pub fn of(reference: &Reference, image: &Image) -> Result<Self> {
        let manifest = image.store().read_blob(image.manifest_digest())?;
        let config = image.store().read_blob(image.id())?;
        Self::with_digest(reference, image.manifest_digest().clone(), manifest, config)
    }

    /// Returns the name that was resolved.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Returns the digest of the manifest.
    pub fn manifest_digest(&self) -> &Digest {
        &self.digest
    }

    /// Returns the manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the manifest as it was received.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// Returns the image id: the digest of the config.
    pub fn id(&self) -> &Digest {
        &self.config_digest
    }

    /// Returns the config.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// Returns the config as it was received.
    pub fn config_bytes(&self) -> &[u8] {
        &self.config_bytes
    }

    /// Returns the layers' diffIDs, the base first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.config.rootfs.diff_ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Knows only how to fetch; its one image has this author.
    #[derive(Default)]
    struct Whole(AtomicU64);

    impl ImageSource for Whole {
        fn fetch(
            &self,
            reference: &Reference,
            _: &Platform,
            store: &ImageStore,
            _: &Progress,
        ) -> Result<Image, BoxError> {
            let config = ImageConfig {
                author: Some(self.0.load(Ordering::SeqCst).to_string()),
                ..ImageConfig::default()
            };
            Ok(store.write_image(&store.lease()?, &config, std::slice::from_ref(reference))?)
        }
    }

    #[test]
    fn a_source_of_whole_images_resolves_too_and_does_not_mix_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let (host, progress) = (Platform::host(), Progress::default());
        let reference = Reference::parse("a:1").unwrap();
        let source = Whole::default();
        let resolved = source.resolve(&reference, &host, &store, &progress).unwrap();
        assert_eq!(resolved.config().author.as_deref(), Some("0"));
        let image = source
            .fetch_resolved(&resolved, &host, &store, &progress)
            .unwrap();
        assert_eq!(
            (image.id(), image.manifest_digest()),
            (resolved.id(), resolved.manifest_digest())
        );
        source.0.store(1, Ordering::SeqCst);
        let error = source
            .fetch_resolved(&resolved, &host, &store, &progress)
            .unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(Error::Moved { reference, .. }) if reference == "a:1"),
            "{error}"
        );
    }

    #[test]
    fn documents_that_do_not_belong_together_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let reference = Reference::parse("a:1").unwrap();
        let (host, progress) = (Platform::host(), Progress::default());
        let image = Whole::default()
            .fetch(&reference, &host, &store, &progress)
            .unwrap();
        let resolved = ResolvedImage::of(&reference, &image).unwrap();
        let manifest = || resolved.manifest_bytes().to_vec();
        assert!(matches!(
            ResolvedImage::new(&reference, manifest(), b"{}".to_vec()),
            Err(Error::DigestMismatch { .. })
        ));
        let index = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
        assert!(matches!(
            ResolvedImage::new(&reference, index, resolved.config_bytes().to_vec()),
            Err(Error::MalformedDocument { .. })
        ));
    }
}
