//! An OCI image layout in a directory: images are read from it one by one and put into it, without a name in any store.
use super::contents::{ArchiveContents, blob, blob_name};
use super::files::Files;
use crate::layer::Layer;
use crate::manifest::media_type;
use crate::{
    Descriptor, Digest, Error, Event, Image, ImageStore, Index, Limits, ManifestDocument, Platform, Progress,
    Reference, ResolvedImage, Result,
};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// OCI image specification, "Pre-Defined Annotation Keys": the tag of an entry of a layout's index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A directory that holds an image layout (OCI image specification, image-layout.md). Nothing is read before it is
/// asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciLayout {
    path: PathBuf,
}

/// Which image of a layout is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutName {
    /// The one with the tag `latest`; where there is none, the only one.
    #[default]
    Default,
    /// The one with this tag.
    Tag(String),
    /// The one whose manifest or index has this digest; the layout's own index need not list it.
    Digest(Digest),
}

impl std::fmt::Display for LayoutName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("latest"),
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

impl OciLayout {
    /// Names the layout in a directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what an image of the layout is, without its layers. The result calls it `reference`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such image, or none for the platform; [`Error::MissingBlob`],
    /// [`Error::DigestMismatch`] and [`Error::MalformedDocument`] for a damaged layout.
    pub fn resolve(
        &self,
        name: &LayoutName,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage> {
        let (files, limits) = (self.files()?, Limits::default());
        let missing = || Error::NotFound {
            kind: "image",
            name: format!("{name} of {}", self.path.display()),
        };
        let mut digest = match name {
            LayoutName::Digest(digest) => digest.clone(),
            _ => self.named(&files, name, &limits)?.ok_or_else(missing)?,
        };
        // An index of images for several platforms, and seldom one in it.
        for _ in 0..4 {
            let Some(bytes) = blob(&files, &digest, limits.json_bytes)? else {
                return Err(missing());
            };
            let index = match ManifestDocument::parse(&bytes, None)? {
                ManifestDocument::Index(index) => index,
                ManifestDocument::Manifest(manifest) => {
                    let id = manifest.config.digest()?;
                    let config = blob(&files, &id, limits.json_bytes)?.ok_or_else(|| Error::MissingBlob {
                        what: "config",
                        digest: id.clone(),
                    })?;
                    return ResolvedImage::with_digest(reference, digest, bytes, config);
                }
            };
            digest = index.select(platform).ok_or_else(missing)?.digest()?;
        }
        Err(Error::document(
            self.path.display().to_string(),
            "indexes within indexes",
        ))
    }

    fn named(&self, files: &Files, name: &LayoutName, limits: &Limits) -> Result<Option<Digest>> {
        let contents = ArchiveContents::read(files, limits)?;
        let wanted = name.to_string();
        let tagged = contents.manifests.iter().find(|entry| {
            let tag = entry.ref_name.as_deref();
            tag == Some(&wanted)
                || entry.image_name.as_deref() == Some(&wanted)
                // Many tools write the whole name where the tag alone belongs.
                || tag.and_then(|tag| Reference::parse(tag).ok()?.tag().map(|tag| tag == wanted)) == Some(true)
        });
        Ok(match (tagged, name, &contents.manifests[..]) {
            (Some(entry), ..) | (None, LayoutName::Default, [entry]) => Some(entry.digest.clone()),
            _ => None,
        })
    }

    /// Brings layers of an image of the layout into `store`: those of the diffIDs `wanted` that are not there. Nothing
    /// holds on to them but what pinned them before (see [`Lease::pin`](crate::Lease::pin)).
    ///
    /// # Errors
    /// [`Error::MissingBlob`] when the layout lacks a layer, [`Error::DigestMismatch`] and others as
    /// [`ImageStore::ingest_layer`] has them.
    pub fn fetch_layers(
        &self,
        image: &ResolvedImage,
        wanted: &[Digest],
        store: &ImageStore,
        progress: &Progress,
    ) -> Result<()> {
        let files = self.files()?;
        let lease = store.lease()?;
        for (layer, diff_id) in image.manifest().layers.iter().zip(image.diff_ids()) {
            if !wanted.contains(diff_id) || store.has_layer(diff_id) {
                continue;
            }
            let digest = layer.digest()?;
            let Some((stream, _)) = files.file(&blob_name(&digest))? else {
                return Err(Error::MissingBlob {
                    what: "layer",
                    digest,
                });
            };
            let mut stream = super::Watched::new(stream, &digest, layer.size, progress);
            store.ingest_layer(&lease, layer, diff_id, None, &mut stream)?;
            progress.emit(Event::LayerDone { digest });
        }
        Ok(())
    }

    /// Puts an image into the layout under a tag, which another image loses by that; makes the directory where there is
    /// none. Layers go uncompressed, so that one that is there already is not written again. What is there of other
    /// images stays.
    ///
    /// # Errors
    /// When a file cannot be written; [`Error::LayerChanged`] when a file of a layer was changed in the store;
    /// [`Error::MalformedDocument`] when something else than a layout is there.
    pub fn add(&self, image: &Image, tag: &str) -> Result<Digest> {
        let store = image.store();
        let lease = store.lease()?;
        lease.pin(image.id())?;
        let blobs = self.path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|e| Error::io("create", &blobs, e))?;
        let mut manifest = image.manifest().clone();
        for (descriptor, diff_id) in manifest.layers.iter_mut().zip(image.diff_ids()) {
            lease.pin(diff_id)?;
            let annotations = std::mem::take(&mut descriptor.annotations);
            *descriptor = Descriptor {
                annotations,
                ..Descriptor::new(media_type::OCI_LAYER, diff_id, self.layer(store, diff_id)?)
            };
        }
        let config = store.read_blob(image.id())?;
        self.blob(image.id(), &config)?;
        let bytes = serde_json::to_vec(&manifest).map_err(|e| Error::document("the new manifest", e))?;
        let digest = Digest::sha256_of(&bytes);
        self.blob(&digest, &bytes)?;
        let kind = manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST);
        let mut entry = Descriptor::new(kind, &digest, bytes.len() as u64);
        if let Some(kind) = &manifest.artifact_type {
            entry.other.insert("artifactType".to_owned(), kind.clone().into());
        }
        entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        self.list(entry, tag)?;
        Ok(digest)
    }

    /// Writes a layer's tar unless it is there; returns its size.
    fn layer(&self, store: &ImageStore, diff_id: &Digest) -> Result<u64> {
        let path = self.path.join(blob_name(diff_id));
        let (_, meta) = Layer::open(store.layout(), diff_id)?.extracted()?;
        if meta.tar_size > 0 && fs::metadata(&path).is_ok_and(|there| there.len() == meta.tar_size) {
            return Ok(meta.tar_size);
        }
        let mut size = 0;
        self.write(&path, |out| {
            let (found, written) = store.write_layer_tar(diff_id, out)?;
            if found != *diff_id {
                return Err(Error::DigestMismatch {
                    what: format!("layer {}, whose tar nobody kept", diff_id.short()),
                    expected: diff_id.clone(),
                    found,
                });
            }
            size = written;
            Ok(())
        })?;
        Ok(size)
    }

    fn blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(blob_name(digest));
        let dir = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        self.write(&path, |out| {
            out.write_all(bytes).map_err(|e| Error::io("write", &path, e))
        })
    }

    /// Writes a file that appears complete.
    fn write(&self, path: &Path, work: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|e| Error::io("read", "/dev/urandom", io::Error::other(e.to_string())))?;
        let name = format!(".{:016x}.new", u64::from_le_bytes(random));
        let scratch = path.with_file_name(name);
        let failed = |e| Error::io("write", path, e);
        let written = File::create_new(&scratch).map_err(failed).and_then(|file| {
            let mut out = io::BufWriter::with_capacity(256 << 10, file);
            work(&mut out)?;
            out.flush().map_err(failed)?;
            out.get_ref().sync_data().map_err(failed)?;
            fs::rename(&scratch, path).map_err(failed)
        });
        if written.is_err() {
            // It may not even have come to be.
            let _ = fs::remove_file(&scratch);
        }
        written
    }

    /// Has the index list an entry, in place of what has its tag.
    fn list(&self, entry: Descriptor, tag: &str) -> Result<()> {
        let dir = File::open(&self.path).map_err(|e| Error::io("open", &self.path, e))?;
        // Others may add theirs at the same time; the lock goes with the descriptor.
        rustix::fs::flock(&dir, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|e| Error::io("lock", &self.path, e))?;
        let path = self.path.join("index.json");
        let mut index = match fs::read(&path) {
            Ok(bytes) => match ManifestDocument::parse(&bytes, Some(media_type::OCI_INDEX))? {
                ManifestDocument::Index(index) => index,
                ManifestDocument::Manifest(_) => {
                    return Err(Error::document(path.display().to_string(), "it is not an index"));
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Index {
                schema_version: 2,
                media_type: Some(media_type::OCI_INDEX.to_owned()),
                ..Index::default()
            },
            Err(error) => return Err(Error::io("read", path, error)),
        };
        let same_tag = |other: &Descriptor| other.annotations.get(REF_NAME).is_some_and(|name| name == tag);
        index.manifests.retain(|other| !same_tag(other));
        index.manifests.push(entry);
        let mark = self.path.join("oci-layout");
        if !mark.exists() {
            self.write(&mark, |out| {
                out.write_all(br#"{"imageLayoutVersion":"1.0.0"}"#)
                    .map_err(|e| Error::io("write", &mark, e))
            })?;
        }
        let text = serde_json::to_vec(&index).map_err(|e| Error::document("index.json", e))?;
        self.write(&path, |out| {
            out.write_all(&text).map_err(|e| Error::io("write", &path, e))
        })
    }

    fn files(&self) -> Result<Files> {
        let found = fs::metadata(&self.path).map_err(|e| Error::io("open", &self.path, e))?;
        match found.is_dir() {
            true => Ok(Files::Dir(self.path.clone())),
            false => Err(Error::Unsupported {
                what: "an image layout that is not a directory".to_owned(),
                on: self.path.display().to_string(),
            }),
        }
    }
}
