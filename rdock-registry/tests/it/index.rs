//! Images of several platforms under one name.

use crate::content::Content;
use crate::pushes::make;
use crate::server::Registry;
use crate::{Host, quick, runtime, trial};
use libtest_mimic::Trial;
use rdock_image::{ImageStore, Index, Platform, Progress, Reference};
use rdock_registry::{Error, PushEvent, PushProgress, Pushed, RegistryClient};
use std::sync::{Arc, Mutex};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial(
            "an_index_is_pushed_with_all_its_images",
            an_index_is_pushed_with_all_its_images,
        ),
        trial(
            "a_missing_platform_of_an_index_is_named",
            a_missing_platform_of_an_index_is_named,
        ),
    ]
}

fn push_index(store: &ImageStore, name: &str, index: &Index) -> (Result<Pushed, Error>, Vec<PushEvent>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let copy = events.clone();
    let progress = PushProgress::new(move |event| copy.lock().expect("not poisoned").push(event));
    let client = RegistryClient::new(quick()).expect("a client");
    let reference = Reference::parse(name).expect("a name");
    let pushed = runtime().block_on(client.push_index(&reference, index, store, &progress));
    let events = events.lock().expect("not poisoned").clone();
    (pushed, events)
}

/// An index of one image that was pulled and one that was made here, said to be for another platform.
fn two_platforms(host: &Host) -> (Index, Content, Registry) {
    let content = Content::new(2, 320);
    let from = Registry::plain(&content);
    let pulled = host
        .pull(quick(), &format!("{}/a:1", from.host()))
        .expect("pulled");
    let made = make(&host.store, "made:1", 321);
    let mut entries = [&pulled, &made].map(|image| image.descriptor().expect("an entry"));
    assert_eq!(
        entries[0].platform.as_ref().map(|one| one.os.as_str()),
        Some("linux")
    );
    entries[1].platform = Some(Platform::parse("linux/riscv64").expect("a platform"));
    (Index::new(entries.to_vec()), content, from)
}

fn an_index_is_pushed_with_all_its_images() {
    let host = Host::new();
    let (index, content, _from) = two_platforms(&host);
    let to = Registry::with(|options| options);
    let name = format!("{}/both:1", to.host());
    let (pushed, events) = push_index(&host.store, &name, &index);
    let pushed = pushed.expect("pushed");
    assert_eq!(to.tag("both", "1"), Some(pushed.digest.clone()));
    let done = events
        .iter()
        .filter(|event| matches!(event, PushEvent::Done { .. }));
    assert_eq!(done.count(), 1, "one name, one end");
    // The images have no tags there, and no new names here.
    assert!(host.store.get(&name).expect("read").is_none());
    for (platform, seed) in [("linux/riscv64", 321), ("linux", 320)] {
        let platform = match platform {
            "linux" => Platform::host(),
            other => Platform::parse(other).expect("a platform"),
        };
        let other = Host::new();
        let client = RegistryClient::new(quick()).expect("a client");
        let reference = Reference::parse(&name).expect("a name");
        let image = runtime()
            .block_on(client.pull(&reference, &platform, &other.store, &Progress::default()))
            .expect("pulled");
        match seed {
            320 => assert_eq!(image.manifest_digest(), &content.digest(), "as it came"),
            _ => {
                let made = host.store.get("made:1").expect("read").expect("there");
                assert_eq!(image.id(), made.id());
            }
        }
    }
    // Once more: nothing is sent but the index.
    let before = to.seen().len();
    let (again, _) = push_index(&host.store, &name, &index);
    assert_eq!(again.expect("pushed").digest, pushed.digest);
    let sent: Vec<_> = to.seen().split_off(before);
    assert!(
        sent.iter()
            .all(|seen| !seen.path.contains("/blobs/uploads/") || seen.method == "HEAD"),
        "{sent:?}"
    );
}

fn a_missing_platform_of_an_index_is_named() {
    let host = Host::new();
    let (index, ..) = two_platforms(&host);
    host.store.remove("made:1", true).expect("removed");
    let to = Registry::with(|options| options);
    let (pushed, _) = push_index(&host.store, &format!("{}/both:1", to.host()), &index);
    match &pushed {
        Err(error @ Error::MissingPlatform { platform, digest }) => {
            assert_eq!(
                (platform.as_str(), digest.as_str()),
                ("linux/riscv64", index.manifests[1].digest.as_str())
            );
            assert!(error.hint().is_some_and(|hint| hint.contains("linux/riscv64")));
        }
        other => panic!("{other:?}"),
    }
    assert!(to.seen().is_empty(), "nothing was sent");
}
