//! Bug classes of other engines: each test is named after the class it shows absent.
use crate::support::{Bed, Outcome, Tar, descriptor, read};
use crate::{Needs, Test};
use rdock_image::{Digest, Error, FileKind, ImageStore, Limits, Progress, StoreOptions};
use std::io::Write;

pub(crate) fn tests() -> Vec<(&'static str, Needs, Test)> {
    vec![
        ("img_layer_breakout", Needs::Nothing, img_layer_breakout),
        ("img_archive_links", Needs::Nothing, img_archive_links),
        ("img_symlink_chain", Needs::Nothing, img_symlink_chain),
        ("img_root_symlink", Needs::Nothing, img_root_symlink),
        ("img_hardlink_chmod", Needs::Nothing, img_hardlink_chmod),
        ("img_dir_symlink_chmod", Needs::Nothing, img_dir_symlink_chmod),
        ("img_pax_size", Needs::Nothing, img_pax_size),
        ("img_sparse_map", Needs::Nothing, img_sparse_map),
        ("img_bomb", Needs::Nothing, img_bomb),
        ("img_overlay_xattr", Needs::Nothing, img_overlay_xattr),
        ("img_device_nodes", Needs::Nothing, img_device_nodes),
        ("img_pull_deadlock", Needs::Nothing, img_pull_deadlock),
    ]
}

/// Tars that try to write outside, and whether they may come in at all (then inside).
fn breakouts(host: &str) -> Vec<(&'static str, Vec<u8>, Option<bool>)> {
    let inside = host.trim_start_matches('/');
    vec![
        ("a parent", Tar::new().file("../escape", "x").end(), Some(false)),
        (
            "a parent from within",
            Tar::new().file("a/../../escape", "x").end(),
            Some(false),
        ),
        (
            "an absolute name",
            Tar::new().file(&format!("{host}/secret"), "x").end(),
            Some(true),
        ),
        (
            "through an absolute symlink",
            Tar::new().symlink("d", host).file("d/secret", "x").end(),
            None,
        ),
        (
            "through a relative symlink",
            Tar::new()
                .symlink("d", "../../../../../..")
                .file(&format!("d/{inside}/secret"), "x")
                .end(),
            None,
        ),
        (
            "a hard link to outside",
            Tar::new().hard_link("p", &format!("{host}/secret")).end(),
            Some(false),
        ),
        (
            "a hard link upwards",
            Tar::new().hard_link("p", "../../../../etc/passwd").end(),
            Some(false),
        ),
        (
            "a hard link through a symlink",
            Tar::new().symlink("d", host).hard_link("p", "d/secret").end(),
            Some(false),
        ),
        (
            "a whiteout of the parent",
            Tar::new().file(".wh...", "").end(),
            Some(false),
        ),
        (
            "a whiteout through a symlink",
            Tar::new().symlink("d", host).file("d/.wh.secret", "").end(),
            None,
        ),
        (
            "an opaque mark through a symlink",
            Tar::new().symlink("d", host).file("d/.wh..wh..opq", "").end(),
            None,
        ),
        (
            "a directory over a symlink",
            Tar::new()
                .symlink("d", host)
                .dir("d", 0o777)
                .file("d/secret", "x")
                .end(),
            Some(true),
        ),
        (
            "a symlink over a full directory",
            Tar::new()
                .dir("d", 0o755)
                .file("d/a", "")
                .symlink("d", host)
                .file("d/secret", "x")
                .end(),
            None,
        ),
        (
            "a NUL in a PAX path",
            Tar::new().pax(&[("path", b"a\0b")]).file("x", "").end(),
            Some(false),
        ),
    ]
}

