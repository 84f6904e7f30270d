//! Which capabilities a payload has, by docker's rules for `--cap-add` and `--cap-drop`.

use crate::launch::CapabilitySets;
use crate::spec::ContainerSpec;
use crate::warning::Warning;
use caps::{CapSet, Capability};

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

/// What there is to give: every capability that the kernel knows inside a user namespace of the
/// container's own, else what this process may hand on.
pub(crate) fn available(own_user_namespace: bool) -> u64 {
    if own_user_namespace {
        return known();
    }
    // One file instead of a call for each capability of the bounding set.
    match std::fs::read_to_string("/proc/thread-self/status") {
        Ok(status) => of_status(&status, "CapPrm:") & of_status(&status, "CapBnd:"),
        Err(_) => {
            let read = |set| caps::read(None, set).unwrap_or_default();
            mask(&read(CapSet::Bounding)) & mask(&read(CapSet::Permitted))
        }
    }
}

/// A set of proc_pid_status(5); nothing for what is not there.
fn of_status(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    value
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .unwrap_or(0)
}

/// By /proc/sys/kernel/cap_last_cap, else those since Linux 5.9, which every supported kernel has.
fn known() -> u64 {
    static KNOWN: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *KNOWN.get_or_init(|| {
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
        let last = last
            .and_then(|text| text.trim().parse::<u32>().ok())
            .filter(|last| *last < 63)
            .unwrap_or(40);
        (1 << (last + 1)) - 1
    })
}

/// All there is, as a privileged process has it. Ambient is empty.
pub(crate) fn everything() -> CapabilitySets {
    sets(available(!rustix::process::geteuid().is_root()))
}

/// What docker's `--cap-add` and `--cap-drop` made of the default set.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) sets: CapabilitySets,
    /// The field and the name of each that is no capability.
    pub(crate) unknown: Vec<(String, String)>,
    /// Added by name, and not there to be given.
    pub(crate) warnings: Vec<Warning>,
}

/// The sets of the payload. `ALL` added: all but the dropped ones. `ALL` dropped: the added ones alone.
/// Otherwise docker's default without the dropped ones, and the added ones. Ambient is always empty.
pub(crate) fn resolve(spec: &ContainerSpec, available: u64) -> Resolved {
    let mut unknown = Vec::new();
    let (add, add_all) = masks("cap_add", &spec.cap_add, &mut unknown);
    let (drop, drop_all) = masks("cap_drop", &spec.cap_drop, &mut unknown);
    let wanted = if spec.privileged {
        u64::MAX
    } else if add_all {
        !drop
    } else if drop_all {
        add
    } else {
        (mask(&DEFAULT) & !drop) | add
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
    let warnings = refused
        .iter()
        .map(|name| Warning::MissingCapability {
            name: name.to_string(),
        })
        .collect();
    Resolved {
        sets: sets(wanted & available),
        unknown,
        warnings,
    }
}

fn sets(mask: u64) -> CapabilitySets {
    CapabilitySets {
        bounding: mask,
        permitted: mask,
        effective: mask,
        ambient: 0,
    }
}

fn mask<'a>(capabilities: impl IntoIterator<Item = &'a Capability>) -> u64 {
    capabilities
        .into_iter()
        .fold(0, |mask, capability| mask | capability.bitmask())
}

