//! What files contain, as a digest: names, modes, owners, links, attributes and bytes, without times.
//!
//! Times are left out as in Docker's tarsum, so that a fresh checkout of the same files is the same content.
use super::{Selected, SourceTree, walk};
use crate::ignore::Patterns;
use rdock_image::{FileInfo, FileKind, ViewEntry};
use sha2::{Digest as _, Sha256};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

/// Returns the digest of a file, or of what is in a directory. `note` gets each path with its own digest.
pub(crate) fn digest(
    tree: &SourceTree,
    selected: &Selected,
    exclude: &Patterns,
    note: &mut dyn FnMut(&Path, &str),
) -> Result<String, String> {
    let mut whole = Sha256::new();
    walk(tree, selected, exclude, &mut |relative, entry| {
        // The named directory's own mode and owner do not count: its contents are copied.
        if relative.as_os_str().is_empty() && entry.info().kind == FileKind::Dir {
            whole.update(b"directory\0");
            return Ok(());
        }
        let own = header(tree, selected, relative, entry)?;
        whole.update((relative.as_os_str().len() as u64).to_le_bytes());
        whole.update(relative.as_os_str().as_bytes());
        whole.update(own);
        note(relative, &hex(&own[..8]));
        Ok(())
    })?;
    Ok(hex(&whole.finalize()))
}

fn header(
    tree: &SourceTree,
    selected: &Selected,
    relative: &Path,
    entry: &ViewEntry,
) -> Result<[u8; 32], String> {
    let info = entry.info();
    let (uid, gid) = if tree.is_context() {
        (0, 0)
    } else {
        (info.uid, info.gid)
    };
    let mut hash = Sha256::new();
    let failed = |error: rdock_image::Error| error.to_string();
    for number in [
        u64::from(info.raw_mode),
        uid.into(),
        gid.into(),
        info.device.0.into(),
        info.device.1.into(),
    ] {
        hash.update(number.to_le_bytes());
    }
    match info.kind {
        FileKind::File => hash.update(content(tree, &selected.path.join(relative), entry, &info)?),
        FileKind::Symlink => hash.update(entry.read_link().map_err(failed)?.as_bytes()),
        FileKind::Dir => attributes(&mut hash, entry)?,
        _ => {}
    }
    Ok(hash.finalize().into())
}

fn attributes(hash: &mut Sha256, entry: &ViewEntry) -> Result<(), String> {
    for (name, value) in entry.xattrs().map_err(|error| error.to_string())? {
        // The host's labels are no content.
        let host = name.starts_with(b"security.") || name.starts_with(b"system.");
        if host && name != b"security.capability" {
            continue;
        }
        for text in [&name, &value] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
    }
    Ok(())
}

/// Bytes and attributes of a file.
fn content(tree: &SourceTree, path: &Path, entry: &ViewEntry, info: &FileInfo) -> Result<[u8; 32], String> {
    let key = path.as_os_str().as_bytes();
    if let Some(stats) = &tree.stats
        && let Some(known) = stats.borrow().get(key, info)
    {
        return Ok(known);
    }
    let started = SystemTime::now();
    let mut hash = Sha256::new();
    let mut file = entry.open().map_err(|error| error.to_string())?;
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0_u64;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hash.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        }
    }
    hash.update(size.to_le_bytes());
    attributes(&mut hash, entry)?;
    let digest = hash.finalize().into();
    if let Some(stats) = &tree.stats {
        stats.borrow_mut().put(key, info, started, digest);
    }
    Ok(digest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
