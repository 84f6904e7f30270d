//! Plans, applied to a model of what exists: the same again plans nothing, whatever was interrupted converges.

mod verbs;
mod world;

use rdock_compose::plan::{
    Build, Cause, DownOptions, Existing, Health, Operation, Pull, Recreate, RemoveImages, RunOptions,
    UpOptions,
};
use rdock_compose::{Dependencies, LoadOptions, Plan, Project, label};
use world::World;

const SHOP: &str = "
name: shop
services:
  db:
    image: mysql:8
    environment: {MYSQL_ROOT_PASSWORD: x}
    volumes: [data:/var/lib/mysql]
    healthcheck: {test: mysqladmin ping}
  migrate:
    image: app
    depends_on: {db: {condition: service_healthy}}
  app:
    image: app
    scale: 2
    ports: [8000]
    networks: [front, default]
    depends_on:
      migrate: {condition: service_completed_successfully}
      db: {condition: service_healthy, restart: true}
  proxy:
    image: nginx
    network_mode: service:app1
    depends_on: [app]
  app1:
    image: app
    volumes: [/cache]
networks: {front: {}}
volumes: {data: {}}
";

fn load(text: &str) -> Project {
    Project::load(&LoadOptions::new("/srv/shop").text(text)).unwrap()
}

fn up(project: &Project, existing: &Existing) -> Plan {
    Plan::up(project, existing, &UpOptions::default()).unwrap()
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.operations().map(Operation::to_string).collect()
}

fn running(text: &str) -> (Project, World) {
    let project = load(text);
    let mut world = World::default();
    world.apply(&project, &up(&project, &world.existing));
    (project, world)
}

#[test]
fn up_makes_everything_in_the_order_of_dependencies() {
    let project = load(SHOP);
    let plan = up(&project, &Existing::default());
    let all = lines(&plan);
    let place = |line: &str| {
        all.iter()
            .position(|other| other == line)
            .unwrap_or_else(|| panic!("{line} in {all:#?}"))
    };
    for (earlier, later) in [
        ("create network shop_default", "create container shop-db-1"),
        ("create volume shop_data", "create container shop-db-1"),
        ("start container shop-db-1", "wait until db is healthy"),
        ("wait until db is healthy", "start container shop-migrate-1"),
        (
            "start container shop-migrate-1",
            "wait until migrate is completed",
        ),
        ("wait until migrate is completed", "start container shop-app-2"),
        ("start container shop-app-1", "start container shop-proxy-1"),
    ] {
        assert!(place(earlier) < place(later), "{earlier} / {later}");
    }
    let step = |line: &str| &plan.steps[place(line)];
    let waits = step("start container shop-app-1").after.clone();
    let wanted = [
        place("create container shop-app-1"),
        place("wait until db is healthy"),
        place("wait until migrate is completed"),
    ];
    assert_eq!(waits, wanted.into());
    // Containers of different services are made at the same time.
    assert!(
        !step("create container shop-app-1")
            .after
            .contains(&place("create container shop-db-1"))
    );
    assert_eq!(step("create network shop_front").causes, [Cause::Missing]);
}

#[test]
fn up_twice_plans_nothing() {
    let (project, world) = running(SHOP);
    let again = up(&project, &world.existing);
    assert!(again.is_empty(), "{again}");
    assert_eq!(again.to_string(), "shop: nothing to do\n");
    // From another folder, by another tool version, with other files, it is the same.
    let elsewhere = Project::load(&LoadOptions::new("/else").text(SHOP)).unwrap();
    assert!(up(&elsewhere, &world.existing).is_empty());
    let images = Plan::images(&project, &world.existing, &UpOptions::default()).unwrap();
    assert!(images.is_empty(), "{images}");
}

#[test]
fn a_changed_value_is_named_and_only_its_container_is_made_anew() {
    let (_, mut world) = running(SHOP);
    let changed = load(&SHOP.replace("MYSQL_ROOT_PASSWORD: x", "MYSQL_ROOT_PASSWORD: y"));
    let plan = up(&changed, &world.existing);
    let text = plan.to_string();
    assert!(
        text.contains("because environment.MYSQL_ROOT_PASSWORD: x -> y"),
        "{text}"
    );
    let made: Vec<_> = plan
        .operations()
        .filter(|operation| matches!(operation, Operation::CreateContainer { .. }))
        .collect();
    assert_eq!(made.len(), 1, "{text}");
    // Those that ask to restart with it stop before and start after.
    let all = lines(&plan);
    let place = |line: &str| all.iter().position(|other| other == line).unwrap();
    assert!(place("stop container shop-app-1") < place("stop container shop-db-1"));
    assert!(place("wait until db is healthy") < place("start container shop-app-1"));
    world.apply(&changed, &plan);
    assert!(up(&changed, &world.existing).is_empty());
}

