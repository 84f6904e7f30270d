//! What builders get wrong, where no recorded build shows it.

use crate::bench::Bench;
use crate::{Tested, root_trial};
use libtest_mimic::Trial;
use rdock_build::{BuildOutput, Miss, Secret, StepOutcome};
use rustix::fs::{XattrFlags, setxattr};
use std::os::unix::fs::{PermissionsExt, chown};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        root_trial("triggers_of_a_base_count_as_steps", triggers_counted),
        root_trial("a_small_file_that_becomes_a_large_one_is_refused", growing),
        root_trial("archives_of_every_compression_are_unpacked", archives),
        root_trial("proxies_are_seen_by_run_alone", proxies),
        root_trial("an_argument_changes_later_commands_and_no_files", argument_keys),
        root_trial("what_is_in_a_key_and_what_is_not", file_keys),
        root_trial("a_secrets_value_is_in_no_key", secret_keys),
        root_trial("files_of_the_context_belong_to_root", owners),
        root_trial("a_directory_that_is_there_keeps_what_it_has", directory_kept),
        root_trial("a_linked_file_replaces_a_directory", linked),
        root_trial("attributes_and_capabilities_are_copied", attributes),
        root_trial("devices_are_copied_between_stages", devices),
        root_trial("a_missing_file_is_named_with_what_hides_it", missing),
        root_trial("patterns_of_copy_can_be_escaped", escaped),
        root_trial("a_dockerfiles_own_ignore_file_counts", own_ignore),
        root_trial("a_lone_exclamation_mark_in_an_ignore_file_is_refused", lone_mark),
        root_trial("a_rename_forth_and_back_is_no_change", renamed),
        root_trial("the_config_says_what_the_file_says", config),
        root_trial("later_times_become_the_epoch", epoch),
        root_trial("long_lines_are_read", long_lines),
        root_trial(
            "a_file_that_changes_during_the_build_is_in_no_key",
            changed_meanwhile,
        ),
        root_trial(
            "an_ignore_file_that_cannot_be_read_hides_nothing_and_fails",
            unreadable_ignore,
        ),
        root_trial("an_output_never_replaces_a_device", to_device),
    ]
}

fn history(built: &BuildOutput) -> Vec<String> {
    let lines = built.config.history.iter();
    lines.filter_map(|line| line.created_by.clone()).collect()
}

fn proxies() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN echo \"$HTTP_PROXY $http_proxy $NO_PROXY\" > /seen\nCOPY --from=base /etc/passwd /x\n",
    )?;
    let build = |value: &'static str| {
        bench.build(move |builder| {
            builder
                .build_arg("HTTP_PROXY", value)
                .build_arg("no_proxy", "here")
        })
    };
    let (built, seen) = build("http://one.invalid")?;
    assert_eq!(
        bench.read(&built, "seen")?,
        "http://one.invalid http://one.invalid here\n"
    );
    assert!(seen.warnings().is_empty(), "{:?}", seen.warnings());
    assert!(!serde_json::to_string(&built.config)?.contains("invalid"));
    // Another one changes nothing.
    let (again, seen) = build("http://two.invalid")?;
    assert_eq!((seen.ran(), again.image_id()), (0, built.image_id()));
    Ok(())
}

fn argument_keys() -> Tested {
    let bench = Bench::new()?;
    bench.file("a", "a")?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN echo before > /before\nARG V=1\nWORKDIR /w\nCOPY a /a\nRUN echo after > /after\n",
    )?;
    bench.build(|builder| builder)?;
    let (built, seen) = bench.build(|builder| builder.build_arg("V", "2"))?;
    // Only what runs after ARG sees it, whether it uses it or not.
    assert_eq!((seen.ran(), seen.cached()), (1, 3), "{:?}", seen.names());
    assert!(history(&built).contains(&"RUN |1 V=2 /bin/sh -c echo after > /after # buildkit".to_owned()));
    let steps = bench.explain(|builder| builder.build_arg("V", "3"))?;
    let last = steps.last().ok_or("no steps")?;
    assert_eq!(
        last.outcome,
        StepOutcome::Missed {
            why: vec![Miss::Changed("variable V".to_owned())]
        }
    );
    Ok(())
}

