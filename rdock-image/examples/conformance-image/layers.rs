//! Layers of the suites, brought into a store and looked at as a merged tree.
use super::{Outcome, chain, equal, store, tarball, text_of};
use rdock_image::{Descriptor, Digest, Error, FileKind, ImageStore, MergedView, Reference};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Brings blobs in as the layers of one image, the base first, each with the digest of its unpacked bytes.
fn image(store: &ImageStore, layers: &[(Vec<u8>, Digest)]) -> Result<MergedView, Error> {
    let lease = store.lease()?;
    let mut descriptors = Vec::new();
    for (blob, diff_id) in layers {
        let descriptor = Descriptor::new(
            "application/vnd.oci.image.layer.v1.tar",
            &Digest::sha256_of(blob),
            blob.len() as u64,
        );
        store.ingest_layer(&lease, &descriptor, diff_id, None, &mut &blob[..])?;
        // What comes out is the tar that came in.
        let (found, _) = store.write_layer_tar(diff_id, &mut std::io::sink())?;
        if found != *diff_id {
            return Err(Error::DigestMismatch {
                what: "the tar made again".to_owned(),
                expected: diff_id.clone(),
                found,
            });
        }
        descriptors.push(descriptor);
    }
    let diff_ids: Vec<_> = layers.iter().map(|(_, diff_id)| diff_id).collect();
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = config.to_string().into_bytes();
    let id = Digest::sha256_of(&config);
    store.write_blob(&lease, &config, &id)?;
    let manifest = json!({
        "schemaVersion": 2,
        "config": Descriptor::new("application/vnd.oci.image.config.v1+json", &id, config.len() as u64),
        "layers": descriptors,
    });
    let manifest = manifest.to_string().into_bytes();
    let digest = Digest::sha256_of(&manifest);
    store.write_blob(&lease, &manifest, &digest)?;
    let image = store.commit(&lease, &Reference::parse("case")?, &digest)?;
    store.view(&image)
}

fn plain(tar: Vec<u8>) -> (Vec<u8>, Digest) {
    let digest = Digest::sha256_of(&tar);
    (tar, digest)
}

/// Mode, owner, link count and content by path.
type State = BTreeMap<PathBuf, (u32, u32, u64, Vec<u8>)>;

/// The state of everything below `dir`.
fn state(dir: &Path) -> Result<State, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).map_err(|error| error.to_string())?;
        let content = if meta.is_file() {
            fs::read(&path).map_err(|error| error.to_string())?
        } else {
            Vec::new()
        };
        if meta.is_dir() {
            for entry in fs::read_dir(&path).map_err(|error| error.to_string())? {
                open.push(entry.map_err(|error| error.to_string())?.path());
            }
        }
        let links = if meta.is_file() { meta.nlink() } else { 0 };
        found.insert(path, (meta.mode(), meta.uid(), links, content));
    }
    Ok(found)
}

pub(crate) fn untar(input: &Value, expect: &Value) -> Outcome {
    let (dir, store) = store()?;
    let host = dir.path().join("host");
    let set_up = || -> std::io::Result<()> {
        fs::create_dir(&host)?;
        fs::write(host.join("secret"), "host")?;
        fs::set_permissions(host.join("secret"), fs::Permissions::from_mode(0o400))?;
        fs::create_dir(host.join("dir"))?;
        fs::set_permissions(host.join("dir"), fs::Permissions::from_mode(0o700))
    };
    set_up().map_err(|error| error.to_string())?;
    let before = state(&host)?;
    let host_name = host.to_string_lossy().trim_start_matches('/').to_owned();
    let mut layers = Vec::new();
    if !input["pre"].is_null() {
        layers.push(plain(tarball::whole(&input["pre"], &host_name)?));
    }
    layers.push(plain(tarball::whole(&input["tar"], &host_name)?));
    let result = image(&store, &layers);
    if state(&host)? != before {
        return Err("something outside the root changed".to_owned());
    }
    only_expected_names(dir.path(), &store)?;
    match (text_of(&expect["result"]), result) {
        ("error" | "any", Err(_)) => Ok(()),
        ("error", Ok(_)) => Err("an error was expected".to_owned()),
        (_, Err(error)) => Err(chain(&error)),
        (_, Ok(view)) => {
            let checks = expect["checks"].as_array().ok_or("no checks")?;
            checks.iter().try_for_each(|item| check(&view, item, &host))
        }
    }
}

