//! Dockerfiles, typed with `rdock`: the tutorial's application with the real pip, multi-stage, errors.

use crate::compose_project::Project;
use crate::fixtures::Name;
use crate::program::{Cannot, Stage, Tested, needs_root, path, success};
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// The tests of this file.
pub(crate) fn trials(stage: &Arc<Stage>) -> Vec<Trial> {
    vec![
        stage.trial(
            "the_tutorials_application_is_built_with_pip",
            tutorial_application,
        ),
        stage.trial("the_courses_pytorch_application_trains", pytorch_application),
        trial("builds_of_both_commands_have_the_hosts_proxies", proxies),
        trial("a_build_has_its_limits_from_the_command_line", limits),
        trial("builds_of_both_commands_fetch_their_context", fetched),
    ]
}

const APPLICATION: &str = "FROM python:3.11-slim\n\
    COPY . /app\n\
    WORKDIR /app\n\
    ENV PYTHONPATH=/app\n\
    RUN pip install --root-user-action=ignore -r requirements.txt\n\
    CMD [\"python\",\"main.py\"]\n";

/// The two-stage file as it is often printed: nothing is copied before pip wants it.
fn broken() -> String {
    let home = "/root";
    format!(
        "FROM python:3.11-slim AS builder\n\
        RUN pip install --root-user-action=ignore --user -r requirements.txt\n\
        FROM python:3.11-slim\n\
        COPY --from=builder {home}/.local {home}/.local\n\
        COPY . /app\n\
        WORKDIR /app\n\
        CMD [\"python\",\"main.py\"]\n"
    )
}

fn tutorial_application(stage: &Stage) -> Tested {
    needs_root("a plain user's containers have no way out yet")?;
    let rdock = stage.with(&[Name::Python])?;
    let context = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(context.path().join(name), text);
    write("requirements.txt", "six\n")?;
    write(
        "main.py",
        "import six, helper\nprint('built with', six.__name__, helper.WORD)\n",
    )?;
    write("helper.py", "WORD = 'and a module'\n")?;
    write("Dockerfile", APPLICATION)?;
    let folder = context.path().display().to_string();
    let mut build = rdock.command(["build", "--host-certificates", "-t", "myapp:latest", &folder]);
    let output = build.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let unreachable = [
        "NewConnectionError",
        "No matching distribution",
        "Temporary failure in name",
    ];
    if unreachable.iter().any(|why| said.contains(why)) {
        return Err(Cannot(format!("the Python package index cannot be reached: {said}")).into());
    }
    success(&build, &output)?;
    assert_eq!(
        rdock.run(["run", "--rm", "myapp:latest"])?,
        "built with six and a module\n"
    );
    assert!(rdock.run(["images"])?.contains("myapp"));
    // Again: nothing runs.
    let again = rdock
        .command(["build", "--host-certificates", "-t", "myapp:latest", &folder])
        .output()?;
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(
        again.status.success() && said.matches("CACHED").count() == 3,
        "{said}"
    );

    write("Dockerfile", &broken())?;
    let output = rdock
        .command(["build", "--host-certificates", "-t", "broken", &folder])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("Dockerfile:2:1"),
        "{said}"
    );
    assert!(
        said.contains("requirements.txt") && said.contains("exit code 1"),
        "{said}"
    );
    // Its corrected form is an example of this project.
    let folder = example("multistage").display().to_string();
    let mut build = rdock.command(["build", "--host-certificates", "-q", "-t", "twostage", &folder]);
    let output = build.output()?;
    success(&build, &output)?;
    assert_eq!(
        rdock.run(["run", "--rm", "twostage"])?,
        "built with six and a module from the second stage alone\n"
    );
    Ok(())
}

