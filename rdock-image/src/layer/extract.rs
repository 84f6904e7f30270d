//! A layer's tar becomes the directory `fs/`, in the form overlayfs stacks: whiteouts as character devices 0:0,
//! opaque directories by attribute. Nothing outside the directory can be reached, whatever the tar says.
use super::apart::{Apart, is_readable};
use super::meta::{Attributes, LayerMeta, LayerPath, OwnerRecord, Ownership};
use super::names::{self, Mark};
use super::remove::remove_child;
use super::skeleton::Recorder;
use super::tree::{Dir, Pending, Tree, TreeError, is_whiteout};
use crate::store::Limits;
use crate::tarstream::{Entry, Kind, TarError, TarReader};
use crate::{Error, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;
use std::rc::Rc;

/// What an extraction leaves beside the files.
#[derive(Debug)]
pub(crate) struct Extracted {
    pub(crate) meta: LayerMeta,
    pub(crate) owners: BTreeMap<Vec<u8>, OwnerRecord>,
}

/// Extracts all entries of `tar` into the empty directory `fs`. `layer` names it in errors. What later entries of a
/// layer replace is put beside `fs`.
///
/// Runs on a thread of its own, since it takes its umask away.
pub(crate) fn extract<R: BufRead>(
    layer: &str,
    tar: &mut TarReader<Recorder<R>>,
    fs: &Path,
    ownership: Ownership,
    limits: &Limits,
    form: Form,
) -> Result<Extracted> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(fs, flags, Mode::empty()).map_err(|e| Error::io("open", fs, e))?;
    // A set-group-id bit or default ACL of the store's own directory must not reach the layer's files.
    rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))
        .map_err(|e| Error::io("change the mode of", fs, e))?;
    let mut extractor = Extractor {
        layer,
        path: fs,
        limits,
        ownership,
        form,
        exact_modes: own_umask(),
        user: (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        ),
        tree: Tree::new(root, ownership),
        meta: LayerMeta {
            ownership,
            ..LayerMeta::default()
        },
        owners: BTreeMap::new(),
        apart: match form {
            Form::Layer => fs.parent().map(Apart::new),
            Form::Archive => None,
        },
        files: 0,
    };
    loop {
        let entry = tar.next_entry().map_err(|e| tar_error(layer, b"", e))?;
        let Some(entry) = entry else { break };
        extractor.entry(tar, &entry)?;
    }
    extractor.finish()
}

/// Gives this thread a umask of its own, 0. Where that is refused (a seccomp filter), modes are set one by one.
fn own_umask() -> bool {
    // Only this thread's file system attributes are split off, so that the program's umask stays.
    #[expect(
        deprecated,
        reason = "the safe call; only CLONE_FS is used, which has no memory or descriptor effects"
    )]
    let own = rustix::thread::unshare(rustix::thread::UnshareFlags::FS).is_ok();
    if own {
        rustix::process::umask(Mode::empty());
    }
    own
}

/// What a tar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Its whiteouts hide what is below.
    Layer,
    /// Any archive: a name that looks like a whiteout is a name.
    Archive,
}

pub(super) struct Extractor<'a> {
    pub(super) layer: &'a str,
    pub(super) path: &'a Path,
    pub(super) limits: &'a Limits,
    pub(super) ownership: Ownership,
    /// A file has the mode it is made with.
    pub(super) exact_modes: bool,
    pub(super) user: (u32, u32),
    form: Form,
    pub(super) tree: Tree,
    pub(super) meta: LayerMeta,
    pub(super) owners: BTreeMap<Vec<u8>, OwnerRecord>,
    pub(super) apart: Option<Apart>,
    /// Files whose content the skeleton refers to so far.
    pub(super) files: u64,
}

/// What went wrong with one entry, before it is named.
pub(super) enum Fault {
    Malformed(String),
    System(Errno),
    Whole(Error),
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Self {
        Self::System(error)
    }
}

impl From<TreeError> for Fault {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Malformed(reason) => Self::Malformed(reason),
            TreeError::System(errno) => Self::System(errno),
        }
    }
}

