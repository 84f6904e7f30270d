//! What a push sends, and what it does when the registry, or an origin, misbehaves.

use crate::content::{Content, noise};
use crate::server::{Registry, Reply, Seen};
use crate::{Host, push_with, quick, runtime, trial};
use libtest_mimic::Trial;
use rdock_image::{
    Digest, ExportOptions, Image, ImageConfig, ImageStore, LayerOptions, Platform, Progress, Reference,
};
use rdock_registry::server::{Access, Fault, FaultRule, ServerOptions};
use rdock_registry::{Compression, Credential, Error, PushEvent, Pushed, RegistryClient, RegistryConfig};
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("an_image_goes_on_as_it_came", an_image_goes_on_as_it_came),
        trial("what_is_there_is_not_sent", what_is_there_is_not_sent),
        trial(
            "a_layer_of_the_same_registry_is_mounted",
            a_layer_of_the_same_registry_is_mounted,
        ),
        trial(
            "a_layer_made_here_is_compressed_once",
            a_layer_made_here_is_compressed_once,
        ),
        trial(
            "a_layer_that_is_nowhere_is_made_from_its_files",
            a_layer_that_is_nowhere_is_made_from_its_files,
        ),
        trial(
            "a_loaded_image_keeps_its_id_in_a_registry",
            a_loaded_image_keeps_its_id_in_a_registry,
        ),
        trial(
            "a_layer_that_was_changed_is_not_pushed",
            a_layer_that_was_changed_is_not_pushed,
        ),
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
        trial("a_push_is_a_future_to_spawn", a_push_is_a_future_to_spawn),
        trial("reg_foreign_url_creds", reg_foreign_url_creds),
        trial("reg_artifact_title", reg_artifact_title),
    ]
}

/// A host that has pulled the image from the registry as `a:1`.
fn pulled(registry: &Registry) -> Host {
    let host = Host::new();
    let name = format!("{}/a:1", registry.host());
    host.pull(quick(), &name).expect("pulled");
    host
}

fn tag(store: &ImageStore, old: &str, new: &str) {
    let image = store.get(old).expect("read").expect("there");
    store
        .tag(&image, &Reference::parse(new).expect("a name"))
        .expect("tagged");
}

/// Makes an image here, of a layer with one file of noise.
pub(crate) fn make(store: &ImageStore, name: &str, seed: u64) -> Image {
    let lease = store.lease().expect("a lease");
    let scratch = store.scratch_layer(&[]).expect("a directory");
    std::fs::write(scratch.upper().join("file"), noise(seed)).expect("written");
    let layer = store
        .adopt_layer(&lease, scratch.upper(), &[], &LayerOptions::default())
        .expect("a layer");
    let mut config = ImageConfig {
        architecture: Platform::host().architecture,
        os: "linux".into(),
        ..ImageConfig::default()
    };
    config.rootfs.diff_ids = vec![layer.diff_id];
    let name = Reference::parse(name).expect("a name");
    store.write_image(&lease, &config, &[name]).expect("an image")
}

/// Requests that sent something of a blob.
fn sent(registry: &Registry) -> Vec<Seen> {
    let mut seen = registry.seen();
    seen.retain(|one| matches!(one.method.as_str(), "PATCH" | "PUT") && one.path.contains("/blobs/uploads/"));
    seen
}

fn push(host: &Host, config: RegistryConfig, name: &str) -> (Result<Pushed, Error>, Vec<PushEvent>) {
    push_with(&host.store, config, name)
}

fn empty() -> Registry {
    Registry::with(|options| options)
}

