//! Layers: a tar stream becomes a directory that overlayfs can stack.
//!
//! `names` and `tree` keep every path inside the layer, `extract` makes the files, `pipeline` feeds it in one
//! pass over the compressed stream, `chain` settles what depends on the layers below. `changes` and `write` go the
//! other way: what was written here becomes a layer. `skeleton`, `apart` and `assemble` bring back the tar that came in.
mod apart;
pub(crate) mod assemble;
mod attributes;
pub(crate) mod chain;
pub(crate) mod changes;
pub(crate) mod compression;
pub(crate) mod extract;
pub(crate) mod merged;
pub(crate) mod meta;
mod names;
pub(crate) mod pipeline;
pub(crate) mod remove;
pub(crate) mod rights;
pub(crate) mod skeleton;
mod tree;
pub(crate) mod write;

use crate::layout::{Layout, boot_id};
use crate::{Digest, Error, Result};
use meta::LayerMeta;
use std::fs;
use std::path::{Path, PathBuf};

/// A layer in the store. Its form is decided when it is written, and whoever stacks layers takes either.
#[derive(Debug)]
pub(crate) enum Layer {
    /// `fs/`: the files themselves.
    Extracted { fs: PathBuf, meta: LayerMeta },
    /// `layer.tar` and `index.erofs`: the exact tar, and the metadata to mount it by.
    Indexed { path: PathBuf },
}

impl Layer {
    pub(crate) fn open(layout: &Layout, diff_id: &Digest) -> Result<Self> {
        let path = layout.layer(diff_id);
        match fs::read(path.join("meta.json")) {
            Ok(bytes) => {
                let meta = LayerMeta::parse(&bytes)?;
                if !is_trusted(&path, &meta) {
                    return Err(Error::MissingBlob {
                        what: "layer",
                        digest: diff_id.clone(),
                    });
                }
                Ok(Self::Extracted {
                    fs: path.join("fs"),
                    meta,
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if path.join("index.erofs").exists() {
                    return Ok(Self::Indexed { path });
                }
                Err(Error::MissingBlob {
                    what: "layer",
                    digest: diff_id.clone(),
                })
            }
            Err(error) => Err(Error::io("read", path.join("meta.json"), error)),
        }
    }

    /// The directory form, the one this version stacks.
    pub(crate) fn extracted(self) -> Result<(PathBuf, LayerMeta)> {
        match self {
            Self::Extracted { fs, meta } => Ok((fs, meta)),
            Self::Indexed { path } => Err(Error::Unsupported {
                what: "a layer kept as tar with an index".to_owned(),
                on: path.display().to_string(),
            }),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Extracted { meta, .. } => meta.size,
            Self::Indexed { path } => fs::metadata(path.join("layer.tar")).map_or(0, |meta| meta.len()),
        }
    }
}

/// Bytes of what is kept in a layer's directory beside content of its tar: the record of the tar, and what is known of
/// the layer. Content is in the layer's own size, also where a later entry has replaced it and it lies apart.
pub(crate) fn size_beside(layer: &Path) -> u64 {
    // Whoever removes the layer meanwhile leaves nothing to count.
    let entries = fs::read_dir(layer).into_iter().flatten().flatten();
    let files = entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file);
    files.map(|meta| meta.len()).sum()
}

/// A layer that was never forced to the disk may be garbled after the machine went down.
fn is_trusted(path: &Path, meta: &LayerMeta) -> bool {
    meta.boot == boot_id() || synced_mark(path).exists()
}

/// The empty file that says that everything in the layer is on the disk.
pub(crate) fn synced_mark(layer: &Path) -> PathBuf {
    layer.join("synced")
}
