//! Images come in from archives and layouts: `docker save` (old and new), OCI layouts as directory or tar.
mod contents;
mod directory;
mod files;

pub use contents::{ArchiveContents, DockerImage, LayoutEntry};
pub use directory::{LayoutName, OciLayout};

use crate::digest::Hasher;
use crate::layer::compression::Compression;
use crate::manifest::media_type;
use crate::reference::is_ref_name;
use crate::{
    Descriptor, Digest, Error, Event, Image, ImageConfig, ImageStore, Lease, Manifest, ManifestDocument,
    Platform, Progress, Reference, Result,
};
use contents::{blob, blob_name};
use files::Files;
use std::io::{self, Read};
use std::path::Path;

/// How an archive is imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportOptions {
    /// Refuse an archive with a tag that names another image in the store already, before anything of it comes in.
    pub keep_tags: bool,
    /// Which image of an index is taken; the host's by default.
    pub platform: Option<Platform>,
}

/// What an import did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ImportReport {
    /// In the archive's order.
    pub images: Vec<Image>,
    /// Tags that named another image before, and that image's id.
    pub overwritten: Vec<(Reference, Digest)>,
    /// Names in the archive that are not references; their images came in without them.
    pub invalid_names: Vec<String>,
    /// Entries of an index whose content the archive does not hold.
    pub absent: Vec<Digest>,
}

impl ImageStore {
    /// Imports a docker archive or OCI archive (plain, gzip, xz, zstd), or an OCI layout directory.
    pub fn import(&self, path: &Path, progress: &Progress) -> Result<Vec<Image>> {
        self.import_with(path, &ImportOptions::default(), progress)
            .map(|report| report.images)
    }

    /// As [`ImageStore::import`], from a stream that holds an archive.
    pub fn import_stream(&self, stream: &mut dyn Read, progress: &Progress) -> Result<Vec<Image>> {
        self.import_stream_with(stream, &ImportOptions::default(), progress)
            .map(|report| report.images)
    }

    /// As [`ImageStore::import`], with options, and says what it did to tags.
    pub fn import_with(
        &self,
        path: &Path,
        options: &ImportOptions,
        progress: &Progress,
    ) -> Result<ImportReport> {
        let files = Files::open(self.layout(), self.limits(), path)?;
        Import {
            store: self,
            files,
            options,
            progress,
            lease: self.lease()?,
            report: ImportReport::default(),
        }
        .run()
    }

    /// As [`ImageStore::import_with`], from a stream.
    pub fn import_stream_with(
        &self,
        stream: &mut dyn Read,
        options: &ImportOptions,
        progress: &Progress,
    ) -> Result<ImportReport> {
        let files = Files::spool(self.layout(), self.limits(), "the archive".to_owned(), stream)?;
        Import {
            store: self,
            files,
            options,
            progress,
            lease: self.lease()?,
            report: ImportReport::default(),
        }
        .run()
    }

    /// Returns what an archive or layout directory holds, without importing it.
    pub fn examine_archive(&self, path: &Path) -> Result<ArchiveContents> {
        ArchiveContents::read(&Files::open(self.layout(), self.limits(), path)?, self.limits())
    }
}

struct Import<'a> {
    store: &'a ImageStore,
    files: Files,
    options: &'a ImportOptions,
    progress: &'a Progress,
    lease: Lease,
    report: ImportReport,
}

/// An image that is to come in.
struct Planned<'c> {
    id: Digest,
    source: Source<'c>,
    names: Vec<String>,
}

enum Source<'c> {
    Manifest(Digest, Box<Manifest>),
    /// Without a manifest of its own.
    Docker(&'c DockerImage),
}

