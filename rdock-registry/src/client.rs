//! [`RegistryClient`]: the handle that a program keeps.

use crate::config::RegistryConfig;
use crate::error::{Error, Result};
use crate::pull;
use crate::transport::Transport;
use rdock_image::{BoxError, Image, ImageSource, ImageStore, Platform, Progress, Reference};
use std::sync::Arc;

/// Pulls images. Cloning is cheap; the connections of one pull are shared by its layers.
#[derive(Debug, Clone)]
pub struct RegistryClient {
    config: Arc<RegistryConfig>,
}

impl RegistryClient {
    /// Makes a client.
    ///
    /// # Errors
    /// [`Error::Client`] when TLS cannot be set up.
    pub fn new(config: RegistryConfig) -> Result<Self> {
        // Said now rather than at the first pull.
        Transport::new(&config)?;
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Makes a client that is configured as docker and podman are; see [`RegistryConfig::from_environment`].
    ///
    /// # Errors
    /// [`Error::Config`] for a file that cannot be used, [`Error::Client`].
    pub fn from_environment() -> Result<Self> {
        Ok(Self {
            config: Arc::new(RegistryConfig::from_environment()?),
        })
    }

    /// Brings `reference` into `store`, for `platform`, and tags it. Layers that are there are not fetched.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Denied`], [`Error::WrongDigest`] and so on; nothing half-made is left.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        store: &ImageStore,
        progress: &Progress,
    ) -> Result<Image> {
        let transport = Transport::new(&self.config)?;
        pull::pull(&self.config, &transport, reference, platform, store, progress).await
    }
}

impl ImageSource for RegistryClient {
    /// Runs the pull on a runtime of its own, on a thread of its own: the caller may be inside another runtime.
    fn fetch(
        &self,
        reference: &Reference,
        platform: &Platform,
        store: &ImageStore,
        progress: &Progress,
    ) -> Result<Image, BoxError> {
        let work = || -> Result<Image, BoxError> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(self.pull(reference, platform, store, progress))?)
        };
        std::thread::scope(|scope| match scope.spawn(work).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

/// Asks for an answer again and again while that can help.
pub(crate) fn is_transient(error: &Error) -> bool {
    match error {
        Error::Transport { .. } => true,
        Error::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
        _ => false,
    }
}
