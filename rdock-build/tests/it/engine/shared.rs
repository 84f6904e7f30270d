//! Caches that machines share, and images in layouts: in a registry, in a directory, in the image.

use super::bases::Remote;
use crate::bench::Bench;
use crate::{Tested, root_trial};
use libtest_mimic::Trial;
use rdock_build::{Builder, CacheSource, CacheTarget, NamedContext, Output, Secret, StepOutcome};
use rdock_image::{ExportOptions, LayoutName, ManifestDocument, OciLayout, Platform, Reference};
use rdock_registry::server::{Fault, FaultRule};
use std::io::Read;
use std::path::Path;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        root_trial("another_machine_takes_every_step_from_a_registry", registry),
        root_trial("layers_of_a_cache_come_when_a_step_needs_them", lazily),
        root_trial("a_cache_of_mode_min_has_the_steps_of_the_image", min),
        root_trial("an_image_can_be_its_own_cache", inline),
        root_trial("another_machine_takes_every_step_from_a_directory", directory),
        root_trial("a_cache_that_was_taken_whole_is_not_sent_again", unchanged),
        root_trial("a_cache_that_is_not_there_counts_for_nothing", absent),
        root_trial("a_damaged_cache_is_a_miss", damaged),
        root_trial("a_layer_that_is_not_what_its_cache_says_is_never_seen", lying),
        root_trial("a_cache_for_other_machines_has_no_secret", secrets),
        root_trial(
            "a_cache_that_cannot_be_written_fails_the_build_unless_told_otherwise",
            unwritable,
        ),
        root_trial("images_of_layouts_are_contexts", layouts),
    ]
}

fn source(text: &str) -> Tested<CacheSource> {
    Ok(CacheSource::parse(text)?)
}

fn target(text: &str) -> Tested<CacheTarget> {
    Ok(CacheTarget::parse(text)?)
}

/// Two stages: four steps, of which the last two have layers in the image.
fn two_stages(base: &str) -> String {
    format!(
        "FROM {base} AS build\nCOPY source /source\nRUN cat /source > /out\nFROM {base}\nRUN echo own > /own\nCOPY --from=build /out /out\n"
    )
}

/// How often the blobs of a repository were asked for.
fn blobs(remote: &Remote, repository: &str) -> usize {
    let part = format!("/v2/{repository}/blobs/sha256:");
    let seen = remote.server.seen();
    seen.iter()
        .filter(|seen| seen.method == "GET" && seen.path.contains(&part))
        .count()
}

fn registry() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("base:1", "x")?;
    let cache = remote.name("cache:app");
    let (from, to) = (
        source(&cache)?,
        target(&format!("type=registry,ref={cache},mode=max"))?,
    );
    let bench = &remote.bench;
    bench.file("source", "source")?;
    bench.file("Dockerfile", &two_stages(&base))?;
    let (first, seen) = bench.build(|builder| builder.cache_to(to))?;
    assert_eq!(seen.ran(), 4);
    // The cache is no image of the store.
    assert!(!remote.has(&cache)?);
    let other = remote.other()?;
    other.file("source", "source")?;
    other.file("Dockerfile", &two_stages(&base))?;
    // The config alone tells of the steps.
    let steps = other.explain(|builder| builder.cache_from(from.clone()))?;
    let cached = |step: &rdock_build::StepReport| matches!(step.outcome, StepOutcome::Cached { .. });
    assert_eq!(steps.iter().filter(|step| cached(step)).count(), 4, "{steps:?}");
    let (_, seen) = other.build(|builder| builder.cache_from(from.clone()).output(Output::Nothing))?;
    assert_eq!((seen.ran(), seen.cached()), (0, 4), "{}", seen.all());
    assert_eq!(blobs(&remote, "cache"), 2, "configs alone");
    let (second, seen) = other.build(|builder| builder.cache_from(from.clone()))?;
    assert_eq!((seen.ran(), seen.cached()), (0, 4), "{}", seen.all());
    assert_eq!(first.image_id(), second.image_id());
    assert_eq!(other.read(&second, "out")?, "source");
    // The layers of the image came, those of the other stage did not.
    assert_eq!(blobs(&remote, "cache"), 3 + 2);
    // From now on they are in the own cache; what never came runs, and gives the same content.
    let (third, seen) = other.build(|builder| builder)?;
    assert_eq!(third.image_id(), first.image_id());
    let ran = seen.names();
    assert!(
        !ran.iter()
            .any(|name| name.contains("own") || name.contains("--from")),
        "{ran:?}"
    );
    other.assert_clean()?;
    // It is no image, and says so to whoever takes it for one.
    let (_, bytes) = remote.manifest(&cache)?;
    let ManifestDocument::Manifest(manifest) = ManifestDocument::parse(&bytes, None)? else {
        return Err("an index".into());
    };
    let kind = "application/vnd.rdock.buildcache.config.v1+json";
    assert_eq!(manifest.config.media_type, kind);
    assert_eq!(manifest.artifact_type.as_deref(), Some(kind));
    // A copied file is the layer that it came from.
    assert_eq!(manifest.layers.len(), 3);
    Ok(())
}

