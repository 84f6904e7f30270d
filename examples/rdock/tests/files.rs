//! Volumes, copies and what a container changed, through the program.

use crate::program::Tested;
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use std::io::Write;
use std::process::Stdio;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("volume_verbs_have_dockers_flags", volume_verbs),
        trial("run_has_volumes_from_another_container", volumes_from),
        trial("run_gives_secrets_in_podmans_words", secrets),
        trial("cp_copies_as_docker_does", cp),
        trial("diff_export_and_commit_have_dockers_flags", keep),
    ]
}

fn volume_verbs(tiny: &Tiny) -> Tested {
    let says = |args: &[&str]| tiny.run(args).map(|done| done.stdout);
    assert_eq!(
        says(&[
            "volume", "create", "--label", "tier=db", "--label", "keep", "data"
        ])?,
        "data\n"
    );
    assert_eq!(says(&["volume", "create", "--name", "other"])?, "other\n");
    let anonymous = says(&["volume", "create"])?;
    assert_eq!(anonymous.trim().len(), 64);
    let memory = ["-o", "type=tmpfs", "-o", "device=tmpfs", "--opt", "o=size=1m"];
    assert_eq!(
        says(&[&["volume", "create", "-d", "local"], &memory[..], &["memory"]].concat())?,
        "memory\n"
    );
    tiny.run(&["volume", "create", "-d", "nfs", "x"])?
        .failed(1, &["no volume driver \"nfs\""], None);
    tiny.run(&["volume", "create", "-o", "size=1", "x"])?
        .failed(1, &["volume x", "\"size\""], None);
    tiny.run(&["volume", "create", "../x"])?
        .failed(1, &["\"../x\" is not a volume's name"], None);

    assert_eq!(says(&["volume", "ls", "-qf", "label=tier=db"])?, "data\n");
    assert_eq!(
        says(&["volume", "ls", "-q", "--filter", "name=emor"])?,
        "memory\n"
    );
    assert_eq!(
        says(&["volume", "ls", "-f", "label=keep"])?,
        "DRIVER    VOLUME NAME\nlocal     data\n"
    );
    tiny.run(&["volume", "ls", "-f", "colour=red"])?
        .failed(1, &["colour=red"], None);
    let shown: serde_json::Value = serde_json::from_str(&says(&["volume", "inspect", "memory", "data"])?)?;
    assert_eq!(shown[0]["Options"]["o"], "size=1m");
    assert_eq!(shown[0]["Labels"], serde_json::Value::Null);
    assert_eq!(shown[1]["Labels"]["tier"], "db");
    assert_eq!(shown[1]["Options"], serde_json::Value::Null);
    let done = tiny.run(&["volume", "inspect", "data", "none"])?;
    assert!(done.stdout.contains("\"data\""), "{done:?}");
    done.failed(1, &["no such volume: none"], None);

    // Several at once: the good ones are removed, the others said.
    let done = tiny.run(&["volume", "rm", "none", "other"])?;
    assert_eq!(done.stdout, "other\n");
    done.failed(1, &["no such volume: none"], None);
    assert_eq!(says(&["volume", "rm", "-f", "none"])?, "none\n");

    // Without a yes nothing goes.
    let mut command = tiny.command(&["volume", "prune"])?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no stdin")?.write_all(b"n\n")?;
    let output = child.wait_with_output()?;
    assert!(String::from_utf8_lossy(&output.stdout).contains("anonymous volumes"));
    assert_eq!(
        says(&["volume", "ls", "-q", "-f", &format!("name={}", anonymous.trim())])?,
        anonymous
    );
    let pruned = says(&["volume", "prune", "-f"])?;
    assert_eq!(
        pruned,
        format!("Deleted Volumes:\n{anonymous}\nTotal reclaimed space: 0B\n")
    );
    let pruned = says(&["volume", "prune", "-af", "--filter", "label!=keep"])?;
    assert!(pruned.starts_with("Deleted Volumes:\nmemory\n\n"), "{pruned}");
    assert_eq!(says(&["volume", "ls", "-q"])?, "data\n");
    Ok(())
}

