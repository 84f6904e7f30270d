//! From a plan to mounts that exist, and to the launch plan.

use super::*;
use crate::launch::{BindPlan, MountKind, MountPlan, NamespacePlan, NetworkPlan};
use crate::plan::prepare::{PreparedMount, PreparedMounts};
use crate::spec::MountSource;
use crate::volume::{VolumeError, Volumes};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

struct Place {
    root: tempfile::TempDir,
    volumes: Volumes,
}

fn place() -> Place {
    let root = tempfile::tempdir().expect("tempdir");
    let volumes = Volumes::open(root.path()).expect("volumes");
    Place { root, volumes }
}

fn mount_at<'a>(prepared: &'a PreparedMounts, target: &str) -> &'a MountPlan {
    let found = prepared.mounts.iter().find_map(|mount| match mount {
        PreparedMount::Ready(plan) if plan.target == Path::new(target) => Some(plan),
        _ => None,
    });
    found.expect("a ready mount")
}

fn bind_at<'a>(prepared: &'a PreparedMounts, target: &str) -> &'a BindPlan {
    match &mount_at(prepared, target).kind {
        MountKind::Bind(bind) => bind,
        other => panic!("{other:?}"),
    }
}

fn create(path: &Path, target: &str) -> Mount {
    let source = MountSource::Bind {
        path: path.to_owned(),
        create: true,
        propagation: None,
    };
    Mount {
        source,
        ..Mount::tmpfs(target)
    }
}

#[test]
fn a_bind_needs_its_source_unless_it_is_to_be_made() {
    let place = place();
    let missing = place.root.path().join("a/missing");
    let plan = accepted(&ContainerSpec::new("image").mount(Mount::bind(&missing, "/x")));
    let refused = plan.prepare_mounts(&place.volumes);
    assert!(
        matches!(&refused, Err(VolumeError::MissingSource { path }) if *path == missing),
        "{refused:?}"
    );
    assert!(!missing.exists());

    let plan = accepted(&ContainerSpec::new("image").mount(create(&missing, "/x")));
    let prepared = plan.prepare_mounts(&place.volumes).expect("prepare");
    let meta = fs::metadata(&missing).expect("made");
    assert!(meta.is_dir());
    let bind = bind_at(&prepared, "/x");
    assert_eq!(
        (&bind.source, bind.expect, bind.recursive, bind.copy_up.is_some()),
        (&missing, (meta.dev(), meta.ino()), true, false)
    );

    let file = place.root.path().join("file");
    fs::write(&file, "").expect("write");
    let plan = accepted(&ContainerSpec::new("image").mount(create(&file, "/x").read_only()));
    let prepared = plan.prepare_mounts(&place.volumes).expect("prepare");
    assert!(fs::metadata(&file).expect("stat").is_file());
    assert_eq!(prepared.infos[0].kind, "bind");
    assert_eq!(
        (prepared.infos[0].target.as_str(), prepared.infos[0].read_only),
        ("/x", true)
    );
}

#[test]
fn a_relative_source_is_relative_to_the_callers_directory() {
    let place = place();
    let plan = accepted(&ContainerSpec::new("image").mount(Mount::bind("src", "/x")));
    let prepared = plan
        .prepare_mounts(&place.volumes)
        .expect("cargo runs tests in the package");
    let expected = std::env::current_dir().expect("cwd").join("src");
    assert_eq!(bind_at(&prepared, "/x").source, expected);
    assert_eq!(Path::new(&prepared.infos[0].source), expected);
}

#[test]
fn volumes_are_made_reserved_and_filled_once() {
    let place = place();
    let image = image_with(json!({"Cmd": ["sh"], "Volumes": {"/anonymous": {}}}));
    let spec = ContainerSpec::new("image")
        .mount(Mount::volume("data", "/data"))
        .mount(Mount::volume("data", "/again"))
        .mount(Mount {
            source: MountSource::Volume {
                name: Some("plain".into()),
                no_copy: true,
                subpath: None,
            },
            ..Mount::tmpfs("/plain")
        });
    let plan = planned(&spec, &image, &host()).expect("plan");
    let prepared = plan.prepare_mounts(&place.volumes).expect("prepare");
    let copied: Vec<_> = ["/data", "/again", "/plain", "/anonymous"]
        .map(|target| bind_at(&prepared, target).copy_up.is_some())
        .into();
    assert_eq!(copied, [true, false, false, true]);
    assert_eq!(
        bind_at(&prepared, "/data").source,
        place.root.path().join("volumes/data/_data")
    );
    let [anonymous] = prepared.anonymous_volumes.as_slice() else {
        panic!("{:?}", prepared.anonymous_volumes)
    };
    assert!(place.volumes.get(anonymous).expect("made").anonymous);
    assert!(matches!(
        place.volumes.remove("data", false),
        Err(VolumeError::InUse { .. })
    ));
    let infos: Vec<_> = prepared
        .infos
        .iter()
        .map(|info| (info.kind.as_str(), info.target.as_str()))
        .collect();
    assert_eq!(
        infos,
        [
            ("volume", "/data"),
            ("volume", "/again"),
            ("volume", "/plain"),
            ("volume", "/anonymous")
        ]
    );

    // The next container: used without being filled, so never filled.
    drop(prepared);
    let spec = ContainerSpec::new("image").mount(Mount::volume("plain", "/data"));
    let prepared = accepted(&spec).prepare_mounts(&place.volumes).expect("prepare");
    assert!(bind_at(&prepared, "/data").copy_up.is_none());
}

