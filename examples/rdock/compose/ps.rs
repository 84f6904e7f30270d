//! `compose ps`, `ls`, `port` and `top`: what there is.

use super::session::{Session, number, service};
use crate::listing::{Form, Listing};
use crate::streams::print;
use crate::table::ago;
use crate::{Failure, Outcome};
use clap::Args;
use rdock_compose::ComposeProject;
use rdock_compose::label;
use rdock_runtime::{ContainerInfo, Protocol, Status};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

#[derive(Debug, Args)]
pub(super) struct Ps {
    /// Ended ones too, and those of run
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Only services
    #[arg(long)]
    services: bool,
    /// Only those in this state: created, running, paused, restarting, exited, dead
    #[arg(long)]
    status: Vec<String>,
    /// status=STATE
    #[arg(long)]
    filter: Vec<String>,
    /// table, json, a template, or table and a template
    #[arg(long, default_value = "table")]
    format: String,
    /// Whole commands and ids
    #[arg(long)]
    no_trunc: bool,
    /// Containers of services that the files no longer have, too
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    orphans: bool,
    /// Services; all without any
    names: Vec<String>,
}

const LISTING: Listing = Listing {
    fields: &[
        ("Name", "NAME"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("Service", "SERVICE"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Ports", "PORTS"),
        ("ID", "CONTAINER ID"),
        ("CreatedAt", "CREATED AT"),
        ("State", "STATE"),
        ("Health", "HEALTH"),
        ("ExitCode", "EXIT CODE"),
        ("Project", "PROJECT"),
        ("Labels", "LABELS"),
        ("Networks", "NETWORKS"),
        ("Publishers", "PUBLISHERS"),
        ("Names", "NAMES"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Size", "SIZE"),
    ],
    usual: &[
        "Name",
        "Image",
        "Command",
        "Service",
        "RunningFor",
        "Status",
        "Ports",
    ],
};

const STATES: [&str; 7] = [
    "created",
    "running",
    "paused",
    "restarting",
    "exited",
    "dead",
    "removing",
];

impl Ps {
    pub(super) fn execute(self, session: &Session) -> Outcome {
        let form = Form::parse(&self.format)?;
        let mut states = self.status.clone();
        for text in &self.filter {
            match text.split_once('=') {
                Some(("status", state)) => states.push(state.to_owned()),
                _ => {
                    return Err(Failure::new(format!(
                        "unknown filter {text:?}: it is status=STATE"
                    )));
                }
            }
        }
        if let Some(wrong) = states.iter().find(|state| !STATES.contains(&state.as_str())) {
            return Err(Failure::new(format!(
                "unknown state {wrong:?}: it is one of {}",
                STATES.join(", ")
            )));
        }
        let project = session.known()?;
        let one_offs = self.all || !states.is_empty();
        let mut found = session.containers(&project, &self.names, one_offs)?;
        if let Some(files) = project.loaded().filter(|_| !self.orphans) {
            found.retain(|info| super::session::known(files, &service(info)).is_ok());
        }
        found.retain(|info| match states.as_slice() {
            [] => self.all || info.status.is_running() || matches!(info.status, Status::Restarting(_)),
            states => states.iter().any(|state| state == info.status.name()),
        });
        if self.quiet {
            found.iter().for_each(|info| print(&info.id));
            return Ok(0);
        }
        if self.services {
            let services: BTreeSet<String> = found.iter().map(service).collect();
            services.iter().for_each(|name| print(name));
            return Ok(0);
        }
        let rows = found.iter().map(|info| self.row(session, info));
        LISTING.show(&form, rows.collect())
    }

    fn row(&self, session: &Session, info: &ContainerInfo) -> Map<String, Value> {
        let command = info.command.join(" ");
        let command = match command.char_indices().nth(20) {
            Some(_) if !self.no_trunc => command.chars().take(19).chain(['…']).collect(),
            _ => command,
        };
        let exposed = session
            .runtime()
            .container(&info.id)
            .map(|container| container.exposed_ports(info))
            .unwrap_or_default();
        let labels: Vec<String> = info
            .spec
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let publishers: Vec<Value> = info
            .ports
            .iter()
            .map(|bound| {
                json!({
                    "URL": bound.host.ip().to_string(),
                    "TargetPort": bound.container,
                    "PublishedPort": bound.host.port(),
                    "Protocol": match bound.protocol { Protocol::Tcp => "tcp", Protocol::Udp => "udp" },
                })
            })
            .collect();
        let code = match &info.status {
            Status::Exited(exit) | Status::Restarting(exit) => exit.code(),
            _ => 0,
        };
        let created = info.created.parse::<jiff::Timestamp>();
        let created = created.map(|time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string());
        let volumes = info.mounts.iter().filter(|mount| mount.kind == "volume").count();
        let mounts: Vec<String> = info
            .mounts
            .iter()
            .map(|mount| mount.name.clone().unwrap_or_else(|| mount.source.clone()))
            .collect();
        let health = info.health.as_ref().map(|health| health.status.to_string());
        let value = json!({
            "ID": info.id.chars().take(if self.no_trunc { usize::MAX } else { 12 }).collect::<String>(),
            "Name": info.name,
            "Image": info.image,
            "Command": format!("{command:?}"),
            "Project": info.spec.labels.get(label::PROJECT),
            "Service": service(info),
            "CreatedAt": created.unwrap_or_default(),
            "RunningFor": format!("{} ago", ago(&info.created)),
            "Status": crate::ps::status(info),
            "State": info.status.name(),
            "Health": health.unwrap_or_default(),
            "ExitCode": code,
            "Ports": crate::ps::ports(info, &exposed),
            "Publishers": publishers,
            "Labels": labels.join(","),
            "Networks": crate::ps::networks(info),
            "Names": info.name,
            "Mounts": mounts.join(","),
            "LocalVolumes": volumes.to_string(),
            // As docker, which does not measure it for this verb.
            "Size": "0B",
        });
        match value {
            Value::Object(row) => row,
            _ => Map::new(),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Projects that do not run too
    #[arg(short, long)]
    all: bool,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
    /// name=TEXT: only projects whose name has it
    #[arg(long)]
    filter: Vec<String>,
    /// table or json
    #[arg(long, default_value = "table")]
    format: String,
}

impl Ls {
    pub(super) fn execute(self, session: &Session) -> Outcome {
        let mut wanted = Vec::new();
        for text in &self.filter {
            match text.split_once('=') {
                Some(("name", part)) => wanted.push(part),
                _ => return Err(Failure::new(format!("unknown filter {text:?}: it is name=TEXT"))),
            }
        }
        let mut projects = ComposeProject::list(session.runtime())?;
        projects.retain(|project| {
            let named = wanted.is_empty() || wanted.iter().any(|part| project.name.contains(part));
            named && (self.all || project.states.contains_key("running"))
        });
        if self.quiet {
            projects.iter().for_each(|project| print(&project.name));
            return Ok(0);
        }
        let rows = projects.into_iter().map(|project| {
            let states: Vec<String> = project
                .states
                .into_iter()
                .map(|(state, count)| format!("{state}({count})"))
                .collect();
            [project.name, states.join(", "), project.files]
        });
        match self.format.as_str() {
            "json" => {
                let rows: Vec<Value> = rows
                    .map(
                        |[name, status, files]| json!({"Name": name, "Status": status, "ConfigFiles": files}),
                    )
                    .collect();
                print(&Value::Array(rows).to_string());
            }
            "table" => {
                let mut lines = vec![["NAME", "STATUS", "CONFIG FILES"].map(str::to_owned).to_vec()];
                lines.extend(rows.map(|row| row.to_vec()));
                crate::listing::columns(&lines);
            }
            other => {
                return Err(Failure::new(format!(
                    "unknown format {other:?}: it is table or json"
                )));
            }
        }
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Port {
    /// Which of the service's containers, from 1
    #[arg(long)]
    index: Option<u32>,
    /// tcp or udp
    #[arg(long, default_value = "tcp")]
    protocol: String,
    /// The service
    service: String,
    /// The port in the container
    port: u16,
}

impl Port {
    pub(super) fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        if !["tcp", "udp"].contains(&self.protocol.as_str()) {
            return Err(Failure::new(format!(
                "--protocol {}: it is tcp or udp",
                self.protocol
            )));
        }
        let info = project.running(&self.service, self.index)?.inspect()?;
        let found = info.ports.iter().find(|bound| {
            bound.container == self.port
                && self.protocol
                    == match bound.protocol {
                        Protocol::Tcp => "tcp",
                        Protocol::Udp => "udp",
                    }
        });
        match found {
            Some(bound) => print(&bound.host.to_string()),
            None => {
                return Err(Failure::new(format!(
                    "no port {}/{} for container {}",
                    self.port, self.protocol, info.name
                )));
            }
        }
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Top {
    /// Services; all without any
    services: Vec<String>,
}

impl Top {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let mut lines: Vec<Vec<String>> = Vec::new();
        for info in session.containers(&project, &self.services, true)? {
            if !info.status.is_running() {
                continue;
            }
            let none: [String; 0] = [];
            let top = session.runtime().container(&info.id)?.top(&none).await?;
            // As docker: one table, in which each line says whose process it is.
            let whose = |service: &str, number: &str, rest: Vec<String>| {
                [service, number]
                    .iter()
                    .map(|&cell| cell.to_owned())
                    .chain(rest)
                    .collect()
            };
            if lines.is_empty() {
                lines.push(whose("SERVICE", "#", top.titles));
            }
            let (service, number) = (service(&info), number(&info).to_string());
            lines.extend(
                top.processes
                    .into_iter()
                    .map(|process| whose(&service, &number, process)),
            );
        }
        if !lines.is_empty() {
            crate::listing::columns(&lines);
        }
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Volumes {
    /// Only names
    #[arg(short, long)]
    quiet: bool,
    /// table, json, a template, or table and a template
    #[arg(long, default_value = "table")]
    format: String,
    /// Only those that these services use; all without any
    services: Vec<String>,
}

const VOLUMES: Listing = Listing {
    fields: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Labels", "LABELS"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Scope", "SCOPE"),
    ],
    usual: &["Driver", "Name"],
};

impl Volumes {
    pub(super) fn execute(self, session: &Session) -> Outcome {
        let form = Form::parse(&self.format)?;
        let project = session.known()?;
        let used: BTreeSet<String> = session
            .containers(&project, &self.services, false)?
            .into_iter()
            .flat_map(|info| info.mounts)
            .filter_map(|mount| mount.name)
            .collect();
        let mut volumes = session.runtime().volumes().list()?;
        volumes.retain(|volume| {
            let ours = volume.labels.get(label::PROJECT) == Some(&project.project().name);
            used.contains(&volume.name) || self.services.is_empty() && ours
        });
        if self.quiet {
            volumes.iter().for_each(|volume| print(&volume.name));
            return Ok(0);
        }
        let rows = volumes.into_iter().map(|volume| {
            let labels: Vec<String> = volume
                .labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let cells = [
                ("Driver", "local".to_owned()),
                ("Name", volume.name),
                ("Labels", labels.join(",")),
                ("Mountpoint", volume.mountpoint.display().to_string()),
                ("Scope", "local".to_owned()),
            ];
            let cells = cells.into_iter();
            cells
                .map(|(field, cell)| (field.to_owned(), Value::String(cell)))
                .collect()
        });
        VOLUMES.show(&form, rows.collect())
    }
}
