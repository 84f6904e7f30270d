//! A snapshot becomes a process: containers inside your own program.

mod api;
#[allow(dead_code)]
mod identity;
mod launch;
#[allow(dead_code, unused_imports)]
mod plan;
mod reactor;
#[allow(dead_code)]
mod signal;
mod spec;
mod step;
#[allow(dead_code)]
mod volume;

pub use rdock_image as image;
pub use api::*;
pub use plan::{Finding, PlanError};
pub use spec::*;
pub use step::Step;
pub use volume::{VolumeError, VolumeInfo, Volumes};
