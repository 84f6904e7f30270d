//! Copies from one registry to another, and how many pulls a registry allows.

use crate::content::Content;
use crate::pushes::{empty, sent, tokens, user};
use crate::server::{Registry, Reply, cut_after};
use crate::{quick, runtime, trial};
use libtest_mimic::Trial;
use rdock_image::manifest::media_type;
use rdock_image::{Digest, Index, Reference};
use rdock_registry::{Error, PushEvent, PushProgress, Pushed, RegistryClient, RegistryConfig};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial(
            "an_index_is_copied_with_all_its_images",
            an_index_is_copied_with_all_its_images,
        ),
        trial(
            "a_copy_within_a_registry_sends_nothing",
            a_copy_within_a_registry_sends_nothing,
        ),
        trial("a_cut_copy_goes_on", a_cut_copy_goes_on),
        trial(
            "a_copy_of_other_bytes_is_refused",
            a_copy_of_other_bytes_is_refused,
        ),
        trial("a_copy_has_its_own_users", a_copy_has_its_own_users),
        trial("a_pull_limit_is_asked_for", a_pull_limit_is_asked_for),
    ]
}

fn copy(config: RegistryConfig, source: &str, target: &str) -> (Result<Pushed, Error>, Vec<PushEvent>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = events.clone();
    let progress = PushProgress::new(move |event| told.lock().expect("not poisoned").push(event));
    let client = RegistryClient::new(config).expect("a client");
    let name = |text: &str| Reference::parse(text).expect("a name");
    let copied = runtime().block_on(client.copy(&name(source), &name(target), &progress));
    let events = events.lock().expect("not poisoned").clone();
    (copied, events)
}

/// A registry with an index `both:1` of two images, and a further index in it.
fn index() -> (Registry, [Content; 2], Digest) {
    let contents = [Content::new(2, 400), Content::new(1, 401)];
    let registry = empty();
    for (content, tag) in contents.iter().zip(["x", "y"]) {
        registry.add(content, "both", tag);
    }
    let entry = |content: &Content| {
        json!({"mediaType": media_type::DOCKER_MANIFEST, "digest": content.digest(), "size": content.manifest.len(),
            "platform": {"os": "linux", "architecture": "amd64"}})
    };
    let inner =
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [entry(&contents[1])]});
    let inner = inner.to_string().into_bytes();
    let inner_digest = registry
        .put_manifest("both", "inner", media_type::OCI_INDEX, &inner)
        .expect("written");
    let outer = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "org.example": 1, "manifests": [
        entry(&contents[0]),
        {"mediaType": media_type::OCI_INDEX, "digest": inner_digest, "size": inner.len()},
        entry(&contents[1]),
    ]});
    let outer = outer.to_string().into_bytes();
    let digest = registry
        .put_manifest("both", "1", media_type::OCI_INDEX, &outer)
        .expect("written");
    (registry, contents, digest)
}

fn an_index_is_copied_with_all_its_images() {
    let (from, contents, digest) = index();
    let to = empty();
    let (source, target) = (format!("{}/both:1", from.host()), format!("{}/c/d:2", to.host()));
    let (copied, events) = copy(quick(), &source, &target);
    let copied = copied.expect("copied");
    assert_eq!((&copied.digest, &copied.id), (&digest, &digest), "byte for byte");
    assert_eq!(to.tag("c/d", "2"), Some(digest.clone()));
    let text = to.blob("c/d", &digest).expect("there");
    let index: Index = serde_json::from_slice(&text).expect("an index");
    assert_eq!(index.manifests.len(), 3);
    for entry in &index.manifests {
        assert!(to.blob("c/d", &entry.digest().expect("a digest")).is_some());
    }
    for content in &contents {
        assert!(to.blob("c/d", &content.digest()).is_some());
        for (digest, bytes) in content.blobs() {
            let digest = Digest::parse(&digest).expect("a digest");
            assert_eq!(to.blob("c/d", &digest).as_ref(), Some(&bytes));
        }
        assert_eq!(from.seen_of(&content.layer(0)).len(), 1, "each once");
    }
    assert!(matches!(events.last(), Some(PushEvent::Done { digest: done, .. }) if *done == digest));
    // Only the wanted name leads there.
    assert!(to.tag("c/d", "x").is_none() && to.tag("c/d", "latest").is_none());
    // Once more, by its digest: nothing is sent.
    let before = sent(&to).len();
    let (again, _) = copy(quick(), &format!("{}/both@{digest}", from.host()), &target);
    assert_eq!(again.expect("copied").digest, digest);
    assert_eq!(sent(&to).len(), before);
    // To a digest there is no way.
    let (wrong, _) = copy(quick(), &source, &format!("{}/c/d@{digest}", to.host()));
    assert!(matches!(wrong, Err(Error::Image(_))), "{wrong:?}");
}

