//! The payload's process: command, environment, user, directory, limits.

use super::Findings;
use crate::launch::ProcessPlan;
use crate::spec::ContainerSpec;
use crate::warning::Warning;
use rdock_image::ImageConfig;
use std::path::PathBuf;

/// `PATH` of a container whose image sets none, as docker's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Largest user and group id, docker's limit: more would be negative in places.
const MAX_ID: u64 = (1 << 31) - 1;

/// The names of `docker run --ulimit`, with their numbers.
const LIMITS: [(&str, u32); 16] = [
    ("as", libc::RLIMIT_AS),
    ("core", libc::RLIMIT_CORE),
    ("cpu", libc::RLIMIT_CPU),
    ("data", libc::RLIMIT_DATA),
    ("fsize", libc::RLIMIT_FSIZE),
    ("locks", libc::RLIMIT_LOCKS),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("nofile", libc::RLIMIT_NOFILE),
    ("nproc", libc::RLIMIT_NPROC),
    ("rss", libc::RLIMIT_RSS),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("rttime", libc::RLIMIT_RTTIME),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("stack", libc::RLIMIT_STACK),
];

/// Entry point and arguments. An entry point in the spec, even an empty one, drops the image's command.
pub(super) fn command(spec: &ContainerSpec, image: &ImageConfig, findings: &mut Findings) -> Vec<String> {
    let image = &image.config;
    let (entrypoint, default_args) = match &spec.entrypoint {
        Some(own) => (own.as_slice(), &[][..]),
        None => (
            image.entrypoint.as_deref().unwrap_or_default(),
            image.cmd.as_deref().unwrap_or_default(),
        ),
    };
    let args = if spec.args.is_empty() {
        default_args
    } else {
        &spec.args
    };
    let command: Vec<String> = entrypoint.iter().chain(args).cloned().collect();
    match command.first() {
        None => findings.add("args", "no command specified, and the image has none"),
        Some(first) if first.is_empty() => findings.add("args", "the command is an empty text"),
        Some(_) => {}
    }
    if command.iter().any(|part| part.contains('\0')) {
        findings.add("args", "a NUL byte in the command");
    }
    command
}

/// Everything but capabilities, filter and terminal.
pub(super) fn process(
    spec: &ContainerSpec,
    image: &ImageConfig,
    command: &[String],
    hostname: &str,
    single_id: bool,
    findings: &mut Findings,
    warnings: &mut Vec<Warning>,
) -> ProcessPlan {
    if !matches!(spec.oom_score_adj, None | Some(-1000..=1000)) {
        findings.add("oom_score_adj", "must be from -1000 to 1000");
    }
    if spec.umask.is_some_and(|mask| mask > 0o777) {
        findings.add("umask", "must be at most 0777");
    }
    ProcessPlan {
        args: command.iter().map(|part| part.clone().into_bytes()).collect(),
        env: environment(spec, image, hostname, findings)
            .into_iter()
            .map(String::into_bytes)
            .collect(),
        cwd: working_dir(spec, image, findings),
        make_cwd: true,
        user: user(spec, image, single_id, findings),
        additional_groups: groups(spec, single_id, findings, warnings),
        umask: spec.umask,
        no_new_privileges: spec.no_new_privileges,
        rlimits: limits(spec, findings),
        oom_score_adj: spec.oom_score_adj,
        ..ProcessPlan::default()
    }
}

/// Docker's order: its own variables, then the user's, then those of the image that nobody replaced. A
/// later value of a name replaces an earlier one in its place.
fn environment(
    spec: &ContainerSpec,
    image: &ImageConfig,
    hostname: &str,
    findings: &mut Findings,
) -> Vec<String> {
    let mut entries: Vec<(&str, &str)> = vec![("PATH", DEFAULT_PATH), ("HOSTNAME", hostname)];
    if spec.terminal {
        entries.push(("TERM", "xterm"));
    }
    let mut set = |name, value| match entries.iter_mut().find(|(known, _)| *known == name) {
        Some(entry) => entry.1 = value,
        None => entries.push((name, value)),
    };
    // rt-env-host-leak: an entry without `=` or without a name is no variable, and names nothing of ours.
    let of_image: Vec<_> = image
        .config
        .env
        .iter()
        .filter_map(|entry| entry.split_once('='))
        .filter(|(name, value)| !name.is_empty() && !name.contains('\0') && !value.contains('\0'))
        .collect();
    for (name, value) in &spec.env {
        set(name, value);
    }
    for (name, value) in of_image {
        if !spec.env.iter().any(|(own, _)| own == name) {
            set(name, value);
        }
    }
    let is_set = |name: &str| spec.env.iter().any(|(own, _)| own == name);
    entries.retain(|(name, _)| is_set(name) || !spec.unset_env.iter().any(|unset| unset == name));
    let mut set = |name, value| match entries.iter_mut().find(|(known, _)| *known == name) {
        Some(entry) => entry.1 = value,
        None => entries.push((name, value)),
    };
    for (name, value) in &spec.secret_env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            findings.add(
                "secret_env",
                format!("{name:?} is not a variable's name, or its value has a NUL byte"),
            );
        }
        set(name, value);
    }
    for (index, (name, value)) in spec.env.iter().enumerate() {
        let field = format!("env[{index}]");
        if name.is_empty() || name.contains('=') {
            findings.add(&field, format!("{name:?} is not a variable's name"));
        }
        if name.contains('\0') || value.contains('\0') {
            findings.add(&field, "a NUL byte");
        }
    }
    // rt-passwd-newline: a home is a field of a passwd line.
    let home = entries.iter().find(|(name, _)| *name == "HOME");
    if home.is_some_and(|(_, home)| home.contains(['\n', '\r', ':'])) {
        let own = spec.env.iter().any(|(name, _)| name == "HOME");
        findings.add(
            if own { "env" } else { "image.env" },
            "HOME with a line break or ':'",
        );
    }
    entries
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

