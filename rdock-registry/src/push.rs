//! A push: layers in parallel, each asked for, mounted, brought from where it came from, or compressed here; then the
//! config, then the manifest.

mod copy;
mod documents;
mod index;
mod progress;
mod source;
mod upload;

pub(crate) use copy::copy;
pub(crate) use index::push_index;
pub use progress::{PushEvent, PushProgress};
pub use source::Compression;

use crate::auth::{Access, Rights};
use crate::config::RegistryConfig;
use crate::error::{Error, Result};
use crate::session::{Remarks, Session, blocking};
use crate::transport::Transport;
use rdock_image::{
    Descriptor, Digest, Image, ImageStore, Origin, Reference, UploadNote, manifest::media_type,
};
use source::Source;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use upload::{Begun, Place};

/// Of blobs of this size it is noted where their upload is; of those that are compressed on the way, always.
const NOTED_FROM: u64 = 4 << 20;
/// Progress is told so often while a layer goes out.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What a push made of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// The name.
    pub reference: Reference,
    /// Of the manifest in the registry.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
    /// The image id in the registry: the digest of its config; of an index, its own digest.
    pub id: Digest,
}

/// What one push works with.
struct Push {
    config: RegistryConfig,
    transport: Transport,
    /// Of the repository that is pushed to.
    session: Session,
    store: ImageStore,
    /// Registry and repository, as origins have it.
    name: String,
    /// Repositories of the same registry, by what origins call them: what to mount from.
    neighbours: BTreeMap<String, String>,
    compression: Compression,
    progress: PushProgress,
    /// Sessions with the registries that layers came from.
    origins: Mutex<HashMap<String, Vec<Arc<Session>>>>,
}

/// What is pushed, and where to.
pub(crate) struct Target<'a> {
    pub(crate) reference: &'a Reference,
    pub(crate) image: Pushing,
    /// The manifest gets the reference's tag; else it is there by its digest alone.
    pub(crate) tagged: bool,
}

/// An image that is pushed.
#[derive(Clone)]
pub(crate) enum Pushing {
    /// The one of this name in the store, whose names mean what the registry has from then on.
    Named(String),
    /// This one, which the store need not list. Names stay as they are.
    Held(Image),
}

fn by_digest(reference: &Reference) -> Error {
    rdock_image::Error::InvalidReference {
        text: reference.to_string(),
        reason: "an image cannot be pushed by digest",
    }
    .into()
}

/// A layer in the registry.
#[derive(Debug, Clone)]
struct Sent {
    descriptor: Descriptor,
    /// The layer as it is there.
    diff_id: Digest,
    /// Somebody here has unpacked the blob, or made it: it is that layer, whatever a manifest claims.
    verified: bool,
}

