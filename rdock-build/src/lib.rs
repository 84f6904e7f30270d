//! A Dockerfile, or a graph made in Rust, becomes an image.
//!
//! This crate will hold `Builder`: its own Dockerfile parser, a graph of content-keyed steps, and
//! `RUN` as a scoped container of `rdock-runtime`. It has no public items yet.
#![forbid(unsafe_code)]
