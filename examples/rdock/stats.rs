//! `rdock stats`.

use crate::listing::{Form, Listing};
use crate::streams;
use crate::table::size;
use crate::{Failure, Outcome};
use clap::Args;
use rdock_runtime::{Container, ContainerInfo, Error, Runtime, Stats};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct StatsArguments {
    /// Those that do not run too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Once, after a second
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// table, json, or a template
    #[arg(long, default_value = "table")]
    pub(crate) format: String,
    /// Containers; all that run otherwise
    pub(crate) containers: Vec<String>,
}

const LISTING: Listing = Listing {
    fields: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    usual: &[
        "ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs",
    ],
};

const INTERVAL: Duration = Duration::from_secs(1);

impl StatsArguments {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let form = Form::parse(&self.format)?;
        let table = matches!(form, Form::Table(_));
        for name in &self.containers {
            // A wrong name is said before anything is shown.
            runtime.container(name)?;
        }
        let mut warned = false;
        let mut before = BTreeMap::new();
        loop {
            let mut rows = Vec::new();
            let mut after = BTreeMap::new();
            for (asked, container) in self.chosen(runtime)? {
                match container.stats().await {
                    Ok(mut stats) => {
                        let earlier: Option<&Stats> = before.get(&stats.id);
                        stats.cpu_percent = earlier.map(|earlier| stats.cpu_percent_since(earlier));
                        after.insert(stats.id.clone(), stats.clone());
                        rows.push(self.row(&asked, &stats));
                    }
                    Err(Error::NotRunning { .. }) if self.all || !self.containers.is_empty() => {
                        if let Ok(info) = container.inspect() {
                            rows.push(self.idle(&asked, &info));
                        }
                    }
                    // It ended or was removed meanwhile.
                    Err(Error::NotRunning { .. } | Error::State { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if !warned {
                let gaps: std::collections::BTreeSet<_> =
                    after.values().flat_map(|stats| &stats.gaps).collect();
                for gap in gaps {
                    streams::say(&format!("WARNING: {gap}"));
                }
                warned = true;
            }
            let first = before.is_empty() && !after.is_empty();
            if !(self.no_stream && first) {
                if table && !self.no_stream && streams::is_output_terminal() {
                    let mut out = std::io::stdout();
                    if out.write_all(b"\x1b[2J\x1b[H").is_err() {
                        return Ok(0);
                    }
                }
                LISTING.show(&form, rows)?;
                if std::io::stdout().flush().is_err() {
                    return Ok(0);
                }
                if self.no_stream {
                    return Ok(0);
                }
            }
            before = after;
            // The kernel tells nobody that a counter has grown.
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// The containers to show, and what they were called.
    fn chosen(&self, runtime: &Runtime) -> Result<Vec<(String, Container)>, Failure> {
        if self.containers.is_empty() {
            let all = runtime.containers()?.into_iter();
            return Ok(all
                .map(|container| (self.id(container.id()), container))
                .collect());
        }
        let found = self
            .containers
            .iter()
            .map(|name| Ok((name.clone(), runtime.container(name)?)));
        // One of several may be removed while it is watched.
        let found: Vec<_> = found.filter_map(|found: Result<_, Error>| found.ok()).collect();
        match found.is_empty() {
            true => Err(Failure::new("none of the containers is there any more")),
            false => Ok(found),
        }
    }

    fn id(&self, id: &str) -> String {
        match self.no_trunc {
            true => id.to_owned(),
            false => id[..12].to_owned(),
        }
    }

    fn row(&self, asked: &str, stats: &Stats) -> Map<String, Value> {
        let (received, sent) = stats.network_total();
        let block = stats.block_io;
        let block = block.map_or_else(|| "--".to_owned(), |io| pair(io.read, io.written));
        let cells = [
            ("Container", asked.to_owned()),
            ("ID", self.id(&stats.id)),
            ("Name", stats.name.clone()),
            ("CPUPerc", format!("{:.2}%", stats.cpu_percent.unwrap_or(0.0))),
            (
                "MemUsage",
                format!("{} / {}", binary(stats.memory.used), binary(stats.memory.limit)),
            ),
            ("MemPerc", format!("{:.2}%", stats.memory.percent())),
            ("NetIO", pair(received, sent)),
            ("BlockIO", block),
            ("PIDs", stats.pids.to_string()),
        ];
        row(cells)
    }

    fn idle(&self, asked: &str, info: &ContainerInfo) -> Map<String, Value> {
        row([
            ("Container", asked.to_owned()),
            ("ID", self.id(&info.id)),
            ("Name", info.name.clone()),
            ("CPUPerc", "0.00%".to_owned()),
            ("MemUsage", "0B / 0B".to_owned()),
            ("MemPerc", "0.00%".to_owned()),
            ("NetIO", "0B / 0B".to_owned()),
            ("BlockIO", "0B / 0B".to_owned()),
            ("PIDs", "0".to_owned()),
        ])
    }
}

fn row(cells: [(&str, String); 9]) -> Map<String, Value> {
    let cells = cells.into_iter();
    cells
        .map(|(name, cell)| (name.to_owned(), Value::String(cell)))
        .collect()
}

fn pair(first: u64, second: u64) -> String {
    format!("{} / {}", size(first), size(second))
}

/// Bytes in powers of 1024, four digits: `7.637GiB`.
fn binary(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    let digits = match value {
        ..10.0 => 3,
        10.0..100.0 => 2,
        100.0..1000.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{unit}")
}
