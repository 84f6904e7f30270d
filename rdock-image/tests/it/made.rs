//! Layers and images made here: what a real overlayfs leaves becomes a layer.
use crate::changed::changed;
use crate::support::{Bed, Outcome, Tar, read};
use crate::{Needs, Test};
use rdock_image::{
    Digest, Error, ExportOptions, ImageConfig, ImageStore, LayerOptions, Progress, PruneFilter, Reference,
};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

pub(crate) fn tests() -> Vec<(&'static str, Needs, Test)> {
    vec![
        (
            "a_container_that_changed_nothing_makes_an_empty_layer",
            Needs::Root,
            nothing_changed,
        ),
        (
            "what_a_container_wrote_becomes_a_layer",
            Needs::Root,
            changes_become_a_layer,
        ),
        (
            "a_layer_made_here_gives_the_same_tar_every_time",
            Needs::Root,
            the_same_tar,
        ),
        ("mount_points_are_no_change", Needs::Root, mount_points),
        (
            "a_mount_point_behind_a_link_is_cleaned_inside_the_root",
            Needs::Root,
            mount_point_behind_a_link,
        ),
        ("kept_layers_survive_a_prune", Needs::Root, kept_layers),
        ("an_exported_image_comes_back_the_same", Needs::Root, exported),
        ("times_are_clamped", Needs::Root, clamped),
    ]
}

fn error(text: impl std::fmt::Display) -> Box<dyn std::error::Error> {
    text.to_string().into()
}

fn base() -> Vec<u8> {
    Tar::new()
        .dir("etc/", 0o755)
        .file("etc/passwd", "root:x:0:0::/:/bin/sh\n")
        .file("etc/old", "old")
        .dir("data/", 0o700)
        .file("data/a", "a")
        .dir("gone/", 0o755)
        .file("gone/x", "x")
        .symlink("run", "etc")
        .end()
}

/// Entries of a layer's tar: path to type and content.
fn entries(
    store: &ImageStore,
    diff_id: &Digest,
) -> Result<BTreeMap<String, (u8, String)>, Box<dyn std::error::Error>> {
    let mut bytes = Vec::new();
    let (digest, size) = store.write_layer_tar(diff_id, &mut bytes)?;
    if digest != *diff_id || size != bytes.len() as u64 {
        return Err(error("the tar is another one"));
    }
    let mut found = BTreeMap::new();
    let mut archive = tar::Archive::new(&bytes[..]);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let mut text = String::new();
        let kind = entry.header().entry_type().as_byte();
        let link = entry.link_name()?.map(|path| path.display().to_string());
        entry.read_to_string(&mut text)?;
        found.insert(entry.path()?.display().to_string(), (kind, link.unwrap_or(text)));
    }
    Ok(found)
}

fn same<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Outcome {
    if found == expected {
        Ok(())
    } else {
        Err(error(format!("expected {expected:?}, found {found:?}")))
    }
}

fn nothing_changed() -> Outcome {
    let bed = Bed::new()?;
    let below = bed.ingest(&base())?;
    let made = changed(&bed.store, &[below], &LayerOptions::default(), |root| {
        // Copied up, and put back as it was.
        fs::rename(root.join("etc/old"), root.join("etc/new"))?;
        fs::rename(root.join("etc/new"), root.join("etc/old"))?;
        fs::write(root.join("data/b"), "b")?;
        fs::remove_file(root.join("data/b"))?;
        let mode = fs::metadata(root.join("data/a"))?.permissions();
        fs::set_permissions(root.join("data/a"), mode)?;
        Ok(())
    })?;
    same(entries(&bed.store, &made.diff_id)?, BTreeMap::new())?;
    // The digest that every engine gives to a layer without entries.
    same(
        made.diff_id.as_str(),
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    )?;
    bed.assert_clean()
}

