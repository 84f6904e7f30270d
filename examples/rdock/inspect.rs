//! `rdock inspect`: one JSON array, with docker's field names.

use crate::streams::print;
use crate::{Failure, Outcome};
use clap::Args;
use rdock_runtime::image::Image;
use rdock_runtime::{Container, ExitReason, RestartPolicy, Runtime, Status};
use serde_json::{Map, Value, json};

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// container, image, volume or network; the first that fits otherwise
    #[arg(long = "type")]
    kind: Option<String>,
    /// Names or ids
    #[arg(required = true)]
    names: Vec<String>,
}

impl Inspect {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let mut found = Vec::new();
        for name in &self.names {
            found.push(self.find(runtime, name)?);
        }
        print(&format!("{:#}", Value::Array(found)));
        Ok(0)
    }

    fn find(&self, runtime: &Runtime, name: &str) -> Result<Value, Failure> {
        let is = |kind: &str| self.kind.as_deref().is_none_or(|wanted| wanted == kind);
        if is("container") {
            match runtime.container(name) {
                Ok(container) => return container_json(&container),
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
        if is("volume")
            && let Ok(info) = runtime.volumes().get(name)
        {
            return Ok(crate::volume::describe(&info));
        }
        if is("network")
            && let Ok(info) = runtime.networks().get(name)
        {
            return Ok(crate::network::describe(&info));
        }
        Err(Failure::new(format!("no such object: {name}")))
    }
}

fn container_json(container: &Container) -> Result<Value, Failure> {
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
            });
            (endpoint.network.clone(), place)
        })
        .collect();
    let (path, args) = info
        .command
        .split_first()
        .map_or((None, Vec::new()), |(path, args)| (Some(path), args.to_vec()));
    Ok(json!({
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
        "Config": {
            "Image": info.image,
            "Hostname": info.spec.hostname.clone().unwrap_or_else(|| info.id[..12].to_owned()),
            "User": info.spec.user,
            "Env": info.spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            "Labels": info.spec.labels,
            "Tty": info.spec.terminal,
            "OpenStdin": info.spec.interactive,
            "WorkingDir": info.spec.working_dir,
            "Entrypoint": info.spec.entrypoint,
            "Cmd": info.spec.args,
            "StopSignal": info.spec.stop_signal,
            "StopTimeout": info.spec.stop_timeout.as_secs(),
        },
        "HostConfig": {
            "AutoRemove": info.spec.auto_remove,
            "RestartPolicy": {"Name": info.spec.restart.name(), "MaximumRetryCount": maximum},
            "Privileged": info.spec.privileged,
            "Init": info.spec.init,
            "SecurityOpt": info.spec.no_new_privileges.then_some(["no-new-privileges"]),
            "ShmSize": info.spec.shm_size,
            "CpuShares": info.spec.resources.cpu_shares.unwrap_or(0),
            "CpusetCpus": info.spec.resources.cpuset_cpus,
            "NanoCpus": info.spec.resources.cpus.map_or(0, |cpus| (cpus * 1e9) as u64),
            "MemorySwap": info.spec.resources.memory_swap.unwrap_or(0),
            "MemoryReservation": info.spec.resources.memory_reservation.unwrap_or(0),
            "ExtraHosts": info.spec.extra_hosts.iter().map(|(name, at)| format!("{name}:{at}")).collect::<Vec<_>>(),
            "GroupAdd": info.spec.groups,
            "Sysctls": info.spec.sysctls,
            "Ulimits": ulimits,
            "OomScoreAdj": info.spec.oom_score_adj.unwrap_or(0),
            "ReadonlyRootfs": info.spec.read_only,
            "Memory": info.spec.resources.memory.unwrap_or(0),
            "PidsLimit": info.spec.resources.pids,
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
    }))
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
