//! What follows the layers of a push: the config, the manifest, and what the store remembers of both.

use super::source::Source;
use super::{Push, Pushed, Pushing, Sent, Target, upload};
use crate::error::{Error, Result};
use crate::session::{Session, blocking};
use crate::transport::{Request, Verb};
use bytes::Bytes;
use rdock_image::{Digest, Image, Origin, Reference, manifest::media_type};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Push {
    /// Sends config and manifest: as they are in the store unless a layer is another blob now.
    pub(super) async fn document(
        &self,
        target: &Target<'_>,
        image: &Image,
        sent: &BTreeMap<Digest, Sent>,
    ) -> Result<Pushed> {
        let (store, id, manifest_digest) = (
            self.store.clone(),
            image.id().clone(),
            image.manifest_digest().clone(),
        );
        let (stored_config, stored_manifest) =
            blocking(move || Ok((store.read_blob(&id)?, store.read_blob(&manifest_digest)?))).await?;
        let missing = || {
            self.session
                .malformed("manifest", "a layer without a diffID".into())
        };
        let mut manifest = image.manifest().clone();
        let mut diff_ids = Vec::new();
        for (descriptor, diff_id) in manifest.layers.iter_mut().zip(image.diff_ids()) {
            let layer = sent.get(diff_id).ok_or_else(missing)?;
            // The same blob keeps its entry, with whatever else is written there.
            if descriptor.digest != layer.descriptor.digest {
                *descriptor = layer.descriptor.clone();
            }
            diff_ids.push(layer.diff_id.clone());
        }
        let (mut config, mut id) = (stored_config, image.id().clone());
        if diff_ids != image.diff_ids() {
            let mut changed = image.config().clone();
            changed.rootfs.diff_ids = diff_ids;
            config = json(&changed, "the image config")?;
            id = Digest::sha256_of(&config);
            manifest.config.digest = id.to_string();
            manifest.config.size = config.len() as u64;
        }
        let unchanged = manifest == *image.manifest();
        let bytes: Bytes = match unchanged {
            true => stored_manifest,
            false => json(&manifest, "the manifest")?,
        }
        .into();
        if !upload::exists(&self.session, &id).await? {
            let source = Source::Bytes(config.into());
            let uncounted = Arc::default();
            upload::send(&self.session, &source, Some(&id), None, None, &uncounted, None).await?;
        }
        let digest = Digest::sha256_of(&bytes);
        let place = match target.tagged {
            true => target.reference.tag().unwrap_or("latest"),
            false => digest.as_str(),
        };
        let kind = manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST);
        let size = bytes.len() as u64;
        put(&self.session, target.reference, place, kind, bytes, &digest).await?;
        Ok(Pushed {
            reference: target.reference.clone(),
            digest,
            size,
            id,
        })
    }

    /// Notes where the layers are now, and that the image's names mean what the registry has.
    pub(super) async fn remember(
        &self,
        target: &Target<'_>,
        image: &Image,
        sent: &BTreeMap<Digest, Sent>,
        pushed: &Pushed,
        lease: rdock_image::Lease,
    ) -> Result<()> {
        let origins: Vec<_> = sent
            .iter()
            // Another tar is another layer, which the store does not have. What only this image's manifest claims of a
            // blob must not become what other images with the layer are pushed with.
            .filter(|(diff_id, layer)| {
                **diff_id == layer.diff_id && layer.verified && layer.descriptor.urls.is_empty()
            })
            .map(|(diff_id, layer)| {
                let origin = Origin {
                    digest: layer.descriptor.digest.clone(),
                    size: layer.descriptor.size,
                    media_type: layer.descriptor.media_type.clone(),
                    repository: Some(self.name.clone()),
                };
                (diff_id.clone(), origin)
            })
            .collect();
        let mut manifest = image.manifest().clone();
        for (descriptor, diff_id) in manifest.layers.iter_mut().zip(image.diff_ids()) {
            if let Some(layer) = sent.get(diff_id)
                && descriptor.digest != layer.descriptor.digest
            {
                *descriptor = layer.descriptor.clone();
            }
        }
        // An index that names the image goes on to name it as it is here.
        let named = target.tagged && matches!(target.image, Pushing::Named(_));
        let renamed = (named && pushed.digest != *image.manifest_digest() && pushed.id == *image.id())
            .then(|| json(&manifest, "the manifest"))
            .transpose()?;
        // It is the same image by all its names.
        let mut names = image.references().to_vec();
        let own = target.reference.canonical();
        if !names.contains(&own) {
            names.push(own);
        }
        let (store, digest) = (self.store.clone(), pushed.digest.clone());
        blocking(move || {
            for (diff_id, origin) in &origins {
                store.add_origin(diff_id, origin)?;
            }
            if let Some(bytes) = renamed {
                store.write_blob(&lease, &bytes, &digest)?;
                for name in names.iter().filter(|name| name.digest().is_none()) {
                    store.commit(&lease, name, &digest)?;
                }
            }
            drop(lease);
            Ok(())
        })
        .await
    }
}

/// Puts a manifest or an index into a repository, under a tag or its digest.
pub(super) async fn put(
    session: &Session,
    reference: &Reference,
    place: &str,
    media_type: &str,
    bytes: Bytes,
    digest: &Digest,
) -> Result<()> {
    let path = format!("{}/manifests/{place}", session.endpoint.repository);
    let what = format!("the manifest of {}", reference.familiar());
    let request = Request {
        content_type: Some(media_type.to_owned()),
        body: Some(bytes),
        ..Request::new(Verb::Put)
    };
    let answer = session.ask(&path, &request, &what, None).await?;
    session.heed(&answer);
    let announced = answer.header("docker-content-digest");
    match announced.filter(|text| text.starts_with("sha256:")) {
        Some(found) if found != digest.as_str() => Err(Error::WrongDigest {
            registry: session.endpoint.host.clone(),
            expected: digest.to_string(),
            found: found.to_owned(),
        }),
        _ => Ok(()),
    }
}

pub(super) fn json(document: &impl serde::Serialize, what: &str) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|error| {
        rdock_image::Error::MalformedDocument {
            what: what.to_owned(),
            reason: error.to_string(),
        }
        .into()
    })
}
