//! A compose file becomes a project of containers.
//!
//! # The way of a project
//!
//! Files → [`Project::load`] (read, fill in, extend, include, merge, check, normalise) → [`Project`], the canonical
//! model → a plan against what exists → its application.
//!
//! Everything up to the plan is pure but for reading files: nothing is read from the process that [`LoadOptions`] does
//! not say.
#![forbid(unsafe_code)]

mod apply;
mod config;
mod containers;
mod convert;
mod digests;
mod dotenv;
mod error;
mod foreground;
mod forms;
mod hash;
mod interpolate;
mod load;
mod model;
mod names;
mod output;
pub mod plan;
mod policy;
mod printed;
mod schema;
mod source;
mod warn;
mod watch;
mod yaml;

pub use apply::{
    ApplyError, ApplyEvent, ComposeProject, ImageEvent, ProviderMessage, StepError, StepFailure,
};
pub use config::{Format, pinned, variables_in};
pub use containers::{Member, Members, ProjectSummary};
pub use digests::DigestError;
pub use dotenv::{DotenvError, parse_dotenv, parse_raw};
pub use error::{Error, Finding, FindingKind, Place, Result, SelectError, Warning, WarningKind};
pub use foreground::{Abort, ForegroundEnd, ForegroundEvent, ForegroundOptions};
pub use forms::split_words;
pub use hash::{Change, changes, network_hash, service_config, service_hash, volume_hash};
pub use interpolate::{TemplateError, Variable, interpolate};
pub use load::{Document, LoadOptions};
pub use model::*;
pub use names::{
    container_labels, container_name, label, network_labels, one_off_name, temporary_name, volume_labels,
};
pub use output::{Output, OutputEvent, OutputOptions, Speaker};
pub use plan::Plan;
pub use policy::{Policy, PortPolicy};
pub use warn::reason_for;
pub use watch::{WatchError, WatchEvent, WatchOptions};
