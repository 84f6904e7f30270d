//! Published TCP ports: when to listen, and a connection to the container for each client.

use super::bind::{self, BoundPort};
use super::listening::{self, ListenState, Listeners};
use super::relay::{End, Pipes, Relay};
use super::{SocketAnswer, SocketMaker};
use crate::launch::SocketPlace;
use crate::reactor::{Interest, Loop, Timer, Token};
use rustix::io::Errno;
use rustix::net::{SocketFlags, sockopt};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Between two looks at who listens inside.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const PAUSE: Duration = Duration::from_millis(50);
/// A server that takes longer than `LONG` may also be found a little later.
const LONG: Duration = Duration::from_secs(60);
const LONG_PAUSE: Duration = Duration::from_millis(400);
/// Sockets of the network's namespace that are made ahead, and when more are asked for.
const AHEAD: u8 = 8;
const LOW: usize = 4;
/// Clients that wait for such a socket.
const WAITING: usize = 1024;
/// Clients accepted before others have their turn.
const TURN: usize = 64;
/// After running out of descriptors.
const RECOVER: Duration = Duration::from_millis(100);
/// What a server sent before its end is delivered within this time.
const GRACE: Duration = Duration::from_millis(500);

/// All published TCP ports of a container.
#[derive(Clone)]
pub(super) struct Ports(Rc<RefCell<State>>);

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

struct State {
    container: Ipv4Addr,
    sockets: Rc<dyn SocketMaker>,
    ports: Vec<Port>,
    /// Of the container's namespace, while some port waits for its server.
    diag: Option<OwnedFd>,
    watch: Option<Timer>,
    pause: Duration,
    since: Instant,
    ahead: Vec<OwnedFd>,
    asked: bool,
    waiting: VecDeque<(OwnedFd, usize)>,
    pipes: Pipes,
    relays: HashMap<u64, Relay>,
    next: u64,
    stopped: bool,
    /// The container is in no network.
    nowhere: bool,
    /// Counts its moves: sockets that were asked for before are of another network.
    moves: u32,
}

struct Port {
    container: u16,
    socket: Option<OwnedFd>,
    /// Set while it listens.
    token: Option<Token>,
}

impl Ports {
    pub(super) fn new(bound: Vec<BoundPort>, sockets: Rc<dyn SocketMaker>, container: Ipv4Addr) -> Self {
        let port = |bound: BoundPort| Port {
            container: bound.container_port,
            socket: Some(bound.socket),
            token: None,
        };
        Self(Rc::new(RefCell::new(State {
            container,
            sockets,
            ports: bound.into_iter().map(port).collect(),
            diag: None,
            watch: None,
            pause: FIRST_PAUSE,
            since: Instant::now(),
            ahead: Vec::new(),
            asked: false,
            waiting: VecDeque::new(),
            pipes: Pipes::default(),
            relays: HashMap::new(),
            next: 0,
            stopped: false,
            nowhere: false,
            moves: 0,
        })))
    }

    /// Begins to look for servers.
    pub(super) fn start(&self, events: &mut Loop) {
        {
            let mut this = self.0.borrow_mut();
            this.pause = FIRST_PAUSE;
            this.since = Instant::now();
        }
        self.watch(events);
    }

    /// Closes the ports now and the connections when they are over, or after a moment.
    pub(super) fn stop(&self, events: &mut Loop) {
        let mut this = self.0.borrow_mut();
        this.stopped = true;
        if let Some(timer) = this.watch.take() {
            events.cancel(timer);
        }
        for port in &mut this.ports {
            if let (Some(socket), Some(token)) = (&port.socket, port.token.take()) {
                events.remove(token, socket);
            }
            port.socket = None;
        }
        // These keep the namespaces of a dead container.
        this.diag = None;
        this.ahead.clear();
        let refused: Vec<_> = this.waiting.drain(..).collect();
        let relays: Vec<_> = this.relays.values().cloned().collect();
        drop(this);
        for (client, _) in refused {
            reset(client);
        }
        // The owner may be a program that exits now.
        for relay in relays {
            relay.flush(events);
        }
        if !self.0.borrow().relays.is_empty() {
            let that = self.clone();
            events.after(GRACE, move |events| {
                let relays: Vec<_> = that.0.borrow_mut().relays.drain().collect();
                for (_, relay) in relays {
                    relay.abort(events);
                }
            });
        }
    }

