//! `rdock info` and `version`.

use crate::Outcome;
use crate::streams::print;
use crate::table::Format;
use clap::Args;
use rdock_runtime::Runtime;

#[derive(Debug, Args)]
pub(crate) struct InfoArguments {
    /// table or json
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
}

impl InfoArguments {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let info =
            serde_json::to_value(runtime.info()?).map_err(|error| crate::Failure::new(error.to_string()))?;
        if self.format == Format::Json {
            print(&info.to_string());
            return Ok(0);
        }
        for (name, value) in info.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            print(&format!("{}: {value}", name.replace('_', " ")));
        }
        Ok(0)
    }
}

pub(crate) fn version() -> Outcome {
    print(&format!("rdock {}", env!("CARGO_PKG_VERSION")));
    Ok(0)
}
