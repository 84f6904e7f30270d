//! The rtnetlink messages that make a network and join a container to it.
//!
//! All of them are composed here and executed elsewhere: most by the helper, inside the namespaces.
//! Interfaces have index numbers of our choice, so that a message can name one that does not exist yet.

use super::netlink::{HEADER, Netlink};
use super::subnet::Subnet;
use crate::launch::AttachMessage;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `lo` is always the first.
const LOOPBACK: u32 = 1;
/// The bridge, in the network's namespace. Far above what the kernel gives to tunnel devices that it may put into
/// a new namespace (`net.core.fb_tunnels_only_for_init_net`).
const BRIDGE: u32 = 64;
/// The network's end of the uplink.
const UPLINK: u32 = 65;
/// A container's first interface, in its own namespace; the others follow.
const CONTAINER: u32 = 64;

/// Names as they appear inside.
const BRIDGE_NAME: &str = "bridge";
pub(super) const UPLINK_NAME: &str = "uplink";
const CONTAINER_NAME: &str = "eth";

/// Stands for a descriptor until the real one is known; see [`position_of`].
const PLACEHOLDER: i32 = 0x6b6f_6472;

/// A hardware address of the locally administered kind, made from the IPv4 address: unique where that is.
pub(super) fn hardware_address(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x42, a, b, c, d]
}

/// The name of a container's interface that nobody named.
pub(super) fn interface_name(number: u32) -> String {
    format!("{CONTAINER_NAME}{number}")
}

/// The number in an interface's name.
pub(super) fn interface_number(name: &str) -> Option<u32> {
    name.strip_prefix(CONTAINER_NAME)?.parse().ok()
}

/// A container's interface in one network.
#[derive(Debug, Clone)]
pub(super) struct Interface {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
    /// Address and prefix length.
    pub(super) ip: (Ipv4Addr, u8),
    /// The default route, where it leads into this network.
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) ip6: Option<(Ipv6Addr, u8)>,
    pub(super) gateway6: Option<Ipv6Addr>,
    pub(super) link_local: Vec<IpAddr>,
    /// Only the gateway is reached, no other container.
    pub(super) isolated: bool,
}

/// In a network's namespace just made: `lo`, the bridge, the gateway's addresses.
pub(super) fn setup(
    subnet: Subnet,
    gateway: Ipv4Addr,
    gateway6: Option<(Ipv6Addr, u8)>,
    mtu: u32,
) -> Vec<Vec<u8>> {
    let mut bridge = link(BRIDGE);
    up(&mut bridge);
    bridge.attributes = vec![
        LinkAttribute::IfName(BRIDGE_NAME.into()),
        LinkAttribute::Address(hardware_address(gateway).to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    let mut messages = vec![
        link_up(LOOPBACK),
        encode(RouteNetlinkMessage::NewLink(bridge), NEW),
        address(BRIDGE, gateway, subnet.prefix),
    ];
    messages.extend(gateway6.map(|(gateway, prefix)| address(BRIDGE, gateway, prefix)));
    messages
}

/// In the network's namespace: a veth pair, one end a port of the bridge, the other the container's `eth0`.
///
/// `unique` is the port's name and index; the kernel may still be taking an ended container's port away.
pub(super) fn attach(unique: u32, interface: &Interface) -> AttachMessage {
    // The index of the other end is only honoured when this one is given too.
    let mut port = link(port_index(unique));
    up(&mut port);
    let mut peer = link(CONTAINER + interface.number);
    peer.attributes = vec![
        LinkAttribute::IfName(interface.name.clone()),
        LinkAttribute::Address(interface.mac.to_vec()),
        LinkAttribute::Mtu(interface.mtu),
        LinkAttribute::NetNsFd(PLACEHOLDER),
    ];
    port.attributes = vec![
        LinkAttribute::IfName(format!("veth{unique:08x}")),
        LinkAttribute::Mtu(interface.mtu),
        LinkAttribute::Controller(BRIDGE),
        LinkAttribute::LinkInfo(veth(peer)),
    ];
    let mut bytes = encode(RouteNetlinkMessage::NewLink(port), NEW);
    bytes.extend(guarded_port(unique, interface));
    AttachMessage {
        payload_namespace_at: position_of(&bytes, PLACEHOLDER),
        protocol: 0,
        bytes,
    }
}

/// Only frames with the interface's own address come in by its port; kernels before 5.16 pass the lock over.
fn guarded_port(unique: u32, interface: &Interface) -> Vec<u8> {
    let mut port = link(port_index(unique));
    port.attributes = vec![LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![
            InfoBridgePort::Learning(false),
            InfoBridgePort::Isolated(interface.isolated),
            InfoBridgePort::Locked(true),
        ])),
    ])];
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Bridge;
    entry.header.ifindex = port_index(unique);
    entry.header.state = NeighbourState::Noarp;
    entry.header.flags = NeighbourFlags::Controller;
    entry.attributes = vec![NeighbourAttribute::LinkLayerAddress(interface.mac.to_vec())];
    let mut bytes = encode(RouteNetlinkMessage::NewLink(port), NLM_F_ACK);
    bytes.extend(encode(
        RouteNetlinkMessage::NewNeighbour(entry),
        NLM_F_ACK | NLM_F_CREATE,
    ));
    bytes
}

