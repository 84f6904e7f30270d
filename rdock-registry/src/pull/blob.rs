//! Layers: fetched in parallel, resumed where the connection broke, verified and unpacked as they come.

use super::Pull;
use crate::error::{Error, Result};
use crate::protocol::ContentRange;
use crate::session::{Attempts, Session, blocking};
use crate::transport::{Answer, Request};
use bytes::{Buf, Bytes};
use rdock_image::{Descriptor, Digest, Event, ImageStore, Lease, Partial, Reference};
use std::io::{self, Read};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Parts of a layer between the network and the unpacking; each is what one read brought, 16 KiB or so.
const BUFFERED: usize = 64;
/// Progress is told every so many bytes.
const TELL_EVERY: u64 = 256 << 10;
/// Of layers of this size what has come is kept when the download breaks off.
const KEPT_FROM: u64 = 4 << 20;
/// A connection that brings so much before it breaks has got on: the next one is a first attempt again.
const GOT_ON: u64 = 64 << 10;

type Part = Result<Bytes, String>;

impl Pull {
    /// Brings the missing layers in, at most `parallel` at a time. The first failure ends the others.
    pub(super) async fn layers(
        self: &Arc<Self>,
        work: Vec<(Descriptor, Digest)>,
        store: &ImageStore,
        lease: &Arc<Lease>,
        parallel: usize,
        reference: &Reference,
    ) -> Result<()> {
        let origin = format!("{}/{}", reference.domain(), reference.path());
        let mut waiting = work.into_iter();
        // Every ingest holds a copy of `alive`: when all are gone, the store has undone what failed or was cut off.
        let (alive, mut ended) = mpsc::channel::<()>(1);
        let mut running = JoinSet::new();
        let result = loop {
            while running.len() < parallel {
                let Some((descriptor, diff_id)) = waiting.next() else {
                    break;
                };
                let session = self.clone();
                let (store, lease, origin) = (store.clone(), lease.clone(), origin.clone());
                let alive = alive.clone();
                running.spawn(async move {
                    session
                        .layer(descriptor, diff_id, store, lease, origin, alive)
                        .await
                });
            }
            match running.join_next().await {
                None => break Ok(()),
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => break Err(error),
                Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Some(Err(error)) => break Err(Error::Client { source: error.into() }),
            }
        };
        running.shutdown().await;
        drop(alive);
        while ended.recv().await.is_some() {}
        result
    }

    async fn layer(
        self: Arc<Self>,
        descriptor: Descriptor,
        diff_id: Digest,
        store: ImageStore,
        lease: Arc<Lease>,
        origin: String,
        alive: mpsc::Sender<()>,
    ) -> Result<()> {
        let digest = descriptor.digest()?;
        let (there, wanted) = (store.clone(), diff_id.clone());
        if blocking(move || Ok(there.has_layer(&wanted))).await? {
            self.progress.emit(Event::LayerExists { digest });
            return Ok(());
        }
        self.progress.emit(Event::LayerStarted {
            digest: digest.clone(),
            total: descriptor.size,
        });
        let partial = self.partial(&store, &digest, descriptor.size).await?;
        let kept = partial.as_ref().map_or(0, Partial::len);
        let ingest = Ingest {
            digest,
            descriptor,
            diff_id,
            store,
            lease,
            origin,
            alive,
        };
        match self.bring(&ingest, partial).await {
            // What an earlier download left was not the beginning of this blob: without it, once more.
            Err(error) if kept > 0 && !error.is_transient() => {
                let partial = self.partial(&ingest.store, &ingest.digest, 0).await?;
                match error {
                    Error::WrongDigest { .. } | Error::Image(_) => self.bring(&ingest, partial).await,
                    error => Err(error),
                }
            }
            other => other,
        }
    }

    /// What an earlier download of a large layer left. Without it a pull is as good, only longer.
    async fn partial(&self, store: &ImageStore, digest: &Digest, size: u64) -> Result<Option<Partial>> {
        if size < KEPT_FROM {
            return Ok(None);
        }
        let (store, digest) = (store.clone(), digest.clone());
        blocking(move || {
            let found = store.partial(&digest)?;
            match found {
                // Longer than the whole: of no use.
                Some(partial) if partial.len() > size => {
                    partial.discard()?;
                    Ok(store.partial(&digest)?)
                }
                found => Ok(found),
            }
        })
        .await
    }

