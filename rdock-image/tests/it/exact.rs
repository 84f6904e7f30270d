//! A layer that came in gives the tar that it came as, to the byte, whoever wrote it and however odd it is.
use crate::children::command;
use crate::support::{Bed, Outcome, Tar, add_image, descriptor};
use crate::{Needs, Test};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use rdock_image::{Digest, Error, ExportOptions, ImageStore, Progress, Reference};
use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

pub(crate) fn tests() -> Vec<(&'static str, Needs, Test)> {
    vec![
        ("odd_tars_come_back_to_the_byte", Needs::Nothing, odd_tars),
        ("any_tar_comes_back_to_the_byte", Needs::Nothing, any_tar),
        (
            "a_user_without_rights_gives_the_same_tars",
            Needs::Root,
            without_rights,
        ),
        (
            "a_changed_file_of_a_layer_is_named",
            Needs::Nothing,
            changed_files,
        ),
        (
            "a_layer_without_a_record_of_its_tar_is_still_written",
            Needs::Nothing,
            without_a_record,
        ),
        (
            "a_saved_image_is_the_one_that_was_loaded",
            Needs::Nothing,
            load_and_save,
        ),
    ]
}

/// Brings the tar in and compares what the store makes of it.
fn round_trip(store: &ImageStore, tar: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    let lease = store.lease()?;
    let diff_id = Digest::sha256_of(tar);
    store.ingest_layer(&lease, &descriptor(tar), &diff_id, None, &mut &tar[..])?;
    let mut made = Vec::new();
    let (digest, size) = store.write_layer_tar(&diff_id, &mut made)?;
    if made != tar {
        let at = made.iter().zip(tar).position(|(a, b)| a != b);
        return Err(format!(
            "{} bytes for {}, the first other at {at:?}",
            made.len(),
            tar.len()
        )
        .into());
    }
    if (digest, size) != (diff_id.clone(), tar.len() as u64) || store.layer(&diff_id)?.tar_size != size {
        return Err("the digest or size is another one".into());
    }
    Ok(())
}

/// A file in GNU's old sparse format: pieces of two bytes each.
fn sparse(tar: Tar, name: &str, offsets: &[u64], size: u64) -> Tar {
    let content: Vec<u8> = offsets
        .iter()
        .flat_map(|at| [b'a' + (*at % 26) as u8; 2])
        .collect();
    let offsets = offsets.to_vec();
    tar.changed(name, b'S', &content, move |block| {
        for (number, at) in offsets.iter().enumerate() {
            let field = format!("{at:011o}\0{:011o}\0", 2);
            block[386 + number * 24..][..24].copy_from_slice(field.as_bytes());
        }
        block[483..495].copy_from_slice(format!("{size:011o}\0").as_bytes());
    })
}

