//! Cache mounts: directories that outlive a build.
use super::{Cache, Hold, Key, KeyLock, make_dir};
use crate::dockerfile::Sharing;
use crate::error::{BuildError, Result};
use rdock_image::Stop;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};
use std::path::{Path, PathBuf};

/// A cache mount in use. Nobody removes it while this is held.
#[derive(Debug)]
pub(crate) struct CacheMount {
    /// The directory to mount.
    pub(crate) path: PathBuf,
    /// Of all its directories, against removal, and of this one.
    _locks: [KeyLock; 2],
}

/// How many steps may use a private cache at one time.
const INSTANCES: usize = 256;

impl Cache {
    /// Takes the cache mount of `identity` (id, source, owner and mode together). `fill` fills a new one.
    pub(crate) fn mount(
        &self,
        identity: &Key,
        sharing: Sharing,
        (mode, uid, gid): (u32, u32, u32),
        stop: &Stop,
        fill: &dyn Fn(&Path) -> Result<()>,
    ) -> Result<CacheMount> {
        let dir = self.dir("mounts").join(identity.as_str());
        let kept = loop {
            make_dir(&dir)?;
            match KeyLock::keep_dir(&dir, stop) {
                Ok(Some(kept)) => break kept,
                // It was being removed.
                Ok(None) => {}
                Err(BuildError::Files { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        };
        let (number, lock) = Self::instance(&dir, sharing, stop)?;
        let path = dir.join(number.to_string());
        if !path.exists() {
            let scratch = dir.join(format!("{number}-{}.new", super::random_name()?));
            let made = (|| {
                make_dir(&scratch)?;
                fill(&scratch)?;
                let given = (|| {
                    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                    if rustix::process::geteuid().is_root() {
                        rustix::fs::chownat(CWD, &scratch, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
                    }
                    rustix::fs::chmod(&scratch, Mode::from_raw_mode(mode & 0o7777))
                })();
                given.map_err(|errno| BuildError::files("set the mode of", &scratch)(errno.into()))
            })();
            // Two that share it may both make it: one of them comes first.
            let renamed = made.and_then(|()| {
                match rustix::fs::renameat_with(CWD, &scratch, CWD, &path, rustix::fs::RenameFlags::NOREPLACE)
                {
                    Ok(()) => Ok(()),
                    Err(rustix::io::Errno::EXIST) => remove(&scratch),
                    Err(errno) => Err(BuildError::files("rename", &scratch)(errno.into())),
                }
            });
            if renamed.is_err() {
                let _ = remove(&scratch);
            }
            renamed?;
        }
        Ok(CacheMount {
            path,
            _locks: [kept, lock],
        })
    }

    /// Which of the directories of a cache mount to use, and its lock.
    fn instance(dir: &Path, sharing: Sharing, stop: &Stop) -> Result<(usize, KeyLock)> {
        let path = |number: usize| dir.join(format!("{number}.lock"));
        if sharing == Sharing::Private {
            for number in 0..INSTANCES {
                if let Some(lock) = KeyLock::try_take(&path(number), false, Hold::Alone)? {
                    return Ok((number, lock));
                }
            }
        }
        let hold = match sharing {
            Sharing::Shared => Hold::Shared,
            Sharing::Private | Sharing::Locked => Hold::Alone,
        };
        Ok((0, KeyLock::take(&path(0), false, hold, stop)?))
    }

    /// Removes directories of a cache mount that were being filled by builds that were killed.
    pub(super) fn sweep_mount(dir: &Path) {
        for path in super::entries(dir) {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let Some((number, _)) = name.strip_suffix(".new").and_then(|name| name.split_once('-')) else {
                continue;
            };
            // Who fills it has this lock.
            let lock = dir.join(format!("{number}.lock"));
            if let Ok(Some(_lock)) = KeyLock::try_take(&lock, false, Hold::Alone) {
                let _ = remove(&path);
            }
        }
    }
}

pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(BuildError::files("remove", path)(error))
        }
        _ => Ok(()),
    }
}
