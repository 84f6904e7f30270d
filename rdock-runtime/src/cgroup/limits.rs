//! A spec's limits as what is written into the groups of either version.

use crate::spec::Resources;

/// One value for one file. An empty file name: that version has no such limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) v1: &'static str,
    pub(super) v1_value: String,
    pub(super) v2: &'static str,
    pub(super) v2_value: String,
}

/// Microseconds of a period of processor time.
const PERIOD: u64 = 100_000;

/// By controller, in the order in which they are written.
pub(super) fn wanted(resources: &Resources) -> Vec<(&'static str, Vec<Setting>)> {
    let mut wanted = Vec::new();
    let same = |name, v1, v2, value: String| Setting {
        name,
        v1,
        v1_value: value.clone(),
        v2,
        v2_value: value,
    };
    let mut memory = Vec::new();
    if let Some(bytes) = resources.memory {
        memory.push(same(
            "memory",
            "memory.limit_in_bytes",
            "memory.max",
            bytes.to_string(),
        ));
    }
    if let Some(bytes) = resources.memory_reservation {
        memory.push(same(
            "memory_reservation",
            "memory.soft_limit_in_bytes",
            "memory.low",
            bytes.to_string(),
        ));
    }
    if let Some(total) = resources.memory_swap {
        // Version 2 counts swap alone.
        let swap = total.saturating_sub(resources.memory.unwrap_or(0));
        memory.push(Setting {
            name: "memory_swap",
            v1: "memory.memsw.limit_in_bytes",
            v1_value: total.to_string(),
            v2: "memory.swap.max",
            v2_value: swap.to_string(),
        });
    }
    if !memory.is_empty() {
        wanted.push(("memory", memory));
    }
    let mut cpu = Vec::new();
    if let Some(cpus) = resources.cpus {
        let quota = (cpus * PERIOD as f64).round().max(1000.0) as u64;
        cpu.push(Setting {
            name: "cpus",
            v1: "cpu.cfs_period_us",
            v1_value: PERIOD.to_string(),
            v2: "cpu.max",
            v2_value: format!("{quota} {PERIOD}"),
        });
        cpu.push(Setting {
            name: "cpus",
            v1: "cpu.cfs_quota_us",
            v1_value: quota.to_string(),
            v2: "",
            v2_value: String::new(),
        });
    }
    if let Some(shares) = resources.cpu_shares {
        cpu.push(Setting {
            name: "cpu_shares",
            v1: "cpu.shares",
            v1_value: shares.to_string(),
            v2: "cpu.weight",
            v2_value: weight(shares).to_string(),
        });
    }
    if !cpu.is_empty() {
        wanted.push(("cpu", cpu));
    }
    if let Some(cpus) = &resources.cpuset_cpus {
        wanted.push((
            "cpuset",
            vec![same("cpuset_cpus", "cpuset.cpus", "cpuset.cpus", cpus.clone())],
        ));
    }
    if let Some(pids) = resources.pids {
        wanted.push((
            "pids",
            vec![same("pids", "pids.max", "pids.max", pids.to_string())],
        ));
    }
    wanted
}

/// Shares of version 1 (2 to 262144, usually 1024) as a weight of version 2 (1 to 10000, usually 100): the
/// quadratic curve through the three pairs that crun and runc use since 2025.
fn weight(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_shares_are_the_usual_weight() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 100, 10_000));
    }

    #[test]
    fn swap_is_memory_and_swap_in_version_1_and_swap_alone_in_version_2() {
        let resources = Resources {
            memory: Some(100),
            memory_swap: Some(150),
            ..Resources::default()
        };
        let wanted = wanted(&resources);
        let swap = &wanted[0].1[1];
        assert_eq!((swap.v1_value.as_str(), swap.v2_value.as_str()), ("150", "50"));
    }
}
