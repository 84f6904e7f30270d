//! A published UDP port: one socket inside for each client, forgotten when it is silent.

use super::datagram::{self, Client as Who};
use super::{SocketAnswer, SocketMaker};
use crate::launch::SocketPlace;
use crate::reactor::{Interest, Loop, Timer, Token};
use rustix::net::{RecvFlags, SendFlags};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A client that is silent for longer is forgotten; what the kernel's connection tracking gives a stream.
const SILENCE: Duration = Duration::from_secs(120);
const SWEEP: Duration = Duration::from_secs(30);
/// Clients of one port. Datagrams of more are dropped.
const CLIENTS: usize = 1024;
/// Datagrams of a client that wait for its socket.
const WAITING: usize = 32;
/// Datagrams handled before others have their turn.
const TURN: usize = 64;

/// One published UDP port.
#[derive(Clone)]
pub(super) struct Port(Rc<RefCell<State>>);

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

struct State {
    socket: Option<(OwnedFd, Token)>,
    sockets: Rc<dyn SocketMaker>,
    to: SocketAddrV4,
    clients: HashMap<Who, Client>,
    sweep: Option<Timer>,
    buffer: Vec<u8>,
    /// The container is in no network.
    nowhere: bool,
}

enum Client {
    /// Its datagrams, until it has a socket.
    Waiting(Vec<Vec<u8>>),
    Known {
        socket: OwnedFd,
        token: Token,
        heard: Instant,
    },
}

impl Port {
    pub(super) fn new(
        events: &mut Loop,
        socket: OwnedFd,
        sockets: Rc<dyn SocketMaker>,
        to: SocketAddrV4,
    ) -> io::Result<Self> {
        let port = Self(Rc::new(RefCell::new(State {
            socket: None,
            sockets,
            to,
            clients: HashMap::new(),
            sweep: None,
            buffer: vec![0; 64 << 10],
            nowhere: false,
        })));
        let that = port.clone();
        let token = events.add(&socket, Interest::IN, move |events, _| {
            that.take_from_clients(events)
        })?;
        port.0.borrow_mut().socket = Some((socket, token));
        Ok(port)
    }

    pub(super) fn stop(&self, events: &mut Loop) {
        let mut this = self.0.borrow_mut();
        if let Some((socket, token)) = this.socket.take() {
            events.remove(token, &socket);
        }
        if let Some(timer) = this.sweep.take() {
            events.cancel(timer);
        }
        for (_, client) in this.clients.drain() {
            client.forget(events);
        }
    }

    /// Datagrams go to another address from now on; without one they are dropped.
    pub(super) fn move_to(&self, events: &mut Loop, container: Option<Ipv4Addr>) {
        let mut this = self.0.borrow_mut();
        if container == Some(*this.to.ip()) && !this.nowhere {
            return;
        }
        this.nowhere = container.is_none();
        let port = this.to.port();
        this.to = SocketAddrV4::new(container.unwrap_or(*this.to.ip()), port);
        for (_, client) in this.clients.drain() {
            client.forget(events);
        }
    }

    fn take_from_clients(&self, events: &mut Loop) {
        for _ in 0..TURN {
            let mut this = self.0.borrow_mut();
            let State {
                socket,
                clients,
                buffer,
                nowhere,
                ..
            } = &mut *this;
            let Some((socket, _)) = socket else { return };
            // An error here is the echo of an answer that its client did not want.
            let Ok((size, from)) = datagram::receive(socket, &mut buffer[..]) else {
                return;
            };
            let bytes = &buffer[..size];
            let full = clients.len() >= CLIENTS || *nowhere;
            match clients.get_mut(&from) {
                Some(Client::Known { socket, heard, .. }) => {
                    *heard = Instant::now();
                    // Lost, as datagrams may be; a refusal is read from the socket too.
                    let _ = rustix::net::send(&*socket, bytes, SendFlags::empty());
                }
                Some(Client::Waiting(waiting)) if waiting.len() < WAITING => waiting.push(bytes.to_vec()),
                Some(Client::Waiting(_)) => {}
                None if !full => {
                    clients.insert(from, Client::Waiting(vec![bytes.to_vec()]));
                    let sockets = this.sockets.clone();
                    drop(this);
                    self.ask(events, &*sockets, from);
                }
                None => {}
            }
        }
    }

    fn ask(&self, events: &mut Loop, sockets: &dyn SocketMaker, from: Who) {
        let that = self.clone();
        let answer: SocketAnswer = Box::new(move |events, made| {
            let made = made.ok().and_then(|mut made| made.pop());
            if made.and_then(|socket| that.begin(events, from, socket)).is_none() {
                that.0.borrow_mut().clients.remove(&from);
            }
        });
        let (domain, kind, protocol) = (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP);
        sockets.request(SocketPlace::Network, domain, kind, protocol, 1, answer);
        self.sweep_later(events);
    }

    /// `None` when the client cannot be served.
    fn begin(&self, events: &mut Loop, from: Who, socket: OwnedFd) -> Option<()> {
        let mut this = self.0.borrow_mut();
        this.socket.as_ref()?;
        let Some(Client::Waiting(waiting)) = this.clients.remove(&from) else {
            return None;
        };
        rustix::net::connect(&socket, &this.to).ok()?;
        let that = self.clone();
        let token = events
            .add(&socket, Interest::IN, move |events, _| {
                that.take_from_server(events, from)
            })
            .ok()?;
        for datagram in waiting {
            let _ = rustix::net::send(&socket, &datagram, SendFlags::empty());
        }
        this.clients.insert(
            from,
            Client::Known {
                socket,
                token,
                heard: Instant::now(),
            },
        );
        Some(())
    }

    fn take_from_server(&self, events: &mut Loop, client: Who) {
        for _ in 0..TURN {
            let mut this = self.0.borrow_mut();
            let State {
                socket: Some((host, _)),
                clients,
                buffer,
                ..
            } = &mut *this
            else {
                return;
            };
            let Some(Client::Known { socket, heard, .. }) = clients.get_mut(&client) else {
                return;
            };
            match rustix::net::recv(&*socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((size, _)) => {
                    *heard = Instant::now();
                    let _ = datagram::send(host, &buffer[..size], client);
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
                // Nobody is there: the next datagram tries again.
                Err(_) => {
                    let gone = clients.remove(&client);
                    drop(this);
                    if let Some(gone) = gone {
                        gone.forget(events);
                    }
                    return;
                }
            }
        }
    }

    fn sweep_later(&self, events: &mut Loop) {
        let mut this = self.0.borrow_mut();
        if this.sweep.is_none() && this.socket.is_some() && !this.clients.is_empty() {
            let that = self.clone();
            this.sweep = Some(events.after(SWEEP, move |events| that.sweep(events)));
        }
    }

    fn sweep(&self, events: &mut Loop) {
        let mut this = self.0.borrow_mut();
        this.sweep = None;
        let silent: Vec<_> = this
            .clients
            .iter()
            .filter(|(_, client)| matches!(client, Client::Known { heard, .. } if heard.elapsed() > SILENCE))
            .map(|(from, _)| *from)
            .collect();
        let silent: Vec<_> = silent
            .iter()
            .filter_map(|from| this.clients.remove(from))
            .collect();
        drop(this);
        for client in silent {
            client.forget(events);
        }
        self.sweep_later(events);
    }
}

impl Client {
    fn forget(self, events: &mut Loop) {
        if let Self::Known { socket, token, .. } = self {
            events.remove(token, &socket);
        }
    }
}
