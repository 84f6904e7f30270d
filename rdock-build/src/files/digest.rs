//! What files contain, as a digest: names, modes, owners, links, attributes and bytes, without times.
//!
//! Times are left out as in Docker's tarsum, so that a fresh checkout of the same files is the same content.
use super::scan::scan;
use super::select::Filters;
use super::{ContextFiles, Selected, SourceTree, walk};
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
    // The named directory's own mode and owner do not count: its contents are copied.
    let is_dir = selected.entry.info().kind == FileKind::Dir;
    if is_dir {
        whole.update(b"directory\0");
    }
    let top = selected.path.as_os_str().as_bytes();
    let mut note = |relative: &[u8], own: [u8; 32]| {
        path_below(&mut path, top, relative);
        whole.update((relative.len() as u64).to_le_bytes());
        whole.update(relative);
        whole.update(own);
        files.note(&path, &own);
    };
    match &tree.context {
        Some(context) if is_dir => {
            let filters = Filters {
                ignore: &tree.ignore,
                exclude,
            };
            scan(context, filters, &selected.path, &mut note)?;
        }
        context => {
            let mut headers = Headers::new(context.as_ref());
            let mut path = Vec::new();
            walk(tree, selected, exclude, &mut |relative, entry| {
                let relative = relative.as_os_str().as_bytes();
                if is_dir && relative.is_empty() {
                    return Ok(());
                }
                path_below(&mut path, top, relative);
                note(relative, headers.of(&path, entry)?);
                Ok(())
            })?;
        }
    }
    Ok(hex(&whole.finalize()))
}

/// The path of what a walk has at `relative`, below the root of the tree.
fn path_below(path: &mut Vec<u8>, top: &[u8], relative: &[u8]) {
    path.clear();
    path.extend_from_slice(top);
    if !path.is_empty() && !relative.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(relative);
}

/// What makes up the digests of single files.
pub(super) struct Headers<'a> {
    context: Option<&'a ContextFiles>,
    /// The record of the stat cache to try first.
    next: usize,
}

impl<'a> Headers<'a> {
    pub(super) fn new(context: Option<&'a ContextFiles>) -> Self {
        Self { context, next: 0 }
    }

    /// The digest of a regular file of a context that did not change since it was read.
    pub(super) fn unchanged(&mut self, path: &[u8], info: &FileInfo) -> Option<[u8; 32]> {
        if info.kind != FileKind::File {
            return None;
        }
        let content = self.context?.stats.get(path, info, &mut self.next)?;
        Some(begun(true, info).chain_update(content).finalize().into())
    }

    /// The digest of the entry at `path` of the tree.
    pub(super) fn of(&mut self, path: &[u8], entry: &ViewEntry) -> Result<[u8; 32], String> {
        let info = entry.info();
        let content = match (info.kind, self.context) {
            (FileKind::File, None) => Some(content(entry)?),
            (FileKind::File, Some(context)) => {
                let known = context.stats.get(path, &info, &mut self.next);
                Some(match known {
                    Some(known) => known,
                    None => {
                        let started = SystemTime::now();
                        let read = content(entry)?;
                        context.stats.put(path, &info, started, read);
                        read
                    }
                })
            }
            _ => None,
        };
        header(self.context.is_some(), entry, content)
    }
}

/// What all kinds of files have.
fn begun(is_context: bool, info: &FileInfo) -> Sha256 {
    let (uid, gid) = match is_context {
        true => (0, 0),
        false => (info.uid, info.gid),
    };
    let mut hash = Sha256::new();
    for number in [
        u64::from(info.raw_mode),
        uid.into(),
        gid.into(),
        info.device.0.into(),
        info.device.1.into(),
    ] {
        hash.update(number.to_le_bytes());
    }
    hash
}

fn header(is_context: bool, entry: &ViewEntry, content: Option<[u8; 32]>) -> Result<[u8; 32], String> {
    let info = entry.info();
    let failed = |error: rdock_image::Error| error.to_string();
    let mut hash = begun(is_context, &info);
    match info.kind {
        FileKind::File => hash.update(content.unwrap_or_default()),
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
fn content(entry: &ViewEntry) -> Result<[u8; 32], String> {
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
    Ok(hash.finalize().into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
