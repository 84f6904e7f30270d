//! A copy from one registry to another, byte for byte, without a store and without the disk.

use super::source::Source;
use super::upload::{self, Begun};
use super::{PushEvent, PushProgress, Pushed, documents, progress};
use crate::auth::{Access, Rights};
use crate::config::{Capabilities, RegistryConfig};
use crate::error::{Error, Result};
use crate::manifests;
use crate::session::Session;
use crate::transport::Transport;
use bytes::Bytes;
use rdock_image::{Descriptor, Digest, Manifest, ManifestDocument, Reference, manifest::media_type};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Indexes within indexes.
const DEEPEST: usize = 4;
/// Bytes of all documents that an index leads to; they are kept until what they name is there.
const MOST_DOCUMENTS: u64 = 64 << 20;

/// Both ends of a copy.
struct Copy {
    from: Arc<Session>,
    to: Session,
    /// The names, for errors.
    source: Reference,
    target: Reference,
    /// Both are repositories of one registry, which can take blobs from the first.
    mounts: bool,
    parallel: usize,
    chunk_size: Option<u64>,
    progress: PushProgress,
}

/// Manifests and indexes by their digests.
type Documents = BTreeMap<Digest, (ManifestDocument, Bytes)>;

/// Each document behind those that it names. Nothing names itself, since digests are of what they name.
fn in_order(digest: &Digest, documents: &Documents, order: &mut Vec<Digest>) {
    if let Some((ManifestDocument::Index(index), _)) = documents.get(digest) {
        for named in index.manifests.iter().filter_map(|entry| entry.digest().ok()) {
            if !order.contains(&named) {
                in_order(&named, documents, order);
            }
        }
    }
    if !order.contains(digest) {
        order.push(digest.clone());
    }
}

/// A manifest or an index that was read.
type Read = (Digest, ManifestDocument, Vec<u8>);

pub(crate) async fn copy(
    config: &RegistryConfig,
    transport: &Transport,
    source: &Reference,
    target: &Reference,
    progress: &PushProgress,
) -> Result<Pushed> {
    if target.digest().is_some() {
        return Err(super::by_digest(target));
    }
    let remarks = progress::remarks(progress);
    let by_digest = source.digest().is_some();
    let can = |can: &Capabilities| can.pull && (can.resolve || by_digest);
    let wanted = manifests::wanted(source);
    // The place that has the manifest is asked for the blobs, too.
    let (from, read) = manifests::at_places(config, transport, source, can, &remarks, |session: Session| {
        let wanted = &wanted;
        async move {
            let read = manifests::document(&session, source, wanted).await?;
            Ok((Arc::new(session), read))
        }
    })
    .await?;
    let endpoint = config.pushed(target)?;
    let mounts = from.endpoint.host == endpoint.host && from.endpoint.repository != endpoint.repository;
    let access = Access {
        sources: Vec::from_iter(mounts.then(|| from.endpoint.repository.clone())),
        ..Access::to(&endpoint.repository, Rights::Push)
    };
    let name = format!("{}/{}", target.domain(), target.path());
    let to = Session::open(config, transport, endpoint, &name, access, remarks).await?;
    let copy = Arc::new(Copy {
        from,
        to,
        source: source.clone(),
        target: target.clone(),
        mounts,
        parallel: config.parallel_layers.max(1),
        chunk_size: config.chunk_size,
        progress: progress.clone(),
    });
    copy.whole(read).await
}

impl Copy {
    /// The document and all that it names, the document last: a registry takes none that leads nowhere.
    async fn whole(self: &Arc<Self>, read: Read) -> Result<Pushed> {
        let (digest, document, bytes) = read;
        let id = match &document {
            ManifestDocument::Manifest(manifest) => manifest.config.digest()?,
            ManifestDocument::Index(_) => digest.clone(),
        };
        let size = bytes.len() as u64;
        let documents = self.documents(&digest, document, bytes).await?;
        let mut order = Vec::new();
        in_order(&digest, &documents, &mut order);
        for own in order {
            let Some((document, bytes)) = documents.get(&own) else {
                continue;
            };
            let (kind, usual) = match document {
                ManifestDocument::Manifest(manifest) => {
                    self.blobs(manifest).await?;
                    (&manifest.media_type, media_type::OCI_MANIFEST)
                }
                ManifestDocument::Index(index) => (&index.media_type, media_type::OCI_INDEX),
            };
            let place = match own == digest {
                true => self.target.tag().unwrap_or("latest"),
                false => own.as_str(),
            };
            let kind = kind.as_deref().unwrap_or(usual);
            documents::put(&self.to, &self.target, place, kind, bytes.clone(), &own).await?;
        }
        self.progress.emit(PushEvent::Done {
            reference: self.target.clone(),
            digest: digest.clone(),
            size,
        });
        Ok(Pushed {
            reference: self.target.clone(),
            digest,
            size,
            id,
        })
    }

