//! Layers: fetched in parallel, resumed where the connection broke, verified and unpacked as they come.

use super::{FIRST_PAUSE, LONGEST_PAUSE, Session, blocking};
use crate::client::is_transient;
use crate::error::{Error, Result};
use crate::transport::{Answer, Request};
use bytes::{Buf, Bytes};
use rdock_image::{Descriptor, Digest, Event, ImageStore, Lease, Reference};
use std::io::{self, Read};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Parts of a layer between the network and the unpacking; each is what one read brought, 16 KiB or so.
const BUFFERED: usize = 64;
/// Progress is told every so many bytes.
const TELL_EVERY: u64 = 256 << 10;

type Part = Result<Bytes, String>;

impl Session {
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
        let (parts, received) = mpsc::channel(BUFFERED);
        let size = descriptor.size;
        let ingest = tokio::task::spawn_blocking(move || {
            let mut stream = Parts {
                received,
                current: Bytes::new(),
            };
            let stored = store.ingest_layer(&lease, &descriptor, &diff_id, Some(&origin), &mut stream);
            drop((lease, alive));
            stored
        });
        let fetched = self.fetch(&digest, size, &parts).await;
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
                    registry: self.endpoint.host.clone(),
                    expected: expected.to_string(),
                    found: found.to_string(),
                })
            }
            (Ok(()), Err(error)) => Err(error.into()),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// Sends the blob to the store, part by part. Ends early, without an error, when the store stops reading.
    async fn fetch(&self, digest: &Digest, size: u64, parts: &mpsc::Sender<Part>) -> Result<()> {
        let path = format!("{}/blobs/{digest}", self.endpoint.repository);
        let what = format!("layer {}", digest.short());
        let mut done = 0;
        let mut told = 0;
        let (mut attempt, mut pause) = (0, FIRST_PAUSE);
        loop {
            let before = done;
            let error = match self
                .fetch_from(&path, &what, size, &mut done, &mut told, digest, parts)
                .await
            {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // A registry that brings something each time may break as often as it likes.
            if done > before {
                (attempt, pause) = (0, FIRST_PAUSE);
            }
            attempt += 1;
            let delay = super::asked_pause(&error).unwrap_or(pause);
            if !is_transient(&error) || attempt > self.retries || delay > LONGEST_PAUSE {
                return Err(error);
            }
            self.retry_event(&what, attempt, delay, &error);
            tokio::time::sleep(delay).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    #[allow(clippy::too_many_arguments)]
    async fn fetch_from(
        &self,
        path: &str,
        what: &str,
        size: u64,
        done: &mut u64,
        told: &mut u64,
        digest: &Digest,
        parts: &mpsc::Sender<Part>,
    ) -> Result<()> {
        let request = Request {
            from: Some(*done).filter(|from| *from > 0),
            ..Request::default()
        };
        let mut answer = self.get(path, &request, what, None).await?;
        let mut skip = self.skipped(&answer, *done, size)?;
        while let Some(mut chunk) = answer.chunk().await? {
            let passed = skip.min(chunk.len() as u64);
            chunk.advance(passed as usize);
            skip -= passed;
            if chunk.is_empty() {
                continue;
            }
            *done += chunk.len() as u64;
            if *done > size {
                let registry = self.endpoint.host.clone();
                return Err(Error::TooLarge {
                    registry,
                    what: "a layer",
                    limit: size,
                });
            }
            if parts.send(Ok(chunk)).await.is_err() {
                return Ok(());
            }
            if *done - *told >= TELL_EVERY || *done == size {
                *told = *done;
                self.progress.emit(Event::LayerProgress {
                    digest: digest.clone(),
                    done: *done,
                    total: size,
                });
            }
        }
        if *done < size {
            return Err(Error::Transport {
                registry: self.endpoint.host.clone(),
                what: what.to_owned(),
                source: format!("it ended after {done} of {size} bytes").into(),
            });
        }
        Ok(())
    }

    /// How many bytes of the answer are there already: all of them when the registry ignores Range.
    fn skipped(&self, answer: &Answer, done: u64, size: u64) -> Result<u64> {
        if done == 0 || !answer.is_partial() {
            return Ok(done);
        }
        let range = answer.header("content-range").unwrap_or_default();
        let expected = format!("bytes {done}-{}/{size}", size - 1);
        let unknown = format!("bytes {done}-{}/*", size - 1);
        if range == expected || range == unknown {
            return Ok(0);
        }
        Err(self.malformed(
            "Content-Range",
            format!("{range:?} where {expected:?} was asked for"),
        ))
    }
}

/// The parts as a stream for the store's thread.
struct Parts {
    received: mpsc::Receiver<Part>,
    current: Bytes,
}

impl Read for Parts {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.received.blocking_recv() {
                None => return Ok(0),
                Some(Ok(part)) => self.current = part,
                Some(Err(reason)) => return Err(io::Error::other(reason)),
            }
        }
        let count = self.current.len().min(into.len());
        self.current.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}
