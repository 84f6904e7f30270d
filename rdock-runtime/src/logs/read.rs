//! Reading the log: from the start, the last lines, a span of time, or as it grows.

use super::files::{CURRENT, LogFile};
use super::{Entry, LogLine, from_hex};
use crate::container::Container;
use crate::error::{Error, Result};
use crate::moment;
use crate::spec::LogDriver;
use crate::state::{ContainerDir, Status};
use rustix::fs::inotify;
use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// The lines of a container's log, in order; made by [`Container::logs`].
#[derive(Debug)]
pub struct Logs {
    container: Container,
    follow: bool,
    tail: Option<usize>,
    since: Option<jiff::Timestamp>,
    until: Option<jiff::Timestamp>,
    reader: Option<Reader>,
}

impl Logs {
    pub(crate) fn new(container: Container) -> Self {
        Self {
            container,
            follow: false,
            tail: None,
            since: None,
            until: None,
            reader: None,
        }
    }

    /// Goes on with new lines until the container has ended. Off by default.
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }

    /// Begins with the last `lines` lines; all by default.
    pub fn tail(mut self, lines: usize) -> Self {
        self.tail = Some(lines);
        self
    }

    /// Leaves out lines before `when`: RFC 3339, unix seconds, or a duration back from now (`10m`, `1h30m`).
    ///
    /// # Errors
    /// [`Error::Time`] for anything else.
    pub fn since(mut self, when: &str) -> Result<Self> {
        self.since = Some(moment::parse(when)?);
        Ok(self)
    }

    /// Leaves out lines after `when`, written as for [`Self::since`].
    ///
    /// # Errors
    /// [`Error::Time`] for anything else.
    pub fn until(mut self, when: &str) -> Result<Self> {
        self.until = Some(moment::parse(when)?);
        Ok(self)
    }

    /// The next line, or `None` at the end: of the log, or of the container when following.
    ///
    /// # Errors
    /// [`Error::NoLog`] when nothing is kept; when the log cannot be read.
    pub async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            let limit = match self.step()? {
                Next::Line(line) => return Ok(Some(line)),
                Next::End => return Ok(None),
                Next::Wait => match self.patience() {
                    Some(limit) => limit,
                    None => return Ok(None),
                },
            };
            let watch = self.watch()?;
            let waited = tokio::time::timeout(limit, crate::sys::readable(watch.as_fd())).await;
            match waited {
                Ok(ready) => ready.map_err(Error::system("watch the log"))?,
                Err(_) => self.container.look_after_it().await?,
            }
        }
    }

    /// [`Self::next`] for programs without an asynchronous runtime; blocks.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn next_blocking(&mut self) -> Result<Option<LogLine>> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        loop {
            let limit = match self.step()? {
                Next::Line(line) => return Ok(Some(line)),
                Next::End => return Ok(None),
                Next::Wait => match self.patience() {
                    Some(limit) => limit,
                    None => return Ok(None),
                },
            };
            let wait = Timespec {
                tv_sec: limit.as_secs() as _,
                tv_nsec: limit.subsec_nanos() as _,
            };
            match poll(&mut [PollFd::new(self.watch()?, PollFlags::IN)], Some(&wait)) {
                Ok(0) => self.container.look_after(),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::system("watch the log")(errno.into())),
            }
        }
    }

    /// How long to wait for more; `None` when nothing that comes later is wanted.
    fn patience(&self) -> Option<Duration> {
        let Some(until) = self.until else {
            return Some(LOOK_AGAIN);
        };
        let left = Duration::try_from(until.duration_since(jiff::Timestamp::now())).ok()?;
        // A container whose owner was killed writes no last event: look now and then.
        Some(left.min(LOOK_AGAIN)).filter(|left| !left.is_zero())
    }

    fn watch(&self) -> Result<&OwnedFd> {
        self.reader
            .as_ref()
            .and_then(|reader| reader.watch.as_ref())
            .ok_or_else(|| Error::system("watch the log")(std::io::ErrorKind::NotConnected.into()))
    }

    fn step(&mut self) -> Result<Next> {
        if self.reader.is_none() {
            if self.container.record().spec.log.driver == LogDriver::None {
                return Err(Error::NoLog {
                    name: self.container.name().to_owned(),
                });
            }
            let mut reader = Reader::open(self.container.dir(), self.follow)?;
            if let Some(lines) = self.tail {
                reader.keep_last(lines)?;
            }
            self.reader = Some(reader);
        }
        let Some(reader) = &mut self.reader else {
            return Ok(Next::End);
        };
        loop {
            let next = reader.step()?;
            let Next::Line(line) = &next else { return Ok(next) };
            let time: Option<jiff::Timestamp> = line.time.parse().ok();
            if self
                .until
                .is_some_and(|until| time.is_some_and(|time| time > until))
            {
                return Ok(Next::End);
            }
            if self
                .since
                .is_none_or(|since| time.is_none_or(|time| time >= since))
            {
                return Ok(next);
            }
        }
    }
}

