//! What a payload says and is told: logs, attach, exec.

use crate::probe::{Place, probe};
use crate::{Tested, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{Error, Logs, Status, Step, blocking};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("logs_are_whole_and_their_tail_is_the_last_lines", tail),
        trial("followed_logs_end_with_the_payload", follow),
        trial("exec_has_its_own_streams_and_exit_code", exec),
        trial("exec_of_a_missing_program_is_a_typed_error", missing),
        trial("exec_with_a_terminal_has_its_size", terminal),
        trial("who_attaches_before_the_start_misses_nothing", attached),
        trial("a_detached_container_is_found_again_and_stopped", found_again),
    ]
}

/// Every line that comes.
async fn lines(mut logs: Logs) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    while let Some(line) = logs.next().await? {
        all.push(String::from_utf8_lossy(&line.bytes).trim_end().to_owned());
    }
    Ok(all)
}

fn read(fd: Option<OwnedFd>) -> Tested<String> {
    let mut text = String::new();
    std::fs::File::from(fd.ok_or("no such stream")?).read_to_string(&mut text)?;
    Ok(text)
}

fn tail() -> Tested {
    let place = Place::new()?;
    let said: Vec<String> = (0..200).map(|number| format!("line {number}")).collect();
    let orders: Vec<String> = said.iter().map(|line| format!("say {line}")).collect();
    let orders: Vec<&str> = orders.iter().map(String::as_str).collect();
    blocking::wait(async {
        let container = probe(&orders)?.start(&place.runtime).await?;
        container.wait().await?;
        same(&lines(container.logs()).await?, &said)?;
        same(&lines(container.logs().tail(3)).await?, &said[197..].to_vec())?;
        same(&lines(container.logs().tail(0)).await?.len(), &0)?;
        same(&lines(container.logs().tail(1000)).await?.len(), &200)?;
        container.remove().await?;
        Ok(())
    })?
}

fn follow() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let orders = ["say first", "await /go", "say second", "await /end", "say third"];
        let container = probe(&orders)?.start(&place.runtime).await?;
        let mut logs = container.logs().follow(true);
        // Each line is there before the payload is allowed the next one.
        for (line, next) in [("first", Some("/go")), ("second", Some("/end")), ("third", None)] {
            let seen = logs.next().await?.ok_or("no line")?;
            same(&String::from_utf8_lossy(&seen.bytes).trim_end(), &line)?;
            if let Some(file) = next {
                let order = format!("write {file} x");
                container.exec(["/test"]).env("PROBE", order).output().await?;
            }
        }
        same(&logs.next().await?.is_none(), &true)?;
        container.remove().await?;
        Ok(())
    })?
}

fn exec() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let container = probe(&["sleep 60000"])?
            .env("OWN", "x")
            .start(&place.runtime)
            .await?;
        let run = |orders: &str| container.exec(["/test"]).env("PROBE", orders);
        let output = run("say out\nexit 7").output().await?;
        same(&output.status.code(), &Some(7))?;
        same(&String::from_utf8(output.stdout)?.as_str(), &"out\n")?;
        let output = run("env").env("MORE", "y").output().await?;
        let said = String::from_utf8(output.stdout)?;
        same(
            &(said.contains("OWN=x;"), said.contains("MORE=y;")),
            &(true, true),
        )?;
        // The input is empty unless it is asked for.
        let output = run("cat /dev/stdin").output().await?;
        same(&String::from_utf8(output.stdout)?.as_str(), &"\n")?;
        let mut process = run("cat /dev/stdin").interactive(true).spawn().await?;
        let input = process.streams.stdin.take().ok_or("no input")?;
        std::fs::File::from(input).write_all(b"told")?;
        same(&read(process.streams.stdout.take())?.as_str(), &"told\n")?;
        same(&process.wait().await?.code(), &Some(0))?;
        let mut process = run("sleep 60000").spawn().await?;
        process.kill("TERM").await?;
        let status = process.wait().await?;
        same(&std::os::unix::process::ExitStatusExt::signal(&status), &Some(15))?;
        // None of this is the payload's output.
        same(&lines(container.logs()).await?.len(), &0)?;
        container.remove().await?;
        Ok(())
    })?
}

fn missing() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let container = probe(&["sleep 60000"])?.start(&place.runtime).await?;
        for (program, errno) in [("/none", 2), ("none", 2), ("/etc/passwd", 13), ("/seed", 13)] {
            match container.exec([program]).output().await {
                Err(Error::Launch {
                    step: Step::Exec,
                    source,
                    ..
                }) => {
                    same(&source.raw_os_error(), &Some(errno))
                        .map_err(|error| format!("{program} {error}"))?;
                }
                other => return Err(format!("{program}: {other:?}").into()),
            }
        }
        same(&matches!(container.status()?, Status::Running), &true)?;
        container.remove().await?;
        Ok(())
    })?
}

fn terminal() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let container = probe(&["sleep 60000"])?.start(&place.runtime).await?;
        let exec = container.exec(["/test"]).env("PROBE", "size").terminal(33, 77);
        let output = exec.output().await?;
        same(&String::from_utf8(output.stdout)?.trim(), &"33 77")?;
        container.remove().await?;
        Ok(())
    })?
}

fn attached() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["say begun", "cat /dev/stdin"])?.interactive(true);
        let (container, mut streams) = spec.start_attached(&place.runtime).await?;
        let input = streams.stdin.take().ok_or("no input")?;
        std::fs::File::from(input).write_all(b"told")?;
        same(&read(streams.stdout.take())?.as_str(), &"begun\ntold\n")?;
        same(&container.wait().await?.code(), &0)?;
        same(&lines(container.logs()).await?, &vec!["begun", "told"])?;
        container.remove_with(true, true).await?;
        Ok(())
    })?
}

fn found_again() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["say here", "sleep 60000"])?.name("again");
        spec.start_detached(&place.runtime).await?;
        let other = rdock_runtime::Runtime::open(place.root.path())?;
        let container = other.container("again")?;
        same(&matches!(container.status()?, Status::Running), &true)?;
        let refused = container.remove_with(false, false).await;
        same(&matches!(refused, Err(Error::StillRunning { .. })), &true)?;
        // A pid 1 without a handler takes no SIGTERM; SIGKILL follows after the time given.
        let began = Instant::now();
        let exit = container.stop(Some(Duration::from_millis(300))).await?;
        same(&exit.code(), &137)?;
        same(&(began.elapsed() >= Duration::from_millis(300)), &true)?;
        same(&lines(container.logs()).await?, &vec!["here"])?;
        container.remove_with(false, true).await?;
        same(&other.containers()?.len(), &0)
    })?
}
