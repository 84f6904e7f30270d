//! Content of a layer's tar that is not in `fs/`: what a later entry of the same tar replaced, and what lies where the
//! store's user may not look.
//!
//! `apart/` holds it under numbers. `apart/list` (JSON Lines) says in the order of time what each number is: how many
//! files the tar had had so far, the path, the number. The file that was at a path after `n` files is in the first
//! entry of that path, or of a directory above it, with more than `n`.
use super::meta::LayerPath;
use super::names::{join, split};
use crate::layout::make_dir_all;
use crate::{Error, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The directory's name in the layer's.
const DIRECTORY: &str = "apart";

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// What is put there while a layer is unpacked.
#[derive(Debug)]
pub(super) struct Apart {
    path: PathBuf,
    entries: Vec<(u64, LayerPath, u64)>,
}

impl Apart {
    pub(super) fn new(layer: &Path) -> Self {
        Self {
            path: layer.join(DIRECTORY),
            entries: Vec::new(),
        }
    }

    /// Moves what is at `name` away, before something else takes its place after `files` files. Says whether it did:
    /// what has no content stays.
    pub(super) fn put(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        real: &[u8],
        stat: &Stat,
        files: u64,
    ) -> Result<bool, Errno> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {}
            FileType::RegularFile if stat.st_size > 0 => {
                // Another name of the file stays in the layer, and keeps its number of links.
                if stat.st_nlink > 1 {
                    self.copy(dir, name, real, files)?;
                    return Ok(false);
                }
            }
            _ => return Ok(false),
        }
        let target = self.next()?;
        rustix::fs::renameat(dir, name, CWD, &target)?;
        self.note(real, files);
        Ok(true)
    }

    /// Copies all files below a directory that nobody but root will be able to look into.
    pub(super) fn copy_tree(&mut self, dir: &OwnedFd, real: &[u8], files: u64) -> Result<(), Errno> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        for name in names {
            let stat = rustix::fs::statat(dir, &name[..], AtFlags::SYMLINK_NOFOLLOW)?;
            let path = join(real, &name);
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => match rustix::fs::openat(dir, &name[..], READ, Mode::empty()) {
                    Ok(inner) => self.copy_tree(&inner, &path, files)?,
                    // It had its turn before.
                    Err(Errno::ACCESS) => {}
                    Err(error) => return Err(error),
                },
                FileType::RegularFile if stat.st_size > 0 && is_readable(stat.st_mode) => {
                    self.copy(dir.as_fd(), &name, &path, files)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn copy(&mut self, dir: BorrowedFd<'_>, name: &[u8], real: &[u8], files: u64) -> Result<(), Errno> {
        let mut from = match rustix::fs::openat(dir, name, READ, Mode::empty()) {
            Ok(file) => File::from(file),
            // Then its bytes are in the skeleton.
            Err(Errno::ACCESS) => return Ok(()),
            Err(error) => return Err(error),
        };
        let target = self.next()?;
        let mode = Mode::from_raw_mode(0o600);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut to = File::from(rustix::fs::open(&target, flags, mode)?);
        io::copy(&mut from, &mut to).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        self.note(real, files);
        Ok(())
    }

    fn next(&self) -> Result<PathBuf, Errno> {
        if self.entries.is_empty() {
            match rustix::fs::mkdir(&self.path, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.path.join(self.entries.len().to_string()))
    }

    fn note(&mut self, real: &[u8], files: u64) {
        let number = self.entries.len() as u64;
        self.entries.push((files, LayerPath(real.to_vec()), number));
    }

    /// Writes the list.
    pub(super) fn finish(self) -> Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        for entry in &self.entries {
            serde_json::to_writer(&mut text, entry)
                .map_err(|error| Error::document("the list of what is apart", error))?;
            text.push(b'\n');
        }
        make_dir_all(&self.path)?;
        let path = self.path.join("list");
        fs::write(&path, text).map_err(|e| Error::io("write", path, e))
    }
}

/// Whether the store's user, who owns the file, can read it.
pub(super) fn is_readable(mode: u32) -> bool {
    mode & 0o400 != 0
}

/// What was put there, looked up.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By path: after how many files, and under which number, in order.
    entries: HashMap<Vec<u8>, Vec<(u64, u64)>>,
}

impl Found {
    pub(super) fn read(layer: &Path) -> Result<Self> {
        let path = layer.join(DIRECTORY).join("list");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Error::io("read", path, error)),
        };
        let mut found = Self::default();
        for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            let (files, path, number): (u64, LayerPath, u64) = serde_json::from_slice(line)
                .map_err(|error| Error::document("the list of what is apart", error))?;
            found.entries.entry(path.0).or_default().push((files, number));
        }
        Ok(found)
    }

    /// Where the content is, below the layer's directory, of the file that was at `path` when it was the one with
    /// this number.
    pub(super) fn place(&self, path: &[u8], file: u64) -> Option<Vec<u8>> {
        if self.entries.is_empty() {
            return None;
        }
        let mut first: Option<(u64, u64, &[u8])> = None;
        let mut above = path;
        loop {
            let known = self.entries.get(above).into_iter().flatten();
            let next = known
                .filter(|(files, _)| *files > file)
                .min_by_key(|(_, number)| *number);
            if let Some((files, number)) = next
                && first.is_none_or(|(_, known, _)| *number < known)
            {
                first = Some((*files, *number, &path[above.len()..]));
            }
            if above.is_empty() {
                break;
            }
            above = split(above).0;
        }
        let (_, number, rest) = first?;
        Some([format!("{DIRECTORY}/{number}").as_bytes(), rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_move_after_a_file_counts() {
        let mut found = Found::default();
        for (number, (path, files)) in [("a", 1), ("d/f", 3), ("a", 4), ("d", 5)].into_iter().enumerate() {
            let entries = found.entries.entry(path.as_bytes().to_vec()).or_default();
            entries.push((files, number as u64));
        }
        let place = |path: &str, file| {
            let place = found.place(path.as_bytes(), file);
            place.map(|place| String::from_utf8(place).unwrap())
        };
        assert_eq!(place("a", 0).as_deref(), Some("apart/0"));
        assert_eq!(place("a", 1).as_deref(), Some("apart/2"));
        assert_eq!(place("a", 4), None);
        assert_eq!(place("d/f", 2).as_deref(), Some("apart/1"));
        assert_eq!(place("d/f", 3).as_deref(), Some("apart/3/f"));
        assert_eq!(place("d/f", 5), None);
    }
}
