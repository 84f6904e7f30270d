//! Ending a build from outside: the containers that run are killed, and nothing new begins.
use rdock_image::{OnStop, Stop};
use rdock_runtime::LayeredContainer;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by the steps of a build and by whoever may end it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stop: Stop,
    running: Mutex<Vec<Arc<LayeredContainer>>>,
}

impl Cancel {
    /// One that ends with this one, and may end before it; it is told as long as the second value is held.
    pub(crate) fn child(&self) -> (Self, OnStop) {
        let child = Self::default();
        let told = child.clone();
        let guard = self.stop().on_stop(move || told.cancel());
        (child, guard)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.stop.is_stopped()
    }

    /// What is told of it at once: pulls, downloads, and whoever waits for a lock.
    pub(crate) fn stop(&self) -> &Stop {
        &self.0.stop
    }

    /// Ends everything. Returns when the containers are told.
    pub(crate) fn cancel(&self) {
        self.0.stop.stop();
        let running = std::mem::take(&mut *self.running());
        for container in running {
            // One that has ended already is what is wanted.
            let _ = container.end();
        }
    }

    /// Runs `work` while the container may be ended.
    pub(crate) fn watch<T>(&self, container: &Arc<LayeredContainer>, work: impl FnOnce() -> T) -> T {
        self.running().push(container.clone());
        if self.is_cancelled() {
            let _ = container.end();
        }
        let done = work();
        self.running().retain(|other| !Arc::ptr_eq(other, container));
        done
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Arc<LayeredContainer>>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
