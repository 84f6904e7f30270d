//! `rdock build --call`: what a Dockerfile says of itself, in BuildKit's words.

use crate::build::failure;
use crate::streams::print;
use crate::{Failure, Outcome};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdock_build::dockerfile::{Dockerfile, Outline, OutlineMount, Span, Target};
use rdock_build::runtime::Runtime;
use rdock_build::{BuildWarning, Builder};
use serde_json::{Map, Value, json};

/// What is asked of a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Build,
    Check,
    Outline,
    Targets,
}

/// `--call=METHOD[,format=text|json]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    json: bool,
}

impl std::str::FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (method, options) = text.split_once(',').unwrap_or((text, ""));
        let method = match method {
            "build" => Method::Build,
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            _ => return Err("there are build, check, outline and targets".to_owned()),
        };
        let json = match options {
            "" | "format=text" => false,
            "format=json" => true,
            other => return Err(format!("{other:?} is not format=text or format=json")),
        };
        Ok(Self { method, json })
    }
}

impl Call {
    pub(crate) const CHECK: Self = Self {
        method: Method::Check,
        json: false,
    };

    pub(crate) async fn answer(self, builder: &Builder, runtime: &Runtime) -> Outcome {
        match self.method {
            Method::Build => return Err(Failure::new("--call=build is a build")),
            Method::Check => {
                let found = builder.check(runtime).await.map_err(failure)?;
                match self.json {
                    true => print(&format!("{:#}", checked_json(&found))),
                    false => checked(&found),
                }
                // Docker's code is 1 when there are findings.
                return Ok(u8::from(!found.is_empty()));
            }
            Method::Outline => {
                let (file, outline) = builder.outline(runtime).await.map_err(failure)?;
                match self.json {
                    true => print(&format!("{:#}", outline_json(&file, &outline))),
                    false => print_outline(&outline),
                }
            }
            Method::Targets => {
                let (file, targets) = builder.targets(runtime).await.map_err(failure)?;
                match self.json {
                    true => print(&format!("{:#}", targets_json(&file, &targets))),
                    false => print_targets(&targets),
                }
            }
        }
        Ok(0)
    }
}

/// Prints findings.
fn checked(found: &[BuildWarning]) {
    for warning in found {
        print(&warning.to_string());
        if let Some(place) = warning.place.as_ref().filter(|place| !place.text.is_empty()) {
            print(&format!("{:>6} | {}", place.line, place.text));
        }
    }
    print(&match found.len() {
        0 => "Check complete, no warnings found.".to_owned(),
        1 => "Check complete, 1 warning has been found!".to_owned(),
        count => format!("Check complete, {count} warnings have been found!"),
    });
}

fn checked_json(found: &[BuildWarning]) -> Value {
    let warnings = found.iter().map(|warning| {
        let mut value = Map::new();
        let name = warning.rule.map_or("", |rule| rule.name());
        let detail = warning.text.strip_prefix(name).unwrap_or(&warning.text);
        value.insert("ruleName".to_owned(), name.into());
        value.insert("detail".to_owned(), detail.trim_start_matches(": ").into());
        if let Some(place) = warning.place.as_ref().filter(|place| place.line > 0) {
            value.insert("location".to_owned(), lines(place.line, place.last_line));
        }
        Value::Object(value)
    });
    json!({ "warnings": warnings.collect::<Vec<_>>() })
}

/// Columns of `rows`, three blanks between them; the last one as long as it is.
fn columns(rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0) + 3
    };
    let widths: Vec<usize> = (0..columns.saturating_sub(1)).map(width).collect();
    for row in rows {
        let cells = row
            .iter()
            .enumerate()
            .map(|(column, cell)| match widths.get(column) {
                Some(width) => format!("{cell:width$}"),
                None => cell.clone(),
            });
        print(cells.collect::<String>().trim_end());
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn print_targets(targets: &[Target]) {
    let mut rows = vec![row(["TARGET", "DESCRIPTION"])];
    for target in targets {
        let name = match (target.name.as_deref().unwrap_or_default(), target.default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        rows.push(row([&name, target.description.as_deref().unwrap_or_default()]));
    }
    columns(&rows);
}

fn print_outline(outline: &Outline) {
    if outline.name.is_some() || outline.description.is_some() {
        let name = outline.name.as_deref().unwrap_or("(default)");
        match &outline.description {
            None => print(&format!("TARGET: {name}")),
            Some(text) => print(&format!("TARGET:      {name}\nDESCRIPTION: {text}")),
        }
        print("");
    }
    if !outline.args.is_empty() {
        let mut rows = vec![row(["BUILD ARG", "VALUE", "DESCRIPTION"])];
        for one in &outline.args {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            rows.push(vec![one.name.clone(), text(&one.value), text(&one.description)]);
        }
        columns(&rows);
        print("");
    }
    for (title, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !mounts.is_empty() {
            let mut rows = vec![row([title, "REQUIRED"])];
            for mount in mounts {
                let required = if mount.required { "true" } else { "" };
                rows.push(row([&mount.name, required]));
            }
            columns(&rows);
            print("");
        }
    }
}

fn lines(first: u32, last: u32) -> Value {
    json!({ "ranges": [{ "start": { "line": first }, "end": { "line": last.max(first) } }] })
}

/// An object without what is empty.
fn object<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        _ => false,
    };
    let pairs = pairs.into_iter().filter(|(_, value)| !empty(value));
    Value::Object(pairs.map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The Dockerfile, as BuildKit's documents have it.
fn sources(file: &Dockerfile) -> Value {
    json!([STANDARD.encode(file.source.text())])
}

fn span(span: Span) -> Value {
    lines(span.first_line, span.last_line)
}

fn targets_json(file: &Dockerfile, targets: &[Target]) -> Value {
    let targets = targets.iter().map(|target| {
        object([
            ("name", json!(target.name)),
            ("default", json!(target.default)),
            ("description", json!(target.description)),
            ("base", json!(target.base)),
            ("platform", json!(target.platform)),
            ("location", span(target.span)),
        ])
    });
    json!({ "targets": targets.collect::<Vec<_>>(), "sources": sources(file) })
}

fn outline_json(file: &Dockerfile, outline: &Outline) -> Value {
    let args = outline.args.iter().map(|one| {
        object([
            ("name", json!(one.name)),
            ("description", json!(one.description)),
            ("value", json!(one.value)),
            ("location", span(one.span)),
        ])
    });
    let mounts = |mounts: &[OutlineMount]| {
        let mounts = mounts.iter().map(|one| {
            object([
                ("name", json!(one.name)),
                ("required", json!(one.required)),
                ("location", span(one.span)),
            ])
        });
        Value::Array(mounts.collect())
    };
    object([
        ("name", json!(outline.name)),
        ("description", json!(outline.description)),
        ("args", Value::Array(args.collect())),
        ("secrets", mounts(&outline.secrets)),
        ("ssh", mounts(&outline.ssh)),
        ("sources", sources(file)),
    ])
}
