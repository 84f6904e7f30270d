//! The content store: manifests, indexes and configs by digest. A blob appears by rename, complete and read-only.
use crate::layout::{Layout, make_dir_all};
use crate::{Digest, Error, Lease, Result};
use std::fs::{self, File};
use std::io::Read;

pub(crate) fn has(layout: &Layout, digest: &Digest) -> bool {
    layout.blob(digest).exists()
}

/// Reads a blob of at most `limit` bytes and checks it against its digest.
pub(crate) fn read(layout: &Layout, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
    let path = layout.blob(digest);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::MissingBlob {
                what: "blob",
                digest: digest.clone(),
            });
        }
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io("read", &path, e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::Limit {
            what: format!("the size in bytes of document {digest}"),
            limit,
        });
    }
    verify(&bytes, digest)?;
    Ok(bytes)
}

/// Stores `bytes` under `expected`, which they must have. Concurrent writers do no harm: one wins.
pub(crate) fn write(layout: &Layout, lease: &Lease, bytes: &[u8], expected: &Digest) -> Result<()> {
    verify(bytes, expected)?;
    lease.pin(expected)?;
    if has(layout, expected) {
        return Ok(());
    }
    if expected.algorithm() != "sha256" {
        make_dir_all(&layout.blobs().join(expected.algorithm()))?;
    }
    let scratch = layout.write_scratch(bytes, 0o444)?;
    let published = layout.publish(&scratch, &layout.blob(expected));
    if !matches!(published, Ok(true)) {
        let _ = fs::remove_file(&scratch);
    }
    published.map(drop)
}

fn verify(bytes: &[u8], expected: &Digest) -> Result<()> {
    let found = expected.of_same_kind(bytes);
    if found == *expected {
        return Ok(());
    }
    Err(Error::DigestMismatch {
        what: format!("blob {}", expected.short()),
        expected: expected.clone(),
        found,
    })
}
