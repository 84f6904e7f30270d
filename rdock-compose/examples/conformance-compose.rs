//! Runs suites of compose conformance cases: `conformance-compose DIR` prints `N passed, M failed` for each.
//!
//! DIR holds `cases.jsonl` (one case per line: `id`, `input`, `expect`), or folders that do; a folder's name says which
//! suite it is. What loads is printed as `config --format json` does it and checked by the JSON schemas in the folder
//! `schema` beside the suite `loader`. Failing rows that are meant are argued in `conformance-compose.md`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

use rdock_compose::{
    Bytes, Document, Hosts, LoadOptions, Port, Project, ServiceVolume, interpolate, parse_dotenv, pinned,
    variables_in,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Why a case fails.
type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: conformance-compose DIR");
        return ExitCode::from(2);
    };
    let mut suites = Vec::new();
    if dir.join("cases.jsonl").is_file() {
        suites.push(dir);
    } else {
        let entries = std::fs::read_dir(&dir)
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        suites.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| path.join("cases.jsonl").is_file()),
        );
        suites.sort();
    }
    if suites.is_empty() {
        eprintln!("no cases.jsonl in {:?}", std::env::args_os().nth(1));
        return ExitCode::from(2);
    }
    let mut all = true;
    for suite in suites {
        match run(&suite) {
            Ok(good) => all &= good,
            Err(error) => {
                eprintln!("{}: {error}", suite.display());
                return ExitCode::from(2);
            }
        }
    }
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(dir: &Path) -> Result<bool, String> {
    let text = std::fs::read_to_string(dir.join("cases.jsonl")).map_err(|error| error.to_string())?;
    let dir = dir.canonicalize().map_err(|error| error.to_string())?;
    let suite = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (mut passed, mut failed) = (0, 0);
    let mut models = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let case: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let (input, expect) = (&case["input"], &case["expect"]);
        let begin = Instant::now();
        let mut outcome = match suite {
            "merge" => merge(input, expect),
            "unicity" => unicity(input, expect),
            "loader" => loader(input, expect, |model| {
                models.push((text_of(&case["id"]).to_owned(), model.clone()))
            }),
            "aliases" => aliases(input, expect),
            "interpolation" => interpolation(input, expect),
            "dotenv" => dotenv(input, expect),
            "volumes" => volumes(input, expect),
            "ports" => ports(input, expect),
            "bytes" => bytes(input, expect),
            "hosts" => hosts(input, expect),
            "resolve-images" => {
                let image = pinned(text_of(&input["image"]), text_of(&input["digest"]));
                equal("image", &json!(image), &expect["image"])
            }
            other => return Err(format!("unknown suite {other}")),
        };
        if outcome.is_ok() && begin.elapsed() > Duration::from_secs(2) {
            outcome = Err(format!("took {:?}", begin.elapsed()));
        }
        match outcome {
            Ok(()) => passed += 1,
            Err(reason) => {
                failed += 1;
                println!("FAILED {suite}/{}: {reason}", text_of(&case["id"]));
            }
        }
    }
    println!("{suite}: {passed} passed, {failed} failed");
    let valid = models.is_empty() || against_schemas(&dir.with_file_name("schema"), &models)?;
    Ok(failed == 0 && valid)
}

/// Checks what `config --format json` prints for every document that loads by the JSON schemas of a folder.
fn against_schemas(folder: &Path, models: &[(String, Value)]) -> Result<bool, String> {
    let mut all = true;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(entry.path()).map_err(|error| error.to_string())?;
        let schema: Value = serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
        let schema = jsonschema::validator_for(&schema).map_err(|error| format!("{name}: {error}"))?;
        let (mut passed, mut failed) = (0, 0);
        for (id, model) in models {
            match schema.iter_errors(model).next() {
                None => passed += 1,
                Some(error) => {
                    failed += 1;
                    println!("FAILED {name}/{id}: at {}: {error}", error.instance_path());
                }
            }
        }
        println!("config by {name}: {passed} passed, {failed} failed");
        all &= failed == 0;
    }
    Ok(all)
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(text_of).collect()
}

fn variables(value: &Value) -> BTreeMap<String, String> {
    let all = value.as_object().into_iter().flatten();
    all.map(|(name, value)| (name.clone(), text_of(value).to_owned()))
        .collect()
}

