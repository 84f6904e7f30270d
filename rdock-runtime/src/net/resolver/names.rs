//! Names of containers, from the records of who is in a network.

use crate::net::state::{HolderRecord, NetworkDir};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The user networks of one container.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(in crate::net) networks: Vec<NetworkDir>,
    /// What the container calls others: the place of the network above, the other's name there, its name here.
    pub(in crate::net) links: Vec<(usize, String, String)>,
}

/// Addresses of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) ipv4: Vec<Ipv4Addr>,
    pub(super) ipv6: Vec<Ipv6Addr>,
}

impl Names {
    /// Every address of a name: a container's name, the first 12 digits of its id, an alias; with or without the
    /// network's name behind a dot. A name of the container's own for another one goes before. `None` when no container
    /// has it.
    pub(super) fn find(&self, name: &str) -> Option<Addresses> {
        let mut found: Option<Addresses> = None;
        let links = self
            .links
            .iter()
            .filter(|(.., alias)| alias.eq_ignore_ascii_case(name));
        for (at, target, _) in links {
            if let Some(dir) = self.networks.get(*at) {
                self.find_in(dir, target, &mut found);
            }
        }
        if found.is_none() {
            self.networks
                .iter()
                .for_each(|dir| self.find_in(dir, name, &mut found));
        }
        found
    }

    fn find_in(&self, dir: &NetworkDir, name: &str, found: &mut Option<Addresses>) {
        let suffix_at = name.len().checked_sub(dir.name.len() + 1);
        let short = suffix_at.filter(|at| {
            name.is_char_boundary(*at)
                && name[*at..].starts_with('.')
                && name[at + 1..].eq_ignore_ascii_case(&dir.name)
        });
        let short = short.map(|at| &name[..at]);
        for holder in self.holders(dir) {
            let is = |text: &str| {
                text.eq_ignore_ascii_case(name) || short.is_some_and(|short| text.eq_ignore_ascii_case(short))
            };
            let id = holder.container.get(..12).unwrap_or(&holder.container);
            if is(&holder.name) || is(id) || holder.aliases.iter().any(|alias| is(alias)) {
                let addresses = found.get_or_insert_default();
                // It may have been found by another of its names.
                if !addresses.ipv4.contains(&holder.address) {
                    addresses.ipv4.push(holder.address);
                    addresses.ipv6.extend(holder.ipv6);
                }
            }
        }
    }

    /// The name of the container with an address, as `name.network`. `Ok(None)` when the address is in one of the
    /// networks and nobody has it, an error when it is not.
    pub(super) fn reverse(&self, ip: IpAddr) -> Result<Option<String>, ()> {
        let mut ours = false;
        for dir in &self.networks {
            let is = |holder: &HolderRecord| match ip {
                IpAddr::V4(ip) => holder.address == ip,
                IpAddr::V6(ip) => holder.ipv6 == Some(ip),
            };
            if let Some(holder) = self.holders(dir).find(is) {
                return Ok(Some(format!("{}.{}", holder.name, dir.name)));
            }
            if let Ok(Some(record)) = dir.read() {
                ours |= match ip {
                    IpAddr::V4(ip) => record.subnet().is_some_and(|subnet| subnet.contains(ip)),
                    IpAddr::V6(ip) => record
                        .ipv6
                        .and_then(|range| range.subnet())
                        .is_some_and(|subnet| subnet.contains(ip)),
                };
            }
        }
        if ours { Ok(None) } else { Err(()) }
    }

    fn holders(&self, dir: &NetworkDir) -> impl Iterator<Item = HolderRecord> + use<> {
        // A directory that is gone has nobody in it.
        let paths = dir.holders().unwrap_or_default();
        paths
            .into_iter()
            .filter_map(|(_, path)| HolderRecord::read(&path))
            .filter(HolderRecord::has_payload)
    }
}
