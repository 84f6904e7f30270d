//! Names and labels of what a project makes. They are docker compose's, so that other tools recognise a project.

use crate::hash::{network_hash, service_config, service_hash, volume_hash};
use crate::model::Project;
use std::collections::BTreeMap;

/// The keys of labels.
pub mod label {
    /// The project's name.
    pub const PROJECT: &str = "com.docker.compose.project";
    /// The service's name.
    pub const SERVICE: &str = "com.docker.compose.service";
    /// What the container was made from, hashed.
    pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
    /// Which of a service's containers, from 1.
    pub const NUMBER: &str = "com.docker.compose.container-number";
    /// `True` for a container of `run`, else `False`.
    pub const ONE_OFF: &str = "com.docker.compose.oneoff";
    /// The random part of a one-off container's name.
    pub const SLUG: &str = "com.docker.compose.slug";
    /// The project's folder.
    pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
    /// The project's files, with commas between them.
    pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
    /// The image's id when the container was made.
    pub const IMAGE: &str = "com.docker.compose.image";
    /// What it depends on: `service:condition:restart`, with commas between them.
    pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
    /// The version of what made it.
    pub const VERSION: &str = "com.docker.compose.version";
    /// The key of a network.
    pub const NETWORK: &str = "com.docker.compose.network";
    /// The key of a volume.
    pub const VOLUME: &str = "com.docker.compose.volume";
    /// On a container that takes another's place: the name of that one.
    pub const REPLACE: &str = "com.docker.compose.replace";
    /// What the container was made from, as JSON: says later what has changed. Not one of docker compose's.
    pub const CONFIG: &str = "rdock.compose.config";
}

/// The name of a service's container: `<project>-<service>-<number>`, or the one it asks for.
pub fn container_name(project: &Project, service: &str, number: u32) -> String {
    let own = project
        .any_service(service)
        .and_then(|service| service.container_name.clone());
    let between = project.separator();
    own.unwrap_or_else(|| format!("{}{between}{service}{between}{number}", project.name))
}

/// The name of a one-off container: `<project>-<service>-run-<slug>`.
pub fn one_off_name(project: &Project, service: &str, slug: &str) -> String {
    let between = project.separator();
    format!("{}{between}{service}{between}run{between}{slug}", project.name)
}

/// The name under which a container is made that takes another's place.
pub fn temporary_name(id: &str, name: &str) -> String {
    let short: String = id.chars().take(12).collect();
    format!("{short}_{name}")
}

/// The labels of a service's container, those that it asks for among them.
///
/// `image` is the id of its image; `slug` makes it a one-off one; `replaces` is the name of the one it replaces.
pub fn container_labels(
    project: &Project,
    service: &str,
    number: u32,
    image: Option<&str>,
    slug: Option<&str>,
    replaces: Option<&str>,
) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut add = |key: &str, value: String| {
        labels.insert(key.to_owned(), value);
    };
    add(label::PROJECT, project.name.clone());
    add(label::SERVICE, service.to_owned());
    add(label::VERSION, env!("CARGO_PKG_VERSION").to_owned());
    add(label::WORKING_DIR, project.working_dir.display().to_string());
    let files: Vec<String> = project
        .compose_files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    add(label::CONFIG_FILES, files.join(","));
    add(label::CONFIG_HASH, service_hash(project, service));
    add(label::CONFIG, service_config(project, service).to_string());
    if let Some(image) = image {
        add(label::IMAGE, image.to_owned());
    }
    match slug {
        Some(slug) => {
            add(label::ONE_OFF, "True".to_owned());
            add(label::SLUG, slug.to_owned());
        }
        None => {
            add(label::ONE_OFF, "False".to_owned());
            add(label::NUMBER, number.to_string());
        }
    }
    if let Some(replaces) = replaces {
        add(label::REPLACE, replaces.to_owned());
    }
    if let Some(service) = project.any_service(service) {
        let needs: Vec<String> = service
            .depends_on
            .iter()
            .map(|(name, need)| format!("{name}:{}:{}", need.condition, need.restart))
            .collect();
        add(label::DEPENDS_ON, needs.join(","));
        let own = service
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()));
        // Its own labels cannot take the place of these.
        for (key, value) in own {
            labels.entry(key).or_insert(value);
        }
    }
    labels
}

/// The labels of a network, by its key.
pub fn network_labels(project: &Project, key: &str) -> BTreeMap<String, String> {
    let mut labels = project
        .networks
        .get(key)
        .map(|network| network.labels.clone())
        .unwrap_or_default();
    labels.insert(label::PROJECT.to_owned(), project.name.clone());
    labels.insert(label::NETWORK.to_owned(), key.to_owned());
    labels.insert(label::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    labels.insert(label::CONFIG_HASH.to_owned(), network_hash(project, key));
    labels
}

/// The labels of a volume, by its key.
pub fn volume_labels(project: &Project, key: &str) -> BTreeMap<String, String> {
    let mut labels = project
        .volumes
        .get(key)
        .map(|volume| volume.labels.clone())
        .unwrap_or_default();
    labels.insert(label::PROJECT.to_owned(), project.name.clone());
    labels.insert(label::VOLUME.to_owned(), key.to_owned());
    labels.insert(label::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    labels.insert(label::CONFIG_HASH.to_owned(), volume_hash(project, key));
    labels
}
