//! Rules for the sources, checked by reading them.

use std::fs;
use std::path::{Path, PathBuf};

/// A longer file holds more than one thing.
const LONGEST: usize = 600;

/// Where system calls that no safe wrapper has are made.
const UNSAFE: [&str; 4] = [
    "rdock-runtime/src/sys/",
    "rdock-runtime/helper/",
    "examples/payload/",
    "benches/floor/",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file below the workspace whose name ends so, with its path from the root, and its text.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let (root, mut found, mut open) = (root(), Vec::new(), vec![root()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !["target", ".git", "data"].contains(&name.as_str()) {
                open.push(path);
            } else if kind.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                let short = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.push((short, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(
        found.len() > 5,
        "found only {} files below {}",
        found.len(),
        root.display()
    );
    found
}

/// What the compiler sees of Rust sources: no comments, no text.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skip = match next {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => text_end(rest),
            'r' if rest.starts_with("r\"") => rest[2..].find('"').map_or(rest.len(), |end| end + 3),
            'r' if rest.starts_with("r#\"") => rest.find("\"#").map_or(rest.len(), |end| end + 2),
            '\'' if rest.starts_with("'\"'") => 3,
            '\'' if rest.starts_with("'\\") => rest[3..].find('\'').map_or(rest.len(), |end| end + 4),
            _ => 0,
        };
        if skip == 0 {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            rest = &rest[skip..];
        }
    }
    code
}

/// Past the closing quote of a string that begins here.
fn text_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

#[test]
fn code_leaves_out_comments_and_text() {
    let text = "let a = \"un\\\"safe\"; // unsafe\nlet q = '\"'; let b = r#\"unsafe\"#; /* unsafe */ let c = '\\''; safe";
    let seen: Vec<_> = code(text).split_whitespace().map(str::to_owned).collect();
    assert_eq!(seen.join(" "), "let a = ; let q = ; let b = ; let c = ; safe");
}

#[test]
fn every_source_file_is_short_and_says_what_it_is() {
    let mut wrong = Vec::new();
    for (path, text) in files(&[".rs"]) {
        let lines = text.lines().count();
        if lines > LONGEST {
            wrong.push(format!("{path}: {lines} lines"));
        }
        // A test program whose folders differ starts with the attributes that say so.
        let first = text.lines().find(|line| !line.starts_with("#!"));
        if !first.is_some_and(|line| line.starts_with("//! ")) {
            wrong.push(format!("{path}: does not begin with //!"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_where_system_calls_are() {
    let mut wrong = Vec::new();
    for (path, text) in files(&[".rs"]) {
        let used = words(&code(&text)).any(|word| word == "unsafe");
        if used && !UNSAFE.iter().any(|place| path.starts_with(place)) {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn crates_without_system_calls_forbid_unsafe_code() {
    for name in ["rdock-image", "rdock-registry", "rdock-build", "rdock-compose"] {
        let text = fs::read_to_string(root().join(name).join("src/lib.rs")).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{name}");
    }
}

#[test]
fn nothing_is_left_for_later() {
    let mut wrong = Vec::new();
    // In pieces, or this file would be found.
    let marks = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X:"].concat(),
    ];
    let macros = ["todo", "unimplemented", "dbg"];
    for (path, text) in files(&[".rs", ".sh", ".toml", ".md"]) {
        wrong.extend(
            marks
                .iter()
                .filter(|mark| text.contains(*mark))
                .map(|mark| format!("{path}: {mark}")),
        );
        if path.ends_with(".rs") {
            let code = code(&text);
            let used = macros.iter().filter(|name| code.contains(&format!("{name}!(")));
            wrong.extend(used.map(|name| format!("{path}: {name}!")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_depends_on_one_machine() {
    // Folders of a machine, and package servers, which the machine's own settings name.
    let places = [
        ["/wo", "rk/"].concat(),
        ["../sh", "ared"].concat(),
        ["/ro", "ot/."].concat(),
        ["deb.deb", "ian.org"].concat(),
        ["archive.ub", "untu.com"].concat(),
        ["crates", ".io/"].concat(),
        ["py", "pi.org"].concat(),
    ];
    let mut wrong = Vec::new();
    for (path, text) in files(&[".rs", ".sh", ".toml", ".md", ".yml", ".cnf", "run"]) {
        wrong.extend(
            places
                .iter()
                .filter(|place| text.contains(*place))
                .map(|place| format!("{path}: {place}")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
