//! What a container stands on: an image, or layers that are not an image yet.

use crate::container::Attached;
use crate::error::{Error, Result};
use crate::image::{Digest, Image, ImageConfig, ImageStore, Snapshot, SnapshotOptions};
use crate::launch::RootMount;
use crate::runtime::Runtime;
use crate::scoped::ScopedContainer;
use crate::spec::{ContainerSpec, MountSource};
use crate::state::{ContainerDir, Exit};
use std::path::{Path, PathBuf};

/// The layers below a container, and the config whose defaults it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Base<'a> {
    Image(&'a Image),
    Layers {
        diff_ids: &'a [Digest],
        config: &'a ImageConfig,
    },
}

impl<'a> From<&'a Image> for Base<'a> {
    fn from(image: &'a Image) -> Self {
        Self::Image(image)
    }
}

impl Base<'_> {
    pub(crate) fn config(&self) -> &ImageConfig {
        match self {
            Self::Image(image) => image.config(),
            Self::Layers { config, .. } => config,
        }
    }

    /// The image's id; empty without an image.
    pub(crate) fn image_id(&self) -> String {
        match self {
            Self::Image(image) => image.id().to_string(),
            Self::Layers { .. } => String::new(),
        }
    }

    pub(crate) fn snapshot(
        &self,
        store: &ImageStore,
        id: &str,
        options: &SnapshotOptions,
    ) -> Result<Snapshot> {
        Ok(match self {
            Self::Image(image) => store.snapshot(image, id, options)?,
            Self::Layers { diff_ids, .. } => store.snapshot_layers(diff_ids, id, options)?,
        })
    }
}

/// Where the overlay of mount `number` is attached in the helper's mount namespace, and bound from.
pub(crate) fn layers_point(state_dir: &Path, number: usize) -> PathBuf {
    state_dir.join("layers").join(number.to_string()).join("point")
}

/// Makes the overlays that the spec's mounts of layers are bound from. What is written to them goes with the
/// container's directory.
pub(crate) fn layer_mounts(
    runtime: &Runtime,
    dir: &ContainerDir,
    spec: &ContainerSpec,
    userxattr: bool,
) -> Result<Vec<RootMount>> {
    let mut made = Vec::new();
    for (number, mount) in spec.mounts.iter().enumerate() {
        let MountSource::Layers { diff_ids, .. } = &mount.source else {
            continue;
        };
        let lower = runtime.images().layer_directories(diff_ids)?;
        let point = layers_point(dir.path(), number);
        let own = point.parent().unwrap_or(&point).to_owned();
        let make = || -> std::io::Result<()> {
            // A start after another one begins anew.
            crate::launch::remove_tree(&own)?;
            for part in ["point", "upper", "work"] {
                std::fs::create_dir_all(own.join(part))?;
            }
            if let Some(top) = lower.first() {
                std::fs::set_permissions(own.join("upper"), std::fs::metadata(top)?.permissions())?;
            }
            Ok(())
        };
        make().map_err(Error::state("create", &own))?;
        made.push(RootMount {
            point: Some(point),
            mount: rdock_image::Mount::overlay(lower, own.join("upper"), own.join("work"), true, userxattr),
        });
    }
    Ok(made)
}

/// A container over layers, as a build step needs one: it dies with this handle and with this process, and what it
/// wrote can become a layer. Its methods block.
#[derive(Debug)]
#[must_use = "the container ends when this is dropped"]
pub struct LayeredContainer {
    container: ScopedContainer,
    mount_points: Vec<String>,
}

impl LayeredContainer {
    /// Waits for its end, for `patience` at most; `None` when it still runs.
    pub fn wait(&self, patience: std::time::Duration) -> Option<Exit> {
        self.container.wait_blocking(patience)
    }

    /// Kills it and waits for its end.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn end(&self) -> Result<()> {
        self.container.end_blocking()
    }

    /// Returns what the payload writes to, [`crate::image::ImageStore::adopt_snapshot`] makes it a layer. The
    /// container must have ended.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let id = self.container.id();
        self.container
            .runtime()
            .images()
            .open_snapshot(id)?
            .ok_or_else(|| Error::NotRunning {
                name: self.container.name().to_owned(),
            })
    }

    /// Returns the absolute paths inside where something was mounted, which may have been made for it.
    pub fn mount_points(&self) -> &[String] {
        &self.mount_points
    }

    /// Returns what this machine could not do for it.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn warnings(&self) -> Result<Vec<String>> {
        Ok(self.container.inspect()?.warnings)
    }

    /// Removes it with what is left of its snapshot.
    ///
    /// # Errors
    /// [`Error::Remains`]; the next open of the root tries again.
    pub fn remove(self) -> Result<()> {
        self.container.remove_blocking()
    }
}

impl ContainerSpec {
    /// Starts a container over layers that need not be those of an image (the base first); `config` gives the
    /// defaults that an image would. The layers must be in the store and leased. Blocks until the payload runs.
    ///
    /// The outputs come as two streams, which end with the payload; it waits when they are not read.
    ///
    /// # Errors
    /// As [`ContainerSpec::start`].
    pub fn start_over_layers(
        &self,
        runtime: &Runtime,
        diff_ids: &[Digest],
        config: &ImageConfig,
    ) -> Result<(LayeredContainer, Attached)> {
        let pair = || crate::owner::stream_pair().map_err(Error::system("make a pair of sockets"));
        let ((stdout, to_stdout), (stderr, to_stderr)) = (pair()?, pair()?);
        let base = Base::Layers { diff_ids, config };
        let container = ScopedContainer::start_over(runtime, self, base, Some([to_stdout, to_stderr]))?;
        let mut mount_points: Vec<String> = [
            "/proc",
            "/sys",
            "/dev",
            "/etc/resolv.conf",
            "/etc/hostname",
            "/etc/hosts",
        ]
        .map(str::to_owned)
        .into();
        mount_points.extend(self.mounts.iter().map(|mount| mount.target.clone()));
        let attached = Attached {
            stdin: None,
            stdout: Some(stdout),
            stderr: Some(stderr),
        };
        Ok((
            LayeredContainer {
                container,
                mount_points,
            },
            attached,
        ))
    }
}
