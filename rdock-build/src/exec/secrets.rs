//! Secrets: never in a layer, in history, in a cache key or on a disk.
use crate::cache::random_name;
use crate::error::{BuildError, Result};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where a secret comes from. It is read when the first step needs it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Secret {
    /// A file of the host.
    File(PathBuf),
    /// The bytes themselves.
    Value(Vec<u8>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(..)"),
        }
    }
}

/// As in BuildKit.
const LARGEST: u64 = 500 << 10;

impl Secret {
    pub(crate) fn read(&self, id: &str) -> Result<Vec<u8>> {
        let bytes = match self {
            Self::Value(bytes) => bytes.clone(),
            Self::File(path) => {
                let mut bytes = Vec::new();
                fs::File::open(path)
                    .and_then(|file| {
                        std::io::Read::read_to_end(&mut std::io::Read::take(file, LARGEST + 1), &mut bytes)
                    })
                    .map_err(BuildError::files("read the secret", path))?;
                bytes
            }
        };
        match bytes.len() as u64 > LARGEST {
            true => Err(BuildError::Option {
                option: "secret",
                reason: format!("{id:?} is larger than {LARGEST} bytes"),
            }),
            false => Ok(bytes),
        }
    }
}

/// Files in the host's memory, bound into a container and gone from the host as soon as it runs.
#[derive(Debug)]
pub(crate) struct SecretFiles(PathBuf);

/// A file system in memory that every Linux host has.
const MEMORY: &str = "/dev/shm";

/// What the folder of a build begins with, before its process; others of ours there are the runtime's.
const PREFIX: &str = "rdock-build-";

impl SecretFiles {
    pub(crate) fn new() -> Result<Self> {
        let name = format!("{PREFIX}{}-{}", std::process::id(), random_name()?);
        let dir = Path::new(MEMORY).join(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(BuildError::files("create", &dir))?;
        Ok(Self(dir))
    }

    /// Writes a secret and returns its path.
    pub(crate) fn add(
        &self,
        number: usize,
        bytes: &[u8],
        (mode, uid, gid): (u32, u32, u32),
    ) -> Result<PathBuf> {
        let path = self.0.join(number.to_string());
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(BuildError::files("write", &path))?;
        let given = (|| {
            if rustix::process::geteuid().is_root() {
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                rustix::fs::chownat(CWD, &path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            rustix::fs::chmod(&path, Mode::from_raw_mode(mode & 0o7777))
        })();
        given.map_err(|errno| BuildError::files("set the mode of", &path)(errno.into()))?;
        Ok(path)
    }
}

impl Drop for SecretFiles {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what builds that were killed left in memory.
pub(crate) fn sweep() {
    sweep_in(Path::new(MEMORY));
}

fn sweep_in(memory: &Path) {
    let Ok(entries) = fs::read_dir(memory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        let pid = rest.split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        if let Some(pid) = pid
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            // What cannot be removed now is tried again by the next build.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Larger than any process has: the kernel's limit is 2^22.
    const NOBODY: u32 = (1 << 22) + 1;

    #[test]
    fn only_what_dead_builds_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let living = format!("{PREFIX}{}-0", std::process::id());
        let stays = [
            // Where the runtime has the secrets of a user's containers, whoever's number that is.
            "rdock-0".to_owned(),
            format!("rdock-{NOBODY}"),
            format!("rdock-{NOBODY}-0"),
            format!("{PREFIX}other"),
            format!("other-{NOBODY}-0"),
            living,
        ];
        let goes = format!("{PREFIX}{NOBODY}-0");
        for name in stays.iter().chain([&goes]) {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("secret"), "x").unwrap();
        }
        sweep_in(dir.path());
        assert!(
            stays
                .iter()
                .all(|name| dir.path().join(name).join("secret").exists())
        );
        assert!(!dir.path().join(goes).exists());
    }

    #[test]
    fn secrets_are_in_a_folder_of_the_builds_own_and_leave_with_it() {
        let files = SecretFiles::new().unwrap();
        let name = files.0.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with(&format!("rdock-build-{}-", std::process::id())));
        // The runtime's folders are called after users.
        assert!(name.strip_prefix("rdock-").unwrap().parse::<u32>().is_err());
        let path = files.add(0, b"x", (0o400, 0, 0)).unwrap();
        sweep();
        assert_eq!(fs::read(&path).unwrap(), b"x");
        drop(files);
        assert!(!path.exists());
    }
}
