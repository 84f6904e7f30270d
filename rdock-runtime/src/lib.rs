//! A snapshot becomes a process: containers inside your own program.

mod api;
mod launch;
mod reactor;
mod spec;
mod step;

pub use rdock_image as image;
pub use api::*;
pub use spec::*;
pub use step::Step;
