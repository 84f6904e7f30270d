//! Between planning and launching: the sources of binds are looked at, volumes are made and reserved.

use super::{LaterSource, Planned, PlannedMount, PlannedSource};
use crate::MountInfo;
use crate::launch::{BindPlan, MountFlags, MountKind, MountPlan, Propagation};
use crate::spec::BindRecursion;
use crate::volume::{Backing, CopyGuard, VolumeError, VolumeInfo, Volumes};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The mounts of a container whose sources exist.
#[derive(Debug)]
pub(crate) struct PreparedMounts {
    pub(crate) mounts: Vec<PreparedMount>,
    /// The user's and the image's mounts, as `inspect` shows them.
    pub(crate) infos: Vec<MountInfo>,
    /// Names of the volumes made for this container alone.
    pub(crate) anonymous_volumes: Vec<String>,
    /// Volumes that this launch fills; to be kept until the payload has started.
    pub(crate) copies: Vec<CopyGuard>,
}

/// One of them.
#[derive(Debug)]
pub(crate) enum PreparedMount {
    Ready(MountPlan),
    /// An overlay that is attached in the container's directory.
    Layers {
        target: PathBuf,
        flags: MountFlags,
        number: usize,
        subpath: Option<PathBuf>,
    },
    /// The source is known once the container has its state.
    Later {
        target: PathBuf,
        flags: MountFlags,
        source: LaterSource,
    },
}

impl Planned {
    /// Gives the anonymous volumes of an earlier run to this one.
    pub(crate) fn reuse_volumes(&mut self, earlier: &[MountInfo]) {
        for mount in &mut self.mounts {
            if let PlannedSource::Volume {
                name: name @ None, ..
            } = &mut mount.source
            {
                let found = earlier
                    .iter()
                    .find(|info| info.kind == "volume" && info.target == mount.target);
                *name = found.and_then(|info| info.name.clone());
            }
        }
    }

    /// Looks at the sources of binds, makes missing volumes, and notes in them that this container uses
    /// them. When it fails, nothing it made is left but named volumes.
    ///
    /// # Errors
    /// [`VolumeError::MissingSource`] for a bind whose source is not there, and what the volumes say.
    pub(crate) fn prepare_mounts(&self, volumes: &Volumes) -> Result<PreparedMounts, VolumeError> {
        let mut prepared = PreparedMounts {
            mounts: Vec::new(),
            infos: Vec::new(),
            anonymous_volumes: Vec::new(),
            copies: Vec::new(),
        };
        let result = self.prepare_all(volumes, &mut prepared);
        if result.is_err() {
            for name in &prepared.anonymous_volumes {
                // The first error is the one to report; the next open of the root removes the rest.
                let _ = volumes.remove_anonymous(name, &self.id);
            }
            volumes.release(&self.id);
        }
        result.map(|()| prepared)
    }

