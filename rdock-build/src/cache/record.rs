//! Keys of steps, and what is kept under them.
use rdock_image::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// The name of everything that a step's result depends on: 64 hexadecimal digits, so that it is a file name whatever
/// went into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key(String);

impl Key {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(
            Sha256::digest(bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }

    /// Reads what [`Key::as_str`] gave; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 64 && text.bytes().all(digit)).then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What went into a key, by a name that people understand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Components(pub(crate) BTreeMap<String, String>);

impl Components {
    pub(crate) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    pub(crate) fn key(&self, kind: &str) -> Key {
        // Lengths in front, so that no two sets give the same bytes.
        let mut bytes = format!("rdock step 1 {kind}\n").into_bytes();
        for (name, value) in &self.0 {
            for text in [name, value] {
                bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        Key::of(&bytes)
    }

    /// Names of what is another thing in `old`, sorted.
    pub(crate) fn changed(&self, old: &Self) -> Vec<String> {
        let names = self
            .0
            .keys()
            .chain(old.0.keys().filter(|name| !self.0.contains_key(*name)));
        let mut names: Vec<String> = names
            .filter(|name| self.0.get(*name) != old.0.get(*name))
            .cloned()
            .collect();
        names.sort();
        names
    }
}

/// A step's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) layer: Digest,
    /// Bytes in the layer's files.
    #[serde(default)]
    pub(crate) size: u64,
    /// For people.
    #[serde(default)]
    pub(crate) name: String,
    /// Seconds since 1970.
    #[serde(default)]
    pub(crate) created: u64,
    /// The stack it stands on.
    #[serde(default)]
    pub(crate) base: Vec<Digest>,
    /// The key by the content of the step's inputs, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<Key>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_sets_have_one_key() {
        let key = |pairs: &[(&str, &str)]| {
            let mut components = Components::default();
            pairs
                .iter()
                .for_each(|(name, value)| components.set(*name, *value));
            components.key("x")
        };
        let keys = [
            key(&[]),
            key(&[("a", "")]),
            key(&[("", "a")]),
            key(&[("a", "b")]),
            key(&[("ab", "")]),
            key(&[("a", "b"), ("c", "d")]),
            key(&[("a", "bc"), ("", "d")]),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert!(keys[at + 1..].iter().all(|other| other != one));
            assert!(one.as_str().len() == 64 && one.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn what_changed_is_named() {
        let mut old = Components::default();
        old.set("file a", "1");
        old.set("file b", "1");
        let mut new = old.clone();
        new.set("file a", "2");
        new.set("file c", "1");
        new.0.remove("file b");
        assert_eq!(new.changed(&old), ["file a", "file b", "file c"]);
    }
}
