//! Published ports.

use super::ParseError;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// One port of the container and where it appears on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PortMapping {
    /// The container's port.
    pub container: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The host's port; a free one when `None`.
    pub host: Option<u16>,
    /// Makes `host` the first of a range that ends here, of which the first free one is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_end: Option<u16>,
    /// The host's address; all of IPv4 and IPv6 when `None`.
    pub host_ip: Option<IpAddr>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl PortMapping {
    /// A TCP port, on a free port of 127.0.0.1: what a test wants. See [`Self::on_host`].
    pub fn tcp(container: u16) -> Self {
        Self {
            container,
            protocol: Protocol::Tcp,
            host: None,
            host_end: None,
            host_ip: Some(IpAddr::from([127, 0, 0, 1])),
        }
    }
    /// A UDP port, on a free port of 127.0.0.1.
    pub fn udp(container: u16) -> Self {
        Self {
            protocol: Protocol::Udp,
            ..Self::tcp(container)
        }
    }
    /// Chooses the host's port.
    pub fn on_host(mut self, port: u16) -> Self {
        self.host = Some(port);
        self
    }
    /// Chooses the host's address; `0.0.0.0` for every IPv4 one.
    pub fn on_address(mut self, address: impl Into<IpAddr>) -> Self {
        self.host_ip = Some(address.into());
        self
    }
    /// Listens on every address of the host, IPv4 and IPv6, as `docker run -p` does.
    pub fn on_every_address(mut self) -> Self {
        self.host_ip = None;
        self
    }
}

const WHAT: &str = "a published port";

impl PortMapping {
    /// Parses docker's `-p`: `[[address:][host port]:]port[/protocol]`. Ports may be ranges of equal
    /// length, `8080-8090:80-90`, which give one mapping each; a range of host ports for one port means
    /// the first free one. Without an address it listens on every address, IPv4 and IPv6; without a host
    /// port, or with 0, on a free one. IPv6 addresses are written in brackets.
    ///
    /// # Errors
    /// For anything else, and for SCTP.
    pub fn parse(text: &str) -> Result<Vec<Self>, ParseError> {
        let error = |reason: &str| ParseError::new(WHAT, text, reason);
        let (ports, protocol) = match text.split_once('/') {
            Some((ports, protocol)) => (ports, protocol.to_ascii_lowercase()),
            None => (text, "tcp".to_owned()),
        };
        let protocol = match protocol.as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => return Err(error("SCTP cannot be published")),
            _ => return Err(error("the protocol is tcp or udp")),
        };
        // From the right, since only the address can hold colons.
        let mut parts = ports.rsplitn(3, ':');
        let container = range(text, parts.next().unwrap_or_default())?;
        let host = parts
            .next()
            .filter(|host| !host.is_empty())
            .map(|host| range(text, host))
            .transpose()?;
        let host_ip = match parts.next().filter(|address| !address.is_empty()) {
            Some(address) => {
                Some(parse_address(address).ok_or_else(|| error("not an IP address (IPv6 in brackets)"))?)
            }
            None => None,
        };
        if *container.start() == 0 {
            return Err(error("the container's port is from 1 to 65535"));
        }
        let free = |port: &u16| *port != 0;
        let (host_ports, host_end): (Vec<Option<u16>>, _) = match host {
            None => (container.clone().map(|_| None).collect(), None),
            Some(host) if host.len() == container.len() => {
                (host.map(|port| Some(port).filter(free)).collect(), None)
            }
            Some(host) if container.len() == 1 && *host.start() != 0 => {
                (vec![Some(*host.start())], Some(*host.end()))
            }
            Some(_) => return Err(error("the two ranges have different lengths")),
        };
        let mapping = |(container, host)| Self {
            container,
            protocol,
            host,
            host_end,
            host_ip,
        };
        Ok(container.zip(host_ports).map(mapping).collect())
    }
}

fn range(text: &str, part: &str) -> Result<RangeInclusive<u16>, ParseError> {
    let port = |digits: &str| {
        let decimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        decimal.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(_), Some(_)) => Err(ParseError::new(WHAT, text, "a range ends before it begins")),
        _ => Err(ParseError::new(
            WHAT,
            text,
            "ports are numbers from 0 to 65535, or ranges of them",
        )),
    }
}

fn parse_address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::from),
        None => text.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::from),
    }
}

