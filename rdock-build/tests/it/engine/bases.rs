//! Base images of a registry: what they are is asked when the build begins, their layers come when a step needs them.

use crate::bench::{Bench, wait};
use crate::{Tested, root_trial};
use libtest_mimic::Trial;
use rdock_build::{BuildError, BuildEvent, Builder, CacheFilter, Miss, Output, PullPolicy, StepOutcome};
use rdock_image::{Digest, Event, ManifestDocument, Reference};
use rdock_registry::server::{Fault, FaultRule, RegistryServer, Reply, Seen, ServerOptions};
use rdock_registry::{PushProgress, RegistryClient, RegistryConfig};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        root_trial("a_cached_build_fetches_no_layer_of_a_base_that_is_gone", cached),
        root_trial("an_explained_build_fetches_no_layer", explained),
        root_trial("a_build_for_the_cache_alone_fetches_no_layer", cache_only),
        root_trial("a_failing_stage_never_fetches_the_base_of_another", failing),
        root_trial("two_stages_of_one_base_fetch_it_once", once),
        root_trial("a_stage_that_nothing_needs_is_not_asked_for", unreachable),
        root_trial("a_tag_that_moves_during_the_build_does_not_mix", moved),
        root_trial("a_missing_base_is_named_with_its_line", missing),
        root_trial("policies_of_base_images", policies),
        root_trial("a_dropped_build_ends_its_pull", dropped),
        root_trial("bases_are_looked_up_at_once", at_once),
    ]
}

/// A bench whose images can be in a registry too.
pub(super) struct Remote {
    pub(super) bench: Bench,
    pub(super) server: RegistryServer,
    client: RegistryClient,
    pub(super) dir: tempfile::TempDir,
}

impl Remote {
    pub(super) fn new() -> Tested<Self> {
        Self::scripted(|_| None)
    }

    /// With a registry that answers by this script where it gives something.
    fn scripted(script: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> Tested<Self> {
        let mut bench = Bench::new()?;
        let dir = tempfile::tempdir()?;
        let server = RegistryServer::start(ServerOptions::new(dir.path()).script(script))?;
        let client = RegistryClient::new(RegistryConfig::default())?;
        bench.runtime = bench.runtime.clone().with_source(Arc::new(client.clone()));
        Ok(Self {
            bench,
            server,
            client,
            dir,
        })
    }

    /// Another machine: a root of its own, and the same registry.
    pub(super) fn other(&self) -> Tested<Bench> {
        let mut bench = Bench::new()?;
        bench.runtime = bench.runtime.clone().with_source(Arc::new(self.client.clone()));
        Ok(bench)
    }

    /// As [`Remote::other`], with a Dockerfile and one more file in its context.
    pub(super) fn other_with(&self, file: &str, content: &str, dockerfile: &str) -> Tested<Bench> {
        let bench = self.other()?;
        bench.file(file, content)?;
        bench.file("Dockerfile", dockerfile)?;
        Ok(bench)
    }

    /// Sends an image of the bench.
    pub(super) fn push(&self, name: &str) -> Tested {
        let (reference, progress) = (Reference::parse(name)?, PushProgress::default());
        let store = self.bench.runtime.images();
        wait(self.client.push(&reference, store, &progress))??;
        Ok(())
    }

    pub(super) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.server.host())
    }

    /// Makes an image of `base` with a file `/made` of this text, which only the registry has then. Returns its name.
    pub(super) fn publish(&self, name: &str, text: &str) -> Tested<String> {
        let name = self.name(name);
        let file = format!("FROM base\nENV MADE={text}\nRUN echo {text} > /made\n");
        self.bench
            .build(|builder| builder.dockerfile_text(file).tag(name.as_str()))?;
        self.push(&name)?;
        self.bench.runtime.images().remove(&name, true)?;
        Builder::prune(&self.bench.runtime, &CacheFilter::default())?;
        Ok(name)
    }

    /// Digest and bytes of a manifest in the registry.
    pub(super) fn manifest(&self, name: &str) -> Tested<(Digest, Vec<u8>)> {
        let reference = Reference::parse(name)?;
        let tag = reference.tag().unwrap_or("latest");
        let digest = self.server.tag(reference.path(), tag).ok_or("no such tag")?;
        let bytes = self.server.blob(reference.path(), &digest).ok_or("no manifest")?;
        Ok((digest, bytes))
    }

    /// How often the layers of an image were asked for.
    pub(super) fn layers(&self, name: &str) -> Tested<usize> {
        let ManifestDocument::Manifest(manifest) = ManifestDocument::parse(&self.manifest(name)?.1, None)?
        else {
            return Err("an index".into());
        };
        let asked = |digest: &String| {
            let seen = self.server.seen_of(digest);
            seen.iter().filter(|seen| seen.method == "GET").count()
        };
        Ok(manifest.layers.iter().map(|layer| asked(&layer.digest)).sum())
    }

    /// Is the image in the store, as a user sees it?
    pub(super) fn has(&self, name: &str) -> Tested<bool> {
        let store = self.bench.runtime.images();
        let wanted = Reference::parse(name)?;
        let listed = store
            .images()?
            .iter()
            .any(|image| image.references().contains(&wanted));
        assert_eq!(listed, store.get(name)?.is_some());
        Ok(listed)
    }
}