fn file_keys() -> Tested {
    let bench = Bench::new()?;
    bench.file("src/one", "1")?;
    bench.file("src/two", "2")?;
    bench.file("beside", "x")?;
    let mode =
        |name: &str, mode| std::fs::set_permissions(bench.path(name), std::fs::Permissions::from_mode(mode));
    for name in ["src/one", "src/two", "beside"] {
        mode(name, 0o644)?;
    }
    bench.file("Dockerfile", "FROM base\nCOPY src/o* /x/\n")?;
    let ran = || -> Tested<usize> { Ok(bench.build(|builder| builder)?.1.ran()) };
    assert_eq!(ran()?, 1);
    // What no pattern matches, times, and the owner on the host do not count.
    bench.file("beside", "changed")?;
    bench.file("src/three", "3")?;
    bench.file("src/one", "1")?;
    chown(bench.path("src/one"), Some(1234), Some(1234))?;
    assert_eq!(ran()?, 0);
    // Content and mode do.
    mode("src/one", 0o600)?;
    assert_eq!(ran()?, 1);
    bench.file("src/one", "changed")?;
    assert_eq!(ran()?, 1);
    bench.file("src/other", "new")?;
    assert_eq!(ran()?, 1);
    setxattr(bench.path("src/one"), "user.a", b"b", XattrFlags::empty())?;
    assert_eq!(ran()?, 1);
    Ok(())
}

fn secret_keys() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN --mount=type=secret,id=key wc -c < /run/secrets/key > /length\n",
    )?;
    let build = |value: &'static [u8]| {
        bench.build(move |builder| builder.secret("key", Secret::Value(value.to_vec())))
    };
    let (built, _) = build(b"four")?;
    assert_eq!(bench.read(&built, "length")?.trim(), "4");
    let (_, seen) = build(b"longer")?;
    assert_eq!(seen.ran(), 0);
    Ok(())
}

fn owners() -> Tested {
    let bench = Bench::new()?;
    bench.file("d/f", "x")?;
    chown(bench.path("d"), Some(12), Some(34))?;
    chown(bench.path("d/f"), Some(12), Some(34))?;
    bench.file(
        "Dockerfile",
        "FROM base\nCOPY d /new/d\nADD d /added/\nCOPY --chown=5:6 d /given/above/\n\
         RUN stat -c '%n %u:%g' /new /new/d /new/d/f /added/f /given /given/above /given/above/f > /owners\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(
        bench.read(&built, "owners")?,
        "/new 0:0\n/new/d 0:0\n/new/d/f 0:0\n/added/f 0:0\n/given 5:6\n/given/above 5:6\n/given/above/f 5:6\n"
    );
    Ok(())
}

fn directory_kept() -> Tested {
    let bench = Bench::new()?;
    bench.file("d/f", "x")?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN mkdir -m 0711 /there && chown 7:8 /there && touch -d '2001-09-09 01:46:40' /there\n\
         COPY --chown=1:2 --chmod=600 d/f /there/\nCOPY d /there/\nADD d/f /there/g\n\
         RUN stat -c '%a %u:%g %Y' /there > /stat\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "stat")?, "711 7:8 1000000000\n");
    Ok(())
}

fn linked() -> Tested {
    let bench = Bench::new()?;
    bench.file("f", "x")?;
    bench.file("Dockerfile", "FROM base\nRUN mkdir -p /d/in\nCOPY --link f /d\n")?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "d")?, "x");
    // Without --link a directory stays.
    bench.file("Dockerfile", "FROM base\nRUN mkdir -p /d/f/in\nCOPY f /d/\n")?;
    let error = bench.fails(|builder| builder)?;
    assert!(error.to_string().contains("/d/f"), "{error}");
    // A linked layer does not depend on what is below it.
    bench.file(
        "Dockerfile",
        "FROM base\nRUN echo one > /one\nCOPY --link f /linked\n",
    )?;
    bench.build(|builder| builder)?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN echo two > /two\nCOPY --link f /linked\n",
    )?;
    let (_, seen) = bench.build(|builder| builder)?;
    assert_eq!((seen.ran(), seen.cached()), (1, 1));
    Ok(())
}

