//! What secrets promise: the container has them, and nobody else.

use crate::probe::{Entry, Place, dir, file, link, probe};
use crate::{Tested, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{CommitOptions, Container, Error, Secret, blocking};
use std::path::Path;
use std::time::Duration;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("secrets_are_files_and_variables_of_a_container", scoped),
        trial(
            "secrets_of_a_detached_container_are_there_after_a_restart",
            detached,
        ),
        trial("rt_state_dir_perms_values_of_secrets", permissions),
        trial("what_a_secret_cannot_be_is_a_typed_error", refusals),
        trial(
            "rt_mount_source_in_root_secrets_and_configs_of_a_running_container",
            in_root,
        ),
        trial(
            "rt_mount_source_in_root_secrets_and_configs_of_a_stopped_container",
            in_root_later,
        ),
    ]
}

const NEEDLE: &str = "hunter2-unlikely-to-be-anywhere-else";

/// Fails when a file below `dir` holds the needle.
fn nowhere(dir: &Path) -> Tested {
    let mut pending = vec![dir.to_owned()];
    let mut files = 0;
    while let Some(dir) = pending.pop() {
        let entries = match std::fs::read_dir(&dir) {
            // Where overlayfs works is closed to everybody but root.
            Err(error)
                if error.kind() == std::io::ErrorKind::PermissionDenied && dir.ends_with("work/work") =>
            {
                continue;
            }
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                files += 1;
                let bytes = std::fs::read(entry.path())?;
                if bytes
                    .windows(NEEDLE.len())
                    .any(|window| window == NEEDLE.as_bytes())
                {
                    return Err(format!("{} holds the secret", entry.path().display()).into());
                }
            }
        }
    }
    same(&(files > 5), &true)
}

fn secrets() -> Tested<rdock_runtime::ContainerSpec> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), NEEDLE)?;
    let spec = probe(&["say up", "sleep 600000"])?
        .secret(Secret::bytes("plain", NEEDLE))
        .secret(
            Secret::file("from-file", file.path())
                .at("/etc/app/key")
                .mode(0o400),
        )
        .secret(Secret::bytes("variable", NEEDLE).variable("THE_SECRET"))
        .config(Secret::bytes("app.conf", format!("# {NEEDLE}\n")));
    // It is read when the container is made, so the file must be there until then.
    std::mem::forget(file);
    Ok(spec)
}

/// What the container sees, by a process of its own.
async fn sees(container: &Container) -> Tested {
    let lines = [
        "cat /run/secrets/plain",
        "stat /run/secrets/plain",
        "cat /etc/app/key",
        "stat /etc/app/key",
        "cat /app.conf",
        "write /run/secrets/plain no",
        "kind /app.conf",
        "list /run/secrets",
    ];
    let exec = container.exec(["/test"]).env("PROBE", lines.join("\n"));
    let output = exec.output().await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let whole = format!("# {NEEDLE}");
    same(
        &said.lines().collect::<Vec<_>>(),
        &vec![
            NEEDLE,
            "100444 0:0",
            NEEDLE,
            "100400 0:0",
            &whole,
            "errno 30",
            "1021994",
            "plain",
        ],
    )?;
    let output = container.exec(["/test"]).env("PROBE", "env").output().await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    same(&said.contains(&format!("THE_SECRET={NEEDLE};")), &true)
}

async fn up(container: &Container) -> Tested {
    let mut logs = container.logs().follow(true);
    while let Some(line) = logs.next().await? {
        if line.bytes.starts_with(b"up") {
            return Ok(());
        }
    }
    Err("it ended early".into())
}

fn shown_nowhere(container: &Container) -> Tested {
    let info = container.inspect()?;
    for text in [format!("{info:?}"), serde_json::to_string(&info)?] {
        same(&text.contains(NEEDLE), &false)?;
        same(&text.contains("from-file"), &true)?;
    }
    Ok(())
}

fn scoped() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let container = secrets()?.start(&place.runtime).await?;
        up(&container).await?;
        sees(&container).await?;
        shown_nowhere(&container)?;
        nowhere(place.root.path())?;
        // Neither a list of changes nor an image has more than the container's own files.
        let changes = container.changes().await?;
        same(&changes.len(), &0).map_err(|error| format!("{changes:?}: {error}"))?;
        let image = container.commit(&CommitOptions::default()).await?;
        same(
            &image.config().history.last().map(|last| last.empty_layer),
            &Some(true),
        )?;
        nowhere(place.root.path())?;
        container.remove().await?;
        nowhere(place.root.path())
    })?
}

