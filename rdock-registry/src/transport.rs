//! HTTP: with its parts the only place that knows the HTTP crate. TLS is in `tls`; redirects are followed
//! here, so that credentials stay with their host; bodies are bounded and idle connections cut.

mod answer;
mod encoding;
mod tls;

pub(crate) use answer::Answer;

use crate::config::{Endpoint, HostCertificates, RegistryConfig};
use crate::error::{Error, Result};
use crate::protocol::{Schemes, redacted};
use bytes::Bytes;
use futures_util::Stream;
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tls::Clients;
use url::Url;

/// Redirects followed before it is an error.
const MOST_REDIRECTS: usize = 10;
/// A registry may take this many times the idle timeout to answer an upload: it hashes and stores meanwhile.
const PATIENCE: u32 = 5;

/// What is done to a resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Verb {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

impl From<Verb> for Method {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Get => Self::GET,
            Verb::Head => Self::HEAD,
            Verb::Post => Self::POST,
            Verb::Put => Self::PUT,
            Verb::Patch => Self::PATCH,
            Verb::Delete => Self::DELETE,
        }
    }
}

/// One request.
#[derive(Clone, Default)]
pub(crate) struct Request {
    pub(crate) verb: Verb,
    pub(crate) accept: Vec<&'static str>,
    pub(crate) authorization: Option<String>,
    /// First byte wanted.
    pub(crate) from: Option<u64>,
    /// Media type of the body.
    pub(crate) content_type: Option<String>,
    /// `Content-Range` of an uploaded chunk.
    pub(crate) content_range: Option<String>,
    /// Sent again after a redirect and in another attempt.
    pub(crate) body: Option<Bytes>,
    /// The body holds a secret, which stays with its host.
    pub(crate) secret: bool,
}

impl Request {
    pub(crate) fn new(verb: Verb) -> Self {
        Self {
            verb,
            ..Self::default()
        }
    }

    /// A POST of a form that holds a secret.
    pub(crate) fn form(fields: &[(&str, &str)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        Self {
            verb: Verb::Post,
            content_type: Some("application/x-www-form-urlencoded".into()),
            body: Some(body.into()),
            secret: true,
            ..Self::default()
        }
    }
}

/// Who is asked, and what counts for it alone.
#[derive(Clone, Copy)]
pub(crate) struct Peer<'a> {
    /// In errors.
    pub(crate) name: &'a str,
    /// Plain http and unknown certificates are fine.
    pub(crate) insecure: bool,
    /// In place of those in `certs.d`.
    pub(crate) certificates: Option<&'a Arc<HostCertificates>>,
    pub(crate) headers: &'a [(String, String)],
}

impl<'a> Peer<'a> {
    /// A registry.
    pub(crate) fn of(endpoint: &'a Endpoint) -> Self {
        let options = endpoint.options.as_ref();
        Self {
            name: &endpoint.host,
            insecure: endpoint.insecure,
            certificates: options.and_then(|options| options.certificates.as_ref()),
            headers: options.map_or(&[], |options| &options.headers),
        }
    }

    /// Another host that a registry names: nothing of what is allowed to the registry.
    pub(crate) fn stranger(endpoint: &'a Endpoint) -> Self {
        Self {
            name: &endpoint.host,
            insecure: false,
            certificates: None,
            headers: &[],
        }
    }
}

/// A body that is sent as it is made.
pub(crate) struct Upload {
    pub(crate) stream: Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>,
    /// In bytes, where it is known before.
    pub(crate) length: Option<u64>,
}

/// Makes requests.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    clients: Arc<Clients>,
    idle: Duration,
    /// Of hosts that may speak either: whether they speak plain http.
    plain: Arc<Mutex<BTreeMap<String, bool>>>,
}

impl Transport {
    pub(crate) fn new(config: &RegistryConfig) -> Result<Self> {
        Ok(Self {
            clients: Arc::new(Clients::new(config)?),
            idle: config.idle_timeout,
            plain: Arc::default(),
        })
    }

    fn known(&self, host: &str) -> Option<bool> {
        self.plain
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(host)
            .copied()
    }

    fn learn(&self, host: &str, plain: bool) {
        self.plain
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(host.to_owned(), plain);
    }