impl From<&str> for Fault {
    fn from(reason: &str) -> Self {
        Self::Malformed(reason.to_owned())
    }
}

pub(crate) fn tar_error(layer: &str, entry: &[u8], error: TarError) -> Error {
    match error {
        TarError::Malformed(reason) => Error::LayerMalformed {
            layer: layer.to_owned(),
            entry: String::from_utf8_lossy(entry).into_owned(),
            reason,
        },
        TarError::Io(source) => Error::Stream {
            what: format!("layer {layer}"),
            source,
        },
    }
}

impl Extractor<'_> {
    fn entry<R: BufRead>(&mut self, tar: &mut TarReader<Recorder<R>>, entry: &Entry) -> Result<()> {
        self.meta.entries += 1;
        if self.meta.entries > self.limits.entries {
            return Err(Error::Limit {
                what: "the number of entries of a layer".into(),
                limit: self.limits.entries,
            });
        }
        if entry.kind == Kind::File {
            self.meta.size = self.meta.size.saturating_add(entry.real_size);
            if self.meta.size > self.limits.layer_bytes {
                return Err(Error::Limit {
                    what: "the unpacked size of a layer in bytes".into(),
                    limit: self.limits.layer_bytes,
                });
            }
        }
        self.place(tar, entry).map_err(|fault| match fault {
            Fault::Whole(error) => error,
            Fault::Malformed(reason) => tar_error(self.layer, &entry.name, TarError::Malformed(reason)),
            Fault::System(errno) => Error::io(
                "extract",
                self.path
                    .join(String::from_utf8_lossy(&entry.name).trim_start_matches('/')),
                errno,
            ),
        })
    }

    fn place<R: BufRead>(&mut self, tar: &mut TarReader<Recorder<R>>, entry: &Entry) -> Result<(), Fault> {
        let path = names::normalize(&entry.name)?;
        if path.is_empty() {
            if entry.kind != Kind::Dir {
                return Err("the layer's root is not a directory".into());
            }
            return self.root(entry);
        }
        let depth = path.iter().filter(|&&b| b == b'/').count() as u64 + 1;
        if depth > self.limits.depth {
            return Err(Fault::Whole(Error::Limit {
                what: "the depth of a layer's directories".into(),
                limit: self.limits.depth,
            }));
        }
        let (above, name) = names::split(&path);
        if self.form == Form::Layer && names::has_marked_parent(above) {
            return Err("a directory with the name of a whiteout".into());
        }
        let mark = match self.form {
            Form::Layer => names::mark(name)?,
            Form::Archive => Mark::None,
        };
        if mark != Mark::None && entry.kind == Kind::Dir && mark != Mark::Ignored {
            return Err("a whiteout that is a directory".into());
        }
        match mark {
            Mark::Ignored => return Ok(()),
            Mark::Opaque => {
                let dir = self.tree.make(above)?;
                if dir.path.is_empty() {
                    self.meta.opaque_root = true;
                } else {
                    self.tree.set_opaque(dir.fd.as_fd())?;
                }
                return Ok(());
            }
            Mark::Whiteout(hidden) => {
                let dir = self.tree.make(above)?;
                return self.whiteout(&dir, hidden);
            }
            Mark::None => {}
        }
        let dir = self.tree.make(above)?;
        let real = names::join(&dir.path, name);
        if !self.meta.links.is_empty() {
            self.meta.links.remove(&LayerPath(real.clone()));
        }
        match entry.kind {
            Kind::Dir => self.directory(&dir, name, real, entry)?,
            Kind::File => {
                let file = self.create(&dir, name, &real, |dir| {
                    let flags =
                        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    rustix::fs::openat(&dir.fd, name, flags, Mode::from_raw_mode(entry.mode & 0o777))
                })?;
                self.write(tar, entry, &real, &file)?;
                self.file_attributes(&file, &real, entry)?;
            }
            Kind::HardLink => self.hard_link(&dir, name, real, entry)?,
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.len() > 4095 {
                    return Err("a symlink with an empty or too long target".into());
                }
                self.create(&dir, name, &real, |dir| {
                    rustix::fs::symlinkat(&entry.link[..], &dir.fd, name)
                })?;
                self.node_attributes(&dir, name, &real, entry)?;
            }
            Kind::Char | Kind::Block if self.ownership == Ownership::SingleId => {
                self.recorded_device(real, entry)
            }
            Kind::Char if entry.device == (0, 0) => {
                return Err("a character device 0:0, which overlayfs takes for a whiteout".into());
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::Char => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = makedev(entry.device.0, entry.device.1);
                self.create(&dir, name, &real, |dir| {
                    rustix::fs::mknodat(
                        &dir.fd,
                        name,
                        kind,
                        Mode::from_raw_mode(entry.mode & 0o777),
                        device,
                    )
                })?;
                self.node_attributes(&dir, name, &real, entry)?;
            }
        }
        Ok(())
    }

    fn root(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.meta.root = Some(Attributes {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
        });
        Ok(())
    }

    fn whiteout(&mut self, dir: &Dir, hidden: &[u8]) -> Result<(), Fault> {
        let made = rustix::fs::mknodat(&dir.fd, hidden, FileType::CharacterDevice, Mode::empty(), 0);
        match made {
            Ok(()) => Ok(()),
            // The layer has something of that name itself, which hides what is below; of a directory only the
            // layer's own part may show.
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&dir.fd, hidden, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let child = rustix::fs::openat(&dir.fd, hidden, super::tree::OPEN_DIR, Mode::empty())?;
                    self.tree.set_opaque(child.as_fd())?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn directory(&mut self, dir: &Rc<Dir>, name: &[u8], real: Vec<u8>, entry: &Entry) -> Result<(), Fault> {
        // Set-id bits come last: a directory with set-group-id would hand its group down.
        let mode = match self.ownership {
            Ownership::Exact => entry.mode & 0o1777,
            Ownership::SingleId => entry.mode & 0o1777 | 0o700,
        };
        let make = |dir: &Dir| rustix::fs::mkdirat(&dir.fd, name, Mode::from_raw_mode(mode));
        let mut set_mode = false;
        match make(dir) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
                set_mode = true;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    self.clear(dir, name, &real)?;
                    make(dir)?;
                    // What it replaced had hidden everything below.
                    let fd = rustix::fs::openat(&dir.fd, name, super::tree::OPEN_DIR, Mode::empty())?;
                    self.tree.set_opaque(fd.as_fd())?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        if self.ownership == Ownership::Exact && (entry.uid, entry.gid) != self.user {
            let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            rustix::fs::chownat(&dir.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        } else if self.ownership == Ownership::SingleId {
            self.owners.remove(&real);
            self.record_owner(&real, entry);
        }
        let pending = Pending {
            explicit: true,
            mode: entry.mode,
            set_mode,
            mtime: entry.mtime,
            xattrs: entry.xattrs.clone(),
        };
        self.tree.pending.insert(real, pending);
        Ok(())
    }

    fn hard_link(&mut self, dir: &Rc<Dir>, name: &[u8], real: Vec<u8>, entry: &Entry) -> Result<(), Fault> {
        let target = names::normalize(&entry.link)?;
        let (above, last) = names::split(&target);
        if last.is_empty() {
            return Err("a hard link to the root".into());
        }
        let found = match self.tree.find(above)? {
            Some(holder) => match rustix::fs::statat(&holder.fd, last, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if !is_whiteout(&stat) => Some((holder, stat)),
                Ok(_) | Err(Errno::NOENT) => None,
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        let Some((holder, stat)) = found else {
            let stored = self
                .owners
                .get(&target)
                .filter(|record| record.device.is_some())
                .cloned();
            self.clear_if_present(dir, name, &real)?;
            match stored {
                Some(record) => drop(self.owners.insert(real, record)),
                None => drop(self.meta.links.insert(LayerPath(real), LayerPath(target))),
            }
            return Ok(());
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err("a hard link to a directory".into());
        }
        let origin = names::join(&holder.path, last);
        if origin == real {
            return Ok(());
        }
        let record = self.owners.get(&origin).cloned();
        self.create(dir, name, &real, |dir| {
            // Without AT_SYMLINK_FOLLOW: a symlink is linked itself. No attribute is applied through it.
            rustix::fs::linkat(&holder.fd, last, &dir.fd, name, AtFlags::empty())
        })?;
        if let Some(record) = record {
            self.owners.insert(real, record);
        }
        Ok(())
    }

    /// Makes something at `name`, taking away what is there.
    fn create<T>(
        &mut self,
        dir: &Dir,
        name: &[u8],
        real: &[u8],
        make: impl Fn(&Dir) -> Result<T, Errno>,
    ) -> Result<T, Fault> {
        if self.ownership == Ownership::SingleId {
            self.owners.remove(real);
        }
        match make(dir) {
            Err(Errno::EXIST) => {
                self.clear(dir, name, real)?;
                Ok(make(dir)?)
            }
            other => Ok(other?),
        }
    }

    fn clear_if_present(&mut self, dir: &Dir, name: &[u8], real: &[u8]) -> Result<(), Fault> {
        self.owners.remove(real);
        match rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => self.clear(dir, name, real),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps what the tar had at `name`, since the tar cannot be made again without; says whether it is gone from
    /// there.
    fn put_apart(
        &mut self,
        dir: &Dir,
        name: &[u8],
        real: &[u8],
        stat: &rustix::fs::Stat,
    ) -> Result<bool, Errno> {
        match &mut self.apart {
            Some(apart) => apart.put(dir.fd.as_fd(), name, real, stat, self.files),
            None => Ok(false),
        }
    }

    /// Takes away what this layer has at `name`.
    fn clear(&mut self, dir: &Dir, name: &[u8], real: &[u8]) -> Result<(), Fault> {
        let stat = rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if !self.put_apart(dir, name, real, &stat)? {
                    remove_child(dir.fd.as_fd(), name)?;
                }
                self.tree.forget(real);
                let below = names::join(real, b"");
                self.owners.retain(|path, _| !path.starts_with(&below));
                self.meta.links.retain(|path, _| !path.0.starts_with(&below));
            }
            kind => {
                if !self.put_apart(dir, name, real, &stat)? {
                    rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty())?;
                }
                if kind == FileType::Symlink {
                    self.tree.forget(real);
                }
            }
        }
        Ok(())
    }

    fn write<R: BufRead>(
        &mut self,
        tar: &mut TarReader<Recorder<R>>,
        entry: &Entry,
        real: &[u8],
        file: &OwnedFd,
    ) -> Result<(), Fault> {
        let whole = [(0, entry.size)];
        let pieces = entry.sparse.as_deref().unwrap_or(&whole);
        // What this user cannot read again stays in the skeleton.
        let is_kept = self.ownership == Ownership::Exact || is_readable(entry.mode);
        let mut path = Some(real);
        for &(offset, length) in pieces {
            if is_kept {
                tar.input_mut().begin_content();
            }
            let (mut at, end) = (offset, offset + length);
            while at < end {
                let chunk = match tar.data() {
                    Ok([]) => return Err("the sparse map has more data than the file".into()),
                    Ok(chunk) => chunk,
                    Err(error) => return Err(Fault::Whole(tar_error(self.layer, &entry.name, error))),
                };
                let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(chunk.len());
                let written = match entry.sparse {
                    None => rustix::io::write(file, &chunk[..count]),
                    Some(_) => rustix::io::pwrite(file, &chunk[..count], at),
                };
                match written {
                    Ok(written) => {
                        tar.consume(written);
                        at += written as u64;
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if is_kept {
                tar.input_mut().end_content(path, offset, length);
                if length > 0 {
                    path = None;
                }
            }
        }
        self.files = tar.input_mut().files();
        if entry.sparse.is_some() {
            rustix::fs::ftruncate(file, entry.real_size)?;
        }
        Ok(())
    }
}
