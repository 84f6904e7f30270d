//! One blob goes up: asked for, mounted, or sent; resumed where the connection broke (distribution specification,
//! "Pushing blobs").

mod progress;

pub(super) use progress::Place;

use super::source::{Part, Source, Stream};
use crate::error::{Error, Result};
use crate::protocol::decimal;
use crate::session::{Attempts, Session};
use crate::transport::{Answer, Peer, Request, Upload, Verb, same_origin};
use bytes::{Buf, Bytes, BytesMut};
use progress::{Hashing, Progress, ToHash, hashes};
use rdock_image::{Digest, Hasher, UploadNote};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use url::Url;

/// An upload that got on by so much before it broke off has another full number of attempts.
const GOT_ON: u64 = 64 << 10;
/// A registry may ask for chunks of this size at most; each is kept in memory.
const LARGEST_CHUNK: u64 = 64 << 20;
/// Parts between the network and the hashing.
const BUFFERED: usize = 16;
/// New tokens in one upload without getting on.
const MOST_RENEWALS: u32 = 3;

/// What an upload begins with.
pub(super) enum Begun {
    /// The registry had the blob in the other repository.
    Mounted,
    /// It is to be sent.
    Upload(Place),
}

/// Why an attempt ended.
enum Broken {
    /// The token ran out and was renewed: no failure.
    Renewed,
    Failed(Error),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A blob that the registry has verified.
#[derive(Debug, Clone)]
pub(super) struct Uploaded {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Of an encoded layer: the digest of its tar.
    pub(super) tar: Option<Digest>,
}

/// Whether a repository has a blob; its size then is not asked for, the digest says everything.
pub(super) async fn exists(session: &Session, digest: &Digest) -> Result<bool> {
    let path = format!("{}/blobs/{digest}", session.endpoint.repository);
    let what = format!("blob {}", digest.short());
    let request = Request::new(Verb::Head);
    let asked = session.ask(&path, &request, &what, None).await;
    match asked {
        Ok(_) => Ok(true),
        Err(Error::Status { status: 404, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Begins an upload, or has the blob mounted from another repository of the registry.
pub(super) async fn begin(session: &Session, mount: Option<(&Digest, &str)>) -> Result<Begun> {
    let mut path = format!("{}/blobs/uploads/", session.endpoint.repository);
    if let Some((digest, from)) = mount {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("mount", digest.as_str())
            .append_pair("from", from)
            .finish();
        path = format!("{path}?{query}");
    }
    let what = "an upload";
    let request = Request {
        body: Some(Bytes::new()),
        ..Request::new(Verb::Post)
    };
    let answer = session.ask(&path, &request, what, None).await?;
    if answer.status() == 201 && mount.is_some() {
        return Ok(Begun::Mounted);
    }
    let location = location_of(session, &answer)?
        .ok_or_else(|| session.malformed("upload", "no usable Location".into()))?;
    let smallest_chunk = answer.header("oci-chunk-min-length").and_then(decimal);
    Ok(Begun::Upload(Place {
        location,
        smallest_chunk: smallest_chunk.unwrap_or(0).min(LARGEST_CHUNK),
    }))
}

/// Where the upload goes on; `None` when the answer does not say.
fn location_of(session: &Session, answer: &Answer) -> Result<Option<Url>> {
    let Some(text) = answer.header("location") else {
        return Ok(None);
    };
    let malformed = |reason: &str| session.malformed("upload", reason.to_owned());
    let mut url = answer
        .url()
        .join(text)
        .map_err(|_| malformed("no usable Location"))?;
    if answer.url().scheme() == "https" && url.scheme() == "http" {
        // A registry behind a proxy may not know that it is spoken to by TLS. Another host without it is another
        // matter.
        if url.host() != answer.url().host() || url.set_scheme("https").is_err() {
            return Err(malformed("a Location without TLS"));
        }
        if url.port() == Some(80) || url.port().is_none() {
            url.set_port(answer.url().port())
                .map_err(|()| malformed("no usable Location"))?;
        }
    }
    match url.scheme() {
        "http" | "https" => Ok(Some(url)),
        _ => Err(malformed("a Location that is not HTTP")),
    }
}

/// Sends a blob. `expected` is its digest, where it is known; `begun` an upload that has been begun for it; `note` says
/// where an earlier push of the blob to the same place ended.
pub(super) async fn send(
    session: &Session,
    source: &Source,
    expected: Option<&Digest>,
    begun: Option<Place>,
    chunk_size: Option<u64>,
    sent: &Arc<AtomicU64>,
    note: Option<UploadNote>,
) -> Result<Uploaded> {
    let mut progress = Progress {
        place: begun,
        offset: 0,
        hashing: Arc::new(Mutex::new(Hashing {
            hasher: expected.map_or_else(Hasher::sha256, Hasher::like),
            position: 0,
        })),
        renewals: 0,
        note,
    };
    let mut resumed = progress.resume(session, source.size()).await;
    sent.store(progress.offset, Ordering::Release);
    let what = match expected {
        Some(digest) => format!("the upload of blob {}", digest.short()),
        None => "the upload of a layer".to_owned(),
    };
    let mut attempts = Attempts::new(session.retries);
    loop {
        let before = progress.offset;
        let broken = match attempt(session, source, expected, chunk_size, sent, &mut progress).await {
            Ok(uploaded) => {
                progress.forget().await;
                return Ok(uploaded);
            }
            Err(broken) => broken,
        };
        let place = progress.place.clone();
        if let Broken::Failed(error) = broken {
            // What an earlier push sent was not the beginning of this blob.
            if matches!(error, Error::Status { status: 400, .. }) && std::mem::take(&mut resumed) {
                abandon(session, progress.place.take()).await;
                progress.offset = 0;
                sent.store(0, Ordering::Release);
                continue;
            }
            // The registry forgot the upload, or disagrees about where it is: that passes with a new beginning.
            let lost = matches!(
                error,
                Error::Status {
                    status: 404 | 416,
                    ..
                }
            );
            if lost || error.is_transient() {
                recover(session, &mut progress).await;
            }
            // An upload that is lost each time gets nowhere, however much was sent.
            if !lost && progress.offset >= before + GOT_ON {
                attempts.progress();
            }
            let paused = match lost {
                true => session.pause_anyway(&what, &mut attempts, error).await,
                false => session.pause(&what, &mut attempts, error).await,
            };
            if let Err(error) = paused {
                // A later push goes on from here, unless it is known that there is nothing.
                let nothing = progress.offset == 0 && progress.place.is_some();
                if nothing || progress.note.is_none() || !error.is_transient() {
                    abandon(session, place).await;
                    progress.forget().await;
                }
                return Err(error);
            }
        } else {
            recover(session, &mut progress).await;
        }
        sent.store(progress.offset, Ordering::Release);
    }
}

/// After a failure: finds out where the upload is; without an answer it begins anew.
async fn recover(session: &Session, progress: &mut Progress) {
    let known = match progress.place.take() {
        Some(place) => status(session, place).await,
        None => None,
    };
    (progress.place, progress.offset) = match known {
        Some((place, offset)) => (Some(place), offset),
        None => (None, 0),
    };
}

/// What the registry has of an upload.
async fn status(session: &Session, mut place: Place) -> Option<(Place, u64)> {
    let request = Request::new(Verb::Get);
    let answer = at(session, &place.location, &request).await.ok()?;
    if !answer.is_success() {
        return None;
    }
    if let Some(next) = location_of(session, &answer).ok()? {
        place.location = next;
    }
    Some((place, received(&answer)?))
}

/// Bytes received, of a `Range: 0-LAST` header.
fn received(answer: &Answer) -> Option<u64> {
    let range = answer.header("range")?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (first, last) = range.split_once('-')?;
    match (decimal(first)?, decimal(last)?) {
        // Registries say this of nothing; of a single byte, the next request would show it.
        (0, 0) => Some(0),
        (0, last) => Some(last + 1),
        _ => None,
    }
}

/// A request to where an upload is, with authorization if that is the registry itself.
async fn at(session: &Session, location: &Url, request: &Request) -> Result<Answer> {
    let mut request = request.clone();
    request.authorization = authorization(session, location).await?;
    let own = session.transport.address(&session.endpoint, "")?;
    let peer = match same_origin(location, &own) {
        true => Peer::of(&session.endpoint),
        false => Peer::stranger(&session.endpoint),
    };
    session.transport.send(&peer, location.clone(), &request).await
}

/// Credentials stay with the registry.
async fn authorization(session: &Session, location: &Url) -> Result<Option<String>> {
    let own = session.transport.address(&session.endpoint, "")?;
    Ok(match same_origin(location, &own) {
        true => session.authorization.header().await,
        false => None,
    })
}

/// Tells the registry that nothing more will come. It would forget the upload anyway, some day.
async fn abandon(session: &Session, place: Option<Place>) {
    if let Some(place) = place {
        at(session, &place.location, &Request::new(Verb::Delete))
            .await
            .ok();
    }
}

async fn attempt(
    session: &Session,
    source: &Source,
    expected: Option<&Digest>,
    chunk_size: Option<u64>,
    sent: &Arc<AtomicU64>,
    progress: &mut Progress,
) -> Result<Uploaded, Broken> {
    let smallest_chunk = match &progress.place {
        Some(place) => place.smallest_chunk,
        None => match begin(session, None).await? {
            Begun::Upload(place) => {
                let smallest_chunk = place.smallest_chunk;
                progress.place = Some(place);
                smallest_chunk
            }
            Begun::Mounted => {
                return Err(session
                    .malformed("upload", "a blob that was not sent".into())
                    .into());
            }
        },
    };
    progress.keep().await;
    // Small and known: all in one request.
    if let (Source::Bytes(bytes), Some(digest)) = (source, expected)
        && chunk_size.is_none_or(|size| bytes.len() as u64 <= size)
        && progress.offset == 0
    {
        let body = Some(bytes.clone());
        finish(session, progress, digest, body).await?;
        return Ok(Uploaded {
            digest: digest.clone(),
            size: bytes.len() as u64,
            tar: None,
        });
    }
    let mut tar = None;
    // An earlier push hashed for itself alone.
    let hashed = progress.hashed();
    let complete = source.size() == Some(progress.offset);
    if !complete || hashed < progress.offset {
        let (Stream { parts, work }, begins) = source.open(progress.offset.min(hashed));
        let (to_hash, hashed) = hashes(progress.hashing.clone());
        let parts = Parts {
            parts,
            at: begins,
            to_hash,
        };
        let streamed = match chunk_size {
            _ if complete => hashed_alone(parts, progress.offset).await,
            None => stream(session, source, parts, sent, progress).await,
            Some(size) => {
                let size = size.max(smallest_chunk).max(1);
                chunks(session, parts, size, sent, progress).await
            }
        };
        // Nobody sends it anything any more.
        hashed
            .await
            .map_err(|error| Error::Client { source: error.into() })?;
        // What the source has to say comes first: the registry only saw the connection end.
        tar = match (Stream::end(work).await, &streamed) {
            (Ok(tar), _) => tar,
            (Err(error), Err(_)) if !is_cut(&error) => return Err(error.into()),
            (Err(_), _) => None,
        };
        streamed?;
    }
    let (digest, size) = {
        let hashing = progress.hashing.lock().unwrap_or_else(PoisonError::into_inner);
        // Kept: the last request may fail, and this one is not the last then.
        (hashing.hasher.clone().finish(), hashing.position)
    };
    if let Some(expected) = expected.filter(|expected| **expected != digest) {
        let error = Error::WrongDigest {
            registry: source.host().unwrap_or_default(),
            expected: expected.to_string(),
            found: digest.to_string(),
        };
        return Err(error.into());
    }
    finish(session, progress, &digest, None).await?;
    Ok(Uploaded { digest, size, tar })
}

/// Reads what the registry has already, for its digest.
async fn hashed_alone(mut parts: Parts, offset: u64) -> Result<(), Broken> {
    while let Some(part) = parts.next(offset).await {
        part.map_err(|reason| Error::Client {
            source: reason.into(),
        })?;
    }
    Ok(())
}

/// The encoder ended because nobody took its bytes.
fn is_cut(error: &Error) -> bool {
    matches!(error, Error::Image(rdock_image::Error::Stream { source, .. })
        if source.kind() == std::io::ErrorKind::BrokenPipe)
}

/// What a source gives, hashed on the way.
struct Parts {
    parts: mpsc::Receiver<Part>,
    /// Position of the next part.
    at: u64,
    to_hash: ToHash,
}

impl Parts {
    /// The next part, as far as it lies behind `offset`; `None` at the end.
    async fn next(&mut self, offset: u64) -> Option<Part> {
        loop {
            let part = match self.parts.recv().await? {
                Ok(part) => part,
                error => return Some(error),
            };
            // It hashes until the last sender is gone.
            self.to_hash.send((self.at, part.clone())).await.ok();
            let part = behind(part, &mut self.at, offset);
            if !part.is_empty() {
                return Some(Ok(part));
            }
        }
    }
}

/// The rest of the blob in one request.
async fn stream(
    session: &Session,
    source: &Source,
    parts: Parts,
    sent: &Arc<AtomicU64>,
    progress: &mut Progress,
) -> Result<(), Broken> {
    let offset = progress.offset;
    let passed = futures_util::stream::unfold(parts, move |mut parts| async move {
        let part = parts.next(offset).await?;
        Some((part, parts))
    });
    let length = source.size().map(|size| size - offset);
    let content_range = match (offset, source.size()) {
        (1.., Some(size)) => Some(format!("{offset}-{}", size - 1)),
        _ => None,
    };
    let upload = Upload {
        stream: Box::pin(passed),
        length,
    };
    let before = sent.load(Ordering::Acquire);
    let answer = patch(session, progress, content_range, upload, sent).await?;
    // Of an encoded layer nobody knows before how long it is.
    let length = length.unwrap_or_else(|| sent.load(Ordering::Acquire) - before);
    progress.offset = offset + length;
    Ok(confirmed(session, &answer, progress.offset)?)
}

/// The rest of the blob in pieces, each of which is kept until the registry has it.
async fn chunks(
    session: &Session,
    mut parts: Parts,
    size: u64,
    sent: &Arc<AtomicU64>,
    progress: &mut Progress,
) -> Result<(), Broken> {
    let begins = progress.offset;
    let mut buffer = BytesMut::new();
    loop {
        let part = parts.next(begins).await;
        let ended = part.is_none();
        if let Some(part) = part {
            let part = part.map_err(|reason| Error::Transport {
                registry: session.endpoint.host.clone(),
                what: "an upload".into(),
                source: reason.into(),
            })?;
            buffer.extend_from_slice(&part);
        }
        while buffer.len() as u64 >= size || (ended && !buffer.is_empty()) {
            let chunk = buffer.split_to(buffer.len().min(size as usize)).freeze();
            let (first, length) = (progress.offset, chunk.len() as u64);
            let upload = Upload {
                stream: Box::pin(futures_util::stream::once(async move { Ok(chunk) })),
                length: Some(length),
            };
            let range = Some(format!("{first}-{}", first + length - 1));
            let answer = patch(session, progress, range, upload, sent).await?;
            progress.offset = first + length;
            confirmed(session, &answer, progress.offset)?;
        }
        if ended {
            return Ok(());
        }
    }
}

/// What of a part, which begins at `at`, lies behind `offset`.
fn behind(mut part: Bytes, at: &mut u64, offset: u64) -> Bytes {
    let passed = offset.saturating_sub(*at).min(part.len() as u64);
    *at += part.len() as u64;
    part.advance(passed as usize);
    part
}

async fn patch(
    session: &Session,
    progress: &mut Progress,
    content_range: Option<String>,
    upload: Upload,
    sent: &Arc<AtomicU64>,
) -> Result<Answer, Broken> {
    let request = Request {
        content_type: Some("application/octet-stream".into()),
        content_range,
        ..Request::new(Verb::Patch)
    };
    let location = progress.location(session)?;
    let answer = put(session, progress, location, request, upload, sent).await?;
    if let (Some(next), Some(place)) = (location_of(session, &answer)?, &mut progress.place) {
        place.location = next;
        progress.keep().await;
    }
    Ok(answer)
}

/// Sends a body to where the upload is; a token that ran out is renewed.
async fn put(
    session: &Session,
    progress: &mut Progress,
    location: Url,
    mut request: Request,
    upload: Upload,
    sent: &Arc<AtomicU64>,
) -> Result<Answer, Broken> {
    let own = session.transport.address(&session.endpoint, "")?;
    request.authorization = authorization(session, &location).await?;
    let own_place = same_origin(&location, &own);
    let answer = session
        .transport
        .upload(&session.endpoint, location, &request, upload, sent)
        .await?;
    if answer.status() == 401 && progress.renewals < MOST_RENEWALS && own_place {
        progress.renewals += 1;
        session.renew(&answer, request.authorization.as_deref()).await?;
        return Err(Broken::Renewed);
    }
    Ok(session.check(answer, "an upload", None).await?)
}

/// Closes the upload; the registry checks the digest.
async fn finish(
    session: &Session,
    progress: &mut Progress,
    digest: &Digest,
    body: Option<Bytes>,
) -> Result<(), Broken> {
    let mut location = progress.location(session)?;
    location.query_pairs_mut().append_pair("digest", digest.as_str());
    let request = Request {
        content_type: Some("application/octet-stream".into()),
        ..Request::new(Verb::Put)
    };
    let body = body.unwrap_or_default();
    let upload = Upload {
        length: Some(body.len() as u64),
        stream: Box::pin(futures_util::stream::iter((!body.is_empty()).then_some(Ok(body)))),
    };
    let uncounted = Arc::default();
    let answer = put(session, progress, location, request, upload, &uncounted).await?;
    let announced = answer.header("docker-content-digest");
    match announced.filter(|text| text.starts_with("sha256:") && digest.algorithm() == "sha256") {
        Some(found) if found != digest.as_str() => {
            let error = Error::WrongDigest {
                registry: session.endpoint.host.clone(),
                expected: digest.to_string(),
                found: found.to_owned(),
            };
            Err(error.into())
        }
        _ => Ok(()),
    }
}

/// A registry that took less than was sent says so in `Range`.
fn confirmed(session: &Session, answer: &Answer, offset: u64) -> Result<()> {
    match received(answer) {
        Some(received) if received != offset && received != 0 => Err(Error::Status {
            registry: session.endpoint.host.clone(),
            status: 416,
            what: "an upload".into(),
            message: format!("it has {received} of {offset} bytes"),
            retry_after: None,
        }),
        _ => Ok(()),
    }
}
