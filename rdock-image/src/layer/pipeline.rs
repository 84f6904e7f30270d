//! One pass over a layer: the compressed bytes are read, hashed and inflated on the caller's thread; a second
//! thread hashes the tar, a third one reads it. Buffers are few and used again.
use super::compression::{InflateError, Inflater};
use crate::digest::Hasher;
use crate::store::Limits;
use crate::{Digest, Error, Result};
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

const BUFFER: usize = 256 * 1024;
const BUFFERS: usize = 16;

/// What one pass found out.
#[derive(Debug)]
pub(crate) struct Passed<T> {
    /// Of the bytes as read.
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Of the inflated bytes.
    pub(crate) diff_id: Digest,
    /// What the tar's reader made of it.
    pub(crate) made: T,
}

/// What the compressed bytes must be.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

type Buffer = Arc<Vec<u8>>;

/// Runs `reader` over the inflated `stream`, whose digest is made as that of `diff_id` was. When the compressed bytes are not the expected ones, that is the error,
/// whatever the reader stumbled over.
pub(crate) fn pass<T: Send>(
    layer: &str,
    stream: &mut dyn Read,
    expected: Option<&Expected>,
    diff_id: Option<&Digest>,
    limits: &Limits,
    reader: impl FnOnce(Chunks) -> Result<T> + Send,
) -> Result<Passed<T>> {
    let hasher = expected.map_or_else(Hasher::sha256, |expected| Hasher::like(&expected.digest));
    let limit = expected.map_or(limits.layer_bytes, |expected| expected.size);
    let mut inflater = Inflater::new(stream, hasher, limit);
    let tar_hasher = diff_id.map_or_else(Hasher::sha256, Hasher::like);
    let outcome = std::thread::scope(|scope| {
        let (free, pool) = channel();
        let (to_hash, hash_input) = sync_channel::<Buffer>(BUFFERS);
        let (to_reader, reader_input) = sync_channel::<Option<Buffer>>(BUFFERS);
        let hash_free = free.clone();
        let hashing = scope.spawn(move || {
            let mut hasher = tar_hasher;
            for buffer in hash_input {
                hasher.update(&buffer);
                give_back(&hash_free, buffer);
            }
            hasher.finish()
        });
        let chunks = Chunks {
            input: reader_input,
            free,
            current: None,
            position: 0,
            ended: false,
        };
        let reading = scope.spawn(move || reader(chunks));
        let produced = produce(layer, &mut inflater, limits, &pool, &to_hash, &to_reader);
        drop((to_hash, to_reader));
        let diff_id = join(hashing);
        let made = join(reading);
        match produced {
            // Without an end mark the reader's own error only says that the stream broke off.
            Err(error) => Err(error),
            Ok(()) => made.map(|made| (diff_id, made)),
        }
    });
    if let Err(Error::LayerMalformed { .. }) = &outcome
        && expected.is_some()
    {
        match inflater.drain() {
            Ok(()) | Err(InflateError::TooLong) => {}
            Err(error) => return Err(inflate_error(layer, error, 0, 0)),
        }
    } else if let Err(error) = outcome {
        return Err(error);
    }
    let size = inflater.taken();
    let digest = inflater.into_hasher().finish();
    if let Some(expected) = expected {
        let what = || format!("layer {}", expected.digest.short());
        if size != expected.size {
            return Err(Error::SizeMismatch {
                what: what(),
                expected: expected.size,
                found: size,
            });
        }
        if digest != expected.digest {
            return Err(Error::DigestMismatch {
                what: what(),
                expected: expected.digest.clone(),
                found: digest,
            });
        }
    }
    let (diff_id, made) = outcome?;
    Ok(Passed {
        digest,
        size,
        diff_id,
        made,
    })
}

fn produce(
    layer: &str,
    inflater: &mut Inflater<'_>,
    limits: &Limits,
    pool: &Receiver<Vec<u8>>,
    to_hash: &SyncSender<Buffer>,
    to_reader: &SyncSender<Option<Buffer>>,
) -> Result<()> {
    let mut total = 0_u64;
    loop {
        // The channels' bounds also bound the number of buffers.
        let mut buffer = pool.try_recv().unwrap_or_default();
        buffer.resize(BUFFER, 0);
        let count = inflater
            .fill(&mut buffer)
            .map_err(|e| inflate_error(layer, e, inflater.limit(), inflater.taken()))?;
        let last = count < BUFFER;
        buffer.truncate(count);
        total += count as u64;
        limits.check_ratio(total, inflater.taken())?;
        let buffer = Arc::new(buffer);
        let kept = to_hash.send(Arc::clone(&buffer)).is_ok() && to_reader.send(Some(buffer)).is_ok();
        if !kept {
            // The reader gave up; its error says why.
            return Ok(());
        }
        if last {
            let _ = to_reader.send(None);
            return Ok(());
        }
    }
}

fn inflate_error(layer: &str, error: InflateError, limit: u64, taken: u64) -> Error {
    match error {
        InflateError::Stream(source) => Error::Stream {
            what: format!("layer {layer}"),
            source,
        },
        InflateError::Corrupt(reason) => Error::LayerMalformed {
            layer: layer.to_owned(),
            entry: String::new(),
            reason,
        },
        InflateError::TooLong => Error::SizeMismatch {
            what: format!("layer {layer}"),
            expected: limit,
            found: taken,
        },
        InflateError::Unsupported(name) => Error::Unsupported {
            what: format!("a layer compressed with {name}"),
            on: String::new(),
        },
    }
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The last holder of a buffer returns it.
fn give_back(free: &Sender<Vec<u8>>, buffer: Buffer) {
    if let Some(buffer) = Arc::into_inner(buffer) {
        let _ = free.send(buffer);
    }
}

/// The inflated bytes, as the tar's reader sees them.
#[derive(Debug)]
pub(crate) struct Chunks {
    input: Receiver<Option<Buffer>>,
    free: Sender<Vec<u8>>,
    current: Option<Buffer>,
    position: usize,
    ended: bool,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while !self.ended
            && self
                .current
                .as_ref()
                .is_none_or(|buffer| self.position == buffer.len())
        {
            if let Some(buffer) = self.current.take() {
                give_back(&self.free, buffer);
            }
            self.position = 0;
            match self.input.recv() {
                Ok(Some(buffer)) => self.current = Some(buffer),
                Ok(None) => self.ended = true,
                Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(self
            .current
            .as_ref()
            .map_or(&[], |buffer| &buffer[self.position..]))
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let count = chunk.len().min(out.len());
        out[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Ok(count)
    }
}
