//! Builds on a real kernel: the cache, mounts, failures, cancellation, outputs.

mod bases;
mod downloads;
mod graphs;
mod kills;
mod mounts;
mod options;
mod semantics;
mod shared;
mod tunnels;

/// Runs as a build in a process of its own, if this is one.
pub(crate) fn child() -> Option<Tested> {
    kills::child().or_else(tunnels::child)
}

use crate::bench::{Bench, Seen};
use crate::{Tested, root_trial};
use libtest_mimic::Trial;
use rdock_build::{BuildError, Builder, CacheFilter, Hit, Miss, NamedContext, Output, Secret, StepOutcome};
use rdock_image::{ImageStore, Progress};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        root_trial("an_unchanged_build_runs_nothing", unchanged),
        root_trial("a_changed_file_is_named", changed_file),
        root_trial("the_same_content_from_another_stage_is_a_hit", same_content),
        root_trial("no_cache_of_one_stage", no_cache_stage),
        root_trial("two_builds_at_once_run_a_step_once", at_once),
        root_trial("a_failing_command_says_where_and_why", failing),
        root_trial("a_dropped_build_leaves_nothing", dropped),
        root_trial("a_cache_mount_outlives_the_build", cache_mounts),
        root_trial("the_same_digest_twice", same_digest),
        root_trial("outputs", outputs),
        root_trial("named_contexts", named_contexts),
        root_trial("a_directory_that_mounts_is_filtered", filtered_mount),
        root_trial("independent_stages_run_at_once", stages_at_once),
        root_trial("pruning_takes_what_no_image_needs", pruning),
        root_trial("a_dockerfile_alone_has_an_empty_context", alone),
        root_trial("names_and_labels", names_and_labels),
        root_trial("a_killed_build_leaves_a_sound_store", kills::killed),
        root_trial("a_required_secret_must_be_given", secret_required),
    ];
    trials.extend(bases::trials());
    trials.extend(downloads::trials());
    trials.extend(graphs::trials());
    trials.extend(mounts::trials());
    trials.extend(options::trials());
    trials.extend(semantics::trials());
    trials.extend(shared::trials());
    trials.extend(tunnels::trials());
    trials
}

fn unchanged() -> Tested {
    let bench = Bench::new()?;
    bench.file("a", "a")?;
    bench.file(
        "Dockerfile",
        "FROM base\nWORKDIR /w\nCOPY a .\nRUN cat a > b\nENV X=1\n",
    )?;
    let (first, seen) = bench.build(|builder| builder)?;
    assert_eq!(seen.ran(), 3);
    let (second, seen) = bench.build(|builder| builder)?;
    assert_eq!((seen.ran(), seen.cached()), (0, 3));
    assert_eq!(first.image_id(), second.image_id());
    // Only times: as after a fresh checkout.
    bench.file("a", "a")?;
    let (_, seen) = bench.build(|builder| builder)?;
    assert_eq!(seen.ran(), 0);
    // Another user of the image is no reason to run anything either.
    bench.file(
        "Dockerfile",
        "FROM base\nWORKDIR /w\nCOPY a .\nRUN cat a > b\nENV X=2\n",
    )?;
    let (third, seen) = bench.build(|builder| builder)?;
    assert_eq!(seen.ran(), 0);
    assert_ne!(first.image_id(), third.image_id());
    assert_eq!(first.config.rootfs, third.config.rootfs);
    Ok(())
}

fn changed_file() -> Tested {
    let bench = Bench::new()?;
    bench.file("src/one", "1")?;
    bench.file("src/two", "2")?;
    bench.file(
        "Dockerfile",
        "FROM base\nCOPY src /src\nRUN cat /src/one > /out\n",
    )?;
    bench.build(|builder| builder)?;
    bench.file("src/two", "changed")?;
    let steps = bench.explain(|builder| builder)?;
    let StepOutcome::Missed { why } = &steps[1].outcome else {
        return Err(format!("{:?}", steps[1]).into());
    };
    assert!(why.contains(&Miss::Changed("file src/two".to_owned())), "{why:?}");
    assert!(
        !why.contains(&Miss::Changed("file src/one".to_owned())),
        "{why:?}"
    );
    assert_eq!(
        steps[2].outcome,
        StepOutcome::Missed {
            why: vec![Miss::Before]
        }
    );
    // Nothing ran.
    let (_, seen) = bench.build(|builder| builder)?;
    assert_eq!(seen.ran(), 2);
    Ok(())
}