fn equal(what: &str, found: &Value, expected: &Value) -> Outcome {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: expected {expected}, found {found}")),
    }
}

/// An expected error must be one, and nothing else; then the check of the value.
fn outcome<T: std::fmt::Debug, E: std::fmt::Display>(
    found: Result<T, E>,
    expect: &Value,
    check: impl FnOnce(T) -> Outcome,
) -> Outcome {
    match (found, expect["error"].is_null()) {
        (Err(_), false) => Ok(()),
        (Err(error), true) => Err(format!("unexpected error: {error}")),
        (Ok(found), false) => Err(format!("an error was expected, found {found:?}")),
        (Ok(found), true) => check(found),
    }
}

/// The canonical tree of files, of which the first is the base.
fn tree(files: &[(&str, &str)]) -> Result<Value, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut options = LoadOptions::new(dir.path()).name("test");
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).map_err(|error| error.to_string())?;
        options = options.file(*name);
    }
    options.resolve_paths = false;
    Document::load(&options)
        .map(|document| document.tree)
        .map_err(|error| error.to_string())
}

fn merge(input: &Value, expect: &Value) -> Outcome {
    let found = tree(&[
        ("base.yaml", text_of(&input["base"])),
        ("override.yaml", text_of(&input["override"])),
    ]);
    outcome(found, expect, |found| {
        let expected = tree(&[("merged.yaml", text_of(&expect["merged"]))])?;
        equal("merged", &found, &expected)
    })
}

fn unicity(input: &Value, expect: &Value) -> Outcome {
    let found = tree(&[("a.yaml", text_of(&input["document"]))]);
    outcome(found, expect, |found| {
        equal(
            "document",
            &found,
            &tree(&[("b.yaml", text_of(&expect["document"]))])?,
        )
    })
}

/// `seen` gets the canonical form of a document that loads.
fn loader(input: &Value, expect: &Value, seen: impl FnOnce(&Value)) -> Outcome {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut options = LoadOptions::new(dir.path());
    options.project_name = input["project_name"].as_str().map(str::to_owned);
    let files = input["files"].as_array().into_iter().flatten();
    let files: Vec<(&str, &str)> = files.map(|file| (text_of(&file[0]), text_of(&file[1]))).collect();
    options.files = files.iter().map(|(name, _)| PathBuf::from(name)).collect();
    let extra = input["extra_files"].as_object().into_iter().flatten();
    for (name, text) in files
        .into_iter()
        .chain(extra.map(|(name, text)| (name.as_str(), text_of(text))))
    {
        let path = dir.path().join(name);
        let made = std::fs::create_dir_all(path.parent().unwrap_or(&path))
            .and_then(|()| std::fs::write(&path, text));
        made.map_err(|error| error.to_string())?;
    }
    outcome(Project::load(&options), expect, |project| {
        let model = project.to_json();
        seen(&model);
        checks(&model, expect)
    })
}

fn aliases(input: &Value, expect: &Value) -> Outcome {
    let found = Project::load(&LoadOptions::new("/nowhere").text(text_of(&input["document"])));
    match expect["ok_or_error"].is_null() {
        true => outcome(found, expect, |project| checks(&project.to_json(), expect)),
        // Only its time counts.
        false => Ok(()),
    }
}

fn checks(model: &Value, expect: &Value) -> Outcome {
    for check in expect["checks"].as_array().into_iter().flatten() {
        let mut found = model;
        for step in check["path"].as_array().into_iter().flatten() {
            found = match step {
                Value::String(key) => &found[key],
                step => &found[step.as_u64().unwrap_or(u64::MAX) as usize],
            };
        }
        let what = check["path"].to_string();
        let good = match check {
            _ if check.get("equals").is_some() => same(found, &check["equals"]),
            _ if check.get("contains").is_some() => contains(found, &check["contains"]),
            _ if check.get("unordered").is_some() => {
                let sorted = |value: &Value| {
                    let mut list: Vec<String> = texts(value).into_iter().map(str::to_owned).collect();
                    list.sort();
                    list
                };
                sorted(found) == sorted(&check["unordered"])
            }
            _ if check.get("len").is_some() => {
                let length = found
                    .as_array()
                    .map(Vec::len)
                    .or_else(|| found.as_object().map(|map| map.len()));
                length.unwrap_or(0) as u64 == check["len"].as_u64().unwrap_or(u64::MAX)
            }
            _ => false,
        };
        if !good {
            return Err(format!("{what}: expected {check}, found {found}"));
        }
    }
    Ok(())
}

