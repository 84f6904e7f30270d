//! Files on their way into containers, as a tar stream that is written while it is read.

use super::WatchError;
use super::batch::Change;
use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

/// Bytes of one piece.
const PIECE: usize = 64 << 10;

/// The end that is read.
pub(super) struct Archive {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    read: usize,
}

struct Pieces {
    sender: mpsc::Sender<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        match piece.is_empty() || self.sender.blocking_send(Ok(piece)).is_ok() {
            true => Ok(()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Archive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.read == self.piece.len() {
            match self.pieces.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(piece)) => {
                    self.piece = piece?;
                    self.read = 0;
                }
            }
        }
        let left = &self.piece[self.read..];
        let size = left.len().min(out.remaining());
        out.put_slice(&left[..size]);
        self.read += size;
        Poll::Ready(Ok(()))
    }
}

/// An archive of these files, from the top of a container. One that goes away meanwhile is left out.
pub(super) fn stream(changes: Vec<Change>) -> Result<Archive, WatchError> {
    let (sender, pieces) = mpsc::channel(4);
    let write = move || {
        let failed = sender.clone();
        let mut archive = tar::Builder::new(Pieces {
            sender,
            piece: Vec::new(),
        });
        archive.follow_symlinks(false);
        let written = changes
            .iter()
            .try_for_each(|change| add(&mut archive, change))
            .and_then(|()| archive.into_inner())
            .and_then(|mut pieces| pieces.send());
        if let Err(error) = written {
            // Nobody reads any more.
            let _ = failed.blocking_send(Err(error));
        }
    };
    std::thread::Builder::new()
        .name("rdock-sync".to_owned())
        .spawn(write)
        .map_err(WatchError::file("start a thread for", "/"))?;
    Ok(Archive {
        pieces,
        piece: Vec::new(),
        read: 0,
    })
}

fn add(archive: &mut tar::Builder<Pieces>, change: &Change) -> io::Result<()> {
    let to = Path::new(change.to.trim_start_matches('/'));
    let added = match change.from.symlink_metadata() {
        Ok(meta) if meta.is_dir() => archive.append_dir(to, &change.from),
        Ok(meta) if meta.is_file() || meta.is_symlink() => archive.append_path_with_name(&change.from, to),
        // Sockets and the like stay here.
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    match added {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