fn detached() -> Tested {
    let place = Place::new()?;
    let marks = kept_for(&place)?;
    blocking::wait(async {
        let container = secrets()?.name("keeper").start_detached(&place.runtime).await?;
        let tested = async {
            up(&container).await?;
            sees(&container).await?;
            shown_nowhere(&container)?;
            nowhere(place.root.path())?;
            same(&marks.iter().any(|mark| mark.exists()), &true)?;
            // Again by its monitor, and by a new one.
            container.restart(Some(Duration::ZERO)).await?;
            sees(&container).await?;
            container.stop(Some(Duration::ZERO)).await?;
            let found = place.runtime.container("keeper")?;
            found.start().await?;
            sees(&found).await?;
            nowhere(place.root.path())
        };
        let tested = tested.await;
        container.remove_with(true, true).await?;
        tested?;
        same(&marks.iter().any(|mark| mark.exists()), &false)?;
        // Made, and started later.
        let container = secrets()?.create(&place.runtime).await?;
        let tested = async {
            nowhere(place.root.path())?;
            place.runtime.container(container.id())?.start().await?;
            sees(&container).await?;
            // What is gone from memory is said, and nothing runs without it.
            container.stop(Some(Duration::ZERO)).await?;
            for mark in &marks {
                std::fs::remove_dir_all(mark).ok();
            }
            match container.start().await {
                Err(error) if crate::chain(&error).contains("secret plain") => Ok(()),
                other => Err(format!("{other:?}").into()),
            }
        };
        let tested = tested.await;
        container.remove_with(true, true).await?;
        tested
    })?
}

/// Where the secrets of a root may be kept.
fn kept_for(place: &Place) -> Tested<Vec<std::path::PathBuf>> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(place.root.path().join("containers"))?;
    let user = rustix::process::geteuid().as_raw();
    let own = format!("{:x}-{:x}", meta.dev(), meta.ino());
    Ok([
        "/run".to_owned(),
        format!("/run/user/{user}"),
        "/dev/shm".to_owned(),
    ]
    .iter()
    .map(|memory| Path::new(memory).join(format!("rdock-{user}")).join(&own))
    .collect())
}

/// Other users of the host may not even list what is kept.
fn permissions() -> Tested {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new()?;
    let marks = kept_for(&place)?;
    blocking::wait(async {
        let container = secrets()?.create(&place.runtime).await?;
        let tested = (|| {
            let kept = marks.iter().find(|mark| mark.exists()).ok_or("nothing is kept")?;
            let user = rustix::process::geteuid().as_raw();
            let own = kept.join(container.id());
            for dir in [kept.parent().unwrap_or(kept), kept, own.as_path()] {
                let meta = std::fs::symlink_metadata(dir)?;
                same(
                    &(meta.is_dir(), meta.mode() & 0o7777, meta.uid()),
                    &(true, 0o700, user),
                )?;
            }
            for entry in std::fs::read_dir(&own)? {
                let meta = entry?.metadata()?;
                same(&(meta.mode() & 0o7777, meta.uid()), &(0o600, user))?;
            }
            same(&std::fs::read_dir(&own)?.count(), &5)
        })();
        container.remove_with(true, true).await?;
        tested
    })?
}

fn refusals() -> Tested {
    let place = Place::new()?;
    let refused = |secret: Secret| -> Tested<String> {
        match place.run(&probe(&["say up"])?.secret(secret)) {
            Ok((said, exit)) => Err(format!("it ran ({exit}): {said}").into()),
            Err(error) => match error.downcast_ref::<Error>() {
                Some(error @ (Error::Spec(_) | Error::Secret { .. } | Error::State { .. })) => {
                    Ok(error.to_string())
                }
                _ => Err(error),
            },
        }
    };
    for (secret, words) in [
        (Secret::bytes("", "x"), "is not a name"),
        (
            Secret::bytes("a", "x").at("/proc/version"),
            "file system of the kernel",
        ),
        (Secret::bytes("a", "x").at("/a/"), "absolute path"),
        (Secret::bytes("a", "x").mode(0o10000), "beyond 7777"),
        (Secret::bytes("a", "x").variable("A=B"), "name of a variable"),
        (Secret::bytes("a", "x\0").variable("A"), "NUL"),
        (Secret::bytes("a", vec![0; (1 << 20) + 1]), "longer than 1 MiB"),
        (Secret::bytes("a", "x").at("/etc/hosts"), "mounted twice"),
        (Secret::file("a", "/none/at/all"), "/none/at/all"),
        (
            Secret::environment("a", "RDOCK_TEST_NO_SUCH_VARIABLE"),
            "is not set",
        ),
    ] {
        let said = refused(secret)?;
        same(&said.contains(words), &true).map_err(|_| format!("{said:?} has no {words:?}"))?;
    }
    Ok(())
}

/// A directory of the host that links of images lead to, and what must be in it afterwards.
struct Canary(tempfile::TempDir);

impl Canary {
    fn new() -> Tested<Self> {
        let canary = Self(tempfile::tempdir()?);
        std::fs::write(canary.0.path().join("file"), "untouched")?;
        Ok(canary)
    }

