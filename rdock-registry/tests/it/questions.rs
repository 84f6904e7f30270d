//! What a registry is asked without pulling: the digest of a name.

use crate::content::Content;
use crate::server::{Registry, Reply};
use crate::{quick, runtime, trial};
use libtest_mimic::Trial;
use rdock_image::{Digest, Reference};
use rdock_registry::{Error, RegistryClient, RegistryConfig};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("a_digest_is_asked_for_alone", a_digest_is_asked_for_alone),
        trial(
            "a_digest_is_computed_where_none_is_announced",
            a_digest_is_computed_where_none_is_announced,
        ),
        trial("a_digest_comes_from_a_mirror", a_digest_comes_from_a_mirror),
    ]
}

fn name(registry: &Registry, rest: &str) -> Reference {
    Reference::parse(&format!("{}/{rest}", registry.host())).expect("a name")
}

fn resolve(config: RegistryConfig, reference: &Reference) -> Result<Digest, Error> {
    let client = RegistryClient::new(config).expect("a client");
    runtime().block_on(client.resolve_digest(reference))
}

fn a_digest_is_asked_for_alone() {
    let content = Content::new(1, 300);
    let registry = Registry::plain(&content);
    let digest = resolve(quick(), &name(&registry, "a:1")).expect("resolved");
    assert_eq!(digest, content.digest());
    let seen = registry.seen();
    assert!(
        seen.iter().all(|seen| seen.method == "HEAD"),
        "only asked for: {seen:?}"
    );
    let by_digest = name(&registry, &format!("a@{digest}"));
    assert_eq!(resolve(quick(), &by_digest).expect("there"), digest);
    for missing in ["a:none", "none:1", &format!("a@sha256:{}", "0".repeat(64))] {
        let error = resolve(quick(), &name(&registry, missing)).expect_err("missing");
        assert!(matches!(error, Error::NotFound { .. }), "{missing}: {error:?}");
    }
    // One that calls everything by the same digest.
    let other = Digest::sha256_of(b"other");
    let liar = Registry::with(|options| {
        let announced = other.to_string();
        options.script(move |_| Some(Reply::new(200, "").with("docker-content-digest", &announced)))
    });
    let error = resolve(quick(), &name(&liar, &format!("a@{digest}"))).expect_err("another one");
    assert!(matches!(error, Error::WrongDigest { .. }), "{error:?}");
}

fn a_digest_is_computed_where_none_is_announced() {
    let content = Content::new(1, 301);
    for status in [200, 405] {
        let registry = Registry::start(&content, move |seen| {
            (seen.method == "HEAD").then(|| Reply::new(status, ""))
        });
        let digest = resolve(quick(), &name(&registry, "a:1")).expect("resolved");
        assert_eq!(digest, content.digest(), "{status}");
    }
}

fn a_digest_comes_from_a_mirror() {
    let content = Content::new(1, 302);
    let mirror = Registry::plain(&content);
    let empty = Registry::with(|options| options);
    let mut config = quick();
    config.registries.add_mirror("docker.io", &empty.host(), true);
    config.registries.add_mirror("docker.io", &mirror.host(), true);
    let digest = resolve(config, &Reference::parse("mysql:8").expect("a name")).expect("resolved");
    assert_eq!(digest, content.digest());
    assert!(!empty.seen().is_empty(), "the first mirror is asked first");
}
