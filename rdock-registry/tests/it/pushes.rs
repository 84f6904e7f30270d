//! What a push sends.

use crate::content::{Content, noise};
use crate::server::{Registry, Seen};
use crate::{Host, push_with, quick, runtime, trial};
use libtest_mimic::Trial;
use rdock_image::{
    Digest, ExportOptions, Image, ImageConfig, ImageStore, LayerOptions, Platform, Progress, Reference,
};
use rdock_registry::server::{Access, ServerOptions};
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
        trial("a_push_is_a_future_to_spawn", a_push_is_a_future_to_spawn),
        trial("reg_foreign_url_creds", reg_foreign_url_creds),
        trial(
            "img_claimed_digest_is_not_what_others_are_pushed_with",
            img_claimed_digest_is_not_what_others_are_pushed_with,
        ),
        trial("reg_artifact_title", reg_artifact_title),
    ]
}

/// A host that has pulled the image from the registry as `a:1`.
pub(crate) fn pulled(registry: &Registry) -> Host {
    let host = Host::new();
    let name = format!("{}/a:1", registry.host());
    host.pull(quick(), &name).expect("pulled");
    host
}

pub(crate) fn tag(store: &ImageStore, old: &str, new: &str) {
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
pub(crate) fn sent(registry: &Registry) -> Vec<Seen> {
    let mut seen = registry.seen();
    seen.retain(|one| matches!(one.method.as_str(), "PATCH" | "PUT") && one.path.contains("/blobs/uploads/"));
    seen
}

pub(crate) fn push(
    host: &Host,
    config: RegistryConfig,
    name: &str,
) -> (Result<Pushed, Error>, Vec<PushEvent>) {
    push_with(&host.store, config, name)
}

pub(crate) fn empty() -> Registry {
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

/// An image that claims a blob of its own to be the base layer of another one does not make it so.
fn img_claimed_digest_is_not_what_others_are_pushed_with() {
    let (good, evil) = (Content::new(1, 130), Content::new(1, 131));
    // The config of the good one, whose diffID is its layer's, over the blob of the evil one.
    let manifest = String::from_utf8(good.manifest.clone()).expect("text");
    let manifest = manifest
        .replace(good.layer(0).as_str(), evil.layer(0).as_str())
        .replace(
            &format!("\"size\":{}", good.layers[0].len()),
            &format!("\"size\":{}", evil.layers[0].len()),
        );
    let claiming = Content {
        manifest: manifest.into_bytes(),
        layers: evil.layers.clone(),
        ..good.clone()
    };
    let from = Registry::plain(&good);
    from.add(&claiming, "evil", "1");
    let host = pulled(&from);
    let image = host
        .pull(quick(), &format!("{}/evil:1", from.host()))
        .expect("its layer is there already");
    assert_eq!(image.manifest().layers[0].digest, evil.layer(0).as_str());
    let to = empty();
    for (old, new) in [("evil", "shared:evil"), ("a", "shared:good")] {
        let new = format!("{}/{new}", to.host());
        tag(&host.store, &format!("{}/{old}:1", from.host()), &new);
        push(&host, quick(), &new).0.expect("pushed");
    }
    // The claim went out as it came in, with its own image alone.
    assert_eq!(to.tag("shared", "good"), Some(good.digest()));
    let origins = host.store.origins(&good.diff_ids[0]).expect("read");
    assert!(
        origins
            .iter()
            .all(|origin| origin.digest != evil.layer(0).as_str()),
        "{origins:?}"
    );
    // An image built here on the layer is pushed with what the layer is.
    let lease = host.store.lease().expect("a lease");
    let config = ImageConfig {
        rootfs: image.config().rootfs.clone(),
        architecture: Platform::host().architecture,
        os: "linux".into(),
        ..ImageConfig::default()
    };
    let name = format!("{}/shared:built", to.host());
    let reference = Reference::parse(&name).expect("a name");
    host.store
        .write_image(&lease, &config, &[reference])
        .expect("an image");
    push(&host, quick(), &name).0.expect("pushed");
    let built = Host::new()
        .pull(quick(), &name)
        .expect("its layer is what it says");
    assert_eq!(built.manifest().layers[0].digest, good.layer(0).as_str());
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
