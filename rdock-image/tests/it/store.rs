//! Names, snapshots, garbage, and the tree that the kernel makes of a snapshot.
mod names;

use crate::children::command;
use crate::support::{Bed, Outcome, Tar, read};
use crate::{Needs, Test};
use rdock_image::{
    Digest, Error, FileKind, ImageConfig, ImageStore, Manifest, Mount, PruneFilter, Reference,
    SnapshotOptions,
};
use rustix::fs::inotify;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

pub(crate) fn tests() -> Vec<(&'static str, Needs, Test)> {
    vec![
        (
            "names_lead_to_images",
            Needs::Nothing,
            names::names_lead_to_images,
        ),
        (
            "an_image_that_lost_its_name_is_kept_until_pruned",
            Needs::Nothing,
            names::an_image_that_lost_its_name,
        ),
        (
            "one_name_or_id_costs_nothing_for_the_others",
            Needs::Nothing,
            names::one_of_many_names,
        ),
        (
            "an_id_leads_to_its_image_whatever_its_note_says",
            Needs::Nothing,
            names::notes_of_ids,
        ),
        (
            "a_name_says_when_it_was_given_last",
            Needs::Nothing,
            names::moments_of_names,
        ),
        ("a_prune_has_conditions", Needs::Nothing, conditions),
        ("what_the_store_takes_is_added_up", Needs::Nothing, usage),
        (
            "an_id_with_two_manifests_is_removed_whole",
            Needs::Nothing,
            two_manifests,
        ),
        (
            "a_snapshot_keeps_its_layers",
            Needs::Nothing,
            a_snapshot_keeps_its_layers,
        ),
        (
            "a_snapshot_that_cannot_be_removed_stays",
            Needs::Root,
            a_snapshot_that_cannot_be_removed_stays,
        ),
        (
            "the_upper_directory_has_the_roots_attributes",
            Needs::Nothing,
            upper_attributes,
        ),
        (
            "hard_links_to_layers_below_are_one_file",
            Needs::Nothing,
            hard_links_below,
        ),
        (
            "implicit_directories_take_attributes_from_below",
            Needs::Nothing,
            implicit_directories,
        ),
        (
            "what_a_layer_puts_below_a_symlink_goes_where_it_leads",
            Needs::Nothing,
            implicit_over_symlink,
        ),
        (
            "the_kernel_shows_what_the_view_says",
            Needs::Root,
            the_kernel_agrees,
        ),
        ("owners_are_kept", Needs::Nothing, owners_are_kept),
        ("the_store_is_closed_to_others", Needs::Nothing, closed_to_others),
    ]
}

/// Makes an image of a config alone.
fn made(bed: &Bed, name: &str, created: Option<&str>, labels: &[(&str, &str)]) -> Result<Digest, Error> {
    let mut config = ImageConfig {
        created: created.map(str::to_owned),
        author: Some(name.to_owned()),
        ..ImageConfig::default()
    };
    let labels = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config.config.labels = labels.collect();
    let lease = bed.store.lease()?;
    let image = bed
        .store
        .write_image(&lease, &config, &[Reference::parse(name)?])?;
    Ok(image.id().clone())
}

fn conditions() -> Outcome {
    let bed = Bed::new()?;
    let old = made(&bed, "old", Some("2020-01-01T00:00:00Z"), &[("keep", "")])?;
    let new = made(&bed, "new", Some("2026-01-01T00:00:00.5Z"), &[("stage", "test")])?;
    let undated = made(&bed, "undated", None, &[("stage", "prod"), ("keep", "yes")])?;
    let pruned = |change: &dyn Fn(&mut PruneFilter)| -> Result<Vec<Digest>, Error> {
        let mut filter = PruneFilter::all();
        change(&mut filter);
        let mut found = bed.store.prune(&filter)?.images;
        found.sort();
        Ok(found)
    };
    let label = |name: &str, value: Option<&str>| vec![(name.to_owned(), value.map(str::to_owned))];
    assert!(
        bed.store.prune(&PruneFilter::default())?.images.is_empty(),
        "all have names"
    );
    assert!(pruned(&|filter| filter.labels = label("stage", Some("other")))?.is_empty());
    // Both conditions have to hold.
    let none = pruned(&|filter| {
        filter.labels = label("stage", None);
        filter.without_labels = label("stage", None);
    })?;
    assert!(none.is_empty());
    let moment = 1_767_225_600_500_000_000; // 2026-01-01T00:00:00.5Z
    assert_eq!(
        pruned(&|filter| {
            filter.until = Some(moment);
            filter.without_labels = label("stage", Some("prod"));
        })?,
        [old]
    );
    assert_eq!(pruned(&|filter| filter.until = Some(moment))?, [undated]);
    assert_eq!(
        pruned(&|filter| filter.labels = label("stage", Some("test")))?,
        [new]
    );
    assert!(bed.store.images()?.is_empty());
    bed.assert_clean()
}

