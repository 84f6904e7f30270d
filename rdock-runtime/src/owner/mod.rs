//! The owner of a running container: the library's own thread (scoped) or the monitor (detached).
//!
//! It follows the helper, writes the log, answers the control socket, forwards published ports, records
//! the exit and takes everything apart afterwards. All of it runs on one event loop.

mod networks;
mod outputs;
mod requests;

use crate::cgroup::Cgroup;
use crate::error::Error;
use crate::events::EventAction;
use crate::launch::{Event, Helper, ProcessPlan, SocketPlace};
use crate::logs::{LogStream, LogWriter};
use crate::net;
use crate::reactor::{Interest, Loop, Timer, Token};
use crate::remove::Remains;
use crate::state::{ContainerDir, Exit, ExitReason, Happened, Record};
pub(crate) use networks::apply as apply_to_networks;
use outputs::Outputs;
pub(crate) use requests::{resize, stream_pair};
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// Everything that a started container holds, on its way to the loop.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) runtime: crate::runtime::Runtime,
    pub(crate) dir: ContainerDir,
    pub(crate) record: Record,
    pub(crate) helper: Helper,
    /// What exec sessions start from.
    pub(crate) process: ProcessPlan,
    pub(crate) streams: Streams,
    /// Listens already.
    pub(crate) control: OwnedFd,
    pub(crate) networks: net::Attachments,
    pub(crate) ports: Vec<net::publish::BoundPort>,
    pub(crate) cgroup: Cgroup,
}

/// The owner's ends of the payload's stdio.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// Input and output of a terminal.
    pub(crate) terminal: Option<OwnedFd>,
    /// Sockets of a client that is attached from the start: stdout, stderr.
    pub(crate) attached: [Option<OwnedFd>; 2],
}

/// Called once, on the loop, when the container has ended and its exit is recorded.
pub(crate) type OnEnd = Box<dyn FnOnce(&mut Loop, Ended)>;

/// A container that has ended. What could not be removed of one that removes itself, the next open removes.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
}

type Shared = Rc<RefCell<Owner>>;
type SocketsWanted = net::publish::SocketAnswer;

/// The loop's state for one container.
struct Owner {
    runtime: crate::runtime::Runtime,
    dir: ContainerDir,
    record: Record,
    helper: Rc<Helper>,
    process: ProcessPlan,
    log: LogWriter,
    outputs: Outputs,
    stdin: Option<OwnedFd>,
    terminal: Option<Rc<OwnedFd>>,
    control: Rc<OwnedFd>,
    networks: net::Attachments,
    forwarder: Option<net::publish::Forwarder>,
    resolver: Option<net::Resolver>,
    cgroup: Option<Cgroup>,
    sockets: Rc<Sockets>,
    /// Connections that wait for the exit.
    waiters: Vec<Rc<OwnedFd>>,
    /// Connections that wait for the removal.
    removers: Vec<Rc<OwnedFd>>,
    connections: HashMap<u64, (Token, Rc<OwnedFd>)>,
    sessions: HashMap<u32, requests::Session>,
    next_session: u32,
    next_connection: u64,
    stop_timer: Option<Timer>,
    /// Somebody asked for the end.
    stopping: bool,
    status: Option<i32>,
    tokens: Vec<(Token, Rc<OwnedFd>)>,
    helper_tokens: Vec<Token>,
    on_end: Option<OnEnd>,
    ended: Option<Ended>,
}

/// Sockets inside the container, made by its helper.
struct Sockets {
    helper: Rc<Helper>,
    wanted: RefCell<HashMap<u32, SocketsWanted>>,
    next: std::cell::Cell<u32>,
}

impl net::publish::SocketMaker for Sockets {
    fn request(
        &self,
        place: SocketPlace,
        domain: i32,
        kind: i32,
        protocol: i32,
        count: u8,
        answer: SocketsWanted,
    ) {
        let tag = self.next.get();
        self.next.set(tag.wrapping_add(1));
        self.wanted.borrow_mut().insert(tag, answer);
        if self
            .helper
            .request_sockets(tag, place, domain, kind, protocol, count)
            .is_err()
        {
            // The helper is gone: its pidfd tells the owner; nobody waits for this any more.
            self.wanted.borrow_mut().remove(&tag);
        }
    }
}

