//! What a pull does when the registry behaves.

use crate::content::Content;
use crate::server::{Registry, Reply, Step};
use crate::{Host, quick, trial};
use libtest_mimic::Trial;
use rdock_image::manifest::media_type;
use rdock_image::{Digest, Event, ImageSource, Platform, Progress, Reference, Stop};
use rdock_registry::server::Barrier;
use rdock_registry::{Error, RegistryClient};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("an_image_comes_whole_and_once", an_image_comes_whole_and_once),
        trial(
            "digests_of_every_algorithm_are_pulled_and_checked",
            digests_of_every_algorithm,
        ),
        trial(
            "layers_come_in_parallel_and_no_more_than_asked",
            layers_come_in_parallel_and_no_more_than_asked,
        ),
        trial(
            "a_digest_is_pulled_by_that_digest",
            a_digest_is_pulled_by_that_digest,
        ),
        trial(
            "an_index_is_followed_for_the_platform",
            an_index_is_followed_for_the_platform,
        ),
        trial("schema_1_is_a_typed_error", schema_1_is_a_typed_error),
        trial(
            "mirrors_are_asked_first_and_passed_over",
            mirrors_are_asked_first_and_passed_over,
        ),
        trial("a_source_works_inside_a_runtime", a_source_works_inside_a_runtime),
        trial(
            "what_a_name_is_can_be_asked_without_its_layers",
            what_a_name_is_can_be_asked_without_its_layers,
        ),
        trial(
            "a_stopped_fetch_ends_at_once_and_leaves_nothing",
            a_stopped_fetch_ends_at_once_and_leaves_nothing,
        ),
        trial("a_dropped_pull_leaves_nothing", a_dropped_pull_leaves_nothing),
        trial("warnings_and_limits_are_told", warnings_and_limits_are_told),
        trial(
            "layers_of_another_image_are_not_fetched_again",
            layers_of_another_image_are_not_fetched_again,
        ),
        trial(
            "after_a_failed_pull_the_next_one_works",
            after_a_failed_pull_the_next_one_works,
        ),
    ]
}

fn an_image_comes_whole_and_once() {
    let content = Content::new(3, 1);
    let registry = Registry::plain(&content);
    let host = Host::new();
    let name = format!("{}/a/b:1", registry.host());
    let image = host.pull(quick(), &name).expect("pulled");
    assert_eq!(image.manifest_digest(), &content.digest());
    assert!(content.diff_ids.iter().all(|id| host.store.has_layer(id)));
    assert_eq!(
        host.store.read_blob(&content.digest()).expect("kept"),
        content.manifest
    );
    assert!(matches!(host.events().last(), Some(Event::Done { .. })));
    for number in 0..3 {
        let digest = content.layer(number);
        let told = |event: &Event| matches!(event, Event::LayerProgress { digest: of, done, total } if *of == digest && done == total);
        assert!(
            host.events().iter().any(told),
            "the end of layer {number} is told"
        );
    }
    host.pull(quick(), &name).expect("pulled again");
    assert_eq!(
        registry.seen_of(&content.layer(0)).len(),
        1,
        "a layer that is there is not fetched"
    );
    let exists = host
        .events()
        .iter()
        .filter(|event| matches!(event, Event::LayerExists { .. }))
        .count();
    assert_eq!(exists, 3);
}