fn cached() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("builder:1", "first")?;
    let bench = &remote.bench;
    let text = |to: &str| {
        format!("FROM {base} AS build\nRUN cat /made > /out\nFROM base\nCOPY --from=build /out {to}\n")
    };
    bench.file("Dockerfile", &text("/out"))?;
    let (first, seen) = bench.build(|builder| builder)?;
    assert_eq!((seen.ran(), remote.layers(&base)?), (2, 1));
    assert_eq!(bench.read(&first, "out")?, "first\n");
    assert!(remote.has(&base)?);
    bench.runtime.images().remove(&base, true)?;
    let (second, seen) = bench.build(|builder| builder)?;
    assert_eq!((seen.ran(), seen.cached(), remote.layers(&base)?), (0, 2, 1));
    assert_eq!(first.image_id(), second.image_id());
    assert!(!remote.has(&base)?);
    // A step that reads what a cached one made needs the layers below that.
    bench.file("Dockerfile", &text("/other"))?;
    let (third, seen) = bench.build(|builder| builder)?;
    assert_eq!((seen.ran(), remote.layers(&base)?), (1, 2));
    assert_eq!(bench.read(&third, "other")?, "first\n");
    assert!(remote.has(&base)?);
    // And so does the image itself.
    bench.file(
        "Dockerfile",
        &format!("FROM {base} AS build\nRUN cat /made > /out\n"),
    )?;
    bench.runtime.images().remove(&base, true)?;
    let (fourth, seen) = bench.build(|builder| builder)?;
    assert_eq!((seen.ran(), remote.layers(&base)?), (0, 3));
    assert_eq!(bench.read(&fourth, "made")?, "first\n");
    bench.assert_clean()
}

fn explained() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("builder:1", "first")?;
    let text = format!("FROM {base}\nRUN cat /made > /out\nCOPY --from={base} /made /copied\n");
    remote.bench.file("Dockerfile", &text)?;
    let steps = remote.bench.explain(|builder| builder)?;
    assert_eq!(steps[0].outcome, StepOutcome::Base);
    let ran = StepOutcome::Missed { why: vec![Miss::New] };
    assert_eq!(steps[1].outcome, ran, "{steps:?}");
    assert_eq!(remote.layers(&base)?, 0);
    assert!(!remote.has(&base)?);
    remote.bench.assert_clean()
}

fn cache_only() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("builder:1", "first")?;
    let bench = &remote.bench;
    bench.file("Dockerfile", &format!("FROM {base}\nRUN cat /made > /out\n"))?;
    bench.build(|builder| builder)?;
    bench
        .runtime
        .images()
        .prune(&rdock_image::PruneFilter::default())?;
    bench.runtime.images().remove(&base, true)?;
    let before = remote.layers(&base)?;
    let (_, seen) = bench.build(|builder| builder.output(Output::Nothing))?;
    assert_eq!((seen.cached(), remote.layers(&base)?), (1, before));
    Ok(())
}

fn failing() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("builder:1", "first")?;
    let text = format!("FROM base AS early\nRUN exit 3\nFROM {base}\nCOPY --from=early /x /x\nRUN true\n");
    remote.bench.file("Dockerfile", &text)?;
    let error = remote.bench.fails(|builder| builder)?;
    assert_eq!(error.exit_code(), Some(3), "{error}");
    assert_eq!(remote.layers(&base)?, 0);
    assert!(!remote.has(&base)?);
    remote.bench.assert_clean()
}

