//! The file of a container's events: lines are appended, and it never grows without bound.
//!
//! A container that is run again and again adds lines for years, and all of them are read to know how it is. A start
//! finds out everything that counts from then on, so a file that is long is replaced by a short one then. Who appends
//! holds a shared lock on the file it writes to, who replaces it the exclusive one: no line goes into a file that has
//! been replaced.

use super::{ContainerDir, Happened, Start};
use crate::error::{Error, Result};
use rustix::fs::FlockOperation;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

/// A longer file is made short by the next start.
const LARGEST: u64 = 64 << 10;

impl ContainerDir {
    /// Appends an event in one write.
    pub(crate) fn append(&self, event: &Happened) -> Result<()> {
        let path = self.file("events.jsonl");
        let line = line_of(event).map_err(Error::state("write", &path))?;
        loop {
            let mut file = fs::OpenOptions::new()
                .append(true)
                .open(&path)
                .map_err(Error::state("open", &path))?;
            if lock(&file, FlockOperation::LockShared).map_err(Error::state("lock", &path))? {
                return file.write_all(&line).map_err(Error::state("append to", &path));
            }
        }
    }

    /// Appends a start, and leaves out what was before it when that is much.
    pub(crate) fn append_start(&self, start: &Start) -> Result<()> {
        let path = self.file("events.jsonl");
        let long = fs::metadata(&path).is_ok_and(|meta| meta.len() > LARGEST);
        if long {
            self.shorten(start).map_err(Error::state("shorten", &path))
        } else {
            self.append(&Happened::Started(start.clone()))
        }
    }

    fn shorten(&self, start: &Start) -> io::Result<()> {
        let path = self.file("events.jsonl");
        let old = loop {
            let file = fs::OpenOptions::new().append(true).open(&path)?;
            if lock(&file, FlockOperation::LockExclusive)? {
                break file;
            }
        };
        let mut ends = 0;
        let mut last = None;
        for event in parse(&fs::read(&path)?) {
            ends += event.ends();
            if matches!(event, Happened::Exited { .. } | Happened::Restarting { .. }) {
                last = Some(event);
            }
        }
        // The last one says how it ended, and how often it was run again.
        let left_out = ends - usize::from(last.is_some());
        let kept = [Happened::Shortened { ends: left_out }]
            .into_iter()
            .chain(last)
            .chain([Happened::Started(start.clone())]);
        let mut text = Vec::new();
        for event in kept {
            text.extend(line_of(&event)?);
        }
        let new = self.file("events.new");
        let mut file = fs::File::create(&new)?;
        file.write_all(&text)?;
        // Never an empty file under the final name.
        file.sync_data()?;
        fs::rename(&new, &path)?;
        drop(old);
        Ok(())
    }

    /// All events since the file was made short; a torn last line (a crash) is not one.
    pub(crate) fn events(&self) -> Result<Vec<Happened>> {
        let path = self.file("events.jsonl");
        let text = fs::read(&path).map_err(Error::state("read", &path))?;
        Ok(parse(&text))
    }
}

fn parse(text: &[u8]) -> Vec<Happened> {
    text.split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

fn line_of(event: &Happened) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line)
}

/// Locks the file; false when another one has taken its place meanwhile.
fn lock(file: &fs::File, operation: FlockOperation) -> io::Result<bool> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(file, operation))?;
    Ok(file.metadata()?.nlink() > 0)
}

#[cfg(test)]
mod tests {
    use super::super::{Exit, ExitReason, Status};
    use super::*;

    fn container(dir: &tempfile::TempDir) -> ContainerDir {
        let container = ContainerDir {
            path: dir.path().to_owned(),
        };
        fs::write(container.file("events.jsonl"), "").expect("write");
        container
    }

    fn exit(code: i32) -> Exit {
        Exit::now(ExitReason::Exited(code))
    }

    /// How often the payload has ended by the events.
    fn ends(container: &ContainerDir) -> usize {
        let events = container.events().expect("events");
        events.iter().map(Happened::ends).sum()
    }

    #[test]
    fn a_long_file_becomes_short_and_says_the_same() {
        let dir = tempfile::tempdir().expect("tempdir");
        let container = container(&dir);
        let path = container.file("events.jsonl");
        let (mut longest, mut shortest) = (0, u64::MAX);
        for count in 1..=3000_u32 {
            let start = Start {
                restart: true,
                pid: count.cast_signed(),
                ..Start::default()
            };
            container.append_start(&start).expect("start");
            let length = fs::metadata(&path).expect("length").len();
            longest = longest.max(length);
            shortest = if count > 2 { shortest.min(length) } else { shortest };
            let event = Happened::Restarting { exit: exit(7), count };
            container.append(&event).expect("end");
            let history = container.history().expect("history");
            assert_eq!(history.restarts, count);
            assert_eq!(history.started.expect("started").pid, count.cast_signed());
            assert_eq!(history.exit.expect("exit").code(), 7);
            assert_eq!(ends(&container), count as usize);
        }
        assert!(
            longest < 2 * LARGEST && shortest < LARGEST / 10,
            "{shortest} to {longest}"
        );
    }

    #[test]
    fn no_event_is_lost_while_the_file_is_replaced() {
        let dir = tempfile::tempdir().expect("tempdir");
        let container = container(&dir);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..400 {
                        container
                            .append(&Happened::Exited { exit: exit(1) })
                            .expect("append");
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..200 {
                    container.shorten(&Start::default()).expect("shorten");
                }
            });
        });
        assert_eq!(ends(&container), 1200);
    }

    #[test]
    fn unknown_events_and_torn_lines_are_passed_over() {
        let dir = tempfile::tempdir().expect("tempdir");
        let container = ContainerDir {
            path: dir.path().to_owned(),
        };
        let line = r#"{"event":"exited","exit":{"reason":{"exited":3},"finished_at":"t"}}"#;
        fs::write(
            container.file("events.jsonl"),
            format!("{{\"event\":\"health\"}}\n{line}\n{{\"ev"),
        )
        .expect("write");
        assert_eq!(container.events().expect("events").len(), 2);
        let Status::Exited(exit) = container.status().expect("status") else {
            panic!("not exited")
        };
        assert_eq!(exit.code(), 3);
    }
}
