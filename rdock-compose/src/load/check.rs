//! What a whole project must fulfil, beyond the types of its values.

use super::Loader;
use crate::error::{Error, Finding, FindingKind, Result, Warning, WarningKind, nearest};
use crate::model::{Project, Service};
use crate::source::Problem;
use crate::yaml::{Map, Node};
use std::collections::BTreeMap;
use std::path::Path;

/// Names that are compared with wrong ones for a suggestion: the first mistakes of a large project have one.
const COMPARISONS: usize = 25_000;

/// Mistakes that are told.
const MOST: usize = 100;

/// Top-level resources: where they come from is said once.
pub(super) fn resources(loader: &Loader<'_>, tree: &Node) -> Result<()> {
    let mut problems = Vec::new();
    let external = |map: &Map| {
        map.get("external")
            .is_some_and(|entry| entry.node.value == crate::yaml::Value::Bool(true))
    };
    for kind in ["volumes", "networks"] {
        for (name, entry) in tree.get(kind).and_then(Node::as_map).into_iter().flatten() {
            let Some(map) = entry.node.as_map().filter(|map| external(map)) else {
                continue;
            };
            for (key, other) in map {
                if !["name", "external"].contains(&key.as_str()) && !key.starts_with("x-") {
                    let message =
                        format!("an external one is only named; {key:?} conflicts with \"external\"");
                    problems.push(Problem::new(
                        FindingKind::Conflict,
                        other.key,
                        &format!("{kind}.{name}"),
                        message,
                    ));
                }
            }
        }
    }
    for (kind, sources) in [
        ("configs", &["file", "environment", "content"][..]),
        ("secrets", &["file", "environment"]),
    ] {
        for (name, entry) in tree.get(kind).and_then(Node::as_map).into_iter().flatten() {
            let Some(map) = entry.node.as_map() else { continue };
            let given: Vec<&str> = sources
                .iter()
                .copied()
                .filter(|key| map.contains_key(*key))
                .collect();
            let path = format!("{kind}.{name}");
            let (kind, message) = match given.as_slice() {
                [] if !external(map) && !map.contains_key("driver") => (
                    FindingKind::Missing,
                    format!("one of {} must be there", sources.join(", ")),
                ),
                [only] if external(map) => (
                    FindingKind::Conflict,
                    format!("{only:?} conflicts with \"external\""),
                ),
                [_, _, ..] => (
                    FindingKind::Conflict,
                    format!("{} exclude each other", given.join(" and ")),
                ),
                _ => continue,
            };
            problems.push(Problem::new(kind, entry.key, &path, message));
        }
    }
    if problems.is_empty() || !loader.options.consistency {
        return Ok(());
    }
    let findings = problems
        .into_iter()
        .take(MOST)
        .map(|problem| loader.sources.finding(problem))
        .collect();
    Err(Error::Invalid { findings })
}

struct Findings<'a> {
    project: &'a Project,
    found: Vec<Finding>,
}

impl Findings<'_> {
    /// Nobody reads more, and each costs a search for its place.
    fn is_full(&self) -> bool {
        self.found.len() >= MOST
    }

    fn add(&mut self, kind: FindingKind, path: &[&str], message: impl Into<String>) {
        if self.is_full() {
            return;
        }
        self.found.push(Finding {
            kind,
            path: path.join("."),
            place: self.project.place_of(path),
            message: message.into(),
            hint: None,
        });
    }

    /// A name must be one of those that are there.
    fn known<T>(&mut self, name: &str, what: &str, all: &BTreeMap<String, T>, path: &[&str]) {
        if all.contains_key(name) || self.is_full() {
            return;
        }
        self.add(
            FindingKind::Undefined,
            path,
            format!("{what} {name:?} is not defined"),
        );
        // Each asks for a comparison with every name.
        if self.found.len().saturating_mul(all.len()) > COMPARISONS {
            return;
        }
        if let (Some(near), Some(last)) = (
            nearest(name, all.keys().map(String::as_str)),
            self.found.last_mut(),
        ) {
            last.hint = Some(format!("did you mean {near:?}?"));
        }
    }
}

