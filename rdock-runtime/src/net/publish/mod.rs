//! Published ports: the host's ports, forwarded to the container.

mod bind;

pub(crate) use bind::{BoundPort, PortRequest, bind};

use crate::launch::SocketPlace;
use crate::reactor::Loop;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Called on the loop with the sockets.
pub(crate) type SocketAnswer = Box<dyn FnOnce(&mut Loop, std::io::Result<Vec<OwnedFd>>)>;

/// Makes non-blocking sockets inside a container; implemented by its owner.
pub(crate) trait SocketMaker {
    /// Answers later, on the loop; never when the container ends first.
    fn request(&self, place: SocketPlace, domain: i32, kind: i32, protocol: i32, count: u8, answer: SocketAnswer);
}

/// What listens on a port inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenState {
    No,
    OnlyLoopback,
    Yes,
}

/// Forwards published ports until it is stopped.
#[derive(Debug)]
pub(crate) struct Forwarder;

impl Forwarder {
    pub(crate) fn stop(self, _: &mut Loop) {}
}

pub(crate) fn serve(_: &mut Loop, _: Vec<BoundPort>, _: Rc<dyn SocketMaker>, _: Ipv4Addr) -> Forwarder {
    Forwarder
}

pub(crate) fn listening(
    events: &mut Loop,
    _: Rc<dyn SocketMaker>,
    _: u16,
    answer: impl FnOnce(&mut Loop, ListenState) + 'static,
) {
    answer(events, ListenState::No);
}
