//! Images go out: one tar that is an OCI image layout and a docker archive at once, as `docker save` writes it.
use crate::manifest::media_type;
use crate::{Descriptor, Digest, Error, Image, ImageStore, Index, Manifest, Reference, Result};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

/// How images are exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportOptions {
    /// Leave docker's `manifest.json` out: an OCI image layout and nothing else.
    pub oci_only: bool,
}

impl ExportOptions {
    /// An OCI image layout and nothing else.
    pub fn oci_only(mut self, oci_only: bool) -> Self {
        self.oci_only = oci_only;
        self
    }
}

/// What an export did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportReport {
    /// Digests of the exported manifests, in the order of the images.
    pub manifests: Vec<Digest>,
    /// Images that have another id in the archive, and that id: a layer of theirs came from elsewhere before the store
    /// kept what makes its tar again, and the tar made from its files is another one.
    pub renamed: Vec<(Digest, Digest)>,
}

/// A layer as it goes out.
struct Outgoing {
    /// What the store calls it.
    diff_id: Digest,
    /// Of the tar that is written.
    digest: Digest,
    size: u64,
}

struct OutgoingImage {
    config: Vec<u8>,
    config_digest: Digest,
    manifest: Vec<u8>,
    manifest_digest: Digest,
    layers: Vec<Digest>,
    names: Vec<Reference>,
}

impl ImageStore {
    /// Writes `images`, each with the names given beside it, to `out` as one uncompressed tar that docker, podman,
    /// skopeo and [`ImageStore::import`] read. Layers are made from the stored files, uncompressed, and to the byte
    /// what they were, so images keep their ids.
    ///
    /// # Errors
    /// When an image is not complete, [`Error::LayerChanged`] and [`Error::DigestMismatch`] when a file of it was
    /// changed in the store, and what `out` says.
    pub fn export(
        &self,
        images: &[(Image, Vec<Reference>)],
        options: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<ExportReport> {
        let lease = self.lease()?;
        let mut report = ExportReport::default();
        let mut layers: BTreeMap<Digest, Outgoing> = BTreeMap::new();
        let mut outgoing = Vec::new();
        for (image, names) in images {
            lease.pin(image.id())?;
            for diff_id in image.diff_ids() {
                if layers.contains_key(diff_id) {
                    continue;
                }
                lease.pin(diff_id)?;
                let (digest, size) = match self.layer(diff_id)?.tar_size {
                    // Nobody knows what its tar will be.
                    0 => self.write_layer_tar(diff_id, &mut io::sink())?,
                    size => (diff_id.clone(), size),
                };
                layers.insert(
                    diff_id.clone(),
                    Outgoing {
                        diff_id: diff_id.clone(),
                        digest,
                        size,
                    },
                );
            }
            let made = self.outgoing(image, names, &layers)?;
            if made.config_digest != *image.id() {
                report
                    .renamed
                    .push((image.id().clone(), made.config_digest.clone()));
            }
            report.manifests.push(made.manifest_digest.clone());
            outgoing.push(made);
        }
        let mut tar = tar::Builder::new(out);
        self.put_all(&mut tar, &outgoing, &layers, options)
            .and_then(|()| tar.finish().map_err(failed))?;
        Ok(report)
    }

    fn outgoing(
        &self,
        image: &Image,
        names: &[Reference],
        layers: &BTreeMap<Digest, Outgoing>,
    ) -> Result<OutgoingImage> {
        let sent: Vec<&Outgoing> = image
            .diff_ids()
            .iter()
            .filter_map(|diff_id| layers.get(diff_id))
            .collect();
        let config = if sent.iter().all(|layer| layer.digest == layer.diff_id) {
            self.read_blob(image.id())?
        } else {
            let mut config = image.config().clone();
            config.rootfs.diff_ids = sent.iter().map(|layer| layer.digest.clone()).collect();
            serde_json::to_vec(&config).map_err(|e| Error::document("the image config", e))?
        };
        let config_digest = Digest::sha256_of(&config);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config: Descriptor::new(media_type::OCI_CONFIG, &config_digest, config.len() as u64),
            layers: sent
                .iter()
                .map(|layer| Descriptor::new(media_type::OCI_LAYER, &layer.digest, layer.size))
                .collect(),
            ..Manifest::default()
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|e| Error::document("the manifest", e))?;
        Ok(OutgoingImage {
            manifest_digest: Digest::sha256_of(&manifest),
            layers: sent.iter().map(|layer| layer.digest.clone()).collect(),
            config,
            config_digest,
            manifest,
            names: names.to_vec(),
        })
    }

    fn put_all<W: Write>(
        &self,
        tar: &mut tar::Builder<W>,
        images: &[OutgoingImage],
        layers: &BTreeMap<Digest, Outgoing>,
        options: &ExportOptions,
    ) -> Result<()> {
        put(tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            ..Index::default()
        };
        let mut docker = Vec::new();
        for image in images {
            let descriptor = || {
                Descriptor::new(
                    media_type::OCI_MANIFEST,
                    &image.manifest_digest,
                    image.manifest.len() as u64,
                )
            };
            if image.names.is_empty() {
                index.manifests.push(descriptor());
            }
            for name in &image.names {
                let mut descriptor = descriptor();
                // containerd's annotation holds the whole name, OCI's the tag alone.
                let annotations = &mut descriptor.annotations;
                annotations.insert(
                    "io.containerd.image.name".to_owned(),
                    name.canonical().to_string(),
                );
                if let Some(tag) = name.canonical().tag() {
                    annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
                }
                index.manifests.push(descriptor);
            }
            docker.push(json!({
                "Config": blob(&image.config_digest),
                "RepoTags": image.names.iter().map(Reference::familiar).collect::<Vec<_>>(),
                "Layers": image.layers.iter().map(blob).collect::<Vec<_>>(),
            }));
        }
        let text = serde_json::to_vec(&index).map_err(|e| Error::document("index.json", e))?;
        put(tar, "index.json", &text)?;
        if !options.oci_only {
            let text = serde_json::to_vec(&docker).map_err(|e| Error::document("manifest.json", e))?;
            put(tar, "manifest.json", &text)?;
        }
        let mut written = BTreeSet::new();
        for image in images {
            for (digest, bytes) in [
                (&image.manifest_digest, &image.manifest),
                (&image.config_digest, &image.config),
            ] {
                if written.insert(digest.clone()) {
                    put(tar, &blob(digest), bytes)?;
                }
            }
        }
        for layer in layers.values() {
            if !written.insert(layer.digest.clone()) {
                continue;
            }
            let header = header(layer.size);
            let mut header = header;
            header.set_path(blob(&layer.digest)).map_err(failed)?;
            header.set_cksum();
            let out = tar.get_mut();
            out.write_all(header.as_bytes()).map_err(failed)?;
            let (digest, size) = self.write_layer_tar(&layer.diff_id, out)?;
            if digest != layer.digest || size != layer.size {
                return Err(Error::DigestMismatch {
                    what: format!("layer {}, which changed while it was read", layer.diff_id.short()),
                    expected: layer.digest.clone(),
                    found: digest,
                });
            }
            let padding = (512 - size % 512) % 512;
            out.write_all(&[0; 512][..padding as usize]).map_err(failed)?;
        }
        Ok(())
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn header(size: u64) -> tar::Header {
    // GNU, whose size field has no limit.
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header
}

fn put<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> Result<()> {
    tar.append_data(&mut header(bytes.len() as u64), name, bytes)
        .map_err(failed)
}

fn failed(source: io::Error) -> Error {
    Error::Stream {
        what: "the archive being written".to_owned(),
        source,
    }
}