fn attributes() -> Tested {
    let bench = Bench::new()?;
    bench.file("f", "x")?;
    let path = bench.path("f");
    setxattr(&path, "user.kept", b"value", XattrFlags::empty())?;
    // Version 2, CAP_NET_BIND_SERVICE permitted and effective.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(&path, "security.capability", &capability, XattrFlags::empty())?;
    bench.file(
        "Dockerfile",
        "FROM base AS one\nCOPY f /f\nFROM scratch\nCOPY --from=one /f /g\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    let view = bench
        .runtime
        .images()
        .view_layers(&built.config.rootfs.diff_ids)?;
    let entry = view.entry("g", false)?.ok_or("no file")?;
    let found = entry.xattrs()?;
    let of = |name: &[u8]| {
        let found = found
            .iter()
            .find(|(known, _)| known.strip_suffix(b"\0").unwrap_or(known) == name);
        found.map(|(_, value)| value.to_vec())
    };
    assert_eq!(of(b"user.kept").as_deref(), Some(&b"value"[..]), "{found:?}");
    assert_eq!(
        of(b"security.capability").as_deref(),
        Some(&capability[..]),
        "{found:?}"
    );
    Ok(())
}

fn devices() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base AS made\nRUN mkdir /s && mknod -m 0640 /s/null c 1 3 && mknod /s/pipe p\n\
         FROM base\nCOPY --from=made /s /s\nRUN stat -c '%F %a %t %T' /s/null > /stat && [ -p /s/pipe ]\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "stat")?, "character special file 640 1 3\n");
    Ok(())
}

fn missing() -> Tested {
    let bench = Bench::new()?;
    bench.file("hidden/f", "x")?;
    bench.file(".dockerignore", "hidden\n")?;
    bench.file("Dockerfile", "FROM base\nCOPY hidden/f /x\n")?;
    let error = bench.fails(|builder| builder)?;
    let text = error.to_string();
    assert!(
        text.contains("Dockerfile:2") && text.contains("hidden/f"),
        "{text}"
    );
    assert!(text.contains(".dockerignore"), "{text}");
    // Nothing hides what is not there.
    bench.file("Dockerfile", "FROM base\nCOPY nowhere /x\n")?;
    let text = bench.fails(|builder| builder)?.to_string();
    assert!(text.contains("nowhere") && !text.contains("left out"), "{text}");
    // A pattern without a match is no mistake; a file of another image is in no context.
    bench.file(
        "Dockerfile",
        "FROM base\nCOPY no*where /x/\nCOPY --from=base /nowhere /y\n",
    )?;
    let text = bench.fails(|builder| builder)?.to_string();
    assert!(
        text.contains("Dockerfile:3") && !text.contains(".dockerignore"),
        "{text}"
    );
    Ok(())
}

