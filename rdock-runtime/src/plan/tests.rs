//! The plan of whole containers.

use super::*;
use crate::launch::TerminalSize;
use crate::spec::Mount;

pub(super) fn host() -> HostFacts {
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

pub(super) fn image() -> ImageConfig {
    let mut image = ImageConfig::default();
    image.config.cmd = Some(vec!["sh".into()]);
    image
}

pub(super) const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub(super) fn planned(
    spec: &ContainerSpec,
    image: &ImageConfig,
    host: &HostFacts,
) -> Result<Planned, PlanError> {
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
pub(super) fn findings(spec: &ContainerSpec) -> Vec<String> {
    match planned(spec, &image(), &host()) {
        Ok(_) => Vec::new(),
        Err(error) => error.findings.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_plan_of_a_plain_container() {
    let planned = planned(&ContainerSpec::new("busybox"), &image(), &host()).expect("plan");
    let expected = include_str!("../../tests/data/plan/plain.txt");
    assert_eq!(planned.to_string(), expected);
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
}
