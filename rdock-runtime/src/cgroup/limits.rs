//! A spec's limits as what is written into the groups of either version.

use super::CgroupError;
use crate::spec::{DeviceRate, Resources};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// One limit. Kernels have different files for some: the first that is there is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The field of [`Resources`].
    pub(super) name: &'static str,
    /// Version 1: file and value.
    pub(super) v1: Vec<(&'static str, String)>,
    pub(super) v2: Vec<(&'static str, String)>,
    /// Nobody asked for it: a kernel without it is no news.
    pub(super) quiet: bool,
}

/// Microseconds of a period of processor time.
const PERIOD: u64 = 100_000;

impl Setting {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            v1: Vec::new(),
            v2: Vec::new(),
            quiet: false,
        }
    }
    fn v1(mut self, file: &'static str, value: impl ToString) -> Self {
        self.v1.push((file, value.to_string()));
        self
    }
    fn v2(mut self, file: &'static str, value: impl ToString) -> Self {
        self.v2.push((file, value.to_string()));
        self
    }
    fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }
}

/// By controller, in the order in which they are written. `new`: of a group that has no limits yet.
///
/// # Errors
/// [`CgroupError::Device`] for a path that is no block device.
pub(super) fn wanted(
    resources: &Resources,
    new: bool,
) -> Result<Vec<(Controller, Vec<Setting>)>, CgroupError> {
    let mut all = vec![
        (Controller::Memory, memory(resources, new)),
        (Controller::Cpu, cpu(resources)),
        (Controller::Cpuset, cpuset(resources)),
        (Controller::Pids, pids(resources)),
        (Controller::Block, block(resources)?),
    ];
    all.retain(|(_, settings)| !settings.is_empty());
    Ok(all)
}

/// What keeps a kind of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Cpuset,
    Pids,
    Block,
}

impl Controller {
    /// Its name in version 1 and in version 2.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Memory => ("memory", "memory"),
            Self::Cpu => ("cpu", "cpu"),
            Self::Cpuset => ("cpuset", "cpuset"),
            Self::Pids => ("pids", "pids"),
            Self::Block => ("blkio", "io"),
        }
    }
}

/// [`u64::MAX`] in the words of either version.
fn or_no_limit(value: u64, none: &str) -> String {
    match value {
        u64::MAX => none.to_owned(),
        value => value.to_string(),
    }
}

fn memory(resources: &Resources, new: bool) -> Vec<Setting> {
    let mut all = Vec::new();
    if let Some(bytes) = resources.memory {
        let setting = Setting::new("memory");
        all.push(setting.v1("memory.limit_in_bytes", bytes).v2("memory.max", bytes));
    }
    if let Some(bytes) = resources.memory_reservation {
        let setting = Setting::new("memory_reservation");
        all.push(
            setting
                .v1("memory.soft_limit_in_bytes", bytes)
                .v2("memory.low", bytes),
        );
    }
    let usual = resources.memory.map(|memory| memory.saturating_mul(2));
    if let Some(total) = resources.memory_swap.or(usual) {
        // Version 2 counts swap alone.
        let swap = match total {
            u64::MAX => u64::MAX,
            total => total.saturating_sub(resources.memory.unwrap_or(0)),
        };
        let setting = Setting {
            quiet: resources.memory_swap.is_none(),
            ..Setting::new("memory_swap")
        };
        // A new group has no limit of swap.
        if !(new && total == u64::MAX) {
            all.push(
                setting
                    .v1("memory.memsw.limit_in_bytes", or_no_limit(total, "-1"))
                    .v2("memory.swap.max", or_no_limit(swap, "max")),
            );
        }
    }
    if let Some(value) = resources.memory_swappiness {
        all.push(Setting::new("memory_swappiness").v1("memory.swappiness", value));
    }
    if resources.oom_kill_disable {
        all.push(Setting::new("oom_kill_disable").v1("memory.oom_control", 1));
    }
    all
}

