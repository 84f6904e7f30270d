//! The networks a container joins, and what it resolves names with.

use super::{NetworkMode, ParseError, Protocol};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One network that a container joins, and as what.
///
/// ```
/// use rdock_runtime::{ContainerSpec, EndpointSpec};
///
/// let spec = ContainerSpec::new("mysql:8")
///     .network(EndpointSpec::new("backend").alias("db").ip([10, 9, 0, 20]))
///     .network("monitoring");
/// assert_eq!(spec.networks.len(), 2);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct EndpointSpec {
    /// Name or id of the network; `default` (or docker's `bridge`) is always there.
    pub network: String,
    /// More names for the container in this network; several containers may have the same one.
    pub aliases: Vec<String>,
    /// A free one of the network when `None`.
    pub ip: Option<Ipv4Addr>,
    /// A free one when `None` and the network has IPv6.
    pub ip6: Option<Ipv6Addr>,
    /// Six bytes as `02:42:ac:11:00:02`; made from the address when `None`.
    pub mac: Option<String>,
    /// More addresses of the interface: of 169.254.0.0/16 or fe80::/64.
    pub link_local: Vec<IpAddr>,
    /// The default route leads into the network with the highest one; 0 by default. On a tie into the first of the spec;
    /// one that is joined later takes it only with a higher one.
    pub gateway_priority: i32,
    /// Name of the interface in the container; `eth0`, `eth1`... in the order of the networks when `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Names that this container alone has for others of the network (docker's legacy links): the name or an alias of the
    /// other, and what it is called here. Found when they are asked for: the other may come later.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<(String, String)>,
    /// Kernel parameters of the interface, in docker's words: `net.ipv4.conf.IFNAME.log_martians`, in which IFNAME stands
    /// for its name. Their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
}

/// The option of docker's that names the interface.
const INTERFACE_OPTION: &str = "com.docker.network.endpoint.ifname";
/// The option of docker's with kernel parameters of the interface: `NAME=VALUE`, separated by commas.
const SYSCTLS_OPTION: &str = "com.docker.network.endpoint.sysctls";

impl EndpointSpec {
    /// Joins the network as the container's name alone.
    pub fn new(network: impl Into<String>) -> Self {
        Self {
            network: network.into(),
            ..Self::default()
        }
    }
    /// Adds a name.
    pub fn alias(mut self, alias: impl Into<String>) -> Self {
        self.aliases.push(alias.into());
        self
    }
    /// Sets the IPv4 address.
    pub fn ip(mut self, ip: impl Into<Ipv4Addr>) -> Self {
        self.ip = Some(ip.into());
        self
    }
    /// Sets the IPv6 address.
    pub fn ip6(mut self, ip: impl Into<Ipv6Addr>) -> Self {
        self.ip6 = Some(ip.into());
        self
    }
    /// Sets the hardware address.
    pub fn mac(mut self, mac: impl Into<String>) -> Self {
        self.mac = Some(mac.into());
        self
    }
    /// Adds a link-local address.
    pub fn link_local(mut self, ip: impl Into<IpAddr>) -> Self {
        self.link_local.push(ip.into());
        self
    }
    /// Sets how much the default route is wanted by this network.
    pub fn gateway_priority(mut self, priority: i32) -> Self {
        self.gateway_priority = priority;
        self
    }

    /// Adds a name that this container alone has for another one.
    pub fn link(mut self, container: impl Into<String>, alias: impl Into<String>) -> Self {
        self.links.push((container.into(), alias.into()));
        self
    }
    /// Names the interface in the container.
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interface = Some(name.into());
        self
    }
    /// Sets a kernel parameter of the interface, such as `net.ipv4.conf.IFNAME.log_martians`.
    pub fn sysctl(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.sysctls.insert(name.into(), value.into());
        self
    }
    /// Takes an option as docker's bridge does (`--driver-opt`): the interface's name
    /// (`com.docker.network.endpoint.ifname`) and its kernel parameters (`com.docker.network.endpoint.sysctls`).
    ///
    /// # Errors
    /// For any other option, and for parameters without a value.
    pub fn driver_option(mut self, name: &str, value: &str) -> Result<Self, ParseError> {
        let error = |reason| ParseError::new("an option of an interface", name, reason);
        match name {
            INTERFACE_OPTION => self.interface = Some(value.to_owned()),
            SYSCTLS_OPTION => {
                for setting in value.split(',').filter(|setting| !setting.is_empty()) {
                    let (name, value) = setting
                        .split_once('=')
                        .ok_or_else(|| error("each of the parameters is NAME=VALUE"))?;
                    self.sysctls
                        .insert(name.trim().to_owned(), value.trim().to_owned());
                }
            }
            _ => return Err(error("an interface has no such option here")),
        }
        Ok(self)
    }

    /// The name of the network on disk: `bridge` is docker's for `default`.
    pub(crate) fn network_name(&self) -> &str {
        match self.network.as_str() {
            "bridge" => crate::net::DEFAULT,
            name => name,
        }
    }
}