#[test]
fn anonymous_volumes_are_carried_over_unless_new_ones_are_asked_for() {
    let (_, world) = running(SHOP);
    let changed = load(&SHOP.replace("volumes: [/cache]", "volumes: [/cache]\n    user: me"));
    let inherited = |options: &UpOptions| {
        let plan = Plan::up(&changed, &world.existing, options).unwrap();
        plan.operations()
            .find_map(|operation| match operation {
                Operation::CreateContainer {
                    service, inherits, ..
                } if service == "app1" => Some(inherits.clone()),
                _ => None,
            })
            .unwrap()
    };
    assert_eq!(inherited(&UpOptions::default()).len(), 1);
    let mut options = UpOptions::default();
    options.renew_anonymous_volumes = true;
    assert!(inherited(&options).is_empty());
    // What shares its network is made anew with it.
    let plan = up(&changed, &world.existing);
    assert!(
        plan.to_string()
            .contains("it shares a namespace or volumes with app1"),
        "{plan}"
    );
}

#[test]
fn a_new_image_is_a_reason_and_an_unknown_one_is_not() {
    let (project, mut world) = running(SHOP);
    world.existing.images.get_mut("nginx").unwrap().id = "sha256:new".to_owned();
    let plan = up(&project, &world.existing);
    assert!(
        plan.to_string()
            .contains("because image: sha256:nginx -> sha256:new"),
        "{plan}"
    );
    world.existing.images.clear();
    for container in &mut world.existing.containers {
        container.labels.remove(label::IMAGE);
    }
    assert!(up(&project, &world.existing).is_empty());
}

#[test]
fn scale_fills_free_numbers_and_takes_the_highest_away() {
    let (project, mut world) = running("name: t\nservices: {a: {image: x, scale: 3}}");
    let scale = |wanted: u32| {
        let mut options = UpOptions::default();
        options.scale.insert("a".to_owned(), wanted);
        options
    };
    world
        .existing
        .containers
        .retain(|container| container.name != "t-a-2");
    let plan = Plan::up(&project, &world.existing, &scale(4)).unwrap();
    assert_eq!(
        lines(&plan),
        [
            "create container t-a-2",
            "start container t-a-2",
            "create container t-a-4",
            "start container t-a-4"
        ]
    );
    world.apply(&project, &plan);
    let plan = Plan::up(&project, &world.existing, &scale(2)).unwrap();
    let mut all = lines(&plan);
    all.sort();
    assert_eq!(
        all,
        [
            "remove container t-a-3",
            "remove container t-a-4",
            "stop container t-a-3",
            "stop container t-a-4"
        ]
    );
    // Those that are no longer right go first.
    let first = world
        .existing
        .containers
        .iter_mut()
        .find(|container| container.name == "t-a-1")
        .unwrap();
    first
        .labels
        .insert(label::CONFIG_HASH.to_owned(), "old".to_owned());
    let plan = Plan::up(&project, &world.existing, &scale(3)).unwrap();
    assert_eq!(lines(&plan), ["stop container t-a-1", "remove container t-a-1"]);
    let named = load("name: t\nservices: {a: {image: x, container_name: only}}");
    assert!(Plan::up(&named, &Existing::default(), &scale(2)).is_err());
}

#[test]
fn orphans_are_told_or_removed_and_one_off_containers_are_none() {
    let (project, mut world) = running("name: t\nservices: {a: {image: x}, old: {image: y}}");
    let run = Plan::run(&project, &world.existing, &RunOptions::new("old", "abc")).unwrap();
    world.apply(&project, &run);
    let without = load("name: t\nservices: {a: {image: x}}");
    let plan = up(&without, &world.existing);
    assert!(plan.is_empty());
    assert_eq!(plan.orphans, ["t-old-1"]);
    assert!(plan.warnings()[0].to_string().contains("t-old-1"));
    let mut options = UpOptions::default();
    options.remove_orphans = true;
    let plan = Plan::up(&without, &world.existing, &options).unwrap();
    assert_eq!(
        lines(&plan),
        ["stop container t-old-1", "remove container t-old-1"]
    );
    assert_eq!(plan.steps[0].causes, [Cause::Orphan]);
    // A service that only is not active is no orphan.
    let profiled = load("name: t\nservices: {a: {image: x}, old: {image: y, profiles: [p]}}");
    assert!(up(&profiled, &world.existing).orphans.is_empty());
}

