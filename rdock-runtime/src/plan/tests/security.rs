//! What a hostile image, or a careless caller, cannot get past the plan. Named after known attacks.

use super::*;
use proptest::prelude::*;

#[test]
fn rt_env_host_leak_entries_without_a_value_are_no_variables() {
    let image = image_with(
        json!({"Cmd": ["sh"], "Env": ["*", "PATH", "=x", "", "=", "AWS_", "HOME", "HOME_SECRET", "A\u{0}=b", "OK=1"]}),
    );
    let plan = planned(&ContainerSpec::new("image"), &image, &host()).expect("plan");
    let env: Vec<_> = plan
        .process
        .env
        .iter()
        .map(|entry| String::from_utf8_lossy(entry).into_owned())
        .collect();
    let default = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(env, [default, "HOSTNAME=0123456789ab", "OK=1"]);
    // This process has variables; none of their values is in the plan.
    let own = std::env::vars().filter(|(name, value)| name != "PATH" && value.len() > 8);
    for (name, value) in own {
        assert!(!env.iter().any(|entry| entry.contains(&value)), "{name}");
    }
}

#[test]
fn rt_user_numeric_a_number_is_that_id_or_an_error() {
    let good = [
        "",
        "0",
        "1000",
        "1:1",
        "2147483647",
        "0:2147483647",
        "www-data",
        "www-data:33",
        "a.b_c$",
        "007",
    ];
    for user in good {
        assert_eq!(
            accepted(&ContainerSpec::new("image").user(user)).process.user,
            user
        );
    }
    let bad = [
        ":",
        ":0",
        ":1",
        "-1",
        "-1:0",
        "+1",
        "0:-1",
        "2147483648",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "0:2147483648",
        "1:2:3",
        "a b",
        " 0",
        "0 ",
        "0\n",
        "root\n",
        "root\t",
        "a/b",
        "a,b",
        "a\0",
    ];
    for user in bad {
        refused(&ContainerSpec::new("image").user(user), "user");
        let image = image_with(json!({"Cmd": ["sh"], "User": user}));
        let found = findings_with(&ContainerSpec::new("image"), &image, &host());
        assert!(
            matches!(found.as_slice(), [one] if one.starts_with("image.user: ")),
            "{user:?}: {found:?}"
        );
    }
    // Not a number to anybody: a name, which the image's passwd has or has not.
    assert_eq!(
        accepted(&ContainerSpec::new("image").user("0x0")).process.user,
        "0x0"
    );
}

#[test]
fn rt_passwd_newline_no_field_of_a_passwd_line_can_hold_another() {
    for bad in ["/root\nevil::0:0::/:/bin/sh", "/a:b", "/a\r", "\n"] {
        refused(&ContainerSpec::new("image").env("HOME", bad), "env");
        let image = image_with(json!({"Cmd": ["sh"], "Env": [format!("HOME={bad}")]}));
        let found = findings_with(&ContainerSpec::new("image"), &image, &host());
        assert!(
            matches!(found.as_slice(), [one] if one.starts_with("image.env: ")),
            "{bad:?}: {found:?}"
        );
        // Replaced, it does no harm.
        assert!(planned(&ContainerSpec::new("image").env("HOME", "/root"), &image, &host()).is_ok());
    }
    for bad in ["a\nb", "a:b"] {
        refused(&ContainerSpec::new("image").user(format!("{bad}:0:0")), "user");
        refused(&ContainerSpec::new("image").hostname(bad), "hostname");
    }
}

