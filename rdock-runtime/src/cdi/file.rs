//! One CDI specification file: its fields, and the rules for them.
//!
//! The rules are those of the specification, version 1.1.0: unknown fields are errors, and so is a field that is newer
//! than the version which the file states.

use super::CdiError;
use super::yaml;
use crate::spec::{is_device_name, parse_kind};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Versions in their order. The first of them is the oldest whose files are read.
const VERSIONS: [&str; 8] = [
    "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0",
];

/// Versions before those that are read.
const TOO_OLD: [&str; 2] = ["0.1.0", "0.2.0"];

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SpecFile {
    cdi_version: String,
    pub(crate) kind: String,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) devices: Vec<DeviceEntry>,
    /// For every device of the file.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) container_edits: Edits,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeviceEntry {
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) container_edits: Edits,
}

/// What a container gets.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Edits {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) env: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) device_nodes: Vec<DeviceNode>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) mounts: Vec<MountEntry>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) hooks: Vec<Hook>,
    #[serde(default, deserialize_with = "or_default", alias = "additionalGIDs")]
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) intel_rdt: Option<IntelRdt>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) net_devices: Vec<NetDevice>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeviceNode {
    pub(crate) path: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) host_path: String,
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub(crate) kind: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) major: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) minor: i64,
    pub(crate) file_mode: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) permissions: String,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MountEntry {
    pub(crate) host_path: String,
    pub(crate) container_path: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) options: Vec<String>,
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub(crate) kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Hook {
    pub(crate) hook_name: String,
    pub(crate) path: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) args: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) env: Vec<String>,
    /// Seconds.
    pub(crate) timeout: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // Only that it is there, and which version it needs.
pub(crate) struct IntelRdt {
    #[serde(rename = "closID", default, deserialize_with = "or_default")]
    clos_id: String,
    #[serde(rename = "l3CacheSchema", default, deserialize_with = "or_default")]
    l3_cache_schema: String,
    #[serde(rename = "memBwSchema", default, deserialize_with = "or_default")]
    mem_bw_schema: String,
    #[serde(default, deserialize_with = "or_default")]
    schemata: Vec<String>,
    #[serde(rename = "enableMonitoring", default, deserialize_with = "or_default")]
    enable_monitoring: bool,
    /// Until 1.0.0.
    #[serde(rename = "enableCMT", default, deserialize_with = "or_default")]
    enable_cmt: bool,
    /// Until 1.0.0.
    #[serde(rename = "enableMBM", default, deserialize_with = "or_default")]
    enable_mbm: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NetDevice {
    host_interface_name: String,
    name: String,
}

/// The programs that write these files write `null` for what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The names of hooks, in the order in which they are called.
pub(crate) const HOOKS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

impl SpecFile {
    /// Reads what a file says; its name says whether it is JSON or YAML.
    ///
    /// # Errors
    /// [`CdiError::File`] with the place of what is wrong.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, CdiError> {
        let wrong = |place, reason| CdiError::File {
            path: path.to_owned(),
            place,
            reason,
        };
        let file: Self = match path.extension().is_some_and(|extension| extension == "json") {
            true => serde_json::from_str(text).map_err(|error| {
                let place = Some((error.line(), error.column())).filter(|(line, _)| *line > 0);
                let reason = error.to_string();
                let end = reason.rfind(" at line ").unwrap_or(reason.len());
                wrong(place, reason[..end].to_owned())
            })?,
            false => yaml::from_str(text).map_err(|error| wrong(error.place, error.reason))?,
        };
        file.check().map_err(|reason| wrong(None, reason))?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        let version = self.cdi_version.strip_prefix('v').unwrap_or(&self.cdi_version);
        let (least, why) = self.least_version();
        let stated = match VERSIONS.iter().position(|known| *known == version) {
            Some(stated) => stated,
            None if TOO_OLD.contains(&version) => {
                return Err(format!(
                    "cdiVersion: {:?} is older than {}",
                    self.cdi_version, VERSIONS[0]
                ));
            }
            None => {
                return Err(format!(
                    "cdiVersion: {:?} is none of {}",
                    self.cdi_version,
                    VERSIONS.join(", ")
                ));
            }
        };
        if stated < least {
            return Err(format!(
                "cdiVersion: {:?} has no {why}, which came with {}",
                self.cdi_version, VERSIONS[least]
            ));
        }
        parse_kind(&self.kind).map_err(|reason| format!("kind: {:?}: {reason}", self.kind))?;
        if self.devices.is_empty() {
            return Err("devices: there is none".into());
        }
        self.container_edits.check("containerEdits")?;
        let mut names = BTreeSet::new();
        for (index, device) in self.devices.iter().enumerate() {
            let field = format!("devices[{index}]");
            if !is_device_name(&device.name) {
                return Err(format!("{field}.name: {:?} is not a device's name", device.name));
            }
            if !names.insert(device.name.as_str()) {
                return Err(format!("{field}.name: {:?} is there twice", device.name));
            }
            if device.container_edits.is_empty() {
                return Err(format!("{field}.containerEdits: it is empty"));
            }
            device.container_edits.check(&format!("{field}.containerEdits"))?;
        }
        Ok(())
    }

