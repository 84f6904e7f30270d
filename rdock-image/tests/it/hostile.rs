//! Bug classes of images that claim what they are not, or meet somebody who works against the store: each test is named
//! after the class it shows absent.
mod malformed;
mod race;

use crate::security::docker_archive;
use crate::support::{Bed, Outcome, Tar, add_image, descriptor, read};
use crate::{Needs, Test};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rdock_image::{
    Descriptor, Digest, Durability, Error, Hasher, ImageConfig, ImageStore, LayerOptions, Manifest,
    ManifestDocument, Origin, Platform, Progress, PruneFilter, Reference, ResolvedImage, SnapshotOptions,
    StoreOptions,
};
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<(&'static str, Needs, Test)> {
    vec![
        ("img_checkpoint_archive", Needs::Nothing, img_checkpoint_archive),
        ("img_chown_remap", Needs::Root, img_chown_remap),
        ("img_claimed_digest", Needs::Nothing, img_claimed_digest),
        ("img_digest_algorithm", Needs::Nothing, img_digest_algorithm),
        ("img_foreign_erofs", Needs::Nothing, img_foreign_erofs),
        ("img_label_namespace", Needs::Nothing, img_label_namespace),
        (
            "img_malformed_manifest",
            Needs::Nothing,
            malformed::img_malformed_manifest,
        ),
        (
            "img_malformed_manifest_of_random_bytes",
            Needs::Nothing,
            malformed::img_malformed_manifest_of_random_bytes,
        ),
        ("img_unpack_toctou", Needs::Nothing, race::img_unpack_toctou),
        ("img_volume_seed", Needs::Nothing, img_volume_seed),
    ]
}

