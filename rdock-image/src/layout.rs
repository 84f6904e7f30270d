//! The store's directory: the only file that spells on-disk names, and how files appear there.
//!
//! `FORMAT.md` describes the same in words.
use crate::lock::Owner;
use crate::{Digest, Error, Reference, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The newest format this version reads and the one it writes.
pub(crate) const FORMAT: u64 = 1;

/// How much is forced to the disk before something is called present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: after a power loss the store may hold garbled files. Meant for caches that can be thrown away.
    None,
    /// Blobs and names when they are written; the layers of an image by one `syncfs` at its commit. A layer that
    /// was not yet forced to the disk when the machine went down is not trusted afterwards.
    #[default]
    Image,
    /// As [`Durability::Image`], and each layer by a `syncfs` of its own as soon as it is there: after a power loss a
    /// pull that was cut off begins with the first missing layer.
    Layer,
}

/// Names within `<root>/image`.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    pub(crate) durability: Durability,
}

impl Layout {
    /// Opens `<root>/image`, making what is missing, readable by its owner only.
    pub(crate) fn open(root: &Path, durability: Durability) -> Result<Self> {
        make_dir_all(root)?;
        let root = fs::canonicalize(root)
            .map_err(|e| Error::io("resolve", root, e))?
            .join("image");
        let layout = Self { root, durability };
        let ready = match fs::read_to_string(layout.root.join("format")) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("read", layout.root.join("format"), error)),
        };
        match ready {
            Some(text) => {
                let found = text.trim().parse::<u64>().map_err(|_| {
                    Error::document(format!("{}/format", layout.root.display()), "not a number")
                })?;
                if found > FORMAT {
                    return Err(Error::NewerFormat {
                        path: layout.root,
                        found,
                        known: FORMAT,
                    });
                }
            }
            None => {
                for name in [
                    "blobs/sha256",
                    "layers",
                    "chains",
                    "snapshots",
                    "refs",
                    "ids",
                    "leases",
                    "ingest",
                    "trash",
                ] {
                    make_dir_all(&layout.root.join(name))?;
                }
                // Last, so that a store with a format file has all its directories.
                layout.replace(&layout.root.join("format"), format!("{FORMAT}\n").as_bytes())?;
            }
        }
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root
            .join("blobs")
            .join(digest.algorithm())
            .join(digest.hex())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    pub(crate) fn chains(&self) -> PathBuf {
        self.root.join("chains")
    }

    pub(crate) fn chain(&self, chain_id: &Digest) -> PathBuf {
        self.root.join("chains").join(chain_id.hex())
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn snapshot(&self, id: &str) -> PathBuf {
        self.root.join("snapshots").join(id)
    }

    pub(crate) fn refs(&self) -> PathBuf {
        self.root.join("refs")
    }

    /// A tag's file: characters that a file name should not have are escaped, a name too long is hashed.
    pub(crate) fn reference(&self, name: &Reference) -> PathBuf {
        self.refs().join(escape(name.as_str()))
    }

    /// The file that keeps an image without a tag.
    pub(crate) fn dangling(&self, manifest: &Digest) -> PathBuf {
        self.refs().join(format!("@{}", manifest.hex()))
    }

    /// The note of a name that leads to the image of this id; the directory is made with the first.
    pub(crate) fn id_note(&self, id: &Digest) -> PathBuf {
        self.id_notes().join(id.hex())
    }

    pub(crate) fn id_notes(&self) -> PathBuf {
        self.root.join("ids")
    }

    /// Names of layers that belong to no image; made when the first is kept.
    pub(crate) fn kept(&self) -> PathBuf {
        self.root.join("kept")
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// A fresh name in `ingest/`. It says which process works there, so that a sweep knows what the dead left.
    pub(crate) fn scratch(&self, suffix: &str) -> Result<PathBuf> {
        let name = format!("{}-{}{suffix}", random_name()?, Owner::current().mark());
        Ok(self.ingest().join(name))
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// Writes `bytes` to a new file in `ingest/`; it is removed again when that fails.
    pub(crate) fn write_scratch(&self, bytes: &[u8], mode: u32) -> Result<PathBuf> {
        let path = self.scratch(".tmp")?;
        let written = (|| {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(mode).open(&path)?;
            file.write_all(bytes)?;
            self.sync_file(&file)
        })();
        match written {
            Ok(()) => Ok(path),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(Error::io("write", path, error))
            }
        }
    }

    /// Makes `path` hold `bytes`, whatever it held before.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let scratch = self.write_scratch(bytes, 0o600)?;
        if let Err(error) = fs::rename(&scratch, path) {
            let _ = fs::remove_file(&scratch);
            return Err(Error::io("rename", path, error));
        }
        self.sync_parent(path)
    }

    /// As [`Layout::replace`] for what may be gone after a power loss: nothing waits for the disk. The directory is
    /// made where it is missing.
    pub(crate) fn replace_unsynced(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        make_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        let scratch = self.scratch(".tmp")?;
        let written = fs::write(&scratch, bytes).and_then(|()| fs::rename(&scratch, path));
        written.map_err(|error| {
            let _ = fs::remove_file(&scratch);
            Error::io("write", path, error)
        })
    }

    /// Gives a finished file or directory its final name, unless that exists: then `false`, and `scratch` stays.
    pub(crate) fn publish(&self, scratch: &Path, name: &Path) -> Result<bool> {
        let renamed = match rustix::fs::renameat_with(CWD, scratch, CWD, name, RenameFlags::NOREPLACE) {
            // The file system has no RENAME_NOREPLACE: a directory only replaces an empty one, which no
            // published directory is; a file is linked.
            Err(Errno::INVAL | Errno::NOSYS) if scratch.is_dir() => rustix::fs::rename(scratch, name),
            Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::linkat(CWD, scratch, CWD, name, AtFlags::empty())
                .and_then(|()| rustix::fs::unlink(scratch)),
            other => other,
        };
        match renamed {
            Ok(()) => self.sync_parent(name).map(|()| true),
            Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
            Err(error) => Err(Error::io("rename", name, error)),
        }
    }

    /// As [`Layout::publish`] for what need not outlive a power loss.
    pub(crate) fn publish_unsynced(&self, scratch: &Path, name: &Path) -> Result<bool> {
        match rustix::fs::renameat_with(CWD, scratch, CWD, name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
            Err(_) => self.publish(scratch, name),
        }
    }

    pub(crate) fn sync_file(&self, file: &File) -> std::io::Result<()> {
        match self.durability {
            Durability::None => Ok(()),
            Durability::Image | Durability::Layer => file.sync_data(),
        }
    }

    pub(crate) fn sync_parent(&self, path: &Path) -> Result<()> {
        if self.durability == Durability::None {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| Error::io("sync", parent, e))
    }

    /// Forces everything written to the store's file system to the disk.
    pub(crate) fn sync_all(&self) -> Result<()> {
        if self.durability == Durability::None {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.root, flags, Mode::empty())
            .map_err(|e| Error::io("open", &self.root, e))?;
        rustix::fs::syncfs(&dir).map_err(|e| Error::io("sync", &self.root, e))
    }
}

