//! Pulls from registries that do things wrong, and from a real one.

mod real;
mod server;

use libtest_mimic::{Arguments, Trial};
use rdock_image::{Digest, Error as ImageError, Event, Image, ImageStore, Platform, Progress, Reference};
use rdock_registry::{Credential, Error, RegistryClient, RegistryConfig};
use server::{Behaviour, LAYER, Server};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let test = |name: &str, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let mut trials = vec![
        test("an_image_comes_in_whole", whole),
        test("a_cut_layer_resumes_by_range", resumes),
        test(
            "a_registry_that_ignores_range_is_read_from_the_start",
            ignores_range,
        ),
        test("a_wrong_content_range_is_an_error", wrong_content_range),
        test("reg_wrong_digest", reg_wrong_digest),
        test("a_wrong_announced_digest_is_refused", announced),
        test("reg_endless_body", reg_endless_body),
        test("retry_after_is_honoured", retry_after),
        test("basic_credentials_are_sent_when_asked_for", basic),
        test("a_wrong_password_is_said_so", wrong_password),
        test("an_expired_token_is_renewed_during_the_pull", renewed),
        test("reg_realm_host", reg_realm_host),
        test("reg_redirect_auth", reg_redirect_auth),
        test("an_unknown_image_names_itself_and_the_registry", unknown),
        test("mirrors_are_asked_before_the_registry", mirrors),
        test("a_platform_that_is_missing_is_named", platform),
        test("a_failed_pull_leaves_nothing_and_the_next_one_works", again),
        test("layers_of_another_image_are_not_fetched_again", shared_layers),
    ];
    trials.extend(real::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A tar with one file.
fn layer_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).expect("tar");
    builder.into_inner().expect("tar")
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        })
        .collect()
}

/// Puts an image of two layers into a server; the digests of its layers.
fn put_image(server: &Server, repository: &str, tag: &str) -> Vec<Digest> {
    let layers = [layer_of("small", b"one"), layer_of("large", &noise(600_000))];
    let digests: Vec<Digest> = layers.iter().map(|layer| Digest::sha256_of(layer)).collect();
    let config = serde_json::json!({
        "architecture": Platform::host().architecture, "os": "linux", "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": digests.iter().map(Digest::as_str).collect::<Vec<_>>()},
    });
    let config = config.to_string().into_bytes();
    let config_digest = Digest::sha256_of(&config);
    let descriptors: Vec<_> = digests
        .iter()
        .zip(&layers)
        .map(|(digest, layer)| serde_json::json!({"mediaType": LAYER, "digest": digest.as_str(), "size": layer.len()}))
        .collect();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": kind, "layers": descriptors,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest.as_str(), "size": config.len()},
    });
    let manifest = manifest.to_string().into_bytes();
    let blob = |digest: &Digest| format!("/v2/{repository}/blobs/{digest}");
    for (digest, layer) in digests.iter().zip(layers) {
        server.put(blob(digest), LAYER, layer);
    }
    server.put(blob(&config_digest), "application/json", config);
    server.put(
        format!("/v2/{repository}/manifests/{}", Digest::sha256_of(&manifest)),
        kind,
        manifest.clone(),
    );
    server.put(format!("/v2/{repository}/manifests/{tag}"), kind, manifest);
    digests
}

fn quick() -> RegistryConfig {
    let mut config = RegistryConfig::default();
    config.idle_timeout = Duration::from_secs(2);
    config.retries = 3;
    config
}

struct Pulled {
    result: Result<Image, Error>,
    events: Vec<Event>,
    store: ImageStore,
    root: tempfile::TempDir,
}

fn pull_with(config: RegistryConfig, name: &str) -> Pulled {
    let root = tempfile::tempdir().expect("tempdir");
    let store = ImageStore::open(root.path()).expect("store");
    let (result, events) = pull_into(config, name, &store);
    Pulled {
        result,
        events,
        store,
        root,
    }
}

fn pull_into(config: RegistryConfig, name: &str, store: &ImageStore) -> (Result<Image, Error>, Vec<Event>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let kept = events.clone();
    let progress = Progress::new(move |event| kept.lock().expect("events").push(event));
    let client = RegistryClient::new(config).expect("client");
    let reference = Reference::parse(name).expect("reference");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let result = runtime.block_on(client.pull(&reference, &Platform::host(), store, &progress));
    let events = events.lock().expect("events").clone();
    (result, events)
}

fn pull(server: &Server) -> Pulled {
    pull_with(quick(), &format!("{}/a/b:1", server.address))
}

/// Nothing of a failed pull is visible or half made. A layer that came in whole may stay for the next try.
fn assert_nothing(pulled: &Pulled) {
    assert!(pulled.store.images().expect("images").is_empty());
    let image = pulled.root.path().join("image");
    for layer in list(&image.join("layers")) {
        let digest = Digest::parse(&format!("sha256:{layer}")).expect("a layer's name");
        assert!(pulled.store.has_layer(&digest), "{layer} is not whole");
    }
    for directory in ["ingest", "refs"] {
        let left: Vec<_> = list(&image.join(directory));
        assert!(
            left.iter().all(|name| name.ends_with(".lock")),
            "{directory}: {left:?}"
        );
    }
}

