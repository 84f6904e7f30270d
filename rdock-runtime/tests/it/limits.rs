//! Limits, read back where the kernel keeps them, and the groups that they are kept in.

use crate::probe::{Place, probe};
use crate::{Cannot, Tested, needs_root, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{Container, ContainerUpdate, DeviceRate, DeviceWeight, Error, Resources, blocking};
use std::path::{Path, PathBuf};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("limits_are_where_the_kernel_keeps_them", limits),
        trial(
            "limits_of_block_devices_are_where_the_kernel_keeps_them",
            block_devices,
        ),
        trial("limits_change_while_it_runs", update),
        trial(
            "rt_cgroup_path_a_parent_holds_the_containers_group_and_goes_with_it",
            parent,
        ),
        trial("rt_cgroup_path_a_parent_that_was_there_stays", own_parent),
        trial("rt_cgroup_path_nothing_outside_the_own_subtree", parents_outside),
    ]
}

/// The payload's group of a controller, as a directory of this host; `None` where it has none.
fn group(pid: i32, controller: &str) -> Tested<Option<PathBuf>> {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mount = |wanted: &dyn Fn(&str, &str) -> bool| {
        mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut right = right.split(' ');
            let (kind, options) = (right.next()?, right.nth(1)?);
            wanted(kind, options).then(|| left.split(' ').nth(4).map(PathBuf::from))?
        })
    };
    let of_version_1 = |options: &str| options.split(',').any(|one| one == controller);
    let (line, mount) = match mount(&|kind, options| kind == "cgroup" && of_version_1(options)) {
        Some(mount) => {
            let line = own.lines().find(|line| {
                let names = line.split(':').nth(1).unwrap_or_default();
                names.split(',').any(|name| name == controller)
            });
            (line, mount)
        }
        None => match mount(&|kind, _| kind == "cgroup2") {
            Some(mount) => (own.lines().find(|line| line.starts_with("0::")), mount),
            None => return Ok(None),
        },
    };
    let path = line.and_then(|line| line.splitn(3, ':').nth(2));
    Ok(path.map(|path| mount.join(path.trim_start_matches('/'))))
}

/// What the kernel has: the first of the files that is there.
fn kept(container: &Container, controller: &str, files: &[&str]) -> Tested<String> {
    let pid = container.inspect()?.pid.ok_or("no pid")?;
    let group = group(pid, controller)?.ok_or_else(|| Cannot(format!("no controller {controller}")))?;
    for file in files {
        if let Ok(text) = std::fs::read_to_string(group.join(file)) {
            return Ok(text.trim().to_owned());
        }
    }
    Err(Cannot(format!("{} has none of {files:?}", group.display())).into())
}

fn limits() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    let mut resources = Resources::default();
    resources.memory = Some(64 << 20);
    resources.memory_swappiness = Some(30);
    resources.cpu_period = Some(50_000);
    resources.cpu_quota = Some(20_000);
    resources.cpu_shares = Some(2);
    resources.cpuset_cpus = Some("0".into());
    resources.cpuset_mems = Some("0".into());
    resources.pids = Some(77);
    let mut spec = probe(&["sleep 600000"])?;
    spec.resources = resources;
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        let tested = (|| -> Tested {
            let warnings = container.inspect()?.warnings;
            let missing = |limit: &str| warnings.iter().any(|warning| warning.starts_with(limit));
            let mut looked_at = 0;
            for (limit, controller, files, expected) in [
                (
                    "memory ",
                    "memory",
                    &["memory.limit_in_bytes", "memory.max"][..],
                    &["67108864"][..],
                ),
                (
                    "memory_swap",
                    "memory",
                    &["memory.memsw.limit_in_bytes", "memory.swap.max"],
                    &["134217728", "67108864"],
                ),
                ("memory_swappiness", "memory", &["memory.swappiness"], &["30"]),
                (
                    "cpu_quota",
                    "cpu",
                    &["cpu.cfs_quota_us", "cpu.max"],
                    &["20000", "20000 50000"],
                ),
                (
                    "cpu_quota",
                    "cpu",
                    &["cpu.cfs_period_us", "cpu.max"],
                    &["50000", "20000 50000"],
                ),
                ("cpu_shares", "cpu", &["cpu.shares", "cpu.weight"], &["2", "1"]),
                ("cpuset_cpus", "cpuset", &["cpuset.cpus"], &["0"]),
                ("cpuset_mems", "cpuset", &["cpuset.mems"], &["0"]),
                ("pids", "pids", &["pids.max"], &["77"]),
            ] {
                if missing(limit) {
                    continue;
                }
                let found = match kept(&container, controller, files) {
                    // A machine without swap has no file for the limit that nobody asked for.
                    Err(error) if error.is::<Cannot>() && limit == "memory_swap" => continue,
                    other => other?,
                };
                same(&expected.contains(&found.as_str()), &true)
                    .map_err(|_| format!("{limit}: {found} instead of {expected:?}"))?;
                looked_at += 1;
            }
            match looked_at {
                0 => Err(Cannot(warnings.join("; ")).into()),
                _ => Ok(()),
            }
        })();
        container.remove().await?;
        tested
    })?
}

