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

mod config;
mod dotenv;
mod error;
mod forms;
mod interpolate;
mod load;
mod model;
mod schema;
mod source;
mod warn;
mod yaml;

pub use config::{Format, pinned, variables_in};
pub use dotenv::{DotenvError, parse_dotenv, parse_raw};
pub use error::{Error, Finding, FindingKind, Place, Result, Warning, WarningKind};
pub use interpolate::{TemplateError, Variable, interpolate};
pub use load::{Document, LoadOptions};
pub use model::*;
pub use warn::reason_for;
