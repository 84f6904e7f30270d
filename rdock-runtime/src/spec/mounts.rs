//! What is mounted into a container, and the words of `-v`, `--mount` and `--tmpfs`.

use super::{ParseError, parse_size};
use crate::identity::{NAME_GRAMMAR, is_name};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Something mounted into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mount {
    /// Absolute path inside the container.
    pub target: String,
    /// Where it comes from.
    pub source: MountSource,
    /// Cannot be written.
    pub read_only: bool,
    /// What becomes of the mounts below the source of a bind.
    #[serde(default, skip_serializing_if = "BindRecursion::is_default")]
    pub recursion: BindRecursion,
    /// Labels of the volume, where this mount makes it: those of one that is there stay as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volume_labels: BTreeMap<String, String>,
}

/// What becomes of the mounts below the source of a bind: docker's `bind-recursive`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BindRecursion {
    /// They are there too, and as read-only as the bind where the kernel can do that (Linux 5.12).
    #[default]
    Enabled,
    /// They are not there. Without root, where mounts cannot be taken off what they hide, that cannot be had.
    Disabled,
    /// They are there, and as writable as on the host: only for a read-only bind.
    Writable,
    /// They are there and read-only, or the container is refused: only for a read-only bind.
    #[serde(rename = "readonly")]
    ReadOnly,
}

impl BindRecursion {
    /// Reads docker's word for it: `enabled`, `disabled`, `writable` or `readonly`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "enabled" => Self::Enabled,
            "disabled" => Self::Disabled,
            "writable" => Self::Writable,
            "readonly" => Self::ReadOnly,
            _ => return None,
        })
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::Enabled
    }
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MountSource {
    /// A directory or file of an image (docker's `type=image`), which is pulled when it is missing. What is written to it
    /// is thrown away with the container.
    Image {
        /// Its reference or id.
        reference: String,
        /// Relative, without `..`; the whole tree when `None`.
        subpath: Option<PathBuf>,
    },
    /// A directory or file of layers in the image store, as docker's `type=image` has it. What is written to it is
    /// thrown away with the container.
    Layers {
        /// The base first.
        diff_ids: Vec<rdock_image::Digest>,
        /// Relative, without `..`; the whole tree when `None`.
        subpath: Option<PathBuf>,
    },
    /// A file or directory of the host.
    Bind {
        /// Absolute, or relative to the working directory of the caller at `start`.
        path: PathBuf,
        /// Makes a missing directory (docker's `-v`); otherwise a missing source is an error (`--mount`).
        create: bool,
        /// `private`, `rprivate`, `slave`, `rslave`, `shared`, `rshared`.
        propagation: Option<String>,
    },
    /// A named volume, made when missing; anonymous (removed with the container) when `None`.
    Volume {
        /// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`
        name: Option<String>,
        /// Do not fill an empty volume with what the image has at the target.
        no_copy: bool,
        /// A directory inside the volume.
        subpath: Option<PathBuf>,
    },
    /// Memory.
    Tmpfs {
        /// Bytes; half of the memory when `None`.
        size: Option<u64>,
        /// Mode of its root directory; that of the image's directory at the target when `None`, 1777 where
        /// there is none.
        mode: Option<u32>,
        /// More mount options, each as mount(8) writes them (`noexec`, `uid=1000`).
        options: Vec<String>,
    },
}

/// Another container whose volumes and binds a container gets too, where it has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VolumesFrom {
    /// Name or id.
    pub container: String,
    /// Read-only or not, whatever they are there; as there when `None`.
    pub read_only: Option<bool>,
    /// Its anonymous volumes: they go with the last of their containers. Filled in when the container is made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub anonymous: Vec<String>,
}

impl VolumesFrom {
    /// Those of this container, as it has them.
    pub fn new(container: impl Into<String>) -> Self {
        Self {
            container: container.into(),
            read_only: None,
            anonymous: Vec::new(),
        }
    }

    /// Parses docker's `--volumes-from`: `CONTAINER[:ro|:rw]`.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let error = |reason: &str| ParseError::new("volumes of a container", text, reason);
        let (container, mode) = text.split_once(':').unwrap_or((text, ""));
        let mut from = Self::new(container);
        from.read_only = match mode {
            "" if !text.ends_with(':') => None,
            "ro" => Some(true),
            // SELinux labels change nothing here.
            "rw" | "z" | "Z" => Some(false),
            _ => return Err(error("behind the colon is ro or rw")),
        };
        if container.is_empty() {
            return Err(error("no container is named"));
        }
        Ok(from)
    }
}

