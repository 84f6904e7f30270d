//! Published ports by the kernel's address translation: the container sees the client's own address.
//!
//! In two steps, since the host knows only the network's end of the uplink: the host translates its port to a port
//! of that end, the network's namespace translates that one to the container. Only what comes in from outside is
//! translated; clients on this host are served by the event loop, whose sockets keep the port.
//!
//! The tables go with the sockets that own them.

use super::attachment::Attachment;
use super::error::NetError;
use super::host::{DESTINATION_NAT, DOCKER_CHAIN, DOCKER_TABLE, SOURCE_NAT};
use super::messages::UPLINK_NAME;
use super::namespace;
use super::netlink::Netlink;
use super::nft::{self, Batch, Family, Hook, Interface, Rule, TABLE_OWNER, Verdict};
use super::state::UplinkRecord;
use crate::spec::Protocol;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// How often another port of the network's end is tried.
const DRAWS: u32 = 16;

/// A published port: where it is bound, and the container's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    pub(crate) host: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) container: u16,
}

/// Rules of this process; they go when it is dropped.
#[derive(Debug)]
pub(super) struct Translation {
    sockets: Vec<Netlink>,
}

impl Drop for Translation {
    fn drop(&mut self) {
        // The kernel takes milliseconds for a table: not on the loop. Without a thread they close here.
        let sockets = std::mem::take(&mut self.sockets);
        let _ = std::thread::Builder::new()
            .name("rdock-net".into())
            .spawn(move || drop(sockets));
    }
}

impl Translation {
    /// Translates the ports that can be: IPv4, and not on the host's loopback interface.
    pub(super) fn make(attachment: &Attachment, ports: &[Published]) -> Result<Self, NetError> {
        let none = || {
            attachment.kernel("looking for a way from the host into the network")(
                io::ErrorKind::NotFound.into(),
            )
        };
        let uplink = attachment.record.uplink.clone().ok_or_else(none)?;
        let network = attachment.namespace().ok_or_else(none)?;
        refused_by_firewall().map_err(attachment.kernel("looking at the host's firewall"))?;
        let mut inside = namespace::inside(network, Netlink::netfilter)
            .map_err(attachment.kernel("entering the network's namespace"))?;
        let mut translated = Vec::new();
        for port in ports {
            if let IpAddr::V4(ip) = port.host.ip()
                && !ip.is_loopback()
            {
                let middle = inner(&mut inside, attachment.ip, *port)
                    .map_err(attachment.kernel("translating a port inside the network"))?;
                translated.push((ip, *port, middle));
            }
        }
        let mut host = Netlink::netfilter().map_err(attachment.kernel("opening a netlink socket"))?;
        let unique = getrandom::u32()
            .map_err(io::Error::other)
            .map_err(attachment.kernel("drawing a number"))?;
        host.batch(&outer(&uplink, unique, &translated))
            .map_err(attachment.kernel("translating a port of the host"))?;
        Ok(Self {
            sockets: vec![host, inside],
        })
    }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// In the network's namespace: from a port of the uplink's end, which is returned, to the container. A table with the
/// port in its name keeps others from the same port: the host's own number, unless another address of the host has it.
fn inner(socket: &mut Netlink, container: Ipv4Addr, port: Published) -> io::Result<u16> {
    let mut middle = port.host.port();
    let protocol = number(port.protocol);
    for _ in 0..DRAWS {
        let table = format!("rdock-port-{protocol}-{middle}");
        let mut batch = Batch::new();
        batch.table(Family::Ipv4, &table, TABLE_OWNER);
        let at = (Hook::Prerouting, DESTINATION_NAT);
        batch.chain(Family::Ipv4, &table, "prerouting", "nat", at, Verdict::Accept);
        let rule = Rule::default()
            .interface(Interface::In, true, UPLINK_NAME)
            .port(protocol, middle)
            .destination_nat(container, port.container);
        batch.append(Family::Ipv4, &table, "prerouting", &rule);
        match socket.batch(&batch.finish()) {
            Ok(()) => return Ok(middle),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                middle = 1024 + (getrandom::u32().map_err(io::Error::other)? % 60_000) as u16;
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// On the host: from its ports to those of the uplink's end. Named as every table of the uplink, so that what an
/// older kernel leaves is found.
fn outer(uplink: &UplinkRecord, unique: u32, ports: &[(Ipv4Addr, Published, u16)]) -> Vec<u8> {
    let table = format!("{}-{unique:08x}", uplink.interface);
    let mut batch = Batch::new();
    batch.table(Family::Ipv4, &table, TABLE_OWNER);
    let at = (Hook::Prerouting, DESTINATION_NAT);
    batch.chain(Family::Ipv4, &table, "prerouting", "nat", at, Verdict::Accept);
    for (ip, port, middle) in ports {
        let rule = match ip.is_unspecified() {
            true => Rule::default().for_this_host(),
            false => Rule::default().destination(*ip),
        };
        let rule = rule
            .port(number(port.protocol), port.host.port())
            .destination_nat(uplink.inside, *middle);
        batch.append(Family::Ipv4, &table, "prerouting", &rule);
    }
    // A container that calls its own network's port by the host: the answer has to come back this way.
    let at = (Hook::Postrouting, SOURCE_NAT);
    batch.chain(Family::Ipv4, &table, "postrouting", "nat", at, Verdict::Accept);
    let back = Rule::default()
        .source(uplink.inside)
        .interface(Interface::Out, true, &uplink.interface)
        .masquerade();
    batch.append(Family::Ipv4, &table, "postrouting", &back);
    batch.finish()
}

/// Translated packets are forwarded ones: where the host drops these, its sockets are the way in.
fn refused_by_firewall() -> io::Result<()> {
    let chains = nft::chains(&mut Netlink::netfilter()?)?;
    let of_docker = |chain: &nft::Chain| chain.family == Family::Ipv4 as u8 && chain.table == DOCKER_TABLE;
    let docker = chains
        .iter()
        .any(|chain| of_docker(chain) && chain.name == DOCKER_CHAIN);
    let dropping = chains
        .iter()
        .find(|chain| chain.drops_forwarded() && !(docker && of_docker(chain)));
    match dropping {
        None => Ok(()),
        Some(chain) => Err(io::Error::other(format!(
            "chain {} {} drops what it does not know",
            chain.table, chain.name
        ))),
    }
}