#[test]
fn down_goes_backwards_and_leaves_nothing_but_what_is_external() {
    let text = SHOP.replace(
        "volumes: {data: {}}",
        "volumes: {data: {}, ext: {external: true}}",
    );
    let (project, mut world) = running(&text);
    let run = Plan::run(&project, &world.existing, &RunOptions::new("app1", "abc")).unwrap();
    world.apply(&project, &run);
    let mut options = DownOptions::default();
    let plan = Plan::down("shop", Some(&project), &world.existing, &options);
    let all = lines(&plan);
    let place = |line: &str| {
        all.iter()
            .position(|other| other == line)
            .unwrap_or_else(|| panic!("{line}: {all:#?}"))
    };
    assert!(place("remove container shop-app-1") < place("stop container shop-db-1"));
    assert!(place("remove container shop-db-1") < place("remove network shop_default"));
    assert!(
        all.contains(&"remove container shop-app1-run-abc".to_owned()),
        "{all:#?}"
    );
    assert!(!all.iter().any(|line| line.starts_with("remove volume")));
    // Without the files it is the same: the labels say what depends on what.
    assert_eq!(lines(&Plan::down("shop", None, &world.existing, &options)), all);
    options.volumes = true;
    options.images = RemoveImages::All;
    let plan = Plan::down("shop", Some(&project), &world.existing, &options);
    world.apply(&project, &plan);
    assert!(
        world.existing.containers.is_empty()
            && world.existing.networks.is_empty()
            && world.existing.volumes.is_empty()
    );
    assert!(world.existing.images.is_empty());
    assert!(Plan::down("shop", Some(&project), &world.existing, &options).is_empty());
}

#[test]
fn an_up_or_down_that_stops_anywhere_is_finished_by_the_next() {
    let old = load(SHOP);
    let new = load(
        &SHOP
            .replace("MYSQL_ROOT_PASSWORD: x", "MYSQL_ROOT_PASSWORD: y")
            .replace("networks: {front: {}}", "networks: {front: {internal: true}}"),
    );
    let mut full = World::default();
    full.apply(&old, &up(&old, &full.existing));
    for (start, project) in [(World::default(), &old), (full.clone(), &new)] {
        let plan = up(project, &start.existing);
        for stop in 0..=plan.steps.len() {
            let mut world = start.clone();
            world.apply_until(project, &plan, stop);
            let after = world.clone();
            let rest = up(project, &world.existing);
            let mut other = world.clone();
            world.apply(project, &rest);
            other.apply_latest_first(project, &rest);
            assert!(
                up(project, &other.existing).is_empty(),
                "in another order:\n{rest}"
            );
            let again = up(project, &world.existing);
            assert!(again.is_empty(), "stopped at {stop} of\n{plan}\nthen\n{again}");
            assert_eq!(world.existing.containers.len(), 6, "stopped at {stop} of\n{plan}");
            // Or it goes away.
            let mut world = after;
            let mut options = DownOptions::default();
            options.volumes = true;
            let down = Plan::down("shop", Some(project), &world.existing, &options);
            world.apply(project, &down);
            let left = &world.existing;
            assert!(
                left.containers.is_empty() && left.networks.is_empty() && left.volumes.is_empty(),
                "at {stop}"
            );
        }
    }
    let mut options = DownOptions::default();
    options.volumes = true;
    let plan = Plan::down("shop", Some(&old), &full.existing, &options);
    for stop in 0..=plan.steps.len() {
        let mut world = full.clone();
        world.apply_until(&old, &plan, stop);
        let rest = Plan::down("shop", Some(&old), &world.existing, &options);
        world.apply(&old, &rest);
        let left = &world.existing;
        assert!(
            left.containers.is_empty() && left.networks.is_empty() && left.volumes.is_empty(),
            "at {stop}"
        );
    }
}

#[test]
fn steps_that_wait_for_each_other_say_so_whatever_their_order() {
    let project = load(SHOP);
    let plan = up(&project, &Existing::default());
    let mut world = World::default();
    world.apply_latest_first(&project, &plan);
    assert!(up(&project, &world.existing).is_empty());
}