    /// The address of a path below `/v2/`, with the scheme that the host was found to speak.
    pub(crate) fn address(&self, endpoint: &Endpoint, path: &str) -> Result<Url> {
        let plain = match endpoint.schemes() {
            Schemes::Https => false,
            Schemes::Http => true,
            Schemes::HttpsThenHttp => self.known(&endpoint.host).unwrap_or(false),
        };
        address(endpoint, if plain { "http" } else { "https" }, path)
    }

    /// Asks a registry for a path below `/v2/`.
    pub(crate) async fn registry(
        &self,
        endpoint: &Endpoint,
        path: &str,
        request: &Request,
    ) -> Result<Answer> {
        let host = &endpoint.host;
        let undecided = endpoint.schemes() == Schemes::HttpsThenHttp && self.known(host).is_none();
        let url = self.address(endpoint, path)?;
        let peer = Peer::of(endpoint);
        let answer = self.send(&peer, url, request).await;
        if !undecided {
            return answer;
        }
        match answer {
            // Nothing there speaks TLS. Plain http is what `insecure` allows.
            Err(Error::Transport { .. }) => {}
            answer => {
                if answer.is_ok() {
                    self.learn(host, false);
                }
                return answer;
            }
        }
        let peer = Peer {
            insecure: true,
            ..peer
        };
        let answer = self
            .send(&peer, address(endpoint, "http", path)?, request)
            .await?;
        self.learn(host, true);
        Ok(answer)
    }

    /// One request with its redirects. Authorization goes to the first origin alone.
    pub(crate) async fn send(&self, peer: &Peer<'_>, first: Url, request: &Request) -> Result<Answer> {
        let registry = peer.name;
        let mut url = first.clone();
        for _ in 0..=MOST_REDIRECTS {
            let mut builder = self.builder(peer, &url, &first, request)?;
            if let Some(body) = &request.body {
                builder = builder.body(body.clone());
            }
            let failed = |source| Error::connection(registry, url.path(), source);
            let response = match tokio::time::timeout(self.idle, builder.send()).await {
                Err(_) => return Err(failed(silence(self.idle))),
                Ok(response) => response.map_err(|error| failed(error.without_url().into()))?,
            };
            if !response.status().is_redirection() || response.headers().get(LOCATION).is_none() {
                return Ok(Answer::new(response, self.idle, registry, url));
            }
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|location| location.to_str().ok());
            let malformed = |reason: String| Error::Malformed {
                registry: registry.to_owned(),
                what: "redirect",
                reason,
            };
            let next = location
                .and_then(|location| url.join(location).ok())
                .ok_or_else(|| malformed("no usable Location".into()))?;
            let plain = url.scheme() == "https" && next.scheme() != "https" && !peer.insecure;
            if plain || !matches!(next.scheme(), "http" | "https") {
                let shown = redacted(next.as_str());
                return Err(malformed(format!("from https to {shown}")));
            }
            // A form holds a refresh token: it stays with its host, as Authorization does.
            if request.secret && !same_origin(&next, &first) {
                return Err(Error::UnsafeRealm {
                    registry: registry.to_owned(),
                    target: next.origin().ascii_serialization(),
                    reason: "a redirect to another host",
                });
            }
            url = next;
        }
        Err(Error::Malformed {
            registry: registry.to_owned(),
            what: "redirect",
            reason: format!("more than {MOST_REDIRECTS} in a row"),
        })
    }

    /// Sends a body that cannot be sent twice; a redirect is the answer then. Authorization goes to the registry's own
    /// address alone. How far it got is counted in `sent`.
    pub(crate) async fn upload(
        &self,
        endpoint: &Endpoint,
        url: Url,
        request: &Request,
        upload: Upload,
        sent: &Arc<AtomicU64>,
    ) -> Result<Answer> {
        let registry = endpoint.host.as_str();
        let own = self.address(endpoint, "")?;
        let mut builder = self.builder(&Peer::of(endpoint), &url, &own, request)?;
        if let Some(length) = upload.length {
            builder = builder.header("content-length", length);
        }
        let began = Instant::now();
        // When the connection last took something, in milliseconds since the beginning; the highest value when
        // it has all.
        let taken = Arc::new(AtomicU64::new(0));
        let (progress, counter) = (taken.clone(), sent.clone());
        let stream = futures_util::stream::unfold(Some(upload.stream), move |stream| {
            let (progress, counter) = (progress.clone(), counter.clone());
            async move {
                let mut stream = stream?;
                let part = std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await;
                match part {
                    None => {
                        progress.store(u64::MAX, Ordering::Release);
                        None
                    }
                    Some(part) => {
                        progress.store(began.elapsed().as_millis() as u64, Ordering::Release);
                        counter.fetch_add(part.as_ref().map_or(0, Bytes::len) as u64, Ordering::AcqRel);
                        Some((part.map_err(std::io::Error::other), Some(stream)))
                    }
                }
            }
        });
        let failed = |source| Error::connection(registry, "an upload", source);
        let mut answer = Box::pin(builder.body(reqwest::Body::wrap_stream(stream)).send());
        let mut all_since: Option<Instant> = None;
        loop {
            let left = match taken.load(Ordering::Acquire) {
                u64::MAX => {
                    let since = *all_since.get_or_insert_with(Instant::now);
                    (self.idle * PATIENCE).saturating_sub(since.elapsed())
                }
                at => (Duration::from_millis(at) + self.idle).saturating_sub(began.elapsed()),
            };
            if left.is_zero() {
                return Err(failed(silence(self.idle)));
            }
            // Looked at again when the time is up, since parts may have gone out meanwhile.
            if let Ok(response) = tokio::time::timeout(left, &mut answer).await {
                let response = response.map_err(|error| failed(error.without_url().into()))?;
                return Ok(Answer::new(response, self.idle, registry, url));
            }
        }
    }

    fn builder(
        &self,
        peer: &Peer<'_>,
        url: &Url,
        origin: &Url,
        request: &Request,
    ) -> Result<reqwest::RequestBuilder> {
        let registry = peer.name;
        // What is allowed to a registry is not allowed to whoever it sends us to.
        let own_host = url.host() == origin.host();
        let certificates = peer.certificates.filter(|_| own_host);
        let client = self
            .clients
            .for_host(url, peer.insecure && own_host, certificates)?;
        let mut builder = client.request(request.verb.into(), url.clone());
        if !same_origin(url, origin) {
            return Ok(builder.headers(headers(request, registry)?));
        }
        for (name, value) in peer.headers {
            let malformed = |_| Error::Malformed {
                registry: registry.to_owned(),
                what: "header of hosts.toml",
                reason: format!("{name:?} is no name"),
            };
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(malformed)?;
            let mut value = header(value, registry)?;
            value.set_sensitive(true);
            // What a login says comes before what the file says.
            if name != AUTHORIZATION || request.authorization.is_none() {
                builder = builder.header(name, value);
            }
        }
        builder = builder.headers(headers(request, registry)?);
        if let Some(authorization) = &request.authorization {
            let mut value = header(authorization, registry)?;
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        Ok(builder)
    }
}

