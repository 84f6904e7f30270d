//! Files that are none: pipes and devices in the place of those that documents and callers name.

use rdock_compose::{Error, Finding, FindingKind, LoadOptions, Project};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

fn pipe(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

/// The only mistake of a project.
fn mistake(options: &LoadOptions) -> Finding {
    match Project::load(options) {
        Err(Error::Invalid { findings }) if findings.len() == 1 => findings[0].clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_document_names_is_a_regular_file() {
    let documents = [
        "services: {a: {image: x, env_file: FILE}}",
        "services: {a: {image: x, env_file: [{path: FILE, required: false}]}}",
        "services: {a: {image: x, env_file: [{path: FILE, format: raw}]}}",
        "services: {a: {image: x, label_file: FILE}}",
        "services: {a: {extends: {file: FILE, service: a}}}",
        "include: [FILE]",
        "include: [{path: other.yaml, env_file: FILE}]",
        "services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {file: FILE}}",
        "services: {a: {image: x, configs: [s]}}\nconfigs: {s: {file: FILE}}",
    ];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("compose.yaml");
    pipe(&dir.path().join("pipe"));
    std::fs::write(dir.path().join("other.yaml"), "services: {o: {image: x}}").unwrap();
    for name in ["./pipe", "/dev/zero", "."] {
        for document in documents {
            std::fs::write(&file, format!("name: t\n{}\n", document.replace("FILE", name))).unwrap();
            let found = mistake(&LoadOptions::new(dir.path()));
            let line = found.place.as_ref().map(|place| place.line);
            let expected = if document.contains("}}\n") { 3 } else { 2 };
            assert_eq!(line, Some(expected), "{name}: {document}: {found}");
            let refused = found.kind == FindingKind::Refused && found.message.contains(" is a ");
            let no_file = found.kind == FindingKind::Missing && found.message.contains("is not a file");
            assert!(refused || no_file, "{name}: {document}: {found}");
        }
    }
    // The null device is an empty file.
    std::fs::write(&file, "name: t\nservices: {a: {image: x, env_file: /dev/null}}\n").unwrap();
    let project = Project::load(&LoadOptions::new(dir.path())).unwrap();
    assert!(project.services["a"].environment.is_empty());
}

#[test]
fn the_variables_of_a_folder_are_a_regular_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("compose.yaml"),
        "name: t\nservices: {a: {image: x}}\n",
    )
    .unwrap();
    pipe(&dir.path().join(".env"));
    let error = Project::load(&LoadOptions::new(dir.path())).unwrap_err();
    let Error::Read { path, source } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*path, dir.path().join(".env"));
    assert!(source.to_string().contains("it is a FIFO"), "{source}");
    // Whoever wants it names it.
    let mut options = LoadOptions::new(dir.path());
    options.dot_env = false;
    Project::load(&options).unwrap();
}

#[test]
fn pipes_that_the_caller_names_are_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let (file, variables) = (dir.path().join("file"), dir.path().join("variables"));
    let said = [
        // Without a name the file is looked at twice.
        (&file, "services: {a: {image: 'x:${TAG}'}}\n"),
        (&variables, "TAG=7\n"),
    ];
    let mut options = LoadOptions::new(dir.path()).file(&file);
    options.env_files = vec![variables.clone()];
    std::thread::scope(|scope| {
        for (path, text) in said {
            pipe(path);
            scope.spawn(move || {
                let mut pipe = OpenOptions::new().write(true).open(path).unwrap();
                pipe.write_all(text.as_bytes()).unwrap();
            });
        }
        let project = Project::load(&options).unwrap();
        assert_eq!(project.services["a"].image.as_deref(), Some("x:7"));
    });
}

#[test]
fn a_pipe_without_an_end_is_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    pipe(&file);
    let options = LoadOptions::new(dir.path()).file(&file);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut pipe = OpenOptions::new().write(true).open(&file).unwrap();
            // Ends when nobody reads any more.
            while pipe.write_all(&[b'#'; 4096]).is_ok() {}
        });
        assert_eq!(mistake(&options).kind, FindingKind::Limit);
    });
}
