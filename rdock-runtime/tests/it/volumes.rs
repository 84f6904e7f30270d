//! What volumes promise.

use crate::probe::{Place, dir, file, link, probe};
use crate::{Cannot, Tested, needs_root, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{
    BindRecursion, Error, Mount, MountSource, VolumeError, VolumeOptions, VolumesFrom, blocking,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("data_in_a_named_volume_survives_its_containers", survives),
        trial("rt_volume_copyup_once_inside", filled_once),
        trial("containers_that_start_together_fill_a_volume_once", together),
        trial("rt_volume_copyup_source_inside", links),
        trial("an_anonymous_volume_goes_with_its_container", anonymous),
        trial("a_volume_in_use_is_not_removed", in_use),
        trial("a_subpath_is_below_its_volume", subpath),
        trial("rt_mount_source_in_root_race_on_a_subpath", subpath_race),
        trial("volumes_from_another_container", from_another),
        trial("a_volume_on_a_directory_of_the_host", on_the_host),
        trial("a_volume_in_memory", in_memory),
        trial("mounts_below_a_bind_are_as_they_are_asked_for", below_a_bind),
        trial("a_volume_made_for_a_mount_has_its_labels", labels),
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

fn from_another() -> Tested {
    let place = Place::with(r#"{"Volumes":{"/seed":{}}}"#, &[])?;
    let bound = tempfile::tempdir()?;
    let first = probe(&["write /data/x shared", "sleep 600000"])?
        .name("first")
        .mount(Mount::volume("data", "/data"))
        .mount(Mount::bind(bound.path(), "/bound").read_only())
        .mount(Mount::tmpfs("/memory"));
    blocking::wait(async {
        let first = first.start(&place.runtime).await?;
        // What it says is written before it sleeps.
        let mut logs = first.logs().follow(true);
        logs.next().await?;
        let second = |mode: Option<bool>, lines: &[&str]| {
            let mut spec = probe(lines)?;
            let mut from = VolumesFrom::new("first");
            from.read_only = mode;
            spec.volumes_from.push(from);
            // One of its own at the same place wins.
            Ok::<_, Box<dyn std::error::Error>>(spec)
        };
        let says = async |spec: rdock_runtime::ContainerSpec| {
            let container = spec.start(&place.runtime).await?;
            container.wait().await?;
            let mut logs = container.logs();
            let mut output = String::new();
            while let Some(line) = logs.next().await? {
                output += &String::from_utf8_lossy(&line.bytes);
            }
            let mounts = container.inspect()?.mounts;
            container.remove().await?;
            Ok::<_, Box<dyn std::error::Error>>((output, mounts))
        };
        let look = [
            "cat /data/x",
            "write /data/y more",
            "write /bound/z no",
            "list /seed",
            "list /memory",
        ];
        let (said, mounts) = says(second(None, &look)?).await?;
        same(
            &said.lines().collect::<Vec<_>>(),
            &vec!["shared", "written", "errno 30", "below file", "errno 2"],
        )?;
        let volumes = mounts.iter().filter(|mount| mount.kind == "volume").count();
        same(&volumes, &2)?;
        let (said, _) = says(second(Some(true), &["write /data/y more"])?).await?;
        same(&said.trim(), &"errno 30")?;
        // Its own mount at the same place wins.
        let own = second(None, &["list /data"])?.mount(Mount::tmpfs("/data/"));
        same(&says(own).await?.0.trim(), &"")?;
        // The anonymous volume lives as long as one of them.
        let holder = second(None, &["sleep 600000"])?.start(&place.runtime).await?;
        let anonymous = |place: &Place| {
            Ok::<_, VolumeError>(
                place
                    .runtime
                    .volumes()
                    .list()?
                    .iter()
                    .filter(|info| info.anonymous)
                    .count(),
            )
        };
        first.remove().await?;
        same(&anonymous(&place)?, &1)?;
        holder.remove().await?;
        let again = rdock_runtime::Runtime::open(place.root.path())?;
        same(
            &again
                .volumes()
                .list()?
                .iter()
                .filter(|info| info.anonymous)
                .count(),
            &0,
        )?;
        match second(None, &[])?.start(&place.runtime).await {
            Err(Error::NoSuchContainer { name }) => same(&name.as_str(), &"first"),
            other => Err(format!("{other:?}").into()),
        }
    })?
}

fn on_the_host() -> Tested {
    let place = Place::new()?;
    let host = tempfile::tempdir()?;
    let path = host.path().join("data");
    std::fs::create_dir(&path)?;
    let volume = |name: &str, o: &str| {
        VolumeOptions::named(name)
            .driver_option("type", "none")
            .driver_option("o", o)
            .driver_option("device", path.to_string_lossy())
    };
    let volumes = place.runtime.volumes();
    volumes.create_with(&volume("data", "bind"))?;
    let look = || probe(&["list /seed", "write /seed/new x"]);
    let said = place.says(&look()?.mount(Mount::volume("data", "/seed")))?;
    same(&said.lines().collect::<Vec<_>>(), &vec!["below file", "written"])?;
    same(&std::fs::read_to_string(path.join("new"))?.as_str(), &"x")?;
    // Nothing of rdock's is left beside it.
    same(&std::fs::read_dir(host.path())?.count(), &1)?;
    volumes.create_with(&volume("same", "bind,ro"))?;
    let said = place.says(&look()?.mount(Mount::volume("same", "/seed")))?;
    same(
        &said.lines().collect::<Vec<_>>(),
        &vec!["below file new", "errno 30"],
    )?;
    // Removing the volume leaves what is the host's.
    volumes.remove("data", false)?;
    same(&std::fs::read_to_string(path.join("new"))?.as_str(), &"x")?;
    std::fs::remove_dir_all(&path)?;
    match place.run(&look()?.mount(Mount::volume("same", "/seed"))) {
        Err(error) if error.to_string().contains("does not exist") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn in_memory() -> Tested {
    let place = Place::new()?;
    let options = VolumeOptions::named("data")
        .driver_option("type", "tmpfs")
        .driver_option("device", "tmpfs")
        .driver_option("o", "size=1m,mode=750");
    place.runtime.volumes().create_with(&options)?;
    let look = ["kind /seed", "list /seed", "stat /seed", "fill /seed/big 2000000"];
    let said = place.says(&probe(&look)?.mount(Mount::volume("data", "/seed")))?;
    same(
        &said.lines().collect::<Vec<_>>(),
        &vec!["1021994", "below file", "42750 0:0", "errno 28"],
    )
}

/// `/dev` of the host has file systems below it everywhere.
fn below_a_bind() -> Tested {
    needs_root()?;
    const TMPFS: i64 = 0x0102_1994;
    let device = |path: &str| std::fs::metadata(path).map(|meta| std::os::unix::fs::MetadataExt::dev(&meta));
    let shm = rustix::fs::statfs("/dev/shm")?;
    if device("/dev/shm")? == device("/dev")? || shm.f_type as i64 != TMPFS {
        return Err(Cannot("there is no file system of its own at /dev/shm".into()).into());
    }
    let place = Place::new()?;
    let name = format!("rdock-test-{}", std::process::id());
    let (write, remove) = (
        format!("write /host/shm/{name} x"),
        format!("remove /host/shm/{name}"),
    );
    let look = [write.as_str(), remove.as_str()];
    let says = |mount: Mount, lines: &[&str]| -> Tested<Vec<String>> {
        let said = place.says(&probe(lines)?.mount(mount))?;
        Ok(said.lines().map(str::to_owned).collect())
    };
    let bind = || Mount::bind("/dev", "/host").read_only();
    // Linux 5.10 cannot make what is below read-only.
    let everywhere = says(bind(), &look)?;
    let read_only = vec!["errno 30".to_owned(), "errno 30".to_owned()];
    let writable = vec!["written".to_owned(), "removed".to_owned()];
    let forced = says(bind().recursion(BindRecursion::ReadOnly), &look);
    match everywhere == read_only {
        true => same(&forced?, &read_only)?,
        false => {
            same(&everywhere, &writable)?;
            let refused = forced.err().map(|error| error.to_string()).unwrap_or_default();
            same(&refused.contains("Linux 5.12"), &true)?;
        }
    }
    same(
        &says(bind().recursion(BindRecursion::Writable), &look)?,
        &writable,
    )?;
    // The directory is there, with nothing of the file system that the host has over it.
    let file = format!("/dev/shm/{name}-below");
    std::fs::write(&file, "")?;
    let path = format!("/host/shm/{name}-below");
    let seen = |mount: Mount| says(mount, &[&format!("stat {path}"), "stat /host/null"]);
    let (with, without) = (seen(bind()), seen(bind().recursion(BindRecursion::Disabled)));
    std::fs::remove_file(&file)?;
    let (with, without) = (with?, without?);
    same(
        &(with[0].starts_with("errno"), with[1].starts_with("errno")),
        &(false, false),
    )?;
    same(
        &(without[0].as_str(), without[1].starts_with("errno")),
        &("errno 2", false),
    )
}

fn labels() -> Tested {
    let place = Place::new()?;
    let spec = probe(&["sleep 1"])?
        .mount(Mount::anonymous("/data").volume_label("kept", "yes"))
        .mount(Mount::volume("named", "/named").volume_label("first", "a"));
    let found = blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        let mounts = container.inspect()?.mounts;
        let mut labels = Vec::new();
        for target in ["/data", "/named"] {
            let mount = mounts.iter().find(|mount| mount.target == target);
            let name = mount.and_then(|mount| mount.name.clone()).unwrap_or_default();
            let volume = place.runtime.volumes().get(&name)?;
            labels.push((volume.anonymous, volume.labels));
        }
        container.remove().await?;
        Ok::<_, Error>(labels)
    })??;
    let one =
        |name: &str, value: &str| std::collections::BTreeMap::from([(name.to_owned(), value.to_owned())]);
    same(
        &found,
        &vec![(true, one("kept", "yes")), (false, one("first", "a"))],
    )?;
    // One that is there stays as it is.
    let mount = Mount::volume("named", "/named").volume_label("second", "b");
    place.says(&probe(&["list /named"])?.mount(mount))?;
    same(&place.runtime.volumes().get("named")?.labels, &one("first", "a"))
}

/// A container swaps the directory that others mount by a subpath of the volume they share.
fn subpath_race() -> Tested {
    let canary = tempfile::tempdir()?;
    std::fs::create_dir(canary.path().join("inner"))?;
    std::fs::write(canary.path().join("inner/x"), "of the host")?;
    let link = format!("symlink {}/inner /data/link", canary.path().display());
    let lines = [
        "mkdir /data/at",
        "write /data/at/x of the volume",
        &link,
        "say up",
        "swap /data/at /data/link",
    ];
    let place = Place::new()?;
    blocking::wait(async {
        let swapper = probe(&lines)?
            .mount(Mount::volume("data", "/data"))
            .start(&place.runtime)
            .await?;
        let mut logs = swapper.logs().follow(true);
        while let Some(line) = logs.next().await? {
            if line.bytes.starts_with(b"up") {
                break;
            }
        }
        let (mut mounted, mut refused) = (0, 0);
        for round in 0..200 {
            let source = MountSource::Volume {
                name: Some("data".into()),
                no_copy: false,
                subpath: Some("at".into()),
            };
            let spec = probe(&["cat /sub/x", "write /sub/y mine"])?.mount(Mount::new(source, "/sub"));
            match spec.start(&place.runtime).await {
                Ok(container) => {
                    container.wait().await?;
                    let mut logs = container.logs();
                    let first = logs.next().await?.map(|line| line.bytes).unwrap_or_default();
                    same(&String::from_utf8_lossy(&first).trim(), &"of the volume")
                        .map_err(|error| format!("round {round}: {error}"))?;
                    container.remove().await?;
                    mounted += 1;
                }
                Err(Error::Launch { .. }) => refused += 1,
                Err(error) => return Err(error.into()),
            }
        }
        same(&swapper.status()?, &rdock_runtime::Status::Running)?;
        swapper.remove().await?;
        same(&(mounted > 10 && refused > 10), &true)
            .map_err(|_| format!("{mounted} mounted, {refused} refused"))?;
        same(&std::fs::read_dir(canary.path().join("inner"))?.count(), &1)
    })?
}
