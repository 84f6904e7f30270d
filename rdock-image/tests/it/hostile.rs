//! Bug classes of images that claim what they are not, or meet somebody who works against the store: each test is named
//! after the class it shows absent.
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
        ("img_malformed_manifest", Needs::Nothing, img_malformed_manifest),
        (
            "img_malformed_manifest_of_random_bytes",
            Needs::Nothing,
            img_malformed_manifest_of_random_bytes,
        ),
        ("img_unpack_toctou", Needs::Nothing, img_unpack_toctou),
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

/// Every value of a document, replaced by everything that it may not be.
fn replaced(document: &Value) -> Vec<Value> {
    fn paths(value: &Value, at: String, all: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    paths(
                        value,
                        format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
                        all,
                    );
                }
            }
            Value::Array(items) => {
                for (number, value) in items.iter().enumerate() {
                    paths(value, format!("{at}/{number}"), all);
                }
            }
            _ => {}
        }
        all.push(at);
    }
    let mut all = Vec::new();
    paths(document, String::new(), &mut all);
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let others = [
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(0.5),
        json!(""),
        json!("\u{0}"),
        json!("../../../etc/passwd"),
        json!("a".repeat(10_000)),
        json!([]),
        json!({}),
        json!([null]),
        json!({"": null}),
        json!([[[]]]),
        deep,
    ];
    let mut documents = Vec::new();
    for path in &all {
        for other in &others {
            let mut document = document.clone();
            if let Some(place) = document.pointer_mut(path) {
                *place = other.clone();
            }
            documents.push(document);
        }
        // And without it.
        let mut document = document.clone();
        if let Some((above, name)) = path.rsplit_once('/') {
            match document.pointer_mut(above) {
                Some(Value::Object(fields)) => {
                    drop(fields.remove(&name.replace("~1", "/").replace("~0", "~")))
                }
                Some(Value::Array(items)) => items.clear(),
                _ => {}
            }
        }
        documents.push(document);
    }
    documents
}

fn img_malformed_manifest() -> Outcome {
    let bed = Bed::with(unsynced())?;
    let image = add_image(&bed.store, "good:1", &[Tar::new().file("a", "1").end()])?;
    let before = bed.names("refs")?;
    let manifest: Value = serde_json::from_slice(&bed.store.read_blob(image.manifest_digest())?)?;
    let mut config: Value = serde_json::from_slice(&bed.store.read_blob(image.id())?)?;
    config["config"] = json!({"Env": ["A=1"], "Cmd": ["x"], "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}},
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1}, "Labels": {"a": "b"}, "StopTimeout": 1});
    config["history"] = json!([{"created": "2026-01-01T00:00:00Z", "empty_layer": true}]);
    let mut index =
        json!({"schemaVersion": 2, "manifests": [image.descriptor()?], "annotations": {"a": "b"}});
    index["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "amd64", "os.features": ["x"]});
    let documents = |of: &Value| {
        replaced(of)
            .into_iter()
            .map(|value| value.to_string().into_bytes())
    };
    let mut refused = 0;
    for bytes in documents(&manifest)
        .chain(documents(&index))
        .chain(documents(&config))
    {
        let lease = bed.store.lease()?;
        let digest = Digest::sha256_of(&bytes);
        bed.store.write_blob(&lease, &bytes, &digest)?;
        // As a manifest, as a config, as an index of an archive, with anything else in its place.
        let parsed = ManifestDocument::parse(&bytes, None);
        if let Ok(ManifestDocument::Index(index)) = &parsed {
            index.select(&Platform::host());
        }
        if let Ok(config) = ImageConfig::parse(&bytes) {
            config.platform();
        }
        let committed = bed.store.commit(&lease, &Reference::parse("bad:1")?, &digest);
        match committed {
            Ok(image) => {
                assert!(parsed.is_ok());
                bed.store.view(&image)?;
                bed.store.remove("bad:1", true)?;
            }
            Err(
                Error::MalformedDocument { .. }
                | Error::InvalidDigest { .. }
                | Error::MissingBlob { .. }
                | Error::Unsupported { .. }
                | Error::Limit { .. },
            ) => refused += 1,
            Err(error) => return Err(format!("{error:?} of {}", String::from_utf8_lossy(&bytes)).into()),
        }
        ResolvedImage::new(&Reference::parse("x")?, bytes.clone(), bytes)
            .map_err(drop)
            .ok();
        drop(lease);
        bed.store.prune_layers()?;
    }
    assert!(refused > 500, "{refused}");
    // In an archive.
    for bytes in documents(&index).step_by(7) {
        let archive = Tar::new()
            .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", &bytes)
            .end();
        // None of them has its blobs.
        let result = bed.store.import_stream(&mut &archive[..], &Progress::default());
        assert!(result.is_err());
    }
    assert_eq!(bed.names("refs")?, before);
    assert!(bed.store.fsck()?.findings.is_empty());
    bed.assert_clean()
}

