//! A registry inside this process (cargo feature `server`): the OCI distribution specification 1.1 over a directory,
//! with passwords, tokens and TLS, that misbehaves on demand.
//!
//! It is for tests, and for sharing images on a machine or a trusted network. Scripts and [`FaultRule`]s make it
//! answer as no registry should, so that clients can be tested against it.

mod access;
mod api;
mod range;
mod reply;
mod storage;

pub use access::Access;
pub use reply::{Barrier, Fault, FaultRule, Reply, Seen, Step};

use crate::error::{Error, Result};
use access::Gate;
use api::Api;
use bytes::Bytes;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rdock_image::Digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use storage::{Storage, StoredManifest};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Bytes of a form that are kept.
const LARGEST_FORM: usize = 64 << 10;
/// How long a connection may be idle between requests, and how long it may take to send a request's headers.
const IDLE: Duration = Duration::from_secs(60);
/// How long a refused client may take to hang up.
const LINGER: Duration = Duration::from_secs(5);
/// Requests that are remembered.
const MOST_SEEN: usize = 10_000;
/// Bytes of what is remembered of them.
const MOST_REMEMBERED: usize = 64 << 20;

/// Answers a request in place of the server, or leaves it to the server.
type Script = dyn Fn(&Seen) -> Option<Reply> + Send + Sync;

/// How a server is started.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Where to listen; a free port of 127.0.0.1 by default.
    pub listen: SocketAddr,
    /// The directory that images are kept in; made where it does not exist.
    pub root: PathBuf,
    /// Who may use it; everyone by default.
    pub access: Access,
    /// Nothing can be pushed or deleted.
    pub read_only: bool,
    /// Certificate chain and key in PEM; plain HTTP by default.
    pub tls: Option<(Vec<u8>, Vec<u8>)>,
    /// The authorities in PEM that must have signed the certificate of every client; counts with TLS alone. Clients
    /// need none by default.
    pub client_authorities: Option<Vec<u8>>,
    /// How it misbehaves. The first rule that applies to a request counts.
    pub faults: Vec<FaultRule>,
    script: Option<Arc<Script>>,
}

