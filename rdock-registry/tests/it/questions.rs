//! What a registry is asked without pulling, and told without pushing: digests, lists, referrers, deletions.

use crate::content::Content;
use crate::pushes::{tokens, user};
use crate::server::{Registry, Reply, Seen};
use crate::{quick, runtime, trial};
use libtest_mimic::Trial;
use rdock_image::manifest::media_type;
use rdock_image::{Digest, Reference};
use rdock_registry::server::FaultRule;
use rdock_registry::{Error, Listing, RegistryClient, RegistryConfig};
use serde_json::json;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("a_digest_is_asked_for_alone", a_digest_is_asked_for_alone),
        trial(
            "a_digest_is_computed_where_none_is_announced",
            a_digest_is_computed_where_none_is_announced,
        ),
        trial("a_digest_comes_from_a_mirror", a_digest_comes_from_a_mirror),
        trial("a_part_of_the_tags_is_listed", a_part_of_the_tags_is_listed),
        trial(
            "repositories_are_listed_for_users",
            repositories_are_listed_for_users,
        ),
        trial(
            "a_list_without_an_end_is_given_up",
            a_list_without_an_end_is_given_up,
        ),
        trial("manifests_and_tags_are_deleted", manifests_and_tags_are_deleted),
        trial(
            "what_refers_to_an_image_is_listed",
            what_refers_to_an_image_is_listed,
        ),
        trial(
            "without_the_api_a_tag_lists_the_referrers",
            without_the_api_a_tag_lists_the_referrers,
        ),
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

fn a_part_of_the_tags_is_listed() {
    let content = Content::new(1, 303);
    let registry = Registry::with(|options| options);
    for tag in ["0", "1", "2", "3", "4"] {
        registry.add(&content, "a", tag);
    }
    let client = RegistryClient::new(quick()).expect("a client");
    let ask = |listing: Listing| {
        runtime()
            .block_on(client.tags_of(&name(&registry, "a"), &listing))
            .expect("listed")
    };
    assert_eq!(ask(Listing::default().page_size(2)), ["0", "1", "2", "3", "4"]);
    let pages = |registry: &Registry| {
        let seen = registry.seen();
        seen.iter()
            .filter(|seen| seen.path.contains("/tags/list"))
            .count()
    };
    assert_eq!(pages(&registry), 3);
    assert_eq!(ask(Listing::default().after("2")), ["3", "4"]);
    assert_eq!(ask(Listing::default().page_size(2).most(3)), ["0", "1", "2"]);
    assert_eq!(pages(&registry), 6, "no more pages than are needed");
}

fn repositories_are_listed_for_users() {
    let content = Content::new(1, 304);
    let registry = Registry::with(tokens(300));
    for repository in ["a", "b/c", "d"] {
        registry.add(&content, repository, "1");
    }
    let ask = |config: RegistryConfig| {
        let client = RegistryClient::new(config).expect("a client");
        runtime().block_on(client.repositories(&registry.host(), &Listing::default().page_size(2)))
    };
    assert_eq!(ask(user(&registry)).expect("listed"), ["a", "b/c", "d"]);
    let nobody = ask(quick());
    assert!(matches!(nobody, Err(Error::Denied { .. })), "{nobody:?}");
    let asked: Vec<_> = registry
        .seen()
        .into_iter()
        .filter(|seen| seen.path.starts_with("/token"))
        .collect();
    assert!(
        asked
            .iter()
            .all(|seen| seen.path.contains("scope=registry%3Acatalog%3A*") && !seen.path.contains("offline")),
        "{asked:?}"
    );
}