fn img_malformed_manifest_of_random_bytes() -> Outcome {
    let mut runner = TestRunner::new(Config::with_cases(500));
    let words = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "null",
        "1",
        "-1",
        "1e9",
        "\"schemaVersion\":2,",
        "\"config\":{",
        "\"layers\":[",
        "\"manifests\":[",
        "\"digest\":\"sha256:",
        "\"mediaType\":",
        "\"size\":",
        "\"rootfs\":{\"diff_ids\":[",
        "\"platform\":{",
        "\\u0000",
        "\\ud800",
        " ",
    ]);
    let text = prop::collection::vec(words, 0..40).prop_map(|words| words.concat().into_bytes());
    let bytes = prop_oneof![text, prop::collection::vec(any::<u8>(), 0..200)];
    runner.run(&bytes, |bytes| {
        if let Ok(ManifestDocument::Manifest(manifest)) = ManifestDocument::parse(&bytes, None) {
            // What is read can be written, and is the same then.
            let again = serde_json::to_vec(&manifest).expect("written");
            let again: Manifest = serde_json::from_slice(&again).expect("read");
            prop_assert_eq!(again, manifest);
        }
        ImageConfig::parse(&bytes).map_err(drop).ok();
        Ok(())
    })?;
    Ok(())
}

/// A stream that gives the next part when somebody has counted on, or has had the time to.
struct Paced<'a> {
    bytes: &'a [u8],
    count: &'a AtomicUsize,
}

impl Read for Paced<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (begin, before) = (Instant::now(), self.count.load(Ordering::Relaxed));
        while self.count.load(Ordering::Relaxed) < before + 2 && begin.elapsed() < Duration::from_millis(100)
        {
            std::thread::yield_now();
        }
        let length = out.len().min(64 << 10);
        self.bytes.read(&mut out[..length])
    }
}

/// Whoever swaps directories of a layer for links while it is unpacked reaches nothing outside.
fn img_unpack_toctou() -> Outcome {
    const SWAPS: usize = 300;
    let bed = Bed::with(unsynced())?;
    let before = bed.host_state()?;
    let ingest = bed.store.root().join("ingest");
    let host = bed.host();
    let (done, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    let swap = || {
        while !done.load(Ordering::Relaxed) {
            let layers = fs::read_dir(&ingest).into_iter().flatten().flatten();
            for fs in layers.map(|entry| entry.path().join("fs")) {
                // Not below one another: the swapper itself would follow its link.
                for name in ["d", "f"] {
                    let (path, away) = (fs.join(name), fs.join(format!("away-{name}")));
                    // Each of these may come too early or too late.
                    if fs::rename(&path, &away).is_ok() && std::os::unix::fs::symlink(&host, &path).is_ok() {
                        std::thread::yield_now();
                        let _ = fs::remove_file(&path);
                        swaps.fetch_add(1, Ordering::Relaxed);
                    }
                    let _ = fs::rename(&away, &path);
                }
            }
        }
    };
    let tar = |round: usize| {
        let mut tar = Tar::new().dir("d/", 0o755).dir("d/e/", 0o755).dir("f/", 0o755);
        for number in 0..200 {
            for dir in ["d", "d/e", "f"] {
                // A file of the host, if the link were followed.
                tar = tar
                    .file(&format!("{dir}/secret"), "swapped")
                    .file(&format!("{dir}/{number}-{round}"), vec![b'x'; 4096])
                    .dir(&format!("{dir}/dir/"), 0o777)
                    .symlink(&format!("{dir}/link"), "secret")
                    .hard_link(&format!("{dir}/hard"), &format!("{dir}/secret"));
            }
        }
        tar.end()
    };
    std::thread::scope(|scope| -> Outcome {
        let swappers = [scope.spawn(swap), scope.spawn(swap)];
        let unpack = || -> Outcome {
            let mut round = 0;
            // It mostly fails soon, since its directory is gone while it works: as often as it takes.
            while swaps.load(Ordering::Relaxed) < SWAPS && round < 2000 {
                let tar = tar(round);
                let (layer, lease) = (Digest::sha256_of(&tar), bed.store.lease()?);
                let mut stream = Paced {
                    bytes: &tar,
                    count: &swaps,
                };
                let unpacked = bed
                    .store
                    .ingest_layer(&lease, &descriptor(&tar), &layer, None, &mut stream);
                if unpacked.is_ok() && !bed.store.has_layer(&layer) {
                    return Err("a layer that came in is not there".into());
                }
                round += 1;
            }
            Ok(())
        };
        let unpacked = unpack();
        done.store(true, Ordering::Relaxed);
        for swapper in swappers {
            swapper.join().map_err(|_| "a swapper panicked")?;
        }
        unpacked
    })?;
    assert_eq!(bed.host_state()?, before, "something outside has changed");
    assert!(
        swaps.load(Ordering::Relaxed) >= 20,
        "{swaps:?}: nothing was swapped"
    );
    Ok(())
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
