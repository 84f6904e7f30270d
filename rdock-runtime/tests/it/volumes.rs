//! What volumes promise.

use crate::probe::{Place, dir, file, link, probe};
use crate::{Tested, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{Error, Mount, MountSource, VolumeError, blocking};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("data_in_a_named_volume_survives_its_containers", survives),
        trial("rt_volume_copyup_once_inside", filled_once),
        trial("containers_that_start_together_fill_a_volume_once", together),
        trial("rt_volume_copyup_source_inside", links),
        trial("an_anonymous_volume_goes_with_its_container", anonymous),
        trial("a_volume_in_use_is_not_removed", in_use),
        trial("a_subpath_is_below_its_volume", subpath),
    ]
}

fn survives() -> Tested {
    let place = Place::new()?;
    let spec = |lines: &[&str]| {
        Ok::<_, Box<dyn std::error::Error>>(probe(lines)?.mount(Mount::volume("data", "/data")))
    };
    same(
        &place.says(&spec(&["write /data/x kept"])?)?.as_str(),
        &"written\n",
    )?;
    same(&place.says(&spec(&["cat /data/x"])?)?.as_str(), &"kept\n")?;
    let volume = place.runtime.volumes().get("data")?;
    same(
        &std::fs::read_to_string(volume.mountpoint.join("x"))?.as_str(),
        &"kept",
    )
}

fn filled_once() -> Tested {
    let place = Place::new()?;
    let with = |source: MountSource, lines: &[&str]| {
        Ok::<_, Box<dyn std::error::Error>>(probe(lines)?.mount(Mount::new(source, "/seed")))
    };
    let volume = |name: &str, no_copy| MountSource::Volume {
        name: Some(name.into()),
        no_copy,
        subpath: None,
    };
    let look = [
        "list /seed",
        "stat /seed",
        "stat /seed/file",
        "stat /seed/below",
        "cat /seed/below/deep",
    ];
    let filled = ["below file", "42750 0:0", "100640 0:0", "40700 0:0", "deep"];
    let said = place.says(&with(volume("data", false), &look)?)?;
    same(&said.lines().collect::<Vec<_>>(), &filled.to_vec())?;

    // Emptied by its user it stays empty.
    place.says(&with(
        volume("data", false),
        &["remove /seed/file", "remove /seed/below/deep"],
    )?)?;
    let said = place.says(&with(volume("data", false), &["list /seed", "list /seed/below"])?)?;
    same(&said.lines().collect::<Vec<_>>(), &vec!["below", ""])?;

    // Used once without a copy it is never filled.
    same(
        &place.says(&with(volume("plain", true), &["list /seed"])?)?.trim(),
        &"",
    )?;
    same(
        &place
            .says(&with(volume("plain", false), &["list /seed"])?)?
            .trim(),
        &"",
    )?;

    // Filled by hand it keeps what it has.
    let by_hand = place
        .runtime
        .volumes()
        .create(Some("by-hand"), Default::default())?;
    std::fs::write(by_hand.mountpoint.join("own"), "x")?;
    same(
        &place
            .says(&with(volume("by-hand", false), &["list /seed"])?)?
            .trim(),
        &"own",
    )
}

fn together() -> Tested {
    let place = Place::new()?;
    let spec = probe(&["list /seed", "cat /seed/below/deep"])?.mount(Mount::volume("data", "/seed"));
    let said: Vec<Result<String, String>> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| place.says(&spec).map_err(|error| error.to_string())))
            .collect();
        runs.into_iter()
            .map(|run| run.join().unwrap_or_else(|_| Err("panicked".into())))
            .collect()
    });
    same(&said, &vec![Ok("below file\ndeep\n".to_owned()); 4])
}

fn links() -> Tested {
    // The image's volumes are links and paths that climb; the host has a canary where they would lead.
    let canary = tempfile::tempdir()?;
    std::fs::write(canary.path().join("canary"), "of the host")?;
    let up = format!("/../../../..{}", canary.path().display());
    let config = r#"{"Volumes":{"/link":{},"/../../../climbed":{}}}"#;
    let more = [
        link("link", &up),
        dir("climbed", 0o755),
        file("climbed/own", 0o644, "x"),
    ];
    let place = Place::with(config, &more)?;
    let (said, exit) = match place.run(&probe(&["list /link", "list /climbed"])?) {
        Ok(ran) => ran,
        // Refusing the link is as good as staying inside.
        Err(error)
            if error
                .downcast_ref::<Error>()
                .is_some_and(|error| matches!(error, Error::Launch { .. })) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    same(&exit.success(), &true)?;
    same(&said.lines().collect::<Vec<_>>(), &vec!["", "own"])?;
    same(&std::fs::read_dir(canary.path())?.count(), &1)
}

fn anonymous() -> Tested {
    let place = Place::with(r#"{"Volumes":{"/seed":{}}}"#, &[])?;
    let spec = probe(&["list /seed", "sleep 5000"])?.mount(Mount::anonymous("/other"));
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        let volumes = place.runtime.volumes();
        same(
            &volumes
                .list()?
                .iter()
                .map(|volume| volume.anonymous)
                .collect::<Vec<_>>(),
            &vec![true, true],
        )?;
        same(
            &container
                .inspect()?
                .mounts
                .iter()
                .filter(|mount| mount.kind == "volume")
                .count(),
            &2,
        )?;
        container.remove().await?;
        same(&volumes.list()?.len(), &0)
    })?
}

fn in_use() -> Tested {
    let place = Place::new()?;
    let spec = probe(&["sleep 5000"])?
        .name("holder")
        .mount(Mount::volume("data", "/data"));
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        let volumes = place.runtime.volumes();
        match volumes.remove("data", true) {
            Err(VolumeError::InUse { containers, .. }) => same(&containers, &vec!["holder".to_owned()])?,
            other => return Err(format!("{other:?}").into()),
        }
        same(&volumes.prune(true)?.len(), &0)?;
        container.remove().await?;
        same(&volumes.prune(true)?, &vec!["data".to_owned()])
    })?
}

fn subpath() -> Tested {
    let place = Place::new()?;
    place.says(&probe(&["mkdir /data/a", "write /data/a/x deep"])?.mount(Mount::volume("data", "/data")))?;
    let with = |path: &str| {
        let source = MountSource::Volume {
            name: Some("data".into()),
            no_copy: false,
            subpath: Some(path.into()),
        };
        Ok::<_, Box<dyn std::error::Error>>(probe(&["cat /sub/x"])?.mount(Mount::new(source, "/sub")))
    };
    same(&place.says(&with("a")?)?.trim(), &"deep")?;
    // A link inside the volume leads nowhere.
    let volume = place.runtime.volumes().get("data")?;
    std::os::unix::fs::symlink("/", volume.mountpoint.join("out"))?;
    for path in ["out", "out/etc", "missing"] {
        let Err(error) = place.run(&with(path)?) else {
            return Err(format!("{path} was mounted").into());
        };
        let launch = error
            .downcast_ref::<Error>()
            .is_some_and(|error| matches!(error, Error::Launch { .. }));
        same(&launch, &true).map_err(|_| format!("{path}: {error}"))?;
    }
    Ok(())
}
