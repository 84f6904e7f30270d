//! The suite `diff-tar`: a change to a tree, made on a real overlayfs, becomes a layer.
#[path = "../../tests/it/changed.rs"]
mod changed;

use super::{Outcome, text_of};
use rdock_image::{Digest, ImageStore, LayerOptions};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub(super) fn diff(input: &Value, expect: &Value) -> Outcome {
    let run = || -> Result<BTreeSet<String>, Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let store = ImageStore::open(dir.path())?;
        let before = layer(&store, &[], &input["before"])?;
        let change = layer(&store, &[before], &input["change"])?;
        let mut bytes = Vec::new();
        store.write_layer_tar(&change, &mut bytes)?;
        entries(&bytes)
    };
    let found = run().map_err(|error| error.to_string())?;
    let expected = expect["entries"].as_array().ok_or("no entries")?;
    // Of several names of one file any may be the one that has the content.
    let expected: BTreeSet<String> = expected
        .iter()
        .map(|entry| match text_of(&entry["type"]) {
            "file" | "hardlink" => format!("file {}", text_of(&entry["path"])),
            "dir" => format!("dir {} {}", text_of(&entry["path"]), text_of(&entry["mode"])),
            other => format!("{other} {}", text_of(&entry["path"])),
        })
        .collect();
    if found == expected {
        Ok(())
    } else {
        Err(format!("expected {expected:?}, found {found:?}"))
    }
}

fn entries(bytes: &[u8]) -> Result<BTreeSet<String>, Box<dyn std::error::Error>> {
    let mut found = BTreeSet::new();
    for entry in tar::Archive::new(bytes).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.display().to_string();
        let mode = entry.header().mode()?;
        let kind = entry.header().entry_type();
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        found.insert(
            match path
                .rsplit_once('/')
                .map_or(("", &path[..]), |(dir, name)| (dir, name))
            {
                _ if kind.is_dir() => format!("dir {path} {mode:04o}"),
                (dir, name) if name.starts_with(".wh.") => {
                    let slash = if dir.is_empty() { "" } else { "/" };
                    format!("whiteout {dir}{slash}{}", &name[4..])
                }
                _ => format!("file {path}"),
            },
        );
    }
    Ok(found)
}

/// Applies operations to a mounted snapshot and makes a layer of what changed.
fn layer(
    store: &ImageStore,
    below: &[Digest],
    operations: &Value,
) -> Result<Digest, Box<dyn std::error::Error>> {
    let made = changed::changed(store, below, &LayerOptions::default(), |root| {
        apply(root, operations)
    })?;
    Ok(made.diff_id)
}

fn apply(root: &Path, operations: &Value) -> Result<(), Box<dyn std::error::Error>> {
    for operation in operations.as_array().into_iter().flatten() {
        let path = |name: &str| root.join(text_of(&operation[name]).trim_start_matches('/'));
        let at = path("path");
        let mode = u32::from_str_radix(text_of(&operation["mode"]), 8).ok();
        match text_of(&operation["op"]) {
            "dir" => fs::create_dir_all(&at)?,
            "file" => fs::write(&at, text_of(&operation["text"]))?,
            "symlink" => std::os::unix::fs::symlink(text_of(&operation["target"]), &at)?,
            "hardlink" => fs::hard_link(path("target"), &at)?,
            "remove" => fs::remove_file(&at)?,
            "remove_all" => fs::remove_dir_all(&at)?,
            "chmod" => {}
            other => return Err(format!("unknown operation {other}").into()),
        }
        if let Some(mode) = mode {
            fs::set_permissions(&at, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}
