//! The forms in which docker compose prints a project, and hashes parts of it: the order is that of its structs, and
//! what it leaves out as a default is left out.

use crate::model::{Project, Service};
use crate::schema::{self, SERVICE_SHAPE};
use crate::yaml::Ordered;
use serde::Serialize;

/// The sections of a document, in the order of its YAML.
const SECTIONS: [&str; 7] = [
    "name", "services", "networks", "volumes", "secrets", "configs", "models",
];

/// Letters that Go escapes in JSON, so that HTML can hold it.
const ESCAPES: [(char, &str); 5] = [
    ('<', "\\u003c"),
    ('>', "\\u003e"),
    ('&', "\\u0026"),
    ('\u{2028}', "\\u2028"),
    ('\u{2029}', "\\u2029"),
];

/// The document as JSON, without the `x-*` keys of what is in its sections.
pub(crate) fn json(project: &Project) -> String {
    let mut tree = Ordered::of(project);
    schema::without_extensions(&mut tree);
    tree.entries("services").for_each(json_service);
    if let Some(map) = tree.map_mut() {
        map.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    escaped(serde_json::to_string_pretty(&tree).unwrap_or_default() + "\n")
}

/// The document as it is printed in YAML.
pub(crate) fn yaml(project: &Project) -> Ordered {
    let mut tree = Ordered::of(project);
    for service in tree.entries("services") {
        defaults(service);
        // An empty command is one that takes the image's away, and stays.
        let unless_null = |map: &mut Ordered, key: &str| {
            if map.get_mut(key).is_some_and(|value| *value == Ordered::Null) {
                map.remove(key);
            }
        };
        unless_null(service, "command");
        unless_null(service, "entrypoint");
    }
    for network in tree.entries("networks") {
        if network.get_mut("ipam").is_some_and(|ipam| ipam.is_empty()) {
            network.remove("ipam");
        }
    }
    if let Some(map) = tree.map_mut() {
        let place = |key: &str| SECTIONS.iter().position(|section| *section == key);
        map.sort_by_key(|(key, _)| place(key).unwrap_or(SECTIONS.len()));
    }
    tree
}

/// What docker compose hashes of a service: it decides whether a container is still the service's.
pub(crate) fn hashed_service(service: &Service) -> String {
    let mut tree = Ordered::of(service);
    schema::without_extensions_of(&SERVICE_SHAPE, &mut tree);
    json_service(&mut tree);
    for key in crate::hash::APART {
        tree.remove(key);
    }
    if let Some(deploy) = tree.get_mut("deploy") {
        deploy.remove("replicas");
    }
    // Its structs give these no names for JSON.
    for list in tree
        .get_mut("blkio_config")
        .and_then(Ordered::map_mut)
        .into_iter()
        .flatten()
    {
        let Ordered::List(list) = &mut list.1 else {
            continue;
        };
        for (key, _) in list.iter_mut().filter_map(Ordered::map_mut).flatten() {
            if let Some(first) = key.get_mut(..1) {
                first.make_ascii_uppercase();
            }
        }
    }
    compact(&tree)
}

/// The same of a network or a volume, as it is.
pub(crate) fn hashed(value: &impl Serialize, change: impl FnOnce(&mut Ordered)) -> String {
    let mut tree = Ordered::of(value);
    if let Some(map) = tree.map_mut() {
        map.retain(|(key, _)| !key.starts_with("x-"));
    }
    change(&mut tree);
    compact(&tree)
}

fn compact(tree: &Ordered) -> String {
    escaped(serde_json::to_string(tree).unwrap_or_default())
}

fn escaped(json: String) -> String {
    // They are nowhere but in strings.
    match json.contains(ESCAPES.map(|(letter, _)| letter)) {
        false => json,
        true => ESCAPES
            .iter()
            .fold(json, |text, (letter, escape)| text.replace(*letter, escape)),
    }
}

/// What is so without being said, and what is the same said otherwise.
fn defaults(service: &mut Ordered) {
    for volume in service.elements("volumes") {
        if let Some(bind) = volume.get_mut("bind") {
            drop_if_true(bind, "create_host_path");
        }
    }
    for file in service.elements("env_file") {
        drop_if_true(file, "required");
    }
    if let Some(swappiness) = service.get_mut("mem_swappiness")
        && let Ordered::Number(number) = swappiness
    {
        *swappiness = Ordered::Text(number.to_string());
    }
}

fn drop_if_true(map: &mut Ordered, key: &str) {
    if map
        .get_mut(key)
        .is_some_and(|value| *value == Ordered::Bool(true))
    {
        map.remove(key);
    }
}

/// JSON has some parts although they are empty.
fn json_service(service: &mut Ordered) {
    defaults(service);
    if let Some(deploy) = service.get_mut("deploy") {
        deploy.add(
            "resources",
            Ordered::empty(),
            &["restart_policy", "placement", "endpoint_mode"],
        );
        deploy.add("placement", Ordered::empty(), &["endpoint_mode"]);
    }
    let Some(develop) = service.get_mut("develop") else {
        return;
    };
    for rule in develop.elements("watch") {
        rule.add("exec", Ordered::empty(), &["include", "ignore", "initial_sync"]);
        if let Some(exec) = rule.get_mut("exec") {
            let later = ["user", "privileged", "working_dir", "environment"];
            exec.add("command", Ordered::Null, &later);
        }
    }
}
