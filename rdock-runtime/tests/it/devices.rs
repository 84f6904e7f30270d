//! Devices of the host, and what a container may do with any.

use crate::probe::{Place, probe};
use crate::{Cannot, Tested, needs_root, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{ContainerSpec, Device, DeviceAccess, DeviceRule, Error, UserNamespace, blocking};
use rustix::fs::{CWD, FileType, Mode};
use std::path::PathBuf;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "devices_of_the_host_cannot_be_opened_by_nodes_of_ones_own",
            nodes_of_its_own,
        ),
        trial("a_device_of_the_host_is_there_with_its_access", given),
        trial("a_directory_of_devices_is_there_with_all_of_them", directory),
        trial("a_rule_for_devices_opens_what_it_names", rules),
        trial("a_privileged_container_opens_every_device", privileged),
        trial("a_device_is_bound_where_no_node_can_be_made", bound),
        trial("what_is_no_device_leaves_nothing", missing),
    ]
}

/// A device that is closed to containers by default and that this host has: its node and numbers.
fn closed_device() -> Tested<(PathBuf, u32, u32)> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    for path in ["/dev/fuse", "/dev/loop-control", "/dev/net/tun", "/dev/hwrng"] {
        let Ok(meta) = std::fs::metadata(path) else {
            continue;
        };
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        let open = std::fs::OpenOptions::new().read(true).write(true).open(path);
        if meta.file_type().is_char_device() && open.is_ok() {
            return Ok((path.into(), major, minor));
        }
    }
    Err(Cannot("this host has no device that can be opened: fuse, loop-control, tun".into()).into())
}

/// What a container says, and whether the kernel restricts its devices.
fn says(place: &Place, spec: &ContainerSpec) -> Tested<(Vec<String>, bool)> {
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        let warnings = container.inspect()?.warnings;
        container.wait().await?;
        let mut logs = container.logs();
        let mut lines = Vec::new();
        while let Some(line) = logs.next().await? {
            lines.push(String::from_utf8_lossy(&line.bytes).trim_end().to_owned());
        }
        container.remove().await?;
        let open = |warning: &String| warning.contains("the use of devices is not restricted");
        Ok((lines, !warnings.iter().any(open)))
    })?
}

fn nodes_of_its_own() -> Tested {
    needs_root()?;
    let (_, major, minor) = closed_device()?;
    let node = format!("c:{major}:{minor}");
    let lines = [
        format!("mknod /dev/made {node}"),
        "read /dev/made".into(),
        "open /dev/made".into(),
        format!("mknod /made {node}"),
        "read /made".into(),
        // A disk, whether or not there is one.
        "mknod /disk b:7:0".into(),
        "read /disk".into(),
        // What every container has is open, wherever its node is.
        "mknod /null c:1:3".into(),
        "open /null".into(),
        "open /dev/null".into(),
        "read /dev/urandom".into(),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let place = Place::new()?;
    let (said, restricted) = says(&place, &probe(&lines)?)?;
    let expected = match restricted {
        true => [
            "made", "errno 1", "errno 1", "made", "errno 1", "made", "errno 1", "made", "opened", "opened",
            "opened",
        ],
        // Where the kernel restricts nothing, it can make none.
        false => [
            "errno 1", "errno 2", "errno 2", "errno 1", "errno 2", "errno 1", "errno 2", "errno 1",
            "errno 2", "opened", "opened",
        ],
    };
    same(&said, &expected.to_vec())?;
    // Nor can an exec.
    blocking::wait(async {
        let container = probe(&["sleep 600000"])?.start(&place.runtime).await?;
        let tested = async {
            let exec = container.exec(["/test"]).env("PROBE", lines[..3].join("\n"));
            let output = exec.output().await?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            same(&said.lines().collect::<Vec<_>>(), &expected[..3].to_vec())
        };
        let tested: Tested = tested.await;
        container.remove().await?;
        tested
    })?
}

fn given() -> Tested {
    needs_root()?;
    let (path, major, minor) = closed_device()?;
    let place = Place::new()?;
    let access = DeviceAccess::parse("r")?;
    let spec = probe(&[
        "device /dev/own",
        "read /dev/own",
        "open /dev/own",
        "device /opt/deep/own",
        "read /opt/deep/own",
        "cat /proc/self/status",
    ])?
    .device(Device::new(&path).at("/dev/own").access(access));
    let (said, restricted) = says(
        &place,
        &spec
            .clone()
            .device(Device::new(&path).at("/opt/deep/own").access(access)),
    )?;
    let number = format!("{major}:{minor}");
    // Its accesses are all there is, whatever mode its node has.
    let write = if restricted { "errno 1" } else { "opened" };
    same(
        &said[..5],
        &[number.as_str(), "opened", write, number.as_str(), "opened"],
    )?;
    let spec = probe(&["read /dev/own", "open /dev/own"])?.device(Device::new(&path).at("/dev/own"));
    same(&says(&place, &spec)?.0, &vec!["opened", "opened"])?;
    // It takes the place of one that every container has.
    let spec = probe(&["device /dev/full"])?.device(Device::new("/dev/zero").at("/dev/full"));
    same(&says(&place, &spec)?.0, &vec!["1:5"])?;
    // A link of the host, as those of udev, leads to it.
    let link = place.root.path().join("link");
    std::os::unix::fs::symlink(&path, &link)?;
    let spec = probe(&["device /dev/own"])?.device(Device::new(&link).at("/dev/own"));
    same(&says(&place, &spec)?.0, &vec![number.as_str()])
}

fn directory() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    let things = place.root.path().join("things");
    std::fs::create_dir_all(things.join("below"))?;
    std::fs::write(things.join("no device"), "")?;
    let node = |name: &str, kind, major, minor| {
        rustix::fs::mknodat(
            CWD,
            things.join(name),
            kind,
            Mode::from_raw_mode(0o640),
            rustix::fs::makedev(major, minor),
        )
        .map_err(|error| Cannot(format!("no device can be made: {error}")))
    };
    node("null", FileType::CharacterDevice, 1, 3)?;
    node("below/disk", FileType::BlockDevice, 7, 3)?;
    let spec = probe(&[
        "list /dev/things",
        "list /dev/things/below",
        "device /dev/things/null",
        "device /dev/things/below/disk",
        "stat /dev/things/null",
    ])?
    .device(Device::new(&things).at("/dev/things"));
    let (said, _) = says(&place, &spec)?;
    same(&said, &vec!["below null", "disk", "1:3", "7:3", "20640 0:0"])
}