fn lazily() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("base:1", "x")?;
    let cache = remote.name("cache:app");
    let text = |last: &str| {
        format!(
            "FROM {base} AS aside\nRUN echo aside > /aside\nFROM {base}\nRUN echo one > /one\nRUN echo two > /two\nCOPY --from=aside /aside /\nRUN {last}\n"
        )
    };
    let to = target(&format!("type=registry,ref={cache},mode=max"))?;
    remote.bench.file("Dockerfile", &text("true"))?;
    remote.bench.build(|builder| builder.cache_to(to))?;
    let other = remote.other()?;
    other.file("Dockerfile", &text("cat /one /two /aside > /all"))?;
    let from = source(&cache)?;
    let (built, seen) = other.build(|builder| builder.cache_from(from))?;
    assert_eq!((seen.ran(), seen.cached()), (1, 4), "{}", seen.all());
    assert_eq!(other.read(&built, "all")?, "one\ntwo\naside\n");
    // The config, and three layers below the last step; neither that of the other stage nor that of the old step.
    assert_eq!(blobs(&remote, "cache"), 1 + 3);
    Ok(())
}

fn min() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("base:1", "x")?;
    let cache = remote.name("cache:app");
    let to = target(&format!("type=registry,ref={cache}"))?;
    remote.bench.file("source", "source")?;
    remote.bench.file("Dockerfile", &two_stages(&base))?;
    let (first, _) = remote.bench.build(|builder| builder.cache_to(to))?;
    let other = remote.other()?;
    other.file("source", "source")?;
    other.file("Dockerfile", &two_stages(&base))?;
    let from = source(&cache)?;
    let (second, seen) = other.build(|builder| builder.cache_from(from))?;
    // The other stage runs, at another time; what is copied from it has the same content.
    assert_eq!((seen.ran(), seen.cached()), (2, 2), "{}", seen.all());
    assert_eq!(first.config.rootfs, second.config.rootfs);
    Ok(())
}

fn inline() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("base:1", "x")?;
    let name = remote.name("app:1");
    let text = format!("FROM {base}\nRUN echo one > /one\nRUN echo two > /two\n");
    remote.bench.file("Dockerfile", &text)?;
    let bench = &remote.bench;
    bench.build(|builder| builder.tag(name.as_str()).cache_to(CacheTarget::Inline))?;
    remote.push(&name)?;
    let other = remote.other()?;
    other.file("Dockerfile", &text)?;
    let from = source(&name)?;
    let (built, seen) = other.build(|builder| builder.cache_from(from.clone()))?;
    assert_eq!((seen.ran(), seen.cached()), (0, 2), "{}", seen.all());
    assert_eq!(other.read(&built, "two")?, "two\n");
    // An image made on such an image does not say what that one's steps made.
    other.file("Dockerfile", &format!("FROM {name}\nRUN echo three > /three\n"))?;
    let (third, _) = other.build(|builder| builder)?;
    assert!(third.config.other.keys().all(|key| !key.contains("buildcache")));
    // An image without one is no cache.
    other.file("Dockerfile", &format!("FROM {base}\nRUN echo four > /four\n"))?;
    let from = source(&base)?;
    let (_, seen) = other.build(|builder| builder.cache_from(from))?;
    assert_eq!(seen.ran(), 1);
    assert!(
        seen.warnings().iter().any(|text| text.contains("no build cache")),
        "{:?}",
        seen.warnings()
    );
    Ok(())
}

