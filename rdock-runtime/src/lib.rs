//! A snapshot becomes a process: containers inside your own program.

mod api;
#[allow(dead_code)]
mod capabilities;
#[allow(dead_code)]
mod identity;
mod launch;
#[allow(dead_code, unused_imports)]
mod net;
#[allow(dead_code, unused_imports)]
mod plan;
mod reactor;
#[allow(dead_code)]
mod ready;
#[allow(dead_code)]
mod signal;
mod spec;
mod step;
#[allow(dead_code)]
mod volume;
mod warning;

pub use api::*;
pub use net::{NetError, NetworkInfo};
pub use plan::{Finding, PlanError};
pub use rdock_image as image;
pub use spec::*;
pub use step::Step;
pub use volume::{VolumeError, VolumeInfo, Volumes};
pub use warning::{NoEgress, Warning};