/// What [`super::ContainerSpec::network`] takes: a mode, or a network to join beside others.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkJoin {
    /// Replaces the mode.
    Mode(NetworkMode),
    /// Is added to the networks.
    Endpoint(EndpointSpec),
}

impl From<NetworkMode> for NetworkJoin {
    fn from(mode: NetworkMode) -> Self {
        Self::Mode(mode)
    }
}

impl From<EndpointSpec> for NetworkJoin {
    fn from(endpoint: EndpointSpec) -> Self {
        Self::Endpoint(endpoint)
    }
}

impl From<&str> for NetworkJoin {
    /// `host`, `none` and `container:NAME` are modes, everything else names a network.
    fn from(name: &str) -> Self {
        match name {
            "host" => Self::Mode(NetworkMode::Host),
            "none" => Self::Mode(NetworkMode::None),
            _ => match name.strip_prefix("container:") {
                Some(other) => Self::Mode(NetworkMode::Container(other.to_owned())),
                None => Self::Endpoint(EndpointSpec::new(name)),
            },
        }
    }
}

impl From<String> for NetworkJoin {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

const WHAT: &str = "a network";

impl NetworkJoin {
    /// Parses docker's `--network`: `host`, `none`, `container:NAME`, a network's name or id, docker's long form
    /// `name=NET,alias=A,ip=1.2.3.4,ip6=..,mac-address=..,link-local-ip=..,gw-priority=1,driver-opt=NAME=VALUE`, or
    /// podman's `NET:alias=A,ip=1.2.3.4,interface_name=I`.
    ///
    /// # Errors
    /// For an unknown option, a malformed address, and a name that no network can have.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let error = |reason: String| ParseError::new(WHAT, text, reason);
        let long = text.split_once('=').is_some();
        let (name, options) = match text.split_once(':') {
            Some(("container", other)) => {
                return match crate::identity::is_name(other) {
                    true => Ok(Self::Mode(NetworkMode::Container(other.to_owned()))),
                    false => Err(error("container: needs the name or id of a container".into())),
                };
            }
            Some((name, options)) if long && !name.contains('=') => (name, options),
            _ if long => ("", text),
            _ => (text, ""),
        };
        let mut endpoint = EndpointSpec::new(name);
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| error(format!("{option:?} is no KEY=VALUE")))?;
            let wrong = |what: &str| error(format!("{value:?} is not {what}"));
            match key {
                "name" => endpoint.network = value.to_owned(),
                "alias" => endpoint.aliases.push(value.to_owned()),
                "ip" => endpoint.ip = Some(value.parse().map_err(|_| wrong("an IPv4 address"))?),
                "ip6" => endpoint.ip6 = Some(value.parse().map_err(|_| wrong("an IPv6 address"))?),
                "mac" | "mac-address" => {
                    parse_mac(value).ok_or_else(|| wrong("a hardware address"))?;
                    endpoint.mac = Some(value.to_owned());
                }
                "link-local-ip" => endpoint
                    .link_local
                    .push(value.parse().map_err(|_| wrong("an address"))?),
                "gw-priority" => {
                    endpoint.gateway_priority = value.parse().map_err(|_| wrong("a number"))?;
                }
                "link" => {
                    let (name, alias) = value.split_once(':').unwrap_or((value, value));
                    endpoint.links.push((name.to_owned(), alias.to_owned()));
                }
                "interface_name" => endpoint.interface = Some(value.to_owned()),
                "driver-opt" => {
                    let (name, value) = value
                        .split_once('=')
                        .ok_or_else(|| wrong("an option: NAME=VALUE"))?;
                    endpoint = endpoint.driver_option(name, value)?;
                }
                _ => return Err(error(format!("{key:?} is no option of a network here"))),
            }
        }
        if options.is_empty() {
            let join = Self::from(name);
            if !matches!(join, Self::Endpoint(_)) {
                return Ok(join);
            }
        }
        if !crate::net::is_network_name(&endpoint.network) {
            return Err(error(format!("{:?} is not a network's name", endpoint.network)));
        }
        Ok(Self::Endpoint(endpoint))
    }
}

