//! Archives between a thread that works on files and whoever takes or gives the bytes. At most a few pieces are on
//! the way at any time.

use super::FilesError;
use super::copy::FileStat;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Pieces on the way.
const PIECES: usize = 4;

type Piece = Result<Vec<u8>, FilesError>;

/// A connected pair.
pub(super) fn pair() -> (PieceWriter, PieceReader) {
    let (to, from) = mpsc::channel(PIECES);
    let writer = PieceWriter {
        to,
        piece: Vec::new(),
        written: 0,
    };
    let reader = PieceReader {
        from,
        piece: Vec::new(),
        at: 0,
        read: 0,
        cancelled: None,
    };
    (writer, reader)
}

/// The end that a thread writes into.
#[derive(Debug)]
pub(super) struct PieceWriter {
    to: mpsc::Sender<Piece>,
    piece: Vec<u8>,
    /// Bytes so far.
    pub(super) written: u64,
}

impl PieceWriter {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        // Whoever read this has lost interest.
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.to.blocking_send(Ok(piece)).map_err(gone)
    }

    /// Sends what is left, or why there is no more.
    pub(super) fn end(mut self, result: Result<(), FilesError>) {
        let sent = match result {
            Ok(()) if self.piece.is_empty() => return,
            Ok(()) => self.send(),
            Err(error) => self
                .to
                .blocking_send(Err(error))
                .map_err(|_| io::ErrorKind::BrokenPipe.into()),
        };
        // Nobody is there to be told.
        drop(sent);
    }

    /// Sends a piece from an asynchronous program; false when nobody reads any more.
    pub(super) async fn give(&mut self, piece: Vec<u8>) -> bool {
        self.written += piece.len() as u64;
        self.to.send(Ok(piece)).await.is_ok()
    }

    /// Sends why there is no more.
    pub(super) async fn fail(self, error: FilesError) {
        // Nobody is there to be told.
        drop(self.to.send(Err(error)).await);
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.piece.len());
        if self.piece.capacity() == 0 {
            self.piece.reserve_exact(PIECE);
        }
        self.piece.extend_from_slice(&bytes[..count]);
        self.written += count as u64;
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end that a thread reads from.
#[derive(Debug)]
pub(super) struct PieceReader {
    from: mpsc::Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
    /// Bytes so far.
    pub(super) read: u64,
    cancelled: Option<Arc<AtomicBool>>,
}

impl PieceReader {
    /// Ends early once `cancelled` is set.
    pub(super) fn until(mut self, cancelled: Arc<AtomicBool>) -> Self {
        self.cancelled = Some(cancelled);
        self
    }
}

impl Read for PieceReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if let Some(cancelled) = &self.cancelled
                && cancelled.load(Ordering::Relaxed)
            {
                return Err(io::Error::other("nobody waits for it any more"));
            }
            match self.from.blocking_recv() {
                None => return Ok(0),
                Some(Ok(piece)) => (self.piece, self.at) = (piece, 0),
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
        let count = out.len().min(self.piece.len() - self.at);
        out[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        self.read += count as u64;
        Ok(count)
    }
}

/// Set when the caller's future is dropped.
#[derive(Debug, Default)]
pub(super) struct Cancel(pub(super) Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A tar archive of files of a container, as it is made. Dropping it ends that.
///
/// A failure on the way is an error of the read that meets it; [`FilesError`] is in its `get_ref()`.
#[derive(Debug)]
pub struct Archive {
    from: mpsc::Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
    stat: Option<FileStat>,
}

impl Archive {
    pub(super) fn new(reader: PieceReader, stat: Option<FileStat>) -> Self {
        Self {
            from: reader.from,
            piece: Vec::new(),
            at: 0,
            stat,
        }
    }

    /// Returns what is archived; `None` for a whole container.
    pub fn stat(&self) -> Option<&FileStat> {
        self.stat.as_ref()
    }
}

impl AsyncRead for Archive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.at == self.piece.len() {
            match self.from.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Ok(piece))) => (self.piece, self.at) = (piece, 0),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let count = out.remaining().min(self.piece.len() - self.at);
        out.put_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}
