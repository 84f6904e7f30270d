//! Cache mounts that several builds use at once: in one process, and in two.

use super::kills;
use crate::bench::Bench;
use crate::{Tested, root_trial};
use libtest_mimic::Trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        root_trial("a_private_cache_mount_is_one_builds_own", || private(threads)),
        root_trial("a_private_cache_mount_is_one_processs_own", || private(processes)),
        root_trial("a_shared_cache_mount_is_written_by_two_builds_at_once", || {
            shared(threads)
        }),
        root_trial("a_shared_cache_mount_is_written_by_two_processes_at_once", || {
            shared(processes)
        }),
        root_trial("a_locked_cache_mount_is_used_by_one_build_at_a_time", || {
            locked(threads)
        }),
        root_trial("a_locked_cache_mount_is_used_by_one_process_at_a_time", || {
            locked(processes)
        }),
        root_trial("a_locked_cache_mount_is_used_by_one_step_at_a_time", locked_steps),
        root_trial("locked_cache_mounts_never_wait_for_each_other", crossed),
        root_trial("pruning_leaves_a_cache_mount_that_is_in_use", pruned),
    ]
}

/// Both builds have come so far: `/m` is seen by both.
const MEET: &str = "touch /m/$N; for i in $(seq 600); do [ -e /m/1 ] && [ -e /m/2 ] && break; sleep 0.05; done; \
    [ -e /m/1 ] && [ -e /m/2 ]";

type Both = fn(&Bench) -> Tested;

/// Builds with `N=1` and with `N=2`, at once, in this process.
fn threads(bench: &Bench) -> Tested {
    std::thread::scope(|scope| {
        let builds: Vec<_> = ["1", "2"]
            .into_iter()
            .map(|number| {
                scope.spawn(move || {
                    let built = bench.build(|builder| builder.build_arg("N", number));
                    built.map(drop).map_err(|error| error.to_string())
                })
            })
            .collect();
        for build in builds {
            build.join().map_err(|_| "a panic")??;
        }
        Ok(())
    })
}

/// The same in two processes.
fn processes(bench: &Bench) -> Tested {
    let mut builds = [kills::start(bench, 1)?, kills::start(bench, 2)?];
    let ended: Vec<_> = builds.iter_mut().map(|build| build.wait()).collect();
    for status in ended {
        assert!(status?.success());
    }
    Ok(())
}

fn private(both: Both) -> Tested {
    let bench = Bench::new()?;
    // Who has the directory of the other finds it taken, or takes it away.
    let text = format!(
        "FROM base\nARG N\nRUN --mount=type=cache,id=meet,target=/m \
         --mount=type=cache,id=own,sharing=private,target=/c \
         mkdir /c/taken && {MEET} && echo $N > /c/taken/by && touch /m/written$N && \
         for i in $(seq 600); do [ -e /m/written1 ] && [ -e /m/written2 ] && break; sleep 0.05; done; \
         [ \"$(cat /c/taken/by)\" = $N ] && [ $(ls /c/taken | wc -l) = 1 ]\n"
    );
    bench.file("Dockerfile", &text)?;
    both(&bench)?;
    // Each is kept, and the first one is used again when nobody else wants it.
    let text = "FROM base\nRUN --mount=type=cache,id=own,sharing=private,target=/c cat /c/taken/by > /by\n";
    bench.file("Dockerfile", text)?;
    let (built, _) = bench.build(|builder| builder)?;
    assert!(["1\n", "2\n"].contains(&bench.read(&built, "by")?.as_str()));
    bench.assert_clean()
}

fn shared(both: Both) -> Tested {
    let bench = Bench::new()?;
    let text = format!(
        "FROM base\nARG N\nRUN --mount=type=cache,id=all,sharing=shared,target=/m {MEET} && echo $N >> /m/log\n"
    );
    bench.file("Dockerfile", &text)?;
    both(&bench)?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN --mount=type=cache,id=all,target=/m sort /m/log > /log\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "log")?, "1\n2\n");
    Ok(())
}

