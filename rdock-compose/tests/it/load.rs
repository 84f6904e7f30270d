//! Loading whole projects: files, variables, merging, names, and what is said about mistakes.

use rdock_compose::{Dependencies, Error, FindingKind, LoadOptions, Project, SelectError, WarningKind};
use serde_json::json;
use std::path::Path;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn text(text: &str) -> Result<Project, Error> {
    Project::load(&LoadOptions::new("/srv/shop").text(text))
}

fn load(dir: &Path) -> Project {
    Project::load(&LoadOptions::new(dir)).unwrap()
}

#[test]
fn the_first_default_name_is_found_from_below_with_its_override() {
    let dir = folder(&[
        ("compose.yaml", "services: {a: {image: x, labels: {l: '1'}}}"),
        ("docker-compose.yml", "services: {wrong: {image: x}}"),
        ("compose.override.yml", "services: {a: {image: y}}"),
        ("deep/er/file", ""),
    ]);
    let project = load(&dir.path().join("deep/er"));
    assert_eq!(project.services["a"].image.as_deref(), Some("y"));
    assert_eq!(project.services["a"].labels["l"], "1");
    assert_eq!(project.compose_files.len(), 2);
    assert_eq!(project.working_dir, dir.path());
    assert!(
        project
            .warnings
            .iter()
            .any(|warning| warning.kind == WarningKind::SeveralFiles)
    );
    let nothing = tempfile::tempdir().unwrap();
    assert!(matches!(
        Project::load(&LoadOptions::new(nothing.path())),
        Err(Error::NoComposeFile { .. })
    ));
}

#[test]
fn a_relative_folder_makes_the_same_project() {
    // Tests do not change the working directory, so the way to the folder begins at the one there is.
    let dir = folder(&[
        (
            "compose.yaml",
            "name: shop\nservices: {a: {image: x, volumes: ['./d:/d'], env_file: e}}\nsecrets: {s: {file: s.txt}}\n",
        ),
        ("e", "A=1\n"),
    ]);
    let here = std::env::current_dir().unwrap();
    let mut relative = std::path::PathBuf::new();
    for _ in here.components().skip(1) {
        relative.push("..");
    }
    relative.push(dir.path().strip_prefix("/").unwrap());
    assert!(relative.is_relative());
    let (absolute, relative) = (load(dir.path()), load(&relative));
    assert_eq!(relative.working_dir, dir.path());
    assert_eq!(relative.compose_files, absolute.compose_files);
    assert_eq!(relative.to_json(), absolute.to_json());
    let file = LoadOptions::new(dir.path()).file("compose.yaml");
    assert_eq!(
        Project::load(&file).unwrap().compose_files,
        absolute.compose_files
    );
}

#[test]
fn files_variables_and_profiles_come_from_the_environment_and_dot_env() {
    let dir = folder(&[
        (".env", "COMPOSE_FILE=a.yaml:sub/b.yaml\nTAG=1\nBOTH=file\n"),
        (
            "a.yaml",
            "services: {a: {image: 'x:${TAG}', environment: {BOTH: , P: '${COMPOSE_PROJECT_NAME}'}, volumes: ['./d:/d']}}",
        ),
        (
            "sub/b.yaml",
            "services: {b: {image: y, profiles: [p], volumes: ['./d:/d']}}",
        ),
    ]);
    let options = LoadOptions::new(dir.path())
        .variable("BOTH", "caller")
        .variable("COMPOSE_PROFILES", "p")
        .name("n");
    let project = Project::load(&options).unwrap();
    let a = &project.services["a"];
    assert_eq!(a.image.as_deref(), Some("x:1"));
    assert_eq!(a.environment["BOTH"].as_deref(), Some("caller"));
    assert_eq!(a.environment["P"].as_deref(), Some("n"));
    // Every relative path begins at the folder of the first file.
    let wanted = dir.path().join("d").display().to_string();
    assert_eq!(
        project.services["b"].volumes[0].source.as_deref(),
        Some(wanted.as_str())
    );
}

