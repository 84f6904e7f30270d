//! Logs are read as they were written, over files and owners.

use super::*;
use crate::logs::files::full;
use crate::logs::files::full_numbers;
use crate::logs::{LogStream, LogWriter};
use crate::spec::{ContainerSpec, LogConfig};
use crate::state::{Containers, Record};
use proptest::prelude::*;

fn container_dir(root: &std::path::Path) -> ContainerDir {
    let record = Record {
        version: 1,
        id: "a".repeat(64),
        name: "n".into(),
        image: String::new(),
        image_id: String::new(),
        created: String::new(),
        detached: false,
        command: Vec::new(),
        spec: Default::default(),
        mounts: Vec::new(),
        anonymous_volumes: Vec::new(),
        stop_signal: 15,
        image_config: None,
    };
    Containers::open(root)
        .expect("open")
        .create(&record, true)
        .map(|(dir, _)| dir)
        .expect("create")
}

fn read_all(reader: &mut Reader) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    while let Next::Line(line) = reader.step().expect("read") {
        lines.push(line.bytes);
    }
    lines
}

#[test]
fn every_byte_written_is_read_again() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = container_dir(root.path());
    let mut writer = LogWriter::open(dir.path(), &ContainerSpec::default()).expect("open");
    let mut written = b"one\ntwo".to_vec();
    written.extend([b'x'; 40_000]);
    written.extend(b"\n\xff\xfe\nlast");
    for chunk in written.chunks(777) {
        writer.write(LogStream::Stdout, chunk).expect("write");
    }
    writer.finish(LogStream::Stdout).expect("finish");
    let mut reader = Reader::open(&dir, false).expect("open");
    assert_eq!(read_all(&mut reader).concat(), written);
    let mut reader = Reader::open(&dir, false).expect("open");
    reader.keep_last(2).expect("tail");
    assert_eq!(read_all(&mut reader), [b"\xff\xfe\n".to_vec(), b"last".to_vec()]);
    assert_eq!(last_lines(&dir, 1), ["last"]);
}

fn writer(dir: &ContainerDir, log: LogConfig) -> LogWriter {
    let mut spec = ContainerSpec::default().label("tier", "web");
    spec.log = log;
    LogWriter::open(dir.path(), &spec).expect("open")
}

fn numbers(lines: &[Vec<u8>]) -> Vec<usize> {
    let text = |line: &Vec<u8>| String::from_utf8(line.clone()).expect("text");
    lines
        .iter()
        .map(|line| text(line).trim().parse().expect("number"))
        .collect()
}

#[test]
fn rotation_keeps_the_newest_files_and_tails_go_over_them() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = container_dir(root.path());
    let config = || LogConfig::default().max_size(2000).max_files(3);
    let mut log = writer(&dir, config());
    for number in 0..200 {
        if number == 100 {
            // Another owner goes on.
            log = writer(&dir, config());
        }
        log.write(LogStream::Stdout, format!("{number}\n").as_bytes())
            .expect("write");
    }
    let full = full_numbers(dir.path()).expect("list");
    assert_eq!(full.len(), 2, "{full:?}");
    for entry in std::fs::read_dir(dir.path()).expect("list").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = entry.metadata().expect("size").len();
        assert!(!name.starts_with("log") || size <= 2000, "{name}: {size}");
    }
    let mut reader = Reader::open(&dir, false).expect("open");
    let all = numbers(&read_all(&mut reader));
    assert!(
        all.len() > 40 && all.iter().copied().eq(200 - all.len()..200),
        "{all:?}"
    );
    for lines in [0, 1, 5, 30, all.len() - 1, all.len(), 1000] {
        let mut reader = Reader::open(&dir, false).expect("open");
        reader.keep_last(lines).expect("tail");
        let kept = numbers(&read_all(&mut reader));
        assert_eq!(kept, all[all.len() - lines.min(all.len())..], "tail {lines}");
    }
}

