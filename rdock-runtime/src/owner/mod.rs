//! The owner of a running container: the library's own thread (scoped) or the monitor (detached).
//!
//! It follows the helper, writes the log, answers the control socket, forwards published ports, checks the
//! health, records the exit, runs the payload again when that is asked for, and takes everything apart
//! afterwards. All of it runs on one event loop.

mod freeze;
mod health;
mod networks;
mod outputs;
mod requests;
mod rerun;

use crate::cgroup::Cgroup;
use crate::error::Error;
use crate::events::EventAction;
use crate::launch::{Event, Helper, ProcessPlan, SocketPlace};
use crate::logs::{LogStream, LogWriter};
use crate::net;
use crate::reactor::{Interest, Loop, Timer, Token};
use crate::remove::Remains;
use crate::start::{Namespaces, Run};
use crate::state::{ContainerDir, Exit, ExitReason, Happened, Record, Start};
pub(crate) use networks::apply as apply_to_networks;
use outputs::Outputs;
pub(crate) use requests::{resize, stream_pair};
pub(crate) use rerun::set_up_failed;
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Everything that a started container holds, on its way to the loop.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) runtime: crate::runtime::Runtime,
    pub(crate) dir: ContainerDir,
    pub(crate) record: Record,
    /// Listens already.
    pub(crate) control: OwnedFd,
    /// Where the helper of a detached container waits for another owner.
    pub(crate) reunion: Option<OwnedFd>,
    pub(crate) run: Run,
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

/// How long the removal of a container that removes itself waits for others that change it.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(2);

type Shared = Rc<RefCell<Owner>>;
type SocketsWanted = net::publish::SocketAnswer;

/// The loop's state for one container.
struct Owner {
    runtime: crate::runtime::Runtime,
    dir: ContainerDir,
    record: Record,
    /// Of the current run, or of the last one.
    helper: Rc<Helper>,
    process: ProcessPlan,
    start: Start,
    log: LogWriter,
    outputs: Outputs,
    stdin: Option<OwnedFd>,
    terminal: Option<Rc<OwnedFd>>,
    control: Rc<OwnedFd>,
    reunion: Option<OwnedFd>,
    networks: net::Attachments,
    namespaces: Option<Namespaces>,
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
    status: Option<i32>,
    tokens: Vec<(Token, Rc<OwnedFd>)>,
    helper_tokens: Vec<Token>,
    reruns: rerun::Reruns,
    /// The payload is frozen.
    frozen: bool,
    health: Option<health::Checks>,
    on_end: Option<OnEnd>,
    ended: Option<Ended>,
}

/// Sockets inside the container, made by the helper of its current run.
struct Sockets {
    helper: RefCell<Rc<Helper>>,
    payload: std::cell::Cell<i32>,
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
        let helper = self.helper.borrow();
        if helper
            .request_sockets(tag, place, domain, kind, protocol, count)
            .is_err()
        {
            // The helper is gone: its pidfd tells the owner, which answers for it if there will be another.
        }
    }

    fn payload(&self) -> i32 {
        self.payload.get()
    }
}

/// Puts a started container on the loop.
pub(crate) fn adopt(events: &mut Loop, started: Started, on_end: OnEnd) -> std::io::Result<()> {
    let Started {
        runtime,
        dir,
        record,
        control,
        reunion,
        run,
    } = started;
    let Run {
        helper,
        process,
        streams,
        cgroup,
        health,
        start,
        networks,
        ports,
        namespaces,
        resumed,
    } = run;
    let helper = Rc::new(helper);
    let sockets = Rc::new(Sockets {
        helper: RefCell::new(helper.clone()),
        payload: start.pid.into(),
        wanted: RefCell::default(),
        next: Default::default(),
    });
    let log = LogWriter::open(dir.path(), &record.spec)?;
    let control = Rc::new(control);
    let history = dir.history().unwrap_or_default();
    let noted = history.status(true) == Some(crate::state::Status::Paused);
    // The owner before this one may have been killed between freezing it and noting that.
    let frozen = resumed && cgroup.freezer().map_or(noted, |freezer| freezer.is_asked());
    if resumed && frozen != noted {
        let time = crate::state::now();
        let _ = dir.append(&match frozen {
            true => Happened::Paused { time },
            false => Happened::Unpaused { time },
        });
    }
    let owner = Rc::new(RefCell::new(Owner {
        reruns: rerun::Reruns::new(&history, resumed),
        frozen,
        runtime,
        dir,
        record,
        helper,
        process,
        start,
        log,
        outputs: Outputs::default(),
        stdin: None,
        terminal: None,
        control: control.clone(),
        reunion,
        networks: networks.unwrap_or_default(),
        namespaces,
        forwarder: None,
        resolver: None,
        cgroup: Some(cgroup),
        sockets,
        waiters: Vec::new(),
        removers: Vec::new(),
        connections: HashMap::new(),
        sessions: HashMap::new(),
        // Sessions of an owner before this one are not mistaken for its own.
        next_session: getrandom::u32().unwrap_or(1) | 1,
        next_connection: 1,
        stop_timer: None,
        status: None,
        tokens: Vec::new(),
        helper_tokens: Vec::new(),
        health: None,
        on_end: Some(on_end),
        ended: None,
    }));
    rerun::register(&owner);
    let this = owner.clone();
    let token = events.add(&*control, Interest::IN, move |events, _| {
        requests::accept(events, &this)
    })?;
    owner.borrow_mut().tokens.push((token, control));
    watch(events, &owner, streams, ports)?;
    health::begin(events, &owner, health, resumed);
    Ok(())
}

