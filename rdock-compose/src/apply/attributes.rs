//! Every attribute that the schema has, one by one: what comes of it, or the warning that says why nothing does.
//!
//! A file of `tests/data/attributes` has rows with an empty line between them: the attributes (`# services.*.init`),
//! where they need more than two services a document without them and `===`, a document with them, `---`, and how the
//! picture of the project differs between the two. The picture is everything that rdock would make: the specs of
//! containers, networks, volumes and builds, the plans, the warnings. Where nothing differs, `= ` says why that is
//! right. `RDOCK_WRITE_GOLDEN=1` writes the differences anew, which are to be read before they are kept.

use super::images::builder;
use crate::convert::{Making, container, network_spec, volume_options};
use crate::names::{container_labels, container_name, network_labels, volume_labels};
use crate::plan::{
    ContainerState, DownOptions, Existing, ExistingContainer, ExistingImage, ExistingNetwork, ExistingVolume,
    UpOptions,
};
use crate::{ForegroundOptions, LoadOptions, Plan, Project};
use rdock_runtime::image::Digest;
use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::path::Path;

/// What the documents of rows change, and the files that they name.
const FILES: [(&str, &str); 9] = [
    (
        "base.yaml",
        "name: p\nservices: {app: {image: 'app:1'}, other: {image: 'other:1'}}\n",
    ),
    (
        "part/part.yaml",
        "services: {part: {image: 'part:${IN_PART:-1}', volumes: ['./data:/data']}}\n",
    ),
    ("part/.env", "IN_PART=of-its-folder\n"),
    ("part.env", "IN_PART=of-a-file\n"),
    ("values.env", "FROM_FILE='$NAME'\nQUOTED=\"b\"\n"),
    ("labels.env", "from.file=yes\n"),
    ("content.txt", "what is in the file\n"),
    ("profile.json", "{}"),
    ("context/Dockerfile", "FROM scratch\n"),
];

/// The only part of an image that is mounted.
const LAYER: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000001";

struct Row {
    attributes: Vec<String>,
    /// What is there without them.
    without: String,
    with: String,
    expected: String,
}

fn rows(text: &str) -> Vec<Row> {
    let blocks = text.split("\n\n").filter(|block| !block.trim().is_empty());
    let row = |block: &str| {
        let (asked, expected) = block.split_once("\n---").unwrap_or((block, ""));
        let (attributes, document): (Vec<&str>, Vec<&str>) =
            asked.trim().lines().partition(|line| line.starts_with("# "));
        let document = document.join("\n");
        let (without, with) = document.split_once("\n===\n").unwrap_or(("", &document));
        Row {
            attributes: attributes.iter().map(|line| line[2..].to_owned()).collect(),
            without: without.to_owned(),
            with: with.to_owned() + "\n",
            expected: expected.trim().to_owned(),
        }
    };
    blocks.map(row).collect()
}

/// The key of a field or of an entry, and its value.
fn key_of(line: &str) -> Option<(&str, &str)> {
    let end = match line.strip_prefix('"') {
        Some(text) => {
            let mut escaped = false;
            let end = text.find(|letter| {
                let ends = letter == '"' && !escaped;
                escaped = letter == '\\' && !escaped;
                ends
            })?;
            end + 2
        }
        None => line.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')?,
    };
    Some((&line[..end], line[end..].strip_prefix(": ")?))
}

/// The fields of a value, one a line with its path; what is empty or not there is left out.
fn fields(value: &impl Debug) -> Vec<String> {
    // The path's part, and the number of the next element where elements are counted.
    let mut open: Vec<(String, Option<usize>)> = Vec::new();
    let mut found = Vec::new();
    for line in format!("{value:#?}").lines() {
        let line = line.trim();
        let line = line.strip_suffix(',').unwrap_or(line);
        if matches!(line, "}" | "]" | ")") {
            open.pop();
            continue;
        }
        let (key, rest) = match key_of(line) {
            Some((key, rest)) => (key.to_owned(), rest),
            None => match open.last_mut() {
                Some((_, Some(next))) => {
                    *next += 1;
                    ((*next - 1).to_string(), line)
                }
                _ => (String::new(), line),
            },
        };
        match rest.strip_suffix(['{', '[', '(']) {
            Some(name) => {
                let name = name.trim();
                let first = open.is_empty();
                let parts = [key.as_str(), name].into_iter();
                let parts = parts.filter(|part| !part.is_empty() && *part != "Some" && !first);
                // The only element of a tuple needs no number.
                let counted = rest.ends_with('[') || rest.ends_with('(') && name.is_empty();
                open.push((parts.collect::<Vec<_>>().join("."), counted.then_some(0)));
            }
            None if matches!(rest, "[]" | "{}" | "false" | "\"\"") => {}
            None if rest == "None" && key != "test" => {}
            None => {
                let parts = open.iter().map(|(part, _)| part.as_str()).chain([key.as_str()]);
                let parts = parts.filter(|part| !part.is_empty());
                found.push(format!("{} = {rest}", parts.collect::<Vec<_>>().join(".")));
            }
        }
    }
    found
}

