//! What has to be done so that what exists becomes what is wanted.
//!
//! A [`Plan`] is data: it is made without asking or changing anything, can be printed, stored and compared, and each
//! of its [`Step`]s says why it is there and which steps must be done before it. Steps that do not wait for each other
//! can be done at the same time.

mod down;
mod existing;
mod images;
mod operation;
mod order;
mod providers;
mod recreate;
mod run;
mod up;
mod verbs;

pub use down::{DownOptions, RemoveImages};
pub use existing::{
    ContainerState, Existing, ExistingContainer, ExistingImage, ExistingMount, ExistingNetwork,
    ExistingVolume, Health,
};
pub use images::PullOptions;
pub use operation::{Cause, HookKind, OneOff, Operation, ProviderAction, Target, WaitCondition};
pub use run::RunOptions;
pub use up::{Build, Pull, Recreate, UpOptions};

pub(crate) use order::services as in_order;

use crate::error::{SelectError, Warning, WarningKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A network that someone else makes is not there.
    #[error("the external network {name:?} is not there")]
    NoExternalNetwork {
        /// Its real name.
        name: String,
    },
    /// A volume that someone else makes is not there.
    #[error("the external volume {name:?} is not there")]
    NoExternalVolume {
        /// Its real name.
        name: String,
    },
    /// A network or volume with that name belongs to someone else.
    #[error(
        "the {kind} {name:?} exists and does not belong to the project {project:?}; name it external, or choose another name"
    )]
    NotOurs {
        /// `network` or `volume`.
        kind: &'static str,
        /// Its real name.
        name: String,
        /// This project.
        project: String,
    },
    /// A container with the name that is needed belongs to someone else.
    #[error("the container name {name:?} is taken by the container {id}")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// A service that only exists once is to exist several times.
    #[error("the service {service:?} has a container_name and can run only once, not {wanted} times")]
    OneNameOnly {
        /// The service.
        service: String,
        /// How often it is to run.
        wanted: u32,
    },
    /// An image that may not be pulled is not there.
    #[error("the image {image:?} of the service {service:?} is not there, and must not be pulled")]
    NoImage {
        /// The service.
        service: String,
        /// Its image.
        image: String,
    },
    /// A container of a service that has none.
    #[error("the service {0:?} has no containers: a program provides it")]
    Provided(String),
    /// A verb for services that the project cannot run.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// A verb for containers that are not there.
    #[error("service {0:?} has no container to start")]
    NoContainer(String),
    /// A verb for a container that runs, and none does.
    #[error("service {service:?} is not running{}", number.map(|number| format!(" container #{number}")).unwrap_or_default())]
    NotRunning {
        /// The service.
        service: String,
        /// Which of its containers, if one was asked for.
        number: Option<u32>,
    },
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its place in the plan.
    pub id: usize,
    /// What is done.
    pub operation: Operation,
    /// Why.
    pub causes: Vec<Cause>,
    /// The steps that must be done before, all of them earlier in the plan.
    pub after: BTreeSet<usize>,
}

/// Everything that has to be done, in an order in which it can be done one after the other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// The project.
    pub project: String,
    /// The steps.
    pub steps: Vec<Step>,
    /// Containers of services that the files no longer have, and that stay.
    pub orphans: Vec<String>,
    /// What the caller should know.
    pub notes: Vec<String>,
}

impl Plan {
    pub(crate) fn new(project: &str) -> Self {
        Self {
            project: project.to_owned(),
            ..Self::default()
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The operations, in order.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.steps.iter().map(|step| &step.operation)
    }

    /// Adds a step; those it waits for must be there already.
    pub(crate) fn add(
        &mut self,
        operation: Operation,
        causes: Vec<Cause>,
        after: impl IntoIterator<Item = usize>,
    ) -> usize {
        let id = self.steps.len();
        let after: BTreeSet<usize> = after.into_iter().collect();
        debug_assert!(
            after.iter().all(|step| *step < id),
            "a step waits for a later one"
        );
        self.steps.push(Step {
            id,
            operation,
            causes,
            after,
        });
        id
    }

    /// What the caller should know, as warnings.
    pub fn warnings(&self) -> Vec<Warning> {
        let orphans = (!self.orphans.is_empty()).then(|| {
            format!(
                "containers of services that the files no longer have: {}; --remove-orphans removes them",
                self.orphans.join(", ")
            )
        });
        let notes = orphans.into_iter().chain(self.notes.iter().cloned());
        let warning = |message| Warning {
            kind: WarningKind::Orphans,
            path: String::new(),
            place: None,
            message,
        };
        notes.map(warning).collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return writeln!(f, "{}: nothing to do", self.project);
        }
        for step in &self.steps {
            write!(f, "{:>3}. {}", step.id + 1, step.operation)?;
            if !step.after.is_empty() {
                let after: Vec<String> = step.after.iter().map(|id| (id + 1).to_string()).collect();
                write!(f, "  [after {}]", after.join(", "))?;
            }
            writeln!(f)?;
            for cause in &step.causes {
                writeln!(f, "       because {cause}")?;
            }
        }
        Ok(())
    }
}
