//! What this user may do with files of the store, found by trying.
use super::meta::Ownership;
use crate::{Error, Result};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, XattrFlags, makedev};
use std::fs;
use std::path::Path;

pub(crate) const TRUSTED_OPAQUE: &str = "trusted.overlay.opaque";
pub(crate) const USER_OPAQUE: &str = "user.overlay.opaque";

/// Finds out in `scratch`, a name that does not exist yet, whether owners, devices and overlay's trusted
/// attributes can be made. Root inside a user namespace often may not.
pub(crate) fn probe(scratch: &Path) -> Result<Ownership> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Ownership::SingleId);
    }
    crate::layout::make_dir_all(scratch)?;
    let result = (|| -> rustix::io::Result<()> {
        let node = scratch.join("node");
        rustix::fs::mknodat(
            CWD,
            &node,
            FileType::CharacterDevice,
            Mode::empty(),
            makedev(1, 3),
        )?;
        rustix::fs::chownat(
            CWD,
            &node,
            Some(Uid::from_raw(65534)),
            Some(Gid::from_raw(65534)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        let dir = rustix::fs::open(
            scratch,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::fs::fsetxattr(&dir, TRUSTED_OPAQUE, b"y", XattrFlags::empty())
    })();
    fs::remove_dir_all(scratch).map_err(|e| Error::io("remove", scratch, e))?;
    Ok(if result.is_ok() {
        Ownership::Exact
    } else {
        Ownership::SingleId
    })
}
