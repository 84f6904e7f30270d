//! `rdock network`.

use crate::streams::print;
use crate::table::{Format, show};
use crate::{Failure, Outcome};
use clap::Subcommand;
use rdock_runtime::{NetworkInfo, Runtime};
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// List networks
    #[command(visible_alias = "list")]
    Ls,
    /// Show networks as JSON
    Inspect {
        /// Networks
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// With docker's field names.
pub(crate) fn describe(info: &NetworkInfo) -> Value {
    let config = info
        .subnet
        .as_ref()
        .map(|subnet| json!({"Subnet": subnet, "Gateway": info.gateway}));
    json!({
        "Name": info.name,
        "Driver": info.driver,
        "Scope": "local",
        "IPAM": {"Config": config.into_iter().collect::<Vec<_>>()},
        "Containers": info.containers,
    })
}

impl Network {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let networks = runtime.networks()?;
        match self {
            Self::Ls => {
                let rows = networks
                    .into_iter()
                    .map(|info| vec![info.name, info.driver, info.subnet.unwrap_or_default()])
                    .collect();
                show(&["NAME", "DRIVER", "SUBNET"], rows, Format::Table);
            }
            Self::Inspect { names } => {
                let find = |name: &String| {
                    let found = networks.iter().find(|network| network.name == *name);
                    found
                        .map(describe)
                        .ok_or_else(|| Failure::new(format!("no such network: {name}")))
                };
                let all = names.iter().map(find).collect::<Result<Vec<_>, _>>()?;
                print(&format!("{:#}", Value::Array(all)));
            }
        }
        Ok(0)
    }
}
