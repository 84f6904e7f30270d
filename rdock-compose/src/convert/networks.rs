//! Where a container is reached: networks, names, ports.

use super::{Making, first_of, note, wrong};
use crate::model::{Port, Project, Service, ServiceNetwork};
use crate::names::{container_name, label, network_labels, volume_labels};
use rdock_runtime::{
    ContainerSpec, EndpointSpec, NamespaceMode, NetworkMode, NetworkSpec, PortMapping, Protocol, SubnetSpec,
    VolumeOptions, parse_exposed,
};
use std::net::IpAddr;

pub(super) fn fill(
    spec: &mut ContainerSpec,
    making: &Making<'_>,
    service: &Service,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let project = making.project;
    let shared = |value: &Option<String>| {
        let name = value.as_deref()?.strip_prefix("service:")?;
        Some(first_of(project, name))
    };
    if let Some(container) = shared(&service.pid) {
        spec.pid = NamespaceMode::Container(container);
    }
    if let Some(container) = shared(&service.ipc) {
        spec.ipc = NamespaceMode::Container(container);
    }
    match (&service.network_mode, shared(&service.network_mode)) {
        (_, Some(container)) => spec.network = NetworkMode::Container(container),
        (Some(mode), None) => {
            spec.network = NetworkMode::parse(mode).map_err(|error| wrong("network_mode", error))?;
        }
        (None, None) => endpoints(spec, making, service, notes)?,
    }

    for (host, address) in service.extra_hosts.pairs() {
        spec.extra_hosts.push((host.to_owned(), address.to_owned()));
    }
    for server in &service.dns {
        let address = server
            .parse()
            .map_err(|error| wrong("dns", format!("{server:?}: {error}")))?;
        spec.dns.push(address);
    }
    spec.dns_search.clone_from(&service.dns_search);
    spec.dns_options.clone_from(&service.dns_opt);
    for port in &service.expose {
        let exposed = parse_exposed(port).map_err(|error| wrong("expose", error))?;
        spec.expose.extend(exposed);
    }
    // One-off containers publish nothing, unless they are told to: their service's ports are taken.
    if making.one_off.is_none_or(|one_off| one_off.service_ports) {
        for port in &service.ports {
            spec.ports.push(mapping(port)?);
        }
    }
    Ok(())
}

/// The networks, the one that is wanted most first.
fn endpoints(
    spec: &mut ContainerSpec,
    making: &Making<'_>,
    service: &Service,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let project = making.project;
    let default = ServiceNetwork::default();
    let mut networks: Vec<(&String, &ServiceNetwork)> = service
        .networks
        .iter()
        .map(|(key, network)| (key, network.as_ref().unwrap_or(&default)))
        .collect();
    networks.sort_by_key(|(key, network)| (std::cmp::Reverse(network.priority), (*key).clone()));
    for (index, (key, network)) in networks.into_iter().enumerate() {
        let attribute = |name: &str| format!("networks.{key}.{name}");
        let Some(real) = project.networks.get(key) else {
            return Err(wrong("networks", format!("the project has no network {key:?}")));
        };
        let mut endpoint = EndpointSpec::new(&real.name);
        if making.one_off.is_none_or(|one_off| one_off.use_aliases) {
            endpoint.aliases.push(making.service.to_owned());
            // A container that takes another's place has that one's name only later.
            let name = container_name(project, making.service, making.number);
            if making.one_off.is_none() && !endpoint.aliases.contains(&name) {
                endpoint.aliases.push(name);
            }
            endpoint.aliases.extend(network.aliases.iter().cloned());
        }
        endpoint.links = links(project, service);
        let address = |name: &str, text: &str| -> Result<IpAddr, String> {
            text.parse()
                .map_err(|error| wrong(&attribute(name), format!("{text:?}: {error}")))
        };
        if let Some(text) = &network.ipv4_address {
            match address("ipv4_address", text)? {
                IpAddr::V4(ip) => endpoint.ip = Some(ip),
                IpAddr::V6(_) => {
                    return Err(wrong(&attribute("ipv4_address"), format!("{text} is not IPv4")));
                }
            }
        }
        if let Some(text) = &network.ipv6_address {
            match address("ipv6_address", text)? {
                IpAddr::V6(ip) => endpoint.ip6 = Some(ip),
                IpAddr::V4(_) => {
                    return Err(wrong(&attribute("ipv6_address"), format!("{text} is not IPv6")));
                }
            }
        }
        for text in &network.link_local_ips {
            endpoint.link_local.push(address("link_local_ips", text)?);
        }
        let mac = network.mac_address.clone();
        endpoint.mac = mac.or_else(|| service.mac_address.clone().filter(|_| index == 0));
        endpoint.gateway_priority =
            i32::try_from(network.gw_priority).map_err(|error| wrong(&attribute("gw_priority"), error))?;
        for (name, value) in &network.driver_opts {
            let known = name.starts_with("com.docker.network.endpoint.");
            match endpoint.clone().driver_option(name, value) {
                Ok(taken) => endpoint = taken,
                Err(error) if known => return Err(wrong(&attribute("driver_opts"), error)),
                Err(_) => note(
                    notes,
                    true,
                    &attribute("driver_opts"),
                    &format!("an interface has no option {name:?} here"),
                ),
            }
        }
        if network.interface_name.is_some() {
            endpoint.interface.clone_from(&network.interface_name);
        }
        spec.networks.push(endpoint);
    }
    if spec.networks.is_empty() {
        spec.network = NetworkMode::None;
    }
    Ok(())
}

