//! Asking other name servers: one after the other, each for a limited time, with a number and a port of its own for
//! every question.

use super::answer::{failure, question_end};
use super::{Reply, stream};
use crate::launch::SocketPlace;
use crate::net::files::Upstream;
use crate::net::publish::SocketMaker;
use crate::reactor::{Interest, Loop, Timer, Token};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use simple_dns::RCODE;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Questions at a time; more fail at once.
const UNDER_WAY: usize = 1024;

/// The questions under way.
#[derive(Clone)]
pub(super) struct Forwarding(Rc<RefCell<State>>);

struct State {
    sockets: Rc<dyn SocketMaker>,
    questions: HashMap<u64, Asked>,
    next: u64,
    turn: usize,
    stopped: bool,
}

struct Asked {
    /// With a number of ours.
    query: Vec<u8>,
    /// The client's.
    number: [u8; 2],
    stream: bool,
    upstream: Upstream,
    /// The server that is asked, counting on over all attempts.
    at: usize,
    reply: Option<Reply>,
    socket: Option<(OwnedFd, Token)>,
    timer: Option<Timer>,
    /// Of a stream: what is still to send, and what has come.
    output: Vec<u8>,
    input: Vec<u8>,
    /// The answer of a server that refused or failed, for when no other knows better.
    unwilling: Option<Vec<u8>>,
}

impl Forwarding {
    pub(super) fn new(sockets: Rc<dyn SocketMaker>) -> Self {
        Self(Rc::new(RefCell::new(State {
            sockets,
            questions: HashMap::new(),
            next: 0,
            turn: 0,
            stopped: false,
        })))
    }

    pub(super) fn stop(&self, events: &mut Loop) {
        let mut this = self.0.borrow_mut();
        this.stopped = true;
        for (_, mut asked) in this.questions.drain() {
            asked.let_go(events);
        }
    }

    /// Asks the servers and hands the first answer to `reply`, or that they failed.
    pub(super) fn ask(
        &self,
        events: &mut Loop,
        mut query: Vec<u8>,
        stream: bool,
        upstream: &Upstream,
        reply: Reply,
    ) {
        let mut this = self.0.borrow_mut();
        let mut number = [0; 2];
        let drawn = getrandom::fill(&mut number).is_ok();
        if this.stopped || this.questions.len() >= UNDER_WAY || upstream.servers.is_empty() || !drawn {
            drop(this);
            return reply(events, failure(&query, RCODE::ServerFailure));
        }
        let of_client = [query[0], query[1]];
        query[..2].copy_from_slice(&number);
        let mut upstream = upstream.clone();
        if upstream.rotate {
            let by = this.turn % upstream.servers.len();
            upstream.servers.rotate_left(by);
            this.turn = this.turn.wrapping_add(1);
        }
        let key = this.next;
        this.next += 1;
        let asked = Asked {
            query,
            number: of_client,
            stream,
            upstream,
            at: 0,
            reply: Some(reply),
            socket: None,
            timer: None,
            output: Vec::new(),
            input: Vec::new(),
            unwilling: None,
        };
        this.questions.insert(key, asked);
        drop(this);
        self.try_server(events, key);
    }

    /// Asks the server whose turn it is.
    fn try_server(&self, events: &mut Loop, key: u64) {
        let mut this = self.0.borrow_mut();
        let sockets = this.sockets.clone();
        let Some(asked) = this.questions.get_mut(&key) else {
            return;
        };
        let servers = &asked.upstream.servers;
        if asked.at >= servers.len() * asked.upstream.attempts {
            let bytes = asked
                .unwilling
                .take()
                .unwrap_or_else(|| failure(&asked.query, RCODE::ServerFailure));
            drop(this);
            return self.finish(events, key, bytes);
        }
        let server = servers[asked.at % servers.len()];
        let (inside, stream, timeout) = (asked.upstream.inside, asked.stream, asked.upstream.timeout);
        let that = self.clone();
        asked.timer = Some(events.after(timeout, move |events| that.next_server(events, key)));
        drop(this);
        let (family, kind) = match (server, stream) {
            (SocketAddr::V4(_), _) => (AddressFamily::INET, stream),
            (SocketAddr::V6(_), _) => (AddressFamily::INET6, stream),
        };
        let kind = if kind {
            SocketType::STREAM
        } else {
            SocketType::DGRAM
        };
        if inside {
            let that = self.clone();
            sockets.request(
                SocketPlace::Payload,
                i32::from(family.as_raw()),
                kind.as_raw() as i32,
                0,
                1,
                Box::new(move |events, made| {
                    let made = made.and_then(|mut made| made.pop().ok_or_else(|| Errno::BADMSG.into()));
                    that.send(events, key, server, made);
                }),
            );
        } else {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let made = rustix::net::socket_with(family, kind, flags, None).map_err(io::Error::from);
            self.send(events, key, server, made);
        }
    }