    /// The first version that has everything the file uses, and what needs it.
    fn least_version(&self) -> (usize, &'static str) {
        let edits = || {
            self.devices
                .iter()
                .map(|device| &device.container_edits)
                .chain([&self.container_edits])
        };
        let newest = |edits: &Edits| edits.intel_rdt.as_ref().is_some_and(IntelRdt::is_newest);
        let class_has_dot = || {
            self.kind
                .split_once('/')
                .is_some_and(|(_, class)| class.contains('.'))
        };
        let rules: [(bool, usize, &'static str); 9] = [
            (
                edits().any(|edits| !edits.net_devices.is_empty()),
                7,
                "netDevices",
            ),
            (edits().any(newest), 7, "intelRdt.schemata or enableMonitoring"),
            (edits().any(|edits| edits.intel_rdt.is_some()), 4, "intelRdt"),
            (
                edits().any(|edits| !edits.additional_gids.is_empty()),
                4,
                "additionalGids",
            ),
            (
                !self.annotations.is_empty()
                    || self.devices.iter().any(|device| !device.annotations.is_empty()),
                3,
                "annotations",
            ),
            (class_has_dot(), 3, "dots in the class of a kind"),
            (
                self.devices
                    .iter()
                    .any(|device| device.name.starts_with(|first: char| first.is_ascii_digit())),
                2,
                "names of devices that begin with a digit",
            ),
            (
                edits().any(|edits| edits.device_nodes.iter().any(|node| !node.host_path.is_empty())),
                2,
                "hostPath of deviceNodes",
            ),
            (
                edits().any(|edits| edits.mounts.iter().any(|mount| !mount.kind.is_empty())),
                1,
                "type of mounts",
            ),
        ];
        let needed = rules.into_iter().find(|(used, ..)| *used);
        needed.map_or((0, ""), |(_, version, why)| (version, why))
    }
}

impl IntelRdt {
    fn is_newest(&self) -> bool {
        !self.schemata.is_empty() || self.enable_monitoring
    }
}

impl Edits {
    fn is_empty(&self) -> bool {
        self.env.is_empty()
            && self.device_nodes.is_empty()
            && self.mounts.is_empty()
            && self.hooks.is_empty()
            && self.additional_gids.is_empty()
            && self.intel_rdt.is_none()
            && self.net_devices.is_empty()
    }

