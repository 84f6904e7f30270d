//! Logging in and out, and where the credentials are kept.

use crate::server::Registry;
use crate::{quick, runtime, trial};
use libtest_mimic::Trial;
use rdock_registry::server::Access;
use rdock_registry::{Credential, Credentials, Error, Login, RegistryClient, RegistryConfig};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("a_login_is_verified_and_kept", a_login_is_verified_and_kept),
        trial(
            "a_wrong_password_is_refused_and_nothing_is_kept",
            a_wrong_password_is_refused_and_nothing_is_kept,
        ),
        trial(
            "a_refresh_token_is_kept_instead_of_the_password",
            a_refresh_token_is_kept_instead_of_the_password,
        ),
        trial(
            "a_helper_keeps_what_it_is_named_for",
            a_helper_keeps_what_it_is_named_for,
        ),
        trial(
            "a_helper_that_cannot_keep_is_an_error",
            a_helper_that_cannot_keep_is_an_error,
        ),
        trial("the_hub_has_dockers_key", the_hub_has_dockers_key),
        trial("no_secret_is_shown", no_secret_is_shown),
    ]
}

fn users() -> BTreeMap<String, String> {
    BTreeMap::from([("u".to_owned(), "p".to_owned())])
}

fn basic() -> Registry {
    Registry::with(|mut options| {
        options.access = Access::Basic(users());
        options
    })
}

fn at(dir: &Path) -> RegistryConfig {
    let mut config = RegistryConfig::load(None, Some(&dir.join("config.json")), None).expect("valid");
    let plain = quick();
    (config.idle_timeout, config.retries) = (plain.idle_timeout, plain.retries);
    config.docker_config = Some(dir.join("config.json"));
    config.credentials.helper_path = Some(dir.into());
    config
}

fn login(config: RegistryConfig, registry: &str, password: &str) -> Result<Login, Error> {
    let mut client = RegistryClient::new(config)?;
    runtime().block_on(client.login(registry, "u", password))
}

fn a_login_is_verified_and_kept() {
    let registry = basic();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let host = registry.host();
    let kept = login(at(dir.path()), &format!("http://{host}/v2/"), "p").expect("logged in");
    assert_eq!(kept, Login::File(dir.path().join("config.json")));
    let text = std::fs::read_to_string(dir.path().join("config.json")).expect("written");
    let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(found["auths"][&host], serde_json::json!({"auth": "dTpw"}));
    let mut client = RegistryClient::new(at(dir.path())).expect("a client");
    assert!(runtime().block_on(client.is_logged_in(&host)).expect("asked"));
    assert!(runtime().block_on(client.logout(&host)).expect("logged out"));
    assert!(!runtime().block_on(client.logout(&host)).expect("nothing to do"));
    assert!(!runtime().block_on(client.is_logged_in(&host)).expect("asked"));
    let text = std::fs::read_to_string(dir.path().join("config.json")).expect("written");
    assert!(!text.contains("dTpw"), "{text}");
}

