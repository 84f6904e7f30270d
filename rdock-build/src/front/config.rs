//! What instructions do to the image config, and how history tells of them.
use crate::dockerfile::{Command, Health, Kind, Pair, exposed_port};
use rdock_image::{ContainerConfig, Healthcheck};
use serde_json::{Value, json};

/// The shell of shell forms, unless SHELL says otherwise.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Returns the shell of a stage.
pub(crate) fn shell(config: &ContainerConfig) -> Vec<String> {
    match &config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ => SHELL.map(str::to_owned).to_vec(),
    }
}

/// Returns what a command's form becomes in the config.
fn command(command: &Command, config: &ContainerConfig) -> Vec<String> {
    match command {
        Command::Exec(args) => args.clone(),
        Command::Shell(text) if text.is_empty() => Vec::new(),
        Command::Shell(text) => {
            let mut args = shell(config);
            args.push(text.clone());
            args
        }
    }
}

/// Joins a path of WORKDIR or of a destination to a directory.
pub(crate) fn join(directory: &str, path: &str) -> String {
    let whole = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{directory}/{path}"),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Applies an expanded instruction that makes no layer. `cmd_set` says whether this stage has set CMD. The error is the
/// rule it breaks.
pub(crate) fn apply(kind: &Kind, config: &mut ContainerConfig, cmd_set: &mut bool) -> Result<(), String> {
    match kind {
        Kind::Cmd(form) => {
            config.cmd = Some(command(form, config)).filter(|args| !args.is_empty());
            config.args_escaped = true;
            *cmd_set = true;
        }
        Kind::Entrypoint(form) => {
            config.entrypoint = Some(command(form, config)).filter(|args| !args.is_empty());
            // An inherited CMD was meant for another program.
            if !*cmd_set {
                config.cmd = None;
            }
        }
        Kind::Expose(ports) => {
            for port in ports {
                for entry in exposed_port(port)?.entries() {
                    config.exposed_ports.insert(entry, json!({}));
                }
            }
        }
        Kind::Healthcheck(health) => config.healthcheck = Some(healthcheck(health)),
        Kind::Label(pairs) => {
            for Pair { name, value, .. } in pairs {
                config.labels.insert(name.clone(), value.clone());
            }
        }
        Kind::Onbuild(onbuild) => config.on_build.push(onbuild.expression.clone()),
        Kind::Shell(shell) => config.shell = Some(shell.clone()),
        Kind::Stopsignal(signal) => config.stop_signal = Some(signal.clone()),
        Kind::User(user) => config.user = user.clone(),
        Kind::Volume(paths) => {
            for path in paths {
                config
                    .volumes
                    .insert(path.clone(), Value::Object(serde_json::Map::new()));
            }
        }
        // An absolute path stays as it is written, as in BuildKit.
        Kind::Workdir(path) if path.starts_with('/') => config.working_dir = path.clone(),
        Kind::Workdir(path) => config.working_dir = join(&config.working_dir, path),
        _ => {}
    }
    Ok(())
}

fn healthcheck(health: &Health) -> Healthcheck {
    let nanoseconds = |time: Option<std::time::Duration>| {
        time.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
    };
    Healthcheck {
        test: health.test.clone(),
        interval: nanoseconds(health.interval),
        timeout: nanoseconds(health.timeout),
        start_period: nanoseconds(health.start_period),
        start_interval: nanoseconds(health.start_interval),
        retries: health.retries.map_or(0, i64::from),
    }
}

/// A duration as Go writes it: `1m30s`, `100ms`.
fn time(time: Option<std::time::Duration>) -> String {
    let nanoseconds = time.unwrap_or_default().as_nanos();
    let fraction = |unit: u128, name: &str| {
        let digits = unit.to_string().len() - 1;
        let text = format!("{}.{:0digits$}", nanoseconds / unit, nanoseconds % unit);
        format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => fraction(1_000, "\u{b5}s"),
        1_000_000..1_000_000_000 => fraction(1_000_000, "ms"),
        _ => {
            let seconds = nanoseconds / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = nanoseconds % 60_000_000_000;
            let second = format!("{}.{:09}", rest / 1_000_000_000, rest % 1_000_000_000);
            let second = second.trim_end_matches('0').trim_end_matches('.');
            match (hours, minutes) {
                (0, 0) => format!("{second}s"),
                (0, minutes) => format!("{minutes}m{second}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{second}s"),
            }
        }
    }
}

fn pairs(pairs: &[Pair]) -> String {
    let texts: Vec<String> = pairs
        .iter()
        .map(|pair| format!("{}={}", pair.name, pair.value))
        .collect();
    texts.join(" ")
}

fn quoted(args: &[String]) -> String {
    let texts: Vec<String> = args.iter().map(|arg| format!("{arg:?}")).collect();
    format!("[{}]", texts.join(" "))
}

/// Returns an instruction's line of history.
pub(crate) fn history(kind: &Kind, config: &ContainerConfig, source: &str) -> String {
    match kind {
        Kind::Env(list) => format!("ENV {}", pairs(list)),
        Kind::Label(list) => format!("LABEL {}", pairs(list)),
        Kind::Arg(list) => {
            let texts: Vec<String> = list
                .iter()
                .map(|argument| match &argument.default {
                    Some(value) => format!("{}={value}", argument.name),
                    None => argument.name.clone(),
                })
                .collect();
            format!("ARG {}", texts.join(" "))
        }
        Kind::Cmd(_) => format!("CMD {}", quoted(config.cmd.as_deref().unwrap_or_default())),
        Kind::Entrypoint(_) => format!(
            "ENTRYPOINT {}",
            quoted(config.entrypoint.as_deref().unwrap_or_default())
        ),
        Kind::Expose(ports) => {
            let entries = ports.iter().filter_map(|port| exposed_port(port).ok());
            let texts: Vec<String> = entries
                .flat_map(|port| port.entries().collect::<Vec<_>>())
                .collect();
            format!("EXPOSE [{}]", texts.join(" "))
        }
        Kind::Healthcheck(health) => format!(
            "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            health.test.join(" "),
            time(health.interval),
            time(health.timeout),
            time(health.start_period),
            time(health.start_interval),
            health.retries.unwrap_or(0)
        ),
        Kind::Shell(shell) => format!("SHELL [{}]", shell.join(" ")),
        Kind::Stopsignal(signal) => format!("STOPSIGNAL {signal}"),
        Kind::User(user) => format!("USER {user}"),
        Kind::Volume(paths) => format!("VOLUME [{}]", paths.join(" ")),
        Kind::Workdir(_) => format!("WORKDIR {}", config.working_dir),
        Kind::Onbuild(onbuild) => format!("ONBUILD {}", onbuild.expression),
        Kind::Maintainer(name) => format!("MAINTAINER {name}"),
        _ => source.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        use std::time::Duration;
        for (nanoseconds, text) in [
            (0, "0s"),
            (100_000_000, "100ms"),
            (1_500_000, "1.5ms"),
            (5_000_000_000, "5s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(time(Some(Duration::from_nanos(nanoseconds))), text);
        }
    }

    #[test]
    fn paths_are_joined_and_cannot_leave_the_root() {
        assert_eq!(join("/a", "b"), "/a/b");
        assert_eq!(join("/a", "/b/"), "/b");
        assert_eq!(join("/a", "../../x/./y"), "/x/y");
        assert_eq!(join("/", "."), "/");
    }
}