fn directory() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("base:1", "x")?;
    let shared = tempfile::tempdir()?;
    let path = shared.path().join("deep/cache");
    let (from, to) = (
        source(&format!("type=local,src={}", path.display()))?,
        target(&format!("type=local,dest={},mode=max", path.display()))?,
    );
    let bench = &remote.bench;
    bench.file("source", "source")?;
    bench.file("Dockerfile", &two_stages(&base))?;
    let (first, _) = bench.build(|builder| builder.cache_to(to))?;
    // Another project's beside it.
    let aside = target(&format!("type=local,dest={},tag=aside", path.display()))?;
    bench.build(|builder| {
        builder
            .dockerfile_text(format!("FROM {base}\nRUN echo aside > /aside\n"))
            .cache_to(aside)
    })?;
    let other = remote.other()?;
    other.file("source", "source")?;
    other.file("Dockerfile", &two_stages(&base))?;
    let (second, seen) = other.build(|builder| builder.cache_from(from))?;
    assert_eq!((seen.ran(), seen.cached()), (0, 4), "{}", seen.all());
    assert_eq!(first.image_id(), second.image_id());
    let other = remote.other()?;
    let aside = source(&format!("type=local,src={},tag=aside", path.display()))?;
    let (_, seen) = other.build(|builder| {
        builder
            .dockerfile_text(format!("FROM {base}\nRUN echo aside > /aside\n"))
            .cache_from(aside)
    })?;
    assert_eq!((seen.ran(), seen.cached()), (0, 1), "{}", seen.all());
    // A whole layout, with nothing half-made.
    let names: Vec<String> = std::fs::read_dir(path.join("blobs/sha256"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()?;
    assert!(names.iter().all(|name| name.len() == 64), "{names:?}");
    Ok(())
}

fn unchanged() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("base:1", "x")?;
    let cache = remote.name("cache:app");
    let text = format!("type=registry,ref={cache},mode=max");
    let (from, to) = (source(&text.replace(",mode=max", ""))?, target(&text)?);
    remote.bench.file("source", "source")?;
    remote.bench.file("Dockerfile", &two_stages(&base))?;
    remote.bench.build(|builder| builder.cache_to(to.clone()))?;
    let other = remote.other()?;
    other.file("source", "source")?;
    other.file("Dockerfile", &two_stages(&base))?;
    let sent = || {
        let seen = remote.server.seen();
        seen.iter().filter(|seen| seen.method == "PUT").count()
    };
    let before = sent();
    let both = |builder: Builder| builder.cache_from(from.clone()).cache_to(to.clone());
    let (_, seen) = other.build(both)?;
    assert_eq!((seen.ran(), sent()), (0, before));
    // The layers of the other stage did not come for that.
    assert_eq!(blobs(&remote, "cache"), 1 + 2);
    // A step that is new is written, and what was taken stays.
    other.file("source", "changed")?;
    let (_, seen) = other.build(both)?;
    assert_eq!(seen.ran(), 3, "{}", seen.all());
    assert!(sent() > before);
    let (_, seen) = remote
        .other_with("source", "changed", &two_stages(&base))?
        .build(both)?;
    assert_eq!((seen.ran(), seen.cached()), (0, 4), "{}", seen.all());
    Ok(())
}

fn absent() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("base:1", "x")?;
    let bench = &remote.bench;
    bench.file("Dockerfile", &format!("FROM {base}\nRUN echo one > /one\n"))?;
    let missing = [
        source(&remote.name("nothing:here"))?,
        source("127.0.0.1:1/nobody:listens")?,
        source(&format!("type=local,src={}", bench.path("nowhere").display()))?,
        source(&format!("type=local,src={}", bench.path("").display()))?,
    ];
    let (_, seen) = bench.build(|builder| missing.into_iter().fold(builder, Builder::cache_from))?;
    assert_eq!(
        (seen.ran(), seen.warnings().len()),
        (1, 4),
        "{:?}",
        seen.warnings()
    );
    Ok(())
}