fn changes_become_a_layer() -> Outcome {
    let bed = Bed::new()?;
    let below = bed.ingest(&base())?;
    let made = changed(
        &bed.store,
        std::slice::from_ref(&below),
        &LayerOptions::default(),
        |root| {
            fs::write(root.join("etc/old"), "new")?;
            fs::remove_file(root.join("etc/passwd"))?;
            fs::remove_dir_all(root.join("gone"))?;
            fs::create_dir(root.join("gone"))?;
            fs::write(root.join("gone/y"), "y")?;
            fs::remove_file(root.join("run"))?;
            fs::create_dir_all(root.join("run/deep/er"))?;
            fs::hard_link(root.join("data/a"), root.join("data/z"))?;
            let long = "x".repeat(180);
            fs::write(root.join(&long), "long")?;
            symlink(format!("/{}", "l".repeat(200)), root.join("long-link"))?;
            fs::write(root.join("ünïcode"), "u")?;
            let node = |name: &str, kind, device| {
                rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o600), device)
            };
            node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3))?;
            node("fifo", FileType::Fifo, 0)?;
            drop(std::os::unix::net::UnixListener::bind(root.join("socket"))?);
            fs::write(root.join("cap"), "cap")?;
            rustix::fs::setxattr(root.join("cap"), "user.note", b"hello", XattrFlags::empty())?;
            rustix::fs::chownat(
                CWD,
                root.join("cap"),
                Some(rustix::fs::Uid::from_raw(3_000_000)),
                Some(rustix::fs::Gid::from_raw(7)),
                AtFlags::empty(),
            )?;
            fs::set_permissions(root.join("cap"), fs::Permissions::from_mode(0o4711))?;
            Ok(())
        },
    )?;
    let found = entries(&bed.store, &made.diff_id)?;
    let paths: Vec<&str> = found.keys().map(String::as_str).collect();
    let long = "x".repeat(180);
    let mut expected = vec![
        "cap",
        "data/",
        "data/a",
        "data/z",
        "etc/",
        "etc/.wh.passwd",
        "etc/old",
        "fifo",
        "gone/",
        "gone/.wh..wh..opq",
        "gone/y",
        "long-link",
        "null",
        "run/",
        "run/deep/",
        "run/deep/er/",
        &long,
        "ünïcode",
    ];
    expected.sort_unstable();
    same(paths, expected)?;
    same(&found["data/z"], &(b'1', "data/a".to_owned()))?;
    same(&found["long-link"].1, &format!("/{}", "l".repeat(200)))?;
    // The same layer, brought in as its tar by another store, shows the same tree.
    let mut bytes = Vec::new();
    bed.store.write_layer_tar(&made.diff_id, &mut bytes)?;
    let other = Bed::new()?;
    let again = other.ingest(&base())?;
    let tar = other.ingest(&bytes)?;
    same(&tar, &made.diff_id)?;
    let list = |store: &ImageStore| -> Result<Vec<_>, Box<dyn std::error::Error>> {
        let view = store.view_layers(&[again.clone(), tar.clone()])?;
        Ok(view
            .walk()?
            .into_iter()
            .map(|(path, i)| (path, i.kind, i.mode, i.uid, i.gid, i.size))
            .collect())
    };
    same(list(&other.store)?, list(&bed.store)?)?;
    let view = bed.store.view_layers(&[below, made.diff_id])?;
    same(read(&view, "etc/old")?, "new".to_owned())?;
    same(view.metadata("gone/x")?.is_none(), true)?;
    same(
        view.metadata("cap")?.map(|info| (info.mode, info.uid)),
        Some((0o4711, 3_000_000)),
    )?;
    bed.assert_clean()
}

fn the_same_tar() -> Outcome {
    let bed = Bed::new()?;
    let below = bed.ingest(&base())?;
    let make = |order: [&'static str; 3]| {
        changed(
            &bed.store,
            std::slice::from_ref(&below),
            &LayerOptions::default().clamp_mtime(Some(1000)),
            move |root| {
                for name in order {
                    fs::write(root.join(name), name)?;
                }
                Ok(())
            },
        )
    };
    let (first, second) = (make(["a", "b", "c"])?, make(["c", "a", "b"])?);
    same(first.diff_id, second.diff_id)?;
    bed.assert_clean()
}

fn clamped() -> Outcome {
    let bed = Bed::new()?;
    let options = LayerOptions::default().clamp_mtime(Some(1_000_000));
    let made = changed(&bed.store, &[], &options, |root| {
        fs::create_dir(root.join("d"))?;
        fs::write(root.join("d/new"), "")?;
        fs::write(root.join("d/old"), "")?;
        symlink("x", root.join("link"))?;
        let at = Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: at,
            last_modification: at,
        };
        Ok(rustix::fs::utimensat(
            CWD,
            root.join("d/old"),
            &times,
            AtFlags::empty(),
        )?)
    })?;
    let view = bed.store.view_layers(&[made.diff_id])?;
    let time = |path| -> Result<i64, Box<dyn std::error::Error>> {
        Ok(view
            .symlink_metadata(path)?
            .ok_or_else(|| error("missing"))?
            .mtime)
    };
    same(
        (time("d")?, time("d/new")?, time("d/old")?, time("link")?),
        (1_000_000, 1_000_000, 5, 1_000_000),
    )
}

fn mount_points() -> Outcome {
    let bed = Bed::new()?;
    let below = bed.ingest(&base())?;
    let options = LayerOptions::default().mount_points([
        "/proc",
        "/etc/hosts",
        "/run/secrets/token",
        "/data/filled",
        "/new/deep/dir",
        "/used/dir",
    ]);
    let made = changed(&bed.store, &[below], &options, |root| {
        fs::create_dir(root.join("proc"))?;
        fs::write(root.join("etc/hosts"), "")?;
        // `run` leads to `etc`.
        fs::create_dir_all(root.join("etc/secrets"))?;
        fs::write(root.join("etc/secrets/token"), "")?;
        fs::write(root.join("data/filled"), "the step wrote this")?;
        fs::create_dir_all(root.join("new/deep/dir"))?;
        fs::create_dir_all(root.join("used/dir"))?;
        fs::write(root.join("used/file"), "")?;
        Ok(())
    })?;
    let found = entries(&bed.store, &made.diff_id)?;
    let paths: Vec<&str> = found.keys().map(String::as_str).collect();
    same(paths, vec!["data/", "data/filled", "used/", "used/file"])
}