fn escaped() -> Tested {
    let bench = Bench::new()?;
    bench.file("d/a*b", "star")?;
    bench.file("d/aXb", "x")?;
    bench.file("d/[q]", "brackets")?;
    bench.file(
        "Dockerfile",
        "FROM scratch\nCOPY [\"d/a\\\\\\\\*b\", \"/one/\"]\nCOPY [\"d/[[]q]\", \"/two/\"]\nCOPY d/a?b /three/\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "one/a*b")?, "star");
    assert!(bench.read(&built, "one/aXb").is_err());
    assert_eq!(bench.read(&built, "two/[q]")?, "brackets");
    assert_eq!(bench.read(&built, "three/aXb")?, "x");
    Ok(())
}

fn own_ignore() -> Tested {
    let bench = Bench::new()?;
    bench.file("a", "a")?;
    bench.file("b", "b")?;
    bench.file(".dockerignore", "a\n")?;
    bench.file("build/app.Dockerfile", "FROM scratch\nCOPY . /all/\n")?;
    let all = |built: &BuildOutput| ["a", "b"].map(|name| bench.read(built, &format!("all/{name}")).is_ok());
    let build = || bench.build(|builder| builder.dockerfile("build/app.Dockerfile"));
    assert_eq!(all(&build()?.0), [false, true]);
    // It replaces the other one; the Dockerfile is read even where it is left out.
    bench.file("build/app.Dockerfile.dockerignore", "b\nbuild\n")?;
    assert_eq!(all(&build()?.0), [true, false]);
    // Also with a path of the host.
    let (built, _) = bench.build(|builder| builder.dockerfile(bench.path("build/app.Dockerfile")))?;
    assert_eq!(all(&built), [true, false]);
    assert!(bench.read(&built, "all/build/app.Dockerfile").is_err());
    Ok(())
}

fn lone_mark() -> Tested {
    let bench = Bench::new()?;
    bench.file(".dockerignore", "a\n!\n")?;
    bench.file("Dockerfile", "FROM scratch\nCOPY . /\n")?;
    let text = bench.fails(|builder| builder)?.to_string();
    assert!(text.contains(".dockerignore") && text.contains('2'), "{text}");
    Ok(())
}

fn renamed() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN echo x > /there\nRUN mv /there /away && mv /away /there && touch -r /etc/passwd /gone && rm /gone\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    let store = bench.runtime.images();
    let layer = store.layer(built.config.rootfs.diff_ids.last().ok_or("no layers")?)?;
    assert_eq!(layer.entries, 0, "{layer:?}");
    Ok(())
}