/// Two that were in it at once would both find it free, or one the other's mark.
const ALONE: &str = "mkdir /c/held && echo $N >> /c/log && sleep 0.5 && rmdir /c/held";

fn locked(both: Both) -> Tested {
    let bench = Bench::new()?;
    let text = format!("FROM base\nARG N\nRUN --mount=type=cache,id=one,sharing=locked,target=/c {ALONE}\n");
    bench.file("Dockerfile", &text)?;
    both(&bench)?;
    bench.file(
        "Dockerfile",
        "FROM base\nRUN --mount=type=cache,id=one,target=/c sort /c/log > /log\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "log")?, "1\n2\n");
    Ok(())
}

fn locked_steps() -> Tested {
    let bench = Bench::new()?;
    let step = "RUN --mount=type=cache,sharing=locked,target=/c mkdir /c/held && sleep 0.2 && rmdir /c/held";
    let text = format!(
        "FROM base AS a\n{step}\nFROM base AS b\n{step} && true\nFROM base AS c\n{step} && true && true\nFROM scratch\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\nCOPY --from=c /etc/passwd /c\n"
    );
    bench.file("Dockerfile", &text)?;
    bench.build(|builder| builder.parallel(8))?;
    Ok(())
}

fn crossed() -> Tested {
    let bench = Bench::new()?;
    let mount = |id: &str, target: &str| format!("--mount=type=cache,sharing=locked,id={id},target={target}");
    let (one, two) = (mount("one", "/1"), mount("two", "/2"));
    // The third names one cache twice: it has it at both places.
    let text = format!(
        "FROM base AS a\nRUN {one} {two} sleep 0.3 && touch /a\nFROM base AS b\nRUN {two} {one} sleep 0.3 && touch /b\n\
         FROM base AS c\nRUN {one} {} echo x > /1/c && cp /3/c /c\n\
         FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=c /c /\n",
        mount("one", "/3")
    );
    bench.file("Dockerfile", &text)?;
    for _ in 0..5 {
        let builder = rdock_build::Builder::new(bench.path(""))
            .network(rdock_build::runtime::NetworkMode::None)
            .no_cache(true)
            .parallel(8);
        let limit = std::time::Duration::from_secs(60);
        let built =
            crate::bench::wait(async { tokio::time::timeout(limit, builder.build(&bench.runtime)).await })?;
        let built = built.map_err(|_| "they wait for each other")??;
        assert_eq!(bench.read(&built, "c")?, "x\n");
    }
    Ok(())
}

fn pruned() -> Tested {
    let bench = Bench::new()?;
    let text = "FROM base\nRUN --mount=type=cache,id=busy,target=/c touch /c/f && echo begun && \
        for i in $(seq 600); do [ -e /c/go ] && break; sleep 0.05; done; [ -e /c/f ] && [ -e /c/go ]\n";
    bench.file("Dockerfile", text)?;
    let (tell, hear) = std::sync::mpsc::channel();
    std::thread::scope(|scope| -> Tested {
        let bench = &bench;
        let build = scope.spawn(move || {
            let built = bench.build(|builder| {
                builder.progress(move |event: rdock_build::BuildEvent| {
                    if let rdock_build::BuildEvent::StepOutput { .. } = event {
                        // Nobody listens any more when the test has failed.
                        let _ = tell.send(());
                    }
                })
            });
            built.map(drop).map_err(|error| error.to_string())
        });
        hear.recv_timeout(std::time::Duration::from_secs(60))?;
        let prune = || rdock_build::Builder::prune(&bench.runtime, &rdock_build::CacheFilter::default());
        let removed = prune()?;
        assert!(removed.entries.iter().all(|entry| !entry.mount), "{removed:?}");
        let mounts = std::fs::read_dir(bench.runtime.root().join("build/mounts"))?;
        for mount in mounts {
            std::fs::write(mount?.path().join("0/go"), "")?;
        }
        build.join().map_err(|_| "a panic")??;
        let removed = prune()?;
        assert!(removed.entries.iter().any(|entry| entry.mount), "{removed:?}");
        Ok(())
    })
}