#[test]
fn what_fails_leaves_no_anonymous_volume_and_no_reservation() {
    let place = place();
    let spec = ContainerSpec::new("image")
        .mount(Mount::anonymous("/a"))
        .mount(Mount::volume("data", "/data"))
        .mount(Mount::bind("/nonexistent/rdock", "/x"));
    let refused = accepted(&spec).prepare_mounts(&place.volumes);
    assert!(
        matches!(refused, Err(VolumeError::MissingSource { .. })),
        "{refused:?}"
    );
    let names: Vec<_> = place
        .volumes
        .list()
        .expect("list")
        .into_iter()
        .map(|volume| volume.name)
        .collect();
    assert_eq!(names, ["data"]);
    place.volumes.remove("data", false).expect("nobody has it");
}

fn launch(spec: &ContainerSpec, place: &Place) -> Result<crate::launch::LaunchPlan, VolumeError> {
    let plan = accepted(spec);
    let prepared = plan.prepare_mounts(&place.volumes)?;
    let state = place.root.path().join("state");
    fs::create_dir_all(&state).expect("mkdir");
    let mounts = std::sync::Arc::new(fs::File::open("/proc/self/ns/mnt").expect("open").into());
    let places = Places {
        state_dir: &state,
        network_dir: &state,
        ipc_mounts: Some(&mounts),
        cgroup_hierarchies: &[],
    };
    plan.into_launch(prepared.mounts, Vec::new(), places, |kind, name| {
        assert_eq!(name, "web");
        assert_ne!(kind, NamespaceKind::Pid);
        Ok(fs::File::open("/dev/null").expect("open").into())
    })
}

#[test]
fn the_launch_plan_binds_the_files_of_the_state_directory() {
    let place = place();
    let missing = launch(&ContainerSpec::new("image"), &place);
    assert!(
        matches!(missing, Err(VolumeError::MissingSource { .. })),
        "{missing:?}"
    );
    for name in ["hosts", "hostname", "resolv.conf"] {
        fs::write(place.root.path().join("state").join(name), "").expect("write");
    }
    let plan = launch(&ContainerSpec::new("image").read_only(true), &place).expect("launch");
    assert!(plan.root.read_only && plan.hostname.is_some());
    assert!(matches!(
        (&plan.pid, &plan.network),
        (NamespacePlan::New, NetworkPlan::None)
    ));
    let sources: Vec<_> = plan
        .mounts
        .iter()
        .filter_map(|mount| match &mount.kind {
            MountKind::Bind(bind) => bind
                .source
                .file_name()
                .map(|name| name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(sources, ["resolv.conf", "hostname", "hosts"]);
}

#[test]
fn namespaces_of_others_are_opened_by_the_caller() {
    let place = place();
    fs::create_dir_all(place.root.path().join("state")).expect("mkdir");
    for name in ["hosts", "hostname", "resolv.conf"] {
        fs::write(place.root.path().join("state").join(name), "").expect("write");
    }
    fs::create_dir_all(place.root.path().join("dev/shm")).expect("mkdir");
    let web = || NamespaceMode::Container("web".into());
    let spec = ContainerSpec {
        ipc: web(),
        pid: NamespaceMode::Host,
        ..ContainerSpec::new("image")
    };
    let plan = launch(&spec.network(NetworkMode::Container("web".into())), &place).expect("launch");
    assert!(matches!(plan.ipc, NamespacePlan::Join(_)) && matches!(plan.pid, NamespacePlan::Host));
    assert!(matches!(plan.network, NetworkPlan::Join(_)));
    let shm = plan
        .mounts
        .iter()
        .find(|mount| mount.target == Path::new("/dev/shm"))
        .expect("mounted");
    assert!(matches!(&shm.kind, MountKind::OfContainer { path, .. } if path == Path::new("/dev/shm")));
}
