//! Images from the outside: what is listed, how one was made, and what a build does with its result.

use crate::program::Tested;
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use rdock_registry::server::{RegistryServer, ServerOptions};
use serde_json::Value;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("images_are_listed_and_chosen_as_docker_does_it", listing),
        trial("history_shows_the_steps_of_a_build", history),
        trial("a_build_pushes_its_image_and_says_what_it_is", pushed),
        trial("images_are_pruned_by_conditions", image_prune),
        trial("a_build_takes_steps_from_a_cache_elsewhere", cache_elsewhere),
        trial("a_build_is_checked_without_being_made", checked),
        trial("the_build_cache_is_counted_and_removed", cache),
        trial("networks_and_volumes_are_listed_by_templates", templates),
    ]
}

fn build(tiny: &Tiny, text: &str, words: &[&str]) -> Result<String, Box<dyn std::error::Error>> {
    let folder = tiny.file("context");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("Dockerfile"), text)?;
    let folder = folder.display().to_string();
    let done = tiny.run(&[&["build"], words, &[&folder]].concat())?;
    assert_eq!(done.code, Some(0), "{done:?}");
    Ok(done.stdout)
}

fn listing(tiny: &Tiny) -> Tested {
    let labelled = "FROM tiny\nLABEL kind=shop empty=\n";
    build(tiny, labelled, &["-q", "-t", "shop/app:1", "-t", "shop/app:2"])?;
    // Its only name goes to the next one.
    build(tiny, "FROM tiny\nENV A=1\n", &["-q", "-t", "moved"])?;
    build(tiny, "FROM tiny\nCOPY Dockerfile /\n", &["-q", "-t", "moved"])?;
    let listed = |words: &[&str]| -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let form = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
        let done = tiny.run(&[&form, words].concat())?;
        assert_eq!(done.code, Some(0), "{done:?}");
        let mut lines: Vec<String> = done.stdout.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    };
    assert_eq!(
        listed(&[])?,
        [
            "<none>:<none>",
            "moved:latest",
            "shop/app:1",
            "shop/app:2",
            "tiny:latest"
        ]
    );
    assert_eq!(listed(&["shop/app"])?, ["shop/app:1", "shop/app:2"]);
    assert_eq!(listed(&["docker.io/shop/app:2"])?, ["shop/app:2"]);
    assert_eq!(listed(&["docker.io/library/tiny"])?, ["tiny:latest"]);
    assert_eq!(listed(&["-f", "dangling=true"])?, ["<none>:<none>"]);
    assert_eq!(listed(&["-f", "label=empty"])?, ["shop/app:1", "shop/app:2"]);
    assert_eq!(listed(&["-f", "label=kind=other"])?, [""; 0]);
    assert_eq!(
        listed(&["-f", "reference=shop/*", "-f", "label=empty="])?.len(),
        2
    );
    assert_eq!(listed(&["-f", "since=tiny"])?, ["moved:latest"]);
    assert!(listed(&["-f", "before=moved"])?.contains(&"tiny:latest".to_owned()));
    let table = tiny.run(&["images", "--digests", "tiny"])?.stdout;
    let words: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(
        words[..7],
        ["REPOSITORY", "TAG", "DIGEST", "IMAGE", "ID", "CREATED", "SIZE"]
    );
    assert!(words[9].starts_with("sha256:"), "{table}");
    let row: Value = serde_json::from_str(&tiny.run(&["images", "--format", "json", "tiny"])?.stdout)?;
    assert_eq!(
        (&row["Repository"], &row["Tag"]),
        (&"tiny".into(), &"latest".into())
    );
    for (words, said) in [
        (["-f", "dangling=maybe"], "true or false"),
        (["-f", "color=red"], "the keys are"),
        (["-f", "before=nobody"], "no such image: nobody"),
        (["--format", "{{"], "template parsing error"),
    ] {
        let done = tiny.run(&[&["images"], &words[..]].concat())?;
        assert!(done.code != Some(0) && done.stderr.contains(said), "{done:?}");
    }
    Ok(())
}

