//! A container that dies with its handle, and with the process that holds it.

use crate::base::Base;
use crate::container::{Container, KnownExit};
use crate::create::{self, Ownership};
use crate::error::{Error, Result};
use crate::owner::{self, Ended, Started};
use crate::reactor::{LoopHandle, library_loop};
use crate::runtime::Runtime;
use crate::spec::ContainerSpec;
use crate::start;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long `Drop` waits for the kernel to end and give back everything.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running container that ends, and leaves nothing, when it is dropped or when this process ends in any
/// way, SIGKILL included. It derefs to [`Container`], and other processes see it while it lives.
///
/// When the payload ends by itself its log and exit stay until the handle goes.
#[derive(Debug)]
#[must_use = "the container ends when this is dropped"]
pub struct ScopedContainer {
    container: Container,
    ending: Arc<Ending>,
    gone: bool,
}

/// Where the loop says that the container has ended.
#[derive(Debug, Default)]
struct Ending {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Ending {
    fn set(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self, patience: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, _) = self
            .changed
            .wait_timeout_while(ended, patience, |ended| !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        *ended
    }
}

impl std::ops::Deref for ScopedContainer {
    type Target = Container;
    fn deref(&self) -> &Container {
        &self.container
    }
}

impl ScopedContainer {
    /// Starts it; blocks until the payload's exec.
    pub(crate) fn start(
        runtime: &Runtime,
        spec: &ContainerSpec,
        image: &crate::image::Image,
    ) -> Result<Self> {
        Self::start_over(runtime, spec, image.into(), None)
    }

    /// As [`Self::start`]; copies the outputs to sockets as well.
    pub(crate) fn start_over(
        runtime: &Runtime,
        spec: &ContainerSpec,
        base: Base<'_>,
        outputs: Option<[OwnedFd; 2]>,
    ) -> Result<Self> {
        let events = library_loop().map_err(Error::system("start the event thread"))?;
        let id = crate::identity::random_id().map_err(Error::system("read random numbers"))?;
        let owner = start::Owner::ThisProcess { outputs };
        let owned = Ownership {
            detached: false,
            owned: true,
        };
        let made = create::create(runtime, &id, spec, base, owned, &owner.host_facts(spec))?;
        let started = start::first(runtime, made, owner)?;
        let exit = Arc::<KnownExit>::default();
        let (dir, record) = (started.dir.clone(), started.record.clone());
        let container = Container::started(runtime.clone(), dir, record, exit.clone());
        let ending = Arc::new(Ending::default());
        let this = Self {
            container,
            ending: ending.clone(),
            gone: false,
        };
        this.hand_over(&events, started, ending, exit);
        Ok(this)
    }

    fn hand_over(&self, events: &LoopHandle, started: Started, ending: Arc<Ending>, exit: Arc<KnownExit>) {
        events.run(move |events| {
            let told = ending.clone();
            let on_end = Box::new(move |_: &mut _, ended: Ended| {
                exit.set(ended.exit);
                told.set();
            });
            if owner::adopt(events, started, on_end).is_err() {
                // Descriptors ran out: dropping the helper's socket has ended the container.
                ending.set();
            }
        });
    }

    /// Waits for the end of the payload, for `patience` at most.
    pub(crate) fn wait_blocking(&self, patience: Duration) -> Option<crate::state::Exit> {
        self.ending
            .wait(patience)
            .then(|| self.container.known_exit())
            .flatten()
    }

    pub(crate) fn end_blocking(&self) -> Result<()> {
        kill(&self.container, &self.ending);
        Ok(())
    }

    pub(crate) fn remove_blocking(mut self) -> Result<()> {
        self.gone = true;
        end(&self.container, &self.ending)
    }