fn a_copy_within_a_registry_sends_nothing() {
    let content = Content::new(3, 402);
    let registry = Registry::plain(&content);
    let (source, target) = (
        format!("{}/a:1", registry.host()),
        format!("{}/copies/a:1", registry.host()),
    );
    let (copied, events) = copy(quick(), &source, &target);
    assert_eq!(copied.expect("copied").digest, content.digest());
    assert_eq!(registry.tag("copies/a", "1"), Some(content.digest()));
    let mounted = |event: &&PushEvent| matches!(event, PushEvent::LayerMounted { from, .. } if from == "a");
    assert_eq!(events.iter().filter(mounted).count(), 4, "{events:?}");
    assert!(sent(&registry).is_empty());
    let read = |seen: &&rdock_registry::server::Seen| seen.method == "GET" && seen.path.contains("/blobs/");
    assert_eq!(registry.seen().iter().filter(read).count(), 0);
}

fn a_cut_copy_goes_on() {
    let content = Content::new(1, 403);
    let (layer, blob) = (content.layer(0), content.layers[0].clone());
    let from = Registry::start(&content, move |seen| {
        let first = seen.is_blob(&layer) && seen.method == "GET" && seen.before == 0;
        first.then(|| cut_after(&blob, 100_000))
    });
    let to = empty();
    let (copied, _) = copy(
        quick(),
        &format!("{}/a:1", from.host()),
        &format!("{}/a:1", to.host()),
    );
    assert_eq!(copied.expect("copied").digest, content.digest());
    assert_eq!(to.blob("a", &content.layer(0)).as_ref(), Some(&content.layers[0]));
    let ranges: Vec<_> = from.seen_of(&content.layer(0));
    let ranges: Vec<_> = ranges.iter().map(|seen| seen.range.as_deref()).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-")]);
}

fn a_copy_of_other_bytes_is_refused() {
    let content = Content::new(1, 404);
    let (layer, mut blob) = (content.layer(0), content.layers[0].clone());
    blob[1000] ^= 1;
    let from = Registry::start(&content, move |seen| {
        (seen.is_blob(&layer) && seen.method == "GET").then(|| Reply::new(200, blob.clone()))
    });
    let to = empty();
    let (copied, _) = copy(
        quick(),
        &format!("{}/a:1", from.host()),
        &format!("{}/a:1", to.host()),
    );
    assert!(matches!(copied, Err(Error::WrongDigest { .. })), "{copied:?}");
    assert!(to.tag("a", "1").is_none() && to.blob("a", &content.layer(0)).is_none());
}

fn a_copy_has_its_own_users() {
    let content = Content::new(1, 405);
    let from = Registry::plain(&content);
    let to = Registry::with(tokens(300));
    let names = (format!("{}/a:1", from.host()), format!("{}/me/a:1", to.host()));
    let (refused, _) = copy(quick(), &names.0, &names.1);
    assert!(matches!(refused, Err(Error::Denied { .. })), "{refused:?}");
    let (copied, _) = copy(user(&to), &names.0, &names.1);
    assert_eq!(copied.expect("copied").digest, content.digest());
    let leaked = from.seen().iter().any(|seen| seen.authorization.is_some());
    assert!(!leaked, "what is for one registry goes to no other");
}

fn a_pull_limit_is_asked_for() {
    let content = Content::new(1, 406);
    let limited = Registry::start(&content, move |seen| {
        let answer = || {
            Reply::new(200, "")
                .with("ratelimit-limit", "100;w=21600")
                .with("ratelimit-remaining", "76;w=21600")
                .with("docker-ratelimit-source", "192.0.2.7")
        };
        (seen.is_manifest() && seen.method == "HEAD").then(answer)
    });
    let ask = |registry: &Registry| {
        let client = RegistryClient::new(quick()).expect("a client");
        let name = Reference::parse(&format!("{}/a:1", registry.host())).expect("a name");
        runtime().block_on(client.pull_limit(&name)).expect("an answer")
    };
    let limit = ask(&limited).expect("it says so");
    assert_eq!((limit.remaining, limit.limit), (76, Some(100)));
    assert_eq!(limit.window, Some(Duration::from_secs(6 * 3600)));
    assert_eq!(limit.counted_for.as_deref(), Some("192.0.2.7"));
    let methods: Vec<_> = limited.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["HEAD"], "a GET would use one up");
    assert_eq!(ask(&Registry::plain(&content)), None);
}
