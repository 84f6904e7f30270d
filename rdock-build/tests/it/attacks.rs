//! Known attacks on builders, each named after its row.
use crate::bench::Bench;
use crate::{Tested, root_trial};
use libtest_mimic::Trial;
use rdock_build::dockerfile::Dockerfile;
use rdock_build::{BuildError, Context, Secret};
use rdock_image::{ImageConfig, Reference};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        root_trial("bld_secret_leak", secret_leak),
        root_trial("bld_cache_id_path", cache_id_path),
        root_trial("bld_name_to_path", name_to_path),
        root_trial("bld_mount_cleaner", mount_cleaner),
        root_trial("bld_workdir_proc_fd", workdir_proc_fd),
        root_trial("bld_workdir_symlink", workdir_symlink),
        root_trial("bld_passwd_limits", passwd_limits),
        root_trial("bld_bind_source_symlink", bind_source_symlink),
        root_trial("bld_mount_option_grammar", mount_option_grammar),
        root_trial("bld_insecure_entitlement", insecure_entitlement),
        root_trial("bld_git_subdir", || {
            git_source("https://host.example/r.git#main:../..")
        }),
        root_trial("bld_git_argument", || {
            git_source("git://host.example/r#--upload-pack=touch")
        }),
        root_trial("bld_env_host", env_host),
        root_trial("bld_cache_poison", cache_poison),
        root_trial("bld_context_symlink", context_symlink),
        root_trial("bld_cache_mount_race", cache_mount_race),
        root_trial("bld_mount_src_toctou", mount_source_race),
        root_trial("bld_add_exec", add_exec),
        root_trial("bld_malformed_input", malformed_input),
    ]
}

/// Says whether any file below a directory holds the bytes.
pub(crate) fn holds(dir: &Path, bytes: &[u8]) -> Tested<Option<String>> {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path
                .as_os_str()
                .as_encoded_bytes()
                .windows(bytes.len())
                .any(|window| window == bytes)
            {
                return Ok(Some(path.display().to_string()));
            }
            let meta = std::fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                open.push(path);
            } else if meta.is_file()
                && std::fs::read(&path)?
                    .windows(bytes.len())
                    .any(|window| window == bytes)
            {
                return Ok(Some(path.display().to_string()));
            }
        }
    }
    Ok(None)
}

fn secret_leak() -> Tested {
    const SECRET: &str = "hunter2-cafebabe-secret";
    let bench = Bench::new()?;
    let text = "FROM base\n\
        RUN --mount=type=secret,id=key [ $(cat /run/secrets/key) = $(echo hunter2-cafebabe)-secret ] && stat -c '%a %u' /run/secrets/key > /stat\n\
        RUN --mount=type=secret,id=key,env=KEY [ $KEY = $(echo hunter2-cafebabe)-secret ] && [ ! -e /run/secrets/key ]\n\
        RUN --mount=type=secret,id=key,target=/etc/k,mode=0440,uid=5,gid=6 stat -c '%a %u:%g' /etc/k > /other\n\
        RUN [ ! -e /run/secrets ] && [ ! -e /etc/k ]\n";
    bench.file("Dockerfile", text)?;
    let secret = Secret::Value(SECRET.as_bytes().to_vec());
    let (built, seen) = bench.build(|builder| builder.secret("key", secret.clone()))?;
    assert_eq!(bench.read(&built, "stat")?, "400 0\n");
    assert_eq!(bench.read(&built, "other")?, "440 5:6\n");
    assert!(bench.read(&built, "etc/k").is_err() && bench.read(&built, "run/secrets/key").is_err());
    if let Some(path) = holds(bench.runtime.root(), SECRET.as_bytes())? {
        return Err(format!("the secret is in {path}").into());
    }
    assert!(!seen.all().contains(SECRET) && !seen.output().contains(SECRET));
    assert!(!format!("{secret:?}").contains(SECRET));
    assert!(!serde_json::to_string(&built.config)?.contains(SECRET));
    // Another value is no other step.
    let (_, seen) = bench.build(|builder| builder.secret("key", Secret::Value(b"another".to_vec())))?;
    assert_eq!(seen.ran(), 0);
    Ok(())
}

fn cache_id_path() -> Tested {
    let bench = Bench::new()?;
    let canary = bench.outside("canary");
    for id in [
        "../../../canary",
        "/../../canary",
        &canary.display().to_string(),
        "a/../../../../canary",
    ] {
        bench.file(
            "Dockerfile",
            &format!("FROM base\nRUN --mount=type=cache,id={id},target=/c touch /c/written\n"),
        )?;
        bench.build(|builder| builder)?;
    }
    assert!(!canary.exists());
    assert!(
        holds(&bench.runtime.root().join("build/mounts"), b"canary")?
            .is_none_or(|path| path.ends_with("/name"))
    );
    Ok(())
}