    /// The document and those that an index leads to.
    async fn documents(
        &self,
        digest: &Digest,
        document: ManifestDocument,
        bytes: Vec<u8>,
    ) -> Result<Documents> {
        let mut kept = bytes.len() as u64;
        let mut found = Documents::new();
        let mut open = vec![(digest.clone(), document, bytes, 0)];
        while let Some((digest, document, bytes, depth)) = open.pop() {
            if let ManifestDocument::Index(index) = &document {
                if depth >= DEEPEST {
                    let reason = format!("more than {DEEPEST} indexes in one another");
                    return Err(self.from.malformed("index", reason));
                }
                for entry in &index.manifests {
                    let wanted = entry.digest()?;
                    let is_open = open.iter().any(|(other, ..)| *other == wanted);
                    if is_open || wanted == digest || found.contains_key(&wanted) {
                        continue;
                    }
                    let (_, document, bytes) =
                        manifests::document(&self.from, &self.source, wanted.as_str()).await?;
                    kept += bytes.len() as u64;
                    if kept > MOST_DOCUMENTS {
                        return Err(Error::TooLarge {
                            registry: self.from.endpoint.host.clone(),
                            what: "all that the index names",
                            limit: MOST_DOCUMENTS,
                        });
                    }
                    open.push((wanted, document, bytes, depth + 1));
                }
            }
            found.insert(digest, (document, bytes.into()));
        }
        Ok(found)
    }

    /// Config and layers, some at a time; each once. The first failure ends the others.
    async fn blobs(self: &Arc<Self>, manifest: &Manifest) -> Result<()> {
        let mut waiting = Vec::new();
        let mut seen = BTreeSet::new();
        for descriptor in manifest.layers.iter().chain([&manifest.config]) {
            let restricted = ["foreign", "nondistributable"]
                .iter()
                .any(|word| descriptor.media_type.contains(word));
            let digest = descriptor.digest()?;
            let is_kept = !restricted || descriptor.urls.is_empty();
            if is_kept && seen.insert(digest.clone()) {
                waiting.push((digest, descriptor.clone()));
            }
        }
        let layers = manifest.layers.iter().map(Descriptor::digest);
        self.progress.emit(PushEvent::Started {
            reference: self.target.clone(),
            layers: layers.collect::<Result<_, _>>()?,
        });
        let mut waiting = waiting.into_iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < self.parallel {
                let Some((digest, descriptor)) = waiting.next() else {
                    break;
                };
                let copy = self.clone();
                running.spawn(async move { copy.blob(&digest, &descriptor).await });
            }
            match running.join_next().await {
                None => return Ok(()),
                Some(Ok(copied)) => copied?,
                Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Some(Err(error)) => return Err(Error::Client { source: error.into() }),
            }
        }
    }

    async fn blob(&self, digest: &Digest, descriptor: &Descriptor) -> Result<()> {
        if upload::exists(&self.to, digest).await? {
            self.progress.emit(PushEvent::LayerExists {
                diff_id: digest.clone(),
                digest: digest.clone(),
            });
            return Ok(());
        }
        let mut begun = None;
        if self.mounts {
            let from = &self.from.endpoint.repository;
            match upload::begin(&self.to, Some((digest, from))).await? {
                Begun::Mounted => {
                    self.progress.emit(PushEvent::LayerMounted {
                        diff_id: digest.clone(),
                        digest: digest.clone(),
                        from: from.clone(),
                    });
                    return Ok(());
                }
                Begun::Upload(place) => begun = Some(place),
            }
        }
        let source = Source::Origin {
            session: self.from.clone(),
            digest: digest.clone(),
            size: descriptor.size,
        };
        let source = &source;
        super::told(&self.progress, digest, source.size(), |sent| async move {
            upload::send(
                &self.to,
                source,
                Some(digest),
                begun,
                self.chunk_size,
                &sent,
                None,
            )
            .await
        })
        .await
        .map(drop)
    }
}
