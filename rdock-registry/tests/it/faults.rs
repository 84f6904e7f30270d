//! What a pull does when the registry, or the way to it, misbehaves.

use crate::content::Content;
use crate::server::{Registry, Reply, Seen, Step, cut_after};
use crate::{Host, quick, trial};
use libtest_mimic::Trial;
use rdock_image::Event;
use rdock_registry::Error;
use std::net::TcpListener;
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("a_cut_layer_resumes_by_range", a_cut_layer_resumes_by_range),
        trial(
            "a_registry_without_ranges_is_read_anew",
            a_registry_without_ranges_is_read_anew,
        ),
        trial(
            "a_layer_that_stays_short_is_an_error",
            a_layer_that_stays_short_is_an_error,
        ),
        trial("retry_after_is_honoured", retry_after_is_honoured),
        trial("too_long_a_pause_is_an_error", too_long_a_pause_is_an_error),
        trial(
            "server_errors_are_tried_again_and_end",
            server_errors_are_tried_again_and_end,
        ),
        trial("reg_wrong_digest", reg_wrong_digest),
        trial("reg_endless_body", reg_endless_body),
        trial("a_silent_registry_is_given_up", a_silent_registry_is_given_up),
        trial("an_unknown_image_is_not_found", an_unknown_image_is_not_found),
        trial(
            "an_unreachable_registry_is_named",
            an_unreachable_registry_is_named,
        ),
    ]
}

/// Pulls while the first layer is served by `script`.
fn with_layer(
    seed: u64,
    script: impl Fn(&Seen, &[u8]) -> Option<Reply> + Send + Sync + 'static,
) -> (Content, Registry, Host, Result<rdock_image::Image, Error>) {
    let content = Content::new(2, seed);
    let (digest, blob) = (content.layer(0), content.layers[0].clone());
    let registry = Registry::start(&content, move |seen| {
        if seen.is_blob(&digest) {
            script(seen, &blob)
        } else {
            None
        }
    });
    let host = Host::new();
    let result = host.pull(quick(), &format!("{}/a", registry.host()));
    (content, registry, host, result)
}

fn a_cut_layer_resumes_by_range() {
    let (content, registry, host, result) = with_layer(20, |seen, blob| {
        (seen.before == 0).then(|| cut_after(blob, 100_000))
    });
    result.expect("pulled");
    let seen = registry.seen_of(&content.layer(0));
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].range.as_deref(), Some("bytes=100000-"));
    let retried = host
        .events()
        .iter()
        .any(|event| matches!(event, Event::Retrying { attempt: 1, .. }));
    assert!(retried, "the retry is told");
}

fn a_registry_without_ranges_is_read_anew() {
    let (_, _, _, result) = with_layer(21, |seen, blob| match seen.before {
        0 => Some(cut_after(blob, 100_000)),
        _ => Some(Reply::new(200, blob)),
    });
    result.expect("pulled");
}

fn a_layer_that_stays_short_is_an_error() {
    let (content, registry, host, result) = with_layer(22, |_, blob| Some(Reply::new(200, &blob[..100_000])));
    let error = result.expect_err("short");
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
    // The first one and two more.
    assert_eq!(registry.seen_of(&content.layer(0)).len(), 1 + 2);
    host.assert_nothing_half_made();
}

fn retry_after_is_honoured() {
    let started = Instant::now();
    let (_, _, host, result) = with_layer(23, |seen, _| {
        (seen.before == 0).then(|| Reply::error(429, "TOOMANYREQUESTS", "as scripted").with("retry-after", 2))
    });
    result.expect("pulled");
    assert!(started.elapsed() >= Duration::from_secs(2));
    let told =
        |event: &Event| matches!(event, Event::Retrying { delay, .. } if *delay == Duration::from_secs(2));
    assert!(host.events().iter().any(told));
}