fn rules() -> Tested {
    needs_root()?;
    let (_, major, minor) = closed_device()?;
    let place = Place::new()?;
    let make = format!("mknod /made c:{major}:{minor}");
    let lines = [make.as_str(), "read /made", "open /made"];
    for (rule, expected) in [
        (format!("c {major}:* rw"), ["made", "opened", "opened"]),
        (format!("c {major}:{minor} r"), ["made", "opened", "errno 1"]),
        (format!("b {major}:{minor} rwm"), ["made", "errno 1", "errno 1"]),
        ("a *:* rwm".into(), ["made", "opened", "opened"]),
    ] {
        let spec = probe(&lines)?.device_rule(DeviceRule::parse(&rule)?);
        let (said, restricted) = says(&place, &spec)?;
        if !restricted {
            return Err(Cannot("this kernel does not restrict devices".into()).into());
        }
        same(&said, &expected.to_vec()).map_err(|error| format!("{rule}: {error}"))?;
    }
    Ok(())
}

fn privileged() -> Tested {
    needs_root()?;
    let (_, major, minor) = closed_device()?;
    let place = Place::new()?;
    let make = format!("mknod /made c:{major}:{minor}");
    let (said, _) = says(&place, &probe(&[&make, "read /made"])?.privileged(true))?;
    same(&said, &vec!["made", "opened"])
}

fn bound() -> Tested {
    let place = Place::new()?;
    let mut spec = probe(&["device /dev/other", "open /dev/other"])?.device(
        Device::new("/dev/null")
            .at("/dev/other")
            .access(DeviceAccess::parse("rw")?),
    );
    let rootless = !rustix::process::geteuid().is_root();
    if !rootless {
        spec.user_namespace = UserNamespace::Mapped {
            uids: vec![(0, 0, 1)],
            gids: vec![(0, 0, 1)],
        };
    }
    let said = place.says(&spec)?;
    same(&said.lines().collect::<Vec<_>>(), &vec!["1:3", "opened"])
}

fn missing() -> Tested {
    let place = Place::new()?;
    let file = place.root.path().join("file");
    std::fs::write(&file, "")?;
    for path in [place.root.path().join("none"), file] {
        let spec = probe(&["say ran"])?.device(Device::new(&path));
        match place.run(&spec) {
            Err(error) => match *error.downcast::<Error>()? {
                Error::Device { path: named, .. } => same(&named, &path)?,
                other => return Err(format!("{other:?}").into()),
            },
            Ok(ran) => return Err(format!("{ran:?}").into()),
        }
        same(&place.runtime.containers()?.len(), &0)?;
        same(&place.runtime.images().snapshots()?.len(), &0)?;
    }
    let mut spec = probe(&["say ran"])?;
    spec.devices = vec![
        Device::new("relative"),
        Device::new("/dev/null").at("/proc/x"),
        Device::new("/dev/zero").at("/dev/null"),
    ];
    match place.run(&spec) {
        Err(error) => match *error.downcast::<Error>()? {
            Error::Spec(error) => {
                let fields: Vec<_> = error.findings.iter().map(|one| one.field.as_str()).collect();
                same(
                    &fields,
                    &vec![
                        "devices[0].source",
                        "devices[0].target",
                        "devices[1].target",
                        "devices[2].target",
                    ],
                )
            }
            other => Err(format!("{other:?}").into()),
        },
        Ok(ran) => Err(format!("{ran:?}").into()),
    }
}
