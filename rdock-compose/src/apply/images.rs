//! Images of services that are built.

use super::event::{ApplyEvent, ImageEvent};
use super::{ComposeProject, StepError};
use crate::model::{Build, Project};
use crate::plan::Step;
use rdock_build::{
    BuildProgress, Builder, CacheSource, CacheTarget, Context, NamedContext, PullPolicy, Secret,
};
use rdock_runtime::NetworkMode;
use rdock_runtime::image::{Platform, Reference};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Builds a service's image under `image` and its other names.
pub(super) async fn build(
    compose: &ComposeProject,
    step: &Step,
    service: &str,
    image: &str,
) -> Result<(), StepError> {
    let project = compose.project();
    let of_service = |message| StepError::Service {
        service: service.to_owned(),
        message,
    };
    let wanted = project
        .any_service(service)
        .and_then(|service| service.build.as_ref());
    let wanted = wanted.ok_or_else(|| of_service("build: it says not how".to_owned()))?;
    let mut notes = Vec::new();
    let builder = builder(project, service, wanted, image, &mut notes).map_err(of_service)?;
    for message in &notes {
        compose.receiver.send(ApplyEvent::Warning { step, message });
    }
    let (receiver, of) = (compose.receiver.clone(), Arc::new(step.clone()));
    let progress = BuildProgress::new(move |event| {
        receiver.send(ApplyEvent::Image {
            step: &of,
            event: ImageEvent::Build(&event),
        });
    });
    let mut builder = builder.progress(progress);
    if let Some(change) = &compose.builds {
        builder = (change.0)(builder);
    }
    let built = builder.build(compose.runtime()).await;
    built.map(drop).map_err(|source| StepError::Build {
        service: service.to_owned(),
        source: Box::new(source),
    })
}

/// The builder for `build`; what it cannot do is noted.
pub(super) fn builder(
    project: &Project,
    service: &str,
    build: &Build,
    image: &str,
    notes: &mut Vec<String>,
) -> Result<Builder, String> {
    let remote = build.context.contains("://") || build.context.starts_with("git@");
    let context = match &build.dockerfile_inline {
        _ if remote => Context::Url(build.context.clone()),
        Some(_) if build.context.is_empty() => Context::Empty,
        _ => Context::Directory(PathBuf::from(&build.context)),
    };
    let mut builder = Builder::from_context(context).tag(image);
    if let Some(text) = &build.dockerfile_inline {
        builder = builder.dockerfile_text(text);
    } else if let Some(path) = build.dockerfile.as_ref().filter(|_| remote) {
        builder = builder.dockerfile(path);
    } else if let Some(path) = &build.dockerfile {
        builder = builder.dockerfile(Path::new(&build.context).join(path));
    }
    for tag in &build.tags {
        builder = builder.tag(tag);
    }
    for (name, value) in &build.args {
        if let Some(value) = value {
            builder = builder.build_arg(name, value);
        }
    }
    for (name, value) in &build.labels {
        builder = builder.label(name, value);
    }
    if let Some(target) = &build.target {
        builder = builder.target(target);
    }
    builder = builder.no_cache(build.no_cache);
    for stage in &build.no_cache_filter {
        builder = builder.no_cache_stage(stage);
    }
    if build.pull {
        builder = builder.pull(PullPolicy::Always);
    }
    for (host, address) in build.extra_hosts.pairs() {
        builder = builder.add_host(host, address);
    }
    if let Some(network) = &build.network {
        let mode = NetworkMode::parse(network).map_err(|error| format!("build.network: {error}"))?;
        builder = builder.network(mode);
    }
    let host_network = build.entitlements.iter().any(|name| name == "network.host");
    builder = builder.allow_host_network(host_network);
    if let Some(size) = build.shm_size.filter(|size| size.0 > 0) {
        builder = builder.shm_size(size.0.unsigned_abs());
    }
    for (name, limit) in &build.ulimits {
        let (soft, hard) = limit.limits();
        builder = builder.ulimit(name, soft as u64, hard as u64);
    }
    for (name, value) in &build.additional_contexts {
        builder = builder.build_context(name, named_context(project, value)?);
    }
    for grant in &build.secrets {
        let id = grant.target.as_ref().unwrap_or(&grant.source);
        builder = builder.secret(id, secret(project, &grant.source)?);
    }
    for text in &build.cache_from {
        match cache_source(project, text) {
            Ok(source) => builder = builder.cache_from(source),
            // Of a cache that cannot be had nothing is taken.
            Err(reason) => notes.push(format!("build.cache_from: {reason}")),
        }
    }
    for text in &build.cache_to {
        builder = builder.cache_to(cache_target(project, text)?);
    }
    let insecure = build.entitlements.iter().any(|name| name == "security.insecure");
    let wanted = |value: &Option<String>| value.as_deref().is_some_and(|value| value != "false");
    for (there, attribute, reason) in [
        (
            !build.ssh.is_empty(),
            "build.ssh",
            "agents and keys are for RUN --mount=type=ssh, which the builder refuses",
        ),
        (
            build.privileged || insecure,
            "build.privileged",
            "it allows RUN --security=insecure, which the builder refuses",
        ),
        (
            wanted(&build.provenance),
            "build.provenance",
            "the builder writes no attestations beside an image",
        ),
        (
            wanted(&build.sbom),
            "build.sbom",
            "the builder writes no attestations beside an image",
        ),
    ] {
        if there {
            notes.push(format!("{attribute}: {reason}"));
        }
    }
    for name in &build.entitlements {
        if !matches!(name.as_str(), "network.host" | "security.insecure") {
            notes.push(format!("build.entitlements: {name:?} allows nothing here"));
        }
    }
    let owned = |attribute: &str| {
        let grants = &build.secrets;
        let there = match attribute {
            "uid" => grants.iter().any(|grant| grant.uid.is_some()),
            "gid" => grants.iter().any(|grant| grant.gid.is_some()),
            _ => grants.iter().any(|grant| grant.mode.is_some()),
        };
        there.then(|| format!("build.secrets: {attribute}: the Dockerfile's RUN --mount says it"))
    };
    notes.extend(["uid", "gid", "mode"].into_iter().filter_map(owned));
    let wanted = project.platform_of(service);
    let platform = match (wanted, build.platforms.as_slice()) {
        (None, []) => return Ok(builder),
        (None, [only]) => only.clone(),
        (None, several) => {
            let host = Platform::host().to_string();
            if !several.contains(&host) {
                return Err(format!(
                    "build.platforms: this machine's, {host}, is not one of them"
                ));
            }
            notes.push(format!("build.platforms: one image is built, for {host}"));
            host
        }
        (Some(wanted), []) => wanted,
        (Some(wanted), several) if several.contains(&wanted) => wanted,
        (Some(wanted), _) => {
            return Err(format!(
                "build.platforms: the service's platform {wanted} is not one of them"
            ));
        }
    };
    let platform = platform.parse().map_err(|error| format!("platform: {error}"))?;
    Ok(builder.platform(platform))
}

