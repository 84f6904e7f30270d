//! The tree a stack of layers makes, read without mounting it: what overlayfs would show.
use super::names::join;
use super::rights::{TRUSTED_OPAQUE, USER_OPAQUE};
use super::tree::is_whiteout;
use crate::{Error, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

const SYMLINKS_MAX: u32 = 40;

/// What a path of a merged tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A device node, pipe or socket.
    Special,
}

/// One path of a merged tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// Owner as on disk.
    pub uid: u32,
    /// Group as on disk.
    pub gid: u32,
    /// In bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds of the time.
    pub mtime_nsec: u32,
    /// Change time, seconds and nanoseconds.
    pub ctime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// How many names the file has on its file system.
    pub links: u64,
    /// The file type and mode as stat(2) has them.
    pub raw_mode: u32,
    /// File system and inode of the file that is shown: equal for hard links.
    pub inode: (u64, u64),
}

/// The tree that directories stacked by overlayfs make. All symlinks are resolved inside it.
#[derive(Debug)]
pub struct MergedView {
    /// The uppermost first.
    roots: Vec<Rc<OwnedFd>>,
}

/// Extended attributes: name and value.
type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// One path of a merged tree, looked at by descriptor: whoever renames things meanwhile is not followed.
#[derive(Clone, Debug)]
pub struct ViewEntry {
    path: PathBuf,
    node: Node,
}

impl ViewEntry {
    /// Returns the path below the root, without a leading slash and without symlinks; empty for the root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what it is.
    pub fn info(&self) -> FileInfo {
        self.node.info()
    }

    fn failed(&self, action: &'static str) -> impl Fn(Errno) -> Error + '_ {
        move |errno| Error::io(action, &self.path, errno)
    }

    /// Lists a directory's names, sorted; what a layer hides may be among them. Empty for anything else.
    pub fn names(&self) -> Result<Vec<OsString>> {
        let Node::Dir(dirs, _) = &self.node else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for dir in dirs {
            names.extend(super::changes::names(dir).map_err(self.failed("list"))?);
        }
        if dirs.len() > 1 {
            names.sort_unstable();
            names.dedup();
        }
        Ok(names.into_iter().map(OsString::from_vec).collect())
    }

    /// Returns the entry `name` of a directory, symlinks not followed; `None` where nothing is.
    pub fn child(&self, name: &OsStr) -> Result<Option<Self>> {
        let Node::Dir(dirs, _) = &self.node else {
            return Ok(None);
        };
        let found = child(dirs, name.as_bytes()).map_err(self.failed("look into"))?;
        Ok(found.map(|node| Self {
            path: self.path.join(name),
            node,
        }))
    }

    /// Returns what the entry `name` of a directory is, as [`ViewEntry::child`] would say it; nothing is opened or kept.
    pub fn child_info(&self, name: &OsStr) -> Result<Option<FileInfo>> {
        let Node::Dir(dirs, _) = &self.node else {
            return Ok(None);
        };
        for dir in dirs {
            match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.failed("look into")(errno)),
                // The uppermost that is there says it all.
                Ok(stat) if is_whiteout(&stat) => return Ok(None),
                Ok(stat) => return Ok(Some(info(&stat))),
            }
        }
        Ok(None)
    }

    /// Opens a regular file for reading; anything else is an error.
    pub fn open(&self) -> Result<File> {
        let open = || match &self.node {
            Node::Other { holder, name, stat }
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile =>
            {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let file = rustix::fs::openat(holder, &name[..], flags, Mode::empty())?;
                // It may have been swapped since it was looked at.
                match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
                    FileType::RegularFile => Ok(file),
                    _ => Err(Errno::INVAL),
                }
            }
            Node::Dir(..) => Err(Errno::ISDIR),
            Node::Other { .. } => Err(Errno::INVAL),
        };
        open().map(File::from).map_err(self.failed("open"))
    }

    /// Returns a symlink's target.
    pub fn read_link(&self) -> Result<OsString> {
        let read = || match &self.node {
            Node::Other { holder, name, .. } => link_target(holder, name),
            Node::Dir(..) => Err(Errno::INVAL),
        };
        read()
            .map(OsString::from_vec)
            .map_err(self.failed("read the link"))
    }

    /// Returns the extended attributes of a regular file or directory, without overlayfs's own; none for others.
    pub fn xattrs(&self) -> Result<Attributes> {
        let file;
        let fd = match &self.node {
            Node::Dir(dirs, _) => match dirs.first() {
                Some(dir) => &**dir,
                None => return Ok(Vec::new()),
            },
            Node::Other { .. } if self.info().kind == FileKind::File => {
                file = OwnedFd::from(self.open()?);
                &file
            }
            Node::Other { .. } => return Ok(Vec::new()),
        };
        let read = || -> Result<Attributes, Errno> {
            let names = super::changes::xattr_names(fd)?.into_iter();
            (names.filter(|name| !super::changes::is_overlay(name)))
                .map(|name| super::changes::xattr(fd, &name).map(|value| (name, value)))
                .collect()
        };
        read().map_err(self.failed("read the attributes of"))
    }
}

