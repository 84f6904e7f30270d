//! Taking the `x-*` keys out of what is printed.

use super::service::PORT;
use super::{Object, Shape, TOP};
use crate::yaml::Ordered;

/// Without the `x-*` keys of everything below the document's own.
pub(crate) fn without_extensions(document: &mut Ordered) {
    fields(&TOP, document);
}

/// Without the `x-*` keys of a value and of everything in it. Keys of the user's (names, labels) stay.
pub(crate) fn without_extensions_of(shape: &Shape, tree: &mut Ordered) {
    let object: &Object = match shape {
        Shape::Nullable(inner) | Shape::Replaced(inner) => return without_extensions_of(inner, tree),
        Shape::List(inner, _) | Shape::OneOrMany(inner, _) => {
            return each(tree, |element| without_extensions_of(inner, element));
        }
        Shape::Keyed(inner) | Shape::Named(inner) | Shape::Names(inner, _) => {
            let values = tree.map_mut().into_iter().flatten();
            return values.for_each(|(_, value)| without_extensions_of(inner, value));
        }
        Shape::Ports => {
            return each(tree, |port| without_extensions_of(&Shape::Object(&PORT), port));
        }
        Shape::Object(object) | Shape::Short(_, object) | Shape::Ulimit(object) => object,
        _ => return,
    };
    if let Some(map) = tree.map_mut() {
        map.retain(|(key, _)| !key.starts_with("x-"));
    }
    fields(object, tree);
}

fn each(tree: &mut Ordered, work: impl FnMut(&mut Ordered)) {
    if let Ordered::List(list) = tree {
        list.iter_mut().for_each(work);
    }
}

fn fields(object: &Object, tree: &mut Ordered) {
    for (key, value) in tree.map_mut().into_iter().flatten() {
        if let Some(shape) = object.field(key) {
            without_extensions_of(shape, value);
        }
    }
}
