//! Every fault of the server, while an image is pulled and while one is pushed: the right result or a typed error, in
//! bounded time and memory.

use crate::content::Content;
use crate::resume::{check, peak};
use crate::server::{Registry, Reply, Seen};
use crate::{Host, push_with, quick, runtime, trial};
use libtest_mimic::Trial;
use rdock_image::Reference;
use rdock_registry::server::{Fault, FaultRule};
use rdock_registry::{Error, RegistryClient, RegistryConfig};
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("every_fault_of_a_pull_ends", every_fault_of_a_pull_ends),
        trial("every_fault_of_a_push_ends", every_fault_of_a_push_ends),
        trial(
            "a_byte_now_and_then_is_no_progress",
            a_byte_now_and_then_is_no_progress,
        ),
        trial("what_never_ends_costs_no_memory", what_never_ends_costs_no_memory),
        trial("tags_come_page_by_page", tags_come_page_by_page),
        trial(
            "a_server_starts_inside_a_runtime",
            a_server_starts_inside_a_runtime,
        ),
    ]
}

/// Far more than any of these needs on a busy machine, far less than for ever.
const BOUND: Duration = Duration::from_secs(60);

fn impatient() -> RegistryConfig {
    let mut config = quick();
    (config.retries, config.idle_timeout) = (1, Duration::from_millis(500));
    config
}

/// All of them; `elsewhere` is another registry.
fn faults(elsewhere: &Registry) -> Vec<Fault> {
    vec![
        Fault::Cut(0),
        Fault::Cut(100),
        Fault::CutUpload(0),
        Fault::CutUpload(1000),
        Fault::LoseUpload,
        Fault::WrongBytes,
        Fault::WrongDigest,
        Fault::IgnoreRange,
        Fault::WrongContentRange,
        Fault::Status(400, None),
        Fault::Status(404, None),
        Fault::Status(429, Some(1)),
        Fault::Status(500, None),
        Fault::Unauthorized,
        Fault::Slow(Duration::from_millis(100)),
        Fault::Silent(Duration::from_secs(2)),
        Fault::Redirect(format!("http://{}", elsewhere.host())),
        Fault::Endless,
        Fault::Encoded("gzip"),
    ]
}

/// Each fault always, and once.
fn rules(elsewhere: &Registry) -> Vec<FaultRule> {
    faults(elsewhere)
        .into_iter()
        .flat_map(|fault| [FaultRule::new(fault.clone()), FaultRule::new(fault).times(1)])
        .collect()
}

fn every_fault_of_a_pull_ends() {
    let content = Content::new(2, 160);
    let registry = Registry::plain(&content);
    let elsewhere = Registry::plain(&Content::new(1, 161));
    let name = format!("{}/a:1", registry.host());
    for path in ["/manifests/", "/blobs/"] {
        for rule in rules(&elsewhere) {
            let what = format!("{rule:?} on {path}");
            let host = Host::new();
            registry.set_faults(vec![rule.on_path(path)]);
            let started = Instant::now();
            match host.pull(impatient(), &name) {
                Ok(image) => assert_eq!(image.manifest_digest(), &content.digest(), "{what}"),
                Err(error) => {
                    assert!(!error.to_string().is_empty(), "{what}");
                    host.assert_nothing_half_made();
                }
            }
            assert!(started.elapsed() < BOUND, "{what}: {:?}", started.elapsed());
            check(&host.store, &[&content]);
            registry.set_faults(Vec::new());
            let image = host
                .pull(quick(), &name)
                .unwrap_or_else(|error| panic!("after {what}: {error}"));
            assert_eq!(image.manifest_digest(), &content.digest(), "after {what}");
        }
    }
}