/// An image whose documents and blobs are all named by digests of one algorithm.
fn digests_of_every_algorithm() {
    for (algorithm, digits) in [("sha384", 96), ("sha512", 128)] {
        let kind = Digest::parse(&format!("{algorithm}:{}", "0".repeat(digits))).expect("a digest");
        let content = Content::new(2, 11);
        // Whether the tars of the layers are named so too.
        for unpacked in [false, true] {
            let mut diff_ids = content.diff_ids.clone();
            if unpacked {
                for (diff_id, layer) in diff_ids.iter_mut().zip(&content.layers) {
                    let mut tar = Vec::new();
                    flate2::read::GzDecoder::new(&layer[..])
                        .read_to_end(&mut tar)
                        .expect("a tar");
                    *diff_id = kind.of_same_kind(&tar);
                }
            }
            let text: Vec<&str> = diff_ids.iter().map(Digest::as_str).collect();
            let config = json!({"architecture": Platform::host().architecture, "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": text}});
            let config = config.to_string().into_bytes();
            let descriptor = |kind_of: &str, bytes: &[u8]| json!({"mediaType": kind_of, "digest": kind.of_same_kind(bytes).as_str(), "size": bytes.len()});
            let layers: Vec<_> = content
                .layers
                .iter()
                .map(|layer| descriptor(media_type::DOCKER_LAYER, layer))
                .collect();
            let manifest = json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST,
                "config": descriptor(media_type::DOCKER_CONFIG, &config), "layers": layers});
            let manifest = manifest.to_string().into_bytes();
            let served: Vec<Vec<u8>> = [&config, &manifest]
                .into_iter()
                .chain(&content.layers)
                .cloned()
                .collect();
            let served: BTreeMap<String, Vec<u8>> = (served.into_iter())
                .map(|bytes| (kind.of_same_kind(&bytes).to_string(), bytes))
                .collect();
            let digest = kind.of_same_kind(&manifest);
            // As they are, and with a wrong byte in each in turn.
            for wrong in std::iter::once(None).chain(served.keys().cloned().map(Some)) {
                let (served, wanted) = (served.clone(), wrong.clone());
                let registry = Registry::with(|options| {
                    options.script(move |seen| {
                        let name = seen.path.rsplit('/').next()?;
                        let mut bytes = served.get(name)?.clone();
                        if wanted.as_deref() == Some(name) {
                            *bytes.last_mut()? ^= 1;
                        }
                        Some(Reply::new(200, bytes).with("content-type", media_type::DOCKER_MANIFEST))
                    })
                });
                let host = Host::new();
                let pulled = host.pull(quick(), &format!("{}/a@{digest}", registry.host()));
                match (wrong, pulled) {
                    (None, Ok(image)) => {
                        assert_eq!(image.manifest_digest(), &digest);
                        assert_eq!(image.id(), &kind.of_same_kind(&config));
                        assert!(diff_ids.iter().all(|id| host.store.has_layer(id)));
                        assert_eq!(host.store.read_blob(&digest).expect("kept"), manifest);
                    }
                    (None, Err(error)) => panic!("{algorithm}: {error:?}"),
                    (Some(_), Err(Error::WrongDigest { expected, .. })) => {
                        assert!(expected.starts_with(algorithm), "{expected}");
                        host.assert_nothing_half_made();
                    }
                    (Some(wrong), other) => panic!("{wrong}: {other:?}"),
                }
            }
        }
    }
}

fn layers_come_in_parallel_and_no_more_than_asked() {
    const LAYERS: usize = 5;
    let content = Content::new(LAYERS, 2);
    let barriers: [Barrier; LAYERS] = std::array::from_fn(|_| Barrier::default());
    // How many were asked for, how many of them may end, and the most that were on their way at one time.
    let (asked, ended, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let seen = Arc::new((asked, ended, most));
    let blobs = content.blobs();
    let config = rdock_image::Digest::sha256_of(&content.config).to_string();
    let (held, counted) = (barriers.clone(), seen.clone());
    // Each layer stops half-way until the test lets it go on.
    let registry = Registry::start(&content, move |request| {
        let digest = request.path.rsplit_once("/blobs/")?.1;
        let blob = blobs.get(digest).filter(|_| digest != config)?;
        let number = counted.0.fetch_add(1, Ordering::SeqCst);
        let running = number + 1 - counted.1.load(Ordering::SeqCst);
        counted.2.fetch_max(running, Ordering::SeqCst);
        let (first, rest) = blob.split_at(blob.len() / 2);
        let steps = [
            Step::Send(first.to_vec()),
            Step::Hold(held[number].clone()),
            Step::Send(rest.to_vec()),
        ];
        let reply = Reply::new(200, "").with("content-length", blob.len());
        Some(reply.steps(steps))
    });
    let host = Host::new();
    let mut config = quick();
    (config.parallel_layers, config.idle_timeout) = (2, Duration::from_secs(300));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (number, barrier) in barriers.iter().enumerate() {
                // The next one is asked for while this one is held.
                let wanted = (number + 2).min(LAYERS);
                let until = Instant::now() + Duration::from_secs(60);
                while seen.0.load(Ordering::SeqCst) < wanted && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(2));
                }
                seen.1.fetch_add(1, Ordering::SeqCst);
                barrier.open();
            }
        });
        host.pull(config, &format!("{}/a", registry.host()))
            .expect("pulled");
    });
    assert_eq!(seen.2.load(Ordering::SeqCst), 2);
    assert_eq!(seen.0.load(Ordering::SeqCst), LAYERS);
}

fn a_digest_is_pulled_by_that_digest() {
    let content = Content::new(1, 3);
    let registry = Registry::plain(&content);
    let image = Host::new()
        .pull(quick(), &format!("{}/a@{}", registry.host(), content.digest()))
        .expect("pulled");
    assert_eq!(image.manifest_digest(), &content.digest());
    assert!(
        registry
            .seen()
            .iter()
            .any(|seen| seen.path == format!("/v2/a/manifests/{}", content.digest()))
    );
}

