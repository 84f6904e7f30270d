//! Writing the journal: one line an event, by any number of processes at once.
//!
//! ```text
//! <root>/events/1 2 3...   JSON lines; every file but the last is read-only and complete
//! <root>/events/current    a link to the last
//! ```
//! A writer opens `current`, holds a shared lock on it for its one appending write, and writes only while the
//! file may be written. Who finds it full takes the lock alone, takes away the permission to write, makes the
//! next file and turns the link: nothing is ever added to a file that has a successor. A process that dies in
//! between leaves a file that nobody may write; the next writer goes on from there.
//!
//! A line begins and ends with a newline, so that one that was torn (a full disk, a kill) spoils itself alone.

use super::{Event, EventAction, EventKind};
use crate::image::{Change, Observer, StoreOptions};
use crate::state::Record;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A file of this size gets a successor.
const LARGEST_FILE: u64 = 2 << 20;
/// Complete files that are kept beside the one being written.
const KEPT_FILES: u64 = 4;
/// A writer that loses so many races gives up; each lost race means that another writer has turned the link.
const ATTEMPTS: usize = 16;

const CURRENT: &str = "current";
const MAY_WRITE: u32 = 0o200;

/// The journal of a root. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    dir: PathBuf,
}

impl Journal {
    /// Touches nothing: files are made by the first event.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            dir: root.join("events"),
        }
    }

    /// `<root>/events`.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Records what happened to an object. A journal that cannot be written loses the event, never what is
    /// being done.
    pub(crate) fn record(&self, kind: EventKind, action: EventAction, id: &str, attributes: &[(&str, &str)]) {
        let mut event = Event::now(kind, action, id);
        let attributes = attributes.iter();
        event.attributes = attributes
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self.write(&event);
    }

    /// Records what happened to a container: with its name, image and labels, and `more`.
    pub(crate) fn container(&self, record: &Record, action: EventAction, more: &[(&str, &str)]) {
        let mut event = Event::now(EventKind::Container, action, &record.id);
        event.attributes.clone_from(&record.spec.labels);
        let own = [("name", record.name.as_str()), ("image", record.image.as_str())];
        for (name, value) in own.iter().chain(more) {
            event.attributes.insert((*name).to_owned(), (*value).to_owned());
        }
        self.write(&event);
    }

    /// How a store of images is opened whose changes are recorded here.
    pub(crate) fn observes_images(&self) -> StoreOptions {
        let journal = self.clone();
        let mut options = StoreOptions::default();
        options.observer = Observer::new(move |change| {
            let (action, id, reference) = match change {
                Change::Created { id, reference } => (EventAction::Create, id, reference),
                Change::Tagged { id, reference } => (EventAction::Tag, id, Some(reference)),
                Change::Untagged { id, reference } => (EventAction::Untag, id, Some(reference)),
                Change::Deleted { id } => (EventAction::Delete, id, None),
                _ => return,
            };
            let name = reference.map_or_else(|| id.to_string(), |reference| reference.familiar());
            journal.record(EventKind::Image, action, id.as_str(), &[("name", &name)]);
        });
        options
    }

    fn write(&self, event: &Event) {
        // The callers' own work has succeeded or failed already; see `record`.
        let _ = self.append(event);
    }

    /// Appends one event in one write.
    pub(super) fn append(&self, event: &Event) -> io::Result<()> {
        let mut line = vec![b'\n'];
        serde_json::to_writer(&mut line, event)?;
        line.push(b'\n');
        for _ in 0..ATTEMPTS {
            let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOCTTY;
            let file = match rustix::fs::open(self.dir.join(CURRENT), flags, Mode::empty()) {
                Ok(file) => file,
                Err(Errno::NOENT) => {
                    self.begin()?;
                    continue;
                }
                // Without root's rights the missing permission shows here.
                Err(Errno::ACCESS) => {
                    self.turn()?;
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            lock(&file, FlockOperation::LockShared)?;
            let found = rustix::fs::fstat(&file)?;
            if found.st_mode & MAY_WRITE == 0 {
                drop(file);
                self.turn()?;
                continue;
            }
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, &line))?;
            drop(file);
            if u64::try_from(found.st_size).unwrap_or(0) + line.len() as u64 > LARGEST_FILE {
                // The event is written; the next writer tries again.
                let _ = self.turn();
            }
            return match written == line.len() {
                true => Ok(()),
                false => Err(io::ErrorKind::WriteZero.into()),
            };
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Makes the directory, the link, or the file that the link names: whatever is missing.
    pub(super) fn begin(&self) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        // A link that was lost must not lead back to files that have successors.
        let last = || Some(self.numbers().ok()?.last().copied().unwrap_or(1));
        let number = self.number().or_else(last).unwrap_or(1);
        self.make(number)?;
        match rustix::fs::symlink(number.to_string(), self.dir.join(CURRENT)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn make(&self, number: u64) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        match rustix::fs::open(self.file(number), flags, Mode::from_raw_mode(0o600)) {
            // It is there, and complete already.
            Ok(_) | Err(Errno::ACCESS) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn file(&self, number: u64) -> PathBuf {
        self.dir.join(number.to_string())
    }

    /// The number of the file that is written now.
    pub(super) fn number(&self) -> Option<u64> {
        let target = std::fs::read_link(self.dir.join(CURRENT)).ok()?;
        target.to_str()?.parse().ok()
    }

    /// Numbers of the files that are there, oldest first.
    pub(super) fn numbers(&self) -> io::Result<Vec<u64>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut numbers = Vec::new();
        for entry in entries {
            numbers.extend(
                entry?
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<u64>().ok()),
            );
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Gives a full file, or one whose turn was interrupted, a successor, and removes the oldest.
    fn turn(&self) -> io::Result<()> {
        let Some(number) = self.number() else {
            return Ok(());
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = match rustix::fs::open(self.file(number), flags, Mode::empty()) {
            Err(Errno::NOENT) => return self.begin(),
            other => other?,
        };
        lock(&file, FlockOperation::LockExclusive)?;
        let found = rustix::fs::fstat(&file)?;
        let full = u64::try_from(found.st_size).unwrap_or(0) > LARGEST_FILE;
        if self.number() != Some(number) || (!full && found.st_mode & MAY_WRITE != 0) {
            // Another process was faster.
            return Ok(());
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o400))?;
        self.make(number + 1)?;
        let name = format!(".turn-{}-{}", std::process::id(), crate::state::unique());
        let link = self.dir.join(name);
        rustix::fs::symlink((number + 1).to_string(), &link)?;
        if let Err(errno) = rustix::fs::rename(&link, self.dir.join(CURRENT)) {
            // The next turn makes a link of its own.
            let _ = std::fs::remove_file(&link);
            return Err(errno.into());
        }
        for old in self.numbers()? {
            if old + KEPT_FILES <= number {
                // A reader that has it open reads it to its end.
                let _ = std::fs::remove_file(self.file(old));
            }
        }
        Ok(())
    }
}

/// Held for a few system calls by whoever has it.
fn lock(file: &OwnedFd, how: FlockOperation) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| rustix::fs::flock(file, how))?)
}