/// References lead somewhere, attributes do not contradict each other, dependencies have an order.
pub(super) fn project(project: &mut Project, warnings: &mut Vec<Warning>) -> Result<()> {
    let mut findings = Findings {
        project,
        found: Vec::new(),
    };
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, service) in &project.services {
        let at = ["services", name.as_str()];
        if service.image.is_none() && service.build.is_none() && service.provider.is_none() {
            findings.add(FindingKind::Missing, &at, "neither an image nor a build is there");
        }
        contradictions(&mut findings, name, service);
        references(&mut findings, name, service);
        if let Some(container) = &service.container_name
            && let Some(other) = names.insert(container, name)
        {
            let path = ["services", name, "container_name"];
            findings.add(
                FindingKind::Conflict,
                &path,
                format!("the service {other:?} has this container's name too"),
            );
        }
        for (needed, dependency) in &service.depends_on {
            if project.services.contains_key(needed) {
                continue;
            }
            let path = ["services", name, "depends_on", needed];
            let disabled = project.disabled_services.get(needed);
            if !dependency.required {
                let state = if disabled.is_some() {
                    "disabled"
                } else {
                    "not defined"
                };
                warnings.push(Warning {
                    kind: WarningKind::OptionalDependency,
                    path: path.join("."),
                    place: project.place_of(&path),
                    message: format!("the service {needed:?} is {state}; {name:?} starts without it"),
                });
            } else if let Some(other) = disabled {
                let message = format!(
                    "the service {needed:?} is disabled; one of its profiles {:?} must be active",
                    other.profiles
                );
                findings.add(FindingKind::Undefined, &path, message);
            } else {
                findings.known(needed, "the service", &project.services, &path);
            }
        }
    }
    let secrets = project
        .secrets
        .iter()
        .map(|(key, secret)| ("secrets", key, &secret.file));
    let configs = project
        .configs
        .iter()
        .map(|(key, config)| ("configs", key, &config.file));
    for (kind, key, file) in secrets.chain(configs) {
        if let Some(file) = file
            && let Some(other) = super::irregular(Path::new(file))
        {
            let message = format!("{file} is {other}, and only regular files are given to containers");
            findings.add(FindingKind::Refused, &[kind, key.as_str(), "file"], message);
        }
    }
    if let Some(cycle) = dependency_cycle(project) {
        let path = ["services", cycle[0].as_str(), "depends_on", cycle[1].as_str()];
        findings.add(
            FindingKind::Cycle,
            &path,
            format!("services depend on each other: {}", cycle.join(" -> ")),
        );
    }
    match findings.found {
        found if found.is_empty() => Ok(()),
        findings => Err(Error::Invalid { findings }),
    }
}

/// Attributes that exclude each other.
fn contradictions(findings: &mut Findings<'_>, name: &str, service: &Service) {
    if service.network_mode.is_some() && !service.networks.is_empty() {
        let path = ["services", name, "network_mode"];
        findings.add(
            FindingKind::Conflict,
            &path,
            "network_mode and networks exclude each other",
        );
    }
    let deploy = service.deploy.as_ref();
    if let (Some(scale), Some(replicas)) = (service.scale, deploy.and_then(|deploy| deploy.replicas))
        && scale != replicas
    {
        let path = ["services", name, "scale"];
        findings.add(
            FindingKind::Conflict,
            &path,
            format!("scale is {scale} and deploy.replicas is {replicas}"),
        );
    }
    if service.container_name.is_some() && service.replicas() > 1 {
        let path = ["services", name, "container_name"];
        findings.add(
            FindingKind::Conflict,
            &path,
            "several containers cannot have one name",
        );
    }
    let resources = deploy.and_then(|deploy| deploy.resources.as_ref());
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let reservations = resources.and_then(|resources| resources.reservations.as_ref());
    let differ = |a: Option<String>, b: Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
    let pairs = [
        (
            "cpus",
            "limits.cpus",
            service.cpus.map(|v| v.0.to_string()),
            limits.and_then(|l| l.cpus).map(|v| v.0.to_string()),
        ),
        (
            "mem_limit",
            "limits.memory",
            service.mem_limit.map(|v| v.to_string()),
            limits.and_then(|l| l.memory).map(|v| v.to_string()),
        ),
        (
            "pids_limit",
            "limits.pids",
            service.pids_limit.map(|v| v.to_string()),
            limits.and_then(|l| l.pids).map(|v| v.to_string()),
        ),
        (
            "mem_reservation",
            "reservations.memory",
            service.mem_reservation.map(|v| v.to_string()),
            reservations.and_then(|r| r.memory).map(|v| v.to_string()),
        ),
    ];
    for (attribute, other, mine, theirs) in pairs {
        if differ(mine, theirs) {
            let path = ["services", name, attribute];
            findings.add(
                FindingKind::Conflict,
                &path,
                format!("deploy.resources.{other} has another value"),
            );
        }
    }
    let requests = reservations.map(|r| r.devices.as_slice()).unwrap_or_default();
    for request in service.gpus.iter().chain(requests) {
        if request.count.is_some() && !request.device_ids.is_empty() {
            findings.add(
                FindingKind::Conflict,
                &["services", name],
                "count and device_ids of a device exclude each other",
            );
        }
    }
    if let Some(build) = &service.build
        && build.dockerfile.is_some()
        && build.dockerfile_inline.is_some()
    {
        let path = ["services", name, "build", "dockerfile_inline"];
        findings.add(
            FindingKind::Conflict,
            &path,
            "dockerfile and dockerfile_inline exclude each other",
        );
    }
    for (index, rule) in service
        .develop
        .iter()
        .flat_map(|develop| &develop.watch)
        .enumerate()
    {
        if rule.target.is_none() && rule.action.starts_with("sync") {
            let index = index.to_string();
            let path = ["services", name, "develop", "watch", &index];
            findings.add(
                FindingKind::Missing,
                &path,
                format!("{} needs a target", rule.action),
            );
        }
    }
}

