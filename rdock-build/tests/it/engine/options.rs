//! What the caller of a build asks for, beside the Dockerfile.

use crate::attacks::holds;
use crate::bench::Bench;
use crate::{Tested, root_trial};
use flate2::write::GzEncoder;
use libtest_mimic::Trial;
use rdock_build::runtime::{ExitReason, NetworkMode, Resources};
use rdock_build::{BuildError, Builder, CacheFilter, Context, Output};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        root_trial("commands_have_the_limits_of_the_build", limits),
        root_trial("a_command_has_no_more_memory_than_the_build_gives_it", memory),
        root_trial("a_parent_group_that_is_no_group_is_refused", parent),
        root_trial("options_that_change_a_commands_result_are_in_its_key", keys),
        root_trial("a_command_has_the_network_that_it_names_or_the_builds", networks),
        root_trial("a_tmpfs_mount_has_its_size_and_leaves_nothing", tmpfs),
        root_trial("a_target_is_named_in_any_case_or_by_number", targets),
        root_trial("a_base_is_named_by_digest", digests),
        root_trial("a_context_is_an_archive_or_an_address", contexts),
        root_trial("add_unpacks_what_it_is_told_to", unpacked),
        root_trial(
            "certificates_of_the_host_are_in_no_image_and_no_key",
            certificates,
        ),
        root_trial("pruning_by_age_and_size", pruned),
        root_trial("foreign_platforms_are_refused_before_anything_runs", platforms),
        root_trial("an_epoch_is_an_argument_too", epochs),
    ]
}

fn limits() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN ulimit -n > /soft && ulimit -H -n > /hard && hostname > /name && \
         df -k /dev/shm | tail -n 1 | awk '{print $2}' > /shm && grep added /etc/hosts | awk '{print $1}' > /host\n\
         RUN [ ! -e /dev/shm/x ] && [ ! -s /etc/hosts ] || grep -q added /etc/hosts\n",
    )?;
    let (built, _) = bench.build(|builder| {
        builder
            .ulimit("nofile", 300, 400)
            .hostname("builder")
            .shm_size(3 << 20)
            .add_host("added", "10.9.8.7")
    })?;
    for (name, text) in [
        ("soft", "300"),
        ("hard", "400"),
        ("name", "builder"),
        ("shm", "3072"),
        ("host", "10.9.8.7"),
    ] {
        assert_eq!(bench.read(&built, name)?.trim(), text, "{name}");
    }
    // None of it is in the image.
    assert!(bench.read(&built, "etc/hosts").is_err() && bench.read(&built, "etc/hostname").is_err());
    let error = bench.fails(|builder| builder.ulimit("nonsense", 1, 1))?;
    assert!(error.to_string().contains("nonsense"), "{error}");
    bench.assert_clean()
}

fn memory() -> Tested {
    let bench = Bench::new()?;
    // One block is in memory as a whole.
    bench.file(
        "Dockerfile",
        "FROM base\nRUN dd if=/dev/zero of=/dev/null bs=200M count=1\n",
    )?;
    let mut resources = Resources::default();
    resources.memory = Some(32 << 20);
    resources.memory_swap = Some(32 << 20);
    resources.cpu_shares = Some(512);
    let limited = resources.clone();
    match bench.fails_seen(|builder| builder.resources(limited)) {
        Ok((BuildError::Run { exit, output, .. }, _)) => {
            assert!(
                // The shell tells of its child's end, unless it is killed with it.
                matches!(
                    exit,
                    ExitReason::OomKilled | ExitReason::Signaled(9) | ExitReason::Exited(137)
                ),
                "{exit:?} {output:?}"
            );
        }
        Ok((error, _)) => return Err(error.into()),
        Err(_) => {
            // A machine that cannot limit memory says so.
            let (_, seen) = bench.build(|builder| builder.resources(resources).no_cache(true))?;
            assert!(
                seen.warnings().iter().any(|text| text.contains("memory")),
                "{:?}",
                seen.warnings()
            );
        }
    }
    // Without a limit it is enough.
    bench.build(|builder| builder)?;
    bench.assert_clean()
}

fn parent() -> Tested {
    let bench = Bench::new()?;
    bench.file("Dockerfile", "FROM base\nRUN true\n")?;
    let error = bench.fails(|builder| builder.cgroup_parent("../../outside"))?;
    assert!(error.to_string().contains("../../outside"), "{error}");
    let (_, seen) = bench.build(|builder| builder.cgroup_parent("rdock-build-parent"))?;
    assert_eq!(seen.ran(), 1);
    bench.assert_clean()
}