#[test]
fn rt_sysctl_grammar_only_parameters_of_the_containers_own_namespaces() {
    let with = |name: &str, value: &str| {
        let mut spec = ContainerSpec::new("image");
        spec.sysctls.insert(name.into(), value.into());
        spec
    };
    for (name, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.eth0.rp_filter", "0"),
        ("net.core.somaxconn", "1024"),
        ("kernel.msgmax", "65536"),
        ("kernel.sem", "250 32000 100 128"),
        ("kernel.shm_rmid_forced", "1"),
        ("kernel.domainname", "example.com"),
        ("fs.mqueue.msg_max", "10"),
    ] {
        accepted(&with(name, value));
    }
    for (name, value) in [
        ("kernel.core_pattern", "|/bin/evil"),
        ("kernel.hostname", "a"),
        ("kernel.shm", "1"),
        ("kernel", "1"),
        ("vm.swappiness", "1"),
        ("fs.file-max", "1"),
        ("fs.mqueue", "1"),
        ("fs.mqueue.", "1"),
        ("net", "1"),
        ("net.", "1"),
        ("net..ipv4", "1"),
        ("net.ipv4.ip_forward=1+kernel.core_pattern", "1"),
        ("a+b", "c"),
        ("net/ipv4/ip_forward", "1"),
        ("net.../../kernel/core_pattern", "1"),
        ("net.a b", "1"),
        ("net.ipv4.ip_forward", "1\nkernel.core_pattern=x"),
        ("net.ipv4.ip_forward", "1\0"),
        ("", "1"),
    ] {
        refused(&with(name, value), &format!("sysctls[{name:?}]"));
    }
    refused(
        &with("net.core.somaxconn", "1").network(NetworkMode::Host),
        "sysctls[\"net.core.somaxconn\"]",
    );
    refused(
        &ContainerSpec {
            ipc: NamespaceMode::Host,
            ..with("kernel.sem", "1")
        },
        "sysctls[\"kernel.sem\"]",
    );
    refused(
        &ContainerSpec {
            uts: NamespaceMode::Host,
            ..with("kernel.domainname", "a")
        },
        "sysctls[\"kernel.domainname\"]",
    );
}

#[test]
fn rt_id_path_ids_and_names_never_become_other_paths() {
    let long = "a".repeat(129);
    for bad in ["", "..", "../x", "a/b", "/", "a\0b", "a", ".hidden", "a b", &long] {
        refused(&ContainerSpec::new("image").name(bad), "name");
        let subject = Subject {
            id: bad,
            detached: false,
        };
        let error = plan(subject, &ContainerSpec::new("image"), &image(), &host()).expect_err("refused");
        assert!(
            error.findings.iter().any(|finding| finding.field == "id"),
            "{bad:?}: {error}"
        );
    }
}

#[test]
fn rt_fake_procfs_nothing_replaces_the_kernels_views() {
    for path in [
        "/proc",
        "/proc/",
        "/proc/self",
        "/proc/sys",
        "/x/../proc",
        "/sys",
        "/sys/fs/cgroup",
        "/sys/kernel",
    ] {
        let image = image_with(json!({"Cmd": ["sh"], "Volumes": {path: {}}}));
        let plan = planned(&ContainerSpec::new("image"), &image, &host()).expect("plan");
        assert!(
            matches!(plan.warnings.as_slice(), [Warning::ImageVolume { .. }]),
            "{path}: {:?}",
            plan.warnings
        );
        assert!(
            !plan
                .mounts
                .iter()
                .any(|mount| matches!(mount.source, PlannedSource::Volume { .. })),
            "{path}"
        );
        assert_eq!(plan.mounts[0].to_string(), "/proc proc nosuid nodev noexec");
    }
    for target in [
        "/proc",
        "/proc/1",
        "/proc/sys/kernel",
        "/proc/self/attr",
        "//proc/./x",
        "/a/../proc/b",
    ] {
        refused(
            &ContainerSpec::new("image").mount(Mount::volume("data", target)),
            "mounts[0].target",
        );
        refused(
            &ContainerSpec::new("image").mount(Mount::bind("/tmp", target)),
            "mounts[0].target",
        );
        refused(
            &ContainerSpec::new("image").mount(Mount::tmpfs(target)),
            "mounts[0].target",
        );
    }
    // What docker allows: the host's procfs itself, and single files for lxcfs.
    accepted(&ContainerSpec::new("image").mount(Mount::bind("/proc", "/proc")));
    accepted(&ContainerSpec::new("image").mount(Mount::bind("/var/lib/lxcfs/proc/meminfo", "/proc/meminfo")));
    accepted(&ContainerSpec::new("image").mount(Mount::tmpfs("/process")));
}

#[test]
fn rt_volume_copyup_source_a_volume_path_stays_below_the_root() {
    let image = image_with(json!({"Cmd": ["sh"], "Volumes": {"/../../../etc": {}, "/a/../../b": {}}}));
    let plan = planned(&ContainerSpec::new("image"), &image, &host()).expect("plan");
    let volumes = plan
        .mounts
        .iter()
        .filter(|mount| matches!(mount.source, PlannedSource::Volume { .. }));
    assert_eq!(
        volumes.map(|mount| mount.target.as_str()).collect::<Vec<_>>(),
        ["/etc", "/b"]
    );
}

