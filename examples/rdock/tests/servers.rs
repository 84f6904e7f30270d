//! Other servers, and what containers of one image must not share.

use crate::client;
use crate::fixtures::{Name, mirror_host};
use crate::program::{Cannot, Program, Stage, Tested, free_port, needs_root, success};
use crate::pty::Terminal;
use crate::tutorial::{OTHER_USER, START};
use libtest_mimic::Trial;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The tests of this file.
pub(crate) fn trials(stage: &Arc<Stage>) -> Vec<Trial> {
    vec![
        stage.trial("postgres_asks_for_the_password", postgres_asks_for_the_password),
        stage.trial("redis_answers_at_its_port", redis_answers),
        stage.trial("nginx_serves_a_page_and_logs_it", nginx_serves_a_page),
        stage.trial("pip_installs_a_package_in_a_container", pip_installs_a_package),
        stage.trial(
            "jupyter_saves_a_notebook_into_the_bound_folder",
            jupyter_saves_a_notebook,
        ),
        stage.trial(
            "jupyter_cannot_write_a_folder_of_another_user",
            jupyter_cannot_write,
        ),
        stage.trial(
            "two_runs_of_an_image_see_the_same_tree",
            two_runs_see_the_same_tree,
        ),
        stage.trial(
            "what_one_run_wrote_is_absent_in_the_next",
            what_one_run_wrote_is_absent,
        ),
        stage.trial("container_reaches_the_world", container_reaches_the_world),
        stage.trial(
            "blocked_current_thread_runtime_gets_its_answer",
            blocked_current_thread_runtime,
        ),
    ]
}

fn postgres_asks_for_the_password(stage: &Stage) -> Tested {
    needs_root(OTHER_USER)?;
    let rdock = stage.with(&[Name::Postgres])?;
    let port = free_port()?;
    let publish = format!("127.0.0.1:{port}:5432");
    let _guard = rdock.guard("postgres");
    rdock.run([
        "run",
        "-d",
        "--name",
        "postgres",
        "-e",
        "POSTGRES_PASSWORD=right",
        "-p",
        &publish,
        "postgres:15",
    ])?;
    let deadline = Instant::now() + START;
    let mut client = loop {
        match client::postgres(port, "right") {
            Ok(client) => break client,
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            // Between listening and being ready it says that it is starting up.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    let row = client.query_one("select host(inet_client_addr()), 40 + 2", &[])?;
    let (address, sum): (String, i32) = (row.try_get(0)?, row.try_get(1)?);
    // Its default settings trust 127.0.0.1: a client that came from there would need no password.
    assert_ne!(address, "127.0.0.1");
    assert_eq!(sum, 42);
    match client::postgres(port, "wrong") {
        Ok(_) => return Err("a wrong password was accepted".into()),
        Err(error) => assert_eq!(
            error.code(),
            Some(&postgres::error::SqlState::INVALID_PASSWORD),
            "{error}"
        ),
    }
    rdock.run(["stop", "postgres"])?;
    assert_eq!(rdock.run(["wait", "postgres"])?.trim(), "0");
    Ok(())
}

fn redis_answers(stage: &Stage) -> Tested {
    needs_root(OTHER_USER)?;
    let rdock = stage.with(&[Name::Redis])?;
    let port = free_port()?;
    let publish = format!("127.0.0.1:{port}:6379");
    let _guard = rdock.guard("redis");
    rdock.run(["run", "-d", "--name", "redis", "-p", &publish, "redis:7"])?;
    client::reachable(port, START)?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(START))?;
    stream.write_all(b"SET key 42\r\nGET key\r\n")?;
    let mut answer = [0; 13];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"+OK\r\n$2\r\n42\r\n");
    let seen = rdock.run(["exec", "redis", "redis-cli", "get", "key"])?;
    assert_eq!(seen.trim(), "42");
    Ok(())
}

