//! Commands around the life of a container.

use super::{ComposeProject, StepError, wait};
use crate::convert::{self, Making};
use crate::model::{Hook, Project};
use crate::plan::OneOff;
use rdock_runtime::{ContainerSpec, HealthCheck, RestartPolicy};

/// How much of a hook's output an error shows, in bytes.
const OUTPUT: usize = 4096;

/// Runs a hook in the container: after its start, or before its stop.
pub(super) async fn inside(
    compose: &ComposeProject,
    service: &str,
    container: &str,
    index: usize,
    after_start: bool,
) -> Result<(), StepError> {
    let hooks = compose
        .project()
        .any_service(service)
        .map(|service| match after_start {
            true => &service.post_start,
            false => &service.pre_stop,
        });
    let Some(hook) = hooks.and_then(|hooks| hooks.get(index)) else {
        return Ok(());
    };
    let found = compose.runtime().container(container)?;
    if !after_start && !found.status()?.is_running() {
        return Ok(());
    }
    compose.run_hook(container, hook).await.map(drop)
}

impl ComposeProject {
    /// Runs a command in a container; the end of what it wrote.
    pub(crate) async fn run_hook(&self, container: &str, hook: &Hook) -> Result<Vec<u8>, StepError> {
        let found = self.runtime().container(container)?;
        let command = hook.command.clone().unwrap_or_default();
        let mut exec = found
            .exec(command.clone())
            .privileged(hook.privileged)
            .keep_last(OUTPUT);
        if let Some(user) = &hook.user {
            exec = exec.user(user);
        }
        if let Some(dir) = &hook.working_dir {
            exec = exec.working_dir(dir);
        }
        for (name, value) in environment(hook) {
            exec = exec.env(name, value);
        }
        let output = exec.output().await?;
        let mut said = output.stdout;
        said.extend(output.stderr);
        if output.status.success() {
            return Ok(said);
        }
        let end = &said[said.len().saturating_sub(OUTPUT)..];
        Err(StepError::Hook {
            container: container.to_owned(),
            command,
            code: output.status.code().unwrap_or(-1),
            output: String::from_utf8_lossy(end).into_owned(),
        })
    }
}

fn environment(hook: &Hook) -> impl Iterator<Item = (&String, &String)> {
    hook.environment
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| (name, value)))
}

/// Runs a hook before the container starts: in a container of its own, of the hook's image or the service's, with the
/// service's networks and mounts.
pub(super) async fn before_start(
    compose: &ComposeProject,
    service: &str,
    container: &str,
    index: usize,
) -> Result<(), StepError> {
    let project = compose.project();
    let Some(hook) = project
        .any_service(service)
        .and_then(|service| service.pre_start.get(index))
    else {
        return Ok(());
    };
    let name = format!("{container}-pre-start-{index}");
    let spec = pre_start_spec(project, service, hook, &name).map_err(|message| StepError::Service {
        service: service.to_owned(),
        message,
    })?;
    if let Ok(left) = compose.runtime().container(&name) {
        // An interrupted run left it.
        left.remove_with(true, true).await?;
    }
    let made = spec.start_detached(compose.runtime()).await?;
    let exit = made.wait().await?;
    let output = wait::last_lines(&made).await.join("\n");
    made.remove_with(true, true).await?;
    match exit.success() {
        true => Ok(()),
        false => Err(StepError::Hook {
            container: container.to_owned(),
            command: hook.command.clone().unwrap_or_default(),
            code: exit.code(),
            output,
        }),
    }
}

/// The container that a hook runs in before its service's starts.
///
/// # Errors
/// The attribute of the service whose value no container can have, and why.
pub(super) fn pre_start_spec(
    project: &Project,
    service: &str,
    hook: &Hook,
    name: &str,
) -> Result<ContainerSpec, String> {
    let one_off = OneOff {
        slug: name.to_owned(),
        ..OneOff::default()
    };
    let making = Making {
        project,
        service,
        number: 1,
        name,
        image_id: None,
        image_entrypoint: &[],
        one_off: Some(&one_off),
        replaces: false,
        inherits: &[],
        image_layers: &[],
    };
    let mut spec = convert::container(&making)?.spec;
    let command = hook.command.clone().unwrap_or_default();
    if let Some(image) = &hook.image {
        spec.image.clone_from(image);
        // The service's own program is not in there.
        spec.entrypoint = None;
        spec.args.clone_from(&command);
    } else {
        spec.entrypoint = Some(command.clone());
        spec.args.clear();
    }
    spec.privileged |= hook.privileged;
    if hook.user.is_some() {
        spec.user.clone_from(&hook.user);
    }
    if hook.working_dir.is_some() {
        spec.working_dir.clone_from(&hook.working_dir);
    }
    for (name, value) in environment(hook) {
        spec.env.push((name.clone(), value.clone()));
    }
    spec.restart = RestartPolicy::No;
    spec.health = Some(HealthCheck::none());
    Ok(spec)
}