/// An entry that got out of a layer would lie beside its `fs`, or above.
fn only_expected_names(dir: &Path, store: &ImageStore) -> Outcome {
    let names = |path: &Path| -> Result<Vec<String>, String> {
        let entries = fs::read_dir(path).map_err(|error| error.to_string())?;
        entries
            .map(|entry| {
                entry
                    .map(|e| e.file_name().to_string_lossy().into_owned())
                    .map_err(|e| e.to_string())
            })
            .collect()
    };
    let only = |path: &Path, allowed: &[&str]| -> Outcome {
        match names(path)?
            .into_iter()
            .find(|name| !allowed.contains(&name.as_str()))
        {
            Some(name) => Err(format!("{name} was made in {}", path.display())),
            None => Ok(()),
        }
    };
    only(dir, &["host", "store"])?;
    only(&dir.join("store"), &["image"])?;
    let known = [
        "format",
        "lock",
        "blobs",
        "layers",
        "chains",
        "snapshots",
        "refs",
        "ids",
        "leases",
        "ingest",
        "trash",
    ];
    only(store.root(), &known)?;
    only(&store.root().join("ingest"), &[])?;
    only(&store.root().join("trash"), &[])?;
    for name in names(&store.root().join("layers"))? {
        let layer = store.root().join("layers").join(&name);
        only(
            &layer,
            &[
                "fs",
                "meta.json",
                "origins",
                "owners",
                "synced",
                "tar.skeleton",
                "apart",
            ],
        )?;
    }
    Ok(())
}

fn check(view: &MergedView, item: &Value, host: &Path) -> Outcome {
    let fail = |error: Error| chain(&error);
    let (name, value) = item
        .as_object()
        .and_then(|o| o.iter().find(|(k, _)| *k != "text" && *k != "hex"))
        .ok_or("no check")?;
    let path = |value: &Value| PathBuf::from(text_of(value));
    let follow = |value: &Value| view.metadata(path(value)).map_err(fail);
    let stay = |value: &Value| view.symlink_metadata(path(value)).map_err(fail);
    let there = |found: Option<rdock_image::FileInfo>| found.ok_or_else(|| format!("{value} is absent"));
    let holds = |good: bool| {
        if good {
            Ok(())
        } else {
            Err(format!("{item} does not hold"))
        }
    };
    match name.as_str() {
        "file" => {
            let mut content = Vec::new();
            let mut file = view.open_file(path(value)).map_err(fail)?;
            file.read_to_end(&mut content)
                .map_err(|error| error.to_string())?;
            let expected = match item["hex"].as_str() {
                Some(text) => tarball::hex(text)?,
                None => text_of(&item["text"]).as_bytes().to_vec(),
            };
            holds(content == expected)
        }
        "exists" => there(stay(value)?).map(drop),
        "exists_hex" => {
            let path = PathBuf::from(OsString::from_vec(tarball::hex(text_of(value))?));
            there(view.symlink_metadata(path).map_err(fail)?).map(drop)
        }
        "absent" => holds(stay(value)?.is_none()),
        "type" => {
            let kind = match there(stay(&value[0])?)?.kind {
                FileKind::File => "file",
                FileKind::Dir => "dir",
                FileKind::Symlink => "symlink",
                _ => "special",
            };
            equal("type", &json!(kind), &value[1])
        }
        "mode" => equal(
            "mode",
            &json!(format!("{:o}", there(follow(&value[0])?)?.mode)),
            &value[1],
        ),
        "size" => equal("size", &json!(there(follow(&value[0])?)?.size), &value[1]),
        "same_file" => holds(there(follow(&value[0])?)?.inode == there(follow(&value[1])?)?.inode),
        "not_same_file" => holds(there(follow(&value[0])?)?.inode != there(follow(&value[1])?)?.inode),
        "same_inode_nofollow" => holds(there(stay(&value[0])?)?.inode == there(stay(&value[1])?)?.inode),
        "not_host_inode" => {
            let host = fs::metadata(host.join("secret")).map_err(|error| error.to_string())?;
            holds(there(follow(value)?)?.inode != (host.dev(), host.ino()))
        }
        "tree" => {
            let found = view.walk().map_err(fail)?;
            let files = found.iter().filter(|(_, info)| info.kind != FileKind::Dir);
            let files: Vec<_> = files
                .map(|(path, _)| path.to_string_lossy().into_owned())
                .collect();
            equal("tree", &json!(files), value)
        }
        other => Err(format!("unknown check {other}")),
    }
}