fn nginx_serves_a_page(stage: &Stage) -> Tested {
    needs_root(OTHER_USER)?;
    let rdock = stage.with(&[Name::Nginx])?;
    let port = free_port()?;
    let publish = format!("127.0.0.1:{port}:80");
    let _guard = rdock.guard("nginx");
    rdock.run(["run", "-d", "--name", "nginx", "-p", &publish, "nginx:1.22"])?;
    client::reachable(port, START)?;
    let (status, page) = client::http(port, "GET", "/", "", "")?;
    assert_eq!((status, page.as_str()), (200, "Welcome to nginx!\n"));
    rdock.run(["stop", "nginx"])?;
    assert_eq!(rdock.run(["wait", "nginx"])?.trim(), "0");
    let log = rdock.run(["logs", "nginx"])?;
    assert!(log.contains("\"GET / HTTP/1"), "{log}");
    Ok(())
}

fn pip_installs_a_package(stage: &Stage) -> Tested {
    needs_root("a plain user's containers have no way out yet")?;
    let rdock = stage.with(&[Name::Python])?;
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let mount = format!("{bundle}:{bundle}:ro");
    let script =
        "pip install -q --root-user-action=ignore six && python -c 'import six; print(six.__name__)'";
    let mut install = rdock.command([
        "run",
        "--rm",
        "-v",
        &mount,
        "python:3.11-slim",
        "sh",
        "-c",
        script,
    ]);
    let output = install.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if [
        "NewConnectionError",
        "No matching distribution",
        "Temporary failure in name",
    ]
    .iter()
    .any(|why| said.contains(why))
    {
        return Err(Cannot(format!("the Python package index cannot be reached: {said}")).into());
    }
    assert_eq!(success(&install, &output)?, "six\n");
    Ok(())
}

const NOTEBOOK: &str = r#"{"type":"notebook","format":"json","content":{"cells":[],"metadata":{},"nbformat":4,"nbformat_minor":5}}"#;

/// Starts the notebook server on a terminal; it, its port and its token.
fn notebook(
    rdock: &Program,
    name: &str,
    dir: &Path,
) -> Result<(Terminal, u16, String), Box<dyn std::error::Error>> {
    let port = free_port()?;
    let publish = format!("{port}:8888");
    let bind = format!("{}:/home/jovyan/workspace", dir.display());
    let arguments = [
        "run",
        "-it",
        "--name",
        name,
        "-p",
        &publish,
        "-v",
        &bind,
        "jupyter/minimal-notebook",
    ];
    let mut terminal = Terminal::start(&rdock.command(arguments), 50, 200)?;
    let token = terminal.until(START, |seen| {
        let rest = seen.split_once("/lab?token=")?.1;
        let token: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
        (token.len() < rest.len()).then_some(token)
    })?;
    // It said that it listens; the published port follows within moments.
    client::reachable(port, Duration::from_secs(1))?;
    Ok((terminal, port, token))
}

/// Saves a notebook through the server's API; the HTTP status.
fn save(port: u16, token: &str) -> std::io::Result<(u16, String)> {
    let headers = format!("Authorization: token {token}\r\nContent-Type: application/json\r\n");
    client::http(
        port,
        "PUT",
        "/api/contents/workspace/saved.ipynb",
        &headers,
        NOTEBOOK,
    )
}

fn jupyter_saves_a_notebook(stage: &Stage) -> Tested {
    needs_root("the folder is given to the image's user")?;
    let rdock = stage.with(&[Name::Jupyter])?;
    let dir = tempfile::tempdir()?;
    chown(dir.path(), Some(1000), Some(100))?;
    let _guard = rdock.guard("notebook");
    let (mut terminal, port, token) = notebook(&rdock, "notebook", dir.path())?;
    let (status, page) = client::http(port, "GET", &format!("/lab?token={token}"), "", "")?;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("JupyterLab"), "{page}");
    assert_eq!(
        client::http(port, "GET", "/api/contents", "", "")?.0,
        403,
        "no token, and let in"
    );
    let (status, answer) = save(port, &token)?;
    assert_eq!(status, 201, "{answer}");
    let meta = std::fs::metadata(dir.path().join("saved.ipynb"))?;
    assert_eq!((meta.uid(), meta.gid()), (1000, 100));
    // Ctrl-C is for the payload, which asks; the second one ends it.
    terminal.send("\u{3}")?;
    terminal.expect("Shut", Duration::from_secs(20))?;
    terminal.send("\u{3}")?;
    let status = terminal.wait(Duration::from_secs(30))?;
    assert_eq!(status.code(), Some(0));
    Ok(())
}

