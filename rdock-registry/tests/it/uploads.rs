//! Uploads that are cut, refused, held up or sent elsewhere, and what a push makes of it.

use crate::content::Content;
use crate::pushes::{empty, make, pulled, push, tag, tokens};
use crate::server::{Registry, Reply, Seen};
use crate::{Host, quick, trial};
use libtest_mimic::Trial;
use rdock_registry::server::{Access, Fault, FaultRule, ServerOptions};
use rdock_registry::{Compression, Credential, Error, PushEvent, Pushed, RegistryConfig};
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("an_upload_in_chunks", an_upload_in_chunks),
        trial("a_cut_upload_goes_on", a_cut_upload_goes_on),
        trial(
            "a_cut_upload_of_a_layer_made_here_goes_on",
            a_cut_upload_of_a_layer_made_here_goes_on,
        ),
        trial("a_lost_upload_begins_anew", a_lost_upload_begins_anew),
        trial(
            "a_token_that_runs_out_in_an_upload_is_renewed",
            a_token_that_runs_out_in_an_upload_is_renewed,
        ),
        trial("a_busy_registry_is_asked_again", a_busy_registry_is_asked_again),
        trial(
            "an_origin_that_lies_is_not_believed",
            an_origin_that_lies_is_not_believed,
        ),
        trial("a_refused_push_is_typed", a_refused_push_is_typed),
        trial(
            "a_registry_that_takes_nothing_is_given_up",
            a_registry_that_takes_nothing_is_given_up,
        ),
        trial(
            "an_upload_elsewhere_gets_no_credentials",
            an_upload_elsewhere_gets_no_credentials,
        ),
    ]
}

/// Pushes a pulled image to a registry with faults.
fn through(
    seed: u64,
    config: RegistryConfig,
    options: impl FnOnce(ServerOptions) -> ServerOptions,
) -> (Content, Registry, Result<Pushed, Error>, Vec<PushEvent>) {
    let content = Content::new(1, seed);
    let from = Registry::plain(&content);
    let to = Registry::with(options);
    let host = pulled(&from);
    let name = format!("{}/b:1", to.host());
    tag(&host.store, &format!("{}/a:1", from.host()), &name);
    let mut config = config;
    if let (credential @ Credential::Basic { .. }, _) = config.credentials.find("everywhere") {
        config.credentials.set(&to.host(), credential);
    }
    let (pushed, events) = push(&host, config, &name);
    (content, to, pushed, events)
}

fn assert_complete(content: &Content, to: &Registry, pushed: Result<Pushed, Error>) {
    assert_eq!(pushed.expect("pushed").digest, content.digest());
    assert_eq!(to.blob("b", &content.layer(0)).as_ref(), Some(&content.layers[0]));
}

fn patches_of(registry: &Registry) -> Vec<Seen> {
    let mut seen = registry.seen();
    seen.retain(|one| one.method == "PATCH");
    seen
}

fn an_upload_in_chunks() {
    let mut config = quick();
    config.chunk_size = Some(64 << 10);
    let (content, to, pushed, _) = through(106, config, |options| options);
    assert_complete(&content, &to, pushed);
    let patches = patches_of(&to);
    assert_eq!(patches.len(), content.layers[0].len().div_ceil(64 << 10));
    assert_eq!(patches[0].content_range.as_deref(), Some("0-65535"));
    assert_eq!(patches[1].content_range.as_deref(), Some("65536-131071"));
    // Chunks that break off are resumed within themselves.
    let mut config = quick();
    config.chunk_size = Some(64 << 10);
    let cut = FaultRule::new(Fault::CutUpload(10_000))
        .on_method("PATCH")
        .times(1);
    let (content, to, pushed, _) = through(107, config, |options| options.fault(cut));
    assert_complete(&content, &to, pushed);
}