    /// Ends it and removes everything now.
    ///
    /// # Errors
    /// [`Error::Remains`] with the first thing that could not be removed; the next open of the root tries again.
    pub async fn remove(mut self) -> Result<()> {
        self.gone = true;
        let (container, ending) = (self.container.clone(), self.ending.clone());
        crate::runtime::blocking(move || end(&container, &ending)).await
    }
}

impl Drop for ScopedContainer {
    fn drop(&mut self) {
        if !self.gone {
            // Nobody can be told here; the next open of the root finishes what is left.
            let _ = end(&self.container, &self.ending);
        }
    }
}

fn kill(container: &Container, ending: &Ending) {
    if ending.wait(Duration::ZERO) {
        return;
    }
    if let Ok(connection) = container.connect() {
        // An owner that has just seen the end answers nothing, and `ending` says so.
        let _ = connection.send(
            &crate::control::Request::Kill {
                signal: libc::SIGKILL,
            },
            &[],
        );
    }
    ending.wait(PATIENCE);
}

fn end(container: &Container, ending: &Ending) -> Result<()> {
    kill(container, ending);
    let removed = crate::remove::ended(container.runtime(), container.record(), true);
    match removed {
        Err(Error::State { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A container that is being handed to a caller who may have stopped waiting for it.
#[derive(Debug)]
struct Unclaimed(Option<Container>);

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(container) = self.0.take() {
            // Runs on a blocking thread: the future was dropped while the start was under way.
            if let Ok(connection) = container.connect() {
                let _ = connection.ask(&crate::control::Request::Remove, &[]);
            }
        }
    }
}

impl ContainerSpec {
    /// Starts a container that dies with the returned handle and with this process; pulls a missing image.
    /// Returns when the payload runs and every [`Self::ready`] condition holds. Dropping the future removes
    /// the half-made container.
    ///
    /// # Errors
    /// What is wrong with the spec, all at once ([`Error::Spec`]); [`Error::Launch`] with the step that failed;
    /// [`Error::EndedEarly`] and [`Error::NotReady`] with the last log lines.
    pub async fn start(&self, runtime: &Runtime) -> Result<ScopedContainer> {
        let image = runtime.image(&self.image).await?;
        let (spec, on) = (self.resolved(runtime).await?, runtime.clone());
        let scoped = crate::runtime::blocking(move || ScopedContainer::start(&on, &spec, &image)).await?;
        crate::readiness::wait(&scoped, &self.ready, self.ready_timeout).await?;
        Ok(scoped)
    }

    /// Starts a container with a monitor of its own: it outlives this program and is found again by name.
    /// Otherwise as [`Self::start`].
    ///
    /// # Errors
    /// As [`Self::start`]; [`Error::NoMonitor`] when this program cannot be executed again.
    pub async fn start_detached(&self, runtime: &Runtime) -> Result<Container> {
        Ok(self.start_monitored(runtime, false).await?.0)
    }

    /// As [`Self::start_detached`], with its output (and its input when `interactive`) connected to the
    /// caller before its first instruction.
    ///
    /// # Errors
    /// As [`Self::start_detached`].
    pub async fn start_attached(&self, runtime: &Runtime) -> Result<(Container, crate::container::Attached)> {
        self.start_monitored(runtime, true).await
    }

    async fn start_monitored(
        &self,
        runtime: &Runtime,
        attach: bool,
    ) -> Result<(Container, crate::container::Attached)> {
        let image = runtime.image(&self.image).await?;
        let (spec, on) = (self.resolved(runtime).await?, runtime.clone());
        let (mut unclaimed, attached) = crate::runtime::blocking(move || {
            let (container, attached) = crate::monitor::run_new(&on, &spec, &image, attach)?;
            Ok((Unclaimed(Some(container)), attached))
        })
        .await?;
        let Some(container) = unclaimed.0.clone() else {
            unreachable!("taken only below")
        };
        let waited = crate::readiness::wait(&container, &self.ready, self.ready_timeout).await;
        unclaimed.0 = None;
        waited?;
        Ok((container, attached))
    }
}
