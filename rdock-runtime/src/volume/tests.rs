//! Volumes on a real file system.

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

fn open() -> (tempfile::TempDir, Volumes) {
    let root = tempfile::tempdir().expect("tempdir");
    let volumes = Volumes::open(root.path()).expect("open");
    (root, volumes)
}

fn no_labels() -> BTreeMap<String, String> {
    BTreeMap::new()
}

/// As the owner makes it: the directory with the record.
fn make_container(root: &Path, id: &str, name: &str) {
    let dir = root.join("containers").join(id);
    fs::create_dir_all(&dir).expect("create");
    fs::write(
        dir.join("record.json"),
        format!("{{\"name\":{name:?},\"other\":1}}"),
    )
    .expect("write");
}

#[test]
fn a_volume_is_made_once_listed_and_removed() {
    let (_root, volumes) = open();
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let made = volumes.create(Some("data"), labels.clone()).expect("create");
    assert_eq!(
        (made.name.as_str(), &made.labels, made.anonymous),
        ("data", &labels, false)
    );
    assert_eq!(
        fs::metadata(&made.mountpoint).expect("stat").permissions().mode() & 0o7777,
        0o755
    );
    assert_eq!(volumes.create(Some("data"), no_labels()).expect("again"), made);
    let random = volumes.create(None, no_labels()).expect("create");
    assert!(crate::identity::is_id(&random.name) && random.anonymous);
    assert_eq!(volumes.list().expect("list").len(), 2);
    assert_eq!(volumes.get("data").expect("get"), made);
    volumes.remove("data", false).expect("remove");
    assert!(matches!(
        volumes.get("data"),
        Err(VolumeError::NoSuchVolume { .. })
    ));
    assert!(matches!(
        volumes.remove("data", false),
        Err(VolumeError::NoSuchVolume { .. })
    ));
    volumes.remove("data", true).expect("force");
}

#[test]
fn rt_id_path_names_of_volumes_never_leave_the_directory() {
    let (root, volumes) = open();
    fs::create_dir(root.path().join("outside")).expect("mkdir");
    for bad in [
        "../outside",
        "..",
        ".",
        "a/b",
        "/etc",
        "",
        ".lock",
        ".new-x",
        "a\0b",
        "x",
    ] {
        let made = volumes.create(Some(bad), no_labels());
        assert!(
            matches!(made, Err(VolumeError::InvalidName { .. })),
            "{bad:?}: {made:?}"
        );
        assert!(
            matches!(volumes.get(bad), Err(VolumeError::NoSuchVolume { .. })),
            "{bad:?}"
        );
        assert!(
            matches!(volumes.remove(bad, false), Err(VolumeError::NoSuchVolume { .. })),
            "{bad:?}"
        );
    }
    assert!(root.path().join("outside").exists());
    assert_eq!(volumes.list().expect("list"), []);
}

#[test]
fn a_volume_in_use_names_its_container() {
    let (root, volumes) = open();
    volumes.reserve(Some("data"), ID).expect("reserve");
    let in_use = |expected: &str| match volumes.remove("data", true) {
        Err(VolumeError::InUse { containers, .. }) => assert_eq!(containers, [expected]),
        other => panic!("{other:?}"),
    };
    // Between reservation and container this process vouches for it.
    in_use(ID);
    make_container(root.path(), ID, "db");
    in_use("db");
    assert_eq!(volumes.prune(true).expect("prune"), Vec::<String>::new());
    volumes.release(ID);
    assert_eq!(volumes.prune(false).expect("prune"), Vec::<String>::new());
    assert_eq!(volumes.prune(true).expect("prune"), ["data"]);
}

#[test]
fn an_anonymous_volume_goes_with_its_container_unless_it_is_kept() {
    let (root, volumes) = open();
    let first = volumes.reserve(None, ID).expect("reserve").name;
    let kept = volumes.reserve(None, OTHER).expect("reserve").name;
    make_container(root.path(), ID, "one");
    make_container(root.path(), OTHER, "two");
    let shared = volumes.reserve(Some(&first), OTHER).expect("reserve");
    assert!(shared.anonymous);
    volumes.remove_anonymous(&first, ID).expect("remove");
    volumes.get(&first).expect("the other container still has it");
    volumes.remove_anonymous(&first, OTHER).expect("remove");
    assert!(matches!(
        volumes.get(&first),
        Err(VolumeError::NoSuchVolume { .. })
    ));
    // `rm` without `-v` only forgets.
    volumes.release(OTHER);
    fs::remove_dir_all(root.path().join("containers").join(OTHER)).expect("remove");
    let volumes = Volumes::open(root.path()).expect("reopen");
    volumes.get(&kept).expect("kept");
}

