//! `config --format json` and `config` of the documents in `tests/data/config`, whose README argues each value.

use rdock_compose::{Format, LoadOptions, Project};
use serde_json::json;
use std::path::{Path, PathBuf};

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config");
    let entries = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 12, "{folders:?}");
    folders
}

fn options(dir: &Path) -> LoadOptions {
    LoadOptions::new(dir)
        .profile("*")
        .variable("HOME", "/home/user")
        .variable("CALLER", "caller")
        .variable("FROM_CALLER", "arg")
}

/// The folder is `/project`, what is beside it is below `/`.
fn portable(text: &str, dir: &Path) -> String {
    let text = text.replace(dir.to_str().unwrap(), "/project");
    text.replace(dir.parent().unwrap().to_str().unwrap(), "")
}

#[test]
fn config_prints_the_golden_documents() {
    for dir in folders() {
        let project =
            Project::load(&options(&dir)).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for (format, name) in [(Format::Json, "expected.json"), (Format::Yaml, "expected.yaml")] {
            let found = portable(&project.config(format), &dir);
            let file = dir.join(name);
            if std::env::var_os("RDOCK_WRITE_GOLDEN").is_some() {
                std::fs::write(&file, &found).unwrap();
            }
            let expected = std::fs::read_to_string(&file).unwrap();
            assert_eq!(found, expected, "{}", file.display());
        }
    }
}

#[test]
fn config_of_every_golden_document_is_a_valid_document_that_means_the_same() {
    for dir in folders() {
        let project = Project::load(&options(&dir)).unwrap();
        for format in [Format::Json, Format::Yaml] {
            let text = project.config(format);
            let again = Project::load(&options(&dir).text(text.clone()));
            let again = again.unwrap_or_else(|error| panic!("{}: {error}\n{text}", dir.display()));
            // JSON has no `x-*` keys below the document's own, and YAML has.
            let (found, expected) = match format {
                Format::Yaml => (again.to_json(), project.to_json()),
                _ => (json!(again.config(format)), json!(text)),
            };
            assert_eq!(found, expected, "{}", dir.display());
        }
    }
}

#[test]
fn every_attribute_is_typed_and_only_extensions_are_kept_as_they_are() {
    for dir in folders() {
        let text = format!("{:?}", Project::load(&options(&dir)).unwrap());
        // Sorted: an attribute without a field of its own would come before `x-`.
        for extensions in text.split("extensions: {").skip(1) {
            let good = extensions.starts_with('}') || extensions.starts_with("\"x-");
            assert!(
                good,
                "{}: {}",
                dir.display(),
                &extensions[..80.min(extensions.len())]
            );
        }
    }
}
