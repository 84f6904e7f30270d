//! `rdock volume`.

use crate::Outcome;
use crate::streams::print;
use crate::table::{Format, show};
use clap::Subcommand;
use rdock_runtime::{Runtime, VolumeInfo};
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Only names
        #[arg(short, long)]
        quiet: bool,
    },
    /// Make a volume
    Create {
        /// A label (NAME=VALUE)
        #[arg(long)]
        label: Vec<String>,
        /// Its name; a random one otherwise
        name: Option<String>,
    },
    /// Show volumes as JSON
    Inspect {
        /// Volumes
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove volumes
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
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

/// With docker's field names.
pub(crate) fn describe(info: &VolumeInfo) -> Value {
    json!({
        "Name": info.name,
        "Driver": "local",
        "Mountpoint": info.mountpoint,
        "CreatedAt": info.created,
        "Labels": info.labels,
        "Options": null,
        "Scope": "local",
    })
}

impl Volume {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let volumes = runtime.volumes();
        match self {
            Self::Ls { quiet } => {
                let all = volumes.list()?;
                if quiet {
                    all.iter().for_each(|info| print(&info.name));
                } else {
                    let rows = all
                        .into_iter()
                        .map(|info| vec!["local".to_owned(), info.name])
                        .collect();
                    show(&["DRIVER", "VOLUME NAME"], rows, Format::Table);
                }
            }
            Self::Create { label, name } => {
                let labels = label
                    .iter()
                    .map(|text| text.split_once('=').unwrap_or((text, "")))
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect();
                print(&volumes.create(name.as_deref(), labels)?.name);
            }
            Self::Inspect { names } => {
                let all = names
                    .iter()
                    .map(|name| volumes.get(name).map(|info| describe(&info)));
                let all = all.collect::<Result<Vec<_>, _>>()?;
                print(&format!("{:#}", Value::Array(all)));
            }
            Self::Rm { force, names } => {
                for name in names {
                    volumes.remove(&name, force)?;
                    print(&name);
                }
            }
            Self::Prune { all, force: _ } => volumes.prune(all)?.iter().for_each(|name| print(name)),
        }
        Ok(0)
    }
}