/// A container whose owner was killed writes no last event: look now and then.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Files that are open beyond the one that is read.
const AHEAD: usize = 64;

enum Next {
    Line(LogLine),
    Wait,
    End,
}

#[derive(Debug)]
struct Reader {
    dir: ContainerDir,
    file: LogFile,
    /// The files after it, open: they are read to their ends though their names go meanwhile.
    later: VecDeque<LogFile>,
    buffer: Vec<u8>,
    used: usize,
    watch: Option<OwnedFd>,
    ended: bool,
}

impl Reader {
    fn open(dir: &ContainerDir, follow: bool) -> Result<Self> {
        let path = dir.path();
        let watch = if follow {
            // Made before the first read, so that nothing written in between is missed. The directory, since
            // files come and go, and the exit is recorded beside them.
            let make = || -> rustix::io::Result<OwnedFd> {
                let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
                let flags = inotify::WatchFlags::MODIFY
                    | inotify::WatchFlags::MOVED_TO
                    | inotify::WatchFlags::DELETE_SELF
                    | inotify::WatchFlags::ONLYDIR;
                inotify::add_watch(&watch, path, flags)?;
                Ok(watch)
            };
            Some(make().map_err(|errno| Error::state("watch", path)(errno.into()))?)
        } else {
            None
        };
        let missing = || std::io::ErrorKind::NotFound.into();
        let first = LogFile::from(path, 0).and_then(|file| file.ok_or_else(missing));
        let mut reader = Self {
            dir: dir.clone(),
            file: first.map_err(Error::state("open", dir.file(CURRENT)))?,
            later: VecDeque::new(),
            buffer: Vec::new(),
            used: 0,
            watch,
            ended: false,
        };
        reader.open_later(AHEAD)?;
        Ok(reader)
    }

