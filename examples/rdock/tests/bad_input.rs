//! What cannot work is one clear line, with a hint where the host must change, and leaves nothing half-made.

use crate::program::{Cannot, Tested};
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("bad_input_words", words),
        trial("bad_input_port_in_use", port_in_use),
        trial("bad_input_missing_mount_source", missing_mount_source),
        trial("bad_input_unknown_user", unknown_user),
        trial("bad_input_unknown_program", unknown_program),
        trial("bad_input_unknown_image", unknown_image),
        trial("bad_input_wrong_password", wrong_password),
        trial("bad_input_digest_mismatch", digest_mismatch),
        trial("bad_input_not_enough_rights", not_enough_rights),
        trial("bad_input_full_disk", full_disk),
    ]
}

fn words(tiny: &Tiny) -> Tested {
    for (words, code, said) in [
        (&["run", "--nope", "tiny"][..], 125, "'--nope'"),
        (&["run"], 125, "<IMAGE>"),
        (&["nope"], 1, "'nope'"),
        (&["run", "Bad_Ref:::"], 125, "invalid reference \"Bad_Ref:::\""),
        (&["pull", "Bad_Ref:::"], 1, "invalid reference \"Bad_Ref:::\""),
        (&["run", "-m", "1x", "tiny"], 125, "\"1x\""),
        (&["run", "-p", "99999:1", "tiny"], 125, "\"99999:1\""),
        (&["run", "--cap-add", "NOPE", "tiny"], 125, "\"NOPE\""),
        (&["run", "--name", "a b", "tiny"], 125, "\"a b\""),
        (&["run", "-w", "relative", "tiny"], 125, "\"relative\""),
        (
            &["run", "--network", "nope", "tiny"],
            125,
            "no such network: nope",
        ),
        (
            &["run", "--pull", "never", "absent"],
            125,
            "no such image: absent",
        ),
        (&["exec", "nope", "ls"], 1, "no such container: nope"),
        (&["logs", "nope"], 1, "no such container: nope"),
        (&["stop", "nope"], 1, "no such container: nope"),
        (&["inspect", "nope"], 1, "no such object: nope"),
        (&["rmi", "nope"], 1, "nope"),
        (&["load", "-i", "/nope"], 1, "/nope"),
        (&["load", "-i", "/etc/passwd"], 1, "/etc/passwd"),
    ] {
        tiny.run(words)?.failed(code, &[said], None);
    }
    tiny.nothing_left()
}

fn port_in_use(tiny: &Tiny) -> Tested {
    tiny.start(&["run", "--rm", "tiny"])?;
    let taken = TcpListener::bind(("127.0.0.1", 0))?;
    let port = taken.local_addr()?.port();
    for mode in ["-d", "--rm"] {
        let done = tiny.run(&["run", mode, "-p", &format!("127.0.0.1:{port}:80"), "tiny"])?;
        done.failed(
            125,
            &[&format!("127.0.0.1:{port}/tcp"), "already in use"],
            Some("another port"),
        );
        tiny.nothing_left()?;
    }
    Ok(())
}

fn missing_mount_source(tiny: &Tiny) -> Tested {
    let source = tiny.file("absent").display().to_string();
    let done = tiny.run(&[
        "run",
        "--mount",
        &format!("type=bind,source={source},target=/x"),
        "tiny",
    ])?;
    done.failed(125, &[&source, "does not exist"], Some("create"));
    assert!(!tiny.file("absent").exists());
    tiny.nothing_left()
}

fn unknown_user(tiny: &Tiny) -> Tested {
    tiny.start(&["run", "--rm", "tiny"])?;
    let done = tiny.run(&["run", "-u", "nobody9", "tiny"])?;
    done.failed(125, &["nobody9", "no such user"], None);
    tiny.nothing_left()
}

fn unknown_program(tiny: &Tiny) -> Tested {
    tiny.start(&["run", "--rm", "tiny"])?;
    tiny.run(&["run", "--entrypoint", "/nope", "tiny"])?
        .failed(127, &["/nope", "No such file"], None);
    tiny.run(&["run", "--entrypoint", "/etc/passwd", "tiny"])?
        .failed(126, &["/etc/passwd"], None);
    tiny.nothing_left()
}

/// A registry that answers each request by its path, as the mirror of docker.io.
fn registry(tiny: &Tiny, answer: fn(&str) -> (u16, String)) -> Result<u16, Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let conf =
        format!("[[registry]]\nprefix = \"docker.io\"\nlocation = \"127.0.0.1:{port}\"\ninsecure = true\n");
    std::fs::write(tiny.file("registries.conf"), conf)?;
    // Ends with this program; a client that went away is its own loss.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream, answer));
        }
    });
    Ok(port)
}

