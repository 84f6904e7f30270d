//! An override file changes a base, by the rules of the specification's "Merge" chapter.

use super::apply::port_key;
use super::service::ANY;
use super::{Object, Same, Shape};
use crate::yaml::{Map, MergeTag, Node, Value};
use std::collections::HashMap;

/// The base with what the override says. Both are canonical. Tags of the override stay on the result, so that it can
/// change one more base; [`Node::settle`] takes them off.
pub(crate) fn merge(shape: &Shape, base: Node, over: Node) -> Node {
    if over.tag.is_some() {
        return over;
    }
    // A base that itself replaces or resets what is below it goes on doing so.
    let tag = base.tag.filter(|tag| *tag == MergeTag::Override);
    if base.tag == Some(MergeTag::Reset) {
        return Node {
            tag: Some(MergeTag::Override),
            ..over
        };
    }
    let mut merged = untagged(shape, base, over);
    merged.tag = merged.tag.or(tag);
    merged
}

fn untagged(shape: &Shape, base: Node, over: Node) -> Node {
    if over.is_null() {
        return base;
    }
    match (shape, base.value, over.value) {
        (Shape::Nullable(inner), base_value, over_value) => untagged(
            inner,
            Node::new(base.span, base_value),
            Node::new(over.span, over_value),
        ),
        (Shape::Object(object) | Shape::Short(_, object), Value::Map(old), Value::Map(new)) => {
            Node::new(over.span, merge_object(object, old, new))
        }
        (
            Shape::Keyed(inner) | Shape::Named(inner) | Shape::Names(inner, _),
            Value::Map(old),
            Value::Map(new),
        ) => Node::new(over.span, Value::Map(merge_maps(old, new, |_| inner))),
        (Shape::Pairs(_), Value::Map(mut old), Value::Map(new)) => {
            old.extend(new);
            Node::new(over.span, Value::Map(old))
        }
        (Shape::Hosts, Value::Map(old), Value::Map(new)) => {
            let addresses = &Shape::List(&Shape::Text, Same::Value);
            Node::new(over.span, Value::Map(merge_maps(old, new, |_| addresses)))
        }
        (
            Shape::List(inner, same) | Shape::OneOrMany(inner, same),
            Value::List(mut old),
            Value::List(new),
        ) => {
            if let Same::Merge(key) = same {
                merge_lists(inner, &mut old, new, *key);
            } else {
                old.extend(new);
                unique(&mut old, *same);
            }
            Node::new(over.span, Value::List(old))
        }
        (Shape::Ports, Value::List(mut old), Value::List(new)) => {
            old.extend(new);
            unique(&mut old, Same::Key(port_key));
            Node::new(over.span, Value::List(old))
        }
        (Shape::Any, Value::Map(old), Value::Map(new)) => {
            Node::new(over.span, Value::Map(merge_maps(old, new, |_| &ANY)))
        }
        (Shape::Any, Value::List(mut old), Value::List(new)) => {
            old.extend(new);
            Node::new(over.span, Value::List(old))
        }
        (_, _, new) => Node::new(over.span, new),
    }
}

fn merge_object(object: &Object, old: Map, new: Map) -> Value {
    if let Some(key) = object.whole_unless_equal {
        let text = |map: &Map| map.get(key).and_then(|entry| entry.node.scalar_text());
        if let (Some(before), Some(after)) = (text(&old), text(&new))
            && before != after
        {
            return Value::Map(new);
        }
    }
    Value::Map(merge_maps(old, new, |key| object.field(key).unwrap_or(&ANY)))
}

fn merge_maps<'a>(mut old: Map, new: Map, shape: impl Fn(&str) -> &'a Shape) -> Map {
    for (key, entry) in new {
        match old.get_mut(&key) {
            Some(place) => {
                let empty = Node::new(place.node.span, Value::Null);
                let base = std::mem::replace(&mut place.node, empty);
                let keep = entry.node.is_null() && entry.node.tag.is_none();
                place.node = merge(shape(&key), base, entry.node);
                if !keep {
                    place.key = entry.key;
                }
            }
            None => {
                old.insert(key, entry);
            }
        }
    }
    old
}

fn merge_lists(inner: &Shape, old: &mut Vec<Node>, new: Vec<Node>, key: fn(&Node) -> String) {
    for node in new {
        let wanted = key(&node);
        match old.iter_mut().find(|other| key(other) == wanted) {
            Some(place) => {
                let base = std::mem::replace(place, Node::new(node.span, Value::Null));
                *place = merge(inner, base, node);
            }
            None => old.push(node),
        }
    }
}

/// One entry of each kind; the later takes the place of the earlier.
pub(super) fn unique(list: &mut Vec<Node>, same: Same) {
    let key: fn(&Node) -> String = match same {
        Same::Never | Same::Merge(_) => return,
        Same::Value => |node| match node.scalar_text() {
            Some(text) => text,
            None => node.to_json().to_string(),
        },
        Same::Key(key) => key,
    };
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<Node> = Vec::with_capacity(list.len());
    for node in std::mem::take(list) {
        match places.get(&key(&node)) {
            Some(place) => kept[*place] = node,
            None => {
                places.insert(key(&node), kept.len());
                kept.push(node);
            }
        }
    }
    *list = kept;
}
