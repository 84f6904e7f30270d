//! `rdock ps`.

use crate::Outcome;
use crate::streams::print;
use crate::table::{Format, ago, show};
use clap::Args;
use rdock_runtime::{ContainerInfo, HealthStatus, Runtime, Status};

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
    #[arg(short = 'n', long)]
    last: Option<usize>,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// table or json
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl Ps {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let most = if self.latest { Some(1) } else { self.last };
        let mut rows = Vec::new();
        for container in runtime.containers()?.into_iter().take(most.unwrap_or(usize::MAX)) {
            // It may be removed while we look.
            let (Ok(info), Ok(started)) = (container.inspect(), container.started_at()) else {
                continue;
            };
            let lives = info.status.is_running() || matches!(info.status, Status::Restarting(_));
            if !lives && !self.all && most.is_none() {
                continue;
            }
            let id = if self.no_trunc {
                info.id.clone()
            } else {
                info.id[..12].to_owned()
            };
            if self.quiet {
                print(&id);
                continue;
            }
            let command = format!("\"{}\"", info.command.join(" "));
            let command = match command.char_indices().nth(19) {
                Some((at, _)) if !self.no_trunc => format!("{}…\"", &command[..at]),
                _ => command,
            };
            rows.push(vec![
                id,
                info.image.clone(),
                command,
                format!("{} ago", ago(&info.created)),
                status(&info, started.as_deref()),
                ports(&info),
                info.name.clone(),
            ]);
        }
        if !self.quiet {
            let headings = [
                "CONTAINER ID",
                "IMAGE",
                "COMMAND",
                "CREATED",
                "STATUS",
                "PORTS",
                "NAMES",
            ];
            show(&headings, rows, self.format);
        }
        Ok(0)
    }
}

fn status(info: &ContainerInfo, started: Option<&str>) -> String {
    match &info.status {
        Status::Running | Status::Paused => {
            let up = format!("Up {}", started.map(ago).unwrap_or_default());
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

fn ports(info: &ContainerInfo) -> String {
    let texts: Vec<String> = info
        .ports
        .iter()
        .map(|bound| {
            format!(
                "{}->{}/{}",
                bound.host,
                bound.container,
                format!("{:?}", bound.protocol).to_lowercase()
            )
        })
        .collect();
    texts.join(", ")
}