impl ServerOptions {
    /// A server over this directory, on a free port of 127.0.0.1.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            root: root.into(),
            access: Access::Open,
            read_only: false,
            tls: None,
            client_authorities: None,
            faults: Vec::new(),
            script: None,
        }
    }

    /// Sees each request first, and may answer it.
    #[must_use]
    pub fn script(mut self, script: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> Self {
        self.script = Some(Arc::new(script));
        self
    }

    /// Adds a rule of misbehaviour.
    #[must_use]
    pub fn fault(mut self, rule: FaultRule) -> Self {
        self.faults.push(rule);
        self
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("listen", &self.listen)
            .field("root", &self.root)
            .field("access", &self.access)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

/// A running registry, on threads of its own; it ends with this value.
pub struct RegistryServer {
    address: SocketAddr,
    state: Arc<State>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl fmt::Debug for RegistryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

struct State {
    api: Api,
    faults: Mutex<Vec<FaultRule>>,
    script: Option<Arc<Script>>,
    seen: Mutex<Log>,
}

/// The latest requests.
#[derive(Default)]
struct Log {
    seen: Vec<Seen>,
    bytes: usize,
}

impl Log {
    fn push(&mut self, seen: Seen) {
        self.bytes += seen.bytes();
        self.seen.push(seen);
        // The older half goes, so that this is done seldom.
        while self.seen.len() > MOST_SEEN || (self.bytes > MOST_REMEMBERED && self.seen.len() > 1) {
            self.seen.drain(..self.seen.len() / 2);
            self.bytes = self.seen.iter().map(Seen::bytes).sum();
        }
    }
}

impl RegistryServer {
    /// Starts a server. It listens when this returns.
    ///
    /// # Errors
    /// [`Error::Serve`] for a directory that cannot be used, an address that is taken, or a bad certificate.
    pub fn start(options: ServerOptions) -> Result<Self> {
        let failed = |what: String| {
            move |source: io::Error| Error::Serve {
                what,
                source: source.into(),
            }
        };
        let storage = Storage::open(&options.root).map_err(failed(options.root.display().to_string()))?;
        let clients = options.client_authorities.as_deref();
        let tls = options.tls.as_ref();
        let tls = tls.map(|own| acceptor(own, clients)).transpose()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("rdock-registry")
            .enable_all()
            .build()
            .map_err(failed("a runtime".to_owned()))?;
        // Without waiting on the runtime: the caller may be inside another one.
        let listener = {
            let _inside = runtime.enter();
            std::net::TcpListener::bind(options.listen)
                .and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    tokio::net::TcpListener::from_std(listener)
                })
                .map_err(failed(options.listen.to_string()))?
        };
        let address = listener
            .local_addr()
            .map_err(failed(options.listen.to_string()))?;
        let state = Arc::new(State {
            api: Api::new(
                storage,
                Gate::new(options.access, options.tls.is_some()),
                options.read_only,
            ),
            faults: Mutex::new(options.faults),
            script: options.script,
            seen: Mutex::default(),
        });
        runtime.spawn(accept(listener, state.clone(), tls));
        Ok(Self {
            address,
            state,
            runtime: Some(runtime),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as references have it: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The requests so far, the latest 10,000 of them; fewer where they are large.
    pub fn seen(&self) -> Vec<Seen> {
        let log = self.state.seen.lock().unwrap_or_else(PoisonError::into_inner);
        log.seen.clone()
    }

    /// The requests for a blob.
    pub fn seen_of(&self, digest: &impl ToString) -> Vec<Seen> {
        self.seen()
            .into_iter()
            .filter(|seen| seen.is_blob(digest))
            .collect()
    }

    /// From now on it misbehaves in these ways.
    pub fn set_faults(&self, faults: Vec<FaultRule>) {
        *self.state.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// Forgets all access tokens, as if their time was up.
    pub fn expire_tokens(&self) {
        self.state.api.gate.expire();
    }

    /// Adds a blob to a repository, as a push would.
    ///
    /// # Errors
    /// [`Error::Serve`] when it cannot be written.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Result<Digest> {
        self.written(repository, self.state.api.storage.add(repository, bytes))
    }

    /// Adds a manifest to a repository, as a push would; what it names is not looked for.
    ///
    /// # Errors
    /// [`Error::Serve`] when it cannot be written.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest> {
        let manifest = StoredManifest {
            digest: Digest::sha256_of(bytes),
            media_type: media_type.to_owned(),
            bytes: bytes.to_vec(),
        };
        let written = self
            .state
            .api
            .storage
            .put_manifest(repository, Some(tag), &manifest);
        self.written(repository, written.map(|()| manifest.digest))
    }

    /// The bytes of a blob or a manifest that the repository has.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
        let storage = &self.state.api.storage;
        match storage.find(repository, digest) {
            Some((path, _)) => std::fs::read(path).ok(),
            None => Some(storage.manifest(repository, digest.as_str())?.bytes),
        }
    }

    /// The digest that a tag leads to.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        Some(self.state.api.storage.manifest(repository, tag)?.digest)
    }

    fn written(&self, repository: &str, result: io::Result<Digest>) -> Result<Digest> {
        result.map_err(|source| Error::Serve {
            what: format!("the repository {repository}"),
            source: source.into(),
        })
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn acceptor((chain, key): &(Vec<u8>, Vec<u8>), clients: Option<&[u8]>) -> Result<tokio_rustls::TlsAcceptor> {
    let failed = |reason: String| Error::Serve {
        what: "TLS".to_owned(),
        source: reason.into(),
    };
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| failed(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?;
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| failed(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| failed(error.to_string()))?;
            config.with_client_cert_verifier(verifier)
        }
    };
    let config = config
        .with_single_cert(chain, key)
        .map_err(|error| failed(error.to_string()))?;
    Ok(Arc::new(config).into())
}

async fn accept(
    listener: tokio::net::TcpListener,
    state: Arc<State>,
    tls: Option<tokio_rustls::TlsAcceptor>,
) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Too many descriptors, say: that passes when connections end.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (state, tls) = (state.clone(), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => connection(stream, state).await,
                Some(tls) => {
                    let accepted = tls.accept(stream).into_fallible();
                    match tokio::time::timeout(IDLE, accepted).await {
                        Ok(Ok(stream)) => connection(stream, state).await,
                        // A connection closed with something unread is reset, and the client would not see why.
                        Ok(Err((_, mut stream))) => {
                            stream.shutdown().await.ok();
                            let mut nowhere = tokio::io::sink();
                            let rest = tokio::io::copy(&mut stream, &mut nowhere);
                            tokio::time::timeout(LINGER, rest).await.ok();
                        }
                        Err(_) => {}
                    }
                }
            }
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>) {
    let service = service_fn(|request| {
        let state = state.clone();
        async move { state.serve(request).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    // A connection that a client or a fault breaks has nobody left to tell.
    connection.await.ok();
}

impl State {
    async fn serve(
        &self,
        request: hyper::Request<Incoming>,
    ) -> Result<hyper::Response<UnsyncBoxBody<Bytes, io::Error>>, io::Error> {
        let (parts, body) = request.into_parts();
        let header = |name| {
            let value = parts.headers.get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned)
        };
        let mut seen = Seen {
            method: parts.method.to_string(),
            host: header("host").unwrap_or_default(),
            path: parts
                .uri
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
            authorization: header("authorization"),
            range: header("range"),
            content_range: header("content-range"),
            content_type: header("content-type"),
            headers: parts
                .headers
                .iter()
                .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
                .collect(),
            ..Seen::default()
        };
        let mut body = Some(body);
        if seen.content_type.as_deref() == Some("application/x-www-form-urlencoded")
            && let Some(form) = body.take()
        {
            let form = http_body_util::Limited::new(form, LARGEST_FORM).collect().await;
            let form = form.map(|form| form.to_bytes()).unwrap_or_default();
            seen.body = String::from_utf8_lossy(&form).into_owned();
        }
        {
            let mut log = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let same = |one: &&Seen| one.path == seen.path && one.method == seen.method;
            seen.before = log.seen.iter().filter(same).count();
            log.push(seen.clone());
        }
        if let Some(reply) = self.script.as_ref().and_then(|script| script(&seen)) {
            return Ok(reply.into_response());
        }
        let fault = {
            let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
            let rule = faults.iter().find(|rule| rule.applies(&seen));
            rule.map(|rule| rule.fault.clone())
        };
        if let Some(Fault::Silent(time)) = fault {
            tokio::time::sleep(time).await;
            return Err(io::Error::other("cut"));
        }
        if let Some(reply) = fault.as_ref().and_then(|fault| fault.instead(&seen)) {
            return Ok(reply.into_response());
        }
        let mut asked = seen.clone();
        let mut cut = None;
        match &fault {
            Some(Fault::IgnoreRange) => asked.range = None,
            Some(Fault::LoseUpload) => self.api.lose(&seen),
            Some(Fault::CutUpload(after)) => cut = Some(*after),
            _ => {}
        }
        let reply = match body {
            Some(body) => self.api.answer(&asked, body, cut).await,
            None if seen.path.split('?').next() == Some("/token") => Some(self.api.gate.token(&seen)),
            None => Some(Reply::error(415, "UNSUPPORTED", "a form")),
        };
        // An error ends the connection without an answer.
        let reply = reply.ok_or_else(|| io::Error::other("cut"))?;
        let reply = match &fault {
            Some(fault) => fault.spoil(reply)?,
            None => reply,
        };
        Ok(reply.into_response())
    }
}

/// A name that nobody guesses: 128 random bits in hexadecimal digits.
fn random() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