fn img_layer_breakout() -> Outcome {
    let bed = Bed::new()?;
    let before = bed.host_state()?;
    for (what, tar, comes_in) in breakouts(&bed.host()) {
        let result = bed.image("case", &[tar]);
        assert_eq!(bed.host_state()?, before, "{what} changed something outside");
        if let Some(comes_in) = comes_in {
            assert_eq!(result.is_ok(), comes_in, "{what}: {result:?}");
        }
        if let Err(error) = result {
            assert!(matches!(error, Error::LayerMalformed { .. }), "{what}: {error:?}");
        }
        bed.assert_clean()?;
    }
    for bad in [
        "../../etc/passwd",
        "sha256:../../etc/passwd",
        "../x",
        "/etc/passwd",
    ] {
        assert!(!matches!(bed.store.get(bad), Ok(Some(_))), "{bad}");
        assert!(bed.store.open_snapshot(bad).is_err(), "{bad}");
    }
    Ok(())
}

/// A docker archive with one image.
pub(crate) fn docker_archive(
    layer_name: &str,
    layer: impl FnOnce(Tar) -> Tar,
    diff_id: &Digest,
    tag: &str,
) -> Vec<u8> {
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
    );
    let list = format!(r#"[{{"Config":"config.json","RepoTags":["{tag}"],"Layers":["{layer_name}"]}}]"#);
    layer(Tar::new())
        .file("config.json", config)
        .file("manifest.json", list)
        .end()
}

fn img_archive_links() -> Outcome {
    let bed = Bed::new()?;
    let before = bed.host_state()?;
    for (what, tar, _) in breakouts(&bed.host()) {
        let digest = Digest::sha256_of(&tar);
        let archive = docker_archive(
            "layer.tar",
            |archive| archive.file("layer.tar", &tar),
            &digest,
            "case:1",
        );
        let result = bed.store.import_stream(&mut &archive[..], &Progress::default());
        assert_eq!(bed.host_state()?, before, "{what} changed something outside");
        assert!(
            result.is_ok()
                || bed
                    .store
                    .get("case:1")?
                    .is_none_or(|image| *image.diff_ids() != [digest])
        );
    }
    // Links of the archive itself: a layer that is a symlink to a file of the host is missing, not read.
    let secret = Tar::new().file("secret", "host").end();
    std::fs::write(bed.dir.path().join("host/layer.tar"), &secret)?;
    let digest = Digest::sha256_of(&secret);
    for target in [
        format!("{}/layer.tar", bed.host()),
        "../../../../../../../etc/passwd".to_owned(),
    ] {
        let archive = docker_archive(
            "layer.tar",
            |archive| archive.symlink("layer.tar", &target),
            &digest,
            "case:2",
        );
        assert!(
            bed.store
                .import_stream(&mut &archive[..], &Progress::default())
                .is_err(),
            "{target}"
        );
        let archive = docker_archive(
            "layer.tar",
            |archive| archive.hard_link("layer.tar", &target),
            &digest,
            "case:2",
        );
        assert!(
            bed.store
                .import_stream(&mut &archive[..], &Progress::default())
                .is_err(),
            "{target}"
        );
    }
    // A loop of links ends.
    let archive = docker_archive(
        "a",
        |archive| archive.symlink("a", "b").symlink("b", "a"),
        &digest,
        "case:2",
    );
    assert!(
        bed.store
            .import_stream(&mut &archive[..], &Progress::default())
            .is_err()
    );
    // A link inside the archive is followed, as older versions of docker save write it.
    let archive = docker_archive(
        "1/layer.tar",
        |archive| {
            archive
                .file("0/layer.tar", &secret)
                .symlink("1/layer.tar", "../0/layer.tar")
        },
        &digest,
        "case:3",
    );
    let images = bed.store.import_stream(&mut &archive[..], &Progress::default())?;
    assert_eq!(read(&bed.store.view(&images[0])?, "secret")?, "host");
    bed.assert_clean()
}

