//! A pull: name to manifest, manifest to config and layers, layers in parallel into the store.

mod blob;

pub(crate) use blob::Blob;

use crate::config::{Capabilities, RegistryConfig};
use crate::error::{Error, Result};
use crate::manifests;
use crate::session::{Attempts, LARGEST_DOCUMENT, Remark, Remarks, Session, blocking};
use crate::transport::{Request, Transport};
use rdock_image::{
    Descriptor, Digest, Event, Image, ImageStore, Lease, Manifest, ManifestDocument, Platform, Progress,
    Reference, ResolvedImage,
};
use std::sync::Arc;

/// One place that an image is pulled from.
struct Pull {
    session: Session,
    progress: Progress,
}

pub(crate) async fn pull(
    config: &RegistryConfig,
    transport: &Transport,
    reference: &Reference,
    platform: &Platform,
    store: &ImageStore,
    progress: &Progress,
) -> Result<Image> {
    progress.emit(Event::Resolving {
        reference: reference.clone(),
    });
    let parallel = config.parallel_layers;
    let remarks = remarks(progress);
    let (wanted, by_digest) = meant(config, transport, reference, &remarks).await?;
    let can = |can: &Capabilities| can.pull && (can.resolve || by_digest);
    manifests::at_places(config, transport, reference, can, &remarks, |session| {
        let pull = Pull::new(session, progress);
        let wanted = &wanted;
        async move {
            let lease = Arc::new(store.lease()?);
            let resolved = pull.resolve(reference, wanted, platform).await?;
            pull.complete(&resolved, store, lease, parallel).await
        }
    })
    .await
}

/// What an image is, without its layers.
pub(crate) async fn resolve(
    config: &RegistryConfig,
    transport: &Transport,
    reference: &Reference,
    platform: &Platform,
    progress: &Progress,
) -> Result<ResolvedImage> {
    progress.emit(Event::Resolving {
        reference: reference.clone(),
    });
    let remarks = remarks(progress);
    let (wanted, by_digest) = meant(config, transport, reference, &remarks).await?;
    let can = |can: &Capabilities| can.pull && (can.resolve || by_digest);
    manifests::at_places(config, transport, reference, can, &remarks, |session| {
        let pull = Pull::new(session, progress);
        let wanted = &wanted;
        async move { pull.resolve(reference, wanted, platform).await }
    })
    .await
}

/// The layers of an image whose documents are known.
pub(crate) async fn pull_resolved(
    config: &RegistryConfig,
    transport: &Transport,
    resolved: &ResolvedImage,
    store: &ImageStore,
    progress: &Progress,
) -> Result<Image> {
    let (parallel, remarks) = (config.parallel_layers, remarks(progress));
    // Blobs go by digest: places that know no tags will do.
    let pinned = resolved.reference().with_digest(resolved.manifest_digest());
    let can = |can: &Capabilities| can.pull;
    manifests::at_places(config, transport, &pinned, can, &remarks, |session| {
        let pull = Pull::new(session, progress);
        async move {
            let lease = Arc::new(store.lease()?);
            pull.complete(resolved, store, lease, parallel).await
        }
    })
    .await
}

/// Some layers of an image whose documents are known, and nothing else.
pub(crate) async fn pull_layers(
    config: &RegistryConfig,
    transport: &Transport,
    resolved: &ResolvedImage,
    wanted: &[Digest],
    store: &ImageStore,
    progress: &Progress,
) -> Result<()> {
    let (parallel, remarks) = (config.parallel_layers.max(1), remarks(progress));
    let layers = resolved.manifest().layers.iter().cloned();
    let layers = layers.zip(resolved.diff_ids().iter().cloned());
    let work: Vec<_> = layers.filter(|(_, diff_id)| wanted.contains(diff_id)).collect();
    let reference = resolved.reference();
    let pinned = reference.with_digest(resolved.manifest_digest());
    let can = |can: &Capabilities| can.pull;
    manifests::at_places(config, transport, &pinned, can, &remarks, |session| {
        let pull = Pull::new(session, progress);
        let work = work.clone();
        async move {
            let lease = Arc::new(store.lease()?);
            pull.layers(work, store, &lease, parallel, reference).await
        }
    })
    .await
}

/// The tag or digest to ask for, and whether places that know no tags will do.
async fn meant(
    config: &RegistryConfig,
    transport: &Transport,
    reference: &Reference,
    remarks: &Remarks,
) -> Result<(String, bool)> {
    // A mirror that does not say what a tag means may still have what it means.
    let only_content = |can: &Capabilities| can.pull && !can.resolve;
    let places = config.endpoints(reference)?;
    let mut options = places.iter().filter_map(|place| place.options.as_ref());
    let wanted = if reference.digest().is_none() && options.any(|one| only_content(&one.capabilities)) {
        let can = |can: &Capabilities| can.resolve;
        let digest = manifests::at_places(
            config,
            transport,
            reference,
            can,
            remarks,
            |session: Session| async move { manifests::digest(&session, reference).await },
        );
        Some(digest.await?.to_string())
    } else {
        None
    };
    let by_digest = reference.digest().is_some() || wanted.is_some();
    Ok((wanted.unwrap_or_else(|| manifests::wanted(reference)), by_digest))
}