fn same_content() -> Tested {
    let bench = Bench::new()?;
    let text = |version| {
        format!(
            "FROM base AS made\nARG V={version}\nRUN echo $V > /version && echo fixed > /out\nFROM base\nCOPY --from=made /out /out\nRUN --mount=type=bind,from=made,source=/out,target=/in cat /in\n"
        )
    };
    bench.file("Dockerfile", &text(1))?;
    bench.build(|builder| builder)?;
    bench.file("Dockerfile", &text(2))?;
    let (built, seen) = bench.build(|builder| builder)?;
    assert_eq!(seen.ran(), 1, "{seen:?}");
    let by: Vec<_> = built
        .steps
        .iter()
        .filter(|step| step.outcome == StepOutcome::Cached { by: Hit::Content })
        .collect();
    assert_eq!(by.len(), 2, "{:?}", built.steps);
    Ok(())
}

fn no_cache_stage() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base AS one\nRUN date > /a\nFROM base AS two\nRUN date > /b\nCOPY --from=one /a /\n",
    )?;
    bench.build(|builder| builder)?;
    let (_, seen) = bench.build(|builder| builder.no_cache_stage("One"))?;
    assert!(
        seen.names().iter().any(|name| name.starts_with("[one")),
        "{seen:?}"
    );
    assert!(!seen.names().iter().any(|name| name.contains("/b")), "{seen:?}");
    let (_, seen) = bench.build(|builder| builder.no_cache(true))?;
    assert_eq!(seen.ran(), 3);
    Ok(())
}

fn at_once() -> Tested {
    let bench = Bench::new()?;
    let text = "FROM base\nRUN --mount=type=cache,target=/c echo x >> /c/count && sleep 0.3 && wc -l < /c/count > /lines\n";
    bench.file("Dockerfile", text)?;
    std::thread::scope(|scope| -> Tested {
        let builds: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    bench
                        .build(|builder| builder)
                        .map(|(built, _)| built.id.clone())
                        .map_err(|e| e.to_string())
                })
            })
            .collect();
        let mut ids = Vec::new();
        for build in builds {
            ids.push(build.join().map_err(|_| "a panic")??);
        }
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
        Ok(())
    })?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "lines")?, "1\n");
    Ok(())
}

fn failing() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN echo kept > /kept\nRUN echo one; echo two >&2; \\\n  exit 7\n",
    )?;
    let error = bench.fails(|builder| builder)?;
    let text = error.to_string();
    let BuildError::Run { place, output, .. } = &error else {
        return Err(text.into());
    };
    assert_eq!((place.line, place.last_line), (3, 4));
    assert_eq!(error.exit_code(), Some(7));
    let mut lines = output.clone();
    lines.sort();
    assert_eq!(lines, ["one", "two"]);
    assert!(
        text.contains("Dockerfile:3") && text.contains("exit code 7") && text.contains("two"),
        "{text}"
    );
    bench.assert_clean()?;
    // What was finished is kept.
    bench.file("Dockerfile", "FROM base\nRUN echo kept > /kept\nRUN true\n")?;
    let (_, seen) = bench.build(|builder| builder)?;
    assert_eq!((seen.cached(), seen.ran()), (1, 1));
    Ok(())
}

fn dropped() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN echo done > /done\nRUN echo begun && sleep 1000\n",
    )?;
    bench.build_and_drop("begun")?;
    bench.assert_clean_soon()?;
    bench.file("Dockerfile", "FROM base\nRUN echo done > /done\n")?;
    let (_, seen) = bench.build(|builder| builder)?;
    assert_eq!(seen.ran(), 0);
    Ok(())
}

fn cache_mounts() -> Tested {
    let bench = Bench::new()?;
    let text = |id: &str, command: &str| {
        format!("FROM base\nRUN --mount=type=cache,{id}target=/c,uid=5,gid=6,mode=0750 {command}\n")
    };
    bench.file(
        "Dockerfile",
        &text("", "stat -c '%u:%g %a' /c > /stat && echo kept > /c/f"),
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "stat")?, "5:6 750\n");
    // Its content is in no layer.
    assert!(bench.read(&built, "c/f").is_err());
    bench.file("Dockerfile", &text("", "cat /c/f > /seen"))?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "seen")?, "kept\n");
    bench.file("Dockerfile", &text("id=other,", "ls /c > /seen"))?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "seen")?, "");
    // What it begins with.
    bench.file("seed/x", "seed")?;
    bench.file(
        "Dockerfile",
        "FROM base AS seed\nCOPY seed /seed\nFROM base\nRUN --mount=type=cache,id=seeded,from=seed,source=/seed,target=/c cat /c/x > /seen\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "seen")?, "seed");
    Ok(())
}

