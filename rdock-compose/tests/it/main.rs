//! Tests of this crate, and of the rules that hold for the whole workspace.
#![allow(clippy::unwrap_used)] // A test that panics has failed.

mod apply;
mod dependencies;
mod golden;
mod hostile;
mod load;
mod pipes;
mod plan;
mod policy;
mod provider;
mod sources;
