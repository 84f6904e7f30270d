//! A pull: name to manifest, manifest to config and layers, layers in parallel into the store.

mod blob;

pub(crate) use blob::Blob;

use crate::config::{Capabilities, RegistryConfig};
use crate::error::{Error, Result};
use crate::manifests;
use crate::session::{Attempts, LARGEST_DOCUMENT, Remark, Remarks, Session, blocking};
use crate::transport::{Request, Transport};
use rdock_image::{
    Descriptor, Digest, Event, Image, ImageConfig, ImageStore, Manifest, ManifestDocument, Platform,
    Progress, Reference,
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
    let parallel = config.parallel_layers.max(1);
    let remarks = remarks(progress);
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
            &remarks,
            |session: Session| async move { manifests::digest(&session, reference).await },
        );
        Some(digest.await?.to_string())
    } else {
        None
    };
    let by_digest = reference.digest().is_some() || wanted.is_some();
    let can = |can: &Capabilities| can.pull && (can.resolve || by_digest);
    let wanted = &wanted.unwrap_or_else(|| manifests::wanted(reference));
    manifests::at_places(config, transport, reference, can, &remarks, |session| {
        let pull = Arc::new(Pull {
            session,
            progress: progress.clone(),
        });
        async move { pull.pull(reference, wanted, platform, store, parallel).await }
    })
    .await
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
    async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        wanted: &str,
        platform: &Platform,
        store: &ImageStore,
        parallel: usize,
    ) -> Result<Image> {
        let lease = Arc::new(store.lease()?);
        let (digest, manifest, bytes) = self.manifest(reference, platform, wanted).await?;
        self.progress.emit(Event::Resolved {
            reference: reference.clone(),
            digest: digest.clone(),
            layers: manifest.layers.clone(),
        });
        let config_digest = manifest.config.digest()?;
        let config_bytes = self.small_blob(&manifest.config, &config_digest).await?;
        let config = ImageConfig::parse(&config_bytes)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(self.session.malformed(
                "manifest",
                format!(
                    "{} layers, but {} diffIDs",
                    manifest.layers.len(),
                    config.rootfs.diff_ids.len()
                ),
            ));
        }
        let work: Vec<_> = manifest
            .layers
            .iter()
            .cloned()
            .zip(config.rootfs.diff_ids.iter().cloned())
            .collect();
        self.layers(work, store, &lease, parallel, reference).await?;
        let (store, reference, progress) = (store.clone(), reference.clone(), self.progress.clone());
        blocking(move || {
            store.write_blob(&lease, &config_bytes, &config_digest)?;
            store.write_blob(&lease, &bytes, &digest)?;
            let image = store.commit(&lease, &reference, &digest)?;
            progress.emit(Event::Done { reference, digest });
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
        let found = Digest::sha256_of(&bytes);
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
