//! What each operation of a plan does.

use super::error::Causes;
use super::event::{ApplyEvent, ImageEvent};
use super::{ComposeProject, StepError, hooks, wait};
use crate::convert::{self, Making};
use crate::plan::{ExistingMount, HookKind, OneOff, Operation, Step, Target};
use rdock_runtime::image::{Digest, Platform, Progress, Reference};
use rdock_runtime::{Container, Error};
use std::sync::Arc;
use std::time::Duration;

/// Does one step.
pub(super) async fn perform(compose: &ComposeProject, step: &Step) -> Result<(), StepError> {
    let runtime = compose.runtime();
    match &step.operation {
        Operation::PullImage {
            service,
            image,
            platform,
            optional,
        } => match pull(compose, step, image, platform.as_deref()).await {
            Err(error) if *optional => {
                warn(compose, step, &named(service, error));
                Ok(())
            }
            other => other.map_err(|error| named(service, error)),
        },
        Operation::BuildImage { service, image } => super::images::build(compose, step, service, image).await,
        Operation::RemoveImage { image } => {
            let (store, image) = (runtime.images().clone(), image.clone());
            let removed = blocking(move || match store.remove(&image, false) {
                Ok(_) | Err(rdock_runtime::image::Error::NotFound { .. }) => Ok(None),
                // Someone else's container has it.
                Err(error @ rdock_runtime::image::Error::ImageInUse { .. }) => Ok(Some(error)),
                Err(error) => Err(Error::from(error).into()),
            });
            if let Some(used) = removed.await? {
                warn(compose, step, &Error::from(used).into());
            }
            Ok(())
        }
        Operation::CreateNetwork { key, .. } => {
            let (runtime, spec) = (runtime.clone(), convert::network_spec(compose.project(), key));
            let spec = spec.map_err(|message| StepError::Project { message })?;
            blocking(move || Ok(runtime.networks().create(&spec).map(drop).map_err(Error::from)?)).await
        }
        Operation::RemoveNetwork { name, .. } => {
            let (runtime, name) = (runtime.clone(), name.clone());
            blocking(move || Ok(runtime.networks().remove(&name).map_err(Error::from)?)).await
        }
        Operation::CreateVolume { key, .. } => {
            let (runtime, options) = (runtime.clone(), convert::volume_options(compose.project(), key));
            let options = options.map_err(|message| StepError::Project { message })?;
            blocking(move || {
                Ok(runtime
                    .volumes()
                    .create_with(&options)
                    .map(drop)
                    .map_err(Error::from)?)
            })
            .await
        }
        Operation::RemoveVolume { name } => {
            let (runtime, name) = (runtime.clone(), name.clone());
            blocking(move || Ok(runtime.volumes().remove(&name, false).map_err(Error::from)?)).await
        }
        Operation::CreateContainer {
            service,
            number,
            name,
            replaces,
            inherits,
            one_off,
        } => {
            let wanted = Wanted {
                service,
                number: *number,
                name,
                replaces: replaces.is_some(),
                inherits,
                one_off: one_off.as_ref(),
            };
            create(compose, step, wanted).await
        }
        Operation::RenameContainer { from, to } => Ok(runtime.container(from)?.rename(to).await?),
        Operation::StartContainer { container } => start(compose, step, container).await,
        Operation::StopContainer { container, timeout } => gone_is_done(match find(compose, container) {
            Ok(found) => found.stop(timeout.map(Duration::from_secs)).await.map(drop),
            Err(error) => Err(error),
        }),
        Operation::RestartContainer { container, timeout } => {
            let found = find(compose, container)?;
            Ok(found.restart(timeout.map(Duration::from_secs)).await?)
        }
        Operation::KillContainer { container, signal } => gone_is_done(match find(compose, container) {
            Ok(found) => found.kill(signal).await,
            Err(error) => Err(error),
        }),
        Operation::PauseContainer { container } => match find(compose, container)?.pause().await {
            Err(Error::Paused { .. }) => Ok(()),
            other => Ok(other?),
        },
        Operation::UnpauseContainer { container } => match find(compose, container)?.unpause().await {
            Err(Error::NotPaused { .. }) => Ok(()),
            other => Ok(other?),
        },
        Operation::RemoveContainer {
            container,
            volumes,
            force,
        } => remove(compose, container, *volumes, *force).await,
        Operation::RunHook {
            service,
            container,
            kind,
            index,
        } => match kind {
            HookKind::PreStart => hooks::before_start(compose, service, container, *index).await,
            HookKind::PostStart => hooks::inside(compose, service, container, *index, true).await,
            HookKind::PreStop => hooks::inside(compose, service, container, *index, false).await,
        },
        Operation::RunProvider { service, action } => {
            super::provider::run(compose, step, service, *action).await
        }
        Operation::Wait {
            containers,
            condition,
            optional,
            ..
        } => match wait::wait(runtime, containers, *condition).await {
            Err(error) if *optional => {
                warn(compose, step, &error);
                Ok(())
            }
            other => other,
        },
    }
}

