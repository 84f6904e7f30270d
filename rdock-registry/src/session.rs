//! One place that is asked for one repository: requests with authentication, retries, and what answers mean.

use crate::auth::{Access, Authorization};
use crate::config::{Credential, Credentials, Endpoint, RegistryConfig};
use crate::error::{Error, Result};
use crate::limit::PullLimit;
use crate::protocol::{is_loopback, warning};
use crate::transport::{Answer, Request, Transport};
use oci_distribution::errors::OciEnvelope;
use rdock_image::Reference;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a manifest, an index or a config.
pub(crate) const LARGEST_DOCUMENT: u64 = 4 << 20;
/// Bytes of an error that are read.
const LARGEST_ERROR: u64 = 64 << 10;
/// The first pause before another attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A registry may ask for longer pauses than this; then it is an error.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// So few pulls left are worth a warning.
const FEW_PULLS: u64 = 10;

/// What is worth telling beside the work itself.
#[derive(Debug, Clone)]
pub(crate) enum Remark {
    Warning(String),
    Retrying {
        what: String,
        attempt: u32,
        delay: Duration,
        cause: String,
    },
}

/// Where remarks go.
#[derive(Clone)]
pub(crate) struct Remarks(Arc<dyn Fn(Remark) + Send + Sync>);

impl Remarks {
    pub(crate) fn new(receiver: impl Fn(Remark) + Send + Sync + 'static) -> Self {
        Self(Arc::new(receiver))
    }

    pub(crate) fn emit(&self, remark: Remark) {
        (self.0)(remark);
    }
}

impl fmt::Debug for Remarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remarks(..)")
    }
}

/// Everything about one place that is asked for one repository.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) transport: Transport,
    pub(crate) endpoint: Endpoint,
    pub(crate) authorization: Authorization,
    pub(crate) retries: u32,
    pub(crate) remarks: Remarks,
    /// Why the credential helper brought nothing.
    helper_failed: Option<String>,
}

impl Session {
    /// A session with the credentials that are known for the place. `name` is the repository as users write it.
    pub(crate) async fn open(
        config: &RegistryConfig,
        transport: &Transport,
        endpoint: Endpoint,
        name: &str,
        access: Access,
        remarks: Remarks,
    ) -> Result<Self> {
        let credentials = config.credentials.clone();
        let (place, name) = (endpoint.clone(), name.to_owned());
        // A helper is a program: it may take its time.
        let found = tokio::task::spawn_blocking(move || find(&credentials, &place, &name)).await;
        let (credential, helper_failed) = found.map_err(|error| Error::Client { source: error.into() })?;
        if let Some(text) = &helper_failed {
            remarks.emit(Remark::Warning(text.clone()));
        }
        Ok(Self {
            transport: transport.clone(),
            endpoint,
            authorization: Authorization::new(credential, access),
            retries: config.retries,
            remarks,
            helper_failed,
        })
    }

    /// A session with these credentials.
    pub(crate) fn with(
        config: &RegistryConfig,
        transport: &Transport,
        endpoint: Endpoint,
        credential: Credential,
        remarks: Remarks,
    ) -> Self {
        Self {
            transport: transport.clone(),
            endpoint,
            authorization: Authorization::new(credential, Access::default()),
            retries: config.retries,
            remarks,
            helper_failed: None,
        }
    }

