//! What a container, a network or a volume is made from, as one hash: if it differs, the thing is made anew.

use crate::model::Project;
use crate::printed;
use crate::yaml::Ordered;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Attributes that change nothing about a container that is there.
pub(crate) const APART: [&str; 6] = [
    "build",
    "pull_policy",
    "pull_refresh_after",
    "scale",
    "depends_on",
    "profiles",
];

/// What a service's containers are made from: its attributes without those that concern their number, their image's
/// making or their order, and the sources of its configs and secrets. It says nothing about this program's version or
/// the place of the project's files.
pub fn service_config(project: &Project, service: &str) -> Value {
    let mut config = match project.any_service(service).map(|service| service.json()) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    for key in APART {
        config.remove(key);
    }
    if let Some(Value::Object(deploy)) = config.get_mut("deploy") {
        deploy.remove("replicas");
        if deploy.is_empty() {
            config.remove("deploy");
        }
    }
    config.insert("image".to_owned(), json!(project.image_of(service)));
    let Some(service) = project.any_service(service) else {
        return Value::Object(config);
    };
    let value_of = |variable: &Option<String>| {
        // A secret must not be readable in a label.
        let value = variable.as_ref().and_then(|name| project.environment.get(name));
        value.map(|value| hex(value.as_bytes()))
    };
    let mut sources = Map::new();
    for grant in &service.configs {
        if let Some(config) = project.configs.get(&grant.source) {
            let source = json!({
                "content": config.content, "file": config.file, "environment": value_of(&config.environment),
            });
            sources.insert(format!("config {}", grant.source), source);
        }
    }
    for grant in &service.secrets {
        if let Some(secret) = project.secrets.get(&grant.source) {
            let source = json!({"file": secret.file, "environment": value_of(&secret.environment)});
            sources.insert(format!("secret {}", grant.source), source);
        }
    }
    if !sources.is_empty() {
        config.insert("sources".to_owned(), Value::Object(sources));
    }
    Value::Object(config)
}

/// The hash of a service's attributes, in hexadecimal: docker compose's, which says nothing of what configs and secrets
/// hold. [`service_config`] says that.
pub fn service_hash(project: &Project, service: &str) -> String {
    let service = project.any_service(service);
    hex(service
        .map(printed::hashed_service)
        .unwrap_or_default()
        .as_bytes())
}

/// The hash of a network's definition, by its key: docker compose's.
pub fn network_hash(project: &Project, key: &str) -> String {
    hex(printed::hashed(&project.networks.get(key), |_| {}).as_bytes())
}

