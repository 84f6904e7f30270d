//! Networks that a running container joins and leaves.
//!
//! What waits for the kernel or for others (locks, interfaces) happens on a thread; the loop only takes the result.

use super::{Owner, Shared};
use crate::control::{self, Reply};
use crate::events::{EventAction, EventKind};
use crate::launch::SocketPlace;
use crate::net::{self, EndpointInfo, NetError};
use crate::reactor::{Loop, LoopHandle};
use crate::spec::EndpointSpec;
use crate::state::Happened;
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

thread_local! {
    /// Who waits on this loop's thread for a change that a thread makes, by number.
    static WAITING: RefCell<(u64, Vec<(u64, Waiting)>)> = const { RefCell::new((0, Vec::new())) };
}

/// An owner with the connection that asked.
struct Waiting {
    owner: Shared,
    connection: Rc<OwnedFd>,
}

fn wait(owner: &Shared, connection: &Rc<OwnedFd>) -> u64 {
    WAITING.with_borrow_mut(|(next, waiting)| {
        *next += 1;
        let entry = Waiting {
            owner: owner.clone(),
            connection: connection.clone(),
        };
        waiting.push((*next, entry));
        *next
    })
}

fn waited(number: u64) -> Option<Waiting> {
    WAITING.with_borrow_mut(|(_, waiting)| {
        let at = waiting.iter().position(|(is, _)| *is == number)?;
        Some(waiting.swap_remove(at).1)
    })
}

impl Waiting {
    fn answer(&self, result: Result<(), String>) {
        let reply = match result {
            Ok(()) => Reply::Done,
            Err(reason) => Reply::Refused { reason },
        };
        // Who asked may have left.
        let _ = control::send(&*self.connection, &reply, &[]);
    }
}

fn describe(error: &NetError) -> String {
    crate::remove::describe(error).join(": ")
}

/// Runs `work` on a thread with the sockets, then `done` on the loop with its result.
fn on_a_thread<T: Send + 'static>(
    handle: LoopHandle,
    work: impl FnOnce() -> Result<T, NetError> + Send + 'static,
    done: impl FnOnce(&mut Loop, Result<T, NetError>) + Send + 'static,
) -> io::Result<()> {
    std::thread::Builder::new()
        .name("rdock-net".into())
        .spawn(move || {
            let result = work();
            handle.run(move |events| done(events, result));
        })
        .map(drop)
}

/// Asks the helper for sockets inside the payload, one after the other.
fn sockets(
    owner: &Shared,
    events: &mut Loop,
    mut wanted: Vec<net::SocketKind>,
    mut made: Vec<OwnedFd>,
    then: net::publish::SocketAnswer,
) {
    if wanted.is_empty() {
        return then(events, Ok(made));
    }
    let (domain, kind, protocol) = wanted.remove(0);
    let (maker, this) = (owner.borrow().sockets.clone(), owner.clone());
    use net::publish::SocketMaker;
    maker.request(
        SocketPlace::Payload,
        domain,
        kind,
        protocol,
        1,
        Box::new(move |events, answer| match answer {
            Ok(more) => {
                made.extend(more);
                sockets(&this, events, wanted, made, then);
            }
            Err(error) => then(events, Err(error)),
        }),
    );
}

/// The container joins a network.
pub(super) fn connect(
    events: &mut Loop,
    owner: &Shared,
    connection: &Rc<OwnedFd>,
    endpoint: EndpointSpec,
) -> Option<Reply> {
    let refused = |reason: String| Some(Reply::Refused { reason });
    let newcomer = {
        let mut this = owner.borrow_mut();
        let Owner {
            networks,
            runtime,
            record,
            ..
        } = &mut *this;
        match networks.newcomer(runtime.root(), &record.id, &record.name, endpoint) {
            Ok(newcomer) => newcomer,
            Err(error) => return refused(describe(&error)),
        }
    };
    let wanted = newcomer.wanted_sockets();
    let (number, handle) = (wait(owner, connection), events.handle());
    let then = move |_: &mut Loop, made: io::Result<Vec<OwnedFd>>| {
        let made = match made {
            Ok(made) => made,
            Err(error) => return fail(number, error.to_string()),
        };
        let done = move |events: &mut Loop, joined| joined_network(events, number, joined);
        if let Err(error) = on_a_thread(handle, move || newcomer.join(made), done) {
            fail(number, error.to_string());
        }
    };
    sockets(owner, events, wanted, Vec::new(), Box::new(then));
    None
}

/// Lets go of a request that came to nothing.
fn fail(number: u64, reason: String) {
    if let Some(waiting) = waited(number) {
        waiting.owner.borrow_mut().networks.newcomer_is_gone();
        waiting.answer(Err(reason));
    }
}

