//! Where images come from: the one trait between this crate and a registry.
use crate::{BoxError, Image, ImageStore, Platform, Progress, Reference};

/// A place that images are fetched from. `rdock-registry` implements it; so does any test double.
pub trait ImageSource: Send + Sync {
    /// Brings `reference` into `store` and tags it; called from a blocking thread.
    ///
    /// Of an index the image that suits `platform` best is taken. When this fails, nothing half-made is left.
    fn fetch(
        &self,
        reference: &Reference,
        platform: &Platform,
        store: &ImageStore,
        progress: &Progress,
    ) -> Result<Image, BoxError>;
}