/// What the service calls others: services it links to, by an alias, their names and numbers, and containers outside
/// the project. Each is found on whichever network is shared with it.
fn links(project: &Project, service: &Service) -> Vec<(String, String)> {
    let mut links = Vec::new();
    for link in &service.links {
        let (to, alias) = link.split_once(':').unwrap_or((link, link));
        // Every container of a service has its name.
        if alias != to {
            links.push((to.to_owned(), alias.to_owned()));
        }
        let replicas = project.any_service(to).map_or(0, Service::replicas);
        for number in 1..=replicas {
            let container = container_name(project, to, number);
            links.push((container, format!("{to}-{number}")));
        }
    }
    for link in &service.external_links {
        let (to, alias) = link.split_once(':').unwrap_or((link, link));
        if alias != to {
            links.push((to.to_owned(), alias.to_owned()));
        }
    }
    links
}

fn mapping(port: &Port) -> Result<PortMapping, String> {
    let number = |text: &str| -> Result<u16, String> {
        text.parse()
            .map_err(|_| wrong("ports", format!("{text:?} is not a port")))
    };
    let target = u16::try_from(port.target)
        .ok()
        .filter(|target| *target > 0)
        .ok_or_else(|| wrong("ports", format!("{} is not a port", port.target)))?;
    let mut mapping = PortMapping::tcp(target).on_every_address();
    mapping.protocol = match port.protocol.as_deref() {
        None | Some("tcp") => Protocol::Tcp,
        Some("udp") => Protocol::Udp,
        Some(other) => return Err(wrong("ports", format!("{other} ports cannot be published"))),
    };
    if let Some(published) = port.published.as_deref().filter(|text| !text.is_empty()) {
        match published.split_once('-') {
            Some((first, last)) => {
                mapping.host = Some(number(first)?);
                mapping.host_end = Some(number(last)?);
            }
            // 0 is any free one.
            None => mapping.host = Some(number(published)?).filter(|port| *port > 0),
        }
    }
    if let Some(text) = port.host_ip.as_deref().filter(|text| !text.is_empty()) {
        let address = text
            .parse()
            .map_err(|error| wrong("ports", format!("host_ip {text:?}: {error}")))?;
        mapping.host_ip = Some(address);
    }
    Ok(mapping)
}

/// A network of the project, as the runtime makes it.
///
/// # Errors
/// The attribute whose value no network can have, and why.
pub(crate) fn network_spec(project: &Project, key: &str) -> Result<NetworkSpec, String> {
    let network = project
        .networks
        .get(key)
        .ok_or_else(|| format!("networks: the project has no network {key:?}"))?;
    let attribute = |name: &str| format!("networks.{key}.{name}");
    let mut spec = NetworkSpec::new(&network.name)
        .internal(network.internal)
        .ipv6(network.enable_ipv6.unwrap_or(false));
    // Every driver is a bridge here; the loader has told of those that are something else elsewhere.
    spec.labels = network_labels(project, key);
    debug_assert!(spec.labels.contains_key(label::PROJECT));
    for (name, value) in &network.driver_opts {
        spec.options.insert(name.clone(), value.clone());
    }
    for pool in network.ipam.iter().flat_map(|ipam| &ipam.config) {
        let Some(subnet) = &pool.subnet else {
            if pool.gateway.is_some() || pool.ip_range.is_some() {
                return Err(wrong(
                    &attribute("ipam.config"),
                    "gateway and ip_range need a subnet",
                ));
            }
            continue;
        };
        let address = |text: &str| -> Result<IpAddr, String> {
            text.parse()
                .map_err(|error| wrong(&attribute("ipam.config"), format!("{text:?}: {error}")))
        };
        let mut made = SubnetSpec::new(subnet);
        if let Some(gateway) = &pool.gateway {
            made = made.gateway(address(gateway)?);
        }
        if let Some(range) = &pool.ip_range {
            made = made.ip_range(range);
        }
        for (name, text) in &pool.aux_addresses {
            made = made.auxiliary(name, address(text)?);
        }
        spec = spec.subnet(made);
    }
    Ok(spec)
}

/// A volume of the project, as the runtime makes it.
///
/// # Errors
/// When the project has none of that key, or it has a driver that is not the local one.
pub(crate) fn volume_options(project: &Project, key: &str) -> Result<VolumeOptions, String> {
    let volume = project
        .volumes
        .get(key)
        .ok_or_else(|| format!("volumes: the project has no volume {key:?}"))?;
    if let Some(driver) = volume
        .driver
        .as_deref()
        .filter(|driver| !matches!(*driver, "local" | "default"))
    {
        let attribute = format!("volumes.{key}.driver");
        return Err(wrong(
            &attribute,
            format!("{driver:?} is not known; there is local"),
        ));
    }
    let mut options = VolumeOptions::named(&volume.name);
    options.labels = volume_labels(project, key);
    for (name, value) in &volume.driver_opts {
        options = options.driver_option(name, value);
    }
    Ok(options)
}
