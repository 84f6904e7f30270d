//! What is kept beside an extracted layer: `meta.json`, and `owners` where this user may not set owners.
use super::names;
use crate::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// A path in a layer: bytes, as text in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LayerPath(pub(crate) Vec<u8>);

impl Serialize for LayerPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&names::to_text(&self.0))
    }
}

impl<'de> Deserialize<'de> for LayerPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        names::from_text(&text)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a bad escape in a path"))
    }
}

/// Owner, mode and time of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
}

/// Whether files have the owners the layer gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ownership {
    /// Owners, device nodes and attributes are as in the tar; overlay attributes are `trusted.`.
    #[default]
    Exact,
    /// Everything belongs to the store's user; the rest is in `owners`; overlay attributes are `user.`.
    SingleId,
}

/// `meta.json` of an extracted layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LayerMeta {
    pub(crate) ownership: Ownership,
    /// Bytes in files.
    pub(crate) size: u64,
    pub(crate) entries: u64,
    /// Bytes of the tar.
    pub(crate) tar_size: u64,
    /// The layer's own entry for its root.
    pub(crate) root: Option<Attributes>,
    /// The root is opaque: nothing of the layers below is visible.
    pub(crate) opaque_root: bool,
    /// Directories made because something is in them, without an entry: a layer below decides what they are.
    pub(crate) implicit: BTreeSet<LayerPath>,
    /// Hard links (path to target, as written) whose target is not in this layer.
    pub(crate) links: BTreeMap<LayerPath, LayerPath>,
    /// The boot during which the layer was written; it is trusted after another boot only when it was synced.
    pub(crate) boot: String,
}

impl LayerMeta {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| Error::document("a layer's meta.json", error))
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::document("a layer's meta.json", error))
    }

    /// Says whether the layer can only be used together with what its chain adds to it.
    pub(crate) fn needs_chain(&self) -> bool {
        !self.implicit.is_empty() || !self.links.is_empty()
    }
}

/// One line of `owners`: what this user could not give the file itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct OwnerRecord {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Attributes that could not be set: name to hexadecimal value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) xattrs: BTreeMap<LayerPath, String>,
    /// A device node that was not made: `c` or `b`, major, minor, mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<(char, u32, u32, u32)>,
}

impl OwnerRecord {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The `owners` file: JSON Lines of `[path, record]`.
pub(crate) fn owners_to_lines(owners: &BTreeMap<Vec<u8>, OwnerRecord>) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for (path, record) in owners {
        let line = (LayerPath(path.clone()), record);
        serde_json::to_writer(&mut text, &line)
            .map_err(|error| Error::document("a layer's owners", error))?;
        text.push(b'\n');
    }
    Ok(text)
}

pub(crate) fn owners_from_lines(text: &[u8]) -> Result<BTreeMap<Vec<u8>, OwnerRecord>> {
    text.split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            serde_json::from_slice::<(LayerPath, OwnerRecord)>(line)
                .map(|(path, record)| (path.0, record))
                .map_err(|error| Error::document("a layer's owners", error))
        })
        .collect()
}
