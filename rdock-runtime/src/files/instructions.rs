//! Single instructions of a Dockerfile that change an image's config (`docker commit -c`, `docker import -c`).

use super::FilesError;
use crate::image::{ContainerConfig, Healthcheck};
use serde_json::{Map, Value};

/// Applies one instruction.
///
/// # Errors
/// [`FilesError::Change`] for one that is none, or that changes more than a config.
pub(crate) fn apply(config: &mut ContainerConfig, text: &str) -> Result<(), FilesError> {
    let wrong = |reason: &str| FilesError::Change {
        text: text.to_owned(),
        reason: reason.to_owned(),
    };
    let (name, rest) = match text.trim().split_once(char::is_whitespace) {
        Some((name, rest)) => (name.to_ascii_uppercase(), rest.trim()),
        None => (text.trim().to_ascii_uppercase(), ""),
    };
    if rest.is_empty() {
        return Err(wrong("it is an instruction and its arguments"));
    }
    let empty = || Value::Object(Map::new());
    match name.as_str() {
        "CMD" => config.cmd = Some(command(config, rest)),
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(config, rest)).filter(|words| !words.is_empty());
        }
        "ENV" => {
            for (name, value) in pairs(rest).map_err(|reason| wrong(&reason))? {
                set_env(&mut config.env, &name, &value);
            }
        }
        "LABEL" => config
            .labels
            .extend(pairs(rest).map_err(|reason| wrong(&reason))?),
        "EXPOSE" => {
            for word in words(rest).map_err(|reason| wrong(&reason))? {
                let (port, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
                let known = matches!(protocol, "tcp" | "udp" | "sctp");
                let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
                let (first, last) = port.split_once('-').unwrap_or((port, port));
                match (number(first), number(last)) {
                    (Some(first), Some(last)) if known && first <= last => {
                        for port in first..=last {
                            config.exposed_ports.insert(format!("{port}/{protocol}"), empty());
                        }
                    }
                    _ => return Err(wrong("it is PORT[-PORT][/tcp|/udp|/sctp]")),
                }
            }
        }
        "HEALTHCHECK" => {
            config.healthcheck = Some(healthcheck(config, rest).map_err(|reason| wrong(&reason))?)
        }
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "STOPSIGNAL" => {
            if crate::signal::parse(rest).is_none() {
                return Err(wrong("it is no signal"));
            }
            config.stop_signal = Some(rest.to_owned());
        }
        "USER" => config.user = rest.to_owned(),
        "VOLUME" => {
            let paths = match array(rest) {
                Some(paths) => paths,
                None => words(rest).map_err(|reason| wrong(&reason))?,
            };
            for path in paths {
                config.volumes.insert(path, empty());
            }
        }
        "WORKDIR" => {
            let path = match rest.starts_with('/') {
                true => rest.to_owned(),
                false => format!("{}/{rest}", config.working_dir.trim_end_matches('/')),
            };
            config.working_dir = path;
        }
        _ => {
            return Err(wrong(
                "it is one of CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR",
            ));
        }
    }
    Ok(())
}

/// Sets a variable in place.
pub(super) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let text = format!("{name}={value}");
    let known = |known: &&mut String| known.split_once('=').is_some_and(|(known, _)| known == name);
    match env.iter_mut().find(known) {
        Some(known) => *known = text,
        None => env.push(text),
    }
}

/// The exec form, or a text for the shell.
fn command(config: &ContainerConfig, text: &str) -> Vec<String> {
    array(text).unwrap_or_else(|| {
        let shell = config.shell.clone();
        let mut words = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
        words.push(text.to_owned());
        words
    })
}

fn array(text: &str) -> Option<Vec<String>> {
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// `name=value ...`, or `name value with blanks`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    if let Some(first) = words.first()
        && !first.contains('=')
    {
        let rest = text.trim()[first.len()..].trim();
        if rest.is_empty() {
            return Err(format!("{first:?} has no value"));
        }
        return Ok(vec![(first.clone(), rest.to_owned())]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!("{word:?} is not NAME=VALUE")),
        })
        .collect()
}

/// Words, with quotes and backslashes as a Dockerfile has them.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), letter) if letter == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

