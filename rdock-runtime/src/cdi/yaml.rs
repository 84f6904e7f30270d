//! YAML as serde reads it, with the line of what is wrong.
//!
//! One document of mappings, sequences and scalars; anchors, aliases and tags are refused, so a text costs no more than
//! it is long.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};
use std::fmt;

/// Collections inside each other.
const DEPTH: usize = 32;

/// Where and why a text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct YamlError {
    /// From 1; `None` where serde says something that has no place.
    pub(super) place: Option<(usize, usize)>,
    pub(super) reason: String,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for YamlError {}

impl de::Error for YamlError {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self {
            place: None,
            reason: reason.to_string(),
        }
    }
}

/// Reads one document.
///
/// # Errors
/// When it is not YAML, has what is refused here, or is not a `T`.
pub(super) fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    T::deserialize(&tree(text)?)
}

#[derive(Debug)]
struct Node {
    place: (usize, usize),
    value: Value,
}

#[derive(Debug)]
enum Value {
    /// Its text, and whether it was written without quotes.
    Scalar(String, bool),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// A collection that is not finished, and the key whose value comes next.
struct Open {
    node: Node,
    key: Option<Node>,
}

fn tree(text: &str) -> Result<Node, YamlError> {
    let place = |mark: Marker| (mark.line(), mark.col() + 1);
    let wrong = |mark: Marker, reason: String| YamlError {
        place: Some(place(mark)),
        reason,
    };
    let mut stack: Vec<Open> = Vec::new();
    let mut document = None;
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|error| wrong(*error.marker(), format!("not YAML: {}", error.info())))?;
        let mark = span.start;
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag) => (*anchor, tag.is_some()),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => (*anchor, tag.is_some()),
            Event::Alias(anchor) => (*anchor, false),
            _ => (0, false),
        };
        if anchor != 0 || tag {
            return Err(wrong(
                mark,
                "anchors, aliases and tags are not used in these files".into(),
            ));
        }
        let node = |value| Node {
            place: place(mark),
            value,
        };
        let complete = match event {
            Event::Scalar(text, style, ..) => {
                node(Value::Scalar(text.into_owned(), style == ScalarStyle::Plain))
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if stack.len() >= DEPTH {
                    return Err(wrong(
                        mark,
                        format!("more than {DEPTH} collections inside each other"),
                    ));
                }
                let value = match event {
                    Event::SequenceStart(..) => Value::List(Vec::new()),
                    _ => Value::Map(Vec::new()),
                };
                stack.push(Open {
                    node: node(value),
                    key: None,
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some(open) => open.node,
                None => continue,
            },
            _ => continue,
        };
        match stack.last_mut() {
            None if document.is_some() => return Err(wrong(mark, "more than one document".into())),
            None => document = Some(complete),
            Some(open) => match &mut open.node.value {
                Value::Map(entries) => match open.key.take() {
                    None => open.key = Some(complete),
                    Some(key) => entries.push((key, complete)),
                },
                Value::List(list) => list.push(complete),
                Value::Scalar(..) => {}
            },
        }
    }
    document.ok_or_else(|| YamlError {
        place: None,
        reason: "the file is empty".into(),
    })
}

/// An integer as YAML 1.2 writes it, and an octal one as YAML 1.1 did.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', b'o', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    match digits.starts_with(|first: char| first.is_ascii_hexdigit()) {
        true => i64::from_str_radix(digits, radix).ok()?.checked_mul(sign),
        false => None,
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

impl Node {
    /// Gives an error without a place this one.
    fn here<T>(&self, result: Result<T, YamlError>) -> Result<T, YamlError> {
        result.map_err(|error| YamlError {
            place: error.place.or(Some(self.place)),
            ..error
        })
    }
}

impl<'de> IntoDeserializer<'de, YamlError> for &'de Node {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = YamlError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        self.here(match &self.value {
            Value::List(list) => visitor.visit_seq(SeqDeserializer::new(list.iter())),
            Value::Map(entries) => visitor.visit_map(MapDeserializer::new(
                entries.iter().map(|(key, value)| (key, value)),
            )),
            Value::Scalar(text, true) if is_null(text) => visitor.visit_unit(),
            Value::Scalar(text, true) => match (text.as_str(), integer(text)) {
                ("true" | "True" | "TRUE", _) => visitor.visit_bool(true),
                ("false" | "False" | "FALSE", _) => visitor.visit_bool(false),
                (_, Some(number)) => visitor.visit_i64(number),
                (text, None) => visitor.visit_borrowed_str(text),
            },
            Value::Scalar(text, false) => visitor.visit_borrowed_str(text),
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        match &self.value {
            Value::Scalar(text, true) if is_null(text) => self.here(visitor.visit_none()),
            _ => self.here(visitor.visit_some(self)),
        }
    }

    /// Whatever a scalar looks like, it is a text where one is wanted: `name: 0`, `cdiVersion: 0.6`.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        match &self.value {
            Value::Scalar(text, plain) if !(*plain && is_null(text)) => {
                self.here(visitor.visit_borrowed_str(text))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, YamlError> {
        self.here(visitor.visit_newtype_struct(self))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    #[test]
    fn scalars_lists_and_maps() {
        let text = "a: 1\nb: [x, 'y', \"1\", ~, true, 0o17, 010, -3, 0x1f]\nc:\n  - d: {e: f}\n  - null\n";
        let json: Json = from_str(text).expect("yaml");
        assert_eq!(
            json,
            json!({"a": 1, "b": ["x", "y", "1", null, true, 15, 8, -3, 31], "c": [{"d": {"e": "f"}}, null]})
        );
        // JSON is YAML.
        let json: Json = from_str("{\n\t\"a\": [1, {\"b\": \"c\"}]\n}\n").expect("json");
        assert_eq!(json, json!({"a": [1, {"b": "c"}]}));
        let names: Vec<String> = from_str("[0, 1.0, true, 'null']").expect("texts");
        assert_eq!(names, ["0", "1.0", "true", "null"]);
    }

    #[test]
    fn an_error_has_its_place() {
        let line = |text: &str| {
            from_str::<Json>(text)
                .expect_err(text)
                .place
                .map(|(line, _)| line)
        };
        assert!(line("a: b\nc: [\n").is_some_and(|line| line >= 2));
        assert_eq!(line("b: 1\na: &x 1\n"), Some(2));
        assert_eq!(line("b: 1\na: !!str 1\n"), Some(2));
        assert!(line("a: 1\n---\nb: 2\n").is_some_and(|line| line >= 2));
        assert_eq!(line(""), None);
        let numbers = from_str::<Vec<u32>>("- 1\n- x\n").expect_err("text");
        assert_eq!(numbers.place, Some((2, 3)));
        let deep = "[".repeat(40);
        assert!(from_str::<Json>(&deep).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), near in "[\\[\\]{}:, \n\ta0'\"&*!-]{0,40}") {
            for text in [text, near] {
                let _ = from_str::<Json>(&text);
            }
        }
    }
}
