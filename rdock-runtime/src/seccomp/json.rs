//! Profiles in Docker's JSON format (`--security-opt seccomp=FILE`).

use super::{Action, Compare, Condition, Rule, SeccompError};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    #[serde(default)]
    min_kernel: Option<String>,
}

pub(super) fn parse(text: &str, bounding: u64) -> Result<(Action, Vec<Rule>), SeccompError> {
    let profile: Profile = serde_json::from_str(text).map_err(|source| SeccompError::Malformed { source })?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut rules = Vec::new();
    for group in profile.syscalls {
        // An excluded or not included group is as if it were not there.
        if !includes(&group.includes, bounding) || excludes(&group.excludes, bounding) {
            continue;
        }
        let conditions = group
            .args
            .unwrap_or_default()
            .iter()
            .map(condition)
            .collect::<Result<_, _>>()?;
        let names = group.names.into_iter().chain(group.name).collect();
        rules.push(Rule {
            names,
            action: action(&group.action, group.errno_ret)?,
            conditions,
        });
    }
    Ok((default, rules))
}

/// All of the capabilities, one of the architectures, and the kernel.
fn includes(filter: &Filter, bounding: u64) -> bool {
    filter.caps.iter().all(|name| has_capability(name, bounding))
        && (filter.arches.is_empty() || filter.arches.iter().any(|name| is_own(name)))
        && filter.min_kernel.as_deref().is_none_or(kernel_is_at_least)
}

/// Any of them.
fn excludes(filter: &Filter, bounding: u64) -> bool {
    filter.caps.iter().any(|name| has_capability(name, bounding))
        || filter.arches.iter().any(|name| is_own(name))
        || filter.min_kernel.as_deref().is_some_and(kernel_is_at_least)
}

fn has_capability(name: &str, bounding: u64) -> bool {
    name.parse::<caps::Capability>()
        .is_ok_and(|capability| bounding & capability.bitmask() != 0)
}

fn is_own(architecture: &str) -> bool {
    match architecture {
        "amd64" | "x86_64" => cfg!(target_arch = "x86_64"),
        // The compatible ones of the same processor.
        "x86" | "x32" => cfg!(target_arch = "x86_64"),
        "arm64" | "aarch64" => cfg!(target_arch = "aarch64"),
        "arm" => cfg!(target_arch = "aarch64"),
        _ => false,
    }
}

fn kernel_is_at_least(wanted: &str) -> bool {
    let numbers = |text: &str| -> (u32, u32) {
        let mut parts = text
            .split(|c: char| !c.is_ascii_digit())
            .map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    numbers(&rustix::system::uname().release().to_string_lossy()) >= numbers(wanted)
}

fn action(name: &str, errno: Option<u16>) -> Result<Action, SeccompError> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(1)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(errno.unwrap_or(1)),
        "SCMP_ACT_LOG" => Action::Log,
        _ => {
            return Err(SeccompError::Unsupported {
                what: "the action",
                value: name.to_owned(),
            });
        }
    })
}

fn condition(argument: &Argument) -> Result<Condition, SeccompError> {
    let compare = match argument.op.as_str() {
        "SCMP_CMP_EQ" => Compare::Equal,
        "SCMP_CMP_NE" => Compare::NotEqual,
        "SCMP_CMP_LT" => Compare::Less,
        "SCMP_CMP_LE" => Compare::LessOrEqual,
        "SCMP_CMP_GT" => Compare::Greater,
        "SCMP_CMP_GE" => Compare::GreaterOrEqual,
        "SCMP_CMP_MASKED_EQ" => Compare::MaskedEqual,
        other => {
            return Err(SeccompError::Unsupported {
                what: "the operator",
                value: other.to_owned(),
            });
        }
    };
    if argument.index > 5 {
        return Err(SeccompError::Unsupported {
            what: "the argument index",
            value: argument.index.to_string(),
        });
    }
    let (value, mask) = match compare {
        Compare::MaskedEqual => (argument.value_two, argument.value),
        _ => (argument.value, 0),
    };
    Ok(Condition {
        argument: argument.index,
        compare,
        value,
        mask,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_count_by_capability() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"syscalls":[
            {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,
             "op":"SCMP_CMP_MASKED_EQ"}],"excludes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
        let (default, plain) = parse(text, 0).expect("valid");
        assert_eq!(default, Action::Errno(38));
        assert_eq!(plain.len(), 1);
        assert_eq!(plain[0].conditions[0].mask, 0x7e02_0000);
        let (_, privileged) = parse(text, u64::MAX).expect("valid");
        assert_eq!(privileged[0].names, ["mount"]);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for text in ["", "{}", r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#] {
            assert!(parse(text, 0).is_err(), "{text}");
        }
    }
}
