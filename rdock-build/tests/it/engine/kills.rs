//! Builds that are killed at any moment.

use crate::Tested;
use crate::bench::Bench;
use rdock_image::ImageStore;
use std::time::{Duration, Instant};

/// The variable that makes this program a build that is killed: root, context and number.
const CHILD: &str = "RDOCK_TEST_BUILD";

/// Runs as that build, if it is one.
pub(super) fn child() -> Option<Tested> {
    let told = std::env::var(CHILD).ok()?;
    let mut parts = told.split('\n').map(str::to_owned);
    let (root, context, number) = (parts.next()?, parts.next()?, parts.next()?);
    let run = || -> Tested {
        let runtime = rdock_build::runtime::Runtime::open(root)?;
        let builder = rdock_build::Builder::new(context)
            .network(rdock_build::runtime::NetworkMode::None)
            .build_arg("N", number)
            .tag("killed");
        let wait = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        wait.block_on(builder.build(&runtime))?;
        Ok(())
    };
    Some(run())
}

/// Starts a build in a process of its own.
pub(super) fn start(bench: &Bench, number: u64) -> std::io::Result<std::process::Child> {
    let told = format!(
        "{}\n{}\n{number}",
        bench.runtime.root().display(),
        bench.path("").display()
    );
    std::process::Command::new("/proc/self/exe")
        .env(CHILD, told)
        .spawn()
}

pub(super) fn killed() -> Tested {
    const KILLS: u64 = 200;
    let bench = Bench::new()?;
    for number in 0..40 {
        bench.file(&format!("src/{number}"), &"x".repeat(1000))?;
    }
    bench.file(
        "Dockerfile",
        "FROM base\nARG N\nCOPY src /src\nRUN echo $N > /n && cp -r /src /copied\nRUN --mount=type=cache,target=/c echo $N >> /c/n && rm -r /src\nCOPY --from=base /bin/busybox /again\n",
    )?;
    let start = |number: u64| start(&bench, number);
    // How long one takes here.
    let began = Instant::now();
    assert!(start(1_000_000)?.wait()?.success());
    let whole = began.elapsed().as_micros() as u64;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut cut, mut ended) = (0, 0);
    for number in 0..KILLS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut build = start(number)?;
        std::thread::sleep(Duration::from_micros(state % whole));
        build.kill()?;
        match build.wait()?.success() {
            true => ended += 1,
            false => cut += 1,
        }
        if number % 20 == 19 {
            sound(&bench)?;
        }
    }
    assert!(cut > KILLS / 4, "{cut} cut off, {ended} ended");
    assert!(start(2_000_000)?.wait()?.success());
    sound(&bench)?;
    // Whoever opens the root takes away what the dead have left; the last of them may still be ending.
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let runtime = rdock_build::runtime::Runtime::open(bench.runtime.root())?;
        rdock_build::Builder::cache_usage(&runtime)?;
        match bench.assert_clean() {
            Ok(()) => break,
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            Err(left) => return Err(left),
        }
    }
    let image = bench.runtime.images().get("killed")?.ok_or("no image")?;
    let mut text = String::new();
    std::io::Read::read_to_string(
        &mut bench.runtime.images().view(&image)?.open_file("n")?,
        &mut text,
    )?;
    assert_eq!(text, "2000000\n");
    Ok(())
}

/// Every blob and layer is what its name says, and every image is complete.
fn sound(bench: &Bench) -> Tested {
    let store = ImageStore::open(bench.runtime.root())?;
    let report = store.fsck()?;
    assert!(report.is_sound(), "{report:?}");
    for image in store.images()? {
        store.view(&image)?.walk()?;
    }
    Ok(())
}