/// Puts a started container on the loop.
pub(crate) fn adopt(events: &mut Loop, started: Started, on_end: OnEnd) -> std::io::Result<()> {
    let Started {
        runtime,
        dir,
        record,
        helper,
        process,
        streams,
        control,
        networks,
        ports,
        cgroup,
    } = started;
    let helper = Rc::new(helper);
    let sockets = Rc::new(Sockets {
        helper: helper.clone(),
        wanted: RefCell::default(),
        next: Default::default(),
    });
    let log = LogWriter::open(dir.path(), &record.spec)?;
    let control = Rc::new(control);
    let terminal = streams.terminal.map(Rc::new);
    let container_ip = networks.ip();
    let owner = Rc::new(RefCell::new(Owner {
        runtime,
        dir,
        record,
        helper: helper.clone(),
        process,
        log,
        outputs: Outputs::default(),
        stdin: streams.stdin,
        terminal: terminal.clone(),
        control: control.clone(),
        networks,
        forwarder: None,
        resolver: None,
        cgroup: Some(cgroup),
        sockets: sockets.clone(),
        waiters: Vec::new(),
        removers: Vec::new(),
        connections: HashMap::new(),
        sessions: HashMap::new(),
        next_session: 1,
        next_connection: 1,
        stop_timer: None,
        stopping: false,
        status: None,
        tokens: Vec::new(),
        helper_tokens: Vec::new(),
        on_end: Some(on_end),
        ended: None,
    }));

    let [to_stdout, to_stderr] = streams.attached;
    let outputs = [
        (terminal, LogStream::Stdout, None),
        (streams.stdout.map(Rc::new), LogStream::Stdout, to_stdout),
        (streams.stderr.map(Rc::new), LogStream::Stderr, to_stderr),
    ];
    let mut first_sink = None;
    for (fd, stream, sink) in outputs {
        match fd {
            Some(fd) => {
                outputs::watch(events, &owner, fd, stream)?;
                if let Some(sink) = sink.or_else(|| first_sink.take()) {
                    outputs::connect(&owner, stream, sink)?;
                }
            }
            None => first_sink = first_sink.or(sink),
        }
    }
    // With a terminal the client's stdout socket belongs to it.
    if let Some(sink) = first_sink {
        outputs::connect(&owner, LogStream::Stdout, sink)?;
    }

    let this = owner.clone();
    let token = events.add(&*control, Interest::IN, move |events, _| {
        requests::accept(events, &this)
    })?;
    owner.borrow_mut().tokens.push((token, control));

    let this = owner.clone();
    let token = events.add(helper.as_fd(), Interest::IN, move |events, _| {
        follow(events, &this)
    })?;
    owner.borrow_mut().helper_tokens.push(token);
    let this = owner.clone();
    let token = events.add(helper.pidfd(), Interest::IN, move |events, _| gone(events, &this))?;
    owner.borrow_mut().helper_tokens.push(token);

    let resolver = owner
        .borrow_mut()
        .networks
        .start_resolver(events, sockets.clone())?;
    owner.borrow_mut().resolver = resolver;
    if let (Some(ip), false) = (container_ip, ports.is_empty()) {
        let forwarder = net::publish::serve(events, ports, sockets, ip)?;
        owner.borrow_mut().forwarder = Some(forwarder);
    }
    Ok(())
}

impl Owner {
    /// Records what happened to the container.
    fn event(&self, action: EventAction, more: &[(&str, &str)]) {
        self.runtime.journal().container(&self.record, action, more);
    }
}

/// Takes the helper's events.
fn follow(events: &mut Loop, owner: &Shared) {
    loop {
        let helper = owner.borrow().helper.clone();
        match helper.try_event() {
            Ok(Some(Event::Gone)) | Err(_) => {
                // The pidfd says when every process has ended; until then there is nothing to read.
                let mut this = owner.borrow_mut();
                if !this.helper_tokens.is_empty() {
                    let token = this.helper_tokens.remove(0);
                    events.remove(token, helper.as_fd());
                }
                return;
            }
            Ok(Some(event)) => happened(events, owner, event),
            Ok(None) => return,
        }
    }
}

