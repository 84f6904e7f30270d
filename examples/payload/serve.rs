//! Two small servers.

use crate::calls::{self, Text};
use crate::{Start, Words, fail};

const STREAM: usize = 1;
const DATAGRAM: usize = 2;

fn socket(port: u16, kind: usize) -> i32 {
    match calls::bound(port, kind) {
        Ok(fd) => fd,
        Err(errno) => fail("cannot listen", Text::EMPTY, errno),
    }
}

/// Answers every request with the words, one connection after the other.
pub fn http(start: Start, port: u16, words: Words) -> ! {
    let listener = socket(port, STREAM);
    if let Err(errno) = calls::listen(listener) {
        fail("cannot listen", Text::EMPTY, errno);
    }
    calls::print(1, b"payload: serving\n");
    loop {
        let Ok(client) = calls::accept(listener) else {
            continue;
        };
        let mut request = [0u8; 4096];
        let mut length = 0;
        // A client that sends more than that, or stops before the empty line, gets its page all the same.
        while length < request.len() && !request[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            match calls::read(client, &mut request[length..]) {
                Ok(count @ 1..) => length += count,
                _ => break,
            }
        }
        if length > 0 {
            // A client that went away is not this server's end.
            let _ = calls::write_all(client, b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n");
            start.line(words, &mut |bytes| {
                let _ = calls::write_all(client, bytes);
            });
            let line = request[..length]
                .split(|byte| *byte == b'\r')
                .next()
                .unwrap_or_default();
            calls::print(1, line);
            calls::print(1, b"\n");
        }
        calls::close(client);
    }
}

/// Sends every datagram back.
pub fn udp(port: u16) -> ! {
    let socket = socket(port, DATAGRAM);
    calls::print(1, b"payload: serving\n");
    let (mut bytes, mut from) = ([0u8; 2048], [0u8; 16]);
    loop {
        if let Ok(count) = calls::receive(socket, &mut bytes, &mut from) {
            // As with every datagram, it may get lost.
            let _ = calls::send(socket, &bytes[..count], &from);
        }
    }
}
