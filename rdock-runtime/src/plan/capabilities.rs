//! Which capabilities the payload has, by docker's rules for `--cap-add` and `--cap-drop`.

use super::{Findings, HostFacts};
use crate::launch::CapabilitySets;
use crate::spec::ContainerSpec;
use caps::Capability;

/// What docker gives without being asked.
const DEFAULT: [Capability; 14] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
    Capability::CAP_FOWNER,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_KILL,
    Capability::CAP_AUDIT_WRITE,
];

/// Every capability that this version knows.
fn every() -> u64 {
    caps::all()
        .into_iter()
        .fold(0, |mask, capability| mask | capability.bitmask())
}

/// The sets of the payload. `ALL` added: all but the dropped ones. `ALL` dropped: the added ones alone.
/// Otherwise docker's default without the dropped ones, and the added ones. Ambient is always empty.
pub(super) fn resolve(
    spec: &ContainerSpec,
    host: &HostFacts,
    own_user_namespace: bool,
    findings: &mut Findings,
    warnings: &mut Vec<String>,
) -> CapabilitySets {
    let (add, add_all) = masks("cap_add", &spec.cap_add, findings);
    let (drop, drop_all) = masks("cap_drop", &spec.cap_drop, findings);
    let default = DEFAULT
        .iter()
        .fold(0, |mask, capability| mask | capability.bitmask());
    let wanted = if spec.privileged {
        every()
    } else if add_all {
        every() & !drop
    } else if drop_all {
        add
    } else {
        (default & !drop) | add
    };
    // A user namespace of its own has every capability inside.
    let available = if own_user_namespace {
        host.known_capabilities
    } else {
        host.bounding
    };
    let missing = if spec.privileged || add_all {
        0
    } else {
        add & wanted & !available
    };
    let mut refused: Vec<_> = caps::all()
        .into_iter()
        .filter(|capability| capability.bitmask() & missing != 0)
        .collect();
    refused.sort_by_key(Capability::index);
    for capability in refused {
        warnings.push(format!(
            "{capability} cannot be given: this program does not have it"
        ));
    }
    let mask = wanted & available;
    CapabilitySets {
        bounding: mask,
        permitted: mask,
        effective: mask,
        ambient: 0,
    }
}

/// The named capabilities as a mask, and whether `ALL` is among them.
fn masks(field: &str, names: &[String], findings: &mut Findings) -> (u64, bool) {
    let (mut mask, mut all) = (0, false);
    for (index, name) in names.iter().enumerate() {
        let upper = name.trim().to_ascii_uppercase();
        let full = if upper.starts_with("CAP_") {
            upper.clone()
        } else {
            format!("CAP_{upper}")
        };
        if upper == "ALL" || upper == "CAP_ALL" {
            all = true;
        } else if let Ok(capability) = full.parse::<Capability>() {
            mask |= capability.bitmask();
        } else {
            findings.add(
                format!("{field}[{index}]"),
                format!("{name:?} is not a capability"),
            );
        }
    }
    (mask, all)
}