impl Mount {
    /// A mount of `source` at `target`, for what the shorter constructors leave at its default.
    pub fn new(source: MountSource, target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            source,
            read_only: false,
            recursion: BindRecursion::default(),
            volume_labels: BTreeMap::new(),
        }
    }
    /// A bind of `source` (must exist) at `target`.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<String>) -> Self {
        let source = MountSource::Bind {
            path: source.into(),
            create: false,
            propagation: None,
        };
        Self::new(source, target)
    }
    /// The named volume at `target`.
    pub fn volume(name: impl Into<String>, target: impl Into<String>) -> Self {
        let source = MountSource::Volume {
            name: Some(name.into()),
            no_copy: false,
            subpath: None,
        };
        Self::new(source, target)
    }
    /// An empty tmpfs at `target`.
    pub fn tmpfs(target: impl Into<String>) -> Self {
        let source = MountSource::Tmpfs {
            size: None,
            mode: None,
            options: Vec::new(),
        };
        Self::new(source, target)
    }
    /// Cannot be written.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
    /// Says what becomes of the mounts below the source of a bind.
    pub fn recursion(mut self, recursion: BindRecursion) -> Self {
        self.recursion = recursion;
        self
    }
    /// Adds a label to the volume that is made for this mount.
    pub fn volume_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.volume_labels.insert(name.into(), value.into());
        self
    }
}

const VOLUME_FLAG: &str = "a mount of -v";
const MOUNT_FLAG: &str = "a mount of --mount";
const TMPFS_FLAG: &str = "a mount of --tmpfs";

impl Mount {
    /// An anonymous volume at `target`: removed with the container.
    pub fn anonymous(target: impl Into<String>) -> Self {
        let source = MountSource::Volume {
            name: None,
            no_copy: false,
            subpath: None,
        };
        Self::new(source, target)
    }