/// An index whose first entry is for another machine.
fn index(content: &Content, architectures: [&str; 2]) -> Vec<u8> {
    let other = Content::new(1, 99);
    let entry = |content: &Content, architecture: &str| {
        json!({"mediaType": media_type::DOCKER_MANIFEST, "digest": content.digest().as_str(),
               "size": content.manifest.len(), "platform": {"os": "linux", "architecture": architecture}})
    };
    let entries = [entry(&other, architectures[0]), entry(content, architectures[1])];
    json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_LIST, "manifests": entries})
        .to_string()
        .into_bytes()
}

fn an_index_is_followed_for_the_platform() {
    let content = Content::new(1, 4);
    let own = Platform::host().architecture;
    for (architectures, found) in [(["s390x", own.as_str()], true), (["s390x", "riscv64"], false)] {
        let index = index(&content, architectures);
        let registry = Registry::start(&content, move |seen| {
            let answer = Reply::new(200, index.clone()).with("content-type", media_type::DOCKER_LIST);
            seen.path.ends_with("/manifests/1").then_some(answer)
        });
        let host = Host::new();
        match host.pull(quick(), &format!("{}/a:1", registry.host())) {
            Ok(image) if found => assert_eq!(image.manifest_digest(), &content.digest()),
            Err(Error::NoSuchPlatform { available, .. }) if !found => {
                assert_eq!(available, "linux/s390x, linux/riscv64");
                host.assert_nothing_half_made();
            }
            other => panic!("{other:?}"),
        }
    }
}

fn schema_1_is_a_typed_error() {
    let registry = Registry::start(&Content::new(1, 5), |seen| {
        let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        let old = r#"{"schemaVersion":1,"name":"a","fsLayers":[],"history":[]}"#;
        seen.is_manifest()
            .then(|| Reply::new(200, old).with("content-type", kind))
    });
    let error = Host::new()
        .pull(quick(), &format!("{}/a", registry.host()))
        .expect_err("old");
    assert!(
        matches!(error, Error::Image(rdock_image::Error::Unsupported { .. })),
        "{error:?}"
    );
}

fn mirrors_are_asked_first_and_passed_over() {
    let content = Content::new(2, 6);
    let empty = Registry::start(&content, |_| {
        Some(Reply::error(404, "MANIFEST_UNKNOWN", "as scripted"))
    });
    let wrong = Content::new(2, 7).layers;
    let first = content.layer(0);
    let liar = Registry::start(&content, move |seen| {
        seen.is_blob(&first).then(|| Reply::new(200, wrong[0].clone()))
    });
    let good = Registry::plain(&content);
    let mut config = quick();
    for mirror in [&empty, &liar, &good] {
        config.registries.add_mirror("docker.io", &mirror.host(), true);
    }
    let host = Host::new();
    let image = host.pull(config, "mysql:8").expect("pulled");
    assert_eq!(image.manifest_digest(), &content.digest());
    for registry in [&empty, &liar, &good] {
        assert!(
            registry
                .seen()
                .iter()
                .any(|seen| seen.path == "/v2/library/mysql/manifests/8")
        );
    }
}

fn a_source_works_inside_a_runtime() {
    let content = Content::new(1, 8);
    let registry = Registry::plain(&content);
    let reference = Reference::parse(&format!("{}/a", registry.host())).expect("reference");
    let source: Box<dyn ImageSource> = Box::new(RegistryClient::new(quick()).expect("client"));
    let host = Host::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let image =
        runtime.block_on(async { source.fetch(&reference, &Platform::host(), &host.store, &host.progress) });
    assert_eq!(image.expect("pulled").manifest_digest(), &content.digest());
}

fn what_a_name_is_can_be_asked_without_its_layers() {
    let content = Content::new(2, 8);
    let registry = Registry::plain(&content);
    let reference = Reference::parse(&format!("{}/a", registry.host())).expect("reference");
    let source: Box<dyn ImageSource> = Box::new(RegistryClient::new(quick()).expect("client"));
    let (host, platform) = (Host::new(), Platform::host());
    let resolved = source
        .resolve(&reference, &platform, &host.store, &host.progress)
        .expect("resolved");
    assert_eq!(resolved.manifest_digest(), &content.digest());
    assert_eq!(resolved.diff_ids(), content.diff_ids);
    let layers = || {
        let seen = (0..2).map(|number| registry.seen_of(&content.layer(number)).len());
        seen.sum::<usize>()
    };
    assert_eq!(layers(), 0);
    host.assert_nothing_half_made();
    // The rest comes without another look at the name.
    let before = registry.seen().len();
    let image = source
        .fetch_resolved(&resolved, &platform, &host.store, &host.progress)
        .expect("fetched");
    assert_eq!(image.manifest_digest(), &content.digest());
    assert_eq!((layers(), registry.seen().len()), (2, before + 2));
    assert!(host.store.get(reference.as_str()).expect("a look").is_some());
}

