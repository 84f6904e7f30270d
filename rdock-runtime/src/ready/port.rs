//! A TCP port counts as ready when a socket inside listens on it and a connection to it stays open.

use super::{Listening, Missing, Pause, Target};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// How long a connection must stay open when the server says nothing. A proxy that has nobody behind it
/// closes it right away.
const STAYS_OPEN: Duration = Duration::from_millis(30);
/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(2);

pub(super) async fn wait<T: Target>(target: &T, port: u16, missing: &Missing) {
    let mut pause = Pause::short();
    loop {
        match target.listening(port).await {
            Ok(Listening::Yes) => match target.address(port) {
                None => return,
                Some(address) => match dial(address).await {
                    Ok(()) => return,
                    Err(reason) => missing.set(format!("port {port}: {reason}")),
                },
            },
            Ok(Listening::OnlyLoopback) => missing.set(format!(
                "the server listens on port {port} of 127.0.0.1 only, inside the container; it must listen on every address"
            )),
            Ok(Listening::No) => missing.set(format!("nothing listens on port {port}")),
            Err(error) => missing.set(format!("port {port} cannot be looked at: {error}")),
        }
        pause.wait().await;
    }
}

/// One connection that is accepted and not closed at once.
async fn dial(address: SocketAddr) -> Result<(), String> {
    let mut stream = match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("no connection to {address}: {error}")),
        Err(_) => return Err(format!("no answer from {address}")),
    };
    match tokio::time::timeout(STAYS_OPEN, stream.read(&mut [0])).await {
        Err(_) | Ok(Ok(1..)) => Ok(()),
        Ok(Ok(0)) => Err(format!("the connection to {address} is closed at once")),
        Ok(Err(error)) => Err(format!("the connection to {address} ends at once: {error}")),
    }
}
