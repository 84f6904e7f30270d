//! What a container may use.

use super::{note, wrong};
use crate::model::{Bytes, Service};
use rdock_runtime::ContainerSpec;

/// The period of a processor quota in microseconds, unless the service says another one: the kernel's default.
const PERIOD: f64 = 100_000.0;

pub(super) fn fill(
    spec: &mut ContainerSpec,
    service: &Service,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let resources = service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.resources.as_ref());
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let reserved = resources.and_then(|resources| resources.reservations.as_ref());
    let own = &mut spec.resources;

    let bytes = |attribute: &str, value: Option<Bytes>| -> Result<Option<u64>, String> {
        match value {
            // Docker's word for "no limit".
            None | Some(Bytes(0 | -1)) => Ok(None),
            Some(Bytes(value)) => u64::try_from(value)
                .map(Some)
                .map_err(|_| wrong(attribute, format!("{value} bytes is less than nothing"))),
        }
    };
    own.memory = bytes("mem_limit", service.mem_limit)?.or(bytes(
        "deploy.resources.limits.memory",
        limits.and_then(|limits| limits.memory),
    )?);
    own.memory_swap = bytes("memswap_limit", service.memswap_limit)?;
    own.memory_reservation = bytes("mem_reservation", service.mem_reservation)?.or(bytes(
        "deploy.resources.reservations.memory",
        reserved.and_then(|reserved| reserved.memory),
    )?);

    let quota = service.cpu_quota.filter(|quota| *quota > 0);
    let period = service.cpu_period.filter(|period| *period > 0);
    own.cpus = service
        .cpus
        .or(limits.and_then(|limits| limits.cpus))
        .map(|number| number.0)
        .filter(|cpus| *cpus > 0.0)
        .or(quota.map(|quota| quota as f64 / period.map_or(PERIOD, |period| period as f64)));
    let by_number = service
        .cpus
        .or(limits.and_then(|limits| limits.cpus))
        .is_some_and(|cpus| cpus.0 > 0.0);
    for (there, attribute) in [(quota.is_some(), "cpu_quota"), (period.is_some(), "cpu_period")] {
        note(
            notes,
            there && by_number,
            attribute,
            "cpus says how much processor time there is",
        );
    }
    if let Some(shares) = service.cpu_shares.filter(|shares| *shares > 0) {
        own.cpu_shares = Some(shares.unsigned_abs());
    }
    own.cpuset_cpus.clone_from(&service.cpuset);
    let pids = service.pids_limit.or(limits.and_then(|limits| limits.pids));
    own.pids = pids
        .and_then(|pids| u64::try_from(pids).ok())
        .filter(|pids| *pids > 0);

    if let Some(size) = bytes("shm_size", service.shm_size)? {
        spec.shm_size = size;
    }
    for (name, limit) in &service.ulimits {
        let (soft, hard) = limit.limits();
        // -1 is "no limit"; its bits are RLIM_INFINITY's.
        spec.ulimits.push((name.clone(), soft as u64, hard as u64));
    }
    for (name, value) in &service.sysctls {
        spec.sysctls.insert(name.clone(), value.clone());
    }
    for (there, attribute) in [
        (service.blkio_config.is_some(), "blkio_config"),
        (service.cgroup_parent.is_some(), "cgroup_parent"),
        (!service.devices.is_empty(), "devices"),
        (!service.device_cgroup_rules.is_empty(), "device_cgroup_rules"),
    ] {
        note(
            notes,
            there,
            attribute,
            "the runtime cannot do this yet; the container runs without it",
        );
    }
    Ok(())
}