    /// Connections go to another address from now on; without one the ports are closed.
    pub(super) fn move_to(&self, events: &mut Loop, container: Option<Ipv4Addr>) {
        let mut this = self.0.borrow_mut();
        if container == Some(this.container) && !this.nowhere {
            return;
        }
        this.nowhere = container.is_none();
        this.container = container.unwrap_or(this.container);
        this.moves += 1;
        this.ahead.clear();
        let refused: Vec<_> = this.waiting.drain(..).collect();
        for port in &mut this.ports {
            if let (Some(socket), Some(token)) = (&port.socket, port.token.take()) {
                events.remove(token, socket);
                // One that goes on listening is listened on again.
                let _ = bind::unlisten(socket);
            }
        }
        drop(this);
        for (client, _) in refused {
            reset(client);
        }
        self.start(events);
    }

    /// Looks who listens inside, now and again until every port has its server.
    fn watch(&self, events: &mut Loop) {
        let mut this = self.0.borrow_mut();
        this.watch = None;
        if this.stopped || this.nowhere || this.ports.iter().all(|port| port.token.is_some()) {
            this.diag = None;
            return;
        }
        let Some(diag) = &this.diag else {
            let sockets = this.sockets.clone();
            drop(this);
            let that = self.clone();
            listening::request_socket(&*sockets.clone(), move |events, made| match made {
                _ if that.0.borrow().stopped => {}
                Ok(socket) => {
                    that.0.borrow_mut().diag = Some(socket);
                    that.watch(events);
                }
                // Out of descriptors, or the kernel has no such sockets.
                Err(_) => that.found(events, listening::written(sockets.payload())),
            });
            return;
        };
        let found = listening::listeners(diag, this.sockets.payload());
        drop(this);
        self.found(events, found);
    }

    /// Opens the ports whose servers were found, and looks again later for the others.
    fn found(&self, events: &mut Loop, found: std::io::Result<Listeners>) {
        let mut this = self.0.borrow_mut();
        if found.is_err() {
            this.diag = None;
        }
        let found = found.unwrap_or_default();
        let ready: Vec<usize> = (0..this.ports.len())
            .filter(|index| {
                let port = &this.ports[*index];
                port.token.is_none() && found.get(&port.container) == Some(&ListenState::Yes)
            })
            .collect();
        drop(this);
        for index in ready {
            self.open(events, index);
        }
        self.watch_later(events);
    }

    fn watch_later(&self, events: &mut Loop) {
        let mut this = self.0.borrow_mut();
        if this.stopped || this.nowhere || this.watch.is_some() {
            return;
        }
        if this.ports.iter().all(|port| port.token.is_some()) {
            this.diag = None;
            return;
        }
        let pause = this.pause;
        let longest = if this.since.elapsed() < LONG {
            PAUSE
        } else {
            LONG_PAUSE
        };
        this.pause = (pause * 2).min(longest);
        let that = self.clone();
        this.watch = Some(events.after(pause, move |events| that.watch(events)));
    }

    /// Listens; a failure leaves the port as it is, for the next look.
    fn open(&self, events: &mut Loop, index: usize) {
        let mut this = self.0.borrow_mut();
        let Some(socket) = &this.ports[index].socket else {
            return;
        };
        if bind::listen(socket).is_err() {
            return;
        }
        let that = self.clone();
        match events.add(socket, Interest::IN, move |events, _| that.accept(events, index)) {
            Ok(token) => this.ports[index].token = Some(token),
            Err(_) => {
                // Nobody would accept.
                let _ = bind::unlisten(socket);
                return;
            }
        }
        drop(this);
        self.refill();
    }

