//! What can go wrong with a registry; each variant names its object, the cause is in `source()`.

use std::path::PathBuf;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry has no such image, or does not show it to this user.
    #[error("{reference} was not found in the registry {registry} (it does not exist, or needs a login)")]
    NotFound {
        /// The image asked for.
        reference: String,
        /// The host that was asked.
        registry: String,
    },
    /// The registry refuses the credentials, or wants some.
    #[error("the registry {registry} denies access to {what}: {reason}")]
    Denied {
        /// The host that was asked.
        registry: String,
        /// The image or blob.
        what: String,
        /// What the registry says.
        reason: String,
    },
    /// No manifest of the index is for the platform.
    #[error("{reference} has no image for {platform}; it has {available}")]
    NoSuchPlatform {
        /// The image asked for.
        reference: String,
        /// What was wanted.
        platform: String,
        /// What there is.
        available: String,
    },
    /// The registry sent other bytes than their digest says.
    #[error("the registry {registry} sent {found} for {expected}")]
    WrongDigest {
        /// The host that was asked.
        registry: String,
        /// What was asked for.
        expected: String,
        /// Digest of what came.
        found: String,
    },
    /// An answer is longer than its limit.
    #[error("{what} of {registry} is larger than {limit} bytes")]
    TooLarge {
        /// The host that was asked.
        registry: String,
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The registry answered with an error.
    #[error("{registry} answered {status} to {what}{}", detail(message))]
    Status {
        /// The host that was asked.
        registry: String,
        /// HTTP status code.
        status: u16,
        /// What was asked for.
        what: String,
        /// What the registry says.
        message: String,
        /// The pause that the registry asked for (`Retry-After`).
        retry_after: Option<std::time::Duration>,
    },
    /// The registry could not be reached, or the connection broke too often.
    #[error("the connection to {registry} failed at {what}")]
    Transport {
        /// The host that was asked.
        registry: String,
        /// What was asked for.
        what: String,
        /// The last failure.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry wants to see a certificate of this client, and another one than it was shown, if it was shown one.
    #[error("the registry {registry} refuses this client: {reason}")]
    ClientCertificate {
        /// The host that was asked.
        registry: String,
        /// What it wants, or what it says of the certificate.
        reason: String,
        /// The failure of the connection.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer makes no sense.
    #[error("{registry} sent a malformed {what}: {reason}")]
    Malformed {
        /// The host that was asked.
        registry: String,
        /// What was malformed.
        what: &'static str,
        /// How.
        reason: String,
    },
    /// Credentials would have to travel to a place they must not go to.
    #[error("{registry} asks to send credentials to {target}: {reason}")]
    UnsafeRealm {
        /// The host that was asked.
        registry: String,
        /// Where they would go.
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// registries.conf forbids this registry.
    #[error("{reference} is blocked by registries.conf")]
    Blocked {
        /// The image asked for.
        reference: String,
    },
    /// hosts.toml gives no place of the registry the capability `push`.
    #[error("hosts.toml allows no push to {registry}")]
    ReadOnly {
        /// The registry, as names have it.
        registry: String,
    },
    /// An index names an image that is not in the store.
    #[error("the index names {digest} for {platform}, which is not in the store")]
    MissingPlatform {
        /// The platform, `unknown` where the index says none.
        platform: String,
        /// Of the manifest.
        digest: String,
    },
    /// A configuration file cannot be used.
    #[error("could not read {}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A credential helper could not keep or forget something.
    #[error("{registry}: {reason}")]
    Helper {
        /// The registry.
        registry: String,
        /// The helper, and what it says.
        reason: String,
    },
    /// The registry server could not start, or could not write.
    #[cfg(feature = "server")]
    #[error("could not serve {what}")]
    Serve {
        /// A directory, an address, or what else.
        what: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The caller stopped it.
    #[error("the pull of {reference} was stopped")]
    Stopped {
        /// The image.
        reference: String,
    },
    /// TLS or the HTTP client could not be set up.
    #[error("could not set up the HTTP client")]
    Client {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store.
    #[error(transparent)]
    Image(#[from] rdock_image::Error),
}

fn detail(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

impl Error {
    /// What to change on the host or in its configuration, when that is the remedy.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Image(error) => error.hint(),
            Self::Denied { what, .. } if what == "a login" => None,
            Self::Denied { registry, .. } => Some(format!(
                "log in to {registry}, or check its credentials in docker's config.json (DOCKER_CONFIG, else ~/.docker)"
            )),
            Self::ClientCertificate { registry, .. } => Some(format!(
                "put client.cert and client.key into {registry}'s folder of certs.d, or name them as `client` in its \
                 hosts.toml"
            )),
            Self::Transport { registry, .. } => Some(format!(
                "is {registry} reachable from here? a mirror can be named in registries.conf \
                 (CONTAINERS_REGISTRIES_CONF)"
            )),
            Self::MissingPlatform { platform, .. } => {
                Some(format!("pull or build the image for {platform} first"))
            }
            Self::UnsafeRealm { registry, .. } => Some(format!(
                "if {registry} is trusted, mark it `insecure = true` in registries.conf"
            )),
            Self::Status { status: 429, .. } => Some("the registry limits pulls: log in, or wait".into()),
            _ => None,
        }
    }

    /// A connection that failed at `what`, by what the failure says.
    pub(crate) fn connection(
        registry: &str,
        what: impl Into<String>,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> Self {
        let registry = registry.to_owned();
        match refused_certificate(source.as_ref()) {
            Some(reason) => Self::ClientCertificate {
                registry,
                reason,
                source,
            },
            None => Self::Transport {
                registry,
                what: what.into(),
                source,
            },
        }
    }

    /// Says whether the same call may succeed a little later: the registry is busy or has a fault, or the connection
    /// broke. A name that does not resolve, and a certificate that is not trusted, stay as they are.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { source, .. } => is_transient_cause(source.as_ref()),
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether it is the fault of this registry.
    pub(crate) fn is_about(&self, host: &str) -> bool {
        match self {
            Self::NotFound { registry, .. }
            | Self::Denied { registry, .. }
            | Self::WrongDigest { registry, .. }
            | Self::TooLarge { registry, .. }
            | Self::Status { registry, .. }
            | Self::Transport { registry, .. }
            | Self::ClientCertificate { registry, .. }
            | Self::Malformed { registry, .. }
            | Self::UnsafeRealm { registry, .. } => registry == host,
            _ => false,
        }
    }

    /// Whether another mirror or another attempt may help.
    pub(crate) fn is_about_the_endpoint(&self) -> bool {
        !matches!(
            self,
            Self::Image(_)
                | Self::NoSuchPlatform { .. }
                | Self::Blocked { .. }
                | Self::ReadOnly { .. }
                | Self::MissingPlatform { .. }
                | Self::Config { .. }
                | Self::Helper { .. }
        )
    }
}

/// What a server says of the certificate of a client, in the alert it ends the connection with (RFC 8446, section 6.2).
fn refused_certificate(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    use rustls::AlertDescription as Alert;
    let mut next = Some(error);
    while let Some(error) = next {
        // What an I/O error wraps is not its source.
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = inner.or_else(|| error.downcast_ref()) {
            return Some(match alert {
                Alert::CertificateRequired => "it wants a client certificate".to_owned(),
                Alert::UnknownCA => "it does not know who has signed the client certificate".to_owned(),
                Alert::CertificateExpired => "the client certificate has expired".to_owned(),
                Alert::CertificateRevoked => "the client certificate was revoked".to_owned(),
                // Some say this of none at all, and of a signature by another authority of the same name.
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateUnknown
                | Alert::DecryptError => {
                    format!("it wants a client certificate that it can trust ({alert:?})")
                }
                Alert::AccessDenied => "the client certificate has no right to this".to_owned(),
                _ => return None,
            });
        }
        next = error.source();
    }
    None
}

/// Whether a connection failed in a way that passes. Only what is known to pass does.
fn is_transient_cause(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            // rustls is wrapped in one of these.
            let passes = matches!(
                error.kind(),
                ErrorKind::TimedOut
                    | ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::ConnectionRefused
                    | ErrorKind::NotConnected
                    | ErrorKind::BrokenPipe
                    | ErrorKind::UnexpectedEof
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::NetworkDown
            );
            if passes {
                return true;
            }
        }
        if let Some(error) = error.downcast_ref::<reqwest::Error>()
            && (error.is_timeout() || error.is_body() || error.is_decode())
        {
            return true;
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && !(error.is_parse() || error.is_user())
        {
            return true;
        }
        next = error.source();
    }
    false
}
