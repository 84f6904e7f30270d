//! HTTP: the only file that knows the HTTP crate. TLS with rustls and ring, set on our own client and never
//! as the process's default; redirects followed here, so that credentials stay with their host; bodies
//! bounded and idle connections cut.

use crate::config::{Endpoint, RegistryConfig};
use crate::error::{Error, Result};
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// Redirects followed before it is an error.
const MOST_REDIRECTS: usize = 10;
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(15);

/// One request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) accept: Vec<&'static str>,
    pub(crate) authorization: Option<String>,
    /// First byte wanted.
    pub(crate) from: Option<u64>,
    /// A form to post; GET without one.
    pub(crate) form: Option<Vec<(String, String)>>,
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response,
    idle: Duration,
    registry: String,
}

/// Makes requests.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    strict: reqwest::Client,
    lenient: reqwest::Client,
    idle: Duration,
    /// Hosts that turned out to speak plain http.
    plain: Arc<Mutex<Vec<String>>>,
}

impl Transport {
    pub(crate) fn new(config: &RegistryConfig) -> Result<Self> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Client { source };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = || {
            rustls::ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(|error| failed(error.into()))
        };
        let mut roots = rustls::RootCertStore::empty();
        // Certificates of the system that cannot be parsed are of no use to anyone else either.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for pem in &config.certificate_authorities {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| failed(error.to_string().into()))?;
                roots.add(certificate).map_err(|error| failed(error.into()))?;
            }
        }
        let strict = tls()?.with_root_certificates(roots).with_no_client_auth();
        let lenient = tls()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider.clone())))
            .with_no_client_auth();
        let mut proxies = Vec::new();
        // A proxy knows nothing of this machine's own addresses.
        let direct = format!(
            "{},localhost,127.0.0.0/8,::1",
            config.proxies.none.as_deref().unwrap_or_default()
        );
        let parts = [
            config.proxies.http.as_ref().map(reqwest::Proxy::http),
            config.proxies.https.as_ref().map(reqwest::Proxy::https),
        ];
        for proxy in parts.into_iter().flatten() {
            let proxy = proxy.map_err(|error| failed(error.into()))?;
            proxies.push(proxy.no_proxy(reqwest::NoProxy::from_string(&direct)));
        }
        let client = |tls: rustls::ClientConfig| {
            // Its own look at the environment is switched off.
            let mut builder = reqwest::Client::builder().no_proxy();
            for proxy in &proxies {
                builder = builder.proxy(proxy.clone());
            }
            builder
                .tls_backend_preconfigured(tls)
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT)
                .user_agent(concat!("rdock/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| failed(error.into()))
        };
        Ok(Self {
            strict: client(strict)?,
            lenient: client(lenient)?,
            idle: config.idle_timeout,
            plain: Arc::default(),
        })
    }

    /// Asks a registry for a path below `/v2/`.
    pub(crate) async fn registry(
        &self,
        endpoint: &Endpoint,
        path: &str,
        request: &Request,
    ) -> Result<Answer> {
        let url = |scheme: &str| {
            Url::parse(&format!("{scheme}://{}/v2/{path}", endpoint.host)).map_err(|error| Error::Malformed {
                registry: endpoint.host.clone(),
                what: "address",
                reason: error.to_string(),
            })
        };
        if !endpoint.insecure {
            return self.send(&endpoint.host, url("https")?, request, false).await;
        }
        let known = || {
            self.plain
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&endpoint.host)
        };
        if !known() {
            match self.send(&endpoint.host, url("https")?, request, true).await {
                // Nothing there speaks TLS. Plain http is what `insecure` allows.
                Err(Error::Transport { .. }) => {}
                other => return other,
            }
        }
        let answer = self.send(&endpoint.host, url("http")?, request, true).await?;
        if !known() {
            self.plain
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(endpoint.host.clone());
        }
        Ok(answer)
    }

    /// One request with its redirects. Authorization goes to the first origin alone.
    pub(crate) async fn send(
        &self,
        registry: &str,
        first: Url,
        request: &Request,
        insecure: bool,
    ) -> Result<Answer> {
        let client = if insecure { &self.lenient } else { &self.strict };
        let mut url = first.clone();
        for _ in 0..=MOST_REDIRECTS {
            let method = if request.form.is_some() {
                Method::POST
            } else {
                Method::GET
            };
            let mut builder = client
                .request(method, url.clone())
                .headers(headers(request, registry)?);
            if let Some(authorization) = request
                .authorization
                .as_ref()
                .filter(|_| same_origin(&url, &first))
            {
                let mut value = header(authorization, registry)?;
                value.set_sensitive(true);
                builder = builder.header(AUTHORIZATION, value);
            }
            if let Some(form) = &request.form {
                let body = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(form)
                    .finish();
                builder = builder
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(body);
            }
            let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Transport {
                registry: registry.to_owned(),
                what: url.path().to_owned(),
                source,
            };
            let response = match tokio::time::timeout(self.idle, builder.send()).await {
                Err(_) => return Err(failed(format!("no answer in {} s", self.idle.as_secs()).into())),
                Ok(response) => response.map_err(|error| failed(error.without_url().into()))?,
            };
            if !response.status().is_redirection() {
                return Ok(Answer {
                    response,
                    idle: self.idle,
                    registry: registry.to_owned(),
                });
            }
            let next = response
                .headers()
                .get(LOCATION)
                .and_then(|location| location.to_str().ok());
            let next = next
                .and_then(|location| url.join(location).ok())
                .ok_or_else(|| Error::Malformed {
                    registry: registry.to_owned(),
                    what: "redirect",
                    reason: "no usable Location".into(),
                })?;
            if url.scheme() == "https" && next.scheme() != "https" && !insecure {
                return Err(Error::Malformed {
                    registry: registry.to_owned(),
                    what: "redirect",
                    reason: format!("from https to {}", next.scheme()),
                });
            }
            // A form holds a refresh token: it stays with its host, as Authorization does.
            if request.form.is_some() && !same_origin(&next, &first) {
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
}

fn same_origin(a: &Url, b: &Url) -> bool {
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
    Ok(headers)
}

impl Answer {
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
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let when = httpdate::parse_http_date(text).ok()?;
        Some(
            when.duration_since(std::time::SystemTime::now())
                .unwrap_or_default(),
        )
    }

    /// The next part of the body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Transport {
            registry: self.registry.clone(),
            what: "the rest of an answer".into(),
            source,
        };
        match tokio::time::timeout(self.idle, self.response.chunk()).await {
            Err(_) => Err(failed(
                format!("nothing came in {} s", self.idle.as_secs()).into(),
            )),
            Ok(chunk) => chunk.map_err(|error| failed(error.without_url().into())),
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

/// For registries that are marked insecure: any certificate will do, signatures are still checked.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
