//! Several processes, dead processes, full disks, damaged stores.
use crate::children::{command, layer};
use crate::support::{Bed, Outcome, Tar, add_image, descriptor};
use crate::{Needs, Test};
use rdock_image::{Digest, Durability, Error, ImageStore, PruneFilter, StoreOptions};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<(&'static str, Needs, Test)> {
    vec![
        (
            "crash_prune_live_lease",
            Needs::Nothing,
            prune_never_disturbs_pulls_of_other_processes,
        ),
        (
            "crash_kill_incomplete",
            Needs::Nothing,
            a_killed_ingest_is_swept_and_can_be_done_again,
        ),
        ("crash_full_disk", Needs::Root, a_full_disk_leaves_nothing),
        ("crash_one_bad_dir", Needs::Nothing, a_damaged_image_fails_alone),
        (
            "crash_rename_exists",
            Needs::Nothing,
            leftovers_at_final_names_give_way,
        ),
        (
            "crash_power_loss",
            Needs::Nothing,
            an_unsynced_layer_of_an_earlier_boot_is_not_trusted,
        ),
        (
            "a_layer_forced_to_the_disk_by_itself_outlives_the_boot",
            Needs::Nothing,
            a_layer_forced_to_the_disk_by_itself_outlives_the_boot,
        ),
        (
            "concurrent_ingests_do_the_work_once",
            Needs::Nothing,
            concurrent_ingests_do_the_work_once,
        ),
        (
            "two_processes_pull_the_same",
            Needs::Nothing,
            two_processes_pull_the_same,
        ),
        (
            "a_lying_stream_leaves_nothing",
            Needs::Nothing,
            a_lying_stream_leaves_nothing,
        ),
    ]
}

fn success(mut child: Child) -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut text)?;
    }
    match child.wait()?.success() {
        true => Ok(text),
        false => Err("a child process failed".into()),
    }
}

fn root_of(bed: &Bed) -> String {
    bed.dir.path().join("store").display().to_string()
}

fn prune_never_disturbs_pulls_of_other_processes() -> Outcome {
    let bed = Bed::new()?;
    let root = root_of(&bed);
    let mut pruning = command("prune", &[&root, "600000"])?.spawn()?;
    let pulls: Vec<Child> = ["a", "b", "c"]
        .iter()
        .map(|salt| Ok(command("pull", &[&root, salt])?.spawn()?))
        .collect::<Result<_, Box<dyn std::error::Error>>>()?;
    let results: Vec<_> = pulls.into_iter().map(success).collect();
    let still_pruning = pruning.try_wait()?.is_none();
    pruning.kill()?;
    pruning.wait()?;
    for result in results {
        result?;
    }
    assert!(still_pruning, "the pruning process failed");
    assert_eq!(bed.store.images()?.len(), 30);
    for image in bed.store.images()? {
        bed.store.view(&image)?.walk()?;
    }
    Ok(())
}

fn two_processes_pull_the_same() -> Outcome {
    let bed = Bed::new()?;
    let root = root_of(&bed);
    let children = [
        command("pull", &[&root, "same"])?.spawn()?,
        command("pull", &[&root, "same"])?.spawn()?,
    ];
    for child in children {
        success(child)?;
    }
    assert_eq!(bed.store.images()?.len(), 10);
    assert_eq!(bed.names("layers")?.len(), 11);
    bed.assert_clean()
}

