//! Ending long work from outside.
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Wake, Waker};

/// Says, once and for all, that some work is not wanted any more. Clones are the same stop.
///
/// The work learns of it at once: whatever waits, waits for the stop as well, by [`Stop::stopped`] or
/// [`Stop::on_stop`]. Nothing is polled.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
    stopped: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Stop {
    /// Ends the work.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        let wakers = std::mem::take(&mut self.waiting().wakers);
        wakers.into_values().for_each(Waker::wake);
    }

    /// Is the work to end?
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// Waits until the work is to end.
    pub async fn stopped(&self) {
        let mut told: Option<OnStop> = None;
        poll_fn(move |context| {
            if self.is_stopped() {
                return Poll::Ready(());
            }
            drop(told.replace(self.register(context.waker().clone())));
            // It may have come in between.
            match self.is_stopped() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Calls `action` when the work is to end, or now if that was said already. It is forgotten with the returned
    /// value.
    #[must_use]
    pub fn on_stop(&self, action: impl Fn() + Send + Sync + 'static) -> OnStop {
        let told = self.register(Waker::from(Arc::new(Action(action))));
        if self.is_stopped()
            && let Some(waker) = self.waiting().wakers.remove(&told.number)
        {
            waker.wake();
        }
        told
    }

    fn register(&self, waker: Waker) -> OnStop {
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        waiting.wakers.insert(number, waker);
        OnStop {
            stop: self.clone(),
            number,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.is_stopped()).finish()
    }
}

/// Somebody who is told of a [`Stop`] until this is dropped.
#[derive(Debug)]
pub struct OnStop {
    stop: Stop,
    number: u64,
}

impl Drop for OnStop {
    fn drop(&mut self) {
        let waker = self.stop.waiting().wakers.remove(&self.number);
        // Outside the lock: it may own anything.
        drop(waker);
    }
}

struct Action<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Action<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::mpsc::channel;
    use std::task::Context;

    #[test]
    fn whoever_waits_is_told_once() {
        let stop = Stop::default();
        let (tell, hear) = channel();
        let (early, forgotten, late) = (tell.clone(), tell.clone(), tell);
        let _early = stop.on_stop(move || early.send("early").unwrap());
        drop(stop.on_stop(move || forgotten.send("forgotten").unwrap()));
        assert!(!stop.is_stopped());
        stop.clone().stop();
        stop.stop();
        let _late = stop.on_stop(move || late.send("late").unwrap());
        drop((_early, _late));
        assert_eq!(hear.into_iter().collect::<Vec<_>>(), ["early", "late"]);
    }

    #[test]
    fn a_future_ends_with_it() {
        let stop = Stop::default();
        let (tell, hear) = channel();
        let waker = Waker::from(Arc::new(Action(move || tell.send(()).unwrap())));
        let mut context = Context::from_waker(&waker);
        let mut waits = pin!(stop.stopped());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        stop.stop();
        hear.recv().unwrap();
        assert!(waits.as_mut().poll(&mut context).is_ready());
        assert!(stop.waiting().wakers.is_empty());
    }
}