#[test]
fn what_a_launch_left_that_died_is_swept_at_the_next_open() {
    let (root, volumes) = open();
    let abandoned = volumes.reserve(None, ID).expect("reserve").name;
    let named = volumes.reserve(Some("named"), ID).expect("reserve").name;
    let mine = volumes.reserve(None, OTHER).expect("reserve").name;
    let dir = root.path().join("volumes");
    for name in [&abandoned, &named] {
        // Another process, which has ended.
        fs::write(
            dir.join(name).join("users").join(ID),
            r#"{"pid":1,"start":0,"boot":"before"}"#,
        )
        .expect("write");
    }
    fs::create_dir_all(dir.join(".new-abc/_data")).expect("mkdir");
    fs::create_dir_all(dir.join(".gone-abc/_data")).expect("mkdir");
    fs::create_dir_all(dir.join("broken/_data")).expect("mkdir");
    fs::write(dir.join("broken/meta.json"), "{").expect("write");
    let volumes = Volumes::open(root.path()).expect("reopen");
    assert!(matches!(
        volumes.get(&abandoned),
        Err(VolumeError::NoSuchVolume { .. })
    ));
    volumes.get(&named).expect("named volumes stay");
    volumes.get(&mine).expect("its launch is still going on");
    assert!(matches!(volumes.get("broken"), Err(VolumeError::Io { .. })));
    assert!(!dir.join(".new-abc").exists() && !dir.join(".gone-abc").exists());
}

#[test]
fn rt_volume_copyup_once_only_an_empty_volume_that_was_never_used_is_filled() {
    let (_root, volumes) = open();
    let volume = volumes.create(Some("data"), no_labels()).expect("create");
    let dir = volumes.dir.join("data");
    let guard = volumes
        .begin_copy(&volumes.get("data").expect("get"))
        .expect("begin")
        .expect("the first launch fills it");
    fs::write(volume.mountpoint.join("seed"), "x").expect("write");
    fs::write(dir.join("copied"), "").expect("the helper's mark");
    drop(guard);
    assert!(
        volumes
            .begin_copy(&volumes.get("data").expect("get"))
            .expect("begin")
            .is_none(),
        "filled"
    );
    fs::remove_file(volume.mountpoint.join("seed")).expect("remove");
    assert!(
        volumes
            .begin_copy(&volumes.get("data").expect("get"))
            .expect("begin")
            .is_none(),
        "emptied by its user"
    );

    let by_hand = volumes.create(Some("by-hand"), no_labels()).expect("create");
    fs::write(by_hand.mountpoint.join("own"), "x").expect("write");
    assert!(
        volumes
            .begin_copy(&volumes.get("by-hand").expect("get"))
            .expect("begin")
            .is_none()
    );
    assert!(by_hand.mountpoint.join("own").exists());

    volumes.create(Some("used"), no_labels()).expect("create");
    volumes.mark_used("used").expect("mark");
    assert!(
        volumes
            .begin_copy(&volumes.get("used").expect("get"))
            .expect("begin")
            .is_none()
    );
}

#[test]
fn an_interrupted_copy_begins_anew_and_loses_nothing() {
    let (_root, volumes) = open();
    let volume = volumes.create(Some("data"), no_labels()).expect("create");
    let dir = volumes.dir.join("data");
    // A launch that failed before it copied anything leaves no suspicion behind.
    drop(
        volumes
            .begin_copy(&volumes.get("data").expect("get"))
            .expect("begin")
            .expect("fills"),
    );
    assert!(!dir.join("copying").exists());
    // One that died half-way leaves its marker and its files.
    let guard = volumes
        .begin_copy(&volumes.get("data").expect("get"))
        .expect("begin")
        .expect("fills");
    fs::write(volume.mountpoint.join("half"), "x").expect("write");
    drop(guard);
    let guard = volumes
        .begin_copy(&volumes.get("data").expect("get"))
        .expect("begin")
        .expect("fills again");
    assert_eq!(fs::read_dir(&volume.mountpoint).expect("list").count(), 0);
    assert!(dir.join("interrupted/half").exists());
    drop(guard);
}

#[test]
fn launches_that_fill_one_volume_wait_for_each_other() {
    let (_root, volumes) = open();
    let volume = volumes.create(Some("data"), no_labels()).expect("create");
    let filled = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                if let Some(guard) = volumes
                    .begin_copy(&volumes.get("data").expect("get"))
                    .expect("begin")
                {
                    filled.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    fs::write(volume.mountpoint.join("seed"), "x").expect("write");
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    fs::write(volumes.dir.join("data/copied"), "").expect("mark");
                    drop(guard);
                }
                assert!(volume.mountpoint.join("seed").exists());
            });
        }
    });
    assert_eq!(filled.into_inner(), 1);
}

#[test]
fn a_newer_layout_is_refused_and_left_alone() {
    let (root, volumes) = open();
    let format = volumes.dir.join(".format");
    fs::write(&format, "7").expect("write");
    let refused = Volumes::open(root.path());
    assert!(
        matches!(&refused, Err(VolumeError::NewerFormat { found, .. }) if found == "7"),
        "{refused:?}"
    );
    assert_eq!(fs::read_to_string(&format).expect("read"), "7");
}

#[test]
fn rt_state_dir_perms_volumes_are_private_to_the_user() {
    let (_root, volumes) = open();
    volumes.create(Some("data"), no_labels()).expect("create");
    for path in [volumes.dir.clone(), volumes.dir.join("data")] {
        assert_eq!(
            fs::metadata(&path).expect("stat").permissions().mode() & 0o777,
            0o700,
            "{path:?}"
        );
    }
}

