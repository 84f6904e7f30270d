//! What an untrusted file asks for is refused unless the policy has it, with its YAML path.

use rdock_compose::{Error, FindingKind, LoadOptions, Policy, PortPolicy, Project};

fn load(text: &str, policy: &Policy) -> Result<Project, Error> {
    Project::load_untrusted(&LoadOptions::new("/srv/untrusted").name("t").text(text), policy)
}

fn refusals(text: &str, policy: &Policy) -> Vec<String> {
    match load(text, policy) {
        Ok(_) => Vec::new(),
        Err(error) => {
            let findings = error.findings();
            assert!(!findings.is_empty(), "{error}");
            for finding in findings {
                assert_eq!(finding.kind, FindingKind::Refused, "{finding}");
                assert!(finding.place.is_some(), "{finding}");
            }
            findings.iter().map(|finding| finding.path.clone()).collect()
        }
    }
}

/// Images of Docker Hub, and nothing else.
fn hub() -> Policy {
    let mut policy = Policy::deny();
    policy.registries.insert("docker.io".to_owned());
    policy
}

#[test]
fn cmp_host_policy_refuses_each_thing_of_the_host_by_default() {
    for (attribute, path) in [
        ("volumes: ['/:/host']", "services.a.volumes.0"),
        (
            "volumes: [{type: bind, source: ../.., target: /x}]",
            "services.a.volumes.0",
        ),
        ("volumes: ['~/.ssh:/x']", "services.a.volumes.0"),
        ("privileged: true", "services.a.privileged"),
        ("network_mode: host", "services.a.network_mode"),
        ("network_mode: 'container:other'", "services.a.network_mode"),
        ("pid: host", "services.a.pid"),
        ("ipc: host", "services.a.ipc"),
        ("uts: host", "services.a.uts"),
        ("cgroup: host", "services.a.cgroup"),
        ("userns_mode: host", "services.a.userns_mode"),
        ("cap_add: [CHOWN, SYS_ADMIN]", "services.a.cap_add.0"),
        ("devices: ['/dev/sda']", "services.a.devices.0"),
        ("gpus: all", "services.a.gpus"),
        ("devices: ['vendor.com/class=name']", "services.a.devices.0"),
        (
            "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}",
            "services.a.deploy.resources.reservations.devices",
        ),
        (
            "gpus: [{driver: cdi, device_ids: ['vendor.com/class=name']}]",
            "services.a.gpus",
        ),
        ("security_opt: ['seccomp=unconfined']", "services.a.security_opt"),
        ("sysctls: {net.core.somaxconn: 1}", "services.a.sysctls"),
        (
            "device_cgroup_rules: ['c 1:3 mr']",
            "services.a.device_cgroup_rules",
        ),
        ("cgroup_parent: /x", "services.a.cgroup_parent"),
        ("use_api_socket: true", "services.a.use_api_socket"),
        ("ports: ['80:80']", "services.a.ports.0"),
        ("volumes_from: ['container:other']", "services.a.volumes_from.0"),
        ("build: .", "services.a.build"),
        ("env_file: /etc/shadow", "services.a.env_file"),
        ("label_file: /etc/shadow", "services.a.label_file"),
        (
            "post_start: [{command: x, privileged: true}]",
            "services.a.post_start.0",
        ),
    ] {
        let text = format!("services:\n  a:\n    image: x\n    {attribute}\n");
        let found = refusals(&text, &hub());
        assert_eq!(
            found.first().map(String::as_str),
            Some(path),
            "{attribute}: {found:?}"
        );
        // The same in a service that no profile has.
        let text =
            format!("services:\n  b: {{image: x}}\n  a:\n    profiles: [p]\n    image: x\n    {attribute}\n");
        assert!(!refusals(&text, &hub()).is_empty(), "{attribute}");
    }
    assert_eq!(
        refusals("services: {a: {image: x}}", &Policy::deny()),
        ["services.a.image"]
    );
    assert_eq!(
        refusals("services: {a: {image: evil.example/x}}", &hub()),
        ["services.a.image"]
    );
}

#[test]
fn cmp_host_policy_refuses_what_belongs_to_others() {
    for (top, path) in [
        ("networks: {n: {external: true}}", "networks.n"),
        ("networks: {n: {name: other_default}}", "networks.n"),
        ("networks: {n: {driver: macvlan}}", "networks.n"),
        ("volumes: {v: {external: true}}", "volumes.v"),
        ("volumes: {v: {name: other_data}}", "volumes.v"),
        (
            "volumes: {v: {driver_opts: {type: none, o: bind, device: /etc}}}",
            "volumes.v",
        ),
        (
            "volumes: {v: {driver_opts: {type: nfs, device: ':/x'}}}",
            "volumes.v",
        ),
        ("secrets: {s: {file: /etc/shadow}}", "secrets.s"),
        ("secrets: {s: {environment: AWS_SECRET}}", "secrets.s"),
        ("configs: {c: {file: ../x}}", "configs.c"),
    ] {
        assert_eq!(
            refusals(&format!("services: {{a: {{image: x}}}}\n{top}\n"), &hub()),
            [path],
            "{top}"
        );
    }
}