fn history(tiny: &Tiny) -> Tested {
    std::fs::create_dir_all(tiny.file("context"))?;
    std::fs::write(tiny.file("context/file"), "0123456789")?;
    let text = "FROM tiny\nCOPY file /srv/file\nENV LANG=C.UTF-8\nCMD [\"echo\", \"hello\"]\n";
    let id = build(tiny, text, &["-q", "-t", "made"])?;
    let shown = tiny.run(&[
        "history",
        "--format",
        "{{.ID}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}}",
        "--no-trunc",
        "made",
    ])?;
    let lines: Vec<Vec<&str>> = shown
        .stdout
        .lines()
        .map(|line| line.split('|').collect())
        .collect();
    assert_eq!(lines[0][0], id.trim(), "{shown:?}");
    assert!(lines[0][1].starts_with("CMD") && lines[0][2] == "0B", "{shown:?}");
    assert_eq!(lines[1][..2], ["<missing>", "ENV LANG=C.UTF-8"], "{shown:?}");
    assert!(
        lines[2][1].starts_with("COPY file") && lines[2][2] == "10B",
        "{shown:?}"
    );
    assert_eq!(lines[2][3], "rdock");
    // Below are the lines of the image that it stands on.
    assert!(
        lines.len() > 3 && lines.iter().skip(3).any(|line| line[2] != "0B"),
        "{shown:?}"
    );
    let table = tiny.run(&["image", "history", "made"])?.stdout;
    assert!(
        table.starts_with("IMAGE") && table.contains("CREATED BY"),
        "{table}"
    );
    let exact = tiny.run(&["history", "--human=false", "-q", "made"])?.stdout;
    assert_eq!(exact.lines().count(), lines.len());
    tiny.run(&["history", "nobody"])?
        .failed(1, &["no such image: nobody"], None);
    for (remote, why) in [
        ("https://host.example/app.git", "not supported yet"),
        ("git@host.example:app", "not supported yet"),
        ("http://127.0.0.1:1/context.tar", "cannot download"),
    ] {
        tiny.run(&["build", remote])?.failed(1, &[remote, why], None);
    }
    Ok(())
}

fn cache(tiny: &Tiny) -> Tested {
    std::fs::create_dir_all(tiny.file("context"))?;
    std::fs::write(tiny.file("context/file"), "0123456789")?;
    build(tiny, "FROM tiny\nCOPY file /srv/file\n", &["-q", "-t", "made"])?;
    let counted = || -> Result<String, Box<dyn std::error::Error>> {
        let df = tiny.run(&[
            "system",
            "df",
            "--format",
            "{{.Type}}|{{.TotalCount}}|{{.Size}}|{{.Reclaimable}}",
        ])?;
        let line = df.stdout.lines().find(|line| line.starts_with("Build Cache"));
        Ok(line.ok_or("no line for it")?.to_owned())
    };
    assert_eq!(counted()?, "Build Cache|1|10B|0B (0%)", "an image has that layer");
    let spared = tiny.run(&["builder", "prune", "-f"])?;
    assert_eq!(spared.stdout, "Total reclaimed space: 0B\n");
    assert_eq!(tiny.run(&["rmi", "made"])?.code, Some(0));
    assert_eq!(counted()?, "Build Cache|1|10B|10B (100%)");
    let shown = tiny.run(&["builder", "du"])?.stdout;
    assert!(
        shown.contains("COPY file /srv/file") && shown.ends_with("Reclaimable: 10B\nTotal: 10B\n"),
        "{shown}"
    );
    let pruned = tiny.run(&["system", "prune", "-f"])?.stdout;
    assert!(
        pruned.starts_with("Deleted build cache objects:\n")
            && pruned.ends_with("Total reclaimed space: 10B\n"),
        "{pruned}"
    );
    assert_eq!(counted()?, "Build Cache|0|0B|0B (0%)");
    // What an image shares is forgotten when all is to go, and takes nothing away from it.
    build(tiny, "FROM tiny\nCOPY file /srv/file\n", &["-q", "-t", "made"])?;
    let all = tiny.run(&["builder", "prune", "-a", "-f"])?.stdout;
    assert!(
        all.ends_with("Total reclaimed space: 0B\n") && counted()?.starts_with("Build Cache|0"),
        "{all}"
    );
    let read = tiny.start(&["run", "--rm", "--network", "none", "made", "cat", "/srv/file"])?;
    assert_eq!(read.stdout, "0123456789");
    Ok(())
}

fn pushed(tiny: &Tiny) -> Tested {
    let server = RegistryServer::start(ServerOptions::new(tiny.file("served")))?;
    let name = format!("{}/team/app:1", server.host());
    let file = tiny.file("metadata.json").display().to_string();
    let folder = tiny.file("context");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("Dockerfile"), "FROM tiny\nENV A=1\n")?;
    let folder = folder.display().to_string();
    let words = [
        "--push",
        "--provenance=false",
        "--rm",
        "--metadata-file",
        &file,
        "-t",
        &name,
        &folder,
    ];
    let done = tiny.run(&[&["buildx", "build"], &words[..]].concat())?;
    assert_eq!(done.code, Some(0), "{done:?}");
    let digest = server.tag("team/app", "1").ok_or("it was not pushed")?;
    let metadata: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    let id = tiny.run(&["images", "-q", "--no-trunc", &name])?.stdout;
    assert_eq!(metadata["containerimage.config.digest"], id.trim());
    assert_eq!(metadata["image.name"], name);
    let manifest: Value = serde_json::from_slice(&server.blob("team/app", &digest).ok_or("no manifest")?)?;
    assert_eq!(manifest["config"]["digest"], id.trim());
    tiny.run(&["build", "--push", &folder])?
        .failed(1, &["--push needs a name"], None);
    Ok(())
}

