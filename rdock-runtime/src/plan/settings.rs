//! Everything that is neither process nor mount: namespaces, limits, sysctls, ports, signals, readiness.

use super::{Findings, HostFacts, devices, identity, limits, single_id};
use crate::launch::IdMappings;
use crate::signal;
use crate::spec::{
    ContainerSpec, NamespaceMode, NetworkMode, PortMapping, Protocol, Ready, RestartPolicy, UserNamespace,
};
use crate::warning::Warning;
use rdock_image::ImageConfig;

/// What can be said about single fields and pairs of them.
pub(super) fn check(spec: &ContainerSpec, host: &HostFacts, findings: &mut Findings) {
    limits::check(spec, host, findings);
    devices::check(spec, findings);
    extra_hosts(spec, findings);
    namespaces(spec, findings);
    for (index, ready) in spec.ready.iter().enumerate() {
        let field = format!("ready[{index}]");
        match ready {
            Ready::Log { text, .. } if text.is_empty() => {
                findings.add(field, "an empty text is in every line")
            }
            Ready::Log { times: 0, .. } => findings.add(field, "a line that appears 0 times is no condition"),
            Ready::Port(0) | Ready::Http { port: 0, .. } => {
                findings.add(field, "port 0 cannot be listened on")
            }
            Ready::Exec(args) if args.first().is_none_or(String::is_empty) => {
                findings.add(field, "no command")
            }
            Ready::Http { path, .. }
                if !path.starts_with('/') || path.contains(|c: char| c.is_ascii_control() || c == ' ') =>
            {
                findings.add(field, format!("{path:?} is not a path of an HTTP request"));
            }
            Ready::Http {
                status: Some(status), ..
            } if !(100..=599).contains(status) => {
                findings.add(field, format!("{status} is not an HTTP status"));
            }
            Ready::Http { port, .. } if !is_reachable(spec, *port) => {
                findings.add(
                    field,
                    format!("port {port}/tcp must be published: the request comes from the host"),
                );
            }
            _ => {}
        }
    }
}

/// What happens after the payload's end.
pub(super) fn lifetime(subject: super::Subject<'_>, spec: &ContainerSpec, findings: &mut Findings) {
    if spec.restart == RestartPolicy::No {
        return;
    }
    if spec.auto_remove {
        findings.add(
            "restart",
            "a container that is removed when it ends cannot be restarted",
        );
    }
    if !subject.detached {
        findings.add(
            "restart",
            "a container that ends with its handle cannot be restarted: start it detached",
        );
    }
}

/// Whether the host can connect to the TCP port.
fn is_reachable(spec: &ContainerSpec, port: u16) -> bool {
    let published = |mapping: &PortMapping| mapping.container == port && mapping.protocol == Protocol::Tcp;
    match spec.network {
        NetworkMode::Host => true,
        NetworkMode::Default => spec.ports.iter().any(published),
        NetworkMode::None | NetworkMode::Container(_) => false,
    }
}

fn namespaces(spec: &ContainerSpec, findings: &mut Findings) {
    let modes = [
        ("pid", &spec.pid),
        ("ipc", &spec.ipc),
        ("uts", &spec.uts),
        ("cgroup_namespace", &spec.cgroup_namespace),
    ];
    for (field, mode) in modes {
        if matches!(mode, NamespaceMode::Container(name) if !crate::identity::is_name(name)) {
            findings.add(field, "not the name or id of a container");
        }
    }
    for (field, mode) in [("uts", &spec.uts), ("cgroup_namespace", &spec.cgroup_namespace)] {
        if matches!(mode, NamespaceMode::Container(_)) {
            findings.add(field, "cannot be that of another container");
        }
    }
    if spec.no_shm && spec.ipc != NamespaceMode::Private {
        findings.add("no_shm", "needs an ipc namespace of the container's own");
    }
    if let NetworkMode::Container(name) = &spec.network {
        if !crate::identity::is_name(name) {
            findings.add(
                "network",
                format!("{name:?} is not the name or id of a container"),
            );
        }
        if !spec.ports.is_empty() {
            findings.add(
                "ports",
                "conflicts with the network of another container: publish them there",
            );
        }
        if !spec.extra_hosts.is_empty() {
            findings.add(
                "extra_hosts",
                "conflicts with the network of another container, which brings its own",
            );
        }
    }
}