pub(crate) async fn push(
    config: &RegistryConfig,
    transport: &Transport,
    target: Target<'_>,
    store: &ImageStore,
    progress: &PushProgress,
) -> Result<Pushed> {
    let Target { reference, image, .. } = &target;
    if reference.digest().is_some() {
        return Err(by_digest(reference));
    }
    let (there, wanted, named) = (store.clone(), image.clone(), reference.familiar());
    // The lease holds on to the image until the end, whoever prunes.
    let (lease, image, origins) = blocking(move || {
        let missing = || rdock_image::Error::NotFound {
            kind: "image",
            name: named.clone(),
        };
        let lease = there.lease()?;
        let image = match wanted {
            Pushing::Named(name) => there.get(&name)?.ok_or_else(missing)?,
            Pushing::Held(image) => image,
        };
        lease.pin(image.manifest_digest())?;
        let mut origins = BTreeMap::new();
        for diff_id in image.diff_ids() {
            lease.pin(diff_id)?;
            origins.insert(diff_id.clone(), there.origins(diff_id)?);
        }
        Ok((lease, image, origins))
    })
    .await?;
    progress.emit(PushEvent::Started {
        reference: (*reference).clone(),
        layers: image.diff_ids().to_vec(),
    });
    let endpoint = config.pushed(reference)?;
    let name = format!("{}/{}", reference.domain(), reference.path());
    let known: BTreeSet<_> = origins
        .values()
        .flatten()
        .filter_map(|origin| origin.repository.clone())
        .collect();
    let mut neighbours = BTreeMap::new();
    for repository in known {
        if let Ok(place) = config.host(&repository)
            && place.host == endpoint.host
            && place.repository != endpoint.repository
        {
            neighbours.insert(repository, place.repository);
        }
    }
    let access = Access {
        repository: Some(endpoint.repository.clone()),
        rights: Rights::Push,
        sources: neighbours.values().cloned().collect(),
    };
    let session = Session::open(
        config,
        transport,
        endpoint,
        &name,
        access,
        progress::remarks(progress),
    )
    .await?;
    let docker = image.manifest().media_type.as_deref() == Some(media_type::DOCKER_MANIFEST);
    let push = Arc::new(Push {
        config: config.clone(),
        transport: transport.clone(),
        session,
        store: store.clone(),
        name,
        neighbours,
        // Docker's manifests know gzip alone.
        compression: if docker {
            Compression::Gzip
        } else {
            config.compression
        },
        progress: progress.clone(),
        origins: Mutex::default(),
    });
    let sent = push.layers(&image, origins).await?;
    let pushed = push.document(&target, &image, &sent).await?;
    push.remember(&target, &image, &sent, &pushed, lease).await?;
    if target.tagged {
        progress.emit(PushEvent::Done {
            reference: (*reference).clone(),
            digest: pushed.digest.clone(),
            size: pushed.size,
        });
    }
    Ok(pushed)
}

impl Push {
    /// Sends the layers, at most so many at a time as the configuration says. The first failure ends the others.
    async fn layers(
        self: &Arc<Self>,
        image: &Image,
        mut origins: BTreeMap<Digest, Vec<Origin>>,
    ) -> Result<BTreeMap<Digest, Sent>> {
        let descriptors = &image.manifest().layers;
        let docker = image.manifest().media_type.as_deref() == Some(media_type::DOCKER_MANIFEST);
        // A layer that is there several times goes out once.
        let mut waiting = image
            .diff_ids()
            .iter()
            .zip(descriptors)
            .filter_map(|(diff_id, descriptor)| {
                let origins = origins.remove(diff_id)?;
                Some((diff_id.clone(), descriptor.clone(), origins))
            });
        let mut running = JoinSet::new();
        let mut sent = BTreeMap::new();
        loop {
            while running.len() < self.config.parallel_layers.max(1) {
                let Some((diff_id, descriptor, origins)) = waiting.next() else {
                    break;
                };
                let push = self.clone();
                running.spawn(async move {
                    let layer = push.layer(&diff_id, descriptor, &origins, docker).await?;
                    Ok::<_, Error>((diff_id, layer))
                });
            }
            match running.join_next().await {
                None => return Ok(sent),
                Some(Ok(layer)) => {
                    let (diff_id, layer) = layer?;
                    sent.insert(diff_id, layer);
                }
                Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Some(Err(error)) => return Err(Error::Client { source: error.into() }),
            }
        }
    }

