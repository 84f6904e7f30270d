//! Names, namespaces, limits, ports, signals, readiness.

use super::*;
use crate::spec::{Protocol, Resources, UserNamespace};
use std::net::IpAddr;

#[test]
fn the_host_name_is_the_beginning_of_the_id() {
    let plan = accepted(&ContainerSpec::new("image"));
    assert_eq!(plan.hostname.as_deref(), Some(&ID[..12]));
    let mut spec = ContainerSpec::new("image").hostname("web.example_1");
    spec.domainname = Some("example.com".into());
    let plan = accepted(&spec);
    assert_eq!(
        (plan.hostname.as_deref(), plan.domainname.as_deref()),
        (Some("web.example_1"), Some("example.com"))
    );
    let long = "a".repeat(65);
    for bad in [
        "", "-a", "a-", "a..b", ".a", "a b", "a/b", "a\n", "ä", "a:b", &long,
    ] {
        refused(&ContainerSpec::new("image").hostname(bad), "hostname");
        refused(
            &ContainerSpec {
                domainname: Some(bad.into()),
                ..ContainerSpec::new("image")
            },
            "domainname",
        );
    }
    accepted(&ContainerSpec::new("image").hostname(&long[1..]));
}

#[test]
fn the_hosts_network_comes_with_the_hosts_name() {
    let plan = accepted(&ContainerSpec::new("image").network(NetworkMode::Host));
    assert_eq!(plan.hostname.as_deref(), Some("the-host"));
    assert!(plan.process.env.contains(&b"HOSTNAME=the-host".to_vec()));
    let plan = accepted(&ContainerSpec {
        uts: NamespaceMode::Host,
        ..ContainerSpec::new("image")
    });
    assert_eq!(plan.hostname, None);
    refused(
        &ContainerSpec {
            uts: NamespaceMode::Host,
            ..ContainerSpec::new("image").hostname("a")
        },
        "hostname",
    );
}

#[test]
fn the_network_of_another_container_brings_its_own_settings() {
    let joined = || ContainerSpec::new("image").network(NetworkMode::Container("web".into()));
    accepted(&joined());
    refused(&joined().hostname("a"), "hostname");
    refused(&joined().publish(PortMapping::tcp(80)), "ports");
    refused(
        &ContainerSpec {
            extra_hosts: vec![("a".into(), "10.0.0.1".into())],
            ..joined()
        },
        "extra_hosts",
    );
    refused(
        &ContainerSpec::new("image").network(NetworkMode::Container("../x".into())),
        "network",
    );
}

#[test]
fn some_namespaces_cannot_be_another_containers() {
    let other = || NamespaceMode::Container("web".into());
    accepted(&ContainerSpec {
        pid: other(),
        ipc: other(),
        ..ContainerSpec::new("image")
    });
    refused(
        &ContainerSpec {
            uts: other(),
            ..ContainerSpec::new("image")
        },
        "uts",
    );
    refused(
        &ContainerSpec {
            cgroup_namespace: other(),
            ..ContainerSpec::new("image")
        },
        "cgroup_namespace",
    );
    refused(
        &ContainerSpec {
            pid: NamespaceMode::Container("/".into()),
            ..ContainerSpec::new("image")
        },
        "pid",
    );
}

#[test]
fn published_ports_without_a_network_are_discarded_with_a_warning() {
    for (network, name) in [(NetworkMode::Host, "host"), (NetworkMode::None, "none")] {
        let plan = accepted(
            &ContainerSpec::new("image")
                .publish(PortMapping::tcp(80))
                .network(network),
        );
        assert!(plan.ports.is_empty());
        assert_eq!(
            plan.warnings,
            [Warning::PortsNotPublished { network: name.into() }]
        );
    }
}

#[test]
fn a_port_of_the_host_is_published_once() {
    let on = |host: u16| PortMapping::tcp(80).on_host(host);
    refused(
        &ContainerSpec::new("image").publish(on(8080)).publish(on(8080)),
        "ports[1]",
    );
    refused(
        &ContainerSpec::new("image")
            .publish(on(8080))
            .publish(on(8080).on_every_address()),
        "ports[1]",
    );
    refused(
        &ContainerSpec::new("image").publish(PortMapping::tcp(0)),
        "ports[0]",
    );
    let range = |host, end| PortMapping {
        host: Some(host),
        host_end: Some(end),
        ..PortMapping::tcp(80)
    };
    refused(&ContainerSpec::new("image").publish(range(9, 8)), "ports[0]");
    refused(&ContainerSpec::new("image").publish(range(0, 8)), "ports[0]");
    accepted(
        &ContainerSpec::new("image")
            .publish(range(8, 9))
            .publish(range(8, 9)),
    );
    let other = IpAddr::from([127, 0, 0, 2]);
    let udp = PortMapping {
        protocol: Protocol::Udp,
        ..on(8080)
    };
    let spec = ContainerSpec::new("image")
        .publish(on(8080))
        .publish(on(8080).on_address(other))
        .publish(udp);
    let spec = spec
        .publish(PortMapping::tcp(80))
        .publish(PortMapping::tcp(80))
        .publish(on(0))
        .publish(on(0));
    assert_eq!(accepted(&spec).ports.len(), 7);
}

