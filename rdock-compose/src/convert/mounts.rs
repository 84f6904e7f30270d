//! What is mounted into a container.

use super::{Making, first_of, note, wrong};
use crate::model::{Service, ServiceVolume};
use rdock_runtime::{BindRecursion, ContainerSpec, Mount, MountSource, VolumesFrom};
use std::path::PathBuf;

pub(super) fn fill(
    spec: &mut ContainerSpec,
    making: &Making<'_>,
    service: &Service,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    for volume in &service.volumes {
        let attribute = format!("volumes: {}", volume.target);
        if let Some(source) = source(making, volume, &attribute, notes)? {
            let mut mount = Mount::new(source, &volume.target);
            mount.read_only = volume.read_only;
            if let Some(word) = volume.bind.as_ref().and_then(|bind| bind.recursive.as_deref()) {
                mount.recursion = BindRecursion::parse(word).ok_or_else(|| {
                    wrong(
                        &attribute,
                        format!("bind.recursive: {word:?} is not enabled, disabled, writable or readonly"),
                    )
                })?;
            }
            // Those of a volume that has a name stand at the volume.
            if let (Some(options), true) = (&volume.volume, is_anonymous(&mount)) {
                mount.volume_labels = options
                    .labels
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
            }
            spec.mounts.push(mount);
        }
    }
    for text in &service.tmpfs {
        let mount = Mount::parse_tmpfs_flag(text).map_err(|error| wrong("tmpfs", error))?;
        spec.mounts.push(mount);
    }
    for text in &service.volumes_from {
        let from = match text.strip_prefix("container:") {
            Some(rest) => VolumesFrom::parse(rest),
            None => {
                let (name, mode) = text.split_once(':').unwrap_or((text, ""));
                let container = first_of(making.project, name);
                match mode {
                    "" => VolumesFrom::parse(&container),
                    mode => VolumesFrom::parse(&format!("{container}:{mode}")),
                }
            }
        };
        spec.volumes_from
            .push(from.map_err(|error| wrong("volumes_from", error))?);
    }
    // What the one before kept at a path nobody names.
    for old in making.inherits {
        let taken = spec
            .mounts
            .iter()
            .any(|mount| mount.target == old.target && !is_anonymous(mount));
        if let (Some(volume), false) = (&old.volume, taken) {
            spec.mounts.retain(|mount| mount.target != old.target);
            spec.mounts.push(Mount::volume(volume, &old.target));
            spec.inherited_volumes.push(volume.clone());
        }
    }
    Ok(())
}

fn is_anonymous(mount: &Mount) -> bool {
    matches!(mount.source, MountSource::Volume { name: None, .. })
}

/// Where a mount comes from; nothing for what has no meaning here, of which the loader has warned.
fn source(
    making: &Making<'_>,
    volume: &ServiceVolume,
    attribute: &str,
    notes: &mut Vec<String>,
) -> Result<Option<MountSource>, String> {
    let named = || {
        volume
            .source
            .as_deref()
            .filter(|source| !source.is_empty())
            .ok_or_else(|| wrong(attribute, "it has no source"))
    };
    Ok(Some(match volume.r#type.as_str() {
        "bind" => {
            let bind = volume.bind.as_ref();
            note(
                notes,
                bind.is_some_and(|bind| bind.selinux.is_some()),
                attribute,
                "containers run in their caller's SELinux domain: nothing is relabelled",
            );
            MountSource::Bind {
                path: PathBuf::from(named()?),
                create: bind.and_then(|bind| bind.create_host_path).unwrap_or(true),
                propagation: bind.and_then(|bind| bind.propagation.clone()),
            }
        }
        "volume" => {
            let name = match volume.source.as_deref().filter(|source| !source.is_empty()) {
                Some(key) => {
                    let found = making.project.volumes.get(key);
                    let found = found
                        .ok_or_else(|| wrong(attribute, format!("the project has no volume {key:?}")))?;
                    Some(found.name.clone())
                }
                None => None,
            };
            let options = volume.volume.as_ref();
            note(
                notes,
                options.is_some_and(|options| !options.labels.is_empty()) && name.is_some(),
                attribute,
                "the labels of a volume with a name are those of the project's volumes",
            );
            MountSource::Volume {
                name,
                no_copy: options.is_some_and(|options| options.nocopy),
                subpath: options
                    .and_then(|options| options.subpath.as_ref())
                    .map(PathBuf::from),
            }
        }
        "tmpfs" => {
            let options = volume.tmpfs.as_ref();
            let size = options.and_then(|options| options.size).filter(|size| size.0 > 0);
            let mode = options.and_then(|options| options.mode);
            let mode = mode.map(u32::try_from).transpose();
            MountSource::Tmpfs {
                size: size.map(|size| size.0.unsigned_abs()),
                mode: mode.map_err(|error| wrong(attribute, error))?,
                options: Vec::new(),
            }
        }
        "image" => {
            let reference = named()?;
            let layers = making.image_layers.iter().find(|(name, _)| name == reference);
            let (_, diff_ids) =
                layers.ok_or_else(|| wrong(attribute, format!("no image {reference:?} is here")))?;
            MountSource::Layers {
                diff_ids: diff_ids.clone(),
                subpath: volume
                    .image
                    .as_ref()
                    .and_then(|image| image.subpath.as_ref())
                    .map(PathBuf::from),
            }
        }
        "npipe" | "cluster" => return Ok(None),
        other => return Err(wrong(attribute, format!("there is no mount of type {other:?}"))),
    }))
}
