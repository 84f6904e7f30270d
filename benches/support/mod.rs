//! What the benchmarks share: a fresh file system, rows that take turns, and the table.

pub(crate) mod ground;
pub(crate) mod rows;
pub(crate) mod table;

use std::path::PathBuf;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Where the shell would find a program.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The value of `--NAME VALUE` among this program's arguments.
pub(crate) fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

/// As [`option`], a number.
pub(crate) fn number(name: &str, default: usize) -> Outcome<usize> {
    match option(name) {
        Some(text) => Ok(text.parse().map_err(|_| format!("{name} {text}: not a number"))?),
        None => Ok(default),
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