fn mount_point_behind_a_link() -> Outcome {
    let bed = Bed::new()?;
    let below = bed.ingest(&base())?;
    let host = bed.host();
    let before = bed.host_state()?;
    fs::create_dir(Path::new(&host).join("empty"))?;
    let options = LayerOptions::default().mount_points(["/x/empty", "/x/dir", "/y"]);
    let target = host.clone();
    let made = changed(&bed.store, &[below], &options, move |root| {
        symlink(&target, root.join("x"))?;
        symlink(format!("{target}/empty"), root.join("y"))?;
        Ok(())
    })?;
    if !Path::new(&host).join("empty").is_dir() {
        return Err(error("a directory of the host is gone"));
    }
    fs::remove_dir(Path::new(&host).join("empty"))?;
    // The time of the directory itself is not compared.
    same(bed.host_state()?.len(), before.len())?;
    same(entries(&bed.store, &made.diff_id)?.len(), 2)
}

fn kept_layers() -> Outcome {
    let bed = Bed::new()?;
    let below = bed.ingest(&base())?;
    let made = changed(
        &bed.store,
        std::slice::from_ref(&below),
        &LayerOptions::default(),
        |root| Ok(fs::write(root.join("n"), "")?),
    )?;
    bed.store.prune(&PruneFilter::all())?;
    same(
        bed.store.has_layer(&made.diff_id) && bed.store.has_layer(&below),
        true,
    )?;
    bed.store.release_layers("test")?;
    bed.store.release_layers("test")?;
    bed.store.prune(&PruneFilter::all())?;
    same(
        bed.store.has_layer(&made.diff_id) || bed.store.has_layer(&below),
        false,
    )?;
    match bed.store.keep_layers("../x", &[]) {
        Err(Error::InvalidId { .. }) => bed.assert_clean(),
        other => Err(error(format!("{other:?}"))),
    }
}

fn exported() -> Outcome {
    let bed = Bed::new()?;
    let lease = bed.store.lease()?;
    let made = changed(&bed.store, &[], &LayerOptions::default(), |root| {
        fs::create_dir(root.join("d"))?;
        fs::write(root.join("d/f"), "content")?;
        Ok(fs::hard_link(root.join("d/f"), root.join("d/g"))?)
    })?;
    let mut config = ImageConfig {
        architecture: "amd64".into(),
        os: "linux".into(),
        ..ImageConfig::default()
    };
    config.rootfs.diff_ids = vec![made.diff_id.clone()];
    config.config.cmd = Some(vec!["/d/f".into()]);
    let names = [Reference::parse("one:1")?, Reference::parse("reg.example/two:2")?];
    let image = bed.store.write_image(&lease, &config, &names)?;
    same(image.references().len(), 2)?;
    for oci_only in [false, true] {
        let mut archive = Vec::new();
        let options = ExportOptions::default().oci_only(oci_only);
        let report = bed
            .store
            .export(&[(image.clone(), names.to_vec())], &options, &mut archive)?;
        same(report.renamed, Vec::new())?;
        let other = Bed::new()?;
        let images = other
            .store
            .import_stream(&mut &archive[..], &Progress::default())?;
        same(images[0].id(), image.id())?;
        let found = other.store.get("one:1")?.ok_or_else(|| error("no such name"))?;
        same(found.diff_ids(), image.diff_ids())?;
        let view = other.store.view(&found)?;
        let inode = |path| -> Result<_, Box<dyn std::error::Error>> {
            Ok(view.metadata(path)?.map(|info| info.inode))
        };
        same(inode("d/f")? == inode("d/g")?, true)?;
    }
    // An image whose layer came as a tar that another tool wrote: the files are the same.
    let foreign = bed.image("foreign", &[base()])?;
    let mut archive = Vec::new();
    let names = vec![Reference::parse("foreign")?];
    bed.store.export(
        &[(foreign.clone(), names)],
        &ExportOptions::default(),
        &mut archive,
    )?;
    let other = Bed::new()?;
    let images = other
        .store
        .import_stream(&mut &archive[..], &Progress::default())?;
    let (old, new) = (
        bed.store.view(&foreign)?.walk()?,
        other.store.view(&images[0])?.walk()?,
    );
    same(new.keys().collect::<Vec<_>>(), old.keys().collect())?;
    same(fs::metadata(bed.store.root())?.uid(), 0)
}