    fn path(&self) -> Tested<&str> {
        Ok(self.0.path().to_str().ok_or("not UTF-8")?)
    }

    /// Nothing was made, written or mounted there.
    fn is_untouched(&self) -> Tested {
        let names: Vec<_> = std::fs::read_dir(self.0.path())?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<std::io::Result<_>>()?;
        same(&names, &vec!["file"])?;
        same(
            std::fs::read_to_string(self.0.path().join("file"))?.as_str(),
            "untouched",
        )?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        same(&mounts.contains(self.path()?), &false)
    }
}

/// Calls `test` with images whose links, where secrets and configs go, lead out of their root; beside each where the
/// values are seen inside.
fn hostile_images(canary: &str, test: impl Fn(&[Entry<'_>], &[String]) -> Tested) -> Tested {
    let below = canary.trim_start_matches('/');
    let climbing = format!("../../../../../../../../../..{canary}");
    let inside_file = format!("{below}/file");
    for (how, to) in [("absolute", canary), ("climbing", climbing.as_str())] {
        let leading = ["file", "conf", "key", "below/conf"].map(|name| format!("{to}/{name}"));
        // Where links lead may be in the image, or missing: it is made inside then.
        let present = vec![dir(below, 0o755), file(&inside_file, 0o644, "of the image")];
        for (there, more) in [("present", present), ("missing", Vec::new())] {
            let places = [
                ("run", vec![link("run", to)], &["secrets/plain", "own/conf"][..]),
                ("secrets", vec![link("run/secrets", to)], &["plain"]),
                (
                    "targets",
                    vec![
                        link("run/secrets/plain", &leading[0]),
                        link("app.conf", &leading[1]),
                        link("etc/app/key", &leading[2]),
                        link("etc/app/conf", &leading[3]),
                    ],
                    &["file", "conf", "key", "below/conf"],
                ),
            ];
            for (what, links, names) in places {
                let entries: Vec<_> = more.iter().cloned().chain(links).collect();
                let seen: Vec<_> = names.iter().map(|name| format!("{canary}/{name}")).collect();
                test(&entries, &seen).map_err(|error| format!("{how} {what} {there}: {error}"))?;
            }
        }
    }
    Ok(())
}

/// Secrets and configs at their usual places and at others.
const TARGETS: [&str; 5] = [
    "/run/secrets/plain",
    "/app.conf",
    "/etc/app/key",
    "/etc/app/conf",
    "/run/own/conf",
];

fn everywhere() -> Tested<rdock_runtime::ContainerSpec> {
    Ok(probe(&["say up", "sleep 600000"])?
        .secret(Secret::bytes("plain", NEEDLE))
        .config(Secret::bytes("app.conf", NEEDLE))
        .secret(Secret::bytes("key", NEEDLE).at(TARGETS[2]))
        .config(Secret::bytes("conf", NEEDLE).at(TARGETS[3]))
        .config(Secret::bytes("own", NEEDLE).at(TARGETS[4])))
}

/// The container has every value where it was asked for, and `seen` is where links led it.
async fn has_everything(container: &Container, seen: &[String]) -> Tested {
    let lines: Vec<String> = TARGETS
        .iter()
        .copied()
        .chain(seen.iter().map(String::as_str))
        .map(|path| format!("cat {path}"))
        .collect();
    let exec = container.exec(["/test"]).env("PROBE", lines.join("\n"));
    let output = exec.output().await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    same(
        &said.lines().collect::<Vec<_>>(),
        &vec![NEEDLE; TARGETS.len() + seen.len()],
    )
}

fn in_root() -> Tested {
    let canary = Canary::new()?;
    hostile_images(canary.path()?, |entries, seen| {
        let place = Place::with("{}", entries)?;
        blocking::wait(async {
            let container = everywhere()?.start(&place.runtime).await?;
            let tested = has_everything(&container, seen).await;
            canary.is_untouched()?;
            container.remove().await?;
            tested?;
            canary.is_untouched()
        })?
    })
}

fn in_root_later() -> Tested {
    let canary = Canary::new()?;
    hostile_images(canary.path()?, |entries, seen| {
        let place = Place::with("{}", entries)?;
        blocking::wait(async {
            let container = everywhere()?.create(&place.runtime).await?;
            let tested = async {
                canary.is_untouched()?;
                for _ in 0..2 {
                    let found = place.runtime.container(container.id())?;
                    found.start().await?;
                    has_everything(&found, seen).await?;
                    canary.is_untouched()?;
                    found.stop(Some(Duration::ZERO)).await?;
                    canary.is_untouched()?;
                }
                Ok(())
            };
            let tested: Tested = tested.await;
            container.remove_with(true, true).await?;
            tested?;
            canary.is_untouched()
        })?
    })
}
