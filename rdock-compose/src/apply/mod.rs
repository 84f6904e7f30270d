//! A plan is carried out: everything at once that does not wait for something else.
//!
//! [`ComposeProject`] holds a project and the runtime that its containers live in. It looks at what exists
//! ([`ComposeProject::existing`]), lets a [`Plan`] be made from that, and applies it. Whatever interrupts it, what
//! exists is the only state there is: the next plan begins from there.

#[cfg(test)]
mod attributes;
mod error;
mod event;
mod hooks;
mod images;
mod observe;
mod operations;
mod provider;
mod schedule;
mod wait;

pub use error::{ApplyError, StepError, StepFailure};
pub use event::{ApplyEvent, ImageEvent, ProviderMessage};

use crate::model::Project;
use crate::plan::{DownOptions, Existing, Plan, RunOptions, Step, UpOptions};
use event::Receiver;
use rdock_build::Builder;
use rdock_runtime::{ContainerSpec, Runtime};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Changes the spec of a one-off container.
#[derive(Clone)]
struct OneOff(Arc<dyn Fn(&mut ContainerSpec) + Send + Sync>);

impl fmt::Debug for OneOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneOff(..)")
    }
}

/// Changes a builder.
#[derive(Clone)]
struct Builds(Arc<dyn Fn(Builder) -> Builder + Send + Sync>);

impl fmt::Debug for Builds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Builds(..)")
    }
}

/// A project in a runtime. Cloning is cheap.
///
/// ```no_run
/// use rdock_compose::plan::UpOptions;
/// use rdock_compose::{ComposeProject, LoadOptions, Project};
/// use rdock_runtime::Runtime;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let project = Project::load(&LoadOptions::new("."))?;
/// let compose = ComposeProject::new(&Runtime::open_default()?, project);
/// compose.up(&UpOptions::default()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ComposeProject {
    runtime: Runtime,
    project: Arc<Project>,
    /// Whether more than its name is known.
    loaded: bool,
    receiver: Receiver,
    parallel: Option<usize>,
    /// What `run` changes in the spec of its container.
    one_off: Option<OneOff>,
    /// What is changed in every build.
    builds: Option<Builds>,
    /// What programs that provide services said of them, by service.
    provided: Arc<Mutex<BTreeMap<String, provider::Provided>>>,
}

impl ComposeProject {
    /// The project in this runtime.
    pub fn new(runtime: &Runtime, project: Project) -> Self {
        Self {
            runtime: runtime.clone(),
            project: Arc::new(project),
            loaded: true,
            receiver: Receiver::default(),
            parallel: None,
            one_off: None,
            builds: None,
            provided: Arc::default(),
        }
    }

    /// A project of which only the name is known: what exists of it can be shown, stopped and taken down.
    pub fn named(runtime: &Runtime, name: impl Into<String>) -> Self {
        let project = Project {
            name: name.into(),
            ..Project::default()
        };
        Self {
            loaded: false,
            ..Self::new(runtime, project)
        }
    }

