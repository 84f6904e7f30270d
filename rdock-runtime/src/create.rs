//! A container that does not run: its name, record, volumes and snapshot.
//!
//! Every resource is named after the container's id and its directory is made first, so that a creation that
//! is cut off at any point is undone by anyone who opens the root. One that fails undoes itself.

use crate::base::Base;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::events::EventAction;
use crate::image::{Image, ImageConfig, Snapshot};
use crate::plan::{self, HostFacts, Planned, PreparedMounts, Subject};
use crate::runtime::{Runtime, blocking};
use crate::spec::{ContainerSpec, MountSource};
use crate::state::{ContainerDir, Record, now};

/// A container that is about to be launched.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) dir: ContainerDir,
    pub(crate) record: Record,
    pub(crate) planned: Planned,
    pub(crate) prepared: PreparedMounts,
    pub(crate) snapshot: Snapshot,
}

/// Says what is wrong with a spec for an image, without making anything.
///
/// # Errors
/// [`Error::Spec`] with every finding.
pub(crate) fn check(spec: &ContainerSpec, image: &Image) -> Result<()> {
    let subject = Subject {
        id: &"0".repeat(64),
        detached: true,
    };
    plan::plan(subject, spec, image.config(), &HostFacts::gather(spec.privileged))?;
    Ok(())
}

impl ContainerSpec {
    /// Checks everything that can be known without the image, and returns all findings at once.
    ///
    /// # Errors
    /// [`Error::Spec`].
    pub fn validate(&self) -> Result<()> {
        Ok(plan::check(self, &HostFacts::gather(self.privileged))?)
    }

    /// Makes a detached container without starting it; pulls a missing image. It has its name, its volumes
    /// and its file system from then on, and runs with [`Container::start`].
    ///
    /// # Errors
    /// [`Error::Spec`] with everything that is wrong; what could not be made. Nothing is left then.
    pub async fn create(&self, runtime: &Runtime) -> Result<Container> {
        let image = runtime.image(&self.image).await?;
        let (spec, runtime) = (self.resolved(runtime).await?, runtime.clone());
        blocking(move || {
            let id = crate::identity::random_id().map_err(Error::system("read random numbers"))?;
            let host = HostFacts::gather(spec.privileged);
            crate::secrets::keep(&runtime, &id, &spec)?;
            let owner = Ownership {
                detached: true,
                owned: false,
            };
            let made = create(&runtime, &id, &spec, &image, owner, &host).inspect_err(|_| {
                // What stays is forgotten by the next open.
                let _ = crate::secrets::forget(&runtime, &id);
            })?;
            Ok(Container::new(runtime, made.dir, made.record))
        })
        .await
    }
}

impl ContainerSpec {
    /// With everything in it that other containers, files and images bring: their volumes, secrets, layers.
    pub(crate) async fn resolved(&self, runtime: &Runtime) -> Result<Self> {
        let mut spec = self.with_volumes_of_others(runtime)?;
        for mount in &mut spec.mounts {
            if let MountSource::Image { reference, subpath } = &mount.source {
                mount.source = MountSource::Layers {
                    diff_ids: runtime.image(reference).await?.diff_ids().to_vec(),
                    subpath: subpath.clone(),
                };
            }
        }
        Ok(spec)
    }
}

/// Whose a new container is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ownership {
    /// It outlives the program that makes it.
    pub(crate) detached: bool,
    /// This process owns it from the beginning, and is about to start it.
    pub(crate) owned: bool,
}

