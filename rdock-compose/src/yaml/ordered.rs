//! Data whose mappings keep their order: what is printed.

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;
use std::fmt;

/// JSON data in the order in which it was made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ordered {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Ordered>),
    Map(Vec<(String, Ordered)>),
}

impl Ordered {
    /// Whatever can be printed as JSON, in its own order.
    pub(crate) fn of(value: &impl Serialize) -> Self {
        let text = serde_json::to_string(value).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or(Self::Null)
    }

    pub(crate) fn empty() -> Self {
        Self::Map(Vec::new())
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::List(list) => list.is_empty(),
            Self::Map(map) => map.is_empty(),
            _ => false,
        }
    }

    pub(crate) fn map_mut(&mut self) -> Option<&mut Vec<(String, Self)>> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let found = self.map_mut()?.iter_mut().find(|(name, _)| name == key);
        found.map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, key: &str) {
        if let Some(map) = self.map_mut() {
            map.retain(|(name, _)| name != key);
        }
    }

    /// The elements of the list that stands there; none if there is none.
    pub(crate) fn elements(&mut self, key: &str) -> &mut [Self] {
        match self.get_mut(key) {
            Some(Self::List(list)) => list,
            _ => &mut [],
        }
    }

    /// The values of the mapping that stands there; none if there is none.
    pub(crate) fn entries(&mut self, key: &str) -> impl Iterator<Item = &mut Self> {
        let map = self.get_mut(key).and_then(Self::map_mut);
        map.into_iter().flatten().map(|(_, value)| value)
    }

    /// Adds a key that is missing, before the first of `later` that is there.
    pub(crate) fn add(&mut self, key: &str, value: Self, later: &[&str]) {
        if let Some(map) = self.map_mut()
            && !map.iter().any(|(name, _)| name == key)
        {
            let at = map.iter().position(|(name, _)| later.contains(&name.as_str()));
            map.insert(at.unwrap_or(map.len()), (key.to_owned(), value));
        }
    }
}

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => serializer.collect_seq(list),
            Self::Map(map) => serializer.collect_map(map.iter().map(|(key, value)| (key, value))),
        }
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Ordered;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON data")
    }

    fn visit_unit<E>(self) -> Result<Ordered, E> {
        Ok(Ordered::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
        Ok(Ordered::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
        Ok(Ordered::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
        Ok(Ordered::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Ordered, E> {
        Ok(Number::from_f64(value).map_or(Ordered::Null, Ordered::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Ordered, E> {
        Ok(Ordered::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ordered, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(Ordered::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Ordered, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = access.next_entry()? {
            map.push(entry);
        }
        Ok(Ordered::Map(map))
    }
}