/// Everything of the project as if `up` had made it.
fn made(project: &Project) -> Existing {
    let containers = project.services.iter().flat_map(|(name, service)| {
        (1..=service.replicas()).map(move |number| ExistingContainer {
            id: format!("id-{name}-{number}"),
            name: container_name(project, name, number),
            labels: container_labels(project, name, number, Some("the image"), None, None),
            state: ContainerState::Running,
            networks: service
                .networks
                .keys()
                .filter_map(|key| project.networks.get(key))
                .map(|network| (network.name.clone(), network.name.clone()))
                .collect(),
            ..ExistingContainer::default()
        })
    });
    let image = ExistingImage {
        id: "the image".to_owned(),
        age: Some(3 * 86_400),
        platform: Some("linux/amd64".to_owned()),
    };
    Existing {
        containers: containers.collect(),
        networks: project
            .networks
            .iter()
            .map(|(key, network)| ExistingNetwork {
                id: network.name.clone(),
                name: network.name.clone(),
                labels: match network.external {
                    true => Default::default(),
                    false => network_labels(project, key),
                },
            })
            .collect(),
        volumes: project
            .volumes
            .iter()
            .map(|(key, volume)| ExistingVolume {
                name: volume.name.clone(),
                labels: match volume.external {
                    true => Default::default(),
                    false => volume_labels(project, key),
                },
            })
            .collect(),
        images: project
            .services
            .keys()
            .map(|name| (project.image_of(name), image.clone()))
            .collect(),
    }
}

fn steps(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &plan.steps {
        let mut line = step.operation.to_string();
        if let crate::plan::Operation::Wait { optional: true, .. } = &step.operation {
            line += ", or not";
        }
        let after: Vec<String> = step
            .after
            .iter()
            .map(|id| plan.steps[*id].operation.to_string())
            .collect();
        if !after.is_empty() {
            let _ = write!(line, " after {}", after.join(", "));
        }
        lines.push(line);
    }
    lines.extend(plan.notes.iter().cloned());
    lines
}

/// Whether a label is neither one that changes with every attribute nor one that says where this runs.
#[expect(clippy::ptr_arg, reason = "what a mapping asks for its keys")]
fn telling(key: &String, _: &mut String) -> bool {
    let others = [
        "config-hash",
        "config_files",
        "compose.config",
        "working_dir",
        "version",
    ];
    !others.iter().any(|part| key.contains(part))
}

/// Everything that comes of a project, a line each.
fn picture(dir: &Path, files: &[&str]) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut add = |what: String, found: Vec<String>| {
        let found = found.into_iter();
        lines
            .extend(found.map(|line| format!("{what}: {}", line.replace(dir.to_str().unwrap(), "/project"))));
    };
    let mut options = LoadOptions::new(dir)
        .variable("NAME", "value")
        .variable("HOME", "/home/user");
    options.files = files.iter().map(|file| dir.join(file)).collect();
    let project = match Project::load(&options) {
        Ok(project) => project,
        Err(error) => {
            add("error".to_owned(), vec![error.to_string()]);
            return lines;
        }
    };
    let warnings = project.warnings.iter();
    let warnings =
        warnings.map(|warning| format!("{:?} {}: {}", warning.kind, warning.path, warning.message));
    add("warning".to_owned(), warnings.collect());
    add(
        "disabled".to_owned(),
        project.disabled_services.keys().cloned().collect(),
    );
    add("project".to_owned(), vec![project.name.clone()]);
    let entrypoint = ["/of-image".to_owned()];
    let layers = [("mounted:1".to_owned(), vec![LAYER.parse::<Digest>().unwrap()])];
    for (name, service) in &project.services {
        let making = Making {
            project: &project,
            service: name,
            number: 1,
            name: &container_name(&project, name, 1),
            image_id: None,
            image_entrypoint: &entrypoint,
            one_off: None,
            replaces: false,
            inherits: &[],
            image_layers: &layers,
        };
        match container(&making) {
            Ok(mut made) => {
                made.spec.labels.retain(telling);
                add(format!("container {name}"), fields(&made.spec));
                add(format!("note {name}"), made.notes);
            }
            Err(error) => add(format!("error {name}"), vec![error]),
        }
        for (index, hook) in service.pre_start.iter().enumerate() {
            match super::hooks::pre_start_spec(&project, name, hook, "hook") {
                Ok(mut spec) => {
                    spec.labels.retain(telling);
                    add(format!("pre_start {name}.{index}"), fields(&spec));
                }
                Err(error) => add(format!("error {name}"), vec![error]),
            }
        }
        let options = crate::WatchOptions::default();
        if service.develop.is_some() {
            match crate::watch::rules(&project, &options, &mut |_| {}) {
                Ok(rules) => rules.iter().enumerate().for_each(|(index, rule)| {
                    add(format!("watch {index}"), fields(rule.written()));
                }),
                Err(error) => add(format!("watch {name}"), vec![error.to_string()]),
            }
        }
        if let Some(build) = &service.build {
            let mut notes = Vec::new();
            match builder(&project, name, build, &project.image_of(name), &mut notes) {
                Ok(builder) => add(
                    format!("build {name}"),
                    // It is the number of this machine's processors.
                    fields(&builder)
                        .into_iter()
                        .filter(|line| !line.starts_with("parallel ="))
                        .collect(),
                ),
                Err(error) => add(format!("build {name}"), vec![error]),
            }
            add(format!("note {name}"), notes);
        }
    }
    for key in project.networks.keys() {
        match network_spec(&project, key) {
            Ok(mut spec) => {
                spec.labels.retain(telling);
                add(format!("network {key}"), fields(&spec));
            }
            Err(error) => add(format!("network {key}"), vec![error]),
        }
    }
    for key in project.volumes.keys() {
        match volume_options(&project, key) {
            Ok(mut options) => {
                options.labels.retain(telling);
                add(format!("volume {key}"), fields(&options));
            }
            Err(error) => add(format!("volume {key}"), vec![error]),
        }
    }
    let shown = ForegroundOptions::default().shown(&project).unwrap();
    add("shown".to_owned(), shown.into_iter().collect());
    let there = made(&project);
    let up = UpOptions::default();
    for (world, existing) in [
        ("nothing is there", &Existing::default()),
        ("all is there", &there),
    ] {
        for (verb, plan) in [
            ("images", Plan::images(&project, existing, &up)),
            ("up", Plan::up(&project, existing, &up)),
        ] {
            match plan {
                Ok(plan) => add(format!("{verb}, {world}"), steps(&plan)),
                Err(error) => add(format!("{verb}, {world}"), vec![error.to_string()]),
            }
        }
    }
    let other = ["other".to_owned()];
    add(
        "restart other".to_owned(),
        steps(&Plan::restart(&project, &there, &other, false, None)),
    );
    let down = Plan::down(&project.name, Some(&project), &there, &DownOptions::default());
    add("down".to_owned(), steps(&down));
    lines
}