    async fn layer(
        &self,
        diff_id: &Digest,
        descriptor: Descriptor,
        origins: &[Origin],
        docker: bool,
    ) -> Result<Sent> {
        let restricted = ["foreign", "nondistributable"]
            .iter()
            .any(|word| descriptor.media_type.contains(word));
        if restricted && !descriptor.urls.is_empty() {
            self.progress.emit(PushEvent::LayerForeign {
                diff_id: diff_id.clone(),
            });
            return Ok(Sent {
                descriptor,
                diff_id: diff_id.clone(),
                verified: false,
            });
        }
        let sent = |blob: &Descriptor| Sent {
            descriptor: blob.clone(),
            diff_id: diff_id.clone(),
            verified: origins.iter().any(|origin| origin.digest == blob.digest),
        };
        // The blob of the manifest, then others of the same layer that are known to be somewhere.
        let mut blobs = Vec::new();
        let made_here = descriptor.digest == diff_id.as_str()
            && !origins
                .iter()
                .any(|origin| origin.digest == descriptor.digest && origin.repository.is_some());
        if !made_here {
            blobs.push(descriptor.clone());
        }
        for origin in origins.iter().filter(|origin| origin.repository.is_some()) {
            if let Ok(digest) = Digest::parse(&origin.digest)
                && !blobs.iter().any(|known| known.digest == origin.digest)
                && suits(&origin.media_type, docker)
            {
                blobs.push(Descriptor::new(&origin.media_type, &digest, origin.size));
            }
        }
        let mut begun = None;
        for blob in &blobs {
            let digest = blob.digest()?;
            if upload::exists(&self.session, &digest).await? {
                self.progress.emit(PushEvent::LayerExists {
                    diff_id: diff_id.clone(),
                    digest,
                });
                return Ok(sent(blob));
            }
            if let Some(from) = self.mounted(blob, &digest, origins, &mut begun).await? {
                self.progress.emit(PushEvent::LayerMounted {
                    diff_id: diff_id.clone(),
                    digest,
                    from,
                });
                return Ok(sent(blob));
            }
        }
        for blob in &blobs {
            if self.original(diff_id, blob, origins, &mut begun).await? {
                return Ok(sent(blob));
            }
        }
        self.compressed(diff_id, &descriptor, docker, begun).await
    }

    /// Has the registry take the blob from a repository of its own; says which. An upload that was begun instead is
    /// kept.
    async fn mounted(
        &self,
        blob: &Descriptor,
        digest: &Digest,
        origins: &[Origin],
        begun: &mut Option<Place>,
    ) -> Result<Option<String>> {
        for origin in origins.iter().filter(|origin| origin.digest == blob.digest) {
            let Some(from) = origin
                .repository
                .as_ref()
                .and_then(|name| self.neighbours.get(name))
            else {
                continue;
            };
            match upload::begin(&self.session, Some((digest, from))).await? {
                Begun::Mounted => return Ok(Some(from.clone())),
                Begun::Upload(place) => *begun = Some(place),
            }
        }
        Ok(None)
    }

