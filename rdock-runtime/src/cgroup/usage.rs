//! What a container's groups have used, read back from the kernel.

use super::find::{self, Version};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The existing groups of one container.
#[derive(Debug)]
pub(crate) struct Groups(Vec<Group>);

#[derive(Debug)]
struct Group {
    version: Version,
    path: PathBuf,
}

/// Memory of a group, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) usage: u64,
    /// Cached file contents that nobody has used for a while.
    pub(crate) inactive_file: u64,
    pub(crate) limit: Option<u64>,
}

/// Bytes and operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) read: u64,
    pub(crate) written: u64,
}

/// The groups of a container on this machine.
pub(crate) fn groups(place: &super::Place) -> Groups {
    let hierarchies = find::hierarchies().iter();
    let all = hierarchies.map(|hierarchy| Group {
        version: hierarchy.version,
        path: place.within(&hierarchy.group),
    });
    Groups(all.filter(|group| group.path.is_dir()).collect())
}

impl Groups {
    /// Processes in the groups and in those below them.
    pub(crate) fn processes(&self) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        for group in &self.0 {
            members(&group.path, &mut found, 0);
        }
        found
    }

    /// Nanoseconds of processor time.
    pub(crate) fn cpu(&self) -> Option<u64> {
        self.first(|group| match group.version {
            Version::Two => keyed(&group.read("cpu.stat")?, "usage_usec")?.checked_mul(1000),
            Version::One => group.number("cpuacct.usage"),
        })
    }

    pub(crate) fn memory(&self) -> Option<Memory> {
        self.first(|group| match group.version {
            Version::Two => Some(Memory {
                usage: group.number("memory.current")?,
                inactive_file: keyed(&group.read("memory.stat")?, "inactive_file").unwrap_or(0),
                limit: group.number("memory.max"),
            }),
            Version::One => Some(Memory {
                usage: group.number("memory.usage_in_bytes")?,
                inactive_file: keyed(&group.read("memory.stat")?, "total_inactive_file").unwrap_or(0),
                // Without a limit it is the largest number of pages.
                limit: group
                    .number("memory.limit_in_bytes")
                    .filter(|limit| *limit < (i64::MAX as u64 & !0xffff)),
            }),
        })
    }

    pub(crate) fn block_io(&self) -> Option<Transfer> {
        self.first(|group| match group.version {
            Version::Two => Some(io_stat(&group.read("io.stat")?)),
            Version::One => {
                let recursive = group.read("blkio.throttle.io_service_bytes_recursive");
                let text = recursive.or_else(|| group.read("blkio.throttle.io_service_bytes"))?;
                Some(io_service_bytes(&text))
            }
        })
    }

    /// Processes and threads, and how many there may be.
    pub(crate) fn pids(&self) -> Option<(u64, Option<u64>)> {
        self.first(|group| Some((group.number("pids.current")?, group.number("pids.max"))))
    }

    fn first<T>(&self, read: impl Fn(&Group) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(read)
    }
}

impl Group {
    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path.join(file)).ok()
    }

    /// The number in a file; `max` is none.
    fn number(&self, file: &str) -> Option<u64> {
        self.read(file)?.trim().parse().ok()
    }
}

/// How deep groups inside a container are looked at.
const DEEPEST: usize = 16;

fn members(group: &Path, found: &mut BTreeSet<i32>, depth: usize) {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    if depth >= DEEPEST {
        return;
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members(&entry.path(), found, depth + 1);
        }
    }
}

/// A line `name number`.
fn keyed(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Lines `8:0 rbytes=1 wbytes=2 rios=3 ...`.
fn io_stat(text: &str) -> Transfer {
    let sum = |name: &str| {
        let fields = text.split_whitespace();
        let values =
            fields.filter_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok());
        values.fold(0, u64::saturating_add)
    };
    Transfer {
        read: sum("rbytes"),
        written: sum("wbytes"),
    }
}

/// Lines `8:0 Read 1`.
fn io_service_bytes(text: &str) -> Transfer {
    let sum = |name: &str| {
        let values = text.lines().filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            (fields.next()? == name).then_some(())?;
            fields.next()?.parse::<u64>().ok()
        });
        values.fold(0, u64::saturating_add)
    };
    Transfer {
        read: sum("Read"),
        written: sum("Write"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counters_of_both_versions_are_read() {
        let stat = "usage_usec 12\nuser_usec 5\nsystem_usec 7\nusage_usecs 99\n";
        assert_eq!(keyed(stat, "usage_usec"), Some(12));
        assert_eq!(keyed(stat, "usage"), None);
        let two = "8:0 rbytes=100 wbytes=20 rios=3 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n253:0\n";
        assert_eq!(
            io_stat(two),
            Transfer {
                read: 101,
                written: 22
            }
        );
        let one = "8:0 Read 100\n8:0 Write 20\n8:0 Sync 120\n8:0 Total 120\n8:16 Read 1\nTotal 121\n";
        assert_eq!(
            io_service_bytes(one),
            Transfer {
                read: 101,
                written: 20
            }
        );
    }

    proptest! {
        #[test]
        fn any_text_is_numbers_or_nothing(text in "[a-zA-Z0-9:= \n_]{0,200}") {
            let _ = (keyed(&text, "usage_usec"), io_stat(&text), io_service_bytes(&text));
        }
    }
}
