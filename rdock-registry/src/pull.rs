//! A pull: name to manifest, manifest to config and layers, layers in parallel into the store.

mod blob;

use crate::auth::Authorization;
use crate::client::is_transient;
use crate::config::{Endpoint, RegistryConfig};
use crate::error::{Error, Result};
use crate::transport::{Answer, Request, Transport};
use oci_distribution::errors::OciEnvelope;
use rdock_image::{
    Descriptor, Digest, Event, Image, ImageConfig, ImageStore, Manifest, ManifestDocument, Platform,
    Progress, Reference, manifest::media_type,
};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a manifest, an index or a config.
const LARGEST_DOCUMENT: u64 = 4 << 20;
/// Bytes of an error that are read.
const LARGEST_ERROR: u64 = 64 << 10;
/// The first pause before another attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A registry may ask for longer pauses than this; then it is an error.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// So few pulls left are worth a warning.
const FEW_PULLS: u64 = 10;

const MANIFESTS: [&str; 4] = [
    media_type::OCI_INDEX,
    media_type::DOCKER_LIST,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_MANIFEST,
];

/// Everything about one place that is asked for one image.
pub(crate) struct Session {
    pub(crate) transport: Transport,
    pub(crate) endpoint: Endpoint,
    pub(crate) authorization: Authorization,
    pub(crate) retries: u32,
    pub(crate) progress: Progress,
}

pub(crate) async fn pull(
    config: &RegistryConfig,
    transport: &Transport,
    reference: &Reference,
    platform: &Platform,
    store: &ImageStore,
    progress: &Progress,
) -> Result<Image> {
    progress.emit(Event::Resolving {
        reference: reference.clone(),
    });
    let mut last = None;
    for endpoint in config.registries.endpoints(reference)? {
        // A mirror has credentials of its own: those of the host that is asked.
        let own = endpoint.host == "registry-1.docker.io" || endpoint.host == reference.domain();
        let registry = if own {
            reference.domain()
        } else {
            endpoint.host.as_str()
        };
        let (credentials, registry) = (config.credentials.clone(), registry.to_owned());
        // A helper is a program: it may take its time.
        let found = tokio::task::spawn_blocking(move || credentials.find(&registry)).await;
        let (credential, warning) = found.map_err(|error| Error::Client { source: error.into() })?;
        if let Some(warning) = &warning {
            progress.emit(Event::Warning {
                text: warning.clone(),
            });
        }
        let session = Arc::new(Session {
            transport: transport.clone(),
            endpoint,
            authorization: Authorization::new(credential),
            retries: config.retries,
            progress: progress.clone(),
        });
        match session
            .pull(reference, platform, store, config.parallel_layers.max(1))
            .await
        {
            Ok(image) => return Ok(image),
            Err(error) if error.is_about_the_endpoint() => {
                let error = match (warning, error) {
                    (
                        Some(warning),
                        Error::Denied {
                            registry,
                            what,
                            reason,
                        },
                    ) => Error::Denied {
                        registry,
                        what,
                        reason: format!("{reason} ({warning})"),
                    },
                    (_, error) => error,
                };
                // What a mirror does not have says less than what the registry itself says, unless the
                // registry cannot be reached.
                last = match (last, error) {
                    (Some(earlier), Error::Transport { .. }) => Some(earlier),
                    (_, error) => Some(error),
                };
            }
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::NotFound {
        reference: reference.familiar(),
        registry: reference.domain().into(),
    }))
}

