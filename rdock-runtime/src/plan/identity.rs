//! Names of the container: its own, its host name, its domain.

use super::{Findings, HostFacts, Subject};
use crate::identity::{NAME_GRAMMAR, is_id, is_name};
use crate::spec::{ContainerSpec, NamespaceMode, NetworkMode};

/// Length limit of sethostname(2) and setdomainname(2).
const HOST_NAME_MAX: usize = 64;

/// What the container is called from inside.
#[derive(Debug)]
pub(super) struct Names {
    /// To be set; `None` where the uts namespace is not the container's own.
    pub(super) hostname: Option<String>,
    pub(super) domainname: Option<String>,
    /// Value of `HOSTNAME`.
    pub(super) environment_hostname: String,
}

pub(super) fn check(subject: Subject<'_>, spec: &ContainerSpec, findings: &mut Findings) {
    if !is_id(subject.id) {
        findings.add("id", format!("{:?} is not 64 hexadecimal digits", subject.id));
    }
    if let Some(name) = &spec.name
        && !is_name(name)
    {
        findings.add("name", format!("{name:?} is not a name: {NAME_GRAMMAR}"));
    }
    if spec.image.is_empty() {
        findings.add("image", "no image is named");
    }
}

pub(super) fn names(
    subject: Subject<'_>,
    spec: &ContainerSpec,
    host: &HostFacts,
    findings: &mut Findings,
) -> Names {
    let own = spec.uts == NamespaceMode::Private;
    for (field, value) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        let Some(value) = value else { continue };
        if let Err(reason) = check_host_name(value) {
            findings.add(field, format!("{value:?} {reason}"));
        }
        if !own {
            findings.add(
                field,
                "conflicts with a uts namespace that is not the container's own",
            );
        }
        if matches!(spec.network, NetworkMode::Container(_)) {
            findings.add(
                field,
                "conflicts with the network of another container, which brings its own",
            );
        }
    }
    // As in docker, the host's network comes with the host's name.
    let default = || match (&spec.network, &spec.uts) {
        (NetworkMode::Host, _) | (_, NamespaceMode::Host) => host.hostname.clone(),
        _ => subject.id.chars().take(12).collect(),
    };
    let hostname = spec.hostname.clone().unwrap_or_else(default);
    Names {
        hostname: own.then(|| hostname.clone()),
        domainname: spec.domainname.clone().filter(|_| own),
        environment_hostname: hostname,
    }
}

/// Labels of letters, digits, `-` and `_`, joined by dots, none beginning or ending with `-` (RFC 1123,
/// and the underscore that docker allows).
pub(super) fn check_host_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > HOST_NAME_MAX {
        return Err(format!("is not a host name: 1 to {HOST_NAME_MAX} bytes"));
    }
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.split('.').all(label) {
        return Ok(());
    }
    Err("is not a host name: letters, digits, '-' and '_', in labels separated by '.'".into())
}