fn an_image_goes_on_as_it_came() {
    let content = Content::new(3, 100);
    let from = Registry::plain(&content);
    let to = empty();
    let host = pulled(&from);
    let name = format!("{}/b/c:2", to.host());
    tag(&host.store, &format!("{}/a:1", from.host()), &name);
    let (pushed, events) = push(&host, quick(), &name);
    let pushed = pushed.expect("pushed");
    assert_eq!(pushed.digest, content.digest(), "byte for byte");
    assert_eq!(to.tag("b/c", "2"), Some(content.digest()));
    for (digest, bytes) in content.blobs() {
        let digest = Digest::parse(&digest).expect("a digest");
        assert_eq!(to.blob("b/c", &digest).as_ref(), Some(&bytes));
    }
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, PushEvent::LayerCompressed { .. }))
    );
    assert!(matches!(events.first(), Some(PushEvent::Started { layers, .. }) if layers.len() == 3));
    assert!(matches!(events.last(), Some(PushEvent::Done { digest, .. }) if *digest == content.digest()));
    for diff_id in &content.diff_ids {
        let all = |event: &&PushEvent| matches!(event, PushEvent::LayerProgress { diff_id: of, done, total } if of == diff_id && Some(*done) == *total);
        assert!(
            events.iter().any(|event| all(&event)),
            "the end of {diff_id} is told"
        );
    }
    let other = Host::new();
    let image = other.pull(quick(), &name).expect("pulled from there");
    assert_eq!(image.manifest_digest(), &content.digest());
}

fn what_is_there_is_not_sent() {
    let content = Content::new(2, 101);
    let from = Registry::plain(&content);
    let to = empty();
    let host = pulled(&from);
    let name = format!("{}/b:1", to.host());
    tag(&host.store, &format!("{}/a:1", from.host()), &name);
    push(&host, quick(), &name).0.expect("pushed");
    let before = sent(&to).len();
    let (pushed, events) = push(&host, quick(), &name);
    pushed.expect("pushed again");
    assert_eq!(sent(&to).len(), before, "nothing but the manifest");
    let exists = |event: &&PushEvent| matches!(event, PushEvent::LayerExists { .. });
    assert_eq!(events.iter().filter(exists).count(), 2);
}

pub(crate) fn tokens(lifetime: u64) -> impl Fn(ServerOptions) -> ServerOptions {
    move |mut options| {
        options.access = Access::Token {
            users: BTreeMap::from([("u".to_owned(), "p".to_owned())]),
            lifetime: Duration::from_secs(lifetime),
            anonymous: true,
        };
        options
    }
}

pub(crate) fn user(registry: &Registry) -> RegistryConfig {
    let mut config = quick();
    let credential = Credential::Basic {
        user: "u".into(),
        password: "p".into(),
    };
    config.credentials.set(&registry.host(), credential);
    config
}

fn a_layer_of_the_same_registry_is_mounted() {
    let content = Content::new(2, 102);
    let registry = Registry::with(tokens(300));
    registry.add(&content, "base/image", "1");
    let host = Host::new();
    let name = format!("{}/me/app:1", registry.host());
    let base = format!("{}/base/image:1", registry.host());
    host.pull(user(&registry), &base).expect("pulled");
    tag(&host.store, &base, &name);
    let (pushed, events) = push(&host, user(&registry), &name);
    assert_eq!(pushed.expect("pushed").digest, content.digest());
    let mounted =
        |event: &&PushEvent| matches!(event, PushEvent::LayerMounted { from, .. } if from == "base/image");
    assert_eq!(events.iter().filter(mounted).count(), 2, "{events:?}");
    // The config alone was sent.
    assert_eq!(sent(&registry).len(), 1, "{:?}", sent(&registry));
    let asked: Vec<_> = registry
        .seen()
        .into_iter()
        .filter(|seen| seen.path.starts_with("/token"))
        .collect();
    let last = &asked.last().expect("a token was asked for").path;
    assert!(
        last.contains("repository%3Abase%2Fimage%3Apull&")
            || last.contains("repository%3Abase%2Fimage%3Apull&account"),
        "{last}"
    );
    assert!(last.contains("repository%3Ame%2Fapp%3Apull%2Cpush"), "{last}");
}