fn usage() -> Outcome {
    let bed = Bed::new()?;
    let base = Tar::new().file("base", vec![b'b'; 5000]).end();
    let own = |text: &str| Tar::new().file("own", text.repeat(1000)).end();
    let image = bed.image("a:1", &[base.clone(), own("a")])?;
    // One that a later entry of the same tar replaces is kept beside the files.
    let twice = Tar::new().file("x", vec![1; 7000]).file("x", "2").end();
    bed.image("b:1", &[base, twice.clone(), twice.clone()])?;
    let on_disk = |digest: &Digest| -> Result<u64, Box<dyn std::error::Error>> {
        let mut bytes = 0;
        let dir = bed.store.root().join("layers").join(digest.hex());
        for (path, (mode, .., content)) in crate::support::tree(&dir)? {
            // The list of what is apart is small, and in no sum.
            if path == dir.join("apart/list") {
                continue;
            }
            bytes += if mode & 0o170_000 == 0o100_000 {
                content.len() as u64
            } else {
                0
            };
        }
        Ok(bytes)
    };
    let twice = Digest::sha256_of(&twice);
    for layer in image.diff_ids().iter().chain([&twice]) {
        assert_eq!(bed.store.layer_usage(layer)?, on_disk(layer)?, "{layer}");
        assert!(bed.store.layer_usage(layer)? > bed.store.layer_size(layer)?);
    }
    assert!(on_disk(&twice)? > 7000, "what is apart counts");
    let usage = bed.store.usage()?;
    let (shared, unique) = (on_disk(&image.diff_ids()[0])?, on_disk(&image.diff_ids()[1])?);
    let found: Vec<_> = usage.images.iter().map(|one| (one.shared, one.unique)).collect();
    assert_eq!(
        found,
        [(shared, unique), (shared, on_disk(&twice)?)],
        "once, though it is there twice"
    );
    let layers = shared + unique + on_disk(&twice)?;
    assert!(
        usage.image_bytes > layers && usage.image_bytes < layers + 4096,
        "{usage:?}"
    );
    assert_eq!(usage.kept_bytes, 0);
    // What only a build's result needs is no image's.
    bed.store.keep_layers("step", &image.diff_ids()[1..])?;
    assert_eq!(bed.store.usage()?.kept_bytes, 0);
    let removed = bed.store.remove("a:1", false)?;
    assert_eq!(removed.deleted, [image.id().clone()], "its own layer is kept");
    assert_eq!(bed.store.usage()?.kept_bytes, unique);
    bed.store.release_layers("step")?;
    assert_eq!(bed.store.prune_layers()?, 1000, "content alone");
    Ok(())
}

