//! `rdock network`.

use crate::inspect::Inspect;
use crate::listing::{Form, Listing};
use crate::streams::{print, say};
use crate::{Failure, Outcome};
use clap::{Args, Subcommand};
use rdock_runtime::{EndpointSpec, NetworkInfo, NetworkSpec, Networks, Runtime, SubnetSpec};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// List networks
    #[command(visible_alias = "list")]
    Ls {
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
        /// Whole ids
        #[arg(long)]
        no_trunc: bool,
        /// name=, id=, driver=, label= or type=custom|builtin
        #[arg(short, long)]
        filter: Vec<String>,
        /// table, json, a template, or table and a template
        #[arg(long, default_value = "table")]
        format: String,
    },
    /// Create a network
    Create(Box<Create>),
    /// Show networks as JSON
    Inspect(Inspect),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm {
        /// No error for one that does not exist
        #[arg(short, long)]
        force: bool,
        /// Networks
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Have a container join a network
    Connect(Box<Connect>),
    /// Have a container leave a network
    Disconnect {
        /// Accepted: leaving needs no force
        #[arg(short, long)]
        force: bool,
        /// The network
        network: String,
        /// The container
        container: String,
    },
    /// Remove networks that no running container is in
    Prune {
        /// Do not ask
        #[arg(short, long)]
        force: bool,
        /// label=NAME[=VALUE] or label!=NAME[=VALUE]
        #[arg(long)]
        filter: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Driver: bridge
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// Subnet in CIDR notation
    #[arg(long)]
    subnet: Vec<String>,
    /// Gateway of a subnet
    #[arg(long)]
    gateway: Vec<IpAddr>,
    /// Part of a subnet that addresses are chosen from
    #[arg(long)]
    ip_range: Vec<String>,
    /// An address that is never chosen (NAME=ADDRESS)
    #[arg(long)]
    aux_address: Vec<String>,
    /// Give containers IPv6 addresses too
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    ipv6: Option<bool>,
    /// No way out
    #[arg(long)]
    internal: bool,
    /// Accepted: any container can be attached
    #[arg(long)]
    attachable: bool,
    /// A driver option (NAME=VALUE)
    #[arg(short, long)]
    opt: Vec<String>,
    /// A label (NAME=VALUE)
    #[arg(long)]
    label: Vec<String>,
    /// Its name
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// One more name in the network
    #[arg(long)]
    alias: Vec<String>,
    /// IPv4 address
    #[arg(long)]
    ip: Option<std::net::Ipv4Addr>,
    /// IPv6 address
    #[arg(long)]
    ip6: Option<std::net::Ipv6Addr>,
    /// Link-local address
    #[arg(long)]
    link_local_ip: Vec<IpAddr>,
    /// com.docker.network.endpoint.ifname=NAME or com.docker.network.endpoint.sysctls=NAME=VALUE,...
    #[arg(long)]
    driver_opt: Vec<String>,
    /// How much the default route is wanted by this network
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    gw_priority: i32,
    /// The network
    network: String,
    /// The container
    container: String,
}

impl Connect {
    async fn execute(self, runtime: &Runtime) -> Outcome {
        let mut endpoint = EndpointSpec::new(self.network).gateway_priority(self.gw_priority);
        endpoint.aliases = self.alias;
        endpoint.ip = self.ip;
        endpoint.ip6 = self.ip6;
        endpoint.link_local = self.link_local_ip;
        for option in &self.driver_opt {
            let (name, value) = option
                .split_once('=')
                .ok_or_else(|| Failure::new(format!("--driver-opt {option:?} is not NAME=VALUE")))?;
            let taken = endpoint.driver_option(name, value);
            endpoint = taken.map_err(|error| Failure::new(error.to_string()))?;
        }
        runtime
            .container(&self.container)?
            .connect_network(endpoint)
            .await?;
        Ok(0)
    }
}

impl Create {
    fn spec(&self) -> Result<NetworkSpec, Failure> {
        let mut spec = NetworkSpec::new(&self.name).internal(self.internal);
        spec.driver.clone_from(&self.driver);
        spec.ipv6 = self
            .ipv6
            .unwrap_or_else(|| self.subnet.iter().any(|subnet| subnet.contains(':')));
        spec.subnets = self.subnet.iter().map(SubnetSpec::new).collect();
        // As docker: each belongs to the one subnet of its family.
        let family = |text: &str| text.contains(':');
        let mut place = |what: &str, text: &str, put: &mut dyn FnMut(&mut SubnetSpec)| {
            let found = spec
                .subnets
                .iter_mut()
                .find(|subnet| family(&subnet.subnet) == family(text));
            found.map(put).ok_or_else(|| {
                Failure::new(format!("no subnet for the {what} {text}: name one with --subnet"))
            })
        };
        for gateway in &self.gateway {
            place("gateway", &gateway.to_string(), &mut |subnet| {
                subnet.gateway = Some(*gateway);
            })?;
        }
        for range in &self.ip_range {
            place("range", range, &mut |subnet| {
                subnet.ip_range = Some(range.clone())
            })?;
        }
        for text in &self.aux_address {
            let wrong = || Failure::new(format!("--aux-address {text}: expected NAME=ADDRESS"));
            let (name, address) = text.split_once('=').ok_or_else(wrong)?;
            let ip: IpAddr = address.parse().map_err(|_| wrong())?;
            place("address", address, &mut |subnet| {
                subnet.auxiliary.insert(name.to_owned(), ip);
            })?;
        }
        for text in &self.opt {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            spec.options.insert(name.to_owned(), value.to_owned());
        }
        for text in &self.label {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            spec.labels.insert(name.to_owned(), value.to_owned());
        }
        Ok(spec)
    }
}

/// With docker's field names.
pub(crate) fn describe(info: &NetworkInfo) -> Value {
    let config: Vec<Value> = info
        .subnets
        .iter()
        .map(|subnet| {
            let mut config = Map::new();
            config.insert("Subnet".into(), json!(subnet.subnet));
            if let Some(range) = &subnet.ip_range {
                config.insert("IPRange".into(), json!(range));
            }
            config.insert("Gateway".into(), json!(subnet.gateway));
            if !subnet.auxiliary.is_empty() {
                config.insert("AuxiliaryAddresses".into(), json!(subnet.auxiliary));
            }
            Value::Object(config)
        })
        .collect();
    let prefix = |ipv6: bool| {
        let subnet = info
            .subnets
            .iter()
            .find(|subnet| subnet.gateway.is_ipv6() == ipv6)?;
        subnet.subnet.rsplit_once('/').map(|(_, prefix)| prefix)
    };
    let containers: Map<String, Value> = info
        .containers
        .iter()
        .map(|(name, member)| {
            let ipv6 = member
                .ip6
                .map(|ip| format!("{ip}/{}", prefix(true).unwrap_or("64")))
                .unwrap_or_default();
            let place = json!({
                "Name": name,
                "MacAddress": member.mac,
                "IPv4Address": format!("{}/{}", member.ip, prefix(false).unwrap_or("16")),
                "IPv6Address": ipv6,
            });
            (member.id.clone(), place)
        })
        .collect();
    json!({
        "Name": info.name,
        "Id": info.id,
        "Created": info.created,
        "Scope": "local",
        "Driver": info.driver,
        "EnableIPv4": true,
        "EnableIPv6": info.ipv6,
        "IPAM": {"Driver": "default", "Options": {}, "Config": config},
        "Internal": info.internal,
        "Attachable": false,
        "Ingress": false,
        "Containers": containers,
        "Options": info.options,
        "Labels": info.labels,
    })
}

/// Whether a network is one that a `--filter` of `ls` or `prune` means.
fn fits(info: &NetworkInfo, filter: &str) -> Result<bool, Failure> {
    let label = |text: &str| match text.split_once('=') {
        Some((name, value)) => info.labels.get(name).is_some_and(|is| is == value),
        None => info.labels.contains_key(text),
    };
    if let Some(text) = filter.strip_prefix("label!=") {
        return Ok(!label(text));
    }
    Ok(match filter.split_once('=') {
        Some(("label", text)) => label(text),
        Some(("name", text)) => info.name.contains(text),
        Some(("id", text)) => info.id.starts_with(text),
        Some(("driver", text)) => info.driver == text,
        Some(("type", "custom")) => info.created.is_some(),
        Some(("type", "builtin")) => info.created.is_none(),
        _ => {
            return Err(Failure::new(format!(
                "--filter {filter}: not a filter of networks"
            )));
        }
    })
}

fn all_fit(info: &NetworkInfo, filters: &[String]) -> Result<bool, Failure> {
    for filter in filters {
        if !fits(info, filter)? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Network {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let networks = runtime.networks();
        match self {
            Self::Ls {
                quiet,
                no_trunc,
                filter,
                format,
            } => {
                let form = Form::parse(&format)?;
                return list(&networks, quiet, no_trunc, &filter, &form);
            }
            Self::Create(create) => print(&networks.create(&create.spec()?)?.id),
            Self::Inspect(verb) => return verb.of_kind("network").execute(runtime),
            Self::Rm { force, names } => return remove(&networks, force, &names),
            Self::Connect(connect) => return connect.execute(runtime).await,
            Self::Disconnect {
                force: _,
                network,
                container,
            } => {
                let container = runtime.container(&container)?;
                container.disconnect_network(network).await?;
            }
            Self::Prune { force: _, filter } => {
                for info in networks.list()? {
                    // A filter that is none is said before anything is removed.
                    all_fit(&info, &filter)?;
                }
                let removed = networks.prune(|info| all_fit(info, &filter).unwrap_or(false))?;
                if !removed.is_empty() {
                    print("Deleted Networks:");
                }
                removed.iter().for_each(|name| print(name));
            }
        }
        Ok(0)
    }
}

const LISTING: Listing = Listing {
    fields: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    usual: &["ID", "Name", "Driver", "Scope"],
};

fn list(networks: &Networks, quiet: bool, no_trunc: bool, filters: &[String], form: &Form) -> Outcome {
    let mut rows = Vec::new();
    for info in networks.list()? {
        if !all_fit(&info, filters)? {
            continue;
        }
        let id = match no_trunc {
            true => &info.id,
            false => &info.id[..12],
        };
        if quiet {
            print(id);
            continue;
        }
        let labels = info.labels.iter().map(|(name, value)| format!("{name}={value}"));
        let cells = [
            ("ID", id.to_owned()),
            ("Name", info.name.clone()),
            ("Driver", info.driver.clone()),
            ("Scope", "local".to_owned()),
            ("IPv6", info.ipv6.to_string()),
            ("Internal", info.internal.to_string()),
            ("Labels", labels.collect::<Vec<_>>().join(",")),
            ("CreatedAt", info.created.clone().unwrap_or_default()),
        ];
        rows.push(
            cells
                .map(|(name, value)| (name.to_owned(), Value::String(value)))
                .into_iter()
                .collect(),
        );
    }
    match quiet {
        true => Ok(0),
        false => LISTING.show(form, rows),
    }
}

/// Goes on after a failure, as docker does.
fn remove(networks: &Networks, force: bool, names: &[String]) -> Outcome {
    let mut code = 0;
    for name in names {
        match networks.remove(name) {
            Ok(()) => print(name),
            Err(rdock_runtime::NetError::NoSuchNetwork { .. }) if force => {}
            Err(error) => {
                say(&format!("rdock: {error}"));
                code = 1;
            }
        }
    }
    Ok(code)
}
