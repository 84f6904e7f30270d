//! The resolver of a container in a user network, at 127.0.0.11.
//!
//! Its sockets are made inside the container and served from the owner's event loop. Names of containers are
//! answered from the networks' state; others are asked of the host's name servers, from the host, or of those the
//! container was given, from inside the container. Nothing is asked for a container that has internal networks alone.
//!
//! The sockets are bound to a port of our own, to which port 53 of that address is translated: a name server in the
//! container can still listen on its port 53.

mod answer;
mod forward;
mod names;
mod stream;

use super::files::Upstream;
use super::publish::SocketMaker;
use crate::reactor::{Interest, Loop, Token};
use answer::Answer;
use forward::Forwarding;
pub(super) use names::Names;
use rustix::net::{RecvFlags, SendFlags};
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Where containers ask.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Where the sockets are bound.
pub(super) const PORT: u16 = 41_153;
/// Datagrams handled before others have their turn.
const TURN: usize = 64;

/// A running resolver.
#[derive(Clone)]
pub(crate) struct Resolver(Rc<RefCell<State>>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// What a resolver answers from.
#[derive(Debug)]
pub(crate) struct Config {
    pub(super) names: Names,
    /// The container's own servers; the host's when empty.
    pub(super) servers: Vec<IpAddr>,
    /// Nobody else is asked.
    pub(super) closed: bool,
}

impl Config {
    /// As the host's file says now: it changes with the host's own network.
    fn upstream(&self) -> Option<Upstream> {
        (!self.closed).then(|| super::files::upstream(&self.servers))
    }
}

struct State {
    config: Config,
    forwarding: Forwarding,
    datagrams: Option<(OwnedFd, Token)>,
    streams: Option<stream::Server>,
}

/// The bound sockets: datagrams, streams.
pub(super) fn bind(datagrams: OwnedFd, streams: OwnedFd) -> io::Result<[OwnedFd; 2]> {
    let address = SocketAddrV4::new(ADDRESS, PORT);
    rustix::net::bind(&datagrams, &address)?;
    // A former owner's connections may linger.
    rustix::net::sockopt::set_socket_reuseaddr(&streams, true)?;
    rustix::net::bind(&streams, &address)?;
    rustix::net::listen(&streams, 64)?;
    Ok([datagrams, streams])
}

impl Resolver {
    /// Answers on bound sockets of the container until [`Self::stop`].
    ///
    /// # Errors
    /// When the sockets cannot be put on the loop.
    pub(crate) fn start(
        events: &mut Loop,
        [datagrams, streams]: [OwnedFd; 2],
        config: Config,
        sockets: Rc<dyn SocketMaker>,
    ) -> io::Result<Self> {
        let resolver = Self(Rc::new(RefCell::new(State {
            config,
            forwarding: Forwarding::new(sockets),
            datagrams: None,
            streams: None,
        })));
        let this = resolver.clone();
        let token = events.add(&datagrams, Interest::IN, move |events, _| this.take(events))?;
        resolver.0.borrow_mut().datagrams = Some((datagrams, token));
        let this = resolver.clone();
        let server = stream::Server::start(events, streams, move |events, query, answer| {
            this.query(events, query, true, answer);
        })?;
        resolver.0.borrow_mut().streams = Some(server);
        Ok(resolver)
    }

    /// The container is in other networks now.
    pub(crate) fn set_config(&self, config: Config) {
        self.0.borrow_mut().config = config;
    }

    /// Closes the sockets; queries under way are forgotten.
    pub(crate) fn stop(&self, events: &mut Loop) {
        let (datagrams, streams, forwarding) = {
            let mut this = self.0.borrow_mut();
            (
                this.datagrams.take(),
                this.streams.take(),
                this.forwarding.clone(),
            )
        };
        if let Some((socket, token)) = datagrams {
            events.remove(token, &socket);
        }
        if let Some(streams) = streams {
            streams.stop(events);
        }
        forwarding.stop(events);
    }

    fn take(&self, events: &mut Loop) {
        let mut buffer = [0; 4096];
        for _ in 0..TURN {
            let received = {
                let this = self.0.borrow();
                let Some((socket, _)) = &this.datagrams else {
                    return;
                };
                rustix::net::recvfrom(socket, &mut buffer[..], RecvFlags::empty())
            };
            // An error here is the echo of an answer that its client did not want.
            let Ok((size, _, Some(from))) = received else {
                return;
            };
            let Ok(from) = SocketAddr::try_from(from) else {
                continue;
            };
            let this = self.clone();
            let reply = move |_: &mut Loop, bytes: Vec<u8>| {
                if let Some((socket, _)) = &this.0.borrow().datagrams {
                    // Lost, as datagrams may be: the client asks again.
                    let _ = rustix::net::sendto(socket, &bytes, SendFlags::empty(), &from);
                }
            };
            self.query(events, buffer[..size].to_vec(), false, Box::new(reply));
        }
    }

    fn query(&self, events: &mut Loop, query: Vec<u8>, stream: bool, reply: Reply) {
        let answer = answer::answer(&query, &self.0.borrow().config.names, stream);
        match answer {
            // Not a question at all.
            Answer::None => {}
            Answer::Bytes(bytes) => reply(events, bytes),
            Answer::Elsewhere => {
                let (upstream, forwarding) = {
                    let this = self.0.borrow();
                    (this.config.upstream(), this.forwarding.clone())
                };
                match upstream {
                    Some(upstream) => forwarding.ask(events, query, stream, &upstream, reply),
                    None => reply(events, answer::failure(&query, simple_dns::RCODE::NameError)),
                }
            }
        }
    }
}

/// Takes the answer to one query.
type Reply = Box<dyn FnOnce(&mut Loop, Vec<u8>)>;