/// Thousands of documents and layers, none of which has to outlive a power loss.
fn unsynced() -> StoreOptions {
    let mut options = StoreOptions::default();
    options.durability = Durability::None;
    options
}

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Brings an image in whose config and manifest are these, changed.
fn add(
    store: &ImageStore,
    name: &str,
    layers: &[(Vec<u8>, Descriptor, Digest)],
    change: impl FnOnce(&mut Value, &mut Value),
) -> Result<rdock_image::Image, Error> {
    let lease = store.lease()?;
    let diff_ids: Vec<_> = layers.iter().map(|(_, _, diff_id)| diff_id).collect();
    let mut config = json!({"architecture": Platform::host().architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let mut manifest = json!({"schemaVersion": 2, "config": {},
        "layers": layers.iter().map(|(_, descriptor, _)| descriptor).collect::<Vec<_>>()});
    change(&mut config, &mut manifest);
    let config = config.to_string().into_bytes();
    let id = Digest::sha256_of(&config);
    manifest["config"] = json!(Descriptor::new(CONFIG, &id, config.len() as u64));
    for (tar, descriptor, diff_id) in layers {
        store.ingest_layer(&lease, descriptor, diff_id, None, &mut &tar[..])?;
    }
    store.write_blob(&lease, &config, &id)?;
    let manifest = manifest.to_string().into_bytes();
    let digest = Digest::sha256_of(&manifest);
    store.write_blob(&lease, &manifest, &digest)?;
    store.commit(&lease, &Reference::parse(name)?, &digest)
}

fn layer(tar: Vec<u8>) -> (Vec<u8>, Descriptor, Digest) {
    let (descriptor, diff_id) = (descriptor(&tar), Digest::sha256_of(&tar));
    (tar, descriptor, diff_id)
}

/// There is no way to restore a checkpoint of a process: an archive of one is no image, and an image that calls itself
/// one is an image like others.
fn img_checkpoint_archive() -> Outcome {
    let bed = Bed::new()?;
    let before = bed.host_state()?;
    let secret = format!("{}/secret", bed.host());
    // As podman and CRIU write it, with links to the host in place of its files.
    let checkpoint = || {
        Tar::new()
            .dir("checkpoint/", 0o700)
            .file("checkpoint/pages-1.img", "memory")
            .symlink("config.dump", &secret)
            .symlink("spec.dump", &secret)
            .symlink("network.status", &secret)
            .symlink("rootfs-diff.tar", &secret)
            .symlink("devshm-checkpoint.tar", &secret)
    };
    let archive = checkpoint().end();
    let error = bed.store.import_stream(&mut &archive[..], &Progress::default());
    assert!(matches!(error, Err(Error::MalformedDocument { .. })), "{error:?}");
    bed.assert_clean()?;
    let words = |document: &mut Value| {
        document["annotations"] = json!({
            "org.criu.checkpoint.container.name": "victim",
            "io.kubernetes.cri-o.annotations.checkpoint.name": "victim",
            "io.podman.annotations.privileged": "TRUE",
        });
    };
    let image = add(
        &bed.store,
        "checkpoint:1",
        &[layer(archive)],
        |config, manifest| {
            config["config"]["Labels"] = json!({"io.podman.annotations.checkpoint": "spec.dump"});
            words(config);
            words(manifest);
        },
    )?;
    // What a container of it would be is what an image without a word of it would be.
    let config = image.config().config.clone();
    let plain = rdock_image::ContainerConfig {
        labels: config.labels.clone(),
        ..Default::default()
    };
    assert_eq!(config, plain);
    let snapshot = bed.store.snapshot(&image, "c1", &SnapshotOptions::default())?;
    assert_eq!(fs::read_dir(snapshot.upper())?.count(), 0, "nothing is restored");
    let view = bed.store.view(&image)?;
    assert!(
        view.entry("spec.dump", true)?.is_none(),
        "it leads nowhere in the image"
    );
    assert_eq!(bed.host_state()?, before);
    Ok(())
}

/// What the store keeps about layers never belongs to an id of a container.
fn img_chown_remap() -> Outcome {
    let bed = Bed::new()?;
    let uid = |number: u32| {
        move |block: &mut [u8; 512]| {
            block[108..116].copy_from_slice(format!("{number:07o}\0").as_bytes());
            block[116..124].copy_from_slice(format!("{number:07o}\0").as_bytes());
        }
    };
    let remapped = 100_000;
    let tar = Tar::new()
        .changed("./", b'5', b"", uid(remapped))
        .changed("etc/", b'5', b"", uid(remapped))
        .changed("etc/file", b'0', b"", uid(remapped))
        // Replaced later in the same tar, so that it is kept apart.
        .changed("etc/late", b'0', b"", uid(remapped))
        .symlink("etc/late", "file")
        .end();
    let image = bed.image(
        "remapped:1",
        &[tar, Tar::new().hard_link("link", "etc/file").end()],
    )?;
    let options = SnapshotOptions {
        user_namespace: true,
        ..SnapshotOptions::default()
    };
    let snapshot = bed.store.snapshot(&image, "c1", &options)?;
    fs::write(snapshot.upper().join("written"), "by the container")?;
    std::os::unix::fs::chown(snapshot.upper().join("written"), Some(remapped), Some(remapped))?;
    let lease = bed.store.lease()?;
    bed.store
        .adopt_snapshot(&lease, &snapshot, &LayerOptions::default())?;
    let other = bed.store.snapshot(&image, "c2", &options)?;
    assert_eq!(
        fs::metadata(other.upper())?.uid(),
        remapped,
        "the root is the image's"
    );
    let own = fs::metadata(bed.store.root())?;
    assert_eq!(own.permissions().mode() & 0o777, 0o700, "nobody else gets in");
    let mut open = vec![bed.store.root().to_owned()];
    let (mut seen, mut foreign) = (0, 0);
    while let Some(path) = open.pop() {
        let name = path.file_name().and_then(|name| name.to_str());
        // Files of the layer or of the container: what they say of themselves is only theirs.
        let content = matches!(name, Some("fs" | "upper" | "work" | "apart"));
        let meta = fs::symlink_metadata(&path)?;
        foreign += usize::from(meta.uid() == remapped);
        if content {
            continue;
        }
        assert_eq!((meta.uid(), meta.gid()), (own.uid(), own.gid()), "{path:?}");
        assert_eq!(meta.mode() & 0o022, 0, "{path:?} can be written by others");
        seen += 1;
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        }
    }
    assert!(
        seen > 20 && foreign >= 2,
        "{seen} {foreign}: the test saw what it is about"
    );
    Ok(())
}

/// A layer is what its computed digest says: neither a claimed diffID nor a claimed blob makes another one of it.
fn img_claimed_digest() -> Outcome {
    let bed = Bed::new()?;
    let (victim, evil) = (
        Tar::new().file("bin", "victim").end(),
        Tar::new().file("bin", "evil").end(),
    );
    let (victims, evils) = (Digest::sha256_of(&victim), Digest::sha256_of(&evil));
    // The layer of somebody else, claimed before it is there.
    let error = add(
        &bed.store,
        "evil:1",
        &[(evil.clone(), descriptor(&evil), victims.clone())],
        |_, _| {},
    );
    assert!(matches!(error, Err(Error::DigestMismatch { .. })), "{error:?}");
    assert!(!bed.store.has_layer(&victims) && !bed.store.has_layer(&evils));
    bed.assert_clean()?;
    let archive = docker_archive("l", |archive| archive.file("l", &evil), &victims, "evil:1");
    assert!(
        bed.store
            .import_stream(&mut &archive[..], &Progress::default())
            .is_err()
    );
    assert!(!bed.store.has_layer(&victims));

    // Claimed when it is there: what is there is used, and the claim is not believed.
    let lease = bed.store.lease()?;
    bed.store.ingest_layer(
        &lease,
        &descriptor(&victim),
        &victims,
        Some("good.example/app"),
        &mut &victim[..],
    )?;
    let before = bed.store.origins(&victims)?;
    bed.store.ingest_layer(
        &lease,
        &descriptor(&evil),
        &victims,
        Some("evil.example/app"),
        &mut &evil[..],
    )?;
    assert_eq!(bed.store.origins(&victims)?, before);
    let image = add(
        &bed.store,
        "evil:1",
        &[(evil.clone(), descriptor(&evil), victims.clone())],
        |_, _| {},
    )?;
    assert_eq!(read(&bed.store.view(&image)?, "bin")?, "victim");
    assert_eq!(bed.store.origins(&victims)?, before);
    // A build on the layer names the blob that was unpacked.
    let config = ImageConfig {
        rootfs: image.config().rootfs.clone(),
        ..ImageConfig::default()
    };
    let built = bed
        .store
        .write_image(&lease, &config, &[Reference::parse("built:1")?])?;
    assert_eq!(built.manifest().layers[0].digest, victims.as_str());
    // The same blob in another repository is believed.
    bed.store.ingest_layer(
        &lease,
        &descriptor(&victim),
        &victims,
        Some("other.example/app"),
        &mut &victim[..],
    )?;
    let places: Vec<_> = bed.store.origins(&victims)?;
    let places: Vec<_> = places
        .iter()
        .filter_map(|origin| origin.repository.as_deref())
        .collect();
    assert_eq!(places, ["good.example/app", "other.example/app"]);
    let claim = Origin {
        digest: evils.to_string(),
        size: 1,
        media_type: "application/vnd.oci.image.layer.v1.tar".into(),
        repository: Some("evil.example/app".into()),
    };
    bed.store.add_place(&victims, &claim)?;
    assert_eq!(bed.store.origins(&victims)?.len(), 2);
    Ok(())
}

/// Strong algorithms with all of their digits, and each verified as what it is.
fn img_digest_algorithm() -> Outcome {
    let bed = Bed::new()?;
    let hash = |algorithm: &str, bytes: &[u8]| -> Result<Digest, Error> {
        let digits = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            _ => 128,
        };
        let mut hasher = Hasher::like(&Digest::parse(&format!("{algorithm}:{}", "0".repeat(digits)))?);
        hasher.update(bytes);
        Ok(hasher.finish())
    };
    for algorithm in ["sha256", "sha384", "sha512"] {
        let tar = Tar::new().file("algorithm", algorithm).end();
        let blob = hash(algorithm, &tar)?;
        let of_layer = Descriptor::new("application/vnd.oci.image.layer.v1.tar", &blob, tar.len() as u64);
        // Everything is named by it: blob, diffID, config, manifest.
        let config =
            json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [blob]}});
        let config = config.to_string().into_bytes();
        let id = hash(algorithm, &config)?;
        let manifest = json!({"schemaVersion": 2, "layers": [of_layer],
            "config": Descriptor::new(CONFIG, &id, config.len() as u64)});
        let manifest = manifest.to_string().into_bytes();
        let digest = hash(algorithm, &manifest)?;
        let lease = bed.store.lease()?;
        let wrong = [&tar[..], b"x"].concat();
        let error = bed
            .store
            .ingest_layer(&lease, &of_layer, &blob, None, &mut &wrong[..tar.len() - 1]);
        assert!(error.is_err(), "{algorithm}");
        let mut damaged = tar.clone();
        damaged[513] ^= 1;
        let error = bed
            .store
            .ingest_layer(&lease, &of_layer, &blob, None, &mut &damaged[..]);
        assert!(
            matches!(error, Err(Error::DigestMismatch { .. })),
            "{algorithm}: {error:?}"
        );
        // The blob is right and the diffID is another one of the same algorithm.
        let other = hash(algorithm, b"another")?;
        let error = bed
            .store
            .ingest_layer(&lease, &of_layer, &other, None, &mut &tar[..]);
        assert!(
            matches!(error, Err(Error::DigestMismatch { .. })),
            "{algorithm}: {error:?}"
        );
        bed.store
            .ingest_layer(&lease, &of_layer, &blob, None, &mut &tar[..])?;
        assert!(bed.store.write_blob(&lease, b"{}", &id).is_err(), "{algorithm}");
        bed.store.write_blob(&lease, &config, &id)?;
        bed.store.write_blob(&lease, &manifest, &digest)?;
        let name = Reference::parse(&format!("app:{algorithm}"))?;
        let image = bed.store.commit(&lease, &name, &digest)?;
        assert_eq!((image.id(), image.manifest_digest()), (&id, &digest));
        assert_eq!(bed.store.get(id.as_str())?.ok_or("gone")?.id(), &id);
        let view = bed.store.view(&image)?;
        assert_eq!(read(&view, "algorithm")?, algorithm);
        let resolved = ResolvedImage::of(&name, &image)?;
        assert_eq!(resolved.manifest_digest(), &digest);
        let mut out = Vec::new();
        assert_eq!(
            bed.store.write_layer_tar(&blob, &mut out)?,
            (blob.clone(), tar.len() as u64)
        );
        assert!(out == tar);
        drop(lease);
        let report = bed.store.fsck()?;
        assert!(report.is_sound() && report.findings.is_empty(), "{report:?}");
        let removed = bed.store.remove(&format!("app:{algorithm}"), false)?;
        assert_eq!(removed.deleted, [id, blob]);
        bed.assert_clean()?;
    }
    let hex = "a".repeat(128);
    for bad in [
        format!("md5:{}", &hex[..32]),
        format!("sha1:{}", &hex[..40]),
        format!("sha224:{}", &hex[..56]),
        format!("sha512:{}", &hex[..64]),
        format!("sha384:{}", &hex[..64]),
        format!("sha256:{}", &hex[..63]),
        format!("sha256:{}", &hex[..32]),
        format!("sha512_256:{}", &hex[..64]),
        format!("blake3:{}", &hex[..64]),
        format!("tarsum.v1+sha256:{}", &hex[..64]),
    ] {
        assert!(
            matches!(Digest::parse(&bad), Err(Error::InvalidDigest { .. })),
            "{bad}"
        );
        let manifest = |config: &str, layer: &str| {
            json!({"schemaVersion": 2, "config": {"mediaType": CONFIG, "digest": config, "size": 1},
                "layers": [{"mediaType": "x/y", "digest": layer, "size": 1}]})
            .to_string()
        };
        let good = format!("sha256:{}", &hex[..64]);
        for text in [manifest(&bad, &good), manifest(&good, &bad)] {
            let parsed = ManifestDocument::parse(text.as_bytes(), None);
            assert!(
                matches!(parsed, Err(Error::InvalidDigest { .. })),
                "{bad}: {parsed:?}"
            );
        }
        let config = json!({"rootfs": {"type": "layers", "diff_ids": [bad]}}).to_string();
        assert!(ImageConfig::parse(config.as_bytes()).is_err(), "{bad}");
    }
    Ok(())
}