/// A folder of the examples.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// The course's Dockerfile word for word, with requirements that do not name the framework itself: the example's.
fn pytorch_application(stage: &Stage) -> Tested {
    needs_root("a plain user's containers have no way out yet")?;
    let rdock = stage.with(&[Name::Pytorch])?;
    let folder = example("training").display().to_string();
    let mut build = rdock.command(["build", "--host-certificates", "-t", "training:latest", &folder]);
    let output = build.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("NewConnectionError") || said.contains("Temporary failure in name") {
        return Err(Cannot(format!("the Python package index cannot be reached: {said}")).into());
    }
    success(&build, &output)?;
    let printed = rdock.run(["run", "--rm", "training:latest"])?;
    let losses: Vec<f64> = printed
        .lines()
        .filter_map(|line| line.rsplit_once(" loss ")?.1.parse().ok())
        .collect();
    assert_eq!(losses.len(), 9, "{printed}");
    assert!(losses[8] < losses[0] / 2.0, "{printed}");
    // The same in one program of the library, which finds the steps done.
    let program = path()?.with_file_name("build_and_run");
    if !program.exists() {
        return Err(format!(
            "{} is missing: `cargo build --examples` makes it",
            program.display()
        )
        .into());
    }
    let mut shown = Command::new(program);
    rdock.environment(&mut shown);
    let output = shown.stdin(Stdio::null()).output()?;
    let printed = success(&shown, &output)?;
    assert!(
        printed.contains("cached")
            && printed.contains("epoch 200 loss")
            && printed.contains("the loss fell from"),
        "{printed}"
    );
    Ok(())
}

/// A server, or a proxy, that has `content` under every name until the test ends.
fn serve(content: Vec<u8>) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let _ = lines.find(String::is_empty);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                content.len()
            );
            // A client that has gone away needs no answer.
            let _ = (&stream).write_all(&[head.as_bytes(), &content].concat());
        }
    });
    Ok(address)
}

/// What a file of an image holds.
fn printed(tiny: &Tiny, image: &str, path: &str) -> Result<String, Box<dyn std::error::Error>> {
    let done = tiny.start(&["run", "--name", "reader", image, "cat", path])?;
    tiny.run(&["rm", "-f", "reader"])?;
    match done.code {
        Some(0) => Ok(done.stdout),
        _ => Err(format!("{image}: {done:?}").into()),
    }
}

/// A command that builds, with more words.
type Build<'a> = &'a dyn Fn(&[&str]) -> Result<Command, Box<dyn std::error::Error>>;

fn proxies(tiny: &Tiny) -> Tested {
    // RUN says what it sees; ADD needs a name that nobody has.
    let file = "FROM tiny\nADD http://files.invalid/one /one\nRUN [\"/payload\", \"env\"]\n";
    let shop = Project::new(
        tiny,
        "services: {app: {build: {context: ., network: none}, command: [cat, /one]}}\n",
    )?;
    shop.write("Dockerfile", file)?;
    let folder = shop.path("").display().to_string();
    let address = serve(b"proxied".to_vec())?;
    let cleaned = |mut command: Command| {
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command
    };
    let both: [Build<'_>; 2] = [
        &|words| {
            let build = ["build", "--no-cache", "--network", "none", "-t", "shop-app"];
            Ok(cleaned(tiny.command(&[&build, words, &[&folder]].concat())?))
        },
        &|words| {
            Ok(cleaned(
                shop.command(&[&["build", "--no-cache"], words].concat())?,
            ))
        },
    ];
    for build in both {
        std::fs::write(tiny.file("config.json"), "{}")?;
        // The environment's is for downloads alone.
        let mut command = build(&[])?;
        let output = command.env("http_proxy", format!("http://{address}")).output()?;
        success(&command, &output)?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("FROM_IMAGE=yes") && !said.contains("http_proxy="),
            "{said}"
        );
        assert_eq!(printed(tiny, "shop-app", "/one")?, "proxied");
        // Those of docker's file are for commands, too, and before the environment's.
        let config = format!(
            r#"{{"proxies": {{"default": {{"httpProxy": "http://user:hidden@{address}", "noProxy": "near.example"}}}}}}"#
        );
        std::fs::write(tiny.file("config.json"), config)?;
        let mut command = build(&[])?;
        let output = command.env("http_proxy", "http://127.0.0.1:1").output()?;
        success(&command, &output)?;
        let said = String::from_utf8_lossy(&output.stderr);
        for line in [
            &format!("HTTP_PROXY=http://user:hidden@{address}"),
            &format!("http_proxy=http://user:hidden@{address}"),
            "NO_PROXY=near.example",
            "no_proxy=near.example",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
        let told = tiny.run(&["inspect", "shop-app"])?.stdout
            + &tiny.run(&["history", "--no-trunc", "shop-app"])?.stdout;
        assert!(
            told.contains("files.invalid") && !told.contains("hidden"),
            "{told}"
        );
        // An argument takes the place of both cases.
        let given = format!("http_proxy=http://{address}");
        let mut command = build(&["--build-arg", &given])?;
        let output = command.output()?;
        success(&command, &output)?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains(&format!("HTTP_PROXY=http://{address}")) && !said.contains("hidden"),
            "{said}"
        );
        // A file that is none is said, and the build goes on without it.
        std::fs::write(
            tiny.file("config.json"),
            r#"{"proxies": {"default": {"httpProxy": 1}}}"#,
        )?;
        let mut command = build(&[])?;
        let output = command.env("http_proxy", format!("http://{address}")).output()?;
        success(&command, &output)?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("config.json") && said.contains("httpProxy"),
            "{said}"
        );
    }
    // Also where `up` builds.
    shop.write(
        "compose.yaml",
        "name: shop\nservices: {new: {build: {context: ., network: none}, command: [cat, /one]}}\n",
    )?;
    let mut command = cleaned(shop.command(&["up", "--remove-orphans"])?);
    let output = command.env("http_proxy", format!("http://{address}")).output()?;
    assert!(success(&command, &output)?.contains("proxied"));
    Ok(())
}

