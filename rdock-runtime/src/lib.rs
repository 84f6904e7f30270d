//! A snapshot becomes a process: containers inside your own program.

mod launch;
mod reactor;
mod step;

pub use rdock_image as image;
pub use step::Step;
