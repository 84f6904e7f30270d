//! What values become that no table of attributes shows; that table is `apply::attributes`.

use super::{Making, container, network_spec};
use crate::plan::ExistingMount;
use crate::{LoadOptions, Project};
use std::sync::LazyLock;

static ENTRYPOINT: LazyLock<Vec<String>> = LazyLock::new(|| vec!["/entry".to_owned()]);

fn making<'a>(project: &'a Project, service: &'a str, inherits: &'a [ExistingMount]) -> Making<'a> {
    Making {
        project,
        service,
        number: 1,
        name: "made",
        image_id: None,
        image_entrypoint: &ENTRYPOINT,
        one_off: None,
        replaces: false,
        inherits,
        image_layers: &[],
    }
}

#[test]
fn drivers_that_are_not_known_are_told_of_and_do_no_harm() {
    let text = "name: t\nservices: {a: {image: x, logging: {driver: fluentd, options: {fluentd-address: y}}}}\nnetworks: {default: {driver: overlay}}";
    let project = Project::load(&LoadOptions::new("/x").text(text)).unwrap();
    let told: Vec<&str> = project
        .warnings
        .iter()
        .map(|warning| warning.path.as_str())
        .collect();
    assert_eq!(told, ["services.a.logging.driver", "networks.default.driver"]);
    assert!(container(&making(&project, "a", &[])).is_ok());
    assert_eq!(network_spec(&project, "default").unwrap().driver, "bridge");
}

#[test]
fn an_empty_command_takes_the_images_away() {
    let text = "services: {a: {image: x, command: []}, b: {image: x, command: ''}, c: {image: x}, d: {image: x, command: [], entrypoint: [/e]}}";
    let project = Project::load(&LoadOptions::new("/x").text(text)).unwrap();
    // With an entry point of its own a container has none of the image's command.
    for (service, expected) in [
        ("a", Some("/entry")),
        ("b", Some("/entry")),
        ("c", None),
        ("d", Some("/e")),
    ] {
        let spec = container(&making(&project, service, &[])).unwrap().spec;
        assert_eq!(
            spec.entrypoint,
            expected.map(|word| vec![word.to_owned()]),
            "{service}"
        );
        assert!(spec.args.is_empty());
    }
    let mut making = making(&project, "a", &[]);
    making.image_entrypoint = &[];
    let error = container(&making).unwrap_err();
    assert!(error.starts_with("command: it is empty"), "{error}");
}

#[test]
fn a_relative_seccomp_profile_is_of_the_projects_folder() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("profile.json"), "{}").unwrap();
    let text = "services: {a: {image: x, security_opt: ['seccomp=profile.json']}, b: {image: x, security_opt: ['seccomp:./no.json']}}";
    let project = Project::load(&LoadOptions::new(dir.path()).text(text)).unwrap();
    let spec = container(&making(&project, "a", &[])).unwrap().spec;
    assert_eq!(spec.seccomp, rdock_runtime::Seccomp::Profile("{}".to_owned()));
    let error = container(&making(&project, "b", &[])).unwrap_err();
    assert!(
        error.contains(&dir.path().join("no.json").display().to_string()),
        "{error}"
    );
}
