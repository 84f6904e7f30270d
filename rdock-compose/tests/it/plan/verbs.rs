//! What verbs plan: pull, volumes that are made anew, services of profiles, what others use; what is a reason.

use super::{SHOP, lines, load, running, up};
use rdock_compose::plan::{
    ContainerState, DownOptions, Existing, ExistingContainer, ExistingMount, PlanError, PullOptions,
    UpOptions,
};
use rdock_compose::{Dependencies, Plan, SelectError, label};

fn place(all: &[String], line: &str) -> usize {
    let found = all.iter().position(|other| other == line);
    found.unwrap_or_else(|| panic!("{line} in {all:#?}"))
}

#[test]
fn a_changed_volume_is_made_anew_only_when_that_is_said() {
    let (project, mut world) = running(SHOP);
    world.existing.volumes[0]
        .labels
        .insert(label::CONFIG_HASH.to_owned(), "another".to_owned());
    let mut options = UpOptions::default();
    let changed = Plan::changed_volumes(&project, &world.existing, &options).unwrap();
    assert_eq!(changed, ["shop_data"]);
    let kept = up(&project, &world.existing);
    assert!(kept.is_empty() && kept.notes[0].contains("shop_data"), "{kept}");
    options.renew_volumes.extend(changed);
    let plan = Plan::up(&project, &world.existing, &options).unwrap();
    let all = lines(&plan);
    for (earlier, later) in [
        ("stop container shop-db-1", "remove container shop-db-1"),
        ("remove container shop-db-1", "remove volume shop_data"),
        ("remove volume shop_data", "create volume shop_data"),
        ("create volume shop_data", "create container shop-db-1"),
        ("create container shop-db-1", "start container shop-db-1"),
    ] {
        assert!(place(&all, earlier) < place(&all, later), "{earlier} / {later}");
    }
    assert!(
        !all.iter().any(|line| line.contains("remove container shop-app")),
        "{plan}"
    );
    world.apply_latest_first(&project, &plan);
    let again = up(&project, &world.existing);
    assert!(again.is_empty(), "{again}");
    // A volume that nobody asked for is not touched, whatever is said.
    options.renew_volumes.insert("theirs".to_owned());
    assert!(Plan::up(&project, &world.existing, &options).unwrap().is_empty());
}

#[test]
fn start_ends_what_is_being_stopped_first() {
    let (project, mut world) = running(SHOP);
    for container in &mut world.existing.containers {
        container.state = match container.service() {
            Some("db") => ContainerState::Stopping,
            _ => ContainerState::Running,
        };
    }
    let plan = Plan::start(&project, &world.existing, &[], false).unwrap();
    assert_eq!(
        lines(&plan),
        ["stop container shop-db-1", "start container shop-db-1"]
    );
    assert_eq!(plan.steps[1].after.len(), 1);
}

#[test]
fn a_service_of_a_profile_is_made_as_it_will_be_judged() {
    let project = load("name: t\nservices: {tool: {image: x, labels: {a: b}, profiles: [tools]}}");
    let mut world = super::World::default();
    let mut options = UpOptions::default();
    options.services = vec!["tool".to_owned()];
    let plan = Plan::up(&project, &world.existing, &options).unwrap();
    world.apply(&project, &plan);
    assert_eq!(world.existing.containers[0].labels["a"], "b");
    let again = Plan::up(&project, &world.existing, &options).unwrap();
    assert!(again.is_empty(), "{again}");
}

#[test]
fn pull_brings_each_image_once_and_may_fail_for_what_can_be_built() {
    let project = load(
        "name: t\nservices:\n  a: {image: one, build: .}\n  b: {image: one}\n  c: {image: two, build: .}\n  d: {build: .}\n  e: {image: three, depends_on: [b]}",
    );
    let mut options = PullOptions::default();
    let optional = |options: &PullOptions| -> Vec<(String, bool)> {
        let plan = Plan::pull(&project, &Existing::default(), options).unwrap();
        plan.operations()
            .filter_map(|operation| match operation {
                rdock_compose::plan::Operation::PullImage { image, optional, .. } => {
                    Some((image.clone(), *optional))
                }
                _ => None,
            })
            .collect()
    };
    let named = |images: &[(&str, bool)]| -> Vec<(String, bool)> {
        images
            .iter()
            .map(|(image, optional)| ((*image).to_owned(), *optional))
            .collect()
    };
    assert_eq!(
        optional(&options),
        named(&[("one", false), ("three", false), ("two", true)])
    );
    options.ignore_failures = true;
    assert_eq!(
        optional(&options),
        named(&[("one", true), ("three", true), ("two", true)])
    );
    options.services = vec!["e".to_owned()];
    assert_eq!(optional(&options), named(&[("three", true)]));
    options.dependencies = Dependencies::Include;
    assert_eq!(optional(&options), named(&[("one", true), ("three", true)]));
}

