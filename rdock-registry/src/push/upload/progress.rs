//! How far an upload is, and the note of it that the next push reads.

use super::{BUFFERED, abandon, status};
use crate::error::Result;
use crate::session::{Session, blocking};
use bytes::Bytes;
use rdock_image::{Hasher, UploadNote};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use url::Url;

/// Where an upload is; notes of uploads that broke off have it as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::push) struct Place {
    #[serde(with = "location")]
    pub(super) location: Url,
    /// The registry takes no smaller chunks, but for the last one.
    pub(super) smallest_chunk: u64,
}

/// An address as text.
mod location {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use url::Url;

    pub(super) fn serialize<S: Serializer>(url: &Url, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(url.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
        Url::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// How far an upload is.
pub(super) struct Progress {
    pub(super) place: Option<Place>,
    /// Bytes that the registry has.
    pub(super) offset: u64,
    /// Of the bytes from the first one on; shared with the thread that hashes what is being sent.
    pub(super) hashing: Arc<Mutex<Hashing>>,
    pub(super) renewals: u32,
    /// Where a later push learns of the place.
    pub(super) note: Option<UploadNote>,
}

impl Progress {
    /// Bytes that were hashed.
    pub(super) fn hashed(&self) -> u64 {
        self.hashing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .position
    }

    /// Goes on where an earlier push ended, if the registry still knows of it; says whether it does.
    pub(super) async fn resume(&mut self, session: &Session, size: Option<u64>) -> bool {
        let text = self.note.as_ref().and_then(UploadNote::text);
        let Some(place) = text.and_then(|text| serde_json::from_str::<Place>(text).ok()) else {
            return false;
        };
        match status(session, place).await {
            Some((place, offset @ 1..)) if size.is_none_or(|size| offset <= size) => {
                // What was begun for this push is not needed.
                abandon(session, self.place.replace(place)).await;
                self.offset = offset;
                true
            }
            _ => false,
        }
    }

    /// Notes where the upload is. Without the note a later push begins anew, and is as good.
    pub(super) async fn keep(&mut self) {
        let Some(text) = (self.place.as_ref()).and_then(|place| serde_json::to_string(place).ok()) else {
            return;
        };
        let Some(mut note) = self.note.take() else {
            return;
        };
        let written = blocking(move || {
            let written = note.write(&text);
            Ok((note, written))
        });
        // One that cannot be written is given up, lest it leads to another upload.
        self.note = match written.await {
            Ok((note, Ok(()))) => Some(note),
            Ok((note, Err(_))) => {
                note.discard().ok();
                None
            }
            Err(_) => None,
        };
    }

    /// Forgets the note: the upload is done, or nobody is to go on with it.
    pub(super) async fn forget(&mut self) {
        if let Some(note) = self.note.take() {
            // One that is left leads to an upload that the registry does not know any more.
            blocking(move || Ok(note.discard().ok())).await.ok();
        }
    }

    pub(super) fn location(&self, session: &Session) -> Result<Url> {
        match &self.place {
            Some(place) => Ok(place.location.clone()),
            None => Err(session.malformed("upload", "no usable Location".into())),
        }
    }
}

pub(super) struct Hashing {
    pub(super) hasher: Hasher,
    /// Bytes hashed.
    pub(super) position: u64,
}

impl Hashing {
    /// Hashes what of these bytes, which begin at `at`, was not hashed before.
    fn update(&mut self, at: u64, bytes: &[u8]) {
        let known = self.position.saturating_sub(at);
        if let Some(fresh) = bytes.get(usize::try_from(known).unwrap_or(usize::MAX)..)
            && at <= self.position
        {
            self.hasher.update(fresh);
            self.position += fresh.len() as u64;
        }
    }
}

/// Parts on their way to the thread that hashes them, each with the position of its first byte.
pub(super) type ToHash = mpsc::Sender<(u64, Bytes)>;

/// Hashes beside the network, on a thread of the runtime's pool, which ends with the sender: a connection that has the
/// other core waits for nobody.
pub(super) fn hashes(hashing: Arc<Mutex<Hashing>>) -> (ToHash, tokio::task::JoinHandle<()>) {
    let (sender, mut parts) = mpsc::channel::<(u64, Bytes)>(BUFFERED);
    let work = tokio::task::spawn_blocking(move || {
        while let Some((at, part)) = parts.blocking_recv() {
            hashing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .update(at, &part);
        }
    });
    (sender, work)
}