/// Bytes for the kernel's EROFS come from this library alone.
fn img_foreign_erofs() -> Outcome {
    let bed = Bed::new()?;
    // A superblock, at its place.
    let mut image = vec![0; 8192];
    image[1024..1028].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
    let digest = Digest::sha256_of(&image);
    for kind in [
        "application/vnd.erofs.layer.v1",
        "application/vnd.oci.image.layer.v1.erofs",
        "application/vnd.oci.image.layer.v1.EROFS+zstd",
    ] {
        let descriptor = Descriptor::new(kind, &digest, image.len() as u64);
        let error = add(
            &bed.store,
            "native:1",
            &[(image.clone(), descriptor, digest.clone())],
            |_, _| {},
        );
        assert!(
            matches!(&error, Err(Error::Unsupported { what, .. }) if what.contains(kind)),
            "{error:?}"
        );
    }
    // Under the name of a tar it is a tar that ends before anything is in it; in an archive as well.
    let found = add(&bed.store, "native:1", &[layer(image.clone())], |_, _| {})?;
    let archive = docker_archive("l", |archive| archive.file("l", &image), &digest, "native:2");
    let loaded = bed.store.import_stream(&mut &archive[..], &Progress::default())?;
    for found in loaded.iter().chain([&found]) {
        assert!(bed.store.view(found)?.walk()?.is_empty());
        assert!(
            !bed.names(&format!("layers/{}", found.diff_ids()[0].hex()))?
                .contains(&"index.erofs".to_owned())
        );
    }
    // Files of a layer are files, whatever the store calls its own.
    let names = ["index.erofs", "layer.tar", "meta.json", "synced", "origins"];
    let tar = names
        .iter()
        .fold(Tar::new(), |tar, name| tar.file(name, &image))
        .end();
    let found = bed.image("files:1", &[tar])?;
    let dir = bed.store.root().join("layers").join(found.diff_ids()[0].hex());
    assert!(!dir.join("index.erofs").exists() && dir.join("fs/index.erofs").exists());
    for mount in bed
        .store
        .snapshot(&found, "c1", &SnapshotOptions::default())?
        .mounts()
    {
        assert!(!matches!(mount, rdock_image::Mount::Erofs { .. }), "{mount:?}");
    }
    bed.assert_clean()
}