#[test]
fn every_attribute_has_an_effect_or_says_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let dir = std::fs::canonicalize(folder.path()).unwrap();
    for (name, text) in FILES {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let alone = picture(&dir, &["base.yaml"]);
    let mut unmet = crate::schema::attributes();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/attributes");
    let write = std::env::var_os("RDOCK_WRITE_GOLDEN").is_some();
    let mut wrong = String::new();
    for entry in std::fs::read_dir(data).unwrap() {
        let file = entry.unwrap().path();
        let mut written = String::new();
        for row in rows(&std::fs::read_to_string(&file).unwrap()) {
            let draw = |document: &str| {
                std::fs::write(dir.join("row.yaml"), document).unwrap();
                picture(&dir, &["base.yaml", "row.yaml"])
            };
            let with = draw(&row.with);
            let without = match row.without.is_empty() {
                true => alone.clone(),
                false => draw(&row.without),
            };
            let less = without.difference(&with).map(|line| format!("- {line}"));
            let more = with.difference(&without).map(|line| format!("+ {line}"));
            let mut found = less.chain(more).collect::<Vec<_>>().join("\n");
            let attributes = row.attributes.join(", ");
            if found.is_empty() && row.expected.starts_with("= ") {
                found.clone_from(&row.expected);
            } else if found.is_empty() {
                let _ = writeln!(wrong, "{attributes}: nothing comes of it");
            }
            for attribute in &row.attributes {
                if !unmet.remove(attribute) {
                    let _ = writeln!(wrong, "{attribute}: no such attribute, or it has another row");
                }
                let _ = writeln!(written, "# {attribute}");
            }
            if !row.without.is_empty() {
                let _ = writeln!(written, "{}\n===", row.without);
            }
            let _ = writeln!(written, "{}---\n{found}\n", row.with);
            if found != row.expected && !write {
                let _ = writeln!(
                    wrong,
                    "{attributes}: expected\n{}\nfound\n{found}\n",
                    row.expected
                );
            }
        }
        if write {
            std::fs::write(&file, written.trim_end().to_owned() + "\n").unwrap();
        }
    }
    assert!(unmet.is_empty(), "attributes without a row: {unmet:#?}\n{wrong}");
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_fields_of_a_value_are_its_lines() {
    #[derive(Debug)]
    #[expect(dead_code, reason = "they are only printed")]
    struct Inner {
        words: Vec<&'static str>,
        none: Option<u8>,
        pair: Option<(u8, &'static str)>,
    }
    let map = std::collections::BTreeMap::from([(
        "a: b",
        Inner {
            words: vec!["x: y", "z,"],
            none: None,
            pair: Some((1, "{")),
        },
    )]);
    let expected = [
        "\"a: b\".Inner.words.0 = \"x: y\"",
        "\"a: b\".Inner.words.1 = \"z,\"",
        "\"a: b\".Inner.pair.0 = 1",
        "\"a: b\".Inner.pair.1 = \"{\"",
    ];
    assert_eq!(fields(&map), expected);
}
