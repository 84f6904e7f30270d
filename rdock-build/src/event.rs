//! What a build tells while it runs. This crate never prints.

use crate::dockerfile::{Place, Rule};
use rdock_image::{Digest, Progress, Reference};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Where the events of a build go.
pub type BuildProgress = Progress<BuildEvent>;

/// What is not as the author of a Dockerfile may think.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildWarning {
    /// Where, when it is about one place.
    pub place: Option<Place>,
    /// What; begins with the name of the check, when it comes from one.
    pub text: String,
    /// The check that it comes from.
    pub rule: Option<Rule>,
}

impl fmt::Display for BuildWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// A step, as events name it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepInfo {
    /// Its number in the graph.
    pub id: usize,
    /// For people: `[build 2/5] RUN make`.
    pub name: String,
    /// Where the instruction is; none for a graph made in Rust.
    pub place: Option<Place>,
}

/// Which of a command's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a step's result was found in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hit {
    /// The same instruction on the same layers, with the same inputs by name.
    Definition,
    /// The inputs are other ones by name, and have the same content.
    Content,
}

/// One thing that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BuildEvent {
    /// The graph is known.
    Planned {
        /// The steps that lead to the target, in order.
        steps: Vec<StepInfo>,
    },
    /// Something is not as the file's author may think; the build goes on.
    Warning {
        /// Where, if it is about a place.
        place: Option<Place>,
        /// What.
        text: String,
    },
    /// Something happened to a base image that is looked up or fetched.
    Pull(rdock_image::Event),
    /// A step runs.
    StepStarted {
        /// Its number.
        id: usize,
    },
    /// A step was done before.
    StepCached {
        /// Its number.
        id: usize,
        /// How it was found.
        by: Hit,
    },
    /// A command wrote.
    StepOutput {
        /// Its step's number.
        id: usize,
        /// Where to.
        stream: OutputStream,
        /// What, as it came: not always whole lines.
        bytes: Vec<u8>,
    },
    /// A step is done.
    StepFinished {
        /// Its number.
        id: usize,
        /// How long it took.
        took: Duration,
    },
    /// A step failed; the build's error says why.
    StepFailed {
        /// Its number.
        id: usize,
    },
    /// A cache of other machines is looked up.
    CacheImporting {
        /// Where.
        from: String,
    },
    /// Its steps are known; layers come when something needs them.
    CacheImported {
        /// Where from.
        from: String,
        /// How many steps it has.
        steps: usize,
    },
    /// A cache for other machines is written.
    CacheExporting {
        /// Where to.
        to: String,
    },
    /// It is there.
    CacheExported {
        /// Where.
        to: String,
        /// Of its manifest.
        digest: Digest,
    },
    /// The image is written.
    Exporting,
    /// The image is there.
    Done {
        /// The image's id.
        image: Digest,
        /// Its names.
        names: Vec<Reference>,
    },
}