/// As docker prints it: `127.0.0.1:8080->80/tcp`, without the host's part when that is a free port.
impl std::fmt::Display for PortMapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.host_ip, self.host) {
            (Some(ip), Some(port)) => write!(f, "{}", std::net::SocketAddr::new(ip, port))?,
            (None, Some(port)) => write!(f, "{port}")?,
            _ => return write!(f, "{}/{}", self.container, self.protocol),
        }
        if let Some(end) = self.host_end {
            write!(f, "-{end}")?;
        }
        write!(f, "->{}/{}", self.container, self.protocol)
    }
}

/// `tcp` or `udp`.
impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `(host ip, host, container, protocol)` of each mapping.
    type Row = (Option<&'static str>, Option<u16>, u16, Protocol);

    #[test]
    fn flags_as_docker_takes_them() {
        use Protocol::{Tcp, Udp};
        let table: [(&str, &[Row]); 15] = [
            ("80", &[(None, None, 80, Tcp)]),
            ("80/udp", &[(None, None, 80, Udp)]),
            ("80/TCP", &[(None, None, 80, Tcp)]),
            ("8080:80", &[(None, Some(8080), 80, Tcp)]),
            (":80", &[(None, None, 80, Tcp)]),
            ("::80", &[(None, None, 80, Tcp)]),
            ("0:80", &[(None, None, 80, Tcp)]),
            ("127.0.0.1:8080:80", &[(Some("127.0.0.1"), Some(8080), 80, Tcp)]),
            ("127.0.0.1::80", &[(Some("127.0.0.1"), None, 80, Tcp)]),
            ("0.0.0.0:53:53/udp", &[(Some("0.0.0.0"), Some(53), 53, Udp)]),
            ("[::1]:8080:80", &[(Some("::1"), Some(8080), 80, Tcp)]),
            ("[::]::80", &[(Some("::"), None, 80, Tcp)]),
            ("80-81", &[(None, None, 80, Tcp), (None, None, 81, Tcp)]),
            (
                "8080-8081:80-81",
                &[(None, Some(8080), 80, Tcp), (None, Some(8081), 81, Tcp)],
            ),
            (
                "127.0.0.1:65535-65535:1-1",
                &[(Some("127.0.0.1"), Some(65535), 1, Tcp)],
            ),
        ];
        for (text, rows) in table {
            let expected: Vec<_> = rows
                .iter()
                .map(|(ip, host, container, protocol)| PortMapping {
                    container: *container,
                    protocol: *protocol,
                    host: *host,
                    host_end: None,
                    host_ip: ip.map(|ip| ip.parse().expect("address")),
                })
                .collect();
            assert_eq!(PortMapping::parse(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn a_range_of_the_host_for_one_port_is_a_choice() {
        let [port] = PortMapping::parse("127.0.0.1:8080-8090:80")
            .expect("parse")
            .try_into()
            .expect("one");
        assert_eq!(
            (port.host, port.host_end, port.container),
            (Some(8080), Some(8090), 80)
        );
        assert_eq!(port.to_string(), "127.0.0.1:8080-8090->80/tcp");
        assert_eq!(PortMapping::tcp(80).to_string(), "80/tcp");
        assert_eq!(
            PortMapping::udp(53).on_host(5353).on_every_address().to_string(),
            "5353->53/udp"
        );
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in [
            "",
            ":",
            "::",
            "/tcp",
            "80/",
            "80/sctp",
            "80/icmp",
            "80/tcp/udp",
            "0",
            "65536",
            "-1",
            "+80",
            "80-",
            "-80",
            "81-80",
            "0-5:80",
            "8080-8082:80-81",
            "8080:80-81",
            "a:80",
            "80:a",
            "localhost:80:80",
            "::1:80:80",
            "[::1:80:80",
            "[127.0.0.1]:80:80",
            "1.2.3:80:80",
            "256.0.0.1:80:80",
            "127.0.0.1:80:",
            " 80",
            "80 ",
            "8 0",
            "127.0.0.1:80:80:80",
            "0-5",
        ] {
            assert!(
                PortMapping::parse(text).is_err(),
                "{text:?}: {:?}",
                PortMapping::parse(text)
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}", close in "[0-9:./\\[\\]tcpud-]{0,40}") {
            let _ = PortMapping::parse(&text);
            let _ = PortMapping::parse(&close);
        }

        #[test]
        fn ranges_pair_up(first in 1_u16..60_000, host in 1_u16..60_000, length in 0_u16..200) {
            let text = format!("{host}-{}:{first}-{}", host + length, first + length);
            let ports = PortMapping::parse(&text).expect("parse");
            prop_assert_eq!(ports.len(), usize::from(length) + 1);
            for (index, port) in (0..).zip(&ports) {
                prop_assert_eq!((port.host, port.container), (Some(host + index), first + index));
            }
        }
    }
}