fn volumes_from(tiny: &Tiny) -> Tested {
    let sleeper = ["tiny", "append", "/data/file", "shared", ",", "sleep", "60"];
    let done = tiny.start(
        &[
            &["run", "-d", "--name", "first", "-v", "kept:/data"],
            &sleeper[..],
        ]
        .concat(),
    )?;
    assert_eq!(done.code, Some(0), "{done:?}");
    let look = ["tiny", "cat", "/data/file", ",", "append", "/data/file", "x"];
    let done = tiny.run(&[&["run", "--rm", "--volumes-from", "first:ro"], &look[..]].concat())?;
    assert!(done.stdout.starts_with("from the image\n"), "{done:?}");
    assert!(done.stderr.contains("/data/file"), "{done:?}");
    let done = tiny.run(&[&["run", "--rm", "--volumes-from", "first"], &look[..]].concat())?;
    assert_eq!((done.code, &*done.stderr), (Some(0), ""), "{done:?}");
    tiny.run(&["run", "--rm", "--volumes-from", "nobody", "tiny"])?
        .failed(125, &["no such container: nobody"], None);
    tiny.run(&["run", "--rm", "--volumes-from", "first:wx", "tiny"])?
        .failed(125, &["first:wx"], None);
    Ok(())
}

fn cp(tiny: &Tiny) -> Tested {
    let done = tiny.start(&["run", "-d", "--name", "box", "tiny", "sleep", "60"])?;
    assert_eq!(done.code, Some(0), "{done:?}");
    let at = |name: &str| tiny.file(name).display().to_string();
    std::fs::create_dir_all(tiny.file("tree/below"))?;
    std::fs::write(tiny.file("tree/below/x"), "x\n")?;
    for stopped in [false, true] {
        if stopped {
            tiny.run(&["stop", "-t", "0", "box"])?;
        }
        let quiet = |args: &[&str]| -> Tested {
            let done = tiny.run(args)?;
            // Without a terminal nothing is said.
            assert_eq!(
                (done.code, &*done.stdout, &*done.stderr),
                (Some(0), "", ""),
                "{args:?}"
            );
            Ok(())
        };
        let name = if stopped { "stopped" } else { "running" };
        quiet(&["cp", &at("tree"), &format!("box:/{name}")])?;
        quiet(&["cp", "-q", &format!("box:{name}/below/x"), &at("out")])?;
        assert_eq!(std::fs::read_to_string(tiny.file("out"))?, "x\n");
        quiet(&["cp", "-a", &format!("box:/{name}/."), &at(name)])?;
        assert!(tiny.file(name).join("below/x").exists());
        // Through tar streams.
        let tar = tiny
            .command(&["cp", &format!("box:/{name}/below"), "-"])?
            .output()?;
        assert!(tar.stdout.starts_with(b"below/\0"), "{:?}", &tar.stderr);
        let mut command = tiny.command(&["cp", "-", &format!("box:/{name}")])?;
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        child.stdin.take().ok_or("no stdin")?.write_all(&tar.stdout)?;
        assert!(child.wait()?.success());
        let other = format!("box:/{name}/below/x");
        quiet(&["cp", &other, &at("again")])?;
    }
    let fails = |from: &str, to: &str, words: &[&str]| -> Tested {
        tiny.run(&["cp", from, to])?.failed(1, words, None);
        Ok(())
    };
    fails(
        "box:/a",
        "box:/b",
        &["copying between containers is not supported"],
    )?;
    fails("a", "b", &["must specify at least one container source"])?;
    fails("nobody:/a", "b", &["no such container: nobody"])?;
    fails("box:/none", "b", &["box", "/none"])?;
    fails("box:", "b", &["no path"])?;
    fails(&at("none"), "box:/", &["no such file or directory"])?;
    // A colon does not make a container of a path.
    std::fs::write(tiny.file("a:b"), "colon")?;
    assert_eq!(tiny.run(&["cp", &at("a:b"), "box:/"])?.code, Some(0));
    Ok(())
}

