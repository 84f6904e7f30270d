//! Where the output of a container is kept, and how much of it.

use super::{ContainerSpec, ParseError, parse_size};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// How output is kept; docker's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LogDriver {
    /// As JSON lines in the container's directory, all of it unless a size is given.
    #[default]
    JsonFile,
    /// The same, but never more than five files of 20 MiB unless something else is given.
    Local,
    /// Not at all: output goes to whoever is attached, and is lost otherwise.
    None,
}

impl LogDriver {
    /// Returns docker's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JsonFile => "json-file",
            Self::Local => "local",
            Self::None => "none",
        }
    }
}

/// Where the output of a container is kept, and how much of it.
///
/// ```
/// use rdock_runtime::{ContainerSpec, LogConfig};
/// let spec = ContainerSpec::new("busybox").log(LogConfig::default().max_size(10 << 20).max_files(3));
/// # assert_eq!(spec.log.max_size, Some(10 << 20));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LogConfig {
    /// How it is kept.
    pub driver: LogDriver,
    /// Bytes of one file; when it is full, the next one begins. Without a limit when `None`, unless the driver
    /// has one of its own.
    pub max_size: Option<u64>,
    /// Files that are kept, the one being written among them: 1 by default, 5 with [`LogDriver::Local`].
    pub max_files: Option<NonZeroU32>,
    /// Labels of the container that are kept with each line, for `logs --details`.
    pub labels: Vec<String>,
    /// Variables of the container's environment that are kept with each line.
    pub env: Vec<String>,
    /// A text that is kept with each line as `tag`.
    pub tag: Option<String>,
}

/// Of [`LogDriver::Local`].
const LOCAL_SIZE: u64 = 20 << 20;
const LOCAL_FILES: u32 = 5;

impl LogConfig {
    /// Sets the driver.
    pub fn driver(mut self, driver: LogDriver) -> Self {
        self.driver = driver;
        self
    }

