//! What copies in and out of containers promise.

mod hostile;

use crate::probe::{Place, file, probe};
use crate::{Cannot, Tested, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{Container, CopyOptions, Error, FilesError, Mount, blocking};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use tokio::io::AsyncReadExt;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("files_are_copied_out_and_in_while_a_container_runs", running),
        trial("files_of_a_stopped_container_are_copied", stopped),
        trial("an_archive_of_a_path_is_unpacked_elsewhere", archives),
        trial("owners_and_modes_of_copies", owners),
        trial("what_a_copy_cannot_do_is_a_typed_error", refusals),
        trial("rt_cp_symlink_race_links_of_the_container", hostile::links),
        trial("rt_cp_symlink_race", hostile::race),
        trial("rt_cp_no_container_code", hostile::no_code),
    ]
}

fn kept() -> Tested<rdock_runtime::ContainerSpec> {
    probe(&["say up", "sleep 600000"])
}

/// Waits until the probe has said so.
async fn up(container: &Container) -> Tested {
    let mut logs = container.logs().follow(true);
    while let Some(line) = logs.next().await? {
        if line.bytes.starts_with(b"up") {
            return Ok(());
        }
    }
    Err("it ended early".into())
}

/// Has `test` look at a running container, and then at the same one when its payload has ended.
fn both(
    place: &Place,
    spec: &rdock_runtime::ContainerSpec,
    test: impl AsyncFn(&Container) -> Tested,
) -> Tested {
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        up(&container).await?;
        test(&container)
            .await
            .map_err(|error| format!("running: {error}"))?;
        container.stop(Some(std::time::Duration::ZERO)).await?;
        let stopped = test(&container)
            .await
            .map_err(|error| format!("stopped: {error}").into());
        container.remove().await?;
        stopped
    })?
}

fn text(path: impl AsRef<Path>) -> Tested<String> {
    Ok(std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.as_ref().display()))?)
}

fn running() -> Tested {
    let place = Place::new()?;
    let here = tempfile::tempdir()?;
    let bound = tempfile::tempdir()?;
    std::fs::create_dir_all(here.path().join("tree/below"))?;
    std::fs::write(here.path().join("tree/one"), "1")?;
    std::fs::write(here.path().join("tree/below/two"), "2")?;
    std::fs::hard_link(here.path().join("tree/one"), here.path().join("tree/same"))?;
    symlink("below/two", here.path().join("tree/link"))?;
    let spec = kept()?
        .mount(Mount::volume("data", "/data"))
        .mount(Mount::bind(bound.path(), "/bound"))
        .mount(Mount::tmpfs("/memory"));
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        up(&container).await?;
        let options = CopyOptions::default();
        let at = |path: &str| here.path().join(path);
        // In: as a name, into a directory, contents alone, over a file.
        container.copy_to(at("tree"), "/seed", &options).await?;
        container.copy_to(at("tree"), "/new", &options).await?;
        container.copy_to(at("tree/."), "/tmp/", &options).await?;
        container
            .copy_to(at("tree/below/two"), "/seed/file", &options)
            .await?;
        container.copy_to(at("tree/one"), "/data/one", &options).await?;
        container.copy_to(at("tree/one"), "/bound", &options).await?;
        container.copy_to(at("tree/one"), "/memory/one", &options).await?;
        let exec = container
            .exec(["/test"])
            .env("PROBE", "list /seed\nlist /seed/tree\ncat /seed/tree/below/two\nlink /new/link\ncat /tmp/same\ncat /seed/file\ncat /memory/one");
        let output = exec.output().await?;
        same(
            &String::from_utf8_lossy(&output.stdout)
                .lines()
                .collect::<Vec<_>>(),
            &vec![
                "below file tree",
                "below link one same",
                "2",
                "below/two",
                "1",
                "2",
                "1",
            ],
        )?;
        same(&text(bound.path().join("one"))?.as_str(), &"1")?;
        let volume = place.runtime.volumes().get("data")?;
        same(&text(volume.mountpoint.join("one"))?.as_str(), &"1")?;
        // Out again.
        container.copy_from("/new", at("out"), &options).await?;
        same(&text(at("out/below/two"))?.as_str(), &"2")?;
        let (one, other) = (
            std::fs::metadata(at("out/one"))?,
            std::fs::metadata(at("out/same"))?,
        );
        same(&one.ino(), &other.ino())?;
        same(
            &std::fs::read_link(at("out/link"))?.as_path(),
            &Path::new("below/two"),
        )?;
        container.copy_from("/new/link", at("as-link"), &options).await?;
        same(
            &std::fs::read_link(at("as-link"))?.as_path(),
            &Path::new("below/two"),
        )?;
        container
            .copy_from("/new/link", at("as-file"), &options.follow_link(true))
            .await?;
        same(&text(at("as-file"))?.as_str(), &"2")?;
        container
            .copy_from("/memory/one", at("out/below/"), &options)
            .await?;
        same(&text(at("out/below/one"))?.as_str(), &"1")?;
        // What procfs makes when it is read has its contents.
        container
            .copy_from("/proc/version", at("version"), &options)
            .await?;
        same(&text(at("version"))?, &text("/proc/version")?)?;
        container.remove().await?;
        Ok(())
    })?
}

