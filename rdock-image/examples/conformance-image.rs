//! Runs one suite of image conformance cases: `conformance-image DIR` prints `N passed, M failed`.
//!
//! DIR holds `cases.jsonl` (one case per line: `id`, `input`, `expect`) and the fixtures in `files/`; the folder's
//! name says which suite it is; of a folder of suites all are run. Failing rows that are meant are argued in `conformance-image.md`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

#[path = "conformance-image/changes.rs"]
mod changes;
#[path = "conformance-image/documents.rs"]
mod documents;
#[path = "conformance-image/layers.rs"]
mod layers;
#[path = "conformance/suite.rs"]
mod suite;
#[path = "conformance-image/tarball.rs"]
mod tarball;

use rdock_image::{
    Digest, ImageStore, ManifestDocument, Platform, Reference, ReferenceParts,
    reference::{is_domain, is_identifier, is_ref_name},
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use suite::{Outcome, equal, text_of};

fn main() -> ExitCode {
    suite::run("conformance-image", |suite, input, expect| {
        let files = suite.dir.join("files");
        Some(match suite.name.as_str() {
            "reference" => reference(input, expect),
            "digest" => equal(
                "valid",
                &json!(Digest::parse(text_of(&input["digest"])).is_ok()),
                &expect["valid"],
            ),
            "oci-refname" => equal(
                "valid",
                &json!(is_ref_name(text_of(&input["refname"]))),
                &expect["valid"],
            ),
            "spec-documents" => documents::document(input, expect),
            "platform" => platform(input, expect),
            "manifest-documents" => manifest(input, expect),
            "archives" => archive(&files, input, expect),
            "oci-layouts" => oci_layout(&files, input, expect),
            "diff-tar" => changes::diff(input, expect),
            "untar" => layers::untar(input, expect),
            "untar-streams" => layers::stream(input, expect),
            "whiteout-tars" => layers::whiteouts(&files, input, expect),
            _ => return None,
        })
    })
}

/// Compares the fields that `expect` names; an expected error must be one.
fn compare(found: Result<Value, rdock_image::Error>, expect: &Value) -> Outcome {
    let fails = !expect["error"].is_null();
    match found {
        Err(error) if fails => {
            drop(error);
            Ok(())
        }
        Err(error) => Err(format!("unexpected error: {error}")),
        Ok(found) if fails => Err(format!("an error was expected, found {found}")),
        Ok(found) => {
            let Some(fields) = expect.as_object() else {
                return Err("no expectation".to_owned());
            };
            fields
                .iter()
                .try_for_each(|(name, value)| equal(name, &found[name], value))
        }
    }
}

fn parts(parts: &ReferenceParts) -> Value {
    json!({
        "ok": true,
        "name": parts.name(),
        "domain": parts.domain.clone().unwrap_or_default(),
        "path": parts.path,
        "tag": parts.tag.clone().unwrap_or_default(),
        "digest": parts.digest.as_ref().map(Digest::to_string).unwrap_or_default(),
        "string": parts.to_string(),
    })
}

fn reference(input: &Value, expect: &Value) -> Outcome {
    let text = text_of(&input["ref"]);
    let wrong = |text: &str, reason| rdock_image::Error::InvalidReference {
        text: text.to_owned(),
        reason,
    };
    let found = match text_of(&input["op"]) {
        "parse" => ReferenceParts::parse(text).map(|found| parts(&found)),
        "parse_named" => ReferenceParts::normalized(text).and_then(|full| match full.to_string() == text {
            true => Ok(parts(&full)),
            false => Err(wrong(text, "the name is not canonical")),
        }),
        "normalize" => ReferenceParts::normalized(text).map(|found| parts(&found)),
        "docker_ref" => Reference::parse(text).map(|found| json!({"string": found.canonical().to_string()})),
        "parse_any" if is_identifier(text) => Ok(json!({"string": format!("sha256:{text}")})),
        "parse_any" => match Digest::parse(text) {
            Ok(digest) => Ok(json!({"string": digest.to_string()})),
            Err(_) => ReferenceParts::normalized(text).map(|found| parts(&found)),
        },
        "with_name" => {
            let name = text_of(&input["name"]);
            ReferenceParts::parse(name).and_then(|found| {
                match found.tag.is_none() && found.digest.is_none() {
                    true => Ok(parts(&found)),
                    false => Err(wrong(name, "not a bare name")),
                }
            })
        }
        "with_tag" => {
            ReferenceParts::parse(&format!("{}:{}", text_of(&input["name"]), text_of(&input["tag"])))
                .map(|found| parts(&found))
        }
        "familiar_match" => {
            Reference::parse(text).map(|found| json!({"match": found.matches(text_of(&input["pattern"]))}))
        }
        "domain" => Ok(json!({"match": is_domain(text_of(&input["text"]))})),
        "identifier" => Ok(json!({"match": is_identifier(text_of(&input["text"]))})),
        other => return Err(format!("unknown op {other}")),
    };
    compare(found, expect)
}

fn platform(input: &Value, expect: &Value) -> Outcome {
    let read = |value: &Value| Platform {
        os: text_of(&value["os"]).to_owned(),
        architecture: text_of(&value["architecture"]).to_owned(),
        variant: value["variant"].as_str().map(str::to_owned),
        os_version: value["os_version"].as_str().map(str::to_owned),
        os_features: value["os_features"]
            .as_array()
            .map(|list| list.iter().map(|text| text_of(text).to_owned()).collect())
            .unwrap_or_default(),
    };
    let found = match text_of(&input["op"]) {
        "parse" => Platform::parse(text_of(&input["text"])).map(|found| {
            let variant = found.variant.unwrap_or_default();
            json!({"platform": {"os": found.os, "architecture": found.architecture, "variant": variant}})
        }),
        "format" => Ok(json!({"text": read(&input["platform"]).to_string()})),
        "satisfies" => Ok(json!({"match": read(&input["want"]).accepts(&read(&input["have"]))})),
        "equal" => Ok(json!({"match": read(&input["a"]).same_as(&read(&input["b"]))})),
        other => return Err(format!("unknown op {other}")),
    };
    compare(found, expect)
}

fn describe(document: &ManifestDocument) -> Value {
    let digests =
        |list: &[rdock_image::Descriptor]| list.iter().map(|d| d.digest.clone()).collect::<Vec<_>>();
    match document {
        ManifestDocument::Manifest(m) => json!({"config": m.config.digest, "layers": digests(&m.layers)}),
        ManifestDocument::Index(index) => json!({"manifests": digests(&index.manifests)}),
    }
}

fn manifest(input: &Value, expect: &Value) -> Outcome {
    let bytes = text_of(&input["document"]).as_bytes();
    let found = ManifestDocument::parse(bytes, None).map(|document| {
        let mut found = describe(&document);
        found["digest"] = json!(Digest::sha256_of(bytes).to_string());
        found["media_type"] = json!(document.media_type());
        found
    });
    compare(found, expect)
}

/// An empty store in a directory of its own.
fn store() -> Result<(tempfile::TempDir, ImageStore), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let store = ImageStore::open(dir.path().join("store")).map_err(|error| error.to_string())?;
    Ok((dir, store))
}

