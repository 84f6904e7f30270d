//! Whether limits are such that a kernel can take them.

use super::{Findings, HostFacts};
use crate::spec::{ContainerSpec, Resources};

/// Docker's smallest memory limit.
const MEMORY_MIN: u64 = 6 << 20;

/// How deep and how long the path of a control group may be.
const GROUP_DEPTH: usize = 32;
const GROUP_LENGTH: usize = 1024;

pub(super) fn check(spec: &ContainerSpec, host: &HostFacts, findings: &mut Findings) {
    memory(&spec.resources, findings);
    processors(&spec.resources, host, findings);
    block_devices(&spec.resources, findings);
    if spec.resources.pids == Some(0) {
        findings.add("resources.pids", "at least 1");
    }
    if let Some(parent) = &spec.cgroup_parent
        && let Err(reason) = check_group(parent)
    {
        findings.add("cgroup_parent", format!("{parent:?} {reason}"));
    }
}

fn memory(resources: &Resources, findings: &mut Findings) {
    for (field, value) in [
        ("memory", resources.memory),
        ("memory_reservation", resources.memory_reservation),
    ] {
        if value.is_some_and(|bytes| bytes < MEMORY_MIN) {
            findings.add(format!("resources.{field}"), "at least 6 MiB");
        }
    }
    if let (Some(memory), Some(reservation)) = (resources.memory, resources.memory_reservation)
        && reservation > memory
    {
        findings.add("resources.memory_reservation", "more than the memory limit");
    }
    match (resources.memory, resources.memory_swap) {
        (None, Some(swap)) if swap != u64::MAX => {
            findings.add("resources.memory_swap", "needs a memory limit too")
        }
        (Some(memory), Some(swap)) if swap < memory => {
            findings.add(
                "resources.memory_swap",
                "memory and swap together cannot be less than the memory limit",
            );
        }
        _ => {}
    }
    if resources.memory_swappiness.is_some_and(|value| value > 100) {
        findings.add("resources.memory_swappiness", "from 0 to 100");
    }
}

fn processors(resources: &Resources, host: &HostFacts, findings: &mut Findings) {
    let processors = f64::from(host.processors);
    if resources
        .cpus
        .is_some_and(|cpus| !(0.01..=processors).contains(&cpus))
    {
        findings.add(
            "resources.cpus",
            format!("from 0.01 to {processors}, the processors of this host"),
        );
    }
    for (field, there) in [
        ("cpu_period", resources.cpu_period.is_some()),
        ("cpu_quota", resources.cpu_quota.is_some()),
    ] {
        if there && resources.cpus.is_some() {
            findings.add(
                format!("resources.{field}"),
                "cpus says how much processor time there is",
            );
        }
    }
    if resources
        .cpu_period
        .is_some_and(|period| !(1000..=1_000_000).contains(&period))
    {
        findings.add("resources.cpu_period", "from 1000 to 1000000 microseconds");
    }
    if resources
        .cpu_quota
        .is_some_and(|quota| (0..1000).contains(&quota))
    {
        findings.add(
            "resources.cpu_quota",
            "at least 1000 microseconds, or a negative number for no limit",
        );
    }
    if resources.cpu_rt_period == Some(0) {
        findings.add("resources.cpu_rt_period", "at least 1 microsecond");
    }
    if let (Some(runtime), Some(period)) = (resources.cpu_rt_runtime, resources.cpu_rt_period)
        && runtime > period
    {
        findings.add("resources.cpu_rt_runtime", "more than the period");
    }
    if resources
        .cpu_shares
        .is_some_and(|shares| !(2..=262_144).contains(&shares))
    {
        findings.add("resources.cpu_shares", "from 2 to 262144");
    }
    for (field, set) in [
        ("cpuset_cpus", &resources.cpuset_cpus),
        ("cpuset_mems", &resources.cpuset_mems),
    ] {
        if set.as_deref().is_some_and(|set| !is_set(set)) {
            findings.add(
                format!("resources.{field}"),
                "a list of numbers and ranges such as 0-2,4",
            );
        }
    }
}

fn block_devices(resources: &Resources, findings: &mut Findings) {
    let weights = 10..=1000;
    if resources
        .blkio_weight
        .is_some_and(|weight| !weights.contains(&weight))
    {
        findings.add("resources.blkio_weight", "from 10 to 1000");
    }
    for (index, device) in resources.blkio_weight_devices.iter().enumerate() {
        if !weights.contains(&device.weight) {
            findings.add(
                format!("resources.blkio_weight_devices[{index}]"),
                "from 10 to 1000",
            );
        }
    }
}

/// The list format of cpuset(7), without strides.
fn is_set(text: &str) -> bool {
    let number = |text: &str| {
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse::<u32>().ok())
            .flatten()
    };
    text.split(',').all(|part| match part.split_once('-') {
        None => number(part).is_some(),
        Some((first, last)) => {
            matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
        }
    })
}

/// The path of a group never leaves the hierarchy, nor names one of the kernel's own files.
fn check_group(path: &str) -> Result<(), String> {
    if path.len() > GROUP_LENGTH || path.split('/').count() > GROUP_DEPTH {
        return Err(format!(
            "is longer than {GROUP_LENGTH} bytes, or deeper than {GROUP_DEPTH} groups"
        ));
    }
    for name in path.trim_matches('/').split('/') {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '@' | '\\');
        if name.is_empty() && path.trim_matches('/').is_empty() {
            continue;
        }
        if name.is_empty() || name == "." || name == ".." || name.len() > 255 || !name.chars().all(plain) {
            return Err(
                "is not the path of a control group: names of letters, digits and `_-.:@\\`, joined by slashes, \
                 none of them `.` or `..`"
                    .into(),
            );
        }
    }
    let is_containers = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if path.split('/').any(is_containers) {
        return Err("is in the group of a container, which takes everything below it with it".into());
    }
    if path.is_empty() {
        return Err("is empty".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rt_cgroup_path_a_parent_never_leaves_the_hierarchy() {
        for good in [
            "/",
            "a",
            "/a",
            "/a/b/",
            "user.slice/user-1000.slice",
            "a:b@c",
            "..a",
            "a..",
        ] {
            assert_eq!(check_group(good), Ok(()), "{good:?}");
        }
        let (long, deep, other) = (
            "a".repeat(256),
            "a/".repeat(40),
            format!("rdock/{}", "0a".repeat(32)),
        );
        for bad in [
            "", ".", "..", "/..", "../a", "a/..", "a/../b", "a/./b", "a//b", "a b", "a\n", "a\0", "a,b", "ä",
            &long, &deep, &other,
        ] {
            assert!(check_group(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn rt_cgroup_path_whatever_passes_stays_below(text in "\\PC{0,40}", near in "[./a]{0,12}") {
            for text in [text, near] {
                if check_group(&text).is_ok() {
                    let joined = std::path::Path::new("/top").join(text.trim_matches('/'));
                    let plain = joined
                        .components()
                        .skip(1)
                        .all(|part| matches!(part, std::path::Component::Normal(_)));
                    prop_assert!(plain && joined.starts_with("/top"), "{:?}", joined);
                }
            }
        }
    }
}