fn a_wrong_password_is_refused_and_nothing_is_kept() {
    let token = Registry::with(|mut options| {
        options.access = Access::Token {
            users: users(),
            lifetime: Duration::from_secs(60),
            anonymous: true,
        };
        options
    });
    for registry in [basic(), token] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let error = login(at(dir.path()), &registry.host(), "wrong-secret").expect_err("refused");
        assert!(matches!(error, Error::Denied { .. }), "{error:?}");
        let shown = format!(
            "{error} {error:?} {:?}",
            std::error::Error::source(&error).map(ToString::to_string)
        );
        assert!(
            !shown.contains("wrong-secret") && !shown.contains("Basic "),
            "{shown}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).expect("a list").count(), 0);
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let error = login(at(dir.path()), "127.0.0.1:1", "p").expect_err("nobody listens");
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a list").count(), 0);
}

fn a_refresh_token_is_kept_instead_of_the_password() {
    let registry = Registry::with(|mut options| {
        options.access = Access::Token {
            users: users(),
            lifetime: Duration::from_secs(60),
            anonymous: false,
        };
        options
    });
    let content = crate::content::Content::new(1, 140);
    registry.add(&content, "a", "1");
    let dir = tempfile::tempdir().expect("a temporary directory");
    login(at(dir.path()), &registry.host(), "p").expect("logged in");
    let text = std::fs::read_to_string(dir.path().join("config.json")).expect("written");
    let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let entry = &found["auths"][registry.host()];
    assert!(entry["identitytoken"].is_string(), "{text}");
    // `u:` alone, as docker has it.
    assert_eq!(entry["auth"], "dTo=");
    let host = crate::Host::new();
    host.pull(at(dir.path()), &format!("{}/a:1", registry.host()))
        .expect("pulled with it");
}

/// A helper that keeps one file a server; a `broken` one says no.
fn helper(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(format!("docker-credential-{name}"));
    let script = r#"#!/bin/sh
dir=$(dirname "$0")/kept; mkdir -p "$dir"
case $(basename "$0") in *broken) echo "the vault is locked"; exit 1;; esac
name() { echo "$1" | tr -c 'a-zA-Z0-9\n' _; }
case $1 in
store) entry=$(cat); server=$(echo "$entry" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); echo "$entry" >"$dir/$(name "$server")";;
get) read -r server; cat "$dir/$(name "$server")" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; };;
erase) read -r server; rm "$dir/$(name "$server")" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; };;
esac
"#;
    // Written by another process: a file that a child forked meanwhile still has open for writing cannot be run.
    let mut writer = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh");
    writer
        .stdin
        .take()
        .expect("a pipe")
        .write_all(script.as_bytes())
        .expect("written");
    assert!(writer.wait().expect("waited").success());
    path
}

fn a_helper_keeps_what_it_is_named_for() {
    let registry = basic();
    let dir = tempfile::tempdir().expect("a temporary directory");
    helper(dir.path(), "test");
    for text in [
        format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, registry.host()),
        r#"{"credsStore":"test"}"#.to_owned(),
    ] {
        std::fs::write(dir.path().join("config.json"), text).expect("written");
        let kept = login(at(dir.path()), &registry.host(), "p").expect("logged in");
        assert_eq!(kept, Login::Helper("test".into()));
        let text = std::fs::read_to_string(dir.path().join("config.json")).expect("written");
        assert!(
            !text.contains("dTpw") && text.contains(&registry.host()),
            "{text}"
        );
        let (found, _) = at(dir.path()).credentials.find(&registry.host());
        assert_eq!(
            found,
            Credential::Basic {
                user: "u".into(),
                password: "p".into()
            }
        );
        let mut client = RegistryClient::new(at(dir.path())).expect("a client");
        assert!(
            runtime()
                .block_on(client.logout(&registry.host()))
                .expect("logged out")
        );
        assert_eq!(
            at(dir.path()).credentials.find(&registry.host()).0,
            Credential::Anonymous
        );
    }
}