fn list(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("list");
    entries
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect()
}

fn retries(pulled: &Pulled) -> usize {
    pulled
        .events
        .iter()
        .filter(|event| matches!(event, Event::Retrying { .. }))
        .count()
}

fn whole() {
    let server = Server::start(Behaviour::default());
    let digests = put_image(&server, "a/b", "1");
    let pulled = pull(&server);
    let image = pulled.result.expect("pulled");
    assert_eq!(image.diff_ids(), digests);
    let done = pulled
        .events
        .iter()
        .filter(|event| matches!(event, Event::LayerDone { .. }))
        .count();
    assert_eq!(done, 2);
    let found = pulled
        .store
        .get(&format!("{}/a/b:1", server.address))
        .expect("get")
        .expect("tagged");
    assert_eq!(found.id(), image.id());
}

fn resumes() {
    let server = Server::start(Behaviour {
        cut: Some((200_000, 2)),
        ..Behaviour::default()
    });
    put_image(&server, "a/b", "1");
    let pulled = pull(&server);
    pulled.result.as_ref().expect("pulled");
    let ranges: Vec<_> = server.seen().into_iter().filter_map(|seen| seen.range).collect();
    assert!(ranges.iter().any(|range| range != "bytes=0-"), "{ranges:?}");
    assert!(retries(&pulled) >= 1);
}

fn ignores_range() {
    let behaviour = Behaviour {
        cut: Some((200_000, 2)),
        ignore_range: true,
        ..Behaviour::default()
    };
    let server = Server::start(behaviour);
    put_image(&server, "a/b", "1");
    pull(&server).result.expect("pulled");
}

fn wrong_content_range() {
    let behaviour = Behaviour {
        cut: Some((200_000, 2)),
        wrong_content_range: true,
        ..Behaviour::default()
    };
    let server = Server::start(behaviour);
    put_image(&server, "a/b", "1");
    let pulled = pull(&server);
    assert!(
        matches!(
            pulled.result,
            Err(Error::Malformed {
                what: "Content-Range",
                ..
            })
        ),
        "{:?}",
        pulled.result
    );
    assert_nothing(&pulled);
}

fn reg_wrong_digest() {
    let server = Server::start(Behaviour {
        lie: true,
        ..Behaviour::default()
    });
    put_image(&server, "a/b", "1");
    let pulled = pull(&server);
    match &pulled.result {
        Err(Error::Image(ImageError::DigestMismatch { .. })) => {}
        // The flipped byte may be in a tar header, which is then refused first.
        Err(Error::Image(ImageError::LayerMalformed { .. })) => {}
        other => panic!("{other:?}"),
    }
    assert_nothing(&pulled);
}

fn announced() {
    let wrong = format!("sha256:{}", "0".repeat(64));
    let server = Server::start(Behaviour {
        announce: Some(wrong),
        ..Behaviour::default()
    });
    put_image(&server, "a/b", "1");
    let pulled = pull(&server);
    assert!(
        matches!(pulled.result, Err(Error::WrongDigest { .. })),
        "{:?}",
        pulled.result
    );
    assert_nothing(&pulled);
}

fn reg_endless_body() {
    let server = Server::start(Behaviour {
        endless: true,
        ..Behaviour::default()
    });
    put_image(&server, "a/b", "1");
    let pulled = pull(&server);
    assert!(
        matches!(pulled.result, Err(Error::TooLarge { .. })),
        "{:?}",
        pulled.result
    );
    // One that says nothing at all is cut too, and the layer is tried again.
    let server = Server::start(Behaviour {
        stall: true,
        ..Behaviour::default()
    });
    put_image(&server, "a/b", "1");
    let mut config = quick();
    (config.idle_timeout, config.retries) = (Duration::from_millis(300), 1);
    let started = Instant::now();
    let pulled = pull_with(config, &format!("{}/a/b:1", server.address));
    assert!(
        matches!(pulled.result, Err(Error::Transport { .. })),
        "{:?}",
        pulled.result
    );
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_nothing(&pulled);
}

fn retry_after() {
    let server = Server::start(Behaviour {
        too_many: Some((1, "1")),
        ..Behaviour::default()
    });
    put_image(&server, "a/b", "1");
    let pulled = pull(&server);
    pulled.result.as_ref().expect("pulled");
    let delays: Vec<_> = pulled
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Retrying { delay, .. } => Some(*delay),
            _ => None,
        })
        .collect();
    assert_eq!(delays, [Duration::from_secs(1)]);
    // One that asks for more than a minute is not waited for.
    let server = Server::start(Behaviour {
        too_many: Some((9, "3600")),
        ..Behaviour::default()
    });
    put_image(&server, "a/b", "1");
    assert!(matches!(
        pull(&server).result,
        Err(Error::Status { status: 429, .. })
    ));
}

fn with_password(server: &Server, password: &str) -> RegistryConfig {
    let mut config = quick();
    let credential = Credential::from(oci_distribution::secrets::RegistryAuth::Basic(
        "user".into(),
        password.into(),
    ));
    config.credentials.set(&server.address.to_string(), credential);
    config
}