fn name_to_path() -> Tested {
    let bench = Bench::new()?;
    // Names of here-documents, of secrets and of stages are names, whatever they look like.
    bench.file(
        "Dockerfile",
        "FROM base AS ..\nRUN <<../../x\n#!/bin/sh\necho ran > /ran\n../../x\nCOPY <<../../../y /d/\nhello\n../../../y\n",
    )?;
    match bench.build(|builder| builder.secret("../../s", Secret::Value(b"s".to_vec()))) {
        Ok((built, _)) => assert_eq!(bench.read(&built, "ran")?, "ran\n"),
        Err(error) => assert!(error.to_string().contains("Dockerfile"), "{error}"),
    }
    assert!(
        !bench.outside("x").exists()
            && !bench.outside("y").exists()
            && !bench.runtime.root().join("x").exists()
    );
    Ok(())
}

fn mount_cleaner() -> Tested {
    let bench = Bench::new()?;
    let host = bench.outside("host");
    std::fs::create_dir(&host)?;
    std::fs::create_dir(host.join("y"))?;
    bench.file("f", "f")?;
    bench.file(
        "Dockerfile",
        &format!(
            "FROM base\nRUN --mount=type=bind,target=/x/y umount /x/y 2>/dev/null; mv /x /z; ln -s {} /x\nRUN true\n",
            host.display()
        ),
    )?;
    // Moving a mount point is refused; what counts is the host.
    let _ = bench.build(|builder| builder);
    assert!(host.join("y").is_dir());
    Ok(())
}

fn workdir_proc_fd() -> Tested {
    let bench = Bench::new()?;
    for number in 3..20 {
        bench.file(
            "Dockerfile",
            &format!("FROM base\nWORKDIR /proc/self/fd/{number}\nRUN ls ../../../../.. > /seen; pwd\n"),
        )?;
        if let Ok((built, _)) = bench.build(|builder| builder) {
            let seen = bench.read(&built, "seen")?;
            assert!(!seen.contains("lost+found") && !seen.contains("boot"), "{seen}");
        }
    }
    Ok(())
}

fn workdir_symlink() -> Tested {
    let bench = Bench::new()?;
    let target = bench.outside("w");
    bench.file(
        "Dockerfile",
        &format!(
            "FROM base\nRUN ln -s ../../../../../../..{} /w\nWORKDIR /w/new\nRUN touch here\n",
            target.display()
        ),
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert!(!target.exists());
    assert!(
        bench
            .read(&built, &format!("{}/new/here", target.display()))
            .is_ok()
    );
    Ok(())
}

fn passwd_limits() -> Tested {
    let bench = Bench::new()?;
    bench.file("f", "f")?;
    for make in [
        "rm /etc/passwd && mkfifo /etc/passwd",
        "rm /etc/passwd && mknod /etc/passwd c 1 5",
        "rm /etc/passwd && ln -s /dev/zero /etc/passwd",
        "dd if=/dev/zero of=/etc/passwd bs=1M count=64",
    ] {
        for user in ["COPY --chown=who f /f", "USER who\nWORKDIR /new"] {
            bench.file("Dockerfile", &format!("FROM base\nRUN {make}\n{user}\n"))?;
            let started = Instant::now();
            let error = bench.fails(|builder| builder)?;
            assert!(started.elapsed() < Duration::from_secs(20), "{make}");
            assert!(matches!(error, BuildError::Step { .. }), "{error}");
        }
    }
    Ok(())
}

fn bind_source_symlink() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base AS evil\nRUN ln -s / /link && ln -s ../../../../../../.. /up && echo image > /mark\n\
         FROM base\nRUN --mount=type=bind,from=evil,source=/link,target=/a --mount=type=bind,from=evil,source=/up,target=/b cat /a/mark /b/mark > /seen\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "seen")?, "image\nimage\n");
    Ok(())
}

fn mount_option_grammar() -> Tested {
    for options in [
        "type=bind,bind-propagation=shared,target=/x",
        "type=bind,target=/x,suid",
        "type=cache,target=/x,sharing=all",
        "type=tmpfs,target=/x,mode=rw;exec",
        "type=bind,target=/x,source=/,relabel=shared,U",
        "type=other,target=/x",
    ] {
        let text = format!("FROM base\nRUN --mount={options} true\n");
        assert!(Dockerfile::parse("Dockerfile", &text).is_err(), "{options}");
    }
    Ok(())
}