    /// Parses docker's `-v`: `[source:]target[:options]`. A source with a slash at its start, or `.` or
    /// `..` as its first part, is a path of the host, made when missing; any other is a volume's name.
    ///
    /// Options: `ro`, `rw`, `nocopy` for volumes, a propagation (`rslave`...) for binds. `z`, `Z` and
    /// docker's `cached`, `delegated`, `consistent` are taken and change nothing.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse_volume_flag(text: &str) -> Result<Self, ParseError> {
        let error = |reason: &str| ParseError::new(VOLUME_FLAG, text, reason);
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts.as_slice() {
            [target] => (None, *target, ""),
            [source, target] => (Some(*source), *target, ""),
            [source, target, options] if !options.is_empty() => (Some(*source), *target, *options),
            _ => return Err(error("it is [source:]target[:options]")),
        };
        if !target.starts_with('/') {
            return Err(error("the path in the container must be absolute"));
        }
        let mut mount = match source {
            None => Self::anonymous(target),
            Some("") => return Err(error("the source is empty")),
            Some(source) if is_path(source) => {
                let source = MountSource::Bind {
                    path: source.into(),
                    create: true,
                    propagation: None,
                };
                Self::new(source, target)
            }
            Some(name) if is_name(name) => Self::volume(name, target),
            Some(_) => {
                return Err(error(&format!(
                    "the source is neither an absolute path nor a volume's name: {NAME_GRAMMAR}"
                )));
            }
        };
        let mut access = None;
        for option in options.split(',').filter(|_| !options.is_empty()) {
            match (option, &mut mount.source) {
                ("ro" | "rw", _) if access.replace(option).is_some() => {
                    return Err(error("ro and rw are given once"));
                }
                ("ro", _) => mount.read_only = true,
                ("rw" | "z" | "Z" | "cached" | "delegated" | "consistent", _) => {}
                ("nocopy", MountSource::Volume { no_copy, .. }) => *no_copy = true,
                (word, MountSource::Bind { propagation, .. }) if is_propagation(word) => {
                    if propagation.replace(word.to_owned()).is_some() {
                        return Err(error("two propagations"));
                    }
                }
                _ => return Err(error(&format!("{option:?} is not an option of such a mount"))),
            }
        }
        Ok(mount)
    }

    /// Parses docker's `--mount`: `key=value` fields separated by commas, a field with a comma in double
    /// quotes.
    ///
    /// `type` (`volume` when absent, `bind`, `tmpfs`), `source` or `src`, `target`, `dst` or
    /// `destination`, `readonly` or `ro`, `bind-propagation`, `bind-recursive` (and its older form
    /// `bind-nonrecursive`), `bind-create-src`, `volume-nocopy`, `volume-label`, `volume-subpath`,
    /// `tmpfs-size`, `tmpfs-mode`. The source of a bind must exist. `consistency` is taken and changes nothing.
    ///
    /// # Errors
    /// For anything else, and for options of another type of mount.
    pub fn parse_mount_flag(text: &str) -> Result<Self, ParseError> {
        let error = |reason: String| ParseError::new(MOUNT_FLAG, text, reason);
        let mut kind = "volume".to_owned();
        let mut read_only = false;
        let mut fields = MountFields::default();
        for field in split_fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
                None => (field.to_ascii_lowercase(), None),
            };
            let flag =
                || parse_bool(value.as_deref()).ok_or_else(|| error(format!("{key} is true or false")));
            let needed = || {
                value
                    .clone()
                    .filter(|value| !value.is_empty())
                    .ok_or_else(|| error(format!("{key} needs a value")))
            };
            match key.as_str() {
                "type" => kind = needed()?.to_ascii_lowercase(),
                "source" | "src" => fields.source = Some(needed()?),
                "target" | "dst" | "destination" => fields.target = Some(needed()?),
                "readonly" | "ro" => read_only = flag()?,
                "consistency" => drop(needed()?),
                "bind-propagation" => {
                    let word = needed()?;
                    if !is_propagation(&word) {
                        return Err(error(format!("{word:?} is not a propagation")));
                    }
                    fields.propagation = Some(word);
                }
                "bind-recursive" => {
                    let word = needed()?;
                    let found = BindRecursion::parse(&word);
                    fields.recursion = Some(found.ok_or_else(|| {
                        error(format!("{word:?} is not enabled, disabled, writable or readonly"))
                    })?);
                }
                "bind-nonrecursive" => {
                    fields.recursion = Some(match flag()? {
                        true => BindRecursion::Disabled,
                        false => BindRecursion::Enabled,
                    });
                }
                "bind-create-src" => fields.create = Some(flag()?),
                "volume-nocopy" => fields.no_copy = Some(flag()?),
                "volume-label" => {
                    let label = needed()?;
                    let (name, value) = label.split_once('=').unwrap_or((&label, ""));
                    fields.labels.insert(name.to_owned(), value.to_owned());
                }
                "volume-subpath" => fields.subpath = Some(PathBuf::from(needed()?)),
                "image-subpath" => fields.image_subpath = Some(PathBuf::from(needed()?)),
                "volume-driver" if value.as_deref() == Some("local") => fields.other_volume = true,
                "tmpfs-size" => fields.size = Some(parse_size(&needed()?)?),
                "tmpfs-mode" => {
                    let mode = u32::from_str_radix(&needed()?, 8)
                        .ok()
                        .filter(|mode| *mode <= 0o7777);
                    fields.mode =
                        Some(mode.ok_or_else(|| error("tmpfs-mode is octal, at most 7777".into()))?);
                }
                _ => return Err(error(format!("{key:?} is not a key here"))),
            }
        }
        let recursion = fields.recursion.unwrap_or_default();
        let private = fields.propagation.as_deref() == Some("rprivate");
        match recursion {
            BindRecursion::Writable | BindRecursion::ReadOnly if !read_only => {
                return Err(error(
                    "bind-recursive=writable and =readonly need readonly".into(),
                ));
            }
            BindRecursion::ReadOnly if !private => {
                return Err(error(
                    "bind-recursive=readonly needs bind-propagation=rprivate".into(),
                ));
            }
            _ => {}
        }
        let volume_labels = std::mem::take(&mut fields.labels);
        fields.other_volume |= !volume_labels.is_empty();
        let (target, source) = fields.into_source(&kind).map_err(error)?;
        Ok(Self {
            read_only,
            recursion,
            volume_labels,
            ..Self::new(source, target)
        })
    }

    /// Parses docker's `--tmpfs`: `target[:options]`, options of mount(8) separated by commas, such as
    /// `size=64m,mode=1777,exec`. Without them it is `nosuid`, `nodev` and `noexec`.
    ///
    /// # Errors
    /// When the target is not absolute. The options are looked at when the container is planned.
    pub fn parse_tmpfs_flag(text: &str) -> Result<Self, ParseError> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        if !target.starts_with('/') {
            return Err(ParseError::new(
                TMPFS_FLAG,
                text,
                "the path in the container must be absolute",
            ));
        }
        let mut mount = Self::tmpfs(target);
        if let MountSource::Tmpfs { options: list, .. } = &mut mount.source {
            list.extend(
                options
                    .split(',')
                    .filter(|option| !option.is_empty())
                    .map(str::to_owned),
            );
        }
        Ok(mount)
    }
}

