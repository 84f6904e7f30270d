//! What an archive or a layout directory says it holds.
use super::files::Files;
use crate::manifest::nullable;
use crate::store::Limits;
use crate::{Digest, Error, ImageConfig, Index, ManifestDocument, Result};
use serde::Deserialize;

/// What an archive holds, read without importing it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ArchiveContents {
    /// Images of Docker's `manifest.json`, in its order.
    pub images: Vec<DockerImage>,
    /// Entries of an OCI layout's `index.json`, in its order.
    pub manifests: Vec<LayoutEntry>,
}

/// An image of a docker archive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DockerImage {
    /// As written.
    pub tags: Vec<String>,
    /// Digest of the config.
    pub id: Digest,
    /// Its layers, the base first.
    pub diff_ids: Vec<Digest>,
    /// As the config says.
    pub os: String,
    /// As the config says.
    pub architecture: String,
    pub(super) config: String,
    pub(super) layers: Vec<String>,
}

/// An entry of an OCI layout's index.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayoutEntry {
    /// As written.
    pub media_type: String,
    /// Of the document.
    pub digest: Digest,
    /// Of the document, in bytes.
    pub size: u64,
    /// Annotation `org.opencontainers.image.ref.name`.
    pub ref_name: Option<String>,
    /// Annotation `io.containerd.image.name`.
    pub image_name: Option<String>,
    /// The document itself; `None` where the layout does not hold it.
    pub document: Option<ManifestDocument>,
    /// The layout holds something else under the document's name.
    pub wrong_content: bool,
}

/// One object of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default, deserialize_with = "nullable")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    layers: Vec<String>,
}

/// The file `oci-layout`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutMark {
    image_layout_version: String,
}

impl ArchiveContents {
    pub(super) fn read(files: &Files, limits: &Limits) -> Result<Self> {
        let mut contents = Self::default();
        let limit = limits.json_bytes;
        let malformed =
            |name: &str, reason: String| Error::document(format!("{name} in {}", files.name()), reason);
        let docker = files.document("manifest.json", limit)?;
        if let Some(bytes) = &docker {
            let saved: Vec<SavedImage> =
                serde_json::from_slice(bytes).map_err(|e| malformed("manifest.json", e.to_string()))?;
            for image in saved {
                let missing = || {
                    malformed(
                        "manifest.json",
                        format!("the config {} is not in the archive", image.config),
                    )
                };
                let bytes = files.document(&image.config, limit)?.ok_or_else(missing)?;
                let config = ImageConfig::parse(&bytes)?;
                if config.rootfs.diff_ids.len() != image.layers.len() {
                    return Err(malformed(
                        "manifest.json",
                        format!(
                            "an image has {} layers, its config {}",
                            image.layers.len(),
                            config.rootfs.diff_ids.len()
                        ),
                    ));
                }
                contents.images.push(DockerImage {
                    tags: image.repo_tags,
                    id: Digest::sha256_of(&bytes),
                    diff_ids: config.rootfs.diff_ids,
                    os: config.os,
                    architecture: config.architecture,
                    config: image.config,
                    layers: image.layers,
                });
            }
        }
        if let Some(bytes) = files.document("oci-layout", limit)? {
            let mark: LayoutMark =
                serde_json::from_slice(&bytes).map_err(|e| malformed("oci-layout", e.to_string()))?;
            if mark.image_layout_version != "1.0.0" {
                return Err(Error::Unsupported {
                    what: format!("version {:?} of the OCI image layout", mark.image_layout_version),
                    on: String::new(),
                });
            }
        }
        let index = files.document("index.json", limit)?;
        if let Some(bytes) = &index {
            let ManifestDocument::Index(index) =
                ManifestDocument::parse(bytes, Some(crate::manifest::media_type::OCI_INDEX))?
            else {
                return Err(malformed("index.json", "it is not an index".to_owned()));
            };
            contents.manifests = entries(files, &index, limit)?;
        }
        if docker.is_none() && index.is_none() {
            return Err(Error::document(
                files.name(),
                "neither a docker archive nor an OCI layout",
            ));
        }
        Ok(contents)
    }
}

fn entries(files: &Files, index: &Index, limit: u64) -> Result<Vec<LayoutEntry>> {
    let mut entries = Vec::new();
    for descriptor in &index.manifests {
        let digest = descriptor.digest()?;
        let annotation = |name: &str| descriptor.annotations.get(name).cloned();
        let (mut document, mut wrong_content) = (None, false);
        match blob(files, &digest, limit) {
            // What it is listed as is checked when it is imported.
            Ok(Some(bytes)) => document = ManifestDocument::parse(&bytes, None).ok(),
            Ok(None) => {}
            Err(Error::DigestMismatch { .. }) => wrong_content = true,
            Err(error) => return Err(error),
        }
        entries.push(LayoutEntry {
            media_type: descriptor.media_type.clone(),
            digest,
            size: descriptor.size,
            ref_name: annotation("org.opencontainers.image.ref.name"),
            image_name: annotation("io.containerd.image.name"),
            document,
            wrong_content,
        });
    }
    Ok(entries)
}

pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// A document of a layout, checked against its digest.
pub(super) fn blob(files: &Files, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(bytes) = files.document(&blob_name(digest), limit)? else {
        return Ok(None);
    };
    let found = digest.of_same_kind(&bytes);
    if found != *digest {
        return Err(Error::DigestMismatch {
            what: format!("{} in {}", blob_name(digest), files.name()),
            expected: digest.clone(),
            found,
        });
    }
    Ok(Some(bytes))
}