fn image_prune(tiny: &Tiny) -> Tested {
    // A layer of their own, for an image without one is as old as its base.
    for (name, labels) in [
        ("kept", "keep=yes stage=old"),
        ("old", "stage=old"),
        ("new", "stage=new"),
    ] {
        let text = format!("FROM tiny\nCOPY Dockerfile /srv/\nLABEL {labels}\n");
        build(tiny, &text, &["-t", name])?;
    }
    let prune = |words: &[&str]| tiny.run(&[&["image", "prune", "-f"], words].concat());
    let names = || -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let shown = tiny.run(&["images", "--format", "{{.Repository}}"])?.stdout;
        let mut names: Vec<String> = shown.lines().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    };
    // All have names.
    let done = prune(&["--filter", "label=stage=old"])?;
    assert_eq!(done.stdout, "Total reclaimed space: 0B\n");
    let done = prune(&["-a", "--filter", "label=stage", "--filter", "until=24h"])?;
    assert_eq!(done.stdout, "Total reclaimed space: 0B\n");
    let done = prune(&["-a", "--filter", "label=stage=old", "--filter", "label!=keep"])?;
    assert!(
        done.stdout.starts_with("Deleted Images:\ndeleted: sha256:"),
        "{done:?}"
    );
    assert_eq!(names()?, ["kept", "new", "tiny"]);
    for (condition, said) in [
        ("lable=stage", "lable"),
        ("until=yesterday", "yesterday"),
        ("stage", "stage"),
    ] {
        let done = prune(&["-a", "--filter", condition])?;
        assert!(done.code == Some(1) && done.stderr.contains(said), "{done:?}");
    }
    assert_eq!(names()?, ["kept", "new", "tiny"]);
    let done = prune(&["-a", "--filter", "label=stage"])?;
    assert_eq!(done.stdout.matches("deleted: ").count(), 2, "{done:?}");
    assert_eq!(names()?, ["tiny"]);
    Ok(())
}

fn cache_elsewhere(tiny: &Tiny) -> Tested {
    let server = RegistryServer::start(ServerOptions::new(tiny.file("served")))?;
    let folder = tiny.file("context");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("Dockerfile"), "FROM tiny\nCOPY file /srv/\n")?;
    std::fs::write(folder.join("file"), "0123456789")?;
    let folder = folder.display().to_string();
    let (name, directory) = (
        format!("{}/team/cache:1", server.host()),
        tiny.file("cache").display().to_string(),
    );
    let build =
        |words: &[&str]| tiny.run(&[&["build", "--progress=plain", "-t", "made", &folder], words].concat());
    let registry = format!("type=registry,ref={name},mode=max");
    let local = format!("type=local,dest={directory}");
    let done = build(&["--cache-to", &registry, "--cache-to", &local])?;
    assert!(
        done.code == Some(0) && !done.stderr.contains("CACHED"),
        "{done:?}"
    );
    assert!(
        done.stderr.contains(&format!("exporting cache to {name}\n")),
        "{done:?}"
    );
    assert!(
        done.stderr.contains("writing cache image manifest sha256:"),
        "{done:?}"
    );
    let local = format!("type=local,src={directory}");
    for from in [&name, &local] {
        // As a machine that never built it.
        tiny.run(&["rmi", "made"])?;
        let pruned = tiny.run(&["builder", "prune", "-af"])?;
        assert_eq!(pruned.code, Some(0), "{pruned:?}");
        let done = build(&["--cache-from", from])?;
        assert!(
            done.code == Some(0) && done.stderr.contains(" CACHED\n"),
            "{from}: {done:?}"
        );
        assert!(done.stderr.contains("importing cache manifest from "), "{done:?}");
    }
    build(&["--cache-from", "type=gha"])?.failed(1, &["cache-from of type gha is not supported"], None);
    build(&["--cache-to", "type=registry"])?.failed(1, &["cache-to of type registry needs ref"], None);
    Ok(())
}

