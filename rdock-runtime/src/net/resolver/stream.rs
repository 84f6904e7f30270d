//! Queries by TCP: each message behind its length in two bytes (RFC 1035 section 4.2.2, RFC 7766).

use super::Reply;
use crate::reactor::{Interest, Loop, Timer, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// A client that says nothing for longer is left.
const IDLE: Duration = Duration::from_secs(20);
/// Clients at a time; more wait in the kernel's queue.
const CLIENTS: usize = 128;
/// Bytes of answers that a client has not taken yet.
const BEHIND: usize = 1 << 20;

type Asked = Rc<dyn Fn(&mut Loop, Vec<u8>, Reply)>;

/// A listening socket with its clients.
#[derive(Clone)]
pub(super) struct Server(Rc<RefCell<State>>);

struct State {
    socket: Option<(OwnedFd, Token)>,
    clients: HashMap<u64, Client>,
    next: u64,
    asked: Asked,
}

struct Client {
    socket: OwnedFd,
    token: Token,
    timer: Timer,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Server {
    pub(super) fn start(
        events: &mut Loop,
        socket: OwnedFd,
        asked: impl Fn(&mut Loop, Vec<u8>, Reply) + 'static,
    ) -> io::Result<Self> {
        let server = Self(Rc::new(RefCell::new(State {
            socket: None,
            clients: HashMap::new(),
            next: 0,
            asked: Rc::new(asked),
        })));
        let this = server.clone();
        let token = events.add(&socket, Interest::IN, move |events, _| this.accept(events))?;
        server.0.borrow_mut().socket = Some((socket, token));
        Ok(server)
    }

    pub(super) fn stop(&self, events: &mut Loop) {
        let mut this = self.0.borrow_mut();
        if let Some((socket, token)) = this.socket.take() {
            events.remove(token, &socket);
        }
        for (_, client) in this.clients.drain() {
            events.remove(client.token, &client.socket);
            events.cancel(client.timer);
        }
    }

    fn accept(&self, events: &mut Loop) {
        loop {
            let mut this = self.0.borrow_mut();
            let Some((socket, _)) = &this.socket else { return };
            let accepted = rustix::net::accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
            let Ok(socket) = accepted else { return };
            if this.clients.len() >= CLIENTS {
                continue;
            }
            let number = this.next;
            this.next += 1;
            let that = self.clone();
            let added = events.add(&socket, Interest::IN, move |events, _| that.ready(events, number));
            let Ok(token) = added else { return };
            let that = self.clone();
            let timer = events.after(IDLE, move |events| that.close(events, number));
            let client = Client {
                socket,
                token,
                timer,
                input: Vec::new(),
                output: Vec::new(),
            };
            this.clients.insert(number, client);
        }
    }

    fn close(&self, events: &mut Loop, number: u64) {
        if let Some(client) = self.0.borrow_mut().clients.remove(&number) {
            events.remove(client.token, &client.socket);
            events.cancel(client.timer);
        }
    }

    fn ready(&self, events: &mut Loop, number: u64) {
        self.flush(events, number);
        let mut queries = Vec::new();
        let mut ended = false;
        {
            let mut this = self.0.borrow_mut();
            let Some(client) = this.clients.get_mut(&number) else {
                return;
            };
            let mut buffer = [0; 4096];
            match rustix::net::recv(&client.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) => ended = true,
                Ok((size, _)) => client.input.extend(&buffer[..size]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => ended = true,
            }
            while let Some((query, rest)) = frame(&client.input) {
                let (query, rest) = (query.to_vec(), rest.to_vec());
                queries.push(query);
                client.input = rest;
            }
            if !queries.is_empty() {
                events.cancel(client.timer);
                let that = self.clone();
                client.timer = events.after(IDLE, move |events| that.close(events, number));
            }
        }
        if ended {
            return self.close(events, number);
        }
        let asked = self.0.borrow().asked.clone();
        for query in queries {
            let that = self.clone();
            asked(
                events,
                query,
                Box::new(move |events, bytes| that.answer(events, number, &bytes)),
            );
        }
    }

    fn answer(&self, events: &mut Loop, number: u64, bytes: &[u8]) {
        if let Some(client) = self.0.borrow_mut().clients.get_mut(&number)
            && let Ok(length) = u16::try_from(bytes.len())
        {
            client.output.extend(length.to_be_bytes());
            client.output.extend(bytes);
        }
        self.flush(events, number);
    }

    fn flush(&self, events: &mut Loop, number: u64) {
        let mut this = self.0.borrow_mut();
        let Some(client) = this.clients.get_mut(&number) else {
            return;
        };
        let mut failed = client.output.len() > BEHIND;
        while !client.output.is_empty() && !failed {
            match rustix::net::send(&client.socket, &client.output, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(client.output.drain(..sent)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => failed = true,
            }
        }
        let interest = if client.output.is_empty() {
            Interest::IN
        } else {
            Interest::IN | Interest::OUT
        };
        failed |= events.modify(client.token, &client.socket, interest).is_err();
        drop(this);
        if failed {
            self.close(events, number);
        }
    }
}

/// The first message of a buffer, and the rest.
pub(super) fn frame(buffer: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_be_bytes([*buffer.first()?, *buffer.get(1)?]));
    Some((buffer.get(2..2 + length)?, buffer.get(2 + length..)?))
}
