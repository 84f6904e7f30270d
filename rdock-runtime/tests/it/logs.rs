//! The output of real containers, kept in files of a limited size.

use crate::probe::{Place, probe};
use crate::{Tested, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{Error, LogConfig, LogDriver, LogLine, Logs, Runtime, blocking};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::time::Duration;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("logs_rotate_and_a_follower_misses_nothing", rotation),
        trial("logs_are_followed_over_a_monitor_that_was_killed", adopted),
        trial("logs_of_one_file_begin_anew_when_it_is_full", one_file),
        trial("logs_that_are_not_kept_are_a_typed_error", none),
        trial("logs_between_two_moments_are_what_came_between", span),
        trial("logs_followed_until_a_moment_end_then", until),
    ]
}

async fn all(mut logs: Logs) -> Result<Vec<LogLine>, Error> {
    let mut lines = Vec::new();
    while let Some(line) = logs.next().await? {
        lines.push(line);
    }
    Ok(lines)
}

fn texts(lines: &[LogLine]) -> Vec<String> {
    let text = |line: &LogLine| String::from_utf8_lossy(&line.bytes).trim_end().to_owned();
    lines.iter().map(text).collect()
}

fn rotation() -> Tested {
    let place = Place::new()?;
    let config = LogConfig::default().max_size(2000).max_files(1000);
    let said: Vec<String> = (0..500).map(|number| format!("line {number}")).collect();
    let mut orders: Vec<String> = said.iter().map(|line| format!("say {line}")).collect();
    orders.insert(0, "sleep 200".into());
    let orders: Vec<&str> = orders.iter().map(String::as_str).collect();
    blocking::wait(async {
        let spec = probe(&orders)?.name("turning").log(config).label("tier", "web");
        let container = spec.start_detached(&place.runtime).await?;
        let lines = all(container.logs().follow(true)).await?;
        same(&texts(&lines), &said)?;
        let lines = all(container.logs()).await?;
        same(&texts(&lines), &said)?;
        let lines = all(container.logs().tail(100)).await?;
        same(&texts(&lines), &said[400..].to_vec())?;
        let state = container.inspect()?.state_dir;
        let mut files = 0;
        for entry in std::fs::read_dir(state)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("log") {
                files += 1;
                same(&(entry.metadata()?.len() <= 2000), &true)?;
            }
        }
        same(&(files > 10), &true)?;
        container.remove_with(true, true).await?;
        Ok(())
    })?
}

fn adopted() -> Tested {
    let place = Place::new()?;
    let said: Vec<String> = (0..60).map(|number| format!("line {number}")).collect();
    let orders: Vec<String> = said.iter().map(|line| format!("say {line}\nsleep 20")).collect();
    let orders: Vec<&str> = orders.iter().map(String::as_str).collect();
    blocking::wait(async {
        let config = LogConfig::default().max_size(700).max_files(1000);
        let spec = probe(&orders)?.log(config);
        let container = spec.start_detached(&place.runtime).await?;
        let mut logs = container.logs().follow(true);
        let mut seen = Vec::new();
        while let Some(line) = logs.next().await? {
            seen.push(line);
            if seen.len() == 20 {
                let owner = std::fs::read(container.inspect()?.state_dir.join("owner"))?;
                let owner: serde_json::Value = serde_json::from_slice(&owner)?;
                let pid = owner["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
                killed(pid.and_then(Pid::from_raw).ok_or("no owner")?)?;
                // Any open of the root gives the container a new one.
                Runtime::open(place.root.path())?;
            }
        }
        same(&texts(&seen), &said)?;
        same(&container.wait().await?.code(), &0)?;
        container.remove_with(true, true).await?;
        Ok(())
    })?
}

/// Kills a process, and waits until the kernel has ended it.
fn killed(pid: Pid) -> Tested {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    kill_process(pid, Signal::KILL)?;
    rustix::event::poll(&mut [PollFd::new(&process, PollFlags::IN)], None)?;
    Ok(())
}

fn one_file() -> Tested {
    let place = Place::new()?;
    let orders: Vec<String> = (0..100).map(|number| format!("say {number}")).collect();
    let orders: Vec<&str> = orders.iter().map(String::as_str).collect();
    blocking::wait(async {
        let spec = probe(&orders)?.log(LogConfig::default().max_size(1500));
        let container = spec.start(&place.runtime).await?;
        container.wait().await?;
        let kept = texts(&all(container.logs()).await?);
        same(&(!kept.is_empty() && kept.len() < 30), &true)?;
        same(&kept.last().map(String::as_str), &Some("99"))?;
        container.remove().await?;
        Ok(())
    })?
}

fn none() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["say lost"])?.log(LogConfig::default().driver(LogDriver::None));
        let container = spec.start(&place.runtime).await?;
        container.wait().await?;
        let refused = container.logs().next().await;
        same(&matches!(refused, Err(Error::NoLog { .. })), &true)?;
        let log = container.inspect()?.state_dir.join("log");
        same(&std::fs::read(log)?.len(), &0)?;
        container.remove().await?;
        Ok(())
    })?
}

fn span() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let spec = probe(&["say a", "sleep 30", "say b", "sleep 30", "say c"])?;
        let container = spec.start(&place.runtime).await?;
        container.wait().await?;
        let lines = all(container.logs()).await?;
        let at = |index: usize| lines[index].time.as_str();
        let found = all(container.logs().since(at(1))?).await?;
        same(&texts(&found), &vec!["b", "c"])?;
        let found = all(container.logs().until(at(1))?).await?;
        same(&texts(&found), &vec!["a", "b"])?;
        let found = all(container.logs().since(at(1))?.until(at(1))?).await?;
        same(&texts(&found), &vec!["b"])?;
        same(&all(container.logs().until("1h")?).await?.len(), &0)?;
        container.remove().await?;
        Ok(())
    })?
}

fn until() -> Tested {
    let place = Place::new()?;
    blocking::wait(async {
        let container = probe(&["say a", "sleep 60000"])?.start(&place.runtime).await?;
        let end = jiff::Timestamp::now() + Duration::from_millis(1500);
        let logs = container.logs().follow(true).until(&end.to_string())?;
        same(&texts(&all(logs).await?), &vec!["a"])?;
        same(&(jiff::Timestamp::now() >= end), &true)?;
        container.remove().await?;
        Ok(())
    })?
}
