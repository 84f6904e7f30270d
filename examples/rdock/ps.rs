//! `rdock ps`.

use crate::Outcome;
use crate::listing::{Form, Listing};
use crate::streams::print;
use crate::table::{ago, size};
use clap::Args;
use rdock_runtime::{ContainerFilter, ContainerInfo, HealthStatus, NetworkMode, Protocol, Runtime, Status};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Ended ones too
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// The last one made
    #[arg(short, long)]
    latest: bool,
    /// The last ones made
    #[arg(short = 'n', long, allow_negative_numbers = true)]
    last: Option<i64>,
    /// What they have written beside their images
    #[arg(short, long)]
    size: bool,
    /// Only what fits: id, name, label, exited, status, ancestor, before, since, volume, network, publish, expose,
    /// health, as KEY=VALUE
    #[arg(short, long)]
    filter: Vec<String>,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// table, json, a template, or table and a template
    #[arg(long, default_value = "table")]
    format: String,
}

const FIELDS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Size", "SIZE"),
];
const LISTING: Listing = Listing {
    fields: FIELDS,
    usual: &["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"],
};
const WITH_SIZE: Listing = Listing {
    fields: FIELDS,
    usual: &[
        "ID",
        "Image",
        "Command",
        "RunningFor",
        "Status",
        "Ports",
        "Names",
        "Size",
    ],
};

impl Ps {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let mut filter = ContainerFilter::default();
        for condition in &self.filter {
            filter.add(condition)?;
        }
        let form = Form::parse(&self.format)?;
        let most = match (self.latest, self.last) {
            (true, _) => Some(1),
            // A negative number is no limit, as in docker.
            (false, last) => last.and_then(|last| usize::try_from(last).ok()),
        };
        let all = self.all || most.is_some() || filter.asks_for_status();
        let lives =
            |info: &ContainerInfo| info.status.is_running() || matches!(info.status, Status::Restarting(_));
        let found = runtime
            .list(&filter)?
            .into_iter()
            .filter(|info| all || lives(info));
        let sized = self.size || self.format.contains(".Size");
        let mut rows = Vec::new();
        for info in found.take(most.unwrap_or(usize::MAX)) {
            if self.quiet {
                print(self.id(&info));
                continue;
            }
            rows.push(self.row(runtime, &info, sized));
        }
        match (self.quiet, self.size) {
            (true, _) => Ok(0),
            (false, true) => WITH_SIZE.show(&form, rows),
            (false, false) => LISTING.show(&form, rows),
        }
    }

    fn id<'a>(&self, info: &'a ContainerInfo) -> &'a str {
        match self.no_trunc {
            true => &info.id,
            false => &info.id[..12],
        }
    }

    fn row(&self, runtime: &Runtime, info: &ContainerInfo, sized: bool) -> Map<String, Value> {
        let short = |text: &str, length: usize| match text.char_indices().nth(length) {
            Some(_) if !self.no_trunc => text.chars().take(length - 1).chain(['…']).collect(),
            _ => text.to_owned(),
        };
        let exposed = runtime
            .container(&info.id)
            .map(|container| container.exposed_ports(info));
        let mounts: Vec<String> = info
            .mounts
            .iter()
            .map(|mount| match &mount.name {
                Some(name) => short(name, 15),
                None => short(&mount.source, 15),
            })
            .collect();
        let volumes = info.mounts.iter().filter(|mount| mount.kind == "volume").count();
        let labels = info
            .spec
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let size = match sized {
            false => String::new(),
            true => sizes(runtime, info),
        };
        let created = info.created.parse::<jiff::Timestamp>();
        let created = created.map(|time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string());
        let cells = [
            ("ID", self.id(info).to_owned()),
            ("Image", info.image.clone()),
            ("Command", format!("{:?}", short(&info.command.join(" "), 20))),
            ("CreatedAt", created.unwrap_or_default()),
            ("RunningFor", format!("{} ago", ago(&info.created))),
            ("Status", status(info)),
            ("State", info.status.name().to_owned()),
            ("Ports", ports(info, &exposed.unwrap_or_default())),
            ("Names", info.name.clone()),
            ("Labels", labels.collect::<Vec<_>>().join(",")),
            ("Mounts", mounts.join(",")),
            ("LocalVolumes", volumes.to_string()),
            ("Networks", networks(info)),
            ("Size", size),
        ];
        let cells = cells.into_iter();
        cells
            .map(|(name, cell)| (name.to_owned(), Value::String(cell)))
            .collect()
    }
}