/// Each is odd in a way of its own.
fn odd() -> Vec<(&'static str, Vec<u8>)> {
    let long = "l".repeat(150);
    let map = b"2\n0\n3\n600\n2\n";
    let mut in_data = map.to_vec();
    in_data.resize(512, 0);
    in_data.extend(b"abcde");
    let sparse_one: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"one"),
        ("GNU.sparse.realsize", b"1000"),
    ];
    let files = |tar: Tar| tar.file("d/a", "first").file("d/b", [7; 70_000]);
    vec![
        ("nothing", Vec::new()),
        ("an end alone", Tar::new().end()),
        ("no end", files(Tar::new()).no_end()),
        ("a half end", files(Tar::new()).raw(&[0; 512]).no_end()),
        ("more zeros", files(Tar::new()).raw(&[0; 20 << 10]).end()),
        (
            "rubbish after the end",
            [files(Tar::new()).end(), vec![b'x'; 100_001]].concat(),
        ),
        (
            "rubbish in the padding",
            Tar::new()
                .changed("a", b'0', b"", |block| block[500..].fill(b'z'))
                .end(),
        ),
        (
            "a file twice",
            files(Tar::new()).file("d/a", "second, longer").end(),
        ),
        ("a file three times", files(files(files(Tar::new()))).end()),
        (
            "a directory for a file",
            files(Tar::new()).file("d/a", "x").dir("d/a/", 0o755).end(),
        ),
        (
            "a file for a directory",
            files(Tar::new())
                .file("d/e/f/g", "deep")
                .file("d/e", "flat")
                .end(),
        ),
        (
            "a file for a directory, and back",
            files(Tar::new())
                .file("d/e/f", "1")
                .file("d/e", "2")
                .dir("d/e", 0o700)
                .file("d/e/f", "3")
                .end(),
        ),
        (
            "a symlink for a file",
            files(Tar::new()).symlink("d/a", "b").end(),
        ),
        (
            "a file through a symlink",
            files(Tar::new())
                .symlink("s", "d")
                .file("s/a", "third")
                .file("d/a", "fourth")
                .end(),
        ),
        (
            "a link whose file is replaced",
            files(Tar::new())
                .hard_link("l", "d/a")
                .file("d/a", "second")
                .file("l", "third")
                .end(),
        ),
        (
            "a file replaced by a link",
            files(Tar::new())
                .file("l", "own")
                .hard_link("l", "d/a")
                .file("l", "other")
                .end(),
        ),
        ("a link to nothing here", Tar::new().hard_link("l", "below").end()),
        (
            "a link with a size",
            files(Tar::new())
                .changed("l", b'1', b"", |block| {
                    block[157..160].copy_from_slice(b"d/a");
                    block[124..136].copy_from_slice(b"00000000005\0");
                })
                .end(),
        ),
        (
            "whiteouts",
            files(Tar::new())
                .file("d/.wh.a", "")
                .file("d/.wh.gone", "with content")
                .file("e/.wh..wh..opq", "")
                .file("d/.wh.d", "")
                .end(),
        ),
        (
            "files in place of whiteouts",
            Tar::new()
                .file(".wh.a", "")
                .file("a", "1")
                .file(".wh.b", "")
                .file("b/c", "2")
                .end(),
        ),
        (
            "AUFS's own",
            Tar::new()
                .file(".wh..wh.plnk", "y")
                .dir(".wh..wh.aufs", 0o700)
                .end(),
        ),
        (
            "GNU's sparse files",
            sparse(Tar::new(), "s", &[0, 600, 4096], 5000)
                .file("s2", "x")
                .end(),
        ),
        (
            "a sparse file twice",
            sparse(sparse(Tar::new(), "s", &[0, 9], 50), "s", &[3], 1 << 20).end(),
        ),
        (
            "a sparse file of holes",
            sparse(Tar::new(), "s", &[], 1 << 20).end(),
        ),
        (
            "PAX's sparse files",
            Tar::new()
                .pax(sparse_one)
                .file("GNUSparseFile.0/one", &in_data)
                .end(),
        ),
        (
            "PAX",
            Tar::new()
                .entry("g", b'g', "", 0o644, b"15 comment=hey\n")
                .pax(&[
                    ("path", long.as_bytes()),
                    ("mtime", b"1.5"),
                    ("SCHILY.xattr.user.a", b"v"),
                    ("comment", b"x"),
                ])
                .file("short", "content")
                .pax(&[("path", b"bytes \xff\xfe")])
                .file("short", "not text")
                .end(),
        ),
        (
            "GNU's long names",
            Tar::new()
                .entry("././@LongLink", b'L', "", 0, format!("{long}\0").as_bytes())
                .file("cut", "content")
                .entry("././@LongLink", b'K', "", 0, format!("{long}\0").as_bytes())
                .symlink("s", "cut")
                .end(),
        ),
        (
            "numbers in base 256",
            Tar::new()
                .changed("a", b'0', b"content", |block| {
                    block[124] = 0x80;
                    block[125..136].fill(0);
                    block[135] = 7;
                })
                .end(),
        ),
        (
            "the old type of a file",
            Tar::new()
                .entry("a", 0, "", 0o644, b"old")
                .entry("b", b'7', "", 0o644, b"contiguous")
                .end(),
        ),
        (
            "what nobody may read",
            Tar::new()
                .entry("shut", b'0', "", 0o000, b"secret")
                .entry("write-only", b'0', "", 0o200, b"secret")
                .dir("closed/", 0o000)
                .file("closed/a", "in the dark")
                .dir("closed/in/", 0o000)
                .file("closed/in/b", "deeper")
                .dir("closed/open/", 0o755)
                .file("closed/open/c", "lit inside")
                .file("closed/a", "again")
                .hard_link("closed/z", "closed/a")
                .end(),
        ),
        ("a pipe", Tar::new().entry("p", b'6', "", 0o644, b"").end()),
        (
            "names that say the same",
            Tar::new()
                .file("./a", "1")
                .file("/a", "2")
                .file("b/../a", "3")
                .file("a", "4")
                .end(),
        ),
    ]
}

/// Brings all odd tars into the store and compares.
pub(crate) fn all(store: &ImageStore) -> Outcome {
    for (name, tar) in odd() {
        round_trip(store, &tar).map_err(|error| chain(name, &*error))?;
    }
    Ok(())
}

fn chain(name: &str, error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}"));
    format!("{name}: {error}{}", cause.unwrap_or_default())
}

fn odd_tars() -> Outcome {
    let bed = Bed::new()?;
    all(&bed.store)?;
    bed.assert_clean()
}

