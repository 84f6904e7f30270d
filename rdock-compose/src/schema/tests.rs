//! The table of shapes against the golden documents.

use super::{Check, Object, Shape, TOP};
use crate::yaml::{Limits, Node, parse};
use std::collections::BTreeSet;

fn object_of(shape: &'static Shape) -> Option<&'static Object> {
    match shape {
        Shape::Object(object) | Shape::Short(_, object) | Shape::Ulimit(object) => Some(object),
        Shape::Ports => Some(&super::service::PORT),
        _ => None,
    }
}

/// Every attribute that there is, `*` for names and elements.
fn all(shape: &'static Shape, path: &str, found: &mut BTreeSet<String>) {
    match shape {
        Shape::Nullable(inner) | Shape::Replaced(inner) => all(inner, path, found),
        Shape::List(inner, _)
        | Shape::OneOrMany(inner, _)
        | Shape::Keyed(inner)
        | Shape::Named(inner)
        | Shape::Names(inner, _) => all(inner, &format!("{path}.*"), found),
        _ => {
            let path = if matches!(shape, Shape::Ports) {
                format!("{path}.*")
            } else {
                path.to_owned()
            };
            for (name, shape) in object_of(shape).into_iter().flat_map(|object| object.fields) {
                let path = format!("{path}.{name}");
                found.insert(path.clone());
                all(shape, &path, found);
            }
        }
    }
}

/// Those that a canonical document uses.
fn used(shape: &'static Shape, node: &Node, path: &str, found: &mut BTreeSet<String>) {
    match shape {
        Shape::Nullable(inner) | Shape::Replaced(inner) => used(inner, node, path, found),
        Shape::List(inner, _) | Shape::OneOrMany(inner, _) => {
            for node in node.as_list().unwrap_or_default() {
                used(inner, node, &format!("{path}.*"), found);
            }
        }
        Shape::Keyed(inner) | Shape::Named(inner) | Shape::Names(inner, _) => {
            for entry in node.as_map().into_iter().flat_map(|map| map.values()) {
                used(inner, &entry.node, &format!("{path}.*"), found);
            }
        }
        Shape::Ports => {
            static PORT: Shape = Shape::Object(&super::service::PORT);
            for node in node.as_list().unwrap_or_default() {
                used(&PORT, node, &format!("{path}.*"), found);
            }
        }
        _ => {
            let Some(object) = object_of(shape) else { return };
            for (name, entry) in node.as_map().into_iter().flatten() {
                if let Some(shape) = object.field(name) {
                    let path = format!("{path}.{name}");
                    found.insert(path.clone());
                    used(shape, &entry.node, &path, found);
                }
            }
        }
    }
}

static DOCUMENT: Shape = Shape::Object(&TOP);

/// Every attribute that a document may have: `services.*.ports.*.target`.
pub(crate) fn attributes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    all(&DOCUMENT, "", &mut found);
    let found = found.into_iter();
    found
        .map(|path| path.trim_start_matches('.').to_owned())
        .collect()
}

#[test]
fn golden_documents_use_every_attribute() {
    let mut there = BTreeSet::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config");
    for entry in std::fs::read_dir(root).unwrap() {
        let Ok(text) = std::fs::read_to_string(entry.unwrap().path().join("compose.yaml")) else {
            continue;
        };
        for mut document in parse(0, &text, &Limits::default()).unwrap() {
            let mut check = Check::part(true);
            check.apply(&DOCUMENT, &mut document);
            assert!(check.problems.is_empty(), "{:?}", check.problems);
            used(&DOCUMENT, &document, "", &mut there);
        }
    }
    let there: BTreeSet<String> = there
        .iter()
        .map(|path| path.trim_start_matches('.').to_owned())
        .collect();
    let mut wanted = attributes();
    // Obsolete; where it is used a warning says so.
    wanted.remove("version");
    let missing: Vec<_> = wanted.difference(&there).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(wanted.len() > 250, "{}", wanted.len());
}

#[test]
fn a_service_has_the_attributes_of_the_specification() {
    assert_eq!(super::service::SERVICE.fields.len(), 93);
    assert_eq!(super::build::BUILD.fields.len(), 25);
    let names: BTreeSet<&str> = super::service::SERVICE
        .fields
        .iter()
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(names.len(), 93);
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    /// Texts that look like compose files.
    fn document() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "services:",
            "a:",
            "image:",
            " ",
            "  ",
            "\n",
            "- ",
            "x",
            "&a",
            "*a",
            "<<:",
            "!reset",
            "!override",
            "[",
            "]",
            "{",
            "}",
            ",",
            "'",
            "\"",
            "ports:",
            "80:80",
            "1-9:1-9",
            "environment:",
            "A=1",
            "depends_on:",
            "volumes:",
            "|",
            ">",
            "#",
            "---",
            "null",
            "0x1",
            "1e9",
            "${A:-b}",
            "extends:",
            "networks:",
            "deploy:",
            "\t",
            "?",
            "name: t\n",
            "build: .",
            "healthcheck:",
            "ulimits:",
            "nofile:",
            "-1",
        ]);
        prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn no_text_panics_the_loader(text in document()) {
            let _ = crate::Project::load(&crate::LoadOptions::new("/nowhere").name("t").text(text));
        }

        #[test]
        fn no_bytes_panic_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = parse(0, &text, &Limits::default());
        }
    }
}