fn a_cut_upload_goes_on() {
    let cut = FaultRule::new(Fault::CutUpload(100_000))
        .on_method("PATCH")
        .times(1);
    let (content, to, pushed, events) = through(108, quick(), |options| options.fault(cut));
    assert_complete(&content, &to, pushed);
    let patches = patches_of(&to);
    assert_eq!(patches.len(), 2, "{patches:?}");
    let range = format!("100000-{}", content.layers[0].len() - 1);
    assert_eq!(patches[1].content_range, Some(range));
    assert!(
        events
            .iter()
            .any(|event| matches!(event, PushEvent::Retrying { attempt: 1, .. }))
    );
    // Always cut, and never further: an end after the first attempt and two more.
    let cut = FaultRule::new(Fault::CutUpload(0)).on_method("PATCH");
    let (_, to, pushed, _) = through(109, quick(), |options| options.fault(cut));
    assert!(matches!(pushed, Err(Error::Transport { .. })), "{pushed:?}");
    assert_eq!(patches_of(&to).len(), 3);
    assert!(
        to.seen().iter().any(|seen| seen.method == "DELETE"),
        "the upload is given up"
    );
}

/// Nobody knows how long it will be, and it is compressed anew up to where the registry is.
fn a_cut_upload_of_a_layer_made_here_goes_on() {
    for (compression, chunk) in [
        (Compression::Gzip, None),
        (Compression::Zstd, None),
        (Compression::Gzip, Some(64 << 10)),
    ] {
        let cut = FaultRule::new(Fault::CutUpload(50_000))
            .on_method("PATCH")
            .times(2);
        let to = Registry::with(|options| options.fault(cut));
        let host = Host::new();
        let name = format!("{}/made:1", to.host());
        let image = make(&host.store, &name, 121);
        let mut config = quick();
        (config.compression, config.chunk_size) = (compression, chunk);
        let (pushed, events) = push(&host, config, &name);
        assert_eq!(pushed.expect("pushed").id, *image.id());
        let again = |event: &&PushEvent| matches!(event, PushEvent::Retrying { .. });
        assert_eq!(events.iter().filter(again).count(), 2, "{events:?}");
        let ranges: Vec<_> = to
            .seen()
            .into_iter()
            .filter(|seen| seen.method == "GET" && seen.path.contains("/blobs/uploads/"))
            .collect();
        assert_eq!(ranges.len(), 2, "the registry says how far it is");
        let back = Host::new().pull(quick(), &name).expect("pulled back");
        assert_eq!(back.id(), image.id());
    }
}

fn a_lost_upload_begins_anew() {
    let lost = FaultRule::new(Fault::LoseUpload)
        .on_path("digest=")
        .on_method("PUT");
    // Each upload has a path of its own: the registry loses the first two.
    let count = std::sync::atomic::AtomicUsize::new(0);
    let script = move |seen: &Seen| {
        let first = seen.method == "PUT"
            && seen.path.contains("/blobs/uploads/")
            && count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2;
        first.then(|| Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "lost"))
    };
    let (content, to, pushed, _) = through(110, quick(), |options| options.script(script));
    assert_complete(&content, &to, pushed);
    let (_, _, pushed, _) = through(111, quick(), |options| options.fault(lost));
    assert!(
        matches!(pushed, Err(Error::Status { status: 404, .. })),
        "{pushed:?}"
    );
}

fn a_token_that_runs_out_in_an_upload_is_renewed() {
    let script = |seen: &Seen| {
        let first = matches!(seen.method.as_str(), "PATCH" | "PUT")
            && seen.before == 0
            && !seen.path.contains("/manifests/");
        let realm = format!("http://{}/token", seen.host);
        first.then(|| Reply::bearer(&realm, "repository:b:pull,push"))
    };
    let mut config = quick();
    let credential = Credential::Basic {
        user: "u".into(),
        password: "p".into(),
    };
    config.credentials.set("everywhere", credential);
    let (content, to, pushed, events) = through(112, config, |options| tokens(300)(options).script(script));
    assert_complete(&content, &to, pushed);
    let retried = events
        .iter()
        .any(|event| matches!(event, PushEvent::Retrying { .. }));
    assert!(!retried, "a new token is no failure: {events:?}");
    let asked = to
        .seen()
        .iter()
        .filter(|seen| seen.path.starts_with("/token"))
        .count();
    assert_eq!(
        asked,
        1 + 3,
        "the first one, and one for each request of two uploads"
    );
}