fn a_stopped_fetch_ends_at_once_and_leaves_nothing() {
    let content = Content::new(2, 9);
    let slow = content.layer(1);
    let registry = Registry::start(&content, move |seen| {
        let wait = [Step::Wait(Duration::from_secs(600))];
        seen.is_blob(&slow).then(|| Reply::new(200, "").steps(wait))
    });
    let reference = Reference::parse(&format!("{}/a", registry.host())).expect("reference");
    let client = RegistryClient::new(quick()).expect("client");
    let (host, stop) = (Host::new(), Stop::default());
    let (ends, slow) = (stop.clone(), content.layer(1));
    let progress = Progress::new(move |event| {
        if matches!(event, Event::LayerStarted { digest, .. } if digest == slow) {
            ends.stop();
        }
    })
    .stopped_by(stop);
    let error = client
        .fetch(&reference, &Platform::host(), &host.store, &progress)
        .expect_err("stopped");
    assert!(
        matches!(error.downcast_ref(), Some(Error::Stopped { .. })),
        "{error}"
    );
    host.assert_nothing_half_made();
}

fn a_dropped_pull_leaves_nothing() {
    let content = Content::new(2, 9);
    let (slow, blob) = (content.layer(1), content.layers[1].clone());
    let registry = Registry::start(&content, move |seen| {
        let steps = [
            Step::Send(blob[..1000].to_vec()),
            Step::Wait(Duration::from_secs(60)),
        ];
        seen.is_blob(&slow).then(|| {
            Reply::new(200, "")
                .with("content-length", blob.len())
                .steps(steps)
        })
    });
    let host = Host::new();
    let reference = Reference::parse(&format!("{}/a", registry.host())).expect("reference");
    let client = RegistryClient::new(quick()).expect("client");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let platform = Platform::host();
        let pull = client.pull(&reference, &platform, &host.store, &host.progress);
        tokio::time::timeout(Duration::from_secs(2), pull)
            .await
            .expect_err("it hangs");
    });
    // Ends when the store's threads have undone their work.
    drop(runtime);
    assert_eq!(
        registry.seen_of(&content.layer(1)).len(),
        1,
        "it was dropped in the middle of a layer"
    );
    assert!(!host.store.has_layer(&content.diff_ids[1]));
    host.assert_nothing_half_made();
}

fn warnings_and_limits_are_told() {
    let content = Content::new(1, 10);
    let (manifest, digest) = (content.manifest.clone(), content.digest());
    let registry = Registry::start(&content, move |seen| {
        let answer = Reply::new(200, manifest.clone())
            .with("content-type", media_type::DOCKER_MANIFEST)
            .with("docker-content-digest", &digest)
            .with("warning", "299 - \"this image is old\"")
            .with("ratelimit-remaining", "3;w=21600");
        seen.is_manifest().then_some(answer)
    });
    let host = Host::new();
    host.pull(quick(), &format!("{}/a", registry.host()))
        .expect("pulled");
    let events = host.events();
    let texts: Vec<_> = events
        .iter()
        .filter_map(|event| {
            if let Event::Warning { text } = event {
                Some(text.as_str())
            } else {
                None
            }
        })
        .collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[0].ends_with("this image is old") && texts[1].contains(" 3 more pulls"),
        "{texts:?}"
    );
}

fn layers_of_another_image_are_not_fetched_again() {
    let content = Content::new(2, 11);
    let registry = Registry::plain(&content);
    let host = Host::new();
    host.pull(quick(), &format!("{}/a/b:1", registry.host()))
        .expect("pulled");
    let before = registry.seen().len();
    host.pull(quick(), &format!("{}/c/d:2", registry.host()))
        .expect("pulled");
    assert_eq!(
        registry.seen().len() - before,
        2,
        "the manifest and the config alone"
    );
}

fn after_a_failed_pull_the_next_one_works() {
    let content = Content::new(2, 12);
    let (second, mut bytes) = (content.layer(1), content.layers[1].clone());
    bytes[5000] ^= 1;
    let registry = Registry::start(&content, move |seen| {
        (seen.is_blob(&second) && seen.before == 0).then(|| Reply::new(200, bytes.clone()))
    });
    let host = Host::new();
    let name = format!("{}/a", registry.host());
    host.pull(quick(), &name).expect_err("a wrong layer");
    host.assert_nothing_half_made();
    let image = host.pull(quick(), &name).expect("pulled");
    assert_eq!(image.diff_ids(), content.diff_ids);
}