fn a_killed_ingest_is_swept_and_can_be_done_again() -> Outcome {
    let bed = Bed::new()?;
    let root = root_of(&bed);
    let tar = layer(4000, "slow");
    let digest = Digest::sha256_of(&tar);
    for round in 0..4_u64 {
        let mut child = command("slow", &[&root])?.spawn()?;
        // Until it has made some files.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !bed.names("ingest")?.iter().any(|name| {
            let files = bed.store.root().join("ingest").join(name).join("fs");
            fs::read_dir(files).is_ok_and(|entries| entries.count() as u64 > round * 10)
        }) {
            assert!(Instant::now() < deadline, "the child makes nothing");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill()?;
        child.wait()?;
        assert!(!bed.store.has_layer(&digest));
        assert!(
            bed.names("ingest")?.len() >= 2,
            "the killed child left its directory and locks"
        );
        if round % 2 == 0 {
            // Whoever comes next is not held up, and opening the store sweeps.
            bed.ingest(&tar)?;
            let again = ImageStore::open(&root)?;
            assert!(again.has_layer(&digest));
            again.prune(&PruneFilter::all())?;
        } else {
            ImageStore::open(&root)?;
        }
        bed.assert_clean()?;
        assert!(bed.names("layers")?.is_empty());
    }
    Ok(())
}

fn a_full_disk_leaves_nothing() -> Outcome {
    let bed = Bed::new()?;
    let root = bed.dir.path().join("small");
    fs::create_dir(&root)?;
    success(command("full", &[&root.display().to_string()])?.spawn()?).map(drop)
}

fn a_damaged_image_fails_alone() -> Outcome {
    let bed = Bed::new()?;
    let good = bed.image("good:1", &[Tar::new().file("a", "1").end()])?;
    let bad = bed.image("bad:1", &[Tar::new().file("a", "2").end()])?;
    let layer = bed.store.root().join("layers").join(bad.diff_ids()[0].hex());
    fs::remove_file(layer.join("meta.json"))?;
    assert!(matches!(
        bed.store.get("bad:1"),
        Err(Error::MissingBlob { what: "layer", .. })
    ));
    assert_eq!(bed.store.images()?.len(), 1);
    assert!(bed.store.get("good:1")?.is_some());
    // Pulling it again repairs it.
    bed.image("bad:1", &[Tar::new().file("a", "2").end()])?;
    assert!(bed.store.get("bad:1")?.is_some());
    // A config with other bytes is found out when it is read.
    let config = bed.store.root().join("blobs/sha256").join(good.id().hex());
    fs::remove_file(&config)?;
    fs::write(&config, "{}")?;
    assert!(matches!(
        bed.store.get("good:1"),
        Err(Error::DigestMismatch { .. })
    ));
    assert!(bed.store.get("bad:1")?.is_some());
    bed.store.prune(&PruneFilter::default())?;
    bed.store.remove("good:1", false)?;
    assert_eq!(bed.names("refs")?.len(), 1);
    Ok(())
}

fn leftovers_at_final_names_give_way() -> Outcome {
    let bed = Bed::new()?;
    let tar = Tar::new().file("a", "1").end();
    let leftover = bed
        .store
        .root()
        .join("layers")
        .join(Digest::sha256_of(&tar).hex());
    fs::create_dir_all(leftover.join("fs/old"))?;
    let image = bed.image("x:1", &[tar])?;
    assert!(bed.store.view(&image)?.metadata("old")?.is_none());
    let chain = bed.store.root().join("chains");
    for name in bed.names("chains")? {
        fs::write(chain.join(name).join("stack.json"), "")?;
    }
    assert!(
        bed.store.view(&image)?.metadata("a")?.is_some(),
        "a garbled chain is made anew"
    );
    Ok(())
}

/// Has a layer be of an earlier boot.
fn reboot(layer: &Path) -> Outcome {
    let meta = fs::read_to_string(layer.join("meta.json"))?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let earlier = meta.replace(boot.trim(), "an-earlier-boot");
    assert_ne!(meta, earlier, "the layer says when it was made");
    Ok(fs::write(layer.join("meta.json"), earlier)?)
}

