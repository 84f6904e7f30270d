//! A YAML tree whose every node knows where it stands.
//!
//! The events are the parser crate's; anchors, merge keys, scalar types, duplicate keys and limits are decided here,
//! as the Go programs that compose files are written for decide them.

mod emit;
mod ordered;
mod parse;
mod scalar;

pub(crate) use emit::emit;
pub(crate) use ordered::Ordered;
pub(crate) use parse::{Limits, parse};
pub(crate) use scalar::{float_text, plain};

use crate::source::Span;
use indexmap::IndexMap;
use serde_json::json;

/// How a node takes part in a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MergeTag {
    /// `!reset`: what the base has here goes away, and this too.
    Reset,
    /// `!override`: this replaces what the base has here.
    Override,
}

/// One value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) tag: Option<MergeTag>,
    pub(crate) value: Value,
}

/// A mapping, in the order of the file.
pub(crate) type Map = IndexMap<String, Entry>;

/// A key's place and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Span,
    pub(crate) node: Node,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

impl Node {
    pub(crate) fn new(span: Span, value: Value) -> Self {
        Self {
            span,
            tag: None,
            value,
        }
    }

    pub(crate) fn text(span: Span, text: impl Into<String>) -> Self {
        Self::new(span, Value::Text(text.into()))
    }

    pub(crate) fn empty_map(span: Span) -> Self {
        Self::new(span, Value::Map(Map::new()))
    }

    /// A mapping made here, whose keys all stand where it does.
    pub(crate) fn object<const N: usize>(span: Span, entries: [(&str, Value); N]) -> Self {
        let entries = entries.into_iter().map(|(key, value)| {
            (
                key.to_owned(),
                Entry {
                    key: span,
                    node: Self::new(span, value),
                },
            )
        });
        Self::new(span, Value::Map(entries.collect()))
    }

    /// How many values it is, itself counted.
    pub(crate) fn count(&self) -> usize {
        1 + match &self.value {
            Value::List(list) => list.iter().map(Self::count).sum(),
            Value::Map(map) => map.values().map(|entry| entry.node.count()).sum::<usize>(),
            _ => 0,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The value of a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(key).map(|entry| &entry.node)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.as_map_mut()?.get_mut(key).map(|entry| &mut entry.node)
    }

    /// Sets a key of a mapping; the key stands where its value does.
    pub(crate) fn set(&mut self, key: &str, node: Node) {
        if let Some(map) = self.as_map_mut() {
            map.insert(key.to_owned(), Entry { key: node.span, node });
        }
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Node> {
        self.as_map_mut()?.shift_remove(key).map(|entry| entry.node)
    }

    /// The scalar as text, as Go prints it; null and collections have none.
    pub(crate) fn scalar_text(&self) -> Option<String> {
        match &self.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Float(value) => Some(float_text(*value)),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What kind of value it is, for people.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The deepest node on a way of keys and indexes, with the place of the key that led to it.
    pub(crate) fn span_of(&self, path: &[&str]) -> Span {
        let (mut node, mut span) = (self, self.span);
        for step in path {
            match &node.value {
                Value::Map(map) => match map.get(*step) {
                    Some(entry) => (node, span) = (&entry.node, entry.key),
                    None => break,
                },
                Value::List(list) => match step.parse::<usize>().ok().and_then(|index| list.get(index)) {
                    Some(next) => (node, span) = (next, next.span),
                    None => break,
                },
                _ => break,
            }
        }
        span
    }

    /// Nothing below is tagged any more; what was to be reset is gone.
    pub(crate) fn settle(&mut self) {
        self.tag = None;
        match &mut self.value {
            Value::Map(map) => {
                map.retain(|_, entry| entry.node.tag != Some(MergeTag::Reset));
                map.values_mut().for_each(|entry| entry.node.settle());
            }
            Value::List(list) => {
                list.retain(|node| node.tag != Some(MergeTag::Reset));
                list.iter_mut().for_each(Node::settle);
            }
            _ => {}
        }
    }

    /// The same data as JSON; numbers that JSON does not have become null.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => json!(value),
            Value::Int(value) => json!(value),
            Value::Float(value) => json!(value),
            Value::Text(text) => json!(text),
            Value::List(list) => list.iter().map(Node::to_json).collect(),
            Value::Map(map) => serde_json::Value::Object(
                map.iter()
                    .map(|(key, entry)| (key.clone(), entry.node.to_json()))
                    .collect(),
            ),
        }
    }
}