impl Session {
    async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        platform: &Platform,
        store: &ImageStore,
        parallel: usize,
    ) -> Result<Image> {
        let lease = Arc::new(store.lease()?);
        let wanted = match reference.digest() {
            Some(digest) => digest.to_string(),
            None => reference.tag().unwrap_or("latest").to_owned(),
        };
        let (digest, manifest, bytes) = self.manifest(reference, platform, &wanted).await?;
        self.progress.emit(Event::Resolved {
            reference: reference.clone(),
            digest: digest.clone(),
            layers: manifest.layers.clone(),
        });
        let config_digest = manifest.config.digest()?;
        let config_bytes = self.small_blob(&manifest.config, &config_digest).await?;
        let config = ImageConfig::parse(&config_bytes)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(self.malformed(
                "manifest",
                format!(
                    "{} layers, but {} diffIDs",
                    manifest.layers.len(),
                    config.rootfs.diff_ids.len()
                ),
            ));
        }
        let work: Vec<_> = manifest
            .layers
            .iter()
            .cloned()
            .zip(config.rootfs.diff_ids.iter().cloned())
            .collect();
        self.layers(work, store, &lease, parallel, reference).await?;
        let (store, reference, progress) = (store.clone(), reference.clone(), self.progress.clone());
        blocking(move || {
            store.write_blob(&lease, &config_bytes, &config_digest)?;
            store.write_blob(&lease, &bytes, &digest)?;
            let image = store.commit(&lease, &reference, &digest)?;
            progress.emit(Event::Done { reference, digest });
            Ok(image)
        })
        .await
    }

    /// The manifest of the platform, through an index if there is one.
    async fn manifest(
        &self,
        reference: &Reference,
        platform: &Platform,
        wanted: &str,
    ) -> Result<(Digest, Manifest, Vec<u8>)> {
        let (digest, document, bytes) = self.document(reference, wanted).await?;
        let index = match document {
            ManifestDocument::Manifest(manifest) => return Ok((digest, manifest, bytes)),
            ManifestDocument::Index(index) => index,
        };
        let Some(chosen) = index.select(platform) else {
            let available: Vec<_> = index
                .manifests
                .iter()
                .filter_map(|one| one.platform.as_ref())
                .map(ToString::to_string)
                .collect();
            return Err(Error::NoSuchPlatform {
                reference: reference.familiar(),
                platform: platform.to_string(),
                available: available.join(", "),
            });
        };
        match self.document(reference, chosen.digest()?.as_str()).await? {
            (digest, ManifestDocument::Manifest(manifest), bytes) => Ok((digest, manifest, bytes)),
            _ => Err(self.malformed("index", "an index in an index".into())),
        }
    }

    async fn document(
        &self,
        reference: &Reference,
        wanted: &str,
    ) -> Result<(Digest, ManifestDocument, Vec<u8>)> {
        let path = format!("{}/manifests/{wanted}", self.endpoint.repository);
        let request = Request {
            accept: MANIFESTS.to_vec(),
            ..Request::default()
        };
        let what = format!("the manifest of {}", reference.familiar());
        let (bytes, content_type, announced) = self
            .retrying(&what, async || {
                let answer = self.get(&path, &request, &what, Some(reference)).await?;
                self.remarks(&answer);
                let text = |name| answer.header(name).map(str::to_owned);
                let (content_type, announced) = (text("content-type"), text("docker-content-digest"));
                Ok((
                    answer.body("the manifest", LARGEST_DOCUMENT).await?,
                    content_type,
                    announced,
                ))
            })
            .await?;
        let found = Digest::sha256_of(&bytes);
        // What was asked for by digest must have it (no tag has a colon), and so must what is announced with
        // one. An announcement by another algorithm says nothing; a wanted digest of one is never met.
        let asked = Some(wanted).filter(|wanted| wanted.contains(':'));
        for expected in [
            asked,
            announced.as_deref().filter(|text| text.starts_with("sha256:")),
        ] {
            if let Some(expected) = expected.filter(|expected| *expected != found.as_str()) {
                return Err(Error::WrongDigest {
                    registry: self.endpoint.host.clone(),
                    expected: expected.to_owned(),
                    found: found.to_string(),
                });
            }
        }
        let content_type = content_type
            .as_deref()
            .and_then(|text| text.split(';').next())
            .map(str::trim);
        let document = ManifestDocument::parse(&bytes, content_type)?;
        Ok((found, document, bytes))
    }

    /// What a registry says beside its answer: warnings (RFC 7234, code 299), and a pull limit that is nearly
    /// used up.
    fn remarks(&self, answer: &Answer) {
        let host = &self.endpoint.host;
        for warning in answer.headers("warning") {
            if let Some(text) = warning.strip_prefix("299 ") {
                let text = text
                    .split_once('"')
                    .and_then(|(_, rest)| rest.rsplit_once('"'))
                    .map_or(text, |(text, _)| text);
                self.progress.emit(Event::Warning {
                    text: format!("{host}: {}", printable(text)),
                });
            }
        }
        let remaining = answer
            .header("ratelimit-remaining")
            .and_then(|text| text.split(';').next());
        if let Some(remaining) = remaining.and_then(|text| text.trim().parse::<u64>().ok())
            && remaining <= FEW_PULLS
        {
            let text = format!("{host} allows {remaining} more pulls for now");
            self.progress.emit(Event::Warning { text });
        }
    }

    /// A config.
    async fn small_blob(&self, descriptor: &Descriptor, digest: &Digest) -> Result<Vec<u8>> {
        let limit = LARGEST_DOCUMENT;
        if descriptor.size > limit {
            return Err(Error::TooLarge {
                registry: self.endpoint.host.clone(),
                what: "the image config",
                limit,
            });
        }
        let path = format!("{}/blobs/{digest}", self.endpoint.repository);
        let what = format!("blob {}", digest.short());
        let bytes = self
            .retrying(&what, async || {
                let answer = self.get(&path, &Request::default(), &what, None).await?;
                answer.body("the image config", descriptor.size).await
            })
            .await?;
        let found = Digest::sha256_of(&bytes);
        if found != *digest {
            return Err(Error::WrongDigest {
                registry: self.endpoint.host.clone(),
                expected: digest.to_string(),
                found: found.to_string(),
            });
        }
        Ok(bytes)
    }

    /// One GET with authentication; a status that is not a success is an error.
    pub(crate) async fn get(
        &self,
        path: &str,
        request: &Request,
        what: &str,
        reference: Option<&Reference>,
    ) -> Result<Answer> {
        let mut request = request.clone();
        for attempt in 0..3 {
            request.authorization = match request.authorization.take() {
                Some(header) => Some(header),
                None => self.authorization.header().await,
            };
            let answer = self.transport.registry(&self.endpoint, path, &request).await?;
            if answer.status() != 401 || attempt == 2 {
                return self.check(answer, what, reference).await;
            }
            let challenges = answer.headers("www-authenticate");
            let sent = request.authorization.take();
            let header = self
                .authorization
                .answer(&self.transport, &self.endpoint, &challenges, sent.as_deref())
                .await?;
            if sent.as_deref() == Some(header.as_str()) {
                return self.check(answer, what, reference).await;
            }
            request.authorization = Some(header);
        }
        Err(self.malformed("challenge", "it never ends".into()))
    }

    async fn check(&self, answer: Answer, what: &str, reference: Option<&Reference>) -> Result<Answer> {
        if answer.is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let retry_after = answer.retry_after();
        // An error whose text cannot be read is still that error.
        let body = answer.body("an error", LARGEST_ERROR).await.unwrap_or_default();
        let message = error_text(&body);
        let registry = self.endpoint.host.clone();
        Err(match (status, reference) {
            (404, Some(reference)) => Error::NotFound {
                reference: reference.familiar(),
                registry,
            },
            (401 | 403, _) => Error::Denied {
                registry,
                what: what.to_owned(),
                reason: if message.is_empty() {
                    format!("status {status}")
                } else {
                    message
                },
            },
            _ => Error::Status {
                registry,
                status,
                what: what.to_owned(),
                message,
                retry_after,
            },
        })
    }

    /// Repeats what may succeed later, with growing pauses, or as long as the registry asks for.
    pub(crate) async fn retrying<T>(
        &self,
        what: &str,
        mut work: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let error = match work().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let asked = asked_pause(&error);
            let delay = asked.unwrap_or(pause);
            if !is_transient(&error) || attempt > self.retries || delay > LONGEST_PAUSE {
                return Err(error);
            }
            self.retry_event(what, attempt, delay, &error);
            tokio::time::sleep(delay).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(self.malformed("retry", "no attempt was made".into()))
    }

    pub(crate) fn retry_event(&self, what: &str, attempt: u32, delay: Duration, error: &Error) {
        let mut cause = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            cause = format!("{cause}: {source}");
        }
        self.progress.emit(Event::Retrying {
            what: what.to_owned(),
            attempt,
            delay,
            cause,
        });
    }

    pub(crate) fn malformed(&self, what: &'static str, reason: String) -> Error {
        Error::Malformed {
            registry: self.endpoint.host.clone(),
            what,
            reason,
        }
    }
}

/// The pause that the registry asked for.
fn asked_pause(error: &Error) -> Option<Duration> {
    match error {
        Error::Status { retry_after, .. } => *retry_after,
        _ => None,
    }
}

/// What a registry says of an error: its envelope's codes and messages, else the beginning of the text.
pub(crate) fn error_text(body: &[u8]) -> String {
    if let Ok(envelope) = serde_json::from_slice::<OciEnvelope>(body) {
        let all: Vec<_> = envelope.errors.iter().map(ToString::to_string).collect();
        return printable(&all.join("; "));
    }
    printable(&String::from_utf8_lossy(&body[..body.len().min(200)]))
}

fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(400)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Runs one bounded piece of work of the store.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Error::Client { source: error.into() }),
    }
}