/// Labels and annotations are texts of the image; nothing of the store listens to them.
fn img_label_namespace() -> Outcome {
    let bed = Bed::new()?;
    let other = bed.image("other:1", &[Tar::new().file("a", "other").end()])?;
    let texts = json!({
        "containerd.io/gc.root": "2026-01-01T00:00:00Z",
        "containerd.io/gc.ref.content.l.0": other.diff_ids()[0],
        "containerd.io/gc.ref.content.config": other.id(),
        "containerd.io/distribution.source.evil.example": "app",
        "com.docker.compose.project": "victim",
        "io.rdock.lease": "forever",
        "io.rdock.kept": other.manifest_digest(),
        "org.opencontainers.image.ref.name": "../../refs/victim",
        "io.containerd.image.name": "docker.io/library/victim:latest",
        "": "", "new\nline": "\u{0}", "../x": "/etc/passwd",
    });
    let labelled = |name: &str| {
        let tar = Tar::new().file("a", "labelled").end();
        add(&bed.store, name, &[layer(tar)], |config, manifest| {
            config["config"]["Labels"] = texts.clone();
            manifest["annotations"] = texts.clone();
        })
    };
    let image = labelled("labelled:1")?;
    assert_eq!(json!(image.config().config.labels), texts, "kept as they are");
    assert_eq!(json!(image.manifest().annotations), texts);
    assert_eq!(
        image.references(),
        [Reference::parse("labelled:1")?],
        "no name came of it"
    );
    assert!(bed.store.get("victim")?.is_none() && bed.names("leases")?.is_empty());
    assert!(
        bed.store
            .origins(&image.diff_ids()[0])?
            .iter()
            .all(|origin| origin.repository.is_none())
    );
    // It keeps nothing alive that nobody else does, nor itself.
    bed.store.remove("other:1", false)?;
    assert!(!bed.store.has_layer(&other.diff_ids()[0]));
    bed.store.remove("labelled:1", false)?;
    assert!(bed.store.images()?.is_empty() && bed.names("layers")?.is_empty());
    // A user's filter is what reads them.
    let image = labelled("labelled:1")?;
    let mut filter = PruneFilter::all();
    filter.labels = vec![("com.docker.compose.project".into(), Some("another".into()))];
    assert!(bed.store.prune(&filter)?.images.is_empty());
    filter.labels[0].1 = Some("victim".into());
    assert_eq!(bed.store.prune(&filter)?.images, [image.id().clone()]);
    bed.assert_clean()
}

