//! Subnet and way out of a network that is to be made.

use super::Subject;
use crate::net::definition::Definition;
use crate::net::error::NetError;
use crate::net::forwarding;
use crate::net::host::{self, Masquerade};
use crate::net::messages::HostRoutes;
use crate::net::netlink::Netlink;
use crate::net::state::{self, NetworkDir, NetworkRecord, UplinkRecord};
use crate::net::subnet::{self, Subnet};
use crate::warning::NoEgress;
use std::fs;
use std::sync::Arc;

/// How the network gets out.
#[derive(Debug)]
pub(super) enum Egress {
    /// As asked for.
    Closed,
    /// It does not; why.
    None(NoEgress),
    Masquerade {
        _table: Arc<Masquerade>,
        /// What may be in the way.
        doubt: Option<NoEgress>,
    },
}

pub(super) fn masquerade(uplink: &UplinkRecord, doubt: Option<NoEgress>) -> Egress {
    match Masquerade::of(uplink) {
        Ok(_table) => Egress::Masquerade { _table, doubt },
        Err(error) => Egress::None(NoEgress::Kernel {
            reason: error.to_string(),
        }),
    }
}

/// Subnets and uplink addresses are chosen by one process of the host at a time, whatever its root.
pub(in crate::net) fn lock_host(dir: &NetworkDir) -> Result<fs::File, NetError> {
    let path = host::lock_path();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|source| dir.error("make", parent.into(), source))?;
    }
    state::lock(&path, &dir.name)
}

/// What the host's routing looks like.
pub(in crate::net) fn host_routes(network: &str) -> Result<HostRoutes, NetError> {
    Netlink::route()
        .and_then(|mut socket| HostRoutes::read(&mut socket))
        .map_err(|source| NetError::Kernel {
            network: network.into(),
            doing: "reading the host's routes",
            source,
        })
}

/// Chooses subnet and uplink of a network that is to be made; those it had before when they are still free.
pub(super) fn choose(
    subject: Subject<'_>,
    dir: &NetworkDir,
    definition: Option<&Definition>,
    recorded: Option<NetworkRecord>,
) -> Result<(NetworkRecord, Egress), NetError> {
    let host = host_routes(&dir.name)?;
    let no_subnet = || NetError::NoFreeSubnet {
        network: dir.name.clone(),
    };
    let (subnet, gateway) = match definition {
        Some(definition) => (
            definition.ipv4.subnet().ok_or_else(no_subnet)?,
            definition.ipv4.gateway,
        ),
        None => {
            let others: Vec<Subnet> = NetworkDir::all(subject.root)?
                .iter()
                .filter_map(|(_, definition)| definition.ipv4.subnet())
                .collect();
            let taken = |subnet: Subnet| others.iter().any(|other| other.overlaps(subnet));
            let before = recorded
                .and_then(|record| record.subnet())
                .filter(|subnet| host.is_free(*subnet) && !taken(*subnet));
            let subnet = before
                .or_else(|| subnet::choose(&host, taken))
                .ok_or_else(no_subnet)?;
            (subnet, subnet.nth(1))
        }
    };
    let (uplink, egress) = if definition.is_some_and(|definition| !definition.has_egress()) {
        (None, Egress::Closed)
    } else if subject.rootless {
        (None, Egress::None(NoEgress::Rootless))
    } else {
        choose_egress(&host, subnet)
    };
    let of_host = host.way_out().map_or(1500, |(_, mtu)| mtu.clamp(576, 65_535));
    let ipv6 = definition.and_then(|definition| definition.ipv6.clone());
    let least = if ipv6.is_some() { 1280 } else { 576 };
    let mtu = definition
        .and_then(|definition| definition.mtu)
        .unwrap_or(of_host)
        .max(least);
    let mut record = NetworkRecord::new(subnet, gateway, mtu, uplink);
    record.ipv6 = ipv6;
    Ok((record, egress))
}

fn choose_egress(host: &HostRoutes, subnet: Subnet) -> (Option<UplinkRecord>, Egress) {
    let Some(uplink) = choose_uplink(host, subnet) else {
        return (None, Egress::None(NoEgress::NoFreeAddress));
    };
    let forwards = host
        .way_out()
        .map_or(Ok(()), |(name, _)| forwarding::switch_on(name));
    let doubt = forwards.err().map(|(path, error)| NoEgress::Forwarding {
        path,
        reason: error.to_string(),
    });
    // The table comes first: it shows whether the kernel can do all this.
    match masquerade(&uplink, doubt) {
        Egress::None(reason) => {
            if !host.has_uplink() {
                let _ = forwarding::switch_off();
            }
            (None, Egress::None(reason))
        }
        egress => (Some(uplink), egress),
    }
}

fn choose_uplink(host: &HostRoutes, network: Subnet) -> Option<UplinkRecord> {
    let pair = subnet::choose_uplink(host, network)?;
    // A fresh name each time: the kernel may still be taking away the interface of the network's former life.
    let interface = format!("{}{:08x}", host::PREFIX, getrandom::u32().ok()?);
    Some(UplinkRecord {
        interface,
        host: pair.nth(1),
        inside: pair.nth(2),
        prefix: pair.prefix,
        ipv6: None,
    })
}
