//! `rdock inspect`: one JSON array, with docker's field names.

use crate::streams::print;
use crate::template::Template;
use crate::{Failure, Outcome};
use clap::Args;
use rdock_runtime::image::Image;
use rdock_runtime::{
    Container, ContainerInfo, ContainerSpec, DeviceRate, ExitReason, GpuCount, Protocol, RestartPolicy,
    Runtime, Seccomp, Status,
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// container, image, volume or network; the first that fits otherwise
    #[arg(long = "type")]
    kind: Option<String>,
    /// json or a template
    #[arg(short, long)]
    format: Option<String>,
    /// The size of what containers have written too
    #[arg(short, long)]
    size: bool,
    /// Names or ids
    #[arg(required = true)]
    names: Vec<String>,
}

impl Inspect {
    /// Only objects of this kind.
    pub(crate) fn of_kind(mut self, kind: &str) -> Self {
        self.kind = Some(kind.to_owned());
        self
    }

    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let template = match self.format.as_deref() {
            None | Some("" | "json") => None,
            Some(text) => Some(Template::parse(text).map_err(Failure::of_template)?),
        };
        let (mut found, mut code) = (Vec::new(), 0);
        for name in &self.names {
            match self.find(runtime, name) {
                Ok(object) => found.push(object),
                // What is there is shown all the same.
                Err(failure) => {
                    failure.say();
                    code = 1;
                }
            }
        }
        match (&template, self.format.as_deref()) {
            (Some(template), _) => {
                for object in &found {
                    let failed = |reason| Failure::new(format!("template: {reason}"));
                    print(&template.render(object).map_err(failed)?);
                }
            }
            (None, Some("json")) => print(&Value::Array(found).to_string()),
            (None, _) => print(&format!("{:#}", Value::Array(found))),
        }
        Ok(code)
    }

    fn find(&self, runtime: &Runtime, name: &str) -> Result<Value, Failure> {
        let is = |kind: &str| self.kind.as_deref().is_none_or(|wanted| wanted == kind);
        if is("container") {
            match runtime.container(name) {
                Ok(container) => return container_json(runtime, &container, self.size),
                Err(rdock_runtime::Error::NoSuchContainer { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if is("image") {
            // A name that no image can have may still be that of a volume.
            if let Ok(Some(image)) = runtime.images().get(name) {
                return Ok(image_json(&image));
            }
        }
        // Where one kind is asked for, its error says more than that nothing fits.
        let only = self.kind.is_some();
        if is("volume") {
            match runtime.volumes().get(name) {
                Ok(info) => return Ok(crate::volume::describe(&info)),
                Err(error) if only => return Err(error.into()),
                Err(_) => {}
            }
        }
        if is("network") {
            match runtime.networks().get(name) {
                Ok(info) => return Ok(crate::network::describe(&info)),
                Err(error) if only => return Err(error.into()),
                Err(_) => {}
            }
        }
        let kind = self.kind.as_deref().unwrap_or("object");
        Err(Failure::new(format!("no such {kind}: {name}")))
    }
}

fn container_json(runtime: &Runtime, container: &Container, sized: bool) -> Result<Value, Failure> {
    let info = container.inspect()?;
    let started = container.started_at()?;
    let exit = info.status.exit().cloned();
    let health = info.health.as_ref().map(|health| {
        let log = health.log.iter().map(|result| {
            json!({"Start": result.start, "End": result.end, "ExitCode": result.exit_code, "Output": result.output})
        });
        json!({"Status": health.status.name(), "FailingStreak": health.failing_streak,
               "Log": log.collect::<Vec<_>>()})
    });
    let restarting = matches!(info.status, Status::Restarting(_));
    let maximum = match info.spec.restart {
        RestartPolicy::OnFailure { max } => max.unwrap_or(0),
        _ => 0,
    };
    let error = match exit.as_ref().map(|exit| &exit.reason) {
        Some(reason @ (ExitReason::SetupFailed { .. } | ExitReason::OwnerDied)) => format!("{reason:?}"),
        _ => String::new(),
    };
    let mut ports = Map::new();
    for bound in &info.ports {
        let key = format!(
            "{}/{}",
            bound.container,
            format!("{:?}", bound.protocol).to_lowercase()
        );
        let place = json!({"HostIp": bound.host.ip(), "HostPort": bound.host.port().to_string()});
        if let Value::Array(places) = ports.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
            places.push(place);
        }
    }
    let mounts: Vec<Value> = info
        .mounts
        .iter()
        .map(|mount| {
            json!({"Type": mount.kind, "Name": mount.name, "Source": mount.source, "Destination": mount.target,
                   "RW": !mount.read_only})
        })
        .collect();
    let ulimits: Vec<Value> = info
        .spec
        .ulimits
        .iter()
        .map(|(name, soft, hard)| json!({"Name": name, "Soft": soft, "Hard": hard}))
        .collect();
    let networks: Map<String, Value> = info
        .networks
        .iter()
        .map(|endpoint| {
            let place = json!({
                "IPAddress": endpoint.ip,
                "IPPrefixLen": endpoint.prefix,
                "Gateway": endpoint.gateway,
                "GlobalIPv6Address": endpoint.ip6.map(|ip| ip.to_string()).unwrap_or_default(),
                "GlobalIPv6PrefixLen": endpoint.prefix6,
                "IPv6Gateway": endpoint.gateway6.map(|ip| ip.to_string()).unwrap_or_default(),
                "MacAddress": endpoint.mac,
                "Aliases": endpoint.aliases,
                "Links": endpoint.links.iter().map(|(name, alias)| format!("{name}:{alias}")).collect::<Vec<_>>(),
            });
            (endpoint.network.clone(), place)
        })
        .collect();
    let (path, args) = info
        .command
        .split_first()
        .map_or((None, Vec::new()), |(path, args)| (Some(path), args.to_vec()));
    // An image that was removed by force has said what it says in the command already.
    let image = runtime.images().get(&info.image_id).ok().flatten();
    let config = config_json(&info, image.as_ref(), &container.exposed_ports(&info));
    let binds: Vec<String> = info
        .mounts
        .iter()
        .filter(|mount| mount.kind != "tmpfs")
        .map(|mount| {
            let source = mount.name.as_ref().unwrap_or(&mount.source);
            format!(
                "{source}:{}:{}",
                mount.target,
                if mount.read_only { "ro" } else { "rw" }
            )
        })
        .collect();
    let mut bindings = Map::new();
    for port in &info.spec.ports {
        let key = format!(
            "{}/{}",
            port.container,
            format!("{:?}", port.protocol).to_lowercase()
        );
        let place = json!({
            "HostIp": port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            "HostPort": port.host.map(|port| port.to_string()).unwrap_or_default(),
        });
        if let Value::Array(places) = bindings.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
            places.push(place);
        }
    }
    let mut object = json!({
        "Id": info.id,
        "Name": format!("/{}", info.name),
        "Created": info.created,
        "Path": path,
        "Args": args,
        "State": {
            "Status": info.status.name(),
            "Running": info.status.is_running() || restarting,
            "Paused": info.status == Status::Paused,
            "Restarting": restarting,
            "Dead": info.status == Status::Dead,
            "Error": error,
            "OOMKilled": exit.as_ref().is_some_and(|exit| exit.reason == ExitReason::OomKilled),
            "Pid": info.pid.unwrap_or(0),
            "ExitCode": exit.as_ref().map_or(0, rdock_runtime::Exit::code),
            "StartedAt": started,
            "FinishedAt": exit.as_ref().map(|exit| exit.finished_at.clone()),
            "Health": health,
        },
        "RestartCount": info.restart_count,
        "Image": info.image_id,
        "Config": config,
        "HostConfig": {
            "Annotations": info.spec.annotations,
            "AutoRemove": info.spec.auto_remove,
            "LogConfig": {"Type": info.spec.log.driver.as_str(), "Config": info.spec.log.options()},
            "Binds": binds,
            "PortBindings": bindings,
            "RestartPolicy": {"Name": info.spec.restart.name(), "MaximumRetryCount": maximum},
            "Privileged": info.spec.privileged,
            "Init": info.spec.init,
            "SecurityOpt": security(&info.spec),
            "ShmSize": info.spec.shm_size,
            "ExtraHosts": info.spec.extra_hosts.iter().map(|(name, at)| format!("{name}:{at}")).collect::<Vec<_>>(),
            "GroupAdd": info.spec.groups,
            "Links": links(&info),
            "Sysctls": info.spec.sysctls,
            "Ulimits": ulimits,
            "OomScoreAdj": info.spec.oom_score_adj.unwrap_or(0),
            "ReadonlyRootfs": info.spec.read_only,
            "NetworkMode": info.spec.network,
            "CapAdd": info.spec.cap_add,
            "CapDrop": info.spec.cap_drop,
        },
        "Mounts": mounts,
        "NetworkSettings": {
            "IPAddress": info.ip_address,
            "Gateway": info.gateway,
            "MacAddress": info.mac_address,
            "Ports": ports,
            "Networks": networks,
        },
        "Warnings": info.warnings,
        "LogPath": info.state_dir.join("log"),
    });
    if let Some(host) = object["HostConfig"].as_object_mut() {
        host.extend(limits_json(&info.spec));
    }
    if sized {
        let written = container.written_bytes()?;
        let image = image.as_ref().map_or(0, Image::size);
        object["SizeRw"] = json!(written);
        object["SizeRootFs"] = json!(written + image);
    }
    Ok(object)
}

/// As docker writes them: `/db:/web/alias`.
fn links(info: &ContainerInfo) -> Option<Vec<String>> {
    let links = info.spec.links.iter();
    let links: Vec<_> = links
        .map(|(container, alias)| format!("/{container}:/{}/{alias}", info.name))
        .collect();
    (!links.is_empty()).then_some(links)
}

/// What is not as it is without options.
fn security(spec: &ContainerSpec) -> Option<Vec<&'static str>> {
    let given = [
        (spec.no_new_privileges, "no-new-privileges"),
        (spec.seccomp == Seccomp::Unconfined, "seccomp=unconfined"),
        (spec.system_paths_unconfined, "systempaths=unconfined"),
    ];
    let given: Vec<_> = given
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect();
    (!given.is_empty()).then_some(given)
}