    async fn bring(&self, ingest: &Ingest, partial: Option<Partial>) -> Result<()> {
        let (parts, received) = mpsc::channel(BUFFERED);
        let size = ingest.descriptor.size;
        let digest = ingest.digest.clone();
        let kept = partial.as_ref().map_or(0, Partial::len);
        let work = ingest.clone();
        let ingest = tokio::task::spawn_blocking(move || {
            let mut stream = match Parts::new(received, partial) {
                Ok(stream) => stream,
                Err(error) => return Err(error),
            };
            let stored = work.store.ingest_layer(
                &work.lease,
                &work.descriptor,
                &work.diff_id,
                Some(&work.origin),
                &mut stream,
            );
            stream.end(&stored);
            drop(work);
            stored
        });
        let fetched = self.fetch(&digest, size, kept, &parts).await;
        if let Err(error) = &fetched {
            // The store undoes what it has begun. One that has ended already has the better reason.
            let _ = parts.send(Err(error.to_string())).await;
        }
        drop(parts);
        let stored = match ingest.await {
            Ok(stored) => stored,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => return Err(Error::Client { source: error.into() }),
        };
        match (fetched, stored) {
            (_, Ok(())) => {
                self.progress.emit(Event::LayerDone { digest });
                Ok(())
            }
            // The store stopped reading: what it says of the bytes is why.
            (Ok(()), Err(rdock_image::Error::DigestMismatch { expected, found, .. }))
                if expected == digest =>
            {
                Err(Error::WrongDigest {
                    registry: self.session.endpoint.host.clone(),
                    expected: expected.to_string(),
                    found: found.to_string(),
                })
            }
            (Ok(()), Err(error)) => Err(error.into()),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// Sends the blob to the store, part by part, from position `kept` on. Ends early, without an error, when the
    /// store stops reading.
    async fn fetch(&self, digest: &Digest, size: u64, kept: u64, parts: &mpsc::Sender<Part>) -> Result<()> {
        if kept == size {
            return Ok(());
        }
        let what = format!("layer {}", digest.short());
        let path = format!("{}/blobs/{digest}", self.session.endpoint.repository);
        let mut told = kept;
        let mut blob = Blob::new(&self.session, path, what.clone(), size, kept);
        loop {
            let next = match blob.next().await? {
                None => return Ok(()),
                Some(chunk) => chunk,
            };
            if parts.send(Ok(next)).await.is_err() {
                return Ok(());
            }
            if blob.done - told >= TELL_EVERY || blob.done == size {
                told = blob.done;
                self.progress.emit(Event::LayerProgress {
                    digest: digest.clone(),
                    done: blob.done,
                    total: size,
                });
            }
        }
    }
}

/// Everything that bringing one layer in needs.
#[derive(Clone)]
struct Ingest {
    digest: Digest,
    descriptor: Descriptor,
    diff_id: Digest,
    store: ImageStore,
    lease: Arc<Lease>,
    origin: String,
    /// Dropped with the last copy.
    #[expect(dead_code, reason = "what counts is that it is there")]
    alive: mpsc::Sender<()>,
}

/// A blob of a registry as one stream: where the connection breaks, another one goes on. Not verified.
pub(crate) struct Blob<'a> {
    session: &'a Session,
    path: String,
    what: String,
    size: u64,
    /// Position of the next byte.
    pub(crate) done: u64,
    answer: Option<Answer>,
    /// Bytes of the answer that are here already.
    skip: u64,
    attempts: Attempts,
    /// Where the last connection began.
    began: u64,
}

impl<'a> Blob<'a> {
    pub(crate) fn new(session: &'a Session, path: String, what: String, size: u64, done: u64) -> Self {
        Self {
            attempts: Attempts::new(session.retries),
            session,
            path,
            what,
            size,
            done,
            answer: None,
            skip: 0,
            began: done,
        }
    }