fn port_index(unique: u32) -> u32 {
    0x4000_0000 | (unique & 0x3fff_ffff)
}

/// In the container's namespace: `lo` and its interface up, the addresses, the default routes.
pub(super) fn configure(interface: &Interface) -> Vec<Vec<u8>> {
    let index = CONTAINER + interface.number;
    let mut messages = vec![
        link_up(LOOPBACK),
        link_up(index),
        address(index, interface.ip.0, interface.ip.1),
    ];
    messages.extend(interface.ip6.map(|(ip, prefix)| address(index, ip, prefix)));
    for ip in &interface.link_local {
        // One of IPv6 without IPv6 cannot be had.
        let prefix = match ip {
            IpAddr::V4(_) => 16,
            IpAddr::V6(_) if interface.ip6.is_none() => continue,
            IpAddr::V6(_) => 64,
        };
        messages.push(address(index, *ip, prefix));
    }
    messages.extend(default_routes(interface));
    messages
}

/// In the container's namespace: the default routes into the network.
pub(super) fn default_routes(interface: &Interface) -> Vec<Vec<u8>> {
    let index = CONTAINER + interface.number;
    let ipv4 = interface.gateway.map(|gateway| default_route(gateway, index));
    let ipv6 = interface.gateway6.map(|gateway| default_route(gateway, index));
    ipv4.into_iter().chain(ipv6).collect()
}

/// In the container's namespace: its interface goes, and the other end with it.
pub(super) fn delete(number: u32) -> Vec<u8> {
    encode(RouteNetlinkMessage::DelLink(link(CONTAINER + number)), NLM_F_ACK)
}

/// On the host: the uplink, whose other end goes into the network's namespace.
pub(super) fn uplink(name: &str, index: u32, mtu: u32, namespace: i32) -> Vec<u8> {
    let mut host = link(index);
    up(&mut host);
    let mut peer = link(UPLINK);
    peer.attributes = vec![
        LinkAttribute::IfName(UPLINK_NAME.into()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::NetNsFd(namespace),
    ];
    host.attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(veth(peer)),
    ];
    encode(RouteNetlinkMessage::NewLink(host), NEW)
}

/// On the host: its address on the uplink.
pub(super) fn uplink_address(index: u32, host: Ipv4Addr, prefix: u8) -> Vec<u8> {
    address(index, host, prefix)
}

