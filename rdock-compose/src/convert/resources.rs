//! What a container may use.

use super::{note, wrong};
use crate::model::{BlkioConfig, Bytes, DeviceRequest, Service};
use rdock_runtime::{
    CdiDevice, ContainerSpec, Device, DeviceAccess, DeviceRate, DeviceRule, DeviceWeight, GpuRequest,
    Resources,
};

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
    own.memory_swap = match service.memswap_limit {
        Some(Bytes(-1)) => Some(u64::MAX),
        other => bytes("memswap_limit", other)?,
    };
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
        .filter(|cpus| *cpus > 0.0);
    let by_number = own.cpus.is_some();
    if !by_number {
        own.cpu_quota = quota;
        own.cpu_period = period.map(i64::unsigned_abs);
    }
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
    realtime(own, service)?;
    own.oom_kill_disable = service.oom_kill_disable;
    if let Some(value) = service.mem_swappiness.filter(|value| *value != -1) {
        let value = u64::try_from(value).map_err(|error| wrong("mem_swappiness", error))?;
        own.memory_swappiness = Some(value);
    }
    if let Some(config) = &service.blkio_config {
        block_devices(own, config)?;
    }
    spec.cgroup_parent = service.cgroup_parent.clone().filter(|parent| !parent.is_empty());
    devices(spec, service)?;
    for request in &service.gpus {
        // As compose: it is for GPUs, whatever else it says.
        spec.gpus.push(gpus("gpus", request)?.capability("gpu"));
    }
    for request in reserved
        .map(|reserved| reserved.devices.as_slice())
        .unwrap_or_default()
    {
        spec.gpus
            .push(gpus("deploy.resources.reservations.devices", request)?);
    }
    Ok(())
}

/// Realtime scheduling; -1 and 0 say nothing, as in docker.
fn realtime(resources: &mut Resources, service: &Service) -> Result<(), String> {
    for (attribute, value, own) in [
        (
            "cpu_rt_period",
            service.cpu_rt_period,
            &mut resources.cpu_rt_period,
        ),
        (
            "cpu_rt_runtime",
            service.cpu_rt_runtime,
            &mut resources.cpu_rt_runtime,
        ),
    ] {
        if let Some(value) = value.filter(|value| !matches!(value, -1 | 0)) {
            *own = Some(u64::try_from(value).map_err(|error| wrong(attribute, error))?);
        }
    }
    Ok(())
}

fn block_devices(resources: &mut Resources, config: &BlkioConfig) -> Result<(), String> {
    let weight = |attribute: &str, value: i64| {
        u16::try_from(value).map_err(|_| wrong(attribute, format!("{value} is not from 10 to 1000")))
    };
    if let Some(value) = config.weight.filter(|value| *value != 0) {
        resources.blkio_weight = Some(weight("blkio_config.weight", value)?);
    }
    for device in &config.weight_device {
        let weight = weight("blkio_config.weight_device", device.weight)?;
        resources
            .blkio_weight_devices
            .push(DeviceWeight::new(&device.path, weight));
    }
    for (attribute, rates, own) in [
        (
            "device_read_bps",
            &config.device_read_bps,
            &mut resources.device_read_bps,
        ),
        (
            "device_write_bps",
            &config.device_write_bps,
            &mut resources.device_write_bps,
        ),
        (
            "device_read_iops",
            &config.device_read_iops,
            &mut resources.device_read_iops,
        ),
        (
            "device_write_iops",
            &config.device_write_iops,
            &mut resources.device_write_iops,
        ),
    ] {
        for device in rates {
            let rate = u64::try_from(device.rate.0)
                .map_err(|error| wrong(&format!("blkio_config.{attribute}"), error))?;
            own.push(DeviceRate::new(&device.path, rate));
        }
    }
    Ok(())
}

/// One request, to the driver that it names.
fn gpus(attribute: &str, request: &DeviceRequest) -> Result<GpuRequest, String> {
    let mut gpus = match (request.count, &request.device_ids[..]) {
        (Some(-1), _) => GpuRequest::all(),
        (Some(count), _) => {
            let count = u32::try_from(count).map_err(|_| {
                wrong(
                    attribute,
                    format!("count: {count} is neither -1 nor a number of devices"),
                )
            })?;
            GpuRequest::count(count)
        }
        // The loader has filled in a count where there are no ids.
        (None, ids) => GpuRequest::ids(ids.iter().cloned()),
    };
    gpus.driver = request.driver.clone().filter(|driver| !driver.is_empty());
    gpus.capabilities.clone_from(&request.capabilities);
    gpus.options = request
        .options
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Ok(gpus)
}

fn devices(spec: &mut ContainerSpec, service: &Service) -> Result<(), String> {
    for device in &service.devices {
        if !device.source.starts_with('/') {
            let name = CdiDevice::parse(&device.source).map_err(|error| wrong("devices", error))?;
            spec.cdi_devices.push(name);
            continue;
        }
        let mut own = Device::new(&device.source);
        if let Some(target) = &device.target {
            own = own.at(target);
        }
        if let Some(access) = &device.permissions {
            own = own.access(DeviceAccess::parse(access).map_err(|error| wrong("devices", error))?);
        }
        spec.devices.push(own);
    }
    for text in &service.device_cgroup_rules {
        let rule = DeviceRule::parse(text).map_err(|error| wrong("device_cgroup_rules", error))?;
        spec.device_rules.push(rule);
    }
    Ok(())
}