fn listing(contents: &rdock_image::ArchiveContents) -> (Value, Value) {
    let images = contents.images.iter().map(|image| {
        json!({
            "tags": image.tags,
            "image_id": image.id.to_string(),
            "diff_ids": image.diff_ids.iter().map(Digest::to_string).collect::<Vec<_>>(),
            "os": image.os,
            "architecture": image.architecture,
        })
    });
    let manifests = contents.manifests.iter().map(|entry| {
        let mut found = entry.document.as_ref().map_or_else(|| json!({}), describe);
        found["media_type"] = json!(entry.media_type);
        found["digest"] = json!(entry.digest.to_string());
        found["size"] = json!(entry.size);
        found["ref_name"] = json!(entry.ref_name);
        found["image_name"] = json!(entry.image_name);
        found["blob_present"] = match entry.wrong_content {
            true => json!("wrong content"),
            false => json!(entry.document.is_some()),
        };
        found
    });
    (images.collect(), manifests.collect())
}

/// Both lists have the expected length, and each element the expected fields.
fn same_list(what: &str, found: &Value, expected: &Value) -> Outcome {
    let (Some(found), Some(expected)) = (found.as_array(), expected.as_array()) else {
        return Err(format!("{what}: not a list"));
    };
    if found.len() != expected.len() {
        return Err(format!(
            "{what}: expected {} entries, found {}",
            expected.len(),
            found.len()
        ));
    }
    for (found, expected) in found.iter().zip(expected) {
        let fields = expected.as_object().ok_or("an entry that is not an object")?;
        fields
            .iter()
            .try_for_each(|(name, value)| equal(name, &found[name], value))?;
    }
    Ok(())
}

fn archive(files: &Path, input: &Value, expect: &Value) -> Outcome {
    let (_dir, store) = store()?;
    let path = files.join(text_of(&input["file"]));
    let contents = match store.examine_archive(&path) {
        Ok(_) if !expect["error"].is_null() => return Err("an error was expected".to_owned()),
        Ok(contents) => contents,
        Err(_) if !expect["error"].is_null() => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let (images, manifests) = listing(&contents);
    for (name, found) in [("images", &images), ("manifests", &manifests)] {
        if !expect[name].is_null() {
            same_list(name, found, &expect[name])?;
        }
    }
    // What is listed must also come in, with the same image ids.
    let imported = store
        .import(&path, &rdock_image::Progress::default())
        .map_err(|error| chain(&error))?;
    let ids: Vec<String> = imported.iter().map(|image| image.id().to_string()).collect();
    let empty = Vec::new();
    let listed = expect["images"].as_array().unwrap_or(&empty);
    match listed
        .iter()
        .find(|image| !ids.iter().any(|id| image["image_id"] == json!(id)))
    {
        Some(image) => Err(format!("image {} was not imported", image["image_id"])),
        None => Ok(()),
    }
}

fn oci_layout(files: &Path, input: &Value, expect: &Value) -> Outcome {
    let (dir, store) = store()?;
    let layout = dir.path().join("layout");
    let tar = std::fs::File::open(files.join(text_of(&input["file"]))).map_err(|error| error.to_string())?;
    // The fixture's own form, not a layer: the suite's files are trusted.
    tar::Archive::new(tar)
        .unpack(&layout)
        .map_err(|error| error.to_string())?;
    // Some fixtures have one folder around the layout.
    let root = match layout.join("index.json").exists() {
        true => layout,
        false => single_child(&layout).ok_or("no index.json in the fixture")?,
    };
    let contents = store.examine_archive(&root).map_err(|error| chain(&error))?;
    same_list("manifests", &listing(&contents).1, &expect["manifests"])
}

fn single_child(dir: &Path) -> Option<PathBuf> {
    let mut children = std::fs::read_dir(dir).ok()?.filter_map(Result::ok);
    let first = children.next()?.path();
    children.next().is_none().then_some(first)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
