//! What is mounted where.

use super::*;
use crate::launch::{MountFlags, Propagation};
use crate::spec::MountSource;

fn find<'a>(planned: &'a Planned, target: &str) -> Option<&'a PlannedMount> {
    planned.mounts.iter().find(|mount| mount.target == target)
}

fn targets(planned: &Planned) -> Vec<&str> {
    planned.mounts.iter().map(|mount| mount.target.as_str()).collect()
}

fn tmpfs(options: &[&str]) -> Mount {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    Mount {
        source: MountSource::Tmpfs {
            size: None,
            mode: None,
            options,
        },
        ..Mount::tmpfs("/t")
    }
}

#[test]
fn a_users_mount_replaces_the_default_one_and_dev_all_below_it() {
    let spec = ContainerSpec::new("image")
        .mount(Mount::tmpfs("/dev/shm"))
        .mount(Mount::bind("/h", "/etc/hosts"));
    let plan = accepted(&spec);
    assert_eq!(
        targets(&plan)
            .iter()
            .filter(|target| **target == "/dev/shm")
            .count(),
        1
    );
    assert!(matches!(
        find(&plan, "/dev/shm").expect("there").source,
        PlannedSource::Tmpfs { .. }
    ));
    assert!(matches!(
        find(&plan, "/etc/hosts").expect("there").source,
        PlannedSource::Bind { .. }
    ));

    let plan = accepted(&ContainerSpec::new("image").mount(Mount::bind("/dev", "/dev")));
    assert!(!targets(&plan).iter().any(|target| target.starts_with("/dev/")));
}

#[test]
fn parents_are_mounted_before_what_is_below_them() {
    let spec = ContainerSpec::new("image")
        .mount(Mount::volume("v1", "/a/b/c"))
        .mount(Mount::bind("/x", "/a"))
        .mount(Mount::tmpfs("/z"))
        .mount(Mount::volume("v2", "/a/b"));
    let image = image_with(json!({"Cmd": ["sh"], "Volumes": {"/z/image": {}}}));
    let plan = planned(&spec, &image, &host()).expect("plan");
    let own: Vec<_> = targets(&plan)
        .into_iter()
        .skip_while(|target| *target != "/a")
        .collect();
    let expected = [
        "/a",
        "/z",
        "/a/b",
        "/z/image",
        "/a/b/c",
        "/etc/resolv.conf",
        "/etc/hostname",
        "/etc/hosts",
    ];
    assert_eq!(own, expected);
}

#[test]
fn targets_are_absolute_not_the_root_and_mounted_once() {
    for bad in ["", "a", "./a", "/", "//", "/a/..", "/a\0"] {
        refused(
            &ContainerSpec::new("image").mount(Mount::tmpfs(bad)),
            "mounts[0].target",
        );
    }
    let twice = ContainerSpec::new("image")
        .mount(Mount::tmpfs("/a/b"))
        .mount(Mount::bind("/x", "/a//./c/../b/"));
    refused(&twice, "mounts[1].target");
    let plan = accepted(&ContainerSpec::new("image").mount(Mount::tmpfs("/a/../b/")));
    assert!(find(&plan, "/b").is_some());
}

#[test]
fn volumes_of_the_image_are_anonymous_unless_something_is_mounted_there() {
    let image = image_with(json!({"Cmd": ["sh"], "Volumes": {"/data": {}, "/log/": {}}}));
    let spec = ContainerSpec::new("image").mount(Mount::volume("own", "/log"));
    let plan = planned(&spec, &image, &host()).expect("plan");
    let data = find(&plan, "/data").expect("there");
    assert_eq!(
        data.source,
        PlannedSource::Volume {
            name: None,
            no_copy: false,
            subpath: None,
            labels: Default::default(),
        }
    );
    assert!(
        matches!(&find(&plan, "/log").expect("there").source, PlannedSource::Volume { name: Some(name), .. } if name == "own")
    );
    assert_eq!(
        targets(&plan).iter().filter(|target| **target == "/log").count(),
        1
    );
    for bad in ["/", "", "relative", "/..", "/a\0"] {
        let image = image_with(json!({"Cmd": ["sh"], "Volumes": {bad: {}}}));
        let found = findings_with(&ContainerSpec::new("image"), &image, &host());
        assert!(
            matches!(found.as_slice(), [one] if one.starts_with("image.volumes: ")),
            "{bad:?}: {found:?}"
        );
    }
}

