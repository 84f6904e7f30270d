//! A compose file becomes a project of containers.
//!
//! This crate will hold `ComposeProject`: its own loader on a span-carrying YAML tree, a pure
//! `plan(wanted, existing)`, and its parallel application. It has no public items yet.
#![forbid(unsafe_code)]