/// Tells of a failure that stops nothing.
fn warn(compose: &ComposeProject, step: &Step, error: &StepError) {
    let message = Causes(error).to_string();
    compose.receiver.send(ApplyEvent::Warning {
        step,
        message: &message,
    });
}

/// An error of the image's is one of its service's.
fn named(service: &str, error: StepError) -> StepError {
    match error {
        StepError::Project { message } => StepError::Service {
            service: service.to_owned(),
            message,
        },
        other => other,
    }
}

/// The container, by its id where the plan knew it.
pub(super) fn find(compose: &ComposeProject, target: &Target) -> Result<Container, Error> {
    compose
        .runtime()
        .container(target.id.as_ref().unwrap_or(&target.name))
}

/// Starts a container, and says what it has to do without on this machine.
async fn start(compose: &ComposeProject, step: &Step, target: &Target) -> Result<(), StepError> {
    let container = find(compose, target)?;
    loop {
        match container.start().await {
            // Since the plan was made somebody began to stop it.
            Err(Error::AlreadyRunning { .. }) if container.inspect()?.stopping => {
                gone_is_done(container.stop(None).await.map(drop))?;
            }
            // An earlier plan that was interrupted did it already.
            Err(Error::AlreadyRunning { .. }) => return Ok(()),
            other => break other?,
        }
    }
    // One that has ended and removed itself has nothing more to say.
    let info = blocking(move || Ok(container.inspect().ok())).await?;
    for message in info.map(|info| info.warnings).unwrap_or_default() {
        compose.receiver.send(ApplyEvent::Warning {
            step,
            message: &message,
        });
    }
    Ok(())
}

/// What is not there any more, or does not run, is stopped.
fn gone_is_done(result: Result<(), Error>) -> Result<(), StepError> {
    match result {
        Ok(()) | Err(Error::NoSuchContainer { .. } | Error::NotRunning { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StepError::Cancelled),
        },
    }
}

async fn pull(
    compose: &ComposeProject,
    step: &Step,
    image: &str,
    platform: Option<&str>,
) -> Result<(), StepError> {
    let platform = match platform.map(str::parse).transpose() {
        Ok(platform) => platform.unwrap_or_else(Platform::host),
        Err(error) => {
            let message = format!("platform: {error}");
            return Err(StepError::Project { message });
        }
    };
    let reference: Reference =
        image
            .parse()
            .map_err(|error: rdock_runtime::image::Error| StepError::Project {
                message: format!("image: {error}"),
            })?;
    let (receiver, of) = (compose.receiver.clone(), Arc::new(step.clone()));
    let progress = Progress::new(move |event| {
        receiver.send(ApplyEvent::Image {
            step: &of,
            event: ImageEvent::Pull(&event),
        });
    });
    compose
        .runtime()
        .pull_platform(&reference, &platform, &progress)
        .await?;
    Ok(())
}

