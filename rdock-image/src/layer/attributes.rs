//! Owners, modes, times and attributes of what an extraction makes: at once for files, at the end for directories.
use super::extract::{Extracted, Extractor, Fault, tar_error};
use super::meta::{Attributes, LayerPath, OwnerRecord, Ownership};
use super::names;
use super::tree::{Dir, Pending};
use crate::tarstream::{Entry, Kind, TarError};
use crate::{Error, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

impl Extractor<'_> {
    pub(super) fn file_attributes(
        &mut self,
        file: &OwnedFd,
        real: &[u8],
        entry: &Entry,
    ) -> Result<(), Fault> {
        let exact = self.ownership == Ownership::Exact;
        if exact && (entry.uid, entry.gid) != self.user {
            let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            rustix::fs::fchown(file, uid, gid)?;
        } else if !exact {
            self.record_owner(real, entry);
        }
        // Set-id bits after the owner, whose change takes them away.
        if !self.exact_modes || entry.mode & 0o7000 != 0 {
            rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
        }
        for (name, value) in &entry.xattrs {
            if let Some(name) = wanted_xattr(name) {
                let set = rustix::fs::fsetxattr(file, name, value, XattrFlags::empty());
                self.xattr_result(set, real, name, value)?;
            }
        }
        rustix::fs::futimens(file, &times(entry.mtime))?;
        Ok(())
    }

    /// Owner, mode and time of what cannot be opened: symlinks, devices, pipes.
    pub(super) fn node_attributes(
        &mut self,
        dir: &Dir,
        name: &[u8],
        real: &[u8],
        entry: &Entry,
    ) -> Result<(), Fault> {
        let exact = self.ownership == Ownership::Exact;
        if exact && (entry.uid, entry.gid) != self.user {
            let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            rustix::fs::chownat(&dir.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        } else if !exact {
            self.record_owner(real, entry);
        }
        if entry.kind != Kind::Symlink && (!self.exact_modes || entry.mode & 0o7000 != 0) {
            // Just made by us and not a symlink; nobody else writes here.
            rustix::fs::chmodat(&dir.fd, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        }
        rustix::fs::utimensat(&dir.fd, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    pub(super) fn record_owner(&mut self, real: &[u8], entry: &Entry) {
        let record = OwnerRecord {
            uid: entry.uid,
            gid: entry.gid,
            ..OwnerRecord::default()
        };
        if !record.is_empty() {
            self.owners.insert(real.to_vec(), record);
        }
    }

    pub(super) fn recorded_device(&mut self, real: Vec<u8>, entry: &Entry) {
        let kind = if entry.kind == Kind::Char { 'c' } else { 'b' };
        let device = Some((kind, entry.device.0, entry.device.1, entry.mode));
        let record = OwnerRecord {
            uid: entry.uid,
            gid: entry.gid,
            device,
            ..OwnerRecord::default()
        };
        self.owners.insert(real, record);
    }

    /// An attribute that this user may not set is recorded; one the file system does not have is dropped, as
    /// every engine does.
    fn xattr_result(
        &mut self,
        set: Result<(), Errno>,
        real: &[u8],
        name: &str,
        value: &[u8],
    ) -> Result<(), Fault> {
        match set {
            Ok(()) | Err(Errno::NOTSUP) => Ok(()),
            Err(Errno::PERM | Errno::ACCESS) => {
                if self.ownership == Ownership::SingleId {
                    let record = self.owners.entry(real.to_vec()).or_default();
                    let hex = value.iter().map(|b| format!("{b:02x}")).collect();
                    record.xattrs.insert(LayerPath(name.as_bytes().to_vec()), hex);
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives directories what would not have lasted, or have been in the way, before: children first.
    pub(super) fn finish(mut self) -> Result<Extracted> {
        let pending = std::mem::take(&mut self.tree.pending);
        for (path, last) in pending.iter().rev() {
            self.finish_directory(path, last).map_err(|fault| match fault {
                Fault::Whole(error) => error,
                Fault::Malformed(reason) => tar_error(self.layer, path, TarError::Malformed(reason)),
                Fault::System(errno) => Error::io(
                    "set the attributes of",
                    self.path.join(&*String::from_utf8_lossy(path)),
                    errno,
                ),
            })?;
        }
        let implicit = pending
            .into_iter()
            .filter(|(_, last)| !last.explicit)
            .map(|(path, _)| LayerPath(path));
        self.meta.implicit = implicit.collect();
        let root = self.meta.root.unwrap_or(Attributes {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
        });
        self.finish_root(root)
            .map_err(|e| Error::io("set the attributes of", self.path, e))?;
        if let Some(apart) = self.apart.take() {
            apart.finish()?;
        }
        Ok(Extracted {
            meta: self.meta,
            owners: self.owners,
        })
    }

    fn finish_root(&mut self, root: Attributes) -> Result<(), Errno> {
        let mode = match self.ownership {
            Ownership::Exact => root.mode,
            Ownership::SingleId => root.mode | 0o700,
        };
        if self.ownership == Ownership::Exact {
            let (uid, gid) = (Some(Uid::from_raw(root.uid)), Some(Gid::from_raw(root.gid)));
            rustix::fs::chownat(CWD, self.path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        } else {
            let record = OwnerRecord {
                uid: root.uid,
                gid: root.gid,
                ..OwnerRecord::default()
            };
            if !record.is_empty() {
                self.owners.insert(Vec::new(), record);
            }
        }
        rustix::fs::chmodat(CWD, self.path, Mode::from_raw_mode(mode), AtFlags::empty())?;
        rustix::fs::utimensat(CWD, self.path, &times(root.mtime), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn finish_directory(&mut self, path: &[u8], last: &Pending) -> Result<(), Fault> {
        let (above, name) = names::split(path);
        let Some(parent) = self.tree.find(above)? else {
            return Err(Fault::System(Errno::NOENT));
        };
        let needs_mode = match self.ownership {
            Ownership::Exact => !self.exact_modes || last.set_mode || last.mode & 0o6000 != 0,
            Ownership::SingleId => true,
        };
        if needs_mode || !last.xattrs.is_empty() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&parent.fd, name, flags, Mode::empty())?;
            for (name, value) in &last.xattrs {
                if let Some(name) = wanted_xattr(name) {
                    let set = rustix::fs::fsetxattr(&fd, name, value, XattrFlags::empty());
                    self.xattr_result(set, path, name, value)?;
                }
            }
            if let Some(apart) = &mut self.apart
                && self.ownership == Ownership::SingleId
                && last.mode & 0o500 != 0o500
            {
                apart.copy_tree(&fd, path, self.files)?;
            }
            if needs_mode {
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(last.mode))?;
            }
        }
        rustix::fs::utimensat(&parent.fd, name, &times(last.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

/// The attributes an image may carry. Overlayfs's own would steer the mount (redirect, metacopy), and the rest of
/// `security.` belongs to the host's policy.
fn wanted_xattr(name: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(name).ok()?;
    let overlay = name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.");
    let kept = name == "security.capability"
        || name.starts_with("user.")
        || name.starts_with("trusted.")
        || name.starts_with("system.posix_acl_");
    (kept && !overlay).then_some(name)
}

fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.0,
        tv_nsec: mtime.1.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
