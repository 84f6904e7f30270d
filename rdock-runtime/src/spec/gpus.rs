//! Graphics processors that a container asks for, as docker's `--gpus` has it.

use super::ParseError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// GPUs for a container.
///
/// They are found when the container starts, at every start: by the CDI specification of the host when there is one
/// (`nvidia.com/gpu=...`, `amd.com/gpu=...`), else, with NVIDIA's driver alone on the host, by the driver's own files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct GpuRequest {
    /// `nvidia`, `amd`, or `cdi` (then [`Self::ids`] are names of CDI devices); whatever the host has when `None`.
    pub driver: Option<String>,
    /// How many. Not with [`Self::ids`].
    pub count: Option<GpuCount>,
    /// Which: an index in the order of the PCI bus, or what begins with `GPU-` (a UUID).
    pub ids: Vec<String>,
    /// What they must be able to do: `gpu`, and which parts of NVIDIA's driver the container gets (`compute`,
    /// `utility`, `video`, `graphics`, `display`, `ngx`, `compat32`). Without one of these the variable
    /// `NVIDIA_DRIVER_CAPABILITIES` of the container says it, else it is `compute` and `utility`.
    pub capabilities: Vec<String>,
    /// For the driver. None is known.
    pub options: BTreeMap<String, String>,
}

/// How many GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GpuCount {
    /// All of the host.
    All,
    /// So many, from the first.
    Number(u32),
}

impl Default for GpuRequest {
    /// One GPU.
    fn default() -> Self {
        Self {
            driver: None,
            count: None,
            ids: Vec::new(),
            capabilities: vec!["gpu".into()],
            options: BTreeMap::new(),
        }
    }
}

impl GpuRequest {
    /// All GPUs of the host.
    pub fn all() -> Self {
        Self {
            count: Some(GpuCount::All),
            ..Self::default()
        }
    }

    /// The first `number` GPUs.
    pub fn count(number: u32) -> Self {
        Self {
            count: Some(GpuCount::Number(number)),
            ..Self::default()
        }
    }

    /// These GPUs, by index or UUID.
    pub fn ids<T: Into<String>>(ids: impl IntoIterator<Item = T>) -> Self {
        Self {
            ids: ids.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Names the driver.
    pub fn driver(mut self, driver: impl Into<String>) -> Self {
        self.driver = Some(driver.into());
        self
    }

    /// Adds something they must be able to do.
    pub fn capability(mut self, capability: impl Into<String>) -> Self {
        let capability = capability.into();
        if !self.capabilities.contains(&capability) {
            self.capabilities.push(capability);
        }
        self
    }

    /// Parses docker's `--gpus`: `all`, a number, or a line of comma-separated fields `count=`, `device=`, `driver=`,
    /// `capabilities=` and `options=`. A field with a comma of its own stands in double quotes:
    /// `"device=0,1",capabilities=utility`. `-1` is all.
    ///
    /// # Errors
    /// When it is anything else, a key comes twice, or both a count and devices are given.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let error = |reason: &str| ParseError::new("a request for GPUs", text, reason);
        let mut request = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        let fields = fields(text).ok_or_else(|| error("a quote is not closed, or stands inside a field"))?;
        for field in &fields {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, value),
                None => ("count", field.as_str()),
            };
            if seen.contains(&key) {
                return Err(error(match key {
                    "count" => {
                        "more than one number of GPUs (a list with commas stands in double quotes: '\"device=0,1\"')"
                    }
                    _ => "a key is there twice",
                }));
            }
            let list = || -> Vec<String> {
                let parts = value.split(',').map(str::trim);
                parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
            };
            match key {
                "count" => request.count = Some(parse_count(value).ok_or_else(|| {
                    error("it is all, a number, or fields such as count=2, \"device=0,1\", capabilities=utility")
                })?),
                "device" => {
                    request.ids = list();
                    if request.ids.is_empty() {
                        return Err(error("device= names no device"));
                    }
                }
                "driver" => request.driver = Some(value.to_owned()).filter(|driver| !driver.is_empty()),
                "capabilities" => {
                    for capability in list() {
                        request = request.capability(capability);
                    }
                }
                "options" => {
                    for option in list() {
                        let (name, value) = option.split_once('=').unwrap_or((&option, ""));
                        request.options.insert(name.to_owned(), value.to_owned());
                    }
                }
                _ => {
                    return Err(error(
                        "the keys are count, device, driver, capabilities and options",
                    ));
                }
            }
            seen.push(key);
        }
        match request.count.is_some() && !request.ids.is_empty() {
            true => Err(error(
                "count and device exclude each other (a list with commas stands in double quotes: '\"device=0,1\"')",
            )),
            false => Ok(request),
        }
    }
}