fn img_symlink_chain() -> Outcome {
    let bed = Bed::new()?;
    let before = bed.host_state()?;
    for length in 2..=60 {
        let mut tar = Tar::new().symlink("l0", &bed.host());
        for number in 1..length {
            tar = tar.symlink(&format!("l{number}"), &format!("l{}", number - 1));
        }
        let last = format!("l{}", length - 1);
        let written = bed.image("case", &[tar.clone().file(&format!("{last}/secret"), "x").end()]);
        // The kernel's own limit is 40.
        assert_eq!(written.is_ok(), length <= 40, "a chain of {length}: {written:?}");
        let linked = bed.image(
            "case",
            &[tar.clone().hard_link("p", &format!("{last}/secret")).end()],
        );
        assert!(linked.is_err(), "a hard link through a chain of {length}");
        let changed = bed.image(
            "case",
            &[tar
                .hard_link("p", &last)
                .entry("p", b'0', "", 0o777, b"new")
                .end()],
        );
        assert!(changed.is_ok(), "{changed:?}");
        assert_eq!(
            bed.host_state()?,
            before,
            "a chain of {length} changed something outside"
        );
    }
    bed.assert_clean()
}

fn img_root_symlink() -> Outcome {
    let bed = Bed::new()?;
    let before = bed.host_state()?;
    for name in [".", "./", "/", "a/.."] {
        for tar in [
            Tar::new().symlink(name, &bed.host()).file("secret", "x").end(),
            Tar::new().file(name, "x").end(),
            Tar::new().file("a", "").hard_link(name, "a").end(),
        ] {
            let error = bed.ingest(&tar).expect_err("the root must be a directory");
            assert!(matches!(error, Error::LayerMalformed { .. }), "{error:?}");
        }
    }
    assert_eq!(bed.host_state()?, before);
    bed.assert_clean()
}

fn img_hardlink_chmod() -> Outcome {
    let bed = Bed::new()?;
    let before = bed.host_state()?;
    let secret = format!("{}/secret", bed.host());
    let tar = Tar::new()
        .symlink("s", &secret)
        .entry("h", b'1', "s", 0o4777, b"")
        .end();
    let view = bed.view(&[tar])?;
    assert_eq!(
        view.symlink_metadata("h")?.map(|info| info.kind),
        Some(FileKind::Symlink)
    );
    // Within the layer: a file's mode is not changed by a link's entry either.
    let tar = Tar::new()
        .entry("f", b'0', "", 0o640, b"x")
        .entry("h", b'1', "f", 0o4777, b"")
        .end();
    let view = bed.view(&[tar])?;
    assert_eq!(view.metadata("f")?.map(|info| info.mode), Some(0o640));
    assert_eq!(bed.host_state()?, before);
    Ok(())
}

fn img_dir_symlink_chmod() -> Outcome {
    let bed = Bed::new()?;
    let before = bed.host_state()?;
    let target = format!("{}/dir", bed.host());
    let view = bed.view(&[Tar::new().symlink("d", &target).dir("d", 0o4777).end()])?;
    assert_eq!(
        view.symlink_metadata("d")?.map(|info| info.kind),
        Some(FileKind::Dir)
    );
    assert_eq!(bed.host_state()?, before);
    Ok(())
}

fn img_pax_size() -> Outcome {
    let bed = Bed::new()?;
    // The header hides a second entry in what PAX says is the first one's content, and the reverse.
    let hidden = Tar::new().file("hidden", "x").raw(&[]).end();
    let content = hidden[..1024].to_vec();
    let smaller = Tar::new()
        .pax(&[("size", b"1024")])
        .changed("a", b'0', &content, |block| {
            block[124..136].copy_from_slice(b"00000000000\0")
        })
        .file("last", "y")
        .end();
    let view = bed.view(&[smaller])?;
    assert_eq!(view.metadata("a")?.map(|info| info.size), Some(1024));
    assert!(view.metadata("hidden")?.is_none() && view.metadata("last")?.is_some());
    let larger = Tar::new()
        .pax(&[("size", b"0")])
        .changed("a", b'0', b"", |block| {
            block[124..136].copy_from_slice(b"00000002000\0")
        })
        .file("shown", "x")
        .end();
    let view = bed.view(&[larger])?;
    assert_eq!(view.metadata("a")?.map(|info| info.size), Some(0));
    assert_eq!(read(&view, "shown")?, "x");
    for bad in [
        &b"7 a=b\n99 broken"[..],
        b"x",
        b"12 size=-1\n",
        b"13 size=1e3\n\n",
        b"30 size=99999999999999999999\n",
    ] {
        let tar = Tar::new().entry("pax", b'x', "", 0o644, bad).file("a", "").end();
        assert!(
            matches!(bed.ingest(&tar), Err(Error::LayerMalformed { .. })),
            "{}",
            String::from_utf8_lossy(bad)
        );
    }
    Ok(())
}