/// A relative folder is one of the project's.
fn cache_source(project: &Project, text: &str) -> Result<CacheSource, String> {
    let mut source = CacheSource::parse(text).map_err(|error| error.to_string())?;
    if let CacheSource::Local { path, .. } = &mut source {
        *path = project.working_dir.join(&*path);
    }
    Ok(source)
}

fn cache_target(project: &Project, text: &str) -> Result<CacheTarget, String> {
    let mut target = CacheTarget::parse(text).map_err(|error| format!("build.cache_to: {error}"))?;
    if let CacheTarget::Local { path, .. } = &mut target {
        *path = project.working_dir.join(&*path);
    }
    Ok(target)
}

fn named_context(project: &Project, value: &str) -> Result<NamedContext, String> {
    let image = |text: &str| {
        text.parse::<Reference>()
            .map(NamedContext::Image)
            .map_err(|error| format!("build.additional_contexts: {error}"))
    };
    if let Some(reference) = value.strip_prefix("docker-image://") {
        return image(reference);
    }
    if let Some(service) = value.strip_prefix("service:") {
        return image(&project.image_of(service));
    }
    match value.contains("://") {
        true => Err(format!(
            "build.additional_contexts: {value} is remote, and only folders and images are used"
        )),
        false => Ok(NamedContext::Directory(PathBuf::from(value))),
    }
}

fn secret(project: &Project, key: &str) -> Result<Secret, String> {
    let secret = project
        .secrets
        .get(key)
        .ok_or_else(|| format!("build.secrets: the project has no secret {key:?}"))?;
    if let Some(file) = &secret.file {
        return Ok(Secret::File(PathBuf::from(file)));
    }
    let variable = secret.environment.as_ref();
    let value = variable.and_then(|name| project.environment.get(name));
    match (variable, value) {
        (_, Some(value)) => Ok(Secret::Value(value.clone().into_bytes())),
        (Some(name), None) => Err(format!("secrets.{key}: the variable {name:?} is not set")),
        (None, None) => Err(format!("secrets.{key}: it has neither a file nor a variable")),
    }
}