#[test]
fn the_name_is_the_callers_then_the_last_files_then_the_folders() {
    let dir = folder(&[
        ("My_Shop.2/compose.yaml", "services: {a: {image: x}}"),
        ("b.yaml", "name: 'from-${V}'\nservices: {a: {image: x}}"),
    ]);
    let root = dir.path().join("My_Shop.2");
    assert_eq!(load(&root).name, "my_shop2");
    let options = LoadOptions::new(&root)
        .file("compose.yaml")
        .file("../b.yaml")
        .variable("V", "file");
    assert_eq!(Project::load(&options).unwrap().name, "from-file");
    assert_eq!(
        Project::load(&options.clone().variable("COMPOSE_PROJECT_NAME", "env"))
            .unwrap()
            .name,
        "env"
    );
    assert_eq!(Project::load(&options.clone().name("flag")).unwrap().name, "flag");
    assert!(matches!(
        Project::load(&options.name("Not Normal")),
        Err(Error::ProjectName { .. })
    ));
}

#[test]
fn env_files_fill_the_environment_and_lose_against_it() {
    let dir = folder(&[
        (
            "compose.yaml",
            "services:\n  a:\n    image: x\n    env_file: [one.env, {path: two.env, required: false}, {path: gone.env, required: false}, {path: raw.env, format: raw}]\n    environment: {C: own, HOST: }\n",
        ),
        ("one.env", "A=1\nB=1\nC=1\n"),
        ("two.env", "B=\"${A}${C}\"\n"),
        ("raw.env", "R='$x' # all\n"),
    ]);
    let project = Project::load(&LoadOptions::new(dir.path()).variable("HOST", "h")).unwrap();
    let found = serde_json::to_value(&project.services["a"].environment).unwrap();
    assert_eq!(
        found,
        json!({"A": "1", "B": "1own", "C": "own", "HOST": "h", "R": "'$x' # all"})
    );
    assert!(project.services["a"].env_file.is_empty());
    assert_eq!(
        project
            .warnings
            .iter()
            .filter(|warning| warning.kind == WarningKind::MissingFile)
            .count(),
        1
    );
    let bad = folder(&[
        ("compose.yaml", "services: {a: {image: x, env_file: e}}"),
        ("e", "A=1\nB C\n"),
    ]);
    let error = Project::load(&LoadOptions::new(bad.path())).unwrap_err();
    assert_eq!(error.findings()[0].place.as_ref().unwrap().line, 2, "{error}");
}

#[test]
fn extends_brings_a_service_of_another_file_with_its_own_paths() {
    let dir = folder(&[
        (
            "compose.yaml",
            "services:\n  a:\n    extends: {file: base/base.yaml, service: web}\n    command: !override [own]\n    ports: !reset []\n    environment: {B: own}\n",
        ),
        (
            "base/base.yaml",
            "services:\n  web:\n    extends: root\n    build: ./ctx\n    volumes: ['./data:/data']\n    ports: ['80:80']\n    command: [base, args]\n  root:\n    environment: {A: root, B: root}\n",
        ),
    ]);
    let project = load(dir.path());
    let a = &project.services["a"];
    let base = dir.path().join("base");
    assert_eq!(
        a.build.as_ref().unwrap().context,
        base.join("ctx").display().to_string()
    );
    assert_eq!(a.volumes[0].source, Some(base.join("data").display().to_string()));
    assert_eq!(
        serde_json::to_value(&a.environment).unwrap(),
        json!({"A": "root", "B": "own"})
    );
    assert_eq!(a.command.0, Some(vec!["own".to_owned()]));
    assert!(a.ports.is_empty());
}

#[test]
fn include_has_its_own_folder_and_variables_and_the_file_overrides_it() {
    let dir = folder(&[
        (
            "compose.yaml",
            "include: [sub/one.yaml, {path: [two.yaml, two.more.yaml], env_file: two.env}]\nservices: {b: {image: changed}}",
        ),
        (
            "sub/one.yaml",
            "services: {b: {image: 'b:${V}', volumes: ['./x:/x']}}\nvolumes: {v: {}}",
        ),
        ("sub/.env", "V=sub\nW=sub"),
        ("two.yaml", "services: {c: {image: 'c:${V}${W}'}}"),
        ("two.more.yaml", "services: {c: {user: me}}"),
        ("two.env", "V=two"),
    ]);
    let project = Project::load(&LoadOptions::new(dir.path()).variable("W", "caller")).unwrap();
    assert_eq!(project.services["b"].image.as_deref(), Some("changed"));
    assert_eq!(
        project.services["b"].volumes[0].source,
        Some(dir.path().join("sub/x").display().to_string())
    );
    assert_eq!(project.services["c"].image.as_deref(), Some("c:twocaller"));
    assert_eq!(project.services["c"].user.as_deref(), Some("me"));
    assert_eq!(project.volumes["v"].name, format!("{}_v", project.name));
}