fn without_rights() -> Outcome {
    let bed = Bed::new()?;
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(bed.dir.path(), open)?;
    let root = bed.dir.path().join("nobody").display().to_string();
    let output = command("exact-as-nobody", &[&root])?
        .stderr(std::process::Stdio::piped())
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}

/// One entry of a tar that proptest makes.
#[derive(Clone, Debug)]
enum Part {
    File(usize, Vec<u8>, u32),
    Dir(usize, u32),
    Symlink(usize, usize),
    HardLink(usize, usize),
    Whiteout(usize),
    Opaque(usize),
    Sparse(usize, Vec<u64>),
    Pipe(usize),
    Pax(usize, Vec<u8>),
}

/// Few, so that entries meet.
const NAMES: [&str; 9] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/f", "./d/../g", "g/h"];

fn part() -> impl Strategy<Value = Part> {
    let name = 0..NAMES.len();
    let content = prop::collection::vec(any::<u8>(), 0..1500);
    prop_oneof![
        4 => (name.clone(), content, prop::sample::select(vec![0o644_u32, 0o000, 0o755, 0o4711, 0o400]))
            .prop_map(|(name, content, mode)| Part::File(name, content, mode)),
        2 => (name.clone(), prop::sample::select(vec![0o755_u32, 0o000, 0o700, 0o1777]))
            .prop_map(|(name, mode)| Part::Dir(name, mode)),
        1 => (name.clone(), name.clone()).prop_map(|(name, to)| Part::Symlink(name, to)),
        2 => (name.clone(), name.clone()).prop_map(|(name, to)| Part::HardLink(name, to)),
        1 => name.clone().prop_map(Part::Whiteout),
        1 => name.clone().prop_map(Part::Opaque),
        1 => (name.clone(), prop::collection::btree_set(0_u64..1000, 0..4))
            .prop_map(|(name, at)| Part::Sparse(name, at.into_iter().map(|at| at * 3).collect())),
        1 => name.clone().prop_map(Part::Pipe),
        1 => (name, prop::collection::vec(any::<u8>(), 1..300)).prop_map(|(name, text)| Part::Pax(name, text)),
    ]
}

fn written(parts: &[Part], tail: &[u8], ended: bool) -> Vec<u8> {
    let beside = |name: &str, mark: &str| match name.rsplit_once('/') {
        Some((above, last)) => format!("{above}/{mark}{last}"),
        None => format!("{mark}{name}"),
    };
    let tar = parts.iter().fold(Tar::new(), |tar, part| match part {
        Part::File(name, content, mode) => tar.entry(NAMES[*name], b'0', "", *mode, content),
        Part::Dir(name, mode) => tar.dir(NAMES[*name], *mode),
        Part::Symlink(name, to) => tar.symlink(NAMES[*name], NAMES[*to]),
        Part::HardLink(name, to) => tar.hard_link(NAMES[*name], NAMES[*to]),
        Part::Whiteout(name) => tar.file(&beside(NAMES[*name], ".wh."), "x"),
        Part::Opaque(name) => tar.file(&format!("{}/.wh..wh..opq", NAMES[*name]), ""),
        Part::Sparse(name, at) => sparse(tar, NAMES[*name], at, 10_000),
        Part::Pipe(name) => tar.entry(NAMES[*name], b'6', "", 0o600, b""),
        Part::Pax(name, text) => tar
            .pax(&[("comment", text), ("SCHILY.xattr.user.x", text)])
            .file(NAMES[*name], text),
    });
    let tar = if ended { tar.end() } else { tar.no_end() };
    match ended {
        true => [&tar, tail].concat(),
        false => tar,
    }
}

fn any_tar() -> Outcome {
    let bed = Bed::new()?;
    many(&bed.store)?;
    bed.assert_clean()
}

/// Brings tars into the store that nobody thought of, and compares.
pub(crate) fn many(store: &ImageStore) -> Outcome {
    let good = Cell::new(0);
    let cases = 300;
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let tail = prop_oneof![
        Just(Vec::new()),
        Just(vec![0; 9000]),
        prop::collection::vec(any::<u8>(), 0..2000)
    ];
    let tars = (prop::collection::vec(part(), 0..14), tail, any::<bool>());
    runner.run(&tars, |(parts, tail, ended)| {
        match round_trip(store, &written(&parts, &tail, ended)) {
            Ok(()) => good.set(good.get() + 1),
            // A file in the place of a directory on the way, and the like: nothing came in.
            Err(error) if matches!(error.downcast_ref(), Some(Error::LayerMalformed { .. })) => {}
            Err(error) => return Err(TestCaseError::fail(chain("", &*error))),
        }
        Ok(())
    })?;
    if good.get() < cases / 4 {
        return Err(format!("only {} of {cases} tars came in", good.get()).into());
    }
    Ok(())
}

