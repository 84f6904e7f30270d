//! The owner's side of the log.

use super::{Entry, LogStream, to_hex};
use crate::state::now;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};

/// Bytes of one entry; Docker's limit.
const LONGEST: usize = 16 << 10;

/// Cuts output into lines and appends them to the log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    file: File,
    partial: [Vec<u8>; 2],
    encoded: Vec<u8>,
}

impl LogWriter {
    /// `file` is open for appending.
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            partial: [Vec::new(), Vec::new()],
            encoded: Vec::new(),
        }
    }

    /// Takes what was read from a stream; every complete line of it is in the file afterwards.
    pub(crate) fn write(&mut self, stream: LogStream, bytes: &[u8]) -> io::Result<()> {
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
                encode(&mut self.encoded, stream, line, &time)?;
            } else {
                let mut whole = std::mem::take(&mut self.partial[stream as usize]);
                whole.extend_from_slice(line);
                encode(&mut self.encoded, stream, &whole, &time)?;
            }
        }
        self.flush()
    }

    /// At the end of a stream: writes what had no newline.
    pub(crate) fn finish(&mut self, stream: LogStream) -> io::Result<()> {
        let rest = std::mem::take(&mut self.partial[stream as usize]);
        if !rest.is_empty() {
            encode(&mut self.encoded, stream, &rest, &now())?;
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.encoded.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.encoded);
        self.encoded.clear();
        // An idle container must not keep the buffer of its loudest moment.
        self.encoded.shrink_to(LONGEST);
        written
    }
}

fn encode(out: &mut Vec<u8>, stream: LogStream, line: &[u8], time: &str) -> io::Result<()> {
    let text = String::from_utf8_lossy(line);
    let raw = matches!(text, Cow::Owned(_)).then(|| Cow::Owned(to_hex(line)));
    serde_json::to_writer(
        &mut *out,
        &Entry {
            log: text,
            stream,
            time: Cow::Borrowed(time),
            raw,
        },
    )?;
    out.push(b'\n');
    Ok(())
}
