//! The end of an owner, and the one that comes after it.

use super::{Helper, report};
use crate::kernel::*;
use crate::wire::{CONTROL, MOST_FDS, tell};

/// What is kept for an owner that comes after the first one.
#[derive(Clone, Copy)]
pub(super) struct Reunion {
    /// Listens for it.
    pub(super) socket: i32,
    /// The payload's wait status goes here.
    pub(super) status: i32,
    /// First and count of the kept descriptors.
    pub(super) first: usize,
    pub(super) count: usize,
}

impl Helper {
    /// Where a new owner is waited for; -1 when there is none to come.
    pub(super) fn listening(&self) -> i32 {
        self.reunion.map_or(-1, |kept| kept.socket)
    }

    /// The owner has ended, or closed its socket.
    pub(super) fn owner_gone(&mut self) {
        if !self.settled || self.reunion.is_none() {
            self.end();
        }
        if self.control >= 0 {
            close(self.control);
        }
        if self.owner >= 0 {
            close(self.owner);
        }
        (self.control, self.owner) = (-1, -1);
        for session in &self.sessions[..self.session_count] {
            if !session.outlives {
                // One that has ended is reaped by its pidfd.
                let _ = pidfd_send_signal(session.pidfd, SIGKILL);
            }
        }
    }

    /// A new owner: it gets what was kept, and the payload's end if that has come.
    pub(super) fn welcome(&mut self) {
        let Some(kept) = self.reunion else { return };
        let Ok(socket) = accept(kept.socket) else { return };
        // Only root and the container's own user reach the directory; this is the second lock on the door.
        if !peer_is_own(socket) {
            close(socket);
            return;
        }
        if socket != CONTROL {
            let moved = dup3(socket, CONTROL, O_CLOEXEC);
            close(socket);
            if moved.is_err() {
                return;
            }
        }
        self.control = CONTROL;
        let mut told = [-1; MOST_FDS];
        let mut count = 0;
        let mut add = |fd: i32| {
            if count < MOST_FDS {
                told[count] = fd;
                count += 1;
            }
        };
        add(self.payload);
        if self.terminal >= 0 {
            add(self.terminal);
        }
        add(kept.socket);
        for fd in &self.fds[kept.first..kept.first + kept.count] {
            add(*fd);
        }
        let terminal = i32::from(self.terminal >= 0);
        if report(CONTROL, tell::ADOPTED, 0, terminal, 0, b"", &told[..count]).is_err() {
            self.owner_gone();
            return;
        }
        if let Some(status) = self.ended {
            self.tell_end(status);
        }
    }

    /// The last word. A helper whose owner is gone keeps it for the next one.
    pub(super) fn tell_end(&mut self, status: i32) {
        if self.control >= 0 && report(CONTROL, tell::EXITED, 0, status, 0, b"", &[]).is_ok() {
            exit(0);
        }
        if self.settled && self.reunion.is_some() {
            self.ended = Some(status);
            if self.control >= 0 {
                self.owner_gone();
            }
            return;
        }
        exit(0);
    }
}

/// Whether the process at the other end of a socket is of this user, or root.
fn peer_is_own(socket: i32) -> bool {
    // SOL_SOCKET, SO_PEERCRED: pid, uid, gid
    let mut peer = [0u32; 3];
    getsockopt(socket, 1, 17, &mut peer).is_ok() && (peer[1] == 0 || peer[1] == geteuid())
}