/// Peak resident memory of this process in KiB.
fn peak_memory() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

fn img_sparse_map() -> Outcome {
    let bed = Bed::new()?;
    let before = peak_memory()?;
    let malformed = |tar: &[u8], what: &str| {
        let error = bed.ingest(tar).expect_err(what);
        assert!(
            matches!(error, Error::LayerMalformed { .. } | Error::Limit { .. }),
            "{what}: {error:?}"
        );
    };
    // Format 1.0 that claims 2^40 pieces.
    let records: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"f"),
        ("GNU.sparse.realsize", b"1000"),
    ];
    let mut map = b"1099511627776\n0\n1\n".to_vec();
    map.resize(512, 0);
    malformed(&Tar::new().pax(records).file("x", &map).end(), "2^40 pieces");
    // A real size that no disk has, in the old format.
    let huge = |block: &mut [u8; 512]| {
        block[257..265].copy_from_slice(b"ustar  \0");
        block[483] = 0x80;
        block[487..495].copy_from_slice(&(1_u64 << 62).to_be_bytes());
    };
    malformed(
        &Tar::new().changed("f", b'S', b"", huge).end(),
        "a real size of 2^62",
    );
    // Pieces that overlap, that leave the file, that are not in the data.
    for list in ["0,10,5,5", "995,10", "0,1,2,1"] {
        let records: &[(&str, &[u8])] = &[
            ("GNU.sparse.realsize", b"1000"),
            ("GNU.sparse.map", list.as_bytes()),
        ];
        malformed(&Tar::new().pax(records).file("f", [1; 10]).end(), list);
    }
    // A good one has its pieces where they belong.
    let records: &[(&str, &[u8])] = &[("GNU.sparse.realsize", b"1000"), ("GNU.sparse.map", b"10,2,20,3")];
    let view = bed.view(&[Tar::new().pax(records).file("f", "abcde").end()])?;
    let content = read(&view, "f")?;
    assert_eq!(
        (content.len(), &content[10..12], &content[20..23]),
        (1000, "ab", "cde")
    );
    assert!(
        content
            .bytes()
            .enumerate()
            .all(|(at, b)| b == 0 || (10..12).contains(&at) || (20..23).contains(&at))
    );
    assert!(
        peak_memory()? - before < 64 * 1024,
        "memory followed the header's claim"
    );
    bed.assert_clean()
}

fn limited(change: impl FnOnce(&mut Limits)) -> Result<Bed, Box<dyn std::error::Error>> {
    let mut options = StoreOptions::default();
    change(&mut options.limits);
    Bed::with(options)
}

fn img_bomb() -> Outcome {
    let limit = |result: Result<(), Error>, what: &str| match result {
        Err(Error::Limit { .. }) => {}
        other => panic!("{what}: {other:?}"),
    };
    let compressed = |bed: &Bed, blob: &[u8], tar: &[u8]| {
        let lease = bed.store.lease()?;
        bed.store.ingest_layer(
            &lease,
            &descriptor(blob),
            &Digest::sha256_of(tar),
            None,
            &mut &blob[..],
        )
    };
    let zeros = Tar::new().file("zeros", vec![0; 8 << 20]).end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&zeros)?;
    let gzip = gzip.finish()?;
    let bed = limited(|limits| limits.layer_bytes = 4 << 20)?;
    limit(compressed(&bed, &gzip, &zeros), "the total size");
    bed.assert_clean()?;
    let bed = limited(|limits| limits.ratio_free_bytes = 1 << 20)?;
    limit(compressed(&bed, &gzip, &zeros), "the ratio");
    bed.assert_clean()?;
    let bed = limited(|limits| limits.entries = 100)?;
    let many = (0..101)
        .fold(Tar::new(), |tar, number| tar.file(&number.to_string(), ""))
        .end();
    limit(bed.ingest(&many).map(drop), "the number of entries");
    let bed = limited(|limits| limits.depth = 10)?;
    limit(
        bed.ingest(&Tar::new().file(&["a"; 11].join("/"), "").end())
            .map(drop),
        "the depth",
    );
    bed.assert_clean()?;
    // A zstd frame that asks for a window of 2 GiB.
    let bed = Bed::new()?;
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    assert!(matches!(
        compressed(&bed, &window, b""),
        Err(Error::LayerMalformed { .. })
    ));
    bed.assert_clean()
}