/// Makes a directory and its parents; new ones are readable by their owner only.
pub(crate) fn make_dir_all(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Error::io("create", path, e))
}

/// 32 random hexadecimal digits.
pub(crate) fn random_name() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::io("read", "/dev/urandom", std::io::Error::other(e.to_string())))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// This boot's id, which changes with every start of the machine.
pub(crate) fn boot_id() -> &'static str {
    static BOOT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    BOOT.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|t| t.trim().to_owned())
            .unwrap_or_default()
    })
}

fn escape(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 16);
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b':' | b'[' | b']' => {
                text.push(byte as char)
            }
            other => text.push_str(&format!("%{other:02x}")),
        }
    }
    if text.len() > 255 {
        let hash = Digest::sha256_of(name.as_bytes());
        text.truncate(180);
        text.push('~');
        text.push_str(hash.hex());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(Layout::open(dir.path(), Durability::None).unwrap());
        fs::write(dir.path().join("image/format"), "2\n").unwrap();
        let error = Layout::open(dir.path(), Durability::None).unwrap_err();
        assert!(matches!(error, Error::NewerFormat { found: 2, .. }), "{error}");
    }

    #[test]
    fn the_store_is_closed_to_other_users() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(&dir.path().join("new"), Durability::None).unwrap();
        for path in [
            layout.root().to_owned(),
            layout.layers(),
            layout.blobs(),
            layout.snapshots(),
        ] {
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o700,
                "{path:?}"
            );
        }
    }

    #[test]
    fn file_names_of_tags_differ_and_fit() {
        let long = format!("a.b/{}:{}", "c".repeat(250), "d".repeat(128));
        let other = format!("a.b/{}:{}", "c".repeat(250), "d".repeat(127));
        assert!(escape(&long).len() <= 255 && escape(&long) != escape(&other));
        assert_eq!(
            escape("docker.io/library/a:b@sha256:0"),
            "docker.io%2flibrary%2fa:b%40sha256:0"
        );
    }

    #[test]
    fn publishing_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path(), Durability::None).unwrap();
        let first = layout.write_scratch(b"1", 0o444).unwrap();
        let second = layout.write_scratch(b"2", 0o444).unwrap();
        let name = layout.blob(&Digest::sha256_of(b"1"));
        assert!(layout.publish(&first, &name).unwrap());
        assert!(!layout.publish(&second, &name).unwrap());
        assert_eq!(fs::read(&name).unwrap(), b"1");
    }
}
