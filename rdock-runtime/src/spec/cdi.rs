//! Names of devices of the Container Device Interface (CDI), and the two kinds of words of `--device`.

use super::{Device, ParseError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A device that a CDI specification file of the host describes: `VENDOR/CLASS=NAME`, such as `nvidia.com/gpu=0`.
///
/// Such a file (in `/etc/cdi` or `/var/run/cdi`) says what a container needs for the device: nodes, mounts, variables,
/// hooks. It is read when the container starts, at every start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CdiDevice {
    /// All of it.
    text: String,
    /// Bytes of the vendor.
    vendor: u16,
    /// Bytes of vendor, slash and class.
    kind: u16,
}

/// What `--device` can name: a node of the host, or a CDI device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContainerDevice {
    /// A node, or a directory of nodes.
    Node(Device),
    /// A CDI device.
    Cdi(CdiDevice),
}

impl CdiDevice {
    /// Parses `VENDOR/CLASS=NAME`.
    ///
    /// Vendor and class begin with a letter, the name with a letter or a digit; all end with one of these. Between
    /// are letters, digits and `_-.`, in a name also `:` (CDI specification, "Kind" and "CDI Devices").
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let error = |reason: &str| ParseError::new("a CDI device", text, reason);
        let (kind, name) = text
            .split_once('=')
            .ok_or_else(|| error("it is VENDOR/CLASS=NAME"))?;
        let (vendor, _) = parse_kind(kind).map_err(&error)?;
        if !is_device_name(name) {
            return Err(error(
                "the name has letters, digits and _-.: and begins and ends with a letter or a digit",
            ));
        }
        // The grammar has no longer ones.
        let length = |part: &str| u16::try_from(part.len()).map_err(|_| error("it is too long"));
        Ok(Self {
            vendor: length(vendor)?,
            kind: length(kind)?,
            text: text.to_owned(),
        })
    }

    /// Who describes the device, `nvidia.com`.
    pub fn vendor(&self) -> &str {
        &self.text[..self.vendor.into()]
    }
    /// What it is, `gpu`.
    pub fn class(&self) -> &str {
        &self.text[usize::from(self.vendor) + 1..self.kind.into()]
    }
    /// Which one, `0` or `all`.
    pub fn name(&self) -> &str {
        &self.text[usize::from(self.kind) + 1..]
    }
    /// Vendor and class, `nvidia.com/gpu`.
    pub fn kind(&self) -> &str {
        &self.text[..self.kind.into()]
    }
}

/// Splits a kind into vendor and class.
///
/// # Errors
/// The rule it breaks.
pub(crate) fn parse_kind(kind: &str) -> Result<(&str, &str), &'static str> {
    let (vendor, class) = kind.split_once('/').ok_or("the kind is VENDOR/CLASS")?;
    let word = |text: &str, most: usize| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        text.len() <= most
            && text.starts_with(|first: char| first.is_ascii_alphabetic())
            && text.ends_with(|last: char| last.is_ascii_alphanumeric())
            && text.bytes().all(inner)
    };
    match (word(vendor, 253), word(class, 63)) {
        (true, true) => Ok((vendor, class)),
        _ => Err(
            "vendor (at most 253 letters) and class (at most 63) have letters, digits and _-., begin with a letter \
             and end with a letter or a digit",
        ),
    }
}

/// Whether it can be a device's name.
pub(crate) fn is_device_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    name.len() <= 253
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.ends_with(|last: char| last.is_ascii_alphanumeric())
        && name.bytes().all(inner)
}

impl fmt::Display for CdiDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for CdiDevice {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for CdiDevice {
    type Error = ParseError;
    fn try_from(text: String) -> Result<Self, ParseError> {
        Self::parse(&text)
    }
}

impl From<CdiDevice> for String {
    fn from(device: CdiDevice) -> Self {
        device.text
    }
}

impl ContainerDevice {
    /// Parses docker's `--device`: `SOURCE[:TARGET][:ACCESS]` as [`Device::parse`], or `VENDOR/CLASS=NAME` as
    /// [`CdiDevice::parse`]. A node's source begins with a slash.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        match !text.starts_with('/') && text.contains('=') {
            true => CdiDevice::parse(text).map(Self::Cdi),
            false => Device::parse(text).map(Self::Node),
        }
    }
}

impl From<Device> for ContainerDevice {
    fn from(device: Device) -> Self {
        Self::Node(device)
    }
}

impl From<CdiDevice> for ContainerDevice {
    fn from(device: CdiDevice) -> Self {
        Self::Cdi(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_as_the_specification_has_them() {
        for text in [
            "nvidia.com/gpu=0",
            "nvidia.com/gpu=all",
            "nvidia.com/gpu=GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c",
            "nvidia.com/gpu=1:0",
            "foo.bar.baz/foo-bar123.B_az=a",
            "v/c=d",
        ] {
            let device = CdiDevice::parse(text).expect(text);
            assert_eq!(device.to_string(), text);
            let parts = format!("{}/{}={}", device.vendor(), device.class(), device.name());
            assert_eq!(
                (parts.as_str(), device.kind()),
                (text, text.split('=').next().unwrap_or_default())
            );
            assert!(matches!(
                ContainerDevice::parse(text),
                Ok(ContainerDevice::Cdi(_))
            ));
        }
        for bad in [
            "",
            "gpu",
            "gpu=0",
            "nvidia.com/gpu",
            "nvidia.com/gpu=",
            "/gpu=0",
            "nvidia.com/=0",
            "1vendor/gpu=0",
            "vendor/1gpu=0",
            "vendor-/gpu=0",
            "vendor/gpu/more=0",
            "vendor.com/gpu=-0",
            "vendor.com/gpu=0-",
            "vendor.com/gpu=a=b",
            "vendor.com/gpu=a b",
            "vendor.com/gpu=a/b",
            "véndor.com/gpu=a",
            "../etc/gpu=a",
            "vendor.com/gpu=0\n",
        ] {
            assert!(CdiDevice::parse(bad).is_err(), "{bad:?}");
        }
        let long = |vendor: usize, class: usize, name: usize| {
            CdiDevice::parse(&format!(
                "{}/{}={}",
                "v".repeat(vendor),
                "c".repeat(class),
                "n".repeat(name)
            ))
        };
        assert!(long(253, 63, 253).is_ok());
        assert!(long(254, 63, 1).is_err() && long(1, 64, 1).is_err() && long(1, 1, 254).is_err());
    }

    #[test]
    fn a_node_begins_with_a_slash() {
        let node = ContainerDevice::parse("/dev/a=b:/dev/c:r").expect("node");
        assert!(matches!(node, ContainerDevice::Node(device) if device.target == "/dev/c"));
        assert!(ContainerDevice::parse("fuse").is_err());
    }

    #[test]
    fn it_is_kept_as_text() {
        let device = CdiDevice::parse("vendor.com/class=name").expect("name");
        let json = serde_json::to_string(&device).expect("json");
        assert_eq!(json, "\"vendor.com/class=name\"");
        assert_eq!(serde_json::from_str::<CdiDevice>(&json).expect("back"), device);
        assert!(serde_json::from_str::<CdiDevice>("\"vendor.com\"").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,24}", near in "[a-z.]{0,4}/?[a-z_-]{0,4}=?[0-9a-z:]{0,4}") {
            for text in [text, near] {
                if let Ok(device) = CdiDevice::parse(&text) {
                    prop_assert_eq!(device.to_string(), text);
                }
            }
        }
    }
}