/// The directory that seeds a volume is one of the image, wherever links of the image point.
fn img_volume_seed() -> Outcome {
    let bed = Bed::new()?;
    let host = bed.host();
    let up = format!("../../../../../../../../../..{host}");
    let image = bed.image(
        "volumes:1",
        &[
            Tar::new()
                .dir("data/", 0o755)
                .file("data/own", "image")
                .symlink("absolute", &host)
                .symlink("relative", &up)
                .symlink("hop", "absolute")
                .dir("deep/", 0o755)
                .symlink("deep/link", &up)
                .symlink("loop", "loop")
                .symlink("inside", "/data")
                .end(),
            Tar::new().symlink("later", &format!("{host}/dir")).end(),
        ],
    )?;
    let view = bed.store.view(&image)?;
    for path in [
        "absolute",
        "relative",
        "hop",
        "deep/link",
        "later",
        "/absolute/",
        "hop/../absolute",
        &up,
        &host,
        &format!("data/{up}"),
    ] {
        let found = view.entry(path, true)?;
        assert!(found.is_none(), "{path} leads to {found:?}");
        let secret = view.entry(Path::new(path).join("secret"), true)?;
        assert!(secret.is_none(), "{path} leads to the host's file");
        // Where it would be made is inside the root.
        let made = view.resolve_new(path)?;
        assert!(made.is_relative() && !made.starts_with(".."), "{path}: {made:?}");
        assert!(
            made.components().all(|part| part.as_os_str() != ".."),
            "{path}: {made:?}"
        );
    }
    assert!(view.entry("loop", true).is_err() || view.entry("loop", true)?.is_none());
    let inside = view
        .entry("inside", true)?
        .ok_or("the image's own directory is there")?;
    assert_eq!(inside.path(), Path::new("data"));
    assert_eq!(inside.names()?, ["own"]);
    Ok(())
}