/// A whole disk of this host.
fn disk() -> Tested<PathBuf> {
    for entry in std::fs::read_dir("/sys/block").map_err(|error| Cannot(format!("/sys/block: {error}")))? {
        let path = Path::new("/dev").join(entry?.file_name());
        if path.exists() {
            return Ok(path);
        }
    }
    Err(Cannot("this host has no block device".into()).into())
}

fn block_devices() -> Tested {
    use std::os::unix::fs::MetadataExt;
    needs_root()?;
    let disk = disk()?;
    let number = std::fs::metadata(&disk)?.rdev();
    let number = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let place = Place::new()?;
    let mut spec = probe(&["sleep 600000"])?;
    spec.resources.device_read_bps = vec![DeviceRate::parse_bytes(&format!("{}:2mb", disk.display()))?];
    spec.resources.device_write_bps = vec![DeviceRate::new(&disk, 1 << 20)];
    spec.resources.device_read_iops = vec![DeviceRate::new(&disk, 300)];
    spec.resources.device_write_iops = vec![DeviceRate::new(&disk, 200)];
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        let tested = (|| -> Tested {
            let mut warnings = container.inspect()?.warnings;
            warnings.retain(|warning| warning.contains("is not enforced"));
            if !warnings.is_empty() {
                return Err(Cannot(warnings.join("; ")).into());
            }
            for (file, expected) in [
                ("blkio.throttle.read_bps_device", "2097152"),
                ("blkio.throttle.write_bps_device", "1048576"),
                ("blkio.throttle.read_iops_device", "300"),
                ("blkio.throttle.write_iops_device", "200"),
            ] {
                let found = kept(&container, "blkio", &[file, "io.max"])?;
                let whole = format!("{number} rbps=2097152 wbps=1048576 riops=300 wiops=200");
                let one = format!("{number} {expected}");
                let there = found.lines().any(|line| line == one || line == whole);
                same(&there, &true).map_err(|_| format!("{file}: {found}"))?;
            }
            Ok(())
        })();
        container.remove().await?;
        tested
    })??;
    // A kernel without weights says so, and the container runs.
    let mut spec = probe(&["say ran"])?;
    spec.resources.blkio_weight = Some(300);
    spec.resources.blkio_weight_devices = vec![DeviceWeight::new(&disk, 200)];
    match place.says(&spec) {
        Ok(said) => same(said.as_str(), "ran\n"),
        // The disk's scheduler need not know weights, and the kernel refuses them then.
        Err(error) => match error.downcast_ref::<Error>() {
            Some(Error::Cgroup(_)) => Ok(()),
            _ => Err(error),
        },
    }?;
    let mut spec = probe(&["say ran"])?;
    spec.resources.device_read_bps = vec![DeviceRate::new("/dev/null", 1)];
    match place.run(&spec) {
        Err(error) if matches!(error.downcast_ref::<Error>(), Some(Error::Cgroup(_))) => {
            same(&crate::chain(error.as_ref()).contains("/dev/null"), &true)
        }
        other => Err(format!("{other:?}").into()),
    }
}

fn update() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let container = probe(&["sleep 600000"])?.start(&place.runtime).await?;
        let tested = async {
            let mut resources = Resources::default();
            resources.cpu_quota = Some(30_000);
            resources.cpu_period = Some(60_000);
            resources.pids = Some(99);
            let changed = container
                .update(&ContainerUpdate::new().resources(resources))
                .await;
            if let Err(error @ Error::Monitor { .. }) | Err(error @ Error::State { .. }) = changed {
                return Err(Cannot(error.to_string()).into());
            }
            changed?;
            let quota = kept(&container, "cpu", &["cpu.cfs_quota_us", "cpu.max"])?;
            same(&["30000", "30000 60000"].contains(&quota.as_str()), &true).map_err(|_| quota)?;
            same(kept(&container, "pids", &["pids.max"])?.as_str(), "99")?;
            let mut resources = Resources::default();
            // The period stays.
            resources.cpu_quota = Some(-1);
            resources.pids = Some(u64::MAX);
            container
                .update(&ContainerUpdate::new().resources(resources))
                .await?;
            let quota = kept(&container, "cpu", &["cpu.cfs_quota_us", "cpu.max"])?;
            same(&["-1", "max 60000"].contains(&quota.as_str()), &true).map_err(|_| quota)?;
            let period = kept(&container, "cpu", &["cpu.cfs_period_us", "cpu.max"])?;
            same(&["60000", "max 60000"].contains(&period.as_str()), &true).map_err(|_| period)?;
            same(kept(&container, "pids", &["pids.max"])?.as_str(), "max")?;
            // What no container can have changes nothing.
            let mut resources = Resources::default();
            resources.cpus = Some(0.5);
            match container
                .update(&ContainerUpdate::new().resources(resources))
                .await
            {
                Err(Error::Spec(_)) => Ok(()),
                other => Err(format!("{other:?}").into()),
            }
        };
        let tested: Tested = tested.await;
        container.remove().await?;
        tested
    })?
}

