//! The check that reads the whole store, and the repair of what it finds.
use crate::support::{Bed, Outcome, Tar, add_image};
use crate::{Needs, Test};
use rdock_image::{
    BoxError, Error, Finding, Image, ImageSource, ImageStore, LayerOptions, Platform, Progress, Reference,
    SnapshotOptions,
};
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

pub(crate) fn tests() -> Vec<(&'static str, Needs, Test)> {
    vec![
        ("a_sound_store_has_no_findings", Needs::Nothing, sound),
        ("each_damage_is_found_and_named", Needs::Nothing, each_damage),
        (
            "a_repair_fetches_what_is_damaged_and_no_more",
            Needs::Nothing,
            repaired,
        ),
        (
            "a_damaged_layer_under_a_container_stays",
            Needs::Nothing,
            under_a_container,
        ),
        (
            "what_cannot_be_fetched_again_is_said",
            Needs::Nothing,
            not_to_be_had,
        ),
    ]
}

fn layers() -> [Vec<u8>; 2] {
    [
        Tar::new()
            .dir("d/", 0o755)
            .file("d/a", "content")
            .file("d/a", "later")
            .end(),
        Tar::new().file("d/b", "more").hard_link("l", "d/a").end(),
    ]
}

/// Where a layer of an image is.
fn layer(store: &ImageStore, image: &Image, number: usize) -> PathBuf {
    store.root().join("layers").join(image.diff_ids()[number].hex())
}

fn findings(store: &ImageStore) -> Result<Vec<Finding>, Error> {
    Ok(store.fsck()?.findings)
}

fn sound() -> Outcome {
    let bed = Bed::new()?;
    let image = bed.image("x:1", &layers())?;
    let lease = bed.store.lease()?;
    let scratch = bed.store.scratch_layer(image.diff_ids())?;
    fs::write(scratch.upper().join("made"), "here")?;
    bed.store.adopt_layer(
        &lease,
        scratch.upper(),
        image.diff_ids(),
        &LayerOptions::default(),
    )?;
    let report = bed.store.fsck()?;
    assert!(report.is_sound() && report.findings.is_empty(), "{report:?}");
    assert_eq!((report.blobs, report.layers, report.unchecked.len()), (2, 3, 0));
    drop(lease);
    drop(scratch);
    bed.assert_clean()
}

fn each_damage() -> Outcome {
    type Damage = fn(&ImageStore, &Image) -> std::io::Result<()>;
    let damages: [(&str, Damage); 8] = [
        ("BadBlob", |store, image| {
            let path = store.root().join("blobs/sha256").join(image.id().hex());
            fs::remove_file(&path)?;
            fs::write(path, "{}")
        }),
        ("MissingBlob", |store, image| {
            fs::remove_file(store.root().join("blobs/sha256").join(image.id().hex()))
        }),
        ("MissingBlob", |store, image| {
            fs::remove_file(
                store
                    .root()
                    .join("blobs/sha256")
                    .join(image.manifest_digest().hex()),
            )
        }),
        ("BadLayer", |store, image| {
            fs::write(layer(store, image, 0).join("fs/d/a"), "other")
        }),
        ("BadLayer", |store, image| {
            fs::write(layer(store, image, 1).join("meta.json"), "{")
        }),
        ("MissingLayer", |store, image| {
            fs::remove_dir_all(layer(store, image, 1))
        }),
        ("BadReference", |store, _| {
            let entry = fs::read_dir(store.root().join("refs"))?
                .next()
                .ok_or(std::io::ErrorKind::NotFound)??;
            fs::write(entry.path(), "garbled")
        }),
        ("Leftover", |store, _| {
            fs::create_dir(store.root().join("layers/unknown"))
        }),
    ];
    for (expected, damage) in damages {
        let bed = Bed::new()?;
        let image = bed.image("x:1", &layers())?;
        damage(&bed.store, &image)?;
        let report = bed.store.fsck()?;
        let names: Vec<_> = report
            .findings
            .iter()
            .map(|finding| format!("{finding:?}"))
            .collect();
        assert!(
            names.len() == 1 && names[0].starts_with(expected),
            "{expected}: {names:?}"
        );
        assert_eq!(report.is_sound(), expected == "Leftover", "{expected}");
        let text = report.findings[0].to_string();
        let named = match &report.findings[0] {
            Finding::MissingBlob { images, .. } => images == &["x:1"] && text.contains("x:1"),
            Finding::MissingLayer { users, .. } => users == &["x:1"],
            Finding::BadLayer { path, reason, .. } => {
                path == "d/a" || (path.is_empty() && reason.contains("meta.json"))
            }
            _ => !text.is_empty(),
        };
        assert!(named, "{text}");
    }
    Ok(())
}