    /// Calls `receiver` with everything that happens, from whichever thread does it.
    pub fn on_event(mut self, receiver: impl Fn(ApplyEvent<'_>) + Send + Sync + 'static) -> Self {
        self.receiver = Receiver::new(receiver);
        self
    }

    /// Limits how many steps are done at the same time; without limit by default.
    pub fn parallel(mut self, steps: usize) -> Self {
        self.parallel = Some(steps.max(1));
        self
    }

    /// Changes the spec of every container that [`Self::run`] makes: its command, variables, ports, terminal.
    pub fn one_off(mut self, change: impl Fn(&mut ContainerSpec) + Send + Sync + 'static) -> Self {
        self.one_off = Some(OneOff(Arc::new(change)));
        self
    }

    /// Changes every build of an image: more arguments, the certificates of the host, no cache.
    pub fn builds(mut self, change: impl Fn(Builder) -> Builder + Send + Sync + 'static) -> Self {
        self.builds = Some(Builds(Arc::new(change)));
        self
    }

    /// The project.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// The project, unless no more than its name is known.
    pub fn loaded(&self) -> Option<&Project> {
        self.loaded.then_some(&*self.project)
    }

    /// The runtime.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// What there is of the project, and what has the names that it needs.
    ///
    /// # Errors
    /// When the state of the runtime cannot be read.
    pub async fn existing(&self) -> Result<Existing, ApplyError> {
        let this = self.clone();
        blocking(move || observe::existing(&this.runtime, &this.project)).await
    }

    /// Carries out a plan. Steps that do not wait for each other are done at the same time; one that fails stops those
    /// that wait for it and no others. Dropping the future stops everything where it is; what is left is taken up by
    /// the next plan.
    ///
    /// # Errors
    /// [`ApplyError::Steps`] with every step that failed and those that were not done for it.
    pub async fn apply(&self, plan: &Plan) -> Result<(), ApplyError> {
        let failures = schedule::run(
            plan,
            self.parallel,
            |step| self.perform(step),
            |step, failed| {
                self.receiver.send(ApplyEvent::Skipped {
                    step,
                    failed: &plan.steps[failed],
                });
            },
        )
        .await;
        match failures.is_empty() {
            true => Ok(()),
            false => Err(ApplyError::Steps {
                project: plan.project.clone(),
                failures,
            }),
        }
    }

    async fn perform(&self, step: &Step) -> Result<(), StepError> {
        self.receiver.send(ApplyEvent::Started { step });
        let began = Instant::now();
        let result = operations::perform(self, step).await;
        match &result {
            Ok(()) => self.receiver.send(ApplyEvent::Done {
                step,
                took: began.elapsed(),
            }),
            Err(error) => self.receiver.send(ApplyEvent::Failed { step, error }),
        }
        result
    }

    fn provided(&self) -> MutexGuard<'_, BTreeMap<String, provider::Provided>> {
        self.provided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the programs that provide services for what they provide ([`Plan::providers`]). The project in which the
    /// services that need them have the variables that they said; the same one if there are none.
    ///
    /// A program is a child of this process, has the variables that the project was loaded with and no others, and is
    /// killed when the future is dropped.
    ///
    /// # Errors
    /// [`super::StepError::Provider`] in [`Self::apply`]'s; [`ApplyError::Plan`].
    pub async fn provide(&self, options: &UpOptions) -> Result<Self, ApplyError> {
        let plan = Plan::providers(&self.project, options)?;
        if plan.is_empty() {
            return Ok(self.clone());
        }
        self.apply(&plan).await?;
        let mut project = (*self.project).clone();
        provider::fill(&mut project, &self.provided());
        Ok(Self {
            project: Arc::new(project),
            ..self.clone()
        })
    }

    /// Pulls and builds what is missing, asks programs for what they provide, makes and starts what the project says.
    /// Returns what was done to containers, networks and volumes: nothing if all is as it should be.
    ///
    /// # Errors
    /// What stands in the way of a plan, and [`Self::apply`]'s.
    pub async fn up(&self, options: &UpOptions) -> Result<Plan, ApplyError> {
        let mut existing = self.existing().await?;
        let images = Plan::images(&self.project, &existing, options)?;
        if !images.is_empty() {
            self.apply(&images).await?;
            existing = self.existing().await?;
        }
        let this = self.provide(options).await?;
        let plan = Plan::up(&this.project, &existing, options)?;
        this.apply(&plan).await?;
        Ok(plan)
    }

    /// Stops and removes what the project made. Returns what was done.
    ///
    /// # Errors
    /// As [`Self::up`].
    pub async fn down(&self, options: &DownOptions) -> Result<Plan, ApplyError> {
        let plan = Plan::down(
            &self.project.name,
            self.loaded(),
            &self.existing().await?,
            options,
        );
        self.apply(&plan).await?;
        Ok(plan)
    }

    /// Starts a one-off container of a service, after what it needs. Returns its name.
    ///
    /// # Errors
    /// As [`Self::up`].
    pub async fn run(&self, options: &RunOptions) -> Result<Plan, ApplyError> {
        let plan = Plan::run(&self.project, &self.existing().await?, options)?;
        self.apply(&plan).await?;
        Ok(plan)
    }
}

/// Work that waits for the disk, off the caller's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApplyError> + Send + 'static,
) -> Result<T, ApplyError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ApplyError::Cancelled),
        },
    }
}