#[test]
fn cycles_are_named() {
    let dir = folder(&[
        (
            "extends.yaml",
            "services: {a: {extends: b, image: x}, b: {extends: {service: c}}, c: {extends: a}}",
        ),
        (
            "files.yaml",
            "services: {a: {extends: {file: other.yaml, service: a}}}",
        ),
        (
            "other.yaml",
            "services: {a: {extends: {file: files.yaml, service: a}}}",
        ),
        ("include.yaml", "include: [back.yaml]\nservices: {a: {image: x}}"),
        ("back.yaml", "include: [include.yaml]"),
        (
            "depends.yaml",
            "services: {a: {image: x, depends_on: [b]}, b: {image: x, links: [c]}, c: {image: x, network_mode: 'service:a'}}",
        ),
        ("self.yaml", "services: {a: {image: x, depends_on: [a]}}"),
        ("anchor.yaml", "services: &s {a: *s}"),
    ]);
    for file in ["extends", "files", "include", "depends", "self", "anchor"] {
        let error = Project::load(&LoadOptions::new(dir.path()).file(format!("{file}.yaml"))).unwrap_err();
        assert_eq!(error.findings()[0].kind, FindingKind::Cycle, "{file}: {error}");
        assert!(error.findings()[0].place.is_some(), "{file}");
    }
}

#[test]
fn mistakes_are_found_together_with_place_line_and_suggestion() {
    let error = text("services:\n  web:\n    imgae: x\n    ports: {a: b}\n    restart: sometimes\n    privileged: 3\n  db:\n    image: [x]\n    depends_on: {web: {condition: service_helthy}}\nnetwork: {}\n").unwrap_err();
    let said = error.to_string();
    for (line, part) in [
        (
            "-:3:5",
            "services.web.imgae: unknown key (did you mean \"image\"?)",
        ),
        ("-:4:12", "services.web.ports: must be a list, not a mapping"),
        ("-:5:14", "\"sometimes\" is not a restart policy"),
        (
            "-:6:17",
            "services.web.privileged: must be a boolean, not a number",
        ),
        ("-:8:12", "services.db.image: must be a string, not a list"),
        ("-:9:35", "did you mean \"service_healthy\"?"),
        ("-:10:1", "did you mean \"networks\"?"),
    ] {
        assert!(
            said.contains(line) && said.contains(part),
            "{line} {part}\n{said}"
        );
    }
    assert!(said.contains("3 |     imgae: x\n    |     ^"), "{said}");
}

#[test]
fn references_to_nothing_have_suggestions() {
    for (document, path, near) in [
        (
            "services: {a: {image: x, networks: [fornt]}}\nnetworks: {front: {}}",
            "services.a.networks.fornt",
            "front",
        ),
        (
            "services: {a: {image: x, volumes: ['dta:/d']}}\nvolumes: {data: {}}",
            "services.a.volumes.0",
            "data",
        ),
        (
            "services: {a: {image: x, depends_on: [bd]}, db: {image: x}}",
            "services.a.depends_on.bd",
            "db",
        ),
        (
            "services: {a: {image: x, secrets: [k]}}",
            "services.a.secrets.0",
            "",
        ),
    ] {
        let error = text(document).unwrap_err();
        let finding = &error.findings()[0];
        assert_eq!(
            (finding.kind, finding.path.as_str()),
            (FindingKind::Undefined, path),
            "{error}"
        );
        assert!(
            finding.hint.as_deref().unwrap_or_default().contains(near),
            "{error}"
        );
    }
}

