//! The directory that becomes a layer: everything is made by descriptor below it, and no symlink is followed.
use rdock_image::{FileKind, MergedView, ViewEntry};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, makedev};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Mode, owner and time that a directory gets at the end.
#[derive(Clone, Debug)]
struct Pending {
    mode: u32,
    owner: (u32, u32),
    time: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a new file or directory gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub(crate) time: (i64, u32),
}

/// A layer that is being made above others.
#[derive(Debug)]
pub(crate) struct Target {
    /// What the layers below show.
    below: MergedView,
    /// With this layer on top.
    pub(crate) view: MergedView,
    root: OwnedFd,
    pending: BTreeMap<PathBuf, Pending>,
    /// Where a file of the source was copied to: its other names become links.
    links: HashMap<(usize, (u64, u64)), PathBuf>,
    /// May this process give files away?
    privileged: bool,
    /// Do directories give way to files, as when an archive is unpacked?
    pub(crate) over_directories: bool,
    /// Directories opened last: most files come in the order of their directories.
    last: Option<(PathBuf, std::rc::Rc<OwnedFd>)>,
}

type Result<T> = std::result::Result<T, String>;

impl Target {
    /// Begins a layer in the empty directory `upper`. `lower` has the directories below, the uppermost first.
    pub(crate) fn new(upper: &Path, lower: &[PathBuf]) -> Result<Self> {
        let failed = |error: rdock_image::Error| error.to_string();
        let whole: Vec<PathBuf> = std::iter::once(upper.to_owned())
            .chain(lower.iter().cloned())
            .collect();
        let below = MergedView::open(lower).map_err(failed)?;
        let root = rustix::fs::open(upper, DIR, Mode::empty()).map_err(|e| wrong("open", upper, e))?;
        let privileged = rustix::process::geteuid().is_root();
        Ok(Self {
            view: MergedView::open(&whole).map_err(failed)?,
            below,
            root,
            pending: BTreeMap::new(),
            links: HashMap::new(),
            privileged,
            over_directories: false,
            last: None,
        })
    }

    /// Returns where an absolute path leads inside the root.
    pub(crate) fn resolve(&self, path: &str) -> Result<PathBuf> {
        self.view.resolve_new(path).map_err(|error| error.to_string())
    }

    /// Returns what is at a resolved path.
    pub(crate) fn kind(&self, path: &Path) -> Result<Option<FileKind>> {
        let entry = self.view.entry(path, false).map_err(|error| error.to_string())?;
        Ok(entry.map(|entry| entry.info().kind))
    }

    /// Makes a directory and those above it, where they are missing; `new` says what the made ones get. `path` is
    /// resolved.
    pub(crate) fn directories(&mut self, path: &Path, new: Attributes) -> Result<std::rc::Rc<OwnedFd>> {
        if let Some((known, fd)) = &self.last
            && known == path
        {
            return Ok(fd.clone());
        }
        let mut fd = std::rc::Rc::new(
            rustix::fs::openat(&self.root, ".", DIR, Mode::empty()).map_err(|e| wrong("open", path, e))?,
        );
        let mut at = PathBuf::new();
        for part in path.iter() {
            at.push(part);
            fd = std::rc::Rc::new(self.step(&fd, part, &at, None, new)?);
        }
        self.last = Some((path.to_owned(), fd.clone()));
        Ok(fd)
    }

