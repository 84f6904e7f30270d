//! What the helper tells on the way to the payload's exec.

use super::{Namespaces, PATIENCE};
use crate::error::{Error, Result};
use crate::hooks::OwnersHooks;
use crate::launch::{Event, Helper, SocketPlace};
use crate::net;
use crate::owner::Streams;
use crate::step::Step;
use std::time::Instant;

/// A payload whose exec has succeeded.
pub(super) struct Followed {
    pub(super) pid: i32,
    pub(super) namespaces: Option<Namespaces>,
}

/// Follows the launch to the payload's exec.
pub(super) fn follow(
    helper: &Helper,
    name: &str,
    networks: &mut net::Attachments,
    streams: &mut Streams,
    warnings: &mut Vec<String>,
    hooks: &OwnersHooks,
) -> Result<Followed> {
    let failed = |step, errno, detail| Error::Launch {
        what: format!("starting container {name}"),
        step,
        detail,
        log: Vec::new(),
        source: match (step, errno) {
            (Step::User, libc::ENOENT) => std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "the image has no such user or group",
            ),
            // The errno says only that it ended with a failure.
            (Step::Hook, libc::ECHILD) => std::io::Error::other(hooks.output()),
            _ => std::io::Error::from_raw_os_error(errno),
        },
    };
    let deadline = Instant::now() + PATIENCE + hooks.patience();
    let (mut network, mut namespaces) = (None, None);
    let (wanted, mut sockets) = (networks.wanted_sockets(), Vec::new());
    loop {
        let event = helper
            .wait_event(Some(deadline))
            .map_err(Error::system("read from the helper"))?;
        if let Some(Event::Held { pid }) = event {
            // A rootless one cannot be entered again; then the next run gets a new one.
            namespaces = Namespaces::of(helper.pid(), pid)
                .ok()
                .filter(|_| rustix::process::geteuid().is_root());
        }
        match event {
            Some(Event::Paused { pid }) => {
                hooks.created(name, pid)?;
                helper.go().map_err(Error::system("let the payload go on"))?;
            }
            Some(Event::NetworkMade { namespace }) => network = Some(namespace),
            Some(Event::Held { .. }) if !wanted.is_empty() => {
                for (tag, (domain, kind, protocol)) in wanted.iter().enumerate() {
                    helper
                        .request_sockets(tag as u32, SocketPlace::Payload, *domain, *kind, *protocol, 1)
                        .map_err(Error::system("ask for a socket inside the container"))?;
                }
            }
            Some(Event::Sockets { errno, .. }) if errno != 0 => {
                return Err(failed(
                    Step::NetworkConfigure,
                    errno,
                    "a socket inside the container".into(),
                ));
            }
            Some(event @ (Event::Held { .. } | Event::Sockets { .. })) => {
                if let Event::Sockets { sockets: made, .. } = event {
                    sockets.extend(made);
                    if sockets.len() < wanted.len() {
                        continue;
                    }
                }
                let more = networks.connect(helper, network.take(), std::mem::take(&mut sockets))?;
                warnings.extend(more.iter().map(ToString::to_string));
                helper.go().map_err(Error::system("let the payload go"))?;
            }
            Some(Event::Warning { step, errno, detail }) => {
                let cause = std::io::Error::from_raw_os_error(errno);
                warnings.push(format!("{} {detail}: {cause}", step.doing()));
            }
            Some(Event::Started { pid, terminal, .. }) => {
                streams.terminal = terminal;
                return Ok(Followed { pid, namespaces });
            }
            Some(Event::Failed { step, errno, detail }) => return Err(failed(step, errno, detail)),
            Some(Event::Gone) => return Err(failed(Step::Spawn, libc::ESRCH, "the helper ended".into())),
            None => {
                return Err(failed(
                    Step::Spawn,
                    libc::ETIMEDOUT,
                    "the helper does not answer".into(),
                ));
            }
            Some(_) => {}
        }
    }
}
