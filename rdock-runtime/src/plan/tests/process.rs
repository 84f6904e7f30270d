//! Command, environment, user, directory, limits.

use super::*;

fn args(planned: &Planned) -> Vec<String> {
    planned
        .process
        .args
        .iter()
        .map(|arg| String::from_utf8_lossy(arg).into_owned())
        .collect()
}

fn env(planned: &Planned) -> Vec<String> {
    planned
        .process
        .env
        .iter()
        .map(|entry| String::from_utf8_lossy(entry).into_owned())
        .collect()
}

#[test]
fn entrypoint_and_command_merge_as_docker_does() {
    // entry point and command of the image, of the spec, and the result.
    type Parts = (Option<&'static [&'static str]>, &'static [&'static str]);
    let table: [(Parts, Parts, &[&str]); 12] = [
        ((None, &["cmd"]), (None, &[]), &["cmd"]),
        ((Some(&["entry"]), &[]), (None, &[]), &["entry"]),
        ((Some(&["entry"]), &["cmd"]), (None, &[]), &["entry", "cmd"]),
        (
            (Some(&["entry"]), &["cmd"]),
            (None, &["a", "b"]),
            &["entry", "a", "b"],
        ),
        ((None, &["cmd", "x"]), (None, &["a"]), &["a"]),
        ((Some(&["entry"]), &["cmd"]), (Some(&["own"]), &[]), &["own"]),
        (
            (Some(&["entry"]), &["cmd"]),
            (Some(&["own", "o"]), &["a"]),
            &["own", "o", "a"],
        ),
        ((Some(&["entry"]), &["cmd"]), (Some(&[]), &["a"]), &["a"]),
        ((None, &["cmd"]), (Some(&["own"]), &[]), &["own"]),
        ((Some(&["entry"]), &["cmd"]), (Some(&[]), &[]), &[]),
        ((None, &[]), (None, &[]), &[]),
        ((Some(&[]), &[]), (None, &[]), &[]),
    ];
    for (of_image, of_spec, expected) in table {
        let image = image_with(json!({"Entrypoint": of_image.0, "Cmd": of_image.1}));
        let mut spec = ContainerSpec::new("image").args(of_spec.1.iter().copied());
        spec.entrypoint = of_spec
            .0
            .map(|own| own.iter().map(|part| (*part).to_owned()).collect());
        match planned(&spec, &image, &host()) {
            Ok(planned) => assert_eq!(args(&planned), expected, "{of_image:?} {of_spec:?}"),
            Err(error) => {
                assert!(expected.is_empty(), "{of_image:?} {of_spec:?}: {error}");
                assert_eq!(
                    error.findings[0].reason,
                    "no command specified, and the image has none"
                );
            }
        }
    }
}

#[test]
fn a_command_that_no_exec_takes_is_refused() {
    refused(&ContainerSpec::new("image").arg(""), "args");
    refused(&ContainerSpec::new("image").arg("a\0b"), "args");
    refused(&ContainerSpec::new("image").entrypoint([""]), "args");
    accepted(&ContainerSpec::new("image").args(["a", ""]));
}

#[test]
fn variables_merge_in_dockers_order() {
    let image = image_with(json!({"Cmd": ["sh"], "Env": ["PATH=/image", "A=image", "B=image", "EMPTY="]}));
    let spec = ContainerSpec::new("image")
        .env("C", "1")
        .env("A", "own")
        .env("C", "2")
        .env("HOSTNAME", "x");
    let plan = planned(&spec, &image, &host()).expect("plan");
    assert_eq!(
        env(&plan),
        ["PATH=/image", "HOSTNAME=x", "C=2", "A=own", "B=image", "EMPTY="]
    );

    let spec = ContainerSpec::new("image").hostname("web").terminal(true);
    assert_eq!(
        env(&accepted(&spec)),
        [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME=web",
            "TERM=xterm"
        ]
    );
    let spec = spec.env("TERM", "dumb").env("PATH", "/own");
    assert_eq!(env(&accepted(&spec)), ["PATH=/own", "HOSTNAME=web", "TERM=dumb"]);
    // One that is set stays.
    let spec = spec.unset_env("HOSTNAME").unset_env("TERM").unset_env("NONE");
    assert_eq!(env(&accepted(&spec)), ["PATH=/own", "TERM=dumb"]);
}

#[test]
fn a_variable_needs_a_name() {
    for name in ["", "A=B", "A\0"] {
        refused(&ContainerSpec::new("image").env(name, "x"), "env[0]");
    }
    refused(&ContainerSpec::new("image").env("A", "x\0"), "env[0]");
    accepted(&ContainerSpec::new("image").env("A B.c-d", "line\nbreak = fine"));
}