    /// What is wrong whatever the host looks like.
    fn check(&self, field: &str) -> Result<(), String> {
        for (index, entry) in self.env.iter().enumerate() {
            is_variable(entry).map_err(|reason| format!("{field}.env[{index}]: {reason}"))?;
        }
        for (index, node) in self.device_nodes.iter().enumerate() {
            node.check()
                .map_err(|reason| format!("{field}.deviceNodes[{index}].{reason}"))?;
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            mount
                .check()
                .map_err(|reason| format!("{field}.mounts[{index}].{reason}"))?;
        }
        for (index, hook) in self.hooks.iter().enumerate() {
            hook.check()
                .map_err(|reason| format!("{field}.hooks[{index}].{reason}"))?;
        }
        for (index, device) in self.net_devices.iter().enumerate() {
            if device.host_interface_name.is_empty() || device.name.is_empty() {
                return Err(format!("{field}.netDevices[{index}]: a name is missing"));
            }
        }
        Ok(())
    }
}

fn is_variable(entry: &str) -> Result<(), String> {
    match entry.split_once('=') {
        Some((name, _)) if !name.is_empty() && !entry.contains('\0') => Ok(()),
        _ => Err(format!("{entry:?} is not NAME=VALUE")),
    }
}

fn is_path(name: &str, path: &str) -> Result<(), String> {
    match path.starts_with('/') && !path.contains('\0') {
        true => Ok(()),
        false => Err(format!("{name}: {path:?} is not an absolute path")),
    }
}

impl DeviceNode {
    fn check(&self) -> Result<(), String> {
        is_path("path", &self.path)?;
        if !self.host_path.is_empty() {
            is_path("hostPath", &self.host_path)?;
        }
        if !["", "b", "c", "u", "p"].contains(&self.kind.as_str()) {
            return Err(format!("type: {:?} is none of b, c, u, p", self.kind));
        }
        for (name, number) in [("major", self.major), ("minor", self.minor)] {
            if u32::try_from(number).is_err() {
                return Err(format!("{name}: {number} is not a device's number"));
            }
        }
        if self.permissions != "none" && self.permissions.contains(|letter| !"rwm".contains(letter)) {
            return Err(format!(
                "permissions: {:?} are not letters of rwm, nor none",
                self.permissions
            ));
        }
        Ok(())
    }
}

impl MountEntry {
    fn check(&self) -> Result<(), String> {
        is_path("containerPath", &self.container_path)?;
        match self.kind.as_str() {
            // Its source is a name.
            "tmpfs" if !self.host_path.is_empty() => Ok(()),
            _ => is_path("hostPath", &self.host_path),
        }
    }
}

impl Hook {
    fn check(&self) -> Result<(), String> {
        if !HOOKS.contains(&self.hook_name.as_str()) {
            return Err(format!(
                "hookName: {:?} is none of {}",
                self.hook_name,
                HOOKS.join(", ")
            ));
        }
        is_path("path", &self.path)?;
        if self.args.iter().any(|arg| arg.contains('\0')) {
            return Err("args: a NUL byte".into());
        }
        for entry in &self.env {
            is_variable(entry).map_err(|reason| format!("env: {reason}"))?;
        }
        match self.timeout {
            Some(seconds) if seconds <= 0 => Err(format!("timeout: {seconds} is not more than 0")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<SpecFile, CdiError> {
        SpecFile::parse(Path::new("/etc/cdi/a.yaml"), text)
    }

    /// A file of one device with these edits.
    fn with(version: &str, edits: &str) -> Result<SpecFile, CdiError> {
        parse(&format!(
            "cdiVersion: {version}\nkind: vendor.com/class\ndevices:\n- name: a\n  containerEdits: {{env: [A=b]}}\n\
             containerEdits: {edits}\n"
        ))
    }

    #[test]
    fn both_languages_say_the_same() {
        let json = r#"{"cdiVersion": "0.6.0", "kind": "vendor.com/class",
            "annotations": {"a": "b"}, "containerEdits": {"env": null},
            "devices": [{"name": "0", "containerEdits": {"deviceNodes":
                [{"path": "/dev/a", "hostPath": "/dev/b", "fileMode": 438, "major": 1, "minor": 2, "uid": 3}]}}]}"#;
        let yaml = "---\ncdiVersion: 0.6.0\nkind: vendor.com/class\nannotations: {a: b}\ncontainerEdits:\n  env:\n\
                    devices:\n- name: 0\n  containerEdits:\n    deviceNodes:\n    - path: /dev/a\n      \
                    hostPath: /dev/b\n      fileMode: 0666\n      major: 1\n      minor: 2\n      uid: 3\n";
        let of_json = SpecFile::parse(Path::new("a.json"), json).expect("json");
        let of_yaml = parse(yaml).expect("yaml");
        assert_eq!(format!("{of_json:?}"), format!("{of_yaml:?}"));
        assert_eq!(
            of_yaml.devices[0].container_edits.device_nodes[0].file_mode,
            Some(0o666)
        );
    }

    #[test]
    fn a_field_needs_the_version_it_came_with() {
        let table = [
            ("0.3.0", "0.2.0", "{env: [A=b]}"),
            (
                "0.4.0",
                "0.3.0",
                "{mounts: [{hostPath: /a, containerPath: /b, type: none}]}",
            ),
            (
                "0.5.0",
                "0.4.0",
                "{deviceNodes: [{path: /dev/a, hostPath: /dev/b}]}",
            ),
            ("0.7.0", "0.6.0", "{additionalGids: [1]}"),
            ("0.7.0", "0.6.0", "{intelRdt: {closID: x}}"),
            ("1.1.0", "1.0.0", "{intelRdt: {enableMonitoring: true}}"),
            (
                "1.1.0",
                "1.0.0",
                "{netDevices: [{hostInterfaceName: a, name: b}]}",
            ),
        ];
        for (enough, less, edits) in table {
            assert!(with(enough, edits).is_ok(), "{enough} {edits}");
            let error = with(less, edits).expect_err(less).to_string();
            assert!(error.contains("cdiVersion"), "{error}");
        }
        let kind = |version: &str| {
            parse(&format!(
                "cdiVersion: {version}\nkind: v.com/a.b\ndevices: [{{name: x, containerEdits: {{env: [A=b]}}}}]"
            ))
        };
        assert!(kind("0.6.0").is_ok() && kind("0.5.0").is_err());
        let digit = |version: &str| {
            parse(&format!(
                "cdiVersion: {version}\nkind: v.com/a\ndevices: [{{name: '0', containerEdits: {{env: [A=b]}}}}]"
            ))
        };
        assert!(digit("0.5.0").is_ok() && digit("0.4.0").is_err());
        for unknown in ["2.0.0", "1", "''", "0.6"] {
            assert!(with(unknown, "{}").is_err(), "{unknown}");
        }
        assert!(with("v1.0.0", "{}").is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let table = [
            ("{unknown: 1}", Some(6), "unknown field `unknown`"),
            ("{env: [A]}", None, "containerEdits.env[0]"),
            ("{env: ['=x']}", None, "containerEdits.env[0]"),
            ("{env: x}", Some(6), "expected a sequence"),
            (
                "{deviceNodes: [{path: dev}]}",
                None,
                "containerEdits.deviceNodes[0].path",
            ),
            (
                "{deviceNodes: [{path: /dev/a, type: x}]}",
                None,
                "containerEdits.deviceNodes[0].type",
            ),
            (
                "{deviceNodes: [{path: /dev/a, major: -1}]}",
                None,
                "containerEdits.deviceNodes[0].major",
            ),
            (
                "{deviceNodes: [{path: /dev/a, permissions: rx}]}",
                None,
                "containerEdits.deviceNodes[0].permissions",
            ),
            ("{mounts: [{hostPath: /a}]}", Some(6), "containerPath"),
            (
                "{mounts: [{hostPath: a, containerPath: /b}]}",
                None,
                "containerEdits.mounts[0].hostPath",
            ),
            (
                "{hooks: [{hookName: never, path: /a}]}",
                None,
                "containerEdits.hooks[0].hookName",
            ),
            (
                "{hooks: [{hookName: poststart, path: a}]}",
                None,
                "containerEdits.hooks[0].path",
            ),
            (
                "{hooks: [{hookName: poststart, path: /a, timeout: 0}]}",
                None,
                "containerEdits.hooks[0].timeout",
            ),
        ];
        for (edits, line, part) in table {
            match with("1.1.0", edits) {
                Err(CdiError::File { place, reason, path }) => {
                    assert_eq!(place.map(|(line, _)| line), line, "{edits}: {reason}");
                    assert!(reason.contains(part), "{edits}: {reason}");
                    assert_eq!(path, Path::new("/etc/cdi/a.yaml"));
                }
                other => panic!("{edits}: {other:?}"),
            }
        }
        let json = "{\"cdiVersion\": \"1.0.0\",\n \"kind\": 1}";
        match SpecFile::parse(Path::new("/a.json"), json) {
            Err(CdiError::File { place, .. }) => assert_eq!(place.map(|(line, _)| line), Some(2)),
            other => panic!("{other:?}"),
        }
        let head = "cdiVersion: 1.0.0\nkind: v.com/c\n";
        for (rest, part) in [
            ("devices: []", "there is none"),
            ("devices: [{name: a}]", "it is empty"),
            (
                "devices: [{name: a, containerEdits: {env: [A=b]}}, {name: a, containerEdits: {env: [A=b]}}]",
                "twice",
            ),
            (
                "devices: [{name: a=b, containerEdits: {env: [A=b]}}]",
                "devices[0].name",
            ),
        ] {
            let error = parse(&format!("{head}{rest}")).expect_err(rest).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(text in any::<String>(), near in "[a-zA-Z0-9:{}\\[\\], \n-]{0,80}") {
            for text in [text, format!("cdiVersion: 1.0.0\nkind: v.com/c\n{near}")] {
                let _ = parse(&text);
                let _ = SpecFile::parse(Path::new("a.json"), &text);
            }
        }

        #[test]
        fn a_file_that_is_cut_or_changed_does_no_harm(at in 0usize..400, byte in any::<u8>(), cut in any::<bool>()) {
            let whole = "cdiVersion: 1.1.0\nkind: v.com/c\ncontainerEdits:\n  env: [A=b]\n  mounts:\n  - hostPath: /a\n    \
                containerPath: /b\n    options: [ro, rbind]\n  hooks:\n  - hookName: createContainer\n    path: /x\n    \
                args: [x, y]\n    timeout: 3\ndevices:\n- name: '0'\n  containerEdits:\n    deviceNodes:\n    - path: /dev/x\n      \
                major: 195\n      minor: 0\n      type: c\n";
            let mut bytes = whole.as_bytes().to_vec();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            let _ = parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