fn insecure_entitlement() -> Tested {
    let bench = Bench::new()?;
    for flag in [
        "--security=insecure",
        "--network=host",
        "--device=vendor.com/class=all",
    ] {
        bench.file(
            "Dockerfile",
            &format!("FROM base\nRUN touch /first\nRUN {flag} true\n"),
        )?;
        let (error, seen) = bench.fails_seen(|builder| builder)?;
        assert!(matches!(error, BuildError::Dockerfile(_)), "{error}");
        assert_eq!(seen.ran(), 0);
    }
    Ok(())
}

fn git_source(address: &str) -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        &format!("FROM base\nRUN touch /first\nADD {address} /x\n"),
    )?;
    let (error, seen) = bench.fails_seen(|builder| builder)?;
    assert!(
        matches!(error, BuildError::Dockerfile(_)) && error.to_string().contains("git"),
        "{error}"
    );
    assert_eq!(seen.ran(), 0);
    Ok(())
}

fn env_host() -> Tested {
    let bench = Bench::new()?;
    let store = bench.runtime.images();
    let base = store.get("base")?.ok_or("no base")?;
    // Any variable of this process that a container has no reason to have.
    let known = ["PATH", "HOME", "PWD", "SHLVL", "TERM", "HOSTNAME", "LANG", "_"];
    let found = std::env::vars().find(|(name, value)| value.len() > 8 && !known.contains(&name.as_str()));
    let (name, value) = found.ok_or("this process has no variable of its own")?;
    let mut config: ImageConfig = base.config().clone();
    config.config.env.push(name.clone());
    store.write_image(&store.lease()?, &config, &[Reference::parse("evil")?])?;
    bench.file(
        "Dockerfile",
        &format!("FROM evil\nRUN env > /env\nENV copied=${{{name}}}\n"),
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert!(!bench.read(&built, "env")?.contains(&value));
    assert!(!serde_json::to_string(&built.config)?.contains(&value));
    Ok(())
}

fn cache_poison() -> Tested {
    let bench = Bench::new()?;
    bench.file("a", "right")?;
    let text = "FROM scratch\nCOPY a /a\n";
    // An image that claims to be what the build makes, with other files.
    bench.file("evil/a", "wrong")?;
    bench.file("Dockerfile", "FROM scratch\nCOPY evil/a /a\n")?;
    let (evil, _) = bench.build(|builder| builder)?;
    let mut config = evil.config.clone();
    config.history[0].created_by = Some("COPY a /a # buildkit".to_owned());
    let store = bench.runtime.images();
    store.write_image(&store.lease()?, &config, &[Reference::parse("poison")?])?;
    bench.file("Dockerfile", text)?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "a")?, "right");
    // What is only config is another image.
    let mut ids = vec![built.id];
    for more in [
        "HEALTHCHECK CMD true",
        "HEALTHCHECK CMD false",
        "ONBUILD RUN x",
        "ONBUILD RUN y",
    ] {
        bench.file("Dockerfile", &format!("{text}{more}\n"))?;
        let (built, seen) = bench.build(|builder| builder)?;
        assert_eq!(seen.ran(), 0);
        assert!(!ids.contains(&built.id), "{more}");
        ids.push(built.id);
    }
    Ok(())
}

