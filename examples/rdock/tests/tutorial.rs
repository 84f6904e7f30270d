//! The tutorial: a MySQL server from a registry, used from the host, typed with `rdock`.

use crate::client;
use crate::fixtures::{Access, Cache, Name, Registry};
use crate::program::{Stage, Tested, free_port, needs_root};
use crate::pty::Terminal;
use libtest_mimic::Trial;
use mysql::prelude::Queryable;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The tests of this file.
pub(crate) fn trials(stage: &Arc<Stage>) -> Vec<Trial> {
    vec![
        stage.trial("registry_serves_what_was_made", registry_serves_what_was_made),
        stage.trial("mysql_tutorial", mysql_tutorial),
    ]
}

/// Why servers that drop to a user of their own are not run by a plain user.
pub(crate) const OTHER_USER: &str = "the server drops to a user of its own, and one mapped id has none";

/// A server on two slow processors takes this long at most.
pub(crate) const START: Duration = Duration::from_secs(120);

fn registry_serves_what_was_made(_: &Stage) -> Tested {
    let cache = Cache::open()?;
    let image = Name::Debian.make(&cache)?;
    let path = "/v2/library/debian/manifests/bookworm-slim";
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json\r\n";

    let registry = Registry::start(&cache, Access::Everyone)?;
    let (status, manifest) = client::http(registry.port(), "GET", path, accept, "")?;
    assert_eq!(status, 200, "{manifest}");
    assert_eq!(
        image.digest,
        format!("sha256:{}", Registry::digest_of(manifest.as_bytes()))
    );

    let closed = Registry::start(&cache, Access::Password)?;
    assert_eq!(client::http(closed.port(), "GET", path, accept, "")?.0, 401);
    // tester:secret
    let header = format!("{accept}Authorization: Basic dGVzdGVyOnNlY3JldA==\r\n");
    assert_eq!(client::http(closed.port(), "GET", path, &header, "")?.0, 200);
    Ok(())
}

fn mysql_tutorial(stage: &Stage) -> Tested {
    needs_root(OTHER_USER)?;
    let rdock = stage.with(&[Name::Mysql])?;
    rdock.run(["pull", "mysql:8"])?;

    // The port of the tutorial where it is free; other test programs that want it wait here.
    let _port = rdock.cache().lock("port-3306")?;
    let port = match TcpListener::bind(("0.0.0.0", 3306)) {
        Ok(_) => 3306,
        Err(_) => free_port()?,
    };
    let publish = format!("{port}:3306");
    let name = "mysql-tutorial";
    let _guard = rdock.guard(name);
    let volume = "tutorial-data:/var/lib/mysql";
    let id = rdock.run([
        "run",
        "--name",
        name,
        "-e",
        "MYSQL_ROOT_PASSWORD=1234",
        "-d",
        "-p",
        &publish,
        "-v",
        volume,
        "mysql:8",
    ])?;
    let id = id.trim();
    assert!(
        id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit()),
        "{id:?}"
    );

    // It initialises its data for seconds, without a port.
    let refusals = client::refused_until_greeted(port, START)?;
    assert!(refusals > 0, "the server cannot have listened at once");

    let mut connection = client::mysql(port, "1234")?;
    let user: Option<String> = connection.query_first("select user()")?;
    let user = user.ok_or("no row")?;
    assert!(
        user.starts_with("root@") && !user.contains("127.0.0.1") && !user.contains("localhost"),
        "{user}"
    );
    connection.query_drop("create database tutorial")?;
    connection.query_drop("create table tutorial.notes (text varchar(40))")?;
    connection.query_drop("insert into tutorial.notes values ('written through the port')")?;
    match client::mysql(port, "wrong") {
        Err(mysql::Error::MySqlError(error)) => assert_eq!(error.code, 1045, "{error}"),
        other => return Err(format!("a wrong password: {:?}", other.map(drop)).into()),
    }

    let list = rdock.run(["ps"])?;
    let line = list
        .lines()
        .find(|line| line.contains(name))
        .ok_or_else(|| format!("not in {list}"))?;
    for word in [&id[..12], "mysql:8", "Up", "3306/tcp", &format!(":{port}->")] {
        assert!(line.contains(word), "{word} is not in {line:?}");
    }

    let mut shell = Terminal::start(&rdock.command(["exec", "-it", name, "/bin/bash"]), 33, 101)?;
    shell.send("echo user=$(id -un) tty=$(tty) size=$(stty size)\n")?;
    shell.expect("user=root tty=/dev/pts/0 size=33 101", Duration::from_secs(20))?;
    shell.resize(44, 99)?;
    // The new size arrives by a signal, some time after.
    shell.send("until [ \"$(stty size)\" = '44 99' ]; do sleep 0.1; done; echo resi''zed\n")?;
    shell.expect("resized", Duration::from_secs(20))?;
    shell.send("mysql -p1234 -e 'select text from tutorial.notes' 2>/dev/null; exit 7\n")?;
    shell.expect("written through the port", Duration::from_secs(20))?;
    let status = shell.wait(Duration::from_secs(20))?;
    assert_eq!(status.code(), Some(7));

    let command = rdock.command(["logs", name]).output()?;
    let logs = [command.stdout, command.stderr].concat();
    let logs = String::from_utf8_lossy(&logs);
    assert!(logs.contains("ready for connections"), "{logs}");
    let tail = rdock.command(["logs", "--tail", "1", name]).output()?;
    assert_eq!(
        [tail.stdout, tail.stderr]
            .concat()
            .iter()
            .filter(|byte| **byte == b'\n')
            .count(),
        1
    );

    let begin = Instant::now();
    assert_eq!(rdock.run(["stop", name])?.trim(), name);
    let took = begin.elapsed();
    assert!(
        took < Duration::from_secs(10),
        "killed after the timeout, not stopped: {took:?}"
    );
    let logs = rdock.command(["logs", name]).output()?;
    let logs = [logs.stdout, logs.stderr].concat();
    assert!(
        String::from_utf8_lossy(&logs).contains("Shutdown complete"),
        "no clean shutdown"
    );
    assert_eq!(rdock.run(["wait", name])?.trim(), "0");
    assert!(
        client::mysql(port, "1234").is_err(),
        "stopped, and still reachable"
    );
    assert!(!rdock.run(["ps"])?.contains(name));
    assert!(rdock.run(["ps", "-a"])?.contains("Exited (0)"));
    rdock.run(["rm", name])?;
    assert!(!rdock.run(["ps", "-a"])?.contains(name));

    // The volume has what the first server wrote.
    rdock.run([
        "run", "--name", name, "-d", "-p", &publish, "-v", volume, "mysql:8",
    ])?;
    client::refused_until_greeted(port, START)?;
    let text: Option<String> = client::mysql(port, "1234")?.query_first("select text from tutorial.notes")?;
    assert_eq!(text.as_deref(), Some("written through the port"));
    rdock.run(["rm", "-f", name])?;
    rdock.run(["volume", "rm", "tutorial-data"])?;
    Ok(())
}
