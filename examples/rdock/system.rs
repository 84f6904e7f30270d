//! `rdock system`, `info` and `version`.

use crate::listing::{Form, Listing};
use crate::streams::{self, print};
use crate::table::size;
use crate::template::Template;
use crate::{Failure, Outcome};
use clap::{Args, Subcommand};
use rdock_runtime::image::{FsckReport, Progress, PruneFilter};
use rdock_runtime::{ContainerPruneFilter, DiskShare, Runtime, VolumeFilter};
use serde_json::{Map, Value, json};

#[derive(Debug, Subcommand)]
pub(crate) enum System {
    /// Show what this root takes on the disk
    Df {
        /// table, json, or a template
        #[arg(long, default_value = "table")]
        format: String,
    },
    /// Read every image and layer of this root, and say what is damaged
    Fsck {
        /// Fetch what is damaged again
        #[arg(long)]
        repair: bool,
    },
    /// Show what happens in this root
    Events(crate::events::EventsArguments),
    /// Show what this root is and what this machine can do
    Info(InfoArguments),
    /// Remove what nothing uses: containers that do not run, networks, images without a name, build cache
    Prune(Prune),
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// All images that no container uses
    #[arg(short, long)]
    all: bool,
    /// Anonymous volumes that no container uses too
    #[arg(long)]
    volumes: bool,
    /// until=, label=, label!=
    #[arg(long)]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ContainerPrune {
    /// until=, label=, label!=
    #[arg(long)]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImagePrune {
    /// All that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// until=, label=, label!=
    #[arg(long)]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

const DISK: Listing = Listing {
    fields: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    usual: &["Type", "TotalCount", "Active", "Size", "Reclaimable"],
};

impl System {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        match self {
            Self::Df { format } => {
                let form = Form::parse(&format)?;
                let usage = runtime.disk_usage().await?;
                let cache = crate::build::usage(runtime)?;
                let active = cache.entries.iter().filter(|entry| entry.in_use).count();
                let rows = [
                    row("Images", &usage.images),
                    row("Containers", &usage.containers),
                    row("Local Volumes", &usage.volumes),
                    cells(
                        "Build Cache",
                        [cache.entries.len(), active],
                        [cache.bytes, cache.reclaimable],
                    ),
                ];
                DISK.show(&form, rows.into())
            }
            Self::Fsck { repair } => fsck(runtime, repair).await,
            Self::Events(verb) => verb.execute(runtime).await,
            Self::Info(verb) => verb.execute(runtime),
            Self::Prune(verb) => verb.execute(runtime).await,
        }
    }
}

/// The exit code is 1 when something is damaged.
async fn fsck(runtime: &Runtime, repair: bool) -> Outcome {
    let store = runtime.images().clone();
    let work = move || -> Result<FsckReport, Failure> {
        if !repair {
            return Ok(store.fsck()?);
        }
        let source = rdock_registry::RegistryClient::from_environment()?;
        let report = store.repair(&source, &Progress::default())?;
        for name in &report.repaired {
            print(&format!("{}: repaired", name.familiar()));
        }
        for (name, why) in &report.failed {
            streams::say(&format!("{}: {why}", name.familiar()));
        }
        for diff_id in &report.in_use {
            streams::say(&format!(
                "layer {diff_id}: remove the containers made of it first"
            ));
        }
        Ok(report.after)
    };
    let report = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(error.to_string()))??;
    for finding in &report.findings {
        print(&finding.to_string());
    }
    for diff_id in &report.unchecked {
        print(&format!("layer {diff_id} has nothing to check it by"));
    }
    print(&format!(
        "{} blobs and {} layers read",
        report.blobs, report.layers
    ));
    Ok(if report.is_sound() { 0 } else { 1 })
}

fn row(name: &str, share: &DiskShare) -> Map<String, Value> {
    cells(
        name,
        [share.total, share.active],
        [share.bytes, share.reclaimable],
    )
}

/// A line of `df`: how many there are and are used, bytes of all and of those that may go.
fn cells(name: &str, counts: [usize; 2], bytes: [u64; 2]) -> Map<String, Value> {
    let part = (100 * bytes[1]).checked_div(bytes[0]).unwrap_or(0);
    [
        ("Type", name.to_owned()),
        ("TotalCount", counts[0].to_string()),
        ("Active", counts[1].to_string()),
        ("Size", size(bytes[0])),
        ("Reclaimable", format!("{} ({part}%)", size(bytes[1]))),
    ]
    .map(|(name, cell)| (name.to_owned(), Value::String(cell)))
    .into_iter()
    .collect()
}