fn address(endpoint: &Endpoint, scheme: &str, path: &str) -> Result<Url> {
    let options = endpoint.options.as_ref();
    let root = match options.map_or("v2", |options| &options.root) {
        "" => String::new(),
        root => format!("{root}/"),
    };
    let text = format!("{scheme}://{}/{root}{path}", endpoint.host);
    let mut url = Url::parse(&text).map_err(|error| Error::Malformed {
        registry: endpoint.host.clone(),
        what: "address",
        reason: error.to_string(),
    })?;
    if let Some(namespace) = options.and_then(|options| options.namespace.as_ref())
        && !url.query_pairs().any(|(name, _)| name == "ns")
    {
        url.query_pairs_mut().append_pair("ns", namespace);
    }
    Ok(url)
}

fn silence(idle: Duration) -> Box<dyn std::error::Error + Send + Sync> {
    std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("no answer in {} s", idle.as_secs_f32()),
    )
    .into()
}

pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

fn header(text: &str, registry: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| Error::Malformed {
        registry: registry.to_owned(),
        what: "header",
        reason: "credentials with characters that no header may hold".into(),
    })
}

fn headers(request: &Request, registry: &str) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    if !request.accept.is_empty() {
        headers.insert(ACCEPT, header(&request.accept.join(", "), registry)?);
    }
    if let Some(from) = request.from {
        headers.insert(RANGE, header(&format!("bytes={from}-"), registry)?);
    }
    // Content is hashed as it is stored.
    headers.insert("accept-encoding", HeaderValue::from_static("identity"));
    if let Some(kind) = &request.content_type {
        headers.insert("content-type", header(kind, registry)?);
    }
    if let Some(range) = &request.content_range {
        headers.insert("content-range", header(range, registry)?);
    }
    Ok(headers)
}