fn keys() -> Tested {
    let bench = Bench::new()?;
    bench.file("Dockerfile", "FROM base\nRUN true\n")?;
    let ran = |change: &dyn Fn(Builder) -> Builder| -> Tested<usize> { Ok(bench.build(change)?.1.ran()) };
    assert_eq!(ran(&|builder| builder)?, 1);
    type Change<'a> = &'a dyn Fn(Builder) -> Builder;
    let changes: [Change<'_>; 5] = [
        &|builder| builder.ulimit("nofile", 300, 400),
        &|builder| builder.shm_size(1 << 20),
        &|builder| builder.hostname("other"),
        &|builder| builder.add_host("a", "10.0.0.1"),
        &|builder| builder.network(NetworkMode::Default),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert_eq!((ran(change)?, ran(change)?), (1, 0), "{number}");
    }
    // What only says how fast it goes, and where a host is today, changes nothing.
    assert_eq!(ran(&|builder| builder.add_host("a", "10.0.0.2"))?, 0);
    let mut resources = Resources::default();
    resources.memory = Some(1 << 30);
    assert_eq!(ran(&|builder| builder.resources(resources.clone()))?, 0);
    assert_eq!(ran(&|builder| builder.parallel(1))?, 0);
    Ok(())
}

fn networks() -> Tested {
    let bench = Bench::new()?;
    let text = "FROM base\nRUN --network=host readlink /proc/self/ns/net > /host\n\
        RUN --network=none readlink /proc/self/ns/net > /none && [ \"$(ls /sys/class/net)\" = lo ]\n\
        RUN readlink /proc/self/ns/net > /own\n";
    bench.file("Dockerfile", text)?;
    // The host's is dangerous: nothing runs.
    let (error, seen) = bench.fails_seen(|builder| builder)?;
    assert!(
        error.to_string().contains("Dockerfile:2") && error.to_string().contains("host"),
        "{error}"
    );
    assert_eq!(seen.ran(), 0);
    let host = std::fs::read_link("/proc/self/ns/net")?.display().to_string();
    let (built, _) = bench.build(|builder| builder.allow_host_network(true))?;
    let seen = |built: &_, name| bench.read(built, name).map(|text| text.trim().to_owned());
    assert_eq!(seen(&built, "host")?, host);
    assert_ne!(seen(&built, "none")?, host);
    assert_ne!(seen(&built, "own")?, host);
    // A build on the host's network has allowed it.
    let (built, _) = bench.build(|builder| builder.network(NetworkMode::Host))?;
    assert_eq!(seen(&built, "own")?, host);
    assert_ne!(seen(&built, "none")?, host);
    Ok(())
}

fn tmpfs() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN --mount=type=tmpfs,target=/t,size=2m df -k /t | tail -n 1 | awk '{print $1, $2}' > /size && \
         head -c 1m /dev/zero > /t/f && ! head -c 3m /dev/zero > /t/g\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "size")?, "tmpfs 2048\n");
    let view = bench
        .runtime
        .images()
        .view_layers(&built.config.rootfs.diff_ids)?;
    assert!(view.metadata("t")?.is_none());
    Ok(())
}

fn targets() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM scratch AS One\nLABEL stage=1\nFROM one AS two\nLABEL stage=2\nFROM TWO\nLABEL stage=3\n",
    )?;
    for (target, label) in [
        ("one", "1"),
        ("ONE", "1"),
        ("Two", "2"),
        ("0", "1"),
        ("1", "2"),
        ("2", "3"),
    ] {
        let (built, _) = bench.build(|builder| builder.target(target))?;
        assert_eq!(built.config.config.labels["stage"], label, "{target}");
    }
    assert_eq!(
        bench.build(|builder| builder)?.0.config.config.labels["stage"],
        "3"
    );
    match bench.fails(|builder| builder.target("three"))? {
        BuildError::NoSuchTarget { name, stages } => {
            assert_eq!((name.as_str(), stages.join(" ")), ("three", "one two".to_owned()));
        }
        other => return Err(other.into()),
    }
    Ok(())
}

fn digests() -> Tested {
    let bench = Bench::new()?;
    let image = bench.runtime.images().get("base")?.ok_or("no base")?;
    let digest = image.manifest_digest();
    // A tag beside a digest is for people.
    for name in [format!("base@{digest}"), format!("base:gone@{digest}")] {
        bench.file(
            "Dockerfile",
            &format!("FROM {name}\nCOPY --from={name} /etc/passwd /copied\n"),
        )?;
        let (built, _) = bench.build(|builder| builder.pull(rdock_build::PullPolicy::Never))?;
        assert_eq!(
            bench.read(&built, "copied")?,
            bench.read(&built, "etc/passwd")?,
            "{name}"
        );
    }
    Ok(())
}

/// A tar of these files.
fn archive(files: &[(&str, &str)]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text.as_bytes())?;
    }
    tar.into_inner()
}

fn compressed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(bytes)?;
    gzip.finish()
}

