//! The image config: what an image runs by default, its layers and its history, with Docker's own fields.
use crate::manifest::{bridge, nullable};
use crate::{Digest, Error, Platform, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The image config document. Names are those of the OCI image specification; fields this library does not know
/// are kept in `other`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// Processor, in Go's words.
    #[serde(deserialize_with = "nullable")]
    pub architecture: String,
    /// Operating system.
    #[serde(deserialize_with = "nullable")]
    pub os: String,
    /// Variant of the processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// When the image was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Defaults of a container of this image.
    #[serde(deserialize_with = "nullable")]
    pub config: ContainerConfig,
    /// The layers' diffIDs.
    #[serde(deserialize_with = "nullable")]
    pub rootfs: RootFs,
    /// How the layers came to be.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Fields this library does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl ImageConfig {
    /// Reads a config document. The diffIDs must be digests.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| Error::document("the image config", error))
    }

    /// Returns the platform the image is for.
    pub fn platform(&self) -> Platform {
        let text = |name: &str| self.other.get(name).and_then(|v| v.as_str()).map(str::to_owned);
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            os_version: text("os.version"),
            os_features: Vec::new(),
        }
        .normalized()
    }
}

/// The layers of an image, the base first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed tars.
    #[serde(deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: "layers".to_owned(),
            diff_ids: Vec::new(),
        }
    }
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A note.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The step made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Fields this library does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The `config` object inside an image config: defaults of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `name`, `uid`, `name:group`, `uid:gid`; empty is root.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `NAME=value` texts.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Default arguments, or the command where there is no entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// The command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Working directory; empty is `/`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// `port/protocol`; the values are empty objects.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// Paths; the values are empty objects.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Value>,
    /// Free texts; they never select settings of the sandbox.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Name or number of the signal that ends a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds between that signal and SIGKILL (Docker).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<u64>,
    /// Of `RUN`, `CMD` and `ENTRYPOINT` in shell form (Docker).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// The health check (Docker).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for a build that starts from this image (Docker).
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// `Cmd` holds a whole Windows command line (Docker).
    #[serde(deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Fields this library does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A health check as Docker writes it; durations in nanoseconds, 0 is Docker's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["CMD", ...]`, `["CMD-SHELL", text]` or `["NONE"]`.
    #[serde(deserialize_with = "nullable")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Of one check.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// In which failures do not count.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks during the start period.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row until unhealthy.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

bridge!(
    ImageConfig,
    oci_spec::image::ImageConfiguration,
    "the image config"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_of_go_programs_are_empty_values() {
        let config = ImageConfig::parse(
            br#"{"architecture":"amd64","os":"linux","history":null,"config":{"Env":null,"Cmd":null,"Labels":null,
            "User":null,"Volumes":null,"OnBuild":null,"ArgsEscaped":null},"rootfs":{"type":"layers","diff_ids":null}}"#,
        )
        .unwrap();
        assert!(config.config.env.is_empty() && config.config.cmd.is_none());
        assert_eq!(config.platform().to_string(), "linux/amd64");
        assert_eq!(
            ImageConfig::parse(br#"{"config":null}"#).unwrap().rootfs.kind,
            "layers"
        );
    }

    #[test]
    fn fields_of_docker_are_typed_and_unknown_ones_kept() {
        let text = br#"{"architecture":"amd64","os":"linux","container":"abc","config":{"Healthcheck":
            {"Test":["CMD","true"],"Interval":1000000000},"OnBuild":["RUN x"],"Shell":["/bin/bash"],"Zzz":1}}"#;
        let config = ImageConfig::parse(text).unwrap();
        let health = config.config.healthcheck.clone().unwrap();
        assert_eq!((health.test.len(), health.interval), (2, 1_000_000_000));
        assert_eq!(config.config.other["Zzz"], 1);
        let again: ImageConfig = serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
        assert_eq!(again, config);
        assert_eq!(config.other["container"], "abc");
    }

    #[test]
    fn a_diff_id_that_is_a_path_is_refused() {
        assert!(
            ImageConfig::parse(br#"{"rootfs":{"type":"layers","diff_ids":["sha256:../../x"]}}"#).is_err()
        );
    }

    #[test]
    fn oci_spec_reads_our_configs() {
        let config = ImageConfig {
            architecture: "amd64".into(),
            os: "linux".into(),
            ..ImageConfig::default()
        };
        let theirs = oci_spec::image::ImageConfiguration::try_from(&config).unwrap();
        assert_eq!(ImageConfig::try_from(&theirs).unwrap().architecture, "amd64");
    }
}