    /// Makes or opens one directory. An existing one keeps what it has.
    fn step(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        at: &Path,
        source: Option<&ViewEntry>,
        new: Attributes,
    ) -> Result<OwnedFd> {
        match rustix::fs::openat(parent, name, DIR, Mode::empty()) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(not_a_directory(at)),
            Err(errno) => return Err(wrong("open", at, errno)),
        }
        let failed = |error: rdock_image::Error| error.to_string();
        let old = self.below.entry(at, false).map_err(failed)?;
        let pending = match old {
            Some(entry) if entry.info().kind == FileKind::Dir => {
                let info = entry.info();
                Pending {
                    mode: info.mode,
                    owner: (info.uid, info.gid),
                    time: Some((info.mtime, info.mtime_nsec)),
                    xattrs: entry.xattrs().map_err(failed)?,
                }
            }
            Some(_) => return Err(not_a_directory(at)),
            None => Pending {
                mode: new.mode,
                owner: new.owner,
                time: Some(new.time),
                xattrs: source
                    .map(|entry| entry.xattrs().map_err(failed))
                    .transpose()?
                    .unwrap_or_default(),
            },
        };
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)).map_err(|e| wrong("create", at, e))?;
        self.pending.insert(at.to_owned(), pending);
        rustix::fs::openat(parent, name, DIR, Mode::empty()).map_err(|e| wrong("open", at, e))
    }

    /// Makes the directory `path` as `source`; an existing one becomes so. Those above it must be directories.
    pub(crate) fn directory(&mut self, path: &Path, source: &ViewEntry, new: Attributes) -> Result<()> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        let parent = self.directories(above, new)?;
        self.step(&parent, name, path, Some(source), new)?;
        let pending = Pending {
            mode: new.mode,
            owner: new.owner,
            time: Some(new.time),
            xattrs: source.xattrs().map_err(|error| error.to_string())?,
        };
        self.pending.insert(path.to_owned(), pending);
        Ok(())
    }

    /// As [`Target::directory`]; a file or link that is there gives way.
    pub(crate) fn replace_by_directory(
        &mut self,
        path: &Path,
        source: &ViewEntry,
        new: Attributes,
    ) -> Result<()> {
        if let Some(kind) = self.kind(path)?
            && kind != FileKind::Dir
            && let (Some(above), Some(name)) = (path.parent(), path.file_name())
        {
            let parent = self.directories(above, new)?;
            match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(wrong("replace", path, errno)),
            }
            rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))
                .map_err(|e| wrong("create", path, e))?;
        }
        self.directory(path, source, new)
    }

    /// Copies a file, link or device to `path`. `from` tells sources apart, so that only names of one tree are linked.
    pub(crate) fn file(
        &mut self,
        path: &Path,
        source: &ViewEntry,
        attributes: Attributes,
        above: Attributes,
        from: usize,
    ) -> Result<()> {
        let (parent, name) = self.clear(path, above)?;
        let info = source.info();
        let failed = |error: rdock_image::Error| error.to_string();
        let link = (info.links > 1 && info.kind == FileKind::File).then_some((from, info.inode));
        if let Some(first) = link.as_ref().and_then(|link| self.links.get(link).cloned()) {
            let (dir, first_name) = self.split(&first, above)?;
            return rustix::fs::linkat(&dir, &first_name, &parent, &name, AtFlags::empty())
                .map_err(|e| wrong("link", path, e));
        }
        match info.kind {
            FileKind::File => {
                let mut input = source.open().map_err(failed)?;
                let output = create(&parent, &name, path)?;
                let mut output = File::from(output);
                std::io::copy(&mut input, &mut output)
                    .map_err(|error| format!("cannot copy to {}: {error}", path.display()))?;
                let output = OwnedFd::from(output);
                let xattrs = source.xattrs().map_err(failed)?;
                self.finish(&output, path, attributes, &xattrs)?;
            }
            FileKind::Symlink => {
                let target = source.read_link().map_err(failed)?;
                rustix::fs::symlinkat(&target, &parent, &name).map_err(|e| wrong("create", path, e))?;
                self.finish_at(&parent, &name, path, attributes)?;
            }
            _ => {
                let kind = FileType::from_raw_mode(info.raw_mode);
                if kind == FileType::Socket || kind == FileType::Directory {
                    return Ok(());
                }
                let device = makedev(info.device.0, info.device.1);
                let mode = Mode::from_raw_mode(attributes.mode & 0o7777);
                rustix::fs::mknodat(&parent, &name, kind, mode, device)
                    .map_err(|e| wrong("create", path, e))?;
                rustix::fs::chmodat(&parent, &name, mode, AtFlags::empty())
                    .map_err(|e| wrong("set the mode of", path, e))?;
                self.finish_at(&parent, &name, path, attributes)?;
            }
        }
        if let Some(link) = link {
            self.links.insert(link, path.to_owned());
        }
        Ok(())
    }

    /// Writes a file from a stream.
    pub(crate) fn contents(
        &mut self,
        path: &Path,
        input: &mut dyn Read,
        attributes: Attributes,
        above: Attributes,
    ) -> Result<()> {
        let (parent, name) = self.clear(path, above)?;
        let mut output = File::from(create(&parent, &name, path)?);
        std::io::copy(input, &mut output)
            .and_then(|_| output.flush())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        self.finish(&OwnedFd::from(output), path, attributes, &[])
    }

    fn split(&mut self, path: &Path, above: Attributes) -> Result<(std::rc::Rc<OwnedFd>, PathBuf)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err("the root cannot be replaced by a file".to_owned());
        };
        Ok((self.directories(parent, above)?, name.into()))
    }

    /// Makes room for a file.
    fn clear(&mut self, path: &Path, above: Attributes) -> Result<(std::rc::Rc<OwnedFd>, PathBuf)> {
        let (parent, name) = self.split(path, above)?;
        match rustix::fs::unlinkat(&parent, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) if self.over_directories => {
                remove(&parent, name.as_os_str()).map_err(|e| wrong("replace", path, e))?;
                self.pending.retain(|made, _| !made.starts_with(path));
                self.links.retain(|_, first| !first.starts_with(path));
                self.last = None;
            }
            Err(Errno::ISDIR | Errno::PERM) => return Err(over_a_directory(path)),
            Err(errno) => return Err(wrong("replace", path, errno)),
        }
        // A directory of the layers below is hidden by the file.
        if self.over_directories {
            return Ok((parent, name));
        }
        let old = self.below.entry(path, false).map_err(|error| error.to_string())?;
        if old.is_some_and(|old| old.info().kind == FileKind::Dir) {
            return Err(over_a_directory(path));
        }
        Ok((parent, name))
    }

    fn finish(
        &self,
        file: &OwnedFd,
        path: &Path,
        attributes: Attributes,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<()> {
        let set = || {
            if self.privileged {
                let (uid, gid) = attributes.owner;
                rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            // Capabilities and set-id bits after the owner, whose change takes them away.
            for (name, value) in xattrs {
                if !name.starts_with(b"security.selinux") {
                    // What this user or file system cannot set is lost, as with every builder.
                    let _ = rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty());
                }
            }
            rustix::fs::fchmod(file, Mode::from_raw_mode(attributes.mode & 0o7777))?;
            rustix::fs::futimens(file, &times(attributes.time))
        };
        set().map_err(|e| wrong("set the attributes of", path, e))
    }

    fn finish_at(&self, dir: &OwnedFd, name: &Path, path: &Path, attributes: Attributes) -> Result<()> {
        let set = || {
            if self.privileged {
                let (uid, gid) = attributes.owner;
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            rustix::fs::utimensat(dir, name, &times(attributes.time), AtFlags::SYMLINK_NOFOLLOW)
        };
        set().map_err(|e| wrong("set the attributes of", path, e))
    }

    /// Gives the directories what they get, the deepest first.
    pub(crate) fn close(mut self) -> Result<()> {
        for (path, pending) in std::mem::take(&mut self.pending).into_iter().rev() {
            let mut dir = rustix::fs::openat(&self.root, ".", DIR, Mode::empty())
                .map_err(|e| wrong("open", &path, e))?;
            for part in path.iter() {
                dir = rustix::fs::openat(&dir, part, DIR, Mode::empty())
                    .map_err(|e| wrong("open", &path, e))?;
            }
            let attributes = Attributes {
                mode: pending.mode,
                owner: pending.owner,
                time: pending.time.unwrap_or((0, 0)),
            };
            self.finish(&dir, &path, attributes, &pending.xattrs)?;
        }
        Ok(())
    }
}

/// Removes a directory of this layer with all that is in it.
fn remove(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    let dir = rustix::fs::openat(parent, name, DIR, Mode::empty())?;
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::read_from(&dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            entries.push(entry.file_name().to_owned());
        }
    }
    for entry in entries {
        let entry = OsStr::from_bytes(entry.to_bytes());
        match rustix::fs::unlinkat(&dir, entry, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => remove(&dir, entry)?,
            other => other?,
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn create(parent: &OwnedFd, name: &Path, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)).map_err(|e| wrong("create", path, e))
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn wrong(action: &str, path: &Path, errno: Errno) -> String {
    format!(
        "cannot {action} /{}: {}",
        path.display(),
        std::io::Error::from(errno)
    )
}

fn not_a_directory(path: &Path) -> String {
    format!("cannot copy to non-directory: /{}", path.display())
}

fn over_a_directory(path: &Path) -> String {
    format!("cannot replace the directory /{} by a file", path.display())
}