/// What `--mount` can say, before its type is known.
#[derive(Default)]
struct MountFields {
    source: Option<String>,
    target: Option<String>,
    propagation: Option<String>,
    recursion: Option<BindRecursion>,
    labels: BTreeMap<String, String>,
    create: Option<bool>,
    no_copy: Option<bool>,
    subpath: Option<PathBuf>,
    image_subpath: Option<PathBuf>,
    other_volume: bool,
    size: Option<u64>,
    mode: Option<u32>,
}

impl MountFields {
    fn into_source(self, kind: &str) -> Result<(String, MountSource), String> {
        let target = self.target.ok_or("target is missing")?;
        if !target.starts_with('/') {
            return Err("the path in the container must be absolute".into());
        }
        let used = [
            (
                "bind",
                self.propagation.is_some() || self.recursion.is_some() || self.create.is_some(),
            ),
            (
                "volume",
                self.no_copy.is_some() || self.subpath.is_some() || self.other_volume,
            ),
            ("tmpfs", self.size.is_some() || self.mode.is_some()),
            ("image", self.image_subpath.is_some()),
        ];
        if let Some((other, _)) = used.iter().find(|(other, used)| *used && *other != kind) {
            return Err(format!("options of {other} with type {kind}"));
        }
        let source = match kind {
            "bind" => MountSource::Bind {
                path: self.source.ok_or("a bind needs a source")?.into(),
                create: self.create.unwrap_or(false),
                propagation: self.propagation,
            },
            "volume" => {
                if self.source.as_deref().is_some_and(|name| !is_name(name)) {
                    return Err(format!(
                        "the source is not a volume's name: {NAME_GRAMMAR}; a path of the host needs type=bind"
                    ));
                }
                if self.source.is_none() && self.subpath.is_some() {
                    return Err("volume-subpath needs a named volume".into());
                }
                MountSource::Volume {
                    name: self.source,
                    no_copy: self.no_copy.unwrap_or(false),
                    subpath: self.subpath,
                }
            }
            "image" => MountSource::Image {
                reference: self.source.ok_or("an image needs a source")?,
                subpath: self.image_subpath,
            },
            "tmpfs" if self.source.is_some() => return Err("a tmpfs has no source".into()),
            "tmpfs" => MountSource::Tmpfs {
                size: self.size,
                mode: self.mode,
                options: Vec::new(),
            },
            _ => return Err(format!("there is no type {kind:?}: volume, bind, tmpfs or image")),
        };
        Ok((target, source))
    }
}

/// The fields of one CSV record (RFC 4180).
fn split_fields(text: &str) -> Result<Vec<String>, ParseError> {
    let error = |reason: &str| ParseError::new(MOUNT_FLAG, text, reason);
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(error(
                        "a double quote inside a field that does not begin with one",
                    ));
                }
                (rest[..end].to_owned(), &rest[end..])
            }
            Some(mut quoted) => {
                let mut field = String::new();
                loop {
                    let end = quoted
                        .find('"')
                        .ok_or_else(|| error("a double quote is not closed"))?;
                    field.push_str(&quoted[..end]);
                    quoted = &quoted[end + 1..];
                    match quoted.strip_prefix('"') {
                        Some(more) => {
                            field.push('"');
                            quoted = more;
                        }
                        None => break,
                    }
                }
                (field, quoted)
            }
        };
        if field.is_empty() {
            return Err(error("an empty field"));
        }
        fields.push(field);
        rest = match after.strip_prefix(',') {
            Some(rest) => rest,
            None if after.is_empty() => return Ok(fields),
            None => return Err(error("text behind a closing double quote")),
        };
    }
}

/// A key alone is true.
fn parse_bool(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Some(true),
        Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Some(false),
        Some(_) => None,
    }
}

fn is_path(source: &str) -> bool {
    let first = source.split('/').next().unwrap_or_default();
    matches!(first, "" | "." | "..")
}

fn is_propagation(word: &str) -> bool {
    matches!(
        word,
        "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared"
    )
}

#[cfg(test)]
mod tests;