fn two_manifests() -> Outcome {
    let bed = Bed::new()?;
    let layers = [Tar::new().file("a", "1").end()];
    let image = bed.image("x:1", &layers)?;
    // The same config and layer, by another manifest.
    let manifest = Manifest {
        annotations: [("org.example".to_owned(), "1".to_owned())].into(),
        ..image.manifest().clone()
    };
    let text = serde_json::to_vec(&manifest)?;
    let digest = Digest::sha256_of(&text);
    let lease = bed.store.lease()?;
    bed.store.write_blob(&lease, &text, &digest)?;
    let second = bed.store.commit(&lease, &Reference::parse("x:2")?, &digest)?;
    drop(lease);
    assert_eq!(second.id(), image.id());
    let removed = bed.store.remove("x:1", false)?;
    assert!(
        removed.deleted.is_empty(),
        "{removed:?}: the image is there still"
    );
    assert!(bed.store.get(image.id().as_str())?.is_some());
    bed.image("x:1", &layers)?;
    assert!(matches!(
        bed.store.remove(image.id().as_str(), false),
        Err(Error::SeveralTags { tags, .. }) if tags == ["x:1", "x:2"]
    ));
    let removed = bed.store.remove(image.id().as_str(), true)?;
    assert_eq!(removed.untagged.len(), 2);
    assert_eq!(removed.deleted, [image.id().clone(), image.diff_ids()[0].clone()]);
    assert!(bed.store.images()?.is_empty());
    bed.assert_clean()
}

fn a_snapshot_keeps_its_layers() -> Outcome {
    let bed = Bed::new()?;
    let image = bed.image("x:1", &[Tar::new().file("a", "1").end()])?;
    let snapshot = bed.store.snapshot(&image, "c1", &SnapshotOptions::default())?;
    assert!(matches!(
        bed.store.snapshot(&image, "c1", &SnapshotOptions::default()),
        Err(Error::Exists { .. })
    ));
    assert!(matches!(
        bed.store.remove("x:1", false),
        Err(Error::ImageInUse { .. })
    ));
    assert!(bed.store.prune(&PruneFilter::all())?.images.is_empty());
    bed.store.remove("x:1", true)?;
    assert!(bed.store.get("x:1")?.is_none());
    bed.store.prune(&PruneFilter::all())?;
    let Some(Mount::Overlay {
        lower, upper, work, ..
    }) = snapshot.mounts().pop()
    else {
        return Err("no overlay".into());
    };
    assert!(lower[0].join("a").exists() && upper.is_dir() && work.is_dir());
    let again = ImageStore::open(bed.dir.path().join("store"))?
        .open_snapshot("c1")?
        .ok_or("gone")?;
    assert_eq!(again.mounts(), snapshot.mounts());
    fs::write(snapshot.upper().join("changed"), "x")?;
    // As overlayfs leaves it after a volatile mount.
    fs::create_dir_all(work.join("work/incompat/volatile"))?;
    again.clear_volatile_mark()?;
    again.clear_volatile_mark()?;
    assert!(!work.join("work/incompat").exists());
    again.remove()?;
    assert!(matches!(snapshot.remove(), Err(Error::NotFound { .. })));
    bed.store.prune(&PruneFilter::default())?;
    assert!(
        bed.names("layers")?.is_empty()
            && bed.names("snapshots")?.is_empty()
            && bed.names("chains")?.is_empty()
    );
    bed.assert_clean()
}

/// As a container of a user namespace leaves it: a directory of another id that this user cannot open.
fn a_snapshot_that_cannot_be_removed_stays() -> Outcome {
    let bed = Bed::new()?;
    let root = bed.dir.path().join("store").display().to_string();
    let image = bed.image("x:1", &[Tar::new().file("a", "1").end()])?;
    let snapshot = bed.store.snapshot(&image, "c1", &SnapshotOptions::default())?;
    fs::create_dir(snapshot.upper().join("foreign"))?;
    fs::write(snapshot.upper().join("foreign/file"), "x")?;
    fs::set_permissions(
        snapshot.upper().join("foreign"),
        fs::Permissions::from_mode(0o700),
    )?;
    std::os::unix::fs::chown(snapshot.upper().join("foreign"), Some(100_000), Some(100_000))?;
    fs::set_permissions(bed.dir.path(), fs::Permissions::from_mode(0o755))?;
    let output = command("remove-as-nobody", &[&root, "c1"])?.output()?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(bed.store.open_snapshot("c1")?.is_some());
    snapshot.remove()?;
    assert!(bed.names("trash")?.is_empty());
    Ok(())
}

