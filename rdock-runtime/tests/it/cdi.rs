//! Devices that specification files describe.

use crate::probe::{Place, link, probe};
use crate::{Tested, needs_root, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{CdiDevice, CdiError, ContainerSpec, Error, UserNamespace, blocking};
use std::path::{Path, PathBuf};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_described_device_brings_everything_its_file_says", everything),
        trial("a_described_device_is_bound_where_no_node_can_be_made", bound),
        trial("a_start_reads_the_description_anew", anew),
        trial("what_is_not_described_leaves_nothing", undescribed),
        trial(
            "rt_hook_env_a_place_of_a_description_stays_inside_the_root",
            inside_the_root,
        ),
    ]
}

/// A directory of descriptions with one file, whose device `test.com/thing=one` has these edits.
pub(crate) fn described(place: &Place, own: &str, common: &str) -> Tested<PathBuf> {
    let directory = place.root.path().join("cdi");
    std::fs::create_dir_all(&directory)?;
    let text = format!(
        "cdiVersion: 1.0.0\nkind: test.com/thing\ncontainerEdits: {common}\ndevices:\n- name: one\n  containerEdits: {own}\n"
    );
    std::fs::write(directory.join("test.yaml"), text)?;
    Ok(directory)
}

pub(crate) fn with(lines: &[&str], directory: &Path) -> Tested<ContainerSpec> {
    Ok(probe(lines)?
        .cdi_directory(directory)
        .device(CdiDevice::parse("test.com/thing=one")?))
}

fn everything() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    let things = place.root.path().join("things");
    std::fs::create_dir(&things)?;
    std::fs::write(things.join("file"), "of the host")?;
    let things = things.display();
    let directory = described(
        &place,
        &format!(
            "{{env: [THING=one, OWN=description], additionalGids: [4711], deviceNodes: [{{path: /dev/things/full, \
             hostPath: /dev/full, permissions: r, fileMode: 420, uid: 5, gid: 6}}], mounts: [{{hostPath: {things}, \
             containerPath: /opt/things, options: [ro, nosuid, nodev, rbind]}}]}}"
        ),
        "{env: [COMMON=all], deviceNodes: [{path: /dev/zero2, type: c, major: 1, minor: 5}]}",
    )?;
    let spec = with(
        &[
            "env",
            "device /dev/things/full",
            "stat /dev/things/full",
            "device /dev/zero2",
            "cat /opt/things/file",
            "write /opt/things/file x",
            "groups",
        ],
        &directory,
    )?
    .env("OWN", "container");
    let said = place.says(&spec)?;
    let lines: Vec<&str> = said.lines().collect();
    for variable in ["THING=one;", "OWN=description;", "COMMON=all;"] {
        same(&lines[0].contains(variable), &true)
            .map_err(|error| format!("{variable}: {error}: {}", lines[0]))?;
    }
    same(
        &lines[1..6],
        &["1:7", "20644 5:6", "1:5", "of the host", "errno 30"],
    )?;
    same(&lines[6].split(' ').any(|group| group == "4711"), &true)?;
    // An exec has the variables too, and what was asked for is what inspect shows.
    blocking::wait(async {
        let container = with(&["sleep 600000"], &directory)?.start(&place.runtime).await?;
        let output = container.exec(["/test"]).env("PROBE", "env").output().await;
        let shown = container.inspect()?.spec.cdi_devices;
        container.remove().await?;
        let text = String::from_utf8_lossy(&output?.stdout).into_owned();
        same(&text.contains("THING=one;"), &true)?;
        same(&shown, &vec![CdiDevice::parse("test.com/thing=one")?])
    })?
}

fn bound() -> Tested {
    let place = Place::new()?;
    let directory = described(
        &place,
        "{deviceNodes: [{path: /dev/other, hostPath: /dev/null}], additionalGids: [4711]}",
        "{}",
    )?;
    let mut spec = with(&["device /dev/other", "open /dev/other"], &directory)?;
    if rustix::process::geteuid().is_root() {
        spec.user_namespace = UserNamespace::Mapped {
            uids: vec![(0, 0, 1)],
            gids: vec![(0, 0, 1)],
        };
    }
    let said = place.says(&spec)?;
    same(&said.lines().collect::<Vec<_>>(), &vec!["1:3", "opened"])
}