fn cpu(resources: &Resources) -> Vec<Setting> {
    let mut all = Vec::new();
    let (period, quota) = match resources.cpus {
        // Docker's smallest quota is that of the kernel.
        Some(cpus) => (
            Some(PERIOD),
            Some((cpus * PERIOD as f64).round().max(1000.0) as i64),
        ),
        None => (resources.cpu_period, resources.cpu_quota),
    };
    let name = match (resources.cpus, quota) {
        (Some(_), _) => "cpus",
        (None, Some(_)) => "cpu_quota",
        (None, None) => "cpu_period",
    };
    if period.is_some() || quota.is_some() {
        let part = match quota {
            Some(quota) if quota >= 0 => quota.to_string(),
            _ => "max".to_owned(),
        };
        let both = match period {
            Some(period) => format!("{part} {period}"),
            None => part,
        };
        // Version 2 has both in one file, so the first of the two settings says it all.
        let first = Setting::new(name).v2("cpu.max", both);
        match (period, quota) {
            (Some(period), Some(quota)) => {
                all.push(first.v1("cpu.cfs_period_us", period));
                all.push(Setting::new(name).v1("cpu.cfs_quota_us", quota.max(-1)).quiet());
            }
            (Some(period), None) => all.push(first.v1("cpu.cfs_period_us", period)),
            (_, quota) => all.push(first.v1("cpu.cfs_quota_us", quota.unwrap_or(-1).max(-1))),
        }
    }
    if let Some(shares) = resources.cpu_shares {
        let setting = Setting::new("cpu_shares");
        all.push(setting.v1("cpu.shares", shares).v2("cpu.weight", weight(shares)));
    }
    if let Some(period) = resources.cpu_rt_period {
        all.push(Setting::new("cpu_rt_period").v1("cpu.rt_period_us", period));
    }
    if let Some(runtime) = resources.cpu_rt_runtime {
        all.push(Setting::new("cpu_rt_runtime").v1("cpu.rt_runtime_us", runtime));
    }
    all
}

fn cpuset(resources: &Resources) -> Vec<Setting> {
    let sets = [
        ("cpuset_cpus", "cpuset.cpus", &resources.cpuset_cpus),
        ("cpuset_mems", "cpuset.mems", &resources.cpuset_mems),
    ];
    sets.into_iter()
        .filter_map(|(name, file, set)| {
            let set = set.as_ref()?;
            Some(Setting::new(name).v1(file, set).v2(file, set))
        })
        .collect()
}

fn pids(resources: &Resources) -> Vec<Setting> {
    let value = resources.pids.map(|pids| or_no_limit(pids, "max"));
    value
        .map(|value| Setting::new("pids").v1("pids.max", &value).v2("pids.max", &value))
        .into_iter()
        .collect()
}

