//! Processes as /proc shows them (proc_pid_stat(5), proc_pid_status(5)). The names in it are chosen by the
//! processes: everything here takes any bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// What is read of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    pub(crate) name: String,
    pub(crate) state: char,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    pub(crate) tty: u64,
    pub(crate) foreground: i32,
    /// Clock ticks.
    pub(crate) user: u64,
    pub(crate) system: u64,
    pub(crate) priority: i64,
    pub(crate) nice: i64,
    pub(crate) threads: u64,
    /// Clock ticks since boot.
    pub(crate) start: u64,
    pub(crate) virtual_size: u64,
    pub(crate) processor: i64,
}

/// What /proc/PID/status has and stat has not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Real, effective, saved, of the file system.
    pub(crate) uids: [u32; 4],
    pub(crate) gids: [u32; 4],
    /// Its number in each pid namespace, this one's first.
    pub(crate) pids: Vec<i32>,
    pub(crate) locked: bool,
    /// Bytes in memory.
    pub(crate) resident: u64,
}

pub(crate) fn stat(pid: i32) -> io::Result<Stat> {
    let bytes = fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The name is in parentheses and may itself hold any byte, parentheses included.
fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|&byte| byte == b'(')?;
    let close = bytes.iter().rposition(|&byte| byte == b')')?;
    let name = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
    let pid = std::str::from_utf8(&bytes[..open]).ok()?.trim().parse().ok()?;
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Field 3 of the manual is the first one here.
    let field = |number: usize| fields.get(number - 3).copied();
    let unsigned = |number| field(number)?.parse::<u64>().ok();
    let signed = |number| field(number)?.parse::<i64>().ok();
    let id = |number| field(number)?.parse::<i32>().ok();
    Some(Stat {
        pid,
        name,
        state: field(3)?.chars().next()?,
        parent: id(4)?,
        group: id(5)?,
        session: id(6)?,
        tty: u64::from(id(7)?.cast_unsigned()),
        foreground: id(8)?,
        user: unsigned(14)?,
        system: unsigned(15)?,
        priority: signed(18)?,
        nice: signed(19)?,
        threads: unsigned(20)?,
        start: unsigned(22)?,
        virtual_size: unsigned(23)?,
        processor: signed(39).unwrap_or(0),
    })
}

pub(crate) fn owner(pid: i32) -> io::Result<Owner> {
    let bytes = fs::read(format!("/proc/{pid}/status"))?;
    Ok(parse_owner(&String::from_utf8_lossy(&bytes)))
}

fn parse_owner(text: &str) -> Owner {
    let mut owner = Owner::default();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let mut numbers = value.split_whitespace();
        match name {
            "Uid" | "Gid" => {
                let ids = if name == "Uid" {
                    &mut owner.uids
                } else {
                    &mut owner.gids
                };
                for (id, text) in ids.iter_mut().zip(numbers) {
                    *id = text.parse().unwrap_or(u32::MAX);
                }
            }
            "NSpid" => owner.pids = numbers.filter_map(|text| text.parse().ok()).collect(),
            "VmRSS" => {
                let kilobytes = numbers.next().and_then(|size| size.parse::<u64>().ok());
                owner.resident = kilobytes.unwrap_or(0).saturating_mul(1024);
            }
            "VmLck" => owner.locked = numbers.next().is_some_and(|size| size != "0"),
            _ => {}
        }
    }
    owner
}

/// The arguments; none of a kernel thread or a zombie.
pub(crate) fn arguments(pid: i32) -> Vec<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    // A process can make its arguments as large as its stack: more than this nobody reads.
    const MOST: u64 = 128 << 10;
    let read = fs::File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    if read.is_err() || bytes.is_empty() {
        return Vec::new();
    }
    let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    text.split(|&byte| byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// Bytes read from and written to disks, where the kernel lets us see them.
pub(crate) fn disk(pid: i32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let value = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse::<u64>().ok())
    };
    Some((value("read_bytes")?, value("write_bytes")?))
}