#[test]
fn a_follower_gets_everything_once_over_rotations_and_owners() {
    const LINES: usize = 20_000;
    let root = tempfile::tempdir().expect("tempdir");
    let dir = container_dir(root.path());
    // Every file is kept: a follower may be as slow as it likes.
    let config = LogConfig::default().max_size(3000).max_files(1_000_000);
    let mut reader = Reader::open(&dir, true).expect("open");
    let seen = std::thread::scope(|scope| {
        let (own, config) = (dir.clone(), config);
        scope.spawn(move || {
            let mut log = writer(&own, config.clone());
            for number in 0..LINES {
                if number % 3000 == 2999 {
                    log = writer(&own, config.clone());
                }
                log.write(LogStream::Stdout, format!("{number}\n").as_bytes())
                    .expect("write");
            }
        });
        let mut seen = Vec::new();
        while seen.len() < LINES {
            match reader.step().expect("read") {
                Next::Line(line) => seen.push(line.bytes),
                Next::Wait => std::thread::yield_now(),
                Next::End => panic!("ended after {} lines", seen.len()),
            }
        }
        seen
    });
    assert!(numbers(&seen).into_iter().eq(0..LINES));
}

#[test]
fn files_that_go_while_they_are_read_are_read_to_their_ends() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = container_dir(root.path());
    let mut log = writer(&dir, LogConfig::default().max_size(2000).max_files(3));
    let mut write = |from: usize, to: usize| {
        for number in from..to {
            log.write(LogStream::Stdout, format!("{number}\n").as_bytes())
                .expect("write");
        }
    };
    write(0, 60);
    let kept = numbers(&read_all(&mut Reader::open(&dir, false).expect("open")));
    assert!(kept.len() > 40, "several files: {kept:?}");
    let mut whole = Reader::open(&dir, false).expect("open");
    let mut tail = Reader::open(&dir, false).expect("open");
    tail.keep_last(50).expect("tail");
    // None of the files that were there is there any more.
    write(60, 400);
    let whole = numbers(&read_all(&mut whole));
    assert_eq!(whole[..kept.len()], kept);
    assert!(whole.is_sorted() && whole.last() == Some(&399), "{whole:?}");
    let tail = numbers(&read_all(&mut tail));
    assert_eq!(tail[..50], kept[kept.len() - 50..]);
}

#[test]
fn an_interrupted_turn_and_a_torn_line_lose_nothing_else() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = container_dir(root.path());
    let config = || LogConfig::default().max_size(1000).max_files(9);
    let mut log = writer(&dir, config());
    let write = |log: &mut LogWriter, from: usize| {
        for number in from..from + 20 {
            log.write(LogStream::Stderr, format!("{number}\n").as_bytes())
                .expect("write");
        }
    };
    write(&mut log, 0);
    // Killed in the middle of a line, and between the two steps of a turn.
    let text = std::fs::read(dir.file(CURRENT)).expect("read");
    let current = LogFile::open(&dir.file(CURRENT)).expect("open").number;
    std::fs::write(dir.file(CURRENT), [&text[..], b"{\"log\":\"half"].concat()).expect("write");
    std::fs::hard_link(dir.file(CURRENT), full(dir.path(), current)).expect("link");
    std::fs::write(dir.file("log.next"), "{\"fi").expect("write");
    let mut log = writer(&dir, config());
    write(&mut log, 20);
    let mut reader = Reader::open(&dir, false).expect("open");
    assert!(numbers(&read_all(&mut reader)).into_iter().eq(0..40));
}

#[test]
fn details_are_kept_with_each_line() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = container_dir(root.path());
    let mut config = LogConfig::default();
    config.parse_option("labels=tier").expect("parse");
    let mut log = writer(&dir, config);
    log.write(LogStream::Stdout, b"x\n").expect("write");
    let mut reader = Reader::open(&dir, false).expect("open");
    let Next::Line(line) = reader.step().expect("read") else {
        panic!("no line")
    };
    assert_eq!(line.details.get("tier").map(String::as_str), Some("web"));
}

proptest! {
    #[test]
    fn any_file_is_lines_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes);
        let root = tempfile::tempdir().expect("tempdir");
        std::fs::write(root.path().join(CURRENT), &bytes).expect("write");
        let mut file = LogFile::open(&root.path().join(CURRENT)).expect("open");
        prop_assert!(file.begin <= bytes.len() as u64);
        let _ = last_lines_of(&mut file, 3).expect("tail");
    }
}