fn limits(tiny: &Tiny) -> Tested {
    tiny.start(&["run", "--rm", "tiny"])?;
    let folder = tiny.file("context");
    std::fs::create_dir(&folder)?;
    std::fs::write(
        folder.join("Dockerfile"),
        "FROM tiny\nRUN [\"/payload\", \"cat\", \"/proc/self/limits\", \",\", \"cat\", \"/etc/hosts\"]\n",
    )?;
    let folder = folder.display().to_string();
    let build = |words: &[&str]| tiny.run(&[&["build", "--no-cache"], words, &[&folder]].concat());
    let words = [
        "--ulimit",
        "nofile=111:222",
        "--ulimit",
        "core=-1",
        "--add-host",
        "there:10.1.2.3",
        "-m",
        "64m",
        "--memory-swap",
        "-1",
        "-c",
        "512",
        "--cpu-quota",
        "50000",
        "--cpu-period",
        "100000",
        "--shm-size",
        "1m",
    ];
    let done = build(&words)?;
    assert_eq!(done.code, Some(0), "{done:?}");
    let said = done.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "Max open files 111 222 files",
        "Max core file size unlimited unlimited",
        "10.1.2.3 there",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for (words, told) in [
        (&["--ulimit", "nofile=x"][..], "nofile"),
        (&["--ulimit", "nonsense=1"], "nonsense"),
        (&["-m", "lots"], "lots"),
        (&["--cpu-period", "5"], "period"),
        (&["--add-host", "there"], "there"),
        (&["--shm-size", "x"], "x"),
    ] {
        let done = build(words)?;
        assert!(
            done.code != Some(0) && done.stderr.contains(told),
            "{words:?}: {done:?}"
        );
    }
    // A cache that cannot be had is said, and no reason to fail.
    let done = build(&["--cache-from", "type=registry,ref=127.0.0.1:1/cache"])?;
    assert!(
        done.code == Some(0)
            && done
                .stderr
                .contains("warning: the cache 127.0.0.1:1/cache:latest is not used"),
        "{done:?}"
    );
    Ok(())
}

fn fetched(tiny: &Tiny) -> Tested {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in [
        ("Dockerfile", "FROM tiny\nCOPY word /word\n"),
        ("other", "FROM tiny\nCOPY word /other\n"),
        ("word", "fetched"),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text.as_bytes())?;
    }
    let address = format!("http://{}/context.tar", serve(tar.into_inner()?)?);
    let shop = Project::new(
        tiny,
        &format!(
            "services:\n  one: {{build: '{address}'}}\n  two: {{build: {{context: '{address}', dockerfile: other}}}}\n  git: {{build: 'https://host.example/r.git'}}\n"
        ),
    )?;
    shop.ok(&["build", "one", "two"])?;
    let done = tiny.run(&["build", "-q", "-t", "three", "-f", "other", &address])?;
    assert_eq!(done.code, Some(0), "{done:?}");
    for (image, file) in [("shop-one", "/word"), ("shop-two", "/other"), ("three", "/other")] {
        assert_eq!(printed(tiny, image, file)?, "fetched", "{image}");
    }
    shop.fails(&["build", "git"], 1, &["git", "not supported yet"])
}
