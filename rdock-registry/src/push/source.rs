//! Where the bytes of a blob come from: memory, the registry that the layer came from, or the layer's files through
//! a fixed encoder, which gives the same bytes each time.

use crate::error::{Error, Result};
use crate::pull::Blob;
use crate::session::Session;
use bytes::Bytes;
use rdock_image::{Digest, ImageStore, manifest::media_type};
use std::io::{self, Write};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Parts between the encoder and the network.
const BUFFERED: usize = 16;
/// What one part of an encoded layer holds.
const PART: usize = 64 << 10;
/// Levels are part of the format: another one gives other digests.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// How layers that were made here are compressed on their way to a registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// What every engine reads.
    #[default]
    Gzip,
    /// Smaller and faster; Docker reads it since version 20.10.
    Zstd,
}

impl Compression {
    /// The media type of such a layer in an OCI or a Docker manifest.
    pub(super) fn media_type(self, docker: bool) -> String {
        match (self, docker) {
            (Self::Gzip, true) => media_type::DOCKER_LAYER.to_owned(),
            (Self::Gzip, false) => format!("{}+gzip", media_type::OCI_LAYER),
            // Docker's types have none for zstd; its engines take this one.
            (Self::Zstd, _) => format!("{}+zstd", media_type::OCI_LAYER),
        }
    }
}

/// A blob that can be read as often as needed.
#[derive(Clone)]
pub(super) enum Source {
    Bytes(Bytes),
    /// A blob of a registry; the digest is checked while it passes.
    Origin {
        session: Arc<Session>,
        digest: Digest,
        size: u64,
    },
    /// A layer of the store, compressed on the way.
    Layer {
        store: ImageStore,
        diff_id: Digest,
        compression: Compression,
    },
}

/// What becomes of the bytes.
pub(super) type Part = Result<Bytes, String>;

/// A blob on its way, from its first byte or a later one.
pub(super) struct Stream {
    pub(super) parts: mpsc::Receiver<Part>,
    pub(super) work: Work,
}

/// The task that reads. It ends when nobody takes the parts any more.
pub(super) type Work = tokio::task::JoinHandle<Result<Option<Digest>>>;

impl Source {
    /// Bytes in all, where they are known before.
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Origin { size, .. } => Some(*size),
            Self::Layer { .. } => None,
        }
    }

    /// What the bytes are, for somebody who sends the same ones again; none of what is in memory.
    pub(super) fn identity(&self) -> Option<String> {
        match self {
            Self::Bytes(_) => None,
            Self::Origin { digest, .. } => Some(digest.to_string()),
            // The encoder gives the same bytes for the same layer.
            Self::Layer {
                diff_id, compression, ..
            } => Some(format!("{diff_id} {compression:?}")),
        }
    }

    /// The registry that the bytes come from.
    pub(super) fn host(&self) -> Option<String> {
        match self {
            Self::Origin { session, .. } => Some(session.endpoint.host.clone()),
            _ => None,
        }
    }

    /// Begins to read at `from`, or before it: an encoded layer always begins at its first byte.
    pub(super) fn open(&self, from: u64) -> (Stream, u64) {
        let (sender, parts) = mpsc::channel(BUFFERED);
        match self.clone() {
            Self::Bytes(bytes) => {
                let work = tokio::spawn(async move {
                    // Nobody listens any more when the upload has failed.
                    let _ = sender.send(Ok(bytes.slice(from as usize..))).await;
                    Ok(None)
                });
                (Stream { parts, work }, from)
            }
            Self::Origin {
                session,
                digest,
                size,
            } => {
                let work = tokio::spawn(async move {
                    let path = format!("{}/blobs/{digest}", session.endpoint.repository);
                    let what = format!("layer {}", digest.short());
                    let mut blob = Blob::new(&session, path, what, size, from);
                    loop {
                        match blob.next().await {
                            Ok(None) => return Ok(None),
                            Ok(Some(part)) => {
                                if sender.send(Ok(part)).await.is_err() {
                                    return Ok(None);
                                }
                            }
                            Err(error) => {
                                let _ = sender.send(Err(error.to_string())).await;
                                return Err(error);
                            }
                        }
                    }
                });
                (Stream { parts, work }, from)
            }
            Self::Layer {
                store,
                diff_id,
                compression,
            } => {
                let work = tokio::task::spawn_blocking(move || {
                    let encoded = encode(&store, &diff_id, compression, &sender);
                    match encoded {
                        Ok(sent) => Ok(Some(sent)),
                        Err(error) => {
                            let _ = sender.blocking_send(Err(error.to_string()));
                            Err(error)
                        }
                    }
                });
                (Stream { parts, work }, 0)
            }
        }
    }
}

impl Stream {
    /// How the reading ended. For an encoded layer: the digest of the tar that was read.
    pub(super) async fn end(work: Work) -> Result<Option<Digest>> {
        match work.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => Err(Error::Client { source: error.into() }),
        }
    }
}

fn encode(
    store: &ImageStore,
    diff_id: &Digest,
    compression: Compression,
    parts: &mpsc::Sender<Part>,
) -> Result<Digest> {
    let out = Parts {
        parts,
        buffer: Vec::with_capacity(PART),
    };
    let failed = |source: io::Error| {
        Error::Image(rdock_image::Error::Stream {
            what: format!("layer {}", diff_id.short()),
            source,
        })
    };
    let finish = |mut out: Parts<'_>| out.flush().map_err(failed);
    match compression {
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
            let (sent, _) = store.write_layer_tar(diff_id, &mut encoder)?;
            finish(encoder.finish().map_err(failed)?)?;
            Ok(sent)
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL).map_err(failed)?;
            let (sent, _) = store.write_layer_tar(diff_id, &mut encoder)?;
            finish(encoder.finish().map_err(failed)?)?;
            Ok(sent)
        }
    }
}

/// Collects what an encoder writes.
struct Parts<'a> {
    parts: &'a mpsc::Sender<Part>,
    buffer: Vec<u8>,
}

impl Write for Parts<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PART {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let part = std::mem::replace(&mut self.buffer, Vec::with_capacity(PART));
        self.parts
            .blocking_send(Ok(part.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
