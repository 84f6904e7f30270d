//! A Dockerfile, or a graph made in Rust, becomes an image.
//!
//! [`dockerfile`] is the language.
#![forbid(unsafe_code)]

pub mod dockerfile;