    /// Opens the files that have come after those that are open, up to `most`. A writer that is far ahead of its reader
    /// takes files away that were never open.
    fn open_later(&mut self, most: usize) -> Result<()> {
        while self.later.len() < most {
            let last = self.later.back().unwrap_or(&self.file);
            if !self.has_successor(last)? {
                break;
            }
            match self.file_from(last.number + 1)? {
                Some(file) => self.later.push_back(file),
                None => break,
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Next> {
        loop {
            if let Some(line) = self.buffered() {
                if let Some(line) = parse(&line) {
                    return Ok(Next::Line(line));
                }
                continue;
            }
            if self.fill()? > 0 {
                continue;
            }
            if self.is_full()? {
                // Nothing is added to a file that has a successor: one more read has everything.
                if self.fill()? > 0 || self.enter_next()? {
                    continue;
                }
            }
            let Some(watch) = &self.watch else {
                return Ok(Next::End);
            };
            if self.ended {
                return Ok(Next::End);
            }
            let mut notes = [std::mem::MaybeUninit::uninit(); 1024];
            let mut notes = inotify::Reader::new(watch, &mut notes);
            while notes.next().is_ok() {}
            // The exit is recorded after the last line was written: once it is there, one more round has everything.
            match self.dir.status() {
                Ok(Status::Exited(_) | Status::Dead) | Err(_) => self.ended = true,
                Ok(_) => {
                    if self.fill()? == 0 && !self.is_full()? {
                        return Ok(Next::Wait);
                    }
                }
            }
        }
    }

    fn is_full(&self) -> Result<bool> {
        self.has_successor(&self.file)
    }

    /// Whether the file that is written now is another one.
    fn has_successor(&self, file: &LogFile) -> Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let path = self.dir.file(CURRENT);
        let own = file.file.metadata().map_err(Error::state("examine", &path))?;
        match std::fs::metadata(&path) {
            Ok(current) => Ok((current.dev(), current.ino()) != (own.dev(), own.ino())),
            // The container was removed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::state("examine", &path)(error)),
        }
    }

    fn enter_next(&mut self) -> Result<bool> {
        let next = match self.later.pop_front() {
            Some(file) => Some(file),
            None => self.file_from(self.file.number + 1)?,
        };
        let found = next.is_some();
        if let Some(file) = next {
            self.enter(file);
        }
        Ok(found)
    }

    fn file_from(&self, number: u64) -> Result<Option<LogFile>> {
        match LogFile::from(self.dir.path(), number) {
            // The container was removed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => other.map_err(Error::state("read the logs in", self.dir.path())),
        }
    }

    fn enter(&mut self, file: LogFile) {
        self.file = file;
        self.buffer.clear();
        self.used = 0;
    }

    fn buffered(&mut self) -> Option<Vec<u8>> {
        let rest = &self.buffer[self.used..];
        let end = memchr::memchr(b'\n', rest)?;
        let line = rest[..end].to_vec();
        self.used += end + 1;
        Some(line)
    }

    fn fill(&mut self) -> Result<usize> {
        self.open_later(AHEAD)?;
        self.buffer.drain(..self.used);
        self.used = 0;
        let held = self.buffer.len();
        self.buffer.resize(held + (64 << 10), 0);
        let read = self.file.file.read(&mut self.buffer[held..]);
        self.buffer.truncate(held + read.as_ref().map_or(0, |&read| read));
        read.map_err(Error::state("read", self.dir.file(CURRENT)))
    }

    /// Moves to the last `lines` lines, reading backwards, from the newest file on.
    fn keep_last(&mut self, lines: usize) -> Result<()> {
        self.open_later(usize::MAX)?;
        let mut wanted = lines;
        let mut after = VecDeque::new();
        while let Some(mut file) = self.later.pop_back() {
            let found = last_lines_of(&mut file, wanted).map_err(|error| failed(&self.dir, error))?;
            if found == wanted {
                self.enter(file);
                self.later = after;
                return Ok(());
            }
            wanted -= found;
            after.push_front(file);
        }
        self.later = after;
        let found = last_lines_of(&mut self.file, wanted);
        found.map(drop).map_err(|error| failed(&self.dir, error))
    }
}

fn failed(dir: &ContainerDir, error: std::io::Error) -> Error {
    Error::state("read the logs in", dir.path())(error)
}

/// Moves to the last `wanted` lines of a file, or to its first one; how many there are.
fn last_lines_of(file: &mut LogFile, wanted: usize) -> std::io::Result<usize> {
    let mut at = file.file.seek(SeekFrom::End(0))?;
    if wanted == 0 {
        return Ok(0);
    }
    let mut seen = 0;
    let mut block = vec![0u8; 64 << 10];
    while at > file.begin {
        let size = (at - file.begin).min(block.len() as u64);
        let start = at - size;
        file.file.seek(SeekFrom::Start(start))?;
        let part = &mut block[..size as usize];
        file.file.read_exact(part)?;
        for index in memchr::memrchr_iter(b'\n', part) {
            // Every entry ends with a newline: the one after `wanted` of them begins what is kept.
            if seen == wanted {
                file.file.seek(SeekFrom::Start(start + index as u64 + 1))?;
                return Ok(seen);
            }
            seen += 1;
        }
        at = start;
    }
    file.file.seek(SeekFrom::Start(file.begin))?;
    Ok(seen)
}

fn parse(line: &[u8]) -> Option<LogLine> {
    let entry: Entry<'_> = serde_json::from_slice(line).ok()?;
    let bytes = match &entry.raw {
        Some(raw) => from_hex(raw)?,
        None => entry.log.as_bytes().to_vec(),
    };
    Some(LogLine {
        time: entry.time.into_owned(),
        stream: entry.stream,
        bytes,
        details: entry.attrs.into_owned(),
    })
}

/// The last lines, for an error message.
pub(crate) fn last_lines(dir: &ContainerDir, lines: usize) -> Vec<String> {
    let read = || -> Result<Vec<String>> {
        let mut reader = Reader::open(dir, false)?;
        reader.keep_last(lines)?;
        let mut found = Vec::new();
        while let Next::Line(line) = reader.step()? {
            found.push(String::from_utf8_lossy(&line.bytes).trim_end().to_owned());
        }
        Ok(found)
    };
    // An error is reported without its log rather than replaced by the log's own error.
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests;