fn once() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("builder:1", "first")?;
    let text = format!(
        "FROM {base} AS a\nRUN cat /made > /a\nFROM {base} AS b\nRUN cat /made > /b\nFROM {base}\n\
         COPY --link --from=a /a /a\nCOPY --link --from=b /b /b\n"
    );
    remote.bench.file("Dockerfile", &text)?;
    let (built, seen) = remote.bench.build(|builder| builder.parallel(8))?;
    assert_eq!((seen.ran(), remote.layers(&base)?), (4, 1));
    assert_eq!(remote.bench.read(&built, "b")?, "first\n");
    // The name is looked up once, too.
    let reference = Reference::parse(&base)?;
    let path = format!("/v2/{}/manifests/1", reference.path());
    let asked = remote.server.seen();
    let asked = asked
        .iter()
        .filter(|seen| seen.method == "GET" && seen.path == path);
    assert_eq!(asked.count(), 1);
    Ok(())
}

fn unreachable() -> Tested {
    let remote = Remote::new()?;
    let (unused, absent) = (remote.publish("unused:1", "unused")?, remote.name("absent:1"));
    let before = remote.server.seen().len();
    let text =
        format!("FROM {absent} AS one\nRUN true\nFROM {unused} AS two\nRUN true\nFROM base\nRUN true\n");
    remote.bench.file("Dockerfile", &text)?;
    remote.bench.build(|builder| builder)?;
    assert_eq!(remote.server.seen().len(), before);
    Ok(())
}

fn moved() -> Tested {
    let remote = Remote::new()?;
    let other = remote.publish("other:1", "other")?;
    let base = remote.publish("builder:1", "first")?;
    let (first, _) = remote.manifest(&base)?;
    let text =
        format!("FROM base AS early\nRUN echo early > /early\nFROM {base}\nCOPY --from=early /early /\n");
    remote.bench.file("Dockerfile", &text)?;
    // When the first command runs, the base has been looked up and not been fetched.
    let ManifestDocument::Manifest(manifest) = ManifestDocument::parse(&remote.manifest(&other)?.1, None)?
    else {
        return Err("an index".into());
    };
    for digest in std::iter::once(&manifest.config.digest).chain(manifest.layers.iter().map(|l| &l.digest)) {
        let bytes = remote.server.blob("other", &digest.parse()?).ok_or("no blob")?;
        remote.server.put_blob("builder", &bytes)?;
    }
    let (moved, bytes) = remote.manifest(&other)?;
    let server = Arc::new(remote.server);
    let registry = server.clone();
    let media_type = manifest.media_type.clone().unwrap_or_default();
    let (built, _) = remote.bench.build(|builder| {
        builder.progress(move |event: BuildEvent| {
            if let BuildEvent::StepStarted { .. } = event {
                registry
                    .put_manifest("builder", "1", &media_type, &bytes)
                    .expect("the tag moves");
            }
        })
    })?;
    assert_eq!(server.tag("builder", "1"), Some(moved.clone()));
    assert_eq!(remote.bench.read(&built, "made")?, "first\n");
    assert!(built.config.config.env.contains(&"MADE=first".to_owned()));
    let image = |digest: &Digest| -> Tested {
        let image = remote.bench.runtime.images().get(&base)?.ok_or("no image")?;
        assert_eq!(image.manifest_digest(), digest);
        Ok(())
    };
    image(&first)?;
    // The next build that asks gets the other one, whole.
    remote
        .bench
        .file("Dockerfile", &format!("FROM {base}\nRUN true\n"))?;
    let (built, _) = remote.bench.build(|builder| builder.pull(PullPolicy::Always))?;
    assert_eq!(remote.bench.read(&built, "made")?, "other\n");
    assert!(built.config.config.env.contains(&"MADE=other".to_owned()));
    image(&moved)
}

fn missing() -> Tested {
    let remote = Remote::new()?;
    let absent = remote.name("absent:9");
    let text = format!("FROM base AS first\nRUN true\nFROM {absent}\nRUN true\n");
    remote.bench.file("Dockerfile", &text)?;
    for policy in [PullPolicy::Missing, PullPolicy::Always, PullPolicy::Never] {
        let (error, seen) = remote.bench.fails_seen(|builder| builder.pull(policy))?;
        // Said before anything runs.
        assert_eq!(seen.ran(), 0);
        let place = error.place().ok_or("no place")?;
        assert_eq!(place.line, 3, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("Dockerfile:3") && text.contains("absent:9"),
            "{text}"
        );
        assert!(matches!(error, BuildError::BaseImage { .. }));
        if policy == PullPolicy::Always {
            // `base` itself is nowhere else.
            break;
        }
    }
    remote.bench.assert_clean()
}

