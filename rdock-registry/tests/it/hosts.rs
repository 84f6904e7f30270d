//! Mirrors and certificates that a `hosts.toml` names.

use crate::content::Content;
use crate::pushes::make;
use crate::real::certificates::Certificates;
use crate::server::Registry;
use crate::{Cannot, Host, push_with, quick, trial, trial_if};
use libtest_mimic::Trial;
use rdock_registry::{Error, RegistryConfig};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial(
            "a_mirror_of_hosts_toml_is_asked_first",
            a_mirror_of_hosts_toml_is_asked_first,
        ),
        trial(
            "a_mirror_is_asked_for_what_it_can_do",
            a_mirror_is_asked_for_what_it_can_do,
        ),
        trial(
            "a_push_goes_where_hosts_toml_allows_it",
            a_push_goes_where_hosts_toml_allows_it,
        ),
        trial(
            "headers_of_hosts_toml_go_to_their_host_alone",
            headers_of_hosts_toml_go_to_their_host_alone,
        ),
        trial_if(
            "certificates_of_hosts_toml_count",
            certificates_of_hosts_toml_count,
        ),
    ]
}

/// A configuration with this hosts.toml for a registry; the folder lives as long as the value beside it.
fn with(registry: &str, text: &str) -> (RegistryConfig, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(dir.path().join(registry)).expect("made");
    std::fs::write(dir.path().join(registry).join("hosts.toml"), text).expect("written");
    let mut config = quick();
    config.certificate_dirs = vec![dir.path().to_owned()];
    (config, dir)
}

fn empty() -> Registry {
    Registry::with(|options| options)
}

fn a_mirror_of_hosts_toml_is_asked_first() {
    let content = Content::new(2, 330);
    let (first, second) = (empty(), Registry::plain(&content));
    let text = format!(
        "[host.\"http://{}\"]\n[host.\"http://{}\"]\n",
        first.host(),
        second.host()
    );
    let (config, _dir) = with("docker.io", &text);
    let host = Host::new();
    let image = host.pull(config, "mysql:8").expect("pulled");
    assert_eq!(image.manifest_digest(), &content.digest());
    let asked = first.seen();
    assert!(
        !asked.is_empty() && asked.iter().all(|seen| seen.is_manifest()),
        "{asked:?}"
    );
    // A mirror of everything needs to know whose images are meant.
    assert!(
        second
            .seen()
            .iter()
            .all(|seen| seen.path.ends_with("?ns=docker.io")),
        "{:?}",
        second.seen()
    );
}

fn a_mirror_is_asked_for_what_it_can_do() {
    let content = Content::new(1, 331);
    let (mirror, own) = (Registry::plain(&content), Registry::plain(&content));
    for (capability, of_mirror, of_own) in [
        ("\"pull\"", "content", "names"),
        ("\"pull\", \"resolve\"", "both", "nothing"),
        ("\"push\"", "nothing", "both"),
    ] {
        let text = format!(
            "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [{capability}]\n",
            own.host(),
            mirror.host()
        );
        let (config, _dir) = with("docker.io", &text);
        let before = [mirror.seen().len(), own.seen().len()];
        let image = Host::new().pull(config, "mysql:8").expect("pulled");
        assert_eq!(image.manifest_digest(), &content.digest());
        for ((registry, before), expected) in [&mirror, &own].into_iter().zip(before).zip([of_mirror, of_own])
        {
            let seen = registry.seen().split_off(before);
            let named = seen.iter().any(|seen| seen.path.contains("/manifests/8"));
            let content = seen.iter().any(|seen| seen.path.contains("/blobs/"));
            let found = match (named, content) {
                (true, true) => "both",
                (true, false) => "names",
                (false, true) => "content",
                (false, false) => "nothing",
            };
            assert_eq!(found, expected, "{capability}: {seen:?}");
        }
    }
}

