//! The output of a container: written by its owner, read by anyone.
//!
//! ```text
//! <root>/containers/<id>/log           what is written now
//!                        log.0 log.1   full ones, oldest first
//! ```
//! Each holds one JSON object a line, as Docker's json-file driver writes them:
//! `{"log":"text\n","stream":"stdout","time":"..."}`. A line of more than 16 KiB is cut into several
//! objects, all but the last without a newline. Bytes that are not UTF-8 are kept beside the text, in
//! hexadecimal, as `raw`; `attrs` has what was asked to be kept with each line.
//!
//! Every file but the first begins with a line `{"file":N}` that says which it is, so that a reader goes from
//! each file to the very next one, whatever was renamed meanwhile. A full file gets its number as a second
//! name, and then the next one takes the name `log` by rename: it is always there, and nothing is added to a
//! file that has a successor.

mod files;
mod read;
mod write;

pub use read::Logs;
pub(crate) use read::last_lines;
pub(crate) use write::LogWriter;

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Which output a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// When its last byte was read, RFC 3339 in UTC.
    pub time: String,
    /// Where it came from.
    pub stream: LogStream,
    /// As written, with its newline where it had one.
    pub bytes: Vec<u8>,
    /// What [`crate::LogConfig`] asked to be kept with it.
    pub details: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    stream: LogStream,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    raw: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attrs: Cow<'a, BTreeMap<String, String>>,
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks(2)
        .map(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8)
        })
        .collect()
}
