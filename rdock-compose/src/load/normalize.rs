//! What is not written and always meant: defaults, names, the default network, implied dependencies.

use super::LoadOptions;
use crate::model::{Dependency, Project, Service};
use crate::source::Span;
use crate::yaml::{Node, Value};

/// Defaults of a canonical tree, before it is typed.
pub(super) fn defaults(tree: &mut Node) {
    for kind in ["networks", "volumes"] {
        if let Some(map) = tree.get_mut(kind).and_then(Node::as_map_mut) {
            for entry in map.values_mut().filter(|entry| entry.node.is_null()) {
                entry.node.value = Value::Map(Default::default());
            }
        }
    }
    let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) else {
        return;
    };
    for service in services.values_mut() {
        let service = &mut service.node;
        for port in list(service, "ports") {
            missing(port, "mode", "ingress");
            missing(port, "protocol", "tcp");
        }
        for volume in list(service, "volumes") {
            if volume.get("type").and_then(Node::as_text) == Some("bind") {
                if volume.get("bind").is_none() {
                    volume.set("bind", Node::empty_map(volume.span));
                }
                if let Some(bind) = volume.get_mut("bind")
                    && bind.get("create_host_path").is_none()
                {
                    bind.set("create_host_path", Node::new(bind.span, Value::Bool(true)));
                }
            }
        }
        let logging = service.get_mut("logging");
        let options = logging.and_then(|logging| logging.get_mut("options"));
        for option in options
            .and_then(Node::as_map_mut)
            .into_iter()
            .flat_map(|map| map.values_mut())
        {
            if option.node.is_null() {
                option.node.value = Value::Text(String::new());
            }
        }
        for secret in list(service, "secrets") {
            if let Some(source) = secret.get("source").and_then(Node::as_text) {
                let target = format!("/run/secrets/{source}");
                missing(secret, "target", &target);
            }
        }
        list(service, "gpus").for_each(all_devices);
        let reservations = service
            .get_mut("deploy")
            .and_then(|deploy| deploy.get_mut("resources"))
            .and_then(|resources| resources.get_mut("reservations"));
        if let Some(reservations) = reservations {
            list(reservations, "devices").for_each(all_devices);
        }
    }
}

fn list<'a>(node: &'a mut Node, key: &str) -> impl Iterator<Item = &'a mut Node> {
    let list = match node.get_mut(key).map(|node| &mut node.value) {
        Some(Value::List(list)) => list.as_mut_slice(),
        _ => &mut [],
    };
    list.iter_mut()
}

fn missing(node: &mut Node, key: &str, value: &str) {
    if node.as_map().is_some_and(|map| !map.contains_key(key)) {
        node.set(key, Node::text(node.span, value));
    }
}

fn all_devices(request: &mut Node) {
    let has = |key: &str| request.get(key).is_some();
    if request.as_map().is_some() && !has("count") && !has("device_ids") {
        request.set("count", Node::new(Span::default(), Value::Int(-1)));
    }
}

/// Names, networks and dependencies of a typed project.
pub(super) fn project(project: &mut Project) {
    let mut uses_default = false;
    for service in project.services.values_mut() {
        if service.provider.is_none() && service.network_mode.is_none() && service.networks.is_empty() {
            service.networks.insert("default".to_owned(), None);
        }
        uses_default |= service.networks.contains_key("default");
        if let Some(build) = &mut service.build {
            if build.context.is_empty() {
                build.context = project.working_dir.to_string_lossy().into_owned();
            }
            if build.dockerfile.is_none() && build.dockerfile_inline.is_none() {
                build.dockerfile = Some("Dockerfile".to_owned());
            }
        }
        if service.pull_policy.as_deref() == Some("if_not_present") {
            service.pull_policy = Some("missing".to_owned());
        }
        implied(service);
    }
    if uses_default {
        project.networks.entry("default".to_owned()).or_default();
    }
    let full = |key: &str, external: bool, name: &mut String| {
        if name.is_empty() {
            *name = if external {
                key.to_owned()
            } else {
                format!("{}_{key}", project.name)
            };
        }
    };
    for (key, network) in &mut project.networks {
        full(key, network.external, &mut network.name);
        if !network.external {
            network.ipam.get_or_insert_default();
        }
    }
    for (key, volume) in &mut project.volumes {
        full(key, volume.external, &mut volume.name);
    }
    for (key, secret) in &mut project.secrets {
        full(key, secret.external, &mut secret.name);
    }
    for (key, config) in &mut project.configs {
        full(key, config.external, &mut config.name);
    }
}

/// What a service uses of others is a dependency.
fn implied(service: &mut Service) {
    let mut needs = Vec::new();
    for link in &service.links {
        needs.push((link.split(':').next().unwrap_or(link).to_owned(), true));
    }
    let modes = [
        &service.network_mode,
        &service.ipc,
        &service.pid,
        &service.uts,
        &service.cgroup,
    ];
    for mode in modes.into_iter().flatten() {
        if let Some(other) = mode.strip_prefix("service:") {
            needs.push((other.to_owned(), true));
        }
    }
    for source in &service.volumes_from {
        if !source.starts_with("container:") {
            needs.push((source.split(':').next().unwrap_or(source).to_owned(), false));
        }
    }
    for (name, restart) in needs {
        let dependency = Dependency {
            restart,
            ..Dependency::default()
        };
        service.depends_on.entry(name).or_insert(dependency);
    }
}

/// Services that no active profile has go aside.
pub(super) fn profiles(project: &mut Project, options: &LoadOptions) {
    let variable = project
        .environment
        .get("COMPOSE_PROFILES")
        .map_or("", String::as_str);
    let more = variable.split(',').map(str::trim).filter(|name| !name.is_empty());
    project.profiles = more
        .map(str::to_owned)
        .chain(options.profiles.iter().cloned())
        .collect();
    let all = project.profiles.contains("*");
    let services = std::mem::take(&mut project.services);
    for (name, service) in services {
        let active = service
            .profiles
            .iter()
            .any(|profile| project.profiles.contains(profile));
        if all || active || service.profiles.is_empty() {
            project.services.insert(name, service);
        } else {
            project.disabled_services.insert(name, service);
        }
    }
}
