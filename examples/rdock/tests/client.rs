//! Clients on the host: MySQL, PostgreSQL and HTTP.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Connects to MySQL on 127.0.0.1 as root.
pub(crate) fn mysql(port: u16, password: &str) -> mysql::Result<mysql::Conn> {
    let options = mysql::OptsBuilder::new()
        .ip_or_hostname(Some("127.0.0.1"))
        .tcp_port(port)
        .user(Some("root"))
        .pass(Some(password))
        // Else the client would look for the server's own socket on the host.
        .prefer_socket(false)
        .tcp_connect_timeout(Some(Duration::from_secs(5)))
        .read_timeout(Some(Duration::from_secs(20)));
    mysql::Conn::new(options)
}

/// Connects to PostgreSQL on 127.0.0.1.
pub(crate) fn postgres(port: u16, password: &str) -> Result<postgres::Client, postgres::Error> {
    postgres::Config::new()
        .host("127.0.0.1")
        .port(port)
        .user("postgres")
        .password(password)
        .connect_timeout(Duration::from_secs(5))
        .connect(postgres::NoTls)
}

/// Waits for a server that speaks first. Until it listens every attempt must be refused; the first connection that
/// is made must be answered. Returns how often it was refused.
pub(crate) fn refused_until_greeted(port: u16, limit: Duration) -> Result<u32, String> {
    let (mut refused, deadline) = (0, Instant::now() + limit);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    while Instant::now() < deadline {
        match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(mut stream) => {
                stream
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .map_err(|error| error.to_string())?;
                return match stream.read(&mut [0; 1]) {
                    Ok(1) => Ok(refused),
                    other => Err(format!(
                        "connected after {refused} refusals, then {other:?} instead of a greeting"
                    )),
                };
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused += 1,
            Err(error) => return Err(format!("expected a refusal: {error}")),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("nothing listens after {limit:?}, {refused} refusals"))
}

/// Waits until a port of 127.0.0.1 takes connections.
pub(crate) fn reachable(port: u16, limit: Duration) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline {
            return Err(format!("port {port} takes no connections after {limit:?}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The status and the body of an HTTP request to 127.0.0.1.
pub(crate) fn http(
    port: u16,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("not HTTP: {answer:?}")))?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default();
    Ok((status, body))
}