/// A count; 0 is none, -1 all.
fn parse_count(text: &str) -> Option<GpuCount> {
    match text {
        "all" | "-1" => Some(GpuCount::All),
        _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().ok().map(GpuCount::Number)
        }
        _ => None,
    }
}

/// The fields of one line of RFC 4180, without empty lines; `None` when a quote is wrong.
fn fields(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, more) = match rest.split_once(',') {
                Some((field, more)) => (field, Some(more)),
                None => (rest, None),
            };
            if field.contains(['"', '\n', '\r']) {
                return None;
            }
            fields.push(field.to_owned());
            match more {
                Some(more) => rest = more,
                None => return Some(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut letters = quoted.char_indices();
        let end = loop {
            match letters.next()? {
                (at, '"') if quoted[at + 1..].starts_with('"') => {
                    letters.next();
                    field.push('"');
                }
                (at, '"') => break at + 1,
                (_, letter) => field.push(letter),
            }
        };
        fields.push(field);
        match quoted[end..].strip_prefix(',') {
            Some(more) => rest = more,
            None if quoted[end..].is_empty() => return Some(fields),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_as_docker_takes_them() {
        let table = [
            ("all", GpuRequest::all()),
            ("-1", GpuRequest::all()),
            ("count=all", GpuRequest::all()),
            ("2", GpuRequest::count(2)),
            ("0", GpuRequest::count(0)),
            ("count=2", GpuRequest::count(2)),
            ("device=0", GpuRequest::ids(["0"])),
            ("\"device=0,1\"", GpuRequest::ids(["0", "1"])),
            ("\"device=GPU-3a2,1\"", GpuRequest::ids(["GPU-3a2", "1"])),
            ("driver=nvidia", GpuRequest::default().driver("nvidia")),
            (
                "all,capabilities=utility",
                GpuRequest::all().capability("utility"),
            ),
            (
                "\"capabilities=compute,utility\"",
                GpuRequest::default().capability("compute").capability("utility"),
            ),
            (
                "all,\"capabilities=gpu,compute\"",
                GpuRequest::all().capability("compute"),
            ),
            (
                "driver=cdi,device=vendor.com/x=1",
                GpuRequest::ids(["vendor.com/x=1"]).driver("cdi"),
            ),
        ];
        for (text, expected) in table {
            assert_eq!(GpuRequest::parse(text), Ok(expected), "{text:?}");
        }
        let options = GpuRequest::parse("all,\"options=a=b,c=d,e\"")
            .expect("options")
            .options;
        let options: Vec<_> = options
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(options, ["a=b", "c=d", "e="]);
        for bad in [
            "",
            "many",
            "+1",
            "1.5",
            "device=",
            "device=0,1",
            "device=0,device=1",
            "all,2",
            "all,device=0",
            "count=1,device=0",
            "\"device=0",
            "\"device=0\"x",
            "de\"vice=0",
            "speed=1",
            "4294967296",
        ] {
            assert!(GpuRequest::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,24}", near in "[\",=a-z0-9é]{0,24}") {
            for text in [text, near] {
                let _ = GpuRequest::parse(&text);
            }
        }
    }
}