#[test]
fn read_only_binds_are_recursive_where_the_kernel_can() {
    let spec = ContainerSpec::new("image").mount(Mount::bind("/x", "/a").read_only());
    let flags = |host: &HostFacts| {
        find(&planned(&spec, &image(), host).expect("plan"), "/a")
            .expect("there")
            .flags
    };
    let read_only = MountFlags {
        read_only: true,
        ..MountFlags::default()
    };
    assert_eq!(
        flags(&host()),
        MountFlags {
            recursive_read_only: true,
            ..read_only
        }
    );
    assert_eq!(
        flags(&HostFacts {
            kernel: (5, 10),
            ..host()
        }),
        read_only
    );
}

#[test]
fn a_bind_is_private_unless_asked() {
    let with = |word: Option<&str>| {
        let source = MountSource::Bind {
            path: "/x".into(),
            create: false,
            propagation: word.map(str::to_owned),
        };
        ContainerSpec::new("image").mount(Mount {
            source,
            ..Mount::tmpfs("/a")
        })
    };
    for (word, expected) in [
        (None, Propagation::Private),
        (Some("private"), Propagation::Private),
        (Some("rslave"), Propagation::Slave),
        (Some("shared"), Propagation::Shared),
    ] {
        let plan = accepted(&with(word));
        assert!(
            matches!(find(&plan, "/a").expect("there").source, PlannedSource::Bind { propagation, .. } if propagation == expected),
            "{word:?}"
        );
    }
    refused(&with(Some("unbindable")), "mounts[0].propagation");
    refused(
        &ContainerSpec::new("image").mount(Mount::bind("", "/a")),
        "mounts[0].source",
    );
    refused(
        &ContainerSpec::new("image").mount(Mount::bind("/a\0b", "/a")),
        "mounts[0].source",
    );
}

#[test]
fn a_tmpfs_has_dockers_flags_and_options() {
    let shown = |mount: Mount| {
        find(&accepted(&ContainerSpec::new("image").mount(mount)), "/t")
            .expect("there")
            .to_string()
    };
    let sized = Mount {
        source: MountSource::Tmpfs {
            size: Some(4096),
            mode: Some(0o700),
            options: Vec::new(),
        },
        ..Mount::tmpfs("/t")
    };
    assert_eq!(shown(tmpfs(&[])), "/t user's tmpfs nosuid nodev noexec");
    assert_eq!(
        shown(sized),
        "/t user's tmpfs mode=700,size=4096 nosuid nodev noexec"
    );
    assert_eq!(
        shown(tmpfs(&["exec", "suid", "dev", "size=64m"])),
        "/t user's tmpfs size=64m"
    );
    assert_eq!(
        shown(tmpfs(&["ro", "rw", "mode=0755"])),
        "/t user's tmpfs mode=0755 nosuid nodev noexec"
    );
    assert_eq!(
        shown(tmpfs(&["uid=1000", "gid=5", "nr_inodes=1k"])),
        "/t user's tmpfs uid=1000,gid=5,nr_inodes=1k nosuid nodev noexec"
    );
    assert_eq!(
        shown(tmpfs(&[]).read_only()),
        "/t user's tmpfs ro nosuid nodev noexec"
    );
    for bad in [
        "size",
        "size=",
        "size=1x",
        "mode=9",
        "mode=17777",
        "uid=-1",
        "uid=4294967296",
        "huge=always",
        "bind",
        "a=b",
        "exec=1",
        "",
    ] {
        refused(
            &ContainerSpec::new("image").mount(tmpfs(&[bad])),
            "mounts[0].options",
        );
    }
}