/// A place in the tree: the directories that make up one directory, or the holder of anything else.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Dir(Vec<Rc<OwnedFd>>, Stat),
    Other {
        holder: Rc<OwnedFd>,
        name: Vec<u8>,
        stat: Stat,
    },
}

impl Node {
    pub(super) fn stat(&self) -> &Stat {
        match self {
            Self::Dir(_, stat) | Self::Other { stat, .. } => stat,
        }
    }

    fn info(&self) -> FileInfo {
        info(self.stat())
    }
}

fn info(stat: &Stat) -> FileInfo {
    #[allow(clippy::unnecessary_cast, reason = "it has 32 bits on other architectures")]
    let links = stat.st_nlink as u64;
    FileInfo {
        kind: match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Dir,
            FileType::Symlink => FileKind::Symlink,
            _ => FileKind::Special,
        },
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size.cast_unsigned(),
        mtime: stat.st_mtime,
        mtime_nsec: stat.st_mtime_nsec as u32,
        ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
        device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        links,
        raw_mode: stat.st_mode,
        inode: (stat.st_dev, stat.st_ino),
    }
}

impl MergedView {
    /// Opens the stack of `lower`, the uppermost first, as [`crate::Mount::Overlay`] lists them.
    pub fn open(lower: &[PathBuf]) -> Result<Self> {
        let roots = lower
            .iter()
            .map(|path| {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::open(path, flags, Mode::empty())
                    .map(Rc::new)
                    .map_err(|e| Error::io("open", path, e))
            })
            .collect::<Result<_>>()?;
        Ok(Self { roots })
    }

    /// Looks `path` up; a symlink at its end is followed where `follow` says so. `None` where nothing is.
    pub fn entry(&self, path: impl AsRef<Path>, follow: bool) -> Result<Option<ViewEntry>> {
        let path = path.as_ref();
        let found = self.resolve(path.as_os_str().as_bytes(), follow);
        Ok(found
            .map_err(|e| Error::io("look up", path, e))?
            .map(|(node, real)| ViewEntry {
                path: PathBuf::from(OsString::from_vec(real)),
                node,
            }))
    }

    /// Returns where `path` leads inside the root when it is made: symlinks of the part that exists are followed, the
    /// rest stays as it is. Relative, empty for the root.
    pub fn resolve_new(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = path.as_ref();
        let text = path.as_os_str().as_bytes();
        let mut left: VecDeque<Vec<u8>> = text.split(|&b| b == b'/').map(<[u8]>::to_vec).collect();
        let mut real: Vec<u8> = Vec::new();
        let mut links = 0;
        let failed = |errno| Error::io("look up", path, errno);
        while let Some(part) = left.pop_front() {
            match &part[..] {
                b"" | b"." => {}
                b".." => real.truncate(super::names::split(&real).0.len()),
                name => {
                    let at = join(&real, name);
                    match self.exact(&at).map_err(failed)? {
                        Some(Node::Other { holder, name, stat })
                            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink =>
                        {
                            links += 1;
                            if links > SYMLINKS_MAX {
                                return Err(failed(Errno::LOOP));
                            }
                            let target = link_target(&holder, &name).map_err(failed)?;
                            if target.starts_with(b"/") {
                                real.clear();
                            }
                            for part in target.split(|&b| b == b'/').rev() {
                                left.push_front(part.to_vec());
                            }
                        }
                        _ => real = at,
                    }
                }
            }
        }
        Ok(PathBuf::from(OsString::from_vec(real)))
    }

