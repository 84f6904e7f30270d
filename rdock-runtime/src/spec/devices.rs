//! Devices of the host that a container gets, and what it may do with devices.

use super::ParseError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// A device of the host, or a directory of them, inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Device {
    /// Its node on the host, or a directory: every device below it. Links are followed when the container starts.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: String,
    /// What may be done with it.
    pub access: DeviceAccess,
}

/// What a container may do with a device.
///
/// Kept by the kernel's control groups, beside the permissions of the node. Without root they are not to be had, and
/// less than everything is a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceAccess {
    /// Open it for reading.
    pub read: bool,
    /// Open it for writing.
    pub write: bool,
    /// Make nodes of it (mknod(2)).
    pub mknod: bool,
}

/// Which devices a [`DeviceRule`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeviceKind {
    /// Of either kind.
    Any,
    /// Block devices.
    Block,
    /// Character devices.
    Character,
}

/// Allows something with devices that the container does not get a node of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceRule {
    /// Their kind.
    pub kind: DeviceKind,
    /// Their major number; `None` is any.
    pub major: Option<u32>,
    /// Their minor number; `None` is any.
    pub minor: Option<u32>,
    /// What is allowed.
    pub access: DeviceAccess,
}

impl Device {
    /// The device at `source`, at the same path in the container, with every access.
    pub fn new(source: impl Into<PathBuf>) -> Self {
        let source = source.into();
        Self {
            target: source.to_string_lossy().into_owned(),
            source,
            access: DeviceAccess::ALL,
        }
    }
    /// Sets the path in the container.
    pub fn at(mut self, target: impl Into<String>) -> Self {
        self.target = target.into();
        self
    }
    /// Sets what may be done with it.
    pub fn access(mut self, access: DeviceAccess) -> Self {
        self.access = access;
        self
    }

    /// Parses docker's `--device`: `SOURCE[:TARGET][:ACCESS]`, the last one letters of `rwm`.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let error = |reason: &str| ParseError::new("a device", text, reason);
        let mut parts = text.split(':');
        let source = parts.next().unwrap_or_default();
        if !source.starts_with('/') {
            return Err(error(
                "it begins with the absolute path of a node on the host, or is a CDI device VENDOR/CLASS=NAME",
            ));
        }
        let device = Self::new(source);
        let device = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => device,
            (Some(one), None, _) => match DeviceAccess::parse(one) {
                Ok(access) => device.access(access),
                Err(_) => device.at(one),
            },
            (Some(target), Some(access), None) => device
                .at(target)
                .access(DeviceAccess::parse(access).map_err(|other| error(&other.reason))?),
            (.., Some(_)) => return Err(error("it is SOURCE[:TARGET][:ACCESS]")),
        };
        match device.target.starts_with('/') {
            true => Ok(device),
            false => Err(error(
                "what follows the source is an absolute path in the container, or letters of rwm",
            )),
        }
    }
}

impl DeviceAccess {
    /// Everything.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        mknod: true,
    };

    /// Parses letters of `rwm`, each at most once.
    ///
    /// # Errors
    /// For none of them, another letter, or one twice.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut access = Self {
            read: false,
            write: false,
            mknod: false,
        };
        for letter in text.chars() {
            let slot = match letter {
                'r' => &mut access.read,
                'w' => &mut access.write,
                'm' => &mut access.mknod,
                _ => {
                    return Err(ParseError::new(
                        "an access to a device",
                        text,
                        "its letters are r (read), w (write) and m (mknod)",
                    ));
                }
            };
            if std::mem::replace(slot, true) {
                return Err(ParseError::new(
                    "an access to a device",
                    text,
                    "a letter is there twice",
                ));
            }
        }
        match text.is_empty() {
            true => Err(ParseError::new("an access to a device", text, "it is empty")),
            false => Ok(access),
        }
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (given, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            f.write_str(if given { letter } else { "" })?;
        }
        Ok(())
    }
}

impl DeviceRule {
    /// Allows `access` to the devices of a kind with these numbers.
    pub fn new(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: DeviceAccess) -> Self {
        Self {
            kind,
            major,
            minor,
            access,
        }
    }

    /// Parses docker's `--device-cgroup-rule`: `KIND MAJOR:MINOR ACCESS`, kinds being `a`, `b` and `c`, and `*` any
    /// number.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let error = || {
            ParseError::new(
                "a rule for devices",
                text,
                "it is KIND MAJOR:MINOR ACCESS, such as \"c 1:3 mr\" or \"b 8:* r\"",
            )
        };
        let number = |text: &str| match text {
            "*" => Ok(None),
            _ if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map(Some).map_err(|_| error())
            }
            _ => Err(error()),
        };
        let words: Vec<&str> = text.split(' ').collect();
        let [kind, numbers, access] = words[..] else {
            return Err(error());
        };
        let kind = match kind {
            "a" => DeviceKind::Any,
            "b" => DeviceKind::Block,
            "c" => DeviceKind::Character,
            _ => return Err(error()),
        };
        let (major, minor) = numbers.split_once(':').ok_or_else(error)?;
        let access = DeviceAccess::parse(access).map_err(|_| error())?;
        Ok(Self::new(kind, number(major)?, number(minor)?, access))
    }
}

/// As the kernel's control groups of version 1 write it.
impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::Any => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Character => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(
            f,
            "{kind} {}:{} {}",
            number(self.major),
            number(self.minor),
            self.access
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn devices_as_docker_takes_them() {
        let read = DeviceAccess::parse("r").unwrap();
        let table = [
            ("/dev/fuse", Device::new("/dev/fuse")),
            ("/dev/fuse:/dev/x", Device::new("/dev/fuse").at("/dev/x")),
            ("/dev/fuse:r", Device::new("/dev/fuse").access(read)),
            (
                "/dev/fuse:/dev/x:r",
                Device::new("/dev/fuse").at("/dev/x").access(read),
            ),
            ("/dev/snd", Device::new("/dev/snd")),
        ];
        for (text, expected) in table {
            assert_eq!(Device::parse(text), Ok(expected), "{text:?}");
        }
        for bad in [
            "",
            "fuse",
            "/dev/fuse:",
            "/dev/fuse:x",
            "/dev/fuse:/dev/x:",
            "/dev/fuse:/dev/x:q",
            "/dev/fuse:/dev/x:rr",
            "/dev/a:/dev/b:r:w",
            "/dev/fuse:rwmr",
            "vendor.com/class=name",
        ] {
            assert!(Device::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rules_as_docker_takes_them() {
        for text in ["c 1:3 rm", "a *:* rwm", "b 8:* r", "c 4294967295:0 w"] {
            assert_eq!(DeviceRule::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(DeviceRule::parse("c 1:3 mr").unwrap().to_string(), "c 1:3 rm");
        for bad in [
            "",
            "c",
            "c 1:3",
            "c 1:3 ",
            "c 1:3 x",
            "c  1:3 r",
            "d 1:3 r",
            "c 1 r",
            "c :3 r",
            "c 1: r",
            "c -1:3 r",
            "c +1:3 r",
            "c 1:3 r\n",
            "c 1:3 r w",
            "c 4294967296:0 r",
            "c 1:3 rr",
        ] {
            assert!(DeviceRule::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,24}", near in "[abc] [0-9*]{0,12}:[0-9*]{0,3} [rwm]{0,4}") {
            for text in [text, near] {
                let _ = Device::parse(&text);
                if let Ok(rule) = DeviceRule::parse(&text) {
                    prop_assert_eq!(DeviceRule::parse(&rule.to_string()), Ok(rule));
                }
            }
        }
    }
}