fn too_long_a_pause_is_an_error() {
    let (_, _, host, result) = with_layer(24, |_, _| {
        Some(Reply::error(429, "TOOMANYREQUESTS", "as scripted").with("retry-after", 3600))
    });
    let error = result.expect_err("an hour");
    let hour = Some(Duration::from_secs(3600));
    assert!(
        matches!(&error, Error::Status { status: 429, retry_after, .. } if *retry_after == hour),
        "{error:?}"
    );
    assert!(error.hint().is_some());
    host.assert_nothing_half_made();
}

fn server_errors_are_tried_again_and_end() {
    let (_, _, _, result) = with_layer(25, |seen, _| {
        (seen.before < 2).then(|| Reply::error(503, "UNAVAILABLE", "as scripted"))
    });
    result.expect("pulled");
    let (content, registry, host, result) =
        with_layer(26, |_, _| Some(Reply::error(500, "UNKNOWN", "as scripted")));
    let error = result.expect_err("always 500");
    assert!(matches!(error, Error::Status { status: 500, .. }), "{error:?}");
    assert_eq!(registry.seen_of(&content.layer(0)).len(), 3);
    host.assert_nothing_half_made();
}

type Lie = fn(&Seen, &[u8]) -> Option<Reply>;

fn reg_wrong_digest() {
    let lies: [(&str, Lie); 4] = [
        ("other bytes", |_, blob| {
            let mut blob = blob.to_vec();
            let last = blob.len() - 20;
            blob[last] ^= 1;
            Some(Reply::new(200, blob))
        }),
        ("another, longer layer", |_, blob| {
            Some(Reply::new(200, blob.repeat(2)))
        }),
        ("206 with other bytes", |seen, blob| match seen.from() {
            None => Some(cut_after(blob, 100_000)),
            Some(from) => Some(Reply::new(206, vec![0; blob.len() - from]).with(
                "content-range",
                format!("bytes {from}-{}/{}", blob.len() - 1, blob.len()),
            )),
        }),
        ("wrong Content-Range", |seen, blob| match seen.from() {
            None => Some(cut_after(blob, 100_000)),
            Some(from) => Some(Reply::new(206, &blob[from..]).with(
                "content-range",
                format!("bytes 0-{}/{}", blob.len() - 1, blob.len()),
            )),
        }),
    ];
    for (number, (what, lie)) in lies.into_iter().enumerate() {
        let (content, _, host, result) = with_layer(30 + number as u64, lie);
        let error = result.expect_err(what);
        let layer = content.layer(0).to_string();
        let expected = match what {
            "wrong Content-Range" => matches!(
                &error,
                Error::Malformed {
                    what: "Content-Range",
                    ..
                }
            ),
            // The first byte beyond the announced size ends it.
            "another, longer layer" => matches!(&error, Error::TooLarge { what: "a layer", .. }),
            _ => matches!(&error, Error::WrongDigest { expected, .. } if *expected == layer),
        };
        assert!(expected, "{what}: {error:?}");
        assert!(!host.store.has_layer(&content.diff_ids[0]), "{what}");
        host.assert_nothing_half_made();
    }
    // A manifest that is not what its digest or its announcement says; a config that is another one.
    let content = Content::new(1, 35);
    let other = Content::new(1, 36);
    let (manifest, config) = (
        other.manifest.clone(),
        rdock_image::Digest::sha256_of(&content.config),
    );
    let by_digest = Registry::start(&content, move |seen| {
        seen.is_manifest().then(|| Reply::new(200, manifest.clone()))
    });
    let (manifest, wrong) = (content.manifest.clone(), other.digest());
    let announced = Registry::start(&content, move |seen| {
        seen.is_manifest()
            .then(|| Reply::new(200, manifest.clone()).with("docker-content-digest", &wrong))
    });
    let mut bytes = content.config.clone();
    bytes[0] = b' ';
    let wrong_config = Registry::start(&content, move |seen| {
        seen.is_blob(&config).then(|| Reply::new(200, bytes.clone()))
    });
    let names = [
        format!("{}/a@{}", by_digest.host(), content.digest()),
        format!("{}/a", announced.host()),
        format!("{}/a", wrong_config.host()),
    ];
    for name in names {
        let host = Host::new();
        let error = host.pull(quick(), &name).expect_err("a lie");
        assert!(matches!(error, Error::WrongDigest { .. }), "{error:?}");
        host.assert_nothing_half_made();
    }
}

