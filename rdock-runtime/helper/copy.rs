//! Copying a tree of the image into a volume or a tmpfs. Both sides are walked by descriptor, no link is
//! followed, and it runs inside the container's mount namespace.

use crate::kernel::*;

/// Deeper trees are refused.
const DEEPEST: usize = 128;

/// Copies what is in the directory `from` into the directory `to`, with its own owner and mode.
pub fn tree(from: i32, to: i32) -> Result<()> {
    let from = reopen(from)?;
    let to = reopen(to)?;
    let done = directory(from, to, 0).and_then(|()| metadata(from, to));
    close(from);
    close(to);
    done
}

/// Fills a volume that was never used. `mark` is the file that says that it was used; it is made even when
/// there was nothing to copy.
pub fn into_volume(image: i32, volume: i32, mark: Text<'_>) -> Result<()> {
    if statat(AT_FDCWD, mark, AT_SYMLINK_NOFOLLOW).is_ok() {
        return Ok(());
    }
    // A mount point that was just made is a directory of no content: the volume keeps its own mode then.
    if fstat(image)?.is_dir() && is_empty(volume)? {
        tree(image, volume)?;
    }
    let made = openat(AT_FDCWD, mark, O_CREAT | O_WRONLY | O_NOFOLLOW, 0o600)?;
    close(made);
    Ok(())
}

fn reopen(directory: i32) -> Result<i32> {
    openat(directory, text!("."), O_RDONLY | O_DIRECTORY, 0)
}

fn is_empty(directory: i32) -> Result<bool> {
    let fd = reopen(directory)?;
    let mut found = false;
    let walked = entries(fd, &mut |_| {
        found = true;
        Ok(())
    });
    close(fd);
    walked.map(|()| !found)
}

/// Calls `each` with the name of every entry.
fn entries(directory: i32, each: &mut dyn FnMut(Text<'_>) -> Result<()>) -> Result<()> {
    let mut buffer = [0u8; 4096];
    loop {
        let filled = getdents(directory, &mut buffer)?;
        if filled == 0 {
            return Ok(());
        }
        let mut at = 0;
        while at + 19 < filled {
            let length = usize::from(u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]));
            let record = &buffer[at + 19..(at + length.max(20)).min(filled)];
            let end = record.iter().position(|&byte| byte == 0).ok_or(EPROTO)?;
            let name = Text::new(&record[..=end]);
            if name.bytes() != b"." && name.bytes() != b".." {
                each(name)?;
            }
            at += length.max(20);
        }
    }
}

fn directory(from: i32, to: i32, depth: usize) -> Result<()> {
    if depth == DEEPEST {
        return Err(ELOOP);
    }
    entries(from, &mut |name| entry(from, to, name, depth))
}

fn entry(from: i32, to: i32, name: Text<'_>, depth: usize) -> Result<()> {
    let stat = statat(from, name, AT_SYMLINK_NOFOLLOW)?;
    match stat.kind() {
        0o040000 => {
            let source = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)?;
            mkdirat(to, name, 0o700)?;
            let target = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)?;
            let done = directory(source, target, depth + 1).and_then(|()| metadata(source, target));
            close(source);
            close(target);
            done
        }
        0o100000 => {
            let source = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NOCTTY, 0)?;
            let target = openat(to, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600)?;
            let done = content(source, target).and_then(|()| metadata(source, target));
            close(source);
            close(target);
            done
        }
        0o120000 => {
            let mut target = [0u8; 4097];
            let length = readlinkat(from, name, &mut target[..4096])?;
            target[length] = 0;
            symlinkat(Text::new(&target[..=length]), to, name)?;
            owner(to, name, &stat)?;
            utimensat(to, name, &stat.times)
        }
        // A socket file has no meaning without its server.
        0o140000 => Ok(()),
        _ => {
            mknodat(to, name, stat.mode, device_number(stat.rdev.0, stat.rdev.1))?;
            owner(to, name, &stat)?;
            fchmodat(to, name, stat.mode & 0o7777)?;
            utimensat(to, name, &stat.times)
        }
    }
}

fn owner(at: i32, name: Text<'_>, stat: &Stat) -> Result<()> {
    match fchownat(at, name, stat.uid, stat.gid, AT_SYMLINK_NOFOLLOW) {
        // An id that a single-id user namespace does not have stays the caller's.
        Err(EINVAL | EPERM) if stat.uid == 65534 || stat.gid == 65534 => Ok(()),
        other => other,
    }
}

fn content(from: i32, to: i32) -> Result<()> {
    loop {
        match copy_range(from, to, 1 << 30) {
            Ok(0) => break,
            Ok(_) => {}
            // Not between these file systems.
            Err(EINVAL | ENOSYS | EOPNOTSUPP | 18) => return by_hand(from, to),
            Err(errno) => return Err(errno),
        }
    }
    // Some file systems end early without an error; reading finds the rest, if any.
    by_hand(from, to)
}

fn by_hand(from: i32, to: i32) -> Result<()> {
    let mut buffer = [0u8; 32 << 10];
    loop {
        let count = read(from, &mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        write_all(to, &buffer[..count])?;
    }
}

/// Extended attributes, owner, mode and times of an open file or directory.
fn metadata(from: i32, to: i32) -> Result<()> {
    let stat = fstat(from)?;
    let here = text!("");
    match fchownat(to, here, stat.uid, stat.gid, AT_EMPTY_PATH) {
        Err(EINVAL | EPERM) if stat.uid == 65534 || stat.gid == 65534 => {}
        other => other?,
    }
    let mut names = [0u8; 4096];
    let length = list_xattrs(from, &mut names).unwrap_or(0);
    let mut at = 0;
    while at < length {
        let end = names[at..length].iter().position(|&byte| byte == 0).map_or(length - 1, |found| at + found);
        let name = Text::new(&names[at..=end]);
        // What overlayfs keeps for itself belongs to the layer, not to the file.
        let overlay = name.bytes().starts_with(b"trusted.overlay.") || name.bytes().starts_with(b"user.overlay.");
        let mut value = [0u8; 8192];
        if !overlay {
            let size = get_xattr(from, name, &mut value)?;
            match set_xattr(to, name, &value[..size]) {
                Err(EPERM | EOPNOTSUPP) => {}
                other => other?,
            }
        }
        at = end + 1;
    }
    // The owner before the mode: a change of owner clears setuid bits.
    fchmod(to, stat.mode & 0o7777)?;
    futimens(to, &stat.times)
}
