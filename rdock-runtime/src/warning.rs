//! What a container has to do without on this machine.

use std::fmt;
use std::path::PathBuf;

/// Something that was asked for and is missing; the container runs without it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Containers of the network cannot reach the outside. Published ports work.
    NoEgress {
        /// The network's name.
        network: String,
        /// What is in the way.
        reason: NoEgress,
    },
    /// A container of the network can speak for another one: the kernel has no rules for bridges.
    NetworkUnguarded {
        /// The network's name.
        network: String,
        /// What the kernel said.
        reason: String,
    },
    /// Without root each container has a network of its own, also of a network that has a name.
    NetworkNotShared {
        /// The network's name.
        network: String,
    },
    /// The host's resolvers cannot be reached from a container; public ones are used.
    PublicResolvers {
        /// What `/etc/resolv.conf` names now.
        servers: Vec<String>,
    },
    /// A capability that was added by name cannot be given.
    MissingCapability {
        /// With its prefix, `CAP_SYS_RESOURCE`.
        name: String,
    },
    /// Supplementary groups of the spec need root or subordinate ids.
    NoSupplementaryGroups,
    /// Ports are published on the default network only.
    PortsNotPublished {
        /// The network the container has instead.
        network: String,
    },
    /// Published ports are served by the event loop, although the kernel's address translation was asked for.
    PortsNotTranslated {
        /// What is in the way.
        reason: String,
    },
    /// A limit is not enforced.
    LimitNotEnforced {
        /// The field of [`crate::Resources`], or the controller.
        limit: String,
        /// What is missing.
        reason: String,
    },
    /// The kernel does not restrict which devices the container may use; it cannot make nodes of them instead.
    DevicesNotRestricted {
        /// What is missing.
        reason: String,
    },
    /// What the spec says of the use of devices is not enforced: without root the permissions of their nodes decide.
    DeviceAccessNotEnforced,
    /// A CDI specification asks for something that is not done here.
    CdiEditIgnored {
        /// The device.
        device: String,
        /// The field of its edits.
        edit: String,
    },
    /// Options for the driver of a GPU, which are not known here.
    GpuOptionsIgnored {
        /// Their names.
        names: Vec<String>,
    },
    /// Something of a GPU's driver is not on the host, or cannot be brought into the container.
    GpuPartMissing {
        /// What.
        what: String,
    },
    /// The control group that was asked for cannot be used.
    NoCgroupParent {
        /// As asked for.
        path: String,
        /// What is in the way.
        reason: String,
    },
    /// A volume of the image would replace a file system of the kernel.
    ImageVolume {
        /// Where the image wants it.
        path: String,
    },
}

/// Why there is no way out of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoEgress {
    /// A plain user cannot make an interface on the host.
    Rootless,
    /// A chain of the host's firewall drops what it does not know.
    Firewall {
        /// `family table chain`.
        chain: String,
    },
    /// The host does not forward, and its setting cannot be changed.
    Forwarding {
        /// The setting.
        path: PathBuf,
        /// What the kernel said.
        reason: String,
    },
    /// The kernel lacks a part of nftables.
    Kernel {
        /// What the kernel said.
        reason: String,
    },
    /// Every candidate address of the host's end overlaps a route.
    NoFreeAddress,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEgress { network, reason } => {
                write!(
                    f,
                    "containers of network {network} cannot reach the outside: {reason}"
                )
            }
            Self::NetworkUnguarded { network, reason } => write!(
                f,
                "a container of network {network} can take another's address: the kernel has no rules for \
                 bridges ({reason})"
            ),
            Self::NetworkNotShared { network } => write!(
                f,
                "containers of network {network} do not reach each other: without root each has a network of \
                 its own"
            ),
            Self::PublicResolvers { servers } => write!(
                f,
                "the host's name servers are on its loopback interface only: using {} instead",
                servers.join(", ")
            ),
            Self::MissingCapability { name } => {
                write!(f, "{name} cannot be given: this program does not have it")
            }
            Self::NoSupplementaryGroups => {
                write!(
                    f,
                    "supplementary groups cannot be set without root and subordinate ids"
                )
            }
            Self::PortsNotPublished { network } => {
                write!(
                    f,
                    "published ports are discarded: the container has the network {network}"
                )
            }
            Self::PortsNotTranslated { reason } => {
                write!(
                    f,
                    "published ports do not keep their clients' addresses: {reason}"
                )
            }
            Self::LimitNotEnforced { limit, reason } => {
                write!(f, "{limit} is not enforced: {reason}")
            }
            Self::DevicesNotRestricted { reason } => write!(
                f,
                "the use of devices is not restricted by control groups ({reason}): instead the container cannot \
                 make nodes of them"
            ),
            Self::DeviceAccessNotEnforced => write!(
                f,
                "accesses and rules of devices are not enforced without root: the permissions of their nodes decide"
            ),
            Self::CdiEditIgnored { device, edit } => {
                write!(
                    f,
                    "the CDI device {device} asks for {edit}, which is not done here"
                )
            }
            Self::GpuOptionsIgnored { names } => {
                write!(
                    f,
                    "options of a GPU's driver are not known here: {}",
                    names.join(", ")
                )
            }
            Self::GpuPartMissing { what } => write!(f, "the GPU's driver on this host has no {what}"),
            Self::NoCgroupParent { path, reason } => {
                write!(f, "the control group {path} is not used: {reason}")
            }
            Self::ImageVolume { path } => {
                write!(
                    f,
                    "the image's volume {path} is not made: the kernel's file system stays there"
                )
            }
        }
    }
}

impl fmt::Display for NoEgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rootless => write!(f, "this program does not run as root"),
            Self::Firewall { chain } => {
                write!(
                    f,
                    "chain {chain} of the host's firewall drops what it does not know"
                )
            }
            Self::Forwarding { path, reason } => write!(f, "cannot write {}: {reason}", path.display()),
            Self::Kernel { reason } => write!(f, "the kernel refuses address translation: {reason}"),
            Self::NoFreeAddress => write!(f, "every private address overlaps a route of the host"),
        }
    }
}