/// Watches a run that has just begun: its helper, its outputs, its published ports.
fn watch(
    events: &mut Loop,
    owner: &Shared,
    streams: Streams,
    ports: Vec<net::publish::BoundPort>,
) -> std::io::Result<()> {
    let terminal = streams.terminal.map(Rc::new);
    let (helper, sockets, container_ip) = {
        let mut this = owner.borrow_mut();
        this.stdin = streams.stdin;
        this.terminal.clone_from(&terminal);
        let ip = this.networks.ip();
        (this.helper.clone(), this.sockets.clone(), ip)
    };
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
                outputs::watch(events, owner, fd, stream)?;
                if let Some(sink) = sink.or_else(|| first_sink.take()) {
                    outputs::connect(owner, stream, sink)?;
                }
            }
            None => first_sink = first_sink.or(sink),
        }
    }
    // With a terminal the client's stdout socket belongs to it.
    if let Some(sink) = first_sink {
        outputs::connect(owner, LogStream::Stdout, sink)?;
    }

    let this = owner.clone();
    let token = events.add(helper.as_fd(), Interest::IN, move |events, _| {
        follow(events, &this)
    })?;
    owner.borrow_mut().helper_tokens.push(token);
    let this = owner.clone();
    let token = events.add(helper.pidfd(), Interest::IN, move |events, _| gone(events, &this))?;
    owner.borrow_mut().helper_tokens.push(token);

    // Of namespaces that are new; one that is kept has its resolver already.
    let resolver = owner
        .borrow_mut()
        .networks
        .start_resolver(events, sockets.clone())?;
    if resolver.is_some() {
        let earlier = std::mem::replace(&mut owner.borrow_mut().resolver, resolver);
        if let Some(earlier) = earlier {
            earlier.stop(events);
        }
    }
    if let (Some(ip), false) = (container_ip, ports.is_empty()) {
        let forwarder = net::publish::serve(events, ports, sockets, ip)?;
        owner.borrow_mut().forwarder = Some(forwarder);
    } else if let Some(forwarder) = &mut owner.borrow_mut().forwarder {
        // It has kept its ports, and refused clients since the run before.
        forwarder.move_to(events, container_ip);
    }
    Ok(())
}

