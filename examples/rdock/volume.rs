//! `rdock volume`.

use crate::inspect::Inspect;
use crate::listing::{Form, Listing};
use crate::streams::{self, print};
use crate::{Failure, Outcome, chain};
use clap::Subcommand;
use rdock_runtime::{Runtime, VolumeFilter, VolumeInfo, VolumeOptions};
use serde_json::{Map, Value, json};

#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Only names
        #[arg(short, long)]
        quiet: bool,
        /// name=, driver=, label=, dangling=
        #[arg(short, long)]
        filter: Vec<String>,
        /// table, json, a template, or table and a template
        #[arg(long, default_value = "table")]
        format: String,
    },
    /// Make a volume
    Create {
        /// Its driver: local
        #[arg(short, long, default_value = "local")]
        driver: String,
        /// A label (NAME=VALUE)
        #[arg(long)]
        label: Vec<String>,
        /// An option of the driver (type=, o=, device=)
        #[arg(short, long)]
        opt: Vec<String>,
        /// Its name, as docker had it before
        #[arg(long = "name", hide = true)]
        name_flag: Option<String>,
        /// Its name; a random one otherwise
        name: Option<String>,
    },
    /// Show volumes as JSON
    Inspect(Inspect),
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm {
        /// No error for one that does not exist
        #[arg(short, long)]
        force: bool,
        /// Volumes
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove volumes that no container uses
    Prune {
        /// Named ones too
        #[arg(short, long)]
        all: bool,
        /// label=, label!=, all=
        #[arg(long)]
        filter: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

/// With docker's field names.
pub(crate) fn describe(info: &VolumeInfo) -> Value {
    let options = Some(&info.driver_options).filter(|options| !options.is_empty());
    let mut labels = info.labels.clone();
    if info.anonymous {
        labels.insert("com.docker.volume.anonymous".to_owned(), String::new());
    }
    json!({
        "Name": info.name,
        "Driver": "local",
        "Mountpoint": info.mountpoint,
        "CreatedAt": info.created,
        "Labels": Some(labels).filter(|labels| !labels.is_empty()),
        "Options": options,
        "Scope": "local",
    })
}

fn filter_of(texts: &[String]) -> Result<VolumeFilter, Failure> {
    let mut filter = VolumeFilter::default();
    for text in texts {
        filter.add(text).map_err(|error| Failure::new(chain(&error)))?;
    }
    Ok(filter)
}

fn pairs(texts: &[String]) -> impl Iterator<Item = (String, String)> {
    texts
        .iter()
        .map(|text| text.split_once('=').unwrap_or((text, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

const LISTING: Listing = Listing {
    fields: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
    ],
    usual: &["Driver", "Name"],
};

fn row(info: &VolumeInfo) -> Map<String, Value> {
    let labels = info.labels.iter().map(|(name, value)| format!("{name}={value}"));
    [
        ("Driver", "local".to_owned()),
        ("Name", info.name.clone()),
        ("Scope", "local".to_owned()),
        ("Mountpoint", info.mountpoint.display().to_string()),
        ("Labels", labels.collect::<Vec<_>>().join(",")),
    ]
    .map(|(name, value)| (name.to_owned(), Value::String(value)))
    .into_iter()
    .collect()
}

impl Volume {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let volumes = runtime.volumes();
        match self {
            Self::Ls {
                quiet,
                filter,
                format,
            } => {
                let all = volumes.find(&filter_of(&filter)?)?;
                if quiet {
                    all.iter().for_each(|info| print(&info.name));
                } else {
                    let form = Form::parse(&format)?;
                    return LISTING.show(&form, all.iter().map(row).collect());
                }
            }
            Self::Create {
                driver,
                label,
                opt,
                name_flag,
                name,
            } => {
                if driver != "local" {
                    return Err(Failure::new(format!(
                        "there is no volume driver {driver:?}: local is the only one"
                    )));
                }
                let mut options = VolumeOptions::default();
                options.name = match (name_flag, name) {
                    (Some(_), Some(_)) => {
                        return Err(Failure::new("conflicting options: the name is given twice"));
                    }
                    (flag, name) => name.or(flag),
                };
                options.labels.extend(pairs(&label));
                options.driver_options.extend(pairs(&opt));
                print(&volumes.create_with(&options)?.name);
            }
            Self::Inspect(verb) => return verb.of_kind("volume").execute(runtime),
            Self::Rm { force, names } => {
                let mut failed = 0;
                for name in names {
                    match volumes.remove(&name, force) {
                        Ok(()) => print(&name),
                        Err(error) => {
                            failed = 1;
                            Failure::from(error).say();
                        }
                    }
                }
                return Ok(failed);
            }
            Self::Prune { all, filter, force } => {
                let mut filter = filter_of(&filter)?;
                filter.all |= all;
                let what = if filter.all {
                    "all volumes not used by at least one container"
                } else {
                    "anonymous volumes not used by at least one container"
                };
                if !force && !streams::confirm(&format!("WARNING! This will remove {what}."))? {
                    return Ok(0);
                }
                let pruned = volumes.prune_with(&filter)?;
                if !pruned.names.is_empty() {
                    print("Deleted Volumes:");
                    pruned.names.iter().for_each(|name| print(name));
                    print("");
                }
                print(&format!(
                    "Total reclaimed space: {}",
                    crate::table::size(pruned.bytes)
                ));
            }
        }
        Ok(0)
    }
}