#[test]
fn the_directory_is_absolute_and_clean() {
    let table = [
        ("", "/"),
        ("/", "/"),
        ("/a", "/a"),
        ("/a/./b/../c//", "/a/c"),
        ("/../..", "/"),
    ];
    for (dir, expected) in table {
        let image = image_with(json!({"Cmd": ["sh"], "WorkingDir": dir}));
        let plan = planned(&ContainerSpec::new("image"), &image, &host()).expect("plan");
        assert_eq!(plan.process.cwd, std::path::Path::new(expected), "{dir:?}");
        assert!(plan.process.make_cwd);
    }
    let image = image_with(json!({"Cmd": ["sh"], "WorkingDir": "/image"}));
    let spec = ContainerSpec::new("image").working_dir("/own");
    let own = planned(&spec, &image, &host()).expect("plan");
    assert_eq!(own.process.cwd, std::path::Path::new("/own"));
    for dir in ["", "a", "./a", "a/b", "/a\0"] {
        refused(&ContainerSpec::new("image").working_dir(dir), "working_dir");
    }
    let image = image_with(json!({"Cmd": ["sh"], "WorkingDir": "relative"}));
    let found = findings_with(&ContainerSpec::new("image"), &image, &host());
    assert!(found[0].starts_with("image.working_dir: "), "{found:?}");
}

#[test]
fn the_user_is_the_specs_else_the_images() {
    let image = image_with(json!({"Cmd": ["sh"], "User": "daemon:"}));
    let plan = |spec: ContainerSpec| planned(&spec, &image, &host()).expect("plan").process.user;
    assert_eq!(plan(ContainerSpec::new("image")), "daemon");
    assert_eq!(plan(ContainerSpec::new("image").user("")), "");
    assert_eq!(plan(ContainerSpec::new("image").user("1000:1000")), "1000:1000");
}

#[test]
fn without_root_only_id_0_exists() {
    for user in ["1000", "0:5", "7:7"] {
        let found = findings_with(&ContainerSpec::new("image").user(user), &image(), &rootless());
        assert!(
            found.len() == 1 && found[0].starts_with("user: "),
            "{user}: {found:?}"
        );
    }
    for user in ["", "0", "0:0", "root", "root:root"] {
        assert_eq!(
            findings_with(&ContainerSpec::new("image").user(user), &image(), &rootless()),
            [""; 0],
            "{user}"
        );
    }
}

#[test]
fn limits_have_dockers_names() {
    let mut spec = ContainerSpec::new("image");
    spec.ulimits = vec![
        ("nofile".into(), 1024, 2048),
        ("core".into(), 0, u64::MAX),
        ("rttime".into(), 1, 1),
    ];
    let expected = [
        (libc::RLIMIT_NOFILE, 1024, 2048),
        (libc::RLIMIT_CORE, 0, u64::MAX),
        (libc::RLIMIT_RTTIME, 1, 1),
    ];
    assert_eq!(accepted(&spec).process.rlimits, expected);
    for (name, soft, hard) in [("files", 1, 2), ("RLIMIT_CORE", 1, 2), ("", 0, 0), ("core", 2, 1)] {
        spec.ulimits = vec![(name.into(), soft, hard)];
        refused(&spec, "ulimits[0]");
    }
    spec.ulimits = vec![("core".into(), 0, 0), ("core".into(), 1, 1)];
    refused(&spec, "ulimits[1]");
}

#[test]
fn scores_and_masks_have_ranges() {
    for (score, fits) in [
        (-1001, false),
        (-1000, true),
        (0, true),
        (1000, true),
        (1001, false),
    ] {
        let spec = ContainerSpec {
            oom_score_adj: Some(score),
            ..ContainerSpec::new("image")
        };
        if fits {
            assert_eq!(accepted(&spec).process.oom_score_adj, Some(score))
        } else {
            refused(&spec, "oom_score_adj")
        }
    }
    for (umask, fits) in [(0, true), (0o777, true), (0o1000, false)] {
        let spec = ContainerSpec {
            umask: Some(umask),
            ..ContainerSpec::new("image")
        };
        if fits {
            assert_eq!(accepted(&spec).process.umask, Some(umask))
        } else {
            refused(&spec, "umask")
        }
    }
}

#[test]
fn groups_are_names_or_numbers() {
    let mut spec = ContainerSpec::new("image");
    spec.groups = vec!["audio".into(), "44".into()];
    assert_eq!(accepted(&spec).process.additional_groups, ["audio", "44"]);
    let plan = planned(&spec, &image(), &rootless()).expect("plan");
    assert_eq!(plan.process.additional_groups, [""; 0]);
    assert_eq!(plan.warnings, [Warning::NoSupplementaryGroups]);
    for group in ["", "a:b", "-1", "2147483648", "a\n"] {
        spec.groups = vec![group.into()];
        refused(&spec, "groups[0]");
    }
}
