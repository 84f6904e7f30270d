//! The owner's side of a launch: spawn the helper, hand it the plan, follow what it reports.
#![allow(dead_code, clippy::todo, unused_variables)]

mod plan;
pub(crate) use plan::*;

use crate::step::Step;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the helper reports, in the order it can come.
#[derive(Debug)]
pub(crate) enum Event {
    /// The network's namespace was made and set up; only with [`BridgedPlan::join`] `None`.
    NetworkMade { namespace: OwnedFd },
    /// Something optional was refused; the container goes on.
    Warning { step: Step, errno: i32, detail: String },
    /// Set-up is done and the payload waits for [`Helper::go`]; only with [`LaunchPlan::hold`].
    Held,
    /// The payload's exec succeeded. `pid` is in the owner's pid namespace.
    Started { pid: i32, payload: OwnedFd, terminal: Option<OwnedFd> },
    /// Set-up failed at a step; the helper has ended everything and exits.
    Failed { step: Step, errno: i32, detail: String },
    /// `status` as waitpid(2) gives it. The helper exits after this.
    Exited { status: i32 },
    ExecStarted { session: u32, pid: i32, terminal: Option<OwnedFd> },
    ExecFailed { session: u32, step: Step, errno: i32, detail: String },
    ExecExited { session: u32, status: i32 },
    /// Answer to [`Helper::request_sockets`].
    Sockets { tag: u32, sockets: Vec<OwnedFd>, errno: i32 },
    /// The control socket closed: the helper is gone.
    Gone,
}

/// Which namespace a socket is made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketPlace {
    /// The network's (the helper's own).
    Network,
    /// The payload's.
    Payload,
}

/// A running helper: a SOCK_SEQPACKET control socket (non-blocking for the owner's epoll) and a pidfd.
#[derive(Debug)]
pub(crate) struct Helper {
    control: OwnedFd,
    pidfd: OwnedFd,
    pid: i32,
}

impl Helper {
    /// Spawns the invisible helper and sends it `plan`. Blocking, a millisecond or so; the events follow on the control socket.
    pub(crate) fn launch(plan: LaunchPlan) -> std::io::Result<Self> {
        todo!()
    }
    /// Blocks until the next event, or `None` at the deadline.
    pub(crate) fn wait_event(&self, deadline: Option<std::time::Instant>) -> std::io::Result<Option<Event>> {
        todo!()
    }
    /// The next event without blocking; `None` when there is none now.
    pub(crate) fn try_event(&self) -> std::io::Result<Option<Event>> {
        todo!()
    }
    /// Lets a held payload exec.
    pub(crate) fn go(&self) -> std::io::Result<()> {
        todo!()
    }
    /// Signals the payload (pid 1 of the container), or the process of an exec session.
    pub(crate) fn kill(&self, session: Option<u32>, signal: i32) -> std::io::Result<()> {
        todo!()
    }
    /// Starts one more process inside; `session` is the owner's number for it.
    pub(crate) fn exec(&self, session: u32, process: &ProcessPlan, stdio: Option<[OwnedFd; 3]>) -> std::io::Result<()> {
        todo!()
    }
    /// Asks for `count` (at most 16) close-on-exec, non-blocking sockets; answered by [`Event::Sockets`].
    pub(crate) fn request_sockets(&self, tag: u32, place: SocketPlace, domain: i32, kind: i32, protocol: i32, count: u8) -> std::io::Result<()> {
        todo!()
    }
    /// The helper's pid in the owner's pid namespace.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }
    /// Readable when the helper has ended (and with it every process of the container).
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
    /// SIGKILL for the helper: the kernel ends everything below it.
    pub(crate) fn end(&self) {
        todo!()
    }
}

impl AsFd for Helper {
    /// The control socket.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

/// Removes a directory tree whose entries belong to ids of a user namespace (mode 000 directories of a rootless upper):
/// a helper with the same mappings does it. As root it is a plain removal.
pub(crate) fn remove_tree(path: &std::path::Path, mappings: Option<&IdMappings>) -> std::io::Result<()> {
    todo!()
}