fn same_digest() -> Tested {
    let bench = Bench::new()?;
    bench.file("a", "a")?;
    bench.file(
        "Dockerfile",
        "FROM base\nCOPY a <<x /d/\ninline\nx\nWORKDIR /w\nRUN date > /dev/null; mkdir d; touch d/f\n",
    )?;
    let build = || bench.build(|builder| builder.no_cache(true).source_date_epoch(1_000_000_000));
    let (first, _) = build()?;
    let (second, _) = build()?;
    assert_eq!(first.image_id(), second.image_id());
    let manifest =
        |built: &rdock_build::BuildOutput| built.image.as_ref().map(|image| image.manifest_digest().clone());
    assert_eq!(manifest(&first), manifest(&second));
    assert_eq!(first.config.created.as_deref(), Some("2001-09-09T01:46:40Z"));
    Ok(())
}

fn outputs() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM scratch\nCOPY --chmod=750 dir /dir\nCOPY --from=base /bin/sh /sh\n",
    )?;
    bench.file("dir/f", "text")?;
    std::os::unix::fs::symlink("f", bench.path("dir/link"))?;
    let to = |name: &str| bench.outside(name);
    let (built, _) = bench.build(|builder| {
        builder
            .tag("out:1")
            .output(Output::Directory(to("local")))
            .output(Output::Tar(to("files.tar")))
            .output(Output::OciArchive(to("oci.tar")))
            .output(Output::DockerArchive(to("docker.tar")))
    })?;
    assert!(built.image.is_none());
    assert!(bench.runtime.images().get("out:1")?.is_none());
    assert_eq!(std::fs::read_to_string(to("local/dir/f"))?, "text");
    assert_eq!(
        std::fs::read_link(to("local/dir/link"))?,
        std::path::Path::new("f")
    );
    let mut archive = tar::Archive::new(std::fs::File::open(to("files.tar"))?);
    let names: Vec<String> = archive
        .entries()?
        .map(|entry| Ok(entry?.path()?.display().to_string()))
        .collect::<Tested<_>>()?;
    assert_eq!(names, ["dir/", "dir/f", "dir/link", "sh"]);
    for name in ["oci.tar", "docker.tar"] {
        let dir = tempfile::tempdir()?;
        let store = ImageStore::open(dir.path())?;
        let images = store.import(&to(name), &Progress::default())?;
        assert_eq!(images[0].id(), built.image_id(), "{name}");
    }
    Ok(())
}

fn named_contexts() -> Tested {
    let bench = Bench::new()?;
    std::fs::create_dir(bench.outside("other"))?;
    std::fs::write(bench.outside("other/f"), "other")?;
    std::fs::write(bench.outside("other/secret"), "hidden")?;
    std::fs::write(bench.outside("other/.dockerignore"), "secret")?;
    bench.file(
        "Dockerfile",
        "FROM replaced\nCOPY --from=files / /in/\nRUN --mount=type=bind,from=files,target=/m cp /m/f /g\n",
    )?;
    let (built, _) = bench.build(|builder| {
        builder
            .build_context("files", NamedContext::Directory(bench.outside("other")))
            .build_context(
                "replaced",
                NamedContext::Image("base".parse().unwrap_or_else(|_| unreachable!("a name"))),
            )
    })?;
    assert_eq!(bench.read(&built, "in/f")?, "other");
    assert_eq!(bench.read(&built, "g")?, "other");
    assert!(bench.read(&built, "in/secret").is_err());
    Ok(())
}

fn filtered_mount() -> Tested {
    let bench = Bench::new()?;
    bench.file("a", "a")?;
    bench.file("hidden", "hidden")?;
    bench.file(".dockerignore", "hidden\n")?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN --mount=type=bind,target=/c,rw ls /c > /names && echo x > /c/a && echo x > /c/new\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    let names = bench.read(&built, "names")?;
    assert!(names.contains("a\n") && !names.contains("hidden"), "{names}");
    assert_eq!(std::fs::read_to_string(bench.path("a"))?, "a");
    assert!(!bench.path("new").exists());
    assert!(bench.read(&built, "c/a").is_err());
    Ok(())
}

