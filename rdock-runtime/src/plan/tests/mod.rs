//! Plans of whole containers, as text; the parts in the modules below.

mod mounts;
mod prepare;
mod process;
mod security;
mod settings;

use super::*;
use crate::launch::TerminalSize;
use crate::spec::{Mount, PortMapping, Ready};
use serde_json::json;

fn host() -> HostFacts {
    HostFacts {
        euid: 0,
        egid: 0,
        capabilities: (1 << 41) - 1,
        capabilities_inside: (1 << 41) - 1,
        kernel: (6, 12),
        hostname: "the-host".into(),
        processors: 4,
        cgroup: CgroupView::V2,
        thermal_paths: Vec::new(),
        devices: Vec::new(),
        terminal: TerminalSize {
            rows: 24,
            columns: 80,
        },
    }
}

fn image() -> ImageConfig {
    let mut image = ImageConfig::default();
    image.config.cmd = Some(vec!["sh".into()]);
    image
}

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn planned(spec: &ContainerSpec, image: &ImageConfig, host: &HostFacts) -> Result<Planned, PlanError> {
    plan(
        Subject {
            id: ID,
            detached: false,
        },
        spec,
        image,
        host,
    )
}

/// The findings as text, empty when the plan succeeds.
fn findings(spec: &ContainerSpec) -> Vec<String> {
    match planned(spec, &image(), &host()) {
        Ok(_) => Vec::new(),
        Err(error) => error.findings.iter().map(ToString::to_string).collect(),
    }
}

/// A rootless caller on the same host.
fn rootless() -> HostFacts {
    HostFacts {
        euid: 1000,
        egid: 100,
        capabilities: 0,
        ..host()
    }
}

/// An image config from the `config` object of its JSON.
fn image_with(config: serde_json::Value) -> ImageConfig {
    serde_json::from_value(json!({"architecture": "amd64", "os": "linux", "config": config})).expect("config")
}

/// The findings of a spec that is planned with an image on a host.
fn findings_with(spec: &ContainerSpec, image: &ImageConfig, host: &HostFacts) -> Vec<String> {
    match planned(spec, image, host) {
        Ok(_) => Vec::new(),
        Err(error) => error.findings.iter().map(ToString::to_string).collect(),
    }
}

/// Exactly one finding, about this field.
#[track_caller]
fn refused(spec: &ContainerSpec, field: &str) {
    let found = findings(spec);
    assert!(
        matches!(found.as_slice(), [one] if one.starts_with(&format!("{field}: "))),
        "{field}: {found:?}"
    );
}

#[track_caller]
fn accepted(spec: &ContainerSpec) -> Planned {
    match planned(spec, &image(), &host()) {
        Ok(planned) => planned,
        Err(error) => panic!("{error}"),
    }
}

