//! One family's side of a network: its subnet, and which addresses of it go where.

use super::definition::SubnetSpec;
use super::subnet::Subnet;
use super::subnet6::Subnet6;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A side of a network with addresses of the kind `A`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(serialize = "A: Serialize", deserialize = "A: Deserialize<'de>"))]
pub(super) struct Range<A> {
    pub(super) subnet: String,
    pub(super) gateway: A,
    #[serde(default)]
    pub(super) ip_range: Option<String>,
    #[serde(default)]
    pub(super) auxiliary: BTreeMap<String, A>,
}

/// The IPv4 side of a network.
pub(super) type Range4 = Range<Ipv4Addr>;
/// The IPv6 side of a network.
pub(super) type Range6 = Range<Ipv6Addr>;

/// What the subnets of both families have.
pub(super) trait Cidr: Copy + Display + FromStr {
    type Address: Copy + Display;
    const FAMILY: &'static str;
    /// With room for a gateway and a container, and not for a whole internet.
    const PREFIXES: RangeInclusive<u8>;

    fn prefix(self) -> u8;
    fn overlaps(self, other: Self) -> bool;
    /// The address, when an interface in the subnet can have it.
    fn usable(self, ip: IpAddr) -> Option<Self::Address>;
    /// The usual gateway.
    fn first(self) -> Option<Self::Address>;
    fn can_be_routed(self) -> bool;
}

impl Cidr for Subnet {
    type Address = Ipv4Addr;
    const FAMILY: &'static str = "IPv4";
    const PREFIXES: RangeInclusive<u8> = 8..=29;

    fn prefix(self) -> u8 {
        self.prefix
    }
    fn overlaps(self, other: Self) -> bool {
        Self::overlaps(self, other)
    }
    fn usable(self, ip: IpAddr) -> Option<Ipv4Addr> {
        match ip {
            IpAddr::V4(ip) => self.holds(ip).then_some(ip),
            IpAddr::V6(_) => None,
        }
    }
    fn first(self) -> Option<Ipv4Addr> {
        Some(self.nth(1))
    }
    fn can_be_routed(self) -> bool {
        true
    }
}

impl Cidr for Subnet6 {
    type Address = Ipv6Addr;
    const FAMILY: &'static str = "IPv6";
    const PREFIXES: RangeInclusive<u8> = 16..=120;

    fn prefix(self) -> u8 {
        self.prefix
    }
    fn overlaps(self, other: Self) -> bool {
        Self::overlaps(self, other)
    }
    fn usable(self, ip: IpAddr) -> Option<Ipv6Addr> {
        match ip {
            IpAddr::V6(ip) => (self.contains(ip) && ip != self.base).then_some(ip),
            IpAddr::V4(_) => None,
        }
    }
    fn first(self) -> Option<Ipv6Addr> {
        self.nth(1)
    }
    fn can_be_routed(self) -> bool {
        !(self.base.is_multicast() || self.base.is_unicast_link_local())
    }
}

/// What a spec says of one family.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn of_spec<S: Cidr>(spec: &SubnetSpec) -> Result<Range<S::Address>, String> {
    let parse = |text: &str| {
        text.parse::<S>().map_err(|_| {
            format!(
                "{text:?} is not an {} subnet in CIDR notation with zero host bits",
                S::FAMILY
            )
        })
    };
    let subnet = parse(&spec.subnet)?;
    if !S::PREFIXES.contains(&subnet.prefix()) {
        return Err(format!(
            "{subnet} has room for too few or too many addresses: /{} to /{}",
            S::PREFIXES.start(),
            S::PREFIXES.end()
        ));
    }
    if !subnet.can_be_routed() {
        return Err(format!("{subnet} has no addresses that can be routed"));
    }
    let inside = |ip: IpAddr, what: &str| {
        subnet
            .usable(ip)
            .ok_or_else(|| format!("{what} {ip} is not an address of {subnet}"))
    };
    let gateway = match spec.gateway {
        Some(gateway) => inside(gateway, "the gateway")?,
        None => subnet.first().ok_or("no room for a gateway")?,
    };
    let ip_range = spec.ip_range.as_deref().map(parse).transpose()?;
    if let Some(range) = ip_range
        && (range.prefix() < subnet.prefix() || !range.overlaps(subnet))
    {
        return Err(format!("the range {range} is not in {subnet}"));
    }
    let mut auxiliary = BTreeMap::new();
    for (name, ip) in &spec.auxiliary {
        auxiliary.insert(name.clone(), inside(*ip, "the auxiliary address")?);
    }
    Ok(Range {
        subnet: subnet.to_string(),
        gateway,
        ip_range: ip_range.map(|range| range.to_string()),
        auxiliary,
    })
}

impl Range6 {
    pub(super) fn around(subnet: Subnet6) -> Option<Self> {
        Some(Self {
            subnet: subnet.to_string(),
            gateway: subnet.nth(1)?,
            ip_range: None,
            auxiliary: BTreeMap::new(),
        })
    }

    /// `None` when the file was tampered with.
    pub(super) fn subnet(&self) -> Option<Subnet6> {
        self.subnet.parse().ok()
    }
}

impl Range4 {
    pub(super) fn around(subnet: Subnet) -> Self {
        Self {
            subnet: subnet.to_string(),
            gateway: subnet.nth(1),
            ip_range: None,
            auxiliary: BTreeMap::new(),
        }
    }

    /// `None` when the file was tampered with.
    pub(super) fn subnet(&self) -> Option<Subnet> {
        self.subnet.parse().ok()
    }

    /// What addresses are chosen from.
    pub(super) fn choice(&self) -> Option<Subnet> {
        match &self.ip_range {
            Some(range) => range.parse().ok(),
            None => self.subnet(),
        }
    }

    /// Addresses that no container gets.
    pub(super) fn reserved(&self, ip: Ipv4Addr) -> bool {
        ip == self.gateway
            || self.auxiliary.values().any(|other| *other == ip)
            || self.subnet().is_none_or(|subnet| !subnet.holds(ip))
    }
}