fn config() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM scratch AS parent\nLABEL from=parent\nONBUILD LABEL triggered=yes\nONBUILD LABEL order=last\n\
         EXPOSE 80\nVOLUME /v\nCMD shell form\n\
         FROM parent\nEXPOSE 80/tcp 81\nVOLUME /v /w\nHEALTHCHECK CMD x\nLABEL order=own\nCMD [\"exec\"]\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    let config = &built.config.config;
    assert_eq!(config.labels["triggered"], "yes");
    // Triggers come right after FROM, and are used up.
    assert_eq!(config.labels["order"], "own");
    assert!(config.on_build.is_empty());
    assert_eq!(
        config.exposed_ports.keys().collect::<Vec<_>>(),
        ["80/tcp", "81/tcp"]
    );
    assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/v", "/w"]);
    assert!(config.args_escaped);
    assert!(config.env.iter().any(|entry| entry.starts_with("PATH=")));
    // A trigger or a health check that changes is another image.
    let (id, text) = (
        built.image_id().clone(),
        std::fs::read_to_string(bench.path("Dockerfile"))?,
    );
    for (old, new) in [
        ("HEALTHCHECK CMD x", "HEALTHCHECK CMD y"),
        ("triggered=yes", "triggered=no"),
    ] {
        bench.file("Dockerfile", &text.replace(old, new))?;
        assert_ne!(bench.build(|builder| builder)?.0.image_id(), &id, "{new}");
    }
    // Every layer has its line, and only layers have one without a mark.
    bench.file(
        "Dockerfile",
        "FROM base\nENV a=b\nRUN true\nWORKDIR /\nWORKDIR /w\nUSER 1\nCOPY --from=base /etc/passwd /p\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    let filled = built
        .config
        .history
        .iter()
        .filter(|line| !line.empty_layer)
        .count();
    assert_eq!(filled, built.config.rootfs.diff_ids.len());
    let empty: Vec<bool> = built
        .config
        .history
        .iter()
        .rev()
        .take(6)
        .rev()
        .map(|line| line.empty_layer)
        .collect();
    assert_eq!(empty, [true, false, true, false, true, false]);
    Ok(())
}

fn epoch() -> Tested {
    let bench = Bench::new()?;
    bench.file("f", "x")?;
    bench.file(
        "Dockerfile",
        "FROM base\nCOPY f /copied\nRUN echo x > /new && echo x > /old && touch -d '1999-01-01 00:00:00' /old\nWORKDIR /made\n",
    )?;
    let (built, _) = bench.build(|builder| builder.source_date_epoch(1_000_000_000))?;
    let view = bench
        .runtime
        .images()
        .view_layers(&built.config.rootfs.diff_ids)?;
    let time = |name: &str| -> Tested<i64> { Ok(view.metadata(name)?.ok_or("no file")?.mtime) };
    for name in ["copied", "new", "made"] {
        assert_eq!(time(name)?, 1_000_000_000, "{name}");
    }
    assert_eq!(time("old")?, 915_148_800);
    let made = built.config.history.iter().rev().take(3);
    assert!(
        made.into_iter()
            .all(|line| line.created.as_deref() == Some("2001-09-09T01:46:40Z"))
    );
    Ok(())
}

fn long_lines() -> Tested {
    let bench = Bench::new()?;
    let long = "x".repeat(200_000);
    bench.file("Dockerfile", &format!("FROM base\nLABEL long={long}\n"))?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(built.config.config.labels["long"].len(), long.len());
    Ok(())
}

fn changed_meanwhile() -> Tested {
    let bench = Bench::new()?;
    for (text, file) in [
        ("FROM base\nCOPY a /made\n", "made"),
        ("FROM base\nRUN --mount=target=/c cp /c/a /made\n", "made"),
        ("FROM base\nRUN --mount=source=a,target=/f cp /f /made\n", "made"),
    ] {
        bench.file("Dockerfile", text)?;
        bench.file("a", "one")?;
        let path = bench.path("a");
        let (built, _) = bench.build(|builder| {
            builder.progress(move |event: rdock_build::BuildEvent| {
                // After the key was made, before the file is read.
                if let rdock_build::BuildEvent::StepStarted { .. } = event {
                    std::fs::write(&path, "two").expect("the file changes");
                }
            })
        })?;
        assert_eq!(bench.read(&built, file)?, "two", "{text}");
        bench.file("a", "one")?;
        let (built, seen) = bench.build(|builder| builder)?;
        assert_eq!(
            (bench.read(&built, file)?.as_str(), seen.ran()),
            ("one", 1),
            "{text}"
        );
        let (_, seen) = bench.build(|builder| builder)?;
        assert_eq!(seen.ran(), 0, "{text}");
    }
    Ok(())
}

fn unreadable_ignore() -> Tested {
    let bench = Bench::new()?;
    bench.file("Dockerfile", "FROM scratch\nCOPY . /\n")?;
    // A directory in its place cannot be read, not even by root.
    std::fs::create_dir(bench.path("Dockerfile.dockerignore"))?;
    let error = bench.fails(|builder| builder.dockerfile(bench.path("Dockerfile")))?;
    assert!(error.to_string().contains("Dockerfile.dockerignore"), "{error}");
    std::fs::remove_dir(bench.path("Dockerfile.dockerignore"))?;
    std::fs::create_dir_all(bench.outside("other/.dockerignore"))?;
    bench.file("Dockerfile", "FROM scratch\nCOPY --from=other . /\n")?;
    let other = rdock_build::NamedContext::Directory(bench.outside("other"));
    let error = bench.fails(|builder| builder.build_context("other", other))?;
    assert!(error.to_string().contains(".dockerignore"), "{error}");
    Ok(())
}

fn to_device() -> Tested {
    use std::os::unix::fs::FileTypeExt;
    let bench = Bench::new()?;
    bench.file("Dockerfile", "FROM base\nLABEL a=b\n")?;
    let device = bench.outside("null");
    let made = std::process::Command::new("mknod")
        .arg(&device)
        .args(["c", "1", "3"])
        .status()?;
    assert!(made.success());
    for output in [
        rdock_build::Output::Tar(device.clone()),
        rdock_build::Output::OciArchive(device.clone()),
    ] {
        let (built, _) = bench.build(|builder| builder.output(output))?;
        // Nor does it leave an image behind.
        assert!(bench.runtime.images().get(built.image_id().as_str())?.is_none());
        assert!(std::fs::metadata(&device)?.file_type().is_char_device());
    }
    Ok(())
}

/// A tar with one file.
fn tar_of(name: &str, text: &str) -> Tested<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o640);
    tar.append_data(&mut header, name, text.as_bytes())?;
    Ok(tar.into_inner()?)
}

