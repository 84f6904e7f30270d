//! The files of a container that say where it is: `hosts`, `hostname` and `resolv.conf`, and which networks it is in
//! beside what its spec says.

use crate::error::{Error, Result};
use crate::net::{self, Attachments};
use crate::spec::{ContainerSpec, EndpointSpec, NetworkMode};
use crate::state::{ContainerDir, Record};
use rustix::fs::Mode;

/// What a container joined and left while it ran, for its next start.
const ENDPOINTS: &str = "networks.json";

/// Writes `hosts`, `hostname` and `resolv.conf`; what the network files had to leave out.
pub(crate) fn write(
    dir: &ContainerDir,
    spec: &ContainerSpec,
    host_network: bool,
    hostname: &str,
    name: &str,
    networks: &Attachments,
    links: Vec<(String, String)>,
) -> Result<Option<String>> {
    let mut extra = extra_hosts(spec, networks);
    extra.extend(links);
    let hosts = match (host_network, std::fs::read_to_string("/etc/hosts")) {
        (true, Ok(hosts)) if spec.extra_hosts.is_empty() => hosts,
        _ => net::hosts(&networks.addresses(), &[hostname, name], &extra),
    };
    let (resolv_conf, warning) = resolv_conf(spec, host_network, networks);
    for (file, text) in [
        ("hosts", hosts),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", resolv_conf),
    ] {
        let path = dir.file(file);
        std::fs::write(&path, text).map_err(Error::state("write", &path))?;
        // The state directory is closed to others; inside the container every user reads them.
        let mode = Mode::from_raw_mode(0o644);
        rustix::fs::chmod(&path, mode).map_err(|errno| Error::state("chmod", &path)(errno.into()))?;
    }
    Ok(warning)
}

/// Brings the files of a running container up to date, in place: they are mounted inside. Lines that others wrote into
/// `hosts` stay.
pub(crate) fn update(dir: &ContainerDir, record: &Record, networks: &Attachments) -> Result<()> {
    let read = |file: &str| {
        let path = dir.file(file);
        std::fs::read_to_string(&path).map_err(Error::state("read", &path))
    };
    let hostname = read("hostname")?;
    let own = net::hosts(&networks.addresses(), &[hostname.trim(), &record.name], &[]);
    let none = net::hosts(&[], &[], &[]);
    let own = own.strip_prefix(&none).unwrap_or_default();
    let names = format!("{} {}", hostname.trim(), record.name);
    let hosts: String = read("hosts")?
        .lines()
        .filter(|line| line.split_once('\t').is_none_or(|(_, is)| is != names))
        .flat_map(|line| [line, "\n"])
        .collect();
    let path = dir.file("hosts");
    std::fs::write(&path, hosts + own).map_err(Error::state("write", &path))?;
    let by_resolver = read("resolv.conf")?.starts_with("nameserver 127.0.0.11\n");
    if by_resolver != networks.have_names() {
        let path = dir.file("resolv.conf");
        let (text, _) = resolv_conf(&record.spec, false, networks);
        std::fs::write(&path, text).map_err(Error::state("write", &path))?;
    }
    Ok(())
}

fn resolv_conf(spec: &ContainerSpec, host_network: bool, networks: &Attachments) -> (String, Option<String>) {
    let resolving = match host_network {
        true => net::Resolving::AsHost,
        false if networks.have_names() => net::Resolving::ByResolver,
        false => net::Resolving::Directly,
    };
    let wishes = net::Wishes {
        servers: &spec.dns,
        search: &spec.dns_search,
        options: &spec.dns_options,
    };
    let (text, warning) = net::resolv_conf(resolving, wishes);
    // Without a network no name server is reached, wherever it is.
    let warning = warning.filter(|_| spec.network != NetworkMode::None);
    (text, warning.map(|warning| warning.to_string()))
}

/// The spec's, with the host's address in its place.
fn extra_hosts(spec: &ContainerSpec, networks: &Attachments) -> Vec<(String, String)> {
    let host = networks.host_address().unwrap_or(std::net::Ipv4Addr::LOCALHOST);
    let address = |address: &String| match address.as_str() {
        "host-gateway" => host.to_string(),
        _ => address.clone(),
    };
    spec.extra_hosts
        .iter()
        .map(|(name, text)| (name.clone(), address(text)))
        .collect()
}

/// Keeps what the next start joins, instead of what the spec says.
pub(crate) fn keep_endpoints(dir: &ContainerDir, endpoints: &[EndpointSpec]) -> Result<()> {
    let path = dir.file(ENDPOINTS);
    let bytes = serde_json::to_vec(endpoints).map_err(|error| Error::state("write", &path)(error.into()))?;
    crate::state::write_atomically(&path, &bytes)
}

/// What the next start joins, where that is not what the spec says.
pub(crate) fn kept_endpoints(dir: &ContainerDir) -> Result<Option<Vec<EndpointSpec>>> {
    let path = dir.file(ENDPOINTS);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let endpoints = serde_json::from_slice(&bytes);
            endpoints
                .map(Some)
                .map_err(|error| Error::state("read", &path)(error.into()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::state("read", &path)(error)),
    }
}
