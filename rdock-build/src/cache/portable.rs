//! The cache as other machines read it: `CACHE.md` describes the document.
use super::record::{Key, Record};
use rdock_image::{Digest, ImageConfig, Platform, RootFs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Media type of the config of a cache that is no image.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.rdock.buildcache.config.v1+json";

/// The field of an image config that has a cache. Its number is that of the keys, too: other keys mean other things.
const FIELD: &str = "rdock.buildcache.v1";

/// A step's result, as another machine is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exported {
    /// By definition.
    pub(crate) key: Key,
    /// By the content of its inputs.
    pub(crate) content: Option<Key>,
    pub(crate) layer: Digest,
    /// Seconds since 1970.
    pub(crate) created: u64,
}

impl Exported {
    pub(crate) fn of(key: &Key, record: Record) -> Self {
        Self {
            key: key.clone(),
            content: record.content,
            layer: record.layer,
            created: record.created,
        }
    }
}

/// What the field holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    records: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// Its place in `rootfs.diff_ids`.
    layer: usize,
    #[serde(default)]
    created: u64,
}

/// Puts records into a config that has their layers already; those whose layers it lacks are left out.
pub(crate) fn put(config: &mut ImageConfig, records: &[Exported]) {
    let place = |layer: &Digest| config.rootfs.diff_ids.iter().position(|one| one == layer);
    let lines = records.iter().filter_map(|record| {
        Some(Line {
            key: record.key.as_str().to_owned(),
            content: record.content.as_ref().map(|key| key.as_str().to_owned()),
            layer: place(&record.layer)?,
            created: record.created,
        })
    });
    let document = Document {
        records: lines.collect(),
    };
    // A structure of texts and numbers is always JSON.
    if let Ok(value) = serde_json::to_value(&document) {
        config.other.insert(FIELD.to_owned(), value);
    }
}

/// A config that is a cache and nothing else.
pub(crate) fn config(platform: &Platform, records: &[Exported]) -> ImageConfig {
    let mut diff_ids: Vec<Digest> = Vec::new();
    for record in records {
        if !diff_ids.contains(&record.layer) {
            diff_ids.push(record.layer.clone());
        }
    }
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        rootfs: RootFs {
            diff_ids,
            ..RootFs::default()
        },
        ..ImageConfig::default()
    };
    put(&mut config, records);
    config
}

/// Reads the records of a config; `None` where it has none. What makes no sense is left out: it would be no hit.
pub(crate) fn records(config: &ImageConfig) -> Option<Vec<Exported>> {
    let document: Document = serde_json::from_value(config.other.get(FIELD)?.clone()).ok()?;
    let now = jiff::Timestamp::now().as_second().max(0).cast_unsigned();
    let lines = document.records.into_iter().filter_map(|line| {
        Some(Exported {
            key: Key::parse(&line.key)?,
            content: line.content.as_deref().and_then(Key::parse),
            layer: config.rootfs.diff_ids.get(line.layer)?.clone(),
            created: line.created.min(now),
        })
    });
    Some(lines.collect())
}

/// The records by each of their keys.
pub(crate) fn by_key(records: &[Exported]) -> BTreeMap<Key, Exported> {
    let mut found = BTreeMap::new();
    for record in records {
        for key in std::iter::once(&record.key).chain(&record.content) {
            found.entry(key.clone()).or_insert_with(|| record.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, layer: &[u8]) -> Exported {
        Exported {
            key: Key::of(name.as_bytes()),
            content: Some(Key::of(format!("content of {name}").as_bytes())),
            layer: Digest::sha256_of(layer),
            created: 7,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let records_of = |config: &ImageConfig| records(config).unwrap();
        let all = [record("a", b"1"), record("b", b"2"), record("c", b"1")];
        let made = config(&Platform::host(), &all);
        assert_eq!(made.rootfs.diff_ids.len(), 2);
        let bytes = serde_json::to_vec(&made).unwrap();
        assert_eq!(records_of(&ImageConfig::parse(&bytes).unwrap()), all);
        assert_eq!(by_key(&all).len(), 6);
        let mut image = ImageConfig::default();
        assert_eq!(records(&image), None);
        image.rootfs.diff_ids = vec![Digest::sha256_of(b"2")];
        put(&mut image, &all);
        assert_eq!(records_of(&image), all[1..2]);
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let good = record("a", b"1");
        let mut made = config(&Platform::host(), std::slice::from_ref(&good));
        let key = good.key.as_str();
        let lines = serde_json::json!([
            {"key": key, "layer": 1},
            {"key": "../../etc/passwd", "layer": 0},
            {"key": key.to_uppercase(), "layer": 0},
            {"key": &key[1..], "layer": 0},
            {"key": key, "content": "no key", "layer": 0, "created": u64::MAX},
        ]);
        made.other
            .insert(FIELD.to_owned(), serde_json::json!({"records": lines}));
        let found = records(&made).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].key, &found[0].content), (&good.key, &None));
        assert!(found[0].created < 1 << 40);
        for wrong in [
            serde_json::json!(null),
            serde_json::json!([]),
            serde_json::json!({"records": 1}),
            serde_json::json!({"records": [{"key": key, "layer": -1}]}),
        ] {
            made.other.insert(FIELD.to_owned(), wrong);
            assert_eq!(records(&made), None);
        }
    }
}
