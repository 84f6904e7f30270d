//! What builds take from the host, whichever command builds: its proxies, and the moment that counts as now.

use crate::Failure;
use crate::streams::say;
use rdock_build::Builder;
use serde_json::Value;
use std::path::PathBuf;

/// The proxies of docker's `config.json`, as RUN and ADD have them, and the variables that hold them.
const PROXIES: [(&str, &str); 5] = [
    ("httpProxy", "HTTP_PROXY"),
    ("httpsProxy", "HTTPS_PROXY"),
    ("ftpProxy", "FTP_PROXY"),
    ("allProxy", "ALL_PROXY"),
    ("noProxy", "NO_PROXY"),
];

/// Everything, for builds whose caller has no way to fail; what is wrong is said instead.
pub(crate) fn of_host(builder: Builder) -> Builder {
    let builder = proxies(builder);
    match epoch() {
        Ok(Some(seconds)) => builder.source_date_epoch(seconds),
        Ok(None) => builder,
        Err(failure) => {
            say(&format!("WARNING: {}", failure.message));
            builder
        }
    }
}

/// Downloads of ADD go through the proxies that the environment names; as with docker, RUN sees only those of
/// `config.json`, which count for both.
pub(crate) fn proxies(builder: Builder) -> Builder {
    let builder = builder.proxies_from_environment();
    match configured() {
        Ok(found) => builder.proxy_variables(found),
        Err(why) => {
            // As docker: whoever needs them sees that they are missing.
            say(&format!("WARNING: {why}"));
            builder
        }
    }
}

/// `SOURCE_DATE_EPOCH`, in seconds since 1970.
pub(crate) fn epoch() -> Result<Option<i64>, Failure> {
    let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    let wrong = |_| Failure::new(format!("SOURCE_DATE_EPOCH={text:?} is no number of seconds"));
    text.parse().map(Some).map_err(wrong)
}

fn configured() -> Result<Vec<(String, String)>, String> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let dir = variable("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".docker")));
    let Some(path) = dir.map(|dir| dir.join("config.json")) else {
        return Ok(Vec::new());
    };
    let wrong = |why: String| format!("the proxies of {} are not used: {why}", path.display());
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let config: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    // Others are for daemons by their addresses, and there is none.
    let Some(proxies) = config.get("proxies").and_then(|proxies| proxies.get("default")) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for (key, name) in PROXIES {
        match proxies.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::String(value)) if value.is_empty() => {}
            Some(Value::String(value)) => found.push((name.to_owned(), value.clone())),
            Some(_) => return Err(wrong(format!("{key} is no text"))),
        }
    }
    Ok(found)
}
