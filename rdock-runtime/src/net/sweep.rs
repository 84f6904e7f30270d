//! What networks that have ended left on the host: rules in Docker's chain, tables of kernels without the owner
//! flag, forwarding.

use super::forwarding;
use super::host::{COMMENT, DOCKER_CHAIN, DOCKER_TABLE, PREFIX, lock_path};
use super::messages::HostRoutes;
use super::netlink::Netlink;
use super::nft::{self, Batch, Family, TABLE_OWNER};
use super::state;
use std::io;
use std::time::Duration;

/// How long a sweep waits for whoever is making a network.
const PATIENCE: Duration = Duration::from_secs(2);

/// Removes what is left. Takes the host's lock when there is something.
pub(super) fn now() -> io::Result<()> {
    if find()?.is_nothing() {
        return Ok(());
    }
    let Some(_lock) = state::lock_within(&lock_path(), PATIENCE)? else {
        return Err(io::ErrorKind::WouldBlock.into());
    };
    // What was found without the lock may be of a network that was just being made.
    find()?.remove()
}

/// Sweeps when the uplink has gone, unless others still have containers in its network.
pub(super) fn after(uplink: &str) {
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(20));
        let Ok(interfaces) = Netlink::route().and_then(|mut socket| HostRoutes::interfaces(&mut socket))
        else {
            return;
        };
        if !interfaces.has_interface(uplink) {
            // What cannot be removed now is found at the next opening of a root.
            let _ = now();
            return;
        }
    }
}

#[derive(Debug)]
struct Remains {
    /// Handles in Docker's chain.
    rules: Vec<u64>,
    tables: Vec<String>,
    forwarding: bool,
}

fn find() -> io::Result<Remains> {
    let interfaces = HostRoutes::interfaces(&mut Netlink::route()?)?;
    let mut socket = Netlink::netfilter()?;
    let is_docker = |chain: &nft::Chain| {
        chain.family == Family::Ipv4 as u8 && chain.table == DOCKER_TABLE && chain.name == DOCKER_CHAIN
    };
    let mut rules = Vec::new();
    if nft::chains(&mut socket)?.iter().any(is_docker) {
        for (handle, comment) in nft::comments(&mut socket, DOCKER_TABLE, DOCKER_CHAIN)? {
            let ended = |uplink: &str| !interfaces.has_interface(uplink);
            if comment.strip_prefix(COMMENT).is_some_and(ended) {
                rules.push(handle);
            }
        }
    }
    let ended = |name: &str| {
        let uplink = name.rsplit_once('-').map(|(uplink, _)| uplink);
        uplink.is_some_and(|uplink| uplink.starts_with(PREFIX) && !interfaces.has_interface(uplink))
    };
    let tables = nft::tables(&mut socket)?
        .into_iter()
        .filter(|(name, flags)| flags & TABLE_OWNER == 0 && ended(name))
        .map(|(name, _)| name)
        .collect();
    let forwarding = !interfaces.has_uplink() && !forwarding::switched_on().is_empty();
    Ok(Remains {
        rules,
        tables,
        forwarding,
    })
}

impl Remains {
    fn is_nothing(&self) -> bool {
        self.rules.is_empty() && self.tables.is_empty() && !self.forwarding
    }

    fn remove(self) -> io::Result<()> {
        if !self.rules.is_empty() || !self.tables.is_empty() {
            let mut batch = Batch::new();
            for handle in self.rules {
                batch.delete_rule(Family::Ipv4, DOCKER_TABLE, DOCKER_CHAIN, handle);
            }
            for name in self.tables {
                batch.delete_table(Family::Ipv4, &name);
            }
            Netlink::netfilter()?.batch(&batch.finish())?;
        }
        if self.forwarding {
            forwarding::switch_off()?;
        }
        Ok(())
    }
}
