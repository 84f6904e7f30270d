//! What a container changed: listed, exported, committed.

use crate::probe::{Place, dir, file, link, probe};
use crate::{Tested, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::image::{Reference, SnapshotOptions};
use rdock_runtime::{
    CommitOptions, Container, ContainerSpec, Error, FilesError, Mount, NetworkMode, blocking,
};
use std::collections::BTreeMap;
use std::path::Path;
use tokio::io::AsyncReadExt;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("changes_of_a_container_are_listed_as_docker_does", changes),
        trial("an_export_is_the_merged_tree", export),
        trial("a_commit_is_an_image_with_the_changes", commit),
        trial("img_extract_race", race),
    ]
}

const WORK: [&str; 12] = [
    "write /seed/file changed",
    "remove /seed/below/deep",
    "write /seed/below/new x",
    "mkdir /made",
    "mkdir /made/deeper",
    "write /made/deeper/file made",
    "remove /away",
    "write /data/x of the volume",
    "write /memory/x of the memory",
    "unlink-all /again",
    "mkdir /again",
    "write /again/other x",
];

fn place() -> Tested<Place> {
    Place::with(
        "{}",
        &[
            file("away", 0o644, "x"),
            dir("again", 0o755),
            file("again/old", 0o644, "x"),
            link("link", "seed"),
        ],
    )
}

fn worker() -> Tested<ContainerSpec> {
    let mut lines = WORK.to_vec();
    lines.extend(["say up", "sleep 600000"]);
    Ok(probe(&lines)?
        .mount(Mount::volume("data", "/data"))
        .mount(Mount::tmpfs("/memory")))
}

/// Looks at a container that has done its work, running and stopped.
fn both(place: &Place, spec: &ContainerSpec, test: impl AsyncFn(&Container) -> Tested) -> Tested {
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        let mut logs = container.logs().follow(true);
        while let Some(line) = logs.next().await? {
            if line.bytes.starts_with(b"errno") {
                return Err(String::from_utf8_lossy(&line.bytes).into());
            }
            if line.bytes.starts_with(b"up") {
                break;
            }
        }
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

fn changes() -> Tested {
    let place = place()?;
    both(&place, &worker()?, async |container: &Container| {
        let found: Vec<String> = container
            .changes()
            .await?
            .iter()
            .map(|change| format!("{} {}", change.kind, change.path.display()))
            .collect();
        same(
            &found,
            &[
                "C /again",
                "D /again/old",
                "A /again/other",
                "D /away",
                "A /made",
                "A /made/deeper",
                "A /made/deeper/file",
                "C /seed/below",
                "D /seed/below/deep",
                "A /seed/below/new",
                "C /seed/file",
            ]
            .map(str::to_owned)
            .to_vec(),
        )
    })
}

/// Names and contents of the files of a tar.
fn members(bytes: &[u8]) -> Tested<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut text = String::new();
        if entry.header().entry_type().is_file() {
            let mut raw = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut raw)?;
            text = String::from_utf8_lossy(&raw[..raw.len().min(64)]).into_owned();
        }
        found.insert(name, text);
    }
    Ok(found)
}