fn a_layer_forced_to_the_disk_by_itself_outlives_the_boot() -> Outcome {
    for (durability, lasts) in [
        (Durability::None, false),
        (Durability::Image, false),
        (Durability::Layer, true),
    ] {
        let mut options = StoreOptions::default();
        options.durability = durability;
        let bed = Bed::with(options)?;
        let digest = bed.ingest(&Tar::new().file("a", "1").end())?;
        let layer = bed.store.root().join("layers").join(digest.hex());
        assert_eq!(layer.join("synced").exists(), lasts, "{durability:?}");
        reboot(&layer)?;
        assert_eq!(bed.store.has_layer(&digest), lasts, "{durability:?}");
        // What is there is not brought again, and what is not, is.
        bed.image("x:1", &[Tar::new().file("a", "1").end()])?;
        assert!(bed.store.has_layer(&digest), "{durability:?}");
    }
    Ok(())
}

fn an_unsynced_layer_of_an_earlier_boot_is_not_trusted() -> Outcome {
    let bed = Bed::new()?;
    let digest = bed.ingest(&Tar::new().file("a", "1").end())?;
    let layer = bed.store.root().join("layers").join(digest.hex());
    assert!(!layer.join("synced").exists() && bed.store.has_layer(&digest));
    reboot(&layer)?;
    assert!(!bed.store.has_layer(&digest));
    // As after a power loss: the file is there, and empty.
    fs::write(layer.join("fs/a"), "")?;
    let image = bed.image("x:1", &[Tar::new().file("a", "1").end()])?;
    assert_eq!(
        bed.store.view(&image)?.metadata("a")?.map(|info| info.size),
        Some(1)
    );
    assert!(
        layer.join("synced").exists(),
        "a committed image's layers are on the disk"
    );
    Ok(())
}

fn concurrent_ingests_do_the_work_once() -> Outcome {
    struct Counted<'a>(&'a [u8], &'a AtomicUsize);
    impl Read for Counted<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.read(out)?;
            self.1.fetch_add(count, Ordering::Relaxed);
            Ok(count)
        }
    }
    let bed = Bed::new()?;
    let tar = layer(3000, "once");
    let taken = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let lease = bed.store.lease()?;
                    let mut stream = Counted(&tar, &taken);
                    bed.store.ingest_layer(
                        &lease,
                        &descriptor(&tar),
                        &Digest::sha256_of(&tar),
                        None,
                        &mut stream,
                    )
                })
            })
            .collect();
        assert!(
            threads
                .into_iter()
                .all(|thread| matches!(thread.join(), Ok(Ok(()))))
        );
    });
    assert_eq!(taken.load(Ordering::Relaxed), tar.len());
    bed.assert_clean()
}

fn a_lying_stream_leaves_nothing() -> Outcome {
    let bed = Bed::new()?;
    let tar = layer(50, "true");
    let other = layer(50, "lies");
    let lease = bed.store.lease()?;
    let diff_id = Digest::sha256_of(&tar);
    let ingest = |descriptor: &rdock_image::Descriptor, bytes: &[u8]| {
        bed.store
            .ingest_layer(&lease, descriptor, &diff_id, None, &mut &bytes[..])
    };
    // Other bytes of the same length, garbage, too few, too many, the right blob with another diffID.
    assert!(matches!(
        ingest(&descriptor(&tar), &other),
        Err(Error::DigestMismatch { .. })
    ));
    assert!(matches!(
        ingest(&descriptor(&tar), &vec![0x55; tar.len()]),
        Err(Error::DigestMismatch { .. })
    ));
    assert!(matches!(
        ingest(&descriptor(&tar), &tar[..tar.len() - 512]),
        Err(Error::SizeMismatch { .. })
    ));
    assert!(matches!(
        ingest(&descriptor(&tar), &tar[..1000]),
        Err(Error::SizeMismatch { .. })
    ));
    assert!(matches!(
        ingest(&descriptor(&tar), &[&tar[..], b"more"].concat()),
        Err(Error::SizeMismatch { .. })
    ));
    assert!(matches!(
        ingest(&descriptor(&other), &other),
        Err(Error::DigestMismatch { .. })
    ));
    drop(lease);
    assert!(bed.names("layers")?.is_empty());
    bed.assert_clean()?;
    add_image(&bed.store, "x:1", &[tar])?;
    Ok(())
}