/// Compares with `tests/data/plan/<name>.txt`.
#[track_caller]
fn same_as_file(name: &str, planned: &Planned) {
    let path = format!("{}/tests/data/plan/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let expected = std::fs::read_to_string(&path).expect("the expected plan");
    assert_eq!(planned.to_string(), expected, "{path}");
}

fn database() -> ImageConfig {
    image_with(json!({
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["mysqld"],
        "Env": ["PATH=/usr/sbin:/usr/bin", "MYSQL_MAJOR=8", "broken"],
        "Volumes": {"/var/lib/mysql": {}},
        "ExposedPorts": {"3306/tcp": {}},
        "StopSignal": "SIGQUIT",
    }))
}

#[test]
fn the_plan_of_a_plain_container() {
    same_as_file("plain", &accepted(&ContainerSpec::new("busybox")));
}

#[test]
fn the_plan_of_a_database() {
    let mut spec = ContainerSpec::new("mysql:8")
        .name("mysql-tutorial")
        .env("MYSQL_ROOT_PASSWORD", "1234")
        .publish(PortMapping::tcp(3306))
        .publish(PortMapping::tcp(33060).on_host(33060).on_every_address())
        .mount(Mount::volume("data", "/var/lib/mysql"))
        .mount(Mount::bind("/srv/conf", "/etc/mysql/conf.d").read_only())
        .ready_when(Ready::port(3306))
        .memory(1 << 30);
    spec.ulimits = vec![("nofile".into(), 1024, 4096)];
    let planned = plan(
        Subject {
            id: ID,
            detached: true,
        },
        &spec,
        &database(),
        &host(),
    )
    .expect("plan");
    same_as_file("database", &planned);
}

#[test]
fn the_plan_of_a_privileged_container_with_the_hosts_namespaces() {
    let mut host = host();
    host.cgroup = CgroupView::V1;
    host.devices = vec![crate::launch::DevicePlan {
        source: "/dev/loop0".into(),
        path: "/dev/loop0".into(),
        kind: 'b',
        major: 7,
        minor: 0,
        mode: 0o660,
        uid: 0,
        gid: 6,
    }];
    let mut spec = ContainerSpec::new("debian")
        .arg("bash")
        .terminal(true)
        .interactive(true)
        .init(true);
    spec.privileged = true;
    spec.network = NetworkMode::Host;
    (spec.pid, spec.ipc, spec.uts) = (NamespaceMode::Host, NamespaceMode::Host, NamespaceMode::Host);
    same_as_file("privileged", &planned(&spec, &image(), &host).expect("plan"));
}

#[test]
fn the_plan_of_a_rootless_container() {
    let mut spec = ContainerSpec::new("busybox").args(["sleep", "1"]).read_only(true);
    spec.groups = vec!["audio".into()];
    spec.mounts = vec![Mount::tmpfs("/tmp")];
    spec.network = NetworkMode::None;
    same_as_file("rootless", &planned(&spec, &image(), &rootless()).expect("plan"));
}

#[test]
fn all_findings_come_at_once() {
    let spec = ContainerSpec::new("busybox")
        .name("a/b")
        .hostname("-x")
        .working_dir("relative")
        .user("1:2:3")
        .mount(Mount::bind("/a", "/"));
    let found = findings(&spec);
    for field in [
        "name: ",
        "hostname: ",
        "working_dir: ",
        "user: ",
        "mounts[0].target: ",
    ] {
        assert!(
            found.iter().any(|finding| finding.starts_with(field)),
            "{field} in {found:?}"
        );
    }
    assert_eq!(found.len(), 5, "{found:?}");
    let text = planned(&spec, &image(), &host())
        .expect_err("refused")
        .to_string();
    assert!(
        !text.contains('\n') && found.iter().all(|finding| text.contains(finding.as_str())),
        "{text}"
    );
}

#[test]
fn a_spec_is_checked_without_its_image() {
    assert_eq!(check(&ContainerSpec::new("any"), &host()), Ok(()));
    assert_eq!(
        check(&ContainerSpec::new("any").entrypoint([""; 0]), &host()),
        Ok(())
    );
    let error = check(&ContainerSpec::new("").user("-1"), &host()).expect_err("refused");
    let fields: Vec<_> = error
        .findings
        .iter()
        .map(|finding| finding.field.as_str())
        .collect();
    assert_eq!(fields, ["image", "user"]);
}

#[test]
fn a_spec_survives_its_own_json() {
    let spec = ContainerSpec::new("busybox")
        .env("A", "b")
        .publish(PortMapping::udp(53))
        .mount(Mount::volume("data", "/data"))
        .ready_when(Ready::http(80, "/"));
    let text = serde_json::to_string(&spec).expect("write");
    assert_eq!(serde_json::from_str::<ContainerSpec>(&text).expect("read"), spec);
    assert_eq!(
        serde_json::from_str::<ContainerSpec>("{\"image\":\"a\",\"newer\":1}")
            .expect("read")
            .image,
        "a"
    );
}