fn changed_files() -> Outcome {
    let tar = Tar::new()
        .file("d/a", "content")
        .file("d/b", vec![1; 100_000])
        .end();
    type Change = fn(&std::path::Path) -> io::Result<()>;
    let changes: [(&str, &str, Change); 6] = [
        ("d/a", "another content", |fs| {
            fs::write(fs.join("d/a"), "CONTENT")
        }),
        ("d/a", "shorter", |fs| fs::write(fs.join("d/a"), "con")),
        ("d/b", "missing", |fs| fs::remove_file(fs.join("d/b"))),
        ("d/a", "missing", |fs| {
            fs::remove_file(fs.join("d/a"))?;
            std::os::unix::fs::symlink("b", fs.join("d/a"))
        }),
        ("", "damaged", |fs| {
            let path = fs.with_file_name("tar.skeleton");
            let mut bytes = fs::read(&path)?;
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(path, bytes)
        }),
        ("", "damaged", |fs| {
            fs::write(fs.with_file_name("tar.skeleton"), "")
        }),
    ];
    for (path, reason, change) in changes {
        let bed = Bed::new()?;
        let diff_id = bed.ingest(&tar)?;
        change(&bed.store.root().join("layers").join(diff_id.hex()).join("fs"))?;
        match bed.store.write_layer_tar(&diff_id, &mut io::sink()) {
            Err(Error::LayerChanged {
                layer,
                path: found,
                reason: why,
            }) if layer == diff_id && found == path && why.contains(reason) => {}
            other => return Err(format!("{path} {reason}: {other:?}").into()),
        }
        let image = add_image(&bed.store, "x:1", std::slice::from_ref(&tar))?;
        let saved = bed
            .store
            .export(&[(image, Vec::new())], &ExportOptions::default(), &mut io::sink());
        if !matches!(saved, Err(Error::LayerChanged { .. })) {
            return Err(format!("{path} {reason}: {saved:?}").into());
        }
    }
    // One of a later version.
    let bed = Bed::new()?;
    let diff_id = bed.ingest(&tar)?;
    let path = bed
        .store
        .root()
        .join("layers")
        .join(diff_id.hex())
        .join("tar.skeleton");
    let mut bytes = fs::read(&path)?;
    bytes[8] = 2;
    fs::write(path, bytes)?;
    match bed.store.write_layer_tar(&diff_id, &mut io::sink()) {
        Err(Error::NewerFormat { found: 2, .. }) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn without_a_record() -> Outcome {
    let bed = Bed::new()?;
    // Not as this library writes it: no end.
    let tar = Tar::new().file("d/a", "content").no_end();
    let image = bed.image("x:1", std::slice::from_ref(&tar))?;
    let layer = bed.store.root().join("layers").join(image.diff_ids()[0].hex());
    fs::remove_file(layer.join("tar.skeleton"))?;
    let meta = fs::read_to_string(layer.join("meta.json"))?;
    let size = format!("\"tar_size\":{}", tar.len());
    fs::write(layer.join("meta.json"), meta.replace(&size, "\"tar_size\":0"))?;
    let mut archive = Vec::new();
    let names = vec![Reference::parse("x:1")?];
    let report = bed
        .store
        .export(&[(image.clone(), names)], &ExportOptions::default(), &mut archive)?;
    let [(before, after)] = &report.renamed[..] else {
        return Err(format!("{report:?}").into());
    };
    let other = Bed::new()?;
    let images = other
        .store
        .import_stream(&mut &archive[..], &Progress::default())?;
    match before == image.id() && after == images[0].id() {
        true => Ok(()),
        false => Err("another id came in".into()),
    }
}

fn load_and_save() -> Outcome {
    let tars: Vec<_> = odd()
        .into_iter()
        .filter(|(name, _)| ["a file twice", "rubbish after the end", "GNU's sparse files"].contains(name))
        .map(|(_, tar)| tar)
        .collect();
    let first = Bed::new()?;
    let image = first.image("x:1", &tars)?;
    let save = |bed: &Bed| -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let image = bed.store.get("x:1")?.ok_or("no image")?;
        let mut archive = Vec::new();
        let names = vec![Reference::parse("x:1")?];
        let report = bed
            .store
            .export(&[(image, names)], &ExportOptions::default(), &mut archive)?;
        match report.renamed.is_empty() {
            true => Ok(archive),
            false => Err(format!("{report:?}").into()),
        }
    };
    let archive = save(&first)?;
    let second = Bed::new()?;
    let loaded = second
        .store
        .import_stream(&mut &archive[..], &Progress::default())?;
    assert_eq!(loaded[0].id(), image.id());
    assert_eq!(loaded[0].diff_ids(), image.diff_ids());
    // What is saved there is the same archive.
    assert!(save(&second)? == archive);
    Ok(())
}
