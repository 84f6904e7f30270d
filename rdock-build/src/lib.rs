//! A Dockerfile, or a graph made in Rust, becomes an image.
//!
//! [`dockerfile`] is the language, [`ignore`] says which files of the context a build sees, [`graph`](Graph) is what is
//! built: steps that make layers. [`Builder`] does it, inside the caller's process: RUN is a container of
//! `rdock-runtime` whose upper directory becomes the layer, COPY reads files where they are, and every step's result
//! is kept in a cache that all processes share. [`Builder::from_graph`] shows how a program makes a graph itself.
#![forbid(unsafe_code)]

#[cfg(doc)]
#[doc = include_str!("../CACHE.md")]
pub mod cache_format {}

mod builder;
mod cache;
mod chmod;
mod context;
pub mod dockerfile;
mod error;
mod event;
mod exec;
mod files;
mod front;
mod graph;
pub mod ignore;
mod named_context;
mod output;

pub use builder::{BuildOutput, Builder, PullPolicy};
pub use cache::{CacheEntry, CacheFilter, CacheMode, CacheSource, CacheTarget, CacheUsage};
pub use chmod::Chmod;
pub use context::Context;
pub use error::{BuildError, Result};
pub use event::{BuildEvent, BuildProgress, BuildWarning, Hit, OutputStream, StepInfo};
pub use exec::{Miss, Secret, StepOutcome, StepReport};
pub use graph::{
    CopySource, CopyStep, Graph, Input, Operation, RunMount, RunMountSource, RunStep, Step, StepId, Unpack,
};
pub use named_context::NamedContext;
pub use output::Output;
pub use rdock_runtime as runtime;
