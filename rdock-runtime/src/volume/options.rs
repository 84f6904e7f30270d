//! What a volume is asked to be: labels, and the options of docker's local driver.

use super::{VolumeError, VolumeInfo};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A volume to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeOptions {
    /// A random one, and the volume is anonymous, when `None`.
    pub name: Option<String>,
    /// Kept with the volume.
    pub labels: BTreeMap<String, String>,
    /// `type`, `o` and `device` of docker's local driver, which are those of mount(8): `type=none`, `o=bind`,
    /// `device=/path` shows a directory of the host; `type=tmpfs`, `device=tmpfs`, `o=size=64m,uid=1000` is
    /// memory, which every container has for itself. A directory of rdock's own without them.
    pub driver_options: BTreeMap<String, String>,
}

impl VolumeOptions {
    /// A volume of this name, for setters.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::default()
        }
    }

    /// Adds a label.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Adds an option of the local driver.
    pub fn driver_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.driver_options.insert(name.into(), value.into());
        self
    }
}

/// Where a volume's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Backing {
    /// In its own directory.
    Own,
    /// In a directory of the host.
    Bind { path: PathBuf, read_only: bool },
    /// In memory, with these options of tmpfs(5).
    Tmpfs {
        options: Vec<String>,
        flags: crate::launch::MountFlags,
    },
}

impl Backing {
    /// What the options of the local driver mean.
    pub(crate) fn of(name: &str, options: &BTreeMap<String, String>) -> Result<Self, VolumeError> {
        let wrong = |reason: String| VolumeError::InvalidOption {
            name: name.to_owned(),
            reason,
        };
        if let Some(unknown) = options
            .keys()
            .find(|key| !matches!(key.as_str(), "type" | "o" | "device"))
        {
            return Err(wrong(format!("{unknown:?} is none of type, o and device")));
        }
        let get = |key: &str| {
            options
                .get(key)
                .map(String::as_str)
                .filter(|text| !text.is_empty())
        };
        let words: Vec<&str> = get("o")
            .unwrap_or_default()
            .split(',')
            .filter(|word| !word.is_empty())
            .collect();
        let binds = words.iter().any(|word| matches!(*word, "bind" | "rbind"));
        match (get("type"), get("device")) {
            (None, None) if words.is_empty() => Ok(Self::Own),
            (None, _) if !binds => Err(wrong("option type is missing".into())),
            (Some("tmpfs"), _) => {
                let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
                let (options, flags) = crate::plan::volume_in_memory(&words).map_err(wrong)?;
                Ok(Self::Tmpfs { options, flags })
            }
            (_, None) => Err(wrong("option device is missing".into())),
            (_, Some(device)) if binds => {
                if !device.starts_with('/') || device.contains('\0') {
                    return Err(wrong(format!("device {device:?} is not an absolute path")));
                }
                if let Some(word) = words
                    .iter()
                    .find(|word| !matches!(**word, "bind" | "rbind" | "ro" | "rw"))
                {
                    return Err(wrong(format!("{word:?} is none of bind, rbind, ro and rw")));
                }
                Ok(Self::Bind {
                    path: PathBuf::from(device),
                    read_only: words.contains(&"ro"),
                })
            }
            (Some(kind), _) => Err(wrong(format!(
                "type {kind:?} is not supported: none with o=bind, or tmpfs"
            ))),
            (None, Some(_)) => Err(wrong("option type is missing".into())),
        }
    }
}

impl VolumeInfo {
    /// Where its files are. The options were checked when it was made.
    pub(crate) fn backing(&self) -> Result<Backing, VolumeError> {
        Backing::of(&self.name, &self.driver_options)
    }

    /// The directory with its files, when the host has one.
    pub(crate) fn directory(&self) -> Result<Option<PathBuf>, VolumeError> {
        Ok(match self.backing()? {
            Backing::Own => Some(self.mountpoint.clone()),
            Backing::Bind { path, .. } => Some(path),
            Backing::Tmpfs { .. } => None,
        })
    }

    /// Bytes that its files occupy; 0 for one that is not a directory of rdock's own.
    ///
    /// # Errors
    /// When a directory in it cannot be read.
    pub fn size(&self) -> Result<u64, VolumeError> {
        match self.backing()? {
            Backing::Own => occupied(&self.mountpoint),
            _ => Ok(0),
        }
    }
}

/// Bytes of disk of what is below `path`; what vanishes meanwhile does not count.
fn occupied(path: &Path) -> Result<u64, VolumeError> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    let mut seen = std::collections::BTreeSet::new();
    let mut pending = vec![path.to_owned()];
    while let Some(dir) = pending.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(VolumeError::io("list", &dir))?,
        };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                pending.push(entry.path());
            } else if meta.nlink() < 2 || seen.insert((meta.dev(), meta.ino())) {
                sum += meta.blocks() * 512;
            }
        }
    }
    Ok(sum)
}