/// The named capabilities as a mask, and whether `ALL` is among them.
fn masks(field: &str, names: &[String], unknown: &mut Vec<(String, String)>) -> (u64, bool) {
    let (mut mask, mut all) = (0, false);
    for (index, name) in names.iter().enumerate() {
        let upper = name.trim().to_ascii_uppercase();
        let full = if upper.starts_with("CAP_") {
            upper.clone()
        } else {
            format!("CAP_{upper}")
        };
        if full == "CAP_ALL" {
            all = true;
        } else if let Ok(capability) = full.parse::<Capability>() {
            mask |= capability.bitmask();
        } else {
            unknown.push((format!("{field}[{index}]"), name.clone()));
        }
    }
    (mask, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = (1 << 41) - 1;
    const DEFAULT_MASK: u64 = 0xa804_25fb;

    fn spec(add: &[&str], drop: &[&str]) -> ContainerSpec {
        let mut spec = ContainerSpec::new("image");
        spec.cap_add = add.iter().map(|name| (*name).to_owned()).collect();
        spec.cap_drop = drop.iter().map(|name| (*name).to_owned()).collect();
        spec
    }

    #[test]
    fn what_there_is_to_give_is_what_the_kernel_says() {
        let read = |set| mask(&caps::read(None, set).expect("read"));
        let expected = read(CapSet::Permitted) & read(CapSet::Bounding);
        // A newer kernel may have some that nobody here has a name for.
        assert_eq!(available(false) & ALL, expected);
        assert_eq!(
            of_status("CapPrm:\t00000000a80425fb\nCapBnd:\tx\n", "CapPrm:"),
            DEFAULT_MASK
        );
        assert_eq!(of_status("CapPrm:\t1\nCapBnd:\tx\n", "CapBnd:"), 0);
    }

    #[test]
    fn adding_and_dropping_as_docker_does() {
        let bit = |capability: Capability| capability.bitmask();
        let (admin, chown, raw) = (
            Capability::CAP_SYS_ADMIN,
            Capability::CAP_CHOWN,
            Capability::CAP_NET_RAW,
        );
        let table: [(&[&str], &[&str], u64); 10] = [
            (&[], &[], DEFAULT_MASK),
            (&["SYS_ADMIN"], &[], DEFAULT_MASK | bit(admin)),
            (
                &["cap_sys_admin"],
                &["CHOWN"],
                (DEFAULT_MASK | bit(admin)) & !bit(chown),
            ),
            (
                &[],
                &["CAP_NET_RAW", "chown"],
                DEFAULT_MASK & !bit(raw) & !bit(chown),
            ),
            (&["ALL"], &[], ALL),
            (&["all"], &["SYS_ADMIN"], ALL & !bit(admin)),
            (&[], &["ALL"], 0),
            (&["CHOWN"], &["ALL"], bit(chown)),
            (&["CHOWN"], &["CHOWN"], DEFAULT_MASK),
            (&["ALL"], &["ALL"], ALL),
        ];
        for (add, drop, expected) in table {
            let resolved = resolve(&spec(add, drop), ALL);
            assert_eq!(resolved.sets.bounding, expected, "{add:?} {drop:?}");
            assert!(resolved.unknown.is_empty() && resolved.warnings.is_empty());
        }
    }

    #[test]
    fn unknown_names_are_named() {
        let resolved = resolve(&spec(&["CHOWN", "CAP_NOPE"], &["", "SYS_ADMIN;"]), ALL);
        let fields: Vec<_> = resolved.unknown.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["cap_add[1]", "cap_drop[0]", "cap_drop[1]"]);
    }

    #[test]
    fn what_this_program_lacks_is_a_warning_only_when_it_was_named() {
        let without = ALL & !Capability::CAP_SYS_RESOURCE.bitmask() & !Capability::CAP_CHOWN.bitmask();
        let named = resolve(&spec(&["SYS_RESOURCE"], &[]), without);
        assert_eq!(
            named.warnings,
            [Warning::MissingCapability {
                name: "CAP_SYS_RESOURCE".into()
            }]
        );
        assert_eq!(named.sets.bounding & !without, 0);
        for quiet in [
            spec(&[], &[]),
            spec(&["ALL"], &[]),
            ContainerSpec {
                privileged: true,
                ..spec(&[], &[])
            },
        ] {
            let resolved = resolve(&quiet, without);
            assert!(resolved.warnings.is_empty());
            assert_eq!(resolved.sets.bounding & !without, 0);
        }
    }

    #[test]
    fn rt_caps_inheritable_no_plan_has_ambient_capabilities() {
        for spec in [
            spec(&["ALL"], &[]),
            ContainerSpec {
                privileged: true,
                ..spec(&[], &[])
            },
        ] {
            let sets = resolve(&spec, ALL).sets;
            assert_eq!((sets.bounding, sets.ambient), (ALL, 0));
        }
        assert_eq!(everything().ambient, 0);
        assert_ne!(everything().bounding, 0);
    }
}