fn block(resources: &Resources) -> Result<Vec<Setting>, CgroupError> {
    let mut all = Vec::new();
    if let Some(weight) = resources.blkio_weight {
        all.push(
            Setting::new("blkio_weight")
                .v1("blkio.bfq.weight", weight)
                .v1("blkio.weight", weight)
                .v2("io.bfq.weight", weight)
                .v2("io.weight", io_weight(weight)),
        );
    }
    for device in &resources.blkio_weight_devices {
        let (number, weight) = (number(&device.path)?, device.weight);
        all.push(
            Setting::new("blkio_weight_devices")
                .v1("blkio.bfq.weight_device", format!("{number} {weight}"))
                .v1("blkio.weight_device", format!("{number} {weight}"))
                .v2("io.bfq.weight", format!("{number} {weight}"))
                .v2("io.weight", format!("{number} {}", io_weight(weight))),
        );
    }
    let rates: [(_, _, _, &[DeviceRate]); 4] = [
        (
            "device_read_bps",
            "blkio.throttle.read_bps_device",
            "rbps",
            &resources.device_read_bps,
        ),
        (
            "device_write_bps",
            "blkio.throttle.write_bps_device",
            "wbps",
            &resources.device_write_bps,
        ),
        (
            "device_read_iops",
            "blkio.throttle.read_iops_device",
            "riops",
            &resources.device_read_iops,
        ),
        (
            "device_write_iops",
            "blkio.throttle.write_iops_device",
            "wiops",
            &resources.device_write_iops,
        ),
    ];
    for (name, file, key, devices) in rates {
        for DeviceRate { path, rate } in devices {
            let number = number(path)?;
            let limit = match rate {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            all.push(
                Setting::new(name)
                    .v1(file, format!("{number} {rate}"))
                    .v2("io.max", format!("{number} {key}={limit}")),
            );
        }
    }
    Ok(all)
}

/// `major:minor` of the block device whose node is at `path`.
fn number(path: &Path) -> Result<String, CgroupError> {
    let failed = |source| CgroupError::Device {
        path: path.to_owned(),
        source,
    };
    let meta = std::fs::metadata(path).map_err(failed)?;
    match meta.file_type().is_block_device() {
        true => Ok(format!(
            "{}:{}",
            rustix::fs::major(meta.rdev()),
            rustix::fs::minor(meta.rdev())
        )),
        false => Err(failed(std::io::Error::other("not a block device"))),
    }
}

/// Shares of version 1 (2 to 262144, usually 1024) as a weight of version 2 (1 to 10000, usually 100): the
/// quadratic curve through the three pairs that crun and runc use since 2025.
fn weight(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// A block weight of version 1 (10 to 1000) as one of version 2 (1 to 10000), along a line as in runc.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(resources: &Resources) -> Vec<Setting> {
        let all = wanted(resources, true).expect("settings");
        all.into_iter().flat_map(|(_, settings)| settings).collect()
    }

    #[test]
    fn usual_shares_are_the_usual_weight() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 100, 10_000));
        assert_eq!((io_weight(10), io_weight(1000)), (1, 10_000));
    }

    #[test]
    fn swap_is_memory_and_swap_in_version_1_and_swap_alone_in_version_2() {
        let both = |memory_swap| Resources {
            memory: Some(100),
            memory_swap,
            ..Resources::default()
        };
        let swap = |resources| {
            settings(&resources)
                .into_iter()
                .find(|one| one.name == "memory_swap")
        };
        let setting = swap(both(Some(150))).expect("swap");
        assert_eq!(
            (setting.v1[0].1.as_str(), setting.v2[0].1.as_str()),
            ("150", "50")
        );
        assert!(!setting.quiet);
        // As docker: as much swap as memory, where nothing is said.
        let setting = swap(both(None)).expect("swap");
        assert_eq!(
            (setting.v1[0].1.as_str(), setting.v2[0].1.as_str()),
            ("200", "100")
        );
        assert!(setting.quiet);
        assert_eq!(swap(both(Some(u64::MAX))), None);
        let update = wanted(&both(Some(u64::MAX)), false).expect("settings");
        let setting = update[0].1.iter().find(|one| one.name == "memory_swap");
        assert_eq!(
            setting.map(|one| (one.v1[0].1.as_str(), one.v2[0].1.as_str())),
            Some(("-1", "max"))
        );
    }

    #[test]
    fn a_quota_is_that_of_its_period() {
        let cpu = |cpus, cpu_period, cpu_quota| {
            let all = settings(&Resources {
                cpus,
                cpu_period,
                cpu_quota,
                ..Resources::default()
            });
            let of = |files: fn(&Setting) -> &Vec<(&'static str, String)>| {
                let all = all.iter().flat_map(files);
                all.map(|(file, value)| format!("{file}={value}"))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            (of(|one| &one.v1), of(|one| &one.v2))
        };
        let text = |one: &str, two: &str| (one.to_owned(), two.to_owned());
        assert_eq!(
            cpu(Some(1.5), None, None),
            text(
                "cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000",
                "cpu.max=150000 100000"
            )
        );
        assert_eq!(
            cpu(None, Some(50_000), Some(25_000)),
            text(
                "cpu.cfs_period_us=50000 cpu.cfs_quota_us=25000",
                "cpu.max=25000 50000"
            )
        );
        assert_eq!(
            cpu(None, None, Some(-5)),
            text("cpu.cfs_quota_us=-1", "cpu.max=max")
        );
        assert_eq!(
            cpu(None, Some(50_000), None),
            text("cpu.cfs_period_us=50000", "cpu.max=max 50000")
        );
    }

    #[test]
    fn only_a_block_device_has_a_rate() {
        let with = |path: &str| Resources {
            device_read_bps: vec![DeviceRate::new(path, 1)],
            ..Resources::default()
        };
        for path in ["/dev/null", "/", "/none/at/all"] {
            match wanted(&with(path), true) {
                Err(CgroupError::Device { path: named, .. }) => assert_eq!(named, Path::new(path)),
                other => panic!("{other:?}"),
            }
        }
    }
}
