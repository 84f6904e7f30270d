//! `start` returns when the container is ready, or says at once why it will not be.

use crate::probe::{Place, probe};
use crate::{Tested, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{ContainerSpec, Error, ExitReason, NetworkMode, PortMapping, Ready, blocking};
use std::time::{Duration, Instant};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("start_waits_for_every_condition", ready),
        trial(
            "a_container_that_ends_first_fails_at_once_with_its_last_lines",
            ended,
        ),
        trial(
            "a_server_on_127_0_0_1_alone_is_not_ready_and_that_is_said",
            only_loopback,
        ),
        trial("what_is_still_missing_is_said_when_the_time_is_over", late),
    ]
}

/// How long a start took, and how it ended.
fn start(place: &Place, spec: &ContainerSpec) -> Tested<(Duration, Result<(), Error>)> {
    blocking::wait(async {
        let began = Instant::now();
        let started = spec.start(&place.runtime).await;
        let took = began.elapsed();
        match started {
            Ok(container) => {
                container.remove().await?;
                Ok((took, Ok(())))
            }
            Err(error) => Ok((took, Err(error))),
        }
    })?
}

fn ready() -> Tested {
    let place = Place::new()?;
    let delay = Duration::from_millis(300);
    let lines = [
        "sleep 300",
        "write /ok x",
        "listen 0.0.0.0:80",
        "say ready now",
        "say ready again",
        "sleep 20000",
    ];
    let published = || {
        let spec = probe(&lines)?
            .network(NetworkMode::Default)
            .publish(PortMapping::tcp(80));
        Ok::<_, Box<dyn std::error::Error>>(spec)
    };
    let plain = || probe(&lines);
    for (what, spec) in [
        ("a line", plain()?.ready_when(Ready::log("ready now"))),
        (
            "two lines",
            plain()?.ready_when(Ready::Log {
                text: "ready".into(),
                times: 2,
            }),
        ),
        ("a port", plain()?.ready_when(Ready::port(80))),
        ("a published port", published()?.ready_when(Ready::port(80))),
        ("http", published()?.ready_when(Ready::http(80, "/x"))),
        (
            "all",
            published()?
                .ready_when(Ready::http(80, "/"))
                .ready_when(Ready::log("again"))
                .ready_when(Ready::port(80)),
        ),
    ] {
        let (took, started) = start(&place, &spec)?;
        started.map_err(|error| format!("{what}: {error}"))?;
        same(&(took >= delay), &true).map_err(|_| format!("{what}: after {took:?} already"))?;
    }
    // The command is this program too, and fails as long as there is no such file.
    let test = plain()?.ready_when(Ready::exec(["/test", "--exists", "/ok"]));
    let (took, started) = start(&place, &test)?;
    started?;
    same(&(took >= delay), &true)
}

fn ended() -> Tested {
    let place = Place::new()?;
    for ready in [
        Ready::log("never"),
        Ready::port(80),
        Ready::exec(["/test", "--exists", "/never"]),
    ] {
        let spec = probe(&["say first", "say the reason", "exit 7"])?.ready_when(ready.clone());
        let (took, started) = start(&place, &spec)?;
        let Err(Error::EndedEarly { exit, log, .. }) = &started else {
            return Err(format!("{ready:?}: {started:?}").into());
        };
        same(&exit.reason, &ExitReason::Exited(7))?;
        same(
            &log.iter().map(|line| line.trim()).collect::<Vec<_>>(),
            &vec!["first", "the reason"],
        )?;
        same(&(took < Duration::from_secs(10)), &true).map_err(|_| format!("{ready:?} took {took:?}"))?;
    }
    // A line that was printed before the end is there all the same.
    let (_, started) = start(&place, &probe(&["say ready"])?.ready_when(Ready::log("ready")))?;
    Ok(started?)
}

fn only_loopback() -> Tested {
    let place = Place::new()?;
    let spec = probe(&["listen 127.0.0.1:80", "sleep 20000"])?
        .ready_when(Ready::port(80))
        .ready_timeout(Duration::from_secs(3));
    match start(&place, &spec)?.1 {
        Err(Error::NotReady { reason, .. }) => {
            same(&reason.contains("127.0.0.1 only"), &true).map_err(|_| reason.into())
        }
        other => Err(format!("{other:?}").into()),
    }
}

fn late() -> Tested {
    let place = Place::new()?;
    for (ready, expected) in [
        (Ready::port(80), "nothing listens on port 80"),
        (Ready::log("never"), "no line of its output contains \"never\""),
        (Ready::exec(["/test", "--exists", "/never"]), "exits with 1"),
        (Ready::exec(["/no/such/program"]), "cannot be run"),
    ] {
        let spec = probe(&["say hello", "sleep 20000"])?
            .ready_when(ready)
            .ready_timeout(Duration::from_millis(400));
        match start(&place, &spec)?.1 {
            Err(Error::NotReady { reason, log, .. }) => {
                same(&reason.contains(expected), &true)
                    .map_err(|_| format!("{reason:?} is not {expected:?}"))?;
                same(
                    &log.iter().map(|line| line.trim()).collect::<Vec<_>>(),
                    &vec!["hello"],
                )?;
            }
            other => return Err(format!("{other:?}").into()),
        }
    }
    // Nothing of it is left.
    same(&place.runtime.containers()?.len(), &0)
}
