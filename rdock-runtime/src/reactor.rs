//! The event loop that owns containers: one thread of the library's own, or the monitor's main thread.
//!
//! Everything registered runs on that one thread, so callbacks share state by `Rc<RefCell<..>>`, and
//! nothing in a callback may block. The loop never uses the host program's asynchronous runtime: bytes
//! are forwarded and logs written even while the caller's runtime is blocked.

use rustix::event::{Timespec, epoll, eventfd};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

pub(crate) use epoll::EventFlags as Interest;

/// Names one registered descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Token(u64);

/// Names one pending timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timer(Instant, u64);

type Callback = Rc<RefCell<dyn FnMut(&mut Loop, Interest)>>;
type Job = Box<dyn FnOnce(&mut Loop) + Send>;
type Alarm = Box<dyn FnOnce(&mut Loop)>;

/// The wake-up token; never given to a registration.
const INBOX: u64 = 0;

/// An epoll instance with its callbacks and timers.
pub(crate) struct Loop {
    epoll: OwnedFd,
    inbox: Arc<Inbox>,
    callbacks: HashMap<u64, Callback>,
    timers: BTreeMap<Timer, Alarm>,
    next: u64,
    stopped: bool,
}

#[derive(Debug)]
struct Inbox {
    wake: OwnedFd,
    jobs: Mutex<Jobs>,
}

#[derive(Default)]
struct Jobs(Vec<Job>);

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} jobs", self.0.len())
    }
}

impl std::fmt::Debug for Loop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loop")
            .field("callbacks", &self.callbacks.len())
            .field("timers", &self.timers.len())
            .finish_non_exhaustive()
    }
}

/// Sends work to a loop from any thread.
#[derive(Debug, Clone)]
pub(crate) struct LoopHandle(Arc<Inbox>);

impl LoopHandle {
    /// Runs `job` on the loop's thread.
    pub(crate) fn run(&self, job: impl FnOnce(&mut Loop) + Send + 'static) {
        let mut jobs = self
            .0
            .jobs
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        jobs.0.push(Box::new(job));
        // A full counter still wakes the loop.
        let _ = rustix::io::write(&self.0.wake, &1u64.to_ne_bytes());
    }
}

impl Loop {
    /// An empty loop for the current thread.
    pub(crate) fn new() -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(
            0,
            rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
        )?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(INBOX), Interest::IN)?;
        Ok(Self {
            epoll,
            inbox: Arc::new(Inbox {
                wake,
                jobs: Mutex::default(),
            }),
            callbacks: HashMap::new(),
            timers: BTreeMap::new(),
            next: INBOX + 1,
            stopped: false,
        })
    }

    /// A handle for other threads.
    pub(crate) fn handle(&self) -> LoopHandle {
        LoopHandle(self.inbox.clone())
    }

    /// Calls `callback` (level-triggered unless `interest` says ET) until [`Self::remove`]. The
    /// descriptor must stay open until then.
    pub(crate) fn add(
        &mut self,
        fd: impl AsFd,
        interest: Interest,
        callback: impl FnMut(&mut Loop, Interest) + 'static,
    ) -> std::io::Result<Token> {
        let token = self.next;
        self.next += 1;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), interest)?;
        self.callbacks.insert(token, Rc::new(RefCell::new(callback)));
        Ok(Token(token))
    }

    /// Changes what a registration waits for.
    pub(crate) fn modify(&mut self, token: Token, fd: impl AsFd, interest: Interest) -> std::io::Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(token.0),
            interest,
        )?)
    }

    /// Ends a registration; call it before the descriptor is closed.
    pub(crate) fn remove(&mut self, token: Token, fd: impl AsFd) {
        // The descriptor may be gone from the set already; the callback must go either way.
        let _ = epoll::delete(&self.epoll, fd);
        self.callbacks.remove(&token.0);
    }

    /// Runs `alarm` once, `delay` from now.
    pub(crate) fn after(&mut self, delay: Duration, alarm: impl FnOnce(&mut Loop) + 'static) -> Timer {
        let timer = Timer(Instant::now() + delay, self.next);
        self.next += 1;
        self.timers.insert(timer, Box::new(alarm));
        timer
    }

    /// Forgets a timer that has not fired.
    pub(crate) fn cancel(&mut self, timer: Timer) {
        self.timers.remove(&timer);
    }

    /// Makes [`Self::run`] return after the current round.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Runs until [`Self::stop`].
    pub(crate) fn run(&mut self) -> std::io::Result<()> {
        let mut events = Vec::with_capacity(64);
        while !self.stopped {
            events.clear();
            let timeout = self.timers.keys().next().map(|timer| {
                let wait = timer.0.saturating_duration_since(Instant::now());
                Timespec {
                    tv_sec: wait.as_secs() as _,
                    tv_nsec: wait.subsec_nanos() as _,
                }
            });
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            for event in &events {
                let (flags, data) = (event.flags, event.data.u64());
                if data == INBOX {
                    self.take_jobs();
                } else if let Some(callback) = self.callbacks.get(&data).cloned() {
                    // A callback that removes itself stays alive through this clone.
                    (callback.borrow_mut())(self, flags);
                }
            }
            self.fire_timers();
        }
        Ok(())
    }

    fn take_jobs(&mut self) {
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&self.inbox.wake, &mut count);
        let jobs = std::mem::take(
            &mut self
                .inbox
                .jobs
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0,
        );
        for job in jobs {
            job(self);
        }
    }

    fn fire_timers(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let alarm = entry.remove();
            alarm(self);
        }
    }
}

/// The library's own loop, on a thread started at the first use.
///
/// Fails when the thread cannot be made; the next call tries again.
pub(crate) fn library_loop() -> std::io::Result<LoopHandle> {
    static HANDLE: OnceLock<LoopHandle> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let _guard = STARTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name("rdock".into()).spawn(move || {
        // The host program's handlers run on its own threads, and a connection that breaks is an error here, not a
        // SIGPIPE: splice(2) to a socket raises one.
        if let Err(errno) = nix::sys::signal::SigSet::all().thread_block() {
            let _ = tell.send(Err(errno.into()));
            return;
        }
        let mut events = match Loop::new() {
            Ok(events) => events,
            Err(error) => {
                let _ = tell.send(Err(error));
                return;
            }
        };
        let _ = tell.send(Ok(events.handle()));
        // The loop is never stopped: it ends with the process.
        let _ = events.run();
    })?;
    let handle = told
        .recv()
        .map_err(|_| std::io::Error::other("the event thread ended at once"))??;
    Ok(HANDLE.get_or_init(|| handle).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_timers_and_descriptors_run_on_the_loop() {
        let mut events = Loop::new().expect("epoll");
        let (read, write) = rustix::pipe::pipe().expect("pipe");
        let seen = Rc::new(RefCell::new(Vec::new()));
        let log = seen.clone();
        let read = Rc::new(read);
        let own = read.clone();
        events
            .add(&*read, Interest::IN, move |_, _| {
                let mut byte = [0u8];
                if rustix::io::read(&*own, &mut byte).expect("read") == 1 {
                    log.borrow_mut().push(byte[0]);
                }
            })
            .expect("add");
        let handle = events.handle();
        std::thread::spawn(move || {
            handle.run(move |_| {
                rustix::io::write(&write, b"x").expect("write");
            });
        });
        events.after(Duration::from_millis(200), |events| events.stop());
        events.run().expect("run");
        assert_eq!(*seen.borrow(), [b'x']);
    }
}
