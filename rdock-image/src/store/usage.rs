//! What the store takes on the disk, and whose it is.
use super::{ImageStore, made};
use crate::{Digest, Image, Result};
use std::collections::{BTreeMap, BTreeSet};

/// What a store takes on the disk, in bytes of files.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoreUsage {
    /// In the order of [`ImageStore::images`].
    pub images: Vec<ImageUsage>,
    /// Layers of images, each counted once, and the documents of all of them.
    pub image_bytes: u64,
    /// Layers that results of builds are made of, and that no image has.
    pub kept_bytes: u64,
}

/// What one image takes on the disk, in bytes of files.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImageUsage {
    /// The image.
    pub image: Image,
    /// Layers that other images have as well.
    pub shared: u64,
    /// Layers that no other image has: what goes with it, where no container or build needs them.
    pub unique: u64,
}

impl ImageStore {
    /// Adds up what is in the store. Images that are damaged are left out, as by [`ImageStore::images`].
    ///
    /// # Errors
    /// When a directory of the store cannot be listed.
    pub fn usage(&self) -> Result<StoreUsage> {
        let images = self.images()?;
        let mut owners: BTreeMap<&Digest, BTreeSet<&Digest>> = BTreeMap::new();
        for image in &images {
            for layer in image.diff_ids() {
                // Several manifests of one config are one image.
                owners.entry(layer).or_default().insert(image.id());
            }
        }
        let size = |layer: &Digest| self.layer_usage(layer).unwrap_or(0);
        let sizes: BTreeMap<&Digest, u64> = owners.keys().map(|layer| (*layer, size(layer))).collect();
        let mut usage = StoreUsage {
            image_bytes: sizes.values().sum(),
            ..StoreUsage::default()
        };
        let mut documents = BTreeSet::new();
        for image in &images {
            documents.extend([image.id(), image.manifest_digest()]);
            let layers: BTreeSet<&Digest> = image.diff_ids().iter().collect();
            let bytes = |alone: bool| {
                let some = layers
                    .iter()
                    .filter(|layer| (owners[**layer].len() == 1) == alone);
                some.map(|layer| sizes[*layer]).sum()
            };
            usage.images.push(ImageUsage {
                shared: bytes(false),
                unique: bytes(true),
                image: image.clone(),
            });
        }
        let document =
            |digest: &&Digest| std::fs::metadata(self.layout().blob(digest)).map_or(0, |m| m.len());
        usage.image_bytes += documents.iter().map(document).sum::<u64>();
        let kept: BTreeSet<Digest> = made::kept(self.layout())?.into_iter().flatten().collect();
        let alone = kept.iter().filter(|layer| !owners.contains_key(layer));
        usage.kept_bytes = alone.map(size).sum();
        Ok(usage)
    }
}