fn checked(tiny: &Tiny) -> Tested {
    let folder = tiny.file("context");
    std::fs::create_dir_all(&folder)?;
    let path = folder.display().to_string();
    let check = |text: &str| {
        std::fs::write(folder.join("Dockerfile"), text)?;
        tiny.run(&["build", "--check", &path])
    };
    let done = check("FROM tiny AS Made\nRUN [\"/payload\", \"exit\", \"9\"]\nENV A=$NOWHERE\n")?;
    assert_eq!(done.code, Some(1), "{done:?}");
    for said in [
        "Dockerfile:1:1: StageNameCasing: Stage name 'Made' should be lowercase",
        "     1 | FROM tiny AS Made",
        "UndefinedVar: Usage of undefined variable '$NOWHERE'",
        "Check complete, 2 warnings have been found!",
    ] {
        assert!(done.stdout.contains(said), "{said} is not in {done:?}");
    }
    let done = check("FROM tiny\nRUN [\"/payload\", \"exit\", \"9\"]\n")?;
    assert_eq!(
        (done.code, &*done.stdout),
        (Some(0), "Check complete, no warnings found.\n")
    );
    let done = tiny.run(&["build", "--call=check,format=json", &path])?;
    assert_eq!(
        serde_json::from_str::<Value>(&done.stdout)?["warnings"],
        serde_json::json!([])
    );
    let text = "# VERSION of the base\nARG VERSION=1\n# made holds the rest\nFROM tiny:$VERSION AS made\nARG LONGER_NAME\nFROM tiny\nCOPY --from=made /payload /\nRUN --mount=type=secret,id=key,required [\"/payload\", \"exit\", \"9\"]\n";
    std::fs::write(folder.join("Dockerfile"), text)?;
    let said = |call: &str| -> Result<String, Box<dyn std::error::Error>> {
        let done = tiny.run(&["build", call, &path])?;
        assert_eq!(done.code, Some(0), "{done:?}");
        Ok(done.stdout)
    };
    assert_eq!(
        said("--call=targets")?,
        "TARGET      DESCRIPTION\nmade        holds the rest\n(default)\n"
    );
    assert_eq!(
        said("--call=outline")?,
        "BUILD ARG     VALUE   DESCRIPTION\nVERSION       1       of the base\nLONGER_NAME\n\nSECRET   REQUIRED\nkey      true\n\n"
    );
    let outline = tiny.run(&["build", "--call=outline", "--target=made", &path])?;
    assert!(
        outline
            .stdout
            .starts_with("TARGET:      made\nDESCRIPTION: holds the rest\n\nBUILD ARG")
    );
    let targets: Value = serde_json::from_str(&said("--call=targets,format=json")?)?;
    let lines = |first: u32, last: u32| serde_json::json!({"ranges": [{"start": {"line": first}, "end": {"line": last}}]});
    assert_eq!(
        targets["targets"],
        serde_json::json!([
            {"name": "made", "description": "holds the rest", "base": "tiny:$VERSION", "location": lines(4, 4)},
            {"default": true, "base": "tiny", "location": lines(6, 6)},
        ])
    );
    // The file itself, as RFC 4648 has it.
    let source = targets["sources"][0].as_str().ok_or("no source")?;
    assert!(source.starts_with("IyBWRVJTSU9OIG9mIHRoZSBiYXNl") && source.len() == text.len().div_ceil(3) * 4);
    let outline: Value = serde_json::from_str(&said("--call=outline,format=json")?)?;
    assert_eq!(
        outline["secrets"],
        serde_json::json!([{"name": "key", "required": true, "location": lines(8, 8)}])
    );
    tiny.run(&["build", "--call=everything", &path])?.failed(
        125,
        &["build, check, outline and targets"],
        None,
    );
    for (text, said) in [
        (
            "# check=error=true\nFROM tiny AS Made\n",
            "Dockerfile:2:1: build checks failed: StageNameCasing",
        ),
        ("FROM\n", "Dockerfile:1:1"),
    ] {
        let done = check(text)?;
        assert!(done.code == Some(1) && done.stderr.contains(said), "{done:?}");
    }
    assert_eq!(tiny.run(&["images", "-q"])?.stdout.lines().count(), 1);
    Ok(())
}

fn templates(tiny: &Tiny) -> Tested {
    tiny.run(&["volume", "create", "--label", "a=b", "kept"])?;
    let done = tiny.run(&["volume", "ls", "--format", "{{.Name}} {{.Driver}} {{.Labels}}"])?;
    assert_eq!(done.stdout, "kept local a=b\n");
    let done = tiny.run(&["volume", "inspect", "-f", "{{.Mountpoint}}", "kept"])?;
    assert!(done.stdout.trim_end().ends_with("kept/_data"), "{done:?}");
    let done = tiny.run(&["volume", "inspect", "kept", "nobody"])?;
    assert!(
        done.code == Some(1) && done.stdout.contains("\"kept\""),
        "{done:?}"
    );
    let done = tiny.run(&["network", "create", "--label", "c=d", "back"])?;
    assert_eq!(done.code, Some(0), "{done:?}");
    let done = tiny.run(&[
        "network",
        "ls",
        "-f",
        "type=custom",
        "--format",
        "{{.Name}} {{.Labels}}",
    ])?;
    assert_eq!(done.stdout, "back c=d\n");
    let done = tiny.run(&["network", "inspect", "-f", "{{.Name}} {{.Driver}}", "back"])?;
    assert_eq!(done.stdout, "back bridge\n");
    Ok(())
}
