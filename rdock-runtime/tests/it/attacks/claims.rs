//! What an image, its labels and its variables say, and what nobody listens to.

use crate::probe::{Place, file, probe};
use crate::{Tested, same};
use rdock_runtime::{CommitOptions, Container, ContainerSpec, blocking};
use std::time::Duration;

/// Labels and variables by which images have changed sandboxes elsewhere: mount options, hooks, checkpoints.
const HOSTILE: &str = r#"{
    "Labels": {
        "run.oci.mount_context_type": "rootcontext,suid,dev,exec",
        "io.containers.mount": "type=bind,source=/,target=/host,suid",
        "io.kubernetes.cri-o.userns-mode": "host",
        "io.podman.annotations.privileged": "TRUE",
        "io.podman.annotations.checkpoint.name": "x",
        "io.kubernetes.cri-o.annotations.checkpoint.name": "x",
        "org.criu.checkpoint.container.name": "x",
        "io.podman.annotations.seccomp": "unconfined",
        "org.systemd.property.ExecStartPre": "'/evil'",
        "run.oci.hooks.stdout": "/evil",
        "run.oci.handler": "krun",
        "cdi.k8s.io/x": "vendor.com/device=all"
    },
    "Env": ["LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/evil", "PATH=/evil:/bin", "BASH_ENV=/evil", "NVIDIA_VISIBLE_DEVICES=all"]
}"#;

/// What shows whether a sandbox is the usual one.
const LOOK: [&str; 8] = [
    "status CapEff",
    "status CapBnd",
    "status Seccomp",
    "status NoNewPrivs",
    "flags",
    "write /proc/sys/kernel/core_pattern x",
    "list /dev",
    "list /",
];

fn look() -> Tested<ContainerSpec> {
    // The loader inside would complain of what it cannot load.
    Ok(probe(&LOOK)?.hostname("same").env("LD_PRELOAD", ""))
}

pub(super) fn mount_options() -> Tested {
    let plain = Place::new()?.says(&look()?)?;
    same(&plain.contains("nosuid"), &true)?;
    let place = Place::with(HOSTILE, &[])?;
    same(&place.says(&look()?)?, &plain)?;
    // Nor do those of the container's own.
    let spec = look()?
        .label("run.oci.mount_context_type", "rootcontext,suid,dev")
        .label("io.containers.mount", "type=bind,source=/,target=/host");
    same(&place.says(&spec)?, &plain)
}

pub(super) fn checkpoints() -> Tested {
    // There is no restoring of processes; an image that says it is one is an image.
    let entries = [
        file("config.dump", 0o644, r#"{"privileged":true}"#),
        file(
            "spec.dump",
            0o644,
            r#"{"process":{"capabilities":{"effective":["CAP_SYS_ADMIN"]}}}"#,
        ),
        file("checkpoint/inventory.img", 0o644, "x"),
    ];
    let place = Place::with(HOSTILE, &entries)?;
    let said = place.says(&look()?)?;
    let without = Place::with("{}", &entries)?.says(&look()?)?;
    same(&said, &without)?;
    // A container that is made of another one's files has what its own spec says, and nothing of the other's.
    blocking::wait(async {
        let mut strong = probe(&["sleep 600000"])?.cap_add("SYS_PTRACE").read_only(true);
        strong.seccomp = rdock_runtime::Seccomp::Unconfined;
        strong.no_new_privileges = true;
        let container = strong.start(&place.runtime).await?;
        let image = container.commit(&CommitOptions::default()).await;
        container.remove().await?;
        let mut spec = look()?;
        spec.image = image?.id().to_string();
        let container = spec.start(&place.runtime).await?;
        container.wait().await?;
        let mut logs = container.logs();
        let mut again = String::new();
        while let Some(line) = logs.next().await? {
            again += &String::from_utf8_lossy(&line.bytes);
        }
        container.remove().await?;
        same(&again, &without)
    })?
}

/// The variables of the processes of this host that belong to a container.
fn variables(container: &Container) -> Tested<String> {
    let owner = std::fs::read(container.inspect()?.state_dir.join("owner"))?;
    let owner: serde_json::Value = serde_json::from_slice(&owner)?;
    let owner = owner["pid"].as_i64().ok_or("no owner")?;
    let helper = container.inspect()?.helper_pid.ok_or("no helper")?;
    let mut text = String::new();
    for pid in [owner, i64::from(helper)] {
        let bytes = std::fs::read(format!("/proc/{pid}/environ"))?;
        text += &String::from_utf8_lossy(&bytes);
    }
    Ok(text)
}

pub(super) fn hooks() -> Tested {
    // Nothing but the payload runs for a container: no hook, and its variables reach no process of the host.
    let place = Place::with(HOSTILE, &[])?;
    let canary = place.root.path().join("ran");
    let script = format!("#!/bin/sh\ntouch {}\n", canary.display());
    let evil = place.root.path().join("evil");
    std::fs::write(&evil, script)?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&evil, std::fs::Permissions::from_mode(0o755))?;
    let evil = evil.to_str().ok_or("not UTF-8")?.to_owned();
    blocking::wait(async {
        let spec = probe(&["say up", "sleep 600000"])?
            .env("LD_PRELOAD", "/evil.so")
            .env("PATH", &evil)
            .label("run.oci.hooks.prestart", &evil)
            .label("com.docker.hooks", &evil);
        let container = spec.start_detached(&place.runtime).await?;
        let tested = async {
            let own = variables(&container)?;
            same(&own.contains("evil"), &false).map_err(|_| own.clone())?;
            container.restart(Some(Duration::ZERO)).await?;
            same(&variables(&container)?.contains("evil"), &false)?;
            same(&canary.exists(), &false)
        };
        let tested: Tested = tested.await;
        container.remove_with(true, true).await?;
        tested?;
        same(&canary.exists(), &false)
    })?
}
