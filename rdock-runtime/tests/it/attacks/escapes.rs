//! Ways out by descriptors, working directories and the runtime's own processes.

use super::{beside, failed_in, inside, waiting};
use crate::probe::{Place, file, link, probe};
use crate::{Cannot, Tested, same};
use rdock_runtime::image::Digest;
use rdock_runtime::{Error, Step, blocking};
use rustix::fs::SealFlags;

pub(super) fn own_program() -> Tested {
    let program = Digest::sha256_of(&std::fs::read("/proc/self/exe")?);
    let place = Place::with(
        "{}",
        &[
            link("evil", "/proc/self/exe"),
            file("script", 0o755, "#!/proc/self/exe\n"),
        ],
    )?;
    // Whatever that runs, it ends, and touches nothing of the host's.
    for target in ["/proc/self/exe", "/evil", "/script"] {
        match place.run(&probe(&[])?.entrypoint([target]).args(Vec::<String>::new())) {
            Ok(_) => {}
            Err(error) => match *error.downcast::<Error>()? {
                Error::Launch { .. } => {}
                other => return Err(format!("{target}: {other:?}").into()),
            },
        }
    }
    let attacker = probe(&["overwrite 3000"])?;
    let said = blocking::wait(async {
        let container = attacker.start(&place.runtime).await?;
        let mut execs = 0u32;
        let target = ["/evil", "/proc/self/exe", "/script", "/none"];
        while matches!(container.status()?, rdock_runtime::Status::Running) {
            // These fail in many ways; what counts is what the attacker gets meanwhile.
            let _ = container.exec([target[execs as usize % 4]]).status().await;
            execs += 1;
        }
        let mut logs = container.logs();
        let line = logs
            .next()
            .await?
            .map(|line| String::from_utf8_lossy(&line.bytes).into_owned());
        container.remove().await?;
        Ok::<_, Error>((line, execs > 3))
    })??;
    same(&said, &(Some("seen true opened {}\n".to_owned()), true))?;
    same(&Digest::sha256_of(&std::fs::read("/proc/self/exe")?), &program)?;
    sealed()
}

/// The helper's program can be changed by nobody, this process included.
fn sealed() -> Tested {
    let mut found = 0;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        if path
            .read_link()
            .is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:rdock-helper"))
        {
            let seals = rustix::fs::fcntl_get_seals(std::fs::File::open(&path)?)?;
            let wanted = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
            same(&seals.contains(wanted), &true)?;
            found += 1;
        }
    }
    match found {
        0 => Err(Cannot("this machine executes no memfds; the helper is a nameless file".into()).into()),
        _ => Ok(()),
    }
}

pub(super) fn leaked_descriptor() -> Tested {
    // A directory of the host that is open, and passed on by whoever forgets to close it.
    let leaked = std::fs::File::open("/etc")?;
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty())?;
    // Of four descriptors the last is the directory that is being listed.
    let look = ["fds", "cwd"];
    for number in (3..200).step_by(7) {
        let to = format!("/proc/self/fd/{number}");
        let place = Place::with("{}", &[link("leak", &to)])?;
        for path in [format!("/proc/self/fd/{number}"), "/leak".into()] {
            refused(place.run(&probe(&look)?.working_dir(&path)), &path)?;
        }
    }
    let place = Place::with(r#"{"WorkingDir":"/leak"}"#, &[link("leak", "/proc/self/fd/3")])?;
    refused(place.run(&probe(&look)?), "the image's")?;
    let place = Place::new()?;
    same(place.says(&probe(&look)?)?.as_str(), "0 1 2 3\n/\n")?;
    beside(&place, &waiting()?, async |container| {
        for number in 3..200 {
            for path in [
                format!("/proc/self/fd/{number}"),
                format!("/proc/thread-self/fd/{number}"),
            ] {
                let result = inside(container, &look, |exec| exec.working_dir(&path)).await;
                failed_in(result, Step::WorkingDirectory).map_err(|error| format!("{path}: {error}"))?;
            }
        }
        same(
            inside(container, &look, |exec| exec).await?.as_str(),
            "0 1 2 3\n/\n",
        )
    })
}

fn refused(result: Tested<(String, rdock_runtime::Exit)>, path: &str) -> Tested {
    match result {
        Ok((said, _)) => Err(format!("{path} is a working directory: {said}").into()),
        Err(error) => failed_in::<()>(Err(*error.downcast::<Error>()?), Step::WorkingDirectory).map(drop),
    }
}

pub(super) fn joining_process() -> Tested {
    let place = Place::new()?;
    let spy = probe(&["spy 6000"])?;
    let (line, execs) = blocking::wait(async {
        let container = spy.start(&place.runtime).await?;
        let mut execs = 0u32;
        while execs < 500 && matches!(container.status()?, rdock_runtime::Status::Running) {
            // Half of them never get to run a program: a longer look at what joins.
            let target = if execs.is_multiple_of(2) { "/test" } else { "/none" };
            let ended = container.exec([target]).env("PROBE", "say x").output().await;
            match ended {
                Ok(_) => {}
                Err(
                    Error::Launch { step: Step::Exec, .. }
                    | Error::NotRunning { .. }
                    | Error::OwnerGone { .. },
                ) => {}
                Err(other) => return Err(other),
            }
            execs += 1;
        }
        container.wait().await?;
        let mut logs = container.logs();
        let line = logs
            .next()
            .await?
            .map(|line| String::from_utf8_lossy(&line.bytes).into_owned());
        container.remove().await?;
        Ok::<_, Error>((line.unwrap_or_default(), execs))
    })??;
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["there", there, "closed", closed, "found", found @ ..] = &words[..] else {
        return Err(format!("the spy says {line:?}").into());
    };
    same(&found.join(" ").as_str(), &"{}")?;
    same(&(there.parse::<u32>()? > 0), &true)?;
    if closed.parse::<u32>()? == 0 {
        return Err(Cannot(format!("the spy was too slow for each of {execs} execs")).into());
    }
    Ok(())
}
