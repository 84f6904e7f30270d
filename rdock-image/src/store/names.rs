//! Tags: which names lead to which images; looking up, tagging, removing.
use super::{Change, ImageStore};
use crate::image;
use crate::layer::{Layer, chain};
use crate::layout::Layout;
use crate::lock::StoreLock;
use crate::reference::is_identifier;
use crate::{Digest, Error, Image, ImageConfig, Lease, ManifestDocument, Reference, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What [`ImageStore::remove`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<Reference>,
    /// Image ids and layers (diffIDs) that are gone from the store.
    pub deleted: Vec<Digest>,
}

/// A file in `refs/`. An image without a tag has one without a name, so that it is kept until it is pruned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RefFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    pub(crate) manifest: Digest,
}

/// An image's names: its tags, and the file that keeps it without one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) tags: Vec<Reference>,
    pub(crate) files: Vec<PathBuf>,
}

/// All names by manifest.
pub(crate) fn all(layout: &Layout) -> Result<BTreeMap<Digest, Names>> {
    let mut found: BTreeMap<Digest, Names> = BTreeMap::new();
    let path = layout.refs();
    for entry in fs::read_dir(&path).map_err(|e| Error::io("list", &path, e))? {
        let path = entry.map_err(|e| Error::io("list", &path, e))?.path();
        // A file that cannot be read costs its own name only.
        let Ok(Some(file)) = read(&path) else { continue };
        let names = found.entry(file.manifest).or_default();
        if let Some(name) = file.name.and_then(|name| Reference::parse(&name).ok()) {
            names.tags.push(name);
        }
        names.files.push(path);
    }
    for names in found.values_mut() {
        names.tags.sort();
    }
    Ok(found)
}

/// The tags of one manifest, sorted. Reads every name of the store.
pub(crate) fn tags_of(layout: &Layout, manifest: &Digest) -> Result<Vec<Reference>> {
    Ok(all(layout)?.remove(manifest).unwrap_or_default().tags)
}

/// Reads a tag's file.
pub(super) fn check(path: &Path) -> Result<()> {
    read(path).map(drop)
}

fn read(path: &Path) -> Result<Option<RefFile>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::document(path.display().to_string(), e)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

impl ImageStore {
    /// Returns the image of that name: a reference, or an image id (full digest, 64 digits, or a prefix of at least
    /// 4 digits that only one image has).
    pub fn get(&self, name: &str) -> Result<Option<Image>> {
        if let Some(digest) = full_id(name) {
            return match self.by_note(&digest) {
                Some(image) => Ok(Some(image)),
                None => self.by_id(digest.hex(), name),
            };
        }
        let reference = Reference::parse(name);
        if let Ok(reference) = &reference
            && let Some(image) = self.by_reference(reference)?
        {
            return Ok(Some(image));
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if (4..64).contains(&prefix.len()) && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return self.by_id(prefix, name);
        }
        reference.map(|_| None)
    }