fn a_layer_made_here_is_compressed_once() {
    for (compression, ending, seed) in [
        (Compression::Gzip, "+gzip", 103),
        (Compression::Zstd, "+zstd", 104),
    ] {
        let to = empty();
        let host = Host::new();
        let name = format!("{}/made:1", to.host());
        let image = make(&host.store, &name, seed);
        tag(&host.store, &name, "local:1");
        let mut config = quick();
        config.compression = compression;
        let (pushed, events) = push(&host, config.clone(), &name);
        let pushed = pushed.expect("pushed");
        assert_eq!(pushed.id, *image.id(), "the image is the same");
        assert_ne!(pushed.digest, *image.manifest_digest(), "its manifest is not");
        let said = |event: &&PushEvent| matches!(event, PushEvent::LayerCompressed { diff_id, sent, .. } if diff_id == sent);
        assert_eq!(events.iter().filter(said).count(), 1, "{events:?}");
        let kept = host.store.get(&name).expect("read").expect("there");
        assert_eq!(
            *kept.manifest_digest(),
            pushed.digest,
            "the name means what was pushed"
        );
        assert!(kept.manifest().layers[0].media_type.ends_with(ending));
        let other = Host::new();
        let back = other.pull(quick(), &name).expect("pulled");
        assert_eq!((back.id(), back.manifest_digest()), (image.id(), &pushed.digest));
        // From another name too the blob is known now.
        let second = format!("{}/other:1", to.host());
        tag(&host.store, &name, &second);
        let (again, events) = push(&host, config, &second);
        assert_eq!(again.expect("pushed").digest, pushed.digest);
        assert!(
            events
                .iter()
                .any(|event| matches!(event, PushEvent::LayerMounted { .. })),
            "{events:?}"
        );
    }
}

fn a_layer_that_is_nowhere_is_made_from_its_files() {
    let content = Content::new(1, 105);
    let from = Registry::plain(&content);
    let host = pulled(&from);
    let to = empty();
    let name = format!("{}/b:1", to.host());
    tag(&host.store, &format!("{}/a:1", from.host()), &name);
    drop(from);
    let (pushed, events) = push(&host, quick(), &name);
    let pushed = pushed.expect("pushed");
    let said = |event: &&PushEvent| matches!(event, PushEvent::LayerCompressed { diff_id, .. } if *diff_id == content.diff_ids[0]);
    assert_eq!(events.iter().filter(said).count(), 1, "{events:?}");
    // Compressed anew, but the same layer.
    let same = |event: &PushEvent| matches!(event, PushEvent::LayerCompressed { sent, .. } if *sent == content.diff_ids[0]);
    assert!(events.iter().any(same), "{events:?}");
    assert_eq!(pushed.id, Digest::sha256_of(&content.config), "the id stays");
    let other = Host::new();
    let image = other.pull(quick(), &name).expect("pulled");
    assert_eq!(
        (image.manifest_digest(), image.id()),
        (&pushed.digest, &pushed.id)
    );
    let view = other.store.view(&image).expect("a view");
    let mut bytes = Vec::new();
    let mut file = view.open_file("/file-0").expect("there");
    std::io::Read::read_to_end(&mut file, &mut bytes).expect("read");
    assert_eq!(bytes, noise(105 * 100));
}

fn a_loaded_image_keeps_its_id_in_a_registry() {
    let content = Content::new(2, 118);
    let first = pulled(&Registry::plain(&content));
    let image = first.store.images().expect("a list").remove(0);
    let options = ExportOptions::default();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut archive = Vec::new();
        let names = image.references().to_vec();
        first
            .store
            .export(&[(image.clone(), names)], &options, &mut archive)
            .expect("saved");
        let second = Host::new();
        let loaded = second
            .store
            .import_stream(&mut &archive[..], &Progress::default())
            .expect("loaded");
        let to = empty();
        let name = format!("{}/b:1", to.host());
        let reference = Reference::parse(&name).expect("a name");
        second.store.tag(&loaded[0], &reference).expect("tagged");
        let mut config = quick();
        config.compression = compression;
        let (pushed, _) = push(&second, config, &name);
        assert_eq!(pushed.expect("pushed").id, *image.id());
        let third = Host::new();
        let there = third.pull(quick(), &name).expect("pulled");
        assert_eq!(
            (there.id(), there.diff_ids()),
            (image.id(), &content.diff_ids[..])
        );
    }
}

