//! One forwarded connection: two sockets, and the bytes between them by splice(2).

use crate::reactor::{Interest, Loop, Token};
use rustix::io::Errno;
use rustix::net::{Shutdown, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// What one splice moves at most.
const CHUNK: usize = 64 << 10;
/// Splices of one direction before other connections have their turn.
const TURN: usize = 64;
/// Idle pipes that are kept.
const KEPT: usize = 16;
const BOTH_WAYS: Interest = Interest::IN
    .union(Interest::OUT)
    .union(Interest::RDHUP)
    .union(Interest::ET);

/// Pipes for [`Relay`]s. A connection has one only while bytes are on their way: thousands of idle connections need
/// two descriptors each.
#[derive(Debug, Clone, Default)]
pub(super) struct Pipes(Rc<RefCell<Vec<Pipe>>>);

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides closed, or one failed.
    Over,
    /// Nothing listens at the container's end.
    Refused,
}

type OnEnd = Box<dyn FnOnce(&mut Loop, End)>;

/// A handle to a connection; the connection itself lives on the loop.
#[derive(Clone)]
pub(super) struct Relay(Rc<RefCell<Connection>>);

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

struct Connection {
    client: Option<(OwnedFd, Option<Token>)>,
    server: Option<(OwnedFd, Option<Token>)>,
    connected: bool,
    up: Direction,
    down: Direction,
    pipes: Pipes,
    /// Another turn is on the loop already.
    again: bool,
    on_end: Option<OnEnd>,
}

#[derive(Debug, Default)]
struct Direction {
    /// Holds `pending` bytes.
    pipe: Option<Pipe>,
    pending: usize,
    /// The source has ended.
    ended: bool,
    /// The destination knows.
    done: bool,
}

impl Pipes {
    fn take(&self) -> rustix::io::Result<Pipe> {
        if let Some(pipe) = self.0.borrow_mut().pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Pipe { read, write })
    }

    /// Only for an empty pipe.
    fn give(&self, pipe: Pipe) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT {
            kept.push(pipe);
        }
    }
}

impl Relay {
    /// Joins `client` to `server`, which is connecting. `on_end` is called once, later.
    pub(super) fn start(
        events: &mut Loop,
        client: OwnedFd,
        server: OwnedFd,
        pipes: Pipes,
        on_end: OnEnd,
    ) -> io::Result<Self> {
        let relay = Self(Rc::new(RefCell::new(Connection {
            client: Some((client, None)),
            server: None,
            connected: false,
            up: Direction::default(),
            down: Direction::default(),
            pipes,
            again: false,
            on_end: Some(on_end),
        })));
        let this = relay.clone();
        let token = events.add(&server, BOTH_WAYS, move |events, flags| {
            this.server_ready(events, flags)
        });
        match token {
            Ok(token) => {
                relay.0.borrow_mut().server = Some((server, Some(token)));
                Ok(relay)
            }
            Err(error) => {
                relay.0.borrow_mut().close(events, true);
                Err(error)
            }
        }
    }

    /// Ends it at once; both sides see a reset.
    pub(super) fn abort(&self, events: &mut Loop) {
        self.finish(events, End::Over, true);
    }

    /// Moves what is there now: the loop may be about to end.
    pub(super) fn flush(&self, events: &mut Loop) {
        self.ready(events, Interest::empty());
    }

    fn server_ready(&self, events: &mut Loop, flags: Interest) {
        let mut this = self.0.borrow_mut();
        let Some((server, _)) = &this.server else { return };
        if !this.connected {
            let result = match sockopt::socket_error(server) {
                Ok(result) => result,
                Err(errno) => Err(errno),
            };
            if let Err(errno) = result {
                drop(this);
                let end = if errno == Errno::CONNREFUSED {
                    End::Refused
                } else {
                    End::Over
                };
                return self.finish(events, end, true);
            }
            if !flags.intersects(Interest::OUT | Interest::HUP | Interest::ERR) {
                return;
            }
            // Small answers are not to wait for each other.
            let _ = sockopt::set_tcp_nodelay(server, true);
            this.connected = true;
            let that = self.clone();
            let Some((client, token)) = &mut this.client else {
                return;
            };
            let _ = sockopt::set_tcp_nodelay(&*client, true);
            match events.add(&*client, BOTH_WAYS, move |events, flags| {
                that.ready(events, flags)
            }) {
                Ok(new) => *token = Some(new),
                Err(_) => {
                    drop(this);
                    return self.finish(events, End::Over, true);
                }
            }
        }
        drop(this);
        self.ready(events, flags);
    }