/// docker's form: what was written, and together with the image.
fn sizes(runtime: &Runtime, info: &ContainerInfo) -> String {
    // One that is removed meanwhile has none.
    let container = runtime.container(&info.id);
    let written = container
        .and_then(|container| container.written_bytes())
        .unwrap_or(0);
    let image = runtime.images().get(&info.image_id).ok().flatten();
    let whole = image.map_or(0, |image| image.size()) + written;
    format!("{} (virtual {})", size(written), size(whole))
}

pub(crate) fn networks(info: &ContainerInfo) -> String {
    let names: Vec<&str> = match &info.spec.network {
        NetworkMode::Host => vec!["host"],
        NetworkMode::None => vec!["none"],
        NetworkMode::Container(_) => vec![],
        NetworkMode::Default if !info.networks.is_empty() => info
            .networks
            .iter()
            .map(|endpoint| endpoint.network.as_str())
            .collect(),
        NetworkMode::Default if info.spec.networks.is_empty() => vec!["default"],
        NetworkMode::Default => info
            .spec
            .networks
            .iter()
            .map(|endpoint| endpoint.network.as_str())
            .collect(),
        _ => vec![],
    };
    names.join(",")
}

pub(crate) fn status(info: &ContainerInfo) -> String {
    match &info.status {
        Status::Running | Status::Paused => {
            let up = format!("Up {}", info.started_at.as_deref().map(ago).unwrap_or_default());
            match (&info.status, &info.health) {
                (Status::Paused, _) => format!("{up} (Paused)"),
                (_, Some(health)) if health.status == HealthStatus::Starting => {
                    format!("{up} (health: starting)")
                }
                (_, Some(health)) => format!("{up} ({})", health.status),
                (_, None) => up,
            }
        }
        Status::Restarting(exit) => {
            format!("Restarting ({}) {} ago", exit.code(), ago(&exit.finished_at))
        }
        Status::Dead => "Dead".to_owned(),
        Status::Exited(exit) => format!("Exited ({}) {} ago", exit.code(), ago(&exit.finished_at)),
        _ => "Created".to_owned(),
    }
}

/// Published ports, ranges together, and then those that are only exposed.
pub(crate) fn ports(info: &ContainerInfo, exposed: &BTreeSet<(u16, Protocol)>) -> String {
    if !info.status.is_running() {
        return String::new();
    }
    let word = |protocol: Protocol| match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    // Neighbours on one address whose ports differ by the same amount are one range.
    let mut groups: BTreeMap<(Protocol, std::net::IpAddr, i32), Vec<u16>> = BTreeMap::new();
    for bound in &info.ports {
        let shift = i32::from(bound.host.port()) - i32::from(bound.container);
        groups
            .entry((bound.protocol, bound.host.ip(), shift))
            .or_default()
            .push(bound.container);
    }
    let mut texts = Vec::new();
    for ((protocol, ip, shift), mut ports) in groups {
        ports.sort_unstable();
        for (first, last) in runs(&ports) {
            let host = |port: u16| (i32::from(port) + shift).unsigned_abs();
            let address = SocketAddr::new(ip, 0).to_string();
            let address = address.strip_suffix(":0").unwrap_or(&address);
            texts.push((
                first,
                match first == last {
                    true => format!("{address}:{}->{first}/{}", host(first), word(protocol)),
                    false => {
                        format!(
                            "{address}:{}-{}->{first}-{last}/{}",
                            host(first),
                            host(last),
                            word(protocol)
                        )
                    }
                },
            ));
        }
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let published = |port: u16| {
            info.ports
                .iter()
                .any(|bound| (bound.container, bound.protocol) == (port, protocol))
        };
        let ports = exposed
            .iter()
            .filter(|(port, own)| *own == protocol && !published(*port));
        let ports: Vec<u16> = ports.map(|(port, _)| *port).collect();
        for (first, last) in runs(&ports) {
            texts.push((
                first,
                match first == last {
                    true => format!("{first}/{}", word(protocol)),
                    false => format!("{first}-{last}/{}", word(protocol)),
                },
            ));
        }
    }
    texts.sort();
    let texts: Vec<String> = texts.into_iter().map(|(_, text)| text).collect();
    texts.join(", ")
}

/// First and last of each run of neighbours in a sorted list.
fn runs(ports: &[u16]) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some((_, last)) if *last == *port || last.checked_add(1) == Some(*port) => *last = *port,
            _ => runs.push((*port, *port)),
        }
    }
    runs
}