/// The hash of a volume's definition, by its key: docker compose's.
pub fn volume_hash(project: &Project, key: &str) -> String {
    let local = |volume: &mut Ordered| {
        volume.add(
            "driver",
            Ordered::Text("local".to_owned()),
            &["driver_opts", "external", "labels"],
        );
    };
    hex(printed::hashed(&project.volumes.get(key), local).as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One value that differs.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Change {
    /// Its path (`environment.FOO`).
    pub path: String,
    /// What it was; absent if it was not there.
    pub before: Option<Value>,
    /// What it is now; absent if it is gone.
    pub after: Option<Value>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let show = |value: &Option<Value>| match value {
            None => "(none)".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        write!(
            f,
            "{}: {} -> {}",
            self.path,
            show(&self.before),
            show(&self.after)
        )
    }
}

/// Every value that differs, mappings and lists of equal length looked into.
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare(&mut String::new(), Some(before), Some(after), &mut found);
    found
}

fn compare(path: &mut String, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Change>) {
    let length = path.len();
    let mut inner = |step: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Change>| {
        if length > 0 {
            path.push('.');
        }
        path.push_str(step);
        compare(path, before, after, found);
        path.truncate(length);
    };
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                inner(key, a.get(key), b.get(key), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                inner(&index.to_string(), Some(a), Some(b), found);
            }
        }
        (before, after) => found.push(Change {
            path: path.clone(),
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LoadOptions;

    fn load(text: &str) -> Project {
        Project::load(&LoadOptions::new("/p").text(text)).unwrap()
    }

    #[test]
    fn the_hash_is_of_what_a_container_is_made_from() {
        let base = load("name: t\nservices: {a: {image: x, environment: {A: 1}, deploy: {}}, b: {image: y}}");
        let same = load(
            "name: t\nservices: {a: {image: x, environment: [A=1], scale: 3, depends_on: [b], \
             pull_policy: always, deploy: {replicas: 3}}, b: {image: y}}",
        );
        assert_eq!(service_hash(&base, "a"), service_hash(&same, "a"));
        let other =
            load("name: t\nservices: {a: {image: x, environment: {A: 2}, deploy: {}}, b: {image: y}}");
        assert_ne!(service_hash(&base, "a"), service_hash(&other, "a"));
        let found = changes(&service_config(&base, "a"), &service_config(&other, "a"));
        assert_eq!(
            found.iter().map(Change::to_string).collect::<Vec<_>>(),
            ["environment.A: 1 -> 2"]
        );
    }

    /// The expected hashes are docker compose's of the same document in a folder `/p`.
    #[test]
    fn hashes_are_those_of_docker_compose() {
        let project = load(
            r#"
name: t
services:
  a:
    build: {context: .}
    image: "x:1"
    command: "echo '<a> & b'"
    environment: {A: "1", B: }
    deploy: {replicas: 2, resources: {limits: {cpus: "0.5", memory: 64m}}}
    volumes: ["./data:/data", "vol:/v:ro"]
    ports: ["127.0.0.1:8080:80"]
    healthcheck: {test: "true", interval: 90s}
    networks: {n: {aliases: [x], priority: 2}}
    mem_swappiness: 5
    labels: {k: v}
    x-note: 1
    logging: {driver: json-file, options: {max-size: }}
    develop: {watch: [{path: ., action: rebuild}]}
  b:
    image: y
    blkio_config: {weight: 300, device_read_bps: [{path: /dev/sda, rate: 1mb}]}
    cpus: 0.3
    depends_on: [a]
networks:
  n:
    ipam: {config: [{subnet: 10.1.0.0/24, gateway: 10.1.0.1}]}
    driver: bridge
    labels: {a: b}
    x-n: 1
volumes:
  vol:
    labels: [a=b]
    driver_opts: {type: tmpfs, device: tmpfs}
"#,
        );
        let expected = [
            "f014106fa52823174e356d189a7cdc34f2e527d20f213946fbbc7df7901e45e4",
            "8b87b5027ee28629baa09937755bd0a12f65e315ae2a5d05ebcfee547c78dabf",
            "786ee981deb4dcca3d6b44cd0ef44263c66eaf5d8c9474f16081d0265030f7a3",
            "e119281a0b6e6e20c1e7e34f39da78a290fa4b77bca9687aabcffea3982a2372",
            "374c89071caae2fbc2d444435ae18e6aeb2fc1934b9655616330edb4af492ce1",
        ];
        let found = [
            service_hash(&project, "a"),
            service_hash(&project, "b"),
            network_hash(&project, "n"),
            network_hash(&project, "default"),
            volume_hash(&project, "vol"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_secret_from_a_variable_changes_the_configuration_and_is_not_in_the_label() {
        let text = "name: t\nservices: {a: {image: x, secrets: [s]}}\nsecrets: {s: {environment: S}}";
        let load =
            |value: &str| Project::load(&LoadOptions::new("/p").text(text).variable("S", value)).unwrap();
        let (first, second) = (load("hunter2"), load("hunter3"));
        assert_ne!(service_config(&first, "a"), service_config(&second, "a"));
        assert!(!service_config(&first, "a").to_string().contains("hunter2"));
    }
}