#[test]
fn options_of_up_choose_what_is_done() {
    let (project, world) = running(SHOP);
    let with = |change: fn(&mut UpOptions)| {
        let mut options = UpOptions::default();
        change(&mut options);
        Plan::up(&project, &world.existing, &options).unwrap()
    };
    let made = |plan: &Plan| {
        plan.operations()
            .filter(|operation| matches!(operation, Operation::CreateContainer { .. }))
            .count()
    };
    assert_eq!(made(&with(|options| options.recreate = Recreate::Force)), 6);
    let only = with(|options| {
        options.recreate = Recreate::Force;
        options.services = vec!["app".to_owned()];
    });
    assert_eq!(made(&only), 2, "{only}");
    let alone = Plan::up(&project, &Existing::default(), &{
        let mut options = UpOptions::default();
        options.services = vec!["app".to_owned()];
        options.dependencies = Dependencies::Leave;
        options.start = false;
        options
    });
    let lines = lines(&alone.unwrap());
    assert_eq!(
        lines,
        [
            "create network shop_default",
            "create network shop_front",
            "create container shop-app-1",
            "create container shop-app-2"
        ]
    );
    let changed = load(&SHOP.replace("MYSQL_ROOT_PASSWORD: x", "MYSQL_ROOT_PASSWORD: y"));
    let mut options = UpOptions::default();
    options.recreate = Recreate::Never;
    assert!(Plan::up(&changed, &world.existing, &options).unwrap().is_empty());
    options = UpOptions::default();
    options.wait = true;
    assert!(Plan::up(&project, &world.existing, &options).unwrap().is_empty());
}

#[test]
fn what_does_not_run_starts_and_what_is_unhealthy_is_waited_for() {
    let (project, mut world) = running(SHOP);
    world.container("shop-app-2").state = rdock_compose::plan::ContainerState::Exited(1);
    let plan = up(&project, &world.existing);
    assert_eq!(lines(&plan), ["start container shop-app-2"]);
    assert!(plan.to_string().contains("because it ended with 1"));
    world.container("shop-db-1").health = Some(Health::Starting);
    assert_eq!(
        lines(&up(&project, &world.existing)),
        ["wait until db is healthy", "start container shop-app-2"]
    );
    world.container("shop-proxy-1").state = rdock_compose::plan::ContainerState::Paused;
    assert!(lines(&up(&project, &world.existing)).contains(&"unpause container shop-proxy-1".to_owned()));
    // An interrupted `down` has asked it to stop.
    world.container("shop-proxy-1").state = rdock_compose::plan::ContainerState::Stopping;
    let plan = up(&project, &world.existing);
    let stop = lines(&plan)
        .iter()
        .position(|line| line == "stop container shop-proxy-1")
        .unwrap();
    let start = lines(&plan)
        .iter()
        .position(|line| line == "start container shop-proxy-1")
        .unwrap();
    assert!(plan.steps[start].after.contains(&stop));
}

#[test]
fn what_belongs_to_others_is_never_touched() {
    let project = load(
        "name: t\nservices: {a: {image: x, networks: [n], volumes: [v:/v]}}\nnetworks: {n: {}}\nvolumes: {v: {}}",
    );
    let mut existing = Existing::default();
    existing.networks.push(rdock_compose::plan::ExistingNetwork {
        name: "t_n".to_owned(),
        ..Default::default()
    });
    assert!(
        Plan::up(&project, &existing, &UpOptions::default())
            .unwrap_err()
            .to_string()
            .contains("network \"t_n\"")
    );
    existing.networks.clear();
    existing.volumes.push(rdock_compose::plan::ExistingVolume {
        name: "t_v".to_owned(),
        ..Default::default()
    });
    assert!(Plan::up(&project, &existing, &UpOptions::default()).is_err());
    existing.volumes.clear();
    existing.containers.push(rdock_compose::plan::ExistingContainer {
        id: "1".to_owned(),
        name: "t-a-1".to_owned(),
        ..Default::default()
    });
    assert!(Plan::up(&project, &existing, &UpOptions::default()).is_err());
    let external = load("name: t\nservices: {a: {image: x, networks: [n]}}\nnetworks: {n: {external: true}}");
    assert!(Plan::up(&external, &Existing::default(), &UpOptions::default()).is_err());
}

