//! What a stack of layers needs beyond the layers themselves.
//!
//! A layer is extracted without knowing what lies below it. Two things can only be settled once it does: a hard link
//! whose target is in a layer below, and a directory that was made without an entry, whose owner and mode (or
//! whether it is a directory at all) the layer below decides. Both are put into a small directory of its own,
//! `chains/<chainID>/fs`, which is stacked on top of the layer.
use super::Layer;
use super::changes::{is_overlay, xattr, xattr_names};
use super::merged::{MergedView, Node, child, link_target};
use super::meta::{Attributes, LayerMeta, LayerPath, Ownership};
use super::names::{join, split};
use super::tree::{OPEN_DIR, is_whiteout};
use crate::layout::{Layout, make_dir_all};
use crate::{Digest, Error, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What is to be stacked for an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stack {
    /// Below the store's directory, the uppermost first.
    pub(crate) lower: Vec<PathBuf>,
    /// Of the image's root directory.
    pub(crate) root: Attributes,
    pub(crate) ownership: Ownership,
}

/// The name of a stack (OCI image specification, "Layer ChainID").
pub(crate) fn chain_id(diff_ids: &[Digest]) -> Digest {
    match diff_ids {
        [] => Digest::sha256_of(b""),
        [first, rest @ ..] => rest.iter().fold(first.clone(), |chain, diff_id| {
            Digest::sha256_of(format!("{chain} {diff_id}").as_bytes())
        }),
    }
}

/// Returns the stack of an image, making what it needs. The layers must be present and leased.
pub(crate) fn stack(layout: &Layout, diff_ids: &[Digest]) -> Result<Stack> {
    let name = layout.chain(&chain_id(diff_ids));
    if let Some(stack) = ready(layout, diff_ids)? {
        return Ok(stack);
    }
    let mut stack = Stack {
        lower: Vec::new(),
        root: Attributes {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
        },
        ownership: Ownership::Exact,
    };
    for (at, diff_id) in diff_ids.iter().enumerate() {
        let (fs, meta) = Layer::open(layout, diff_id)?.extracted()?;
        if meta.opaque_root {
            stack.lower.clear();
        }
        if let Some(root) = meta.root {
            stack.root = root;
        }
        if meta.ownership == Ownership::SingleId {
            stack.ownership = Ownership::SingleId;
        }
        let fs = fs.strip_prefix(layout.root()).unwrap_or(&fs).to_owned();
        let mut below = std::mem::take(&mut stack.lower);
        // Overlayfs refuses a directory twice; the upper one hides all of the lower one.
        below.retain(|path| *path != fs);
        stack.lower = std::iter::once(fs.clone()).chain(below.iter().cloned()).collect();
        if !meta.needs_chain() {
            continue;
        }
        let chain = layout.chain(&chain_id(&diff_ids[..=at]));
        if let Some(ready) = read(layout, &chain)? {
            stack = ready;
            continue;
        }
        let scratch = layout.scratch(".chain")?;
        let own = chain.join("fs");
        let with_own = |stack: &Stack| {
            let own = own.strip_prefix(layout.root()).unwrap_or(&own).to_owned();
            let lower = std::iter::once(own).chain(stack.lower.iter().cloned()).collect();
            Stack {
                lower,
                ..stack.clone()
            }
        };
        let made = (|| {
            make_dir_all(&scratch)?;
            let mut additions = Additions::new(layout, diff_id, &meta, &fs, &below, &scratch.join("fs"))?;
            additions.make()?;
            let stack = if additions.finish()? {
                with_own(&stack)
            } else {
                stack.clone()
            };
            publish(layout, &scratch, &chain, &stack).map(|()| stack)
        })();
        if made.is_err() {
            super::remove::remove_tree(&scratch)?;
        }
        stack = made?;
    }
    if !name.exists() {
        let scratch = layout.scratch(".chain")?;
        make_dir_all(&scratch)?;
        if stack.lower.is_empty() {
            // Overlayfs wants at least one directory below.
            let empty = scratch.join("fs");
            make_dir_all(&empty)?;
            rustix::fs::chmod(&empty, Mode::from_raw_mode(stack.root.mode))
                .map_err(|e| Error::io("change the mode of", &empty, e))?;
            let own = name.join("fs");
            stack
                .lower
                .push(own.strip_prefix(layout.root()).unwrap_or(&own).to_owned());
        }
        let made = publish(layout, &scratch, &name, &stack);
        if made.is_err() {
            super::remove::remove_tree(&scratch)?;
        }
        made?;
    }
    Ok(stack)
}

/// Returns the stack where it was made before.
pub(crate) fn ready(layout: &Layout, diff_ids: &[Digest]) -> Result<Option<Stack>> {
    read(layout, &layout.chain(&chain_id(diff_ids)))
}

fn read(layout: &Layout, chain: &Path) -> Result<Option<Stack>> {
    match fs::read(chain.join("stack.json")) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(stack) => Ok(Some(stack)),
            Err(_) => {
                // Chains can be made anew, so a garbled one is no error.
                let trash = layout.trash().join(crate::layout::random_name()?);
                fs::rename(chain, &trash).map_err(|e| Error::io("rename", chain, e))?;
                Ok(None)
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", chain.join("stack.json"), error)),
    }
}

fn publish(layout: &Layout, scratch: &Path, name: &Path, stack: &Stack) -> Result<()> {
    let text = serde_json::to_vec(stack).map_err(|e| Error::document("a chain's stack.json", e))?;
    let path = scratch.join("stack.json");
    // A list of directories is made anew when it is garbled; only files of its own must be on the disk.
    let own_files = scratch.join("fs").exists();
    let written = fs::File::create(&path).and_then(|mut file| {
        file.write_all(&text)?;
        if own_files {
            layout.sync_file(&file)
        } else {
            Ok(())
        }
    });
    written.map_err(|e| Error::io("write", path, e))?;
    let published = if own_files {
        layout.publish(scratch, name)?
    } else {
        layout.publish_unsynced(scratch, name)?
    };
    if !published {
        super::remove::remove_tree(scratch)?;
    }
    Ok(())
}

/// The directory that is stacked on top of one layer.
struct Additions<'a> {
    layer: &'a Digest,
    meta: &'a LayerMeta,
    /// The layers below alone, and with this layer on top.
    below: MergedView,
    with: MergedView,
    own: OwnedFd,
    own_path: PathBuf,
    implicit: BTreeSet<LayerPath>,
    /// Directories made, with the attributes they get at the end.
    made: BTreeMap<Vec<u8>, Stat>,
    /// Implicit directories that are symlinks below: path and where it leads.
    moved: Vec<(Vec<u8>, Vec<u8>)>,
    used: bool,
}

