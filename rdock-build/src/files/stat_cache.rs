//! The digests of a context's files, so that an unchanged file is looked at and not read.
//!
//! A file counts as unchanged when device, inode, size, modification and change time are those of when it was read. The
//! kernel sets the change time at every write and nobody can set it back; a file that changed within the clock's
//! granularity of its reading is read again.
use rdock_image::FileInfo;
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC: &[u8; 8] = b"rdstat1\n";
/// Coarser than any kernel's clock tick (10 ms at 100 Hz).
const GRANULARITY: u128 = 20_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    digest: [u8; 32],
}

/// Digests by path. Kept in a file of the build cache.
#[derive(Debug, Default)]
pub(crate) struct StatCache {
    known: HashMap<Vec<u8>, Entry>,
    changed: bool,
}

impl StatCache {
    /// Reads what [`StatCache::to_bytes`] wrote; anything else is an empty cache.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut known = HashMap::new();
        let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
            return Self::default();
        };
        fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
            let (first, more) = rest.split_at_checked(count)?;
            *rest = more;
            Some(first)
        }
        fn number(rest: &mut &[u8]) -> Option<u64> {
            Some(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?))
        }
        let mut one = || -> Option<(Vec<u8>, Entry)> {
            let length = number(&mut rest)?;
            let path = take(&mut rest, usize::try_from(length).ok()?)?.to_vec();
            let mut next = || number(&mut rest);
            let (device, inode, size) = (next()?, next()?, next()?);
            let mtime = (next()?.cast_signed(), next()? as u32);
            let ctime = (next()?.cast_signed(), next()? as u32);
            let digest = take(&mut rest, 32)?.try_into().ok()?;
            let entry = Entry {
                device,
                inode,
                size,
                mtime,
                ctime,
                digest,
            };
            Some((path, entry))
        };
        while let Some((path, entry)) = one() {
            known.insert(path, entry);
        }
        Self {
            known,
            changed: false,
        }
    }

    /// Something to keep, if there is anything new.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        if !self.changed {
            return None;
        }
        let mut bytes = MAGIC.to_vec();
        for (path, entry) in &self.known {
            let put = |bytes: &mut Vec<u8>, number: u64| bytes.extend_from_slice(&number.to_le_bytes());
            put(&mut bytes, path.len() as u64);
            bytes.extend_from_slice(path);
            for number in [
                entry.device,
                entry.inode,
                entry.size,
                entry.mtime.0.cast_unsigned(),
                entry.mtime.1.into(),
                entry.ctime.0.cast_unsigned(),
                entry.ctime.1.into(),
            ] {
                put(&mut bytes, number);
            }
            bytes.extend_from_slice(&entry.digest);
        }
        Some(bytes)
    }

    /// Returns the digest of an unchanged file.
    pub(crate) fn get(&self, path: &[u8], info: &FileInfo) -> Option<[u8; 32]> {
        let entry = self.known.get(path)?;
        let same = (entry.device, entry.inode, entry.size) == (info.inode.0, info.inode.1, info.size)
            && entry.mtime == (info.mtime, info.mtime_nsec)
            && entry.ctime == info.ctime;
        same.then_some(entry.digest)
    }

    /// Notes the digest of a file that was looked at (`info`) before it was read from `started` on.
    pub(crate) fn put(&mut self, path: &[u8], info: &FileInfo, started: SystemTime, digest: [u8; 32]) {
        let now = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let (seconds, nanoseconds) = info.ctime;
        let changed = u128::from(seconds.max(0).cast_unsigned()) * 1_000_000_000 + u128::from(nanoseconds);
        if changed + GRANULARITY > now {
            return;
        }
        let entry = Entry {
            device: info.inode.0,
            inode: info.inode.1,
            size: info.size,
            mtime: (info.mtime, info.mtime_nsec),
            ctime: info.ctime,
            digest,
        };
        self.changed |= self.known.insert(path.to_vec(), entry) != Some(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_garbage_is_nothing() {
        let mut cache = StatCache::default();
        let entry = Entry {
            device: 1,
            inode: 2,
            size: 3,
            mtime: (-4, 5),
            ctime: (6, 7),
            digest: [8; 32],
        };
        cache.known.insert(b"a/b".to_vec(), entry);
        cache.changed = true;
        let bytes = cache.to_bytes().unwrap_or_default();
        assert_eq!(StatCache::parse(&bytes).known, cache.known);
        for cut in 0..bytes.len() {
            assert!(StatCache::parse(&bytes[..cut]).known.is_empty());
        }
    }
}