fn extra_hosts(spec: &ContainerSpec, findings: &mut Findings) {
    for (index, (container, alias)) in spec.links.iter().enumerate() {
        let field = format!("links[{index}]");
        if spec.network != NetworkMode::Default {
            findings.add(&field, "needs a network of the container's own");
        }
        for name in [container, alias] {
            if !crate::identity::is_name(name) {
                findings.add(&field, format!("{name:?} is not a name"));
            }
        }
    }
    for (index, (name, address)) in spec.extra_hosts.iter().enumerate() {
        let field = format!("extra_hosts[{index}]");
        if let Err(reason) = identity::check_host_name(name) {
            findings.add(&field, format!("{name:?} {reason}"));
        }
        if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
            findings.add(
                &field,
                format!("{address:?} is neither an IP address nor host-gateway"),
            );
        }
    }
}

/// The container's user namespace: as asked, else none for root and a single id for others.
pub(super) fn user_namespace(
    spec: &ContainerSpec,
    host: &HostFacts,
    findings: &mut Findings,
) -> Option<IdMappings> {
    let UserNamespace::Mapped { uids, gids } = &spec.user_namespace else {
        return host.is_rootless().then(|| single_id(host.euid, host.egid));
    };
    for (field, maps, own) in [("uids", uids, host.euid), ("gids", gids, host.egid)] {
        let field = format!("user_namespace.{field}");
        if !maps.iter().any(|(inside, _, count)| *inside == 0 && *count > 0) {
            findings.add(&field, "id 0 must be mapped: the container is set up as its root");
        }
        let end = |start: u32, count: u32| u64::from(start) + u64::from(count);
        if maps.iter().any(|(inside, outside, count)| {
            *count == 0 || end(*inside, *count) > 1 << 32 || end(*outside, *count) > 1 << 32
        }) {
            findings.add(&field, "a range is empty or too long");
        }
        let overlaps =
            |a: (u32, u32), b: (u32, u32)| u64::from(a.0) < end(b.0, b.1) && u64::from(b.0) < end(a.0, a.1);
        for (index, first) in maps.iter().enumerate() {
            for second in &maps[index + 1..] {
                if overlaps((first.0, first.2), (second.0, second.2))
                    || overlaps((first.1, first.2), (second.1, second.2))
                {
                    findings.add(&field, "two ranges overlap");
                }
            }
        }
        // user_namespaces(7): 340 lines since Linux 4.15.
        if maps.len() > 340 {
            findings.add(&field, "more than 340 ranges");
        }
        let start = maps.iter().find(|(inside, ..)| *inside == 0);
        if !host.is_rootless() && start.is_some_and(|(_, outside, _)| *outside != 0) {
            findings.add(
                &field,
                "id 0 must be the host's id 0: the files of images belong to it, and are not shifted",
            );
        }
        if host.is_rootless() && maps.as_slice() != [(0, own, 1)] {
            findings.add(&field, format!("without root only (0, {own}, 1) can be mapped"));
        }
    }
    let mut mappings = IdMappings {
        uids: uids.clone(),
        gids: gids.clone(),
        deny_setgroups: false,
    };
    mappings.deny_setgroups = host.is_rootless() || mappings.is_single_id();
    Some(mappings)
}

