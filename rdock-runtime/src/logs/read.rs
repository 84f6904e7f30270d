//! Reading the log: from the start, the last lines, a span of time, or as it grows.

use super::{Entry, LogLine, from_hex};
use crate::container::Container;
use crate::error::{Error, Result};
use crate::moment;
use crate::state::{ContainerDir, Status};
use rustix::fs::inotify;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
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
    /// When the log cannot be read.
    pub async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            match self.step()? {
                Next::Line(line) => return Ok(Some(line)),
                Next::End => return Ok(None),
                Next::Wait => {
                    let watch = self.watch()?;
                    // A container whose owner was killed writes no last event: look now and then.
                    let waited = tokio::time::timeout(LOOK_AGAIN, crate::sys::readable(watch.as_fd())).await;
                    if let Ok(ready) = waited {
                        ready.map_err(Error::system("watch the log"))?;
                    }
                }
            }
        }
    }

    /// [`Self::next`] for programs without an asynchronous runtime; blocks.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn next_blocking(&mut self) -> Result<Option<LogLine>> {
        loop {
            match self.step()? {
                Next::Line(line) => return Ok(Some(line)),
                Next::End => return Ok(None),
                Next::Wait => {
                    let watch = self.watch()?;
                    let mut polled = [rustix::event::PollFd::new(watch, rustix::event::PollFlags::IN)];
                    let wait = rustix::event::Timespec {
                        tv_sec: LOOK_AGAIN.as_secs() as _,
                        tv_nsec: 0,
                    };
                    match rustix::event::poll(&mut polled, Some(&wait)) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(errno) => return Err(Error::system("watch the log")(errno.into())),
                    }
                }
            }
        }
    }

    fn watch(&self) -> Result<&OwnedFd> {
        self.reader
            .as_ref()
            .and_then(|reader| reader.watch.as_ref())
            .ok_or_else(|| Error::system("watch the log")(std::io::ErrorKind::NotConnected.into()))
    }

    fn step(&mut self) -> Result<Next> {
        if self.reader.is_none() {
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

const LOOK_AGAIN: Duration = Duration::from_secs(1);

enum Next {
    Line(LogLine),
    Wait,
    End,
}

#[derive(Debug)]
struct Reader {
    dir: ContainerDir,
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    used: usize,
    watch: Option<OwnedFd>,
    ended: bool,
}

impl Reader {
    fn open(dir: &ContainerDir, follow: bool) -> Result<Self> {
        let path = dir.file("log");
        let watch = if follow {
            // Made before the first read, so that nothing written in between is missed.
            let make = || -> rustix::io::Result<OwnedFd> {
                let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
                inotify::add_watch(&watch, &path, inotify::WatchFlags::MODIFY)?;
                inotify::add_watch(&watch, dir.file("events.jsonl"), inotify::WatchFlags::MODIFY)?;
                Ok(watch)
            };
            Some(make().map_err(|errno| Error::state("watch", &path)(errno.into()))?)
        } else {
            None
        };
        let file = File::open(&path).map_err(Error::state("open", &path))?;
        Ok(Self {
            dir: dir.clone(),
            path,
            file,
            buffer: Vec::new(),
            used: 0,
            watch,
            ended: false,
        })
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
            let Some(watch) = &self.watch else {
                return Ok(Next::End);
            };
            if self.ended {
                return Ok(Next::End);
            }
            let mut notes = [std::mem::MaybeUninit::uninit(); 1024];
            let mut notes = inotify::Reader::new(watch, &mut notes);
            while notes.next().is_ok() {}
            // The exit is recorded after the last line was written: once it is there, one more read has everything.
            match self.dir.status() {
                Ok(Status::Exited(_)) | Err(_) => self.ended = true,
                Ok(_) => {
                    if self.fill()? == 0 {
                        return Ok(Next::Wait);
                    }
                }
            }
        }
    }

    fn buffered(&mut self) -> Option<Vec<u8>> {
        let rest = &self.buffer[self.used..];
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        let line = rest[..end].to_vec();
        self.used += end + 1;
        Some(line)
    }

    fn fill(&mut self) -> Result<usize> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let held = self.buffer.len();
        self.buffer.resize(held + (64 << 10), 0);
        let read = self.file.read(&mut self.buffer[held..]);
        self.buffer.truncate(held + read.as_ref().map_or(0, |&read| read));
        read.map_err(Error::state("read", &self.path))
    }

    /// Moves to the last `lines` lines, reading backwards.
    fn keep_last(&mut self, lines: usize) -> Result<()> {
        let failed = |error| Error::state("read", &self.path)(error);
        let mut at = self.file.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut seen = 0usize;
        let mut block = vec![0u8; 64 << 10];
        while at > 0 {
            let size = at.min(block.len() as u64);
            let start = at - size;
            self.file.seek(SeekFrom::Start(start)).map_err(failed)?;
            let part = &mut block[..size as usize];
            self.file.read_exact(part).map_err(failed)?;
            for (index, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                // Every entry ends with a newline: the one after `lines` of them begins what is kept.
                if seen == lines {
                    self.file
                        .seek(SeekFrom::Start(start + index as u64 + 1))
                        .map_err(failed)?;
                    return Ok(());
                }
                seen += 1;
            }
            at = start;
        }
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        Ok(())
    }
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
mod tests {
    use super::super::{LogStream, LogWriter};
    use super::*;
    use crate::state::{Containers, Record};

    fn container_dir(root: &std::path::Path) -> ContainerDir {
        let record = Record {
            version: 1,
            id: "a".repeat(64),
            name: "n".into(),
            image: String::new(),
            image_id: String::new(),
            created: String::new(),
            detached: false,
            command: Vec::new(),
            spec: Default::default(),
            mounts: Vec::new(),
            anonymous_volumes: Vec::new(),
            stop_signal: 15,
        };
        Containers::open(root)
            .expect("open")
            .create(&record)
            .expect("create")
    }

    fn read_all(reader: &mut Reader) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        while let Next::Line(line) = reader.step().expect("read") {
            lines.push(line.bytes);
        }
        lines
    }

    #[test]
    fn every_byte_written_is_read_again() {
        let root = tempfile::tempdir().expect("tempdir");
        let dir = container_dir(root.path());
        let file = std::fs::OpenOptions::new()
            .append(true)
            .open(dir.file("log"))
            .expect("open");
        let mut writer = LogWriter::new(file);
        let mut written = b"one\ntwo".to_vec();
        written.extend([b'x'; 40_000]);
        written.extend(b"\n\xff\xfe\nlast");
        for chunk in written.chunks(777) {
            writer.write(LogStream::Stdout, chunk).expect("write");
        }
        writer.finish(LogStream::Stdout).expect("finish");
        let mut reader = Reader::open(&dir, false).expect("open");
        assert_eq!(read_all(&mut reader).concat(), written);
        let mut reader = Reader::open(&dir, false).expect("open");
        reader.keep_last(2).expect("tail");
        assert_eq!(read_all(&mut reader), [b"\xff\xfe\n".to_vec(), b"last".to_vec()]);
        assert_eq!(last_lines(&dir, 1), ["last"]);
    }
}