/// Asks, unless told not to.
fn may(force: bool, what: &str) -> Result<bool, Failure> {
    if force {
        return Ok(true);
    }
    streams::say(&format!("WARNING! This will remove {what}."));
    streams::say("Are you sure you want to continue? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn filter_of(filters: &[String]) -> Result<ContainerPruneFilter, Failure> {
    let mut filter = ContainerPruneFilter::default();
    for condition in filters {
        filter.add(condition)?;
    }
    Ok(filter)
}

fn listed(heading: &str, names: &[String]) {
    if !names.is_empty() {
        print(heading);
        names.iter().for_each(|name| print(name));
        print("");
    }
}

impl Prune {
    async fn execute(self, runtime: &Runtime) -> Outcome {
        let filter = filter_of(&self.filter)?;
        let images = if self.all {
            "all images without a container"
        } else {
            "all images without a name"
        };
        let volumes = if self.volumes {
            ", all anonymous volumes not used by a container"
        } else {
            ""
        };
        let cache = if self.all {
            "all build cache"
        } else {
            "all build cache that no image shares"
        };
        let what = format!(
            "all stopped containers, all networks not used by a container{volumes}, {images}, {cache}"
        );
        if !may(self.force, &what)? {
            return Ok(0);
        }
        let containers = runtime.prune_containers(&filter).await?;
        listed("Deleted Containers:", &containers.ids);
        let mut bytes = containers.bytes;
        // What a filter says of labels and times has no meaning for networks.
        let networks = match self.filter.is_empty() {
            true => runtime.networks().prune(|_| true)?,
            false => Vec::new(),
        };
        listed("Deleted Networks:", &networks);
        if self.volumes {
            let volumes = runtime.volumes().prune_with(&VolumeFilter::default())?;
            listed("Deleted Volumes:", &volumes.names);
            bytes += volumes.bytes;
        }
        bytes += images_pruned(runtime, &filter.of_images(self.all))?;
        // Steps of builds have no labels, and are used or not.
        if self.filter.is_empty() {
            let cache = crate::build::prune(runtime, self.all)?;
            let ids: Vec<String> = cache.entries.into_iter().map(|entry| entry.id).collect();
            listed("Deleted build cache objects:", &ids);
            bytes += cache.bytes;
        }
        print(&format!("Total reclaimed space: {}", size(bytes)));
        Ok(0)
    }
}

fn images_pruned(runtime: &Runtime, filter: &PruneFilter) -> Result<u64, Failure> {
    let pruned = runtime.images().prune(filter)?;
    let ids: Vec<String> = pruned.images.iter().map(|id| format!("deleted: {id}")).collect();
    listed("Deleted Images:", &ids);
    Ok(pruned.bytes)
}

impl ContainerPrune {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let filter = filter_of(&self.filter)?;
        if !may(self.force, "all stopped containers")? {
            return Ok(0);
        }
        let pruned = runtime.prune_containers(&filter).await?;
        listed("Deleted Containers:", &pruned.ids);
        print(&format!("Total reclaimed space: {}", size(pruned.bytes)));
        Ok(0)
    }
}

impl ImagePrune {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let filter = filter_of(&self.filter)?;
        let what = if self.all {
            "all images without a container"
        } else {
            "all images without a name"
        };
        if !may(self.force, what)? {
            return Ok(0);
        }
        let bytes = images_pruned(runtime, &filter.of_images(self.all))?;
        print(&format!("Total reclaimed space: {}", size(bytes)));
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct InfoArguments {
    /// table, json or a template
    #[arg(short, long, default_value = "table")]
    format: String,
}

impl InfoArguments {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let info = serde_json::to_value(runtime.info()?).map_err(|error| Failure::new(error.to_string()))?;
        match self.format.as_str() {
            "table" | "" => {
                for (name, value) in info.as_object().into_iter().flatten() {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    print(&format!("{}: {value}", name.replace('_', " ")));
                }
            }
            "json" => print(&info.to_string()),
            text => {
                let template = Template::parse(text).map_err(Failure::of_template)?;
                print(&template.render(&info).map_err(Failure::new)?);
            }
        }
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct VersionArguments {
    /// json or a template
    #[arg(short, long)]
    format: Option<String>,
}

impl VersionArguments {
    pub(crate) fn execute(self) -> Outcome {
        let version = env!("CARGO_PKG_VERSION");
        let system = rustix::system::uname();
        let whole = json!({
            "Client": {
                "Version": version,
                "Os": "linux",
                "Arch": std::env::consts::ARCH,
                "KernelVersion": system.release().to_string_lossy(),
            },
        });
        match self.format.as_deref() {
            None | Some("") => print(&format!("rdock {version}")),
            Some("json") => print(&whole.to_string()),
            Some(text) => {
                let template = Template::parse(text).map_err(Failure::of_template)?;
                print(&template.render(&whole).map_err(Failure::new)?);
            }
        }
        Ok(0)
    }
}