fn reg_endless_body() {
    let endless = || Reply::new(200, "").steps([Step::Forever(vec![b' '; 64 << 10])]);
    let content = Content::new(1, 40);
    let layer = content.layer(0);
    let config = rdock_image::Digest::sha256_of(&content.config);
    let servers = [
        Registry::start(&content, move |seen| seen.is_manifest().then(endless)),
        Registry::start(&content, move |seen| seen.is_blob(&config).then(endless)),
        Registry::start(&content, move |seen| {
            if seen.path.starts_with("/token") {
                Some(endless())
            } else {
                Some(Reply::bearer(&realm(seen), ""))
            }
        }),
    ];
    for (registry, what) in servers
        .iter()
        .zip(["the manifest", "the image config", "the token"])
    {
        let host = Host::new();
        let error = host
            .pull(quick(), &format!("{}/a", registry.host()))
            .expect_err("endless");
        assert!(
            matches!(&error, Error::TooLarge { what: found, .. } if *found == what),
            "{what}: {error:?}"
        );
        host.assert_nothing_half_made();
    }
    // More than the layer's size, and an error without an end.
    let registry = Registry::start(&content, move |seen| seen.is_blob(&layer).then(endless));
    let host = Host::new();
    let error = host
        .pull(quick(), &format!("{}/a", registry.host()))
        .expect_err("endless");
    assert!(
        matches!(
            error,
            Error::TooLarge { .. } | Error::WrongDigest { .. } | Error::Image(_)
        ),
        "{error:?}"
    );
    host.assert_nothing_half_made();
    let registry = Registry::start(&content, move |seen| {
        seen.is_manifest().then(|| endless().status(403))
    });
    let error = Host::new()
        .pull(quick(), &format!("{}/a", registry.host()))
        .expect_err("endless");
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
}

/// Where the scripted registry gives tokens: at its own address, which the client knows by the Host header alone.
fn realm(seen: &Seen) -> String {
    format!("http://{}/token", seen.host)
}

fn a_silent_registry_is_given_up() {
    let content = Content::new(1, 41);
    let (layer, blob) = (content.layer(0), content.layers[0].clone());
    // A byte, and then nothing; and no answer at all is the manifest's turn.
    let slow = Registry::start(&content, move |seen| {
        let steps = [
            Step::Send(blob[..1].to_vec()),
            Step::Wait(Duration::from_secs(60)),
        ];
        seen.is_blob(&layer).then(|| {
            Reply::new(200, "")
                .with("content-length", blob.len())
                .steps(steps)
        })
    });
    let mut config = quick();
    (config.idle_timeout, config.retries) = (Duration::from_millis(500), 0);
    let started = Instant::now();
    let host = Host::new();
    let error = host
        .pull(config, &format!("{}/a", slow.host()))
        .expect_err("silent");
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
    host.assert_nothing_half_made();
}

fn an_unknown_image_is_not_found() {
    let registry = Registry::start(&Content::new(1, 42), |_| {
        Some(Reply::error(404, "MANIFEST_UNKNOWN", "as scripted"))
    });
    let host = Host::new();
    let name = format!("{}/no/such:1", registry.host());
    let error = host.pull(quick(), &name).expect_err("unknown");
    assert!(
        matches!(&error, Error::NotFound { reference, .. } if *reference == name),
        "{error:?}"
    );
    assert!(!error.to_string().contains('\n'));
    assert_eq!(registry.seen().len(), 1, "it is not tried again");
    host.assert_nothing_half_made();
}

fn an_unreachable_registry_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let host = Host::new();
    let error = host
        .pull(quick(), &format!("{address}/a"))
        .expect_err("nobody listens");
    assert!(
        matches!(&error, Error::Transport { registry, .. } if *registry == address),
        "{error:?}"
    );
    assert!(error.hint().is_some_and(|hint| hint.contains(&address)));
    host.assert_nothing_half_made();
}