#[test]
fn a_volumes_subpath_stays_inside() {
    let with = |path: &str| {
        let source = MountSource::Volume {
            name: Some("data".into()),
            no_copy: false,
            subpath: Some(path.into()),
        };
        ContainerSpec::new("image").mount(Mount {
            source,
            ..Mount::tmpfs("/a")
        })
    };
    accepted(&with("a/b"));
    for bad in ["", "/a", "..", "a/../b", "a/..", "a\0"] {
        refused(&with(bad), "mounts[0].subpath");
    }
    refused(
        &ContainerSpec::new("image").mount(Mount::volume("a/b", "/a")),
        "mounts[0].source",
    );
}

#[test]
fn cgroups_are_shown_as_the_host_has_them() {
    let shown = |cgroup, mode: NamespaceMode| {
        let spec = ContainerSpec {
            cgroup_namespace: mode,
            ..ContainerSpec::new("image")
        };
        let plan = planned(&spec, &image(), &HostFacts { cgroup, ..host() }).expect("plan");
        find(&plan, "/sys/fs/cgroup").map(ToString::to_string)
    };
    let flags = "ro nosuid nodev noexec";
    let private = NamespaceMode::Private;
    assert_eq!(
        shown(CgroupView::V2, private.clone()),
        Some(format!("/sys/fs/cgroup cgroup2 {flags}"))
    );
    assert_eq!(
        shown(CgroupView::V1, private.clone()),
        Some(format!("/sys/fs/cgroup cgroup1 {flags}"))
    );
    assert_eq!(shown(CgroupView::None, private), None);
    assert_eq!(
        shown(CgroupView::V2, NamespaceMode::Host),
        Some(format!("/sys/fs/cgroup host /sys/fs/cgroup {flags}"))
    );
}

#[test]
fn a_read_only_root_has_read_only_files_of_ours() {
    let plan = accepted(&ContainerSpec::new("image").read_only(true));
    assert!(plan.root_read_only);
    assert!(find(&plan, "/etc/hosts").expect("there").flags.read_only);
    assert!(!find(&plan, "/dev/shm").expect("there").flags.read_only);
    assert!(
        !find(&accepted(&ContainerSpec::new("image")), "/etc/hosts")
            .expect("there")
            .flags
            .read_only
    );
}

#[test]
fn a_joined_ipc_namespace_brings_its_shared_memory() {
    let spec = ContainerSpec {
        ipc: NamespaceMode::Container("web".into()),
        ..ContainerSpec::new("image")
    };
    let plan = accepted(&spec);
    assert_eq!(
        find(&plan, "/dev/shm").expect("there").source,
        PlannedSource::Later(LaterSource::OfIpcContainer("/dev/shm"))
    );
}

#[test]
fn this_hosts_thermal_directories_are_masked() {
    let path = "/sys/devices/system/cpu/cpu0/thermal_throttle".to_owned();
    let host = HostFacts {
        thermal_paths: vec![path.clone()],
        ..host()
    };
    assert!(
        planned(&ContainerSpec::new("image"), &image(), &host)
            .expect("plan")
            .masked_paths
            .contains(&path)
    );
}

#[test]
fn without_root_a_tmpfs_belongs_to_id_0() {
    let found = |option: &str| {
        findings_with(
            &ContainerSpec::new("image").mount(tmpfs(&[option])),
            &image(),
            &rootless(),
        )
    };
    assert_eq!(found("uid=0"), [""; 0]);
    for option in ["uid=7", "gid=100"] {
        assert!(
            matches!(found(option).as_slice(), [one] if one.starts_with("mounts[0].options: ")),
            "{option}"
        );
    }
}