    /// Returns what `path` is, following symlinks; `None` where nothing is.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Option<FileInfo>> {
        let path = path.as_ref();
        let found = self.resolve(path.as_os_str().as_bytes(), true);
        Ok(found
            .map_err(|e| Error::io("look up", path, e))?
            .map(|(node, _)| node.info()))
    }

    /// Returns what `path` is; a symlink at its end is not followed.
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Option<FileInfo>> {
        let path = path.as_ref();
        let found = self.resolve(path.as_os_str().as_bytes(), false);
        Ok(found
            .map_err(|e| Error::io("look up", path, e))?
            .map(|(node, _)| node.info()))
    }

    /// Returns the target of the symlink `path`.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = path.as_ref();
        let read = || match self.resolve(path.as_os_str().as_bytes(), false)? {
            Some((Node::Other { holder, name, .. }, _)) => link_target(&holder, &name),
            Some(_) => Err(Errno::INVAL),
            None => Err(Errno::NOENT),
        };
        read()
            .map(|target| PathBuf::from(OsString::from_vec(target)))
            .map_err(|e| Error::io("read the link", path, e))
    }

    /// Opens the regular file `path` for reading, following symlinks. Anything else is an error, so that no
    /// device or pipe is ever opened.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref();
        let open = || match self.resolve(path.as_os_str().as_bytes(), true)? {
            Some((Node::Other { holder, name, stat }, _))
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile =>
            {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                rustix::fs::openat(&holder, &name[..], flags, Mode::empty())
            }
            Some((Node::Dir(..), _)) => Err(Errno::ISDIR),
            Some(_) => Err(Errno::INVAL),
            None => Err(Errno::NOENT),
        };
        open().map(File::from).map_err(|e| Error::io("open", path, e))
    }

    /// Lists the directory `path`, sorted by name.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<(OsString, FileInfo)>> {
        let path = path.as_ref();
        let list = || match self.resolve(path.as_os_str().as_bytes(), true)? {
            Some((Node::Dir(dirs, _), _)) => self.list(&dirs),
            Some(_) => Err(Errno::NOTDIR),
            None => Err(Errno::NOENT),
        };
        let found = list().map_err(|e| Error::io("list", path, e))?;
        Ok(found
            .into_iter()
            .map(|(name, node)| (OsString::from_vec(name), node.info()))
            .collect())
    }

    /// Lists every path below the root, directories before what is in them.
    pub fn walk(&self) -> Result<BTreeMap<PathBuf, FileInfo>> {
        let mut found = BTreeMap::new();
        let mut open = vec![(Vec::new(), self.roots.clone())];
        while let Some((path, dirs)) = open.pop() {
            let shown = || PathBuf::from(OsStr::from_bytes(&path));
            for (name, node) in self.list(&dirs).map_err(|e| Error::io("list", shown(), e))? {
                let path = join(&path, &name);
                found.insert(PathBuf::from(OsStr::from_bytes(&path)), node.info());
                if let Node::Dir(dirs, _) = node {
                    open.push((path, dirs));
                }
            }
        }
        Ok(found)
    }

    pub(super) fn list(&self, dirs: &[Rc<OwnedFd>]) -> Result<BTreeMap<Vec<u8>, Node>, Errno> {
        let mut names = BTreeSet::new();
        for dir in dirs {
            for entry in Dir::read_from(dir)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    names.insert(name);
                }
            }
        }
        let mut found = BTreeMap::new();
        for name in names {
            if let Some(node) = child(dirs, &name)? {
                found.insert(name, node);
            }
        }
        Ok(found)
    }

    /// Looks `path` up without following any symlink.
    pub(super) fn exact(&self, path: &[u8]) -> Result<Option<Node>, Errno> {
        let mut node = self.root()?;
        for part in path.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
            let Node::Dir(dirs, _) = &node else {
                return Ok(None);
            };
            match child(dirs, part)? {
                Some(next) => node = next,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    pub(super) fn root(&self) -> Result<Node, Errno> {
        let first = self.roots.first().ok_or(Errno::NOENT)?;
        Ok(Node::Dir(self.roots.clone(), rustix::fs::fstat(first)?))
    }

    /// Looks `path` up and returns its real path as well.
    pub(super) fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Option<(Node, Vec<u8>)>, Errno> {
        if self.roots.is_empty() {
            return Ok(None);
        }
        let parts = |path: &[u8]| path.split(|&b| b == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut left: VecDeque<Vec<u8>> = parts(path).into();
        let mut way: Vec<(Vec<u8>, Node)> = vec![(Vec::new(), self.root()?)];
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            let Some((at, Node::Dir(dirs, _))) = way.last() else {
                return Ok(None);
            };
            match &part[..] {
                b"" | b"." => {}
                b".." => {
                    if way.len() > 1 {
                        way.pop();
                    }
                }
                name if name.len() > 255 => return Ok(None),
                name => {
                    let Some(node) = child(dirs, name)? else {
                        return Ok(None);
                    };
                    let is_last = left.iter().all(|part| part.is_empty());
                    if let Node::Other { holder, stat, .. } = &node
                        && FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
                        && (follow_last || !is_last)
                    {
                        links += 1;
                        if links > SYMLINKS_MAX {
                            return Err(Errno::LOOP);
                        }
                        let target = link_target(holder, name)?;
                        if target.starts_with(b"/") {
                            way.truncate(1);
                        }
                        for part in parts(&target).into_iter().rev() {
                            left.push_front(part);
                        }
                    } else {
                        let path = join(at, name);
                        way.push((path, node));
                    }
                }
            }
        }
        Ok(way.pop().map(|(path, node)| (node, path)))
    }
}

pub(super) fn link_target(holder: &OwnedFd, name: &[u8]) -> Result<Vec<u8>, Errno> {
    Ok(rustix::fs::readlinkat(holder, name, Vec::new())?.into_bytes())
}

/// `name` within a directory made of `dirs`, the uppermost first.
pub(super) fn child(dirs: &[Rc<OwnedFd>], name: &[u8]) -> Result<Option<Node>, Errno> {
    let mut found: Option<(Vec<Rc<OwnedFd>>, Stat)> = None;
    for dir in dirs {
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if is_whiteout(&stat) {
            break;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            if found.is_none() {
                return Ok(Some(Node::Other {
                    holder: Rc::clone(dir),
                    name: name.to_vec(),
                    stat,
                }));
            }
            break;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = Rc::new(rustix::fs::openat(dir, name, flags, Mode::empty())?);
        let opaque = is_opaque(&fd);
        found.get_or_insert_with(|| (Vec::new(), stat)).0.push(fd);
        if opaque {
            break;
        }
    }
    Ok(found.map(|(dirs, stat)| Node::Dir(dirs, stat)))
}

pub(super) fn is_opaque(dir: &OwnedFd) -> bool {
    [TRUSTED_OPAQUE, USER_OPAQUE].iter().any(|name| {
        let mut value = [0_u8; 1];
        matches!(rustix::fs::fgetxattr(dir, *name, &mut value), Ok(1)) && value == *b"y"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_is_and_the_child_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let [upper, lower] = ["upper", "lower"].map(|name| dir.path().join(name));
        for (path, text) in [
            (lower.join("below/f"), "1"),
            (lower.join("both/f"), "12"),
            (upper.join("both/g"), "123"),
            (lower.join("file"), "1234"),
            (upper.join("file"), "12345"),
            (lower.join("hidden"), "123456"),
            (lower.join("dir-becomes-file/x"), "1"),
            (upper.join("dir-becomes-file"), "12"),
        ] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink("file", lower.join("link")).unwrap();
        // A whiteout, which any user may make.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            upper.join("hidden"),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .unwrap();
        let view = MergedView::open(&[upper, lower]).unwrap();
        let top = view.entry("", false).unwrap().unwrap();
        let names = top.names().unwrap();
        assert_eq!(names.len(), 6, "{names:?}");
        for name in names
            .iter()
            .map(OsString::as_os_str)
            .chain([OsStr::new("nothing")])
        {
            let child = top.child(name).unwrap().map(|child| child.info());
            assert_eq!(top.child_info(name).unwrap(), child, "{name:?}");
            assert_eq!(child.is_none(), name == "nothing" || name == "hidden", "{name:?}");
        }
        // What is no directory has nothing in it.
        let file = top.child(OsStr::new("file")).unwrap().unwrap();
        assert_eq!(file.child_info(OsStr::new("x")).unwrap(), None);
    }
}