#[test]
fn directories_that_nobody_may_enter_are_removed() {
    let (_root, volumes) = open();
    let volume = volumes.create(Some("data"), no_labels()).expect("create");
    let closed = volume.mountpoint.join("a/b");
    fs::create_dir_all(&closed).expect("mkdir");
    fs::write(closed.join("file"), "x").expect("write");
    fs::set_permissions(volume.mountpoint.join("a"), fs::Permissions::from_mode(0o000)).expect("chmod");
    volumes.remove("data", false).expect("remove");
    assert!(!volumes.dir.join("data").exists());
}

#[test]
fn filters_pick_volumes_as_docker_does() {
    let (root, volumes) = open();
    let make = |name: &str, labels: &[(&str, &str)]| {
        let mut options = VolumeOptions::named(name);
        for (name, value) in labels {
            options = options.label(*name, *value);
        }
        volumes.create_with(&options).expect("create");
    };
    make("alpha", &[("tier", "db")]);
    make("beta", &[("tier", "web"), ("keep", "")]);
    make("gamma", &[]);
    make_container(root.path(), ID, "one");
    volumes.reserve(Some("gamma"), ID).expect("reserve");
    let found = |filters: &[&str]| {
        let mut filter = VolumeFilter::default();
        for text in filters {
            filter.add(text).expect(text);
        }
        let found = volumes.find(&filter).expect("find");
        found
            .into_iter()
            .map(|info| info.name)
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (filters, names) in [
        (&[][..], "alpha beta gamma"),
        (&["name=a"], "alpha beta gamma"),
        (&["name=lph", "name=gam"], "alpha gamma"),
        (&["driver=local"], "alpha beta gamma"),
        (&["driver=nfs"], ""),
        (&["label=tier"], "alpha beta"),
        (&["label=tier=db"], "alpha"),
        (&["label=tier", "label=keep"], "beta"),
        (&["label!=keep"], "alpha gamma"),
        (&["dangling=true"], "alpha beta"),
        (&["dangling=false"], "gamma"),
        (&["dangling=1", "label=tier=web"], "beta"),
    ] {
        assert_eq!(found(filters), names, "{filters:?}");
    }
    let mut filter = VolumeFilter::default();
    for bad in ["", "name", "size=1", "dangling=maybe", "all=2"] {
        assert!(filter.add(bad).is_err(), "{bad:?}");
    }
    let prune = |filters: &[&str]| {
        let mut filter = VolumeFilter::default();
        for text in filters {
            filter.add(text).expect(text);
        }
        volumes.prune_with(&filter).expect("prune").names
    };
    assert!(prune(&[]).is_empty(), "named volumes stay");
    assert_eq!(prune(&["all=true", "label!=keep"]), ["alpha"]);
    assert_eq!(prune(&["all=true"]), ["beta"]);
}

#[test]
fn options_of_the_local_driver_are_checked_when_a_volume_is_made() {
    let (root, volumes) = open();
    let make = |options: &[(&str, &str)]| {
        let mut wanted = VolumeOptions::named(format!("v{}", volumes.list().expect("list").len()));
        for (name, value) in options {
            wanted = wanted.driver_option(*name, *value);
        }
        volumes.create_with(&wanted)
    };
    let own = make(&[]).expect("none");
    assert_eq!(own.backing().expect("backing"), Backing::Own);
    let bound = make(&[("type", "none"), ("o", "bind,ro"), ("device", "/srv/x")]).expect("bind");
    assert_eq!(
        bound.backing().expect("backing"),
        Backing::Bind {
            path: "/srv/x".into(),
            read_only: true
        }
    );
    assert_eq!(volumes.get(&bound.name).expect("get"), bound);
    let memory = make(&[
        ("type", "tmpfs"),
        ("device", "tmpfs"),
        ("o", "size=1m,uid=7,noexec"),
    ]);
    let Backing::Tmpfs { options, flags } = memory.expect("tmpfs").backing().expect("backing") else {
        panic!("not in memory")
    };
    assert_eq!(options, ["size=1m", "uid=7"]);
    assert!(flags.no_exec && !flags.no_suid);
    let before = volumes.list().expect("list").len();
    for bad in [
        &[("size", "1g")][..],
        &[("o", "bind")],
        &[("device", "/x")],
        &[("type", "none")],
        &[("type", "nfs"), ("device", ":/x"), ("o", "addr=192.0.2.1")],
        &[("type", "none"), ("device", "x"), ("o", "bind")],
        &[("type", "none"), ("device", "/x"), ("o", "bind,suid")],
        &[("type", "tmpfs"), ("o", "lowerdir=/")],
    ] {
        let error = make(bad).expect_err("refused");
        assert!(
            matches!(error, VolumeError::InvalidOption { .. }),
            "{bad:?}: {error}"
        );
    }
    assert_eq!(volumes.list().expect("list").len(), before);
    drop(root);
}
