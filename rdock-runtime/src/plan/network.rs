//! Which networks are joined, and what can be said about that without looking at them.

use super::{Findings, identity};
use crate::spec::{ContainerSpec, EndpointSpec, NetworkMode, PortMapping, Protocol, parse_mac};
use rdock_image::ImageConfig;
use std::net::IpAddr;

/// The networks to join; none with a mode that is no network.
pub(super) fn networks(spec: &ContainerSpec, findings: &mut Findings) -> Vec<EndpointSpec> {
    if spec.network != NetworkMode::Default {
        if !spec.networks.is_empty() {
            findings.add(
                "networks",
                "conflicts with the network of the host, of another container, or none",
            );
        }
        return Vec::new();
    }
    for (index, endpoint) in spec.networks.iter().enumerate() {
        let field = format!("networks[{index}]");
        check(endpoint, &field, findings);
        let same = |other: &EndpointSpec| other.network_name() == endpoint.network_name();
        if spec.networks[..index].iter().any(same) {
            findings.add(&field, format!("network {:?} is joined twice", endpoint.network));
        }
        let named = |other: &EndpointSpec| other.interface.is_some() && other.interface == endpoint.interface;
        if spec.networks[..index].iter().any(named) {
            findings.add(
                format!("{field}.interface"),
                "another of the container's interfaces has this name",
            );
        }
    }
    match spec.networks.is_empty() {
        true => vec![EndpointSpec::new(crate::net::DEFAULT)],
        false => spec.networks.clone(),
    }
}

fn check(endpoint: &EndpointSpec, field: &str, findings: &mut Findings) {
    if !crate::net::is_network_name(&endpoint.network) {
        findings.add(
            format!("{field}.network"),
            format!("{:?} is not the name of a network", endpoint.network),
        );
    }
    for alias in &endpoint.aliases {
        if let Err(reason) = identity::check_host_name(alias) {
            findings.add(format!("{field}.aliases"), format!("{alias:?} {reason}"));
        }
    }
    for (other, alias) in &endpoint.links {
        for name in [other, alias] {
            if let Err(reason) = identity::check_host_name(name) {
                findings.add(format!("{field}.links"), format!("{name:?} {reason}"));
            }
        }
    }
    if let Some(mac) = &endpoint.mac
        && parse_mac(mac).is_none()
    {
        findings.add(
            format!("{field}.mac"),
            format!("{mac:?} is not the hardware address of an interface"),
        );
    }
    if let Some(name) = &endpoint.interface
        && let Err(reason) = check_interface(name)
    {
        findings.add(format!("{field}.interface"), format!("{name:?} {reason}"));
    }
    for (name, value) in &endpoint.sysctls {
        if let Err(reason) = check_sysctl(name, value) {
            findings.add(format!("{field}.sysctls[{name:?}]"), reason);
        }
    }
    for address in &endpoint.link_local {
        let is = match address {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if !is {
            findings.add(
                format!("{field}.link_local"),
                format!("{address} is not in 169.254.0.0/16 or fe80::/64"),
            );
        }
    }
}

/// What the kernel takes as the name of an interface (`dev_valid_name`), but those with a meaning of their own.
fn check_interface(name: &str) -> Result<(), &'static str> {
    const LONGEST: usize = 15;
    match name {
        "" | "." | ".." => Err("is not the name of an interface"),
        "lo" => Err("is the loopback's"),
        // Directories of /proc/sys/net/ipv4/conf that mean every interface, and those to come.
        "all" | "default" => Err("means more than one interface"),
        _ if name.len() > LONGEST => Err("is longer than 15 bytes"),
        _ if name.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%')) => {
            Err("has a blank, a slash, a colon or a percent sign in it")
        }
        _ => Ok(()),
    }
}

/// A parameter of one interface: `net.FAMILY.KIND.IFNAME.PARAMETER`.
fn check_sysctl(name: &str, value: &str) -> Result<(), &'static str> {
    let word = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        !part.is_empty() && part.bytes().all(known)
    };
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        ["net", family, kind, "IFNAME", parameter]
            if [family, kind, parameter].iter().all(|part| word(part)) => {}
        _ => return Err("is not a parameter of an interface: net.FAMILY.KIND.IFNAME.PARAMETER"),
    }
    match value.chars().any(char::is_control) || value.len() > 4096 {
        true => Err("a line break, another control character, or more than 4096 bytes in the value"),
        false => Ok(()),
    }
}

/// What goes into `/etc/resolv.conf`.
pub(super) fn check_resolver(spec: &ContainerSpec, findings: &mut Findings) {
    for (index, domain) in spec.dns_search.iter().enumerate() {
        let name = domain.trim_end_matches('.');
        if domain != "."
            && (name.len() > 253
                || name
                    .split('.')
                    .any(|label| identity::check_host_name(label).is_err()))
        {
            findings.add(
                format!("dns_search[{index}]"),
                format!("{domain:?} is not a domain"),
            );
        }
    }
    for (index, option) in spec.dns_options.iter().enumerate() {
        if option.is_empty() || option.chars().any(|c| c.is_whitespace() || c.is_control()) {
            findings.add(
                format!("dns_options[{index}]"),
                format!("{option:?} is not one word"),
            );
        }
    }
    for (index, (port, _)) in spec.expose.iter().enumerate() {
        if *port == 0 {
            findings.add(format!("expose[{index}]"), "port 0 cannot be listened on");
        }
    }
    if matches!(spec.network, NetworkMode::Container(_))
        && !(spec.dns.is_empty() && spec.dns_search.is_empty() && spec.dns_options.is_empty())
    {
        findings.add(
            "dns",
            "conflicts with the network of another container, which brings its own",
        );
    }
}

/// What `publish_all` adds: exposed ports that are not published already.
pub(super) fn exposed(
    spec: &ContainerSpec,
    image: &ImageConfig,
    published: &[PortMapping],
) -> Vec<PortMapping> {
    if !spec.publish_all || spec.network != NetworkMode::Default {
        return Vec::new();
    }
    let of_image = image
        .config
        .exposed_ports
        .keys()
        // What is no port in the image's config cannot be published.
        .filter_map(|text| crate::spec::parse_exposed(text).ok())
        .flatten();
    let mut added: Vec<PortMapping> = Vec::new();
    for (port, protocol) in of_image.chain(spec.expose.iter().copied()) {
        let same = |mapping: &PortMapping| mapping.container == port && mapping.protocol == protocol;
        if published.iter().any(same) || added.iter().any(same) {
            continue;
        }
        let mapping = match protocol {
            Protocol::Tcp => PortMapping::tcp(port),
            Protocol::Udp => PortMapping::udp(port),
        };
        added.push(mapping.on_every_address());
    }
    added
}