#[test]
fn rt_label_control_labels_and_annotations_of_an_image_change_nothing() {
    let plain = image_with(json!({"Cmd": ["sh"]}));
    let hostile = image_with(json!({
        "Cmd": ["sh"],
        "Labels": {
            "privileged": "true",
            "io.rdock.privileged": "true",
            "com.docker.network": "host",
            "io.containerd.runc.options": "binary:///bin/sh",
            "mount": "/,ro=false",
        },
        "Privileged": true,
        "Hostname": "evil",
        "Annotations": {"run.oci.mount": "/:/host"},
    }));
    let spec = ContainerSpec::new("image")
        .label("privileged", "true")
        .label("a,b", "rw,suid");
    let plan = |image| planned(&spec, image, &host()).expect("plan").to_string();
    assert_eq!(plan(&hostile), plan(&plain));
}

#[test]
fn rt_caps_nonroot_a_user_is_no_reason_for_ambient_capabilities() {
    let mut spec = ContainerSpec::new("image").user("1000");
    spec.cap_add = vec!["ALL".into()];
    assert_eq!(accepted(&spec).process.capabilities.ambient, 0);
    assert_eq!(
        accepted(&ContainerSpec::new("image").user("1000"))
            .process
            .capabilities
            .ambient,
        0
    );
}

#[test]
fn only_a_privileged_container_sees_and_writes_what_is_the_hosts() {
    let plan = accepted(&ContainerSpec::new("image"));
    for path in [
        "/proc/kcore",
        "/proc/keys",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
        "/proc/interrupts",
    ] {
        assert!(plan.masked_paths.iter().any(|masked| masked == path), "{path}");
    }
    for path in ["/proc/sys", "/proc/sysrq-trigger", "/proc/bus"] {
        assert!(plan.readonly_paths.iter().any(|one| one == path), "{path}");
    }
    for target in ["/sys", "/sys/fs/cgroup"] {
        let mount = plan
            .mounts
            .iter()
            .find(|mount| mount.target == target)
            .expect("mounted");
        assert!(mount.flags.read_only, "{target}");
    }
    let privileged = accepted(&ContainerSpec {
        privileged: true,
        ..ContainerSpec::new("image")
    });
    assert!(privileged.masked_paths.is_empty() && privileged.readonly_paths.is_empty());
    assert_eq!(privileged.seccomp, Seccomp::Unconfined);
}

#[test]
fn the_hosts_devices_are_for_privileged_containers_alone() {
    let host = HostFacts::gather(true);
    let devices = |privileged| {
        let spec = ContainerSpec {
            privileged,
            ..ContainerSpec::new("image")
        };
        let host = HostFacts {
            euid: 0,
            ..host.clone()
        };
        planned(&spec, &image(), &host).expect("plan").devices.len()
    };
    assert_eq!(devices(false), 6);
    assert!(devices(true) >= 6);
    assert!(HostFacts::gather(false).devices.is_empty());
}

proptest! {
    #[test]
    fn no_text_makes_planning_panic(
        text in "\\PC{0,30}",
        path in "[/.a\\x00:-]{0,30}",
        number: u64,
    ) {
        let image = image_with(json!({
            "Cmd": [text.clone()], "Entrypoint": [path.clone()], "Env": [text.clone(), format!("{path}={text}")],
            "User": text.clone(), "WorkingDir": path.clone(), "StopSignal": text.clone(), "Volumes": {path.clone(): {}},
        }));
        let mut spec = ContainerSpec::new(&text)
            .name(&path)
            .hostname(&text)
            .user(format!("{text}:{path}"))
            .working_dir(&path)
            .env(&text, &path)
            .mount(Mount::bind(&path, &path))
            .mount(Mount::volume(&text, &path))
            .memory(number)
            .cpus(f64::from_bits(number))
            .network(NetworkMode::Container(text.clone()));
        spec.sysctls.insert(path.clone(), text.clone());
        spec.cap_add = vec![text.clone()];
        spec.ulimits = vec![(text.clone(), number, 0)];
        for host in [host(), rootless()] {
            if let Err(error) = planned(&spec, &image, &host) {
                prop_assert!(!error.findings.is_empty());
            }
        }
    }

    #[test]
    fn every_planned_target_is_clean_and_below_the_root(path in "/[a./]{0,30}") {
        let spec = ContainerSpec::new("image").mount(Mount::tmpfs(&path));
        if let Ok(plan) = planned(&spec, &image(), &host()) {
            for mount in &plan.mounts {
                let parts: Vec<&str> = mount.target.split('/').skip(1).collect();
                prop_assert!(mount.target.starts_with('/') && !parts.is_empty());
                prop_assert!(parts.iter().all(|part| !matches!(*part, "" | "." | "..")), "{}", mount.target);
            }
        }
    }
}
