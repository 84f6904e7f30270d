//! [`RegistryClient`]: the handle that a program keeps.

use crate::config::{Capabilities, RegistryConfig};
use crate::delete;
use crate::error::{Error, Result};
use crate::limit::{self, PullLimit};
use crate::listing::{self, Listing};
use crate::login::{self, Login};
use crate::manifests;
use crate::pull;
use crate::push::{self, PushEvent, PushProgress, Pushed};
use crate::referrers;
use crate::session::{Remarks, Session};
use crate::transport::Transport;
use rdock_image::{
    BoxError, Descriptor, Digest, Event, Image, ImageSource, ImageStore, Index, Platform, Progress,
    Reference, ResolvedImage,
};
use std::sync::Arc;

/// Pulls and pushes images. Cloning is cheap; the connections of one pull or push are shared by its layers.
#[derive(Debug, Clone)]
pub struct RegistryClient {
    config: Arc<RegistryConfig>,
}

impl RegistryClient {
    /// Makes a client.
    ///
    /// # Errors
    /// [`Error::Client`](crate::Error::Client) when TLS cannot be set up.
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
    /// [`Error::Config`](crate::Error::Config) for a file that cannot be used, [`Error::Client`](crate::Error::Client).
    pub fn from_environment() -> Result<Self> {
        Ok(Self {
            config: Arc::new(RegistryConfig::from_environment()?),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// Brings `reference` into `store`, for `platform`, and tags it. Layers that are there are not fetched.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), [`Error::Denied`](crate::Error::Denied), [`Error::WrongDigest`](crate::Error::WrongDigest) and so on; nothing half-made is left.
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

/// To a registry.
impl RegistryClient {
    /// Sends the image that `reference` names in `store` to the registry of that name.
    ///
    /// Layers that the registry has are not sent; one that it has in another repository, where this store knows it
    /// from, is mounted; one that came from another registry goes from there, byte for byte. A layer that was made
    /// or loaded here, or is nowhere any more, is compressed on the way, and then the manifest in the registry is
    /// another one than that in the store: [`PushEvent::LayerCompressed`](crate::PushEvent::LayerCompressed) says so,
    /// and the image's names in the store mean the one in the registry from then on. The image keeps its id.
    ///
    /// # Errors
    /// [`Error::Denied`](crate::Error::Denied), [`Error::Status`](crate::Error::Status) and so on;
    /// [`Error::Image`](crate::Error::Image) when the store has no such image, or somebody changed a layer's files.
    /// The registry keeps the layers that are there already, so the next push is shorter.
    pub async fn push(
        &self,
        reference: &Reference,
        store: &ImageStore,
        progress: &PushProgress,
    ) -> Result<Pushed> {
        let transport = Transport::new(&self.config)?;
        let target = push::Target {
            reference,
            image: push::Pushing::Named(reference.canonical().to_string()),
            tagged: true,
        };
        push::push(&self.config, &transport, target, store, progress).await
    }

    /// Sends an image that is at hand to the registry of `reference`. As [`RegistryClient::push`], but the image's
    /// store need not list it, and gives it no name.
    ///
    /// # Errors
    /// As [`RegistryClient::push`].
    pub async fn push_image(
        &self,
        reference: &Reference,
        image: &Image,
        progress: &PushProgress,
    ) -> Result<Pushed> {
        let transport = Transport::new(&self.config)?;
        let target = push::Target {
            reference,
            image: push::Pushing::Held(image.clone()),
            tagged: true,
        };
        push::push(&self.config, &transport, target, image.store(), progress).await
    }

    /// Sends an index and the images of all platforms that it names, which must all be in `store`, under one name:
    /// see [`Image::descriptor`] for the entries of an index. Layers go as [`RegistryClient::push`] sends them; an
    /// entry whose image got another manifest on the way names that.
    ///
    /// # Errors
    /// [`Error::MissingPlatform`](crate::Error::MissingPlatform) names what is not in the store, before anything is
    /// sent; otherwise as [`RegistryClient::push`].
    pub async fn push_index(
        &self,
        reference: &Reference,
        index: &Index,
        store: &ImageStore,
        progress: &PushProgress,
    ) -> Result<Pushed> {
        let transport = Transport::new(&self.config)?;
        push::push_index(&self.config, &transport, reference, index, store, progress).await
    }
}

/// From a registry to another one.
impl RegistryClient {
    /// Copies an image, or an index with the images of all its platforms, to another name: of the same registry, which
    /// takes blobs it has without their being sent, or of another one. Every document and blob stays as it is to the
    /// byte, and nothing is kept on the way: no store is asked, and no disk. What refers to the image (see
    /// [`RegistryClient::referrers`]) does not come along.
    ///
    /// Events name layers by the digests of their blobs, since nobody unpacks them.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), [`Error::Denied`](crate::Error::Denied) and so on, of either
    /// registry; [`Error::WrongDigest`](crate::Error::WrongDigest) for a blob that is not what the manifest says. The
    /// name leads to nothing new then.
    pub async fn copy(
        &self,
        source: &Reference,
        target: &Reference,
        progress: &PushProgress,
    ) -> Result<Pushed> {
        let transport = Transport::new(&self.config)?;
        push::copy(&self.config, &transport, source, target, progress).await
    }
}

/// Who asks.
impl RegistryClient {
    /// Asks a registry (`host[:port]`, `docker.io` for Docker Hub) whether it takes this user, and keeps what proves
    /// it: in the credential helper that [`RegistryConfig::docker_config`] names for the registry, else in that file.
    /// A registry that gives refresh tokens is remembered by one, and the password is not kept. This client uses it
    /// from now on.
    ///
    /// # Errors
    /// [`Error::Denied`](crate::Error::Denied) for a wrong user or password, then nothing is kept; [`Error::Config`](crate::Error::Config) for a file that cannot
    /// be written, [`Error::Helper`](crate::Error::Helper).
    pub async fn login(&mut self, registry: &str, user: &str, password: &str) -> Result<Login> {
        let transport = Transport::new(&self.config)?;
        let (credential, login) = login::login(&self.config, &transport, registry, user, password).await?;
        Arc::make_mut(&mut self.config)
            .credentials
            .set(registry, credential);
        Ok(login)
    }

    /// Asks a registry whether it takes the credentials that are known for it; `false` when there are none.
    ///
    /// # Errors
    /// [`Error::Denied`](crate::Error::Denied) when it does not, and what can go wrong with a connection.
    pub async fn is_logged_in(&self, registry: &str) -> Result<bool> {
        let transport = Transport::new(&self.config)?;
        login::is_logged_in(&self.config, &transport, registry).await
    }

    /// Forgets the credentials of a registry, in its helper and in the file; says whether there were any.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a file that cannot be written, [`Error::Helper`](crate::Error::Helper).
    pub async fn logout(&mut self, registry: &str) -> Result<bool> {
        let known = login::logout(&self.config, registry).await?;
        Arc::make_mut(&mut self.config).credentials.forget(registry);
        Ok(known)
    }
}

/// What there is.
impl RegistryClient {
    /// The digest of the manifest or index that a name leads to, as the registry, or a mirror of it, announces it:
    /// nothing is fetched where the registry answers HEAD with a digest (OCI distribution specification 1.1, "Checking
    /// if content exists in the registry"). Of a name with a digest it says that the manifest is there.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), [`Error::Denied`](crate::Error::Denied) and so on, as a pull has
    /// them.
    pub async fn resolve_digest(&self, reference: &Reference) -> Result<Digest> {
        let transport = Transport::new(&self.config)?;
        let remarks = Remarks::new(|_| {});
        let can = |can: &Capabilities| can.resolve;
        manifests::at_places(
            &self.config,
            &transport,
            reference,
            can,
            &remarks,
            |session: Session| async move { manifests::digest(&session, reference).await },
        )
        .await
    }

    /// Asks how many pulls a registry that limits them allows now, without using one up; `None` of one that does not
    /// say. Asks the registry itself, no mirror.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), [`Error::Denied`](crate::Error::Denied) and so on.
    pub async fn pull_limit(&self, reference: &Reference) -> Result<Option<PullLimit>> {
        let transport = Transport::new(&self.config)?;
        limit::pull_limit(&self.config, &transport, reference).await
    }

    /// Lists the tags of the repository that `reference` names, in the registry's order; asks the registry itself, no
    /// mirror. A million tags at most; see [`RegistryClient::tags_of`].
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) for an unknown repository,
    /// [`Error::Denied`](crate::Error::Denied) and so on.
    pub async fn tags(&self, reference: &Reference) -> Result<Vec<String>> {
        let transport = Transport::new(&self.config)?;
        listing::tags(&self.config, &transport, reference, &Listing::default()).await
    }

    /// Lists a part of the tags.
    ///
    /// # Errors
    /// As [`RegistryClient::tags`].
    pub async fn tags_of(&self, reference: &Reference, listing: &Listing) -> Result<Vec<String>> {
        let transport = Transport::new(&self.config)?;
        listing::tags(&self.config, &transport, reference, listing).await
    }

    /// Lists the repositories of a registry (`host[:port]`), in its own order. Many registries, Docker Hub among them,
    /// do not tell.
    ///
    /// # Errors
    /// [`Error::Denied`](crate::Error::Denied), [`Error::Status`](crate::Error::Status) where it does not tell.
    pub async fn repositories(&self, registry: &str, listing: &Listing) -> Result<Vec<String>> {
        let transport = Transport::new(&self.config)?;
        listing::repositories(&self.config, &transport, registry, listing).await
    }

    /// Lists what refers to an image: signatures, attestations, other artifacts; those of one type, where one is
    /// given. Asks the API for it, and where the registry has none, the tag that clients keep in its place (OCI
    /// distribution specification 1.1, "Listing Referrers"). Each entry's type is its `artifactType`.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) for an unknown image, [`Error::Denied`](crate::Error::Denied) and
    /// so on.
    pub async fn referrers(
        &self,
        reference: &Reference,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let transport = Transport::new(&self.config)?;
        referrers::referrers(&self.config, &transport, reference, artifact_type).await
    }
}

/// Out of a registry.
impl RegistryClient {
    /// Deletes the manifest that the digest of `reference` names, and with it all its tags; of a name without a digest,
    /// the tag alone. Blobs stay until the registry collects them.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), [`Error::Denied`](crate::Error::Denied);
    /// [`Error::Status`](crate::Error::Status) from a registry that deletes nothing, or no tags.
    pub async fn delete(&self, reference: &Reference) -> Result<()> {
        let transport = Transport::new(&self.config)?;
        delete::delete(&self.config, &transport, reference).await
    }
}

impl RegistryClient {
    /// Says what `reference` is now for `platform`: its manifest and config, without any layer.
    ///
    /// # Errors
    /// As [`RegistryClient::pull`].
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        progress: &Progress,
    ) -> Result<ResolvedImage> {
        let transport = Transport::new(&self.config)?;
        pull::resolve(&self.config, &transport, reference, platform, progress).await
    }

    /// Brings the image into `store` that was resolved, whatever its name leads to by now, and tags it. Layers that
    /// are there are not fetched.
    ///
    /// # Errors
    /// As [`RegistryClient::pull`].
    pub async fn pull_resolved(
        &self,
        resolved: &ResolvedImage,
        store: &ImageStore,
        progress: &Progress,
    ) -> Result<Image> {
        let transport = Transport::new(&self.config)?;
        pull::pull_resolved(&self.config, &transport, resolved, store, progress).await
    }

    /// Brings some layers of an image into `store` that was resolved: those of the diffIDs `wanted` that are not there.
    /// Nothing is tagged.
    ///
    /// # Errors
    /// As [`RegistryClient::pull`].
    pub async fn pull_layers(
        &self,
        resolved: &ResolvedImage,
        wanted: &[Digest],
        store: &ImageStore,
        progress: &Progress,
    ) -> Result<()> {
        let transport = Transport::new(&self.config)?;
        pull::pull_layers(&self.config, &transport, resolved, wanted, store, progress).await
    }

    /// Runs work on a runtime of its own, on a thread of its own: the caller may be inside another runtime.
    fn on_thread<T: Send>(
        reference: &Reference,
        progress: &Progress,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T, BoxError> {
        let run = || -> Result<T, BoxError> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let stopped = Error::Stopped {
                reference: reference.familiar(),
            };
            Ok(runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = progress.stop().stopped() => Err(stopped),
                    done = work => done,
                }
            })?)
        };
        std::thread::scope(|scope| match scope.spawn(run).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl ImageSource for RegistryClient {
    fn fetch(
        &self,
        reference: &Reference,
        platform: &Platform,
        store: &ImageStore,
        progress: &Progress,
    ) -> Result<Image, BoxError> {
        let work = self.pull(reference, platform, store, progress);
        Self::on_thread(reference, progress, work)
    }

    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        _: &ImageStore,
        progress: &Progress,
    ) -> Result<ResolvedImage, BoxError> {
        let work = RegistryClient::resolve(self, reference, platform, progress);
        Self::on_thread(reference, progress, work)
    }

    fn fetch_resolved(
        &self,
        resolved: &ResolvedImage,
        _: &Platform,
        store: &ImageStore,
        progress: &Progress,
    ) -> Result<Image, BoxError> {
        let work = self.pull_resolved(resolved, store, progress);
        Self::on_thread(resolved.reference(), progress, work)
    }

    fn fetch_layers(
        &self,
        resolved: &ResolvedImage,
        wanted: &[Digest],
        store: &ImageStore,
        progress: &Progress,
    ) -> Result<(), BoxError> {
        let work = self.pull_layers(resolved, wanted, store, progress);
        Self::on_thread(resolved.reference(), progress, work)
    }

    fn publish(&self, reference: &Reference, image: &Image, progress: &Progress) -> Result<Digest, BoxError> {
        let told = progress.clone();
        let told = PushProgress::new(move |event| match event {
            PushEvent::Warning { text } => told.emit(Event::Warning { text }),
            PushEvent::Retrying {
                what,
                attempt,
                delay,
                cause,
            } => told.emit(Event::Retrying {
                what,
                attempt,
                delay,
                cause,
            }),
            _ => {}
        });
        let work = self.push_image(reference, image, &told);
        Ok(Self::on_thread(reference, progress, work)?.digest)
    }
}