fn stopped() -> Tested {
    let place = Place::new()?;
    let here = tempfile::tempdir()?;
    std::fs::write(here.path().join("in"), "put in")?;
    let spec = probe(&[
        "write /seed/made by it",
        "remove /seed/below/deep",
        "write /data/x volume",
        "say up",
        "sleep 600000",
    ])?
    .mount(Mount::volume("data", "/data"));
    let spec = spec.mount(Mount::volume("data", "/locked").read_only());
    both(&place, &spec, async |container: &Container| {
        let options = CopyOptions::default();
        let out = here.path().join("out");
        container.copy_from("/seed", &out, &options).await?;
        same(&text(out.join("made"))?.as_str(), &"by it")?;
        same(&out.join("below/deep").exists(), &false)?;
        container.copy_from("/data/x", &out, &options).await?;
        same(&text(out.join("x"))?.as_str(), &"volume")?;
        std::fs::remove_dir_all(&out)?;
        container
            .copy_to(here.path().join("in"), "/seed/in", &options)
            .await?;
        container
            .copy_to(here.path().join("in"), "/data/in", &options)
            .await?;
        let stat = container.stat("/seed/in").await?;
        same(&(stat.size, stat.name.as_str()), &(6, "in"))?;
        match container
            .copy_to(here.path().join("in"), "/locked/in", &options)
            .await
        {
            Err(Error::Files(FilesError::Io { source, .. })) => {
                same(&source.kind(), &std::io::ErrorKind::ReadOnlyFilesystem)
            }
            other => Err(format!("{other:?}").into()),
        }
    })?;
    let volume = place.runtime.volumes().get("data")?;
    same(&text(volume.mountpoint.join("in"))?.as_str(), &"put in")
}

fn archives() -> Tested {
    let place = Place::new()?;
    let filled = tempfile::tempdir()?;
    let spec = kept()?.mount(Mount::bind(filled.path(), "/filled"));
    both(&place, &spec, async |container: &Container| {
        let mut bytes = Vec::new();
        let options = CopyOptions::default();
        let mut archive = container.archive("/seed", &options).await?;
        same(&archive.stat().is_some_and(|stat| stat.is_dir()), &true)?;
        archive.read_to_end(&mut bytes).await?;
        let mut names = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries()? {
            names.push(entry?.path()?.display().to_string());
        }
        same(
            &names,
            &["seed/", "seed/below/", "seed/below/deep", "seed/file"]
                .map(String::from)
                .to_vec(),
        )?;
        let copied = container.extract("/tmp", &bytes[..], &options).await?;
        same(&copied.bytes, &(bytes.len() as u64))?;
        same(&container.stat("/tmp/seed/below/deep").await?.size, &5)?;
        // Compressed, and behind it something that is no archive any more.
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &bytes)?;
        let gzip = gzip.finish()?;
        container.extract("/filled", &gzip[..], &options).await?;
        same(&container.stat("/filled/seed/file").await?.size, &15)?;
        container
            .extract("/tmp", &b"not a tar at all"[..], &options)
            .await
            .err()
            .ok_or("unpacked")?;
        // Dropped on the way it ends.
        drop(container.archive("/", &options).await?);
        let mut archive = container.archive("/seed/below/deep", &options).await?;
        let mut first = [0; 512];
        archive.read_exact(&mut first).await?;
        same(&&first[..5], &b"deep\0")?;
        Ok(())
    })
}