fn joined_network(events: &mut Loop, number: u64, joined: Result<net::Joined, NetError>) {
    let joined = match joined {
        Ok(joined) => joined,
        Err(error) => return fail(number, describe(&error)),
    };
    let Some(waiting) = waited(number) else { return };
    let owner = waiting.owner.clone();
    let added = {
        let mut this = owner.borrow_mut();
        let Owner { networks, helper, .. } = &mut *this;
        networks.add(joined, helper)
    };
    let info = match added {
        Ok(info) => info,
        Err(error) => return waiting.answer(Err(describe(&error))),
    };
    changed(events, &owner);
    let result = record(&owner, Happened::NetworkConnected { network: info });
    waiting.answer(result);
}

/// The container leaves a network.
pub(super) fn disconnect(
    events: &mut Loop,
    owner: &Shared,
    connection: &Rc<OwnedFd>,
    network: &str,
) -> Option<Reply> {
    let leaving = {
        let mut this = owner.borrow_mut();
        let name = this.record.name.clone();
        match this.networks.take(network, &name) {
            Ok(leaving) => leaving,
            Err(error) => {
                return Some(Reply::Refused {
                    reason: describe(&error),
                });
            }
        }
    };
    let name = leaving.network().to_owned();
    // Names and published ports no longer lead there, whatever becomes of the interface.
    changed(events, owner);
    let (number, handle) = (wait(owner, connection), events.handle());
    let wanted = vec![(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)];
    let then = move |_: &mut Loop, made: io::Result<Vec<OwnedFd>>| {
        let made = match made {
            Ok(made) => made,
            Err(error) => return fail(number, error.to_string()),
        };
        let done = move |_: &mut Loop, left| left_network(number, name, left);
        if let Err(error) = on_a_thread(handle, move || leaving.leave(&made), done) {
            fail(number, error.to_string());
        }
    };
    sockets(owner, events, wanted, Vec::new(), Box::new(then));
    None
}

fn left_network(number: u64, network: String, left: Result<net::Left, NetError>) {
    let left = match left {
        Ok(left) => left,
        Err(error) => return fail(number, describe(&error)),
    };
    let Some(waiting) = waited(number) else { return };
    let owner = waiting.owner.clone();
    if let Some(namespace) = left.namespace() {
        // A helper that ends now keeps nothing open.
        let _ = owner.borrow().helper.release_network(namespace.as_fd());
    }
    drop(left);
    waiting.answer(record(&owner, Happened::NetworkDisconnected { network }));
}

/// What follows from other networks: where the helper lives, where published ports lead, whom the resolver knows, what
/// the container's files say.
fn changed(events: &mut Loop, owner: &Shared) {
    let mut this = owner.borrow_mut();
    let Owner {
        networks,
        helper,
        forwarder,
        resolver,
        sockets,
        dir,
        record,
        ..
    } = &mut *this;
    networks.settle(helper);
    if let Some(forwarder) = forwarder {
        forwarder.move_to(events, networks.ip());
    }
    match resolver {
        Some(resolver) => resolver.set_config(networks.resolver_config()),
        // Without descriptors for it the names stay unknown.
        None => {
            *resolver = networks
                .start_resolver(events, sockets.clone())
                .unwrap_or_default()
        }
    }
    let _ = crate::network_files::update(dir, record, networks);
}

fn record(owner: &Shared, event: Happened) -> Result<(), String> {
    let this = owner.borrow();
    let (action, name) = match &event {
        Happened::NetworkConnected { network } => (EventAction::Connect, network.network.as_str()),
        Happened::NetworkDisconnected { network } => (EventAction::Disconnect, network.as_str()),
        _ => return Ok(()),
    };
    let attributes = [
        ("container", this.record.id.as_str()),
        ("name", name),
        ("type", "bridge"),
    ];
    this.runtime
        .journal()
        .record(EventKind::Network, action, name, &attributes);
    let kept = this.dir.append(&event).and_then(|()| {
        let endpoints = this.networks.endpoints();
        crate::network_files::keep_endpoints(&this.dir, &endpoints)
    });
    kept.map_err(|error| crate::remove::describe(&error).join(": "))
}

/// Applies an event to what `inspect` shows.
pub(crate) fn apply(networks: &mut Vec<EndpointInfo>, event: &Happened) {
    match event {
        Happened::NetworkConnected { network } => {
            if network.default_route {
                networks.iter_mut().for_each(|other| other.default_route = false);
            }
            networks.push(network.clone());
        }
        Happened::NetworkDisconnected { network } => {
            networks.retain(|endpoint| endpoint.network != *network);
            if !networks.iter().any(|endpoint| endpoint.default_route)
                && let Some(next) =
                    net::next_gateway(networks.iter().map(|endpoint| endpoint.gateway_priority))
            {
                networks[next].default_route = true;
            }
        }
        _ => {}
    }
}
