//! An image of a container: its image's layers, its own as one more, and a config.

#[cfg(doc)]
use super::FilesError;
use super::copy::apart;
use super::{changes, duplicate, instructions};
use crate::container::Container;
use crate::error::{Error, Result};
use crate::events::EventAction;
use crate::image::{History, Image, ImageConfig, LayerOptions, Reference};
use crate::spec::{ContainerSpec, MountSource};
use rustix::fs::{Mode, OFlags};

/// How a container becomes an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitOptions {
    /// Names of the image.
    pub references: Vec<Reference>,
    /// Who made it (docker's `-a`).
    pub author: Option<String>,
    /// What was done (docker's `-m`), kept in the history.
    pub message: Option<String>,
    /// Instructions of a Dockerfile that change the config, in order (docker's `-c`): CMD, ENTRYPOINT, ENV, EXPOSE,
    /// HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR.
    pub changes: Vec<String>,
    /// A running container stands still while its layer is copied. On by default.
    pub pause: bool,
}

impl Default for CommitOptions {
    fn default() -> Self {
        Self {
            references: Vec::new(),
            author: None,
            message: None,
            changes: Vec::new(),
            pause: true,
        }
    }
}

impl CommitOptions {
    /// Adds a name for the image.
    pub fn reference(mut self, reference: Reference) -> Self {
        self.references.push(reference);
        self
    }
    /// Sets the author.
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.author = Some(author.into());
        self
    }
    /// Sets the message.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }
    /// Adds an instruction.
    pub fn change(mut self, instruction: impl Into<String>) -> Self {
        self.changes.push(instruction.into());
        self
    }
    /// Sets whether a running container stands still.
    pub fn pause(mut self, pause: bool) -> Self {
        self.pause = pause;
        self
    }
}

impl Container {
    /// Makes an image of the container, running or not: its image's layers, its own changes as one more layer, and
    /// the config of the image with what the container's spec says otherwise. What is in volumes, binds and memory,
    /// secrets too, is not in it.
    ///
    /// # Errors
    /// [`FilesError::Change`] for an instruction that changes no config; [`Error::NoSuchImage`] when the container's
    /// image is gone.
    pub async fn commit(&self, options: &CommitOptions) -> Result<Image> {
        // What is wrong with the options is said before anything stands still.
        let mut config = self.config_of_commit()?;
        for change in &options.changes {
            instructions::apply(&mut config.config, change)?;
        }
        let still = match options.pause {
            true => self.stand_still().await?,
            false => false,
        };
        let (this, options) = (self.clone(), options.clone());
        let made = apart(move || this.make_image(config, &options)).await;
        if still {
            // One that ended meanwhile, or that somebody else let go on, needs nothing.
            let _ = self.unpause().await;
        }
        made
    }

    fn make_image(&self, mut config: ImageConfig, options: &CommitOptions) -> Result<Image> {
        let images = self.runtime().images();
        let snapshot = self.open_snapshot()?;
        let lease = images.lease()?;
        for diff_id in snapshot.diff_ids() {
            lease.pin(diff_id)?;
        }
        let scratch = images.scratch_layer(snapshot.diff_ids())?;
        let from = changes::open_upper(snapshot.upper())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::open(scratch.upper(), flags, Mode::empty())
            .map_err(|errno| Error::state("open", scratch.upper())(errno.into()))?;
        duplicate::directory(&from, &to, std::path::Path::new("/"))?;
        let points = self.mount_points();
        let points = points.iter().map(|path| path.display().to_string());
        let options_of_layer = LayerOptions::default().mount_points(points);
        let layer = images.adopt_layer(&lease, scratch.upper(), snapshot.diff_ids(), &options_of_layer)?;
        let now = format!("{:.9}", jiff::Timestamp::now());
        config.created = Some(now.clone());
        if options.author.is_some() {
            config.author.clone_from(&options.author);
        }
        config.rootfs.diff_ids = snapshot.diff_ids().to_vec();
        let empty = layer.entries == 0;
        if !empty {
            config.rootfs.diff_ids.push(layer.diff_id);
        }
        config.history.push(History {
            created: Some(now),
            created_by: Some(self.record().command.join(" ")),
            author: options.author.clone(),
            comment: options.message.clone(),
            empty_layer: empty,
            ..History::default()
        });
        let image = images.write_image(&lease, &config, &options.references)?;
        self.happened(EventAction::Commit);
        Ok(image)
    }

    /// The image's config with what the spec says otherwise.
    fn config_of_commit(&self) -> Result<ImageConfig> {
        let record = self.record();
        let image = self.runtime().images().get(&record.image_id)?;
        let mut config = match (&image, &record.image_config) {
            (Some(image), _) => image.config().clone(),
            (None, Some(config)) => (**config).clone(),
            (None, None) => {
                return Err(Error::NoSuchImage {
                    reference: record.image.clone(),
                });
            }
        };
        merge(&mut config, &record.spec);
        Ok(config)
    }
}

fn merge(config: &mut ImageConfig, spec: &ContainerSpec) {
    let config = &mut config.config;
    if let Some(entrypoint) = &spec.entrypoint {
        config.entrypoint = Some(entrypoint.clone()).filter(|words| !words.is_empty());
        config.cmd = None;
    }
    if !spec.args.is_empty() {
        config.cmd = Some(spec.args.clone());
    }
    config.env.retain(|entry| {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        !spec.unset_env.iter().any(|unset| unset == name)
    });
    for (name, value) in &spec.env {
        instructions::set_env(&mut config.env, name, value);
    }
    if let Some(user) = &spec.user {
        config.user.clone_from(user);
    }
    if let Some(dir) = &spec.working_dir {
        config.working_dir.clone_from(dir);
    }
    if spec.stop_signal.is_some() {
        config.stop_signal.clone_from(&spec.stop_signal);
    }
    for (name, value) in &spec.labels {
        config.labels.insert(name.clone(), value.clone());
    }
    let empty = || serde_json::Value::Object(serde_json::Map::new());
    for port in &spec.ports {
        let protocol = format!("{:?}", port.protocol).to_lowercase();
        config
            .exposed_ports
            .entry(format!("{}/{protocol}", port.container))
            .or_insert_with(empty);
    }
    for mount in &spec.mounts {
        if let MountSource::Volume { name: None, .. } = mount.source {
            config.volumes.entry(mount.target.clone()).or_insert_with(empty);
        }
    }
}

impl Container {
    /// Freezes a running container; false for one that does not run, or that somebody else has frozen.
    async fn stand_still(&self) -> Result<bool> {
        if !self.status()?.is_running() {
            return Ok(false);
        }
        match self.pause().await {
            Ok(()) => Ok(true),
            Err(Error::Paused { .. } | Error::NotRunning { .. }) => Ok(false),
            // A machine without a freezer: the copy is one of a moving target, as with `pause` off.
            Err(Error::CannotPause { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