/// In the network's namespace: its side of the uplink, and the way out.
pub(super) fn uplink_inside(inside: Ipv4Addr, host: Ipv4Addr, prefix: u8) -> Vec<Vec<u8>> {
    vec![
        link_up(UPLINK),
        address(UPLINK, inside, prefix),
        default_route(host, UPLINK),
    ]
}

/// One route or interface of the host, as far as the choice of a subnet needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// `None` for the default route.
    pub(super) destination: Option<Subnet>,
    pub(super) interface: Option<u32>,
    pub(super) metric: u32,
    main: bool,
}

/// What the host's routing looks like.
#[derive(Debug, Default)]
pub(super) struct HostRoutes {
    pub(super) routes: Vec<Route>,
    /// Every IPv4 address of an interface, with its prefix.
    pub(super) addresses: Vec<Subnet>,
    /// Index, name and MTU.
    pub(super) interfaces: Vec<(u32, String, u32)>,
}

impl HostRoutes {
    /// Asks the kernel.
    pub(super) fn read(socket: &mut Netlink) -> io::Result<Self> {
        let mut found = Self::default();
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        let mut of = AddressMessage::default();
        of.header.family = AddressFamily::Inet;
        for message in [
            RouteNetlinkMessage::GetRoute(route),
            RouteNetlinkMessage::GetAddress(of),
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
        ] {
            for received in socket.dump(&encode(message, 0))? {
                found.take(received.kind, &received.payload);
            }
        }
        Ok(found)
    }

    /// As [`Self::read`], without routes and addresses.
    pub(super) fn interfaces(socket: &mut Netlink) -> io::Result<Self> {
        let mut found = Self::default();
        let message = encode(RouteNetlinkMessage::GetLink(LinkMessage::default()), 0);
        for received in socket.dump(&message)? {
            found.take(received.kind, &received.payload);
        }
        Ok(found)
    }

    fn take(&mut self, kind: u16, payload: &[u8]) {
        use netlink_packet_core::NetlinkDeserializable;
        let mut header = NetlinkHeader::default();
        header.message_type = kind;
        // A message that this version of the parser does not know is no reason to stop.
        match RouteNetlinkMessage::deserialize(&header, payload) {
            Ok(RouteNetlinkMessage::NewRoute(route)) => self.routes.extend(Route::from_message(&route)),
            Ok(RouteNetlinkMessage::NewAddress(message)) => {
                let ip = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(IpAddr::V4(ip)) => Some(*ip),
                    _ => None,
                });
                self.addresses
                    .extend(ip.map(|ip| Subnet::around(ip, message.header.prefix_len)));
            }
            Ok(RouteNetlinkMessage::NewLink(link)) => {
                let (mut name, mut mtu) = (String::new(), 1500);
                for attribute in &link.attributes {
                    match attribute {
                        LinkAttribute::IfName(is) => name = is.clone(),
                        LinkAttribute::Mtu(is) => mtu = *is,
                        _ => {}
                    }
                }
                self.interfaces.push((link.header.index, name, mtu));
            }
            _ => {}
        }
    }

    /// Name and MTU of the interface that the preferred default route leaves by.
    pub(super) fn way_out(&self) -> Option<(&str, u32)> {
        let best = self
            .routes
            .iter()
            .filter(|route| route.destination.is_none() && route.main)
            .min_by_key(|route| route.metric)?;
        let (_, name, mtu) = self
            .interfaces
            .iter()
            .find(|(index, ..)| Some(*index) == best.interface)?;
        Some((name, *mtu))
    }

    pub(super) fn has_interface(&self, name: &str) -> bool {
        self.interfaces.iter().any(|(_, is, _)| is == name)
    }

    /// Whether some network is joined to this host.
    pub(super) fn has_uplink(&self) -> bool {
        let uplink = |(_, name, _): &(u32, String, u32)| name.starts_with(super::host::PREFIX);
        self.interfaces.iter().any(uplink)
    }

    /// Whether no route and no address of the host overlaps `subnet`. Routes shorter than /8 (a VPN's 0.0.0.0/1)
    /// cover everything and say nothing.
    pub(super) fn is_free(&self, subnet: Subnet) -> bool {
        let routed = self
            .routes
            .iter()
            .filter_map(|route| route.destination)
            .filter(|to| to.prefix >= 8);
        !routed
            .chain(self.addresses.iter().copied())
            .any(|taken| taken.overlaps(subnet))
    }
}