#[test]
fn contradictions_are_refused() {
    for document in [
        "services: {a: {}}",
        "services: {a: {image: x, network_mode: host, networks: [default]}}",
        "services: {a: {image: x, scale: 2, deploy: {replicas: 3}}}",
        "services: {a: {image: x, scale: 2, container_name: only}}",
        "services: {a: {image: x, container_name: same}, b: {image: x, container_name: same}}",
        "services: {a: {image: x, mem_limit: 1g, deploy: {resources: {limits: {memory: 2g}}}}}",
        "services: {a: {image: x}}\nvolumes: {v: {external: true, labels: [a]}}",
        "services: {a: {image: x}}\nconfigs: {c: {file: a, content: b}}",
        "services: {a: {image: x, develop: {watch: [{path: ., action: sync}]}}}",
        "services: {a: {image: x, healthcheck: {test: [curl, x]}}}",
        "services: {a: {image: x, ports: ['80:80/quic']}}",
    ] {
        assert!(text(document).is_err(), "{document}");
    }
}

#[test]
fn profiles_decide_and_naming_a_service_wakes_it() {
    let document = "services: {a: {image: x}, b: {image: x, profiles: [p], depends_on: [c]}, c: {image: x, profiles: [p]}, d: {image: x, depends_on: {b: {condition: service_started, required: false}}}}";
    let project = text(document).unwrap();
    assert_eq!(project.services.keys().collect::<Vec<_>>(), ["a", "d"]);
    assert!(
        project
            .warnings
            .iter()
            .any(|warning| warning.kind == WarningKind::OptionalDependency)
    );
    let woken = project.select(&["b"], Dependencies::Include).unwrap();
    assert_eq!(woken.services.keys().collect::<Vec<_>>(), ["b", "c"]);
    let all = Project::load(&LoadOptions::new("/x").profile("*").text(document)).unwrap();
    assert_eq!(all.services.len(), 4);
    assert!(matches!(
        project.select(&["zz"], Dependencies::Include),
        Err(SelectError::NoSuchService { .. })
    ));
    let needed = "services: {a: {image: x, depends_on: [b]}, b: {image: x, profiles: [p]}}";
    assert!(text(needed).is_err());
}

#[test]
fn what_is_hostile_is_refused_soon() {
    let mut bomb = String::from("x-a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        bomb.push_str(&format!(
            "x-a{level}: &a{level} [{}]\n",
            format!("*a{}, ", level - 1).repeat(9)
        ));
    }
    let long = "x".repeat(10 << 20);
    let many = format!(
        "services:\n{}",
        (0..400_000)
            .map(|n| format!("  s{n}: {{}}\n"))
            .collect::<String>()
    );
    let chain: String = (0..20_000)
        .map(|n| format!("  s{n}: {{image: x, depends_on: [s{}]}}\n", (n + 1) % 20_000))
        .collect();
    for (what, document) in [
        ("alias bomb", bomb),
        ("10 MB of text", format!("services: {{a: {{image: '{long}'}}}}")),
        ("10 MB of services", many),
        ("10 MB of brackets", "[".repeat(10 << 20)),
        ("deep flow", format!("x-a: {}", "[".repeat(1 << 20))),
        (
            "deep block",
            (0..2000)
                .map(|depth| format!("{}a:\n", " ".repeat(depth)))
                .collect(),
        ),
        (
            "port ranges",
            format!(
                "services: {{a: {{image: x, ports: [{}]}}}}",
                "'1-65535:1-65535', ".repeat(100)
            ),
        ),
        ("a ring of services", format!("services:\n{chain}")),
        (
            "unclosed variables",
            format!("services: {{a: {{image: '{}'}}}}", "${A:-".repeat(100_000)),
        ),
    ] {
        let begin = std::time::Instant::now();
        let error = text(&document).err();
        let took = begin.elapsed();
        assert!(error.is_some_and(|error| !error.findings().is_empty()), "{what}");
        // Not the bar, which is for a release build: only that nothing is exponential.
        assert!(took.as_secs() < 20, "{what} took {took:?}");
    }
}

#[test]
fn what_was_printed_loads_as_the_same() {
    let document = "name: t\nservices: {a: {image: 'x:$$1', environment: {A: 'a $$ b'}, ports: ['1-2:3-4/udp'], volumes: [v:/v, ./b:/b:ro], command: echo $$X}}\nvolumes: {v: {}}";
    let project = text(document).unwrap();
    for format in [rdock_compose::Format::Yaml, rdock_compose::Format::Json] {
        let printed = project.config(format);
        let again = text(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
        assert_eq!(again.to_json(), project.to_json(), "{printed}");
    }
}
