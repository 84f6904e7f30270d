//! Somebody changes directories while a layer is unpacked into them.
use super::*;

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
pub(super) fn img_unpack_toctou() -> Outcome {
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
