//! The tutorial's project: a database and an application that is built here.

use crate::fixtures::Name;
use crate::program::{Cannot, Stage, Tested, free_port, needs_root, path, success};
use crate::tutorial::{OTHER_USER, START};
use libtest_mimic::Trial;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The tests of this file.
pub(crate) fn trials(stage: &Arc<Stage>) -> Vec<Trial> {
    vec![stage.trial("compose_tutorial_answers_with_a_value_of_its_database", tutorial)]
}

fn tutorial(stage: &Stage) -> Tested {
    needs_root(OTHER_USER)?;
    let rdock = stage.with(&[Name::Mysql, Name::Python])?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tutorial");
    // As a course types it: `docker-compose up -d` in the project's folder.
    let links = tempfile::TempDir::with_prefix("rdock-link-")?;
    let docker_compose = links.path().join("docker-compose");
    std::os::unix::fs::symlink(path()?, &docker_compose)?;
    let name = format!("tutorial-{}", std::process::id());
    let (app, db) = (free_port()?, free_port()?);
    let command = |words: &[&str]| {
        let mut command = Command::new(&docker_compose);
        rdock.environment(&mut command);
        command
            .args(words)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .env_remove("COMPOSE_FILE")
            .env("COMPOSE_PROJECT_NAME", &name)
            .env("APP_PORT", app.to_string())
            .env("DB_PORT", db.to_string());
        command
    };
    let run = |words: &[&str]| -> Result<String, Box<dyn std::error::Error>> {
        let mut command = command(words);
        let output = command.output()?;
        Ok(success(&command, &output)?)
    };
    let mut build = command(&["build", "--host-certificates"]);
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

    let tested = (|| {
        run(&["up", "-d"])?;
        let shown = run(&["ps"])?;
        assert!(
            shown.contains(&format!("{name}-app-1")) && shown.contains(&format!("{name}-db-1")),
            "{shown}"
        );
        assert_eq!(answer(app)?, "the answer is 42");
        let logs = run(&["logs", "app"])?;
        assert!(logs.contains("app-1  | ready"), "{logs}");
        run(&["stop", "-t", "1"])?;

        // In the foreground, until Ctrl-C.
        let mut child = command(&["up"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        let mut lines = BufReader::new(out).lines();
        let found = lines.any(|line| line.is_ok_and(|line| line.ends_with("| ready")));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        assert!(found, "{rest:?}");
        assert_eq!(child.wait()?.code(), Some(130), "{rest:?}");
        assert_eq!(run(&["ps", "-q"])?, "");
        Ok(())
    })();
    let down = run(&["down", "-v", "-t", "0"]);
    let tested: Tested = tested;
    tested.and(down.map(drop))?;
    let label = format!("label=com.docker.compose.project={name}");
    assert_eq!(rdock.run(["ps", "-aq", "--filter", &label])?, "");
    assert_eq!(rdock.run(["network", "ls", "-q", "--filter", &label])?, "");
    Ok(())
}

/// What the application answers, once it does.
fn answer(port: u16) -> Result<String, Box<dyn std::error::Error>> {
    let end = Instant::now() + START;
    loop {
        let mut text = String::new();
        let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            stream.read_to_string(&mut text)
        });
        match asked {
            Ok(_) if text.starts_with("HTTP/1.0 200") => {
                return Ok(text.lines().last().unwrap_or_default().to_owned());
            }
            // Nothing says when it listens.
            _ if Instant::now() < end => std::thread::sleep(Duration::from_millis(100)),
            _ => return Err(format!("no answer at port {port}: {text:?}").into()),
        }
    }
}
