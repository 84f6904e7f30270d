//! What files contain, as a digest: names, modes, owners, links, attributes and bytes, without times.
//!
//! Times are left out as in Docker's tarsum, so that a fresh checkout of the same files is the same content.
use super::{Selected, SourceTree, walk};
use crate::ignore::Patterns;
use rdock_image::{FileInfo, FileKind, ViewEntry};
use sha2::{Digest as _, Sha256};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

/// Digests of files by path, packed: most builds never look at them.
#[derive(Debug, Default)]
pub(crate) struct FileDigests {
    paths: Vec<u8>,
    /// Where a path ends, and the begin of its digest.
    ends: Vec<(usize, [u8; 8])>,
}

impl FileDigests {
    /// The most files that are noted.
    const MOST: usize = 20_000;

    fn note(&mut self, path: &[u8], digest: &[u8; 32]) {
        if self.ends.len() >= Self::MOST {
            return;
        }
        self.paths.extend_from_slice(path);
        let mut begin = [0; 8];
        begin.copy_from_slice(&digest[..8]);
        self.ends.push((self.paths.len(), begin));
    }

    /// Paths with their digests.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, String)> {
        let mut begin = 0;
        self.ends.iter().map(move |(end, digest)| {
            let path = String::from_utf8_lossy(&self.paths[begin..*end]).into_owned();
            begin = *end;
            (path, hex(digest))
        })
    }
}

/// Returns the digest of a file, or of what is in a directory. `files` gets each path with its own digest.
pub(crate) fn digest(
    tree: &SourceTree,
    selected: &Selected,
    exclude: &Patterns,
    files: &mut FileDigests,
) -> Result<String, String> {
    let mut whole = Sha256::new();
    let mut path = Vec::new();
    walk(tree, selected, exclude, &mut |relative, entry| {
        // The named directory's own mode and owner do not count: its contents are copied.
        if relative.as_os_str().is_empty() && entry.info().kind == FileKind::Dir {
            whole.update(b"directory\0");
            return Ok(());
        }
        path.clear();
        path.extend_from_slice(selected.path.as_os_str().as_bytes());
        if !path.is_empty() && !relative.as_os_str().is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(relative.as_os_str().as_bytes());
        let own = header(tree, &path, entry)?;
        whole.update((relative.as_os_str().len() as u64).to_le_bytes());
        whole.update(relative.as_os_str().as_bytes());
        whole.update(own);
        files.note(&path, &own);
        Ok(())
    })?;
    Ok(hex(&whole.finalize()))
}

fn header(tree: &SourceTree, path: &[u8], entry: &ViewEntry) -> Result<[u8; 32], String> {
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
        FileKind::File => hash.update(content(tree, path, entry, &info)?),
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
fn content(tree: &SourceTree, path: &[u8], entry: &ViewEntry, info: &FileInfo) -> Result<[u8; 32], String> {
    if let Some(stats) = &tree.stats
        && let Some(known) = stats.borrow().get(path, info)
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
            Err(error) => return Err(format!("cannot read {}: {error}", entry.path().display())),
        }
    }
    hash.update(size.to_le_bytes());
    attributes(&mut hash, entry)?;
    let digest = hash.finalize().into();
    if let Some(stats) = &tree.stats {
        stats.borrow_mut().put(path, info, started, digest);
    }
    Ok(digest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
