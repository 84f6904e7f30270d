//! A Dockerfile, or a graph made in Rust, becomes an image.
//!
//! [`dockerfile`] is the language, [`ignore`] says which files of the context a build sees.
#![forbid(unsafe_code)]

mod chmod;
pub mod dockerfile;
pub mod ignore;

pub use chmod::Chmod;