fn keep(tiny: &Tiny) -> Tested {
    let work = [
        "tiny",
        "write",
        "/made",
        "by it",
        ",",
        "append",
        "/data/file",
        "x",
        ",",
        "echo",
        "done",
        ",",
        "sleep",
        "60",
    ];
    let done = tiny.start(&[&["run", "-d", "--name", "box"], &work[..]].concat())?;
    assert_eq!(done.code, Some(0), "{done:?}");
    let mut logs = tiny
        .command(&["logs", "-f", "box"])?
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(logs.stdout.take().ok_or("no stdout")?));
    assert_eq!(lines.next().transpose()?.as_deref(), Some("done"));
    logs.kill()?;
    logs.wait()?;
    let changed = tiny.run(&["diff", "box"])?;
    assert_eq!(
        (changed.code, &*changed.stdout),
        (Some(0), "C /data/file\nA /made\n"),
        "{changed:?}"
    );
    let tar = tiny.command(&["export", "box"])?.output()?;
    assert!(tar.stdout.windows(6).any(|window| window == b"by it\n"));
    let path = tiny.file("box.tar").display().to_string();
    assert_eq!(tiny.run(&["export", "-o", &path, "box"])?.code, Some(0));
    assert_eq!(std::fs::read(&path)?.len(), tar.stdout.len());
    let flags = [
        "commit",
        "-a",
        "me",
        "-m",
        "kept",
        "-c",
        "ENV KEPT=1",
        "--change",
        "CMD [\"cat\", \"/made\"]",
    ];
    let id = tiny.run(&[&flags[..], &["box", "kept:1"]].concat())?;
    assert!(id.code == Some(0) && id.stdout.starts_with("sha256:"), "{id:?}");
    let shown: serde_json::Value =
        serde_json::from_str(&tiny.run(&["inspect", "--type", "image", "kept:1"])?.stdout)?;
    assert_eq!(shown[0]["Id"], id.stdout.trim());
    assert!(
        shown[0]["Config"]["Env"].to_string().contains("KEPT=1"),
        "{shown}"
    );
    assert_eq!(tiny.run(&["run", "--rm", "kept:1"])?.stdout, "by it\n");
    // Saved and loaded it is the same.
    let path = tiny.file("saved.tar").display().to_string();
    assert_eq!(tiny.run(&["save", "-o", &path, "kept:1"])?.code, Some(0));
    let piped = tiny.command(&["save", "kept:1"])?.output()?;
    assert_eq!(std::fs::read(&path)?.len(), piped.stdout.len());
    assert_eq!(tiny.run(&["rmi", "kept:1"])?.code, Some(0));
    let loaded = tiny.run(&["load", "-i", &path])?;
    assert_eq!(loaded.stdout, "Loaded image: kept:1\n", "{loaded:?}");
    assert_eq!(tiny.run(&["run", "--rm", "kept:1"])?.stdout, "by it\n");
    tiny.run(&["save", "none:1"])?
        .failed(1, &["no such image: none:1"], None);
    // The container goes on.
    assert!(tiny.run(&["ps", "--format", "json"])?.stdout.contains("box"));
    tiny.run(&["commit", "-c", "RUN true", "box"])?
        .failed(1, &["RUN true"], None);
    tiny.run(&["commit", "nobody"])?
        .failed(1, &["no such container: nobody"], None);
    tiny.run(&["diff", "nobody"])?
        .failed(1, &["no such container: nobody"], None);
    Ok(())
}

fn secrets(tiny: &Tiny) -> Tested {
    std::fs::write(tiny.file("key"), "of-the-file\n")?;
    let from_file = format!("key,src={},mode=0400", tiny.file("key").display());
    let show = [
        "tiny",
        "cat",
        "/run/secrets/key",
        ",",
        "echo",
        "$TOKEN",
        ",",
        "cat",
        "/etc/other",
    ];
    let flags = [
        "run",
        "--rm",
        "--secret",
        &from_file,
        "--secret",
        "token,env=OUTSIDE,type=env,target=TOKEN",
        "--secret",
        "other,env=OUTSIDE,target=/etc/other",
    ];
    let mut command = tiny.command(&[&flags[..], &show[..]].concat())?;
    let output = command.env("OUTSIDE", "of-the-variable").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        said, "of-the-file\nof-the-variable\nof-the-variable",
        "{output:?}"
    );
    tiny.run(&["run", "--rm", "--secret", "stored", "tiny"])?.failed(
        125,
        &["there is no store of secrets"],
        None,
    );
    tiny.run(&["run", "--rm", "--secret", "x,src=/none", "tiny"])?
        .failed(125, &["/none"], None);
    tiny.nothing_left()
}
