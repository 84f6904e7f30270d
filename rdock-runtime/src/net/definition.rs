//! What a user network is: written once when it is created, kept until it is removed.

use super::error::NetError;
use super::range::{self, Range4, Range6};
use super::subnet::Subnet;
use super::subnet6::Subnet6;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A network to be created. Defaults are those of `docker network create`: a free private IPv4 subnet, no IPv6, a way
/// out.
///
/// ```
/// use rdock_runtime::{NetworkSpec, SubnetSpec};
///
/// let spec = NetworkSpec::new("backend")
///     .subnet(SubnetSpec::new("10.9.0.0/16").ip_range("10.9.1.0/24"))
///     .label("team", "storage");
/// assert_eq!(spec.name, "backend");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NetworkSpec {
    /// A letter or digit, then letters, digits, `_`, `.` and `-`.
    pub name: String,
    /// Only `bridge` exists.
    pub driver: String,
    /// At most one of each family; a free one is chosen for a family that has none.
    pub subnets: Vec<SubnetSpec>,
    /// Containers get an IPv6 address too.
    pub ipv6: bool,
    /// No way out, and no name is looked up outside.
    pub internal: bool,
    /// In bytes, 576 (1280 with IPv6) to 65535; that of the default route's interface when `None`.
    pub mtu: Option<u32>,
    /// Free text.
    pub labels: BTreeMap<String, String>,
    /// Docker's driver options. `com.docker.network.driver.mtu` sets the MTU,
    /// `com.docker.network.bridge.enable_icc=false` keeps the containers of the network from each other,
    /// `com.docker.network.bridge.enable_ip_masquerade=false` takes the way out away. Other options that begin with
    /// `com.docker.network.` are kept and have no effect: there is no bridge on the host.
    pub options: BTreeMap<String, String>,
}

/// One subnet of a [`NetworkSpec`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SubnetSpec {
    /// In CIDR notation.
    pub subnet: String,
    /// The containers' default route; the first address when `None`.
    pub gateway: Option<IpAddr>,
    /// The part of the subnet, in CIDR notation, that addresses are chosen from.
    pub ip_range: Option<String>,
    /// Addresses that are never chosen, by a name.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            driver: BRIDGE.into(),
            subnets: Vec::new(),
            ipv6: false,
            internal: false,
            mtu: None,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        }
    }
}

const BRIDGE: &str = "bridge";
const MTU: &str = "com.docker.network.driver.mtu";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";

impl NetworkSpec {
    /// A network with this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }
    /// Adds a subnet.
    pub fn subnet(mut self, subnet: SubnetSpec) -> Self {
        self.subnets.push(subnet);
        self
    }
    /// Gives the containers IPv6 addresses too.
    pub fn ipv6(mut self, ipv6: bool) -> Self {
        self.ipv6 = ipv6;
        self
    }
    /// Takes the way out away.
    pub fn internal(mut self, internal: bool) -> Self {
        self.internal = internal;
        self
    }
    /// Sets the MTU, in bytes.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }
    /// Adds a label.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }
    /// Adds a driver option.
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }
}

impl SubnetSpec {
    /// A subnet in CIDR notation.
    pub fn new(subnet: impl Into<String>) -> Self {
        Self {
            subnet: subnet.into(),
            ..Self::default()
        }
    }
    /// Sets the gateway.
    pub fn gateway(mut self, gateway: impl Into<IpAddr>) -> Self {
        self.gateway = Some(gateway.into());
        self
    }
    /// Sets what addresses are chosen from.
    pub fn ip_range(mut self, range: impl Into<String>) -> Self {
        self.ip_range = Some(range.into());
        self
    }
    /// Keeps an address from being chosen.
    pub fn auxiliary(mut self, name: impl Into<String>, address: impl Into<IpAddr>) -> Self {
        self.auxiliary.insert(name.into(), address.into());
        self
    }
}

/// Docker's grammar for the name of a network, at most 128 bytes. Such a name holds no separator and is never `.` or
/// `..`.
pub(crate) fn is_network_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 128
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// `definition.json`. Fields may be added; unknown ones are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Definition {
    pub(super) version: u32,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) created: String,
    pub(super) ipv4: Range4,
    #[serde(default)]
    pub(super) ipv6: Option<Range6>,
    #[serde(default)]
    pub(super) internal: bool,
    #[serde(default)]
    pub(super) mtu: Option<u32>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) options: BTreeMap<String, String>,
}

/// What a checked spec asks for; what is missing is chosen under the host's lock.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) ipv4: Option<Range4>,
    pub(super) ipv6: Option<Range6>,
    pub(super) mtu: Option<u32>,
}

