//! How much a container may use.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Limits of a container; `None` is no limit.
///
/// What the kernel of a machine cannot enforce is a warning on the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Resources {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; [`u64::MAX`] for as much swap as there is. Twice the memory limit when
    /// `None`, as in docker.
    pub memory_swap: Option<u64>,
    /// Bytes below which memory is not reclaimed first.
    pub memory_reservation: Option<u64>,
    /// How readily anonymous memory is swapped out, 0 to 100. Cgroup version 1 alone.
    pub memory_swappiness: Option<u64>,
    /// The kernel lets processes wait for memory instead of killing them. Cgroup version 1 alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub oom_kill_disable: bool,
    /// Processors.
    pub cpus: Option<f64>,
    /// Microseconds in which [`Self::cpu_quota`] may be used up, 1000 to 1000000; 100000 when `None`.
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in each period, from 1000; a negative number is no limit. Not beside
    /// [`Self::cpus`], which says the same in another unit.
    pub cpu_quota: Option<i64>,
    /// Microseconds in which [`Self::cpu_rt_runtime`] may be used up. Cgroup version 1 alone.
    pub cpu_rt_period: Option<u64>,
    /// Microseconds of realtime scheduling in each period (sched(7)). Cgroup version 1 alone.
    pub cpu_rt_runtime: Option<u64>,
    /// Relative weight, 2 to 262144; 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Processors that may be used, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used, as `0-2,4`.
    pub cpuset_mems: Option<String>,
    /// Processes and threads; [`u64::MAX`] is no limit.
    pub pids: Option<u64>,
    /// Relative weight of block I/O, 10 to 1000; 500 is usual.
    pub blkio_weight: Option<u16>,
    /// The same for single devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blkio_weight_devices: Vec<DeviceWeight>,
    /// Bytes that are read per second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_read_bps: Vec<DeviceRate>,
    /// Bytes that are written per second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_write_bps: Vec<DeviceRate>,
    /// Reads per second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_read_iops: Vec<DeviceRate>,
    /// Writes per second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_write_iops: Vec<DeviceRate>,
}

/// The weight of a container's I/O on one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceWeight {
    /// The device's node on the host.
    pub path: PathBuf,
    /// 10 to 1000.
    pub weight: u16,
}

/// A limit of a container's I/O on one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceRate {
    /// The device's node on the host.
    pub path: PathBuf,
    /// Bytes or operations per second; 0 is no limit.
    pub rate: u64,
}

impl DeviceWeight {
    /// The weight for the block device whose node is at `path`.
    pub fn new(path: impl Into<PathBuf>, weight: u16) -> Self {
        Self {
            path: path.into(),
            weight,
        }
    }

    /// Parses docker's `--blkio-weight-device`: `PATH:WEIGHT`.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &str) -> Result<Self, super::ParseError> {
        let (path, weight) = path_and_number("the weight of a device", text)?;
        match weight.parse() {
            Ok(number @ (0 | 10..=1000)) if !weight.starts_with('+') => Ok(Self::new(path, number)),
            _ => Err(super::ParseError::new(
                "the weight of a device",
                text,
                "the weight is a number from 10 to 1000",
            )),
        }
    }
}

impl DeviceRate {
    /// The limit for the block device whose node is at `path`.
    pub fn new(path: impl Into<PathBuf>, rate: u64) -> Self {
        Self {
            path: path.into(),
            rate,
        }
    }

    /// Parses docker's `--device-read-bps` and `--device-write-bps`: `PATH:SIZE`, such as `/dev/sda:1mb`.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse_bytes(text: &str) -> Result<Self, super::ParseError> {
        let (path, rate) = path_and_number("a rate of a device", text)?;
        let rate = super::parse_size(rate)
            .map_err(|error| super::ParseError::new("a rate of a device", text, error.reason))?;
        Ok(Self::new(path, rate))
    }

    /// Parses docker's `--device-read-iops` and `--device-write-iops`: `PATH:NUMBER`.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse_operations(text: &str) -> Result<Self, super::ParseError> {
        let (path, rate) = path_and_number("a rate of a device", text)?;
        match rate.parse() {
            Ok(number) if !rate.starts_with('+') => Ok(Self::new(path, number)),
            _ => Err(super::ParseError::new(
                "a rate of a device",
                text,
                "the rate is a number of operations per second",
            )),
        }
    }
}

/// `PATH:REST`, the path being absolute.
fn path_and_number<'a>(what: &'static str, text: &'a str) -> Result<(&'a str, &'a str), super::ParseError> {
    match text.rsplit_once(':') {
        Some((path, rest)) if path.starts_with('/') && !path.contains('\0') => Ok((path, rest)),
        Some(_) => Err(super::ParseError::new(
            what,
            text,
            "the device is the absolute path of its node",
        )),
        None => Err(super::ParseError::new(what, text, "it is PATH:NUMBER")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_of_devices_as_docker_takes_them() {
        assert_eq!(
            DeviceRate::parse_bytes("/dev/sda:1mb"),
            Ok(DeviceRate::new("/dev/sda", 1 << 20))
        );
        assert_eq!(
            DeviceRate::parse_bytes("/dev/sda:0"),
            Ok(DeviceRate::new("/dev/sda", 0))
        );
        // A path may have colons itself.
        assert_eq!(
            DeviceRate::parse_operations("/dev/by-path/pci-0:1:1000"),
            Ok(DeviceRate::new("/dev/by-path/pci-0:1", 1000))
        );
        assert_eq!(
            DeviceWeight::parse("/dev/sda:10"),
            Ok(DeviceWeight::new("/dev/sda", 10))
        );
        for bad in [
            "",
            "/dev/sda",
            "sda:1",
            "/dev/sda:",
            "/dev/sda:-1",
            "/dev/sda:+1",
            "/dev/sda:x",
            ":1",
        ] {
            assert!(DeviceRate::parse_bytes(bad).is_err(), "{bad:?}");
            assert!(DeviceRate::parse_operations(bad).is_err(), "{bad:?}");
            assert!(DeviceWeight::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["/dev/sda:9", "/dev/sda:1001", "/dev/sda:70000"] {
            assert!(DeviceWeight::parse(bad).is_err(), "{bad:?}");
        }
        assert!(DeviceRate::parse_operations("/dev/sda:1k").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,24}", near in "/?[a-z:]{0,6}:[0-9a-z.+-]{0,6}") {
            for text in [text, near] {
                let _ = DeviceRate::parse_bytes(&text);
                let _ = DeviceRate::parse_operations(&text);
                let _ = DeviceWeight::parse(&text);
            }
        }
    }
}