fn policies() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("builder:1", "first")?;
    let bench = &remote.bench;
    bench.file("Dockerfile", &format!("FROM {base}\nRUN cat /made > /out\n"))?;
    let never = |builder: Builder| builder.pull(PullPolicy::Never);
    let error = bench.fails(never)?;
    let source = std::error::Error::source(&error)
        .map(ToString::to_string)
        .unwrap_or_default();
    assert!(source.contains("nothing may be pulled"), "{error}: {source}");
    bench.build(|builder| builder)?;
    // One that is there is not asked for.
    let before = remote.server.seen().len();
    bench.build(never)?;
    bench.build(|builder| builder)?;
    assert_eq!(remote.server.seen().len(), before);
    // One that may have changed is, and its layers stay here.
    let (_, seen) = bench.build(|builder| builder.pull(PullPolicy::Always))?;
    assert!(remote.server.seen().len() > before);
    assert_eq!((seen.ran(), remote.layers(&base)?), (0, 1));
    Ok(())
}

fn dropped() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("builder:1", "first")?;
    let text = format!("FROM {base}\nRUN true\n");
    remote.bench.file("Dockerfile", &text)?;
    let ManifestDocument::Manifest(manifest) = ManifestDocument::parse(&remote.manifest(&base)?.1, None)?
    else {
        return Err("an index".into());
    };
    let last = manifest.layers.last().ok_or("no layers")?.digest.clone();
    // Longer than anybody here waits.
    let silent = FaultRule::new(Fault::Silent(Duration::from_secs(600))).on_path(&last);
    remote.server.set_faults(vec![silent]);
    remote
        .bench
        .build_until(|event| matches!(event, BuildEvent::Pull(Event::LayerStarted { .. })))?;
    remote.bench.assert_clean_soon()?;
    assert!(!remote.has(&base)?);
    remote.server.set_faults(Vec::new());
    remote.bench.build(|builder| builder)?;
    Ok(())
}

fn at_once() -> Tested {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (tell, hear) = tokio::sync::oneshot::channel();
    let (noted, tell) = (asked.clone(), Mutex::new(Some(tell)));
    let remote = Remote::scripted(move |request| {
        if request.path.ends_with("/manifests/1") && request.method == "GET" {
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.push(request.path.clone());
            if noted.len() == 2
                && let Some(tell) = tell.lock().unwrap_or_else(PoisonError::into_inner).take()
            {
                // Nobody listens when the build has ended.
                let _ = tell.send(());
            }
        }
        None
    })?;
    let (one, two) = (remote.publish("one:1", "one")?, remote.publish("two:1", "two")?);
    let asked = || std::mem::take(&mut *asked.lock().unwrap_or_else(PoisonError::into_inner));
    asked();
    let text = format!("FROM {one} AS one\nFROM {two}\nCOPY --from=one /made /one\n");
    remote.bench.file("Dockerfile", &text)?;
    // Nobody is answered, so who asks for one after the other never asks for the second.
    let silent = FaultRule::new(Fault::Silent(Duration::from_secs(600))).on_path("/manifests/1");
    remote.server.set_faults(vec![silent]);
    remote.bench.build_until_told(hear)?;
    let mut names = asked();
    names.sort();
    assert_eq!(names, ["/v2/one/manifests/1", "/v2/two/manifests/1"]);
    remote.server.set_faults(Vec::new());
    let (built, _) = remote.bench.build(|builder| builder)?;
    assert_eq!(remote.bench.read(&built, "one")?, "one\n");
    assert_eq!(remote.bench.read(&built, "made")?, "two\n");
    // What cannot be had is said at its own line, and is asked for once.
    asked();
    let (three, four) = (remote.name("three:1"), remote.name("four:1"));
    let text = format!("FROM {three} AS three\nFROM {four}\nCOPY --from=three /x /y\n");
    remote.bench.file("Dockerfile", &text)?;
    let error = remote.bench.fails(|builder| builder)?;
    assert!(error.to_string().contains("three:1"), "{error}");
    assert_eq!(error.place().map(|place| place.line), Some(1));
    assert_eq!(asked().len(), 2);
    Ok(())
}