impl<'a> Additions<'a> {
    fn new(
        layout: &Layout,
        layer: &'a Digest,
        meta: &'a LayerMeta,
        fs: &Path,
        below: &[PathBuf],
        own_path: &Path,
    ) -> Result<Self> {
        make_dir_all(own_path)?;
        let below: Vec<PathBuf> = below.iter().map(|path| layout.root().join(path)).collect();
        let with: Vec<PathBuf> = std::iter::once(layout.root().join(fs))
            .chain(below.iter().cloned())
            .collect();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            layer,
            meta,
            below: MergedView::open(&below)?,
            with: MergedView::open(&with)?,
            own: rustix::fs::open(own_path, flags, Mode::empty())
                .map_err(|e| Error::io("open", own_path, e))?,
            own_path: own_path.to_owned(),
            implicit: meta.implicit.clone(),
            made: BTreeMap::new(),
            moved: Vec::new(),
            used: false,
        })
    }

    fn make(&mut self) -> Result<()> {
        let own_path = self.own_path.clone();
        let failed = |path: &[u8]| {
            let path = own_path.join(&*String::from_utf8_lossy(path));
            move |errno| Error::io("complete", path, errno)
        };
        for path in self.implicit.clone() {
            let error = failed(&path.0);
            self.implicit_directory(&path.0).map_err(error)?;
        }
        for (path, target) in &self.meta.links {
            let failed = failed(&path.0);
            match self.link(&path.0, &target.0) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(Error::LayerMalformed {
                        layer: self.layer.to_string(),
                        entry: String::from_utf8_lossy(&path.0).into_owned(),
                        reason: format!(
                            "a hard link to {:?}, which neither this layer nor one below it has",
                            String::from_utf8_lossy(&target.0)
                        ),
                    });
                }
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    }

    /// A layer below has the directory: its owner and mode count. It has a symlink: what the layer put into the
    /// directory belongs to where that leads.
    fn implicit_directory(&mut self, path: &[u8]) -> Result<(), Errno> {
        if self.moved.iter().any(|(from, _)| is_below(path, from)) {
            return Ok(());
        }
        let (above, name) = split(path);
        let Some(Node::Dir(dirs, _)) = self.with.exact(above)? else {
            return Ok(());
        };
        match child(&dirs[1.min(dirs.len())..], name)? {
            Some(Node::Dir(_, wanted)) => {
                let Some(Node::Dir(_, have)) = self.with.exact(path)? else {
                    return Ok(());
                };
                if !same_attributes(&wanted, &have) {
                    self.directory(path)?;
                }
                Ok(())
            }
            Some(Node::Other { holder, name, stat })
                if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink =>
            {
                let Some((Node::Dir(..), real)) = self.below.resolve(path, true)? else {
                    return Ok(());
                };
                let parent = self.directory(above)?;
                let target = link_target(&holder, &name)?;
                rustix::fs::symlinkat(&target[..], &parent, &name[..])?;
                own(&parent, &name, &stat)?;
                self.used = true;
                self.moved.push((path.to_vec(), real.clone()));
                let Some(Node::Dir(dirs, _)) = self.with.exact(path)? else {
                    return Ok(());
                };
                self.graft(&dirs[0], &real)
            }
            _ => Ok(()),
        }
    }

    /// Puts what the layer's directory `from` holds into `to`.
    fn graft(&mut self, from: &OwnedFd, to: &[u8]) -> Result<(), Errno> {
        let target = self.directory(to)?;
        for entry in Dir::read_from(from)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            let stat = rustix::fs::statat(from, &name[..], AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = rustix::fs::openat(from, &name[..], flags, Mode::empty())?;
                let path = join(to, &name);
                if self.below.exact(&path)?.is_none() {
                    rustix::fs::mkdirat(&target, &name[..], Mode::from_raw_mode(0o700))?;
                    self.made.insert(path.clone(), stat);
                }
                self.graft(&inner, &path)?;
            } else if is_whiteout(&stat) {
                rustix::fs::mknodat(&target, &name[..], FileType::CharacterDevice, Mode::empty(), 0)?;
            } else {
                link_or_copy(from, &name, &target, &name, &stat)?;
            }
        }
        Ok(())
    }

    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<bool, Errno> {
        let found = match self.below.resolve(target, false)? {
            Some(found) => Some(found),
            // An entry that came later in the same layer.
            None => self.with.resolve(target, false)?,
        };
        let Some((
            Node::Other {
                holder,
                name: origin,
                stat,
            },
            _,
        )) = found
        else {
            return Ok(false);
        };
        let path = match self.moved.iter().find(|(from, _)| is_below(path, from)) {
            Some((from, to)) => [to, &path[from.len()..]].concat(),
            None => path.to_vec(),
        };
        let (above, name) = split(&path);
        let parent = self.directory(above)?;
        link_or_copy(&holder, &origin, &parent, name, &stat)?;
        self.used = true;
        Ok(true)
    }

    /// Opens a directory of the additions, making it and its parents with the attributes the merged tree has.
    fn directory(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut at = rustix::fs::openat(&self.own, ".", OPEN_DIR, Mode::empty())?;
        let mut real = Vec::new();
        for part in path.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
            real = join(&real, part);
            match rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o700)) {
                Ok(()) => {
                    let below = self
                        .below
                        .exact(&real)?
                        .filter(|_| self.implicit.contains(&LayerPath(real.clone())));
                    let node = match below {
                        Some(node @ Node::Dir(..)) => Some(node),
                        _ => match self.with.exact(&real)? {
                            Some(node) => Some(node),
                            None => self.below.exact(&real)?,
                        },
                    };
                    if let Some(node) = node {
                        self.made.insert(real.clone(), *node.stat());
                    }
                    self.used = true;
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            at = rustix::fs::openat(&at, part, OPEN_DIR, Mode::empty())?;
        }
        Ok(at)
    }

    /// Gives the directories their attributes; says whether there is anything at all.
    fn finish(self) -> Result<bool> {
        for (path, stat) in self.made.iter().rev() {
            let (above, name) = split(path);
            let give = || -> Result<(), Errno> {
                let mut dir = rustix::fs::openat(&self.own, ".", OPEN_DIR, Mode::empty())?;
                for part in above.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
                    dir = rustix::fs::openat(&dir, part, OPEN_DIR, Mode::empty())?;
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
                copy_xattrs(&self.with, path, &fd)?;
                own(&dir, name, stat)?;
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
                rustix::fs::futimens(&fd, &times(stat))
            };
            give()
                .map_err(|e| Error::io("complete", self.own_path.join(&*String::from_utf8_lossy(path)), e))?;
        }
        if !self.used {
            super::remove::remove_tree(&self.own_path)?;
        }
        Ok(self.used)
    }
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn same_attributes(a: &Stat, b: &Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid, a.st_mtime, a.st_mtime_nsec)
        == (b.st_mode, b.st_uid, b.st_gid, b.st_mtime, b.st_mtime_nsec)
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec as _,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Gives `name` the owner and time of `stat`; without the right to do so it stays this user's, as the original is.
fn own(dir: &OwnedFd, name: &[u8], stat: &Stat) -> Result<(), Errno> {
    let now = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (now.st_uid, now.st_gid) != (stat.st_uid, stat.st_gid) {
        let (uid, gid) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    rustix::fs::utimensat(dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// The merged directory's attributes, except overlayfs's own: an opaque addition would hide its layer.
fn copy_xattrs(view: &MergedView, path: &[u8], to: &OwnedFd) -> Result<(), Errno> {
    let Some(Node::Dir(dirs, _)) = view.exact(path)? else {
        return Ok(());
    };
    for name in xattr_names(&dirs[0])? {
        if !is_overlay(&name) && name != b"security.selinux" {
            rustix::fs::fsetxattr(to, &name[..], &xattr(&dirs[0], &name)?, XattrFlags::empty())?;
        }
    }
    Ok(())
}

/// The same inode where possible: links of an image stay links, and no data is copied.
fn link_or_copy(from: &OwnedFd, origin: &[u8], to: &OwnedFd, name: &[u8], stat: &Stat) -> Result<(), Errno> {
    match rustix::fs::linkat(from, origin, to, name, AtFlags::empty()) {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(to, name, AtFlags::empty())?;
            link_or_copy(from, origin, to, name, stat)
        }
        Err(Errno::MLINK | Errno::PERM) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, origin, flags, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
            std::io::copy(&mut fs::File::from(source), &mut &fs::File::from(target))
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            own(to, name, stat)?;
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, name, flags, Mode::empty())?;
            rustix::fs::fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777))
        }
        other => other,
    }
}
