//! Published ports: the host's ports, forwarded to the container.
//!
//! A port is bound before the container starts and listens once the server inside does, so that clients are
//! refused until then. Every connection is made anew from the network's namespace: the server sees the
//! gateway as its client, never 127.0.0.1. The bytes go through the owner's event loop.

mod bind;
mod datagram;
mod listening;
mod relay;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

pub(crate) use bind::{BoundPort, PortRequest, bind};
pub(crate) use listening::{ListenState, listening};

use crate::launch::SocketPlace;
use crate::reactor::Loop;
use crate::spec::Protocol;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Takes the sockets that were asked for, on the loop.
pub(crate) type SocketAnswer = Box<dyn FnOnce(&mut Loop, io::Result<Vec<OwnedFd>>)>;

/// Makes sockets inside the network's or the container's namespace: the owner, by its helper.
pub(crate) trait SocketMaker {
    /// Asks for `count` non-blocking sockets. `answer` is dropped uncalled when the helper is gone.
    fn request(
        &self,
        place: SocketPlace,
        domain: i32,
        kind: i32,
        protocol: i32,
        count: u8,
        answer: SocketAnswer,
    );

    /// The payload's process.
    fn payload(&self) -> i32;
}

/// The published ports of one container.
#[derive(Debug)]
pub(crate) struct Forwarder {
    tcp: tcp::Ports,
    udp: Vec<udp::Port>,
}

/// Forwards `bound` to the container until [`Forwarder::stop`].
///
/// # Errors
/// When a port cannot be put on the loop.
pub(crate) fn serve(
    events: &mut Loop,
    bound: Vec<BoundPort>,
    sockets: Rc<dyn SocketMaker>,
    container: Ipv4Addr,
) -> io::Result<Forwarder> {
    let (streams, datagrams): (Vec<_>, Vec<_>) =
        bound.into_iter().partition(|port| port.protocol == Protocol::Tcp);
    let mut forwarder = Forwarder {
        tcp: tcp::Ports::new(streams, sockets.clone(), container),
        udp: Vec::new(),
    };
    for port in datagrams {
        let to = SocketAddrV4::new(container, port.container_port);
        match udp::Port::new(events, port.socket, sockets.clone(), to) {
            Ok(port) => forwarder.udp.push(port),
            Err(error) => {
                forwarder.stop(events);
                return Err(error);
            }
        }
    }
    forwarder.tcp.start(events);
    Ok(forwarder)
}

impl Forwarder {
    /// The container has another address, in another network, or none for a while: then clients are refused.
    pub(crate) fn move_to(&mut self, events: &mut Loop, container: Option<Ipv4Addr>) {
        self.tcp.move_to(events, container);
        for port in &self.udp {
            port.move_to(events, container);
        }
    }

    /// Gives the ports back. What servers sent before they ended is still delivered, for a moment.
    pub(crate) fn stop(self, events: &mut Loop) {
        self.tcp.stop(events);
        for port in self.udp {
            port.stop(events);
        }
    }
}
