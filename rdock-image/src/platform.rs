//! Platforms: which machine an image is for, and which image of an index suits a machine.
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Operating system and processor of an image (OCI image index specification, `platform`).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Platform {
    /// In Go's words: `linux`, `windows`.
    #[serde(default)]
    pub os: String,
    /// In Go's words: `amd64`, `arm64`, `arm`.
    #[serde(default)]
    pub architecture: String,
    /// Of the processor: `v7` of `arm`. `None` is the architecture's usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Of Windows images.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Of Windows images.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

impl Platform {
    /// Returns the platform this program was compiled for.
    pub fn host() -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            ..Self::default()
        }
        .normalized()
    }

    /// Parses `os/architecture[/variant]`, with the usual other names (`x86_64`, `aarch64`, `armhf`); a single
    /// word is an operating system or an architecture, the rest is the host's.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |reason| Error::InvalidPlatform {
            text: text.chars().take(200).collect(),
            reason,
        };
        let words: Vec<&str> = text.split('/').collect();
        for word in &words {
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            if word.is_empty() || !word.bytes().all(good) {
                return Err(invalid(
                    "words of letters, digits, '_', '-', '.' separated by '/' are expected",
                ));
            }
        }
        let host = Self::host();
        let (os, architecture, variant) = match words[..] {
            [os] if KNOWN_OS.contains(&os.to_ascii_lowercase().as_str()) => {
                (os, host.architecture.as_str(), None)
            }
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(invalid("more than three words")),
        };
        let platform = Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant,
            ..Self::default()
        };
        Ok(platform.normalized())
    }

    /// Returns the platform with Go's names, lower case, and without a variant that is the usual one.
    pub fn normalized(&self) -> Self {
        let mut platform = self.clone();
        platform.os = self.os.to_ascii_lowercase();
        if platform.os == "macos" {
            platform.os = "darwin".to_owned();
        }
        let variant = self
            .variant
            .as_deref()
            .filter(|v| !v.is_empty())
            .map(str::to_ascii_lowercase);
        let (architecture, variant) = match (
            self.architecture.to_ascii_lowercase().as_str(),
            variant.as_deref(),
        ) {
            ("i386" | "i686" | "x86", _) => ("386", None),
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64" | "amd64", Some(variant)) => ("amd64", Some(variant)),
            ("aarch64" | "arm64", None | Some("8" | "v8" | "v8.0")) => ("arm64", None),
            ("aarch64" | "arm64", Some(variant)) => ("arm64", Some(variant)),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            ("loongarch64" | "loong64", variant) => ("loong64", variant),
            ("riscv64gc" | "riscv64", variant) => ("riscv64", variant),
            ("powerpc64" | "ppc64le", variant) => ("ppc64le", variant),
            (other, variant) => {
                let (architecture, variant) = (other.to_owned(), variant.map(str::to_owned));
                platform.architecture = architecture;
                platform.variant = variant;
                return platform;
            }
        };
        platform.architecture = architecture.to_owned();
        platform.variant = variant.map(str::to_owned);
        platform
    }

    /// Says whether both name the same platform; the order of `os_features` does not count.
    pub fn same_as(&self, other: &Self) -> bool {
        let (mut a, mut b) = (self.normalized(), other.normalized());
        a.os_features.sort();
        b.os_features.sort();
        a == b
    }

    /// Returns how well an image for `image` serves where `self` is wanted: `None` not at all, 0 exactly, larger
    /// numbers worse. An older variant of a processor runs on a newer one, and 32-bit ARM on 64-bit ARM.
    pub fn rank(&self, image: &Self) -> Option<u32> {
        let (want, have) = (self.normalized(), image.normalized());
        if want.os != have.os {
            return None;
        }
        if let Some(version) = &want.os_version
            && have.os_version.as_ref() != Some(version)
        {
            return None;
        }
        if !want
            .os_features
            .iter()
            .all(|feature| have.os_features.contains(feature))
        {
            return None;
        }
        if want.architecture == have.architecture {
            if want.variant == have.variant {
                return Some(0);
            }
            let default = if want.architecture == "arm64" { 8 } else { 1 };
            let number = |variant: &Option<String>| match variant {
                None => Some(default),
                Some(text) => text.strip_prefix('v')?.split('.').next()?.parse::<u32>().ok(),
            };
            return match (number(&want.variant), number(&have.variant)) {
                (Some(want), Some(have)) if have <= want => Some(1 + want - have),
                _ => None,
            };
        }
        if want.architecture == "arm64" && have.architecture == "arm" {
            return match have.variant.as_deref() {
                Some("v8") => Some(100),
                Some("v7") => Some(101),
                Some("v6") => Some(102),
                Some("v5") => Some(103),
                _ => None,
            };
        }
        None
    }

    /// Says whether an image for `image` may be used where `self` is wanted.
    pub fn accepts(&self, image: &Self) -> bool {
        self.rank(image).is_some()
    }
}

const KNOWN_OS: [&str; 10] = [
    "linux", "windows", "darwin", "macos", "freebsd", "netbsd", "openbsd", "solaris", "aix", "wasip1",
];

impl fmt::Display for Platform {
    /// Writes `os/architecture[/variant]`, normalised.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let platform = self.normalized();
        write!(f, "{}/{}", platform.os, platform.architecture)?;
        match &platform.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_are_normalised() {
        let text = |input: &str| Platform::parse(input).unwrap().to_string();
        assert_eq!(text("linux/x86_64"), "linux/amd64");
        assert_eq!(text("linux/aarch64/v8"), "linux/arm64");
        assert_eq!(text("linux/armhf"), "linux/arm/v7");
        assert_eq!(text("arm64"), "linux/arm64");
        assert!(Platform::parse("linux/").is_err());
        assert!(Platform::parse("a/b/c/d").is_err());
    }

    #[test]
    fn older_variants_serve_newer_machines_and_not_the_reverse() {
        let rank = |want: &str, have: &str| {
            Platform::parse(want)
                .unwrap()
                .rank(&Platform::parse(have).unwrap())
        };
        assert_eq!(rank("linux/amd64", "linux/amd64"), Some(0));
        assert!(rank("linux/arm/v7", "linux/arm/v6") < rank("linux/arm/v7", "linux/arm/v5"));
        assert_eq!(rank("linux/arm/v6", "linux/arm/v7"), None);
        assert!(rank("linux/arm64", "linux/arm/v7").is_some());
        assert_eq!(rank("linux/amd64", "linux/amd64/v3"), None);
        assert_eq!(rank("linux/amd64", "linux/arm64"), None);
    }
}
