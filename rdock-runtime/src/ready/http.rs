//! One `GET` after another (RFC 9112) until the status is the expected one.

use super::{Missing, Pause, Target};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A status line is shorter.
const LONGEST: usize = 4096;

pub(super) async fn wait<T: Target>(
    target: &T,
    port: u16,
    path: &str,
    wanted: Option<u16>,
    missing: &Missing,
) {
    let mut pause = Pause::new(Duration::from_millis(10), Duration::from_millis(500));
    loop {
        let Some(address) = target.address(port) else {
            missing.set(format!(
                "port {port} is not published, so that nobody can ask for {path}"
            ));
            pause.wait().await;
            continue;
        };
        let status = match tokio::time::timeout(PATIENCE, get(address, path)).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => {
                missing.set(format!("GET {path} of port {port}: {error}"));
                pause.wait().await;
                continue;
            }
            Err(_) => {
                missing.set(format!(
                    "GET {path} of port {port}: no answer within {} s",
                    PATIENCE.as_secs()
                ));
                continue;
            }
        };
        if wanted.map_or((200..400).contains(&status), |wanted| wanted == status) {
            return;
        }
        missing.set(format!(
            "GET {path} of port {port} is answered with status {status}"
        ));
        pause.wait().await;
    }
}

/// The status of one request.
async fn get(address: SocketAddr, path: &str) -> Result<u16, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).await.map_err(text)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: rdock\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(text)?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < LONGEST {
        if stream.read_buf(&mut answer).await.map_err(text)? == 0 {
            break;
        }
    }
    status(&answer).ok_or_else(|| "the answer is not HTTP".to_owned())
}

/// The three digits after the version.
fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    let (_, digits) = (
        rest.first().filter(|byte| byte.is_ascii_digit())?,
        rest.get(1..5)?,
    );
    let digits = std::str::from_utf8(digits).ok()?.strip_prefix(' ')?;
    let decimal = digits.bytes().all(|byte| byte.is_ascii_digit());
    let ends = rest
        .get(5)
        .is_none_or(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
    (decimal && ends).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn status_lines() {
        let table: [(&[u8], Option<u16>); 9] = [
            (b"HTTP/1.1 200 OK\r\n", Some(200)),
            (b"HTTP/1.0 404 Not Found\r\n", Some(404)),
            (b"HTTP/1.1 204\r\n", Some(204)),
            (b"HTTP/1.1 2000 X\r\n", None),
            (b"HTTP/1.1 20", None),
            (b"HTTP/2 200\r\n", None),
            (b"SSH-2.0-OpenSSH", None),
            (b"", None),
            (b"HTTP/1.1 +20 OK", None),
        ];
        for (answer, expected) in table {
            assert_eq!(status(answer), expected, "{:?}", String::from_utf8_lossy(answer));
        }
    }
}
