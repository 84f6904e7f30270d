//! The digests of a context's files, so that an unchanged file is looked at and not read.
//!
//! A file counts as unchanged when device, inode, size, modification and change time are those of when it was read. The
//! kernel sets the change time at every write and nobody can set it back; a file that changed within the clock's
//! granularity of its reading is read again.
//!
//! What is kept is read as it is, with no table built from it: records in the order of their paths, then the paths. A
//! build whose files are all unchanged asks in that very order.
use rdock_image::FileInfo;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC: &[u8; 8] = b"rdstat2\n";
/// Where the path ends among the paths, then [`Entry`].
const RECORD: usize = 8 + 7 * 8 + 32;
/// Coarser than any kernel's clock tick (10 ms at 100 Hz).
const GRANULARITY: u128 = 20_000_000;
/// Files that nobody asked for are forgotten when there are so many more of them than of the others.
const UNUSED: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    digest: [u8; 32],
}

/// Digests by path. Kept in a file of the build cache. Threads may ask at once, and wait for each other only when files
/// changed.
#[derive(Debug, Default)]
pub(crate) struct StatCache {
    kept: Kept,
    /// Which records were asked for.
    used: Vec<AtomicBool>,
    noted: Mutex<BTreeMap<Vec<u8>, Entry>>,
}

/// What [`StatCache::to_bytes`] wrote.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    count: usize,
}

