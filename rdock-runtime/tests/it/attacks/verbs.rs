//! What a container tries that it must not manage: more verbs of the probe.

use rustix::fs::{CWD, FileType, Mode};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Does what a line of `PROBE` asks; `None` for a verb that is not known here.
pub(crate) fn verb(verb: &str, first: &str, second: &str) -> Option<io::Result<String>> {
    Some(match verb {
        "status" => status(first),
        "ids" => ids(),
        "same" => same(first, second),
        "symlink" => std::os::unix::fs::symlink(first, second).map(|()| "linked".into()),
        "fifo" => rustix::fs::mknodat(CWD, first, FileType::Fifo, Mode::from_raw_mode(0o644), 0)
            .map(|()| "made".into())
            .map_err(io::Error::from),
        "mknod" => node(first, second),
        "flags" => flags(),
        "read" => std::fs::File::open(first).map(|_| "opened".into()),
        "size" => rustix::termios::tcgetwinsize(rustix::stdio::stdin())
            .map(|size| format!("{} {}", size.ws_row, size.ws_col))
            .map_err(io::Error::from),
        "session" => session(),
        "overwrite" => milliseconds(first).map(overwrite),
        "spy" => milliseconds(first).map(spy),
        "swap" => swap(first, second),
        "flood" => flood(),
        "writable" => writable(first),
        "unlink-all" => std::fs::remove_dir_all(first).map(|()| "removed".into()),
        _ => return None,
    })
}

/// Every mount with its flags; where it comes from is another for each container.
fn flags() -> io::Result<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut all: Vec<String> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(4);
            let (target, flags) = (fields.next()?, fields.next()?);
            let kind = line.split_once(" - ")?.1.split(' ').next()?;
            Some(format!("{target} {kind} {flags}"))
        })
        .collect();
    all.sort();
    Ok(all.join(";"))
}

/// Makes the node of the device `KIND:MAJOR:MINOR`.
fn node(path: &str, device: &str) -> io::Result<String> {
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut parts = device.split(':');
    let kind = match parts.next() {
        Some("b") => FileType::BlockDevice,
        _ => FileType::CharacterDevice,
    };
    let device = rustix::fs::makedev(number(parts.next()), number(parts.next()));
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), device)?;
    Ok("made".to_owned())
}

/// Exchanges two names without end.
fn swap(first: &str, second: &str) -> io::Result<String> {
    loop {
        rustix::fs::renameat_with(CWD, first, CWD, second, rustix::fs::RenameFlags::EXCHANGE)?;
    }
}

/// Writes to stdout until nobody takes more, for half a second or 64 MiB; says on stderr how far it came.
fn flood() -> io::Result<String> {
    let stdout = rustix::stdio::stdout();
    rustix::io::ioctl_fionbio(stdout, true)?;
    let (block, mut written) = (vec![b'y'; 64 << 10], 0_usize);
    while written < 64 << 20 {
        match rustix::io::write(stdout, &block) {
            Ok(count) => written += count,
            Err(rustix::io::Errno::AGAIN) => {
                let mut wait = [rustix::event::PollFd::new(&stdout, rustix::event::PollFlags::OUT)];
                let half = rustix::event::Timespec {
                    tv_sec: 0,
                    tv_nsec: 500_000_000,
                };
                if rustix::event::poll(&mut wait, Some(&half))? == 0 {
                    break;
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    rustix::io::ioctl_fionbio(stdout, false)?;
    rustix::io::write(rustix::stdio::stderr(), format!("{written}\n").as_bytes())?;
    Ok(String::new())
}

/// Whether a file below a directory can be opened for writing; which ones, or `none`.
fn writable(directory: &str) -> io::Result<String> {
    let mut found = Vec::new();
    let mut left = vec![std::path::PathBuf::from(directory)];
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(&at)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            } else if std::fs::OpenOptions::new().write(true).open(entry.path()).is_ok() {
                found.push(entry.path().display().to_string());
            }
        }
    }
    Ok(match found.is_empty() {
        true => "none".to_owned(),
        false => found.join(" "),
    })
}

fn milliseconds(text: &str) -> io::Result<Duration> {
    text.parse().map(Duration::from_millis).map_err(io::Error::other)
}

fn status(name: &str) -> io::Result<String> {
    let file = std::fs::read_to_string("/proc/self/status")?;
    let value = file
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.ok_or_else(|| io::Error::other(format!("no {name} in /proc/self/status")))?;
    Ok(value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
}

/// `uid:gid [groups]`, all four ids of a kind being the same.
fn ids() -> io::Result<String> {
    let one = |name| {
        let all = status(name)?;
        let distinct: BTreeSet<&str> = all.split(' ').collect();
        Ok::<_, io::Error>(distinct.into_iter().collect::<Vec<_>>().join(" "))
    };
    Ok(format!("{}:{} [{}]", one("Uid")?, one("Gid")?, status("Groups")?))
}

fn same(one: &str, other: &str) -> io::Result<String> {
    let (one, other) = (std::fs::metadata(one)?, std::fs::metadata(other)?);
    Ok((one.rdev() == other.rdev() && one.ino() == other.ino()).to_string())
}

/// `leader terminal`: whether this is the session of pid 1, and the number of its controlling terminal.
fn session() -> io::Result<String> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .map_or("", |(_, rest)| rest)
        .split(' ')
        .collect();
    match fields[..] {
        [_, _, _, session, terminal, ..] => Ok(format!("{session} {terminal}")),
        _ => Err(io::Error::other(stat)),
    }
}

/// Tries to open every other process's program for writing.
fn overwrite(time: Duration) -> String {
    let (end, mut seen, mut opened) = (Instant::now() + time, 0u64, BTreeSet::new());
    while Instant::now() < end {
        for pid in others() {
            let path = format!("/proc/{pid}/exe");
            if let Ok(program) = std::fs::read_link(&path) {
                seen += 1;
                if std::fs::OpenOptions::new().write(true).open(&path).is_ok() {
                    opened.insert(program);
                }
            }
        }
    }
    format!("seen {} opened {opened:?}", seen > 0)
}

/// Looks into every other process as long as it lasts.
///
/// Says how many were there, how many of them let nobody look into them, and what was found in the rest that is
/// not of the container.
fn spy(time: Duration) -> String {
    let end = Instant::now() + time;
    let (mut there, mut closed, mut found) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    while Instant::now() < end {
        for pid in others() {
            there.insert(pid);
            match std::fs::read_link(format!("/proc/{pid}/exe")) {
                Ok(program) if program == Path::new("/test") => {}
                Ok(program) => drop(found.insert(program)),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => drop(closed.insert(pid)),
                // It has ended.
                Err(_) => {}
            }
            if std::fs::File::open(format!("/proc/{pid}/mem")).is_ok()
                && std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path != Path::new("/test"))
            {
                found.insert(format!("memory of {pid}").into());
            }
            let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
                continue;
            };
            for target in descriptors.flatten().filter_map(|fd| fd.path().read_link().ok()) {
                let text = target.to_string_lossy();
                // What a process inside has or opens by itself: pipes, null, and files of its own root.
                let own = [
                    "pipe:",
                    "/dev/null",
                    "/proc/",
                    "/lib",
                    "/usr/",
                    "/etc/",
                    "/test",
                    "/sys/",
                ];
                if !own.iter().any(|start| text.starts_with(start)) {
                    found.insert(target);
                }
            }
        }
    }
    format!("there {} closed {} found {found:?}", there.len(), closed.len())
}

/// Every other process in sight but pid 1's own threads.
fn others() -> Vec<u32> {
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != own).collect()
}