#[test]
fn cmp_host_policy_allows_what_is_on_its_list_and_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("data");
    std::fs::create_dir_all(&inside).unwrap();
    std::os::unix::fs::symlink("/etc", inside.join("link")).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", inside.join("dangling")).unwrap();
    let mut policy = hub();
    policy.host_paths = vec![inside.clone()];
    policy.devices.insert("/dev/fuse".to_owned());
    policy.capabilities.insert("NET_BIND_SERVICE".to_owned());
    policy.ports = PortPolicy::Loopback;
    let mount = |path: &str| {
        format!(
            "services: {{a: {{image: x, volumes: ['{}:/x']}}}}",
            inside.join(path).display()
        )
    };
    assert!(refusals(&mount("new/folder"), &policy).is_empty());
    for outside in ["link", "link/passwd", "dangling", "../other"] {
        assert_eq!(
            refusals(&mount(outside), &policy),
            ["services.a.volumes.0"],
            "{outside}"
        );
    }
    let good = "services: {a: {image: x, devices: [/dev/fuse], cap_add: [CAP_NET_BIND_SERVICE], ports: ['127.0.0.1:80:80']}}";
    assert!(refusals(good, &policy).is_empty());
    let bad = "services: {a: {image: x, devices: [/dev/fuse, /dev/kvm], cap_add: [NET_BIND_SERVICE, SYS_PTRACE], ports: ['127.0.0.1:80:80', '81:81']}}";
    assert_eq!(
        refusals(bad, &policy),
        [
            "services.a.cap_add.1",
            "services.a.devices.1",
            "services.a.ports.1"
        ]
    );
}

#[test]
fn cmp_host_policy_has_caches_of_builds_where_files_and_images_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("data");
    std::fs::create_dir_all(&inside).unwrap();
    let mut policy = hub();
    policy.builds = true;
    policy.host_paths = vec![inside.clone()];
    let found = |caches: &str| {
        let inside = inside.display();
        let text = format!("services: {{a: {{build: {{context: {inside}, {caches}}}}}}}");
        refusals(&text, &policy)
    };
    let inside = inside.display();
    for good in [
        "cache_from: [app/cache]".to_owned(),
        "cache_to: [type=inline]".to_owned(),
        "cache_from: ['type=registry,ref=app/cache'], cache_to: ['type=registry,ref=app/cache']".to_owned(),
        format!("cache_from: ['type=local,src={inside}/c'], cache_to: ['type=local,dest={inside}/c']"),
    ] {
        assert_eq!(found(&good), [""; 0], "{good}");
    }
    for bad in [
        "cache_from: [evil.example/cache]",
        "cache_from: ['type=registry,ref=evil.example/cache']",
        "cache_to: ['type=registry,ref=evil.example/cache']",
        "cache_from: ['type=local,src=/var/cache']",
        "cache_to: ['type=local,dest=/var/cache']",
        "cache_to: ['type=gha']",
    ] {
        assert_eq!(found(bad), ["services.a.build"], "{bad}");
    }
}

#[test]
fn cmp_host_policy_reads_no_other_file_and_takes_no_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("other.yaml"), "services: {b: {image: x}}").unwrap();
    std::fs::write(dir.path().join(".env"), "SECRET=found\n").unwrap();
    let options = |text: &str| LoadOptions::new(dir.path()).name("t").text(text);
    for text in [
        "include: [other.yaml]",
        "services: {a: {extends: {file: other.yaml, service: b}}}",
        "include: [{path: other.yaml, env_file: /etc/passwd}]",
    ] {
        let error = Project::load_untrusted(&options(text), &hub()).unwrap_err();
        assert_eq!(error.findings()[0].kind, FindingKind::Refused, "{error}");
    }
    let project = Project::load_untrusted(&options("services: {a: {image: 'x${SECRET}'}}"), &hub()).unwrap();
    assert_eq!(project.services["a"].image.as_deref(), Some("x"));
    let unnamed = LoadOptions::new(dir.path()).text("name: victim\nservices: {a: {image: x}}");
    assert!(matches!(
        Project::load_untrusted(&unnamed, &hub()),
        Err(Error::ProjectName { .. })
    ));
    let named = Project::load_untrusted(&options("name: victim\nservices: {a: {image: x}}"), &hub()).unwrap();
    assert_eq!(named.name, "t");
}

#[test]
fn cmp_oci_include_path_remote_files_are_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    for place in [
        "oci://registry.example/project:latest",
        "https://example.com/compose.yaml",
        "https://github.com/x/y.git",
        "git@github.com:x/y.git",
        "ssh://git@example.com/x",
        "file:///etc/passwd",
    ] {
        for text in [
            format!("include: ['{place}']"),
            format!("include: [{{path: ['{place}']}}]"),
            format!("services: {{a: {{extends: {{file: '{place}', service: b}}}}}}"),
        ] {
            let error = Project::load(&LoadOptions::new(dir.path()).text(text.clone())).unwrap_err();
            assert_eq!(
                error.findings().first().map(|finding| finding.kind),
                Some(FindingKind::Refused),
                "{text}: {error}"
            );
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