fn a_layer_that_was_changed_is_not_pushed() {
    let content = Content::new(1, 119);
    let host = pulled(&Registry::plain(&content));
    let image = host.store.images().expect("a list").remove(0);
    let layer = host.store.root().join("layers").join(content.diff_ids[0].hex());
    std::fs::write(layer.join("fs/file-0"), "changed").expect("written");
    let to = empty();
    let name = format!("{}/b:1", to.host());
    let reference = Reference::parse(&name).expect("a name");
    host.store.tag(&image, &reference).expect("tagged");
    let (pushed, _) = push(&host, quick(), &name);
    match pushed {
        Err(Error::Image(rdock_image::Error::LayerChanged { layer, path, .. })) => {
            assert_eq!((layer, path.as_str()), (content.diff_ids[0].clone(), "file-0"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(to.tag("b", "1"), None);
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

fn an_upload_in_chunks() {
    let mut config = quick();
    config.chunk_size = Some(64 << 10);
    let (content, to, pushed, _) = through(106, config, |options| options);
    assert_complete(&content, &to, pushed);
    let patches: Vec<_> = to
        .seen()
        .into_iter()
        .filter(|seen| seen.method == "PATCH")
        .collect();
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
    let patches: Vec<_> = to
        .seen()
        .into_iter()
        .filter(|seen| seen.method == "PATCH")
        .collect();
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
    assert_eq!(to.seen().iter().filter(|seen| seen.method == "PATCH").count(), 3);
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

fn a_push_is_a_future_to_spawn() {
    let content = Content::new(1, 120);
    let from = Registry::plain(&content);
    let host = pulled(&from);
    let (store, name) = (host.store.clone(), format!("{}/a:1", from.host()));
    let work = async move {
        let client = RegistryClient::new(quick())?;
        let reference = Reference::parse(&name)?;
        let pushed = client
            .push(&reference, &store, &rdock_registry::PushProgress::default())
            .await?;
        client
            .pull(
                &reference,
                &Platform::host(),
                &store,
                &rdock_image::Progress::default(),
            )
            .await?;
        Ok::<_, Error>(pushed)
    };
    let runtime = runtime();
    let pushed = runtime.block_on(async { tokio::spawn(work).await });
    assert_eq!(pushed.expect("joined").expect("pushed").digest, content.digest());
}

fn reg_foreign_url_creds() {
    let thief = Registry::plain(&Content::new(1, 121));
    let mut content = Content::new(1, 122);
    let mut manifest: serde_json::Value = serde_json::from_slice(&content.manifest).expect("JSON");
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    manifest["layers"][0]["mediaType"] = foreign.into();
    manifest["layers"][0]["urls"] = serde_json::json!([format!("http://{}/v2/a/blobs/x", thief.host())]);
    content.manifest = manifest.to_string().into_bytes();
    let registry = Registry::with(tokens(300));
    registry.add(&content, "a", "1");
    let host = Host::new();
    let name = format!("{}/a:1", registry.host());
    host.pull(user(&registry), &name)
        .expect("pulled from the registry itself");
    let copy = format!("{}/b:1", registry.host());
    tag(&host.store, &name, &copy);
    let (pushed, events) = push(&host, user(&registry), &copy);
    // It is not distributed any further, so the strict registry lacks nothing: its entry says where it is.
    assert_eq!(pushed.expect("pushed").digest, content.digest());
    assert!(
        events
            .iter()
            .any(|event| matches!(event, PushEvent::LayerForeign { .. })),
        "{events:?}"
    );
    assert!(registry.blob("b", &content.layer(0)).is_none());
    assert!(thief.seen().is_empty(), "{:?}", thief.seen());
}

fn reg_artifact_title() {
    let mut content = Content::new(1, 123);
    let mut manifest: serde_json::Value = serde_json::from_slice(&content.manifest).expect("JSON");
    let outside = tempfile::tempdir().expect("a temporary directory");
    let target = outside.path().join("owned");
    for title in [
        target.display().to_string(),
        "../../../../../../../../tmp/rdock-owned".to_owned(),
    ] {
        manifest["layers"][0]["annotations"] = serde_json::json!({"org.opencontainers.image.title": title});
        content.manifest = manifest.to_string().into_bytes();
        let registry = Registry::plain(&content);
        let host = pulled(&registry);
        let copy = format!("{}/b:1", registry.host());
        tag(&host.store, &format!("{}/a:1", registry.host()), &copy);
        push(&host, quick(), &copy).0.expect("pushed");
    }
    assert!(!target.exists() && !std::path::Path::new("/tmp/rdock-owned").exists());
}