/// Scalars are the same by their text; what is missing is the same as what is empty.
fn same(found: &Value, expected: &Value) -> bool {
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    };
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(value) => !value,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    };
    match (found, expected) {
        (Value::Null, expected) => empty(expected),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && b.iter().all(|(key, b)| a.get(key).is_some_and(|a| same(a, b)))
        }
        _ => scalar(found).is_some() && scalar(found) == scalar(expected),
    }
}

fn contains(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| contains(a, b))
        }
        (Value::Object(a), Value::Object(b)) => b
            .iter()
            .all(|(key, b)| a.get(key).is_some_and(|a| contains(a, b))),
        _ => same(found, expected),
    }
}

fn interpolation(input: &Value, expect: &Value) -> Outcome {
    match text_of(&input["op"]) {
        "substitute" => {
            let found = interpolate(text_of(&input["template"]), &variables(&input["env"]));
            outcome(found, expect, |found| {
                equal("result", &json!(found), &expect["result"])
            })
        }
        "variables" => {
            let found = variables_in(&input["document"]);
            outcome(found, expect, |found| {
                let described = found.into_iter().map(|(name, variable)| {
                    let mut fields = serde_json::Map::new();
                    if let Some(default) = variable.default {
                        fields.insert("default".to_owned(), json!(default));
                    }
                    if let Some(presence) = variable.presence {
                        fields.insert("presence".to_owned(), json!(presence));
                    }
                    if variable.required {
                        fields.insert("required".to_owned(), json!(true));
                    }
                    (name, Value::Object(fields))
                });
                equal(
                    "variables",
                    &Value::Object(described.collect()),
                    &expect["variables"],
                )
            })
        }
        other => Err(format!("unknown op {other}")),
    }
}

fn dotenv(input: &Value, expect: &Value) -> Outcome {
    let environment = variables(&input["env"]);
    let found = parse_dotenv(text_of(&input["text"]), &|name| environment.get(name).cloned());
    outcome(found, expect, |found| {
        let mut found: BTreeMap<String, String> = found.into_iter().collect();
        if input["precedence"] == json!(true) {
            found.extend(environment.clone());
        }
        equal("vars", &json!(found), &expect["vars"])
    })
}

fn volumes(input: &Value, expect: &Value) -> Outcome {
    match text_of(&input["op"]) {
        "split" => equal(
            "parts",
            &json!(ServiceVolume::split(text_of(&input["text"]))),
            &expect["parts"],
        ),
        "parse" => outcome(
            ServiceVolume::parse(text_of(&input["volume"])),
            expect,
            |volume| {
                let found = serde_json::to_value(volume).map_err(|error| error.to_string())?;
                match contains(&found, &expect["volume"]) {
                    true => Ok(()),
                    false => Err(format!("expected {}, found {found}", expect["volume"])),
                }
            },
        ),
        other => Err(format!("unknown op {other}")),
    }
}

fn ports(input: &Value, expect: &Value) -> Outcome {
    let found: Result<Vec<Vec<Port>>, String> = texts(&input["ports"]).into_iter().map(Port::parse).collect();
    outcome(found, expect, |found| {
        let found: Vec<Port> = found.into_iter().flatten().collect();
        let found = serde_json::to_value(found).map_err(|error| error.to_string())?;
        match contains(&found, &expect["ports"]) {
            true => Ok(()),
            false => Err(format!("expected {}, found {found}", expect["ports"])),
        }
    })
}

fn bytes(input: &Value, expect: &Value) -> Outcome {
    let text = match &input["value"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    outcome(Bytes::parse(&text), expect, |found| {
        equal("bytes", &json!(found.0), &expect["bytes"])
    })
}

fn hosts(input: &Value, expect: &Value) -> Outcome {
    outcome(Hosts::parse(&texts(&input["hosts"])), expect, |hosts| {
        let mut found: Vec<String> = hosts
            .pairs()
            .iter()
            .map(|(name, address)| format!("{name}:{address}"))
            .collect();
        found.sort();
        equal("hosts", &json!(found), &expect["hosts"])
    })
}