fn a_busy_registry_is_asked_again() {
    for method in ["HEAD", "POST", "PATCH", "PUT"] {
        let busy = FaultRule::new(Fault::Status(429, Some(1)))
            .on_method(method)
            .times(1);
        let (content, to, pushed, events) = through(113, quick(), |options| options.fault(busy));
        assert_complete(&content, &to, pushed);
        let told = |event: &PushEvent| matches!(event, PushEvent::Retrying { delay, .. } if *delay == Duration::from_secs(1));
        assert!(events.iter().any(told), "{method}: {events:?}");
    }
    let broken = FaultRule::new(Fault::Status(500, None)).on_method("PATCH");
    let (_, to, pushed, _) = through(114, quick(), |options| options.fault(broken));
    assert!(
        matches!(pushed, Err(Error::Status { status: 500, .. })),
        "{pushed:?}"
    );
    assert!(to.tag("b", "1").is_none());
}

fn an_origin_that_lies_is_not_believed() {
    let content = Content::new(1, 115);
    let from = Registry::plain(&content);
    let host = pulled(&from);
    from.set_faults(vec![FaultRule::new(Fault::WrongBytes).on_method("GET")]);
    let to = empty();
    let name = format!("{}/b:1", to.host());
    tag(&host.store, &format!("{}/a:1", from.host()), &name);
    let (pushed, events) = push(&host, quick(), &name);
    pushed.expect("pushed from the files");
    assert!(to.blob("b", &content.layer(0)).is_none());
    assert!(
        events
            .iter()
            .any(|event| matches!(event, PushEvent::Warning { .. })),
        "{events:?}"
    );
    assert!(
        events
            .iter()
            .any(|event| matches!(event, PushEvent::LayerCompressed { .. })),
        "{events:?}"
    );
}

fn a_refused_push_is_typed() {
    let (_, to, pushed, _) = through(116, quick(), |mut options| {
        options.read_only = true;
        options
    });
    assert!(
        matches!(pushed, Err(Error::Status { status: 405, .. })),
        "{pushed:?}"
    );
    assert!(to.tag("b", "1").is_none());
    let (_, _, pushed, _) = through(117, quick(), tokens(300));
    assert!(
        matches!(&pushed, Err(Error::Denied { what, .. }) if what.contains("upload")),
        "{pushed:?}"
    );
    let host = Host::new();
    let (pushed, _) = push(&host, quick(), "127.0.0.1:1/none:1");
    assert!(
        matches!(pushed, Err(Error::Image(rdock_image::Error::NotFound { .. }))),
        "{pushed:?}"
    );
}

fn a_registry_that_takes_nothing_is_given_up() {
    let mut config = quick();
    (config.idle_timeout, config.retries) = (Duration::from_millis(300), 0);
    let silent = FaultRule::new(Fault::Silent(Duration::from_secs(60))).on_method("PATCH");
    let started = std::time::Instant::now();
    let (_, _, pushed, _) = through(118, config, |options| options.fault(silent));
    assert!(matches!(pushed, Err(Error::Transport { .. })), "{pushed:?}");
    assert!(started.elapsed() < Duration::from_secs(30));
}

fn an_upload_elsewhere_gets_no_credentials() {
    let storage = empty();
    let elsewhere = storage.host();
    let script = move |seen: &Seen| {
        let begins = seen.method == "POST" && seen.path.contains("/blobs/uploads/");
        let right = seen.authorization.as_deref() == Some("Basic dTpw");
        (begins && right).then(|| {
            Reply::new(202, "").with("location", format!("http://{elsewhere}/v2/x/blobs/uploads/00"))
        })
    };
    let mut config = quick();
    config.retries = 0;
    let credential = Credential::Basic {
        user: "u".into(),
        password: "p".into(),
    };
    config.credentials.set("everywhere", credential);
    let (_, _, pushed, _) = through(119, config, |mut options| {
        options.access = Access::Basic(BTreeMap::from([("u".to_owned(), "p".to_owned())]));
        options.script(script)
    });
    pushed.expect_err("nothing is there");
    assert!(!storage.seen().is_empty());
    assert!(
        storage.seen().iter().all(|seen| seen.authorization.is_none()),
        "{:?}",
        storage.seen()
    );
}