#[test]
fn images_are_pulled_or_built_as_policies_say() {
    let text = |policy: &str, more: &str| {
        format!("name: t\nservices: {{a: {{image: x, pull_policy: {policy} {more}}}}}")
    };
    let here = |age| {
        let mut existing = Existing::default();
        existing.images.insert(
            "x".to_owned(),
            rdock_compose::plan::ExistingImage {
                id: "1".to_owned(),
                age,
                platform: None,
            },
        );
        existing
    };
    let plan = |text: &str, existing: &Existing, change: fn(&mut UpOptions)| {
        let mut options = UpOptions::default();
        change(&mut options);
        Plan::images(&load(text), existing, &options)
            .map(|plan| lines(&plan))
            .map_err(|error| error.to_string())
    };
    let none = Existing::default();
    let pull = Ok(vec!["pull image x".to_owned()]);
    let build = Ok(vec!["build image x of a".to_owned()]);
    let nothing = Ok(Vec::new());
    assert_eq!(plan(&text("missing", ""), &none, |_| {}), pull);
    assert_eq!(plan(&text("missing", ""), &here(None), |_| {}), nothing);
    assert_eq!(plan(&text("always", ""), &here(None), |_| {}), pull);
    assert_eq!(plan(&text("daily", ""), &here(Some(90_000)), |_| {}), pull);
    assert_eq!(plan(&text("daily", ""), &here(Some(80_000)), |_| {}), nothing);
    assert_eq!(plan(&text("every_2h", ""), &here(Some(7_300)), |_| {}), pull);
    assert!(plan(&text("never", ""), &none, |_| {}).is_err());
    assert_eq!(plan(&text("build", ", build: ."), &here(None), |_| {}), build);
    let built = "name: t\nservices: {a: {image: x, build: .}}";
    assert_eq!(plan(built, &none, |_| {}), build);
    assert_eq!(plan(built, &here(None), |_| {}), nothing);
    assert_eq!(
        plan(built, &here(None), |options| options.build = Build::Always),
        build
    );
    assert_eq!(
        plan(built, &none, |options| options.pull = Some(Pull::Always)),
        pull
    );
    let unnamed = "name: t\nservices: {a: {build: .}}";
    assert_eq!(
        plan(unnamed, &none, |_| {}),
        Ok(vec!["build image t-a of a".to_owned()])
    );
}

#[test]
fn a_one_off_container_comes_after_what_it_needs() {
    let project = load(SHOP);
    let plan = Plan::run(&project, &Existing::default(), &RunOptions::new("migrate", "f00")).unwrap();
    let all = lines(&plan);
    assert_eq!(all.last().unwrap(), "start container shop-migrate-run-f00");
    assert!(all.contains(&"wait until db is healthy".to_owned()), "{all:#?}");
    assert!(
        !all.iter()
            .any(|line| line.contains("shop-migrate-1") || line.contains("shop-app-")),
        "{all:#?}"
    );
    let mut options = RunOptions::new("migrate", "f00");
    options.dependencies = Dependencies::Leave;
    let plan = Plan::run(&project, &Existing::default(), &options).unwrap();
    assert!(!lines(&plan).iter().any(|line| line.contains("db")), "{plan}");
}

#[test]
fn verbs_go_along_dependencies() {
    let (project, mut world) = running(SHOP);
    let all = lines(&Plan::stop("shop", None, &world.existing, &[], None));
    let place = |all: &[String], line: &str| all.iter().position(|other| other == line).unwrap();
    assert!(place(&all, "stop container shop-app-1") < place(&all, "stop container shop-db-1"));
    let restart = lines(&Plan::restart(
        &project,
        &world.existing,
        &["db".to_owned()],
        false,
        None,
    ));
    assert_eq!(
        restart,
        [
            "restart container shop-db-1",
            "restart container shop-app-1",
            "restart container shop-app-2"
        ]
    );
    let alone = Plan::restart(&project, &world.existing, &["db".to_owned()], true, None);
    assert_eq!(lines(&alone), ["restart container shop-db-1"]);
    assert!(Plan::kill("shop", &world.existing, &["nothing".to_owned()], "KILL").is_empty());
    let nothing = Plan::start(&project, &world.existing, &["nothing".to_owned()], false);
    assert_eq!(
        nothing,
        Err(rdock_compose::plan::PlanError::NoContainer("nothing".to_owned()))
    );
    world.apply(&project, &Plan::stop("shop", None, &world.existing, &[], None));
    let start = lines(&Plan::start(&project, &world.existing, &[], false).unwrap());
    assert!(
        place(&start, "start container shop-db-1") < place(&start, "wait until db is healthy"),
        "{start:#?}"
    );
    assert!(place(&start, "wait until db is healthy") < place(&start, "start container shop-app-1"));
    let rm = lines(&Plan::rm("shop", &world.existing, &[], false, false));
    assert_eq!(rm.len(), 6);
}

#[test]
fn a_plan_is_data_that_can_be_stored() {
    let project = load(SHOP);
    let plan = up(&project, &Existing::default());
    let text = serde_json::to_string(&plan).unwrap();
    let back: Plan = serde_json::from_str(&text).unwrap();
    assert_eq!(back, plan);
    assert!(text.contains("\"operation\":\"create_container\""), "{text}");
}
