//! Copies out of and into containers that want something of the host.

use super::{both, kept, text, up};
use crate::probe::{Place, dir, file, link, probe};
use crate::{Tested, same};
use rdock_runtime::{Container, CopyOptions, blocking};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use tokio::io::AsyncReadExt;

/// Links of the image that lead out of it, on the way and at the end, for reading and writing.
pub(super) fn links() -> Tested {
    let canary = tempfile::tempdir()?;
    std::fs::write(canary.path().join("secret"), "of the host")?;
    let target = canary.path().display().to_string();
    let climbing = format!("../../../../../../../..{target}");
    let host_file = format!("{target}/secret");
    let place = Place::with(
        "{}",
        &[
            link("absolute", &target),
            link("climbing", &climbing),
            link("secret", &host_file),
            link("proc-root", "/proc/self/root"),
            link("proc-cwd", "/proc/1/cwd"),
            dir("tree", 0o755),
            link("tree/absolute", &target),
        ],
    )?;
    let here = tempfile::tempdir()?;
    std::fs::write(here.path().join("new"), "x")?;
    std::fs::create_dir_all(here.path().join("deep/absolute"))?;
    std::fs::write(here.path().join("deep/absolute/new"), "x")?;
    both(&place, &kept()?, async |container: &Container| {
        let options = CopyOptions::default();
        let follow = options.follow_link(true);
        let out = here.path().join("out");
        for path in [
            "/absolute/secret",
            "/climbing/secret",
            "/secret",
            "/absolute/",
            "/proc-root/etc/passwd",
            "/proc-cwd/etc/passwd",
        ] {
            if container.copy_from(path, &out, &follow).await.is_ok() {
                // Only what is inside may be there.
                let read = std::fs::read_to_string(&out).unwrap_or_default();
                same(&read.contains("of the host"), &false).map_err(|error| format!("{path}: {error}"))?;
                std::fs::remove_dir_all(&out).or_else(|_| std::fs::remove_file(&out))?;
            }
        }
        for path in [
            "/absolute/new",
            "/absolute",
            "/climbing/new",
            "/secret",
            "/proc-root/new",
            "/tree/absolute/new",
        ] {
            container
                .copy_to(here.path().join("new"), path, &options)
                .await
                .ok();
        }
        container
            .copy_to(here.path().join("deep/."), "/tree", &options)
            .await
            .ok();
        same(&std::fs::read_dir(canary.path())?.count(), &1)?;
        same(&text(canary.path().join("secret"))?.as_str(), &"of the host")?;
        // A tree with links is copied as links.
        container.copy_from("/tree", &out, &options).await?;
        same(
            &std::fs::symlink_metadata(out.join("absolute"))?.is_symlink(),
            &true,
        )?;
        // A second copy over it replaces the link, and does not go through it.
        container
            .copy_from("/tree", out.parent().ok_or("no parent")?, &options)
            .await?;
        std::fs::remove_dir_all(&out)?;
        std::fs::remove_dir_all(here.path().join("tree"))?;
        same(&std::fs::read_dir(canary.path())?.count(), &1)
    })
}

/// A container that swaps directories for links while it is copied from and into.
pub(super) fn race() -> Tested {
    let canary = tempfile::tempdir()?;
    // Two levels, so that the link does not become good inside by a copy through it.
    let canary_dir = canary.path().join("inner");
    std::fs::create_dir(&canary_dir)?;
    std::fs::write(canary_dir.join("file"), "of the host")?;
    std::fs::set_permissions(&canary_dir, std::fs::Permissions::from_mode(0o700))?;
    let before = std::fs::metadata(&canary_dir)?;
    let target = canary_dir.display().to_string();
    let place = Place::with("{}", &[dir("scratch", 0o755)])?;
    // It exchanges `at` and `link` without end; both are of its own layer, since overlayfs renames no other directory.
    let link = format!("symlink {target} /scratch/link");
    let lines = [
        "mkdir /scratch/at",
        "write /scratch/at/file of the container",
        &link,
        "say up",
        "swap /scratch/at /scratch/link",
    ];
    let mut spec = probe(&lines)?;
    spec.name = Some("swapper".into());
    let here = tempfile::tempdir()?;
    std::fs::create_dir(here.path().join("in"))?;
    std::fs::write(here.path().join("in/file"), "new")?;
    std::fs::write(here.path().join("in/other"), "new")?;
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        up(&container).await?;
        let options = CopyOptions::default();
        let (mut done, mut refused) = (0, 0);
        let mut count = |copied: bool| match copied {
            true => done += 1,
            false => refused += 1,
        };
        for round in 0..500 {
            let out = here.path().join("out");
            for path in ["/scratch/at/file", "/scratch/at/"] {
                let copied = container.copy_from(path, &out, &options).await;
                count(copied.is_ok());
                let found = [out.clone(), out.join("file")];
                for path in found.iter().filter(|path| path.is_file()) {
                    let read = text(path)?;
                    same(&read.contains("of the host"), &false)
                        .map_err(|error| format!("round {round}: {error}"))?;
                }
                if out.is_dir() {
                    std::fs::remove_dir_all(&out)?;
                } else if out.exists() {
                    std::fs::remove_file(&out)?;
                }
            }
            for path in ["/scratch/at", "/scratch/at/file"] {
                let from = if path.ends_with("at") { "in/." } else { "in/file" };
                count(
                    container
                        .copy_to(here.path().join(from), path, &options)
                        .await
                        .is_ok(),
                );
            }
            let mut archive = container.archive("/scratch", &options).await?;
            let mut bytes = Vec::new();
            archive.read_to_end(&mut bytes).await.ok();
            same(&bytes.windows(11).any(|window| window == b"of the host"), &false)?;
        }
        same(&container.status()?, &rdock_runtime::Status::Running)?;
        container.remove().await?;
        // Both outcomes were met, or nothing was raced.
        same(&(done > 100 && refused > 10), &true)
            .map_err(|_| format!("{done} copied, {refused} refused"))?;
        same(&std::fs::read_dir(&canary_dir)?.count(), &1)?;
        same(&text(canary_dir.join("file"))?.as_str(), &"of the host")?;
        let after = std::fs::metadata(&canary_dir)?;
        same(
            &(
                after.mode(),
                after.uid(),
                after.mtime(),
                after.ctime(),
                after.ctime_nsec(),
            ),
            &(
                before.mode(),
                before.uid(),
                before.mtime(),
                before.ctime(),
                before.ctime_nsec(),
            ),
        )
    })?
}

