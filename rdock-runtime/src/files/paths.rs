//! What `docker cp` means by a path: what is copied, under which name, and into which directory.

use super::FilesError;
use super::tree::{Item, Tree};
use rustix::io::Errno;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// How often a chain of links at a destination is followed.
const MOST_LINKS: usize = 40;

/// A path as written: without `.` and `..`, which go by text as in docker, and what its end asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// Absolute.
    pub(super) path: PathBuf,
    /// It ends with a slash, or with `/.`: it must be a directory.
    pub(super) directory: bool,
    /// It ends with `/.`: the contents are meant.
    pub(super) contents: bool,
}

impl Written {
    pub(super) fn new(path: &Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        let contents = bytes == b"." || bytes.ends_with(b"/.");
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in bytes.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let path = [b"/", &parts.join(&b"/"[..])[..]].concat();
        Self {
            path: PathBuf::from(OsString::from_vec(path)),
            directory: contents || bytes.ends_with(b"/"),
            contents,
        }
    }

    /// Its last component; nothing for the root.
    fn name(&self) -> &[u8] {
        self.path.file_name().map(OsStrExt::as_bytes).unwrap_or_default()
    }
}

/// What is copied.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) item: Item,
    /// Its name in the archive; nothing when only its contents are meant.
    pub(super) name: Vec<u8>,
    /// For errors.
    pub(super) shown: PathBuf,
}

/// Finds what is copied. A link as the last component is copied itself, unless `follow` is set or the path ends with
/// a slash.
pub(super) fn source(side: &Tree<'_>, path: &Path, follow: bool) -> Result<Source, FilesError> {
    let written = Written::new(path);
    let item = side.open(&written.path, follow || written.directory)?;
    if written.directory && !item.is_dir() {
        return Err(side.failure(path, Errno::NOTDIR));
    }
    let name = match written.contents {
        true => Vec::new(),
        false => written.name().to_vec(),
    };
    Ok(Source {
        item,
        name,
        shown: side.shown(&written.path),
    })
}

/// Where a copy goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// The directory that is unpacked in.
    pub(super) directory: PathBuf,
    /// The name there; nothing for the contents of the source.
    pub(super) name: Vec<u8>,
}

/// Decides where a copy goes, by what is there.
pub(super) fn destination(
    side: &Tree<'_>,
    path: &Path,
    source_name: &[u8],
    source_is_dir: bool,
) -> Result<Destination, FilesError> {
    let written = Written::new(path);
    let shown = |path: &Path| side.shown(path).display().to_string();
    let mut at = written.path.clone();
    let mut links = 0;
    let there = loop {
        match side.find(&at, false) {
            Ok(item) if item.kind() == rustix::fs::FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(side.failure(path, Errno::LOOP));
                }
                let link = item.link().map_err(|errno| side.failure(&at, errno))?;
                let parent = at.parent().unwrap_or(Path::new("/")).to_owned();
                at = Written::new(&parent.join(OsString::from_vec(link))).path;
            }
            Ok(item) => break Some(item),
            Err(Errno::NOENT) => break None,
            Err(errno) => return Err(side.failure(&at, errno)),
        }
    };
    let is_dir = there.as_ref().map(Item::is_dir);
    let name = || {
        at.file_name()
            .map(OsStrExt::as_bytes)
            .unwrap_or_default()
            .to_vec()
    };
    let parent = || at.parent().unwrap_or(Path::new("/")).to_owned();
    match is_dir {
        Some(true) => Ok(Destination {
            directory: at,
            name: source_name.to_vec(),
        }),
        Some(false) if source_is_dir => Err(FilesError::KindsDiffer {
            path: shown(&at),
            directory: false,
        }),
        Some(false) if written.directory => Err(FilesError::NotADirectory { path: shown(path) }),
        None if !source_is_dir && written.directory => Err(FilesError::NoSuchDirectory { path: shown(path) }),
        _ => {
            // Only the last component may be missing.
            let into = side.open(&parent(), true)?;
            if !into.is_dir() {
                return Err(FilesError::NotADirectory {
                    path: shown(&parent()),
                });
            }
            Ok(Destination {
                directory: parent(),
                name: name(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn paths_are_cleaned_by_text_and_their_end_is_kept() {
        for (text, path, directory, contents) in [
            ("/", "/", true, false),
            ("", "/", false, false),
            (".", "/", true, true),
            ("a/b", "/a/b", false, false),
            ("/a//b/", "/a/b", true, false),
            ("/a/./b/.", "/a/b", true, true),
            ("/a/../../etc/x", "/etc/x", false, false),
            ("/..", "/", false, false),
            ("/a/..", "/", false, false),
            ("/a/.b", "/a/.b", false, false),
        ] {
            let written = Written::new(Path::new(text));
            assert_eq!(
                (written.path, written.directory, written.contents),
                (PathBuf::from(path), directory, contents),
                "{text:?}"
            );
        }
    }

    #[test]
    fn where_a_copy_goes_is_dockers_table() {
        let root = tempfile::tempdir().expect("tempdir");
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir(at("dir")).expect("mkdir");
        std::fs::write(at("file"), "").expect("write");
        for (link, to) in [
            ("to-dir", "dir"),
            ("to-file", "file"),
            ("to-new", "dir/new"),
            ("loop", "loop"),
        ] {
            std::os::unix::fs::symlink(to, at(link)).expect("symlink");
        }
        let open = std::fs::File::open(root.path()).expect("open");
        // In-root resolution, as for a container.
        let side = Tree::container(open.as_fd(), "c", super::super::view::Ids::default());
        let goes = |path: &str, dir: bool| match destination(&side, Path::new(path), b"src", dir) {
            Ok(to) => format!("{} {}", to.directory.display(), String::from_utf8_lossy(&to.name)),
            Err(error) => format!("! {error}"),
        };
        for (path, of_file, of_dir) in [
            ("/dir", "/dir src", "/dir src"),
            ("/dir/", "/dir src", "/dir src"),
            ("/dir/.", "/dir src", "/dir src"),
            ("/dir/new", "/dir new", "/dir new"),
            (
                "/dir/new/",
                "! the destination directory c:/dir/new/ does not exist",
                "/dir new",
            ),
            (
                "/file",
                "/ file",
                "! cannot overwrite non-directory c:/file with directory",
            ),
            (
                "/file/",
                "! c:/file/ is not a directory",
                "! cannot overwrite non-directory c:/file with directory",
            ),
            ("/to-dir", "/dir src", "/dir src"),
            (
                "/to-file",
                "/ file",
                "! cannot overwrite non-directory c:/file with directory",
            ),
            ("/to-new", "/dir new", "/dir new"),
            (
                "/none/new",
                "! container c has no /none",
                "! container c has no /none",
            ),
            (
                "/file/new",
                "! c:/file/new is not a directory",
                "! c:/file/new is not a directory",
            ),
            ("/", "/ src", "/ src"),
            ("/../../dir", "/dir src", "/dir src"),
        ] {
            assert_eq!(goes(path, false), of_file, "a file to {path}");
            assert_eq!(goes(path, true), of_dir, "a directory to {path}");
        }
        assert!(goes("/loop", false).starts_with("! could not open c:/loop"));
    }
}