    fn accept(&self, events: &mut Loop, index: usize) {
        for _ in 0..TURN {
            let this = self.0.borrow();
            let port = &this.ports[index];
            let (Some(socket), Some(token)) = (&port.socket, port.token) else {
                return;
            };
            match rustix::net::accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(client) => {
                    drop(this);
                    self.begin(events, client, index);
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    // The client stays in the kernel's queue; asking again at once would only burn time.
                    if events.modify(token, socket, Interest::empty()).is_ok() {
                        let that = self.clone();
                        events.after(RECOVER, move |events| that.resume(events, index));
                    }
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn resume(&self, events: &mut Loop, index: usize) {
        let this = self.0.borrow();
        let port = &this.ports[index];
        if let (Some(socket), Some(token)) = (&port.socket, port.token)
            && events.modify(token, socket, Interest::IN).is_err()
        {
            // Without memory for that there is none for clients either; try once more later.
            let that = self.clone();
            events.after(RECOVER, move |events| that.resume(events, index));
        }
    }

    /// Connects an accepted client as soon as there is a socket for it.
    fn begin(&self, events: &mut Loop, client: OwnedFd, index: usize) {
        let mut this = self.0.borrow_mut();
        if let Some(server) = this.ahead.pop() {
            drop(this);
            self.connect(events, client, server, index);
        } else if this.waiting.len() < WAITING {
            this.waiting.push_back((client, index));
            drop(this);
        } else {
            reset(client);
            drop(this);
        }
        self.refill();
    }

    fn refill(&self) {
        let mut this = self.0.borrow_mut();
        if this.asked || this.stopped || this.nowhere || this.ahead.len() >= LOW {
            return;
        }
        this.asked = true;
        let moves = this.moves;
        let count = AHEAD
            .max(u8::try_from(this.waiting.len()).unwrap_or(u8::MAX))
            .min(16);
        let sockets = this.sockets.clone();
        drop(this);
        let that = self.clone();
        let answer: SocketAnswer = Box::new(move |events, made| that.refilled(events, made, moves));
        sockets.request(
            SocketPlace::Network,
            libc::AF_INET,
            libc::SOCK_STREAM,
            libc::IPPROTO_TCP,
            count,
            answer,
        );
    }

    fn refilled(&self, events: &mut Loop, made: std::io::Result<Vec<OwnedFd>>, moves: u32) {
        let mut this = self.0.borrow_mut();
        this.asked = false;
        if this.stopped {
            return;
        }
        if this.moves != moves {
            drop(this);
            return self.refill();
        }
        let Ok(made) = made else {
            let refused: Vec<_> = this.waiting.drain(..).collect();
            drop(this);
            for (client, _) in refused {
                reset(client);
            }
            return;
        };
        this.ahead.extend(made);
        let count = this.waiting.len().min(this.ahead.len());
        let clients: Vec<_> = this.waiting.drain(..count).collect();
        let at = this.ahead.len() - count;
        let servers = this.ahead.split_off(at);
        drop(this);
        for ((client, index), server) in clients.into_iter().zip(servers) {
            self.connect(events, client, server, index);
        }
        self.refill();
    }

    fn connect(&self, events: &mut Loop, client: OwnedFd, server: OwnedFd, index: usize) {
        let mut this = self.0.borrow_mut();
        let address = SocketAddrV4::new(this.container, this.ports[index].container);
        match rustix::net::connect(&server, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(_) => return reset(client),
        }
        let number = this.next;
        this.next += 1;
        let pipes = this.pipes.clone();
        drop(this);
        let that = self.clone();
        let on_end = Box::new(move |events: &mut Loop, end| {
            that.0.borrow_mut().relays.remove(&number);
            if end == End::Refused {
                that.close(events, index);
            }
        });
        // A connection that cannot be watched has been reset.
        if let Ok(relay) = Relay::start(events, client, server, pipes, on_end) {
            self.0.borrow_mut().relays.insert(number, relay);
        }
    }

    /// The server has stopped listening: so do we, until it is back.
    fn close(&self, events: &mut Loop, index: usize) {
        let mut this = self.0.borrow_mut();
        let port = &mut this.ports[index];
        let (Some(socket), Some(token)) = (&port.socket, port.token.take()) else {
            return;
        };
        events.remove(token, socket);
        // A socket that goes on listening is not accepted from; the next look makes it listen again.
        let _ = bind::unlisten(socket);
        drop(this);
        self.start(events);
    }
}

/// Ends a client's connection so that it sees a failure, not an empty answer.
fn reset(client: OwnedFd) {
    let _ = sockopt::set_socket_linger(&client, Some(Duration::ZERO));
}