fn basic() {
    let server = Server::start(Behaviour {
        basic: Some(("user", "secret")),
        ..Behaviour::default()
    });
    put_image(&server, "a/b", "1");
    let name = format!("{}/a/b:1", server.address);
    pull_with(with_password(&server, "secret"), &name)
        .result
        .expect("pulled");
    // Nothing is sent before it is asked for.
    assert!(server.seen()[0].authorization.is_none());
}

fn wrong_password() {
    let server = Server::start(Behaviour {
        basic: Some(("user", "secret")),
        ..Behaviour::default()
    });
    put_image(&server, "a/b", "1");
    let name = format!("{}/a/b:1", server.address);
    for config in [with_password(&server, "wrong"), quick()] {
        let pulled = pull_with(config, &name);
        let Err(error @ Error::Denied { .. }) = &pulled.result else {
            panic!("{:?}", pulled.result)
        };
        assert!(error.hint().is_some());
        assert!(!error.to_string().contains('\n'));
        assert_nothing(&pulled);
    }
    assert!(server.seen().len() < 10, "{:?}", server.seen());
}

fn renewed() {
    let server = Server::start(Behaviour {
        token_uses: Some(2),
        ..Behaviour::default()
    });
    let realm = format!("http://{}/token", server.address);
    server.set(|behaviour| behaviour.realm = Some(realm));
    put_image(&server, "a/b", "1");
    pull(&server).result.expect("pulled");
    let asked = server.seen().iter().filter(|seen| seen.path == "/token").count();
    assert!(asked >= 2, "{asked}");
}

fn reg_realm_host() {
    // Another host over plain http: the credentials must not go there.
    let server = Server::start(Behaviour {
        realm: Some("http://auth.example/token".into()),
        ..Behaviour::default()
    });
    put_image(&server, "a/b", "1");
    let name = format!("{}/a/b:1", server.address);
    let pulled = pull_with(with_password(&server, "secret"), &name);
    assert!(
        matches!(pulled.result, Err(Error::UnsafeRealm { .. })),
        "{:?}",
        pulled.result
    );
}

fn reg_redirect_auth() {
    let other = Server::start(Behaviour::default());
    put_image(&other, "a/b", "1");
    let behaviour = Behaviour {
        basic: Some(("user", "secret")),
        layers_at: Some(other.address.to_string()),
        ..Behaviour::default()
    };
    let server = Server::start(behaviour);
    put_image(&server, "a/b", "1");
    let name = format!("{}/a/b:1", server.address);
    pull_with(with_password(&server, "secret"), &name)
        .result
        .expect("pulled");
    let seen = other.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.authorization.is_none()), "{seen:?}");
}

fn unknown() {
    let server = Server::start(Behaviour::default());
    let pulled = pull(&server);
    let Err(error @ Error::NotFound { .. }) = &pulled.result else {
        panic!("{:?}", pulled.result)
    };
    let text = error.to_string();
    assert!(
        text.contains("a/b:1") && text.contains(&server.address.to_string()),
        "{text}"
    );
}

fn mirrors() {
    let mirror = Server::start(Behaviour::default());
    put_image(&mirror, "library/thing", "1");
    let mut config = quick();
    config
        .registries
        .add_mirror("docker.io", &mirror.address.to_string(), true);
    let pulled = pull_with(config, "thing:1");
    let image = pulled.result.expect("from the mirror");
    assert_eq!(image.references()[0].to_string(), "docker.io/library/thing:1");
}

fn platform() {
    let server = Server::start(Behaviour::default());
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2,
            "digest": format!("sha256:{}", "1".repeat(64)), "platform": {"os": "plan9", "architecture": "mips"}}],
    });
    server.put(
        "/v2/a/b/manifests/1".into(),
        "application/vnd.oci.image.index.v1+json",
        index.to_string().into_bytes(),
    );
    let pulled = pull(&server);
    let Err(Error::NoSuchPlatform { available, .. }) = &pulled.result else {
        panic!("{:?}", pulled.result)
    };
    assert_eq!(available, "plan9/mips");
}

fn again() {
    let server = Server::start(Behaviour {
        lie: true,
        ..Behaviour::default()
    });
    put_image(&server, "a/b", "1");
    let pulled = pull(&server);
    assert!(pulled.result.is_err());
    server.set(|behaviour| behaviour.lie = false);
    let name = format!("{}/a/b:1", server.address);
    pull_into(quick(), &name, &pulled.store).0.expect("pulled");
}

fn shared_layers() {
    let server = Server::start(Behaviour::default());
    put_image(&server, "a/b", "1");
    put_image(&server, "c/d", "2");
    let pulled = pull(&server);
    pulled.result.as_ref().expect("pulled");
    let before = server.seen().len();
    let name = format!("{}/c/d:2", server.address);
    let (result, events) = pull_into(quick(), &name, &pulled.store);
    result.expect("pulled");
    assert_eq!(
        events
            .iter()
            .filter(|event| matches!(event, Event::LayerExists { .. }))
            .count(),
        2
    );
    // The manifest and the config alone.
    assert_eq!(server.seen().len() - before, 2);
}