fn owners() -> Tested {
    let root = rustix::process::geteuid().is_root();
    let place = Place::with(
        r#"{"User":"worker"}"#,
        &[
            file(
                "etc/passwd",
                0o644,
                "root:x:0:0::/root:/bin/sh\nworker:x:1234:77::/:/bin/sh\n",
            ),
            file("suid", 0o4755, "x"),
        ],
    )?;
    let here = tempfile::tempdir()?;
    let at = |path: &str| here.path().join(path);
    std::fs::write(at("mine"), "x")?;
    std::fs::set_permissions(at("mine"), std::fs::Permissions::from_mode(0o640))?;
    if root {
        std::os::unix::fs::chown(at("mine"), Some(501), Some(502))?;
    }
    let spec = kept()?.user(if root { "0" } else { "" });
    both(&place, &spec, async |container: &Container| {
        let plain = CopyOptions::default();
        container.copy_to(at("mine"), "/tmp/plain", &plain).await?;
        container
            .copy_to(at("mine"), "/tmp/archive", &plain.archive(true))
            .await?;
        let who = async |path: &str| {
            let stat = container.stat(path).await?;
            Ok::<_, Error>((stat.uid, stat.gid, stat.mode & 0o7777))
        };
        match root {
            true => {
                same(&who("/tmp/plain").await?, &(501, 502, 0o640))?;
                // Its spec names root.
                same(&who("/tmp/archive").await?, &(0, 0, 0o640))?;
            }
            // A single id: everything belongs to root inside.
            false => same(&who("/tmp/plain").await?, &(0, 0, 0o640))?,
        }
        container.copy_from("/suid", at("out"), &plain).await?;
        let meta = std::fs::metadata(at("out"))?;
        same(
            &(meta.mode() & 0o7777, meta.uid()),
            &(0o755, rustix::process::geteuid().as_raw()),
        )?;
        container
            .copy_from("/suid", at("out"), &plain.archive(true))
            .await?;
        same(&(std::fs::metadata(at("out"))?.mode() & 0o7777), &0o4755)?;
        std::fs::remove_file(at("out"))?;
        Ok(())
    })?;
    if !root {
        return Err(Cannot("needs root: only then there are users other than 0".into()).into());
    }
    // The image's own user, by its name in the image.
    blocking::wait(async {
        let mut spec = kept()?;
        spec.user = None;
        let container = spec.start(&place.runtime).await?;
        container
            .copy_to(at("mine"), "/tmp/of-user", &CopyOptions::default().archive(true))
            .await?;
        let stat = container.stat("/tmp/of-user").await?;
        container.remove().await?;
        same(&(stat.uid, stat.gid), &(1234, 77))
    })?
}

fn refusals() -> Tested {
    let place = Place::new()?;
    let here = tempfile::tempdir()?;
    let at = |path: &str| here.path().join(path);
    std::fs::write(at("file"), "x")?;
    std::fs::create_dir(at("dir"))?;
    let mut spec = kept()?;
    spec.read_only = true;
    let options = CopyOptions::default();
    both(&place, &kept()?, async |container: &Container| {
        let message = async |from: &str, to: &str| match to.strip_prefix("c:") {
            Some(to) => container
                .copy_to(at(from), to, &options)
                .await
                .err()
                .map(|error| error.to_string()),
            None => container
                .copy_from(from, at(to), &options)
                .await
                .err()
                .map(|error| error.to_string()),
        };
        for (from, to, words) in [
            ("none", "c:/tmp", "no such file or directory"),
            ("file/", "c:/tmp", "is not a directory"),
            ("file", "c:/none/x", "has no /none"),
            ("file", "c:/tmp/new/", "does not exist"),
            ("dir", "c:/seed/file", "cannot overwrite non-directory"),
            ("file", "c:/seed/file/", "is not a directory"),
            ("/none", "out", "has no /none"),
            ("/seed/file/", "out", "is not a directory"),
            ("/seed", "file", "cannot overwrite non-directory"),
            ("/seed/file", "none/x", "no such file or directory"),
        ] {
            let found = message(from, to).await.unwrap_or_default();
            if !found.contains(words) {
                return Err(format!("{from} to {to}: {found:?} has no {words:?}").into());
            }
        }
        // Kinds that differ below the destination.
        std::fs::create_dir_all(at("below/below"))?;
        std::fs::write(at("below/file"), "x")?;
        container.copy_to(at("below/."), "/seed", &options).await?;
        std::fs::remove_file(at("below/file"))?;
        std::fs::create_dir(at("below/file"))?;
        match container.copy_to(at("below/."), "/seed", &options).await {
            Err(Error::Files(FilesError::KindsDiffer {
                path,
                directory: false,
            })) => {
                same(&path.ends_with(":/seed/file"), &true)?;
            }
            other => return Err(format!("{other:?}").into()),
        }
        std::fs::remove_dir_all(at("below"))?;
        // A member that climbs.
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..9].copy_from_slice(b"../escape");
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, std::io::empty())?;
        match container
            .extract("/tmp", &builder.into_inner()?[..], &options)
            .await
        {
            Err(Error::Files(FilesError::Escapes { name })) => same(&name.as_str(), &"../escape"),
            other => Err(format!("{other:?}").into()),
        }
    })?;
    both(&place, &spec, async |container: &Container| {
        match container.copy_to(at("file"), "/tmp", &options).await {
            Err(Error::Files(FilesError::Io { source, .. })) => {
                same(&source.kind(), &std::io::ErrorKind::ReadOnlyFilesystem)
            }
            other => Err(format!("{other:?}").into()),
        }
    })?;
    blocking::wait(async {
        let container = kept()?.start(&place.runtime).await?;
        let handle = place.runtime.container(container.id())?;
        container.remove().await?;
        match handle.copy_from("/seed", at("out"), &options).await {
            Err(_) => same(&at("out").exists(), &false),
            Ok(copied) => Err(format!("{copied:?}").into()),
        }
    })?
}