fn export() -> Tested {
    let place = place()?;
    both(&place, &worker()?, async |container: &Container| {
        let mut bytes = Vec::new();
        container.export().await?.read_to_end(&mut bytes).await?;
        let found = members(&bytes)?;
        for (name, text) in [
            ("seed/file", "changed"),
            ("seed/below/new", "x"),
            ("made/deeper/file", "made"),
            ("again/other", "x"),
            ("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
        ] {
            same(&found.get(name).map(String::as_str), &Some(text))
                .map_err(|error| format!("{name}: {error}"))?;
        }
        // What was removed, and what is mounted, is not there; where it is mounted is.
        for name in [
            "away",
            "again/old",
            "seed/below/deep",
            "data/x",
            "memory/x",
            "proc/version",
            "test/x",
        ] {
            same(&found.contains_key(name), &false).map_err(|error| format!("{name}: {error}"))?;
        }
        for name in ["data/", "memory/", "proc/", "dev/", "link"] {
            same(&found.contains_key(name), &true).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    })
}

fn commit() -> Tested {
    let place = place()?;
    let mut spec = worker()?;
    spec.working_dir = Some("/seed".into());
    let spec = spec.label("of", "the container");
    both(&place, &spec, async |container: &Container| {
        let options = CommitOptions::default()
            .reference(Reference::parse("kept:1")?)
            .author("somebody")
            .message("what was done")
            .change(r#"ENTRYPOINT ["/test"]"#)
            .change("ENV ADDED=1 PROBE=unset");
        let image = container.commit(&options).await?;
        let config = image.config();
        same(&config.author.as_deref(), &Some("somebody"))?;
        same(&config.rootfs.diff_ids.len(), &2)?;
        let last = config.history.last().ok_or("no history")?;
        same(
            &(last.comment.as_deref(), last.author.as_deref(), last.empty_layer),
            &(Some("what was done"), Some("somebody"), false),
        )?;
        same(&config.config.working_dir.as_str(), &"/seed")?;
        same(
            &config.config.labels.get("of").map(String::as_str),
            &Some("the container"),
        )?;
        same(
            &config.config.entrypoint.clone().unwrap_or_default(),
            &vec!["/test".to_owned()],
        )?;
        same(&config.config.env.contains(&"ADDED=1".to_owned()), &true)?;
        same(
            &place
                .runtime
                .images()
                .get("kept:1")?
                .map(|found| found.id().clone()),
            &Some(image.id().clone()),
        )?;
        // The layer has the changes, and nothing of mounts.
        let view = place.runtime.images().view(&image)?;
        for (path, there) in [
            ("/seed/file", true),
            ("/made/deeper/file", true),
            ("/again/other", true),
            ("/again/old", false),
            ("/away", false),
            ("/seed/below/deep", false),
            ("/data/x", false),
            ("/data", false),
            ("/memory", false),
            ("/etc/hosts", false),
            ("/proc", false),
        ] {
            same(&view.symlink_metadata(path)?.is_some(), &there)
                .map_err(|error| format!("{path}: {error}"))?;
        }
        match container
            .commit(&CommitOptions::default().change("RUN true"))
            .await
        {
            Err(Error::Files(FilesError::Change { text, .. })) => same(&text.as_str(), &"RUN true"),
            other => Err(format!("{other:?}").into()),
        }
    })?;
    // It runs, from the changed files.
    let mut spec = probe(&["cat /seed/file", "cat /again/other", "cat /away"])?;
    spec.image = "kept:1".into();
    spec.args = Vec::new();
    same(
        &place
            .says(&spec.network(NetworkMode::None))?
            .lines()
            .collect::<Vec<_>>(),
        &vec!["changed", "x", "errno 2"],
    )?;
    // Nothing was left in the store's places for unfinished things.
    let image = place.runtime.images().get("kept:1")?.ok_or("no image")?;
    place
        .runtime
        .images()
        .snapshot(&image, "unused", &SnapshotOptions::default())?
        .remove()?;
    Ok(())
}

/// Exports and commits of a container that swaps a directory for a link out of it.
fn race() -> Tested {
    let canary = tempfile::tempdir()?;
    std::fs::create_dir(canary.path().join("inner"))?;
    std::fs::write(canary.path().join("inner/file"), "of the host")?;
    let link = format!("symlink {}/inner /scratch/link", canary.path().display());
    let lines = [
        "mkdir /scratch/at",
        "write /scratch/at/file of the container",
        &link,
        "say up",
        "swap /scratch/at /scratch/link",
    ];
    let place = Place::with("{}", &[dir("scratch", 0o755)])?;
    blocking::wait(async {
        let container = probe(&lines)?.start(&place.runtime).await?;
        let mut logs = container.logs().follow(true);
        while let Some(line) = logs.next().await? {
            if line.bytes.starts_with(b"up") {
                break;
            }
        }
        let has_canary = |bytes: &[u8]| bytes.windows(11).any(|window| window == b"of the host");
        let (mut exported, mut committed) = (0, 0);
        for round in 0..200 {
            let mut bytes = Vec::new();
            let mut archive = container.export().await?;
            exported += u32::from(archive.read_to_end(&mut bytes).await.is_ok());
            same(&has_canary(&bytes), &false).map_err(|error| format!("round {round}: {error}"))?;
            container.changes().await.ok();
            if round % 10 == 0
                && let Ok(image) = container.commit(&CommitOptions::default().pause(false)).await
            {
                committed += 1;
                let last = image.diff_ids().last().ok_or("no layer")?;
                let mut bytes = Vec::new();
                place.runtime.images().write_layer_tar(last, &mut bytes)?;
                same(&has_canary(&bytes), &false).map_err(|error| format!("round {round}: {error}"))?;
            }
        }
        same(&container.status()?, &rdock_runtime::Status::Running)?;
        container.remove().await?;
        same(&(exported > 50 && committed > 3), &true)
            .map_err(|_| format!("{exported} exported, {committed} committed"))?;
        same(&std::fs::read_dir(canary.path().join("inner"))?.count(), &1)?;
        same(
            &std::fs::read_to_string(Path::new(canary.path()).join("inner/file"))?.as_str(),
            &"of the host",
        )
    })?
}