/// Docker's own sysctls for a network of the container's, and the user's over them.
pub(super) fn sysctls(
    spec: &ContainerSpec,
    user_namespace: bool,
    findings: &mut Findings,
) -> Vec<(String, String)> {
    let mut all = std::collections::BTreeMap::new();
    if matches!(spec.network, NetworkMode::Default | NetworkMode::None) {
        all.insert("net.ipv4.ip_unprivileged_port_start", "0");
        if !user_namespace {
            all.insert("net.ipv4.ping_group_range", "0 2147483647");
        }
    }
    for (name, value) in &spec.sysctls {
        if let Err(reason) = check_sysctl(spec, name, value) {
            findings.add(format!("sysctls[{name:?}]"), reason);
        }
        all.insert(name, value);
    }
    all.into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Only parameters of the container's own namespaces (the list of runc and docker), by a strict grammar.
fn check_sysctl(spec: &ContainerSpec, name: &str, value: &str) -> Result<(), String> {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    if !name.split('.').all(part) {
        return Err("not a parameter's name: words of letters, digits, '_' and '-', joined by dots".into());
    }
    if value.chars().any(char::is_control) || value.len() > 4096 {
        return Err("a line break, another control character, or more than 4096 bytes in the value".into());
    }
    const IPC: [&str; 8] = [
        "msgmax",
        "msgmnb",
        "msgmni",
        "sem",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
    ];
    let (needs, mode) = match name.split_once('.') {
        Some(("net", _)) => {
            return match spec.network {
                NetworkMode::Default | NetworkMode::None => Ok(()),
                _ => Err("needs a network of the container's own".into()),
            };
        }
        Some(("fs", rest)) if rest.starts_with("mqueue.") => ("ipc", &spec.ipc),
        Some(("kernel", rest)) if IPC.contains(&rest) => ("ipc", &spec.ipc),
        Some(("kernel", "domainname")) => ("uts", &spec.uts),
        Some(("kernel", "hostname")) => return Err("is set by the field hostname".into()),
        _ => return Err("is not a parameter of the container's namespaces: it would change the host".into()),
    };
    match mode {
        NamespaceMode::Private => Ok(()),
        _ => Err(format!("needs a {needs} namespace of the container's own")),
    }
}

/// The published ports; the host's network has nothing to publish.
pub(super) fn ports(
    spec: &ContainerSpec,
    findings: &mut Findings,
    warnings: &mut Vec<Warning>,
) -> Vec<PortMapping> {
    for (index, port) in spec.ports.iter().enumerate() {
        let field = format!("ports[{index}]");
        if port.container == 0 {
            findings.add(&field, "the container's port cannot be 0");
        }
        if port
            .host_end
            .is_some_and(|end| port.host.is_none_or(|host| host == 0 || host > end))
        {
            findings.add(&field, "host_end is the end of a range that begins with host");
        }
        let same = |other: &&PortMapping| {
            port.host.is_some_and(|number| number != 0)
                && port.host_end.is_none()
                && other.host_end.is_none()
                && other.host == port.host
                && other.protocol == port.protocol
                && (other.host_ip == port.host_ip || other.host_ip.is_none() || port.host_ip.is_none())
        };
        if spec.ports[..index].iter().any(|other| same(&other)) {
            findings.add(
                &field,
                format!("the host's port {} is used twice", port.host.unwrap_or_default()),
            );
        }
    }
    match spec.network {
        NetworkMode::Host if !spec.ports.is_empty() => {
            warnings.push(Warning::PortsNotPublished {
                network: "host".into(),
            });
            Vec::new()
        }
        NetworkMode::None if !spec.ports.is_empty() => {
            warnings.push(Warning::PortsNotPublished {
                network: "none".into(),
            });
            Vec::new()
        }
        _ => spec.ports.clone(),
    }
}

/// The spec's stop signal, else the image's, else SIGTERM.
pub(super) fn stop_signal(spec: &ContainerSpec, image: &ImageConfig, findings: &mut Findings) -> i32 {
    let of_image = image
        .config
        .stop_signal
        .as_deref()
        .filter(|text| !text.is_empty());
    let (field, text) = match (&spec.stop_signal, of_image) {
        (Some(own), _) => ("stop_signal", own.as_str()),
        (None, Some(of_image)) => ("image.stop_signal", of_image),
        (None, None) => return libc::SIGTERM,
    };
    signal::parse(text).unwrap_or_else(|| {
        findings.add(field, format!("{text:?} is not a signal"));
        libc::SIGTERM
    })
}
