//! Writes of the runtime that links and mounts of an image or a volume would lead elsewhere.

use crate::probe::{Place, dir, file, link, probe};
use crate::{Tested, same};
use rdock_runtime::{Error, Mount, Step};
use std::path::Path;

/// The steps in which values are written into procfs.
fn wrote(step: Step) -> bool {
    matches!(
        step,
        Step::Sysctl | Step::OomScore | Step::Mount | Step::ReadonlyPath | Step::MaskPath
    )
}

pub(super) fn procfs() -> Tested {
    let place = Place::new()?;
    let volume = place
        .runtime
        .volumes()
        .create(Some("shared"), std::collections::BTreeMap::new())?;
    let at = |name: &str| volume.mountpoint.join(name);
    // Whoever shares the volume has put links to where values are written.
    std::os::unix::fs::symlink("/proc/sys/kernel", at("kernel"))?;
    std::os::unix::fs::symlink("/proc/1", at("one"))?;
    std::os::unix::fs::symlink("/proc/self/oom_score_adj", at("score"))?;
    std::fs::write(at("file"), "untouched")?;
    let spec = || {
        Ok::<_, Box<dyn std::error::Error>>(
            probe(&["cat /proc/sys/kernel/shmmni", "cat /proc/self/oom_score_adj"])?
                .sysctl("kernel.shmmni", "123")
                .oom_score_adj(321)
                .mount(Mount::volume("shared", "/shared")),
        )
    };
    same(place.says(&spec()?)?.as_str(), "123\n321\n")?;
    for mount in [
        Mount::tmpfs("/shared/kernel"),
        Mount::bind(&volume.mountpoint, "/shared/kernel"),
        Mount::bind(at("file"), "/shared/kernel/shmmni"),
        Mount::bind(at("file"), "/shared/one/oom_score_adj"),
        Mount::bind(at("file"), "/shared/score"),
    ] {
        let target = mount.target.clone();
        // Either the values are where they belong, or nothing runs.
        match place.run(&spec()?.mount(mount)) {
            Ok((said, _)) => {
                same(said.as_str(), "123\n321\n").map_err(|error| format!("{target}: {error}"))?
            }
            Err(error) => match *error.downcast::<Error>()? {
                Error::Launch { step, .. } if wrote(step) => {}
                other => return Err(format!("{target}: {other:?}").into()),
            },
        }
        same(std::fs::read_to_string(at("file"))?.as_str(), "untouched")
            .map_err(|error| format!("{target}: {error}"))?;
    }
    Ok(())
}

/// Nothing is in the directory but the file `file`, as it was.
fn is_untouched(canary: &Path) -> Tested {
    let names: Vec<_> = std::fs::read_dir(canary)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<std::io::Result<_>>()?;
    same(&names, &vec!["file"])?;
    same(
        std::fs::read_to_string(canary.join("file"))?.as_str(),
        "untouched",
    )
}

pub(super) fn files_of_the_root() -> Tested {
    let canary = tempfile::tempdir()?;
    std::fs::write(canary.path().join("file"), "untouched")?;
    let path = canary.path().to_str().ok_or("not UTF-8")?;
    let climbing = format!("../../../../../../../../..{path}");
    let inside = path.trim_start_matches('/');
    for to in [path, climbing.as_str()] {
        let leading = ["file", "other", "third"].map(|name| format!("{to}/{name}"));
        for entries in [
            // Directories that files are made in.
            vec![link("etc", to), link("srv", to), dir(inside, 0o755)],
            vec![link("etc", to), link("srv", to)],
            // The files themselves.
            vec![
                link("etc/hosts", &leading[0]),
                link("etc/hostname", &leading[1]),
                link("etc/resolv.conf", &leading[2]),
                link("srv", to),
            ],
            vec![
                file(inside, 0o644, "a file where a directory is expected"),
                link("srv", "/"),
            ],
        ] {
            let place = Place::with("{}", &entries)?;
            let spec = probe(&["cat /etc/hostname", "write /srv/deep/x y", "cat /srv/deep/x"])?
                .hostname("web")
                .working_dir("/srv/deep/work")
                .mount(Mount::volume("data", "/srv/deep"))
                .mount(Mount::tmpfs("/srv/memory/deep"));
            same(place.says(&spec)?.as_str(), "web\nwritten\ny\n")?;
            is_untouched(canary.path())?;
        }
    }
    Ok(())
}