    /// One request for a path below `/v2/`, with authentication; a status that is not a success is an error.
    pub(crate) async fn call(
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
            let sent = request.authorization.take();
            let header = self.renew(&answer, sent.as_deref()).await?;
            if sent.as_deref() == Some(header.as_str()) {
                return self.check(answer, what, reference).await;
            }
            request.authorization = Some(header);
        }
        Err(self.malformed("challenge", "it never ends".into()))
    }

    /// The header that answers a 401.
    pub(crate) async fn renew(&self, answer: &Answer, sent: Option<&str>) -> Result<String> {
        let challenges = answer.headers("www-authenticate");
        let answered = self
            .authorization
            .answer(&self.transport, &self.endpoint, &challenges, sent)
            .await;
        answered.map_err(|error| match (error, &self.helper_failed) {
            (
                Error::Denied {
                    registry,
                    what,
                    reason,
                },
                Some(helper),
            ) => Error::Denied {
                registry,
                what,
                reason: format!("{reason} ({helper})"),
            },
            (error, _) => error,
        })
    }

    /// An answer that is not a success as an error.
    pub(crate) async fn check(
        &self,
        answer: Answer,
        what: &str,
        reference: Option<&Reference>,
    ) -> Result<Answer> {
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

    /// As [`Session::call`], again while that may help: with growing pauses, or as long as the registry asks for.
    pub(crate) async fn ask(
        &self,
        path: &str,
        request: &Request,
        what: &str,
        reference: Option<&Reference>,
    ) -> Result<Answer> {
        let mut attempts = Attempts::new(self.retries);
        loop {
            match self.call(path, request, what, reference).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.pause(what, &mut attempts, error).await?,
            }
        }
    }

    /// Waits before another attempt, or gives the error back when there will be none.
    pub(crate) async fn pause(&self, what: &str, attempts: &mut Attempts, error: Error) -> Result<()> {
        if !error.is_transient() {
            return Err(error);
        }
        self.pause_anyway(what, attempts, error).await
    }

    /// As [`Session::pause`], for an error that says nothing about another attempt.
    pub(crate) async fn pause_anyway(&self, what: &str, attempts: &mut Attempts, error: Error) -> Result<()> {
        let Some(delay) = attempts.after(&error) else {
            return Err(error);
        };
        let mut cause = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            cause = format!("{cause}: {source}");
        }
        self.remarks.emit(Remark::Retrying {
            what: what.to_owned(),
            attempt: attempts.made,
            delay,
            cause,
        });
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// What a registry says beside its answer: warnings (code 299), and a pull limit that is nearly used up.
    pub(crate) fn heed(&self, answer: &Answer) {
        let host = &self.endpoint.host;
        for text in answer.headers("warning") {
            if let Some(text) = warning(&text) {
                self.remarks
                    .emit(Remark::Warning(format!("{host}: {}", printable(&text))));
            }
        }
        if let Some(PullLimit { remaining, .. }) =
            PullLimit::of(answer.header("ratelimit-remaining"), None, None)
            && remaining <= FEW_PULLS
        {
            let text = format!("{host} allows {remaining} more pulls for now");
            self.remarks.emit(Remark::Warning(text));
        }
    }

    pub(crate) fn malformed(&self, what: &'static str, reason: String) -> Error {
        Error::Malformed {
            registry: self.endpoint.host.clone(),
            what,
            reason,
        }
    }
}

/// Attempts at one thing.
#[derive(Debug)]
pub(crate) struct Attempts {
    most: u32,
    made: u32,
    pause: Duration,
}

impl Attempts {
    pub(crate) fn new(most: u32) -> Self {
        Self {
            most,
            made: 0,
            pause: FIRST_PAUSE,
        }
    }

    /// Something was achieved: what fails from now on is a new failure.
    pub(crate) fn progress(&mut self) {
        *self = Self::new(self.most);
    }

    /// How long to wait before the next attempt; `None` when there is to be none.
    fn after(&mut self, error: &Error) -> Option<Duration> {
        let asked = match error {
            Error::Status { retry_after, .. } => *retry_after,
            _ => None,
        };
        let delay = asked.unwrap_or(self.pause);
        if self.made >= self.most || delay > LONGEST_PAUSE {
            return None;
        }
        self.made += 1;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(delay)
    }
}

/// Which credentials go to a place: those of the host that is asked. A place that registries.conf calls the
/// registry itself, and that is this machine or has TLS, gets those of the registry's name too.
fn find(credentials: &Credentials, endpoint: &Endpoint, name: &str) -> (Credential, Option<String>) {
    let hub = endpoint.host == "registry-1.docker.io";
    let own = hub || name.split('/').next() == Some(endpoint.host.as_str());
    if own {
        return credentials.find(name);
    }
    let place = format!("{}/{}", endpoint.host, endpoint.repository);
    let (credential, warning) = credentials.find(place.trim_end_matches('/'));
    let trusted = endpoint.stands_for_name && (!endpoint.insecure || is_loopback(&endpoint.host));
    if credential != Credential::Anonymous || !trusted {
        return (credential, warning);
    }
    credentials.find(name)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(host: &str, insecure: bool, stands_for_name: bool) -> Endpoint {
        Endpoint {
            host: host.into(),
            repository: "me/app".into(),
            insecure,
            stands_for_name,
            options: None,
        }
    }

    #[test]
    fn credentials_go_to_their_own_host() {
        let mut credentials = Credentials::default();
        let user = |name: &str| Credential::Basic {
            user: name.into(),
            password: "p".into(),
        };
        credentials.set("docker.io", user("hub"));
        let sent = |credentials: &Credentials, place| find(credentials, &place, "docker.io/me/app").0;
        assert_eq!(
            sent(&credentials, place("registry-1.docker.io", false, true)),
            user("hub")
        );
        // A mirror is another host.
        for mirror in [
            place("m.example", false, false),
            place("127.0.0.1:5000", true, false),
        ] {
            assert_eq!(sent(&credentials, mirror), Credential::Anonymous);
        }
        // The registry itself, as registries.conf has it, but not in plain text over a network.
        assert_eq!(sent(&credentials, place("r.example", false, true)), user("hub"));
        assert_eq!(
            sent(&credentials, place("127.0.0.1:5000", true, true)),
            user("hub")
        );
        assert_eq!(
            sent(&credentials, place("r.example", true, true)),
            Credential::Anonymous
        );
        credentials.set("r.example", user("own"));
        assert_eq!(sent(&credentials, place("r.example", true, true)), user("own"));
    }

    proptest! {
        #[test]
        fn foreign_errors_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(!error_text(&body).chars().any(char::is_control));
        }
    }
}