fn a_helper_that_cannot_keep_is_an_error() {
    let registry = basic();
    let dir = tempfile::tempdir().expect("a temporary directory");
    helper(dir.path(), "broken");
    std::fs::write(dir.path().join("config.json"), r#"{"credsStore":"broken"}"#).expect("written");
    let error = login(at(dir.path()), &registry.host(), "p").expect_err("not kept");
    assert!(
        matches!(&error, Error::Helper { reason, .. } if reason.contains("vault is locked")),
        "{error:?}"
    );
    let text = std::fs::read_to_string(dir.path().join("config.json")).expect("there");
    assert_eq!(text, r#"{"credsStore":"broken"}"#, "nothing was changed");
    // A pull of what everyone may have goes on, with a warning.
    let content = crate::content::Content::new(1, 141);
    let open = Registry::plain(&content);
    let host = crate::Host::new();
    host.pull(at(dir.path()), &format!("{}/a:1", open.host()))
        .expect("pulled");
    let warned = |event: &rdock_image::Event| matches!(event, rdock_image::Event::Warning { text } if text.contains("vault"));
    assert!(host.events().iter().any(warned));
}

fn the_hub_has_dockers_key() {
    let registry = basic();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let conf = dir.path().join("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"{}\"\n",
        registry.host()
    );
    std::fs::write(&conf, text).expect("written");
    let mut config = at(dir.path());
    config.registries = rdock_registry::RegistriesConf::read(&conf).expect("valid");
    login(config, "docker.io", "p").expect("logged in where docker.io is");
    let text = std::fs::read_to_string(dir.path().join("config.json")).expect("written");
    let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(found["auths"]["https://index.docker.io/v1/"]["auth"], "dTpw");
    let read = Credentials::parse(text.as_bytes(), false).expect("valid");
    for name in ["docker.io", "index.docker.io", "docker.io/library/mysql"] {
        assert!(matches!(read.find(name).0, Credential::Basic { .. }), "{name}");
    }
}

/// Whatever is printed of configurations, errors and events has no password and no token in it.
fn no_secret_is_shown() {
    let registry = Registry::with(|mut options| {
        options.access = Access::Token {
            users: BTreeMap::from([("u".to_owned(), "pass-secret".to_owned())]),
            lifetime: Duration::from_secs(60),
            anonymous: false,
        };
        options
    });
    let content = crate::content::Content::new(1, 142);
    registry.add(&content, "a", "1");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut shown = Vec::new();
    login(at(dir.path()), &registry.host(), "pass-secret").expect("logged in");
    let text = std::fs::read_to_string(dir.path().join("config.json")).expect("written");
    let saved: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let refresh = saved["auths"][registry.host()]["identitytoken"]
        .as_str()
        .expect("a token")
        .to_owned();
    let mut basic = quick();
    let credential = Credential::Basic {
        user: "u".into(),
        password: "pass-secret".into(),
    };
    basic.credentials.set(&registry.host(), credential);
    basic.proxies.http = Some("http://me:pass-secret@proxy.example:3128".into());
    for config in [at(dir.path()), basic] {
        shown.push(format!("{config:?}"));
        let client = RegistryClient::new(config.clone()).expect("a client");
        shown.push(format!("{client:?}"));
        let host = crate::Host::new();
        host.pull(config.clone(), &format!("{}/a:1", registry.host()))
            .expect("pulled");
        shown.extend(host.events().iter().map(|event| format!("{event:?}")));
        let image = crate::pushes::make(&host.store, &format!("{}/b:1", registry.host()), 143);
        let (pushed, events) = crate::push_with(&host.store, config.clone(), image.references()[0].as_str());
        shown.push(format!("{pushed:?}"));
        shown.extend(events.iter().map(|event| format!("{event:?}")));
        for status in [401, 403, 500] {
            registry.set_faults(vec![rdock_registry::server::FaultRule::new(
                rdock_registry::server::Fault::Status(status, None),
            )]);
            let mut config = config.clone();
            config.retries = 1;
            let error = host
                .pull(config, &format!("{}/a:2", registry.host()))
                .expect_err("it does not work");
            shown.extend([format!("{error:?}"), error.to_string()]);
            shown.extend(host.events().iter().map(|event| format!("{event:?}")));
            registry.set_faults(Vec::new());
        }
    }
    let bearers: Vec<_> = registry
        .seen()
        .iter()
        .filter_map(|seen| seen.authorization.clone())
        .map(|header| {
            header
                .split_once(' ')
                .map_or(String::new(), |(_, secret)| secret.to_owned())
        })
        .collect();
    assert!(!bearers.is_empty());
    for text in shown {
        for secret in bearers.iter().chain([&refresh, &"pass-secret".to_owned()]) {
            assert!(!text.contains(secret.as_str()), "{secret} is in {text}");
        }
    }
}