#[test]
fn limits_have_dockers_ranges() {
    let with = |resources: Resources| ContainerSpec {
        resources,
        ..ContainerSpec::new("image")
    };
    let none = Resources::default;
    let mib = 1 << 20;
    accepted(&with(Resources {
        memory: Some(6 * mib),
        memory_swap: Some(6 * mib),
        ..none()
    }));
    accepted(&with(Resources {
        cpus: Some(0.01),
        cpu_shares: Some(2),
        pids: Some(1),
        ..none()
    }));
    accepted(&with(Resources {
        cpus: Some(4.0),
        cpuset_cpus: Some("0-2,4".into()),
        ..none()
    }));
    let table = [
        (
            "memory",
            Resources {
                memory: Some(6 * mib - 1),
                ..none()
            },
        ),
        (
            "memory_reservation",
            Resources {
                memory_reservation: Some(1),
                ..none()
            },
        ),
        (
            "memory_reservation",
            Resources {
                memory: Some(8 * mib),
                memory_reservation: Some(9 * mib),
                ..none()
            },
        ),
        (
            "memory_swap",
            Resources {
                memory_swap: Some(8 * mib),
                ..none()
            },
        ),
        (
            "memory_swap",
            Resources {
                memory: Some(8 * mib),
                memory_swap: Some(7 * mib),
                ..none()
            },
        ),
        (
            "cpus",
            Resources {
                cpus: Some(0.0),
                ..none()
            },
        ),
        (
            "cpus",
            Resources {
                cpus: Some(-1.0),
                ..none()
            },
        ),
        (
            "cpus",
            Resources {
                cpus: Some(f64::NAN),
                ..none()
            },
        ),
        (
            "cpus",
            Resources {
                cpus: Some(4.01),
                ..none()
            },
        ),
        (
            "cpu_shares",
            Resources {
                cpu_shares: Some(1),
                ..none()
            },
        ),
        (
            "pids",
            Resources {
                pids: Some(0),
                ..none()
            },
        ),
        (
            "cpuset_cpus",
            Resources {
                cpuset_cpus: Some(String::new()),
                ..none()
            },
        ),
        (
            "cpuset_cpus",
            Resources {
                cpuset_cpus: Some("2-0".into()),
                ..none()
            },
        ),
        (
            "cpuset_cpus",
            Resources {
                cpuset_cpus: Some("0,".into()),
                ..none()
            },
        ),
        (
            "cpuset_cpus",
            Resources {
                cpuset_cpus: Some("0\n".into()),
                ..none()
            },
        ),
    ];
    for (field, resources) in table {
        refused(&with(resources), &format!("resources.{field}"));
    }
}

#[test]
fn the_stop_signal_is_the_specs_else_the_images() {
    let image = image_with(json!({"Cmd": ["sh"], "StopSignal": "SIGINT"}));
    let signal = |spec: ContainerSpec, image: &ImageConfig| {
        planned(&spec, image, &host()).map(|plan| plan.stop_signal)
    };
    assert_eq!(
        signal(ContainerSpec::new("image"), &super::image()),
        Ok(libc::SIGTERM)
    );
    assert_eq!(signal(ContainerSpec::new("image"), &image), Ok(libc::SIGINT));
    let own = ContainerSpec {
        stop_signal: Some("usr1".into()),
        ..ContainerSpec::new("image")
    };
    assert_eq!(signal(own, &image), Ok(libc::SIGUSR1));
    refused(
        &ContainerSpec {
            stop_signal: Some("NOPE".into()),
            ..ContainerSpec::new("image")
        },
        "stop_signal",
    );
    let image = image_with(json!({"Cmd": ["sh"], "StopSignal": "99"}));
    let found = findings_with(&ContainerSpec::new("image"), &image, &host());
    assert!(found[0].starts_with("image.stop_signal: "), "{found:?}");
}

#[test]
fn readiness_must_be_able_to_come_true() {
    let with = |ready: Ready| ContainerSpec::new("image").ready_when(ready);
    let bad = [
        Ready::log(""),
        Ready::Log {
            text: "a".into(),
            times: 0,
        },
        Ready::port(0),
        Ready::exec([""; 0]),
        Ready::exec([""]),
        Ready::http(0, "/"),
        Ready::http(80, "x"),
        Ready::http(80, "/a b"),
        Ready::http(80, "/\r\nX: y"),
        Ready::Http {
            port: 80,
            path: "/".into(),
            status: Some(99),
        },
        // Not published: the host cannot ask.
        Ready::http(80, "/"),
    ];
    for ready in bad {
        refused(&with(ready), "ready[0]");
    }
    accepted(&with(Ready::http(80, "/a?b=%20")).publish(PortMapping::tcp(80)));
    accepted(&with(Ready::http(80, "/")).network(NetworkMode::Host));
    accepted(
        &with(Ready::port(80))
            .ready_when(Ready::log("a"))
            .ready_when(Ready::exec(["true"])),
    );
}