/// Names of networks, volumes, secrets, configs, models.
fn references(findings: &mut Findings<'_>, name: &str, service: &Service) {
    let project = findings.project;
    for network in service.networks.keys() {
        if network == "default" {
            continue;
        }
        let path = ["services", name, "networks", network];
        findings.known(network, "the network", &project.networks, &path);
    }
    for (index, volume) in service.volumes.iter().enumerate() {
        let index = index.to_string();
        let path = ["services", name, "volumes", index.as_str()];
        if volume.target.is_empty() {
            findings.add(FindingKind::Missing, &path, "the key \"target\" is missing");
        }
        match (volume.r#type.as_str(), &volume.source) {
            ("volume", Some(source)) if !source.is_empty() => {
                findings.known(source, "the volume", &project.volumes, &path);
            }
            ("bind" | "image", None) => {
                findings.add(FindingKind::Missing, &path, "the key \"source\" is missing");
            }
            _ => {}
        }
    }
    for (kind, grants) in [("secrets", &service.secrets), ("configs", &service.configs)] {
        for (index, grant) in grants.iter().enumerate() {
            let index = index.to_string();
            let path = ["services", name, kind, &index];
            match kind {
                "secrets" => findings.known(&grant.source, "the secret", &project.secrets, &path),
                _ => findings.known(&grant.source, "the config", &project.configs, &path),
            }
        }
    }
    for (index, grant) in service.build.iter().flat_map(|build| &build.secrets).enumerate() {
        let index = index.to_string();
        let path = ["services", name, "build", "secrets", &index];
        findings.known(&grant.source, "the secret", &project.secrets, &path);
    }
    for model in service.models.keys() {
        let path = ["services", name, "models", model];
        findings.known(model, "the model", &project.models, &path);
    }
}

/// Services that wait for each other, the first again at the end.
fn dependency_cycle(project: &Project) -> Option<Vec<String>> {
    // 1: on the way, 2: done. Without calls, since chains may be long.
    let mut state: BTreeMap<&str, u8> = BTreeMap::new();
    for start in project.services.keys() {
        let mut way: Vec<(&str, Vec<&str>)> = Vec::new();
        let next = |name: &str| -> Vec<&str> {
            let service = project.services.get(name);
            service
                .map(|service| service.depends_on.keys().map(String::as_str).collect())
                .unwrap_or_default()
        };
        if state.contains_key(start.as_str()) {
            continue;
        }
        state.insert(start, 1);
        way.push((start, next(start)));
        while let Some((name, open)) = way.last_mut() {
            let Some(other) = open.pop() else {
                state.insert(name, 2);
                way.pop();
                continue;
            };
            match state.get(other) {
                Some(1) => {
                    let from = way.iter().position(|(name, _)| *name == other).unwrap_or(0);
                    let names = way[from..].iter().map(|(name, _)| (*name).to_owned());
                    return Some(names.chain([other.to_owned()]).collect());
                }
                Some(_) => {}
                None => {
                    state.insert(other, 1);
                    way.push((other, next(other)));
                }
            }
        }
    }
    None
}