fn upper_attributes() -> Outcome {
    let bed = Bed::new()?;
    let layers = [
        Tar::new().dir("./", 0o711).file("a", "").end(),
        Tar::new().file("b", "").end(),
    ];
    let image = bed.image("x:1", &layers)?;
    let snapshot = bed.store.snapshot(
        &image,
        "c1",
        &SnapshotOptions {
            volatile: true,
            user_namespace: true,
        },
    )?;
    let meta = fs::metadata(snapshot.upper())?;
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o711, 0o14_000_000_000));
    let Some(Mount::Overlay {
        volatile,
        userxattr,
        lower,
        ..
    }) = snapshot.mounts().pop()
    else {
        return Err("no overlay".into());
    };
    assert!(volatile && userxattr);
    assert_eq!(lower.len(), 2);
    assert!(lower[0].join("b").exists(), "the uppermost layer comes first");
    Ok(())
}

fn hard_links_below() -> Outcome {
    let bed = Bed::new()?;
    let layers = [
        Tar::new().dir("bin", 0o755).file("bin/tool", "x").end(),
        Tar::new()
            .dir("sbin", 0o700)
            .hard_link("sbin/link", "bin/tool")
            .end(),
        Tar::new().hard_link("bin/third", "/sbin/link").end(),
    ];
    let view = bed.view(&layers)?;
    let inode =
        |path| -> Result<_, Box<dyn std::error::Error>> { Ok(view.metadata(path)?.ok_or(path)?.inode) };
    assert_eq!(inode("bin/tool")?, inode("sbin/link")?);
    assert_eq!(inode("bin/tool")?, inode("bin/third")?);
    assert_eq!(view.metadata("sbin")?.map(|info| info.mode), Some(0o700));
    let missing = bed.image(
        "y",
        &[layers[0].clone(), Tar::new().hard_link("a", "bin/none").end()],
    );
    assert!(
        matches!(missing, Err(Error::LayerMalformed { .. })),
        "{missing:?}"
    );
    bed.assert_clean()
}

fn implicit_directories() -> Outcome {
    let bed = Bed::new()?;
    let lower = Tar::new()
        .dir("tmp", 0o1777)
        .dir("srv", 0o700)
        .dir("srv/in", 0o750)
        .end();
    let upper = Tar::new()
        .file("tmp/a", "1")
        .file("srv/in/b", "2")
        .file("new/c", "3")
        .end();
    let view = bed.view(&[lower.clone(), upper.clone()])?;
    let mode = |path| -> Result<_, Error> { Ok(view.metadata(path)?.map(|info| (info.mode, info.mtime))) };
    let time = 0o14_000_000_000;
    assert_eq!(mode("tmp")?, Some((0o1777, time)));
    assert_eq!(mode("srv")?, Some((0o700, time)));
    assert_eq!(mode("srv/in")?, Some((0o750, time)));
    assert_eq!(mode("new")?.map(|found| found.0), Some(0o755));
    assert_eq!(
        (read(&view, "tmp/a")?, read(&view, "srv/in/b")?),
        ("1".into(), "2".into())
    );
    // Below an opaque directory there is nothing to take from.
    let hidden = Tar::new()
        .file("srv/.wh..wh..opq", "")
        .file("srv/in/b", "2")
        .end();
    let view = bed.view(&[lower, hidden])?;
    assert_eq!(view.metadata("srv/in")?.map(|info| info.mode), Some(0o755));
    Ok(())
}

fn implicit_over_symlink() -> Outcome {
    let bed = Bed::new()?;
    let lower = Tar::new()
        .dir("usr", 0o755)
        .dir("usr/lib", 0o755)
        .file("usr/lib/old", "1")
        .symlink("lib", "usr/lib")
        .end();
    let upper = Tar::new()
        .file("lib/new", "2")
        .file("lib/sub/deep", "3")
        .file("lib/.wh.old", "")
        .end();
    let view = bed.view(&[lower, upper])?;
    assert_eq!(
        view.symlink_metadata("lib")?.map(|info| info.kind),
        Some(FileKind::Symlink)
    );
    assert_eq!(read(&view, "usr/lib/new")?, "2");
    assert_eq!(read(&view, "lib/sub/deep")?, "3");
    assert!(view.metadata("usr/lib/old")?.is_none());
    bed.assert_clean()
}