impl Import<'_> {
    fn run(mut self) -> Result<ImportReport> {
        let contents = ArchiveContents::read(&self.files, self.store.limits())?;
        let planned = self.plan(&contents)?;
        if self.options.keep_tags {
            self.check_tags(&planned)?;
        }
        for Planned { source, names, .. } in planned {
            let digest = match source {
                Source::Manifest(digest, manifest) => {
                    self.manifest(&digest, &manifest)?;
                    digest
                }
                Source::Docker(image) => self.docker_image(image)?,
            };
            self.commit(&digest, &names)?;
        }
        if self.report.images.is_empty() {
            return Err(Error::document(
                self.files.name(),
                "it holds no image for this platform",
            ));
        }
        Ok(self.report)
    }

    /// What is to come in, before anything does.
    fn plan<'c>(&mut self, contents: &'c ArchiveContents) -> Result<Vec<Planned<'c>>> {
        let mut planned: Vec<Planned<'c>> = Vec::new();
        for entry in &contents.manifests {
            let document = match blob(&self.files, &entry.digest, self.store.limits().json_bytes)? {
                Some(bytes) => Some(ManifestDocument::parse(&bytes, Some(&entry.media_type))?),
                None => None,
            };
            let found = match document {
                Some(ManifestDocument::Manifest(manifest)) => Some((entry.digest.clone(), manifest)),
                Some(ManifestDocument::Index(index)) => self.select(&index, 0)?,
                None => None,
            };
            let Some((digest, manifest)) = found else {
                self.report.absent.push(entry.digest.clone());
                continue;
            };
            let mut names: Vec<String> = match (&entry.image_name, &entry.ref_name) {
                (Some(name), _) => vec![name.clone()],
                // The specification has a bare tag here; many tools write the whole name.
                (None, Some(name)) if name.contains(['/', ':']) => vec![name.clone()],
                (None, Some(name)) => {
                    if !is_ref_name(name) {
                        self.report.invalid_names.push(name.clone());
                    }
                    Vec::new()
                }
                _ => Vec::new(),
            };
            let id = manifest.config.digest()?;
            for image in contents.images.iter().filter(|image| image.id == id) {
                let further = image.tags.iter().filter(|tag| !names.contains(tag));
                let further: Vec<_> = further.cloned().collect();
                names.extend(further);
            }
            let source = Source::Manifest(digest, Box::new(manifest));
            planned.push(Planned { id, source, names });
        }
        for image in &contents.images {
            if planned.iter().all(|known| known.id != image.id) {
                planned.push(Planned {
                    id: image.id.clone(),
                    source: Source::Docker(image),
                    names: image.tags.clone(),
                });
            }
        }
        Ok(planned)
    }

    /// No tag of the archive names another image already.
    fn check_tags(&self, planned: &[Planned<'_>]) -> Result<()> {
        for one in planned {
            for reference in one.names.iter().filter_map(|name| Reference::parse(name).ok()) {
                if let Ok(Some(old)) = self.store.get(reference.as_str())
                    && *old.id() != one.id
                {
                    return Err(Error::Exists {
                        what: "tag",
                        name: reference.familiar(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The image of an index for the wanted platform, where the archive holds it.
    fn select(&self, index: &crate::Index, depth: u32) -> Result<Option<(Digest, Manifest)>> {
        let platform = self.options.platform.clone().unwrap_or_else(Platform::host);
        let limit = self.store.limits().json_bytes;
        let Some(descriptor) = index.select(&platform) else {
            return Ok(None);
        };
        let digest = descriptor.digest()?;
        let Some(bytes) = blob(&self.files, &digest, limit)? else {
            return Ok(None);
        };
        match ManifestDocument::parse(&bytes, Some(&descriptor.media_type))? {
            ManifestDocument::Manifest(manifest) => Ok(Some((digest, manifest))),
            ManifestDocument::Index(inner) if depth < 4 => self.select(&inner, depth + 1),
            ManifestDocument::Index(_) => Err(Error::document(self.files.name(), "indexes within indexes")),
        }
    }

    /// Brings in the blobs of an OCI manifest.
    fn manifest(&self, digest: &Digest, manifest: &Manifest) -> Result<()> {
        let limit = self.store.limits().json_bytes;
        let missing = |what, digest: &Digest| Error::MissingBlob {
            what,
            digest: digest.clone(),
        };
        let id = manifest.config.digest()?;
        let bytes = blob(&self.files, &id, limit)?.ok_or_else(|| missing("config", &id))?;
        self.store.write_blob(&self.lease, &bytes, &id)?;
        let config = ImageConfig::parse(&bytes)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(Error::document(
                format!("manifest {digest}"),
                "its config has another number of layers",
            ));
        }
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            let blob = layer.digest()?;
            if self.store.has_layer(diff_id) {
                self.progress.emit(Event::LayerExists { digest: blob });
                continue;
            }
            let Some((stream, _)) = self.files.file(&blob_name(&blob))? else {
                return Err(missing("layer", &blob));
            };
            let mut stream = Watched::new(stream, &blob, layer.size, self.progress);
            self.store
                .ingest_layer(&self.lease, layer, diff_id, None, &mut stream)?;
            self.progress.emit(Event::LayerDone { digest: blob });
        }
        let bytes = blob(&self.files, digest, limit)?.ok_or_else(|| missing("manifest", digest))?;
        self.store.write_blob(&self.lease, &bytes, digest)
    }

    /// Brings in an image of a docker archive, and makes the manifest that it lacks.
    fn docker_image(&self, image: &DockerImage) -> Result<Digest> {
        let limit = self.store.limits().json_bytes;
        let missing = |what: &str| {
            Error::document(
                format!("manifest.json in {}", self.files.name()),
                format!("{what} is missing"),
            )
        };
        let config = self
            .files
            .document(&image.config, limit)?
            .ok_or_else(|| missing(&image.config))?;
        self.store.write_blob(&self.lease, &config, &image.id)?;
        let mut layers = Vec::new();
        for (name, diff_id) in image.layers.iter().zip(&image.diff_ids) {
            let (mut stream, size) = self.files.file(name)?.ok_or_else(|| missing(name))?;
            let mut start = [0; 6];
            let read = |source| Error::Stream {
                what: format!("{name} in {}", self.files.name()),
                source,
            };
            let mut count = 0;
            while count < start.len() {
                match stream.read(&mut start[count..]).map_err(read)? {
                    0 => break,
                    more => count += more,
                }
            }
            let compression = Compression::detect(&start[..count]);
            let mut whole = io::Cursor::new(start[..count].to_vec()).chain(stream);
            let (digest, size) = if !self.store.has_layer(diff_id) {
                let mut stream = Watched::new(Box::new(whole), diff_id, size, self.progress);
                let made = self.store.ingest_unnamed(&self.lease, diff_id, &mut stream)?;
                self.progress.emit(Event::LayerDone {
                    digest: diff_id.clone(),
                });
                made
            } else {
                self.progress.emit(Event::LayerExists {
                    digest: diff_id.clone(),
                });
                if compression == Compression::Plain {
                    (diff_id.clone(), size)
                } else {
                    (hash(&mut whole).map_err(read)?, size)
                }
            };
            let suffix = match compression {
                Compression::Gzip => "+gzip",
                Compression::Zstd => "+zstd",
                _ => "",
            };
            layers.push(Descriptor::new(
                format!("{}{suffix}", media_type::OCI_LAYER),
                &digest,
                size,
            ));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config: Descriptor::new(media_type::OCI_CONFIG, &image.id, config.len() as u64),
            layers,
            ..Manifest::default()
        };
        let bytes = serde_json::to_vec(&manifest).map_err(|e| Error::document("the new manifest", e))?;
        let digest = Digest::sha256_of(&bytes);
        self.store.write_blob(&self.lease, &bytes, &digest)?;
        Ok(digest)
    }

    fn commit(&mut self, manifest: &Digest, names: &[String]) -> Result<()> {
        let mut image = None;
        for name in names {
            let Ok(reference) = Reference::parse(name) else {
                self.report.invalid_names.push(name.clone());
                continue;
            };
            if let Ok(Some(old)) = self.store.get(reference.as_str())
                // Another manifest of the same config is the same image.
                && *old.id() != self.store.id_of(manifest)
            {
                self.report
                    .overwritten
                    .push((reference.clone(), old.id().clone()));
            }
            image = Some(self.store.commit(&self.lease, &reference, manifest)?);
            self.progress.emit(Event::Done {
                reference,
                digest: manifest.clone(),
            });
        }
        let image = match image {
            Some(image) => image,
            None => self.store.commit_untagged(&self.lease, manifest)?,
        };
        self.report.images.push(image);
        Ok(())
    }
}

fn hash(stream: &mut dyn Read) -> io::Result<Digest> {
    let mut hasher = Hasher::sha256();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Tells the progress how far a layer is.
struct Watched<'a> {
    stream: Box<dyn Read + 'a>,
    digest: Digest,
    done: u64,
    told: u64,
    total: u64,
    progress: &'a Progress,
}

impl<'a> Watched<'a> {
    fn new(stream: Box<dyn Read + 'a>, digest: &Digest, total: u64, progress: &'a Progress) -> Self {
        progress.emit(Event::LayerStarted {
            digest: digest.clone(),
            total,
        });
        Self {
            stream,
            digest: digest.clone(),
            done: 0,
            told: 0,
            total,
            progress,
        }
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(out)?;
        self.done += count as u64;
        if self.done - self.told >= 1 << 20 || (count == 0 && self.told < self.done) {
            self.told = self.done;
            let digest = self.digest.clone();
            self.progress.emit(Event::LayerProgress {
                digest,
                done: self.done,
                total: self.total,
            });
        }
        Ok(count)
    }
}
