//! Flags of `run`, `create` and `update` about how much a container may use, and of devices.

use crate::{Failure, chain};
use clap::Args;
use rdock_runtime::{
    ContainerDevice, ContainerSpec, DeviceRate, DeviceRule, DeviceWeight, GpuRequest, ParseError, Resources,
    parse_size,
};
use std::path::PathBuf;

/// What can be changed of a container that exists too.
#[derive(Debug, Args)]
pub(crate) struct Limits {
    /// Memory limit (512m, 2g)
    #[arg(short, long)]
    memory: Option<String>,
    /// Limit of memory and swap together, -1 for no limit of swap
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory that is kept under pressure
    #[arg(long)]
    memory_reservation: Option<String>,
    /// Processors (1.5)
    #[arg(long)]
    cpus: Option<f64>,
    /// Relative weight of processor time
    #[arg(short, long)]
    cpu_shares: Option<u64>,
    /// Microseconds in which the quota may be used up
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Microseconds of processor time in each period, -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Microseconds in which the realtime runtime may be used up
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// Microseconds of realtime scheduling in each period
    #[arg(long)]
    cpu_rt_runtime: Option<u64>,
    /// Processors that may be used (0-2,4)
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes that may be used (0-2,4)
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Limit of processes, -1 for none
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
}

/// What is said once, when the container is made.
#[derive(Debug, Args)]
pub(crate) struct Devices {
    /// How readily memory is swapped out, 0 to 100
    #[arg(long, allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// Let processes wait for memory instead of killing them
    #[arg(long)]
    oom_kill_disable: bool,
    /// Relative weight of I/O on a device (PATH:WEIGHT)
    #[arg(long)]
    blkio_weight_device: Vec<String>,
    /// Bytes read per second from a device (PATH:1mb)
    #[arg(long)]
    device_read_bps: Vec<String>,
    /// Bytes written per second to a device (PATH:1mb)
    #[arg(long)]
    device_write_bps: Vec<String>,
    /// Reads per second from a device (PATH:1000)
    #[arg(long)]
    device_read_iops: Vec<String>,
    /// Writes per second to a device (PATH:1000)
    #[arg(long)]
    device_write_iops: Vec<String>,
    /// Give the container a device of the host, or a directory of them (SOURCE[:TARGET][:rwm]), or one that a CDI
    /// specification describes (VENDOR/CLASS=NAME)
    #[arg(long)]
    device: Vec<String>,
    /// Read CDI specifications of this directory instead of /etc/cdi and /var/run/cdi
    #[arg(long)]
    cdi_spec_dir: Vec<PathBuf>,
    /// Give the container GPUs: all, a number, or fields such as '"device=0,1"'
    #[arg(long)]
    gpus: Option<String>,
    /// Allow something with devices (c 1:3 mr)
    #[arg(long)]
    device_cgroup_rule: Vec<String>,
    /// The control group that the container's is made in
    #[arg(long)]
    cgroup_parent: Option<String>,
}

fn bad(error: ParseError) -> Failure {
    Failure {
        code: 125,
        ..Failure::new(chain(&error))
    }
}

fn all<T>(texts: &[String], parse: impl Fn(&str) -> Result<T, ParseError>) -> Result<Vec<T>, Failure> {
    texts.iter().map(|text| parse(text).map_err(bad)).collect()
}

impl Limits {
    /// The limits as they were given; docker's words for "no limit" are the largest numbers.
    pub(crate) fn resources(&self) -> Result<Resources, Failure> {
        let size = |text: &Option<String>| {
            let bytes = match text.as_deref() {
                Some("-1") => Some(u64::MAX),
                other => other.map(parse_size).transpose().map_err(bad)?,
            };
            // As docker: 0 says nothing.
            Ok::<_, Failure>(bytes.filter(|bytes| *bytes > 0))
        };
        let mut resources = Resources::default();
        resources.memory = size(&self.memory)?;
        resources.memory_swap = size(&self.memory_swap)?;
        resources.memory_reservation = size(&self.memory_reservation)?;
        resources.cpus = self.cpus.filter(|cpus| *cpus != 0.0);
        resources.cpu_shares = self.cpu_shares.filter(|shares| *shares > 0);
        resources.cpu_period = self.cpu_period.filter(|period| *period > 0);
        resources.cpu_quota = self.cpu_quota.filter(|quota| *quota != 0);
        resources.cpu_rt_period = self.cpu_rt_period.filter(|period| *period > 0);
        resources.cpu_rt_runtime = self.cpu_rt_runtime.filter(|runtime| *runtime > 0);
        resources.cpuset_cpus = self.cpuset_cpus.clone().filter(|set| !set.is_empty());
        resources.cpuset_mems = self.cpuset_mems.clone().filter(|set| !set.is_empty());
        resources.pids = self.pids_limit.map(|limit| match u64::try_from(limit) {
            Ok(limit) if limit > 0 => limit,
            _ => u64::MAX,
        });
        resources.blkio_weight = self.blkio_weight.filter(|weight| *weight > 0);
        Ok(resources)
    }

    /// The same for a container that has no limits yet.
    pub(crate) fn apply(&self, spec: &mut ContainerSpec) -> Result<(), Failure> {
        spec.resources = self.resources()?;
        spec.resources.pids = spec.resources.pids.filter(|limit| *limit != u64::MAX);
        Ok(())
    }
}

impl Devices {
    /// Sets what the flags ask for.
    pub(crate) fn apply(&self, spec: &mut ContainerSpec) -> Result<(), Failure> {
        let resources = &mut spec.resources;
        // As docker: -1 says nothing.
        resources.memory_swappiness = match self.memory_swappiness {
            None | Some(-1) => None,
            Some(value) => Some(u64::try_from(value).map_err(|_| Failure {
                code: 125,
                ..Failure::new(format!("--memory-swappiness {value}: from 0 to 100"))
            })?),
        };
        resources.oom_kill_disable = self.oom_kill_disable;
        resources.blkio_weight_devices = all(&self.blkio_weight_device, DeviceWeight::parse)?;
        resources.device_read_bps = all(&self.device_read_bps, DeviceRate::parse_bytes)?;
        resources.device_write_bps = all(&self.device_write_bps, DeviceRate::parse_bytes)?;
        resources.device_read_iops = all(&self.device_read_iops, DeviceRate::parse_operations)?;
        resources.device_write_iops = all(&self.device_write_iops, DeviceRate::parse_operations)?;
        let absolute = |path: &PathBuf| {
            std::path::absolute(path)
                .map_err(|error| Failure::new(format!("--cdi-spec-dir {}: {error}", path.display())))
        };
        spec.cdi_directories = self.cdi_spec_dir.iter().map(absolute).collect::<Result<_, _>>()?;
        for device in all(&self.device, ContainerDevice::parse)? {
            *spec = std::mem::take(spec).device(device);
        }
        spec.gpus = all(self.gpus.as_slice(), GpuRequest::parse)?;
        spec.device_rules = all(&self.device_cgroup_rule, DeviceRule::parse)?;
        spec.cgroup_parent = self.cgroup_parent.clone().filter(|parent| !parent.is_empty());
        Ok(())
    }
}
