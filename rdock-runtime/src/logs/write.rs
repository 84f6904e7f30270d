//! The owner's side of the log.

use super::files::{self, CURRENT, LogFile};
use super::{Entry, LogStream, to_hex};
use crate::spec::{ContainerSpec, LogConfig, LogDriver};
use crate::state::now;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes of one entry; Docker's limit.
const LONGEST: usize = 16 << 10;

/// Cuts output into lines and appends them to the log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    /// None when nothing is kept.
    target: Option<Target>,
    partial: [Vec<u8>; 2],
    encoded: Vec<u8>,
    details: BTreeMap<String, String>,
}

/// The file that is written, and its limits.
#[derive(Debug)]
struct Target {
    dir: PathBuf,
    file: File,
    number: u64,
    size: u64,
    /// Where the file's first entry is.
    begin: u64,
    /// It may end in the middle of a line.
    torn: bool,
    limit: Option<u64>,
    full_files: u64,
}

impl LogWriter {
    /// Goes on with the log in the container's directory, whoever wrote it before.
    pub(crate) fn open(dir: &Path, spec: &ContainerSpec) -> io::Result<Self> {
        let target = match spec.log.driver {
            LogDriver::None => None,
            _ => Some(Target::open(dir, &spec.log)?),
        };
        Ok(Self {
            target,
            partial: [Vec::new(), Vec::new()],
            encoded: Vec::new(),
            details: spec.log.details(spec),
        })
    }

    /// Takes what was read from a stream; every complete line of it is in the file afterwards.
    pub(crate) fn write(&mut self, stream: LogStream, bytes: &[u8]) -> io::Result<()> {
        if self.target.is_none() {
            return Ok(());
        }
        let time = now();
        let mut rest = bytes;
        while !rest.is_empty() {
            let held = self.partial[stream as usize].len();
            let room = LONGEST - held;
            let newline = rest.iter().take(room).position(|&byte| byte == b'\n');
            let taken = newline.map_or(rest.len().min(room), |at| at + 1);
            let complete = newline.is_some() || held + taken == LONGEST;
            let (line, after) = rest.split_at(taken);
            rest = after;
            if !complete {
                self.partial[stream as usize].extend_from_slice(line);
            } else if held == 0 {
                self.encode(stream, line, &time)?;
            } else {
                let mut whole = std::mem::take(&mut self.partial[stream as usize]);
                whole.extend_from_slice(line);
                self.encode(stream, &whole, &time)?;
            }
        }
        self.flush()
    }

    /// At the end of a stream: writes what had no newline.
    pub(crate) fn finish(&mut self, stream: LogStream) -> io::Result<()> {
        let rest = std::mem::take(&mut self.partial[stream as usize]);
        if !rest.is_empty() && self.target.is_some() {
            self.encode(stream, &rest, &now())?;
        }
        self.flush()
    }

    fn encode(&mut self, stream: LogStream, line: &[u8], time: &str) -> io::Result<()> {
        let text = String::from_utf8_lossy(line);
        let raw = matches!(text, Cow::Owned(_)).then(|| Cow::Owned(to_hex(line)));
        let entry = Entry {
            log: text,
            stream,
            time: Cow::Borrowed(time),
            raw,
            attrs: Cow::Borrowed(&self.details),
        };
        let held = self.encoded.len();
        serde_json::to_writer(&mut self.encoded, &entry)?;
        self.encoded.push(b'\n');
        if self
            .target
            .as_ref()
            .is_some_and(|target| target.overflows(self.encoded.len()))
        {
            // The entry begins the next file.
            let entry = self.encoded.split_off(held);
            self.flush()?;
            self.encoded = entry;
            if let Some(target) = &mut self.target {
                // Where there is no room for a new file the old one goes on; the next entry tries again.
                let _ = target.turn();
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(target) = self.target.as_mut().filter(|_| !self.encoded.is_empty()) else {
            return Ok(());
        };
        let written = target.write(&self.encoded);
        self.encoded.clear();
        // An idle container must not keep the buffer of its loudest moment.
        self.encoded.shrink_to(LONGEST);
        written
    }
}

impl Target {
    fn open(dir: &Path, config: &LogConfig) -> io::Result<Self> {
        let path = dir.join(CURRENT);
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let LogFile { number, begin, .. } = LogFile::open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            dir: dir.to_owned(),
            torn: size > 0 && !ends_a_line(&path, size)?,
            file,
            number,
            size,
            begin,
            limit: config.size_limit(),
            full_files: config.full_files(),
        })
    }

    fn overflows(&self, waiting: usize) -> bool {
        self.limit.is_some_and(|limit| self.size + waiting as u64 > limit)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            (self.torn, self.size) = (false, self.size + 1);
        }
        let written = self.file.write_all(bytes);
        match &written {
            Ok(()) => self.size += bytes.len() as u64,
            // A full disk: part of it may be there.
            Err(_) => {
                self.torn = true;
                self.size = self.file.metadata().map_or(self.size, |found| found.len());
            }
        }
        written
    }

    /// Begins the next file. One without an entry goes on, however small the limit is.
    fn turn(&mut self) -> io::Result<()> {
        if self.size <= self.begin {
            return Ok(());
        }
        let (current, next) = (self.dir.join(CURRENT), self.dir.join("log.next"));
        let heading = files::heading(self.number + 1);
        let _ = fs::remove_file(&next);
        let mut file = OpenOptions::new().append(true).create_new(true).open(&next)?;
        file.write_all(&heading)?;
        match fs::hard_link(&current, files::full(&self.dir, self.number)) {
            // A turn that was interrupted here has done it.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::rename(&next, &current)?;
        let begin = heading.len() as u64;
        (self.file, self.size, self.begin) = (file, begin, begin);
        self.number += 1;
        for old in files::full_numbers(&self.dir)? {
            if old + self.full_files < self.number {
                // A reader that has it open reads it to its end.
                let _ = fs::remove_file(files::full(&self.dir, old));
            }
        }
        Ok(())
    }
}

/// A writer that was killed in the middle of a line has spoilt that one alone.
fn ends_a_line(path: &Path, size: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut last = [0];
    File::open(path)?.read_exact_at(&mut last, size - 1)?;
    Ok(last == [b'\n'])
}
