//! What values become that no table of attributes shows; that table is `apply::attributes`.

use super::{Converted, Making, container, network_spec};
use crate::plan::ExistingMount;
use crate::{LoadOptions, Project};
use rdock_runtime::{Device, DeviceAccess, DeviceRate, DeviceWeight, NamespaceMode, Resources};
use std::sync::LazyLock;

static ENTRYPOINT: LazyLock<Vec<String>> = LazyLock::new(|| vec!["/entry".to_owned()]);

fn making<'a>(project: &'a Project, service: &'a str, inherits: &'a [ExistingMount]) -> Making<'a> {
    Making {
        project,
        service,
        number: 1,
        name: "made",
        image_id: None,
        image_entrypoint: &ENTRYPOINT,
        one_off: None,
        replaces: false,
        inherits,
        image_layers: &[],
    }
}

#[test]
fn drivers_that_are_not_known_are_told_of_and_do_no_harm() {
    let text = "name: t\nservices: {a: {image: x, logging: {driver: fluentd, options: {fluentd-address: y}}}}\nnetworks: {default: {driver: overlay}}";
    let project = Project::load(&LoadOptions::new("/x").text(text)).unwrap();
    let told: Vec<&str> = project
        .warnings
        .iter()
        .map(|warning| warning.path.as_str())
        .collect();
    assert_eq!(told, ["services.a.logging.driver", "networks.default.driver"]);
    assert!(container(&making(&project, "a", &[])).is_ok());
    assert_eq!(network_spec(&project, "default").unwrap().driver, "bridge");
}

#[test]
fn an_empty_command_takes_the_images_away() {
    let text = "services: {a: {image: x, command: []}, b: {image: x, command: ''}, c: {image: x}, d: {image: x, command: [], entrypoint: [/e]}}";
    let project = Project::load(&LoadOptions::new("/x").text(text)).unwrap();
    // With an entry point of its own a container has none of the image's command.
    for (service, expected) in [
        ("a", Some("/entry")),
        ("b", Some("/entry")),
        ("c", None),
        ("d", Some("/e")),
    ] {
        let spec = container(&making(&project, service, &[])).unwrap().spec;
        assert_eq!(
            spec.entrypoint,
            expected.map(|word| vec![word.to_owned()]),
            "{service}"
        );
        assert!(spec.args.is_empty());
    }
    let mut making = making(&project, "a", &[]);
    making.image_entrypoint = &[];
    let error = container(&making).unwrap_err();
    assert!(error.starts_with("command: it is empty"), "{error}");
}

#[test]
fn a_relative_seccomp_profile_is_of_the_projects_folder() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("profile.json"), "{}").unwrap();
    let text = "services: {a: {image: x, security_opt: ['seccomp=profile.json']}, b: {image: x, security_opt: ['seccomp:./no.json']}}";
    let project = Project::load(&LoadOptions::new(dir.path()).text(text)).unwrap();
    let spec = container(&making(&project, "a", &[])).unwrap().spec;
    assert_eq!(spec.seccomp, rdock_runtime::Seccomp::Profile("{}".to_owned()));
    let error = container(&making(&project, "b", &[])).unwrap_err();
    assert!(
        error.contains(&dir.path().join("no.json").display().to_string()),
        "{error}"
    );
}

#[test]
fn limits_and_devices_are_those_of_the_container() {
    let text = "
services:
  a:
    image: x
    devices:
      - /dev/fuse
      - /dev/sda:/dev/xvda:r
      - vendor.com/device=gpu
    device_cgroup_rules: ['c 1:3 mr', 'a 7:* rwm']
    cgroup_parent: /limits/web
    cgroup: host
    cpu_quota: 25000
    cpu_period: 50ms
    cpu_rt_period: 1ms
    cpu_rt_runtime: 500us
    mem_limit: 64m
    memswap_limit: -1
    mem_swappiness: 20
    oom_kill_disable: true
    blkio_config:
      weight: 300
      weight_device: [{path: /dev/sda, weight: 400}]
      device_read_bps: [{path: /dev/sda, rate: 1mb}]
      device_read_iops: [{path: /dev/sda, rate: 120}]
      device_write_bps: [{path: /dev/sda, rate: 1024k}]
      device_write_iops: [{path: /dev/sda, rate: 30}]
";
    let project = Project::load(&LoadOptions::new("/x").text(text)).unwrap();
    let Converted { spec, notes } = container(&making(&project, "a", &[])).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    let cdi: Vec<_> = spec.cdi_devices.iter().map(ToString::to_string).collect();
    assert_eq!(cdi, ["vendor.com/device=gpu"]);
    let read = DeviceAccess::parse("r").unwrap();
    assert_eq!(
        spec.devices,
        [
            Device::new("/dev/fuse"),
            Device::new("/dev/sda").at("/dev/xvda").access(read)
        ]
    );
    let rules: Vec<_> = spec.device_rules.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["c 1:3 rm", "a 7:* rwm"]);
    assert_eq!(spec.cgroup_parent.as_deref(), Some("/limits/web"));
    assert_eq!(spec.cgroup_namespace, NamespaceMode::Host);
    let mut resources = Resources::default();
    resources.cpu_quota = Some(25_000);
    resources.cpu_period = Some(50_000);
    resources.cpu_rt_period = Some(1000);
    resources.cpu_rt_runtime = Some(500);
    resources.memory = Some(64 << 20);
    resources.memory_swap = Some(u64::MAX);
    resources.memory_swappiness = Some(20);
    resources.oom_kill_disable = true;
    resources.blkio_weight = Some(300);
    resources.blkio_weight_devices = vec![DeviceWeight::new("/dev/sda", 400)];
    resources.device_read_bps = vec![DeviceRate::new("/dev/sda", 1 << 20)];
    resources.device_read_iops = vec![DeviceRate::new("/dev/sda", 120)];
    resources.device_write_bps = vec![DeviceRate::new("/dev/sda", 1 << 20)];
    resources.device_write_iops = vec![DeviceRate::new("/dev/sda", 30)];
    assert_eq!(spec.resources, resources);
}

#[test]
fn what_no_device_can_be_is_an_error_that_names_the_attribute() {
    for (attributes, name) in [
        ("devices: ['/dev/fuse:/dev/fuse:rx']", "devices: "),
        ("device_cgroup_rules: ['d 1:3 r']", "device_cgroup_rules: "),
        ("blkio_config: {weight: 70000}", "blkio_config.weight: "),
        ("mem_swappiness: -2", "mem_swappiness: "),
    ] {
        let text = format!("services: {{a: {{image: x, {attributes}}}}}");
        let refused = match Project::load(&LoadOptions::new("/x").text(&text)) {
            Ok(project) => container(&making(&project, "a", &[])).unwrap_err(),
            // The loader may know it already.
            Err(error) => error.to_string(),
        };
        assert!(refused.contains(name.trim_end_matches(": ")), "{refused}");
    }
}