impl Kept {
    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let count = bytes.strip_prefix(MAGIC)?.first_chunk::<8>()?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
        let kept = Self { bytes, count };
        let paths = kept.paths()?.len() as u64;
        // The paths are all there, and none ends before the one before it.
        let mut last = 0;
        for at in 0..count {
            let end = kept.number(at, 0)?;
            if end < last || end > paths {
                return None;
            }
            last = end;
        }
        (last == paths).then_some(kept)
    }

    fn paths(&self) -> Option<&[u8]> {
        let records = self.count.checked_mul(RECORD)?;
        self.bytes.get(MAGIC.len() + 8..)?.get(records..)
    }

    fn record(&self, at: usize) -> Option<&[u8; RECORD]> {
        let records = self.bytes.get(MAGIC.len() + 8..)?;
        records.get(at * RECORD..)?.first_chunk()
    }

    fn number(&self, at: usize, field: usize) -> Option<u64> {
        let bytes = self.record(at)?.get(field * 8..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*bytes))
    }

    fn path(&self, at: usize) -> Option<&[u8]> {
        let begin = match at.checked_sub(1) {
            Some(before) => self.number(before, 0)?,
            None => 0,
        };
        let range = usize::try_from(begin).ok()?..usize::try_from(self.number(at, 0)?).ok()?;
        self.paths()?.get(range)
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        let number = |field| self.number(at, field);
        Some(Entry {
            device: number(1)?,
            inode: number(2)?,
            size: number(3)?,
            mtime: (number(4)?.cast_signed(), number(5)? as u32),
            ctime: (number(6)?.cast_signed(), number(7)? as u32),
            digest: *self.record(at)?.last_chunk()?,
        })
    }

    /// Returns the record of a path; `hint` is looked at first.
    fn find(&self, path: &[u8], hint: usize) -> Option<usize> {
        if hint < self.count && self.path(hint) == Some(path) {
            return Some(hint);
        }
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.path(middle)?.cmp(path) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

impl StatCache {
    /// Reads what [`StatCache::to_bytes`] wrote; anything else is an empty cache.
    pub(crate) fn parse(bytes: Vec<u8>) -> Self {
        let kept = Kept::parse(bytes).unwrap_or_default();
        Self {
            used: (0..kept.count).map(|_| AtomicBool::new(false)).collect(),
            kept,
            ..Self::default()
        }
    }

    /// Something to keep, if there is anything new.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        let noted = self.noted();
        if noted.is_empty() {
            return None;
        }
        let is_used = |used: &AtomicBool| used.load(Ordering::Relaxed);
        let asked = self.used.iter().filter(|used| is_used(used)).count() + noted.len();
        let all = self.kept.count <= 2 * asked + UNUSED;
        let mut entries: BTreeMap<&[u8], Entry> = (0..self.kept.count)
            .filter(|at| all || is_used(&self.used[*at]))
            .filter_map(|at| Some((self.kept.path(at)?, self.kept.entry(at)?)))
            .collect();
        entries.extend(noted.iter().map(|(path, entry)| (&path[..], *entry)));
        let mut bytes = MAGIC.to_vec();
        let put = |bytes: &mut Vec<u8>, number: u64| bytes.extend_from_slice(&number.to_le_bytes());
        put(&mut bytes, entries.len() as u64);
        let mut end = 0;
        for (path, entry) in &entries {
            end += path.len() as u64;
            for number in [
                end,
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
        for path in entries.keys() {
            bytes.extend_from_slice(path);
        }
        Some(bytes)
    }

    /// Returns the digest of an unchanged file. `next` is the record to try first, and becomes the one after this file's.
    pub(crate) fn get(&self, path: &[u8], info: &FileInfo, next: &mut usize) -> Option<[u8; 32]> {
        let unchanged = |entry: Entry| {
            let same = (entry.device, entry.inode, entry.size) == (info.inode.0, info.inode.1, info.size)
                && entry.mtime == (info.mtime, info.mtime_nsec)
                && entry.ctime == info.ctime;
            same.then_some(entry.digest)
        };
        let kept = self.kept.find(path, *next).and_then(|at| {
            *next = at + 1;
            self.used[at].store(true, Ordering::Relaxed);
            unchanged(self.kept.entry(at)?)
        });
        kept.or_else(|| self.noted().get(path).copied().and_then(unchanged))
    }

    fn noted(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Entry>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the digest of a file that was looked at (`info`) before it was read from `started` on.
    pub(crate) fn put(&self, path: &[u8], info: &FileInfo, started: SystemTime, digest: [u8; 32]) {
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
        self.noted().insert(path.to_vec(), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        Entry {
            device: 1,
            inode: number,
            size: 3,
            mtime: (-4, 5),
            ctime: (6, 7),
            digest: [number as u8; 32],
        }
    }

    fn all(cache: &StatCache) -> Vec<(Vec<u8>, Entry)> {
        (0..cache.kept.count)
            .map(|at| {
                (
                    cache.kept.path(at).unwrap().to_vec(),
                    cache.kept.entry(at).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn what_was_written_is_read_and_garbage_is_nothing() {
        let cache = StatCache::default();
        for (number, path) in [&b"a/b"[..], b"", b"a.c", b"z"].into_iter().enumerate() {
            cache.noted().insert(path.to_vec(), entry(number as u64));
        }
        let bytes = cache.to_bytes().unwrap();
        let read = StatCache::parse(bytes.clone());
        assert_eq!(all(&read), cache.noted().clone().into_iter().collect::<Vec<_>>());
        for cut in 0..bytes.len() {
            assert_eq!(StatCache::parse(bytes[..cut].to_vec()).kept.count, 0, "{cut}");
        }
        for at in 0..16 + RECORD {
            let mut broken = bytes.clone();
            broken[at] ^= 0x80;
            let broken = StatCache::parse(broken);
            for hint in [0, 3, usize::MAX] {
                broken.kept.find(b"a/b", hint);
            }
        }
        // Nothing new is nothing to write; a new entry takes the place of the old one.
        assert_eq!(read.to_bytes(), None);
        read.noted().insert(b"a/b".to_vec(), entry(9));
        let again = StatCache::parse(read.to_bytes().unwrap());
        assert_eq!(again.kept.count, 4);
        let found = again.kept.find(b"a/b", 0).unwrap();
        assert_eq!(again.kept.entry(found), Some(entry(9)));
        assert_eq!(again.kept.find(b"a", 0), None);
    }

    #[test]
    fn files_that_are_gone_do_not_stay_for_ever() {
        let cache = StatCache::default();
        for number in 0..UNUSED as u64 + 10 {
            cache
                .noted()
                .insert(format!("old/{number}").into_bytes(), entry(number));
        }
        let cache = StatCache::parse(cache.to_bytes().unwrap());
        cache.used[5].store(true, Ordering::Relaxed);
        cache.noted().insert(b"new".to_vec(), entry(1));
        let cache = StatCache::parse(cache.to_bytes().unwrap());
        assert_eq!(cache.kept.count, 2);
    }
}
