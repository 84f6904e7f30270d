//! The variables of services: null values, `env_file`, `label_file`.

use super::LoadOptions;
use crate::dotenv::{parse_dotenv, parse_raw};
use crate::error::{Error, Finding, FindingKind, Place, Result, Warning, WarningKind};
use crate::model::{Origin, Pairs, Project};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Bytes of an environment file.
const LONGEST: u64 = 1 << 20;

/// What all services together may take from such files, in bytes; a variable counts as [`VARIABLE`] more.
const MOST: usize = 4 << 20;

/// What a variable costs beside its text.
const VARIABLE: usize = 64;

/// Reads the beginning of one, [`LONGEST`] bytes and one more if it is too long; refuses what is not UTF-8.
fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = super::regular::open(path)?;
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    Ok(text)
}

fn place_of(origin: &Origin, path: &[&str]) -> Option<Place> {
    let tree = origin.tree.as_ref()?;
    origin.sources.place(tree.span_of(path))
}

/// The file that stands at this path of the document is too long, or all of them are.
fn too_much(origin: &Origin, path: &[&str], message: String) -> Error {
    wrong_file(origin, FindingKind::Limit, path, message)
}

/// The file that stands at this path of the document cannot be read.
fn unread(origin: &Origin, at: &[&str], path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => FindingKind::Missing,
        std::io::ErrorKind::InvalidInput => FindingKind::Refused,
        _ => {
            return Error::Read {
                path: path.to_owned(),
                source: error,
            };
        }
    };
    wrong_file(origin, kind, at, format!("{}: {error}", path.display()))
}

fn wrong_file(origin: &Origin, kind: FindingKind, path: &[&str], message: String) -> Error {
    Finding {
        kind,
        path: path.join("."),
        place: place_of(origin, path),
        message,
        hint: None,
    }
    .into()
}

fn too_long(origin: &Origin, path: &[&str], file: &Path) -> Error {
    let message = format!("{} has more than {LONGEST} bytes", file.display());
    too_much(origin, path, message)
}

fn wrong_line(path: &Path, text: &str, error: &crate::dotenv::DotenvError) -> Error {
    Finding {
        kind: FindingKind::Syntax,
        path: String::new(),
        place: Some(Place {
            file: path.to_owned(),
            line: error.line,
            column: 1,
            text: text
                .lines()
                .nth(error.line.saturating_sub(1))
                .unwrap_or("")
                .chars()
                .take(200)
                .collect(),
        }),
        message: error.reason.clone(),
        hint: None,
    }
    .into()
}

/// Variables without a value get the project's, if it has one.
fn fill(pairs: &mut Pairs, environment: &BTreeMap<String, String>) {
    for (name, value) in pairs.iter_mut().filter(|(_, value)| value.is_none()) {
        *value = environment.get(name).cloned();
    }
}

/// `environment` with the files of `env_file`; later files win over earlier ones, `environment` wins over files.
pub(super) fn env_files(
    project: &mut Project,
    options: &LoadOptions,
    warnings: &mut Vec<Warning>,
) -> Result<()> {
    let environment = project.environment.clone();
    let origin = project.origin.clone();
    let mut brought = 0;
    for (name, service) in &mut project.services {
        fill(&mut service.environment, &environment);
        if let Some(build) = &mut service.build {
            fill(&mut build.args, &environment);
            // The Dockerfile's own values are used then.
            build.args.retain(|_, value| value.is_some());
        }
        let hooks = [
            &mut service.pre_start,
            &mut service.post_start,
            &mut service.pre_stop,
        ];
        hooks
            .into_iter()
            .flatten()
            .for_each(|hook| fill(&mut hook.environment, &environment));
        if !options.resolve_env_files {
            continue;
        }
        let mut together = Pairs::new();
        for (index, file) in service.env_file.iter().enumerate() {
            let path = project.working_dir.join(&file.path);
            let number = index.to_string();
            let at = ["services", name, "env_file", number.as_str()];
            let text = match read(&path) {
                Ok(text) => text,
                Err(error)
                    if error.kind() == std::io::ErrorKind::NotFound && file.required == Some(false) =>
                {
                    warnings.push(Warning {
                        kind: WarningKind::MissingFile,
                        path: at.join("."),
                        place: place_of(&origin, &at),
                        message: format!("{} is not there, and need not be", path.display()),
                    });
                    continue;
                }
                Err(error) => return Err(unread(&origin, &at, &path, error)),
            };
            if text.len() as u64 > LONGEST {
                return Err(too_long(&origin, &at, &path));
            }
            let own = &service.environment;
            let lookup = |name: &str| {
                let known = environment.get(name).cloned();
                known
                    .or_else(|| own.get(name).cloned().flatten())
                    .or_else(|| together.get(name).cloned().flatten())
            };
            let found = match file.format.as_deref() {
                Some("raw") => parse_raw(&text),
                _ => parse_dotenv(&text, &lookup),
            };
            let found = found.map_err(|error| wrong_line(&path, &text, &error))?;
            let bytes = found
                .iter()
                .map(|(name, value)| name.len() + value.len() + VARIABLE);
            brought += text.len() + bytes.sum::<usize>();
            if brought > MOST {
                let message = format!("the files of all services bring more than {MOST} bytes");
                return Err(too_much(&origin, &at, message));
            }
            together.extend(found.into_iter().map(|(name, value)| (name, Some(value))));
        }
        together.append(&mut service.environment);
        service.environment = together;
        service.env_file.clear();
    }
    Ok(())
}

/// `labels` with the files of `label_file`, which they win over.
pub(super) fn label_files(project: &mut Project) -> Result<()> {
    let origin = project.origin.clone();
    let mut brought = 0;
    for (service_name, service) in &mut project.services {
        let mut together = BTreeMap::new();
        for file in std::mem::take(&mut service.label_file) {
            let path = project.working_dir.join(file);
            let at = ["services", service_name, "label_file"];
            let text = read(&path).map_err(|error| unread(&origin, &at, &path, error))?;
            if text.len() as u64 > LONGEST {
                return Err(too_long(&origin, &at, &path));
            }
            let found = parse_dotenv(&text, &|_| None).map_err(|error| wrong_line(&path, &text, &error))?;
            let bytes = found
                .iter()
                .map(|(name, value)| name.len() + value.len() + VARIABLE);
            brought += text.len() + bytes.sum::<usize>();
            if brought > MOST {
                let message = format!("the files of all services bring more than {MOST} bytes");
                return Err(too_much(&origin, &at, message));
            }
            together.extend(found);
        }
        together.append(&mut service.labels);
        service.labels = together;
    }
    Ok(())
}