    fn prepare_all(&self, volumes: &Volumes, prepared: &mut PreparedMounts) -> Result<(), VolumeError> {
        // One order for every container: two that fill the same volumes cannot wait for each other.
        let mut names = BTreeMap::new();
        for (index, mount) in self.mounts.iter().enumerate() {
            if let PlannedSource::Volume { name, labels, .. } = &mount.source {
                let volume = volumes.reserve_labelled(name.as_deref(), labels, &self.id)?;
                if name.is_none() {
                    prepared.anonymous_volumes.push(volume.name.clone());
                }
                names.insert(index, volume);
            }
        }
        let mut filled: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, volume) in &names {
            let fills = matches!(
                self.mounts[*index].source,
                PlannedSource::Volume {
                    no_copy: false,
                    subpath: None,
                    ..
                }
            );
            if fills {
                filled.entry(volume.name.as_str()).or_insert(*index);
            }
        }
        let filled_names: Vec<String> = filled.keys().map(|name| (*name).to_owned()).collect();
        let mut copying = Vec::new();
        for index in filled.into_values() {
            if let Some(guard) = volumes.begin_copy(&names[&index])? {
                prepared.copies.push(guard);
                copying.push(index);
            }
        }
        for volume in names
            .values()
            .filter(|volume| !filled_names.contains(&volume.name))
        {
            volumes.mark_used(&volume.name)?;
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            // The host need not have its own message queues mounted.
            if matches!(mount.source, PlannedSource::Host(path) if !Path::new(path).exists()) {
                continue;
            }
            let volume = names.get(&index);
            let mark = volume
                .filter(|_| copying.contains(&index))
                .map(|volume| volumes.copied_mark(&volume.name));
            prepared.mounts.push(prepare(mount, volume, mark)?);
            let info = |kind: &str, name: Option<String>, source: &Path| MountInfo {
                kind: kind.to_owned(),
                name,
                source: source.to_string_lossy().into_owned(),
                target: mount.target.clone(),
                read_only: mount.flags.read_only,
                subpath: match &mount.source {
                    PlannedSource::Volume { subpath, .. } => subpath.clone(),
                    _ => None,
                },
                recursion: match (&mount.source, mount.flags.read_only) {
                    (PlannedSource::Bind { recursive: false, .. }, _) => BindRecursion::Disabled,
                    (PlannedSource::Bind { .. }, true) if !mount.flags.recursive_read_only => {
                        BindRecursion::Writable
                    }
                    _ => BindRecursion::Enabled,
                },
            };
            match &mount.source {
                PlannedSource::Bind { path, .. } => {
                    let source = std::path::absolute(path).map_err(VolumeError::io("find", path))?;
                    prepared.infos.push(info("bind", None, &source));
                }
                PlannedSource::Layers { .. } => prepared.infos.push(info("image", None, Path::new(""))),
                PlannedSource::Tmpfs { .. } => prepared.infos.push(info("tmpfs", None, Path::new(""))),
                PlannedSource::Volume { .. } => {
                    let path = volume
                        .map(|volume| volume.mountpoint.as_path())
                        .unwrap_or(Path::new(""));
                    prepared
                        .infos
                        .push(info("volume", volume.map(|volume| volume.name.clone()), path));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// `mark`: the file that says that the volume is filled, when this launch fills it.
fn prepare(
    mount: &PlannedMount,
    volume: Option<&VolumeInfo>,
    mark: Option<PathBuf>,
) -> Result<PreparedMount, VolumeError> {
    let mut flags = mount.flags;
    let target = PathBuf::from(&mount.target);
    let kind = match &mount.source {
        PlannedSource::FileSystem { fstype, options } => MountKind::FileSystem {
            fstype,
            options: options.clone(),
        },
        PlannedSource::Later(source) => {
            return Ok(PreparedMount::Later {
                target,
                flags: mount.flags,
                source: *source,
            });
        }
        PlannedSource::Host(path) => bind(PathBuf::from(path))?,
        PlannedSource::Layers { number, subpath } => {
            return Ok(PreparedMount::Layers {
                target,
                flags: mount.flags,
                number: *number,
                subpath: subpath.clone(),
            });
        }
        PlannedSource::Tmpfs { options } => MountKind::Tmpfs {
            options: options.clone(),
            copy_up: false,
        },
        PlannedSource::Bind {
            path,
            create,
            propagation,
            recursive,
        } => {
            let source = std::path::absolute(path).map_err(VolumeError::io("find", path))?;
            if *create && !source.exists() {
                std::fs::create_dir_all(&source).map_err(VolumeError::io("create", &source))?;
            }
            let mut kind = bind(source)?;
            if let MountKind::Bind(plan) = &mut kind {
                plan.propagation = *propagation;
                plan.recursive = *recursive;
            }
            kind
        }
        PlannedSource::Volume { subpath, no_copy, .. } => {
            let backing = volume.map_or(Ok(Backing::Own), VolumeInfo::backing)?;
            let source = match backing {
                Backing::Own => volume.map(|volume| volume.mountpoint.clone()),
                Backing::Bind { path, read_only } => {
                    flags.read_only |= read_only;
                    Some(path)
                }
                Backing::Tmpfs { options, flags: more } => {
                    if let (Some(subpath), Some(volume)) = (subpath, volume) {
                        return Err(VolumeError::InvalidOption {
                            name: volume.name.clone(),
                            reason: format!("it is in memory and has no {}", subpath.display()),
                        });
                    }
                    flags = MountFlags {
                        read_only: flags.read_only || more.read_only,
                        recursive_read_only: false,
                        ..more
                    };
                    let kind = MountKind::Tmpfs {
                        options,
                        copy_up: !no_copy,
                    };
                    return Ok(PreparedMount::Ready(MountPlan { kind, target, flags }));
                }
            };
            let mut kind = bind(source.unwrap_or_else(|| PathBuf::from("/dev/null")))?;
            if let MountKind::Bind(plan) = &mut kind {
                plan.subpath.clone_from(subpath);
                plan.copy_up = mark;
            }
            kind
        }
    };
    Ok(PreparedMount::Ready(MountPlan { kind, target, flags }))
}

/// A recursive private bind of what is at `source` now.
pub(crate) fn bind(source: PathBuf) -> Result<MountKind, VolumeError> {
    let meta = std::fs::metadata(&source).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            VolumeError::MissingSource { path: source.clone() }
        }
        _ => VolumeError::io("look at", &source)(error),
    })?;
    Ok(MountKind::Bind(BindPlan {
        expect: (meta.dev(), meta.ino()),
        source,
        recursive: true,
        subpath: None,
        propagation: Propagation::Private,
        copy_up: None,
    }))
}