fn anew() -> Tested {
    let place = Place::new()?;
    let directory = described(&place, "{env: [RUN=first]}", "{}")?;
    let spec = with(&["env"], &directory)?;
    blocking::wait(async {
        let container = spec.create(&place.runtime).await?;
        let run = async |expected: &str| -> Tested {
            container.start().await?;
            container.wait().await?;
            let mut logs = container.logs();
            let mut last = String::new();
            while let Some(line) = logs.next().await? {
                last = String::from_utf8_lossy(&line.bytes).into_owned();
            }
            same(&last.contains(expected), &true)
                .map_err(|error| format!("{expected}: {error}: {last}").into())
        };
        let tested = async {
            run("RUN=first;").await?;
            described(&place, "{env: [RUN=second]}", "{}")?;
            run("RUN=second;").await?;
            // Gone meanwhile: the container stays as it is.
            std::fs::remove_dir_all(&directory)?;
            let error = container
                .start()
                .await
                .err()
                .ok_or("started without its device")?;
            same(
                &crate::chain(&error).contains("no CDI device test.com/thing=one"),
                &true,
            )?;
            described(&place, "{env: [RUN=third]}", "{}")?;
            run("RUN=third;").await
        };
        let tested: Tested = tested.await;
        container.remove_with(true, true).await?;
        tested
    })?
}

/// The error of a start that leaves nothing.
pub(crate) fn refused(place: &Place, spec: &ContainerSpec) -> Tested<Error> {
    let error = match place.run(spec) {
        Err(error) => *error.downcast::<Error>()?,
        Ok(ran) => return Err(format!("{ran:?}").into()),
    };
    same(&place.runtime.containers()?.len(), &0)?;
    same(&place.runtime.images().snapshots()?.len(), &0)?;
    Ok(error)
}

fn undescribed() -> Tested {
    let place = Place::new()?;
    let directory = described(
        &place,
        "{env: [A=b]}",
        "{mounts: [{hostPath: /none/such, containerPath: /x}]}",
    )?;
    match refused(&place, &with(&["say ran"], &directory)?)? {
        Error::Cdi(CdiError::Edit { field, path, .. }) => {
            same(&field.as_str(), &"containerEdits.mounts[0]")?;
            same(&path, &directory.join("test.yaml"))?;
        }
        other => return Err(format!("{other:?}").into()),
    }
    std::fs::write(directory.join("test.yaml"), "cdiVersion: 1.0.0\nkind: [\n")?;
    match refused(&place, &with(&["say ran"], &directory)?)? {
        Error::Cdi(error @ CdiError::NoSuchDevice { .. }) => {
            // The file that could have described it is named, with the line.
            same(&error.to_string().contains("test.yaml:"), &true)
        }
        other => Err(format!("{other:?}").into()),
    }
}

fn inside_the_root() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    let canary = place.root.path().join("canary");
    std::fs::create_dir(&canary)?;
    let outside = canary.display().to_string();
    let evil = [
        link("opt", &outside),
        link("relative", "../../../../../../../../tmp"),
    ];
    let place = Place::with("{}", &evil)?;
    let source = place.root.path().join("source");
    std::fs::write(&source, "of the host")?;
    let source = source.display();
    let directory = described(
        &place,
        &format!(
            "{{mounts: [{{hostPath: {source}, containerPath: /opt/file}}, {{hostPath: {source}, containerPath: \
             /relative/file}}], deviceNodes: [{{path: /opt/null, hostPath: /dev/null}}]}}"
        ),
        "{}",
    )?;
    let inside = format!("cat {outside}/file");
    let node = format!("device {outside}/null");
    let spec = with(&[&inside, "cat /tmp/file", &node], &directory)?;
    let said = place.says(&spec)?;
    same(
        &said.lines().collect::<Vec<_>>(),
        &vec!["of the host", "of the host", "1:3"],
    )?;
    same(&std::fs::read_dir(&canary)?.count(), &0)
}