/// The groups of a running container, each as a directory of this host.
fn groups(container: &Container) -> Tested<Vec<PathBuf>> {
    let pid = container.inspect()?.pid.ok_or("no pid")?;
    let mut found = Vec::new();
    for controller in ["memory", "pids", "unified"] {
        found.extend(group(pid, controller)?);
    }
    found.retain(|path| path.is_dir() && path.ends_with(container.id()));
    match found.is_empty() {
        true => Err(Cannot("containers have no control groups here".into()).into()),
        false => Ok(found),
    }
}

fn parent() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    let name = format!("rdock-it-{}", std::process::id());
    let spec = || {
        Ok::<_, Box<dyn std::error::Error>>(
            probe(&["sleep 600000"])?
                .cgroup_parent(format!("/{name}/below"))
                .memory(64 << 20),
        )
    };
    blocking::wait(async {
        let one = spec()?.start(&place.runtime).await?;
        let other = spec()?.start(&place.runtime).await?;
        let tested = async {
            let found = groups(&one)?;
            for path in &found {
                let wanted = Path::new(&name).join("below").join(one.id());
                same(&path.ends_with(&wanted), &true).map_err(|_| format!("{}", path.display()))?;
            }
            // Everything else finds it there.
            same(&one.processes().await?.len(), &1)?;
            one.pause().await?;
            one.unpause().await?;
            let stats = one.stats().await?;
            same(&stats.memory.limit, &(64 << 20))?;
            Ok(found)
        };
        let tested: Tested<Vec<PathBuf>> = tested.await;
        one.remove().await?;
        let found = match tested {
            Ok(found) => found,
            Err(error) => {
                other.remove().await?;
                return Err(error);
            }
        };
        let parents: Vec<_> = found.iter().filter_map(|path| path.parent()).collect();
        let there = parents.iter().all(|parent| parent.is_dir());
        other.remove().await?;
        same(&there, &true)?;
        for parent in parents {
            same(&parent.exists(), &false).map_err(|_| format!("{} is left", parent.display()))?;
            let above = parent.parent().ok_or("no parent")?;
            same(&above.exists(), &false).map_err(|_| format!("{} is left", above.display()))?;
        }
        Ok(())
    })?
}

fn own_parent() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    // Where groups are made is seen by one that has none of its own.
    let top = blocking::wait(async {
        let container = probe(&["sleep 600000"])?.start(&place.runtime).await?;
        let found = groups(&container);
        container.remove().await?;
        let found = found?;
        Ok::<_, Box<dyn std::error::Error>>(
            found[0]
                .parent()
                .and_then(Path::parent)
                .ok_or("no parent")?
                .to_owned(),
        )
    })??;
    let name = format!("rdock-it-own-{}", std::process::id());
    let own = top.join(&name);
    std::fs::create_dir(&own).map_err(|error| Cannot(format!("{}: {error}", own.display())))?;
    let said = place.says(&probe(&["say ran"])?.cgroup_parent(&name));
    let there = own.is_dir();
    let left = std::fs::read_dir(&own).map(|entries| {
        let directories = entries.flatten().filter(|entry| entry.path().is_dir());
        directories.count()
    });
    std::fs::remove_dir(&own)?;
    same(said?.as_str(), "ran\n")?;
    same(&(there, left?), &(true, 0))
}

fn parents_outside() -> Tested {
    let place = Place::new()?;
    let other = "0f".repeat(32);
    for bad in [
        "",
        "..",
        "../x",
        "/../x",
        "a/../../x",
        "a/./b",
        "a//b",
        "a\0b",
        "a\nb",
        "a b",
        other.as_str(),
    ] {
        match place.run(&probe(&["say ran"])?.cgroup_parent(bad)) {
            Err(error) => match error.downcast_ref::<Error>() {
                Some(Error::Spec(error)) => same(error.findings[0].field.as_str(), "cgroup_parent")?,
                _ => return Err(error),
            },
            Ok(ran) => return Err(format!("{bad:?}: {ran:?}").into()),
        }
        same(&place.runtime.containers()?.len(), &0)?;
    }
    Ok(())
}