    fn by_reference(&self, reference: &Reference) -> Result<Option<Image>> {
        let reference = reference.canonical();
        if let Some(file) = read(&self.layout().reference(&reference))? {
            return self.load(&file.manifest, Some(reference)).map(Some);
        }
        // An image pulled by tag is also known by the digest of its manifest.
        let Some(digest) = reference.digest() else {
            return Ok(None);
        };
        match all(self.layout())?.get(digest) {
            Some(names) if names.tags.iter().any(|tag| tag.name() == reference.name()) => {
                self.load(digest, None).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The image of a full id, by the name that is noted for it, if that leads to it still.
    fn by_note(&self, id: &Digest) -> Option<Image> {
        let note = fs::read_to_string(self.layout().id_note(id)).ok()?;
        let file = self.layout().refs().join(Path::new(&note).file_name()?);
        let file = read(&file).ok()??;
        let name = file.name.and_then(|name| Reference::parse(&name).ok());
        self.load(&file.manifest, name)
            .ok()
            .filter(|image| image.id() == id)
    }

    /// Notes that the file `path` in `refs/` leads to the image, so that its id does as well without a look at every
    /// name. Without the note it is only slower.
    fn note_id(&self, id: &Digest, path: &Path) {
        if let Some(name) = path.file_name() {
            let _ = self
                .layout()
                .replace_unsynced(&self.layout().id_note(id), name.as_encoded_bytes());
        }
    }

    fn by_id(&self, prefix: &str, name: &str) -> Result<Option<Image>> {
        let mut found: Option<Image> = None;
        for image in self.images()? {
            if image.id().hex().starts_with(prefix)
                || (prefix.len() == 64 && image.manifest_digest().hex() == prefix)
            {
                match &found {
                    Some(other) if other.id() != image.id() => {
                        return Err(Error::AmbiguousId {
                            name: name.to_owned(),
                        });
                    }
                    Some(_) => {}
                    None => found = Some(image),
                }
            }
        }
        // By a version that made no notes.
        if let Some(image) = &found
            && image.id().hex() == prefix
        {
            let path = match image.references().first() {
                Some(name) => self.layout().reference(&name.canonical()),
                None => self.layout().dangling(image.manifest_digest()),
            };
            self.note_id(image.id(), &path);
        }
        Ok(found)
    }

    /// Returns all images, also those without a tag, sorted by their first name.
    ///
    /// One that is damaged (a file of it is missing) is left out; [`ImageStore::get`] by its name says what is wrong.
    pub fn images(&self) -> Result<Vec<Image>> {
        let names = all(self.layout())?;
        let mut images: Vec<Image> = names
            .iter()
            .filter_map(|(manifest, names)| {
                Image::load(self, manifest, image::Names::Known(names.tags.clone())).ok()
            })
            .collect();
        images.sort_by(|a, b| (a.references(), a.id()).cmp(&(b.references(), b.id())));
        Ok(images)
    }

    /// An image reached by `name`, if by any.
    fn load(&self, manifest: &Digest, name: Option<Reference>) -> Result<Image> {
        Image::load(self, manifest, image::Names::sought(name))
    }

    /// Makes `reference` name the image whose manifest, config and layers are all in the store. What the name led to
    /// before stays as an image without a tag.
    pub fn commit(&self, lease: &Lease, reference: &Reference, manifest: &Digest) -> Result<Image> {
        self.complete(lease, manifest)?;
        self.name(Some(reference), manifest)?;
        self.committed(manifest, Some(reference))
    }

    /// As [`ImageStore::commit`], for an image that nobody named.
    pub fn commit_untagged(&self, lease: &Lease, manifest: &Digest) -> Result<Image> {
        self.complete(lease, manifest)?;
        self.name(None, manifest)?;
        self.committed(manifest, None)
    }

    fn committed(&self, manifest: &Digest, reference: Option<&Reference>) -> Result<Image> {
        let image = self.load(manifest, reference.map(Reference::canonical))?;
        self.observer().tell(|| Change::Created {
            id: image.id().clone(),
            reference: reference.map(Reference::canonical),
        });
        Ok(image)
    }

    /// Checks that everything is there, settles what the layers' stack needs, and forces the layers to the disk.
    fn complete(&self, lease: &Lease, manifest: &Digest) -> Result<()> {
        lease.pin(manifest)?;
        let ManifestDocument::Manifest(document) = ManifestDocument::parse(&self.read_blob(manifest)?, None)?
        else {
            return Err(Error::document(format!("manifest {manifest}"), "it is an index"));
        };
        let config_digest = document.config.digest()?;
        lease.pin(&config_digest)?;
        let config = ImageConfig::parse(&self.read_blob(&config_digest)?)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != document.layers.len() {
            return Err(Error::document(
                format!("manifest {manifest}"),
                format!(
                    "it has {} layers, its config {}",
                    document.layers.len(),
                    diff_ids.len()
                ),
            ));
        }
        if diff_ids.len() as u64 > self.limits().layers {
            return Err(Error::Limit {
                what: "the number of layers".to_owned(),
                limit: self.limits().layers,
            });
        }
        for diff_id in diff_ids {
            lease.pin(diff_id)?;
            Layer::open(self.layout(), diff_id)?;
        }
        chain::stack(self.layout(), diff_ids)?;
        self.sync_layers(diff_ids)
    }

    /// Gives `image` one more name.
    pub fn tag(&self, image: &Image, name: &Reference) -> Result<()> {
        if name.digest().is_some() {
            return Err(Error::InvalidReference {
                text: name.to_string(),
                reason: "a name with a digest cannot be given",
            });
        }
        self.name(Some(name), image.manifest_digest())?;
        self.observer().tell(|| Change::Tagged {
            id: image.id().clone(),
            reference: name.canonical(),
        });
        Ok(())
    }

    /// When a name was last given to an image: by a pull, a build, a load or [`ImageStore::tag`], also to the image that
    /// had it already. None for a name that no image has.
    ///
    /// # Errors
    /// When the note of the name cannot be looked at.
    pub fn tagged(&self, name: &Reference) -> Result<Option<SystemTime>> {
        let path = self.layout().reference(&name.canonical());
        match fs::metadata(&path).and_then(|meta| meta.modified()) {
            Ok(time) => Ok(Some(time)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("examine", path, error)),
        }
    }

    fn name(&self, reference: Option<&Reference>, manifest: &Digest) -> Result<()> {
        let layout = self.layout();
        let contents = |name: Option<String>, manifest: &Digest| {
            let file = RefFile {
                name,
                manifest: manifest.clone(),
            };
            serde_json::to_vec(&file).map_err(|e| Error::document("a tag", e))
        };
        let _guard = StoreLock::exclusive(layout)?;
        if !self.has_blob(manifest) {
            return Err(Error::MissingBlob {
                what: "manifest",
                digest: manifest.clone(),
            });
        }
        let Some(reference) = reference else {
            if all(layout)?.contains_key(manifest) {
                return Ok(());
            }
            let path = layout.dangling(manifest);
            layout.replace(&path, &contents(None, manifest)?)?;
            self.note_id(&self.id_of(manifest), &path);
            return Ok(());
        };
        let reference = reference.canonical();
        let path = layout.reference(&reference);
        if let Ok(Some(old)) = read(&path)
            && old.manifest == *manifest
        {
            // When the name was given last, for [`ImageStore::tagged`].
            return fs::File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_modified(SystemTime::now()))
                .map_err(|e| Error::io("write", path, e));
        }
        // Another manifest of the same image, with other blobs of the same layers, takes its place.
        if let Ok(Some(old)) = read(&path)
            && old.manifest != *manifest
            && self.id_of(&old.manifest) != self.id_of(manifest)
            && all(layout)?
                .get(&old.manifest)
                .is_some_and(|names| names.files.len() == 1)
        {
            let path = layout.dangling(&old.manifest);
            layout.replace(&path, &contents(None, &old.manifest)?)?;
            self.note_id(&self.id_of(&old.manifest), &path);
        }
        layout.replace(&path, &contents(Some(reference.to_string()), manifest)?)?;
        self.note_id(&self.id_of(manifest), &path);
        match fs::remove_file(layout.dangling(manifest)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", layout.dangling(manifest), error))
            }
            _ => Ok(()),
        }
    }

    /// Removes a name, and the image with it when that was its last one.
    ///
    /// By id, an image with several names is removed only with `force`. An image that a snapshot uses is removed
    /// only with `force`; its layers stay until the snapshot is removed.
    pub fn remove(&self, name: &str, force: bool) -> Result<Removed> {
        let not_found = || Error::NotFound {
            kind: "image",
            name: name.to_owned(),
        };
        let tag = Reference::parse(name).map(|reference| reference.canonical()).ok();
        let mut tag = tag.filter(|_| full_id(name).is_none());
        let file = |tag: &Reference| read(&self.layout().reference(tag));
        // What is no name is an id, which is looked up before the lock is taken.
        let image = match &tag {
            Some(reference) if file(reference)?.is_some() => None,
            _ => {
                tag = None;
                Some(self.get(name)?.ok_or_else(not_found)?)
            }
        };
        let mut removed = Removed::default();
        let id;
        {
            let _guard = StoreLock::exclusive(self.layout())?;
            let mut all = all(self.layout())?;
            // By a name, what that leads to now; by id, all that has it: other manifests of the same config too.
            let manifests: Vec<Digest> = match (&tag, &image) {
                (Some(tag), _) => vec![file(tag)?.ok_or_else(not_found)?.manifest],
                (None, Some(image)) => (all.keys())
                    .filter(|manifest| {
                        *manifest == image.manifest_digest() || self.id_of(manifest) == *image.id()
                    })
                    .cloned()
                    .collect(),
                (None, None) => Vec::new(),
            };
            id = self.id_of(manifests.first().ok_or_else(not_found)?);
            let mut names = Names::default();
            for manifest in &manifests {
                let found = all.remove(manifest).ok_or_else(not_found)?;
                names.tags.extend(found.tags);
                names.files.extend(found.files);
            }
            names.tags.sort();
            let last = names.files.len() == 1 || tag.is_none();
            if tag.is_none() && names.tags.len() > 1 && !force {
                let tags = names.tags.iter().map(Reference::familiar).collect();
                return Err(Error::SeveralTags { image: id, tags });
            }
            if last && !force {
                let mut snapshots = Vec::new();
                for manifest in &manifests {
                    snapshots.extend(self.snapshots_of(manifest)?);
                }
                if !snapshots.is_empty() {
                    return Err(Error::ImageInUse {
                        image: name.to_owned(),
                        snapshots,
                    });
                }
            }
            let files = match &tag {
                Some(tag) => vec![self.layout().reference(tag)],
                None => names.files.clone(),
            };
            for file in &files {
                fs::remove_file(file).map_err(|e| Error::io("remove", file, e))?;
                self.layout().sync_parent(file)?;
            }
            removed.untagged = match tag {
                Some(tag) => vec![tag],
                None => names.tags,
            };
            // The same config by another manifest is the same image.
            if last && !all.keys().any(|manifest| self.id_of(manifest) == id) {
                removed.deleted.push(id.clone());
            }
        }
        for reference in &removed.untagged {
            self.observer().tell(|| Change::Untagged {
                id: id.clone(),
                reference: reference.clone(),
            });
        }
        if !removed.deleted.is_empty() {
            self.observer().tell(|| Change::Deleted { id: id.clone() });
            removed.deleted.extend(self.collect()?.layers);
        }
        Ok(removed)
    }

    /// The image id a manifest leads to; of a damaged image the manifest's own digest.
    pub(crate) fn id_of(&self, manifest: &Digest) -> Digest {
        let config = || match ManifestDocument::parse(&self.read_blob(manifest)?, None)? {
            ManifestDocument::Manifest(document) => document.config.digest(),
            ManifestDocument::Index(_) => Ok(manifest.clone()),
        };
        config().unwrap_or_else(|_| manifest.clone())
    }
}

fn full_id(name: &str) -> Option<Digest> {
    match is_identifier(name) {
        true => Digest::parse(&format!("sha256:{name}")).ok(),
        false => Digest::parse(name).ok(),
    }
}
