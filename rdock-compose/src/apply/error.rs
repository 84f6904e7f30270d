//! Why a project does not become what it should be.

use crate::plan::{PlanError, Step};
use std::fmt;

/// Why a plan could not be made or carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// What exists could not be looked at.
    #[error(transparent)]
    Runtime(#[from] rdock_runtime::Error),
    /// Steps that failed, in the order of the plan.
    #[error("{project}: {}", Failures(failures))]
    Steps {
        /// The project.
        project: String,
        /// What failed; at least one.
        failures: Vec<StepFailure>,
    },
    /// The caller's runtime ended.
    #[error("cancelled")]
    Cancelled,
}

/// A step that failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepFailure {
    /// The step.
    pub step: Step,
    /// Why.
    pub error: StepError,
    /// What was not done for it: numbers of steps of the plan.
    pub skipped: Vec<usize>,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The runtime says why.
    #[error(transparent)]
    Runtime(#[from] rdock_runtime::Error),
    /// An attribute has a value that no container can have.
    #[error("services.{service}: {message}")]
    Service {
        /// The service.
        service: String,
        /// What is wrong.
        message: String,
    },
    /// A part of the project has a value that the runtime cannot take.
    #[error("{message}")]
    Project {
        /// What is wrong, with its YAML path.
        message: String,
    },
    /// The caller's runtime ended.
    #[error("cancelled")]
    Cancelled,
    /// An image could not be built.
    #[error("building the image of {service}")]
    Build {
        /// The service.
        service: String,
        /// Why.
        source: Box<rdock_build::BuildError>,
    },
    /// A container ended that was waited for.
    #[error("the container {container} ended with {exit}{}", Log(log))]
    Ended {
        /// Its name.
        container: String,
        /// How.
        exit: rdock_runtime::Exit,
        /// Its last lines.
        log: Vec<String>,
    },
    /// A container that was waited for is unhealthy.
    #[error("the container {container} is unhealthy{}{}", Check(check), Log(log))]
    Unhealthy {
        /// Its name.
        container: String,
        /// What its last check said.
        check: String,
        /// Its last lines.
        log: Vec<String>,
    },
    /// A container has no health check and can never be healthy.
    #[error("the container {container} has no health check that could be waited for")]
    NoHealthCheck {
        /// Its name.
        container: String,
    },
    /// The program that provides a service failed, or is not there.
    #[error("services.{service}: the provider {provider:?}: {message}")]
    Provider {
        /// The service.
        service: String,
        /// The provider's type.
        provider: String,
        /// What is wrong.
        message: String,
    },
    /// A hook failed.
    #[error("the hook {command:?} of {container} ended with {code}{}", Check(output))]
    Hook {
        /// The container.
        container: String,
        /// What was run.
        command: Vec<String>,
        /// Its exit code.
        code: i32,
        /// The end of what it wrote.
        output: String,
    },
}

impl StepError {
    /// What to change on the host, when that is what it takes.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Runtime(error) => error.hint(),
            Self::Build { source, .. } => source.hint(),
            _ => None,
        }
    }
}

impl ApplyError {
    /// What to change on the host, when that is what it takes.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Runtime(error) => error.hint(),
            Self::Steps { failures, .. } => failures.iter().find_map(|failure| failure.error.hint()),
            Self::Plan(_) | Self::Cancelled => None,
        }
    }
}

struct Failures<'a>(&'a [StepFailure]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, failure) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: {}", failure.step.operation, Causes(&failure.error))?;
            match failure.skipped.len() {
                0 => {}
                1 => f.write_str(" (one step that waits for it was not done)")?,
                count => write!(f, " ({count} steps that wait for it were not done)")?,
            }
        }
        Ok(())
    }
}

/// An error with what caused it: the runtime's errors keep that apart.
pub(super) struct Causes<'a>(pub(super) &'a StepError);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

struct Log<'a>(&'a [String]);

impl fmt::Display for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() {
            f.write_str("; its last lines:")?;
        }
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

struct Check<'a>(&'a str);

impl fmt::Display for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.trim_end() {
            "" => Ok(()),
            text => write!(f, ": {text}"),
        }
    }
}