/// `NONE`, or options and `CMD`.
fn healthcheck(config: &ContainerConfig, text: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option
            .split_once(char::is_whitespace)
            .ok_or("CMD or NONE is missing")?;
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| format!("--{option} has no value"))?;
        let bad = || format!("--{name}={value}");
        let duration = || -> Result<i64, String> {
            let signed: jiff::SignedDuration = value.parse().map_err(|_| bad())?;
            i64::try_from(signed.as_nanos()).map_err(|_| bad())
        };
        match name {
            "interval" => check.interval = duration()?,
            "timeout" => check.timeout = duration()?,
            "start-period" => check.start_period = duration()?,
            "start-interval" => check.start_interval = duration()?,
            "retries" => check.retries = value.parse().map_err(|_| bad())?,
            _ => return Err(format!("--{name} is not an option of it")),
        }
        rest = after.trim_start();
    }
    let (kind, command_text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = match (kind.to_ascii_uppercase().as_str(), command_text.trim()) {
        ("NONE", "") => vec!["NONE".into()],
        ("CMD", text) if !text.is_empty() => match array(text) {
            Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
            None => vec![
                "CMD-SHELL".into(),
                command(config, text).pop().unwrap_or_default(),
            ],
        },
        _ => return Err("it is NONE, or [OPTIONS] CMD command".into()),
    };
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn applied(texts: &[&str]) -> ContainerConfig {
        let mut config = ContainerConfig::default();
        for text in texts {
            apply(&mut config, text).expect(text);
        }
        config
    }

    #[test]
    fn instructions_change_the_config_as_in_a_dockerfile() {
        let config = applied(&[
            r#"CMD ["a", "b c"]"#,
            "entrypoint run it",
            r#"ENV A=1 B="two words" C=x\ y"#,
            "ENV D with blanks",
            "ENV A=2",
            r#"LABEL "com.example"='x y'"#,
            "EXPOSE 80 53/udp 1000-1002",
            "ONBUILD RUN true",
            "STOPSIGNAL SIGINT",
            "USER 1000:100",
            r#"VOLUME ["/data", "/with blank"]"#,
            "VOLUME /a /b",
            "WORKDIR /srv",
            "WORKDIR app",
            "HEALTHCHECK --interval=5s --retries=2 CMD curl -f http://localhost",
        ]);
        let list = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(config.cmd, list(&["a", "b c"]));
        assert_eq!(config.entrypoint, list(&["/bin/sh", "-c", "run it"]));
        assert_eq!(config.env, ["A=2", "B=two words", "C=x y", "D=with blanks"]);
        assert_eq!(config.labels.get("com.example").map(String::as_str), Some("x y"));
        assert_eq!(
            config.exposed_ports.keys().collect::<Vec<_>>(),
            ["1000/tcp", "1001/tcp", "1002/tcp", "53/udp", "80/tcp"]
        );
        assert_eq!(config.on_build, ["RUN true"]);
        assert_eq!(
            (config.user.as_str(), config.working_dir.as_str()),
            ("1000:100", "/srv/app")
        );
        assert_eq!(
            config.volumes.keys().collect::<Vec<_>>(),
            ["/a", "/b", "/data", "/with blank"]
        );
        let check = config.healthcheck.expect("healthcheck");
        assert_eq!((check.interval, check.retries), (5_000_000_000, 2));
        assert_eq!(check.test, ["CMD-SHELL", "curl -f http://localhost"]);
        for bad in [
            "",
            "CMD",
            "RUN true",
            "FROM x",
            "COPY a b",
            "ENV A",
            "ENV =x",
            "ENV A='x",
            "EXPOSE 0",
            "EXPOSE 80/icmp",
            "EXPOSE 9-8",
            "STOPSIGNAL SIGNOTHING",
            "HEALTHCHECK --interval=x CMD y",
            "HEALTHCHECK CMD",
            "HEALTHCHECK NONE now",
        ] {
            let mut config = ContainerConfig::default();
            assert!(apply(&mut config, bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[A-Za-z \"'\\\\=\\[\\]/,-]{0,40}", name in "(CMD|ENV|LABEL|EXPOSE|VOLUME|HEALTHCHECK|WORKDIR) ") {
            let mut config = ContainerConfig::default();
            let _ = apply(&mut config, &(name + &text));
        }
    }
}