/// Serves `files` by path until the test ends.
fn serve(files: Vec<(&'static str, Vec<u8>)>) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            let _ = lines.find(String::is_empty);
            let path = first.split(' ').nth(1).unwrap_or_default();
            let (status, bytes) = match files.iter().find(|(name, _)| *name == path) {
                Some((_, bytes)) => ("200 OK", &bytes[..]),
                None => ("404 Not Found", &[][..]),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                bytes.len()
            );
            // A client that has gone away needs no answer.
            let _ = stream.write_all(&[head.as_bytes(), bytes].concat());
        }
    });
    Ok(address)
}

fn contexts() -> Tested {
    let bench = Bench::new()?;
    let tar = archive(&[
        ("Dockerfile", "FROM base\nCOPY . /all/\nRUN cat /all/f > /g\n"),
        ("other/File", "FROM base\nCOPY f /only\n"),
        (".dockerignore", "hidden\n"),
        ("f", "text"),
        ("hidden", "secret"),
    ])?;
    let gzip = compressed(&tar)?;
    let text = b"FROM base\nRUN echo made > /made\n".to_vec();
    let address = serve(vec![
        ("/context.tar", tar.clone()),
        ("/context", gzip.clone()),
        ("/Dockerfile", text),
    ])?;
    let build = |context: Context, path: Option<&str>| {
        let builder = Builder::from_context(context).network(NetworkMode::None);
        bench.build_with(match path {
            Some(path) => builder.dockerfile(path),
            None => builder,
        })
    };
    let url = |path: &str| Context::Url(format!("{address}{path}"));
    for (number, context) in [
        Context::archive(std::io::Cursor::new(tar.clone())),
        Context::archive(std::io::Cursor::new(gzip)),
        url("/context.tar"),
        url("/context"),
    ]
    .into_iter()
    .enumerate()
    {
        let (built, seen) = build(context, None)?;
        assert_eq!(bench.read(&built, "g")?, "text", "{number}");
        assert!(bench.read(&built, "all/hidden").is_err(), "{number}");
        // The same files are the same steps, wherever they were unpacked.
        assert_eq!(seen.ran(), if number == 0 { 2 } else { 0 }, "{number}");
    }
    let (built, _) = build(url("/context"), Some("other/File"))?;
    assert_eq!(bench.read(&built, "only")?, "text");
    // Where they were is nothing to remember: later builds find them elsewhere.
    let kept = || -> Tested<Vec<usize>> {
        let count =
            |name: &str| Ok(std::fs::read_dir(bench.runtime.root().join("build").join(name))?.count());
        ["files", "last"].into_iter().map(count).collect()
    };
    let before = kept()?;
    build(Context::archive(std::io::Cursor::new(tar)), None)?;
    assert_eq!(kept()?, before);
    let (built, _) = build(url("/Dockerfile"), None)?;
    assert_eq!(bench.read(&built, "made")?, "made\n");
    for (context, words) in [
        (url("/nowhere"), &["/nowhere", "404"][..]),
        (
            Context::Url("https://host.example/r.git#main:sub".to_owned()),
            &["git", "not supported yet"],
        ),
        (
            Context::Url("git@host.example:r".to_owned()),
            &["git", "not supported yet"],
        ),
        (Context::Url("http://127.0.0.1:1/x".to_owned()), &["127.0.0.1:1"]),
        (Context::archive(&b"no tar"[..]), &["context"]),
    ] {
        let error = bench.fails_with(Builder::from_context(context).network(NetworkMode::None))?;
        assert!(
            words.iter().all(|word| error.to_string().contains(word)),
            "{error}"
        );
    }
    bench.assert_clean()
}

fn unpacked() -> Tested {
    let bench = Bench::new()?;
    let tar = archive(&[("in/f", "text")])?;
    std::fs::write(bench.path("a.tar"), &tar)?;
    let address = serve(vec![("/b.tar", tar)])?;
    bench.file(
        "Dockerfile",
        &format!(
            "FROM scratch\nADD a.tar /local/\nADD --unpack=false a.tar /whole/\nCOPY a.tar /copied/\n\
             ADD {address}/b.tar /downloaded/\nADD --unpack=true {address}/b.tar /unpacked/\n"
        ),
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    for path in ["local/in/f", "unpacked/in/f"] {
        assert_eq!(bench.read(&built, path)?, "text", "{path}");
    }
    let view = bench
        .runtime
        .images()
        .view_layers(&built.config.rootfs.diff_ids)?;
    for path in ["whole/a.tar", "copied/a.tar", "downloaded/b.tar"] {
        let info = view.metadata(path)?.ok_or(path)?;
        assert!(info.size > 512, "{path}: {info:?}");
    }
    Ok(())
}

fn certificates() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN cat $(env | sed -n 's/^SSL_CERT_F[I]LE=//p') < /dev/null | wc -l > /lines\n",
    )?;
    let (built, _) = bench.build(|builder| builder.host_certificates(true))?;
    let bundle = std::path::Path::new("/etc/ssl/certs/ca-certificates.crt");
    if bundle.is_file() {
        let lines = std::fs::read_to_string(bundle)?.lines().count();
        assert_eq!(bench.read(&built, "lines")?.trim(), lines.to_string());
    }
    assert!(!serde_json::to_string(&built.config)?.contains("SSL_CERT_FILE"));
    let view = bench
        .runtime
        .images()
        .view_layers(&built.config.rootfs.diff_ids)?;
    assert!(view.metadata("run/rdock")?.is_none());
    assert!(holds(&bench.runtime.root().join("build"), b"SSL_CERT_FILE")?.is_none());
    // With or without them it is the same step.
    let (_, seen) = bench.build(|builder| builder)?;
    assert_eq!(seen.ran(), 0);
    Ok(())
}