fn a_list_without_an_end_is_given_up() {
    let again = |same: bool| {
        Registry::with(move |options| {
            let count = std::sync::atomic::AtomicUsize::new(0);
            options.script(move |seen: &Seen| {
                let next = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let last = if same { 0 } else { next };
                let link = format!("</v2/_catalog?n=1&last={last}>; rel=\"next\"");
                seen.path
                    .starts_with("/v2/_catalog")
                    .then(|| Reply::new(200, r#"{"repositories":["a"]}"#).with("link", link))
            })
        })
    };
    let registry = again(true);
    let client = RegistryClient::new(quick()).expect("a client");
    let listed = runtime().block_on(client.repositories(&registry.host(), &Listing::default()));
    assert!(matches!(listed, Err(Error::Malformed { .. })), "{listed:?}");
    let registry = again(false);
    let some = Listing::default().most(7);
    let listed = runtime().block_on(client.repositories(&registry.host(), &some));
    assert_eq!(listed.expect("seven").len(), 7);
}

fn manifests_and_tags_are_deleted() {
    let content = Content::new(1, 305);
    let registry = Registry::with(tokens(300));
    for tag in ["1", "2", "3"] {
        registry.add(&content, "a", tag);
    }
    let delete = |config: RegistryConfig, rest: &str| {
        let client = RegistryClient::new(config).expect("a client");
        runtime().block_on(client.delete(&name(&registry, rest)))
    };
    let nobody = delete(quick(), "a:1");
    assert!(matches!(nobody, Err(Error::Denied { .. })), "{nobody:?}");
    delete(user(&registry), "a:1").expect("deleted");
    assert_eq!(registry.tag("a", "1"), None);
    assert_eq!(registry.tag("a", "2"), Some(content.digest()), "the others stay");
    let gone = delete(user(&registry), "a:1");
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
    delete(user(&registry), &format!("a@{}", content.digest())).expect("deleted");
    assert_eq!((registry.tag("a", "2"), registry.tag("a", "3")), (None, None));
    // Many registries delete no tags.
    let registry = Registry::plain(&content);
    let refused = rdock_registry::server::Fault::Status(405, None);
    registry.set_faults(vec![FaultRule::new(refused).on_method("DELETE")]);
    let client = RegistryClient::new(quick()).expect("a client");
    let refused = runtime().block_on(client.delete(&name(&registry, "a:1")));
    assert!(
        matches!(refused, Err(Error::Status { status: 405, .. })),
        "{refused:?}"
    );
}

/// A manifest that refers to another one.
fn artifact(kind: &str, subject: &Content) -> String {
    let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::sha256_of(b"{}"), "size": 2});
    json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": kind,
        "config": empty, "layers": [empty],
        "subject": {"mediaType": media_type::DOCKER_MANIFEST, "digest": subject.digest(), "size": subject.manifest.len()},
    })
    .to_string()
}

fn kinds(registry: &Registry, wanted: Option<&str>) -> Result<Vec<String>, Error> {
    let client = RegistryClient::new(quick()).expect("a client");
    let found = runtime().block_on(client.referrers(&name(registry, "a:1"), wanted))?;
    let kind = |entry: &rdock_image::Descriptor| {
        entry.other["artifactType"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let mut kinds: Vec<_> = found.iter().map(kind).collect();
    kinds.sort();
    Ok(kinds)
}

fn what_refers_to_an_image_is_listed() {
    let content = Content::new(1, 306);
    let registry = Registry::plain(&content);
    assert!(kinds(&registry, None).expect("listed").is_empty());
    for kind in ["x/signature", "x/sbom"] {
        let artifact = artifact(kind, &content);
        registry
            .put_manifest(
                "a",
                kind.trim_start_matches("x/"),
                media_type::OCI_MANIFEST,
                artifact.as_bytes(),
            )
            .expect("written");
    }
    assert_eq!(kinds(&registry, None).expect("listed"), ["x/sbom", "x/signature"]);
    assert_eq!(kinds(&registry, Some("x/sbom")).expect("listed"), ["x/sbom"]);
    // One that gives all, in two pages, whatever is asked for.
    let page = |kind: &str| {
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [
            {"mediaType": media_type::OCI_MANIFEST, "digest": Digest::sha256_of(kind.as_bytes()), "size": 3, "artifactType": kind}]})
        .to_string()
    };
    let (first, second) = (page("x/signature"), page("x/sbom"));
    let registry = Registry::start(&content, move |seen| {
        let at = seen.path.find("/referrers/")?;
        let link = format!("</v2/a{}&page=2>; rel=\"next\"", &seen.path[at..]);
        Some(match seen.path.contains("page=2") {
            true => Reply::new(200, second.as_bytes()),
            false => Reply::new(200, first.as_bytes()).with("link", link),
        })
    });
    assert_eq!(kinds(&registry, Some("x/sbom")).expect("listed"), ["x/sbom"]);
    let error = {
        let client = RegistryClient::new(quick()).expect("a client");
        runtime().block_on(client.referrers(&name(&registry, "a:none"), None))
    };
    assert!(matches!(error, Err(Error::NotFound { .. })), "{error:?}");
}

fn without_the_api_a_tag_lists_the_referrers() {
    let content = Content::new(1, 307);
    let registry = Registry::start(&content, |seen| {
        seen.path
            .contains("/referrers/")
            .then(|| Reply::new(404, "404 page not found"))
    });
    assert!(kinds(&registry, None).expect("nothing").is_empty());
    let artifact = artifact("x/sbom", &content);
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [
        {"mediaType": media_type::OCI_MANIFEST, "digest": Digest::sha256_of(artifact.as_bytes()), "size": artifact.len(),
         "artifactType": "x/sbom"}]});
    let tag = content.digest().to_string().replace(':', "-");
    registry
        .put_manifest("a", &tag, media_type::OCI_INDEX, index.to_string().as_bytes())
        .expect("written");
    assert_eq!(kinds(&registry, None).expect("listed"), ["x/sbom"]);
    assert!(kinds(&registry, Some("x/other")).expect("listed").is_empty());
}