/// A container that is to be made.
struct Wanted<'a> {
    service: &'a str,
    number: u32,
    name: &'a str,
    replaces: bool,
    inherits: &'a [ExistingMount],
    one_off: Option<&'a OneOff>,
}

async fn create(compose: &ComposeProject, step: &Step, wanted: Wanted<'_>) -> Result<(), StepError> {
    let (project, runtime) = (compose.project(), compose.runtime());
    let of_service = |message| StepError::Service {
        service: wanted.service.to_owned(),
        message,
    };
    let (store, reference) = (runtime.images().clone(), project.image_of(wanted.service));
    let (image_id, image_entrypoint) = blocking(move || {
        let image = store.get(&reference).map_err(Error::from)?;
        let entrypoint = image
            .as_ref()
            .and_then(|image| image.config().config.entrypoint.clone());
        Ok((image.map(|image| image.id().to_string()), entrypoint))
    })
    .await?;
    let image_layers = image_layers(compose, step, wanted.service).await?;
    let making = Making {
        project,
        service: wanted.service,
        number: wanted.number,
        name: wanted.name,
        image_id: image_id.as_deref(),
        image_entrypoint: image_entrypoint.as_deref().unwrap_or_default(),
        one_off: wanted.one_off,
        replaces: wanted.replaces,
        inherits: wanted.inherits,
        image_layers: &image_layers,
    };
    let converted = convert::container(&making).map_err(of_service)?;
    for message in &converted.notes {
        compose.receiver.send(ApplyEvent::Warning { step, message });
    }
    let mut spec = converted.spec;
    if wanted.one_off.is_some()
        && let Some(change) = &compose.one_off
    {
        (change.0)(&mut spec);
    }
    match spec.create(runtime).await {
        // Made by an earlier plan that was interrupted after this step: it has the same name and the same hash.
        Err(Error::NameInUse { name, id }) => {
            let there = runtime.container(&name)?.inspect()?;
            let hash = crate::names::label::CONFIG_HASH;
            match there.spec.labels.get(hash) == spec.labels.get(hash) && wanted.one_off.is_none() {
                true => Ok(()),
                false => Err(Error::NameInUse { name, id }.into()),
            }
        }
        other => Ok(other.map(drop)?),
    }
}

/// Brings the images here that the service mounts; their layers, by the references of the file.
async fn image_layers(
    compose: &ComposeProject,
    step: &Step,
    service: &str,
) -> Result<Vec<(String, Vec<Digest>)>, StepError> {
    let mut layers = Vec::new();
    let Some(service) = compose.project().any_service(service) else {
        return Ok(layers);
    };
    let mounted = service.volumes.iter().filter(|volume| volume.r#type == "image");
    for reference in mounted.filter_map(|volume| volume.source.as_ref()) {
        let store = compose.runtime().images().clone();
        if store.get(reference).map_err(Error::from)?.is_none() {
            pull(compose, step, reference, None).await?;
        }
        let name = reference.clone();
        let found = blocking(move || {
            let image = store.get(&name).map_err(Error::from)?;
            Ok(image.map(|image| image.diff_ids().to_vec()))
        })
        .await?;
        layers.push((reference.clone(), found.unwrap_or_default()));
    }
    Ok(layers)
}

async fn remove(
    compose: &ComposeProject,
    target: &Target,
    volumes: bool,
    force: bool,
) -> Result<(), StepError> {
    let container = match find(compose, target) {
        Err(Error::NoSuchContainer { .. }) => return Ok(()),
        other => other?,
    };
    let mut removed = container.remove_with(false, volumes).await;
    if force && matches!(removed, Err(Error::StillRunning { .. })) {
        gone_is_done(container.stop(None).await.map(drop))?;
        removed = container.remove_with(true, volumes).await;
    }
    gone_is_done(removed)
}