/// CDI devices and GPUs, as docker has them: CDI is a driver among others, and -1 all.
fn device_requests(spec: &ContainerSpec) -> Vec<Value> {
    let mut requests = Vec::new();
    if !spec.cdi_devices.is_empty() {
        requests.push(
            json!({"Driver": "cdi", "Count": 0, "DeviceIDs": spec.cdi_devices, "Capabilities": [],
                             "Options": {}}),
        );
    }
    for request in &spec.gpus {
        let count = match (request.count, request.ids.is_empty()) {
            (Some(GpuCount::Number(count)), _) => i64::from(count),
            (Some(_), _) => -1,
            (None, true) => 1,
            (None, false) => 0,
        };
        requests.push(
            json!({"Driver": request.driver.clone().unwrap_or_default(), "Count": count,
                             "DeviceIDs": (!request.ids.is_empty()).then_some(&request.ids),
                             "Capabilities": [request.capabilities], "Options": request.options}),
        );
    }
    requests
}

/// Limits and devices, as docker has them in `HostConfig`.
fn limits_json(spec: &ContainerSpec) -> Map<String, Value> {
    let resources = &spec.resources;
    let rates = |rates: &[DeviceRate]| -> Vec<Value> {
        rates
            .iter()
            .map(|device| json!({"Path": device.path, "Rate": device.rate}))
            .collect()
    };
    let weights: Vec<Value> = resources
        .blkio_weight_devices
        .iter()
        .map(|device| json!({"Path": device.path, "Weight": device.weight}))
        .collect();
    let devices: Vec<Value> = spec
        .devices
        .iter()
        .map(|device| {
            json!({"PathOnHost": device.source, "PathInContainer": device.target,
                   "CgroupPermissions": device.access.to_string()})
        })
        .collect();
    let requests = device_requests(spec);
    let rules: Vec<String> = spec.device_rules.iter().map(ToString::to_string).collect();
    // Docker's numbers for "no limit".
    let or_minus = |value: Option<u64>| match value {
        Some(u64::MAX) => json!(-1),
        value => json!(value.unwrap_or(0)),
    };
    let all = json!({
        "CpuShares": resources.cpu_shares.unwrap_or(0),
        "NanoCpus": resources.cpus.map_or(0, |cpus| (cpus * 1e9) as u64),
        "CpuPeriod": resources.cpu_period.unwrap_or(0),
        "CpuQuota": resources.cpu_quota.unwrap_or(0),
        "CpuRealtimePeriod": resources.cpu_rt_period.unwrap_or(0),
        "CpuRealtimeRuntime": resources.cpu_rt_runtime.unwrap_or(0),
        "CpusetCpus": resources.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": resources.cpuset_mems.clone().unwrap_or_default(),
        "Memory": resources.memory.unwrap_or(0),
        "MemorySwap": or_minus(resources.memory_swap),
        "MemoryReservation": resources.memory_reservation.unwrap_or(0),
        "MemorySwappiness": resources.memory_swappiness,
        "OomKillDisable": resources.oom_kill_disable,
        "PidsLimit": resources.pids.map(|pids| or_minus(Some(pids))),
        "BlkioWeight": resources.blkio_weight.unwrap_or(0),
        "BlkioWeightDevice": weights,
        "BlkioDeviceReadBps": rates(&resources.device_read_bps),
        "BlkioDeviceWriteBps": rates(&resources.device_write_bps),
        "BlkioDeviceReadIOps": rates(&resources.device_read_iops),
        "BlkioDeviceWriteIOps": rates(&resources.device_write_iops),
        "Devices": devices,
        "DeviceRequests": (!requests.is_empty()).then_some(requests),
        "DeviceCgroupRules": rules,
        "CgroupParent": spec.cgroup_parent.clone().unwrap_or_default(),
    });
    match all {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}

/// What the container is, after the image's defaults.
fn config_json(info: &ContainerInfo, image: Option<&Image>, exposed: &BTreeSet<(u16, Protocol)>) -> Value {
    let spec = &info.spec;
    let base = image
        .map(|image| image.config().config.clone())
        .unwrap_or_default();
    let own = |entry: &String| {
        let name = entry.split('=').next().unwrap_or_default();
        spec.env.iter().any(|(other, _)| other == name)
    };
    let unset = |entry: &String| {
        let name = entry.split('=').next().unwrap_or_default();
        spec.unset_env.iter().any(|unset| unset == name)
    };
    let of_image = base.env.iter().filter(|entry| !own(entry) && !unset(entry));
    let mut env: Vec<String> = of_image.cloned().collect();
    env.extend(spec.env.iter().map(|(name, value)| format!("{name}={value}")));
    let mut labels: BTreeMap<String, String> = base.labels.clone().into_iter().collect();
    labels.extend(spec.labels.clone());
    let exposed: Map<String, Value> = exposed
        .iter()
        .map(|(port, protocol)| {
            (
                format!("{port}/{}", format!("{protocol:?}").to_lowercase()),
                json!({}),
            )
        })
        .collect();
    // An entry point of one's own takes the image's command away.
    let command = match (spec.args.is_empty(), &spec.entrypoint) {
        (false, _) => spec.args.clone(),
        (true, Some(_)) => Vec::new(),
        (true, None) => base.cmd.clone().unwrap_or_default(),
    };
    json!({
        "Image": info.image,
        "Hostname": spec.hostname.clone().unwrap_or_else(|| info.id[..12].to_owned()),
        "Domainname": spec.domainname.clone().unwrap_or_default(),
        "User": spec.user.clone().unwrap_or(base.user),
        "Env": env,
        "Labels": labels,
        "ExposedPorts": exposed,
        "Tty": spec.terminal,
        "OpenStdin": spec.interactive,
        "WorkingDir": spec.working_dir.clone().unwrap_or(base.working_dir),
        "Entrypoint": spec.entrypoint.clone().or(base.entrypoint.clone()),
        "Cmd": command,
        "StopSignal": spec.stop_signal.clone().or(base.stop_signal.clone()),
        "StopTimeout": spec.stop_timeout.as_secs(),
    })
}

fn image_json(image: &Image) -> Value {
    let config = image.config();
    json!({
        "Id": image.id().to_string(),
        "RepoTags": image.references().iter().map(|reference| reference.familiar()).collect::<Vec<_>>(),
        "Digest": image.manifest_digest().to_string(),
        "Created": config.created,
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": image.size(),
        "Config": serde_json::to_value(&config.config).unwrap_or(Value::Null),
        "RootFS": {
            "Type": "layers",
            "Layers": image.diff_ids().iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
    })
}