fn jupyter_cannot_write(stage: &Stage) -> Tested {
    needs_root("the folder belongs to root")?;
    let rdock = stage.with(&[Name::Jupyter])?;
    let dir = tempfile::tempdir()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    let _guard = rdock.guard("notebook-refused");
    let (terminal, port, token) = notebook(&rdock, "notebook-refused", dir.path())?;
    let (status, answer) = save(port, &token)?;
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("Permission denied"), "{answer}");
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0);
    rdock.run(["stop", "notebook-refused"])?;
    terminal.wait(Duration::from_secs(20))?;
    Ok(())
}

/// Names, kinds, modes, owners, sizes, link targets and the times of files: everything but what the runtime puts
/// there (for which it touches folders).
const LIST: &str = "find / -xdev \\( -path /dev -o -path /proc -o -path /sys -o -path /etc/hosts \
                    -o -path /etc/hostname -o -path /etc/resolv.conf \\) -prune \
                    -o -type d -printf '%p %y %m %U %G\\n' -o -printf '%p %y %m %U %G %s %l %T@\\n' | sort";

/// Both lists are long and the same.
fn same_tree(first: &str, second: &str) {
    assert!(first.lines().count() > 1000, "{first}");
    let differs = first
        .lines()
        .zip(second.lines())
        .find(|(first, second)| first != second);
    assert_eq!(differs, None);
    assert_eq!(first.lines().count(), second.lines().count());
}

fn two_runs_see_the_same_tree(stage: &Stage) -> Tested {
    let rdock = stage.with(&[Name::Debian])?;
    let run = || rdock.run(["run", "--rm", "debian:bookworm-slim", "bash", "-c", LIST]);
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(run);
        (run(), other.join())
    });
    same_tree(&first?, &second.map_err(|_| "a run panicked")??);
    Ok(())
}

fn what_one_run_wrote_is_absent(stage: &Stage) -> Tested {
    let rdock = stage.with(&[Name::Debian])?;
    let run = |script: &str| rdock.run(["run", "--rm", "debian:bookworm-slim", "bash", "-ec", script]);
    let before = run(LIST)?;
    let written =
        run("echo x >/etc/written; rm /etc/shells; chmod 700 /usr/bin/sed; mv /srv /moved; echo done")?;
    assert_eq!(written, "done\n");
    same_tree(&run(LIST)?, &before);
    Ok(())
}

fn container_reaches_the_world(stage: &Stage) -> Tested {
    needs_root("a plain user's containers have no way out yet")?;
    let rdock = stage.with(&[Name::Debian])?;
    let host = mirror_host()?;
    let mut addresses = (host.as_str(), 80)
        .to_socket_addrs()
        .map_err(|error| Cannot(format!("{host}: {error}")))?;
    let address = addresses
        .find(|address| address.is_ipv4())
        .ok_or_else(|| Cannot(format!("{host} has no IPv4")))?;
    TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .map_err(|error| Cannot(format!("this machine itself does not reach {host}: {error}")))?;
    // By name: the resolver is on the way too.
    let script = format!(
        "exec 3<>/dev/tcp/{host}/80; printf 'HEAD / HTTP/1.0\\r\\nHost: {host}\\r\\n\\r\\n' >&3; head -c 5 <&3"
    );
    let answer = rdock.run(["run", "--rm", "debian:bookworm-slim", "bash", "-c", &script])?;
    assert_eq!(answer, "HTTP/");
    let alone = rdock.command([
        "run",
        "--rm",
        "--network",
        "none",
        "debian:bookworm-slim",
        "bash",
        "-c",
        &script,
    ]);
    let mut alone = alone;
    assert!(
        !alone.output()?.status.success(),
        "reached {host} without a network"
    );
    Ok(())
}

fn blocked_current_thread_runtime(stage: &Stage) -> Tested {
    needs_root(OTHER_USER)?;
    let rdock = stage.with(&[Name::Mysql])?;
    let mut host = rdock.role("current-thread-mysql")?;
    let output = host.output()?;
    assert_eq!(success(&host, &output)?, "answer 42\n");
    Ok(())
}
