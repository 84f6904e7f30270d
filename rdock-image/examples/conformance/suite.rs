//! What the drivers of conformance suites share: a folder with `cases.jsonl` (one case per line: `id`, `input`,
//! `expect`) is a suite of its name, and each of its cases passes or fails.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Why a case fails.
pub(crate) type Outcome = Result<(), String>;

/// One suite.
pub(crate) struct Suite {
    pub(crate) dir: PathBuf,
    /// The folder's name, which says what the cases are.
    pub(crate) name: String,
}

impl Suite {
    fn of(dir: PathBuf) -> Self {
        let full = dir.canonicalize().unwrap_or_default();
        let name = full
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        Self { dir, name }
    }
}

/// Runs the suite, or the folder of suites, that the command line names. `judge` gets a case's input and what is expected
/// of it; `None` says that it does not know the suite.
pub(crate) fn run(program: &str, judge: impl Fn(&Suite, &Value, &Value) -> Option<Outcome>) -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: {program} DIR");
        return ExitCode::from(2);
    };
    let single = dir.join("cases.jsonl").exists();
    let suites = match single {
        true => vec![dir],
        false => below(&dir),
    };
    if suites.is_empty() {
        eprintln!("{program}: no suite is there");
        return ExitCode::from(2);
    }
    let mut code = ExitCode::SUCCESS;
    for suite in suites.into_iter().map(Suite::of) {
        match counted(&suite, &judge) {
            Ok((passed, failed)) => {
                let name = match single {
                    true => String::new(),
                    false => format!("{}: ", suite.name),
                };
                println!("{name}{passed} passed, {failed} failed");
                if failed > 0 {
                    code = ExitCode::FAILURE;
                }
            }
            Err(error) => {
                eprintln!("{}: {error}", suite.dir.display());
                return ExitCode::from(2);
            }
        }
    }
    code
}

/// The suites in a folder, by their names.
fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut suites: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.join("cases.jsonl").exists())
        .collect();
    suites.sort();
    suites
}

/// How many cases pass and fail; those that fail are printed.
fn counted(
    suite: &Suite,
    judge: impl Fn(&Suite, &Value, &Value) -> Option<Outcome>,
) -> Result<(usize, usize), String> {
    let text = std::fs::read_to_string(suite.dir.join("cases.jsonl")).map_err(|error| error.to_string())?;
    let (mut passed, mut failed) = (0, 0);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let case: Value =
            serde_json::from_str(line).map_err(|error| format!("a case is not JSON: {error}"))?;
        let outcome = judge(suite, &case["input"], &case["expect"])
            .ok_or_else(|| format!("unknown suite {}", suite.name))?;
        match outcome {
            Ok(()) => passed += 1,
            Err(reason) => {
                failed += 1;
                println!("FAILED {}: {reason}", text_of(&case["id"]));
            }
        }
    }
    Ok((passed, failed))
}

pub(crate) fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(crate) fn equal(what: &str, found: &Value, expected: &Value) -> Outcome {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: expected {expected}, found {found}")),
    }
}