fn context_symlink() -> Tested {
    let bench = Bench::new()?;
    let canary = bench.outside("canary");
    std::fs::write(&canary, "FROM base\nRUN touch /canary-was-read\n")?;
    let make = |entries: &[(&str, Option<&Path>, &str)]| -> Tested<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, link, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(data.len() as u64);
            match link {
                Some(target) => {
                    header.set_size(0);
                    header.set_entry_type(tar::EntryType::Symlink);
                    tar.append_link(&mut header, name, target)?;
                }
                None => tar.append_data(&mut header, name, data.as_bytes())?,
            }
        }
        Ok(tar.into_inner()?)
    };
    let build = |bytes: Vec<u8>| {
        let builder = rdock_build::Builder::from_context(Context::archive(std::io::Cursor::new(bytes)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime
            .map_err(|error| error.to_string())
            .map(|wait| wait.block_on(builder.build(&bench.runtime)))
    };
    // The Dockerfile is a link out of the context.
    assert!(build(make(&[("Dockerfile", Some(&canary), "")])?)?.is_err());
    // Something is written through a link.
    let through = make(&[
        ("d", Some(bench.outside("").as_path()), ""),
        ("d/canary", None, "overwritten"),
        ("Dockerfile", None, "FROM scratch\nCOPY d /d\n"),
    ])?;
    let _ = build(through)?;
    assert!(std::fs::read_to_string(&canary)?.starts_with("FROM base"));
    // A context that breaks off is none.
    let whole = make(&[
        ("Dockerfile", None, "FROM scratch\nCOPY big /big\n"),
        ("big", None, &"x".repeat(4096)),
    ])?;
    assert!(build(whole[..2048].to_vec())?.is_err());
    bench.assert_clean()?;
    assert!(build(whole)?.is_ok());
    // A directory with a link to the host: its target is looked for inside.
    symlink(&canary, bench.path("Dockerfile"))?;
    assert!(bench.fails(|builder| builder).is_ok());
    Ok(())
}

fn cache_mount_race() -> Tested {
    let bench = Bench::new()?;
    let canary = bench.outside("canary");
    std::fs::create_dir(&canary)?;
    std::fs::write(canary.join("host-canary"), "host")?;
    let swap = format!(
        "RUN --mount=type=cache,id=shared,target=/c mkdir -p /c/sub; for i in $(seq 300); do mv /c/sub /c/old; ln -s {} /c/sub; rm /c/sub; mv /c/old /c/sub; done",
        canary.display()
    );
    let look = "RUN --mount=type=cache,id=shared,target=/c for i in $(seq 100); do ls /c/sub 2>/dev/null; done > /seen; true";
    bench.file(
        "Dockerfile",
        &format!("FROM base AS a\n{swap}\nFROM base AS b\n{look}\nFROM base AS c\n{look} && true\nFROM base\nCOPY --from=a /etc/passwd /x\nCOPY --from=b /seen /b\nCOPY --from=c /seen /c\n"),
    )?;
    let (built, _) = bench.build(|builder| builder.parallel(8))?;
    assert!(
        !bench.read(&built, "b")?.contains("host-canary")
            && !bench.read(&built, "c")?.contains("host-canary")
    );
    Ok(())
}

fn mount_source_race() -> Tested {
    let bench = Bench::new()?;
    let canary = bench.outside("canary");
    std::fs::create_dir(&canary)?;
    std::fs::write(canary.join("host-canary"), "host")?;
    bench.file("sub/f", "f")?;
    bench.file(
        "Dockerfile",
        "FROM base\nARG N\nRUN --mount=type=bind,source=sub,target=/m ls /m > /seen\nCOPY sub /copied\n",
    )?;
    let (one, other) = (bench.path("sub"), bench.path("old"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| -> Tested {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // Whatever state it is in, it goes on.
                let _ = std::fs::rename(&one, &other);
                let _ = symlink(&canary, &one);
                std::thread::yield_now();
                let _ = std::fs::remove_file(&one);
                let _ = std::fs::rename(&other, &one);
            }
        });
        let mut seen = Ok(());
        for number in 0..30 {
            if let Ok((built, _)) = bench.build(|builder| builder.build_arg("N", number.to_string())) {
                let text = bench.read(&built, "seen").unwrap_or_default();
                if text.contains("host-canary") || bench.read(&built, "copied/host-canary").is_ok() {
                    seen = Err("a build saw the host".into());
                }
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        seen
    })
}

fn add_exec() -> Tested {
    let bench = Bench::new()?;
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(2);
    tar.append_data(&mut header, "in", &b"in"[..])?;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, &tar.into_inner()?)?;
    std::fs::write(bench.path("a.tgz"), packed.finish()?)?;
    // Programs of the image that would unpack it, and that only leave a mark.
    bench.file(
        "Dockerfile",
        "FROM base\nRUN for p in tar gzip gunzip unpigz xz; do rm -f /bin/$p; printf '#!/bin/sh\\ntouch /ran\\n' > /bin/$p; chmod 755 /bin/$p; done\nADD a.tgz /x/\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "x/in")?, "in");
    assert!(bench.read(&built, "ran").is_err());
    Ok(())
}

fn malformed_input() -> Tested {
    let bench = Bench::new()?;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = [
        "FROM",
        " ",
        "\n",
        "base",
        "scratch",
        "RUN",
        "COPY",
        "--from=",
        "0",
        "$x",
        "${",
        "}",
        "<<E",
        "E",
        "[\"",
        "\"]",
        "\\",
        "--mount=type=",
        "cache,target=/",
        "ARG",
        "ENV",
        "=",
        "#",
        "../",
        "/",
        "\u{0}",
        "\u{fffd}",
        "*",
        "--chmod=",
        "ONBUILD",
        "HEALTHCHECK",
        "a",
    ];
    for _ in 0..400 {
        let count = next() % 30;
        let mut text = String::from("FROM scratch\n");
        for _ in 0..count {
            text.push_str(words[(next() % words.len() as u64) as usize]);
        }
        // Errors, never a panic; nothing is pulled, so that images are missing at once.
        if text.contains("RUN") {
            let _ = Dockerfile::parse("Dockerfile", &text);
            continue;
        }
        bench.file("Dockerfile", &text)?;
        let _ = bench.fails(|builder| builder.pull(rdock_build::PullPolicy::Never));
    }
    bench.assert_clean()
}