fn every_fault_of_a_push_ends() {
    let content = Content::new(1, 162);
    let from = Registry::plain(&content);
    let elsewhere = Registry::with(|options| options);
    let host = Host::new();
    let base = format!("{}/a:1", from.host());
    let image = host.pull(quick(), &base).expect("pulled");
    for path in ["/manifests/", "/blobs/"] {
        for rule in rules(&elsewhere) {
            let what = format!("{rule:?} on {path}");
            let to = Registry::with(|options| options.fault(rule.on_path(path)));
            let name = format!("{}/b:1", to.host());
            host.store
                .tag(&image, &Reference::parse(&name).expect("a name"))
                .expect("tagged");
            let started = Instant::now();
            let (pushed, _) = push_with(&host.store, impatient(), &name);
            assert!(started.elapsed() < BOUND, "{what}: {:?}", started.elapsed());
            match pushed {
                // To be sent elsewhere is no fault of the manifest's.
                Ok(pushed) => assert_eq!(pushed.digest, content.digest(), "{what}"),
                Err(error) => assert!(!error.to_string().is_empty(), "{what}"),
            }
            to.set_faults(Vec::new());
            let (pushed, _) = push_with(&host.store, quick(), &name);
            let pushed = pushed.unwrap_or_else(|error| panic!("after {what}: {error}"));
            assert_eq!(to.tag("b", "1"), Some(pushed.digest), "after {what}");
            assert_eq!(
                to.blob("b", &content.layer(0)).as_ref(),
                Some(&content.layers[0]),
                "after {what}"
            );
            check(&host.store, &[&content]);
        }
    }
}

fn a_byte_now_and_then_is_no_progress() {
    let content = Content::new(1, 163);
    for path in ["/manifests/", "/blobs/"] {
        let registry = Registry::plain(&content);
        let slow = Fault::Slow(Duration::from_millis(50));
        registry.set_faults(vec![FaultRule::new(slow).on_path(path)]);
        let host = Host::new();
        let started = Instant::now();
        let error = host
            .pull(impatient(), &format!("{}/a:1", registry.host()))
            .expect_err("slow-loris");
        // The whole manifest would take a minute or so, the layer hours.
        assert!(matches!(error, Error::Transport { .. }), "{error:?}");
        assert!(error.is_transient() && started.elapsed() < Duration::from_secs(30));
        host.assert_nothing_half_made();
    }
}

fn what_never_ends_costs_no_memory() {
    let content = Content::new(1, 164);
    for path in ["/manifests/", "/blobs/"] {
        let registry = Registry::plain(&content);
        registry.set_faults(vec![FaultRule::new(Fault::Endless).on_path(path)]);
        let host = Host::new();
        let name = format!("{}/a:1", registry.host());
        // Another process, whose memory nobody else uses: 24 MiB for a good pull, most of it code.
        let (ended, kib) = peak("pull", host.path(), &name);
        assert!(!ended.success());
        assert!(kib < 128 << 10, "{path}: {kib} KiB");
    }
}

fn tags_come_page_by_page() {
    let content = Content::new(1, 165);
    let registry = Registry::with(|options| {
        options.script(|seen: &Seen| {
            let first = seen.path == "/v2/a/tags/list";
            first.then(|| {
                Reply::new(200, r#"{"name":"a","tags":["0"]}"#)
                    .with("link", "</v2/a/tags/list?n=2&last=0>; rel=\"next\"")
            })
        })
    });
    for tag in ["0", "1", "2", "3", "4"] {
        registry.add(&content, "a", tag);
    }
    let ask = |name: &str| {
        let client = RegistryClient::new(quick()).expect("a client");
        runtime().block_on(client.tags(&Reference::parse(name).expect("a name")))
    };
    let tags = ask(&format!("{}/a", registry.host())).expect("listed");
    assert_eq!(tags, ["0", "1", "2", "3", "4"]);
    let unknown = ask(&format!("{}/none", registry.host()));
    assert!(matches!(unknown, Err(Error::NotFound { .. })), "{unknown:?}");
    // A next page elsewhere would get the credentials.
    let target = registry.host();
    let thief = Registry::with(|options| {
        options.script(move |_| {
            let link = format!("<http://{target}/v2/a/tags/list>; rel=\"next\"");
            Some(Reply::new(200, r#"{"tags":null}"#).with("link", link))
        })
    });
    let sent = ask(&format!("{}/a", thief.host()));
    assert!(
        matches!(
            sent,
            Err(Error::Malformed {
                what: "list of tags",
                ..
            })
        ),
        "{sent:?}"
    );
}

fn a_server_starts_inside_a_runtime() {
    let runtime = runtime();
    let host = Host::new();
    runtime.block_on(async {
        let registry = Registry::plain(&Content::new(1, 166));
        let client = RegistryClient::new(quick()).expect("a client");
        let name = Reference::parse(&format!("{}/a:1", registry.host())).expect("a name");
        let platform = rdock_image::Platform::host();
        client
            .pull(&name, &platform, &host.store, &host.progress)
            .await
            .expect("pulled");
    });
}
