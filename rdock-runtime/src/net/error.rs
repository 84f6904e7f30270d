//! What can go wrong with a network or a published port.

use crate::spec::Protocol;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Why a network or a published port could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Another program has the host's port.
    #[error("port {address}/{} of the host is already in use", protocol_name(*protocol))]
    PortInUse {
        /// The host's address and port.
        address: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
        /// EADDRINUSE.
        source: std::io::Error,
    },
    /// No port of the range is free.
    #[error("no {} port from {first} to {last} of the host is free", protocol_name(*protocol))]
    RangeInUse {
        /// First port tried.
        first: u16,
        /// Last port tried.
        last: u16,
        /// TCP or UDP.
        protocol: Protocol,
    },
    /// The port could not be bound for another reason: no right to a low port, no such address.
    #[error("cannot bind {address}/{} on the host", protocol_name(*protocol))]
    Bind {
        /// The host's address and port.
        address: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// No network of this root has the name or id.
    #[error("no such network: {network}")]
    NoSuchNetwork {
        /// As asked for.
        network: String,
    },
    /// A network of this root has the name.
    #[error("network {network} exists already")]
    Exists {
        /// Its name.
        network: String,
    },
    /// What was asked for cannot be a network.
    #[error("network {network}: {field}: {reason}")]
    InvalidNetwork {
        /// The network's name.
        network: String,
        /// The field of [`super::NetworkSpec`].
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The networks that are always there are neither created nor removed.
    #[error("network {network} is always there and cannot be {doing}")]
    Predefined {
        /// The network's name.
        network: String,
        /// created, removed...
        doing: &'static str,
    },
    /// Running containers are in the network.
    #[error("network {network} is in use by {}: stop or disconnect them first", containers.join(", "))]
    InUse {
        /// The network's name.
        network: String,
        /// The containers' names.
        containers: Vec<String>,
    },
    /// The subnet overlaps that of another network of this root.
    #[error("network {network}: {subnet} overlaps {other}, the subnet of network {with}")]
    Overlap {
        /// The network's name.
        network: String,
        /// What was asked for.
        subnet: String,
        /// What it overlaps.
        other: String,
        /// Whose that is.
        with: String,
    },
    /// The container cannot have the address.
    #[error("network {network}: {address} cannot be a container's address: {reason}")]
    Address {
        /// The network's name.
        network: String,
        /// As asked for.
        address: IpAddr,
        /// Why not.
        reason: String,
    },
    /// Another container has the address.
    #[error("network {network}: {address} is the address of container {container}")]
    AddressInUse {
        /// The network's name.
        network: String,
        /// As asked for.
        address: IpAddr,
        /// Its name.
        container: String,
    },
    /// The container is in the network already.
    #[error("container {container} is connected to network {network} already")]
    Connected {
        /// Its name.
        container: String,
        /// The network's name.
        network: String,
    },
    /// The container has an interface of that name.
    #[error("network {network}: the container has another interface named {interface}")]
    InterfaceTaken {
        /// The network's name.
        network: String,
        /// The interface's name.
        interface: String,
    },
    /// The container is not in the network.
    #[error("container {container} is not connected to network {network}")]
    NotConnected {
        /// Its name.
        container: String,
        /// The network's name.
        network: String,
    },
    /// A container that has the network of the host, of another container, or none, joins no other.
    #[error("network {network}: container {container} has no networks of its own")]
    Mode {
        /// Its name.
        container: String,
        /// The network's name.
        network: String,
    },
    /// Without root a container has one network, of its own.
    #[error("network {network}: without root {what}")]
    Rootless {
        /// The network's name.
        network: String,
        /// What is not possible.
        what: &'static str,
    },
    /// Every candidate subnet overlaps a route or an address of the host.
    #[error("network {network}: every private subnet overlaps a route of the host")]
    NoFreeSubnet {
        /// The network's name.
        network: String,
    },
    /// All addresses of the subnet are taken.
    #[error("network {network}: no free address in {subnet}")]
    NoFreeAddress {
        /// The network's name.
        network: String,
        /// Its subnet.
        subnet: String,
    },
    /// Another process has held the network's lock for too long.
    #[error("network {network}: {} is locked by another process", path.display())]
    Locked {
        /// The network's name.
        network: String,
        /// The lock file.
        path: PathBuf,
    },
    /// The state was written by a newer version.
    #[error("{} has format {found}, this version knows {known}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// The newest format this version reads.
        known: u32,
    },
    /// State of a network could not be read or written.
    #[error("network {network}: cannot {doing} {}", path.display())]
    State {
        /// The network's name.
        network: String,
        /// read, write, lock...
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The kernel refused a step of the set-up.
    #[error("network {network}: {doing}")]
    Kernel {
        /// The network's name.
        network: String,
        /// What was asked for.
        doing: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A port cannot be forwarded to the container's address.
    #[error("cannot serve published ports of {container}")]
    Serve {
        /// The container's address.
        container: IpAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

impl NetError {
    /// What to change on the host.
    pub fn hint(&self) -> Option<String> {
        use std::io::ErrorKind;
        match self {
            Self::PortInUse { address, .. } => Some(format!(
                "stop the program that listens there (`ss -ltnup 'sport = :{}'` shows it) or publish another port",
                address.port()
            )),
            Self::Bind { address, source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Some(format!(
                    "as a plain user, ports below 1024 need `sysctl net.ipv4.ip_unprivileged_port_start={}`",
                    address.port()
                ))
            }
            Self::Bind { address, source, .. } if source.kind() == ErrorKind::AddrNotAvailable => Some(
                format!("no interface of this host has the address {}", address.ip()),
            ),
            Self::NoFreeAddress { .. } => Some("remove containers that are not needed".into()),
            Self::Kernel { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Some("the process needs CAP_NET_ADMIN and CAP_SYS_ADMIN in its user namespace".into())
            }
            Self::Kernel { source, .. } if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Some("the kernel needs the modules bridge and veth".into())
            }
            _ => None,
        }
    }
}