pub(crate) fn stream(input: &Value, expect: &Value) -> Outcome {
    let (dir, store) = store()?;
    let number = |name: &str| input[name].as_u64().unwrap_or(0) as usize;
    let entries = if input["tar"].is_null() {
        Vec::new()
    } else {
        tarball::entries(&input["tar"], "")?
    };
    let tar = [&entries[..], &[0; 1024]].concat();
    let gzip = |bytes: &[u8]| -> Result<Vec<u8>, String> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder
            .write_all(bytes)
            .and_then(|()| encoder.finish())
            .map_err(|error| error.to_string())
    };
    let mut store = store;
    let (blob, unpacked) = match text_of(&input["recipe"]) {
        "gzip_zeros" => {
            let mut options = rdock_image::StoreOptions::default();
            options.limits.layer_bytes = input["limit"].as_u64().unwrap_or(options.limits.layer_bytes);
            store =
                ImageStore::open_with(dir.path().join("store"), options).map_err(|error| chain(&error))?;
            let zeros = vec![0; number("uncompressed_size")];
            (gzip(&zeros)?, zeros)
        }
        "zstd_window" => {
            let window = u8::try_from(number("window_log") - 10).map_err(|error| error.to_string())?;
            // Magic, a frame header with a window descriptor, and one empty last block.
            (
                vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, window << 3, 0x01, 0x00, 0x00],
                Vec::new(),
            )
        }
        "gzip_members" => {
            let mut blob = Vec::new();
            for part in tar.chunks(tar.len().div_ceil(number("members").max(1))) {
                blob.extend(gzip(part)?);
            }
            (blob, tar)
        }
        "zstd_skippable" => {
            let skippable = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
            let frame = zstd::bulk::compress(&tar, 3).map_err(|error| error.to_string())?;
            ([&skippable[..], &frame, &skippable].concat(), tar)
        }
        "gzip_trailing" => ([gzip(&tar)?, vec![0xaa; number("bytes")]].concat(), tar),
        "tar_no_eof" => (entries.clone(), entries),
        "tar_cut" => {
            let cut = tar[..number("keep")].to_vec();
            (cut.clone(), cut)
        }
        "tar_after_eof" => {
            let all = [tar, tarball::entries(&input["after"], "")?].concat();
            (all.clone(), all)
        }
        other => return Err(format!("unknown recipe {other}")),
    };
    let diff_id = Digest::sha256_of(&unpacked);
    let result = image(&store, &[(blob, diff_id.clone())]);
    match (text_of(&expect["result"]), result) {
        ("error" | "any", Err(_)) => {
            only_expected_names(dir.path(), &store)?;
            if store.has_layer(&diff_id) {
                Err("a layer was left".to_owned())
            } else {
                Ok(())
            }
        }
        ("error", Ok(_)) => Err("an error was expected".to_owned()),
        (_, Err(error)) => Err(chain(&error)),
        (_, Ok(view)) => check(&view, &json!({"tree": expect["tree"]}), Path::new("/")),
    }
}

pub(crate) fn whiteouts(files: &Path, input: &Value, expect: &Value) -> Outcome {
    let (_dir, store) = store()?;
    let view = if let Some(layers) = input["layers"].as_array() {
        let read = |name: &Value| {
            fs::read(files.join(text_of(name)))
                .map(plain)
                .map_err(|error| error.to_string())
        };
        let layers = layers.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        image(&store, &layers)
    } else {
        let path = files.join(text_of(&input["file"]));
        store
            .import(&path, &rdock_image::Progress::default())
            .and_then(|images| store.view(&images[0]))
    };
    let view = view.map_err(|error| chain(&error))?;
    let mut found = serde_json::Map::new();
    for (path, info) in view.walk().map_err(|error| chain(&error))? {
        let value = match info.kind {
            FileKind::Dir => json!({"type": "dir"}),
            FileKind::Symlink => {
                json!({"type": "symlink", "target": view.read_link(&path).map_err(|error| chain(&error))?})
            }
            _ => {
                let mut content = Vec::new();
                let mut file = view.open_file(&path).map_err(|error| chain(&error))?;
                file.read_to_end(&mut content)
                    .map_err(|error| error.to_string())?;
                json!({"type": "file", "sha256": Digest::sha256_of(&content).hex()})
            }
        };
        found.insert(path.to_string_lossy().into_owned(), value);
    }
    equal("tree", &Value::Object(found), &expect["tree"])
}
