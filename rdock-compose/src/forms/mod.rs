//! Short forms of values, one grammar a file.

mod duration;
mod hosts;
mod port;
mod public;
mod size;
mod volume;
mod words;

pub(crate) use duration::{format_duration, parse_duration};
pub(crate) use hosts::parse_host;
pub(crate) use port::{PortForm, parse_port};
pub(crate) use size::parse_size;
pub(crate) use volume::{parse_volume, split_volume};
pub use words::split_words;
