//! What the events of a container add up to.

use super::{Exit, Happened, Start, Status};

/// The events, folded.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// The last start.
    pub(crate) started: Option<Start>,
    /// The last end.
    pub(crate) exit: Option<Exit>,
    /// How often the restart policy ran the payload again since somebody started the container.
    pub(crate) restarts: u32,
    /// Somebody has stopped or killed it on purpose since then.
    pub(crate) stopped: bool,
    /// And it will end soon, whatever its payload does.
    pub(crate) stopping: bool,
    now: Now,
}

/// What the last event says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Now {
    #[default]
    Nothing,
    Runs,
    IsPaused,
    Restarts,
    Ended,
    Dead,
}

impl History {
    pub(crate) fn of(events: Vec<Happened>) -> Self {
        let mut history = Self::default();
        for event in events {
            if let Some(start) = &mut history.started {
                crate::owner::apply_to_networks(&mut start.networks, &event);
            }
            match event {
                Happened::Started(start) => {
                    if !start.restart {
                        history.restarts = 0;
                    }
                    history.stopped = false;
                    history.stopping = false;
                    history.started = Some(start);
                    history.now = Now::Runs;
                }
                Happened::Exited { exit } => {
                    history.exit = Some(exit);
                    history.now = Now::Ended;
                }
                Happened::Restarting { exit, count } => {
                    history.exit = Some(exit);
                    history.restarts = count;
                    history.now = Now::Restarts;
                }
                Happened::Paused { .. } => history.now = Now::IsPaused,
                Happened::Unpaused { .. } => history.now = Now::Runs,
                Happened::StopRequested { ends, .. } => {
                    history.stopped = true;
                    history.stopping |= ends;
                }
                Happened::Dead { .. } => history.now = Now::Dead,
                Happened::NetworkConnected { .. }
                | Happened::NetworkDisconnected { .. }
                | Happened::Shortened { .. }
                | Happened::Unknown => {}
            }
        }
        history
    }

    /// Whether the last event says that the payload runs, or is about to run again.
    pub(crate) fn expects_owner(&self) -> bool {
        matches!(self.now, Now::Runs | Now::IsPaused | Now::Restarts)
    }

    /// The status, if the events and whether somebody still owns the container (`alive`) tell it.
    pub(crate) fn status(&self, alive: bool) -> Option<Status> {
        match (self.now, &self.exit) {
            (Now::Runs, _) => alive.then_some(Status::Running),
            (Now::IsPaused, _) => alive.then_some(Status::Paused),
            (Now::Restarts, Some(exit)) if alive => Some(Status::Restarting(exit.clone())),
            (Now::Restarts | Now::Ended, Some(exit)) => Some(Status::Exited(exit.clone())),
            (Now::Dead, _) => Some(Status::Dead),
            (Now::Nothing | Now::Restarts | Now::Ended, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ExitReason;
    use super::*;

    fn start(restart: bool) -> Happened {
        Happened::Started(Start {
            restart,
            ..Start::default()
        })
    }

    fn exit(code: i32) -> Exit {
        Exit::now(ExitReason::Exited(code))
    }

    #[test]
    fn restarts_count_from_the_last_start_by_hand() {
        let mut events = vec![start(false)];
        for count in 1..=3 {
            events.extend([Happened::Restarting { exit: exit(1), count }, start(true)]);
        }
        let history = History::of(events.clone());
        assert_eq!(history.restarts, 3);
        assert_eq!(history.status(true), Some(Status::Running));
        assert_eq!(history.status(false), None);
        events.extend([Happened::Exited { exit: exit(1) }, start(false)]);
        assert_eq!(History::of(events).restarts, 0);
    }

    #[test]
    fn a_restart_that_nobody_will_make_is_an_exit() {
        let history = History::of(vec![
            start(false),
            Happened::Restarting {
                exit: exit(4),
                count: 1,
            },
        ]);
        assert!(matches!(history.status(true), Some(Status::Restarting(exit)) if exit.code() == 4));
        assert!(matches!(history.status(false), Some(Status::Exited(exit)) if exit.code() == 4));
    }

    #[test]
    fn a_stop_on_purpose_is_remembered_until_the_next_start() {
        let stop = Happened::StopRequested {
            time: String::new(),
            ends: true,
        };
        let mut events = vec![start(false), stop, Happened::Exited { exit: exit(0) }];
        assert!(History::of(events.clone()).stopped);
        events.push(start(false));
        assert!(!History::of(events).stopped);
    }
}
