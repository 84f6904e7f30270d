//! Docker's legacy links: where other containers are, as lines of `/etc/hosts` and as variables.

use crate::container::Container;
use crate::error::{Error, Result};
use crate::net::{self, NetError};
use crate::runtime::Runtime;
use crate::spec::{ContainerSpec, Protocol};

/// What the links of a container add to it.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Names and the address that they have.
    pub(super) hosts: Vec<(String, String)>,
    /// `NAME=value`.
    pub(super) variables: Vec<String>,
}

/// Looks where the linked containers are now.
///
/// # Errors
/// [`Error::NoSuchContainer`], [`Error::NotRunning`]; [`NetError::NotConnected`] when one has no network in common with
/// `own`, whose container is `name`.
pub(super) fn find(
    runtime: &Runtime,
    spec: &ContainerSpec,
    name: &str,
    own: &net::Attachments,
) -> Result<Links> {
    let mut links = Links::default();
    let own = match spec.links.is_empty() {
        true => return Ok(links),
        false => own.infos(),
    };
    for (container, alias) in &spec.links {
        let (dir, record) = runtime.state().find(container)?;
        let other = Container::new(runtime.clone(), dir, record);
        let info = other.inspect()?;
        if !info.status.is_running() {
            return Err(Error::NotRunning { name: info.name });
        }
        let common = info
            .networks
            .iter()
            .find(|endpoint| own.iter().any(|mine| mine.network == endpoint.network));
        let endpoint = common.ok_or_else(|| NetError::NotConnected {
            container: info.name.clone(),
            network: own.first().map_or_else(String::new, |mine| mine.network.clone()),
        })?;
        let address = endpoint.ip.to_string();
        let names = [alias.as_str(), &info.id[..12], &info.name];
        links.hosts.push((names.join(" "), address.clone()));
        let prefix = alias.to_uppercase().replace(['-', '.'], "_");
        links.variables.push(format!("{prefix}_NAME=/{name}/{alias}"));
        let ports = other.exposed_ports(&info);
        for (index, (port, protocol)) in ports.into_iter().enumerate() {
            let protocol = match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            let address_of_port = format!("{protocol}://{address}:{port}");
            if index == 0 {
                links.variables.push(format!("{prefix}_PORT={address_of_port}"));
            }
            let of_port = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
            links.variables.extend([
                format!("{of_port}={address_of_port}"),
                format!("{of_port}_ADDR={address}"),
                format!("{of_port}_PORT={port}"),
                format!("{of_port}_PROTO={protocol}"),
            ]);
        }
        let of_image = other
            .record()
            .image_config
            .as_ref()
            .map(|config| config.config.env.clone());
        let of_image = of_image.unwrap_or_default();
        let of_image = of_image.iter().filter_map(|text| text.split_once('='));
        let of_spec = info
            .spec
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let mut variables = std::collections::BTreeMap::new();
        variables.extend(of_image);
        variables.extend(of_spec);
        // As docker: what every image has says nothing.
        for (name, value) in variables
            .into_iter()
            .filter(|(name, _)| !matches!(*name, "HOME" | "PATH"))
        {
            links.variables.push(format!("{prefix}_ENV_{name}={value}"));
        }
    }
    Ok(links)
}
