//! Freezing the payload, and letting it go on.

use super::Shared;
use crate::cgroup::{Cgroup, Freezer};
use crate::control::Reply;
use crate::events::EventAction;
use crate::reactor::Loop;
use crate::state::{Happened, now};
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

/// Between two looks: the kernel says nothing when the last process of a version 1 group is frozen.
const LOOK: Duration = Duration::from_millis(1);
/// A process in an uninterruptible wait cannot be frozen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Begins it; `None` when the answer comes later.
pub(super) fn pause(
    events: &mut Loop,
    owner: &Shared,
    connection: &Rc<OwnedFd>,
    frozen: bool,
) -> Option<Reply> {
    let this = owner.borrow();
    if !this.reruns.runs() {
        return Some(Reply::NotRunning);
    }
    if this.frozen == frozen {
        return Some(Reply::Frozen { frozen });
    }
    let Some(freezer) = this.cgroup.as_ref().and_then(Cgroup::freezer) else {
        return Some(Reply::CannotFreeze {
            reason: "no control group can freeze it: neither version 2 nor the freezer controller is here"
                .into(),
        });
    };
    drop(this);
    if let Err(error) = freezer.set(frozen) {
        return Some(Reply::CannotFreeze {
            reason: error.to_string(),
        });
    }
    let deadline = Instant::now() + PATIENCE;
    look(
        events,
        &Rc::downgrade(owner),
        connection.clone(),
        freezer,
        frozen,
        deadline,
    );
    None
}

fn look(
    events: &mut Loop,
    owner: &Weak<std::cell::RefCell<super::Owner>>,
    connection: Rc<OwnedFd>,
    freezer: Freezer,
    frozen: bool,
    deadline: Instant,
) {
    let Some(shared) = owner.upgrade() else { return };
    let reply = match freezer.is_done(frozen) {
        Ok(false) if Instant::now() < deadline => {
            let owner = owner.clone();
            events.after(LOOK, move |events| {
                look(events, &owner, connection, freezer, frozen, deadline);
            });
            return;
        }
        Ok(true) => {
            let mut this = shared.borrow_mut();
            this.frozen = frozen;
            let event = match frozen {
                true => Happened::Paused { time: now() },
                false => Happened::Unpaused { time: now() },
            };
            this.event(
                if frozen {
                    EventAction::Pause
                } else {
                    EventAction::Unpause
                },
                &[],
            );
            match this.dir.append(&event) {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Refused {
                    reason: error.to_string(),
                },
            }
        }
        Ok(false) => {
            // Half frozen is worse than running.
            let _ = freezer.set(false);
            Reply::CannotFreeze {
                reason: "a process does not stop: it waits in the kernel".into(),
            }
        }
        // It has ended.
        Err(_) => Reply::NotRunning,
    };
    // A client that left needs no answer.
    let _ = crate::control::send(&*connection, &reply, &[]);
}

/// A payload that is to end must run for that.
pub(super) fn thaw(owner: &Shared) {
    let mut this = owner.borrow_mut();
    if !std::mem::take(&mut this.frozen) {
        return;
    }
    if let Some(freezer) = this.cgroup.as_ref().and_then(Cgroup::freezer) {
        // A group that is gone has nobody in it.
        let _ = freezer.set(false);
        let _ = this.dir.append(&Happened::Unpaused { time: now() });
        this.event(EventAction::Unpause, &[]);
    }
}