    fn ready(&self, events: &mut Loop, flags: Interest) {
        let mut this = self.0.borrow_mut();
        let outcome = this.pump(flags.contains(Interest::ERR));
        match outcome {
            Ok(Turn::Blocked) => {}
            Ok(Turn::Used) if this.again => {}
            Ok(Turn::Used) => {
                this.again = true;
                let that = self.clone();
                events.after(Duration::ZERO, move |events| {
                    that.0.borrow_mut().again = false;
                    that.ready(events, Interest::empty());
                });
            }
            Ok(Turn::Done) => {
                drop(this);
                self.finish(events, End::Over, false);
            }
            Err(_) => {
                drop(this);
                self.finish(events, End::Over, true);
            }
        }
    }

    fn finish(&self, events: &mut Loop, end: End, reset: bool) {
        let mut this = self.0.borrow_mut();
        this.close(events, reset);
        let on_end = this.on_end.take();
        drop(this);
        if let Some(on_end) = on_end {
            on_end(events, end);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The kernel tells when there is more to do.
    Blocked,
    /// There may be more to do now.
    Used,
    /// Both directions are done.
    Done,
}

impl Connection {
    fn pump(&mut self, failed: bool) -> Result<Turn, Errno> {
        let (Some((client, _)), Some((server, _)), true) = (&self.client, &self.server, self.connected)
        else {
            return Ok(Turn::Blocked);
        };
        let up = self.up.pump(client, server, &self.pipes)?;
        let down = self.down.pump(server, client, &self.pipes)?;
        if failed {
            // A direction that has ended does not read any more, and would miss a reset.
            for socket in [client, server] {
                sockopt::socket_error(socket)??;
            }
        }
        Ok(match (self.up.done && self.down.done, up || down) {
            (true, _) => Turn::Done,
            (false, true) => Turn::Used,
            (false, false) => Turn::Blocked,
        })
    }

    fn close(&mut self, events: &mut Loop, reset: bool) {
        for (socket, token) in [self.client.take(), self.server.take()].into_iter().flatten() {
            if let Some(token) = token {
                events.remove(token, &socket);
            }
            if reset {
                // The close below then sends a reset, as a refused or broken connection would.
                let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
            }
        }
        self.up.pipe = None;
        self.down.pipe = None;
    }
}

impl Direction {
    /// Moves bytes until the source has none, the destination takes none (false), or the turn is over (true).
    fn pump(&mut self, from: impl AsFd, to: impl AsFd, pipes: &Pipes) -> Result<bool, Errno> {
        for _ in 0..TURN {
            if self.done {
                return Ok(false);
            }
            if self.pending == 0 {
                if self.ended {
                    if let Some(pipe) = self.pipe.take() {
                        pipes.give(pipe);
                    }
                    self.done = true;
                    // The destination may have gone already; its own direction shows that.
                    let _ = rustix::net::shutdown(&to, Shutdown::Write);
                    return Ok(false);
                }
                let pipe = match self.pipe.take() {
                    Some(pipe) => pipe,
                    None => pipes.take()?,
                };
                match move_bytes(&from, &pipe.write, CHUNK) {
                    Ok(0) => self.ended = true,
                    Ok(count) => self.pending = count,
                    Err(Errno::AGAIN) => {
                        pipes.give(pipe);
                        return Ok(false);
                    }
                    Err(errno) => return Err(errno),
                }
                self.pipe = Some(pipe);
            }
            if let Some(pipe) = &self.pipe
                && self.pending > 0
            {
                match move_bytes(&pipe.read, &to, self.pending) {
                    Ok(count) => self.pending -= count,
                    Err(Errno::AGAIN) => return Ok(false),
                    Err(errno) => return Err(errno),
                }
            }
        }
        Ok(true)
    }
}

fn move_bytes(from: impl AsFd, to: impl AsFd, count: usize) -> rustix::io::Result<usize> {
    loop {
        match splice(
            &from,
            None,
            &to,
            None,
            count,
            SpliceFlags::MOVE | SpliceFlags::NONBLOCK,
        ) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