impl Route {
    fn from_message(message: &RouteMessage) -> Option<Self> {
        let (mut to, mut interface, mut metric) = (None, None, 0);
        let mut table = u32::from(message.header.table);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some(*ip),
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::MultiPath(hops) => interface = hops.first().map(|hop| hop.interface_index),
                RouteAttribute::Priority(is) => metric = *is,
                RouteAttribute::Table(is) => table = *is,
                _ => {}
            }
        }
        if message.header.address_family != AddressFamily::Inet {
            return None;
        }
        let prefix = message.header.destination_prefix_length;
        let destination = (prefix > 0).then(|| Subnet::around(to.unwrap_or(Ipv4Addr::UNSPECIFIED), prefix));
        Some(Self {
            destination,
            interface,
            metric,
            main: table == u32::from(RouteHeader::RT_TABLE_MAIN),
        })
    }
}

const NEW: u16 = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;

fn encode(message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn link(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn up(message: &mut LinkMessage) {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
}

fn link_up(index: u32) -> Vec<u8> {
    let mut message = link(index);
    up(&mut message);
    encode(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)
}

fn veth(peer: LinkMessage) -> Vec<LinkInfo> {
    vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]
}

fn address(index: u32, ip: impl Into<IpAddr>, prefix: u8) -> Vec<u8> {
    let ip = ip.into();
    let mut message = AddressMessage::default();
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    match ip {
        IpAddr::V4(ip) => {
            message.header.family = AddressFamily::Inet;
            if prefix < 31 {
                message
                    .attributes
                    .push(AddressAttribute::Broadcast(Subnet::around(ip, prefix).last()));
            }
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            // Addresses are given once, by us: looking for another owner would only take a second.
            message.header.flags = AddressHeaderFlags::Nodad;
        }
    }
    encode(RouteNetlinkMessage::NewAddress(message), NEW)
}

fn default_route(gateway: impl Into<IpAddr>, interface: u32) -> Vec<u8> {
    let mut message = RouteMessage::default();
    let gateway = match gateway.into() {
        IpAddr::V4(gateway) => {
            message.header.address_family = AddressFamily::Inet;
            RouteAddress::Inet(gateway)
        }
        IpAddr::V6(gateway) => {
            message.header.address_family = AddressFamily::Inet6;
            RouteAddress::Inet6(gateway)
        }
    };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(gateway), RouteAttribute::Oif(interface)];
    // Of a container that joins one more network, it takes the place of the one that is there.
    encode(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// Where the value of the IFLA_NET_NS_FD attribute with `value` is.
fn position_of(bytes: &[u8], value: i32) -> Option<usize> {
    const IFLA_NET_NS_FD: u16 = 28;
    let mut wanted = Vec::from(8u16.to_ne_bytes());
    wanted.extend(IFLA_NET_NS_FD.to_ne_bytes());
    wanted.extend(value.to_ne_bytes());
    (HEADER..bytes.len())
        .step_by(4)
        .find(|at| bytes[*at..].starts_with(&wanted))
        .map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::NetlinkDeserializable;

    fn decode(bytes: &[u8]) -> RouteNetlinkMessage {
        let mut header = NetlinkHeader::default();
        header.message_type = u16::from_ne_bytes([bytes[4], bytes[5]]);
        assert_eq!(
            u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize,
            bytes.len()
        );
        RouteNetlinkMessage::deserialize(&header, &bytes[HEADER..]).expect("a message of our own")
    }

    fn interface(ip: Ipv4Addr, prefix: u8) -> Interface {
        Interface {
            number: 0,
            name: "lan0".into(),
            mac: hardware_address(ip),
            mtu: 1500,
            ip: (ip, prefix),
            gateway: None,
            ip6: None,
            gateway6: None,
            link_local: Vec::new(),
            isolated: false,
        }
    }

    #[test]
    fn the_namespace_of_the_payload_is_patched_in_the_peer() {
        let mut interface = interface(Ipv4Addr::new(10, 1, 0, 2), 16);
        (interface.mtu, interface.number) = (1400, 1);
        let mut message = attach(0xabcd, &interface);
        let at = message.payload_namespace_at.expect("a position");
        assert_eq!(&message.bytes[at..at + 4], PLACEHOLDER.to_ne_bytes());
        message.bytes[at..at + 4].copy_from_slice(&7i32.to_ne_bytes());
        let first = u32::from_ne_bytes(message.bytes[..4].try_into().unwrap()) as usize;
        let RouteNetlinkMessage::NewLink(link) = decode(&message.bytes[..first]) else {
            panic!("not a link")
        };
        assert!(link.attributes.contains(&LinkAttribute::Controller(BRIDGE)));
        let peer = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(info) => info.iter().find_map(|info| match info {
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))) => Some(peer),
                _ => None,
            }),
            _ => None,
        });
        let peer = peer.expect("a peer");
        assert_eq!(peer.header.index, CONTAINER + 1);
        assert!(peer.attributes.contains(&LinkAttribute::NetNsFd(7)));
        assert!(peer.attributes.contains(&LinkAttribute::IfName("lan0".into())));
        assert!(
            peer.attributes
                .contains(&LinkAttribute::Address(vec![2, 0x42, 10, 1, 0, 2]))
        );
        assert!(peer.attributes.contains(&LinkAttribute::Mtu(1400)));
    }

    #[test]
    fn a_container_gets_address_and_default_route() {
        let mut interface = interface(Ipv4Addr::new(172, 30, 0, 2), 16);
        interface.gateway = Some(Ipv4Addr::new(172, 30, 0, 1));
        interface.ip6 = Some(("fd00::2".parse().unwrap(), 64));
        let messages = configure(&interface);
        let RouteNetlinkMessage::NewAddress(address) = decode(&messages[2]) else {
            panic!("not an address")
        };
        assert_eq!(address.header.prefix_len, 16);
        assert!(
            address
                .attributes
                .contains(&AddressAttribute::Broadcast(Ipv4Addr::new(172, 30, 255, 255)))
        );
        let RouteNetlinkMessage::NewAddress(address) = decode(&messages[3]) else {
            panic!("not an address")
        };
        assert_eq!(address.header.flags, AddressHeaderFlags::Nodad);
        let RouteNetlinkMessage::NewRoute(route) = decode(&messages[4]) else {
            panic!("not a route")
        };
        assert_eq!(Route::from_message(&route).expect("a route").destination, None);
    }

    #[test]
    fn a_wide_vpn_route_does_not_take_every_subnet() {
        let route = |ip: [u8; 4], prefix| Route {
            destination: Some(Subnet::around(ip.into(), prefix)),
            interface: None,
            metric: 0,
            main: true,
        };
        let host = HostRoutes {
            routes: vec![route([0, 0, 0, 0], 1), route([172, 16, 0, 0], 12)],
            addresses: vec![Subnet::around([10, 3, 4, 5].into(), 24)],
            interfaces: Vec::new(),
        };
        assert!(host.is_free(Subnet::around([10, 2, 0, 0].into(), 16)));
        assert!(!host.is_free(Subnet::around([10, 3, 0, 0].into(), 16)));
        assert!(!host.is_free(Subnet::around([172, 30, 0, 0].into(), 16)));
    }
}
