//! What a compose file may say: one table of shapes for checking, the canonical form, merging and paths.
//!
//! Source: the Compose Specification and its published schema. An attribute's [`Shape`] decides four things at once:
//! which values are allowed, which long form a short one becomes, how an override file changes it, and whether it is
//! a path that is relative to the file's folder.

mod apply;
mod build;
mod extensions;
mod merge;
mod paths;
mod resource;
mod scalar;
mod service;
mod short;

#[cfg(test)]
mod tests;

pub(crate) use apply::Check;
pub(crate) use extensions::{without_extensions, without_extensions_of};
pub(crate) use merge::merge;
pub(crate) use paths::{Base, clean, resolve};
pub(crate) use resource::TOP;
pub(crate) use service::SERVICE_SHAPE;
#[cfg(test)]
pub(crate) use tests::attributes;

use crate::source::Span;
use crate::yaml::Node;

/// How entries of a list that mean the same thing meet. The later one takes the place of the earlier.
#[derive(Clone, Copy)]
pub(crate) enum Same {
    /// All stay.
    Never,
    /// Equal values are one.
    Value,
    /// Entries with an equal key are one; the later replaces the earlier.
    Key(fn(&Node) -> String),
    /// Entries with an equal key are merged into one.
    Merge(fn(&Node) -> String),
}

/// What a short form becomes.
pub(crate) type Long = fn(&str, Span) -> Result<Node, String>;

/// What a value may be.
pub(crate) enum Shape {
    /// Anything.
    Any,
    /// A string.
    Text,
    /// A string that a rule of its own checks.
    Checked(fn(&str) -> Result<(), String>),
    /// A string out of a few.
    Choice(&'static [&'static str]),
    /// A string, number or boolean that is kept as a string.
    Scalar,
    /// A boolean, or a string that says one.
    Bool,
    /// An integer, or a string that is one, within bounds.
    Int(i64, i64),
    /// A number, or a string that is one.
    Number,
    /// A size in bytes, not below this.
    Bytes(i64),
    /// Permissions: a number, or its digits in octal; canonical is `0440`.
    Mode,
    /// Microseconds, or a duration.
    Micros,
    /// `all` or a number of devices; all is -1.
    Count,
    /// A duration.
    Duration,
    /// A path that is relative to the folder of the file it stands in.
    Path,
    /// A path, or the URL of something elsewhere.
    PathOrUrl,
    /// Null, a string that is split into words, or a list of strings. An override replaces it.
    Command,
    /// The test of a health check. An override replaces it.
    HealthTest,
    /// A list.
    List(&'static Shape, Same),
    /// A list, or its only element.
    OneOrMany(&'static Shape, Same),
    /// The list of published ports.
    Ports,
    /// A mapping with keys of the user's.
    Keyed(&'static Shape),
    /// A mapping with names of the user's: letters, digits, `.`, `_`, `-`.
    Named(&'static Shape),
    /// A mapping by names, or a list of names that stand for this value.
    Names(&'static Shape, fn(Span) -> Node),
    /// `KEY=value` in a list, or a mapping; a key alone is null where that has a meaning, else empty.
    Pairs(Alone),
    /// `name=address` in a list, or a mapping to one or more addresses.
    Hosts,
    /// A mapping with known keys.
    Object(&'static Object),
    /// The same, or a string that stands for one.
    Short(Long, &'static Object),
    /// Null, or this.
    Nullable(&'static Shape),
    /// This; an override replaces it.
    Replaced(&'static Shape),
    /// One number for both limits, or a mapping.
    Ulimit(&'static Object),
    /// `true`, `false`, or the old `{name: ...}`.
    External,
}

/// What a key without a value means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alone {
    /// The value of the environment.
    Null,
    /// An empty value.
    Empty,
}

/// A mapping with known keys.
pub(crate) struct Object {
    /// In the order of the specification.
    pub(crate) fields: &'static [(&'static str, Shape)],
    /// Keys that must be there once everything is merged.
    pub(crate) required: &'static [&'static str],
    /// Whether `x-*` may be there.
    pub(crate) extensions: bool,
    /// If both sides of a merge have this key with different values, the override replaces the whole.
    pub(crate) whole_unless_equal: Option<&'static str>,
}

impl Object {
    pub(crate) fn field(&self, name: &str) -> Option<&'static Shape> {
        let found = self.fields.iter().find(|(field, _)| *field == name);
        found.map(|(_, shape)| shape)
    }
}

/// An object with extensions and no more rules.
pub(crate) const fn object(fields: &'static [(&'static str, Shape)]) -> Object {
    Object {
        fields,
        required: &[],
        extensions: true,
        whole_unless_equal: None,
    }
}

/// An object with keys that must be there.
pub(crate) const fn requiring(
    required: &'static [&'static str],
    fields: &'static [(&'static str, Shape)],
) -> Object {
    Object {
        required,
        ..object(fields)
    }
}

/// An object that has no extensions.
pub(crate) const fn closed(object: Object) -> Object {
    Object {
        extensions: false,
        ..object
    }
}

/// The identity of a list's entry by one or more of its keys.
pub(crate) fn by_keys(node: &Node, keys: &[&str]) -> String {
    let parts = keys
        .iter()
        .map(|key| node.get(key).and_then(Node::scalar_text).unwrap_or_default());
    parts.collect::<Vec<_>>().join("|")
}

/// Whether a text is the URL of something, not a path.
pub(crate) fn is_url(text: &str) -> bool {
    text.contains("://")
        || text.starts_with("git@")
        || text.starts_with("github.com/")
        || text.starts_with("service:")
}