fn happened(events: &mut Loop, owner: &Shared, event: Event) {
    match event {
        Event::Exited { status } => owner.borrow_mut().status = Some(status),
        Event::Failed { .. }
        | Event::Started { .. }
        | Event::Held
        | Event::NetworkMade { .. }
        | Event::Root { .. }
        | Event::Gone => {}
        Event::Warning { .. } => {}
        Event::Sockets { tag, sockets, errno } => {
            let wanted = owner.borrow().sockets.wanted.borrow_mut().remove(&tag);
            if let Some(answer) = wanted {
                let result = if errno == 0 {
                    Ok(sockets)
                } else {
                    Err(std::io::Error::from_raw_os_error(errno))
                };
                answer(events, result);
            }
        }
        Event::ExecStarted {
            session,
            pid,
            terminal,
        } => requests::exec_started(owner, session, pid, terminal),
        Event::ExecFailed {
            session,
            step,
            errno,
            detail,
        } => {
            requests::exec_failed(events, owner, session, step, errno, detail);
        }
        Event::ExecExited { session, status } => requests::exec_exited(events, owner, session, status),
    }
}

/// The helper has ended, and with it every process of the container.
fn gone(events: &mut Loop, owner: &Shared) {
    follow(events, owner);
    let helper = owner.borrow().helper.clone();
    {
        let mut this = owner.borrow_mut();
        let pidfd_token = this.helper_tokens.pop();
        if let Some(token) = this.helper_tokens.pop() {
            events.remove(token, helper.as_fd());
        }
        if let Some(token) = pidfd_token {
            events.remove(token, helper.pidfd());
        }
    }
    outputs::drain(events, owner);
    let ended = finish(events, owner);
    owner.borrow_mut().ended = Some(ended);
    end_if_done(events, owner);
}

/// Tells who started the container, once no attached client waits for output any more.
fn end_if_done(events: &mut Loop, owner: &Shared) {
    let mut this = owner.borrow_mut();
    if !this.outputs.are_delivered() {
        return;
    }
    let (Some(ended), Some(on_end)) = (this.ended.take(), this.on_end.take()) else {
        return;
    };
    drop(this);
    on_end(events, ended);
}

/// Records the exit, gives back what a stopped container does not need, answers who waits.
fn finish(events: &mut Loop, owner: &Shared) -> Ended {
    let mut this = owner.borrow_mut();
    if let Some(timer) = this.stop_timer.take() {
        events.cancel(timer);
    }
    let oom = this.cgroup.as_ref().is_some_and(Cgroup::oom_killed);
    let exit = Exit::now(match this.status {
        Some(status) if libc::WIFEXITED(status) => ExitReason::Exited(libc::WEXITSTATUS(status)),
        Some(status) if libc::WTERMSIG(status) == libc::SIGKILL && oom => ExitReason::OomKilled,
        Some(status) => ExitReason::Signaled(libc::WTERMSIG(status)),
        // Somebody killed the helper.
        None => ExitReason::Signaled(libc::SIGKILL),
    });
    for stream in [LogStream::Stdout, LogStream::Stderr] {
        // A full disk loses the log's end, never the exit.
        let _ = this.log.finish(stream);
    }
    if let Some(forwarder) = this.forwarder.take() {
        forwarder.stop(events);
    }
    if let Some(resolver) = this.resolver.take() {
        resolver.stop(events);
    }
    drop(std::mem::take(&mut this.networks));
    let mut remains = Remains::default();
    if let Some(cgroup) = this.cgroup.take() {
        remains.note(cgroup.remove().map_err(Error::from));
    }
    let remove = this.record.spec.auto_remove || !this.removers.is_empty();
    // Who only follows the log or lists containers learns of the exit here.
    remains.note(this.dir.append(&Happened::Exited { exit: exit.clone() }));
    crate::events::ended(this.runtime.journal(), &this.record, &exit, this.stopping);
    for (token, fd) in std::mem::take(&mut this.tokens) {
        events.remove(token, &*fd);
    }
    let removed = remove.then(|| {
        remains.merge(crate::remove::everything(&this.runtime, &this.record));
        remains
    });
    let reply = crate::control::Reply::Exited { exit: exit.clone() };
    for waiter in std::mem::take(&mut this.waiters) {
        // A client that left does not wait any more.
        let _ = crate::control::send(&*waiter, &reply, &[]);
    }
    for remover in std::mem::take(&mut this.removers) {
        let remains = removed.as_ref().map(Remains::messages).unwrap_or_default();
        let _ = crate::control::send(&*remover, &crate::control::Reply::Removed { remains }, &[]);
    }
    requests::close_all(events, &mut this);
    Ended { exit }
}