/// Takes the helper's events.
fn follow(events: &mut Loop, owner: &Shared) {
    loop {
        let helper = owner.borrow().helper.clone();
        match helper.try_event() {
            Ok(Some(Event::Gone)) | Err(_) => {
                // The pidfd says when every process has ended; until then there is nothing to read.
                let mut this = owner.borrow_mut();
                if this.helper_tokens.len() > 1 {
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
        | Event::Held { .. }
        | Event::Paused { .. }
        | Event::NetworkMade { .. }
        | Event::Root { .. }
        | Event::Adopted(_)
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
    run_ended(events, owner);
}

/// A run is over: the container ends, or its payload is run again.
fn run_ended(events: &mut Loop, owner: &Shared) {
    health::end(events, owner);
    let exit = {
        let mut this = owner.borrow_mut();
        if let Some(timer) = this.stop_timer.take() {
            events.cancel(timer);
        }
        (this.stdin, this.terminal, this.frozen) = (None, None, false);
        let exit = this.exit();
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            // A full disk loses the log's end, never the exit.
            let _ = this.log.finish(stream);
        }
        requests::end_sessions(&mut this);
        exit
    };
    match rerun::after(events, owner, &exit) {
        rerun::Next::Again => {}
        rerun::Next::End => end(events, owner, exit),
    }
}

/// The container has ended.
fn end(events: &mut Loop, owner: &Shared, exit: Exit) {
    rerun::unregister(owner);
    let ended = finish(events, owner, exit);
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

impl Owner {
    /// Records what happened to the container.
    fn event(&self, action: EventAction, more: &[(&str, &str)]) {
        self.runtime.journal().container(&self.record, action, more);
    }

    /// How the run that has just ended did.
    fn exit(&mut self) -> Exit {
        let oom = self.cgroup.as_ref().is_some_and(Cgroup::oom_killed);
        match self.status.take() {
            Some(status) => Exit::now(reason(status, oom)),
            // Somebody killed the helper.
            None => recorded_exit(&self.dir, oom)
                .unwrap_or_else(|| Exit::now(ExitReason::Signaled(libc::SIGKILL))),
        }
    }

    /// Removes the control group of a run that has ended.
    fn leave_cgroup(&mut self, remains: &mut Remains) {
        if let Some(cgroup) = self.cgroup.take() {
            remains.note(cgroup.remove().map_err(Error::from));
        }
    }

    /// Tells everybody who waits for the end of the payload.
    fn tell_exit(&mut self, exit: &Exit) {
        let reply = crate::control::Reply::Exited { exit: exit.clone() };
        for waiter in std::mem::take(&mut self.waiters) {
            // A client that left does not wait any more.
            let _ = crate::control::send(&*waiter, &reply, &[]);
        }
    }
}

/// What a wait status means.
pub(crate) fn reason(status: i32, oom: bool) -> ExitReason {
    if libc::WIFEXITED(status) {
        ExitReason::Exited(libc::WEXITSTATUS(status))
    } else if libc::WTERMSIG(status) == libc::SIGKILL && oom {
        ExitReason::OomKilled
    } else {
        ExitReason::Signaled(libc::WTERMSIG(status))
    }
}

/// The end of a payload as the helper of a detached container has written it down.
pub(crate) fn recorded_exit(dir: &ContainerDir, oom: bool) -> Option<Exit> {
    let path = dir.file("status");
    let status = std::fs::read_to_string(&path).ok()?.trim().parse().ok()?;
    let finished = std::fs::metadata(&path).and_then(|file| file.modified()).ok()?;
    let finished = jiff::Timestamp::try_from(finished).ok()?;
    Some(Exit {
        reason: reason(status, oom),
        finished_at: format!("{finished:.9}"),
    })
}

/// Records the exit, gives back what a stopped container does not need, answers who waits.
fn finish(events: &mut Loop, owner: &Shared, exit: Exit) -> Ended {
    let mut this = owner.borrow_mut();
    if let Some(forwarder) = this.forwarder.take() {
        forwarder.stop(events);
    }
    if let Some(resolver) = this.resolver.take() {
        resolver.stop(events);
    }
    drop(std::mem::take(&mut this.networks));
    drop(this.namespaces.take());
    let mut remains = Remains::default();
    this.leave_cgroup(&mut remains);
    let remove = this.record.spec.auto_remove || !this.removers.is_empty();
    // From before its end is known: nobody starts it, or removes it too. Who has the lock may wait for this owner.
    let _change = (remove && this.record.detached)
        .then(|| this.dir.lock_changes_within(REMOVAL_PATIENCE).ok())
        .flatten();
    // Who only follows the log or lists containers learns of the exit here.
    remains.note(this.dir.append(&Happened::Exited { exit: exit.clone() }));
    if this.reruns.runs() {
        crate::events::ended(this.runtime.journal(), &this.record, &exit, this.reruns.by_stop);
    }
    for (token, fd) in std::mem::take(&mut this.tokens) {
        events.remove(token, &*fd);
    }
    let removed = remove.then(|| {
        remains.merge(crate::remove::everything(&this.runtime, &this.record));
        remains
    });
    this.tell_exit(&exit);
    for remover in std::mem::take(&mut this.removers) {
        let remains = removed.as_ref().map(Remains::messages).unwrap_or_default();
        let _ = crate::control::send(&*remover, &crate::control::Reply::Removed { remains }, &[]);
    }
    requests::close_all(events, &mut this);
    Ended { exit }
}
