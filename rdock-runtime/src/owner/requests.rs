//! The control socket: what other processes ask of the owner.

use super::{Owner, Shared};
use crate::control::{self, ExecRequest, Listening, Reply, Request};
use crate::events::EventAction;
use crate::launch::{ProcessPlan, TerminalSize};
use crate::logs::LogStream;
use crate::net;
use crate::reactor::{Interest, Loop};
use crate::step::Step;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// A process added by `exec`, and the connection it belongs to.
pub(super) struct Session {
    connection: Rc<OwnedFd>,
    number: u64,
    detach: bool,
    /// As the journal shows it.
    command: String,
}

/// Takes new connections.
pub(super) fn accept(events: &mut Loop, owner: &Shared) {
    let control = owner.borrow().control.clone();
    loop {
        let accepted = rustix::net::accept_with(&control, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        let Ok(connection) = accepted else { return };
        if !control::peer_is_trusted(&connection) {
            continue;
        }
        let connection = Rc::new(connection);
        let number = {
            let mut this = owner.borrow_mut();
            this.next_connection += 1;
            this.next_connection
        };
        let (this, own) = (owner.clone(), connection.clone());
        let added = events.add(&*connection, Interest::IN, move |events, _| {
            serve(events, &this, number, &own)
        });
        if let Ok(token) = added {
            owner.borrow_mut().connections.insert(number, (token, connection));
        }
    }
}

fn serve(events: &mut Loop, owner: &Shared, number: u64, connection: &Rc<OwnedFd>) {
    loop {
        match control::receive::<Request>(&**connection) {
            Ok(Some((request, fds))) => {
                if let Some(reply) = answer(events, owner, number, connection, request, fds) {
                    // A client that has left needs no reply; its connection is closed below.
                    let _ = control::send(&**connection, &reply, &[]);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let _ = control::send(
                    &**connection,
                    &Reply::Refused {
                        reason: error.to_string(),
                    },
                    &[],
                );
            }
            Ok(None) | Err(_) => {
                close(events, owner, number);
                return;
            }
        }
    }
}

/// A connection ended: what belongs to it ends too.
fn close(events: &mut Loop, owner: &Shared, number: u64) {
    let mut this = owner.borrow_mut();
    if let Some((token, connection)) = this.connections.remove(&number) {
        events.remove(token, &*connection);
        this.waiters.retain(|waiter| !Rc::ptr_eq(waiter, &connection));
        this.removers.retain(|remover| !Rc::ptr_eq(remover, &connection));
        this.reruns.forget(&connection);
        super::health::forget(this.health.as_mut(), &connection);
    }
    for (session, started) in &this.sessions {
        if started.number == number && !started.detach {
            // The helper may have seen its end already.
            let _ = this.helper.kill(Some(*session), libc::SIGKILL);
        }
    }
}

/// At the end of the container.
pub(super) fn close_all(events: &mut Loop, owner: &mut Owner) {
    for (_, (token, connection)) in owner.connections.drain() {
        events.remove(token, &*connection);
    }
    owner.sessions.clear();
}

fn answer(
    events: &mut Loop,
    owner: &Shared,
    number: u64,
    connection: &Rc<OwnedFd>,
    request: Request,
    fds: Vec<OwnedFd>,
) -> Option<Reply> {
    let mut this = owner.borrow_mut();
    match request {
        Request::Wait => {
            this.waiters.push(connection.clone());
            None
        }
        Request::Kill { signal } => {
            if !this.reruns.runs() {
                drop(this);
                // It has no payload: what can be killed is the restart.
                super::rerun::stop_requested(owner, true);
                super::rerun::cancel(events, owner, signal, 0);
                return Some(Reply::Done);
            }
            let killed = this.helper.kill(None, signal);
            if killed.is_ok() {
                this.event(EventAction::Kill, &[("signal", &signal.to_string())]);
            }
            let on_purpose = signal == libc::SIGKILL || signal == this.record.stop_signal;
            drop(this);
            if on_purpose {
                super::rerun::stop_requested(owner, signal == libc::SIGKILL);
                super::freeze::thaw(owner);
            }
            Some(done(killed))
        }
        Request::Stop {
            signal,
            timeout_ms,
            removal,
        } => {
            this.waiters.push(connection.clone());
            this.reruns.by_stop = !removal;
            drop(this);
            stop(events, owner, signal, timeout_ms);
            None
        }
        Request::Restart { signal, timeout_ms } => {
            drop(this);
            super::rerun::restart(events, owner, connection, signal, timeout_ms);
            None
        }
        Request::Remove => {
            this.removers.push(connection.clone());
            this.helper.end();
            drop(this);
            super::freeze::thaw(owner);
            super::rerun::cancel(events, owner, libc::SIGKILL, 0);
            None
        }
        Request::Pause { frozen } => {
            drop(this);
            super::freeze::pause(events, owner, connection, frozen)
        }
        Request::Limits { resources } => Some(match &mut this.cgroup {
            Some(cgroup) => match cgroup.update(&resources) {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Refused {
                    reason: crate::remove::describe(&error).join(": "),
                },
            },
            None => Reply::NotRunning,
        }),
        Request::Reload => Some(match this.dir.record() {
            Ok(record) => {
                let renamed = this.record.name != record.name;
                this.record = record;
                let name = this.record.name.clone();
                match renamed.then(|| this.networks.rename(&name)) {
                    Some(Err(error)) => Reply::Refused {
                        reason: crate::remove::describe(&error).join(": "),
                    },
                    _ => Reply::Done,
                }
            }
            Err(error) => Reply::Refused {
                reason: crate::remove::describe(&error).join(": "),
            },
        }),
        Request::Health { wanted } => {
            drop(this);
            super::health::wait(owner, connection, wanted)
        }
        Request::Exec(_)
        | Request::Attach
        | Request::Connect { .. }
        | Request::Disconnect { .. }
        | Request::Listening { .. }
            if !this.reruns.runs() =>
        {
            Some(Reply::NotRunning)
        }
        Request::Exec(_) if this.frozen => Some(Reply::Frozen { frozen: true }),
        Request::Exec(request) => exec(&mut this, number, connection, request, fds),
        Request::KillSession { signal } => {
            let session = this
                .sessions
                .iter()
                .find(|(_, session)| session.number == number)
                .map(|(id, _)| *id);
            Some(match session {
                Some(session) => done(this.helper.kill(Some(session), signal)),
                None => Reply::NotRunning,
            })
        }
        Request::Resize { rows, columns } => Some(match &this.terminal {
            Some(terminal) => done(resize(&**terminal, rows, columns)),
            None => Reply::Refused {
                reason: "the container has no terminal".into(),
            },
        }),
        Request::Attach => {
            drop(this);
            attach(owner, connection)
        }
        Request::Connect { endpoint } => {
            drop(this);
            super::networks::connect(events, owner, connection, endpoint)
        }
        Request::Disconnect { network } => {
            drop(this);
            super::networks::disconnect(events, owner, connection, &network)
        }
        Request::Listening { port } => {
            let sockets = this.sockets.clone();
            drop(this);
            let connection = connection.clone();
            net::publish::listening(events, sockets, port, move |_, found| {
                let state = match found {
                    net::publish::ListenState::No => Listening::No,
                    net::publish::ListenState::OnlyLoopback => Listening::OnlyLoopback,
                    net::publish::ListenState::Yes => Listening::Yes,
                };
                // Who asked may have left.
                let _ = control::send(&*connection, &Reply::Listening { state }, &[]);
            });
            None
        }
    }
}

/// Ends the container on purpose: the signal, SIGKILL after the timeout.
pub(super) fn stop(events: &mut Loop, owner: &Shared, signal: i32, timeout_ms: u64) {
    super::rerun::stop_requested(owner, timeout_ms != control::FOREVER);
    if owner.borrow().reruns.runs() {
        stop_payload(events, owner, signal, timeout_ms);
    } else {
        super::rerun::cancel(events, owner, signal, timeout_ms);
    }
}

/// Ends the current run.
pub(super) fn stop_payload(events: &mut Loop, owner: &Shared, signal: i32, timeout_ms: u64) {
    let mut this = owner.borrow_mut();
    // A payload that ended meanwhile is what was asked for.
    if this.helper.kill(None, signal).is_ok() {
        this.event(EventAction::Kill, &[("signal", &signal.to_string())]);
    }
    if let Some(earlier) = this.stop_timer.take() {
        events.cancel(earlier);
    }
    if timeout_ms != control::FOREVER {
        let weak = Rc::downgrade(owner);
        this.stop_timer = Some(events.after(Duration::from_millis(timeout_ms), move |_| {
            if let Some(owner) = weak.upgrade() {
                owner.borrow().helper.end();
            }
        }));
    }
    drop(this);
    super::freeze::thaw(owner);
}

fn done(result: std::io::Result<()>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(_) => Reply::NotRunning,
    }
}

pub(crate) fn resize(terminal: impl AsFd, rows: u16, columns: u16) -> std::io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

fn exec(
    this: &mut Owner,
    number: u64,
    connection: &Rc<OwnedFd>,
    request: ExecRequest,
    fds: Vec<OwnedFd>,
) -> Option<Reply> {
    if request.args.first().is_none_or(String::is_empty) {
        return Some(Reply::Refused {
            reason: "exec needs a command".into(),
        });
    }
    let stdio = match (request.terminal, <[OwnedFd; 3]>::try_from(fds)) {
        (Some(_), Err(fds)) if fds.is_empty() => None,
        (None, Ok(stdio)) => Some(stdio),
        _ => {
            return Some(Reply::Refused {
                reason: "exec needs three descriptors, or none with a terminal".into(),
            });
        }
    };
    let process = exec_process(&this.process, &request);
    let session = this.next_session;
    this.next_session = this.next_session.wrapping_add(1).max(1);
    // What limits the payload limits every process inside.
    let groups = this.cgroup.as_ref().map(crate::cgroup::Cgroup::procs);
    let groups = match groups.transpose() {
        Ok(groups) => groups.unwrap_or_default(),
        Err(_) => return Some(Reply::NotRunning),
    };
    if this
        .helper
        .exec(session, &process, stdio, &groups, request.detach)
        .is_err()
    {
        return Some(Reply::NotRunning);
    }
    this.sessions.insert(
        session,
        Session {
            connection: connection.clone(),
            number,
            detach: request.detach,
            command: request.args.join(" "),
        },
    );
    None
}

/// The payload's own plan, with what the request changes.
pub(super) fn exec_process(payload: &ProcessPlan, request: &ExecRequest) -> ProcessPlan {
    let mut process = payload.clone();
    process.args = request.args.iter().map(|arg| arg.clone().into_bytes()).collect();
    process.make_cwd = false;
    process.terminal = request
        .terminal
        .map(|(rows, columns)| TerminalSize { rows, columns });
    if let Some(user) = &request.user {
        process.user = user.clone();
        // Another user has another home.
        process.env.retain(|entry| !entry.starts_with(b"HOME="));
    }
    if let Some(dir) = &request.working_dir {
        process.cwd = dir.into();
    }
    if request.terminal.is_some() && !process.env.iter().any(|entry| entry.starts_with(b"TERM=")) {
        process.env.push(b"TERM=xterm".to_vec());
    }
    for (name, value) in &request.env {
        let prefix = format!("{name}=");
        process.env.retain(|entry| !entry.starts_with(prefix.as_bytes()));
        process.env.push(format!("{prefix}{value}").into_bytes());
    }
    if request.privileged {
        process.capabilities = crate::capabilities::everything();
        process.seccomp = std::sync::Arc::from([]);
        process.no_new_privileges = false;
    }
    process
}

pub(super) fn exec_started(owner: &Shared, id: u32, pid: i32, terminal: Option<OwnedFd>) {
    let this = owner.borrow();
    if let Some(session) = this.sessions.get(&id) {
        let fds: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
        let exec = [("execID", &*id.to_string())];
        this.event(EventAction::ExecCreate(session.command.clone()), &exec);
        this.event(EventAction::ExecStart(session.command.clone()), &exec);
        // The connection's end kills the session; see `close`.
        let _ = control::send(&*session.connection, &Reply::ExecStarted { pid }, &fds);
    }
}

/// The processes that exec added have ended with the payload: the kernel killed them.
pub(super) fn end_sessions(this: &mut Owner) {
    for (_, session) in this.sessions.drain() {
        // A client that left does not wait any more.
        let _ = control::send(
            &*session.connection,
            &Reply::ExecExited {
                status: libc::SIGKILL,
            },
            &[],
        );
    }
}

pub(super) fn exec_failed(
    events: &mut Loop,
    owner: &Shared,
    session: u32,
    step: Step,
    errno: i32,
    detail: String,
) {
    let cause = std::io::Error::from_raw_os_error(errno);
    let failure = format!("failed while {} ({detail}): {cause}", step.doing());
    if super::health::session_ended(events, owner, session, 0, Some(failure)) {
        return;
    }
    if let Some(session) = owner.borrow_mut().sessions.remove(&session) {
        // The payload has just ended, and its owner learns of it next.
        let reply = match (step, errno) {
            (Step::JoinNamespaces, libc::ESRCH) => Reply::NotRunning,
            _ => Reply::exec_failed(step, errno, detail),
        };
        let _ = control::send(&*session.connection, &reply, &[]);
    }
}

pub(super) fn exec_exited(events: &mut Loop, owner: &Shared, id: u32, status: i32) {
    if super::health::session_ended(events, owner, id, status, None) {
        return;
    }
    let mut this = owner.borrow_mut();
    if let Some(session) = this.sessions.remove(&id) {
        let code = if libc::WIFEXITED(status) {
            libc::WEXITSTATUS(status)
        } else {
            128 + libc::WTERMSIG(status)
        };
        let more = [("execID", &*id.to_string()), ("exitCode", &*code.to_string())];
        this.event(EventAction::ExecDie, &more);
        let _ = control::send(&*session.connection, &Reply::ExecExited { status }, &[]);
    }
}

/// Connects a client to the payload's streams: sockets for the outputs, the input itself.
fn attach(owner: &Shared, connection: &Rc<OwnedFd>) -> Option<Reply> {
    let make = || -> std::io::Result<Option<Reply>> {
        let (stdin, terminal) = {
            let this = owner.borrow();
            let input = this.terminal.as_deref().or(this.stdin.as_ref());
            (
                input.map(OwnedFd::try_clone).transpose()?,
                this.terminal.is_some(),
            )
        };
        let (stdout, to_stdout) = stream_pair()?;
        super::outputs::connect(owner, LogStream::Stdout, to_stdout)?;
        let stderr = if terminal {
            None
        } else {
            let (stderr, to_stderr) = stream_pair()?;
            super::outputs::connect(owner, LogStream::Stderr, to_stderr)?;
            Some(stderr)
        };
        let reply = Reply::Attached {
            stdin: stdin.is_some(),
            stdout: true,
            stderr: stderr.is_some(),
        };
        let stdout = Some(stdout);
        let fds: Vec<_> = [&stdin, &stdout, &stderr]
            .into_iter()
            .flatten()
            .map(AsFd::as_fd)
            .collect();
        control::send(&**connection, &reply, &fds)?;
        owner.borrow().event(EventAction::Attach, &[]);
        Ok(None)
    };
    make().unwrap_or_else(|error| {
        Some(Reply::Refused {
            reason: error.to_string(),
        })
    })
}

/// A connected pair of stream sockets: the client's end and the owner's.
pub(crate) fn stream_pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}