fn archives() -> Tested {
    use std::io::Write;
    let bench = Bench::new()?;
    let bzip2 = |bytes: &[u8]| -> Tested<Vec<u8>> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        encoder.write_all(bytes)?;
        Ok(encoder.finish()?)
    };
    let gzip = |bytes: &[u8]| -> Tested<Vec<u8>> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes)?;
        Ok(encoder.finish()?)
    };
    std::fs::write(bench.path("plain"), tar_of("of/plain", "plain")?)?;
    std::fs::write(bench.path("gzip"), gzip(&tar_of("of/gzip", "gzip")?)?)?;
    std::fs::write(bench.path("bzip2"), bzip2(&tar_of("of/bzip2", "bzip2")?)?)?;
    // Two streams, one after the other, are one archive to bzip2.
    let long = tar_of("of/parts", "parts")?;
    let (first, rest) = long.split_at(700);
    std::fs::write(bench.path("parts"), [bzip2(first)?, bzip2(rest)?].concat())?;
    // Compressed, and no archive.
    std::fs::write(bench.path("text.bz2"), bzip2(b"text")?)?;
    bench.file(
        "Dockerfile",
        "FROM scratch\nADD plain gzip bzip2 parts text.bz2 /x/\nCOPY bzip2 /copied/\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    for name in ["plain", "gzip", "bzip2", "parts"] {
        assert_eq!(bench.read(&built, &format!("x/of/{name}"))?, name);
    }
    let read = |path: &str| -> Tested<Vec<u8>> {
        let view = bench
            .runtime
            .images()
            .view_layers(&built.config.rootfs.diff_ids)?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut view.open_file(path)?, &mut bytes)?;
        Ok(bytes)
    };
    assert_eq!(read("x/text.bz2")?, std::fs::read(bench.path("text.bz2"))?);
    assert_eq!(read("copied/bzip2")?, std::fs::read(bench.path("bzip2"))?);
    // One that is cut off is an error, not a part of an archive.
    let whole = std::fs::read(bench.path("parts"))?;
    std::fs::write(bench.path("parts"), &whole[..whole.len() - 12])?;
    let error = bench.fails(|builder| builder)?;
    assert!(error.to_string().contains("parts"), "{error}");
    bench.assert_clean()
}

fn triggers_counted() -> Tested {
    let bench = Bench::new()?;
    let text = "FROM base\nONBUILD COPY Dockerfile /copied\nONBUILD ENV A=1\nONBUILD RUN cat /copied\n";
    bench.build(|builder| builder.dockerfile_text(text).tag("parent"))?;
    bench.file("Dockerfile", "FROM parent\nRUN <<END\ntrue\nfalse || true\nEND\n")?;
    let (built, _) = bench.build(|builder| builder)?;
    let names: Vec<&str> = built.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "[1/4] FROM parent",
            "[2/4] COPY Dockerfile /copied",
            "[3/4] RUN cat /copied",
            "[4/4] RUN <<END (true...)",
        ]
    );
    Ok(())
}

fn growing() -> Tested {
    let bench = Bench::new()?;
    let value = "x".repeat(200 << 10);
    let variables: String = (0..30).map(|number| format!("ENV V{number}={value}\n")).collect();
    let text = |count: usize| format!("FROM scratch\n{variables}{}", "RUN x\n".repeat(count));
    let check = |count: usize| {
        let builder = rdock_build::Builder::from_text(text(count));
        crate::bench::wait(builder.check(&bench.runtime))
    };
    check(10)??;
    let error = check(100)?.err().ok_or("it was taken")?;
    let place = error.place().ok_or("no place")?;
    assert!(place.line > 30 && error.to_string().contains("in all"), "{error}");
    // Thousands of stages are looked through in no time.
    let text: String = (0..5_000)
        .map(|number| format!("FROM scratch AS s{number}\n"))
        .collect();
    let builder = rdock_build::Builder::from_text(format!("{text}FROM s4999\nCOPY --from=s0 / /\n"));
    crate::bench::wait(builder.check(&bench.runtime))??;
    Ok(())
}