fn serve(mut stream: std::net::TcpStream, answer: fn(&str) -> (u16, String)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let (status, body) = answer(first.split(' ').nth(1).unwrap_or_default());
    let kind = if body.contains("schemaVersion") {
        "application/vnd.oci.image.manifest.v1+json"
    } else {
        "application/json"
    };
    let length = body.len();
    let body = if first.starts_with("HEAD ") { "" } else { &body };
    write!(
        stream,
        "HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nWWW-Authenticate: Basic realm=\"test\"\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn unknown_image(tiny: &Tiny) -> Tested {
    registry(tiny, |path| match path {
        "/v2/" => (200, "{}".to_owned()),
        _ => (
            404,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#.to_owned(),
        ),
    })?;
    tiny.run(&["pull", "absent:1"])?.failed(1, &["absent:1"], None);
    tiny.run(&["run", "absent:1"])?.failed(125, &["absent:1"], None);
    tiny.nothing_left()
}

fn wrong_password(tiny: &Tiny) -> Tested {
    let port = registry(tiny, |_| {
        (
            401,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#.to_owned(),
        )
    })?;
    // tester:hunter2
    let config = format!(r#"{{"auths":{{"127.0.0.1:{port}":{{"auth":"dGVzdGVyOmh1bnRlcjI="}}}}}}"#);
    std::fs::write(tiny.file("config.json"), config)?;
    let done = tiny.run(&["pull", "closed:1"])?;
    done.failed(1, &["closed:1", "wrong user or password"], Some("DOCKER_CONFIG"));
    assert!(
        !done.stderr.contains("hunter2") && !done.stderr.contains("dGVzdGVy"),
        "{done:?}"
    );
    tiny.nothing_left()
}

fn digest_mismatch(tiny: &Tiny) -> Tested {
    registry(tiny, |path| {
        let digest = format!("sha256:{}", "a".repeat(64));
        match path {
            "/v2/" => (200, "{}".to_owned()),
            path if path.contains("/manifests/") => {
                let blob = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":5}}"#);
                let config = blob("application/vnd.oci.image.config.v1+json");
                let layer = blob("application/vnd.oci.image.layer.v1.tar");
                (
                    200,
                    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#),
                )
            }
            _ => (200, "lies!".to_owned()),
        }
    })?;
    let done = tiny.run(&["pull", "liar:1"])?;
    done.failed(1, &["liar:1", "sha256:aaaaaa"], None);
    assert!(!tiny.run(&["images"])?.stdout.contains("liar"));
    tiny.nothing_left()
}

fn not_enough_rights(tiny: &Tiny) -> Tested {
    let mut command = tiny.command(&["images"])?;
    let root = tiny.file("closed/root");
    std::fs::create_dir(tiny.file("closed"))?;
    if rustix::process::geteuid().is_root() {
        // The home of the test is root's alone.
        std::os::unix::process::CommandExt::uid(&mut command, 65534);
        std::os::unix::process::CommandExt::gid(&mut command, 65534);
    } else {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o555);
        std::fs::set_permissions(tiny.file("closed"), mode)?;
    }
    let output = command.env("RDOCK_ROOT", &root).output();
    let done: crate::tiny::Done = output
        .map_err(|error| Cannot(format!("another user cannot execute the program: {error}")))?
        .into();
    done.failed(1, &["closed", "Permission denied"], Some("RDOCK_ROOT"));
    assert!(!root.exists());
    Ok(())
}

fn full_disk(tiny: &Tiny) -> Tested {
    let script = "mount -t tmpfs -o size=64k none \"$1\" 2>/dev/null || exit 99; head -c 100M /dev/zero >\"$1/fill\" 2>/dev/null; \
                  truncate -s 20k \"$1/fill\"; RDOCK_ROOT=$1 \"$2\" load -i \"$3\"; code=$?; ls \"$1/image/ingest\"; exit $code";
    let disk = tiny.file("disk");
    std::fs::create_dir(&disk)?;
    // More than the disk holds.
    let big = tiny.file("big.tar");
    std::fs::write(&big, crate::tiny::archive_with("big:latest", 1 << 20)?)?;
    let mut command = std::process::Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&disk)
        .arg(crate::program::path()?)
        .arg(&big);
    let done: crate::tiny::Done = command
        .output()
        .map_err(|error| Cannot(format!("unshare: {error}")))?
        .into();
    if done.code == Some(99) || done.stderr.starts_with("unshare:") {
        return Err(Cannot(format!("a small disk cannot be mounted: {}", done.stderr)).into());
    }
    done.failed(1, &["no space left"], Some("free space"));
    assert_eq!(done.stdout, "", "something half-made is left: {done:?}");
    Ok(())
}
