//! What can go wrong in a build.
use crate::dockerfile::{ParseError, Place};
use rdock_image::BoxError;
use rdock_runtime::ExitReason;
use std::path::PathBuf;

/// What every fallible function of this crate returns.
pub type Result<T, E = BuildError> = std::result::Result<T, E>;

/// Why a build failed. Steps that were finished stay in the cache, and nothing half-made is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The Dockerfile is wrong, or asks for something that this version does not do.
    #[error(transparent)]
    Dockerfile(#[from] ParseError),
    /// There is no such stage to build.
    #[error("there is no stage {name:?} to build; there are: {}", stages.join(", "))]
    NoSuchTarget {
        /// What was asked for.
        name: String,
        /// Names of the stages that have one.
        stages: Vec<String>,
    },
    /// An option of the builder that cannot be.
    #[error("{option} {reason}")]
    Option {
        /// The option.
        option: &'static str,
        /// The rule it breaks.
        reason: String,
    },
    /// The context, or a file of it, cannot be read.
    #[error("cannot {action} {}", path.display())]
    Files {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The Dockerfile is not there.
    #[error("there is no {} in the build context", path.display())]
    NoDockerfile {
        /// Its path in the context, or on the host.
        path: PathBuf,
    },
    /// The base image of a stage cannot be had.
    #[error("{place}: cannot get image {reference}")]
    BaseImage {
        /// FROM, or the `--from` that names it.
        place: Box<Place>,
        /// The image.
        reference: String,
        /// Why not.
        source: BoxError,
    },
    /// A graph made in Rust cannot be built as it is.
    #[error("step {step:?} of the graph {reason}")]
    Graph {
        /// The step's name.
        step: String,
        /// The rule it breaks.
        reason: String,
    },
    /// A command of RUN failed.
    #[error("{place}: `{command}` {}{}", describe(exit), tail(output))]
    Run {
        /// The instruction; for a graph made in Rust the step's name, in place of the file's.
        place: Box<Place>,
        /// The command as history shows it.
        command: String,
        /// How it ended.
        exit: ExitReason,
        /// The last lines of its output, both streams as they came.
        output: Vec<String>,
    },
    /// Another step failed.
    #[error("{place}{}: {reason}{}", named(place, step), hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Step {
        /// The instruction; for a graph made in Rust the step's name, in place of the file's.
        place: Box<Place>,
        /// Its text, or the step's name.
        step: String,
        /// What is wrong.
        reason: String,
        /// What may help.
        hint: Option<String>,
        /// The error below, where there is one.
        source: Option<BoxError>,
    },
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
    /// The image store failed.
    #[error(transparent)]
    Image(#[from] rdock_image::Error),
    /// A container could not be run.
    #[error(transparent)]
    Runtime(#[from] rdock_runtime::Error),
    /// The result cannot be written.
    #[error("cannot write {what}")]
    Output {
        /// What was written.
        what: String,
        /// Why not.
        source: BoxError,
    },
}

impl BuildError {
    /// Returns the place in the Dockerfile, where the error has one.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Dockerfile(error) => Some(&error.place),
            // A step of a graph made in Rust is in no line.
            Self::BaseImage { place, .. } | Self::Run { place, .. } | Self::Step { place, .. } => {
                Some(place.as_ref()).filter(|place| place.line > 0)
            }
            _ => None,
        }
    }

    /// Returns the exit code of the command that failed; 137 and the like for one that a signal ended.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Run { exit, .. } => Some(code(exit)),
            _ => None,
        }
    }

    /// Returns what to change on the host, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Step { hint, .. } => hint.clone(),
            Self::Runtime(error) => error.hint(),
            Self::Image(error) => error.hint(),
            Self::BaseImage { source, .. } => source
                .downcast_ref::<rdock_runtime::Error>()
                .and_then(rdock_runtime::Error::hint)
                .or_else(|| source.downcast_ref::<rdock_image::Error>()?.hint()),
            _ => None,
        }
    }

    pub(crate) fn files(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Files { action, path, source }
    }
}

pub(crate) fn code(exit: &ExitReason) -> i32 {
    match exit {
        ExitReason::Exited(code) => *code,
        ExitReason::Signaled(signal) => 128 + signal,
        _ => 137,
    }
}

fn describe(exit: &ExitReason) -> String {
    match exit {
        ExitReason::Exited(code) => format!("ended with exit code {code}"),
        ExitReason::Signaled(signal) => format!("was ended by signal {signal}"),
        ExitReason::OomKilled => "was killed: it used more memory than it may".to_owned(),
        _ => "ended without an exit code".to_owned(),
    }
}

/// The step's name where its place does not say it.
fn named(place: &Place, step: &str) -> String {
    match place.line {
        0 => String::new(),
        _ => format!(": {step}"),
    }
}

fn tail(output: &[String]) -> String {
    output.iter().map(|line| format!("\n  | {line}")).collect()
}
