//! Relative paths become absolute, against the folder of the file they stand in.

use super::{Object, Shape, is_url};
use crate::yaml::{Map, Node, Value};
use std::path::{Component, Path, PathBuf};

/// Where relative paths lead.
pub(crate) struct Base<'a> {
    /// The project's folder.
    pub(crate) dir: &'a Path,
    /// What `~` is.
    pub(crate) home: Option<&'a str>,
}

impl Base<'_> {
    /// The absolute path, with `.` and `..` taken out as text.
    pub(crate) fn absolute(&self, text: &str) -> String {
        let path = match (text.strip_prefix('~'), self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                PathBuf::from(format!("{home}{rest}"))
            }
            _ => PathBuf::from(text),
        };
        // Another system's paths are left as they are.
        let mut letters = text.chars();
        let drive =
            letters.next().is_some_and(|letter| letter.is_ascii_alphabetic()) && letters.next() == Some(':');
        if drive || text.starts_with('\\') {
            return text.to_owned();
        }
        clean(&self.dir.join(path)).to_string_lossy().into_owned()
    }
}

/// `a/./b/../c` is `a/c`.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !out.pop() {
                    out.push("..");
                }
            }
            other => out.push(other),
        }
    }
    if out.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        out
    }
}

/// Resolves every path below.
pub(crate) fn resolve(shape: &Shape, node: &mut Node, base: &Base<'_>) {
    match shape {
        Shape::Path => {
            if let Value::Text(text) = &mut node.value
                && !text.is_empty()
                && !text.starts_with('$')
            {
                *text = base.absolute(text);
            }
        }
        Shape::PathOrUrl => {
            if let Value::Text(text) = &mut node.value
                && !is_url(text)
                && !text.starts_with('$')
            {
                *text = base.absolute(text);
            }
        }
        Shape::Nullable(inner) | Shape::Replaced(inner) => resolve(inner, node, base),
        Shape::List(inner, _) | Shape::OneOrMany(inner, _) => {
            if let Value::List(list) = &mut node.value {
                list.iter_mut().for_each(|node| resolve(inner, node, base));
            }
        }
        Shape::Keyed(inner) | Shape::Named(inner) | Shape::Names(inner, _) => {
            if let Value::Map(map) = &mut node.value {
                map.values_mut()
                    .for_each(|entry| resolve(inner, &mut entry.node, base));
            }
        }
        Shape::Object(object) | Shape::Short(_, object) => {
            if let Value::Map(map) = &mut node.value {
                fields(object, map, base);
            }
        }
        _ => {}
    }
}

fn fields(object: &Object, map: &mut Map, base: &Base<'_>) {
    let text = |map: &Map, key: &str| {
        map.get(key)
            .and_then(|entry| entry.node.as_text().map(str::to_owned))
    };
    // A mount's source is a path when it is a bind.
    if text(map, "type").as_deref() == Some("bind")
        && object.field("consistency").is_some()
        && let Some(entry) = map.get_mut("source")
    {
        resolve(&Shape::Path, &mut entry.node, base);
    }
    for (key, entry) in map.iter_mut() {
        match (key.as_str(), &mut entry.node.value) {
            ("additional_contexts", Value::Map(contexts)) => {
                for context in contexts.values_mut() {
                    if let Value::Text(text) = &mut context.node.value
                        && !text.starts_with("docker-image:")
                        && !text.starts_with("oci-layout:")
                    {
                        resolve(&Shape::PathOrUrl, &mut context.node, base);
                    }
                }
            }
            ("ssh", Value::Map(keys)) => {
                for key in keys.values_mut() {
                    resolve(&Shape::Path, &mut key.node, base);
                }
            }
            ("extends", Value::Map(extends)) => {
                if let Some(file) = extends.get_mut("file") {
                    resolve(&Shape::Path, &mut file.node, base);
                }
            }
            ("driver_opts", Value::Map(options)) => local_bind(options, base),
            _ => {
                if let Some(shape) = object.field(key) {
                    resolve(shape, &mut entry.node, base);
                }
            }
        }
    }
}

/// A local volume that is a bind mount: its device is a path.
fn local_bind(options: &mut Map, base: &Base<'_>) {
    let bind = |key: &str| {
        let text = options.get(key).and_then(|entry| entry.node.as_text());
        text.is_some_and(|text| text.split(',').any(|word| word == "bind" || word == "rbind"))
    };
    if (bind("o") || bind("type"))
        && let Some(device) = options.get_mut("device")
    {
        resolve(&Shape::Path, &mut device.node, base);
    }
}
