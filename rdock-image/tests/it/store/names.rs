//! Which names lead to which images.
use super::*;

pub(super) fn names_lead_to_images() -> Outcome {
    let bed = Bed::new()?;
    let image = bed.image("busybox", &[Tar::new().file("a", "1").end()])?;
    assert_eq!(image.references(), [Reference::parse("busybox:latest")?]);
    bed.store
        .tag(&image, &Reference::parse("example.com:5000/x/y:2")?)?;
    let id = image.id().clone();
    for name in [
        "busybox",
        "docker.io/library/busybox:latest",
        "example.com:5000/x/y:2",
        id.as_str(),
        id.hex(),
        id.short(),
        &format!("sha256:{}", id.short()),
        &format!("busybox@{}", image.manifest_digest()),
    ] {
        assert_eq!(
            bed.store
                .get(name)?
                .ok_or_else(|| format!("{name} is not found"))?
                .id(),
            &id
        );
    }
    assert!(bed.store.get("busybox:2")?.is_none());
    assert!(bed.store.get("0123456789ab")?.is_none());
    assert!(matches!(
        bed.store.get("not/Valid"),
        Err(Error::InvalidReference { .. })
    ));
    assert!(matches!(
        bed.store.remove(id.short(), false),
        Err(Error::SeveralTags { .. })
    ));
    let removed = bed.store.remove("busybox", false)?;
    assert_eq!((removed.untagged.len(), removed.deleted.len()), (1, 0));
    let removed = bed.store.remove("example.com:5000/x/y:2", false)?;
    assert_eq!(removed.deleted, [id.clone(), image.diff_ids()[0].clone()]);
    assert!(
        bed.store.images()?.is_empty()
            && bed.names("layers")?.is_empty()
            && bed.names("blobs/sha256")?.is_empty()
    );
    assert!(matches!(
        bed.store.remove("busybox", false),
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        bed.store.tag(&image, &Reference::parse("gone:1")?),
        Err(Error::MissingBlob { .. })
    ));
    bed.assert_clean()
}

pub(super) fn an_image_that_lost_its_name() -> Outcome {
    let bed = Bed::new()?;
    let base = Tar::new().file("base", "1").end();
    let old = bed.image("x:1", &[base.clone(), Tar::new().file("a", "1").end()])?;
    let new = bed.image("x:1", &[base, Tar::new().file("a", "2").end()])?;
    let found = bed.store.get(old.id().as_str())?.ok_or("the old image is gone")?;
    assert!(found.references().is_empty());
    assert_eq!(bed.store.images()?.len(), 2);
    let pruned = bed.store.prune(&PruneFilter::default())?;
    assert_eq!(pruned.images, [old.id().clone()]);
    assert!(pruned.bytes > 0);
    assert_eq!(bed.names("layers")?.len(), 2, "the shared layer stays");
    assert_eq!(bed.store.get("x:1")?.ok_or("gone")?.id(), new.id());
    assert_eq!(
        bed.store.prune(&PruneFilter::default())?,
        rdock_image::Pruned::default()
    );
    Ok(())
}

/// Files that are opened in a directory while something is done.
fn opened_in(dir: &Path, work: impl FnOnce() -> Outcome) -> Result<usize, Box<dyn std::error::Error>> {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, dir, inotify::WatchFlags::OPEN)?;
    work()?;
    let mut buffer = [MaybeUninit::uninit(); 64 << 10];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let mut count = 0;
    loop {
        match events.next() {
            // The directory itself has no name.
            Ok(event) => count += usize::from(event.file_name().is_some()),
            Err(rustix::io::Errno::AGAIN) => return Ok(count),
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) fn one_of_many_names() -> Outcome {
    const MANY: usize = 200;
    let bed = Bed::new()?;
    let image = bed.image("app:0", &[Tar::new().file("a", "0").end()])?;
    for number in 1..MANY {
        let content = number.to_string();
        bed.image(&format!("other:{number}"), &[Tar::new().file("a", content).end()])?;
        bed.store
            .tag(&image, &Reference::parse(&format!("app:{number}"))?)?;
    }
    let (refs, blobs) = (
        bed.store.root().join("refs"),
        bed.store.root().join("blobs/sha256"),
    );
    for name in ["app:7", image.id().as_str(), image.id().hex()] {
        let start = |id: &str| -> Outcome {
            let found = bed.store.get(name)?.ok_or("gone")?;
            bed.store.snapshot(&found, id, &SnapshotOptions::default())?;
            bed.store.open_snapshot(id)?.ok_or("gone")?.remove()?;
            Ok(())
        };
        let of_names = opened_in(&refs, || start("one"))?;
        let of_blobs = opened_in(&blobs, || start("two"))?;
        // Its own name; its manifest and its config.
        assert_eq!((of_names, of_blobs), (1, 2), "{name}");
    }
    let found = bed.store.get("app:7")?.ok_or("gone")?;
    let asked = opened_in(&refs, || {
        assert_eq!(found.references().len(), MANY);
        Ok(())
    })?;
    assert_eq!(asked, 2 * MANY - 1, "only who asks for all names pays for them");
    Ok(())
}

pub(super) fn moments_of_names() -> Outcome {
    let bed = Bed::new()?;
    let image = bed.image("x:1", &[Tar::new().file("a", "1").end()])?;
    let name = Reference::parse("x:1")?;
    assert!(bed.store.tagged(&name)?.is_some() && bed.store.tagged(&Reference::parse("y:1")?)?.is_none());
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    for file in bed.names("refs")? {
        let file = fs::File::options()
            .write(true)
            .open(bed.store.root().join("refs").join(file))?;
        file.set_modified(long_ago)?;
    }
    assert_eq!(bed.store.tagged(&name)?, Some(long_ago));
    bed.store.tag(&image, &name)?;
    assert!(bed.store.tagged(&name)? > Some(long_ago));
    bed.assert_clean()
}

pub(super) fn notes_of_ids() -> Outcome {
    let bed = Bed::new()?;
    let image = bed.image("x:1", &[Tar::new().file("a", "1").end()])?;
    let note = bed.store.root().join("ids").join(image.id().hex());
    let found = || -> Result<bool, Error> {
        let found = bed.store.get(image.id().as_str())?;
        Ok(found.is_some_and(|found| found.id() == image.id()))
    };
    bed.store.tag(&image, &Reference::parse("y:1")?)?;
    // The noted name now leads to another image; then to none.
    let other = bed.image("y:1", &[Tar::new().file("a", "2").end()])?;
    assert!(found()?);
    bed.store.remove("y:1", false)?;
    assert!(found()?);
    for text in ["", "nonsense", "../format", "/etc/passwd"] {
        fs::write(&note, text)?;
        assert!(found()?, "{text}");
    }
    // As an earlier version leaves it.
    fs::remove_dir_all(bed.store.root().join("ids"))?;
    assert!(found()? && note.exists());
    bed.store.remove("x:1", false)?;
    assert!(!found()? && bed.store.get(other.id().as_str())?.is_none());
    assert!(bed.names("ids")?.is_empty(), "nothing is noted of what is gone");
    bed.assert_clean()
}