#[test]
fn extra_hosts_are_names_with_addresses() {
    let with = |name: &str, address: &str| ContainerSpec {
        extra_hosts: vec![(name.into(), address.into())],
        ..ContainerSpec::new("image")
    };
    for (name, address) in [("db", "10.0.0.1"), ("db.example", "::1"), ("me", "host-gateway")] {
        accepted(&with(name, address));
    }
    for (name, address) in [
        ("", "10.0.0.1"),
        ("a b", "10.0.0.1"),
        ("a\nb", "10.0.0.1"),
        ("a", ""),
        ("a", "10.0.0"),
    ] {
        refused(&with(name, address), "extra_hosts[0]");
    }
}

#[test]
fn id_mappings_are_whole() {
    let with = |uids: &[(u32, u32, u32)]| {
        let user_namespace = UserNamespace::Mapped {
            uids: uids.to_vec(),
            gids: vec![(0, 0, 65536)],
        };
        ContainerSpec {
            user_namespace,
            ..ContainerSpec::new("image")
        }
    };
    let plan = accepted(&with(&[(0, 0, 1000), (1000, 5000, 1)]));
    let maps = plan.user_namespace.expect("mapped");
    assert!(!maps.deny_setgroups && !maps.is_single_id() && plan.snapshot.user_namespace);
    for bad in [
        &[][..],
        &[(1, 1, 1)],
        &[(0, 0, 0)],
        &[(0, 0, 10), (5, 100, 1)],
        &[(0, 0, 10), (20, 5, 1)],
        &[(0, u32::MAX, 2)],
        // Files of images would belong to nobody inside.
        &[(0, 100_000, 65536)],
    ] {
        let found = findings(&with(bad));
        assert!(
            !found.is_empty() && found.iter().all(|one| one.starts_with("user_namespace.uids")),
            "{bad:?}: {found:?}"
        );
    }
    let own = |uid, gid| {
        let user_namespace = UserNamespace::Mapped {
            uids: vec![(0, uid, 1)],
            gids: vec![(0, gid, 1)],
        };
        findings_with(
            &ContainerSpec {
                user_namespace,
                ..ContainerSpec::new("image")
            },
            &image(),
            &rootless(),
        )
    };
    assert_eq!(own(1000, 100), [""; 0]);
    assert_eq!(own(0, 0).len(), 2);
}

#[test]
fn a_caller_without_root_has_its_own_id_as_0() {
    let plan = planned(&ContainerSpec::new("image"), &image(), &rootless()).expect("plan");
    assert_eq!(plan.user_namespace, Some(single_id(1000, 100)));
    assert!(
        plan.user_namespace
            .as_ref()
            .is_some_and(|maps| maps.deny_setgroups && maps.is_single_id())
    );
    assert!(plan.snapshot.user_namespace && plan.snapshot.volatile);
    assert_eq!(accepted(&ContainerSpec::new("image")).user_namespace, None);
    // Inside its own user namespace it has every capability, whatever it has outside.
    assert_eq!(plan.process.capabilities.bounding, 0xa804_25fb);
}

#[test]
fn only_a_scoped_container_is_volatile() {
    for detached in [true, false] {
        let plan = plan(
            Subject { id: ID, detached },
            &ContainerSpec::new("image"),
            &image(),
            &host(),
        );
        assert_eq!(plan.expect("plan").snapshot.volatile, !detached);
    }
}

#[test]
fn dockers_own_sysctls_go_with_a_network_of_its_own() {
    let names = |spec: ContainerSpec, host: &HostFacts| -> Vec<String> {
        let plan = planned(&spec, &image(), host).expect("plan");
        plan.sysctls
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    };
    let (start, ping) = (
        "net.ipv4.ip_unprivileged_port_start=0",
        "net.ipv4.ping_group_range=0 2147483647",
    );
    assert_eq!(names(ContainerSpec::new("image"), &host()), [start, ping]);
    assert_eq!(names(ContainerSpec::new("image"), &rootless()), [start]);
    assert_eq!(
        names(ContainerSpec::new("image").network(NetworkMode::Host), &host()),
        [""; 0]
    );
    let mut spec = ContainerSpec::new("image");
    spec.sysctls
        .insert("net.ipv4.ip_unprivileged_port_start".into(), "1024".into());
    spec.sysctls.insert("kernel.shmmax".into(), "65536".into());
    let expected = [
        "kernel.shmmax=65536",
        "net.ipv4.ip_unprivileged_port_start=1024",
        ping,
    ];
    assert_eq!(names(spec, &host()), expected);
}
