//! Every attribute of a service has an effect, or a warning or note that says why it has none.

use super::{Converted, Making, container, network_spec};
use crate::plan::ExistingMount;
use crate::{LoadOptions, Project, WarningKind};
use std::path::Path;
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

/// Attributes whose effect is not in the spec, and where it is.
const ELSEWHERE: [(&str, &str); 13] = [
    ("attach", "the output of up in the foreground"),
    ("build", "images"),
    ("container_name", "the name that the plan gives"),
    ("depends_on", "the plan"),
    ("develop", "watch"),
    ("links", "names of the other service, and the plan"),
    ("platform", "images"),
    ("post_start", "the plan"),
    ("pre_start", "the plan"),
    ("pre_stop", "the plan"),
    ("profiles", "the loader"),
    ("pull_policy", "images"),
    ("scale", "the plan"),
];

/// Values that say what is so without them, and why.
const AS_IT_IS: [(&str, &str); 4] = [
    (
        "services.mapped.mac_address",
        "its first network has one of its own",
    ),
    ("services.app.memswap_limit", "-1, no limit, is the default"),
    ("services.app.cgroup", "private is the default"),
    (
        "services.app.ipc",
        "shareable is the default: any container may be joined",
    ),
];

#[test]
fn no_attribute_of_a_service_is_dropped_in_silence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config");
    let (mut silent, mut looked_at) = (Vec::new(), 0);
    for entry in std::fs::read_dir(root).unwrap() {
        let dir = entry.unwrap().path();
        if !dir.is_dir() {
            continue;
        }
        let options = LoadOptions::new(&dir).profile("*").variable("HOME", "/home/user");
        let mut project = Project::load(&options).unwrap();
        let variables = (project.secrets.values().map(|secret| &secret.environment))
            .chain(project.configs.values().map(|config| &config.environment));
        let variables: Vec<String> = variables.flatten().cloned().collect();
        for name in variables {
            project.environment.insert(name, "a value".to_owned());
        }
        // What is kept elsewhere is not here.
        for service in project.services.values_mut() {
            let (secrets, configs) = (&project.secrets, &project.configs);
            service.secrets.retain(|grant| !secrets[&grant.source].external);
            service.configs.retain(|grant| !configs[&grant.source].external);
        }
        let told = |path: &str| {
            let no_meaning = |warning: &&crate::Warning| warning.kind == WarningKind::NoMeaning;
            let mut warnings = project.warnings.iter().filter(no_meaning);
            warnings.any(|warning| warning.path == path || warning.path.starts_with(&format!("{path}.")))
        };
        let outcome = |project: &Project, name: &str| match container(&making(project, name, &[])) {
            Ok(Converted { mut spec, notes }) => {
                // They name the whole configuration, and so change in any case.
                spec.labels.retain(|key, _| !key.contains("config"));
                format!("{spec:?} {notes:?}")
            }
            Err(error) => error,
        };
        for (name, service) in &project.services {
            let mut service = service.clone();
            // One that cannot be converted would hide everything else: its layers are not here.
            service.volumes.retain(|volume| volume.r#type != "image");
            if let Some(logging) = &mut service.logging {
                logging.options.remove("nothing");
            }
            let mut base = project.clone();
            base.services.insert(name.clone(), service.clone());
            let whole = outcome(&base, name);
            let json = service.json();
            for (key, value) in json.as_object().unwrap() {
                let elsewhere = ELSEWHERE.iter().any(|(other, _)| other == key);
                if value.is_null() || key.starts_with("x-") || elsewhere {
                    continue;
                }
                looked_at += 1;
                let mut without = json.clone();
                without.as_object_mut().unwrap().remove(key);
                let mut changed = base.clone();
                let service = serde_json::from_value(without).unwrap();
                changed.services.insert(name.clone(), service);
                let path = format!("services.{name}.{key}");
                let as_it_is = AS_IT_IS.iter().any(|(other, _)| *other == path);
                if outcome(&changed, name) == whole && !told(&path) && !as_it_is {
                    silent.push(format!("{}: {name}.{key} ({whole})", dir.display()));
                }
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
    assert!(looked_at > 100, "{looked_at}");
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