    fn send(&self, events: &mut Loop, key: u64, server: SocketAddr, made: io::Result<OwnedFd>) {
        let begin = |asked: &mut Asked, events: &mut Loop| -> io::Result<()> {
            let socket = made?;
            // A connected socket takes answers of this server alone.
            match rustix::net::connect(&socket, &server) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut interest = Interest::IN;
            if asked.stream {
                asked.output = (asked.query.len() as u16).to_be_bytes().to_vec();
                asked.output.extend(&asked.query);
                asked.input.clear();
                interest |= Interest::OUT;
            } else {
                rustix::net::send(&socket, &asked.query, SendFlags::NOSIGNAL)?;
            }
            let that = self.clone();
            let token = events.add(&socket, interest, move |events, flags| {
                that.ready(events, key, flags)
            })?;
            asked.socket = Some((socket, token));
            Ok(())
        };
        let mut this = self.0.borrow_mut();
        // It may have been given up while its socket was made.
        let Some(asked) = this
            .questions
            .get_mut(&key)
            .filter(|asked| asked.socket.is_none())
        else {
            return;
        };
        let begun = begin(asked, events);
        drop(this);
        if begun.is_err() {
            self.next_server_soon(events, key);
        }
    }

    fn ready(&self, events: &mut Loop, key: u64, flags: Interest) {
        let mut this = self.0.borrow_mut();
        let Some(asked) = this.questions.get_mut(&key) else {
            return;
        };
        let taken = if asked.stream {
            asked.take_stream(events, flags)
        } else {
            asked.take_datagram()
        };
        match taken {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                let servers = asked.upstream.servers.len();
                // SERVFAIL, NOTIMP and REFUSED are no answers: another server may have one.
                if matches!(bytes[3] & 0x0f, 2 | 4 | 5) && asked.at + 1 < servers {
                    asked.unwilling = Some(bytes);
                    drop(this);
                    return self.next_server(events, key);
                }
                drop(this);
                self.finish(events, key, bytes);
            }
            Err(_) => {
                drop(this);
                self.next_server(events, key);
            }
        }
    }

    fn next_server(&self, events: &mut Loop, key: u64) {
        if let Some(asked) = self.0.borrow_mut().questions.get_mut(&key) {
            asked.let_go(events);
            asked.at += 1;
        }
        self.try_server(events, key);
    }

    /// From a place where a long chain of failures would nest.
    fn next_server_soon(&self, events: &mut Loop, key: u64) {
        let that = self.clone();
        let timer = events.after(std::time::Duration::ZERO, move |events| {
            that.next_server(events, key)
        });
        if let Some(asked) = self.0.borrow_mut().questions.get_mut(&key) {
            asked.let_go(events);
            asked.timer = Some(timer);
        }
    }

    fn finish(&self, events: &mut Loop, key: u64, mut bytes: Vec<u8>) {
        let Some(mut asked) = self.0.borrow_mut().questions.remove(&key) else {
            return;
        };
        asked.let_go(events);
        bytes[..2].copy_from_slice(&asked.number);
        if let Some(reply) = asked.reply.take() {
            reply(events, bytes);
        }
    }
}

impl Asked {
    fn let_go(&mut self, events: &mut Loop) {
        if let Some((socket, token)) = self.socket.take() {
            events.remove(token, &socket);
        }
        if let Some(timer) = self.timer.take() {
            events.cancel(timer);
        }
    }

    /// Whether it answers this question: the number, and the question word for word.
    fn is_answer(&self, bytes: &[u8]) -> bool {
        let Some(end) = question_end(&self.query) else {
            return false;
        };
        bytes.len() >= end
            && bytes[..2] == self.query[..2]
            && bytes[2] & 0x80 != 0
            && bytes[12..end].eq_ignore_ascii_case(&self.query[12..end])
    }

    fn take_datagram(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some((socket, _)) = &self.socket else {
            return Ok(None);
        };
        let mut buffer = vec![0; 64 << 10];
        match rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((size, _)) => {
                buffer.truncate(size);
                // What is no answer is passed over until the time is up.
                Ok(self.is_answer(&buffer).then_some(buffer))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn take_stream(&mut self, events: &mut Loop, flags: Interest) -> io::Result<Option<Vec<u8>>> {
        let Some((socket, token)) = &self.socket else {
            return Ok(None);
        };
        if flags.contains(Interest::OUT) && !self.output.is_empty() {
            match rustix::net::send(socket, &self.output, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
            if self.output.is_empty() {
                events.modify(*token, socket, Interest::IN)?;
            }
        }
        let mut buffer = [0; 4096];
        match rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((size, _)) => self.input.extend(&buffer[..size]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        let whole = stream::frame(&self.input).map(|(answer, _)| answer.to_vec());
        Ok(whole.filter(|bytes| self.is_answer(bytes)))
    }
}