/// Counters of one interface, from its own side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Bytes, packets, errors, dropped.
    pub(crate) received: [u64; 4],
    pub(crate) sent: [u64; 4],
}

/// The interfaces in the network namespace of a process, without `lo`.
pub(crate) fn interfaces(pid: i32) -> io::Result<BTreeMap<String, Interface>> {
    let bytes = fs::read(format!("/proc/{pid}/net/dev"))?;
    Ok(parse_interfaces(&String::from_utf8_lossy(&bytes)))
}

fn parse_interfaces(text: &str) -> BTreeMap<String, Interface> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        // A name may hold a colon; numbers do not.
        let Some((name, numbers)) = line.rsplit_once(':') else {
            continue;
        };
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .filter_map(|text| text.parse().ok())
            .collect();
        let (Some(received), Some(sent)) = (
            numbers.first_chunk(),
            numbers.get(8..).and_then(<[u64]>::first_chunk),
        ) else {
            continue;
        };
        let name = name.trim();
        if name != "lo" && !name.is_empty() {
            let interface = Interface {
                received: *received,
                sent: *sent,
            };
            found.insert(name.to_owned(), interface);
        }
    }
    found
}

/// Clock ticks a second of times in /proc; 100 on every architecture we run on.
pub(crate) const TICKS: u64 = 100;

/// Nanoseconds since 1970 at which the machine was started.
pub(crate) fn boot_time() -> i64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let mut lines = text.lines();
    let seconds = lines.find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok());
    seconds.unwrap_or(0).saturating_mul(1_000_000_000)
}

/// Memory of the machine, in bytes.
pub(crate) fn memory_total() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut lines = text.lines();
    let kilobytes = lines.find_map(|line| {
        line.strip_prefix("MemTotal:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
    });
    kilobytes.unwrap_or(0).saturating_mul(1024)
}

/// Every process that this one can see.
pub(crate) fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_with_parentheses_and_newlines_shifts_no_field() {
        let rest = "S 1 7 8 34816 9 4194304 1 2 3 4 55 66 0 0 20 -5 3 0 777 8192 12 184467440 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0";
        for name in ["a", "a) R 1 (b", "\n", ")", "((", ""] {
            let stat = parse_stat(format!("42 ({name}) {rest}\n").as_bytes()).expect(name);
            assert_eq!((stat.pid, stat.name.as_str(), stat.state), (42, name, 'S'));
            assert_eq!(
                (stat.parent, stat.group, stat.session, stat.tty),
                (1, 7, 8, 34816)
            );
            assert_eq!((stat.user, stat.system, stat.nice, stat.threads), (55, 66, -5, 3));
            assert_eq!((stat.start, stat.virtual_size), (777, 8192));
            assert_eq!(stat.processor, 1);
        }
    }

    #[test]
    fn this_process_is_read() {
        let pid = i32::try_from(std::process::id()).expect("pid");
        assert_eq!(stat(pid).expect("stat").pid, pid);
        let owner = owner(pid).expect("status");
        assert_eq!(owner.uids[1], rustix::process::geteuid().as_raw());
        assert_eq!(owner.pids.last().copied(), Some(pid));
        assert!(owner.resident > 0);
        assert!(!arguments(pid).is_empty());
        assert!(pids().contains(&pid));
        assert!(memory_total() > 0 && boot_time() > 0);
    }

    #[test]
    fn interfaces_without_lo() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
                    lo:    1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n  \
                    eth0:  10 20 30 40 0 0 0 0 50 60 70 80 0 0 0 0\n";
        let found = parse_interfaces(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found["eth0"].received, [10, 20, 30, 40]);
        assert_eq!(found["eth0"].sent, [50, 60, 70, 80]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_process_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_stat(&bytes);
            let text = String::from_utf8_lossy(&bytes);
            let _ = (parse_owner(&text), parse_interfaces(&text));
        }

        #[test]
        fn any_fields_are_a_process_or_none(fields in "[0-9() -]{0,200}") {
            let _ = parse_stat(fields.as_bytes());
        }
    }
}