/// Gives one image again and again, and counts how often each layer was missing.
struct Again {
    layers: Vec<Vec<u8>>,
    missing: Mutex<Vec<usize>>,
}

impl ImageSource for Again {
    fn fetch(
        &self,
        reference: &Reference,
        _: &Platform,
        store: &ImageStore,
        _: &Progress,
    ) -> Result<Image, BoxError> {
        for (number, tar) in self.layers.iter().enumerate() {
            if !store.has_layer(&rdock_image::Digest::sha256_of(tar)) {
                self.missing.lock().map_err(|_| "poisoned")?.push(number);
            }
        }
        if !reference.name().ends_with("/x") {
            return Err("no such image".into());
        }
        Ok(add_image(store, reference.as_str(), &self.layers)?)
    }
}

fn source() -> Again {
    Again {
        layers: layers().to_vec(),
        missing: Mutex::default(),
    }
}

fn repaired() -> Outcome {
    let bed = Bed::new()?;
    let image = bed.image("x:1", &layers())?;
    bed.store.view(&image)?;
    fs::write(layer(&bed.store, &image, 0).join("fs/d/a"), "other")?;
    fs::remove_file(bed.store.root().join("blobs/sha256").join(image.id().hex()))?;
    let source = source();
    let report = bed.store.repair(&source, &Progress::default())?;
    assert_eq!(report.repaired, [Reference::parse("x:1")?.canonical()]);
    assert!(report.failed.is_empty() && report.in_use.is_empty(), "{report:?}");
    assert!(report.after.findings.is_empty(), "{report:?}");
    assert_eq!(*source.missing.lock().map_err(|_| "poisoned")?, [0]);
    let there = bed.store.get("x:1")?.ok_or("no image")?;
    assert_eq!((there.id(), there.references().len()), (image.id(), 1));
    let view = bed.store.view(&there)?;
    // The hard link leads to the new file.
    assert_eq!(crate::support::read(&view, "l")?, "later");
    // A sound store is left alone.
    let report = bed.store.repair(&source, &Progress::default())?;
    assert!(report.repaired.is_empty() && report.after.is_sound());
    bed.assert_clean()
}

fn under_a_container() -> Outcome {
    let bed = Bed::new()?;
    let image = bed.image("x:1", &layers())?;
    let snapshot = bed.store.snapshot(&image, "c1", &SnapshotOptions::default())?;
    fs::write(layer(&bed.store, &image, 0).join("fs/d/a"), "other")?;
    let report = bed.store.repair(&source(), &Progress::default())?;
    assert_eq!(report.in_use, [image.diff_ids()[0].clone()]);
    assert!(!report.after.is_sound() && layer(&bed.store, &image, 0).exists());
    snapshot.remove()?;
    let report = bed.store.repair(&source(), &Progress::default())?;
    assert!(report.after.is_sound(), "{report:?}");
    Ok(())
}

fn not_to_be_had() -> Outcome {
    let bed = Bed::new()?;
    let image = bed.image("made-here:1", &layers())?;
    fs::remove_dir_all(layer(&bed.store, &image, 0))?;
    let report = bed.store.repair(&source(), &Progress::default())?;
    let [(name, why)] = &report.failed[..] else {
        return Err(format!("{report:?}").into());
    };
    assert_eq!(
        (name.familiar().as_str(), why.as_str()),
        ("made-here:1", "no such image")
    );
    assert!(matches!(
        &report.after.findings[..],
        [Finding::MissingLayer { users, .. }] if users == &["made-here:1"]
    ));
    assert_eq!(findings(&bed.store)?, report.after.findings);
    Ok(())
}