fn a_push_goes_where_hosts_toml_allows_it() {
    let (mirror, own) = (empty(), empty());
    let host = Host::new();
    make(&host.store, "r.example/made:1", 332);
    let write = |capabilities: &str, of_own: &str| {
        format!(
            "server = \"http://{}\"\ncapabilities = [{of_own}]\n[host.\"http://{}\"]\ncapabilities = [{capabilities}]\n",
            own.host(),
            mirror.host()
        )
    };
    let (config, _dir) = with("r.example", &write("\"pull\"", "\"pull\", \"push\""));
    push_with(&host.store, config, "r.example/made:1")
        .0
        .expect("pushed");
    assert!(own.tag("made", "1").is_some() && mirror.seen().is_empty());
    let (config, _dir) = with("r.example", &write("\"push\"", "\"push\""));
    push_with(&host.store, config, "r.example/made:1")
        .0
        .expect("pushed");
    assert!(mirror.tag("made", "1").is_some());
    let (config, _dir) = with("r.example", &write("\"pull\"", "\"pull\""));
    let (refused, _) = push_with(&host.store, config, "r.example/made:1");
    assert!(
        matches!(&refused, Err(Error::ReadOnly { registry }) if registry == "r.example"),
        "{refused:?}"
    );
    // What registries.conf says comes first.
    let (mut config, _dir) = with(&own.host(), "capabilities = [\"pull\"]\n");
    make(&host.store, &format!("{}/made:2", own.host()), 333);
    config.registries.set_insecure(&own.host());
    push_with(&host.store, config, &format!("{}/made:2", own.host()))
        .0
        .expect("pushed");
}

fn headers_of_hosts_toml_go_to_their_host_alone() {
    let content = Content::new(1, 334);
    let storage = Registry::plain(&content);
    let elsewhere = storage.host();
    let mirror = Registry::start(&content, move |seen| {
        let blob = seen.path.contains("/blobs/");
        blob.then(|| {
            let target = format!("http://{elsewhere}{}", seen.path);
            crate::server::Reply::new(307, "").with("location", target)
        })
    });
    let text = format!(
        "[host.\"http://{0}/\"]\n[host.\"http://{0}/\".header]\nX-Key = [\"secret\"]\nauthorization = \"Bearer own\"\n",
        mirror.host()
    );
    let (config, _dir) = with("docker.io", &text);
    Host::new().pull(config, "mysql:8").expect("pulled");
    let has = |registry: &Registry| {
        let seen = registry.seen();
        let count = |name: &str| seen.iter().filter(|seen| seen.headers.contains_key(name)).count();
        (seen.len(), count("x-key"), count("authorization"))
    };
    let (all, keys, authorized) = has(&mirror);
    assert!(all > 2 && keys == all && authorized == all);
    let (all, keys, authorized) = has(&storage);
    assert!(all > 0 && keys == 0 && authorized == 0);
    assert_eq!(mirror.seen()[0].authorization.as_deref(), Some("Bearer own"));
}

fn certificates_of_hosts_toml_count() -> Result<(), Cannot> {
    let certificates = Certificates::make()?;
    let read = |name: &str| std::fs::read(certificates.path(name)).expect("read");
    let content = Content::new(1, 335);
    let registry = Registry::with(|mut options| {
        options.tls = Some((read("server.crt"), read("server.key")));
        options
    });
    registry.add(&content, "a", "1");
    let server = format!("server = \"https://{}\"\n", registry.host());
    let ca = format!("ca = \"{}\"\n", certificates.path("ca.crt").display());
    let pull = |text: &str| {
        let (config, _dir) = with("r.example", text);
        Host::new().pull(config, "r.example/a:1")
    };
    let unknown = pull(&server).expect_err("unknown authority");
    assert!(
        matches!(&unknown, Error::Transport { .. }) && !unknown.is_transient(),
        "{unknown:?}"
    );
    for known in [&ca, "skip_verify = true\n"] {
        let image = pull(&format!("{server}{known}")).expect(known);
        assert_eq!(image.manifest_digest(), &content.digest());
    }
    // Of a mirror it says nothing about the registry.
    let other = pull(&format!("{server}[host.\"https://127.0.0.1:1\"]\n{ca}"));
    assert!(matches!(other, Err(Error::Transport { .. })), "{other:?}");
    Ok(())
}
