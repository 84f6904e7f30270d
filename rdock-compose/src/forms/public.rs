//! The short forms for users of the crate.

use super::{parse_host, parse_port, parse_size, parse_volume, split_volume};
use crate::model::{Bytes, Hosts, Port, ServiceVolume};
use crate::source::Span;

impl ServiceVolume {
    /// Reads the short form `[source:]target[:options]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let node = parse_volume(text, Span::default())?;
        serde_json::from_value(node.to_json()).map_err(|error| error.to_string())
    }

    /// The parts of the short form; drive letters and `${...}` stay whole. None for an empty text.
    pub fn split(text: &str) -> Option<Vec<String>> {
        split_volume(text)
    }
}

impl Port {
    /// Reads the short form `[[address:]published:]target[/protocol]`; ranges give several.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        let long = |port: super::PortForm| Self {
            mode: Some("ingress".to_owned()),
            host_ip: port.host_ip,
            target: i64::from(port.target),
            published: port.published,
            protocol: Some(port.protocol),
            ..Self::default()
        };
        Ok(parse_port(text)?.into_iter().map(long).collect())
    }
}

impl Bytes {
    /// Reads a size: `1073741824`, `512m`, `1.5g`, `10kb`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse_size(text).map(Self)
    }
}

impl Hosts {
    /// Reads lines of `name=address` or `name:address`.
    ///
    /// # Errors
    /// What is wrong with one.
    pub fn parse<S: AsRef<str>>(lines: &[S]) -> Result<Self, String> {
        let mut hosts = Self::default();
        for line in lines {
            let (name, addresses) = parse_host(line.as_ref())?;
            hosts.0.entry(name).or_default().extend(addresses);
        }
        Ok(hosts)
    }
}