fn damaged() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("base:1", "x")?;
    let cache = remote.name("cache:app");
    let to = target(&format!("type=registry,ref={cache},mode=max"))?;
    remote.bench.file("source", "source")?;
    remote.bench.file("Dockerfile", &two_stages(&base))?;
    let (first, _) = remote.bench.build(|builder| builder.cache_to(to))?;
    let (_, bytes) = remote.manifest(&cache)?;
    let ManifestDocument::Manifest(manifest) = ManifestDocument::parse(&bytes, None)? else {
        return Err("an index".into());
    };
    let layer = &manifest.layers.last().ok_or("no layers")?.digest;
    for fault in [
        Fault::WrongBytes,
        Fault::Status(404, None),
        Fault::Status(403, None),
    ] {
        let rule = FaultRule::new(fault.clone()).on_path(layer);
        remote.server.set_faults(vec![rule]);
        let other = remote.other_with("source", "source", &two_stages(&base))?;
        let from = source(&cache)?;
        let (second, seen) = other.build(|builder| builder.cache_from(from))?;
        assert!(seen.ran() > 0, "{fault:?}");
        assert_eq!(other.read(&second, "out")?, "source");
        assert_eq!(other.read(&second, "own")?, "own\n");
        assert_eq!(first.config.config, second.config.config);
        let warnings = seen.warnings();
        assert!(
            warnings.iter().any(|text| text.contains(&cache)),
            "{fault:?}: {warnings:?}"
        );
        other.assert_clean()?;
        remote.server.set_faults(Vec::new());
        // What it made itself counts from now on.
        let (_, seen) = other.build(|builder| builder)?;
        assert_eq!(seen.ran(), 0);
    }
    // A document that is none.
    let rule = FaultRule::new(Fault::WrongBytes).on_path(&manifest.config.digest);
    remote.server.set_faults(vec![rule]);
    let other = remote.other_with("source", "source", &two_stages(&base))?;
    let from = source(&cache)?;
    let (_, seen) = other.build(|builder| builder.cache_from(from))?;
    assert_eq!(seen.ran(), 4);
    Ok(())
}

/// A cache that says of every layer that it is another one.
fn lying() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("base:1", "x")?;
    let shared = tempfile::tempdir()?;
    let bench = &remote.bench;
    bench.file("source", "source")?;
    bench.file("Dockerfile", &two_stages(&base))?;
    let to = target(&format!("type=local,dest={},mode=max", shared.path().display()))?;
    bench.build(|builder| builder.cache_to(to))?;
    // The layers in another order: each blob is what its own digest says, and not what the config says of it.
    let layout = OciLayout::new(shared.path());
    let label = Reference::parse("cache")?;
    let image = layout.resolve(&LayoutName::Default, &label, &Platform::host())?;
    let mut manifest = image.manifest().clone();
    manifest.layers.rotate_left(1);
    let bytes = serde_json::to_vec(&manifest)?;
    let digest = rdock_image::Digest::sha256_of(&bytes);
    std::fs::write(shared.path().join("blobs/sha256").join(digest.hex()), &bytes)?;
    let other = remote.other_with("source", "source", &two_stages(&base))?;
    let from = CacheSource::Local {
        path: shared.path().to_owned(),
        name: LayoutName::Digest(digest),
    };
    let (built, seen) = other.build(|builder| builder.cache_from(from))?;
    assert_eq!(seen.names().len(), 4, "{}", seen.all());
    assert_eq!(other.read(&built, "out")?, "source");
    assert!(
        seen.warnings().iter().any(|text| text.contains("is not used")),
        "{:?}",
        seen.warnings()
    );
    other.assert_clean()
}

/// All that is in a directory, unpacked.
fn everything(dir: &Path, into: &mut Vec<u8>) -> Tested {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            everything(&path, into)?;
            continue;
        }
        let bytes = std::fs::read(&path)?;
        if bytes.starts_with(&[0x1f, 0x8b]) {
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(into)?;
        }
        into.extend_from_slice(&bytes);
    }
    Ok(())
}

fn secrets() -> Tested {
    let remote = Remote::new()?;
    let base = remote.publish("base:1", "x")?;
    let cache = remote.name("cache:app");
    let to = target(&format!("type=registry,ref={cache},mode=max"))?;
    let shared = tempfile::tempdir()?;
    let local = target(&format!("type=local,dest={},mode=max", shared.path().display()))?;
    remote.bench.file(
        "Dockerfile",
        &format!(
            "FROM {base} AS one\nARG TOKEN\nRUN --mount=type=secret,id=password test -s /run/secrets/password && echo done-in-one > /done\nFROM {base}\nCOPY --from=one /done /\n"
        ),
    )?;
    let (secret, token) = ("correct-horse-battery", "xoxb-build-argument");
    let secret_value = Secret::Value(secret.as_bytes().to_vec());
    let (_, seen) = remote.bench.build(|builder| {
        builder
            .secret("password", secret_value)
            .build_arg("TOKEN", token)
            .cache_to(to)
            .cache_to(local)
    })?;
    assert_eq!(seen.ran(), 2);
    for dir in [remote.dir.path(), shared.path()] {
        let mut all = Vec::new();
        everything(dir, &mut all)?;
        let has = |text: &str| all.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(has("done-in-one"), "the search finds what is there");
        for word in [secret, token, "/run/secrets", "TOKEN"] {
            assert!(!has(word), "{word} is in {}", dir.display());
        }
    }
    // Who has another secret has the step all the same; who has another argument has not.
    let build = |token: &str| -> Tested<usize> {
        let other = remote.other()?;
        std::fs::copy(remote.bench.path("Dockerfile"), other.path("Dockerfile"))?;
        let (from, secret) = (source(&cache)?, Secret::Value(b"another".to_vec()));
        let (_, seen) = other.build(|builder| {
            builder
                .secret("password", secret)
                .build_arg("TOKEN", token)
                .cache_from(from)
        })?;
        Ok(seen.ran())
    };
    assert_eq!((build(token)?, build("other")?), (0, 1));
    Ok(())
}

