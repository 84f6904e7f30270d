//! Processes added by exec, from their start to their end.

use super::{Helper, header, read_plan, report};
use crate::kernel::*;
use crate::plan::Plan;
use crate::process::Setup;
use crate::step::Step;
use crate::wire::{self, CONTROL, DETAIL, HEADER, MOST_FDS, tell};

/// One process added by exec.
#[derive(Clone, Copy)]
pub(super) struct Session {
    pub(super) number: u32,
    pub(super) pidfd: i32,
    pub(super) pid: i32,
    /// Its status socket until its exec succeeded.
    pub(super) status: i32,
    pub(super) terminal: i32,
    /// Goes on when the owner goes away.
    pub(super) outlives: bool,
}

impl Helper {
    pub(super) fn session_status(&mut self, at: usize) {
        let session = self.sessions[at];
        let mut message = [0u8; HEADER + DETAIL];
        let mut fds = [-1; MOST_FDS];
        let Ok((length, count)) = receive_fds(session.status, &mut message, &mut fds) else { return };
        let [kind, _, a, b, ..] = if length < HEADER { [0; 6] } else { header(&message) };
        match kind {
            0 => {
                close(session.status);
                self.sessions[at].status = -1;
                let told = [session.pidfd, session.terminal];
                let told = if session.terminal >= 0 { &told[..] } else { &told[..1] };
                let _ = report(CONTROL, tell::EXEC_STARTED, session.number, session.pid, 0, b"", told);
                if session.terminal >= 0 {
                    close(session.terminal);
                    self.sessions[at].terminal = -1;
                }
            }
            tell::TERMINAL if count == 1 => self.sessions[at].terminal = fds[0],
            tell::FAILED => {
                let detail = &message[HEADER..length];
                let _ = report(CONTROL, tell::EXEC_FAILED, session.number, a as i32, b as i32, detail, &[]);
                close(session.status);
                self.sessions[at].status = -1;
                // Its end is not reported a second time.
                self.sessions[at].number = 0;
            }
            _ => {}
        }
    }

    pub(super) fn session_ended(&mut self, at: usize) {
        while self.sessions[at].status >= 0 {
            self.session_status(at);
        }
        let session = self.sessions[at];
        let mut status = 0;
        let _ = wait(session.pid, &mut status, true);
        if session.number != 0 {
            let _ = report(CONTROL, tell::EXEC_EXITED, session.number, status, 0, b"", &[]);
        }
        close(session.pidfd);
        if session.terminal >= 0 {
            close(session.terminal);
        }
        self.session_count -= 1;
        self.sessions[at] = self.sessions[self.session_count];
    }

    pub(super) fn session(&self, number: u32) -> Option<usize> {
        (0..self.session_count).find(|&at| self.sessions[at].number == number)
    }

    pub(super) fn exec(&mut self, number: u32, outlives: bool, fds: &[i32; MOST_FDS], count: usize) {
        let failed = |errno: i32| {
            let _ = report(CONTROL, tell::EXEC_FAILED, number, Step::JoinNamespaces as i32, errno, b"", &[]);
        };
        if self.session_count == wire::MOST_SESSIONS || count == 0 {
            return failed(EAGAIN);
        }
        let Ok(plan) = read_plan(fds[0]) else { return failed(EPROTO) };
        let Ok((ours, theirs)) = socketpair() else { return failed(EAGAIN) };
        let mut joiner = -1;
        match clone(0, SIGCHLD as u64, &mut joiner) {
            Ok(0) => {
                // Nothing of the helper but stdio and the status socket goes near the container.
                let mut setup = Setup::new(theirs, *fds, count);
                setup.enter(self.payload, &mut Plan::new(plan));
            }
            Ok(pid) => {
                close(theirs);
                close(joiner);
                let mut message = [0u8; HEADER + DETAIL];
                let mut passed = [-1; MOST_FDS];
                // The joiner ends as soon as the process exists, or has said why it does not.
                let received = receive_fds(ours, &mut message, &mut passed);
                let mut status = 0;
                let _ = wait(pid, &mut status, true);
                match received {
                    Ok((length, 1)) if length >= HEADER && header(&message)[0] == tell::PROCESS => {
                        self.sessions[self.session_count] = Session {
                            number,
                            pidfd: passed[0],
                            pid: header(&message)[2] as i32,
                            status: ours,
                            terminal: -1,
                            outlives,
                        };
                        self.session_count += 1;
                        // One that has ended already is reaped by its pidfd.
                        let _ = send(ours, b"p");
                    }
                    Ok((length, _)) if length >= HEADER => {
                        let [_, _, a, b, ..] = header(&message);
                        let detail = &message[HEADER..length];
                        let _ = report(CONTROL, tell::EXEC_FAILED, number, a as i32, b as i32, detail, &[]);
                        close(ours);
                    }
                    _ => {
                        failed(EPROTO);
                        close(ours);
                    }
                }
            }
            Err(errno) => {
                close(ours);
                close(theirs);
                failed(errno);
            }
        }
    }
}
