//! What runs, as whom, with what, and what happens afterwards.

use super::{Making, note, wrong};
use crate::model::{HealthCheck, Service};
use rdock_runtime::{
    ContainerSpec, HealthCheck as Check, HealthTest, LogConfig, NamespaceMode, RestartPolicy, Seccomp,
};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Bytes of a seccomp profile.
const LONGEST_PROFILE: u64 = 4 << 20;

pub(super) fn fill(
    spec: &mut ContainerSpec,
    making: &Making<'_>,
    service: &Service,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    spec.entrypoint.clone_from(&service.entrypoint.0);
    match &service.command.0 {
        // "the default command declared by the image is ignored" (Compose Specification, "command"). With an entry
        // point of its own a container has none of the image's command.
        Some(command) if command.is_empty() && spec.entrypoint.is_none() => {
            spec.entrypoint = match making.image_entrypoint {
                [] => {
                    let reason = "it is empty, and the image has no entry point: nothing would run";
                    return Err(wrong("command", reason));
                }
                entrypoint => Some(entrypoint.to_vec()),
            };
        }
        Some(command) => spec.args.clone_from(command),
        None => {}
    }
    for (name, value) in &service.environment {
        match value {
            Some(value) => spec.env.push((name.clone(), value.clone())),
            // Without a value anywhere it is unset (Compose Specification, "environment"): not even the image's stays.
            None => spec.unset_env.push(name.clone()),
        }
    }
    spec.working_dir.clone_from(&service.working_dir);
    spec.user.clone_from(&service.user);
    spec.groups.clone_from(&service.group_add);
    spec.hostname.clone_from(&service.hostname);
    spec.domainname.clone_from(&service.domainname);
    spec.init = service.init.unwrap_or(false);
    spec.terminal = service.tty;
    spec.interactive = service.stdin_open;
    spec.read_only = service.read_only;
    spec.privileged = service.privileged;
    spec.cap_add.clone_from(&service.cap_add);
    spec.cap_drop.clone_from(&service.cap_drop);
    spec.stop_signal.clone_from(&service.stop_signal);
    if let Some(time) = service.stop_grace_period {
        spec.stop_timeout = time.duration();
    }
    if let Some(score) = service.oom_score_adj {
        let score = i32::try_from(score).map_err(|error| wrong("oom_score_adj", error))?;
        spec.oom_score_adj = Some(score);
    }
    security(spec, making, service, notes)?;
    namespaces(spec, service)?;
    spec.restart = restart(service)?;
    spec.health = service.healthcheck.as_ref().map(health).transpose()?;
    spec.log = log(service)?;
    for (name, value) in &service.annotations {
        spec.annotations.insert(name.clone(), value.clone());
    }
    Ok(())
}

fn security(
    spec: &mut ContainerSpec,
    making: &Making<'_>,
    service: &Service,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    for option in &service.security_opt {
        // Both signs are in use.
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option.as_str(), ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => spec.no_new_privileges = true,
            ("no-new-privileges", "false") => spec.no_new_privileges = false,
            ("seccomp", "unconfined") => spec.seccomp = Seccomp::Unconfined,
            ("seccomp", path) => {
                let path = crate::schema::clean(&making.project.working_dir.join(path));
                let text = profile(&path)
                    .map_err(|error| wrong("security_opt", format!("seccomp={}: {error}", path.display())))?;
                spec.seccomp = Seccomp::Profile(text);
            }
            ("apparmor" | "label", _) => note(
                notes,
                true,
                &format!("security_opt: {option}"),
                "containers run in their caller's domain",
            ),
            _ => return Err(wrong("security_opt", format!("{option:?} is not known"))),
        }
    }
    Ok(())
}

/// The text of a seccomp profile; what comes after its most bytes is not JSON any more.
fn profile(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = crate::load::open_regular(path)?;
    file.take(LONGEST_PROFILE).read_to_string(&mut text)?;
    Ok(text)
}

fn namespaces(spec: &mut ContainerSpec, service: &Service) -> Result<(), String> {
    let mode = |attribute: &str, value: &Option<String>| match value.as_deref() {
        // Those of other services are names of containers by now.
        Some(text) => NamespaceMode::parse(text).map_err(|error| wrong(attribute, error)),
        None => Ok(NamespaceMode::Private),
    };
    if !is_of_service(&service.pid) {
        spec.pid = mode("pid", &service.pid)?;
    }
    if !is_of_service(&service.ipc) {
        spec.ipc = mode("ipc", &service.ipc)?;
    }
    spec.uts = mode("uts", &service.uts)?;
    spec.cgroup_namespace = mode("cgroup", &service.cgroup)?;
    Ok(())
}

/// Whether a namespace is shared with a service, which [`super::networks`] resolves.
fn is_of_service(value: &Option<String>) -> bool {
    value.as_deref().is_some_and(|text| text.starts_with("service:"))
}

/// `restart`, else what `deploy` says.
fn restart(service: &Service) -> Result<RestartPolicy, String> {
    if let Some(text) = &service.restart {
        return RestartPolicy::parse(text).map_err(|error| wrong("restart", error));
    }
    let Some(policy) = service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.restart_policy.as_ref())
    else {
        return Ok(RestartPolicy::No);
    };
    let max = policy.max_attempts.and_then(|max| u32::try_from(max).ok());
    match policy.condition.as_deref() {
        Some("none") => Ok(RestartPolicy::No),
        Some("on-failure") => Ok(RestartPolicy::OnFailure {
            max: max.filter(|max| *max > 0),
        }),
        None | Some("any" | "always" | "unless-stopped") => Ok(RestartPolicy::UnlessStopped),
        Some(other) => Err(wrong(
            "deploy.restart_policy.condition",
            format!("{other:?} is not none, on-failure or any"),
        )),
    }
}

fn health(check: &HealthCheck) -> Result<Check, String> {
    if check.disable {
        return Ok(Check::none());
    }
    let test = match check.test.split_first() {
        None => HealthTest::Image,
        Some((kind, rest)) => match (kind.as_str(), rest) {
            ("NONE", []) => HealthTest::None,
            ("CMD", [_, ..]) => HealthTest::Command(rest.to_vec()),
            ("CMD-SHELL", [text]) => HealthTest::Shell(text.clone()),
            _ => {
                return Err(wrong(
                    "healthcheck.test",
                    format!(
                        "{:?} is not NONE, CMD with a program, or CMD-SHELL with one text",
                        check.test
                    ),
                ));
            }
        },
    };
    let time =
        |value: Option<crate::model::Time>| -> Option<Duration> { value.map(crate::model::Time::duration) };
    let mut made = Check::default();
    made.test = test;
    made.interval = time(check.interval);
    made.timeout = time(check.timeout);
    made.start_period = time(check.start_period);
    made.start_interval = time(check.start_interval);
    if let Some(retries) = check.retries {
        made.retries = Some(u32::try_from(retries).map_err(|error| wrong("healthcheck.retries", error))?);
    }
    Ok(made)
}

fn log(service: &Service) -> Result<LogConfig, String> {
    let mut config = LogConfig::default();
    let Some(logging) = &service.logging else {
        return Ok(config);
    };
    if let Some(driver) = &logging.driver {
        // Logs are kept as files then; the loader has told so.
        let known = config.parse_driver(driver).is_ok();
        if !known {
            return Ok(config);
        }
    }
    for (name, value) in &logging.options {
        let text = format!("{name}={}", value.as_deref().unwrap_or_default());
        config
            .parse_option(&text)
            .map_err(|error| wrong("logging.options", error))?;
    }
    Ok(config)
}
