//! Published ports: the host's ports, forwarded to the container.

mod bind;

pub(crate) use bind::{BoundPort, PortRequest, bind};
