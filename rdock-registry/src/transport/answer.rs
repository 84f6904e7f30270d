//! An answer: its headers, and its body piece by piece.

use super::encoding::Decoder;
use crate::error::{Error, Result};
use crate::protocol::{decimal, media_type};
use bytes::Bytes;
use reqwest::header::HeaderName;
use reqwest::{Response, StatusCode};
use std::time::{Duration, Instant};
use url::Url;

/// A body that brings less than this in a whole idle timeout is given up: a byte now and then is no progress.
const SLOWEST: u64 = 1 << 10;

/// An answer whose body has not been read.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response,
    idle: Duration,
    registry: String,
    url: Url,
    decoder: Option<Decoder>,
    window: Window,
}

/// What came since when.
#[derive(Debug)]
struct Window {
    since: Instant,
    bytes: u64,
}

impl Window {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            bytes: 0,
        }
    }
}

impl Answer {
    pub(super) fn new(response: Response, idle: Duration, registry: &str, url: Url) -> Self {
        Self {
            response,
            idle,
            registry: registry.to_owned(),
            url,
            decoder: None,
            window: Window::new(),
        }
    }

    /// Where the answer came from, after redirects.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn is_success(&self) -> bool {
        self.response.status().is_success()
    }

    pub(crate) fn is_partial(&self) -> bool {
        self.response.status() == StatusCode::PARTIAL_CONTENT
    }

    /// A header as text; `None` when it is missing or not text.
    pub(crate) fn header(&self, name: &'static str) -> Option<&str> {
        self.response
            .headers()
            .get(HeaderName::from_static(name))?
            .to_str()
            .ok()
    }

    /// Every value of a header.
    pub(crate) fn headers(&self, name: &'static str) -> Vec<String> {
        let values = self.response.headers().get_all(HeaderName::from_static(name));
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(str::to_owned)
            .collect()
    }

    /// `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3).
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        if let Some(seconds) = decimal(text) {
            return Some(Duration::from_secs(seconds));
        }
        let when = httpdate::parse_http_date(text).ok()?;
        Some(
            when.duration_since(std::time::SystemTime::now())
                .unwrap_or_default(),
        )
    }

    /// The media type of the body.
    pub(crate) fn media_type(&self) -> Option<String> {
        media_type(self.header("content-type")?)
    }

    /// Whether the body is encoded on its way, so that positions in it are not those in the content.
    pub(crate) fn is_encoded(&self) -> bool {
        self.header("content-encoding")
            .is_some_and(|text| Decoder::codings(text).next().is_some())
    }

    /// The next part of the body; `None` at its end. A `Content-Encoding`, though none is asked for, is undone.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        if self.decoder.is_none() && self.is_encoded() {
            let codings = self.header("content-encoding").unwrap_or_default().to_owned();
            self.decoder = Some(Decoder::new(&codings).map_err(|reason| self.malformed(reason))?);
        }
        loop {
            if let Some(decoder) = &mut self.decoder {
                match decoder.next() {
                    Ok(Some(bytes)) => return Ok(Some(bytes)),
                    Ok(None) => {}
                    Err(reason) => return Err(self.malformed(reason)),
                }
            }
            let part = self.raw_chunk().await?;
            let Some(decoder) = &mut self.decoder else {
                return Ok(part);
            };
            match part {
                Some(part) => decoder.feed(part),
                None => {
                    return match decoder.finish() {
                        Ok(rest) => Ok(rest),
                        Err(reason) => Err(self.malformed(reason)),
                    };
                }
            }
        }
    }

    async fn raw_chunk(&mut self) -> Result<Option<Bytes>> {
        let failed = |registry: &str, source| Error::connection(registry, "the rest of an answer", source);
        let slow = |bytes: u64| {
            let text = format!("{bytes} bytes came in {} s", self.idle.as_secs_f32());
            std::io::Error::new(std::io::ErrorKind::TimedOut, text).into()
        };
        let chunk = match tokio::time::timeout(self.idle, self.response.chunk()).await {
            Err(_) => return Err(failed(&self.registry, slow(0))),
            Ok(chunk) => chunk.map_err(|error| failed(&self.registry, error.without_url().into()))?,
        };
        self.window.bytes += chunk.as_ref().map_or(0, Bytes::len) as u64;
        if self.window.since.elapsed() >= self.idle {
            if chunk.is_some() && self.window.bytes < SLOWEST {
                return Err(failed(&self.registry, slow(self.window.bytes)));
            }
            self.window = Window::new();
        }
        Ok(chunk)
    }

    fn malformed(&self, reason: String) -> Error {
        Error::Malformed {
            registry: self.registry.clone(),
            what: "Content-Encoding",
            reason,
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond `limit` bytes, whatever the headers say.
    pub(crate) async fn body(mut self, what: &'static str, limit: u64) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(Error::TooLarge {
                    registry: self.registry,
                    what,
                    limit,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}
