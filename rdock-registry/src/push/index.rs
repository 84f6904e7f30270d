//! A push of an index: the images of all its platforms, then the index itself.

use super::{Pushing, Target, push};
use crate::auth::{Access, Rights};
use crate::config::RegistryConfig;
use crate::error::{Error, Result};
use crate::push::{PushEvent, PushProgress, Pushed, documents};
use crate::session::{Session, blocking};
use crate::transport::Transport;
use rdock_image::{Digest, Image, ImageStore, Index, Reference, manifest::media_type};

pub(crate) async fn push_index(
    config: &RegistryConfig,
    transport: &Transport,
    reference: &Reference,
    index: &Index,
    store: &ImageStore,
    progress: &PushProgress,
) -> Result<Pushed> {
    if reference.digest().is_some() {
        return Err(super::by_digest(reference));
    }
    // All or nothing: what is missing is said before anything goes out.
    let (there, wanted) = (store.clone(), index.clone());
    let (lease, images) = blocking(move || {
        let lease = there.lease()?;
        let mut images = Vec::new();
        for entry in &wanted.manifests {
            let digest = entry.digest()?;
            lease.pin(&digest)?;
            let image = match there.get(digest.as_str()) {
                Ok(image) => image,
                Err(rdock_image::Error::MissingBlob { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            images.push(image.ok_or_else(|| {
                Error::MissingPlatform {
                    platform: entry
                        .platform
                        .as_ref()
                        .map_or_else(|| "unknown".to_owned(), ToString::to_string),
                    digest: digest.to_string(),
                }
            })?);
        }
        Ok((lease, images))
    })
    .await?;
    let mut index = index.clone();
    for (entry, image) in index.manifests.iter_mut().zip(&images) {
        let pushed = one(config, transport, reference, image, store, progress).await?;
        // Its layers may have been compressed on the way.
        entry.digest = pushed.digest.to_string();
        entry.size = pushed.size;
    }
    let bytes = documents::json(&index, "the index")?;
    let digest = Digest::sha256_of(&bytes);
    let kind = index.media_type.clone();
    let kind = kind.as_deref().unwrap_or(media_type::OCI_INDEX);
    let endpoint = config.pushed(reference)?;
    let access = Access::to(&endpoint.repository, Rights::Push);
    let name = format!("{}/{}", reference.domain(), reference.path());
    let session = Session::open(
        config,
        transport,
        endpoint,
        &name,
        access,
        super::progress::remarks(progress),
    )
    .await?;
    let (size, tag) = (bytes.len() as u64, reference.tag().unwrap_or("latest"));
    documents::put(&session, reference, tag, kind, bytes.into(), &digest).await?;
    drop(lease);
    progress.emit(PushEvent::Done {
        reference: reference.clone(),
        digest: digest.clone(),
        size,
    });
    Ok(Pushed {
        reference: reference.clone(),
        id: digest.clone(),
        digest,
        size,
    })
}

async fn one(
    config: &RegistryConfig,
    transport: &Transport,
    reference: &Reference,
    image: &Image,
    store: &ImageStore,
    progress: &PushProgress,
) -> Result<Pushed> {
    let target = Target {
        reference,
        image: Pushing::Held(image.clone()),
        tagged: false,
    };
    push(config, transport, target, store, progress).await
}