fn pruned() -> Tested {
    let bench = Bench::new()?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN head -c 100000 /dev/zero > /a\nRUN head -c 100000 /dev/zero > /b\n",
    )?;
    // No image, which would keep its layers.
    let build = || bench.build(|builder| builder.output(Output::Nothing));
    build()?;
    let prune = |unused_for: Option<Duration>, keep_bytes: Option<u64>| {
        let filter = CacheFilter {
            unused_for,
            keep_bytes,
            ..CacheFilter::default()
        };
        Builder::prune(&bench.runtime, &filter)
    };
    // Nothing is so old, and everything fits.
    assert!(prune(Some(Duration::from_secs(3600)), None)?.entries.is_empty());
    assert!(prune(None, Some(1 << 40))?.entries.is_empty());
    assert_eq!(build()?.1.ran(), 0);
    // One of the two fits.
    let removed = prune(None, Some(150_000))?;
    assert!(
        !removed.entries.is_empty() && removed.bytes >= 100_000,
        "{removed:?}"
    );
    let left = Builder::cache_usage(&bench.runtime)?;
    assert!(left.bytes <= 150_000 && !left.entries.is_empty(), "{left:?}");
    assert!(!prune(Some(Duration::ZERO), None)?.entries.is_empty());
    assert!(Builder::cache_usage(&bench.runtime)?.entries.is_empty());
    Ok(())
}

fn platforms() -> Tested {
    let bench = Bench::new()?;
    let host = rdock_image::Platform::host();
    let foreign: rdock_image::Platform = "linux/riscv64".parse()?;
    bench.file("Dockerfile", "FROM base\nRUN true\n")?;
    bench.build(|builder| builder.platform(host.clone()))?;
    let (error, seen) = bench.fails_seen(|builder| builder.platform(foreign.clone()).no_cache(true))?;
    assert!(error.to_string().contains("linux/riscv64"), "{error}");
    assert_eq!(seen.ran(), 0);
    bench.file(
        "Dockerfile",
        "FROM --platform=$BUILDPLATFORM base AS one\nRUN true\nFROM --platform=linux/riscv64 base\nCOPY --from=one /etc/passwd /p\n",
    )?;
    let (error, seen) = bench.fails_seen(|builder| builder.no_cache(true))?;
    let text = error.to_string();
    assert!(
        text.contains("Dockerfile:3") && text.contains("FROM") && text.contains("riscv64"),
        "{text}"
    );
    assert_eq!(seen.ran(), 0);
    Ok(())
}

fn epochs() -> Tested {
    let bench = Bench::new()?;
    let created = |change: &dyn Fn(Builder) -> Builder| -> Tested<String> {
        let (built, _) = bench.build(change)?;
        Ok(built.config.created.unwrap_or_default())
    };
    bench.file("Dockerfile", "FROM base\nRUN echo x > /x\n")?;
    let argument = |builder: Builder| builder.build_arg("SOURCE_DATE_EPOCH", "1000000000");
    assert_eq!(created(&argument)?, "2001-09-09T01:46:40Z");
    // The argument is the last word.
    assert_eq!(
        created(&|builder| argument(builder.source_date_epoch(5)))?,
        "2001-09-09T01:46:40Z"
    );
    bench.file(
        "Dockerfile",
        "ARG SOURCE_DATE_EPOCH=100\nFROM base\nRUN echo x > /x\n",
    )?;
    assert_eq!(created(&|builder| builder)?, "1970-01-01T00:01:40Z");
    assert_eq!(
        created(&|builder| builder.source_date_epoch(5))?,
        "1970-01-01T00:00:05Z"
    );
    assert_eq!(created(&argument)?, "2001-09-09T01:46:40Z");
    let error = bench.fails(|builder| builder.build_arg("SOURCE_DATE_EPOCH", "today"))?;
    assert!(error.to_string().contains("SOURCE_DATE_EPOCH"), "{error}");
    Ok(())
}
