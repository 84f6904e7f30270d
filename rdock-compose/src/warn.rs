//! Attributes that are accepted and have no meaning here, each with the reason.

use crate::error::{Warning, WarningKind};
use crate::model::Project;

/// Attributes of a service, as paths into its JSON, and why nothing comes of them.
const SERVICE: [(&str, &str); 19] = [
    ("cpu_count", "it is for Windows containers"),
    ("cpu_percent", "it is for Windows containers"),
    ("credential_spec", "it is for Windows containers"),
    ("isolation", "it is for Windows containers"),
    ("build.isolation", "it is for Windows containers"),
    (
        "runtime",
        "containers are run by this program itself, not by an OCI runtime",
    ),
    ("storage_opt", "snapshots have no size limit of their own"),
    (
        "use_api_socket",
        "there is no container engine whose socket could be mounted",
    ),
    (
        "deploy.resources.reservations.cpus",
        "a single machine does not reserve processors",
    ),
    (
        "deploy.resources.reservations.generic_resources",
        "there is no cluster with operator-defined resources",
    ),
    (
        "deploy.mode",
        "there is one machine; replicas says how many containers it runs",
    ),
    (
        "deploy.endpoint_mode",
        "a service's name always resolves to all of its containers",
    ),
    ("deploy.placement", "there is one machine"),
    (
        "deploy.update_config",
        "containers are replaced one by one, in the order of dependencies",
    ),
    ("deploy.rollback_config", "an update that fails is not taken back"),
    (
        "deploy.labels",
        "a service is not an object of its own here; labels are those of containers",
    ),
    (
        "deploy.restart_policy.window",
        "a container counts as started when its process runs",
    ),
    ("models", "there is no runner of models"),
    (
        "deploy.restart_policy.delay",
        "the time between two attempts doubles from 100 ms to a minute",
    ),
];

/// Adds a warning for every attribute that is there and means nothing.
pub(crate) fn no_meaning(project: &mut Project) {
    let mut warnings = Vec::new();
    let mut add = |path: Vec<&str>, reason: &str| {
        warnings.push(Warning {
            kind: WarningKind::NoMeaning,
            path: path.join("."),
            place: project.place_of(&path),
            message: format!("has no meaning here: {reason}"),
        });
    };
    for (name, service) in &project.services {
        let json = service.json();
        for (attribute, reason) in &SERVICE {
            let mut steps = attribute.split('.');
            let found = steps.try_fold(&json, |value, step| value.get(step));
            if found.is_some_and(|value| !value.is_null()) {
                let path = ["services", name.as_str()]
                    .into_iter()
                    .chain(attribute.split('.'));
                add(path.collect(), reason);
            }
        }
        for (index, volume) in service.volumes.iter().enumerate() {
            let index = index.to_string();
            let at = vec!["services", name.as_str(), "volumes", index.as_str()];
            match volume.r#type.as_str() {
                "npipe" => add(at.clone(), "named pipes are of Windows"),
                "cluster" => add(at.clone(), "there is no cluster"),
                _ => {}
            }
            if volume.consistency.is_some() {
                let path = at.iter().copied().chain(["consistency"]).collect();
                add(path, "a mount of this machine is always consistent");
            }
        }
        if service.userns_mode.as_deref().is_some_and(|mode| mode != "host") {
            add(
                vec!["services", name, "userns_mode"],
                "user namespaces are the runtime's own decision",
            );
        }
        if service.pull_refresh_after.is_some() && service.pull_policy.as_deref() != Some("refresh") {
            add(
                vec!["services", name, "pull_refresh_after"],
                "it is for pull_policy: refresh",
            );
        }
        if let Some(driver) = service
            .logging
            .as_ref()
            .and_then(|logging| logging.driver.as_deref())
            && !["json-file", "local", "none"].contains(&driver)
        {
            let reason = format!(
                "the log driver {driver:?} is not known; logs are kept as files, and its options are not used"
            );
            add(vec!["services", name, "logging", "driver"], &reason);
        }
        for (index, port) in service.ports.iter().enumerate() {
            let index = index.to_string();
            if port.app_protocol.is_some() {
                let path = vec!["services", name, "ports", &index, "app_protocol"];
                add(path, "ports are forwarded whatever is spoken there");
            }
        }
    }
    for (key, network) in &project.networks {
        if let Some(driver) = network
            .driver
            .as_deref()
            .filter(|driver| !["bridge", "default", "host", "none"].contains(driver))
        {
            let reason = format!("the driver {driver:?} is not known; the network is a bridge");
            add(vec!["networks", key, "driver"], &reason);
        }
        if network.enable_ipv4 == Some(false) {
            add(
                vec!["networks", key, "enable_ipv4"],
                "every network has IPv4 addresses",
            );
        }
        if let Some(ipam) = &network.ipam {
            let driver = ipam.driver.as_deref();
            if driver.is_some_and(|driver| driver != "default") {
                add(
                    vec!["networks", key, "ipam", "driver"],
                    "addresses are handed out by the network itself",
                );
            }
            if !ipam.options.is_empty() {
                add(
                    vec!["networks", key, "ipam", "options"],
                    "they are for a driver, and there is none",
                );
            }
        }
        if network.attachable {
            add(
                vec!["networks", key, "attachable"],
                "any container may join a network of this machine",
            );
        }
    }
    let template = "templates are not filled in";
    let own = |key: &str| format!("{}_{key}", project.name);
    for (key, secret) in &project.secrets {
        if secret.driver.is_some() {
            add(vec!["secrets", key, "driver"], "there is no keeper of secrets");
        }
        if secret.external {
            add(vec!["secrets", key, "external"], "there is no keeper of secrets");
        }
        if !secret.labels.is_empty() {
            add(
                vec!["secrets", key, "labels"],
                "it is a file, which has no labels",
            );
        }
        if !secret.external && !secret.name.is_empty() && secret.name != own(key) {
            add(vec!["secrets", key, "name"], "nothing else knows it by a name");
        }
        if secret.template_driver.is_some() {
            add(vec!["secrets", key, "template_driver"], template);
        }
    }
    for (key, config) in &project.configs {
        if config.external {
            add(vec!["configs", key, "external"], "there is no keeper of configs");
        }
        if !config.labels.is_empty() {
            add(
                vec!["configs", key, "labels"],
                "it is a file, which has no labels",
            );
        }
        if !config.external && !config.name.is_empty() && config.name != own(key) {
            add(vec!["configs", key, "name"], "nothing else knows it by a name");
        }
        if config.template_driver.is_some() {
            add(vec!["configs", key, "template_driver"], template);
        }
    }
    project.warnings.append(&mut warnings);
}

/// Why an attribute of a service has no meaning here, if it has none.
pub fn reason_for(attribute: &str) -> Option<&'static str> {
    SERVICE
        .iter()
        .find(|(name, _)| *name == attribute)
        .map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LoadOptions;

    #[test]
    fn every_attribute_without_a_meaning_has_a_warning_with_its_place() {
        let text =
            "name: t\nservices:\n  a:\n    image: x\n    cpu_count: 2\n    deploy:\n      mode: global\n";
        let project = Project::load(&LoadOptions::new("/nowhere").text(text)).unwrap();
        let found: Vec<_> = project
            .warnings
            .iter()
            .map(|warning| {
                (
                    warning.path.as_str(),
                    warning.place.as_ref().map(|place| place.line),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("services.a.cpu_count", Some(5)),
                ("services.a.deploy.mode", Some(7))
            ]
        );
        assert_eq!(reason_for("cpu_count"), Some("it is for Windows containers"));
    }
}