/// The merged view is our own reading of what overlayfs does; the kernel is the judge.
fn the_kernel_agrees() -> Outcome {
    let bed = Bed::new()?;
    let layers = [
        Tar::new()
            .dir(".", 0o751)
            .dir("etc", 0o755)
            .file("etc/kept", "1")
            .file("etc/removed", "2")
            .dir("opaque", 0o755)
            .file("opaque/hidden", "3")
            .dir("replaced", 0o755)
            .file("replaced/x", "4")
            .dir("tmp", 0o1777)
            .dir("usr", 0o755)
            .dir("usr/lib", 0o755)
            .file("usr/lib/old", "5")
            .symlink("lib", "usr/lib")
            .end(),
        Tar::new()
            .dir("etc", 0o711)
            .file("etc/.wh.removed", "")
            .dir("opaque", 0o700)
            .file("opaque/.wh..wh..opq", "")
            .file("opaque/shown", "6")
            .file("replaced", "a file now")
            .file("tmp/implicit", "7")
            .file("lib/new", "8")
            .hard_link("etc/link", "usr/lib/old")
            .file(".wh.never-there", "")
            .end(),
        Tar::new().file(".wh.opaque", "").file("opaque/again", "9").end(),
    ];
    let image = bed.image("x:1", &layers)?;
    bed.store.snapshot(&image, "c1", &SnapshotOptions::default())?;
    let root = bed.dir.path().join("store");
    let output = command("mounted", &[&root.display().to_string(), "c1"])?.output()?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut kernel: Vec<String> = String::from_utf8(output.stdout)?
        .lines()
        .map(str::to_owned)
        .collect();
    kernel.sort();
    let view = bed.store.view(&image)?;
    let mut ours = vec![format!("/ {:o} 0:0 ", 0o040_751)];
    for (path, info) in view.walk()? {
        let path = path.display().to_string();
        let (kind, content) = match info.kind {
            FileKind::Dir => (0o040_000, String::new()),
            FileKind::Symlink => (0o120_000, String::new()),
            _ => (0o100_000, read(&view, &path)?),
        };
        ours.push(format!(
            "{path} {:o} {}:{} {content}",
            kind | info.mode,
            info.uid,
            info.gid
        ));
    }
    ours.sort();
    assert_eq!(kernel, ours);
    Ok(())
}

fn owners_are_kept() -> Outcome {
    let bed = Bed::new()?;
    let tar = Tar::new()
        .changed("mine", b'0', b"x", |_| {})
        .changed("theirs", b'0', b"y", |block| {
            block[108..116].copy_from_slice(b"0001751\0");
            block[116..124].copy_from_slice(b"0000144\0");
            block[100..108].copy_from_slice(b"0006755\0");
        })
        .end();
    let layer = bed.ingest(&tar)?;
    let path = bed.store.root().join("layers").join(layer.hex());
    let meta = fs::metadata(path.join("fs/theirs"))?;
    assert_eq!(meta.mode() & 0o7777, 0o6755);
    if bed.store.info()?.ownership == "exact" {
        assert_eq!((meta.uid(), meta.gid()), (0o1751, 0o144));
        assert!(!path.join("owners").exists());
    } else {
        let owners = fs::read_to_string(path.join("owners"))?;
        assert_eq!(owners.trim(), r#"["theirs",{"uid":1001,"gid":100}]"#);
    }
    Ok(())
}

fn closed_to_others() -> Outcome {
    let bed = Bed::new()?;
    bed.image("x:1", &[Tar::new().entry("su", b'0', "", 0o4755, b"x").end()])?;
    assert_eq!(
        fs::metadata(bed.store.root())?.permissions().mode() & 0o777,
        0o700
    );
    let blobs = bed.store.root().join("blobs/sha256");
    for entry in fs::read_dir(blobs)? {
        assert_eq!(entry?.metadata()?.mode() & 0o777, 0o444);
    }
    Ok(())
}