#[cfg(test)]
mod tests {
    use super::super::Events;
    use super::*;

    fn event(number: usize) -> Event {
        let mut event = Event::now(EventKind::Volume, EventAction::Create, &number.to_string());
        event.attributes.insert("filler".into(), "x".repeat(500));
        event
    }

    fn all(journal: &Journal) -> Vec<Event> {
        let mut events = Events::new(journal.clone()).follow(false);
        let mut found = Vec::new();
        while let Some(event) = events.next_blocking().expect("read") {
            found.push(event);
        }
        found
    }

    #[test]
    fn nothing_is_lost_or_doubled_when_several_write_over_many_files() {
        let root = tempfile::tempdir().expect("tempdir");
        let journal = Journal::new(root.path());
        // A follower that has everything from the start on sees files come and go.
        let mut follower = Events::new(journal.clone());
        follower.begin().expect("follow");
        const WRITERS: usize = 4;
        const EACH: usize = 6000;
        let seen = std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let journal = journal.clone();
                scope.spawn(move || {
                    for number in 0..EACH {
                        journal.append(&event(writer * EACH + number)).expect("append");
                    }
                });
            }
            let mut seen = Vec::new();
            while seen.len() < WRITERS * EACH {
                let event = follower.next_blocking().expect("read").expect("never ends");
                seen.push(event.id.parse::<usize>().expect("number"));
            }
            seen
        });
        let mut sorted = seen.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..WRITERS * EACH));
        for writer in 0..WRITERS {
            let own = seen.iter().filter(|number| *number / EACH == writer);
            assert!(own.is_sorted(), "the order of one writer is kept");
        }
        // 13 MB were written; what is kept is bounded.
        let kept = journal.numbers().expect("list");
        assert!(kept.len() as u64 <= KEPT_FILES + 1, "{kept:?}");
        assert!(*kept.last().expect("one") > KEPT_FILES + 1, "{kept:?}");
        assert_eq!(
            all(&journal)
                .last()
                .map(|event| event.id.parse::<usize>().expect("number")),
            seen.last().copied()
        );
    }

    #[test]
    fn a_torn_line_spoils_itself_alone() {
        let root = tempfile::tempdir().expect("tempdir");
        let journal = Journal::new(root.path());
        journal.append(&event(1)).expect("append");
        let path = journal.file(1);
        let mut bytes = std::fs::read(&path).expect("read");
        let half = bytes[..bytes.len() / 2].to_vec();
        bytes.extend(half);
        std::fs::write(&path, bytes).expect("write");
        journal.append(&event(2)).expect("append");
        let ids: Vec<String> = all(&journal).into_iter().map(|event| event.id).collect();
        assert_eq!(ids, ["1", "2"]);
    }

    #[test]
    fn a_turn_that_was_interrupted_is_finished_by_the_next_writer() {
        let root = tempfile::tempdir().expect("tempdir");
        let journal = Journal::new(root.path());
        journal.append(&event(1)).expect("append");
        // Killed after the first step.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o400);
        std::fs::set_permissions(journal.file(1), mode).expect("chmod");
        journal.append(&event(2)).expect("append");
        assert_eq!(journal.number(), Some(2));
        // Killed between the new file and the link, and a file that somebody removed.
        std::fs::remove_file(journal.dir().join(CURRENT)).expect("remove");
        journal.append(&event(3)).expect("append");
        assert!(all(&journal).len() >= 3);
        std::fs::remove_dir_all(journal.dir()).expect("remove");
        journal.append(&event(4)).expect("append");
        assert_eq!(all(&journal).len(), 1);
    }
}