fn img_overlay_xattr() -> Outcome {
    let bed = Bed::new()?;
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.metacopy", b""),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.kept", b"1"),
    ];
    let lower = Tar::new().dir("d", 0o755).file("d/below", "x").end();
    let upper = Tar::new()
        .pax(records)
        .dir("d", 0o755)
        .pax(records)
        .file("f", "y")
        .end();
    let view = bed.view(&[lower, upper.clone()])?;
    assert_eq!(
        read(&view, "d/below")?,
        "x",
        "an attribute of the tar made the directory opaque"
    );
    let layer = bed
        .store
        .root()
        .join("layers")
        .join(Digest::sha256_of(&upper).hex())
        .join("fs");
    for path in [layer.join("d"), layer.join("f")] {
        let mut names = vec![0_u8; 4096];
        let count = rustix::fs::listxattr(&path, &mut names[..])?;
        let names = String::from_utf8_lossy(&names[..count]).into_owned();
        assert!(!names.contains("overlay"), "{}: {names:?}", path.display());
        assert!(names.contains("user.kept"), "{}: {names:?}", path.display());
    }
    Ok(())
}

fn img_device_nodes() -> Outcome {
    let bed = Bed::new()?;
    let zero = Tar::new().entry("d", b'3', "", 0o666, b"").end();
    let null = Tar::new()
        .changed("null", b'3', b"", |block| {
            block[329..337].copy_from_slice(b"0000001\0");
            block[337..345].copy_from_slice(b"0000003\0");
        })
        .end();
    let ownership = bed.store.info()?.ownership;
    // As root a device 0:0 would be a whiteout; other users get no devices at all, only a record.
    assert_eq!(bed.ingest(&zero).is_err(), ownership == "exact");
    let layer = bed.ingest(&null)?;
    let path = bed.store.root().join("layers").join(layer.hex());
    assert_eq!(path.join("fs/null").exists(), ownership == "exact");
    assert_eq!(path.join("owners").exists(), ownership != "exact");
    Ok(())
}

/// A layer that fails among layers that come in at the same time holds nothing up.
fn img_pull_deadlock() -> Outcome {
    let bed = Bed::new()?;
    let good = Tar::new().file("good", vec![1; 3 << 20]).end();
    let mut bad = Tar::new().file("bad", vec![2; 3 << 20]).end();
    bad.truncate(2 << 20);
    let run = |store: &ImageStore, tar: &[u8]| {
        let lease = store.lease()?;
        store.ingest_layer(
            &lease,
            &descriptor(tar),
            &Digest::sha256_of(tar),
            None,
            &mut &tar[..],
        )
    };
    for _ in 0..5 {
        std::thread::scope(|scope| {
            let bads: Vec<_> = (0..3).map(|_| scope.spawn(|| run(&bed.store, &bad))).collect();
            let goods: Vec<_> = (0..3).map(|_| scope.spawn(|| run(&bed.store, &good))).collect();
            assert!(
                bads.into_iter()
                    .all(|thread| matches!(thread.join(), Ok(Err(Error::LayerMalformed { .. }))))
            );
            assert!(
                goods
                    .into_iter()
                    .all(|thread| matches!(thread.join(), Ok(Ok(()))))
            );
        });
        bed.assert_clean()?;
    }
    Ok(())
}
