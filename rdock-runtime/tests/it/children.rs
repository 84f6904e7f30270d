//! A host program never meets the processes of its containers: not by wait, not by SIGCHLD.

use crate::probe::{Place, probe};
use crate::{Cannot, Tested, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{Error, blocking};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_host_that_waits_for_any_child_never_gets_one", || {
            host("waits", own_program())
        }),
        trial("a_host_never_gets_sigchld", || host("signalled", own_program())),
        trial("a_host_that_ignores_sigchld_gets_every_exit_code", || {
            host("ignores", with_ignored_signal()?)
        }),
    ]
}

/// Has a host program do its role.
fn host(role: &str, mut command: Command) -> Tested {
    let output = command.env("RDOCK_TEST_ROLE", role).stdin(Stdio::null()).output();
    let output = output.map_err(|error| Cannot(format!("no such program: {error}")))?;
    // env(1) says so when it knows no such option.
    if output.status.code() == Some(125) {
        return Err(Cannot("this env has no --ignore-signal".into()).into());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    same(&output.status.success(), &true).map_err(|error| format!("{said}: {error}").into())
}

fn own_program() -> Command {
    Command::new("/proc/self/exe")
}

/// What is ignored stays so over an exec.
fn with_ignored_signal() -> Tested<Command> {
    let mut command = Command::new("env");
    command.arg("--ignore-signal=CHLD").arg(std::env::current_exe()?);
    Ok(command)
}

const SIGCHLD: u64 = 1 << 16;

/// The signals of a line of `/proc/self/status`.
fn signals(name: &str) -> Tested<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(u64::from_str_radix(value.ok_or("no such line")?.trim(), 16)?)
}

/// Scoped and detached containers, processes added to them, and what a failed start leaves.
fn use_containers() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        for code in [0, 3] {
            let end = format!("exit {code}");
            let scoped = probe(&["await /go", &end])?.start(&place.runtime).await?;
            let status = scoped.exec(["/test"]).env("PROBE", "exit 5").status().await?;
            same(&status.code(), &Some(5))?;
            // It may be ended together with the payload.
            let go = scoped.exec(["/test"]).env("PROBE", "write /go x");
            go.status().await.ok();
            same(&scoped.wait().await?.code(), &code)?;
            scoped.remove().await?;
            let detached = probe(&["sleep 300", &end])?
                .start_detached(&place.runtime)
                .await?;
            same(&detached.wait().await?.code(), &code)?;
            detached.remove_with(true, true).await?;
        }
        let killed = probe(&["sleep 60000"])?.start(&place.runtime).await?;
        killed.kill("KILL").await?;
        same(&killed.wait().await?.code(), &137)?;
        killed.remove().await?;
        match probe(&[])?.entrypoint(["/none"]).start(&place.runtime).await {
            Err(Error::Launch { .. }) => Ok(()),
            other => Err(format!("it started: {other:?}").into()),
        }
    })?
}

/// A host program that waits for any child all the time.
pub(crate) fn waits() -> Tested {
    let stop = AtomicBool::new(false);
    let met = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut met = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match rustix::process::wait(WaitOptions::empty()) {
                    // A tenth of what a start takes.
                    Err(Errno::CHILD) => std::thread::sleep(std::time::Duration::from_micros(200)),
                    other => met.push(format!("{other:?}")),
                }
            }
            met
        });
        let used = use_containers();
        stop.store(true, Ordering::Relaxed);
        used.and_then(|()| waiting.join().map_err(|_| "the thread panicked".into()))
    })?;
    same(&met, &Vec::<String>::new())
}

/// A host program to which a SIGCHLD would stay pending.
pub(crate) fn signalled() -> Tested {
    let mut set = nix::sys::signal::SigSet::empty();
    set.add(nix::sys::signal::Signal::SIGCHLD);
    // Threads that are made from now on have it blocked too.
    set.thread_block()?;
    use_containers()?;
    same(
        &(signals("ShdPnd")? & SIGCHLD, signals("SigPnd")? & SIGCHLD),
        &(0, 0),
    )?;
    // It would have been seen.
    own_program()
        .env("RDOCK_TEST_ROLE", "none")
        .stdout(Stdio::null())
        .status()?;
    same(&(signals("ShdPnd")? & SIGCHLD), &SIGCHLD)
}

/// A host program that was started with SIGCHLD ignored.
pub(crate) fn ignores() -> Tested {
    same(&(signals("SigIgn")? & SIGCHLD), &SIGCHLD)?;
    use_containers()
}
