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
    #[error("could not fetch {what} from {registry}")]
    Transport {
        /// The host that was asked.
        registry: String,
        /// What was asked for.
        what: String,
        /// The last failure.
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
    /// A configuration file cannot be used.
    #[error("could not read {}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
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
            Self::Denied { registry, .. } => Some(format!(
                "check the credentials for {registry} in docker's config.json (DOCKER_CONFIG, else ~/.docker)"
            )),
            Self::Transport { registry, .. } => Some(format!(
                "is {registry} reachable from here? a mirror can be named in registries.conf \
                 (CONTAINERS_REGISTRIES_CONF)"
            )),
            Self::UnsafeRealm { registry, .. } => Some(format!(
                "if {registry} is trusted, mark it `insecure = true` in registries.conf"
            )),
            Self::Status { status: 429, .. } => Some("the registry limits pulls: log in, or wait".into()),
            _ => None,
        }
    }

    /// Whether another mirror or another attempt may help.
    pub(crate) fn is_about_the_endpoint(&self) -> bool {
        !matches!(
            self,
            Self::Image(_) | Self::NoSuchPlatform { .. } | Self::Blocked { .. } | Self::Config { .. }
        )
    }
}
