//! Paths inside the new root: opened there, and made where they are missing.

use super::{IN_ROOT, Root};
use crate::kernel::*;

impl Root {
    /// Opens the path inside the root; makes what is missing, one component at a time. A link that leads to what is
    /// not there yet is followed as the kernel would: inside the root.
    pub(super) fn target(&self, path: Text<'_>, want: Want, resolve: u64) -> Result<i32> {
        match open_in(self.fd, path, O_PATH, 0, resolve) {
            Err(ENOENT) => {}
            other => return other,
        }
        let mut whole = LongPath::new(path.bytes())?;
        // As many links as the kernel follows in one path.
        for _ in 0..40 {
            match self.make(&whole, want, resolve)? {
                Made::Here(fd) => return Ok(fd),
                Made::Behind(next) => whole = next,
            }
        }
        Err(ELOOP)
    }

    /// One walk along the path: to its end, or to a link whose place is taken by where it leads.
    fn make(&self, path: &LongPath, want: Want, resolve: u64) -> Result<Made> {
        let bytes = path.bytes();
        let mut prefix = [0u8; 4096];
        let mut parent = open_in(self.fd, text!("/"), O_PATH | O_DIRECTORY, 0, resolve)?;
        let mut at = 0;
        while at < bytes.len() {
            let end = bytes[at..].iter().position(|&byte| byte == b'/').map_or(bytes.len(), |found| at + found);
            let last = bytes[end..].iter().all(|&byte| byte == b'/');
            if end > at {
                prefix[..end].copy_from_slice(&bytes[..end]);
                prefix[end] = 0;
                let so_far = Text::new(&prefix[..end + 1]);
                let next = match open_in(self.fd, so_far, O_PATH, 0, resolve) {
                    Err(ENOENT) => {
                        let mut name = [0u8; 256];
                        let length = end - at;
                        if length >= name.len() {
                            return Err(E2BIG);
                        }
                        name[..length].copy_from_slice(&bytes[at..end]);
                        let name = Text::new(&name[..length + 1]);
                        let made = match want {
                            Want::File if last => {
                                openat(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o644).map(close)
                            }
                            Want::Directory(mode) if last => mkdirat(parent, name, mode),
                            _ => mkdirat(parent, name, 0o755),
                        };
                        match made {
                            Ok(()) => open_in(self.fd, so_far, O_PATH, 0, resolve)?,
                            Err(EEXIST) => {
                                let behind = path.behind_link(parent, name, at, end);
                                close(parent);
                                return behind.map(Made::Behind);
                            }
                            Err(errno) => return Err(errno),
                        }
                    }
                    other => other?,
                };
                close(parent);
                parent = next;
            }
            at = end + 1;
        }
        Ok(Made::Here(parent))
    }

    /// The directory that holds the last component, and that component with its NUL.
    pub(super) fn parent(&self, path: Text<'_>) -> Result<(i32, Name)> {
        let bytes = path.bytes();
        let slash = bytes.iter().rposition(|&byte| byte == b'/').ok_or(EINVAL)?;
        let mut name = Name { bytes: [0; 256], length: bytes.len() - slash };
        if name.length >= 256 || name.length < 2 {
            return Err(EINVAL);
        }
        name.bytes[..name.length - 1].copy_from_slice(&bytes[slash + 1..]);
        let mut copy = [0u8; 4096];
        if slash >= copy.len() {
            return Err(E2BIG);
        }
        copy[..slash.max(1)].copy_from_slice(&bytes[..slash.max(1)]);
        let parent = self.target(Text::new(&copy[..slash.max(1) + 1]), Want::Directory(0o755), IN_ROOT)?;
        Ok((parent, name))
    }
}

/// One component with its NUL.
pub(super) struct Name {
    bytes: [u8; 256],
    length: usize,
}

impl core::ops::Deref for Name {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Where a walk along a path has come to.
enum Made {
    Here(i32),
    Behind(LongPath),
}

/// A path that is changed while it is walked.
struct LongPath {
    bytes: [u8; 4096],
    length: usize,
}

impl LongPath {
    fn new(path: &[u8]) -> Result<Self> {
        let mut new = Self { bytes: [0; 4096], length: 0 };
        new.push(path)?;
        Ok(new)
    }
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
    fn push(&mut self, more: &[u8]) -> Result<()> {
        let end = self.length + more.len();
        // A NUL must fit behind it.
        if end >= self.bytes.len() {
            return Err(E2BIG);
        }
        self.bytes[self.length..end].copy_from_slice(more);
        self.length = end;
        Ok(())
    }

    /// This path with the component from `at` to `end` as the link `name` says; as it is, when somebody else has
    /// just made that component.
    fn behind_link(&self, parent: i32, name: Text<'_>, at: usize, end: usize) -> Result<Self> {
        let mut link = [0u8; 4096];
        let length = match readlinkat(parent, name, &mut link) {
            Err(EINVAL | ENOENT) => return Self::new(self.bytes()),
            other => other?,
        };
        let mut behind = Self::new(if link[0] == b'/' { b"" } else { &self.bytes()[..at] })?;
        behind.push(&link[..length])?;
        behind.push(&self.bytes()[end..])?;
        Ok(behind)
    }
}

/// What to make where nothing is.
#[derive(Clone, Copy)]
pub(super) enum Want {
    Directory(u32),
    File,
}