fn remarks(progress: &Progress) -> Remarks {
    let progress = progress.clone();
    Remarks::new(move |remark| {
        progress.emit(match remark {
            Remark::Warning(text) => Event::Warning { text },
            Remark::Retrying {
                what,
                attempt,
                delay,
                cause,
            } => Event::Retrying {
                what,
                attempt,
                delay,
                cause,
            },
        });
    })
}

impl Pull {
    fn new(session: Session, progress: &Progress) -> Arc<Self> {
        Arc::new(Self {
            session,
            progress: progress.clone(),
        })
    }

    /// Manifest and config.
    async fn resolve(
        &self,
        reference: &Reference,
        wanted: &str,
        platform: &Platform,
    ) -> Result<ResolvedImage> {
        let (digest, manifest, bytes) = self.manifest(reference, platform, wanted).await?;
        let config = self
            .small_blob(&manifest.config, &manifest.config.digest()?)
            .await?;
        ResolvedImage::with_digest(reference, digest, bytes, config).map_err(|error| match error {
            rdock_image::Error::MalformedDocument { reason, .. } => {
                self.session.malformed("manifest", reason)
            }
            error => error.into(),
        })
    }

    /// The layers, and then the image.
    async fn complete(
        self: &Arc<Self>,
        resolved: &ResolvedImage,
        store: &ImageStore,
        lease: Arc<Lease>,
        parallel: usize,
    ) -> Result<Image> {
        let reference = resolved.reference();
        self.progress.emit(Event::Resolved {
            reference: reference.clone(),
            digest: resolved.manifest_digest().clone(),
            layers: resolved.manifest().layers.clone(),
        });
        let layers = resolved.manifest().layers.iter().cloned();
        let work: Vec<_> = layers.zip(resolved.diff_ids().iter().cloned()).collect();
        self.layers(work, store, &lease, parallel.max(1), reference)
            .await?;
        let (store, resolved, progress) = (store.clone(), resolved.clone(), self.progress.clone());
        blocking(move || {
            store.write_blob(&lease, resolved.config_bytes(), resolved.id())?;
            store.write_blob(&lease, resolved.manifest_bytes(), resolved.manifest_digest())?;
            let image = store.commit(&lease, resolved.reference(), resolved.manifest_digest())?;
            progress.emit(Event::Done {
                reference: resolved.reference().clone(),
                digest: resolved.manifest_digest().clone(),
            });
            Ok(image)
        })
        .await
    }

    /// The manifest of the platform, through an index if there is one.
    async fn manifest(
        &self,
        reference: &Reference,
        platform: &Platform,
        wanted: &str,
    ) -> Result<(Digest, Manifest, Vec<u8>)> {
        let (digest, document, bytes) = manifests::document(&self.session, reference, wanted).await?;
        let index = match document {
            ManifestDocument::Manifest(manifest) => return Ok((digest, manifest, bytes)),
            ManifestDocument::Index(index) => index,
        };
        let Some(chosen) = index.select(platform) else {
            let available: Vec<_> = index
                .manifests
                .iter()
                .filter_map(|one| one.platform.as_ref())
                .map(ToString::to_string)
                .collect();
            return Err(Error::NoSuchPlatform {
                reference: reference.familiar(),
                platform: platform.to_string(),
                available: available.join(", "),
            });
        };
        match manifests::document(&self.session, reference, chosen.digest()?.as_str()).await? {
            (digest, ManifestDocument::Manifest(manifest), bytes) => Ok((digest, manifest, bytes)),
            _ => Err(self.session.malformed("index", "an index in an index".into())),
        }
    }

    /// A config.
    async fn small_blob(&self, descriptor: &Descriptor, digest: &Digest) -> Result<Vec<u8>> {
        let limit = LARGEST_DOCUMENT;
        if descriptor.size > limit {
            return Err(Error::TooLarge {
                registry: self.session.endpoint.host.clone(),
                what: "the image config",
                limit,
            });
        }
        let path = format!("{}/blobs/{digest}", self.session.endpoint.repository);
        let what = format!("blob {}", digest.short());
        let mut attempts = Attempts::new(self.session.retries);
        let bytes = loop {
            match self.read_config(&path, &what, descriptor.size).await {
                Ok(bytes) => break bytes,
                Err(error) => self.session.pause(&what, &mut attempts, error).await?,
            }
        };
        let found = digest.of_same_kind(&bytes);
        if found != *digest {
            return Err(Error::WrongDigest {
                registry: self.session.endpoint.host.clone(),
                expected: digest.to_string(),
                found: found.to_string(),
            });
        }
        Ok(bytes)
    }

    async fn read_config(&self, path: &str, what: &str, size: u64) -> Result<Vec<u8>> {
        let answer = self.session.call(path, &Request::default(), what, None).await?;
        answer.body("the image config", size).await
    }
}