/// Makes container `id`.
///
/// # Errors
/// With what could not be made; nothing is left then.
pub(crate) fn create<'a>(
    runtime: &Runtime,
    id: &str,
    spec: &ContainerSpec,
    base: impl Into<Base<'a>>,
    Ownership { detached, owned }: Ownership,
    host: &HostFacts,
) -> Result<Made> {
    let base = base.into();
    let planned = plan::plan(Subject { id, detached }, spec, base.config(), host)?;
    let name = claim_name(runtime, spec.name.as_deref(), id)?;
    let mut making = Making {
        runtime,
        record: None,
        name: &name,
        id,
    };
    let prepared = planned.prepare_mounts(&runtime.volumes());
    let prepared = prepared.inspect_err(|_| runtime.volumes().release(id))?;
    let record = Record {
        version: 1,
        id: id.to_owned(),
        name: name.clone(),
        image: spec.image.clone(),
        image_id: base.image_id(),
        created: now(),
        detached,
        command: planned.command.clone(),
        spec: spec.clone(),
        mounts: prepared.infos.clone(),
        anonymous_volumes: spec
            .volumes_from
            .iter()
            .flat_map(|from| &from.anonymous)
            .chain(&spec.inherited_volumes)
            .cloned()
            .chain(prepared.anonymous_volumes.iter().cloned())
            .collect(),
        stop_signal: planned.stop_signal,
        // A container that cannot be started again needs none.
        image_config: detached.then(|| Box::new(base.config().clone())),
    };
    // From here on the janitor knows of everything.
    let (dir, _making) = runtime.state().create(&record, owned).inspect_err(|_| {
        for volume in &record.anonymous_volumes {
            let _ = runtime.volumes().remove_anonymous(volume, id);
        }
        runtime.volumes().release(id);
    })?;
    making.record = Some(record.clone());
    runtime.journal().container(&record, EventAction::Create, &[]);
    let snapshot = base.snapshot(runtime.images(), id, &planned.snapshot)?;
    making.done();
    Ok(Made {
        dir,
        record,
        planned,
        prepared,
        snapshot,
    })
}

/// Plans a container that exists for its next run.
///
/// # Errors
/// When its spec is not possible any more (a bind's source is gone), or its image cannot be read.
pub(crate) fn reopen(runtime: &Runtime, dir: ContainerDir, record: Record, host: &HostFacts) -> Result<Made> {
    let missing = || {
        let path = runtime.root().join("image/snapshots").join(&record.id);
        Error::state("find", path)(std::io::ErrorKind::NotFound.into())
    };
    let snapshot = runtime.images().open_snapshot(&record.id)?.ok_or_else(missing)?;
    if !record.detached {
        // The kernel mounts a volatile upper directory once.
        snapshot.clear_volatile_mark()?;
    }
    let mut planned = planned(runtime, &record, host)?;
    planned.reuse_volumes(&record.mounts);
    let prepared = planned.prepare_mounts(&runtime.volumes()).inspect_err(|_| {
        // Its volumes stay its own.
        for name in record.mounts.iter().filter_map(|mount| mount.name.as_deref()) {
            let _ = runtime.volumes().reserve(Some(name), &record.id);
        }
    })?;
    Ok(Made {
        dir,
        record,
        planned,
        prepared,
        snapshot,
    })
}

/// The plan of a container that exists.
pub(crate) fn planned(runtime: &Runtime, record: &Record, host: &HostFacts) -> Result<Planned> {
    let subject = Subject {
        id: &record.id,
        detached: record.detached,
    };
    let of_image: ImageConfig = match &record.image_config {
        Some(config) => (**config).clone(),
        None => {
            let image = runtime.images().get(&record.image_id)?;
            let image = image.ok_or_else(|| Error::NoSuchImage {
                reference: record.image.clone(),
            })?;
            image.config().clone()
        }
    };
    Ok(plan::plan(subject, &record.spec, &of_image, host)?)
}

/// Undoes a creation that fails.
struct Making<'a> {
    runtime: &'a Runtime,
    /// Once the container has its directory.
    record: Option<Record>,
    name: &'a str,
    id: &'a str,
}

impl Making<'_> {
    fn done(mut self) {
        self.id = "";
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if self.id.is_empty() {
            return;
        }
        match &self.record {
            // What stays is removed by the next open; the reason for the failure is what the caller needs.
            Some(record) => drop(crate::remove::everything(self.runtime, record)),
            None => self.runtime.state().release_name(self.name, self.id),
        }
    }
}

fn claim_name(runtime: &Runtime, wanted: Option<&str>, id: &str) -> Result<String> {
    if let Some(name) = wanted {
        if let Err(error) = runtime.state().claim_name(name, id) {
            let Error::NameInUse { id: holder, .. } = &error else {
                return Err(error);
            };
            // Its holder may be what somebody left who was killed.
            crate::recover::clear(runtime, holder);
            runtime.state().claim_name(name, id)?;
        }
        return Ok(name.to_owned());
    }
    let random = || crate::identity::random_name().map_err(Error::system("read random numbers"));
    for _ in 0..8 {
        let name = random()?;
        match runtime.state().claim_name(&name, id) {
            Err(Error::NameInUse { .. }) => {}
            other => return other.map(|()| name),
        }
    }
    // With thousands of containers the words run out.
    let name = format!("{}_{}", random()?, &id[..8]);
    runtime.state().claim_name(&name, id)?;
    Ok(name)
}