/// Programs, libraries and configuration of the container that a careless copy would run or load.
pub(super) fn no_code() -> Tested {
    // The program that would say that it ran; it writes into a directory of the host that is bound.
    let trap = "#!/ran\n";
    let place = Place::with(
        "{}",
        &[
            dir("bin", 0o755),
            dir("usr", 0o755),
            dir("usr/bin", 0o755),
            file("bin/tar", 0o755, trap),
            file("bin/gzip", 0o755, trap),
            file("usr/bin/unpigz", 0o755, trap),
            file("usr/bin/xz", 0o755, trap),
            file("etc/nsswitch.conf", 0o644, "passwd: hostile\ngroup: hostile\n"),
            file("etc/ld.so.preload", 0o644, "/hostile.so\n"),
            file("hostile.so", 0o755, "\u{7f}ELF"),
            file(
                "etc/passwd",
                0o644,
                "root:x:0:0::/:/bin/sh\nworker:x:0:0::/:/bin/sh\n",
            ),
        ],
    )?;
    let spec = kept()?.user(if rustix::process::geteuid().is_root() {
        "worker"
    } else {
        ""
    });
    let here = tempfile::tempdir()?;
    std::fs::write(here.path().join("new"), "x")?;
    // Compressed input is inflated here, although the container brings its own programs for that.
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o644);
    builder.append_data(&mut header, "inflated", &b"x"[..])?;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &builder.into_inner()?)?;
    let gzip = gzip.finish()?;
    let libraries = mapped()?;
    // Reading the access time of each trap shows whether anybody opened it.
    both(&place, &spec, async |container: &Container| {
        let options = CopyOptions::default().archive(true);
        container
            .copy_to(here.path().join("new"), "/tmp/new", &options)
            .await?;
        container.extract("/tmp", &gzip[..], &options).await?;
        same(&container.stat("/tmp/inflated").await?.size, &1)?;
        container
            .copy_from("/bin", here.path().join("out"), &options)
            .await?;
        std::fs::remove_dir_all(here.path().join("out"))?;
        // No process but this one, the helpers and the payload: all children of helpers are inside pid namespaces, so
        // whatever was executed would have been executed by this process.
        same(&mapped()?, &libraries)
    })?;
    // And no child of this program has executed anything but the helper. One that is just being made for another test
    // still is this program, and one that has ended meanwhile has no program at all.
    let own = std::fs::read_link("/proc/self/exe")?;
    for task in std::fs::read_dir("/proc/self/task")? {
        let children = text(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            let Ok(program) = std::fs::read_link(format!("/proc/{child}/exe")) else {
                continue;
            };
            if program != own && !program.to_string_lossy().starts_with("/memfd:rdock-helper") {
                return Err(format!("a child runs {}", program.display()).into());
            }
        }
    }
    Ok(())
}

/// Files that are mapped executable in this process.
fn mapped() -> Tested<Vec<String>> {
    let mut all = String::new();
    std::fs::File::open("/proc/self/maps")?.read_to_string(&mut all)?;
    let mut files: Vec<String> = all
        .lines()
        .filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.contains('x')))
        .filter_map(|line| line.split_whitespace().nth(5).map(str::to_owned))
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}