    /// The next part; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let error = match self.try_next().await {
                Ok(part) => return Ok(part),
                Err(error) => error,
            };
            self.answer = None;
            // A registry that brings something each time may break as often as it likes.
            if self.done - self.began >= GOT_ON {
                self.attempts.progress();
            }
            self.began = self.done;
            self.session.pause(&self.what, &mut self.attempts, error).await?;
        }
    }

    async fn try_next(&mut self) -> Result<Option<Bytes>> {
        let mut answer = match self.answer.take() {
            Some(answer) => answer,
            None => self.open().await?,
        };
        while let Some(mut chunk) = answer.chunk().await? {
            let passed = self.skip.min(chunk.len() as u64);
            chunk.advance(passed as usize);
            self.skip -= passed;
            if chunk.is_empty() {
                continue;
            }
            if self.done + chunk.len() as u64 > self.size {
                return Err(Error::TooLarge {
                    registry: self.session.endpoint.host.clone(),
                    what: "a layer",
                    limit: self.size,
                });
            }
            self.done += chunk.len() as u64;
            self.answer = Some(answer);
            return Ok(Some(chunk));
        }
        if self.done < self.size {
            let text = format!("it ended after {} of {} bytes", self.done, self.size);
            return Err(Error::Transport {
                registry: self.session.endpoint.host.clone(),
                what: self.what.clone(),
                source: io::Error::new(io::ErrorKind::UnexpectedEof, text).into(),
            });
        }
        Ok(None)
    }

    async fn open(&mut self) -> Result<Answer> {
        let request = Request {
            from: Some(self.done).filter(|from| *from > 0),
            ..Request::default()
        };
        let answer = self.session.call(&self.path, &request, &self.what, None).await?;
        self.skip = self.skipped(&answer)?;
        Ok(answer)
    }

    /// How many bytes of the answer are there already: all of them when the registry ignores Range.
    fn skipped(&self, answer: &Answer) -> Result<u64> {
        if !answer.is_partial() {
            return Ok(self.done);
        }
        let malformed = |reason: String| Err(self.session.malformed("Content-Range", reason));
        if answer.is_encoded() {
            return malformed("a range of an encoded body says nothing about the content".into());
        }
        let text = answer.header("content-range").unwrap_or_default();
        match ContentRange::parse(text) {
            Some(range)
                if range.first == self.done
                    && range.last + 1 == self.size
                    && range.complete.is_none_or(|complete| complete == self.size) =>
            {
                Ok(0)
            }
            _ => malformed(format!(
                "{text:?} where bytes {}-{}/{} were asked for",
                self.done,
                self.size - 1,
                self.size
            )),
        }
    }
}

/// The parts as a stream for the store's thread, which keeps a copy of what it reads.
struct Parts {
    kept: Option<Box<dyn Read + Send>>,
    partial: Option<Partial>,
    received: mpsc::Receiver<Part>,
    current: Bytes,
}

impl Parts {
    fn new(received: mpsc::Receiver<Part>, partial: Option<Partial>) -> rdock_image::Result<Self> {
        let kept = match &partial {
            Some(partial) if !partial.is_empty() => Some(Box::new(partial.reader()?) as Box<dyn Read + Send>),
            _ => None,
        };
        Ok(Self {
            kept,
            partial,
            received,
            current: Bytes::new(),
        })
    }

    /// Keeps what is worth keeping: the beginning of a blob that is not known to be wrong.
    fn end(&mut self, stored: &rdock_image::Result<()>) {
        let Some(partial) = self.partial.take() else {
            return;
        };
        let broke_off = matches!(stored, Err(rdock_image::Error::Stream { .. }));
        if !broke_off || partial.is_empty() {
            // A file that cannot be removed now is removed by a later sweep.
            partial.discard().ok();
        }
    }

    fn keep(&mut self, part: &Bytes) {
        if let Some(partial) = &mut self.partial
            && partial.append(part).is_err()
            && let Some(partial) = self.partial.take()
        {
            // No room for a copy: the layer itself may still fit.
            partial.discard().ok();
        }
    }
}

impl Read for Parts {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Some(kept) = &mut self.kept {
            match kept.read(into)? {
                0 => self.kept = None,
                count => return Ok(count),
            }
        }
        while self.current.is_empty() {
            match self.received.blocking_recv() {
                None => return Ok(0),
                Some(Ok(part)) => {
                    self.keep(&part);
                    self.current = part;
                }
                Some(Err(reason)) => return Err(io::Error::other(reason)),
            }
        }
        let count = self.current.len().min(into.len());
        self.current.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}