/// Parses a port for `--expose`: `80`, `80/udp`, or a range `80-90/tcp`.
///
/// # Errors
/// For anything else.
pub fn parse_exposed(text: &str) -> Result<Vec<(u16, Protocol)>, ParseError> {
    let error = |reason: &str| ParseError::new("an exposed port", text, reason);
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(error("the protocol is tcp or udp")),
    };
    let number = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| error("a port is a number from 1 to 65535"))
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(error("the range ends before it begins"));
    }
    Ok((first..=last).map(|port| (port, protocol)).collect())
}

/// Six bytes, separated by `:` or `-`; `None` for a group address and for all zeros.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

/// How published ports reach the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PortForwarding {
    /// By the owner's event loop (splice): the container sees its gateway as the client. Works everywhere, and no
    /// firewall rule of the host can open more than what listens.
    #[default]
    Splice,
    /// By the kernel's address translation: the container sees the client's own address. Only as root; what comes
    /// from this host itself still goes by the event loop.
    Kernel,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_in_every_form() {
        let endpoint = |text| match NetworkJoin::parse(text) {
            Ok(NetworkJoin::Endpoint(endpoint)) => endpoint,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(endpoint("backend"), EndpointSpec::new("backend"));
        let full = EndpointSpec::new("net1")
            .alias("a")
            .alias("b")
            .ip([10, 0, 0, 9])
            .mac("02:00:00:00:00:01")
            .gateway_priority(3)
            .interface("lan0");
        assert_eq!(
            endpoint(
                "name=net1,alias=a,alias=b,ip=10.0.0.9,mac-address=02:00:00:00:00:01,gw-priority=3,driver-opt=com.docker.network.endpoint.ifname=lan0"
            ),
            full
        );
        assert_eq!(
            endpoint(
                "net1:alias=a,alias=b,ip=10.0.0.9,mac=02:00:00:00:00:01,gw-priority=3,interface_name=lan0"
            ),
            full
        );
        assert_eq!(endpoint("bridge").network_name(), "default");
        for (text, mode) in [
            ("host", NetworkMode::Host),
            ("none", NetworkMode::None),
            ("container:db", NetworkMode::Container("db".into())),
        ] {
            assert_eq!(NetworkJoin::parse(text), Ok(NetworkJoin::Mode(mode)));
        }
        for bad in [
            "",
            "../x",
            "a b",
            "container:",
            "name=x,ip=300.1.1.1",
            "name=x,color=red",
            "name=x,mac=01:00:00:00:00:01",
            "alias=x",
            "name=x,driver-opt=com.docker.network.endpoint.ifname",
            "name=x,driver-opt=color=red",
            "x:alias",
        ] {
            assert!(NetworkJoin::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn exposed_ports_and_hardware_addresses() {
        assert_eq!(parse_exposed("80"), Ok(vec![(80, Protocol::Tcp)]));
        assert_eq!(
            parse_exposed("53-54/udp"),
            Ok(vec![(53, Protocol::Udp), (54, Protocol::Udp)])
        );
        for bad in ["", "0", "9-8", "80/sctp", "x"] {
            assert!(parse_exposed(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_mac("02:42:AC:11:00:02"), Some([2, 0x42, 0xac, 0x11, 0, 2]));
        for bad in [
            "",
            "02:42",
            "01:00:00:00:00:00",
            "00:00:00:00:00:00",
            "02:42:ac:11:00:02:03",
            "2:42:ac:11:00:02",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad:?}");
        }
    }
}