    /// Limits the size of one file, in bytes.
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.max_size = Some(bytes);
        self
    }

    /// Limits the number of files; 0 counts as 1.
    pub fn max_files(mut self, files: u32) -> Self {
        self.max_files = NonZeroU32::new(files.max(1));
        self
    }

    /// Sets the driver by docker's name: `json-file`, `local` or `none`; empty is the default one.
    ///
    /// # Errors
    /// For any other name.
    pub fn parse_driver(&mut self, name: &str) -> Result<(), ParseError> {
        self.driver = match name {
            "" | "json-file" => LogDriver::JsonFile,
            "local" => LogDriver::Local,
            "none" => LogDriver::None,
            _ => {
                return Err(ParseError::new(
                    "a log driver",
                    name,
                    "there are json-file, local and none",
                ));
            }
        };
        Ok(())
    }

    /// Adds an option as docker writes it, `name=value`: `max-size` (`10m`, -1 for no limit), `max-file`,
    /// `labels` and `env` (names, separated by commas), `tag`, `mode` and `max-buffer-size` (both without
    /// effect: writing never holds up the container longer than the disk does), `compress` (only `false`).
    ///
    /// # Errors
    /// For another option or a malformed value.
    pub fn parse_option(&mut self, text: &str) -> Result<(), ParseError> {
        let wrong = |reason: &str| ParseError::new("a log option", text, reason);
        let (name, value) = text.split_once('=').ok_or_else(|| wrong("expected NAME=VALUE"))?;
        let list = || {
            value
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
        };
        match name {
            "max-size" if value == "-1" => self.max_size = None,
            "max-size" => {
                let size = parse_size(value).map_err(|error| wrong(&error.reason))?;
                if size == 0 {
                    return Err(wrong("a file needs room for something"));
                }
                self.max_size = Some(size);
            }
            "max-file" => {
                let count = value.parse().map_err(|_| wrong("a number from 1 on"))?;
                self.max_files = Some(count);
            }
            "labels" => self.labels = list().collect(),
            "env" => self.env = list().collect(),
            "tag" => self.tag = Some(value.to_owned()),
            "mode" if matches!(value, "blocking" | "non-blocking") => {}
            "mode" => return Err(wrong("blocking or non-blocking")),
            "max-buffer-size" => drop(parse_size(value).map_err(|error| wrong(&error.reason))?),
            "compress" if value == "false" => {}
            "compress" => return Err(wrong("full files are not compressed here")),
            _ => {
                return Err(wrong(
                    "the options are max-size, max-file, labels, env, tag, mode, max-buffer-size and compress",
                ));
            }
        }
        Ok(())
    }

    /// Options as docker shows them.
    pub fn options(&self) -> BTreeMap<String, String> {
        let mut options = BTreeMap::new();
        let mut set = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                options.insert(name.to_owned(), value);
            }
        };
        set("max-size", self.max_size.map(|size| size.to_string()));
        set("max-file", self.max_files.map(|count| count.to_string()));
        set("labels", (!self.labels.is_empty()).then(|| self.labels.join(",")));
        set("env", (!self.env.is_empty()).then(|| self.env.join(",")));
        set("tag", self.tag.clone());
        options
    }

    /// Bytes of one file.
    pub(crate) fn size_limit(&self) -> Option<u64> {
        match self.driver {
            LogDriver::Local => self.max_size.or(Some(LOCAL_SIZE)),
            _ => self.max_size,
        }
    }

    /// Files that are kept beside the one being written.
    pub(crate) fn full_files(&self) -> u64 {
        let default = match self.driver {
            LogDriver::Local => LOCAL_FILES,
            _ => 1,
        };
        u64::from(self.max_files.map_or(default, NonZeroU32::get)) - 1
    }

    /// What is kept with each line of a container.
    pub(crate) fn details(&self, spec: &ContainerSpec) -> BTreeMap<String, String> {
        let mut details = BTreeMap::new();
        for name in &self.labels {
            if let Some(value) = spec.labels.get(name) {
                details.insert(name.clone(), value.clone());
            }
        }
        for name in &self.env {
            if let Some((_, value)) = spec.env.iter().rev().find(|(other, _)| other == name) {
                details.insert(name.clone(), value.clone());
            }
        }
        if let Some(tag) = &self.tag {
            details.insert("tag".to_owned(), tag.clone());
        }
        details
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(options: &[&str]) -> Result<LogConfig, ParseError> {
        let mut config = LogConfig::default();
        for option in options {
            config.parse_option(option)?;
        }
        Ok(config)
    }

    #[test]
    fn options_as_docker_writes_them() {
        let config = parsed(&[
            "max-size=10m",
            "max-file=3",
            "labels=a,b",
            "env=C",
            "tag=x",
            "mode=non-blocking",
        ]);
        let config = config.expect("parse");
        assert_eq!((config.size_limit(), config.full_files()), (Some(10 << 20), 2));
        assert_eq!(config.labels, ["a", "b"]);
        assert_eq!(config.options()["max-file"], "3");
        let spec = ContainerSpec::new("x")
            .label("a", "1")
            .env("C", "2")
            .env("D", "3");
        let details: Vec<_> = config.details(&spec).into_iter().collect();
        let expected = [("C", "2"), ("a", "1"), ("tag", "x")];
        assert_eq!(details, expected.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(parsed(&["max-size=-1"]).expect("parse").size_limit(), None);
        let local = LogConfig::default().driver(LogDriver::Local);
        assert_eq!((local.size_limit(), local.full_files()), (Some(20 << 20), 4));
        assert_eq!(
            (
                LogConfig::default().size_limit(),
                LogConfig::default().full_files()
            ),
            (None, 0)
        );
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for wrong in [
            "",
            "max-size",
            "max-size=",
            "max-size=0",
            "max-size=x",
            "max-file=0",
            "max-file=-1",
            "max-file=",
            "compress=true",
            "colour=red",
            "mode=fast",
        ] {
            assert!(parsed(&[wrong]).is_err(), "{wrong:?}");
        }
        assert!(LogConfig::default().parse_driver("syslog").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_an_option_or_an_error(text in ".{0,40}") {
            let _ = parsed(&[&text]);
        }
    }
}
