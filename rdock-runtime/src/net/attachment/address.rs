//! The address that a container takes in a network.

use super::{Subject, hex, own_identity};
use crate::net::error::NetError;
use crate::net::messages;
use crate::net::range::{Range4, Range6};
use crate::net::state::{HolderRecord, Lock, NetworkDir};
use crate::net::subnet6::Subnet6;
use crate::spec::EndpointSpec;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Where an address is taken.
pub(super) struct Place<'a> {
    pub(super) dir: &'a NetworkDir,
    pub(super) subject: Subject<'a>,
    pub(super) range: &'a Range4,
    pub(super) range6: Option<&'a Range6>,
    pub(super) endpoint: &'a EndpointSpec,
    pub(super) number: u32,
    pub(super) interface: String,
}

impl Place<'_> {
    pub(super) fn take(
        &self,
        lock: &mut Lock,
        holders: Vec<(Ipv4Addr, PathBuf)>,
    ) -> Result<(HolderRecord, PathBuf), NetError> {
        let dir = self.dir;
        let (ip, chosen) = match self.endpoint.ip {
            Some(ip) => (self.asked_for(ip, &holders)?, false),
            None => (self.free(lock, &holders)?, true),
        };
        let path = dir.holder_path(ip, self.subject.id);
        let mut holder = HolderRecord::new(self.subject.id, ip, own_identity(dir, &path)?);
        holder.name = self.subject.name.to_owned();
        holder.aliases.clone_from(&self.endpoint.aliases);
        holder.interface.clone_from(&self.interface);
        holder.number = Some(self.number);
        holder.ipv6 = self.ipv6(ip, &holders)?;
        holder.mac = Some(
            self.endpoint
                .mac
                .clone()
                .unwrap_or_else(|| hex(messages::hardware_address(ip))),
        );
        dir.write_holder(&path, &holder)?;
        if chosen {
            lock.set_cursor(ip)
                .map_err(|source| dir.error("write", path.with_file_name("lock"), source))?;
        }
        Ok((holder, path))
    }

    fn refused(&self, address: impl Into<IpAddr>, reason: impl Into<String>) -> NetError {
        NetError::Address {
            network: self.dir.name.clone(),
            address: address.into(),
            reason: reason.into(),
        }
    }

    fn asked_for(&self, ip: Ipv4Addr, holders: &[(Ipv4Addr, PathBuf)]) -> Result<Ipv4Addr, NetError> {
        if ip == self.range.gateway {
            return Err(self.refused(ip, "it is the gateway's"));
        }
        if self.range.subnet().is_none_or(|subnet| !subnet.holds(ip)) {
            return Err(self.refused(ip, format!("it is not in {}", self.range.subnet)));
        }
        for (_, path) in holders.iter().filter(|(taken, _)| *taken == ip) {
            match HolderRecord::read(path) {
                Some(holder) if holder.is_alive() => {
                    return Err(NetError::AddressInUse {
                        network: self.dir.name.clone(),
                        address: ip.into(),
                        container: holder.name,
                    });
                }
                _ => {
                    fs::remove_file(path).map_err(|source| self.dir.error("remove", path.clone(), source))?;
                }
            }
        }
        Ok(ip)
    }

    fn free(&self, lock: &mut Lock, holders: &[(Ipv4Addr, PathBuf)]) -> Result<Ipv4Addr, NetError> {
        let choice = self.range.choice();
        let taken: std::collections::HashSet<_> = holders.iter().map(|(ip, _)| *ip).collect();
        let cursor = lock.cursor();
        let found = choice
            .and_then(|choice| choice.next_free(cursor, |ip| taken.contains(&ip) || self.range.reserved(ip)));
        let found = found.or_else(|| {
            // Every address has a file; those of the dead are free.
            let (ip, path) = holders.iter().find(|(ip, path)| {
                choice.is_some_and(|choice| choice.contains(*ip))
                    && !HolderRecord::read(path).is_some_and(|holder| holder.is_alive())
            })?;
            fs::remove_file(path).ok()?;
            Some(*ip)
        });
        found.ok_or_else(|| NetError::NoFreeAddress {
            network: self.dir.name.clone(),
            subnet: choice.map_or_else(|| self.range.subnet.clone(), |choice| choice.to_string()),
        })
    }

    /// The IPv6 address: the one asked for, else that with the offset of the IPv4 address, or the next one free.
    fn ipv6(&self, ip: Ipv4Addr, holders: &[(Ipv4Addr, PathBuf)]) -> Result<Option<Ipv6Addr>, NetError> {
        let Some((range, subnet)) = self.range6.and_then(|range| Some((range, range.subnet()?))) else {
            return match self.endpoint.ip6 {
                Some(ip6) => Err(self.refused(ip6, "the network has no IPv6")),
                None => Ok(None),
            };
        };
        let others: Vec<HolderRecord> = holders
            .iter()
            .filter_map(|(_, path)| HolderRecord::read(path))
            .filter(|holder| holder.ipv6.is_some() && holder.is_alive())
            .collect();
        let whose = |ip6: Ipv6Addr| others.iter().find(|holder| holder.ipv6 == Some(ip6));
        if let Some(ip6) = self.endpoint.ip6 {
            if !subnet.contains(ip6) || ip6 == subnet.base {
                return Err(self.refused(ip6, format!("it is not in {subnet}")));
            }
            if ip6 == range.gateway {
                return Err(self.refused(ip6, "it is the gateway's"));
            }
            if let Some(holder) = whose(ip6) {
                return Err(NetError::AddressInUse {
                    network: self.dir.name.clone(),
                    address: ip6.into(),
                    container: holder.name.clone(),
                });
            }
            return Ok(Some(ip6));
        }
        let choice: Subnet6 = match &range.ip_range {
            Some(text) => text.parse().unwrap_or(subnet),
            None => subnet,
        };
        let base = self.range.subnet().map_or(0, |subnet| subnet.base.to_bits());
        let offset = u128::from(ip.to_bits().wrapping_sub(base));
        let reserved = |ip6: &Ipv6Addr| {
            *ip6 == range.gateway || *ip6 == subnet.base || range.auxiliary.values().any(|other| other == ip6)
        };
        // As many again as there are others is always enough, where there is room at all.
        let tries = others.len() as u128 + range.auxiliary.len() as u128 + 3;
        (offset..offset + tries)
            .chain(1..tries)
            .filter_map(|offset| choice.nth(offset))
            .find(|ip6| !reserved(ip6) && whose(*ip6).is_none())
            .map(Some)
            .ok_or_else(|| NetError::NoFreeAddress {
                network: self.dir.name.clone(),
                subnet: choice.to_string(),
            })
    }
}