#[test]
fn down_leaves_what_others_use() {
    let (project, mut world) = running(SHOP);
    let guest = ExistingContainer {
        id: "guest".to_owned(),
        name: "guest".to_owned(),
        state: rdock_compose::plan::ContainerState::Running,
        networks: [("shop_front".to_owned(), "x".to_owned())].into(),
        mounts: vec![ExistingMount {
            target: "/d".to_owned(),
            volume: Some("shop_data".to_owned()),
            anonymous: false,
        }],
        ..ExistingContainer::default()
    };
    world.existing.containers.push(guest);
    let mut options = DownOptions::default();
    options.volumes = true;
    let plan = Plan::down("shop", Some(&project), &world.existing, &options);
    let all = lines(&plan);
    place(&all, "remove network shop_default");
    assert!(
        !all.iter()
            .any(|line| line.contains("shop_front") || line.contains("volume")),
        "{plan}"
    );
    assert_eq!(plan.notes.len(), 2, "{:?}", plan.notes);
    assert!(
        plan.notes.iter().all(|note| note.contains("guest")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn wait_at_the_end_is_for_what_each_service_is_for() {
    let project = load(SHOP);
    let mut options = UpOptions::default();
    options.wait = true;
    let all = lines(&Plan::up(&project, &Existing::default(), &options).unwrap());
    place(&all, "wait until db is running or healthy");
    let ends = all
        .iter()
        .filter(|line| line.starts_with("wait until migrate is "));
    assert!(ends.clone().all(|line| line.ends_with("completed")), "{all:#?}");
}

#[test]
fn wrong_names_are_said_once() {
    let project = load(
        "name: t\nservices: {web: {image: x, depends_on: [db], profiles: [a]}, db: {image: x, profiles: [b]}}",
    );
    let of = |name: &str| {
        let mut options = UpOptions::default();
        options.services = vec![name.to_owned()];
        Plan::up(&project, &Existing::default(), &options).unwrap_err()
    };
    assert_eq!(
        of("wab").to_string(),
        "no such service: wab (did you mean \"web\"?)"
    );
    assert!(matches!(
        of("web"),
        PlanError::Select(SelectError::Disabled { .. })
    ));
    assert_eq!(
        of("web").to_string(),
        "service \"web\" needs \"db\", which is disabled; one of its profiles [\"b\"] must be active"
    );
}

#[test]
fn devices_and_limits_that_change_are_reasons() {
    let with = |attributes: &str| format!("name: t\nservices: {{a: {{image: x, {attributes}}}}}");
    let before = "devices: [/dev/fuse], device_cgroup_rules: ['c 1:3 r'], cgroup_parent: /a, \
                  blkio_config: {weight: 300}, cpu_rt_runtime: 500";
    let (same, world) = running(&with(before));
    assert!(up(&same, &world.existing).is_empty());
    for (from, to, cause) in [
        ("/dev/fuse", "/dev/kvm", "devices.0.source: /dev/fuse -> /dev/kvm"),
        (
            "c 1:3 r",
            "c 1:3 rw",
            "device_cgroup_rules.0: c 1:3 r -> c 1:3 rw",
        ),
        (
            "cgroup_parent: /a",
            "cgroup_parent: /b",
            "cgroup_parent: /a -> /b",
        ),
        ("weight: 300", "weight: 400", "blkio_config.weight: 300 -> 400"),
        (
            "cpu_rt_runtime: 500",
            "cpu_rt_runtime: 600",
            "cpu_rt_runtime: 500 -> 600",
        ),
    ] {
        let plan = up(&load(&with(&before.replace(from, to))), &world.existing);
        assert!(plan.to_string().contains(cause), "{cause}: {plan}");
    }
}

#[test]
fn an_image_that_another_service_builds_is_not_pulled() {
    let text = "
name: shop
services:
  app: {build: ., image: 'shop/app:1'}
  worker: {image: 'shop/app:1'}
  never: {image: 'shop/app:1', pull_policy: never}
  other: {image: 'other:1'}
";
    let images = |options: &UpOptions| {
        let plan = Plan::images(&load(text), &Existing::default(), options);
        plan.map(|plan| lines(&plan)).map_err(|error| error.to_string())
    };
    let usual = images(&UpOptions::default()).unwrap();
    assert_eq!(usual, ["build image shop/app:1 of app", "pull image other:1"]);
    let mut options = UpOptions::default();
    options.build = rdock_compose::plan::Build::Never;
    assert!(images(&options).unwrap_err().contains("must not be pulled"));
    options.services = vec!["worker".to_owned()];
    assert_eq!(images(&options).unwrap(), ["pull image shop/app:1"]);
}