/// Checks everything that needs no look at the host.
pub(super) fn check(spec: &NetworkSpec) -> Result<Wanted, NetError> {
    let wrong = |field: &'static str, reason: String| NetError::InvalidNetwork {
        network: spec.name.clone(),
        field,
        reason,
    };
    if !is_network_name(&spec.name) {
        return Err(wrong(
            "name",
            format!(
                "{:?} is not a name: a letter or digit, then letters, digits, '_', '.' and '-', 128 bytes at most",
                spec.name
            ),
        ));
    }
    if PREDEFINED.contains(&spec.name.as_str()) {
        return Err(NetError::Predefined {
            network: spec.name.clone(),
            doing: "created",
        });
    }
    if spec.driver != BRIDGE {
        return Err(wrong(
            "driver",
            format!("there is no driver {:?}, only {BRIDGE}", spec.driver),
        ));
    }
    let mut wanted = Wanted {
        ipv4: None,
        ipv6: None,
        mtu: spec.mtu,
    };
    for (name, value) in &spec.options {
        match name.as_str() {
            MTU => {
                wanted.mtu = Some(
                    value
                        .parse()
                        .map_err(|_| wrong("options", format!("{name}={value}: not a number")))?,
                );
            }
            ICC | MASQUERADE => {
                truth(value)
                    .ok_or_else(|| wrong("options", format!("{name}={value}: neither true nor false")))?;
            }
            _ if name.starts_with("com.docker.network.") => {}
            _ => {
                return Err(wrong(
                    "options",
                    format!("{name:?} is no option of a bridge network"),
                ));
            }
        }
    }
    let least = if spec.ipv6 { 1280 } else { 576 };
    if wanted.mtu.is_some_and(|mtu| !(least..=65_535).contains(&mtu)) {
        return Err(wrong("mtu", format!("from {least} to 65535")));
    }
    for subnet in &spec.subnets {
        if subnet.subnet.contains(':') {
            if wanted.ipv6.is_some() {
                return Err(wrong("subnets", "more than one IPv6 subnet".into()));
            }
            wanted.ipv6 = Some(range::of_spec::<Subnet6>(subnet).map_err(|reason| wrong("subnets", reason))?);
        } else {
            if wanted.ipv4.is_some() {
                return Err(wrong("subnets", "more than one IPv4 subnet".into()));
            }
            wanted.ipv4 = Some(range::of_spec::<Subnet>(subnet).map_err(|reason| wrong("subnets", reason))?);
        }
    }
    if wanted.ipv6.is_some() && !spec.ipv6 {
        return Err(wrong(
            "subnets",
            "an IPv6 subnet in a network without IPv6".into(),
        ));
    }
    Ok(wanted)
}

/// Names that are always there.
pub(super) const PREDEFINED: [&str; 4] = [super::DEFAULT, "bridge", "host", "none"];

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

impl Definition {
    /// Whether containers of the network may talk to each other.
    pub(super) fn neighbours_talk(&self) -> bool {
        self.options.get(ICC).and_then(|value| truth(value)) != Some(false)
    }

    /// Whether there is to be a way out.
    pub(super) fn has_egress(&self) -> bool {
        !self.internal && self.options.get(MASQUERADE).and_then(|value| truth(value)) != Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn refused(spec: &NetworkSpec) -> String {
        match check(spec) {
            Err(error) => error.to_string(),
            Ok(wanted) => panic!("{spec:?}: {wanted:?}"),
        }
    }

    #[test]
    fn a_network_is_checked_before_anything_is_made() {
        let with = |subnet: SubnetSpec| NetworkSpec::new("n").subnet(subnet);
        for (spec, words) in [
            (NetworkSpec::new("../x"), "name"),
            (NetworkSpec::new(""), "name"),
            (NetworkSpec::new("host"), "always there"),
            (
                NetworkSpec {
                    driver: "overlay".into(),
                    ..NetworkSpec::new("n")
                },
                "driver",
            ),
            (with(SubnetSpec::new("10.0.0.1/16")), "zero host bits"),
            (with(SubnetSpec::new("10.0.0.0/30")), "too few"),
            (
                with(SubnetSpec::new("10.0.0.0/24").gateway([10, 0, 1, 1])),
                "gateway",
            ),
            (
                with(SubnetSpec::new("10.0.0.0/24").gateway([10, 0, 0, 255])),
                "gateway",
            ),
            (
                with(SubnetSpec::new("10.0.0.0/24").ip_range("10.0.1.0/25")),
                "range",
            ),
            (
                with(SubnetSpec::new("10.0.0.0/24").ip_range("10.0.0.0/16")),
                "range",
            ),
            (
                with(SubnetSpec::new("10.0.0.0/24").auxiliary("x", [1, 1, 1, 1])),
                "auxiliary",
            ),
            (with(SubnetSpec::new("fd00::/64")), "without IPv6"),
            (with(SubnetSpec::new("fe80::/64")).ipv6(true), "routed"),
            (
                with(SubnetSpec::new("10.0.0.0/24")).subnet(SubnetSpec::new("10.1.0.0/24")),
                "more than one",
            ),
            (NetworkSpec::new("n").mtu(68), "576"),
            (NetworkSpec::new("n").mtu(1000).ipv6(true), "1280"),
            (NetworkSpec::new("n").option("colour", "red"), "option"),
            (NetworkSpec::new("n").option(ICC, "maybe"), "neither true"),
        ] {
            let error = refused(&spec);
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn what_is_given_is_kept() {
        let spec = NetworkSpec::new("n")
            .subnet(
                SubnetSpec::new("10.9.0.0/16")
                    .ip_range("10.9.1.0/24")
                    .gateway([10, 9, 0, 9]),
            )
            .subnet(SubnetSpec::new("fd00:9::/64"))
            .ipv6(true)
            .option(MTU, "1400");
        let wanted = check(&spec).unwrap();
        let range = wanted.ipv4.unwrap();
        assert_eq!(range.gateway, Ipv4Addr::new(10, 9, 0, 9));
        assert_eq!(range.choice().unwrap().to_string(), "10.9.1.0/24");
        assert!(range.reserved(range.gateway) && range.reserved(Ipv4Addr::new(10, 9, 255, 255)));
        assert!(!range.reserved(Ipv4Addr::new(10, 9, 0, 1)));
        assert_eq!(
            wanted.ipv6.unwrap().gateway,
            "fd00:9::1".parse::<Ipv6Addr>().unwrap()
        );
        assert_eq!(wanted.mtu, Some(1400));
    }
}