fn unwritable() -> Tested {
    let bench = Bench::new()?;
    bench.file("Dockerfile", "FROM base\nRUN echo one > /one\n")?;
    bench.file("file", "in the way")?;
    let place = format!("type=local,dest={}", bench.path("file/cache").display());
    let to = target(&place)?;
    let error = bench.fails(|builder| builder.tag("made").cache_to(to))?;
    assert!(error.to_string().contains("cannot write the cache"), "{error}");
    // The image is there: its making did not fail.
    assert!(bench.runtime.images().get("made")?.is_some());
    let to = target(&format!("{place},ignore-error=true"))?;
    let (_, seen) = bench.build(|builder| builder.cache_to(to))?;
    assert!(
        seen.warnings()
            .iter()
            .any(|text| text.contains("was not written")),
        "{:?}",
        seen.warnings()
    );
    bench.assert_clean()
}

fn layouts() -> Tested {
    let bench = Bench::new()?;
    let store = bench.runtime.images();
    let text = "FROM base\nENV MADE=yes\nRUN echo layout > /made\n";
    let (made, _) = bench.build(|builder| builder.dockerfile_text(text).tag("made"))?;
    let image = made.image.ok_or("no image")?;
    let layout = bench.outside("layout");
    let digest = OciLayout::new(&layout).add(&image, "v1")?;
    // A machine that does not have it.
    let other = Bench::new()?;
    let at = |rest: &str| NamedContext::parse(&format!("oci-layout://{}{rest}", layout.display()));
    let file = "FROM given AS one\nRUN cat /made > /copy && echo $MADE >> /copy\nFROM base\nCOPY --from=given /made /made\nCOPY --from=one /copy /copy\n";
    for rest in ["", ":v1", &format!("@{digest}"), &format!(":any@{digest}")] {
        let context = at(rest)?;
        let (built, _) =
            other.build(|builder| builder.dockerfile_text(file).build_context("given", context))?;
        assert_eq!(other.read(&built, "copy")?, "layout\nyes\n");
        assert_eq!(other.read(&built, "made")?, "layout\n");
    }
    // It has no name in the store.
    assert!(other.runtime.images().get("made")?.is_none());
    let images = other.runtime.images().images()?;
    assert!(images.iter().all(|image| {
        !image
            .references()
            .iter()
            .any(|name| name.as_str().contains("invalid"))
    }));
    let context = at(":other")?;
    let error = other.fails(|builder| builder.dockerfile_text(file).build_context("given", context))?;
    let text = format!(
        "{error}: {}",
        std::error::Error::source(&error).ok_or("no cause")?
    );
    assert!(text.contains("other of") && error.place().is_some(), "{text}");
    // One that nothing uses is not looked at.
    let context = at(":other")?;
    other.build(|builder| {
        builder
            .dockerfile_text("FROM base\n")
            .build_context("given", context)
    })?;
    // What a tool put there as one archive's content is read as well.
    let unpacked = bench.outside("unpacked");
    std::fs::create_dir(&unpacked)?;
    let mut tar = Vec::new();
    let names = [Reference::parse("made")?];
    store.export(&[(image, names.to_vec())], &ExportOptions::default(), &mut tar)?;
    tar::Archive::new(&tar[..]).unpack(&unpacked)?;
    let context = NamedContext::parse(&format!("oci-layout://{}", unpacked.display()))?;
    let (built, _) = other.build(|builder| builder.dockerfile_text(file).build_context("given", context))?;
    assert_eq!(other.read(&built, "copy")?, "layout\nyes\n");
    other.assert_clean()
}