fn stages_at_once() -> Tested {
    let bench = Bench::new()?;
    // Each waits for the other, through a cache that both see.
    let step = |own: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,target=/c touch /c/{own} && for i in $(seq 200); do [ -e /c/{other} ] && exit 0; sleep 0.05; done; exit 1"
        )
    };
    let text = format!(
        "FROM base AS a\n{}\nFROM base AS b\n{}\nFROM scratch\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n",
        step("a", "b"),
        step("b", "a")
    );
    bench.file("Dockerfile", &text)?;
    bench.build(|builder| builder.parallel(4))?;
    Ok(())
}

fn alone() -> Tested {
    let bench = Bench::new()?;
    let error = bench.fails_with(Builder::from_text("FROM base\nCOPY file /\n"))?;
    assert_eq!(error.place().ok_or("no place")?.line, 2);
    assert!(error.to_string().contains("/file not found"), "{error}");
    let (built, _) = bench.build_with(Builder::from_text("FROM base\nRUN echo made > /made\n"))?;
    assert_eq!(bench.read(&built, "made")?, "made\n");
    bench.assert_clean()
}

fn pruning() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN echo a > /a\nRUN --mount=type=cache,target=/c echo x > /c/x\n",
    )?;
    let (built, _) = bench.build(|builder| builder.tag("kept"))?;
    let usage = Builder::cache_usage(&bench.runtime)?;
    assert!(
        usage.entries.iter().any(|entry| entry.mount) && usage.entries.len() >= 3,
        "{usage:?}"
    );
    // The image has the layers of all steps, so that only the mount would give anything back.
    let mounts = || usage.entries.iter().filter(|entry| entry.mount);
    assert_eq!(usage.reclaimable, mounts().map(|entry| entry.size).sum::<u64>());
    assert!(usage.bytes > usage.reclaimable && usage.entries.iter().all(|entry| entry.mount != entry.shared));
    let spared = CacheFilter {
        keep_shared: true,
        keep_mounts: true,
        ..CacheFilter::default()
    };
    let removed = Builder::prune(&bench.runtime, &spared)?;
    assert!(removed.entries.is_empty() && removed.bytes == 0, "{removed:?}");
    let removed = Builder::prune(
        &bench.runtime,
        &CacheFilter {
            keep_mounts: true,
            ..CacheFilter::default()
        },
    )?;
    assert!(removed.entries.iter().all(|entry| !entry.mount) && !removed.entries.is_empty());
    assert_eq!(removed.bytes, 0, "the image keeps the layers");
    // The image still has its layers.
    assert_eq!(bench.read(&built, "a")?, "a\n");
    let (_, seen) = bench.build(|builder| builder)?;
    assert_eq!(seen.ran(), 2);
    Builder::prune(&bench.runtime, &CacheFilter::default())?;
    assert!(Builder::cache_usage(&bench.runtime)?.entries.is_empty());
    Ok(())
}

fn names_and_labels() -> Tested {
    let bench = Bench::new()?;
    bench.file("Dockerfile", "FROM base\nLABEL a=file b=file\nARG unused\n")?;
    let (built, seen): (_, Seen) = bench.build(|builder| {
        builder
            .tag("one:1")
            .tag("reg.example/two")
            .label("a", "flag")
            .build_arg("nowhere", "x")
    })?;
    let image = built.image.ok_or("no image")?;
    assert_eq!(image.references().len(), 2);
    assert_eq!(image.config().config.labels["a"], "flag");
    assert_eq!(image.config().config.labels["b"], "file");
    assert!(
        seen.warnings().iter().any(|text| text.contains("nowhere")),
        "{seen:?}"
    );
    Ok(())
}

fn secret_required() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN --mount=type=secret,id=key,required true\n",
    )?;
    let error = bench.fails(|builder| builder)?;
    assert!(
        error.to_string().contains("key") && error.hint().is_some(),
        "{error}"
    );
    bench.build(|builder| builder.secret("key", Secret::Value(b"x".to_vec())))?;
    Ok(())
}