    /// Streams the blob from where it came from; false when nobody has it any more.
    async fn original(
        &self,
        diff_id: &Digest,
        blob: &Descriptor,
        origins: &[Origin],
        begun: &mut Option<Place>,
    ) -> Result<bool> {
        let digest = blob.digest()?;
        for origin in origins.iter().filter(|origin| origin.digest == blob.digest) {
            let Some(name) = origin.repository.as_ref().filter(|name| **name != self.name) else {
                continue;
            };
            for session in self.sessions(name).await? {
                if !matches!(upload::exists(&session, &digest).await, Ok(true)) {
                    continue;
                }
                let source = Source::Origin {
                    session,
                    digest: digest.clone(),
                    size: blob.size,
                };
                match self.send(diff_id, &source, Some(&digest), begun.take()).await {
                    Ok(_) => return Ok(true),
                    // What an origin has may be wrong; what our registry says of it counts.
                    Err(error) if error.is_about(&source.host().unwrap_or_default()) => {
                        let text = format!("layer {} of {name}: {error}", digest.short());
                        self.progress.emit(PushEvent::Warning { text });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(false)
    }

    /// Sessions for pulling from an origin, one for each place that may have its blobs.
    async fn sessions(&self, name: &str) -> Result<Vec<Arc<Session>>> {
        let mut known = self.origins.lock().await;
        if let Some(sessions) = known.get(name) {
            return Ok(sessions.clone());
        }
        let mut sessions = Vec::new();
        // An origin that no configuration leads to any more has nothing for us.
        let places = Reference::parse(name)
            .ok()
            .and_then(|reference| self.config.endpoints(&reference).ok());
        for endpoint in places.into_iter().flatten() {
            let access = Access::to(&endpoint.repository, Rights::Pull);
            let mut session = Session::open(
                &self.config,
                &self.transport,
                endpoint,
                name,
                access,
                Remarks::new(|_| {}),
            )
            .await?;
            session.retries = session.retries.min(1);
            sessions.push(Arc::new(session));
        }
        known.insert(name.to_owned(), sessions.clone());
        Ok(sessions)
    }

    /// The last resort: the layer's files through a fixed encoder.
    async fn compressed(
        &self,
        diff_id: &Digest,
        descriptor: &Descriptor,
        docker: bool,
        begun: Option<Place>,
    ) -> Result<Sent> {
        let source = Source::Layer {
            store: self.store.clone(),
            diff_id: diff_id.clone(),
            compression: self.compression,
        };
        let uploaded = self.send(diff_id, &source, None, begun).await?;
        let sent = uploaded.tar.unwrap_or_else(|| diff_id.clone());
        let made = Descriptor {
            annotations: descriptor.annotations.clone(),
            ..Descriptor::new(
                self.compression.media_type(docker),
                &uploaded.digest,
                uploaded.size,
            )
        };
        if made.digest != descriptor.digest {
            self.progress.emit(PushEvent::LayerCompressed {
                diff_id: diff_id.clone(),
                digest: uploaded.digest,
                sent: sent.clone(),
            });
        }
        Ok(Sent {
            descriptor: made,
            diff_id: sent,
            verified: true,
        })
    }

    /// Sends one blob of a layer and tells how far it is.
    async fn send(
        &self,
        diff_id: &Digest,
        source: &Source,
        expected: Option<&Digest>,
        begun: Option<Place>,
    ) -> Result<upload::Uploaded> {
        let note = self.note(source).await;
        told(&self.progress, diff_id, source.size(), |sent| async move {
            let chunk_size = self.config.chunk_size;
            upload::send(&self.session, source, expected, begun, chunk_size, &sent, note).await
        })
        .await
    }

    /// The note on where an earlier push of a large blob to this repository ended. None while another one is at it, or
    /// where the store cannot be written: a push is as good without.
    async fn note(&self, source: &Source) -> Option<UploadNote> {
        if source.size().is_some_and(|size| size < NOTED_FROM) {
            return None;
        }
        let endpoint = &self.session.endpoint;
        let place = format!("{}/{}", endpoint.host, endpoint.repository);
        let (store, blob) = (self.store.clone(), source.identity()?);
        blocking(move || Ok(store.upload_note(&place, &blob)?))
            .await
            .ok()
            .flatten()
    }
}

/// Tells how far an upload is, by the bytes that it counts.
async fn told<Sending>(
    progress: &PushProgress,
    diff_id: &Digest,
    total: Option<u64>,
    send: impl FnOnce(Arc<AtomicU64>) -> Sending,
) -> Result<upload::Uploaded>
where
    Sending: Future<Output = Result<upload::Uploaded>>,
{
    progress.emit(PushEvent::LayerStarted {
        diff_id: diff_id.clone(),
        total,
    });
    let sent = Arc::new(AtomicU64::new(0));
    let sending = send(sent.clone());
    tokio::pin!(sending);
    let mut told = 0;
    let uploaded = loop {
        let done = tokio::time::timeout(TELL_EVERY, &mut sending).await;
        let now = sent.load(Ordering::Acquire);
        if now > told {
            told = now;
            progress.emit(PushEvent::LayerProgress {
                diff_id: diff_id.clone(),
                done: now,
                total,
            });
        }
        if let Ok(uploaded) = done {
            break uploaded?;
        }
    };
    progress.emit(PushEvent::LayerDone {
        diff_id: diff_id.clone(),
        digest: uploaded.digest.clone(),
    });
    Ok(uploaded)
}

/// Whether a manifest of this kind can name a blob of this type.
fn suits(kind: &str, docker: bool) -> bool {
    kind.contains("tar") && (kind.starts_with("application/vnd.docker.") == docker)
}
