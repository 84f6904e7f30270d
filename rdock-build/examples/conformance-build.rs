//! Runs one suite of build conformance cases: `conformance-build DIR` prints `N passed, M failed`.
//!
//! DIR holds `cases.jsonl` (one case per line: `id`, `input`, `expect`) and the fixtures in `files/`; the folder's
//! name says which suite it is. A folder of suites runs them all. Failing rows that are meant are argued in
//! `conformance-build.md`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

#[path = "conformance-build/builds.rs"]
mod builds;
#[path = "../tests/it/busybox.rs"]
mod busybox;
#[path = "conformance-build/language.rs"]
mod language;
#[path = "conformance-build/tree.rs"]
mod tree;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Why a case fails.
type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: conformance-build DIR");
        return ExitCode::from(2);
    };
    let suites = match dir.join("cases.jsonl").exists() {
        true => vec![dir],
        false => suites_in(&dir),
    };
    let mut code = ExitCode::SUCCESS;
    for suite in suites {
        match run(&suite) {
            Ok(0) => {}
            Ok(_) => code = ExitCode::FAILURE,
            Err(error) => {
                eprintln!("{}: {error}", suite.display());
                return ExitCode::from(2);
            }
        }
    }
    code
}

fn suites_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut suites: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.join("cases.jsonl").exists() && known(&name(path)))
        .collect();
    suites.sort();
    suites
}

fn name(dir: &Path) -> String {
    let full = dir.canonicalize().unwrap_or_default();
    full.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn known(suite: &str) -> bool {
    language::case(suite).is_some() || matches!(suite, "golden" | "exclude")
}

/// Runs a suite and returns how many cases fail.
fn run(dir: &Path) -> Result<usize, String> {
    let text = std::fs::read_to_string(dir.join("cases.jsonl")).map_err(|error| error.to_string())?;
    let suite = name(dir);
    type Case<'a> = Box<dyn Fn(&Value, &Value) -> Outcome + 'a>;
    let site;
    let case: Case = match suite.as_str() {
        "golden" | "exclude" => {
            site = builds::Site::open(dir).map_err(|error| format!("the base image: {error}"))?;
            match suite.as_str() {
                "golden" => Box::new(|input, expect| site.golden(input, expect)),
                _ => Box::new(|input, expect| site.exclude(input, expect)),
            }
        }
        _ => Box::new(language::case(&suite).ok_or_else(|| format!("unknown suite {suite}"))?),
    };
    let (mut passed, mut failed) = (0, 0);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let row: Value =
            serde_json::from_str(line).map_err(|error| format!("a case is not JSON: {error}"))?;
        match case(&row["input"], &row["expect"]) {
            Ok(()) => passed += 1,
            Err(reason) => {
                failed += 1;
                println!("FAILED {suite} {}: {reason}", text_of(&row["id"]));
            }
        }
    }
    println!("{suite}: {passed} passed, {failed} failed");
    Ok(failed)
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn equal(what: &str, found: &Value, expected: &Value) -> Outcome {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: expected {expected}, found {found}")),
    }
}