fn working_dir(spec: &ContainerSpec, image: &ImageConfig, findings: &mut Findings) -> PathBuf {
    let (field, dir) = match &spec.working_dir {
        Some(own) => ("working_dir", own.as_str()),
        None => ("image.working_dir", image.config.working_dir.as_str()),
    };
    let unset = spec.working_dir.is_none() && dir.is_empty();
    if dir.contains('\0') {
        findings.add(field, "a NUL byte");
    } else if !dir.starts_with('/') && !unset {
        findings.add(field, format!("{dir:?} is not an absolute path"));
    }
    PathBuf::from(super::mounts::clean(dir))
}

fn user(spec: &ContainerSpec, image: &ImageConfig, single_id: bool, findings: &mut Findings) -> String {
    let (field, user) = match &spec.user {
        Some(own) => ("user", own.as_str()),
        None => ("image.user", image.config.user.as_str()),
    };
    if let Err(reason) = check_user(user) {
        findings.add(field, format!("{user:?} {reason}"));
    } else if single_id {
        let other = user
            .split(':')
            .find(|part| part.parse::<u64>().is_ok_and(|id| id != 0));
        if let Some(id) = other {
            findings.add(
                field,
                format!(
                    "id {id} does not exist: without root and subordinate ids the container has id 0 alone"
                ),
            );
        }
    }
    user.trim_end_matches(':').to_owned()
}

/// `user[:group]`, names or numbers up to 2^31 - 1, or nothing. What is all digits is a number, never a
/// name; what a careless parser would take for a number (`-1`, `+1`) is refused.
pub(super) fn check_user(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Ok(());
    }
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() {
        return Err("names no user before ':'");
    }
    check_principal(user)?;
    if group.is_empty() {
        Ok(())
    } else {
        check_principal(group)
    }
}

/// One user or group, by name or number.
fn check_principal(text: &str) -> Result<(), &'static str> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<u64>() {
            Ok(id) if id <= MAX_ID => Ok(()),
            _ => Err("is beyond the largest id, 2147483647"),
        };
    }
    if text.starts_with(['-', '+']) {
        return Err("is neither a name nor a number");
    }
    if text
        .chars()
        .any(|c| c == ':' || c == ',' || c == '/' || c.is_control() || c.is_whitespace())
    {
        return Err("holds a character that no user or group name has");
    }
    if text.len() > 256 {
        Err("is too long for a name")
    } else {
        Ok(())
    }
}

fn groups(
    spec: &ContainerSpec,
    single_id: bool,
    findings: &mut Findings,
    warnings: &mut Vec<Warning>,
) -> Vec<String> {
    for (index, group) in spec.groups.iter().enumerate() {
        if group.is_empty() {
            findings.add(format!("groups[{index}]"), "an empty group");
        } else if let Err(reason) = check_principal(group) {
            findings.add(format!("groups[{index}]"), format!("{group:?} {reason}"));
        }
    }
    if single_id && !spec.groups.is_empty() {
        warnings.push(Warning::NoSupplementaryGroups);
        return Vec::new();
    }
    spec.groups.clone()
}

fn limits(spec: &ContainerSpec, findings: &mut Findings) -> Vec<(u32, u64, u64)> {
    let mut limits: Vec<(u32, u64, u64)> = Vec::new();
    for (index, (name, soft, hard)) in spec.ulimits.iter().enumerate() {
        let field = format!("ulimits[{index}]");
        let Some((_, number)) = LIMITS.iter().find(|(known, _)| known == name) else {
            findings.add(field, format!("{name:?} is not a limit's name"));
            continue;
        };
        if soft > hard {
            findings.add(
                &field,
                format!("the soft limit of {name} is above its hard limit"),
            );
        }
        if limits.iter().any(|(known, ..)| known == number) {
            findings.add(&field, format!("{name} is given twice"));
        }
        limits.push((*number, *soft, *hard));
    }
    limits
}
