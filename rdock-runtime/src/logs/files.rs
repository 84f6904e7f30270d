//! The files of one log: which there are, and which is which.

use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The file that is written now.
pub(super) const CURRENT: &str = "log";

/// The first line of every file but the first.
#[derive(Debug, Serialize, Deserialize)]
struct Heading {
    file: u64,
}

/// The line that says which file it begins.
pub(super) fn heading(number: u64) -> Vec<u8> {
    format!("{{\"file\":{number}}}\n").into_bytes()
}

/// A full file.
pub(super) fn full(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{CURRENT}.{number}"))
}

/// Numbers of the full files, oldest first.
pub(super) fn full_numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(CURRENT)?.strip_prefix('.'));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// An open file of a log, at its first entry.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) number: u64,
    pub(super) file: File,
    /// Where its first entry is.
    pub(super) begin: u64,
}

impl LogFile {
    /// Reads which file it is from the file itself: names change.
    pub(super) fn new(mut file: File) -> io::Result<Self> {
        let mut start = [0; 40];
        let mut read = 0;
        file.seek(SeekFrom::Start(0))?;
        while read < start.len() {
            match file.read(&mut start[read..])? {
                0 => break,
                more => read += more,
            }
        }
        let line = start[..read]
            .split_inclusive(|&byte| byte == b'\n')
            .next()
            .unwrap_or(&[]);
        let (number, begin) = match serde_json::from_slice::<Heading>(line) {
            Ok(heading) if line.ends_with(b"\n") => (heading.file, line.len() as u64),
            _ => (0, 0),
        };
        file.seek(SeekFrom::Start(begin))?;
        Ok(Self { number, file, begin })
    }

    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::new(File::open(path)?)
    }

    /// The first file from `number` on that there is; `None` when there is none.
    pub(super) fn from(dir: &Path, number: u64) -> io::Result<Option<Self>> {
        // Each round that finds nothing has met a file that was turned meanwhile; they come one at a time.
        for _ in 0..64 {
            let found = full_numbers(dir)?.into_iter().find(|found| *found >= number);
            let path = found.map_or_else(|| dir.join(CURRENT), |found| full(dir, found));
            let file = match Self::open(&path) {
                Ok(file) => file,
                // Removed meanwhile: older than what is kept.
                Err(error) if error.kind() == io::ErrorKind::NotFound && found.is_some() => continue,
                Err(error) => return Err(error),
            };
            if found.is_none() && file.number > number {
                // What was looked for may have got its second name after the look.
                let skipped = full_numbers(dir)?
                    .into_iter()
                    .any(|found| found >= number && found < file.number);
                if skipped {
                    continue;
                }
            }
            return Ok((file.number >= number).then_some(file));
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }
}
