//! Removal of trees that somebody else filled: no symlink is followed, no depth exhausts descriptors or the
//! stack, and modes that forbid it are changed where this user may.
use crate::{Error, Result};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::path::Path;

/// A directory this deep is first moved up.
const DEPTH: usize = 48;

/// Removes the tree at `path`; one that is gone already is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::io("remove", path, Errno::INVAL));
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(parent, flags, Mode::empty()).map_err(|e| Error::io("open", parent, e))?;
    match remove_child(dir.as_fd(), name.as_encoded_bytes()) {
        Ok(()) => Ok(()),
        Err(Errno::PERM | Errno::ACCESS) => Err(Error::NeedsUserNamespace {
            path: path.to_owned(),
        }),
        Err(error) => Err(Error::io("remove", path, error)),
    }
}

/// Removes `name` in `parent`, whatever it is.
pub(crate) fn remove_child(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let mut moved = Vec::new();
    remove_at(parent, name, parent, name, 0, &mut moved)?;
    // What was moved up may itself be deep.
    moved.iter().try_for_each(|name| remove_child(parent, name))
}

fn moved_name(name: &[u8], number: usize) -> Vec<u8> {
    let mut moved = name[..name.len().min(200)].to_vec();
    moved.extend_from_slice(format!("~{number}").as_bytes());
    moved
}

fn remove_at(
    parent: BorrowedFd<'_>,
    name: &[u8],
    top: BorrowedFd<'_>,
    top_name: &[u8],
    depth: usize,
    moved: &mut Vec<Vec<u8>>,
) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    if rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) == Ok(()) {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ACCESS) => {
            allow(parent, name)?;
            rustix::fs::openat(parent, name, flags, Mode::empty())?
        }
        other => other?,
    };
    // Removing needs write and search permission, which only non-root users can lack.
    if !rustix::process::geteuid().is_root() {
        let stat = rustix::fs::fstat(&dir)?;
        if stat.st_mode & 0o700 != 0o700 && stat.st_uid == rustix::process::geteuid().as_raw() {
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o700))?;
        }
    }
    if depth >= DEPTH {
        let mut number = moved.len();
        loop {
            let target = moved_name(top_name, number);
            match rustix::fs::renameat_with(parent, name, top, &target[..], RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => number += 1,
                Err(error) => return Err(error),
                Ok(()) => {
                    moved.push(target);
                    return Ok(());
                }
            }
        }
    }
    let mut entries = Dir::read_from(&dir)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if child == b"." || child == b".." {
            continue;
        }
        // A file needs one call only; what the directory says of the kind is just a hint.
        if entry.file_type() != FileType::Directory
            && matches!(
                rustix::fs::unlinkat(&dir, child, AtFlags::empty()),
                Ok(()) | Err(Errno::NOENT)
            )
        {
            continue;
        }
        remove_at(dir.as_fd(), child, top, top_name, depth + 1, moved)?;
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a directory that its owner cannot open accessible.
fn allow(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Errno::NOTDIR);
    }
    // Only the owner succeeds; a symlink swapped in could only be changed if it led to a file of this user.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
    rustix::fs::chmod(through, Mode::from_raw_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn symlinks_are_removed_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("keep"), "x").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && outside.join("keep").exists());
        remove_tree(&tree).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_a_path_can_be_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deep", Mode::from_raw_mode(0o755)).unwrap();
            at = rustix::fs::openat(&at, "deep", flags, Mode::empty()).unwrap();
        }
        remove_tree(&dir.path().join("deep")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn directories_without_permissions_are_removed_by_their_owner() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("work")).unwrap();
        fs::write(tree.join("work/file"), "x").unwrap();
        fs::set_permissions(tree.join("work"), fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
