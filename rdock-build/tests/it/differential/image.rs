//! What of an image is compared: config, history and files as far as they differ from the base's.
use super::Stage;
use crate::Tested;
use rdock_image::{FileInfo, FileKind, Image, ImageStore, MergedView};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Describes an image of a store.
pub(super) fn describe(store: &ImageStore, image: &Image, stage: &Stage) -> Tested<Value> {
    let config = image.config();
    let mut inner = serde_json::to_value(&config.config)?;
    if let Some(fields) = inner.as_object_mut() {
        fields.remove("ArgsEscaped");
        fields.retain(|_, value| !is_empty(value));
    }
    let base = stage.base.config();
    // An image on `scratch` has nothing of the base.
    // Its layer may have another digest, written by another hand; its history is the same.
    let on_base = !base.history.is_empty() && config.history.starts_with(&base.history);
    let skipped = if on_base { base.history.len() } else { 0 };
    let history: Vec<_> = (config.history.iter().skip(skipped))
        .map(|entry| match entry.empty_layer {
            true => json!(entry.created_by),
            false => json!([entry.created_by]),
        })
        .collect();
    let view = store.view(image)?;
    let mut below = BTreeMap::new();
    let below_view = stage.store.view(&stage.base)?;
    if on_base {
        below = below_view.walk()?;
    }
    let above = view.walk()?;
    let mut files = Map::new();
    let mut inodes: BTreeMap<(u64, u64), Vec<String>> = BTreeMap::new();
    for (path, info) in &above {
        let name = path.display().to_string();
        let found = entry(&view, path, info)?;
        let same = match below.get(path) {
            Some(info) => entry(&below_view, path, info)? == found,
            None => false,
        };
        if same {
            continue;
        }
        if info.kind == FileKind::File {
            inodes.entry(info.inode).or_default().push(name.clone());
        }
        files.insert(name, json!(found));
    }
    let links: Vec<_> = inodes.into_values().filter(|names| names.len() > 1).collect();
    let removed: Vec<_> = (below.keys())
        .filter(|path| !above.contains_key(*path))
        .map(|path| path.display().to_string())
        .collect();
    let layers = image.diff_ids().len() - if on_base { stage.base.diff_ids().len() } else { 0 };
    let mut links: Vec<_> = links.into_iter().map(|names| names.join(" ")).collect();
    links.sort();
    Ok(json!({
        "config": inner,
        "author": config.author,
        "history": history,
        "layers": layers,
        "files": files,
        "hard_links": links,
        "removed": removed,
    }))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// A file on one line: kind, mode, owner, content.
fn entry(view: &MergedView, path: &PathBuf, info: &FileInfo) -> Tested<String> {
    let FileInfo { mode, uid, gid, .. } = info;
    let owner = format!("{mode:04o} {uid}:{gid}");
    Ok(match info.kind {
        FileKind::Dir => format!("directory {owner}"),
        FileKind::Symlink => format!("symlink {uid}:{gid} {}", view.read_link(path)?.display()),
        FileKind::File => {
            let mut file = view.open_file(path)?;
            let mut data = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut data)?;
            match std::str::from_utf8(&data) {
                Ok(text) if text.len() <= 600 => format!("file {owner} {text:?}"),
                _ => {
                    let hash: String = Sha256::digest(&data)
                        .iter()
                        .map(|byte| format!("{byte:02x}"))
                        .collect();
                    format!("file {owner} {} bytes {hash}", data.len())
                }
            }
        }
        _ => format!("special {owner}"),
    })
}

/// The text that is kept.
pub(super) fn text(found: &Value) -> Tested<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(found)?))
}

/// Brings a peer's archive into a store of its own and describes it.
pub(super) fn describe_archive(archive: &Path, stage: &Stage) -> Tested<Value> {
    let dir = tempfile::tempdir_in(stage.dir.path())?;
    let store = ImageStore::open(dir.path())?;
    let images = store.import(archive, &rdock_image::Progress::default())?;
    describe(&store, images.first().ok_or("the archive has no image")?, stage)
}
