//! What happens while a plan is carried out.

use super::StepError;
use crate::plan::Step;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One thing that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum ApplyEvent<'a> {
    /// A step begins.
    Started {
        /// The step.
        step: &'a Step,
    },
    /// An image comes here, or is built.
    Image {
        /// The step.
        step: &'a Step,
        /// How far it is.
        event: ImageEvent<'a>,
    },
    /// The program that provides a service says something.
    Provider {
        /// The step.
        step: &'a Step,
        /// What it says.
        message: ProviderMessage<'a>,
    },
    /// A container runs with less than it was asked for.
    Warning {
        /// The step.
        step: &'a Step,
        /// What is missing.
        message: &'a str,
    },
    /// A step is done.
    Done {
        /// The step.
        step: &'a Step,
        /// How long it took.
        took: Duration,
    },
    /// A step failed.
    Failed {
        /// The step.
        step: &'a Step,
        /// Why.
        error: &'a StepError,
    },
    /// A step is not done since one that it waits for failed.
    Skipped {
        /// The step.
        step: &'a Step,
        /// The one that failed.
        failed: &'a Step,
    },
}

/// What happens with an image.
#[derive(Debug)]
#[non_exhaustive]
pub enum ImageEvent<'a> {
    /// It is pulled.
    Pull(&'a rdock_runtime::image::Event),
    /// It is built.
    Build(&'a rdock_build::BuildEvent),
}

/// What the program that provides a service says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderMessage<'a> {
    /// How far it is.
    Info(&'a str),
    /// For its developers.
    Debug(&'a str),
}

type Listener = dyn Fn(ApplyEvent<'_>) + Send + Sync;

/// Where events go.
#[derive(Clone, Default)]
pub(super) struct Receiver(Option<Arc<Listener>>);

impl Receiver {
    pub(super) fn new(receiver: impl Fn(ApplyEvent<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(receiver)))
    }

    pub(super) fn send(&self, event: ApplyEvent<'_>) {
        if let Some(receiver) = &self.0 {
            receiver(event);
        }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Receiver(..)"
        } else {
            "Receiver(none)"
        })
    }
}
